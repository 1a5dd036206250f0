// Package denylist holds revocations of tokens that still verify. It never drops a denial: one that exceeds the limits is added to
// filters of a fixed size, and the list cannot decide whether a token that matches a filter is revoked.
//
// An entry holds a digest under a random key, never the text, so its size does not depend on the length of its subject or ID.
package denylist

import (
	"cmp"
	"encoding/binary"
	"errors"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/digest"
)

const (
	// MaxLeeway is the longest time after exp for which a verifier accepts a token (RFC 9068, section 4: "usually no more than
	// a few minutes"). Revocation.Until refers to exp, so an entry is held for MaxLeeway longer.
	MaxLeeway = 5 * time.Minute

	// DefaultKeep is how long a revocation without Until is held by default, in addition to MaxLeeway.
	DefaultKeep = 24 * time.Hour

	// DefaultBytes is room for at least 1,048,576 token IDs, the number that valetredis stores.
	DefaultBytes = 32 << 20
)

// Config bounds a [List]. The zero value suits most applications.
//
// Entries come from Guard.Revoke and from a revocation source, for example from an issuer's logouts or from an operator. Most
// entries are token IDs, so these have separate room. The other kinds are the fallback in an emergency. A kind that is full does
// not affect the other kinds. It affects only the tokens that match the overflow.
type Config struct {
	Bytes int64         // memory for token IDs, at most 32 bytes each; zero: DefaultBytes
	Keep  time.Duration // how long a revocation without Until is held, in addition to MaxLeeway; zero: DefaultKeep

	// Subjects, Sessions, Clients and Issuers are the maximum numbers of entries of the other kinds. An entry takes about 100
	// bytes. Zero: 131,072, 131,072, 16,384 and 1,024.
	Subjects, Sessions, Clients, Issuers int
}

// A Verdict is the result of [List.Look]. The zero value is [Clear].
type Verdict int

// The verdicts.
const (
	Clear   Verdict = iota // not revoked
	Denied                 // revoked
	Unknown                // matches the overflow, and so may be revoked
)

// A List holds revocations. It is safe for concurrent use. Create one with [New].
type List struct {
	keep time.Duration
	used atomic.Bool // an entry has been added

	mu       sync.RWMutex // guards the fields below
	ids      table
	wide     [kinds]group // of the kinds after byID
	overflow overflow
}

type kind byte

const (
	byID kind = iota
	bySubject
	bySession
	byClient
	byIssuer
	kinds
)

// New returns an empty List.
func New(cfg Config) *List {
	l := &List{keep: cmp.Or(cfg.Keep, DefaultKeep)}
	l.ids.init(cmp.Or(cfg.Bytes, DefaultBytes))
	l.wide[bySubject].max = cmp.Or(cfg.Subjects, 1<<17)
	l.wide[bySession].max = cmp.Or(cfg.Sessions, 1<<17)
	l.wide[byClient].max = cmp.Or(cfg.Clients, 1<<14)
	l.wide[byIssuer].max = cmp.Or(cfg.Issuers, 1<<10)
	return l
}

// Add puts r in force. It returns an error only if r is malformed.
func (l *List) Add(r valetkey.Revocation, now time.Time) error {
	k, value, err := named(r)
	if err != nil {
		return err
	}
	b := bounds{before: none, at: none}
	switch {
	case k == byID: // whenever it was issued
	case !r.Before.IsZero():
		b.before = microsecondUp(r.Before)
	case !r.At.IsZero():
		b.at = microsecondUp(r.At)
	default:
		b.at = microsecondUp(now)
	}
	until := r.Until
	if until.IsZero() {
		until = now.Add(l.keep)
	}
	if b.end = minuteAfter(until, MaxLeeway); b.end.over(now) {
		return nil
	}
	l.used.Store(true)
	key := digestOf(k, r.Issuer, value)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.put(k, key, b, now)
	return nil
}

