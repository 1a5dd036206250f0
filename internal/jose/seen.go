package jose

import (
	"hash/maphash"
	"strings"
	"sync/atomic"
)

// An issuer signs all its tokens with one of a few headers, and a client all its proofs with one that holds its key. So
// those of the last good ones are remembered, by their exact text in base64url: what they say is a fact that [Parse] and
// [ParseProof] need not find out again, and no reason to believe it.

// A seen is a header as sent, what it says, and where it belongs.
type seen struct {
	segment string
	header  Header
	memory  memory
}

// maxSeen is the length of the longest header that is remembered, in bytes.
const maxSeen = 1 << 10

// In a memory each header has one place, by chance: there is nothing to count or to evict, and two that share it only cost
// time.
type memory []atomic.Pointer[seen]

var (
	seenHeaders [64]atomic.Pointer[seen]
	seenProofs  [4096]atomic.Pointer[seen] // of clients, each some 2 kB with its key
	seenSeed    = maphash.MakeSeed()
)

func (m memory) placeOf(segment string) *atomic.Pointer[seen] {
	return &m[maphash.String(seenSeed, segment)%uint64(len(m))]
}

// recall returns nil if the header is not remembered.
func (m memory) recall(segment string) *seen {
	if s := m.placeOf(segment).Load(); s != nil && s.segment == segment {
		return s
	}
	return nil
}

// remember is for headers of tokens whose signature has verified only: a flood of others changes nothing.
func (s *seen) remember() {
	if len(s.segment) <= maxSeen {
		s.memory.placeOf(s.segment).Store(&seen{strings.Clone(s.segment), s.header, s.memory}) // segment is part of a token
	}
}
