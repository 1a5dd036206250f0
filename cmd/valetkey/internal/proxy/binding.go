package proxy

import (
	"cmp"
	"crypto/tls"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/valetkey/valetkey/cmd/valetkey/internal/web"
	"github.com/valetkey/valetkey/dpop"
	"github.com/valetkey/valetkey/middleware"
)

// methods returns the places where a request may carry its token besides, or instead of, the Authorization header.
func (f *file) methods() (all []middleware.BearerMethod) {
	switch {
	case f.Given("trusted_origins") && !f.Given("token_header"):
		f.Mistake("trusted_origins", "has no effect without token_header")
	case f.Given("websocket_token") && f.Given("token_header"):
		f.Mistake("websocket_token", "cannot be combined with token_header, which handshakes carry too")
	}
	if f.TokenHeader != "" {
		var trusted []string
		for _, o := range f.TrustedOrigins {
			if o != "" { // otherwise a mistake has been reported
				trusted = append(trusted, string(o))
			}
		}
		all = append(all, middleware.HeaderToken(f.TokenHeader, trusted...))
	}
	if keys := f.apiKeysSection(); keys != nil && keys.Header != "" {
		all = append(all, middleware.APIKeyHeader(keys.Header))
	} else if keys != nil {
		all = append(all, middleware.APIKeyAuthorization())
	}
	socket := f.WebSocketToken
	if socket == nil {
		return all
	}
	if *socket == (socketSection{}) {
		f.Mistake("websocket_token", "requires prefix, base64url_prefix or pair")
	}
	if socket.Prefix != "" {
		all = append(all, middleware.WebSocketProtocol(socket.Prefix))
	}
	if socket.Base64URL != "" {
		all = append(all, middleware.WebSocketProtocolBase64URL(socket.Base64URL))
	}
	if socket.Pair != "" {
		all = append(all, middleware.WebSocketProtocolPair(socket.Pair))
	}
	return all
}

// apiKeysSection returns the section api_keys, or nil if there is none.
func (f *file) apiKeysSection() *apiKeysSection {
	for _, v := range f.Verifiers {
		if v.APIKeys != nil {
			return v.APIKeys
		}
	}
	return nil
}

// proofs returns the configuration for verifying proofs (RFC 9449), or nil if they are not verified.
func (f *file) proofs() *dpop.Config {
	s := f.DPoP
	if s == nil {
		return nil
	}
	cfg := &dpop.Config{Algorithms: s.Algorithms, Window: time.Duration(s.Window), Leeway: time.Duration(s.Leeway), Now: f.now}
	switch replays := s.Replays; {
	case replays == "redis" && f.Redis == nil:
		f.Mistake("dpop.replay_store", "requires the redis section")
	case replays != "memory" && f.shared != nil:
		cfg.ReplayStore = f.shared.Redis
	default:
		cfg.ReplayStore = f.replayStore()
	}
	key, given := f.Key(s.Key), f.SecretGiven(s.Key)
	nonce := s.Nonce == "on"
	switch {
	case given && !nonce:
		f.Mistake("dpop.nonce", "must be on to use the key")
	case nonce && f.Redis != nil && !given: // otherwise each replica would refuse the nonces of the others
		f.Mistake("dpop.key_file", "required with redis, or key_env or key, because all proxies must accept the same nonces")
	case nonce && !given:
		nonces, err := f.randomNonces()
		f.Blame("dpop", err, nil)
		cfg.Nonces = nonces
	case nonce && key != nil:
		nonces, err := dpop.NewNonces(dpop.NoncesConfig{Key: key})
		f.Blame("dpop", err, map[string]string{"Key": "key"})
		cfg.Nonces = nonces
	}
	return cfg
}

var dpopNames = map[string]string{"Algorithms": "algorithms", "Window": "window", "Leeway": "leeway"}

// proofVerifier returns the verifier of proofs. It returns nil if there is none or there are mistakes.
func (f *file) proofVerifier(cfg *dpop.Config) *dpop.Verifier {
	if cfg == nil {
		return nil
	}
	v, err := dpop.New(*cfg)
	f.Blame("dpop", err, dpopNames)
	return v
}

