package tokencache

import (
	"strings"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/valetkey/valetkey"
)

// A record is what is kept of a token, from which its Entry can be made again at any time. It is the only owner of its
// memory but for the kind: a verifier may have cut its strings from something large, the text of the token even.
//
// It is 168 bytes, and 176 is the next size class of the allocator.
type record struct {
	key          digest  // go-cache's key lies over it, see digest.text
	older, newer *record // in its queue; guarded by the shard's lock
	bytes        uint32
	state        atomic.Uint32 // used and protected

	// What follows does not change once the record is in a shard.
	kind                             *kind
	text                             string // the claims as received, and then the strings that do not stand in them
	claims                           uint32 // so many bytes of text
	subject, clientID, id, sessionID span   // in text
	nanoseconds                      [moments]uint32
	seconds                          [moments]int64    // by Unix
	binding                          *valetkey.Binding // nil: the zero one
}

// The times of a record, which are smaller apart than as a time.Time each.
const (
	until = iota // which the token may be relied on
	issuedAt
	notBefore
	expiry
	deadline
	moments
)

const (
	used      = 1 << iota // since it was last looked at for eviction; set without a lock
	protected             // it stands in the queue of that name; changed under the shard's lock
)

// recordBytes is what a record costs beside its text and its kind: itself in its size class, 41 bytes in go-cache's map,
// which is at least 7/16 full once it has grown, and its place in the ghost table.
const recordBytes = 176 + 100

type span struct{ start, end uint32 }

func (r *record) cut(s span) string { return r.text[s.start:s.end] }

// newRecord returns a record of t that lacks its kind, or nil if there is more text than anybody should keep.
func newRecord(key digest, t *valetkey.Token, end time.Time) *record {
	claims := unsafe.String(unsafe.SliceData(t.Raw), len(t.Raw)) // read here only
	var rest []byte
	find := func(s string) span {
		i := strings.Index(claims, s) // most stand there
		if i < 0 {
			i = len(claims) + len(rest)
			rest = append(rest, s...)
		}
		return span{uint32(i), uint32(i + len(s))}
	}
	r := &record{
		key:       key,
		claims:    uint32(len(claims)),
		subject:   find(t.Subject),
		clientID:  find(t.ClientID),
		id:        find(t.ID),
		sessionID: find(t.SessionID),
	}
	for i, at := range [moments]time.Time{until: end, issuedAt: t.IssuedAt, notBefore: t.NotBefore, expiry: t.Expiry, deadline: t.Deadline} {
		r.seconds[i], r.nanoseconds[i] = at.Unix(), uint32(at.Nanosecond())
	}
	if len(claims)+len(rest) > 1<<30 { // a span would not reach
		return nil
	}
	text := append([]byte(nil), make([]byte, len(claims)+len(rest))...) // its capacity is what was really allocated
	copy(text[copy(text, claims):], rest)
	r.text = unsafe.String(unsafe.SliceData(text), len(text))
	bytes := recordBytes + cap(text)

	if b := &t.Binding; !b.IsZero() {
		own := func(s string) string {
			if i := strings.Index(r.text, s); i >= 0 {
				return r.text[i : i+len(s)]
			}
			bytes += allocated(len(s))
			return strings.Clone(s)
		}
		r.binding = &valetkey.Binding{JWKThumbprint: own(b.JWKThumbprint), CertificateThumbprint: own(b.CertificateThumbprint)}
		bytes += allocated(int(unsafe.Sizeof(*b)))
		if len(b.Unknown) > 0 {
			r.binding.Unknown = make([]string, len(b.Unknown))
			bytes += len(b.Unknown) * int(unsafe.Sizeof(""))
		}
		for i, s := range b.Unknown { // an issuer may send many: no search for each
			r.binding.Unknown[i] = strings.Clone(s)
			bytes += allocated(len(s))
		}
	}
	r.bytes = uint32(min(bytes, 1<<32-1))
	return r
}

// allocated is about the size class of n bytes.
func allocated(n int) int { return (n + 15) &^ 15 }

// open sets t to the token that r was made of. The text is shared and not copied.
func (r *record) open(t *valetkey.Token) {
	*t = valetkey.Token{
		Issuer:    r.kind.issuer,
		Subject:   r.cut(r.subject),
		ClientID:  r.cut(r.clientID),
		ID:        r.cut(r.id),
		SessionID: r.cut(r.sessionID),
		Audience:  r.kind.audience,
		Scopes:    r.kind.scopes,
		IssuedAt:  r.at(issuedAt), NotBefore: r.at(notBefore), Expiry: r.at(expiry), Deadline: r.at(deadline),
		Freshness: valetkey.Freshness{Until: r.at(until), While: r.kind.while},
	}
	if r.claims > 0 {
		t.Raw = unsafe.Slice(unsafe.StringData(r.text), r.claims) // may not be modified, as all of a shared token
	}
	if r.binding != nil {
		t.Binding = *r.binding
	}
}

func (r *record) matches(match func(*valetkey.Token) bool) bool {
	t := new(valetkey.Token) // match may keep it
	r.open(t)
	return match(t)
}

// at returns one of the times of r, by the wall clock and in the local zone.
func (r *record) at(moment int) time.Time {
	t := time.Unix(r.seconds[moment], int64(r.nanoseconds[moment]))
	if t.IsZero() { // without a zone, as the zero Time is
		return time.Time{}
	}
	return t
}

func (r *record) expired(now time.Time) bool { return !now.Before(r.at(until)) }

// use marks r as used. A mark that is there already is not written again: the cores that share a token would take its
// cache line from each other.
func (r *record) use() {
	if r.state.Load()&used == 0 {
		r.state.Or(used)
	}
}
