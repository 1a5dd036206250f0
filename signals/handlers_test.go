package signals_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/internal/jose"
	"github.com/valetkey/valetkey/signals"
	"github.com/valetkey/valetkey/valetkeytest"
)

const revocationEndpoint = "https://api.example.com/global-token-revocation"

// globally is the configuration of a receiver of global revocations that a sends, of users that it has and that people knows.
func globally(a *api, s *sink, changes ...func(*signals.Config)) signals.Config {
	cfg := signals.Config{Delivery: signals.NoStream, Issuer: "https://as.example.com", Guards: []signals.Guard{s}, Resolve: people, Client: a.iss.Client(),
		Logger:           slog.New(slog.DiscardHandler),
		GlobalRevocation: signals.GlobalRevocationConfig{Audience: []string{revocationEndpoint}, Issuer: a.iss.URL}}
	for _, c := range changes {
		c(&cfg)
	}
	return cfg
}

// assertion returns the JWT that authenticates a global revocation.
func (a *api) assertion(opts ...valetkeytest.Option) string {
	return a.iss.Token(append([]valetkeytest.Option{valetkeytest.Type("global-token-revocation+jwt"), valetkeytest.Claim("aud", revocationEndpoint),
		valetkeytest.Claim("sub", "client"), valetkeytest.Claim("iat", time.Now().Unix()), valetkeytest.Claim("exp", time.Now().Add(5*time.Minute).Unix())}, opts...)...)
}

const aliceByEmail = `{"sub_id":{"format":"email","email":"alice@example.com"}}`

// globalRequest returns a request for a global revocation.
func globalRequest(token string, body io.Reader) *http.Request {
	req := httptest.NewRequest("POST", "/global-token-revocation", body)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+token)
	return req
}

func revokeGlobally(r *signals.Receiver, token, body string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	r.GlobalRevocation().ServeHTTP(w, globalRequest(token, strings.NewReader(body)))
	return w
}

// A handler is one of those of a receiver, with a request that it accepts.
type handler struct {
	of       func(*signals.Receiver) http.Handler
	off, on  func(s *sink) signals.Config
	request  func(body io.Reader) *http.Request
	body     func() string
	maxBody  int
	accepted int
	noStore  bool
}

func handlers(t *testing.T) map[string]handler {
	tr, a := newTransmitter(t), newAPI(t)
	return map[string]handler{
		"push": {(*signals.Receiver).Handler,
			func(s *sink) signals.Config { return logouts(a, to(s)) },
			func(s *sink) signals.Config { return tr.config(to(s)) },
			func(body io.Reader) *http.Request {
				req := httptest.NewRequest("POST", "/events", body)
				req.Header.Set("Content-Type", "application/secevent+jwt")
				return req
			}, func() string { return tr.set() }, jose.MaxToken, 202, false},
		"logout": {(*signals.Receiver).Logout,
			func(s *sink) signals.Config { return tr.config(to(s)) },
			func(s *sink) signals.Config { return logouts(a, to(s)) },
			func(body io.Reader) *http.Request {
				req := httptest.NewRequest("POST", "/backchannel-logout", body)
				req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
				return req
			}, func() string { return url.Values{"logout_token": {a.logoutToken("alice", "s1")}}.Encode() }, jose.MaxToken + 1024, 200, true},
		"global revocation": {(*signals.Receiver).GlobalRevocation,
			func(s *sink) signals.Config { return tr.config(to(s)) },
			func(s *sink) signals.Config { return globally(a, s) },
			func(body io.Reader) *http.Request { return globalRequest(a.assertion(), body) },
			func() string { return aliceByEmail }, 8 << 10, 204, true},
	}
}

// A deadlined is a response with a read deadline.
type deadlined struct {
	*httptest.ResponseRecorder
	at time.Time
}

func (d *deadlined) SetReadDeadline(at time.Time) error {
	d.at = at
	return nil
}

// A gated body arrives when it is released.
type gated struct {
	reading func()
	release chan struct{}
	io.Reader
}

func (g *gated) Read(p []byte) (int, error) {
	if g.reading != nil {
		g.reading()
		g.reading = nil
		<-g.release
	}
	return g.Reader.Read(p)
}

