package transmitter_test

import (
	"context"
	"encoding/json"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/authserver/internal/transmitter"
	"github.com/valetkey/valetkey/authserver/store"
)

// A skewed store is that of a process whose clock is off: every time that it writes is.
type skewed struct {
	store.Store
	off time.Duration
}

func (s *skewed) Put(ctx context.Context, r store.Record) (int64, error) {
	r.Expires = r.Expires.Add(s.off)
	var o object
	if json.Unmarshal(r.Value, &o) == nil {
		for name, v := range o {
			text, _ := v.(string)
			if at, err := time.Parse(time.RFC3339Nano, text); err == nil {
				o[name] = at.Add(s.off)
			}
		}
		r.Value, _ = json.Marshal(o)
	}
	return s.Store.Put(ctx, r)
}

const name, tick = "queue", 100 * time.Millisecond

// Whether the clock of a process is ahead or somewhat behind, others take its leases over when it has died, and not before.
func TestLeasesDoNotDependOnClocks(t *testing.T) {
	for _, off := range []time.Duration{0, 3 * time.Second, -3 * time.Second, -20 * time.Second, 10 * time.Minute} {
		t.Run(off.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				records := store.NewMemory(0)
				a := on(t, &broken{Store: records, left: -1}, func(c *transmitter.Config) { c.Store = &skewed{records, off} })
				b := on(t, &broken{Store: records, left: -1})
				take := func() (held context.Context, release func()) {
					held, release, err := b.Lease(t.Context(), name)
					require.NoError(t, err)
					return held, release
				}
				life, die := context.WithCancel(t.Context())
				held, _, err := a.Lease(life, name)
				require.NoError(t, err)
				require.NotNil(t, held)
				for range 100 {
					time.Sleep(tick)
					other, _ := take()
					require.Nil(t, other, "it lives")
					require.NoError(t, held.Err())
				}
				die()
				waited := 0
				for other, release := take(); ; other, release = take() {
					if other != nil {
						release()
						break
					}
					time.Sleep(tick)
					waited++
					require.LessOrEqual(t, waited, 30)
				}
				assert.GreaterOrEqual(t, waited, 15, "it might only be slow")

				held, release, err := a.Lease(t.Context(), name)
				require.NoError(t, err)
				require.NotNil(t, held, "b has given it back")
				release()
				held, release = take()
				require.NotNil(t, held, "a has given it back")
				release()
			})
		})
	}
}

func TestALeaseOfLongAgoIsTakenOverAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		records := &broken{Store: store.NewMemory(0), left: -1}
		life, die := context.WithCancel(t.Context())
		held, _, err := on(t, records).Lease(life, name)
		require.NoError(t, err)
		require.NotNil(t, held)
		die()
		time.Sleep(time.Minute)
		held, release, err := on(t, records).Lease(t.Context(), name)
		require.NoError(t, err)
		require.NotNil(t, held)
		release()
	})
}

// A process that is far behind loses its lease to one that starts, which then keeps it.
func TestALeaseOfAClockFarBehindMovesOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		records := store.NewMemory(0)
		a := on(t, &broken{Store: records, left: -1}, func(c *transmitter.Config) { c.Store = &skewed{records, -10 * time.Minute} })
		b := on(t, &broken{Store: records, left: -1})
		lost, _, err := a.Lease(t.Context(), name)
		require.NoError(t, err)
		require.NotNil(t, lost)
		held, release, err := b.Lease(t.Context(), name)
		require.NoError(t, err)
		require.NotNil(t, held)
		time.Sleep(time.Second)
		require.Error(t, lost.Err())
		for range 100 {
			again, _, err := a.Lease(t.Context(), name)
			require.NoError(t, err)
			require.Nil(t, again)
			require.NoError(t, held.Err())
			time.Sleep(tick)
		}
		release()
	})
}

// A slow store applies writes at once, and responds after a delay.
type slow struct {
	store.Store
	delay atomic.Int64 // nanoseconds
}

func (s *slow) Put(ctx context.Context, r store.Record) (int64, error) {
	version, err := s.Store.Put(ctx, r)
	select {
	case <-time.After(time.Duration(s.delay.Load())):
		return version, err
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}

// However slow the responses of the store are, a process has stopped by the time at which another one takes its lease over.
func TestLeasesAreHeldOnce(t *testing.T) {
	for _, c := range []struct{ first, then time.Duration }{
		{0, time.Hour}, {0, 1500 * time.Millisecond}, {0, 1900 * time.Millisecond}, {1500 * time.Millisecond, 0}, {3 * time.Second, time.Hour},
	} {
		t.Run(fmt.Sprintf("a response takes %v, and the next ones %v", c.first, c.then), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				records := store.NewMemory(0)
				late := &slow{Store: records}
				a := on(t, &broken{Store: records, left: -1}, func(cfg *transmitter.Config) { cfg.Store = late })
				b := on(t, &broken{Store: records, left: -1})
				late.delay.Store(int64(c.first))
				var held atomic.Pointer[context.Context]
				go func() {
					if of, release, err := a.Lease(t.Context(), name); err == nil && of != nil {
						held.Store(&of)
						context.AfterFunc(t.Context(), release)
					}
					late.delay.Store(int64(c.then))
				}()
				time.Sleep(time.Millisecond)
				taken := 0
				for range 60 {
					other, release, err := b.Lease(t.Context(), name)
					require.NoError(t, err)
					if other != nil {
						taken++
						of := held.Load()
						assert.True(t, of == nil || (*of).Err() != nil, "both have it")
						release()
					}
					time.Sleep(tick)
				}
				if c.then == time.Hour {
					assert.Positive(t, taken, "the other one has stopped")
				}
			})
		})
	}
}
