package clients_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/authserver/internal/clients"
)

// certified returns a parsed certificate with the names of template.
func certified(t testing.TB, template *x509.Certificate) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template.SerialNumber, template.NotAfter = big.NewInt(1), time.Now().Add(time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	c, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return c
}

// rdn returns the DER of a subject, in the order of the certificate: the reverse of the string.
func rdn(t testing.TB, names ...[]pkix.AttributeTypeAndValue) []byte {
	t.Helper()
	var sequence pkix.RDNSequence
	for _, name := range names {
		sequence = append(sequence, name)
	}
	der, err := asn1.Marshal(sequence)
	require.NoError(t, err)
	return der
}

var (
	commonName   = asn1.ObjectIdentifier{2, 5, 4, 3}
	organization = asn1.ObjectIdentifier{2, 5, 4, 10}
	component    = asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 25}
)

func one(oid asn1.ObjectIdentifier, value string) []pkix.AttributeTypeAndValue {
	return []pkix.AttributeTypeAndValue{{Type: oid, Value: value}}
}

func TestHasSubject(t *testing.T) {
	spiffe, err := url.Parse("spiffe://example.com/client")
	require.NoError(t, err)
	plain := certified(t, &x509.Certificate{
		RawSubject: rdn(t, one(organization, "Example, Inc."), one(commonName, "client")),
		DNSNames:   []string{"client.example.com", "*.example.net"}, URIs: []*url.URL{spiffe},
		IPAddresses: []net.IP{net.ParseIP("192.0.2.1"), net.ParseIP("2001:db8::1")}, EmailAddresses: []string{"client@example.com"},
	})
	odd := certified(t, &x509.Certificate{RawSubject: rdn(t, one(component, "com"), one(component, "example"),
		append(one(commonName, ` Zoë #1 <"\"> `), one(organization, "A+B=C;D")...))})

	for _, c := range []struct {
		name        string
		client      clients.Client
		certificate *x509.Certificate
		want        bool
	}{
		{"no subject", clients.Client{}, plain, false},
		{"two subjects", clients.Client{TLSSubjectDN: `CN=client,O=Example\, Inc.`, TLSSANDNS: "client.example.com"}, plain, false},
		{"another name", clients.Client{TLSSubjectDN: `CN=other,O=Example\, Inc.`}, plain, false},
		{"a name in another case", clients.Client{TLSSubjectDN: `CN=Client,O=Example\, Inc.`}, plain, false},
		{"a part of the name", clients.Client{TLSSubjectDN: `CN=client`}, plain, false},
		{"more than the name", clients.Client{TLSSubjectDN: `CN=client,O=Example\, Inc.,C=US`}, plain, false},
		{"the order of the certificate", clients.Client{TLSSubjectDN: `O=Example\, Inc.,CN=client`}, plain, false},
		{"one relative name of both", clients.Client{TLSSubjectDN: `CN=client+O=Example\, Inc.`}, plain, false},
		{"a name that is malformed", clients.Client{TLSSubjectDN: `CN=client,O=Example, Inc.`}, plain, false},
		{"the name", clients.Client{TLSSubjectDN: `CN=client,O=Example\, Inc.`}, plain, true},
		{"the name, written in another way", clients.Client{TLSSubjectDN: `2.5.4.3 = client ; o=\45xample\2c Inc.`}, plain, true},
		{"the name in hexadecimal", clients.Client{TLSSubjectDN: `cn=#0C06636C69656E74,O=Example\, Inc.`}, plain, true},
		{"a name with all special characters", clients.Client{TLSSubjectDN: `O=A\+B\=C\;D+CN=\ Zo\C3\AB #1 \<\"\\\"\>\ ,DC=example,DC=com`}, odd, true},
		{"another DNS name", clients.Client{TLSSANDNS: "www.client.example.com"}, plain, false},
		{"a name for a wildcard", clients.Client{TLSSANDNS: "client.example.net"}, plain, false},
		{"the DNS name", clients.Client{TLSSANDNS: "Client.example.com"}, plain, true},
		{"another URI", clients.Client{TLSSANURI: "spiffe://example.com/client/"}, plain, false},
		{"the URI", clients.Client{TLSSANURI: "spiffe://example.com/client"}, plain, true},
		{"another IP address", clients.Client{TLSSANIP: "192.0.2.2"}, plain, false},
		{"the IPv4 address", clients.Client{TLSSANIP: "192.0.2.1"}, plain, true},
		{"the IPv6 address, written in another way", clients.Client{TLSSANIP: "2001:0db8:0::1"}, plain, true},
		{"another email address", clients.Client{TLSSANEmail: "Client@example.com"}, plain, false},
		{"the email address", clients.Client{TLSSANEmail: "client@example.com"}, plain, true},
	} {
		t.Run(c.name, func(t *testing.T) { assert.Equal(t, c.want, clients.HasSubject(&c.client, c.certificate)) })
	}
}

