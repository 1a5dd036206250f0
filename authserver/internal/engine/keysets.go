package engine

import (
	"context"
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
	sync.Mutex // held during a fetch: who needs the same set waits for it
	keys       []*jose.Key
	fetched    time.Time
	tried      time.Time
}

const (
	maxKeySets    = 1000
	keySetFresh   = 5 * time.Minute
	keySetStale   = time.Hour        // while the client's server does not answer
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
	set.Lock()
	defer set.Unlock()
	if time.Since(set.fetched) < keySetFresh && good(set.keys) == nil {
		return nil
	}
	if now := time.Now(); now.Sub(set.tried) >= keySetRefresh {
		set.tried = now
		// Others wait for the answer too, when this caller has gone.
		if answer, err := k.client.Get(context.WithoutCancel(ctx), url, ""); err == nil {
			if keys, _, err := keyset.Parse(answer.Body); err == nil {
				set.keys, set.fetched = keys, now
			}
		}
	}
	if time.Since(set.fetched) > keySetStale {
		return errClient
	}
	return good(set.keys)
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
