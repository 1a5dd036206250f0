package middleware_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/valetkeytest"
)

func TestARealmMayHaveEachCharacterOfAChallenge(t *testing.T) {
	var all []byte
	for c := byte(0x20); c <= 0x7e; c++ {
		if c != '"' && c != '\\' {
			all = append(all, c)
		}
	}
	for realm, accepted := range map[string]bool{string(all): true, "\x1f": false, "\x7f": false, `"`: false, `\`: false} {
		guard, err := middleware.New(middleware.Config{Verifier: valetkey.First(), Realm: realm})
		if !accepted {
			assert.ErrorContains(t, err, "Realm", "%q", realm)
			continue
		}
		require.NoError(t, err, "%q", realm)
		assert.Equal(t, realm, valetkeytest.Challenge(t, guard.Reject(nil, &valetkey.Error{}).Header(), "Bearer")["realm"])
	}
}

func TestAClaimsChallengeReachesTheClient(t *testing.T) {
	guard := newGuard(t, valetkeytest.NewIssuer(t))
	const claims = `{"access_token":{"acrs":{"essential":true,"value":"c\"1"}}}`
	d := guard.Reject(nil, fmt.Errorf("calling: %w", &valetkey.Error{Code: valetkey.InsufficientClaims, Reason: valetkey.ReasonACR, Claims: claims}))
	assert.Equal(t, http.StatusUnauthorized, d.Status())
	params := valetkeytest.Challenge(t, d.Header(), "Bearer")
	assert.Equal(t, "insufficient_claims", params["error"])
	got, err := base64.StdEncoding.DecodeString(params["claims"])
	require.NoError(t, err)
	assert.Equal(t, claims, string(got))
}
