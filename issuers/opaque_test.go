package issuers_test

import (
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/claims"
	"github.com/valetkey/valetkey/introspect"
	"github.com/valetkey/valetkey/issuers"
	"github.com/valetkey/valetkey/valetkeytest"
)

// A response is the answer of a product's introspection endpoint about one kind of access token, with the responses that are nearly like it.
type response struct {
	of, kind string
	params   issuers.Params
	change   func(*introspect.Config) // of the settings, where the documentation asks for it; nil: none

	metadata string // URL of the metadata; "": the endpoint is not discovered
	endpoint string // URL
	jwt      bool   // the token is a JWT
	says     string // a JSON object; $IAT and $EXP are dates

	subject, client string
	scopes          []string

	relatives []saying
}

// A saying is a response that differs from that about an access token in what is listed and must be refused.
type saying struct {
	name    string
	changes object // nil removes
	want    valetkey.Reason
}

var responses = []response{
	{
		of: "keycloak", kind: "a lightweight token",
		params:   issuers.Params{Issuer: "https://sso.example.com/realms/shop", Audience: []string{"orders-api"}},
		metadata: "https://sso.example.com/realms/shop/.well-known/openid-configuration",
		endpoint: "https://sso.example.com/realms/shop/protocol/openid-connect/token/introspect",
		jwt:      true,
		says: `{"exp":$EXP,"iat":$IAT,"auth_time":$IAT,"jti":"onltac:a632c1d8-4ad5-9e3f-0b7d-61e2a9a1c0f4","iss":"https://sso.example.com/realms/shop",
			"aud":["orders-api","account"],"sub":"a5461470-33eb-4b2d-82d4-b0484e96ad7f","typ":"Bearer","azp":"shop-web","sid":"96030af2-1e48-4243-ba0b-dd4980c6e8fd",
			"acr":"1","allowed-origins":["https://shop.example.com"],"realm_access":{"roles":["offline_access"]},"scope":"openid orders:read",
			"email_verified":true,"preferred_username":"ada","client_id":"shop-web","username":"ada","token_type":"Bearer","active":true}`,
		subject: "a5461470-33eb-4b2d-82d4-b0484e96ad7f", client: "shop-web", scopes: []string{"openid", "orders:read"},
		relatives: []saying{
			{"a refresh token", object{"typ": "Refresh", "token_type": nil}, valetkey.ReasonNotAccessToken},
			{"an offline token", object{"typ": "Offline", "token_type": nil}, valetkey.ReasonNotAccessToken},
			{"an ID token", object{"typ": "ID", "token_type": nil}, valetkey.ReasonNotAccessToken},
			{"a token for account only", object{"aud": "account"}, valetkey.ReasonAudience},
		},
	},
	{
		of: "zitadel", kind: "a user's token",
		params:   issuers.Params{Issuer: "https://example-w4a8z2.us1.zitadel.cloud", Audience: []string{"231402830936789415"}},
		metadata: "https://example-w4a8z2.us1.zitadel.cloud/.well-known/openid-configuration",
		endpoint: "https://example-w4a8z2.us1.zitadel.cloud/oauth/v2/introspect",
		says: `{"active":true,"scope":"openid profile urn:zitadel:iam:org:project:id:231402830936789415:aud","client_id":"231403001234567890@shop","token_type":"Bearer",
			"exp":$EXP,"iat":$IAT,"auth_time":$IAT,"nbf":$IAT,"sub":"231402555555555555","aud":["231403001234567890@shop","231402830936789415"],
			"iss":"https://example-w4a8z2.us1.zitadel.cloud","jti":"231404999999999999","username":"ada@example.com","name":"Ada","locale":null,"updated_at":$IAT}`,
		subject: "231402555555555555", client: "231403001234567890@shop",
		scopes: []string{"openid", "profile", "urn:zitadel:iam:org:project:id:231402830936789415:aud"},
		relatives: []saying{
			{"a personal access token without an expiration date", object{"exp": 253402300799}, valetkey.ReasonFarDate},
			{"a token for another project", object{"aud": []string{"231403001234567890@shop", "231402830936780000"}}, valetkey.ReasonAudience},
		},
	},
	{
		of: "ory_hydra", kind: "a user's token",
		params:   issuers.Params{Issuer: "https://hydra.example.com", Audience: []string{"https://api.example.com"}},
		change:   func(c *introspect.Config) { c.URL = "https://hydra-admin.example.com/admin/oauth2/introspect" },
		endpoint: "https://hydra-admin.example.com/admin/oauth2/introspect",
		says: `{"active":true,"scope":"orders:read offline","client_id":"5cf6b3f8-4c80-4f29-a3a4-1dba7d7c0c3c","sub":"ada","exp":$EXP,"iat":$IAT,"nbf":$IAT,
			"aud":["https://api.example.com"],"iss":"https://hydra.example.com","token_type":"Bearer","token_use":"access_token","ext":{"tier":"gold"}}`,
		subject: "ada", client: "5cf6b3f8-4c80-4f29-a3a4-1dba7d7c0c3c", scopes: []string{"offline", "orders:read"},
		relatives: []saying{
			{"a refresh token", object{"token_use": "refresh_token"}, valetkey.ReasonNotAccessToken},
			{"a refresh token of Hydra 1", object{"token_use": nil, "token_type": "refresh_token"}, valetkey.ReasonUnknownTokenType},
			{"a token whose client requested no audience", object{"aud": []string{}}, valetkey.ReasonNoAudience},
		},
	},
	{
		of: "duende", kind: "a client's token",
		params:   issuers.Params{Issuer: "https://identity.example.com", Audience: []string{"orders"}},
		metadata: "https://identity.example.com/.well-known/openid-configuration",
		endpoint: "https://identity.example.com/connect/introspect",
		says: `{"iss":"https://identity.example.com","nbf":$IAT,"iat":$IAT,"exp":$EXP,"aud":"orders","client_id":"worker","jti":"44FD2DE9E9F8E9F4DDD141CD7C244BE9",
			"scope":"orders.read","token_type":"access_token","active":true}`,
		client: "worker", scopes: []string{"orders.read"},
		relatives: []saying{
			{"a refresh token", object{"token_type": "refresh_token"}, valetkey.ReasonUnknownTokenType},
			{"a token with EmitStaticAudienceClaim for no resource", object{"aud": "https://identity.example.com/resources"}, valetkey.ReasonAudience},
		},
	},
	{
		of: "spring_authorization_server", kind: "a token with the API's name",
		params:   issuers.Params{Issuer: "https://identity.example.com", Audience: []string{"https://api.example.com"}},
		metadata: "https://identity.example.com/.well-known/oauth-authorization-server",
		endpoint: "https://identity.example.com/oauth2/introspect",
		says: `{"active":true,"sub":"ada","aud":["https://api.example.com"],"nbf":$IAT,"scope":"orders.read","iss":"https://identity.example.com","exp":$EXP,"iat":$IAT,
			"jti":"2f0f5ae2-1fcc-4b5e-8b1e-6a9b5a1f2c11","client_id":"shop-web","token_type":"Bearer"}`,
		subject: "ada", client: "shop-web", scopes: []string{"orders.read"},
		relatives: []saying{
			{"a refresh token", object{"sub": nil, "aud": nil, "nbf": nil, "scope": nil, "iss": nil, "jti": nil, "token_type": nil}, valetkey.ReasonNoAudience},
			{"a token without a customizer", object{"aud": []string{"shop-web"}}, valetkey.ReasonAudience},
		},
	},
	{
		of: "cloud_foundry_uaa", kind: "a user's token",
		params:   issuers.Params{Issuer: "https://uaa.example.com", Audience: []string{"orders"}},
		endpoint: "https://uaa.example.com/introspect",
		says: `{"user_id":"5f2d1f4e-7c5d-4d4c-9d6b-0e9c3a6b7f10","user_name":"ada","email":"ada@example.com","client_id":"shop","exp":$EXP,"scope":["orders.read","openid"],
			"jti":"a1f1c5f0b6e24b7a8d0c9b7e3f2d1c40","aud":["shop","orders","openid"],"sub":"5f2d1f4e-7c5d-4d4c-9d6b-0e9c3a6b7f10",
			"iss":"https://uaa.example.com/oauth/token","iat":$IAT,"cid":"shop","grant_type":"password","azp":"shop","auth_time":$IAT,"zid":"uaa","rev_sig":"d57b0b9",
			"origin":"uaa","revocable":true,"active":true}`,
		subject: "5f2d1f4e-7c5d-4d4c-9d6b-0e9c3a6b7f10", client: "shop", scopes: []string{"openid", "orders.read"},
		relatives: []saying{
			{"a token for other resources", object{"aud": []string{"shop", "openid"}}, valetkey.ReasonAudience},
		},
	},
}

