//go:build unix

package e2e_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/valetkey/valetkey/introspect"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/scopes"
	"github.com/valetkey/valetkey/signals"
)

// transmitting makes a server transmit signals.
func transmitting(config string) string {
	return strings.Replace(config, "\nclients:\n", `
signals: {enabled: true, insecure_loopback_receivers: true}
clients:
  - {id: receiver, secret: the secret of receiver, scopes: [ssf.manage, ssf.read]}
`, 1)
}

// A resource is an API whose guard learns of ended sessions from the server.
type resource struct{ url string }

// protect starts an API with a receiver. It returns when the receiver has its stream.
func protect(t *testing.T, h *house, delivery signals.Delivery) *resource {
	t.Helper()
	var events, orders http.Handler
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/events" {
			events.ServeHTTP(w, r)
			return
		}
		orders.ServeHTTP(w, r)
	}))
	t.Cleanup(web.Close)
	cfg := signals.Config{
		Transmitter: h.url, Delivery: delivery,
		Credentials: signals.ClientCredentialsGrant(signals.ClientCredentials{
			TokenURL: h.url + "/oauth2/token", Auth: introspect.BasicAuth("receiver", secretOf("receiver")),
		}),
		RequireProof: true,
	}
	if delivery == signals.Push {
		cfg.Endpoint, cfg.AuthorizationHeader = web.URL+"/events", "Bearer a secret of the receiver"
	}
	receiver, err := signals.New(cfg)
	require.NoError(t, err)
	events = receiver.Handler()
	local, err := jwks.New(jwks.Config{Issuer: h.url, Audience: []string{h.orders}})
	require.NoError(t, err)
	t.Cleanup(local.Close)
	guard, err := middleware.New(middleware.Config{Verifier: local, Revocations: middleware.Revocations{Source: receiver}, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	orders = guard.Require(scopes.All("orders:read"))(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "orders") }))
	go receiver.Run(t.Context())
	go guard.Watch(t.Context())
	return &resource{web.URL + "/orders"}
}

// status returns the status of a request with a token.
func (r *resource) status(t *testing.T, token string) int {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, r.url, nil)
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := many.Do(req)
	require.NoError(t, err)
	resp.Body.Close()
	return resp.StatusCode
}

const patience = time.Minute // for what takes a second, on a machine with other work

// admitsAgain logs in until the token of a log-in is accepted: one of the second in which the user was revoked is refused for good, since
// the times in tokens have no fractions.
func (r *resource) admitsAgain(t *testing.T, h *house) {
	t.Helper()
	for end := time.Now().Add(patience); r.status(t, userToken(t, h, newBrowser(h.url)).AccessToken) != 200; {
		require.True(t, time.Now().Before(end), "no new token is accepted")
	}
}

// until waits until a request with a token has a status, and returns how long that took.
func (r *resource) until(t *testing.T, status int, token string) time.Duration {
	t.Helper()
	begin := time.Now()
	require.Eventually(t, func() bool { return r.status(t, token) == status }, patience, 5*time.Millisecond)
	return time.Since(begin)
}

// logOut presses the button of the pages.
func logOut(t *testing.T, h *house, b *browser) {
	t.Helper()
	_, err := b.open(h.url + "/account/applications")
	require.NoError(t, err)
	require.NoError(t, b.press("Log out", nil))
}

// userToken logs alice in and returns her token for orders.
func userToken(t *testing.T, h *house, b *browser) *oauth2.Token {
	t.Helper()
	web := &oauth2.Config{
		ClientID: "web", ClientSecret: secretOf("web"), RedirectURL: callback, Scopes: []string{"orders:read"},
		Endpoint: oauth2.Endpoint{AuthURL: h.url + "/oauth2/authorize", TokenURL: h.url + "/oauth2/token", AuthStyle: oauth2.AuthStyleInHeader},
	}
	verifier := oauth2.GenerateVerifier()
	at, err := b.open(web.AuthCodeURL("a state", oauth2.S256ChallengeOption(verifier)))
	require.NoError(t, err)
	token, err := web.Exchange(t.Context(), at.Query().Get("code"), oauth2.VerifierOption(verifier))
	require.NoError(t, err)
	return token
}

