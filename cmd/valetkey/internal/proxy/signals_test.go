package proxy_test

import (
	"bufio"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/cmd/valetkey/internal/clitest"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/proxy"
	"github.com/valetkey/valetkey/signals"
	"github.com/valetkey/valetkey/valetkeytest"
)

func TestMistakesInSignals(t *testing.T) {
	const client = "token_url: https://as.example.com/token, client_id: x, client_secret: x"
	for _, c := range []struct {
		name, section string
		more          string
		want          []string
	}{
		{"nothing", "{}", "", []string{"6: signals.delivery: required: push, poll, or none"}},
		{"an unknown delivery", "{delivery: pull}", "", []string{`6: signals.delivery: "pull" is not push, poll or none`}},
		{"poll without a transmitter and credentials", "{delivery: poll}", "", []string{
			"6: signals.transmitter: required", "6: signals.client_id: required for the stream, with client_secret_file, or token_file"}},
		{"tokens of an issuer that no verifier accepts", "{transmitter: https://idp.example.com, delivery: poll, " + client + "}", "", []string{
			`6: signals.transmitter: no verifier accepts tokens of the issuer "https://idp.example.com"; signals.issuer sets another one`}},
		{"push without an endpoint", "{transmitter: https://as.example.com, delivery: push, " + client + "}", "", []string{
			"6: signals.endpoint: required with delivery: push: the public URL of this proxy to which the transmitter pushes"}},
		{"an endpoint without a path", "{transmitter: https://as.example.com, delivery: push, endpoint: https://api.example.com, " + client + "}", "", []string{
			`6: signals.endpoint: "" has no path such as /signals`}},
		{"an endpoint at the path of a route", "{transmitter: https://as.example.com, delivery: push, endpoint: https://api.example.com/orders, " + client + "}", "", []string{
			`6: signals.endpoint: the route "GET /orders" has the path "/orders"`}},
		{"two handlers at one path", "{transmitter: https://as.example.com, delivery: push, endpoint: https://api.example.com/s, " + client +
			", backchannel_logout: {path: /s, audience: x}}", "", []string{
			`6: signals.backchannel_logout.path: another handler of this section has the path "/s"`}},
		{"a listener without use", "{transmitter: https://as.example.com, delivery: poll, listen: 127.0.0.1:0, " + client + "}", "", []string{
			"6: signals.listen: has no effect without delivery: push, backchannel_logout or global_revocation"}},
		{"none of anything", "{delivery: none, issuer: https://as.example.com}", "", []string{
			"6: signals.delivery: none requires backchannel_logout or global_revocation: otherwise nothing is received"}},
		{"an unknown event and deviation", "{transmitter: https://as.example.com, delivery: poll, events: [logout], allow: [all], " + client + "}", "", []string{
			`6: signals.events[0]: "logout" is not one of account-credential-change-required, account-disabled, account-purged, assurance-level-change, ` +
				`credential-change, credential-compromise, device-compliance-change, risk-level-change, session-revoked, sessions-revoked, token-claims-change, tokens-revoked`,
			`6: signals.allow[0]: "all" is not all_sessions, audience_of_stream, risc_metadata, subject_type or untyped`}},
		{"two kinds of credentials", "{transmitter: https://as.example.com, delivery: poll, token_file: x, " + client + "}", "", []string{
			"6: signals.token_url: cannot be combined with token_file", "6: signals.client_id: cannot be combined with token_file",
			"6: signals.client_secret: cannot be combined with token_file"}},
		{"half of the credentials", "{transmitter: https://as.example.com, delivery: poll, token_url: https://as.example.com/token}", "", []string{
			"6: signals.client_id: required for an access token", "6: signals.client_secret_file: required for an access token, or client_secret_env or client_secret"}},
		{"an unmanaged stream without a place", "{transmitter: https://as.example.com, delivery: poll, unmanaged: true, " + client + "}", "", []string{
			"6: signals.audience: required with unmanaged", "6: signals.poll_url: required with unmanaged, to poll"}},
		{"what Redis does", "{transmitter: https://as.example.com, delivery: poll, allow_before_caught_up: true, state_file: x, " + client + "}",
			"redis: {address: '127.0.0.1:1', key: " + key + "}", []string{
				"6: signals.allow_before_caught_up: has no effect with redis, which has its own",
				"6: signals.state_file: has no effect with redis, which keeps the state for all replicas"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := load(t, good+"signals: "+c.section+"\n"+c.more, slog.New(slog.DiscardHandler))
			require.ElementsMatch(t, c.want, mistakes(err))
		})
	}
	t.Run("valetkey authorize has no listener for events", func(t *testing.T) {
		_, err := proxy.LoadAuthorizer(written(t, strings.NewReplacer("listen: 127.0.0.1:0", "listen_http: 127.0.0.1:0\ndialect: nginx\ncallers: [127.0.0.1]", "upstream: http://127.0.0.1:9\n", "").
			Replace(good)+"signals: {transmitter: https://as.example.com, delivery: push, endpoint: https://api.example.com/s, "+client+"}"), drivers, slog.New(slog.DiscardHandler))
		require.ErrorContains(t, err, "signals.listen: required with valetkey authorize")
	})
}