// TestIntrospectionShapes introspects tokens of each product at an endpoint that responds as the product does.
func TestIntrospectionShapes(t *testing.T) {
	var of []string
	for _, r := range responses {
		of = append(of, r.of)
		t.Run(r.of+" "+r.kind, func(t *testing.T) {
			for _, s := range append([]saying{
				{"an inactive token", object{"active": false}, valetkey.ReasonInactive},
				{"a token for another API", object{"aud": "https://other.example.com"}, valetkey.ReasonAudience},
				{"a token without aud", object{"aud": nil}, valetkey.ReasonNoAudience},
				{"a token of another issuer", object{"iss": "https://as.example.net"}, valetkey.ReasonIssuer},
				{"a refresh token by its type", object{"token_type": "refresh_token"}, valetkey.ReasonUnknownTokenType},
			}, r.relatives...) {
				t.Run(s.name+" is refused", func(t *testing.T) {
					token, asked, err := r.introspect(t, r.params.Issuer, s.changes)
					refusal, ok := errors.AsType[*valetkey.Error](err)
					require.True(t, ok, "%v, %v", err, token)
					assert.Equal(t, s.want, refusal.Reason, "%v", err)
					assert.Equal(t, 1, asked)
				})
			}
			t.Run("a JWT of another issuer is refused without a request", func(t *testing.T) {
				r := r
				r.jwt = true
				_, asked, err := r.introspect(t, "https://as.example.net", nil)
				assert.ErrorIs(t, err, valetkey.ErrNotApplicable)
				assert.Zero(t, asked)
			})
			t.Run("accepted", func(t *testing.T) {
				token, asked, err := r.introspect(t, r.params.Issuer, nil)
				require.NoError(t, err)
				assert.Equal(t, 1, asked)
				assert.Equal(t, r.subject, token.Subject())
				assert.Equal(t, r.client, token.ClientID())
				assert.Equal(t, valetkey.NewScopes(r.scopes...), token.Scopes())
				assert.Equal(t, r.params.Audience, slices.DeleteFunc(token.Audience().Slice(), func(a string) bool { return !slices.Contains(r.params.Audience, a) }))
			})
		})
	}
	slices.Sort(of)
	assert.Equal(t, of, issuers.IntrospectionNames(), "each product has shapes")
}

