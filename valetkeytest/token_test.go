package valetkeytest_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rsa"
	_ "crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/valetkeytest"
)

// A jwt is a token taken apart with the standard library only.
type jwt struct {
	header, claims map[string]any
	input          string
	signature      []byte
}

func parse(t *testing.T, raw string) jwt {
	t.Helper()
	parts := strings.Split(raw, ".")
	require.Len(t, parts, 3)
	j := jwt{input: parts[0] + "." + parts[1], signature: decode(t, parts[2])}
	require.NoError(t, json.Unmarshal(decode(t, parts[0]), &j.header))
	require.NoError(t, json.Unmarshal(decode(t, parts[1]), &j.claims))
	return j
}

func decode(t *testing.T, s string) []byte {
	t.Helper()
	data, err := base64.RawURLEncoding.Strict().DecodeString(s)
	require.NoError(t, err)
	return data
}

type jwk struct{ Kty, Crv, Kid, Alg, N, E, X, Y string }

// published returns the keys that the issuer serves, by ID.
func published(t *testing.T, iss *valetkeytest.Issuer) map[string]jwk {
	t.Helper()
	var set struct{ Keys []jwk }
	require.NoError(t, json.Unmarshal(get(t, iss, iss.KeySet.URL), &set))
	keys := map[string]jwk{}
	for _, k := range set.Keys {
		keys[k.Kid] = k
	}
	return keys
}

func get(t *testing.T, iss *valetkeytest.Issuer, url string) []byte {
	t.Helper()
	res, err := iss.Client().Get(url)
	require.NoError(t, err)
	defer res.Body.Close()
	require.Equal(t, http.StatusOK, res.StatusCode)
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return body
}

// verified reports whether the signature is one of the key, by RFC 7518, section 3 and RFC 8037, section 3.1.
func (j jwt) verified(t *testing.T, k jwk) bool {
	t.Helper()
	hash := map[string]crypto.Hash{"256": crypto.SHA256, "384": crypto.SHA384, "512": crypto.SHA512}
	h := hash[k.Alg[2:]]
	if k.Kty == "OKP" {
		return ed25519.Verify(decode(t, k.X), []byte(j.input), j.signature)
	}
	digest := h.New()
	digest.Write([]byte(j.input))
	sum := digest.Sum(nil)
	number := func(s string) *big.Int { return new(big.Int).SetBytes(decode(t, s)) }
	switch k.Alg[:2] {
	case "ES":
		curve := map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()}[k.Crv]
		half := len(j.signature) / 2
		r, s := new(big.Int).SetBytes(j.signature[:half]), new(big.Int).SetBytes(j.signature[half:])
		point := slices.Concat([]byte{4}, decode(t, k.X), decode(t, k.Y)) // SEC 1, section 2.3.3
		public, err := ecdsa.ParseUncompressedPublicKey(curve, point)
		require.NoError(t, err)
		return ecdsa.Verify(public, sum, r, s)
	case "RS":
		return rsa.VerifyPKCS1v15(&rsa.PublicKey{N: number(k.N), E: int(number(k.E).Int64())}, h, sum, j.signature) == nil
	case "PS":
		return rsa.VerifyPSS(&rsa.PublicKey{N: number(k.N), E: int(number(k.E).Int64())}, h, sum, j.signature, nil) == nil
	}
	t.Fatalf("a key for %q", k.Alg)
	return false
}

func (j jwt) kid() string { kid, _ := j.header["kid"].(string); return kid }

func TestTokenIsThatOfRFC9068(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	before := iss.Now().Unix()
	j := parse(t, iss.Token(valetkeytest.Scopes("orders:read", "orders:write")))

	assert.Equal(t, map[string]any{"alg": "ES256", "typ": "at+jwt", "kid": iss.KeyID()}, j.header)
	assert.True(t, j.verified(t, published(t, iss)[iss.KeyID()]))
	assert.Equal(t, iss.URL, j.claims["iss"])
	assert.Equal(t, valetkeytest.DefaultAudience, j.claims["aud"])
	assert.Equal(t, valetkeytest.DefaultSubject, j.claims["sub"])
	assert.Equal(t, valetkeytest.DefaultClientID, j.claims["client_id"])
	assert.Equal(t, "orders:read orders:write", j.claims["scope"])
	assert.GreaterOrEqual(t, j.claims["iat"], float64(before))
	assert.LessOrEqual(t, j.claims["iat"], float64(iss.Now().Unix()))
	assert.Equal(t, j.claims["iat"].(float64)+valetkeytest.DefaultLifetime.Seconds(), j.claims["exp"])
	assert.NotEmpty(t, j.claims["jti"])
	assert.NotEqual(t, j.claims["jti"], parse(t, iss.Token()).claims["jti"])
}

