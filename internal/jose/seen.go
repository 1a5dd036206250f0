package jose

import (
	"hash/maphash"
	"strings"
	"sync/atomic"
)

// An issuer signs all its tokens with one of a few headers, and a client signs all its proofs with one header that contains its
// key. The parsed headers of recently verified tokens are therefore cached by their exact text in base64url. The cache saves
// [Parse] and [ParseProof] the parsing. It does not make a header trusted.

// A seen is a header as sent, in parsed form, and the memory that it belongs to.
type seen struct {
	segment string
	header  Header
	memory  memory
}

// maxSeen is the maximum length of a cached header, in bytes.
const maxSeen = 1 << 10

// A memory has one place for each header, chosen by its hash. It needs no counting or eviction, and two headers that share a
// place cost only time.
type memory []atomic.Pointer[seen]

var (
	seenHeaders [64]atomic.Pointer[seen]
	seenProofs  [4096]atomic.Pointer[seen] // of clients, each some 2 kB with its key
	seenSeed    = maphash.MakeSeed()
)

func (m memory) placeOf(segment string) *atomic.Pointer[seen] {
	return &m[maphash.String(seenSeed, segment)%uint64(len(m))]
}

// recall returns the cached header, or nil if there is none.
func (m memory) recall(segment string) *seen {
	if s := m.placeOf(segment).Load(); s != nil && s.segment == segment {
		return s
	}
	return nil
}

// remember caches the header. Call it only for tokens whose signature has been verified, so that a flood of other tokens has
// no effect.
func (s *seen) remember() {
	if len(s.segment) <= maxSeen {
		s.memory.placeOf(s.segment).Store(&seen{strings.Clone(s.segment), s.header, s.memory}) // segment is part of a token
	}
}
