package login

import (
	"context"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/authserver/store"
)

// TestHashingIsLimited is in the package to occupy all slots without keeping the processors busy.
func TestHashingIsLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, err := NewDatabase(store.NewMemory(0), "customer")
		require.NoError(t, err)
		for range cap(d.hashing) {
			d.hashing <- struct{}{}
		}
		start := time.Now()
		_, err = d.Login(t.Context(), "alice", "a password")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.NotErrorIs(t, err, ErrRefused, "nothing is known about the password")
		assert.Equal(t, 10*time.Second, time.Since(start), "the wait has a bound")

		go func() {
			time.Sleep(time.Second)
			<-d.hashing
		}()
		start = time.Now()
		_, err = d.Login(t.Context(), "alice", "a password")
		require.ErrorIs(t, err, ErrRefused)
		assert.Equal(t, time.Second, time.Since(start), "it takes the turn of another")
		assert.Len(t, d.hashing, cap(d.hashing)-1, "and gives it back")
	})
}

// TestUnknownNameCostsTheSame is in the package to count the work: a clock would also measure other processes.
func TestUnknownNameCostsTheSame(t *testing.T) {
	type work struct {
		memory, time uint32
		threads      uint8
		salt, sum    int // bytes
		bcrypt       bool
		password     string
	}
	d, err := NewDatabase(store.NewMemory(0), "customer")
	require.NoError(t, err)
	_, err = d.Add(t.Context(), NewUser{Name: "alice", Password: "a fence of nine oaks"})
	require.NoError(t, err)
	var done []work
	d.matches = func(h hash, password string) bool {
		done = append(done, work{h.memory, h.time, h.threads, len(h.salt), len(h.sum), h.bcrypt != nil, password})
		return h.matches(password)
	}
	for _, password := range []string{"some other password", "x"} {
		done = nil
		for _, name := range []string{"alice", "mallory", "Alice "} {
			_, err := d.Login(t.Context(), name, password)
			require.Equal(t, ErrRefused, err)
		}
		require.Len(t, done, 3, "one hash for each login")
		assert.Equal(t, work{memory: 19456, time: 2, threads: 1, salt: 16, sum: 32, password: password}, done[0])
		assert.Equal(t, done[0], done[1])
		assert.Equal(t, done[0], done[2])
	}
}

func TestLimiterTableIsBounded(t *testing.T) {
	l, err := NewLimiter(Rate{1, time.Hour}, 100)
	require.NoError(t, err)
	for i := range 1000 {
		_ = l.Allow(strconv.Itoa(i))
		assert.LessOrEqual(t, len(l.all), 100)
		assert.Len(t, l.byKey, len(l.all))
	}
	for key, b := range l.byKey {
		assert.Equal(t, key, b.key)
		assert.Same(t, b, l.all[b.place])
	}
}
