package issuers

import (
	"slices"
	"strings"

	"github.com/valetkey/valetkey/claims"
	"github.com/valetkey/valetkey/internal/mistakes"
	"github.com/valetkey/valetkey/jwks"
)

// selfHostedProducts are small servers that are usually run by those who use them.
var selfHostedProducts = []product{authelia, authentik, dex, hydra}

// Authelia returns the settings for the access tokens of Authelia. It needs Issuer (https://HOST) and Audience, which the client must be
// allowed to request (audience) and must request, unless its requested_audience_mode is implicit.
//
// The tokens are opaque unless the client has access_token_signed_response_alg; use package introspect for opaque ones. Those that are
// JWTs follow RFC 9068, with the scopes in the array scp. The sub of a machine's token is the ID of the client.
func Authelia(p Params) (jwks.Config, error) { return authelia.build(p) }

var authelia = product{
	name:  "authelia",
	needs: needsIssuer | needsAudience,
	config: func(_ Params, cfg *jwks.Config, _ *mistakes.List) {
		cfg.Profile.AllowScp = true
	},
}

// AuthentikIDTokens returns the settings for the access tokens of authentik, which cannot be distinguished from ID tokens by any standard
// claim; see jwks.Profile.AllowIDTokens. It needs Issuer (https://HOST/application/o/SLUG/) and Audience, the client ID of the
// application, or what a scope mapping writes into aud. In the second case, Clients is required too.
//
// authentik makes an access token of the ID token: it has the same aud, nonce and at_hash, no distinct typ and no jti. authentik adds
// azp and uid. Both are required, which excludes ID tokens unless a scope mapping writes these claims into them too. Choose a signing key
// in the provider: without one, authentik signs with the client's secret.
func AuthentikIDTokens(p Params) (jwks.Config, error) { return authentik.build(p) }

var authentik = product{
	name:  "authentik_id_tokens",
	needs: needsIssuer | needsAudience,
	config: func(_ Params, cfg *jwks.Config, _ *mistakes.List) {
		if strings.Contains(cfg.Issuer, "/application/o/") {
			cfg.Issuer = strings.TrimSuffix(cfg.Issuer, "/") + "/"
		}
		cfg.Profile = jwks.Profile{AllowUntyped: true, AllowMissingID: true, AllowIDTokens: true}
		cfg.Markers = []claims.Rule{claims.Present("azp"), claims.Present("uid")}
	},
}

// DexIDTokens returns the settings for the tokens of Dex, whose access tokens are ID tokens; see jwks.Profile.AllowIDTokens. It needs
// Issuer and Audience, the ID of the client that stands for this API.
//
// A client that the API's client lists in trustedPeers can request a token for the API, with the scope
// audience:server:client_id:AUDIENCE. List such clients in Clients. Nil: only the clients in Audience, each for itself. The tokens have no
// typ, no jti and no scopes: restrict users by Rules about groups or email. Refresh tokens are opaque.
func DexIDTokens(p Params) (jwks.Config, error) { return dex.build(p) }

var dex = product{
	name:  "dex_id_tokens",
	needs: needsIssuer | needsAudience,
	config: func(_ Params, cfg *jwks.Config, _ *mistakes.List) {
		cfg.Profile = jwks.Profile{AllowUntyped: true, AllowMissingID: true, AllowIDTokens: true}
	},
}

// OryHydra returns the settings for the access tokens of Ory Hydra and of Ory Network that are JWTs. It needs Issuer, exactly as
// urls.self.issuer (Hydra 1 adds a slash), and Audience or Clients.
//
// The tokens are opaque unless strategies.access_token is jwt; use [OryHydraIntrospection] for opaque ones. The aud is an empty list unless the
// client is allowed an audience and requests it. Without Audience, the client is the recipient: any API that receives a token of such a
// client could use it here.
//
// The tokens have the typ "JWT" and the scopes in the array scp, or in scope by configuration. ID tokens have neither, so tokens without
// scopes are refused. So are those of the JWT bearer grant (RFC 7523) of Hydra 1, whose client_id is empty.
func OryHydra(p Params) (jwks.Config, error) { return hydra.build(p) }

var hydra = product{
	name:  "ory_hydra",
	needs: needsIssuer,
	takes: needsAudience,
	config: func(p Params, cfg *jwks.Config, wrong *mistakes.List) {
		cfg.Profile = jwks.Profile{AllowUntyped: true, AllowScp: true}
		cfg.RequireScope = true
		if len(p.Audience) == 0 {
			cfg.Audience, cfg.AudienceClaim = slices.Clone(p.Clients), "client_id"
		}
		wrong.AddIf(len(p.Clients) == 0 && len(p.Audience) == 0, "Audience, Clients",
			"one of them is required: an audience that clients request, or the clients whose tokens are accepted")
	},
}