// A log-out at the server ends the access to APIs that verify tokens locally, with each store and each delivery. The other side is
// package signals.
func TestSignals(t *testing.T) {
	for name, store := range stores {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := start(t, store(t), transmitting)
			apis := map[string]*resource{"push": protect(t, h, signals.Push), "poll": protect(t, h, signals.Poll)}
			for range 3 {
				b := newBrowser(h.url)
				token, other := userToken(t, h, b), userToken(t, h, newBrowser(h.url))
				for _, api := range apis {
					api.until(t, 200, token.AccessToken)
				}
				logOut(t, h, b)
				for delivery, api := range apis {
					t.Logf("%s: refused %v after the log-out", delivery, api.until(t, 401, token.AccessToken))
					assert.Equal(t, 200, api.status(t, other.AccessToken), "the other session goes on")
				}
				a, err := h.token("web", url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token.RefreshToken}})
				require.NoError(t, err)
				assert.Equal(t, 400, a.status, "the grant is over")
			}
		})
	}
}

// call sends JSON to the API of the transmitter as the receiver.
func (h *house) call(t *testing.T, path string, body any, into any) {
	t.Helper()
	a, err := h.token("receiver", url.Values{"grant_type": {"client_credentials"}})
	require.NoError(t, err)
	text, err := json.Marshal(body)
	require.NoError(t, err)
	r, err := http.NewRequest(http.MethodPost, h.url+path, bytes.NewReader(text))
	require.NoError(t, err)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+a.AccessToken)
	resp, err := many.Do(r)
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Less(t, resp.StatusCode, 300)
	if into != nil {
		require.NoError(t, json.NewDecoder(resp.Body).Decode(into))
	}
}

// payload returns the claims of a JWT whose signature another test checks.
func payload(t *testing.T, token string, into any) {
	t.Helper()
	parts := strings.Split(token, ".")
	require.Len(t, parts, 3)
	text, err := base64.RawURLEncoding.DecodeString(parts[1])
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, into))
}

// No event is lost with the process: neither one whose cause the server has confirmed, nor one whose cause has happened when it is killed.
func TestSignalsSurviveKills(t *testing.T) {
	for _, name := range []string{"sqlite", "postgres"} {
		t.Run("SSFTX-09 "+name, func(t *testing.T) {
			t.Parallel()
			h := start(t, stores[name](t), transmitting)
			sink := new(announced)
			web := httptest.NewServer(sink)
			t.Cleanup(web.Close)
			var polled struct {
				ID string `json:"stream_id"`
			}
			h.call(t, "/ssf/streams", map[string]any{}, &polled)
			h.call(t, "/ssf/streams", map[string]any{"delivery": map[string]any{"method": "urn:ietf:rfc:8935", "endpoint_url": web.URL}}, nil)
			byPoll := map[string]bool{}
			var tokens, confirmed []string
			for range 3 {
				issued := make([]string, 120)
				for i := range issued {
					a, err := h.token("service", url.Values{"grant_type": {"client_credentials"}, "scope": {"orders:read"}})
					require.NoError(t, err)
					issued[i] = a.AccessToken
				}
				tokens = append(tokens, issued...)
				confirmed = append(confirmed, h.revokeUntilKilled(t, issued, 40)...)
				h.restart()
			}
			dead := map[string]bool{}
			for _, token := range tokens {
				if !h.active(t, "orders-api", token) {
					dead[jti(t, token)] = true
				}
			}
			for _, token := range confirmed {
				require.True(t, dead[jti(t, token)], "a revocation that was confirmed is undone")
			}
			t.Logf("%d of %d tokens were revoked, %d with a confirmation", len(dead), len(tokens), len(confirmed))
			require.Eventually(t, func() bool { h.poll(t, polled.ID, byPoll); return contains(byPoll, dead) && contains(sink.all(), dead) }, 2*patience, 100*time.Millisecond)
		})
	}
}

func contains(all, some map[string]bool) bool {
	for id := range some {
		if !all[id] {
			return false
		}
	}
	return true
}

func jti(t *testing.T, token string) string {
	t.Helper()
	var claims struct {
		ID string `json:"jti"`
	}
	payload(t, token, &claims)
	require.NotEmpty(t, claims.ID)
	return claims.ID
}

