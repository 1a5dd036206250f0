package authserver_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/authserver"
	"github.com/valetkey/valetkey/authserver/login"
	"github.com/valetkey/valetkey/authserver/store"
	"github.com/valetkey/valetkey/internal/jose"
	"github.com/valetkey/valetkey/valetkeytest"
)

// send sends a request as it is.
func send(t testing.TB, method, url, body string, header ...string) answer {
	t.Helper()
	r, err := http.NewRequest(method, url, strings.NewReader(body))
	require.NoError(t, err)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(r)
	return read(t, res, err)
}

func TestCrossOrigin(t *testing.T) {
	s := start(t, "/as", func(c *authserver.Config) { c.Registration.Open = true })
	root := strings.TrimSuffix(s.url, "/as")
	const page = "https://app.example.com"
	for _, path := range []string{"/oauth2/authorize", "/oauth2/code", "/oauth2/introspect", "/login", "/account/applications", "/developer", "/"} {
		t.Run("not at "+path, func(t *testing.T) {
			for _, method := range []string{"OPTIONS", "GET", "POST"} {
				assert.Empty(t, send(t, method, s.url+path, "", "Origin", page).header.Get("Access-Control-Allow-Origin"), method)
			}
		})
	}
	for url, methods := range map[string]string{
		s.url + "/oauth2/token": "POST", s.url + "/oauth2/par": "POST", s.url + "/oauth2/revoke": "POST", s.url + "/oauth2/keys": "GET",
		s.url + "/oauth2/device_authorization": "POST", s.url + "/oauth2/register": "POST", s.url + "/oauth2/register/x": "GET, PUT, DELETE",
		root + "/.well-known/oauth-authorization-server/as": "GET", s.url + "/.well-known/openid-configuration": "GET",
	} {
		t.Run("at "+strings.TrimPrefix(url, root), func(t *testing.T) {
			asked := send(t, "OPTIONS", url, "", "Origin", page, "Access-Control-Request-Method", methods, "Access-Control-Request-Headers", "dpop")
			assert.Equal(t, 204, asked.status)
			assert.Equal(t, methods, asked.header.Get("Access-Control-Allow-Methods"))
			assert.Contains(t, asked.header.Get("Access-Control-Allow-Headers"), "DPoP")
			method, _, _ := strings.Cut(methods, ",")
			a := send(t, method, url, "", "Origin", page)
			assert.Equal(t, "*", a.header.Get("Access-Control-Allow-Origin"))
			assert.Empty(t, a.header.Get("Access-Control-Allow-Credentials"))
			assert.Contains(t, a.header.Get("Access-Control-Expose-Headers"), "DPoP-Nonce")
		})
	}
}

// A flaky store can be down, or fail to read.
type flaky struct {
	store.Store
	down error
	fail bool
}

func (f *flaky) Get(ctx context.Context, kind, id string) (store.Record, error) {
	if f.fail {
		return store.Record{}, errors.New("the disk is gone")
	}
	return f.Store.Get(ctx, kind, id)
}

func (f *flaky) Ping(ctx context.Context) error {
	if f.down != nil {
		return f.down
	}
	return f.Store.Ping(ctx)
}

func TestHealth(t *testing.T) {
	records := &flaky{Store: store.NewMemory(0)}
	s := start(t, "/as", func(c *authserver.Config) { c.Store, c.InsecureUnsealed = records, true })
	root := strings.TrimSuffix(s.url, "/as")
	assert.Equal(t, 200, get(t, root+"/readyz").status)
	records.down = errors.New("the disk is full of cats")
	a := get(t, root+"/readyz")
	assert.Equal(t, 503, a.status)
	assert.NotContains(t, a.text, "cats")
	assert.Contains(t, s.log.String(), "the disk is full of cats")
	assert.Equal(t, 200, get(t, root+"/healthz").status, "it lives on")
	assert.Equal(t, 404, get(t, s.url+"/healthz").status, "not where clients are")
}

