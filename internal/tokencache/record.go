package tokencache

import (
	"strings"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/digest"
)

// A record is the stored form of a token, from which its Entry can be recreated. Except for the kind, it does not share memory,
// because the strings from a verifier may be substrings of something large, even of the text of the token.
//
// It takes 168 bytes; 176 is the next size class of the allocator.
type record struct {
	key          digest.Digest // go-cache's key shares this memory, see Text
	older, newer *record       // in its queue; guarded by the shard's lock
	bytes        uint32
	state        atomic.Uint32 // used and protected

	// The fields below do not change once the record is in a shard.
	kind                                  *kind
	text                                  string         // the claims as received, followed by the strings that they do not contain
	claims                                uint32         // length of the claims in text
	subject, clientID, id, sessionID, acr span           // in text
	moments                               [moments]int64 // microseconds since 1970, rounded down, which a NumericDate does not exceed in precision
	rare                                  *rare          // nil: none
}

// The times of a record. Separate arrays take less memory than a time.Time each.
const (
	until = iota // the end of the freshness
	issuedAt
	notBefore
	expiry
	deadline
	authTime
	moments
)

const (
	used      = 1 << iota // since the last check for eviction; set without a lock
	protected             // the record is in the protected queue; changed under the shard's lock
)

// recordBytes is the memory that a record takes without its text and its kind: itself in its size class, 41 bytes in go-cache's
// map, which is at least 7/16 full once it has grown, and its slot in the ghost table.
const recordBytes = 176 + 100

// rare holds facts that few tokens have.
type rare struct {
	binding valetkey.Binding
	actor   *valetkey.Actor // nil: none
}

type span struct{ start, end uint32 }

func (r *record) cut(s span) string { return r.text[s.start:s.end] }

// newRecord returns a record of f without its kind, or nil if the text is too long for a record.
func newRecord(key digest.Digest, f *valetkey.TokenFields, end time.Time) *record {
	claims := f.Raw
	var rest []byte
	find := func(s string) span {
		i := strings.Index(claims, s) // the claims contain most strings
		if i < 0 {
			i = len(claims) + len(rest)
			rest = append(rest, s...)
		}
		return span{uint32(i), uint32(i + len(s))}
	}
	r := &record{
		key:       key,
		claims:    uint32(len(claims)),
		subject:   find(f.Subject),
		clientID:  find(f.ClientID),
		id:        find(f.ID),
		sessionID: find(f.SessionID),
		acr:       find(f.ACR),
	}
	for i, at := range [moments]time.Time{until: end, issuedAt: f.IssuedAt, notBefore: f.NotBefore, expiry: f.Expiry, deadline: f.Deadline, authTime: f.AuthTime} {
		r.moments[i] = at.UnixMicro()
	}
	if len(claims)+len(rest) > 1<<30 { // too long for a span
		return nil
	}
	text := append([]byte(nil), make([]byte, len(claims)+len(rest))...) // its capacity is the allocated size
	copy(text[copy(text, claims):], rest)
	r.text = unsafe.String(unsafe.SliceData(text), len(text))
	bytes := recordBytes + cap(text)

	if !f.Binding.IsZero() || f.Actor != nil {
		own := func(s string) string {
			if i := strings.Index(r.text, s); i >= 0 {
				return r.text[i : i+len(s)]
			}
			bytes += allocated(len(s))
			return strings.Clone(s)
		}
		r.rare = &rare{binding: valetkey.Binding{
			JWKThumbprint: own(f.Binding.JWKThumbprint), CertificateThumbprint: own(f.Binding.CertificateThumbprint),
		}}
		bytes += allocated(int(unsafe.Sizeof(rare{})))
		if n := f.Binding.Unknown.Len(); n > 0 {
			unknown := make([]string, 0, n)
			for s := range f.Binding.Unknown.All() { // an issuer may send many, so do not search for each
				unknown = append(unknown, strings.Clone(s))
				bytes += allocated(len(s))
			}
			r.rare.binding.Unknown = valetkey.ListOf(unknown...)
			bytes += n * int(unsafe.Sizeof(""))
		}
		if f.Actor != nil {
			r.rare.actor = &valetkey.Actor{Issuer: own(f.Actor.Issuer), Subject: own(f.Actor.Subject), ClientID: own(f.Actor.ClientID)}
			bytes += allocated(int(unsafe.Sizeof(valetkey.Actor{})))
		}
	}
	r.bytes = uint32(min(bytes, 1<<32-1))
	return r
}

// allocated returns the approximate size class of n bytes.
func allocated(n int) int { return (n + 15) &^ 15 }

// token returns the token from which r was created. It shares the text without a copy.
func (r *record) token() *valetkey.Token {
	f := valetkey.TokenFields{
		Issuer:    r.kind.issuer,
		Subject:   r.cut(r.subject),
		ClientID:  r.cut(r.clientID),
		ID:        r.cut(r.id),
		SessionID: r.cut(r.sessionID),
		ACR:       r.cut(r.acr),
		Audience:  r.kind.audience,
		Scopes:    r.kind.scopes,
		IssuedAt:  r.at(issuedAt), NotBefore: r.at(notBefore), Expiry: r.at(expiry), AuthTime: r.at(authTime), Deadline: r.at(deadline),
		Raw:       r.text[:r.claims],
		Freshness: valetkey.Freshness{Until: r.at(until), While: r.kind.while},
	}
	if r.rare != nil {
		f.Binding, f.Actor = r.rare.binding, r.rare.actor
	}
	return valetkey.NewToken(f)
}

// at returns one of the times of r, by the wall clock and in the local zone.
func (r *record) at(moment int) time.Time {
	t := time.UnixMicro(r.moments[moment])
	if t.IsZero() { // return the zero Time, which has no zone
		return time.Time{}
	}
	return t
}

func (r *record) expired(now time.Time) bool { return !now.Before(r.at(until)) }

// use marks r as used. It does not write an existing mark again, because cores that share a token would compete for its cache
// line.
func (r *record) use() {
	if r.state.Load()&used == 0 {
		r.state.Or(used)
	}
}
