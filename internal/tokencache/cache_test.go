package tokencache_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/tokencache"
)

// verifier accepts every token, with the token itself as subject and the number of the call as ID.
type verifier struct {
	calls atomic.Int64
	reuse func() valetkey.Freshness // nil: for an hour
}

func (v *verifier) Verify(_ context.Context, raw string) (*valetkey.Token, error) {
	t := valetkey.TokenFields{Subject: raw, ID: fmt.Sprint(v.calls.Add(1)), Freshness: hour()}
	if v.reuse != nil {
		t.Freshness = v.reuse()
	}
	return valetkey.NewToken(t), nil
}

func hour() valetkey.Freshness { return valetkey.Freshness{Until: time.Now().Add(time.Hour)} }

type condition struct{ gone atomic.Bool }

func (c *condition) Holds() bool { return !c.gone.Load() }

// while is a condition that == panics on.
type while func() bool

func (w while) Holds() bool { return w() }

type cache struct {
	*tokencache.Cache
	t testing.TB
}

func newCache(t testing.TB, cfg tokencache.Config, v valetkey.Verifier) cache {
	return cache{tokencache.New(cfg, v), t}
}

// id verifies raw, which must be accepted as itself, and returns which call of the verifier vouched for it.
func (c cache) id(raw string) string {
	c.t.Helper()
	e, _, err := c.Verify(c.t.Context(), raw)
	require.NoError(c.t, err)
	require.Equal(c.t, raw, e.Token.Subject())
	require.True(c.t, e.In(c.Cache))
	return e.Token.ID()
}

func TestLifetime(t *testing.T) {
	for _, c := range []struct {
		name  string
		cfg   tokencache.Config
		reuse time.Duration
		until time.Duration // the last moment at which the token is still remembered; -1: never
	}{
		{"VCACHE-01 a token that may not be reused is not remembered", tokencache.Config{}, 0, -1},
		{"VCACHE-01 a token whose time is past is not remembered", tokencache.Config{}, -time.Second, -1},
		{"VCACHE-01 a token is forgotten when its time comes", tokencache.Config{}, time.Minute, time.Minute - 1},
		{"nothing is remembered with a negative number of entries", tokencache.Config{Entries: -1}, time.Hour, -1},
		{"nothing is remembered with a negative number of bytes", tokencache.Config{Bytes: -1}, time.Hour, -1},
		{"nothing is remembered with a very negative number of bytes", tokencache.Config{Bytes: -1 << 62}, time.Hour, -1},
		{"a token is verified again after the maximum age", tokencache.Config{MaxAge: time.Second}, time.Hour, time.Second - 1},
		{"the default maximum age is five minutes", tokencache.Config{}, time.Hour, 5*time.Minute - 1},
		{"a token for ever is verified again after the maximum age", tokencache.Config{}, 1 << 62, 5*time.Minute - 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				v := &verifier{reuse: func() valetkey.Freshness { return valetkey.Freshness{Until: time.Now().Add(c.reuse)} }}
				memory := newCache(t, c.cfg, v)
				require.Equal(t, "1", memory.id("a"))
				if c.until < 0 {
					assert.Equal(t, "2", memory.id("a"))
					assert.Zero(t, memory.Stats().Entries)
					return
				}
				for range 4 { // a lifetime does not slide
					time.Sleep(c.until / 4)
					assert.Equal(t, "1", memory.id("a"))
				}
				time.Sleep(c.until - c.until/4*4)
				assert.Equal(t, "1", memory.id("a"))
				time.Sleep(time.Nanosecond)
				assert.Equal(t, "2", memory.id("a"))
				assert.Equal(t, 1, memory.Stats().Entries)
			})
		})
	}

	t.Run("a token that may not be reused is accepted all the same", func(t *testing.T) {
		v := &verifier{reuse: func() valetkey.Freshness { return valetkey.Freshness{} }}
		assert.Equal(t, "1", newCache(t, tokencache.Config{}, v).id("a"))
	})
	t.Run("the wall clock counts, as for exp: the monotonic one stops while a machine sleeps", func(t *testing.T) {
		memory := newCache(t, tokencache.Config{}, new(verifier))
		e, _, err := memory.Verify(t.Context(), "a")
		require.NoError(t, err)
		until := e.Token.Freshness().Until
		require.WithinDuration(t, time.Now().Add(5*time.Minute), until, time.Minute)
		assert.True(t, until == until.Round(0), "%v has a monotonic reading", until)
	})
	t.Run("expired entries are removed as others are added, without a lookup", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			memory := newCache(t, tokencache.Config{Entries: 100}, &verifier{})
			for i := range 50 {
				memory.id(fmt.Sprint("old", i))
			}
			time.Sleep(5 * time.Minute)
			for i := range 50 {
				memory.id(fmt.Sprint("new", i))
			}
			assert.Equal(t, 50, memory.Stats().Entries)
			assert.Zero(t, memory.Stats().Evictions)
		})
	})
	t.Run("VCACHE-06 an entry dies with its condition", func(t *testing.T) {
		key := new(condition)
		v := &verifier{reuse: func() valetkey.Freshness {
			r := hour()
			r.While = key
			return r
		}}
		memory := newCache(t, tokencache.Config{}, v)
		require.Equal(t, "1", memory.id("a"))
		require.Equal(t, "1", memory.id("a"))
		key.gone.Store(true)
		key = new(condition) // the key set has another key by now
		assert.Equal(t, "2", memory.id("a"))
		assert.Equal(t, "2", memory.id("a"))
		assert.Equal(t, 1, memory.Stats().Entries)
	})
}

