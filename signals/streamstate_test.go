package signals_test

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/signals"
)

// pushing runs a receiver of a managed push stream in virtual time, and then f.
func pushing(t *testing.T, prepare func(tr *transmitter), f func(t *testing.T, tr *transmitter, r *signals.Receiver), changes ...func(*signals.Config)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		tr := newTransmitterInMemory(t)
		if prepare != nil {
			prepare(tr)
		}
		r := newReceiver(t, tr.config(append([]func(*signals.Config){managed(signals.Push)}, changes...)...))
		stop := run(t, r)
		time.Sleep(time.Second)
		f(t, tr, r)
		stop()
		r.Close()
		tr.close()
	})
}

// has makes the members of the stream those of m, with the ones that it has.
func has(m M) func(tr *transmitter) {
	return func(tr *transmitter) {
		tr.change = func(s M) {
			for name, v := range m {
				s[name] = v
			}
		}
	}
}

func TestSilence(t *testing.T) {
	everyHour := func(cfg *signals.Config) { cfg.VerifyInterval = time.Hour }
	for _, c := range []struct {
		name    string
		prepare func(tr *transmitter)
		config  func(*signals.Config)
		limit   time.Duration // zero: none
	}{
		{"of more than an hour is a gap", nil, nil, time.Hour},
		{"of more than the retention is a gap", nil, func(cfg *signals.Config) { cfg.Retention = 20 * time.Minute }, 20 * time.Minute},
		{"of more than the inactivity_timeout is a gap", has(M{"inactivity_timeout": 1800}), nil, 30 * time.Minute},
		{"of more than the retention is a gap, with a longer inactivity_timeout", has(M{"inactivity_timeout": 7200}), nil, time.Hour},
		{"of more than three verifications is a gap, with a shorter inactivity_timeout", has(M{"inactivity_timeout": 60}), nil, 15 * time.Minute},
		{"of more than three verifications is a gap, as the transmitter permits them", has(M{"min_verification_interval": 1800}), nil, 90 * time.Minute},
		{"of more than three verifications is a gap, as they are configured", nil, everyHour, 3 * time.Hour},
		{"of more than three verifications is a gap, as they are configured, although the transmitter permits more", has(M{"min_verification_interval": 60}), everyHour, 3 * time.Hour},
		{"of a stream that is not verified is none", nil, func(cfg *signals.Config) { cfg.VerifyInterval = -1 }, 0},
		{"of a stream that cannot be verified is none", func(tr *transmitter) { tr.metadata["verification_endpoint"] = nil }, nil, 0},
		{"of an unmanaged stream is none", nil, func(cfg *signals.Config) {
			cfg.Stream.Unmanaged, cfg.Audience, cfg.Endpoint = true, []string{audience}, ""
		}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			pushing(t, c.prepare, func(t *testing.T, tr *transmitter, r *signals.Receiver) {
				require.Equal(t, 202, pushed(r, tr.set()))
				assert.Zero(t, r.Status().Gap, "the first contact is none")
				limit := c.limit
				if limit == 0 {
					limit = 3 * time.Hour
				}
				time.Sleep(limit)
				require.Equal(t, 202, pushed(r, tr.set()))
				assert.Zero(t, r.Status().Gap)
				last := time.Now()
				time.Sleep(limit + 1)
				require.Equal(t, 202, pushed(r, tr.set()))
				if c.limit == 0 {
					assert.Zero(t, r.Status().Gap)
					return
				}
				assert.Equal(t, last, r.Status().Gap.From)
				assert.Equal(t, time.Now(), r.Status().Gap.To)
				assert.Contains(t, r.Status().Gap.Reason, "the transmitter keeps events for "+limit.String())
			}, func(cfg *signals.Config) {
				if c.config != nil {
					c.config(cfg)
				}
			})
		})
	}
	for outage, gap := range map[time.Duration]bool{9 * time.Minute: false, 13 * time.Minute: true} {
		t.Run("of a poll stream for "+outage.String()+", with an inactivity_timeout of 10 min", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr := newTransmitterInMemory(t)
				tr.streams = []M{tr.stream("m", M{"method": pollMethod}, nil)}
				tr.streams[0]["inactivity_timeout"] = 600
				r := newReceiver(t, tr.config(managed(signals.Poll)))
				stop := run(t, r)
				time.Sleep(time.Second)
				tr.with(func() { tr.pollStatus = 502 })
				time.Sleep(outage)
				tr.with(func() { tr.pollStatus = 0 })
				time.Sleep(2 * time.Minute)
				assert.Equal(t, gap, !r.Status().Gap.To.IsZero(), r.Status().Gap)
				stop()
				r.Close()
				tr.close()
			})
		})
	}
}

