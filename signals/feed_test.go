package signals_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/signals"
)

// A gate is a guard that applies a step only when it is opened, and records the sizes of the steps.
type gate struct {
	sink
	open  chan struct{}
	sizes []int
}

func (g *gate) Revoke(rs ...valetkey.Revocation) error {
	<-g.open
	g.mu.Lock()
	g.sizes = append(g.sizes, len(rs))
	g.mu.Unlock()
	return g.sink.Revoke(rs...)
}

// users returns revocations of n users whose names begin with a prefix, in force for an hour.
func users(prefix string, n int) []valetkey.Revocation {
	all := make([]valetkey.Revocation, n)
	for i := range all {
		all[i] = valetkey.Revocation{Issuer: "https://idp.example.com", Subject: fmt.Sprint(prefix, i), Until: time.Now().Add(time.Hour)}
	}
	return all
}

// feeding returns a receiver that is only to deliver revocations, and that is closed before the end of the bubble.
func feeding(t *testing.T, changes ...func(*signals.Config)) *signals.Receiver {
	tr := &transmitter{URL: "https://idp.example.com"}
	return newReceiver(t, tr.config(changes...))
}

func to(guards ...signals.Guard) func(*signals.Config) {
	return func(cfg *signals.Config) { cfg.Guards = guards }
}

func TestStepsOfRevocations(t *testing.T) {
	for _, c := range []struct {
		name string
		sets []int // revocations of each SET that arrives while a step is applied
		want []int // sizes of the steps after that
	}{
		{"what arrives while a step is applied is the next step", []int{1, 2, 3}, []int{6}},
		{"a step has at most 1,000 revocations", []int{500, 500, 1}, []int{1000, 1}},
		{"the revocations of a SET stay together", []int{999, 2, 1}, []int{999, 3}},
		{"even if they are more", []int{1, 1001, 1}, []int{1, 1001, 1}},
		{"at first too", []int{1001, 1}, []int{1001, 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := &gate{open: make(chan struct{})}
				r := feeding(t, to(g))
				var waiting sync.WaitGroup
				deliver := func(name string, n int) {
					waiting.Go(func() { assert.Equal(t, []error{nil}, signals.Deliver(t.Context(), r, users(name, n))) })
					synctest.Wait()
				}
				deliver("first", 1)
				for i, n := range c.sets {
					deliver(fmt.Sprint("set-", i, "-"), n)
				}
				close(g.open)
				waiting.Wait()
				assert.Equal(t, append([]int{1}, c.want...), g.sizes)
				r.Close()
			})
		})
	}
	t.Run("revocations of one step that select the same are merged", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s, kept := &sink{}, &sink{}
			r := feeding(t, to(s), func(cfg *signals.Config) { cfg.Publish = kept })
			now := time.Now()
			of := func(before, at, until time.Duration) []valetkey.Revocation {
				return []valetkey.Revocation{{Issuer: "https://idp.example.com", Subject: "alice", Before: now.Add(before), At: now.Add(at), Until: now.Add(until)}}
			}
			for _, err := range signals.Deliver(t.Context(), r, of(3, 1, 2), of(1, 3, 2), of(2, 2, 3), users("bob", 1)) {
				require.NoError(t, err)
			}
			require.Len(t, s.all, 2)
			assert.Equal(t, of(3, 3, 3)[0], s.all[0])
			assert.Equal(t, "bob0", s.all[1].Subject)
			assert.ElementsMatch(t, s.all, kept.all)
			r.Close()
		})
	})
	t.Run("each SET gets the errors of the revocations that it caused", func(t *testing.T) {
		r := feeding(t, func(cfg *signals.Config) { cfg.Publish = picky{} })
		poison := users("a", 2)
		poison[1].Subject = "poison"
		errs := signals.Deliver(t.Context(), r, users("b", 2), poison, users("c", 1))
		require.NoError(t, errs[0])
		require.ErrorContains(t, errs[1], "signals: publishing a revocation: cannot be stored")
		require.NoError(t, errs[2])
	})
	t.Run("a caller that has left gets what is known by then", func(t *testing.T) {
		ctx, leave := context.WithCancel(t.Context())
		poison := users("a", 1)
		poison[0].Subject = "poison"
		r := feeding(t, func(cfg *signals.Config) { cfg.Publish = picky{} })
		leave()
		for range 100 {
			for i, err := range signals.Deliver(ctx, r, users("b", 1), poison) {
				if !errors.Is(err, context.Canceled) {
					assert.Equal(t, i == 1, err != nil, "%v", err)
				}
			}
		}
	})
	t.Run("the time of a publisher ends with the step", func(t *testing.T) {
		p := &clocked{}
		require.NoError(t, signals.Deliver(t.Context(), feeding(t, func(cfg *signals.Config) { cfg.Publish = p }), users("a", 1))[0])
		assert.True(t, p.limited)
		assert.ErrorIs(t, p.ctx.Err(), context.Canceled)
	})
	t.Run("a caller that leaves does not wait, and its revocations are applied", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			g := &gate{open: make(chan struct{})}
			r := feeding(t, to(g))
			ctx, leave := context.WithCancelCause(t.Context())
			cause := errors.New("the caller has left")
			var waiting sync.WaitGroup
			waiting.Go(func() { assert.Equal(t, []error{cause, cause}, signals.Deliver(ctx, r, users("a", 1), users("b", 1))) })
			synctest.Wait()
			leave(cause)
			waiting.Wait()
			close(g.open)
			synctest.Wait()
			assert.Equal(t, []string{"sub a0", "sub b0"}, g.what())
			r.Close()
		})
	})
	t.Run("Close waits for the step in progress, and refuses what comes later", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			g := &gate{open: make(chan struct{})}
			r := feeding(t, to(g))
			var waiting sync.WaitGroup
			waiting.Go(func() { assert.Equal(t, []error{nil}, signals.Deliver(t.Context(), r, users("a", 1))) })
			synctest.Wait()
			closed := make(chan struct{})
			go func() { r.Close(); close(closed) }()
			synctest.Wait()
			select {
			case <-closed:
				t.Error("it does not wait")
			default:
			}
			for _, err := range signals.Deliver(t.Context(), r, users("b", 1), users("c", 1)) {
				assert.ErrorContains(t, err, "signals: closed")
			}
			close(g.open)
			<-closed
			waiting.Wait()
			assert.Equal(t, []string{"sub a0"}, g.what())
		})
	})
	t.Run("a guard and a watcher that fail are logged, and those that succeed are not", func(t *testing.T) {
		for _, err := range []error{errors.New("malformed"), nil} {
			var log logBuffer
			r := feeding(t, log.log, to(&sink{err: err}))
			watch(t, r).fail(err)
			require.NoError(t, signals.Deliver(t.Context(), r, users("a", 1))[0])
			for _, text := range []string{"a guard could not apply a revocation", "a watcher could not apply a revocation"} {
				assert.Equal(t, err != nil, strings.Contains(log.String(), `"signals: `+text+`" err=malformed`), log.String())
				assert.Equal(t, err != nil, strings.Contains(log.String(), text), log.String())
			}
		}
	})
}

