package issuers_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/claims"
	"github.com/valetkey/valetkey/issuers"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/valetkeytest"
)

// TestAnIssuerForTestsSignsTokensOfProducts does what the documentation of package valetkeytest proposes to users.
func TestAnIssuerForTestsSignsTokensOfProducts(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	rules := []claims.Rule{claims.Equal("repository_id", "701234567")}
	for name, c := range map[string]struct {
		cfg  func() (jwks.Config, error)
		good []valetkeytest.Option
		bad  valetkeytest.Option
	}{
		"Keycloak": {
			func() (jwks.Config, error) {
				return issuers.Keycloak(issuers.Params{Issuer: iss.URL, Audience: []string{valetkeytest.DefaultAudience}})
			},
			[]valetkeytest.Option{valetkeytest.Type("JWT"), valetkeytest.Claim("client_id", nil), valetkeytest.Claim("azp", "spa"), valetkeytest.Claim("typ", "Bearer")},
			valetkeytest.Claim("typ", "ID"),
		},
		"Cognito": {
			func() (jwks.Config, error) {
				return issuers.Cognito(issuers.Params{Issuer: iss.URL, Clients: []string{valetkeytest.DefaultClientID}})
			},
			[]valetkeytest.Option{valetkeytest.Header("typ", nil), valetkeytest.Claim("aud", nil), valetkeytest.Claim("token_use", "access")},
			valetkeytest.ClientID("another"),
		},
		"GitHub Actions": {
			func() (jwks.Config, error) {
				return issuers.GitHubActions(issuers.Params{Issuer: "https://token.actions.githubusercontent.com", Audience: []string{valetkeytest.DefaultAudience}, Rules: rules})
			},
			[]valetkeytest.Option{valetkeytest.Type("JWT"), valetkeytest.Claim("client_id", nil), valetkeytest.Claim("repository_id", "701234567")},
			valetkeytest.Claim("repository_id", "701234568"),
		},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, err := c.cfg()
			require.NoError(t, err)
			cfg.Issuer, cfg.JWKSURL, cfg.Client, cfg.Now = iss.URL, iss.KeySet.URL, iss.Client(), iss.Now
			keys, err := jwks.New(cfg)
			require.NoError(t, err)
			defer keys.Close()
			_, err = keys.Verify(t.Context(), iss.Token(append(c.good[:len(c.good):len(c.good)], c.bad)...))
			assert.Error(t, err)
			_, err = keys.Verify(t.Context(), iss.Token(c.good...))
			assert.NoError(t, err)
		})
	}
}
