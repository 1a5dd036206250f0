package dpop_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/dpop"
	"github.com/valetkey/valetkey/internal/jose"
)

// A matcher holds the URL that a proof names against that of a request.
type matcher struct {
	v      *dpop.Verifier
	client *jose.PrivateKey
}

func newMatcher(t testing.TB) matcher {
	client, err := jose.GenerateKey("EdDSA", "")
	require.NoError(t, err)
	return matcher{newVerifier(t, dpop.Config{ReplayStore: dpop.InsecureAllowReplays{}}), client}
}

func (m matcher) match(t testing.TB, htu, requested string) error {
	claims := mustJSON(t, map[string]any{"jti": "x", "htm": method, "htu": htu, "iat": time.Now().Unix()})
	proof, err := m.client.Sign(map[string]any{"typ": "dpop+jwt", "jwk": m.client.PublicJWK()}, claims)
	require.NoError(t, err)
	_, err = m.v.Verify(t.Context(), dpop.Request{Proofs: []string{proof}, Method: method, URL: requested})
	return err
}

func TestURLs(t *testing.T) {
	m := newMatcher(t)
	for _, c := range []struct{ name, htu, requested string }{
		{"DPOP-12 another scheme", "http://h/a", "https://h/a"},
		{"DPOP-12 another host", "https://h/a", "https://h2/a"},
		{"DPOP-12 a subdomain", "https://h/a", "https://x.h/a"},
		{"DPOP-12 another port", "https://h:444/a", "https://h/a"},
		{"DPOP-12 the other scheme's default port", "https://h:80/a", "https://h/a"},
		{"DPOP-12 another port of http", "http://h:8080/a", "http://h/a"},
		{"DPOP-12 the default port of https with http", "http://h:443/a", "http://h/a"},
		{"DPOP-12 a port with a zero before it", "https://h:0443/a", "https://h/a"},
		{"DPOP-12 an invalid port", "https://h:x/a", "https://h:x/a"},
		{"DPOP-12 a longer path", "https://h/a", "https://h/a/b"},
		{"DPOP-12 a slash at the end", "https://h/a", "https://h/a/"},
		{"DPOP-12 a slash twice", "https://h/a//b", "https://h/a/b"},
		{"DPOP-12 userinfo", "https://u@h/a", "https://u@h/a"},
		{"DPOP-12 userinfo before another host", "https://h@evil/a", "https://h/a"},
		{"DPOP-12 a scheme that is not HTTP", "ftp://h/a", "ftp://h/a"},
		{"DPOP-12 two schemes that are not HTTP", "ftp://h/a", "ws://h/a"},
		{"DPOP-12 a scheme and nothing else", "https", "https"},
		{"DPOP-12 a scheme with a letter that folds to an s", "http\u017f://h/a", "https://h/a"},
		{"DPOP-12 a host with a letter that folds to a k", "https://\u212a/a", "https://k/a"},
		{"DPOP-12 no host", "https:///a", "https:///a"},
		{"DPOP-12 no host, a port", "https://:443/a", "https://:443/a"},
		{"DPOP-12 no scheme", "//h/a", "https://h/a"},
		{"DPOP-12 a scheme with one slash", "https:/h/a", "https://h/a"},
		{"DPOP-12 a space before it", " https://h/a", "https://h/a"},
		{"DPOP-12 a percent-encoding in the host", "https://%68/a", "https://h/a"},
		{"DPOP-12 an address without its end", "https://[::1/a", "https://[::1/a"},
		{"DPOP-12 a name with the beginning of an address", "https://[h/a", "https://[h/a"},
		{"DPOP-12 a character in an address that none has", "https://[::1@h]/a", "https://[::1@h]/a"},
		{"DPOP-12 the same with a colon in a name", "https://a:b:443/a", "https://a:b:443/a"},
		{"DPOP-12 a colon in a name", "https://a:b:443/a", "https://a:b/a"},
		{"DPOP-12 a backslash", `https://h\@evil/a`, "https://h/a"},
		{"DPOP-12 an invalid percent-encoding", "https://h/%zz", "https://h/%zz"},
		{"DPOP-12 a percent-encoding whose first digit is none", "https://h/%z4", "https://h/%z4"},
		{"DPOP-12 a percent-encoding whose second digit is none", "https://h/%4g", "https://h/%4g"},
		{"DPOP-12 a percent-encoding with the character before the letters", "https://h/%4@", "https://h/%4@"},
		{"DPOP-12 a percent-encoding with the character before the digits", "https://h/%4.", "https://h/%4."},
		{"DPOP-12 a percent-encoding with the character after the digits", "https://h/%4:", "https://h/%4:"},
		{"DPOP-12 a percent-encoding cut short", "https://h/%4", "https://h/%4"},
		{"DPOP-16 a number sign in the path of the request", "https://h/a%23b", "https://h/a#b"},
		{"DPOP-16 an encoded slash", "https://h/a%2Fb", "https://h/a/b"},
		{"DPOP-16 an encoded slash left out", "https://h/a%2Fb", "https://h/ab"},
		{"DPOP-16 an encoded question mark", "https://h/a%3Fb", "https://h/a?b"},
		{"DPOP-16 an encoded percent sign", "https://h/a%252Fb", "https://h/a%2Fb"},
		{"DPOP-16 an encoded semicolon", "https://h/a%3Bb", "https://h/a;b"},
		{"DPOP-17 dot segments", "https://h/a/./b/../c", "https://h/a/c"},
		{"DPOP-17 a dot segment at the end", "https://h/a/.", "https://h/a/"},
		{"DPOP-17 an encoded dot segment", "https://h/a/%2e%2e/c", "https://h/a/../c"},
		{"DPOP-17 half a dot segment encoded", "https://h/a/.%2E/c", "https://h/a/../c"},
		{"DPOP-17 two encodings of a dot segment", "https://h/a/%2e%2e/c", "https://h/a/%2e./c"},
		{"DPOP-17 an encoded dot segment, resolved", "https://h/a/%2e%2e/c", "https://h/c"},
		{"DPOP-17 an encoded single dot", "https://h/%2e", "https://h/."},
		{"DPOP-18 no path and a longer one", "https://h", "https://h/a"},
		{"DPOP-19 letter case of the path", "https://h/Orders", "https://h/orders"},
	} {
		t.Run(c.name, func(t *testing.T) {
			requireRefusal(t, m.match(t, c.htu, c.requested), valetkey.InvalidProof, "another URL")
			requireRefusal(t, m.match(t, c.requested, c.htu), valetkey.InvalidProof, "another URL")
		})
	}
	for _, c := range []struct{ name, htu, requested string }{
		{"the same", "https://h/a", "https://h/a"},
		{"DPOP-13 a query in either", "https://h/a?x=/y", "https://h/a?z"},
		{"DPOP-13 a query without a path", "https://h?x", "https://h/"},
		{"DPOP-14 capitals and the default port", "HTTPS://API.Example.com:443/a", "https://api.example.com/a"},
		{"DPOP-14 a scheme in capitals", "HTTPS://h/a", "https://h/a"},
		{"DPOP-14 a host in capitals", "https://API.Example.com/a", "https://api.example.com/a"},
		{"DPOP-14 the default port of http", "http://h:80/a", "http://h/a"},
		{"DPOP-14 a port left empty", "https://h:/a", "https://h/a"},
		{"DPOP-14 a port that is not the default", "https://H:8443/a", "https://h:8443/a"},
		{"DPOP-14 an address", "https://[2001:DB8::1]:443/a", "https://[2001:db8::1]/a"},
		{"DPOP-15 unreserved characters encoded", "https://h/%7Eu/a%2db%5f%2e", "https://h/~u/a-b_."},
		{"DPOP-15 letters and digits encoded", "https://h/%61%7a%41%5A%30%39", "https://h/azAZ09"},
		{"DPOP-15 every hexadecimal digit", "https://h/%f0%9a%1b%2c%3d%4e%56%78", "https://h/%F0%9A%1B%2C%3DNVx"},
		{"DPOP-15 letter case of hexadecimal digits", "https://h/a%2fb%c3%a9", "https://h/a%2Fb%C3%A9"},
		{"DPOP-16 the same encoded slash", "https://h/a%2Fb", "https://h/a%2fb"},
		{"DPOP-17 the same dot segments", "https://h/a/../c", "https://h/a/../c"},
		{"DPOP-17 the same encoded dot segment", "https://h/a/%2e%2e/c", "https://h/a/%2E%2e/c"},
		{"DPOP-17 three dots are a name like any other", "https://h/a/%2e../c", "https://h/a/.../c"},
		{"DPOP-18 no path", "https://h", "https://h/"},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.NoError(t, m.match(t, c.htu, c.requested))
			require.NoError(t, m.match(t, c.requested, c.htu))
		})
	}
}