// clocked is a publisher that keeps its context.
type clocked struct {
	ctx     context.Context
	limited bool
}

func (c *clocked) Publish(ctx context.Context, _ valetkey.Revocation) error {
	c.ctx = ctx
	_, c.limited = ctx.Deadline()
	return nil
}

func TestWatchers(t *testing.T) {
	// sizes watches r and returns the sizes of the steps that the watcher gets at once, and what they select.
	sizes := func(t *testing.T, r *signals.Receiver) (steps []int, selected []string) {
		ctx, cancel := context.WithCancel(t.Context())
		err := r.Watch(ctx, func(rs ...valetkey.Revocation) error {
			steps = append(steps, len(rs))
			for _, r := range rs {
				selected = append(selected, what(r))
			}
			return nil
		}, func(error) { cancel() })
		require.ErrorIs(t, err, context.Canceled)
		return steps, selected
	}
	t.Run("one that watches an empty receiver gets nothing", func(t *testing.T) {
		steps, _ := sizes(t, feeding(t))
		assert.Empty(t, steps)
	})
	for n, want := range map[int][]int{1: {1}, signals.MaxBatch: {signals.MaxBatch}, 2*signals.MaxBatch + 1: {signals.MaxBatch, signals.MaxBatch, 1}} {
		t.Run(fmt.Sprintf("one that comes later gets %d revocations in bounded steps, each once", n), func(t *testing.T) {
			r := feeding(t)
			all := users("a", n)
			require.NoError(t, signals.Deliver(t.Context(), r, all)[0])
			steps, selected := sizes(t, r)
			assert.Equal(t, want, steps)
			names := make([]string, n)
			for i, r := range all {
				names[i] = what(r)
			}
			assert.ElementsMatch(t, names, selected)
		})
	}
	t.Run("one that comes later gets no revocation that has ended, with the leeway of any verifier", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := feeding(t)
			require.NoError(t, signals.Deliver(t.Context(), r, users("a", 1))[0])
			time.Sleep(time.Hour + 5*time.Minute - 1)
			steps, _ := sizes(t, r)
			assert.Equal(t, []int{1}, steps)
			time.Sleep(time.Nanosecond)
			steps, _ = sizes(t, r)
			assert.Empty(t, steps)
			r.Close()
		})
	})
	t.Run("one that has left gets nothing", func(t *testing.T) {
		r, calls := feeding(t), 0
		ctx, cancel := context.WithCancel(t.Context())
		require.Error(t, r.Watch(ctx, func(...valetkey.Revocation) error { calls++; return nil }, func(error) { cancel() }))
		require.NoError(t, signals.Deliver(t.Context(), r, users("a", 1))[0])
		assert.Zero(t, calls)
	})
}

