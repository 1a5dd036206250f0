package valetredis

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

// Use reports whether key was not used before, by any process, and remembers it until then: it makes a Redis a
// dpop.ReplayStore, for dpop.Config.ReplayStore. Key is a hash, and nothing of it is sealed: whoever can write to redis can make a
// proof used or unused. [Config.Key] has no part in it, so a change of that key lets no proof pass twice.
//
// Redis has room for as many proofs as its memory allows. A dpop.Verifier gives each client of this process a share, so that one
// client does not fill redis: by default 1,048,576 proofs for all clients of a process, see dpop.MemoryReplayStore.
//
// An error says that redis could not be asked, and the request must be refused. Should redis have answered and the answer
// been lost, a good proof counts as used; the client makes another one for each request. A redis that was restarted empty,
// evicts keys, or fails over to a replica that lags has forgotten proofs, which then pass once more if they are not too old.
func (r *Redis) Use(ctx context.Context, key [32]byte, until time.Time) (fresh bool, err error) {
	name := r.cfg.Prefix + "proof:" + base64.RawURLEncoding.EncodeToString(key[:])
	lifetime := max(time.Until(until), time.Second)
	err = r.ask(ctx, func(ctx context.Context) error {
		err := r.cfg.Client.SetArgs(ctx, name, 1, redis.SetArgs{Mode: "NX", TTL: lifetime}).Err()
		fresh = err == nil
		if errors.Is(err, redis.Nil) { // it is there
			return nil
		}
		return err
	})
	if err != nil {
		return false, fmt.Errorf("valetredis: remembering a proof: %w", err)
	}
	return fresh, nil
}
