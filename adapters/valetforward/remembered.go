package valetforward

import (
	"hash/maphash"
	"net/http"
	"sync/atomic"

	"github.com/valetkey/valetkey"
)

// passes remembers the headers of answers that let a request pass and have no header of the guard. They are a function of the token: each
// request is decided before. The zero value is empty.
//
// Only a token that a guard has accepted gets a place, and it takes the place of another one whose hash is the same. So the holder of many
// tokens makes the headers of others be made again, which takes less than a microsecond, and the memory is that of this many tokens and
// headers, which are garbage of the guard otherwise.
type passes [512]atomic.Pointer[remembered]

type remembered struct {
	token  *valetkey.Token // keeps its address from being used for another one
	header http.Header     // shared by answers and not modified
}

var seed = maphash.MakeSeed()

func (p *passes) place(t *valetkey.Token) *atomic.Pointer[remembered] {
	return &p[maphash.Comparable(seed, t)%uint64(len(p))]
}

// get returns the headers for t, or nil.
func (p *passes) get(t *valetkey.Token) http.Header {
	if found := p.place(t).Load(); found != nil && found.token == t {
		return found.header
	}
	return nil
}

func (p *passes) put(t *valetkey.Token, header http.Header) {
	p.place(t).Store(&remembered{t, header})
}
