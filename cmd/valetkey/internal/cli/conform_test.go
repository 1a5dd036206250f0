package cli_test

import (
	"encoding/json"
	"encoding/xml"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/cmd/valetkey/internal/clitest"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/driver"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/schematest"
	"github.com/valetkey/valetkey/conformance"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/scopes"
)

// guardedBy returns the URL of a server that trusts the issuer at this address. wrap may break it.
func guardedBy(t *testing.T, issuer string, wrap func(http.Handler) http.Handler) string {
	t.Helper()
	keys, err := jwks.New(jwks.Config{Issuer: "http://" + issuer, Audience: []string{conformance.DefaultAudience},
		Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	t.Cleanup(keys.Close)
	guard, err := middleware.New(middleware.Config{Verifier: keys, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	ok := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {})
	mux := http.NewServeMux()
	mux.Handle("/orders", guard.Handler(ok))
	mux.Handle("/orders/read", guard.Handler(ok, scopes.All("orders:read")))
	var handler http.Handler = mux
	if wrap != nil {
		handler = wrap(mux)
	}
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server.URL
}

func conform(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	return clitest.Run(t, driver.Set{}, "", append([]string{"conform"}, args...)...)
}

func TestConformMistakes(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"no target":                 {nil, "--target: required, or --start"},
		"no issuer":                 {[]string{"--target", "http://127.0.0.1:1/"}, "--issuer-listen: required without --start"},
		"not a URL":                 {[]string{"--target", "orders", "--issuer-listen", "127.0.0.1:0"}, `expected an http or https URL, got "orders"`},
		"an unknown profile":        {[]string{"--target", "http://127.0.0.1:1/", "--issuer-listen", "127.0.0.1:0", "--profile", "saml"}, `profile: unknown: "saml"`},
		"an unknown feature":        {[]string{"--target", "http://127.0.0.1:1/", "--issuer-listen", "127.0.0.1:0", "--feature", "x"}, `feature: unknown: "x"`},
		"a route without scope":     {[]string{"--target", "http://127.0.0.1:1/", "--scope-route", "/a"}, "--scope-route: expected PATH=SCOPE"},
		"an unknown route":          {[]string{"--target", "http://127.0.0.1:1/", "--route", "x=/a"}, "the name must be acr, max-age, optional or rar"},
		"an age that is not an age": {[]string{"--target", "http://127.0.0.1:1/", "--route", "max-age=/a=soon"}, "expected max-age=PATH=SECONDS"},
		"an open quote":             {[]string{"--start", "server 'x"}, "--start: a quote is not closed"},
		"start and issuer":          {[]string{"--start", "server", "--issuer-listen", "127.0.0.1:0"}, "cannot be combined with --start"},
		"an unknown set":            {[]string{"--set", "1999-01"}, "unknown set"},
		"an unknown case":           {[]string{"--case", "nothing"}, `no selected case has the ID "nothing"`},
		"an unknown explanation":    {[]string{"--explain", "nothing"}, `there is no case "nothing"`},
		"an unknown group":          {[]string{"--group", "nothing"}, "no case is selected"},
		"no rate":                   {[]string{"--target", "http://127.0.0.1:1/", "--issuer-listen", "127.0.0.1:0", "--rate", "0"}, "--rate: 0 is not a positive number"},
		"no baseline":               {[]string{"--target", "http://127.0.0.1:1/", "--issuer-listen", "127.0.0.1:0", "--expect", "no-such-file"}, "--expect: "},
		"an argument":               {[]string{"http://127.0.0.1:1/"}, "unexpected argument"},
		"no program":                {[]string{"--start", "no-such-program-anywhere"}, "starting the server"},
	} {
		t.Run(name, func(t *testing.T) {
			code, _, stderr := conform(t, c.args...)
			assert.Equal(t, 2, code)
			assert.Contains(t, stderr, c.want)
		})
	}
}

func TestConformServerThatTrustsAnotherIssuer(t *testing.T) {
	code, _, stderr := conform(t, "--target", guardedBy(t, clitest.FreeAddr(t), nil)+"/orders", "--issuer-listen", clitest.FreeAddr(t))
	assert.Equal(t, 2, code)
	assert.Contains(t, stderr, "the server does not accept a good token")
	assert.Contains(t, stderr, "HTTP/1.1 401", "the response shows why")
}

func TestConformGuard(t *testing.T) {
	issuer := clitest.FreeAddr(t)
	report := filepath.Join(t.TempDir(), "report.json")
	code, stdout, stderr := conform(t, "--target", guardedBy(t, issuer, nil)+"/orders", "--issuer-listen", issuer, "--profile", "bearer,rfc9068",
		"--scope-route", "/orders/read=orders:read", "--set", "2026-12", "--rate", "5000", "--json", report)
	assert.Equal(t, 0, code, "%s\n%s", stdout, stderr)
	assert.Contains(t, stdout, "set 2026-12")
	text, err := os.ReadFile(report)
	require.NoError(t, err)
	assert.NoError(t, schematest.CheckJSON(conformance.ReportSchema, text))
}

// TestConformFailures runs the cases of one group against a server that accepts a token in the query.
func TestConformFailures(t *testing.T) {
	issuer := clitest.FreeAddr(t)
	url := guardedBy(t, issuer, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if token := r.URL.Query().Get("access_token"); token != "" && r.Header.Get("Authorization") == "" {
				r.Header.Set("Authorization", "Bearer "+token)
				r.URL.RawQuery = ""
			}
			next.ServeHTTP(w, r)
		})
	})
	dir := t.TempDir()
	run := func(args ...string) (int, string, string) {
		return conform(t, append([]string{"--target", url + "/orders", "--issuer-listen", issuer, "--group", "places", "--rate", "5000"}, args...)...)
	}
	t.Run("the first failure explains itself", func(t *testing.T) {
		code, stdout, _ := run()
		assert.Equal(t, 1, code)
		for _, want := range []string{"FAILED place-query: A token in the query is ignored", "status 200, expected 400 or 401 or 403",
			"GET /orders?access_token=", "HTTP/1.1 200 OK", "why it matters: A token in a URL ends up in logs"} {
			assert.Contains(t, stdout, want)
		}
		assert.Less(t, strings.Index(stdout, " all\n"), strings.Index(stdout, "FAILED"), "the summary comes first")
	})
	t.Run("a baseline accepts a known failure", func(t *testing.T) {
		known := filepath.Join(dir, "known")
		require.NoError(t, os.WriteFile(known, []byte("# legacy clients\nplace-query # until 2027\n"), 0o600))
		code, stdout, _ := run("--expect", known)
		assert.Equal(t, 0, code, stdout)
		assert.Contains(t, stdout, "known: place-query")
	})
	t.Run("a baseline with a failure that is fixed fails", func(t *testing.T) {
		known := filepath.Join(dir, "fixed")
		require.NoError(t, os.WriteFile(known, []byte("place-query\nplace-json\n"), 0o600))
		code, stdout, _ := run("--expect", known)
		assert.Equal(t, 1, code)
		assert.Contains(t, stdout, "fixed: place-json: remove it from the baseline")
	})
	t.Run("a baseline with an unknown case is a mistake", func(t *testing.T) {
		known := filepath.Join(dir, "unknown")
		require.NoError(t, os.WriteFile(known, []byte("\nplace-queri\n"), 0o600))
		code, _, stderr := run("--expect", known)
		assert.Equal(t, 2, code)
		assert.Contains(t, stderr, `line 2: there is no case "place-queri"`)
	})
	t.Run("reports for machines", func(t *testing.T) {
		file := func(name string) string { return filepath.Join(dir, name) }
		code, stdout, _ := run("--json", "-", "--junit", file("junit"), "--sarif", file("sarif"), "--markdown", file("md"))
		assert.Equal(t, 1, code)
		assert.NoError(t, schematest.CheckJSON(conformance.ReportSchema, []byte(stdout)))
		var doc struct {
			Total struct{ Failed int }
		}
		require.NoError(t, json.Unmarshal([]byte(stdout), &doc))
		assert.Equal(t, 1, doc.Total.Failed)

		text, err := os.ReadFile(file("junit"))
		require.NoError(t, err)
		var suite struct {
			Failures int `xml:"failures,attr"`
			Cases    []struct {
				Name    string    `xml:"name,attr"`
				Failure *struct{} `xml:"failure"`
			} `xml:"testcase"`
		}
		require.NoError(t, xml.Unmarshal(text, &suite))
		assert.Equal(t, 1, suite.Failures)
		for _, c := range suite.Cases {
			assert.Equal(t, c.Name == "place-query", c.Failure != nil, c.Name)
		}

		text, err = os.ReadFile(file("sarif"))
		require.NoError(t, err)
		var sarif struct {
			Version string
			Runs    []struct {
				Results []struct{ RuleID, Level string }
			}
		}
		require.NoError(t, json.Unmarshal(text, &sarif))
		assert.Equal(t, "2.1.0", sarif.Version)
		assert.Contains(t, sarif.Runs[0].Results, struct{ RuleID, Level string }{"place-query", "warning"})

		text, err = os.ReadFile(file("md"))
		require.NoError(t, err)
		assert.Contains(t, string(text), "| `place-query` | failed | should |")
	})
}

