package keys_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/authserver/internal/keys"
	"github.com/valetkey/valetkey/authserver/store"
	"github.com/valetkey/valetkey/internal/jose"
	"github.com/valetkey/valetkey/internal/keyset"
)

var (
	secret = []byte(strings.Repeat("s", 32))
	other  = []byte(strings.Repeat("o", 32))
	third  = []byte(strings.Repeat("t", 32))
)

func open(t *testing.T, s store.Store, cfg keys.Config) *keys.Ring {
	t.Helper()
	if cfg.Algorithms == nil {
		cfg.Algorithms = []string{"ES256"}
	}
	if cfg.Seal == nil && !cfg.InsecureUnsealed {
		cfg.Seal = secret
	}
	cfg.Logger = slog.New(slog.DiscardHandler)
	r, err := keys.Open(t.Context(), s, cfg)
	require.NoError(t, err)
	return r
}

func signing(t *testing.T, r *keys.Ring, alg string) string {
	t.Helper()
	k, err := r.Signing(alg)
	require.NoError(t, err)
	return k.ID()
}

func states(r *keys.Ring) (list []string) {
	for _, k := range r.List() {
		list = append(list, k.State)
	}
	return list
}

// verifies reports whether a token signed with k verifies by a key set document.
func verifies(t *testing.T, k *jose.PrivateKey, set []byte) bool {
	t.Helper()
	raw, err := k.Sign(nil, []byte(`{"sub":"alice"}`))
	require.NoError(t, err)
	c, err := jose.Parse(raw)
	require.NoError(t, err)
	public, _, err := keyset.Parse(set, keyset.MaxKeys)
	require.NoError(t, err)
	_, err = keyset.Static(public...).Verify(t.Context(), c, keyset.Terms{})
	return err == nil
}

func TestMistakes(t *testing.T) {
	_, err := keys.Open(t.Context(), store.NewMemory(0), keys.Config{
		Algorithms: []string{"ES256", "HS256"}, Seal: []byte("short"), SealPrevious: []byte("short"), Publish: -1, Retire: -1, Rotate: -1,
	})
	for _, field := range []string{"Algorithms[1]", "Seal:", "SealPrevious:", "Publish:", "Retire:", "Rotate:"} {
		assert.ErrorContains(t, err, field)
	}
	_, err = keys.Open(t.Context(), store.NewMemory(0), keys.Config{})
	assert.ErrorContains(t, err, "Algorithms: at least one is required")
	assert.ErrorContains(t, err, "Seal: required, or InsecureUnsealed")
	_, err = keys.Open(t.Context(), store.NewMemory(0), keys.Config{Algorithms: []string{"ES256"}, Seal: secret, Rotate: 5 * time.Minute})
	assert.ErrorContains(t, err, "Rotate: 5m0s is shorter than Publish")
	_, err = keys.Open(t.Context(), store.NewMemory(0), keys.Config{Algorithms: []string{"ES256"}, Seal: secret, Rotate: 11 * time.Minute, Retire: 100 * time.Hour})
	assert.ErrorContains(t, err, "more than 200 keys would be retiring")
}

func TestAlgorithms(t *testing.T) {
	r := open(t, store.NewMemory(0), keys.Config{Algorithms: []string{"RS256", "ES256", "EdDSA"}})
	_, err := r.Signing("PS256")
	assert.ErrorContains(t, err, `"PS256" is not one of`)
	assert.ErrorContains(t, r.Rotate(t.Context(), "PS256"), `"PS256" is not one of`)

	for _, alg := range []string{"RS256", "ES256", "EdDSA"} {
		k, err := r.Signing(alg)
		require.NoError(t, err)
		assert.Equal(t, alg, k.Algorithm())
		assert.True(t, verifies(t, k, r.KeySet()), alg)
	}
	assert.Equal(t, []string{"active", "next", "active", "next", "active", "next"}, states(r))
	all := r.Keys()
	require.Len(t, all, 6)
	for i, alg := range []string{"ES256", "EdDSA", "RS256"} {
		assert.Equal(t, signing(t, r, alg), all[i].ID(), "the active ones come first")
	}

	t.Run("JWT-46 with a random source that repeats itself, two signatures do not have the same random value", func(t *testing.T) {
		k, err := r.Signing("ES256")
		require.NoError(t, err)
		// The first half of a signature is the x coordinate of the random value times the base point (FIPS 186-5, section 6.4.1).
		point := func(payload string) string {
			cryptotest.SetGlobalRandom(t, 1)
			raw, err := k.Sign(nil, []byte(payload))
			require.NoError(t, err)
			signature, err := base64.RawURLEncoding.DecodeString(raw[strings.LastIndexByte(raw, '.')+1:])
			require.NoError(t, err)
			require.Len(t, signature, 64)
			return string(signature[:32])
		}
		assert.Equal(t, point(`{"sub":"alice"}`), point(`{"sub":"alice"}`), "the source does repeat itself")
		assert.NotEqual(t, point(`{"sub":"alice"}`), point(`{"sub":"bob"}`), "the same random value in two signatures reveals the key")
	})
	t.Run("AS-META-07 the key set has public keys only, each with its use", func(t *testing.T) {
		var set struct{ Keys []map[string]any }
		require.NoError(t, json.Unmarshal(r.KeySet(), &set))
		require.Len(t, set.Keys, 6)
		for _, k := range set.Keys {
			assert.Equal(t, "sig", k["use"])
			assert.NotEmpty(t, k["kid"])
			for _, private := range []string{"d", "p", "q", "dp", "dq", "qi", "k"} {
				assert.NotContains(t, k, private)
			}
		}
	})
}

