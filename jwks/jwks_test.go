package jwks_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/jose"
	"github.com/valetkey/valetkey/jwks"
)

const (
	issuer = "https://as.example"
	api    = "https://api.example"
)

var (
	background = context.Background()
	now        = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	es256      = generate("ES256", "es256")
	es512      = generate("ES512", "es512")
	ed25519    = generate("EdDSA", "ed25519")
	rs256      = generate("RS256", "rs256")
)

func generate(alg, id string) *jose.PrivateKey {
	k, err := jose.GenerateKey(alg, id)
	if err != nil {
		panic(err)
	}
	return k
}

type object = map[string]any

// good returns the claims of an RFC 9068 access token, with changes; a change to nil removes a claim.
func good(changes object) object {
	claims := object{
		"iss": issuer, "sub": "alice", "client_id": "shop", "aud": api, "jti": "1", "scope": "orders:read orders:write",
		"iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
	}
	return change(claims, changes)
}

func change(o, changes object) object {
	maps.Copy(o, changes)
	maps.DeleteFunc(o, func(_ string, v any) bool { return v == nil })
	return o
}

// mint signs claims with k. The typ is at+jwt unless header has another.
func mint(t testing.TB, k *jose.PrivateKey, header, claims object) string {
	t.Helper()
	payload, err := json.Marshal(claims)
	require.NoError(t, err)
	return mintText(t, k, header, string(payload))
}

func mintText(t testing.TB, k *jose.PrivateKey, header object, payload string) string {
	t.Helper()
	h := object{"typ": "at+jwt"}
	maps.Copy(h, header)
	raw, err := k.Sign(h, []byte(payload))
	require.NoError(t, err)
	return raw
}

func keySet(keys ...*jose.PrivateKey) []byte {
	set := map[string][]json.RawMessage{"keys": {}}
	for _, k := range keys {
		set["keys"] = append(set["keys"], k.PublicJWK())
	}
	data, err := json.Marshal(set)
	if err != nil {
		panic(err)
	}
	return data
}

// open returns a verifier of issuer that holds all keys above, with changes.
func open(t testing.TB, changes ...func(*jwks.Config)) *jwks.Verifier {
	t.Helper()
	cfg := jwks.Config{
		Issuer: issuer, Audience: []string{"other", api}, JWKS: keySet(es256, es512, ed25519, rs256),
		Now: func() time.Time { return now },
	}
	for _, f := range changes {
		f(&cfg)
	}
	v, err := jwks.New(cfg)
	require.NoError(t, err)
	t.Cleanup(v.Close)
	return v
}

func lenient(c *jwks.Config) { c.Profile = jwks.Lenient() }

const (
	notJWT       = "the token is not a JWT"
	malformed    = "the token is malformed"
	otherIssuer  = "the token is of another issuer"
	otherKind    = "the token is not an access token"
	otherAlg     = "the signature algorithm of the token is not allowed"
	noKeyID      = "the token names no key"
	badClaim     = "a claim of the token is missing or malformed"
	otherAud     = "the token is for another audience"
	expired      = "the token has expired"
	notYet       = "the token is not yet valid"
	tooLong      = "the token lives too long"
	farAhead     = "a date of the token is more than ten years ahead; it may be in milliseconds instead of seconds"
	unknownKey   = "the key of the token is unknown"
	badSignature = "the signature of the token is wrong"
)