func TestHandlers(t *testing.T) {
	for name, h := range handlers(t) {
		serve := func(handler http.Handler, req *http.Request) *httptest.ResponseRecorder {
			w := httptest.NewRecorder()
			handler.ServeHTTP(w, req)
			return w
		}
		t.Run(name+": without its configuration the answer is 404, and nothing is read", func(t *testing.T) {
			s := &sink{}
			w := serve(h.of(newReceiver(t, h.off(s))), h.request(unreadable{t}))
			assert.Equal(t, 404, w.Code)
			assert.Empty(t, w.Body.String())
		})
		t.Run(name+": only POST is accepted", func(t *testing.T) {
			s := &sink{}
			handler := h.of(newReceiver(t, h.on(s)))
			for _, method := range []string{"GET", "HEAD", "PUT", "DELETE", "OPTIONS"} {
				req := h.request(unreadable{t})
				req.Method = method
				w := serve(handler, req)
				assert.Equal(t, 405, w.Code)
				assert.Equal(t, "POST", w.Header().Get("Allow"))
				assert.Empty(t, w.Body.String())
			}
		})
		t.Run(name+": a request is accepted, and its body must arrive within 20 s", func(t *testing.T) {
			s := &sink{}
			w := &deadlined{ResponseRecorder: httptest.NewRecorder()}
			before := time.Now()
			h.of(newReceiver(t, h.on(s))).ServeHTTP(w, h.request(strings.NewReader(h.body())))
			assert.Equal(t, h.accepted, w.Code)
			assert.Empty(t, w.Body.String())
			assert.Len(t, s.what(), 1)
			assert.False(t, w.at.Before(before.Add(20*time.Second)), "%v", w.at)
			assert.False(t, w.at.After(time.Now().Add(20*time.Second)), "%v", w.at)
			assert.Equal(t, h.noStore, w.Header().Get("Cache-Control") == "no-store")
		})
		t.Run(name+": 256 at the same time, and further ones later", func(t *testing.T) {
			s := &sink{}
			handler := h.of(newReceiver(t, h.on(s)))
			require.Equal(t, h.accepted, serve(handler, h.request(strings.NewReader(h.body()))).Code)
			release, body := make(chan struct{}), h.body()
			var reading, served sync.WaitGroup
			reading.Add(256)
			for range 256 {
				req := h.request(&gated{reading.Done, release, strings.NewReader(body)})
				served.Go(func() { assert.Equal(t, h.accepted, serve(handler, req).Code) })
			}
			reading.Wait()
			w := serve(handler, h.request(unreadable{t}))
			assert.Equal(t, 503, w.Code)
			assert.Equal(t, "1", w.Header().Get("Retry-After"))
			assert.Empty(t, w.Body.String())
			close(release)
			served.Wait()
			assert.Equal(t, h.accepted, serve(handler, h.request(strings.NewReader(body))).Code)
		})
		t.Run(name+": a revocation that is not kept is answered with 503, counted, and accepted later", func(t *testing.T) {
			down := &sink{err: errors.New("redis is down")}
			cfg := h.on(&sink{})
			cfg.Publish = down
			var log logBuffer
			log.log(&cfg)
			r := newReceiver(t, cfg)
			for range 2 {
				w := serve(h.of(r), h.request(strings.NewReader(h.body())))
				assert.Equal(t, 503, w.Code)
				assert.Equal(t, "1", w.Header().Get("Retry-After"))
				assert.Empty(t, w.Body.String())
			}
			assert.Equal(t, map[string]uint64{"failed": 2}, r.Status().Outcomes)
			assert.Contains(t, log.String(), "events cannot be applied now")
			assert.Contains(t, log.String(), "redis is down")
			down.fail(nil)
			assert.Equal(t, h.accepted, serve(h.of(r), h.request(strings.NewReader(h.body()))).Code)
			assert.Equal(t, map[string]uint64{"failed": 2, "applied": 1}, r.Status().Outcomes)
			assert.Equal(t, 1, strings.Count(log.String(), "\n"), "%s", log.String())
		})
		t.Run(name+": a body that breaks off is refused", func(t *testing.T) {
			s := &sink{}
			w := serve(h.of(newReceiver(t, h.on(s))), h.request(io.MultiReader(strings.NewReader(h.body()), broken{})))
			assert.Equal(t, 400, w.Code)
			assert.Equal(t, "invalid_request", errOf(t, w))
			assert.Contains(t, descriptionOf(t, w), "could not be read")
			assert.Empty(t, s.what())
		})
		t.Run(name+": without the keys the answer is 503, and nothing is revoked", func(t *testing.T) {
			s, cfg := &sink{}, h.on(nil)
			cfg.Guards = []signals.Guard{s}
			cfg.Client = &http.Client{Transport: down{}}
			r := newReceiver(t, cfg)
			w := serve(h.of(r), h.request(strings.NewReader(h.body())))
			assert.Equal(t, 503, w.Code)
			assert.NotEmpty(t, w.Header().Get("Retry-After"))
			assert.Equal(t, map[string]uint64{"failed": 1}, r.Status().Outcomes)
			assert.Empty(t, s.what())
		})
	}
}

