package middleware

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/authheader"
	"github.com/valetkey/valetkey/internal/mistakes"
)

// Resource describes the API to clients (RFC 9728). With an ID, every challenge points to [Guard.Metadata]. The zero
// value describes nothing.
type Resource struct {
	// ID is the resource identifier: an https URL without query and fragment, or an http one on loopback. It is never
	// derived from a request, because the client controls the Host header.
	ID string

	// AuthorizationServers lists the issuers whose tokens the API accepts.
	AuthorizationServers []string

	// Scopes is the value of scopes_supported. It need not list all scopes of the API (section 7.5). Nil: the scopes of the
	// requirements that the guard has received, see [Guard.Declare].
	Scopes []string

	Name          string // name to display to people
	Documentation string // URL of the documentation for developers
	Policy        string // URL of the policy on the use of the data
	TermsOfUse    string // URL of the terms of use

	MaxAge time.Duration // how long clients may cache the metadata; zero: 1 h; negative: not at all
}

const wellKnown = "/.well-known/oauth-protected-resource"

// check adds the mistakes in res.
func (res Resource) check(wrong *mistakes.List) {
	if res.isZero() {
		return
	}
	if err := resourceURL(res.ID); err != nil {
		wrong.Add("Resource.ID", "%q %w", res.ID, err) // section 2, resource
	}
	for i, as := range res.AuthorizationServers {
		if as == "" {
			wrong.Add(fmt.Sprintf("Resource.AuthorizationServers[%d]", i), "is empty")
		}
	}
	for _, page := range []struct{ field, url string }{
		{"Documentation", res.Documentation}, {"Policy", res.Policy}, {"TermsOfUse", res.TermsOfUse},
	} {
		if u, err := url.Parse(page.url); err != nil || page.url != "" && u.Host == "" {
			wrong.Add("Resource."+page.field, "%q is not a URL", page.url)
		}
	}
}

func (res Resource) isZero() bool {
	return res.ID == "" && res.AuthorizationServers == nil && res.Scopes == nil && res.Name == "" &&
		res.Documentation == "" && res.Policy == "" && res.TermsOfUse == ""
}

func resourceURL(id string) error {
	u, err := url.Parse(id)
	switch {
	case err != nil || u.Hostname() == "" || u.User != nil || !uriCharacters(id):
		return errors.New("is not a URL with a host")
	case strings.ContainsAny(id, "?#"):
		return errors.New("has a query or a fragment")
	case u.Scheme == "https", u.Scheme == "http" && (u.Hostname() == "localhost" || net.ParseIP(u.Hostname()).IsLoopback()):
		return nil
	default:
		return errors.New("is not https")
	}
}

// metadataURL returns the URL of the metadata (section 3): the well-known path between host and path, without a slash at the end.
// It returns "" if there is no ID.
func (res Resource) metadataURL() string {
	if res.ID == "" {
		return ""
	}
	u, _ := url.Parse(res.ID) // check has parsed it
	return u.Scheme + "://" + u.Host + wellKnown + strings.TrimSuffix(u.EscapedPath(), "/")
}

// Declare registers needs that will be passed to [Guard.Decide], for the scopes_supported and
// authorization_details_types_supported of [Guard.Metadata]. A [valetkey.InsecureReportOnly] among them is logged and counted in
// Status.ReportOnlyRoutes. It is for adapters; Handler, Require and routes.Table call it themselves. It is safe for concurrent use.
func (g *Guard) Declare(needs ...valetkey.Requirement) {
	g.declared.mu.Lock()
	defer g.declared.mu.Unlock()
	d := valetkey.Describe(needs...)
	for _, need := range needs {
		if _, ok := need.(valetkey.InsecureReportOnly); ok {
			g.declared.reportOnly++
			needs := valetkey.Describe(need)
			g.log.Warn("report-only mode of a route: its refusals are reported and not enforced", "scope", needs.Challenge.String(), "rules", strings.Join(needs.Rules, " and "))
		}
	}
	g.declared.scopes = valetkey.NewScopes(slices.Concat(g.declared.scopes.Slice(), d.All.Slice())...)
	g.declared.detailTypes = append(g.declared.detailTypes, d.DetailTypes...)
	slices.Sort(g.declared.detailTypes)
	g.declared.detailTypes = slices.Compact(g.declared.detailTypes)
}

