package valetkeytest_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/scopes"
	"github.com/valetkey/valetkey/valetkeytest"
)

// scopedAPI is an API with an open route, and others that require what their paths state.
func scopedAPI(g *middleware.Guard) http.Handler {
	answer := func(status int) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(status) })
	}
	mux := http.NewServeMux()
	mux.Handle("GET /open", answer(200))
	mux.Handle("GET /any", g.Handler(answer(200)))
	mux.Handle("GET /optional", g.Handler(answer(200), valetkey.Optional))
	mux.Handle("GET /read", g.Handler(answer(200), scopes.All("read")))
	mux.Handle("GET /both", g.Handler(answer(200), scopes.All("read", "write")))
	mux.Handle("GET /either", g.Handler(answer(200), scopes.Any("read", "write")))
	mux.Handle("POST /write", g.Handler(answer(400), scopes.All("write")))
	mux.Handle("GET /missing", g.Handler(answer(404), scopes.All("read")))
	mux.Handle("GET /broken", g.Handler(answer(500), scopes.All("read")))
	mux.Handle("GET /silent", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if g.Decide(r, scopes.All("read")).Err() != nil {
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	return mux
}

func TestScopes(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	api := scopedAPI(iss.Guard())
	for _, c := range []struct {
		name   string
		routes []string
		failed string // a part of the first failure
	}{
		{"a route without a guard", []string{"GET /open"}, "GET /open/no token: got 200, want 401"},
		{"a route that passes requests without a token", []string{"GET /optional"}, "GET /optional/no token: got 200, want 401"},
		{"a route that requires no scope", []string{"GET /any read"}, "GET /any/no scope read: got 200, want 403"},
		{"a route that requires another scope", []string{"GET /read write"}, `GET /read/sufficient: got 403 with a token that has the scopes ["write"]`},
		{"a route that requires one scope more", []string{"GET /both read"}, `GET /both/sufficient: got 403 with a token that has the scopes ["read"]`},
		{"a route that requires one of two scopes", []string{"GET /either read write"}, "GET /either/no scope read: got 200, want 403"},
		{"a route that a scope of another route opens", []string{"GET /either read", "POST /write write"}, "GET /either/no scope read: got 200, want 403"},
		{"a route that does not exist", []string{"GET /nothing read"}, "GET /nothing/no token: got 404, want 401"},
		{"a handler that finds nothing", []string{"GET /missing read"}, "GET /missing/sufficient: got 404"},
		{"a handler that fails", []string{"GET /broken read"}, "GET /broken/sufficient: got 500"},
		{"a refusal without a challenge", []string{"GET /silent read"}, "GET /silent/no token: got 401 without a Bearer challenge"},
		{"no route", nil, "no route to test"},
		{"a route without a path", []string{"GET orders:read"}, `route "GET orders:read": want a method, a path and scopes`},
		{"a route without a method", []string{"/orders orders:read"}, `route "/orders orders:read": want a method`},
	} {
		t.Run(c.name+" fails the test", func(t *testing.T) {
			failed := iss.CheckScopes(api, c.routes...)
			require.NotEmpty(t, failed)
			assert.Contains(t, failed[0], c.failed)
		})
	}
	t.Run("an issuer whose tokens the API does not accept fails the test", func(t *testing.T) {
		failed := valetkeytest.NewIssuer(t).CheckScopes(api, "GET /read read")
		assert.Contains(t, strings.Join(failed, "\n"), "GET /read/sufficient: got 401")
	})
	t.Run("routes that require what is stated pass", func(t *testing.T) {
		iss.TestScopes(t, api, "GET /any", "GET /read read", "GET /both read write", "POST /write write")
	})
}

func TestGuard(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	guard := iss.Guard()
	require.NoError(t, guard.Ready(t.Context()))
	assert.NoError(t, guard.DecideToken(t.Context(), iss.Token()).Err())
	assert.Error(t, guard.DecideToken(t.Context(), iss.Token(valetkeytest.WrongAudience())).Err())
	t.Run("a token that was used expires with the issuer's clock", func(t *testing.T) {
		token := iss.Token()
		require.NoError(t, guard.DecideToken(t.Context(), token).Err())
		iss.Advance(2 * valetkeytest.DefaultLifetime)
		assert.Error(t, guard.DecideToken(t.Context(), token).Err())
	})
}
