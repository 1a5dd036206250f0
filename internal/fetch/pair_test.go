package fetch_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A pair is a self-signed certificate of 127.0.0.1 with its key.
type pair struct {
	pair            tls.Certificate
	certPEM, keyPEM []byte
}

func newPair(t *testing.T, name string) pair {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	p := pair{
		certPEM: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		keyPEM:  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}),
	}
	p.pair, err = tls.X509KeyPair(p.certPEM, p.keyPEM)
	require.NoError(t, err)
	return p
}

// write returns a new file with the certificate, or the key if what is "key".
func (p pair) write(t *testing.T, what string) string {
	t.Helper()
	file, content := filepath.Join(t.TempDir(), what), p.certPEM
	if what == "key" {
		content = p.keyPEM
	}
	require.NoError(t, os.WriteFile(file, content, 0o600))
	return file
}

// into writes the pair into two files.
func (p pair) into(t *testing.T, cert, key string) {
	t.Helper()
	require.NoError(t, os.WriteFile(cert, p.certPEM, 0o600))
	require.NoError(t, os.WriteFile(key, p.keyPEM, 0o600))
}
