package tokencache

import (
	"time"
	"unsafe"

	"github.com/valetkey/valetkey"
)

// An Entry is a token that the verifier of a [Cache] has accepted. It may be shared: Token must not be modified.
//
// It is 360 bytes, and 384 is the next size class of the allocator. What is remembered is a [record], which takes less; the
// entries of tokens in use lie ready on a [hotset].
type Entry struct {
	Token valetkey.Token // with Freshness.Until no later than the cache's own MaxAge, if remembered

	cache  *Cache
	record *record // nil if it is not remembered
}

// entryBytes is what an entry costs in the hot set, with its place there.
const entryBytes = int64(unsafe.Sizeof(Entry{}) + unsafe.Sizeof(uintptr(0)))

// In reports whether c made e, and so whether e was verified on behalf of c's owner.
func (e *Entry) In(c *Cache) bool { return e.cache == c }

// alive reports whether e may still be relied on. It calls foreign code, so never under a lock.
func (e *Entry) alive(now time.Time) bool {
	reuse := &e.Token.Freshness
	return now.Before(reuse.Until) && (reuse.While == nil || reuse.While.Holds())
}