func TestTokenVerifiesByItsAlgorithm(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	for _, alg := range []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"} {
		t.Run(alg, func(t *testing.T) {
			j := parse(t, iss.Token(valetkeytest.Algorithm(alg)))
			k, ok := published(t, iss)[j.kid()]
			require.True(t, ok, "the key is published")
			assert.Equal(t, alg, j.header["alg"])
			assert.Equal(t, alg, k.Alg)
			assert.True(t, j.verified(t, k))
		})
	}
}

func TestOptionsChangeTheToken(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	tests := []struct {
		name string
		opt  valetkeytest.Option
		part string // header or claims
		key  string
		want any // nil: absent; a time.Duration: seconds of 1970 that far from now
	}{
		{"without scopes there is no claim", valetkeytest.Subject("bob"), "claims", "scope", nil},
		{"one audience is a string", valetkeytest.Audience("https://a.example"), "claims", "aud", "https://a.example"},
		{"two audiences are an array", valetkeytest.Audience("a", "b"), "claims", "aud", []any{"a", "b"}},
		{"a subject", valetkeytest.Subject("bob"), "claims", "sub", "bob"},
		{"a client", valetkeytest.ClientID("shop"), "claims", "client_id", "shop"},
		{"a custom claim", valetkeytest.Claim("roles", []int{1}), "claims", "roles", []any{1.0}},
		{"a claim removed", valetkeytest.Claim("jti", nil), "claims", "jti", nil},
		{"a custom header", valetkeytest.Header("x", true), "header", "x", true},
		{"no kid", valetkeytest.NoKeyID(), "header", "kid", nil},
		{"another kid", valetkeytest.KeyID("../x"), "header", "kid", "../x"},
		{"another type", valetkeytest.Type("JWT"), "header", "typ", "JWT"},
		{"no type", valetkeytest.Type(""), "header", "typ", nil},
		{"a longer life", valetkeytest.ExpiresIn(time.Hour), "claims", "exp", time.Hour},
		{"expired", valetkeytest.Expired(), "claims", "exp", -time.Hour},
		{"expired after it was issued", valetkeytest.Expired(), "claims", "iat", -2 * time.Hour},
		{"not yet valid", valetkeytest.NotYetValid(), "claims", "nbf", time.Hour},
		{"not yet valid and not expired", valetkeytest.NotYetValid(), "claims", "exp", 2 * time.Hour},
		{"lenient has no typ", valetkeytest.Lenient(), "header", "typ", nil},
		{"lenient has no kid", valetkeytest.Lenient(), "header", "kid", nil},
		{"lenient has no sub", valetkeytest.Lenient(), "claims", "sub", nil},
		{"a custom payload", valetkeytest.Payload(`{"a":1,"a":2}`), "claims", "a", 2.0},
		{"an algorithm that the header lies about", valetkeytest.Header("alg", "HS256"), "header", "alg", "HS256"},
	}
	keys := published(t, iss)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := iss.Now()
			j := parse(t, iss.Token(tt.opt))
			after := iss.Now()
			assert.True(t, j.verified(t, keys[iss.KeyID()]), "the issuer's key has signed it")
			got := map[string]map[string]any{"header": j.header, "claims": j.claims}[tt.part][tt.key]
			if ahead, ok := tt.want.(time.Duration); ok {
				assert.GreaterOrEqual(t, got, float64(before.Add(ahead).Unix()))
				assert.LessOrEqual(t, got, float64(after.Add(ahead).Unix()))
				return
			}
			assert.Equal(t, tt.want, got)
		})
	}
	t.Run("wrong issuer and audience", func(t *testing.T) {
		j := parse(t, iss.Token(valetkeytest.WrongIssuer(), valetkeytest.WrongAudience()))
		assert.NotEqual(t, iss.URL, j.claims["iss"])
		assert.NotEqual(t, valetkeytest.DefaultAudience, j.claims["aud"])
	})
	for _, opts := range [][]valetkeytest.Option{
		{valetkeytest.Lenient(), valetkeytest.Scopes("a", "b")},
		{valetkeytest.Scopes("a", "b"), valetkeytest.Lenient()},
	} {
		assert.Equal(t, []any{"a", "b"}, parse(t, iss.Token(opts...)).claims["scope"], "lenient scopes are an array")
	}
}

