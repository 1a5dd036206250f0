package issuers

import (
	"slices"

	"github.com/valetkey/valetkey/claims"
	"github.com/valetkey/valetkey/internal/mistakes"
	"github.com/valetkey/valetkey/jwks"
)

// Cognito returns the settings for the access tokens of an Amazon Cognito user pool, of users and of machines. It needs Issuer
// (https://cognito-idp.REGION.amazonaws.com/POOL) and Clients, the IDs of the app clients.
//
// The tokens have no typ, and no aud unless the client requested one with resource. Without it, the client is the recipient: any API
// that receives a token of such a client could use it here. Audience, the resource indicator of this API, is optional. The claim
// token_use must be access.
func Cognito(p Params) (jwks.Config, error) { return cognito.build(p) }

var cognito = product{
	name:  "cognito",
	needs: needsIssuer | needsClients,
	takes: needsAudience,
	config: func(p Params, cfg *jwks.Config, _ *mistakes.List) {
		cfg.Profile.AllowUntyped = true
		cfg.Markers = []claims.Rule{claims.Equal("token_use", "access")}
		cfg.Audience, cfg.AudienceClaim = slices.Concat(p.Audience, p.Clients), "client_id"
	},
}
