package refresh_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/fetch"
	"github.com/valetkey/valetkey/internal/refresh"
)

var (
	background   = context.Background()
	errDown      = errors.New("connection refused")
	errWithdrawn = errors.New("withdrawn")
)

const tick = time.Millisecond

// A source answers the fetches of a document.
type source struct {
	mu      sync.Mutex
	log     strings.Builder
	answer  refresh.Result[string] // Value is set
	err     error
	delay   time.Duration
	fetches []time.Time // when they began
	ended   int
}

// Write makes source the target of the log.
func (s *source) Write(line []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.Write(line)
}

func (s *source) logged() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.String()
}

func (s *source) fetch(ctx context.Context, _ *string) (refresh.Result[string], error) {
	s.mu.Lock()
	s.fetches = append(s.fetches, time.Now())
	answer, err, delay := s.answer, s.err, s.delay
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.ended++
	}()
	select {
	case <-time.After(delay):
	case <-ctx.Done():
		return refresh.Result[string]{}, ctx.Err()
	}
	if err != nil {
		return refresh.Result[string]{}, err
	}
	return answer, nil
}

// set changes how the source answers from now on.
func (s *source) set(err error, delay time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err, s.delay = err, delay
}

func (s *source) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.fetches)
}

// bubble runs f on a document with a lifetime of 10 min and a StaleIfError of 1 h, changed by the function.
func bubble(t *testing.T, name string, change func(*refresh.Config[string]), f func(t *testing.T, s *source, d *refresh.Document[string])) {
	t.Run(name, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			value := "document"
			s := &source{answer: refresh.Result[string]{Value: &value, Fresh: 10 * time.Minute}}
			cfg := refresh.Config[string]{
				Fetch: s.fetch, Withdrawn: errWithdrawn, StaleIfError: time.Hour,
				Name: "document", Missing: "no document", Logger: slog.New(slog.NewTextHandler(s, nil)),
			}
			if change != nil {
				change(&cfg)
			}
			d := refresh.New(cfg)
			defer d.Close()
			f(t, s, d)
		})
	})
}

func whileUsed(c *refresh.Config[string]) { c.WhileUsed = true }

// is requires that d is in this state.
func is(t *testing.T, d *refresh.Document[string], state valetkey.State) {
	t.Helper()
	synctest.Wait()
	assert.Equal(t, state, d.Status().Health.State)
	assert.Equal(t, state != valetkey.Down, d.Load() != nil)
}

func took(f func()) time.Duration {
	start := time.Now()
	f()
	return time.Since(start)
}

