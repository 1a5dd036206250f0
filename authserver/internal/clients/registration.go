package clients

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"mime"
	"net"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/authserver/login"
	"github.com/valetkey/valetkey/authserver/store"
	"github.com/valetkey/valetkey/internal/authheader"
	"github.com/valetkey/valetkey/internal/keyset"
)

// RegistrationConfig configures the registration endpoint. URL, Issuer, Registry, Scopes, and either InitialTokens or Open are
// required.
type RegistrationConfig struct {
	_ struct{} // keyed literals only

	URL      string // of the endpoint; clients are managed at paths below it
	Issuer   string // of the server
	Registry *Registry

	// Scopes are all scopes that a client may register for. A client that names none gets all of them.
	Scopes []string

	// GrantTypes are the grant types that a client may register for: with an initial token all of them, and without one those that
	// [RequiresConsent] reports. Nil: authorization_code, refresh_token and the device grant.
	GrantTypes []string

	// AuthMethods are the authentication methods that a client may register for. Nil: none, client_secret_basic,
	// client_secret_post and private_key_jwt. self_signed_tls_client_auth and
	// tls_client_auth are supported, too.
	AuthMethods []string

	InitialTokens []InitialToken

	// Open permits registration without a token, limited by Allow, which is then required: for the address of the sender, Allow
	// returns nil or a [*login.TooMany].
	Open  bool
	Allow func(address string) error

	// RemoteAddr is the address of the sender. Nil: that of the connection, without the port.
	RemoteAddr func(*http.Request) string

	// UnusedFor is how long a client that registered without a token is kept while it is unused; see [Registry.Keep]. Zero: 24
	// h; negative: forever.
	UnusedFor time.Duration

	// Statements are the keys of trusted issuers of software statements, by issuer. The caller closes them.
	Statements map[string]*keyset.Set

	// Deleted is called when a client has deleted itself, to end the grants of its users. Nil: they do not end.
	Deleted func(ctx context.Context, clientID string) error

	// Audit receives each registration, change, deletion and refusal, without secrets. Nil: they are not reported.
	Audit func(ctx context.Context, event string, attrs ...slog.Attr)

	// Logger receives internal failures. Nil: slog.Default().
	Logger *slog.Logger
}

const (
	defaultUnused = 24 * time.Hour
	maxBody       = 96 << 10 // a key set, a statement, and the other members
)

// A registration is the endpoint.
type registration struct {
	cfg RegistrationConfig
	mux *http.ServeMux
}

