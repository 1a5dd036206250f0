package valetredis_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/adapters/valetredis"
)

// startSentinel starts a real sentinel that watches the primary as "orders", and returns its address.
func startSentinel(t *testing.T, primary *server, quorum int) string {
	t.Helper()
	addr, settings := freeAddr(t), filepath.Join(t.TempDir(), "sentinel.conf") // which it rewrites
	require.NoError(t, os.WriteFile(settings, fmt.Appendf(nil, `port %s
bind 127.0.0.1
sentinel monitor orders 127.0.0.1 %s %d
sentinel down-after-milliseconds orders 1500
sentinel failover-timeout orders 5000
`, port(addr), port(primary.addr), quorum), 0o600))
	cmd := exec.Command("redis-server", settings, "--sentinel")
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return addr
}

func TestSentinelFailover(t *testing.T) {
	primary := startServer(t)
	servers := []*server{primary, startServer(t, primary.replicaOf()...), startServer(t, primary.replicaOf()...)}
	var sentinels []string
	for range 3 {
		sentinels = append(sentinels, startSentinel(t, primary, 2))
	}
	ask := redis.NewSentinelClient(&redis.Options{Addr: sentinels[0]})
	t.Cleanup(func() { ask.Close() })
	for _, addr := range sentinels {
		one := redis.NewSentinelClient(&redis.Options{Addr: addr})
		eventually(t, "the sentinels know all others and the replicas", func() bool {
			orders, err := one.Master(context.Background(), "orders").Result()
			return err == nil && orders["num-other-sentinels"] == "2" && orders["num-slaves"] == "2"
		})
		one.Close()
	}
	elected := func() string {
		addr, err := ask.GetMasterAddrByName(context.Background(), "orders").Result()
		if err != nil || len(addr) != 2 {
			return ""
		}
		return net.JoinHostPort(addr[0], addr[1])
	}
	// kill kills the primary, and returns it when another one has been elected.
	kill := func() (down *server, next string) {
		was := elected()
		for _, s := range servers {
			if s.addr == was {
				down = s
			}
		}
		require.NotNil(t, down)
		down.kill()
		eventually(t, "another server is elected", func() bool { next = elected(); return next != "" && next != was })
		return down, next
	}
	d := newDrill(t, func() redis.UniversalClient {
		return redis.NewFailoverClient(&redis.FailoverOptions{MasterName: "orders", SentinelAddrs: sentinels, ContextTimeoutEnabled: true})
	})
	d.run(func() {
		down, next := kill()
		unknown, unpublished := d.unknown.Load(), d.unpublished.Load()
		eventually(t, "the other server has one replica at most, so it cannot know", func() bool {
			return d.unknown.Load() > unknown+drillClients && d.unpublished.Load() > unpublished+1
		})
		for _, at := range []*replica{d.a, d.b} {
			eventually(t, "the guard is not sure to know all revocations", func() bool {
				return at.redis.Health()[2].State == valetkey.Degraded
			})
		}
		down.args = []string{"--replicaof", "127.0.0.1", port(next)}
		down.start()
	})
	require.Positive(t, d.unknown.Load())
	require.Positive(t, d.unpublished.Load())

	client := d.dial()
	t.Cleanup(func() { client.Close() })
	byDefault, _ := newRedis(t, client, d.key, func(cfg *valetredis.Config) { cfg.Timeout = 500 * time.Millisecond })
	use := func() error {
		_, err := byDefault.Use(t.Context(), [32]byte(randomKey()), time.Now())
		return err
	}
	eventually(t, "one replica suffices", func() bool { return use() == nil })
	for _, s := range servers {
		if s.addr != elected() {
			s.kill()
		}
	}
	eventually(t, "none does not", func() bool { err := use(); return err != nil && strings.Contains(err.Error(), few) })
}

// A cluster is a real Redis Cluster of three primaries.
type cluster struct {
	t       *testing.T
	servers []*server // the primaries and then their replicas
}