func TestConformCase(t *testing.T) {
	issuer := clitest.FreeAddr(t)
	url := guardedBy(t, issuer, nil)
	code, stdout, _ := conform(t, "--target", url+"/orders", "--issuer-listen", issuer, "--case", "bearer-scheme-upper,raw-obs-fold")
	assert.Equal(t, 0, code, stdout)
	assert.Contains(t, stdout, "bearer-scheme-upper: curl -i --path-as-is -X GET -H 'Authorization: BEARER ey")
	assert.Contains(t, stdout, url+"/orders'")
	assert.Contains(t, stdout, `raw-obs-fold: printf 'GET /orders HTTP/1.1\r\n`, "curl cannot send it")
}

func TestConformListAndExplain(t *testing.T) {
	code, stdout, _ := conform(t, "--list", "--group", "signatures")
	assert.Equal(t, 0, code)
	assert.Contains(t, stdout, "jws-ecdsa-zero")
	assert.NotContains(t, stdout, "place-query")

	code, stdout, _ = conform(t, "--explain", "rotation-withdrawn-key")
	assert.Equal(t, 0, code)
	for _, want := range []string{"RFC 7517, section 5", "JWKS-22:", "a server that the runner starts", "step 3", "A key is withdrawn when others know it."} {
		assert.Contains(t, stdout, want)
	}
}

// TestConformanceCasesFollowTheirSchema is here because the core module has no library for schemas.
func TestConformanceCasesFollowTheirSchema(t *testing.T) {
	const folder = "../../../../conformance/cases/"
	schema, err := os.ReadFile(folder + "schema.json")
	require.NoError(t, err)
	files, err := filepath.Glob(folder + "*.json")
	require.NoError(t, err)
	checked := 0
	for _, name := range files {
		switch filepath.Base(name) {
		case "schema.json", "outcomes.json", "without.json":
			continue
		}
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		assert.NoError(t, schematest.CheckJSON(schema, text), name)
		checked++
	}
	assert.Greater(t, checked, 20)
	assert.Error(t, schematest.CheckJSON(schema, []byte(`{"$schema":"schema.json","cases":[{"id":"x"}]}`)), "a case without steps")
}