// Registration returns the handler of dynamic client registration (RFC 7591) at the path of cfg.URL, and of its management (RFC
// 7592) below it. The error lists every mistake in cfg.
//
// The response contains what has been registered, and warnings about values that were left out: scopes that cannot be registered,
// and private-use redirect URIs that are not accepted, if there are others of either. Unsupported members are ignored: logo_uri,
// contacts, names in several languages. A client cannot register privileges: being trusted, omitting PKCE, introspecting. A client to which the operator
// has given such a privilege may read its registration, but can no longer change or delete it.
func Registration(cfg RegistrationConfig) (http.Handler, error) {
	u, err := cfg.validate()
	if err != nil {
		return nil, fmt.Errorf("clients: %w", err)
	}
	if cfg.GrantTypes == nil {
		cfg.GrantTypes = withConsent
	}
	if cfg.AuthMethods == nil {
		cfg.AuthMethods = []string{"none", "client_secret_basic", "client_secret_post", "private_key_jwt"}
	}
	if cfg.RemoteAddr == nil {
		cfg.RemoteAddr = remoteAddr
	}
	if cfg.UnusedFor == 0 {
		cfg.UnusedFor = defaultUnused
	}
	if cfg.Audit == nil {
		cfg.Audit = func(context.Context, string, ...slog.Attr) {}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	e := &registration{cfg: cfg, mux: http.NewServeMux()}
	e.mux.HandleFunc("POST "+u.Path, e.answer(e.register))
	e.mux.HandleFunc("GET "+u.Path+"/{id}", e.answer(e.read))
	e.mux.HandleFunc("PUT "+u.Path+"/{id}", e.answer(e.update))
	e.mux.HandleFunc("DELETE "+u.Path+"/{id}", e.answer(e.delete))
	return e, nil
}

func (cfg *RegistrationConfig) validate() (*url.URL, error) {
	var errs []error
	mistake := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	u, err := webURI(cfg.URL)
	if err != nil || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || len(u.Path) < 2 || u.EscapedPath() != path.Clean(u.Path) {
		mistake("URL: must have a path that a client's ID can be appended to")
	}
	if cfg.Issuer == "" {
		mistake("Issuer: required")
	}
	if cfg.Registry == nil {
		mistake("Registry: required")
	}
	if len(cfg.Scopes) == 0 {
		mistake("Scopes: at least one is required")
	}
	for i, g := range cfg.GrantTypes {
		if !slices.Contains(grantTypes, g) {
			mistake("GrantTypes[%d]: %q is not known", i, g)
		}
	}
	for i, m := range cfg.AuthMethods {
		if !slices.Contains(authMethods, m) {
			mistake("AuthMethods[%d]: %q is not known", i, m)
		}
	}
	if !cfg.Open && len(cfg.InitialTokens) == 0 {
		mistake("InitialTokens: required, or Open")
	}
	if cfg.Open && cfg.Allow == nil {
		mistake("Allow: required with Open") // RFC 7591, section 3: "MAY be rate-limited or otherwise limited"
	}
	for i, t := range cfg.InitialTokens {
		if len(t.Digest) != len(store.Digest("")) {
			mistake("InitialTokens[%d].Digest: is not a store.Digest", i)
		}
		if t.Uses < 0 {
			mistake("InitialTokens[%d].Uses: %d is negative", i, t.Uses)
		}
	}
	for issuer, set := range cfg.Statements {
		if set == nil {
			mistake("Statements[%q]: is nil", issuer)
		}
	}
	return u, errors.Join(errs...)
}

// ServeHTTP marks all responses as not cacheable (RFC 7591, section 3.2.1).
func (e *registration) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Pragma", "no-cache")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	e.mux.ServeHTTP(w, r)
}

// register implements RFC 7591, section 3.
func (e *registration) register(r *http.Request) (int, *information, error) {
	ctx := r.Context()
	by, initial, err := e.mayRegister(r)
	if err != nil {
		return 0, nil, err
	}
	_, c, warnings, err := e.readClient(r, e.grantTypes(initial != nil, nil))
	if err != nil {
		return 0, nil, err
	}
	c.Initial = initial != nil
	if err := Validate(&c); err != nil { // before a use of the token is spent
		return 0, nil, err
	}
	if err := e.spend(ctx, initial); err != nil {
		return 0, nil, err
	}
	if initial == nil && e.cfg.UnusedFor > 0 {
		c.Expires = time.Now().Add(e.cfg.UnusedFor)
	}
	token := rand.Text()
	c.RegistrationDigest = store.Digest(token)
	made, secret, err := e.cfg.Registry.Create(ctx, c, usesSecret(c.AuthMethod))
	if err != nil {
		return 0, nil, err
	}
	attrs := []slog.Attr{slog.String("client", made.ID), slog.String("by", by), slog.String("address", e.cfg.RemoteAddr(r))}
	if len(warnings) > 0 {
		attrs = append(attrs, slog.Any("warnings", warnings))
	}
	e.cfg.Audit(ctx, "client registered", attrs...)
	return http.StatusCreated, e.inform(made, secret, token, warnings...), nil
}

// grantTypes returns the grant types for which a client may be registered, with an initial token or without one. An update keeps those that
// it has and that can still be registered.
func (e *registration) grantTypes(initial bool, has []string) []string {
	if initial {
		return e.cfg.GrantTypes
	}
	return slices.DeleteFunc(slices.Clone(e.cfg.GrantTypes), func(g string) bool { return !RequiresConsent(g) && !slices.Contains(has, g) })
}