func TestDocumentThatCannotBeFetched(t *testing.T) {
	bubble(t, "callers get the reason, and cause no fetch before the backoff has passed", nil, func(t *testing.T, s *source, d *refresh.Document[string]) {
		assert.Zero(t, s.count(), "New fetches nothing")
		s.set(errDown, 0)
		for range 100 {
			assert.Nil(t, d.Renew(background, nil))
			require.ErrorIs(t, d.Ready(background), errDown)
		}
		assert.Equal(t, 1, s.count())
		var u *valetkey.Unavailable
		require.ErrorAs(t, d.Unavailable(), &u)
		assert.Equal(t, time.Second, u.RetryAfter)
		assert.ErrorContains(t, u, "no document: connection refused")
		is(t, d, valetkey.Down)
	})
	bubble(t, "the timer retries with backoff that doubles up to a minute, each time up to a tenth early", nil, func(t *testing.T, s *source, d *refresh.Document[string]) {
		s.set(errDown, 0)
		require.Error(t, d.Ready(background))
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		for i, want := range []time.Duration{1, 2, 4, 8, 16, 32, 60, 60, 60} {
			wait := s.fetches[i+1].Sub(s.fetches[i])
			assert.LessOrEqual(t, wait, want*time.Second)
			assert.GreaterOrEqual(t, wait, want*time.Second*9/10)
		}
		s.set(nil, 0)
		time.Sleep(time.Minute)
		is(t, d, valetkey.Ready)
	})
	probe := func(c *refresh.Config[string]) { c.Probe = true }
	bubble(t, "with Probe it is tried every second for a minute, then late by an eighth of the outage, up to a minute", probe, func(t *testing.T, s *source, d *refresh.Document[string]) {
		s.set(errDown, 0)
		begun := time.Now()
		require.Error(t, d.Ready(background))
		time.Sleep(20 * time.Minute)
		synctest.Wait()
		for i, at := range s.fetches[1:] {
			want := min(max((s.fetches[i].Sub(begun)-time.Minute)/8, time.Second), time.Minute)
			assert.LessOrEqual(t, at.Sub(s.fetches[i]), want, "%v after the first failure", at.Sub(begun))
			assert.GreaterOrEqual(t, at.Sub(s.fetches[i]), want*9/10)
		}
		s.set(nil, 0)
		time.Sleep(time.Minute)
		is(t, d, valetkey.Ready)
		require.NotNil(t, d.Load())
		s.set(errDown, 0)
		count := s.count()
		time.Sleep(2 * time.Hour)
		assert.Less(t, s.count()-count, 200, "while a document is held, pauses double")
	})
	bubble(t, "without use there is no timer, and the next caller after the backoff fetches", whileUsed, func(t *testing.T, s *source, d *refresh.Document[string]) {
		s.set(errDown, 0)
		require.Error(t, d.Ready(background))
		time.Sleep(time.Hour)
		assert.Equal(t, 1, s.count())
		s.set(nil, 0)
		assert.NoError(t, d.Ready(background))
	})
	for name, test := range map[string]struct{ says, limit, want time.Duration }{
		"Retry-After is honored":           {2 * time.Minute, 0, 2 * time.Minute},
		"up to five minutes":               {time.Hour, 0, 5 * time.Minute},
		"or up to what is configured":      {time.Hour, 20 * time.Minute, 20 * time.Minute},
		"but does not shorten the backoff": {time.Nanosecond, 0, time.Second},
	} {
		limited := func(c *refresh.Config[string]) { c.MaxRetryAfter = test.limit }
		bubble(t, name, limited, func(t *testing.T, s *source, d *refresh.Document[string]) {
			s.set(&fetch.Error{Status: 503, RetryAfter: test.says, Err: errDown}, 0)
			require.Error(t, d.Ready(background))
			time.Sleep(test.want*9/10 - tick)
			assert.Equal(t, 1, s.count())
			time.Sleep(test.want/10 + 2*tick)
			assert.Equal(t, 2, s.count())
		})
	}
}

