package middleware_test

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/scopes"
	"github.com/valetkey/valetkey/valetkeytest"
)

func TestGuardOfAnIssuer(t *testing.T) {
	guardOf := func(t *testing.T, iss *valetkeytest.Issuer) *middleware.Guard {
		guard, err := middleware.New(middleware.Config{Issuer: iss.URL, Audience: []string{valetkeytest.DefaultAudience}, Now: iss.Now, Logger: quiet})
		require.NoError(t, err)
		t.Cleanup(guard.Close)
		return guard
	}
	t.Run("it refuses forgeries, other issuers and other scopes", func(t *testing.T) {
		iss := valetkeytest.NewIssuer(t)
		iss.TestScopes(t, guardOf(t, iss).Handler(hello, scopes.All("orders:read")), "GET / orders:read")
		d := guardOf(t, iss).DecideToken(t.Context(), valetkeytest.NewIssuer(t).Token())
		assert.Equal(t, http.StatusUnauthorized, d.Status())
	})
	t.Run("its verifier has the clock and the length limit of the guard", func(t *testing.T) {
		iss := valetkeytest.NewIssuer(t)
		guard, err := middleware.New(middleware.Config{
			Issuer: iss.URL, Audience: []string{valetkeytest.DefaultAudience}, MaxTokenBytes: 20_000, Now: iss.Now, Logger: quiet,
		})
		require.NoError(t, err)
		t.Cleanup(guard.Close)
		long := iss.Token(valetkeytest.Claim("groups", make([]int, 7_000)))
		require.Greater(t, len(long), valetkey.MaxTokenBytes)
		assert.NoError(t, guard.DecideToken(t.Context(), long).Err())
		iss.Advance(2 * valetkeytest.DefaultLifetime)
		assert.Equal(t, http.StatusUnauthorized, guard.DecideToken(t.Context(), long).Status())
	})
	t.Run("Ready reports an issuer that does not answer", func(t *testing.T) {
		iss := valetkeytest.NewIssuer(t)
		guard := guardOf(t, iss)
		iss.KeySet.Down()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		assert.ErrorContains(t, guard.Ready(ctx), iss.URL)
		assert.Equal(t, valetkey.Down, guard.Status().State)
	})
	t.Run("Ready fetches the keys", func(t *testing.T) {
		iss := valetkeytest.NewIssuer(t)
		guard := guardOf(t, iss)
		require.NoError(t, guard.Ready(t.Context()))
		assert.Equal(t, valetkey.Ready, guard.Status().State)
		iss.KeySet.Down()
		assert.NoError(t, guard.DecideToken(t.Context(), iss.Token()).Err())
	})
	t.Run("after Close, every token gets 503", func(t *testing.T) {
		iss := valetkeytest.NewIssuer(t)
		guard, token := guardOf(t, iss), iss.Token()
		require.NoError(t, guard.DecideToken(t.Context(), token).Err())
		guard.Close()
		guard.Close()
		assert.Equal(t, http.StatusServiceUnavailable, guard.DecideToken(t.Context(), token).Status(), "a cached token")
		assert.Equal(t, http.StatusServiceUnavailable, guard.DecideToken(t.Context(), iss.Token()).Status(), "a new token")
	})
	t.Run("Close leaves the verifier of the caller open, and Ready waits for it", func(t *testing.T) {
		iss := valetkeytest.NewIssuer(t)
		guard, err := middleware.New(middleware.Config{Verifier: iss.Verifier(), Now: iss.Now})
		require.NoError(t, err)
		require.NoError(t, guard.Ready(t.Context()))
		assert.Equal(t, 1, iss.KeySet.Hits())
		guard.Close()
		assert.NoError(t, guard.DecideToken(t.Context(), iss.Token()).Err())
	})
	t.Run("a verifier without health is ready", func(t *testing.T) {
		guard, err := middleware.New(middleware.Config{Verifier: valetkey.VerifierFunc(func(context.Context, string) (*valetkey.Token, error) {
			return nil, &valetkey.Unavailable{}
		})})
		require.NoError(t, err)
		assert.NoError(t, guard.Ready(t.Context()))
	})
}

func TestGuardOfAnIssuerMistakes(t *testing.T) {
	const issuer, audience = "https://as.example.com", "https://api.example.com"
	for _, c := range []struct {
		name   string
		cfg    middleware.Config
		fields []string
		text   string
	}{
		{"no issuer and no verifier", middleware.Config{}, []string{"Issuer, Audience"}, "required, or Verifier"},
		{"two settings that the environment lacks", middleware.Config{Audience: []string{""}}, []string{"Issuer", "Audience[0]"}, "Issuer: required"},
		{"an issuer without an audience", middleware.Config{Issuer: issuer}, []string{"Audience"}, "Audience: required"},
		{"an issuer with an empty list of audiences", middleware.Config{Issuer: issuer, Audience: []string{}}, []string{"Audience"}, "Audience: required"},
		{"an audience without an issuer", middleware.Config{Audience: []string{audience}}, []string{"Issuer"}, "middleware: Issuer: required$"},
		{"an issuer over http", middleware.Config{Issuer: "http://as.example.com", Audience: []string{audience}}, []string{"Issuer"},
			"Issuer: cannot be discovered: not https; InsecureHTTP allows http (for the other settings of package jwks, set Verifier)$"},
		{"an issuer for many tenants", middleware.Config{Issuer: issuer + "/{tid}", Audience: []string{audience}}, []string{"Issuer"}, "set Verifier: Rules: "},
		{"an issuer beside a verifier", middleware.Config{Issuer: issuer, Verifier: valetkey.First()}, []string{"Issuer, Audience"}, "Verifier"},
		{"an audience beside a verifier", middleware.Config{Audience: []string{audience}, Verifier: valetkey.First()}, []string{"Issuer, Audience"}, "Verifier"},
		{"a mistake beside an issuer", middleware.Config{Issuer: issuer, Audience: []string{audience}, Realm: `"`}, []string{"Realm"}, "Realm: "},
		{"one mistake in each part", middleware.Config{Issuer: issuer, MaxTokenBytes: -1, Realm: `"`}, []string{"Audience", "MaxTokenBytes", "Realm"}, "Realm: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := middleware.New(c.cfg)
			require.Error(t, err)
			require.Contains(t, err.Error()+"$", c.text)
			var fields []string
			for _, m := range valetkey.ConfigErrors(err) {
				fields = append(fields, m.Field)
			}
			assert.Equal(t, c.fields, fields)
		})
	}
}
