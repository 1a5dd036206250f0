package valetredis

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/redis/go-redis/v9"

	"github.com/valetkey/valetkey"
)

const (
	// maxRevocations is how many revocations redis keeps before Publish returns an error for one of a token id. A guard has
	// room for as many ids, see middleware.Revocations.
	maxRevocations = 1 << 20

	// Those that publish fill this: an issuer's logouts, operators. When it is full for a kind, the publisher of that kind gets
	// an error, and nothing that is kept is dropped. Each kind leaves room for the rarer ones that an emergency needs: logouts
	// that publish ids, sessions or subjects cannot take the room of a client or an issuer. A guard reserves as much.
	maxSessions = maxRevocations + 1<<17
	maxSubjects = maxSessions + 1<<17
	maxClients  = maxSubjects + 1<<14
	maxAll      = maxClients + 1<<10

	maxLeeway     = 5 * time.Minute // of a verifier: the last of the tokens is accepted so long after Until
	maxRevocation = 8 << 10         // bytes, of one
	clockSkew     = time.Hour       // between publishers and redis, with which a revocation is still kept for long enough
	block         = time.Second     // of a read that waits; also how soon a stream that is another one is noticed
	readTimeout   = block + 2*time.Second
	readCount     = 500 // revocations in one read
	field         = "r" // of an entry: the sealed revocation
	fieldBefore   = "p" // of an entry: the id of the one before it, "0-0" for the first one of a stream

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
		return maxRevocations
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

// publishing adds an entry to the stream in one step, so that each names the one before it. It returns how many the stream has
// if there is no room for another one. A full stream is the publisher's to hear of: to drop the oldest instead would make a
// revoked token good again.
var publishing = redis.NewScript(`
local before = '0-0'
if redis.call('EXISTS', KEYS[1]) == 1 then
	redis.call('XTRIM', KEYS[1], 'MINID', ARGV[1])
	local kept = redis.call('XLEN', KEYS[1])
	if kept >= tonumber(ARGV[2]) then
		return kept
	end
	local info = redis.call('XINFO', 'STREAM', KEYS[1])
	for i = 1, #info, 2 do
		if info[i] == 'last-generated-id' then
			before = info[i + 1]
		end
	end
end
redis.call('XADD', KEYS[1], '*', 'r', ARGV[3], 'p', before)
return -1`)

// add appends to the stream, having made room.
func (r *Redis) add(ctx context.Context, sealed []byte, now time.Time, room int64) error {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Timeout)
	defer cancel()
	// An entry is as old as its id, by the clock of redis.
	oldest := now.Add(-r.cfg.Keep - maxLeeway - clockSkew).UnixMilli()
	kept, err := publishing.Run(ctx, r.cfg.Client, []string{r.stream}, oldest, room, sealed).Int64()
	if err != nil {
		return err
	}
	if kept >= 0 {
		return fmt.Errorf("redis keeps %d already, and has room for %d beside one of this kind", kept, room)
	}
	return nil
}

// Watch calls apply for all revocations that redis keeps and that still matter, and then reports nil: it has caught up. After that
// it calls apply for those that come. It needs one connection to redis. One that apply returns an error for is skipped, with a
// log line. Watch returns when ctx is done, with its error, and never before.
//
// It reports an error while redis does not answer, and goes on behind the last one that it has read. If redis is another one then,
// it begins again with the first, so that apply may be called for one again.
//
// It reports an error that wraps [valetkey.ErrRevocationsMissing] while it has caught up with what redis has, but knows that
// others are lost or cannot be opened, for as long as those may matter: Config.Keep and 5 min. Redis may have been emptied, restarted
// from an older copy, failed over to a replica that lags, or trimmed. If there are entries and none of them can be opened, as
// with a wrong key, it has not caught up. See the package about losses that cannot be detected.
func (r *Redis) Watch(ctx context.Context, apply func(...valetkey.Revocation) error, report func(error)) error {
	var (
		at       = reading{keep: r.cfg.Keep + maxLeeway}
		wait     = firstRetry
		reported bool  // something
		said     error // the last that was reported
	)
	say := func(err error) {
		if reported && (err == nil) == (said == nil) && (err == nil || err.Error() == said.Error()) {
			return
		}
		reported, said = true, err
		report(err)
	}
	for {
		found, err := r.await(ctx, at.last, at.caughtUp)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		r.follow.leave(err)
		if err != nil {
			at.interrupt()
			say(err)
			select {
			case <-time.After(jitter(wait)):
			case <-ctx.Done():
			}
			wait = min(2*wait, lastRetry)
			continue
		}
		wait = firstRetry
		if again := at.take(found, time.Now()); again {
			continue
		}
		r.apply(&at, found.entries, apply)
		if at.caughtUp {
			err := at.state(time.Now())
			r.follow.lack(err)
			say(err)
		}
	}
}

// await is read, but leaves when ctx is done: a client on a socket keeps to the deadline of a context, not to its end.
// The read then ends by itself within readTimeout.
func (r *Redis) await(ctx context.Context, last position, forMore bool) (batch, error) {
	var (
		found batch
		err   error
		done  = make(chan struct{})
	)
	go func() {
		defer close(done)
		found, err = r.read(ctx, last, forMore)
	}()
	select {
	case <-done:
		return found, err
	case <-ctx.Done():
		return batch{}, ctx.Err()
	}
}

// read returns what follows last in the stream, or nothing if nothing does, for a while with forMore.
func (r *Redis) read(ctx context.Context, last position, forMore bool) (found batch, err error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	// First, so that what was published before it must be among the entries.
	info, err := r.cfg.Client.XInfoStream(ctx, r.stream).Result()
	if err != nil && !strings.Contains(err.Error(), "no such key") {
		return batch{}, fmt.Errorf("reading revocations: %w", err)
	}
	if err == nil {
		found.length = info.Length
		found.newest, _ = parsePosition(info.LastGeneratedID)
	}
	args := &redis.XReadArgs{Streams: []string{r.stream}, ID: last.String(), Count: readCount, Block: block}
	if !forMore {
		args.Block = -1 // go-redis: do not wait
	}
	streams, err := r.cfg.Client.XRead(ctx, args).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return batch{}, fmt.Errorf("reading revocations: %w", err)
	}
	if len(streams) > 0 {
		found.entries = streams[0].Messages
	}
	return found, nil
}

func (r *Redis) apply(at *reading, entries []redis.XMessage, apply func(...valetkey.Revocation) error) {
	all := make([]valetkey.Revocation, 0, len(entries))
	for _, entry := range entries {
		sealed, _ := entry.Values[field].(string)
		text, err := r.keys.open(r.stream, []byte(sealed))
		var revoked valetkey.Revocation
		if err == nil {
			err = json.Unmarshal(text, &revoked)
		}
		if err != nil {
			at.couldNotOpen(entry, time.Now())
			if r.follow.odd.now() {
				r.cfg.Logger.Warn(r.follow.name+": one is skipped", "error", err)
			}
			continue
		}
		at.opened = true
		if time.Now().Before(revoked.Until.Add(maxLeeway)) { // or none of its tokens can be accepted
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