func TestConfig(t *testing.T) {
	secret := []byte(strings.Repeat("secret56", 6))
	for name, test := range map[string]struct {
		change func(*jwks.Config)
		want   string
	}{
		"no issuer":                          {func(c *jwks.Config) { c.Issuer = "" }, "jwks: Issuer: required"},
		"AT-10 no audience":                  {func(c *jwks.Config) { c.Audience = nil }, "jwks: Audience: required; an empty list does not mean any"},
		"AT-10 an empty list of audiences":   {func(c *jwks.Config) { c.Audience = []string{} }, "jwks: Audience: required; an empty list does not mean any"},
		"AUD-03 an audience with a fragment": {func(c *jwks.Config) { c.Audience = []string{"https://api.example.com/#orders"} }, "jwks: Audience[0]: has a fragment, which no aud has (RFC 8707, section 2)"},
		"AT-10 an audience that is empty":    {func(c *jwks.Config) { c.Audience = []string{api, ""} }, "jwks: Audience[1]: is empty"},
		"AT-11 the algorithm none":           {func(c *jwks.Config) { c.Algorithms = []string{"none"} }, `jwks: Algorithms[0]: "none" is not a supported signature algorithm`},
		"JWS-08 an algorithm in other case":  {func(c *jwks.Config) { c.Algorithms = []string{"RS256", "rs256"} }, `jwks: Algorithms[1]: "rs256" is not a supported signature algorithm; did you mean RS256?`},
		"JWT-41 an algorithm of COSE":        {func(c *jwks.Config) { c.Algorithms = []string{"ESP256"} }, `jwks: Algorithms[0]: "ESP256" is not a supported signature algorithm`},
		"JWT-44 ML-DSA":                      {func(c *jwks.Config) { c.Algorithms = []string{"ML-DSA-65"} }, `jwks: Algorithms[0]: "ML-DSA-65" is not a supported signature algorithm`},
		"JWT-13 HMAC without a secret":       {func(c *jwks.Config) { c.Algorithms = []string{"HS256"} }, `jwks: Algorithms[0]: "HS256" is not a supported signature algorithm: HMAC needs the Secret that the issuer shares, and lets whoever verifies tokens issue them too`},
		"a secret without an algorithm": {func(c *jwks.Config) { c.JWKS, c.Secret = nil, secret },
			"jwks: Algorithms: required with Secret: one or more of [HS256 HS384 HS512]"},
		"a secret and RS256": {func(c *jwks.Config) { c.JWKS, c.Secret, c.Algorithms = nil, secret, []string{"RS256"} },
			`jwks: Algorithms[0]: "RS256" is not an HMAC algorithm, which Secret requires`},
		"JWT-22 a secret of 31 bytes": {func(c *jwks.Config) { c.JWKS, c.Secret, c.Algorithms = nil, secret[:31], []string{"HS256"} },
			"jwks: Secret: the secret has 31 bytes, at least 32 are needed (RFC 7518, section 3.2)"},
		"JWT-22 a secret of 48 bytes for HS512": {func(c *jwks.Config) { c.JWKS, c.Secret, c.Algorithms = nil, secret, []string{"HS384", "HS512"} },
			"jwks: Secret: too short for HS512 (RFC 7518, section 3.2)"},
		"an empty secret": {func(c *jwks.Config) { c.JWKS, c.Secret, c.Algorithms = nil, []byte{}, []string{"HS256"} },
			"jwks: Secret: the secret has 0 bytes, at least 32 are needed (RFC 7518, section 3.2)"},
		"two places of keys": {func(c *jwks.Config) { c.JWKSURL = "https://as.example/jwks" }, "jwks: JWKSURL, JWKS, Secret: set at most one of these"},
		"keys to start with beside keys that never change": {func(c *jwks.Config) { c.InitialJWKS = keySet(es256) },
			"jwks: InitialJWKS: needs keys that are fetched: remove JWKS and Secret"},
		"keys to start with beside a secret": {func(c *jwks.Config) {
			c.JWKS, c.Secret, c.Algorithms, c.InitialJWKS = nil, secret, []string{"HS256"}, keySet(es256)
		}, "jwks: InitialJWKS: needs keys that are fetched: remove JWKS and Secret"},
		"requests for keys beside a secret": {func(c *jwks.Config) {
			c.JWKS, c.Secret, c.Algorithms, c.KeyRequests.TokenFile = nil, secret, []string{"HS256"}, "/none"
		}, "jwks: KeyRequests: needs keys that are fetched: remove JWKS and Secret"},
		"an issuer with tenants and no place of keys": {func(c *jwks.Config) { c.Issuer, c.JWKS, c.Profile.AllowAnyTenant = tenants, nil, true },
			"jwks: JWKSURL: required, or JWKS, since the metadata of an issuer with {tid} has no URL"},
		"neither an issuer nor a place of keys": {func(c *jwks.Config) { c.Issuer, c.JWKS = "", nil }, "jwks: Issuer: required"},
		"no issuer, and a key set without https": {func(c *jwks.Config) { c.Issuer, c.JWKS, c.JWKSURL = "", nil, "http://as.example/jwks" },
			"jwks: Issuer: required\njwks: JWKSURL: not https; InsecureHTTP allows http"},
		"invalid keys to start with, and another mistake": {func(c *jwks.Config) {
			c.JWKS, c.JWKSURL, c.InitialJWKS = nil, "http://as.example/jwks", []byte(`{"keys":[]}`)
		}, "jwks: InitialJWKS: it has no usable key among 0\njwks: JWKSURL: not https; InsecureHTTP allows http"},
		"requests for keys beside keys that never change": {func(c *jwks.Config) { c.KeyRequests.TokenFile = "/none" },
			"jwks: KeyRequests: needs keys that are fetched: remove JWKS and Secret"},
		"a header for requests beside keys that never change": {func(c *jwks.Config) { c.KeyRequests.Header = http.Header{"X": {"y"}} },
			"jwks: KeyRequests: needs keys that are fetched: remove JWKS and Secret"},
		"half a client certificate, a missing file and two tokens": {func(c *jwks.Config) {
			c.JWKS, c.KeyRequests = nil, jwks.KeyRequests{CertFile: "/none", TokenFile: "/none", Header: http.Header{"Authorization": {"x"}}}
		}, "jwks: KeyRequests.TokenFile: Header has an Authorization: set one of the two\n" +
			"jwks: KeyRequests.TokenFile: reading /none: no such file or directory\n" +
			"jwks: KeyRequests.KeyFile: required with CertFile"},
		"a missing file of authorities beside a client": {func(c *jwks.Config) {
			c.JWKS, c.KeyRequests.CAFile, c.Client = nil, "/none", http.DefaultClient
		}, "jwks: KeyRequests.CAFile: reading /none: no such file or directory\n" +
			"jwks: KeyRequests.CAFile: Client is set: give it the certificates"},
		"a key without the certificate of the client": {func(c *jwks.Config) { c.JWKS, c.KeyRequests.KeyFile = nil, "/none" },
			"jwks: KeyRequests.CertFile: required with KeyFile"},
		"a missing file of authorities, half a client certificate and a header that cannot be sent": {func(c *jwks.Config) {
			c.JWKS, c.KeyRequests = nil, jwks.KeyRequests{CAFile: "/none", CertFile: "/half", Header: http.Header{"X Y": {"z"}}}
		}, `jwks: KeyRequests.Header: "X Y" is not a field name` + "\n" +
			"jwks: KeyRequests.KeyFile: required with CertFile\n" +
			"jwks: KeyRequests.CAFile: reading /none: no such file or directory"},
		"a header that cannot be sent": {func(c *jwks.Config) { c.JWKS, c.KeyRequests.Header = nil, http.Header{"X Y": {"z"}} },
			`jwks: KeyRequests.Header: "X Y" is not a field name`},
		"an empty key set": {func(c *jwks.Config) { c.JWKS = []byte(`{"keys":[]}`) }, "jwks: JWKS: it has no usable key among 0"},
		"no key set":       {func(c *jwks.Config) { c.JWKS = []byte{} }, "jwks: JWKS: it is not a JSON object"},
		"JWKS-04 a key set with a private key": {func(c *jwks.Config) {
			c.JWKS = []byte(fmt.Sprintf(`{"keys":[%s,%s]}`, es256.PublicJWK(), es512.PrivateJWK()))
		}, `jwks: JWKS: kid "es512": the key holds private parts`},
		"a URN to discover":        {func(c *jwks.Config) { c.JWKS, c.Issuer = nil, "urn:x" }, "jwks: Issuer: cannot be discovered: not a URL with a host, such as https://as.example.com"},
		"JWKS-08 an http issuer":   {func(c *jwks.Config) { c.JWKS, c.Issuer = nil, "http://as.example" }, "jwks: Issuer: cannot be discovered: not https; InsecureHTTP allows http"},
		"JWKS-08 an http key set":  {func(c *jwks.Config) { c.JWKS, c.JWKSURL = nil, "http://as.example/jwks" }, "jwks: JWKSURL: not https; InsecureHTTP allows http"},
		"a leeway over 5 minutes":  {func(c *jwks.Config) { c.Leeway = 6 * time.Minute }, "jwks: Leeway: 6m0s is more than 5m0s"},
		"a negative lifetime":      {func(c *jwks.Config) { c.MaxLifetime = -1 }, "jwks: MaxLifetime: -1ns is negative"},
		"a scope claim of no name": {func(c *jwks.Config) { c.Scopes = []string{""} }, "jwks: Scopes[0]: is empty"},
		"all mistakes at once": {func(c *jwks.Config) {
			*c = jwks.Config{Issuer: issuer, Algorithms: []string{"x"}, RefreshInterval: -1, MinRefetchInterval: -1, StaleIfError: 48 * time.Hour}
		}, "jwks: Audience: required; an empty list does not mean any\n" +
			`jwks: Algorithms[0]: "x" is not a supported signature algorithm` + "\n" +
			"jwks: RefreshInterval: -1ns is not between 0 and 24h0m0s\n" +
			"jwks: MinRefetchInterval: -1ns is negative\n" +
			"jwks: StaleIfError: 48h0m0s is more than 24h0m0s"},
	} {
		t.Run(name+" is a mistake", func(t *testing.T) {
			cfg := jwks.Config{Issuer: issuer, Audience: []string{api}, JWKS: keySet(es256)}
			test.change(&cfg)
			v, err := jwks.New(cfg)
			assert.EqualError(t, err, test.want)
			assert.Nil(t, v)
		})
	}
	t.Run("slices of the Config are copied", func(t *testing.T) {
		audience, algorithms := []string{api}, []string{"ES256"}
		v := open(t, func(c *jwks.Config) { c.Audience, c.Algorithms = audience, algorithms })
		audience[0], algorithms[0] = "x", "RS256"
		_, err := v.Verify(background, mint(t, es256, nil, good(nil)))
		assert.NoError(t, err)
	})
}

