package clients_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/authserver/internal/clients"
	"github.com/valetkey/valetkey/authserver/login"
	"github.com/valetkey/valetkey/authserver/store"
	"github.com/valetkey/valetkey/internal/jose"
	"github.com/valetkey/valetkey/internal/keyset"
)

const endpoint = "https://as.example.com/oauth2/register"

// A desk is a registration endpoint in use.
type desk struct {
	t        *testing.T
	url      string
	store    *store.Memory
	registry *clients.Registry
	log      *bytes.Buffer // what is logged and audited
	deleted  []string
}

type object = map[string]any

// newDesk has two initial tokens: "partner", for any number of clients, and "guest", for two.
func newDesk(t *testing.T, change func(*clients.RegistrationConfig)) *desk {
	t.Helper()
	d := &desk{t: t, store: store.NewMemory(0), log: &bytes.Buffer{}}
	d.registry = clients.NewRegistry(d.store, []clients.Client{{ID: "shop", AuthMethod: "none"}})
	logger := slog.New(slog.NewTextHandler(d.log, nil))
	cfg := clients.RegistrationConfig{
		URL:      endpoint,
		Issuer:   "https://as.example.com",
		Registry: d.registry,
		Scopes:   []string{"notes.read", "notes.write"},
		InitialTokens: []clients.InitialToken{
			{Name: "Example Ltd", Digest: store.Digest("partner")},
			{Name: "a guest", Digest: store.Digest("guest"), Uses: 2},
			{Name: "of old", Digest: store.Digest("expired"), Expires: time.Now().Add(-time.Second)},
		},
		Deleted: func(_ context.Context, id string) error {
			d.deleted = append(d.deleted, id)
			return nil
		},
		Audit: func(ctx context.Context, event string, attrs ...slog.Attr) {
			logger.LogAttrs(ctx, slog.LevelInfo, event, attrs...)
		},
		Logger: logger,
	}
	if change != nil {
		change(&cfg)
	}
	h, err := clients.Registration(cfg)
	require.NoError(t, err)
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	d.url = server.URL
	return d
}

// open permits open registration, three at once.
func open(t *testing.T) func(*clients.RegistrationConfig) {
	limiter, err := login.NewLimiter(login.Rate{Burst: 3, Every: time.Hour}, 0)
	require.NoError(t, err)
	return func(cfg *clients.RegistrationConfig) { cfg.Open, cfg.Allow = true, limiter.Allow }
}

// An answer is a response; its body is JSON or empty.
type answer struct {
	status int
	header http.Header
	body   object
}

// ask sends a request for the path below the host, with a bearer token unless that is empty.
func (d *desk) ask(method, path, token string, body any) answer {
	d.t.Helper()
	text, is := body.(string)
	if !is && body != nil {
		encoded, err := json.Marshal(body)
		require.NoError(d.t, err)
		text = string(encoded)
	}
	r, err := http.NewRequest(method, d.url+path, strings.NewReader(text))
	require.NoError(d.t, err)
	r.Header.Set("Content-Type", "application/json")
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	return d.do(r)
}

