package jose_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"maps"
	"math/big"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/internal/jose"
)

// keys has one key of each algorithm, made once.
var keys = sync.OnceValue(func() map[string]*jose.PrivateKey {
	all := map[string]*jose.PrivateKey{}
	for _, alg := range jose.Algorithms() {
		k, err := jose.GenerateKey(alg, "")
		if err != nil {
			panic(err)
		}
		all[alg] = k
	}
	return all
})

var secret = []byte(strings.Repeat("0123456789abcdef", 4))

// jwk returns a key as JSON with some members in place of, or in addition to, those it has; nil takes one away.
func jwk(t testing.TB, key string, change map[string]any) []byte {
	t.Helper()
	m := map[string]any{}
	require.NoError(t, json.Unmarshal([]byte(key), &m))
	maps.Copy(m, change)
	maps.DeleteFunc(m, func(_ string, v any) bool { return v == nil })
	data, err := json.Marshal(m)
	require.NoError(t, err)
	return data
}

// modulus returns the base64url of a number of bits bits, odd or even.
func modulus(bits int, odd uint) string {
	n := new(big.Int).Lsh(big.NewInt(1), uint(bits-1))
	return b64(n.SetBit(n, 0, odd).Bytes())
}

func TestParseKeyRefuses(t *testing.T) {
	type change = map[string]any
	p256, ed := rfc7515A3Key, rfc8037Key
	x, y := "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"
	for _, c := range []struct {
		name   string
		key    string
		change change
		want   error
	}{
		{"an RSA key with a private exponent", rfc7515A2Key, change{"d": "AQAB"}, jose.ErrPrivate},
		{"an RSA key with a prime", rfc7515A2Key, change{"p": "AQAB"}, jose.ErrPrivate},
		{"an RSA key with other primes, of any type", rfc7515A2Key, change{"oth": 1}, jose.ErrPrivate},
		{"an EC key with a private part", p256, change{"d": x}, jose.ErrPrivate},
		{"an EC key with a private part that is null", `{"kty":"EC","d":null}`, nil, jose.ErrPrivate},
		{"an Ed25519 key with a private part", ed, change{"d": x}, jose.ErrPrivate},
		{"a key of the future with a private part", `{"kty":"AKP","priv":"AA"}`, nil, jose.ErrPrivate},
		{"a shared secret", `{"kty":"oct","k":"` + x + `"}`, nil, jose.ErrSymmetric},
		{"a shared secret without its secret", `{"kty":"oct"}`, nil, jose.ErrSymmetric},
		{"a secret within a public key", p256, change{"k": x}, jose.ErrSymmetric},

		{"JWKS-03 a member twice", `{"kty":"EC","kty":"EC"}`, nil, jose.ErrUnsupported},
		{"JWKS-03 a member twice, in other letters", `{"kty":"EC","KTY":"EC"}`, nil, jose.ErrUnsupported},
		{"not an object", `[]`, nil, jose.ErrUnsupported},
		{"nothing in it", `{}`, nil, jose.ErrUnsupported},
		{"kty in other letters", `{"KTY":"EC"}`, nil, jose.ErrUnsupported},
		{"kty unknown", rfc7515A2Key, change{"kty": "AKP"}, jose.ErrUnsupported},
		{"kty in small letters", rfc7515A2Key, change{"kty": "rsa"}, jose.ErrUnsupported},
		{"kty a number", rfc7515A2Key, change{"kty": 1}, jose.ErrUnsupported},
		{"crv unknown", p256, change{"crv": "secp256k1"}, jose.ErrUnsupported},
		{"crv missing", p256, change{"crv": nil}, jose.ErrUnsupported},
		{"JWT-23 Ed448", ed, change{"crv": "Ed448"}, jose.ErrUnsupported},
		{"JWT-23 X25519, which does not sign", ed, change{"crv": "X25519"}, jose.ErrUnsupported},
		{"alg unknown", p256, change{"alg": "ES999"}, jose.ErrUnsupported},
		{"JWT-41 alg of COSE", p256, change{"alg": "ESP256"}, jose.ErrUnsupported},
		{"alg a number", p256, change{"alg": 1}, jose.ErrUnsupported},
		{"JWT-15 alg of another kind of key", p256, change{"alg": "RS256"}, jose.ErrUnsupported},
		{"JWT-21 alg of another curve", p256, change{"alg": "ES384"}, jose.ErrUnsupported},
		{"JWT-14 alg HS256 in a public key", rfc7515A2Key, change{"alg": "HS256"}, jose.ErrUnsupported},
		{"JWT-17 alg of an encryption", rfc7515A2Key, change{"alg": "RSA-OAEP"}, jose.ErrUnsupported},
		{"JWT-17 use enc", p256, change{"use": "enc"}, jose.ErrUnsupported},
		{"JWT-17 use x509-svid", p256, change{"use": "x509-svid"}, jose.ErrUnsupported},
		{"JWT-17 use wit-svid", p256, change{"use": "wit-svid"}, jose.ErrUnsupported},
		{"JWT-17 use jwt-svid, key_ops without verify", p256, change{"use": "jwt-svid", "key_ops": []string{"sign"}}, jose.ErrUnsupported},
		{"JWT-17 use SIG", p256, change{"use": "SIG"}, jose.ErrUnsupported},
		{"JWT-17 use a list", p256, change{"use": []string{"sig"}}, jose.ErrUnsupported},
		{"JWT-17 key_ops without verify", p256, change{"key_ops": []string{"sign", "encrypt"}}, jose.ErrUnsupported},
		{"JWT-17 key_ops a string", p256, change{"key_ops": "verify"}, jose.ErrUnsupported},
		{"JWT-17 use sig, key_ops without verify", p256, change{"use": "sig", "key_ops": []string{"sign"}}, jose.ErrUnsupported},
		{"kid too long", p256, change{"kid": strings.Repeat("A", 257)}, jose.ErrUnsupported},
		{"kid with a line break", p256, change{"kid": "a\n"}, jose.ErrUnsupported},
		{"kid a number", p256, change{"kid": 1}, jose.ErrUnsupported},

		{"JWT-18 RSA with 1024 bits", rfc7515A2Key, change{"n": modulus(1024, 1)}, jose.ErrUnsupported},
		{"JWT-18 RSA with 2047 bits", rfc7515A2Key, change{"n": modulus(2047, 1)}, jose.ErrUnsupported},
		{"JWT-19 RSA with 8193 bits", rfc7515A2Key, change{"n": modulus(8193, 1)}, jose.ErrUnsupported},
		{"JWT-19 RSA with 16384 bits", rfc7515A2Key, change{"n": modulus(16384, 1)}, jose.ErrUnsupported},
		{"JWT-19 RSA with an even modulus", rfc7515A2Key, change{"n": modulus(2048, 0)}, jose.ErrUnsupported},
		{"JWT-19 RSA with the exponent 1", rfc7515A2Key, change{"e": "AQ"}, jose.ErrUnsupported},
		{"JWT-19 RSA with the exponent 0", rfc7515A2Key, change{"e": "AA"}, jose.ErrUnsupported},
		{"JWT-19 RSA with an even exponent", rfc7515A2Key, change{"e": "AQAA"}, jose.ErrUnsupported},
		{"JWT-19 RSA with an exponent of 32 bits", rfc7515A2Key, change{"e": b64([]byte{0x80, 0, 0, 1})}, jose.ErrUnsupported},
		{"JWT-19 RSA with an exponent of 1024 bits", rfc7515A2Key, change{"e": modulus(1024, 1)}, jose.ErrUnsupported},
		{"RSA without modulus", rfc7515A2Key, change{"n": nil}, jose.ErrUnsupported},
		{"RSA with an empty modulus", rfc7515A2Key, change{"n": ""}, jose.ErrUnsupported},
		{"RSA without exponent", rfc7515A2Key, change{"e": nil}, jose.ErrUnsupported},
		{"RSA with a number as exponent", rfc7515A2Key, change{"e": 65537}, jose.ErrUnsupported},
		{"RSA with padding", rfc7515A2Key, change{"e": "AQAB===="}, jose.ErrUnsupported},
		{"RSA with a line break", rfc7515A2Key, change{"n": rfc7515A2Modulus + "\n"}, jose.ErrUnsupported},
		{"RSA with padding that is not needed", rfc7515A2Key, change{"e": "AQAB="}, jose.ErrUnsupported},
		{"RSA with padding that is too short", rfc7515A2Key, change{"e": "AQ="}, jose.ErrUnsupported},
		{"RSA with padding within", rfc7515A2Key, change{"e": "AQ==AQAB"}, jose.ErrUnsupported},
		{"RSA with padding alone", rfc7515A2Key, change{"e": "===="}, jose.ErrUnsupported},
		{"RSA with spare bits", rfc7515A2Key, change{"e": "AQABAR"}, jose.ErrUnsupported},

		{"JWT-21 EC with a point off the curve", p256, change{"y": x}, jose.ErrUnsupported},
		{"JWT-21 EC with the point (0, 0)", p256, change{"x": b64(make([]byte, 32)), "y": b64(make([]byte, 32))}, jose.ErrUnsupported},
		{"JWT-21 EC with a coordinate of the field's size", p256, change{"x": b64(elliptic.P256().Params().P.Bytes())}, jose.ErrUnsupported},
		{"JWT-21 EC with a coordinate a byte short", p256, change{"x": b64(make([]byte, 31))}, jose.ErrUnsupported},
		{"JWT-21 EC with a one before a coordinate", p256, change{"x": b64(append([]byte{1}, decode(t, x)...))}, jose.ErrUnsupported},
		{"JWT-21 EC with a byte after a coordinate", p256, change{"x": b64(append(decode(t, x), 0))}, jose.ErrUnsupported},
		{"JWT-21 EC with a point of another curve", p256, change{"crv": "P-384"}, jose.ErrUnsupported},
		{"JWT-21 EC of P-521 said to be of P-256", rfc7515A4Key, change{"crv": "P-256"}, jose.ErrUnsupported},
		{"JWT-21 EC with x and y swapped", p256, change{"x": y, "y": x}, jose.ErrUnsupported},
		{"JWT-21 EC without y", p256, change{"y": nil}, jose.ErrUnsupported},
		{"JWT-21 EC without x", p256, change{"x": nil}, jose.ErrUnsupported},
		{"Ed25519 a byte short", ed, change{"x": b64(make([]byte, 31))}, jose.ErrUnsupported},
		{"Ed25519 a byte long", ed, change{"x": b64(make([]byte, 33))}, jose.ErrUnsupported},
		{"Ed25519 without x", ed, change{"x": nil}, jose.ErrUnsupported},
	} {
		t.Run(c.name, func(t *testing.T) {
			data := []byte(c.key)
			if c.change != nil {
				data = jwk(t, c.key, c.change)
			}
			_, err := jose.ParseKey(data)
			require.ErrorIs(t, err, c.want)
			require.NotContains(t, err.Error(), rfc7515A2Modulus[:20], "an error quotes nothing")
		})
	}
}

