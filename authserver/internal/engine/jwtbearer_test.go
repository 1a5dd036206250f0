package engine_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/authserver/internal/clients"
	"github.com/valetkey/valetkey/authserver/internal/engine"
	"github.com/valetkey/valetkey/authserver/model"
	"github.com/valetkey/valetkey/authserver/store"
	"github.com/valetkey/valetkey/internal/jose"
)

const (
	assertionGrant = "urn:ietf:params:oauth:grant-type:jwt-bearer"
	partner        = "https://partner.example.com"
)

// trusting makes a site that trusts the partner, which signs with the key of the client "signer"; bridge uses its assertions.
func trusting(c *config) {
	c.Issuers = []model.TrustedIssuer{{
		Issuer: partner, JWKS: `{"keys":[` + string(clientKey().PublicJWK()) + `]}`, SubjectType: "partner",
		Scopes: []string{"orders:read", "orders:write"},
	}}
	with(clients.Client{
		ID: "bridge", AuthMethod: "client_secret_basic", SecretDigest: []string{store.Digest("secret-of-bridge")},
		GrantTypes: []string{assertionGrant, "refresh_token"}, Scopes: []string{"orders:read", "orders:write", "files:read"}, DefaultAPI: orders,
	}, clients.Client{ID: "open", AuthMethod: "none", GrantTypes: []string{assertionGrant}, Scopes: []string{"orders:read"}})(c)
}

func granting(assertion string, pairs ...string) url.Values {
	return append2(form("grant_type", assertionGrant, "assertion", assertion), pairs...)
}