func TestWhatIsNotRemembered(t *testing.T) {
	var (
		refusal = &valetkey.Error{Code: valetkey.InvalidToken, Reason: valetkey.NewReason("test_the_token_is_not_valid_yet", "the token is not valid yet")}
		failure = errors.New("the key set is out of reach")
	)
	t.Run("VCACHE-02 a token refused before its nbf is accepted after it", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			nbf := time.Now().Add(time.Second)
			v := new(verifier)
			memory := newCache(t, tokencache.Config{}, valetkey.VerifierFunc(func(ctx context.Context, raw string) (*valetkey.Token, error) {
				if time.Now().Before(nbf) {
					return nil, refusal
				}
				return v.Verify(ctx, raw)
			}))
			_, _, err := memory.Verify(t.Context(), "a")
			require.Equal(t, error(refusal), err)
			time.Sleep(time.Second)
			assert.Equal(t, "1", memory.id("a"))
		})
	})
	t.Run("VCACHE-11 a flood of refused tokens takes no room", func(t *testing.T) {
		v := new(verifier)
		memory := newCache(t, tokencache.Config{Entries: 10}, valetkey.VerifierFunc(func(ctx context.Context, raw string) (*valetkey.Token, error) {
			if strings.HasPrefix(raw, "forged") {
				return nil, refusal
			}
			return v.Verify(ctx, raw)
		}))
		for i := range 10 {
			memory.id(fmt.Sprint(i))
		}
		before := memory.Stats()
		for i := range 10_000 {
			_, _, err := memory.Verify(t.Context(), fmt.Sprint("forged", i))
			require.Equal(t, error(refusal), err)
		}
		after := memory.Stats()
		assert.Equal(t, before.Bytes, after.Bytes)
		assert.Zero(t, after.Evictions)
		for i := range 10 {
			assert.Equal(t, fmt.Sprint(i+1), memory.id(fmt.Sprint(i)))
		}
	})
	t.Run("VCACHE-12 a failure is forgotten", func(t *testing.T) {
		down := true
		v := new(verifier)
		memory := newCache(t, tokencache.Config{}, valetkey.VerifierFunc(func(ctx context.Context, raw string) (*valetkey.Token, error) {
			if down {
				return nil, failure
			}
			return v.Verify(ctx, raw)
		}))
		_, _, err := memory.Verify(t.Context(), "a")
		require.Equal(t, failure, err)
		assert.Zero(t, memory.Stats().Entries)
		down = false
		assert.Equal(t, "1", memory.id("a"))
	})
	for _, entries := range []int{-1, 0} {
		t.Run(fmt.Sprintf("neither a token nor an error is a failure, with %d entries", entries), func(t *testing.T) {
			memory := newCache(t, tokencache.Config{Entries: entries}, valetkey.VerifierFunc(func(context.Context, string) (*valetkey.Token, error) { return nil, nil }))
			e, _, err := memory.Verify(t.Context(), "a")
			require.Error(t, err)
			assert.Nil(t, e)
			var refused *valetkey.Error
			assert.False(t, errors.As(err, &refused))
		})
	}
}

