package middleware_test

import (
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/dpop"
	"github.com/valetkey/valetkey/introspect"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/scopes"
	"github.com/valetkey/valetkey/valetkeytest"
)

func TestStepUpMistakes(t *testing.T) {
	for _, c := range []struct {
		name string
		make func()
	}{
		{"STEP-07 a negative max_age", func() { middleware.MaxAge(-time.Second) }},
		{"an empty acr value", func() { middleware.ACR("phr", "") }},
		{"an acr value with a space", func() { middleware.ACR("phr phrh") }},
		{"an acr value with a quote", func() { middleware.ACR(`p"h`) }},
	} {
		t.Run(c.name, func(t *testing.T) { assert.Panics(t, c.make) })
	}
}

func TestStepUp(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	guard := newGuard(t, iss)
	phr, recent := middleware.ACR("phr", "phrh"), middleware.MaxAge(300*time.Second)
	acr := func(v any) valetkeytest.Option { return valetkeytest.Claim("acr", v) }
	ago := func(d time.Duration) valetkeytest.Option {
		return valetkeytest.Claim("auth_time", iss.Now().Add(-d).Unix())
	}
	all := func(opts ...valetkeytest.Option) []valetkeytest.Option { return opts }
	write := scopes.All("orders:write")
	needs := func(ns ...valetkey.Requirement) []valetkey.Requirement { return ns }
	const (
		way  = `error="insufficient_user_authentication", error_description="the user's login does not meet the required authentication context"`
		time = `error="insufficient_user_authentication", error_description="the user logged in too long ago"`
	)
	for _, c := range []struct {
		name      string
		needs     []valetkey.Requirement
		token     []valetkeytest.Option
		status    int
		challenge string
	}{
		{"STEP-01 the acr is another", needs(phr), all(acr("pwd")), 401, way + `, acr_values="phr phrh"`},
		{"STEP-01 there is no acr", needs(phr), nil, 401, way + `, acr_values="phr phrh"`},
		{"STEP-03 the acr is an array", needs(phr), all(acr([]string{"phr"})), 401, way + `, acr_values="phr phrh"`},
		{"the acr is empty, and so is the list", needs(middleware.ACR()), all(acr("")), 401, way},
		{"the acr differs in letter case", needs(phr), all(acr("PHR")), 401, way},
		{"the acr has one of the values in it", needs(phr), all(acr("phr2")), 401, way},
		{"STEP-04 auth_time is 301 s ago", needs(recent), all(ago(302e9)), 401, time + `, max_age="300"`},
		{"STEP-05 there is no auth_time, but a new iat", needs(recent), nil, 401, time + `, max_age="300"`},
		{"STEP-05 auth_time is a string", needs(recent), all(valetkeytest.Claim("auth_time", "1")), 401, time + `, max_age="300"`},
		{"STEP-05 auth_time is in milliseconds, and so is far in the future", needs(recent), all(valetkeytest.Claim("auth_time", iss.Now().UnixMilli())), 401, time + `, max_age="300"`},
		{"auth_time is 2 min in the future", needs(recent), all(ago(-120e9)), 401, time + `, max_age="300"`},
		{"STEP-06 max_age 0, and a login of this second", needs(middleware.MaxAge(0)), all(ago(0)), 401, time + `, max_age="0"`},
		{"STEP-06 max_age 0, and a login of the next second, by the issuer's clock", needs(middleware.MaxAge(0)), all(ago(-1e9)), 401, time + `, max_age="0"`},
		{"STEP-08 both fail", needs(phr, recent), nil, 401, way + `, acr_values="phr phrh", max_age="300"`},
		{"STEP-08 both fail, the other way round", needs(recent, phr), nil, 401, time + `, acr_values="phr phrh", max_age="300"`},
		{"the stricter of two max_age", needs(recent, middleware.MaxAge(60e9), phr), nil, 401, `max_age="60"`},
		{"STEP-09 a scope is missing, too", needs(write, phr), nil, 401, way + `, scope="orders:write", acr_values="phr phrh"`},
		{"all of them in one requirement", needs(valetkey.AllOf{recent, write, phr}), nil, 401, time + `, scope="orders:write", acr_values="phr phrh", max_age="300"`},
		{"a scope alone is missing", needs(write, phr), all(acr("phr")), 403, `error="insufficient_scope"`},
		{"STEP-12 the token is not good", needs(phr), all(valetkeytest.Expired()), 401, `error="invalid_token", error_description="the token has expired"`},
		{"STEP-02 the second of two values", needs(phr), all(acr("phrh")), 200, ""},
		{"STEP-03 the acr is a string", needs(phr), all(acr("phr")), 200, ""},
		{"auth_time is of a clock that is 50 s ahead", needs(middleware.MaxAge(30e9)), all(ago(-50e9)), 200, ""},
		{"auth_time is 200 s ago", needs(recent), all(ago(200e9)), 200, ""},
		{"both are good, and the scope", needs(phr, recent, write), all(acr("phr"), ago(0), valetkeytest.Scopes("orders:write")), 200, ""},
		{"all in one requirement are good", needs(valetkey.AllOf{phr, recent}), all(acr("phr"), ago(0)), 200, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			api := serve(t, guard.Handler(hello, c.needs...))
			for range 2 { // new, and remembered
				got := do(t, "GET", api, "Bearer "+iss.Token(c.token...))
				assert.Equal(t, c.status, got.status, got.body)
				assert.Contains(t, got.challenge(), c.challenge)
				if c.status == 401 && c.token == nil {
					assert.NotContains(t, got.challenge(), "invalid_token")
				}
			}
		})
	}
	t.Run("STEP-12 a stranger does not learn what login is needed", func(t *testing.T) {
		got := do(t, "GET", serve(t, guard.Handler(hello, phr, recent)), "Bearer "+iss.Token(valetkeytest.TamperedSignature()))
		assert.Equal(t, 401, got.status)
		assert.NotContains(t, got.challenge(), "acr_values")
		assert.NotContains(t, got.challenge(), "max_age")
	})
	t.Run("STEP-10 the challenge to a DPoP request has its scheme", func(t *testing.T) {
		proofs, err := dpop.New(dpop.Config{Now: iss.Now})
		require.NoError(t, err)
		guard := newGuard(t, iss, func(c *middleware.Config) {
			c.DPoP, c.Resource.ID = proofs, "https://api.example.com"
		})
		key := iss.ProofKey("ES256")
		r := valetkeytest.Request("GET", "https://api.example.com/", "")
		key.Authorize(r, iss.Token(valetkeytest.BoundTo(key)))
		w := httptest.NewRecorder()
		guard.Handler(hello, phr, recent).ServeHTTP(w, r)
		assert.Equal(t, 401, w.Code)
		c := valetkeytest.Challenge(t, w.Header(), "DPoP")
		assert.Equal(t, "insufficient_user_authentication", c["error"])
		assert.Equal(t, "phr phrh", c["acr_values"])
		assert.Equal(t, "300", c["max_age"])
		assert.NotContains(t, valetkeytest.Challenge(t, w.Header(), "Bearer"), "error")
	})
	t.Run("STEP-13 no token: a challenge without an error", func(t *testing.T) {
		got := do(t, "GET", serve(t, guard.Handler(hello, write, phr)), "")
		assert.Equal(t, 401, got.status)
		assert.Equal(t, `Bearer realm="api", scope="orders:write"`, got.challenge())
	})
	t.Run("a login grows old while its token is remembered", func(t *testing.T) {
		api := serve(t, guard.Handler(hello, recent))
		token := "Bearer " + iss.Token(ago(0), valetkeytest.ExpiresIn(3600e9))
		assert.Equal(t, 200, do(t, "GET", api, token).status)
		iss.Advance(301e9)
		assert.Equal(t, 401, do(t, "GET", api, token).status)
	})
	t.Run("STEP-11 an opaque token's introspection answer", func(t *testing.T) {
		v, err := introspect.New(introspect.Config{
			URL: iss.Introspection.URL, Issuer: iss.URL, Audience: []string{valetkeytest.DefaultAudience},
			Auth: introspect.BasicAuth(valetkeytest.IntrospectionID, valetkeytest.IntrospectionSecret), Client: iss.Client(), Now: iss.Now,
		})
		require.NoError(t, err)
		t.Cleanup(v.Close)
		guard, err := middleware.New(middleware.Config{Verifier: v, Now: iss.Now, Logger: quiet})
		require.NoError(t, err)
		api := serve(t, guard.Handler(hello, phr, recent))
		assert.Equal(t, 200, do(t, "GET", api, "Bearer "+iss.Opaque(acr("phr"), ago(0))).status)
		got := do(t, "GET", api, "Bearer "+iss.Opaque(ago(301e9)))
		assert.Equal(t, 401, got.status)
		assert.Contains(t, got.challenge(), `acr_values="phr phrh", max_age="300"`)
	})
}

