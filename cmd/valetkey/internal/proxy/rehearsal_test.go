package proxy_test

import (
	"crypto/x509"
	"log/slog"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/proxy"
	"github.com/valetkey/valetkey/scopes"
	"github.com/valetkey/valetkey/valetkeytest"
)

// rehearse makes a request to the proxy that config makes.
func rehearse(t *testing.T, config string, in proxy.Request) *proxy.Outcome {
	t.Helper()
	file := filepath.Join(t.TempDir(), "proxy.yaml")
	require.NoError(t, os.WriteFile(file, []byte(config), 0o600))
	out, err := proxy.Rehearse(t.Context(), file, in, drivers, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	return out
}

// failed returns the check that failed, and makes sure that those before it passed and those after it were skipped.
func failed(t *testing.T, out *proxy.Outcome) (name string) {
	t.Helper()
	want := proxy.Passed
	for _, c := range out.Checks {
		if c.Verdict == proxy.Failed && want == proxy.Passed {
			name, want = c.Name, proxy.Skipped
			continue
		}
		assert.Equal(t, want, c.Verdict, c.Name)
		assert.Regexp(t, `^(RFC \d+|draft-)`, c.Section)
	}
	return name
}

func TestRehearse(t *testing.T) {
	iss, upstream := valetkeytest.NewIssuer(t), &recorder{}
	iss.SetStatus(1, 1)
	server := httptest.NewServer(upstream)
	defer server.Close()
	key, other := iss.ProofKey("ES256"), iss.ProofKey("ES256")
	own, another := valetkeytest.ClientCertificate(t), valetkeytest.ClientCertificate(t)
	certificate, err := x509.ParseCertificate(own.Certificate[0])
	require.NoError(t, err)
	config := `
listen: 127.0.0.1:1
upstream: ` + server.URL + `
resource: ` + valetkeytest.DefaultAudience + `
dpop: {}
mtls: {header: Client-Cert}
trusted_proxies: [10.0.0.0/8]
forwarded_header: Forwarded
redis: {address: "127.0.0.1:1", key: ` + key32 + `}
verifiers:
  - jwks: {issuer: "` + iss.URL + `", status_list: {}, algorithms: [ES256]}
  - introspection: {issuer: "` + iss.URL + `", client_id: ` + valetkeytest.IntrospectionID + `, client_secret: ` + valetkeytest.IntrospectionSecret + `}
routes:
  "GET /orders": orders:read
  "GET /health": "@public"
  "GET /files/": "@any"
`
	at := func(text string) *url.URL {
		u, err := url.Parse(text)
		require.NoError(t, err)
		return u
	}
	var (
		orders  = at("/orders")
		scope   = valetkeytest.Scopes("orders:read")
		toKey   = valetkeytest.BoundTo(key)
		toCert  = valetkeytest.BoundToCertificate(own)
		token   = iss.Token(scope)
		bound   = iss.Token(scope, toKey)
		revoked = iss.Opaque(scope)
	)
	iss.Revoke(revoked)
	proof := func(k *valetkeytest.ProofKey, opts ...valetkeytest.Option) string {
		return k.Proof("GET", valetkeytest.DefaultAudience+"/orders", bound, opts...)
	}
	for _, c := range []struct {
		name   string
		in     proxy.Request
		status int
		failed string
		says   string // the refusal
	}{
		{"a path that reads in two ways", proxy.Request{Token: token, URL: at("/files/..%2forders")}, 400, "its path is unambiguous", "invalid_request: the path reads differently once it is decoded"},
		{"a path that only some servers read so", proxy.Request{Token: token, URL: at("/files/..;x/orders")}, 400, "its path is unambiguous", "invalid_request: the path contains a dot segment with a parameter"},
		{"no token", proxy.Request{URL: orders}, 400, "it carries exactly one token", "invalid_request: the access token is empty"},
		{"a token of characters that none has", proxy.Request{Token: "ü", URL: orders}, 400, "it carries exactly one token", "invalid_request: the access token contains a character"},
		{"an unknown opaque token", proxy.Request{Token: "made-up", URL: orders}, 401, "its issuer reports it active", "invalid_token: the token is not active"},
		{"a revoked opaque token", proxy.Request{Token: revoked, URL: orders}, 401, "its issuer reports it active", "invalid_token: the token is not active"},
		{"a JWT of a stranger", proxy.Request{Token: iss.Token(valetkeytest.WrongIssuer()), URL: orders}, 401, "its issuer is trusted", `invalid_token: no trusted issuer vouches for the token: issuer: "https://wrong-issuer.example.com" in the token, "` + iss.URL + `" configured`},
		{"a JWT of another type", proxy.Request{Token: iss.Token(valetkeytest.Type("JWT")), URL: orders}, 401, "it is an access token", `invalid_token: the token is not an access token: typ: "JWT" in the token, "at+jwt" configured`},
		{"an algorithm that is not allowed", proxy.Request{Token: iss.Token(valetkeytest.Algorithm("RS256")), URL: orders}, 401, "its algorithm is allowed", `invalid_token: the signature algorithm of the token is not allowed: alg: "RS256" in the token, "ES256" configured`},
		{"no key id", proxy.Request{Token: iss.Token(valetkeytest.NoKeyID()), URL: orders}, 401, "it names its key", "invalid_token: the token names no key"},
		{"a claim that is missing", proxy.Request{Token: iss.Token(valetkeytest.Claim("sub", nil)), URL: orders}, 401, "its required claims are present and well-formed", "invalid_token: a claim of the token is missing or malformed: sub is missing, and Profile.AllowMissingSubject is off"},
		{"another audience", proxy.Request{Token: iss.Token(valetkeytest.WrongAudience()), URL: orders}, 401, "it is for this API", `invalid_token: the token is for another audience: audience: "https://wrong-audience.example.com" in the token, "https://api.example.com" configured`},
		{"an expired token", proxy.Request{Token: iss.Token(valetkeytest.Expired()), URL: orders}, 401, "it is valid at this time", "invalid_token: the token has expired: at "},
		{"a token at another time", proxy.Request{Token: token, URL: orders, At: time.Now().Add(time.Hour)}, 401, "it is valid at this time", "invalid_token: the token has expired: at "},
		{"a forged token", proxy.Request{Token: iss.Token(valetkeytest.TamperedSignature()), URL: orders}, 401, "its signature is of a key of its issuer", "invalid_token: the signature of the token is wrong"},
		{"a token that its status list calls revoked", proxy.Request{Token: iss.Token(iss.Status(1)), URL: orders}, 401, "its status list marks it valid", "invalid_token: the token has been revoked: status 1"},
		{"a bound token without a proof", proxy.Request{Token: bound, URL: orders}, 401, "it is sent as its binding requires", "invalid_token: the token is bound to a key that this request does not prove"},
		{"a proof for a token that is bound to nothing", proxy.Request{Token: token, URL: orders, Proof: proof(key)}, 401, "it is sent as its binding requires", "invalid_token: the token is bound to no key"},
		{"an invalid proof", proxy.Request{Token: bound, URL: orders, Proof: "x"}, 401, "the proof is a signed JWT with its public key", "invalid_dpop_proof: the DPoP proof is malformed"},
		{"a proof of another type", proxy.Request{Token: bound, URL: orders, Proof: proof(key, valetkeytest.Type("JWT"))}, 401, "its typ is dpop+jwt", "invalid_dpop_proof: the DPoP proof is of another type"},
		{"a proof for another method", proxy.Request{Token: bound, URL: orders, Method: "HEAD", Proof: proof(key)}, 401, "its htm is the method", "invalid_dpop_proof: the DPoP proof is for another method"},
		{"a proof for another URL", proxy.Request{Token: bound, URL: at("http://api.example.com/orders"), Proof: proof(key)}, 401, "its htu is the URL", `invalid_dpop_proof: the DPoP proof is for another URL: htu: "` + valetkeytest.DefaultAudience + `/orders" in the proof, "`},
		{"a proof for another token", proxy.Request{Token: iss.Token(toKey), URL: orders, Proof: proof(key)}, 401, "its ath is the hash of the token", "invalid_dpop_proof: the DPoP proof is for another access token"},
		{"a proof of another key", proxy.Request{Token: bound, URL: orders, Proof: proof(other)}, 401, "its key is the one that the token is bound to", "invalid_token: the access token is bound to another key"},
		{"an old proof", proxy.Request{Token: bound, URL: orders, Proof: proof(key), At: time.Now().Add(2 * time.Minute)}, 401, "its nonce or its time is valid", "invalid_dpop_proof: the DPoP proof is too old"},
		{"a forged proof", proxy.Request{Token: bound, URL: orders, Proof: proof(key, valetkeytest.TamperedSignature())}, 401, "it is signed with its key", "invalid_dpop_proof: the DPoP proof is not signed with its key"},
		{"no certificate", proxy.Request{Token: iss.Token(scope, toCert), URL: orders}, 401, "the certificate is the one that it is bound to", "invalid_token: the token is bound to a certificate that this request does not come with"},
		{"another certificate", proxy.Request{Token: iss.Token(scope, valetkeytest.BoundToCertificate(another)), URL: orders, Certificate: certificate}, 401, "the certificate is the one that it is bound to", "invalid_token: the token is bound to another certificate"},
		{"a scope that is missing", proxy.Request{Token: iss.Token(), URL: orders}, 403, "its scopes are sufficient for the request", "insufficient_scope: the token lacks a scope"},
		{"a scope that is asked for", proxy.Request{Token: token, Need: scopes.All("admin")}, 403, "its scopes are sufficient for the request", "insufficient_scope: the token lacks a scope"},
		{"a route that is not there", proxy.Request{Token: token, URL: at("/admin")}, 403, "its scopes are sufficient for the request", "insufficient_scope: the token lacks a scope"},
		{"a name for no header", proxy.Request{Token: iss.Token(valetkeytest.Subject("a\nb"))}, 401, "headers can carry its identity", "invalid_token: the token contains a name that no header can carry"},

		{"a good token", proxy.Request{Token: token, URL: orders}, 200, "", ""},
		{"a good opaque token", proxy.Request{Token: iss.Opaque(scope), URL: orders}, 200, "", ""},
		{"a good token for any request", proxy.Request{Token: iss.Token()}, 200, "", ""},
		{"a proof", proxy.Request{Token: bound, URL: orders, Proof: proof(key)}, 200, "", ""},
		{"a certificate", proxy.Request{Token: iss.Token(scope, toCert), URL: orders, Certificate: certificate}, 200, "", ""},
		{"an expired token at its time", proxy.Request{Token: iss.Token(scope, valetkeytest.Expired()), URL: orders, At: time.Now().Add(-2 * time.Hour)}, 200, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			out := rehearse(t, config, c.in)
			assert.Equal(t, c.status, out.Status)
			assert.Equal(t, c.failed, failed(t, out))
			assert.NotEmpty(t, out.Checks)
			require.NoError(t, out.Failure)
			if c.says == "" {
				assert.Nil(t, out.Refusal)
				return
			}
			assert.True(t, strings.HasPrefix(out.Refusal.Error(), c.says), out.Refusal)
			assert.NotEmpty(t, out.Header["Www-Authenticate"])
		})
	}
	assert.Nil(t, upstream.take(), "nothing goes to the upstream")

	t.Run("the row that decides", func(t *testing.T) {
		out := rehearse(t, config, proxy.Request{Token: token, URL: orders})
		assert.Equal(t, []string{"GET https://api.example.com/orders", "GET /orders", "orders:read"}, []string{out.Request, out.Row, out.Need})
		out = rehearse(t, config, proxy.Request{Token: token, URL: at("/admin")})
		assert.Empty(t, out.Row)
	})
	t.Run("what does not concern the token", func(t *testing.T) {
		out := rehearse(t, config, proxy.Request{Token: "x", URL: at("/health")})
		assert.Equal(t, 200, out.Status)
		assert.Equal(t, "public", out.Need)
		assert.Empty(t, out.Checks)
		out = rehearse(t, config, proxy.Request{Token: "x", URL: at("/files/../orders")})
		assert.Equal(t, 307, out.Status)
		assert.Equal(t, "/orders", out.Header.Get("Location"))
		assert.Empty(t, out.Checks)
	})
	t.Run("an alias of the issuer has the checks of its verifier", func(t *testing.T) {
		alias := strings.Replace(config, `issuer: "`+iss.URL+`", status_list`, `issuer: "`+iss.URL+`", issuer_aliases: "https://wrong-issuer.example.com", status_list`, 1)
		token := iss.Token(iss.Status(1), valetkeytest.WrongIssuer())
		assert.Equal(t, "its status list marks it valid", failed(t, rehearse(t, alias, proxy.Request{Token: token})))
	})
	t.Run("not a JWT, without an endpoint to ask", func(t *testing.T) {
		alone := regexp.MustCompile(`(?m)^  - introspection.*\n|, status_list: \{\}`).ReplaceAllString(config, "")
		assert.Equal(t, "the token is a signed JWT", failed(t, rehearse(t, alone, proxy.Request{Token: "made-up"})))
		two := strings.Replace(alone, "\nroutes:", "\n  - jwks: {issuer: \"https://as.example.com\", status_list: {}}\nroutes:", 1)
		assert.Equal(t, "the token is a signed JWT", failed(t, rehearse(t, two, proxy.Request{Token: "made-up"})))
		assert.Equal(t, "its issuer is trusted", failed(t, rehearse(t, two, proxy.Request{Token: iss.Token(valetkeytest.WrongIssuer())})))
	})
	t.Run("a certificate wherever the configuration looks for it", func(t *testing.T) {
		dir := besides(t, map[string]string{"crt": certificatePEM, "key": keyPEM})
		for _, place := range []string{"mtls: {header: X-SSL-Cert}\ntrusted_proxies: ['::1']",
			"mtls: {header: X-Forwarded-Client-Cert}\ntrusted_proxies: ['::1']", "mtls: {header: X-Cert, format: der}\ntrusted_proxies: ['::1']", "mtls: {}\ntls: {cert_file: " + dir + "/crt, key_file: " + dir + "/key}"} {
			config, _ := guarded(t, iss, place)
			in := proxy.Request{Token: iss.Token(scope, toCert), URL: orders}
			assert.Equal(t, 401, rehearse(t, config, in).Status)
			in.Certificate = certificate
			assert.Equal(t, 200, rehearse(t, config, in).Status)
			in.Token = iss.Token(scope, valetkeytest.BoundToCertificate(another))
			assert.Equal(t, 401, rehearse(t, config, in).Status)
		}
	})
	t.Run("without a URL for a resource, the API is where it listens", func(t *testing.T) {
		named := strings.Replace(config, "resource: "+valetkeytest.DefaultAudience, "resource: urn:orders", 1)
		assert.Equal(t, "GET http://127.0.0.1:1/orders", rehearse(t, named, proxy.Request{Token: token, URL: orders}).Request)
	})
	t.Run("unreachable keys are not a refusal", func(t *testing.T) {
		iss.KeySet.Fail(500)
		defer iss.KeySet.Restore()
		out := rehearse(t, config, proxy.Request{Token: token, URL: orders})
		assert.ErrorContains(t, out.Failure, "status 500")
		assert.Equal(t, 503, out.Status)
		assert.Nil(t, out.Refusal)
	})
}

