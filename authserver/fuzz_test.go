package authserver_test

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/authserver"
)

// Whoever does not know a secret gets no token: a refusal of the standard's, whatever is sent.
func FuzzTokenRequest(f *testing.F) {
	s, err := authserver.New(config("https://as.example.com"))
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
