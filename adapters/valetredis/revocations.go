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

// recordVersion is the version of the records that this package publishes and the highest one that it understands. A record without
// a version has version 1. A new way to select tokens, or a new member that a reader must not ignore, needs a new version.
const recordVersion = 1

// A record is a revocation as it is stored in Redis, sealed, in JSON.
type record struct {
	Version int `json:"v"`
	valetkey.Revocation
}

// understand decodes a record that matters until a time. If a later version of this package wrote it, unknown is the reason why it
// cannot be applied as it is. The result then rejects every token of the issuer that was issued before the record was published:
// which of them are meant is unknown, and to ignore the record would accept tokens that are revoked. An error means that not even
// the issuer is known.
func (r *Redis) understand(text []byte, until time.Time) (revoked valetkey.Revocation, unknown, err error) {
	var version struct {
		Version int    `json:"v"`
		Issuer  string `json:"Issuer"`
	}
	if err := json.Unmarshal(text, &version); err != nil {
		return revoked, nil, err
	}
	var rec record
	bad := json.Unmarshal(text, &rec)
	switch {
	case version.Version > recordVersion:
		unknown = fmt.Errorf("the record has version %d, and this process understands up to %d: upgrade it", version.Version, recordVersion)
	case bad != nil:
		unknown = bad
	default:
		unknown = selectsOne(rec.Revocation)
	}
	switch {
	case version.Issuer == "":
		return revoked, nil, errors.New("the record has no issuer")
	case unknown == nil:
		return rec.Revocation, nil, nil
	}
	// The end of the entry is Keep after it was published, so its beginning is known without trust in the record.
	at := until.Add(-r.cfg.Keep - maxLeeway)
	return valetkey.Revocation{Issuer: version.Issuer, All: true, At: at, Until: until}, unknown, nil
}

// entryPosition returns the position of an entry, the zero position if its ID is malformed.
func entryPosition(entry redis.XMessage) position {
	p, _ := parsePosition(entry.ID)
	return p
}

const (
	// maxRevocations is the number of revocations at which Publish returns an error for another token ID. A guard has room for as
	// many IDs; see middleware.Revocations.
	maxRevocations = 1 << 20

	// Trusted publishers fill this space: an issuer's logouts and operators. If a kind is full, its publisher gets an error and
	// no stored revocation is dropped. Each kind leaves room for rarer kinds that an emergency needs: logouts, which publish IDs,
	// sessions or subjects, cannot take the room of clients and issuers. A guard reserves the same amounts.
	maxSessions = maxRevocations + 1<<17
	maxSubjects = maxSessions + 1<<17
	maxClients  = maxSubjects + 1<<14
	maxAll      = maxClients + 1<<10

	maxLeeway     = 5 * time.Minute // leeway of verifiers: a revocation still matters for this long after Until
	maxRevocation = 8 << 10         // bytes per revocation
	clockSkew     = time.Hour       // between publishers and Redis, for which retention still suffices
	block         = time.Second     // wait of a blocking read; also the delay in detecting a replaced stream
	readTimeout   = block + 2*time.Second
	readCount     = 500 // revocations per read
	field         = "r" // of an entry: the sealed revocation
	fieldBefore   = "p" // of an entry: the ID of the previous entry, "0-0" for the first entry of a stream

	// Pauses of Watch after failures double. While Redis is away, a process asks it twice a second at most, which a thousand of them may do,
	// and revocations are late by no more than that when it is back.
	firstRetry = 100 * time.Millisecond
	lastRetry  = 500 * time.Millisecond
)

var _ valetkey.RevocationSource = (*Redis)(nil)