func TestWait(t *testing.T) {
	bubble(t, "a caller waits 2 s at most, and the fetch goes on", nil, func(t *testing.T, s *source, d *refresh.Document[string]) {
		s.set(nil, 3*time.Second)
		assert.Equal(t, 2*time.Second, took(func() { assert.Nil(t, d.Renew(background, nil)) }))
		assert.ErrorContains(t, d.Unavailable(), "no answer yet")
		assert.Equal(t, time.Second, took(func() { assert.NotNil(t, d.Renew(background, nil)) }))
		assert.Equal(t, 1, s.count())
	})
	bubble(t, "a caller that leaves does not end the fetch", nil, func(t *testing.T, s *source, d *refresh.Document[string]) {
		s.set(nil, time.Second)
		ctx, cancel := context.WithTimeout(background, tick)
		defer cancel()
		assert.Nil(t, d.Renew(ctx, nil))
		assert.ErrorIs(t, d.Ready(ctx), context.DeadlineExceeded)
		time.Sleep(time.Second)
		assert.NotNil(t, d.Load())
	})
	bubble(t, "all callers share one fetch, and those after the first 1024 do not wait", nil, func(t *testing.T, s *source, d *refresh.Document[string]) {
		s.set(nil, time.Second)
		var served atomic.Int64
		var callers sync.WaitGroup
		for range 2000 {
			callers.Go(func() {
				if d.Renew(background, nil) != nil {
					served.Add(1)
				}
			})
		}
		callers.Wait()
		assert.Equal(t, 1, s.count())
		assert.EqualValues(t, 1024, served.Load())
	})
	bubble(t, "no lock is held during a fetch", nil, func(t *testing.T, s *source, d *refresh.Document[string]) {
		s.set(nil, time.Second)
		go d.Renew(background, nil)
		synctest.Wait()
		assert.Zero(t, took(func() { d.Status(); d.Use(); assert.Nil(t, d.Load()); assert.Error(t, d.Unavailable()) }))
	})
	bubble(t, "a fetch that hangs ends after 20 s", nil, func(t *testing.T, s *source, d *refresh.Document[string]) {
		s.set(nil, time.Hour)
		assert.Equal(t, 20*time.Second, took(func() { assert.ErrorIs(t, d.Ready(background), context.DeadlineExceeded) }))
	})
	bubble(t, "a caller whose snapshot was replaced meanwhile gets the new one at once", nil, func(t *testing.T, s *source, d *refresh.Document[string]) {
		assert.NotNil(t, d.Renew(background, nil))
		s.set(nil, time.Hour)
		assert.Zero(t, took(func() { assert.NotNil(t, d.Renew(background, nil)) }))
		assert.Equal(t, 1, s.count())
	})
	for spare := range 3 {
		interval := func(c *refresh.Config[string]) { c.MinRefetchInterval, c.Spare = 30*time.Second, spare }
		bubble(t, "callers cause one fetch per interval, and each spare one once", interval, func(t *testing.T, s *source, d *refresh.Document[string]) {
			require.NoError(t, d.Ready(background))
			for range 100 {
				d.Renew(background, d.Load())
			}
			assert.Equal(t, 1+spare, s.count())
			for range 100 {
				time.Sleep(time.Second)
				d.Renew(background, d.Load())
			}
			assert.Equal(t, 1+spare+3, s.count())
		})
	}
}

func TestAllow(t *testing.T) {
	asked := 0
	third := func(c *refresh.Config[string]) {
		c.Allow = func() bool { asked++; return asked == 3 }
	}
	bubble(t, "a caller causes a fetch only if Allow permits it, and Allow is asked only before one", third, func(t *testing.T, s *source, d *refresh.Document[string]) {
		for range 2 {
			assert.Nil(t, d.Renew(background, nil))
			assert.Zero(t, s.count())
		}
		assert.NotNil(t, d.Renew(background, nil))
		assert.Equal(t, 1, s.count())
		assert.NotNil(t, d.Renew(background, nil), "one is held")
		assert.Equal(t, 3, asked)
		time.Sleep(9 * time.Minute)
		synctest.Wait()
		assert.Equal(t, 2, s.count(), "timers do not ask")
		assert.Equal(t, 3, asked)
	})
}

