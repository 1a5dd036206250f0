package valetkeytest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"math/big"
	"testing"
	"time"
)

// ClientCertificate returns a new self-signed client certificate for TLS connections (RFC 8705). It is valid from an hour ago
// until 24 h from now, by the clock of the machine.
func ClientCertificate(t testing.TB) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatalf("valetkeytest: making a key for a certificate: %v", err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: DefaultClientID},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatalf("valetkeytest: making a certificate: %v", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// BoundToCertificate binds the token to the first certificate of c, so that only the holder of its key can use the token (RFC
// 8705, section 3.1).
func BoundToCertificate(c tls.Certificate) Option {
	sum := sha256.Sum256(c.Certificate[0])
	return Claim("cnf", map[string]string{"x5t#S256": base64.RawURLEncoding.EncodeToString(sum[:])})
}
