// Package broken is a resource server that can be broken on purpose: one flag for each fault. Without a flag it is correct. It proves the
// cases of package conformance, and must not guard anything.
//
// It shares no code with the guard of this module, since a suite that was tested only on that guard would test its habits.
package broken

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"mime"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/valetkey/valetkey/conformance"
)

// Start starts a server with the routes of [conformance.DefaultRoutes] on loopback, with the named faults of [Faults]. An unknown fault is an
// error.
func Start(setup conformance.Setup, faults ...string) (*conformance.Server, error) {
	s := &server{setup: setup, faults: map[string]bool{}, routes: conformance.DefaultRoutes(), sets: map[string]*keySet{},
		tokens: map[string]*claimSet{}, refused: map[string]bool{}, asked: map[string]chan struct{}{}, proofs: map[string]bool{},
		possessed: map[string]bool{}, nonce: rand.Text()}
	s.routes["any"] = conformance.Route{Path: "/any"}
	for _, name := range faults {
		if !slices.ContainsFunc(Faults(), func(f Fault) bool { return f.Name == name }) {
			return nil, fmt.Errorf("unknown fault %q", name)
		}
		s.faults[name] = true
	}
	if s.setup.Now == nil {
		s.setup.Now = time.Now
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s.origin = "http://" + listener.Addr().String()
	if s.is("lenient-http") || s.is("answers-anything-with-200") {
		listener = rewritingListener{listener, s.is("answers-anything-with-200")}
	}
	if setup.Profile == conformance.ProfileMTLS {
		s.origin = "https" + strings.TrimPrefix(s.origin, "http")
		if listener, err = secured(listener); err != nil {
			return nil, err
		}
	}
	web := &http.Server{Handler: s, ReadHeaderTimeout: 10 * time.Second, ErrorLog: log.New(io.Discard, "", 0)}
	go web.Serve(listener)
	return &conformance.Server{URL: s.origin, Close: func() { web.Close() }}, nil
}

type server struct {
	setup  conformance.Setup
	faults map[string]bool
	routes map[string]conformance.Route
	origin string

	mu        sync.Mutex               // guards what follows
	sets      map[string]*keySet       // by issuer
	tokens    map[string]*claimSet     // verified, by text; like the maps below, as many as a run of the suite makes
	refused   map[string]bool          // tokens, because of a fault
	asked     map[string]chan struct{} // tokens that are being introspected
	proofs    map[string]bool          // used jti
	possessed map[string]bool          // tokens that came with a good proof, for a fault
	nonce     string                   // the only one
}

// is reports whether the server has the fault.
func (s *server) is(fault string) bool { return s.faults[fault] }

// A refusal is the response to a request that is not accepted.
type refusal struct {
	status      int
	code        string
	description string
	params      []string // further parameters of the challenge, as name="value"
	retryAfter  string
	nonce       bool
}

func (e *refusal) Error() string { return e.code + ": " + e.description }

func invalidToken(format string, args ...any) *refusal {
	return &refusal{status: 401, code: "invalid_token", description: fmt.Sprintf(format, args...)}
}

var (
	noCredentials  = &refusal{status: 401}
	unavailable    = &refusal{status: 503, retryAfter: "1"}
	invalidRequest = &refusal{status: 400, code: "invalid_request", description: "the credentials are malformed"}
)

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.is("refuses-everything") {
		w.WriteHeader(http.StatusTeapot)
		return
	}
	if s.is("fails-for-everything") {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	if s.serveMetadata(w, r) {
		return
	}
	if r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	if r.Method == http.MethodTrace && s.is("trace-returns-the-request") {
		r.Write(w)
		return
	}
	name, ok := s.route(r)
	if !ok {
		http.NotFound(w, r)
		return
	}
	if s.exempt(r) {
		s.handle(w, nil)
		return
	}
	scheme, claims, err := s.authenticate(w, r)
	if err == noCredentials && name == "optional" || err != nil && name == "optional" && s.is("bad-token-becomes-anonymous") {
		s.handle(w, nil)
		return
	}
	if err == nil {
		err = s.authorize(r, name, claims)
	} else if err != noCredentials && s.routes[name].ACR != "" && s.is("acr-before-validity") {
		err = s.stepUp(fmt.Sprintf("acr_values=%q", s.routes[name].ACR))
	}
	if err != nil {
		s.refuse(w, r, name, scheme, err)
		return
	}
	s.handle(w, claims)
}

// exempt reports whether a fault lets a request pass without a token.
func (s *server) exempt(r *http.Request) bool {
	for fault, methods := range map[string][]string{
		"head-is-open": {"HEAD"}, "options-is-open": {"OPTIONS"}, "post-is-open": {"POST"}, "writes-are-open": {"PUT", "DELETE", "PATCH"},
		"unknown-methods-are-open": {"FOO", "get", "TRACE"}, "upgrade-is-open": {}, "http10-is-open": {}, "expect-is-open": {},
	} {
		if !s.is(fault) {
			continue
		}
		if slices.Contains(methods, r.Method) || fault == "upgrade-is-open" && r.Header.Get("Upgrade") != "" ||
			fault == "http10-is-open" && r.ProtoMinor == 0 || fault == "expect-is-open" && r.Header.Get("Expect") != "" {
			return true
		}
	}
	if s.is("identity-headers-are-believed") {
		for name := range r.Header {
			if !slices.Contains([]string{"Authorization", "Dpop", "Connection", "Content-Length", "Content-Type", "Cookie", "Origin", "Accept",
				"Accept-Language", "Transfer-Encoding", "Trailer", "Expect", "Upgrade", "Sec-Websocket-Key", "Sec-Websocket-Version"}, name) &&
				r.Header.Get("Authorization") == "" {
				return true
			}
		}
	}
	if s.is("session-replaces-token") && r.Header.Get("Mcp-Session-Id") != "" {
		return true
	}
	return s.is("certificate-replaces-token") && r.TLS != nil && len(r.TLS.PeerCertificates) > 0 && r.Header.Get("Authorization") == ""
}

// route returns the name of the route that a request matches.
func (s *server) route(r *http.Request) (string, bool) {
	path := r.URL.EscapedPath()
	if s.is("paths-are-open") && path != s.routes["scope"].Path && !slices.ContainsFunc(s.names(), func(n string) bool { return s.routes[n].Path == path }) {
		return "any", true
	}
	for _, header := range []string{"X-Original-Url", "X-Rewrite-Url", "X-Forwarded-Uri", "X-Forwarded-Path", "X-Forwarded-Prefix"} {
		if value := r.Header.Get(header); value != "" && s.is("path-from-headers") {
			path = value
		}
	}
	if s.is("method-from-headers") && r.Header.Get("X-Http-Method-Override")+r.Header.Get("X-Forwarded-Method") != "" {
		return "any", true
	}
	if s.is("query-opens-routes") && r.URL.RawQuery+r.RequestURI[len(r.RequestURI)-1:] != "" && strings.Contains(r.RequestURI, "?") {
		return "any", true
	}
	if s.is("absolute-form-is-open") && !strings.HasPrefix(r.RequestURI, "/") {
		return "any", true
	}
	if s.is("encoded-path-is-open") && r.URL.Path != path && strings.HasPrefix(r.URL.Path, "/") {
		return "any", true
	}
	for name, route := range s.routes {
		if r.URL.Path == route.Path && path == route.Path {
			return name, true
		}
	}
	if decoded, err := url.PathUnescape(path); err == nil {
		for name, route := range s.routes {
			if decoded == route.Path {
				return name, true
			}
		}
	}
	return "", false
}

func (s *server) names() []string {
	var all []string
	for name := range s.routes {
		all = append(all, name)
	}
	return all
}

// handle is the handler behind the check.
func (s *server) handle(w http.ResponseWriter, c *claimSet) {
	caller := map[string]any{}
	if c != nil {
		caller["sub"], caller["client_id"], caller["scope"] = c.text("sub"), c.text("client_id"), c.text("scope")
		if s.is("identity-is-shared") {
			s.mu.Lock()
			for _, other := range s.tokens {
				caller["sub"] = other.text("sub") // that of any caller
			}
			s.mu.Unlock()
		}
		if s.is("identity-is-lost") {
			caller = map[string]any{}
		}
	} else if s.is("identity-of-nobody") {
		caller["sub"] = "anonymous"
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(caller)
}

// authenticate returns the scheme and the claims of the request's token.
func (s *server) authenticate(w http.ResponseWriter, r *http.Request) (scheme string, c *claimSet, err error) {
	scheme, token, err := s.credentials(r)
	if err != nil {
		return scheme, nil, err
	}
	if c, err = s.verify(token); err != nil {
		return scheme, nil, err
	}
	if err = s.bound(w, r, scheme, token, c); err != nil {
		return scheme, nil, err
	}
	return scheme, c, nil
}

// credentials returns the scheme and the token of a request.
func (s *server) credentials(r *http.Request) (scheme, token string, err error) {
	lines := r.Header.Values("Authorization")
	if len(lines) == 0 {
		if token := s.misplaced(r); token != "" {
			if r.Header.Get("DPoP") != "" {
				return "DPoP", token, nil
			}
			return "Bearer", token, nil
		}
		return "Bearer", "", noCredentials
	}
	if r.URL.Query().Has("access_token") && !s.is("two-places-are-accepted") {
		return "Bearer", "", invalidRequest
	}
	value := lines[0]
	if len(lines) > 1 {
		switch {
		case s.is("first-line-wins"):
		case s.is("last-line-wins"):
			value = lines[len(lines)-1]
		case s.is("bearer-line-wins"):
			for _, line := range lines {
				if strings.HasPrefix(line, "Bearer ") {
					value = line
				}
			}
		default:
			return "Bearer", "", invalidRequest
		}
	}
	scheme, token, found := strings.Cut(value, " ")
	if s.is("scheme-by-prefix") && len(value) > 6 && strings.EqualFold(value[:6], "bearer") {
		scheme, token, found = "Bearer", strings.TrimLeft(value[6:], "X: \t"), true
	}
	if s.is("any-scheme") {
		parts := strings.FieldsFunc(value, func(c rune) bool { return c == ' ' || c == '\t' })
		scheme, token, found = "Bearer", parts[len(parts)-1], true
	}
	if s.is("lenient-credentials") {
		scheme = "Bearer"
		token = strings.Trim(strings.TrimPrefix(token, "token="), `"<>`)
		token, _, _ = strings.Cut(token, ",")
		token, _, _ = strings.Cut(token, " ")
	}
	bearer, dpop := strings.EqualFold(scheme, "Bearer"), strings.EqualFold(scheme, "DPoP")
	if s.is("scheme-in-one-case") {
		bearer, dpop = scheme == "Bearer", scheme == "DPoP"
	}
	if !bearer && !dpop {
		return "Bearer", "", noCredentialsFor(s)
	}
	if !s.is("one-space-only") {
		token = strings.TrimLeft(token, " ")
	}
	scheme = map[bool]string{true: "Bearer", false: "DPoP"}[bearer]
	switch {
	case !found || token == "":
		if s.is("empty-token-causes-500") {
			return scheme, "", &refusal{status: 500}
		}
		if s.is("empty-token-is-unauthorized") {
			return scheme, "", noCredentials
		}
		return scheme, "", invalidRequest
	case !isToken68(token) && !s.is("any-characters") && !s.is("lenient-base64") && !s.is("serializations-are-accepted"):
		if scheme == "DPoP" && s.is("malformed-dpop-token-causes-500") {
			return scheme, "", &refusal{status: 500}
		}
		return scheme, "", invalidRequest
	}
	return scheme, token, nil
}

func noCredentialsFor(s *server) error {
	if s.is("other-scheme-gets-an-error") {
		return invalidToken("the scheme is unknown")
	}
	return noCredentials
}

// misplaced returns a token from where none belongs.
func (s *server) misplaced(r *http.Request) string {
	query := r.URL.Query()
	if s.is("token-in-query") && query.Get("access_token") != "" {
		return query.Get("access_token")
	}
	if s.is("token-in-any-parameter") {
		for _, values := range query {
			return values[0]
		}
	}
	if s.is("token-in-any-header") {
		for name, values := range r.Header {
			if name == "Dpop" {
				continue
			}
			for _, word := range strings.FieldsFunc(values[0], func(c rune) bool { return strings.ContainsRune(" =;,", c) }) {
				if strings.Count(word, ".") == 2 && len(word) > 100 {
					return word
				}
			}
		}
	}
	kind, params, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	switch {
	case kind == "application/x-www-form-urlencoded" && s.is("token-in-form"), kind == "application/x-www-form-urlencoded" && r.Method == "GET" && s.is("token-in-body-of-get"):
		body, _ := io.ReadAll(r.Body)
		form, _ := url.ParseQuery(string(body))
		return form.Get("access_token")
	case kind == "multipart/form-data" && s.is("token-in-any-body") && params != nil:
		return r.FormValue("access_token")
	case kind == "application/json" && s.is("token-in-any-body"):
		var body struct {
			Token string `json:"access_token"`
		}
		json.NewDecoder(r.Body).Decode(&body)
		return body.Token
	}
	if s.is("token-in-trailer") {
		io.Copy(io.Discard, r.Body)
		return strings.TrimPrefix(r.Trailer.Get("Authorization"), "Bearer ")
	}
	return ""
}

// isToken68 reports whether s is a b64token of RFC 6750, section 2.1.
func isToken68(s string) bool {
	trimmed := strings.TrimRight(s, "=")
	if trimmed == "" {
		return false
	}
	for _, c := range []byte(trimmed) {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-._~+/", c) >= 0) {
			return false
		}
	}
	return true
}

// authorize checks what the route requires.
func (s *server) authorize(r *http.Request, name string, c *claimSet) error {
	route := s.routes[name]
	if route.Scope != "" && !s.scopesSuffice(c, route.Scope) && !(s.is("scope-for-get-only") && r.Method != http.MethodGet) {
		e := &refusal{status: 403, code: "insufficient_scope", description: "the token lacks a scope"}
		switch {
		case s.is("scope-gets-401"):
			e.status, e.code = 401, "invalid_token"
		case s.is("scope-without-error"):
			e.code = "forbidden"
		}
		named := route.Scope
		if s.is("one-scope-at-a-time") {
			for _, one := range strings.Fields(route.Scope) {
				if !s.scopesSuffice(c, one) {
					named = one
				}
			}
		}
		if s.is("offline-access-everywhere") {
			named += " offline_access"
		}
		if s.is("scopes-change-each-time") {
			named += " s" + strings.ToLower(rand.Text()[:4])
		}
		if !s.is("scope-is-not-named") {
			e.params = append(e.params, fmt.Sprintf("scope=%q", named))
		}
		return e
	}
	if acr := c.text("acr"); route.ACR != "" && (acr != route.ACR || s.is("acr-is-never-enough")) && !s.is("acr-is-ignored") &&
		!(s.is("acr-is-compared-loosely") && (acr == "" || strings.Contains(strings.ToLower(acr), route.ACR) || c.number("acr") > 0)) {
		e := s.stepUp(fmt.Sprintf("acr_values=%q", route.ACR))
		if s.is("acr-is-not-named") {
			e.params = []string{`acr_values="unknown"`}
		}
		return e
	}
	if route.MaxAge > 0 && !s.is("max-age-is-ignored") {
		if s.is("login-is-never-recent") {
			return s.stepUp(fmt.Sprintf("max_age=%q", strconv.Itoa(route.MaxAge)))
		}
		at, ok := c.values["auth_time"].(json.Number)
		since, err := at.Float64()
		now := s.seconds()
		if !ok && s.is("iat-replaces-auth-time") {
			since, ok, err = c.number("iat"), true, nil
		}
		future := since > now+60 && !s.is("future-login-is-recent")
		if !ok || err != nil || future || now-since > float64(route.MaxAge) {
			age := strconv.Itoa(route.MaxAge)
			if s.is("max-age-is-not-named") {
				age = "0"
			}
			return s.stepUp(fmt.Sprintf("max_age=%q", age))
		}
	}
	if name == "rar" && !s.paymentAllowed(c.values["authorization_details"]) {
		status := 403
		if s.is("details-get-401") {
			status = 401
		}
		return &refusal{status: status, code: "insufficient_scope", description: "the token lacks a detail"}
	}
	return nil
}

func (s *server) stepUp(param string) *refusal {
	e := &refusal{status: 401, code: "insufficient_user_authentication", description: "log in again", params: []string{param}}
	if s.is("step-up-gets-403") {
		e.status, e.code = 403, "insufficient_scope"
	}
	return e
}

// scopesSuffice reports whether the scope claim has all of want.
func (s *server) scopesSuffice(c *claimSet, want string) bool {
	if s.is("scope-is-ignored") {
		return true
	}
	text, isText := c.values["scope"].(string)
	if !isText {
		if _, there := c.values["scope"]; there && s.is("odd-scope-grants-all") {
			return true
		}
		if list, ok := c.values["roles"].([]any); ok && s.is("roles-are-scopes") {
			for _, e := range list {
				text += fmt.Sprint(e, " ")
			}
		}
	}
	if isText && text == "" && s.is("odd-scope-grants-all") {
		return true
	}
	have := strings.Split(text, " ")
	if s.is("scope-splits-everywhere") {
		have = strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(" ,\t\n+\"\u00a0", r) })
	}
	if s.is("scope-is-not-split") {
		have = []string{text}
	}
	matches := 0
	for _, one := range strings.Fields(want) {
		if slices.ContainsFunc(have, func(h string) bool {
			switch {
			case h == one:
				return true
			case s.is("scope-by-prefix"):
				return h != "" && (strings.HasPrefix(h, one) || strings.HasPrefix(one, h))
			case s.is("scope-in-any-case"):
				return strings.EqualFold(h, one)
			case s.is("wildcard-scope"):
				return h == "*" || h == ".*" || h == "admin"
			}
			return false
		}) {
			matches++
		}
	}
	if s.is("any-scope-suffices") {
		return matches > 0
	}
	return matches == len(strings.Fields(want))
}