func TestAssertionGrant(t *testing.T) {
	s := start(t, trusting)
	now := time.Now().Unix()
	type m = map[string]any
	bob := func(t testing.TB, over m) string {
		all := m{"iss": partner, "sub": "bob", "exp": time.Now().Add(10 * time.Minute).Unix()}
		for name, v := range over {
			all[name] = v
		}
		return assertion(t, clientKey(), nil, s.url, all)
	}
	stranger, err := jose.GenerateKey("EdDSA", "signer-1")
	require.NoError(t, err)
	for _, c := range []struct {
		name      string
		assertion string
		code      string
	}{
		{"AS-JWT-01 none", "", "invalid_request"},
		{"AS-JWT-01 AS-JWT-06 no JWT", "x", "invalid_grant"},
		{"AS-JWT-01 two JWTs in one", bob(t, nil) + " " + bob(t, nil), "invalid_grant"},
		{"AS-JWT-01 no iss", bob(t, m{"iss": nil}), "invalid_grant"},
		{"AS-JWT-01 no sub", bob(t, m{"sub": nil}), "invalid_grant"},
		{"AS-JWT-01 no exp", bob(t, m{"exp": nil}), "invalid_grant"},
		{"AS-JWT-01 AS-JWT-02 no aud", bob(t, m{"aud": nil}), "invalid_grant"},
		{"AS-JWT-02 another aud", bob(t, m{"aud": "https://other.example.com"}), "invalid_grant"},
		{"AS-JWT-03 an expired one", bob(t, m{"exp": now - 60}), "invalid_grant"},
		{"one that is good for too long", bob(t, m{"exp": now + 7200}), "invalid_grant"},
		{"one that is not good yet", bob(t, m{"nbf": now + 600}), "invalid_grant"},
		{"one that was made in the future", bob(t, m{"iat": now + 600}), "invalid_grant"},
		{"AS-JWT-05 another key", assertion(t, stranger, nil, s.url, m{"iss": partner, "sub": "bob"}), "invalid_grant"},
		{"AS-JWT-05 a changed signature", bob(t, nil)[:100] + "A" + bob(t, nil)[101:], "invalid_grant"},
		{"AS-JWT-06 an untrusted issuer", bob(t, m{"iss": partner + "/"}), "invalid_grant"},
		{"a client's own assertion", assertion(t, clientKey(), nil, s.url, nil), "invalid_grant"},
		{"an access token", assertion(t, clientKey(), m{"typ": "at+jwt"}, s.url, m{"iss": partner, "sub": "bob"}), "invalid_grant"},
		{"one with details that a token would not have", bob(t, m{"authorization_details": []m{{"type": "payment"}}}), "invalid_authorization_details"},
		{"a claim that is malformed", assertion(t, clientKey(), nil, s.url, m{"iss": partner, "sub": "bob", "scope": 1}), "invalid_grant"},
		{"AS-JWT-12 a list of scopes that is null", bob(t, m{"scope": json.RawMessage("null")}), "invalid_grant"},
		{"details that are null", bob(t, m{"authorization_details": json.RawMessage("null")}), "invalid_grant"},
	} {
		t.Run(c.name, func(t *testing.T) {
			refused(t, s.post(t, "/oauth2/token", "bridge", granting(c.assertion)), 400, c.code)
		})
	}
	t.Run("AS-JWT-01 two", func(t *testing.T) {
		refused(t, s.post(t, "/oauth2/token", "bridge", granting(bob(t, nil), "assertion", bob(t, nil))), 400, "invalid_request")
	})
	t.Run("a client without the grant", func(t *testing.T) {
		refused(t, s.post(t, "/oauth2/token", "web", granting(bob(t, nil))), 400, "unauthorized_client")
	})
	t.Run("a client without its secret", func(t *testing.T) {
		refused(t, s.post(t, "/oauth2/token", "", granting(bob(t, nil), "client_id", "bridge")), 401, "invalid_client")
	})
	t.Run("a server without trusted issuers does not offer the grant", func(t *testing.T) {
		s := start(t)
		refused(t, s.post(t, "/oauth2/token", "web", granting(bob(t, nil))), 400, "unsupported_grant_type")
		assert.NotContains(t, s.Metadata().GrantTypes, assertionGrant)
	})
	t.Run("AS-JWT-01 a token for whom the assertion is about, and no refresh token", func(t *testing.T) {
		got := s.post(t, "/oauth2/token", "bridge", granting(bob(t, nil))).tokens(t)
		claims := part(t, got.access, 1)
		assert.Equal(t, "partner:bob", claims["sub"])
		assert.Equal(t, "bridge", claims["client_id"])
		assert.Equal(t, "orders:read orders:write", got.scope)
		assert.Empty(t, got.refresh)
		assert.True(t, s.active(t, got.access))
	})
	t.Run("AS-JWT-02 the token endpoint is a name of the server, also among others", func(t *testing.T) {
		a := bob(t, m{"aud": []string{"https://other.example.com", s.url + "/oauth2/token"}})
		assert.Equal(t, 200, s.post(t, "/oauth2/token", "bridge", granting(a)).status)
	})
	for name, id := range map[string]any{"with a jti": "once", "without a jti": nil} {
		t.Run("AS-JWT-04 an assertion is good once, "+name, func(t *testing.T) {
			a := bob(t, m{"jti": id})
			assert.Equal(t, 200, s.post(t, "/oauth2/token", "bridge", granting(a)).status)
			refused(t, s.post(t, "/oauth2/token", "bridge", granting(a)), 400, "invalid_grant")
		})
	}
	for _, c := range []struct {
		name          string
		claim         any
		asked, wanted string
	}{
		{"a part of what the issuer may give", nil, "orders:read", "orders:read"},
		{"all that the assertion names", "orders:read", "", "orders:read"},
		{"all that the assertion names, in an array", []string{"orders:write", "x"}, "", "orders:write"},
		{"more than the assertion names", "orders:read", "orders:read orders:write", ""},
		{"nothing that the assertion names", "", "", ""},
		{"more than the issuer may give", nil, "files:read", ""},
		{"more than the issuer may give, which the assertion names", "files:read", "files:read", ""},
		{"more than the client may have", "bank:pay", "bank:pay", ""},
	} {
		t.Run("AS-JWT-12 "+c.name, func(t *testing.T) {
			f := granting(bob(t, m{"scope": c.claim}))
			if c.asked != "" {
				f.Set("scope", c.asked)
			}
			a := s.post(t, "/oauth2/token", "bridge", f)
			if c.wanted == "" {
				refused(t, a, 400, "invalid_scope")
				return
			}
			assert.Equal(t, c.wanted, a.tokens(t).scope)
		})
	}
}

func TestAssertionGrantTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := inProcess(t, trusting)
		a := assertion(t, clientKey(), nil, h.url, map[string]any{"iss": partner, "sub": "bob", "exp": time.Now().Add(time.Hour).Unix()})
		ask := func() answer {
			return h.do(t, "POST", "/oauth2/token", granting(a, "client_id", "bridge", "client_secret", "secret-of-bridge"), "")
		}
		require.Equal(t, 200, ask().status)
		for range 61 { // AS-JWT-04: it is remembered for as long as it is good
			refused(t, ask(), 400, "invalid_grant")
			time.Sleep(time.Minute)
		}
	})
}

