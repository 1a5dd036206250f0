package jose_test

import (
	"encoding/base64"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/internal/jose"
)

// The examples of the RFCs, each with the verdict that a bearer token deserves.

func TestRFCTokensThatAreRefused(t *testing.T) {
	for name, raw := range map[string]string{
		"JWS-20 RFC 7515, A.5: unsecured":                                      rfc7515A5,
		"JWS-25 JWS-01 RFC 7515, A.6: general JSON serialization":              rfc7515A6,
		"JWS-25 JWS-01 RFC 7515, A.7: flattened JSON serialization":            rfc7515A7,
		"RFC 7520, 4.5: detached payload":                                      rfc7520s45,
		"JWS-25 RFC 7520, 4.6: kid in an unprotected header, JSON":             rfc7520s46,
		"JWS-25 RFC 7520, 4.7: nothing in a protected header, JSON":            rfc7520s47,
		"JWS-25 RFC 7520, 4.8: several signatures, JSON":                       rfc7520s48,
		"JWS-13 RFC 7797, 4.2: unencoded payload, detached":                    rfc7797s42,
		"JWS-13 RFC 7797, 4.2: unencoded payload, put in its place, base64url": rfc7797s42Attached,
	} {
		t.Run(name, func(t *testing.T) {
			_, err := jose.Parse(raw)
			require.Error(t, err)
		})
	}
}

func TestRFCTokensThatVerify(t *testing.T) {
	for name, c := range map[string]struct{ raw, key, payload string }{
		"RFC 7515, A.2: RS256":                                   {rfc7515A2, rfc7515A2Key, joePlain},
		"RFC 7515, A.3: ES256":                                   {rfc7515A3, rfc7515A3Key, joePlain},
		"RFC 7515, A.4: ES512, though the payload is not JSON":   {rfc7515A4, rfc7515A4Key, "Payload"},
		"RFC 7520, 4.1: RS256, though the payload is not JSON":   {rfc7520s41, bilboRSA, frodoPlain},
		"RFC 7520, 4.2: PS384, though the payload is not JSON":   {rfc7520s42, bilboRSA, frodoPlain},
		"RFC 7520, 4.3: ES512, though the payload is not JSON":   {rfc7520s43, bilboEC, frodoPlain},
		"RFC 8037, A.4: Ed25519, though the payload is not JSON": {rfc8037A4, rfc8037Key, "Example of Ed25519 signing"},
	} {
		t.Run(name, func(t *testing.T) {
			token, key := parse(t, c.raw), parseKey(t, c.key)
			require.Equal(t, c.payload, string(token.Payload))
			require.NoError(t, key.Verify(token))
			token.Payload = nil // the signature is of the text that was sent
			require.NoError(t, key.Verify(token))
		})
	}
}

func TestRFCTokensThatVerifyWithAConfiguredSecretOnly(t *testing.T) {
	for name, c := range map[string]struct{ raw, secret string }{
		"RFC 7515, A.1: HS256":                                 {rfc7515A1, rfc7515A1Bytes},
		"RFC 7520, 4.4: HS256, though the payload is not JSON": {rfc7520s44, bilboSecret},
		"RFC 7797, 4.1: HS256, though the payload is not JSON": {rfc7797s41, rfc7515A1Bytes},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := jose.ParseKey([]byte(`{"kty":"oct","alg":"HS256","k":"` + c.secret + `"}`))
			require.ErrorIs(t, err, jose.ErrSymmetric)

			secret, err := base64.RawURLEncoding.DecodeString(c.secret)
			require.NoError(t, err)
			key, err := jose.SecretKey("", secret)
			require.NoError(t, err)
			require.NoError(t, key.Verify(parse(t, c.raw)))
			for _, other := range []string{rfc7515A2Key, rfc7515A3Key, rfc8037Key} {
				require.ErrorIs(t, parseKey(t, other).Verify(parse(t, c.raw)), jose.ErrUnfit)
			}
		})
	}
}

func TestRFCThumbprints(t *testing.T) {
	require.Equal(t, rfc7638Thumbprint, parseKey(t, rfc7638Key).Thumbprint(), "RFC 7638, 3.1")
	require.Equal(t, rfc8037Thumbprint, parseKey(t, rfc8037Key).Thumbprint(), "RFC 8037, A.3")
}

func TestRFCSignaturesThatAreDeterministicComeOutAsPrinted(t *testing.T) {
	ed, err := jose.ParsePrivateKey([]byte(rfc8037Private), "EdDSA")
	require.NoError(t, err)
	raw, err := ed.Sign(map[string]any{"kid": nil}, []byte("Example of Ed25519 signing"))
	require.NoError(t, err)
	require.Equal(t, rfc8037A4, raw, "RFC 8037, A.4")

	rsa, err := jose.ParsePrivateKey([]byte(bilboPrivate), "RS256")
	require.NoError(t, err)
	raw, err = rsa.Sign(nil, []byte(frodoPlain))
	require.NoError(t, err)
	require.Equal(t, rfc7520s41, raw, "RFC 7520, 4.1")

	secret, err := base64.RawURLEncoding.DecodeString(bilboSecret)
	require.NoError(t, err)
	raw, err = jose.SignSecret(secret, "HS256", map[string]any{"kid": "018c0ae5-4d9b-471b-bfd6-eef314bc7037"}, []byte(frodoPlain))
	require.NoError(t, err)
	require.Equal(t, rfc7520s44, raw, "RFC 7520, 4.4")
}

func parse(t testing.TB, raw string) *jose.Compact {
	t.Helper()
	c, err := jose.Parse(raw)
	require.NoError(t, err)
	return c
}

func parseKey(t testing.TB, jwk string) *jose.Key {
	t.Helper()
	k, err := jose.ParseKey([]byte(jwk))
	require.NoError(t, err)
	return k
}
