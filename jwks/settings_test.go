package jwks_test

import (
	"bytes"
	"encoding/json"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/claims"
	"github.com/valetkey/valetkey/jwks"
)

const tenants = "https://login.example/{tid}/v2.0"

// strangers are tokens that deviate from RFC 9068, each in one respect.
var strangers = map[string]struct{ header, claims object }{
	"no typ":                         {object{"typ": nil}, nil},
	"typ JOSE":                       {object{"typ": "JOSE"}, nil},
	"typ vendor+jwt":                 {object{"typ": "vendor+jwt"}, nil},
	"no kid":                         {object{"kid": nil}, nil},
	"a kid that no key has":          {object{"kid": "other"}, nil},
	"an empty kid":                   {object{"kid": ""}, nil},
	"no iss":                         {nil, object{"iss": nil}},
	"another host of the issuer":     {nil, object{"iss": "https://back.example"}},
	"a stranger's iss":               {nil, object{"iss": "https://evil.example"}},
	"a tenant's iss":                 {nil, object{"iss": "https://login.example/t1/v2.0", "tid": "t1"}},
	"another tenant's iss":           {nil, object{"iss": "https://login.example/t2/v2.0", "tid": "t2"}},
	"no sub":                         {nil, object{"sub": nil}},
	"a number as sub":                {nil, object{"sub": 4711}},
	"no client_id":                   {nil, object{"client_id": nil}},
	"the client in vendor_client":    {nil, object{"client_id": nil, "vendor_client": "shop"}},
	"the client in the header":       {object{"client": "shop"}, object{"client_id": nil}},
	"the API in the header":          {object{"signer": api}, object{"aud": nil}},
	"the API in the header alone":    {object{"signer": api}, object{"aud": "https://other.example"}},
	"another API in the header":      {object{"signer": "https://other.example"}, object{"aud": nil}},
	"no jti":                         {nil, object{"jti": nil}},
	"no iat":                         {nil, object{"iat": nil}},
	"an array as scope":              {nil, object{"scope": []string{"orders:read"}}},
	"no aud":                         {nil, object{"aud": nil, "client_id": api}},
	"an empty aud":                   {nil, object{"aud": []string{}, "client_id": api}},
	"no aud, and another client":     {nil, object{"aud": nil}},
	"no aud, and a claim of no name": {nil, object{"aud": nil, "": api}},
	"another aud":                    {nil, object{"aud": "https://other.example", "client_id": api}},
	"an ID token by its nonce":       {object{"typ": "JWT"}, object{"nonce": "n"}},
	"an ID token by token_use":       {object{"typ": "JWT"}, object{"token_use": "id"}},
	"a refresh token by typ":         {object{"typ": "JWT"}, object{"typ": "Refresh"}},
	"a refresh token by tokenName":   {object{"typ": "JWT"}, object{"tokenName": "refresh_token"}},
	"a refresh token by purpose":     {object{"typ": "JWT"}, object{"purpose": "refresh_token"}},
	"a refresh token by drn":         {object{"typ": "JWT"}, object{"drn": "DSR"}},
	"a refresh token by tokenType":   {object{"typ": "JWT"}, object{"tokenType": "refresh-token"}},
	"a logout token":                 {object{"typ": "logout+jwt"}, object{"events": object{}}},
}

