package authserver_test

import (
	"context"
	"net/http/httptest"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/authserver"
)

// Without a secret, no request gets a token: the response is a refusal of the standard, regardless of the input.
func FuzzTokenRequest(f *testing.F) {
	s, err := authserver.New(context.Background(), config("https://as.example.com"))
	require.NoError(f, err)
	f.Add("grant_type=client_credentials&client_id=reader&client_secret=x", "", "")
	f.Add("grant_type=client_credentials&scope=orders:read", "Basic cmVhZGVyOng=", "client_id=reader")
	f.Add("grant_type=client_credentials&client_assertion=a.b.c&resource=a&resource=b", "Basic OjE=", "%zz")
	f.Fuzz(func(t *testing.T, body, authorization, query string) {
		r := httptest.NewRequest("POST", "/oauth2/token", strings.NewReader(body))
		r.URL.RawQuery = query
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if authorization != "" {
			r.Header.Set("Authorization", authorization)
		}
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
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
