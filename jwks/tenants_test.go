package jwks_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/jose"
	"github.com/valetkey/valetkey/jwks"
)

// A registry is an application that knows its tenants.
type registry struct {
	mu      sync.Mutex
	tenants map[string]jwks.Config
	err     error         // of each lookup
	delay   time.Duration // of each lookup
	asked   []string
}

func (r *registry) lookup(ctx context.Context, iss string) (jwks.Config, error) {
	r.mu.Lock()
	r.asked = append(r.asked, iss)
	delay := r.delay
	r.mu.Unlock()
	select {
	case <-time.After(delay):
	case <-ctx.Done():
		return jwks.Config{}, ctx.Err()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return jwks.Config{}, r.err
	}
	cfg, known := r.tenants[iss]
	if !known {
		return jwks.Config{}, fmt.Errorf("no row: %w", jwks.ErrNoTenant)
	}
	return cfg, nil
}

func (r *registry) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.asked)
}

// set changes what the registry does.
func (r *registry) set(f func(r *registry)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(r)
}

// registered returns a registry of the tenants named, each with k as its key, which needs no network.
func registered(k *jose.PrivateKey, tenants ...string) *registry {
	r := &registry{tenants: map[string]jwks.Config{}}
	for _, iss := range tenants {
		r.tenants[iss] = jwks.Config{Issuer: iss, Audience: []string{api}, JWKS: keySet(k)}
	}
	return r
}

// open returns a verifier of the tenants in r.
func (r *registry) open(t testing.TB, changes ...func(*jwks.TenantsConfig)) *jwks.TenantVerifier {
	t.Helper()
	cfg := jwks.TenantsConfig{Lookup: r.lookup, Logger: slog.New(slog.DiscardHandler), Now: func() time.Time { return now }}
	for _, f := range changes {
		f(&cfg)
	}
	v, err := jwks.Tenants(cfg)
	require.NoError(t, err)
	t.Cleanup(v.Close)
	return v
}

func tokenOf(t testing.TB, k *jose.PrivateKey, iss string) string {
	return mint(t, k, nil, good(object{"iss": iss}))
}

func accepted(t *testing.T, v valetkey.Verifier, raw string) *valetkey.Token {
	t.Helper()
	token, err := v.Verify(background, raw)
	require.NoError(t, err)
	require.True(t, token.Freshness().While.Holds())
	return token
}

func failed(t *testing.T, v valetkey.Verifier, raw, why string) {
	t.Helper()
	_, err := v.Verify(background, raw)
	var u *valetkey.Unavailable
	require.ErrorAs(t, err, &u)
	assert.Positive(t, u.RetryAfter)
	assert.ErrorContains(t, err, why)
}

// atOnce checks that f does not wait. In a bubble, time passes only while a goroutine waits.
func atOnce(t *testing.T, f func()) {
	t.Helper()
	start := time.Now()
	f()
	require.Zero(t, time.Since(start))
}

func names(health []valetkey.Health) (all []string) {
	for _, h := range health {
		all = append(all, h.Name)
	}
	return all
}

func play(t *testing.T, name string, f func(t *testing.T)) {
	t.Run(name, func(t *testing.T) { synctest.Test(t, f) })
}

const (
	acme  = "https://acme.example"
	other = "https://other.example"
)

func TestTenantsConfig(t *testing.T) {
	t.Run("all mistakes are named", func(t *testing.T) {
		v, err := jwks.Tenants(jwks.TenantsConfig{Max: -1, TTL: 25 * time.Hour, Allow: []netip.Prefix{{}}})
		assert.Nil(t, v)
		for _, field := range []string{"Lookup: required", "Max: ", "TTL: ", "Allow[0]: "} {
			assert.ErrorContains(t, err, "jwks: Tenants: "+field)
		}
	})
}