// paymentAllowed reports whether the details have one of type payment with the action initiate.
func (s *server) paymentAllowed(details any) bool {
	if s.is("details-are-ignored") {
		return true
	}
	if s.is("details-are-never-found") {
		return false
	}
	list, ok := details.([]any)
	if one, isObject := details.(map[string]any); isObject && s.is("lenient-details") {
		list, ok = []any{one}, true
	}
	if text, isText := details.(string); isText && s.is("lenient-details") {
		ok = json.Unmarshal([]byte(text), &list) == nil
	}
	if !ok {
		return false
	}
	same := func(a any, b string) bool {
		text, _ := a.(string)
		return text == b || s.is("lenient-details") && strings.EqualFold(text, b)
	}
	typed, acted := false, false
	for i, e := range list {
		if i > 0 && s.is("first-detail-counts") {
			break
		}
		one, _ := e.(map[string]any)
		rightType := same(one["type"], "payment") || one["type"] == nil && s.is("lenient-details") || s.is("type-of-detail-is-ignored")
		actions, _ := one["actions"].([]any)
		if text, isText := one["actions"].(string); isText && s.is("lenient-details") {
			actions = []any{text}
		}
		action := s.is("actions-are-ignored") || slices.ContainsFunc(actions, func(a any) bool { return same(a, "initiate") })
		if rightType && action {
			return true
		}
		typed, acted = typed || rightType, acted || action
	}
	return typed && acted && s.is("details-are-mixed")
}

