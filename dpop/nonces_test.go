package dpop_test

import (
	"bytes"
	"crypto/rand"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/dpop"
	"github.com/valetkey/valetkey/valetkeytest"
)

func nonceKey() []byte {
	key := make([]byte, 32)
	rand.Read(key)
	return key
}

// A replica is a server with nonces and a clock.
type replica struct {
	*dpop.Verifier
	replays *counted
	now     time.Time
}

func newReplica(t testing.TB, cfg dpop.NoncesConfig) *replica {
	t.Helper()
	nonces, err := dpop.NewNonces(cfg)
	require.NoError(t, err)
	// At the beginning of an epoch of the default length, and the same for all replicas.
	r := &replica{replays: new(counted), now: time.Unix(1_800_000_000, 0)}
	r.Verifier = newVerifier(t, dpop.Config{Nonces: nonces, ReplayStore: r.replays, Now: func() time.Time { return r.now }})
	return r
}

func TestNonces(t *testing.T) {
	iss := valetkeytest.NewIssuer(t, valetkeytest.InMemory())
	client := iss.ProofKey("ES256")
	key := nonceKey()
	// with returns a request whose proof has the nonce, and an iat that is of no use.
	with := func(nonce string) dpop.Request {
		return request(client, valetkeytest.Claim("nonce", nonce), valetkeytest.Claim("iat", 1))
	}
	verify := func(r *replica, nonce string) error {
		_, err := r.Verify(t.Context(), with(nonce))
		return err
	}
	wanted := func(t *testing.T, r *replica, nonce string) {
		t.Helper()
		calls := r.replays.calls.Load()
		requireRefusal(t, verify(r, nonce), valetkey.UseNonce, "nonce")
		require.Equal(t, calls, r.replays.calls.Load(), "it was not used up")
		require.NoError(t, verify(r, r.Nonce()), "with the one that comes with the refusal it passes")
	}

	t.Run("DPOP-21 a proof without a nonce", func(t *testing.T) {
		r := newReplica(t, dpop.NoncesConfig{Key: key})
		_, err := r.Verify(t.Context(), request(client))
		requireRefusal(t, err, valetkey.UseNonce, "nonce")
		require.NotEmpty(t, r.Nonce())
	})
	t.Run("DPOP-21 a nonce does not save a proof that is bad otherwise", func(t *testing.T) {
		r := newReplica(t, dpop.NoncesConfig{Key: key})
		_, err := r.Verify(t.Context(), request(client, valetkeytest.Claim("nonce", r.Nonce()), valetkeytest.TamperedSignature()))
		requireRefusal(t, err, valetkey.InvalidProof, "not signed")
	})
	t.Run("DPOP-22 an unknown nonce", func(t *testing.T) {
		wanted(t, newReplica(t, dpop.NoncesConfig{Key: key}), rand.Text()[:22])
	})
	t.Run("DPOP-22 a forged nonce, one character off", func(t *testing.T) {
		r := newReplica(t, dpop.NoncesConfig{Key: key})
		for i := range r.Nonce() {
			forged := []byte(r.Nonce())
			forged[i] ^= 1
			wanted(t, r, string(forged))
		}
		wanted(t, r, r.Nonce()[1:])
		wanted(t, r, r.Nonce()+"A")
	})
	t.Run("DPOP-22 a nonce of another resource server, which has another key", func(t *testing.T) {
		other := newReplica(t, dpop.NoncesConfig{Key: nonceKey()})
		wanted(t, newReplica(t, dpop.NoncesConfig{Key: key}), other.Nonce())
	})
	t.Run("DPOP-22 a nonce of a key that was dropped", func(t *testing.T) {
		old := newReplica(t, dpop.NoncesConfig{Key: nonceKey()})
		wanted(t, newReplica(t, dpop.NoncesConfig{Key: key, Previous: [][]byte{nonceKey()}}), old.Nonce())
	})
	t.Run("DPOP-22 DPOP-26 a nonce is accepted until its grace is over", func(t *testing.T) {
		for _, c := range []struct{ every, grace, accepted time.Duration }{
			{0, 0, 5 * time.Minute},
			{time.Minute, 0, 4 * time.Minute},
			{time.Minute, time.Second, 61 * time.Second},
			{time.Minute, 150 * time.Second, 210 * time.Second},
			{10 * time.Second, 100 * time.Second, 110 * time.Second},
		} {
			r := newReplica(t, dpop.NoncesConfig{Key: key, Every: c.every, Grace: c.grace})
			first := r.Nonce()
			r.now = r.now.Add(c.accepted - time.Nanosecond)
			require.NoError(t, verify(r, first))
			r.now = r.now.Add(time.Nanosecond)
			wanted(t, r, first)
		}
	})
	t.Run("DPOP-23 it is 22 characters of NQCHAR, and another one each time and for each key", func(t *testing.T) {
		r, seen := newReplica(t, dpop.NoncesConfig{Key: key}), map[string]bool{}
		for range 1000 {
			nonce := r.Nonce()
			assert.Len(t, nonce, 22)
			assert.Empty(t, strings.Trim(nonce, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"))
			assert.Equal(t, nonce, r.Nonce())
			assert.False(t, seen[nonce])
			seen[nonce] = true
			r.now = r.now.Add(2 * time.Minute)
		}
		a, b := newReplica(t, dpop.NoncesConfig{}), newReplica(t, dpop.NoncesConfig{})
		assert.NotEqual(t, a.Nonce(), b.Nonce(), "without a key each process makes one")
	})
	t.Run("DPOP-24 a nonce of one instance at another", func(t *testing.T) {
		a, b := newReplica(t, dpop.NoncesConfig{Key: key}), newReplica(t, dpop.NoncesConfig{Key: bytes.Clone(key)})
		require.NoError(t, verify(b, a.Nonce()))
		a.now = a.now.Add(10 * time.Second)
		b.now = b.now.Add(-10 * time.Second)
		require.NotEqual(t, a.Nonce(), b.Nonce(), "their clocks differ")
		require.NoError(t, verify(b, a.Nonce()))
		require.NoError(t, verify(a, b.Nonce()))
	})
	t.Run("DPOP-24 a change of keys, instance by instance, refuses no client", func(t *testing.T) {
		next := nonceKey()
		steps := []dpop.NoncesConfig{
			{Key: key}, {Key: key, Previous: [][]byte{next}}, {Key: next, Previous: [][]byte{key}}, {Key: next},
		}
		for i := range steps[1:] {
			a, b := newReplica(t, steps[i]), newReplica(t, steps[i+1])
			require.NoError(t, verify(a, b.Nonce()), "step %d", i)
			if i < 2 { // the last step is for when no nonce of the old key is left
				require.NoError(t, verify(b, a.Nonce()), "step %d", i)
			}
		}
	})
	t.Run("DPOP-25 a success carries a nonce once there is a newer one", func(t *testing.T) {
		r := newReplica(t, dpop.NoncesConfig{Key: key})
		nonce := r.Nonce()
		next := func(nonce string) string {
			p, err := r.Verify(t.Context(), with(nonce))
			require.NoError(t, err)
			return p.NextNonce()
		}
		require.Empty(t, next(nonce))
		r.now = r.now.Add(2*time.Minute - time.Nanosecond)
		require.Empty(t, next(nonce))
		r.now = r.now.Add(time.Nanosecond)
		require.NotEqual(t, nonce, r.Nonce())
		require.Equal(t, r.Nonce(), next(nonce))
		require.Empty(t, next(r.Nonce()))
	})
	t.Run("DPOP-25 a refused proof has no next nonce, and none without nonces", func(t *testing.T) {
		r := newReplica(t, dpop.NoncesConfig{Key: key})
		p, err := r.Verify(t.Context(), with("x"))
		require.Error(t, err)
		require.Empty(t, p.NextNonce())
		v := newVerifier(t, dpop.Config{})
		require.Empty(t, v.Nonce())
		p, err = v.Verify(t.Context(), request(client))
		require.NoError(t, err)
		require.Empty(t, p.NextNonce())
	})
	t.Run("DPOP-29 the client's clock does not matter", func(t *testing.T) {
		r := newReplica(t, dpop.NoncesConfig{Key: key})
		for _, iat := range []any{0, r.now.Add(-5 * time.Hour).Unix(), r.now.Add(5 * time.Hour).Unix(), 1e300} {
			_, err := r.Verify(t.Context(), request(client, valetkeytest.Claim("nonce", r.Nonce()), valetkeytest.Claim("iat", iat)))
			require.NoError(t, err, iat)
		}
	})
	t.Run("DPOP-43 with a nonce a proof is remembered until the nonce has ended", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newReplica(t, dpop.NoncesConfig{Key: key})
			require.NoError(t, verify(r, r.Nonce()))
			require.Equal(t, 310*time.Second, time.Until(r.replays.until))
		})
	})
}

