package signals_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/signals"
)

// A stateStore is a store that replicas share, and that can be down.
type stateStore struct {
	mu    sync.Mutex
	text  []byte
	down  bool
	blind bool          // it can be written, and not read
	full  bool          // it can be read, and not written
	wait  time.Duration // of Load
	saves int
	saved func() // called at the end of the first Save
}

func (s *stateStore) Load(context.Context) ([]byte, error) {
	time.Sleep(s.wait)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down || s.blind {
		return nil, errors.New("the store is down")
	}
	return s.text, nil
}

func (s *stateStore) Save(_ context.Context, text []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down || s.full {
		return errors.New("the store is down")
	}
	s.text, s.saves = text, s.saves+1
	if s.saved != nil {
		s.saved()
		s.saved = nil
	}
	return nil
}

// count returns the number of saves.
func (s *stateStore) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.saves
}

func (s *stateStore) put(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text = []byte(text)
}

func (s *stateStore) members(t *testing.T) (m M) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	require.NoError(t, json.Unmarshal(s.text, &m))
	return m
}

// sharing is the configuration of replicas whose transmitter pushes.
func sharing(tr *transmitter, store signals.StateStore, s *sink, changes ...func(*signals.Config)) signals.Config {
	return tr.config(append([]func(*signals.Config){managed(signals.Push), func(cfg *signals.Config) {
		cfg.State, cfg.Guards = store, []signals.Guard{s}
	}}, changes...)...)
}

// answering makes the transmitter answer each verification request with a push to a receiver.
func (tr *transmitter) answering(to func() *signals.Receiver) {
	tr.with(func() {
		tr.onVerify = func(body M) int {
			set := tr.set(claim("sub_id", opaque("stream-1")), event(verification, M{"state": body["state"]}))
			go pushed(to(), set)
			return 204
		}
	})
}

