package cli_test

import (
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/cmd/valetkey/internal/cli"
	"github.com/valetkey/valetkey/valetkeytest"
)

// encode returns a token of these parts.
func encode(parts ...string) string {
	for i, p := range parts {
		parts[i] = base64.RawURLEncoding.EncodeToString([]byte(p))
	}
	return strings.Join(parts, ".")
}

func TestInspect(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	key, own := iss.ProofKey("ES256"), valetkeytest.ClientCertificate(t)
	note := valetkeytest.Claim("note", "red\x1b[31m\u202e")
	long := "opaque-" + strings.Repeat("x", 20)
	for _, c := range []struct {
		name, token string
		lines       []string // that are printed
	}{
		{"an opaque token", long, []string{"opaque, 27 characters: only its issuer can interpret it (RFC 7662)"}},
		{"three parts of something else", "a.b.c", []string{"opaque, 5 characters: only its issuer can interpret it (RFC 7662)"}},
		{"an encrypted JWT", encode(`{"alg":"RSA-OAEP","enc":"A256GCM"}`, "k", "i", "c", "t"), []string{"an encrypted JWT (RFC 7516), which is not supported", "alg  RSA-OAEP"}},
		{"a JWT without a signature", iss.Token(valetkeytest.Unsigned()), []string{"a signed JWT: an access token (RFC 9068)", "malformed, must be refused: the token has no signature", "sub        alice"}},
		{"a JWT with something else for claims", encode(`{"alg":"ES256"}`, "[1]", "signature"), []string{"a signed JWT: type unspecified", "malformed, must be refused: "}},
		{"an invalid binding", iss.Token(valetkeytest.Claim("cnf", map[string]string{})), []string{"malformed, must be refused: cnf is empty"}},
		{"an unknown binding", iss.Token(valetkeytest.Claim("cnf", map[string]string{"kid": "x"})), []string{`bound to something by the method "kid", which is not supported (RFC 7800)`}},
		{"a proof", key.Proof("GET", "https://api.example.com/", ""), []string{"a signed JWT: a DPoP proof, not a token (RFC 9449)"}},
		{"a status list", iss.StatusListToken(), []string{"a signed JWT: a status list, not a token"}},
		{"an access token", iss.Token(note), []string{"a signed JWT: an access token (RFC 9068)", "not bound: anyone who has it can use it (RFC 6750)", "alg  ES256", "iss        " + iss.URL, "sub        alice", `note       "red\x1b[31m\u202e"`}},
		{"a token of a type in full", iss.Token(valetkeytest.Type("application/AT+JWT")), []string{"a signed JWT: an access token (RFC 9068)"}},
		{"a token that is bound to both", iss.Token(valetkeytest.Claim("cnf", map[string]string{"jkt": key.Thumbprint(), "x5t#S256": key.Thumbprint()})), []string{
			"bound to the key with the thumbprint " + key.Thumbprint() + ": requires a DPoP proof (RFC 9449)",
			"bound to the certificate with the thumbprint " + key.Thumbprint() + ": requires TLS with that certificate (RFC 8705)"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, out, errs := run(t, c.token+"\n", "inspect", "-")
			assert.Equal(t, cli.Good, code, errs)
			assert.Empty(t, errs)
			for _, line := range c.lines {
				assert.Contains(t, "\n"+out, "\n"+line)
			}
			if parts := strings.Split(c.token, "."); len(parts) == 3 && len(parts[2]) > 4 {
				assert.NotContains(t, out, parts[2], "the signature")
			}
			assert.NotContains(t, out, long)
		})
	}
	t.Run("both values of what differs, and the setting of the file that allows it", func(t *testing.T) {
		config := write(t, "proxy.yaml", "{listen: '127.0.0.1:1', upstream: 'http://127.0.0.1:1', resource: "+valetkeytest.DefaultAudience+
			", verifiers: [jwks: {issuer: '"+iss.URL+"'}], routes: {/: '@any'}}")
		for want, token := range map[string]string{
			`(issuer: "https://wrong-issuer.example.com" in the token, "` + iss.URL + `" configured)`:                          iss.Token(valetkeytest.WrongIssuer()),
			`(audience: "https://wrong-audience.example.com" in the token, "` + valetkeytest.DefaultAudience + `" configured)`: iss.Token(valetkeytest.WrongAudience()),
			`(typ: "JWT" in the token, "at+jwt" configured, and allow: untyped is off)`:                                        iss.Token(valetkeytest.Type("JWT")),
			`(alg: "RS512" in the token, "RS256", "PS256", "ES256", "ES384", "EdDSA", "Ed25519" configured)`:                   iss.Token(valetkeytest.Algorithm("RS512")),
		} {
			code, out, errs := run(t, "", "inspect", "--config", config, token)
			assert.Equal(t, cli.No, code, errs)
			assert.Contains(t, out, want)
		}
	})
	t.Run("times in words", func(t *testing.T) {
		at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
		token := iss.Token(valetkeytest.Claim("iat", at.Add(-90*time.Second).Unix()), valetkeytest.Claim("exp", at.AddDate(0, 0, 3).Unix()),
			valetkeytest.Claim("auth_time", at.AddDate(-3, 0, 0).Unix()), valetkeytest.Claim("nbf", 1e300))
		_, out, _ := run(t, "", "inspect", "--at", at.Format(time.RFC3339), token)
		for _, want := range []string{"(2026-01-02T03:02:35Z, 1m30s ago)", "(2026-01-05T03:04:05Z, in 3 days)", "(2023-01-02T03:04:05Z, 3 years ago)", "(9999-12-31T23:59:59Z, in "} {
			assert.Contains(t, out, want)
		}
	})
	t.Run("as JSON", func(t *testing.T) {
		_, out, _ := run(t, "", "inspect", "--json", iss.Token(valetkeytest.BoundToCertificate(own)))
		var got struct {
			Kind           string
			Header, Claims map[string]any
			BoundTo        []string `json:"bound_to"`
			Request        any
		}
		require.NoError(t, json.Unmarshal([]byte(out), &got))
		assert.Equal(t, "at+jwt", got.Header["typ"])
		assert.Equal(t, "alice", got.Claims["sub"])
		assert.Len(t, got.BoundTo, 1)
		assert.Nil(t, got.Request)
	})
}

