package conformance

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
)

// A Target is a resource server to test.
type Target struct {
	// URL is the address of a resource that any valid token opens, such as http://127.0.0.1:8080/orders. With Start, only its
	// path counts.
	URL string

	// Audience is the name of the server in the aud of its tokens. Empty: [DefaultAudience].
	Audience string

	// Routes lists further resources by their names, which are those of the features: scope, scopes, acr, max-age, optional, rar.
	Routes map[string]Route

	// Profiles lists what the server claims. Empty: [ProfileBearer].
	Profiles []Profile

	// Features lists what it claims beyond that. The features with a route of the same name need not be listed.
	Features []Feature

	// Start starts a server with the routes of this Target for one configuration of the issuer. Without it, the server must be
	// configured for the issuer at IssuerListen, and cases that need a server with another history are skipped.
	Start func(ctx context.Context, s Setup) (*Server, error)

	// IssuerListen is the address of the issuer, such as 127.0.0.1:9000, if Start is nil. Empty: any port on loopback.
	IssuerListen string
}

// DefaultAudience is the name of a server in the aud of its tokens.
const DefaultAudience = "https://api.example.com"

// A Route is a resource of a server.
type Route struct {
	Path   string
	Scope  string // scopes that a token must have, separated by spaces
	ACR    string // of the feature acr: the required acr
	MaxAge int    // of the feature max-age: the greatest age of the login, in seconds
}

// The names of routes.
const (
	routeAny    = "any"
	routeScope  = string(FeatureScope)
	routeScopes = string(FeatureScopes)
	routeACR    = string(FeatureACR)
	routeMaxAge = string(FeatureMaxAge)
)

// DefaultRoutes returns the routes of the servers that this project tests: one for each feature that needs a route.
func DefaultRoutes() map[string]Route {
	return map[string]Route{
		routeScope:              {Path: "/scope", Scope: "orders:read"},
		routeScopes:             {Path: "/scopes", Scope: "orders:read orders:write"},
		routeACR:                {Path: "/acr", ACR: "phr"},
		routeMaxAge:             {Path: "/max-age", MaxAge: 300},
		string(FeatureOptional): {Path: "/optional"},
		string(FeatureRAR):      {Path: "/rar"}, // authorization details of the type payment with the action initiate
	}
}

// A Setup is what a server has to be configured with.
type Setup struct {
	Issuer        string // the issuer to trust
	JWKSURI       string // its key set
	SecondIssuer  string // another issuer to trust, for the feature second-issuer
	Introspection string // the introspection endpoint
	ClientID      string // with which the server authenticates there, by client_secret_basic
	ClientSecret  string
	Audience      string

	// Listen is the address to listen at, on loopback. A server in the same process may choose another one.
	Listen string

	// Profile is [ProfileMTLS] or [ProfileFAPI2] if the server must be configured for that profile, and otherwise empty.
	Profile Profile

	// Nonce reports whether DPoP proofs must have a nonce of the server.
	Nonce bool

	// Signed reports whether the introspection responses must be signed with ES256 (RFC 9701).
	Signed bool

	// Now is the clock of the issuer, for the feature clock.
	Now func() time.Time
}

// A Server is a running resource server.
type Server struct {
	URL   string // scheme and host
	Close func() // called once, also if the server has ended; nil: nothing to do

	// Done is closed when the server has ended by itself, which fails the case that ended it. Nil: only a refused connection shows that.
	Done <-chan struct{}

	// Err returns why the server ended, after Done is closed. Nil: not known.
	Err func() error
}

// check returns t with its defaults, or every mistake in it.
func (t Target) check() (Target, error) {
	var wrong []error
	note := func(format string, args ...any) { wrong = append(wrong, fmt.Errorf(format, args...)) }
	u, err := url.Parse(t.URL)
	switch {
	case err != nil:
		note("target: not a URL")
	case t.Start == nil && (u.Host == "" || u.Scheme != "http" && u.Scheme != "https"):
		note("target: expected an http or https URL, got %q", t.URL)
	case u.RawQuery != "" || u.Fragment != "":
		note("target: must have neither a query nor a fragment")
	}
	if t.Audience == "" {
		t.Audience = DefaultAudience
	}
	if len(t.Profiles) == 0 {
		t.Profiles = []Profile{ProfileBearer}
	}
	for _, p := range t.Profiles {
		if !slices.Contains(Profiles(), p) {
			note("profile: unknown: %q", p)
		}
	}
	for _, f := range t.Features {
		if !slices.Contains(Features(), f) {
			note("feature: unknown: %q", f)
		}
	}
	for name, r := range t.Routes {
		if !slices.Contains(Features(), Feature(name)) {
			note("route: unknown name %q", name)
		}
		if !strings.HasPrefix(r.Path, "/") {
			note("route %s: the path %q does not begin with /", name, r.Path)
		}
	}
	return t, errors.Join(wrong...)
}

// offers reports whether t claims the feature.
func (t Target) offers(f Feature) bool {
	_, route := t.Routes[string(f)]
	return route || slices.Contains(t.Features, f)
}

// metadataPath returns where the metadata of a resource is (RFC 9728, section 3.1).
func metadataPath(resource string) string {
	u, err := url.Parse(resource)
	if err != nil {
		return "/.well-known/oauth-protected-resource"
	}
	return "/.well-known/oauth-protected-resource" + strings.TrimSuffix(u.EscapedPath(), "/")
}
