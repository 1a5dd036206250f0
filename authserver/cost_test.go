package authserver_test

import (
	"crypto/rand"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/authserver"
	"github.com/valetkey/valetkey/authserver/internal/costs"
	"github.com/valetkey/valetkey/authserver/login"
	"github.com/valetkey/valetkey/authserver/store"
	"github.com/valetkey/valetkey/valetkeytest"
)

// The most that one request may cause in the store, by who sends it. A write is durable: SQLite and PostgreSQL wait for the
// disk, and all writers wait for each other.
var (
	// A stranger knows what anyone can: the ids of public clients, and made-up codes and tokens.
	strangers = costs.Cost{Reads: 3}
	// What a stranger may begin is one record, counted by network before it is written.
	beginners = costs.Cost{Reads: 3, Writes: 1, Bytes: 16 << 10}
	// A client with a wrong secret is no more than a stranger.
	wrongSecret = costs.Cost{Reads: 1}
	// A holder of a token learns about it, or ends its grant, once.
	holders = costs.Cost{Reads: 5}
	enders  = costs.Cost{Reads: 6, Writes: 1, Bytes: 4 << 10}
	// A client that has authenticated itself and may have what it asks for: a grant, a token, what was spent for it (a proof and
	// a refresh token).
	registered = costs.Cost{Reads: 6, Writes: 4, Bytes: 8 << 10}
	// A polling device, whatever its pace.
	polling = costs.Cost{Reads: 2}
	// A user who logs in.
	users = costs.Cost{Reads: 6, Writes: 4, Bytes: 8 << 10}
)

const (
	deviceGrant   = "urn:ietf:params:oauth:grant-type:device_code"
	exchangeGrant = "urn:ietf:params:oauth:grant-type:token-exchange"
	accessType    = "urn:ietf:params:oauth:token-type:access_token"
	verifier      = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk" // RFC 7636, appendix B
	challenge     = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
	webURI        = "https://web.example.com/cb"
)

// A shop is a server on a counted store, with clients of every kind, and alice's browser.
type shop struct {
	*site
	costs.Counter
	key   *valetkeytest.ProofKey
	alice *http.Client
}

func openShop(t *testing.T, change ...func(*authserver.Config)) *shop {
	t.Helper()
	s := &shop{key: valetkeytest.NewIssuer(t).ProofKey("ES256")}
	s.Counter.Store = store.NewMemory(0)
	secret := func(id string) string { return "test-secret-of-" + id }
	s.site = start(t, "", append([]func(*authserver.Config){func(c *authserver.Config) {
		c.Store, c.InsecureUnsealed = &s.Counter, true
		c.Users = []authserver.User{{Name: "alice", Password: "correct horse"}}
		c.Registration = authserver.Registration{Open: true, Scopes: []string{"orders:read"}}
		c.Clients = append(c.Clients,
			authserver.Client{ID: "web", Secret: secret("web"), RedirectURIs: []string{webURI}, Scopes: []string{"orders:read"}, Trusted: true},
			authserver.Client{ID: "spa", AuthMethod: "none", RedirectURIs: []string{webURI}, Scopes: []string{"orders:read"}},
			authserver.Client{ID: "tv", AuthMethod: "none", GrantTypes: []string{deviceGrant}, Scopes: []string{"orders:read"}},
			authserver.Client{ID: "svc", Secret: secret("svc"), GrantTypes: []string{exchangeGrant}, Scopes: []string{"orders:read"}, Introspects: []string{orders}},
		)
		slow := login.Rate{Burst: 1000, Every: time.Millisecond}
		c.Limits.ClientSecret, c.Limits.LoginName, c.Limits.LoginAddress, c.Limits.DeviceCode = slow, slow, slow, slow
	}}, change...)...)
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	s.alice = &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return s
}

// madeUp has the form of a code, a refresh token, an opaque token or a device code.
func madeUp() string { return rand.Text() + rand.Text() }

