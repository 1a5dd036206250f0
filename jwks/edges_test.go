package jwks_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/jwks"
)

func TestACauseNamesASettingOnlyIfItWouldHelp(t *testing.T) {
	for name, c := range map[string]struct {
		change         func(*jwks.Config)
		header, claims object
		has, hasNot    string
	}{
		"no client, which is allowed, and a malformed jti": {func(c *jwks.Config) { c.Profile.AllowMissingClientID = true }, nil, object{"client_id": nil, "jti": 7}, "jti", "is off"},
		"no aud, and none in AudienceClaim":                {func(c *jwks.Config) { c.AudienceClaim, c.RequireScope = "vendor", true }, nil, object{"aud": nil}, "aud is missing", "is not set"},
		"no aud, and an empty one in AudienceClaim":        {func(c *jwks.Config) { c.AudienceClaim, c.RequireScope = "vendor", true }, nil, object{"aud": nil, "vendor": ""}, "aud is missing", "is not set"},
		"no aud":      {func(*jwks.Config) {}, nil, object{"aud": nil}, "AudienceClaim is not set", "is off"},
		"no typ":      {func(*jwks.Config) {}, object{"typ": nil}, nil, "Profile.AllowUntyped is off", "not set"},
		"another typ": {func(*jwks.Config) {}, object{"typ": "vendor+jwt"}, nil, "vendor+jwt", "is off"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := open(t, c.change).Verify(background, mint(t, es256, c.header, good(c.claims)))
			require.ErrorContains(t, err, c.has)
			assert.NotContains(t, err.Error(), c.hasNot)
		})
	}
}

func TestOptionalClaims(t *testing.T) {
	token, err := open(t).Verify(background, mint(t, es256, nil, good(object{"sid": "s-1"})))
	require.NoError(t, err)
	assert.Equal(t, "s-1", token.SessionID())
	for _, empty := range []any{"", []string{}} {
		token, err = open(t, func(c *jwks.Config) { c.ClientIDClaim, c.Profile.AllowMissingClientID = "vendor", true }).
			Verify(background, mint(t, es256, nil, good(object{"vendor": empty})))
		require.NoError(t, err, "an empty claim is as one that is not there")
		assert.Empty(t, token.ClientID())
	}
	_, err = open(t).Verify(background, mint(t, es256, nil, good(object{"sid": 7})))
	refused(t, err, badClaim)
}

func TestCharactersOfTenants(t *testing.T) {
	v := open(t, func(c *jwks.Config) { c.Issuer, c.Profile.AllowAnyTenant = tenants, true })
	for tenant, accepted := range map[string]bool{
		"a": true, "z": true, "A": true, "Z": true, "0": true, "9": true, "az.AZ-09_": true,
		"/": false, ":": false, "@": false, "[": false, "`": false, "{": false, "a/b": false, "a b": false, "é": false, "%41": false,
	} {
		_, err := v.Verify(background, mint(t, es256, nil, good(object{"tid": tenant, "iss": "https://login.example/" + tenant + "/v2.0"})))
		assert.Equal(t, accepted, err == nil, "%q: %v", tenant, err)
	}
}

func TestKeyRequestsWithOneSetting(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(file, []byte("p0d"), 0o600))
	for name, requests := range map[string]jwks.KeyRequests{
		"a token file": {TokenFile: file},
		"a header":     {Header: http.Header{"Authorization": {"Bearer p0d"}}},
	} {
		t.Run(name+" is sent", func(t *testing.T) {
			s := serve(t, func(w http.ResponseWriter, r *http.Request) {
				assert.Equal(t, "Bearer p0d", r.Header.Get("Authorization"))
				sets(keySet(es256))(w, r)
			})
			v := open(t, func(c *jwks.Config) {
				c.JWKS, c.JWKSURL, c.Client, c.KeyRequests = nil, s.URL+"/keys", s.Client(), requests
			})
			_, err := v.Verify(background, mint(t, es256, nil, good(nil)))
			assert.NoError(t, err)
			assert.Equal(t, 1, s.count())
		})
	}
	t.Run("a certificate of the client that cannot be read is named by both fields", func(t *testing.T) {
		_, err := jwks.New(jwks.Config{Issuer: issuer, Audience: []string{api}, JWKSURL: issuer + "/keys", KeyRequests: jwks.KeyRequests{CertFile: "/none", KeyFile: "/none"}})
		assert.ErrorContains(t, err, "jwks: KeyRequests.CertFile, KeyRequests.KeyFile: reading /none")
	})
}