func TestKey(t *testing.T) {
	t.Run("VCACHE-03 tokens that differ in one bit have different entries", func(t *testing.T) {
		raw := strings.Repeat("header.", 10) + strings.Repeat("payload.", 20) + strings.Repeat("signature", 5)
		memory := newCache(t, tokencache.Config{}, new(verifier))
		memory.id(raw)
		for i := range raw {
			for bit := range 8 {
				other := []byte(raw)
				other[i] ^= 1 << bit
				memory.id(string(other))
			}
			memory.id(raw[:i])
			memory.id(raw[i+1:])
		}
		for _, other := range []string{raw + "\x00", "\x00" + raw, raw + raw, ""} {
			memory.id(other)
		}
		assert.Equal(t, "1", memory.id(raw))
	})
	t.Run("VCACHE-04 there is no custom key function", func(t *testing.T) {
		var fields []string
		for _, f := range reflect.VisibleFields(reflect.TypeFor[tokencache.Config]()) {
			fields = append(fields, f.Name+" "+f.Type.String())
		}
		assert.Equal(t, []string{"Entries int", "Bytes int64", "MaxAge time.Duration", "Now func() time.Time", "Claims valetkey.Claims"}, fields)
	})
	t.Run("VCACHE-05 two caches share nothing", func(t *testing.T) {
		mine, others := newCache(t, tokencache.Config{}, new(verifier)), newCache(t, tokencache.Config{}, valetkey.VerifierFunc(
			func(context.Context, string) (*valetkey.Token, error) {
				return nil, &valetkey.Error{Code: valetkey.InvalidToken}
			}))
		e, _, err := mine.Verify(t.Context(), "a")
		require.NoError(t, err)
		assert.True(t, e.In(mine.Cache))
		assert.False(t, e.In(others.Cache))
		_, _, err = others.Verify(t.Context(), "a")
		assert.Error(t, err)
	})
	t.Run("HMAC serves where FIPS 140-only mode forbids GMAC", func(t *testing.T) {
		if os.Getenv("GODEBUG") != "fips140=only" {
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKey$/^(VCACHE-0|HMAC)", "-test.v")
			cmd.Env = append(os.Environ(), "GODEBUG=fips140=only")
			out, err := cmd.CombinedOutput()
			require.NoError(t, err, "%s", out)
			require.Contains(t, string(out), "PASS: TestKey/VCACHE-03")
		}
	})
}