func TestNewNonces(t *testing.T) {
	for _, c := range []struct {
		name    string
		cfg     dpop.NoncesConfig
		mistake string
	}{
		{"a key too short", dpop.NoncesConfig{Key: make([]byte, 31)}, "Key: 31 bytes, not 32"},
		{"a previous key and none now", dpop.NoncesConfig{Previous: [][]byte{nonceKey()}}, "Key: required with Previous"},
		{"a previous key too long", dpop.NoncesConfig{Key: nonceKey(), Previous: [][]byte{nonceKey(), make([]byte, 33)}}, "Previous[1]: 33 bytes, not 32"},
		{"a new one too often", dpop.NoncesConfig{Every: time.Millisecond}, "Every: 1ms"},
		{"a new one at negative intervals", dpop.NoncesConfig{Every: -time.Minute}, "Every: -1m0s"},
		{"a new one too seldom", dpop.NoncesConfig{Every: 2 * time.Hour}, "Every: 2h0m0s"},
		{"a negative grace", dpop.NoncesConfig{Grace: -1}, "Grace: -1ns"},
		{"a grace of many nonces", dpop.NoncesConfig{Every: time.Second, Grace: time.Minute}, "Grace: 1m0s"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := dpop.NewNonces(c.cfg)
			require.ErrorContains(t, err, "dpop: Nonces: "+c.mistake)
		})
	}
	for _, every := range []time.Duration{time.Second, time.Hour} {
		t.Run("a new one every "+every.String(), func(t *testing.T) {
			_, err := dpop.NewNonces(dpop.NoncesConfig{Every: every, Grace: every})
			require.NoError(t, err)
		})
	}
	t.Run("a nonce is made once for all requests of its time", func(t *testing.T) {
		r := newReplica(t, dpop.NoncesConfig{})
		require.Zero(t, testing.AllocsPerRun(100, func() { r.Nonce() }))
	})
	t.Run("every mistake names its field", func(t *testing.T) {
		_, err := dpop.NewNonces(dpop.NoncesConfig{Key: make([]byte, 31), Every: 2 * time.Hour})
		require.EqualError(t, err, "dpop: Nonces: Key: 31 bytes, not 32\ndpop: Nonces: Every: 2h0m0s is not between 1s and 1h0m0s")
	})
	t.Run("the caller's keys are copied", func(t *testing.T) {
		key := nonceKey()
		r, same := newReplica(t, dpop.NoncesConfig{Key: key}), newReplica(t, dpop.NoncesConfig{Key: bytes.Clone(key)})
		clear(key)
		require.Equal(t, same.Nonce(), r.Nonce())
	})
}
