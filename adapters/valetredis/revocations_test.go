package valetredis_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/adapters/valetredis"
)

const stream = "valetkey:revocations"

// Why revocations are missing.
const (
	other = "redis does not have the stream any more"
	gap   = ", which is not in redis; the last one read is"
	tail  = "was published and is not in redis"
)

// A follower records the revocations that it must apply.
type follower struct {
	mu      sync.Mutex
	applied []valetkey.Revocation
	reports []string // how many were applied, and whether it has caught up: true, missing or false
	errs    []error  // of reports
	ended   chan error
	stop    context.CancelFunc
}

func follow(t *testing.T, r *valetredis.Redis) *follower {
	ctx, stop := context.WithCancel(context.Background())
	f := &follower{ended: make(chan error, 1), stop: stop}
	go func() {
		f.ended <- r.Watch(ctx, func(all ...valetkey.Revocation) error {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.applied = append(f.applied, all...)
			if slices.ContainsFunc(all, func(r valetkey.Revocation) bool { return r.ID == "refused" }) {
				return errors.New("malformed")
			}
			return nil
		}, func(err error) {
			f.mu.Lock()
			defer f.mu.Unlock()
			how := fmt.Sprint(err == nil)
			if errors.Is(err, valetkey.ErrRevocationsMissing) {
				how = "missing"
			}
			f.reports = append(f.reports, fmt.Sprint(len(f.applied), " ", how))
			f.errs = append(f.errs, err)
		})
	}()
	t.Cleanup(func() {
		stop()
		select {
		case err := <-f.ended:
			assert.ErrorIs(t, err, context.Canceled)
		case <-time.After(soon):
			t.Error("Watch does not end")
		}
	})
	return f
}

func (f *follower) reported() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.reports)
}

// last returns the last report and its error.
func (f *follower) last() (report string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.reports) == 0 {
		return "", nil
	}
	return f.reports[len(f.reports)-1], f.errs[len(f.errs)-1]
}

// says reports whether the last report is how, with an error that contains the text.
func (f *follower) says(how, text string) func() bool {
	return func() bool {
		report, err := f.last()
		return strings.HasSuffix(report, " "+how) && (err == nil || strings.Contains(err.Error(), text))
	}
}

// ids returns those of the revocations applied, in order.
func (f *follower) ids() (ids []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, revoked := range f.applied {
		ids = append(ids, revoked.ID)
	}
	return ids
}

func (f *follower) has(id string) func() bool {
	return func() bool { return slices.Contains(f.ids(), id) }
}

func token(id string) valetkey.Revocation {
	return valetkey.Revocation{Issuer: "https://as.example.com", ID: id}
}

func publish(t *testing.T, r *valetredis.Redis, ids ...string) {
	t.Helper()
	for _, id := range ids {
		eventually(t, "publish", func() bool { return r.Publish(context.Background(), token(id)) == nil })
	}
}

// sealed returns the content of an entry of the stream.
func sealed(t *testing.T, raw *redis.Client) string {
	t.Helper()
	entries, err := raw.XRevRangeN(context.Background(), stream, "+", "-", 1).Result()
	require.NoError(t, err)
	require.Len(t, entries, 1)
	return entries[0].Values["r"].(string)
}

// remove deletes the newest entry of the stream.
func remove(t *testing.T, raw *redis.Client) {
	t.Helper()
	entries, err := raw.XRevRangeN(context.Background(), stream, "+", "-", 1).Result()
	require.NoError(t, err)
	require.Len(t, entries, 1)
	require.NoError(t, raw.XDel(context.Background(), stream, entries[0].ID).Err())
}

// addAt adds an entry that is as old as age.
func addAt(t *testing.T, raw *redis.Client, age time.Duration, values ...any) {
	t.Helper()
	id := fmt.Sprint(time.Now().Add(-age).UnixMilli(), "-1")
	require.NoError(t, raw.XAdd(context.Background(), &redis.XAddArgs{Stream: stream, ID: id, Values: values}).Err())
}

