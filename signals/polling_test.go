package signals_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
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

// An asked is one request to a scripted poll endpoint.
type asked struct {
	at        time.Duration // since the last one was answered
	immediate bool
	ack, errs []string // sorted
	most      float64  // maxEvents
}

// An accepted is an answer with the status 202.
type accepted M

// A script is a poll endpoint whose answers are given: JSON, a status, or a text with the status 200; nil is none. After the last one it
// answers no more.
type script struct {
	tr      *transmitter
	answers []any
	took    time.Duration // of each answer

	mu   sync.Mutex
	last time.Time
	got  []asked
}

func (s *script) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	req := body(r)
	one := asked{}
	one.immediate, _ = req["returnImmediately"].(bool)
	one.most, _ = req["maxEvents"].(float64)
	acks, _ := req["ack"].([]any)
	for _, jti := range acks {
		one.ack = append(one.ack, jti.(string))
	}
	slices.Sort(one.ack)
	errs, _ := req["setErrs"].(M)
	one.errs = slices.Sorted(maps.Keys(errs))
	s.mu.Lock()
	if !s.last.IsZero() {
		one.at = time.Since(s.last)
	}
	n := len(s.got)
	s.got = append(s.got, one)
	s.mu.Unlock()
	if n >= len(s.answers) || s.answers[n] == nil {
		<-r.Context().Done()
		return
	}
	time.Sleep(s.took)
	s.mu.Lock()
	s.last = time.Now()
	s.mu.Unlock()
	switch answer := s.answers[n].(type) {
	case int:
		w.WriteHeader(answer)
	case accepted:
		reply(w, 202, answer)
	case string:
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(answer))
	default:
		reply(w, 200, answer)
	}
}

// scripted runs a receiver of an unmanaged stream that polls a script, in virtual time, for a while, and then f. It returns the requests.
func scripted(t *testing.T, s *script, limit time.Duration, f func(r *signals.Receiver, stop func()), changes ...func(*signals.Config)) []asked {
	s.tr.handler.(*http.ServeMux).Handle("POST /script", s)
	r := newReceiver(t, s.tr.config(append([]func(*signals.Config){func(cfg *signals.Config) {
		cfg.Delivery, cfg.Stream.PollURL, cfg.PollInterval = signals.Poll, s.tr.URL+"/script", 10*time.Second
		cfg.Credentials = signals.BearerToken(apiTokenOf)
	}}, changes...)...))
	stop := run(t, r)
	time.Sleep(limit)
	synctest.Wait()
	if f != nil {
		f(r, stop)
	}
	stop()
	r.Close()
	s.tr.close()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.got
}

