package introspect_test

import (
	"context"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/introspect"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/scopes"
	"github.com/valetkey/valetkey/valetkeytest"
)

// An api is a guarded handler over real HTTP semantics, within a bubble of virtual time.
type api struct {
	*valetkeytest.Issuer
	verifier *introspect.Verifier
	guard    *middleware.Guard
	http.Handler
}

func newAPI(t *testing.T, change ...func(*introspect.Config)) *api {
	return apiOf(t, valetkeytest.NewIssuer(t, valetkeytest.InMemory()), change...)
}

func apiOf(t *testing.T, iss *valetkeytest.Issuer, change ...func(*introspect.Config)) *api {
	v := verifierOf(t, iss, change...)
	guard, err := middleware.New(middleware.Config{Verifier: v, Now: iss.Now, Logger: quiet})
	require.NoError(t, err)
	ok := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusNoContent) })
	return &api{iss, v, guard, guard.Handler(ok)}
}

func (a *api) get(token string) *httptest.ResponseRecorder {
	res := httptest.NewRecorder()
	a.ServeHTTP(res, valetkeytest.Request("GET", "/orders", token))
	return res
}

func TestGuarded(t *testing.T) {
	in := func(name string, test func(t *testing.T)) {
		t.Run(name, func(t *testing.T) { synctest.Test(t, test) })
	}
	in("INTRO-06 an inactive token gets 401 invalid_token", func(t *testing.T) {
		a := newAPI(t)
		res := a.get("made-up")
		assert.Equal(t, 401, res.Code)
		assert.Equal(t, "invalid_token", valetkeytest.Challenge(t, res.Header(), "Bearer")["error"])
	})
	in("INTRO-16, INTRO-28 a failure gets 503 and is not a challenge", func(t *testing.T) {
		a := newAPI(t)
		for _, status := range []int{401, 403, 500} {
			a.Introspection.Fail(status)
			res := a.get(a.Opaque())
			assert.Equal(t, 503, res.Code)
			assert.NotEmpty(t, res.Header().Get("Retry-After"))
			assert.Empty(t, res.Header().Values("WWW-Authenticate"))
		}
	})
	in("INTRO-19 patience is passed on", func(t *testing.T) {
		a := newAPI(t)
		a.Introspection.Fail(429, "Retry-After: 7")
		for range 3 {
			res := a.get(a.Opaque())
			assert.Equal(t, 503, res.Code)
			assert.Equal(t, "7", res.Header().Get("Retry-After"))
		}
		assert.Equal(t, 1, a.Introspection.Hits())
	})
	in("INTRO-23 the same token again costs no call", func(t *testing.T) {
		a := newAPI(t)
		token := a.Opaque()
		for range 30 {
			assert.Equal(t, 204, a.get(token).Code)
			time.Sleep(time.Second - 1)
		}
		assert.Equal(t, 1, a.Introspection.Hits())
		time.Sleep(30 * time.Nanosecond)
		assert.Equal(t, 204, a.get(token).Code)
		assert.Equal(t, 2, a.Introspection.Hits(), "the lifetime does not slide")
	})
	in("INTRO-24, INTRO-26 not past its expiry", func(t *testing.T) {
		a := newAPI(t, func(c *introspect.Config) { c.Leeway, c.CacheTTL = -1, time.Hour })
		token := a.Opaque(valetkeytest.ExpiresIn(10 * time.Second))
		assert.Equal(t, 204, a.get(token).Code)
		time.Sleep(10*time.Second - 1)
		assert.Equal(t, 204, a.get(token).Code)
		time.Sleep(time.Nanosecond)
		assert.Equal(t, 401, a.get(token).Code)
	})
	in("INTRO-25 without expiry no longer than configured", func(t *testing.T) {
		a := newAPI(t, func(c *introspect.Config) { c.CacheTTL = 2 * time.Minute })
		token := a.Opaque(valetkeytest.Claim("exp", nil))
		assert.Equal(t, 204, a.get(token).Code)
		a.Revoke(token)
		time.Sleep(2*time.Minute - 1)
		assert.Equal(t, 204, a.get(token).Code)
		time.Sleep(time.Nanosecond)
		assert.Equal(t, 401, a.get(token).Code)
	})
	in("never remembered, if that is wanted", func(t *testing.T) {
		a := newAPI(t, func(c *introspect.Config) { c.CacheTTL = -1 })
		token := a.Opaque()
		assert.Equal(t, 204, a.get(token).Code)
		a.Revoke(token)
		assert.Equal(t, 401, a.get(token).Code)
	})
	in("INTRO-29 a thousand requests with one unknown token are one call", func(t *testing.T) {
		a := newAPI(t)
		a.Introspection.Slow(time.Second)
		token := a.Opaque()
		var good atomic.Int32
		for range 1000 {
			go func() {
				if a.get(token).Code == 204 {
					good.Add(1)
				}
			}()
		}
		time.Sleep(time.Second)
		synctest.Wait()
		assert.EqualValues(t, 1000, good.Load())
		assert.Equal(t, 1, a.Introspection.Hits())
	})
	in("INTRO-29 two guards and a direct caller share a call, even if the one that began it leaves", func(t *testing.T) {
		a := newAPI(t)
		a.Introspection.Slow(time.Second)
		token := a.Opaque()
		other, err := middleware.New(middleware.Config{Verifier: a.verifier, Now: a.Now, Logger: quiet})
		require.NoError(t, err)
		ctx, leave := context.WithCancel(t.Context())
		var waiting sync.WaitGroup
		waiting.Go(func() { assert.Error(t, a.guard.DecideToken(ctx, token).Err()) })
		synctest.Wait()
		leave()
		waiting.Go(func() { assert.Equal(t, 204, a.get(token).Code) })
		waiting.Go(func() { assert.NoError(t, other.DecideToken(t.Context(), token).Err()) })
		waiting.Go(func() {
			_, err := a.verifier.Verify(t.Context(), token)
			assert.NoError(t, err)
		})
		waiting.Wait()
		assert.Equal(t, 1, a.Introspection.Hits())
	})
	in("INTRO-31 a flood of made-up tokens and an outage leave known ones alone", func(t *testing.T) {
		a := newAPI(t, func(c *introspect.Config) { c.MaxInFlight = 4 })
		known := a.Opaque()
		require.Equal(t, 204, a.get(known).Code)
		a.Introspection.Slow(time.Minute)
		for range 100 {
			go func() { assert.Equal(t, 503, a.get(a.Opaque()).Code) }()
		}
		synctest.Wait()
		start := time.Now()
		assert.Equal(t, 503, a.get(a.Opaque()).Code)
		assert.Equal(t, 204, a.get(known).Code)
		assert.Zero(t, time.Since(start))
		assert.LessOrEqual(t, a.Introspection.Hits(), 1+4)
		time.Sleep(10 * time.Second)
		assert.Equal(t, 204, a.get(known).Code)
	})
	in("INTRO-34, INTRO-35 a bound token without proof", func(t *testing.T) {
		a := newAPI(t)
		for _, cnf := range []map[string]any{{"jkt": thumbprint}, {"x5t#S256": thumbprint}, {"kid": "1"}} {
			res := a.get(a.Opaque(valetkeytest.Claim("cnf", cnf)))
			assert.Equal(t, 401, res.Code, cnf)
		}
	})
	in("AUD-02 scopes are decided for each route, from memory too", func(t *testing.T) {
		a := newAPI(t)
		admin := a.guard.Handler(a.Handler, scopes.All("admin"))
		token := a.Opaque(valetkeytest.Scopes("orders:read"))
		assert.Equal(t, 204, a.get(token).Code)
		res := httptest.NewRecorder()
		admin.ServeHTTP(res, valetkeytest.Request("GET", "/admin", token))
		assert.Equal(t, 403, res.Code)
	})
	in("INTRO-36 a revocation is known after 30 s at the latest, or at once", func(t *testing.T) {
		a := newAPI(t)
		token := a.Opaque(valetkeytest.Subject("alice"))
		require.Equal(t, 204, a.get(token).Code)
		a.Revoke(token)
		time.Sleep(30*time.Second - 1)
		assert.Equal(t, 204, a.get(token).Code, "the stated bound")
		time.Sleep(time.Nanosecond)
		assert.Equal(t, 401, a.get(token).Code)

		token = a.Opaque(valetkeytest.Subject("bob"))
		require.Equal(t, 204, a.get(token).Code)
		a.Revoke(token)
		assert.Equal(t, 1, a.guard.Purge(func(t *valetkey.Token) bool { return t.Subject() == "bob" }))
		assert.Equal(t, 401, a.get(token).Code)
	})
	in("INTRO-36 an hour of traffic with a revocation at a random moment", func(t *testing.T) {
		a := newAPI(t)
		start, at := time.Now(), time.Duration(rand.N(int64(time.Hour)))
		token := a.Opaque(valetkeytest.ExpiresIn(2 * time.Hour))
		time.AfterFunc(at, func() { a.Revoke(token) })
		accepted, last := 0, time.Duration(0)
		for time.Since(start) < time.Hour+time.Minute {
			if a.get(token).Code == 204 {
				accepted, last = accepted+1, time.Since(start)
			}
			time.Sleep(rand.N(time.Second))
		}
		assert.Positive(t, accepted)
		assert.Less(t, last, at+30*time.Second)
		assert.Greater(t, last, at-time.Second)
	})
	in("a caller who leaves is not kept", func(t *testing.T) {
		a := newAPI(t)
		a.Introspection.Slow(4 * time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		a.ServeHTTP(httptest.NewRecorder(), valetkeytest.Request("GET", "/", a.Opaque()).WithContext(ctx))
		assert.Equal(t, time.Second, time.Since(start))
		time.Sleep(4 * time.Second)
	})
}
