package middleware_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/claims"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/scopes"
	"github.com/valetkey/valetkey/valetkeytest"
)

// lines is a writer of log lines.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

// audited returns a function that sends a request to a guard with an Auditor, and one that ends it and returns the records.
func audited(t *testing.T, iss *valetkeytest.Issuer, o middleware.AuditOptions, change ...func(*middleware.Config)) (send func(*http.Request, ...valetkey.Requirement) int, records func() []map[string]any, text func() string) {
	t.Helper()
	var out lines
	o.Logger = quiet
	auditor, err := middleware.Audit(slog.NewJSONHandler(&out, nil), o)
	require.NoError(t, err)
	guard := newGuard(t, iss, append(change, func(c *middleware.Config) { c.Observer = auditor })...)
	send = func(r *http.Request, needs ...valetkey.Requirement) int {
		mux := http.NewServeMux()
		mux.Handle("GET /orders/{id}", guard.Handler(hello, needs...))
		mux.Handle("/", guard.Handler(hello, needs...))
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		return w.Code
	}
	text = func() string {
		require.NoError(t, auditor.Close(t.Context()))
		out.mu.Lock()
		defer out.mu.Unlock()
		return out.buf.String()
	}
	records = func() (all []map[string]any) {
		for line := range strings.Lines(text()) {
			var r map[string]any
			require.NoError(t, json.Unmarshal([]byte(line), &r), line)
			delete(r, "time")
			assert.Equal(t, o.Grants > 0, r["event.duration"] != nil)
			delete(r, "event.duration")
			all = append(all, r)
		}
		return all
	}
	return send, records, text
}

