package valetkeytest_test

import (
	"crypto/tls"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/dpop"
	"github.com/valetkey/valetkey/valetkeytest"
)

func TestProofs(t *testing.T) {
	iss := valetkeytest.NewIssuer(t, valetkeytest.InMemory())
	v, err := dpop.New(dpop.Config{Now: iss.Now})
	require.NoError(t, err)
	verify := func(r *http.Request, url, token string) (string, error) {
		p, err := v.Verify(t.Context(), dpop.Request{Proofs: r.Header.Values("DPoP"), Method: r.Method, URL: url, Token: token})
		return p.Thumbprint(), err
	}
	client := iss.ProofKey("ES256")
	token := iss.Token(valetkeytest.BoundTo(client))

	t.Run("the token names the key", func(t *testing.T) {
		var claims struct{ Cnf map[string]string }
		require.NoError(t, json.Unmarshal(decode(t, strings.Split(token, ".")[1]), &claims))
		assert.Equal(t, map[string]string{"jkt": client.Thumbprint()}, claims.Cnf)
	})
	t.Run("the header has what RFC 9449 asks for and nothing else", func(t *testing.T) {
		proof := client.Proof("GET", "https://api.example.com/", "")
		var header map[string]json.RawMessage
		require.NoError(t, json.Unmarshal(decode(t, strings.Split(proof, ".")[0]), &header))
		assert.Len(t, header, 3)
		var key map[string]string
		require.NoError(t, json.Unmarshal(header["jwk"], &key))
		assert.Len(t, key, 4)
		assert.Equal(t, "P-256", key["crv"])
	})
	t.Run("a request of a client", func(t *testing.T) {
		r, err := http.NewRequest("PUT", "https://user@api.example.com/orders/a%2Fb?x=1#y", nil)
		require.NoError(t, err)
		client.Authorize(r, token)
		assert.Equal(t, []string{"DPoP " + token}, r.Header["Authorization"])
		got, err := verify(r, "https://api.example.com/orders/a%2Fb", token)
		require.NoError(t, err)
		assert.Equal(t, client.Thumbprint(), got)
		assert.Equal(t, "x=1", r.URL.RawQuery, "the request is left as it was")
	})
	t.Run("a request for a handler, with another proof each time", func(t *testing.T) {
		r := valetkeytest.Request("GET", "/orders?x=1", "a bearer token")
		for range 2 {
			client.Authorize(r, token)
			assert.Len(t, r.Header["Authorization"], 1)
			_, err := verify(r, "http://example.com/orders", token)
			require.NoError(t, err)
		}
		r.TLS = new(tls.ConnectionState)
		client.Authorize(r, token)
		_, err := verify(r, "https://example.com/orders", token)
		require.NoError(t, err)
	})
	t.Run("options spoil a proof as they do a token", func(t *testing.T) {
		for name, option := range map[string]valetkeytest.Option{
			"another key":          valetkeytest.UnknownKey(),
			"a shared secret":      valetkeytest.Secret([]byte(strings.Repeat("s", 32))),
			"none":                 valetkeytest.Unsigned(),
			"a tampered one":       valetkeytest.TamperedSignature(),
			"another ath":          valetkeytest.Claim("ath", "x"),
			"another typ":          valetkeytest.Type("JWT"),
			"a key that is absent": valetkeytest.Header("jwk", nil),
		} {
			r := valetkeytest.Request("GET", "/orders", "")
			client.Authorize(r, token, option)
			_, err := verify(r, "http://example.com/orders", token)
			assert.Error(t, err, name)
		}
	})
	t.Run("the clock is the issuer's", func(t *testing.T) {
		iss.Advance(time.Hour)
		r := valetkeytest.Request("GET", "/orders", "")
		client.Authorize(r, token)
		_, err := verify(r, "http://example.com/orders", token)
		require.NoError(t, err)
	})
	t.Run("an unknown algorithm fails the test", func(t *testing.T) {
		rec := &fatal{recorder: recorder{TB: t}}
		done := make(chan struct{})
		go func() {
			defer close(done)
			valetkeytest.NewIssuer(rec, valetkeytest.InMemory()).ProofKey("none")
		}()
		<-done
		assert.Len(t, rec.errors, 1)
	})
}