// introspect verifies a token about which the product answers as about r, with the changes. A JWT names the issuer iss. asked is the
// number of requests to the endpoint.
func (r response) introspect(t *testing.T, iss string, changes object) (token *valetkey.Token, asked int, err error) {
	t.Helper()
	product := valetkeytest.NewIssuer(t)
	now := product.Now()
	dates := strings.NewReplacer("$IAT", strconv.FormatInt(now.Unix(), 10), "$EXP", strconv.FormatInt(now.Add(time.Hour).Unix(), 10))
	said := object{}
	require.NoError(t, json.Unmarshal([]byte(dates.Replace(r.says)), &said))
	maps.Copy(said, changes)
	maps.DeleteFunc(said, func(_ string, v any) bool { return v == nil })
	body, err := json.Marshal(said)
	require.NoError(t, err)
	product.Introspection.Answer(string(body))

	cfg, err := issuers.NamedIntrospection(r.of, r.params)
	require.NoError(t, err)
	if r.change != nil {
		r.change(&cfg)
	}
	cfg.Auth = introspect.BasicAuth(valetkeytest.IntrospectionID, valetkeytest.IntrospectionSecret)
	cfg.Now = product.Now
	cfg.Client = &http.Client{Transport: roundTripper(func(req *http.Request) (*http.Response, error) {
		switch req.URL.String() {
		case r.endpoint:
			req = req.Clone(req.Context())
			req.URL, err = url.Parse(product.Introspection.URL)
			require.NoError(t, err)
			req.Host = ""
			return product.Client().Transport.RoundTrip(req)
		case r.metadata:
			res := httptest.NewRecorder()
			res.Header().Set("Content-Type", "application/json")
			assert.NoError(t, json.NewEncoder(res).Encode(object{"issuer": r.params.Issuer, "introspection_endpoint": r.endpoint}))
			return res.Result(), nil
		}
		res := httptest.NewRecorder()
		res.WriteHeader(http.StatusNotFound)
		return res.Result(), nil
	})}
	tokens, err := introspect.New(cfg)
	require.NoError(t, err)
	defer tokens.Close()
	raw := "VjVxyCZmRmWYqd3_F5db9Pb9mHR5fqzhn"
	if r.jwt {
		raw = product.Token(valetkeytest.Claim("iss", iss))
	}
	token, err = tokens.Verify(t.Context(), raw)
	return token, product.Introspection.Hits(), err
}

