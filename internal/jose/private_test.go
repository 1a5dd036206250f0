package jose_test

import (
	"crypto/rsa"
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/internal/jose"
)

func TestParsePrivateKeyRefuses(t *testing.T) {
	type change = map[string]any
	rs, es, p521, ed := keys()["RS256"], keys()["ES256"], keys()["ES512"], keys()["EdDSA"]
	other := func(alg, member string) change {
		k, err := jose.GenerateKey(alg, "")
		require.NoError(t, err)
		var m change
		require.NoError(t, json.Unmarshal(k.PrivateJWK(), &m))
		return change{member: m[member]}
	}
	for _, c := range []struct {
		name   string
		key    json.RawMessage
		change change
		alg    string
		want   error
	}{
		{"a public key", es.PublicJWK(), nil, "", jose.ErrUnsupported},
		{"a shared secret", json.RawMessage(`{"kty":"oct","k":"AAAA"}`), nil, "HS256", jose.ErrSymmetric},
		{"not JSON", json.RawMessage(`-----BEGIN`), nil, "ES256", jose.ErrUnsupported},
		{"no algorithm at all", es.PrivateJWK(), change{"alg": nil}, "", jose.ErrUnsupported},
		{"JWT-15 another algorithm than its own", rs.PrivateJWK(), nil, "PS256", jose.ErrUnsupported},
		{"an algorithm of another curve", es.PrivateJWK(), change{"alg": nil}, "ES384", jose.ErrUnsupported},
		{"an unknown algorithm", es.PrivateJWK(), change{"alg": nil}, "none", jose.ErrUnsupported},
		{"JWT-17 for encryption", es.PrivateJWK(), change{"use": "enc"}, "ES256", jose.ErrUnsupported},
		{"JWT-17 a key of a SPIFFE bundle, which verifies", es.PrivateJWK(), change{"use": "jwt-svid"}, "ES256", jose.ErrUnsupported},
		{"JWT-17 not for signing", es.PrivateJWK(), change{"key_ops": []string{"verify"}}, "ES256", jose.ErrUnsupported},
		{"JWT-18 an RSA key of 1024 bits", rs.PrivateJWK(), change{"n": modulus(1024, 1)}, "RS256", jose.ErrUnsupported},
		{"an RSA key with the modulus of another one", rs.PrivateJWK(), other("RS256", "n"), "", jose.ErrUnsupported},
		{"an RSA key with the exponent of another one", rs.PrivateJWK(), other("RS256", "d"), "", jose.ErrUnsupported},
		{"an RSA key with a prime of another one", rs.PrivateJWK(), other("RS256", "p"), "", jose.ErrUnsupported},
		{"an RSA key without primes", rs.PrivateJWK(), change{"p": nil, "q": nil, "dp": nil, "dq": nil, "qi": nil}, "", jose.ErrUnsupported},
		{"an EC key with the private part of another one", es.PrivateJWK(), other("ES256", "d"), "", jose.ErrUnsupported},
		{"an EC key with the private part 0", es.PrivateJWK(), change{"d": b64(make([]byte, 32))}, "", jose.ErrUnsupported},
		{"an EC key with a private part that is too long", p521.PrivateJWK(), change{"d": modulus(1000, 1)}, "", jose.ErrUnsupported},
		{"an EC key with an empty private part", es.PrivateJWK(), change{"d": ""}, "", jose.ErrUnsupported},
		{"an Ed25519 key with the private part of another one", ed.PrivateJWK(), other("EdDSA", "d"), "", jose.ErrUnsupported},
		{"an Ed25519 key with a private part that is too short", ed.PrivateJWK(), change{"d": "AAAA"}, "", jose.ErrUnsupported},
		{"a private part of another type", ed.PrivateJWK(), change{"d": 1}, "", jose.ErrUnsupported},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := jose.ParsePrivateKey(jwk(t, orEmpty(c.key), c.change), c.alg)
			if !json.Valid(c.key) {
				_, err = jose.ParsePrivateKey(c.key, c.alg)
			}
			require.ErrorIs(t, err, c.want)
			if json.Valid(c.key) && strings.Contains(string(c.key), `"d"`) {
				var m map[string]any
				require.NoError(t, json.Unmarshal(c.key, &m))
				require.NotContains(t, err.Error(), m["d"], "an error quotes nothing")
			}
		})
	}
}

// orEmpty stands for a text that jwk cannot change.
func orEmpty(data []byte) string {
	if !json.Valid(data) {
		return `{}`
	}
	return string(data)
}

