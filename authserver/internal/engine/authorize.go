package engine

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/valetkey/valetkey/authserver/internal/clients"
	"github.com/valetkey/valetkey/authserver/internal/flow"
	"github.com/valetkey/valetkey/authserver/model"
	"github.com/valetkey/valetkey/authserver/store"
)

// A request is a valid authorization request.
type request struct {
	Client       string        `json:"client"`
	RedirectURI  string        `json:"redirect_uri"`
	ResponseType string        `json:"response_type"`
	State        string        `json:"state,omitempty"`
	Scope        string        `json:"scope,omitempty"`
	Resources    []string      `json:"resource,omitempty"`
	Challenge    string        `json:"code_challenge,omitempty"` // S256; empty: a client without PKCE
	Key          string        `json:"dpop_jkt,omitempty"`
	Prompt       string        `json:"prompt,omitempty"`
	LoginHint    string        `json:"login_hint,omitempty"`
	Details      []flow.Detail `json:"authorization_details,omitempty"`
	UILocales    string        `json:"ui_locales,omitempty"`
	ACRs         []string      `json:"acr_values,omitempty"`
	MaxAge       int64         `json:"max_age"`    // seconds; negative: any age
	At           int64         `json:"created_at"` // Unix seconds
}

// A pending is a stored request that waits for its user, or was answered. The ID of a pushed one is that of the request_uri, a
// secret of the client and its user's browser.
type pending struct {
	request
	Status  string `json:"status"`
	Pushed  bool   `json:"pushed,omitempty"`
	Browser string `json:"browser,omitempty"` // digest of the secret in the cookie; empty: pushed, and not yet used
	Answer  string `json:"answer,omitempty"`  // see answer.go

	id      string
	version int64
	expires time.Time
}

const (
	waiting  = "pending"
	answered = "success"
)

// savePending stores a new request, or replaces the version that was read.
func (e *Engine) savePending(ctx context.Context, p *pending) error {
	text, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("write a request: %w", err)
	}
	p.version, err = e.cfg.Store.Put(ctx, store.Record{
		Kind: kindRequest, ID: store.Digest(p.id), Version: p.version, Expires: p.expires, Value: text, MayDrop: true, Owner: p.Client,
	})
	if err != nil {
		return fmt.Errorf("write a request: %w", err)
	}
	return nil
}

// pending returns the stored request with this ID. The error wraps [store.ErrNotFound] if there is none.
func (e *Engine) pending(ctx context.Context, id string) (*pending, error) {
	if !isSecret(id) {
		return nil, fmt.Errorf("read a request: %w", store.ErrNotFound)
	}
	rec, err := e.cfg.Store.Get(ctx, kindRequest, store.Digest(id))
	if err != nil {
		return nil, fmt.Errorf("read a request: %w", err)
	}
	p := &pending{id: id, version: rec.Version, expires: rec.Expires}
	if err := json.Unmarshal(rec.Value, p); err != nil {
		return nil, fmt.Errorf("read a request: %w", err)
	}
	return p, nil
}

// pushedPrefix is the prefix of the request_uri of a pushed request (RFC 9126, section 2.2).
const pushedPrefix = "urn:ietf:params:oauth:request_uri:"

// PAR is the endpoint for pushed authorization requests (RFC 9126), for POST.
func (e *Engine) PAR(w http.ResponseWriter, r *http.Request) {
	c := e.newCall(r)
	said, err := e.push(w, c)
	e.respond(w, c, http.StatusCreated, said, err)
}

func (e *Engine) push(w http.ResponseWriter, c *call) (map[string]any, error) {
	if err := c.readForm(w); err != nil {
		return nil, err
	}
	if err := e.authenticate(c, e.cfg.base()+e.cfg.Paths.PAR); err != nil { // section 2.1, step 1
		return nil, err
	}
	if err := e.pushes.Allow(c.writer()); err != nil { // section 2.3
		return nil, tooMany(err)
	}
	if c.form.Has("request_uri") { // step 2
		return nil, invalidRequest("request_uri cannot be pushed")
	}
	if err := e.pushKey(w, c); err != nil {
		return nil, err
	}
	q, err := e.validate(c, nil, false) // step 3
	if err != nil {
		return nil, err
	}
	if err := c.useProof(); err != nil {
		return nil, err
	}
	p := &pending{request: q, Status: waiting, Pushed: true, id: secret(), expires: c.at.Add(e.cfg.PARLifetime)}
	if err := e.savePending(c.r.Context(), p); err != nil {
		return nil, err
	}
	return map[string]any{"request_uri": pushedPrefix + p.id, "expires_in": int(e.cfg.PARLifetime / time.Second)}, nil
}

