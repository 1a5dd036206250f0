package engine

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/valetkey/valetkey/internal/fetch"
	"github.com/valetkey/valetkey/internal/jose"
	"github.com/valetkey/valetkey/internal/keyset"
	"github.com/valetkey/valetkey/internal/refresh"
)

// keySets are the key sets at URLs that clients or trusted issuers named. One is fetched when it is needed, and ahead of its age
// while it is in use. A fetch ends after 20 s and timers end with the use, so nothing has to be closed.
type keySets struct {
	*refresh.Pool[[]*jose.Key]
}

const (
	// Whoever may register clients can fill them, and a full pool drops a set of the owner that has most, see refresh.NewPool:
	// a developer who fills it hurts clients of the same developer, and an open registration other open registrations.
	maxKeySets    = 1000
	keySetFresh   = 5 * time.Minute
	keySetStale   = 55 * time.Minute // more, while the client's server does not answer with a well-formed set that has keys
	keySetRefetch = 30 * time.Second // the least time between fetches, whatever the client signs with
)

func newKeySets(client fetch.Client) keySets {
	return keySets{refresh.NewPool(maxKeySets, func(url string) refresh.Config[[]*jose.Key] {
		return refresh.Config[[]*jose.Key]{
			Fetch: func(ctx context.Context, _ *[]*jose.Key) (result refresh.Result[[]*jose.Key], err error) {
				answer, err := client.Get(ctx, url, "")
				if err != nil {
					return result, err
				}
				keys, _, err := keyset.Parse(answer.Body)
				if err != nil && !errors.Is(err, keyset.ErrWithdrawn) { // which leaves the client without a key
					return result, err
				}
				return refresh.Result[[]*jose.Key]{Value: &keys, Fresh: keySetFresh}, nil
			},
			StaleIfError: keySetStale, MinRefetchInterval: keySetRefetch, MaxRetryAfter: keySetRefetch, MaxWait: fetch.Timeout + time.Second,
			WhileUsed: true, Name: "key set", Logger: slog.New(slog.DiscardHandler), // or strangers could fill the log
		}
	})}
}

// ask asks good of the keys of a set, which is the given one or that of a URL. The latter is fetched if none is held or the held
// one is not good, as often as keySetRefetch allows. Only the caller that needs the fetch waits for it.
// The set of a URL is one of those of the owner.
func (k keySets) ask(ctx context.Context, owner, url string, given []byte, good func([]*jose.Key) error) error {
	if url == "" {
		keys, _, err := keyset.Parse(given)
		if err != nil {
			return errClient
		}
		return good(keys)
	}
	set := k.GetFor(owner, url)
	held, err := set.Load(), error(errClient)
	if held != nil {
		err = good(*held)
	}
	if err != nil {
		if next := set.Renew(ctx, held); next != nil && next != held {
			err = good(*next)
		}
	}
	if err == nil {
		set.Use() // what is refused is not a use: a stranger must not keep a set fetched
	}
	return err
}