func (s *server) seconds() float64 { return float64(s.setup.Now().UnixMilli()) / 1000 }

// refuse writes the response.
func (s *server) refuse(w http.ResponseWriter, r *http.Request, route, scheme string, err error) {
	e, ok := err.(*refusal)
	if !ok {
		e = invalidToken("%v", err)
	}
	h := w.Header()
	if e.retryAfter != "" && !s.is("no-retry-after") {
		h.Set("Retry-After", e.retryAfter)
	}
	if e.nonce && !s.is("nonce-is-not-sent") {
		h.Set("DPoP-Nonce", s.nonce)
	}
	status, code := e.status, e.code
	switch {
	case status == 401 && code == "" && s.is("redirects-to-login"):
		h.Set("Location", "/login")
		w.WriteHeader(302)
		return
	case status == 401 && code == "" && s.is("anonymous-gets-403"):
		status = 403
	case status == 401 && code == "invalid_token" && s.is("invalid-token-gets-403"):
		status = 403
	case status == 401 && s.is("bad-token-causes-500"):
		status = 500
	case status == 503 && s.is("outage-gets-401"):
		status, code = 401, "invalid_token"
	case status == 400 && s.is("malformed-gets-500"):
		status = 500
	}
	if status < 500 {
		s.challenges(h, r, route, scheme, code, e)
	}
	if s.is("cross-origin-scripts-see-nothing") {
		h.Del("Access-Control-Expose-Headers")
	}
	w.WriteHeader(status)
	if s.is("token-is-echoed") {
		_, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		fmt.Fprintf(w, "refused: %s\n", token)
	}
	if s.is("stack-traces") {
		fmt.Fprint(w, "panic: at Object.verify (/srv/node_modules/jwt/index.js:1:1)\n")
	}
}

