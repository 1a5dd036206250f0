package introspect_test

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/introspect"
	"github.com/valetkey/valetkey/valetkeytest"
)

var _ valetkey.HealthReporter = (*introspect.Verifier)(nil)

func TestHealth(t *testing.T) {
	// is checks the one health of v, and that it has come into its state so long ago.
	is := func(t *testing.T, v *introspect.Verifier, state valetkey.State, ago time.Duration, reason string) {
		t.Helper()
		all := v.Health()
		require.Len(t, all, 1)
		assert.Equal(t, state, all[0].State)
		assert.Equal(t, ago, time.Since(all[0].Since))
		if reason == "" {
			assert.NoError(t, all[0].Err)
		} else {
			assert.ErrorContains(t, all[0].Err, reason)
		}
	}
	in := func(name string, test func(t *testing.T, iss *valetkeytest.Issuer, v *introspect.Verifier)) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				iss := valetkeytest.NewIssuer(t, valetkeytest.InMemory())
				test(t, iss, verifierOf(t, iss))
			})
		})
	}
	in("down while the endpoint is not asked, degraded before, ready again", func(t *testing.T, iss *valetkeytest.Issuer, v *introspect.Verifier) {
		time.Sleep(time.Minute)
		is(t, v, valetkey.Ready, time.Minute, "")
		assert.Equal(t, iss.URL, v.Health()[0].Name)
		iss.Introspection.Fail(500)
		for n := range 5 {
			_, err := v.Verify(t.Context(), iss.Opaque())
			failed(t, err)
			if n < 4 {
				is(t, v, valetkey.Degraded, time.Duration(n)*time.Second, "status 500")
				time.Sleep(time.Second)
			}
		}
		is(t, v, valetkey.Down, 0, "status 500")
		time.Sleep(time.Minute)
		is(t, v, valetkey.Down, time.Minute, "status 500")
		_, err := v.Verify(t.Context(), iss.Opaque()) // a probe
		failed(t, err)
		is(t, v, valetkey.Down, time.Minute, "status 500")
		iss.Introspection.Restore()
		time.Sleep(time.Minute)
		_, err = v.Verify(t.Context(), iss.Opaque())
		require.NoError(t, err)
		is(t, v, valetkey.Ready, 0, "")
		v.Close()
		is(t, v, valetkey.Down, 0, "closed")
	})
	in("down while patience is asked for, then degraded by time alone", func(t *testing.T, iss *valetkeytest.Issuer, v *introspect.Verifier) {
		iss.Introspection.Fail(503, "Retry-After: 7").Times(1)
		_, err := v.Verify(t.Context(), iss.Opaque())
		failed(t, err)
		time.Sleep(7*time.Second - 1)
		is(t, v, valetkey.Down, 7*time.Second-1, "status 503")
		time.Sleep(3*time.Second + 1)
		is(t, v, valetkey.Degraded, 3*time.Second, "status 503")
		iss.Introspection.Fail(500)
		_, err = v.Verify(t.Context(), iss.Opaque())
		failed(t, err)
		is(t, v, valetkey.Degraded, 3*time.Second, "status 500")
		iss.Introspection.Restore()
		_, err = v.Verify(t.Context(), "made-up")
		refused(t, err, "the token is not active")
		is(t, v, valetkey.Ready, 0, "")
	})
	in("INTRO-16 down while our credentials are refused", func(t *testing.T, iss *valetkeytest.Issuer, v *introspect.Verifier) {
		for _, status := range []int{401, 403} {
			iss.Introspection.Fail(status)
			_, err := v.Verify(t.Context(), iss.Opaque())
			failed(t, err)
			is(t, v, valetkey.Down, 0, "status 40")
		}
		iss.Introspection.Restore()
		require.NoError(t, v.Ready(t.Context()))
		is(t, v, valetkey.Ready, 0, "")
	})
	in("not down by one token that upsets the endpoint", func(t *testing.T, iss *valetkeytest.Issuer, v *introspect.Verifier) {
		iss.Introspection.Fail(400)
		for range 20 {
			_, err := v.Verify(t.Context(), "upsetting")
			failed(t, err)
		}
		is(t, v, valetkey.Degraded, 0, "status 400")
	})
	in("degraded by an unreadable answer", func(t *testing.T, iss *valetkeytest.Issuer, v *introspect.Verifier) {
		iss.Introspection.Empty()
		_, err := v.Verify(t.Context(), iss.Opaque())
		failed(t, err)
		is(t, v, valetkey.Degraded, 0, "no active")
		require.Error(t, v.Ready(t.Context()))
	})
	in("without an issuer its name is the URL", func(t *testing.T, iss *valetkeytest.Issuer, _ *introspect.Verifier) {
		v := verifierOf(t, iss, func(c *introspect.Config) { c.Issuer, c.URL = "", c.URL+"?tenant=secret" })
		assert.Equal(t, iss.Introspection.URL, v.Health()[0].Name)
	})
	in("First and CrossCheck report it", func(t *testing.T, iss *valetkeytest.Issuer, v *introspect.Verifier) {
		both := valetkey.First(v, valetkey.CrossCheck(verifierOf(t, iss), v)).(valetkey.HealthReporter)
		require.NoError(t, both.Ready(t.Context()))
		assert.Len(t, both.Health(), 3)
	})
}

