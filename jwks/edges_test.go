package jwks_test

import (
	"bytes"
	"context"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/jose"
	"github.com/valetkey/valetkey/jwks"
)

func TestACauseNamesASettingOnlyIfItWouldHelp(t *testing.T) {
	for name, c := range map[string]struct {
		change         func(*jwks.Config)
		header, claims object
		has, hasNot    string
	}{
		"no client, which is allowed, and a malformed jti": {func(c *jwks.Config) { c.Profile.AllowMissingClientID = true }, nil, object{"client_id": nil, "jti": 7}, "jti", "is off"},
		"neither aud nor the claim of AudienceClaim":       {func(c *jwks.Config) { c.AudienceClaim, c.RequireScope = "vendor", true }, nil, object{"aud": nil}, "aud is missing", "is not set"},
		"no aud, and an empty one in AudienceClaim":        {func(c *jwks.Config) { c.AudienceClaim, c.RequireScope = "vendor", true }, nil, object{"aud": nil, "vendor": ""}, "aud is missing", "is not set"},
		"no aud": {func(*jwks.Config) {}, nil, object{"aud": nil}, "AudienceClaim is not set", "is off"},
		"no sub, which is allowed, and a malformed jti":          {func(c *jwks.Config) { c.Profile.AllowMissingSubject = true }, nil, object{"sub": nil, "jti": 7}, "jti", "is off"},
		"a number as sub, which is allowed, and a malformed jti": {func(c *jwks.Config) { c.Profile.AllowNumericSubject = true }, nil, object{"sub": 7, "jti": 7}, "jti", "is off"},
		"no jti, which is allowed, and a malformed exp":          {func(c *jwks.Config) { c.Profile.AllowMissingID = true }, nil, object{"jti": nil, "exp": "x"}, "exp", "is off"},
		"no iat, which is allowed, and a malformed nbf":          {func(c *jwks.Config) { c.Profile.AllowMissingIssuedAt = true }, nil, object{"iat": nil, "nbf": "x"}, "nbf", "is off"},
		"a malformed sub, and no aud":                            {func(*jwks.Config) {}, nil, object{"sub": []string{"a"}, "aud": nil}, "sub is not a string", "is not set"},
		"a malformed client_id":                                  {func(*jwks.Config) {}, nil, object{"client_id": 7}, "client_id is not a string", "is off"},
		"a malformed iat":                                        {func(*jwks.Config) {}, nil, object{"iat": "x"}, "iat", "is off"},
		"a malformed aud":                                        {func(*jwks.Config) {}, nil, object{"aud": 7}, "aud", "is not set"},
		"no client in ClientIDClaim, and no client_id":           {func(c *jwks.Config) { c.ClientIDClaim = "vendor" }, nil, object{"client_id": nil}, "vendor is missing", "is off"},
		"no client in ClientIDHeader, and no client_id":          {func(c *jwks.Config) { c.ClientIDHeader = "client" }, nil, object{"client_id": nil}, "the header parameter client is missing", "is off"},
		"no recipient in AudienceHeader, and no aud":             {func(c *jwks.Config) { c.AudienceHeader = "signer" }, nil, object{"aud": nil}, "the header parameter signer is missing", "is not set"},
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

func TestATokenWithoutKeyIDIsRefusedIfFiveKeysFit(t *testing.T) {
	keys := []*jose.PrivateKey{es256}
	for i := range 4 {
		raw := mint(t, es256, object{"kid": nil}, good(nil))
		v := open(t, lenient, func(c *jwks.Config) { c.JWKS = keySet(keys...) })
		_, err := v.Verify(background, raw)
		assert.NoError(t, err, "%d keys fit", len(keys))
		keys = append(keys, generate("ES256", fmt.Sprint(i)))
	}
	_, err := open(t, lenient, func(c *jwks.Config) { c.JWKS = keySet(keys...) }).Verify(background, mint(t, es256, object{"kid": nil}, good(nil)))
	refused(t, err, unknownKey)
}

func TestTheKeysOfAnIssuerWithTenantsAreFetched(t *testing.T) {
	s := serve(t, sets(keySet(es256)))
	v := open(t, func(c *jwks.Config) {
		c.Issuer, c.Profile.AllowAnyTenant, c.JWKS, c.JWKSURL, c.Client = tenants, true, nil, s.URL+"/keys", s.Client()
	})
	for _, tenant := range []string{"t1", "t2"} {
		_, err := v.Verify(background, mint(t, es256, nil, good(object{"tid": tenant, "iss": "https://login.example/" + tenant + "/v2.0"})))
		assert.NoError(t, err)
	}
	assert.Equal(t, 1, s.count())
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
		assert.EqualError(t, err, "jwks: KeyRequests.CertFile, KeyRequests.KeyFile: reading /none: no such file or directory")
	})
	t.Run("half a certificate of the client beside authorities is one mistake", func(t *testing.T) {
		s := serve(t, sets(nil))
		authorities := filepath.Join(t.TempDir(), "ca.pem")
		require.NoError(t, os.WriteFile(authorities, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600))
		_, err := jwks.New(jwks.Config{Issuer: issuer, Audience: []string{api}, JWKSURL: issuer + "/keys", KeyRequests: jwks.KeyRequests{CAFile: authorities, CertFile: authorities}})
		assert.EqualError(t, err, "jwks: KeyRequests.KeyFile: required with CertFile")
	})
}