// A streamUpstream sends an event at once, and then nothing until the request ends.
func streamUpstream(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/events" {
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	fmt.Fprint(w, "data: first\n\n")
	http.NewResponseController(w).Flush()
	<-r.Context().Done()
}

// A scene is a proxy with signals.
type scene struct {
	t   *testing.T
	iss *valetkeytest.Issuer
	tr  *valetkeytest.Transmitter
	up  *httptest.Server
}

func newScene(t *testing.T) *scene {
	iss := valetkeytest.NewIssuer(t)
	s := &scene{t: t, iss: iss, tr: valetkeytest.NewTransmitter(t, iss), up: httptest.NewServer(http.HandlerFunc(streamUpstream))}
	t.Cleanup(s.up.Close)
	t.Cleanup(s.up.CloseClientConnections)
	return s
}

// config returns the file of a proxy with a section signals.
func (s *scene) config(listen, section string) string {
	return fmt.Sprintf(`listen: %s
upstream: %s
resource: %s
probe: 127.0.0.1:0
drain: 0s
verifiers: [jwks: {issuer: %q}]
signals: {transmitter: %[4]q, token_url: %[5]q, client_id: %s, client_secret: %s, %s}
routes: {"GET /orders": "@any", "GET /events": "@any"}
`, listen, s.up.URL, valetkeytest.DefaultAudience, s.iss.URL, s.tr.TokenURL, valetkeytest.ReceiverID, valetkeytest.ReceiverSecret, section)
}

// token returns a token that was issued before any event of the test.
func (s *scene) token(opts ...valetkeytest.Option) string {
	return s.iss.Token(append([]valetkeytest.Option{valetkeytest.Claim("iat", s.iss.Now().Add(-time.Minute).Unix())}, opts...)...)
}

// proven waits until the stream has proven that it delivers.
func proven(t *testing.T, probe string) {
	t.Helper()
	require.Eventually(t, func() bool {
		s := statusOf(t, probe).Signals
		return s != nil && s.State == "ready" && s.Error == ""
	}, soon, 5*time.Millisecond)
}

// openStream begins a stream, and returns a channel that is closed when it ends.
func openStream(t *testing.T, addr, token string) (ended <-chan struct{}) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+addr+"/events", nil)
	require.NoError(t, err)
	r.Header.Set("Authorization", "Bearer "+token)
	res, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	require.Equal(t, 200, res.StatusCode)
	t.Cleanup(func() { res.Body.Close() })
	lines := bufio.NewReader(res.Body)
	first, err := lines.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "data: first\n", first)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			if _, err := lines.ReadString('\n'); err != nil {
				return
			}
		}
	}()
	return done
}

func ends(t *testing.T, stream <-chan struct{}) {
	t.Helper()
	select {
	case <-stream:
	case <-time.After(soon):
		t.Fatal("the stream has not ended")
	}
}

