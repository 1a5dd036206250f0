// Package valetredis lets the replicas of an API share through redis what one of them has learnt:
//
//   - the answers of an introspection endpoint: [Redis.Get] and [Redis.Set], for introspect.Config.Shared;
//   - revocations: [Redis.Publish] in one process, [Redis.Watch] in all; it is a [valetkey.RevocationSource].
//
// A [Redis] is made once and given to both:
//
//	client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:6379", ContextTimeoutEnabled: true})
//	shared, err := valetredis.New(valetredis.Config{Client: client, Key: key})
//
// # What redis is trusted with
//
// Everything is sealed with AES-256-GCM under [Config.Key], bound to its name and, for an answer, to its end. Who reads
// redis learns how many answers and revocations there are. Who writes to it can take them away, or bring back an older
// answer about the same token until that answer's end; but cannot make one, exchange two, or revoke. Entries that do not open,
// and gaps, make all guards Degraded. If no entry opens, guards that start do not become ready. No token is stored.
//
// # When redis is slow or gone
//
// Each operation ends within [Config.Timeout]. After three failures in a row Get and Set return an error at once, and one
// call in about a second is let through to see whether redis is back. The verifier then goes on with its own memory and
// asks the issuer. Watch tries again until redis answers, and then catches up: a guard whose Revocations.Source is a Redis answers
// 503 until it has done so once, and is Degraded while it may miss revocations later.
//
// # When redis loses revocations
//
// Redis that was emptied, restarted from an older copy, failed over to a replica that lags, or trimmed by others has lost
// revocations. Those applied before still hold where they were applied. Each revocation names the one before it, so Watch detects
// a gap, and that the last one that it has read is not there any more: the guard is Degraded for as long as those that are
// lost may matter, [Config.Keep] and 5 min. Publish again what must stay revoked; a restart of the guard brings nothing back.
//
// Two losses cannot be detected: a process that starts with a redis that was emptied takes it for a new one, and a
// revocation that redis had confirmed and lost in a crash or failover, before any Publish or Watch after it, leaves no gap. So
// give redis persistence (appendonly), and no eviction policy that drops keys without an expiry (allkeys-*). Let a client read
// from the primary only: a replica that lags looks like a loss.
//
// Redis must allow the commands SET, GET, EVALSHA, EVAL, EXISTS, XADD, XINFO, XLEN, XREAD and XTRIM.
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

// Config says where redis is and what seals that which is kept there. All processes that share must have the same Key,
// Prefix and Keep.
type Config struct {
	_ struct{} // keyed literals only

	// Client talks to redis. Required. It must keep to the deadline of a context: set ContextTimeoutEnabled in its options.
	// It stays the caller's to close, after Watch has returned. A redis.Ring is refused: it moves keys from server to
	// server, and so would lose revocations.
	Client redis.UniversalClient

	// Key seals what is kept in redis: 32 random bytes, from a secret store. Required.
	Key []byte

	// PreviousKeys open revocations that another key has sealed. To change the key without missing one: add the new key
	// here in every process, then make it Key everywhere with the old one here, and drop the old one after Keep. Answers are
	// looked for under Key alone, since they are soon asked for again.
	PreviousKeys [][]byte

	// Prefix begins the name of every key in redis. Empty: "valetkey:".
	Prefix string

	// Timeout is that of one operation. Zero: 50 ms.
	Timeout time.Duration

	// Keep is the furthest that the Until of a revocation may be ahead, which must be as long as the longest life of an access
	// token: Publish refuses one that matters longer. Redis keeps a revocation for 65 min more, 5 for the leeway of verifiers and
	// 60 for clocks that differ. Zero: 24 h.
	Keep time.Duration

	// Logger gets redis going and coming back, what does not open, and revocations that could not be applied. Nil:
	// slog.Default().
	Logger *slog.Logger
}

const (
	defaultPrefix  = "valetkey:"
	defaultTimeout = 50 * time.Millisecond
	defaultKeep    = 24 * time.Hour
)

// A Redis shares answers and revocations. It is safe for concurrent use and has nothing to close.
type Redis struct {
	cfg     Config // with the defaults filled in
	keys    *keyring
	stream  string // the name of the revocations
	answers breaker
	follow  breaker // of Watch: says how it is, and stops nobody
}

// New returns a Redis. It does no I/O. The error names every mistake in cfg.
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
		answers: breaker{name: "redis: answers", limit: 3, log: cfg.Logger, since: time.Now()},
		follow:  breaker{name: "redis: revocations", limit: 1, log: cfg.Logger},
	}, nil
}

// fit reports what is wrong with a client, as far as it shows.
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
	default: // somebody's own
		deadlines = true
	}
	if !deadlines {
		return errors.New("it does not keep to deadlines: set ContextTimeoutEnabled")
	}
	return nil
}

// Health returns how the sharing of answers is and, once Watch has been called, the watching of revocations: Ready, or
// Degraded while redis does not answer or revocations are known to be missing. It does no I/O.
func (r *Redis) Health() []valetkey.Health {
	all := []valetkey.Health{r.answers.health()}
	if h := r.follow.health(); !h.Since.IsZero() {
		all = append(all, h)
	}
	return all
}

// A rateLimitedLog is true once a minute, for a log line that somebody else could cause at will. The zero value is ready.
type rateLimitedLog struct{ next atomic.Int64 } // Unix nanoseconds

func (s *rateLimitedLog) now() bool {
	now, next := time.Now(), s.next.Load()
	return now.UnixNano() >= next && s.next.CompareAndSwap(next, now.Add(time.Minute).UnixNano())
}

// jitter takes up to a third away, so that many who failed together do not try again together.
func jitter(d time.Duration) time.Duration { return d - rand.N(d/3+1) }
