package authserver_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/authserver"
	"github.com/valetkey/valetkey/authserver/login"
)

// Without a secret, no request gets a token: the response is a refusal of the standard, regardless of the input. The audit log has the address
// that the proxy has added to X-Forwarded-For, whatever the client has sent before it.
func FuzzTokenRequest(f *testing.F) {
	var audit bytes.Buffer
	cfg := config("https://as.example.com")
	cfg.Proxies = []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")}
	cfg.Audit = slog.New(slog.NewJSONHandler(&audit, nil))
	s, err := authserver.New(context.Background(), cfg)
	require.NoError(f, err)
	f.Add("grant_type=client_credentials&client_id=reader&client_secret=x", "", "", "203.0.113.1")
	f.Add("grant_type=client_credentials&scope=orders:read", "Basic cmVhZGVyOng=", "client_id=reader", "192.0.2.1, [::1]:1,")
	f.Add("grant_type=client_credentials&client_assertion=a.b.c&resource=a&resource=b", "Basic OjE=", "%zz", "")
	f.Fuzz(func(t *testing.T, body, authorization, query, from string) {
		audit.Reset()
		r := httptest.NewRequest("POST", "/oauth2/token", strings.NewReader(body))
		r.URL.RawQuery = query
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if authorization != "" {
			r.Header.Set("Authorization", authorization)
		}
		r.RemoteAddr = "192.0.2.1:1"
		r.Header["X-Forwarded-For"] = []string{from, from + ",198.51.100.7"}
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		for line := range strings.Lines(audit.String()) {
			var event struct{ Address *string }
			require.NoError(t, json.Unmarshal([]byte(line), &event))
			require.True(t, event.Address == nil || *event.Address == "198.51.100.7", line)
		}
		a := read(t, w.Result(), nil)
		require.NotContains(t, a.body, "access_token")
		require.Contains(t, []any{"invalid_request", "invalid_client", "unsupported_grant_type"}, a.body["error"])
		require.Equal(t, a.body["error"] == "invalid_client", a.status == 401)
		require.Equal(t, "no-store", a.header.Get("Cache-Control"))
	})
}

// A file yields a server, or mistakes with line numbers. Regardless of the paths, no two patterns conflict.
func FuzzLoadConfig(f *testing.F) {
	demo, err := os.ReadFile("testdata/demo.yaml")
	require.NoError(f, err)
	f.Add(string(demo))
	f.Add(string(demo) + "paths: {token: /a, revoke: /a/b, keys: /x}")
	f.Add("issuer: http://localhost/login\napis: [{audience: 'urn:a', scopes: {a: b}}]\npaths: {authorize: /t/{x}}")
	f.Add("issuer: [&a]\nclients: {a: *a}\nlimits: {register: {burst: -1}}\n---\n")
	f.Fuzz(func(t *testing.T, text string) {
		cfg, err := authserver.LoadConfig("", strings.NewReader(text))
		if err == nil {
			cfg.Users = nil // hashing their passwords is slow
			_, err = authserver.New(context.Background(), cfg)
			require.NoError(t, err)
			return
		}
		for _, at := range regexp.MustCompile(`(?m)^line (\d+): `).FindAllStringSubmatch(err.Error(), -1) {
			line, err := strconv.Atoi(at[1])
			require.NoError(t, err)
			require.LessOrEqual(t, line, strings.Count(text, "\n")+1)
		}
	})
}

// A local sends requests to a server without a connection. It counts them, and makes a new server before its memory is full.
type local struct {
	*site
	n int
}

func newLocal(t testing.TB) *local {
	l := &local{}
	l.renew(t)
	return l
}

func (l *local) renew(t testing.TB) {
	if l.n++; l.n%2000 != 1 {
		return
	}
	cfg := config("https://as.example.com")
	cfg.APIs = cfg.APIs[:1]
	cfg.Clients = nil
	handsOff(&cfg)
	cfg.Portal.Developers = []string{"person"}
	cfg.Logger = slog.New(slog.DiscardHandler)
	many := login.Rate{Burst: 1 << 20, Every: time.Millisecond}
	cfg.Limits.LoginAddress, cfg.Limits.LoginName, cfg.Limits.Pushes, cfg.Limits.DeviceCode = many, many, many, many
	s, err := authserver.New(context.Background(), cfg)
	require.NoError(t, err)
	l.site = &site{Server: s, url: s.Issuer(), log: new(log)}
}

