package middleware_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/scopes"
	"github.com/valetkey/valetkey/valetkeytest"
)

func TestDecision(t *testing.T) {
	t.Run("the zero value refuses", func(t *testing.T) {
		var d middleware.Decision
		assert.Error(t, d.Err())
		assert.Nil(t, d.Token())
		assert.Equal(t, 503, d.Status())
		assert.Equal(t, "5", d.Header().Get("Retry-After"))
		w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil)
		_, ok := d.Apply(w, r)
		assert.False(t, ok)
		assert.Equal(t, 503, w.Code)
		assert.ErrorIs(t, context.Cause(d.Context(t.Context())), d.Err())
	})
	iss := valetkeytest.NewIssuer(t)
	guard := newGuard(t, iss)
	t.Run("a refusal holds the whole response and no token", func(t *testing.T) {
		d := guard.Decide(valetkeytest.Request("GET", "/", iss.Token(valetkeytest.Scopes("a"))), scopes.All("b"))
		var refusal *valetkey.Error
		require.ErrorAs(t, d.Err(), &refusal)
		assert.Equal(t, valetkey.InsufficientScope, refusal.Code)
		assert.Nil(t, d.Token())
		assert.Equal(t, 403, d.Status())
		assert.Equal(t, "b", valetkeytest.Challenge(t, d.Header(), "Bearer")["scope"])
		assert.Equal(t, fmt.Sprint(len(d.Body())), d.Header().Get("Content-Length"))
		ctx := d.Context(t.Context())
		assert.Nil(t, valetkey.FromContext(ctx))
		assert.ErrorIs(t, context.Cause(ctx), d.Err(), "the context of a refused request has ended")
	})
	t.Run("a Decision that is printed shows no token", func(t *testing.T) {
		raw := iss.Token()
		for _, guard := range []*middleware.Guard{guard, newGuard(t, iss, cancels)} {
			for _, need := range []valetkey.Requirement{valetkey.AnyToken, scopes.All("b")} {
				d := guard.Decide(valetkeytest.Request("GET", "/", raw), need)
				assert.NotContains(t, fmt.Sprintf("%v %+v %#v", d, d, d), raw)
			}
		}
	})
	t.Run("what it lets through carries its token", func(t *testing.T) {
		d := guard.Decide(valetkeytest.Request("GET", "/", iss.Token(valetkeytest.Subject("alice"))))
		require.NoError(t, d.Err())
		assert.Equal(t, 200, d.Status())
		assert.Equal(t, "alice", d.Token().Subject())
		assert.Equal(t, "alice", valetkey.FromContext(d.Context(t.Context())).Subject())
		assert.Empty(t, d.Header())
	})
	t.Run("Public leaves the request alone, with the token of another guard", func(t *testing.T) {
		ctx := valetkey.NewContext(t.Context(), valetkey.NewToken(valetkey.TokenFields{Subject: "of another guard"}))
		r := valetkeytest.Request("GET", "/", "bad").WithContext(ctx)
		same, ok := guard.Decide(r, valetkey.Public).Apply(httptest.NewRecorder(), r)
		assert.True(t, ok)
		assert.Same(t, r, same)
	})
	t.Run("a preflight is refused with the response of its handler", func(t *testing.T) {
		guard := newGuard(t, iss, func(c *middleware.Config) { c.Preflight = cors })
		r := httptest.NewRequest("OPTIONS", "/", nil)
		r.Header.Set("Origin", "https://app.example.com")
		r.Header.Set("Access-Control-Request-Method", "PUT")
		d := guard.Decide(r, scopes.All("a"))
		assert.Error(t, d.Err())
		assert.Equal(t, 204, d.Status())
		assert.Equal(t, "https://app.example.com", d.Header().Get("Access-Control-Allow-Origin"))
	})
	t.Run("a nil refusal is a failure", func(t *testing.T) {
		typed := valetkey.RequirementFunc(func(valetkey.Access) error { return (*valetkey.Error)(nil) })
		for _, d := range []middleware.Decision{
			guard.Reject(nil, (*valetkey.Error)(nil)),
			guard.Decide(valetkeytest.Request("GET", "/", iss.Token()), typed),
			guard.Decide(valetkeytest.Request("GET", "/", iss.Token()), scopes.All("a"), typed),
		} {
			assert.Error(t, d.Err())
			assert.Equal(t, 503, d.Status())
		}
	})
	t.Run("a request that carries its token is refused once the token is revoked", func(t *testing.T) {
		for _, guard := range []*middleware.Guard{newGuard(t, iss), newGuard(t, iss, cancels)} {
			r := valetkeytest.Request("GET", "/", iss.Token(valetkeytest.Subject("alice")))
			r, ok := guard.Decide(r).Apply(httptest.NewRecorder(), r)
			require.True(t, ok)
			require.NoError(t, guard.Decide(r).Err())
			require.NoError(t, guard.Revoke(valetkey.Revocation{Issuer: iss.URL, Subject: "alice"}))
			assert.Equal(t, 401, guard.Decide(r).Status())
		}
	})
	t.Run("a token that a request carries is refused in the challenge of its scheme", func(t *testing.T) {
		key := iss.ProofKey("ES256")
		for scheme, token := range map[string]string{"DPoP": iss.Token(valetkeytest.BoundTo(key)), "Bearer": iss.Token()} {
			var seen recorder
			guard := newGuard(t, iss, withDPoP(t, iss), func(c *middleware.Config) { c.Observer = &seen })
			api := serve(t, guard.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				assert.NoError(t, guard.Revoke(valetkey.Revocation{Issuer: iss.URL, Subject: "alice"}))
				w.Header()["Www-Authenticate"] = guard.Decide(r).Header()["Www-Authenticate"]
			})))
			send := asBearer(token)
			if scheme == "DPoP" {
				send = asDPoP(key, token)
			}
			got := do(t, "GET", api, "", atRoot, send)
			assert.Equal(t, 200, got.status, got.body)
			assertError(t, got.header, scheme, "invalid_token")
			seen.mu.Lock()
			last := seen.events[len(seen.events)-1]
			seen.mu.Unlock()
			assert.Equal(t, valetkey.ReasonRevoked, last.Reason)
			assert.True(t, last.Remembered)
		}
	})
	t.Run("a request that carries its token is refused once the token has expired", func(t *testing.T) {
		now := time.Now()
		for name, token := range map[string]valetkey.TokenFields{
			"with a deadline":    {Expiry: now.Add(time.Minute), Deadline: now.Add(2 * time.Minute)},
			"without a deadline": {Expiry: now.Add(time.Minute)},
		} {
			now := now
			verifier := valetkey.VerifierFunc(func(context.Context, string) (*valetkey.Token, error) { return valetkey.NewToken(token), nil })
			guard := guardWith(t, verifier, func(c *middleware.Config) { c.Now = func() time.Time { return now } })
			ctx := guard.DecideToken(t.Context(), "x").Context(t.Context())
			r := httptest.NewRequest("GET", "/", nil).WithContext(ctx)
			assert.Equal(t, 200, guard.Decide(r).Status(), name)
			now = now.Add(time.Hour)
			assert.Equal(t, 401, guard.Decide(r).Status(), name)
			r.Header.Set("Authorization", "Bearer x")
			assert.Equal(t, 401, guard.Decide(r).Status(), name)
		}
	})
	t.Run("a request that carries its token is accepted until its deadline, and not for a leeway after its expiry", func(t *testing.T) {
		now := time.Now()
		token := valetkey.NewToken(valetkey.TokenFields{Expiry: now.Add(time.Minute), Deadline: now.Add(time.Minute + time.Second)})
		verifier := valetkey.VerifierFunc(func(context.Context, string) (*valetkey.Token, error) { return token, nil })
		guard := guardWith(t, verifier, func(c *middleware.Config) { c.Now = func() time.Time { return now } })
		r := httptest.NewRequest("GET", "/", nil).WithContext(guard.DecideToken(t.Context(), "x").Context(t.Context()))
		now = token.Deadline().Add(-1)
		assert.Equal(t, 200, guard.Decide(r).Status())
		now = token.Deadline()
		assert.Equal(t, 401, guard.Decide(r).Status())
	})
	t.Run("a request that carries its token stays the same request, and its decisions have the token", func(t *testing.T) {
		var seen recorder
		guard := newGuard(t, iss, func(c *middleware.Config) { c.Observer = &seen })
		r := valetkeytest.Request("GET", "/", iss.Token(valetkeytest.Subject("alice")))
		r, ok := guard.Decide(r).Apply(httptest.NewRecorder(), r)
		require.True(t, ok)
		same, ok := guard.Decide(r).Apply(httptest.NewRecorder(), r)
		require.True(t, ok)
		assert.Same(t, r, same)
		assert.Equal(t, 403, guard.Decide(r, scopes.All("admin")).Status())
		for i, e := range seen.events {
			assert.Equal(t, "alice", e.Token.Subject())
			assert.Equal(t, i > 0, e.Remembered)
		}
		require.Len(t, seen.events, 3)
	})
	t.Run("a request that carries its token goes on with it, if the refusal of its second decision is only reported", func(t *testing.T) {
		r := valetkeytest.Request("GET", "/", iss.Token(valetkeytest.Subject("alice")))
		r, ok := guard.Decide(r).Apply(httptest.NewRecorder(), r)
		require.True(t, ok)
		d := guard.Decide(r, valetkey.InsecureReportOnly{scopes.All("admin")})
		require.NoError(t, d.Err())
		require.NotNil(t, d.Token())
		assert.Equal(t, "alice", d.Token().Subject())
	})
	t.Run("a token that a verifier returns with an error is refused", func(t *testing.T) {
		verifier := valetkey.VerifierFunc(func(context.Context, string) (*valetkey.Token, error) {
			return valetkey.NewToken(valetkey.TokenFields{Subject: "alice"}), &valetkey.Error{Code: valetkey.InvalidToken, Reason: valetkey.ReasonSignature}
		})
		d := guardWith(t, verifier).DecideToken(t.Context(), "x")
		assert.Equal(t, valetkey.ReasonSignature, reasonOf(d.Err()))
		assert.Nil(t, d.Token())
	})
	t.Run("a request without a token has no remembered token", func(t *testing.T) {
		var seen recorder
		guard := newGuard(t, iss, func(c *middleware.Config) { c.Observer = &seen })
		d := guard.Decide(valetkeytest.Request("GET", "/", ""), valetkey.Optional)
		require.NoError(t, d.Err())
		assert.Nil(t, d.Token())
		require.Len(t, seen.events, 1)
		assert.False(t, seen.events[0].Remembered)
	})
	t.Run("a request that is sufficient is decided as without InsecureReportOnly", func(t *testing.T) {
		d := guard.Decide(valetkeytest.Request("GET", "/", iss.Token()), valetkey.InsecureReportOnly{valetkey.AnyToken})
		require.NoError(t, d.Err())
		assert.Empty(t, d.Header())
	})
	t.Run("a request that is refused without a reason is a failure for the observer", func(t *testing.T) {
		var seen recorder
		guard := newGuard(t, iss, func(c *middleware.Config) { c.Observer = &seen })
		assert.Equal(t, 503, guard.Reject(nil, nil).Status())
		require.Len(t, seen.events, 1)
		assert.Error(t, seen.events[0].Err)
	})
	t.Run("a failure without a time is to be retried after 5 s, another one after its time", func(t *testing.T) {
		for want, wait := range map[string]time.Duration{"5": 0, "2": 1500 * time.Millisecond} {
			d := guard.Reject(nil, &valetkey.Unavailable{RetryAfter: wait, Err: errors.New("down")})
			assert.Equal(t, want, d.Header().Get("Retry-After"))
		}
	})
	t.Run("the log has the method and the path of a request that is refused, and not its query", func(t *testing.T) {
		var out lines
		guard := newGuard(t, iss, func(c *middleware.Config) {
			c.Logger = slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
		})
		guard.Decide(valetkeytest.Request("PUT", "/orders/7?access_token=secret", ""))
		assert.Contains(t, out.buf.String(), `msg="request refused" method=PUT path=/orders/7 status=401`)
		assert.NotContains(t, out.buf.String(), "secret")
	})
	t.Run("a directive for caches of the API is replaced", func(t *testing.T) {
		guard := newGuard(t, iss, func(c *middleware.Config) {
			c.Methods = []middleware.BearerMethod{middleware.Cookie("session", http.NewCrossOriginProtection())}
		})
		r, w := httptest.NewRequest("GET", "/", nil), httptest.NewRecorder()
		r.AddCookie(&http.Cookie{Name: "session", Value: iss.Token()})
		w.Header().Set("Cache-Control", "public")
		_, ok := guard.Decide(r, valetkey.Optional).Apply(w, r)
		require.True(t, ok)
		assert.Equal(t, http.Header{"Cache-Control": {"private"}, "Vary": {"Authorization, Cookie"}}, w.Header())
	})
	t.Run("the observer sees each decision once", func(t *testing.T) {
		var seen recorder
		guard := newGuard(t, iss, func(c *middleware.Config) { c.Observer = &seen })
		guard.Decide(valetkeytest.Request("GET", "/", ""), scopes.All("a"))
		guard.Decide(valetkeytest.Request("GET", "/", ""), valetkey.Optional)
		guard.DecideToken(t.Context(), iss.Token())
		var statuses []int
		for _, e := range seen.events {
			statuses = append(statuses, e.Status)
		}
		assert.Equal(t, []int{401, 200, 200}, statuses)
	})
}