// Authorize validates a request to the authorization endpoint (RFC 6749, section 3.1) by GET or POST.
func (e *Engine) Authorize(r *http.Request) flow.Step {
	c := e.newCall(r)
	// A repeated parameter is reported to the client if neither client_id nor redirect_uri is repeated.
	repeated := c.readQuery()
	if r.Method == http.MethodPost {
		repeated = c.readForm(nil)
	}
	if err := e.find(c, c.form.Get("client_id")); err != nil {
		if errors.Is(err, errClient) {
			err = invalidRequest("client_id is missing, or the client is not known")
		} else if document, ok := errors.AsType[*clients.DocumentError](err); ok { // for the user: the client gets no response
			err = invalidRequest(document.Error())
		}
		return e.fail(c, err)
	}
	c.browser = e.browser(r)
	began := c.browser == ""
	if began {
		c.browser = secret()
	}
	begin := e.begin
	if c.form.Has("request_uri") {
		begin = e.usePushed
	}
	step := begin(c, repeated)
	if began && step.Ask != nil {
		step.Cookie = e.cookie(c.browser)
	}
	return step
}

// begin stores the request, so that it can wait for its user.
func (e *Engine) begin(c *call, repeated error) flow.Step {
	q, err := e.validate(c, repeated, true)
	if err != nil {
		return e.fail(c, err)
	}
	if err := e.pushes.Allow(c.writer()); err != nil { // anyone can begin one, and it is kept until its user answers
		c.to = target{} // the user can wait, the application cannot
		return e.fail(c, tooMany(err))
	}
	p := &pending{request: q, Status: waiting, Browser: store.Digest(c.browser), id: secret(), expires: c.at.Add(e.cfg.InteractionLifetime)}
	if err := e.savePending(c.r.Context(), p); err != nil {
		return e.fail(c, err)
	}
	return e.ask(c, p, true)
}

// usePushed finds the pushed request. Only the pushed parameters count, not those that an attacker may have added to the URL (RFC
// 9126, section 4). The first browser that uses the request may load it again, but no other one may.
func (e *Engine) usePushed(c *call, repeated error) flow.Step {
	id, ok := strings.CutPrefix(c.form.Get("request_uri"), pushedPrefix)
	if !ok { // RFC 9101, section 6.3; no redirect URI is known
		return e.fail(c, badRequest("request_uri_not_supported", "request_uri is not of a pushed request"))
	}
	for {
		p, err := e.pending(c.r.Context(), id)
		switch {
		case errors.Is(err, store.ErrNotFound), err == nil && !p.Pushed:
			return e.over(c, &flow.Ended{Client: c.client})
		case err != nil:
			return e.fail(c, err)
		case p.Client != c.client.ID:
			return e.fail(c, errPushed)
		case p.Status != waiting:
			return e.wasAnswered(c, p)
		case !registered(c.client, p.RedirectURI):
			return e.fail(c, errPushed)
		}
		c.to = e.target(&p.request)
		if repeated != nil {
			return e.fail(c, repeated)
		}
		if p.Browser != "" {
			return e.ask(c, p, false)
		}
		p.Browser, p.expires = store.Digest(c.browser), c.at.Add(e.cfg.InteractionLifetime)
		switch err := e.savePending(c.r.Context(), p); {
		case errors.Is(err, store.ErrConflict): // loaded twice
			continue
		case err != nil:
			return e.fail(c, err)
		}
		return e.ask(c, p, true)
	}
}

