package fetch_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/internal/fetch"
)

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// A document that is accepted is that of the issuer, and the URL in it may be fetched, as others read both.
func FuzzDiscover(f *testing.F) {
	const issuer = "https://as.example.com"
	for _, seed := range []string{
		`{"issuer":"https://as.example.com","jwks_uri":"https://keys.example.com/jwks"}`, `{"issuer":"https://as.example.com","jwks_uri":"http://127.0.0.1/jwks"}`,
		`{"issuer":"https://as.example.com","jwks_uri":"http://keys.example.com/jwks"}`, `{"issuer":"https://as.example.com/","jwks_uri":"https://as.example.com"}`,
		`{"issuer":"https://as.example.com","jwks_uri":"https://a","jwks_uri":"https://b"}`, `{"issuer":"https://as.example.com","jwks_uri":""}`, `{}`, `[]`,
		`{"issuer":"https:\/\/as.example.com","jwks_uri":"https://user:secret@as.example.com/%2e%2e/\u0000"}`,
		`{"Issuer":"https://as.example.com","JWKS_URI":"https://as.example.com"}`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, document string) {
		client := fetch.Client{HTTP: &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			return &http.Response{
				StatusCode: 200, ProtoMajor: 1, ProtoMinor: 1, Request: r, ContentLength: -1,
				Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(document)),
			}, nil
		})}}
		found, err := client.Discover(t.Context(), issuer, "jwks_uri")
		if err != nil {
			assert.Empty(t, found)
			return
		}
		var claims map[string]json.RawMessage // names are case-sensitive here
		require.NoError(t, json.Unmarshal([]byte(document), &claims))
		for name, want := range map[string]string{"issuer": issuer, "jwks_uri": found} {
			var text string
			require.NoError(t, json.Unmarshal(claims[name], &text))
			assert.Equal(t, want, text)
		}
		u, err := url.Parse(found)
		require.NoError(t, err)
		assert.Equal(t, "https", u.Scheme, "an https issuer leads to no other scheme")
		assert.NotEmpty(t, u.Host)
		assert.NoError(t, client.Allowed(found))
	})
}