// mayRegister returns the identity under which the sender may register a client.
func (e *registration) mayRegister(r *http.Request) (by string, initial *InitialToken, err error) {
	token, err := bearer(r)
	if err == nil {
		initial, err = e.initial(token)
		if err != nil {
			return "", nil, err
		}
		return initial.Name, initial, nil
	}
	refusal, _ := errors.AsType[*valetkey.Error](err)
	if refusal == nil || refusal.Code != valetkey.NoCredentials || !e.cfg.Open {
		return "", nil, err
	}
	if err := e.cfg.Allow(e.cfg.RemoteAddr(r)); err != nil {
		return "", nil, err
	}
	return "anybody", nil, nil
}

// read implements RFC 7592, section 2.1. It changes neither the registration access token nor the secret.
func (e *registration) read(r *http.Request) (int, *information, error) {
	c, token, err := e.authenticate(r)
	if err != nil {
		return 0, nil, err
	}
	return http.StatusOK, e.inform(c, "", token), nil
}

// update implements RFC 7592, section 2.2: it replaces all metadata that the client may set.
func (e *registration) update(r *http.Request) (int, *information, error) {
	ctx := r.Context()
	old, token, err := e.authenticate(r)
	if err != nil {
		return 0, nil, err
	}
	if err := mayChange(old); err != nil {
		return 0, nil, err
	}
	sent, c, warnings, err := e.readClient(r, e.grantTypes(old.Initial, old.GrantTypes))
	if err != nil {
		return 0, nil, err
	}
	if err := acceptsUpdate(old, sent); err != nil {
		return 0, nil, err
	}
	c.ID, c.Version, c.IssuedAt, c.Expires, c.Owner = old.ID, old.Version, old.IssuedAt, old.Expires, old.Owner
	c.RegistrationDigest, c.DefaultAPI, c.Lifetime, c.Initial = old.RegistrationDigest, old.DefaultAPI, old.Lifetime, old.Initial
	secret := ""
	switch {
	case !usesSecret(c.AuthMethod): // the old one becomes invalid
	case len(old.SecretDigest) > 0:
		c.SecretDigest = old.SecretDigest
	default:
		secret = newSecret(&c)
	}
	if err := e.cfg.Registry.Update(ctx, c); err != nil {
		return 0, nil, err
	}
	e.cfg.Audit(ctx, "client changed", slog.String("client", c.ID), slog.String("address", e.cfg.RemoteAddr(r)))
	return http.StatusOK, e.inform(&c, secret, token, warnings...), nil
}

// acceptsUpdate checks the members that an update must and must not contain: RFC 7592, section 2.2.
func acceptsUpdate(c *Client, sent members) error {
	for _, name := range []string{"registration_access_token", "registration_client_uri", "client_secret_expires_at", "client_id_issued_at"} {
		if sent[name] != nil {
			return &Invalid{Code: InvalidMetadata, Member: name, Problem: "must not be sent"}
		}
	}
	if id, _ := sent["client_id"].Text(); id != c.ID {
		return &Invalid{Code: InvalidMetadata, Member: "client_id", Problem: "does not match the client"}
	}
	// "the client MUST NOT be allowed to overwrite its existing client secret with its own chosen value"
	if secret, _ := sent["client_secret"].Text(); sent["client_secret"] != nil && !c.HasSecret(secret) {
		return &Invalid{Code: InvalidMetadata, Member: "client_secret", Problem: "does not match the client"}
	}
	return nil
}

// delete implements RFC 7592, section 2.3.
func (e *registration) delete(r *http.Request) (int, *information, error) {
	c, _, err := e.authenticate(r)
	if err != nil {
		return 0, nil, err
	}
	if err := mayChange(c); err != nil {
		return 0, nil, err
	}
	if err := e.cfg.Registry.Delete(r.Context(), c.ID); err != nil {
		return 0, nil, err
	}
	ctx := context.WithoutCancel(r.Context()) // the client cannot repeat the request
	if e.cfg.Deleted != nil {
		if err := e.cfg.Deleted(ctx, c.ID); err != nil {
			e.cfg.Logger.ErrorContext(ctx, "grants of a deleted client not ended", "client", c.ID, "error", err)
		}
	}
	e.cfg.Audit(ctx, "client deleted", slog.String("client", c.ID), slog.String("address", e.cfg.RemoteAddr(r)))
	return http.StatusNoContent, nil, nil
}