func (d *desk) do(r *http.Request) answer {
	d.t.Helper()
	resp, err := http.DefaultClient.Do(r)
	require.NoError(d.t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(d.t, err)
	a := answer{status: resp.StatusCode, header: resp.Header}
	if resp.Header.Get("Content-Type") == "application/json" {
		require.NoError(d.t, json.Unmarshal(body, &a.body))
	}
	assert.Equal(d.t, "no-store", resp.Header.Get("Cache-Control"))
	return a
}

func (d *desk) register(body any) answer {
	d.t.Helper()
	return d.ask("POST", "/oauth2/register", "partner", body)
}

func notes() object {
	return object{"client_name": "Notes", "redirect_uris": []string{"https://notes.example.com/cb"}}
}

// and returns the members of both, the later ones in the place of the earlier ones.
func and(o, more object) object {
	all := maps.Clone(o)
	maps.Copy(all, more)
	return all
}

func refused(t *testing.T, a answer, status int, code string) {
	t.Helper()
	assert.Equal(t, status, a.status)
	assert.Equal(t, code, a.body["error"])
	assert.NotEmpty(t, a.body["error_description"])
}

func TestRegistrationMistakes(t *testing.T) {
	_, err := clients.Registration(clients.RegistrationConfig{
		GrantTypes: []string{"magic"}, AuthMethods: []string{"magic"}, InitialTokens: []clients.InitialToken{{Uses: -1}}, Open: true,
		Statements: map[string]*keyset.Set{"https://trust.example.com": nil},
	})
	for _, field := range []string{"URL:", "Issuer:", "Registry:", "Scopes:", "GrantTypes[0]", "AuthMethods[0]", "InitialTokens[0].Digest", "InitialTokens[0].Uses", "Allow:", "Statements["} {
		assert.ErrorContains(t, err, field)
	}
	for _, url := range []string{"https://as.example.com", "https://as.example.com/", "https://as.example.com/register/", "https://as.example.com/a/../b", "https://as.example.com/%7Bid%7D", "https://as.example.com/a?b"} {
		_, err = clients.Registration(clients.RegistrationConfig{URL: url})
		assert.ErrorContains(t, err, "URL:", url)
		assert.ErrorContains(t, err, "InitialTokens:")
	}
}

func TestRegister(t *testing.T) {
	d := newDesk(t, nil)

	for name, c := range map[string]struct {
		body object
		code string
	}{
		"AS-DCR-03 a key set and its URL":                       {object{"jwks": json.RawMessage(keySet(t, false)), "jwks_uri": "https://notes.example.com/keys"}, "invalid_client_metadata"},
		"AS-DCR-05 no redirect URI":                             {object{"redirect_uris": nil}, "invalid_redirect_uri"},
		"AS-DCR-05 no redirect URI in the array":                {object{"redirect_uris": []string{}}, "invalid_redirect_uri"},
		"AS-CODE-04 AS-DCR-06 a redirect URI in clear text":     {object{"redirect_uris": []string{"http://notes.example.com/cb"}}, "invalid_redirect_uri"},
		"AS-DCR-06 a redirect URI that runs a script":           {object{"redirect_uris": []string{"https://notes.example.com/cb", "javascript:alert(1)"}}, "invalid_redirect_uri"},
		"AS-DCR-07 the response type of another grant":          {object{"response_types": []string{"token"}}, "invalid_client_metadata"},
		"AS-DCR-07 a grant without its response type":           {object{"response_types": []string{}}, "invalid_client_metadata"},
		"AS-DCR-07 a response type without its grant":           {object{"grant_types": []string{"refresh_token"}, "response_types": []string{"code"}}, "invalid_client_metadata"},
		"AS-DCR-07 two response types with one grant":           {object{"response_types": []string{"code", "token"}}, "invalid_client_metadata"},
		"a grant that is not offered in open registration":      {object{"grant_types": []string{"client_credentials"}}, "invalid_client_metadata"},
		"an authentication method that is not offered":          {object{"token_endpoint_auth_method": "self_signed_tls_client_auth"}, "invalid_client_metadata"},
		"scopes none of which can be registered":                {object{"scope": "openid email"}, "invalid_client_metadata"},
		"a private-use scheme that is not accepted":             {object{"redirect_uris": []string{"cursor://anysphere.cursor-mcp/oauth/callback"}}, "invalid_redirect_uri"},
		"two private-use schemes that are not accepted":         {object{"redirect_uris": []string{"cursor://oauth/cb", "vscode://oauth/cb"}}, "invalid_redirect_uri"},
		"a private-use scheme and a wrong redirect URI":         {object{"redirect_uris": []string{"cursor://oauth/cb", "http://notes.example.com/cb"}}, "invalid_redirect_uri"},
		"a private-use scheme without a path":                   {object{"redirect_uris": []string{"https://notes.example.com/cb", "cursor:"}}, "invalid_redirect_uri"},
		"a name that is not a string":                           {object{"client_name": 5}, "invalid_client_metadata"},
		"redirect URIs that are not an array":                   {object{"redirect_uris": "https://notes.example.com/cb"}, "invalid_client_metadata"},
		"an invalid flag":                                       {object{"dpop_bound_access_tokens": "yes"}, "invalid_client_metadata"},
		"an application of no known type":                       {object{"application_type": "toaster"}, "invalid_client_metadata"},
		"a private-use scheme for an application on a server":   {object{"application_type": "web", "redirect_uris": []string{"com.example.notes:/cb"}}, "invalid_redirect_uri"},
		"private_key_jwt without a key":                         {object{"token_endpoint_auth_method": "private_key_jwt"}, "invalid_client_metadata"},
		"a key set that is not an object":                       {object{"jwks": "keys"}, "invalid_client_metadata"},
		"AS-DCR-08 a software statement of an untrusted issuer": {object{"software_statement": statement(t, key(t), object{"iss": "https://trust.example.com"}, nil)}, "unapproved_software_statement"},
		"AS-DCR-08 a software statement that is not a string":   {object{"software_statement": 5}, "invalid_software_statement"},
		"AS-DCR-08 a software statement that is not a JWT":      {object{"software_statement": "a.b.c"}, "invalid_software_statement"},
	} {
		t.Run(name, func(t *testing.T) { refused(t, d.register(and(notes(), c.body)), http.StatusBadRequest, c.code) })
	}
	for name, body := range map[string]string{
		"no JSON": "client_name=Notes", "an array": "[]", "a member twice": `{"client_name":"a","client_name":"b"}`,
		"nothing": "", "more than one object": "{}{}", "too much": `{"client_name":"` + strings.Repeat("a", 100<<10) + `"}`,
	} {
		t.Run("a body that is "+name, func(t *testing.T) { refused(t, d.register(body), http.StatusBadRequest, "invalid_client_metadata") })
	}
	t.Run("a form", func(t *testing.T) {
		r, err := http.NewRequest("POST", d.url+"/oauth2/register", strings.NewReader("client_name=Notes"))
		require.NoError(t, err)
		r.Header.Set("Authorization", "Bearer partner")
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		refused(t, d.do(r), http.StatusBadRequest, "invalid_client_metadata")
	})

	t.Run("AS-DCR-01 AS-DCR-02 AS-DCRM-01 all that was registered, and what the server made", func(t *testing.T) {
		a := d.register(and(notes(), object{
			"client_uri": "https://notes.example.com", "grant_types": []string{"authorization_code", "refresh_token"}, "response_types": []string{"code"},
			"scope": "notes.read", "token_endpoint_auth_method": "client_secret_post", "application_type": "web", "software_id": "4NRB1-0XZAB", "software_version": "1.2",
			"require_pushed_authorization_requests": true, "dpop_bound_access_tokens": true, "tls_client_certificate_bound_access_tokens": true,
		}))
		require.Equal(t, http.StatusCreated, a.status)
		id, secret, token := a.body["client_id"].(string), a.body["client_secret"].(string), a.body["registration_access_token"].(string)
		issued := a.body["client_id_issued_at"].(float64)
		assert.WithinDuration(t, time.Now(), time.Unix(int64(issued), 0), time.Minute)
		assert.Equal(t, object{
			"client_id": id, "client_secret": secret, "client_secret_expires_at": 0., "client_id_issued_at": issued,
			"registration_access_token": token, "registration_client_uri": endpoint + "/" + id,
			"client_name": "Notes", "client_uri": "https://notes.example.com", "redirect_uris": []any{"https://notes.example.com/cb"},
			"grant_types": []any{"authorization_code", "refresh_token"}, "response_types": []any{"code"}, "scope": "notes.read",
			"token_endpoint_auth_method": "client_secret_post", "application_type": "web", "software_id": "4NRB1-0XZAB", "software_version": "1.2",
			"require_pushed_authorization_requests": true, "dpop_bound_access_tokens": true, "tls_client_certificate_bound_access_tokens": true,
		}, a.body)

		c, err := d.registry.Get(t.Context(), id)
		require.NoError(t, err)
		assert.True(t, c.HasSecret(secret))
		assert.True(t, c.Expires.IsZero(), "it came with a token")
		for _, hidden := range []string{secret, token, "partner"} {
			assert.NotContains(t, d.log.String(), hidden)
		}
		assert.Contains(t, d.log.String(), `msg="client registered" client=`+id+` by="Example Ltd" address=127.0.0.1`)
	})
	t.Run("the defaults of RFC 7591", func(t *testing.T) {
		a := d.register(notes())
		require.Equal(t, http.StatusCreated, a.status)
		assert.Equal(t, []any{"authorization_code"}, a.body["grant_types"])
		assert.Equal(t, []any{"code"}, a.body["response_types"])
		assert.Equal(t, "client_secret_basic", a.body["token_endpoint_auth_method"])
		assert.Equal(t, "web", a.body["application_type"])
		assert.Equal(t, "notes.read notes.write", a.body["scope"])
	})
	t.Run("a public client has no secret, nor one that expires", func(t *testing.T) {
		a := d.register(and(notes(), object{"token_endpoint_auth_method": "none"}))
		require.Equal(t, http.StatusCreated, a.status)
		assert.NotContains(t, a.body, "client_secret")
		assert.NotContains(t, a.body, "client_secret_expires_at")
	})
	t.Run("a client with keys", func(t *testing.T) {
		set := keySet(t, false)
		a := d.register(and(notes(), object{"token_endpoint_auth_method": "private_key_jwt", "token_endpoint_auth_signing_alg": "ES256", "jwks": json.RawMessage(set)}))
		require.Equal(t, http.StatusCreated, a.status)
		assert.NotContains(t, a.body, "client_secret")
		assert.Equal(t, "ES256", a.body["token_endpoint_auth_signing_alg"])
		told, err := json.Marshal(a.body["jwks"])
		require.NoError(t, err)
		assert.JSONEq(t, set, string(told))
		a = d.register(and(notes(), object{"token_endpoint_auth_method": "private_key_jwt", "jwks_uri": "https://notes.example.com/keys"}))
		require.Equal(t, http.StatusCreated, a.status)
		assert.Equal(t, "https://notes.example.com/keys", a.body["jwks_uri"])
	})
	t.Run("redirect URIs of a device make a native application", func(t *testing.T) {
		for _, uri := range []string{"http://127.0.0.1/cb", "http://localhost:33418", "com.example.notes:/cb"} {
			a := d.register(object{"redirect_uris": []string{uri}, "token_endpoint_auth_method": "none"})
			assert.Equal(t, "native", a.body["application_type"], uri)
		}
		a := d.register(object{"application_type": "web", "redirect_uris": []string{"http://127.0.0.1/cb"}})
		assert.Equal(t, "web", a.body["application_type"])
	})
	t.Run("RFC 7591, section 2: scopes that cannot be registered are left out, and the response states it", func(t *testing.T) {
		a := d.register(and(notes(), object{"scope": " openid notes.write  email"}))
		require.Equal(t, http.StatusCreated, a.status)
		assert.Equal(t, "notes.write", a.body["scope"])
		assert.Equal(t, []any{"scope: 2 cannot be registered here and were left out: openid email"}, a.body["warnings"])
		assert.Contains(t, d.log.String(), "were left out: openid email")
		c, err := d.registry.Get(t.Context(), a.body["client_id"].(string))
		require.NoError(t, err)
		assert.Equal(t, []string{"notes.write"}, c.Scopes)
		path, token := "/oauth2/register/"+c.ID, a.body["registration_access_token"].(string)
		update := and(notes(), object{"client_id": c.ID, "scope": "notes.read offline_access"})
		a = d.ask("PUT", path, token, update)
		require.Equal(t, http.StatusOK, a.status)
		assert.Equal(t, "notes.read", a.body["scope"])
		assert.Len(t, a.body["warnings"], 1)
		assert.NotContains(t, d.ask("GET", path, token, nil).body, "warnings")
		refused(t, d.ask("PUT", path, token, and(update, object{"scope": "openid"})), http.StatusBadRequest, "invalid_client_metadata")
	})
	t.Run("RFC 8252, section 8.4: a private-use redirect URI among others is left out, and the response states it", func(t *testing.T) {
		cursor := []string{"cursor://anysphere.cursor-mcp/oauth/callback", "https://www.cursor.com/agents/mcp/oauth/callback", "http://localhost:8787/callback"}
		a := d.register(object{"redirect_uris": cursor, "token_endpoint_auth_method": "none"})
		require.Equal(t, http.StatusCreated, a.status)
		assert.Equal(t, []any{cursor[1], cursor[2]}, a.body["redirect_uris"])
		assert.Equal(t, "native", a.body["application_type"], "with a loopback redirect URI, it has any port")
		require.Len(t, a.body["warnings"], 1)
		assert.Contains(t, a.body["warnings"].([]any)[0], "private_use_schemes")

		a = d.register(object{"redirect_uris": []string{"com.example.notes:/cb", "https://notes.example.com/cb"}, "application_type": "web"})
		require.Equal(t, http.StatusCreated, a.status)
		assert.Equal(t, []any{"https://notes.example.com/cb"}, a.body["redirect_uris"])

		d := newDesk(t, func(cfg *clients.RegistrationConfig) {
			cfg.Registry = clients.NewRegistry(store.NewMemory(0), nil, "cursor")
		})
		for _, kind := range []any{nil, "native", "web"} {
			a := d.register(object{"redirect_uris": cursor, "token_endpoint_auth_method": "none", "application_type": kind})
			require.Equal(t, http.StatusCreated, a.status, kind)
			assert.Len(t, a.body["redirect_uris"], 3, kind)
			assert.NotContains(t, a.body, "warnings", kind)
		}
		refused(t, d.register(object{"redirect_uris": []string{"windsurf://oauth/cb"}}), http.StatusBadRequest, "invalid_redirect_uri")
	})
	t.Run("other grants and methods where the operator offers them", func(t *testing.T) {
		d := newDesk(t, func(cfg *clients.RegistrationConfig) {
			cfg.GrantTypes = []string{"authorization_code", "implicit", "client_credentials"}
			cfg.AuthMethods = []string{"client_secret_basic", "self_signed_tls_client_auth", "tls_client_auth"}
		})
		a := d.register(and(notes(), object{"application_type": "native", "grant_types": []string{"implicit", "authorization_code"}, "response_types": []string{"code", "token"}}))
		require.Equal(t, http.StatusCreated, a.status)
		assert.Equal(t, "native", a.body["application_type"])
		assert.Equal(t, []any{"code", "token"}, a.body["response_types"])
		a = d.register(object{"grant_types": []string{"client_credentials"}})
		require.Equal(t, http.StatusCreated, a.status)
		assert.Equal(t, []any{}, a.body["response_types"])
		a = d.register(and(notes(), object{"token_endpoint_auth_method": "self_signed_tls_client_auth", "jwks_uri": "https://notes.example.com/keys"}))
		assert.Equal(t, http.StatusCreated, a.status)
		refused(t, d.register(and(notes(), object{"token_endpoint_auth_method": "none"})), http.StatusBadRequest, "invalid_client_metadata")

		// RFC 8705, section 2.1.2.
		for member, value := range map[string]string{
			"tls_client_auth_subject_dn": "CN=notes,O=Example", "tls_client_auth_san_dns": "notes.example.com", "tls_client_auth_san_uri": "spiffe://example.com/notes",
			"tls_client_auth_san_ip": "192.0.2.1", "tls_client_auth_san_email": "notes@example.com",
		} {
			a = d.register(and(notes(), object{"token_endpoint_auth_method": "tls_client_auth", member: value}))
			require.Equal(t, http.StatusCreated, a.status, member)
			assert.Equal(t, value, a.body[member])
			assert.NotContains(t, a.body, "client_secret")
		}
		refused(t, d.register(and(notes(), object{"token_endpoint_auth_method": "tls_client_auth"})), http.StatusBadRequest, "invalid_client_metadata")
	})
	t.Run("AS-DCR-04 unknown members and those that only the operator may set are ignored", func(t *testing.T) {
		a := d.register(and(notes(), object{
			"userinfo_signed_response_alg": "RS256", "client_name#ja-Jpan-JP": "ノート", "logo_uri": 5,
			"trusted": true, "without_pkce": true, "introspects": []string{"https://api.example.com"}, "access_lifetime": 1e15,
			"owner": "customer:1", "client_id": "shop", "client_secret": "mine", "secret_digest": []string{store.Digest("mine")},
			"registration_digest": store.Digest("mine"),
		}))
		require.Equal(t, http.StatusCreated, a.status)
		assert.NotContains(t, a.body, "userinfo_signed_response_alg")
		c, err := d.registry.Get(t.Context(), a.body["client_id"].(string))
		require.NoError(t, err)
		assert.False(t, c.Trusted || c.WithoutPKCE || c.Introspects != nil || c.Lifetime != 0 || c.Owner != "" || c.ID == "shop" || c.HasSecret("mine"))
		assert.NotEqual(t, store.Digest("mine"), c.RegistrationDigest)
	})
}

func TestInitialTokens(t *testing.T) {
	t.Run("AS-DCR-09 a token is required", func(t *testing.T) {
		d := newDesk(t, nil)
		a := d.ask("POST", "/oauth2/register", "", notes())
		assert.Equal(t, http.StatusUnauthorized, a.status)
		assert.Equal(t, `Bearer realm="registration"`, a.header.Get("WWW-Authenticate"), "without a token no error is named")
		for _, token := range []string{"unknown", "expired", store.Digest("partner")} {
			a = d.ask("POST", "/oauth2/register", token, notes())
			refused(t, a, http.StatusUnauthorized, "invalid_token")
			assert.Equal(t, `Bearer realm="registration", error="invalid_token", error_description="the initial access token is not valid"`, a.header.Get("WWW-Authenticate"))
		}
	})
	t.Run("one is good for as many clients as it states, however many ask at once", func(t *testing.T) {
		d := newDesk(t, nil)
		refused(t, d.ask("POST", "/oauth2/register", "guest", object{}), http.StatusBadRequest, "invalid_redirect_uri") // costs nothing
		var made, spent atomic.Int32
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				switch a := d.ask("POST", "/oauth2/register", "guest", notes()); a.status {
				case http.StatusCreated:
					made.Add(1)
				case http.StatusUnauthorized:
					spent.Add(1)
				}
			})
		}
		all.Wait()
		assert.Equal(t, []int32{2, 6}, []int32{made.Load(), spent.Load()})
	})
	t.Run("only an initial token allows grants without the consent of a user, then and later", func(t *testing.T) {
		d := newDesk(t, func(cfg *clients.RegistrationConfig) {
			cfg.GrantTypes = []string{"authorization_code", "refresh_token", "client_credentials", "urn:ietf:params:oauth:grant-type:token-exchange"}
			open(t)(cfg)
			allow := cfg.Allow
			cfg.Allow = func(address string) error { _ = allow(address); return nil }
		})
		for _, grants := range [][]string{
			{"client_credentials"}, {"authorization_code", "client_credentials"}, {"authorization_code", "urn:ietf:params:oauth:grant-type:token-exchange"},
		} {
			service := and(notes(), object{"grant_types": grants})
			refused(t, d.ask("POST", "/oauth2/register", "", service), http.StatusBadRequest, "invalid_client_metadata")

			a := d.ask("POST", "/oauth2/register", "", notes())
			require.Equal(t, http.StatusCreated, a.status)
			self, token := "/oauth2/register/"+a.body["client_id"].(string), a.body["registration_access_token"].(string)
			change := and(service, object{"client_id": a.body["client_id"]})
			a = d.ask("PUT", self, token, change)
			refused(t, a, http.StatusBadRequest, "invalid_client_metadata")
			assert.Equal(t, "grant_types: one can be registered only with an initial access token", a.body["error_description"])
			assert.Equal(t, []any{"authorization_code"}, d.ask("GET", self, token, nil).body["grant_types"])

			a = d.register(notes())
			require.Equal(t, http.StatusCreated, a.status)
			self, token = "/oauth2/register/"+a.body["client_id"].(string), a.body["registration_access_token"].(string)
			change["client_id"] = a.body["client_id"]
			for range 2 { // it is remembered that it has been registered with a token
				assert.Equal(t, http.StatusOK, d.ask("PUT", self, token, change).status)
			}
		}
	})
	t.Run("a wrong token is refused where none is needed", func(t *testing.T) {
		d := newDesk(t, open(t))
		refused(t, d.ask("POST", "/oauth2/register", "unknown", notes()), http.StatusUnauthorized, "invalid_token")
	})
	t.Run("AS-DCR-10 open registrations are limited, and those with a token are not", func(t *testing.T) {
		d := newDesk(t, open(t))
		for range 3 {
			assert.Equal(t, http.StatusCreated, d.ask("POST", "/oauth2/register", "", notes()).status)
		}
		a := d.ask("POST", "/oauth2/register", "", notes())
		refused(t, a, http.StatusTooManyRequests, "temporarily_unavailable")
		wait, err := strconv.Atoi(a.header.Get("Retry-After"))
		require.NoError(t, err)
		assert.InDelta(t, 3600, wait, 120, "from the first one on")
		assert.Equal(t, http.StatusCreated, d.register(notes()).status)
		assert.Contains(t, d.log.String(), `msg="registration refused" method=POST status=429`)
	})
	t.Run("an unused open registration ends after a day", func(t *testing.T) {
		for unused, want := range map[time.Duration]time.Duration{0: 24 * time.Hour, time.Hour: time.Hour, -1: 0} {
			d := newDesk(t, func(cfg *clients.RegistrationConfig) {
				open(t)(cfg)
				cfg.UnusedFor = unused
			})
			a := d.ask("POST", "/oauth2/register", "", notes())
			require.Equal(t, http.StatusCreated, a.status)
			c, err := d.registry.Get(t.Context(), a.body["client_id"].(string))
			require.NoError(t, err)
			if want == 0 {
				assert.True(t, c.Expires.IsZero())
				continue
			}
			assert.WithinDuration(t, time.Now().Add(want), c.Expires, time.Minute)
			a = d.ask("PUT", "/oauth2/register/"+c.ID, a.body["registration_access_token"].(string), and(notes(), object{"client_id": c.ID}))
			require.Equal(t, http.StatusOK, a.status)
			c, err = d.registry.Get(t.Context(), c.ID)
			require.NoError(t, err)
			assert.False(t, c.Expires.IsZero(), "to change it is not to use it")
		}
	})
}

