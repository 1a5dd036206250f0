package authserver_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/authserver"
	"github.com/valetkey/valetkey/authserver/login"
	"github.com/valetkey/valetkey/authserver/store"
	"github.com/valetkey/valetkey/internal/jose"
	"github.com/valetkey/valetkey/internal/keyset"
)

const (
	pushMethod = "urn:ietf:rfc:8935"
	pollMethod = "urn:ietf:rfc:8936"

	sessionRevoked   = "https://schemas.openid.net/secevent/caep/event-type/session-revoked"
	credentialChange = "https://schemas.openid.net/secevent/caep/event-type/credential-change"
	accountDisabled  = "https://schemas.openid.net/secevent/risc/event-type/account-disabled"
	accountPurged    = "https://schemas.openid.net/secevent/risc/event-type/account-purged"
	verification     = "https://schemas.openid.net/secevent/ssf/event-type/verification"
	streamUpdated    = "https://schemas.openid.net/secevent/ssf/event-type/stream-updated"
)

// signaling makes a site transmit signals, with two receivers and a monitor that may only read.
func signaling(c *authserver.Config) {
	passwords(c)
	c.Signals = authserver.Signals{Enabled: true, InsecureLoopbackReceivers: true}
	c.Clients = append(c.Clients,
		authserver.Client{ID: "receiver", Secret: "test-secret-of-receiver", Scopes: []string{"ssf.manage"}},
		authserver.Client{ID: "other", Secret: "test-secret-of-other", Scopes: []string{"ssf.manage", "ssf.read"}},
		authserver.Client{ID: "monitor", Secret: "test-secret-of-monitor", Scopes: []string{"ssf.read"}},
		authserver.Client{ID: "responder", Secret: "test-secret-of-responder", Scopes: []string{"global_token_revocation"}},
		authserver.Client{ID: "web", Secret: "test-secret-of-web", Scopes: []string{"orders:read"}, Trusted: true, RedirectURIs: []string{"https://web.example/cb"}},
	)
}

// transmitting starts a site that delivers its signals.
func transmitting(t *testing.T, path string, change ...func(*authserver.Config)) *site {
	t.Helper()
	s := start(t, path, append([]func(*authserver.Config){signaling}, change...)...)
	running(t, s)
	return s
}

// running runs the background work of a site until the test ends.
func running(t *testing.T, s *site) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
}

// call sends JSON to the API of signals as a client.
func (s *site) call(t *testing.T, id, method, path string, body any) answer {
	t.Helper()
	text := ""
	if body != nil {
		encoded, err := json.Marshal(body)
		require.NoError(t, err)
		text = string(encoded)
	}
	return send(t, method, s.url+path, text, "Content-Type", "application/json", "Authorization", "Bearer "+s.token(t, id, s.url+"/ssf").AccessToken)
}

type object = map[string]any

// stream makes a stream and returns its configuration.
func (s *site) stream(t *testing.T, id string, members object) object {
	t.Helper()
	a := s.call(t, id, "POST", "/ssf/streams", members)
	require.Equal(t, 201, a.status, a.text)
	return a.body
}

func pushTo(url string, pairs ...string) object {
	delivery := object{"method": pushMethod, "endpoint_url": url}
	for i := 0; i < len(pairs); i += 2 {
		delivery[pairs[i]] = pairs[i+1]
	}
	return object{"delivery": delivery}
}

// A set is a verified security event token.
type set struct {
	header, claims object
	kind           string
	event          object
}

// verify checks the signature of a SET by the key set of the site.
func (s *site) verify(t testing.TB, raw string) (v set) {
	t.Helper()
	res, err := http.Get(s.url + "/oauth2/keys")
	require.NoError(t, err)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	all, _, err := keyset.Parse(text, keyset.MaxForeignKeys)
	require.NoError(t, err)
	token, err := jose.Parse(raw)
	require.NoError(t, err)
	require.True(t, slices.ContainsFunc(all, func(k *jose.Key) bool { return k.Verify(token) == nil }), "the signature")
	v.header, v.claims = part(t, raw, 0), part(t, raw, 1)
	assert.Equal(t, "RS256", v.header["alg"])
	for kind, event := range v.claims["events"].(object) {
		v.kind, v.event = kind, event.(object)
	}
	return v
}

// sid returns the session in the subject of a SET, or "".
func (v set) sid() string {
	subject, _ := v.claims["sub_id"].(object)
	session, _ := subject["session"].(object)
	id, _ := session["id"].(string)
	return id
}

// sub returns the user in the subject of a SET, or "".
func (v set) sub() string {
	subject, _ := v.claims["sub_id"].(object)
	if user, ok := subject["user"].(object); ok {
		subject = user
	}
	sub, _ := subject["sub"].(string)
	return sub
}

// A sink receives pushes.
type sink struct {
	url string

	mu       sync.Mutex
	got      []string // accepted tokens
	requests []*http.Request
	answers  func(n int) (status int, body string) // nil: 202
}

func receive(t *testing.T) *sink {
	t.Helper()
	k := new(sink)
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		k.mu.Lock()
		defer k.mu.Unlock()
		k.requests = append(k.requests, r)
		status, text := 202, ""
		if k.answers != nil {
			status, text = k.answers(len(k.requests))
		}
		if status < 300 {
			k.got = append(k.got, string(body))
		}
		if status == 307 {
			w.Header().Set("Location", "/elsewhere")
		}
		w.WriteHeader(status)
		io.WriteString(w, text)
	}))
	t.Cleanup(web.Close)
	k.url = web.URL + "/events"
	return k
}

func (k *sink) respond(f func(n int) (int, string)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.answers = f
}

func (k *sink) received() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.got)
}

func (k *sink) asked() []*http.Request {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.requests)
}

const soon = time.Minute // more than anything here takes

// wait returns the first n tokens that were pushed, verified.
func (k *sink) wait(t *testing.T, s *site, n int) []set {
	t.Helper()
	require.Eventually(t, func() bool { return len(k.received()) >= n }, soon, 5*time.Millisecond, "%d pushes", n)
	var all []set
	for _, raw := range k.received()[:n] {
		all = append(all, s.verify(t, raw))
	}
	return all
}

// browse logs alice in at web and returns the browser and her tokens there.
func (s *site) browse(t *testing.T) (b *http.Client, access, refresh string) {
	t.Helper()
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	b = &http.Client{Jar: jar}
	res, err := b.PostForm(s.url+"/login", url.Values{"name": {"alice"}, "password": {"correct horse"}, "return": {"/account/applications"}})
	read(t, res, err)
	access, refresh = s.authorize(t, b)
	return b, access, refresh
}

// authorize gets tokens for web in a browser whose user is logged in.
func (s *site) authorize(t *testing.T, b *http.Client) (access, refresh string) {
	t.Helper()
	const verifier, challenge = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk", "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
	still := *b
	still.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	res, err := still.Get(s.url + "/oauth2/authorize?" + form("client_id", "web", "response_type", "code", "redirect_uri", "https://web.example/cb",
		"code_challenge", challenge, "code_challenge_method", "S256").Encode())
	a := read(t, res, err)
	back, err := url.Parse(a.header.Get("Location"))
	require.NoError(t, err)
	require.NotEmpty(t, back.Query().Get("code"), a.text)
	a = s.post(t, "/oauth2/token", "web", "test-secret-of-web", form("grant_type", "authorization_code", "code", back.Query().Get("code"),
		"redirect_uri", "https://web.example/cb", "code_verifier", verifier))
	require.Equal(t, 200, a.status, a.text)
	return a.body["access_token"].(string), a.body["refresh_token"].(string)
}

var formToken = regexp.MustCompile(`name="token" value="([^"]+)"`)

// logOut sends the form of a page.
func (s *site) logOut(t *testing.T, b *http.Client) {
	t.Helper()
	res, err := b.Get(s.url + "/account/applications")
	page := read(t, res, err)
	m := formToken.FindStringSubmatch(page.text)
	require.NotNil(t, m, page.text)
	res, err = b.PostForm(s.url+"/logout", form("token", m[1]))
	require.Equal(t, 200, read(t, res, err).status)
}