func TestRefused(t *testing.T) {
	type row struct {
		header, claims object
		want           string
	}
	rows := map[string]row{
		"AT-05 an iss with a slash at its end":     {nil, object{"iss": issuer + "/"}, otherIssuer},
		"AT-05 an iss in other case":               {nil, object{"iss": "https://AS.example"}, otherIssuer},
		"JWT-28 an iss that is unknown":            {nil, object{"iss": "https://evil.example"}, otherIssuer},
		"JWT-28 AT-06 no iss":                      {nil, object{"iss": nil}, otherIssuer},
		"JWT-28 an iss that is an array":           {nil, object{"iss": []string{issuer}}, otherIssuer},
		"AT-06 no sub":                             {nil, object{"sub": nil}, badClaim},
		"AT-06 no client_id":                       {nil, object{"client_id": nil}, badClaim},
		"AT-06 no client_id, but azp":              {nil, object{"client_id": nil, "azp": "shop"}, badClaim},
		"AT-06 no iat":                             {nil, object{"iat": nil}, badClaim},
		"AT-06 no jti":                             {nil, object{"jti": nil}, badClaim},
		"AT-06 no exp":                             {nil, object{"exp": nil}, badClaim},
		"AT-06 AT-09 JWT-31 no aud":                {nil, object{"aud": nil}, badClaim},
		"AT-06 an empty sub":                       {nil, object{"sub": ""}, badClaim},
		"a sub that is a number":                   {nil, object{"sub": 1}, badClaim},
		"a jti that is a number":                   {nil, object{"jti": 1}, badClaim},
		"AT-09 aud is []":                          {nil, object{"aud": []string{}}, badClaim},
		"AT-09 aud is empty":                       {nil, object{"aud": ""}, badClaim},
		"AT-09 aud is {}":                          {nil, object{"aud": object{}}, badClaim},
		"AT-09 aud has a number in it":             {nil, object{"aud": []any{api, 1}}, badClaim},
		"AT-09 aud has an array in it":             {nil, object{"aud": []any{[]string{api}}}, badClaim},
		"JWT-10 aud is another":                    {nil, object{"aud": []string{"https://other.example"}}, otherAud},
		"JWT-11 aud has it as a part":              {nil, object{"aud": "x " + api + " y"}, otherAud},
		"JWT-11 aud is a path of it":               {nil, object{"aud": api + "/orders"}, otherAud},
		"JWT-11 aud in other case":                 {nil, object{"aud": strings.ToUpper(api)}, otherAud},
		"AT-14 a token past exp and leeway":        {nil, object{"exp": now.Add(-30 * time.Second).Unix()}, expired},
		"JWT-05 a negative exp":                    {nil, object{"exp": -1e300}, expired},
		"JWT-05 an exp of 0":                       {nil, object{"exp": 0}, expired},
		"JWT-07 an nbf in the future":              {nil, object{"nbf": now.Add(31 * time.Second).Unix()}, notYet},
		"JWT-07 a huge nbf":                        {nil, object{"nbf": 1e300}, farAhead},
		"JWT-08 an iat in the future":              {nil, object{"iat": now.Add(31 * time.Second).Unix()}, notYet},
		"JWT-04 exp is a string":                   {nil, object{"exp": "4102444800"}, badClaim},
		"JWT-04 exp is a bool":                     {nil, object{"exp": true}, badClaim},
		"JWT-04 exp is an object":                  {nil, object{"exp": object{}}, badClaim},
		"JWT-04 exp is 1e400":                      {nil, object{"exp": json.RawMessage("1e400")}, badClaim},
		"JWT-04 exp is null":                       {nil, object{"exp": json.RawMessage("null")}, badClaim},
		"JWT-04 nbf is a string":                   {nil, object{"nbf": "1"}, badClaim},
		"JWT-04 iat is a string":                   {nil, object{"iat": "1"}, badClaim},
		"JWT-03 Exp":                               {nil, object{"Exp": 1}, malformed},
		"JWT-03 SCOPE in place of scope":           {nil, object{"scope": nil, "SCOPE": "admin"}, malformed},
		"JWT-03 ſub, which encoding/json folds":    {nil, object{"sub": nil, "ſub": "admin"}, malformed},
		"JWT-03 Sid beside sid":                    {nil, object{"sid": "a", "Sid": "b"}, malformed},
		"JWT-03 ACT beside act":                    {nil, object{"act": object{"sub": "a"}, "ACT": object{"sub": "b"}}, malformed},
		"JWT-03 JKT beside jkt in cnf":             {nil, object{"cnf": object{"jkt": es256.Public().Thumbprint(), "JKT": es256.Public().Thumbprint()}}, badClaim},
		"scope is an array":                        {nil, object{"scope": []string{"a"}}, badClaim},
		"scope is a number":                        {nil, object{"scope": 7}, badClaim},
		"cnf is a string":                          {nil, object{"cnf": "x"}, badClaim},
		"act is a string":                          {nil, object{"act": "agent"}, badClaim},
		"cnf is an empty object":                   {nil, object{"cnf": object{}}, badClaim},
		"cnf is empty":                             {nil, object{"cnf": object{}}, badClaim},
		"jkt is a number":                          {nil, object{"cnf": object{"jkt": 1}}, badClaim},
		"jkt is empty":                             {nil, object{"cnf": object{"jkt": ""}}, badClaim},
		"jkt is of 42 characters":                  {nil, object{"cnf": object{"jkt": strings.Repeat("A", 42)}}, badClaim},
		"jkt is not base64url":                     {nil, object{"cnf": object{"jkt": strings.Repeat("+", 43)}}, badClaim},
		"jkt is not canonical":                     {nil, object{"cnf": object{"jkt": strings.Repeat("B", 43)}}, badClaim},
		"x5t#S256 is of 44 characters":             {nil, object{"cnf": object{"x5t#S256": strings.Repeat("A", 44)}}, badClaim},
		"JWS-17 a kid that is a number":            {object{"kid": 7}, nil, malformed},
		"JWS-18 a kid in other case":               {object{"kid": "ES256"}, nil, unknownKey},
		"JWS-19 a kid of 10,000 bytes":             {object{"kid": strings.Repeat("x", 10_000)}, nil, malformed},
		"JWS-19 a kid with a line break":           {object{"kid": "x\r\ny"}, nil, malformed},
		"JWS-19 a kid with NUL":                    {object{"kid": "es256\x00"}, nil, malformed},
		"JWS-19 JWT-32 a kid that is a path":       {object{"kid": "../../es256"}, nil, unknownKey},
		"JWS-19 JWT-32 a kid that is SQL":          {object{"kid": "' OR '1'='1"}, nil, unknownKey},
		"no kid":                                   {object{"kid": nil}, nil, noKeyID},
		"the kid of a key of another kind":         {object{"kid": "rs256"}, nil, unknownKey},
		"an algorithm beyond the defaults":         {object{"alg": "RS384"}, nil, otherAlg},
		"JWT-41 an algorithm of COSE":              {object{"alg": "ESP256"}, nil, otherAlg},
		"JWT-44 ML-DSA":                            {object{"alg": "ML-DSA-65"}, nil, otherAlg},
		"JWT-35 a DPoP proof in a token's place":   {object{"typ": "dpop+jwt", "kid": nil, "jwk": es256.PublicJWK()}, object{"htm": "GET", "htu": api}, otherKind},
		"AT-21 an ID token of the same issuer":     {object{"typ": "JWT"}, object{"aud": "shop", "nonce": "n", "client_id": nil}, otherKind},
		"a claim that is not allowed twice, later": {nil, object{"cnf": json.RawMessage(`{"jkt":"x","jkt":"y"}`)}, malformed},
	}
	for _, typ := range []any{nil, "JWT", "jwt", "", "dpop+jwt", "logout+jwt", "secevent+jwt", "token-introspection+jwt",
		"statuslist+jwt", "client-authentication+jwt", "application/jwt", "text/at+jwt", "at+jwt "} {
		rows[fmt.Sprintf("AT-03 JWT-34 typ %v", typ)] = row{object{"typ": typ}, nil, otherKind}
	}
	for _, alg := range []string{"none", "None", "NONE", "nOnE", "es256", "HS256"} {
		rows["AT-11 JWS-08 alg "+alg] = row{object{"alg": alg}, nil, otherAlg}
	}
	v := open(t)
	for name, r := range rows {
		t.Run(name, func(t *testing.T) {
			token, err := v.Verify(background, mint(t, es256, r.header, good(r.claims)))
			// AT-17: the code is invalid_token, whatever it is.
			refused(t, err, r.want)
			assert.Nil(t, token)
			if r.want == otherIssuer {
				assert.ErrorIs(t, err, valetkey.ErrNotApplicable)
			} else {
				assert.NotErrorIs(t, err, valetkey.ErrNotApplicable)
			}
		})
	}
	t.Run("AT-17 every refusal is invalid_token, 401", func(t *testing.T) {
		for _, r := range rows {
			_, err := v.Verify(background, mint(t, es256, r.header, good(r.claims)))
			refusal := refused(t, err, r.want)
			assert.Equal(t, valetkey.InvalidToken, refusal.Code)
			assert.Equal(t, 401, refusal.Status())
		}
	})
}