// down is a network without hosts.
type down struct{}

func (down) RoundTrip(*http.Request) (*http.Response, error) {
	return nil, errors.New("the network is down")
}

// broken is a body that breaks off.
type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("the connection is reset") }

func TestPushes(t *testing.T) {
	tr := newTransmitter(t)
	t.Run("another Content-Type, or a malformed one, is refused", func(t *testing.T) {
		s := &sink{}
		r := newReceiver(t, tr.config(to(s)))
		for _, kind := range []string{"application/json", "", "application/secevent+jwt; x"} {
			w := push(r, tr.set(), func(r *http.Request) { r.Header.Set("Content-Type", kind) })
			assert.Equal(t, "invalid_request", errOf(t, w))
			assert.Contains(t, descriptionOf(t, w), "the Content-Type is not application/secevent+jwt", kind)
		}
		assert.Empty(t, s.what())
		assert.Equal(t, 202, push(r, tr.set(), func(r *http.Request) { r.Header.Set("Content-Type", "application/secevent+jwt; charset=utf-8") }).Code)
	})
	t.Run("an Authorization header that is not expected is ignored, and one that is missing is counted", func(t *testing.T) {
		assert.Equal(t, 202, push(newReceiver(t, tr.config()), tr.set(), authorized).Code)
		r := newReceiver(t, tr.config(func(cfg *signals.Config) { cfg.AuthorizationHeader = secret }))
		assert.Equal(t, 401, push(r, tr.set()).Code)
		assert.Equal(t, map[string]uint64{"unauthenticated": 1}, r.Status().Outcomes)
	})
	t.Run("an event that revokes nothing asks nothing of the guards", func(t *testing.T) {
		s := &sink{}
		assert.Equal(t, 202, push(newReceiver(t, tr.config(to(s))), tr.set(event("https://example.com/event", M{}))).Code)
		assert.Zero(t, s.n)
	})
	t.Run("the time of a request ends with it", func(t *testing.T) {
		var asked context.Context
		r := newReceiver(t, tr.config(func(cfg *signals.Config) {
			cfg.Resolve = func(ctx context.Context, _ signals.Subject) ([]string, error) {
				asked = ctx
				at, limited := ctx.Deadline()
				assert.True(t, limited)
				assert.False(t, at.After(time.Now().Add(20*time.Second)))
				return nil, nil
			}
		}))
		require.Equal(t, 202, push(r, tr.set(claim("sub_id", M{"format": "email", "email": "x@example.com"}))).Code)
		assert.ErrorIs(t, asked.Err(), context.Canceled)
	})
	t.Run("Retry-After is that of the keys, which are fetched every 30 s at most", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tr := newTransmitterInMemory(t)
			r := newReceiver(t, tr.config())
			unknown := func(kid string) *httptest.ResponseRecorder {
				return push(r, tr.set(with(newKey(t, "ES256")), header("kid", kid)))
			}
			w := unknown("a")
			for range 3 { // until no fetch is left
				time.Sleep(time.Millisecond)
				w = unknown("a")
			}
			assert.Equal(t, 503, w.Code)
			assert.Equal(t, "30", w.Header().Get("Retry-After"))
			time.Sleep(30 * time.Second)
			assert.Equal(t, "invalid_key", errOf(t, unknown("b")))
			r.Close()
			tr.close()
		})
	})
	t.Run("sixteen SETs wait for the audience at the same time, again and again", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tr := newTransmitterInMemory(t)
			r := newReceiver(t, tr.config(managed(signals.Push)))
			for range 3 {
				begun := time.Now()
				var waiting sync.WaitGroup
				for range 16 {
					waiting.Go(func() {
						assert.Equal(t, 503, pushed(r, tr.set()))
						assert.Equal(t, 5*time.Second, time.Since(begun))
					})
				}
				synctest.Wait()
				assert.Equal(t, 503, pushed(r, tr.set()))
				assert.Equal(t, begun, time.Now())
				waiting.Wait()
			}
			r.Close()
			tr.close()
		})
	})
}

