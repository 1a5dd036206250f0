package authserver_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/jwks"
)

// A strict resource server verifies the tokens of this server, configured by discovery alone.
func TestTokensVerify(t *testing.T) {
	verifier := func(t *testing.T, issuer, audience string) *jwks.Verifier {
		v, err := jwks.New(jwks.Config{Issuer: issuer, Audience: []string{audience}})
		require.NoError(t, err)
		t.Cleanup(func() { v.Close() })
		return v
	}
	s := start(t, "")
	ctx := context.Background()

	t.Run("a token of another API is refused", func(t *testing.T) {
		_, err := verifier(t, s.Issuer(), orders).Verify(ctx, s.token(t, "all", files).AccessToken)
		var refusal *valetkey.Error
		require.ErrorAs(t, err, &refusal)
		assert.Equal(t, valetkey.InvalidToken, refusal.Code)
	})
	t.Run("a token of another server is refused", func(t *testing.T) {
		_, err := verifier(t, s.Issuer(), orders).Verify(ctx, start(t, "").token(t, "reader", "").AccessToken)
		require.ErrorIs(t, err, valetkey.ErrNotApplicable)
	})
	t.Run("an opaque token is not for it", func(t *testing.T) {
		_, err := verifier(t, s.Issuer(), vault).Verify(ctx, s.token(t, "all", vault).AccessToken)
		require.ErrorIs(t, err, valetkey.ErrNotApplicable)
	})
	for _, path := range []string{"", "/", "/tenants/1"} {
		s := start(t, path)
		at := *s
		at.url = strings.TrimSuffix(s.url, "/")
		for _, c := range []struct {
			name, audience, scope string
			lifetime              time.Duration
		}{
			{"ES256", orders, "orders:read", 10 * time.Minute},
			{"RS256", files, "files:read", time.Minute},
		} {
			t.Run("AS-META-01 AS-META-04 AS-META-07 AS-CC-03 "+c.name+" by an issuer at path "+path, func(t *testing.T) {
				token, err := verifier(t, s.Issuer(), c.audience).Verify(ctx, at.token(t, "all", c.audience).AccessToken)
				require.NoError(t, err)
				assert.Equal(t, s.Issuer(), token.Issuer())
				assert.Equal(t, "all", token.Subject())
				assert.Equal(t, "all", token.ClientID())
				assert.True(t, token.ByClient())
				assert.NotEmpty(t, token.ID())
				assert.Equal(t, valetkey.ListOf(c.audience), token.Audience())
				assert.Equal(t, valetkey.NewScopes(c.scope), token.Scopes())
				assert.Equal(t, c.lifetime, token.Expiry().Sub(token.IssuedAt()))
			})
		}
	}
}