func (l *local) RoundTrip(r *http.Request) (*http.Response, error) {
	in := r.Clone(r.Context())
	in.RequestURI, in.RemoteAddr = r.URL.RequestURI(), "192.0.2.1:1"
	if in.Body == nil {
		in.Body = http.NoBody
	}
	w := httptest.NewRecorder()
	l.ServeHTTP(w, in)
	res := w.Result()
	res.Request = r
	return res, nil
}

// visitor returns a browser of the server.
func (l *local) visitor(t testing.TB) *visitor {
	v := newVisitor(t)
	v.client.Transport = l
	return v
}

// FuzzHandoff signs any claims with the key of the login page, as the answer to the log-in that a browser has begun. An answer is accepted only if
// it is for this server and this log-in and valid now, as encoding/json reads it. It logs in that browser and no other, as the user that
// it names, once. ID is the challenge of the log-in, NOW the time, and JTI a new ID.
func FuzzHandoff(f *testing.F) {
	for _, claims := range []string{
		`{"aud":"https://as.example.com","challenge":"ID","iat":NOW,"exp":NOW,"jti":"JTI","sub":"alice","auth_time":NOW,"acr":"pwd"}`,
		`{"aud":["https://as.example.com"],"challenge":"ID","exp":NOW.5,"jti":"JTI","sub":"Zoë","auth_time":1,"scope":"orders:read x","name":"Zoë \u202e"}`,
		`{"aud":"https://as.example.com","challenge":"ID","exp":NOW,"jti":"JTI","error":"access_denied"}`, `{"aud":"https://as.example.com/","challenge":"ID","exp":NOW,"jti":"JTI","sub":"alice"}`,
		`{"aud":"https://as.example.com","Challenge":"ID","exp":NOW,"jti":"JTI","sub":"alice","auth_time":NOW,"sub":"bob"}`, `{"aud":null,"challenge":"ID","exp":1e99,"sub":null,"scope":[]}`,
	} {
		f.Add("login-answer+jwt", claims)
	}
	l := newLocal(f)
	f.Fuzz(func(t *testing.T, typ, claims string) {
		l.renew(t)
		v, now := l.visitor(t), time.Now()
		id := v.challengeOf(l.authorizeURL("web"))
		claims = strings.NewReplacer("ID", id, "NOW", strconv.FormatInt(now.Unix(), 10), "JTI", rand.Text()).Replace(claims)
		jwt, err := keyOf().Sign(map[string]any{"typ": typ}, []byte(claims))
		require.NoError(t, err)
		tell := func() answer { return l.tellHere(t, jwt) }
		a := tell()
		if a.status != 200 {
			require.Contains(t, []int{400, 404}, a.status, a.text)
			require.NotEmpty(t, a.body["error_description"])
			v.challengeOf(l.authorizeURL("web")) // no user is logged in
			return
		}
		var c map[string]json.RawMessage // names are case-sensitive here
		require.NoError(t, json.Unmarshal([]byte(claims), &c))
		text := func(name string) (s string) {
			_ = json.Unmarshal(c[name], &s) // s stays empty if it is not a string
			return s
		}
		var exp, authTime float64
		require.NoError(t, json.Unmarshal(c["exp"], &exp))
		require.InDelta(t, float64(now.Unix()), exp, 5*60+32)
		require.Contains(t, []string{`"https://as.example.com"`, `["https://as.example.com"]`}, strings.ReplaceAll(string(c["aud"]), " ", ""))
		require.Equal(t, id, text("challenge"))
		require.Equal(t, "login-answer+jwt", strings.TrimPrefix(strings.ToLower(typ), "application/"))
		require.NotEmpty(t, text("jti"))
		to, _ := a.body["redirect_to"].(string)
		require.True(t, strings.HasPrefix(to, l.url+"/"), to)
		stranger := l.visitor(t).get(to)
		require.NotEqual(t, 303, stranger.status, "another browser was let in")
		next := v.to(to)
		if next.Host == "as.example.com" {
			next = v.to(next.String())
		}
		require.True(t, strings.HasPrefix(next.String(), webURI), next)
		if text("sub") == "" {
			require.Equal(t, "access_denied", next.Query().Get("error"))
		} else {
			require.NotEmpty(t, text("sub"))
			require.Empty(t, c["error"])
			require.NoError(t, json.Unmarshal(c["auth_time"], &authTime))
			require.LessOrEqual(t, authTime, float64(now.Unix()+32))
			if next.Query().Get("error") == "" {
				require.NotEmpty(t, next.Query().Get("code"))
			}
		}
		require.NotEqual(t, 200, tell().status, "it was used")
	})
}

