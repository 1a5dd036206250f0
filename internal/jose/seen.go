package jose

import (
	"hash/maphash"
	"strings"
	"sync/atomic"
)

// An issuer signs all its tokens with one of a few headers. So those of the last good tokens are remembered, by their
// exact text in base64url: what they say is a fact that [Parse] need not find out again, and no reason to believe it.

// A seen is a header as sent, and what it says.
type seen struct {
	segment string
	header  Header
}

// maxSeen is the length of the longest header that is remembered, in bytes.
const maxSeen = 1 << 10

// Each header has one place, by chance: there is nothing to count or to evict, and two that share it only cost time.
var (
	seenHeaders [64]atomic.Pointer[seen]
	seenSeed    = maphash.MakeSeed()
)

func placeOf(segment string) *atomic.Pointer[seen] {
	return &seenHeaders[maphash.String(seenSeed, segment)%uint64(len(seenHeaders))]
}

// recall returns nil if the header is not remembered.
func recall(segment string) *seen {
	if s := placeOf(segment).Load(); s != nil && s.segment == segment {
		return s
	}
	return nil
}

// remember is for headers of tokens whose signature has verified only: a flood of others changes nothing.
func (s *seen) remember() {
	if len(s.segment) <= maxSeen {
		placeOf(s.segment).Store(&seen{strings.Clone(s.segment), s.header}) // segment is part of a token
	}
}