// A key's life, with Publish at 10 min, reloads every 30 s and so 11 min before it signs.
func TestLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		s := store.NewMemory(0)
		r := open(t, s, keys.Config{Retire: time.Hour})
		go r.Run(ctx)
		first, next := r.List()[0].ID, r.List()[1].ID
		assert.Equal(t, first, signing(t, r, "ES256"))

		require.NoError(t, r.Rotate(ctx, "ES256"))
		require.NoError(t, r.Rotate(ctx, "ES256"), "which is decided already")
		assert.Equal(t, []string{"active", "next"}, states(r))
		assert.Equal(t, first, signing(t, r, "ES256"), "a key that may not have been fetched yet does not sign")
		assert.Equal(t, time.Now().Add(11*time.Minute).UTC(), r.List()[1].Active)
		time.Sleep(11*time.Minute - time.Second)
		assert.Equal(t, first, signing(t, r, "ES256"))
		time.Sleep(time.Second)
		assert.Equal(t, next, signing(t, r, "ES256"), "on time, whatever the reloads do")
		time.Sleep(time.Minute)
		assert.Equal(t, []string{"retiring", "active", "next"}, states(r))

		time.Sleep(time.Hour - 2*time.Minute)
		assert.Contains(t, string(r.KeySet()), first)
		time.Sleep(3 * time.Minute)
		assert.NotContains(t, string(r.KeySet()), first)
		assert.Equal(t, []string{"active", "next"}, states(r))

		third := r.List()[1].ID
		require.NoError(t, r.Rotate(ctx, "ES256"))
		assert.Equal(t, third, signing(t, r, "ES256"), "one that was published long ago signs at once")
		assert.Equal(t, []string{"retiring", "active", "next"}, states(r))

		fourth := r.List()[2].ID
		require.NoError(t, r.RotateNow(ctx, "ES256"))
		assert.Equal(t, fourth, signing(t, r, "ES256"), "and one that was not, if that is forced")

		require.NoError(t, r.Rotate(ctx, "ES256"))
		fifth := r.List()[4-1].ID
		require.NoError(t, r.RotateNow(ctx, "ES256"))
		assert.Equal(t, fifth, signing(t, r, "ES256"), "even where it is decided for later")
	})
}

func TestSchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		r := open(t, store.NewMemory(0), keys.Config{Rotate: 24 * time.Hour, Retire: time.Hour})
		go r.Run(ctx)
		signed := map[string]bool{}
		for range 10 * 24 {
			signed[signing(t, r, "ES256")] = true
			time.Sleep(time.Hour)
		}
		assert.Len(t, signed, 10)
	})
}