func TestParseKeyReportsTheMember(t *testing.T) {
	for name, c := range map[string]struct {
		key, member, value, want string
	}{
		"a point beside the curve": {rfc7515A3Key, "x", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "its point is not on the curve"},
		"an exponent in no base64": {rfc7515A2Key, "e", "A QAB", "its e is missing or not canonical base64url"},
		"a modulus in no base64":   {rfc7515A2Key, "n", "A QAB", "its n is missing or not canonical base64url"},
		"a short modulus":          {rfc7515A2Key, "n", modulus(1024, 1), "its modulus is even or not of 2048 to 8192 bits"},
		"an even exponent":         {rfc7515A2Key, "e", "AQAA", "its exponent is not an odd number"},
		"no exponent":              {rfc7515A2Key, "e", "", "its e is missing"},
		"no modulus":               {rfc7515A2Key, "n", "", "its n is missing"},
		"no x":                     {rfc7515A3Key, "x", "", "its x is missing"},
		"no y":                     {rfc7515A3Key, "y", "", "its y is missing"},
		"no x of Ed25519":          {rfc8037Key, "x", "", "its x is missing"},
		"a short x of Ed25519":     {rfc8037Key, "x", "AAAA", "its x has 3 bytes in place of 32"},
		"no kty":                   {rfc7515A3Key, "kty", "", "it has no kty"},
		"no crv":                   {rfc7515A3Key, "crv", "", "it has no crv"},
		"the crv of another kty":   {rfc8037Key, "kty", "EC", "its kty or crv is unknown"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := jose.ParseKey(jwk(t, c.key, map[string]any{c.member: c.value}))
			require.ErrorIs(t, err, jose.ErrUnsupported)
			require.ErrorContains(t, err, c.want)
			require.Equal(t, 1, strings.Count(err.Error(), "cannot be used"), "it is said once")
		})
	}
}

