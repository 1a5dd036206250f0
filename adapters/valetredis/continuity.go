package valetredis

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/valetkey/valetkey"
)

// A position is the ID of an entry in a stream. The zero value is before the first entry.
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

// A reading is the progress of a Watch and the losses that it knows of: missing entries, and entries that it could not open.
//
// Each entry contains the ID of the previous entry. Publish reads that ID and writes the entry in one step, so a removed entry
// leaves a gap. The gap can be between two entries, before the first one or, as the last ID that Redis assigned shows, after the
// last one. Two kinds of loss leave no gap. The first is an entry that no later publisher or reader saw, if Redis failed over to
// a replica without it or restarted from an older copy. The second is a stream that was emptied before a guard read it for the
// first time.
//
// Anyone who can write to Redis can create gaps and entries that cannot be opened. Both make every guard Degraded for as long as
// the entries would matter. A reading has constant size: it keeps only counts and times.
type reading struct {
	keep time.Duration // how long an entry matters after its ID

	last     position // the last entry that was read
	caughtUp bool     // since Redis last became available
	resumed  bool     // last is from an earlier pass: a gap after it may mean that the stream was replaced

	lost      error // describes lost entries that matter until lostUntil
	lostUntil time.Time

	opened        bool // at least one entry could be opened
	unopened      int  // entries that could not be opened and matter until unopenedUntil
	unopenedUntil time.Time

	unknown      int // records of a later version, which reject all older tokens of their issuers; they matter until unknownUntil
	unknownUntil time.Time
}

// A batch is the result of one read.
type batch struct {
	entries []redis.XMessage // at most readCount
	newest  position         // last ID that Redis had assigned before it returned the entries, even if the entry is gone
	length  int64            // of the stream at that time

	unconfirmed error // the server has too few replicas, so that another one may be the primary; nil: it has enough
}

// begin returns to the first entry.
func (a *reading) begin() {
	a.last, a.caughtUp, a.resumed = position{}, false, false
	a.opened, a.unopened, a.unknown = false, 0, 0
}

// interrupt records that Redis does not respond. A different instance may be behind the address when it responds again.
func (a *reading) interrupt() { a.caughtUp, a.resumed = false, true }

// take advances to the end of b and records losses. The result again means that the stream was replaced: the caller must read it
// from the beginning, because b may not contain all new entries.
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
			until := now.Add(a.keep) // the stream of this entry never contained the previous one
			if before.compare(previous) > 0 {
				until = a.until(before, now) // there were entries between the two
			}
			gap := a.lose(until, now, fmt.Errorf("entry %v was published after %v, which is not in redis; the last one read is %v", entry.ID, before, previous))
			if gap && a.resumed && previous == a.last {
				a.begin()
				return true
			}
		}
		previous = entryPosition(entry)
	}
	a.last = previous
	if len(b.entries) == readCount {
		return false
	}
	if a.last.compare(b.newest) < 0 {
		a.lose(a.until(b.newest, now), now, fmt.Errorf("entry %v was published and is not in redis", b.newest))
		a.last = b.newest
	}
	if b.length == 0 { // the entries that could not be opened are gone
		a.unopened = 0
	}
	a.caughtUp, a.resumed = true, true
	return false
}

// lose records that entries that matter until then are lost, and reports whether until is in the future.
func (a *reading) lose(until, now time.Time, err error) (matters bool) {
	if until.After(now) && until.After(a.lostUntil) {
		a.lost, a.lostUntil = err, until
	}
	return until.After(now)
}

// until returns the time until which an entry with this ID matters. A writer to Redis can choose an ID in the future, so the ID
// is limited to now.
func (a *reading) until(id position, now time.Time) time.Time {
	at := time.UnixMilli(int64(min(id.ms, math.MaxInt64)))
	if at.After(now) {
		at = now
	}
	return at.Add(a.keep)
}

// couldNotOpen counts an entry that was changed or was sealed under an unknown key.
func (a *reading) couldNotOpen(entry redis.XMessage, now time.Time) {
	until := a.until(entryPosition(entry), now)
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

// didNotUnderstand counts a record that this version of the package cannot apply as it is.
func (a *reading) didNotUnderstand(entry redis.XMessage, now time.Time) {
	until := a.until(entryPosition(entry), now)
	if !until.After(now) {
		return
	}
	if !a.unknownUntil.After(now) {
		a.unknown = 0
	}
	a.unknown++
	if until.After(a.unknownUntil) {
		a.unknownUntil = until
	}
}

// state returns an error if revocations are known to be missing at the end of the stream, else nil. The error wraps
// [valetkey.ErrRevocationsMissing] unless there are entries and none of them can be opened, as with a wrong key: in that case no
// revocation is known.
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
	var unknown error
	if a.unknown > 0 && a.unknownUntil.After(now) {
		unknown = fmt.Errorf("%d records in redis are of a later version, so all older tokens of their issuers are rejected until %s; upgrade this process",
			a.unknown, a.unknownUntil.UTC().Format(time.RFC3339))
	}
	all := slices.DeleteFunc([]error{lost, unopened, unknown}, func(err error) bool { return err == nil })
	if len(all) == 0 {
		return nil
	}
	text := make([]string, len(all))
	for i, err := range all {
		text[i] = err.Error()
	}
	return fmt.Errorf("%w: %s", valetkey.ErrRevocationsMissing, strings.Join(text, "; "))
}
