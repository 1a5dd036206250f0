package engine_test

import (
	"context"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/authserver/internal/engine"
	"github.com/valetkey/valetkey/authserver/store"
)

const (
	rounds = 200
	racers = 8
)

// A gate holds every racer until all of them have read the grant, so each has read the same version, and none
// comes after another has won.
type gate struct {
	store.Store
	waiting atomic.Pointer[sync.WaitGroup]
}

func (g *gate) Find(ctx context.Context, kind string, key store.Key, after string, limit int) ([]store.Record, error) {
	found, err := g.Store.Find(ctx, kind, key, after, limit)
	if all := g.waiting.Load(); all != nil {
		all.Done()
		all.Wait()
	}
	return found, err
}

// race sends the same form racers times at once, and returns the answers.
func race(t *testing.T, s *site, g *gate, f url.Values) []answer {
	var all, done sync.WaitGroup
	if g != nil {
		all.Add(racers)
		g.waiting.Store(&all)
		defer g.waiting.Store(nil)
	}
	answers := make([]answer, racers)
	for i := range racers {
		done.Go(func() { answers[i] = s.post(t, "/oauth2/token", "web", f) })
	}
	done.Wait()
	return answers
}

// winner returns the tokens of the only one who got any.
func winner(t *testing.T, answers []answer) (won []tokens) {
	for _, a := range answers {
		if a.status == 200 {
			won = append(won, a.tokens(t))
			continue
		}
		refused(t, a, 400, "invalid_grant")
	}
	return won
}

func TestRaces(t *testing.T) {
	g := &gate{}
	s := start(t, func(c *config) { g.Store, c.Store = c.Store, g })
	t.Run("AS-CODE-06 one code, redeemed by many at once, brings tokens once, and they work", func(t *testing.T) {
		for range rounds {
			won := winner(t, race(t, s, g, redemption(s.code(t))))
			require.Len(t, won, 1)
			require.True(t, s.active(t, won[0].access))
			require.Equal(t, 200, s.refresh(t, "web", won[0].refresh).status)
		}
		assert.Empty(t, s.saw(engine.CodeReused))
	})
	t.Run("AS-RT-05 one refresh token, used by many at once, brings a successor once, and it works", func(t *testing.T) {
		for range rounds {
			f := form("grant_type", "refresh_token", "refresh_token", s.login(t).refresh)
			won := winner(t, race(t, s, g, f))
			require.Len(t, won, 1)
			require.True(t, s.active(t, won[0].access))
			require.Equal(t, 200, s.refresh(t, "web", won[0].refresh).status)
		}
		assert.Empty(t, s.saw(engine.TokenReused))
	})
}

// Without the gate some come after another has won, which is reuse: then no tokens remain valid.
func TestRacesAsTheyCome(t *testing.T) {
	s := start(t)
	for name, next := range map[string]func() url.Values{
		"AS-CODE-07 a code":        func() url.Values { return redemption(s.code(t)) },
		"AS-RT-05 a refresh token": func() url.Values { return form("grant_type", "refresh_token", "refresh_token", s.login(t).refresh) },
	} {
		t.Run(name, func(t *testing.T) {
			for range rounds {
				before := len(s.saw(engine.CodeReused)) + len(s.saw(engine.TokenReused))
				won := winner(t, race(t, s, nil, next()))
				reused := len(s.saw(engine.CodeReused))+len(s.saw(engine.TokenReused)) > before
				require.Len(t, won, 1)
				require.Equal(t, !reused, s.active(t, won[0].access))
			}
		})
	}
}

// Many answer for one interaction.
func TestRaceOfDecisions(t *testing.T) {
	s := start(t)
	s.asks(page)
	for range 20 {
		b := newBrowser()
		at := b.get(t, s.authorizeURL(request())).action(t, s)
		var won atomic.Int32
		var done sync.WaitGroup
		for range racers {
			done.Go(func() {
				if a := b.post(t, at, form("do", "allow")); a.back.Get("code") != "" {
					won.Add(1)
				} else {
					assert.Equal(t, 400, a.status)
				}
			})
		}
		done.Wait()
		require.EqualValues(t, 1, won.Load())
	}
}