// FuzzPages sends any request to the server, as the browser of a developer who is logged in. No page fails, shows markup of the request, may be
// framed or run scripts, or sends the browser elsewhere than to the server, the login page and the registered redirect URI. TOKEN is that
// of the forms of the session.
func FuzzPages(f *testing.F) {
	for _, path := range []string{
		"/", "/login?then=%2F%2Fevil.example", "/logout", "/language", "/device?user_code=ABCD-EFGH", "/device/confirm", "/device/end", "/account/applications", "/account/applications/revoke?client=asking",
		"/developer", "/developer/applications/new", "/developer/applications/web/edit", "/developer/applications/asking/token", "/developer/applications/x/try", "/login/return?login_challenge=x&login_verifier=y",
		"/oauth2/authorize?response_type=code&client_id=asking&redirect_uri=https%3A%2F%2Fweb.example.com%2Fcb&scope=orders:read&state=%22%3E%3Cfuzz&code_challenge=" + challenge + "&code_challenge_method=S256",
		"/oauth2/authorize?client_id=%3Cfuzz%3E&redirect_uri=javascript:alert(1)", "/oauth2/logout?post_logout_redirect_uri=https://evil.example", "/.well-known/x", "/style.css",
	} {
		f.Add(path, "", "same-origin")
		f.Add(path, `token=TOKEN&name="><fuzz a="&redirect_uris=https://a.example/cb%0Ajavascript:fuzz&client=asking&language=de&then=https://evil.example&user_code=%22%3E%3Cfuzz&scope=orders:read&type=web`, "same-origin")
		f.Add(path, "token=TOKEN&client=asking&decision=allow", "cross-site")
	}
	l := newLocal(f)
	var v *visitor
	var token string
	field := regexp.MustCompile(`name="token" value="([^"]+)"`)
	f.Fuzz(func(t *testing.T, target, body, from string) {
		fresh := l.site
		if l.renew(t); v == nil || body != "" || fresh != l.site { // a form may log out
			v = l.visitor(t)
			a := l.tellHere(t, signed(t, keyOf(), "login-answer+jwt", l.claims(v.challengeOf(l.authorizeURL("web")))))
			require.Equal(t, 200, a.status, a.text)
			v.to(a.body["redirect_to"].(string))
			token = field.FindStringSubmatch(v.get(l.url + "/developer/applications/new").text)[1]
		}
		v.t = t
		u, err := url.ParseRequestURI(target)
		if err != nil || !strings.HasPrefix(target, "/") || strings.HasPrefix(target, "//") || u.Host != "" {
			return
		}
		method := "GET"
		if body != "" {
			method = "POST"
		}
		r, err := http.NewRequest(method, l.url+target, strings.NewReader(strings.ReplaceAll(body, "TOKEN", url.QueryEscape(token))))
		if err != nil {
			return
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Accept", "text/html")
		if from != "" && !strings.ContainsFunc(from, func(c rune) bool { return c <= ' ' || c > '~' }) {
			r.Header.Set("Sec-Fetch-Site", from)
		}
		res, err := v.client.Do(r)
		got := read(t, res, err)
		require.Less(t, got.status, 500, got.text)
		require.NotContains(t, strings.ToLower(got.text), "<fuzz")
		if strings.HasPrefix(got.header.Get("Content-Type"), "text/html") && got.header.Get("Location") == "" {
			for _, directive := range []string{"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'"} {
				require.Contains(t, got.header.Get("Content-Security-Policy"), directive, target)
			}
			require.NotContains(t, got.header.Get("Content-Security-Policy"), "script-src")
		}
		if to := got.header.Get("Location"); to != "" {
			at, err := url.Parse(to)
			require.NoError(t, err)
			at = r.URL.ResolveReference(at)
			require.Contains(t, []string{"as.example.com", "login.example.com", "web.example.com"}, at.Host, to)
			require.Equal(t, "https", at.Scheme)
		}
	})
}

// tellHere sends an answer of the login page.
func (l *local) tellHere(t testing.TB, jwt string) answer {
	r, err := http.NewRequest("POST", l.url+"/login/answer", strings.NewReader(jwt))
	require.NoError(t, err)
	r.Header.Set("Content-Type", "application/jwt")
	res, err := l.RoundTrip(r)
	return read(t, res, err)
}