// originOfProofs sets how cfg determines scheme and host of the URL for which a proof must be made. They come from origin, from
// forwarded_header, or from the resource that cfg already has. They never come from the client's Host header.
func (f *file) originOfProofs(cfg *middleware.Config) (origin string) {
	if f.DPoP == nil {
		return ""
	}
	text := f.DPoP.Origin
	u, err := url.Parse(text)
	switch {
	case text == "" && cfg.Resource.ID == "" && cfg.Proxies.Forwarded == "":
		if !f.Given("dpop.origin") {
			why := "resource is not a URL for clients"
			if !f.authorize {
				why += " and forwarded_header is not set"
			}
			f.Mistake("dpop.origin", "required, such as https://api.example.com, because %s", why)
		}
		text = "https://unknown.invalid" // the mistake has been reported
	case text == "":
		return ""
	case err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || text != u.Scheme+"://"+u.Host:
		f.Mistake("dpop.origin", "%q is not a scheme and a host, such as https://api.example.com", text)
	case cfg.Proxies.Forwarded != "":
		f.Mistake("dpop.origin", "cannot be combined with forwarded_header, which reports the URL")
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

// formats maps the headers that products define to the formats of the certificates in them.
var formats = map[string]string{
	"Client-Cert": "rfc9440", "X-Forwarded-Client-Cert": "xfcc", "X-Forwarded-Tls-Client-Cert": "der", "X-Arr-Clientcert": "der",
}

// certificates returns where the client certificate is found (RFC 8705), and the name and format of its header, if it comes in
// one.
func (f *file) certificates() (place middleware.ClientCertificate, header, format string) {
	if f.MTLS == nil {
		return middleware.ClientCertificate{}, "", ""
	}
	header = http.CanonicalHeaderKey(f.MTLS.Header)
	format = cmp.Or(f.MTLS.Format, formats[header], "pem")
	switch {
	case header == "" && f.Given("mtls.format") && !f.Given("mtls.header"):
		f.Mistake("mtls.format", "has no effect without header")
	case header == "" && f.authorize:
		return middleware.TLSCertificate(), "", ""
	case header == "" && !f.Given("mtls.header") && f.TLS == nil:
		f.Mistake("mtls", "requires tls, or the header in which trusted_proxies send the certificate")
	case header == "":
	case format == "rfc9440" && header != "Client-Cert", format == "xfcc" && header != "X-Forwarded-Client-Cert":
		f.Mistake("mtls.format", "%s is not a format of the header %s", format, header)
		return middleware.PEMHeader(header), header, "pem"
	case format == "rfc9440":
		return middleware.ClientCertHeader(), header, format
	case format == "xfcc":
		return middleware.XFCCHeader(), header, format
	case format == "der":
		return middleware.DERHeader(header), header, format
	default:
		return middleware.PEMHeader(header), header, format
	}
	return middleware.TLSCertificate(), "", ""
}

// proxies returns the trusted proxies and the header accepted from them.
func (f *file) proxies() middleware.Proxies {
	all := middleware.Proxies{
		Forwarded: middleware.Forwarding(f.ForwardedHeader), XForwardedPort: f.ForwardedPort, XForwardedPrefix: f.ForwardedPrefix,
	}
	for _, r := range f.TrustedProxies {
		if r.IsValid() { // otherwise a mistake has been reported
			all.Trusted = append(all.Trusted, r.Prefix)
		}
	}
	return all
}

// serverTLS returns the TLS configuration of the listener, or nil without TLS.
func (f *file) serverTLS() *tls.Config {
	if f.TLS == nil {
		return nil
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}
	if f.MTLS != nil {
		cfg.ClientAuth = tls.RequestClientCert // RFC 8705, section 6.2: the certificate need not be signed by a trusted CA
	}
	if f.TLS.Certificate == "" || f.TLS.Key == "" {
		return cfg
	}
	own, err := web.ReadCertificate(f.Path(f.TLS.Certificate), f.Path(f.TLS.Key), f.log)
	if err != nil {
		f.Mistake("tls", "%w", err)
		return cfg
	}
	cfg.GetCertificate = own.Get
	return cfg
}
