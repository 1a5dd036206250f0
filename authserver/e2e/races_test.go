//go:build unix

package e2e_test

import (
	"net/url"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

const (
	rounds = 200
	racers = 8
)

// Of several simultaneous uses of a one-time credential, one succeeds.
func TestRaces(t *testing.T) {
	for name, store := range stores {
		t.Run(name, func(t *testing.T) {
			h := start(t, store(t))
			browser := newBrowser(h.url)
			redemption := func() url.Values {
				verifier := oauth2.GenerateVerifier()
				at, err := browser.open(h.url + "/oauth2/authorize?" + url.Values{
					"response_type": {"code"}, "client_id": {"web"}, "redirect_uri": {callback}, "scope": {"vault:open"},
					"code_challenge": {oauth2.S256ChallengeFromVerifier(verifier)}, "code_challenge_method": {"S256"},
				}.Encode())
				require.NoError(t, err)
				return url.Values{
					"grant_type": {"authorization_code"}, "code": {at.Query().Get("code")}, "redirect_uri": {callback}, "code_verifier": {verifier},
				}
			}
			t.Run("AS-CODE-06 a code", func(t *testing.T) {
				for range rounds {
					h.race(t, redemption())
				}
			})
			t.Run("AS-RT-05 a refresh token", func(t *testing.T) {
				for range rounds {
					first, err := h.token("web", redemption())
					require.NoError(t, err)
					h.race(t, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {first.RefreshToken}})
				}
			})
		})
	}
}

// race sends a form by all racers at once. One of them wins; if another one comes only after that, no tokens remain valid.
func (h *house) race(t *testing.T, form url.Values) {
	t.Helper()
	answers := make([]answer, racers)
	start := make(chan struct{})
	var done sync.WaitGroup
	for i := range racers {
		done.Go(func() {
			<-start
			var err error
			answers[i], err = h.token("web", form)
			assert.NoError(t, err)
		})
	}
	close(start)
	done.Wait()
	won := 0
	for _, a := range answers {
		if a.status == 200 {
			won++
			continue
		}
		require.Equal(t, 400, a.status)
		require.Equal(t, "invalid_grant", a.Error)
	}
	require.Equal(t, 1, won)
}
