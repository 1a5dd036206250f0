package proxy

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/scopes"
)

// topFields are those of a configuration.
var topFields = []string{"listen", "upstream", "resource", "realm", "forward_token", "probe", "verifiers", "redis", "routes"}

// Load makes a proxy from a YAML file. It reads the file, and those it names, whose paths are relative to its own folder;
// it does no other I/O. The error names every mistake with its line.
func Load(file string, log *slog.Logger) (*Proxy, error) {
	doc, root, err := open(file)
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	top := root.fields(topFields...)
	root.require(top, "listen", "upstream", "verifiers", "routes")

	p := &Proxy{
		listen: top["listen"].address(),
		probe:  top["probe"].address(),
		onward: onward{to: top["upstream"].upstream(), withToken: top["forward_token"].flag(), log: log},
		shared: top["redis"].redis(0, log),
		log:    log,
	}
	verifiers := list{resource: top["resource"].given(), revocable: top["redis"].Node != nil, shared: p.shared, log: log}
	verifier := verifiers.read(top["verifiers"])
	p.close = verifiers.close
	p.guard, err = middleware.New(middleware.Config{Verifier: verifier, Realm: top["realm"].text(), Logger: log})
	if err != nil { // the realm is all that can be wrong
		top["realm"].mistake("%s", strings.TrimPrefix(err.Error(), "middleware: Realm: "))
	}
	routes := top["routes"].routes()
	if err := doc.err(); err != nil {
		p.Close()
		return nil, err
	}
	p.mux = muxOf(routes, p.guard, p.onward.handler())
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