func key(t *testing.T) *jose.PrivateKey {
	k, err := jose.GenerateKey("ES256", "")
	require.NoError(t, err)
	return k
}

func statement(t *testing.T, k *jose.PrivateKey, claims, header object) string {
	payload, err := json.Marshal(claims)
	require.NoError(t, err)
	raw, err := k.Sign(header, payload)
	require.NoError(t, err)
	return raw
}

func TestStatements(t *testing.T) {
	const issuer = "https://trust.example.com"
	trusted, stranger := key(t), key(t)
	now := time.Now().Unix()
	d := newDesk(t, func(cfg *clients.RegistrationConfig) {
		down, err := keyset.New(keyset.Config{Issuer: "http://127.0.0.1:1", JWKSURL: "http://127.0.0.1:1/keys", Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		t.Cleanup(down.Close)
		cfg.Statements = map[string]*keyset.Set{issuer: keyset.Static(trusted.Public()), "http://127.0.0.1:1": down}
	})
	send := func(plain, claims object, k *jose.PrivateKey, header object) answer {
		return d.register(and(plain, object{"software_statement": statement(t, k, claims, header)}))
	}
	for name, c := range map[string]struct {
		claims object
		key    *jose.PrivateKey
		header object
		code   string
	}{
		"AS-DCR-08 signed with the key of another issuer": {object{"iss": issuer}, stranger, nil, "invalid_software_statement"},
		"AS-DCR-08 signed with its issuer's id":           {object{"iss": issuer}, stranger, object{"kid": trusted.ID()}, "invalid_software_statement"},
		"AS-DCR-08 of another issuer":                     {object{"iss": "https://other.example.com"}, trusted, nil, "unapproved_software_statement"},
		"AS-DCR-08 without issuer":                        {object{"client_name": "Notes"}, trusted, nil, "unapproved_software_statement"},
		"AS-DCR-08 not signed":                            {object{"iss": issuer}, trusted, object{"alg": "none"}, "invalid_software_statement"},
		"an access token":                                 {object{"iss": issuer}, trusted, object{"typ": "at+jwt"}, "invalid_software_statement"},
		"expired":                                         {object{"iss": issuer, "exp": now - 1}, trusted, nil, "invalid_software_statement"},
		"not yet valid":                                   {object{"iss": issuer, "nbf": now + 3600}, trusted, nil, "invalid_software_statement"},
		"with an end in milliseconds":                     {object{"iss": issuer, "exp": (now + 60) * 1000}, trusted, nil, "invalid_software_statement"},
		"with a malformed end":                            {object{"iss": issuer, "exp": "tomorrow"}, trusted, nil, "invalid_software_statement"},
		"for others":                                      {object{"iss": issuer, "aud": "https://other.example.com"}, trusted, nil, "invalid_software_statement"},
		"with metadata that is wrong":                     {object{"iss": issuer, "redirect_uris": []string{"javascript:alert(1)"}}, trusted, nil, "invalid_redirect_uri"},
	} {
		t.Run(name, func(t *testing.T) {
			refused(t, send(notes(), c.claims, c.key, c.header), http.StatusBadRequest, c.code)
		})
	}
	t.Run("whose keys cannot be had", func(t *testing.T) {
		a := send(notes(), object{"iss": "http://127.0.0.1:1"}, trusted, nil)
		refused(t, a, http.StatusServiceUnavailable, "temporarily_unavailable")
		assert.NotEmpty(t, a.header.Get("Retry-After"))
	})
	t.Run("AS-DCR-08 the statement wins, and is returned as it was", func(t *testing.T) {
		claims := object{
			"iss": issuer, "aud": []string{"https://as.example.com"}, "exp": now + 3600, "nbf": now - 60, "client_name": "Notes, vouched for",
			"scope": "notes.read", "jwks_uri": "https://notes.example.com/keys", "client_id": "shop", "client_secret": "mine",
		}
		plain := and(notes(), object{"client_name": "Bank", "scope": "notes.write", "jwks": json.RawMessage(keySet(t, false)), "software_version": "2"})
		a := send(plain, claims, trusted, object{"typ": "JWT"})
		require.Equal(t, http.StatusCreated, a.status)
		assert.Equal(t, "Notes, vouched for", a.body["client_name"])
		assert.Equal(t, "notes.read", a.body["scope"])
		assert.Equal(t, "https://notes.example.com/keys", a.body["jwks_uri"])
		assert.NotContains(t, a.body, "jwks")
		assert.Equal(t, "2", a.body["software_version"], "the client sets what the statement leaves out")
		assert.NotEqual(t, "shop", a.body["client_id"])
		sent := strings.Split(a.body["software_statement"].(string), ".")
		assert.Len(t, sent, 3)
		again := d.ask("GET", "/oauth2/register/"+a.body["client_id"].(string), a.body["registration_access_token"].(string), nil)
		assert.Equal(t, a.body["software_statement"], again.body["software_statement"])
	})
}

// A registered is a client at a desk.
type registered struct {
	*desk
	path, id, secret, token string
}

func (d *desk) registered(more object) registered {
	a := d.register(and(notes(), more))
	require.Equal(d.t, http.StatusCreated, a.status)
	c := registered{desk: d, id: a.body["client_id"].(string), token: a.body["registration_access_token"].(string)}
	c.path = "/oauth2/register/" + c.id
	c.secret, _ = a.body["client_secret"].(string)
	return c
}

func (c registered) put(more object) answer {
	return c.ask("PUT", c.path, c.token, and(and(notes(), object{"client_id": c.id}), more))
}

func TestManage(t *testing.T) {
	d := newDesk(t, nil)

	t.Run("AS-DCRM-02 the registration as it is, under the same id", func(t *testing.T) {
		c := d.registered(nil)
		for range 2 {
			a := d.ask("GET", c.path, c.token, nil)
			require.Equal(t, http.StatusOK, a.status)
			assert.Equal(t, c.id, a.body["client_id"])
			assert.Equal(t, "Notes", a.body["client_name"])
			assert.Equal(t, c.token, a.body["registration_access_token"])
			assert.Equal(t, endpoint+"/"+c.id, a.body["registration_client_uri"])
			assert.NotContains(t, a.body, "client_secret", "only its digest is kept")
			assert.Equal(t, 0., a.body["client_secret_expires_at"])
		}
	})
	t.Run("AS-DCRM-03 AS-DCRM-04 a wrong token and an unknown client are the same", func(t *testing.T) {
		c, another := d.registered(nil), d.registered(nil)
		for name, q := range map[string]struct{ path, token string }{
			"a wrong token":                 {c.path, "wrong"},
			"the token of another client":   {c.path, another.token},
			"an initial token":              {c.path, "partner"},
			"the client's secret":           {c.path, c.secret},
			"an unknown client":             {"/oauth2/register/unknown", c.token},
			"a client of the configuration": {"/oauth2/register/shop", c.token},
		} {
			for _, method := range []string{"GET", "PUT", "DELETE"} {
				a := d.ask(method, q.path, q.token, and(notes(), object{"client_id": c.id}))
				refused(t, a, http.StatusUnauthorized, "invalid_token")
				assert.Equal(t, `Bearer realm="registration", error="invalid_token", error_description="the registration access token is not valid"`, a.header.Get("WWW-Authenticate"), name)
			}
		}
		a := d.ask("GET", c.path, "", nil)
		assert.Equal(t, http.StatusUnauthorized, a.status)
		assert.Equal(t, `Bearer realm="registration"`, a.header.Get("WWW-Authenticate"))
		r, err := http.NewRequest("GET", d.url+c.path, nil)
		require.NoError(t, err)
		r.Header.Set("Authorization", "DPoP "+c.token)
		assert.Equal(t, http.StatusUnauthorized, d.do(r).status)
		r.Header["Authorization"] = []string{"Bearer " + c.token, "Bearer " + c.token}
		refused(t, d.do(r), http.StatusBadRequest, "invalid_request")
	})
	t.Run("AS-DCRM-04 a token dies with its client", func(t *testing.T) {
		c := d.registered(nil)
		require.NoError(t, d.registry.Delete(t.Context(), c.id))
		refused(t, d.ask("GET", c.path, c.token, nil), http.StatusUnauthorized, "invalid_token")
	})
	t.Run("AS-DCRM-05 the client cannot change its privileges", func(t *testing.T) {
		for _, raise := range []func(*clients.Client){
			func(c *clients.Client) { c.Trusted = true },
			func(c *clients.Client) { c.WithoutPKCE = true },
			func(c *clients.Client) { c.Introspects = []string{"https://api.example.com"} },
		} {
			c := d.registered(nil)
			stored, err := d.registry.Get(t.Context(), c.id)
			require.NoError(t, err)
			raise(stored)
			require.NoError(t, d.registry.Update(t.Context(), *stored))
			refused(t, c.put(object{"redirect_uris": []string{"https://evil.example.com/"}}), http.StatusForbidden, "insufficient_scope")
			refused(t, d.ask("DELETE", c.path, c.token, nil), http.StatusForbidden, "insufficient_scope")
			assert.Equal(t, http.StatusOK, d.ask("GET", c.path, c.token, nil).status)
		}
	})
	t.Run("AS-DCRM-06 an update replaces all that the client may set", func(t *testing.T) {
		c := d.registered(object{"client_uri": "https://notes.example.com", "dpop_bound_access_tokens": true, "scope": "notes.read"})
		stored, err := d.registry.Get(t.Context(), c.id)
		require.NoError(t, err)
		stored.DefaultAPI, stored.Lifetime = "https://api.example.com", time.Minute
		require.NoError(t, d.registry.Update(t.Context(), *stored))

		a := c.put(object{"client_name": "Better notes", "client_secret": c.secret, "client_uri": nil})
		require.Equal(t, http.StatusOK, a.status)
		assert.Equal(t, c.id, a.body["client_id"])
		assert.Equal(t, "Better notes", a.body["client_name"])
		assert.NotContains(t, a.body, "client_uri", "null means omitted, and that means deleted")
		assert.NotContains(t, a.body, "dpop_bound_access_tokens")
		assert.Equal(t, c.token, a.body["registration_access_token"])
		assert.NotContains(t, a.body, "client_secret")
		now, err := d.registry.Get(t.Context(), c.id)
		require.NoError(t, err)
		assert.True(t, now.HasSecret(c.secret))
		assert.Equal(t, stored.IssuedAt, now.IssuedAt)
		assert.Equal(t, "https://api.example.com", now.DefaultAPI, "what is the operator's stays")
		assert.Equal(t, time.Minute, now.Lifetime)
		assert.Contains(t, d.log.String(), `msg="client changed" client=`+c.id)
	})
	t.Run("AS-DCRM-06 the client_id has to be its own, and so the secret", func(t *testing.T) {
		c := d.registered(nil)
		for _, wrong := range []object{{"client_id": nil}, {"client_id": "shop"}, {"client_id": 5}, {"client_secret": "a secret that I like better"}, {"client_secret": 5}} {
			refused(t, c.put(wrong), http.StatusBadRequest, "invalid_client_metadata")
		}
		stored, err := d.registry.Get(t.Context(), c.id)
		require.NoError(t, err)
		assert.True(t, stored.HasSecret(c.secret))
	})
	t.Run("AS-DCRM-07 members that only the server sets must not be sent", func(t *testing.T) {
		c := d.registered(nil)
		for name, value := range (object{"registration_access_token": c.token, "registration_client_uri": endpoint + "/" + c.id, "client_secret_expires_at": 0, "client_id_issued_at": 1}) {
			refused(t, c.put(object{name: value}), http.StatusBadRequest, "invalid_client_metadata")
		}
	})
	t.Run("an update may be no more than a registration", func(t *testing.T) {
		c := d.registered(nil)
		refused(t, c.put(object{"redirect_uris": []string{"javascript:alert(1)"}}), http.StatusBadRequest, "invalid_redirect_uri")
		refused(t, c.put(object{"scope": "admin"}), http.StatusBadRequest, "invalid_client_metadata")
		assert.Equal(t, http.StatusOK, c.put(object{"trusted": true}).status)
		stored, err := d.registry.Get(t.Context(), c.id)
		require.NoError(t, err)
		assert.False(t, stored.Trusted)
	})
	t.Run("AS-DCRM-10 reading changes no secret; one that a change replaces is dead at once", func(t *testing.T) {
		c := d.registered(nil)
		has := func(secret string) bool {
			stored, err := d.registry.Get(t.Context(), c.id)
			require.NoError(t, err)
			return stored.HasSecret(secret)
		}
		require.Equal(t, http.StatusOK, d.ask("GET", c.path, c.token, nil).status)
		assert.True(t, has(c.secret))
		a := c.put(object{"token_endpoint_auth_method": "none"})
		require.Equal(t, http.StatusOK, a.status)
		assert.NotContains(t, a.body, "client_secret_expires_at")
		assert.False(t, has(c.secret))
		a = c.put(object{"token_endpoint_auth_method": "client_secret_basic"})
		require.Equal(t, http.StatusOK, a.status)
		assert.True(t, has(a.body["client_secret"].(string)))
		assert.False(t, has(c.secret))
	})
	t.Run("of updates at the same time none is lost in silence", func(t *testing.T) {
		c := d.registered(nil)
		var fine, conflict atomic.Int32
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				switch c.put(nil).status {
				case http.StatusOK:
					fine.Add(1)
				case http.StatusConflict:
					conflict.Add(1)
				}
			})
		}
		all.Wait()
		assert.Positive(t, fine.Load())
		assert.EqualValues(t, 8, fine.Load()+conflict.Load())
	})
	t.Run("AS-DCRM-08 a deleted client is dead, and what it was granted is ended", func(t *testing.T) {
		c := d.registered(nil)
		a := d.ask("DELETE", c.path, c.token, nil)
		assert.Equal(t, http.StatusNoContent, a.status)
		assert.Empty(t, a.body)
		_, err := d.registry.Get(t.Context(), c.id)
		assert.ErrorIs(t, err, store.ErrNotFound)
		assert.Equal(t, []string{c.id}, d.deleted)
		refused(t, d.ask("GET", c.path, c.token, nil), http.StatusUnauthorized, "invalid_token")
		refused(t, d.ask("DELETE", c.path, c.token, nil), http.StatusUnauthorized, "invalid_token")
		assert.Contains(t, d.log.String(), `msg="client deleted" client=`+c.id)
	})
	t.Run("AS-DCRM-09 what is not supported", func(t *testing.T) {
		c := d.registered(nil)
		for path, methods := range map[string][]string{"/oauth2/register": {"GET", "PUT", "DELETE", "PATCH"}, c.path: {"POST", "PATCH"}} {
			for _, method := range methods {
				a := d.ask(method, path, c.token, nil)
				assert.Equal(t, http.StatusMethodNotAllowed, a.status, "%s %s", method, path)
				assert.NotEmpty(t, a.header.Get("Allow"))
			}
		}
	})
}

