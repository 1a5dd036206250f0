package login

import (
	"container/heap"
	"crypto/sha256"
	"fmt"
	"sync"
	"time"

	"github.com/valetkey/valetkey/internal/mistakes"
)

// A Rate is a limit on attempts: Burst at once, and one more after each Every.
type Rate struct {
	Burst int
	Every time.Duration
}

// TooMany is the refusal of an attempt that came too soon. It does not reveal whether the attempt would have succeeded.
type TooMany struct {
	RetryAfter time.Duration // until the next attempt is allowed, if no other is made first
}

func (e *TooMany) Error() string {
	return fmt.Sprintf("too many attempts: the next one is allowed in %v", e.RetryAfter)
}

// A Limiter counts attempts by key: a name, an address, a client, or a code that a user enters. Its table is bounded, in memory,
// and not shared between processes. No flood of other keys resets the count of a key; see [Limiter.Allow].
//
// A Limiter is safe for concurrent use.
type Limiter struct {
	rate Rate
	size int

	mu    sync.Mutex
	byKey map[[sha256.Size]byte]*bucket
	all   buckets
	floor time.Time // the latest full of a bucket that was taken over; see Restore
}

// A bucket records when its key could use the whole burst again. That time determines how much of the burst is left now.
type bucket struct {
	key   [sha256.Size]byte // digest: a long key takes no more room, and a secret one is not stored
	full  time.Time
	place int // index in Limiter.all
}

// NewLimiter returns a Limiter for at most size keys. Zero: 65,536, about 11 MB.
func NewLimiter(rate Rate, size int) (*Limiter, error) {
	const forever = 365 * 24 * time.Hour
	var wrong mistakes.List
	if rate.Burst < 1 || rate.Every <= 0 || rate.Every > forever/time.Duration(max(rate.Burst, 1)) {
		wrong.Add("rate", "%d attempts at once and one each %v is not a valid rate, or takes over a year to recover", rate.Burst, rate.Every)
	}
	wrong.AddIf(size < 0, "size", "%d is negative", size)
	if err := wrong.Err(); err != nil {
		return nil, err
	}
	if size == 0 {
		size = 1 << 16
	}
	return &Limiter{rate: rate, size: size, byKey: map[[sha256.Size]byte]*bucket{}}, nil
}

// Allow counts an attempt of key and returns nil, or returns a [*TooMany] and counts nothing.
//
// If the table is full, an unknown key takes over the bucket of the key that has used the least, including its count. A key that
// is displaced and comes back thus never has more attempts left than before. To make new keys wait, an attacker must use up the
// burst of every bucket in the table.
func (l *Limiter) Allow(key string) error {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.bucketLocked(sha256.Sum256([]byte(key)))
	full := b.full
	if full.Before(now) {
		full = now
	}
	full = full.Add(l.rate.Every)
	if wait := full.Sub(now) - time.Duration(l.rate.Burst)*l.rate.Every; wait > 0 {
		return &TooMany{RetryAfter: wait}
	}
	b.full = full
	heap.Fix(&l.all, b.place)
	return nil
}

// Restore takes back one attempt of key that Allow has counted. It must be called at most once per such attempt.
//
// A displaced key counts as having used as much as the bucket that it takes over when it comes back. Thus no bucket is restored
// to less than what displaced keys had used: while the table is full, part of an attempt may remain counted.
func (l *Limiter) Restore(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.byKey[sha256.Sum256([]byte(key))]
	if b == nil { // displaced
		return
	}
	full := b.full.Add(-l.rate.Every)
	if full.Before(l.floor) {
		full = l.floor
	}
	if full.Before(b.full) {
		b.full = full
		heap.Fix(&l.all, b.place)
	}
}

func (l *Limiter) bucketLocked(key [sha256.Size]byte) *bucket {
	b := l.byKey[key]
	switch {
	case b != nil:
		return b
	case len(l.all) < l.size:
		b = new(bucket)
		heap.Push(&l.all, b)
	default:
		b = l.all[0]
		delete(l.byKey, b.key)
		if b.full.After(l.floor) {
			l.floor = b.full
		}
	}
	b.key = key
	l.byKey[key] = b
	return b
}

// buckets is a heap with the bucket that becomes full first on top.
type buckets []*bucket

func (bs buckets) Len() int           { return len(bs) }
func (bs buckets) Less(i, j int) bool { return bs[i].full.Before(bs[j].full) }
func (bs buckets) Swap(i, j int) {
	bs[i], bs[j] = bs[j], bs[i]
	bs[i].place, bs[j].place = i, j
}

func (bs *buckets) Push(b any) {
	b.(*bucket).place = len(*bs)
	*bs = append(*bs, b.(*bucket))
}

func (bs *buckets) Pop() any { panic("login: no bucket is ever removed") }