func TestFullReceivers(t *testing.T) {
	full := func(t *testing.T, changes ...func(*signals.Config)) (r *signals.Receiver, deliver func(name string) error) {
		r = feeding(t, changes...)
		signals.SetCapacity(r, 1)
		return r, func(name string) error { return signals.Deliver(t.Context(), r, users(name, 1))[0] }
	}
	t.Run("room is made by revocations that have ended, at most once a minute", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r, deliver := full(t)
			require.NoError(t, deliver("a"))
			time.Sleep(time.Hour + 5*time.Minute - 1)
			require.ErrorContains(t, deliver("b"), "no room for another revocation", "a is in force, and is looked for again a minute later")
			time.Sleep(time.Minute - 1)
			require.Error(t, deliver("b"))
			time.Sleep(time.Nanosecond)
			require.NoError(t, deliver("b"))
			require.Error(t, deliver("c"), "b is in force")
			time.Sleep(time.Minute)
			require.Error(t, deliver("c"), "b is still in force")
			assert.Equal(t, []string{"sub b0"}, watch(t, r).what())
			r.Close()
		})
	})
	t.Run("those that have ended stay while there is room", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r, deliver := full(t)
			signals.SetCapacity(r, 2)
			require.NoError(t, deliver("a"))
			time.Sleep(2 * time.Hour)
			require.NoError(t, deliver("b")) // no search, so the next one is permitted
			require.NoError(t, deliver("c"))
			assert.ElementsMatch(t, []string{"sub b0", "sub c0"}, watch(t, r).what())
			r.Close()
		})
	})
	t.Run("while there is room, none is looked for", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r, deliver := full(t)
			signals.SetCapacity(r, 2)
			require.NoError(t, deliver("a"))
			time.Sleep(time.Hour + 4*time.Minute + 30*time.Second)
			require.NoError(t, deliver("b"))
			time.Sleep(30 * time.Second)
			require.NoError(t, deliver("c"), "a has ended, and it is the first time that there is no room")
			r.Close()
		})
	})
	for name, change := range map[string]func(*signals.Config){
		"a guard":     to(&sink{}),
		"a publisher": func(cfg *signals.Config) { cfg.Publish = &sink{} },
		"a watcher":   nil,
	} {
		t.Run("with "+name+" one that finds no room is applied, and a later watcher learns until when some are missing", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr := newTransmitterInMemory(t)
				r := newReceiver(t, tr.config(func(cfg *signals.Config) {
					if change != nil {
						change(cfg)
					}
				}))
				signals.SetCapacity(r, 1)
				stop := run(t, r)
				synctest.Wait()
				if change == nil {
					watch(t, r)
				}
				late, early := users("late", 1), users("early", 1)
				late[0].Until = late[0].Until.Add(time.Hour)
				for _, rs := range [][]valetkey.Revocation{users("a", 1), late, early} {
					require.NoError(t, signals.Deliver(t.Context(), r, rs)[0])
				}
				missing := watch(t, r)
				assert.True(t, missing.says("more of them are in force than the receiver holds"))
				time.Sleep(2*time.Hour + 4*time.Minute)
				assert.True(t, missing.says("more of them are in force than the receiver holds"))
				time.Sleep(time.Minute + time.Second)
				assert.True(t, missing.says(""))
				stop()
				r.Close()
				tr.close()
			})
		})
	}
}
