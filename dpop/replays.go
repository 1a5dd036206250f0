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

// ReplayStore records which proofs have been used.
type ReplayStore interface {
	// Use reports whether key was not used before, and records it until the given time, which is in the near future by the
	// real clock. Of several calls with one key, in any process, exactly one may report true. If Use cannot determine that,
	// or cannot record key, it returns an error, and the request gets 503.
	//
	// Use must be atomic and safe for concurrent use, and must return soon after ctx is done. key is a hash. A store with a
	// bound need not divide it among clients: a [Verifier] does that.
	Use(ctx context.Context, key [32]byte, until time.Time) (fresh bool, err error)
}

// InsecureAllowReplays is a [ReplayStore] that records nothing. Anyone who sees a proof and its token on the way can use both
// until the proof is too old.
type InsecureAllowReplays struct{}

// Use reports true.
func (InsecureAllowReplays) Use(context.Context, [32]byte, time.Time) (bool, error) { return true, nil }

// defaultReplays is the default size of [NewReplayStore]. It is enough for some 15,000 proofs per second with the default
// window. With nonces, proofs are valid for longer, and it is enough for some 3,500.
const defaultReplays = 1 << 20

// MemoryReplayStore is a [ReplayStore] in the memory of this process. It is safe for concurrent use.
//
// A client adds an entry with each otherwise valid proof that comes with a valid token or, at an authorization server, with a
// valid request. Anonymous requests add none. When a client has used up its share, its next proof gets 503, and other clients
// are not affected. Within the share of a client, each of its users has a share. Shares depend on the free space: a client
// alone gets less than half of the memory, and a single user about a fifth of it. An eighth is reserved for clients that hold
// less than 1/1024 of the memory, so filling the memory takes more than a hundred clients that use all they can. If it is
// full, every proof gets 503 until an entry has expired, since a proof that is not recorded could be used twice.
//
// Shares apply to proofs that a [Verifier] marks as used. A direct call of Use has no client and therefore no share.
type MemoryReplayStore struct {
	seed   maphash.Seed // for the choice of a shard: a client knows the hashes of its proofs and could otherwise fill one shard
	shards []replayShard
}

// A use is the use of one proof.
type use struct {
	key    [32]byte
	issuer string
	client string
	user   string // of the client, or the key of the proof; "": shares do not apply
	until  time.Time
}

// A replayShard holds an equal part of the keys.
type replayShard struct {
	mu       sync.Mutex // guards what follows
	ends     map[part]entry
	held     map[uint32]int32 // number of ends of each client and each user, by tag
	max      int              // maximum number of ends
	sweepAt  int              // number of ends that causes a sweep of expired ones
	earliest int64            // lower bound of all ends

	_ [64]byte // keeps shards in separate cache lines
}

// A part of a key is sufficient: a collision would take 2^64 proofs, and would cost one of the two.
type part [16]byte

// An entry is the record of one proof. A tag is a seeded hash, so that a client cannot choose the tag of another; 0: none, and
// shares do not apply.
type entry struct {
	end          uint32 // in Unix seconds, rounded up
	client, user uint32 // tags
}

// NewReplayStore returns a store of at most max proofs, to within about 1%. Each proof takes some 70 bytes, and each client
// and user some 12 more. When the store is full of proofs that could still be accepted, Use returns an error. Zero or
// negative: about a million (1<<20).
func NewReplayStore(max int) *MemoryReplayStore {
	if max <= 0 {
		max = defaultReplays
	}
	count := min(1+max/1024, 64)
	m := &MemoryReplayStore{seed: maphash.MakeSeed(), shards: make([]replayShard, count)}
	for i := range m.shards {
		m.shards[i].max = (max + count - 1) / count
		m.shards[i].reset()
	}
	return m
}

// Use implements [ReplayStore].
func (m *MemoryReplayStore) Use(ctx context.Context, key [32]byte, until time.Time) (fresh bool, err error) {
	return m.useShared(ctx, use{key: key, until: until})
}

func (m *MemoryReplayStore) useShared(_ context.Context, u use) (fresh bool, err error) {
	now := time.Now().Unix()
	e := entry{end: uint32(min(max(u.until.Unix(), now)+1, math.MaxUint32))}
	if u.user != "" {
		e.client, e.user = m.tag(u.issuer, u.client, ""), m.tag(u.issuer, u.client, u.user)
	}
	return m.shard(u.key).use(part(u.key[:16]), e, now)
}

// forget reverts a use that was fresh.
func (m *MemoryReplayStore) forget(u use) {
	s := m.shard(u.key)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.removeLocked(part(u.key[:16]))
}

