package proxy

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"path"
	"strings"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/adapters/valetforward"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/driver"
	"github.com/valetkey/valetkey/internal/config"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/routes"
)

// An Authorizer answers gateways that ask whether a request may pass. It decides as the proxy of the same file does. It is safe for
// concurrent use and must be closed.
type Authorizer struct {
	*Proxy         // without an upstream; nil after a mistake
	http   address // "": not served
	grpc   address // "": not served
	ask    http.Handler
	server driver.Server // nil unless grpc
}

// An authorizeFile is the file of an Authorizer: that of a proxy without the fields in proxyOnly, and with those about gateways.
type authorizeFile struct {
	Shared         file           `yaml:",inline"`
	ListenHTTP     address        `yaml:"listen_http"`
	ListenGRPC     address        `yaml:"listen_grpc"`
	Dialect        string         `yaml:"dialect,filled"`
	PathPrefix     string         `yaml:"path_prefix,filled"`
	Callers        []addressRange `yaml:"callers,required"`
	CallersCA      string         `yaml:"callers_ca_file,filled"`
	AllowPreflight bool           `yaml:"allow_preflight"`
}

// proxyOnly maps the fields of a proxy that an Authorizer refuses to the reason.
var proxyOnly = map[string]string{
	"listen":            "belongs to valetkey proxy: use listen_http or listen_grpc",
	"upstream":          noUpstream,
	"upstreams":         noUpstream,
	"max_body_bytes":    "belongs to valetkey proxy: gateways ask about requests without their bodies",
	"cors":              "belongs to valetkey proxy: the gateway answers preflights, or allow_preflight lets them pass",
	"trusted_proxies":   "belongs to valetkey proxy: use callers",
	"forwarded_header":  reported,
	"forwarded_port":    reported,
	"forwarded_prefix":  reported,
	"cancel_with_token": "belongs to valetkey proxy: a gateway asks once, and a decision cannot end a stream",
}

const (
	noUpstream = "belongs to valetkey proxy: the gateway passes requests on"
	reported   = "belongs to valetkey proxy: the dialect determines the headers, and dpop.origin the URL"
)

// authorizeNames maps the fields of valetforward.Config to their names in files. The guard has checked ClientCertificate.
var authorizeNames = map[string]string{"Dialect": "dialect", "Callers": "callers", "PathPrefix": "path_prefix"}

// LoadAuthorizer creates an Authorizer from a YAML file, as [Load] creates a proxy.
func LoadAuthorizer(path string, drivers driver.Set, log *slog.Logger) (*Authorizer, error) {
	return loadAuthorizer(path, build{log: log, drivers: drivers})
}

func loadAuthorizer(path string, b build) (*Authorizer, error) {
	b.authorize = true
	f := &authorizeFile{Shared: file{build: b}}
	a := &Authorizer{Proxy: &Proxy{log: b.log}}
	a.authorizer = a
	var table routes.Table
	var asked valetforward.Config
	if err := a.read(path, f, func(d *config.Document) error {
		f.Shared.Document = d
		table = f.fill(a)
		asked = f.forward(a)
		return nil
	}); err != nil {
		a.Close()
		return nil, err
	}
	a.access.rows = table
	decider, err := table.Decider(a.guard, routes.AllowEncodedSlash(f.Shared.AllowEncodedSlash...))
	if err != nil {
		a.Close()
		return nil, fmt.Errorf("guard the routes: %w", err)
	}
	if asked.Decider = decider; a.http != "" {
		handler, err := valetforward.New(asked)
		if err != nil {
			a.Close()
			return nil, err
		}
		a.ask = a.withMetadata(handler, asked.PathPrefix)
	}
	if a.grpc != "" {
		a.server, err = b.drivers.ExtAuthz(driver.ExtAuthz{
			Decider: decider, Callers: asked.Callers, TLS: a.tls, AllowPreflight: f.AllowPreflight, ForwardToken: f.Shared.ForwardToken, Logger: b.log,
		})
		if err != nil {
			a.Close()
			return nil, fmt.Errorf("listen_grpc: %w", err)
		}
	}
	return a, nil
}

// fill sets the parts of a except for its servers, and returns the routes.
func (f *authorizeFile) fill(a *Authorizer) routes.Table {
	d := f.Shared.Document
	for field, why := range proxyOnly {
		if d.Given(field) {
			d.Mistake(field, "%s", why)
		}
	}
	a.http, a.grpc = f.ListenHTTP, f.ListenGRPC
	if !d.Given("listen_http") && !d.Given("listen_grpc") {
		d.Mistake("listen_http", "required, or listen_grpc")
	}
	if f.ListenGRPC != "" && f.Shared.drivers.ExtAuthz == nil {
		d.Mistake("listen_grpc", "%w", driver.Missing("ext_authz over gRPC"))
	}
	f.Shared.sockets = settings{"listen_http": string(f.ListenHTTP), "listen_grpc": string(f.ListenGRPC)}
	table := f.Shared.fill(a.Proxy, &onward{log: f.Shared.log})
	f.callersTLS(a)
	return table
}

