package engine_test

import (
	"net/url"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/authserver/internal/clients"
	"github.com/valetkey/valetkey/authserver/store"
	"github.com/valetkey/valetkey/dpop"
	"github.com/valetkey/valetkey/valetkeytest"
)

// A proof is used up only by a request that gets a token for it.
func TestProofsAreUsedUpByGrants(t *testing.T) {
	s := start(t, trusting, proving(dpop.Config{}), func(c *config) {
		bridge := clients.Client{
			ID: "bridge", AuthMethod: "client_secret_basic", SecretDigest: []string{store.Digest("secret-of-bridge")},
			GrantTypes: []string{assertionGrant}, Scopes: []string{"orders:read"},
		}
		with(append(append(devices(), exchangers()...), bridge)...)(c)
	})
	key := valetkeytest.NewIssuer(t).ProofKey("ES256")
	deviceCode, userCode := s.begin(t)
	s.letIn(t, userCode)
	for _, c := range []struct {
		name, id string
		good     url.Values
		bad      url.Values // the same with something made up
		code     string     // of the refusal of bad
	}{
		{"a code", "web", redemption(s.code(t)), redemption(madeUp), "invalid_grant"},
		{"a refresh token", "web", form("grant_type", "refresh_token", "refresh_token", s.login(t).refresh), form("grant_type", "refresh_token", "refresh_token", madeUp), "invalid_grant"},
		{"a device code", "", poll(deviceCode), poll(madeUp), "invalid_grant"},
		{"an exchange", "orders-svc", exchange(s.login(t).access), exchange(madeUp), "invalid_request"},
		{"client credentials", "service", bare, form("grant_type", "client_credentials", "scope", "made:up"), "invalid_scope"},
		{"an assertion", "bridge", granting(assertion(t, clientKey(), nil, s.url, map[string]any{"iss": partner, "sub": "bob"})),
			granting(assertion(t, clientKey(), nil, s.url, map[string]any{"iss": "https://nobody.example.com", "sub": "bob"})), "invalid_grant"},
	} {
		t.Run(c.name, func(t *testing.T) {
			used, fresh := s.proof(key), s.proof(key)
			require.Equal(t, 200, s.send(t, "/oauth2/token", "service", bare, used).status)
			refused(t, s.send(t, "/oauth2/token", c.id, c.good, used), 400, "invalid_dpop_proof")
			for range 2 {
				refused(t, s.send(t, "/oauth2/token", c.id, c.bad, fresh), 400, c.code)
			}
			a := s.send(t, "/oauth2/token", c.id, c.good, fresh)
			assert.Equal(t, key.Thumbprint(), boundTo(t, a.tokens(t).access), "neither the grant nor the proof was used up")
			refused(t, s.send(t, "/oauth2/token", "service", bare, fresh), 400, "invalid_dpop_proof")
		})
	}
}

// madeUp has the form of a code, a refresh token and a device code.
const madeUp = "ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFGHIJKLMNOPQRSTUVWXYZ"