func TestSignalsConfiguration(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*authserver.Config)
		want   string
	}{
		{"settings without the switch", func(c *authserver.Config) { c.Signals.InsecureLoopbackReceivers = true }, "Signals.Enabled: is required by the other settings of signals"},
		{"all addresses", func(c *authserver.Config) {
			c.Signals = authserver.Signals{Enabled: true, AllowReceivers: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}}
		}, "Signals.AllowReceivers[0]: must be an address range"},
		{"a client that expects logout tokens of a server that sends none", func(c *authserver.Config) { c.Clients[0].LogoutURI = "https://reader.example/logout" }, "Clients[0].LogoutURI: requires signals"},
		{"a logout endpoint that is not https", func(c *authserver.Config) {
			c.Signals.Enabled, c.Clients[0].LogoutURI = true, "http://reader.example/logout"
		}, "Clients[0].LogoutURI: is neither https with a host nor http to loopback"},
		{"a session without an endpoint", func(c *authserver.Config) { c.Signals.Enabled, c.Clients[0].LogoutSession = true, true }, "Clients[0].LogoutSession: requires backchannel_logout_uri"},
		{"an API of the operator with a scope of signals", func(c *authserver.Config) {
			c.Signals.Enabled = true
			c.APIs[0].Scopes = append(c.APIs[0].Scopes, authserver.Scope{Name: "ssf.read"})
		}, `Signals.Scopes`},
		{"an endpoint at the path of the API", func(c *authserver.Config) { c.Signals.Enabled, c.Paths.Token = true, "/ssf/token" }, "Paths.Token: overlaps /ssf, which is in use"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := config("http://127.0.0.1:1")
			c.change(&cfg)
			assert.ErrorContains(t, cfg.Validate(), c.want)
		})
	}
	t.Run("one line enables it", func(t *testing.T) {
		cfg, err := authserver.LoadConfig("", strings.NewReader("issuer: https://as.example\nsignals: true\napis: [{audience: https://api.example, scopes: {a: A}}]\n"))
		require.NoError(t, err)
		assert.Equal(t, authserver.Signals{Enabled: true}, cfg.Signals)
	})
	t.Run("it is off by default", func(t *testing.T) {
		s := start(t, "")
		assert.Equal(t, 404, get(t, s.url+"/.well-known/ssf-configuration").status)
		assert.Equal(t, 404, send(t, "GET", s.url+"/ssf/streams", "").status)
		assert.NotContains(t, get(t, s.url+"/.well-known/oauth-authorization-server").text, "logout")
	})
}

func TestTransmitterMetadata(t *testing.T) {
	s := start(t, "/as", signaling)
	root := strings.TrimSuffix(s.url, "/as")
	t.Run("SSFTX-01 the members that the profile requires, between host and path", func(t *testing.T) {
		a := get(t, root+"/.well-known/ssf-configuration/as")
		require.Equal(t, 200, a.status)
		assert.Equal(t, object{
			"spec_version": "1_0", "issuer": s.url, "jwks_uri": s.url + "/oauth2/keys", "delivery_methods_supported": []any{pushMethod, pollMethod},
			"configuration_endpoint": s.url + "/ssf/streams", "status_endpoint": s.url + "/ssf/status", "add_subject_endpoint": s.url + "/ssf/subjects:add",
			"remove_subject_endpoint": s.url + "/ssf/subjects:remove", "verification_endpoint": s.url + "/ssf/verify",
			"authorization_schemes": []any{object{"spec_urn": "urn:ietf:rfc:6749"}}, "default_subjects": "ALL",
		}, a.body)
		assert.Equal(t, a.body, get(t, s.url+"/.well-known/ssf-configuration").body, "where others look")
	})
	t.Run("the server announces logout tokens and global token revocation", func(t *testing.T) {
		about := get(t, root+"/.well-known/oauth-authorization-server/as").body
		assert.Equal(t, true, about["backchannel_logout_supported"])
		assert.Equal(t, true, about["backchannel_logout_session_supported"])
		assert.Equal(t, s.url+"/global-token-revocation", about["global_token_revocation_endpoint"])
		assert.Contains(t, about["protected_resources"], s.url+"/ssf")
	})
	t.Run("the API describes itself", func(t *testing.T) {
		a := get(t, root+"/.well-known/oauth-protected-resource/as/ssf")
		assert.Equal(t, s.url+"/ssf", a.body["resource"])
		assert.Equal(t, []any{"ssf.read", "ssf.manage", "global_token_revocation"}, a.body["scopes_supported"])
	})
	t.Run("users and developers are not offered its scopes", func(t *testing.T) {
		s := start(t, "", signaling, func(c *authserver.Config) { c.Registration.Open = true })
		a := send(t, "POST", s.url+"/oauth2/register", `{"redirect_uris":["https://a.example/cb"],"scope":"ssf.manage"}`, "Content-Type", "application/json")
		assert.Equal(t, 400, a.status, a.text)
	})
}

func TestStreamAccess(t *testing.T) {
	s := start(t, "/as", signaling)
	endpoints := []string{
		"GET /ssf/streams", "POST /ssf/streams", "PATCH /ssf/streams", "PUT /ssf/streams", "DELETE /ssf/streams", "GET /ssf/status", "POST /ssf/status",
		"POST /ssf/subjects:add", "POST /ssf/subjects:remove", "POST /ssf/verify", "POST /ssf/poll/x", "POST /global-token-revocation",
	}
	access, _ := s.grant(t, "alice", "correct horse")
	for _, endpoint := range endpoints {
		t.Run(endpoint, func(t *testing.T) {
			method, path, _ := strings.Cut(endpoint, " ")
			a := send(t, method, s.url+path, "{}")
			assert.Equal(t, 401, a.status, "without a token")
			assert.Contains(t, a.header.Get("WWW-Authenticate"), "Bearer")
			assert.Equal(t, 401, send(t, method, s.url+path, "{}", "Authorization", "Bearer "+access).status, "with a token for another API")
			assert.Equal(t, 401, send(t, method, s.url+path, "{}", "Authorization", "Bearer "+s.token(t, "reader", "").AccessToken).status, "with a client's token for another API")
			weak := "responder"
			if path == "/global-token-revocation" {
				weak = "receiver"
			}
			assert.Equal(t, 403, s.call(t, weak, method, path, object{}).status, "with another scope")
		})
	}
	t.Run("a revoked token", func(t *testing.T) {
		token := s.token(t, "receiver", s.url+"/ssf").AccessToken
		require.Equal(t, 200, send(t, "GET", s.url+"/ssf/streams", "", "Authorization", "Bearer "+token).status)
		require.Equal(t, 200, s.post(t, "/oauth2/revoke", "receiver", "test-secret-of-receiver", form("token", token)).status)
		assert.Equal(t, 401, send(t, "GET", s.url+"/ssf/streams", "", "Authorization", "Bearer "+token).status)
	})
	t.Run("one who may only read changes nothing", func(t *testing.T) {
		for _, endpoint := range []string{"POST /ssf/streams", "PATCH /ssf/streams", "PUT /ssf/streams", "DELETE /ssf/streams", "POST /ssf/status", "POST /ssf/subjects:add", "POST /ssf/subjects:remove"} {
			method, path, _ := strings.Cut(endpoint, " ")
			assert.Equal(t, 403, s.call(t, "monitor", method, path, object{}).status, endpoint)
		}
		assert.Equal(t, 200, s.call(t, "monitor", "GET", "/ssf/streams", nil).status)
	})
	t.Run("SSFTX-02 the stream of another receiver is not found", func(t *testing.T) {
		id := s.stream(t, "receiver", object{})["stream_id"].(string)
		subject := object{"format": "iss_sub", "iss": s.url, "sub": "customer:alice"}
		for _, c := range []struct {
			method, path string
			body         any
		}{
			{"GET", "/ssf/streams?stream_id=" + id, nil}, {"DELETE", "/ssf/streams?stream_id=" + id, nil}, {"GET", "/ssf/status?stream_id=" + id, nil},
			{"PATCH", "/ssf/streams", object{"stream_id": id}}, {"PUT", "/ssf/streams", object{"stream_id": id, "delivery": object{"method": pollMethod}}},
			{"POST", "/ssf/status", object{"stream_id": id, "status": "disabled"}}, {"POST", "/ssf/verify", object{"stream_id": id}},
			{"POST", "/ssf/subjects:add", object{"stream_id": id, "subject": subject}}, {"POST", "/ssf/subjects:remove", object{"stream_id": id, "subject": subject}},
			{"POST", "/ssf/poll/" + id, object{"returnImmediately": true}},
		} {
			assert.Equal(t, 404, s.call(t, "other", c.method, c.path, c.body).status, "%s %s", c.method, c.path)
		}
		for _, unknown := range []string{"x", "%00", strings.Repeat("a", 26), strings.Repeat("ä", 600)} {
			assert.Equal(t, 404, s.call(t, "other", "GET", "/ssf/streams?stream_id="+url.QueryEscape(unknown), nil).status)
		}
		assert.Equal(t, "[]", strings.TrimSpace(s.call(t, "other", "GET", "/ssf/streams", nil).text))
		assert.Equal(t, 200, s.call(t, "receiver", "GET", "/ssf/streams?stream_id="+id, nil).status, "the receiver's own")
	})
}