func TestTenants(t *testing.T) {
	a, b := generate("ES256", "k"), generate("ES256", "k")

	t.Run("JWT-28 a token whose iss names no tenant is refused without a lookup", func(t *testing.T) {
		r := registered(a, acme)
		v := r.open(t)
		for _, iss := range []any{nil, "", 7, []string{acme}, strings.Repeat("x", 1025)} {
			_, err := v.Verify(background, mint(t, a, nil, good(object{"iss": iss})))
			refused(t, err, otherIssuer)
			assert.ErrorIs(t, err, valetkey.ErrNotApplicable)
		}
		_, err := v.Verify(background, "opaque")
		assert.ErrorIs(t, err, valetkey.ErrNotApplicable)
		assert.Empty(t, r.asked)
	})
	t.Run("JWT-28 a token whose iss is not a tenant is refused", func(t *testing.T) {
		for _, answer := range []error{jwks.ErrNoTenant, nil} {
			v := registered(a).open(t, func(c *jwks.TenantsConfig) {
				c.Lookup = func(context.Context, string) (jwks.Config, error) { return jwks.Config{}, answer }
			})
			_, err := v.Verify(background, tokenOf(t, a, acme))
			refused(t, err, otherIssuer)
			assert.ErrorIs(t, err, valetkey.ErrNotApplicable)
		}
	})
	for name, test := range map[string]struct {
		answer func(context.Context, string) (jwks.Config, error)
		want   string
	}{
		"fails":                   {func(context.Context, string) (jwks.Config, error) { return jwks.Config{}, errors.New("no database") }, "no database"},
		"panics":                  {func(context.Context, string) (jwks.Config, error) { panic("at the disco") }, "at the disco"},
		"answers for another one": {func(context.Context, string) (jwks.Config, error) { return jwks.Config{Issuer: other}, nil }, "Issuer: Lookup returned"},
		"forgets the audience":    {func(context.Context, string) (jwks.Config, error) { return jwks.Config{Issuer: acme}, nil }, "Audience: required"},
		"brings an HTTP client": {func(context.Context, string) (jwks.Config, error) {
			return jwks.Config{Issuer: acme, Audience: []string{api}, Client: http.DefaultClient}, nil
		}, "Client, "},
	} {
		t.Run("a lookup that "+name+" is a failure, and not remembered", func(t *testing.T) {
			r := registered(a, acme)
			broken := true
			v := r.open(t, func(c *jwks.TenantsConfig) {
				c.Lookup = func(ctx context.Context, iss string) (jwks.Config, error) {
					if broken {
						return test.answer(ctx, iss)
					}
					return r.lookup(ctx, iss)
				}
			})
			failed(t, v, tokenOf(t, a, acme), test.want)
			broken = false
			accepted(t, v, tokenOf(t, a, acme))
		})
	}
	t.Run("JWT-29 a token of one tenant signed with another's key is refused", func(t *testing.T) {
		r := registered(a, acme)
		r.tenants[other] = jwks.Config{Issuer: other, Audience: []string{api}, JWKS: keySet(b)}
		v := r.open(t)
		accepted(t, v, tokenOf(t, a, acme))
		accepted(t, v, tokenOf(t, b, other))
		for iss, k := range map[string]*jose.PrivateKey{acme: b, other: a} {
			_, err := v.Verify(background, tokenOf(t, k, iss))
			refused(t, err, badSignature)
		}
	})
	t.Run("a tenant with braces in its name accepts no tokens, and none of another tenant", func(t *testing.T) {
		for _, iss := range []string{"https://{sub}.example", "https://{tid}.example"} {
			r := registered(a, iss)
			cfg := r.tenants[iss]
			cfg.Profile.AllowAnyTenant = true
			r.tenants[iss] = cfg
			v := r.open(t)
			for _, claims := range []object{{"iss": iss, "tid": "{tid}", "sub": "{sub}"}, {"iss": iss, "tid": "acme", "sub": "acme"}, {"iss": "https://acme.example", "tid": "acme", "sub": "acme"}} {
				_, err := v.Verify(background, mint(t, a, nil, good(claims)))
				refused(t, err, otherIssuer)
			}
		}
	})
	t.Run("an alias of one tenant gives it no tokens of another", func(t *testing.T) {
		r := registered(a, acme)
		cfg := r.tenants[acme]
		cfg.IssuerAliases = []string{other}
		r.tenants[acme] = cfg
		r.tenants[other] = jwks.Config{Issuer: other, Audience: []string{api}, JWKS: keySet(b)}
		v := r.open(t)
		accepted(t, v, tokenOf(t, a, acme))
		_, err := v.Verify(background, tokenOf(t, a, other))
		refused(t, err, badSignature)
		assert.Equal(t, other, accepted(t, v, tokenOf(t, b, other)).Issuer())
	})
	t.Run("a token is verified with its tenant's settings", func(t *testing.T) {
		r := registered(a, acme)
		r.tenants[other] = jwks.Config{Issuer: other, Audience: []string{"urn:other"}, JWKS: keySet(a)}
		v := r.open(t)
		assert.Equal(t, acme, accepted(t, v, tokenOf(t, a, acme)).Issuer())
		_, err := v.Verify(background, tokenOf(t, a, other))
		refused(t, err, otherAud)
	})
	t.Run("several kinds of issuers go together", func(t *testing.T) {
		fixed := open(t, func(c *jwks.Config) { c.JWKS = keySet(b) })
		v := valetkey.First(fixed, registered(a, acme).open(t))
		assert.Equal(t, acme, accepted(t, v, tokenOf(t, a, acme)).Issuer())
		assert.Equal(t, issuer, accepted(t, v, tokenOf(t, b, issuer)).Issuer())
		assert.Equal(t, []string{issuer, "tenants"}, names(v.(valetkey.HealthReporter).Health()))
	})
	play(t, "requests share a lookup, and wait for it 2 s at most", func(t *testing.T) {
		r := registered(a, acme, other)
		r.delay = time.Second
		v := r.open(t)
		var requests sync.WaitGroup
		for range 100 {
			requests.Go(func() { _, err := v.Verify(background, tokenOf(t, a, acme)); assert.NoError(t, err) })
		}
		requests.Wait()
		assert.Equal(t, []string{acme}, r.asked)

		r.set(func(r *registry) { r.delay = 3 * time.Second })
		start := time.Now()
		failed(t, v, tokenOf(t, a, other), "no answer yet")
		assert.Equal(t, 2*time.Second, time.Since(start))
		time.Sleep(time.Second)
		synctest.Wait()
		atOnce(t, func() { accepted(t, v, tokenOf(t, a, other)) })

		ctx, cancel := context.WithTimeout(background, time.Millisecond)
		defer cancel()
		start = time.Now()
		_, err := v.Verify(ctx, tokenOf(t, a, "https://third.example"))
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, time.Millisecond, time.Since(start))
	})
}