// revokeUntilKilled has several clients revoke tokens, and kills the server once so many are confirmed. It returns those that were.
func (h *house) revokeUntilKilled(t *testing.T, tokens []string, many int) (confirmed []string) {
	t.Helper()
	var mu sync.Mutex
	var clients sync.WaitGroup
	enough := make(chan struct{})
	for part := range slices.Chunk(tokens, len(tokens)/6) {
		clients.Go(func() {
			for _, token := range part {
				a, err := h.post("/oauth2/revoke", "service", url.Values{"token": {token}})
				if err != nil || a.status != 200 {
					return // it is dead
				}
				mu.Lock()
				if confirmed = append(confirmed, token); len(confirmed) == many {
					close(enough)
				}
				mu.Unlock()
			}
		})
	}
	<-enough
	h.kill()
	clients.Wait()
	return confirmed
}

// poll adds the tokens that a stream announces, and acknowledges them.
func (h *house) poll(t *testing.T, stream string, into map[string]bool) {
	t.Helper()
	ack := []string{}
	for more := true; more; {
		var got struct {
			Sets map[string]string `json:"sets"`
			More bool              `json:"moreAvailable"`
		}
		h.call(t, "/ssf/poll/"+stream, map[string]any{"returnImmediately": true, "ack": ack}, &got)
		ack = ack[:0]
		for id, set := range got.Sets {
			ack = append(ack, id)
			into[revokedIn(t, set)] = true
		}
		more = got.More || len(ack) > 0
	}
}

// revokedIn returns the jti of the access token that a SET revokes.
func revokedIn(t testing.TB, set string) string {
	var claims struct {
		Subject struct {
			ID string `json:"jti"`
		} `json:"sub_id"`
	}
	parts := strings.Split(set, ".")
	text, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err == nil {
		err = json.Unmarshal(text, &claims)
	}
	if err != nil {
		panic(fmt.Sprintf("a SET that cannot be read: %v", err))
	}
	return claims.Subject.ID
}

// announced is a receiver by push.
type announced struct {
	mu  sync.Mutex
	ids map[string]bool
}

func (a *announced) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ids == nil {
		a.ids = map[string]bool{}
	}
	a.ids[revokedIn(nil, string(body))] = true
	w.WriteHeader(http.StatusAccepted)
}

func (a *announced) all() map[string]bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := map[string]bool{}
	for id := range a.ids {
		all[id] = true
	}
	return all
}

// TestSignalsPage follows docs/signals.md.
func TestSignalsPage(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("curl is not installed")
	}
	t.Parallel()
	page, err := os.ReadFile("../../docs/signals.md")
	require.NoError(t, err)
	block := func(name string) string {
		_, rest, found := strings.Cut(string(page), "<!-- "+name+" -->\n```")
		require.True(t, found)
		_, rest, _ = strings.Cut(rest, "\n")
		text, _, found := strings.Cut(rest, "```\n<!-- end -->")
		require.True(t, found)
		return text
	}
	const place = "127.0.0.1:8888"
	h := &house{server: serve(t, func(issuer string) string {
		return strings.ReplaceAll(block("transmitter"), place, strings.TrimPrefix(issuer, "http://"))
	})}
	command := exec.CommandContext(t.Context(), "sh", "-ec", strings.ReplaceAll(block("receive"), place, strings.TrimPrefix(h.url, "http://")))
	var out bytes.Buffer
	command.Stdout = &out
	require.NoError(t, command.Start())
	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	for { // until the stream exists, revocations announce nothing
		own, err := h.post("/oauth2/token", "", url.Values{
			"grant_type": {"client_credentials"}, "client_id": {"orders-api"}, "client_secret": {"demo-secret-of-orders-api"},
		})
		require.NoError(t, err)
		_, err = h.post("/oauth2/revoke", "", url.Values{
			"token": {own.AccessToken}, "client_id": {"orders-api"}, "client_secret": {"demo-secret-of-orders-api"},
		})
		require.NoError(t, err)
		select {
		case err := <-ended:
			require.NoError(t, err)
			var answer struct {
				Sets map[string]string `json:"sets"`
			}
			require.NoError(t, json.Unmarshal(out.Bytes(), &answer), "%s", &out)
			assert.NotEmpty(t, answer.Sets)
			return
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// An operator's command is another process than the server, which announces what the command has ended.
func TestSignalsOfCommands(t *testing.T) {
	for _, name := range []string{"sqlite", "postgres"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := start(t, stores[name](t), transmitting)
			api := protect(t, h, signals.Poll)
			token := userToken(t, h, newBrowser(h.url))
			api.until(t, 200, token.AccessToken)
			out, err := h.command("user", "revoke", "--config", "valetkey.yaml", "customer:alice").CombinedOutput()
			require.NoError(t, err, "%s", out)
			t.Logf("refused %v after the command", api.until(t, 401, token.AccessToken))
			api.admitsAgain(t, h)
		})
	}
}