func TestReplicas(t *testing.T) {
	t.Run("two that open an empty store have the same keys", func(t *testing.T) {
		s := store.NewMemory(0)
		rings := make([]*keys.Ring, 8)
		var all sync.WaitGroup
		for i := range rings {
			all.Go(func() { rings[i] = open(t, s, keys.Config{Algorithms: []string{"ES256", "EdDSA"}}) })
		}
		all.Wait()
		for _, r := range rings {
			assert.Equal(t, string(rings[0].KeySet()), string(r.KeySet()))
		}
	})
	t.Run("rotations at the same time are one", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := slow{store.NewMemory(0)}
			rings := make([]*keys.Ring, 8)
			for i := range rings {
				rings[i] = open(t, s, keys.Config{})
			}
			time.Sleep(time.Hour)
			next := rings[0].List()[1].ID
			var all sync.WaitGroup
			for _, r := range rings {
				all.Go(func() { assert.NoError(t, r.Rotate(t.Context(), "ES256")) })
			}
			all.Wait()
			for _, r := range rings {
				require.NoError(t, r.Reload(t.Context()))
				assert.Equal(t, next, signing(t, r, "ES256"))
				require.Len(t, r.List(), 3)
				assert.Zero(t, r.List()[2].Active, "and the one after it is not decided")
			}
		})
	})
	t.Run("a late read does not undo a write in between", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := &late{Store: store.NewMemory(0)}
			r := open(t, s, keys.Config{})
			time.Sleep(time.Hour)
			next := r.List()[1].ID
			s.once.Store(true)
			var reading sync.WaitGroup
			reading.Go(func() { assert.NoError(t, r.Reload(t.Context())) })
			time.Sleep(time.Second)
			require.NoError(t, r.Rotate(t.Context(), "ES256"))
			reading.Wait()
			assert.Equal(t, next, signing(t, r, "ES256"))
		})
	})
	t.Run("one whose clock is behind signs with what there is", func(t *testing.T) {
		s := store.NewMemory(0)
		active := signing(t, open(t, s, keys.Config{}), "ES256")
		synctest.Test(t, func(t *testing.T) { // where it is the year 2000
			assert.Equal(t, active, signing(t, open(t, s, keys.Config{}), "ES256"))
		})
	})
	t.Run("an outage of the store leaves the keys as they are", func(t *testing.T) {
		s := store.NewMemory(0)
		r := open(t, s, keys.Config{})
		active, set := signing(t, r, "ES256"), string(r.KeySet())
		require.NoError(t, s.Close())
		assert.Error(t, r.Reload(t.Context()))
		assert.Error(t, r.Rotate(t.Context(), "ES256"))
		assert.Equal(t, active, signing(t, r, "ES256"))
		assert.Equal(t, set, string(r.KeySet()))
	})
	t.Run("an algorithm that is no longer listed signs no more, but its keys stay while its tokens live", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := store.NewMemory(0)
			old := open(t, s, keys.Config{Algorithms: []string{"RS256", "ES256"}, Retire: time.Hour})
			k, err := old.Signing("RS256")
			require.NoError(t, err)
			r := open(t, s, keys.Config{Retire: time.Hour})
			_, err = r.Signing("RS256")
			assert.Error(t, err)
			assert.Equal(t, []string{"active", "next", "retiring"}, states(r))
			time.Sleep(time.Hour)
			require.NoError(t, r.Reload(t.Context()))
			assert.True(t, verifies(t, k, r.KeySet()))
			time.Sleep(2 * time.Minute)
			require.NoError(t, r.Reload(t.Context()))
			assert.False(t, verifies(t, k, r.KeySet()))
			again := open(t, s, keys.Config{Algorithms: []string{"RS256", "ES256"}})
			assert.NotEqual(t, k.ID(), signing(t, again, "RS256"))
		})
	})
}

// slow is a store in which all writers have read before the first one writes.
type slow struct{ store.Store }

func (s slow) Put(ctx context.Context, r store.Record) (int64, error) {
	time.Sleep(time.Second)
	return s.Store.Put(ctx, r)
}

// late is a store that delays the result of one reader by ten seconds.
type late struct {
	store.Store
	once atomic.Bool
}

func (s *late) Get(ctx context.Context, kind, id string) (store.Record, error) {
	rec, err := s.Store.Get(ctx, kind, id)
	if s.once.CompareAndSwap(true, false) {
		time.Sleep(10 * time.Second)
	}
	return rec, err
}

// Whatever the schedule, a token that any replica signs verifies by every key set that any replica has served within the last
// Publish, and by every one that is served while the token lives.
func TestEveryTokenVerifies(t *testing.T) {
	const publish, lifetime = 10 * time.Minute, 20 * time.Minute
	type served struct {
		at  time.Time
		set []byte
	}
	for seed := range uint64(4) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			s := store.NewMemory(0)
			cfg := keys.Config{Algorithms: []string{"ES256", "EdDSA"}, Publish: publish, Retire: lifetime, Rotate: 2 * time.Hour}
			rings := []*keys.Ring{open(t, s, cfg), open(t, s, cfg)}
			for _, r := range rings {
				go r.Run(ctx)
			}
			dice := rand.New(rand.NewPCG(seed, 1))
			var sets []served
			signedUntil := map[string]time.Time{} // by key id, when its last token expires
			used := map[string]bool{}
			for range 500 {
				time.Sleep(time.Duration(dice.Int64N(int64(2 * time.Minute))))
				now := time.Now()
				if dice.IntN(15) == 0 {
					require.NoError(t, rings[dice.IntN(2)].Rotate(ctx, cfg.Algorithms[dice.IntN(2)]))
				}
				for _, r := range rings {
					sets = append(sets, served{now, r.KeySet()})
				}
				for len(sets) > 0 && now.Sub(sets[0].at) > publish {
					sets = sets[1:]
				}
				for _, r := range rings {
					for _, alg := range cfg.Algorithms {
						id := signing(t, r, alg)
						used[id], signedUntil[id] = true, now.Add(lifetime)
						for _, past := range sets {
							require.Contains(t, string(past.set), id, "served %v ago, seed %d", now.Sub(past.at), seed)
						}
					}
					for id, end := range signedUntil {
						if end.After(now) {
							require.Contains(t, string(r.KeySet()), id, "seed %d", seed)
						}
					}
				}
			}
			require.Greater(t, len(used), 20, "the schedule has rotated")
		})
	}
}

