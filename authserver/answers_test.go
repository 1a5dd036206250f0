package authserver_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/authserver"
)

const page, jsonType = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "application/json"

// ask sends a request to a server without a network and without following redirects.
func ask(t *testing.T, s http.Handler, method, path, accept string) answer {
	t.Helper()
	r := httptest.NewRequest(method, path, http.NoBody)
	if accept != "" {
		r.Header.Set("Accept", accept)
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return read(t, w.Result(), nil)
}

func TestHeadersOfEveryAnswer(t *testing.T) {
	cfg := config("https://as.example.com/as")
	cfg.Registration = authserver.Registration{Open: true}
	cfg.Portal = authserver.Portal{Developers: []string{"customer"}}
	over, err := authserver.New(t.Context(), cfg)
	require.NoError(t, err)
	cfg = config("http://127.0.0.1:8888/as")
	plain, err := authserver.New(t.Context(), cfg)
	require.NoError(t, err)

	for _, c := range []struct {
		name, method, path string
		status             int
		popup              bool // it may be in a window that an application has opened
	}{
		{"the home page", "GET", "/as/", 200, false},
		{"a page of an account", "GET", "/as/account/applications", 303, false},
		{"the log-in page", "GET", "/as/login", 200, false},
		{"the stylesheet that is not there", "GET", "/as/assets/style-0.css", 404, false},
		{"an authorization request", "GET", "/as/oauth2/authorize?client_id=x", 400, true},
		{"the older path of authorization requests", "GET", "/as/oauth2/code?client_id=x", 400, true},
		{"the page of an interaction", "GET", "/as/oauth2/authorize/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", 400, true},
		{"a choice of language, which may be part of one", "POST", "/as/language", 303, true},
		{"a path that begins like one", "GET", "/as/oauth2/authorizes", 404, false},
		{"a token request", "POST", "/as/oauth2/token", 400, false},
		{"a registration", "POST", "/as/oauth2/register", 400, false},
		{"the key set", "GET", "/as/oauth2/keys", 200, false},
		{"the metadata", "GET", "/.well-known/oauth-authorization-server/as", 200, false},
		{"a preflight request", "OPTIONS", "/as/oauth2/keys", 405, false},
		{"health", "GET", "/healthz", 200, false},
		{"an unknown path", "GET", "/x", 404, false},
		{"a wrong method", "DELETE", "/as/login", 405, false},
		{"a redirect to the shortest form of a path", "GET", "/as//login", 307, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := ask(t, over, c.method, c.path, page)
			require.Equal(t, c.status, a.status, a.text)
			opener := map[bool]string{false: "same-origin", true: "unsafe-none"}[c.popup]
			for name, want := range map[string]string{
				"Strict-Transport-Security":  "max-age=31536000",
				"Cross-Origin-Opener-Policy": opener,
				"X-Robots-Tag":               "noindex, nofollow",
				"X-Content-Type-Options":     "nosniff",
			} {
				assert.Equal(t, []string{want}, a.header.Values(name), name)
			}
			assert.Contains(t, a.header.Get("Permissions-Policy"), "publickey-credentials-get=(), usb=()")
			assert.Empty(t, ask(t, plain, c.method, c.path, page).header.Values("Strict-Transport-Security"), "the issuer is http")
		})
	}
}

func TestMissing(t *testing.T) {
	s, err := authserver.New(t.Context(), config("https://as.example.com/as"))
	require.NoError(t, err)
	for _, c := range []struct {
		name, method, path, accept string
		status                     int
		kind, text                 string
	}{
		{"a page for a browser", "GET", "/x", page, 404, "text/html; charset=utf-8", "<h1>Page not found</h1>"},
		{"below the issuer", "GET", "/as/x/y?z", page, 404, "text/html; charset=utf-8", "<h1>Page not found</h1>"},
		{"a form to nowhere", "POST", "/as/x", page, 404, "text/html; charset=utf-8", "<h1>Page not found</h1>"},
		{"the root, which is not ours", "GET", "/", page, 404, "text/html; charset=utf-8", "<h1>Page not found</h1>"},
		{"JSON for a client that asks for it", "GET", "/as/x", jsonType, 404, "application/json", `"error":"not_found"`},
		{"JSON before a page, if that is the order", "GET", "/as/x", jsonType + ", text/html", 404, "application/json", `"error":"not_found"`},
		{"JSON for problems", "GET", "/as/x", "application/problem+json", 404, "application/json", `"error":"not_found"`},
		{"text for a client that accepts anything", "GET", "/as/x", "*/*", 404, "text/plain; charset=utf-8", "not found\n"},
		{"text for a client that states nothing", "GET", "/as/x", "", 404, "text/plain; charset=utf-8", "not found\n"},
		{"text for a header that cannot be read", "GET", "/as/x", ";;,/,", 404, "text/plain; charset=utf-8", "not found\n"},
		{"a wrong method of a page", "GET", "/as/logout", page, 405, "text/html; charset=utf-8", "<h1>This address cannot be opened</h1>"},
		{"a wrong method of an endpoint", "GET", "/as/oauth2/token", jsonType, 405, "application/json", `"error":"method_not_allowed"`},
		{"a wrong method, for curl", "PUT", "/as/oauth2/keys", "*/*", 405, "text/plain; charset=utf-8", "method not allowed\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := ask(t, s, c.method, c.path, c.accept)
			require.Equal(t, c.status, a.status)
			assert.Equal(t, c.kind, a.header.Get("Content-Type"))
			assert.Contains(t, a.text, c.text)
			assert.Equal(t, "no-store", a.header.Get("Cache-Control"))
			assert.Equal(t, "Accept, Accept-Language, Cookie", a.header.Get("Vary"))
			assert.Equal(t, c.status == 405, a.header.Get("Allow") != "")
			if c.kind == "text/html; charset=utf-8" {
				assert.Contains(t, a.header.Get("Content-Security-Policy"), "default-src 'none'")
				assert.Contains(t, a.text, `href="/as/"`, "a way forward")
			}
		})
	}
	t.Run("a slash too many leads to the page", func(t *testing.T) {
		for path, want := range map[string]string{
			"/as/login/":                            "/as/login",
			"/as/login/?return=/as/device":          "/as/login?return=/as/device",
			"/as/oauth2/authorize/?client_id=a":     "/as/oauth2/authorize?client_id=a",
			"/as/account/applications/":             "/as/account/applications",
			"/.well-known/openid-configuration/as/": "/.well-known/openid-configuration/as",
		} {
			a := ask(t, s, "GET", path, page)
			assert.Equal(t, 308, a.status, path)
			assert.Equal(t, want, a.header.Get("Location"))
		}
	})
	t.Run("a slash too many leads to no other host, and no form elsewhere", func(t *testing.T) {
		for _, path := range []string{"//evil.example/", "//evil.example/login/", "/as/%2f%2fevil.example/", "/%5Cevil.example/", "/x/"} {
			r := httptest.NewRequest("GET", "/", http.NoBody)
			r.URL.Path, r.RequestURI = path, path
			w := httptest.NewRecorder()
			s.ServeHTTP(w, r)
			assert.NotRegexp(t, `^(//|/\\|https?:)`, w.Header().Get("Location"), path)
			assert.NotEqual(t, 308, w.Code, path)
		}
		assert.Equal(t, 404, ask(t, s, "POST", "/as/login/", page).status)
	})
}