func TestPublish(t *testing.T) {
	s := startServer(t)
	raw, ctx := s.raw(), t.Context()
	r, _ := newRedis(t, newClient(t, s.addr, nil), randomKey(), func(cfg *valetredis.Config) { cfg.Keep = 2 * time.Hour })
	for _, c := range []struct {
		name    string
		revoked valetkey.Revocation
		mistake string
	}{
		{"no issuer", valetkey.Revocation{ID: "1"}, "no Issuer"},
		{"nothing that selects tokens", valetkey.Revocation{Issuer: "i"}, "0 of ID, Subject, ClientID, SessionID and All"},
		{"two selectors", valetkey.Revocation{Issuer: "i", Subject: "s", All: true}, "2 of ID, Subject, ClientID, SessionID and All"},
		{"one that matters for longer than it is kept", valetkey.Revocation{Issuer: "i", ID: "1", Until: time.Now().Add(3 * time.Hour)}, "its Until is further ahead than the 2h0m0s"},
		{"a subject that would be changed on the way", valetkey.Revocation{Issuer: "i", Subject: "s\xff"}, "not UTF-8"},
		{"one too large", valetkey.Revocation{Issuer: "i", Subject: strings.Repeat("s", 8<<10)}, "more than 8192"},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.ErrorContains(t, r.Publish(ctx, c.revoked), c.mistake)
			require.Zero(t, raw.XLen(ctx, stream).Val())
		})
	}
	t.Run("when redis is full, the publisher gets an error and no revocation is dropped", func(t *testing.T) {
		slow := redis.NewClient(&redis.Options{Addr: s.addr, ReadTimeout: time.Minute})
		defer slow.Close()
		// fill adds n entries, by scripts that do not keep redis busy for long.
		fill := func(n int) {
			for added := 0; added < n; added += 1 << 14 {
				script := `for i = 1, tonumber(ARGV[1]) do redis.call('XADD', KEYS[1], '*', 'r', '') end`
				require.ErrorIs(t, slow.Eval(ctx, script, []string{stream}, min(n-added, 1<<14)).Err(), redis.Nil)
			}
		}
		fill(1 << 20)
		require.ErrorContains(t, r.Publish(ctx, token("1")), "redis keeps 1048576 already")
		require.EqualValues(t, 1<<20, raw.XLen(ctx, stream).Val())
		kept := 1 << 20
		for _, c := range []struct {
			room    int // that a kind has and those before do not
			revoked valetkey.Revocation
		}{
			{1 << 17, valetkey.Revocation{Issuer: "i", SessionID: "s"}},
			{1 << 17, valetkey.Revocation{Issuer: "i", Subject: "s"}},
			{1 << 14, valetkey.Revocation{Issuer: "i", ClientID: "c"}},
			{1 << 10, valetkey.Revocation{Issuer: "i", All: true}},
		} {
			require.NoError(t, r.Publish(ctx, c.revoked), "the kinds before take none of its room")
			fill(c.room - 1)
			kept += c.room
			require.ErrorContains(t, r.Publish(ctx, c.revoked), fmt.Sprintf("redis keeps %d already", kept))
		}
		require.NoError(t, raw.Del(ctx, stream).Err())
	})
	t.Run("entries that no longer matter make room", func(t *testing.T) {
		id := func(age time.Duration) string { return fmt.Sprint(time.Now().Add(-age).UnixMilli(), "-1") }
		require.NoError(t, raw.XAdd(ctx, &redis.XAddArgs{Stream: stream, ID: id(4 * time.Hour), Values: []any{"r", "old"}}).Err())
		require.NoError(t, raw.XAdd(ctx, &redis.XAddArgs{Stream: stream, ID: id(3 * time.Hour), Values: []any{"r", "young"}}).Err())
		require.NoError(t, r.Publish(ctx, token("1")))
		entries := raw.XRange(ctx, stream, "-", "+").Val()
		require.Len(t, entries, 2)
		assert.Equal(t, "young", entries[0].Values["r"])
	})
	t.Run("what is revoked cannot be read in redis", func(t *testing.T) {
		require.NoError(t, r.Publish(ctx, token("the-token-id")))
		assert.NotContains(t, sealed(t, raw), "the-token-id")
	})
}