func TestOwnership(t *testing.T) {
	given := valetkey.NewToken(valetkey.TokenFields{
		Issuer: "https://as.example.com", Subject: "alice", ClientID: "c\n", ID: "j1", SessionID: "s1", ACR: "phr", AuthTime: time.Unix(0, 7e3), Actor: &valetkey.Actor{Subject: "alice", ClientID: "agent"},
		Audience: valetkey.ListOf("https://api.example.com", "b"), Scopes: valetkey.NewScopes("orders:read", "not in raw"),
		IssuedAt: time.Unix(1, 0), NotBefore: time.Unix(2, 0), Expiry: time.Unix(4e9, 5e3), Deadline: time.Unix(4e9+30, 5e3),
		Binding:   valetkey.Binding{JWKThumbprint: "jkt", Unknown: valetkey.ListOf("", "x")},
		Raw:       `{"iss":"https://as.example.com","sub":"alice","client_id":"c\n","aud":["https://api.example.com","b"],"scope":"orders:read"}`,
		Freshness: valetkey.Freshness{Until: time.Now().Truncate(time.Microsecond).Add(time.Minute)},
	})
	memory := newCache(t, tokencache.Config{}, valetkey.VerifierFunc(func(context.Context, string) (*valetkey.Token, error) { return given, nil }))

	e, _, err := memory.Verify(t.Context(), "a")
	require.NoError(t, err)
	assert.Equal(t, given, e.Token)
	e, remembered, err := memory.Verify(t.Context(), "a")
	require.NoError(t, err)
	assert.True(t, remembered)
	assert.Equal(t, given, e.Token)

	t.Run("nothing that the verifier allocated is kept", func(t *testing.T) {
		collected := make(chan struct{})
		memory := newCache(t, tokencache.Config{}, valetkey.VerifierFunc(func(context.Context, string) (*valetkey.Token, error) {
			large := []byte(strings.Repeat("x", 1<<16))
			runtime.AddCleanup(&large[0], func(done chan struct{}) { close(done) }, collected)
			list := []string{string(large[:10])}
			return valetkey.NewToken(valetkey.TokenFields{Raw: string(large[1:20]), Audience: valetkey.ListOf(list...), Freshness: hour()}), nil
		}))
		e, _, err := memory.Verify(t.Context(), "a")
		require.NoError(t, err)
		for range 10 {
			runtime.GC()
			select {
			case <-collected:
				assert.Equal(t, "xxxxxxxxxxxxxxxxxxx", e.Token.Raw())
				assert.Equal(t, 1, memory.Stats().Entries)
				return
			case <-time.After(time.Second):
			}
		}
		t.Fatal("the verifier's buffer is still held")
	})
	t.Run("tokens of one kind share their lists, and other tokens do not", func(t *testing.T) {
		vouches := new(condition)
		kinds := map[string]valetkey.TokenFields{ // by the first letter of the token
			"a": {Issuer: "i", Audience: valetkey.ListOf("a", "bc"), Scopes: valetkey.NewScopes("s", "t")},
			"b": {Issuer: "i", Audience: valetkey.ListOf("ab", "c"), Scopes: valetkey.NewScopes("s", "t")},
			"c": {Issuer: "i", Audience: valetkey.ListOf("a", "bc", "s"), Scopes: valetkey.NewScopes("t")},
			"d": {Issuer: "i", Audience: valetkey.ListOf("a", "bc"), Scopes: valetkey.NewScopes("s", "t"), Freshness: valetkey.Freshness{While: vouches}},
			"e": {Issuer: "", Audience: valetkey.ListOf("i", "a", "bc"), Scopes: valetkey.NewScopes("s", "t")},
			"f": {},
		}
		memory := newCache(t, tokencache.Config{Bytes: 1 << 20}, valetkey.VerifierFunc(func(_ context.Context, raw string) (*valetkey.Token, error) {
			kind := kinds[raw[:1]]
			kind.Subject, kind.Freshness.Until = raw, hour().Until
			return valetkey.NewToken(kind), nil
		}))
		get := func(raw string) *valetkey.Token {
			e, _, err := memory.Verify(t.Context(), raw)
			require.NoError(t, err)
			return e.Token
		}
		for range 2 {
			for name, want := range kinds {
				one, two := get(name+"1"), get(name+"2")
				assert.Equal(t, name+"1", one.Subject())
				assert.Equal(t, name+"2", two.Subject())
				for _, token := range []*valetkey.Token{one, two} {
					assert.Equal(t, want.Issuer, token.Issuer())
					assert.Equal(t, want.Audience, token.Audience())
					assert.Equal(t, want.Scopes, token.Scopes())
					assert.Equal(t, want.Freshness.While, token.Freshness().While)
				}
				if want.Audience.Len() > 0 {
					assert.Same(t, unsafe.StringData(one.Audience().At(0)), unsafe.StringData(two.Audience().At(0)))
					assert.Same(t, unsafe.StringData(one.Scopes().Slice()[0]), unsafe.StringData(two.Scopes().Slice()[0]))
				}
			}
		}
		kind := memory.Stats().Bytes
		memory.Purge(func(token *valetkey.Token) bool { return token.Subject() == "a1" })
		one := kind - memory.Stats().Bytes
		memory.Purge(func(token *valetkey.Token) bool { return token.Subject() == "a2" })
		assert.Greater(t, kind-memory.Stats().Bytes-one, one+100, "the last token of a kind takes it along")
	})
	t.Run("conditions that cannot be compared are not mixed up", func(t *testing.T) {
		gone := map[string]bool{}
		memory := newCache(t, tokencache.Config{}, valetkey.VerifierFunc(func(_ context.Context, raw string) (*valetkey.Token, error) {
			reuse := valetkey.Freshness{Until: hour().Until, While: while(func() bool { return !gone[raw] })}
			return valetkey.NewToken(valetkey.TokenFields{Subject: raw, ID: fmt.Sprint(len(gone)), Freshness: reuse}), nil
		}))
		memory.id("a")
		memory.id("b")
		gone["a"] = true
		assert.Equal(t, "1", memory.id("a"))
		assert.Equal(t, "0", memory.id("b"))
		memory.Purge(nil)
		assert.Zero(t, memory.Stats().Bytes)
	})
	t.Run("a token of very many scopes is copied too", func(t *testing.T) {
		var list []string
		for i := range 1000 {
			list = append(list, fmt.Sprint("scope", i))
		}
		scopes := valetkey.NewScopes(list...)
		memory := newCache(t, tokencache.Config{}, valetkey.VerifierFunc(func(context.Context, string) (*valetkey.Token, error) {
			return valetkey.NewToken(valetkey.TokenFields{Scopes: scopes, Raw: `{}`, Freshness: hour()}), nil
		}))
		e, _, err := memory.Verify(t.Context(), "a")
		require.NoError(t, err)
		assert.Equal(t, scopes, e.Token.Scopes())
		assert.Greater(t, memory.Stats().Bytes, int64(1000*(16+len("scope000"))))
	})
}

