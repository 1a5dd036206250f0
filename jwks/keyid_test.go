package jwks_test

import (
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/jwks"
)

// Load balancers of AWS publish each key in PEM at a URL that ends with its kid.
func TestKeysAtTheirOwnURL(t *testing.T) {
	der, err := x509.MarshalPKIXPublicKey(es256.Signer().Public())
	require.NoError(t, err)
	var requests atomic.Int64
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		if r.URL.Path != "/prod/es256" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		_ = pem.Encode(w, &pem.Block{Type: "PUBLIC KEY", Bytes: der})
	}))
	t.Cleanup(s.Close)
	open := func(t *testing.T) *jwks.Verifier {
		requests.Store(0)
		return open(t, func(c *jwks.Config) {
			c.JWKS, c.JWKSURL, c.Client, c.Logger = nil, s.URL+"/prod/{kid}", s.Client(), slog.New(slog.DiscardHandler)
		})
	}
	t.Run("a process is ready before the first token", func(t *testing.T) {
		v := open(t)
		require.NoError(t, v.Ready(background))
		assert.Equal(t, valetkey.Ready, v.Health()[0].State)
		assert.Equal(t, issuer, v.Health()[0].Name)
		assert.Zero(t, requests.Load())
	})
	t.Run("a token with a made-up kid is refused, also before any key is held", func(t *testing.T) {
		_, err := open(t).Verify(background, mint(t, es512, object{"alg": "ES256", "kid": "made-up"}, good(nil)))
		refused(t, err, unknownKey)
	})
	t.Run("a token whose kid would leave the folder is refused without a request", func(t *testing.T) {
		for _, kid := range []string{"../prod/es256", "es256/", "es256?", "%65s256"} {
			_, err := open(t).Verify(background, mint(t, es256, object{"kid": kid}, good(nil)))
			refused(t, err, unknownKey)
			assert.Zero(t, requests.Load())
		}
	})
	t.Run("a token that fails a check without a key causes no request", func(t *testing.T) {
		_, err := open(t).Verify(background, mint(t, es256, nil, good(object{"aud": "https://other.example"})))
		refused(t, err, otherAud)
		assert.Zero(t, requests.Load())
	})
	t.Run("a token of another key with a published kid is refused", func(t *testing.T) {
		_, err := open(t).Verify(background, mint(t, generate("ES256", "es256"), nil, good(nil)))
		refused(t, err, badSignature)
	})
	t.Run("a token is accepted, and the next one causes no request", func(t *testing.T) {
		v := open(t)
		for range 2 {
			token, err := v.Verify(background, mint(t, es256, nil, good(nil)))
			require.NoError(t, err)
			assert.True(t, token.Freshness().While.Holds())
		}
		assert.EqualValues(t, 1, requests.Load())
	})
	t.Run("the refusal names the URL and the status", func(t *testing.T) {
		_, err := open(t).Verify(background, mint(t, es256, object{"kid": "other"}, good(nil)))
		assert.ErrorContains(t, err, "fetch "+s.URL+"/prod/other: status 403")
	})
}
