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

// keySets are the key sets at the URLs of clients or trusted issuers. A set is fetched when it is needed, and refreshed ahead of
// its expiry while it is in use. A fetch ends after 20 s, and timers end with the use, so nothing has to be closed.
type keySets struct {
	*refresh.Pool[[]*jose.Key]
}

const (
	// Anyone who may register clients can fill the pool. A full pool drops a set of the owner that has the most; see
	// refresh.NewPool. A developer who fills it thus affects only clients of that developer, and open registrations affect only
	// each other.
	maxKeySets    = 1000
	keySetFresh   = 5 * time.Minute
	keySetStale   = 55 * time.Minute // more, while the client's server does not respond with a well-formed set that has keys
	keySetRefetch = 30 * time.Second // the minimum interval between fetches, regardless of the keys in assertions
)

func newKeySets(client fetch.Client) keySets {
	return keySets{refresh.NewPool(maxKeySets, func(url string) refresh.Config[[]*jose.Key] {
		return refresh.Config[[]*jose.Key]{
			Fetch: func(ctx context.Context, _ *[]*jose.Key) (result refresh.Result[[]*jose.Key], err error) {
				answer, err := client.Get(ctx, url, "")
				if err != nil {
					return result, err
				}
				keys, _, err := keyset.Parse(answer.Body, keyset.MaxForeignKeys)
				if err != nil && !errors.Is(err, keyset.ErrWithdrawn) { // an error that leaves the client without a key
					return result, err
				}
				return refresh.Result[[]*jose.Key]{Value: &keys, Fresh: keySetFresh}, nil
			},
			StaleIfError: keySetStale, MinRefetchInterval: keySetRefetch, MaxRetryAfter: keySetRefetch, MaxWait: fetch.Timeout + time.Second,
			WhileUsed: true, Name: "key set", Logger: slog.New(slog.DiscardHandler), // otherwise anyone could fill the log
		}
	})}
}

// ask calls good with the keys of the given set, or of the set at url. A set at a URL is fetched if none is held or good refuses
// the held one, as often as keySetRefetch allows. Only the caller that needs the fetch waits for it. The set is charged to
// owner.
func (k keySets) ask(ctx context.Context, owner, url string, given []byte, good func([]*jose.Key) error) error {
	if url == "" {
		keys, _, err := keyset.Parse(given, keyset.MaxForeignKeys)
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
		set.Use() // a refusal is not a use: an attacker must not keep a set in use
	}
	return err
}