func TestDecideToken(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	guard := newGuard(t, iss, withDPoP(t, iss))
	for _, c := range []struct {
		name   string
		raw    string
		need   valetkey.Requirement
		status int
	}{
		{"no token", "", valetkey.AnyToken, 401},
		{"not the characters of a token", "a b", valetkey.AnyToken, 400},
		{"a long text", strings.Repeat("a", 900_000), valetkey.AnyToken, 401},
		{"an expired token", iss.Token(valetkeytest.Expired()), valetkey.AnyToken, 401},
		{"an expired token where none is needed", iss.Token(valetkeytest.Expired()), valetkey.Optional, 401},
		{"a token bound to a key, which nothing proves", iss.Token(valetkeytest.BoundTo(iss.ProofKey("ES256"))), valetkey.AnyToken, 401},
		{"a token bound to a certificate, of which there is none", iss.Token(valetkeytest.BoundToCertificate(valetkeytest.ClientCertificate(t))), valetkey.AnyToken, 401},
		{"too few scopes", iss.Token(valetkeytest.Scopes("a")), scopes.All("b"), 403},
		{"a rule about the request, of which there is none", iss.Token(), valetkey.RequirementFunc(func(a valetkey.Access) error {
			if a.Request == nil && a.PathValue("id") == "" {
				return &valetkey.Error{Code: valetkey.InsufficientScope}
			}
			return nil
		}), 403},
		{"no token where none is needed", "", valetkey.Optional, 200},
		{"no token is looked at", "bad", valetkey.Public, 200},
		{"a good token", iss.Token(valetkeytest.Scopes("a")), scopes.All("a"), 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := guard.DecideToken(t.Context(), c.raw, c.need)
			assert.Equal(t, c.status, d.Status())
			assert.Equal(t, c.status == 200, d.Err() == nil)
		})
	}
	t.Run("MTLS-01 a token bound to a certificate is refused, also where client certificates are accepted", func(t *testing.T) {
		for _, place := range []func(*middleware.Config){
			func(c *middleware.Config) { c.ClientCertificate = middleware.TLSCertificate() },
			func(c *middleware.Config) {
				c.ClientCertificate, c.Proxies.Trusted = middleware.ClientCertHeader(), prefixes("127.0.0.0/8")
			},
		} {
			guard := newGuard(t, iss, place)
			d := guard.DecideToken(t.Context(), iss.Token(valetkeytest.BoundToCertificate(valetkeytest.ClientCertificate(t))))
			var refusal *valetkey.Error
			require.ErrorAs(t, d.Err(), &refusal)
			assert.Equal(t, valetkey.ReasonUnknownBinding, refusal.Reason)
		}
	})
	t.Run("with CancelWithToken, the context ends when the token is revoked", func(t *testing.T) {
		guard := newGuard(t, iss, cancels)
		d := guard.DecideToken(t.Context(), iss.Token(valetkeytest.Subject("alice")))
		require.NoError(t, d.Err())
		ctx := d.Context(t.Context())
		require.NoError(t, ctx.Err())
		require.NoError(t, guard.Revoke(valetkey.Revocation{Issuer: iss.URL, Subject: "alice"}))
		<-ctx.Done()
		var refusal *valetkey.Error
		assert.ErrorAs(t, context.Cause(ctx), &refusal)
	})
}