// A watcher keeps what it observes.
type watcher struct {
	mu     sync.Mutex
	events []valetkey.Event
}

func (w *watcher) Observe(_ context.Context, e valetkey.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events = append(w.events, e)
}

func TestObserver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		iss := valetkeytest.NewIssuer(t, valetkeytest.InMemory())
		var w watcher
		m := newMemory()
		v := verifierOf(t, iss, with(m), func(c *introspect.Config) { c.Observer = &w })
		// saw returns the one event of what do does.
		saw := func(do func()) valetkey.Event {
			t.Helper()
			w.events = nil
			do()
			synctest.Wait()
			require.Len(t, w.events, 1)
			e := w.events[0]
			assert.Equal(t, valetkey.IssuerAsked, e.Kind)
			return e
		}
		verify := func(v *introspect.Verifier, token string) func() {
			return func() { v.Verify(t.Context(), token) }
		}
		iss.Introspection.Slow(time.Second)
		token := iss.Opaque()
		good := valetkey.Event{Kind: valetkey.IssuerAsked, Issuer: iss.URL, Status: 200, Duration: time.Second}
		assert.Equal(t, good, saw(verify(v, token)))
		assert.Equal(t, good, saw(verify(v, "made-up")), "a refusal is an answer")
		assert.Equal(t, good, saw(func() {
			for range 10 {
				go v.Verify(t.Context(), "another")
			}
			time.Sleep(time.Second)
		}), "one call is one event")
		w.events = nil
		v.Verify(t.Context(), token)
		v.Verify(t.Context(), "made-up")
		synctest.Wait()
		assert.Empty(t, w.events, "the endpoint was not asked")

		iss.Introspection.Slow(0)
		iss.Introspection.Fail(500)
		e := saw(verify(v, iss.Opaque()))
		assert.Equal(t, 500, e.Status)
		assert.ErrorContains(t, e.Err, "status 500")
		iss.Introspection.Garbage()
		assert.Error(t, saw(verify(v, iss.Opaque())).Err)
		iss.Introspection.Empty()
		e = saw(verify(v, iss.Opaque()))
		assert.Equal(t, 200, e.Status)
		assert.ErrorContains(t, e.Err, "no active")
		iss.Introspection.Down()
		e = saw(verify(v, iss.Opaque()))
		assert.Zero(t, e.Status)
		assert.Error(t, e.Err)
		iss.Introspection.Restore()

		nameless := verifierOf(t, iss, func(c *introspect.Config) { c.Observer, c.Issuer, c.Logger = &w, "", slog.New(slog.DiscardHandler) })
		assert.Equal(t, iss.Introspection.URL, "http://"+saw(verify(nameless, token)).Issuer+"/introspect")

		w.events = nil
		iss.Introspection.Slow(time.Minute)
		go v.Verify(t.Context(), iss.Opaque())
		synctest.Wait()
		v.Close()
		assert.Empty(t, w.events, "Close is not the issuer's failure")
	})
}