func TestSubjectMistakes(t *testing.T) {
	base := clients.Client{AuthMethod: "tls_client_auth", GrantTypes: []string{"client_credentials"}, Scopes: []string{"notes.read"}}
	for name, c := range map[string]struct {
		change func(*clients.Client)
		want   string
	}{
		"none":                         {func(*clients.Client) {}, "tls_client_auth_subject_dn: or one of the other names"},
		"two":                          {func(c *clients.Client) { c.TLSSubjectDN, c.TLSSANIP = "CN=a", "192.0.2.1" }, "tls_client_auth_san_ip: cannot be combined with tls_client_auth_subject_dn"},
		"one for another method":       {func(c *clients.Client) { c.AuthMethod, c.TLSSubjectDN = "private_key_jwt", "CN=a" }, "is only for the authentication method"},
		"a name without a type":        {func(c *clients.Client) { c.TLSSubjectDN = "client" }, "is not a distinguished name"},
		"a name of an unknown type":    {func(c *clients.Client) { c.TLSSubjectDN = "XY=client" }, "is not a distinguished name"},
		"a name without a value":       {func(c *clients.Client) { c.TLSSubjectDN = "CN=" }, "is not a distinguished name"},
		"a name that ends early":       {func(c *clients.Client) { c.TLSSubjectDN = "CN=a," }, "is not a distinguished name"},
		"an escape of nothing":         {func(c *clients.Client) { c.TLSSubjectDN = `CN=a\` }, "is not a distinguished name"},
		"an escape of a letter":        {func(c *clients.Client) { c.TLSSubjectDN = `CN=\x` }, "is not a distinguished name"},
		"a number with leading zeros":  {func(c *clients.Client) { c.TLSSubjectDN = `2.05.4.3=a` }, "is not a distinguished name"},
		"a value that is not a string": {func(c *clients.Client) { c.TLSSubjectDN = `CN=#0500` }, "is not a distinguished name"},
		"a wildcard":                   {func(c *clients.Client) { c.TLSSANDNS = "*.example.com" }, "is not a DNS name"},
		"an invalid URI":               {func(c *clients.Client) { c.TLSSANURI = "client" }, "is not an absolute URI"},
		"an address with a zone":       {func(c *clients.Client) { c.TLSSANIP = "fe80::1%eth0" }, "is not an IP address"},
		"a name as email address":      {func(c *clients.Client) { c.TLSSANEmail = "client" }, "is not an email address"},
		"a name that is too long":      {func(c *clients.Client) { c.TLSSANEmail = "a@" + strings.Repeat("a", 2000) }, "is too long"},
	} {
		t.Run(name, func(t *testing.T) {
			c1 := base
			c.change(&c1)
			assert.ErrorContains(t, clients.Validate(&c1), c.want)
		})
	}
}

// A distinguished name as crypto/x509 writes it matches the certificate that has it.
func FuzzDN(f *testing.F) {
	f.Add("client", "Example, Inc.", false)
	f.Add(" a ", `+"\<>;=#,`, true)
	f.Add("#", "Zoë", true)
	f.Fuzz(func(t *testing.T, name, more string, together bool) {
		names := [][]pkix.AttributeTypeAndValue{one(organization, more), one(commonName, name)}
		if together {
			names = [][]pkix.AttributeTypeAndValue{append(names[0], names[1]...)}
		}
		var sequence pkix.RDNSequence
		for _, n := range names {
			sequence = append(sequence, n)
		}
		der, err := asn1.Marshal(sequence)
		var read pkix.RDNSequence
		if err != nil || name == "" || more == "" || strings.ContainsRune(name+more, 0) {
			return // no value that a certificate has
		}
		if _, err := asn1.Unmarshal(der, &read); err != nil {
			return
		}
		c := clients.Client{TLSSubjectDN: read.String()}
		if !clients.HasSubject(&c, &x509.Certificate{RawSubject: der}) {
			t.Errorf("%q does not match", c.TLSSubjectDN)
		}
		c.TLSSubjectDN = "CN=another one"
		if name != "another one" && clients.HasSubject(&c, &x509.Certificate{RawSubject: der}) {
			t.Errorf("%q matches", c.TLSSubjectDN)
		}
	})
}