func TestSeal(t *testing.T) {
	ctx := t.Context()
	value := func(t *testing.T, s store.Store) string {
		rec, err := s.Get(ctx, "key", "ES256")
		require.NoError(t, err)
		return string(rec.Value)
	}
	try := func(s store.Store, cfg keys.Config) error {
		cfg.Algorithms = []string{"ES256"}
		_, err := keys.Open(ctx, s, cfg)
		return err
	}
	s := store.NewMemory(0)
	r := open(t, s, keys.Config{SealPrevious: third})
	active := signing(t, r, "ES256")

	t.Run("another secret opens nothing", func(t *testing.T) {
		assert.ErrorIs(t, try(s, keys.Config{Seal: other}), keys.ErrSeal)
		assert.ErrorIs(t, try(s, keys.Config{InsecureUnsealed: true}), keys.ErrSeal)
	})
	t.Run("the store holds no private key", func(t *testing.T) {
		assert.NotContains(t, value(t, s), `"d"`)
		assert.NotContains(t, value(t, s), `"jwk"`)
	})
	t.Run("a sealed key that is damaged, or moved to another id, is refused", func(t *testing.T) {
		rec, err := s.Get(ctx, "key", "ES256")
		require.NoError(t, err)
		ids := []string{r.List()[0].ID, r.List()[1].ID}
		swapped := strings.NewReplacer(ids[0], ids[1], ids[1], ids[0]).Replace(string(rec.Value))
		at := strings.Index(string(rec.Value), `"sealed":"`) + len(`"sealed":"`) + 60
		damaged := string(rec.Value[:at]) + flip(rec.Value[at]) + string(rec.Value[at+1:])
		for _, text := range []string{swapped, damaged} {
			bad := store.NewMemory(0)
			_, err = bad.Put(ctx, store.Record{Kind: "key", ID: "ES256", Value: []byte(text)})
			require.NoError(t, err)
			assert.ErrorContains(t, try(bad, keys.Config{Seal: secret}), "damaged, or belongs to another record")
		}
		bad := store.NewMemory(0)
		_, err = bad.Put(ctx, store.Record{Kind: "key", ID: "ES256", Value: []byte("no JSON")})
		require.NoError(t, err)
		assert.ErrorContains(t, try(bad, keys.Config{Seal: secret}), "the stored record")
	})
	t.Run("the secret can be changed", func(t *testing.T) {
		before := value(t, s)
		again := open(t, s, keys.Config{Seal: other, SealPrevious: secret})
		assert.Equal(t, active, signing(t, again, "ES256"))
		assert.NotEqual(t, before, value(t, s))
		assert.Equal(t, active, signing(t, open(t, s, keys.Config{Seal: other}), "ES256"), "the previous one is not needed any more")

		after := value(t, s)
		require.NoError(t, r.Reload(ctx), "a replica with the old one has the keys at hand")
		assert.Equal(t, after, value(t, s), "and leaves them as they are")
	})
	t.Run("keys in clear text are sealed once there is a secret", func(t *testing.T) {
		s := store.NewMemory(0)
		k := signing(t, open(t, s, keys.Config{InsecureUnsealed: true}), "ES256")
		assert.Contains(t, value(t, s), `"d"`)
		assert.Equal(t, k, signing(t, open(t, s, keys.Config{InsecureUnsealed: true}), "ES256"), "which can be read")
		assert.Equal(t, k, signing(t, open(t, s, keys.Config{}), "ES256"))
		assert.NotContains(t, value(t, s), `"d"`)
	})
}

func flip(c byte) string {
	if c == 'A' {
		return "B"
	}
	return "A"
}

func TestRunTellsOfOutages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		s := store.NewMemory(0)
		var log strings.Builder
		r, err := keys.Open(ctx, s, keys.Config{Algorithms: []string{"ES256"}, Seal: secret, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		require.NoError(t, err)
		require.NoError(t, s.Close())
		go r.Run(ctx)
		time.Sleep(time.Minute - time.Second)
		synctest.Wait()
		assert.Equal(t, 1, strings.Count(log.String(), "signing keys not read"))
		cancel()
	})
}