func TestPrivateKeysComeBackFromTheirJWK(t *testing.T) {
	for alg, k := range keys() {
		t.Run(alg, func(t *testing.T) {
			require.Equal(t, alg, k.Algorithm())
			require.Equal(t, k.Public().Thumbprint(), k.ID(), "without an id, the thumbprint")
			require.NotNil(t, k.Signer())

			again, err := jose.ParsePrivateKey(k.PrivateJWK(), "")
			require.NoError(t, err)
			require.JSONEq(t, string(k.PrivateJWK()), string(again.PrivateJWK()))
			require.JSONEq(t, string(k.PublicJWK()), string(again.PublicJWK()))

			public, err := jose.ParseKey(k.PublicJWK())
			require.NoError(t, err)
			require.Equal(t, k.ID(), public.ID())
			require.Equal(t, k.Public().Thumbprint(), public.Thumbprint())
			raw, err := again.Sign(nil, []byte(`{}`))
			require.NoError(t, err)
			require.NoError(t, public.Verify(parse(t, raw)))

			_, err = jose.ParseKey(k.PrivateJWK())
			require.ErrorIs(t, err, jose.ErrPrivate)
			for _, private := range []string{`"d"`, `"p"`, `"q"`, `"dp"`, `"dq"`, `"qi"`} {
				require.NotContains(t, string(k.PublicJWK()), private)
			}
		})
	}
	t.Run("key_ops that allow signing only", func(t *testing.T) {
		k, err := jose.ParsePrivateKey(jwk(t, rfc8037Private, map[string]any{"kid": "a", "key_ops": []string{"sign"}}), "Ed25519")
		require.NoError(t, err)
		require.Equal(t, "a", k.ID())
		require.Equal(t, "Ed25519", k.Algorithm())
	})
}

func TestPublicKeysAreNoPrivateKeys(t *testing.T) {
	for alg, k := range keys() {
		_, err := jose.ParsePrivateKey(k.PublicJWK(), "")
		require.ErrorIs(t, err, jose.ErrUnsupported)
		require.ErrorContains(t, err, "it has no private part", alg)
	}
}

func TestGenerateKey(t *testing.T) {
	for _, alg := range []string{"", "none", "HS256", "ES256K", "rs256"} {
		_, err := jose.GenerateKey(alg, "")
		require.Error(t, err, alg)
	}
	k, err := jose.GenerateKey("ES256", "a")
	require.NoError(t, err)
	require.Equal(t, "a", k.ID())
	require.Equal(t, "a", k.Public().ID())
	require.Equal(t, 2048, keys()["PS512"].Signer().(*rsa.PrivateKey).N.BitLen())
	_, err = jose.GenerateKey("ES256", "a\n")
	require.Error(t, err)
}

func TestSignWritesTheHeaderItIsGiven(t *testing.T) {
	k := keys()["ES256"]
	for _, c := range []struct {
		name   string
		header map[string]any
		want   string
	}{
		{"none", nil, `{"alg":"ES256","kid":"` + k.ID() + `"}`},
		{"more", map[string]any{"typ": "at+jwt"}, `{"alg":"ES256","kid":"` + k.ID() + `","typ":"at+jwt"}`},
		{"another kid", map[string]any{"kid": 1}, `{"alg":"ES256","kid":1}`},
		{"no kid", map[string]any{"kid": nil}, `{"alg":"ES256"}`},
		{"another alg", map[string]any{"alg": "none", "kid": nil}, `{"alg":"none"}`},
		{"a name made to add a member", map[string]any{"kid": nil, `x":0,"admin`: true}, `{"alg":"ES256","x\":0,\"admin":true}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := len(c.header)
			raw, err := k.Sign(c.header, []byte(`{}`))
			require.NoError(t, err)
			header, _ := parts(t, raw)
			require.JSONEq(t, c.want, string(header))
			require.Len(t, c.header, before, "the caller's map is its own")
		})
	}
	_, err := k.Sign(map[string]any{"x": make(chan int)}, nil)
	require.Error(t, err)
}

func TestSignSecretRefuses(t *testing.T) {
	for _, alg := range []string{"", "none", "RS256", "ES256", "EdDSA", "hs256"} {
		_, err := jose.SignSecret(secret, alg, nil, []byte("{}"))
		require.ErrorContains(t, err, "is not an HMAC algorithm", alg)
	}
}
