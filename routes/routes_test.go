package routes_test

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/valetkeytest"
)

// newGuard returns a guard that trusts iss.
func newGuard(t testing.TB, iss *valetkeytest.Issuer, change ...func(*middleware.Config)) *middleware.Guard {
	t.Helper()
	keys, err := jwks.New(jwks.Config{
		Issuer: iss.URL, Audience: []string{valetkeytest.DefaultAudience}, Client: iss.Client(), Now: iss.Now, Logger: quiet,
	})
	require.NoError(t, err)
	t.Cleanup(keys.Close)
	cfg := middleware.Config{Verifier: keys, Logger: quiet, Now: iss.Now}
	for _, f := range change {
		f(&cfg)
	}
	guard, err := middleware.New(cfg)
	require.NoError(t, err)
	return guard
}

var quiet = slog.New(slog.DiscardHandler)

// serve serves h on loopback and returns its address.
func serve(t testing.TB, h http.Handler) string {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return server.URL
}

// An answer is what a client sees.
type answer struct {
	status int
	header http.Header
	body   string
}

func (a answer) challenge() string { return a.header.Get("WWW-Authenticate") }

// do sends a request and follows no redirect; authorization "" sends none.
func do(t testing.TB, method, url, authorization string, change ...func(*http.Request)) answer {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	require.NoError(t, err)
	if authorization != "" {
		r.Header.Set("Authorization", authorization)
	}
	for _, f := range change {
		f(r)
	}
	resp, err := http.DefaultTransport.RoundTrip(r)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return answer{resp.StatusCode, resp.Header, string(body)}
}

func header(name string, values ...string) func(*http.Request) {
	return func(r *http.Request) { r.Header[name] = values }
}

// hello answers with the subject of the token.
var hello = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	who := "nobody"
	if token := valetkey.FromContext(r.Context()); token != nil {
		who = token.Subject()
	}
	io.WriteString(w, "hello "+who)
})
