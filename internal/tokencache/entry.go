package tokencache

import (
	"strings"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/valetkey/valetkey"
)

// An Entry is a token that the verifier of a [Cache] has accepted. It may be shared: Token must not be modified.
//
// It is 352 bytes, a size class of the allocator; one more field makes it 384.
type Entry struct {
	Token valetkey.Token // with Reuse.Until no later than the cache's own MaxAge, if remembered

	cache        *Cache
	key          digest // go-cache's key lies over it, see digest.text
	older, newer *Entry // in its queue; guarded by the shard's lock
	bytes        uint32
	state        atomic.Uint32 // used and protected
}

const (
	used      = 1 << iota // since it was last looked at for eviction; set without a lock
	protected             // it stands in the queue of that name; changed under the shard's lock
)

// In reports whether c made e, and so whether e was verified on behalf of c's owner.
func (e *Entry) In(c *Cache) bool { return e.cache == c }

// use marks e as used. A mark that is there already is not written again: the cores that share a token would take its
// cache line from each other.
func (e *Entry) use() {
	if e.state.Load()&used == 0 {
		e.state.Or(used)
	}
}

func (e *Entry) expired(now time.Time) bool { return !now.Before(e.Token.Reuse.Until) }

// alive reports whether e may still be relied on. It calls foreign code, so never under a lock.
func (e *Entry) alive(now time.Time) bool {
	return !e.expired(now) && (e.Token.Reuse.While == nil || e.Token.Reuse.While.Holds())
}

// slot is what an entry costs at most beside itself and its token: 41 bytes in go-cache's map, which is at least 7/16
// full once it has grown, and its place in the ghost table.
const slot = 100

// own makes e the only owner of its token's memory, so that the bytes counted are the bytes held: a verifier may have cut
// its strings from something large, the text of the token even. Strings that stand in Raw, as most do, point there.
func (e *Entry) own(key digest, until time.Time) {
	t := &e.Token
	e.key = key
	t.Reuse.Until = until

	raw := append([]byte(nil), t.Raw...) // its capacity is what was really allocated
	bytes := int(unsafe.Sizeof(*e)) + slot + cap(raw)
	t.Raw = raw[:len(raw):len(raw)]
	text := unsafe.String(unsafe.SliceData(raw), len(raw)) // Raw is not modified: it may be shared

	searches := 64 // a bound on the time, whatever an issuer puts into a token
	own := func(s string) string {
		if searches--; searches >= 0 {
			if i := strings.Index(text, s); i >= 0 {
				return text[i : i+len(s)]
			}
		}
		bytes += (len(s) + 15) &^ 15
		return strings.Clone(s)
	}
	for _, s := range []*string{
		&t.Issuer, &t.Subject, &t.ClientID, &t.ID, &t.Binding.JWKThumbprint, &t.Binding.CertificateThumbprint,
	} {
		*s = own(*s)
	}

	lists := make([]string, 0, len(t.Audience)+len(t.Scopes)+len(t.Binding.Unknown))
	bytes += cap(lists) * int(unsafe.Sizeof(""))
	ownAll := func(list []string) []string {
		if list == nil {
			return nil
		}
		start := len(lists)
		for _, s := range list {
			lists = append(lists, own(s))
		}
		return lists[start:len(lists):len(lists)]
	}
	t.Audience = ownAll(t.Audience)
	t.Scopes = ownAll(t.Scopes)
	t.Binding.Unknown = ownAll(t.Binding.Unknown)
	e.bytes = uint32(min(bytes, 1<<32-1))
}