func TestAudit(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	read := valetkey.AllOf{scopes.All("orders:read"), claims.Present("tenant")}
	t.Run("AUDIT-01 each refusal is one record, and nothing else is", func(t *testing.T) {
		send, records, _ := audited(t, iss, middleware.AuditOptions{})
		assert.Equal(t, 401, send(valetkeytest.Request("GET", "/orders/7?secret=x", ""), read))
		assert.Equal(t, 403, send(valetkeytest.Request("GET", "/orders/7", iss.Token()), read))
		assert.Equal(t, 200, send(valetkeytest.Request("GET", "/orders/7", iss.Token(valetkeytest.Scopes("orders:read"), valetkeytest.Claim("tenant", "acme"))), read))
		assert.Equal(t, 401, send(valetkeytest.Request("PURGE", "/elsewhere", "bad"), read))
		assert.Equal(t, 503, send(valetkeytest.Request("GET", "/orders/7", iss.Token()), valetkey.RequirementFunc(func(valetkey.Access) error { return errors.New("down") })))
		all := records()
		require.Len(t, all, 4)
		common := map[string]any{"msg": "request decided", "client.address": "192.0.2.1", "http.request.method": "GET", "http.route": "GET /orders/{id}",
			"valetkey.scope": "orders:read", "valetkey.rules": "tenant", "valetkey.remembered": false, "event.type": "denied"}
		with := func(more map[string]any) map[string]any {
			r := map[string]any{}
			for _, m := range []map[string]any{common, more} {
				for k, v := range m {
					if r[k] = v; v == nil {
						delete(r, k)
					}
				}
			}
			return r
		}
		assert.Equal(t, with(map[string]any{"level": "WARN", "event.outcome": "failure", "event.reason": "no_credentials", "http.response.status_code": 401.0}), all[0])
		assert.Equal(t, with(map[string]any{"level": "WARN", "event.outcome": "failure", "event.reason": "claims_forbid", "http.response.status_code": 403.0,
			"user.id": "alice", "valetkey.issuer": iss.URL, "valetkey.client": "orders-app"}), all[1])
		assert.Equal(t, with(map[string]any{"level": "WARN", "event.outcome": "failure", "event.reason": "not_jwt", "http.response.status_code": 401.0,
			"http.request.method": "_OTHER", "http.route": "/"}), all[2])
		assert.Equal(t, with(map[string]any{"level": "ERROR", "event.outcome": "unknown", "http.response.status_code": 503.0,
			"user.id": "alice", "valetkey.issuer": iss.URL, "valetkey.client": "orders-app", "valetkey.scope": nil, "valetkey.rules": nil}), all[3])
	})
	t.Run("a party that acts for the subject is named beside it", func(t *testing.T) {
		for _, c := range []struct {
			name  string
			act   map[string]any
			actor any
		}{
			{"no actor", nil, nil},
			{"a service, which acts for another that is not named", map[string]any{"sub": "gateway", "act": map[string]any{"sub": "portal"}}, "gateway"},
			{"one without a subject", map[string]any{"client_id": "gateway-app"}, "gateway-app"},
		} {
			t.Run(c.name, func(t *testing.T) {
				send, records, _ := audited(t, iss, middleware.AuditOptions{Grants: 1})
				token := iss.Token()
				if c.act != nil {
					token = iss.Token(valetkeytest.Claim("act", c.act))
				}
				assert.Equal(t, 200, send(valetkeytest.Request("GET", "/orders/7", token)))
				r := records()[0]
				assert.Equal(t, "alice", r["user.id"])
				assert.Equal(t, c.actor, r["valetkey.actor"])
			})
		}
	})
	t.Run("AUDIT-01 grants by option", func(t *testing.T) {
		send, records, _ := audited(t, iss, middleware.AuditOptions{Grants: 1})
		assert.Equal(t, 200, send(valetkeytest.Request("GET", "/orders/7", iss.Token())))
		all := records()
		require.Len(t, all, 1)
		assert.Equal(t, "success", all[0]["event.outcome"])
		assert.Equal(t, "allowed", all[0]["event.type"])
		assert.Equal(t, "alice", all[0]["user.id"])
	})
	t.Run("AUDIT-02 no token, proof, cookie, header or query", func(t *testing.T) {
		send, _, text := audited(t, iss, middleware.AuditOptions{Grants: 1}, func(c *middleware.Config) { c.Methods = []middleware.BearerMethod{middleware.Query()} })
		token := iss.Token()
		for _, r := range []*http.Request{valetkeytest.Request("GET", "/orders/7?q=needle", token), valetkeytest.Request("GET", "/orders/7?access_token="+token, ""),
			valetkeytest.Request("GET", "/orders/7", "needle")} {
			for _, name := range []string{"Cookie", "DPoP", "X-Api-Key", "User-Agent", "Traceparent"} {
				r.Header.Set(name, "needle")
			}
			send(r)
		}
		all := text()
		assert.Equal(t, 3, strings.Count(all, "\n"))
		assert.NotContains(t, all, "needle")
		for part := range strings.SplitSeq(token, ".") {
			assert.NotContains(t, all, part)
		}
	})
	t.Run("AUDIT-03 hashed, equal for equal users and keys", func(t *testing.T) {
		ids := func(key byte) (ids []any) {
			send, records, text := audited(t, iss, middleware.AuditOptions{Grants: 1, Identity: middleware.IdentityHashed, Key: bytes.Repeat([]byte{key}, 32)})
			for _, subject := range []string{"alice", "alice", "bob"} {
				send(valetkeytest.Request("GET", "/", iss.Token(valetkeytest.Subject(subject))))
			}
			assert.NotContains(t, text(), "alice")
			assert.NotContains(t, text(), "orders-app")
			assert.NotContains(t, text(), "192.0.2.1")
			for _, r := range records() {
				ids = append(ids, r["user.id"])
			}
			return ids
		}
		first, second := ids(1), ids(2)
		require.Len(t, first, 3)
		assert.Len(t, first[0], 32)
		assert.Equal(t, first[0], first[1])
		assert.NotEqual(t, first[0], first[2])
		assert.NotEqual(t, first[0], second[0])
	})
	t.Run("AUDIT-03 omitted", func(t *testing.T) {
		send, records, _ := audited(t, iss, middleware.AuditOptions{Grants: 1, Identity: middleware.IdentityOmitted})
		send(valetkeytest.Request("GET", "/", iss.Token()))
		for _, name := range []string{"user.id", "valetkey.client", "valetkey.actor", "client.address"} {
			assert.NotContains(t, records()[0], name)
		}
	})
	t.Run("AUDIT-05 a line break in a name is escaped", func(t *testing.T) {
		send, _, text := audited(t, iss, middleware.AuditOptions{Grants: 1})
		r := valetkeytest.Request("GET", "/", iss.Token(valetkeytest.Subject("a\r\nb")))
		send(r)
		assert.Equal(t, 1, strings.Count(text(), "\n"))
		assert.Contains(t, text(), `a\r\nb`)
	})
	t.Run("the identifiers of the request and its trace", func(t *testing.T) {
		send, records, _ := audited(t, iss, middleware.AuditOptions{RequestID: func(r *http.Request) string { return r.Header.Get("X-Request-Id") }})
		r := valetkeytest.Request("GET", "/", "")
		r.Header.Set("X-Request-Id", "r-1")
		r.Header.Set("Traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
		send(r)
		assert.Equal(t, "r-1", records()[0]["http.request.id"])
		assert.Equal(t, "4bf92f3577b34da6a3ce929d0e0e4736", records()[0]["trace.id"])
	})
	t.Run("all mistakes are named at once", func(t *testing.T) {
		_, err := middleware.Audit(nil, middleware.AuditOptions{Grants: 2, Identity: middleware.IdentityHashed, Key: []byte("short"), Queue: -1})
		for _, part := range []string{"handler: required", "Grants: 2 is not from 0 to 1", "Key: has 5 bytes", "Queue: -1 is negative"} {
			assert.ErrorContains(t, err, part)
		}
		_, err = middleware.Audit(slog.DiscardHandler, middleware.AuditOptions{Identity: "secret"})
		assert.ErrorContains(t, err, `Identity: "secret" is not`)
		_, err = middleware.Audit(slog.DiscardHandler, middleware.AuditOptions{Key: make([]byte, 32)})
		assert.ErrorContains(t, err, "Key: has no effect")
	})
}

// A stuck handler writes a record when it is released.
type stuck struct {
	slog.Handler
	entered, release chan struct{}
}

func (s stuck) Handle(ctx context.Context, r slog.Record) error {
	s.entered <- struct{}{}
	<-s.release
	return s.Handler.Handle(ctx, r)
}

func TestAuditWithAHandlerThatBlocks(t *testing.T) {
	refusal := valetkey.Event{Kind: valetkey.RequestDecided, Status: 401, Err: errors.New("refused")}
	start := func(o middleware.AuditOptions) (*middleware.Auditor, stuck, *lines) {
		out := new(lines)
		s := stuck{slog.NewTextHandler(out, nil), make(chan struct{}, 100), make(chan struct{})}
		o.Logger = quiet
		a, err := middleware.Audit(s, o)
		require.NoError(t, err)
		return a, s, out
	}
	t.Run("AUDIT-04 requests go on, and records that are dropped are counted", func(t *testing.T) {
		a, s, out := start(middleware.AuditOptions{Queue: 2})
		a.Observe(t.Context(), refusal)
		<-s.entered
		for range 5 {
			a.Observe(t.Context(), refusal)
		}
		assert.EqualValues(t, 3, a.Dropped())
		canceled, cancel := context.WithCancel(t.Context())
		cancel()
		assert.ErrorIs(t, a.Close(canceled), context.Canceled)
		close(s.release)
		require.NoError(t, a.Close(t.Context()))
		assert.Equal(t, 3, strings.Count(out.buf.String(), "\n"), "those in the queue are written")
		a.Observe(t.Context(), refusal)
		assert.EqualValues(t, 4, a.Dropped())
	})
	t.Run("AUDIT-04 with Block a request waits", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a, s, out := start(middleware.AuditOptions{Queue: 1, Block: true})
			a.Observe(t.Context(), refusal)
			<-s.entered
			a.Observe(t.Context(), refusal) // in the queue
			done := false
			go func() {
				a.Observe(t.Context(), refusal)
				done = true
			}()
			synctest.Wait()
			assert.False(t, done)
			s.release <- struct{}{}
			<-s.entered // the second has left the queue
			synctest.Wait()
			assert.True(t, done)
			close(s.release)
			require.NoError(t, a.Close(t.Context()))
			assert.Equal(t, 3, strings.Count(out.buf.String(), "\n"))
			assert.Zero(t, a.Dropped())
		})
	})
	t.Run("AUDIT-04 with Block a request waits no longer than until Close, and its record is counted", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a, s, _ := start(middleware.AuditOptions{Queue: 1, Block: true})
			a.Observe(t.Context(), refusal)
			<-s.entered
			a.Observe(t.Context(), refusal) // in the queue
			go a.Observe(t.Context(), refusal)
			synctest.Wait()
			canceled, cancel := context.WithCancel(t.Context())
			cancel()
			assert.ErrorIs(t, a.Close(canceled), context.Canceled)
			synctest.Wait()
			assert.EqualValues(t, 1, a.Dropped())
			close(s.release)
			require.NoError(t, a.Close(t.Context()))
		})
	})
}