// declared collects the scopes and the types of authorization details of the requirements that a guard has received.
type declared struct {
	mu          sync.Mutex
	scopes      valetkey.Scopes
	detailTypes []string // sorted, each once
	reportOnly  int      // number of requirements whose refusals are not enforced
}

func (d *declared) reportOnlyRoutes() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.reportOnly
}

func (d *declared) all() (scopes valetkey.Scopes, detailTypes []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.scopes, slices.Clone(d.detailTypes)
}

// Metadata returns the handler of the protected resource metadata (RFC 9728), and the pattern under which to register it. The
// pattern is derived from Resource.ID and needs no token:
//
//	mux.Handle(guard.Metadata())
//
// The metadata includes requirements that the guard receives later. Web pages of any origin may read it. Without a Resource, the
// handler responds with 404.
func (g *Guard) Metadata() (pattern string, h http.Handler) {
	if g.resource.ID == "" {
		return wellKnown, http.NotFoundHandler()
	}
	u, _ := url.Parse(g.resource.metadataURL()) // New has checked the ID
	// The pattern has no method, because the handler answers preflights too.
	return u.EscapedPath(), http.HandlerFunc(g.serveMetadata)
}

func (g *Guard) serveMetadata(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Access-Control-Allow-Origin", "*")
	switch r.Method {
	case http.MethodGet, http.MethodHead:
	case http.MethodOptions:
		h.Set("Access-Control-Allow-Methods", "GET, HEAD")
		h.Set("Access-Control-Allow-Headers", cmp.Or(r.Header.Get("Access-Control-Request-Headers"), "*"))
		w.WriteHeader(http.StatusNoContent)
		return
	default:
		h.Set("Allow", "GET, HEAD, OPTIONS")
		http.Error(w, http.StatusText(http.StatusMethodNotAllowed), http.StatusMethodNotAllowed)
		return
	}
	body := g.MetadataJSON()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	if age := cmp.Or(g.resource.MaxAge, time.Hour); age > 0 {
		h.Set("Cache-Control", fmt.Sprintf("public, max-age=%d", int(age.Seconds())))
	}
	w.Write(body)
}

// MetadataJSON returns the protected resource metadata (RFC 9728, section 2) that the handler of [Guard.Metadata] currently
// sends. It is for servers that do not use net/http. Without a Resource, it returns nil.
func (g *Guard) MetadataJSON() []byte {
	if g.resource.ID == "" {
		return nil
	}
	res := g.resource
	var methods []string
	bearer := slices.Contains(g.challenge.schemes, authheader.Bearer)
	if bearer && g.tokenHeader == "" { // section 2 has no name for another header
		methods = append(methods, "header")
	}
	for _, s := range g.alsoFrom {
		if s.method != "" {
			methods = append(methods, s.method)
		}
	}
	declared, detailTypes := g.declared.all()
	scopes := declared.Slice()
	if res.Scopes != nil {
		scopes = res.Scopes
	}
	var algorithms []string
	if g.dpop != nil {
		algorithms = g.dpop.Algorithms()
	}
	// Section 2; members without elements must be left out (section 3.2).
	body, _ := json.Marshal(struct { // strings and booleans always marshal
		Resource      string   `json:"resource"`
		Servers       []string `json:"authorization_servers,omitempty"`
		Scopes        []string `json:"scopes_supported,omitempty"`
		Details       []string `json:"authorization_details_types_supported,omitempty"`
		Methods       []string `json:"bearer_methods_supported,omitempty"`
		Algorithms    []string `json:"dpop_signing_alg_values_supported,omitempty"`
		DPoP          bool     `json:"dpop_bound_access_tokens_required,omitempty"`
		Certificates  bool     `json:"tls_client_certificate_bound_access_tokens,omitempty"`
		Name          string   `json:"resource_name,omitempty"`
		Documentation string   `json:"resource_documentation,omitempty"`
		Policy        string   `json:"resource_policy_uri,omitempty"`
		TermsOfUse    string   `json:"resource_tos_uri,omitempty"`
	}{
		res.ID, res.AuthorizationServers, scopes, detailTypes, methods, algorithms, !bearer, !g.clientCertificate.IsZero(),
		res.Name, res.Documentation, res.Policy, res.TermsOfUse,
	})
	return body
}

func (res Resource) clone() Resource {
	res.AuthorizationServers, res.Scopes = slices.Clone(res.AuthorizationServers), slices.Clone(res.Scopes)
	return res
}