func TestForgeriesDoNotVerify(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	key := published(t, iss)[iss.KeyID()]
	forged := map[string]string{}
	for name, token := range iss.Forgeries(valetkeytest.Scopes("orders:read")) {
		assert.NotContains(t, forged, name)
		forged[name] = token
		if !strings.Contains(name, "object") {
			assert.Equal(t, "orders:read", parse(t, token).claims["scope"], name)
		}
	}
	tests := []struct {
		name  string
		check func(j jwt) bool
	}{
		{"the algorithm none", func(j jwt) bool { return j.header["alg"] == "none" && len(j.signature) == 0 }},
		{"no signature", func(j jwt) bool { return j.header["alg"] == "ES256" && len(j.signature) == 0 }},
		{"a signature with a bit flipped", func(j jwt) bool { return len(j.signature) == 64 && !j.verified(t, key) }},
		{"claims changed after signing", func(j jwt) bool { return j.claims["sub"] == "mallory" && !j.verified(t, key) }},
		{"an unknown key", func(j jwt) bool { _, ok := published(t, iss)[j.kid()]; return !ok && j.kid() != "" }},
		{"an unknown key under the ID of the issuer's key", func(j jwt) bool { return j.kid() == key.Kid && !j.verified(t, key) }},
		{"a key that the header brings along", func(j jwt) bool { return j.header["jwk"] != nil && !j.verified(t, key) }},
		{"the public key as a shared secret", func(j jwt) bool {
			mac := hmac.New(crypto.SHA256.New, iss.JWKS())
			mac.Write([]byte(j.input))
			return j.header["alg"] == "HS256" && hmac.Equal(mac.Sum(nil), j.signature)
		}},
		{"an unknown critical extension", func(j jwt) bool { return j.header["crit"] != nil && j.verified(t, key) }},
		{"expired", func(j jwt) bool { return j.verified(t, key) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			require.Contains(t, forged, tt.name)
			assert.True(t, tt.check(parse(t, forged[tt.name])))
		})
	}
	for range iss.Forgeries() {
		break // an iterator that goes on after that panics
	}
}

func TestImpossibleTokensFailTheTest(t *testing.T) {
	for name, opts := range map[string][]valetkeytest.Option{
		"an unknown algorithm":         {valetkeytest.Algorithm("RS1")},
		"a claim JSON does not know":   {valetkeytest.Claim("f", func() {})},
		"a header JSON does not know":  {valetkeytest.Header("f", func() {})},
		"the same without a signature": {valetkeytest.Header("f", func() {}), valetkeytest.Unsigned()},
		"a secret that is too short":   {valetkeytest.Secret([]byte("short"))},
		"no signature to tamper with":  {valetkeytest.Unsigned(), valetkeytest.TamperedSignature()},
	} {
		t.Run(name, func(t *testing.T) {
			rec := &recorder{TB: t}
			valetkeytest.NewIssuer(rec).Token(opts...)
			assert.Len(t, rec.errors, 1)
		})
	}
}

// A recorder is a testing.TB that remembers failures. The rest it leaves to the real one.
type recorder struct {
	testing.TB
	mu     sync.Mutex
	errors []string
}

func (r *recorder) Helper() {}

func (r *recorder) Errorf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.errors = append(r.errors, fmt.Sprintf(format, args...))
}