func TestSignals(t *testing.T) {
	for _, delivery := range []string{"push", "push to a separate listener", "poll"} {
		t.Run(delivery, func(t *testing.T) {
			s := newScene(t)
			listen, section := clitest.FreeAddr(t), "delivery: poll"
			switch delivery {
			case "push":
				section = "delivery: push, authorization: Bearer push, endpoint: 'http://" + listen + "/signals'"
			case "push to a separate listener":
				own := clitest.FreeAddr(t)
				section = "delivery: push, listen: '" + own + "', endpoint: 'http://" + own + "/signals'"
			}
			addr, probe := serve(t, s.config(listen, section))
			proven(t, probe)
			s1, s2 := s.token(valetkeytest.SID("s1")), s.token(valetkeytest.SID("s2"))
			first, second := openStream(t, addr, s1), openStream(t, addr, s2)
			for name, set := range s.tr.WrongSETs(signals.SessionRevoked, valetkeytest.OfSession("alice", "s1")) {
				require.Error(t, s.tr.Send(set), name)
			}
			code, _ := get(t, "http://"+addr+"/orders", s1)
			require.Equal(t, 200, code, "none of the wrong events counts")

			require.NoError(t, s.tr.Send(s.tr.SET(signals.SessionRevoked, valetkeytest.OfSession("alice", "s1"))))
			code, _ = get(t, "http://"+addr+"/orders", s1)
			require.Equal(t, 401, code)
			ends(t, first)
			code, _ = get(t, "http://"+addr+"/orders", s2)
			require.Equal(t, 200, code, "another session")
			select {
			case <-second:
				t.Error("the stream of another session has ended")
			default:
			}

			st := statusOf(t, probe)
			require.Equal(t, "stream-1", st.Signals.StreamID)
			require.Equal(t, "enabled", st.Signals.Status)
			require.Equal(t, s.iss.URL, st.Signals.Name)
			require.NotZero(t, st.Signals.LastContact)
			require.NotZero(t, st.Signals.LastProof)
			require.Equal(t, 1, st.Signals.Outcomes["applied"])
			require.Contains(t, st.Signals.Delivered, string(signals.SessionRevoked))
			require.Equal(t, "ready", st.Signals.Keys[0].State)
			require.Equal(t, "ready", st.Revocations.Source.State)
			_, metrics := get(t, "http://"+probe+"/metrics", "")
			require.Contains(t, string(metrics), `valetkey_signals_state{transmitter="`+s.iss.URL+`",state="ready"} 1`)
			require.Contains(t, string(metrics), `valetkey_signals_total{outcome="applied"} 1`)
			require.Regexp(t, `valetkey_signals_last_contact_timestamp_seconds [1-9]`, string(metrics))
			require.NotContains(t, string(metrics), valetkeytest.ReceiverSecret)

			require.NoError(t, s.tr.SetStatus("paused", "maintenance"))
			require.Eventually(t, func() bool {
				st := statusOf(t, probe)
				_, ready := get(t, "http://"+probe+"/ready", "")
				return st.State == "degraded" && strings.Contains(st.Signals.Error, "paused the stream") && strings.Contains(string(ready), "paused the stream")
			}, soon, 5*time.Millisecond)
			require.NoError(t, s.tr.SetStatus("enabled", ""))
			require.Eventually(t, func() bool {
				g := statusOf(t, probe).Signals.Gap
				return g != nil && strings.Contains(g.Reason, "paused")
			}, soon, 5*time.Millisecond)
		})
	}
	t.Run("logout tokens without a stream", func(t *testing.T) {
		s := newScene(t)
		config := strings.Replace(s.config("127.0.0.1:0", "X"), "signals: {", "signals: {delivery: none, backchannel_logout: {path: /logout, audience: '"+valetkeytest.ReceiverAudience+"'}} # ", 1)
		config = strings.Replace(config, "{delivery: none", "{issuer: '"+s.iss.URL+"', delivery: none", 1)
		addr, probe := serve(t, config)
		caughtUp(t, probe)
		post := func(token string) int {
			res, err := http.PostForm("http://"+addr+"/logout", url.Values{"logout_token": {token}})
			require.NoError(t, err)
			res.Body.Close()
			return res.StatusCode
		}
		token := s.token(valetkeytest.SID("s1"))
		stream := openStream(t, addr, token)
		require.Equal(t, 400, post(s.tr.LogoutToken(valetkeytest.SID("s1"), valetkeytest.TamperedSignature())))
		require.Equal(t, 200, post(s.tr.LogoutToken(valetkeytest.SID("s1"))))
		ends(t, stream)
		code, _ := get(t, "http://"+addr+"/orders", token)
		require.Equal(t, 401, code)
		require.Equal(t, "ready", statusOf(t, probe).Signals.State)
	})
	t.Run("a proxy that cannot reach the transmitter answers 503 to tokens, unless that is allowed", func(t *testing.T) {
		s := newScene(t)
		s.tr.Streams.Fail(500)
		strict, strictProbe := serve(t, s.config("127.0.0.1:0", "delivery: poll"))
		lax, _ := serve(t, s.config("127.0.0.1:0", "delivery: poll, allow_before_caught_up: true"))
		code, _ := get(t, "http://"+strict+"/orders", s.token())
		require.Equal(t, 503, code)
		code, _ = get(t, "http://"+strictProbe+"/ready", "")
		require.Equal(t, 503, code)
		code, _ = get(t, "http://"+lax+"/orders", s.token())
		require.Equal(t, 200, code)
		s.tr.Streams.Restore()
		require.Eventually(t, func() bool { code, _ := get(t, "http://"+strictProbe+"/ready", ""); return code == 200 }, soon, 5*time.Millisecond)
		code, _ = get(t, "http://"+strict+"/orders", s.token())
		require.Equal(t, 200, code)
	})
}