func TestMadeUpIssuers(t *testing.T) {
	a := generate("ES256", "k")
	madeUp := func(i int) string { return fmt.Sprintf("https://made-up-%d.example", i) }

	play(t, "an issuer that is not a tenant is looked up again after 5 s only", func(t *testing.T) {
		r := registered(a)
		v := r.open(t)
		raw := tokenOf(t, a, acme)
		for range 1000 {
			_, err := v.Verify(background, raw)
			refused(t, err, otherIssuer)
		}
		assert.Equal(t, 1, r.count())
		time.Sleep(5*time.Second - time.Millisecond)
		_, err := v.Verify(background, raw)
		refused(t, err, otherIssuer)
		assert.Equal(t, 1, r.count())
		r.set(func(r *registry) { r.tenants = registered(a, acme).tenants })
		time.Sleep(time.Millisecond)
		accepted(t, v, raw)
	})
	play(t, "a flood of them is looked up within a budget, takes no tenant's place, and tenants do not notice", func(t *testing.T) {
		r := registered(a, acme, other)
		v := r.open(t, func(c *jwks.TenantsConfig) { c.Max = 2 })
		raw := tokenOf(t, a, acme)
		remembered := accepted(t, v, raw)
		accepted(t, v, tokenOf(t, a, other))
		r.set(func(r *registry) { r.asked = nil })
		refusals, busy := 0, 0
		for i := range 20_000 {
			_, err := v.Verify(background, forge(t, raw, madeUp(i)))
			var u *valetkey.Unavailable
			switch {
			case errors.Is(err, valetkey.ErrNotApplicable):
				refusals++
			case errors.As(err, &u):
				busy++
			default:
				t.Fatal(err)
			}
			if i%1000 == 0 {
				atOnce(t, func() { accepted(t, v, raw) })
			}
		}
		assert.Equal(t, 4096, r.count())
		assert.Equal(t, 4096, refusals)
		assert.Equal(t, 20_000-4096, busy)
		assert.True(t, remembered.Freshness().While.Holds())
		assert.Equal(t, []string{acme, other}, names(v.Tenants()))
		time.Sleep(5 * time.Second)
		_, err := v.Verify(background, forge(t, raw, madeUp(30_000)))
		assert.ErrorIs(t, err, valetkey.ErrNotApplicable)
	})
	play(t, "32 of them are looked up at the same time, and tenants are renewed all the same", func(t *testing.T) {
		r := registered(a, acme)
		v := r.open(t)
		raw := tokenOf(t, a, acme)
		accepted(t, v, raw)
		r.set(func(r *registry) { r.delay = 4 * time.Second })
		time.Sleep(150 * time.Second) // half of TTL
		before := r.count()
		var flood sync.WaitGroup
		for i := range 32 {
			flood.Go(func() {
				_, err := v.Verify(background, tokenOf(t, a, madeUp(i)))
				assert.ErrorContains(t, err, "no answer yet")
			})
		}
		synctest.Wait()
		atOnce(t, func() {
			failed(t, v, tokenOf(t, a, other), "too many")
			accepted(t, v, raw)
		})
		synctest.Wait()
		assert.Equal(t, before+33, r.count())
		assert.Contains(t, r.asked[before:], acme)
		flood.Wait()
	})
}

