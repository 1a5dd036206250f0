package proxy_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"flag"
	"fmt"
	"math/big"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// The certificate of a proxy under test, and its key.
var certificatePEM, keyPEM string

// TestMain makes this process trust the certificate of httptest, which is that of issuers under test, and a second one.
func TestMain(m *testing.M) {
	flag.Parse()
	flag.Set("test.parallel", "16") // parallel tests wait for a token to expire, and need no processor
	os.Exit(func() int {
		issuers := httptest.NewTLSServer(nil)
		issuers.Close()
		own, err := makeCertificate()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		dir, err := os.MkdirTemp("", "valetkey")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		roots := filepath.Join(dir, "roots.pem")
		text := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: issuers.Certificate().Raw})) + own
		if err := os.WriteFile(roots, []byte(text), 0o600); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		os.Setenv("SSL_CERT_FILE", roots) // before the first use of the system roots
		return m.Run()
	}())
}

func makeCertificate() (chain string, err error) { return makeCertificateWith(1) }

func makeCertificateWith(serial int64) (chain string, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return "", err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", err
	}
	certificatePEM = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	keyPEM = string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}))
	return certificatePEM, nil
}