func TestKeysOfIssuers(t *testing.T) {
	var asked atomic.Int32
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		json.NewEncoder(w).Encode(map[string]any{"keys": []json.RawMessage{clientKey().PublicJWK()}})
	}))
	defer web.Close()
	s := start(t, trusting, func(c *config) { c.Issuers[0].JWKS, c.Issuers[0].JWKSURL = "", web.URL })
	for range 3 {
		a := assertion(t, clientKey(), nil, s.url, map[string]any{"iss": partner, "sub": "bob"})
		assert.Equal(t, 200, s.post(t, "/oauth2/token", "bridge", granting(a)).status)
	}
	assert.EqualValues(t, 1, asked.Load(), "the set is remembered")
}

func TestIssuerMistakes(t *testing.T) {
	s := build(t, "https://as.example.com")
	for _, c := range []struct {
		issuer model.TrustedIssuer
		want   []string
	}{
		{model.TrustedIssuer{}, []string{"Issuers[0]: ", "Issuer: ", "JWKS, JWKSURL: ", "SubjectType: ", "Scopes: "}},
		{model.TrustedIssuer{Issuer: "x", JWKS: "{}", SubjectType: "a:b", Scopes: []string{"x"}}, []string{"JWKS: ", "SubjectType: "}},
		{model.TrustedIssuer{Issuer: "x", JWKSURL: "http://x.example.com", SubjectType: "a", Scopes: []string{"x"}}, []string{"JWKSURL: not https"}},
	} {
		_, err := engine.New(engine.Config{
			Issuer: s.url, Store: s.store, Clients: s.registry, Keys: s.ring, Issuers: []model.TrustedIssuer{c.issuer},
			APIs: []model.API{{Audience: orders, Scopes: []model.Scope{{Name: "a"}}, Algorithm: "ES256"}},
		})
		for _, want := range c.want {
			assert.ErrorContains(t, err, want)
		}
	}
}

