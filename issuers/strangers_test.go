package issuers_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/valetkey/valetkey/issuers"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/valetkeytest"
)

// sameIssuer lists, by product, the products whose tokens its settings accept as well. They have the same issuer: the settings of one
// include those of the other, or differ in whose tokens they accept.
var sameIssuer = map[string][]string{
	"auth0":                 {"auth0_rfc9068"},
	"entra_id":              {"entra_id_any_tenant"},
	"entra_id_any_tenant":   {"entra_id"},
	"identityserver_legacy": {"duende"},
}

// TestTokensOfAnotherProduct verifies every shape with the settings of every other product. All products have the same keys here.
func TestTokensOfAnotherProduct(t *testing.T) {
	iss := valetkeytest.NewIssuer(t, valetkeytest.SignWith("RS256", "ES256", "ES384", "EdDSA"))
	tokens := make([]string, len(shapes))
	for i, s := range shapes {
		tokens[i] = s.mint(t, iss, nil, nil)
	}
	accepted := make(map[string][]string)
	for _, settings := range shapes {
		v := settings.open(t, iss)
		for i, s := range shapes {
			if s.of == settings.of {
				continue
			}
			if _, err := v.Verify(t.Context(), tokens[i]); err == nil && !slices.Contains(accepted[settings.of], s.of) {
				accepted[settings.of] = append(accepted[settings.of], s.of)
			}
		}
	}
	assert.Equal(t, sameIssuer, accepted, "tokens of another product, by the product whose settings accept them")
}

// byAudience lists the products whose access tokens differ from a bare ID token in their aud alone, with the reason why this is enough.
var byAudience = map[string]string{
	"auth0":      "ID tokens have the ID of a client as their aud, never the identifier of an API; access tokens without permissions have no scope",
	"google_iap": "the issuer signs assertions for APIs only",
	"spiffe":     "a trust domain signs JWT-SVIDs only, and the sub of each is a workload, in the trust domain",
}

// TestBareIDTokens verifies ID tokens with the settings of every shape: of the same issuer, signed with its keys, with the claims that
// the rules of the settings ask for, and without nonce and hashes. Settings that accept them must have Profile.AllowIDTokens.
func TestBareIDTokens(t *testing.T) {
	iss := valetkeytest.NewIssuer(t, valetkeytest.SignWith("RS256", "ES256", "ES384", "EdDSA"))
	accepted := make(map[string]bool)
	for _, s := range shapes {
		t.Run(s.of+" "+s.kind, func(t *testing.T) {
			cfg, v := s.config(t), s.open(t, iss)
			if cfg.Profile.AllowIDTokens || s.isForAnyone() {
				return // ID tokens are accepted; or the issuer signs for anyone, and the settings need a rule about whose
			}
			header := object{"typ": "JWT"}
			for _, name := range []string{cfg.AudienceHeader, cfg.ClientIDHeader} { // which no ID token has
				if name != "" {
					header[name] = nil
				}
			}
			names := slices.Concat(cfg.Audience, cfg.Clients, []string{s.client, "web"})
			slices.Sort(names)
			for _, aud := range slices.Compact(names) {
				for name, client := range map[string]object{
					"no client":                      nil,
					"the client in azp":              {"azp": aud},
					"the client in azp, client_id":   {"azp": aud, "client_id": aud},
					"the client of the access token": {"azp": s.client, "client_id": s.client},
				} {
					changes := s.bare(t, cfg)
					changes["aud"] = aud
					maps.Copy(changes, client)
					_, err := v.Verify(t.Context(), s.mint(t, iss, header, changes))
					if err == nil && byAudience[s.of] != "" && slices.Contains(s.params.Audience, aud) {
						accepted[s.of] = true
						continue
					}
					assert.Error(t, err, "aud %q, and %s", aud, name)
				}
			}
		})
	}
	for product := range byAudience {
		assert.True(t, accepted[product], "%s refuses bare ID tokens, so byAudience need not list it", product)
	}
}

// isForAnyone reports whether the product of s needs a rule about whose tokens are accepted.
func (s shape) isForAnyone() bool {
	p := s.params
	p.Rules = nil
	_, err := issuers.Named(s.of, p)
	return strings.Contains(fmt.Sprint(err), "issues tokens to anyone")
}

// bare returns the changes that make the claims of s those of an ID token, except for its aud.
func (s shape) bare(t *testing.T, cfg jwks.Config) object {
	changes := make(object)
	for name := range s.payload(t) {
		changes[name] = nil
	}
	for _, name := range []string{"iss", "sub", "exp", "iat"} {
		delete(changes, name)
	}
	for _, r := range cfg.Rules {
		delete(changes, r.Claim())
	}
	changes["auth_time"], changes["jti"], changes["sid"] = start.Unix(), "j", "s"
	changes["email"], changes["email_verified"] = "alice@example.com", true
	return changes
}