// send posts a form to an endpoint with a fresh proof, as the client if that has a secret.
func (s *shop) send(t testing.TB, path, id string, pairs ...string) answer {
	t.Helper()
	f := form(pairs...)
	header := []string{"Content-Type", "application/x-www-form-urlencoded", "DPoP", s.key.Proof("POST", s.url+path, "")}
	if id == "spa" || id == "tv" || id == "nobody" {
		f.Set("client_id", id)
	} else if id != "" {
		f.Set("client_id", id)
		if !f.Has("client_secret") {
			f.Set("client_secret", "test-secret-of-"+id)
		}
	}
	return send(t, "POST", s.url+path, f.Encode(), header...)
}

func (s *shop) get(t testing.TB, path string) answer {
	t.Helper()
	res, err := (&http.Client{CheckRedirect: s.alice.CheckRedirect}).Get(s.url + path)
	return read(t, res, err)
}

func authorization(pairs ...string) url.Values {
	v := form("client_id", "web", "response_type", "code", "redirect_uri", webURI, "scope", "orders:read", "state", "s",
		"code_challenge", challenge, "code_challenge_method", "S256")
	for i := 0; i < len(pairs); i += 2 {
		v.Set(pairs[i], pairs[i+1])
	}
	return v
}

// pairsOf returns a form as send wants it.
func pairsOf(v url.Values) (pairs []string) {
	for name := range v {
		pairs = append(pairs, name, v.Get(name))
	}
	return pairs
}

func (s *shop) logIn(t testing.TB) {
	t.Helper()
	res, err := s.alice.PostForm(s.url+"/login", form("name", "alice", "password", "correct horse", "return", "/account/applications"))
	a := read(t, res, err)
	require.Equal(t, 303, a.status, a.text)
}

// code returns a code for web, which alice trusts.
func (s *shop) code(t testing.TB) string {
	t.Helper()
	res, err := s.alice.Get(s.url + "/oauth2/authorize?" + authorization().Encode())
	a := read(t, res, err)
	require.Equal(t, 303, a.status, a.text)
	to, err := url.Parse(a.header.Get("Location"))
	require.NoError(t, err)
	require.NotEmpty(t, to.Query().Get("code"), to)
	return to.Query().Get("code")
}

func redemption(code string) []string {
	return []string{"grant_type", "authorization_code", "code", code, "redirect_uri", webURI, "code_verifier", verifier}
}

// tokens returns new ones of alice for web.
func (s *shop) tokens(t testing.TB) (access, refresh string) {
	t.Helper()
	a := s.send(t, "/oauth2/token", "web", redemption(s.code(t))...)
	require.Equal(t, 200, a.status, a.text)
	return a.body["access_token"].(string), a.body["refresh_token"].(string)
}

func (s *shop) device(t testing.TB) (code string) {
	t.Helper()
	a := s.send(t, "/oauth2/device_authorization", "tv")
	require.Equal(t, 200, a.status, a.text)
	return a.body["device_code"].(string)
}