func TestGapsThatMatter(t *testing.T) {
	paused := func(t *testing.T, tr *transmitter, r *signals.Receiver) {
		for _, status := range []string{"paused", "enabled"} {
			require.Equal(t, 202, pushed(r, tr.set(claim("sub_id", opaque("stream-1")), event(streamUpdated, M{"status": status}))))
		}
	}
	t.Run("until the last token from before it has ended, with the leeway of any verifier", func(t *testing.T) {
		pushing(t, nil, func(t *testing.T, tr *transmitter, r *signals.Receiver) {
			paused(t, tr, r)
			assert.ErrorIs(t, health(r).Err, valetkey.ErrRevocationsMissing)
			assert.ErrorContains(t, health(r).Err, "events may have been lost until "+time.Now().UTC().Format(time.RFC3339))
			assert.Equal(t, valetkey.Degraded, health(r).State)
			time.Sleep(time.Hour + 5*time.Minute - 1)
			assert.ErrorIs(t, health(r).Err, valetkey.ErrRevocationsMissing)
			time.Sleep(1 * time.Nanosecond)
			assert.NotErrorIs(t, health(r).Err, valetkey.ErrRevocationsMissing)
		}, func(cfg *signals.Config) { cfg.MaxTokenLifetime, cfg.VerifyInterval = time.Hour, -1 })
	})
	t.Run("a gap while the older tokens are being revoked is settled by itself", func(t *testing.T) {
		s, g := &sink{}, &holdup{}
		pushing(t, func(*transmitter) { g.open = make(chan struct{}) }, func(t *testing.T, tr *transmitter, r *signals.Receiver) {
			assert.ErrorContains(t, health(r).Err, "the older tokens are not revoked yet")
			first := r.Status().Gap.To
			time.Sleep(5 * time.Second)
			paused(t, tr, r)
			second := r.Status().Gap.To
			assert.True(t, second.After(first))
			close(g.open)
			time.Sleep(time.Millisecond)
			assert.ErrorContains(t, health(r).Err, "the older tokens are not revoked yet")
			time.Sleep(5 * time.Second)
			assert.NotContains(t, textOf(health(r).Err), "the older tokens")
			require.Len(t, g.all, 2)
			for i, to := range []time.Time{first, second} {
				assert.Equal(t, valetkey.Revocation{Issuer: tr.URL, All: true, At: to, Until: to.Add(24 * time.Hour)}, g.all[i])
			}
			time.Sleep(time.Minute)
			assert.Len(t, g.all, 2, "once")
		}, func(cfg *signals.Config) { cfg.Gaps, cfg.Publish = signals.RevokeBeforeGaps, g }, to(s))
	})
}

func TestWhyTheOlderTokensAreNotRevokedIsLogged(t *testing.T) {
	var log logBuffer
	redis := &sink{err: errors.New("redis is down")}
	pushing(t, nil, func(t *testing.T, _ *transmitter, r *signals.Receiver) {
		assert.ErrorContains(t, health(r).Err, "the older tokens are not revoked yet")
		assert.Contains(t, log.String(), "signals: a request about the stream failed")
		assert.Contains(t, log.String(), "redis is down")
	}, log.log, func(cfg *signals.Config) { cfg.Gaps, cfg.Publish = signals.RevokeBeforeGaps, redis })
}

func textOf(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// A holdup is a publisher that takes no revocation of all tokens until it is opened.
type holdup struct {
	sink
	open chan struct{}
}

func (h *holdup) Publish(ctx context.Context, r valetkey.Revocation) error {
	if !r.All {
		return nil
	}
	select {
	case <-h.open:
		return h.sink.Publish(ctx, r)
	case <-ctx.Done():
		return ctx.Err()
	}
}

func TestStatusOfAStream(t *testing.T) {
	updated := func(t *testing.T, tr *transmitter, r *signals.Receiver, status string) {
		require.Equal(t, 202, pushed(r, tr.set(claim("sub_id", opaque("stream-1")), event(streamUpdated, M{"status": status}))))
		time.Sleep(time.Minute)
	}
	for _, c := range []struct {
		name     string
		statuses []string
		gap      string // reason
		from     time.Duration
		lines    int
	}{
		{"enabled", []string{"enabled", "enabled"}, "", 0, 0},
		{"paused", []string{"paused", "paused"}, "", 0, 1},
		{"paused and enabled", []string{"paused", "enabled"}, "the transmitter had paused the stream", 0, 2},
		{"disabled and enabled", []string{"disabled", "enabled"}, "the transmitter had disabled the stream", 0, 2},
		{"paused, disabled and enabled: from the first on", []string{"paused", "disabled", "enabled"}, "the transmitter had disabled the stream", 0, 3},
		{"paused and enabled twice: the later gap", []string{"paused", "enabled", "disabled", "enabled"}, "the transmitter had disabled the stream", 2 * time.Minute, 4},
		{"paused and an unknown status", []string{"paused", "resting"}, "", 0, 2},
		{"an unknown status", []string{"resting", "enabled"}, "", 0, 2},
		{"an invalid status", []string{""}, "", 0, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			var log logBuffer
			pushing(t, nil, func(t *testing.T, tr *transmitter, r *signals.Receiver) {
				begun := time.Now()
				for _, status := range c.statuses {
					updated(t, tr, r, status)
					assert.Equal(t, status, r.Status().Stream)
					assert.Equal(t, status == "paused" || status == "disabled", strings.Contains(textOf(health(r).Err), "the transmitter has "+status+" the stream"))
				}
				assert.Equal(t, c.gap, r.Status().Gap.Reason)
				if c.gap != "" {
					assert.Equal(t, begun.Add(c.from), r.Status().Gap.From)
					assert.Equal(t, time.Now().Add(-time.Minute), r.Status().Gap.To)
				}
				assert.Equal(t, c.lines, strings.Count(log.String(), "the transmitter has changed the status of the stream"), log.String())
				statuses := strings.Join(c.statuses, " ")
				gaps := strings.Count(statuses, "paused enabled") + strings.Count(statuses, "disabled enabled")
				assert.Equal(t, gaps, strings.Count(log.String(), "signals: events may have been lost"))
			}, log.log)
		})
	}
	for name, contact := range map[string]bool{"the last contact": true, "the start, without a contact": false} {
		t.Run("a status that is read: the gap begins with "+name, func(t *testing.T) {
			pushing(t, nil, func(t *testing.T, tr *transmitter, r *signals.Receiver) {
				last := time.Now()
				if contact {
					require.Equal(t, 202, pushed(r, tr.set()))
				}
				tr.with(func() { tr.status = "disabled" })
				time.Sleep(7 * time.Minute)
				assert.ErrorContains(t, health(r).Err, "the transmitter has disabled the stream")
				assert.Zero(t, r.Status().Gap)
				tr.with(func() { tr.status = "enabled" })
				time.Sleep(7 * time.Minute)
				gap := r.Status().Gap
				assert.Equal(t, "the transmitter had disabled the stream", gap.Reason)
				if contact {
					assert.Equal(t, last, gap.From)
				} else {
					assert.True(t, gap.From.After(last) && gap.From.Before(last.Add(7*time.Minute)), "%v", gap)
				}
			}, func(cfg *signals.Config) { cfg.VerifyInterval = -1 })
		})
	}
}