func TestStreamConfiguration(t *testing.T) {
	s := start(t, "/as", signaling)
	supported := []any{sessionRevoked, credentialChange, accountDisabled, accountPurged}
	t.Run("bad requests", func(t *testing.T) {
		own := s.stream(t, "other", object{})["stream_id"].(string)
		for _, c := range []struct {
			name   string
			method string
			body   any
			want   string
		}{
			{"no object", "POST", []int{1}, "not one JSON object"},
			{"no method", "POST", object{"delivery": object{}}, "delivery.method: required"},
			{"an unknown method", "POST", object{"delivery": object{"method": "urn:x"}}, "delivery.method: want"},
			{"poll with an endpoint", "POST", object{"delivery": object{"method": pollMethod, "endpoint_url": "https://r.example/"}}, "set by the transmitter"},
			{"poll with a header", "POST", object{"delivery": object{"method": pollMethod, "authorization_header": "x"}}, "for push only"},
			{"a header of two lines", "POST", pushTo("https://r.example/", "authorization_header", "x\r\ny"), "not the value of a header"},
			{"requested events that are a string", "POST", object{"events_requested": "x"}, "events_requested: not an array"},
			{"a description that is too long", "POST", object{"description": strings.Repeat("x", 1001)}, "description: not a string"},
			{"no stream", "PATCH", object{}, "stream_id: required"},
			{"another iss", "PATCH", object{"stream_id": own, "iss": "https://x.example"}, "iss:"},
			{"another aud", "PATCH", object{"stream_id": own, "aud": "receiver"}, "aud:"},
			{"other events delivered", "PATCH", object{"stream_id": own, "events_delivered": []string{sessionRevoked}}, "events_delivered: differs"},
			{"a replacement without delivery", "PUT", object{"stream_id": own}, "delivery: required"},
		} {
			t.Run(c.name, func(t *testing.T) {
				a := s.call(t, "other", c.method, "/ssf/streams", c.body)
				assert.Equal(t, 400, a.status)
				assert.Contains(t, a.body["description"], c.want)
			})
		}
		a := send(t, "POST", s.url+"/ssf/streams", `{"description":"a","description":"b"}`, "Authorization", "Bearer "+s.token(t, "other", s.url+"/ssf").AccessToken)
		assert.Equal(t, 400, a.status, "a member twice")
	})
	t.Run("SSFTX-05 an endpoint that is http, private or this machine", func(t *testing.T) {
		strict := start(t, "", signaling, func(c *authserver.Config) {
			c.Signals.InsecureLoopbackReceivers, c.Signals.AllowReceivers = false, []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}
		})
		for _, endpoint := range []string{
			"", "x", "http://r.example/events", "https://127.0.0.1/events", "https://localhost/events", "https://[::1]/events", "https://10.0.0.1/events",
			"https://169.254.169.254/latest", "https://[fd00::1]/", "https://[::ffff:127.0.0.1]/", "https://user@r.example/", "https://r.example/#x", "ftp://r.example/", "https:r.example",
		} {
			a := strict.call(t, "receiver", "POST", "/ssf/streams", pushTo(endpoint))
			assert.Equal(t, 400, a.status, endpoint)
			assert.Contains(t, a.body["description"], "delivery.endpoint_url: ", endpoint)
		}
		strict.stream(t, "receiver", pushTo("https://10.1.2.3/events"))
		strict.stream(t, "receiver", pushTo("https://r.example/events?tenant=1"))
	})
	t.Run("SSFTX-03 push, poll, and poll by default", func(t *testing.T) {
		made := s.stream(t, "receiver", pushTo("https://r.example/events"))
		assert.Equal(t, object{"method": pushMethod, "endpoint_url": "https://r.example/events"}, made["delivery"])
		for _, members := range []object{{}, {"delivery": object{"method": pollMethod}}} {
			made := s.stream(t, "receiver", members)
			id := made["stream_id"].(string)
			assert.Equal(t, object{
				"stream_id": id, "iss": s.url, "aud": "receiver", "delivery": object{"method": pollMethod, "endpoint_url": s.url + "/ssf/poll/" + id},
				"events_supported": supported, "events_delivered": supported, "min_verification_interval": 30.0,
			}, made)
			assert.Equal(t, made, s.call(t, "receiver", "GET", "/ssf/streams?stream_id="+id, nil).body)
		}
		a := s.call(t, "receiver", "GET", "/ssf/streams", nil)
		var list []object
		require.NoError(t, json.Unmarshal([]byte(a.text), &list))
		assert.Len(t, list, 3)
	})
	t.Run("SSFTX-04 only those who may set the header see it", func(t *testing.T) {
		s := start(t, "", signaling)
		made := s.stream(t, "other", pushTo("https://r.example/", "authorization_header", "Bearer hush-hush"))
		id := made["stream_id"].(string)
		assert.Equal(t, "Bearer hush-hush", made["delivery"].(object)["authorization_header"])
		reader := s.token(t, "other", s.url+"/ssf", "ssf.read").AccessToken
		for _, path := range []string{"/ssf/streams", "/ssf/streams?stream_id=" + id, "/ssf/status?stream_id=" + id} {
			a := send(t, "GET", s.url+path, "", "Authorization", "Bearer "+reader)
			assert.Equal(t, 200, a.status)
			assert.NotContains(t, a.text, "hush-hush")
		}
		assert.NotContains(t, s.log.String(), "hush-hush")
	})
	t.Run("events that are requested and supported are delivered", func(t *testing.T) {
		made := s.stream(t, "receiver", object{"events_requested": []string{accountPurged, "urn:example:unknown", sessionRevoked}, "description": "of orders"})
		assert.Equal(t, []any{accountPurged, "urn:example:unknown", sessionRevoked}, made["events_requested"])
		assert.Equal(t, []any{sessionRevoked, accountPurged}, made["events_delivered"])
		id := made["stream_id"].(string)
		a := s.call(t, "receiver", "PATCH", "/ssf/streams", object{"stream_id": id, "events_requested": []string{accountPurged}, "aud": []string{"receiver"}})
		assert.Equal(t, []any{accountPurged}, a.body["events_delivered"])
		assert.Equal(t, "of orders", a.body["description"], "what is not sent stays")
		a = s.call(t, "receiver", "PUT", "/ssf/streams", object{"stream_id": id, "delivery": object{"method": pushMethod, "endpoint_url": "https://r.example/"}})
		assert.Equal(t, 200, a.status)
		assert.NotContains(t, a.body, "description")
		assert.Equal(t, supported, a.body["events_delivered"], "what is not sent is gone")
		assert.Equal(t, pushMethod, a.body["delivery"].(object)["method"])
	})
	t.Run("a stream is deleted once", func(t *testing.T) {
		id := s.stream(t, "other", object{})["stream_id"].(string)
		assert.Equal(t, 204, s.call(t, "other", "DELETE", "/ssf/streams?stream_id="+id, nil).status)
		assert.Equal(t, 404, s.call(t, "other", "DELETE", "/ssf/streams?stream_id="+id, nil).status)
		assert.Equal(t, 404, s.call(t, "other", "POST", "/ssf/poll/"+id, object{}).status)
	})
	t.Run("a client has a limited number of streams", func(t *testing.T) {
		s := start(t, "", signaling)
		for range 10 {
			s.stream(t, "receiver", object{})
		}
		assert.Equal(t, 409, s.call(t, "receiver", "POST", "/ssf/streams", object{}).status)
		s.stream(t, "other", object{})
	})
}

