package introspect_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/introspect"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/valetkeytest"
)

type object = map[string]any

// signedAnswer returns the options of a good answer (RFC 9701, section 5) about a token of alice.
func signedAnswer(more ...valetkeytest.Option) []valetkeytest.Option {
	base := []valetkeytest.Option{
		valetkeytest.Type("token-introspection+jwt"), valetkeytest.Algorithm("RS256"),
		valetkeytest.Audience(valetkeytest.IntrospectionID),
		valetkeytest.Claim("sub", nil), valetkeytest.Claim("exp", nil),
		valetkeytest.Claim("token_introspection", object{
			"active": true, "sub": "alice", "aud": valetkeytest.DefaultAudience, "scope": "orders:read",
		}),
	}
	return append(base, more...)
}

// answerSigned makes the endpoint answer with jwt.
func answerSigned(iss *valetkeytest.Issuer, jwt string) (accept func() string) {
	var asked string
	iss.Introspection.Serve(func(w http.ResponseWriter, r *http.Request) {
		asked = r.Header.Get("Accept")
		w.Header().Set("Content-Type", "application/token-introspection+jwt")
		fmt.Fprint(w, jwt)
	})
	return func() string { return asked }
}

func TestSigned(t *testing.T) {
	iss := valetkeytest.NewIssuer(t, valetkeytest.SignWith("RS256", "ES256"))
	signed := func(c *introspect.Config) { c.Signed = &introspect.Signed{} }
	about := func(members object) valetkeytest.Option { return valetkeytest.Claim("token_introspection", members) }
	us := valetkeytest.DefaultAudience

	for _, c := range []struct {
		name, want string
		wrong      valetkeytest.Option
	}{
		{"JRESP-03 typ of an access token", "typ", valetkeytest.Type("at+jwt")},
		{"JRESP-03 no typ", "typ", valetkeytest.Type("")},
		{"JRESP-04 no iss", "of the issuer", valetkeytest.Claim("iss", nil)},
		{"JRESP-04 another iss", "of the issuer", valetkeytest.WrongIssuer()},
		{"JRESP-05 no aud", "it is for", valetkeytest.Claim("aud", nil)},
		{"JRESP-05 our aud with a slash at its end, which is not an origin", "it is for", valetkeytest.Audience(valetkeytest.IntrospectionID + "/")},
		{"JRESP-05 another aud", "it is for", valetkeytest.Audience("another-resource-server")},
		{"JRESP-05 the aud of our tokens, which is not ours", "it is for", valetkeytest.Audience(us)},
		{"JRESP-05 an invalid aud", "aud is not", valetkeytest.Claim("aud", 1)},
		{"JRESP-06 no iat", "no iat", valetkeytest.Claim("iat", nil)},
		{"JRESP-06 an invalid iat", "iat is not a number", valetkeytest.Claim("iat", "now")},
		{"JRESP-06 too old", "it was made at", valetkeytest.Claim("iat", iss.Now().Add(-100*time.Second).Unix())},
		{"JRESP-06 of the future", "it was made at", valetkeytest.Claim("iat", iss.Now().Add(time.Hour).Unix())},
		{"JRESP-07 nothing about the token", "no object token_introspection", about(nil)},
		{"JRESP-07 a string about the token", "no object token_introspection", valetkeytest.Claim("token_introspection", `{"active":true}`)},
		{"JRESP-10 another algorithm", `signed with "ES256", not RS256`, valetkeytest.Algorithm("ES256")},
		{"JRESP-10 not signed", "no signature", valetkeytest.Unsigned()},
		{"a signature that is wrong", "signature", valetkeytest.TamperedSignature()},
		{"a payload that was changed", "signature", valetkeytest.TamperedPayload()},
		{"a key that is not the issuer's", "no key", valetkeytest.UnknownKey()},
		{"INTRO-05 no active", "no active", about(object{"aud": us})},
		{"a payload with a member twice", "twice", valetkeytest.Payload(fmt.Sprintf(`{"iss":%q,"aud":%q,"iat":%d,"token_introspection":{"active":true,"aud":%q},"x":1,"x":2}`,
			iss.URL, valetkeytest.IntrospectionID, iss.Now().Unix(), us))},
	} {
		t.Run(c.name, func(t *testing.T) {
			answerSigned(iss, iss.Token(signedAnswer(c.wrong)...))
			_, err := verifierOf(t, iss, signed).Verify(t.Context(), "opaque")
			failed(t, err)
			assert.ErrorContains(t, err, c.want)
		})
	}
	t.Run("JRESP-02 an unsigned answer", func(t *testing.T) {
		iss.Introspection.Restore()
		_, err := verifierOf(t, iss, signed).Verify(t.Context(), iss.Opaque())
		failed(t, err)
		assert.ErrorContains(t, err, "application/json")
	})
	t.Run("JRESP-11 an encrypted answer", func(t *testing.T) {
		answerSigned(iss, jwtOf(`{"alg":"RSA-OAEP","enc":"A256GCM","cty":"JWT"}`, "YQ", "YQ", "YQ", "YQ"))
		_, err := verifierOf(t, iss, signed).Verify(t.Context(), "opaque")
		failed(t, err)
	})
	t.Run("JRESP-08 not active, whatever else it contains", func(t *testing.T) {
		answerSigned(iss, iss.Token(signedAnswer(about(object{"active": false, "sub": "alice", "aud": us, "scope": 1}))...))
		_, err := verifierOf(t, iss, signed).Verify(t.Context(), "opaque")
		refused(t, err, "the token is not active")
	})
	t.Run("JRESP-14 a token for another audience", func(t *testing.T) {
		answerSigned(iss, iss.Token(signedAnswer(about(object{"active": true, "aud": "another"}))...))
		_, err := verifierOf(t, iss, signed).Verify(t.Context(), "opaque")
		refused(t, err, "the token is for another audience")
	})
	t.Run("JRESP-14 a token bound to a key stays bound", func(t *testing.T) {
		answerSigned(iss, iss.Token(signedAnswer(about(object{"active": true, "aud": us, "cnf": object{"jkt": thumbprint}}))...))
		token, err := verifierOf(t, iss, signed).Verify(t.Context(), "opaque")
		require.NoError(t, err)
		assert.Equal(t, thumbprint, token.Binding().JWKThumbprint)
	})
	t.Run("JRESP-01, JRESP-09 only what is said of the token counts", func(t *testing.T) {
		accept := answerSigned(iss, iss.Token(signedAnswer(
			valetkeytest.Type("application/Token-Introspection+JWT"),
			valetkeytest.Claim("sub", "mallory"), valetkeytest.Claim("scope", "admin"), valetkeytest.Claim("exp", 1),
		)...))
		v := verifierOf(t, iss, signed)
		token, err := v.Verify(t.Context(), "opaque")
		require.NoError(t, err)
		assert.Equal(t, "application/token-introspection+jwt", accept())
		assert.Equal(t, "alice", token.Subject())
		assert.Equal(t, "orders:read", token.Scopes().String())
		assert.True(t, token.Expiry().IsZero())
		var raw object
		require.NoError(t, json.Unmarshal([]byte(token.Raw()), &raw))
		assert.NotContains(t, raw, "token_introspection")
		assert.True(t, token.Freshness().While.Holds())
		v.Close()
		assert.False(t, token.Freshness().While.Holds(), "an answer dies with the key that signed it")
	})
	t.Run("JRESP-10 another algorithm, as configured, with keys from a file", func(t *testing.T) {
		answerSigned(iss, iss.Token(signedAnswer(valetkeytest.Algorithm("ES256"), valetkeytest.Audience("x", "api-1"))...))
		before := iss.KeySet.Hits()
		_, err := verifierOf(t, iss, func(c *introspect.Config) {
			c.Signed = &introspect.Signed{Algorithm: "ES256", Audience: "api-1", JWKS: iss.JWKS()}
		}).Verify(t.Context(), "opaque")
		require.NoError(t, err)
		assert.Equal(t, before, iss.KeySet.Hits())
	})
	t.Run("JRESP-13 an answer is not an access token", func(t *testing.T) {
		answer := iss.Token(signedAnswer(valetkeytest.Audience(valetkeytest.IntrospectionID, us))...)
		for _, profile := range []jwks.Profile{{}, jwks.Lenient()} {
			keys, err := jwks.New(jwks.Config{Issuer: iss.URL, Audience: []string{us}, JWKS: iss.JWKS(), Profile: profile, Now: iss.Now})
			require.NoError(t, err)
			defer keys.Close()
			_, err = keys.Verify(t.Context(), answer)
			refused(t, err, "the token is not an access token")
		}
		before := iss.Introspection.Hits()
		_, err := verifierOf(t, iss, signed).Verify(t.Context(), answer)
		refused(t, err, "the token is a JWT")
		assert.Equal(t, before, iss.Introspection.Hits())
	})
	t.Run("keys out of reach are a failure", func(t *testing.T) {
		answerSigned(iss, iss.Token(signedAnswer()...))
		iss.KeySet.Down()
		_, err := verifierOf(t, iss, signed).Verify(t.Context(), "opaque")
		failed(t, err)
		iss.KeySet.Restore()
	})
}
