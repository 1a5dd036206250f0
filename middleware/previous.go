package middleware

import (
	"slices"
	"sync"
	"weak"

	"github.com/valetkey/valetkey"
)

// A family holds the guards that share revocations, see Config.Previous. It does not keep a guard alive: a guard that carries
// neither a request nor a stream, and that its owner has dropped, ends with the next collection. So its size is the number of
// guards that were created since then, which only the owner of the process determines.
type family struct {
	mu     sync.Mutex
	guards []weak.Pointer[Guard]
}

func (f *family) add(g *Guard) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.guards = slices.DeleteFunc(f.guards, func(p weak.Pointer[Guard]) bool { return p.Value() == nil })
	f.guards = append(f.guards, weak.Make(g))
}

// all returns the guards that are still in use, and perhaps others.
func (f *family) all() (living []*Guard) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range f.guards {
		if g := p.Value(); g != nil {
			living = append(living, g)
		}
	}
	return living
}

// takeOver caches the tokens of previous for which keep returns true. The guard is a member of the family, so a later revocation
// applies to them; one that removed a token from previous in the meantime applies here.
func (g *Guard) takeOver(previous *Guard, keep func(*valetkey.Token) bool) {
	if (g.tokenHeader != "") != (previous.tokenHeader != "") { // they differ in the characters that a token may have, checked on a miss
		return
	}
	g.cache.Adopt(previous.cache, keep)
	g.cache.Purge(func(t *valetkey.Token) bool { return g.denials.check(t) != nil })
}