// polled returns what a stream offers, verified and in order.
func (s *site) polled(t *testing.T, id, stream string, members object) (sets []set, more bool) {
	t.Helper()
	a := s.call(t, id, "POST", "/ssf/poll/"+stream, members)
	require.Equal(t, 200, a.status, a.text)
	all := a.body["sets"].(object)
	keys := []string{}
	for jti := range all {
		keys = append(keys, jti)
	}
	slices.Sort(keys)
	for _, jti := range keys {
		v := s.verify(t, all[jti].(string))
		assert.Equal(t, jti, v.claims["jti"])
		sets = append(sets, v)
	}
	more, _ = a.body["moreAvailable"].(bool)
	return sets, more
}

func jtis(sets ...set) (all []string) {
	for _, v := range sets {
		all = append(all, v.claims["jti"].(string))
	}
	return all
}

func TestPoll(t *testing.T) {
	s := transmitting(t, "/as")
	id := s.stream(t, "receiver", object{})["stream_id"].(string)
	t.Run("bad requests", func(t *testing.T) {
		for _, body := range []any{[]int{}, object{"maxEvents": -1}, object{"maxEvents": "1"}, object{"maxEvents": 1.5}, object{"returnImmediately": 1}, object{"ack": "x"}, object{"ack": []int{1}}, object{"setErrs": []string{}}, object{"setErrs": object{"x": 1}}} {
			assert.Equal(t, 400, s.call(t, "receiver", "POST", "/ssf/poll/"+id, body).status, body)
		}
		push := s.stream(t, "receiver", pushTo("https://r.example/"))["stream_id"].(string)
		assert.Equal(t, 404, s.call(t, "receiver", "POST", "/ssf/poll/"+push, object{"returnImmediately": true}).status, "a stream that is pushed")
	})
	t.Run("an empty queue answers at once if so requested", func(t *testing.T) {
		sets, more := s.polled(t, "receiver", id, object{"returnImmediately": true})
		assert.Empty(t, sets)
		assert.False(t, more)
	})
	t.Run("a request that waits gets the event when it happens, until it is acknowledged", func(t *testing.T) {
		b, access, refresh := s.browse(t)
		got := make(chan []set, 1)
		go func() {
			sets, _ := s.polled(t, "receiver", id, object{})
			got <- sets
		}()
		s.logOut(t, b)
		var sets []set
		select {
		case sets = <-got:
		case <-time.After(soon):
			require.Fail(t, "no event")
		}
		require.Len(t, sets, 1)
		assert.Equal(t, part(t, access, 1)["sid"], sets[0].sid())
		assert.Equal(t, 400, s.post(t, "/oauth2/token", "web", "test-secret-of-web", form("grant_type", "refresh_token", "refresh_token", refresh)).status, "the grant of the session is over")

		again, _ := s.polled(t, "receiver", id, object{"returnImmediately": true})
		assert.Equal(t, jtis(sets...), jtis(again...), "at least once")
		left, _ := s.polled(t, "receiver", id, object{"returnImmediately": true, "ack": append(jtis(sets...), "", "unknown", strings.Repeat("x", 2000), "\x00")})
		assert.Empty(t, left)
	})
	t.Run("more than one page, in order, acknowledged apart", func(t *testing.T) {
		var want []string
		for range 5 {
			access, refresh := s.grant(t, "alice", "correct horse")
			want = append(want, part(t, access, 1)["sid"].(string))
			require.Equal(t, 200, s.post(t, "/oauth2/revoke", "writer", "test-secret-of-writer", form("token", refresh)).status)
		}
		require.Eventually(t, func() bool {
			all, _ := s.polled(t, "receiver", id, object{"returnImmediately": true})
			return len(all) == 5
		}, soon, 10*time.Millisecond)
		var got []string
		var last []string
		for range 3 {
			page, more := s.polled(t, "receiver", id, object{"maxEvents": 2, "ack": last, "returnImmediately": true})
			assert.Equal(t, len(got)+len(page) < 5, more)
			for _, v := range page {
				got = append(got, v.sid())
			}
			last = jtis(page...)
		}
		assert.Equal(t, want, got)
		a := s.call(t, "receiver", "POST", "/ssf/poll/"+id, object{"maxEvents": 0, "ack": last})
		assert.Equal(t, object{"sets": object{}}, a.body, "only an acknowledgment")
	})
	t.Run("a token that the receiver refuses becomes a dead letter", func(t *testing.T) {
		require.Equal(t, 204, s.call(t, "receiver", "POST", "/ssf/verify", object{"stream_id": id}).status)
		sets, _ := s.polled(t, "receiver", id, object{})
		require.Len(t, sets, 1)
		left, _ := s.polled(t, "receiver", id, object{"returnImmediately": true, "setErrs": object{jtis(sets...)[0]: object{"err": "invalid_\nkey", "description": "x"}}})
		assert.Empty(t, left)
		assert.Equal(t, 1, s.status(t, id).Dead)
		assert.Contains(t, s.log.String(), "signal not delivered")
	})
}

func (s *site) status(t *testing.T, id string) authserver.SignalStream {
	t.Helper()
	all, err := s.SignalStreams(t.Context())
	require.NoError(t, err)
	i := slices.IndexFunc(all, func(one authserver.SignalStream) bool { return one.ID == id })
	require.GreaterOrEqual(t, i, 0)
	return all[i]
}

func TestVerification(t *testing.T) {
	s := transmitting(t, "/as")
	k := receive(t)
	id := s.stream(t, "receiver", pushTo(k.url))["stream_id"].(string)
	assert.Equal(t, 400, s.call(t, "receiver", "POST", "/ssf/verify", object{"stream_id": id, "state": strings.Repeat("x", 1001)}).status)
	require.Equal(t, 204, s.call(t, "receiver", "POST", "/ssf/verify", object{"stream_id": id, "state": "a state"}).status)
	v := k.wait(t, s, 1)[0]
	assert.Equal(t, "secevent+jwt", v.header["typ"])
	assert.Equal(t, verification, v.kind)
	assert.Equal(t, object{"state": "a state"}, v.event)
	assert.Equal(t, object{"format": "opaque", "id": id}, v.claims["sub_id"])
	assert.Equal(t, s.url, v.claims["iss"])
	assert.Equal(t, "receiver", v.claims["aud"])
	for _, member := range []string{"sub", "exp"} {
		assert.NotContains(t, v.claims, member)
	}
	r := k.asked()[0]
	assert.Equal(t, "application/secevent+jwt", r.Header.Get("Content-Type"))
	assert.Empty(t, r.Header.Get("Authorization"))
	var last answer
	for range 3 {
		last = s.call(t, "receiver", "POST", "/ssf/verify", object{"stream_id": id})
	}
	assert.Equal(t, 429, last.status, "too often")
	assert.NotEmpty(t, last.header.Get("Retry-After"))
	assert.Equal(t, object{}, k.wait(t, s, 2)[1].event, "without a state")
}