func TestWatch(t *testing.T) {
	s := startServer(t)
	raw, ctx := s.raw(), t.Context()
	// pair returns a publisher and a Redis to follow, in a redis that is empty.
	pair := func(t *testing.T) (*valetredis.Redis, *valetredis.Redis, *journal) {
		require.NoError(t, raw.FlushAll(ctx).Err())
		key := randomKey()
		a, _ := newRedis(t, newClient(t, s.addr, nil), key, nil)
		b, log := newRedis(t, newClient(t, s.addr, nil), key, nil)
		return a, b, log
	}
	add := func(t *testing.T, values ...any) {
		t.Helper()
		require.NoError(t, raw.XAdd(ctx, &redis.XAddArgs{Stream: stream, Values: values}).Err())
	}

	t.Run("whoever writes to redis cannot revoke, and one log line reports it", func(t *testing.T) {
		a, b, log := pair(t)
		stranger, _ := newRedis(t, newClient(t, s.addr, nil), randomKey(), nil)
		publish(t, stranger, "forged")
		add(t, "r", `{"Issuer":"i","ID":"plain"}`)
		add(t, "r", "")
		add(t, "other", "field")
		publish(t, a, "true")
		f := follow(t, b)
		eventually(t, "the true one arrives", f.has("true"))
		assert.Equal(t, []string{"true"}, f.ids())
		assert.Equal(t, 1, log.count("one is skipped"), log)
		eventually(t, "they are counted", f.says("missing", "4 entries in redis cannot be opened"))
	})
	t.Run("one that was changed is skipped", func(t *testing.T) {
		a, b, _ := pair(t)
		publish(t, a, "changed")
		whole := sealed(t, raw)
		require.NoError(t, raw.Del(ctx, stream).Err())
		add(t, "r", whole[:30]+string([]byte{whole[30] ^ 1})+whole[31:])
		publish(t, a, "true")
		f := follow(t, b)
		eventually(t, "the true one arrives", f.has("true"))
		assert.Equal(t, []string{"true"}, f.ids())
	})
	t.Run("one that matters no longer is not applied", func(t *testing.T) {
		a, b, log := pair(t)
		past := token("past")
		past.Until = time.Now().Add(-6 * time.Minute)
		require.NoError(t, a.Publish(ctx, past))
		publish(t, a, "true")
		f := follow(t, b)
		eventually(t, "the other one arrives", f.has("true"))
		assert.Equal(t, []string{"true"}, f.ids())
		assert.Empty(t, log.String())
	})
	t.Run("one whose tokens may be accepted for as long as the leeway lasts is applied", func(t *testing.T) {
		a, b, _ := pair(t)
		late := token("late")
		late.Until = time.Now().Add(-4 * time.Minute)
		require.NoError(t, a.Publish(ctx, late))
		f := follow(t, b)
		eventually(t, "it arrives", f.has("late"))
	})
	t.Run("one that cannot be applied is logged and does not stop the next", func(t *testing.T) {
		a, b, log := pair(t)
		publish(t, a, "refused", "next")
		f := follow(t, b)
		eventually(t, "the next one arrives", f.has("next"))
		eventually(t, "it is logged", func() bool { return log.count("one or more could not be applied") == 1 })
		assert.Contains(t, log.String(), "malformed")
	})
	t.Run("at start all that were made before, in order, then each as it comes", func(t *testing.T) {
		a, b, _ := pair(t)
		var want []string
		for i := range 1100 { // more than two reads
			want = append(want, fmt.Sprint(i))
		}
		publish(t, a, want...)
		f := follow(t, b)
		eventually(t, "the last one made before", f.has("1099"))
		eventually(t, "it has caught up", func() bool { return len(f.reported()) > 0 })
		assert.Equal(t, []string{"1100 true"}, f.reported(), "with all of them, and not before")
		publish(t, b, "later")
		eventually(t, "the later one", f.has("later"))
		assert.Equal(t, []string{"1100 true"}, f.reported())
		assert.Equal(t, append(want, "later"), f.ids())
		require.Len(t, b.Health(), 2)
		assert.Equal(t, valetkey.Ready, b.Health()[1].State)
	})
	t.Run("it arrives within a second", func(t *testing.T) {
		a, b, _ := pair(t)
		f := follow(t, b)
		publish(t, a, "first")
		eventually(t, "the first one", f.has("first"))
		for n := range 10 { // the machine may be slow with some of them
			id, begun := fmt.Sprint(n), time.Now()
			require.NoError(t, a.Publish(ctx, token(id)))
			eventually(t, "it arrives", f.has(id))
			if time.Since(begun) < time.Second {
				return
			}
		}
		require.Fail(t, "none of ten did")
	})
	t.Run("it arrives as it was made", func(t *testing.T) {
		a, b, _ := pair(t)
		f := follow(t, b)
		publish(t, a, "first")
		eventually(t, "the first one", f.has("first"))
		before, begun := time.Now().Add(-time.Hour).UTC(), time.Now()
		sent := []valetkey.Revocation{
			{Issuer: "i", Subject: "s", Before: before, Until: before.Add(3 * time.Hour)},
			{Issuer: "i", ClientID: "c", Before: before, Until: before.Add(2 * time.Hour)},
			{Issuer: "i", All: true, Before: before, Until: before.Add(2 * time.Hour)},
			{Issuer: "i", Subject: "without times"},
		}
		for _, revoked := range sent {
			require.NoError(t, a.Publish(ctx, revoked))
		}
		published := time.Now()
		eventually(t, "all of them", func() bool { return len(f.ids()) == 5 })
		f.mu.Lock()
		defer f.mu.Unlock()
		got := f.applied[1:]
		for i := range 3 {
			got[i].Before, got[i].Until = got[i].Before.UTC(), got[i].Until.UTC()
		}
		assert.Equal(t, sent[:3], got[:3])
		assert.Zero(t, got[3].Before, "our clock is not the issuer's")
		assert.WithinRange(t, got[3].At, begun, published) // not when it is applied, which may be later
		assert.True(t, got[3].At.Add(24*time.Hour).Equal(got[3].Until))
	})
	t.Run("a change of keys loses none", func(t *testing.T) {
		require.NoError(t, raw.FlushAll(ctx).Err())
		was, will := randomKey(), randomKey()
		with := func(key, other []byte) *valetredis.Redis {
			r, _ := newRedis(t, newClient(t, s.addr, nil), key, func(cfg *valetredis.Config) { cfg.PreviousKeys = [][]byte{other} })
			return r
		}
		behind, ahead := with(was, will), with(will, was)
		f, g := follow(t, behind), follow(t, ahead)
		publish(t, behind, "of the old key")
		publish(t, ahead, "of the new key")
		for _, each := range []*follower{f, g} {
			eventually(t, "old", each.has("of the old key"))
			eventually(t, "new", each.has("of the new key"))
		}
	})
	t.Run("it ends with its context, not with the read that waits", func(t *testing.T) {
		_, b, _ := pair(t)
		require.NoError(t, raw.ConfigResetStat(ctx).Err())
		begun := time.Now()
		f := follow(t, b)
		eventually(t, "it follows", func() bool { return len(b.Health()) == 2 })
		calls := s.stat("commandstats", "cmdstat_xread:calls=")
		assert.LessOrEqual(t, calls, 2+int(time.Since(begun)/time.Second), "it waits in redis for a second and does not ask all the time")
		f.stop()
		require.ErrorIs(t, <-f.ended, context.Canceled)
		f.ended <- context.Canceled // for the clean-up
	})
	for _, c := range []struct {
		name    string
		happens func(t *testing.T, publisher *valetredis.Redis) // while the cable is cut
		want    []string                                        // of what is applied after
		missing string                                          // the reason that is reported for as long as what is lost may matter
	}{
		{"nothing happened", func(*testing.T, *valetredis.Redis) {}, nil, ""},
		{"one was published", func(t *testing.T, r *valetredis.Redis) { publish(t, r, "new") }, []string{"new"}, ""},
		{"only entries that it has read were trimmed", func(t *testing.T, r *valetredis.Redis) {
			require.NoError(t, raw.XTrimMaxLen(ctx, stream, 0).Err())
			publish(t, r, "new")
		}, []string{"new"}, ""},
		{"redis was emptied", func(t *testing.T, r *valetredis.Redis) {
			require.NoError(t, raw.FlushAll(ctx).Err())
		}, nil, other},
		{"the stream was deleted", func(t *testing.T, r *valetredis.Redis) {
			publish(t, r, "lost")
			require.NoError(t, raw.Del(ctx, stream).Err())
		}, nil, other},
		{"redis was emptied and one was published", func(t *testing.T, r *valetredis.Redis) {
			require.NoError(t, raw.FlushAll(ctx).Err())
			publish(t, r, "new")
		}, []string{"new"}, gap},
		{"the stream was trimmed past the last one read", func(t *testing.T, r *valetredis.Redis) {
			publish(t, r, "lost", "new", "newer")
			require.NoError(t, raw.XTrimMaxLen(ctx, stream, 2).Err())
		}, []string{"new", "newer"}, gap},
		{"one was published and deleted, and another one published", func(t *testing.T, r *valetredis.Redis) {
			publish(t, r, "lost")
			remove(t, raw)
			publish(t, r, "new")
		}, []string{"1", "2", "new"}, gap},
		{"one was published and deleted", func(t *testing.T, r *valetredis.Redis) {
			publish(t, r, "lost")
			remove(t, raw)
		}, nil, tail},
		{"the clock of redis was set back", func(t *testing.T, r *valetredis.Redis) {
			publish(t, r, "new")
			entry := sealed(t, raw)
			require.NoError(t, raw.FlushAll(ctx).Err())
			addAt(t, raw, time.Hour, "r", entry)
		}, []string{"new"}, other},
		{"redis is another one, behind in some and ahead in others", func(t *testing.T, r *valetredis.Redis) {
			publish(t, r, "behind")
			entry := sealed(t, raw)
			require.NoError(t, raw.FlushAll(ctx).Err())
			addAt(t, raw, time.Hour, "r", entry)
			publish(t, r, "ahead")
		}, []string{"behind", "ahead"}, gap},
	} {
		t.Run("after a cut cable it catches up: "+c.name, func(t *testing.T) {
			require.NoError(t, raw.FlushAll(ctx).Err())
			key, line := randomKey(), new(cable)
			a, _ := newRedis(t, newClient(t, s.addr, nil), key, nil)
			b, log := newRedis(t, newClient(t, s.addr, line), key, nil)
			f := follow(t, b)
			publish(t, a, "1", "2")
			eventually(t, "two", f.has("2"))

			line.cut()
			eventually(t, "it is known", func() bool { return b.Health()[1].State == valetkey.Degraded })
			assert.Error(t, b.Health()[1].Err)
			eventually(t, "it is reported", f.says("false", ""))
			c.happens(t, a)
			assert.Equal(t, []string{"1", "2"}, f.ids(), "the cable is cut")
			line.mend()

			how, last := "true", valetkey.Ready
			if c.missing != "" {
				how, last = "missing", valetkey.Degraded
			}
			eventually(t, "it is mended", f.says(how, c.missing))
			publish(t, a, "end")
			eventually(t, "it goes on", f.has("end"))
			reports := f.reported()
			require.GreaterOrEqual(t, len(reports), 3)
			assert.Contains(t, []string{"0 true", "1 true", "2 true"}, reports[0])
			for _, lost := range reports[1 : len(reports)-1] {
				assert.Equal(t, "2 false", lost, "it is never called caught up before what is lost is known")
			}
			assert.True(t, f.says(how, c.missing)())
			assert.Equal(t, last, b.Health()[1].State)
			assert.Equal(t, slices.Concat([]string{"1", "2"}, c.want, []string{"end"}), f.ids())
			assert.Equal(t, 1, log.count("redis: revocations: redis does not answer"), log)
			assert.Equal(t, 1, log.count("redis: revocations: redis answers again"), log)
			if c.missing != "" {
				assert.Equal(t, 1, log.count("some are missing"), log)
				assert.ErrorContains(t, b.Health()[1].Err, c.missing)
				assert.ErrorContains(t, b.Health()[1].Err, "publish again what must stay revoked")
			} else {
				assert.Zero(t, log.count("some are missing"), log)
			}
		})
	}
	t.Run("lost entries are missing only for as long as they may matter", func(t *testing.T) {
		key := randomKey()
		day, _ := newRedis(t, newClient(t, s.addr, nil), key, nil)
		minute, _ := newRedis(t, newClient(t, s.addr, nil), key, func(cfg *valetredis.Config) { cfg.Keep = time.Minute })
		for left := 6 * time.Second; ; left *= 3 { // longer on a machine that does not start to follow before it is over
			require.NoError(t, raw.FlushAll(ctx).Err())
			addAt(t, raw, 6*time.Minute-left, "r", "lost")
			begun := time.Now()
			publish(t, minute, "1")
			require.NoError(t, raw.XTrimMaxLen(ctx, stream, 1).Err())
			f, g := follow(t, day), follow(t, minute)
			eventually(t, "one day", func() bool { return len(f.reported()) > 0 })
			eventually(t, "one minute", func() bool { return len(g.reported()) > 0 })
			late := time.Since(begun) > left
			eventually(t, "for a minute, and the leeway", func() bool { reports := g.reported(); return reports[len(reports)-1] == "1 true" })
			assert.Equal(t, []string{"1 missing"}, f.reported(), "for a day")
			if !late {
				assert.Equal(t, []string{"1 missing", "1 true"}, g.reported())
				return
			}
		}
	})
	t.Run("that the last one read was trimmed in its time is nothing to warn of", func(t *testing.T) {
		require.NoError(t, raw.FlushAll(ctx).Err())
		key := randomKey()
		a, _ := newRedis(t, newClient(t, s.addr, nil), key, nil)
		b, log := newRedis(t, newClient(t, s.addr, nil), key, func(cfg *valetredis.Config) { cfg.Keep = time.Hour })
		publish(t, a, "old")
		entry := sealed(t, raw)
		require.NoError(t, raw.FlushAll(ctx).Err())
		id := fmt.Sprint(time.Now().Add(-3*time.Hour).UnixMilli(), "-1")
		require.NoError(t, raw.XAdd(ctx, &redis.XAddArgs{Stream: stream, ID: id, Values: []any{"r", entry}}).Err())
		f := follow(t, b)
		eventually(t, "the old one", f.has("old"))
		publish(t, b, "new") // which trims
		require.EqualValues(t, 1, raw.XLen(ctx, stream).Val())
		eventually(t, "the new one", f.has("new"))
		assert.Equal(t, []string{"old", "new"}, f.ids())
		assert.Empty(t, log.String())
	})
	t.Run("a redis that was emptied under a standing connection is noticed", func(t *testing.T) {
		a, b, log := pair(t)
		f := follow(t, b)
		publish(t, a, "1")
		eventually(t, "one", f.has("1"))
		entry := sealed(t, raw)
		require.NoError(t, raw.FlushAll(ctx).Err())
		require.NoError(t, raw.XAdd(ctx, &redis.XAddArgs{Stream: stream, ID: "1-1", Values: []any{"r", entry}}).Err())
		eventually(t, "again from the start", func() bool { return len(f.ids()) == 2 })
		eventually(t, "it is missing some", f.says("missing", other))
		assert.Equal(t, 1, log.count("some are missing"), log)
	})
	t.Run("one that is deleted under a standing connection before it is read is noticed", func(t *testing.T) {
		a, b, _ := pair(t)
		f := follow(t, b)
		publish(t, a, "1")
		eventually(t, "one", f.has("1"))
		_, err := raw.TxPipelined(ctx, func(p redis.Pipeliner) error {
			p.XAdd(ctx, &redis.XAddArgs{Stream: stream, ID: "99999999999999-1", Values: []any{"r", ""}})
			p.XDel(ctx, stream, "99999999999999-1")
			return nil
		})
		require.NoError(t, err)
		eventually(t, "it is missing some", f.says("missing", tail))
	})
	t.Run("without an entry that opens it has not caught up", func(t *testing.T) {
		a, b, log := pair(t)
		stranger, _ := newRedis(t, newClient(t, s.addr, nil), randomKey(), nil)
		publish(t, stranger, "1", "2")
		f := follow(t, b)
		eventually(t, "it is reported", f.says("false", "2 entries in redis cannot be opened"))
		assert.Equal(t, []string{"0 false"}, f.reported())
		assert.Equal(t, valetkey.Degraded, b.Health()[1].State)
		publish(t, stranger, "3")
		eventually(t, "and counts them", f.says("false", "3 entries in redis cannot be opened"))
		publish(t, a, "4")
		eventually(t, "with one that opens it has", f.has("4"))
		eventually(t, "except for those", f.says("missing", "3 entries in redis cannot be opened"))
		assert.Equal(t, 1, log.count("some are missing"), log)
	})
	t.Run("entries that cannot be opened count for as long as they may matter", func(t *testing.T) {
		_, b, _ := pair(t)
		addAt(t, raw, 26*time.Hour, "r", "junk")
		f := follow(t, b)
		eventually(t, "too old to matter", f.says("true", ""))
		add(t, "r", "junk")
		eventually(t, "none opens", f.says("false", "1 entries in redis"))
		require.NoError(t, raw.XTrimMaxLen(ctx, stream, 0).Err())
		eventually(t, "none is there", f.says("true", ""))
	})
}