func TestWhenPollsFollow(t *testing.T) {
	type answers = func(tr *transmitter) []any
	named := func(tr *transmitter, more bool, names ...string) M { // a SET of a name that begins with bad is refused
		sets := M{}
		for _, name := range names {
			changes := []change{claim("jti", name), claim("sub_id", user(tr.URL, name))}
			if strings.HasPrefix(name, "bad") {
				changes = append(changes, claim("exp", 1))
			}
			sets[name] = tr.set(changes...)
		}
		return M{"sets": sets, "moreAvailable": more}
	}
	empty := M{"sets": M{}}
	type next struct { // after an answer
		wait      time.Duration // at most, and at least nine tenths of it
		immediate bool
		ack, errs []string
	}
	compare := func(t *testing.T, got []asked, want []next) {
		require.Greater(t, len(got), len(want))
		assert.Equal(t, asked{immediate: true, most: 200}, got[0])
		for i, want := range want {
			one := got[i+1]
			assert.LessOrEqual(t, one.at, want.wait, "request %d", i+1)
			assert.GreaterOrEqual(t, one.at, want.wait*9/10-1, "request %d", i+1)
			one.at = 0
			assert.Equal(t, asked{immediate: want.immediate, ack: want.ack, errs: want.errs, most: 200}, one, "request %d", i+1)
		}
	}
	poisoned := func(tr *transmitter) (all []any, want []next) { // one SET is kept, and others are new, for more than two minutes
		for i := range 150 {
			name := fmt.Sprint("a", i)
			all, want = append(all, named(tr, false, name, "poison")), append(want, next{time.Second, true, []string{name}, nil})
		}
		return all, want
	}
	for _, c := range []struct {
		name    string
		took    time.Duration
		answers answers
		want    []next
	}{
		{"after an answer without events, at the interval", 0, func(*transmitter) []any { return []any{empty, empty} },
			[]next{{10 * time.Second, false, nil, nil}, {10 * time.Second, false, nil, nil}}},
		{"after 204, at the interval", 0, func(*transmitter) []any { return []any{204} }, []next{{10 * time.Second, false, nil, nil}}},
		{"after 202 without a body, at the interval", 0, func(*transmitter) []any { return []any{202} }, []next{{10 * time.Second, false, nil, nil}}},
		{"after an answer without events that has waited for them, at once", 10 * time.Second, func(*transmitter) []any { return []any{empty, empty} },
			[]next{{0, false, nil, nil}, {0, false, nil, nil}}},
		{"after 202 with events, at once", 0, func(tr *transmitter) []any { return []any{accepted(named(tr, false, "a"))} }, []next{{0, false, []string{"a"}, nil}}},
		{"after events, at once, and it waits for more", 0, func(tr *transmitter) []any { return []any{named(tr, false, "a", "b")} },
			[]next{{0, false, []string{"a", "b"}, nil}}},
		{"after some of the events, at once, and it does not wait", 0, func(tr *transmitter) []any { return []any{named(tr, true, "a"), named(tr, true, "b")} },
			[]next{{0, true, []string{"a"}, nil}, {0, true, []string{"b"}, nil}}},
		{"after none of more events, at once", 0, func(*transmitter) []any { return []any{M{"sets": M{}, "moreAvailable": true}} }, []next{{0, true, nil, nil}}},
		{"after a SET that is refused, at once", 0, func(tr *transmitter) []any { return []any{named(tr, false, "a", "bad")} },
			[]next{{0, true, []string{"a"}, []string{"bad"}}}},
		{"after one that is refused again and again, ever later", 0, func(tr *transmitter) []any {
			bad := named(tr, true, "bad")
			return []any{bad, bad, bad, bad}
		}, []next{{0, true, nil, []string{"bad"}}, {time.Second, true, nil, []string{"bad"}}, {2 * time.Second, true, nil, []string{"bad"}}, {4 * time.Second, true, nil, []string{"bad"}}}},
		{"and after another one, as at first", 0, func(tr *transmitter) []any {
			bad := named(tr, true, "bad")
			return []any{bad, bad, bad, named(tr, true, "a"), bad, bad}
		}, []next{{0, true, nil, []string{"bad"}}, {time.Second, true, nil, []string{"bad"}}, {2 * time.Second, true, nil, []string{"bad"}}, {0, true, []string{"a"}, nil},
			{0, true, nil, []string{"bad"}}, {time.Second, true, nil, []string{"bad"}}}},
		{"after one that is kept, with others, a second later", 0, func(tr *transmitter) []any { return []any{named(tr, false, "a", "poison")} },
			[]next{{time.Second, true, []string{"a"}, nil}}},
		{"after one that cannot be read now, with others, a second later", 0, func(tr *transmitter) []any {
			sets := named(tr, false, "a")
			sets["sets"].(M)["down"] = tr.set(claim("jti", "down"), claim("sub_id", M{"format": "email", "email": "down@example.com"}))
			return []any{sets}
		}, []next{{time.Second, true, []string{"a"}, nil}}},
		{"after one that is kept alone, when it has waited for events, a second later, and it does not wait", 0, func(tr *transmitter) []any {
			return []any{empty, named(tr, false, "poison")}
		}, []next{{10 * time.Second, false, nil, nil}, {time.Second, true, nil, nil}}},
		{"after one that is kept alone, a second later, and as often", 0, func(tr *transmitter) []any {
			poison := named(tr, false, "poison")
			return []any{poison, poison, poison, poison, empty}
		}, []next{{time.Second, true, nil, nil}, {time.Second, true, nil, nil}, {time.Second, true, nil, nil}, {time.Second, true, nil, nil}, {10 * time.Second, false, nil, nil}}},
		{"after a refusal, ever later, and after an answer as at first", 0, func(*transmitter) []any { return []any{403, 403, 403, empty, 403, 403} },
			[]next{{time.Second, true, nil, nil}, {2 * time.Second, true, nil, nil}, {4 * time.Second, true, nil, nil}, {10 * time.Second, false, nil, nil},
				{time.Second, true, nil, nil}, {2 * time.Second, true, nil, nil}}},
		{"after events, a refusal counts as the first one", 0, func(tr *transmitter) []any { return []any{403, 403, named(tr, false, "a"), 403} },
			[]next{{time.Second, true, nil, nil}, {2 * time.Second, true, nil, nil}, {0, false, []string{"a"}, nil}, {time.Second, true, []string{"a"}, nil}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr := newTransmitterInMemory(t)
				got := scripted(t, &script{tr: tr, answers: c.answers(tr), took: c.took}, 45*time.Second, nil, func(cfg *signals.Config) { cfg.Publish, cfg.Resolve = picky{}, people })
				compare(t, got, c.want)
			})
		})
	}
	t.Run("after one that is kept among others, every second, however long", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tr := newTransmitterInMemory(t)
			answers, want := poisoned(tr)
			compare(t, scripted(t, &script{tr: tr, answers: answers}, 160*time.Second, nil, func(cfg *signals.Config) { cfg.Publish = picky{} }), want)
		})
	})
	t.Run("a poll that is not answered within a minute is sent again, and is not a failure", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tr, begun := newTransmitterInMemory(t), time.Now()
			var log logBuffer
			got := scripted(t, &script{tr: tr, answers: []any{M{"sets": M{"a": tr.set(claim("jti", "a"))}}}, took: 10 * time.Second}, 200*time.Second, func(r *signals.Receiver, _ func()) {
				assert.NoError(t, healthErr(r))
				assert.Equal(t, 190*time.Second, r.Status().LastContact.Sub(begun))
				assert.NotContains(t, log.String(), "polling failed")
			}, log.log)
			require.Len(t, got, 6)
			for i, one := range got[1:5] {
				assert.Equal(t, time.Duration(i)*time.Minute, one.at)
				assert.False(t, one.immediate)
				assert.Equal(t, []string{"a"}, one.ack, "it is not known whether the acknowledgment has arrived")
			}
		})
	})
	t.Run("one that is to be answered at once, and is not, has failed", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tr := newTransmitterInMemory(t)
			got := scripted(t, &script{tr: tr}, 70*time.Second, func(r *signals.Receiver, _ func()) {
				assert.ErrorIs(t, healthErr(r), context.DeadlineExceeded)
				assert.True(t, r.Status().LastContact.IsZero())
			})
			require.Len(t, got, 2)
			assert.True(t, got[1].immediate)
		})
	})
	for name, c := range map[string]struct {
		wait time.Duration // for the second access token
		err  error
	}{
		"that comes late":            {61 * time.Second, errors.New("the vault is sealed")},
		"that is the end of a limit": {0, context.DeadlineExceeded},
	} {
		t.Run("an error "+name+" is a failure", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr, calls := newTransmitterInMemory(t), 0
				scripted(t, &script{tr: tr, answers: []any{M{"sets": M{}}}, took: 10 * time.Second}, 10*time.Second+c.wait+time.Millisecond, func(r *signals.Receiver, _ func()) {
					assert.ErrorIs(t, healthErr(r), c.err)
				}, func(cfg *signals.Config) {
					cfg.Credentials = signals.BearerToken(func(ctx context.Context) (string, error) {
						switch calls++; calls {
						case 1:
							return apiToken, nil
						case 2:
							time.Sleep(c.wait)
							return "", c.err
						}
						<-ctx.Done()
						return "", ctx.Err()
					})
				})
			})
		})
	}
}