// A reload keeps the stream, and what came over it.
func TestReloadWithSignals(t *testing.T) {
	s := newScene(t)
	addr := clitest.FreeAddr(t)
	config := s.config(addr, "delivery: push, authorization: Bearer push, endpoint: 'http://"+addr+"/signals'")
	r := &reloading{t: t, file: written(t, config)}
	var err error
	log := new(journal)
	r.Service, err = proxy.Open(r.file, drivers, slog.New(slog.NewTextHandler(log, nil)))
	require.NoError(t, err)
	_, probe := background(t, r.Service, log)
	proven(t, probe)
	token := s.token(valetkeytest.SID("s1"))
	require.NoError(t, s.tr.Send(s.tr.SET(signals.SessionRevoked, valetkeytest.OfSession("alice", "s1"))))
	require.ErrorContains(t, r.with(strings.Replace(config, "delivery: push", "widen: true, delivery: push", 1)), "signals: cannot be changed by a reload")
	require.ErrorContains(t, r.with(strings.Replace(config, "signals:", "# signals:", 1)), "signals: cannot be changed by a reload")
	for range 2 {
		require.NoError(t, r.with(strings.Replace(config, "/orders", "/others", 1)))
		require.NoError(t, r.with(config))
	}
	code, _ := get(t, "http://"+addr+"/orders", token)
	require.Equal(t, 401, code)
	other := s.token(valetkeytest.SID("s2"))
	stream := openStream(t, addr, other)
	require.NoError(t, s.tr.Send(s.tr.SET(signals.SessionRevoked, valetkeytest.OfSession("alice", "s2"))))
	ends(t, stream)
	require.Equal(t, 1, s.tr.Verification.Hits(), "the stream has not begun again")
}

// A push reaches one replica. The others learn it from Redis.
func TestSignalsAndRedis(t *testing.T) {
	s, whole := newScene(t), t
	redis, kill := startRedis(t)
	pushed := clitest.FreeAddr(t)
	config := func(listen string) string {
		return s.config(listen, "delivery: push, authorization: Bearer push, verify_interval: 1s, endpoint: 'http://"+pushed+"/signals'") +
			"redis: {address: '" + redis + "', password: '" + redisPassword + "', key: " + key + "}\n"
	}
	first, firstProbe := serve(t, config(pushed))
	proven(t, firstProbe)
	second, secondProbe := serve(t, config("127.0.0.1:0"))
	caughtUp(t, secondProbe)
	require.Equal(t, statusOf(t, firstProbe).Signals.StreamID, statusOf(t, secondProbe).Signals.StreamID, "one stream for all replicas")
	proven(t, secondProbe) // by events that the first has received, through Redis
	require.NotZero(t, statusOf(t, secondProbe).Signals.LastProof)

	token := s.token(valetkeytest.SID("s1"))
	streams := []<-chan struct{}{openStream(t, first, token), openStream(t, second, token)}
	require.NoError(t, s.tr.Send(s.tr.SET(signals.SessionRevoked, valetkeytest.OfSession("alice", "s1"))))
	for i, addr := range []string{first, second} {
		ends(t, streams[i])
		code, _ := get(t, "http://"+addr+"/orders", token)
		require.Equal(t, 401, code)
	}

	t.Run("without Redis, an event is in force where it arrived, and is not acknowledged", func(t *testing.T) {
		kill()
		token := s.token(valetkeytest.SID("s2"))
		stream := openStream(t, first, token)
		require.NoError(t, s.tr.Queue(s.tr.SET(signals.SessionRevoked, valetkeytest.OfSession("alice", "s2"))))
		ends(t, stream)
		code, _ := get(t, "http://"+first+"/orders", token)
		require.Equal(t, 401, code)
		require.Eventually(t, func() bool { return statusOf(t, firstProbe).Signals.Outcomes["failed"] > 0 }, soon, 5*time.Millisecond)

		startRedisAt(whole, redis)
		require.Eventually(t, func() bool {
			code, _ := get(t, "http://"+second+"/orders", token)
			return code == 401
		}, soon, 10*time.Millisecond)
	})
	t.Run("a replica that starts while the transmitter is down knows what the others know", func(t *testing.T) {
		s.tr.Streams.Down()
		third, thirdProbe := serve(t, config("127.0.0.1:0"))
		require.Eventually(t, func() bool {
			code, _ := get(t, "http://"+third+"/orders", s.token(valetkeytest.SID("s2")))
			return code == 401
		}, soon, 10*time.Millisecond)
		code, _ := get(t, "http://"+third+"/orders", s.token(valetkeytest.SID("s3")))
		require.Equal(t, 200, code)
		require.Eventually(t, func() bool {
			st := statusOf(t, thirdProbe)
			return st.State == "degraded" && st.Signals.State == "down" && strings.Contains(st.Revocations.Source.Error, "signals of")
		}, soon, 5*time.Millisecond)
	})
}

