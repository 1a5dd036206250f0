package signals_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
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

// polling returns a receiver that polls with a short interval, and where its revocations go.
func polling(tr *transmitter, s *sink, changes ...func(*signals.Config)) signals.Config {
	return tr.config(append([]func(*signals.Config){managed(signals.Poll), func(cfg *signals.Config) {
		cfg.Guards, cfg.PollInterval = []signals.Guard{s}, 10*time.Millisecond
	}}, changes...)...)
}

// send queues SETs that disable users of these names; the jti is the name.
func (tr *transmitter) send(subs ...string) {
	for _, sub := range subs {
		tr.enqueue(sub, tr.set(claim("jti", sub), claim("sub_id", user(tr.URL, sub))))
	}
}

// ackedNow returns the acknowledged jti, sorted.
func (tr *transmitter) ackedNow() []string {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return slices.Sorted(slices.Values(tr.acked))
}

func (tr *transmitter) failedNow() map[string]string {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	all := map[string]string{}
	for jti, err := range tr.failed {
		all[jti] = err
	}
	return all
}

func TestPoll(t *testing.T) {
	t.Run("SSF-39 applied events are acknowledged, and then not sent again", func(t *testing.T) {
		tr, s := newTransmitter(t), &sink{}
		tr.send("a", "b")
		r := newReceiver(t, polling(tr, s))
		run(t, r)
		eventually(t, "both are acknowledged", func() bool { return len(tr.ackedNow()) == 2 })
		assert.ElementsMatch(t, []string{"sub a", "sub b"}, s.what())
		eventually(t, "it has caught up", isReady(r))
		tr.send("c")
		eventually(t, "the third too", func() bool { return slices.Equal([]string{"a", "b", "c"}, tr.ackedNow()) })
		assert.Len(t, s.what(), 3)
	})
	t.Run("SSF-39 an acknowledgment that did not arrive is sent again", func(t *testing.T) {
		tr, s := newTransmitter(t), &sink{}
		failed := false
		tr.pollFault = func(w http.ResponseWriter) bool {
			if len(tr.polls) < 2 || failed {
				return false
			}
			failed = true
			w.WriteHeader(500)
			return true
		}
		tr.send("a")
		r := newReceiver(t, polling(tr, s))
		run(t, r)
		eventually(t, "it is acknowledged", func() bool { return len(tr.ackedNow()) == 1 })
		assert.True(t, failed)
	})
	t.Run("SSF-39 the last acknowledgment is sent when the receiver stops", func(t *testing.T) {
		tr, s := newTransmitter(t), &sink{}
		tr.longPoll = true
		r := newReceiver(t, polling(tr, s))
		stop := run(t, r)
		eventually(t, "it waits", func() bool { tr.mu.Lock(); defer tr.mu.Unlock(); return len(tr.polls) == 2 })
		tr.with(func() {
			tr.pollFault = func(w http.ResponseWriter) bool { return tr.polls[len(tr.polls)-1]["maxEvents"] != 0.0 && hang(w) }
		})
		tr.send("a")
		eventually(t, "it is applied", func() bool { return r.Status().Outcomes["applied"] == 1 })
		stop()
		assert.Equal(t, []string{"a"}, tr.ackedNow())
	})
	t.Run("SSF-40 one bad SET of ten: nine are acknowledged, and one is reported", func(t *testing.T) {
		tr, s := newTransmitter(t), &sink{}
		tr.send("1", "2", "3", "4", "5", "6", "7", "8", "9")
		tr.enqueue("bad", tr.set(claim("jti", "bad"), claim("exp", 1)))
		run(t, newReceiver(t, polling(tr, s)))
		eventually(t, "all are answered", func() bool { return len(tr.ackedNow()) == 9 && len(tr.failedNow()) == 1 })
		assert.Equal(t, map[string]string{"bad": "invalid_request"}, tr.failedNow())
		assert.Len(t, s.what(), 9)
	})
	t.Run("SSF-40 the reasons are the codes", func(t *testing.T) {
		tr, s := newTransmitter(t), &sink{}
		tr.enqueue("key", tr.set(claim("jti", "key"), with(newKey(t, "ES256"))))
		tr.enqueue("iss", tr.set(claim("jti", "iss"), claim("iss", "https://other.example.com")))
		tr.enqueue("aud", tr.set(claim("jti", "aud"), claim("aud", "other")))
		tr.enqueue("state", tr.set(claim("jti", "state"), event(verification, M{"state": "x"})))
		run(t, newReceiver(t, polling(tr, s)))
		want := map[string]string{"key": "invalid_key", "iss": "invalid_issuer", "aud": "invalid_audience", "state": "invalid_state"}
		eventually(t, "all are answered", func() bool { return len(tr.failedNow()) == 4 })
		assert.Equal(t, want, tr.failedNow())
	})
	t.Run("SSF-41 events that cannot be applied now are neither acknowledged nor reported", func(t *testing.T) {
		tr, s, down := newTransmitter(t), &sink{}, &sink{err: errors.New("redis is down")}
		tr.send("a", "b")
		r := newReceiver(t, polling(tr, s, func(cfg *signals.Config) { cfg.Publish = down }))
		run(t, r)
		eventually(t, "it is tried", func() bool { return r.Status().Outcomes["failed"] >= 2 })
		eventually(t, "it is known", fails(r, "redis is down"))
		assert.Empty(t, tr.ackedNow())
		assert.Empty(t, tr.failedNow())
		assert.Equal(t, valetkey.Down, health(r).State)
		down.fail(nil)
		eventually(t, "then it is", func() bool { return len(tr.ackedNow()) == 2 })
		eventually(t, "it has caught up", isReady(r))
	})
	t.Run("SSF-41 one that cannot be published does not keep the others from it", func(t *testing.T) {
		tr, s := newTransmitter(t), &sink{}
		tr.send("a", "poison", "b")
		r := newReceiver(t, polling(tr, s, func(cfg *signals.Config) { cfg.Publish = picky{} }))
		run(t, r)
		eventually(t, "the others are acknowledged", func() bool { return slices.Equal(tr.ackedNow(), []string{"a", "b"}) })
		assert.Empty(t, tr.failedNow())
	})
	t.Run("SSF-42 a SET whose jti is another than its name is reported", func(t *testing.T) {
		tr, s := newTransmitter(t), &sink{}
		tr.enqueue("name", tr.set(claim("jti", "other")))
		run(t, newReceiver(t, polling(tr, s)))
		eventually(t, "it is reported", func() bool { return tr.failedNow()["name"] == "invalid_request" })
		assert.Empty(t, s.what())
	})
	t.Run("SSF-43 with moreAvailable it polls at once, without waiting for more", func(t *testing.T) {
		tr, s := newTransmitter(t), &sink{}
		tr.batch, tr.longPoll = 2, true
		tr.send("1", "2", "3", "4", "5")
		r := newReceiver(t, polling(tr, s, func(cfg *signals.Config) { cfg.PollInterval = time.Hour }))
		run(t, r)
		eventually(t, "all are acknowledged", func() bool { return len(tr.ackedNow()) == 5 })
		eventually(t, "then it waits", func() bool { tr.mu.Lock(); defer tr.mu.Unlock(); return len(tr.polls) == 4 })
		tr.mu.Lock()
		var immediate []any
		for _, p := range tr.polls {
			immediate = append(immediate, p["returnImmediately"])
		}
		tr.mu.Unlock()
		assert.Equal(t, []any{true, true, true, false}, immediate)
		assert.Equal(t, valetkey.Ready, health(r).State)
		tr.send("6")
		eventually(t, "the long poll returns it", func() bool { return slices.Contains(s.what(), "sub 6") })
	})
	t.Run("SSF-43 after a 503 it waits for Retry-After, and a little longer", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tr, s := newTransmitterInMemory(t), &sink{}
			var at []time.Time
			tr.pollFault = func(w http.ResponseWriter) bool {
				at = append(at, time.Now())
				if len(at) > 3 {
					return false
				}
				w.Header().Set("Retry-After", []string{"", "20", "86400", "0"}[len(at)])
				w.WriteHeader(503)
				return true
			}
			r := newReceiver(t, polling(tr, s, func(cfg *signals.Config) { cfg.PollInterval, cfg.VerifyInterval = time.Minute, -1 }))
			stop := run(t, r)
			time.Sleep(15 * time.Second)
			assert.ErrorContains(t, health(r).Err, "status 503")
			time.Sleep(15 * time.Minute)
			assert.NoError(t, healthErr(r))
			stop()
			r.Close()
			tr.close()
			tr.mu.Lock()
			defer tr.mu.Unlock()
			require.Greater(t, len(at), 3)
			for i, want := range []time.Duration{20 * time.Second, 5 * time.Minute, time.Second} {
				took := at[i+1].Sub(at[i])
				assert.GreaterOrEqual(t, took, want*8/10, "answer %d", i)
				assert.LessOrEqual(t, took, want*12/10+4*time.Second, "answer %d", i)
			}
		})
	})
	for _, c := range []struct {
		outage time.Duration
		polls  int // at most
		late   time.Duration
	}{
		{3 * time.Second, 4, time.Second},
		{time.Minute, 68, time.Second},
		{10 * time.Minute, 115, 68 * time.Second},
		{50 * time.Minute, 160, time.Minute},
	} {
		t.Run(fmt.Sprintf("SSF-43 events that waited while a transmitter was away for %v are applied soon after", c.outage), func(t *testing.T) {
			for name, fault := range map[string]func(w http.ResponseWriter) bool{
				"its proxy answers 502": func(w http.ResponseWriter) bool { w.WriteHeader(502); return true },
				"connections break": func(w http.ResponseWriter) bool {
					if c, _, err := http.NewResponseController(w).Hijack(); err == nil {
						c.Close()
					}
					return true
				},
			} {
				synctest.Test(t, func(t *testing.T) {
					tr, s := newTransmitterInMemory(t), &sink{}
					n := func() int { tr.mu.Lock(); defer tr.mu.Unlock(); return len(tr.polls) }
					tr.longPoll = true
					r := newReceiver(t, polling(tr, s, func(cfg *signals.Config) { cfg.VerifyInterval = -1 }))
					stop := run(t, r)
					time.Sleep(time.Second)
					require.NoError(t, healthErr(r), name)
					before := n()
					tr.with(func() { tr.pollFault = fault })
					tr.send("x") // ends the poll in progress
					tr.with(func() { delete(tr.pending, "x"); tr.queue = nil })
					time.Sleep(c.outage)
					assert.Equal(t, valetkey.Degraded, health(r).State, name)
					assert.LessOrEqual(t, n()-before, c.polls+1, name)
					tr.send("waited")
					tr.with(func() { tr.pollFault = nil })
					back := time.Now()
					for !slices.Contains(s.what(), "sub waited") && time.Since(back) < time.Hour {
						time.Sleep(10 * time.Millisecond)
					}
					assert.LessOrEqual(t, time.Since(back), c.late+10*time.Millisecond, name)
					assert.NoError(t, healthErr(r), name)
					stop()
					r.Close()
					tr.close()
				})
			}
		})
	}
	t.Run("SSF-43 a transmitter that refuses is asked after 1 s, 2 s, up to 1 min", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tr, s := newTransmitterInMemory(t), &sink{}
			tr.pollFault = func(w http.ResponseWriter) bool { w.WriteHeader(403); return true }
			n := func() int { tr.mu.Lock(); defer tr.mu.Unlock(); return len(tr.polls) }
			r := newReceiver(t, polling(tr, s))
			stop := run(t, r)
			time.Sleep(31 * time.Second)
			assert.InDelta(t, 6, n(), 1)
			time.Sleep(time.Hour)
			assert.InDelta(t, 68, n(), 9)
			stop()
			r.Close()
			tr.close()
		})
	})
	t.Run("SETs that the publisher could not keep for a minute are published within a second of its return", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tr, kept := newTransmitterInMemory(t), &outage{down: true}
			tr.send("waited")
			r := newReceiver(t, polling(tr, &sink{}, func(cfg *signals.Config) { cfg.Publish = kept }))
			stop := run(t, r)
			time.Sleep(time.Minute)
			assert.Empty(t, tr.ackedNow())
			kept.mend()
			time.Sleep(time.Second)
			assert.Equal(t, []string{"waited"}, tr.ackedNow())
			stop()
			r.Close()
			tr.close()
		})
	})
	t.Run("a transmitter that does not wait for events, as Keycloak, is asked at the interval", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tr, s := newTransmitterInMemory(t), &sink{}
			r := newReceiver(t, polling(tr, s, func(cfg *signals.Config) { cfg.PollInterval = 0 }))
			stop := run(t, r)
			time.Sleep(time.Minute)
			tr.mu.Lock()
			assert.InDelta(t, 126, len(tr.polls), 9)
			tr.mu.Unlock()
			stop()
			r.Close()
			tr.close()
		})
	})
	t.Run("SETs that are refused again and again do not make it poll without a pause", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tr, s := newTransmitterInMemory(t), &sink{}
			bad := tr.set(claim("jti", "bad"), claim("exp", 1))
			tr.pollFault = func(w http.ResponseWriter) bool {
				reply(w, 200, M{"sets": M{"bad": bad}, "moreAvailable": true})
				return true
			}
			r := newReceiver(t, polling(tr, s))
			stop := run(t, r)
			time.Sleep(time.Hour)
			tr.mu.Lock()
			assert.Less(t, len(tr.polls), 80)
			tr.mu.Unlock()
			stop()
			r.Close()
			tr.close()
		})
	})
	for name, answer := range map[string]string{
		"no JSON":                "<html>",
		"sets as an array":       `{"sets":["x"]}`,
		"sets twice":             `{"sets":{},"sets":{}}`,
		"a SET twice":            `{"sets":{"a":"x","a":"y"}}`,
		"more than the limit":    `{"sets":{"a":"` + strings.Repeat("x", 5<<20) + `"}}`,
		"an answer of one level": `[]`,
	} {
		t.Run("an answer with "+name+" is an error", func(t *testing.T) {
			tr, s := newTransmitter(t), &sink{}
			tr.pollFault = func(w http.ResponseWriter) bool { _, _ = w.Write([]byte(answer)); return true }
			r := newReceiver(t, polling(tr, s))
			run(t, r)
			eventually(t, "it is reported", fails(r, "polling"))
			assert.Empty(t, s.what())
		})
	}
	for name, answer := range map[string]string{"no sets": `{}`, "null": `{"sets":null,"moreAvailable":null}`, "unknown members": `{"sets":{},"x":[1]}`} {
		t.Run("an answer with "+name+" is empty", func(t *testing.T) {
			tr, s := newTransmitter(t), &sink{}
			tr.pollFault = func(w http.ResponseWriter) bool { _, _ = w.Write([]byte(answer)); return true }
			r := newReceiver(t, polling(tr, s))
			run(t, r)
			eventually(t, "it has caught up", isReady(r))
		})
	}
	t.Run("a SET that is not a text is reported", func(t *testing.T) {
		tr, s := newTransmitter(t), &sink{}
		sent := false
		tr.pollFault = func(w http.ResponseWriter) bool {
			if sent {
				return false
			}
			sent = true
			reply(w, 200, M{"sets": M{"a": 1, "b": nil}})
			return true
		}
		run(t, newReceiver(t, polling(tr, s)))
		eventually(t, "it is reported", func() bool { return len(tr.failedNow()) == 2 })
	})
	t.Run("SSF-30 a process acknowledges the verification event that an earlier one has requested", func(t *testing.T) {
		tr, s := newTransmitter(t), &sink{}
		stop := run(t, newReceiver(t, polling(tr, s)))
		state := tr.state()
		stop()
		tr.enqueue("v", tr.set(claim("jti", "v"), claim("sub_id", opaque("stream-1")), event(verification, M{"state": state})))
		r := newReceiver(t, polling(tr, s))
		run(t, r)
		eventually(t, "it is acknowledged", func() bool { return slices.Contains(tr.ackedNow(), "v") })
		assert.Empty(t, tr.failedNow())
		assert.False(t, r.Status().LastProof.IsZero())
	})
	t.Run("a resolver that hangs delays the SETs of a batch for a minute, and then the others are applied", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tr, s := newTransmitterInMemory(t), &sink{}
			tr.send("a")
			for i := range 10 {
				jti := fmt.Sprint("slow-", i)
				tr.enqueue(jti, tr.set(claim("jti", jti), claim("sub_id", M{"format": "email", "email": "x@example.com"})))
			}
			tr.send("b")
			r := newReceiver(t, polling(tr, s, func(cfg *signals.Config) {
				cfg.Resolve = func(ctx context.Context, _ signals.Subject) ([]string, error) { <-ctx.Done(); return nil, ctx.Err() }
			}))
			stop := run(t, r)
			time.Sleep(time.Hour)
			assert.Subset(t, tr.ackedNow(), []string{"a"})
			assert.Empty(t, tr.failedNow())
			assert.Equal(t, valetkey.Down, health(r).State)
			stop()
			r.Close()
			tr.close()
		})
	})
	t.Run("an unmanaged stream is polled at its URL", func(t *testing.T) {
		tr, s := newTransmitter(t), &sink{}
		tr.send("a")
		r := newReceiver(t, polling(tr, s, func(cfg *signals.Config) {
			cfg.Stream = signals.Stream{Unmanaged: true, PollURL: tr.URL + "/poll"}
			cfg.Audience = []string{audience}
		}))
		run(t, r)
		eventually(t, "it is acknowledged", func() bool { return len(tr.ackedNow()) == 1 })
		assert.Empty(t, tr.creates)
	})
}