func TestPush(t *testing.T) {
	end := func(t *testing.T, s *site) (sid string) {
		access, refresh := s.grant(t, "alice", "correct horse")
		require.Equal(t, 200, s.post(t, "/oauth2/revoke", "writer", "test-secret-of-writer", form("token", refresh)).status)
		return part(t, access, 1)["sid"].(string)
	}
	t.Run("SSFTX-04 the header goes with each push", func(t *testing.T) {
		s := transmitting(t, "")
		k := receive(t)
		s.stream(t, "receiver", pushTo(k.url, "authorization_header", "Bearer hush-hush"))
		end(t, s)
		end(t, s)
		k.wait(t, s, 2)
		for _, r := range k.asked() {
			assert.Equal(t, "Bearer hush-hush", r.Header.Get("Authorization"))
		}
	})
	t.Run("SSFTX-05 no redirect is followed", func(t *testing.T) {
		s := transmitting(t, "")
		k := receive(t)
		id := s.stream(t, "receiver", pushTo(k.url, "authorization_header", "Bearer hush-hush"))["stream_id"].(string)
		k.respond(func(int) (int, string) { return 307, "" })
		sid := end(t, s)
		require.Eventually(t, func() bool { return len(k.asked()) >= 2 }, soon, 5*time.Millisecond)
		for _, r := range k.asked() {
			assert.Equal(t, "/events", r.URL.Path)
		}
		assert.Equal(t, 1, s.status(t, id).Waiting, "it waits for an endpoint that answers")
		k.respond(nil)
		assert.Equal(t, sid, k.wait(t, s, 1)[0].sid())
	})
	t.Run("the streams of a client end with it", func(t *testing.T) {
		s := transmitting(t, "")
		k, left := receive(t), receive(t)
		s.stream(t, "receiver", pushTo(k.url))
		id, secret, err := s.AddClient(t.Context(), authserver.Client{Scopes: []string{"ssf.manage"}, GrantTypes: []string{"client_credentials"}})
		require.NoError(t, err)
		a := s.post(t, "/oauth2/token", id, secret, form("grant_type", "client_credentials", "resource", s.url+"/ssf"))
		require.Equal(t, 200, a.status, a.text)
		body, err := json.Marshal(pushTo(left.url))
		require.NoError(t, err)
		a = send(t, "POST", s.url+"/ssf/streams", string(body), "Content-Type", "application/json", "Authorization", "Bearer "+a.body["access_token"].(string))
		require.Equal(t, 201, a.status, a.text)
		end(t, s)
		left.wait(t, s, 1)
		require.NoError(t, s.RemoveClient(t.Context(), id))
		all, err := s.SignalStreams(t.Context())
		require.NoError(t, err)
		assert.Len(t, all, 1)
		end(t, s)
		k.wait(t, s, 2)
		assert.Len(t, left.asked(), 1)
	})
	t.Run("SSFTX-05 an endpoint that is no longer allowed is not reached", func(t *testing.T) {
		records := newMemory()
		shared := func(c *authserver.Config) { c.Store, c.InsecureUnsealed = records, true }
		s := start(t, "", signaling, shared)
		k := receive(t)
		s.stream(t, "receiver", pushTo(k.url))
		s = transmitting(t, "", shared, func(c *authserver.Config) { c.Signals.InsecureLoopbackReceivers = false })
		end(t, s)
		require.Eventually(t, func() bool { return strings.Contains(s.log.String(), "the endpoint is not an https URL") }, soon, 5*time.Millisecond)
		assert.Empty(t, k.asked())
	})
	t.Run("SSFTX-10 a receiver that fails gets it again, later and later, and then at once", func(t *testing.T) {
		s := transmitting(t, "")
		k := receive(t)
		s.stream(t, "receiver", pushTo(k.url))
		k.respond(func(n int) (int, string) {
			if n <= 2 {
				return 503, ""
			}
			return 202, ""
		})
		sid := end(t, s)
		got := k.wait(t, s, 1)
		assert.Equal(t, sid, got[0].sid())
		assert.Len(t, k.asked(), 3)
		assert.Equal(t, 1, strings.Count(s.log.String(), "signals not delivered: trying again"), "one line per change")
		require.Eventually(t, func() bool { return strings.Contains(s.log.String(), "signals delivered again") }, soon, 5*time.Millisecond)
	})
	for _, code := range []string{"invalid_key", "authentication_failed", "access_denied"} {
		t.Run("SSFTX-10 400 with "+code+" is sent again", func(t *testing.T) {
			s := transmitting(t, "")
			k := receive(t)
			s.stream(t, "receiver", pushTo(k.url))
			k.respond(func(n int) (int, string) {
				if n == 1 {
					return 400, fmt.Sprintf(`{"err":%q,"description":"x"}`, code)
				}
				return 202, ""
			})
			end(t, s)
			k.wait(t, s, 1)
			assert.Len(t, k.asked(), 2)
		})
	}
	t.Run("SSFTX-10 any other 400 is not repeated, and the next token goes on", func(t *testing.T) {
		s := transmitting(t, "")
		k := receive(t)
		id := s.stream(t, "receiver", pushTo(k.url))["stream_id"].(string)
		k.respond(func(n int) (int, string) {
			if n == 1 {
				return 400, `{"err":"invalid_request"}`
			}
			return 202, ""
		})
		end(t, s)
		require.Eventually(t, func() bool { return len(k.asked()) == 1 }, soon, 5*time.Millisecond)
		sid := end(t, s)
		assert.Equal(t, sid, k.wait(t, s, 1)[0].sid())
		assert.Len(t, k.asked(), 2)
		assert.Equal(t, 1, s.status(t, id).Dead)
	})
	t.Run("one receiver that fails holds up no other", func(t *testing.T) {
		s := transmitting(t, "")
		dead, alive := receive(t), receive(t)
		dead.respond(func(int) (int, string) { return 500, "" })
		s.stream(t, "receiver", pushTo(dead.url))
		s.stream(t, "other", pushTo(alive.url))
		for n := range 3 {
			end(t, s)
			alive.wait(t, s, n+1)
		}
	})
	t.Run("a new endpoint gets what the old one did not take", func(t *testing.T) {
		s := transmitting(t, "")
		old, new := receive(t), receive(t)
		old.respond(func(int) (int, string) { return 500, "" })
		id := s.stream(t, "receiver", pushTo(old.url))["stream_id"].(string)
		sid := end(t, s)
		require.Eventually(t, func() bool { return len(old.asked()) > 0 }, soon, 5*time.Millisecond)
		moved := pushTo(new.url)
		moved["stream_id"] = id
		require.Equal(t, 200, s.call(t, "receiver", "PATCH", "/ssf/streams", moved).status)
		assert.Equal(t, sid, new.wait(t, s, 1)[0].sid())
	})
}

