package middleware_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/valetkeytest"
)

func TestFindCertificate(t *testing.T) {
	own := valetkeytest.ClientCertificate(t).Certificate[0]
	proxies := middleware.Proxies{Trusted: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")}} // as httptest.NewRequest has it
	told := httptest.NewRequest("POST", "/", nil)
	told.Header.Set("Client-Cert", ":"+base64.StdEncoding.EncodeToString(own)+":")
	shown := httptest.NewRequest("POST", "/", nil)
	shown.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{{Raw: own}}}

	der, err := middleware.ClientCertHeader().Find(told, middleware.Proxies{})
	require.NoError(t, err)
	assert.Nil(t, der, "no proxy is trusted")
	der, err = middleware.ClientCertHeader().Find(shown, proxies)
	require.NoError(t, err)
	assert.Nil(t, der, "the certificate is that of the proxy")
	der, err = middleware.ClientCertHeader().Find(told, proxies)
	require.NoError(t, err)
	assert.Equal(t, own, der)
	der, err = middleware.TLSCertificate().Find(shown, middleware.Proxies{})
	require.NoError(t, err)
	assert.Equal(t, own, der)

	told.Header.Set("Client-Cert", "x")
	_, err = middleware.ClientCertHeader().Find(told, proxies)
	var refusal *valetkey.Error
	require.ErrorAs(t, err, &refusal)
	assert.Equal(t, valetkey.InvalidRequest, refusal.Code)
}

// readClientCertificate reads a header as the form of its product is specified, apart from the code under test. It returns the digest of the
// certificate, and the certificate itself if the header has more than a digest.
func readClientCertificate(header, value string) (sum, der []byte) {
	unescaped, err := url.PathUnescape(value)
	if err != nil {
		unescaped = "%"
	}
	squashed := strings.NewReplacer(" ", "", "\t", "", "\r", "", "\n", "").Replace
	var text string // in base64, in which each certificate has one form
	switch header {
	case "Client-Cert":
		if m := itemForm.FindStringSubmatch(value); m != nil {
			text = m[1]
		}
	case "Der":
		text, _, _ = strings.Cut(strings.NewReplacer("\r", "", "\n", "").Replace(unescaped), ",")
	case "Pem":
		if m := pemForm.FindStringSubmatch(squashed(unescaped)); m != nil {
			text = m[1]
		}
	case "X-Forwarded-Client-Cert":
		if !xfccForm.MatchString(value) {
			return nil, nil
		}
		found := map[string][]string{}
		for _, m := range xfccPair.FindAllStringSubmatch(value, -1) {
			key := strings.ToLower(strings.Trim(m[1], " \t"))
			found[key] = append(found[key], strings.TrimSuffix(strings.TrimPrefix(m[2], `"`), `"`))
		}
		hash, cert := found["hash"], found["cert"]
		if len(hash) > 1 || len(cert) > 1 || slices.Contains(hash, "") || slices.Contains(cert, "") {
			return nil, nil
		}
		if len(hash) == 1 {
			if sum, err = hex.DecodeString(hash[0]); err != nil || len(sum) != sha256.Size {
				return nil, nil
			}
		}
		if len(cert) == 0 {
			return sum, nil
		}
		own, der := readClientCertificate("Pem", cert[0])
		if sum != nil && !bytes.Equal(sum, own) {
			return nil, nil
		}
		return own, der
	}
	der, err = base64.StdEncoding.DecodeString(text)
	if err != nil || len(der) == 0 || base64.StdEncoding.EncodeToString(der) != text {
		return nil, nil
	}
	digest := sha256.Sum256(der)
	return digest[:], der
}

// The forms of headers with certificates. xfccPair is a key and a value of an element of X-Forwarded-Client-Cert.
var (
	itemForm = regexp.MustCompile(`^:(.*):$`)
	pemForm  = regexp.MustCompile(`^-----BEGINCERTIFICATE-----(.*)-----ENDCERTIFICATE-----$`)
	xfccPair = regexp.MustCompile(`(?s)([^=,;"]+)=("(?:[^"\\]|\\.)*"|[^,;"]*)`)
	xfccForm = regexp.MustCompile(`^(?:` + xfccPair.String() + `;)*` + xfccPair.String() + `$`)
)