// forge returns a token of iss with the header and the signature of another one.
func forge(t *testing.T, of, iss string) string {
	parts := strings.Split(of, ".")
	payload, err := json.Marshal(good(object{"iss": iss}))
	require.NoError(t, err)
	return parts[0] + "." + base64.RawURLEncoding.EncodeToString(payload) + "." + parts[2]
}

func TestTenantsTTL(t *testing.T) {
	const ttl = 5 * time.Minute
	a := generate("ES256", "k")
	raw := tokenOf(t, a, acme)

	play(t, "a tenant that is removed loses access, and so do its remembered tokens, within TTL", func(t *testing.T) {
		r := registered(a, acme)
		v := r.open(t)
		remembered := accepted(t, v, raw)
		r.set(func(r *registry) { clear(r.tenants); r.delay = time.Second })
		time.Sleep(ttl/2 - time.Second)
		accepted(t, v, raw)
		time.Sleep(time.Second)
		accepted(t, v, raw) // and the tenant is looked up, which takes a second
		time.Sleep(time.Second)
		synctest.Wait()
		assert.False(t, remembered.Freshness().While.Holds())
		assert.Empty(t, v.Tenants())
		_, err := v.Verify(background, raw)
		refused(t, err, otherIssuer)
	})
	play(t, "an unused one loses access at the end of TTL", func(t *testing.T) {
		r := registered(a, acme)
		v := r.open(t)
		remembered := accepted(t, v, raw)
		time.Sleep(ttl)
		synctest.Wait()
		assert.False(t, remembered.Freshness().While.Holds())
		assert.Equal(t, 1, r.count())
		assert.Empty(t, v.Tenants(), "nor are its keys kept fresh any longer")
		accepted(t, v, raw)
		assert.Equal(t, 2, r.count())
	})
	play(t, "one whose tokens are remembered is renewed, though no token of it is verified", func(t *testing.T) {
		r := registered(a, acme)
		v := r.open(t)
		remembered := accepted(t, v, raw)
		r.set(func(r *registry) { r.delay = time.Second })
		for range 180 {
			time.Sleep(time.Minute)
			atOnce(t, func() { require.True(t, remembered.Freshness().While.Holds()) })
		}
		assert.InDelta(t, 180.0/3, r.count(), 2)
		assert.Equal(t, []string{acme}, names(v.Tenants()))
	})
	play(t, "no more than 32 are renewed at the same time, the others later, and newcomers do not wait for that", func(t *testing.T) {
		var all []string
		for i := range 40 {
			all = append(all, fmt.Sprintf("https://tenant-%02d.example", i))
		}
		r := registered(a, all...)
		v := r.open(t)
		renewed := func() int {
			for _, iss := range all {
				accepted(t, v, tokenOf(t, a, iss))
			}
			synctest.Wait()
			return r.count() - len(all)
		}
		renewed()
		r.set(func(r *registry) { r.delay = time.Second; r.tenants[acme] = registered(a, acme).tenants[acme] })
		time.Sleep(ttl / 2)
		assert.Equal(t, 32, renewed())
		accepted(t, v, raw)
		time.Sleep(ttl / 10)
		assert.Equal(t, 32+1+8, renewed())
	})
	play(t, "while lookups fail, a tenant is let in until the end of TTL and then gets 503", func(t *testing.T) {
		r := registered(a, acme)
		v := r.open(t)
		remembered := accepted(t, v, raw)
		start := time.Now()
		r.set(func(r *registry) { r.err = errors.New("no database") })
		for time.Since(start) < ttl {
			atOnce(t, func() { accepted(t, v, raw) })
			require.True(t, remembered.Freshness().While.Holds())
			time.Sleep(time.Second)
		}
		assert.InDelta(t, 1+5, r.count(), 1, "it is looked up once a tenth of TTL in the second half")
		assert.False(t, remembered.Freshness().While.Holds())
		failed(t, v, raw, "no database")
		r.set(func(r *registry) { r.err = nil })
		accepted(t, v, raw)
	})
	play(t, "new settings count with the next lookup, and what was remembered under others does not", func(t *testing.T) {
		r := registered(a, acme)
		v := r.open(t)
		remembered := accepted(t, v, raw)
		r.set(func(r *registry) {
			r.tenants[acme] = jwks.Config{Issuer: acme, Audience: []string{"urn:new"}, JWKS: keySet(a)}
			r.delay = time.Second
		})
		time.Sleep(ttl / 2)
		accepted(t, v, raw) // and the tenant is looked up, which takes a second
		time.Sleep(time.Second)
		synctest.Wait()
		assert.False(t, remembered.Freshness().While.Holds())
		_, err := v.Verify(background, raw)
		refused(t, err, otherAud)
		accepted(t, v, mint(t, a, nil, good(object{"iss": acme, "aud": "urn:new"})))
	})
	b := generate("ES256", "k2")
	for name, c := range map[string]struct {
		next jwks.Config
		want string
	}{
		"is removed":          {jwks.Config{}, otherIssuer},
		"gets another name":   {jwks.Config{Issuer: acme, Audience: []string{"urn:new"}, JWKS: keySet(a)}, otherAud},
		"gets another key":    {jwks.Config{Issuer: acme, Audience: []string{api}, JWKS: keySet(b)}, unknownKey},
		"gets a second key":   {jwks.Config{Issuer: acme, Audience: []string{api}, JWKS: keySet(a, b)}, ""},
		"gets another leeway": {jwks.Config{Issuer: acme, Audience: []string{api}, JWKS: keySet(a), Leeway: time.Second}, ""},
	} {
		play(t, "a token whose tenant "+name+" during the check is verified with the new settings, without a 503", func(t *testing.T) {
			r := registered(a, acme)
			during := func() {}
			v := r.open(t, func(cfg *jwks.TenantsConfig) {
				cfg.Now = func() time.Time { during(); return now } // it is asked after aud and before the key
			})
			accepted(t, v, raw)
			r.set(func(r *registry) { r.tenants[acme] = c.next })
			time.Sleep(ttl / 2)
			during = synctest.Wait // until the lookup that this token begins has ended
			token, err := v.Verify(background, raw)
			if c.want != "" {
				refused(t, err, c.want)
				return
			}
			require.NoError(t, err)
			assert.True(t, token.Freshness().While.Holds())
		})
	}
	play(t, "the same settings leave tokens remembered", func(t *testing.T) {
		r := registered(a, acme)
		v := r.open(t)
		remembered := accepted(t, v, raw)
		r.set(func(r *registry) { r.tenants = registered(a, acme).tenants })
		time.Sleep(ttl / 2)
		accepted(t, v, raw)
		synctest.Wait()
		assert.Equal(t, 2, r.count())
		time.Sleep(ttl - time.Second)
		assert.True(t, remembered.Freshness().While.Holds())
	})
}