// replaceSignature returns token with a signature of n zeros.
func replaceSignature(token string, n int) string {
	return token[:strings.LastIndex(token, ".")+1] + base64.RawURLEncoding.EncodeToString(make([]byte, n))
}

func TestACauseHasBothValuesOrTheSetting(t *testing.T) {
	for want, c := range map[string]struct{ header, claims object }{
		`issuer: "https://as.example/" in the token, "https://as.example" configured`:   {nil, object{"iss": issuer + "/"}},
		`issuer: none in the token, "https://as.example" configured`:                    {nil, object{"iss": nil}},
		`audience: "a", "b" in the token, "other", "https://api.example" configured`:    {nil, object{"aud": []string{"a", "b"}}},
		`typ: "JWT" in the token, "at+jwt" configured, and Profile.AllowUntyped is off`: {object{"typ": "JWT"}, nil},
		`typ: "logout+jwt" in the token, "at+jwt" configured`:                           {object{"typ": "logout+jwt"}, nil},
		`sub is missing, and Profile.AllowMissingSubject is off`:                        {nil, object{"sub": nil}},
		`sub is not a string, and Profile.AllowNumericSubject is off`:                   {nil, object{"sub": 7}},
		`sub is not a string`: {nil, object{"sub": []string{"a"}}},
		`client_id is missing, and Profile.AllowMissingClientID is off`: {nil, object{"client_id": nil}},
		`jti is missing, and Profile.AllowMissingID is off`:             {nil, object{"jti": nil}},
		`iat is missing, and Profile.AllowMissingIssuedAt is off`:       {nil, object{"iat": nil}},
		`aud is missing, and AudienceClaim is not set`:                  {nil, object{"aud": nil}},
		`exp is missing`: {nil, object{"exp": nil}},
	} {
		_, err := open(t).Verify(background, mint(t, es256, c.header, good(c.claims)))
		var refusal *valetkey.Error
		require.ErrorAs(t, err, &refusal, want)
		assert.EqualError(t, refusal.Err, want)
	}
	untyped := open(t, func(c *jwks.Config) { c.Profile.AllowUntyped = true })
	for want, claims := range map[string]object{
		`its claim typ is "ID"`:       {"typ": "ID", "nonce": "n"},
		`its claim token_use is "id"`: {"token_use": "id"},
		`its claim typ is "Refresh"`:  {"typ": "Refresh"},
		`it has the claim events`:     {"events": object{}},
		`it has the claim at_hash, as ID tokens do, and no Markers prove an access token`: {"at_hash": "h"},
	} {
		_, err := untyped.Verify(background, mint(t, es256, object{"typ": "JWT"}, good(claims)))
		var refusal *valetkey.Error
		require.ErrorAs(t, err, &refusal, want)
		assert.EqualError(t, refusal.Err, want)
	}
}

func TestRefusedTexts(t *testing.T) {
	v := open(t)
	payload, _ := json.Marshal(good(nil))
	rest := string(payload[1:])
	token := mint(t, es256, nil, good(nil))
	head, signature := token[:strings.LastIndex(token, ".")+1], token[strings.LastIndex(token, ".")+1:]
	other := mint(t, es256, nil, good(object{"sub": "mallory"}))

	for name, test := range map[string]struct{ raw, want string }{
		"nothing":                                      {"", notJWT},
		"an opaque token":                              {"7Fjfp0ZBr1KtDRbnfVdmIw", notJWT},
		"an opaque token with two dots":                {"abc.def.ghi", notJWT},
		"JWT-25 an encrypted token":                    {"eyJhbGciOiJkaXIifQ....", notJWT},
		"JWT-01 claims that are not UTF-8":             {mintText(t, es256, nil, "{\"sub\":\"\xff\","+rest), malformed},
		"JWT-01 claims that are an array":              {mintText(t, es256, nil, "["+string(payload)+"]"), malformed},
		"JWT-01 claims that are a text":                {mintText(t, es256, nil, `"claims"`), malformed},
		"JWT-01 claims that are null":                  {mintText(t, es256, nil, `null`), malformed},
		"JWT-01 claims and more":                       {mintText(t, es256, nil, string(payload)+"{}"), malformed},
		"JWT-37 a token in a token":                    {mintText(t, es256, object{"cty": "JWT"}, token), malformed},
		"JWT-02 exp twice":                             {mintText(t, es256, nil, `{"exp":99999999999,`+rest), malformed},
		"JWT-02 aud twice":                             {mintText(t, es256, nil, `{"aud":"x",`+rest), malformed},
		"JWT-02 scope twice, once with escapes":        {mintText(t, es256, nil, `{"\u0073cope":"admin",`+rest), malformed},
		"JWT-02 sub twice":                             {mintText(t, es256, nil, `{"sub":"x",`+rest), malformed},
		"JWT-02 cnf twice":                             {mintText(t, es256, nil, `{"cnf":{"x":1},"cnf":{"x":1},`+rest), malformed},
		"JWS-20 no signature":                          {head, malformed},
		"JWS-20 half a signature":                      {head + signature[:40], badSignature},
		"JWS-20 the signature of other claims":         {head + other[strings.LastIndex(other, ".")+1:], badSignature},
		"JWS-20 a signature of zeros":                  {head + strings.Repeat("A", 86), badSignature},
		"JWT-20 a signature that is too long":          {head + strings.Repeat("A", 128), badSignature},
		"JWS-26 a token of more than 16 KiB":           {token + strings.Repeat("A", 16<<10), malformed},
		"JWT-45 a token with a signature of ML-DSA-87": {replaceSignature(mint(t, es256, object{"alg": "ML-DSA-87"}, good(object{"pad": strings.Repeat("x", 4<<10)})), 4627), otherAlg},
		"a key of the same kid that is not in the set": {mint(t, generate("ES256", "es256"), nil, good(nil)), badSignature},
		"JWS-15 a token that brings its key": {mint(t, generate("ES256", "evil"), object{"jwk": generate("ES256", "evil").PublicJWK()},
			good(nil)), unknownKey},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := v.Verify(background, test.raw)
			refused(t, err, test.want)
			assert.Equal(t, test.want == notJWT, strings.Contains(fmt.Sprint(err), valetkey.ErrNotApplicable.Error()))
			if len(test.raw) > 50 {
				assert.NotContains(t, err.Error(), test.raw[len(test.raw)-40:])
			}
		})
	}
	t.Run("JWS-15 a token signed with the key that it brings", func(t *testing.T) {
		evil := generate("ES256", "es256")
		_, err := v.Verify(background, mint(t, evil, object{"jwk": evil.PublicJWK()}, good(nil)))
		refused(t, err, badSignature)
	})
}