// Continue finds the interaction that a request of its pages belongs to. Its path is below the authorization endpoint, with the ID
// of the interaction as path value "interaction".
func (e *Engine) Continue(r *http.Request) flow.Step {
	c := e.authorizeCall(r)
	c.browser = e.browser(r)
	p, err := e.pending(r.Context(), r.PathValue("interaction"))
	switch {
	case errors.Is(err, store.ErrNotFound):
		return e.over(c, &flow.Ended{Client: e.mentioned(r)})
	case err != nil:
		return e.fail(c, err)
	case p.Status != waiting:
		return e.wasAnswered(c, p)
	}
	if p.Browser == store.Digest(c.browser) {
		if err := e.find(c, p.Client); err != nil {
			return e.fail(c, err)
		}
	}
	return e.ask(c, p, false)
}

// ask returns the step that asks the user of a request.
func (e *Engine) ask(c *call, p *pending, fresh bool) flow.Step {
	switch {
	case c.browser == "" || p.Browser != store.Digest(c.browser):
		return e.otherBrowser(c)
	case !registered(c.client, p.RedirectURI): // unregistered since
		c.to = target{}
		return e.fail(c, errInteraction)
	}
	api, scopes, err := e.offered(c.client, p.Resources, p.Scope, p.Details) // again: the client, or the configuration, may have changed since
	if err != nil {
		return e.fail(c, err)
	}
	return flow.Step{Ask: &flow.Interaction{
		ID: p.id, ContinueURL: e.continueURL(p), Browser: c.browser, Fresh: fresh, Client: c.client, API: api, Scopes: scopes, Details: p.Details,
		RedirectURI: p.RedirectURI, Implicit: p.ResponseType == "token", LoginHint: p.LoginHint, UILocales: p.UILocales, Prompt: p.Prompt,
		MaxAge: max(-1, time.Duration(p.MaxAge)*time.Second), ACRValues: p.ACRs,
	}}
}

// continueURL returns the URL that the pages of an interaction post to. It contains the client ID, because after the request has
// expired, the page must still lead back to the client.
func (e *Engine) continueURL(p *pending) string {
	return e.cfg.path() + e.cfg.Paths.Authorize + "/" + p.id + "?" + url.Values{"client_id": {p.Client}}.Encode()
}

// mentioned returns the client named in a URL of [Engine.continueURL], or nil. Anyone could have written the URL.
func (e *Engine) mentioned(r *http.Request) *model.Client {
	client, err := e.cfg.Clients.About(r.Context(), r.URL.Query().Get("client_id"))
	if err != nil {
		return nil // the page does not depend on it
	}
	return client
}

var (
	errPushed      = invalidRequest("request_uri belongs to another client, or the client has changed since")
	errInteraction = invalidRequest("the application has changed since: go back to it and start again")
	errBrowser     = invalidRequest("the request was begun in another browser, or cookies are off: go back to the application and start again")
)