func TestChallenge(t *testing.T) {
	guard := guardWith(t, valetkey.First(), func(c *middleware.Config) {
		c.Realm, c.ErrorURI = "orders", "https://docs.example.com/errors#x"
	})
	for _, c := range []struct {
		name string
		err  *valetkey.Error
		want string
	}{
		{"BT-06, BT-09 no credentials", &valetkey.Error{}, `Bearer realm="orders"`},
		{"no credentials never come with an error", &valetkey.Error{Reason: valetkey.NewReason("test_x", "x")}, `Bearer realm="orders"`},
		{"BT-10, BT-13 every parameter once", &valetkey.Error{Code: "invalid_token", Reason: valetkey.NewReason("test_d", "d"), Scope: valetkey.NewScopes("a", "b")},
			`Bearer realm="orders", error="invalid_token", error_description="d", error_uri="https://docs.example.com/errors#x", scope="a b"`},
		{"BT-11 a quote and a backslash", &valetkey.Error{Code: "invalid_token", Reason: valetkey.NewReason("test_a_b_c", `a "b" \c`)},
			`Bearer realm="orders", error="invalid_token", error_description="a  b   c", error_uri="https://docs.example.com/errors#x"`},
		{"BT-11 a line break that would begin a header", &valetkey.Error{Code: "invalid_token", Reason: valetkey.NewReason("test_a_r_nset_cookie_x_y", "a\r\nSet-Cookie: x=y")},
			`Bearer realm="orders", error="invalid_token", error_description="a  Set-Cookie: x=y", error_uri="https://docs.example.com/errors#x"`},
		{"BT-11 letters beyond ASCII", &valetkey.Error{Code: "invalid_token", Reason: valetkey.NewReason("test_gr_e_x00_x7f_xff", "größe\x00\x7f\xff")},
			`Bearer realm="orders", error="invalid_token", error_description="gr  e   ", error_uri="https://docs.example.com/errors#x"`},
		{"a refusal for which RFC 6750 has no code", &valetkey.Error{Code: valetkey.Forbidden, Reason: valetkey.ReasonClaimsForbid},
			`Bearer realm="orders", error_description="` + valetkey.ReasonClaimsForbid.Description() + `", error_uri="https://docs.example.com/errors#x"`},
		{"BT-11 an odd code", &valetkey.Error{Code: "a\"b\n"}, `Bearer realm="orders", error="a b ", error_uri="https://docs.example.com/errors#x"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := httptest.NewRecorder()
			r := httptest.NewRequest("GET", "/", nil)
			_, ok := guard.Reject(r, c.err).Apply(w, r)
			assert.False(t, ok)
			assert.Equal(t, []string{c.want}, w.Header().Values("WWW-Authenticate"))
			assert.Equal(t, "orders", valetkeytest.Challenge(t, w.Header(), "Bearer")["realm"])
		})
	}
}

func TestRefusal(t *testing.T) {
	t.Run("every refusal forbids its storing and sniffing", func(t *testing.T) {
		guard := guardWith(t, valetkey.First())
		for _, err := range []error{&valetkey.Error{}, errors.New("x"), nil} {
			header := guard.Reject(nil, err).Header()
			assert.Equal(t, "no-store", header.Get("Cache-Control"))
			assert.Equal(t, "nosniff", header.Get("X-Content-Type-Options"))
		}
	})
	t.Run("no error at all is a failure", func(t *testing.T) {
		d := guardWith(t, valetkey.First()).Reject(nil, nil)
		assert.Error(t, d.Err())
		assert.Equal(t, 503, d.Status())
		assert.Equal(t, "5", d.Header().Get("Retry-After"))
		assert.Equal(t, "Service Unavailable\n", string(d.Body()))
	})
	t.Run("a wrapped refusal is still a refusal", func(t *testing.T) {
		d := guardWith(t, valetkey.First()).Reject(nil,
			errors.Join(errors.New("inner detail"), &valetkey.Error{Code: valetkey.InvalidToken, Reason: valetkey.NewReason("test_d", "d"), Err: errors.New("cause")}))
		assert.Equal(t, 401, d.Status())
		assert.Equal(t, "Unauthorized: d\n", string(d.Body()))
	})
	t.Run("HTTP-09 problem details", func(t *testing.T) {
		guard := guardWith(t, valetkey.First(), func(c *middleware.Config) { c.ErrorBody = middleware.ProblemJSON })
		d := guard.Reject(nil, &valetkey.Error{
			Code: valetkey.InsufficientScope, Reason: valetkey.NewReason("test_too_little", "too little"), Scope: valetkey.NewScopes("a", "b"), Err: errors.New("internal"),
		})
		assert.Equal(t, "application/problem+json", d.Header().Get("Content-Type"))
		var problem map[string]any
		require.NoError(t, json.Unmarshal(d.Body(), &problem))
		assert.Equal(t, map[string]any{"type": "about:blank", "title": "Forbidden", "status": 403.0, "detail": "too little", "error": "insufficient_scope", "scope": "a b"}, problem)

		d = guard.Reject(nil, &valetkey.Error{Code: valetkey.Forbidden, Reason: valetkey.ReasonClaimsForbid})
		assert.JSONEq(t, `{"type":"about:blank","title":"Forbidden","status":403,"detail":"`+valetkey.ReasonClaimsForbid.Description()+`"}`, string(d.Body()))

		d = guard.Reject(nil, errors.New("internal"))
		assert.Equal(t, 503, d.Status())
		assert.JSONEq(t, `{"type":"about:blank","title":"Service Unavailable","status":503}`, string(d.Body()))
	})
	t.Run("HTTP-08 a hook changes the body and nothing else", func(t *testing.T) {
		var seen []valetkey.Code
		guard := guardWith(t, valetkey.First(), func(c *middleware.Config) {
			c.ErrorBody = func(ctx context.Context, status int, e *valetkey.Error) (string, []byte) {
				if e != nil {
					seen = append(seen, e.Code)
				}
				return "application/json", []byte(`{"ok":true}`)
			}
		})
		api := serve(t, guard.Handler(hello))
		got := do(t, "GET", api, "Bearer x")
		assert.Equal(t, 401, got.status)
		assert.Contains(t, got.challenge(), `error="invalid_token"`)
		assert.Equal(t, `{"ok":true}`, got.body)
		assert.Equal(t, "application/json", got.header.Get("Content-Type"))
		d := guard.Reject(nil, errors.New("x"))
		assert.Equal(t, 503, d.Status())
		assert.Empty(t, d.Header().Get("WWW-Authenticate"))
		assert.Equal(t, []valetkey.Code{valetkey.InvalidToken}, seen)
	})
	t.Run("a refusal to HEAD has no body and the length of one", func(t *testing.T) {
		got := do(t, "HEAD", serve(t, guardWith(t, valetkey.First()).Handler(hello)), "")
		assert.Equal(t, 401, got.status)
		assert.Empty(t, got.body)
		assert.Equal(t, "13", got.header.Get("Content-Length"))
	})
}

// Whatever a description holds, the challenge stays one line that parses to one challenge with the parameters it should have.
func FuzzChallenge(f *testing.F) {
	f.Add("the token has expired", "a", "invalid_token")
	f.Add("\"\\\r\n,é\x00", `" x="`, "")
	f.Fuzz(func(t *testing.T, description, scope, code string) {
		guard := guardWith(t, valetkey.First())
		var reason valetkey.Reason
		if description != "" {
			reason = valetkey.NewReason(fmt.Sprintf("fuzz_%x", sha256.Sum224([]byte(description))), description)
		}
		text := guard.Reject(nil, &valetkey.Error{Code: valetkey.Code(code), Reason: reason, Scope: valetkey.NewScopes(scope)}).Header().Get("WWW-Authenticate")
		if strings.Trim(text, "\t") != text || strings.ContainsFunc(text, func(c rune) bool { return c < ' ' || c > '~' }) {
			t.Fatalf("%q is not a header value", text)
		}
		challenges, err := valetkeytest.Challenges(http.Header{"Www-Authenticate": {text}})
		if err != nil || len(challenges) != 1 || challenges[0].Scheme != "Bearer" || challenges[0].Params["realm"] != "api" {
			t.Fatalf("%q parses to %v, %v", text, challenges, err)
		}
		for name := range challenges[0].Params {
			switch name {
			case "realm", "error", "error_description", "scope":
			default:
				t.Fatalf("%q has the parameter %s", text, name)
			}
		}
	})
}
