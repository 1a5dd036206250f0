package authserver_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/authserver"
	"github.com/valetkey/valetkey/authserver/login"
	"github.com/valetkey/valetkey/internal/jose"
)

// An application serves its metadata document, with the changes, at url.
type application struct {
	url     string
	client  *http.Client // trusts it
	fetched atomic.Int32
	down    atomic.Bool
}

func newApplication(t *testing.T, change map[string]any) *application {
	t.Helper()
	app := &application{}
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		app.fetched.Add(1)
		if app.down.Load() {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		document := map[string]any{
			"client_id": app.url, "client_name": "Notes", "redirect_uris": []string{"https://notes.example.com/callback", "http://127.0.0.1/callback"},
			"grant_types": []string{"authorization_code", "refresh_token"}, "token_endpoint_auth_method": "none",
		}
		for name, value := range change {
			document[name] = value
		}
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(document)
	}))
	t.Cleanup(server.Close)
	app.url, app.client = server.URL+"/client.json", server.Client()
	return app
}

func (app *application) accepted(c *authserver.Config) {
	c.ClientDocuments = authserver.ClientDocuments{Enabled: true, InsecureHTTP: app.client}
	c.Users = []authserver.User{{Name: "alice", Password: "correct horse"}}
}

// request returns an authorization request of the application.
func (app *application) request(s *site, redirect string) string {
	return s.url + "/oauth2/authorize?" + url.Values{
		"client_id": {app.url}, "redirect_uri": {redirect}, "response_type": {"code"}, "scope": {"orders:read"}, "state": {"xyz"},
		"code_challenge": {"E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"}, "code_challenge_method": {"S256"},
	}.Encode()
}

func TestClientDocuments(t *testing.T) {
	const redirect = "https://notes.example.com/callback"
	t.Run("they are off by default", func(t *testing.T) {
		app := newApplication(t, nil)
		s := start(t, "")
		assert.NotContains(t, get(t, s.url+"/.well-known/oauth-authorization-server").body, "client_id_metadata_document_supported")
		a := get(t, app.request(s, redirect))
		assert.Equal(t, 400, a.status)
		assert.Contains(t, a.text, "the client is not known")
		assert.Zero(t, app.fetched.Load())
	})
	t.Run("only public addresses are fetched, and the user learns only that it failed", func(t *testing.T) {
		app := newApplication(t, nil)
		s := start(t, "", func(c *authserver.Config) { c.ClientDocuments.Enabled = true })
		a := get(t, app.request(s, redirect))
		assert.Equal(t, 400, a.status)
		assert.Contains(t, a.text, "the metadata document at the client_id cannot be fetched now")
		assert.Zero(t, app.fetched.Load())
		assert.Contains(t, s.log.String(), "not a public address")
	})
	t.Run("no document gives its client a token without a user, whatever partners may register for", func(t *testing.T) {
		key, err := jose.GenerateKey("ES256", "k")
		require.NoError(t, err)
		set, err := json.Marshal(map[string]any{"keys": []any{key.PublicJWK()}})
		require.NoError(t, err)
		const jwtBearer, exchange = "urn:ietf:params:oauth:grant-type:jwt-bearer", "urn:ietf:params:oauth:grant-type:token-exchange"
		app := newApplication(t, map[string]any{
			"grant_types":                []string{"authorization_code", "client_credentials", exchange, jwtBearer, "password"},
			"token_endpoint_auth_method": "private_key_jwt", "jwks": json.RawMessage(set),
		})
		s := start(t, "", app.accepted, func(c *authserver.Config) {
			c.Registration.GrantTypes = []string{"authorization_code", "client_credentials", exchange}
			c.Registration.InitialTokens = []authserver.InitialToken{{Name: "partners", SHA256: strings.Repeat("0a", 32)}}
		})
		for _, grant := range []string{"client_credentials", exchange, jwtBearer} {
			assertion := signed(t, key, "JWT", map[string]any{
				"iss": app.url, "sub": app.url, "aud": s.url, "jti": grant, "exp": time.Now().Add(time.Minute).Unix(),
			})
			a := s.post(t, "/oauth2/token", "", "", form("grant_type", grant, "scope", "orders:read", "client_assertion", assertion,
				"client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"))
			assert.Equal(t, 400, a.status, a.text)
			assert.Contains(t, []any{"unauthorized_client", "unsupported_grant_type"}, a.body["error"], grant)
		}
	})
	t.Run("a document that is not valid is explained to the user, and its client is refused", func(t *testing.T) {
		app := newApplication(t, map[string]any{"client_secret": "s3cret"})
		s := start(t, "", app.accepted)
		a := get(t, app.request(s, redirect))
		assert.Equal(t, 400, a.status)
		assert.Contains(t, a.text, "client_secret: must not be in a document that everyone can read")
		a = s.post(t, "/oauth2/token", "", "", form("grant_type", "refresh_token", "client_id", app.url, "refresh_token", "x"))
		assert.Equal(t, 401, a.status)
		assert.Equal(t, "invalid_client", a.body["error"])
		assert.NotContains(t, a.text+s.log.String(), "s3cret")
	})
	t.Run("a document that cannot be fetched is an outage for its client", func(t *testing.T) {
		app := newApplication(t, nil)
		app.down.Store(true)
		s := start(t, "", app.accepted)
		a := s.post(t, "/oauth2/token", "", "", form("grant_type", "refresh_token", "client_id", app.url, "refresh_token", "x"))
		assert.Equal(t, 503, a.status)
		assert.Equal(t, "temporarily_unavailable", a.body["error"])
		assert.NotEmpty(t, a.header.Get("Retry-After"))
	})
	t.Run("a redirect URI that the document lacks is not followed", func(t *testing.T) {
		app := newApplication(t, nil)
		s := start(t, "", app.accepted)
		for _, other := range []string{"https://notes.example.com/callback/", "https://evil.example.com/callback", "http://127.0.0.1/other"} {
			a := get(t, app.request(s, other))
			assert.Equal(t, 400, a.status, other)
			assert.Contains(t, a.text, "redirect_uri is missing or not registered", other)
		}
	})
	t.Run("a client that asks for too many documents waits", func(t *testing.T) {
		app := newApplication(t, nil)
		s := start(t, "", app.accepted, func(c *authserver.Config) { c.Limits.ClientDocuments = login.Rate{Burst: 2, Every: time.Hour} })
		for range 2 {
			get(t, strings.Replace(app.request(s, redirect), "client.json", "other.json", 1)) // another client_id than that in the document
		}
		assert.Equal(t, 429, get(t, app.request(s, redirect)).status)
	})
	t.Run("the user sees where the metadata is from", func(t *testing.T) {
		app := newApplication(t, nil)
		s := start(t, "", app.accepted)
		about := get(t, s.url+"/.well-known/oauth-authorization-server").body
		assert.Equal(t, true, about["client_id_metadata_document_supported"])
		assert.Contains(t, about["token_endpoint_auth_methods_supported"], "none", "clients look for it, too")
		b := s.loggedIn(t, "alice", "correct horse")
		res, err := b.Get(app.request(s, "http://127.0.0.1:4711/callback")) // any port: RFC 8252, section 7.3
		a := read(t, res, err)
		require.Equal(t, 200, a.status, a.text)
		assert.Contains(t, a.text, "Notes")
		assert.Contains(t, a.text, "<strong>127.0.0.1", "the host of the document, which alone is known")
		assert.Contains(t, a.text, "has not checked this application")
		assert.EqualValues(t, 1, app.fetched.Load())
	})
}