func (m *MemoryReplayStore) shard(key [32]byte) *replayShard {
	return &m.shards[maphash.Bytes(m.seed, key[:])%uint64(len(m.shards))]
}

func (m *MemoryReplayStore) tag(names ...string) uint32 {
	var h maphash.Hash
	h.SetSeed(m.seed)
	for _, name := range names {
		h.WriteString(name)
		h.WriteByte(0)
	}
	return max(uint32(h.Sum64()), 1)
}

func (s *replayShard) use(key part, e entry, now int64) (fresh bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if known, found := s.ends[key]; found {
		if int64(known.end) > now {
			return false, nil
		}
		s.removeLocked(key)
	}
	if (len(s.ends) >= s.sweepAt || s.fullLocked(e) != nil) && s.earliest <= now {
		s.sweepLocked(now)
	}
	if err := s.fullLocked(e); err != nil {
		return false, &valetkey.Unavailable{RetryAfter: time.Duration(s.earliest-now) * time.Second, Err: err}
	}
	s.ends[key] = e
	s.earliest = min(s.earliest, int64(e.end))
	s.held[e.client]++
	s.held[e.user]++
	return true, nil
}

var (
	errFull       = errors.New("the memory of used DPoP proofs is full")
	errClientFull = errors.New("the client has used up its share of the memory of used DPoP proofs")
	errUserFull   = errors.New("the user of the client has used up its share of the memory of used DPoP proofs")
)

// fullLocked returns the reason why there is no space for e, or nil. A client may take only space that is free beyond the
// reserve.
func (s *replayShard) fullLocked(e entry) error {
	free, reserve, always := s.max-len(s.ends), s.max/8, max(s.max/1024, 1)
	switch {
	case free <= 0:
		return errFull
	case e.user == 0:
		return nil
	case int(s.held[e.client]) >= max(free-reserve, always):
		return errClientFull
	case int(s.held[e.user]) >= max((free-reserve)/3, always):
		return errUserFull
	}
	return nil
}

func (s *replayShard) removeLocked(key part) {
	e := s.ends[key]
	delete(s.ends, key)
	for _, tag := range [...]uint32{e.client, e.user} {
		if s.held[tag]--; s.held[tag] <= 0 {
			delete(s.held, tag)
		}
	}
}

// sweepLocked removes expired entries. Between two sweeps, the shard doubles in size or at least a second passes.
func (s *replayShard) sweepLocked(now int64) {
	s.earliest = math.MaxInt64
	for key, e := range s.ends {
		if int64(e.end) <= now {
			s.removeLocked(key)
		} else {
			s.earliest = min(s.earliest, int64(e.end))
		}
	}
	if len(s.ends) == 0 {
		s.reset()
	}
	s.sweepAt = min(max(2*len(s.ends), 64), s.max)
}

// reset empties the shard and releases its memory.
func (s *replayShard) reset() {
	s.ends, s.held, s.sweepAt, s.earliest = map[part]entry{}, map[uint32]int32{}, min(64, s.max), math.MaxInt64
}

// A sharing store divides its space among clients.
type sharing interface {
	useShared(ctx context.Context, u use) (fresh bool, err error)
}

func sharingOf(r ReplayStore) sharing {
	switch r := r.(type) {
	case nil:
		return NewReplayStore(0)
	case sharing:
		return r
	default:
		return &sharedReplays{all: r, own: NewReplayStore(0)}
	}
}

func (InsecureAllowReplays) useShared(context.Context, use) (bool, error) { return true, nil }

// Before returns a ReplayStore that records proofs in all, such as a store shared by several replicas, and divides the size
// of m among the clients of this process: this process can have at most as many proofs recorded as m has space for. A
// [Verifier] with a store other than a MemoryReplayStore does the same with NewReplayStore(0). If all fails, the proof is not
// marked as used.
func (m *MemoryReplayStore) Before(all ReplayStore) ReplayStore {
	return &sharedReplays{all: all, own: m}
}

type sharedReplays struct {
	all ReplayStore
	own *MemoryReplayStore // holds the proofs of this process
}

// Use implements [ReplayStore].
func (s *sharedReplays) Use(ctx context.Context, key [32]byte, until time.Time) (fresh bool, err error) {
	return s.useShared(ctx, use{key: key, until: until})
}

func (s *sharedReplays) useShared(ctx context.Context, u use) (fresh bool, err error) {
	if fresh, err = s.own.useShared(ctx, u); !fresh {
		return false, err
	}
	if fresh, err = s.all.Use(ctx, u.key, u.until); err != nil {
		s.own.forget(u) // a failure of the store does not use up the proof
	}
	return fresh, err
}
