package valetkeytest_test

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/valetkeytest"
)

func TestVerifier(t *testing.T) {
	t.Run("it refuses what no server may accept", func(t *testing.T) {
		iss := valetkeytest.NewIssuer(t)
		v := iss.Verifier()
		for name, token := range iss.Forgeries() {
			_, err := v.Verify(t.Context(), token)
			var refusal *valetkey.Error
			require.ErrorAs(t, err, &refusal, name)
			assert.Equal(t, valetkey.InvalidToken, refusal.Code, name)
		}
	})
	t.Run("it has the algorithms of the issuer and no other", func(t *testing.T) {
		iss := valetkeytest.NewIssuer(t, valetkeytest.SignWith("ES512", "ES256"))
		v := iss.Verifier()
		for _, alg := range []string{"ES512", "ES256"} {
			_, err := v.Verify(t.Context(), iss.Token(valetkeytest.Algorithm(alg)))
			assert.NoError(t, err, alg)
		}
		one := valetkeytest.NewIssuer(t)
		_, err := one.Verifier().Verify(t.Context(), one.Token(valetkeytest.Algorithm("RS256")))
		assert.Error(t, err)
	})
	t.Run("its tokens expire with the issuer's clock, without a network", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			iss := valetkeytest.NewIssuer(t, valetkeytest.InMemory())
			v, token := iss.Verifier(), iss.Token(valetkeytest.Subject("alice"))
			got, err := v.Verify(t.Context(), token)
			require.NoError(t, err)
			assert.Equal(t, "alice", got.Subject())
			iss.Advance(2 * valetkeytest.DefaultLifetime)
			_, err = v.Verify(t.Context(), token)
			assert.Error(t, err)
		})
	})
}
