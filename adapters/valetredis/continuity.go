package valetredis

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/valetkey/valetkey"
)

// A position is the id of an entry in a stream. The zero value is before the first one.
type position struct{ ms, seq uint64 }

func parsePosition(id string) (p position, ok bool) {
	ms, seq, _ := strings.Cut(id, "-")
	var errs [2]error
	p.ms, errs[0] = strconv.ParseUint(ms, 10, 64)
	p.seq, errs[1] = strconv.ParseUint(seq, 10, 64)
	return p, errs == [2]error{}
}

func (p position) String() string { return fmt.Sprintf("%d-%d", p.ms, p.seq) }

func (p position) compare(q position) int {
	return cmp.Or(cmp.Compare(p.ms, q.ms), cmp.Compare(p.seq, q.seq))
}

// A reading is how far a Watch has come, and what it knows to be missing: lost entries, and those that it could not open.
//
// Each entry names the one before it, which Publish finds and writes in one step, so an entry that was removed leaves a gap:
// between two others, before the first one, or, by the last id that redis has given out, behind the last one. A removed entry
// that no publisher and no reader has seen leaves none: redis failed over to a replica that did not have it, or was
// restarted from an older copy. Nor does a stream that a guard has never read before it was emptied.
//
// Anyone who can write to redis can make gaps and entries that do not open. Both make every guard Degraded for as long as
// the entries would matter. The room is constant: only counts and times are kept.
type reading struct {
	keep time.Duration // an entry matters for so long after its id

	last     position // the last entry read
	caughtUp bool     // since redis answers
	resumed  bool     // last is of an earlier pass: a gap after it may mean that the stream is another one

	lost      error // why entries are lost that matter until
	lostUntil time.Time

	opened        bool // one entry or more
	unopened      int  // that matter until
	unopenedUntil time.Time
}

// A batch is what one read has found.
type batch struct {
	entries []redis.XMessage // at most readCount
	newest  position         // that redis had given out before it returned the entries, whether or not it still has it
	length  int64            // of the stream then
}

// begin goes back to the first entry.
func (a *reading) begin() {
	a.last, a.caughtUp, a.resumed = position{}, false, false
	a.opened, a.unopened = false, 0
}

// interrupt takes in that redis does not answer. Behind the same address there may be another one afterwards.
func (a *reading) interrupt() { a.caughtUp, a.resumed = false, true }

// take goes on to the end of b, and notes what is lost. Again means that the stream is another one: it is read from its
// beginning, since b may not be all that is new.
func (a *reading) take(b batch, now time.Time) (again bool) {
	if b.newest.compare(a.last) < 0 {
		a.lose(now.Add(a.keep), now, fmt.Errorf("redis does not have the stream any more that entry %v was read from", a.last))
		a.begin()
		return true
	}
	previous := a.last
	for _, entry := range b.entries {
		before, known := position{}, false
		if text, ok := entry.Values[fieldBefore].(string); ok {
			before, known = parsePosition(text)
		}
		if known && before != previous {
			until := now.Add(a.keep) // the entry is of a stream that never had the previous one
			if before.compare(previous) > 0 {
				until = a.until(before, now) // others were between the two
			}
			gap := a.lose(until, now, fmt.Errorf("entry %v was published after %v, which is not in redis; the last one read is %v", entry.ID, before, previous))
			if gap && a.resumed && previous == a.last {
				a.begin()
				return true
			}
		}
		previous, _ = parsePosition(entry.ID)
	}
	a.last = previous
	if len(b.entries) == readCount {
		return false
	}
	if a.last.compare(b.newest) < 0 {
		a.lose(a.until(b.newest, now), now, fmt.Errorf("entry %v was published and is not in redis", b.newest))
		a.last = b.newest
	}
	if b.length == 0 { // those that did not open are gone
		a.unopened = 0
	}
	a.caughtUp, a.resumed = true, true
	return false
}

// lose notes that entries are lost that matter until then, and reports whether that is in the future.
func (a *reading) lose(until, now time.Time, err error) (matters bool) {
	if until.After(now) && until.After(a.lostUntil) {
		a.lost, a.lostUntil = err, until
	}
	return until.After(now)
}

// until returns how long an entry with the id matters. An id may be in the future, at the will of any who write to redis.
func (a *reading) until(id position, now time.Time) time.Time {
	at := time.UnixMilli(int64(min(id.ms, math.MaxInt64)))
	if at.After(now) {
		at = now
	}
	return at.Add(a.keep)
}

// couldNotOpen counts an entry that was sealed under an unknown key, or changed.
func (a *reading) couldNotOpen(entry redis.XMessage, now time.Time) {
	id, _ := parsePosition(entry.ID)
	until := a.until(id, now)
	if !until.After(now) {
		return
	}
	if !a.unopenedUntil.After(now) {
		a.unopened = 0
	}
	a.unopened++
	if until.After(a.unopenedUntil) {
		a.unopenedUntil = until
	}
}

// state returns why revocations are missing at the end of the stream; nil: none is known to be. The error wraps
// [valetkey.ErrRevocationsMissing] unless there are entries and none of them opens, as with a wrong key: then nothing is known.
func (a *reading) state(now time.Time) error {
	var lost, unopened error
	if a.lostUntil.After(now) {
		lost = fmt.Errorf("redis has lost revocations, which may matter until %s; publish again what must stay revoked: %w",
			a.lostUntil.UTC().Format(time.RFC3339), a.lost)
	}
	if a.unopened > 0 && a.unopenedUntil.After(now) {
		unopened = fmt.Errorf("%d entries in redis cannot be opened: they were changed, or sealed under another key than Key and PreviousKeys", a.unopened)
		if !a.opened {
			return fmt.Errorf("none of the revocations is known: %w", unopened)
		}
	}
	switch {
	case lost != nil && unopened != nil:
		return fmt.Errorf("%w: %w; %w", valetkey.ErrRevocationsMissing, lost, unopened)
	case lost != nil || unopened != nil:
		return fmt.Errorf("%w: %w", valetkey.ErrRevocationsMissing, errors.Join(lost, unopened))
	}
	return nil
}
