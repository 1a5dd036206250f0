package proxy

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/issuer"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/scopes"
)

// Load makes a proxy from a YAML file. It reads the file, and those it names, whose paths are relative to its own folder;
// it does no other I/O. The error names every mistake with its line.
func Load(file string, log *slog.Logger) (*Proxy, error) {
	doc, root, err := open(file)
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	top := root.fields("listen", "upstream", "resource", "realm", "forward_token", "verifiers", "routes")
	root.require(top, "listen", "upstream", "verifiers", "routes")

	p := &Proxy{
		listen: top["listen"].address(),
		onward: onward{to: top["upstream"].upstream(), withToken: top["forward_token"].flag(), log: log},
	}
	verifier := p.readVerifiers(top["verifiers"], top["resource"].given(), log)
	guard, err := middleware.New(middleware.Config{Verifier: verifier, Realm: top["realm"].text(), Logger: log})
	if err != nil { // the realm is all that can be wrong
		top["realm"].mistake("%s", strings.TrimPrefix(err.Error(), "middleware: Realm: "))
	}
	routes := top["routes"].routes()
	if err := doc.err(); err != nil {
		p.Close()
		return nil, err
	}
	p.mux = muxOf(routes, guard, p.onward.handler())
	return p, nil
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

// readVerifiers combines the verifiers of a list. It never returns nil: with mistakes, its verifier refuses everything.
func (p *Proxy) readVerifiers(n node, resource string, log *slog.Logger) valetkey.Verifier {
	seen := map[string]bool{}
	for _, item := range n.items() {
		kinds := item.fields("jwks")
		item.require(kinds, "jwks")
		v := kinds["jwks"].jwks(resource, log)
		if v == nil {
			continue
		}
		if seen[v.Issuer()] {
			item.mistake("another verifier is for the issuer %q already", v.Issuer())
		}
		seen[v.Issuer()] = true
		p.verifiers = append(p.verifiers, v)
	}
	combined, err := jwks.ByIssuer(p.verifiers...)
	if err != nil {
		return valetkey.First()
	}
	return combined
}

func (n node) jwks(resource string, log *slog.Logger) *jwks.Verifier {
	if n.Node == nil {
		return nil
	}
	f := n.fields("issuer", "audience", "url", "file", "profile", "algorithms", "leeway", "insecure_http")
	s := issuer.Settings{
		Issuer:       f["issuer"].given(),
		Audience:     f["audience"].texts(),
		URL:          f["url"].given(),
		File:         f["file"].given(),
		Profile:      f["profile"].given(),
		Algorithms:   f["algorithms"].texts(),
		InsecureHTTP: f["insecure_http"].flag(),
		Logger:       log,
	}
	if f["audience"].Node == nil && resource != "" {
		s.Audience = []string{resource}
	}
	if s.File != "" && !filepath.IsAbs(s.File) {
		s.File = filepath.Join(filepath.Dir(n.doc.file), s.File)
	}
	if leeway, given := f["leeway"].duration(); given {
		s.Leeway = leeway
		if leeway == 0 {
			s.Leeway = -1 // none; zero is the default
		}
	}
	v, mistakes := s.Verifier()
	for _, m := range mistakes {
		switch value, there := f[m.Field]; {
		case there:
			value.mistake("%v", m.Err)
		case m.Field != "":
			n.mistake("%s: %v", m.Field, m.Err)
		default:
			n.mistake("%v", m.Err)
		}
	}
	return v
}

// A route is what a pattern of net/http needs.
type route struct {
	pattern string
	public  bool
	needs   []valetkey.Requirement // none: any good token
}

// routes reads the table and makes sure that its patterns can stand together.
func (n node) routes() []route {
	var table []route
	trial := http.NewServeMux()
	members := n.members()
	if n.Node != nil && len(n.Content) == 0 {
		n.mistake("is empty: every request would be refused")
	}
	for _, m := range members {
		r := route{pattern: m.key.Value}
		switch expr := m.value.text(); {
		case expr == "@public":
			r.public = true
		case expr == "@any":
		case strings.HasPrefix(expr, "@"):
			m.value.mistake("%q is neither @public nor @any", expr)
		case m.value.isText():
			need, err := scopes.Parse(expr)
			if err != nil {
				m.value.mistake("%s", strings.TrimPrefix(err.Error(), "scopes: "))
			}
			r.needs = append(r.needs, need)
		}
		if err := register(trial, r.pattern, http.NotFoundHandler()); err != nil {
			m.value.Line = m.key.Line
			m.value.mistake("%v", err)
		}
		table = append(table, r)
	}
	return table
}

// muxOf serves a table that n.routes has returned without a mistake.
func muxOf(table []route, guard *middleware.Guard, next http.Handler) *http.ServeMux {
	mux := http.NewServeMux()
	for _, r := range table {
		h := next
		if !r.public {
			h = guard.Handler(next, append(r.needs, fitsHeader{})...)
		}
		mux.Handle(r.pattern, h)
	}
	// What no route matches is refused, as if it needed a scope that nobody has, and goes nowhere. The table may have a
	// pattern for everything itself, with which this one conflicts.
	register(mux, "/", guard.Handler(http.NotFoundHandler(), scopes.Requirement{}))
	return mux
}

// whereRegistered is what net/http says for those who write patterns in Go.
var whereRegistered = regexp.MustCompile(` \(registered at [^)]*\)`)

// register returns as an error what net/http panics with.
func register(mux *http.ServeMux, pattern string, h http.Handler) (err error) {
	defer func() {
		if v := recover(); v != nil {
			text := whereRegistered.ReplaceAllString(fmt.Sprint(v), "")
			err = errors.New(strings.ReplaceAll(text, "\n", " "))
		}
	}()
	mux.Handle(pattern, h)
	return nil
}
