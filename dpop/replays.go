package dpop

import (
	"context"
	"errors"
	"hash/maphash"
	"math"
	"sync"
	"time"

	"github.com/valetkey/valetkey"
)

// Replays remembers which proofs were used. Use must be safe for concurrent use, atomic, and must return soon after ctx is
// done.
type Replays interface {
	// Use reports whether key was not used before, and remembers it until then, which is in the near future by the real
	// clock. Of several calls with one key, in whichever process, exactly one may report true. If that cannot be found out
	// or key cannot be remembered, it returns an error, and the request is answered with 503.
	Use(ctx context.Context, key [32]byte, until time.Time) (fresh bool, err error)
}

// InsecureNoReplays remembers nothing: who sees a proof and its token on the way can use both until the proof is too old.
type InsecureNoReplays struct{}

// Use reports true.
func (InsecureNoReplays) Use(context.Context, [32]byte, time.Time) (bool, error) { return true, nil }

// DefaultReplays is how many proofs [NewReplays] remembers by default: with the default window some 15,000 a second, with
// nonces, for which proofs are good longer, some 3,500. There is no share for each client.
const DefaultReplays = 1 << 20

// A MemoryReplays remembers proofs in the memory of this process, with no limit per client. It is safe for concurrent use.
type MemoryReplays struct {
	seed   maphash.Seed // of the choice of a shard: who makes proofs foresees their hashes, and could fill a single one
	shards []replayShard
}

// A replayShard has a fair share of the keys.
type replayShard struct {
	mu       sync.Mutex     // guards what follows
	ends     map[part]int64 // in Unix seconds, rounded up
	max      int            // as many ends at most
	sweepAt  int            // as many ends are a reason to look for those that are over
	earliest int64          // no end is before it

	_ [64]byte // apart from the next one's in the processor's cache
}

// A part of a key is enough: two keys with the same one would take somebody 2^64 proofs, and cost him one of them.
type part [16]byte

// NewReplays returns a memory of at most max proofs, give or take one in a hundred, each of which takes some 60 bytes. When it
// is full of proofs that could still be accepted, Use returns an error. Zero or less: [DefaultReplays].
func NewReplays(max int) *MemoryReplays {
	if max <= 0 {
		max = DefaultReplays
	}
	count := min(1+max/1024, 64)
	m := &MemoryReplays{seed: maphash.MakeSeed(), shards: make([]replayShard, count)}
	for i := range m.shards {
		m.shards[i].max = (max + count - 1) / count
		m.shards[i].reset()
	}
	return m
}

// Use implements [Replays].
func (m *MemoryReplays) Use(_ context.Context, key [32]byte, until time.Time) (fresh bool, err error) {
	now := time.Now().Unix()
	s := &m.shards[maphash.Bytes(m.seed, key[:])%uint64(len(m.shards))]
	return s.use(part(key[:]), max(until.Unix(), now)+1, now)
}

func (s *replayShard) use(key part, end, now int64) (fresh bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	known, found := s.ends[key]
	if found && known > now {
		return false, nil
	}
	if len(s.ends) >= s.sweepAt && s.earliest <= now {
		s.sweepLocked(now)
	}
	if len(s.ends) >= s.max {
		return false, &valetkey.Unavailable{
			RetryAfter: time.Duration(s.earliest-now) * time.Second,
			Err:        errors.New("the memory of used DPoP proofs is full"),
		}
	}
	s.ends[key] = end
	s.earliest = min(s.earliest, end)
	return true, nil
}

// sweepLocked forgets what is over. Between two sweeps the shard doubles, or a second passes.
func (s *replayShard) sweepLocked(now int64) {
	s.earliest = math.MaxInt64
	for key, end := range s.ends {
		if end <= now {
			delete(s.ends, key)
		} else {
			s.earliest = min(s.earliest, end)
		}
	}
	if len(s.ends) == 0 {
		s.reset()
	}
	s.sweepAt = min(max(2*len(s.ends), 64), s.max)
}

// reset gives back the memory, too.
func (s *replayShard) reset() {
	s.ends, s.sweepAt, s.earliest = map[part]int64{}, min(64, s.max), math.MaxInt64
}
