package proxy

import (
	"cmp"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/issuer"
	"github.com/valetkey/valetkey/fapi"
	"github.com/valetkey/valetkey/middleware"
)

// topFields are those of a configuration.
var topFields = []string{"listen", "tls", "upstream", "resource", "realm", "forward_token", "probe", "verifiers", "dpop", "mtls",
	"sender_constrained", "trusted_proxies", "forwarded_header", "cancel_with_token", "profile", "redis", "routes", "openapi"}

// Load makes a proxy from a YAML file. It reads the file, and those it names, whose paths are relative to its own folder;
// it does no other I/O. The error names every mistake with its line.
func Load(file string, log *slog.Logger) (*Proxy, error) { return load(file, build{log: log}) }

// A build is what goes into a proxy beside its file.
type build struct {
	log       *slog.Logger
	now       func() time.Time // nil: time.Now
	shared    *shared          // nil: nothing is
	rehearsal *rehearsal       // nil: it is for real
}

// guardNames are what a file calls the fields of middleware.Config.
var guardNames = map[string]string{
	"Realm": "realm", "SenderConstrained": "sender_constrained", "ClientCertificate": "mtls",
	"Proxies.Trusted": "trusted_proxies", "Proxies.Forwarded": "forwarded_header",
}

func load(file string, b build) (*Proxy, error) {
	doc, root, err := open(file)
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	top := root.fields(topFields...)
	root.require(top, "listen", "upstream", "verifiers")

	p := &Proxy{
		listen: top["listen"].address(),
		probe:  top["probe"].address(),
		shared: top["redis"].redis(0, b.log),
		log:    b.log,
	}
	if b.shared = p.shared; b.rehearsal != nil {
		p.disconnect()
		b.shared = nil
	}
	certificate, header := top["mtls"].mtls(top["tls"].Node != nil)
	next := onward{to: top["upstream"].upstream(), withToken: top["forward_token"].flag(), certificate: plain(header), log: b.log}
	resource := top["resource"].given()
	redis := top["redis"].Node != nil
	verifiers := list{build: b, resource: resource, revocable: redis}
	verifier := verifiers.read(top["verifiers"])
	proofs, originOfProofs := top["dpop"].dpop(redis, b)
	cfg := middleware.Config{
		Verifier:          verifier,
		DPoP:              top["dpop"].proofs(proofs),
		ClientCertificate: certificate,
		SenderConstrained: top["sender_constrained"].flag(),
		Proxies: middleware.Proxies{
			Trusted:   top["trusted_proxies"].proxies(),
			Forwarded: middleware.Forwarding(top["forwarded_header"].given()),
		},
		Resource: described(resource, verifiers.issuers),
		Realm:    top["realm"].text(),

		CancelWithToken: top["cancel_with_token"].Node == nil || top["cancel_with_token"].flag(),

		Logger: b.log,
		Now:    b.now,
	}
	if b.shared != nil {
		cfg.Revocations = middleware.Revocations{Source: b.shared.Redis, AllowBeforeCaughtUp: b.shared.allow}
	}
	origin := top["dpop"].origin(originOfProofs, &cfg)
	if b.rehearsal != nil {
		cfg.Observer, cfg.Body = b.rehearsal, b.rehearsal.body
	}
	p.tls = top["tls"].tls()
	if p.tls != nil && top["mtls"].Node != nil {
		p.tls.ClientAuth = tls.RequestClientCert // RFC 8705, section 6.2: who signed it does not matter
	}
	p.close = verifiers.close
	p.guard, err = middleware.New(cfg)
	root.blame(top, issuer.Mistakes(err, guardNames))
	if top["profile"].oneOf("fapi2") != "" {
		if p.tls != nil {
			fapi.ServerTLS(p.tls)
		}
		if guard := root.fapi2(top, cfg, proofs, verifiers.made); guard != nil {
			p.guard, p.close = guard.Guard, append(p.close, guard.Close)
		}
	}
	table := root.table(top)
	if err := doc.err(); err != nil {
		p.Close()
		return nil, err
	}
	next.guard = p.guard
	forward := next.handler()
	if re := b.rehearsal; re != nil {
		re.origin, re.certificate, re.made = p.origin(cmp.Or(origin, cfg.Resource.ID)), header, verifiers.made
		re.proxies = cfg.Proxies
		forward, table = re, re.table(table)
	}
	if p.api, err = table.Guard(p.guard, namable(p.guard, forward)); err != nil {
		p.Close()
		return nil, fmt.Errorf("guard the routes: %w", err)
	}
	if cfg.Resource.ID != "" {
		pattern, metadata := p.guard.Metadata()
		path, _ := url.PathUnescape(pattern) // of a URL that the guard has accepted
		p.own = map[string]http.Handler{path: metadata}
	}
	return p, nil
}

// origin returns scheme and host of what clients call the API, or of the listener.
func (p *Proxy) origin(resource string) string {
	if u, err := url.Parse(resource); err == nil && u.Host != "" {
		return u.Scheme + "://" + u.Host
	}
	if p.tls != nil {
		return "https://" + p.listen
	}
	return "http://" + p.listen
}

// described is what clients are told of the API (RFC 9728): nothing if its identifier is no URL at which they could ask.
func described(id string, issuers []string) middleware.Resource {
	res := middleware.Resource{ID: id, AuthorizationServers: issuers}
	if _, err := middleware.New(middleware.Config{Verifier: valetkey.First(), Resource: res}); err != nil {
		return middleware.Resource{}
	}
	return res
}

func (n node) address() string {
	addr := n.given()
	if _, _, err := net.SplitHostPort(addr); err != nil && addr != "" {
		n.mistake("%q is not an address such as 127.0.0.1:8080", addr)
	}
	return addr
}

func (n node) upstream() *url.URL {
	text := n.given()
	if text == "" {
		return nil
	}
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		n.mistake("is not an http or https URL") // and may hold a password
	case u.User != nil || strings.ContainsAny(text, "?#"):
		n.mistake("has a user, a query or a fragment")
	case u.Port() != "":
		if _, err := strconv.ParseUint(u.Port(), 10, 16); err != nil { // of digits, url.Parse has seen to
			n.mistake("has a port above 65535")
		}
	}
	return u
}
