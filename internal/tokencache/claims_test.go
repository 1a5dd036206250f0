package tokencache_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/tokencache"
)

type tenant struct {
	Tenant string `json:"tenant"`
}

func (t tenant) Validate() error {
	if t.Tenant == "" {
		return errors.New("no tenant")
	}
	return nil
}

func TestClaims(t *testing.T) {
	declared, other := valetkey.DeclareClaims[tenant](), valetkey.DeclareClaims[tenant]()
	claims := `{"tenant":"one"}`
	memory := newCache(t, tokencache.Config{Claims: declared}, valetkey.VerifierFunc(func(context.Context, string) (*valetkey.Token, error) {
		return valetkey.NewToken(valetkey.TokenFields{Raw: claims, Freshness: hour()}), nil
	}))
	for range 3 {
		e, _, err := memory.Verify(t.Context(), "a")
		require.NoError(t, err)
		assert.Equal(t, &tenant{"one"}, e.ClaimsOf(declared))
		assert.Nil(t, e.ClaimsOf(other), "of another declaration")
	}
	claims = `{}`
	_, _, err := memory.Verify(t.Context(), "b")
	var refusal *valetkey.Error
	require.ErrorAs(t, err, &refusal)
	assert.Equal(t, valetkey.InvalidToken, refusal.Code)
	assert.Equal(t, valetkey.ReasonClaims, refusal.Reason)
	assert.ErrorContains(t, err, "no tenant")
}

func TestPurgeNamed(t *testing.T) {
	named := func(subjects ...string) cache {
		memory := newCache(t, tokencache.Config{}, valetkey.VerifierFunc(func(_ context.Context, raw string) (*valetkey.Token, error) {
			return valetkey.NewToken(valetkey.TokenFields{
				Issuer: "issuer", ID: "id of " + raw, Subject: raw, ClientID: "client of " + raw, SessionID: "session of " + raw, Freshness: hour(),
			}), nil
		}))
		for _, subject := range subjects {
			_, _, err := memory.Verify(t.Context(), subject)
			require.NoError(t, err)
		}
		return memory
	}
	every := func(*valetkey.Token) bool { return true }
	of := func(subject string) func(issuer, id, sub, client, session string) bool {
		return func(issuer, id, sub, client, session string) bool {
			assert.Equal(t, []string{"issuer", "id of " + sub, "client of " + sub, "session of " + sub}, []string{issuer, id, client, session})
			return sub == subject
		}
	}
	cached := func(memory cache, subject string) bool {
		_, remembered, err := memory.Verify(t.Context(), subject)
		require.NoError(t, err)
		return remembered
	}
	t.Run("the tokens that names and match select, and no others", func(t *testing.T) {
		memory := named("alice", "bob")
		assert.Equal(t, 1, memory.PurgeNamed(of("alice"), every))
		assert.True(t, cached(memory, "bob"))
		assert.False(t, cached(memory, "alice"))
	})
	t.Run("none that match does not select", func(t *testing.T) {
		memory := named("alice", "bob")
		seen := 0
		assert.Zero(t, memory.PurgeNamed(of("alice"), func(token *valetkey.Token) bool {
			assert.Equal(t, "alice", token.Subject(), "it is not asked about the others")
			seen++
			return false
		}))
		assert.Equal(t, 1, seen)
		assert.True(t, cached(memory, "alice"))
	})
	t.Run("a token that another purge has removed meanwhile does not count", func(t *testing.T) {
		memory := named("alice")
		assert.Zero(t, memory.PurgeNamed(of("alice"), func(*valetkey.Token) bool { memory.Purge(nil); return true }))
	})
}

func TestClock(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	memory := newCache(t, tokencache.Config{Now: func() time.Time { return now }}, &verifier{reuse: func() valetkey.Freshness {
		return valetkey.Freshness{Until: now.Add(time.Minute)}
	}})
	assert.Equal(t, "1", memory.id("a"))
	assert.Equal(t, "1", memory.id("a"))
	now = now.Add(time.Minute)
	assert.Equal(t, "2", memory.id("a"))
}

func TestFollowersOfAResultThatIsNotFresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := true
		memory := newCache(t, tokencache.Config{}, valetkey.VerifierFunc(func(context.Context, string) (*valetkey.Token, error) {
			if !first {
				return nil, &valetkey.Error{Code: valetkey.InvalidToken}
			}
			first = false
			time.Sleep(time.Second)
			return valetkey.NewToken(valetkey.TokenFields{}), nil
		}))
		go func() {
			_, _, err := memory.Verify(t.Context(), "a")
			assert.NoError(t, err)
		}()
		synctest.Wait()
		e, _, err := memory.Verify(t.Context(), "a")
		var refusal *valetkey.Error
		require.ErrorAs(t, err, &refusal, "it asks for itself, and gets its answer")
		assert.Nil(t, e)
	})
}