func TestContentTypeOfLogouts(t *testing.T) {
	a, s := newAPI(t), &sink{}
	r := newReceiver(t, logouts(a, to(s)))
	for _, kind := range []string{"application/json", "application/logout+jwt", "", "application/x-www-form-urlencoded; x"} {
		w := logout(r, a.logoutToken("alice", "s1"), func(r *http.Request) { r.Header.Set("Content-Type", kind) })
		assert.Equal(t, 400, w.Code)
		assert.Equal(t, "invalid_request", errOf(t, w))
		assert.Contains(t, descriptionOf(t, w), "the Content-Type is not application/x-www-form-urlencoded", kind)
	}
	assert.Empty(t, s.what())
	assert.Equal(t, 200, logout(r, a.logoutToken("alice", "s1"), func(r *http.Request) {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	}).Code)
	for body, want := range map[string]string{
		"logout_token=a&logout_token=b":         "the form has 2 logout_token, not one",
		"token=a":                               "the form has 0 logout_token, not one",
		"logout_token=%zz":                      "the form could not be read",
		"x=" + strings.Repeat("x", 17<<10+1024): "the form could not be read",
	} {
		w := logout(r, "", func(r *http.Request) { r.Body = readCloser(body) })
		assert.Equal(t, 400, w.Code)
		assert.Equal(t, "invalid_request", errOf(t, w))
		assert.Contains(t, descriptionOf(t, w), want)
	}
}