// startCluster starts a cluster whose primaries have one replica each, or none.
func startCluster(t *testing.T, replicas int) *cluster {
	c := &cluster{t: t}
	ctx, all := context.Background(), 3*(1+replicas)
	for i := range all {
		s := startServer(t, "--cluster-enabled", "yes", "--cluster-port", port(freeAddr(t)), "--cluster-node-timeout", "1500")
		c.servers = append(c.servers, s)
		if i < 3 {
			require.NoError(t, s.raw().ClusterAddSlotsRange(ctx, i*16384/3, (i+1)*16384/3-1).Err())
		}
		if i > 0 {
			first := c.servers[0].raw()
			require.NoError(t, s.raw().Do(ctx, "CLUSTER", "MEET", "127.0.0.1", port(c.servers[0].addr), c.bus(first)).Err())
		}
	}
	c.settle(fmt.Sprint("cluster_known_nodes:", all))
	for i, s := range c.servers[3:] {
		eventually(t, "a replica has its primary", func() bool { return s.raw().ClusterReplicate(ctx, c.id(c.servers[i])).Err() == nil })
	}
	for _, s := range c.servers[3:] {
		eventually(t, "the replica is there", func() bool {
			return strings.Contains(s.raw().Info(ctx, "replication").Val(), "master_link_status:up")
		})
	}
	c.settle("cluster_state:ok")
	return c
}

// bus returns the port on which the server of a client talks to the others.
func (c *cluster) bus(raw *redis.Client) string {
	settings, err := raw.ConfigGet(context.Background(), "cluster-port").Result()
	require.NoError(c.t, err)
	return settings["cluster-port"]
}

func (c *cluster) id(s *server) string {
	id, err := s.raw().ClusterMyID(context.Background()).Result()
	require.NoError(c.t, err)
	return id
}

// settle waits until all servers report it.
func (c *cluster) settle(report string) {
	c.t.Helper()
	for _, s := range c.servers {
		raw := s.raw()
		eventually(c.t, "the cluster settles: "+report, func() bool {
			return strings.Contains(raw.ClusterInfo(context.Background()).Val(), report)
		})
	}
}

func (c *cluster) client() *redis.ClusterClient {
	// One seed does not listen, as if it were down.
	return redis.NewClusterClient(&redis.ClusterOptions{
		Addrs: []string{freeAddr(c.t), c.servers[0].addr, c.servers[1].addr, c.servers[2].addr}, ContextTimeoutEnabled: true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	})
}

// primary returns the server that has the key.
func (c *cluster) primary(client *redis.ClusterClient, key string) *server {
	c.t.Helper()
	client.ReloadState(context.Background())
	at, err := client.MasterForKey(context.Background(), key)
	require.NoError(c.t, err)
	for _, s := range c.servers {
		if s.addr == at.Options().Addr {
			return s
		}
	}
	require.Fail(c.t, "no server is at "+at.Options().Addr)
	return nil
}