func TestModulusAndAlgorithms(t *testing.T) {
	rsa, ec := parseKey(t, rfc7515A2Key), parseKey(t, rfc7515A3Key)
	require.Equal(t, decode(t, rfc7515A2Modulus), rsa.Modulus())
	require.Nil(t, ec.Modulus())
	require.Equal(t, []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}, rsa.Algorithms())
	require.Equal(t, []string{"ES256"}, ec.Algorithms())
}

func TestParseKeyAccepts(t *testing.T) {
	type change = map[string]any
	plain := parseKey(t, rfc7515A2Key)
	require.Empty(t, plain.ID())
	for _, c := range []struct {
		name, key string
		change    change
		fits      []string
	}{
		{"JWT-16 RSA without alg fits six", rfc7515A2Key, nil, []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}},
		{"JWT-15 RSA with alg fits that one", rfc7515A2Key, change{"alg": "RS256"}, []string{"RS256"}},
		{"RSA with 8192 bits", rfc7515A2Key, change{"n": modulus(8192, 1), "alg": "RS256"}, []string{"RS256"}},
		{"RSA with 2048 bits and the exponent 3", rfc7515A2Key, change{"n": modulus(2048, 1), "e": "Aw", "alg": "PS256"}, []string{"PS256"}},
		{"RSA with the largest exponent", rfc7515A2Key, change{"e": b64([]byte{0x7f, 0xff, 0xff, 0xff}), "alg": "PS256"}, []string{"PS256"}},
		{"P-256", rfc7515A3Key, nil, []string{"ES256"}},
		{"P-521 with its alg", rfc7515A4Key, change{"alg": "ES512"}, []string{"ES512"}},
		{"JWT-23 Ed25519", rfc8037Key, nil, []string{"EdDSA", "Ed25519"}},
		{"JWT-23 Ed25519 with the older name", rfc8037Key, change{"alg": "EdDSA"}, []string{"EdDSA", "Ed25519"}},
		{"JWT-23 Ed25519 with the newer name", rfc8037Key, change{"alg": "Ed25519"}, []string{"EdDSA", "Ed25519"}},
		{"JWT-17 use sig and key_ops with verify", rfc7515A3Key, change{"use": "sig", "key_ops": []string{"sign", "verify"}}, []string{"ES256"}},
		{"JWT-17 use jwt-svid", rfc7515A3Key, change{"use": "jwt-svid"}, []string{"ES256"}},
		{"JWT-17 optional members without a value", rfc7515A3Key, change{"alg": "", "use": nil, "key_ops": []string{}, "kid": "", "x5c": []string{}}, []string{"ES256"}},
		{"RSA with an empty list of other primes", rfc7515A2Key, change{"oth": []string{}, "alg": "RS256"}, []string{"RS256"}},
		{"members that are unknown or of no use", rfc7515A3Key, change{"x5c": 1, "x5t": []int{}, "x5u": "http://x/", "ext": true, "exp": 1}, []string{"ES256"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := parseKey(t, string(jwk(t, c.key, c.change)))
			var fits []string
			for _, alg := range append(slices.Concat(jose.Algorithms(), jose.HMACAlgorithms()), "none", "", "ES256K", "rs256") {
				if k.Fits(alg) {
					fits = append(fits, alg)
				}
			}
			require.Equal(t, c.fits, fits)
		})
	}

	// The same numbers, written in other ways.
	small := smallCoordinate(t)
	for name, c := range map[string]struct {
		key    string
		change change
	}{
		"RSA in the standard alphabet": {rfc7515A2Key, change{"n": strings.NewReplacer("-", "+", "_", "/").Replace(rfc7515A2Modulus)}},
		"RSA in both alphabets":        {rfc7515A2Key, change{"n": strings.Replace(rfc7515A2Modulus, "_", "/", 1)}},
		"RSA with padding":             {rfc7515A2Key, change{"n": rfc7515A2Modulus + strings.Repeat("=", 3-(len(rfc7515A2Modulus)+3)%4)}},
		"RSA with a zero before":       {rfc7515A2Key, change{"n": b64(append([]byte{0}, decode(t, rfc7515A2Modulus)...)), "e": "AAEAAQ"}},
		"EC with a zero before":        {rfc7515A3Key, change{"x": b64(append([]byte{0}, decode(t, member(t, rfc7515A3Key, "x"))...))}},
		"EC with padding":              {rfc7515A3Key, change{"x": member(t, rfc7515A3Key, "x") + "="}},
		"EC a byte short":              {small, change{"x": b64(decode(t, member(t, small, "x"))[1:])}},
		"Ed25519 with padding":         {rfc8037Key, change{"x": member(t, rfc8037Key, "x") + "="}},
	} {
		t.Run(name, func(t *testing.T) {
			require.NotEqual(t, c.key, string(jwk(t, c.key, c.change)))
			require.Equal(t, parseKey(t, c.key).Thumbprint(), parseKey(t, string(jwk(t, c.key, c.change))).Thumbprint())
			_, err := jose.ParseProof(proofWith(t, jwk(t, c.key, c.change)))
			if !strings.HasPrefix(name, "RSA with a zero") {
				require.ErrorContains(t, err, "jwk: ", "a proof has one way only")
			}
		})
	}

	t.Run("a zero before an RSA modulus changes nothing", func(t *testing.T) {
		raw := append([]byte{0}, decode(t, rfc7515A2Modulus)...)
		k := parseKey(t, string(jwk(t, rfc7515A2Key, change{"n": b64(raw), "kid": "x"})))
		require.Equal(t, plain.Thumbprint(), k.Thumbprint())
		require.Equal(t, "x", k.ID())
		require.NoError(t, k.Verify(parse(t, rfc7515A2)))
	})
}