func TestPurge(t *testing.T) {
	t.Run("VCACHE-07 only purged tokens are verified again", func(t *testing.T) {
		memory := newCache(t, tokencache.Config{}, new(verifier))
		for _, raw := range []string{"a", "b", "c"} {
			memory.id(raw)
		}
		assert.Equal(t, 1, memory.Purge(func(token *valetkey.Token) bool { return token.Subject() == "b" }))
		assert.Equal(t, 2, memory.Stats().Entries)
		assert.Equal(t, "1", memory.id("a"))
		assert.Equal(t, "3", memory.id("c"))
		assert.Equal(t, "4", memory.id("b"))
	})
	t.Run("VCACHE-07 a purged token leaves the hot set too", func(t *testing.T) {
		memory := newCache(t, tokencache.Config{}, new(verifier))
		memory.id("a")
		memory.id("a") // now it lies there
		require.Equal(t, 1, memory.Purge(nil))
		assert.Zero(t, memory.Stats().Bytes)
		assert.Equal(t, "2", memory.id("a"))
	})
	t.Run("VCACHE-07 nil purges all", func(t *testing.T) {
		memory := newCache(t, tokencache.Config{}, new(verifier))
		for i := range 5000 {
			memory.id(fmt.Sprint(i))
		}
		assert.Equal(t, 5000, memory.Purge(nil))
		assert.Zero(t, memory.Purge(nil))
		assert.Zero(t, memory.Stats().Entries)
		assert.Zero(t, memory.Stats().Bytes)
		assert.Zero(t, memory.Stats().Evictions)
	})
	t.Run("match may use the cache", func(t *testing.T) {
		memory := newCache(t, tokencache.Config{Entries: 10}, new(verifier))
		memory.id("a")
		n := memory.Purge(func(*valetkey.Token) bool { return memory.id("b") == "2" && memory.Stats().Entries == 2 })
		assert.Equal(t, 1, n)
		assert.Equal(t, "2", memory.id("b"))
	})
	t.Run("what another purge has taken is not counted twice", func(t *testing.T) {
		memory := newCache(t, tokencache.Config{Entries: 10}, new(verifier))
		memory.id("a")
		assert.Zero(t, memory.Purge(func(*valetkey.Token) bool { return memory.Purge(nil) == 1 }))
	})
	t.Run("VCACHE-07 a token that is purged while it is verified is not remembered", func(t *testing.T) {
		var memory cache
		v := new(verifier)
		memory = newCache(t, tokencache.Config{}, valetkey.VerifierFunc(func(ctx context.Context, raw string) (*valetkey.Token, error) {
			token, err := v.Verify(ctx, raw)
			if token.ID() == "1" {
				memory.Purge(nil)
			}
			return token, err
		}))
		assert.Equal(t, "1", memory.id("a"))
		assert.Zero(t, memory.Stats().Entries)
		assert.Equal(t, "2", memory.id("a"))
		assert.Equal(t, "2", memory.id("a"))
	})
	t.Run("VCACHE-07 a verification during a purge is not shared with later requests", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			v := new(verifier)
			memory := newCache(t, tokencache.Config{}, valetkey.VerifierFunc(func(ctx context.Context, raw string) (*valetkey.Token, error) {
				token, err := v.Verify(ctx, raw)
				time.Sleep(time.Second)
				return token, err
			}))
			var ids [3]string
			var wg sync.WaitGroup
			wg.Go(func() { ids[0] = memory.id("a") })
			synctest.Wait()
			assert.Zero(t, memory.Purge(func(*valetkey.Token) bool { return false }))
			wg.Go(func() { ids[1] = memory.id("a") })
			synctest.Wait()
			wg.Go(func() { ids[2] = memory.id("a") })
			wg.Wait()
			assert.Equal(t, [3]string{"1", "2", "2"}, ids)
			assert.Equal(t, "2", memory.id("a"))
		})
	})
}