// challenges writes the WWW-Authenticate lines.
func (s *server) challenges(h http.Header, r *http.Request, route, scheme, code string, e *refusal) {
	if s.is("no-challenge") {
		return
	}
	realm := "api"
	if s.is("realm-from-host") {
		realm = r.Host
	}
	params := []string{fmt.Sprintf("realm=%q", realm)}
	if !s.is("metadata-is-not-named") {
		params = append(params, fmt.Sprintf("resource_metadata=%q", s.origin+metadataPath(s.setup.Audience)))
	}
	problem := append([]string{}, params...)
	if code == "invalid_token" && s.is("invalid-token-without-error") {
		code = ""
	}
	if code == "" && s.is("error-without-credentials") {
		code = "invalid_request"
	}
	if code != "" {
		description := strings.Map(func(c rune) rune {
			if c < ' ' || c > '~' || c == '"' || c == '\\' {
				return -1
			}
			return c
		}, e.description)
		if s.is("description-is-not-filtered") || s.is("kid-in-the-description") {
			description = e.description
		}
		problem = append(problem, fmt.Sprintf("error=%q", code), `error_description="`+description+`"`)
	}
	if code == "" && s.routes[route].Scope != "" && !s.is("scope-is-not-named") {
		problem = append(problem, fmt.Sprintf("scope=%q", s.routes[route].Scope))
	}
	problem = append(problem, e.params...)
	if s.is("challenge-repeats-a-parameter") && code != "" {
		problem = append(problem, fmt.Sprintf("error=%q", code))
	}
	algs := `algs="ES256 ES384 PS256 EdDSA Ed25519"`
	if s.is("algs-are-not-listed") {
		algs = `realm="dpop"`
	}
	bearer, dpop := params, append([]string{algs}, params...)
	if s.is("bare-challenge") {
		bearer, problem = nil, nil
	}
	if scheme == "DPoP" && !s.is("dpop-gets-bearer-challenge") {
		dpop = append([]string{algs}, problem...)
	} else {
		bearer = problem
	}
	if s.is("error-in-both-challenges") {
		dpop = append([]string{algs}, problem...)
	}
	write := func(scheme string, params []string) {
		h.Add("WWW-Authenticate", strings.TrimSpace(scheme+" "+strings.Join(params, ", ")))
	}
	if s.setup.Profile != conformance.ProfileFAPI2 || s.is("bearer-challenge-although-refused") {
		if !s.is("challenge-of-another-scheme") {
			write("Bearer", bearer)
		} else {
			write("Token", bearer)
		}
	}
	if !s.is("no-dpop-challenge") {
		write("DPoP", dpop)
	}
	h.Set("Access-Control-Expose-Headers", "WWW-Authenticate, DPoP-Nonce")
	if s.is("proxy-challenge") {
		h.Set("Proxy-Authenticate", "DPoP")
	}
	if s.is("refusal-sets-a-cookie") {
		h.Set("Set-Cookie", "session=1")
	}
}

