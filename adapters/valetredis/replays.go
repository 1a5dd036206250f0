package valetredis

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

// Use reports whether no process has used key before, and records it until the given time. It makes a Redis a dpop.ReplayStore,
// for dpop.Config.ReplayStore. The stored key is a hash and is not sealed: anyone who can write to Redis can mark a proof as used
// or unused. [Config.Key] is not involved, so changing it does not let a proof pass twice.
//
// Redis holds as many proofs as its memory allows. A dpop.Verifier gives each client of this process a share, so that one client
// cannot fill Redis. By default, all clients of a process together have room for 1,048,576 proofs; see dpop.MemoryReplayStore.
//
// An error means that Redis could not be queried, or that too few replicas confirmed the record; see [Config.MinReplicas]. The
// request must be refused. If Redis recorded the proof but its response was lost, a valid proof counts as used; clients make a new
// proof for each request. A Redis that was restarted empty, evicts keys, or fails over to a replica without the record has
// forgotten proofs. Those pass once more if they are still recent enough.
func (r *Redis) Use(ctx context.Context, key [32]byte, until time.Time) (fresh bool, err error) {
	name := r.cfg.Prefix + "proof:" + base64.RawURLEncoding.EncodeToString(key[:])
	lifetime := max(time.Until(until), time.Second)
	if r.cfg.MinReplicas > 0 {
		lifetime += replicaSkew
	}
	var few error
	err = r.ask(ctx, func(ctx context.Context) error {
		err := r.write(ctx, name, func(c redis.Cmdable) redis.Cmder {
			return c.SetArgs(ctx, name, 1, redis.SetArgs{Mode: "NX", TTL: lifetime})
		})
		fresh = err == nil
		switch {
		case errors.Is(err, redis.Nil): // the key exists
			return nil
		case errors.As(err, new(unconfirmed)): // Redis has responded
			few = err
			return nil
		}
		return err
	})
	if err == nil {
		err = few
	}
	if err != nil {
		return false, fmt.Errorf("valetredis: remembering a proof: %w", err)
	}
	return fresh, nil
}
