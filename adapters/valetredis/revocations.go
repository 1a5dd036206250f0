package valetredis

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/redis/go-redis/v9"

	"github.com/valetkey/valetkey"
)

const (
	// MaxRevocations is how many revocations redis keeps before Publish returns an error for one of a token id. A guard has
	// room for as many ids, see middleware.Revocations.
	MaxRevocations = 1 << 20

	// Those that publish fill this: an issuer's logouts, operators. When it is full for a kind, the publisher of that kind gets
	// an error, and nothing that is kept is dropped. Each kind leaves room for the rarer ones that an emergency needs: logouts
	// that publish ids, sessions or subjects cannot take the room of a client or an issuer. A guard reserves as much.
	maxSessions = MaxRevocations + 1<<17
	maxSubjects = maxSessions + 1<<17
	maxClients  = maxSubjects + 1<<14
	maxAll      = maxClients + 1<<10

	maxLeeway     = 5 * time.Minute // of a verifier: the last of the tokens is accepted so long after Until
	maxRevocation = 8 << 10         // bytes, of one
	clockSkew     = time.Hour       // between publishers and redis, with which a revocation is still kept for long enough
	block         = time.Second     // of a read that waits; also how soon a stream that is another one is noticed
	readTimeout   = block + 2*time.Second
	readCount     = 500 // revocations in one read
	beginning     = "0-0"
	field         = "r"

	firstRetry = 100 * time.Millisecond // of Watch after a failure, doubling
	lastRetry  = 5 * time.Second        // up to this
)

var _ valetkey.RevocationSource = (*Redis)(nil)

// Publish makes a revocation known to all that watch, now and until none of its tokens can be accepted. At, if neither it
// nor Before is set, is now; Until, if zero, is after Config.Keep, and later it must not be. With a nil error redis has it;
// with an error redis may or may not have it, and it does no harm to publish it again. There is one if redis is full: it keeps
// 1,048,576 revocations of ids, and has room beside them for 131,072 of sessions, as many of subjects, 16,384 of clients and 1,024
// of issuers. A wider kind, of the subject or of the whole issuer, is then in force where one of an id is not.
func (r *Redis) Publish(ctx context.Context, revoked valetkey.Revocation) error {
	now := time.Now()
	if revoked.Before.IsZero() && revoked.At.IsZero() {
		revoked.At = now // for a guard that hears of it late
	}
	if revoked.Until.IsZero() {
		revoked.Until = now.Add(r.cfg.Keep)
	}
	if err := r.check(revoked, now); err != nil {
		return fmt.Errorf("valetredis: the revocation: %w", err)
	}
	text, err := json.Marshal(revoked)
	if err != nil {
		return fmt.Errorf("valetredis: the revocation: %w", err)
	}
	if len(text) > maxRevocation {
		return fmt.Errorf("valetredis: the revocation: %d bytes, more than %d", len(text), maxRevocation)
	}
	sealed, err := r.keys.seal(r.stream, text)
	if err != nil {
		return fmt.Errorf("valetredis: sealing a revocation: %w", err)
	}
	if err := r.add(ctx, sealed, now, room(revoked)); err != nil {
		return fmt.Errorf("valetredis: publishing a revocation: %w", err)
	}
	return nil
}

// room returns how many revocations redis may keep beside one of this kind.
func room(revoked valetkey.Revocation) int64 {
	switch {
	case revoked.ID != "":
		return MaxRevocations
	case revoked.SessionID != "":
		return maxSessions
	case revoked.Subject != "":
		return maxSubjects
	case revoked.ClientID != "":
		return maxClients
	default:
		return maxAll
	}
}

func (r *Redis) check(revoked valetkey.Revocation, now time.Time) error {
	which := 0
	for _, given := range []bool{revoked.ID != "", revoked.Subject != "", revoked.ClientID != "", revoked.SessionID != "", revoked.All} {
		if given {
			which++
		}
	}
	var errs []error
	if revoked.Issuer == "" {
		errs = append(errs, errors.New("it has no Issuer"))
	}
	if which != 1 {
		errs = append(errs, fmt.Errorf("it has %d of ID, Subject, ClientID, SessionID and All, not one", which))
	}
	if !utf8.ValidString(revoked.Issuer + revoked.ID + revoked.Subject + revoked.ClientID + revoked.SessionID) {
		errs = append(errs, errors.New("it is not UTF-8"))
	}
	if revoked.Until.After(now.Add(r.cfg.Keep)) {
		errs = append(errs, fmt.Errorf("its Until is further ahead than the %v for which it is kept", r.cfg.Keep))
	}
	return errors.Join(errs...)
}

