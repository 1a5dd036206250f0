package issuers_test

import (
	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/issuers"
)

const pool = "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_AbCdEf123"

var cognitoShapes = []shape{
	{
		of: "cognito", kind: "a user's token",
		params:   issuers.Params{Issuer: pool, Clients: []string{"7abc"}},
		metadata: pool + "/.well-known/openid-configuration", keySet: pool + "/.well-known/jwks.json",
		claims: `{"sub":"a1b2","cognito:groups":["admins"],"iss":"` + pool + `","version":2,"client_id":"7abc","origin_jti":"o","event_id":"e",
			"token_use":"access","scope":"openid orders/read","auth_time":$IAT,"exp":$EXP,"iat":$IAT,"jti":"j","username":"alice"}`,
		subject: "a1b2", client: "7abc", scopes: []string{"openid", "orders/read"},
		relatives: []relative{
			{"an ID token", nil, object{"client_id": nil, "scope": nil, "aud": "7abc", "token_use": "id", "at_hash": "h"}, valetkey.ReasonNotAccessToken},
			{"a token of another app client", nil, object{"client_id": "8def"}, valetkey.ReasonAudience},
			{"a token of another pool", nil, object{"iss": "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_Other"}, valetkey.ReasonIssuer},
			{"a token without token_use", nil, object{"token_use": nil}, valetkey.ReasonNotAccessToken},
		},
	},
	{
		of: "cognito", kind: "a machine's token for a resource",
		params:   issuers.Params{Issuer: pool, Audience: []string{ordersAPI}, Clients: []string{"9ghi"}},
		metadata: pool + "/.well-known/openid-configuration", keySet: pool + "/.well-known/jwks.json",
		claims: `{"sub":"9ghi","token_use":"access","scope":"orders/read","auth_time":$IAT,"iss":"` + pool + `","exp":$EXP,"iat":$IAT,"version":2,
			"jti":"j","client_id":"9ghi","aud":"` + ordersAPI + `"}`,
		subject: "9ghi", client: "9ghi", scopes: []string{"orders/read"},
		relatives: []relative{
			{"a token of another app client", nil, object{"client_id": "8def"}, valetkey.ReasonClient},
			{"an ID token", nil, object{"token_use": "id"}, valetkey.ReasonNotAccessToken},
		},
	},
}
