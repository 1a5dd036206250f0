package proxy

import (
	"crypto/tls"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"github.com/valetkey/valetkey/cmd/valetkey/internal/issuer"
	"github.com/valetkey/valetkey/dpop"
	"github.com/valetkey/valetkey/middleware"
)

// dpop reads how proofs are verified (RFC 9449); nil: they are not. It leaves origin to be read by the method of that name.
func (n node) dpop(redis bool, b build) (cfg *dpop.Config, origin node) {
	if n.Node == nil {
		return nil, node{}
	}
	f := n.fields("origin", "nonce", "key", "key_file", "key_env", "window", "skew", "algorithms", "replays")
	cfg = &dpop.Config{
		Algorithms: f["algorithms"].texts(),
		Window:     f["window"].positive(),
		Skew:       f["skew"].duration(),
		Now:        b.now,
	}
	switch replays := f["replays"].oneOf("memory", "redis"); {
	case replays == "redis" && !redis:
		f["replays"].mistake("redis is required")
	case replays != "memory" && b.shared != nil:
		cfg.Replays = b.shared.Redis
	}
	key, given := randomKey(f)
	nonce := f["nonce"].oneOf("off", "on") == "on"
	switch {
	case given && !nonce:
		n.mistake("nonce: must be on for there to be a use of the key")
	case nonce && redis && !given: // or each replica would refuse the nonces of the others
		n.mistake("key_file: required with redis, or key_env or key, as all proxies must have the same nonces")
	case nonce && (len(key) == keySize || !given):
		nonces, err := dpop.NewNonces(dpop.NoncesConfig{Key: key})
		if err != nil {
			n.mistake("%v", err)
		}
		cfg.Nonces = nonces
	}
	return cfg, f["origin"]
}

var dpopNames = map[string]string{"Algorithms": "algorithms", "Window": "window", "Skew": "skew"}

// origin reads scheme and host of the URLs that proofs are for, into cfg: those of origin, what forwarded_header reports, or those
// of the resource, which cfg has already. n is that of dpop, and field that of its origin. The client's Host header never determines them.
func (n node) origin(field node, cfg *middleware.Config) (origin string) {
	if n.Node == nil {
		return ""
	}
	text := field.given()
	u, err := url.Parse(text)
	switch {
	case text == "" && cfg.Resource.ID == "" && cfg.Proxies.Forwarded == "":
		if field.Node == nil {
			n.mistake("origin: required, such as https://api.example.com, since resource is no URL of clients and no forwarded_header reports it")
		}
		text = "https://unknown.invalid" // the mistake is known
	case text == "":
		return ""
	case err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || text != u.Scheme+"://"+u.Host:
		field.mistake("%q is not a scheme and a host, such as https://api.example.com", text)
	case cfg.Proxies.Forwarded != "":
		field.mistake("stands beside forwarded_header, which reports the URL: give one of them")
		return ""
	}
	cfg.URL = func(r *http.Request) string {
		path, _, _ := strings.Cut(r.RequestURI, "?") // as sent
		if !strings.HasPrefix(path, "/") {
			path = r.URL.EscapedPath()
		}
		return text + path
	}
	return text
}

// proofs returns the verifier, or nil with mistakes or if there is none.
func (n node) proofs(cfg *dpop.Config) *dpop.Verifier {
	if cfg == nil {
		return nil
	}
	v, err := dpop.New(*cfg)
	n.blame(nil, issuer.Mistakes(err, dpopNames))
	return v
}

// mtls reads where the certificate of a client is (RFC 8705), and the header that it comes in, if it does.
func (n node) mtls(ownTLS bool) (place middleware.ClientCertificate, header string) {
	if n.Node == nil {
		return middleware.ClientCertificate{}, ""
	}
	f := n.fields("header")
	header = http.CanonicalHeaderKey(f["header"].given())
	switch {
	case header == "Client-Cert":
		return middleware.ClientCert(), header
	case header != "":
		return middleware.EscapedCert(header), header
	case f["header"].Node == nil && !ownTLS:
		n.mistake("tls is required, or the header in which trusted_proxies tell the certificate")
	}
	return middleware.TLSCertificate(), ""
}

// proxies reads the addresses of the proxies in front.
func (n node) proxies() (trusted []netip.Prefix) {
	if n.Node == nil {
		return nil
	}
	for _, item := range n.items() {
		text := item.given()
		prefix, err := netip.ParsePrefix(text)
		if addr, bad := netip.ParseAddr(text); bad == nil && addr.Zone() == "" {
			prefix, err = addr.Prefix(addr.BitLen())
		}
		switch {
		case text == "": // which is said
		case err != nil || prefix.Addr().Is4In6():
			item.mistake("%q is neither an address nor a range such as 10.0.0.0/8", text)
		default:
			trusted = append(trusted, prefix)
		}
	}
	return trusted
}

// tls reads the certificate of the listener; nil: there is none.
func (n node) tls() *tls.Config {
	if n.Node == nil {
		return nil
	}
	f := n.fields("cert_file", "key_file")
	n.require(f, "cert_file", "key_file")
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}
	chain, key := f["cert_file"].file(), f["key_file"].file()
	if chain == "" || key == "" {
		return cfg
	}
	own, err := tls.LoadX509KeyPair(chain, key)
	if err != nil {
		n.mistake("%v", err)
	}
	cfg.Certificates = []tls.Certificate{own}
	return cfg
}
