package proxy

import (
	"slices"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/issuer"
	"github.com/valetkey/valetkey/introspect"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/statuslist"
)

var (
	jwksFields = []string{"issuer", "audience", "url", "file", "profile", "algorithms", "leeway", "max_lifetime", "status_list",
		"insecure_http"}

	introspectionFields = []string{"issuer", "audience", "url", "client_id", "client_secret", "client_secret_file",
		"client_secret_env", "auth", "cache_for", "negative_for", "jwts", "audience_by_issuer", "scope_array", "leeway",
		"insecure_http"}
)

// A list of verifiers in the reading.
type list struct {
	build
	resource  string // the audience of those that name none
	revocable bool   // there is redis, with or without mistakes

	made    []made
	issuers []string        // as far as they are named
	taken   map[string]bool // issuers whose JWTs have a verifier
	opaque  bool            // so have opaque tokens
	close   []func()
}

// A made is a verifier that was read, with what it was made of.
type made struct {
	node
	fields map[string]node
	keys   *jwks.Config       // nil: it asks
	status *statuslist.Config // nil: it has none
	asks   introspect.Config
}

// read combines the verifiers: those with keys first, wherever they stand, since they ask nobody. If there is a mistake,
// what it returns is good for finding others and for nothing else.
func (l *list) read(n node) valetkey.Verifier {
	l.taken = map[string]bool{}
	var (
		local []*jwks.Verifier
		asked []node
		all   []valetkey.Verifier
	)
	for _, item := range n.items() {
		kinds := item.fields("jwks", "introspection")
		if len(kinds) != 1 {
			item.mistake("one of jwks and introspection is required")
		}
		switch keys, listed := l.jwks(item, kinds["jwks"]); {
		case listed != nil:
			all = append(all, listed)
		case keys != nil:
			local = append(local, keys)
		}
		if n := kinds["introspection"]; n.Node != nil {
			asked = append(asked, n)
		}
	}
	if byIssuer, err := jwks.ByIssuer(local...); err == nil { // or there are none, or two of one issuer, which is said
		all = append(all, byIssuer)
	}
	for _, n := range asked {
		if v := l.introspection(n); v != nil {
			all = append(all, v)
		}
	}
	return valetkey.First(all...)
}

// jwks returns the verifier of one issuer, and what it is with its status list, if it has one.
func (l *list) jwks(item, n node) (keys *jwks.Verifier, listed *statuslist.Verifier) {
	if n.Node == nil {
		return nil, nil
	}
	f := n.fields(jwksFields...)
	cfg, mistakes := issuer.Settings{
		Issuer:       f["issuer"].given(),
		Audience:     l.audience(f["audience"]),
		URL:          f["url"].given(),
		File:         f["file"].file(),
		Profile:      f["profile"].given(),
		Algorithms:   f["algorithms"].texts(),
		Leeway:       f["leeway"].duration(),
		MaxLifetime:  f["max_lifetime"].positive(),
		InsecureHTTP: f["insecure_http"].flag(),
		Logger:       l.log,
		Now:          l.now,
	}.Config()
	keys, mistakes = issuer.Verifier(cfg, mistakes)
	n.blame(f, mistakes)
	status := f["status_list"].statusList()
	l.made = append(l.made, made{node: n, fields: f, keys: &cfg, status: status})
	var by valetkey.Verifier = valetkey.First() // stands in where there are mistakes, so that the list can be looked at
	if keys != nil {
		by = keys
		l.close = append(l.close, keys.Close)
		if l.taken[keys.Issuer()] {
			item.mistake("another verifier is for the issuer %q already", keys.Issuer())
		}
		l.taken[keys.Issuer()] = true
		l.issuers = append(l.issuers, keys.Issuer())
	}
	if status == nil {
		return keys, nil
	}
	if listed = f["status_list"].listed(*status, by, cfg); listed != nil {
		l.close = append(l.close, listed.Close)
	}
	return keys, listed
}

// names are what a file calls the fields of introspect.Config.
var names = map[string]string{
	"URL":         "url",
	"Issuer":      "issuer",
	"Audience":    "audience",
	"JWTs":        "jwts",
	"NegativeFor": "negative_for",
	"Leeway":      "leeway",
}

func (l *list) introspection(n node) *introspect.Verifier {
	f := n.fields(introspectionFields...)
	cfg := introspect.Config{
		URL:              f["url"].given(),
		Issuer:           f["issuer"].given(),
		Audience:         l.audience(f["audience"]),
		AudienceByIssuer: f["audience_by_issuer"].flag(),
		Auth:             n.auth(f),
		JWTs:             f["jwts"].texts(),
		ScopeArray:       f["scope_array"].flag(),
		CacheFor:         f["cache_for"].duration(),
		NegativeFor:      f["negative_for"].duration(),
		Leeway:           f["leeway"].duration(),
		InsecureHTTP:     f["insecure_http"].flag(),
		Logger:           l.log,
		Now:              l.now,
	}
	if l.shared != nil {
		cfg.Shared = l.shared
	}
	if cfg.Issuer == "" && cfg.URL != "" && l.revocable {
		n.mistake("issuer: required with redis, since a revocation names it")
	}
	for _, iss := range cfg.JWTs {
		if l.taken[iss] || l.taken[introspect.AnyIssuer] {
			f["jwts"].mistake("another verifier is for the JWTs of %q already", iss)
		}
		l.taken[iss] = true
	}
	// What the first one says of an opaque token is final.
	if l.opaque && f["jwts"].Node == nil {
		n.mistake("jwts: required, since the introspection before is for opaque tokens already")
	}
	l.opaque = true
	l.made = append(l.made, made{node: n, fields: f, asks: cfg})

	v, err := introspect.New(cfg)
	n.blame(f, issuer.Mistakes(err, names))
	if err != nil {
		return nil
	}
	l.close = append(l.close, v.Close)
	if cfg.Issuer != "" && !slices.Contains(l.issuers, cfg.Issuer) {
		l.issuers = append(l.issuers, cfg.Issuer)
	}
	return v
}

func (l *list) audience(n node) []string {
	if n.Node == nil && l.resource != "" {
		return []string{l.resource}
	}
	return n.texts()
}

// auth returns none if there is a mistake, so that the rest can be looked at.
func (n node) auth(f map[string]node) introspect.Auth {
	n.require(f, "client_id")
	id := f["client_id"].given()
	password, from := secret(f, "client_secret")
	if from.Node == nil {
		n.mistake("client_secret_file: required, or client_secret_env or client_secret")
	}
	auth := introspect.BasicAuth
	switch way := f["auth"].given(); way {
	case "", "basic":
	case "post":
		auth = introspect.PostAuth
	default:
		f["auth"].mistake("%q is neither basic nor post", way)
	}
	if id == "" || password == "" {
		return introspect.NoAuth()
	}
	return auth(id, password)
}

// blame writes the mistakes down where their fields stand, or at n.
func (n node) blame(f map[string]node, mistakes []issuer.Mistake) {
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
}