func TestOutages(t *testing.T) {
	t.Run("grants that do not end are logged for the operator", func(t *testing.T) {
		d := newDesk(t, func(cfg *clients.RegistrationConfig) {
			cfg.Deleted = func(context.Context, string) error { return errors.New("the disk is full") }
		})
		c := d.registered(nil)
		assert.Equal(t, http.StatusNoContent, d.ask("DELETE", c.path, c.token, nil).status)
		assert.Contains(t, d.log.String(), "grants of a deleted client not ended")
		assert.Contains(t, d.log.String(), "the disk is full")
	})
	t.Run("a store that is down makes no token a bad one", func(t *testing.T) {
		d := newDesk(t, nil)
		c := d.registered(nil)
		require.NoError(t, d.store.Close())
		for _, a := range []answer{d.register(notes()), d.ask("POST", "/oauth2/register", "guest", notes()), d.ask("GET", c.path, c.token, nil)} {
			refused(t, a, http.StatusServiceUnavailable, "temporarily_unavailable")
			assert.Equal(t, "5", a.header.Get("Retry-After"))
			assert.NotContains(t, fmt.Sprint(a.body), "closed", "the cause is for the log")
		}
		assert.Contains(t, d.log.String(), "store: closed")
	})
	t.Run("without hooks", func(t *testing.T) {
		d := newDesk(t, func(cfg *clients.RegistrationConfig) { cfg.Deleted, cfg.Audit = nil, nil })
		c := d.registered(nil)
		assert.Equal(t, http.StatusNoContent, d.ask("DELETE", c.path, c.token, nil).status)
	})
}
