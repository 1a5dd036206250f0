package cli_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"github.com/valetkey/valetkey/cmd/valetkey/internal/cli"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/clitest"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/driver"
	"github.com/valetkey/valetkey/valetkeytest"
)

const testdata = "../../testdata/"

// run runs a command of the light build to its end.
func run(t *testing.T, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	return clitest.Run(t, driver.Set{}, stdin, args...)
}

// light are the flags under which the tokens of light-oauth2 are good.
var light = []string{"verify", "--issuer", "urn:com:networknt:oauth2:v1", "--audience", "urn:com.networknt",
	"--jwks", testdata + "light-oauth2.jwks.json", "--profile", "lenient", "--at", "2016-09-22T18:55:00Z"}

func without(args []string, flag string) []string {
	var rest []string
	for i := 0; i < len(args); i++ {
		if args[i] == flag {
			i++
			continue
		}
		rest = append(rest, args[i])
	}
	return rest
}

func with(args []string, more ...string) []string { return append(args[:len(args):len(args)], more...) }

func TestVerifyLightOAuth2(t *testing.T) {
	for _, file := range []string{"light-oauth2.authorization_code.jwt", "light-oauth2.client_credentials.jwt"} {
		text, err := os.ReadFile(testdata + file)
		if err != nil {
			t.Fatal(err)
		}
		token := strings.TrimSpace(string(text))
		for _, c := range []struct {
			name string
			args []string
			code int
			out  string // its beginning
		}{
			{"today", with(without(light, "--at"), token), 1, "invalid_token: the token has expired (at 2016-09-22 "},
			{"by default", with(without(light, "--profile"), token), 1, `invalid_token: the token is not an access token (typ: "" in the token, "at+jwt" configured, and --allow untyped is off)`},
			{"of another issuer", with(light, "--issuer", "urn:x", token), 1, `invalid_token: the token is of another issuer (issuer: "urn:com:networknt:oauth2:v1" in the token, "urn:x" configured)`},
			{"for another audience", with(without(light, "--audience"), "--audience", "urn:x", token), 1, `invalid_token: the token is for another audience (audience: "urn:com.networknt" in the token, "urn:x" configured)`},
			{"with another algorithm", with(light, "--alg", "ES256", "--alg", "PS256", token), 1, `invalid_token: the signature algorithm of the token is not allowed (alg: "RS256" in the token, "ES256", "PS256" configured)`},
			{"damaged", with(light, token[:len(token)-8]+"AAAAAAAA"), 1, "invalid_token: the signature of the token is wrong ("},
			{"no token", with(light, ""), 1, "invalid_token: the token is not a JWT ("},
			{"at its time", with(light, token), 0, "iss        urn:com:networknt:oauth2:v1\naud        urn:com.networknt\nclient_id  6e9d1db3-2feb-4c1f-a5ad-9e93ae8ca59d\n" + `scope      ["account.r","account.w"]` + "\n"},
			{"for one of two audiences", with(light, "--audience", "urn:x", token), 0, "iss "},
		} {
			t.Run(file+" "+c.name, func(t *testing.T) {
				code, out, errs := run(t, "", c.args...)
				if code != c.code || !strings.HasPrefix(out, c.out) || errs != "" {
					t.Errorf("got %d, %s%s", code, out, errs)
				}
			})
		}
		t.Run(file+" from standard input", func(t *testing.T) {
			for _, stdin := range []string{token, token + "\n", token + "\r\n"} {
				if code, out, errs := run(t, stdin, with(light, "-")...); code != 0 {
					t.Errorf("got %d, %s%s", code, out, errs)
				}
			}
			for _, stdin := range []string{token + "\n\n", " " + token, "", strings.Repeat("x", 1<<20)} {
				if code, out, errs := run(t, stdin, with(light, "-")...); code != 1 {
					t.Errorf("%d bytes got %d, %s%s", len(stdin), code, out, errs)
				}
			}
		})
		t.Run(file+" as JSON", func(t *testing.T) {
			var accepted struct {
				Valid          bool
				Issuer, ID     string
				Audience       []string
				Scopes         []string
				ClientID       string         `json:"client_id"`
				IssuedAt       string         `json:"issued_at"`
				ExpiresAt      string         `json:"expires_at"`
				Claims         map[string]any `json:"claims"`
				Subject, Error *string
			}
			_, out, _ := run(t, "", with(light, "--json", token)...)
			if err := json.Unmarshal([]byte(out), &accepted); err != nil {
				t.Fatal(err, out)
			}
			if !accepted.Valid || accepted.Subject != nil || accepted.Error != nil || accepted.Issuer != "urn:com:networknt:oauth2:v1" ||
				fmt.Sprint(accepted.Audience, accepted.Scopes) != "[urn:com.networknt] [account.r account.w]" ||
				accepted.ClientID != "6e9d1db3-2feb-4c1f-a5ad-9e93ae8ca59d" || accepted.Claims["version"] != "1.0" ||
				accepted.Claims["jti"] != accepted.ID || !strings.HasPrefix(accepted.ExpiresAt, "2016-09-22T1") || accepted.IssuedAt == "" {
				t.Errorf("got %s", out)
			}
			code, out, _ := run(t, "", with(without(light, "--at"), "--json", token)...)
			var refused map[string]any
			if err := json.Unmarshal([]byte(out), &refused); err != nil {
				t.Fatal(err, out)
			}
			detail, _ := refused["detail"].(string)
			if code != 1 || len(refused) != 5 || refused["reason"] != "expired" || refused["valid"] != false || refused["error"] != "invalid_token" ||
				refused["error_description"] != "the token has expired" || !strings.HasPrefix(detail, "at 2016-09-22") {
				t.Errorf("got %d, %s", code, out)
			}
		})
	}
}

