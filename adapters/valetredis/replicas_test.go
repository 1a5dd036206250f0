package valetredis_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/adapters/valetredis"
	"github.com/valetkey/valetkey/dpop"
	"github.com/valetkey/valetkey/valetkeytest"
)

// withReplicas requires n replicas, or accepts to have none. A quarter of the time is left for the response after the confirmation.
func withReplicas(n int) func(*valetredis.Config) {
	return func(cfg *valetredis.Config) {
		cfg.Timeout, cfg.MinReplicas, cfg.AllowUnreplicated = 2*time.Second, n, n == 0
	}
}

// few is in the error of a write that is not confirmed.
const few = "0 of 1 replicas have confirmed the write to redis, so a failover may lose it"

// promote makes a replica a primary, as a failover does. It has no more of its primary than it has confirmed.
func (s *server) promote() {
	s.t.Helper()
	require.NoError(s.t, s.raw().ReplicaOf(context.Background(), "NO", "ONE").Err())
}

func (s *server) follow(primary *server) {
	s.t.Helper()
	require.NoError(s.t, s.raw().ReplicaOf(context.Background(), "127.0.0.1", port(primary.addr)).Err())
}

func TestWritesThatNoReplicaHasConfirmed(t *testing.T) {
	primary := startServer(t)
	backup := startServer(t, primary.replicaOf()...)
	ctx, key := t.Context(), randomKey()
	r, log := newRedis(t, newClient(t, primary.addr, nil), key, withReplicas(1))
	iss := valetkeytest.NewIssuer(t, valetkeytest.InMemory())
	client := iss.ProofKey("ES256")
	v, err := dpop.New(dpop.Config{ReplayStore: r, Now: iss.Now})
	require.NoError(t, err)
	verify := func(proof string) error {
		_, err := v.Verify(ctx, proofRequest(proof))
		return err
	}
	state := func() (states []valetkey.State) {
		for _, h := range r.Health() {
			states = append(states, h.State)
		}
		return states
	}
	f := follow(t, r)
	confirmed := func(t *testing.T) {
		t.Helper()
		eventually(t, "a proof is accepted", func() bool { return verify(client.Proof("GET", proofURL, "")) == nil })
		eventually(t, "it has caught up", f.says("true", ""))
		eventually(t, "all is well", func() bool {
			return slices.Equal(state(), []valetkey.State{valetkey.Ready, valetkey.Ready, valetkey.Ready})
		})
	}
	confirmed(t)
	first, again := "redis: replicas: too few replicas confirm", "redis: replicas: enough replicas confirm again"
	began, ended := log.count(first), log.count(again) // while the replica was starting
	publish(t, r, "before")
	eventually(t, "it is known", f.has("before"))

	backup.promote()
	for range 3 {
		proof := client.Proof("GET", proofURL, "")
		err := verify(proof)
		require.ErrorContains(t, err, "valetredis: remembering a proof: "+few)
		var refusal *valetkey.Error
		require.False(t, errors.As(err, &refusal), "it is not the client's fault")
		require.True(t, errors.As(verify(proof), &refusal), "it is recorded all the same")
	}
	require.ErrorContains(t, r.Publish(ctx, token("lost")), "valetredis: publishing a revocation: "+few)
	eventually(t, "it is applied all the same", f.has("lost"))
	eventually(t, "who watches is not sure to know all", f.says("false", few))
	late, _ := newRedis(t, newClient(t, primary.addr, nil), key, withReplicas(1))
	g := follow(t, late)
	eventually(t, "nor is one that starts", g.says("false", few))
	eventually(t, "though it applies what is there", func() bool { return slices.Equal(g.ids(), []string{"before", "lost"}) })
	require.Equal(t, []valetkey.State{valetkey.Ready, valetkey.Ready, valetkey.Degraded}, state(), "redis itself answers")
	require.NoError(t, r.Set(ctx, "k", []byte("v"), time.Minute))

	backup.follow(primary)
	confirmed(t)
	eventually(t, "the late one has caught up", g.says("true", ""))
	publish(t, r, "after")
	eventually(t, "it is known", f.has("after"))
	assert.Equal(t, []string{"before", "lost", "after"}, f.ids())
	assert.Equal(t, began+1, log.count(first), log)
	assert.Equal(t, ended+1, log.count(again), log)
	assert.Zero(t, log.count("redis does not answer"), log)
}