func TestTenantsEdges(t *testing.T) {
	const ttl = 5 * time.Minute
	a := generate("ES256", "k")
	t.Run("a negative TTL is a mistake", func(t *testing.T) {
		_, err := jwks.Tenants(jwks.TenantsConfig{Lookup: new(registry).lookup, TTL: -1})
		assert.EqualError(t, err, "jwks: Tenants: TTL: -1ns is not between 0 and 24h0m0s")
	})
	play(t, "an issuer of 1 KiB is looked up, a longer one is not", func(t *testing.T) {
		longest := acme + "/" + strings.Repeat("x", 1<<10-len(acme)-1)
		r := registered(a, longest, longest+"x")
		v := r.open(t)
		accepted(t, v, tokenOf(t, a, longest))
		_, err := v.Verify(background, tokenOf(t, a, longest+"x"))
		refused(t, err, otherIssuer)
		assert.Equal(t, []string{longest}, r.asked)
	})
	play(t, "a remembered token of a tenant that was removed causes no lookup", func(t *testing.T) {
		r := registered(a, acme, other)
		v := r.open(t, func(c *jwks.TenantsConfig) { c.Max = 1 })
		remembered := accepted(t, v, tokenOf(t, a, acme))
		accepted(t, v, tokenOf(t, a, other))
		assert.Equal(t, []string{other}, names(v.Tenants()))
		before := r.count()
		time.Sleep(ttl / 2)
		assert.False(t, remembered.Freshness().While.Holds())
		synctest.Wait()
		assert.Equal(t, before, r.count())
	})
	play(t, "the context of a lookup has ended after it", func(t *testing.T) {
		r := registered(a, acme)
		var asked context.Context
		v := r.open(t, func(c *jwks.TenantsConfig) {
			c.Lookup = func(ctx context.Context, iss string) (jwks.Config, error) { asked = ctx; return r.lookup(ctx, iss) }
		})
		accepted(t, v, tokenOf(t, a, acme))
		assert.ErrorIs(t, asked.Err(), context.Canceled)
	})
	play(t, "a tenant that is held and cannot be renewed is logged, an issuer that is not held is not", func(t *testing.T) {
		var log bytes.Buffer
		r := registered(a, acme)
		v := r.open(t, func(c *jwks.TenantsConfig) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
		accepted(t, v, tokenOf(t, a, acme))
		r.set(func(r *registry) { r.err = fmt.Errorf("no database") })
		failed(t, v, tokenOf(t, a, other), "no database")
		assert.NotContains(t, log.String(), "not renewed")
		time.Sleep(ttl / 2)
		accepted(t, v, tokenOf(t, a, acme))
		synctest.Wait()
		assert.Equal(t, 1, strings.Count(log.String(), "a tenant is not renewed"), log.String())
		assert.Contains(t, log.String(), "issuer="+acme)
		assert.Contains(t, log.String(), "no database")
	})
	for name, change := range map[string]func(*jwks.Config){
		"Client":   func(c *jwks.Config) { c.Client = http.DefaultClient },
		"Logger":   func(c *jwks.Config) { c.Logger = slog.Default() },
		"Observer": func(c *jwks.Config) { c.Observer = valetkey.Observer(make(observer)) },
		"Now":      func(c *jwks.Config) { c.Now = time.Now },
	} {
		play(t, name+" cannot be set per tenant", func(t *testing.T) {
			r := registered(a, acme)
			cfg := r.tenants[acme]
			change(&cfg)
			r.tenants[acme] = cfg
			failed(t, r.open(t), tokenOf(t, a, acme), "cannot be set per tenant")
		})
	}
}
