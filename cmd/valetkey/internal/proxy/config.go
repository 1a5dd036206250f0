package proxy

import (
	"cmp"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/driver"
	"github.com/valetkey/valetkey/fapi"
	"github.com/valetkey/valetkey/internal/config"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/routes"
)

// Load creates a proxy from a YAML file. It reads the file and the files that it names, whose paths are relative to the folder of
// the file. It does no other I/O. The error joins all mistakes, each with its line.
func Load(path string, drivers driver.Set, log *slog.Logger) (*Proxy, error) {
	return load(path, build{log: log, drivers: drivers})
}

// A build holds the inputs of a proxy besides its file.
type build struct {
	log       *slog.Logger
	drivers   driver.Set
	now       func() time.Time  // nil: time.Now
	shared    *shared           // nil: nothing is shared
	rehearsal *rehearsal        // nil: a real proxy
	authorize bool              // the file is that of an Authorizer, which has no upstream
	observer  valetkey.Observer // nil: none
	carried
}

// guardNames maps the fields of middleware.Config to their names in files, except for Methods.
var guardNames = map[string]string{
	"MaxTokenBytes": "max_token_bytes", "Realm": "realm", "ErrorURI": "error_uri", "InsecureReportOnly": "insecure_report_only",
	"Cache.Entries": "cache.entries", "Cache.Bytes": "cache.bytes", "Cache.MaxAge": "cache.max_age",
	"Revocations.Bytes": "revocations.bytes", "Revocations.Keep": "revocations.keep",
	"Resource.Documentation": "metadata.documentation", "Resource.Policy": "metadata.policy", "Resource.TermsOfUse": "metadata.terms_of_use",
	"SenderConstrained": "sender_constrained", "ClientCertificate": "mtls",
	"Proxies.Trusted": "trusted_proxies", "Proxies.Forwarded": "forwarded_header",
	"Proxies.XForwardedPort": "forwarded_port", "Proxies.XForwardedPrefix": "forwarded_prefix",
}

func load(path string, b build) (*Proxy, error) {
	b.log = slog.New(withRequestID{b.log.Handler()})
	f, p := &file{build: b}, &Proxy{log: b.log}
	next := onward{log: b.log}
	var table routes.Table
	if err := p.read(path, f, func(d *config.Document) error {
		f.Document = d
		table = f.fill(p, &next)
		return nil
	}); err != nil {
		p.Close()
		return nil, err
	}
	next.guard, p.access.rows = p.guard, table
	forward := next.handler()
	encodedSlash := routes.AllowEncodedSlash(f.AllowEncodedSlash...)
	if re := b.rehearsal; re != nil {
		if forward, table = re, re.table(table); re.need != nil {
			encodedSlash = routes.Option{} // the rows are not those of the file
		}
	}
	var err error
	if p.api, err = table.Guard(p.guard, namable(p.guard, forward), routes.StrictPaths(), encodedSlash); err != nil {
		p.Close()
		return nil, fmt.Errorf("guard the routes: %w", err)
	}
	if next.cors != nil && b.rehearsal == nil {
		p.api = newCrossOrigin(next.cors, table, p.api)
	}
	return p, nil
}