// Publish sends a revocation to all processes that watch, now or later, until none of the revoked tokens can be accepted. If
// neither At nor Before is set, At becomes the current time. A zero Until becomes the current time plus Config.Keep; a later
// Until is an error.
//
// A nil error means that Redis has stored the revocation, and that [Config.MinReplicas] replicas have confirmed it. After an error
// Redis may have stored it, and may lose it in a failover. Publish it again until it succeeds: that is harmless.
//
// Publish returns an error if Redis is full. Redis keeps 1,048,576 revocations of IDs. Beyond them it has room for 131,072
// revocations of sessions, 131,072 of subjects, 16,384 of clients and 1,024 of issuers. If there is no room for an ID, revoke the
// subject or the whole issuer instead.
func (r *Redis) Publish(ctx context.Context, revoked valetkey.Revocation) error {
	now := time.Now()
	if revoked.Before.IsZero() && revoked.At.IsZero() {
		revoked.At = now // for guards that receive it late
	}
	if revoked.Until.IsZero() {
		revoked.Until = now.Add(r.cfg.Keep)
	}
	if err := r.check(revoked, now); err != nil {
		return fmt.Errorf("valetredis: the revocation: %w", err)
	}
	text, err := json.Marshal(record{Version: recordVersion, Revocation: revoked})
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

// room returns the number of stored revocations at which one of this kind is refused.
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
	var errs []error
	if revoked.Issuer == "" {
		errs = append(errs, errors.New("it has no Issuer"))
	}
	if err := selectsOne(revoked); err != nil {
		errs = append(errs, err)
	}
	if !utf8.ValidString(revoked.Issuer + revoked.ID + revoked.Subject + revoked.ClientID + revoked.SessionID) {
		errs = append(errs, errors.New("it is not UTF-8"))
	}
	if revoked.Until.After(now.Add(r.cfg.Keep)) {
		errs = append(errs, fmt.Errorf("its Until is further ahead than the %v for which it is kept", r.cfg.Keep))
	}
	return errors.Join(errs...)
}

// selectsOne returns an error unless exactly one field of revoked selects the tokens.
func selectsOne(revoked valetkey.Revocation) error {
	which := 0
	for _, given := range []bool{revoked.ID != "", revoked.Subject != "", revoked.ClientID != "", revoked.SessionID != "", revoked.All} {
		if given {
			which++
		}
	}
	if which != 1 {
		return fmt.Errorf("it has %d of ID, Subject, ClientID, SessionID and All, not one", which)
	}
	return nil
}

// publishing adds an entry to the stream and records the ID of the previous entry in the same step. If the stream has no room, it
// returns the length of the stream. A full stream is an error for the publisher: dropping the oldest entry would make a revoked
// token valid again.
const publishing = `
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
return -1`

// add removes obsolete entries and appends one to the stream.
func (r *Redis) add(ctx context.Context, sealed []byte, now time.Time, room int64) error {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Timeout)
	defer cancel()
	// The age of an entry is that of its ID, by the clock of Redis.
	oldest := now.Add(-r.cfg.Keep - maxLeeway - clockSkew).UnixMilli()
	var added *redis.Cmd
	err := r.write(ctx, r.stream, func(c redis.Cmdable) redis.Cmder {
		added = c.Eval(ctx, publishing, []string{r.stream}, oldest, room, sealed)
		return added
	})
	if err != nil && !errors.As(err, new(unconfirmed)) {
		return err
	}
	switch kept, bad := added.Int64(); {
	case bad != nil:
		return bad
	case kept >= 0:
		return fmt.Errorf("redis keeps %d already, and has room for %d beside one of this kind", kept, room)
	}
	return err
}