// TestEachSettingAcceptsOnlyWhatItNames verifies every stranger with every setting that weakens a check, alone.
func TestEachSettingAcceptsOnlyWhatItNames(t *testing.T) {
	// The settings without a token beside them are strengthenings; what they refuse is in TestSettings.
	settings := map[string]struct {
		change  func(*jwks.Config)
		accepts []string
	}{
		"none":              {func(*jwks.Config) {}, nil},
		"AllowUntyped":      {func(c *jwks.Config) { c.Profile.AllowUntyped = true }, []string{"no typ"}},
		"AllowMissingKeyID": {func(c *jwks.Config) { c.Profile.AllowMissingKeyID = true }, []string{"no kid", "an empty kid"}},
		"AllowKeyWithoutID": {func(c *jwks.Config) {
			c.Profile.AllowKeyWithoutID, c.JWKS = true, unnamedKey()
		}, []string{"a kid that no key has"}},
		"AllowMissingSubject":  {func(c *jwks.Config) { c.Profile.AllowMissingSubject = true }, []string{"no sub"}},
		"AllowNumericSubject":  {func(c *jwks.Config) { c.Profile.AllowNumericSubject = true }, []string{"a number as sub"}},
		"AllowMissingClientID": {func(c *jwks.Config) { c.Profile.AllowMissingClientID = true }, []string{"no client_id", "the client in vendor_client", "the client in the header"}},
		"AllowMissingID":       {func(c *jwks.Config) { c.Profile.AllowMissingID = true }, []string{"no jti"}},
		"AllowMissingIssuedAt": {func(c *jwks.Config) { c.Profile.AllowMissingIssuedAt = true }, []string{"no iat"}},
		"AllowScopeArray":      {func(c *jwks.Config) { c.Profile.AllowScopeArray = true }, []string{"an array as scope"}},
		"AllowScp":             {func(c *jwks.Config) { c.Profile.AllowScp = true }, nil},
		"AllowMissingIssuer": {func(c *jwks.Config) {
			c.Profile.AllowMissingIssuer, c.Rules = true, []claims.Rule{claims.Present("sub")}
		}, []string{"no iss"}},
		"a key without an ID": {func(c *jwks.Config) { c.JWKS = unnamedKey() }, nil},
		"Types":               {func(c *jwks.Config) { c.Types = []string{"vendor+jwt"} }, []string{"typ vendor+jwt"}},
		"IssuerAliases":       {func(c *jwks.Config) { c.IssuerAliases = []string{"https://back.example"} }, []string{"another host of the issuer"}},
		"an issuer with tenants": {func(c *jwks.Config) { c.Issuer, c.Rules = tenants, []claims.Rule{claims.OneOf("tid", "t0", "t1")} },
			[]string{"a tenant's iss"}},
		"AllowAnyTenant": {func(c *jwks.Config) { c.Issuer, c.Profile.AllowAnyTenant = tenants, true }, []string{"a tenant's iss", "another tenant's iss"}},
		"AudienceClaim":  {func(c *jwks.Config) { c.AudienceClaim, c.RequireScope = "client_id", true }, []string{"no aud", "an empty aud"}},
		"AudienceHeader": {func(c *jwks.Config) { c.AudienceHeader = "signer" }, []string{"the API in the header", "the API in the header alone"}},
		"ClientIDHeader": {func(c *jwks.Config) { c.ClientIDHeader = "client" }, []string{"the client in the header"}},
		"ClientIDClaim":  {func(c *jwks.Config) { c.ClientIDClaim = "vendor_client" }, []string{"the client in vendor_client"}},
		"Markers": {func(c *jwks.Config) { c.Markers = []claims.Rule{claims.Equal("iss", issuer)} },
			nil},
		"AllowIDTokens": {func(c *jwks.Config) { c.Profile.AllowIDTokens, c.Clients = true, []string{"shop", api} },
			[]string{"no client_id", "the client in vendor_client", "the client in the header"}},
		"AllowIDTokens, AllowUntyped": {func(c *jwks.Config) {
			c.Profile.AllowIDTokens, c.Profile.AllowUntyped, c.Clients = true, true, []string{"shop", api}
		}, []string{"no typ", "no client_id", "the client in vendor_client", "the client in the header", "an ID token by its nonce", "an ID token by token_use"}},
		"Markers, AllowUntyped": {func(c *jwks.Config) {
			c.Markers, c.Profile.AllowUntyped = []claims.Rule{claims.Equal("iss", issuer)}, true
		}, []string{"no typ", "an ID token by its nonce"}},
		"a marker that requires no claim, AllowUntyped": {func(c *jwks.Config) {
			c.Markers, c.Profile.AllowUntyped = []claims.Rule{claims.Absent("email")}, true
		}, []string{"no typ"}},
	}
	for setting, test := range settings {
		for stranger, token := range strangers {
			t.Run(setting+": "+stranger, func(t *testing.T) {
				v := open(t, test.change)
				_, err := v.Verify(background, mint(t, es256, token.header, good(token.claims)))
				if contains(test.accepts, stranger) {
					assert.NoError(t, err)
				} else {
					assert.Error(t, err)
				}
			})
		}
	}
	t.Run("every setting of the profile is in the table", func(t *testing.T) {
		var names map[string]bool
		data, err := json.Marshal(jwks.Lenient())
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(data, &names))
		for name, on := range names {
			assert.Contains(t, settings, name)
			assert.Equal(t, !slices.Contains([]string{"AllowIDTokens", "AllowMissingIssuer", "AllowAnyTenant"}, name), on, "%s in Lenient", name)
		}
	})
}

