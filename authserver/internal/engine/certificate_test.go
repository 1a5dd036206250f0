package engine_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/authserver/internal/clients"
	"github.com/valetkey/valetkey/authserver/internal/engine"
	"github.com/valetkey/valetkey/authserver/store"
)

// An authority issues certificates.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "An authority"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	certificate, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return &authority{certificate, key}
}

// issue returns a certificate for CN=client,O=Example and client.example.com, as change has it.
func (a *authority) issue(t *testing.T, change func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "client", Organization: []string{"Example"}}, DNSNames: []string{"client.example.com"},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if change != nil {
		change(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	require.NoError(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestTLSClientAuth(t *testing.T) {
	trusted, stranger := newAuthority(t), newAuthority(t)
	pool := x509.NewCertPool()
	pool.AddCert(trusted.certificate)
	grants := []string{"client_credentials"}
	all := with(
		clients.Client{ID: "by-dn", AuthMethod: "tls_client_auth", TLSSubjectDN: "CN=client,O=Example", GrantTypes: grants, Scopes: []string{"orders:read"}, CertBound: true},
		clients.Client{ID: "by-dns", AuthMethod: "tls_client_auth", TLSSANDNS: "client.example.com", GrantTypes: grants, Scopes: []string{"orders:read"}},
	)
	s, client := startTLS(t, all, func(c *config) {
		c.Certificate, c.Authorities, c.MTLSURL = engine.TLSCertificate, pool, "https://mtls.example.com/as/"
	})
	ask := func(t *testing.T, f url.Values, shown ...tls.Certificate) answer {
		res, err := client(shown...).PostForm(s.url+"/oauth2/token", f)
		return read(t, res, err)
	}
	for name, shown := range map[string][]tls.Certificate{
		"no certificate":                      nil,
		"a certificate of another issuer":     {stranger.issue(t, nil)},
		"a certificate of another subject":    {trusted.issue(t, func(c *x509.Certificate) { c.Subject.CommonName, c.DNSNames = "other", []string{"other.example.com"} })},
		"a certificate that has expired":      {trusted.issue(t, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Second) })},
		"a certificate that is not valid yet": {trusted.issue(t, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(30 * time.Minute) })},
		"a certificate of a server":           {trusted.issue(t, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })},
		"a self-signed certificate of the same names": {func() tls.Certificate {
			own := newAuthority(t)
			own.certificate.Subject = trusted.certificate.Subject
			return own.issue(t, nil)
		}()},
	} {
		t.Run(name, func(t *testing.T) {
			for _, id := range []string{"by-dn", "by-dns"} {
				refused(t, ask(t, form("grant_type", "client_credentials", "client_id", id), shown...), 401, "invalid_client")
			}
		})
	}
	good := trusted.issue(t, nil)
	t.Run("a certificate and a secret", func(t *testing.T) {
		refused(t, ask(t, form("grant_type", "client_credentials", "client_id", "by-dn", "client_secret", "x"), good), 401, "invalid_client")
	})
	t.Run("a certificate of the client", func(t *testing.T) {
		for _, id := range []string{"by-dn", "by-dns"} {
			access := ask(t, form("grant_type", "client_credentials", "client_id", id), good).tokens(t).access
			confirmation, _ := part(t, access, 1)["cnf"].(map[string]any)
			assert.Equal(t, id == "by-dn", confirmation["x5t#S256"] == digestOf(good), id)
		}
	})
	t.Run("a certificate without an extended key usage is for any", func(t *testing.T) {
		any := trusted.issue(t, func(c *x509.Certificate) { c.ExtKeyUsage = nil })
		ask(t, form("grant_type", "client_credentials", "client_id", "by-dn"), any).tokens(t)
	})
	t.Run("the metadata name the method and the endpoints that request certificates", func(t *testing.T) {
		about := s.Metadata()
		assert.Contains(t, about.TokenAuth, "tls_client_auth")
		assert.Equal(t, "none", about.TokenAuth[len(about.TokenAuth)-1])
		assert.Equal(t, &engine.Aliases{
			Token: "https://mtls.example.com/as/oauth2/token", Introspection: "https://mtls.example.com/as/oauth2/introspect", Revocation: "https://mtls.example.com/as/oauth2/revoke",
			PAR: "https://mtls.example.com/as/oauth2/par", Device: "https://mtls.example.com/as/oauth2/device_authorization",
		}, about.Aliases)
		without := start(t, func(c *config) { c.Certificate = engine.TLSCertificate }).Metadata()
		assert.NotContains(t, without.TokenAuth, "tls_client_auth")
		assert.Nil(t, without.Aliases)
	})
	t.Run("a server without authorities", func(t *testing.T) {
		s, client := startTLS(t, func(c *config) {
			c.Certificate = engine.TLSCertificate
			c.Clients = clients.NewRegistry(store.NewMemory(0), []clients.Client{{ID: "by-dn", AuthMethod: "tls_client_auth", TLSSubjectDN: "CN=client,O=Example", GrantTypes: grants, Scopes: []string{"orders:read"}}})
		})
		res, err := client(good).PostForm(s.url+"/oauth2/token", form("grant_type", "client_credentials", "client_id", "by-dn"))
		refused(t, read(t, res, err), 401, "invalid_client")
	})
}
