// Package grant gets access tokens with the client credentials grant (RFC 6749, section 4.4).
package grant

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/valetkey/valetkey/cmd/valetkey/internal/issuer"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/proof"
	"github.com/valetkey/valetkey/internal/fetch"
)

const timeout = 15 * time.Second

// A Request is a token request of a client.
type Request struct {
	Issuer       string // authorization server whose metadata contains the token endpoint (RFC 8414)
	TokenURL     string // the token endpoint, instead of Issuer
	ClientID     string
	Secret       string
	Post         bool     // send the secret in the form instead of the header
	Scopes       []string // empty: the default of the server
	Resources    []string // the APIs for which the token is requested (RFC 8707)
	Key          *proof.Key
	InsecureHTTP bool // permits http URLs outside loopback
}

// A Refusal is an error response of the server (RFC 6749, section 5.2).
type Refusal struct{ Code, Description string }

func (r *Refusal) Error() string {
	if r.Description == "" {
		return r.Code
	}
	return r.Code + ": " + r.Description
}

// Mistakes returns the mistakes in r. Their fields are issuer, token_url and client_id.
func (r Request) Mistakes() (all []issuer.Mistake) {
	check := func(field string, err error) {
		if err != nil {
			all = append(all, issuer.Mistake{Field: field, Err: err})
		}
	}
	client := fetch.Client{InsecureHTTP: r.InsecureHTTP, Setting: "--insecure-http"}
	switch {
	case r.Issuer != "" && r.TokenURL != "":
		check("token_url", errors.New("cannot be combined with an issuer"))
	case r.TokenURL != "":
		check("token_url", client.Allowed(r.TokenURL))
	case r.Issuer != "":
		check("issuer", client.Discoverable(r.Issuer))
	default:
		check("issuer", errors.New("required, or a token URL"))
	}
	if r.ClientID == "" {
		check("client_id", errors.New("required"))
	}
	return all
}

// Token requests a token. If Key is set, the token is bound to it. Token follows no redirects and takes at most 15 seconds. If
// the server refuses the request, the error is a [*Refusal].
func (r Request) Token(ctx context.Context) (*oauth2.Token, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if r.TokenURL == "" {
		var err error
		if r.TokenURL, err = (fetch.Client{InsecureHTTP: r.InsecureHTTP, Setting: "--insecure-http"}).Discover(ctx, r.Issuer, "token_endpoint"); err != nil {
			return nil, err
		}
	}
	ask := clientcredentials.Config{
		ClientID: r.ClientID, ClientSecret: r.Secret, TokenURL: r.TokenURL, AuthStyle: oauth2.AuthStyleInHeader,
		Scopes: r.Scopes, EndpointParams: url.Values{},
	}
	if r.Post {
		ask.AuthStyle = oauth2.AuthStyleInParams
	}
	if len(r.Resources) > 0 {
		ask.EndpointParams["resource"] = r.Resources
	}
	t, err := ask.Token(context.WithValue(ctx, oauth2.HTTPClient, r.client()))
	if err != nil {
		return nil, r.failure(err)
	}
	return t, r.accept(t)
}

func (r Request) client() *http.Client {
	c := &http.Client{
		// Refuse redirects: the secret would be sent to a URL that was not configured.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	if r.Key != nil {
		c.Transport = proof.Transport{Key: r.Key, Base: http.DefaultTransport}
	}
	return c
}

// failure returns the error to show, without the body of the response and the query of the URL.
func (r Request) failure(err error) error {
	at := fetch.Bare(r.TokenURL)
	if e, ok := errors.AsType[*oauth2.RetrieveError](err); ok {
		if e.ErrorCode != "" {
			return &Refusal{e.ErrorCode, e.ErrorDescription}
		}
		return fmt.Errorf("%s: status %d without an OAuth error", at, e.Response.StatusCode)
	}
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err
	}
	return fmt.Errorf("%s: %w", at, err)
}

// accept returns an error if the token is not of the requested kind.
func (r Request) accept(t *oauth2.Token) error {
	want := "Bearer"
	if r.Key != nil {
		want = "DPoP"
	}
	switch {
	case !strings.EqualFold(t.TokenType, want) && r.Key != nil: // RFC 9449, section 5: the token is not bound to the key
		return fmt.Errorf("the server did not bind the token to the key: token_type is %.50q, not DPoP", t.TokenType)
	case !strings.EqualFold(t.TokenType, want): // RFC 6749, section 7.1
		return fmt.Errorf("token_type is %.50q, not Bearer", t.TokenType)
	case strings.ContainsFunc(t.AccessToken, func(c rune) bool { return c <= ' ' || c > '~' }): // RFC 6750, section 2.1
		return errors.New("the token contains a character that a header cannot carry")
	}
	return nil
}
