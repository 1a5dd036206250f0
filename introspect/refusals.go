package introspect

import (
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/digest"
)

// maxRefusals bounds the memory of refused tokens: about 3 MB if all are.
const maxRefusals = 10_000

// refusals holds the tokens refused recently. All entries have the same lifetime, so the oldest is dropped first. The zero
// value is empty.
type refusals struct {
	known map[digest.Digest]refused
	order []digest.Digest // a ring once it is full, the oldest at next
	next  int
}

type refused struct {
	refusal *valetkey.Error
	until   time.Time
}

// get returns the cached refusal of a token, or nil.
func (r *refusals) get(key digest.Digest, now time.Time) error {
	if known := r.known[key]; now.Before(known.until) {
		return known.refusal
	}
	return nil
}

func (r *refusals) add(key digest.Digest, refusal *valetkey.Error, until time.Time) {
	if r.known == nil {
		r.known = map[digest.Digest]refused{}
	}
	if _, again := r.known[key]; !again {
		if len(r.order) < maxRefusals {
			r.order = append(r.order, key)
		} else {
			delete(r.known, r.order[r.next])
			r.order[r.next] = key
			r.next = (r.next + 1) % maxRefusals
		}
	}
	r.known[key] = refused{refusal, until}
}
