package middleware_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/dpop"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/valetkeytest"
)

func TestReject(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	var seen recorder
	guard := newGuard(t, iss, withDPoP(t, iss), func(c *middleware.Config) { c.Observer = &seen })
	refusal := &valetkey.Error{Code: valetkey.InvalidToken, Reason: valetkey.ReasonRevoked}
	for _, c := range []struct {
		name, scheme string
		lines        []string
	}{
		{"a proof", "DPoP", []string{"DPoP x"}},
		{"a token", "Bearer", []string{"bearer x"}},
		{"a password", "Bearer", []string{"Basic x"}},
		{"nothing", "Bearer", nil},
		{"two lines", "both", []string{"DPoP x", "Bearer x"}},
	} {
		t.Run("the error is in the challenge of the scheme of the request: "+c.name, func(t *testing.T) {
			r := httptest.NewRequest("GET", "/", nil)
			r.Header["Authorization"] = c.lines
			assertError(t, guard.Reject(r, refusal).Header(), c.scheme, "invalid_token")
		})
	}
	for _, code := range []valetkey.Code{valetkey.InvalidProof, valetkey.UseNonce} {
		t.Run("an error of a proof is in the challenge of DPoP, whatever the request has: "+string(code), func(t *testing.T) {
			r := httptest.NewRequest("GET", "/", nil)
			r.Header.Set("Authorization", "Bearer x")
			assertError(t, guard.Reject(r, &valetkey.Error{Code: code}).Header(), "DPoP", string(code))
		})
	}
	t.Run("without a request, it is in each", func(t *testing.T) { assertError(t, guard.Reject(nil, refusal).Header(), "both", "invalid_token") })
	t.Run("what the client needs to do is in the challenge of its scheme alone", func(t *testing.T) {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Authorization", "DPoP x")
		h := guard.Reject(r, &valetkey.Error{Code: valetkey.InsufficientUserAuthentication, Claims: `{"id_token":{}}`, StepUp: &valetkey.StepUp{ACRValues: []string{"phr"}}}).Header()
		assert.Contains(t, valetkeytest.Challenge(t, h, "DPoP"), "claims")
		assert.Contains(t, valetkeytest.Challenge(t, h, "DPoP"), "acr_values")
		assert.NotContains(t, valetkeytest.Challenge(t, h, "Bearer"), "claims")
		assert.NotContains(t, valetkeytest.Challenge(t, h, "Bearer"), "acr_values")
	})
	t.Run("a guard without DPoP has no nonce", func(t *testing.T) {
		d := newGuard(t, iss).Reject(nil, &valetkey.Error{Code: valetkey.UseNonce})
		assert.Equal(t, 401, d.Status())
		assert.NotContains(t, d.Header(), "Dpop-Nonce")
	})
	t.Run("by default no header is exposed to scripts of other origins", func(t *testing.T) {
		nonces, err := dpop.NewNonces(dpop.NoncesConfig{Every: time.Minute, Grace: 10 * time.Minute})
		require.NoError(t, err)
		guard, key := newGuard(t, iss, withDPoP(t, iss, func(c *dpop.Config) { c.Nonces = nonces })), iss.ProofKey("ES256")
		token := iss.Token(valetkeytest.BoundTo(key))
		with := func(nonce string) http.Header {
			r := valetkeytest.Request("GET", "/", "")
			r.RequestURI = "/"
			key.Authorize(r, token, valetkeytest.Claim("nonce", nonce))
			d := guard.Decide(r)
			assert.NotContains(t, d.Header(), "Access-Control-Expose-Headers")
			return d.Header()
		}
		nonce := with("").Get("DPoP-Nonce")
		iss.Advance(2 * time.Minute)
		h := with(nonce)
		assert.Equal(t, "no-store", h.Get("Cache-Control"))
		assert.NotEqual(t, nonce, h.Get("DPoP-Nonce"))
		assert.NotContains(t, h, "Www-Authenticate")
		assert.NotContains(t, guard.Reject(nil, refusal).Header(), "Access-Control-Expose-Headers")
	})
	t.Run("an observer sees it", func(t *testing.T) {
		seen.events = nil
		r := httptest.NewRequest("GET", "/", nil)
		guard.Reject(r, refusal)
		require.Len(t, seen.events, 1)
		assert.Equal(t, valetkey.Event{Kind: valetkey.RequestDecided, Status: 401, Reason: valetkey.ReasonRevoked, Err: refusal, Request: r}, seen.events[0])
	})
}

