package denylist

import (
	"math"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/digest"
)

// A minute is a time in minutes since 1970. This is precise enough for the end of an entry: an entry that is held for longer
// denies no token that could otherwise be accepted.
type minute uint32

const forever minute = math.MaxUint32

// minuteAfter returns the first minute that is at least d later than t. d must be whole minutes.
func minuteAfter(t time.Time, d time.Duration) minute {
	return minute(min(max(t.Unix()/60+1+int64(d/time.Minute), 1), int64(forever)))
}

func (m minute) over(now time.Time) bool { return now.Unix()/60 >= int64(m) && m != forever }

// bounds select tokens of a subject, session, client or issuer by their time of issue, in microseconds since 1970, and state when
// the entry ends. Two revocations with the same key keep both before and at.
type bounds struct {
	before int64 // issued before this, by the clock of the issuer
	at     int64 // issued before this, by a clock that may differ from the issuer's by the leeway
	end    minute
}

const none = math.MinInt64

// microsecond returns t in microseconds since 1970, rounded down. It limits times to about 250,000 years from 1970.
func microsecond(t time.Time) int64 {
	const most = 8e12 // seconds; leaves room in an int64 for any leeway
	return min(max(t.Unix(), -most), most)*1e6 + int64(t.Nanosecond())/1e3
}

func microsecondUp(t time.Time) int64 {
	us := microsecond(t)
	if t.Nanosecond()%1e3 != 0 {
		us++
	}
	return us
}

// cover reports whether b selects t. A token without a time of issue counts as issued before.
func (b bounds) cover(t *valetkey.Token) bool {
	if t.IssuedAt().IsZero() {
		return true
	}
	issued := microsecond(t.IssuedAt())
	return issued < b.before || b.at != none && issued < b.at+leeway(t).Microseconds()
}

// leeway returns the leeway of the verifier of t, by which the issuer's clock may differ. If it is unknown, leeway returns
// MaxLeeway.
func leeway(t *valetkey.Token) time.Duration {
	if t.Deadline().IsZero() || t.Expiry().IsZero() || t.Deadline().Before(t.Expiry()) {
		return MaxLeeway
	}
	return t.Deadline().Sub(t.Expiry())
}

// A group holds the revocations of one kind.
type group struct {
	max      int
	held     map[digest.Digest]bounds
	earliest minute // no entry ends before this
}

// put adds b to the bounds under key. It returns false if there is no room. It scans for ended entries at most once a minute, and
// only if there is no room.
func (g *group) put(key digest.Digest, b bounds, now time.Time) bool {
	old, known := g.held[key]
	switch {
	case known:
		b = bounds{max(b.before, old.before), max(b.at, old.at), max(b.end, old.end)}
	case len(g.held) >= g.max:
		if !g.earliest.over(now) {
			return false
		}
		g.sweep(now)
		if len(g.held) >= g.max {
			return false
		}
	}
	if g.held == nil {
		g.held = make(map[digest.Digest]bounds)
	}
	if len(g.held) == 0 || b.end < g.earliest {
		g.earliest = b.end
	}
	g.held[key] = b
	return true
}

func (g *group) sweep(now time.Time) {
	g.earliest = forever
	for key, b := range g.held {
		if b.end.over(now) {
			delete(g.held, key)
		} else {
			g.earliest = min(g.earliest, b.end)
		}
	}
}