func TestWatchKnowsWhetherAStreamIsWhole(t *testing.T) {
	s := startServer(t)
	raw := s.raw()
	for _, c := range []struct {
		name    string
		happens func(t *testing.T, publisher *valetredis.Redis)
		missing string
	}{
		{"nothing is published yet", func(*testing.T, *valetredis.Redis) {}, ""},
		{"the first ones were trimmed", func(t *testing.T, r *valetredis.Redis) {
			publish(t, r, "1", "2", "3")
			require.NoError(t, raw.XTrimMaxLen(t.Context(), stream, 2).Err())
		}, gap},
		{"one in the middle was deleted", func(t *testing.T, r *valetredis.Redis) {
			publish(t, r, "1", "2")
			remove(t, raw)
			publish(t, r, "3")
		}, gap},
		{"the last one was deleted", func(t *testing.T, r *valetredis.Redis) {
			publish(t, r, "1", "2")
			remove(t, raw)
		}, tail},
		{"all were deleted", func(t *testing.T, r *valetredis.Redis) {
			publish(t, r, "1")
			remove(t, raw)
		}, tail},
		{"the first ones were trimmed in their time", func(t *testing.T, r *valetredis.Redis) {
			addAt(t, raw, 26*time.Hour, "r", "old")
			publish(t, r, "1") // which trims
			require.EqualValues(t, 1, raw.XLen(t.Context(), stream).Val())
		}, ""},
		{"all were trimmed in their time", func(t *testing.T, r *valetredis.Redis) {
			addAt(t, raw, 26*time.Hour, "r", "old")
			require.NoError(t, raw.XTrimMaxLen(t.Context(), stream, 0).Err())
		}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.NoError(t, raw.FlushAll(t.Context()).Err())
			r, _ := newRedis(t, newClient(t, s.addr, nil), randomKey(), nil)
			c.happens(t, r)
			f := follow(t, r)
			eventually(t, "it has caught up", func() bool { return len(f.reported()) > 0 })
			report, err := f.last()
			if c.missing == "" {
				require.NoError(t, err)
				return
			}
			require.True(t, strings.HasSuffix(report, " missing"), report)
			require.ErrorContains(t, err, c.missing)
		})
	}
}

