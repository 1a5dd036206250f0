package proxy

import (
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/middleware"
)

// topFields are those of a configuration.
var topFields = []string{"listen", "upstream", "resource", "realm", "forward_token", "probe", "verifiers", "redis", "routes",
	"openapi"}

// Load makes a proxy from a YAML file. It reads the file, and those it names, whose paths are relative to its own folder;
// it does no other I/O. The error names every mistake with its line.
func Load(file string, log *slog.Logger) (*Proxy, error) {
	doc, root, err := open(file)
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	top := root.fields(topFields...)
	root.require(top, "listen", "upstream", "verifiers")

	p := &Proxy{
		listen: top["listen"].address(),
		probe:  top["probe"].address(),
		shared: top["redis"].redis(0, log),
		log:    log,
	}
	next := onward{to: top["upstream"].upstream(), withToken: top["forward_token"].flag(), log: log}
	resource := top["resource"].given()
	verifiers := list{resource: resource, revocable: top["redis"].Node != nil, shared: p.shared, log: log}
	verifier := verifiers.read(top["verifiers"])
	p.close = verifiers.close
	res := described(resource, verifiers.issuers)
	p.guard, err = middleware.New(middleware.Config{Verifier: verifier, Resource: res, Realm: top["realm"].text(), Logger: log})
	if err != nil { // the realm is all that can be wrong
		top["realm"].mistake("%s", strings.TrimPrefix(err.Error(), "middleware: Realm: "))
	}
	routes := root.table(top)
	if err := doc.err(); err != nil {
		p.Close()
		return nil, err
	}
	if p.api, err = p.guard.Table(routes, namable(p.guard, next.handler())); err != nil {
		p.Close()
		return nil, fmt.Errorf("guard the routes: %w", err)
	}
	if res.ID != "" {
		pattern, metadata := p.guard.Metadata()
		path, _ := url.PathUnescape(pattern) // of a URL that the guard has accepted
		p.own = map[string]http.Handler{path: metadata}
	}
	return p, nil
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
	}
	return u
}