func TestStreamStatus(t *testing.T) {
	s := transmitting(t, "/as")
	set := func(t *testing.T, id, status string) answer {
		return s.call(t, "receiver", "POST", "/ssf/status", object{"stream_id": id, "status": status, "reason": "maintenance"})
	}
	end := func(t *testing.T) string {
		access, refresh := s.grant(t, "alice", "correct horse")
		require.Equal(t, 200, s.post(t, "/oauth2/revoke", "writer", "test-secret-of-writer", form("token", refresh)).status)
		return part(t, access, 1)["sid"].(string)
	}
	t.Run("a status that does not exist", func(t *testing.T) {
		id := s.stream(t, "receiver", object{})["stream_id"].(string)
		assert.Equal(t, 400, set(t, id, "off").status)
		assert.Equal(t, object{"stream_id": id, "status": "enabled"}, s.call(t, "receiver", "GET", "/ssf/status?stream_id="+id, nil).body)
	})
	t.Run("SSFTX-07 a paused stream holds its events, and delivers them in order when it is resumed", func(t *testing.T) {
		k := receive(t)
		id := s.stream(t, "receiver", pushTo(k.url))["stream_id"].(string)
		polled := s.stream(t, "receiver", object{})["stream_id"].(string)
		for _, one := range []string{id, polled} {
			a := set(t, one, "paused")
			assert.Equal(t, object{"stream_id": one, "status": "paused", "reason": "maintenance"}, a.body)
		}
		want := []string{end(t), end(t), end(t)}
		require.Eventually(t, func() bool { return s.status(t, id).Waiting == 3 && s.status(t, polled).Waiting == 3 }, soon, 5*time.Millisecond)
		none, _ := s.polled(t, "receiver", polled, object{"returnImmediately": true})
		assert.Empty(t, none)
		assert.Empty(t, k.received())
		set(t, id, "enabled")
		set(t, polled, "enabled")
		var got []string
		for _, v := range k.wait(t, s, 3) {
			got = append(got, v.sid())
		}
		assert.Equal(t, want, got)
		all, _ := s.polled(t, "receiver", polled, object{"returnImmediately": true})
		got = nil
		for _, v := range all {
			got = append(got, v.sid())
		}
		assert.Equal(t, want, got)
	})
	t.Run("SSFTX-06 the receiver is notified before the operator pauses its stream, and when it resumes", func(t *testing.T) {
		k := receive(t)
		id := s.stream(t, "other", pushTo(k.url))["stream_id"].(string)
		polled := s.stream(t, "other", object{})["stream_id"].(string)
		for _, one := range []string{id, polled} {
			require.NoError(t, s.SetSignalStream(t.Context(), one, "paused", "an audit"))
		}
		sid := end(t)
		v := k.wait(t, s, 1)[0]
		assert.Equal(t, streamUpdated, v.kind)
		assert.Equal(t, object{"status": "paused", "reason": "an audit"}, v.event)
		assert.Equal(t, object{"format": "opaque", "id": id}, v.claims["sub_id"])
		require.Eventually(t, func() bool { return s.status(t, polled).Waiting == 2 }, soon, 5*time.Millisecond)
		told, _ := s.polled(t, "other", polled, object{"returnImmediately": true})
		require.Len(t, told, 1)
		assert.Equal(t, streamUpdated, told[0].kind)
		require.NoError(t, s.SetSignalStream(t.Context(), id, "enabled", ""))
		got := k.wait(t, s, 3)
		assert.Equal(t, object{"status": "enabled"}, got[1].event)
		assert.Equal(t, sid, got[2].sid())
		assert.Error(t, s.SetSignalStream(t.Context(), id, "off", ""))
		assert.ErrorContains(t, s.SetSignalStream(t.Context(), strings.Repeat("a", 26), "paused", ""), "no such stream")
	})
	t.Run("a disabled stream holds nothing", func(t *testing.T) {
		id := s.stream(t, "other", object{})["stream_id"].(string)
		require.Equal(t, 200, s.call(t, "other", "POST", "/ssf/status", object{"stream_id": id, "status": "disabled"}).status)
		witness := s.stream(t, "other", object{})["stream_id"].(string)
		end(t)
		require.Eventually(t, func() bool { return s.status(t, witness).Waiting == 1 }, soon, 5*time.Millisecond)
		assert.Equal(t, 0, s.status(t, id).Waiting)
	})
}

func TestSubjects(t *testing.T) {
	s := transmitting(t, "/as")
	id := s.stream(t, "receiver", object{})["stream_id"].(string)
	alice := object{"format": "iss_sub", "iss": s.url, "sub": "customer:alice"}
	ask := func(path string, subject any) int {
		return s.call(t, "receiver", "POST", "/ssf/subjects:"+path, object{"stream_id": id, "subject": subject}).status
	}
	for _, subject := range []any{nil, "x", object{}, object{"format": "email", "email": "alice@example.com"}, object{"format": "iss_sub", "iss": s.url}, object{"format": "complex", "user": alice, "tenant": alice}, object{"format": "complex", "user": "x"}} {
		assert.Equal(t, 400, ask("remove", subject), subject)
	}
	assert.Equal(t, 204, ask("remove", object{"format": "iss_sub", "iss": "https://other.example", "sub": "customer:alice"}), "of another issuer")
	assert.Equal(t, 204, ask("remove", object{"format": "complex", "user": alice}))
	assert.Equal(t, 204, ask("remove", alice), "again")
	witness := s.stream(t, "receiver", object{})["stream_id"].(string)
	end := func() {
		_, refresh := s.grant(t, "alice", "correct horse")
		require.Equal(t, 200, s.post(t, "/oauth2/revoke", "writer", "test-secret-of-writer", form("token", refresh)).status)
	}
	end()
	require.Eventually(t, func() bool { return s.status(t, witness).Waiting == 1 }, soon, 5*time.Millisecond)
	assert.Equal(t, 0, s.status(t, id).Waiting)
	assert.Equal(t, 200, ask("add", alice))
	end()
	require.Eventually(t, func() bool { return s.status(t, id).Waiting == 1 }, soon, 5*time.Millisecond)
}

// gone is a login whose users can be disabled.
type gone struct {
	*login.Database
	disabled func() bool
}

func (g gone) Lookup(ctx context.Context, subject string) (*login.Account, error) {
	if g.disabled() {
		return nil, login.ErrNoUser
	}
	return g.Database.Lookup(ctx, subject)
}