func TestLifetime(t *testing.T) {
	bubble(t, "it is fetched ahead, after 1/2 to 4/5 of its lifetime", nil, func(t *testing.T, s *source, d *refresh.Document[string]) {
		require.NoError(t, d.Ready(background))
		time.Sleep(24 * time.Hour)
		is(t, d, valetkey.Ready)
		for i := range s.count() - 1 {
			age := s.fetches[i+1].Sub(s.fetches[i])
			assert.GreaterOrEqual(t, age, 5*time.Minute)
			assert.LessOrEqual(t, age, 8*time.Minute)
		}
	})
	bubble(t, "it is used while fetches fail, up to the limit, and then discarded until one succeeds", nil, func(t *testing.T, s *source, d *refresh.Document[string]) {
		require.NoError(t, d.Ready(background))
		s.set(errDown, 0)
		time.Sleep(10*time.Minute - tick)
		is(t, d, valetkey.Degraded)
		time.Sleep(time.Hour)
		is(t, d, valetkey.Degraded)
		assert.False(t, d.Status().Fresh)
		assert.NotContains(t, s.logged(), "too old")
		time.Sleep(tick)
		is(t, d, valetkey.Down)
		assert.Equal(t, 1, strings.Count(s.logged(), `level=ERROR msg="document: too old, discarded" age=1h10m0s`), s.logged())
		assert.ErrorIs(t, d.Status().Health.Err, errDown)
		s.set(nil, 0)
		time.Sleep(time.Minute)
		is(t, d, valetkey.Ready)
	})
	bubble(t, "a success ends the backoff", nil, func(t *testing.T, s *source, d *refresh.Document[string]) {
		s.set(errDown, 0)
		require.Error(t, d.Ready(background))
		time.Sleep(5 * time.Minute)
		s.set(nil, 0)
		time.Sleep(time.Minute)
		is(t, d, valetkey.Ready)
		s.set(errDown, 0)
		d.Renew(background, d.Load())
		before := s.count()
		time.Sleep(time.Second)
		synctest.Wait()
		assert.Equal(t, before+1, s.count())
	})
	bubble(t, "an error that withdraws it discards it at once", nil, func(t *testing.T, s *source, d *refresh.Document[string]) {
		require.NoError(t, d.Ready(background))
		s.set(errWithdrawn, 0)
		assert.Nil(t, d.Renew(background, d.Load()))
		is(t, d, valetkey.Down)
		assert.Contains(t, s.logged(), "document: withdrawn by its publisher")
	})
	bubble(t, "it ends at an earlier instant that the fetch names", nil, func(t *testing.T, s *source, d *refresh.Document[string]) {
		s.answer.Until = time.Now().Add(2 * time.Minute)
		require.NoError(t, d.Ready(background))
		time.Sleep(2*time.Minute - tick)
		is(t, d, valetkey.Ready)
		time.Sleep(tick)
		is(t, d, valetkey.Down)
		s.set(nil, 3*time.Second)
		assert.Nil(t, d.Renew(background, nil))
		var u *valetkey.Unavailable
		require.ErrorAs(t, d.Unavailable(), &u)
		assert.Equal(t, time.Second, u.RetryAfter, "a fetch is in progress, whatever was planned before")
	})
	bubble(t, "unused, it ends with its lifetime, without a fetch or a log line", whileUsed, func(t *testing.T, s *source, d *refresh.Document[string]) {
		require.NoError(t, d.Ready(background))
		time.Sleep(10*time.Minute - tick)
		is(t, d, valetkey.Ready)
		time.Sleep(tick)
		is(t, d, valetkey.Down)
		time.Sleep(24 * time.Hour)
		assert.Equal(t, 1, s.count())
		assert.Empty(t, s.logged())
		assert.NoError(t, d.Ready(background))
	})
	bubble(t, "unused, it is used again once a fetch has failed, up to the limit", whileUsed, func(t *testing.T, s *source, d *refresh.Document[string]) {
		require.NoError(t, d.Ready(background))
		time.Sleep(20 * time.Minute)
		is(t, d, valetkey.Down)
		s.set(errDown, time.Second)
		assert.Equal(t, time.Second, took(func() { assert.NotNil(t, d.Renew(background, nil)) }))
		is(t, d, valetkey.Degraded)
		time.Sleep(50*time.Minute - time.Second - tick)
		is(t, d, valetkey.Degraded)
		time.Sleep(tick)
		is(t, d, valetkey.Down)
		time.Sleep(time.Hour)
		assert.Nil(t, d.Renew(background, nil))
	})
	bubble(t, "unused, it is not used again after the limit, and not after a fetch that withdraws it", whileUsed, func(t *testing.T, s *source, d *refresh.Document[string]) {
		require.NoError(t, d.Ready(background))
		time.Sleep(70 * time.Minute)
		s.set(errDown, 0)
		assert.Nil(t, d.Renew(background, nil))
		s.set(nil, 0)
		time.Sleep(time.Minute)
		require.NoError(t, d.Ready(background))
		time.Sleep(20 * time.Minute)
		s.set(errWithdrawn, 0)
		assert.Nil(t, d.Renew(background, nil))
		s.set(errDown, 0)
		time.Sleep(time.Minute)
		assert.Nil(t, d.Renew(background, nil))
	})
	bubble(t, "used since its last fetch, it is fetched ahead", whileUsed, func(t *testing.T, s *source, d *refresh.Document[string]) {
		require.NoError(t, d.Ready(background))
		for range 100 {
			d.Use()
			time.Sleep(time.Minute)
			is(t, d, valetkey.Ready)
		}
		before := s.count()
		assert.GreaterOrEqual(t, before, 100/8)
		time.Sleep(24 * time.Hour)
		assert.LessOrEqual(t, s.count(), before+1, "once more than needed")
		is(t, d, valetkey.Down)
	})
	bubble(t, "used, it is kept while a fetch hangs", whileUsed, func(t *testing.T, s *source, d *refresh.Document[string]) {
		s.answer.Fresh = 10 * time.Second
		require.NoError(t, d.Ready(background))
		d.Use()
		s.set(nil, 6*time.Second) // the refresh begins after 5 to 8 s and ends after 11 to 14 s
		time.Sleep(10*time.Second + tick)
		is(t, d, valetkey.Degraded)
		assert.ErrorContains(t, d.Status().Health.Err, "no answer has come yet")
	})
	bubble(t, "used, it is kept while fetches fail", whileUsed, func(t *testing.T, s *source, d *refresh.Document[string]) {
		require.NoError(t, d.Ready(background))
		d.Use()
		s.set(errDown, 0)
		time.Sleep(70*time.Minute - tick)
		is(t, d, valetkey.Degraded)
		time.Sleep(tick)
		is(t, d, valetkey.Down)
		before := s.count()
		assert.Greater(t, before, 60, "the timer retries without further use")
		time.Sleep(24 * time.Hour)
		assert.Equal(t, before, s.count(), "the timers end with it")
	})
	t.Run("Replace sees each change, also of a snapshot that is discarded while a fetch is in progress", func(t *testing.T) {
		type change [2]bool // whether held and next are there
		var changes []change
		replace := func(c *refresh.Config[string]) {
			c.StaleIfError = 0
			c.Replace = func(held, next *string) { changes = append(changes, change{held != nil, next != nil}) }
		}
		bubble(t, "replace", replace, func(t *testing.T, s *source, d *refresh.Document[string]) {
			s.answer.Fresh = 10 * time.Second
			require.NoError(t, d.Ready(background))
			s.set(nil, 6*time.Second) // the refresh begins after 5 to 8 s and ends after 11 to 14 s
			time.Sleep(14500 * tick)
			is(t, d, valetkey.Ready)
		})
		assert.Equal(t, []change{{false, true}, {true, false}, {false, true}, {true, false}}, changes)
	})
}