// authenticate returns the client that the request is about, and its registration access token. The response does not reveal
// whether the client or the token is unknown: it is 401 in both cases (RFC 7592, section 2.1). A token becomes invalid with its
// client.
func (e *registration) authenticate(r *http.Request) (*Client, string, error) {
	token, err := bearer(r)
	if err != nil {
		return nil, "", err
	}
	c, err := e.cfg.Registry.Get(r.Context(), r.PathValue("id"))
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, "", err
	}
	if err != nil || sameDigest(c.RegistrationDigest, token) != 1 {
		return nil, "", invalidToken(reasonRegistration)
	}
	return c, token, nil
}

// bearer returns the bearer token of a request. Tokens of this endpoint are never bound to a key.
func bearer(r *http.Request) (string, error) {
	scheme, token, sent, err := authheader.Read(r.Header["Authorization"])
	switch {
	case err != nil:
		return "", err
	case !sent || scheme != authheader.Bearer:
		return "", &valetkey.Error{Code: valetkey.NoCredentials, Reason: valetkey.ReasonNoCredentials}
	case token == "":
		return "", &valetkey.Error{Code: valetkey.InvalidRequest, Reason: valetkey.ReasonEmptyToken}
	}
	return token, nil
}

// mayChange refuses changes by a client to which the operator has given privileges, so that it cannot redirect them elsewhere.
func mayChange(c *Client) error {
	if c.Trusted || c.WithoutPKCE || len(c.Introspects) > 0 {
		return &valetkey.Error{Code: valetkey.InsufficientScope, Reason: reasonOperator}
	}
	return nil
}

// readClient returns the client described in the request's body, which may have these grant types, all its members, and warnings about
// values that are left out.
func (e *registration) readClient(r *http.Request, grantTypes []string) (sent members, c Client, warnings []string, err error) {
	refuse := func(err error) (members, Client, []string, error) { return nil, Client{}, nil, err }
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/json" {
		return refuse(&Invalid{Code: InvalidMetadata, Problem: "the content type is not application/json"})
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return refuse(&Invalid{Code: InvalidMetadata, Problem: "the body ends early or is too long"})
	}
	if sent, err = readMembers(body); err != nil {
		return refuse(&Invalid{Code: InvalidMetadata, Problem: "the body is not one JSON object with each member once"})
	}
	vouched, err := e.vouched(r.Context(), sent)
	if err != nil {
		return refuse(err)
	}
	if c, err = vouched.client(); err != nil {
		return refuse(err)
	}
	c.PrivateUse = e.cfg.Registry.privateUse
	warnings = narrowRedirects(&c)
	switch {
	case unknown(c.GrantTypes, e.cfg.GrantTypes):
		return refuse(&Invalid{Code: InvalidMetadata, Member: "grant_types", Problem: "one cannot be registered here"})
	case unknown(c.GrantTypes, grantTypes):
		return refuse(&Invalid{Code: InvalidMetadata, Member: "grant_types", Problem: "one can be registered only with an initial access token"})
	case unknown([]string{c.AuthMethod}, e.cfg.AuthMethods):
		return refuse(&Invalid{Code: InvalidMetadata, Member: "token_endpoint_auth_method", Problem: "cannot be registered here"})
	}
	narrowed, err := narrowScopes(&c, e.cfg.Scopes)
	if err != nil {
		return refuse(err)
	}
	return sent, c, append(warnings, narrowed...), nil
}