func named(r valetkey.Revocation) (k kind, value string, err error) {
	if r.Issuer == "" {
		return k, "", errors.New("Issuer: required")
	}
	count := 0
	for of, v := range [kinds]string{byID: r.ID, bySubject: r.Subject, bySession: r.SessionID, byClient: r.ClientID} {
		if v != "" {
			k, value = kind(of), v
			count++
		}
	}
	if r.All {
		k, value = byIssuer, ""
		count++
	}
	if count != 1 {
		return k, "", errors.New("exactly one of ID, Subject, ClientID, SessionID and All is required")
	}
	return k, value, nil
}

// digestOf returns the key of an entry.
func digestOf(k kind, issuer, value string) digest.Digest {
	buf := make([]byte, 0, 5+len(issuer)+len(value))
	buf = append(buf, byte(k))
	buf = binary.LittleEndian.AppendUint32(buf, uint32(len(issuer)))
	buf = append(buf, issuer...)
	buf = append(buf, value...)
	return digest.OfBytes(buf)
}

// put adds a denial to its group, or to the overflow if the group is full.
func (l *List) put(k kind, key digest.Digest, b bounds, now time.Time) {
	fits := false
	if k == byID {
		fits = l.ids.put(key, b.end, now)
	} else {
		fits = l.wide[k].put(key, b, now)
	}
	if !fits {
		l.overflow.put(key, b.end, now)
	}
}

// Look returns whether t is revoked. If an entry denies t, Look extends it until t can no longer be accepted, see Token.Deadline.
func (l *List) Look(t *valetkey.Token, now time.Time) Verdict {
	if !l.used.Load() {
		return Clear
	}
	verdict, k, key, b := l.look(t, now)
	if verdict == Clear {
		return Clear
	}
	last := forever // an issuer that responds without exp may report the token as active forever
	if !t.Deadline().IsZero() {
		last = minuteAfter(t.Deadline(), 0)
	}
	if b.end < last {
		b.end = last
		l.mu.Lock()
		defer l.mu.Unlock()
		if verdict == Denied {
			l.put(k, key, b, now)
		} else {
			l.overflow.put(key, b.end, now)
		}
	}
	return verdict
}

// look returns the verdict and the entry on which it is based.
func (l *List) look(t *valetkey.Token, now time.Time) (verdict Verdict, k kind, key digest.Digest, b bounds) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	over := l.overflow.len(now) > 0
	values := [kinds]string{byID: t.ID(), bySubject: t.Subject(), bySession: t.SessionID(), byClient: t.ClientID()}
	for of, value := range values {
		of := kind(of)
		if value == "" && of != byIssuer || !over && l.len(of) == 0 {
			continue
		}
		d := digestOf(of, t.Issuer(), value)
		if held, ok := l.get(of, d); ok && !held.end.over(now) && held.cover(t) {
			return Denied, of, d, held
		}
		if over {
			if end, ok := l.overflow.get(d, now); ok {
				verdict, k, key, b = Unknown, of, d, bounds{end: end}
			}
		}
	}
	return verdict, k, key, b
}

func (l *List) len(k kind) int {
	if k == byID {
		return l.ids.n
	}
	return len(l.wide[k].held)
}

func (l *List) get(k kind, key digest.Digest) (bounds, bool) {
	if k == byID {
		end, ok := l.ids.get(key)
		return bounds{end: end, before: math.MaxInt64}, ok
	}
	b, ok := l.wide[k].held[key]
	return b, ok
}

// Stats holds the statistics of a [List].
type Stats struct {
	Held       int // number of revocations, including ended ones, which are removed when their room is needed
	Overflowed int // approximate number of revocations in force that are in the overflow
}

// Stats returns the current statistics. It takes constant time.
func (l *List) Stats(now time.Time) Stats {
	l.mu.RLock()
	defer l.mu.RUnlock()
	s := Stats{Overflowed: l.overflow.len(now)}
	for k := range kinds {
		s.Held += l.len(k)
	}
	return s
}

// Overflowing reports whether any revocation in force is in the overflow.
func (l *List) Overflowing(now time.Time) bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.overflow.len(now) > 0
}
