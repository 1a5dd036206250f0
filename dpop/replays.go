package dpop

import (
	"context"
	"encoding/binary"
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
	//
	// The first 8 bytes of key are the same for all proofs made with one client's key, and different for those of others. A
	// memory with a bound can give each client a share by them. All bytes are those of hashes.
	Use(ctx context.Context, key [32]byte, until time.Time) (fresh bool, err error)
}

// InsecureNoReplays remembers nothing: who sees a proof and its token on the way can use both until the proof is too old.
type InsecureNoReplays struct{}

// Use reports true.
func (InsecureNoReplays) Use(context.Context, [32]byte, time.Time) (bool, error) { return true, nil }

// DefaultReplays is how many proofs [NewReplays] remembers by default: with the default window some 15,000 a second, with
// nonces, for which proofs are good longer, some 3,500. No client's key gets
// more than a quarter of that.
const DefaultReplays = 1 << 20

// A MemoryReplays remembers proofs in the memory of this process. It is safe for concurrent use.
//
// A client adds an entry with each proof that is otherwise good. If it has used up its share, its next proof is answered with
// 503, and no other client's is. Only many keys together can fill the memory: then every proof gets 503 until one has ended,
// since a proof that is not remembered could be used twice.
type MemoryReplays struct {
	seed   maphash.Seed // of the choice of a shard: who makes proofs foresees their hashes, and could fill a single one
	shards []replayShard
}

// A replayShard has a fair share of the keys.
type replayShard struct {
	mu       sync.Mutex       // guards what follows
	ends     map[part]int64   // in Unix seconds, rounded up
	held     map[uint32]int32 // how many of ends each client has, by its tag
	max      int              // as many ends at most
	share    int32            // as many of one client
	sweepAt  int              // as many ends are a reason to look for those that are over
	earliest int64            // no end is before it

	_ [64]byte // apart from the next one's in the processor's cache
}

// A part of a key is enough: the client's tag, and 12 bytes of the proof's hash. Two proofs with the same ones would take a
// client 2^48 proofs, and cost it one of them.
type part [16]byte

// tag returns what stands for a client: a seeded hash, so that a client cannot choose the tag of another.
func (p part) tag() uint32 { return binary.LittleEndian.Uint32(p[:4]) }

// NewReplays returns a memory of at most max proofs, give or take one in a hundred. Each takes some 60 bytes, and each client some
// 12 more. When it is full of proofs that could still be accepted, Use returns an error. Zero or less: [DefaultReplays].
func NewReplays(max int) *MemoryReplays {
	if max <= 0 {
		max = DefaultReplays
	}
	count := min(1+max/1024, 64)
	m := &MemoryReplays{seed: maphash.MakeSeed(), shards: make([]replayShard, count)}
	for i := range m.shards {
		m.shards[i].max = (max + count - 1) / count
		m.shards[i].share = int32(min(m.shards[i].max/4+1, math.MaxInt32))
		m.shards[i].reset()
	}
	return m
}

// Use implements [Replays].
func (m *MemoryReplays) Use(_ context.Context, key [32]byte, until time.Time) (fresh bool, err error) {
	now := time.Now().Unix()
	s := &m.shards[maphash.Bytes(m.seed, key[:])%uint64(len(m.shards))]
	var p part
	binary.LittleEndian.PutUint32(p[:4], uint32(maphash.Bytes(m.seed, key[:8])))
	copy(p[4:], key[8:])
	return s.use(p, max(until.Unix(), now)+1, now)
}

func (s *replayShard) use(key part, end, now int64) (fresh bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	known, found := s.ends[key]
	if found && known > now {
		return false, nil
	}
	if (len(s.ends) >= s.sweepAt || s.held[key.tag()] >= s.share) && s.earliest <= now {
		s.sweepLocked(now)
	}
	var full error
	switch {
	case len(s.ends) >= s.max:
		full = errors.New("the memory of used DPoP proofs is full")
	case s.held[key.tag()] >= s.share:
		full = errors.New("the client has used up its share of the memory of used DPoP proofs")
	}
	if full != nil {
		return false, &valetkey.Unavailable{RetryAfter: time.Duration(s.earliest-now) * time.Second, Err: full}
	}
	if _, found = s.ends[key]; !found { // not even one that is over
		s.held[key.tag()]++
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
			if s.held[key.tag()]--; s.held[key.tag()] == 0 {
				delete(s.held, key.tag())
			}
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
	s.ends, s.held, s.sweepAt, s.earliest = map[part]int64{}, map[uint32]int32{}, min(64, s.max), math.MaxInt64
}