func TestTenantsEdges(t *testing.T) {
	const ttl = 5 * time.Minute
	a := generate("ES256", "k")
	t.Run("a negative TTL is a mistake", func(t *testing.T) {
		_, err := jwks.Tenants(jwks.TenantsConfig{Lookup: new(registry).lookup, TTL: -1})
		assert.EqualError(t, err, "jwks: Tenants: TTL: -1ns is not between 0 and 24h0m0s")
	})
	t.Run("a TTL of a day is the longest", func(t *testing.T) {
		registered(a, acme).open(t, func(c *jwks.TenantsConfig) { c.TTL = 24 * time.Hour })
		_, err := jwks.Tenants(jwks.TenantsConfig{Lookup: new(registry).lookup, TTL: 24*time.Hour + 1})
		assert.ErrorContains(t, err, "TTL")
	})
	play(t, "a tenant is held for the TTL that is set", func(t *testing.T) {
		r := registered(a, acme)
		v := r.open(t, func(c *jwks.TenantsConfig) { c.TTL = time.Hour })
		remembered := accepted(t, v, tokenOf(t, a, acme))
		time.Sleep(time.Hour - 1)
		assert.True(t, remembered.Freshness().While.Holds())
		r.set(func(r *registry) { r.err = fmt.Errorf("no database") })
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		assert.Empty(t, v.Tenants())
	})
	play(t, "a token does not hold at the very end of its tenant", func(t *testing.T) {
		v := registered(a, acme).open(t)
		for range 20 { // the timer that removes the tenant may come first
			remembered := accepted(t, v, tokenOf(t, a, acme))
			time.Sleep(ttl)
			assert.False(t, remembered.Freshness().While.Holds())
			synctest.Wait()
		}
	})
	play(t, "a tenant is looked up once at a time, also if that takes longer than a tenth of the TTL", func(t *testing.T) {
		r := registered(a, acme)
		v := r.open(t, func(c *jwks.TenantsConfig) { c.TTL = 10 * time.Second })
		remembered := accepted(t, v, tokenOf(t, a, acme))
		r.set(func(r *registry) { r.delay = 4 * time.Second })
		time.Sleep(5 * time.Second)
		for range 4 {
			assert.True(t, remembered.Freshness().While.Holds())
			synctest.Wait()
			assert.Equal(t, 2, r.count())
			time.Sleep(time.Second - 1)
		}
	})
	play(t, "a tenant verifies a token once, whether it accepts it or not", func(t *testing.T) {
		checks := 0
		v := registered(a, acme).open(t, func(c *jwks.TenantsConfig) { c.Now = func() time.Time { checks++; return now } })
		accepted(t, v, tokenOf(t, a, acme))
		assert.Equal(t, 1, checks)
		_, err := v.Verify(background, tokenOf(t, generate("ES256", "k"), acme))
		refused(t, err, badSignature)
		assert.Equal(t, 2, checks)
	})
	play(t, "a failure of a lookup is all that its error names", func(t *testing.T) {
		r := registered(a)
		r.err = fmt.Errorf("no database")
		_, err := r.open(t).Verify(background, tokenOf(t, a, acme))
		assert.EqualError(t, err, `temporarily unavailable: jwks: looking up the tenant "https://acme.example": no database`)
	})
	play(t, "an issuer that is not a tenant and a tenant with a mistake leave the lookups ready", func(t *testing.T) {
		r := registered(a)
		r.tenants[other] = jwks.Config{Issuer: other}
		v := r.open(t)
		for raw, check := range map[string]func(err error){
			tokenOf(t, a, acme):  func(err error) { refused(t, err, otherIssuer) },
			tokenOf(t, a, other): func(err error) { assert.ErrorContains(t, err, "Audience: required") },
		} {
			r.set(func(r *registry) { r.err = fmt.Errorf("no database") })
			failed(t, v, raw, "no database")
			assert.Equal(t, valetkey.Degraded, v.Health()[0].State)
			r.set(func(r *registry) { r.err = nil })
			for range 2 {
				_, err := v.Verify(background, raw)
				check(err)
				assert.Equal(t, valetkey.Ready, v.Health()[0].State)
				assert.NoError(t, v.Health()[0].Err)
			}
		}
	})
	play(t, "a key that is dropped from the new keys of a tenant is logged", func(t *testing.T) {
		var log bytes.Buffer
		r := registered(a, acme)
		v := r.open(t, func(c *jwks.TenantsConfig) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
		accepted(t, v, tokenOf(t, a, acme))
		cfg := r.tenants[acme]
		cfg.JWKS = []byte(strings.Replace(string(keySet(a)), "[", `[{"kid":"broken","kty":"RSA"},`, 1))
		r.set(func(r *registry) { r.tenants[acme] = cfg })
		time.Sleep(ttl / 2)
		accepted(t, v, tokenOf(t, a, acme))
		synctest.Wait()
		assert.Equal(t, 1, strings.Count(log.String(), "kid=broken"), log.String())
	})
	play(t, "a tenant that is renewed once has access until the end of the second TTL", func(t *testing.T) {
		r := registered(a, acme)
		v := r.open(t)
		remembered := accepted(t, v, tokenOf(t, a, acme))
		time.Sleep(ttl - time.Second)
		assert.True(t, remembered.Freshness().While.Holds()) // and the tenant is looked up
		synctest.Wait()
		time.Sleep(ttl - 1)
		synctest.Wait()
		assert.Equal(t, 2, r.count())
		assert.Len(t, v.Tenants(), 1)
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		assert.Empty(t, v.Tenants())
	})
	for name, config := range map[string]func(*testing.T) func() jwks.Config{
		"given": func(*testing.T) func() jwks.Config {
			return func() jwks.Config {
				return jwks.Config{Audience: []string{api, strings.Repeat("x", 1<<16)}, JWKS: keySet(a)}
			}
		},
		"fetched": func(t *testing.T) func() jwks.Config {
			s := httptest.NewServer(sets(keySet(a)))
			t.Cleanup(s.Close)
			return func() jwks.Config {
				return jwks.Config{Audience: []string{api}, JWKSURL: s.URL + "/?" + strings.Repeat("x", 1<<16), InsecureHTTP: true}
			}
		},
	} {
		t.Run("a tenant that made room takes no memory, if its keys are "+name, func(t *testing.T) {
			next := config(t)
			v := registered(a).open(t, func(c *jwks.TenantsConfig) {
				c.Max, c.InsecureAnyAddress = 1, true
				c.Lookup = func(_ context.Context, iss string) (jwks.Config, error) {
					cfg := next()
					cfg.Issuer = iss
					return cfg, nil
				}
			})
			memory := func() (m runtime.MemStats) { runtime.GC(); runtime.ReadMemStats(&m); return m }
			before := memory()
			for i := range 64 {
				accepted(t, v, tokenOf(t, a, fmt.Sprintf("https://tenant-%d.example", i)))
			}
			assert.Eventually(t, func() bool { return memory().HeapAlloc < before.HeapAlloc+2<<20 }, 10*time.Second, 10*time.Millisecond, "64 of them had 4 MiB")
		})
	}
	play(t, "Close waits for a lookup that does not end with its context", func(t *testing.T) {
		ended := false
		v := registered(a).open(t, func(c *jwks.TenantsConfig) {
			c.Lookup = func(context.Context, string) (jwks.Config, error) {
				time.Sleep(time.Minute)
				ended = true
				return jwks.Config{}, jwks.ErrNoTenant
			}
		})
		failed(t, v, tokenOf(t, a, acme), "no answer yet")
		v.Close()
		assert.True(t, ended)
	})
	t.Run("Close closes the connections for keys", func(t *testing.T) {
		closed := make(chan struct{}, 10)
		s := httptest.NewUnstartedServer(sets(keySet(a)))
		s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
			if state == http.StateClosed {
				closed <- struct{}{}
			}
		}
		s.Start()
		t.Cleanup(s.Close)
		r := registered(a)
		r.tenants[acme] = jwks.Config{Issuer: acme, Audience: []string{api}, JWKSURL: s.URL, InsecureHTTP: true}
		v := r.open(t, func(c *jwks.TenantsConfig) { c.InsecureAnyAddress = true })
		accepted(t, v, tokenOf(t, a, acme))
		v.Close()
		select {
		case <-closed:
		case <-time.After(10 * time.Second):
			t.Error("the connection is open")
		}
	})
	play(t, "a logger that blocks does not delay the tokens of other tenants", func(t *testing.T) {
		r := registered(a, acme, other)
		log := make(blocking)
		v := r.open(t, func(c *jwks.TenantsConfig) { c.Logger = slog.New(log) })
		accepted(t, v, tokenOf(t, a, acme))
		r.set(func(r *registry) { r.err = fmt.Errorf("no database") })
		time.Sleep(ttl / 2)
		accepted(t, v, tokenOf(t, a, acme)) // and the tenant is looked up
		synctest.Wait()
		r.set(func(r *registry) { r.err = nil })
		accepted(t, v, tokenOf(t, a, other))
		assert.Equal(t, "tenants: a tenant is not renewed", (<-log).Message)
	})
	play(t, "without a Logger, the default one is used", func(t *testing.T) {
		var log bytes.Buffer
		before := slog.Default()
		defer slog.SetDefault(before)
		slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
		r := registered(a, acme)
		v := r.open(t, func(c *jwks.TenantsConfig) { c.Logger = nil })
		accepted(t, v, tokenOf(t, a, acme))
		r.set(func(r *registry) { r.err = fmt.Errorf("no database") })
		time.Sleep(ttl / 2)
		accepted(t, v, tokenOf(t, a, acme))
		synctest.Wait()
		assert.Contains(t, log.String(), "a tenant is not renewed")
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

// blocking is a slog.Handler that waits until its record is read.
type blocking chan slog.Record

func (b blocking) Enabled(context.Context, slog.Level) bool      { return true }
func (b blocking) Handle(_ context.Context, r slog.Record) error { b <- r; return nil }
func (b blocking) WithAttrs([]slog.Attr) slog.Handler            { return b }
func (b blocking) WithGroup(string) slog.Handler                 { return b }

// TestTenantsProxy runs itself again, since net/http reads the proxy from the environment once per process.
func TestTenantsProxy(t *testing.T) {
	const url = "https://keys.example/keys"
	tenant := &registry{tenants: map[string]jwks.Config{acme: {Issuer: acme, Audience: []string{api}, JWKSURL: url}}}
	if os.Getenv("TENANTS_PROXY") != "" {
		failed(t, tenant.open(t, func(c *jwks.TenantsConfig) { c.InsecureAnyAddress = true }), tokenOf(t, es256, acme), url)
		return
	}
	asked := make(chan string, 10)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.Method + " " + r.Host
		w.WriteHeader(http.StatusBadGateway)
	}))
	t.Cleanup(s.Close)
	t.Run("InsecureAnyAddress uses the proxy from the environment", func(t *testing.T) {
		cmd := exec.Command(os.Args[0], "-test.run=^TestTenantsProxy$")
		cmd.Env = append(os.Environ(), "HTTPS_PROXY="+s.URL, "NO_PROXY=", "TENANTS_PROXY=on")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.NotEmpty(t, asked)
		assert.Equal(t, "CONNECT keys.example:443", <-asked)
	})
}
