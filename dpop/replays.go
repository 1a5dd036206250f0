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

// A ReplayStore remembers which proofs were used. Use must be safe for concurrent use, atomic, and must return soon after ctx is
// done.
type ReplayStore interface {
	// Use reports whether key was not used before, and remembers it until then, which is in the near future by the real
	// clock. Of several calls with one key, in whichever process, exactly one may report true. If that cannot be found out
	// or key cannot be remembered, it returns an error, and the request is answered with 503.
	//
	// Key is a hash. A memory with a bound need not give clients shares: a [Verifier] does.
	Use(ctx context.Context, key [32]byte, until time.Time) (fresh bool, err error)
}

// InsecureAllowReplays remembers nothing: who sees a proof and its token on the way can use both until the proof is too old.
type InsecureAllowReplays struct{}

// Use reports true.
func (InsecureAllowReplays) Use(context.Context, [32]byte, time.Time) (bool, error) { return true, nil }

// defaultReplays is how many proofs [NewReplayStore] remembers by default: with the default window some 15,000 a second, with
// nonces, for which proofs are good longer, some 3,500.
const defaultReplays = 1 << 20

// A MemoryReplayStore remembers proofs in the memory of this process. It is safe for concurrent use.
//
// A client adds an entry with each proof that is otherwise good and comes with a token that is, or at an authorization server, with
// a request that is. Strangers add none. When a client has used up its share, its next proof is answered with 503, and no other
// client's is. Within its share, each of its users has one. Shares follow what is free: alone, a client gets less than half of the
// memory, and one user about a fifth of it. An eighth is for clients that hold less than 1 in 1,024 of it, so it takes more than a
// hundred clients that want all to fill the memory. Then every proof gets 503 until one has ended, since a proof that is not
// remembered could be used twice.
//
// Shares are those of proofs that a [Verifier] uses up; Use alone knows no client.
type MemoryReplayStore struct {
	seed   maphash.Seed // of the choice of a shard: who makes proofs foresees their hashes, and could fill a single one
	shards []replayShard
}

// A use is that of one proof.
type use struct {
	key    [32]byte
	issuer string
	client string
	user   string // of the client, or its key; "": the share is not bounded
	until  time.Time
}

// A replayShard has a fair share of the keys.
type replayShard struct {
	mu       sync.Mutex // guards what follows
	ends     map[part]entry
	held     map[uint32]int32 // how many of ends each client and each user has, by tag
	max      int              // as many ends at most
	sweepAt  int              // as many ends are a reason to look for those that are over
	earliest int64            // no end is before it

	_ [64]byte // apart from the next one's in the processor's cache
}

// A part of a key is enough: two proofs with the same one would take 2^64 proofs, and cost one of them.
type part [16]byte

// An entry is of one proof. A tag is a seeded hash, so that a client cannot choose the tag of another; 0: none.
type entry struct {
	end          uint32 // in Unix seconds, rounded up
	client, user uint32 // tags
}

// NewReplayStore returns a memory of at most max proofs, give or take one in a hundred. Each takes some 70 bytes, and each client and
// user some 12 more. When it is full of proofs that could still be accepted, Use returns an error. Zero or less:
// [defaultReplays].
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

// forget takes back a use that was fresh.
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
	if e.user != 0 {
		s.held[e.client]++
		s.held[e.user]++
	}
	return true, nil
}

var (
	errFull       = errors.New("the memory of used DPoP proofs is full")
	errClientFull = errors.New("the client has used up its share of the memory of used DPoP proofs")
	errUserFull   = errors.New("the user of the client has used up its share of the memory of used DPoP proofs")
)

// fullLocked returns why there is no room for e. What is free beside the reserve, and no more, is a client's to take.
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
	e, found := s.ends[key]
	if !found {
		return
	}
	delete(s.ends, key)
	if e.user == 0 {
		return
	}
	for _, tag := range [...]uint32{e.client, e.user} {
		if s.held[tag]--; s.held[tag] <= 0 {
			delete(s.held, tag)
		}
	}
}

// sweepLocked forgets what is over. Between two sweeps the shard doubles, or a second passes.
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

// reset gives back the memory, too.
func (s *replayShard) reset() {
	s.ends, s.held, s.sweepAt, s.earliest = map[part]entry{}, map[uint32]int32{}, min(64, s.max), math.MaxInt64
}

// A sharing memory gives each client a share.
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

// Before returns a memory of used proofs that is all, such as one that several replicas share, and gives the clients of this
// process shares of m: as many proofs as m has room for may be remembered in all by this process. A [Verifier] with another
// memory than m does the same with NewReplayStore(0). A proof is not used if all fails.
func (m *MemoryReplayStore) Before(all ReplayStore) ReplayStore {
	return &sharedReplays{all: all, own: m}
}

type sharedReplays struct {
	all ReplayStore
	own *MemoryReplayStore // the proofs of this process
}

// Use implements [ReplayStore].
func (s *sharedReplays) Use(ctx context.Context, key [32]byte, until time.Time) (fresh bool, err error) {
	return s.useShared(ctx, use{key: key, until: until})
}

func (s *sharedReplays) useShared(ctx context.Context, u use) (fresh bool, err error) {
	if fresh, err = s.own.useShared(ctx, u); err != nil || !fresh {
		return fresh, err
	}
	if fresh, err = s.all.Use(ctx, u.key, u.until); err != nil {
		s.own.forget(u) // a failure of ours does not make it used
	}
	return fresh, err
}
