package signals

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
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
	err   error // a mistake in the arguments
}

func (c Credentials) isZero() bool { return c.token == nil && c.err == nil }

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
	// TokenURL is the token endpoint. Required.
	TokenURL string

	// Auth is an introspect.Auth, which authenticates this client, such as introspect.BasicAuth(id, secret). Required; BearerAuth
	// and NoAuth name no client.
	Auth clientauth.Auth

	// Scope lists the scopes to request. Nil: ssf.read and ssf.manage (CAEP Interoperability Profile 1.0, section 2.7.2).
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
	var wrong []error
	if cfg.TokenURL == "" {
		wrong = append(wrong, errors.New("TokenURL: required"))
	}
	switch {
	case clientauth.Err(cfg.Auth) != nil:
		wrong = append(wrong, fmt.Errorf("Auth: %w", clientauth.Err(cfg.Auth)))
	case clientauth.IsZero(cfg.Auth) || clientauth.ID(cfg.Auth) == "":
		wrong = append(wrong, errors.New("Auth: a method that names the client is required"))
	}
	if err := errors.Join(wrong...); err != nil {
		return Credentials{err: err}
	}
	if cfg.Scope == nil {
		cfg.Scope = []string{"ssf.read", "ssf.manage"}
	}
	g := &grant{cfg: cfg}
	return Credentials{token: g.get}
}

// A grant caches the access token of a client.
type grant struct {
	cfg   ClientCredentials
	mu    sync.Mutex // held during a request, so that there is one at a time
	token string
	until time.Time
}

func (g *grant) get(ctx context.Context, c fetch.Client, renew bool) (string, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.token != "" && !renew && time.Now().Before(g.until) {
		return g.token, nil
	}
	form := url.Values{"grant_type": {"client_credentials"}}
	if len(g.cfg.Scope) > 0 {
		form.Set("scope", strings.Join(g.cfg.Scope, " "))
	}
	if g.cfg.Resource != "" {
		form.Set("resource", g.cfg.Resource)
	}
	header := http.Header{}
	call := clientauth.Call{Form: form, Header: header, Audience: g.cfg.TokenURL, Now: time.Now()}
	if err := clientauth.Add(ctx, g.cfg.Auth, call); err != nil {
		return "", err
	}
	reply, err := c.Submit(ctx, g.cfg.TokenURL, form, header)
	if err != nil {
		return "", err
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
		return "", fmt.Errorf("the token endpoint answers with status %d and the error %.50q", reply.Status, answer.Error)
	case err != nil || answer.AccessToken == "":
		return "", errors.New("the token endpoint answers without an access token")
	case !strings.EqualFold(answer.TokenType, "Bearer"):
		return "", fmt.Errorf("the token endpoint issues a token of the type %.20q, not Bearer", answer.TokenType)
	}
	life := time.Duration(min(max(answer.ExpiresIn, 0), 24*60*60)) * time.Second
	g.token, g.until = answer.AccessToken, time.Now().Add(max(life-tokenMargin, minTokenLife))
	return g.token, nil
}