func TestVaryOfTheAPIStays(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	h := newGuard(t, iss).Handler(hello, valetkey.Optional)
	w := httptest.NewRecorder()
	w.Header().Set("Vary", "Accept-Encoding")
	h.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	assert.Equal(t, []string{"Accept-Encoding", "Authorization"}, w.Header().Values("Vary"))
}

func TestPreflightThatSetsNoStatus(t *testing.T) {
	silent := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Access-Control-Allow-Origin", "*") })
	api := serve(t, guardWith(t, valetkey.First(), func(c *middleware.Config) { c.Preflight = silent }).Handler(hello))
	got := do(t, "OPTIONS", api, "", header("Origin", "https://app.example.com"), header("Access-Control-Request-Method", "PUT"))
	assert.Equal(t, 200, got.status)
	assert.Equal(t, "*", got.header.Get("Access-Control-Allow-Origin"))
	assert.Empty(t, got.body)
}

func TestMetadataPreflight(t *testing.T) {
	guard := guardWith(t, valetkey.First(), func(c *middleware.Config) { c.Resource.ID = "https://api.example.com" })
	_, h := guard.Metadata()
	for requested, allowed := range map[string]string{"": "*", "authorization, x-trace": "authorization, x-trace"} {
		r, w := httptest.NewRequest("OPTIONS", "/.well-known/oauth-protected-resource", nil), httptest.NewRecorder()
		if requested != "" {
			r.Header.Set("Access-Control-Request-Headers", requested)
		}
		h.ServeHTTP(w, r)
		assert.Equal(t, 204, w.Code)
		assert.Equal(t, allowed, w.Header().Get("Access-Control-Allow-Headers"))
		assert.Equal(t, "GET, HEAD", w.Header().Get("Access-Control-Allow-Methods"))
		assert.Empty(t, w.Body.String(), "a preflight has no document")
	}
}

func TestCancelWithTokenOutsideOfAHandler(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	t.Run("a token that is revoked before its context is made gives one that has ended", func(t *testing.T) {
		guard := newGuard(t, iss, cancels)
		d := guard.DecideToken(t.Context(), iss.Token())
		require.NoError(t, d.Err())
		require.NoError(t, guard.Revoke(valetkey.Revocation{Issuer: iss.URL, Subject: "alice"}))
		ctx := d.Context(t.Context())
		var refusal *valetkey.Error
		require.ErrorAs(t, context.Cause(ctx), &refusal)
		assert.Equal(t, valetkey.ReasonRevoked, refusal.Reason)
	})
	t.Run("a request that was applied is over when its context ends", func(t *testing.T) {
		guard := newGuard(t, iss, cancels)
		ctx, cancel := context.WithCancel(t.Context())
		r := valetkeytest.Request("GET", "/", iss.Token()).WithContext(ctx)
		applied, ok := guard.Decide(r).Apply(httptest.NewRecorder(), r)
		require.True(t, ok)
		assert.Equal(t, 1, guard.Status().Requests)
		cancel()
		<-applied.Context().Done()
		require.Eventually(t, func() bool { return guard.Status().Requests == 0 }, time.Minute, time.Millisecond)
	})
	t.Run("a token that did not come with a request is over when its context ends", func(t *testing.T) {
		guard := newGuard(t, iss, cancels)
		parent, cancel := context.WithCancel(t.Context())
		ctx := guard.DecideToken(t.Context(), iss.Token()).Context(parent)
		require.NoError(t, ctx.Err())
		assert.Equal(t, 1, guard.Status().Requests)
		cancel()
		<-ctx.Done()
		require.Eventually(t, func() bool { return guard.Status().Requests == 0 }, time.Minute, time.Millisecond)
	})
	t.Run("the log names why a request ended, once, and only if its token ended it", func(t *testing.T) {
		var out lines
		guard := newGuard(t, iss, cancels, func(c *middleware.Config) {
			c.Logger = slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
		})
		h := func(during func(*http.Request)) {
			guard.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { during(r) })).ServeHTTP(httptest.NewRecorder(), valetkeytest.Request("GET", "/", iss.Token()))
		}
		h(func(*http.Request) {})
		assert.NotContains(t, out.buf.String(), "request ended with its token")
		h(func(r *http.Request) {
			assert.NoError(t, guard.Revoke(valetkey.Revocation{Issuer: iss.URL, Subject: "alice"}))
			<-r.Context().Done()
		})
		out.mu.Lock()
		defer out.mu.Unlock()
		assert.Contains(t, out.buf.String(), "request ended with its token")
	})
}

