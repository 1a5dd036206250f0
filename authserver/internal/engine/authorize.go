package engine

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/luikyv/go-oidc/pkg/goidc"

	"github.com/valetkey/valetkey/authserver/internal/clients"
	"github.com/valetkey/valetkey/authserver/internal/flow"
	"github.com/valetkey/valetkey/authserver/store"
)

// pushedPrefix is the prefix of the request_uri of a pushed request (RFC 9126, section 2.2).
const pushedPrefix = "urn:ietf:params:oauth:request_uri:"

// Authorize is the authorization endpoint (RFC 6749, section 3.1), for GET and POST. It sends no CORS headers (RFC 9700, section
// 2.6), and its responses cannot be framed.
func (e *Engine) Authorize(w http.ResponseWriter, r *http.Request) {
	c, done := e.lastingCall(r) // for a pushed request, which may arrive twice
	defer done()
	r = c.r
	// Parameters of an application's request must not be taken for an answer of the user, whatever their names.
	c.page = r.Clone(r.Context())
	c.page.Method, c.page.Body, c.page.URL.RawQuery, c.page.Form, c.page.PostForm = http.MethodGet, http.NoBody, "", nil, nil
	rec, err := e.authorize(w, c)
	lost := rec != nil && errors.Is(c.failed, store.ErrConflict)
	if c.pushed != "" && (lost || errors.Is(err, errUsed)) { // a page that is loaded twice (RFC 9126, section 4)
		e.again(w, c, c.pushed, lost)
		return
	}
	e.show(w, c, rec, err)
}

// Continue receives the requests from the pages of an interaction. Its path is below the authorization endpoint, with the ID of
// the interaction as path value "interaction".
func (e *Engine) Continue(w http.ResponseWriter, r *http.Request) {
	c, done := e.lastingCall(r)
	defer done()
	c.path = e.cfg.path() + e.cfg.Paths.Authorize // without the id
	id := r.PathValue("interaction")
	if !isSecret(id) {
		e.end(w, c, flow.Ended{})
		return
	}
	c.browser, c.keeps = e.browser(r), true
	rec := e.run(c, http.MethodGet, "/authorize/"+id, nil)
	var known goidc.Error
	lost := errors.Is(c.failed, store.ErrConflict)
	if c.client == nil && errors.As(c.failed, &known) || lost { // the library has not found the session, or it has changed
		if c.client == nil {
			c.client = e.mentioned(r)
		}
		e.again(w, c, id, lost)
		return
	}
	e.show(w, c, rec, nil)
}

// continueURL returns the URL that the pages of an interaction post to. It contains the client ID, because after the session has
// expired, the page must still lead back to the client.
func (e *Engine) continueURL(id, client string) string {
	return e.cfg.path() + e.cfg.Paths.Authorize + "/" + id + "?" + url.Values{"client_id": {client}}.Encode()
}

// mentioned returns the client named in a URL of [Engine.continueURL], or nil. Anyone could have written the URL.
func (e *Engine) mentioned(r *http.Request) *clients.Client {
	client, err := e.cfg.Clients.About(r.Context(), r.URL.Query().Get("client_id"))
	if err != nil {
		return nil // the page does not depend on it
	}
	return client
}

var errInteraction = invalidRequest("the application has changed since: go back to it and start again")

func (e *Engine) authorize(w http.ResponseWriter, c *call) (*recorded, error) {
	read := c.readQuery
	if c.r.Method == http.MethodPost {
		read = func() error { return c.readForm(w) }
	}
	// A repeated parameter is reported to the client if neither client_id nor redirect_uri is repeated.
	repeated := read()
	if err := e.find(c, c.form.Get("client_id")); err != nil {
		if errors.Is(err, errClient) {
			return nil, invalidRequest("client_id is missing, or the client is not known")
		}
		if document, ok := errors.AsType[*clients.DocumentError](err); ok { // for the user: the client gets no response
			err = invalidRequest(document.Error())
		}
		return nil, err
	}
	params := c.form
	if pushed := c.form.Get("request_uri"); pushed != "" {
		if err := e.usePushed(c, pushed); err != nil {
			return nil, err
		}
		// RFC 9126, section 4: only the pushed parameters count, not those that an attacker may have added to the URL.
		params = url.Values{"request_uri": {pushed}}
	} else if err := e.check(c, repeated, true); err != nil {
		return nil, err
	} else if err := e.pushes.Allow(c.writer()); err != nil { // anyone can begin one, and it is kept until its user answers
		c.redirect = "" // the user can wait, the application cannot
		return nil, tooMany(err)
	}
	if repeated != nil {
		return nil, repeated
	}
	c.browser = e.browser(c.r)
	if c.browser == "" {
		c.browser = secret()
		http.SetCookie(w, e.cookie(c.browser))
	}
	form := url.Values{"client_id": {c.client.ID}}
	for _, name := range append(authorizationParams, "request_uri") {
		if v := params[name]; v != nil {
			form[name] = v
		}
	}
	return e.run(c, http.MethodGet, "/authorize", form), nil
}

