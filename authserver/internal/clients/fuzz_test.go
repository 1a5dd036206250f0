package clients_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/authserver/internal/clients"
	"github.com/valetkey/valetkey/authserver/store"
)

// FuzzRegistration: a client that registers gets no privileges, nothing beyond what is offered, and only valid redirect URIs. The response,
// sent as an update, is accepted and changes nothing. A refusal has an error code of RFC 7591 and stores nothing. No log line contains a
// token or secret.
func FuzzRegistration(f *testing.F) {
	for _, seed := range []object{
		notes(), and(notes(), object{"scope": "notes.read openid", "grant_types": []string{"authorization_code", "refresh_token"}, "response_types": []string{"code"}}),
		{"redirect_uris": []string{"http://127.0.0.1/cb", "com.example.notes:/cb"}, "application_type": "native", "token_endpoint_auth_method": "none", "dpop_bound_access_tokens": true},
		{"redirect_uris": []string{"https://a.example/cb"}, "token_endpoint_auth_method": "private_key_jwt", "jwks_uri": "https://a.example/jwks", "token_endpoint_auth_signing_alg": "ES256"},
		{"redirect_uris": []string{"https://a.example/cb"}, "token_endpoint_auth_method": "private_key_jwt",
			"jwks": json.RawMessage(`{"keys":[{"kty":"OKP","crv":"Ed25519","x":"Gb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE"}]}`)},
		{"grant_types": []string{"urn:ietf:params:oauth:grant-type:device_code"}, "client_name": "Zoë\u202e"},
		{"redirect_uris": []string{"https://a.example/cb"}, "trusted": true, "introspects": []string{"x"}, "client_id": "shop", "software_statement": "a.b.c", "client_uri": "https://a.example",
			"backchannel_logout_uri": "https://a.example/out", "backchannel_logout_session_required": true},
	} {
		text, err := json.Marshal(seed)
		require.NoError(f, err)
		f.Add(text)
	}
	known := []string{"notes.read", "notes.write"}
	f.Fuzz(func(t *testing.T, body []byte) {
		var log bytes.Buffer
		records := store.NewMemory(0)
		registry := clients.NewRegistry(records, []clients.Client{{ID: "shop", AuthMethod: "none"}})
		h, err := clients.Registration(clients.RegistrationConfig{
			URL: endpoint, Issuer: "https://as.example.com", Registry: registry, Scopes: known,
			InitialTokens: []clients.InitialToken{{Name: "Example Ltd", Digest: store.Digest("partner-token")}}, Logger: slog.New(slog.NewTextHandler(&log, nil)),
		})
		require.NoError(t, err)
		ask := func(method, path, token string, body []byte) (int, object) {
			r := httptest.NewRequest(method, path, bytes.NewReader(body))
			r.Header.Set("Content-Type", "application/json")
			r.Header.Set("Authorization", "Bearer "+token)
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			var got object
			require.NoError(t, json.Unmarshal(w.Body.Bytes(), &got))
			return w.Code, got
		}
		status, got := ask("POST", "/oauth2/register", "partner-token", body)
		require.NotContains(t, log.String(), "partner-token")
		if status != http.StatusCreated {
			require.Equal(t, http.StatusBadRequest, status, got)
			require.Contains(t, []any{"invalid_client_metadata", "invalid_redirect_uri", "invalid_software_statement", "unapproved_software_statement"}, got["error"])
			found, err := records.Find(t.Context(), "client", store.Key{}, "", 1)
			require.NoError(t, err)
			require.Empty(t, found)
			return
		}
		id, _ := got["client_id"].(string)
		token, _ := got["registration_access_token"].(string)
		secret, hasSecret := got["client_secret"].(string)
		require.NotContains(t, log.String(), token)
		require.True(t, !hasSecret || secret != "" && !strings.Contains(log.String(), secret))
		c, err := registry.Get(t.Context(), id)
		require.NoError(t, err)
		require.NotEqual(t, "shop", c.ID)
		require.False(t, c.Trusted || c.WithoutPKCE || c.Introspects != nil || c.Owner != "" || c.DefaultAPI != "" || c.Lifetime != 0)
		require.Subset(t, known, c.Scopes)
		require.NotEmpty(t, c.Scopes)
		require.Subset(t, []string{"authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:device_code"}, c.GrantTypes)
		require.Contains(t, []string{"none", "client_secret_basic", "client_secret_post", "private_key_jwt"}, c.AuthMethod)
		require.Equal(t, hasSecret, strings.HasPrefix(c.AuthMethod, "client_secret_"))
		for _, uri := range c.RedirectURIs {
			require.NoError(t, clients.ValidRedirectURI(uri, c.Native))
		}

		again := maps.Clone(got)
		for _, name := range []string{"registration_access_token", "registration_client_uri", "client_secret_expires_at", "client_id_issued_at"} {
			delete(again, name)
		}
		text, err := json.Marshal(again)
		require.NoError(t, err)
		status, changed := ask("PUT", "/oauth2/register/"+id, token, text)
		require.Equal(t, http.StatusOK, status, changed)
		for _, o := range []object{got, changed} {
			delete(o, "client_secret")
			delete(o, "warnings")
		}
		require.Equal(t, got, changed)
	})
}
