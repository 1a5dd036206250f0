package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/valetkey/valetkey/authserver"
)

// A step is one request of the story and its expected response. Print prints both, and Check checks them.
type step struct {
	does      string
	client    string // the client that requests or revokes its token; "": the request is to the API
	revokes   bool
	later     time.Duration // wait before the request
	method    string
	path      string
	bearer    string // the client whose token it carries; "": no token
	damaged   bool   // with an invalid signature
	status    int
	challenge string // the value of WWW-Authenticate
}

const (
	reader   = "orders-reader"
	writer   = "orders-writer"
	keeper   = "vault-keeper"
	vaultAPI = "vault-api" // introspects tokens
)

var story = []step{
	{does: "the reader gets a token", client: reader, status: 200},
	{does: "with it, the reader lists the orders", method: "GET", path: "/orders", bearer: reader, status: 200},
	{does: "without a token, the list is refused", method: "GET", path: "/orders", status: 401,
		challenge: `Bearer realm="orders", scope="orders:read"`},
	{does: "the reader may not place an order", method: "POST", path: "/orders", bearer: reader, status: 403,
		challenge: `Bearer realm="orders", error="insufficient_scope", ` +
			`error_description="the token lacks a scope that this request needs", scope="orders:write"`},
	{does: "the writer gets a token", client: writer, status: 200},
	{does: "with it, the writer places an order", method: "POST", path: "/orders", bearer: writer, status: 201},
	{does: "a damaged token is refused", method: "GET", path: "/orders", bearer: reader, damaged: true, status: 401,
		challenge: `Bearer realm="orders", error="invalid_token", error_description="the signature of the token is wrong"`},
	{does: "the keeper gets a token (opaque)", client: keeper, status: 200},
	{does: "with it, the keeper opens the vault", method: "GET", path: "/vault", bearer: keeper, status: 200},
	{does: "the keeper revokes it at the authorization server", client: keeper, revokes: true, status: 200},
	{does: "one second later, it is refused", later: remembered, method: "GET", path: "/vault", bearer: keeper, status: 401,
		challenge: `Bearer realm="vault", error="invalid_token", error_description="the token is not active"`},
}

const (
	body   = `{"item":"pears"}`
	damage = "AAAAAAAA" // replaces the last characters of a token
)

// String returns the step with its status: "the reader gets a token: 200".
func (s step) String() string { return fmt.Sprintf("%s: %d", s.does, s.status) }

// Print writes the story as lines of at most 80 columns for a shell with curl and sed, each with its expected response. The responses
// are arguments of the command ":", which does nothing: an interactive zsh has no comments.
func Print(w io.Writer, at Place) {
	fmt.Fprintf(w, "The authorization server is at %s (--as-addr),\nthe orders API at %s (--api-addr).\n", at.Issuer, at.API)
	alice := authserver.Demo().Users[0]
	fmt.Fprintf(w, "For developers: log in at %s/developer\nas %s, with the password %s.\n", at.Issuer, alice.Name, alice.Password)
	fmt.Fprint(w, "Paste these lines into another shell:\n")
	for i, s := range story {
		fmt.Fprintf(w, "\n: '%d. %v'\n", i+1, s)
		if s.challenge != "" {
			fmt.Fprintf(w, ": '%s'\n", fold(strings.Split(strings.ReplaceAll("WWW-Authenticate: "+s.challenge, ", ", ",\x00"), "\x00"), "\n   "))
		}
		fmt.Fprintln(w, fold(s.shell(at), " \\\n  "))
	}
	fmt.Fprintln(w)
}

// width is the number of columns of the narrowest terminal that the lines are for.
const width = 80

// fold joins words with spaces, or with next where a line would become too long.
func fold(words []string, next string) string {
	text, column := words[0], len(": '"+words[0])
	for _, word := range words[1:] {
		if column+len(" "+word+` \`) > width {
			text, column = text+next+word, len(next+word)
		} else {
			text, column = text+" "+word, column+len(" "+word)
		}
	}
	return text
}

// shell returns the words of the command.
func (s step) shell(at Place) []string {
	switch {
	case s.revokes:
		return []string{"curl -i", "-u " + s.client + ":" + secret(s.client), `-d "token=$` + variable(s.client) + `"`, at.revokeURL()}
	case s.client != "":
		return []string{variable(s.client) + "=$(curl -s -u " + s.client + ":" + secret(s.client), "-d grant_type=client_credentials", at.tokenURL(),
			`| sed 's/.*"access_token": *"\([^"]*\)".*/\1/')`}
	}
	words := []string{"curl -i"}
	if s.later > 0 {
		words = []string{fmt.Sprintf("sleep %.0f;", s.later.Seconds()), "curl -i"}
	}
	if s.bearer != "" {
		token := variable(s.bearer)
		if s.damaged {
			token = "{" + token + "%" + strings.Repeat("?", len(damage)) + "}" + damage
		}
		words = append(words, `-H "Authorization: Bearer $`+token+`"`)
	}
	if s.method == http.MethodPost {
		words = append(words, "-d '"+body+"'")
	}
	return append(words, at.API+s.path)
}

// variable returns the shell variable for a client: "READER" for "orders-reader".
func variable(client string) string {
	_, name, _ := strings.Cut(client, "-")
	return strings.ToUpper(name)
}

// secret returns the secret of a client, which follows the pattern of authserver.Demo.
func secret(client string) string { return "demo-secret-of-" + client }

func (p Place) tokenURL() string  { return p.Issuer + "/oauth2/token" }
func (p Place) revokeURL() string { return p.Issuer + "/oauth2/revoke" }

// ErrDiffers is returned by [Check] if a response differs from the one that [Print] prints.
var ErrDiffers = errors.New("at least one response differs from the expected one")

// Check runs the story with a real client and writes the result of each step.
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
	if s.client != "" && !s.revokes {
		return s.getToken(ctx, at, tokens)
	}
	r, err := s.request(ctx, at, tokens)
	if err != nil {
		return 0, "", err
	}
	select {
	case <-time.After(s.later):
	case <-ctx.Done():
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	return res.StatusCode, strings.Join(res.Header.Values("WWW-Authenticate"), ", "), nil
}

// request returns the request of a step that does not request a token.
func (s step) request(ctx context.Context, at Place, tokens map[string]*oauth2.Token) (*http.Request, error) {
	token := tokens[s.bearer+s.client] // one of the two is empty
	if token == nil && s.bearer+s.client != "" {
		return nil, fmt.Errorf("no request: there is no token of %s", s.bearer+s.client)
	}
	if s.revokes {
		form := url.Values{"token": {token.AccessToken}}
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, at.revokeURL(), strings.NewReader(form.Encode()))
		if err != nil {
			return nil, err
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.SetBasicAuth(s.client, secret(s.client))
		return r, nil
	}
	var content io.Reader
	if s.method == http.MethodPost {
		content = strings.NewReader(body)
	}
	r, err := http.NewRequestWithContext(ctx, s.method, at.API+s.path, content)
	if err != nil {
		return nil, err
	}
	if s.damaged {
		token = &oauth2.Token{AccessToken: token.AccessToken[:max(0, len(token.AccessToken)-len(damage))] + damage}
	}
	if token != nil {
		token.SetAuthHeader(r)
	}
	return r, nil
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