func TestHealthOfAStream(t *testing.T) {
	prove := func(t *testing.T, tr *transmitter, r *signals.Receiver) {
		require.Equal(t, 202, pushed(r, tr.set(claim("sub_id", opaque("stream-1")), event(verification, M{}))))
	}
	for name, required := range map[string]bool{"without RequireProof": false, "with RequireProof": true} {
		t.Run("three verifications without an event, "+name, func(t *testing.T) {
			pushing(t, nil, func(t *testing.T, tr *transmitter, r *signals.Receiver) {
				assert.Equal(t, tr.URL, health(r).Name)
				assert.ErrorContains(t, health(r).Err, "since the start "+time.Now().Add(-time.Second).UTC().Format(time.RFC3339))
				assert.Equal(t, map[bool]valetkey.State{true: valetkey.Down, false: valetkey.Ready}[required], health(r).State)
				w := watch(t, r)
				assert.Equal(t, !required, w.says(""))
				prove(t, tr, r)
				proof := time.Now()
				assert.Equal(t, valetkey.Ready, health(r).State)
				assert.NoError(t, health(r).Err)
				since := health(r).Since
				requests := func() int { tr.mu.Lock(); defer tr.mu.Unlock(); return len(tr.verifies) }
				for requests() < 4 { // the first of these three is not missing yet
					time.Sleep(time.Second)
				}
				assert.Equal(t, valetkey.Ready, health(r).State)
				assert.Equal(t, since, health(r).Since)
				for requests() < 5 {
					time.Sleep(time.Second)
				}
				assert.Equal(t, valetkey.Degraded, health(r).State)
				assert.ErrorContains(t, health(r).Err, "no verification event has proven that the stream delivers, since "+proof.UTC().Format(time.RFC3339))
				assert.WithinDuration(t, time.Now(), health(r).Since, 2*time.Second)
				time.Sleep(2 * time.Second)
				assert.Equal(t, !required, w.says(""))
				prove(t, tr, r)
				assert.Equal(t, valetkey.Ready, health(r).State)
				assert.Equal(t, time.Now(), health(r).Since)
			}, func(cfg *signals.Config) { cfg.RequireProof = required })
		})
	}
	t.Run("what is returned is a copy", func(t *testing.T) {
		pushing(t, has(M{"events_delivered": []string{"a"}}), func(t *testing.T, _ *transmitter, r *signals.Receiver) {
			r.Status().Delivered[0], r.Status().Missing[0] = "changed", "changed"
			assert.Equal(t, signals.Event("a"), r.Status().Delivered[0])
			assert.Equal(t, signals.SessionRevoked, r.Status().Missing[0])
		})
	})
	t.Run("after Run has ended it is not ready, and a poll stream may have events waiting", func(t *testing.T) {
		for _, d := range []signals.Delivery{signals.Push, signals.Poll} {
			synctest.Test(t, func(t *testing.T) {
				tr := newTransmitterInMemory(t)
				r := newReceiver(t, tr.config(managed(d)))
				stop := run(t, r)
				time.Sleep(time.Second)
				require.NoError(t, healthErr(r))
				stop()
				assert.ErrorContains(t, healthErr(r), "Run has not begun")
				tr.with(func() { tr.pollStatus = 403 })
				stop = run(t, r)
				time.Sleep(time.Millisecond)
				assert.Equal(t, d == signals.Push, healthErr(r) == nil)
				stop()
				r.Close()
				tr.close()
			})
		}
	})
}

