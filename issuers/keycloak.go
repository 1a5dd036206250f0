package issuers

import (
	"slices"

	"github.com/valetkey/valetkey/claims"
	"github.com/valetkey/valetkey/internal/mistakes"
	"github.com/valetkey/valetkey/jwks"
)

// Keycloak returns the settings for the access tokens of a Keycloak realm. It needs Issuer (https://HOST/realms/REALM) and Audience.
//
// The tokens have the typ "JWT" and state their kind in the claim typ, which must be Bearer or DPoP. The client is in azp.
//
// Without an audience mapper, the aud of every token in the realm is "account". To accept it nevertheless, list it in Audience, and
// the clients in Clients, which is then required. If the realm has several host names, add the others to IssuerAliases. To use realm
// roles as scopes, add "realm_access.roles" to Scopes, for the roles of a client "resource_access.CLIENT.roles".
func Keycloak(p Params) (jwks.Config, error) { return keycloak.build(p) }

var keycloak = product{
	name:  "keycloak",
	needs: needsIssuer | needsAudience,
	config: func(p Params, cfg *jwks.Config, wrong *mistakes.List) {
		keycloakMarks(cfg)
		wrong.AddIf(slices.Contains(p.Audience, "account") && len(p.Clients) == 0, "Clients",
			`required with the audience "account", which every token of the realm has`)
	},
}

// KeycloakLightweight returns the settings for the lightweight access tokens of Keycloak, which have neither aud nor, by default, sub.
// It needs Issuer and Clients: a token is accepted by its client alone. Prefer [Keycloak] with an audience mapper that has "Add to
// lightweight access token" switched on, or [KeycloakIntrospection].
func KeycloakLightweight(p Params) (jwks.Config, error) { return keycloakLightweight.build(p) }

var keycloakLightweight = product{
	name:  "keycloak_lightweight",
	needs: needsIssuer | needsClients,
	config: func(p Params, cfg *jwks.Config, _ *mistakes.List) {
		keycloakMarks(cfg)
		cfg.Profile.AllowMissingSubject = true
		cfg.Audience, cfg.AudienceClaim = p.Clients, "azp"
	},
}

func keycloakMarks(cfg *jwks.Config) {
	cfg.Profile.AllowUntyped = true
	cfg.ClientIDClaim = "azp" // client_id can be the work of a mapper
	cfg.Markers = []claims.Rule{claims.OneOf("typ", "Bearer", "DPoP")}
}