// unnamedKey returns a key set whose key has no kid.
func unnamedKey() []byte {
	return bytes.Replace(keySet(es256), []byte(`"kid":"es256"`), []byte(`"kid":""`), 1)
}

func contains(list []string, s string) bool {
	for _, e := range list {
		if e == s {
			return true
		}
	}
	return false
}

func TestSettingsThatContradict(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*jwks.Config)
		want   string
	}{
		"a recipient in another claim, and nothing that marks access tokens": {func(c *jwks.Config) { c.AudienceClaim = "client_id" },
			"jwks: AudienceClaim: needs Markers or RequireScope"},
		"a recipient in another claim, and a marker that requires no claim": {func(c *jwks.Config) {
			c.AudienceClaim, c.Markers = "client_id", []claims.Rule{claims.Absent("email")}
		}, "jwks: AudienceClaim: needs Markers or RequireScope"},
		"tenants that no rule lists": {func(c *jwks.Config) { c.Issuer = tenants }, "jwks: Rules: need one about tid, which lists the tenants; Profile.AllowAnyTenant accepts them all"},
		"tenants, and a rule that lists none": {func(c *jwks.Config) {
			c.Issuer, c.Rules = tenants, []claims.Rule{claims.Present("tid"), claims.Equal("sub", "a")}
		},
			"jwks: Rules: need one about tid"},
		"an alias of many issuers": {func(c *jwks.Config) { c.Issuer, c.IssuerAliases = tenants, []string{"https://back.example"} },
			"jwks: IssuerAliases: has no effect"},
		"an alias with a tenant": {func(c *jwks.Config) { c.IssuerAliases = []string{tenants} }, "jwks: IssuerAliases[0]: has braces"},
		"tokens of no issuer, of many issuers": {func(c *jwks.Config) {
			c.Issuer, c.Profile.AllowMissingIssuer, c.Rules = tenants, true, []claims.Rule{claims.Present("sub")}
		}, "jwks: Profile.AllowMissingIssuer: cannot be combined with an issuer with {tid}"},
		"two places for the recipient": {func(c *jwks.Config) { c.AudienceHeader, c.AudienceClaim, c.RequireScope = "signer", "azp", true },
			"jwks: AudienceHeader: cannot be combined with AudienceClaim"},
		"two places for the client": {func(c *jwks.Config) { c.ClientIDHeader, c.ClientIDClaim = "client", "azp" },
			"jwks: ClientIDHeader: cannot be combined with ClientIDClaim"},
		"a URL for each key, and keys to start with": {func(c *jwks.Config) {
			c.JWKS, c.JWKSURL, c.InitialJWKS = nil, "https://keys.example/{kid}", keySet(es256)
		}, "jwks: InitialJWKS: cannot be combined with {kid} in JWKSURL"},
		"a place for the kid in a query": {func(c *jwks.Config) { c.JWKS, c.JWKSURL = nil, "https://keys.example/?k={kid}" }, "jwks: JWKSURL: needs {kid} once, in its path"},
		"tokens of no issuer, and no rule about whose": {func(c *jwks.Config) { c.Profile.AllowMissingIssuer = true },
			"jwks: Profile.AllowMissingIssuer: needs Rules"},
		"JWT as a type":             {func(c *jwks.Config) { c.Types = []string{"application/jwt"} }, `jwks: Types[0]: "application/jwt" marks no kind`},
		"a type that is empty":      {func(c *jwks.Config) { c.Types = []string{""} }, "jwks: Types[0]"},
		"a zero marker":             {func(c *jwks.Config) { c.Markers = make([]claims.Rule, 1) }, "jwks: Markers[0]: the zero Rule"},
		"a rule without a value":    {func(c *jwks.Config) { c.Rules = []claims.Rule{claims.OneOf("sub")} }, "jwks: Rules[0]: there is no value"},
		"an empty alias":            {func(c *jwks.Config) { c.IssuerAliases = []string{""} }, "jwks: IssuerAliases[0]: is empty"},
		"an empty client":           {func(c *jwks.Config) { c.Clients = []string{"a", ""} }, "jwks: Clients[1]: is empty"},
		"two tenants in an issuer":  {func(c *jwks.Config) { c.Issuer = "https://a.example/{a}/{b}" }, "jwks: Issuer: has braces that are not one {claim}"},
		"an open brace":             {func(c *jwks.Config) { c.Issuer = "https://a.example/{a" }, "jwks: Issuer: has braces"},
		"braces without a claim":    {func(c *jwks.Config) { c.Issuer = "https://a.example/{}" }, "jwks: Issuer: has braces"},
		"a tenant and no key set":   {func(c *jwks.Config) { c.Issuer, c.JWKS, c.Profile.AllowAnyTenant = tenants, nil, true }, "jwks: JWKSURL: required, or JWKS"},
		"a brace and no other keys": {func(c *jwks.Config) { c.Issuer, c.JWKS = "https://a.example/}", nil }, "jwks: Issuer: has braces"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := jwks.Config{Issuer: issuer, Audience: []string{api}, JWKS: keySet(es256)}
			test.change(&cfg)
			_, err := jwks.New(cfg)
			assert.ErrorContains(t, err, test.want)
		})
	}
}