// authorizationParams are the parameters that are passed to the library.
var authorizationParams = []string{
	"redirect_uri", "response_type", "scope", "state", "code_challenge", "code_challenge_method", "resource", "prompt",
	"max_age", "login_hint",
}

// check validates the parameters of an authorization request. Once it has set c.redirect, errors are sent there.
func (e *Engine) check(c *call, repeated error, front bool) error {
	p, client := c.form, c.client
	uri := p.Get("redirect_uri")
	if !registered(client, uri) {
		return invalidRequest("redirect_uri is missing or not registered")
	}
	c.redirect = uri
	if repeated != nil {
		return repeated
	}
	switch kind := p.Get("response_type"); {
	case isLong(p):
		return invalidRequest("the parameters are too long")
	case kind == "":
		return invalidRequest("response_type is missing")
	case !slices.Contains(e.responseTypes(), goidc.ResponseType(kind)):
		return badRequest("unsupported_response_type", "this server does not offer the response_type")
	case !slices.Contains(client.GrantTypes, grantOf[kind]), kind == "token" && (client.DPoPBound || client.CertBound):
		return badRequest("unauthorized_client", "the client may not use this response_type")
	case front && (client.RequirePAR || e.cfg.RequirePAR):
		return invalidRequest("the request has to be pushed") // RFC 9126, section 5
	case p.Has("request"): // RFC 9101, section 6.3; OpenID Connect Core 1.0, section 3.1.2.6
		return badRequest("request_not_supported", "signed request objects are not supported")
	case p.Has("response_mode") && p.Get("response_mode") != modeOf[kind]:
		return invalidRequest("response_mode does not match the response_type")
	}
	if err := e.checkKey(c); err != nil {
		return err
	}
	if err := checkPKCE(c); err != nil {
		return err
	}
	if err := checkPrompt(p); err != nil {
		return err
	}
	// OpenID Connect Core Unmet Authentication Requirements 1.0; RFC 9470, section 4. A token without the acr would only make the
	// client come back.
	if acrs := strings.Fields(p.Get("acr_values")); len(acrs) > 0 && !meets(acrs, e.cfg.ACRs...) {
		return badRequest(unmet, "this server offers none of the acr_values")
	}
	_, _, err := e.wanted(client, p["resource"], p.Get("scope"))
	return err
}

const maxKept = 8 << 10 // bytes of parameters, kept until the user answers

func isLong(p url.Values) bool {
	n := 0
	for _, name := range append(authorizationParams, "acr_values") {
		for _, v := range p[name] {
			n += len(v)
		}
	}
	return n > maxKept
}

// checkPKCE requires a challenge of every client: always of a public one (RFC 9700, section 2.1.1), and of a confidential one
// unless it is registered without PKCE.
func checkPKCE(c *call) error {
	challenge, method := c.form.Get("code_challenge"), c.form.Get("code_challenge_method")
	if c.form.Get("response_type") == "token" { // not redeemed, but the library requires a challenge of public clients
		c.form.Set("code_challenge", strings.Repeat("A", 43))
		c.form.Set("code_challenge_method", "S256")
		return nil
	}
	if challenge == "" && method == "" && c.client.WithoutPKCE && !c.client.Public() {
		return nil
	}
	switch {
	case challenge == "":
		return invalidRequest("code_challenge is missing")
	case method != "S256": // RFC 7636, section 4.3: a method that is omitted means plain
		return invalidRequest("code_challenge_method is not S256")
	case len(challenge) != 43 || strings.Trim(challenge, base64urlAlphabet) != "":
		return invalidRequest("code_challenge is not an S256 challenge")
	}
	return nil
}

