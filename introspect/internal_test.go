package introspect

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/internal/digest"
	"github.com/valetkey/valetkey/valetkeytest"
)

func TestMemoryHoldsNoToken(t *testing.T) {
	t.Run("INTRO-30, AUD-09 the key is a keyed digest", func(t *testing.T) {
		iss := valetkeytest.NewIssuer(t)
		const token = "made-up-token-text"
		var verifiers []*Verifier
		for range 2 {
			v, err := New(Config{
				URL: iss.Introspection.URL, Audience: []string{"api"}, Client: iss.Client(),
				Auth: BasicAuth(valetkeytest.IntrospectionID, valetkeytest.IntrospectionSecret),
			})
			require.NoError(t, err)
			t.Cleanup(v.Close)
			_, err = v.Verify(t.Context(), token)
			require.Error(t, err)
			require.Len(t, v.refused.known, 1)
			require.Empty(t, v.asking)
			for key, known := range v.refused.known {
				assert.NotContains(t, fmt.Sprintf("%q %v", key[:], known.refusal), token)
			}
			verifiers = append(verifiers, v)
		}
		assert.Contains(t, verifiers[0].refused.known, digest.Of(token))
		assert.Contains(t, verifiers[1].refused.known, digest.Of(token))
	})
}

func TestTransport(t *testing.T) {
	for _, c := range []struct{ inFlight, want int }{{0, 64}, {8, 64}, {200, 200}} {
		v, err := New(Config{URL: "https://as.example.com", Audience: []string{"api"}, Auth: NoAuth(), MaxInFlight: c.inFlight})
		require.NoError(t, err)
		v.Close()
		assert.Equal(t, c.want, v.transport.MaxIdleConnsPerHost)
	}
}

// FuzzAnswer: an answer that is accepted is active and fits issuer, audience and time, as encoding/json reads it.
func FuzzAnswer(f *testing.F) {
	for _, seed := range []string{
		`{"active":true,"aud":"api"}`,
		`{"active":true,"aud":["x","api"],"iss":"https://as.example.com","exp":1800000001,"nbf":1799999999,"iat":1.799999999e9}`,
		`{"active":true,"aud":"api","scope":"a b","sub":"alice","client_id":"app","token_type":"Bearer","jti":"1"}`,
		`{"active":true,"aud":"api","token_type":"DPoP","cnf":{"jkt":"0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}}`,
		`{"active":true,"aud":"api","active":false}`,
		`{"active":true,"Active":false,"aud":"api"}`,
		`{"active":"true","aud":"api"}`,
		`{"active":false,"aud":"api"}`,
		`{"active":true,"\u0061ud":"api","exp":1e400}`,
		`{"active":true,"aud":"api","exp":"1800000001","nbf":0,"sub":[],"iss":null,"jti":"","scope":[ ]}`,
	} {
		f.Add([]byte(seed))
	}
	now := time.Unix(1_800_000_000, 0)
	v, err := New(Config{
		URL: "https://as.example.com", Issuer: "https://as.example.com", Audience: []string{"api"}, Auth: NoAuth(), Leeway: -1,
		Now: func() time.Time { return now },
	})
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, answer []byte) {
		token, err := v.read(&said{object: answer, at: now})
		if err != nil {
			require.Nil(t, token)
			return
		}
		var plain struct {
			Active                       bool
			Iss, Aud, Exp, Nbf, Iat, Sub any
		}
		require.NoError(t, json.Unmarshal(answer, &plain))
		require.True(t, plain.Active)
		require.Contains(t, []any{nil, "", "https://as.example.com"}, present(plain.Iss))
		if list, many := plain.Aud.([]any); many {
			require.True(t, slices.Contains(list, any("api")))
		} else {
			require.Equal(t, "api", plain.Aud)
		}
		seconds := float64(now.Unix())
		exp, nbf, iat := date(t, plain.Exp), date(t, plain.Nbf), date(t, plain.Iat)
		require.True(t, exp == 0 || exp > seconds)
		require.LessOrEqual(t, nbf, seconds)
		require.LessOrEqual(t, iat, seconds)
		if sub := present(plain.Sub); sub != nil {
			require.Equal(t, sub, token.Subject())
		} else {
			require.Empty(t, token.Subject())
		}
		require.False(t, token.Freshness().Until.After(now.Add(30*time.Second)))
		require.True(t, exp == 0 || !token.Freshness().Until.After(token.Expiry()))
		_, err = json.Marshal(token.Fields())
		require.NoError(t, err)
	})
}

// present returns nil for an empty list, and any other value as it is.
func present(v any) any {
	if list, ok := v.([]any); ok && len(list) == 0 {
		return nil
	}
	return v
}

// date returns a date as encoding/json reads it, also one in a string; zero: there is none.
func date(t *testing.T, v any) float64 {
	switch v := present(v).(type) {
	case nil:
		return 0
	case float64:
		return v
	case string:
		if v == "" {
			return 0
		}
		f, err := strconv.ParseFloat(v, 64)
		require.NoError(t, err)
		return f
	}
	t.Fatalf("%v was taken for a date", v)
	return 0
}
