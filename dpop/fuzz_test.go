package dpop_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/url"
	"path"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/dpop"
	"github.com/valetkey/valetkey/internal/jose"
)

// FuzzClaims signs any claims with the key of the client. A proof is accepted only if its method is that of the request, its URL leads to the
// same path of the same host, it is of now and for the token, as encoding/json reads it. It is accepted once. No error contains the proof.
func FuzzClaims(f *testing.F) {
	key, err := jose.GenerateKey("EdDSA", "")
	require.NoError(f, err)
	sum := sha256.Sum256([]byte(token))
	for _, seed := range []string{
		`{"jti":"1","htm":"GET","htu":"https://api.example.com/orders/1","iat":NOW,"ath":"ATH"}`, `{"jti":"1","htm":"GET","htu":"https://API.example.com:443/orders/%31?a=b#c","iat":NOW.5,"ath":"ATH"}`,
		`{"jti":"1","htm":"GET","htu":"https://api.example.com/./orders//1","iat":NOW,"ath":"ATH","nonce":null}`, `{"jti":"","htm":"get","htu":"https://api.example.com/orders/1/","iat":1e99,"ath":"ATH"}`,
		`{"jti":"1","jti":"2","HTM":"GET","htm":"POST","htu":"https:api.example.com/orders/1","iat":NOW}`, `{"jti":"1","htm":"GET","htu":"https://a@api.example.com/orders/1","iat":NOW,"ath":""}`,
		"{\"jti\":\"1\",\"htm\":\"GET\",\"htu\":\"https://api.example.com/orders/1?\x7f#c\",\"iat\":NOW,\"ath\":\"ATH\"}",
	} {
		f.Add("dpop+jwt", seed)
	}
	now := time.Unix(1_800_000_000, 0)
	values := strings.NewReplacer("NOW", strconv.FormatInt(now.Unix(), 10), "ATH", base64.RawURLEncoding.EncodeToString(sum[:]))
	f.Fuzz(func(t *testing.T, typ, claims string) {
		v := newVerifier(t, dpop.Config{Now: func() time.Time { return now }})
		claims = values.Replace(claims)
		proof, err := key.Sign(map[string]any{"typ": typ, "jwk": json.RawMessage(key.PublicJWK())}, []byte(claims))
		if err != nil {
			return // no header
		}
		r := dpop.Request{Proofs: []string{proof}, Method: method, URL: target, Token: token, Thumbprint: key.Public().Thumbprint()}
		if _, err := v.Verify(t.Context(), r); err != nil {
			var refusal *valetkey.Error
			require.True(t, errors.As(err, &refusal), "%v is not a refusal", err)
			require.NotContains(t, err.Error(), proof)
			return
		}
		require.Equal(t, "dpop+jwt", strings.TrimPrefix(strings.ToLower(typ), "application/"))
		var read map[string]json.RawMessage // names are case-sensitive here
		require.NoError(t, json.Unmarshal([]byte(claims), &read))
		var id, htm, htu, ath string
		var iat float64
		for name, to := range map[string]any{"jti": &id, "htm": &htm, "htu": &htu, "ath": &ath, "iat": &iat} {
			require.NoError(t, json.Unmarshal(read[name], to))
		}
		require.NotEmpty(t, id)
		require.Equal(t, method, htm)
		require.Equal(t, base64.RawURLEncoding.EncodeToString(sum[:]), ath)
		require.GreaterOrEqual(t, iat, float64(now.Unix()-60))
		require.LessOrEqual(t, iat, float64(now.Unix()+10))
		htu, _, _ = strings.Cut(htu, "#")
		htu, _, _ = strings.Cut(htu, "?") // RFC 9449, section 4.3, check 9: what follows is ignored, whatever it is
		u, err := url.Parse(htu)
		require.NoError(t, err)
		require.Equal(t, "https", strings.ToLower(u.Scheme))
		require.Equal(t, "api.example.com", strings.TrimSuffix(strings.ToLower(u.Host), ":443"))
		require.Nil(t, u.User)
		require.Equal(t, "/orders/1", path.Clean(u.Path))
		_, err = v.Verify(t.Context(), r)
		require.Error(t, err, "it was used")
	})
}
