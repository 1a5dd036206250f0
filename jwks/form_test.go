package jwks_test

import (
	"crypto"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/jose"
	"github.com/valetkey/valetkey/jwks"
)

// mintPadded signs claims as load balancers of AWS do: with padding, which is part of what is signed.
func mintPadded(t testing.TB, k *jose.PrivateKey, claims object) string {
	t.Helper()
	payload, err := json.Marshal(claims)
	require.NoError(t, err)
	header := fmt.Sprintf(`{"typ":"at+jwt","alg":"EdDSA","kid":%q,"signer":"x"}`, k.ID())
	header += strings.Repeat(" ", (4-len(header)%3)%3) // not a multiple of three bytes
	input := base64.URLEncoding.EncodeToString([]byte(header)) + "." + base64.URLEncoding.EncodeToString(payload)
	signature, err := k.Signer().Sign(rand.Reader, []byte(input), crypto.Hash(0))
	require.NoError(t, err)
	return input + "." + base64.URLEncoding.EncodeToString(signature)
}

func TestPaddedSegments(t *testing.T) {
	const other = "https://other.example"
	allow := func(c *jwks.Config) { c.AllowPaddedSegments = true }
	raw := mintPadded(t, ed25519, good(nil))
	require.Contains(t, raw, "=.")
	t.Run("they are refused by default, and the log names the setting", func(t *testing.T) {
		_, err := open(t).Verify(background, raw)
		refused(t, err, notJWT)
		assert.ErrorIs(t, err, valetkey.ErrNotApplicable)
		assert.ErrorContains(t, err, "AllowPaddedSegments")
	})
	t.Run("they are accepted if they are allowed, as are canonical ones", func(t *testing.T) {
		v := open(t, allow)
		for _, token := range []string{raw, mint(t, es256, nil, good(nil))} {
			_, err := v.Verify(background, token)
			assert.NoError(t, err)
		}
	})
	t.Run("another signature is refused", func(t *testing.T) {
		_, err := open(t, allow).Verify(background, mintPadded(t, generate("EdDSA", ed25519.ID()), good(nil)))
		refused(t, err, badSignature)
		_, err = open(t, allow).Verify(background, strings.ReplaceAll(raw, "=", "")) // the padding is signed
		refused(t, err, badSignature)
	})
	t.Run("of several issuers, each has its setting", func(t *testing.T) {
		both, err := jwks.ByIssuer(open(t, allow), open(t, func(c *jwks.Config) { c.Issuer = other }))
		require.NoError(t, err)
		_, err = both.Verify(background, raw)
		assert.NoError(t, err)
		_, err = both.Verify(background, mintPadded(t, ed25519, good(object{"iss": other})))
		refused(t, err, malformed)
		assert.ErrorContains(t, err, "AllowPaddedSegments")
	})
	t.Run("of tenants, each has its setting", func(t *testing.T) {
		r := registered(ed25519, acme, other)
		cfg := r.tenants[acme]
		cfg.AllowPaddedSegments = true
		r.tenants[acme] = cfg
		v := r.open(t)
		accepted(t, v, mintPadded(t, ed25519, good(object{"iss": acme})))
		_, err := v.Verify(background, mintPadded(t, ed25519, good(object{"iss": other})))
		refused(t, err, malformed)
	})
}

// long returns a token of exactly n bytes.
func long(t testing.TB, n int, claims object) string {
	t.Helper()
	for kid := 0; ; kid++ { // the payload alone cannot have every length
		k := generate("EdDSA", strings.Repeat("k", 1+kid))
		short := mint(t, k, nil, good(change(object{"groups": ""}, claims)))
		fill := (n - len(short)) * 3 / 4
		for room := max(0, fill-4); room <= fill+4; room++ {
			if raw := mint(t, k, nil, good(change(object{"groups": strings.Repeat("g", room)}, claims))); len(raw) == n {
				return raw
			}
		}
		require.Less(t, kid, 8)
	}
}

func TestMaxTokenBytes(t *testing.T) {
	const other = "https://other.example"
	limit := func(n int) func(*jwks.Config) { return func(c *jwks.Config) { c.MaxTokenBytes = n } }
	// The keys of long are not in the set: a token that passes the limit is refused for its key.
	for name, test := range map[string]struct {
		setting, bytes int
		want           string
	}{
		"16 KiB and a byte by default":     {0, 16<<10 + 1, malformed},
		"16 KiB and a byte with 16 KiB":    {16 << 10, 16<<10 + 1, malformed},
		"64 KiB and a byte with 64 KiB":    {64 << 10, 64<<10 + 1, malformed},
		"a byte more than a smaller limit": {1000, 1001, malformed},
		"16 KiB by default":                {0, 16 << 10, unknownKey},
		"16 KiB and a byte with more":      {16<<10 + 1, 16<<10 + 1, unknownKey},
		"64 KiB with 64 KiB":               {64 << 10, 64 << 10, unknownKey},
		"a smaller limit":                  {1000, 1000, unknownKey},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := open(t, limit(test.setting)).Verify(background, long(t, test.bytes, nil))
			refused(t, err, test.want)
		})
	}
	t.Run("of several issuers, each has its limit", func(t *testing.T) {
		both, err := jwks.ByIssuer(open(t, limit(20<<10)), open(t, func(c *jwks.Config) { c.Issuer = other }))
		require.NoError(t, err)
		for iss, want := range map[string]string{issuer: unknownKey, other: malformed} {
			_, err = both.Verify(background, long(t, 20<<10, object{"iss": iss}))
			refused(t, err, want)
		}
		_, err = both.Verify(background, long(t, 20<<10+1, nil))
		refused(t, err, malformed)
	})
	t.Run("of tenants, the limit of all and that of each apply", func(t *testing.T) {
		r := registered(es256, acme, other)
		cfg := r.tenants[acme]
		cfg.MaxTokenBytes = 20 << 10
		r.tenants[acme] = cfg
		raised := r.open(t, func(c *jwks.TenantsConfig) { c.MaxTokenBytes = 20 << 10 })
		for iss, want := range map[string]string{acme: unknownKey, other: malformed} {
			_, err := raised.Verify(background, long(t, 20<<10, object{"iss": iss}))
			refused(t, err, want)
		}
		_, err := r.open(t).Verify(background, long(t, 20<<10, object{"iss": acme}))
		refused(t, err, malformed)
	})
	for _, n := range []int{-1, 64<<10 + 1} {
		t.Run(fmt.Sprintf("%d is a mistake", n), func(t *testing.T) {
			_, err := jwks.New(jwks.Config{Issuer: issuer, Audience: []string{api}, JWKS: keySet(es256), MaxTokenBytes: n})
			assert.EqualError(t, err, fmt.Sprintf("jwks: MaxTokenBytes: %d is not between 0 and 65536", n))
			_, err = jwks.Tenants(jwks.TenantsConfig{Lookup: new(registry).lookup, MaxTokenBytes: n})
			assert.EqualError(t, err, fmt.Sprintf("jwks: Tenants: MaxTokenBytes: %d is not between 0 and 65536", n))
		})
	}
}
