package valetenvoy

import (
	"hash/maphash"
	"sync/atomic"

	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/valetkey/valetkey"
)

// responses remembers the encoded responses to accepted requests that have nothing to remove beyond the usual headers. Such a
// response is a function of the token: it holds facts, and each request is decided before. The zero value is empty.
//
// Only a token that a guard has accepted gets a place, and it takes the place of another one whose hash is the same. So the holder
// of many tokens makes responses to others be encoded again, which takes a few microseconds, and the memory is that of this many
// tokens and responses, which are garbage of the guard otherwise.
type responses [512]atomic.Pointer[remembered]

type remembered struct {
	token    *valetkey.Token // keeps its address from being used for another one
	response *emptypb.Empty
}

var seed = maphash.MakeSeed()

func (r *responses) place(t *valetkey.Token) *atomic.Pointer[remembered] {
	return &r[maphash.Comparable(seed, t)%uint64(len(r))]
}

// get returns the response for t, or nil.
func (r *responses) get(t *valetkey.Token) *emptypb.Empty {
	if found := r.place(t).Load(); found != nil && found.token == t {
		return found.response
	}
	return nil
}

func (r *responses) put(t *valetkey.Token, response *emptypb.Empty) {
	r.place(t).Store(&remembered{t, response})
}