// TestCosts: what a request costs is bounded by who may send it.
func TestCosts(t *testing.T) {
	s := openShop(t)
	s.logIn(t)
	access, refresh := s.tokens(t)
	waiting := s.device(t)
	ended, endedRefresh := s.tokens(t)
	require.Equal(t, 200, s.send(t, "/oauth2/revoke", "web", "token", endedRefresh).status)
	old, reused := s.tokens(t)
	require.NotEmpty(t, old)
	require.Equal(t, 200, s.send(t, "/oauth2/token", "web", "grant_type", "refresh_token", "refresh_token", reused).status)
	_, alive := s.tokens(t)
	codes := []string{s.code(t), s.code(t), s.code(t)}
	spentCode := s.code(t)
	require.Equal(t, 200, s.send(t, "/oauth2/token", "web", redemption(spentCode)...).status)

	token, par, device := "/oauth2/token", "/oauth2/par", "/oauth2/device_authorization"
	introspect, revoke, register := "/oauth2/introspect", "/oauth2/revoke", "/oauth2/register"
	post := func(path, id string, pairs ...string) func() answer {
		return func() answer { return s.send(t, path, id, pairs...) }
	}
	page := func(path string) func() answer { return func() answer { return s.get(t, path) } }
	typed := func(path string, pairs ...string) func() answer {
		return func() answer {
			return send(t, "POST", s.url+path, form(pairs...).Encode(), "Content-Type", "application/x-www-form-urlencoded", "Origin", s.url)
		}
	}
	json := func(body string) func() answer {
		return func() answer { return send(t, "POST", s.url+register, body, "Content-Type", "application/json") }
	}
	const wrong = "client_secret"
	guess := "wrong-secret-of-web"
	for _, c := range []struct { // refusals and acceptances by caller: what each may cause is the point
		caller, request string
		most            costs.Cost
		status          int // of the answer; zero: any
		do              func() answer
	}{
		{"a stranger", "redeems a made-up code, with a fresh proof", strangers, 400, func() answer { return s.send(t, token, "spa", redemption(madeUp())...) }},
		{"a stranger", "presents a made-up refresh token, with a fresh proof", strangers, 400, func() answer {
			return s.send(t, token, "spa", "grant_type", "refresh_token", "refresh_token", madeUp())
		}},
		{"a stranger", "polls with a made-up device code, with a fresh proof", strangers, 400, func() answer {
			return s.send(t, token, "tv", "grant_type", deviceGrant, "device_code", madeUp())
		}},
		{"a stranger", "asks for client credentials, with a fresh proof", strangers, 400, post(token, "spa", "grant_type", "client_credentials")},
		{"a stranger", "asks for a grant of no client", strangers, 401, post(token, "nobody", "grant_type", "client_credentials")},
		{"a stranger", "exchanges a token without a secret", strangers, 401, post(token, "", "grant_type", exchangeGrant, "subject_token", access, "subject_token_type", accessType)},
		{"a stranger", "exchanges a token as a public client", strangers, 400, post(token, "spa", "grant_type", exchangeGrant, "subject_token", access, "subject_token_type", accessType)},
		{"a stranger", "introspects", strangers, 401, post(introspect, "spa", "token", access)},
		{"a stranger", "revokes a made-up token", strangers, 200, func() answer { return s.send(t, revoke, "spa", "token", madeUp()) }},
		{"a stranger", "pushes a request that is wrong, with a fresh proof", strangers, 400, post(par, "spa", pairsOf(authorization("redirect_uri", "https://evil.example", "client_id", "spa"))...)},
		{"a stranger", "asks for a device code of a client without that grant", strangers, 400, post(device, "spa")},
		{"a stranger", "opens a request to another redirect URI", strangers, 400, page("/oauth2/authorize?" + authorization("redirect_uri", "https://evil.example").Encode())},
		{"a stranger", "opens a request that was never pushed", strangers, 400, page("/oauth2/authorize?client_id=web&request_uri=" + url.QueryEscape("urn:ietf:params:oauth:request_uri:"+madeUp()))},
		{"a stranger", "goes on with a made-up request", strangers, 400, page("/oauth2/authorize/" + madeUp())},
		{"a stranger", "opens the login", strangers, 200, page("/login")},
		{"a stranger", "opens the first page", strangers, 0, page("/")},
		{"a stranger", "opens the page for the code of a device", strangers, 200, page("/device")},
		{"a stranger", "opens the account", strangers, 0, page("/account/applications")},
		{"a stranger", "logs in with a wrong password", strangers, 0, typed("/login", "name", "alice", "password", "wrong horse")},
		{"a stranger", "logs in with a made-up name", strangers, 0, typed("/login", "name", "mallory", "password", "wrong horse")},
		{"a stranger", "types a made-up device code", strangers, 0, typed("/device", "user_code", "BCDF-GHJK")},
		{"a stranger", "registers what cannot be", strangers, 400, json(`{"grant_types":["client_credentials"]}`)},
		{"a stranger", "reads a registration with a made-up token", strangers, 401, func() answer {
			return send(t, "GET", s.url+register+"/web", "", "Authorization", "Bearer "+madeUp())
		}},
		{"a stranger", "reads the metadata and the keys", strangers, 200, page("/oauth2/keys")},

		{"a client with a wrong secret", "asks for a token", wrongSecret, 401, post(token, "web", "grant_type", "client_credentials", wrong, guess)},
		{"a client with a wrong secret", "redeems a code", wrongSecret, 401, post(token, "web", append(redemption(s.code(t)), wrong, guess)...)},
		{"a client with a wrong secret", "pushes a request", wrongSecret, 401, post(par, "web", append(pairsOf(authorization()), wrong, guess)...)},
		{"a client with a wrong secret", "introspects", wrongSecret, 401, post(introspect, "orders-api", "token", access, wrong, guess)},
		{"a client with a wrong secret", "revokes", wrongSecret, 401, post(revoke, "web", "token", access, wrong, guess)},

		{"a registered client", "asks for client credentials, with a fresh proof", registered, 200, post(token, "reader", "grant_type", "client_credentials")},
		{"a registered client", "asks for an opaque token, with a fresh proof", registered, 200, post(token, "all", "grant_type", "client_credentials", "resource", vault)},
		{"a registered client", "asks for a scope that it may not have, with a fresh proof", costs.Cost{Reads: 1}, 400, post(token, "reader", "grant_type", "client_credentials", "scope", "files:read")},
		{"a registered client", "redeems a made-up code, with a fresh proof", strangers, 400, func() answer { return s.send(t, token, "web", redemption(madeUp())...) }},
		{"a registered client", "redeems a code, with a fresh proof", registered, 200, func() answer {
			code := codes[0]
			codes = codes[1:]
			return s.send(t, token, "web", redemption(code)...)
		}},
		{"a registered client", "refreshes, with a fresh proof", registered, 200, func() answer {
			a := s.send(t, token, "web", "grant_type", "refresh_token", "refresh_token", alive)
			alive, _ = a.body["refresh_token"].(string)
			return a
		}},
		{"a registered client", "exchanges a token", registered, 200, post(token, "svc", "grant_type", exchangeGrant, "subject_token", access, "subject_token_type", accessType)},
		{"a registered client", "pushes a request", registered, 201, post(par, "web", pairsOf(authorization())...)},
		{"a registered client", "introspects", holders, 200, post(introspect, "orders-api", "token", access)},
		{"a registered client", "introspects what was made up", strangers, 200, func() answer { return s.send(t, introspect, "vault-api", "token", madeUp()) }},
		{"a registered client", "polls too early", polling, 400, post(token, "tv", "grant_type", deviceGrant, "device_code", waiting)},

		{"a holder of another client's token", "revokes it", holders, 400, post(revoke, "reader", "token", refresh)},
		{"a holder of another client's refresh token", "uses it, with a fresh proof", holders, 400, post(token, "spa", "grant_type", "refresh_token", "refresh_token", refresh)},
		{"a holder of an ended token", "introspects it", holders, 200, post(introspect, "orders-api", "token", ended)},
		{"a holder of an ended token", "revokes it again", holders, 200, post(revoke, "web", "token", ended)},
		{"a holder of an ended token", "refreshes, with a fresh proof", holders, 400, post(token, "web", "grant_type", "refresh_token", "refresh_token", endedRefresh)},
		{"a holder of a spent refresh token", "uses it, which ends the grant", enders, 400, post(token, "web", "grant_type", "refresh_token", "refresh_token", reused)},
		{"a holder of a spent refresh token", "uses it again", holders, 400, post(token, "web", "grant_type", "refresh_token", "refresh_token", reused)},
		{"a holder of a spent code", "redeems it, which ends the grant", enders, 400, post(token, "web", redemption(spentCode)...)},
		{"a holder of a spent code", "redeems it again", holders, 400, post(token, "web", redemption(spentCode)...)},

		{"a user", "logs in", users, 303, func() answer {
			res, err := (&http.Client{CheckRedirect: s.alice.CheckRedirect}).PostForm(s.url+"/login", form("name", "alice", "password", "correct horse", "return", "/account/applications"))
			return read(t, res, err)
		}},
		{"a user", "allows a request", users, 303, func() answer {
			res, err := s.alice.Get(s.url + "/oauth2/authorize?" + authorization().Encode())
			return read(t, res, err)
		}},
	} {
		t.Run(c.caller+" "+c.request, func(t *testing.T) {
			for n := range 3 {
				if c.most == enders && n > 0 {
					break
				}
				var a answer
				cost := s.Of(func() { a = c.do() })
				if c.status != 0 {
					assert.Equal(t, c.status, a.status, a.text)
				}
				assert.LessOrEqual(t, cost.Reads, c.most.Reads, "reads")
				assert.LessOrEqual(t, cost.Writes, c.most.Writes, "writes")
				assert.LessOrEqual(t, cost.Bytes, c.most.Bytes, "bytes")
			}
		})
	}
}

