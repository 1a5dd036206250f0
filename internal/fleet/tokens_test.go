package fleet_test

import (
	"math/rand/v2"
	"net/http"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/valetkeytest"
)

// alone returns a network for a few guards, and so many tokens that outlive the test.
func alone(t *testing.T, tokens int, opaque func(i int) bool) (*network, []string) {
	n := &network{issuer: valetkeytest.NewIssuer(t, valetkeytest.InMemory()), begin: time.Now()}
	raws := make([]string, tokens)
	for i := range raws {
		mint := n.issuer.Token
		if opaque(i) {
			mint = n.issuer.Opaque
		}
		raws[i] = mint(valetkeytest.ExpiresIn(time.Hour), valetkeytest.Scopes("orders:read", "orders:write"))
	}
	return n, raws
}

// callsByTokens returns how often one guard calls in a minute, while each of the tokens is sent to it every 10 s.
func callsByTokens(t *testing.T, tokens int) (asked, fetched float64) {
	const length = 10 * time.Minute
	synctest.Test(t, func(t *testing.T) {
		n, raws := alone(t, tokens, func(i int) bool { return i%2 == 1 })
		g := newGuard(t, n, false)
		defer g.close()
		var clients sync.WaitGroup
		for _, raw := range raws {
			clients.Go(func() {
				for time.Sleep(rand.N(10 * time.Second)); time.Since(n.begin) < length; time.Sleep(10 * time.Second) {
					assert.Equal(t, http.StatusOK, g.send(raw))
				}
			})
		}
		clients.Wait()
		asked = float64(n.issuer.Introspection.Hits()) / length.Minutes()
		fetched = float64(n.issuer.KeySet.Hits()) / length.Minutes()
	})
	return asked, fetched
}

// memory returns the bytes that one guard holds which remembers so many tokens.
func memory(t *testing.T, tokens int, opaque bool) (bytes int64) {
	guards := max(1, min(100, 10_000/(tokens+1)))
	synctest.Test(t, func(t *testing.T) {
		n, raws := alone(t, tokens, func(int) bool { return opaque })
		known := n.issuer.Token()
		before := heap()
		all := make([]*guard, guards)
		for i := range all {
			g := newGuard(t, n, false)
			defer g.close()
			all[i] = g
			require.Equal(t, http.StatusOK, g.send(known)) // it has the keys
			var clients sync.WaitGroup
			for part := range 50 {
				clients.Go(func() {
					for at := part; at < len(raws); at += 50 {
						assert.Equal(t, http.StatusOK, g.send(raws[at]))
					}
				})
			}
			clients.Wait()
		}
		bytes = (heap() - before) / int64(guards)
		runtime.KeepAlive(all)
		runtime.KeepAlive(raws)
	})
	return bytes
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