// A reason that inspect does not know would leave every check as passed.
func TestEveryReasonHasItsCheck(t *testing.T) {
	known := map[valetkey.Reason]bool{ // reasons that cannot occur in a proxy, or only in a running one
		valetkey.ReasonNoCredentials:  true, // a rehearsal has a token
		valetkey.ReasonFormUnreadable: true, valetkey.ReasonFormTooLong: true, valetkey.ReasonFormMalformed: true, valetkey.ReasonQueryMalformed: true,
		valetkey.ReasonForwardedMalformed: true, valetkey.ReasonHostMalformed: true, // inspect writes them itself
		valetkey.ReasonExpiredMeanwhile: true, valetkey.ReasonPerhapsRevokedMeanwhile: true, valetkey.ReasonProofUsed: true,
		valetkey.ReasonClaims:         true,                          // a file declares no type of claims
		valetkey.ReasonBindingsDiffer: true,                          // no verifier of a file cross-checks
		valetkey.ReasonNoRequirement:  true,                          // no route of a file has an empty AllOf
		"not_api_key":                 true, "unknown_api_key": true, // no verifier of a file is for API keys
		"gateway_question": true, "identity_claimed": true, // of package valetforward, about what a gateway sends
		"token_of_user": true, "registration_initial_token": true, "registration_initial_token_used_up": true, "registration_token": true,
		"registration_operator": true, // of package authserver, which other tests import
	}
	for _, r := range proxy.CheckedReasons() {
		assert.False(t, known[r], "%s has a check", r)
		assert.True(t, r.Known(), r)
		known[r] = true
	}
	for _, r := range valetkey.Reasons() {
		assert.True(t, known[r], "no check is made for %s: %s", r, r.Description())
	}
}