// TestBeginnings: what strangers may begin is counted by their network before it is written, whichever clients they name.
func TestBeginnings(t *testing.T) {
	const burst = 5
	few := login.Rate{Burst: burst, Every: time.Hour}
	s := openShop(t, func(c *authserver.Config) { c.Limits.Pushes, c.Limits.Register = few, few })
	writes, refused := 0, 0
	count := func(do func() answer) {
		var a answer
		cost := s.Of(func() { a = do() })
		if a.status == 429 {
			refused++
			assert.Zero(t, cost.Writes)
		}
		assert.LessOrEqual(t, cost.Reads, beginners.Reads)
		assert.LessOrEqual(t, cost.Bytes, beginners.Bytes)
		writes += cost.Writes
	}
	t.Run("requests for authorization, pushed ones and devices", func(t *testing.T) {
		for _, id := range []string{"spa", "web"} {
			for range 4 * burst {
				count(func() answer { return s.get(t, "/oauth2/authorize?"+authorization("client_id", id).Encode()) })
			}
		}
		for range 4 * burst {
			count(func() answer { return s.send(t, "/oauth2/par", "spa", pairsOf(authorization("client_id", "spa"))...) })
			count(func() answer { return s.send(t, "/oauth2/device_authorization", "tv") })
		}
		assert.Equal(t, burst, writes)
		assert.Equal(t, 4*4*burst-burst, refused)
	})
	t.Run("a client with a secret is counted by itself", func(t *testing.T) {
		assert.Equal(t, 201, s.send(t, "/oauth2/par", "web", pairsOf(authorization())...).status)
	})
	t.Run("registrations", func(t *testing.T) {
		writes, refused = 0, 0
		for range 4 * burst {
			count(func() answer {
				return send(t, "POST", s.url+"/oauth2/register", `{"redirect_uris":["https://x.example.com/cb"],"scope":"orders:read"}`, "Content-Type", "application/json")
			})
		}
		assert.Equal(t, burst, writes)
		assert.Equal(t, 3*burst, refused)
	})
}