// narrowScopes leaves out the scopes that are not among known: the server "MAY [...] replace any of the client's requested
// metadata values" (RFC 7591, section 2), and clients ask for those of other servers, such as openid. Without any scope, the
// client gets all that are known. Without any that is known, the error is an [*Invalid].
func narrowScopes(c *Client, known []string) (warnings []string, err error) {
	if len(c.Scopes) == 0 {
		c.Scopes = slices.Clone(known)
		return nil, nil
	}
	var left, out []string
	for _, s := range c.Scopes {
		if slices.Contains(known, s) {
			left = append(left, s)
		} else {
			out = append(out, s)
		}
	}
	switch {
	case len(left) == 0:
		return nil, &Invalid{Code: InvalidMetadata, Member: "scope", Problem: "has none that can be registered here"}
	case len(out) > 0:
		warnings = []string{fmt.Sprintf("scope: %d cannot be registered here and were left out: %.200s", len(out), strings.Join(out, " "))}
	}
	c.Scopes = left
	return warnings, nil
}

// narrowRedirects leaves out redirect URIs with private-use schemes that are not accepted, if the client has others: any
// application on the user's device can claim such a scheme, and no domain identifies its owner (RFC 8252, section 8.4).
// Redirect URIs with other problems stay, so that [Validate] refuses them.
func narrowRedirects(c *Client) (warnings []string) {
	var left []string
	for _, uri := range c.RedirectURIs {
		if err := ValidRedirectURI(uri, c.Native, c.PrivateUse...); errors.Is(err, ErrPrivateUse) {
			warnings = append(warnings, fmt.Sprintf("redirect_uris: %.200s was left out: it %s, and private_use_schemes does not list it", uri, err))
		} else {
			left = append(left, uri)
		}
	}
	if len(left) == 0 || len(c.RedirectURIs) > maxRedirects {
		return nil
	}
	c.RedirectURIs = left
	return warnings
}

// answer returns a handler for a function that returns the response to the client, or an error.
func (e *registration) answer(do func(*http.Request) (int, *information, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		status, info, err := do(r)
		if err != nil {
			e.refuse(w, r, err)
			return
		}
		if info == nil {
			w.WriteHeader(status)
			return
		}
		writeJSON(w, status, info)
	}
}

// refuse writes an error response of RFC 7591, section 3.2.2, or RFC 6750, section 3.
func (e *registration) refuse(w http.ResponseWriter, r *http.Request, err error) {
	status, code, description := http.StatusServiceUnavailable, "temporarily_unavailable", "internal error: the request may be valid"
	invalid, isInvalid := errors.AsType[*Invalid](err)
	refusal, isRefusal := errors.AsType[*valetkey.Error](err)
	tooMany, isTooMany := errors.AsType[*login.TooMany](err)
	switch {
	case isInvalid:
		status, code, description = http.StatusBadRequest, invalid.Code, invalid.Description()
	case isRefusal:
		status, code, description = refusal.Status(), string(refusal.Code), refusal.Reason.Description()
		w.Header().Set("WWW-Authenticate", challenge(refusal))
	case isTooMany:
		status, description = http.StatusTooManyRequests, "too many registrations from this address"
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(max(1, tooMany.RetryAfter.Seconds())))))
	case errors.Is(err, store.ErrConflict):
		status, code, description = http.StatusConflict, InvalidMetadata, "the registration has changed meanwhile: read it and try again"
	default:
		w.Header().Set("Retry-After", "5")
		e.cfg.Logger.ErrorContext(r.Context(), "registration not answered", "method", r.Method, "error", err)
	}
	e.cfg.Audit(r.Context(), "registration refused", slog.String("method", r.Method), slog.Int("status", status), slog.String("error", code),
		slog.String("address", e.cfg.RemoteAddr(r)))
	body := map[string]string{}
	if code != "" { // RFC 6750, section 3.1: without a token in the request, there is no error code
		body["error"], body["error_description"] = code, description
	}
	writeJSON(w, status, body)
}

func challenge(e *valetkey.Error) string {
	text := `Bearer realm="registration"`
	if e.Code != valetkey.NoCredentials {
		text += fmt.Sprintf(`, error="%s", error_description="%s"`, e.Code, e.Reason.Description())
	}
	return text
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(body)
}

func remoteAddr(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}