func TestAWriteIsNotRepeatedWhileItIsNotConfirmed(t *testing.T) {
	s := startServer(t)
	// A quarter of the time is left for the response, also on a machine under load.
	client := redis.NewClient(&redis.Options{Addr: s.addr, ContextTimeoutEnabled: true, ReadTimeout: 4 * time.Second})
	t.Cleanup(func() { client.Close() })
	r, _ := newRedis(t, client, randomKey(), func(cfg *valetredis.Config) { cfg.Timeout, cfg.MinReplicas = 10*time.Second, 1 })
	require.ErrorContains(t, r.Publish(t.Context(), token("1")), few)
	require.EqualValues(t, 1, s.raw().XLen(t.Context(), stream).Val())
	f := follow(t, r)
	eventually(t, "it is not sure to know all", f.says("false", few))
	require.Equal(t, []string{"1"}, f.ids())
}

// What MinReplicas is for.
func TestAFailoverLosesWhatItNeedNotConfirm(t *testing.T) {
	primary := startServer(t)
	backup := startServer(t, primary.replicaOf()...)
	ctx, key := t.Context(), randomKey()
	before, _ := newRedis(t, newClient(t, primary.addr, nil), key, withReplicas(0))
	after, _ := newRedis(t, newClient(t, backup.addr, nil), key, withReplicas(0))
	backup.promote() // before it has what follows
	proof := [32]byte{1}
	fresh, err := before.Use(ctx, proof, time.Now().Add(time.Minute))
	require.NoError(t, err)
	require.True(t, fresh)
	require.NoError(t, before.Publish(ctx, token("1")))
	fresh, err = after.Use(ctx, proof, time.Now().Add(time.Minute))
	require.NoError(t, err)
	require.True(t, fresh, "the proof passes twice")
	f := follow(t, after)
	eventually(t, "it takes redis for a new one", f.says("true", ""))
	require.Empty(t, f.ids())
}

func TestAProofIsRememberedThoughTheClockOfAReplicaIsAhead(t *testing.T) {
	primary := startServer(t)
	startServer(t, primary.replicaOf()...)
	r, _ := newRedis(t, newClient(t, primary.addr, nil), randomKey(), withReplicas(1))
	eventually(t, "a proof is recorded", func() bool {
		_, err := r.Use(t.Context(), [32]byte{1}, time.Now().Add(time.Minute))
		return err == nil
	})
	names, err := primary.raw().Keys(t.Context(), "valetkey:proof:*").Result()
	require.NoError(t, err)
	require.Len(t, names, 1)
	left, err := primary.raw().PTTL(t.Context(), names[0]).Result()
	require.NoError(t, err)
	assert.Greater(t, left, 90*time.Second)
	assert.LessOrEqual(t, left, 2*time.Minute)
}

// TestCommandsThatRedisMustAllow runs everything with the commands that the package comment lists, and no others.
func TestCommandsThatRedisMustAllow(t *testing.T) {
	for name, c := range map[string]struct {
		n     int
		allow string
	}{
		"alone":         {0, "set getrange eval exists xadd xinfo xlen xread xtrim"},
		"with replicas": {1, "set getrange eval exists xadd xinfo xlen xread xtrim del persist pexpire wait"},
	} {
		t.Run(name, func(t *testing.T) {
			primary := startServer(t)
			rule := []any{"ACL", "SETUSER", "valetkey", "on", ">secret", "~valetkey:*"}
			for command := range strings.FieldsSeq(c.allow) {
				rule = append(rule, "+"+command)
			}
			require.NoError(t, primary.raw().Do(t.Context(), rule...).Err())
			startServer(t, primary.replicaOf()...)
			client := redis.NewClient(&redis.Options{Addr: primary.addr, Username: "valetkey", Password: "secret", ContextTimeoutEnabled: true})
			t.Cleanup(func() { client.Close() })
			r, log := newRedis(t, client, randomKey(), withReplicas(c.n))
			f := follow(t, r)
			eventually(t, "it has caught up", f.says("true", ""))
			publish(t, r, "1", "2")
			eventually(t, "it is known", f.has("2"))
			eventually(t, "it has caught up", f.says("true", ""))
			eventually(t, "a proof is recorded", func() bool {
				fresh, err := r.Use(t.Context(), [32]byte{1}, time.Now().Add(time.Minute))
				return err == nil && fresh
			})
			require.NoError(t, r.Set(t.Context(), "k", []byte("v"), time.Minute))
			value, err := r.Get(t.Context(), "k")
			require.NoError(t, err)
			require.Equal(t, "v", string(value))
			require.NotContains(t, log.String(), "NOPERM")
		})
	}
}