func TestAlgorithms(t *testing.T) {
	only := func(alg ...string) func(*jwks.Config) { return func(c *jwks.Config) { c.Algorithms = alg } }

	t.Run("JWT-12 the algorithm of a good key in the set is refused if not on the list", func(t *testing.T) {
		_, err := open(t, only("ES256")).Verify(background, mint(t, rs256, nil, good(nil)))
		refused(t, err, otherAlg)
	})
	t.Run("JWT-13 the default list does not grow by what the set has", func(t *testing.T) {
		_, err := open(t).Verify(background, mint(t, es512, nil, good(nil)))
		refused(t, err, otherAlg)
	})
	t.Run("JWT-14 HMAC with a public key as the secret is refused", func(t *testing.T) {
		claims, _ := json.Marshal(good(nil))
		header := object{"typ": "at+jwt", "kid": "rs256"}
		raw, err := jose.SignSecret(rs256.PublicJWK(), "HS256", header, claims)
		require.NoError(t, err)
		_, err = open(t).Verify(background, raw)
		refused(t, err, otherAlg)
	})
	t.Run("JWT-16 a key without alg is used with every algorithm on the list that fits it, and no other", func(t *testing.T) {
		jwk := strings.Replace(string(rs256.PublicJWK()), `"alg":"RS256",`, "", 1)
		require.NotContains(t, jwk, `"alg"`)
		pss, err := jose.ParsePrivateKey([]byte(strings.Replace(string(rs256.PrivateJWK()), `"alg":"RS256",`, "", 1)), "PS256")
		require.NoError(t, err)
		free := func(c *jwks.Config) { c.JWKS = []byte(`{"keys":[` + jwk + `]}`) }
		for _, k := range []*jose.PrivateKey{rs256, pss} {
			_, err := open(t, free).Verify(background, mint(t, k, nil, good(nil)))
			assert.NoError(t, err)
		}
		_, err = open(t, free, only("RS256")).Verify(background, mint(t, pss, nil, good(nil)))
		refused(t, err, otherAlg)
		_, err = open(t).Verify(background, mint(t, pss, nil, good(nil)))
		refused(t, err, unknownKey) // JWT-15: here the JWK says RS256
	})
	t.Run("AT-12 RS256 is accepted by default", func(t *testing.T) {
		_, err := open(t).Verify(background, mint(t, rs256, nil, good(nil)))
		assert.NoError(t, err)
	})
	t.Run("JWT-42 Ed25519 is accepted by default", func(t *testing.T) {
		specified := generate("Ed25519", "ed")
		_, err := open(t, func(c *jwks.Config) { c.JWKS = keySet(specified) }).Verify(background, mint(t, specified, nil, good(nil)))
		assert.NoError(t, err)
	})
	t.Run("JWT-36 the fully specified Ed25519 can be named, and then EdDSA is refused", func(t *testing.T) {
		jwk := strings.Replace(string(ed25519.PublicJWK()), `"alg":"EdDSA",`, "", 1)
		v := open(t, only("Ed25519"), func(c *jwks.Config) { c.JWKS = []byte(`{"keys":[` + jwk + `]}`) })
		_, err := v.Verify(background, mint(t, ed25519, nil, good(nil)))
		refused(t, err, otherAlg)
		specified := generate("Ed25519", "ed")
		v = open(t, only("Ed25519"), func(c *jwks.Config) { c.JWKS = keySet(specified) })
		_, err = v.Verify(background, mint(t, specified, nil, good(nil)))
		assert.NoError(t, err)
	})
	t.Run("a shared secret verifies what it is configured for, whatever the kid", func(t *testing.T) {
		secret := []byte(strings.Repeat("secret56", 8))
		v := open(t, only("HS256"), func(c *jwks.Config) { c.JWKS, c.Secret = nil, secret })
		claims, _ := json.Marshal(good(nil))
		sign := func(secret []byte, alg string, header object) string {
			raw, err := jose.SignSecret(secret, alg, change(object{"typ": "at+jwt"}, header), claims)
			require.NoError(t, err)
			return raw
		}
		_, err := v.Verify(background, sign(secret, "HS512", nil))
		refused(t, err, otherAlg)
		_, err = v.Verify(background, sign(secret[:40], "HS256", nil))
		refused(t, err, badSignature)
		for _, header := range []object{nil, {"kid": "any"}} {
			_, err = v.Verify(background, sign(secret, "HS256", header))
			assert.NoError(t, err)
		}
	})
}

func TestTimes(t *testing.T) {
	exact := func(c *jwks.Config) { c.Leeway = -1 }
	wide := func(c *jwks.Config) { c.Leeway = 5 * time.Minute }
	hour := func(c *jwks.Config) { c.MaxLifetime = time.Hour }
	anyLifetime := func(c *jwks.Config) { c.MaxLifetime = math.MaxInt64 }
	same := func(*jwks.Config) {}
	at := func(d time.Duration) float64 { return float64(now.Add(d).UnixNano()) / 1e9 }

	for name, test := range map[string]struct {
		change func(*jwks.Config)
		claims object
		want   string
	}{
		"JWT-06 AT-14 exp is now, without leeway":         {exact, object{"exp": at(0)}, expired},
		"AT-14 exp was 30 s ago":                          {same, object{"exp": at(-30 * time.Second)}, expired},
		"AT-15 exp was 29 s ago":                          {same, object{"exp": at(-29 * time.Second)}, ""},
		"AT-15 exp was 5 min ago, with all leeway":        {wide, object{"exp": at(-5 * time.Minute)}, expired},
		"AT-15 exp was almost 5 min ago, with all leeway": {wide, object{"exp": at(-299 * time.Second)}, ""},
		"JWT-05 exp is in half a second":                  {exact, object{"exp": at(500 * time.Millisecond)}, ""},
		"JWT-05 exp was half a second ago":                {exact, object{"exp": at(-500 * time.Millisecond)}, expired},
		"JWT-05 exp is 1e300":                             {exact, object{"exp": 1e300}, farAhead},
		"JWT-05 exp is 9223372036854775808":               {exact, object{"exp": json.RawMessage("9223372036854775808")}, farAhead},
		"JWT-05 exp is 1e300, with any lifetime":          {anyLifetime, object{"exp": 1e300}, ""},
		"JWT-07 nbf is now, without leeway":               {exact, object{"nbf": at(0)}, ""},
		"JWT-07 nbf is in a second, without leeway":       {exact, object{"nbf": at(time.Second)}, notYet},
		"JWT-07 nbf is in 30 s":                           {same, object{"nbf": at(30 * time.Second)}, ""},
		"JWT-08 iat is in 30 s":                           {same, object{"iat": at(30 * time.Second)}, ""},
		"JWT-08 iat is in 31 s":                           {same, object{"iat": at(31 * time.Second)}, notYet},
		"JWT-08 a negative iat":                           {same, object{"iat": -1}, ""},
		"JWT-09 it lives an hour":                         {hour, nil, ""},
		"JWT-09 it lives an hour and a second":            {hour, object{"exp": at(time.Hour + time.Second)}, tooLong},
		"JWT-09 it lives for ever":                        {hour, object{"exp": 1e300}, farAhead},
	} {
		t.Run(name, func(t *testing.T) {
			token, err := open(t, test.change).Verify(background, mint(t, es256, nil, good(test.claims)))
			if test.want != "" {
				refused(t, err, test.want)
				return
			}
			require.NoError(t, err)
			assert.False(t, token.Expiry().IsZero())
			_, err = json.Marshal(token.Expiry())
			assert.NoError(t, err)
		})
	}
	t.Run("JWT-09 without iat the lifetime is not known", func(t *testing.T) {
		for _, lifetime := range []func(*jwks.Config){hour, anyLifetime} {
			_, err := open(t, lenient, lifetime).Verify(background, mint(t, es256, nil, good(object{"iat": nil})))
			refused(t, err, tooLong)
		}
	})
}