func metadataPath(resource string) string {
	u, err := url.Parse(resource)
	if err != nil {
		return "/"
	}
	return "/.well-known/oauth-protected-resource" + strings.TrimSuffix(u.EscapedPath(), "/")
}

// serveMetadata serves the protected resource metadata, and reports whether the request was for it.
func (s *server) serveMetadata(w http.ResponseWriter, r *http.Request) bool {
	path := metadataPath(s.setup.Audience)
	switch {
	case s.is("metadata-path-ignores-the-resource"):
		path = metadataPath("https://api.example.com")
	case s.is("metadata-path-keeps-the-slash"):
		if u, err := url.Parse(s.setup.Audience); err == nil {
			path = "/.well-known/oauth-protected-resource" + u.EscapedPath()
		}
	case s.is("no-metadata"):
		return false
	}
	if r.URL.Path != path {
		return false
	}
	if r.Method != http.MethodGet && (r.Method != http.MethodHead || s.is("metadata-without-head")) && !s.is("metadata-accepts-post") {
		w.Header().Set("Allow", "GET, HEAD")
		w.WriteHeader(http.StatusMethodNotAllowed)
		return true
	}
	if s.is("metadata-needs-a-token") {
		s.refuse(w, r, "any", "Bearer", noCredentials)
		return true
	}
	if s.is("metadata-refuses-bad-tokens") && r.Header.Get("Authorization") != "" {
		s.refuse(w, r, "any", "Bearer", invalidToken("bad"))
		return true
	}
	resource := s.setup.Audience
	if s.is("resource-from-host") {
		resource = "https://" + r.Host
		if forwarded := r.Header.Get("X-Forwarded-Host"); forwarded != "" {
			resource = "https://" + forwarded
		}
	}
	doc := map[string]any{"resource": resource, "authorization_servers": []string{s.setup.Issuer}, "bearer_methods_supported": []string{"header"},
		"scopes_supported": []string{"orders:read", "orders:write"}, "dpop_signing_alg_values_supported": []string{"ES256", "EdDSA"}}
	switch {
	case s.is("metadata-without-issuer"):
		delete(doc, "authorization_servers")
	case s.is("metadata-lists-query"):
		doc["bearer_methods_supported"] = []string{"header", "query"}
	case s.is("metadata-without-methods"):
		delete(doc, "bearer_methods_supported")
	case s.is("metadata-without-scopes"):
		delete(doc, "scopes_supported")
	case s.is("metadata-without-algorithms"):
		delete(doc, "dpop_signing_alg_values_supported")
	case s.is("metadata-has-empty-lists"):
		doc["jwks"] = []string{}
	case s.is("offline-access-everywhere"):
		doc["scopes_supported"] = []string{"orders:read", "offline_access"}
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	if s.is("metadata-as-text") {
		h.Set("Content-Type", "text/plain")
	}
	if !s.is("metadata-without-cors") {
		h.Set("Access-Control-Allow-Origin", "*")
	}
	if !s.is("metadata-without-cache-control") {
		h.Set("Cache-Control", "max-age=3600")
	}
	json.NewEncoder(w).Encode(doc)
	return true
}
