package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/authserver"
)

// A step is one request of the story and its expected response. Print prints both, and Check checks them.
type step struct {
	does      string
	act       action
	client    string        // that acts; "" for a request to the API
	shell     string        // heading of the lines that begin with this step; "": they continue those of the step before
	later     time.Duration // wait before the request
	method    string
	path      string
	bearer    string // the client whose token it carries; "": no token
	damaged   bool   // with an invalid signature
	status    int
	challenge string // the value of WWW-Authenticate
}

// An action is what a step does.
type action int

const (
	callAPI     action = iota
	openStream         // is callAPI for a response that does not end, which remains open
	getToken           // with client credentials
	revokeToken        // that the client has got
	logIn              // alice, in her browser
	getCode            // of the client, for the user who has logged in
	redeemCode         // for a token of the client
	logOut             // alice, which must end the open stream
)

const (
	reader   = "orders-reader"
	writer   = "orders-writer"
	keeper   = "vault-keeper"
	shop     = "orders-shop" // acts for users
	ordersID = "orders-api"  // receives signals
	vaultAPI = "vault-api"   // introspects tokens
)

var story = []step{
	{does: "the reader gets a token", act: getToken, client: reader, status: 200, shell: "Paste these lines into another shell:"},
	{does: "with it, the reader lists the orders", method: "GET", path: "/orders", bearer: reader, status: 200},
	{does: "without a token, the list is refused", method: "GET", path: "/orders", status: 401,
		challenge: `Bearer realm="orders", scope="orders:read"`},
	{does: "the reader may not place an order", method: "POST", path: "/orders", bearer: reader, status: 403,
		challenge: `Bearer realm="orders", error="insufficient_scope", ` +
			`error_description="the token lacks a scope that this request needs", scope="orders:write"`},
	{does: "the writer gets a token", act: getToken, client: writer, status: 200},
	{does: "with it, the writer places an order", method: "POST", path: "/orders", bearer: writer, status: 201},
	{does: "a damaged token is refused", method: "GET", path: "/orders", bearer: reader, damaged: true, status: 401,
		challenge: `Bearer realm="orders", error="invalid_token", error_description="the signature of the token is wrong"`},
	{does: "the keeper gets a token (opaque)", act: getToken, client: keeper, status: 200},
	{does: "with it, the keeper opens the vault", method: "GET", path: "/vault", bearer: keeper, status: 200},
	{does: "the keeper revokes it at the authorization server", act: revokeToken, client: keeper, status: 200},
	{does: "one second later, it is refused", later: remembered, method: "GET", path: "/vault", bearer: keeper, status: 401,
		challenge: `Bearer realm="vault", error="invalid_token", error_description="the token is not active"`},
	{does: "alice logs in", act: logIn, status: 303},
	{does: "the shop gets a code for her", act: getCode, client: shop, status: 303},
	{does: "the shop gets a token for the code", act: redeemCode, client: shop, status: 200},
	{does: "with it, the shop streams the orders", act: openStream, method: "GET", path: "/orders/stream", bearer: shop, status: 200},
	{does: "alice logs out, and the stream ends", act: logOut, status: 303,
		shell: "The stream stays open. Paste this into a third shell, and watch the stream end:"},
	{does: "one second later, the token of the shop is refused", later: time.Second, method: "GET", path: "/orders", bearer: shop, status: 401,
		challenge: `Bearer realm="orders", error="invalid_token", error_description="the token has been revoked"`,
		shell:     "Paste this into the shell with the stream:"},
}

const (
	body   = `{"item":"pears"}`
	damage = "AAAAAAAA" // replaces the last characters of a token

	// callback is where the browser would bring the code. It is read from the redirect instead, because no shop listens there.
	callback = "http://localhost:8080/callback"

	// A client makes a new pair for each code (RFC 7636, section 4.1). The story has that of appendix B.
	codeVerifier  = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
	codeChallenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"

	cookies = "~/alice.cookies" // the browser of alice, for two shells; removed at the log-out
)

