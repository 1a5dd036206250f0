// Package valetredis lets the replicas of an API share data through Redis:
//
//   - responses of an introspection endpoint: [Redis.Get] and [Redis.Set], for introspect.Config.SharedCache;
//   - revocations: [Redis.Publish] in one process, [Redis.Watch] in all, as a [valetkey.RevocationSource];
//   - used DPoP proofs: [Redis.Use], for dpop.Config.ReplayStore.
//
// Create one [Redis] and use it for all of them:
//
//	client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:6379", ContextTimeoutEnabled: true})
//	shared, err := valetredis.New(valetredis.Config{Client: client, Key: key})
//
// # What Redis is trusted with
//
// Cached responses and revocations are sealed with AES-256-GCM under [Config.Key]. Each is bound to its name, and a response also
// to its expiry. No token is stored. A reader of Redis learns how many responses and revocations there are. A writer can remove
// them, or restore an older response about the same token until that response expires. A writer cannot forge or swap responses,
// or revoke. Entries that cannot be opened and gaps make all guards Degraded. If no entry can be opened, guards that start do not
// become ready. DPoP proofs are stored as hashes and are not sealed; see [Redis.Use].
//
// # When Redis is slow or unavailable
//
// Each operation ends within [Config.Timeout]. After three failures in a row, Get and Set return an error immediately, and about
// one call per second is let through as a probe. The verifier then uses its local cache and asks the issuer. Watch retries until
// Redis responds, and then catches up. A guard whose Revocations.Source is a Redis responds with 503 until it has caught up once.
// It is Degraded whenever it may miss revocations later.
//
// # Sentinel, clusters and failovers
//
// Client may be a [redis.Client], also of [redis.NewFailoverClient] or on a Unix socket, or a [redis.ClusterClient]. Each operation
// uses a single key, so no hash tag is needed: responses and proofs spread over a cluster, and all revocations are in one slot.
//
// Redis replicates after it has responded. A failover therefore loses writes that had succeeded: a used proof could be used again,
// and a published revocation would be unknown. So with a client that follows failovers, a revocation and a used proof count only
// once [Config.MinReplicas] replicas have confirmed them (WAIT). Otherwise Publish and Use return an error, and a guard responds
// with 503 to the request with the proof. Watch writes to the server that it reads about once per second, without an effect on the
// data. A server that cannot replicate this write may have been replaced. Watch then reports an error but still applies what it
// reads: a guard that starts responds with 503, and a running guard is Degraded.
//
// A failover still loses confirmed writes in these cases:
//
//   - It promotes a replica that has not confirmed: with MinReplicas below the number of replicas, if those that confirmed are
//     unavailable too, or if an operator forces the failover (SENTINEL FAILOVER, CLUSTER FAILOVER FORCE). Redis Sentinel and clusters prefer the replica that is most up to date. Sentinel compares positions that can
//     be 5 seconds old, so keep its down-after-milliseconds at 5000 or more, and do not give replicas different priorities.
//   - Servers lose their memory: a primary that restarts without persistence before the failover empties its replicas, a replica
//     can be promoted after such a restart, or all servers crash before they wrote to disk. Use appendonly, and appendfsync always if crashes of all servers matter.
//   - An operator uses CLUSTER FAILOVER TAKEOVER, or resets or restores servers.
//
// One replica and MinReplicas 1 lose nothing otherwise, but after a failover proofs get 503 until the failed server is back. With
// two replicas and MinReplicas 1, one server may fail without 503 after the failover.
//
// # When Redis loses revocations
//
// Redis loses revocations if it is emptied, restarted from an older copy, failed over to a lagging replica, or trimmed by others.
// Revocations that a guard has already applied remain in force there. Each revocation contains the ID of the previous one, so
// Watch detects a gap, and also that the last entry it read no longer exists. The guard is then Degraded for as long as the lost
// revocations may matter: [Config.Keep] plus 5 minutes. Publish again what must stay revoked; restarting the guard restores
// nothing.
//
// Two losses cannot be detected. A process that starts with an emptied Redis takes it for a new one. A revocation that Redis
// stored and then lost in a crash or failover, before any other Publish or Watch, leaves no gap. Therefore configure Redis
// with persistence (appendonly), and without an eviction policy that drops keys without an expiry (allkeys-*). Let the client
// read from the primary only: a lagging replica looks like a loss.
//
// Redis must allow the commands SET, GETRANGE, EVAL, EXISTS, XADD, XINFO, XLEN, XREAD and XTRIM, and with MinReplicas also DEL,
// PERSIST, PEXPIRE and WAIT. Redis 6.2 or later is required, or Valkey; the tests run with Redis 7.0.
package valetredis

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/valetkey/valetkey"
)