func TestBruteForce(t *testing.T) {
	guess := func(s *site, from string) answer {
		return send(t, "POST", s.url+"/oauth2/token", "grant_type=client_credentials&client_id=reader&client_secret=guess",
			"Content-Type", "application/x-www-form-urlencoded", "X-Forwarded-For", from)
	}
	few := func(c *authserver.Config) { c.Limits.ClientSecret = login.Rate{Burst: 2, Every: time.Hour} }
	behind := func(c *authserver.Config) { c.Proxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} }

	t.Run("AS-CORE-15 wrong secrets are slowed down", func(t *testing.T) {
		s := start(t, "", few)
		for range 2 {
			assert.Equal(t, 401, guess(s, "").status)
		}
		a := guess(s, "")
		assert.Equal(t, 429, a.status)
		assert.NotEmpty(t, a.header.Get("Retry-After"))
		assert.NotEmpty(t, s.token(t, "reader", "").AccessToken, "and the right one is not")
	})
	t.Run("a client that is not a proxy cannot name another address", func(t *testing.T) {
		s := start(t, "", few)
		for _, from := range []string{"192.0.2.1", "192.0.2.2"} {
			assert.Equal(t, 401, guess(s, from).status)
		}
		assert.Equal(t, 429, guess(s, "192.0.2.3").status)
		assert.NotContains(t, s.log.String(), "192.0.2")
	})
	t.Run("behind a proxy, the last address that it has added counts", func(t *testing.T) {
		s := start(t, "", few, behind)
		for _, from := range []string{"198.51.100.1, 192.0.2.1", "198.51.100.2, 192.0.2.1"} {
			assert.Equal(t, 401, guess(s, from).status)
		}
		assert.Equal(t, 429, guess(s, "198.51.100.3, 192.0.2.1").status)
		assert.Equal(t, 401, guess(s, "192.0.2.2").status)
		assert.Equal(t, 401, guess(s, "192.0.2.3, 127.0.0.9").status, "a proxy before the proxy")
		assert.Equal(t, 401, guess(s, "nonsense").status)
		assert.Contains(t, s.log.String(), "address=192.0.2.1\n")
		assert.Contains(t, s.log.String(), "address=192.0.2.3\n")
		assert.Contains(t, s.log.String(), "address=127.0.0.1\n")
		assert.NotContains(t, s.log.String(), "198.51.100")
	})
}

func TestRegistration(t *testing.T) {
	s := start(t, "", func(c *authserver.Config) {
		c.Registration = authserver.Registration{
			Open: true, Scopes: []string{"orders:read"}, GrantTypes: []string{"authorization_code", "client_credentials"},
			InitialTokens: []authserver.InitialToken{{Name: "partner", SHA256: fmt.Sprintf("%x", sha256.Sum256([]byte("partner")))}},
		}
		c.Limits.Register = login.Rate{Burst: 2, Every: time.Hour}
	})
	register := func(body string) answer {
		return send(t, "POST", s.url+"/oauth2/register", body, "Content-Type", "application/json")
	}
	const service = `{"client_name":"x","grant_types":["client_credentials"],"response_types":[]}`
	t.Run("a stranger does not get a client that needs no user", func(t *testing.T) {
		a := register(service)
		assert.Equal(t, 400, a.status)
		assert.Equal(t, "invalid_client_metadata", a.body["error"])
		assert.Contains(t, a.body["error_description"], "grant_types: one can be registered only with an initial access token")
	})
	a := send(t, "POST", s.url+"/oauth2/register", service, "Content-Type", "application/json", "Authorization", "Bearer partner")
	require.Equal(t, 201, a.status, a.text)
	id, secret := a.body["client_id"].(string), a.body["client_secret"].(string)
	token := s.post(t, "/oauth2/token", id, secret, form("grant_type", "client_credentials"))
	require.Equal(t, 200, token.status, token.text)
	active := func() any {
		return s.post(t, "/oauth2/introspect", "orders-api", "test-secret-of-orders-api", form("token", token.body["access_token"].(string))).body["active"]
	}
	require.Equal(t, true, active())
	t.Run("a client that deletes itself ends its tokens", func(t *testing.T) {
		gone := send(t, "DELETE", a.body["registration_client_uri"].(string), "", "Authorization", "Bearer "+a.body["registration_access_token"].(string))
		assert.Equal(t, 204, gone.status, gone.text)
		assert.Equal(t, false, active())
	})
	t.Run("purposes that cannot be registered", func(t *testing.T) {
		a := register(`{"grant_types":["client_credentials"],"response_types":[],"scope":"files:read"}`)
		assert.Equal(t, "invalid_client_metadata", a.body["error"])
	})
	t.Run("AS-DCR-08 a software statement of a configured issuer", func(t *testing.T) {
		key, err := jose.GenerateKey("ES256", "statements")
		require.NoError(t, err)
		const issuer = "https://trust.example.com"
		s := start(t, "", func(c *authserver.Config) {
			c.Registration.Open = true
			c.Registration.StatementIssuers = []authserver.StatementIssuer{{Issuer: issuer, JWKS: `{"keys":[` + string(key.PublicJWK()) + `]}`}}
		})
		register := func(issuer string) answer {
			statement, err := key.Sign(nil, []byte(`{"iss":"`+issuer+`","client_name":"Certified","redirect_uris":["https://certified.example.com/cb"]}`))
			require.NoError(t, err)
			return send(t, "POST", s.url+"/oauth2/register", `{"client_name":"x","software_statement":"`+statement+`"}`, "Content-Type", "application/json")
		}
		assert.Equal(t, "unapproved_software_statement", register("https://other.example.com").body["error"])
		a := register(issuer)
		require.Equal(t, 201, a.status, a.text)
		assert.Equal(t, "Certified", a.body["client_name"])
	})
	t.Run("registrations of one address are counted", func(t *testing.T) {
		assert.Equal(t, 429, register(`{}`).status)
	})
	t.Run("the log reports it", func(t *testing.T) {
		assert.Contains(t, s.log.String(), `msg="client registered" client=`+id+` by=partner address=127.0.0.1`)
		assert.Contains(t, s.log.String(), `msg="client deleted" client=`+id)
		assert.Contains(t, s.log.String(), `msg="registration refused"`)
		assert.NotContains(t, s.log.String(), secret)
	})
	t.Run("registration is refused where it is off", func(t *testing.T) {
		assert.Equal(t, 404, send(t, "POST", start(t, "").url+"/oauth2/register", "{}", "Content-Type", "application/json").status)
	})
}