func TestStatesOfVerifications(t *testing.T) {
	tr := newTransmitter(t)
	now := time.Now()
	r := newReceiver(t, tr.config(managed(signals.Push), func(cfg *signals.Config) { cfg.Now, cfg.Audience = func() time.Time { return now }, []string{audience} }))
	run(t, r)
	state := tr.state()
	issued := now.Truncate(time.Second)
	decoded, err := base64.RawURLEncoding.DecodeString(state)
	require.NoError(t, err)
	assert.NotEqual(t, make([]byte, 8), decoded[8:16], "the random part")
	for name, c := range map[string]struct {
		state string
		at    time.Time
		code  int
	}{
		"the state":                   {state, now, 202},
		"almost a day later":          {state, issued.Add(24*time.Hour - 1), 202},
		"a day later":                 {state, issued.Add(24 * time.Hour), 400},
		"almost a day earlier":        {state, issued.Add(-24*time.Hour + 1), 202},
		"a day earlier":               {state, issued.Add(-24 * time.Hour), 400},
		"with a byte more":            {base64.RawURLEncoding.EncodeToString(append(decoded, 0)), now, 400},
		"with a byte less":            {base64.RawURLEncoding.EncodeToString(decoded[:len(decoded)-1]), now, 400},
		"of another time":             {base64.RawURLEncoding.EncodeToString(append([]byte{decoded[0] ^ 1}, decoded[1:]...)), now, 400},
		"with another random part":    {base64.RawURLEncoding.EncodeToString(append(append(append([]byte(nil), decoded[:8]...), decoded[8]^1), decoded[9:]...)), now, 400},
		"with another encoding":       {state + "=", now, 400},
		"that is not in the alphabet": {"?" + state, now, 400},
	} {
		now = c.at
		assert.Equal(t, c.code, pushed(r, tr.set(claim("iat", c.at.Unix()), claim("sub_id", opaque("stream-1")), event(verification, M{"state": c.state}))), name)
	}
}