func BenchmarkStepUp(b *testing.B) {
	iss := valetkeytest.NewIssuer(b)
	token := iss.Token(valetkeytest.Claim("acr", "phr"), valetkeytest.Claim("auth_time", iss.Now().Unix()))
	for _, c := range []struct {
		name  string
		needs []valetkey.Requirement
	}{{"without", nil}, {"acr and max_age", []valetkey.Requirement{middleware.ACR("phr"), middleware.MaxAge(time.Hour)}}} {
		b.Run(c.name, func(b *testing.B) {
			guard, w := newGuard(b, iss), httptest.NewRecorder()
			r := valetkeytest.Request("GET", "/", token)
			b.ReportAllocs()
			for b.Loop() {
				if _, ok := guard.Decide(r, c.needs...).Apply(w, r); !ok {
					b.Fatal("refused")
				}
			}
		})
	}
}

func TestMaxAgeAtItsLimits(t *testing.T) {
	now := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		at       time.Time
		accepted bool
	}{
		"as long ago as is allowed":              {now.Add(-5 * time.Minute), true},
		"a nanosecond longer ago":                {now.Add(-5*time.Minute - 1), false},
		"as far ahead as a clock may be":         {now.Add(time.Minute), true},
		"a nanosecond further ahead":             {now.Add(time.Minute + 1), false},
		"at the zero time, which means not told": {time.Time{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			err := middleware.MaxAge(5 * time.Minute).Check(valetkey.Access{Token: valetkey.NewToken(valetkey.TokenFields{AuthTime: c.at}), Time: now})
			assert.Equal(t, c.accepted, err == nil)
		})
	}
}