// A gateway's decisions end with the session too.
func TestSignalsOfAnAuthorizer(t *testing.T) {
	s := newScene(t)
	own := clitest.FreeAddr(t)
	ask := s.authorizer(t, s.config("127.0.0.1:0", "delivery: push, listen: '"+own+"', endpoint: 'http://"+own+"/signals'"))
	token := s.token(valetkeytest.SID("s1"))
	require.Equal(t, 200, ask(token))
	require.NoError(t, s.tr.Send(s.tr.SET(signals.SessionRevoked, valetkeytest.OfSession("alice", "s1"))))
	require.Equal(t, 401, ask(token))
	res, err := http.Get("http://" + own + "/orders")
	require.NoError(t, err)
	res.Body.Close()
	require.Equal(t, 404, res.StatusCode)
}

// A party that is trusted to do so revokes all tokens of a user: at the listener of the proxy, at a listener for events, and beside a
// gateway that asks valetkey authorize.
func TestGlobalRevocationByRequest(t *testing.T) {
	const path, endpoint = "/global-token-revocation", "https://api.example.com/global-token-revocation"
	for name, party := range map[string]string{"the issuer": "", "another party": "another"} {
		for _, where := range []string{"proxy", "proxy with a listener for events", "authorize"} {
			t.Run(name+", "+where, func(t *testing.T) {
				s := newScene(t)
				sender, stranger := s.iss, valetkeytest.NewIssuer(t)
				global := "path: " + path + ", audience: '" + endpoint + "', subject: sender"
				if party != "" {
					sender = valetkeytest.NewIssuer(t)
					global += ", issuer: '" + sender.URL + "'"
				}
				section := "issuer: '" + s.iss.URL + "', delivery: none, global_revocation: {" + global + "}"
				events := clitest.FreeAddr(t)
				if where != "proxy" {
					section += ", listen: '" + events + "'"
				}
				config := regexp.MustCompile(`(?m)^signals: .*$`).ReplaceAllString(s.config("127.0.0.1:0", ""), "signals: {"+section+"}")
				var status func(token string) int
				open := func(token string) (ended <-chan struct{}) { return nil }
				if where == "authorize" {
					status = s.authorizer(t, config)
				} else {
					addr, probe := serve(t, config)
					caughtUp(t, probe)
					if where == "proxy" {
						events = addr
					}
					status = func(token string) int { code, _ := get(t, "http://"+addr+"/orders", token); return code }
					open = func(token string) <-chan struct{} { return openStream(t, addr, token) }
				}
				assertion := func(of *valetkeytest.Issuer, opts ...valetkeytest.Option) string {
					return of.Token(append([]valetkeytest.Option{valetkeytest.Type("global-token-revocation+jwt"), valetkeytest.Claim("aud", endpoint),
						valetkeytest.Claim("sub", "sender"), valetkeytest.Claim("iat", time.Now().Unix()), valetkeytest.ExpiresIn(5 * time.Minute)}, opts...)...)
				}
				post := func(path, token, body string) *http.Response {
					t.Helper()
					r, err := http.NewRequest("POST", "http://"+events+path, strings.NewReader(body))
					require.NoError(t, err)
					r.Header.Set("Content-Type", "application/json")
					if token != "" {
						r.Header.Set("Authorization", "Bearer "+token)
					}
					res, err := http.DefaultClient.Do(r)
					require.NoError(t, err)
					res.Body.Close()
					return res
				}
				of := func(iss, sub string) string {
					return fmt.Sprintf(`{"sub_id":{"format":"iss_sub","iss":%q,"sub":%q}}`, iss, sub)
				}
				alice := of(s.iss.URL, "alice")
				one, two, bobs := s.token(valetkeytest.SID("s1")), s.token(valetkeytest.SID("s2")), s.token(valetkeytest.Subject("bob"))
				streams := []<-chan struct{}{open(one), open(two)}
				other := open(bobs)

				for name, c := range map[string]struct {
					token, body string
					want        int
				}{
					"no token":                       {"", alice, 401},
					"an access token":                {s.token(), alice, 401},
					"an assertion of another issuer": {assertion(stranger), alice, 401},
					"the iss, signed by another":     {assertion(stranger, valetkeytest.Claim("iss", sender.URL)), alice, 401},
					"another audience":               {assertion(sender, valetkeytest.Claim("aud", "https://api.example.com/other")), alice, 401},
					"two audiences":                  {assertion(sender, valetkeytest.Claim("aud", []string{endpoint, "https://x.example.com"})), alice, 401},
					"an assertion that has expired":  {assertion(sender, valetkeytest.Claim("exp", time.Now().Add(-time.Hour).Unix())), alice, 401},
					"another sender":                 {assertion(sender, valetkeytest.Claim("sub", "x")), alice, 403},
					"a user of another issuer":       {assertion(sender), of(stranger.URL, "alice"), 403},
					"an email address":               {assertion(sender), `{"sub_id":{"format":"email","email":"alice@example.com"}}`, 400},
					"no user":                        {assertion(sender), `{}`, 400},
				} {
					require.Equal(t, c.want, post(path, c.token, c.body).StatusCode, name)
				}
				if party != "" {
					require.Equal(t, 404, post(path, assertion(sender), of(sender.URL, "alice")).StatusCode, "the party's own user is unknown here")
				}
				require.NotEqual(t, 204, post("/other", assertion(sender), alice).StatusCode)
				for _, token := range []string{one, two, bobs} {
					require.Equal(t, 200, status(token), "nothing of this has an effect")
				}

				res := post(path, assertion(sender), alice)
				require.Equal(t, 204, res.StatusCode)
				require.Equal(t, "no-store", res.Header.Get("Cache-Control"))
				require.Equal(t, 401, status(one))
				require.Equal(t, 401, status(two))
				require.Equal(t, 200, status(bobs), "another user")
				if where != "authorize" {
					for _, stream := range streams {
						ends(t, stream)
					}
					select {
					case <-other:
						t.Error("the stream of another user has ended")
					default:
					}
				}
			})
		}
	}
}