// Config holds the Redis client and the keys that seal the data. All processes that share data must have the same Key, Prefix and
// Keep.
type Config struct {
	_ struct{} // keyed literals only

	// Client connects to Redis. Required. It must observe the deadline of a context: set ContextTimeoutEnabled in its options.
	// The caller closes it, after Watch has returned. A redis.Ring is refused, because it moves keys between servers and so would
	// lose revocations.
	Client redis.UniversalClient

	// Key seals the data in Redis: 32 random bytes from a secret store. Required.
	Key []byte

	// PreviousKeys open revocations that were sealed with other keys. To change the key without missing a revocation, add the new
	// key here in every process. Then make it Key everywhere and list the old key here. Remove the old key after Keep. Cached
	// responses are opened with Key only, because the verifier soon asks for them again.
	PreviousKeys [][]byte

	// Prefix is the prefix of all key names in Redis. Empty: "valetkey:".
	Prefix string

	// Timeout is the time limit of one operation. Zero: 50 ms.
	Timeout time.Duration

	// Keep is the longest time that the Until of a revocation may be in the future. Set it to at least the longest lifetime of an
	// access token: Publish refuses a revocation that matters longer. Redis keeps a revocation for another 65 minutes: 5 for the
	// leeway of verifiers and 60 for clock differences. Zero: 24 h.
	Keep time.Duration

	// MinReplicas is the number of replicas that must confirm a revocation before [Redis.Publish] succeeds, and a used proof before
	// [Redis.Use] reports it as fresh. If fewer confirm within Timeout, both return an error. Watch does not report that it has
	// caught up while the server that it reads has fewer replicas. With all replicas of a primary, no failover between intact
	// servers loses a confirmed write; see the package comment. Zero: 1 if Client is a [redis.ClusterClient] or was created by
	// [redis.NewFailoverClient], which follow a failover; 0 for other clients. Set it for a service that fails over behind one
	// address, which a client cannot detect.
	MinReplicas int

	// AllowUnreplicated accepts writes that no replica has confirmed from a client that follows a failover. The failover loses
	// the most recent writes: a proof can then be used twice, and a published revocation can be lost. Set it for a cluster
	// without replicas. It cannot be combined with MinReplicas.
	AllowUnreplicated bool

	// Logger receives changes in the availability of Redis, data that cannot be opened, and revocations that could not be
	// applied. Nil: slog.Default().
	Logger *slog.Logger
}

const (
	defaultPrefix  = "valetkey:"
	defaultTimeout = 50 * time.Millisecond
	defaultKeep    = 24 * time.Hour

	silent    = "redis does not answer"
	answering = "redis answers again"
)

// A Redis shares cached responses, revocations and used DPoP proofs. Create one with [New]. It is safe for concurrent use and
// needs no closing.
type Redis struct {
	cfg     Config // with defaults
	keys    *keyring
	stream  string // key of the stream of revocations
	answers breaker
	follow  breaker // of Watch: reports health only, never blocks a call
	copies  breaker // of the confirmations of replicas: reports health only; unused without MinReplicas
}