func TestWhatIsSaved(t *testing.T) {
	at := func(d time.Duration) string { return time.Now().Add(d).Format(time.RFC3339Nano) }
	t.Run("nothing before the first contact", func(t *testing.T) {
		store := &stateStore{}
		pushing(t, nil, func(t *testing.T, tr *transmitter, r *signals.Receiver) {
			time.Sleep(time.Hour)
			assert.Zero(t, store.count())
			require.Equal(t, 202, pushed(r, tr.set()))
			time.Sleep(70 * time.Second)
			assert.NotZero(t, store.count())
			assert.NotContains(t, store.members(t), "proof")
		}, func(cfg *signals.Config) { cfg.State, cfg.VerifyInterval = store, -1 })
	})
	t.Run("a proof within seconds, and once", func(t *testing.T) {
		store := &stateStore{}
		pushing(t, nil, func(t *testing.T, tr *transmitter, r *signals.Receiver) {
			time.Sleep(90 * time.Second)
			require.Equal(t, 202, pushed(r, tr.set(claim("sub_id", opaque("stream-1")), event(verification, M{}))))
			proof := time.Now()
			time.Sleep(2 * time.Second)
			saved, err := time.Parse(time.RFC3339Nano, store.members(t)["proof"].(string))
			require.NoError(t, err)
			assert.True(t, proof.Equal(saved))
			saves := store.count()
			time.Sleep(10 * time.Second)
			assert.Equal(t, saves, store.count())
		}, func(cfg *signals.Config) { cfg.State, cfg.VerifyInterval = store, -1 })
	})
	t.Run("the last contact when the receiver stops", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tr, store := newTransmitterInMemory(t), &stateStore{}
			r := newReceiver(t, tr.config(managed(signals.Push), func(cfg *signals.Config) { cfg.State = store }))
			stop := run(t, r)
			time.Sleep(time.Second)
			require.Equal(t, 202, pushed(r, tr.set()))
			assert.Zero(t, store.count())
			stop()
			assert.Equal(t, 1, store.count())
			assert.Equal(t, "stream-1", store.members(t)["stream_id"])
			r.Close()
			tr.close()
		})
	})
	t.Run("a store that fails is reported once a minute", func(t *testing.T) {
		store := &stateStore{}
		var log logBuffer
		pushing(t, nil, func(t *testing.T, tr *transmitter, r *signals.Receiver) {
			require.Equal(t, 202, pushed(r, tr.set(claim("sub_id", opaque("stream-1")), event(verification, M{}))))
			store.mu.Lock()
			store.down = true
			store.mu.Unlock()
			time.Sleep(30 * time.Second)
			assert.Equal(t, 1, strings.Count(log.String(), "signals: the state cannot be saved"))
			assert.Contains(t, log.String(), "the store is down")
		}, log.log, func(cfg *signals.Config) { cfg.State = store })
	})
	t.Run("a store that cannot be read is not written", func(t *testing.T) {
		store := &stateStore{blind: true}
		pushing(t, nil, func(t *testing.T, tr *transmitter, r *signals.Receiver) {
			require.Equal(t, 202, pushed(r, tr.set(claim("sub_id", opaque("stream-1")), event(verification, M{}))))
			time.Sleep(2 * time.Minute)
			assert.Zero(t, store.count())
		}, func(cfg *signals.Config) { cfg.State = store })
	})
	for name, fault := range map[string]func(*stateStore) *bool{
		"a proof that could not be written is written soon after there is room": func(s *stateStore) *bool { return &s.full },
		"a proof that could not be saved is saved soon after the store is back": func(s *stateStore) *bool { return &s.down },
	} {
		t.Run(name, func(t *testing.T) {
			store := &stateStore{}
			set := func(faulty bool) {
				store.mu.Lock()
				defer store.mu.Unlock()
				*fault(store) = faulty
			}
			pushing(t, nil, func(t *testing.T, tr *transmitter, r *signals.Receiver) {
				set(true)
				require.Equal(t, 202, pushed(r, tr.set(claim("sub_id", opaque("stream-1")), event(verification, M{}))))
				time.Sleep(5 * time.Second)
				assert.Zero(t, store.count())
				set(false)
				time.Sleep(3 * time.Second)
				assert.Equal(t, 1, store.count())
			}, func(cfg *signals.Config) { cfg.State, cfg.VerifyInterval = store, -1 })
		})
	}
	t.Run("a proof that arrives while another one is saved is saved too", func(t *testing.T) {
		store := &stateStore{}
		pushing(t, nil, func(t *testing.T, tr *transmitter, r *signals.Receiver) {
			prove := func() {
				assert.Equal(t, 202, pushed(r, tr.set(claim("sub_id", opaque("stream-1")), event(verification, M{}))))
			}
			store.mu.Lock()
			store.saved = func() { time.Sleep(time.Millisecond); prove() }
			store.mu.Unlock()
			prove()
			time.Sleep(5 * time.Second)
			assert.Equal(t, 2, store.count())
			saved, err := time.Parse(time.RFC3339Nano, store.members(t)["proof"].(string))
			require.NoError(t, err)
			assert.True(t, saved.Equal(r.Status().LastProof))
		}, func(cfg *signals.Config) { cfg.State, cfg.VerifyInterval = store, -1 })
	})
	t.Run("what another stream has proven is not kept", func(t *testing.T) {
		store := &stateStore{}
		pushing(t, nil, func(t *testing.T, tr *transmitter, r *signals.Receiver) {
			require.Equal(t, 202, pushed(r, tr.set()))
			store.put(`{"transmitter":"` + tr.URL + `","stream_id":"other","contact":"` + at(0) + `","proof":"` + at(0) + `","epoch":7}`)
			time.Sleep(70 * time.Second)
			saved := store.members(t)
			assert.Equal(t, "stream-1", saved["stream_id"])
			assert.NotContains(t, saved, "proof")
			assert.Contains(t, saved, "epoch")
		}, func(cfg *signals.Config) { cfg.State, cfg.VerifyInterval = store, -1 })
	})
	t.Run("a store that cannot be written is reported too", func(t *testing.T) {
		var log logBuffer
		pushing(t, nil, func(t *testing.T, tr *transmitter, r *signals.Receiver) {
			require.Equal(t, 202, pushed(r, tr.set(claim("sub_id", opaque("stream-1")), event(verification, M{}))))
			time.Sleep(2 * time.Second)
			assert.Contains(t, log.String(), "signals: the state cannot be saved")
			assert.Contains(t, log.String(), "read-only")
		}, log.log, func(cfg *signals.Config) { cfg.State = readOnly{} })
	})
	for _, c := range []struct {
		name           string
		stored         func(tr *transmitter) string
		contact, proof bool // of the other replica are learned
	}{
		{"what another replica has received later", func(tr *transmitter) string {
			return `{"transmitter":"` + tr.URL + `","stream_id":"stream-1","contact":"` + at(2*time.Minute) + `","proof":"` + at(2*time.Minute) + `"}`
		}, true, true},
		{"nothing of another stream", func(tr *transmitter) string {
			return `{"transmitter":"` + tr.URL + `","stream_id":"stream-2","contact":"` + at(2*time.Minute) + `","proof":"` + at(2*time.Minute) + `"}`
		}, false, false},
		{"nothing of another transmitter", func(*transmitter) string {
			return `{"transmitter":"https://other.example.com","stream_id":"stream-1","contact":"` + at(2*time.Minute) + `","proof":"` + at(2*time.Minute) + `"}`
		}, false, false},
		{"nothing that it has received earlier", func(tr *transmitter) string {
			return `{"transmitter":"` + tr.URL + `","stream_id":"stream-1","contact":"` + at(-time.Minute) + `","proof":"` + at(-time.Minute) + `"}`
		}, false, false},
		{"nothing from a future that is further away than any leeway", func(tr *transmitter) string {
			return `{"transmitter":"` + tr.URL + `","stream_id":"stream-1","contact":"` + at(5*time.Minute+10*time.Second) + `","proof":"` + at(5*time.Minute+10*time.Second) + `"}`
		}, false, false},
		{"a contact alone", func(tr *transmitter) string {
			return `{"transmitter":"` + tr.URL + `","stream_id":"stream-1","contact":"` + at(2*time.Minute) + `"}`
		}, true, false},
	} {
		t.Run("a receiver learns "+c.name, func(t *testing.T) {
			store := &stateStore{}
			pushing(t, nil, func(t *testing.T, tr *transmitter, r *signals.Receiver) {
				require.Equal(t, 202, pushed(r, tr.set(claim("sub_id", opaque("stream-1")), event(verification, M{}))))
				begun := time.Now()
				store.put(c.stored(tr))
				time.Sleep(2 * time.Second)
				st := r.Status()
				assert.Equal(t, c.contact, !st.LastContact.Equal(begun), st.LastContact)
				assert.Equal(t, c.proof, !st.LastProof.Equal(begun), st.LastProof)
			}, func(cfg *signals.Config) { cfg.State, cfg.VerifyInterval = store, -1 })
		})
	}
	t.Run("a proof of another replica answers the requests before it, and not a later one", func(t *testing.T) {
		for later, state := range map[time.Duration]valetkey.State{-31 * time.Second: valetkey.Degraded, -29 * time.Second: valetkey.Ready} {
			store := &stateStore{}
			pushing(t, nil, func(t *testing.T, tr *transmitter, r *signals.Receiver) {
				require.Equal(t, 202, pushed(r, tr.set(claim("sub_id", opaque("stream-1")), event(verification, M{}))))
				requests := func() int { tr.mu.Lock(); defer tr.mu.Unlock(); return len(tr.verifies) }
				for requests() < 5 {
					time.Sleep(time.Second)
				}
				require.Equal(t, valetkey.Degraded, health(r).State)
				store.put(`{"transmitter":"` + tr.URL + `","stream_id":"stream-1","contact":"` + at(later) + `","proof":"` + at(later) + `"}`)
				time.Sleep(65 * time.Second)
				assert.Equal(t, state, health(r).State, later)
			}, func(cfg *signals.Config) { cfg.State = store })
		}
	})
	t.Run("a proof of another replica also answers the requests before one that the transmitter has refused as too early", func(t *testing.T) {
		store := &stateStore{}
		pushing(t, nil, func(t *testing.T, tr *transmitter, r *signals.Receiver) {
			require.Equal(t, 202, pushed(r, tr.set(claim("sub_id", opaque("stream-1")), event(verification, M{}))))
			requests := func() int { tr.mu.Lock(); defer tr.mu.Unlock(); return len(tr.verifies) }
			for requests() < 5 {
				time.Sleep(time.Second)
			}
			require.Equal(t, valetkey.Degraded, health(r).State)
			tr.with(func() { tr.onVerify = func(M) int { return 429 } })
			for requests() < 6 {
				time.Sleep(time.Second)
			}
			require.Equal(t, valetkey.Degraded, health(r).State, "the refusal proves nothing")
			store.put(`{"transmitter":"` + tr.URL + `","stream_id":"stream-1","contact":"` + at(-time.Minute) + `","proof":"` + at(-time.Minute) + `"}`)
			time.Sleep(65 * time.Second)
			assert.Equal(t, valetkey.Ready, health(r).State)
		}, func(cfg *signals.Config) { cfg.State = store })
	})
	t.Run("what another replica has received is learned before each verification, so that no token is missing", func(t *testing.T) {
		store := &stateStore{}
		var log logBuffer
		pushing(t, func(tr *transmitter) {
			tr.onVerify = func(M) int { // the event reaches the other replica, which saves it
				store.put(`{"transmitter":"` + tr.URL + `","stream_id":"stream-1","contact":"` + at(0) + `","proof":"` + at(0) + `"}`)
				return 204
			}
		}, func(t *testing.T, _ *transmitter, r *signals.Receiver) {
			time.Sleep(5 * time.Minute)
			assert.Equal(t, valetkey.Ready, health(r).State)
			assert.NotContains(t, log.String(), "verification events do not arrive")
		}, log.log, func(cfg *signals.Config) { cfg.State, cfg.VerifyInterval = store, 10*time.Second })
	})
	t.Run("what is stored is known before the stream counts as set up", func(t *testing.T) {
		store := &stateStore{wait: 2 * time.Second}
		pushing(t, func(tr *transmitter) {
			store.put(`{"transmitter":"` + tr.URL + `","stream_id":"stream-1","contact":"` + at(-time.Minute) + `","proof":"` + at(-time.Minute) + `"}`)
			tr.streams = []M{tr.pushStream("stream-1")}
		}, func(t *testing.T, _ *transmitter, r *signals.Receiver) {
			time.Sleep(2 * time.Second) // the state has been restored, and is being read again
			assert.ErrorContains(t, health(r).Err, "the stream is not set up yet")
			time.Sleep(2 * time.Second)
			assert.Equal(t, valetkey.Ready, health(r).State)
			assert.NoError(t, health(r).Err)
		}, func(cfg *signals.Config) { cfg.State, cfg.RequireProof = store, true })
	})
	t.Run("a file that cannot be replaced is left, without a temporary one", func(t *testing.T) {
		dir := t.TempDir()
		path := filepath.Join(dir, "state")
		require.NoError(t, os.MkdirAll(filepath.Join(path, "not empty"), 0o700))
		assert.Error(t, signals.FileState(path).Save(t.Context(), []byte("{}")))
		left, err := os.ReadDir(dir)
		require.NoError(t, err)
		assert.Len(t, left, 1)
	})
}