func TestSharedState(t *testing.T) {
	t.Run("what one replica receives proves to the other one that the stream delivers", func(t *testing.T) {
		for name, shared := range map[string]bool{"with a store": true, "without": false} {
			synctest.Test(t, func(t *testing.T) {
				tr := newTransmitterInMemory(t)
				var first *signals.Receiver
				tr.answering(func() *signals.Receiver { return first }) // all pushes reach the first
				var store signals.StateStore
				if shared {
					store = &stateStore{}
				}
				first = newReceiver(t, sharing(tr, store, &sink{}))
				stopFirst := run(t, first)
				time.Sleep(time.Second)
				second := newReceiver(t, sharing(tr, store, &sink{}))
				stopSecond := run(t, second)
				for range 40 {
					time.Sleep(3 * time.Minute)
					assert.NoError(t, health(first).Err, name)
					if shared {
						assert.Equal(t, valetkey.Ready, health(second).State, name)
					}
				}
				if !shared {
					assert.Equal(t, valetkey.Degraded, health(second).State, name)
				} else {
					assert.WithinDuration(t, time.Now(), second.Status().LastProof, 10*time.Minute)
				}
				stopFirst()
				stopSecond()
				first.Close()
				second.Close()
				tr.close()
			})
		}
	})
	for _, c := range []struct {
		down time.Duration // of both replicas
		gap  bool
	}{{10 * time.Minute, false}, {2 * time.Hour, true}} {
		t.Run(fmt.Sprintf("a replica that starts after one has stopped for %v knows the proof and whether there is a gap", c.down), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr, store := newTransmitterInMemory(t), &stateStore{}
				var first *signals.Receiver
				tr.answering(func() *signals.Receiver { return first })
				first = newReceiver(t, sharing(tr, store, &sink{}))
				stop := run(t, first)
				time.Sleep(time.Second)
				proof := first.Status().LastProof
				require.False(t, proof.IsZero())
				stop()
				first.Close()

				time.Sleep(c.down)
				s := &sink{}
				second := newReceiver(t, sharing(tr, store, s, func(cfg *signals.Config) {
					cfg.RequireProof, cfg.Gaps = true, signals.RevokeBeforeGaps
				}))
				tr.with(func() { tr.onVerify = nil })
				stop = run(t, second)
				time.Sleep(time.Second)
				assert.True(t, proof.Equal(second.Status().LastProof), "it is that of the first")
				assert.NoError(t, health(second).Err)
				require.Equal(t, 202, pushed(second, tr.set(event(verification, M{}))))
				time.Sleep(2 * time.Second)
				assert.Equal(t, c.gap, len(s.what()) > 0, "%v", second.Status().Gap)
				assert.Len(t, tr.streams, 1)
				stop()
				second.Close()
				tr.close()
			})
		})
	}
	now := func(d time.Duration) string { return time.Now().Add(d).Format(time.RFC3339) }
	for name, c := range map[string]struct {
		text func(transmitter string) string
		gap  string // reason; empty: there is none
		kept []string
	}{
		"a state that is not JSON":             {func(string) string { return "stat" }, "the saved state cannot be read", nil},
		"a state that was cut off":             {func(tr string) string { return `{"transmitter":"` + tr + `","contact":"2000` }, "the saved state cannot be read", nil},
		"a state with members of another type": {func(tr string) string { return `{"transmitter":"` + tr + `","contact":5}` }, "the saved state cannot be read", nil},
		"an array":                             {func(string) string { return `[]` }, "the saved state cannot be read", nil},
		"an empty text":                        {func(string) string { return `` }, "the saved state cannot be read", nil},
		"null":                                 {func(string) string { return `null` }, "there is no record of an earlier contact", nil},
		"the state of another transmitter": {func(string) string {
			return `{"transmitter":"https://other.example.com","stream_id":"x","contact":"` + now(0) + `","epoch":7}`
		}, "there is no record of an earlier contact", nil},
		"a state from the future": {func(tr string) string {
			return `{"transmitter":"` + tr + `","stream_id":"stream-1","contact":"` + now(time.Hour) + `","proof":"` + now(time.Hour) + `"}`
		}, "in the future", nil},
		"a state from the future within the leeway": {func(tr string) string {
			return `{"transmitter":"` + tr + `","stream_id":"stream-1","contact":"` + now(time.Minute) + `","proof":"` + now(time.Minute) + `"}`
		}, "", nil},
		"a state that a newer version has written": {func(tr string) string {
			return `{"epoch":7,"transmitter":"` + tr + `","stream_id":"stream-1","contact":"` + now(-time.Minute) + `","proof":"` + now(-time.Minute) + `","region":{"a":[1]}}`
		}, "", []string{"epoch", "region"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr, store, s := newTransmitterInMemory(t), &stateStore{}, &sink{}
				tr.streams = []M{tr.stream("stream-1", M{"method": "urn:ietf:rfc:8935", "endpoint_url": endpoint}, []signals.Event{signals.SessionRevoked})}
				var r *signals.Receiver
				tr.answering(func() *signals.Receiver { return r })
				store.put(c.text(tr.URL))
				r = newReceiver(t, sharing(tr, store, s, func(cfg *signals.Config) { cfg.Gaps = signals.RevokeBeforeGaps }))
				stop := run(t, r)
				time.Sleep(3 * time.Second)
				assert.NoError(t, health(r).Err, "it works")
				if c.gap == "" {
					assert.Empty(t, s.what())
				} else {
					assert.Contains(t, r.Status().Gap.Reason, c.gap)
					assert.Equal(t, []string{"all"}, s.what())
				}
				saved := store.members(t)
				assert.Equal(t, tr.URL, saved["transmitter"])
				assert.Equal(t, "stream-1", saved["stream_id"])
				for _, member := range []string{"contact", "proof"} {
					at, err := time.Parse(time.RFC3339, saved[member].(string))
					require.NoError(t, err)
					assert.WithinDuration(t, time.Now(), at, time.Minute+5*time.Second, member)
				}
				for _, member := range []string{"epoch", "region"} {
					if c.kept != nil {
						assert.Contains(t, saved, member, "for the newer replicas")
					} else {
						assert.NotContains(t, saved, member)
					}
				}
				stop()
				r.Close()
				tr.close()
			})
		})
	}
	t.Run("a store that is down at the start is not overwritten, and what it has is learned later", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tr, store := newTransmitterInMemory(t), &stateStore{down: true}
			other := time.Now().Add(30 * time.Second).Truncate(time.Second)
			store.put(`{"transmitter":"` + tr.URL + `","stream_id":"stream-1","contact":"` + other.Format(time.RFC3339) + `","proof":"` + other.Format(time.RFC3339) + `"}`)
			r := newReceiver(t, sharing(tr, store, &sink{}))
			stop := run(t, r)
			time.Sleep(time.Second)
			require.Equal(t, 202, pushed(r, tr.set(event(verification, M{}))))
			time.Sleep(10 * time.Second)
			assert.NoError(t, health(r).Err, "signals arrive all the same")
			store.mu.Lock()
			assert.Zero(t, store.saves)
			store.down = false
			store.mu.Unlock()
			time.Sleep(2 * time.Second)
			assert.True(t, other.Equal(r.Status().LastProof), "the later one of another replica")
			stop()
			r.Close()
			tr.close()
		})
	})
	t.Run("FileState", func(t *testing.T) {
		dir := t.TempDir()
		file := signals.FileState(filepath.Join(dir, "state"))
		text, err := file.Load(t.Context())
		require.NoError(t, err)
		assert.Nil(t, text, "there is none yet")
		require.NoError(t, file.Save(t.Context(), []byte("{}")))
		require.NoError(t, file.Save(t.Context(), []byte("[]")))
		text, err = file.Load(t.Context())
		require.NoError(t, err)
		assert.Equal(t, "[]", string(text))
		left, err := os.ReadDir(dir)
		require.NoError(t, err)
		assert.Len(t, left, 1, "no temporary file is left")
		missing := signals.FileState(filepath.Join(dir, "none", "state"))
		assert.Error(t, missing.Save(t.Context(), []byte("{}")))
		_, err = signals.FileState(dir).Load(t.Context())
		assert.Error(t, err)
	})
}
