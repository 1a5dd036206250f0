package pages

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/valetkey/valetkey/authserver/internal/clients"
	"github.com/valetkey/valetkey/authserver/model"
	"github.com/valetkey/valetkey/authserver/store"
	"github.com/valetkey/valetkey/internal/recorder"
)

// tryPath is the redirect URI of trials, below the base. Applications registered in the portal have it among theirs.
const tryPath = "/developer/try/callback"

// A flight is a trial in progress through the authorization endpoint.
type flight struct{ Client, Audience, Scope, State, Verifier string }

// A trial is the outcome of a trial: a token or an error.
type trial struct {
	Client, Audience   string
	Error, Description string

	Token, Type string
	Scope       string
	Until       time.Time // zero: unknown
	Refreshable bool
	Use         *use // its latest use
}

// A use is a request with the token, and its response, as sent over the network.
type use struct {
	Request, Response string
	Unreachable       bool // there is no response
}

const (
	flightKey   = "flight"
	trialKey    = "trial"
	maxResponse = 16 << 10 // maximum shown, in bytes
	useTimeout  = 10 * time.Second
)

// trialAPIs returns the APIs that an application of the portal can be tried with.
func (v *visit) trialAPIs(c *clients.Client) (list []model.API) {
	if kindOf(c).Redirects() && !slices.Contains(c.RedirectURIs, v.tryURI) || !c.Public() && len(c.SecretDigest) == 0 {
		return nil
	}
	for _, a := range v.cfg.APIs {
		if a.Among(c.Scopes).Len() > 0 {
			list = append(list, a)
		}
	}
	return list
}

// try starts the flow of the application as the application itself would: with PKCE, or for a service at the token endpoint.
func (v *visit) try(c *clients.Client) (*reply, error) {
	apis := v.trialAPIs(c)
	i := slices.IndexFunc(apis, func(a model.API) bool { return a.Audience == v.r.PostForm.Get("audience") })
	if i < 0 {
		return nil, errNotFound
	}
	scope := apis[i].Among(c.Scopes).String()
	if !kindOf(c).Redirects() {
		return v.finish(c, apis[i].Audience, scope, url.Values{"grant_type": {"client_credentials"}, "scope": {scope}, "resource": {apis[i].Audience}})
	}
	f := flight{c.ID, apis[i].Audience, scope, rand.Text(), rand.Text() + rand.Text()} // RFC 7636, section 4.1: 43 characters or more
	challenge := sha256.Sum256([]byte(f.Verifier))
	query := url.Values{
		"response_type": {"code"}, "client_id": {c.ID}, "redirect_uri": {v.tryURI}, "state": {f.State},
		"scope": {scope}, "resource": {apis[i].Audience}, "prompt": {"consent"}, // the developer wants to see the page
		"code_challenge": {base64.RawURLEncoding.EncodeToString(challenge[:])}, "code_challenge_method": {"S256"},
	}
	separator := "?"
	if strings.Contains(v.cfg.AuthorizeURL, "?") {
		separator = "&"
	}
	return &reply{location: v.cfg.AuthorizeURL + separator + query.Encode()}, v.put(flightKey, f)
}

// tried handles the response of the authorization endpoint.
func (v *visit) tried() (*reply, error) {
	query := v.r.URL.Query()
	var f flight
	// RFC 6749, section 10.12: a response is accepted only once, and only if it was requested.
	if !v.take(flightKey, &f) || subtle.ConstantTimeCompare([]byte(f.State), []byte(query.Get("state"))) != 1 {
		return nil, &refusal{status: http.StatusBadRequest, title: msg("try.none.title"), words: msg("try.none")}
	}
	// RFC 9207, section 2.4: iss must be present and identify this server.
	if query.Get("iss") != v.cfg.Issuer {
		return nil, &refusal{status: http.StatusBadRequest, title: msg("try.foreign.title"), words: msg("try.foreign")}
	}
	c, err := v.own(f.Client)
	if err != nil {
		return nil, err
	}
	if query.Has("error") {
		end := trial{Client: c.ID, Error: query.Get("error"), Description: query.Get("error_description")}
		return v.seeApplication(c.ID, "/token"), v.put(trialKey, end)
	}
	return v.finish(c, f.Audience, f.Scope, url.Values{
		"grant_type": {"authorization_code"}, "code": {query.Get("code")}, "redirect_uri": {v.tryURI}, "code_verifier": {f.Verifier},
	})
}

// finish sends a request to the token endpoint and keeps the response for the next page.
func (v *visit) finish(c *clients.Client, audience, scope string, form url.Values) (*reply, error) {
	end, err := v.askToken(c, form)
	if err != nil {
		return nil, err
	}
	end.Audience, end.Scope = audience, cmp.Or(end.Scope, scope) // RFC 6749, section 5.1: it may be omitted if it is equal to the requested scope
	v.cfg.Logger.InfoContext(v.r.Context(), "application tried", "subject", v.user.Subject, "client", c.ID, "error", end.Error)
	return v.seeApplication(c.ID, "/token"), v.put(trialKey, end)
}