func TestTenantsMax(t *testing.T) {
	a, forger := generate("ES256", "k"), generate("ES256", "k")
	tenant := func(i int) string { return fmt.Sprintf("https://tenant-%03d.example", i) }
	var all []string
	for i := range 200 {
		all = append(all, tenant(i))
	}
	play(t, "the tenant whose last good token is the longest ago makes room, and its remembered tokens are forgotten", func(t *testing.T) {
		v := registered(a, all...).open(t, func(c *jwks.TenantsConfig) { c.Max = 2 })
		first, second := accepted(t, v, tokenOf(t, a, tenant(1))), accepted(t, v, tokenOf(t, a, tenant(2)))
		accepted(t, v, tokenOf(t, a, tenant(1)))
		accepted(t, v, tokenOf(t, a, tenant(3)))
		assert.Equal(t, []string{tenant(1), tenant(3)}, names(v.Tenants()))
		assert.True(t, first.Freshness().While.Holds())
		assert.False(t, second.Freshness().While.Holds())
	})
	play(t, "forged tokens that name real tenants push out an eighth at most", func(t *testing.T) {
		v := registered(a, all...).open(t, func(c *jwks.TenantsConfig) { c.Max = 16 })
		for i := range 16 {
			accepted(t, v, tokenOf(t, a, tenant(i)))
		}
		for i := 16; i < 200; i++ {
			_, err := v.Verify(background, tokenOf(t, forger, tenant(i)))
			refused(t, err, badSignature)
			assert.Len(t, v.Tenants(), 16)
		}
		assert.Equal(t, append(all[2:16:16], tenant(198), tenant(199)), names(v.Tenants()))

		accepted(t, v, tokenOf(t, a, tenant(199)))
		for _, i := range []int{20, 21} {
			_, err := v.Verify(background, tokenOf(t, forger, tenant(i)))
			refused(t, err, badSignature)
		}
		assert.Contains(t, names(v.Tenants()), tenant(199), "a newcomer that has had a good token stays")
	})
}