// readOnly is a store that cannot be written.
type readOnly struct{}

func (readOnly) Load(context.Context) ([]byte, error) { return nil, nil }
func (readOnly) Save(context.Context, []byte) error   { return errors.New("read-only") }

func TestSetUpAgain(t *testing.T) {
	t.Run("why a stream is not set up is logged, and its end is not such a reason", func(t *testing.T) {
		for status, lines := range map[int]int{0: 0, 403: 1} {
			synctest.Test(t, func(t *testing.T) {
				tr := newTransmitterInMemory(t)
				tr.noCreate = status
				var log logBuffer
				r := newReceiver(t, tr.config(managed(signals.Push), log.log))
				stop := run(t, r)
				time.Sleep(500 * time.Millisecond)
				stop()
				assert.Equal(t, lines, strings.Count(log.String(), "signals: the stream is not set up"), log.String())
				assert.Equal(t, lines, strings.Count(log.String(), "creating the stream: the transmitter answers with status 403"))
				r.Close()
				tr.close()
			})
		}
	})
	t.Run("a time of contact that is later than the saved one stays when it runs again", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tr, store := newTransmitterInMemory(t), &stateStore{}
			r := newReceiver(t, tr.config(managed(signals.Push), func(cfg *signals.Config) { cfg.State, cfg.VerifyInterval = store, -1 }))
			saved := `{"transmitter":"` + tr.URL + `","stream_id":"stream-1","contact":"` + time.Now().Add(-time.Minute).Format(time.RFC3339) + `"}`
			store.put(saved)
			stop := run(t, r)
			time.Sleep(time.Second)
			assert.Equal(t, time.Minute+time.Second, time.Since(r.Status().LastContact), "that of the earlier process")
			require.Equal(t, 202, pushed(r, tr.set()))
			contact := time.Now()
			stop()
			store.put(saved)
			time.Sleep(time.Second)
			stop = run(t, r)
			time.Sleep(time.Second)
			assert.Equal(t, contact, r.Status().LastContact)
			stop()
			r.Close()
			tr.close()
		})
	})
	t.Run("the known facts about the start are logged", func(t *testing.T) {
		for name, c := range map[string]struct {
			state signals.StateStore
			lines []string
		}{
			"without a store":            {nil, []string{"whether events were lost before the start is unknown", "the time of the last contact is not kept across restarts"}},
			"with an empty store":        {&stateStore{}, []string{"whether events were lost before the start is unknown", "there is no record of an earlier contact"}},
			"with a store that is down":  {&stateStore{down: true}, []string{"the saved state cannot be read", "the store is down"}},
			"with a store that is wrong": {&stateStore{text: []byte("x")}, []string{"the saved state cannot be read", "it is not a state of this package"}},
		} {
			var log logBuffer
			pushing(t, nil, func(t *testing.T, _ *transmitter, r *signals.Receiver) {
				for _, line := range c.lines {
					assert.Contains(t, log.String(), line, name)
				}
				assert.Zero(t, r.Status().Gap)
			}, log.log, func(cfg *signals.Config) { cfg.State = c.state })
		}
	})
	t.Run("the stream of a state from the future is used", func(t *testing.T) {
		store := &stateStore{}
		pushing(t, func(tr *transmitter) {
			tr.streams = []M{tr.pushStream("m"), tr.pushStream("n")}
			store.put(`{"transmitter":"` + tr.URL + `","stream_id":"n","contact":"` + time.Now().Add(time.Hour).Format(time.RFC3339) + `"}`)
		}, func(t *testing.T, _ *transmitter, r *signals.Receiver) {
			assert.Equal(t, "n", r.Status().StreamID)
			assert.True(t, r.Status().LastContact.IsZero())
		}, func(cfg *signals.Config) { cfg.State = store })
	})
	t.Run("a stream that was set up for more than a minute is set up again after a second, and else ever later", func(t *testing.T) {
		for _, c := range []struct {
			lasts time.Duration
			most  time.Duration // between the end and the next attempt, of the third
			least time.Duration
		}{{2 * time.Minute, time.Second, 900 * time.Millisecond}, {10 * time.Second, 4 * time.Second, 3600 * time.Millisecond}} {
			synctest.Test(t, func(t *testing.T) {
				tr := newTransmitterInMemory(t)
				tr.streams = []M{tr.stream("m", M{"method": pollMethod}, nil)}
				var begun time.Time // of the session
				var ends, begins []time.Time
				tr.apiFault = func(http.ResponseWriter, *http.Request) bool {
					if begun.IsZero() {
						begun = time.Now()
						begins = append(begins, begun)
					}
					return false
				}
				tr.pollFault = func(w http.ResponseWriter) bool {
					if time.Since(begun) < c.lasts {
						return false
					}
					ends, begun = append(ends, time.Now()), time.Time{}
					w.WriteHeader(404)
					return true
				}
				r := newReceiver(t, tr.config(managed(signals.Poll)))
				stop := run(t, r)
				time.Sleep(4*c.lasts + 10*time.Second)
				stop()
				r.Close()
				tr.close()
				require.Greater(t, len(begins), 3)
				pause := begins[3].Sub(ends[2])
				assert.LessOrEqual(t, pause, c.most)
				assert.GreaterOrEqual(t, pause, c.least)
			})
		}
	})
	t.Run("a status that cannot be read at first is why the stream is not set up", func(t *testing.T) {
		pushing(t, func(tr *transmitter) { tr.metadata["status_endpoint"] = tr.URL + "/none" }, func(t *testing.T, _ *transmitter, r *signals.Receiver) {
			assert.ErrorContains(t, health(r).Err, "reading the status of the stream")
			assert.Equal(t, valetkey.Down, health(r).State)
		})
	})
	t.Run("a transmitter without endpoints for the status and verifications is not asked for them", func(t *testing.T) {
		var log logBuffer
		pushing(t, func(tr *transmitter) { tr.metadata["status_endpoint"], tr.metadata["verification_endpoint"] = nil, nil }, func(t *testing.T, tr *transmitter, r *signals.Receiver) {
			assert.Equal(t, valetkey.Ready, health(r).State)
			time.Sleep(time.Hour)
			tr.mu.Lock()
			assert.Zero(t, tr.statusHit)
			assert.Empty(t, tr.verifies)
			tr.mu.Unlock()
			assert.Equal(t, valetkey.Ready, health(r).State)
			assert.NotContains(t, log.String(), "failed")
		}, log.log)
	})
	t.Run("the status is read once at first", func(t *testing.T) {
		pushing(t, nil, func(t *testing.T, tr *transmitter, _ *signals.Receiver) {
			time.Sleep(4 * time.Minute)
			tr.mu.Lock()
			assert.Equal(t, 1, tr.statusHit)
			tr.mu.Unlock()
		})
	})
	t.Run("a stream that is gone is the reason until it is set up again", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tr := newTransmitterInMemory(t)
			r := newReceiver(t, tr.config(managed(signals.Poll)))
			stop := run(t, r)
			time.Sleep(time.Second)
			tr.with(func() { tr.pollStatus = 404 })
			time.Sleep(700 * time.Millisecond)
			assert.ErrorContains(t, healthErr(r), "polling: the transmitter does not know the stream")
			stop()
			r.Close()
			tr.close()
		})
	})
	t.Run("metadata of another transmitter is an error, although the keys are known", func(t *testing.T) {
		pushing(t, func(tr *transmitter) { tr.metadata["issuer"] = "https://idp.example.com" }, func(t *testing.T, _ *transmitter, r *signals.Receiver) {
			assert.ErrorContains(t, healthErr(r), "it is of the transmitter")
		}, func(cfg *signals.Config) { cfg.JWKSURL = cfg.Transmitter + "/jwks" })
	})
	t.Run("a stream that is created at first is not a gap", func(t *testing.T) {
		var log logBuffer
		pushing(t, nil, func(t *testing.T, _ *transmitter, r *signals.Receiver) {
			assert.Zero(t, r.Status().Gap)
			assert.Contains(t, log.String(), "signals: the stream is set up")
			assert.Contains(t, log.String(), "created=true")
			assert.NotContains(t, log.String(), "does not deliver all events")
		}, log.log)
	})
	t.Run("requests that fail are repeated and logged, and the stream stays", func(t *testing.T) {
		var log logBuffer
		pushing(t, func(tr *transmitter) { tr.onVerify = func(M) int { return 403 } }, func(t *testing.T, tr *transmitter, r *signals.Receiver) {
			time.Sleep(29 * time.Second)
			assert.Equal(t, 1, strings.Count(log.String(), "signals: a request about the stream failed"))
			assert.Contains(t, log.String(), "verifying the stream: the transmitter answers with status 403")
			tr.mu.Lock()
			assert.InDelta(t, 5, len(tr.verifies), 1) // at 0, 1, 3, 7 and 15 s
			tr.onVerify = nil
			tr.mu.Unlock()
			time.Sleep(time.Minute)
			tr.mu.Lock()
			requests := len(tr.verifies)
			tr.mu.Unlock()
			time.Sleep(4 * time.Minute)
			tr.mu.Lock()
			assert.Len(t, tr.verifies, requests, "then at the interval")
			tr.onVerify = func(M) int { return 403 }
			tr.mu.Unlock()
			time.Sleep(100 * time.Second)
			tr.mu.Lock()
			assert.Greater(t, len(tr.verifies), requests+3, "and after a failure as at first")
			tr.mu.Unlock()
		}, log.log)
	})
	t.Run("a request that the end of Run breaks off is not logged as a failure", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tr := newTransmitterInMemory(t)
			tr.onVerify = func(M) int { time.Sleep(3 * time.Second); return 204 }
			var log logBuffer
			r := newReceiver(t, tr.config(managed(signals.Push), log.log))
			stop := run(t, r)
			time.Sleep(time.Second)
			tr.with(func() { assert.Len(t, tr.verifies, 1) })
			stop()
			assert.NotContains(t, log.String(), "failed")
			r.Close()
			tr.close()
			time.Sleep(3 * time.Second) // the answer ends
		})
	})
	t.Run("a stream that is gone when it is verified or its status is read is set up again", func(t *testing.T) {
		for name, prepare := range map[string]func(tr *transmitter){
			"verified": func(tr *transmitter) { tr.onVerify = func(M) int { return 404 } },
			"read":     func(tr *transmitter) { tr.streams = nil },
		} {
			pushing(t, nil, func(t *testing.T, tr *transmitter, r *signals.Receiver) {
				tr.with(func() { prepare(tr) })
				tr.with(func() { tr.queries = nil })
				time.Sleep(7 * time.Minute)
				tr.mu.Lock()
				assert.NotEmpty(t, tr.queries, name)
				tr.mu.Unlock()
			})
		}
	})
}