func TestConstructorsOfIntrospection(t *testing.T) {
	api := []string{"https://api.example.com"}
	for _, c := range []struct {
		name   string
		build  func(issuers.Params) (introspect.Config, error)
		params issuers.Params
		wrong  []string // fields
	}{
		{"nothing is given", issuers.ZitadelIntrospection, issuers.Params{}, []string{"Issuer", "Audience"}},
		{"an audience is empty", issuers.OryHydraIntrospection, issuers.Params{Issuer: "https://as.example.com", Audience: []string{""}}, []string{"Audience[0]"}},
		{"parameters that introspection cannot check", issuers.ZitadelIntrospection, issuers.Params{
			Issuer: "https://as.example.com", Audience: api, Tenants: []string{"t"}, Clients: []string{"c"}, Rules: []claims.Rule{claims.Present("x")},
		}, []string{"Tenants", "Clients", "Rules"}},
		{"the audience of every token of a realm", issuers.KeycloakIntrospection,
			issuers.Params{Issuer: "https://sso.example.com/realms/shop", Audience: []string{"account"}}, []string{"Audience"}},
		{"the audience of every token of a server", issuers.DuendeIntrospection,
			issuers.Params{Issuer: "https://as.example.com", Audience: []string{"https://as.example.com/resources"}}, []string{"Audience"}},
		{"the audience of every token with a scope", issuers.CloudFoundryUAAIntrospection,
			issuers.Params{Issuer: "https://uaa.example.com", Audience: []string{"openid"}}, []string{"Audience"}},
		{"a customizer writes the name of the API", issuers.SpringAuthorizationServerIntrospection, issuers.Params{Issuer: "https://as.example.com", Audience: api}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg, err := c.build(c.params)
			var fields []string
			for _, m := range valetkey.ConfigErrors(err) {
				fields = append(fields, m.Field)
			}
			assert.Equal(t, c.wrong, fields)
			assert.Equal(t, c.wrong == nil, cfg.Issuer != "")
			assert.False(t, cfg.AudienceByIssuer)
		})
	}
	t.Run("an unknown name is refused", func(t *testing.T) {
		_, err := issuers.NamedIntrospection("auth0", issuers.Params{Issuer: "https://as.example.com", Audience: api})
		assert.ErrorContains(t, err, `"auth0" is not one of ["cloud_foundry_uaa"`)
	})
	t.Run("each name is that of the product's JWTs", func(t *testing.T) {
		for _, name := range issuers.IntrospectionNames() {
			assert.Contains(t, issuers.Names(), name)
		}
	})
}
