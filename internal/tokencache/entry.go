package tokencache

import (
	"time"
	"unsafe"

	"github.com/valetkey/valetkey"
)

// An Entry is a token that the verifier of a [Cache] has accepted. It is immutable and may be shared.
//
// The entry takes 88 bytes and its token 392, in size classes of 96 and 416. The cache stores a [record], which takes less. The
// entries of tokens in use are in a [hotset].
type Entry struct {
	Token *valetkey.Token // if cached or shared, Freshness.Until is limited by Config.MaxAge

	fresh  valetkey.Freshness // of Token, beside it: a hit reads nothing else
	cache  *Cache
	record *record // nil unless the entry was recreated from it
	claims any     // decoded by Config.Claims
	bytes  int     // of claims
}

// entryBytes is the memory that an entry takes in the hot set, with its token and its slot.
const entryBytes = int64(unsafe.Sizeof(Entry{}) + tokenBytes + unsafe.Sizeof(uintptr(0)))

// size returns the memory that e takes in the hot set.
func (e *Entry) size() int64 { return entryBytes + int64(allocated(e.bytes)) }

// tokenBytes is the memory that a Token takes, in its size class.
const tokenBytes = (unsafe.Sizeof(valetkey.Token{}) + 31) &^ 31

// set makes t the token of e.
func (e *Entry) set(t *valetkey.Token) { e.Token, e.fresh = t, t.Freshness() }

// In reports whether c created e, and so whether e was verified on behalf of c's owner.
func (e *Entry) In(c *Cache) bool { return e.cache == c }

// ClaimsOf returns the claims of e as decoded by c; nil if c is not the Config.Claims of the cache.
func (e *Entry) ClaimsOf(c valetkey.Claims) any {
	if c != e.cache.claims {
		return nil
	}
	return e.claims
}

// alive reports whether e is still fresh. It calls foreign code, so the caller must hold no lock.
func (e *Entry) alive(now time.Time) bool {
	return now.Before(e.fresh.Until) && (e.fresh.While == nil || e.fresh.While.Holds())
}