func TestClose(t *testing.T) {
	bubble(t, "it returns the waiters, ends the fetch and leaves no timer", nil, func(t *testing.T, s *source, d *refresh.Document[string]) {
		require.NoError(t, d.Ready(background))
		held := d.Load()
		s.set(nil, time.Hour)
		var waiter sync.WaitGroup
		waiter.Go(func() { assert.Nil(t, d.Renew(background, held)) })
		synctest.Wait()
		assert.Zero(t, took(func() { d.Close(); assert.Equal(t, 2, s.ended); waiter.Wait() }))
		is(t, d, valetkey.Down)
		assert.ErrorContains(t, d.Ready(background), "no document: closed")
		time.Sleep(24 * time.Hour)
		assert.Equal(t, 2, s.count())
		d.Close()
	})
	t.Run("a static document is ready until then", func(t *testing.T) {
		replaced := 0
		value := "static"
		d := refresh.Static(&value, func(held, next *string) {
			assert.Same(t, &value, held)
			assert.Nil(t, next)
			replaced++
		})
		assert.Equal(t, &value, d.Renew(background, &value))
		assert.True(t, d.Status().Fresh)
		assert.Equal(t, valetkey.Ready, d.Status().Health.State)
		d.Close()
		assert.Nil(t, d.Load())
		assert.Equal(t, valetkey.Down, d.Status().Health.State)
		assert.Equal(t, 1, replaced)
	})
}