// New returns a Redis. It does no I/O. The error joins one [valetkey.ConfigError] for each mistake in cfg.
func New(cfg Config) (*Redis, error) {
	var mistakes []error
	mistake := func(field, format string, args ...any) {
		mistakes = append(mistakes, fmt.Errorf("valetredis: %w", &valetkey.ConfigError{Field: field, Err: fmt.Errorf(format, args...)}))
	}
	if err := fit(cfg.Client); err != nil {
		mistake("Client", "%w", err)
	}
	if len(cfg.Key) != keySize {
		mistake("Key", "%d bytes, not %d", len(cfg.Key), keySize)
	}
	for i, key := range cfg.PreviousKeys {
		if len(key) != keySize {
			mistake(fmt.Sprintf("PreviousKeys[%d]", i), "%d bytes, not %d", len(key), keySize)
		}
	}
	if cfg.Timeout < 0 {
		mistake("Timeout", "%v is negative", cfg.Timeout)
	}
	if cfg.Keep < 0 {
		mistake("Keep", "%v is negative", cfg.Keep)
	}
	switch {
	case cfg.MinReplicas < 0:
		mistake("MinReplicas", "%d is negative", cfg.MinReplicas)
	case cfg.MinReplicas > 0 && cfg.AllowUnreplicated:
		mistake("AllowUnreplicated", "cannot be combined with MinReplicas")
	case cfg.MinReplicas > 0 && !waits(cfg.Client):
		mistake("MinReplicas", "requires a *redis.Client or a *redis.ClusterClient")
	case cfg.MinReplicas == 0 && !cfg.AllowUnreplicated && failsOver(cfg.Client):
		cfg.MinReplicas = 1
	}
	if err := errors.Join(mistakes...); err != nil {
		return nil, err
	}
	keys, err := newKeyring(cfg.Key, cfg.PreviousKeys)
	if err != nil {
		return nil, fmt.Errorf("valetredis: deriving keys: %w", err)
	}
	cfg.Key, cfg.PreviousKeys = nil, nil
	if cfg.Prefix == "" {
		cfg.Prefix = defaultPrefix
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = defaultTimeout
	}
	if cfg.Keep == 0 {
		cfg.Keep = defaultKeep
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	return &Redis{
		cfg:     cfg,
		keys:    keys,
		stream:  cfg.Prefix + "revocations",
		answers: breaker{name: "redis: answers", limit: 3, log: cfg.Logger, down: silent, up: answering, since: time.Now()},
		follow:  breaker{name: "redis: revocations", limit: 1, log: cfg.Logger, down: silent, up: answering},
		copies: breaker{name: "redis: replicas", limit: 3, log: cfg.Logger,
			down: "too few replicas confirm", up: "enough replicas confirm again"},
	}, nil
}

// fit returns an error if client is unsuitable, as far as that can be detected.
func fit(client redis.UniversalClient) error {
	var deadlines bool
	switch c := client.(type) {
	case nil:
		return errors.New("missing")
	case *redis.Ring:
		return errors.New("a redis.Ring would lose revocations")
	case *redis.Client:
		deadlines = c != nil && c.Options().ContextTimeoutEnabled
	case *redis.ClusterClient:
		deadlines = c != nil && c.Options().ContextTimeoutEnabled
		if c != nil && c.Options().ReadOnly { // RouteByLatency and RouteRandomly set it too
			return errors.New("it reads from replicas, which lag: unset ReadOnly, RouteByLatency and RouteRandomly")
		}
	default: // a custom implementation
		deadlines = true
	}
	if !deadlines {
		return errors.New("it does not keep to deadlines: set ContextTimeoutEnabled")
	}
	return nil
}

// Health returns the health of the shared cache, of the watch for revocations once Watch has been called, and of the replicas
// once one of them had to confirm. The state is Ready, or Degraded while Redis does not respond, revocations are known to be
// missing, or too few replicas confirm. It does no I/O.
func (r *Redis) Health() []valetkey.Health {
	all := []valetkey.Health{r.answers.health()}
	for _, b := range []*breaker{&r.follow, &r.copies} {
		if h := b.health(); !h.Since.IsZero() {
			all = append(all, h)
		}
	}
	return all
}

// A rateLimitedLog permits one log line per minute, for lines that outsiders can trigger. The zero value is ready.
type rateLimitedLog struct{ next atomic.Int64 } // Unix nanoseconds

func (s *rateLimitedLog) now() bool {
	now, next := time.Now(), s.next.Load()
	return now.UnixNano() >= next && s.next.CompareAndSwap(next, now.Add(time.Minute).UnixNano())
}

// jitter reduces d by up to a third, so that processes that failed together do not retry together.
func jitter(d time.Duration) time.Duration { return d - rand.N(d/3+1) }
