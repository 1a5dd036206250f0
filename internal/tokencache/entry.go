package tokencache

import (
	"time"
	"unsafe"

	"github.com/valetkey/valetkey"
)

// An Entry is a token that the verifier of a [Cache] has accepted. It may be shared, and does not change.
//
// With its token it takes 48 and 392 bytes, in size classes of 48 and 416. What is remembered is a [record], which takes less; the
// entries of tokens in use lie ready in a [hotset].
type Entry struct {
	Token *valetkey.Token // with Freshness.Until no later than the cache's own MaxAge, if remembered

	cache  *Cache
	record *record // nil if it is not remembered
	claims any     // decoded by Config.Claims
	bytes  int     // of claims
}

// entryBytes is what an entry costs in the hot set, with its token and its place there.
const entryBytes = int64(unsafe.Sizeof(Entry{}) + tokenBytes + unsafe.Sizeof(uintptr(0)))

// size is what e costs in the hot set.
func (e *Entry) size() int64 { return entryBytes + int64(allocated(e.bytes)) }

// tokenBytes is a Token in its size class.
const tokenBytes = (unsafe.Sizeof(valetkey.Token{}) + 31) &^ 31

// In reports whether c made e, and so whether e was verified on behalf of c's owner.
func (e *Entry) In(c *Cache) bool { return e.cache == c }

// ClaimsOf returns the claims of e as decoded by c; nil if c is not Config.Claims.
func (e *Entry) ClaimsOf(c valetkey.Claims) any {
	if c != e.cache.claims {
		return nil
	}
	return e.claims
}

// alive reports whether e may still be relied on. It calls foreign code, so never under a lock.
func (e *Entry) alive(now time.Time) bool {
	fresh := e.Token.Freshness()
	return now.Before(fresh.Until) && (fresh.While == nil || fresh.While.Holds())
}