func TestTenantsHealth(t *testing.T) {
	a := generate("ES256", "k")
	play(t, "lookups that fail make it degraded, tenants that are down do not", func(t *testing.T) {
		r := registered(a, acme)
		r.tenants[other] = jwks.Config{Issuer: other, Audience: []string{api}}
		v := r.open(t, func(c *jwks.TenantsConfig) { c.Allow = nil })
		time.Sleep(time.Minute)
		assert.Equal(t, []valetkey.Health{{Name: "tenants", State: valetkey.Ready, Since: time.Now().Add(-time.Minute)}}, v.Health())
		r.set(func(r *registry) { r.err = errors.New("no database") })
		failed(t, v, tokenOf(t, a, acme), "no database")
		h := v.Health()[0]
		assert.Equal(t, valetkey.Degraded, h.State)
		assert.Equal(t, time.Now(), h.Since)
		assert.ErrorContains(t, h.Err, "no database")
		require.NoError(t, v.Ready(background))
		time.Sleep(time.Minute)
		failed(t, v, tokenOf(t, a, acme), "no database")
		assert.Equal(t, h.Since, v.Health()[0].Since, "since the first failure")
		r.set(func(r *registry) { r.err = nil })
		accepted(t, v, tokenOf(t, a, acme))
		assert.Equal(t, valetkey.Ready, v.Health()[0].State)
	})
	play(t, "a key that is dropped from the keys of a tenant is logged once, however often the tenant is renewed", func(t *testing.T) {
		var log bytes.Buffer
		r := registered(a, acme)
		cfg := r.tenants[acme]
		cfg.JWKS = []byte(strings.Replace(string(keySet(a)), "[", `[{"kid":"broken","kty":"RSA"},`, 1))
		r.tenants[acme] = cfg
		v := r.open(t, func(c *jwks.TenantsConfig) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
		for range 10 {
			accepted(t, v, tokenOf(t, a, acme))
			time.Sleep(3 * time.Minute)
		}
		synctest.Wait()
		assert.Greater(t, r.count(), 5)
		assert.Equal(t, 1, strings.Count(log.String(), "kid=broken"), log.String())
	})
	play(t, "Close ends lookups and those who wait for them, and nothing is let in afterwards", func(t *testing.T) {
		r := registered(a, acme, other)
		v := r.open(t)
		remembered := accepted(t, v, tokenOf(t, a, acme))
		r.set(func(r *registry) { r.delay = time.Hour })
		var waiter sync.WaitGroup
		waiter.Go(func() { failed(t, v, tokenOf(t, a, other), "closed") })
		synctest.Wait()
		atOnce(t, func() { v.Close(); waiter.Wait(); v.Close() })
		assert.False(t, remembered.Freshness().While.Holds())
		before := r.count()
		failed(t, v, tokenOf(t, a, acme), "closed")
		assert.Equal(t, before, r.count(), "nothing is looked up")
		assert.ErrorContains(t, v.Ready(background), "closed")
		assert.Equal(t, valetkey.Down, v.Health()[0].State)
	})
}

func TestTenantsOverHTTP(t *testing.T) {
	// tenants returns a verifier of sites that know how to trust their certificates.
	tenants := func(t *testing.T, s *site, cfg jwks.Config, change func(*jwks.TenantsConfig)) *jwks.TenantVerifier {
		r := &registry{tenants: map[string]jwks.Config{cfg.Issuer: cfg}}
		return r.open(t, func(c *jwks.TenantsConfig) {
			c.TLS = s.Client().Transport.(*http.Transport).TLSClientConfig
			change(c)
		})
	}
	nothing := func(*jwks.TenantsConfig) {}
	_, port, _ := strings.Cut(strings.TrimPrefix(serve(t, sets(nil)).URL, "https://"), ":")
	for name, at := range map[string]string{
		"loopback":                 "https://127.0.0.1:" + port,
		"loopback, without TLS":    "http://127.0.0.1:" + port,
		"the name of loopback":     "https://localhost:" + port,
		"IPv6 for loopback":        "https://[::ffff:127.0.0.1]:" + port,
		"the metadata of a cloud":  "https://169.254.169.254",
		"an address of 10.0.0.0/8": "https://10.0.0.1",
		"one of 172.16.0.0/12":     "https://172.16.0.1",
		"one of 192.168.0.0/16":    "https://192.168.1.1",
	} {
		for how, cfg := range map[string]jwks.Config{
			"issuer":         {Issuer: at, Audience: []string{api}},
			"key set's URL ": {Issuer: acme, Audience: []string{api}, JWKSURL: at + "/keys"},
		} {
			t.Run("JWT-33 a tenant whose "+how+" is "+name+" is not asked", func(t *testing.T) {
				s := serve(t, sets(keySet(es256)))
				v := tenants(t, s, cfg, nothing)
				failed(t, v, tokenOf(t, es256, cfg.Issuer), "not a public address")
				assert.Zero(t, s.count())
			})
		}
	}
	t.Run("JWT-33 a tenant whose metadata names a private address is not asked there", func(t *testing.T) {
		s := serve(t, sets(keySet(es256)))
		s.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":"https://10.0.0.1/keys"}`, s.URL)
		})
		v := tenants(t, s, jwks.Config{Issuer: s.URL, Audience: []string{api}}, func(c *jwks.TenantsConfig) {
			c.Allow = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
		})
		failed(t, v, tokenOf(t, es256, s.URL), "https://10.0.0.1/keys")
	})
	for name, change := range map[string]func(*jwks.TenantsConfig){
		"its address is allowed": func(c *jwks.TenantsConfig) { c.Allow = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} },
		"all addresses are":      func(c *jwks.TenantsConfig) { c.InsecureAnyAddress = true },
	} {
		t.Run("JWT-33 a tenant on loopback is asked if "+name, func(t *testing.T) {
			events := make(observer, 10)
			s := serve(t, sets(keySet(es256)))
			v := tenants(t, s, jwks.Config{Issuer: s.URL, Audience: []string{api}}, func(c *jwks.TenantsConfig) { change(c); c.Observer = events })
			accepted(t, v, tokenOf(t, es256, s.URL))
			assert.Equal(t, 2, s.count())
			assert.Equal(t, s.URL, (<-events).Issuer)
		})
	}
	for name, before := range map[string]int{"the 101st key of a tenant is not used": 100, "the 100th key of a tenant is used": 99} {
		t.Run(name, func(t *testing.T) {
			var list []*jose.PrivateKey
			for i := range before {
				list = append(list, generate("ES256", fmt.Sprint("other", i)))
			}
			s := serve(t, sets(keySet(append(list, es256)...)))
			v := tenants(t, s, jwks.Config{Issuer: s.URL, Audience: []string{api}}, func(c *jwks.TenantsConfig) { c.InsecureAnyAddress = true })
			_, err := v.Verify(background, tokenOf(t, es256, s.URL))
			if before == 100 {
				refused(t, err, unknownKey)
			} else {
				assert.NoError(t, err)
			}
		})
	}
	t.Run("a remembered token of a tenant does not hold without its key", func(t *testing.T) {
		s := serve(t, sets(keySet(es256)))
		v := tenants(t, s, jwks.Config{Issuer: s.URL, Audience: []string{api}}, func(c *jwks.TenantsConfig) { c.InsecureAnyAddress = true })
		remembered := accepted(t, v, tokenOf(t, es256, s.URL))
		s.mu.Lock()
		s.keys = sets(keySet(rs256))
		s.mu.Unlock()
		accepted(t, v, tokenOf(t, rs256, s.URL)) // its key is unknown, so the set is fetched again
		assert.False(t, remembered.Freshness().While.Holds())
	})
	t.Run("an untrusted certificate is ignored", func(t *testing.T) {
		_, _ = x509.SystemCertPool() // read once by the process, and not within the time limit of the fetch
		s := serve(t, sets(keySet(es256)))
		v := tenants(t, s, jwks.Config{Issuer: s.URL, Audience: []string{api}}, func(c *jwks.TenantsConfig) {
			c.TLS, c.Allow = &tls.Config{MinVersion: tls.VersionTLS12}, []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
		})
		failed(t, v, tokenOf(t, es256, s.URL), "certificate")
	})
}
