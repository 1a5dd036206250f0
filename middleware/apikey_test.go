package middleware_test

import (
	"encoding/base64"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/apikey"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/scopes"
	"github.com/valetkey/valetkey/valetkeytest"
)

func TestAPIKeys(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	tokens, err := jwks.New(jwks.Config{Issuer: iss.URL, Audience: []string{audience}, Client: iss.Client(), Logger: quiet})
	require.NoError(t, err)
	t.Cleanup(tokens.Close)
	key, digest := apikey.Generate("orders_")
	odd := `p@ss "word" ü`
	keys, err := apikey.New(apikey.Config{Issuer: "https://api.example.com/keys", Keys: []apikey.Key{
		{Digest: digest, Subject: "billing", Scopes: "orders:read"}, {Digest: apikey.DigestOf(odd), Subject: "odd", Scopes: "orders:read"}}})
	require.NoError(t, err)
	guard := guardWith(t, valetkey.First(keys, tokens), func(c *middleware.Config) {
		c.Methods = []middleware.BearerMethod{middleware.APIKeyHeader("X-Api-Key"), middleware.APIKeyAuthorization()}
	})
	api := serve(t, guard.Handler(hello, scopes.All("orders:read")))
	basic := func(user, password string) string {
		return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
	}
	good := iss.Token(valetkeytest.Scopes("orders:read"))

	for _, c := range []struct {
		name, authorization, header string
		method                      string
		site                        string
		status                      int
		body                        string
	}{
		{name: "nothing", status: 401},
		{name: "an empty key", header: " ", status: 401},
		{name: "an unknown key", header: "x", status: 401},
		{name: "a token in the header for keys", header: good, status: 401},
		{name: "a key as a bearer token", authorization: "Bearer " + key, status: 401},
		{name: "a key and a token", authorization: "Bearer " + good, header: key, status: 400},
		{name: "a key in both places", authorization: "ApiKey " + key, header: key, status: 400},
		{name: "the scheme without a key", authorization: "ApiKey ", status: 400},
		{name: "a user with a password", authorization: basic(key, "x"), status: 400},
		{name: "a password without a user", authorization: basic("", key), status: 400},
		{name: "Basic that is not base64", authorization: "Basic %%%", status: 400},
		{name: "Basic that is base64 at first", authorization: basic(key, "") + "!", status: 400},
		{name: "Basic without a colon", authorization: "Basic " + base64.StdEncoding.EncodeToString([]byte(key)), status: 400},
		{name: "Basic with a colon alone", authorization: basic("", ""), status: 400},
		{name: "a browser's Basic credentials in a request of another site that reads", authorization: basic(key, ""), site: "cross-site", status: 200, body: "hello billing"},
		{name: "a browser's Basic credentials in a request of another site", authorization: basic(key, ""), method: "POST", site: "cross-site", status: 401},

		{name: "a key in the header", header: key, status: 200, body: "hello billing"},
		{name: "a key after its scheme", authorization: "apikey  " + key, status: 200, body: "hello billing"},
		{name: "a key as the user of Basic", authorization: basic(key, ""), status: 200, body: "hello billing"},
		{name: "a key as the user of Basic, in a program's POST", authorization: basic(key, ""), method: "POST", status: 200, body: "hello billing"},
		{name: "a key with characters that a token cannot have", header: odd, status: 200, body: "hello odd"},
		{name: "a token", authorization: "Bearer " + good, status: 200, body: "hello alice"},
	} {
		t.Run(c.name, func(t *testing.T) {
			method := c.method
			if method == "" {
				method = "GET"
			}
			for range 2 { // and from the cache
				got := do(t, method, api, c.authorization, header("X-Api-Key", c.header), header("Sec-Fetch-Site", c.site))
				assert.Equal(t, c.status, got.status)
				if c.body != "" {
					assert.Equal(t, c.body, got.body)
				} else {
					assert.NotContains(t, got.body+got.header.Get("WWW-Authenticate"), key)
				}
			}
		})
	}
	t.Run("no header, and two of which one is empty", func(t *testing.T) {
		assert.Equal(t, 401, do(t, "GET", api, "").status)
		assert.Equal(t, 400, do(t, "GET", api, "", header("X-Api-Key", "", key)).status)
	})
	t.Run("a revoked key", func(t *testing.T) {
		require.NoError(t, guard.Revoke(valetkey.Revocation{Issuer: "https://api.example.com/keys", Subject: "odd"}))
		assert.Equal(t, 401, do(t, "GET", api, "", header("X-Api-Key", odd)).status)
	})
	t.Run("a handler that passes requests on removes them", func(t *testing.T) {
		r := valetkeytest.Request("GET", "/", "")
		r.Header.Set("X-Api-Key", key)
		r.Header.Set("Authorization", "ApiKey "+key)
		guard.RemoveCredentials(r.Header)
		assert.Empty(t, r.Header)
	})
	t.Run("mistakes", func(t *testing.T) {
		_, err := middleware.New(middleware.Config{Verifier: keys, Methods: []middleware.BearerMethod{
			middleware.APIKeyHeader("Host"), middleware.APIKeyAuthorization(), middleware.HeaderToken("X-Token")}})
		assert.ErrorContains(t, err, `Methods[0]: "Host" has another meaning`)
		assert.ErrorContains(t, err, `Methods[1]: conflicts with the header that replaces Authorization`)
	})
}