// add appends to the stream, having made room. A full stream is the publisher's to hear of: to drop the oldest instead
// would make a revoked token good again.
func (r *Redis) add(ctx context.Context, sealed []byte, now time.Time, room int64) error {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Timeout)
	defer cancel()
	// An entry is as old as its id, by the clock of redis.
	oldest := strconv.FormatInt(now.Add(-r.cfg.Keep-maxLeeway-clockSkew).UnixMilli(), 10)
	if err := r.cfg.Client.XTrimMinID(ctx, r.stream, oldest).Err(); err != nil {
		return err
	}
	kept, err := r.cfg.Client.XLen(ctx, r.stream).Result()
	if err != nil {
		return err
	}
	if kept >= room {
		return fmt.Errorf("redis keeps %d already, and has room for %d beside one of this kind", kept, room)
	}
	return r.cfg.Client.XAdd(ctx, &redis.XAddArgs{Stream: r.stream, Values: []any{field, sealed}}).Err()
}

// Watch calls apply for all revocations that redis keeps and that still matter, and then reports nil: it has caught up. After that
// it calls apply for those that come. It needs one connection to redis. One that is not sealed under our key is skipped, and
// one that apply returns an error for, each with a log line. Watch returns when ctx is done, with its error, and never before.
//
// It reports an error while redis does not answer, and goes on behind the last one that it has read. If that one is not in redis
// any more (restarted empty, or from an older copy; another server; trimmed), it begins again with the first, so that apply may
// be called for one again.
func (r *Redis) Watch(ctx context.Context, apply func(...valetkey.Revocation) error, report func(error)) error {
	last, caughtUp, wait := beginning, false, firstRetry
	for {
		entries, err := r.await(ctx, last, caughtUp)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, errGone) {
			if r.shouldStand(last) {
				r.cfg.Logger.Warn(r.follow.name+": those read before are gone from redis, and all are read again", "error", err)
			}
			r.follow.leave(nil)
			last, caughtUp = beginning, false
			continue
		}
		r.follow.leave(err)
		if err != nil {
			caughtUp = false
			report(err)
			select {
			case <-time.After(jitter(wait)):
			case <-ctx.Done():
			}
			wait = min(2*wait, lastRetry)
			continue
		}
		wait = firstRetry
		if len(entries) > 0 {
			last = entries[len(entries)-1].ID
			r.apply(entries, apply)
		}
		if !caughtUp && len(entries) < readCount {
			caughtUp = true
			report(nil)
		}
	}
}

// await is read, but leaves when ctx is done: a client on a socket keeps to the deadline of a context, not to its end.
// The read then ends by itself within readTimeout.
func (r *Redis) await(ctx context.Context, last string, forMore bool) ([]redis.XMessage, error) {
	var (
		entries []redis.XMessage
		err     error
		done    = make(chan struct{})
	)
	go func() {
		defer close(done)
		entries, err = r.read(ctx, last, forMore)
	}()
	select {
	case <-done:
		return entries, err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

var errGone = errors.New("the last one read is not there")

// read returns what follows last in the stream, or nothing if nothing does, for a while with forMore. It returns errGone if the stream
// is not the one that last was read from, whose ids may be behind: this is looked at after reading, since a client may
// have changed servers in between without telling.
func (r *Redis) read(ctx context.Context, last string, forMore bool) ([]redis.XMessage, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	args := &redis.XReadArgs{Streams: []string{r.stream}, ID: last, Count: readCount, Block: block}
	if !forMore {
		args.Block = -1 // go-redis: do not wait
	}
	streams, err := r.cfg.Client.XRead(ctx, args).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, fmt.Errorf("reading revocations: %w", err)
	}
	if last != beginning {
		stands, err := r.cfg.Client.XRange(ctx, r.stream, last, last).Result()
		if err != nil {
			return nil, fmt.Errorf("reading revocations: %w", err)
		}
		if len(stands) == 0 {
			return nil, errGone
		}
	}
	if len(streams) == 0 {
		return nil, nil
	}
	return streams[0].Messages, nil
}

// shouldStand reports whether the entry is too young to have been trimmed.
func (r *Redis) shouldStand(id string) bool {
	ms, _, _ := strings.Cut(id, "-")
	at, _ := strconv.ParseInt(ms, 10, 64)
	return time.Since(time.UnixMilli(at)) < r.cfg.Keep
}

func (r *Redis) apply(entries []redis.XMessage, apply func(...valetkey.Revocation) error) {
	all := make([]valetkey.Revocation, 0, len(entries))
	for _, entry := range entries {
		sealed, _ := entry.Values[field].(string)
		text, err := r.keys.open(r.stream, []byte(sealed))
		var revoked valetkey.Revocation
		if err == nil {
			err = json.Unmarshal(text, &revoked)
		}
		switch {
		case err != nil:
			if r.follow.odd.now() {
				r.cfg.Logger.Warn(r.follow.name+": one is skipped", "error", err)
			}
		case time.Now().Before(revoked.Until.Add(maxLeeway)): // or none of its tokens can be accepted
			all = append(all, revoked)
		}
	}
	if len(all) == 0 {
		return
	}
	if err := apply(all...); err != nil {
		r.cfg.Logger.Error(r.follow.name+": one or more could not be applied", "error", err)
	}
}
