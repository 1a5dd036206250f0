package browser_test

import (
	"bufio"
	_ "embed"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/valetkey/valetkey/valetkeytest"
)

//go:embed cors.js
var corsScript string

// proxied runs valetkey proxy, as it is built from this checkout, until the end of the test, and returns its URL.
func proxied(t *testing.T, config string) string {
	t.Helper()
	dir := t.TempDir()
	program, file := filepath.Join(dir, "valetkey"), filepath.Join(dir, "proxy.yaml")
	if out, err := exec.Command("go", "build", "-C", "../../../cmd/valetkey", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("build valetkey: %v\n%s", err, out)
	}
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	process := exec.Command(program, "proxy", "--config", file)
	log, err := process.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		process.Process.Signal(syscall.SIGTERM)
		io.Copy(io.Discard, log)
		if err := process.Wait(); err != nil {
			t.Errorf("valetkey proxy: %v", err)
		}
	})
	lines := bufio.NewScanner(log)
	for lines.Scan() {
		if _, addr, found := strings.Cut(lines.Text(), "listening on "); found {
			addr, _, _ = strings.Cut(addr, `"`)
			go io.Copy(io.Discard, log)
			return "http://" + addr
		}
		t.Log(lines.Text())
	}
	t.Fatal("valetkey proxy does not listen")
	return ""
}

// TestCORS opens pages of other origins, whose scripts call an API behind valetkey proxy.
func TestCORS(t *testing.T) {
	b := start(t)
	iss := valetkeytest.NewIssuer(t)
	token := func(scope string, more ...valetkeytest.Option) string {
		return iss.Token(append(more, valetkeytest.Scopes(scope))...)
	}
	site := func() string {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch jkt := r.FormValue("jkt"); {
			case r.URL.Path == "/":
				w.Header().Set("Content-Type", "text/html; charset=utf-8")
				io.WriteString(w, `<!DOCTYPE html><html lang="en"><title>Orders</title><link rel="icon" href="data:,">`)
			case jkt != "":
				io.WriteString(w, token("orders:read", valetkeytest.Claim("cnf", map[string]string{"jkt": jkt})))
			default:
				io.WriteString(w, token(r.FormValue("scope")))
			}
		}))
		t.Cleanup(server.Close)
		return server.URL
	}
	app, stranger := site(), site()
	var options atomic.Int32
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodOptions {
			options.Add(1)
		}
		w.Header().Set("Access-Control-Allow-Origin", "*") // two of them, and the browser would refuse
		fmt.Fprintf(w, "%s for %s", r.Method, r.Header.Get("X-Valetkey-Subject"))
	}))
	t.Cleanup(upstream.Close)
	api := proxied(t, fmt.Sprintf(`
listen: 127.0.0.1:0
upstream: %s
resource: %s
verifiers: [jwks: {issuer: %q}]
dpop: {nonce: on}
cors: {origins: %q}
routes: {"GET /orders": orders:read, "DELETE /orders/{id}": orders:write}
`, upstream.URL, valetkeytest.DefaultAudience, iss.URL, app))

	// A result is what a script can read of a response; zero: a network error.
	type result struct {
		Status    int
		Body      string
		Challenge string
		Nonce     bool
	}
	run := func(t *testing.T, page, scenario string) result {
		ctx, end := chromedp.NewContext(b.ctx, chromedp.WithNewBrowserContext())
		defer end()
		v := &tab{t: t, ctx: ctx, shots: b.shots}
		v.must("open a tab", chromedp.Do(ctx)) // with a context that outlives the steps
		v.do("visit", chromedp.Navigate(page))
		call := fmt.Sprintf("(%s)(%q, %q, %q)", corsScript, api, valetkeytest.DefaultAudience, scenario)
		return get(v, scenario, chromedp.Evaluate[result](call, chromedp.EvalAwaitPromise))
	}
	const metadata = `resource_metadata="` + valetkeytest.DefaultAudience + `/.well-known/oauth-protected-resource"`
	for _, c := range []struct {
		name, page, scenario string
		want                 result
		challenge            string // in the challenge
	}{
		{"a page of another origin reads nothing", stranger, "read", result{}, ""},
		{"nor a refusal", stranger, "no token", result{}, ""},
		{"nor does a preflight for a route that does not exist succeed", app, "no route", result{}, ""},
		{"401 without a token", app, "no token", result{Status: 401, Body: "Unauthorized\n"}, metadata},
		{"401 with a bad token", app, "bad token", result{Status: 401, Body: "Unauthorized: the token is not a JWT\n"}, `error="invalid_token"`},
		{"403 with too little scope", app, "too little scope", result{Status: 403, Body: "Forbidden: the token lacks a scope that this request needs\n"}, `scope="orders:write"`},
		{"401 with a nonce for the next proof", app, "proof without nonce", result{Status: 401, Body: "Unauthorized: the DPoP proof needs a current nonce of this server\n", Nonce: true}, `error="use_dpop_nonce"`},
		{"200", app, "read", result{Status: 200, Body: "GET for alice"}, ""},
		{"200 for a method that needs permission", app, "delete", result{Status: 200, Body: "DELETE for alice"}, ""},
		{"200 with a proof that has the nonce", app, "proof with nonce", result{Status: 200, Body: "GET for alice"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := run(t, c.page, c.scenario)
			if !strings.Contains(got.Challenge, c.challenge) || (got.Challenge != "") != (c.challenge != "") {
				t.Errorf("the script reads the challenge %q, without %s", got.Challenge, c.challenge)
			}
			got.Challenge = ""
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("the script reads %+v, want %+v", got, c.want)
			}
		})
	}
	if n := options.Load(); n > 0 {
		t.Errorf("%d preflights reached the upstream", n)
	}
}
