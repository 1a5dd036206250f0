package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/valetkey/valetkey/authserver"
)

// A step is one request of the story and the answer to expect, which is both printed and checked.
type step struct {
	does      string
	client    string // asks for a token; or else there is a request for /orders:
	method    string
	bearer    string // whose token it carries, "" none
	damaged   bool   // with a signature that is spoilt
	status    int
	challenge string // all of WWW-Authenticate
}

const (
	reader = "orders-reader"
	writer = "orders-writer"
)

var story = []step{
	{does: "the reader gets a token", client: reader, status: 200},
	{does: "with it, the reader lists the orders", method: "GET", bearer: reader, status: 200},
	{does: "nobody lists them without a token", method: "GET", status: 401,
		challenge: `Bearer realm="orders", scope="orders:read"`},
	{does: "the reader may not place an order", method: "POST", bearer: reader, status: 403,
		challenge: `Bearer realm="orders", error="insufficient_scope", ` +
			`error_description="the token lacks a scope that this request needs", scope="orders:write"`},
	{does: "the writer gets a token", client: writer, status: 200},
	{does: "with it, the writer places an order", method: "POST", bearer: writer, status: 201},
	{does: "a damaged token opens nothing", method: "GET", bearer: reader, damaged: true, status: 401,
		challenge: `Bearer realm="orders", error="invalid_token", error_description="the signature of the token is wrong"`},
}

const (
	body   = `{"item":"pears"}`
	damage = "AAAAAAAA" // in place of the last characters of a token
)

// String returns the step with its status: "the reader gets a token: 200".
func (s step) String() string { return fmt.Sprintf("%s: %d", s.does, s.status) }

// Print writes the story as lines for a shell with curl and sed, each with the answer to expect.
func Print(w io.Writer, at Place) {
	fmt.Fprintf(w, "The authorization server is at %s, the orders API at %s.\nPaste these lines into another shell:\n", at.Issuer, at.API)
	for i, s := range story {
		fmt.Fprintf(w, "\n# %d. %v\n", i+1, s)
		if s.challenge != "" {
			fmt.Fprintf(w, "# WWW-Authenticate: %s\n", s.challenge)
		}
		fmt.Fprintln(w, s.shell(at))
	}
	fmt.Fprintln(w)
}

func (s step) shell(at Place) string {
	if s.client != "" {
		return fmt.Sprintf(`%s=$(curl -s -u %s:%s -d grant_type=client_credentials %s | sed 's/.*"access_token": *"\([^"]*\)".*/\1/')`,
			variable(s.client), s.client, secret(s.client), at.tokenURL())
	}
	line := "curl -i"
	if s.bearer != "" {
		token := variable(s.bearer)
		if s.damaged {
			token = "{" + token + "%" + strings.Repeat("?", len(damage)) + "}" + damage
		}
		line += ` -H "Authorization: Bearer $` + token + `"`
	}
	if s.method == http.MethodPost {
		line += " -d '" + body + "'"
	}
	return line + " " + at.API + "/orders"
}

// variable is "READER" for "orders-reader".
func variable(client string) string {
	return strings.ToUpper(strings.TrimPrefix(client, "orders-"))
}

func secret(client string) string {
	for _, c := range authserver.Demo().Clients {
		if c.ID == client {
			return c.Secret
		}
	}
	return ""
}

func (p Place) tokenURL() string { return p.Issuer + "/oauth2/token" }

// ErrDiffers is what [Check] returns if an answer is not the one that [Print] prints.
var ErrDiffers = errors.New("not every answer is the one expected")

// Check plays the story with a real client and writes how each step ended.
func Check(ctx context.Context, w io.Writer, at Place) error {
	tokens := map[string]*oauth2.Token{}
	var differs error
	for i, s := range story {
		status, challenge, err := s.play(ctx, at, tokens)
		verdict := "ok  "
		if err != nil || status != s.status || challenge != s.challenge {
			verdict, differs = "FAIL", ErrDiffers
		}
		fmt.Fprintf(w, "%s %d. %v\n", verdict, i+1, s)
		if s.challenge != "" {
			fmt.Fprintf(w, "     WWW-Authenticate: %s\n", s.challenge)
		}
		switch {
		case err != nil:
			fmt.Fprintf(w, "     got %v\n", err)
		case verdict == "FAIL":
			fmt.Fprintf(w, "     got %d\n     WWW-Authenticate: %s\n", status, challenge)
		}
	}
	return differs
}

func (s step) play(ctx context.Context, at Place, tokens map[string]*oauth2.Token) (status int, challenge string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if s.client != "" {
		return s.getToken(ctx, at, tokens)
	}
	var content io.Reader
	if s.method == http.MethodPost {
		content = strings.NewReader(body)
	}
	r, err := http.NewRequestWithContext(ctx, s.method, at.API+"/orders", content)
	if err != nil {
		return 0, "", err
	}
	if s.bearer != "" {
		token := tokens[s.bearer]
		if token == nil {
			return 0, "", fmt.Errorf("no request: there is no token of %s", s.bearer)
		}
		if s.damaged {
			token = &oauth2.Token{AccessToken: token.AccessToken[:max(0, len(token.AccessToken)-len(damage))] + damage}
		}
		token.SetAuthHeader(r)
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	return res.StatusCode, strings.Join(res.Header.Values("WWW-Authenticate"), ", "), nil
}

func (s step) getToken(ctx context.Context, at Place, tokens map[string]*oauth2.Token) (status int, challenge string, err error) {
	client := clientcredentials.Config{
		ClientID:     s.client,
		ClientSecret: secret(s.client),
		TokenURL:     at.tokenURL(),
		AuthStyle:    oauth2.AuthStyleInHeader,
	}
	token, err := client.Token(ctx)
	var refused *oauth2.RetrieveError
	switch {
	case errors.As(err, &refused):
		return refused.Response.StatusCode, refused.Response.Header.Get("WWW-Authenticate"), nil
	case err != nil:
		return 0, "", err
	}
	tokens[s.client] = token
	return http.StatusOK, "", nil
}