// Of two calls that wait for a leader that leaves, one leads, and the other may look again only after that one has got its answer.
func TestFollowersOfALeaderThatLeaves(t *testing.T) {
	for name, c := range map[string]struct {
		fresh time.Duration // of the answer that comes half a second after the leader has left
		calls int64         // of the verifier, when the last of the three looks again half a second later
	}{
		"the answer is fresh: it is shared":     {time.Hour, 2},
		"the answer is not: the last call asks": {100 * time.Millisecond, 3},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var left atomic.Bool
				var looks, calls atomic.Int64
				memory := newCache(t, tokencache.Config{Now: func() time.Time {
					if left.Load() && looks.Add(1) == 2 {
						time.Sleep(time.Second)
					}
					return time.Now()
				}}, valetkey.VerifierFunc(func(ctx context.Context, _ string) (*valetkey.Token, error) {
					if calls.Add(1) == 1 {
						<-ctx.Done()
						left.Store(true)
						return nil, ctx.Err()
					}
					time.Sleep(500 * time.Millisecond)
					return valetkey.NewToken(valetkey.TokenFields{Freshness: valetkey.Freshness{Until: time.Now().Add(c.fresh)}}), nil
				}))
				leader, leave := context.WithCancel(t.Context())
				go func() {
					_, _, err := memory.Verify(leader, "a")
					assert.ErrorIs(t, err, context.Canceled)
				}()
				synctest.Wait()
				for range 2 {
					go func() {
						e, _, err := memory.Verify(t.Context(), "a")
						if assert.NoError(t, err) {
							assert.True(t, time.Now().Before(e.Token.Freshness().Until))
						}
					}()
				}
				synctest.Wait()
				leave()
				time.Sleep(10 * time.Second)
				synctest.Wait()
				assert.Equal(t, c.calls, calls.Load())
			})
		})
	}
}

// probed are claims whose validation calls a function of the test. Claims are decoded when an entry is recreated, while no lock is held.
type probed struct{}

var probe = func() error { return nil }

func (probed) Validate() error { return probe() }

func TestRecreatedEntries(t *testing.T) {
	// verified returns a cache that has verified one token, whose entry is recreated at its next use, and the number of verifications.
	verified := func(t *testing.T) (memory cache, verify func() *tokencache.Entry, calls *int) {
		calls = new(int)
		memory = newCache(t, tokencache.Config{Entries: 100, Claims: valetkey.DeclareClaims[probed]()}, valetkey.VerifierFunc(func(context.Context, string) (*valetkey.Token, error) {
			*calls++
			return valetkey.NewToken(valetkey.TokenFields{ID: fmt.Sprint(*calls), Raw: `{}`, Freshness: hour()}), nil
		}))
		verify = func() *tokencache.Entry {
			e, _, err := memory.Verify(t.Context(), "a")
			require.NoError(t, err)
			return e
		}
		require.Equal(t, "1", verify().Token.ID())
		t.Cleanup(func() { probe = func() error { return nil } })
		return memory, verify, calls
	}
	// once calls f at the next validation.
	once := func(f func()) {
		probe = func() error {
			probe = func() error { return nil }
			f()
			return nil
		}
	}
	t.Run("claims that are no longer valid: the token is removed, verified again and refused", func(t *testing.T) {
		memory, verify, calls := verified(t)
		probes := 0
		probe = func() error {
			if probes++; probes > 2 {
				t.Fatal("of its entry and of the new token")
			}
			return errors.New("no tenant")
		}
		_, _, err := memory.Verify(t.Context(), "a")
		var refusal *valetkey.Error
		require.ErrorAs(t, err, &refusal)
		assert.Equal(t, valetkey.ReasonClaims, refusal.Reason)
		assert.Equal(t, 2, *calls)
		assert.Zero(t, memory.Stats().Bytes)
		probe = func() error { return nil }
		assert.Equal(t, "3", verify().Token.ID())
	})
	t.Run("another call recreates the entry meanwhile: both get the same", func(t *testing.T) {
		memory, verify, calls := verified(t)
		var other *tokencache.Entry
		once(func() { other = verify() })
		e := verify()
		assert.Same(t, other, e)
		assert.Same(t, e, verify())
		assert.Equal(t, 1, *calls)
		memory.Purge(nil)
		assert.Zero(t, memory.Stats().Bytes)
	})
	t.Run("the token is purged meanwhile: the next call verifies it again", func(t *testing.T) {
		memory, verify, _ := verified(t)
		once(func() { memory.Purge(nil) })
		assert.Equal(t, "1", verify().Token.ID())
		assert.Zero(t, memory.Stats().Bytes)
		assert.Equal(t, "2", verify().Token.ID())
	})
	t.Run("the token is purged and verified again meanwhile: the next call gets the later one", func(t *testing.T) {
		memory, verify, _ := verified(t)
		once(func() { memory.Purge(nil); verify() })
		assert.Equal(t, "1", verify().Token.ID())
		assert.Equal(t, "2", verify().Token.ID())
	})
}