// authorizer serves valetkey authorize with the configuration of a proxy, and returns what it answers a gateway about a token.
func (s *scene) authorizer(t *testing.T, config string) (ask func(token string) int) {
	t.Helper()
	asked := clitest.FreeAddr(t)
	config = strings.NewReplacer("listen: 127.0.0.1:0", "listen_http: "+asked+"\ndialect: ingress-nginx\ncallers: [127.0.0.1]", "upstream: "+s.up.URL+"\n", "").Replace(config)
	a, err := proxy.OpenAuthorizer(written(t, config), drivers, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	ended := make(chan error, 1)
	ctx := t.Context()
	go func() { ended <- a.Serve(ctx, nil) }()
	t.Cleanup(func() { require.NoError(t, <-ended); a.Close() })
	ask = func(token string) int {
		r, err := http.NewRequest("GET", "http://"+asked+"/", nil)
		require.NoError(t, err)
		r.Header.Set("Authorization", "Bearer "+token)
		for name, value := range map[string]string{"X-Original-Method": "GET", "X-Original-URL": "http://api.example.com/orders"} {
			r.Header.Set(name, value)
		}
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			return 0
		}
		res.Body.Close()
		return res.StatusCode
	}
	require.Eventually(t, func() bool { return ask(s.token()) == 200 }, soon, 5*time.Millisecond)
	return ask
}