const base64urlAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

// checkPrompt validates prompt and max_age (OpenID Connect Core 1.0, section 3.1.2.1), which step-up also uses (RFC 9470).
func checkPrompt(p url.Values) error {
	prompts := strings.Fields(p.Get("prompt"))
	for _, prompt := range prompts {
		if !slices.Contains([]string{"none", "login", "consent", "select_account"}, prompt) {
			return invalidRequest("prompt is not known")
		}
	}
	if slices.Contains(prompts, "none") && len(prompts) > 1 {
		return invalidRequest("prompt combines none with another value")
	}
	if age := p.Get("max_age"); age != "" {
		if n, err := strconv.Atoi(age); err != nil || n < 0 {
			return invalidRequest("max_age is not a number of seconds")
		}
	}
	return nil
}

// usePushed finds the pushed request and its redirect URI.
func (e *Engine) usePushed(c *call, uri string) error {
	id, ok := strings.CutPrefix(uri, pushedPrefix)
	if !ok { // RFC 9101, section 6.3; no redirect URI is known
		return badRequest("request_uri_not_supported", "request_uri is not of a pushed request")
	}
	as, err := e.records.SessionByPushedAuthReqID(c.r.Context(), id)
	if err == nil && as.ClientID != c.client.ID {
		return errPushed
	}
	c.pushed, c.keeps, c.browser = id, true, e.browser(c.r)
	switch {
	case errors.Is(err, goidc.ErrNotFound), err == nil && as.Status != goidc.StatusPending:
		return errUsed
	case err != nil:
		return err
	case !registered(c.client, as.RedirectURI):
		return errPushed
	}
	c.redirect = as.RedirectURI
	if c.form.Del("state"); as.State != "" {
		c.form.Set("state", as.State)
	}
	c.form.Set("response_type", string(as.ResponseType)) // determines where errors are sent
	return nil
}

var (
	errPushed = invalidRequest("request_uri belongs to another client, or the client has changed since")
	errUsed   = invalidRequest("request_uri is not known, has expired, or has been used")
)

// harden sets the headers of every response of the authorization endpoint.
func (e *Engine) harden(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer") // RFC 9700, section 4.2.4
	h.Set("X-Frame-Options", "DENY")        // RFC 6749, section 10.13
	h.Set("Content-Security-Policy", "frame-ancestors 'none'")
}

// show sends the response of the library or of the pages that it called, or reports the error: to the client if its redirect URI
// is known, otherwise to the user.
func (e *Engine) show(w http.ResponseWriter, c *call, rec *recorded, err error) {
	e.harden(w)
	switch {
	case rec != nil && rec.Status == http.StatusSeeOther && rec.Header().Get("Location") != "" && c.failed != nil:
		// The library has returned an error that may be sent to the client.
		var code goidc.Error
		errors.As(c.failed, &code)
		e.cfg.Audit(c.r.Context(), Event{Name: Refused, Path: c.path, Client: c.clientID(), Error: string(code.Code)})
		to := rec.Header().Get("Location")
		told := &refusal{status: http.StatusBadRequest, code: string(code.Code), description: code.Description}
		e.keepAnswer(c, to, told)
		if e.leaves(w, c, to, told, rec.Header()["Set-Cookie"]) {
			rec.send(w)
		}
		return
	case rec != nil && c.failed == nil && rec.Status != 0:
		if c.granted != nil {
			e.cfg.Audit(c.r.Context(), *c.granted)
		}
		c.complete(rec.Header())
		if to := rec.Header().Get("Location"); to != "" {
			e.keepAnswer(c, to, nil)
		}
		rec.send(w)
		return
	case rec != nil:
		err = c.failed
	}
	if err == nil {
		err = errors.New("no response was written")
	}
	if told := e.explain(c, err); c.redirect != "" && told != errOutage {
		e.sendBack(w, c, told)
	} else {
		e.cfg.ErrorPage(w, c.r, told.status, told.code, told.description)
	}
}
