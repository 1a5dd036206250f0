package valetredis

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// replicaSkew is the difference between the clocks of Redis servers for which a used proof is still remembered after a
	// failover: Redis replicates the time at which a key expires, and the promoted server compares it with another clock.
	replicaSkew = time.Minute

	proveWithin = time.Second           // time limit of a confirmation for Watch
	movedRetry  = 10 * time.Millisecond // interval between attempts while a cluster moves a slot
)

// failsOver reports whether client is known to follow a failover to another server.
func failsOver(client redis.UniversalClient) bool {
	switch c := client.(type) {
	case *redis.ClusterClient:
		return c != nil
	case *redis.Client:
		return c != nil && c.Options().Addr == "FailoverClient" // which redis.NewFailoverClient sets
	}
	return false
}

// waits reports whether confirmations can be obtained through client: WAIT covers the writes of one connection.
func waits(client redis.UniversalClient) bool {
	switch client.(type) {
	case nil, *redis.Client, *redis.ClusterClient: // nil is another mistake
		return true
	}
	return false
}

// An unconfirmed is the error of a write that Redis has done and too few replicas have confirmed.
type unconfirmed struct{ got, want int64 }

func (u unconfirmed) Error() string {
	return fmt.Sprintf("%d of %d replicas have confirmed the write to redis, so a failover may lose it", u.got, u.want)
}

// write runs a command that writes to key. It returns the error of the command or, with MinReplicas, an [unconfirmed].
func (r *Redis) write(ctx context.Context, key string, command func(redis.Cmdable) redis.Cmder) error {
	if r.cfg.MinReplicas == 0 {
		return command(r.cfg.Client).Err()
	}
	return r.onPrimary(ctx, key, func(primary *redis.Client) error {
		var (
			written redis.Cmder
			copied  *redis.IntCmd
		)
		// One pipeline is one connection, which WAIT refers to. The error is that of the first command that failed.
		primary.Pipelined(ctx, func(p redis.Pipeliner) error {
			written = command(p)
			copied = r.wait(ctx, limit(ctx, primary))
			return p.Process(ctx, copied)
		})
		if err := written.Err(); err != nil {
			return err
		}
		return r.confirmed(copied)
	})
}

// confirmed returns the error of a WAIT, or an [unconfirmed] if it counted too few replicas.
func (r *Redis) confirmed(copied *redis.IntCmd) error {
	got, err := copied.Result()
	if err != nil {
		return err
	}
	if want := int64(r.cfg.MinReplicas); got < want {
		err = unconfirmed{got, want}
	}
	r.copies.leave(err)
	return err
}

// limit returns the time that a WAIT may take: less than the client waits for a response, because then it drops the connection and
// writes again.
func limit(ctx context.Context, client *redis.Client) time.Duration {
	deadline, _ := ctx.Deadline()
	rest := time.Until(deadline)
	if most := client.Options().ReadTimeout; most > 0 {
		rest = min(rest, most)
	}
	return max(rest*3/4, time.Millisecond) // zero would wait without a limit
}

// proving writes to the stream without an effect on it.
const proving = `
if redis.call('EXISTS', KEYS[1]) == 1 then
	redis.call('PEXPIRE', KEYS[1], 60000)
	redis.call('PERSIST', KEYS[1])
else
	redis.call('SET', KEYS[1], '')
	redis.call('DEL', KEYS[1])
end
return 1`

// prove asks server to replicate a write, as only the primary with its replicas can. few is an [unconfirmed] if it cannot.
func (r *Redis) prove(ctx context.Context, server commander, within time.Duration) (few, err error) {
	if err := server.Eval(ctx, proving, []string{r.stream}).Err(); err != nil {
		return nil, err
	}
	copied := r.wait(ctx, within)
	server.Process(ctx, copied)
	err = r.confirmed(copied)
	if errors.As(err, new(unconfirmed)) {
		return err, nil
	}
	return nil, err
}

// A commander runs commands on one server.
type commander interface {
	redis.Cmdable
	Process(ctx context.Context, cmd redis.Cmder) error
}

// wait returns the command that waits until the replicas have all that its connection has written before.
func (r *Redis) wait(ctx context.Context, limit time.Duration) *redis.IntCmd {
	return redis.NewIntCmd(ctx, "wait", r.cfg.MinReplicas, limit.Milliseconds())
}

// onPrimary calls f with a client of the server that key is written to. It calls f again if a cluster has moved the key, which
// means that f had no effect.
func (r *Redis) onPrimary(ctx context.Context, key string, f func(*redis.Client) error) error {
	cluster, ok := r.cfg.Client.(*redis.ClusterClient)
	if !ok {
		return f(r.cfg.Client.(*redis.Client))
	}
	for {
		primary, err := cluster.MasterForKey(ctx, key)
		if err == nil {
			err = f(primary)
		}
		if err == nil || errors.Is(err, redis.Nil) || errors.As(err, new(unconfirmed)) {
			return err
		}
		cluster.ReloadState(ctx) // in the background
		_, moved := redis.IsMovedError(err)
		_, moving := redis.IsAskError(err)
		if !moved && !moving {
			return err
		}
		select {
		case <-time.After(movedRetry):
		case <-ctx.Done():
			return err
		}
	}
}