func TestSettings(t *testing.T) {
	untyped := object{"typ": nil}
	cognito := func(c *jwks.Config) {
		c.Profile = jwks.Profile{AllowUntyped: true, AllowMissingID: true}
		c.AudienceClaim, c.Audience = "client_id", []string{"7abc"}
		c.Markers = []claims.Rule{claims.Equal("token_use", "access")}
	}
	keycloak := func(c *jwks.Config) {
		c.Profile = jwks.Profile{AllowUntyped: true, AllowMissingClientID: true}
		c.Markers = []claims.Rule{claims.Equal("typ", "Bearer")}
	}
	authentik := func(c *jwks.Config) {
		c.Profile = jwks.Profile{AllowUntyped: true, AllowMissingID: true, AllowIDTokens: true}
		c.Clients = []string{"app"}
	}
	idTokens := func(c *jwks.Config) { c.Profile.AllowIDTokens = true }
	balancer := func(c *jwks.Config) { c.AudienceHeader, c.ClientIDHeader = "signer", "client" }
	inTenant := func(c *jwks.Config) { c.Issuer, c.Profile.AllowAnyTenant = tenants, true }
	t1 := "https://login.example/t1/v2.0"
	for name, test := range map[string]struct {
		change         func(*jwks.Config)
		header, claims object
		want           valetkey.Reason
	}{
		"Cognito's ID token":                                                 {cognito, untyped, object{"aud": "7abc", "token_use": "id"}, valetkey.ReasonNotAccessToken},
		"Cognito's token of another application":                             {cognito, untyped, object{"aud": nil, "token_use": "access", "client_id": "8def"}, valetkey.ReasonAudience},
		"Cognito's token without its marker":                                 {cognito, untyped, object{"aud": nil, "client_id": "7abc"}, valetkey.ReasonNotAccessToken},
		"a token for another API, by a client of ours":                       {cognito, untyped, object{"aud": "https://other.example", "token_use": "access", "client_id": "7abc"}, valetkey.ReasonAudience},
		"a nonce, and no marker":                                             {keycloak, untyped, object{"nonce": "n"}, valetkey.ReasonNotAccessToken},
		"Keycloak's ID token":                                                {keycloak, untyped, object{"typ": "ID"}, valetkey.ReasonNotAccessToken},
		"Keycloak's logout token":                                            {keycloak, object{"typ": "logout+jwt"}, object{"typ": "Logout", "events": object{}}, valetkey.ReasonNotAccessToken},
		"a marker of at+jwt too":                                             {keycloak, nil, object{"typ": "ID"}, valetkey.ReasonNotAccessToken},
		"an ID token of another application":                                 {authentik, untyped, object{"client_id": nil, "azp": "other", "nonce": "n"}, valetkey.ReasonClient},
		"an ID token of another application, which names ours in client_id":  {authentik, untyped, object{"client_id": "app", "azp": "other", "nonce": "n"}, valetkey.ReasonClient},
		"an ID token whose azp is not a string":                              {authentik, untyped, object{"client_id": "app", "azp": object{}, "nonce": "n"}, valetkey.ReasonClient},
		"an ID token for two, and no azp":                                    {authentik, untyped, object{"client_id": nil, "aud": []string{api, "app"}}, valetkey.ReasonClient},
		"an ID token for two, the client first, and no azp":                  {authentik, untyped, object{"client_id": nil, "aud": []string{"app", api}}, valetkey.ReasonClient},
		"an ID token whose client_id is not listed, without azp":             {func(c *jwks.Config) { authentik(c); c.Clients = []string{api} }, untyped, object{"client_id": "other"}, valetkey.ReasonClient},
		"an ID token of another application, where the audience is the list": {idTokens, nil, object{"client_id": nil, "azp": "stranger"}, valetkey.ReasonClient},
		"an ID token with azp, without the claim that names its client":      {func(c *jwks.Config) { idTokens(c); c.ClientIDClaim = "vendor" }, nil, object{"azp": api}, valetkey.ReasonClient},
		"a refresh token, where ID tokens are accepted":                      {authentik, untyped, object{"azp": "app", "typ": "Refresh"}, valetkey.ReasonNotAccessToken},
		"a nested claim that must not be there, behind null": {func(c *jwks.Config) { c.Rules = []claims.Rule{claims.Absent("act.sub")} }, nil,
			object{"act.sub": json.RawMessage("null"), "act": object{"sub": "bob"}}, valetkey.ReasonClaimRule},
		"no signer, but an aud":                                        {balancer, object{"client": "shop"}, nil, valetkey.ReasonClaimMalformed},
		"an empty signer":                                              {balancer, object{"client": "shop", "signer": ""}, nil, valetkey.ReasonClaimMalformed},
		"a list of signers":                                            {balancer, object{"client": "shop", "signer": []string{api}}, nil, valetkey.ReasonClaimMalformed},
		"two signers in two letter cases":                              {balancer, object{"client": "shop", "signer": api, "Signer": "x"}, nil, valetkey.ReasonMalformed},
		"another signer, which names the API in a claim":               {balancer, object{"client": "shop", "signer": "https://other.example"}, object{"aud": api, "signer": api}, valetkey.ReasonAudience},
		"no client in the header, but one in a claim":                  {balancer, object{"signer": api}, object{"client_id": "shop"}, valetkey.ReasonClaimMalformed},
		"a listed client in a claim, another in the header":            {func(c *jwks.Config) { balancer(c); c.Clients = []string{"shop"} }, object{"signer": api, "client": "other"}, object{"client_id": "shop"}, valetkey.ReasonClient},
		"a client that is not listed":                                  {func(c *jwks.Config) { c.Clients = []string{"app"} }, nil, nil, valetkey.ReasonClient},
		"no client, where clients are listed":                          {func(c *jwks.Config) { c.Clients, c.Profile = []string{"app"}, jwks.Lenient() }, nil, object{"client_id": nil}, valetkey.ReasonClient},
		"no scope":                                                     {func(c *jwks.Config) { c.RequireScope = true }, nil, object{"scope": nil}, valetkey.ReasonNotAccessToken},
		"an empty scope":                                               {func(c *jwks.Config) { c.RequireScope = true }, nil, object{"scope": ""}, valetkey.ReasonNotAccessToken},
		"a scope of spaces":                                            {func(c *jwks.Config) { c.RequireScope = true }, nil, object{"scope": "  "}, valetkey.ReasonNotAccessToken},
		"a rule about the subject":                                     {func(c *jwks.Config) { c.Rules = []claims.Rule{claims.Prefix("sub", "repo:example/")} }, nil, object{"sub": "repo:evil/x"}, valetkey.ReasonClaimRule},
		"the second of two rules":                                      {func(c *jwks.Config) { c.Rules = []claims.Rule{claims.Present("sub"), claims.Equal("ref", "main")} }, nil, object{"ref": "dev"}, valetkey.ReasonClaimRule},
		"a tenant that tid does not name":                              {inTenant, nil, object{"iss": t1, "tid": "t2"}, valetkey.ReasonIssuer},
		"a tenant without tid":                                         {inTenant, nil, object{"iss": t1}, valetkey.ReasonIssuer},
		"the template itself":                                          {inTenant, nil, object{"iss": tenants, "tid": "{tid}"}, valetkey.ReasonIssuer},
		"a tenant with a slash":                                        {inTenant, nil, object{"iss": "https://login.example/a/b/v2.0", "tid": "a/b"}, valetkey.ReasonIssuer},
		"an empty tenant":                                              {inTenant, nil, object{"iss": "https://login.example//v2.0", "tid": ""}, valetkey.ReasonIssuer},
		"a tenant that ends as the template does, of another issuer":   {inTenant, nil, object{"iss": "t1/v2.0", "tid": "t1"}, valetkey.ReasonIssuer},
		"a tenant that begins as the template does, of another issuer": {inTenant, nil, object{"iss": "https://login.example/t1", "tid": "t1"}, valetkey.ReasonIssuer},
		"a tid that is a number":                                       {inTenant, nil, object{"iss": "https://login.example/7/v2.0", "tid": 7}, valetkey.ReasonIssuer},
		"an issuer shorter than the template":                          {inTenant, nil, object{"iss": "https://login.example/v2.0", "tid": ""}, valetkey.ReasonIssuer},
		"a SPIFFE identity of another trust domain":                    {spiffe, object{"typ": "JOSE"}, object{"iss": nil, "sub": "spiffe://evil/x"}, valetkey.ReasonClaimRule},
		"an iss of another issuer, where it may be absent":             {spiffe, object{"typ": "JOSE"}, object{"iss": "https://evil.example", "sub": "spiffe://prod/x"}, valetkey.ReasonIssuer},
		"an iss that is a number, where it may be absent":              {spiffe, object{"typ": "JOSE"}, object{"iss": 7, "sub": "spiffe://prod/x"}, valetkey.ReasonIssuer},
	} {
		t.Run(name+" is refused", func(t *testing.T) {
			_, err := open(t, test.change).Verify(background, mint(t, es256, test.header, good(test.claims)))
			var e *valetkey.Error
			require.ErrorAs(t, err, &e)
			assert.Equal(t, test.want, e.Reason, "%v", err)
		})
	}
	for name, test := range map[string]struct {
		change         func(*jwks.Config)
		header, claims object
		check          func(*testing.T, *valetkey.Token)
	}{
		"Cognito's access token": {cognito, untyped, object{"aud": nil, "token_use": "access", "client_id": "7abc", "jti": nil}, func(t *testing.T, tok *valetkey.Token) {
			assert.Equal(t, []string{"7abc"}, tok.Audience().Slice(), "the recipient by which it was accepted")
		}},
		"Keycloak's access token with a nonce": {keycloak, untyped, object{"typ": "Bearer", "nonce": "n", "client_id": nil, "azp": "spa"}, func(t *testing.T, tok *valetkey.Token) {
			assert.Equal(t, "spa", tok.ClientID())
		}},
		"authentik's token": {authentik, untyped, object{"client_id": nil, "azp": "app", "nonce": "n", "at_hash": "h", "jti": nil}, func(t *testing.T, tok *valetkey.Token) {
			assert.Equal(t, "app", tok.ClientID())
		}},
		"an ID token of an application in Audience": {idTokens, nil, object{"client_id": nil, "azp": "other", "aud": []string{"x", api}}, func(t *testing.T, tok *valetkey.Token) {
			assert.Equal(t, "other", tok.ClientID())
		}},
		"an access token of a listed client, whose azp is another one": {func(c *jwks.Config) { c.Clients = []string{"shop"} }, nil, object{"azp": "other"}, func(t *testing.T, tok *valetkey.Token) {
			assert.Equal(t, "shop", tok.ClientID())
		}},
		"an ID token for its only audience": {func(c *jwks.Config) { c.Profile.AllowIDTokens = true }, nil, object{"client_id": nil, "nonce": "n"}, func(t *testing.T, tok *valetkey.Token) {
			assert.Equal(t, api, tok.ClientID())
		}},
		"a tenant's token": {inTenant, nil, object{"iss": t1, "tid": "t1"}, func(t *testing.T, tok *valetkey.Token) {
			assert.Equal(t, t1, tok.Issuer())
		}},
		"a listed tenant's token": {func(c *jwks.Config) { c.Issuer, c.Rules = tenants, []claims.Rule{claims.OneOf("tid", "t2", "t1")} }, nil, object{"iss": t1, "tid": "t1"}, func(t *testing.T, tok *valetkey.Token) {
			assert.Equal(t, t1, tok.Issuer())
		}},
		"an alias": {func(c *jwks.Config) { c.IssuerAliases = []string{"https://back.example"} }, nil, object{"iss": "https://back.example"}, func(t *testing.T, tok *valetkey.Token) {
			assert.Equal(t, issuer, tok.Issuer(), "one issuer has one name")
		}},
		"a SPIFFE identity": {spiffe, object{"typ": "JOSE"}, object{"iss": nil, "sub": "spiffe://prod/billing"}, func(t *testing.T, tok *valetkey.Token) {
			assert.Equal(t, "spiffe://prod", tok.Issuer())
			assert.Equal(t, "spiffe://prod/billing", tok.Subject())
		}},
		"a token with recipient and client in its header": {balancer, object{"signer": api, "client": "lb"}, object{"aud": nil, "client_id": "shop"}, func(t *testing.T, tok *valetkey.Token) {
			assert.Equal(t, []string{api}, tok.Audience().Slice())
			assert.Equal(t, "lb", tok.ClientID())
		}},
		"a number as sub": {func(c *jwks.Config) { c.Profile.AllowNumericSubject = true }, nil, object{"sub": json.RawMessage("90071992547409931")}, func(t *testing.T, tok *valetkey.Token) {
			assert.Equal(t, "90071992547409931", tok.Subject(), "every digit")
		}},
		"the client by a path": {func(c *jwks.Config) { c.ClientIDClaim = "app.id" }, nil, object{"client_id": "shop", "app": object{"id": "a1"}}, func(t *testing.T, tok *valetkey.Token) {
			assert.Equal(t, "a1", tok.ClientID())
		}},
	} {
		t.Run(name+" is accepted", func(t *testing.T) {
			token, err := open(t, test.change).Verify(background, mint(t, es256, test.header, good(test.claims)))
			require.NoError(t, err)
			test.check(t, token)
		})
	}
}

