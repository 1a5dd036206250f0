package clients_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/authserver/internal/clients"
)

func TestRedirectURI(t *testing.T) {
	t.Run("AS-CODE-04 AS-DCR-06 refused", func(t *testing.T) {
		for name, uri := range map[string]string{
			"http beyond loopback":                "http://app.example.com/cb",
			"http to a name like loopback":        "http://127.0.0.1.example.com/cb",
			"http to another spelling of it":      "http://127.1/cb",
			"http to a name that ends like it":    "http://evillocalhost/cb",
			"http to loopback with a dot":         "http://localhost./cb",
			"http to loopback with a zone":        "http://[::1%25eth0]/cb",
			"http to all addresses":               "http://0.0.0.0/cb",
			"javascript":                          "javascript:alert(1)",
			"javascript in capitals":              "JavaScript://app.example.com/%0aalert(1)",
			"data":                                "data:text/html,hello",
			"file":                                "file:///etc/passwd",
			"vbscript":                            "vbscript:msgbox",
			"about":                               "about:blank",
			"a scheme without a dot":              "myapp://callback",
			"a private-use scheme without a path": "com.example.app:",
			"a private-use scheme, opaque":        "com.example.app:callback",
			"no scheme":                           "//app.example.com/cb",
			"a path":                              "/cb",
			"nothing":                             "",
			"https without a host":                "https:///cb",
			"https with a port only":              "https://:443/cb",
			"https, opaque":                       "https:app.example.com/cb",
			"a fragment":                          "https://app.example.com/cb#here",
			"an empty fragment":                   "https://app.example.com/cb#",
			"a user":                              "https://app.example.com@evil.example.com/cb",
			"an empty user":                       "https://@app.example.com/cb",
			"a wildcard as host":                  "https://*.example.com/cb",
			"a wildcard in the path":              "https://app.example.com/*",
			"a space":                             "https://app.example.com/c b",
			"a line break":                        "https://app.example.com/cb\r\nX: y",
			"a tab that browsers remove":          "java\tscript:alert(1)",
			"a backslash":                         `https://app.example.com\@evil.example.com/cb`,
			"a quote":                             `https://app.example.com/"onclick=`,
			"an angle bracket":                    "https://app.example.com/<script>",
			"letters that only look alike":        "https://аpp.example.com/cb",
			"an escaped host":                     "https://app%E2%80%8B.example.com/cb",
			"a malformed escape":                  "https://app.example.com/%zz",
			"a malformed port":                    "https://app.example.com:port/cb",
			"too many bytes":                      "https://app.example.com/" + strings.Repeat("a", 2000),
		} {
			assert.Error(t, clients.ValidRedirectURI(uri, true), name)
			assert.Error(t, clients.ValidRedirectURI(uri, false), name)
		}
		assert.ErrorContains(t, clients.ValidRedirectURI("com.example.app:/cb", false), "requires a native application")
		for _, uri := range []string{"javascript://x/%0aalert(1)", "data://x/y", "http://app.example.com/cb", "cursor:", "cursor:cb", "vscode://oauth/cb"} {
			scheme, _, _ := strings.Cut(uri, ":")
			if scheme == "vscode" {
				scheme = "cursor"
			}
			assert.Error(t, clients.ValidRedirectURI(uri, true, scheme), uri)
		}
	})
	t.Run("accepted", func(t *testing.T) {
		for _, uri := range []string{
			"https://app.example.com/cb",
			"https://app.example.com:8443/cb?tenant=1",
			"https://app.example.com",
			"https://localhost/cb",
			"http://localhost:8080/authorization",
			"http://127.0.0.1/cb",
			"http://127.0.0.1:1234/cb",
			"http://[::1]:1234/cb",
		} {
			assert.NoError(t, clients.ValidRedirectURI(uri, false), uri)
			assert.NoError(t, clients.ValidRedirectURI(uri, true), uri)
		}
		assert.NoError(t, clients.ValidRedirectURI("com.example.app:/cb", true))
		assert.NoError(t, clients.ValidRedirectURI("com.example.app://oauth/cb", true))
		assert.NoError(t, clients.ValidRedirectURI("cursor://anysphere.cursor-mcp/oauth/callback", false, "vscode", "cursor"))
	})
	t.Run("only the scheme is wrong", func(t *testing.T) {
		for uri, is := range map[string]bool{
			"cursor://oauth/cb": true, "com.example.app:/cb": true, "javascript://x/y": false, "cursor:cb": false, "http://app.example.com/cb": false,
			"cursor://oauth/cb#": false,
		} {
			err := clients.ValidRedirectURI(uri, false)
			require.Error(t, err, uri)
			assert.Equal(t, is, errors.Is(err, clients.ErrPrivateUse), uri)
		}
	})
	t.Run("schemes that are never private", func(t *testing.T) {
		for _, scheme := range []string{"", "https", "javascript", "data", "intent", "Cursor", "1a", "a b", "a:", "cursör"} {
			assert.Error(t, clients.ValidScheme(scheme), scheme)
		}
		for _, scheme := range []string{"cursor", "vscode-insiders", "com.example.app"} {
			assert.NoError(t, clients.ValidScheme(scheme), scheme)
		}
	})
}

// An accepted URI has one interpretation: it is ASCII, and a browser has nothing to repair.
func FuzzRedirectURI(f *testing.F) {
	for _, seed := range []string{"https://app.example.com/cb", "http://[::1]:1/cb", "com.example.app:/cb", "javascript:alert(1)", "https://a@b/"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, uri string) {
		if clients.ValidRedirectURI(uri, true) != nil {
			return
		}
		lower := strings.ToLower(uri)
		if strings.ContainsAny(uri, " \t\r\n\\\"<>#*") || strings.ContainsFunc(uri, func(r rune) bool { return r > 0x7e }) {
			t.Errorf("%q has a character that it must not have", uri)
		}
		scheme, rest, _ := strings.Cut(lower, ":")
		switch {
		case scheme == "https":
		case scheme == "http":
			host, _, _ := strings.Cut(strings.TrimPrefix(rest, "//"), "/")
			host, _, _ = strings.Cut(host, "?")
			if !strings.HasPrefix(host, "localhost") && !strings.HasPrefix(host, "127.0.0.1") && !strings.HasPrefix(host, "[::1]") {
				t.Errorf("%q is http to another host", uri)
			}
		case !strings.Contains(scheme, "."):
			t.Errorf("%q has a scheme of others", uri)
		}
	})
}
