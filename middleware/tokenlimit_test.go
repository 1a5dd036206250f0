package middleware_test

import (
	"context"
	"crypto"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/jose"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/valetkeytest"
)

func TestMaxTokenBytes(t *testing.T) {
	accept := valetkey.VerifierFunc(func(_ context.Context, raw string) (*valetkey.Token, error) {
		return valetkey.NewToken(valetkey.TokenFields{Subject: fmt.Sprint(len(raw))}), nil
	})
	for name, test := range map[string]struct {
		setting, bytes int
		accepted       bool
	}{
		"16 KiB and a byte by default":     {0, 16<<10 + 1, false},
		"64 KiB and a byte with 64 KiB":    {64 << 10, 64<<10 + 1, false},
		"a byte more than a smaller limit": {100, 101, false},
		"16 KiB by default":                {0, 16 << 10, true},
		"16 KiB and a byte with more":      {16<<10 + 1, 16<<10 + 1, true},
		"64 KiB with 64 KiB":               {64 << 10, 64 << 10, true},
		"a smaller limit":                  {100, 100, true},
	} {
		t.Run(name, func(t *testing.T) {
			guard := guardWith(t, accept, func(c *middleware.Config) { c.MaxTokenBytes = test.setting })
			raw := strings.Repeat("a", test.bytes)
			d := guard.DecideToken(t.Context(), raw, valetkey.AnyToken)
			w := httptest.NewRecorder()
			guard.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})).ServeHTTP(w, valetkeytest.Request("GET", "/", raw))
			if test.accepted {
				require.NotNil(t, d.Token())
				assert.Equal(t, 200, w.Code)
				return
			}
			assert.Nil(t, d.Token())
			assert.Equal(t, 401, w.Code)
			assert.Equal(t, "the token is too long", valetkeytest.Challenge(t, w.Header(), "Bearer")["error_description"])
		})
	}
	for _, n := range []int{-1, 64<<10 + 1} {
		_, err := middleware.New(middleware.Config{Verifier: accept, MaxTokenBytes: n})
		assert.EqualError(t, err, fmt.Sprintf("middleware: MaxTokenBytes: %d is not between 0 and 65536", n))
	}
}

// A load balancer of AWS passes on a JWT whose parts are padded, which is not a b64token.
func TestPaddedJWT(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	k, err := jose.GenerateKey("EdDSA", "alb")
	require.NoError(t, err)
	claims, err := json.Marshal(map[string]any{
		"iss": iss.URL, "aud": audience, "sub": "alice", "client_id": "alb", "jti": "1", "iat": iss.Now().Unix(), "exp": iss.Now().Unix() + 60, "x": "",
	})
	require.NoError(t, err)
	input := base64.URLEncoding.EncodeToString([]byte(`{"typ":"at+jwt","alg":"EdDSA","kid":"alb" }`)) + "." + base64.URLEncoding.EncodeToString(claims)
	signature, err := k.Signer().Sign(rand.Reader, []byte(input), crypto.Hash(0))
	require.NoError(t, err)
	raw := input + "." + base64.URLEncoding.EncodeToString(signature)
	require.Contains(t, raw, "=.")
	set := []byte(`{"keys":[` + string(k.PublicJWK()) + `]}`)
	for allowed, status := range map[bool]int{false: 401, true: 200} {
		keys, err := jwks.New(jwks.Config{
			Issuer: iss.URL, Audience: []string{audience}, JWKS: set, Now: iss.Now, AllowPaddedSegments: allowed,
		})
		require.NoError(t, err)
		defer keys.Close()
		guard := guardWith(t, keys, func(c *middleware.Config) {
			c.Now, c.Methods = iss.Now, []middleware.BearerMethod{middleware.HeaderToken("X-Amzn-Oidc-Data")}
		})
		for range 2 { // the second one is a hit
			w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil)
			r.Header.Set("X-Amzn-Oidc-Data", raw)
			guard.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})).ServeHTTP(w, r)
			assert.Equal(t, status, w.Code, w.Header())
		}
	}
}