// draft-ietf-oauth-identity-assertion-authz-grant, section 4.4.1.
func TestIdentityAssertions(t *testing.T) {
	type m = map[string]any
	s := start(t, trusting, func(c *config) { c.Issuers[0].GrantProfile = model.IDJAG })
	header := m{"typ": "oauth-id-jag+jwt"}
	jag := func(t testing.TB, over m) string {
		all := m{"iss": partner, "sub": "bob", "client_id": "bridge", "scope": "orders:read chat.read", "exp": time.Now().Add(10 * time.Minute).Unix()}
		for name, v := range over {
			all[name] = v
		}
		return assertion(t, clientKey(), header, s.url, all)
	}
	now := time.Now().Unix()
	for _, c := range []struct {
		name      string
		assertion string
		code      string
	}{
		{"a JWT of another type", assertion(t, clientKey(), nil, s.url, m{"iss": partner, "sub": "bob", "client_id": "bridge"}), "invalid_grant"},
		{"one for another client", jag(t, m{"client_id": "web"}), "invalid_grant"},
		{"one for no client", jag(t, m{"client_id": nil}), "invalid_grant"},
		{"one without a jti", jag(t, m{"jti": nil}), "invalid_grant"},
		{"one without iat", jag(t, m{"iat": nil}), "invalid_grant"},
		{"one without exp", jag(t, m{"exp": nil}), "invalid_grant"},
		{"an expired one", jag(t, m{"exp": now - 60}), "invalid_grant"},
		{"one for another server", jag(t, m{"aud": "https://other.example.com"}), "invalid_grant"},
		{"one for the token endpoint instead of the issuer", jag(t, m{"aud": s.url + "/oauth2/token"}), "invalid_grant"},
		{"one for two servers", jag(t, m{"aud": []string{s.url, "https://other.example.com"}}), "invalid_grant"},
		{"one of an untrusted issuer", jag(t, m{"iss": "https://other.example.com"}), "invalid_grant"},
		{"one whose scopes are not known", jag(t, m{"scope": "chat.read"}), "invalid_scope"},
		{"one for another resource", jag(t, m{"resource": "https://other.example.com"}), "invalid_target"},
		{"one for two resources", jag(t, m{"resource": []string{orders, files}}), "invalid_target"},
		{"one that is bound to a key", jag(t, m{"cnf": m{"jkt": strings.Repeat("A", 43)}}), "invalid_grant"},
		{"one that is bound in an unknown way", jag(t, m{"cnf": m{"kid": "a"}}), "invalid_grant"},
		{"one with a binding that is null", jag(t, m{"cnf": json.RawMessage("null")}), "invalid_grant"},
		{"one for a resource that is null", jag(t, m{"resource": json.RawMessage("null")}), "invalid_grant"},
		{"one with a list of scopes that is null", jag(t, m{"scope": json.RawMessage("null")}), "invalid_grant"},
		{"one with a malformed binding", jag(t, m{"cnf": "a"}), "invalid_grant"},
		{"one with details that a token would not have", jag(t, m{"authorization_details": []m{{"type": "payment"}}}), "invalid_authorization_details"},
	} {
		t.Run(c.name, func(t *testing.T) {
			refused(t, s.post(t, "/oauth2/token", "bridge", granting(c.assertion)), 400, c.code)
		})
	}
	t.Run("a public client", func(t *testing.T) {
		refused(t, s.post(t, "/oauth2/token", "", granting(jag(t, m{"client_id": "open"}), "client_id", "open")), 400, "unauthorized_client")
	})
	t.Run("a resource that the assertion does not name", func(t *testing.T) {
		refused(t, s.post(t, "/oauth2/token", "bridge", granting(jag(t, m{"resource": orders}), "resource", files)), 400, "invalid_target")
	})
	t.Run("an identity assertion of an issuer of other JWTs", func(t *testing.T) {
		s := start(t, trusting)
		a := assertion(t, clientKey(), header, s.url, m{"iss": partner, "sub": "bob", "client_id": "bridge"})
		refused(t, s.post(t, "/oauth2/token", "bridge", granting(a)), 400, "invalid_grant")
		assert.Empty(t, s.Metadata().GrantProfiles)
	})
	t.Run("a token for the user, without a refresh token, as often as its client asks", func(t *testing.T) {
		a := jag(t, m{"resource": orders, "acr": "phr", "auth_time": now - 5})
		for range 2 { // section 4.4.3
			got := s.post(t, "/oauth2/token", "bridge", granting(a)).tokens(t)
			claims := part(t, got.access, 1)
			assert.Equal(t, "partner:bob", claims["sub"])
			assert.Equal(t, "bridge", claims["client_id"])
			assert.Equal(t, "phr", claims["acr"])
			assert.EqualValues(t, now-5, claims["auth_time"])
			assert.Equal(t, "orders:read", got.scope)
			assert.Empty(t, got.refresh)
		}
	})
	t.Run("the resource of the assertion decides, with or without the slash of an origin", func(t *testing.T) {
		a := jag(t, m{"resource": files + "/", "scope": nil})
		got := s.post(t, "/oauth2/token", "bridge", granting(a))
		refused(t, got, 400, "invalid_scope") // the issuer may give none of it
		a = jag(t, m{"resource": []string{orders, files}})
		assert.Equal(t, "orders:read", s.post(t, "/oauth2/token", "bridge", granting(a, "resource", orders)).tokens(t).scope)
	})
	t.Run("none that was issued before the access of its user was ended", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			h := inProcess(t, trusting, func(c *config) { c.Issuers[0].GrantProfile = model.IDJAG })
			made := func(user string) string {
				return assertion(t, clientKey(), header, h.url, m{"iss": partner, "sub": user, "client_id": "bridge", "exp": time.Now().Add(time.Hour).Unix()})
			}
			ask := func(a string) answer {
				return h.do(t, "POST", "/oauth2/token", granting(a, "client_id", "bridge", "client_secret", "secret-of-bridge"), "")
			}
			old, others := made("bob"), made("eve")
			require.Equal(t, 200, ask(old).status)
			_, err := h.RevokeGrants(t.Context(), "partner:bob", "")
			require.NoError(t, err)
			assert.Equal(t, 200, ask(others).status)
			refused(t, ask(made("bob")), 400, "invalid_grant") // in the same second
			for range 60 {
				refused(t, ask(old), 400, "invalid_grant")
				time.Sleep(time.Minute)
			}
			assert.Equal(t, 200, ask(made("bob")).status)
		})
	})
	t.Run("the metadata name the profile", func(t *testing.T) {
		assert.Equal(t, []string{"urn:ietf:params:oauth:grant-profile:id-jag"}, s.Metadata().GrantProfiles)
		assert.Contains(t, s.Metadata().GrantTypes, assertionGrant)
	})
}