// Two servers on one store are one.
func TestReplicas(t *testing.T) {
	records := store.NewMemory(0)
	seal := []byte(strings.Repeat("s", 32))
	on := func(c *authserver.Config) { c.Issuer, c.Store, c.Seal = "http://localhost:1", records, seal }
	one, other := start(t, "", on), start(t, "", on)
	key := valetkeytest.NewIssuer(t).ProofKey("ES256")
	prove := func(s *site, proof string) answer {
		return send(t, "POST", s.url+"/oauth2/token", "grant_type=client_credentials&client_id=reader&client_secret=test-secret-of-reader",
			"Content-Type", "application/x-www-form-urlencoded", "DPoP", proof)
	}

	t.Run("a seal is required", func(t *testing.T) {
		cfg := config("http://localhost:1")
		cfg.Store = records
		_, err := authserver.New(t.Context(), cfg)
		require.ErrorContains(t, err, "Seal: required with a Store, unless InsecureUnsealed is set")
		cfg.Seal = []byte("short")
		_, err = authserver.New(t.Context(), cfg)
		require.ErrorContains(t, err, "Seal: has fewer than 32 bytes")
	})
	t.Run("they have the same keys, which are sealed", func(t *testing.T) {
		assert.Equal(t, get(t, one.url+"/oauth2/keys").text, get(t, other.url+"/oauth2/keys").text)
		keys, err := records.Find(t.Context(), "key", store.Key{}, "", 10)
		require.NoError(t, err)
		require.Len(t, keys, 2)
		for _, k := range keys {
			assert.NotContains(t, string(k.Value), `"jwk"`)
		}
	})
	t.Run("a token of one is known to the other", func(t *testing.T) {
		assert.Equal(t, true, other.introspect(t, "vault-api", one.token(t, "all", vault).AccessToken).body["active"])
	})
	t.Run("a proof is good once, at all of them", func(t *testing.T) {
		proof := key.Proof("POST", "http://localhost:1/oauth2/token", "")
		a := prove(one, proof)
		require.Equal(t, 200, a.status, a.text)
		assert.Equal(t, "DPoP", a.body["token_type"])
		a = prove(other, proof)
		assert.Equal(t, "invalid_dpop_proof", a.body["error"], a.text)
	})
	t.Run("AS-DPOP-03 a nonce of one is known to the other, also while the seal is changed", func(t *testing.T) {
		asks := func(c *authserver.Config) { on(c); c.DPoPNonce = true }
		one, other := start(t, "", asks), start(t, "", asks, func(c *authserver.Config) {
			c.Seal, c.SealPrevious = []byte(strings.Repeat("t", 32)), seal
		})
		a := prove(one, key.Proof("POST", "http://localhost:1/oauth2/token", ""))
		assert.Equal(t, 400, a.status)
		assert.Equal(t, "use_dpop_nonce", a.body["error"], a.text)
		nonce := a.header.Get("DPoP-Nonce")
		require.NotEmpty(t, nonce)
		a = prove(other, key.Proof("POST", "http://localhost:1/oauth2/token", "", valetkeytest.Claim("nonce", nonce)))
		assert.Equal(t, 200, a.status, a.text)
	})
}