func TestWatchWhenRedisGoesAndComesBack(t *testing.T) {
	s := startServer(t)
	ctx, key := t.Context(), randomKey()
	a, _ := newRedis(t, newClient(t, s.addr, nil), key, nil)
	b, log := newRedis(t, newClient(t, s.addr, nil), key, nil)
	f, g := follow(t, a), follow(t, b)
	both := func(id string) {
		t.Helper()
		eventually(t, "one follower has "+id, f.has(id))
		eventually(t, "the other has "+id, g.has(id))
	}
	publish(t, a, "1")
	both("1")
	require.NoError(t, s.raw().Save(ctx).Err())

	s.kill()
	eventually(t, "it is known", func() bool { return b.Health()[1].State == valetkey.Degraded })
	require.Error(t, a.Publish(ctx, token("lost")), "the publisher gets an error")
	s.start() // with the saved data
	publish(t, a, "2")
	both("2")
	assert.Zero(t, log.count("some are missing"), log)
	eventually(t, "nothing is lost", func() bool { return b.Health()[1].State == valetkey.Ready })

	s.kill()
	eventually(t, "it is known again", func() bool { return b.Health()[1].State == valetkey.Degraded })
	s.dir = t.TempDir()
	s.start() // empty
	publish(t, b, "3")
	both("3")
	assert.Equal(t, []string{"1", "2", "3"}, g.ids())
	eventually(t, "it is reported", g.says("missing", "redis has lost revocations"))
	assert.Equal(t, 1, log.count("some are missing"), log)

	late, _ := newRedis(t, newClient(t, s.addr, nil), key, nil)
	h := follow(t, late)
	eventually(t, "a late one hears of what redis has", h.has("3"))
	assert.Equal(t, []string{"3"}, h.ids())
}