// askToken sends a request to the token endpoint as the application would. The secret of the application is not known, so the
// application gets an additional one for the duration of the request.
func (v *visit) askToken(c *clients.Client, form url.Values) (end trial, err error) {
	ctx := v.r.Context()
	var secret string
	if !c.Public() {
		secret = rand.Text()
		if err := v.changeSecrets(ctx, c.ID, func(list []string) []string { return append(list, store.Digest(secret)) }); err != nil {
			return trial{}, err
		}
		defer func() {
			gone := v.changeSecrets(context.WithoutCancel(ctx), c.ID, func(list []string) []string {
				return slices.DeleteFunc(list, func(d string) bool { return d == store.Digest(secret) })
			})
			if err == nil && !errors.Is(gone, store.ErrNotFound) {
				err = gone
			}
		}()
	} else {
		form.Set("client_id", c.ID)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, v.cfg.TokenURL, strings.NewReader(form.Encode()))
	if err != nil {
		return trial{}, fmt.Errorf("ask for a token: %w", err)
	}
	r.RequestURI, r.RemoteAddr = r.URL.RequestURI(), v.r.RemoteAddr
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if secret != "" {
		r.SetBasicAuth(url.QueryEscape(c.ID), secret) // RFC 6749, section 2.3.1
	}
	var answer recorder.Response
	v.cfg.Token.ServeHTTP(&answer, r)
	return readTokenResponse(c.ID, &answer)
}

func (v *visit) changeSecrets(ctx context.Context, id string, change func([]string) []string) error {
	return retry(func() error {
		c, err := v.cfg.Clients.Get(ctx, id)
		if err != nil {
			return err
		}
		c.SecretDigest = change(slices.Clone(c.SecretDigest))
		return v.cfg.Clients.Update(ctx, *c)
	})
}

// readTokenResponse parses a response of RFC 6749, sections 5.1 and 5.2.
func readTokenResponse(client string, answer *recorder.Response) (trial, error) {
	var body struct {
		AccessToken  string `json:"access_token"`
		TokenType    string `json:"token_type"`
		ExpiresIn    int64  `json:"expires_in"`
		Scope        string `json:"scope"`
		RefreshToken string `json:"refresh_token"`
		Error        string `json:"error"`
		Description  string `json:"error_description"`
	}
	err := json.Unmarshal(answer.Body.Bytes(), &body)
	switch {
	case err != nil || body.AccessToken == "" && body.Error == "":
		return trial{}, fmt.Errorf("the token endpoint answered %d without a token or an error", answer.Status)
	case body.Error != "":
		return trial{Client: client, Error: body.Error, Description: body.Description}, nil
	}
	end := trial{Client: client, Token: body.AccessToken, Type: body.TokenType, Scope: body.Scope, Refreshable: body.RefreshToken != ""}
	if body.ExpiresIn > 0 {
		end.Until = time.Now().Add(time.Duration(body.ExpiresIn) * time.Second)
	}
	return end, nil
}

// A trialPage is the data of the page that shows the outcome of a trial.
type trialPage struct {
	trial
	ID, Title      string
	Parts          []string // of the token, without the dots between
	Header, Claims []member
	Bound          *message
	UseURL         string // "": none
}

func (v *visit) showToken(c *clients.Client) (*reply, error) {
	var end trial
	if !v.get(trialKey, &end) || end.Client != c.ID {
		return v.seeApplication(c.ID, ""), nil
	}
	page := trialPage{trial: end, ID: c.ID, Title: title(c), Parts: strings.Split(end.Token, ".")}
	if end.Error != "" {
		return &reply{page: "token", title: msg("try.refused"), data: page}, nil
	}
	page.UseURL = v.api(end.Audience).TryURL
	if jwt, ok := explain(end.Token, time.Now()); ok {
		page.Header, page.Claims, page.Bound = jwt.header, jwt.claims, jwt.bound
	}
	return &reply{page: "token", title: msg("token.title"), data: page}, nil
}

// tryClient follows no redirect and uses one connection per call.
var tryClient = &http.Client{
	Timeout:       useTimeout,
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	Transport:     &http.Transport{DisableKeepAlives: true},
}

// useToken sends the token to the configured URL of the API only.
func (v *visit) useToken(c *clients.Client) (*reply, error) {
	var end trial
	if !v.get(trialKey, &end) || end.Client != c.ID || end.Token == "" {
		return v.seeApplication(c.ID, ""), nil
	}
	target := v.api(end.Audience).TryURL
	if target == "" {
		return nil, errNotFound
	}
	r, err := http.NewRequestWithContext(v.r.Context(), http.MethodGet, target, nil)
	if err != nil {
		return nil, fmt.Errorf("use the token: %w", err)
	}
	r.Header.Set("Authorization", "Bearer "+end.Token)
	end.Use = &use{Request: fmt.Sprintf("GET %s HTTP/1.1\nHost: %s\nAuthorization: Bearer %s", r.URL.RequestURI(), r.URL.Host, end.Token)}
	end.Use.Response, err = fetch(r)
	if err != nil { // not our outage: the page shows it
		v.cfg.Logger.WarnContext(v.r.Context(), "API not reached with a trial token", "url", target, "error", err)
		end.Use.Unreachable = true
	}
	return v.seeApplication(c.ID, "/token#use"), v.put(trialKey, end)
}

// fetch returns the response as text.
func fetch(r *http.Request) (string, error) {
	resp, err := tryClient.Do(r)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxResponse))
	if err != nil {
		return "", err
	}
	var text strings.Builder
	fmt.Fprintf(&text, "%s %s\n", resp.Proto, resp.Status)
	for _, name := range slices.Sorted(maps.Keys(resp.Header)) {
		fmt.Fprintf(&text, "%s: %s\n", name, strings.Join(resp.Header[name], ", "))
	}
	var pretty bytes.Buffer
	if isShallow(body) && json.Indent(&pretty, body, "", "  ") == nil {
		body = pretty.Bytes()
	}
	fmt.Fprintf(&text, "\n%s", strings.ToValidUTF8(string(body), "\uFFFD"))
	return text.String(), nil
}

// isShallow reports whether JSON has so little nesting that indentation does not multiply its length.
func isShallow(text []byte) bool {
	const most = 30
	depth := 0
	for _, c := range text {
		switch c {
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		}
		if depth > most {
			return false
		}
	}
	return true
}
