package engine

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/valetkey/valetkey/internal/fetch"
	"github.com/valetkey/valetkey/internal/jose"
	"github.com/valetkey/valetkey/internal/keyset"
)

// keySets are the key sets of clients that named a URL. They are fetched when they are needed, and remembered.
type keySets struct {
	client fetch.Client

	mu   sync.Mutex
	held map[string]*heldSet // by URL; at most maxKeySets
}

type heldSet struct {
	fetching sync.Mutex // held during a fetch: only those for whom the held keys are not good wait for it
	tried    time.Time  // guarded by fetching

	mu      sync.Mutex // guards what follows; never held during I/O
	keys    []*jose.Key
	fetched time.Time
}

// now returns the keys and their age.
func (s *heldSet) now() ([]*jose.Key, time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.keys, time.Since(s.fetched)
}

const (
	maxKeySets    = 1000
	keySetFresh   = 5 * time.Minute
	keySetStale   = time.Hour        // while the client's server does not answer with a well-formed set that has keys
	keySetRefresh = 30 * time.Second // no fetch sooner, whatever the client signs with
)

// ask asks good of the keys of a set, which is the given one or that of a URL: this is fetched if it is not fresh, or if it is
// not quite new and not good.
func (k *keySets) ask(ctx context.Context, url string, given []byte, good func([]*jose.Key) error) error {
	if url == "" {
		keys, _, err := keyset.Parse(given)
		if err != nil {
			return errClient
		}
		return good(keys)
	}
	set := k.get(url)
	if keys, age := set.now(); age < keySetFresh && good(keys) == nil {
		return nil
	}
	k.fetch(ctx, url, set)
	keys, age := set.now()
	if age > keySetStale {
		return errClient
	}
	return good(keys)
}

// fetch renews a set, unless that was tried just now. Others may wait for it.
func (k *keySets) fetch(ctx context.Context, url string, set *heldSet) {
	set.fetching.Lock()
	defer set.fetching.Unlock()
	now := time.Now()
	if now.Sub(set.tried) < keySetRefresh {
		return
	}
	set.tried = now
	// Others wait for the answer too, when this caller has gone.
	answer, err := k.client.Get(context.WithoutCancel(ctx), url, "")
	if err != nil {
		return
	}
	keys, _, err := keyset.Parse(answer.Body)
	if err != nil && !errors.Is(err, keyset.ErrWithdrawn) { // which leaves the client without a key
		return
	}
	set.mu.Lock()
	defer set.mu.Unlock()
	set.keys, set.fetched = keys, now
}

func (k *keySets) get(url string) *heldSet {
	k.mu.Lock()
	defer k.mu.Unlock()
	if set := k.held[url]; set != nil {
		return set
	}
	for old := range k.held { // any
		if len(k.held) < maxKeySets {
			break
		}
		delete(k.held, old)
	}
	set := new(heldSet)
	k.held[url] = set
	return set
}