func TestWatchASilentRedis(t *testing.T) {
	quiet, addr := startSilent(t, "127.0.0.1:0")
	t.Run("it is known", func(t *testing.T) {
		r, _ := newRedis(t, newClient(t, addr, nil), randomKey(), nil)
		follow(t, r)
		eventually(t, "it asks", func() bool { return quiet.accepted.Load() > 0 })
		eventually(t, "it is known", func() bool { return len(r.Health()) == 2 && r.Health()[1].State == valetkey.Degraded })
	})
	t.Run("it ends with its context, though a read does not end", func(t *testing.T) {
		reads, release := make(chan struct{}, 100), make(chan struct{})
		client := redis.NewClient(&redis.Options{Addr: addr, ContextTimeoutEnabled: true, Dialer: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, network, addr)
			return endless{conn, reads, release}, err
		}})
		t.Cleanup(func() { close(release); client.Close() })
		r, _ := newRedis(t, client, randomKey(), nil)
		f := follow(t, r)
		<-reads
		f.stop()
		require.ErrorIs(t, <-f.ended, context.Canceled)
		f.ended <- context.Canceled // for the clean-up
	})
}

// An endless connection keeps to no deadline: a Read lasts until release is closed.
type endless struct {
	net.Conn
	reads   chan<- struct{}
	release <-chan struct{}
}

func (c endless) Read([]byte) (int, error) {
	c.reads <- struct{}{}
	<-c.release
	return 0, io.EOF
}
