package introspect

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/internal/digest"
	"github.com/valetkey/valetkey/internal/jose"
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

// FuzzSigned signs any claims as a response (RFC 9701), and reads the text as a response that another replica has stored. A signed response is
// opened only if it is of the issuer, for this server and of now, as encoding/json reads it, and yields its member token_introspection. Without
// the signature of the issuer, it is not opened. A stored response is read only under its own key.
func FuzzSigned(f *testing.F) {
	const issuer = "https://as.example.com"
	own, err := jose.GenerateKey("EdDSA", "1")
	require.NoError(f, err)
	other, err := jose.GenerateKey("EdDSA", "1")
	require.NoError(f, err)
	for _, claims := range []string{
		`{"iss":"` + issuer + `","aud":"api-1","iat":1800000000,"token_introspection":{"active":true,"aud":"api"}}`,
		`{"iss":"` + issuer + `","aud":["x","api-1"],"iat":1799999999.5,"token_introspection":{"active":false},"exp":1,"sub":"x"}`,
		`{"iss":"` + issuer + `","iss":"x","aud":"api-1","iat":1800000000,"token_introspection":{"active":true}}`,
		`{"ISS":"` + issuer + `","iss":null,"aud":"api-1","iat":1e300,"token_introspection":[{"active":true}]}`,
		`{"iss":"` + issuer + `","aud":{},"iat":"1800000000","token_introspection":"{\"active\":true}"}`,
	} {
		f.Add("token-introspection+jwt", claims)
	}
	for _, stored := range []string{`{"key":"k","asked":1799999999000,"body":"x"}`, `{"key":"k","Key":"j","asked":1e400,"body":null}`, `{"key":"j","body":1,"body":2}`} {
		f.Add("application/token-introspection+jwt", stored)
	}
	now := time.Unix(1_800_000_000, 0)
	v, err := New(Config{
		URL: issuer + "/introspect", Issuer: issuer, Audience: []string{"api"}, Auth: BasicAuth("api-1", "s3cret"), Now: func() time.Time { return now },
		Signed: &Signed{Algorithm: "EdDSA", JWKS: fmt.Appendf(nil, `{"keys":[%s]}`, own.PublicJWK())},
	})
	require.NoError(f, err)
	f.Cleanup(v.Close)
	f.Fuzz(func(t *testing.T, typ, text string) {
		var c map[string]json.RawMessage // names are case-sensitive here
		stringOf := func(name string) (s string) {
			_ = json.Unmarshal(c[name], &s) // s stays empty if it is not a string
			return s
		}
		if kept, err := readKept([]byte(text), "k"); err == nil {
			require.NoError(t, json.Unmarshal([]byte(text), &c))
			require.Equal(t, "k", stringOf("key"))
			require.Equal(t, stringOf("body"), string(kept.body))
		}
		forged, err := other.Sign(map[string]any{"typ": typ}, []byte(text))
		if err != nil {
			return // no header
		}
		answer := &said{body: []byte(forged), at: now}
		require.Error(t, v.open(t.Context(), answer))
		require.Nil(t, answer.object)
		signed, err := own.Sign(map[string]any{"typ": typ}, []byte(text))
		require.NoError(t, err)
		answer = &said{body: []byte(signed), at: now}
		if err := v.open(t.Context(), answer); err != nil {
			require.Nil(t, answer.object)
			require.NotContains(t, err.Error(), signed)
			return
		}
		c = nil
		require.NoError(t, json.Unmarshal([]byte(text), &c))
		require.Equal(t, issuer, stringOf("iss"))
		audience := []string{stringOf("aud")}
		if audience[0] == "" {
			require.NoError(t, json.Unmarshal(c["aud"], &audience))
		}
		require.Contains(t, audience, "api-1")
		var iat float64
		require.NoError(t, json.Unmarshal(c["iat"], &iat))
		require.InDelta(t, float64(now.Unix()), iat, 120)
		require.JSONEq(t, string(c["token_introspection"]), string(answer.object))
		require.Equal(t, byte('{'), answer.object[0])
		require.NotNil(t, answer.vouched)
		require.Equal(t, "token-introspection+jwt", strings.TrimPrefix(strings.ToLower(typ), "application/"))
	})
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

func TestBounds(t *testing.T) {
	t.Run("tokens that failed: 128, and each of the others keeps its count", func(t *testing.T) {
		var b blames
		now := time.Now()
		assert.True(t, b.add(digest.Of("first"), now))
		for i := range 127 {
			assert.True(t, b.add(digest.Of(strconv.Itoa(i)), now))
			assert.False(t, b.add(digest.Of("first"), now))
		}
		assert.Len(t, b, 128)
		for i := range 1000 {
			b.add(digest.Of(strconv.Itoa(1000+i)), now)
			assert.Len(t, b, 128)
		}
	})
	t.Run("refusals: 10,000, the oldest of which goes first, however often one comes again", func(t *testing.T) {
		var r refusals
		until := time.Now().Add(time.Minute)
		for range 3 {
			r.add(digest.Of("first"), refuse(malformed, nil), until)
		}
		for i := range maxRefusals - 1 {
			r.add(digest.Of(strconv.Itoa(i)), refuse(malformed, nil), until)
		}
		assert.Len(t, r.known, maxRefusals)
		assert.Error(t, r.get(digest.Of("first"), time.Now()))
		for i := range 2*maxRefusals + 5 {
			r.add(digest.Of(strconv.Itoa(maxRefusals+i)), refuse(malformed, nil), until)
			assert.LessOrEqual(t, len(r.known), maxRefusals)
		}
		assert.Error(t, r.get(digest.Of(strconv.Itoa(2*maxRefusals+5)), time.Now()))
		assert.NoError(t, r.get(digest.Of(strconv.Itoa(2*maxRefusals+4)), time.Now()))
	})
}
