package valetredis

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"
)

const (
	// maxValue is the size limit for a value, in bytes.
	maxValue = 64 << 10

	endSize   = 8 // bytes before a value: its expiry in Unix milliseconds, sealed together with the value
	maxSealed = endSize + maxValue + overhead
)

// Get returns the value that [Redis.Set] stored under key, or nil and a nil error if there is none or it has expired. A value
// that cannot be opened counts as absent. An error means that Redis could not be queried. It contains neither the key nor the
// value.
func (r *Redis) Get(ctx context.Context, key string) ([]byte, error) {
	name := r.answerName(key)
	var sealed []byte
	err := r.ask(ctx, func(ctx context.Context) (err error) {
		// GETRANGE is GET with a size limit, in case another client of Redis stored a large value. It returns "" if the key is
		// absent.
		sealed, err = r.cfg.Client.GetRange(ctx, name, 0, maxSealed-1).Bytes()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("valetredis: looking up an answer: %w", err)
	}
	if len(sealed) == 0 {
		return nil, nil
	}
	text, err := r.keys.open(name, sealed)
	if err != nil || len(text) < endSize {
		if r.answers.odd.now() {
			r.cfg.Logger.Warn(r.answers.name+": one is ignored", "error", errSealed)
		}
		return nil, nil
	}
	// Redis deletes the value at its expiry unless another client of Redis made it persistent.
	if end := time.UnixMilli(int64(binary.BigEndian.Uint64(text))); !time.Now().Before(end) {
		return nil, nil
	}
	return text[endSize:], nil
}

// Set stores value under key for lifetime and replaces any previous value. It stores nothing if lifetime is less than one
// millisecond. A value of more than 64 KiB is an error.
func (r *Redis) Set(ctx context.Context, key string, value []byte, lifetime time.Duration) error {
	if len(value) > maxValue {
		return fmt.Errorf("valetredis: an answer of %d bytes is not kept: the limit is %d", len(value), maxValue)
	}
	if lifetime < time.Millisecond {
		return nil
	}
	name, end := r.answerName(key), time.Now().Add(lifetime)
	text := binary.BigEndian.AppendUint64(make([]byte, 0, endSize+len(value)), uint64(end.UnixMilli()))
	sealed, err := r.keys.seal(name, append(text, value...))
	if err != nil {
		return fmt.Errorf("valetredis: sealing an answer: %w", err)
	}
	err = r.ask(ctx, func(ctx context.Context) error {
		return r.cfg.Client.Set(ctx, name, sealed, lifetime).Err()
	})
	if err != nil {
		return fmt.Errorf("valetredis: keeping an answer: %w", err)
	}
	return nil
}

func (r *Redis) answerName(key string) string {
	return r.cfg.Prefix + "answer:" + r.keys.hide("answer:"+key)
}

// ask runs call within the timeout, unless the breaker is open.
func (r *Redis) ask(ctx context.Context, call func(context.Context) error) error {
	if err := r.answers.enter(); err != nil {
		return err
	}
	bounded, cancel := context.WithTimeout(ctx, r.cfg.Timeout)
	defer cancel()
	err := call(bounded)
	if err != nil && ctx.Err() != nil {
		return err // the caller canceled, which is not a failure of Redis
	}
	r.answers.leave(err)
	return err
}