func TestLogoutTokensInDetail(t *testing.T) {
	a := newAPI(t)
	claim := valetkeytest.Claim
	event := string(signals.Logout)
	long := strings.Repeat("x", 1024)
	for _, c := range []struct {
		name  string
		token string
		err   string
	}{
		{"iss in two letter cases", a.logoutToken("alice", "s1", claim("Iss", "x")), "two letter cases"},
		{"the event in two letter cases", a.logoutToken("alice", "s1", claim("events", M{event: M{}, strings.ToUpper(event): M{}})), "events does not contain the logout event"},
		{"the event twice, the second time in capitals", a.logoutToken("alice", "s1", claim("events", json.RawMessage(`{"`+event+`":{},"`+strings.ToUpper(event)+`":{}}`))), "events does not contain the logout event"},
		{"events that are a text", a.logoutToken("alice", "s1", claim("events", event)), "events does not contain the logout event"},
		{"no events", a.logoutToken("alice", "s1", claim("events", nil)), "events does not contain the logout event"},
		{"an aud with a number beside us", a.logoutToken("alice", "s1", claim("aud", []any{logoutClient, 7})), "aud is not a string or an array of strings"},
		{"an aud without us", a.logoutToken("alice", "s1", claim("aud", []string{"x", "y"})), "aud contains none of the client IDs"},
		{"a sub that is a number", a.logoutToken(7, "s1"), "sub"},
		{"an iss that is not ours, signed by us", a.logoutToken("alice", "s1", claim("iss", "https://other.example.com")), "iss is"},
		{"a sub that is too long", a.logoutToken(long+"x", nil), "sub or sid has more than 1024 bytes"},
		{"a sid that is too long", a.logoutToken(nil, long+"x"), "sub or sid has more than 1024 bytes"},
		{"neither sub nor sid", a.logoutToken(nil, nil), "both sub and sid are missing"},
		{"an iat in the future", a.logoutToken("alice", "s1", claim("iat", time.Now().Add(time.Minute).Unix()), claim("exp", time.Now().Add(time.Hour).Unix())), "its iat is in the future"},
		{"an exp in the past", a.logoutToken("alice", "s1", claim("exp", time.Now().Add(-time.Minute).Unix())), "it has expired at"},
	} {
		t.Run(c.name+" is refused", func(t *testing.T) {
			s := &sink{}
			w := logout(newReceiver(t, logouts(a, to(s))), c.token)
			assert.Equal(t, 400, w.Code)
			assert.Equal(t, "invalid_request", errOf(t, w))
			assert.Contains(t, descriptionOf(t, w), c.err)
			assert.Empty(t, s.what())
		})
	}
	t.Run("an algorithm that is not allowed is refused", func(t *testing.T) {
		s := &sink{}
		w := logout(newReceiver(t, logouts(a, to(s), func(cfg *signals.Config) { cfg.Algorithms = []string{"ES384"} })), a.logoutToken("alice", "s1"))
		assert.Equal(t, 400, w.Code)
		assert.Contains(t, descriptionOf(t, w), "which is not allowed")
		assert.Empty(t, s.what())
	})
	widen := func(cfg *signals.Config) { cfg.Widen = true }
	for _, c := range []struct {
		name   string
		token  string
		config func(*signals.Config)
		want   []string
	}{
		{"a session", a.logoutToken("alice", "s1"), nil, []string{"sid s1"}},
		{"a session without a user", a.logoutToken(nil, "s1"), nil, []string{"sid s1"}},
		{"a session without a user, widened", a.logoutToken(nil, "s1"), widen, []string{"sid s1"}},
		{"a session of a user, widened", a.logoutToken("alice", "s1"), widen, []string{"sid s1", "sub alice"}},
		{"a user", a.logoutToken("alice", nil), nil, []string{"sub alice"}},
		{"a user with a sid that is null", a.logoutToken("alice", nil, nullClaim("sid")), nil, []string{"sub alice"}},
		{"for us and another client", a.logoutToken("alice", "s1", claim("aud", []string{logoutClient, "x"})), nil, []string{"sid s1"}},
		{"for another client and us", a.logoutToken("alice", "s1", claim("aud", []string{"x", logoutClient})), nil, []string{"sid s1"}},
		{"names of the greatest length", a.logoutToken(long, long), widen, []string{"sid " + long, "sub " + long}},
	} {
		t.Run(c.name+" is revoked", func(t *testing.T) {
			s := &sink{}
			r := newReceiver(t, logouts(a, to(s), func(cfg *signals.Config) {
				if c.config != nil {
					c.config(cfg)
				}
			}))
			w := logout(r, c.token)
			assert.Equal(t, 200, w.Code, w.Body.String())
			assert.Equal(t, c.want, s.what())
			assert.Equal(t, map[string]uint64{"applied": 1}, r.Status().Outcomes)
		})
	}
	t.Run("without the event in Events it is counted", func(t *testing.T) {
		r := newReceiver(t, logouts(a, func(cfg *signals.Config) { cfg.Events = []signals.Event{signals.SessionRevoked} }))
		assert.Equal(t, 200, logout(r, a.logoutToken("alice", "s1")).Code)
		assert.Equal(t, map[string]uint64{"disabled": 1}, r.Status().Outcomes)
	})
	for name, transmitter := range map[string]string{"the issuer itself": a.iss.URL, "another host": "https://idp.example.com"} {
		t.Run("the clock is that of the issuer, whoever the transmitter is: "+name, func(t *testing.T) {
			s := &sink{}
			r := newReceiver(t, signals.Config{Transmitter: transmitter, Delivery: signals.Push, Stream: signals.Stream{Unmanaged: true}, Audience: []string{audience},
				Issuer: a.iss.URL, Client: a.iss.Client(), Logger: slog.New(slog.DiscardHandler), Guards: []signals.Guard{s},
				Logout: signals.LogoutConfig{Audience: []string{logoutClient}}})
			issued := time.Now().Add(-time.Second).Truncate(time.Second)
			require.Equal(t, 200, logout(r, a.logoutToken("alice", "s1", claim("iat", issued.Unix()))).Code)
			assert.WithinDuration(t, issued.Add(time.Second), s.last().Before, 0)
			assert.True(t, s.last().At.IsZero())
		})
	}
}

// nullClaim sets a claim to null.
func nullClaim(name string) valetkeytest.Option {
	return valetkeytest.Claim(name, jsonNull{})
}

type jsonNull struct{}

func (jsonNull) MarshalJSON() ([]byte, error) { return []byte("null"), nil }