func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		records := store.NewMemory(0)
		cfg := config("http://localhost:1")
		cfg.Store, cfg.InsecureUnsealed, cfg.Keys.Rotate = records, true, time.Hour
		s, err := authserver.New(t.Context(), cfg)
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { s.Run(ctx); close(ended) }()

		_, err = records.Put(ctx, store.Record{Kind: "jti", ID: "x", Expires: time.Now().Add(time.Second)})
		require.NoError(t, err)
		first := s.Keys()
		time.Sleep(2 * time.Hour)
		assert.NotEqual(t, first[0].ID, active(s), "keys rotate by schedule")
		n, err := records.Sweep(ctx)
		require.NoError(t, err)
		assert.Zero(t, n, "what has expired is gone already")
		cancel()
		<-ended // synctest fails if a goroutine remains
	})
}

func active(s *authserver.Server) string {
	for _, k := range s.Keys() {
		if k.State == "active" {
			return k.ID
		}
	}
	return ""
}

func TestWarnings(t *testing.T) {
	s := start(t, "", func(c *authserver.Config) {
		c.Legacy = authserver.Legacy{Implicit: true, Password: true}
		c.InsecureHTTP, c.Clients[0].WithoutPKCE = true, true
	})
	for _, want := range []string{"insecure_http is set", "implicit", "password", "does not require PKCE: reader"} {
		assert.Regexp(t, "level=WARN .*"+want, s.log.String())
	}
}

// The logs can be separate: actions of users, clients and operators are in one, failures in the other.
func TestAudit(t *testing.T) {
	audit := new(log)
	records := &flaky{Store: store.NewMemory(0)}
	s := start(t, "", func(c *authserver.Config) {
		c.Audit, c.Store, c.InsecureUnsealed = slog.New(slog.NewTextHandler(audit, nil)), records, true
	})
	s.token(t, "reader", "")
	send(t, "POST", s.url+"/login", "name=alice&password=guess-of-hers", "Content-Type", "application/x-www-form-urlencoded")
	require.NoError(t, s.RotateKeys(t.Context(), false))
	for _, want := range []string{`msg="token issued" client=reader`, `msg="key rotation requested" algorithm=ES256`, `msg="log-in refused" type=customer address=127.0.0.1`} {
		assert.Contains(t, audit.String(), want)
	}
	assert.NotContains(t, audit.String(), "guess-of-hers")
	assert.Empty(t, s.log.String())

	records.fail = true
	assert.Equal(t, 503, send(t, "GET", s.url+"/", "", "Cookie", "valetkey=x").status)
	assert.Contains(t, s.log.String(), "page not shown")
	assert.NotContains(t, audit.String(), "page not shown")
}