func TestRefusedURLsAreQuotedWithoutTheirQueries(t *testing.T) {
	m := newMatcher(t)
	for _, c := range []struct{ htu, requested string }{
		{"https://h/a?token=secret", "https://h/b"}, {"https://h/a#secret", "https://h/b"}, {"?secret", "https://h/b"}, {"#secret", "https://h/b"},
		{"https://h/a", "https://h/b?token=secret"},
	} {
		err := m.match(t, c.htu, c.requested)
		require.ErrorContains(t, err, "https://h/b")
		require.NotContains(t, err.Error(), "secret")
	}
}

// Two paths of which one is accepted in a proof for the other go to the same handler of net/http, with the same values.
func FuzzURL(f *testing.F) {
	for _, seed := range [][2]string{
		{"/a/b", "/a/b"}, {"/a/../b", "/b"}, {"/a/%2e%2e/b", "/a/../b"}, {"/a/.%2e/b", "/a/%2e./b"}, {"/a%2Fb", "/a/b"}, {"/a%2fb", "/a%2Fb"},
		{"/A/b", "/a/b"}, {"", "/"}, {"/", "//"}, {"/a//b", "/a/b"}, {"/a/", "/a"}, {"/a/.", "/a/"}, {"/%61/b", "/a/b"}, {"/a/%7e", "/a/~"},
		{"/a;b/c", "/a%3Bb/c"}, {"/a/%252e", "/a/%2e"}, {"/a?/b", "/a%3f/b"}, {"/%2e", "/."}, {"/", "/#a"}, {"/a#b", "/a"}, {"/a/%2E", "/a/%2e"}, {"/\u00e9", "/%C3%A9"},
	} {
		f.Add(seed[0], seed[1])
	}
	m := newMatcher(f)
	mux := http.NewServeMux()
	for _, pattern := range []string{"/{$}", "/{one}", "/{one}/{$}", "/{one}/{two}", "/a/{two}", "/a/b", "/A/b", "/~u/b", "/a/{two}/{three}", "/b/{two}/{rest...}", "/"} {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			parts := []string{r.Pattern, r.PathValue("one"), r.PathValue("two"), r.PathValue("three"), r.PathValue("rest"), r.URL.Path}
			w.Header().Set("X-Handler", strings.Join(parts, "\x00"))
		})
	}
	// route returns where a path goes: to which handler with what, or what it is redirected to.
	route := func(path string) (string, bool) {
		if path != "" && path[0] != '/' {
			return "", false
		}
		u, err := url.ParseRequestURI("https://h" + path)
		if err != nil {
			return "", false
		}
		if u.Path == "" {
			u.Path = "/" // RFC 9110, section 4.2.3: what a client sends then
		}
		u.RawQuery = ""
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, &http.Request{Method: method, Host: "h", URL: u})
		to, err := url.PathUnescape(w.Header().Get("Location"))
		return w.Header().Get("X-Handler") + "\x00" + to, err == nil
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		path, _, _ := strings.Cut(a, "#") // DPOP-13
		goesTo, ok1 := route(path)
		wouldGoTo, ok2 := route(b)
		if ok1 && ok2 && goesTo != wouldGoTo && m.match(t, "https://h"+a, "https://h"+b) == nil {
			t.Fatalf("%q goes to %q, %q to %q, and they count as one", a, goesTo, b, wouldGoTo)
		}
	})
}
