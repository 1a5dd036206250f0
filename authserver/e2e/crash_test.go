//go:build unix

package e2e_test

import (
	"net/url"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// After kill -9, the server knows everything that it has confirmed.
func TestCrash(t *testing.T) {
	for _, name := range []string{"sqlite", "postgres"} {
		t.Run(name, func(t *testing.T) {
			h := start(t, stores[name](t))
			jwt, err := h.token("service", url.Values{"grant_type": {"client_credentials"}, "scope": {"orders:read"}})
			require.NoError(t, err)
			var issued []string
			revoked := 0
			for _, until := range []int{250, 500, 750, 1000} {
				issued = append(issued, h.untilKilled(t, until-len(issued))...)
				h.restart()
				a, err := h.token("service", url.Values{"grant_type": {"client_credentials"}, "scope": {"vault:open"}})
				require.NoError(t, err)
				require.Equal(t, 200, a.status)
				issued = append(issued, a.AccessToken)
				for i, token := range issued {
					require.Equal(t, i >= revoked, h.active(t, "vault-api", token), "token %d of %d", i, len(issued))
				}
				a, err = h.post("/oauth2/revoke", "service", url.Values{"token": {issued[revoked]}})
				require.NoError(t, err)
				require.Equal(t, 200, a.status)
				revoked++
			}
			assert.True(t, h.active(t, "orders-api", jwt.AccessToken), "the keys are the same")
		})
	}
}

// untilKilled has several clients ask for opaque tokens, kills the server once it has answered with so many, and returns them,
// with those that came to others meanwhile.
func (h *house) untilKilled(t *testing.T, many int) (issued []string) {
	t.Helper()
	var (
		mu      sync.Mutex
		enough  = make(chan struct{})
		clients sync.WaitGroup
	)
	for range 8 {
		clients.Go(func() {
			for {
				a, err := h.token("service", url.Values{"grant_type": {"client_credentials"}, "scope": {"vault:open"}})
				if err != nil || a.status != 200 {
					return // it is dead
				}
				mu.Lock()
				if issued = append(issued, a.AccessToken); len(issued) == many {
					close(enough)
				}
				mu.Unlock()
			}
		})
	}
	ended := make(chan struct{})
	go func() {
		clients.Wait()
		close(ended)
	}()
	select {
	case <-enough:
	case <-ended:
		require.Fail(t, "the server has ended by itself")
	}
	h.kill()
	<-ended
	return issued
}
