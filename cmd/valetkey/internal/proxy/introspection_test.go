package proxy_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/valetkey/valetkey/cmd/valetkey/internal/proxy"
	"github.com/valetkey/valetkey/valetkeytest"
)

func TestIntrospection(t *testing.T) {
	// The first issuer's JWTs are verified and its opaque tokens asked about; so are the second's JWTs, and the third's by post.
	first, second, third, upstream := valetkeytest.NewIssuer(t), valetkeytest.NewIssuer(t), valetkeytest.NewIssuer(t, valetkeytest.OpenIntrospection()), &recorder{}
	var posted string
	byPost := third.Introspection
	endpoint := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		posted = r.PostFormValue("client_id") + ":" + r.PostFormValue("client_secret")
		byPost.ServeHTTP(w, r)
	}))
	defer endpoint.Close()
	server := httptest.NewServer(upstream)
	defer server.Close()

	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "api.secret"), []byte(valetkeytest.IntrospectionSecret+"\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("VALETKEY_TEST_SECRET", valetkeytest.IntrospectionSecret)
	config := fmt.Sprintf(`
listen: 127.0.0.1:0
upstream: %s
resource: %s
verifiers:
  - introspection: {issuer: %q, client_id: %[4]s, client_secret_file: api.secret, negative_ttl: 0s}
  - jwks: {issuer: %[3]q}
  - introspection:
      issuer: %[5]q
      audience: ["urn:second"]
      client_id: %[4]s
      client_secret_env: VALETKEY_TEST_SECRET
      cache_ttl: 0s
      jwt_issuers: %[5]q
  - introspection:
      url: %[6]q
      issuer: %[7]q
      audience_by_issuer: true
      allow_scope_array: true
      client_id: me
      client_secret: "of me"
      auth: post
      jwt_issuers: [%[7]q, "urn:x"]
routes:
  /: "@any"
  /orders: orders:read
`, server.URL, valetkeytest.DefaultAudience, first.URL, valetkeytest.IntrospectionID, second.URL, endpoint.URL, third.URL)
	file := filepath.Join(dir, "proxy.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := proxy.Load(file, drivers, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()

	revoked := first.Opaque()
	first.Revoke(revoked)
	scopes := valetkeytest.Claim("scope", []string{"orders:read", "orders:write"})
	for _, c := range []struct {
		name   string
		path   string
		token  string
		status int
		asked  [3]int // how often each issuer
	}{
		{"a made-up token", "/", "made-up", 401, [3]int{1, 0, 0}},
		{"what was revoked", "/", revoked, 401, [3]int{1, 0, 0}},
		{"an opaque token of the second, which is for JWTs", "/", second.Opaque(valetkeytest.Audience("urn:second")), 401, [3]int{1, 0, 0}},
		{"an opaque token for another audience", "/", first.Opaque(valetkeytest.WrongAudience()), 401, [3]int{1, 0, 0}},
		{"an opaque token without the scope", "/orders", first.Opaque(valetkeytest.Scopes("files")), 403, [3]int{1, 0, 0}},
		{"a JWT of another issuer, which is not introspected", "/", first.Token(valetkeytest.WrongIssuer()), 401, [3]int{}},
		{"a JWT for another audience", "/", second.Token(), 401, [3]int{0, 1, 0}},
		{"scopes in an array, of an issuer that may not", "/orders", second.Token(valetkeytest.Audience("urn:second"), scopes), 503, [3]int{0, 1, 0}},
		{"an opaque token", "/orders", first.Opaque(valetkeytest.Scopes("orders:read")), 200, [3]int{1, 0, 0}},
		{"a JWT that is verified", "/orders", first.Token(valetkeytest.Scopes("orders:read")), 200, [3]int{}},
		{"a JWT that is asked about", "/", second.Token(valetkeytest.Audience("urn:second")), 200, [3]int{0, 1, 0}},
		{"a JWT without an audience and with scopes in an array", "/orders", third.Token(valetkeytest.Claim("aud", nil), scopes), 200, [3]int{0, 0, 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := [3]int{first.Introspection.Hits(), second.Introspection.Hits(), third.Introspection.Hits()}
			res := httptest.NewRecorder()
			p.ServeHTTP(res, valetkeytest.Request("GET", c.path, c.token))
			if res.Code != c.status || (upstream.take() != nil) != (c.status == 200) {
				t.Errorf("got %d %s, %s", res.Code, res.Body, res.Header().Get("WWW-Authenticate"))
			}
			after := [3]int{first.Introspection.Hits(), second.Introspection.Hits(), third.Introspection.Hits()}
			for i, asked := range c.asked {
				if after[i]-before[i] != asked {
					t.Errorf("issuer %d was asked %d times, not %d", i, after[i]-before[i], asked)
				}
			}
		})
	}
	if posted != "me:of me" {
		t.Errorf("posted %q", posted)
	}
	t.Run("credentials are encoded as the file specifies", func(t *testing.T) {
		for auth, want := range map[string]string{"basic": "my%2Bapi:a%25+b", "basic_raw": "my+api:a% b"} {
			var got string
			endpoint := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				id, secret, _ := r.BasicAuth()
				got = id + ":" + secret
				w.Header().Set("Content-Type", "application/json")
				fmt.Fprint(w, `{"active":false}`)
			}))
			defer endpoint.Close()
			file := filepath.Join(dir, auth+".yaml")
			config := fmt.Sprintf("{listen: '127.0.0.1:0', upstream: %q, verifiers: [{introspection: {url: %q, audience: api, client_id: my+api, client_secret: 'a%% b', auth: %s}}], routes: {/: '@any'}}",
				server.URL, endpoint.URL, auth)
			if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
				t.Fatal(err)
			}
			p, err := proxy.Load(file, drivers, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			p.ServeHTTP(httptest.NewRecorder(), valetkeytest.Request("GET", "/", "opaque"))
			p.Close()
			if got != want {
				t.Errorf("auth: %s sent %q, not %q", auth, got, want)
			}
		}
	})
	t.Run("an answer is remembered for as long as the file specifies", func(t *testing.T) {
		for _, c := range []struct {
			name  string
			iss   *valetkeytest.Issuer
			token string
			asked int
		}{
			{"by default", first, first.Opaque(), 1},
			{"not at all", second, second.Token(valetkeytest.Audience("urn:second")), 3},
			{"a refusal, not at all", first, "made-up", 3},
		} {
			before := c.iss.Introspection.Hits()
			for range 3 {
				p.ServeHTTP(httptest.NewRecorder(), valetkeytest.Request("GET", "/", c.token))
			}
			if got := c.iss.Introspection.Hits() - before; got != c.asked {
				t.Errorf("%s: asked %d times, not %d", c.name, got, c.asked)
			}
		}
	})
	t.Run("an unreachable issuer is not a refusal", func(t *testing.T) {
		first.Introspection.Down()
		res := httptest.NewRecorder()
		p.ServeHTTP(res, valetkeytest.Request("GET", "/", first.Opaque()))
		if res.Code != 503 || res.Header().Get("Retry-After") == "" {
			t.Errorf("got %d", res.Code)
		}
	})
}