func TestStateOfPolling(t *testing.T) {
	t.Run("while more events are waiting it has not caught up", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tr := newTransmitterInMemory(t)
			scripted(t, &script{tr: tr, answers: []any{M{"sets": M{}, "moreAvailable": true}}}, time.Second, func(r *signals.Receiver, _ func()) {
				assert.ErrorContains(t, healthErr(r), "events are waiting at the transmitter")
				assert.Equal(t, time.Now().Add(-time.Second), r.Status().LastContact)
			})
		})
	})
	t.Run("a failure means that events may be waiting, until there is an answer", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tr := newTransmitterInMemory(t)
			s := &script{tr: tr, answers: []any{M{"sets": M{}}, 403, M{"sets": M{}}}}
			var log logBuffer
			scripted(t, s, 5*time.Second, func(r *signals.Receiver, _ func()) {
				assert.NoError(t, healthErr(r))
				time.Sleep(5 * time.Second)
				assert.ErrorContains(t, healthErr(r), "polling: the transmitter answers with status 403")
				time.Sleep(2 * time.Second)
				assert.NoError(t, healthErr(r))
			}, log.log)
			assert.Equal(t, 1, strings.Count(log.String(), "signals: polling failed"))
		})
	})
	t.Run("failures are logged once a minute", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tr := newTransmitterInMemory(t)
			var log logBuffer
			got := scripted(t, &script{tr: tr, answers: slices.Repeat([]any{502}, 50)}, 30*time.Second, nil, log.log)
			assert.Greater(t, len(got), 25)
			assert.Equal(t, 1, strings.Count(log.String(), "signals: polling failed"))
		})
	})
	for name, answer := range map[string]any{"no body": "", "sets as an array": `{"sets":[]}`, "sets as a text": `{"sets":"a"}`} {
		t.Run("an answer with "+name+" is a failure", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr := newTransmitterInMemory(t)
				scripted(t, &script{tr: tr, answers: []any{answer}}, time.Millisecond, func(r *signals.Receiver, _ func()) {
					assert.ErrorContains(t, healthErr(r), "polling: ")
				})
			})
		})
	}
	t.Run("an answer may be as long as 200 SETs", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tr, sets := newTransmitterInMemory(t), M{}
			for i := range 200 {
				sets[fmt.Sprint(i)] = strings.Repeat("x", 16<<10)
			}
			got := scripted(t, &script{tr: tr, answers: []any{M{"sets": sets}}}, time.Millisecond, nil)
			require.Greater(t, len(got), 1)
			assert.Len(t, got[1].errs, 200)
		})
	})
	t.Run("an answer has at most 1,000 SETs", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tr, sets := newTransmitterInMemory(t), M{}
			for i := range 1000 {
				sets[fmt.Sprint(i)] = "x"
			}
			more := maps.Clone(sets)
			more["more"] = "x"
			got := scripted(t, &script{tr: tr, answers: []any{M{"sets": sets}, M{"sets": more}}}, time.Millisecond, func(r *signals.Receiver, _ func()) {
				assert.ErrorContains(t, healthErr(r), "polling: JSON: an object has too many members")
			})
			require.Greater(t, len(got), 1)
			assert.Len(t, got[1].errs, 1000)
		})
	})
	t.Run("an answer whose SETs are not read within a minute", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tr, s := newTransmitterInMemory(t), &sink{}
			sets := M{"a": tr.set(claim("jti", "a")), "z": tr.set(claim("jti", "z"))}
			for _, jti := range []string{"b", "c", "d", "e"} {
				sets[jti] = tr.set(claim("jti", jti), claim("sub_id", M{"format": "email", "email": "x@example.com"}))
			}
			got := scripted(t, &script{tr: tr, answers: []any{M{"sets": sets}}}, 61*time.Second, func(r *signals.Receiver, _ func()) {
				assert.ErrorContains(t, healthErr(r), "not all events of an answer were read within 1m0s, perhaps because of Config.Resolve")
				assert.Equal(t, uint64(1), r.Status().Outcomes["applied"])
			}, to(s), func(cfg *signals.Config) {
				cfg.Resolve = func(ctx context.Context, _ signals.Subject) ([]string, error) { <-ctx.Done(); return nil, ctx.Err() }
			})
			require.Greater(t, len(got), 1)
			assert.Equal(t, []string{"a"}, got[1].ack)
			assert.Equal(t, 1, s.n)
		})
	})
	t.Run("an answer with nothing to revoke asks nothing of the guards", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tr, s := newTransmitterInMemory(t), &sink{}
			got := scripted(t, &script{tr: tr, answers: []any{M{"sets": M{"a": tr.set(claim("jti", "a"), event("https://example.com/event", M{}))}}}}, time.Second, nil, to(s))
			require.Greater(t, len(got), 1)
			assert.Equal(t, []string{"a"}, got[1].ack)
			assert.Zero(t, s.n)
		})
	})
	t.Run("the time for one SET ends with it", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tr := newTransmitterInMemory(t)
			var asked context.Context
			set := tr.set(claim("jti", "a"), claim("sub_id", M{"format": "email", "email": "x@example.com"}))
			scripted(t, &script{tr: tr, answers: []any{M{"sets": M{"a": set}}}}, time.Second, func(*signals.Receiver, func()) {
				require.NotNil(t, asked)
				assert.ErrorIs(t, asked.Err(), context.Canceled)
			}, func(cfg *signals.Config) {
				cfg.Resolve = func(ctx context.Context, _ signals.Subject) ([]string, error) { asked = ctx; return nil, nil }
			})
		})
	})
	t.Run("SETs of one answer are applied in one step and counted one by one", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tr, s := newTransmitterInMemory(t), &sink{}
			sets := M{
				"a":      tr.set(claim("jti", "a"), claim("sub_id", user(tr.URL, "a"))),
				"b":      tr.set(claim("jti", "b"), claim("sub_id", user(tr.URL, "b"))),
				"poison": tr.set(claim("jti", "poison"), claim("sub_id", user(tr.URL, "poison"))),
				"other":  tr.set(claim("jti", "other"), event("https://example.com/event", M{})),
				"bad":    tr.set(claim("jti", "bad"), claim("exp", 1)),
				"down":   tr.set(claim("jti", "down"), claim("sub_id", M{"format": "email", "email": "down@example.com"})),
			}
			got := scripted(t, &script{tr: tr, answers: []any{M{"sets": sets}}}, time.Second, func(r *signals.Receiver, _ func()) {
				assert.Equal(t, map[string]uint64{"applied": 2, "failed": 2, "disabled": 1, "invalid_request": 1}, r.Status().Outcomes)
				assert.Equal(t, valetkey.Down, health(r).State)
			}, to(s), func(cfg *signals.Config) { cfg.Publish, cfg.Resolve = picky{}, people })
			require.Greater(t, len(got), 1)
			assert.Equal(t, []string{"a", "b", "other"}, got[1].ack)
			assert.Equal(t, []string{"bad"}, got[1].errs)
			assert.Equal(t, 1, s.n)
		})
	})
}