func spiffe(c *jwks.Config) {
	c.Issuer, c.Types = "spiffe://prod", []string{"JOSE"}
	c.Profile = jwks.Profile{AllowUntyped: true, AllowMissingIssuer: true}
	c.Rules = []claims.Rule{claims.Prefix("sub", "spiffe://prod/")}
}

func TestByIssuerFindsAliasesTenantsAndTokensWithoutIssuer(t *testing.T) {
	plain := open(t, func(c *jwks.Config) { c.IssuerAliases = []string{"https://back.example"} })
	many := open(t, func(c *jwks.Config) { c.Issuer, c.Profile.AllowAnyTenant = tenants, true })
	workloads := open(t, spiffe)
	all, err := jwks.ByIssuer(plain, many, workloads)
	require.NoError(t, err)

	t.Run("a tenant that tid does not name is refused", func(t *testing.T) {
		_, err := all.Verify(background, mint(t, es256, nil, good(object{"iss": "https://login.example/t1/v2.0", "tid": "t2"})))
		refused(t, err, otherIssuer)
	})
	t.Run("two verifiers for one alias, and two for tokens without iss, are mistakes", func(t *testing.T) {
		_, err := jwks.ByIssuer(plain, open(t, func(c *jwks.Config) { c.Issuer = "https://back.example" }))
		assert.ErrorContains(t, err, `duplicate issuer "https://back.example"`)
		_, err = jwks.ByIssuer(workloads, open(t, spiffe, func(c *jwks.Config) { c.Issuer = "spiffe://test" }))
		assert.ErrorContains(t, err, "a second one has Profile.AllowMissingIssuer")
	})
	for name, token := range map[string]object{
		"the issuer": nil, "an alias": {"iss": "https://back.example"}, "a tenant": {"iss": "https://login.example/t1/v2.0", "tid": "t1"},
		"no iss": {"iss": nil, "sub": "spiffe://prod/billing"},
	} {
		t.Run("a token of "+name+" is accepted", func(t *testing.T) {
			_, err := all.Verify(background, mint(t, es256, nil, good(token)))
			assert.NoError(t, err)
		})
	}
	t.Run("a token of each of two issuers with tenants is accepted, whichever comes first", func(t *testing.T) {
		more := open(t, func(c *jwks.Config) { c.Issuer, c.Profile.AllowAnyTenant = "https://{tid}.second.example", true })
		for _, order := range [][]*jwks.Verifier{{many, more}, {more, many}} {
			both, err := jwks.ByIssuer(order...)
			require.NoError(t, err)
			for _, iss := range []string{"https://login.example/t1/v2.0", "https://t1.second.example"} {
				_, err := both.Verify(background, mint(t, es256, nil, good(object{"iss": iss, "tid": "t1"})))
				assert.NoError(t, err)
			}
		}
	})
	t.Run("each verifier is listed once", func(t *testing.T) {
		assert.Equal(t, []string{issuer, tenants, "spiffe://prod"}, names(all.(valetkey.HealthReporter).Health()))
	})
}