// validate validates the parameters of an authorization request. Once it has set c.to, errors are sent there.
func (e *Engine) validate(c *call, repeated error, front bool) (q request, err error) {
	p, client := c.form, c.client
	q = request{
		Client: client.ID, RedirectURI: p.Get("redirect_uri"), ResponseType: p.Get("response_type"), State: p.Get("state"),
		Scope: p.Get("scope"), Resources: p["resource"], Challenge: p.Get("code_challenge"), Key: p.Get("dpop_jkt"),
		Prompt: strings.Join(strings.Fields(p.Get("prompt")), " "), LoginHint: p.Get("login_hint"), UILocales: p.Get("ui_locales"),
		ACRs: strings.Fields(p.Get("acr_values")), MaxAge: -1, At: c.at.Unix(),
	}
	if !registered(client, q.RedirectURI) {
		return q, invalidRequest("redirect_uri is missing or not registered")
	}
	c.to = e.target(&q)
	if repeated != nil {
		return q, repeated
	}
	switch {
	case isLong(p):
		return q, invalidRequest("the parameters are too long")
	case q.ResponseType == "":
		return q, invalidRequest("response_type is missing")
	case !slices.Contains(e.responseTypes(), q.ResponseType):
		return q, badRequest("unsupported_response_type", "this server does not offer the response_type")
	case !slices.Contains(client.GrantTypes, grantOf[q.ResponseType]), q.ResponseType == "token" && (client.DPoPBound || client.CertBound):
		return q, badRequest("unauthorized_client", "the client may not use this response_type")
	case front && (client.RequirePAR || e.cfg.RequirePAR):
		return q, invalidRequest("the request has to be pushed") // RFC 9126, section 5
	case p.Has("request"): // RFC 9101, section 6.3; OpenID Connect Core 1.0, section 3.1.2.6
		return q, badRequest("request_not_supported", "signed request objects are not supported")
	case p.Has("response_mode") && p.Get("response_mode") != modeOf[q.ResponseType]:
		return q, invalidRequest("response_mode does not match the response_type")
	}
	if e.cfg.DPoP == nil {
		q.Key = ""
	} else if q.Key != "" && !isSHA256(q.Key) { // RFC 9449, section 10
		return q, invalidRequest("dpop_jkt is not the SHA-256 thumbprint of a key")
	}
	if q.ResponseType == "token" { // not redeemed
		q.Challenge = ""
	} else if err := checkPKCE(client, q.Challenge, p.Get("code_challenge_method")); err != nil {
		return q, err
	}
	if q.MaxAge, err = checkPrompt(q.Prompt, p.Get("max_age")); err != nil {
		return q, err
	}
	// OpenID Connect Core Unmet Authentication Requirements 1.0; RFC 9470, section 4. A token without the acr would only make the
	// client come back.
	if len(q.ACRs) > 0 && !meets(q.ACRs, e.cfg.ACRs...) {
		return q, badRequest(unmet, "this server offers none of the acr_values")
	}
	if q.Details, err = flow.ReadDetails(p.Get("authorization_details")); err != nil {
		return q, errDetails
	}
	_, _, err = e.offered(client, q.Resources, q.Scope, q.Details)
	return q, err
}

const maxKept = 8 << 10 // bytes of parameters, kept until the user answers

func isLong(p url.Values) bool {
	n := 0
	for _, name := range []string{
		"redirect_uri", "scope", "state", "code_challenge", "resource", "prompt", "login_hint", "ui_locales", "acr_values", "dpop_jkt",
		"authorization_details",
	} {
		for _, v := range p[name] {
			n += len(v)
		}
	}
	return n > maxKept
}

// checkPKCE requires a challenge of every client: always of a public one (RFC 9700, section 2.1.1), and of a confidential one
// unless it is registered without PKCE.
func checkPKCE(client *model.Client, challenge, method string) error {
	switch {
	case challenge == "" && method == "" && client.WithoutPKCE && !client.Public():
		return nil
	case challenge == "":
		return invalidRequest("code_challenge is missing")
	case method != "S256": // RFC 7636, section 4.3: a method that is omitted means plain
		return invalidRequest("code_challenge_method is not S256")
	case !isSHA256(challenge):
		return invalidRequest("code_challenge is not an S256 challenge")
	}
	return nil
}

// challengeOf returns the challenge of a verifier (RFC 7636, section 4.2), and "" if there is none.
func challengeOf(verifier string) string {
	if verifier == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

const base64urlAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

// isSHA256 reports whether s has the form of a SHA-256 digest in base64url.
func isSHA256(s string) bool { return len(s) == 43 && strings.Trim(s, base64urlAlphabet) == "" }

// checkPrompt validates prompt and max_age (OpenID Connect Core 1.0, section 3.1.2.1), which step-up also uses (RFC 9470). It
// returns max_age in seconds; negative: none.
func checkPrompt(prompt, maxAge string) (int64, error) {
	prompts := strings.Fields(prompt)
	for _, p := range prompts {
		if !slices.Contains([]string{"none", "login", "consent", "select_account"}, p) {
			return 0, invalidRequest("prompt is not known")
		}
	}
	if slices.Contains(prompts, "none") && len(prompts) > 1 {
		return 0, invalidRequest("prompt combines none with another value")
	}
	if maxAge == "" {
		return -1, nil
	}
	n, err := strconv.Atoi(maxAge)
	if err != nil || n < 0 {
		return 0, invalidRequest("max_age is not a number of seconds")
	}
	const century = 100 * 365 * 24 * 60 * 60 // a longer age does not fit a time.Duration, and no login is that old
	return int64(min(n, century)), nil
}