func TestClusterWithoutReplicas(t *testing.T) {
	c := startCluster(t, 0)
	ctx, key := t.Context(), randomKey()
	one, other := c.client(), c.client()
	t.Cleanup(func() { one.Close(); other.Close() })
	a, _ := newRedis(t, one, key, withReplicas(0))
	b, log := newRedis(t, other, key, withReplicas(0))
	f := follow(t, b)
	publish(t, a, "1", "2")
	eventually(t, "both are known", f.has("2"))
	use := func(r *valetredis.Redis, n byte) (fresh bool, err error) {
		return r.Use(ctx, [32]byte{n}, time.Now().Add(time.Hour))
	}
	for n := range byte(100) { // in the slots of all primaries
		eventually(t, "a proof is used", func() bool { fresh, err := use(a, n); return err == nil && fresh })
		var fresh bool
		eventually(t, "the other one asks", func() bool {
			var err error
			fresh, err = use(b, n)
			return err == nil
		})
		require.False(t, fresh)
		eventually(t, "an answer is kept", func() bool { return a.Set(ctx, fmt.Sprint(n), []byte{n}, time.Hour) == nil })
		var value []byte
		eventually(t, "the other one asks for it", func() bool {
			var err error
			value, err = b.Get(ctx, fmt.Sprint(n))
			return err == nil
		})
		require.Equal(t, []byte{n}, value)
	}
	for _, s := range c.servers {
		require.Greater(t, s.raw().DBSize(ctx).Val(), int64(20), "they are spread")
	}

	down := c.primary(one, stream)
	down.kill()
	require.Error(t, a.Publish(ctx, token("lost")))
	eventually(t, "no proof is known to be unused, as a part of the cluster is gone", func() bool {
		for n := range byte(100) {
			if _, err := use(a, n); err == nil {
				return false
			}
		}
		return true
	})
	eventually(t, "it is known", f.says("false", ""))
	down.start() // without what it had
	eventually(t, "that revocations are missing is known", f.says("missing", "redis does not have the stream any more"))
	publish(t, a, "3")
	eventually(t, "and it goes on", f.has("3"))
	require.Equal(t, 1, log.count("some are missing"), log)
}

func TestClusterFailover(t *testing.T) {
	c := startCluster(t, 1)
	client := c.client()
	t.Cleanup(func() { client.Close() })
	d := newDrill(t, func() redis.UniversalClient { return c.client() })
	d.run(func() {
		down := c.primary(client, stream)
		down.kill()
		eventually(t, "its replica is elected", func() bool { return c.primary(client, stream) != down })
		unpublished := d.unpublished.Load()
		eventually(t, "the other server has no replica, so it cannot know", func() bool { return d.unpublished.Load() > unpublished+1 })
		down.start() // it becomes the replica
	}, func() {
		c.moveStream(client)
	})
	require.Positive(t, d.unknown.Load())
	for _, s := range c.servers {
		if strings.Contains(s.raw().Info(t.Context(), "replication").Val(), "role:master") {
			require.Positive(t, s.raw().DBSize(t.Context()).Val(), "proofs are spread over the cluster")
		}
	}
	for _, at := range []*replica{d.a, d.b} {
		eventually(t, "nothing is missing", func() bool {
			for _, h := range at.redis.Health() {
				if h.State != valetkey.Ready {
					return false
				}
			}
			return true
		})
	}
}

// moveStream moves the revocations to another primary, as operators do who add servers.
func (c *cluster) moveStream(client *redis.ClusterClient) {
	t, ctx := c.t, context.Background()
	from := c.primary(client, stream)
	var to *server
	for _, s := range c.servers {
		if s != from && strings.Contains(s.raw().Info(ctx, "replication").Val(), "role:master") {
			to = s
		}
	}
	slot, err := from.raw().ClusterKeySlot(ctx, stream).Result()
	require.NoError(t, err)
	do := func(s *server, args ...any) {
		require.NoError(t, s.raw().Do(ctx, args...).Err(), args)
	}
	do(to, "CLUSTER", "SETSLOT", slot, "IMPORTING", c.id(from))
	do(from, "CLUSTER", "SETSLOT", slot, "MIGRATING", c.id(to))
	for {
		keys, err := from.raw().ClusterGetKeysInSlot(ctx, int(slot), 100).Result()
		require.NoError(t, err)
		if len(keys) == 0 {
			break
		}
		for _, key := range keys {
			do(from, "MIGRATE", "127.0.0.1", port(to.addr), key, 0, 5000)
		}
	}
	do(to, "CLUSTER", "SETSLOT", slot, "NODE", c.id(to))
	do(from, "CLUSTER", "SETSLOT", slot, "NODE", c.id(to))
	eventually(t, "the clients know", func() bool { return c.primary(client, stream) == to })
}
