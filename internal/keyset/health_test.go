package keyset_test

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/keyset"
)

func TestHealth(t *testing.T) {
	// is checks the state of s and how long it has been in it.
	is := func(t *testing.T, s *keyset.Set, state valetkey.State, since time.Duration, why string) {
		t.Helper()
		h := s.Health()
		assert.Equal(t, state, h.State)
		assert.Equal(t, since, time.Since(h.Since))
		if why == "" {
			assert.NoError(t, h.Err)
		} else {
			assert.ErrorContains(t, h.Err, why)
		}
	}
	const tick = time.Millisecond

	bubble(t, "an unused set is down since its construction", func(t *testing.T) {
		i := &issuer{}
		s := i.open(t)
		time.Sleep(time.Hour)
		is(t, s, valetkey.Down, time.Hour, "nothing has been fetched yet")
		assert.Zero(t, i.count(), "Health does no I/O")
	})
	bubble(t, "a set whose issuer never answered stays down, with the reason, until it does", func(t *testing.T) {
		k := key(t, "ES256", "a")
		i := &issuer{}
		s := i.open(t)
		time.Sleep(time.Minute)
		requireUnavailable(t, s.Ready(background))
		is(t, s, valetkey.Down, time.Minute, "connection refused")
		i.serves(text(500, ""))
		time.Sleep(time.Second)
		synctest.Wait()
		is(t, s, valetkey.Down, time.Minute+time.Second, "status 500")
		i.serves(keys(k))
		time.Sleep(time.Minute)
		requireKey(t, s, k)
		assert.Equal(t, valetkey.Ready, s.Health().State)
	})
	bubble(t, "ready, degraded once a fetch fails, down once the keys are given up, ready again", func(t *testing.T) {
		k := key(t, "ES256", "a")
		i := &issuer{answer: keys(k)}
		s := i.open(t, func(c *keyset.Config) { c.RefreshInterval = 10 * time.Minute; c.StaleIfError = time.Hour })
		requireKey(t, s, k)
		time.Sleep(30 * time.Minute)
		synctest.Wait()
		is(t, s, valetkey.Ready, 30*time.Minute, "") // over several refreshes

		last := s.Status().LastFetch
		i.serves(nil)
		for s.Health().State == valetkey.Ready {
			time.Sleep(tick)
		}
		failed := s.Health().Since
		is(t, s, valetkey.Degraded, time.Since(failed), "connection refused")
		time.Sleep(20 * time.Minute)
		requireKey(t, s, k)
		assert.Equal(t, failed, s.Health().Since, "neither another failure nor age makes it another state")

		end := last.Add(10*time.Minute + time.Hour)
		time.Sleep(time.Until(end) - tick)
		assert.Equal(t, valetkey.Degraded, s.Health().State)
		time.Sleep(tick)
		synctest.Wait()
		is(t, s, valetkey.Down, 0, "connection refused")
		time.Sleep(10 * time.Minute)
		assert.Equal(t, end, s.Health().Since)

		i.serves(keys(k))
		time.Sleep(time.Minute)
		synctest.Wait()
		assert.Equal(t, valetkey.Ready, s.Health().State)
	})
	bubble(t, "a set past its age while a fetch hangs is degraded since that age", func(t *testing.T) {
		k := key(t, "ES256", "a")
		i := &issuer{answer: keys(k)}
		s := i.open(t, func(c *keyset.Config) { c.RefreshInterval = 5 * time.Second })
		requireKey(t, s, k)
		i.slow(4 * time.Second)
		time.Sleep(5*time.Second - tick) // the refresh began after 2.5 to 4 s, and hangs until 6.5 at least
		is(t, s, valetkey.Ready, 5*time.Second-tick, "")
		time.Sleep(2 * tick)
		is(t, s, valetkey.Degraded, tick, "older than it should be")
		waited := took(func() {
			for s.Health().State != valetkey.Ready {
				time.Sleep(tick)
			}
		})
		assert.Less(t, waited, 3*time.Second+2*tick)
		assert.LessOrEqual(t, time.Since(s.Health().Since), tick, "it had not been ready all the time")
	})
	bubble(t, "static keys are ready, and a closed set is down", func(t *testing.T) {
		s := keyset.Static(key(t, "ES256", "a").Public())
		time.Sleep(24 * time.Hour)
		is(t, s, valetkey.Ready, 24*time.Hour, "")
		s.Close()
		time.Sleep(time.Second)
		s.Close()
		is(t, s, valetkey.Down, time.Second, "closed")
	})
}