func TestSecretKey(t *testing.T) {
	refuse := map[string]struct {
		id     string
		secret []byte
	}{
		"JWT-22 no secret":           {"", nil},
		"JWT-22 31 bytes":            {"", secret[:31]},
		"a key id with a line break": {"a\n", secret},
		"JWT-14 a public key's PEM":  {"", pemOf(t, keys()["RS256"])},
	}
	for name, c := range refuse {
		t.Run(name, func(t *testing.T) {
			_, err := jose.SecretKey(c.id, c.secret)
			require.Error(t, err)
			require.NotContains(t, err.Error(), "0123")
		})
	}
	for _, c := range []struct {
		name string
		size int
		fits []string
	}{
		{"JWT-22 32 bytes are enough for SHA-256", 32, []string{"HS256"}},
		{"JWT-22 47 bytes are enough for SHA-256", 47, []string{"HS256"}},
		{"JWT-22 48 bytes are enough for SHA-384", 48, []string{"HS256", "HS384"}},
		{"JWT-22 64 bytes are enough for SHA-512", 64, []string{"HS256", "HS384", "HS512"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			mine := slices.Clone(secret[:c.size])
			k, err := jose.SecretKey("a", mine)
			require.NoError(t, err)
			require.Equal(t, "a", k.ID())
			clear(mine) // is not kept
			for _, alg := range jose.HMACAlgorithms() {
				require.Equal(t, slices.Contains(c.fits, alg), k.Fits(alg), alg)
				raw, err := jose.SignSecret(secret[:c.size], alg, nil, []byte(`{}`))
				require.Equal(t, slices.Contains(c.fits, alg), err == nil, alg)
				if err != nil {
					continue
				}
				require.NoError(t, k.Verify(parse(t, raw)))
			}
			for _, alg := range jose.Algorithms() {
				require.False(t, k.Fits(alg), alg)
			}
			other, err := jose.SecretKey("a", secret[:c.size])
			require.NoError(t, err)
			require.Equal(t, k.Thumbprint(), other.Thumbprint())
			other, err = jose.SecretKey("a", append([]byte("x"), secret[:c.size]...))
			require.NoError(t, err)
			require.NotEqual(t, k.Thumbprint(), other.Thumbprint())
		})
	}
	_, err := jose.SignSecret(secret, "RS256", nil, nil)
	require.Error(t, err, "an algorithm without secrets")
}

