package valetredis

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"
)

const (
	// maxValue is the size, in bytes, above which a value is not kept.
	maxValue = 64 << 10

	endSize   = 8 // bytes, before a value: its end in Unix milliseconds, sealed with it
	maxSealed = endSize + maxValue + overhead
)

// Get returns the value that was set under key and has not ended, or nil and nil if there is none. What does not open
// counts as none. The error says that redis could not be asked, and holds neither key nor value.
func (r *Redis) Get(ctx context.Context, key string) ([]byte, error) {
	name := r.answerName(key)
	var sealed []byte
	err := r.ask(ctx, func(ctx context.Context) (err error) {
		// GETRANGE is GET with a bound on what somebody else may have put there; "" if there is nothing.
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
	// Redis forgets it by then, unless somebody made it stay.
	if end := time.UnixMilli(int64(binary.BigEndian.Uint64(text))); !time.Now().Before(end) {
		return nil, nil
	}
	return text[endSize:], nil
}

// Set keeps value under key for lifetime, in place of what was there. What would live for less than a millisecond is not
// kept. A value larger than [MaxValue] is an error.
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

// ask calls redis unless the breaker is open, for no longer than the timeout.
func (r *Redis) ask(ctx context.Context, call func(context.Context) error) error {
	if err := r.answers.enter(); err != nil {
		return err
	}
	bounded, cancel := context.WithTimeout(ctx, r.cfg.Timeout)
	defer cancel()
	err := call(bounded)
	if err != nil && ctx.Err() != nil {
		return err // the caller left: that says nothing about redis
	}
	r.answers.leave(err)
	return err
}