func TestDatesInMillisecondsAreRefused(t *testing.T) {
	const day = 24 * time.Hour
	tenYears := now.AddDate(10, 0, 0).Sub(now)
	same := func(*jwks.Config) {}
	allows := func(d time.Duration) func(*jwks.Config) { return func(c *jwks.Config) { c.MaxLifetime = d } }
	seconds := func(d time.Duration) int64 { return now.Add(d).Unix() }

	for name, test := range map[string]struct {
		change func(*jwks.Config)
		claims object
		want   string
		cause  string
	}{
		"exp in milliseconds":                         {same, object{"exp": now.Add(time.Hour).UnixMilli()}, farAhead, "exp is 9999-12-31"},
		"exp in microseconds":                         {same, object{"exp": now.Add(time.Hour).UnixMicro()}, farAhead, "exp is 9999-12-31"},
		"exp that passed an hour ago in milliseconds": {same, object{"exp": now.Add(-time.Hour).UnixMilli()}, farAhead, "exp is"},
		"iat in milliseconds":                         {same, object{"iat": now.UnixMilli()}, farAhead, "iat is"},
		"nbf in milliseconds":                         {same, object{"nbf": now.UnixMilli()}, farAhead, "nbf is"},
		"exp ten years and a second ahead":            {same, object{"exp": seconds(tenYears + time.Second)}, farAhead, "exp is"},
		"milliseconds beyond a long MaxLifetime":      {allows(tenYears + day), object{"exp": now.Add(time.Hour).UnixMilli()}, tooLong, ""},
		"milliseconds with a short MaxLifetime":       {allows(time.Hour), object{"exp": now.Add(time.Hour).UnixMilli()}, farAhead, "exp is"},
		"exp ten years ahead":                         {same, object{"exp": seconds(tenYears)}, "", ""},
		"exp that a long MaxLifetime allows":          {allows(tenYears + day), object{"exp": seconds(tenYears + day), "iat": seconds(0)}, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := open(t, test.change).Verify(background, mint(t, es256, nil, good(test.claims)))
			if test.want == "" {
				require.NoError(t, err)
				return
			}
			refused(t, err, test.want)
			assert.ErrorContains(t, err, test.cause)
		})
	}
}

func TestAccepted(t *testing.T) {
	accept := func(t *testing.T, header, claims object, changes ...func(*jwks.Config)) *valetkey.Token {
		t.Helper()
		token, err := open(t, changes...).Verify(background, mint(t, es256, header, good(claims)))
		require.NoError(t, err)
		return token
	}
	for _, typ := range []string{"at+jwt", "application/at+jwt", "AT+JWT", "Application/At+Jwt"} {
		t.Run("AT-01 AT-02 typ "+typ, func(t *testing.T) { accept(t, object{"typ": typ}, nil) })
	}
	t.Run("JWT-03 names that are not read may differ in letter case only", func(t *testing.T) {
		token := accept(t, nil, object{"email": "a@example.com", "Email": "b@example.com", "appId": 7, "Sid": 8, "address": object{"street": 1, "Street": 2}})
		assert.Empty(t, token.SessionID())
		all := object{}
		require.NoError(t, token.Claims((*map[string]any)(&all)))
		assert.Equal(t, "a@example.com", all["email"])
		assert.Equal(t, "b@example.com", all["Email"])
	})
	t.Run("AT-07 aud is a string", func(t *testing.T) {
		assert.Equal(t, valetkey.ListOf(api), accept(t, nil, object{"aud": api}).Audience())
	})
	t.Run("AT-08 aud is an array that has it", func(t *testing.T) {
		assert.Equal(t, valetkey.ListOf("x", api), accept(t, nil, object{"aud": []string{"x", api}}).Audience())
	})
	t.Run("JWT-11 the slash after an origin is ignored, that after a path is not", func(t *testing.T) {
		for aud, ok := range map[string]bool{api + "/": true, api + "/v1": true, api + "/v1/": false} {
			v := open(t, func(c *jwks.Config) { c.Audience = []string{api, api + "/v1"} })
			token, err := v.Verify(background, mint(t, es256, nil, good(object{"aud": aud})))
			if !ok {
				refused(t, err, otherAud)
				continue
			}
			require.NoError(t, err, aud)
			assert.Equal(t, valetkey.ListOf(aud), token.Audience(), "as in the token")
		}
	})
	t.Run("AUD-04 all audiences are ours, if SoleAudience is set", func(t *testing.T) {
		sole := func(c *jwks.Config) { c.SoleAudience = true }
		_, err := open(t, sole).Verify(background, mint(t, es256, nil, good(object{"aud": []string{"x", api}})))
		refused(t, err, otherAud)
		accept(t, nil, object{"aud": api}, sole)
		accept(t, nil, object{"aud": []string{"other", api}}, sole)
	})
	t.Run("AT-24 acr, auth_time and act are read", func(t *testing.T) {
		token := accept(t, nil, object{"acr": "gold", "auth_time": now.Unix(), "act": object{"sub": "agent", "client_id": "bot", "act": object{"sub": "earlier"}}})
		assert.Equal(t, "gold", token.ACR())
		assert.True(t, now.Equal(token.AuthTime()))
		actor, ok := token.Actor()
		assert.True(t, ok)
		assert.Equal(t, valetkey.Actor{Subject: "agent", ClientID: "bot"}, actor)
	})
	t.Run("the empty values of serializers are absent claims", func(t *testing.T) {
		null := json.RawMessage("null")
		token := accept(t, nil, object{
			"nbf": 0, "sid": "", "cnf": null, "act": null, "acr": []string{}, "auth_time": 0, "scope": null, "nonce": null,
		})
		assert.Equal(t, strings.Repeat("A", 43), accept(t, nil, object{"cnf": object{"jkt": strings.Repeat("A", 43), "x5t#S256": null, "x": null}}).Binding().JWKThumbprint)
		assert.True(t, token.NotBefore().IsZero())
		assert.True(t, token.AuthTime().IsZero())
		assert.True(t, token.Binding().IsZero())
		assert.Empty(t, token.ACR()+token.SessionID())
		assert.Zero(t, token.Scopes().Len())
		_, ok := token.Actor()
		assert.False(t, ok)
	})
	t.Run("AT-18 AT-24 all facts are there, typed or through Claims", func(t *testing.T) {
		cnf := object{"jkt": strings.Repeat("A", 43), "x5t#S256": strings.Repeat("E", 43), "kid": "x"}
		token := accept(t, nil, object{
			"nbf": now.Unix(), "cnf": cnf, "acr": "gold", "amr": []string{"otp"}, "auth_time": now.Unix(), "roles": []string{"boss"},
		})
		assert.Equal(t, issuer, token.Issuer())
		assert.Equal(t, "alice", token.Subject())
		assert.Equal(t, "shop", token.ClientID())
		assert.Equal(t, "1", token.ID())
		assert.Equal(t, valetkey.NewScopes("orders:read", "orders:write"), token.Scopes())
		assert.True(t, now.Equal(token.IssuedAt()))
		assert.True(t, now.Equal(token.NotBefore()))
		assert.True(t, now.Add(time.Hour).Equal(token.Expiry()))
		assert.Equal(t, valetkey.Binding{JWKThumbprint: strings.Repeat("A", 43), CertificateThumbprint: strings.Repeat("E", 43), Unknown: valetkey.ListOf("kid")}, token.Binding())
		var more struct {
			ACR      string
			AMR      []string
			AuthTime int64 `json:"auth_time"`
			Roles    []string
		}
		require.NoError(t, token.Claims(&more))
		assert.Equal(t, "gold", more.ACR)
		assert.Equal(t, []string{"otp"}, more.AMR)
		assert.Equal(t, now.Unix(), more.AuthTime)
		assert.Equal(t, []string{"boss"}, more.Roles)
	})
	t.Run("the answer may be relied on until exp and leeway, while the key stands", func(t *testing.T) {
		v := open(t)
		token, err := v.Verify(background, mint(t, es256, nil, good(nil)))
		require.NoError(t, err)
		assert.True(t, now.Add(time.Hour+30*time.Second).Equal(token.Freshness().Until))
		assert.True(t, token.Freshness().While.Holds())
		v.Close()
		assert.False(t, token.Freshness().While.Holds())
	})
	t.Run("the deadline is exp and leeway, whatever the leeway is", func(t *testing.T) {
		for want, leeway := range map[time.Duration]time.Duration{0: -1, 30 * time.Second: 0, 5 * time.Minute: 5 * time.Minute} {
			v := open(t, func(c *jwks.Config) { c.Leeway = leeway })
			token, err := v.Verify(background, mint(t, es256, nil, good(object{"sid": "session-1"})))
			require.NoError(t, err)
			assert.Equal(t, want, token.Deadline().Sub(token.Expiry()))
			assert.Equal(t, "session-1", token.SessionID())
		}
	})
	t.Run("AT-23 a client on its own behalf is distinguished from a user", func(t *testing.T) {
		assert.True(t, accept(t, nil, object{"sub": "shop"}).ByClient())
		assert.False(t, accept(t, nil, nil).ByClient())
	})
}