// Watch calls apply with all revocations in Redis that still matter, and then calls report with nil: it has caught up. From then
// on it calls apply with new revocations. It needs one connection to Redis. If apply returns an error, Watch logs it and
// continues with the next revocations. Watch returns only when ctx is done, with the error of ctx.
//
// While Redis does not respond, or has fewer replicas than [Config.MinReplicas], Watch reports an error. Afterwards it continues
// after the last entry that it read. If Redis was replaced by another instance, Watch starts again with the first entry, so it can
// call apply more than once with the same revocation.
//
// Watch reports an error that wraps [valetkey.ErrRevocationsMissing] if it has caught up with the entries in Redis but knows that
// others are lost or cannot be opened. It does so for as long as those may matter: Config.Keep plus 5 minutes. Redis may have
// been emptied, restarted from an older copy, failed over to a lagging replica, or trimmed. If there are entries and none of them
// can be opened, as with a wrong key, Watch has not caught up. The package comment lists the losses that cannot be detected.
func (r *Redis) Watch(ctx context.Context, apply func(...valetkey.Revocation) error, report func(error)) error {
	var (
		at       = reading{keep: r.cfg.Keep + maxLeeway}
		wait     = firstRetry
		reported bool  // report has been called
		said     error // the last error that was reported
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
			if found.unconfirmed != nil { // what it has read may be old, so it has not caught up
				err = found.unconfirmed
			}
			say(err)
		}
	}
}

// await calls read and returns early when ctx is done: a client that waits on a socket observes the deadline of a context but not
// its cancellation. The read then ends within readTimeout.
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

// read returns the entries after last. If there are none, it returns an empty batch; with forMore, it first waits for a while.
func (r *Redis) read(ctx context.Context, last position, forMore bool) (found batch, err error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	if r.cfg.MinReplicas == 0 {
		found, err = r.readFrom(ctx, r.cfg.Client, last, forMore, 0)
	} else {
		err = r.onPrimary(ctx, r.stream, func(primary *redis.Client) (err error) {
			// One connection, so that the server that confirms is the one that is read. WithTimeout, though it changes nothing,
			// gives it a copy of the options: Conn shares them with the client, and go-redis 9.23 writes to them, each under a
			// separate lock, when a server does not know maintenance notifications.
			server := primary.WithTimeout(primary.Options().ReadTimeout).Conn()
			defer server.Close()
			found, err = r.readFrom(ctx, server, last, forMore, min(proveWithin, limit(ctx, primary)))
			return err
		})
	}
	if err != nil {
		return batch{}, fmt.Errorf("reading revocations: %w", err)
	}
	return found, nil
}

// readFrom reads from server, which with MinReplicas must prove itself within a time.
func (r *Redis) readFrom(ctx context.Context, server commander, last position, forMore bool, within time.Duration) (found batch, err error) {
	// Query this first: everything that was published before must then be among the entries.
	info, err := server.XInfoStream(ctx, r.stream).Result()
	if err != nil && !strings.Contains(err.Error(), "no such key") {
		return batch{}, err
	}
	if err == nil {
		found.length = info.Length
		found.newest, _ = parsePosition(info.LastGeneratedID)
	}
	if r.cfg.MinReplicas > 0 {
		if found.unconfirmed, err = r.prove(ctx, server, within); err != nil {
			return batch{}, err
		}
	}
	args := &redis.XReadArgs{Streams: []string{r.stream}, ID: last.String(), Count: readCount, Block: block}
	if !forMore {
		args.Block = -1 // go-redis: do not wait
	}
	streams, err := server.XRead(ctx, args).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return batch{}, err
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
			var unknown error
			if revoked, unknown, err = r.understand(text, at.until(entryPosition(entry), time.Now())); unknown != nil {
				at.didNotUnderstand(entry, time.Now())
				if r.follow.odd.now() {
					r.cfg.Logger.Error(r.follow.name+": all older tokens of an issuer are rejected instead of those that one record selects",
						"issuer", revoked.Issuer, "error", unknown)
				}
			}
		}
		if err != nil {
			at.couldNotOpen(entry, time.Now())
			if r.follow.odd.now() {
				r.cfg.Logger.Warn(r.follow.name+": one is skipped", "error", err)
			}
			continue
		}
		at.opened = true
		if time.Now().Before(revoked.Until.Add(maxLeeway)) { // otherwise none of its tokens can be accepted
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
