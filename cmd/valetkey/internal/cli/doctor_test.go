package cli_test

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/cmd/valetkey/internal/cli"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/clitest"
	"github.com/valetkey/valetkey/valetkeytest"
)

// lines returns the lines of the output that begin with level.
func linesOf(out, level string) (lines []string) {
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, level) {
			lines = append(lines, strings.TrimSpace(strings.TrimPrefix(line, level)))
		}
	}
	return lines
}

// proxyFile writes the configuration of a proxy whose verifier is given.
func proxyFile(t *testing.T, verifier string) string {
	t.Helper()
	return write(t, "proxy.yaml", fmt.Sprintf(`
listen: 127.0.0.1:1
upstream: http://127.0.0.1:1
resource: %s
verifiers:
  - %s
routes: {/: "@any"}
`, valetkeytest.DefaultAudience, verifier))
}

// seconds matches about ten minutes: a Date header has whole seconds, and a machine with other work takes some to read it.
var seconds = regexp.MustCompile(`9m5\ds|10m\d+s`)

// A misconfiguration has one line that names its cause and the setting.
func TestDoctorOnMisconfigurations(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	rsa := valetkeytest.NewIssuer(t, valetkeytest.SignWith("RS256"))
	secure := valetkeytest.NewIssuer(t, valetkeytest.TLS())
	moved := valetkeytest.NewIssuer(t)
	moved.Metadata.Answer(`{"issuer":"http://127.0.0.1:8443","jwks_uri":"` + moved.KeySet.URL + `"}`)
	gone := valetkeytest.NewIssuer(t)
	gone.KeySet.Fail(404)
	captive := valetkeytest.NewIssuer(t)
	captive.Metadata.Garbage()
	captiveKeys := valetkeytest.NewIssuer(t)
	captiveKeys.KeySet.Garbage()
	late := valetkeytest.NewIssuer(t)
	late.Metadata.Serve(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Date", time.Now().Add(-10*time.Minute).UTC().Format(http.TimeFormat))
		fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q}`, late.URL, late.KeySet.URL)
	})
	plain := "http" + strings.TrimPrefix(secure.URL, "https")
	dead := clitest.FreeAddr(t)
	back := strings.Replace(iss.URL, "127.0.0.1", "localhost", 1)
	redirecting := httptest.NewServer(http.RedirectHandler("https://login.example.com/start?next=secret", http.StatusFound))
	defer redirecting.Close()

	jwks := func(iss string, more string) string { return fmt.Sprintf("jwks: {issuer: %q%s}", iss, more) }
	for _, c := range []struct {
		name     string
		verifier string
		token    string
		want     string // the only line with fail
	}{
		{"a slash at the end of the issuer", jwks(iss.URL+"/", ""), "",
			`issuer: "` + iss.URL + `/" configured, "` + iss.URL + `" in the metadata at ` + iss.URL + `/.well-known/oauth-authorization-server: without a slash at the end; set issuer: "` + iss.URL + `" (in Go: Issuer: "` + iss.URL + `")`},
		{"another port in the metadata", jwks(moved.URL, ""), "",
			`issuer: "` + moved.URL + `" configured, "http://127.0.0.1:8443" in the metadata at ` + moved.Metadata.URL + `: another port; set issuer: "http://127.0.0.1:8443" (in Go: Issuer: "http://127.0.0.1:8443")`},
		{"a port on which nothing listens", jwks("http://"+dead, ""), "",
			"issuer: connection refused by " + dead + `: wrong host or port, or the issuer does not run; set issuer: "http://HOST:PORT" (in Go: Issuer: "http://HOST:PORT")`},
		{"http instead of https", jwks(plain, ""), "",
			"issuer: " + strings.TrimPrefix(plain, "http://") + ` speaks TLS only, and the URL begins with http; set issuer: "` + secure.URL + `" (in Go: Issuer: "` + secure.URL + `")`},
		{"a certificate that is not trusted", jwks(secure.URL, ""), "",
			"issuer: the TLS certificate of " + strings.TrimPrefix(secure.URL, "https://") + " is not trusted: x509: certificate signed by unknown authority; " +
				`add its CA to the roots of the system (SSL_CERT_FILE); set ca_file: "ca.pem" (in Go: KeyRequests: jwks.KeyRequests{CAFile: "ca.pem"})`},
		{"a port on which nothing listens, and a token that has the right one", jwks("http://"+dead, ""), iss.Token(),
			"issuer: connection refused by " + dead + `: wrong host or port, or the issuer does not run; set issuer: "` + iss.URL + `" (in Go: Issuer: "` + iss.URL + `")`},
		{"a host name that the metadata does not have, and the tokens do", jwks(back, ""), iss.Token(valetkeytest.Claim("iss", back)),
			`issuer: "` + back + `" configured, "` + iss.URL + `" in the metadata at ` + back + `/.well-known/oauth-authorization-server: another host; the token is of the configured one; set url: "` + iss.KeySet.URL + `" (in Go: JWKSURL: "` + iss.KeySet.URL + `")`},
		{"https instead of http", jwks("https"+strings.TrimPrefix(iss.URL, "http"), ""), "",
			"issuer: " + strings.TrimPrefix(iss.URL, "http://") + ` speaks plain HTTP, and the URL begins with https; set issuer: "` + iss.URL + `" (in Go: Issuer: "` + iss.URL + `")`},
		{"another audience", jwks(iss.URL, ""), iss.Token(valetkeytest.WrongAudience()),
			`audience: "https://wrong-audience.example.com" in the token, "https://api.example.com" configured; if the token is meant for this API, set audience: ["https://wrong-audience.example.com"] (in Go: Audience: []string{"https://wrong-audience.example.com"})`},
		{"an ID token", jwks(iss.URL, ", profile: lenient"), iss.Token(valetkeytest.Type("JWT"), valetkeytest.Audience("web"), valetkeytest.Claim("nonce", "n")),
			`token: it is an ID token, not an access token: it has the claim nonce; the client must send the access token; if this API is for ID tokens, set allow: [id_tokens], clients: ["web"] (in Go: Profile: jwks.Profile{AllowIDTokens: true}, Clients: []string{"web"})`},
		{"a clock that is off", jwks(late.URL, ""), "",
			"clock: the clock of this machine is 10m0s ahead of that of the issuer: tokens expire early; synchronize both with NTP; leeway is at most 5m0s"},
		{"a key set that is not there", jwks(gone.URL, ""), "",
			"key set: " + gone.KeySet.URL + ` returns status 404, and is the jwks_uri of the metadata; set url: "https://..." (in Go: JWKSURL: "https://...")`},
		{"a page of a proxy in between", jwks(captive.URL, ""), "",
			"issuer: " + captive.Metadata.URL + " returns an HTML page instead of JSON; a proxy or a login page between this host and the issuer, or a wrong URL; set the variables HTTPS_PROXY and NO_PROXY of the process, or issuer (in Go: Client: &http.Client{Transport: ...})"},
		{"a page in place of the key set", jwks(captiveKeys.URL, ""), "",
			"key set: " + captiveKeys.KeySet.URL + ` returns an HTML page instead of JSON, and is the jwks_uri of the metadata; a proxy or a login page between this host and the issuer, or a wrong URL; set url: "https://..." (in Go: JWKSURL: "https://...")`},
		{"a redirect to a login page", jwks(redirecting.URL, ""), "",
			"issuer: " + redirecting.URL + "/.well-known/oauth-authorization-server redirects (302) to \"https://login.example.com/start\", and redirects are not followed; a proxy or a login page between this host and the issuer, or a wrong URL; set the variables HTTPS_PROXY and NO_PROXY of the process, or issuer (in Go: Client: &http.Client{Transport: ...})"},
		{"an issuer without the path of its realm", jwks(iss.URL+"/realms/shop", ""), "",
			"issuer: no metadata at " + iss.URL + "/.well-known/oauth-authorization-server/realms/shop and the other well-known locations: status 404; " +
				`the path is wrong or incomplete, such as that of a realm, or the issuer has no metadata and the URL of its key set is needed; set issuer, or url: "https://..." (in Go: Issuer, or JWKSURL: "https://...")`},
		{"only RS256, and other algorithms allowed", jwks(rsa.URL, ", algorithms: [ES256, EdDSA]"), "",
			`algorithms: the keys are for RS256, and ES256, EdDSA are configured; set algorithms: ["RS256"] (in Go: Algorithms: []string{"RS256"})`},
		{"an opaque token", jwks(iss.URL, ""), iss.Opaque(),
			`token: it is opaque (26 characters), and a verifier with keys accepts JWTs only; ask its issuer about it, or have the issuer issue JWTs for this API; ` +
				`set introspection: {issuer: "...", client_id: "...", client_secret_file: "..."} in place of jwks (in Go: introspect.New(introspect.Config{Issuer: "...", Audience: ..., Auth: introspect.BasicAuth(id, secret)}))`},
		{"a secret that the endpoint does not accept", fmt.Sprintf("introspection: {issuer: %q, client_id: x, client_secret: y}", iss.URL), "",
			"introspection: fetch " + iss.Introspection.URL + ": status 401; the client id or the secret is wrong, or the endpoint expects them in another form; set auth: basic_raw, or auth: post (in Go: Auth: introspect.RawBasicAuth(id, secret), or introspect.PostAuth(id, secret))"},
	} {
		t.Run(c.name, func(t *testing.T) {
			args := []string{"doctor", "--config", proxyFile(t, c.verifier)}
			if c.token != "" {
				args = append(args, "--token", "-")
			}
			code, out, errs := run(t, c.token+"\n", args...)
			assert.Equal(t, cli.No, code)
			assert.Empty(t, errs)
			failed := linesOf(out, "fail")
			require.Len(t, failed, 1, out)
			assert.Equal(t, c.want, seconds.ReplaceAllString(failed[0], "10m0s"))
			assert.NotContains(t, out, "next=")
			if c.token != "" {
				assert.NotContains(t, out, c.token[len(c.token)-20:])
			}
		})
	}
}

func TestDoctor(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	u, err := url.Parse(iss.URL)
	require.NoError(t, err)
	flags := []string{"doctor", "--issuer", iss.URL, "--audience", valetkeytest.DefaultAudience}
	t.Run("nothing is wrong", func(t *testing.T) {
		code, out, errs := run(t, iss.Token(valetkeytest.Scopes("orders:read")), with(flags, "--token", "-")...)
		assert.Equal(t, cli.Good, code, out+errs)
		assert.Empty(t, linesOf(out, "fail"))
		assert.Empty(t, linesOf(out, "warn"))
		for _, want := range []string{`issuer: "` + iss.URL + `" is that of the metadata`, "key set: " + iss.KeySet.URL + " has 1 usable key: ", "clock: ", "algorithms: ES256", `token: accepted: subject "alice"`, "scopes: orders:read"} {
			assert.Contains(t, out, want)
		}
	})
	t.Run("each setting that a token needs", func(t *testing.T) {
		token := iss.Token(valetkeytest.Type("JWT"), valetkeytest.NoKeyID(), valetkeytest.Claim("client_id", nil), valetkeytest.Claim("jti", nil), valetkeytest.Claim("scope", nil),
			valetkeytest.Claim("scp", []string{"orders:read"}), valetkeytest.WrongAudience(), valetkeytest.Expired())
		code, out, _ := run(t, token, with(flags, "--token", "-")...)
		assert.Equal(t, cli.No, code)
		for _, want := range []string{"allow: [untyped] (in Go: Profile: jwks.Profile{AllowUntyped: true})", "AllowMissingKeyID", "allow: [missing_client_id]", "AllowMissingID", "Audience: []string{", "it expired at", `scopes: ["scope", "scp"]`} {
			assert.Contains(t, out, want)
		}
		assert.Len(t, linesOf(out, "fail"), 6, out)
	})
	t.Run("the settings that a token without aud needs, with its marker", func(t *testing.T) {
		token := iss.Token(valetkeytest.Claim("aud", nil), valetkeytest.Claim("client_id", "shop"), valetkeytest.Claim("token_use", "access"))
		_, out, _ := run(t, token, with(flags, "--token", "-")...)
		assert.Equal(t, []string{`audience: the token has no aud; its client_id is "shop"; set audience_claim: "client_id", audience: "shop", markers: ["token_use = access"] (in Go: AudienceClaim: "client_id", Audience: []string{"shop"}, Markers: []claims.Rule{claims.Equal("token_use", "access")})`}, linesOf(out, "fail"))
	})
	t.Run("a token of another issuer", func(t *testing.T) {
		_, out, _ := run(t, iss.Token(valetkeytest.Claim("iss", "http://localhost:"+u.Port())), with(flags, "--token", "-")...)
		assert.Equal(t, []string{`issuer: "http://localhost:` + u.Port() + `" in the token, "` + iss.URL + `" configured: another host; set issuer: "http://localhost:` + u.Port() + `" (in Go: Issuer: "http://localhost:` + u.Port() + `")`}, linesOf(out, "fail"))
	})
	t.Run("a token that is too long, and one that is padded", func(t *testing.T) {
		long := iss.Token(valetkeytest.Claim("groups", strings.Repeat("group,", 3000)), valetkeytest.Scopes("a"))
		_, out, _ := run(t, long, with(flags, "--token", "-")...)
		assert.Equal(t, []string{fmt.Sprintf("token: it has %d bytes, and at most 16384 are accepted; the guard has the same limit; set max_token_bytes: 32768, at the top level (in Go: MaxTokenBytes: 32768, also of middleware.Config)", len(long))}, linesOf(out, "fail"))
		assert.Contains(t, out, "scopes: a")
		parts := strings.Split(iss.Token(), ".")
		for i, part := range parts {
			parts[i] = part + strings.Repeat("=", (4-len(part)%4)%4)
		}
		_, out, _ = run(t, strings.Join(parts, "."), with(flags, "--token", "-")...)
		failed := linesOf(out, "fail")
		require.NotEmpty(t, failed, out)
		assert.Equal(t, "token: its parts are padded with '='; set in Go: AllowPaddedSegments: true", failed[0])
	})
	t.Run("keys at their own URLs", func(t *testing.T) {
		keys := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			var set struct{ Keys []json.RawMessage }
			if json.Unmarshal(iss.JWKS(), &set) != nil || r.URL.Path != "/prod/"+iss.KeyID() {
				w.WriteHeader(http.StatusForbidden)
				return
			}
			_, _ = w.Write(set.Keys[0])
		}))
		defer keys.Close()
		file := proxyFile(t, fmt.Sprintf("jwks: {issuer: %q, url: '%s/prod/{kid}'}", iss.URL, keys.URL))
		code, out, errs := run(t, iss.Token(), "doctor", "--config", file, "--token", "-")
		assert.Equal(t, cli.Good, code, out+errs)
		assert.Contains(t, out, "key set: each key is at its own URL, "+keys.URL+"/prod/{kid}, and is fetched with a token that names it")
		assert.Contains(t, out, `token: accepted: subject "alice"`)
		_, out, _ = run(t, iss.Token(valetkeytest.UnknownKey()), "doctor", "--config", file, "--token", "-")
		failed := linesOf(out, "fail")
		require.Len(t, failed, 1, out)
		assert.Contains(t, failed[0], keys.URL+"/prod/")
		assert.Contains(t, failed[0], "status 403; the token is from another environment")
	})
	t.Run("a token from the future", func(t *testing.T) {
		_, out, _ := run(t, iss.Token(valetkeytest.Claim("iat", time.Now().Add(2*time.Minute).Unix())), with(flags, "--token", "-")...)
		failed := linesOf(out, "fail")
		require.Len(t, failed, 1, out)
		assert.Contains(t, failed[0], "ahead of the clock of this machine; synchronize both clocks with NTP; set leeway: 2m")
	})
	t.Run("with the lines of the findings in the file, the proxy accepts the token", func(t *testing.T) {
		for name, token := range map[string]string{
			"many things missing": iss.Token(valetkeytest.Type("JWT"), valetkeytest.NoKeyID(), valetkeytest.Claim("client_id", nil), valetkeytest.Claim("jti", nil),
				valetkeytest.Claim("iat", nil), valetkeytest.Claim("sub", nil), valetkeytest.WrongAudience()),
			"no aud, and a marker":     iss.Token(valetkeytest.Claim("aud", nil), valetkeytest.Claim("token_use", "access")),
			"no aud, and a scope":      iss.Token(valetkeytest.Claim("aud", nil), valetkeytest.Scopes("orders:read")),
			"a nonce, and a marker":    iss.Token(valetkeytest.Type("JWT"), valetkeytest.Claim("nonce", "n"), valetkeytest.Claim("typ", "Bearer")),
			"a number and an array":    iss.Token(valetkeytest.Claim("sub", 7), valetkeytest.Claim("scope", []string{"a"})),
			"another type":             iss.Token(valetkeytest.Type("example+jwt")),
			"from the future":          iss.Token(valetkeytest.Claim("iat", time.Now().Add(2*time.Minute).Unix())),
			"an algorithm not allowed": iss.Token(valetkeytest.Algorithm("ES512")),
		} {
			_, out, _ := run(t, token, "doctor", "--config", proxyFile(t, fmt.Sprintf("jwks: {issuer: %q}", iss.URL)), "--token", "-", "--json")
			var got struct {
				Findings []struct{ Level, YAML string }
			}
			require.NoError(t, json.Unmarshal([]byte(out), &got))
			var allow, lines []string
			for _, f := range got.Findings {
				value, allows := strings.CutPrefix(f.YAML, "allow: [")
				switch {
				case f.Level != "fail":
				case allows:
					allow = append(allow, strings.TrimSuffix(value, "]"))
				default:
					lines = append(lines, f.YAML)
				}
			}
			if allow != nil {
				lines = append(lines, "allow: ["+strings.Join(allow, ", ")+"]")
			}
			require.NotEmpty(t, lines, name)
			config := proxyFile(t, fmt.Sprintf("jwks: {issuer: %q, %s}", iss.URL, strings.Join(lines, ", ")))
			code, out, errs := run(t, token, "doctor", "--config", config, "--token", "-")
			assert.Equal(t, cli.Good, code, "%s: %s\n%s%s", name, lines, out, errs)
		}
	})
	t.Run("an issuer that is not public, and the settings for its certificate and the credentials", func(t *testing.T) {
		var s *httptest.Server
		s = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch {
			case r.Header.Get("Authorization") != "Bearer of-the-pod":
				http.Error(w, "who are you?", http.StatusForbidden)
			case r.URL.Path == "/keys":
				w.Write(iss.JWKS())
			default:
				fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q}`, s.URL, s.URL+"/keys")
			}
		}))
		defer s.Close()
		ca := write(t, "ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})))
		pod := write(t, "token", "of-the-pod\n")
		settings := fmt.Sprintf("issuer: %q", s.URL)
		for _, step := range []struct{ wants, add string }{
			{`set ca_file: "ca.pem" (in Go: KeyRequests: jwks.KeyRequests{CAFile: "ca.pem"})`, fmt.Sprintf(", ca_file: %q", ca)},
			{`returns status 403; set token_file: "..." (in Go: KeyRequests: jwks.KeyRequests{TokenFile: "..."})`, fmt.Sprintf(", token_file: %q", pod)},
		} {
			_, out, errs := run(t, "", "doctor", "--config", proxyFile(t, "jwks: {"+settings+"}"))
			failed := linesOf(out, "fail")
			require.Len(t, failed, 1, out+errs)
			assert.Contains(t, failed[0], step.wants)
			settings += step.add
		}
		code, out, errs := run(t, iss.Token(valetkeytest.Claim("iss", s.URL)), "doctor", "--config", proxyFile(t, "jwks: {"+settings+"}"), "--token", "-")
		assert.Equal(t, cli.Good, code, out+errs)
		assert.Contains(t, out, "token: accepted")
		assert.NotContains(t, out, "of-the-pod")
	})
	t.Run("the product whose constructor has the settings, with the line to paste", func(t *testing.T) {
		typ := func(typ any, more ...valetkeytest.Option) []valetkeytest.Option {
			return append([]valetkeytest.Option{valetkeytest.Header("typ", typ), valetkeytest.Claim("client_id", nil)}, more...)
		}
		for _, c := range []struct {
			issuer  string
			options []valetkeytest.Option
			want    string
		}{
			{"https://sso.example.com/realms/shop", typ("JWT", valetkeytest.Claim("typ", "Bearer"), valetkeytest.Claim("azp", "web")), "issuer_type: keycloak"},
			{"https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_AbCdEf123", typ(nil, valetkeytest.ClientID("shop"), valetkeytest.Claim("aud", nil), valetkeytest.Claim("token_use", "access")),
				`issuer_type: cognito, clients: ["shop"]`},
			{"https://shop.eu.auth0.com/", typ("JWT", valetkeytest.Claim("azp", "web"), valetkeytest.Claim("jti", nil)), "issuer_type: auth0"},
			{"https://token.actions.githubusercontent.com", typ("JWT", valetkeytest.Claim("repository", "example/orders"), valetkeytest.Claim("repository_id", "74")),
				`issuer_type: github_actions, rules: ["repository_id = 74"]`},
			{"https://gitlab.com", typ("JWT", valetkeytest.Claim("project_id", "22"), valetkeytest.Claim("job_id", "1")), `issuer_type: gitlab_ci, rules: ["project_id = 22"]`},
			{"https://agent.buildkite.com", typ("JWT", valetkeytest.Claim("organization_slug", "example"), valetkeytest.Claim("jti", nil)),
				`issuer_type: buildkite, rules: ["organization_slug = example"]`},
		} {
			token := iss.Token(append(c.options, valetkeytest.Claim("iss", c.issuer))...)
			_, out, errs := run(t, token, "doctor", "--issuer", c.issuer, "--audience", valetkeytest.DefaultAudience, "--jwks", iss.KeySet.URL, "--token", "-")
			product := ""
			for _, line := range linesOf(out, "warn") {
				if strings.HasPrefix(line, "product: ") {
					product = line
				}
			}
			assert.Contains(t, product, "; set "+c.want+" (in Go: issuers.", "%s\n%s%s", c.issuer, out, errs)
			config := proxyFile(t, fmt.Sprintf("jwks: {%s, issuer: %q, url: %q}", c.want, c.issuer, iss.KeySet.URL))
			code, out, errs := run(t, token, "doctor", "--config", config, "--token", "-")
			assert.Equal(t, cli.Good, code, out+errs)
		}
	})
	t.Run("an ID token of a product whose access tokens have a marker: no setting would accept it", func(t *testing.T) {
		config := proxyFile(t, fmt.Sprintf("jwks: {issuer_type: cognito, issuer: %q, clients: shop}", iss.URL))
		_, out, _ := run(t, iss.Token(valetkeytest.Header("typ", nil), valetkeytest.Audience("shop"), valetkeytest.Claim("token_use", "id")), "doctor", "--config", config, "--token", "-")
		assert.Equal(t, []string{`token: it is an ID token, not an access token: its claim token_use is "id"; the client must send the access token`}, linesOf(out, "fail"))
	})
	t.Run("the audience that every user's token of Keycloak has", func(t *testing.T) {
		realm := "https://sso.example.com/realms/shop"
		_, out, _ := run(t, iss.Token(valetkeytest.Claim("iss", realm), valetkeytest.Audience("account")),
			"doctor", "--issuer", realm, "--audience", valetkeytest.DefaultAudience, "--jwks", iss.KeySet.URL, "--token", "-")
		assert.Equal(t, []string{`audience: "account" in the token, "https://api.example.com" configured; every user's token of a realm of Keycloak has this audience; add a mapper of the type Audience to a client scope`}, linesOf(out, "fail"))
	})
	t.Run("what no setting helps with", func(t *testing.T) {
		for want, token := range map[string]string{
			"key set: the kid of the token, \"other\"":   iss.Token(valetkeytest.KeyID("other")),
			"token: the signature of the token is wrong": iss.Token(valetkeytest.TamperedSignature()),
			"audience: the token has no aud; its client_id is \"orders-app\"; nothing in it shows that it is an access token; have the issuer write": iss.Token(valetkeytest.Claim("aud", nil)),
			"token: it is a refresh token":  iss.Token(valetkeytest.Type("JWT"), valetkeytest.Claim("typ", "Refresh")),
			"token: it is encrypted (JWE)":  "a.b.c.d.e",
			"token: the token is malformed": iss.Token(valetkeytest.Unsigned()),
		} {
			code, out, _ := run(t, token, with(flags, "--token", "-")...)
			assert.Equal(t, cli.No, code)
			failed := linesOf(out, "fail")
			require.Len(t, failed, 1, out)
			assert.Contains(t, failed[0], want)
		}
	})
	t.Run("the verifier of a file that is responsible for a token", func(t *testing.T) {
		other := valetkeytest.NewIssuer(t)
		config := proxyFile(t, fmt.Sprintf("jwks: {issuer: %q}\n  - jwks: {issuer: %q}\n  - introspection: {issuer: %q, client_id: %s, client_secret: %s}",
			other.URL, iss.URL, other.URL, valetkeytest.IntrospectionID, valetkeytest.IntrospectionSecret))
		for want, token := range map[string]string{
			"verifiers[1].jwks":          iss.Token(),
			"verifiers[2].introspection": other.Opaque(),
		} {
			code, out, errs := run(t, token, "doctor", "--config", config, "--token", "-", "--json")
			assert.Equal(t, cli.Good, code, out+errs)
			var got struct {
				Findings []struct{ Level, At, Check, Cause string }
			}
			require.NoError(t, json.Unmarshal([]byte(out), &got))
			at := ""
			for _, f := range got.Findings {
				if f.Check == "token" {
					at += f.At
				}
			}
			assert.Equal(t, want, at)
		}
	})
	t.Run("what a token and an issuer write cannot control the terminal", func(t *testing.T) {
		hostile := valetkeytest.NewIssuer(t)
		hostile.Metadata.Answer(`{"issuer":"http://x/\u001b[2J\u202e\nok","jwks_uri":"` + hostile.KeySet.URL + `"}`)
		_, out, _ := run(t, "", "doctor", "--issuer", hostile.URL, "--audience", "a")
		assert.NotContains(t, out, "\x1b")
		assert.NotContains(t, out, "\u202e")
		assert.NotContains(t, out, "\nok\n")
	})
	t.Run("mistakes", func(t *testing.T) {
		for want, args := range map[string][]string{
			"--config: required, or --issuer and --audience": {},
			"--issuer: required":                             {"--issuer-type", "keycloak", "--audience", "a"},
			"--rule: cannot be combined with --config":       {"--config", "x", "--rule", "y"},
			"--issuer: cannot be combined with --config":     {"--config", "x", "--issuer", "y"},
			"--audience: required":                           {"--issuer", iss.URL},
			"not https; --insecure-http allows http":         {"--issuer", "http://keycloak:8080", "--audience", "a"},
			"--token: the token is empty":                    {"--issuer", iss.URL, "--audience", "a", "--token", "-"},
			"--token: open /nowhere: ":                       {"--issuer", iss.URL, "--audience", "a", "--token", "/nowhere"},
		} {
			code, out, errs := run(t, "", append([]string{"doctor"}, args...)...)
			assert.Equal(t, cli.Mistake, code, out)
			assert.Contains(t, errs, want)
		}
	})
}