func healthErr(r *signals.Receiver) error {
	if h := health(r); h.State != valetkey.Ready {
		return h.Err
	}
	return nil
}

// hang makes a poll fail without an answer to it.
func hang(w http.ResponseWriter) bool {
	w.WriteHeader(500)
	return true
}

// A picky publisher cannot store one revocation.
type picky struct{}

func (picky) Publish(_ context.Context, r valetkey.Revocation) error {
	if r.Subject == "poison" {
		return errors.New("cannot be stored")
	}
	return nil
}

func TestManyWaitingSETs(t *testing.T) {
	t.Run("SSF-44 they are applied in bounded batches, one step for each, and expired ones are not stored", func(t *testing.T) {
		const n, old = 3000, 300
		tr, s := newTransmitter(t), &sink{}
		for i := range n {
			sub := fmt.Sprint("user-", i)
			change := []change{claim("jti", sub), claim("sub_id", user(tr.URL, sub))}
			if i < old {
				change = append(change, claim("iat", time.Now().Add(-25*time.Hour).Unix()))
			}
			tr.enqueue(sub, tr.set(change...))
		}
		r := newReceiver(t, polling(tr, s))
		run(t, r)
		eventually(t, "all are acknowledged", func() bool { return len(tr.ackedNow()) == n })
		assert.Len(t, s.what(), n-old)
		assert.LessOrEqual(t, s.n, n/200+1, "a step for each answer at most")
		assert.Equal(t, map[string]uint64{"applied": n - old, "expired": old}, r.Status().Outcomes)
		tr.mu.Lock()
		defer tr.mu.Unlock()
		assert.Equal(t, 200.0, tr.polls[0]["maxEvents"])
	})
	t.Run("SSF-44 a flood of pushes is applied in few steps", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { // a machine that verifies no faster than the publisher stores would need a step for each
			const n = 500
			tr, s := newTransmitterInMemory(t), &sink{}
			r := newReceiver(t, tr.config(func(cfg *signals.Config) { cfg.Publish, cfg.Guards = slow{}, []signals.Guard{s} }))
			require.Equal(t, 202, push(r, tr.set()).Code)
			done := make(chan int, n)
			sets := make([]string, n)
			for i := range sets {
				sets[i] = tr.set(claim("sub_id", user(tr.URL, fmt.Sprint("user-", i))))
			}
			gate := make(chan struct{}, 200)
			for _, raw := range sets {
				gate <- struct{}{}
				go func() {
					defer func() { <-gate }()
					done <- push(r, raw).Code
				}()
			}
			for range n {
				assert.Equal(t, 202, <-done)
			}
			assert.Len(t, s.what(), n+1)
			assert.Less(t, s.n, n/10)
			r.Close()
			tr.close()
		})
	})
}

// An outage is a publisher that is down until it is mended.
type outage struct {
	mu   sync.Mutex
	down bool
}

func (o *outage) Publish(context.Context, valetkey.Revocation) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.down {
		return errors.New("the publisher is down")
	}
	return nil
}

func (o *outage) mend() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.down = false
}

// A slow publisher takes a while for each revocation.
type slow struct{}

func (slow) Publish(context.Context, valetkey.Revocation) error {
	time.Sleep(2 * time.Millisecond)
	return nil
}