func TestVerifyRefuses(t *testing.T) {
	payload := []byte(`{"sub":"x"}`)

	t.Run("JWT-14 HS256 with the text of an RSA public key as the secret", func(t *testing.T) {
		k := keys()["RS256"]
		der, err := x509.MarshalPKIXPublicKey(k.Signer().Public())
		require.NoError(t, err)
		pkcs1 := x509.MarshalPKCS1PublicKey(k.Signer().Public().(*rsa.PublicKey))
		for _, guess := range [][]byte{pemOf(t, k), der, pkcs1, k.PublicJWK(), decode(t, rfc7515A2Modulus)} {
			raw, err := jose.SignSecret(guess, "HS256", map[string]any{"kid": k.ID()}, payload)
			require.NoError(t, err)
			require.ErrorIs(t, k.Public().Verify(parse(t, raw)), jose.ErrUnfit)
			require.ErrorIs(t, parseKey(t, string(jwk(t, string(k.PublicJWK()), map[string]any{"alg": nil}))).Verify(parse(t, raw)), jose.ErrUnfit)
		}
	})

	for _, alg := range []string{"none", "None", "NONE", "nOnE", "noNE", "none ", "rs256", "Rs256", "RS256 ", "RSASSA", "HS256", "ES256K"} {
		t.Run("JWS-08 alg "+alg, func(t *testing.T) {
			for _, k := range keys() {
				raw, err := k.Sign(map[string]any{"alg": alg}, payload)
				require.NoError(t, err)
				require.ErrorIs(t, k.Public().Verify(parse(t, raw)), jose.ErrUnfit)
				require.False(t, jose.Known(alg) && alg != "HS256")
			}
		})
	}

	for alg, k := range keys() {
		t.Run("JWS-20 "+alg+", one bit of it changed", func(t *testing.T) {
			raw, err := k.Sign(nil, payload)
			require.NoError(t, err)
			require.NoError(t, k.Public().Verify(parse(t, raw)))
			text := strings.Split(raw, ".")
			for part := range text {
				bytes := decode(t, text[part])
				for i := range bytes {
					changed := slices.Clone(bytes)
					changed[i] ^= 1
					other := slices.Clone(text)
					other[part] = b64(changed)
					c, err := jose.Parse(strings.Join(other, "."))
					if err == nil {
						require.Error(t, k.Public().Verify(c), "byte %d of part %d", i, part)
					}
				}
			}
		})
		t.Run("JWT-20 "+alg+", a signature of another length", func(t *testing.T) {
			raw, err := k.Sign(nil, payload)
			require.NoError(t, err)
			input := raw[:strings.LastIndexByte(raw, '.')+1]
			signature := decode(t, raw[len(input):])
			for _, other := range [][]byte{signature[1:], signature[:len(signature)-1], append([]byte{0}, signature...), append(slices.Clone(signature), 0), slices.Concat(signature, signature), {0}} {
				require.ErrorIs(t, k.Public().Verify(parse(t, input+b64(other))), jose.ErrSignature, "%d bytes", len(other))
			}
		})
		t.Run("JWS-20 "+alg+", another key", func(t *testing.T) {
			other, err := jose.GenerateKey(alg, k.ID())
			require.NoError(t, err)
			raw, err := other.Sign(nil, payload)
			require.NoError(t, err)
			require.ErrorIs(t, k.Public().Verify(parse(t, raw)), jose.ErrSignature)
		})
		t.Run("JWT-15 JWT-21 "+alg+", the keys of all other algorithms", func(t *testing.T) {
			raw, err := k.Sign(nil, payload)
			require.NoError(t, err)
			for name, other := range keys() {
				if other.Public().Fits(alg) {
					require.True(t, name == alg || strings.HasPrefix(name, "Ed") && strings.HasPrefix(alg, "Ed"), "%s fits %s", name, alg)
					continue
				}
				require.ErrorIs(t, other.Public().Verify(parse(t, raw)), jose.ErrUnfit)
			}
		})
	}

	t.Run("JWT-15 PS256 by a key whose alg is RS256", func(t *testing.T) {
		pinned, err := jose.ParsePrivateKey([]byte(bilboPrivate), "PS256")
		require.NoError(t, err)
		raw, err := pinned.Sign(nil, payload)
		require.NoError(t, err)
		require.NoError(t, parseKey(t, bilboRSA).Verify(parse(t, raw)))
		require.ErrorIs(t, parseKey(t, string(jwk(t, bilboRSA, map[string]any{"alg": "RS256"}))).Verify(parse(t, raw)), jose.ErrUnfit)
	})
	t.Run("PS256 with a salt that is not as long as the hash", func(t *testing.T) {
		k := keys()["PS256"]
		input := b64([]byte(`{"alg":"PS256"}`)) + "." + b64(payload)
		digest := sha256.Sum256([]byte(input))
		for _, c := range []struct {
			salt int
			want error
		}{{20, jose.ErrSignature}, {31, jose.ErrSignature}, {33, jose.ErrSignature}, {32, nil}} {
			signature, err := k.Signer().Sign(rand.Reader, digest[:], &rsa.PSSOptions{SaltLength: c.salt, Hash: crypto.SHA256})
			require.NoError(t, err)
			require.ErrorIs(t, k.Public().Verify(parse(t, input+"."+b64(signature))), c.want)
		}
	})
	t.Run("JWT-20 ES256 in DER", func(t *testing.T) {
		k := keys()["ES256"]
		input := b64([]byte(`{"alg":"ES256"}`)) + "." + b64(payload)
		digest := sha256.Sum256([]byte(input))
		der, err := ecdsa.SignASN1(rand.Reader, k.Signer().(*ecdsa.PrivateKey), digest[:])
		require.NoError(t, err)
		require.ErrorIs(t, k.Public().Verify(parse(t, input+"."+b64(der))), jose.ErrSignature)
	})
	for alg, curve := range map[string]elliptic.Curve{"ES256": elliptic.P256(), "ES384": elliptic.P384(), "ES512": elliptic.P521()} {
		t.Run("JWT-20 "+alg+" with r or s out of range", func(t *testing.T) {
			k, n := keys()[alg], curve.Params().N
			raw, err := k.Sign(nil, payload)
			require.NoError(t, err)
			input := raw[:strings.LastIndexByte(raw, '.')+1]
			signature := decode(t, raw[len(input):])
			size := len(signature) / 2
			r, s := new(big.Int).SetBytes(signature[:size]), new(big.Int).SetBytes(signature[size:])
			all := new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), uint(8*size)), big.NewInt(1))
			for _, bad := range []*big.Int{new(big.Int), n, new(big.Int).Add(n, big.NewInt(1)), all} {
				for _, pair := range [][2]*big.Int{{bad, s}, {r, bad}, {bad, bad}} {
					forged := append(pair[0].FillBytes(make([]byte, size)), pair[1].FillBytes(make([]byte, size))...)
					require.ErrorIs(t, k.Public().Verify(parse(t, input+b64(forged))), jose.ErrSignature)
				}
			}
			// The standard allows this one. It is why no deny-list may go by the text of a token.
			twin := append(r.FillBytes(make([]byte, size)), new(big.Int).Sub(n, s).FillBytes(make([]byte, size))...)
			require.NoError(t, k.Public().Verify(parse(t, input+b64(twin))))
		})
	}
	t.Run("JWS-15 a key that the token brings", func(t *testing.T) {
		mine, evil := keys()["ES256"], keys()["ES384"]
		raw, err := evil.Sign(map[string]any{"jwk": evil.PublicJWK(), "kid": mine.ID()}, payload)
		require.NoError(t, err)
		c := parse(t, raw)
		require.NoError(t, evil.Public().Verify(c))
		require.ErrorIs(t, mine.Public().Verify(c), jose.ErrUnfit)
	})
	t.Run("the zero Compact", func(t *testing.T) {
		require.ErrorIs(t, keys()["ES256"].Public().Verify(&jose.Compact{}), jose.ErrUnfit)
		require.ErrorIs(t, keys()["ES256"].Public().Verify(&jose.Compact{Header: jose.Header{Algorithm: "ES256"}}), jose.ErrSignature)
	})
}