// seen notes events.
type seen struct {
	mu     sync.Mutex
	events []valetkey.Event
}

func (s *seen) Observe(_ context.Context, e valetkey.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, e)
}

func (s *seen) last() valetkey.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.events[len(s.events)-1]
}

func TestObserver(t *testing.T) {
	const site = "https://as.example"
	observe := func(o *seen) func(*keyset.Config) {
		return func(c *keyset.Config) { c.Issuer, c.Observer = site, o }
	}
	for name, test := range map[string]struct {
		answer http.HandlerFunc
		status int
		err    string
	}{
		"refused connections":    {nil, 0, "connection refused"},
		"500":                    {text(500, ""), 500, "status 500"},
		"HTML with 200":          {text(200, "<html>"), 200, "not a JSON object"},
		"a set without any keys": {text(200, `{"keys":[]}`), 200, "no usable key"},
		"a good set":             {keys(key(t, "ES256", "a")), 200, ""},
	} {
		bubble(t, "one event reports "+name, func(t *testing.T) {
			var o seen
			s := (&issuer{answer: test.answer, delay: time.Second}).open(t, observe(&o))
			err := s.Ready(background)
			synctest.Wait()
			assert.Equal(t, test.err == "", err == nil)
			if assert.Len(t, o.events, 1) {
				e := o.events[0]
				assert.Equal(t, valetkey.Event{
					Kind: valetkey.KeySetRefreshed, Issuer: site, Status: test.status, Duration: time.Second, Err: e.Err,
				}, e)
				assert.Equal(t, test.err == "", e.Err == nil)
				if test.err != "" {
					assert.ErrorContains(t, e.Err, test.err)
				}
			}
		})
	}
	bubble(t, "each refresh is one event, and one that changed nothing has 304", func(t *testing.T) {
		var o seen
		k := key(t, "ES256", "a")
		i := &issuer{answer: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("ETag", `"1"`)
			if r.Header.Get("If-None-Match") != "" {
				w.WriteHeader(http.StatusNotModified)
				return
			}
			keys(k)(w, r)
		}}
		s := i.open(t, observe(&o))
		requireKey(t, s, k)
		time.Sleep(time.Hour)
		synctest.Wait()
		assert.Len(t, o.events, i.count())
		assert.Equal(t, http.StatusNotModified, o.last().Status)
		assert.NoError(t, o.last().Err)
	})
	bubble(t, "an issuer without metadata is reported", func(t *testing.T) {
		for status, answer := range map[int]http.HandlerFunc{
			404: text(404, ""), 200: text(200, fmt.Sprintf(`{"issuer":%q}`, site)),
		} {
			var o seen
			s := (&issuer{answer: answer}).open(t, observe(&o), func(c *keyset.Config) { c.JWKSURL = "" })
			requireUnavailable(t, s.Ready(background))
			synctest.Wait()
			assert.Equal(t, status, o.last().Status)
			assert.Error(t, o.last().Err)
		}
	})
	bubble(t, "a fetch that Close cuts off is none", func(t *testing.T) {
		var o seen
		s := (&issuer{delay: time.Hour}).open(t, observe(&o))
		go s.Ready(background)
		synctest.Wait()
		s.Close()
		synctest.Wait()
		assert.Empty(t, o.events)
	})
}
