package introspect_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/jose"
	"github.com/valetkey/valetkey/introspect"
	"github.com/valetkey/valetkey/valetkeytest"
)

func TestAuth(t *testing.T) {
	const id, secret = "orders api:1", "a+b c%d:é/="

	// asked lets v ask an endpoint that accepts every caller, and returns what it saw.
	asked := func(t *testing.T, auth introspect.Auth, issuer string) (seen []*http.Request, endpoint string) {
		s := server(t, func(r *http.Request) (int, string) {
			seen = append(seen, r)
			return 200, `{"active":true,"aud":"api"}`
		})
		s.Start()
		v, err := introspect.New(introspect.Config{URL: s.URL + "/introspect", Issuer: issuer, Audience: []string{"api"}, Auth: auth, Logger: quiet})
		require.NoError(t, err)
		defer v.Close()
		for _, token := range []string{"opaque1", "opaque2"} {
			_, err = v.Verify(t.Context(), token)
			require.NoError(t, err)
		}
		require.Len(t, seen, 2)
		return seen, s.URL + "/introspect"
	}

	t.Run("INTRO-03, INTRO-04 client_secret_basic, form-encoded first", func(t *testing.T) {
		seen, _ := asked(t, introspect.BasicAuth(id, secret), "")
		user, password, ok := seen[0].BasicAuth()
		require.True(t, ok)
		assert.Equal(t, "orders+api%3A1", user)
		assert.Equal(t, "a%2Bb+c%25d%3A%C3%A9%2F%3D", password)
		assert.NotContains(t, seen[0].PostForm, "client_id")
	})
	t.Run("INTRO-04 an issuer that decodes it lets us in", func(t *testing.T) {
		iss := valetkeytest.NewIssuer(t, valetkeytest.IntrospectionClient(id, secret))
		v := verifierOf(t, iss, func(c *introspect.Config) { c.Auth = introspect.BasicAuth(id, secret) })
		_, err := v.Verify(t.Context(), iss.Opaque())
		require.NoError(t, err)
	})
	t.Run("an issuer that does not decode it is sent the raw values", func(t *testing.T) {
		const id, secret = "orders api", "a+b c%d:é/="
		seen, _ := asked(t, introspect.RawBasicAuth(id, secret), "")
		user, password, ok := seen[0].BasicAuth()
		require.True(t, ok)
		assert.Equal(t, []string{id, secret}, []string{user, password})
		assert.NotContains(t, seen[0].PostForm, "client_id")
	})
	t.Run("INTRO-03 client_secret_post", func(t *testing.T) {
		seen, _ := asked(t, introspect.PostAuth(id, secret), "")
		assert.Equal(t, url.Values{"token": {"opaque1"}, "client_id": {id}, "client_secret": {secret}}, seen[0].PostForm)
		assert.Empty(t, seen[0].Header.Get("Authorization"))
	})
	t.Run("INTRO-03 a bearer token, asked for each time", func(t *testing.T) {
		n := 0
		seen, _ := asked(t, introspect.BearerAuth(func(context.Context) (string, error) {
			n++
			return "own" + strings.Repeat("!", n), nil
		}), "")
		assert.Equal(t, "Bearer own!", seen[0].Header.Get("Authorization"))
		assert.Equal(t, "Bearer own!!", seen[1].Header.Get("Authorization"))
	})
	t.Run("INTRO-03 private_key_jwt, a new assertion each time", func(t *testing.T) {
		key, err := jose.GenerateKey("ES256", "k1")
		require.NoError(t, err)
		for _, issuer := range []string{"", "https://as.example.com"} {
			seen, want := asked(t, introspect.PrivateKeyJWT(id, key.PrivateJWK(), ""), issuer)
			if issuer != "" {
				want = issuer
			}
			ids := map[string]bool{}
			for _, r := range seen {
				assert.Equal(t, "urn:ietf:params:oauth:client-assertion-type:jwt-bearer", r.PostForm.Get("client_assertion_type"))
				c, err := jose.Parse(r.PostForm.Get("client_assertion"))
				require.NoError(t, err)
				require.NoError(t, key.Public().Verify(c))
				var claims struct {
					Iss, Sub, Aud, JTI string
					Iat, Exp           int64
				}
				require.NoError(t, json.Unmarshal(c.Payload, &claims))
				assert.Equal(t, []string{id, id, want}, []string{claims.Iss, claims.Sub, claims.Aud})
				assert.InDelta(t, time.Now().Unix(), claims.Iat, 10)
				assert.EqualValues(t, 60, claims.Exp-claims.Iat)
				ids[claims.JTI] = true
			}
			assert.Len(t, ids, 2)
		}
	})
	t.Run("INTRO-03 a TLS client certificate, and the client id", func(t *testing.T) {
		var seen *http.Request
		s := server(t, func(r *http.Request) (int, string) {
			seen = r
			return 200, `{"active":true,"aud":"api"}`
		})
		s.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
		s.StartTLS()
		cfg := introspect.Config{URL: s.URL, Audience: []string{"api"}, Auth: introspect.TLSAuth("orders-api"), Client: s.Client(), Logger: quiet}
		v, err := introspect.New(cfg)
		require.NoError(t, err)
		defer v.Close()
		_, err = v.Verify(t.Context(), "opaque")
		failed(t, err)

		transport := s.Client().Transport.(*http.Transport).Clone()
		transport.TLSClientConfig.Certificates = s.TLS.Certificates // any one will do
		cfg.Client = &http.Client{Transport: transport}
		defer transport.CloseIdleConnections()
		v, err = introspect.New(cfg)
		require.NoError(t, err)
		defer v.Close()
		_, err = v.Verify(t.Context(), "opaque")
		require.NoError(t, err)
		assert.Equal(t, "orders-api", seen.PostForm.Get("client_id"))
		assert.Len(t, seen.TLS.PeerCertificates, 1)
	})
	t.Run("none, for an endpoint that asks for none", func(t *testing.T) {
		iss := valetkeytest.NewIssuer(t, valetkeytest.OpenIntrospection())
		v := verifierOf(t, iss, func(c *introspect.Config) { c.Auth = introspect.NoAuth() })
		_, err := v.Verify(t.Context(), iss.Opaque())
		require.NoError(t, err)
	})
	t.Run("a token of our own that cannot be had is a failure, whatever its text", func(t *testing.T) {
		iss := valetkeytest.NewIssuer(t)
		for _, own := range []func(context.Context) (string, error){
			func(context.Context) (string, error) { return "", nil },
			func(context.Context) (string, error) { return "", errors.New("no token") },
			func(context.Context) (string, error) { return "", &valetkey.Error{Code: valetkey.InvalidToken} },
		} {
			v := verifierOf(t, iss, func(c *introspect.Config) { c.Auth = introspect.BearerAuth(own) })
			_, err := v.Verify(t.Context(), iss.Opaque())
			failed(t, err)
		}
		assert.Zero(t, iss.Introspection.Hits())
	})
}
