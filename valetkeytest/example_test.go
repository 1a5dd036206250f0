package valetkeytest_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/scopes"
	"github.com/valetkey/valetkey/valetkeytest"
)

// newAPI is what a user has: a handler behind a guard.
func newAPI(guard *middleware.Guard) http.Handler {
	orders := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "the orders of %s", valetkey.FromContext(r.Context()).Subject())
	})
	mux := http.NewServeMux()
	mux.Handle("GET /orders", guard.Handler(orders, scopes.All("orders:read")))
	return mux
}

// TestOrders is what a user writes.
func TestOrders(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	api := newAPI(iss.Guard())
	iss.TestScopes(t, api, "GET /orders orders:read")

	token := iss.Token(valetkeytest.Subject("bob"), valetkeytest.Scopes("orders:read"))
	call := func() *httptest.ResponseRecorder {
		res := httptest.NewRecorder()
		api.ServeHTTP(res, valetkeytest.Request("GET", "/orders", token))
		return res
	}
	t.Run("the orders are those of the caller", func(t *testing.T) {
		if res := call(); res.Code != http.StatusOK || res.Body.String() != "the orders of bob" {
			t.Errorf("got %d, %q", res.Code, res.Body)
		}
	})
	t.Run("a token that was used expires", func(t *testing.T) {
		iss.Advance(2 * valetkeytest.DefaultLifetime)
		res := call()
		if c := valetkeytest.Challenge(t, res.Header(), "Bearer"); res.Code != http.StatusUnauthorized || c["error"] != "invalid_token" {
			t.Errorf("got %d, %v", res.Code, c)
		}
	})
}

// The lenient shape is refused unless it is asked for; a forgery is refused even then.
func TestLenientOrders(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	for name, profile := range map[string]jwks.Profile{"strict": {}, "lenient": jwks.Lenient()} {
		t.Run(name, func(t *testing.T) {
			keys, err := jwks.New(jwks.Config{
				Issuer: iss.URL, Audience: []string{valetkeytest.DefaultAudience}, JWKS: iss.JWKS(), Profile: profile, Now: iss.Now,
			})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(keys.Close)
			guard, err := middleware.New(middleware.Config{Verifier: keys, Now: iss.Now})
			if err != nil {
				t.Fatal(err)
			}
			api := newAPI(guard)
			call := func(token string) int {
				res := httptest.NewRecorder()
				api.ServeHTTP(res, valetkeytest.Request("GET", "/orders", token))
				return res.Code
			}
			for name, token := range iss.Forgeries(valetkeytest.Scopes("orders:read"), valetkeytest.Lenient()) {
				if code := call(token); code != http.StatusUnauthorized {
					t.Errorf("%s: got %d", name, code)
				}
			}
			want := map[string]int{"strict": http.StatusUnauthorized, "lenient": http.StatusOK}[name]
			if code := call(iss.Token(valetkeytest.Lenient(), valetkeytest.Scopes("orders:read"))); code != want {
				t.Errorf("got %d, not %d", code, want)
			}
		})
	}
}