func TestMistakes(t *testing.T) {
	broken := filepath.Join(t.TempDir(), "keys.json")
	if err := os.WriteFile(broken, []byte(`{"keys":[]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	noRedis := filepath.Join(t.TempDir(), "proxy.yaml")
	const key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
	if err := os.WriteFile(noRedis, []byte("verifiers: [jwks: {issuer: 'https://a'}]\nredis: {address: '127.0.0.1:1', key: "+key+"}"), 0o600); err != nil {
		t.Fatal(err)
	}
	required := []string{"--issuer: required", "--audience: required"}
	for _, c := range []struct {
		name string
		args []string
		want []string // each a whole line
	}{
		{"an unknown command", []string{"eyJhbGciOiJSUzI1NiJ9.e30.AAAA"}, []string{"unknown command; see valetkey --help"}},
		{"an unknown flag", []string{"demo", "--nope"}, []string{"unknown flag: --nope"}},
		{"an argument too many", []string{"demo", "x"}, []string{`unknown command "x" for "valetkey demo"`}},
		{"verify without anything", []string{"verify"}, append(required, "expected one token argument (- for stdin), got")},
		{"verify with all mistakes at once", []string{"verify", "--profile", "x", "--at", "noon", "--alg", "none", "--jwks", "/nowhere/keys.json", "a", "b"},
			append(required, `--profile: "x" is neither`, `--at: "noon" is not a time`, `--alg: "none" is not a`, "--jwks: open /nowhere/keys.json", "expected one token argument (- for stdin), got")},
		{"verify with an audience that is empty", []string{"verify", "--issuer", "https://a", "--audience", "", "x"}, []string{"--audience: is empty"}},
		{"verify with a key set that has no key", []string{"verify", "--issuer", "urn:a", "--audience", "a", "--jwks", broken, "x"}, []string{"--jwks: it has no usable key"}},
		{"verify with a file that is a folder", []string{"verify", "--issuer", "urn:a", "--audience", "a", "--jwks", t.TempDir(), "x"}, []string{"--jwks: read "}},
		{"inspect with a token that is empty", []string{"inspect", ""}, []string{"the token is empty"}},
		{"inspect with a token behind its scheme", []string{"inspect", "dpop eyJhbGciOiJSUzI1NiJ9.e30.AAAA"}, []string{"expected the token alone, without the scheme of an Authorization header"}},
		{"verify with keys over plain http", []string{"verify", "--issuer", "urn:a", "--audience", "a", "--jwks", "http://a.example.com/keys", "x"}, []string{"--jwks: not https; --insecure-http allows http"}},
		{"verify with a product that is not known", []string{"verify", "--issuer-type", "keyclock", "x"}, []string{`--issuer-type: "keyclock" is not the name of a product; did you mean keycloak?`}},
		{"verify with a product that is spelt otherwise", []string{"verify", "--issuer-type", "GitHub-Actions", "x"}, []string{`--issuer-type: "GitHub-Actions" is not the name of a product; did you mean github_actions?`}},
		{"verify with mistakes in the parameters of a product", []string{"verify", "--issuer-type", "keycloak", "--client", "", "--tenant", "a", "--rule", "a = ", "--rule", "a=b", "--profile", "lenient", "--allow", "x", "x"},
			append(required[:1:1], "--audience: required", "--tenant: has no meaning for this product", "--rule: the value is empty", "--rule: an operator (=, ~=, ^=) needs a space on each side", "--profile: cannot be combined with", `--allow: "x" is not one of`)},
		{"verify with nothing to discover", []string{"verify", "--issuer", "urn:a", "--audience", "a", "x"}, []string{"--issuer: cannot be discovered"}},
		{"serve with a file that is not there", []string{"serve", "--config", "/nowhere/as.yaml"}, []string{"open /nowhere/as.yaml: "}},
		{"serve with a file of something else", []string{"serve", "--config", broken}, []string{broken + ":1: keys: is not a mapping", broken + ":1: issuer: is required"}},
		{"proxy without a file", []string{"proxy"}, []string{"--config: required"}},
		{"a log in an unknown format", []string{"proxy", "--config", broken, "--log-format", "xml"}, []string{`--log-format: "xml" is not text or json`}},
		{"a log of authorize in an unknown format", []string{"authorize", "--config", broken, "--log-format", "xml"}, []string{`--log-format: "xml" is not text or json`}},
		{"a log of serve in an unknown format", []string{"serve", "--log-format", "xml"}, []string{`--log-format: "xml" is not text or json`}},
		{"proxy with a file of something else", []string{"proxy", "--config", broken}, []string{
			broken + `:1: unknown field "keys"`, broken + ":1: listen: required", broken + ":1: routes: required"}},
		{"revoke without anything", []string{"revoke"}, []string{
			"--config: required", "--issuer: required", "one of --id, --subject, --session, --client and --all is required"}},
		{"revoke with all mistakes at once", []string{"revoke", "--subject", "a", "--all", "--before", "noon", "--until", "2006-01-02"}, []string{
			"--config: required", "--issuer: required", "one of --id, --subject, --session, --client and --all is required",
			`--before: "noon" is not a time such as`, `--until: "2006-01-02" is not a time such as`}},
		{"revoke what has expired", []string{"revoke", "--config", "x", "--issuer", "https://a", "--all", "--until", "2006-01-02T15:04:05Z"}, []string{
			"--until: is in the past"}},
		{"revoke with a file that has no redis", []string{"revoke", "--config", testdata + "proxy.yaml", "--issuer", "http://127.0.0.1:8888", "--id", "x"}, []string{
			testdata + "proxy.yaml:5: redis: required: revocations are published there"}},
		{"revoke where redis is not", []string{"revoke", "--config", noRedis, "--issuer", "https://a", "--client", "x"}, []string{
			"valetredis: publishing a revocation: dial tcp 127.0.0.1:1: connect"}},
		{"an address of another host", []string{"demo", "--check", "--as-addr", "192.0.2.1:1"}, []string{"the authorization server: listen tcp 192.0.2.1:1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, out, errs := run(t, "", c.args...)
			if code != cli.Mistake || out != "" {
				t.Errorf("got %d, %s", code, out)
			}
			for _, want := range c.want {
				if !strings.Contains("\n"+errs, "\nvaletkey: "+want) {
					t.Errorf("%q is missing in\n%s", want, errs)
				}
			}
			if strings.Contains(errs, "Usage") || strings.Contains(errs, "eyJ") {
				t.Errorf("said too much:\n%s", errs)
			}
		})
	}
	t.Run("standard input that fails", func(t *testing.T) {
		var out, errs bytes.Buffer
		code := cli.Run(t.Context(), driver.Set{}, with(light, "-"), iotest.ErrReader(io.ErrUnexpectedEOF), &out, &errs)
		if code != cli.Mistake || !strings.Contains(errs.String(), "read standard input") {
			t.Errorf("got %d, %s", code, &errs)
		}
	})
	t.Run("asking for help is not a mistake", func(t *testing.T) {
		for _, args := range [][]string{{}, {"--help"}, {"verify", "--help"}} {
			if code, out, errs := run(t, "", args...); code != 0 || !strings.Contains(out, "Usage:") || errs != "" {
				t.Errorf("%v got %d, %s", args, code, errs)
			}
		}
	})
}

func TestVerifyByDiscovery(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	args := []string{"verify", "--issuer", iss.URL, "--audience", valetkeytest.DefaultAudience}
	token := iss.Token(valetkeytest.Scopes("a", "b"), valetkeytest.Claim("note", "red\x1b[31m\u202e"))

	t.Run("a good token, and nothing that steers a terminal", func(t *testing.T) {
		code, out, errs := run(t, "", with(args, token)...)
		if code != 0 || !regexp.MustCompile(`(?m)^sub +alice$`).MatchString(out) || !strings.Contains(out, `"red\x1b[31m\u202e"`) {
			t.Errorf("got %d, %s%s", code, out, errs)
		}
	})
	t.Run("the settings of a product, and a rule, a client and an omission beside", func(t *testing.T) {
		typed := with(args, "--issuer-type", "keycloak", "--client", "spa", "--rule", "group ^= o")
		for _, c := range []struct {
			name string
			args []string
			opts []valetkeytest.Option
			want int
		}{
			{"another client", nil, []valetkeytest.Option{valetkeytest.Claim("azp", "other")}, 1},
			{"a claim that the rule excludes", nil, []valetkeytest.Option{valetkeytest.Claim("group", "dev")}, 1},
			{"a claim that the product sends", nil, []valetkeytest.Option{valetkeytest.Claim("jti", nil)}, 1},
			{"the same, where it may be missing", []string{"--allow", "missing_id"}, []valetkeytest.Option{valetkeytest.Claim("jti", nil)}, 0},
			{"a token of the product", nil, nil, 0},
		} {
			token := iss.Token(append([]valetkeytest.Option{valetkeytest.Header("typ", "JWT"), valetkeytest.Claim("typ", "Bearer"), valetkeytest.Claim("client_id", nil),
				valetkeytest.Claim("azp", "spa"), valetkeytest.Claim("group", "ops")}, c.opts...)...)
			if code, out, errs := run(t, "", with(with(typed, c.args...), token)...); code != c.want {
				t.Errorf("%s: got %d, %s%s", c.name, code, out, errs)
			}
		}
	})
	t.Run("the key set by its URL", func(t *testing.T) {
		if code, out, errs := run(t, "", with(args, "--jwks", iss.KeySet.URL, token)...); code != 0 {
			t.Errorf("got %d, %s%s", code, out, errs)
		}
	})
	t.Run("settings that would accept too much", func(t *testing.T) {
		for name, forged := range iss.Forgeries() {
			if code, out, errs := run(t, "", with(args, forged)...); code != 1 || strings.Contains(out+errs, forged) && forged != "" {
				t.Errorf("%s: got %d, %s%s", name, code, out, errs)
			}
		}
	})
	t.Run("unreachable keys are not a refusal", func(t *testing.T) {
		iss.KeySet.Fail(500)
		defer iss.KeySet.Restore()
		code, out, errs := run(t, "", with(args, "--json", token)...)
		if code != 2 || out != "" || !strings.Contains(errs, "status 500") || strings.Contains(errs, token) {
			t.Errorf("got %d, %s%s", code, out, errs)
		}
	})
	t.Run("an http key set beyond loopback, and the flag that allows it", func(t *testing.T) {
		iss.Metadata.Answer(`{"issuer":"` + iss.URL + `","jwks_uri":"http://keycloak:8080/keys"}`)
		defer iss.Metadata.Restore()
		code, _, errs := run(t, "", with(args, token)...)
		if code != 2 || !strings.Contains(errs, `jwks_uri "http://keycloak:8080/keys": not https; --insecure-http allows http`) {
			t.Errorf("got %d, %s", code, errs)
		}
	})
	t.Run("slow keys are waited for", func(t *testing.T) {
		iss.KeySet.Slow(2500 * 1e6)
		defer iss.KeySet.Restore()
		if code, out, errs := run(t, "", with(args, token)...); code != 0 {
			t.Errorf("got %d, %s%s", code, out, errs)
		}
	})
}

func TestDemo(t *testing.T) {
	anywhere := []string{"demo", "--as-addr", "127.0.0.1:0", "--api-addr", "127.0.0.1:0"}
	t.Run("the check holds", func(t *testing.T) {
		code, out, errs := run(t, "", with(anywhere, "--check")...)
		if code != 0 || strings.Count(out, "\nok ") != 16 || errs != "" {
			t.Errorf("got %d, %s%s", code, out, errs)
		}
	})
	t.Run("a check that does not hold", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		var out, errs bytes.Buffer
		if code := cli.Run(ctx, driver.Set{}, with(anywhere, "--check"), nil, &out, &errs); code != cli.No || !strings.Contains(out.String(), "FAIL 1.") {
			t.Errorf("got %d, %s%s", code, &out, &errs)
		}
	})
}

// background starts a command of the light build that serves.
func background(t *testing.T, args ...string) (log *clitest.Log, stop func() int) {
	t.Helper()
	return clitest.Background(t, driver.Set{}, args...)
}

func get(t *testing.T, url, token string) int {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	return res.StatusCode
}

func TestServers(t *testing.T) {
	t.Run("demo serves until it is stopped", func(t *testing.T) {
		log, stop := background(t, "demo", "--as-addr", "127.0.0.1:0", "--api-addr", "127.0.0.1:0")
		api := log.Wait(t, `orders API at (http://[0-9.:]+) `)[1]
		portal := log.Wait(t, `For developers: log in at (http://[0-9.:]+/developer)\nas alice, with the password demo-alice\.`)[1]
		if got := get(t, portal, ""); got != 200 {
			t.Errorf("the portal answers %d", got)
		}
		if got := get(t, api+"/orders", "x"); got != 401 {
			t.Errorf("got %d", got)
		}
		if code := stop(); code != 0 {
			t.Errorf("ended with %d", code)
		}
	})
	t.Run("serve serves the metadata", func(t *testing.T) {
		log, stop := background(t, "serve", "--config", "../../../../authserver/testdata/demo.yaml", "--addr", "127.0.0.1:0", "--store", "memory")
		addr := log.Wait(t, `listening on ([0-9.:]+)`)[1]
		if got := get(t, "http://"+addr+"/.well-known/oauth-authorization-server", "x"); got != 200 {
			t.Errorf("got %d", got)
		}
		if code := stop(); code != 0 {
			t.Errorf("ended with %d", code)
		}
	})
	t.Run("proxy serves the example of the README", func(t *testing.T) {
		iss := valetkeytest.NewIssuer(t)
		text, err := os.ReadFile(testdata + "proxy.yaml")
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), "proxy.yaml")
		config := strings.NewReplacer("127.0.0.1:8081", "127.0.0.1:0", "http://127.0.0.1:8888", iss.URL, "http://127.0.0.1:9000", iss.URL,
			"audience: http://127.0.0.1:8080", "audience: "+valetkeytest.DefaultAudience).Replace(string(text))
		if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		log, stop := background(t, "proxy", "--config", file, "--log-format", "json")
		addr := log.Wait(t, `"msg":"listening on ([0-9.:]+)"`)[1]
		if got := get(t, "http://"+addr+"/orders", iss.Token()); got != 403 {
			t.Errorf("got %d", got)
		}
		log.Wait(t, `"level":"INFO","msg":"decision","method":"GET","row":"GET /orders","status":403,"reason":"scope",.*"request_id":"`)
		if got := get(t, "http://"+addr+"/orders", iss.Token(valetkeytest.Scopes("orders:read"))); got != 404 { // the upstream's own
			t.Errorf("got %d", got)
		}
		if code := stop(); code != 0 {
			t.Errorf("ended with %d", code)
		}
	})
}