// forward returns the configuration of the handler for HTTP without its Decider, and reports the mistakes in it.
func (f *authorizeFile) forward(a *Authorizer) valetforward.Config {
	d := f.Shared.Document
	cfg := valetforward.Config{
		Dialect: valetforward.Dialect(f.Dialect), PathPrefix: f.PathPrefix, AllowPreflight: f.AllowPreflight,
		ClientCertificate: f.Shared.reported, Logger: f.Shared.log,
	}
	for _, r := range f.Callers {
		if r.IsValid() { // otherwise a mistake has been reported
			cfg.Callers = append(cfg.Callers, r.Prefix)
		}
	}
	header := f.Shared.MTLS != nil && f.Shared.MTLS.Header != ""
	if !d.Given("listen_http") {
		for _, field := range []string{"dialect", "path_prefix", "mtls.header"} {
			if d.Given(field) {
				d.Mistake(field, "has no effect without listen_http")
			}
		}
		return cfg
	}
	if f.Shared.MTLS != nil && !header && f.ListenGRPC == "" {
		d.Mistake("mtls.header", "required: the header in which the gateway reports the certificate of the client")
	}
	if !header { // the place for gRPC
		cfg.ClientCertificate = middleware.ClientCertificate{}
	}
	if d.Given("dialect") && f.Dialect == "" || d.Wrong("callers") {
		return cfg // a mistake has been reported
	}
	cfg.ForwardToken = f.Shared.ForwardToken && cfg.Dialect == valetforward.EnvoyHTTP
	checked := cfg
	if guard, err := middleware.New(middleware.Config{Verifier: valetkey.First()}); err == nil { // the guard of the file may have mistakes
		checked.Decider, _ = routes.Table{"/": valetkey.AnyToken}.Decider(guard)
	}
	if len(checked.Callers) == 0 { // a mistake has been reported
		checked.Callers = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
	}
	_, err := valetforward.New(checked)
	d.Blame("", err, authorizeNames)
	return cfg
}

// callersTLS requires certificates of callers.
func (f *authorizeFile) callersTLS(a *Authorizer) {
	d := f.Shared.Document
	if f.CallersCA == "" {
		if a.tls != nil {
			a.tls.ClientAuth = tls.NoClientCert // mtls is about clients, which do not connect to this process
		}
		return
	}
	if f.Shared.TLS == nil {
		d.Mistake("callers_ca_file", "requires tls")
		return
	}
	text, err := config.Content(d.Path(f.CallersCA), maxCA)
	pool := x509.NewCertPool()
	if err == nil && !pool.AppendCertsFromPEM(text) {
		err = errors.New("has no certificate in PEM")
	}
	if err != nil {
		d.Mistake("callers_ca_file", "%w", err)
		return
	}
	a.tls.ClientCAs, a.tls.ClientAuth = pool, tls.RequireAndVerifyClientCert
}

// metadataPath begins the paths of the metadata (RFC 9728, section 3). Clients look for it below this path and at it, so gateways pass
// both on.
const metadataPath = "/.well-known/oauth-protected-resource"

// passedOn reports whether gateways may pass a request with this path on from a client. They compare prefixes without a boundary, and some
// first remove dot segments, merge slashes or ignore letter case, but pass the path on as sent. sent is decoded once, as they do.
func passedOn(sent string) bool {
	sent = strings.ToLower(sent)
	return strings.HasPrefix(sent, metadataPath) || strings.HasPrefix(path.Clean("/"+sent), metadataPath)
}

// withMetadata serves the metadata of the guard (RFC 9728) to a gateway that passes requests for it on, and leaves questions to next. A
// question behind a prefix is one whatever its path is. Any other request to this path comes from a client, who must not ask: the answer
// would tell what a token is good for, and use up a proof.
func (a *Authorizer) withMetadata(next http.Handler, prefix string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch h := a.own[r.URL.Path]; {
		case prefix != "" && strings.HasPrefix(r.RequestURI, prefix), !passedOn(r.URL.Path):
			next.ServeHTTP(w, r)
		case describes(r.Header):
			http.Error(w, http.StatusText(http.StatusBadRequest)+": this is not a request for metadata", http.StatusBadRequest)
		case h == nil:
			http.NotFound(w, r)
		default:
			h.ServeHTTP(w, r)
		}
	})
}

// describes reports whether the headers of a request describe another one.
func describes(h http.Header) bool {
	for name := range h {
		switch plain(name) {
		case "X-FORWARDED-METHOD", "X-FORWARDED-URI", "X-ORIGINAL-METHOD", "X-ORIGINAL-URL":
			return true
		}
	}
	return false
}