type panics struct{ slog.Handler }

func (panics) Handle(context.Context, slog.Record) error { panic("out of order") }

func TestAuditWithAHandlerThatPanics(t *testing.T) {
	out := new(lines)
	a, err := middleware.Audit(panics{slog.NewTextHandler(out, nil)}, middleware.AuditOptions{Logger: slog.New(slog.NewTextHandler(out, nil))})
	require.NoError(t, err)
	for range 3 {
		a.Observe(t.Context(), valetkey.Event{Kind: valetkey.RequestDecided, Status: 401, Err: errors.New("refused")})
	}
	require.NoError(t, a.Close(t.Context()))
	assert.EqualValues(t, 3, a.Dropped())
	assert.Contains(t, out.buf.String(), "out of order")
}

func TestInsecureReportOnly(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	seen := new(recorder)
	observed := func(c *middleware.Config) { c.Observer = seen }
	whole := newGuard(t, iss, observed, func(c *middleware.Config) { c.InsecureReportOnly = true })
	assert.True(t, whole.Status().ReportOnly)
	perRoute := newGuard(t, iss, observed)
	assert.False(t, perRoute.Status().ReportOnly)
	need := scopes.All("orders:read")
	for name, api := range map[string]string{
		"a guard": serve(t, whole.Handler(hello, need)),
		"a route": serve(t, perRoute.Handler(hello, valetkey.InsecureReportOnly{need})),
	} {
		for _, c := range []struct {
			name, authorization, body string
			status                    int
			reason                    valetkey.Reason
		}{
			{"no token", "", "hello nobody", 401, valetkey.ReasonNoCredentials},
			{"a bad token", "Bearer x", "hello nobody", 401, valetkey.ReasonNotJWT},
			{"a malformed request", "Bearer", "hello nobody", 400, valetkey.ReasonEmptyToken},
			{"an expired token", "Bearer " + iss.Token(valetkeytest.Expired()), "hello nobody", 401, valetkey.ReasonExpired},
			{"too little scope", "Bearer " + iss.Token(), "hello alice", 403, valetkey.ReasonScope},
			{"a sufficient token", "Bearer " + iss.Token(valetkeytest.Scopes("orders:read")), "hello alice", 200, ""},
		} {
			t.Run(name+": "+c.name, func(t *testing.T) {
				seen.mu.Lock()
				seen.events = nil
				seen.mu.Unlock()
				got := do(t, "GET", api, c.authorization)
				assert.Equal(t, 200, got.status)
				assert.Equal(t, c.body, got.body)
				assert.Empty(t, got.header.Get("WWW-Authenticate"))
				seen.mu.Lock()
				defer seen.mu.Unlock()
				require.Len(t, seen.events, 1)
				e := seen.events[0]
				assert.Equal(t, c.status, e.Status)
				assert.Equal(t, c.reason, e.Reason)
				assert.Equal(t, c.status != 200, e.ReportOnly)
			})
		}
	}
	t.Run("a shared cache keeps callers apart", func(t *testing.T) {
		guard := newGuard(t, iss, func(c *middleware.Config) {
			c.InsecureReportOnly, c.Methods = true, []middleware.BearerMethod{middleware.Cookie("session", http.NewCrossOriginProtection())}
		})
		h := guard.Handler(hello, need)
		for _, c := range []struct {
			name, cookie, body, control string
		}{
			{"no token", "", "hello nobody", ""},
			{"too little scope", iss.Token(), "hello alice", "private"},
			{"a sufficient token", iss.Token(valetkeytest.Scopes("orders:read")), "hello alice", "private"},
		} {
			r := httptest.NewRequestWithContext(t.Context(), "GET", "/", nil)
			if c.cookie != "" {
				r.AddCookie(&http.Cookie{Name: "session", Value: c.cookie})
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			assert.Equal(t, c.body, w.Body.String(), c.name)
			assert.Equal(t, c.control, w.Header().Get("Cache-Control"), c.name)
			if c.control == "" {
				assert.Equal(t, "Authorization, Cookie", w.Header().Get("Vary"), c.name)
			}
		}
	})
	t.Run("a revoked token is not handed on", func(t *testing.T) {
		guard := newGuard(t, iss, func(c *middleware.Config) { c.InsecureReportOnly = true })
		api := serve(t, guard.Handler(hello))
		token := "Bearer " + iss.Token()
		assert.Equal(t, "hello alice", do(t, "GET", api, token).body)
		require.NoError(t, guard.Revoke(valetkey.Revocation{Issuer: iss.URL, Subject: "alice"}))
		assert.Equal(t, "hello nobody", do(t, "GET", api, token).body)
	})
	t.Run("it is loud", func(t *testing.T) {
		var out lines
		newGuard(t, iss, func(c *middleware.Config) {
			c.InsecureReportOnly, c.Logger = true, slog.New(slog.NewTextHandler(&out, nil))
		})
		assert.Contains(t, out.buf.String(), "level=WARN")
	})
	t.Run("a route is as loud, and counted", func(t *testing.T) {
		var out lines
		guard := newGuard(t, iss, func(c *middleware.Config) { c.Logger = slog.New(slog.NewTextHandler(&out, nil)) })
		guard.Handler(hello, need)
		assert.Empty(t, out.buf.String())
		assert.Zero(t, guard.Status().ReportOnlyRoutes)
		guard.Handler(hello, valetkey.InsecureReportOnly{need, claims.Equal("tier", "gold")})
		assert.Contains(t, out.buf.String(), `level=WARN msg="report-only mode of a route: its refusals are reported and not enforced" scope=orders:read rules="tier = gold"`)
		assert.Equal(t, 1, guard.Status().ReportOnlyRoutes)
		guard.Require(valetkey.InsecureReportOnly{need})(hello)
		assert.Equal(t, 2, guard.Status().ReportOnlyRoutes)
		assert.False(t, guard.Status().ReportOnly, "the other routes are enforced")
	})
	t.Run("among other requirements it is a failure", func(t *testing.T) {
		api := serve(t, perRoute.Handler(hello, valetkey.InsecureReportOnly{need}, need))
		assert.Equal(t, 503, do(t, "GET", api, "Bearer "+iss.Token(valetkeytest.Scopes("orders:read"))).status)
	})
}

func BenchmarkAudit(b *testing.B) {
	iss := valetkeytest.NewIssuer(b)
	auditor, err := middleware.Audit(slog.DiscardHandler, middleware.AuditOptions{})
	require.NoError(b, err)
	b.Cleanup(func() { auditor.Close(context.Background()) })
	r := valetkeytest.Request("GET", "/orders", iss.Token())
	for name, change := range map[string]func(*middleware.Config){
		"without": func(*middleware.Config) {},
		"with":    func(c *middleware.Config) { c.Observer = auditor },
	} {
		h := newGuard(b, iss, change).Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		b.Run(name, func(b *testing.B) {
			w := httptest.NewRecorder()
			b.ReportAllocs()
			for b.Loop() {
				h.ServeHTTP(w, r)
			}
		})
	}
}