// TestEndsCostNoMoreAfterManyLogins: what has ended is not read again when the user or the client ends what is live.
func TestEndsCostNoMoreAfterManyLogins(t *testing.T) {
	s := openShop(t, func(c *authserver.Config) {
		c.Clients = append(c.Clients, authserver.Client{
			ID: "svc2", Secret: "test-secret-of-svc2", GrantTypes: []string{exchangeGrant}, Scopes: []string{"orders:read"}, Introspects: []string{orders},
		})
	})
	logIn := func() {
		s.logIn(t)
		access, _ := s.tokens(t)
		for _, id := range []string{"svc", "svc2"} {
			a := s.send(t, "/oauth2/token", id, "grant_type", exchangeGrant, "subject_token", access, "subject_token_type", accessType)
			require.Equal(t, 200, a.status, a.text)
			access = a.body["access_token"].(string)
		}
	}
	cost := func() costs.Cost {
		logIn()
		return s.Of(func() {
			_, grants, err := s.RevokeUser(t.Context(), "customer:alice")
			require.NoError(t, err)
			require.NotZero(t, grants)
		})
	}
	first := cost()
	var last costs.Cost
	for range 10 {
		last = cost()
	}
	// What the end before left of the two exchanged grants is repeated once, and the order of the grants is random.
	assert.LessOrEqual(t, last.Reads, first.Reads+10)
	assert.LessOrEqual(t, last.Writes, first.Writes+4)
}
