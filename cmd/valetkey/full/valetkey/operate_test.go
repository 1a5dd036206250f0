package main_test

import (
	"encoding/json"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/valetkey/valetkey/cmd/valetkey/full/drivers"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/cli"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/clitest"
)

// An operator works on the store of a server, whether or not that serves.
func TestOperator(t *testing.T) {
	store := "sqlite:" + filepath.Join(t.TempDir(), "as.db")
	at := func(args ...string) []string { return append(args, "--store", store) }
	good := func(stdin string, args ...string) string {
		t.Helper()
		code, out, errs := clitest.Run(t, drivers.All(), stdin, at(args...)...)
		if code != cli.Good {
			t.Fatalf("%q ended with %d: %s", args, code, errs)
		}
		return out
	}
	refused := func(want, stdin string, args ...string) {
		t.Helper()
		code, out, errs := clitest.Run(t, drivers.All(), stdin, at(args...)...)
		if code != cli.Mistake || out != "" || !strings.Contains(errs, want) {
			t.Errorf("%q ended with %d, %s%s", args, code, out, errs)
		}
	}
	made := regexp.MustCompile(`^client_id (\S+)\nclient_secret (\S+)\n$`)
	log, stop := clitest.Background(t, drivers.All(), "serve", "--addr", "127.0.0.1:0", "--store", store)
	issuer := "http://" + log.Wait(t, `listening on ([0-9.:]+)`)[1]
	token := func(id, secret string) int {
		t.Helper()
		r, err := http.NewRequest("POST", issuer+"/oauth2/token", strings.NewReader("grant_type=client_credentials"))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.SetBasicAuth(url.QueryEscape(id), url.QueryEscape(secret))
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		return res.StatusCode
	}

	t.Run("clients that cannot be added", func(t *testing.T) {
		refused("valetkey: --scope[0]: is not a scope of any API", "", "client", "add", "--scope", "admin")
		refused("has neither scopes nor introspects", "", "client", "add")
		refused("valetkey: --redirect-uri[0]: is neither https", "", "client", "add", "--scope", "orders:read", "--redirect-uri", "http://a.example.com")
		refused("valetkey: --auth-method: is not known", "", "client", "add", "--scope", "orders:read", "--auth-method", "magic")
		refused("valetkey: --trusted: any application on the user's machine", "", "client", "add", "--scope", "orders:read", "--auth-method", "none",
			"--native", "--trusted", "--redirect-uri", "com.example.app:/cb")
		refused("--jwks: open /nowhere", "", "client", "add", "--jwks", "/nowhere")
	})
	var id, secret string
	t.Run("a client that is added gets tokens", func(t *testing.T) {
		m := made.FindStringSubmatch(good("", "client", "add", "--name", "Reports", "--scope", "orders:read"))
		if m == nil {
			t.Fatal("no id and secret")
		}
		id, secret = m[1], m[2]
		if got := token(id, secret); got != 200 {
			t.Errorf("got %d", got)
		}
		list := good("", "client", "list")
		if !strings.Contains(list, id+"  Reports") || !regexp.MustCompile(`orders-reader .* configuration`).MatchString(list) || strings.Contains(list, secret) {
			t.Error(list)
		}
	})
	t.Run("scopes may be one word, as requests have them", func(t *testing.T) {
		good("", "client", "add", "--name", "Both", "--scope", "orders:read orders:write")
		if list := good("", "client", "list"); !regexp.MustCompile(`Both .* orders:read orders:write`).MatchString(list) {
			t.Error(list)
		}
	})
	t.Run("a public client has no secret", func(t *testing.T) {
		out := good("", "client", "add", "--scope", "orders:read", "--auth-method", "none", "--native", "--redirect-uri", "http://127.0.0.1/cb")
		if !regexp.MustCompile(`^client_id \S+\n$`).MatchString(out) {
			t.Error(out)
		}
	})
	t.Run("a new secret ends the old one", func(t *testing.T) {
		fresh := strings.TrimSpace(strings.TrimPrefix(good("", "client", "rotate", id), "client_secret "))
		if old, now := token(id, secret), token(id, fresh); old != 401 || now != 200 {
			t.Errorf("got %d and %d", old, now)
		}
		secret = fresh
	})
	t.Run("a client that is removed is not known", func(t *testing.T) {
		good("", "client", "remove", id)
		if got := token(id, secret); got != 401 {
			t.Errorf("got %d", got)
		}
		refused(`valetkey: authserver: remove client "`+id+`": no such client`+"\n", "", "client", "remove", id)
		refused(`valetkey: authserver: replace the secret of client "`+id+`": no such client`+"\n", "", "client", "rotate", id)
		refused(`remove client "orders-reader": the client is in the configuration`, "", "client", "remove", "orders-reader")
		refused(`replace the secret of client "orders-reader": `, "", "client", "rotate", "orders-reader")
	})
	t.Run("people", func(t *testing.T) {
		refused("the password is required on the first line", "\n", "user", "add", "carl")
		refused("too short", "short\n", "user", "add", "carl")
		refused(`user type "employee" has no users in the database`, "long enough\n", "user", "add", "carl", "--type", "employee")
		out := good("correct horse\r\nnot this\n", "user", "add", "carl", "--id", "7", "--display", "Carl", "--scope", "orders:read")
		if out != "subject customer:7\n" {
			t.Error(out)
		}
		refused("another user has the name", "correct horse\n", "user", "add", "Carl")
		refused("a user of the configuration has the name or the ID", "correct horse\n", "user", "add", "mallory", "--id", "alice")
		refused("the user is in the configuration", "correct horse\n", "user", "password", "alice")
		refused("valetkey: --scope[1]: is not a scope of any API", "correct horse\n", "user", "add", "dora", "--scope", "orders:read admin")
		if list := good("", "user", "list"); !regexp.MustCompile(`carl\s+customer:7\s+Carl\s+orders:read`).MatchString(list) {
			t.Error(list)
		}
		good("another horse\n", "user", "password", "carl")
		refused(`valetkey: authserver: set the password of user "dora": no such user`+"\n", "another horse\n", "user", "password", "dora")
		good("", "user", "remove", "carl")
		refused(`valetkey: authserver: remove user "carl": no such user`+"\n", "", "user", "remove", "carl")
		refused(`remove user "alice": no such user in the store: the user is in the configuration`, "", "user", "remove", "alice")
	})
	t.Run("a user of the configuration is revoked on the store of the server that runs", func(t *testing.T) {
		jar, err := cookiejar.New(nil)
		if err != nil {
			t.Fatal(err)
		}
		browser := &http.Client{Jar: jar}
		where := func(res *http.Response, err error) string {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			return res.Request.URL.Path
		}
		account := issuer + "/account/applications"
		login := url.Values{"name": {"alice"}, "password": {"demo-alice"}, "return": {"/account/applications"}}
		if got := where(browser.PostForm(issuer+"/login", login)); got != "/account/applications" {
			t.Fatal(got)
		}
		refused(`"alice": not a subject, which is a type and an id, such as customer:alice`, "", "user", "revoke", "alice")
		refused(`revoke user "customer:alicia": no session and no grant has this subject`, "", "user", "revoke", "customer:alicia")
		if got := where(browser.Get(account)); got != "/account/applications" {
			t.Error("a mistyped subject has ended the session")
		}
		if out := good("", "user", "revoke", "customer:alice"); out != "ended 1 sessions and 0 grants of customer:alice\n" {
			t.Error(out)
		}
		if got := where(browser.Get(account)); got != "/login" {
			t.Error("the session goes on:", got)
		}
		refused("no session and no grant has this subject", "", "user", "revoke", "customer:alice")
	})
	t.Run("keys", func(t *testing.T) {
		before := good("", "keys", "list")
		active := regexp.MustCompile(`(\S+)\s+ES256\s+active`).FindStringSubmatch(before)
		if active == nil || !regexp.MustCompile(`ES256\s+next`).MatchString(before) {
			t.Fatal(before)
		}
		if told := good("", "keys", "rotate", "--now"); !strings.Contains(told, active[1]) {
			t.Error(told)
		}
		if after := good("", "keys", "list"); !regexp.MustCompile(regexp.QuoteMeta(active[1]) + `\s+ES256\s+retiring`).MatchString(after) {
			t.Error(after)
		}
	})
	t.Run("what is done nowhere", func(t *testing.T) {
		code, _, errs := clitest.Run(t, drivers.All(), "", "client", "list", "--store", "memory")
		if code != cli.Mistake || !strings.Contains(errs, "memory is lost when this command ends") {
			t.Errorf("got %d, %s", code, errs)
		}
	})
	t.Run("groups only hold commands", func(t *testing.T) {
		for _, name := range []string{"client", "keys", "user"} {
			if code, out, _ := clitest.Run(t, drivers.All(), "", name); code != cli.Good || !strings.Contains(out, "Available Commands") {
				t.Errorf("%s: got %d, %s", name, code, out)
			}
			if code, _, _ := clitest.Run(t, drivers.All(), "", name, "x"); code != cli.Mistake {
				t.Errorf("%s x: got %d", name, code)
			}
		}
	})
	if code := stop(); code != cli.Good {
		t.Errorf("serve ended with %d", code)
	}
}