// fill sets the parts of p and next, and returns the routes.
func (f *file) fill(p *Proxy, next *onward) routes.Table {
	if !f.authorize && !f.Given("listen") {
		f.Mistake("listen", "required")
	}
	p.listen, p.probe, p.profile = string(f.Listen), string(f.Probe), f.Profile
	p.drain, p.grace = f.times()
	p.fixed = f.checkFixed()
	p.shareRedis(f)
	if f.shared = p.shared; f.rehearsal != nil {
		f.rehearsal.shared = p.shared
		p.disconnect()
		f.shared = nil
	}
	certificate, header, format := f.certificates()
	if f.authorize && f.MTLS != nil { // the gateway reports it, as if the client had connected to the guard
		f.reported, certificate = certificate, middleware.TLSCertificate()
	}
	next.withToken, next.certificate = f.ForwardToken, plain(header)
	next.tokenHeader, next.plainToken, next.cors = http.CanonicalHeaderKey(f.TokenHeader), plain(f.TokenHeader), f.crossOrigins()
	if keys := f.apiKeysSection(); keys != nil && keys.Header != "" {
		next.keyHeader, next.plainKey = http.CanonicalHeaderKey(keys.Header), plain(keys.Header)
	}
	next.proxies, next.maxBody, p.limits = f.proxies(), f.MaxBodyBytes, f.limits()
	p.access = accessLog{log: f.log, mode: f.accessLogMode(), proxies: next.proxies}
	verifiers := list{file: f}
	verifier := verifiers.read()
	if p.receiveSignals(f, verifiers.made); f.rehearsal != nil {
		p.endSignals()
	}
	proofs := f.proofs()
	cfg := middleware.Config{
		Verifier:          verifier,
		MaxTokenBytes:     f.MaxTokenBytes,
		Methods:           f.methods(),
		DPoP:              f.proofVerifier(proofs),
		ClientCertificate: certificate,
		SenderConstrained: f.SenderConstrained,
		Proxies:           next.proxies,
		Resource:          f.metadata(verifiers.issuers),
		Realm:             f.Realm,
		ErrorURI:          f.ErrorURI,
		Cache:             middleware.Cache{Entries: f.Cache.Entries, Bytes: f.Cache.Bytes, MaxAge: time.Duration(f.Cache.MaxAge)},
		Revocations:       middleware.Revocations{Bytes: f.Revocations.Bytes, Keep: time.Duration(f.Revocations.Keep)},

		InsecureReportOnly: f.ReportOnly && f.rehearsal == nil,

		CancelWithToken: !f.authorize && (f.CancelWithToken == nil || *f.CancelWithToken),

		Logger:   f.log,
		Observer: valetkey.JoinObservers(p.observer(f), f.auditor(p)),
		Now:      f.now,
	}
	cfg.Revocations.Source, cfg.Revocations.AllowBeforeCaughtUp = p.watches(f)
	if f.ErrorBody == "problem_json" {
		cfg.ErrorBody = middleware.ProblemJSON
	}
	origin := f.originOfProofs(&cfg)
	f.inherit(&cfg, verifiers.parts)
	if f.rehearsal != nil {
		cfg.Observer, cfg.ErrorBody = f.rehearsal, f.rehearsal.body
	}
	p.tls, p.verifiers, p.made = f.serverTLS(), verifiers.parts, verifiers.made
	var err error
	p.guard, err = middleware.New(cfg)
	names := maps.Clone(guardNames)
	switch {
	case f.TokenHeader != "":
		names["Methods"] = "token_header"
	case verifiers.keys != "":
		names["Methods"] = verifiers.keys
	default:
		names["Methods"] = "websocket_token"
	}
	f.Blame("", err, names)
	if f.Profile == "fapi2" {
		if p.tls != nil {
			fapi.ServerTLS(p.tls)
		}
		if guard := f.fapi2(cfg, proofs, verifiers.made); guard != nil {
			p.guard, p.close = guard.Guard, append(p.close, guard.Close)
		}
	}
	if re := f.rehearsal; re != nil {
		re.origin, re.certificate, re.format, re.made = p.origin(cmp.Or(origin, cfg.Resource.ID)), header, format, verifiers.made
		re.proxies, re.tokenHeader = cfg.Proxies, next.tokenHeader
	}
	if cfg.Resource.ID != "" && p.guard != nil {
		pattern, metadata := p.guard.Metadata()
		path, _ := url.PathUnescape(pattern) // cannot fail: the guard has accepted the URL
		p.own = map[string]http.Handler{path: metadata}
	}
	p.ownSignals()
	table := f.table()
	if !f.authorize {
		next.targets = f.targets(table)
	}
	for _, to := range next.targets {
		p.close = append(p.close, to.transport.CloseIdleConnections)
	}
	for i, pattern := range f.AllowEncodedSlash {
		field := fmt.Sprintf("allow_encoded_slash[%d]", i)
		if _, ok := table[pattern]; pattern == "" || table == nil { // a mistake has been reported
			continue
		} else if !ok {
			f.Mistake(field, "%q is not the pattern of a route", pattern)
		} else if !strings.Contains(pattern, "{") && !strings.HasSuffix(pattern, "/") {
			f.Mistake(field, "%q has no wildcard", pattern)
		}
	}
	return table
}

// origin returns scheme and host of the resource, or of the listener.
func (p *Proxy) origin(resource string) string {
	if u, err := url.Parse(resource); err == nil && u.Host != "" {
		return u.Scheme + "://" + u.Host
	}
	if p.tls != nil {
		return "https://" + p.listen
	}
	return "http://" + p.listen
}

// metadata returns the resource metadata for clients (RFC 9728), or none if the resource is not a URL where clients could fetch it.
func (f *file) metadata(issuers []string) middleware.Resource {
	res := described(f.Resource, issuers)
	m := f.Metadata
	switch {
	case m == nil:
	case res.ID == "":
		f.Mistake("metadata", "requires a resource that is an https URL, or http on loopback")
	default:
		res.Name, res.Documentation, res.Policy, res.TermsOfUse = m.Name, m.Documentation, m.Policy, m.TermsOfUse
		res.Scopes, res.MaxAge = m.Scopes, time.Duration(m.MaxAge)
	}
	return res
}

// described returns the resource metadata for clients (RFC 9728). It returns none if the identifier is not a URL where clients
// could fetch it.
func described(id string, issuers []string) middleware.Resource {
	res := middleware.Resource{ID: id, AuthorizationServers: issuers}
	if _, err := middleware.New(middleware.Config{Verifier: valetkey.First(), Resource: res}); err != nil {
		return middleware.Resource{}
	}
	return res
}
