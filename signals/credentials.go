package signals

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/valetkey/valetkey/internal/clientauth"
	"github.com/valetkey/valetkey/internal/fetch"
)

// Credentials authenticate a receiver to the API of a transmitter with access tokens (SSF 1.0, section 7.1.1; CAEP Interoperability
// Profile 1.0, section 2.7). The zero value is none. Printing them does not reveal a secret.
type Credentials struct {
	token func(ctx context.Context, c fetch.Client, renew bool) (string, error)
	at    func(issuer string) Credentials // with the token endpoint of the issuer; nil: that of token is known
	err   error                           // a mistake in the arguments
}

func (c Credentials) isZero() bool { return c.token == nil && c.at == nil && c.err == nil }

// String returns a constant, so that no secret is printed.
func (c Credentials) String() string { return "credentials of a receiver" }

// BearerToken authenticates with the access token that token returns. token is called for each request, so it should cache the token
// until shortly before its expiry. It must be safe for concurrent use.
func BearerToken(token func(ctx context.Context) (string, error)) Credentials {
	if token == nil {
		return Credentials{err: errors.New("BearerToken: the function is nil")}
	}
	return Credentials{token: func(ctx context.Context, _ fetch.Client, _ bool) (string, error) { return token(ctx) }}
}

// TokenFile authenticates with the access token in a file, which is read for each request.
func TokenFile(file string) Credentials {
	if file == "" {
		return Credentials{err: errors.New("TokenFile: the name is empty")}
	}
	return Credentials{token: func(context.Context, fetch.Client, bool) (string, error) { return fetch.ReadToken(file) }}
}

// ClientCredentials authenticates with access tokens from a token endpoint (RFC 6749, section 4.4). It requests a new one shortly before
// the expiry of the last one, or when the transmitter refuses it.
type ClientCredentials struct {
	// TokenURL is the token endpoint. Empty: the token_endpoint in the OAuth metadata of Config.Transmitter (RFC 8414), whose issuer
	// must be identical to Config.Transmitter, as for any client (section 3.3). The endpoint may be on another host, and the secret is
	// sent there. Without such metadata, the stream is not set up, and the error names this field.
	TokenURL string

	// Auth is an introspect.Auth, which authenticates this client, such as introspect.BasicAuth(id, secret). Required; BearerAuth
	// and NoAuth name no client.
	Auth clientauth.Auth

	// Scope lists the scopes to request. Nil: ssf.read and ssf.manage (CAEP Interoperability Profile 1.0, section 2.7.2) or, if the token
	// endpoint answers with invalid_scope because the client does not have both, the one that it has. Most transmitters let ssf.manage do
	// everything; with ssf.read alone, the stream must exist already. Empty and not nil: the parameter is not sent.
	Scope []string

	// Resource is the resource to request (RFC 8707). Empty: none.
	Resource string
}

const (
	minTokenLife = time.Second
	tokenMargin  = 10 * time.Second // before the expiry
)

// ClientCredentialsGrant returns credentials that request access tokens.
func ClientCredentialsGrant(cfg ClientCredentials) Credentials {
	switch {
	case clientauth.Err(cfg.Auth) != nil:
		return Credentials{err: fmt.Errorf("Auth: %w", clientauth.Err(cfg.Auth))}
	case clientauth.ID(cfg.Auth) == "":
		return Credentials{err: errors.New("Auth: a method that names the client is required")}
	}
	if cfg.TokenURL == "" {
		return Credentials{at: func(issuer string) Credentials { return Credentials{token: (&grant{cfg: cfg, issuer: issuer}).get} }}
	}
	return Credentials{token: (&grant{cfg: cfg}).get}
}

// A TokenError means that [ClientCredentials] have led to no access token.
type TokenError struct {
	Code     string // of the token endpoint (RFC 6749, section 5.2), such as invalid_scope; "": it has not answered with one
	NotFound bool   // TokenURL is empty, and the metadata of the transmitter does not contain it
	Err      error
}

func (e *TokenError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *TokenError) Unwrap() error { return e.Err }

// A grant caches the access token of a client.
type grant struct {
	cfg      ClientCredentials
	issuer   string     // whose metadata contains the endpoint, if cfg.TokenURL is empty
	mu       sync.Mutex // held during a request, so that there is one at a time
	found    string     // the endpoint in the metadata; "": not fetched yet
	doubtful bool       // a request to found has failed, so the endpoint may have moved
	scope    string     // the one of defaultScopes that the token endpoint has accepted last; "": none yet
	token    string
	until    time.Time // zero: there is no token
}