func TestRevoke(t *testing.T) {
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Skip("redis-server is not installed (Debian: apt-get install redis-server)")
	}
	at := clitest.FreeAddr(t)
	_, port, _ := net.SplitHostPort(at)
	redis := exec.Command("redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", t.TempDir())
	output := clitest.NewLog()
	redis.Stdout = output
	if err := redis.Start(); err != nil {
		t.Fatal(err)
	}
	defer redis.Wait()
	defer redis.Process.Kill()
	output.Wait(t, "Ready to accept connections")

	iss := valetkeytest.NewIssuer(t)
	file := filepath.Join(t.TempDir(), "proxy.yaml")
	config := fmt.Sprintf(`
listen: 127.0.0.1:0
upstream: %[1]s/nothing
resource: %[2]s
verifiers: [jwks: {issuer: %[1]q}]
redis: {address: "127.0.0.1:%[3]s", key: AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=}
routes: {"/": "@any"}
`, iss.URL, valetkeytest.DefaultAudience, port)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	log, _ := background(t, "proxy", "--config", file)
	url := "http://" + log.Wait(t, `listening on ([0-9.:]+)`)[1]
	for end := time.Now().Add(2 * time.Minute); get(t, url, iss.Token()) == 503; { // it has not read the revocations yet
		if time.Now().After(end) {
			t.Fatal("the proxy does not get ready")
		}
	}
	soon := time.Now().Add(time.Hour).Format(time.RFC3339)
	for _, c := range []struct {
		name    string
		args    []string
		revoked string
		spared  string
	}{
		{"one token", []string{"--id", "first"}, iss.Token(valetkeytest.Claim("jti", "first")), iss.Token(valetkeytest.Claim("jti", "second"))},
		{"a subject, until now", []string{"--subject", "bob", "--until", soon}, iss.Token(valetkeytest.Subject("bob"), issued(-time.Minute)), iss.Token(issued(-time.Minute))},
		{"a client, until a while ago", []string{"--client", "c", "--before", time.Now().Add(-time.Minute).Format(time.RFC3339)},
			iss.Token(valetkeytest.ClientID("c"), issued(-2*time.Minute)), iss.Token(valetkeytest.ClientID("c"))},
		{"a session", []string{"--session", "s1"}, iss.Token(valetkeytest.Claim("sid", "s1"), issued(-time.Minute)), iss.Token(valetkeytest.Claim("sid", "s2"), issued(-time.Minute))},
		{"all, by the issuer's clock", []string{"--all", "--before", time.Now().Format(time.RFC3339)}, iss.Token(issued(-time.Minute)), iss.Token(issued(20 * time.Second))},
		{"all, by our clock, which may be 30 s behind the issuer's", []string{"--all"}, iss.Token(issued(20 * time.Second)), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, token := range []string{c.revoked, c.spared} {
				if token == "" {
					continue
				}
				if got := get(t, url, token); got != 404 { // the upstream's own
					t.Errorf("got %d before", got)
				}
			}
			code, out, errs := run(t, "", append([]string{"revoke", "--config", file, "--issuer", iss.URL}, c.args...)...)
			if code != 0 || out != "published\n" || errs != "" {
				t.Fatalf("got %d, %s%s", code, out, errs)
			}
			for end := time.Now().Add(2 * time.Minute); get(t, url, c.revoked) != 401; {
				if time.Now().After(end) {
					t.Fatal("the revoked token is still good")
				}
			}
			if got := get(t, url, c.spared); c.spared != "" && got != 404 {
				t.Errorf("what was not revoked got %d", got)
			}
		})
	}
	t.Run("an issuer that no proxy trusts", func(t *testing.T) {
		code, _, errs := run(t, "", "revoke", "--config", file, "--issuer", iss.URL+"/", "--all")
		if code != cli.Mistake || !strings.Contains(errs, "no verifier in "+file+" accepts the issuer") {
			t.Errorf("got %d, %s", code, errs)
		}
	})
}