func TestBounds(t *testing.T) {
	for _, c := range []struct {
		name string
		cfg  tokencache.Config
	}{
		{"VCACHE-14 one entry", tokencache.Config{Entries: 1}},
		{"VCACHE-14 seven entries", tokencache.Config{Entries: 7}},
		{"VCACHE-14 entries that the shards cannot share equally", tokencache.Config{Entries: 1_003}},
		{"VCACHE-14 not even one entry's bytes", tokencache.Config{Bytes: 400}},
		{"VCACHE-14 few bytes", tokencache.Config{Bytes: 10_000}},
		{"VCACHE-14 bytes that the shards cannot share equally", tokencache.Config{Bytes: 3<<20 + 7}},
		{"VCACHE-14 both", tokencache.Config{Entries: 100, Bytes: 80_000}},
	} {
		t.Run(c.name, func(t *testing.T) {
			random := rand.New(rand.NewPCG(1, 2))
			memory := newCache(t, c.cfg, valetkey.VerifierFunc(func(_ context.Context, raw string) (*valetkey.Token, error) {
				return valetkey.NewToken(valetkey.TokenFields{Subject: raw, Raw: string(make([]byte, random.IntN(2000))), Freshness: hour()}), nil
			}))
			var last, most tokencache.Stats
			for i := range 10_000 {
				memory.id(fmt.Sprint(i))
				if i%3 == 0 {
					memory.id(fmt.Sprint(i / 2))
				}
				now := memory.Stats()
				if c.cfg.Entries > 0 {
					require.LessOrEqual(t, now.Entries, c.cfg.Entries)
				}
				if c.cfg.Bytes > 0 {
					require.LessOrEqual(t, now.Bytes, c.cfg.Bytes)
				}
				// Two insertions at most since the last look: the work of one does not grow with the cache.
				require.LessOrEqual(t, now.Evictions-last.Evictions, uint64(2*64))
				last = now
				most.Entries, most.Bytes = max(most.Entries, now.Entries), max(most.Bytes, now.Bytes)
			}
			if c.cfg.Bytes == 0 {
				assert.Equal(t, c.cfg.Entries, most.Entries, "the room is used")
			} else if c.cfg.Bytes > 1000 && c.cfg.Entries == 0 {
				assert.Greater(t, most.Bytes, c.cfg.Bytes*8/10, "the room is used")
			}
			assert.Equal(t, memory.Stats().Entries, memory.Purge(nil), "what is counted is what is there")
			assert.Zero(t, memory.Stats().Bytes)
		})
	}
	t.Run("more tokens in use than the hot set has places are all remembered", func(t *testing.T) {
		memory := newCache(t, tokencache.Config{Entries: 16}, new(verifier))
		for range 100 {
			for i := range 16 {
				require.Equal(t, fmt.Sprint(i+1), memory.id(fmt.Sprint(i)))
			}
		}
	})
	t.Run("VCACHE-14 entries in the hot set count", func(t *testing.T) {
		memory := newCache(t, tokencache.Config{Bytes: 100_000}, new(verifier))
		memory.id("a")
		one := memory.Stats().Bytes
		memory.id("a")
		assert.Equal(t, one+512, memory.Stats().Bytes)
		for i := range 1000 {
			memory.id(fmt.Sprint(i))
			memory.id(fmt.Sprint(i))
			require.LessOrEqual(t, memory.Stats().Bytes, int64(100_000))
		}
	})
	t.Run("VCACHE-14 a token fits exactly if its entry in the hot set fits too", func(t *testing.T) {
		memory := newCache(t, tokencache.Config{}, new(verifier))
		memory.id("a")
		memory.id("a")
		full := memory.Stats().Bytes
		for bytes, entries := range map[int64]int{full: 1, full - 1: 0} {
			exact := newCache(t, tokencache.Config{Bytes: bytes}, new(verifier))
			exact.id("a")
			exact.id("a")
			assert.Equal(t, tokencache.Stats{Entries: entries, Bytes: int64(entries) * full, Hits: uint64(entries), Misses: uint64(2 - entries)}, exact.Stats())
		}
	})
	t.Run("a token too large for its share is accepted and evicts no other", func(t *testing.T) {
		memory := newCache(t, tokencache.Config{Bytes: 10_000}, valetkey.VerifierFunc(func(_ context.Context, raw string) (*valetkey.Token, error) {
			return valetkey.NewToken(valetkey.TokenFields{Subject: raw, Raw: string(make([]byte, len(raw))), Freshness: hour()}), nil
		}))
		memory.id("small")
		memory.id(strings.Repeat("x", 10_000))
		assert.Equal(t, 1, memory.Stats().Entries)
		assert.Zero(t, memory.Stats().Evictions)
	})
	t.Run("a large token gets its room in bounded steps", func(t *testing.T) {
		memory := newCache(t, tokencache.Config{Bytes: 600_000}, new(verifier))
		for i := range 2500 {
			memory.id(fmt.Sprint(i))
		}
		full, large := memory.Stats(), strings.Repeat("x", 100_000)
		require.NotZero(t, full.Evictions)
		memory.id(large)
		first := memory.Stats()
		assert.Equal(t, uint64(64), first.Evictions-full.Evictions)
		tries := 1
		for ; ; tries++ {
			first := memory.id(large)
			if memory.id(large) == first { // it was remembered
				break
			}
			require.Less(t, tries, 10)
		}
		assert.LessOrEqual(t, memory.Stats().Bytes, int64(600_000))
		assert.Less(t, memory.Stats().Evictions-full.Evictions, uint64(400))
	})
}