// command is a command of the program in the folder of the server.
func (s *server) command(args ...string) *exec.Cmd {
	c := exec.Command(program, args...)
	c.Dir = s.dir
	return c
}

// Two servers share a database. When the one that delivers is killed, the other one takes over, and no event is lost.
func TestSignalsOfReplicas(t *testing.T) {
	t.Parallel()
	var config string
	one := start(t, stores["postgres"](t), transmitting, func(text string) string {
		config = text
		return text
	})
	other := &house{server: serve(t, func(string) string { return config })}
	sink := new(announced)
	web := httptest.NewServer(sink)
	t.Cleanup(web.Close)
	one.call(t, "/ssf/streams", map[string]any{"delivery": map[string]any{"method": "urn:ietf:rfc:8935", "endpoint_url": web.URL}}, nil)
	tokens := make([]string, 120)
	dead := map[string]bool{}
	for i := range tokens {
		a, err := one.token("service", url.Values{"grant_type": {"client_credentials"}, "scope": {"orders:read"}})
		require.NoError(t, err)
		tokens[i] = a.AccessToken
	}
	confirmed := one.revokeUntilKilled(t, tokens, 60)
	for _, token := range tokens {
		if !other.active(t, "orders-api", token) {
			dead[jti(t, token)] = true
		}
	}
	require.GreaterOrEqual(t, len(dead), len(confirmed))
	require.Eventually(t, func() bool { return contains(sink.all(), dead) }, 2*patience, 50*time.Millisecond)
	one.restart() // so that it ends well
}

// A log-out at the server ends the access to an API whose only source is back-channel logout. The other side is package signals.
func TestBackChannelLogout(t *testing.T) {
	t.Parallel()
	var logout, orders http.Handler
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/logout" {
			logout.ServeHTTP(w, r)
			return
		}
		orders.ServeHTTP(w, r)
	}))
	t.Cleanup(web.Close)
	h := start(t, stores["sqlite"](t), transmitting, func(config string) string {
		return strings.Replace(config, "{id: web, ", `{id: web, backchannel_logout_uri: "`+web.URL+`/logout", `, 1)
	})
	receiver, err := signals.New(signals.Config{Issuer: h.url, Delivery: signals.NoStream, Logout: signals.LogoutConfig{Audience: []string{"web"}}})
	require.NoError(t, err)
	logout = receiver.Logout()
	local, err := jwks.New(jwks.Config{Issuer: h.url, Audience: []string{h.orders}})
	require.NoError(t, err)
	t.Cleanup(local.Close)
	guard, err := middleware.New(middleware.Config{Verifier: local, Revocations: middleware.Revocations{Source: receiver}, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	orders = guard.Require(scopes.All("orders:read"))(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "orders") }))
	go receiver.Run(t.Context())
	go guard.Watch(t.Context())
	api := &resource{web.URL + "/orders"}

	b := newBrowser(h.url)
	token, other := userToken(t, h, b), userToken(t, h, newBrowser(h.url))
	api.until(t, 200, token.AccessToken)
	logOut(t, h, b)
	t.Logf("refused %v after the log-out", api.until(t, 401, token.AccessToken))
	assert.Equal(t, 200, api.status(t, other.AccessToken), "the other session goes on")
	out, err := h.command("user", "revoke", "--config", "valetkey.yaml", "customer:alice").CombinedOutput()
	require.NoError(t, err, "%s", out)
	api.until(t, 401, other.AccessToken)
	api.admitsAgain(t, h)
}