// A misspelled path is an error instead of an empty server: only serve and commands that add a record create a database.
func TestMisspelledStore(t *testing.T) {
	folder := t.TempDir()
	store := "sqlite:" + filepath.Join(folder, "typo.db")
	for _, args := range [][]string{
		{"client", "list"}, {"client", "rotate", "x"}, {"client", "remove", "x"}, {"user", "list"}, {"user", "password", "x"},
		{"user", "remove", "x"}, {"user", "revoke", "customer:x"}, {"keys", "list"}, {"keys", "rotate"}, {"keys", "rotate", "--now"},
	} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			code, out, errs := clitest.Run(t, drivers.All(), "correct horse\n", append(args, "--store", store)...)
			if code != cli.Mistake || out != "" || !strings.Contains(errs, "store: "+filepath.Join(folder, "typo.db")+": no such database") {
				t.Errorf("got %d, %s%s", code, out, errs)
			}
			if made, err := os.ReadDir(folder); err != nil || len(made) > 0 {
				t.Errorf("got %v, %v", made, err)
			}
		})
	}
	t.Run("user add creates it", func(t *testing.T) {
		code, _, errs := clitest.Run(t, drivers.All(), "correct horse\n", "user", "add", "carl", "--store", store)
		if code != cli.Good {
			t.Errorf("got %d, %s", code, errs)
		}
		if code, out, errs := clitest.Run(t, drivers.All(), "", "user", "list", "--store", store); code != cli.Good || !strings.Contains(out, "carl") {
			t.Errorf("got %d, %s%s", code, out, errs)
		}
	})
}

// The example is served unchanged, from a temporary folder.
func TestServeExample(t *testing.T) {
	text, err := os.ReadFile("../../../../examples/serve/as.yaml")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "as.yaml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	log, stop := clitest.Background(t, drivers.All(), "serve", "--config", file, "--addr", "127.0.0.1:0")
	addr := log.Wait(t, `listening on ([0-9.:]+)`)[1]
	res, err := http.Get("http://" + addr + "/.well-known/oauth-authorization-server")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var about struct{ Issuer string }
	if err := json.NewDecoder(res.Body).Decode(&about); err != nil || about.Issuer != "https://as.example.com" {
		t.Errorf("got %v, %v", about, err)
	}
	if code := stop(); code != cli.Good {
		t.Errorf("ended with %d", code)
	}
	for _, made := range []string{"valetkey.db", "valetkey.db.seal"} {
		if _, err := os.Stat(filepath.Join(filepath.Dir(file), made)); err != nil {
			t.Error("beside the file:", err)
		}
	}
}