// issued sets when a token was issued, counted from now.
func issued(from time.Duration) valetkeytest.Option {
	return valetkeytest.Claim("iat", time.Now().Add(from).Unix())
}

// TestBinary covers the features of a process: its exit code and signals.
func TestBinary(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "valetkey.exe")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "../..").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	token, err := os.Open(testdata + "light-oauth2.authorization_code.jwt")
	if err != nil {
		t.Fatal(err)
	}
	defer token.Close()
	for _, c := range []struct {
		name string
		args []string
		code int
	}{
		{"a good token", with(light, "-"), 0},
		{"an expired token", with(without(light, "--at"), "-"), 1},
		{"a mistake", []string{"verify", "-"}, 2},
		{"the whole story", []string{"demo", "--check", "--as-addr", "127.0.0.1:0", "--api-addr", "127.0.0.1:0"}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := token.Seek(0, io.SeekStart); err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), binary, c.args...)
			cmd.Stdin = token
			out, _ := cmd.CombinedOutput()
			if code := cmd.ProcessState.ExitCode(); code != c.code {
				t.Errorf("got %d\n%s", code, out)
			}
		})
	}
	t.Run("SIGTERM ends it well", func(t *testing.T) {
		log := clitest.NewLog()
		cmd := exec.CommandContext(t.Context(), binary, "demo", "--as-addr", "127.0.0.1:0", "--api-addr", "127.0.0.1:0")
		cmd.Stdout, cmd.Stderr = log, log
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		log.Wait(t, "Paste these lines")
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
}

// TestGateway proves which commands the images contain.
func TestGateway(t *testing.T) {
	gateway := func(args ...string) (code int, out string) {
		var text bytes.Buffer
		code = cli.RunGateway(t.Context(), driver.Set{}, args, strings.NewReader(""), &text, &text)
		return code, text.String()
	}
	for _, name := range []string{"demo", "serve", "client", "keys", "user", "token"} {
		if code, out := gateway(name); code != cli.Mistake || !strings.Contains(out, "unknown command") {
			t.Errorf("valetkey %s: got %d, %s", name, code, out)
		}
	}
	_, help := gateway("--help")
	for _, name := range []string{"proxy", "revoke", "verify", "inspect", "doctor", "health"} {
		if !strings.Contains(help, "\n  "+name+" ") {
			t.Errorf("no command %s in %s", name, help)
		}
	}
}