func TestEvents(t *testing.T) {
	s := transmitting(t, "/as")
	k := receive(t)
	s.stream(t, "receiver", pushTo(k.url))
	_, err := s.AddUser(t.Context(), "", login.NewUser{Name: "bob", Password: "correct mule", ID: "bob"})
	require.NoError(t, err)
	n := 0
	next := func(t *testing.T, count int) []set {
		t.Helper()
		all := k.wait(t, s, n+count)[n:]
		n += count
		for _, v := range all {
			assert.Equal(t, all[0].claims["txn"], v.claims["txn"], "one cause")
			assert.NotEmpty(t, v.claims["txn"])
			assert.WithinDuration(t, time.Now(), time.Unix(int64(v.claims["toe"].(float64)), 0), soon)
		}
		return all
	}
	revoked := func(t *testing.T, v set, sub string, sid any, initiator string) {
		t.Helper()
		assert.Equal(t, sessionRevoked, v.kind)
		user := object{"format": "iss_sub", "iss": s.url, "sub": sub}
		want := object{"format": "complex", "user": user}
		if sid != nil {
			want["session"] = object{"format": "opaque", "id": sid}
		}
		assert.Equal(t, want, v.claims["sub_id"])
		assert.Equal(t, v.claims["toe"], v.event["event_timestamp"])
		assert.NotEmpty(t, v.event["reason_admin"].(object)["en"])
		if initiator == "" {
			assert.NotContains(t, v.event, "initiating_entity")
		} else {
			assert.Equal(t, initiator, v.event["initiating_entity"])
		}
	}
	t.Run("SSFTX-08 SSFTX-09 a log-out, with a reason", func(t *testing.T) {
		b, access, _ := s.browse(t)
		other, _ := s.authorize(t, b)
		s.logOut(t, b)
		all := slices.Concat(next(t, 1), next(t, 1))
		sids := []any{part(t, access, 1)["sid"], part(t, other, 1)["sid"]}
		for _, v := range all {
			assert.Contains(t, sids, any(v.sid()))
			revoked(t, v, "customer:alice", v.sid(), "user")
		}
	})
	t.Run("SSFTX-09 a consent that is revoked", func(t *testing.T) {
		b, access, _ := s.browse(t)
		res, err := b.Get(s.url + "/account/applications")
		page := read(t, res, err)
		m := formToken.FindStringSubmatch(page.text)
		require.NotNil(t, m)
		res, err = b.PostForm(s.url+"/account/applications", form("token", m[1], "client_id", "web"))
		require.Equal(t, 200, read(t, res, err).status)
		revoked(t, next(t, 1)[0], "customer:alice", part(t, access, 1)["sid"], "user")
	})
	t.Run("SSFTX-09 a token that is revoked (RFC 7009), a refresh token that is used again", func(t *testing.T) {
		access, _ := s.grant(t, "bob", "correct mule")
		require.Equal(t, 200, s.post(t, "/oauth2/revoke", "writer", "test-secret-of-writer", form("token", access)).status)
		revoked(t, next(t, 1)[0], "customer:bob", part(t, access, 1)["sid"], "system")
		access, refresh := s.grant(t, "bob", "correct mule")
		require.Equal(t, 200, s.refreshed(t, refresh))
		require.Equal(t, 400, s.refreshed(t, refresh))
		revoked(t, next(t, 1)[0], "customer:bob", part(t, access, 1)["sid"], "policy")
	})
	t.Run("a client's own token has no session", func(t *testing.T) {
		own := s.token(t, "reader", "").AccessToken
		require.Equal(t, 200, s.post(t, "/oauth2/revoke", "reader", "test-secret-of-reader", form("token", own)).status)
		assert.Equal(t, object{"format": "jwt_id", "iss": s.url, "jti": part(t, own, 1)["jti"]}, next(t, 1)[0].claims["sub_id"])
	})
	t.Run("SSFTX-09 a password that the operator sets", func(t *testing.T) {
		_, refresh := s.grant(t, "bob", "correct mule")
		require.NoError(t, s.SetPassword(t.Context(), "", "bob", "another mule"))
		all := next(t, 2)
		revoked(t, all[0], "customer:bob", nil, "")
		assert.Equal(t, credentialChange, all[1].kind)
		assert.Equal(t, "password", all[1].event["credential_type"])
		assert.Equal(t, "update", all[1].event["change_type"])
		assert.Equal(t, 400, s.refreshed(t, refresh))
	})
	t.Run("SSFTX-09 a session that its user ends, a password that its user changes, a log-out everywhere", func(t *testing.T) {
		one, other := newVisitor(t).enters(s, "bob", "another mule"), newVisitor(t).enters(s, "bob", "another mule")
		access, _ := s.authorize(t, other.client)
		sessions := regexp.MustCompile(`name="session" value="([A-Z0-9]+)"`).FindStringSubmatch(one.get(s.url + "/account/sessions").text)
		require.Len(t, sessions, 2)
		require.Equal(t, 303, one.post(s, "/account/sessions", "session", sessions[1]).status)
		revoked(t, next(t, 1)[0], "customer:bob", part(t, access, 1)["sid"], "user")

		_, refresh := s.authorize(t, one.client)
		one.post(s, "/account/password", "old", "a wrong mule", "new", "a third mule", "repeat", "a third mule", "others", "end")
		require.Equal(t, 303, one.post(s, "/account/password", "old", "another mule", "new", "a third mule", "repeat", "a third mule").status)
		alone := next(t, 1)[0]
		assert.Equal(t, credentialChange, alone.kind, "no session ends")
		assert.Equal(t, "user", alone.event["initiating_entity"])
		kept := s.post(t, "/oauth2/token", "web", "test-secret-of-web", form("grant_type", "refresh_token", "refresh_token", refresh))
		require.Equal(t, 200, kept.status, "the user keeps the others")
		require.Equal(t, 303, one.post(s, "/account/password", "old", "a third mule", "new", "another mule", "repeat", "another mule", "others", "end").status)
		all := next(t, 2)
		revoked(t, all[0], "customer:bob", nil, "")
		assert.Equal(t, credentialChange, all[1].kind)

		require.Equal(t, 303, one.post(s, "/account/everywhere").status)
		revoked(t, next(t, 1)[0], "customer:bob", nil, "user")
	})
	t.Run("SSFTX-09 a user whom the operator logs out everywhere or removes", func(t *testing.T) {
		s.grant(t, "bob", "another mule")
		_, _, err := s.RevokeUser(t.Context(), "customer:bob")
		require.NoError(t, err)
		revoked(t, next(t, 1)[0], "customer:bob", nil, "admin")
		require.NoError(t, s.RemoveUser(t.Context(), "", "bob"))
		all := next(t, 2)
		revoked(t, all[0], "customer:bob", nil, "admin")
		assert.Equal(t, accountPurged, all[1].kind)
		assert.Equal(t, object{"format": "iss_sub", "iss": s.url, "sub": "customer:bob"}, all[1].claims["sub_id"])
	})
	t.Run("a client that is removed", func(t *testing.T) {
		id, secret, err := s.AddClient(t.Context(), authserver.Client{Scopes: []string{"orders:read"}, GrantTypes: []string{"password"}})
		require.NoError(t, err)
		a := s.post(t, "/oauth2/token", id, secret, form("grant_type", "password", "username", "alice", "password", "correct horse"))
		require.Equal(t, 200, a.status, a.text)
		require.NoError(t, s.RemoveClient(t.Context(), id))
		revoked(t, next(t, 1)[0], "customer:alice", part(t, a.body["access_token"].(string), 1)["sid"], "")
	})
	t.Run("nothing is announced that was not done", func(t *testing.T) {
		require.Error(t, s.SetPassword(t.Context(), "", "nobody", "another mule"))
		require.Error(t, s.RemoveUser(t.Context(), "", "nobody"))
		require.Equal(t, 200, s.post(t, "/oauth2/revoke", "writer", "test-secret-of-writer", form("token", "x")).status)
		access, _ := s.grant(t, "alice", "correct horse")
		for range 2 {
			require.Equal(t, 200, s.post(t, "/oauth2/revoke", "writer", "test-secret-of-writer", form("token", access)).status)
		}
		revoked(t, next(t, 1)[0], "customer:alice", part(t, access, 1)["sid"], "system")
		assert.Len(t, k.received(), n)
	})
}

func TestDisabledUsersAndChangedFiles(t *testing.T) {
	t.Run("SSFTX-09 a user who is disabled in the directory", func(t *testing.T) {
		var mu sync.Mutex
		var disabled bool
		s := transmitting(t, "", func(c *authserver.Config) {
			db, err := login.NewDatabase(newMemory(), "employee")
			require.NoError(t, err)
			_, err = db.Add(t.Context(), login.NewUser{Name: "carol", Password: "correct goat", ID: "carol"})
			require.NoError(t, err)
			c.Users = nil
			c.UserTypes = []authserver.UserType{{Type: "employee", Login: gone{db, func() bool {
				mu.Lock()
				defer mu.Unlock()
				return disabled
			}}}}
		})
		k := receive(t)
		s.stream(t, "receiver", pushTo(k.url))
		_, refresh := s.grant(t, "carol", "correct goat")
		mu.Lock()
		disabled = true
		mu.Unlock()
		require.Equal(t, 400, s.refreshed(t, refresh))
		all := k.wait(t, s, 2)
		assert.Equal(t, []string{sessionRevoked, accountDisabled}, []string{all[0].kind, all[1].kind})
		assert.Equal(t, "employee:carol", all[0].sub())
		assert.Empty(t, all[0].sid())
	})
	t.Run("SSFTX-09 a user who is removed from the file, or has another password there", func(t *testing.T) {
		records := newMemory()
		k := receive(t)
		file := func(users ...authserver.User) *site {
			return start(t, "", signaling, func(c *authserver.Config) {
				c.Store, c.InsecureUnsealed, c.Users = records, true, users
			})
		}
		s := file(authserver.User{Name: "alice", Password: "correct horse"}, authserver.User{Name: "bob", Password: "correct mule"})
		s.stream(t, "receiver", pushTo(k.url))
		s.grant(t, "alice", "correct horse")
		s.grant(t, "bob", "correct mule")
		s = file(authserver.User{Name: "alice", Password: "another horse"})
		running(t, s)
		all := k.wait(t, s, 2)
		assert.Equal(t, []string{sessionRevoked, accountPurged}, []string{all[0].kind, all[1].kind})
		assert.Equal(t, "customer:bob", all[0].sub())
		s.grant(t, "alice", "another horse")
		all = k.wait(t, s, 4)[2:]
		assert.Equal(t, []string{sessionRevoked, credentialChange}, []string{all[0].kind, all[1].kind})
		assert.Equal(t, "customer:alice", all[0].sub())
	})
}