func TestAlgorithms(t *testing.T) {
	require.Equal(t, []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"}, jose.Algorithms())
	require.Equal(t, []string{"HS256", "HS384", "HS512"}, jose.HMACAlgorithms())
	jose.Algorithms()[0] = "none"
	for _, alg := range slices.Concat(jose.Algorithms(), jose.HMACAlgorithms()) {
		require.True(t, jose.Known(alg), alg)
	}
	for _, alg := range []string{"", "none", "rs256", "ES256K", "Ed448", "RSA-OAEP", "dir"} {
		require.False(t, jose.Known(alg), alg)
	}
}

// An accepted key has one thumbprint, whatever stands beside its material.
func FuzzParseKey(f *testing.F) {
	for _, seed := range []string{rfc7515A2Key, rfc7515A3Key, rfc7515A4Key, bilboRSA, bilboEC, rfc7638Key, rfc8037Key, rfc8037Private, `{"kty":"oct","k":"AA"}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		k, err := jose.ParseKey(data)
		if err != nil {
			return
		}
		var m map[string]any
		if err := json.Unmarshal(data, &m); err != nil {
			t.Fatalf("encoding/json refuses %q: %v", data, err)
		}
		for _, private := range []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k"} {
			if _, has := m[private]; has {
				t.Fatalf("%q is accepted with %s", data, private)
			}
		}
		bare := map[string]any{}
		for _, name := range []string{"kty", "crv", "n", "e", "x", "y"} {
			if v, has := m[name]; has {
				bare[name] = v
			}
		}
		text, err := json.Marshal(bare)
		if err != nil {
			t.Fatal(err)
		}
		again, err := jose.ParseKey(text)
		if err != nil {
			t.Fatalf("%q is accepted, its bare members %q are not: %v", data, text, err)
		}
		if again.Thumbprint() != k.Thumbprint() {
			t.Fatalf("%q and %q differ in their thumbprint", data, text)
		}
		if kid, _ := m["kid"].(string); kid != k.ID() {
			t.Fatalf("the id of %q is %q", data, k.ID())
		}
		for _, alg := range jose.HMACAlgorithms() {
			if k.Fits(alg) {
				t.Fatalf("%q fits %s", data, alg)
			}
		}
	})
}

func decode(t testing.TB, text string) []byte {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(text)
	require.NoError(t, err)
	return b
}

func pemOf(t testing.TB, k *jose.PrivateKey) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(k.Signer().Public())
	require.NoError(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

// smallCoordinate returns an EC key whose x begins with a zero byte.
func smallCoordinate(t testing.TB) string {
	for {
		k, err := jose.GenerateKey("ES256", "small")
		require.NoError(t, err)
		if decode(t, member(t, string(k.PublicJWK()), "x"))[0] == 0 {
			return string(k.PublicJWK())
		}
	}
}

// member returns a text in a JWK.
func member(t testing.TB, key, name string) string {
	t.Helper()
	var members map[string]any
	require.NoError(t, json.Unmarshal([]byte(key), &members))
	return members[name].(string)
}

// proofWith returns a proof whose header has this key. Its signature is of another one.
func proofWith(t testing.TB, jwk []byte) string {
	t.Helper()
	raw, err := keys()["ES256"].Sign(map[string]any{"jwk": json.RawMessage(jwk)}, []byte(`{}`))
	require.NoError(t, err)
	return raw
}

func TestKeysForElse(t *testing.T) {
	type change = map[string]any
	for name, c := range map[string]struct {
		change  change
		foreign bool
	}{
		"use enc":             {change{"use": "enc"}, true},
		"key_ops encrypt":     {change{"key_ops": []string{"encrypt"}}, true},
		"an unknown kty":      {change{"kty": "AKP"}, true},
		"an unknown crv":      {change{"crv": "secp256k1"}, true},
		"an unknown alg":      {change{"alg": "RSA-OAEP"}, true},
		"no kty":              {change{"kty": nil}, false},
		"half a coordinate":   {change{"x": "AAAA"}, false},
		"alg of another kind": {change{"alg": "RS256"}, false},
		"a member's type":     {change{"use": 1}, false},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := jose.ParseKey(jwk(t, rfc7515A3Key, c.change))
			require.ErrorIs(t, err, jose.ErrUnsupported)
			require.Equal(t, c.foreign, errors.Is(err, jose.ErrForeign), err)
		})
	}
}

func TestNamesOfKeys(t *testing.T) {
	type change = map[string]any
	for name, c := range map[string]struct {
		change          change
		id, x5t, issuer string
	}{
		"nothing":                   {nil, "", "", ""},
		"x5t beside kid":            {change{"kid": "a", "x5t": "b"}, "a", "", ""},
		"x5t alone":                 {change{"x5t": "b", "x5t#S256": "c"}, "", "b", ""},
		"x5t#S256 alone":            {change{"x5t#S256": "c"}, "", "c", ""},
		"an invalid x5t":            {change{"x5t": 1}, "", "", ""},
		"an x5t with a line break":  {change{"x5t": "a\nb"}, "", "", ""},
		"an issuer":                 {change{"issuer": "https://login.example.com/{tenantid}/v2.0"}, "", "", "https://login.example.com/{tenantid}/v2.0"},
		"an issuer without a value": {change{"issuer": ""}, "", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			k := parseKey(t, string(jwk(t, rfc7515A3Key, c.change)))
			require.Equal(t, []string{c.id, c.x5t, c.issuer}, []string{k.ID(), k.CertificateThumbprint(), k.Issuer()})
		})
	}
	t.Run("the key of a proof has neither an issuer nor a certificate", func(t *testing.T) {
		proof, err := jose.ParseProof(proofWith(t, jwk(t, rfc7515A3Key, change{"issuer": "https://login.example.com", "x5t": "b"})))
		require.NoError(t, err)
		require.Equal(t, []string{"", ""}, []string{proof.Header.Key.Issuer(), proof.Header.Key.CertificateThumbprint()})
	})
	t.Run("an issuer that is not a text is refused", func(t *testing.T) {
		_, err := jose.ParseKey(jwk(t, rfc7515A3Key, change{"issuer": []string{"https://login.example.com"}}))
		require.ErrorIs(t, err, jose.ErrUnsupported)
	})
}