func TestGlobalRevocationsInDetail(t *testing.T) {
	a, claim := newAPI(t), valetkeytest.Claim
	in := func(d time.Duration) int64 { return time.Now().Add(d).Unix() }
	for _, c := range []struct {
		name  string
		token string
		err   string
	}{
		{"no token", "", "no bearer token"},
		{"a token that is not a JWT", "opaque", "not a signed JWT"},
		{"iss in two letter cases", a.assertion(claim("Iss", "x")), "two letter cases"},
		{"the iss of another, signed by the sender", a.assertion(claim("iss", "https://other.example.com")), "iss is"},
		{"a sub that is a number", a.assertion(claim("sub", 7)), "sub"},
		{"an aud that is a number", a.assertion(claim("aud", 7)), "aud is not a string"},
		{"no iat", a.assertion(claim("iat", nil)), "iat is missing"},
		{"no exp", a.assertion(claim("exp", nil)), "exp is missing"},
		{"an iat in the future", a.assertion(claim("iat", in(2*time.Minute)), claim("exp", in(5*time.Minute))), "it has expired, or is not valid yet"},
		{"an nbf in the future", a.assertion(claim("nbf", in(2*time.Minute))), "it has expired, or is not valid yet"},
		{"an exp in the past", a.assertion(claim("iat", in(-3*time.Minute)), claim("exp", in(-time.Minute))), "it has expired, or is not valid yet"},
		{"a life of more than 15 minutes", a.assertion(claim("iat", in(0)), claim("exp", in(15*time.Minute+time.Second))), "it is valid for longer than 15m0s"},
	} {
		t.Run(c.name+" is answered with 401, and nothing is read", func(t *testing.T) {
			s, w := &sink{}, httptest.NewRecorder()
			r := newReceiver(t, globally(a, s))
			r.GlobalRevocation().ServeHTTP(w, globalRequest(c.token, unreadable{t}))
			assert.Equal(t, 401, w.Code)
			assert.Equal(t, "Bearer", w.Header().Get("WWW-Authenticate"))
			assert.Equal(t, "authentication_failed", errOf(t, w))
			assert.Contains(t, descriptionOf(t, w), c.err)
			assert.Equal(t, map[string]uint64{"unauthenticated": 1}, r.Status().Outcomes)
		})
	}
	t.Run("an algorithm that is not allowed is answered with 401", func(t *testing.T) {
		s := &sink{}
		w := revokeGlobally(newReceiver(t, globally(a, s, func(cfg *signals.Config) { cfg.Algorithms = []string{"ES384"} })), a.assertion(), aliceByEmail)
		assert.Equal(t, 401, w.Code)
		assert.Contains(t, descriptionOf(t, w), "which is not allowed")
	})
	t.Run("two Authorization headers are answered with 401", func(t *testing.T) {
		req, w := globalRequest(a.assertion(), unreadable{t}), httptest.NewRecorder()
		req.Header.Add("Authorization", "Bearer "+a.assertion())
		newReceiver(t, globally(a, &sink{})).GlobalRevocation().ServeHTTP(w, req)
		assert.Equal(t, 401, w.Code)
		assert.Contains(t, descriptionOf(t, w), "no bearer token")
	})
	t.Run("a life of 15 minutes is accepted", func(t *testing.T) {
		s, now := &sink{}, time.Now()
		w := revokeGlobally(newReceiver(t, globally(a, s)), a.assertion(claim("iat", now.Unix()), claim("exp", now.Unix()+15*60)), aliceByEmail)
		assert.Equal(t, 204, w.Code, w.Body.String())
	})
	for _, c := range []struct {
		name    string
		body    string
		config  func(*signals.Config)
		status  int
		code    string
		err     string
		outcome string
	}{
		{"no subject", `{"x":1}`, nil, 400, "invalid_request", "sub_id is missing", "invalid_request"},
		{"a sub_id that is a text", `{"sub_id":"alice"}`, nil, 400, "invalid_request", "the subject is not an object", "invalid_request"},
		{"an email address that is missing", `{"sub_id":{"format":"email"}}`, nil, 400, "invalid_request", "email is missing", "invalid_request"},
		{"a sub that is missing", `{"sub_id":{"format":"iss_sub","iss":"https://as.example.com"}}`, nil, 400, "invalid_request", "sub is missing", "invalid_request"},
		{"a token", `{"sub_id":{"format":"jwt_id","iss":"https://as.example.com","jti":"1"}}`, nil, 400, "invalid_request", `the format "jwt_id" is not supported`, "invalid_request"},
		{"aliases", `{"sub_id":{"format":"aliases","identifiers":[{"format":"email","email":"alice@example.com"}]}}`, nil, 400, "invalid_request", "aliases", "invalid_request"},
		{"a body of more than 8 KiB", aliceByEmail + strings.Repeat(" ", 8<<10-len(aliceByEmail)+1), nil, 400, "invalid_request", "has more than 8192 bytes", "invalid_request"},
		{"a user of another issuer", `{"sub_id":{"format":"iss_sub","iss":"https://other.example.com","sub":"alice@example.com"}}`, nil, 403, "access_denied", "the user is of the issuer", "foreign"},
		{"a user that is not known", `{"sub_id":{"format":"email","email":"bob@example.com"}}`, nil, 404, "invalid_request", "the user is unknown here", "unresolved"},
		{"an email address without a resolver", aliceByEmail, func(cfg *signals.Config) { cfg.Resolve = nil }, 400, "invalid_request", `the format "email" is not supported here`, "unresolved"},
		{"a user of the sender without a resolver", `{"sub_id":{"format":"iss_sub","iss":"` + a.iss.URL + `","sub":"alice@example.com"}}`, func(cfg *signals.Config) { cfg.Resolve = nil },
			404, "invalid_request", "the user is unknown here", "unresolved"},
		{"the sub of another client", aliceByEmail, func(cfg *signals.Config) { cfg.GlobalRevocation.Subject = "other" }, 403, "access_denied", `sub is "client"`, "unauthenticated"},
	} {
		t.Run(c.name+" is answered with "+strconv.Itoa(c.status), func(t *testing.T) {
			s := &sink{}
			r := newReceiver(t, globally(a, s, func(cfg *signals.Config) {
				if c.config != nil {
					c.config(cfg)
				}
			}))
			w := revokeGlobally(r, a.assertion(), c.body)
			assert.Equal(t, c.status, w.Code)
			assert.Equal(t, c.code, errOf(t, w))
			assert.Contains(t, descriptionOf(t, w), c.err)
			assert.Empty(t, w.Header().Get("WWW-Authenticate"))
			assert.Equal(t, map[string]uint64{c.outcome: 1}, r.Status().Outcomes)
			assert.Empty(t, s.what())
		})
	}
	t.Run("a body of 8 KiB is accepted", func(t *testing.T) {
		s := &sink{}
		assert.Equal(t, 204, revokeGlobally(newReceiver(t, globally(a, s)), a.assertion(), aliceByEmail+strings.Repeat(" ", 8<<10-len(aliceByEmail))).Code)
		assert.Equal(t, []string{"sub alice"}, s.what())
	})
	for name, issuer := range map[string]string{"the issuer": a.iss.URL, "another party": "https://as.example.com"} {
		t.Run("the clock of the sender is that of the tokens only if it issues them: "+name, func(t *testing.T) {
			s, issued := &sink{}, time.Now().Add(-time.Minute).Truncate(time.Second)
			r := newReceiver(t, globally(a, s, func(cfg *signals.Config) { cfg.Issuer = issuer }))
			require.Equal(t, 204, revokeGlobally(r, a.assertion(claim("iat", issued.Unix())), aliceByEmail).Code)
			one, other := s.last().Before, s.last().At
			if issuer != a.iss.URL {
				one, other = other, one
			}
			assert.WithinDuration(t, issued.Add(time.Second), one, 0)
			assert.True(t, other.IsZero())
		})
	}
	t.Run("the time of a request ends with it", func(t *testing.T) {
		var asked context.Context
		r := newReceiver(t, globally(a, &sink{}, func(cfg *signals.Config) {
			cfg.Resolve = func(ctx context.Context, _ signals.Subject) ([]string, error) {
				asked = ctx
				at, limited := ctx.Deadline()
				assert.True(t, limited)
				assert.False(t, at.After(time.Now().Add(20*time.Second)))
				return []string{"alice"}, nil
			}
		}))
		require.Equal(t, 204, revokeGlobally(r, a.assertion(), aliceByEmail).Code)
		assert.ErrorIs(t, asked.Err(), context.Canceled)
	})
}