func TestScopes(t *testing.T) {
	from := func(names ...string) func(*jwks.Config) {
		return func(c *jwks.Config) { c.Profile, c.Scopes = jwks.Lenient(), names }
	}
	nested := object{"realm_access": object{"roles": []string{"a", "b"}}, "resource_access": object{"my.api": object{"roles": []string{"c"}}}}
	for name, test := range map[string]struct {
		change func(*jwks.Config)
		claims object
		want   valetkey.Scopes
	}{
		"AT-19 a string is split on spaces":              {lenient, object{"scope": "b a B"}, valetkey.NewScopes("B", "a", "b")},
		"AT-20 an empty string grants nothing":           {lenient, object{"scope": ""}, valetkey.Scopes{}},
		"AT-20 spaces too many make no scope":            {lenient, object{"scope": "  a   b "}, valetkey.NewScopes("a", "b")},
		"AT-20 no scope":                                 {lenient, object{"scope": nil}, valetkey.Scopes{}},
		"AT-19 a tab does not split, and is not a scope": {lenient, object{"scope": "a\tb c"}, valetkey.NewScopes("c")},
		"an array":                      {lenient, object{"scope": []string{"b", "a", "", "a"}}, valetkey.NewScopes("a", "b")},
		"an element with a space":       {lenient, object{"scope": []string{"a", "b admin"}}, valetkey.NewScopes("a")},
		"scp beside scope":              {lenient, object{"scp": []string{"c"}, "scope": "a"}, valetkey.NewScopes("a", "c")},
		"scp as a string":               {lenient, object{"scp": "c d", "scope": nil}, valetkey.NewScopes("c", "d")},
		"scp is not read by default":    {func(*jwks.Config) {}, object{"scp": "admin", "scope": "a"}, valetkey.NewScopes("a")},
		"only configured claims":        {from("permissions"), object{"permissions": []string{"p"}, "scp": "x"}, valetkey.NewScopes("p")},
		"several configured claims":     {from("permissions", "scope"), object{"permissions": "p q", "scope": "a"}, valetkey.NewScopes("a", "p", "q")},
		"a path":                        {from("realm_access.roles"), nested, valetkey.NewScopes("a", "b")},
		"a path with a dot in a name":   {from("resource_access.my.api.roles"), nested, valetkey.NewScopes("c")},
		"a configured claim of null":    {from("permissions"), object{"permissions": json.RawMessage("null")}, valetkey.Scopes{}},
		"a path that leads nowhere":     {from("realm_access.x.roles"), nested, valetkey.Scopes{}},
		"a path through a string":       {from("sub.roles"), nested, valetkey.Scopes{}},
		"a name with dots":              {from("https://x.example/roles"), object{"https://x.example/roles": []string{"r"}}, valetkey.NewScopes("r")},
		"the exact name before a path":  {from("a.b"), object{"a": object{"b": "path"}, "a.b": "exact"}, valetkey.NewScopes("exact")},
		"a claim of the name with more": {from("role"), object{"roles": "admin"}, valetkey.Scopes{}},
	} {
		t.Run(name, func(t *testing.T) {
			token, err := open(t, test.change).Verify(background, mint(t, es256, nil, good(test.claims)))
			require.NoError(t, err)
			assert.Equal(t, test.want, token.Scopes())
		})
	}
	for name, claims := range map[string]object{
		"a configured claim that is a number":          {"permissions": 7},
		"a configured claim that is an object":         {"permissions": object{"admin": true}},
		"a configured claim with a number in its list": {"permissions": []any{"p", 7}},
	} {
		t.Run(name+" is refused", func(t *testing.T) {
			_, err := open(t, from("permissions")).Verify(background, mint(t, es256, nil, good(claims)))
			refused(t, err, badClaim)
		})
	}
}

