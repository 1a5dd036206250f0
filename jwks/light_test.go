package jwks_test

import (
	"context"
	"encoding/json"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/jwks"
)

// The tokens that the document on light-oauth2 printed in 2016, with the key of its development certificate.
func TestLightOAuth2(t *testing.T) {
	data, err := os.ReadFile("testdata/light-oauth2.json")
	require.NoError(t, err)
	var light struct {
		Issuer, Audience string
		ValidAt          time.Time `json:"valid_at"`
		JWKS             json.RawMessage
		Tokens           map[string]string
	}
	require.NoError(t, json.Unmarshal(data, &light))
	require.Len(t, light.Tokens, 2)

	verifier := func(t *testing.T, profile jwks.Profile, now func() time.Time) *jwks.Verifier {
		v, err := jwks.New(jwks.Config{
			Issuer: light.Issuer, Audience: []string{light.Audience}, JWKS: light.JWKS, Profile: profile, Now: now,
		})
		require.NoError(t, err)
		t.Cleanup(v.Close)
		return v
	}
	then := func() time.Time { return light.ValidAt }

	for name, raw := range light.Tokens {
		t.Run(name+" is refused by default", func(t *testing.T) {
			_, err := verifier(t, jwks.Profile{}, then).Verify(context.Background(), raw)
			refused(t, err, "the token is not an access token")
		})
		t.Run(name+" is refused today", func(t *testing.T) {
			_, err := verifier(t, jwks.Lenient(), nil).Verify(context.Background(), raw)
			refused(t, err, "the token has expired")
		})
		t.Run(name+" is refused when one setting that it needs is off", func(t *testing.T) {
			for setting, without := range map[string]func(*jwks.Profile){
				"Untyped":    func(p *jwks.Profile) { p.AllowUntyped = false },
				"NoKeyID":    func(p *jwks.Profile) { p.AllowMissingKeyID = false },
				"NoSubject":  func(p *jwks.Profile) { p.AllowMissingSubject = false },
				"ScopeArray": func(p *jwks.Profile) { p.AllowScopeArray = false },
			} {
				profile := jwks.Lenient()
				without(&profile)
				_, err := verifier(t, profile, then).Verify(context.Background(), raw)
				assert.Error(t, err, setting)
			}
		})
		t.Run("JWS-21 "+name+" is accepted at its time under lenient settings", func(t *testing.T) {
			token, err := verifier(t, jwks.Lenient(), then).Verify(context.Background(), raw)
			require.NoError(t, err)
			assert.Equal(t, "6e9d1db3-2feb-4c1f-a5ad-9e93ae8ca59d", token.ClientID())
			assert.Equal(t, valetkey.NewScopes("account.r", "account.w"), token.Scopes())
			assert.Empty(t, token.Subject())
		})
	}
}

// refused requires a refusal with this description, and returns it.
func refused(t *testing.T, err error, description string) *valetkey.Error {
	t.Helper()
	var refusal *valetkey.Error
	require.ErrorAs(t, err, &refusal)
	require.Equal(t, valetkey.InvalidToken, refusal.Code)
	require.Equal(t, description, refusal.Reason.Description(), "%v", err)
	return refusal
}
