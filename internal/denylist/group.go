package denylist

import (
	"math"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/digest"
)

// A minute is a time in minutes since 1970, which is precise enough for the end of an entry: held for longer, it denies
// nothing that could be accepted.
type minute uint32

const forever minute = math.MaxUint32

// minuteAfter returns the first minute that is later than t by d, whole minutes, or more.
func minuteAfter(t time.Time, d time.Duration) minute {
	return minute(min(max(t.Unix()/60+1+int64(d/time.Minute), 1), int64(forever)))
}

func (m minute) over(now time.Time) bool { return now.Unix()/60 >= int64(m) && m != forever }

// bounds say which tokens of a subject, session, client or issuer are meant, by the time of issue in microseconds since
// 1970, and until when that matters. Two revocations of the same keep both bounds.
type bounds struct {
	before int64 // issued before this, by the clock of the issuer
	at     int64 // issued before this, by a clock that may differ from the issuer's by the leeway
	end    minute
}

const none = math.MinInt64

// microsecond returns t in microseconds since 1970, rounded down. A time further than 250,000 years away counts as that.
func microsecond(t time.Time) int64 {
	const most = 8e12 // seconds; what remains of an int64 is more than any leeway
	return min(max(t.Unix(), -most), most)*1e6 + int64(t.Nanosecond())/1e3
}

func microsecondUp(t time.Time) int64 {
	us := microsecond(t)
	if t.Nanosecond()%1e3 != 0 {
		us++
	}
	return us
}

// cover reports whether t is one of those meant. A token that does not say when it was issued counts as issued before.
func (b bounds) cover(t *valetkey.Token) bool {
	if t.IssuedAt().IsZero() {
		return true
	}
	issued := microsecond(t.IssuedAt())
	return issued < b.before || b.at != none && issued < b.at+leeway(t).Microseconds()
}

// leeway returns how far the clock of the issuer may differ, by the verifier of t. Where that is not known, it is the most.
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
	earliest minute // no entry ends before
}

// put holds b, and what was held under key before, and reports whether there is room. It looks for entries that are over
// at most once a minute, and only when there is no room.
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
