//go:build !race

package middleware_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/scopes"
	"github.com/valetkey/valetkey/valetkeytest"
)

// The race detector allocates on its own.
func TestAllocations(t *testing.T) {
	w, r, check := warm(t)
	for _, query := range []string{"", "page=2&size=10&q=pears"} {
		r.URL.RawQuery = query
		_, ok := check(w, r)
		require.True(t, ok)
		// The copy of the request and the context are the floor: editing the caller's request in place is not safe.
		assert.Equal(t, 2.0, testing.AllocsPerRun(1000, func() { check(w, r) }), query)
		assert.Equal(t, 2.0, testing.AllocsPerRun(1000, func() {
			checked, _ := check(w, r)
			for range 3 {
				read(checked)
			}
		}), "reading the caller costs none: "+query)
	}
	t.Run("with claims of the application", func(t *testing.T) {
		all := valetkey.DeclareClaims[struct {
			ID string `json:"jti"`
		}]()
		w, r, check := warm(t, func(c *middleware.Config) { c.Claims = all })
		assert.Equal(t, 2.0, testing.AllocsPerRun(1000, func() {
			checked, _ := check(w, r)
			if c, ok := all.From(checked.Context()); !ok || c.ID == "" {
				t.Error("no claims")
			}
		}))
	})
}

func TestAllocationsOfIdentityHeaders(t *testing.T) {
	for subject, want := range map[string]float64{"alice": 3, "ë" + strings.Repeat("x", 40): 4} {
		token := valetkey.NewToken(valetkey.TokenFields{Subject: subject, ClientID: "app"})
		assert.Equal(t, want, testing.AllocsPerRun(100, func() { _, _ = middleware.IdentityHeaders(token) }), subject)
	}
}

// read reads the caller as a handler does.
func read(r *http.Request) {
	token := valetkey.FromContext(r.Context())
	if token.Subject() == "" || token.ClientID() == "" || !token.Scopes().Has("orders:read") || token.Expiry().IsZero() {
		panic("the token says too little")
	}
}

// BenchmarkWarm puts a guarded request with a remembered token beside what any middleware pays that adds a value to the
// context.
func BenchmarkWarm(b *testing.B) {
	b.Run("guard", func(b *testing.B) {
		w, r, check := warm(b)
		b.ReportAllocs()
		for b.Loop() {
			check(w, r)
		}
	})
	b.Run("guard, and the caller is read three times", func(b *testing.B) {
		w, r, check := warm(b)
		b.ReportAllocs()
		for b.Loop() {
			checked, _ := check(w, r)
			for range 3 {
				read(checked)
			}
		}
	})
	b.Run("guard, with CancelWithToken", func(b *testing.B) {
		w, r, check := warm(b, cancels)
		b.ReportAllocs()
		for b.Loop() {
			ctx, end := context.WithCancel(r.Context()) // as net/http makes and ends one for each request
			check(w, r.WithContext(ctx))
			end()
		}
	})
	b.Run("context value alone", func(b *testing.B) {
		_, r, _ := warm(b)
		type key struct{}
		b.ReportAllocs()
		for b.Loop() {
			sink = r.WithContext(context.WithValue(r.Context(), key{}, b))
		}
	})
}

var sink *http.Request

func warm(t testing.TB, change ...func(*middleware.Config)) (http.ResponseWriter, *http.Request, func(http.ResponseWriter, *http.Request) (*http.Request, bool)) {
	iss := valetkeytest.NewIssuer(t)
	guard := newGuard(t, iss, change...)
	needs := []valetkey.Requirement{scopes.All("orders:read")}
	r := httptest.NewRequest("GET", "/orders", nil)
	r.Header.Set("Authorization", "Bearer "+iss.Token(valetkeytest.Scopes("orders:read", "orders:write", "profile", "email")))
	return httptest.NewRecorder(), r, func(w http.ResponseWriter, r *http.Request) (*http.Request, bool) {
		r, ok := guard.Decide(r, needs...).Apply(w, r)
		sink = r
		return r, ok
	}
}