// defaultScopes are the values of scope that are requested in order until the token endpoint accepts one, if ClientCredentials.Scope is
// nil. A client may have been given only one of the two (RFC 6749, section 5.2: invalid_scope).
var defaultScopes = []string{"ssf.read ssf.manage", "ssf.manage", "ssf.read"}

// endpointLocked returns the token endpoint. The metadata is fetched before the first request, and again after a failed one, at most once
// for each attempt to get a token. While it cannot be fetched, the endpoint that it contained remains.
func (g *grant) endpointLocked(ctx context.Context, c fetch.Client) (string, error) {
	if g.cfg.TokenURL != "" {
		return g.cfg.TokenURL, nil
	}
	if g.found == "" || g.doubtful {
		found, err := c.Discover(ctx, g.issuer, "token_endpoint")
		switch {
		case err == nil:
			g.found, g.doubtful = found, false
		case g.found == "":
			return "", &TokenError{NotFound: true, Err: fmt.Errorf("TokenURL is not set, and the metadata of the issuer %.200q does not state it: %w", g.issuer, err)}
		}
	}
	return g.found, nil
}

func (g *grant) get(ctx context.Context, c fetch.Client, renew bool) (string, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !renew && time.Now().Before(g.until) {
		return g.token, nil
	}
	endpoint, err := g.endpointLocked(ctx, c)
	if err != nil {
		return "", err
	}
	token, code, err := g.tryScopesLocked(ctx, c, endpoint)
	if g.doubtful = err != nil; err != nil {
		return "", &TokenError{Code: code, Err: err}
	}
	return token, nil
}

const invalidScope = "invalid_scope"

// tryScopesLocked requests an access token with the configured scopes, or with each of the default ones until one is accepted.
func (g *grant) tryScopesLocked(ctx context.Context, c fetch.Client, endpoint string) (token, code string, err error) {
	if g.cfg.Scope != nil {
		token, code, err = g.requestLocked(ctx, c, endpoint, strings.Join(g.cfg.Scope, " "))
		if code == invalidScope {
			err = fmt.Errorf("%w to Scope %q: the client does not have all of these scopes there", err, g.cfg.Scope)
		}
		return token, code, err
	}
	scopes := defaultScopes
	if g.scope != "" {
		scopes = append([]string{g.scope}, slices.DeleteFunc(slices.Clone(scopes), func(s string) bool { return s == g.scope })...)
	}
	for _, scope := range scopes {
		token, code, err = g.requestLocked(ctx, c, endpoint, scope)
		if err == nil {
			g.scope = scope
		}
		if code != invalidScope {
			return token, code, err
		}
	}
	return "", code, fmt.Errorf("%w to each of %q: give the client these scopes, or set Scope to those of the transmitter", err, scopes)
}

// requestLocked requests an access token. code is the error of the token endpoint.
func (g *grant) requestLocked(ctx context.Context, c fetch.Client, endpoint, scope string) (token, code string, err error) {
	form := url.Values{"grant_type": {"client_credentials"}}
	if scope != "" {
		form.Set("scope", scope)
	}
	if g.cfg.Resource != "" {
		form.Set("resource", g.cfg.Resource)
	}
	header := http.Header{}
	call := clientauth.Call{Form: form, Header: header, Audience: endpoint, Now: time.Now()}
	if err := clientauth.Add(ctx, g.cfg.Auth, call); err != nil {
		return "", "", err
	}
	reply, err := c.Submit(ctx, endpoint, form, header)
	if err != nil {
		return "", "", err
	}
	var answer struct {
		AccessToken string `json:"access_token"`
		TokenType   string `json:"token_type"`
		ExpiresIn   int64  `json:"expires_in"`
		Error       string `json:"error"`
	}
	err = json.Unmarshal(reply.Body, &answer)
	switch {
	case reply.Status != http.StatusOK:
		return "", answer.Error, fmt.Errorf("the token endpoint answers with status %d and the error %.50q", reply.Status, answer.Error)
	case err != nil || answer.AccessToken == "":
		return "", "", errors.New("the token endpoint answers without an access token")
	case !strings.EqualFold(answer.TokenType, "Bearer"):
		return "", "", fmt.Errorf("the token endpoint issues a token of the type %.20q, not Bearer", answer.TokenType)
	}
	life := time.Duration(min(max(answer.ExpiresIn, 0), 24*60*60)) * time.Second
	g.token, g.until = answer.AccessToken, time.Now().Add(max(life-tokenMargin, minTokenLife))
	return g.token, "", nil
}