// A forgetful verifier counts its purges.
type forgetful struct {
	valetkey.Verifier
	purges int
}

func (f *forgetful) Purge() { f.purges++ }

func TestPurgeReachesTheVerifier(t *testing.T) {
	v := &forgetful{Verifier: valetkey.First()}
	guardWith(t, v).Purge(nil)
	assert.Equal(t, 1, v.purges)
}

func TestAGuardWithoutALoggerUsesTheDefault(t *testing.T) {
	var out lines
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&out, nil)))
	t.Cleanup(func() { slog.SetDefault(before) })
	guard, err := middleware.New(middleware.Config{Verifier: valetkey.First()})
	require.NoError(t, err)
	guard.Reject(nil, errors.New("out of order"))
	assert.Contains(t, out.buf.String(), "out of order")
}

func TestAWarningEscapesWhatIsNotUTF8(t *testing.T) {
	for _, cause := range []string{"a\xffb", "a\nb", "a\u202eb"} {
		var out lines
		guard := guardWith(t, valetkey.First(), func(c *middleware.Config) { c.Logger = slog.New(slog.NewJSONHandler(&out, nil)) })
		guard.Reject(nil, &valetkey.Error{Code: valetkey.InvalidToken, Reason: valetkey.ReasonIssuer, Err: errors.New(cause)})
		assert.Contains(t, out.buf.String(), `\\`, "%q", cause)
		assert.NotContains(t, out.buf.String(), cause)
	}
}

func TestAWarningIsCutAfter1KiB(t *testing.T) {
	for more, cut := range []bool{false, true} {
		var out lines
		guard := guardWith(t, valetkey.First(), func(c *middleware.Config) { c.Logger = slog.New(slog.NewTextHandler(&out, nil)) })
		refusal := &valetkey.Error{Code: valetkey.InvalidToken, Reason: valetkey.ReasonIssuer, Err: errors.New("")}
		refusal.Err = errors.New(strings.Repeat("x", 1<<10-len(refusal.Error())+more))
		guard.Reject(nil, refusal)
		assert.Equal(t, cut, strings.Contains(out.buf.String(), "x ..."))
	}
}

func TestAWarningThatIsNotLoggedDoesNotUseUpThatOfTheMinute(t *testing.T) {
	var out lines
	level := new(slog.LevelVar)
	level.Set(slog.LevelError)
	guard := guardWith(t, valetkey.First(), func(c *middleware.Config) {
		c.Logger = slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: level}))
	})
	refusal := &valetkey.Error{Code: valetkey.InvalidToken, Reason: valetkey.ReasonIssuer, Err: errors.New("another")}
	guard.Reject(nil, refusal)
	assert.Empty(t, out.buf.String())
	level.Set(slog.LevelWarn)
	guard.Reject(nil, refusal)
	assert.Contains(t, out.buf.String(), "another")
}

func TestDPoPBehindStripPrefix(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	key := iss.ProofKey("ES256")
	token := iss.Token(valetkeytest.BoundTo(key))
	guard := newGuard(t, iss, withDPoP(t, iss), ofResource)
	api := serve(t, http.StripPrefix("/v1", guard.Handler(hello)))
	for htu, status := range map[string]int{"https://api.example.com/v1/orders": 200, "https://api.example.com/orders": 401} {
		got := do(t, "GET", api+"/v1/orders?page=2", "", func(r *http.Request) { key.Authorize(r, token, valetkeytest.Claim("htu", htu)) })
		assert.Equal(t, status, got.status, "%s: %s", htu, got.body)
	}
}

func TestDPoPBehindAProxyThatConnectsWithTLS(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	key := iss.ProofKey("ES256")
	token := iss.Token(valetkeytest.BoundTo(key))
	guard := newGuard(t, iss, withDPoP(t, iss), func(c *middleware.Config) {
		c.URL, c.Proxies = nil, middleware.Proxies{Trusted: prefixes("192.0.2.1/32"), Forwarded: middleware.XForwarded}
	})
	for target, htu := range map[string]string{"https://inner.example/orders": "https://api.example.com/orders", "http://inner.example/orders": "http://api.example.com/orders"} {
		r := httptest.NewRequest("GET", target, nil) // from 192.0.2.1, and over TLS if the target is https
		r.Header.Set("X-Forwarded-Host", "api.example.com")
		key.Authorize(r, token, valetkeytest.Claim("htu", htu))
		assert.NoError(t, guard.Decide(r).Err(), htu)
	}
}