func TestOperate(t *testing.T) {
	s := start(t, "", func(c *authserver.Config) { c.Users = []authserver.User{{Name: "alice", Password: "correct horse"}} })
	ctx := t.Context()
	t.Run("a client with a given id or secret", func(t *testing.T) {
		_, _, err := s.AddClient(ctx, authserver.Client{ID: "x", Scopes: []string{"orders:read"}})
		require.ErrorContains(t, err, "ID: must be empty: the server generates the ID and the secret")
	})
	t.Run("a client with mistakes", func(t *testing.T) {
		_, _, err := s.AddClient(ctx, authserver.Client{AuthMethod: "magic", Scopes: []string{"admin"}, RedirectURIs: []string{"x"}})
		require.ErrorContains(t, err, "\nAuthMethod: is not known")
		require.ErrorContains(t, err, "\nScopes[0]: is not a scope of any API")
		require.ErrorContains(t, err, "RedirectURIs[0]: is not an absolute URI")
	})
	t.Run("a client is added, logged and removed, with its tokens", func(t *testing.T) {
		id, secret, err := s.AddClient(ctx, authserver.Client{Name: "X", Scopes: []string{"vault:open"}})
		require.NoError(t, err)
		token := s.post(t, "/oauth2/token", id, secret, form("grant_type", "client_credentials")).body["access_token"].(string)
		assert.Equal(t, true, s.introspect(t, "vault-api", token).body["active"])
		list, err := s.Clients(ctx, "", 100)
		require.NoError(t, err)
		require.Len(t, list, 8)
		for _, c := range list {
			assert.Empty(t, c.Secret+c.SecretSHA256)
			assert.Equal(t, c.ID == id, !c.IssuedAt.IsZero(), c.ID)
		}
		require.NoError(t, s.RemoveClient(ctx, id))
		assert.Equal(t, inactive, strings.TrimSpace(s.introspect(t, "vault-api", token).text))
		require.ErrorIs(t, s.RemoveClient(ctx, id), store.ErrNotFound)
	})
	t.Run("people of the configuration are not in the store", func(t *testing.T) {
		people, err := s.Users("")
		require.NoError(t, err)
		list, err := people.List(ctx, "", 10)
		require.NoError(t, err)
		assert.Empty(t, list)
		require.ErrorIs(t, s.RemoveUser(ctx, "", "alice"), store.ErrNotFound)
		_, err = s.Users("employee")
		require.ErrorContains(t, err, `user type "employee" has no users`)
		require.Error(t, s.RemoveUser(ctx, "employee", "alice"))
		require.ErrorContains(t, s.RemoveUser(ctx, "", "alice"), "is in the configuration")
		require.ErrorContains(t, s.SetPassword(ctx, "", "Alice", "correct mule"), "is in the configuration")
	})
	t.Run("no added user or client replaces one of the configuration", func(t *testing.T) {
		for _, u := range []login.NewUser{{Name: "Alice"}, {Name: "mallory", ID: "alice"}} {
			u.Password = "correct mule"
			_, err := s.AddUser(ctx, "customer", u)
			require.ErrorContains(t, err, "a user of the configuration has the name or the ID")
		}
	})
	t.Run("people have scopes that there are", func(t *testing.T) {
		_, err := s.AddUser(ctx, "", login.NewUser{Name: "mallory", Password: "correct mule", Scopes: []string{"orders:read", "admin"}})
		require.EqualError(t, err, "Scopes[1]: is not a scope of any API")
	})
	t.Run("changes of users are logged, without their passwords", func(t *testing.T) {
		u, err := s.AddUser(ctx, "", login.NewUser{Name: "bob", Password: "correct mule"})
		require.NoError(t, err)
		require.NoError(t, s.SetPassword(ctx, "", "bob", "another mule"))
		require.NoError(t, s.RemoveUser(ctx, "", "bob"))
		for _, want := range []string{"user added", "password replaced", "user removed"} {
			assert.Contains(t, s.log.String(), fmt.Sprintf("msg=%q subject=%s by=", want, u.Subject))
		}
		assert.NotContains(t, s.log.String(), "mule")
		require.ErrorIs(t, s.SetPassword(ctx, "", "bob", "correct mule"), store.ErrNotFound)
	})
}

func TestClientCertificate(t *testing.T) {
	bound := func(c *authserver.Config) {
		c.ClientCertificate, c.Clients[0].CertBound = "X-SSL-Client-Cert", true
		c.Proxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
	}
	certificate := valetkeytest.ClientCertificate(t).Certificate[0]
	header := url.PathEscape(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate})))
	ask := func(s *site) answer {
		return send(t, "POST", s.url+"/oauth2/token", "grant_type=client_credentials&client_id=reader&client_secret=test-secret-of-reader",
			"Content-Type", "application/x-www-form-urlencoded", "X-SSL-Client-Cert", header, "X-Forwarded-For", "192.0.2.1")
	}
	t.Run("headers count from a proxy only", func(t *testing.T) {
		s := start(t, "", bound, func(c *authserver.Config) { c.Proxies = []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")} })
		assert.Equal(t, 400, ask(s).status)
	})
	t.Run("a token is bound to the certificate that a proxy reports", func(t *testing.T) {
		a := ask(start(t, "", bound))
		require.Equal(t, 200, a.status, a.text)
		sum := sha256.Sum256(certificate)
		assert.Equal(t, map[string]any{"x5t#S256": base64.RawURLEncoding.EncodeToString(sum[:])}, part(t, a.body["access_token"].(string), 1)["cnf"])
	})
}

func TestLegacy(t *testing.T) {
	with := func(c *authserver.Config) {
		c.Legacy.Password, c.Clients[0].GrantTypes = true, []string{"password"}
		c.Users = []authserver.User{{Name: "alice", Password: "correct horse"}}
	}
	ask := func(s *site) answer {
		return s.post(t, "/oauth2/token", "reader", "test-secret-of-reader", form("grant_type", "password", "username", "Alice", "password", "correct horse"))
	}
	t.Run("a password is taken where that is said", func(t *testing.T) {
		s := start(t, "", with)
		a := ask(s)
		require.Equal(t, 200, a.status, a.text)
		assert.Equal(t, "customer:alice", part(t, a.body["access_token"].(string), 1)["sub"])
		assert.NotContains(t, s.log.String(), "correct horse")
	})
	t.Run("and nowhere else", func(t *testing.T) {
		a := ask(start(t, ""))
		assert.Equal(t, "unsupported_grant_type", a.body["error"])
	})
}