// String returns the step with its status: "the reader gets a token: 200".
func (s step) String() string { return fmt.Sprintf("%s: %d", s.does, s.status) }

// Print writes the story as lines of at most 80 columns for shells with curl and sed, each with its expected response. The responses
// are arguments of the command ":", which does nothing: an interactive zsh has no comments.
func Print(w io.Writer, at Place) {
	fmt.Fprintf(w, "The authorization server is at %s (--as-addr),\nthe orders API at %s (--api-addr).\n", at.Issuer, at.API)
	alice := user()
	fmt.Fprintf(w, "For developers: log in at %s/developer\nas %s, with the password %s.\n", at.Issuer, alice.Name, alice.Password)
	for _, p := range Parts(at) {
		fmt.Fprintf(w, "%s\n\n%s\n", p.Heading, p.Lines)
	}
}

// A Part of the story is for one shell.
type Part struct {
	Heading string // names the shell
	Lines   string
}

// Parts returns what [Print] writes for the shells, in order.
func Parts(at Place) (all []Part) {
	for i, s := range story {
		text := fmt.Sprintf(": '%d. %v'\n", i+1, s)
		if s.challenge != "" {
			text += fmt.Sprintf(": '%s'\n", fold(strings.Split(strings.ReplaceAll("WWW-Authenticate: "+s.challenge, ", ", ",\x00"), "\x00"), "\n   "))
		}
		for _, words := range s.commands(at) {
			text += fold(words, " \\\n  ") + "\n"
		}
		if s.shell != "" {
			all = append(all, Part{s.shell, text})
		} else {
			all[len(all)-1].Lines += "\n" + text
		}
	}
	return all
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

// commands returns the words of each command.
func (s step) commands(at Place) [][]string {
	const tokenOf = `| sed 's/.*"access_token": *"\([^"]*\)".*/\1/')`
	credentials := "-u " + s.client + ":" + secret(s.client)
	switch s.act {
	case revokeToken:
		return [][]string{{"curl -i", credentials, `-d "token=$` + variable(s.client) + `"`, at.revokeURL()}}
	case getToken:
		return [][]string{{variable(s.client) + "=$(curl -s " + credentials, "-d grant_type=client_credentials", at.tokenURL(), tokenOf}}
	case logIn:
		return [][]string{{"curl -i", "-c " + cookies, "-d name=" + user().Name, "-d password=" + user().Password, at.loginURL()}}
	case getCode:
		return [][]string{{"CODE=$(curl -s -G", "-b " + cookies, "-o /dev/null", "-w '%{redirect_url}'",
			"-d response_type=code", "-d client_id=" + s.client, "-d redirect_uri=" + callback,
			"-d code_challenge_method=S256", "-d code_challenge=" + codeChallenge, at.authorizeURL(),
			`| sed 's/.*[?&]code=\([^&]*\).*/\1/')`}}
	case redeemCode:
		return [][]string{{variable(s.client) + "=$(curl -s " + credentials, "-d grant_type=authorization_code", `-d "code=$CODE"`,
			"-d redirect_uri=" + callback, "-d code_verifier=" + codeVerifier, at.tokenURL(), tokenOf}}
	case logOut:
		return [][]string{
			{"FORM=$(curl -s", "-b " + cookies, at.Issuer + "/", `| sed -n '/logout/,/token/s/.*value="\(.*\)".*/token=\1/p')`},
			{"curl -i", "-b " + cookies, `-d "$FORM"`, at.logoutURL() + "; rm " + cookies},
		}
	}
	words := []string{"curl -i"}
	if s.act == openStream {
		words[0] += " -N"
	}
	if s.later > 0 {
		words = append([]string{fmt.Sprintf("sleep %.0f;", s.later.Seconds())}, words...)
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
	return [][]string{append(words, at.API+s.path)}
}

// variable returns the shell variable for the token of a client: "READER" for "orders-reader".
func variable(client string) string {
	_, name, _ := strings.Cut(client, "-")
	return strings.ToUpper(name)
}

// secret returns the secret of a client, which follows the pattern of authserver.Demo.
func secret(client string) string { return "demo-secret-of-" + client }

// user returns alice.
func user() authserver.User { return authserver.Demo().Users[0] }

func (p Place) tokenURL() string     { return p.Issuer + "/oauth2/token" }
func (p Place) revokeURL() string    { return p.Issuer + "/oauth2/revoke" }
func (p Place) authorizeURL() string { return p.Issuer + "/oauth2/authorize" }
func (p Place) loginURL() string     { return p.Issuer + "/login" }
func (p Place) logoutURL() string    { return p.Issuer + "/logout" }

// ErrDiffers is returned by [Check] if a response differs from the one that [Print] prints.
var ErrDiffers = errors.New("at least one response differs from the expected one")

// Check runs the story with a real client and writes the result of each step.
func Check(ctx context.Context, w io.Writer, at Place) error {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx) // ends an open stream
	defer cancel()
	p := &player{at: at, tokens: map[string]*oauth2.Token{}, browser: http.Client{
		Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	var differs error
	for i, s := range story {
		status, challenge, err := p.play(ctx, s)
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

// patience is the limit for one step.
const patience = 10 * time.Second

// A player plays the story.
type player struct {
	at      Place
	tokens  map[string]*oauth2.Token // by client
	browser http.Client              // of alice; it follows no redirect
	code    string                   // that the browser has received
	stream  io.Reader                // of openStream; nil: none
}

// play carries out a step. The status is 0 if there is an error.
func (p *player) play(ctx context.Context, s step) (status int, challenge string, err error) {
	if s.act == openStream { // the response outlives the step
		return p.open(ctx, s)
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	switch s.act {
	case getToken:
		client := clientcredentials.Config{ClientID: s.client, ClientSecret: secret(s.client), TokenURL: p.at.tokenURL(), AuthStyle: oauth2.AuthStyleInHeader}
		return p.keep(s.client)(client.Token(ctx))
	case redeemCode:
		if p.code == "" {
			return 0, "", errors.New("no request: there is no code")
		}
		return p.keep(s.client)(p.shop(s.client).Exchange(ctx, p.code, oauth2.VerifierOption(codeVerifier)))
	}
	r, err := p.request(ctx, s)
	if err != nil {
		return 0, "", err
	}
	select {
	case <-time.After(s.later):
	case <-ctx.Done():
	}
	client := http.DefaultClient
	if s.act == logIn || s.act == getCode || s.act == logOut {
		client = &p.browser
	}
	res, err := client.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	switch s.act {
	case getCode:
		if to, err := res.Location(); err == nil {
			p.code = to.Query().Get("code")
		}
	case logOut:
		if err := p.ended(ctx); err != nil {
			return 0, "", err
		}
	}
	return res.StatusCode, challengeOf(res), nil
}

func challengeOf(res *http.Response) string {
	return strings.Join(res.Header.Values("WWW-Authenticate"), ", ")
}

// keep returns a function that keeps the token of a client, and returns the status of the response that contains it.
func (p *player) keep(client string) func(*oauth2.Token, error) (int, string, error) {
	return func(token *oauth2.Token, err error) (status int, challenge string, _ error) {
		if refused, is := errors.AsType[*oauth2.RetrieveError](err); is {
			return refused.Response.StatusCode, challengeOf(refused.Response), nil
		}
		if err != nil {
			return 0, "", err
		}
		p.tokens[client] = token
		return http.StatusOK, "", nil
	}
}

// shop returns the configuration of a client that acts for users.
func (p *player) shop(client string) *oauth2.Config {
	return &oauth2.Config{
		ClientID: client, ClientSecret: secret(client), RedirectURL: callback,
		Endpoint: oauth2.Endpoint{AuthURL: p.at.authorizeURL(), TokenURL: p.at.tokenURL(), AuthStyle: oauth2.AuthStyleInHeader},
	}
}

// open sends the request of a stream, and leaves it open. It waits for the beginning of the response only.
func (p *player) open(ctx context.Context, s step) (status int, challenge string, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	impatient := time.AfterFunc(patience, func() { cancel(errors.New("no response")) })
	defer impatient.Stop()
	r, err := p.request(ctx, s)
	if err != nil {
		cancel(nil)
		return 0, "", err
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		cancel(nil)
		return 0, "", err
	}
	p.stream = res.Body // until the context of Check ends
	return res.StatusCode, challengeOf(res), nil
}

const (
	maxStream = 64 << 10 // bytes; more than the story streams
	maxPage   = 64 << 10
)

// ended waits until the stream ends, and returns an error unless it ends because its token has been revoked.
func (p *player) ended(ctx context.Context) error {
	if p.stream == nil {
		return errors.New("there is no stream")
	}
	type end struct {
		text []byte
		err  error
	}
	all := make(chan end, 1)
	go func() {
		text, err := io.ReadAll(io.LimitReader(p.stream, maxStream))
		all <- end{text, err}
	}()
	select {
	case <-ctx.Done():
		return errors.New("the stream does not end")
	case got := <-all:
		if got.err == nil && !strings.HasSuffix(string(got.text), endEvent+valetkey.ReasonRevoked.Description()+"\n\n") {
			return fmt.Errorf("the stream ends with %.200q", got.text[max(0, len(got.text)-200):])
		}
		return got.err
	}
}

// request returns the request of a step that does not request a token.
func (p *player) request(ctx context.Context, s step) (*http.Request, error) {
	form := func(url string, form url.Values) (*http.Request, error) {
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(form.Encode()))
		if err == nil {
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		return r, err
	}
	switch s.act {
	case logIn:
		return form(p.at.loginURL(), url.Values{"name": {user().Name}, "password": {user().Password}})
	case logOut:
		token, err := p.formToken(ctx)
		if err != nil {
			return nil, err
		}
		return form(p.at.logoutURL(), url.Values{"token": {token}})
	case getCode:
		to := p.shop(s.client).AuthCodeURL("", oauth2.S256ChallengeOption(codeVerifier))
		return http.NewRequestWithContext(ctx, http.MethodGet, to, nil)
	}
	token := p.tokens[s.bearer+s.client] // one of the two is empty
	if token == nil && s.bearer+s.client != "" {
		return nil, fmt.Errorf("no request: there is no token of %s", s.bearer+s.client)
	}
	if s.act == revokeToken {
		r, err := form(p.at.revokeURL(), url.Values{"token": {token.AccessToken}})
		if err == nil {
			r.SetBasicAuth(s.client, secret(s.client))
		}
		return r, err
	}
	var content io.Reader
	if s.method == http.MethodPost {
		content = strings.NewReader(body)
	}
	r, err := http.NewRequestWithContext(ctx, s.method, p.at.API+s.path, content)
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

// logOutForm matches the form of the pages with which users log out. Its token proves that a page of the server has sent it.
var logOutForm = regexp.MustCompile(`(?s)action="[^"]*/logout".*?name="token" value="([^"]*)"`)

// formToken returns the token of the log-out form on the start page.
func (p *player) formToken(ctx context.Context) (string, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, p.at.Issuer+"/", nil)
	if err != nil {
		return "", err
	}
	res, err := p.browser.Do(r)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	page, err := io.ReadAll(io.LimitReader(res.Body, maxPage))
	if err != nil {
		return "", err
	}
	m := logOutForm.FindSubmatch(page)
	if m == nil {
		return "", errors.New("no request: the start page has no log-out form")
	}
	return string(m[1]), nil
}