func TestGapsOfAnUnmanagedStream(t *testing.T) {
	for down, gap := range map[time.Duration]bool{59 * time.Minute: false, 2 * time.Hour: true} {
		synctest.Test(t, func(t *testing.T) {
			tr, last := newTransmitterInMemory(t), time.Now().Add(-down)
			store := &stateStore{text: []byte(`{"transmitter":"` + tr.URL + `","contact":"` + last.Format(time.RFC3339) + `"}`)}
			scripted(t, &script{tr: tr, answers: []any{M{"sets": M{}}}}, time.Second, func(r *signals.Receiver, _ func()) {
				assert.Equal(t, gap, r.Status().Gap.From.Equal(last), "%v", r.Status().Gap)
			}, func(cfg *signals.Config) { cfg.State = store })
		})
	}
}

func TestLastAcknowledgment(t *testing.T) {
	t.Run("one that is answered is not logged", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tr := newTransmitterInMemory(t)
			var log logBuffer
			got := scripted(t, &script{tr: tr, answers: []any{M{"sets": M{"a": tr.set(claim("jti", "a"))}}, nil, 202}}, time.Second, nil, log.log)
			require.Len(t, got, 3)
			assert.Equal(t, []string{"a"}, got[2].ack)
			assert.NotContains(t, log.String(), "not acknowledged")
		})
	})
	for name, c := range map[string]struct {
		set  string // jti of the SET that was answered last; "": none
		want *asked
	}{
		"what is applied is acknowledged": {"a", &asked{immediate: true, ack: []string{"a"}}},
		"what is refused is reported":     {"bad", &asked{immediate: true, errs: []string{"bad"}}},
		"nothing is sent for nothing":     {"", nil},
	} {
		t.Run(name+" when the receiver stops", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr := newTransmitterInMemory(t)
				changes, sets := []change{claim("jti", c.set)}, M{}
				if c.set == "bad" {
					changes = append(changes, claim("exp", 1))
				}
				if c.set != "" {
					sets[c.set] = tr.set(changes...)
				}
				s := &script{tr: tr, answers: []any{M{"sets": sets}}}
				var log logBuffer
				begun := time.Now()
				var stopped time.Duration
				got := scripted(t, s, time.Second, func(_ *signals.Receiver, stop func()) {
					stop()
					stopped = time.Since(begun)
				}, log.log)
				if c.want == nil {
					assert.Len(t, got, 1)
					assert.Equal(t, time.Second, stopped)
					assert.NotContains(t, log.String(), "not acknowledged")
					return
				}
				last := got[len(got)-1]
				last.at = 0
				assert.Equal(t, *c.want, last)
				assert.Equal(t, 3*time.Second, stopped, "it waits for two seconds")
				assert.Contains(t, log.String(), "the last SETs are not acknowledged, so they come again")
			})
		})
	}
}
