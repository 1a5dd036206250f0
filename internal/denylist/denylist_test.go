package denylist_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/denylist"
)

var start = time.Unix(1_800_000_000, 0)

// Whatever is added in whatever order to a list with little room, no token is clear that is revoked, and few others are not.
func TestNoDenialIsDropped(t *testing.T) {
	for _, c := range []struct {
		name string
		cfg  denylist.Config
	}{
		{"all have room", denylist.Config{}},
		{"no kind has room for all", denylist.Config{Bytes: 20_000, Subjects: 50, Sessions: 50, Clients: 50, Issuers: 5}},
		{"next to nothing has room", denylist.Config{Bytes: 1, Subjects: 1, Sessions: 1, Clients: 1, Issuers: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			seed := rand.Uint64()
			t.Logf("seed %d", seed) // put it in place of rand.Uint64 to repeat
			dice := rand.New(rand.NewPCG(seed, 0))
			list, now := denylist.New(c.cfg), start
			denied := map[string]time.Time{} // what is revoked, and when the last of its tokens expires
			var names []string
			falsely := 0
			for i := range 20_000 {
				now = now.Add(time.Duration(dice.Int64N(int64(20 * time.Second))))
				name := fmt.Sprint(i)
				until := now.Add(time.Duration(dice.Int64N(int64(30 * time.Hour))))
				require.NoError(t, list.Add(revocation(i, name, until), now))
				denied[name] = until
				names = append(names, name)

				old := names[dice.IntN(len(names))]
				if now.Before(denied[old].Add(denylist.MaxLeeway)) {
					index := 0
					fmt.Sscan(old, &index)
					require.NotEqual(t, denylist.Clear, list.Look(token(index, old, denied[old]), now), "revocation %s of %d", old, i)
				}
				if list.Look(token(i, fmt.Sprint("other", i), until), now) != denylist.Clear {
					falsely++
				}
			}
			assert.Less(t, falsely, 20)
			now = now.Add(48 * time.Hour)
			assert.False(t, list.Overflowing(now), "all is over")
			assert.Zero(t, list.Stats(now).Overflowed)
		})
	}
}

// revocation returns one of each kind in turn.
func revocation(i int, name string, until time.Time) valetkey.Revocation {
	r := valetkey.Revocation{Issuer: "i", Until: until}
	switch i % 5 {
	case 0:
		r.ID = name
	case 1:
		r.Subject = name
	case 2:
		r.SessionID = name
	case 3:
		r.ClientID = name
	default:
		r.Issuer, r.All = name, true
	}
	return r
}

// token returns one that revocation(i, name) is about.
func token(i int, name string, exp time.Time) *valetkey.Token {
	t := valetkey.TokenFields{Issuer: "i", IssuedAt: start.Add(-time.Hour), Expiry: exp, Deadline: exp.Add(denylist.MaxLeeway)}
	switch i % 5 {
	case 0:
		t.ID = name
	case 1:
		t.Subject = name
	case 2:
		t.SessionID = name
	case 3:
		t.ClientID = name
	default:
		t.Issuer = name
	}
	return valetkey.NewToken(t)
}

func TestRoom(t *testing.T) {
	t.Run("the default has room for a million ids, as many as valetredis keeps", func(t *testing.T) {
		list := denylist.New(denylist.Config{})
		for i := range 1 << 20 {
			require.NoError(t, list.Add(valetkey.Revocation{Issuer: "i", ID: fmt.Sprint(i), Until: start.Add(time.Hour)}, start))
		}
		assert.Equal(t, denylist.Stats{Held: 1 << 20}, list.Stats(start))
	})
	t.Run("what overflowed is denied once it is added again and there is room", func(t *testing.T) {
		list, now := denylist.New(denylist.Config{Subjects: 1}), start
		short := valetkey.Revocation{Issuer: "i", Subject: "short", Until: now.Add(time.Minute)}
		long := valetkey.Revocation{Issuer: "i", Subject: "long", Until: now.Add(time.Hour)}
		require.NoError(t, list.Add(short, now))
		require.NoError(t, list.Add(long, now))
		about := valetkey.NewToken(valetkey.TokenFields{Issuer: "i", Subject: "long", IssuedAt: now.Add(-time.Hour), Deadline: now.Add(time.Hour)})
		assert.Equal(t, denylist.Unknown, list.Look(about, now))
		now = now.Add(10 * time.Minute)
		require.NoError(t, list.Add(long, now))
		assert.Equal(t, denylist.Denied, list.Look(about, now))
	})
	t.Run("what overflowed stays unknown for as long as its token can be accepted", func(t *testing.T) {
		list, now := denylist.New(denylist.Config{Subjects: 1}), start
		require.NoError(t, list.Add(valetkey.Revocation{Issuer: "i", Subject: "first", Until: now.Add(1000 * time.Hour)}, now))
		require.NoError(t, list.Add(valetkey.Revocation{Issuer: "i", Subject: "second", Until: now.Add(time.Hour)}, now))
		about := valetkey.NewToken(valetkey.TokenFields{Issuer: "i", Subject: "second", IssuedAt: now.Add(-time.Hour), Deadline: now.Add(500 * time.Hour)})
		for ; now.Before(about.Deadline()); now = now.Add(5 * time.Hour) {
			require.Equal(t, denylist.Unknown, list.Look(about, now), "after %v", now.Sub(start))
		}
	})
}
