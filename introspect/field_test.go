package introspect_test

import (
	"errors"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/introspect"
	"github.com/valetkey/valetkey/valetkeytest"
)

// TestAnswersFromTheField verifies an opaque token with each answer in testdata/field, whose shapes are those of docs/field.md.
func TestAnswersFromTheField(t *testing.T) {
	end := time.Unix(4102444800, 0)
	verify := func(t *testing.T, file string, change func(*introspect.Config)) *valetkey.Token {
		t.Helper()
		answer, err := os.ReadFile("testdata/field/" + file)
		require.NoError(t, err)
		iss := valetkeytest.NewIssuer(t)
		iss.Introspection.Answer(string(answer))
		token, err := verifierOf(t, iss, func(c *introspect.Config) {
			c.Issuer, c.Now = "https://as.example", func() time.Time { return end.Add(-time.Hour) }
			c.AudienceByIssuer = true
		}, change).Verify(t.Context(), "opaque")
		require.NoError(t, err)
		return token
	}
	t.Run("the type access_token of Salesforce is accepted", func(t *testing.T) {
		token := verify(t, "introspection-salesforce.json", func(*introspect.Config) {})
		assert.Equal(t, "https://login.example.com/id/00D/005", token.Subject())
		assert.Equal(t, valetkey.NewScopes("api", "refresh_token"), token.Scopes())
		assert.Equal(t, end.Unix(), token.Expiry().Unix())
	})
	t.Run("the exp 0 of Doorkeeper is a token without end, remembered for the TTL only", func(t *testing.T) {
		begun := end.Add(-time.Hour)
		token := verify(t, "introspection-doorkeeper-endless.json", func(c *introspect.Config) { c.CacheTTL = time.Minute })
		assert.True(t, token.Expiry().IsZero())
		assert.Equal(t, begun.Add(time.Minute).Unix(), token.Freshness().Until.Unix())
	})
	t.Run("an opaque token of Salesforce is refused, because a bearer token has no exclamation mark", func(t *testing.T) {
		iss := valetkeytest.NewIssuer(t)
		_, err := verifierOf(t, iss).Verify(t.Context(), "00D5e000001AbCd!AQEAQNf0c3Q7yJt1ZxQm4W8vYb2kT9uHs")
		refusal, ok := errors.AsType[*valetkey.Error](err)
		require.True(t, ok, "%v", err)
		assert.Equal(t, valetkey.ReasonMalformed, refusal.Reason)
		assert.Zero(t, iss.Introspection.Hits())
	})
	t.Run("null, empty strings and empty lists are absent", func(t *testing.T) {
		token := verify(t, "introspection-nulls.json", func(c *introspect.Config) {
			c.AudienceByIssuer, c.Audience = false, []string{"https://api.example.com"}
		})
		assert.Empty(t, token.Subject())
		assert.Empty(t, token.ID())
		assert.Equal(t, valetkey.Scopes{}, token.Scopes())
	})
}