// FuzzFindCertificate holds that Find and a guard find the certificate that readClientCertificate finds, or refuse; and that no text in the
// certificate of a client, or in another header, has Envoy's header read as another certificate than that of the connection.
func FuzzFindCertificate(f *testing.F) {
	own, other := valetkeytest.ClientCertificate(f).Certificate[0], valetkeytest.ClientCertificate(f).Certificate[0]
	var words []string // in seeds and corpora, for what differs with each run
	for name, der := range map[string][]byte{"OWN": own, "OTHER": other} {
		sum := sha256.Sum256(der)
		words = append(words, name+"-HASH", hex.EncodeToString(sum[:]), name+"-DER", base64.StdEncoding.EncodeToString(der),
			name+"-PEM", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
			name+"-ESCAPED", url.PathEscape(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))))
	}
	expand := strings.NewReplacer(words...).Replace
	for _, seed := range []string{
		":OWN-DER:", "OWN-ESCAPED", "-----BEGIN CERTIFICATE----- OWN-DER -----END CERTIFICATE-----", "-----BEGINCERTIFICATE-----OWN-DER-----ENDCERTIFICATE-----",
		"OWN-DER", "OWN-DER,OTHER-DER", "OWN-DER%0A%2COTHER-DER", ":OWN-DER OTHER-DER:", "OWN-ESCAPEDOTHER-ESCAPED", "%", ":AAAA:", ":AA==:", "",
		`By=x;Hash=OWN-HASH;Cert="OWN-ESCAPED";Subject="CN=\"a\""`, `By=x,Cert=OWN-ESCAPED`, "Hash=OWN-HASH", "hash=OWN-HASH;Cert=OTHER-ESCAPED", `By="`, `a="\`, "=", "a=b;", `By=a"b=c;Hash=OWN-HASH`, "AB==", ":AB==:",
	} {
		f.Add(seed, "spiffe://example.com/client")
	}
	for _, name := range []string{
		"x;Hash=OTHER-HASH", `x;Cert="OTHER-ESCAPED"`, "x,Hash=OTHER-HASH", `a",Cert="OTHER-ESCAPED`, `Subject="a`, `By="`, `Hash=OTHER-HASH;By="\`, "Hash=OTHER-HASH", `\";Cert=OTHER-ESCAPED;x=\"`,
	} {
		f.Add("", name)
	}

	proxies := middleware.Proxies{Trusted: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")}}
	places := map[string]middleware.ClientCertificate{
		"Client-Cert": middleware.ClientCertHeader(), "Pem": middleware.PEMHeader("pem"), "Der": middleware.DERHeader("der"), "X-Forwarded-Client-Cert": middleware.XFCCHeader(),
	}
	// A token of these guards is the digest of the certificate that it is bound to.
	guards := map[string]*middleware.Guard{}
	for header, place := range places {
		guards[header] = guardWith(f, valetkey.VerifierFunc(func(_ context.Context, raw string) (*valetkey.Token, error) {
			return valetkey.NewToken(valetkey.TokenFields{
				Issuer: "https://as.example", Subject: "alice", Expiry: time.Now().Add(time.Hour), Deadline: time.Now().Add(time.Hour), Raw: "{}",
				Binding: valetkey.Binding{CertificateThumbprint: raw},
			}), nil
		}), func(cfg *middleware.Config) { cfg.ClientCertificate, cfg.Proxies = place, proxies })
	}
	request := func(header, value string) *http.Request {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header[header] = []string{value}
		return r
	}
	// decide returns the status for a token that is bound to the certificate with a digest.
	decide := func(header, value string, sum []byte) int {
		r := request(header, value)
		r.Header.Set("Authorization", "Bearer "+base64.RawURLEncoding.EncodeToString(sum))
		d := guards[header].Decide(r)
		if d.Err() == nil {
			return http.StatusOK
		}
		return d.Status()
	}
	digest := func(der []byte) []byte {
		sum := sha256.Sum256(der)
		return sum[:]
	}
	f.Fuzz(func(t *testing.T, value, name string) {
		value, name = expand(value), expand(name)
		if strings.ContainsFunc(value+name, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
			return // net/http refuses such a header
		}
		for header, place := range places {
			sum, want := readClientCertificate(header, value)
			got, err := place.Find(request(header, value), proxies)
			if _, malformed := x509.ParseCertificate(want); malformed != nil {
				var refusal *valetkey.Error
				require.ErrorAs(t, err, &refusal, "%s: %q", header, value)
				require.Equal(t, valetkey.InvalidRequest, refusal.Code)
				require.Nil(t, got)
			} else {
				require.NoError(t, err, "%s: %q", header, value)
				require.Equal(t, want, got)
			}
			for _, bound := range [][]byte{digest(own), digest(other), sum} {
				status := http.StatusUnauthorized
				switch {
				case sum == nil:
					bound, status = digest(own), http.StatusBadRequest
				case bytes.Equal(sum, bound):
					status = http.StatusOK
				}
				require.Equal(t, status, decide(header, value, bound), "%s: %q", header, value)
			}
		}

		// Envoy quotes the subject, and neither URIs nor DNS names.
		const header = "X-Forwarded-Client-Cert"
		subject := `Subject="CN=` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(name) + `"`
		for _, element := range []string{
			expand(`By=spiffe://a;Hash=OWN-HASH;Cert="OWN-ESCAPED";Chain="OWN-ESCAPED";`) + subject + ";URI=" + name + ";DNS=" + name,
			expand("By=spiffe://a;Hash=OWN-HASH;") + subject + ";URI=" + name,
		} {
			der, _ := places[header].Find(request(header, element), proxies)
			require.True(t, der == nil || bytes.Equal(own, der), "%q", element)
			require.NotEqual(t, http.StatusOK, decide(header, element, digest(other)), "%q", element)
		}
		for _, element := range []string{
			expand(`By=spiffe://a;Hash=OWN-HASH;Cert="OWN-ESCAPED";`) + subject + ";URI=spiffe://b",
			expand("By=spiffe://a;Hash=OWN-HASH;") + subject,
			expand("Hash=OWN-HASH"),
		} {
			require.Equal(t, http.StatusBadRequest, decide(header, name+","+element, digest(own)), "%q before %q", name, element)
		}
	})
}

// A digest proves which certificate a client has, but a token endpoint has to know the certificate.
func TestFindCertificateNeedsMoreThanADigest(t *testing.T) {
	r := httptest.NewRequest("POST", "/", nil)
	r.Header.Set("X-Forwarded-Client-Cert", "Hash="+strings.Repeat("a", 64))
	der, err := middleware.XFCCHeader().Find(r, middleware.Proxies{Trusted: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")}})
	assert.Nil(t, der)
	var refusal *valetkey.Error
	require.ErrorAs(t, err, &refusal)
	assert.Equal(t, valetkey.InvalidRequest, refusal.Code)
}

func TestTheZeroClientCertificateIsNoPlace(t *testing.T) {
	assert.True(t, middleware.ClientCertificate{}.IsZero())
	for _, place := range []middleware.ClientCertificate{middleware.TLSCertificate(), middleware.ClientCertHeader(), middleware.PEMHeader("a"), middleware.DERHeader("a"), middleware.XFCCHeader()} {
		assert.False(t, place.IsZero())
	}
}