func TestProfile(t *testing.T) {
	untyped := object{"typ": nil}
	for name, test := range map[string]struct {
		header, claims object
		want           string
	}{
		"AT-04 a nonce":                    {untyped, object{"nonce": "n"}, otherKind},
		"AT-04 an at_hash":                 {object{"typ": "JWT"}, object{"at_hash": "h"}, otherKind},
		"AT-04 a c_hash":                   {untyped, object{"c_hash": "h"}, otherKind},
		"AT-04 a logout token":             {untyped, object{"events": object{}}, otherKind},
		"AT-04 Keycloak's ID token":        {untyped, object{"typ": "ID"}, otherKind},
		"AT-04 Keycloak's refresh token":   {untyped, object{"typ": "Refresh"}, otherKind},
		"AT-04 Cognito's ID token":         {untyped, object{"token_use": "id"}, otherKind},
		"AT-04 typ dpop+jwt":               {object{"typ": "dpop+jwt"}, nil, otherKind},
		"AT-04 typ logout+jwt":             {object{"typ": "logout+jwt"}, nil, otherKind},
		"AT-04 typ statuslist+jwt":         {object{"typ": "statuslist+jwt"}, nil, otherKind},
		"AT-04 no exp":                     {untyped, object{"exp": nil}, badClaim},
		"AT-04 no aud":                     {untyped, object{"aud": nil}, badClaim},
		"AT-04 no iss":                     {untyped, object{"iss": nil}, otherIssuer},
		"AT-21 an ID token without nonce":  {untyped, object{"aud": "shop"}, otherAud},
		"a sub that is a fraction":         {untyped, object{"sub": 7.5}, badClaim},
		"a sub that is a boolean":          {untyped, object{"sub": true}, badClaim},
		"an azp that is a number":          {untyped, object{"client_id": nil, "azp": 7}, badClaim},
		"AT-11 alg none":                   {object{"alg": "none", "typ": nil}, nil, otherAlg},
		"no kid, and no key that fits":     {object{"kid": nil, "alg": "ES384"}, nil, unknownKey},
		"no kid, and a key of another alg": {object{"kid": nil, "alg": "PS256"}, nil, unknownKey},
	} {
		t.Run(name+" is refused under lenient settings too", func(t *testing.T) {
			_, err := open(t, lenient).Verify(background, mint(t, es256, test.header, good(test.claims)))
			refused(t, err, test.want)
		})
	}

	for name, test := range map[string]struct {
		header, claims object
		without        func(*jwks.Profile) // the setting it takes
		client         string
	}{
		"AT-04 no typ":          {untyped, nil, func(p *jwks.Profile) { p.AllowUntyped = false }, "shop"},
		"AT-04 typ JWT":         {object{"typ": "JWT"}, nil, func(p *jwks.Profile) { p.AllowUntyped = false }, "shop"},
		"Keycloak's token":      {object{"typ": "JWT"}, object{"typ": "Bearer"}, func(p *jwks.Profile) { p.AllowUntyped = false }, "shop"},
		"JWS-21 no kid":         {object{"kid": nil}, nil, func(p *jwks.Profile) { p.AllowMissingKeyID = false }, "shop"},
		"no sub":                {nil, object{"sub": nil}, func(p *jwks.Profile) { p.AllowMissingSubject = false }, "shop"},
		"no client_id":          {nil, object{"client_id": nil}, func(p *jwks.Profile) { p.AllowMissingClientID = false }, ""},
		"azp for client_id":     {nil, object{"client_id": nil, "azp": "z", "cid": "c"}, func(p *jwks.Profile) { p.AllowMissingClientID = false }, "z"},
		"cid for client_id":     {nil, object{"client_id": nil, "cid": "c"}, func(p *jwks.Profile) { p.AllowMissingClientID = false }, "c"},
		"appid for client_id":   {nil, object{"client_id": nil, "appid": "a"}, func(p *jwks.Profile) { p.AllowMissingClientID = false }, "a"},
		"no jti":                {nil, object{"jti": nil}, func(p *jwks.Profile) { p.AllowMissingID = false }, "shop"},
		"no iat":                {nil, object{"iat": nil}, func(p *jwks.Profile) { p.AllowMissingIssuedAt = false }, "shop"},
		"an array as scope":     {nil, object{"scope": []string{"a"}}, func(p *jwks.Profile) { p.AllowScopeArray = false }, "shop"},
		"a nonce with at+jwt":   {nil, object{"nonce": "n"}, nil, "shop"},
		"a client_id and azp":   {nil, object{"azp": "z"}, nil, "shop"},
		"a complete RFC 9068's": {nil, nil, nil, "shop"},
	} {
		t.Run(name+" is accepted under lenient settings", func(t *testing.T) {
			raw := mint(t, es256, test.header, good(test.claims))
			token, err := open(t, lenient).Verify(background, raw)
			require.NoError(t, err)
			assert.Equal(t, test.client, token.ClientID())
			if test.without == nil {
				return
			}
			_, err = open(t, lenient, func(c *jwks.Config) { test.without(&c.Profile) }).Verify(background, raw)
			assert.Error(t, err, "without the setting")
		})
	}
}

func TestByIssuer(t *testing.T) {
	const second = "urn:second"
	a, b := generate("ES256", "k"), generate("ES256", "k")
	v1 := open(t, func(c *jwks.Config) { c.JWKS = keySet(a) })
	v2 := open(t, func(c *jwks.Config) { c.JWKS, c.Issuer = keySet(b), second })
	both, err := jwks.ByIssuer(v1, v2)
	require.NoError(t, err)

	t.Run("AT-13 JWT-29 a token of one issuer signed with the other's key is refused", func(t *testing.T) {
		_, err := both.Verify(background, mint(t, b, nil, good(nil)))
		refused(t, err, badSignature)
		_, err = both.Verify(background, mint(t, a, nil, good(object{"iss": second})))
		refused(t, err, badSignature)
	})
	t.Run("JWT-39 the algorithms of one issuer are not those of the other", func(t *testing.T) {
		// Both have the key, so that only the lists differ.
		only := func(alg, iss string) *jwks.Verifier {
			return open(t, func(c *jwks.Config) { c.JWKS, c.Issuer, c.Algorithms = keySet(es256, rs256), iss, []string{alg} })
		}
		both, err := jwks.ByIssuer(only("ES256", issuer), only("RS256", second))
		require.NoError(t, err)
		_, err = both.Verify(background, mint(t, rs256, nil, good(nil)))
		refused(t, err, otherAlg)
		_, err = both.Verify(background, mint(t, es256, nil, good(object{"iss": second})))
		refused(t, err, otherAlg)
		_, err = both.Verify(background, mint(t, rs256, nil, good(object{"iss": second})))
		assert.NoError(t, err)
	})
	for name, iss := range map[string]any{
		"missing": nil, "null": json.RawMessage("null"), "an array": []string{issuer, second}, "unknown": "https://third.example", "empty": "",
	} {
		t.Run("JWT-28 a token whose iss is "+name+" is refused", func(t *testing.T) {
			_, err := both.Verify(background, mint(t, a, nil, good(object{"iss": iss})))
			refused(t, err, otherIssuer)
			assert.ErrorIs(t, err, valetkey.ErrNotApplicable)
		})
	}
	t.Run("an opaque token might be another verifier's", func(t *testing.T) {
		_, err := both.Verify(background, "opaque")
		assert.ErrorIs(t, err, valetkey.ErrNotApplicable)
	})
	t.Run("none, nil and two of one issuer are mistakes", func(t *testing.T) {
		for _, vs := range [][]*jwks.Verifier{nil, {v1, nil}, {v1, v2, v1}} {
			v, err := jwks.ByIssuer(vs...)
			assert.ErrorContains(t, err, "jwks: ByIssuer: ")
			assert.Nil(t, v)
		}
	})
	t.Run("each issuer's tokens are accepted", func(t *testing.T) {
		token, err := both.Verify(background, mint(t, a, nil, good(nil)))
		require.NoError(t, err)
		assert.Equal(t, issuer, token.Issuer())
		token, err = both.Verify(background, mint(t, b, nil, good(object{"iss": second})))
		require.NoError(t, err)
		assert.Equal(t, second, token.Issuer())
		assert.Equal(t, second, v2.Issuer())
	})
}
