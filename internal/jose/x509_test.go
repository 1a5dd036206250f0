package jose_test

import (
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/internal/jose"
)

func publicPEM(t testing.TB, key any) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	require.NoError(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

// certificate returns a self-signed certificate of k, which has expired, in DER.
func certificate(t testing.TB, k *jose.PrivateKey) []byte {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Unix(1, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Signer().Public(), k.Signer())
	require.NoError(t, err)
	return der
}

func TestCertificates(t *testing.T) {
	std := base64.StdEncoding.EncodeToString
	for alg, kty := range map[string]string{"RS256": "RSA", "ES256": "EC", "ES512": "EC", "EdDSA": "OKP"} {
		k := keys()[alg]
		other, err := jose.GenerateKey(alg, "")
		require.NoError(t, err)
		der := certificate(t, k)
		bare := `{"kty":"` + kty + `"}`
		full := string(k.PublicJWK())
		for name, c := range map[string]struct {
			data []byte
			want string
		}{
			"the certificate of another key beside the key": {jwk(t, full, map[string]any{"x5c": []string{std(certificate(t, other))}}), "its x5c has the certificate of another key"},
			"no certificate and no numbers":                 {[]byte(bare), ""},
			"base64url":                                     {jwk(t, bare, map[string]any{"x5c": []string{base64.RawURLEncoding.EncodeToString(der) + "_"}}), "its x5c is not base64"},
			"half a certificate":                            {jwk(t, bare, map[string]any{"x5c": []string{std(der[:len(der)/2])}}), "its x5c does not begin with a certificate"},
			"the certificate of another kind of key":        {jwk(t, `{"kty":"XYZ"}`, map[string]any{"x5c": []string{std(der)}}), "its kty is not that of its certificate"},
			"the certificate second":                        {jwk(t, bare, map[string]any{"x5c": []string{"", std(der)}}), "its x5c does not begin with a certificate"},
		} {
			t.Run(alg+": "+name+" is refused", func(t *testing.T) {
				_, err := jose.ParseKey(c.data)
				require.ErrorIs(t, err, jose.ErrUnsupported)
				require.NotErrorIs(t, err, jose.ErrForeign)
				require.ErrorContains(t, err, c.want)
			})
		}
		for name, data := range map[string][]byte{
			"the certificate alone":             jwk(t, bare, map[string]any{"x5c": []string{std(der)}}),
			"it and that of an authority":       jwk(t, bare, map[string]any{"x5c": []string{std(der), std(certificate(t, other))}}),
			"the certificate beside the key":    jwk(t, full, map[string]any{"x5c": []string{std(der)}}),
			"something unreadable beside it":    jwk(t, full, map[string]any{"x5c": []string{"x"}}),
			"the certificate, without any type": jwk(t, `{}`, map[string]any{"x5c": []string{std(der)}}),
		} {
			t.Run(alg+": "+name+" is accepted, though it has expired", func(t *testing.T) {
				require.Equal(t, k.Public().Thumbprint(), parseKey(t, string(data)).Thumbprint())
			})
		}
		t.Run(alg+": PEM", func(t *testing.T) {
			for _, data := range [][]byte{pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), publicPEM(t, k.Signer().Public())} {
				got, err := jose.ParsePEM("a", data)
				require.NoError(t, err)
				require.Equal(t, k.Public().Thumbprint(), got.Thumbprint())
				require.Equal(t, "a", got.ID())
				for _, broken := range [][]byte{data[:len(data)/2], pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der[:9]}), nil} {
					_, err = jose.ParsePEM("a", broken)
					require.ErrorIs(t, err, jose.ErrUnsupported)
				}
			}
			private, err := x509.MarshalPKCS8PrivateKey(k.Signer())
			require.NoError(t, err)
			_, err = jose.ParsePEM("a", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
			require.ErrorIs(t, err, jose.ErrPrivate)
			_, err = jose.ParsePEM("a\n", publicPEM(t, k.Signer().Public()))
			require.ErrorIs(t, err, jose.ErrUnsupported)
		})
	}
	t.Run("a certificate with another curve is refused", func(t *testing.T) {
		signer, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
		require.NoError(t, err)
		template := &x509.Certificate{SerialNumber: big.NewInt(1)}
		der, err := x509.CreateCertificate(rand.Reader, template, template, signer.Public(), signer)
		require.NoError(t, err)
		_, err = jose.ParseKey(jwk(t, `{"kty":"EC"}`, map[string]any{"x5c": []string{std(der)}}))
		require.ErrorIs(t, err, jose.ErrUnsupported)
		require.ErrorContains(t, err, "its curve is unknown")
	})
	t.Run("a mistake in the key itself is reported before its certificate", func(t *testing.T) {
		_, err := jose.ParseKey(jwk(t, rfc7515A3Key, map[string]any{"x": "AA", "x5c": []string{std(certificate(t, keys()["ES256"]))}}))
		require.ErrorContains(t, err, "its point is not on the curve")
	})
	t.Run("PEM that holds no key of ours is refused with the reason", func(t *testing.T) {
		x25519, err := ecdh.X25519().GenerateKey(rand.Reader)
		require.NoError(t, err)
		_, err = jose.ParsePEM("a", publicPEM(t, x25519.PublicKey()))
		require.ErrorIs(t, err, jose.ErrUnsupported)
		require.ErrorContains(t, err, "it is of an unknown kind")
		_, err = jose.ParsePEM("a", pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: []byte{0}}))
		require.ErrorIs(t, err, jose.ErrForeign)
		_, err = jose.ParsePEM("a", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte{0}}))
		require.ErrorContains(t, err, "it is PEM of something malformed")
	})
	t.Run("PEM of a key that is too short is refused", func(t *testing.T) {
		_, err := jose.ParsePEM("a", publicPEM(t, &rsa.PublicKey{N: new(big.Int).SetBytes(decode(t, modulus(1024, 1))), E: 65537}))
		require.ErrorIs(t, err, jose.ErrUnsupported)
	})
}