func TestInspectWithAProxy(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	config := write(t, "proxy.yaml", `
listen: 127.0.0.1:1
upstream: http://127.0.0.1:1
resource: `+valetkeytest.DefaultAudience+`
verifiers: [jwks: {issuer: "`+iss.URL+`"}]
dpop: {}
mtls: {header: Client-Cert}
trusted_proxies: [10.0.0.0/8]
routes: {"GET /orders": orders:read, "/health": "@public"}
`)
	key, own := iss.ProofKey("ES256"), valetkeytest.ClientCertificate(t)
	cert := write(t, "client.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: own.Certificate[0]})))
	scope := valetkeytest.Scopes("orders:read")
	bound := iss.Token(scope, valetkeytest.BoundTo(key))
	inspect := []string{"inspect", "--config", config, "--request", "GET /orders"}
	for _, c := range []struct {
		name string
		args []string
		code int
		says []string
	}{
		{"an expired token", with(inspect, iss.Token(scope, valetkeytest.Expired())), cli.No, []string{
			"GET https://api.example.com/orders\ndecided by \"GET /orders\": orders:read\n\nok  its path is unambiguous ",
			"\nok  it is for this API ", "\nok  its client and claims are accepted here ", "\nNO  it is valid at this time                         RFC 7519, sections 4.1.4 and 4.1.5\n-   its signature is of a key of its issuer ",
			"\n401 invalid_token: the token has expired (at 20", "\nWWW-Authenticate: Bearer realm=\"api\", error=\"invalid_token\", ", "\nWWW-Authenticate: DPoP "}},
		{"too little scope", with(inspect, iss.Token()), cli.No, []string{"\nNO  its scopes are sufficient for the request        RFC 6750, section 3.1\n", "\n403 insufficient_scope: ", `scope="orders:read"`}},
		{"a bound token without its proof", with(inspect, bound), cli.No, []string{"\nNO  it is sent as its binding requires "}},
		{"what no route decides", with(without(inspect, "--request"), "--request", "GET /admin", iss.Token()), cli.No, []string{
			"no route matches, so the request is refused\n", "\n403 insufficient_scope: "}},
		{"a path that is not clean", with(without(inspect, "--request"), "--request", "GET /x/../orders", iss.Token()), cli.No, []string{"\n307 to /orders\n"}},
		{"a scope in place of the routes'", with(without(inspect, "--request"), "--scope", "a | b", iss.Token(scope)), cli.No, []string{"decided without the routes: a | b\n"}},

		{"a method that the metadata does not have", with(without(inspect, "--request"), "--request", "DELETE /.well-known/oauth-protected-resource", "x"), cli.No, []string{"\n405 from the proxy itself\n"}},
		{"the metadata of the API", with(without(inspect, "--request"), "--request", "GET /.well-known/oauth-protected-resource", "x"), cli.Good, []string{
			"GET https://api.example.com/.well-known/oauth-protected-resource\n\n200 from the proxy itself\n"}},
		{"a good token", with(inspect, iss.Token(scope)), cli.Good, []string{"\nthe request would go to the upstream\n"}},
		{"a good token for any request", with(without(inspect, "--request"), iss.Token()), cli.Good, []string{"decided without the routes: any token\n"}},
		{"an expired token at its time", with(inspect, "--at", time.Now().Add(-2*time.Hour).Format(time.RFC3339), iss.Token(scope, valetkeytest.Expired())), cli.Good, nil},
		{"a bound token with its proof", with(inspect, "--proof", key.Proof("GET", "https://api.example.com/orders", bound), bound), cli.Good, []string{
			"\nok  its ath is the hash of the token ", "RFC 9449, section 4.3, check 12\n"}},
		{"a token with its certificate", with(inspect, "--cert", cert, iss.Token(scope, valetkeytest.BoundToCertificate(own))), cli.Good, []string{
			"\nok  the certificate is the one that it is bound to   RFC 8705, section 3\n"}},
		{"a public route", with(without(inspect, "--request"), "--request", "GET http://a.example.com/health", "x"), cli.Good, []string{"GET http://a.example.com/health\ndecided by \"/health\": public\n\nthe request would go to the upstream"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, out, errs := run(t, "", c.args...)
			assert.Equal(t, c.code, code, errs)
			assert.Empty(t, errs)
			for _, want := range c.says {
				assert.Contains(t, out, want)
			}
			token := c.args[len(c.args)-1]
			if _, signature, found := strings.Cut(token, "."); found {
				assert.NotContains(t, out, signature)
			}
		})
	}
	t.Run("as JSON", func(t *testing.T) {
		code, out, _ := run(t, "", with(inspect, "--json", iss.Token())...)
		assert.Equal(t, cli.No, code)
		var got struct {
			Request struct {
				Row     string
				Status  int
				Checks  []struct{ Check, Section, Verdict string }
				Refusal map[string]string
			}
		}
		require.NoError(t, json.Unmarshal([]byte(out), &got))
		assert.Equal(t, 403, got.Request.Status)
		assert.Equal(t, "insufficient_scope", got.Request.Refusal["error"])
		verdicts := map[string]string{}
		for _, c := range got.Request.Checks {
			verdicts[c.Check] = c.Verdict
		}
		assert.Equal(t, "NO", verdicts["its scopes are sufficient for the request"])
	})
	t.Run("keys out of reach are a failure", func(t *testing.T) {
		iss.KeySet.Fail(500)
		defer iss.KeySet.Restore()
		code, out, errs := run(t, "", with(inspect, iss.Token(scope))...)
		assert.Equal(t, cli.Mistake, code)
		assert.Contains(t, out, "503 because the result could not be determined")
		assert.Contains(t, errs, "status 500")
	})
	t.Run("mistakes", func(t *testing.T) {
		noCert := write(t, "x.pem", "x")
		for _, c := range []struct {
			name string
			args []string
			want []string
		}{
			{"nothing", []string{"inspect"}, []string{"expected one token argument"}},
			{"all at once", []string{"inspect", "--request", "orders", "--scope", "a | ", "--cert", noCert, "--at", "noon", "--proof", "x"}, []string{
				`--request: "orders" is not a method and a URL`, "--scope: scopes: ", "--cert: " + noCert + ": does not begin with", `--at: "noon" is not a time`,
				"--config: required with", "expected one token argument"}},
			{"a proof without a request", []string{"inspect", "--config", config, "--proof", "x", "x"}, []string{"--request: required with --proof"}},
			{"a file that is not there", []string{"inspect", "--config", "/nowhere/proxy.yaml", "x"}, []string{"open /nowhere/proxy.yaml"}},
			{"a file of something else", []string{"inspect", "--config", noCert, "x"}, []string{noCert + ":1: is not a mapping"}},
			{"a token that looks like a flag", []string{"inspect", "-abc"}, []string{"an argument begins with a hyphen"}},
		} {
			code, out, errs := run(t, "", c.args...)
			assert.Equal(t, cli.Mistake, code, c.name)
			assert.Empty(t, out, c.name)
			for _, want := range c.want {
				assert.Contains(t, "\n"+errs, "\nvaletkey: "+want, c.name)
			}
			assert.NotContains(t, errs, "-abc")
		}
		_, out, _ := run(t, "", "inspect", "--help")
		assert.Contains(t, out, "The exit code is 0 if the request would go to the upstream")
	})
}