func TestBackChannelLogout(t *testing.T) {
	var tokens []string
	var mu sync.Mutex
	status := []int{}
	rp := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if assert.Equal(t, "application/x-www-form-urlencoded", r.Header.Get("Content-Type")); r.Method != "POST" || r.ParseForm() != nil {
			w.WriteHeader(500)
			return
		}
		code := 200
		if len(status) > 0 {
			code, status = status[0], status[1:]
		}
		tokens = append(tokens, r.PostForm.Get("logout_token"))
		w.WriteHeader(code)
	}))
	t.Cleanup(rp.Close)
	with := func(c *authserver.Config) {
		for i := range c.Clients {
			if c.Clients[i].ID == "web" || c.Clients[i].ID == "writer" {
				c.Clients[i].LogoutURI = rp.URL + "/logout"
				c.Clients[i].LogoutSession = c.Clients[i].ID == "writer"
			}
		}
	}
	s := transmitting(t, "/as", with)
	taken := func(t *testing.T, n int) (all []set) {
		t.Helper()
		require.Eventually(t, func() bool {
			mu.Lock()
			defer mu.Unlock()
			return len(tokens) >= n
		}, soon, 5*time.Millisecond)
		mu.Lock()
		defer mu.Unlock()
		for _, raw := range tokens {
			all = append(all, s.verify(t, raw))
		}
		tokens = nil
		return all
	}
	check := func(t *testing.T, v set, client string, sid any) {
		t.Helper()
		assert.Equal(t, "logout+jwt", v.header["typ"])
		assert.Equal(t, s.url, v.claims["iss"])
		assert.Equal(t, client, v.claims["aud"])
		assert.Equal(t, "customer:alice", v.claims["sub"])
		assert.Equal(t, sid, v.claims["sid"])
		assert.NotContains(t, v.claims, "nonce")
		assert.NotEmpty(t, v.claims["jti"])
		assert.Equal(t, 120.0, v.claims["exp"].(float64)-v.claims["iat"].(float64))
		assert.Equal(t, object{"http://schemas.openid.net/event/backchannel-logout": object{}}, v.claims["events"])
	}
	t.Run("a log-out ends the session at each client", func(t *testing.T) {
		b, access, _ := s.browse(t)
		s.logOut(t, b)
		check(t, taken(t, 1)[0], "web", part(t, access, 1)["sid"])
	})
	t.Run("BCL-09 204 is success too, and a failure is repeated", func(t *testing.T) {
		mu.Lock()
		status = []int{503, 204}
		mu.Unlock()
		b, access, _ := s.browse(t)
		s.logOut(t, b)
		require.Eventually(t, func() bool {
			mu.Lock()
			defer mu.Unlock()
			return len(tokens) == 2
		}, soon, 5*time.Millisecond)
		all := taken(t, 2)
		check(t, all[1], "web", part(t, access, 1)["sid"])
		assert.NotEqual(t, all[0].claims["jti"], all[1].claims["jti"], "a receiver may refuse a repeated jti")
	})
	t.Run("the end of a user names no session, unless the client requires one", func(t *testing.T) {
		_, _, _ = s.browse(t)
		one, _ := s.grant(t, "alice", "correct horse")
		two, _ := s.grant(t, "alice", "correct horse")
		_, _, err := s.RevokeUser(t.Context(), "customer:alice")
		require.NoError(t, err)
		sids := map[any]bool{}
		for _, v := range taken(t, 3) {
			if v.claims["aud"] == "web" {
				check(t, v, "web", nil)
				continue
			}
			check(t, v, "writer", v.claims["sid"])
			sids[v.claims["sid"]] = true
		}
		assert.Equal(t, map[any]bool{part(t, one, 1)["sid"]: true, part(t, two, 1)["sid"]: true}, sids)
	})
	t.Run("a client that refuses a token does not get it again", func(t *testing.T) {
		mu.Lock()
		status = []int{400}
		mu.Unlock()
		b, _, _ := s.browse(t)
		s.logOut(t, b)
		taken(t, 1)
		require.Eventually(t, func() bool { return strings.Contains(s.log.String(), "stream=client:web") }, soon, 5*time.Millisecond)
	})
	t.Run("a client registers its endpoint", func(t *testing.T) {
		s := start(t, "", signaling, func(c *authserver.Config) { c.Registration.Open = true })
		register := func(body string) answer {
			return send(t, "POST", s.url+"/oauth2/register", body, "Content-Type", "application/json")
		}
		assert.Equal(t, 400, register(`{"redirect_uris":["https://a.example/cb"],"backchannel_logout_uri":"http://a.example/out"}`).status)
		assert.Equal(t, 400, register(`{"redirect_uris":["https://a.example/cb"],"backchannel_logout_session_required":true}`).status)
		a := register(`{"redirect_uris":["https://a.example/cb"],"backchannel_logout_uri":"https://a.example/out","backchannel_logout_session_required":true}`)
		require.Equal(t, 201, a.status, a.text)
		assert.Equal(t, "https://a.example/out", a.body["backchannel_logout_uri"])
		assert.Equal(t, true, a.body["backchannel_logout_session_required"])
	})
}

func TestGlobalTokenRevocation(t *testing.T) {
	records := newMemory()
	s := transmitting(t, "/as", func(c *authserver.Config) {
		c.Store, c.InsecureUnsealed = records, true
		c.TrustedIssuers = []authserver.TrustedIssuer{{Issuer: "https://idp.example", JWKSURL: "https://idp.example/keys", SubjectType: "partner", Scopes: []string{"orders:read"}}}
	})
	k := receive(t)
	s.stream(t, "receiver", pushTo(k.url))
	revoke := func(t *testing.T, subject any) answer {
		t.Helper()
		return s.call(t, "responder", "POST", "/global-token-revocation", object{"sub_id": subject})
	}
	user := func(iss, sub string) object { return object{"format": "iss_sub", "iss": iss, "sub": sub} }
	t.Run("GTR-01 without a token, and for a user of another issuer", func(t *testing.T) {
		assert.Equal(t, 401, send(t, "POST", s.url+"/global-token-revocation", `{}`).status)
		assert.Equal(t, 403, s.call(t, "receiver", "POST", "/global-token-revocation", object{"sub_id": user(s.url, "customer:alice")}).status, "with another scope")
		assert.Equal(t, 403, revoke(t, user("https://other.example", "customer:alice")).status)
	})
	t.Run("GTR-02 an unknown format and an unknown user", func(t *testing.T) {
		for _, subject := range []any{nil, "alice", object{"format": "email", "email": "alice@example.com"}, object{"format": "iss_sub", "iss": s.url}} {
			assert.Equal(t, 400, revoke(t, subject).status, subject)
		}
		assert.Equal(t, 404, revoke(t, user(s.url, "customer:nobody")).status)
	})
	t.Run("GTR-02 a client is not a user, and nothing is announced about a user who never existed", func(t *testing.T) {
		a := s.post(t, "/oauth2/token", "receiver", "test-secret-of-receiver", form("grant_type", "client_credentials", "scope", "ssf.manage"))
		require.Equal(t, 200, a.status, a.text)
		for range 20 {
			assert.Equal(t, 404, revoke(t, user(s.url, "receiver")).status)
			assert.Equal(t, 404, revoke(t, user(s.url, "customer:nobody")).status)
		}
		assert.Equal(t, 200, send(t, "GET", s.url+"/ssf/streams", "", "Authorization", "Bearer "+a.body["access_token"].(string)).status, "its token lives")
		events, err := records.Find(t.Context(), "ended", store.Key{}, "", 1)
		require.NoError(t, err)
		assert.Empty(t, events)
		assert.Empty(t, k.received())
	})
	t.Run("GTR-02 204, the refresh token fails, and login is asked again", func(t *testing.T) {
		b, access, refresh := s.browse(t)
		a := revoke(t, user(s.url, "customer:alice"))
		assert.Equal(t, 204, a.status, a.text)
		assert.Empty(t, a.text)
		assert.Equal(t, 400, s.post(t, "/oauth2/token", "web", "test-secret-of-web", form("grant_type", "refresh_token", "refresh_token", refresh)).status)
		assert.Equal(t, inactive, strings.TrimSpace(s.introspect(t, "orders-api", access).text))
		assert.False(t, s.still(t, b))
		require.Eventually(t, func() bool { return len(k.received()) > 0 }, soon, 5*time.Millisecond)
		all := k.received()
		v := s.verify(t, all[len(all)-1])
		assert.Equal(t, "customer:alice", v.sub())
		assert.Empty(t, v.sid(), "all sessions")
	})
	t.Run("a user of a trusted issuer", func(t *testing.T) {
		assert.Equal(t, 204, revoke(t, user("https://idp.example", "bob")).status)
		assert.Contains(t, s.log.String(), "subject=partner:bob")
	})
}

func newMemory() store.Store { return store.NewMemory(0) }
