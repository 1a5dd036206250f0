package transmitter

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/authserver/internal/endings"
	"github.com/valetkey/valetkey/authserver/store"
)

// kindEvent is the kind of the outbox. Its IDs are in the order of time.
//
// Who fills it: users, clients and operators who end access, with one record each. Run empties it into the queues, which are bounded
// by themselves. When it is full, because no process runs or the store fails, access cannot be ended: an end that is not reported
// to receivers would be worse, because users would rely on it.
//
// A client can get tokens and revoke them all the time, and so can a user log in and out. Their events beyond a budget (see bulk) come
// after those of all others, here and in the queues. If such an event of a client has waited here for longer than bulkWait, its
// revocations are refused until it is gone (RFC 7009, section 2.2.1: the token remains valid, and the client tries again). That hurts the
// client that causes it only.
const (
	kindEvent = "ssf_event"
	keyBulk   = "bulk" // the budget that an event exceeds

	bulkPrefix = "~" // begins the IDs of such events and tokens, so that they are last: after the digits
	bulkWait   = 10 * time.Second
	bulkPage   = 20 // such events that are spread before new ones of others are looked for
)

// The budget of each client for its own tokens, of each user at each application, and of each user for ends of everything: what
// exceeds bulkBurst at once, and one more each bulkEvery, is bulk.
const (
	bulkBurst = 100
	bulkEvery = 100 * time.Millisecond
)

// budget returns what an event counts for, and whether it can be caused without end by one party alone: the end of a token, of a session
// or of everything.
func budget(e endings.Ending) string {
	switch {
	case e.Cause.OfUser():
		return short("user", e.Subject)
	case e.Session != "":
		return short("session", e.Client, e.Subject)
	default:
		return short("token", e.Client)
	}
}

func isBulk(id string) bool { return strings.HasPrefix(id, bulkPrefix) }

// An outboxed is the record of an event: first the intent and, once its cause has happened, the fact. A process that dies in between
// leaves an intent, which is announced after Config.Settle as if the cause had happened. If it has not, the tokens issued until then
// are refused without need, and the client gets new ones with its refresh token. The other way round, a lost event would let ended
// access go on.
type outboxed struct {
	Ending  endings.Ending `json:"ending"`
	Logouts []logout       `json:"logouts,omitempty"` // by back-channel logout
	At      time.Time      `json:"at,omitzero"`       // after the cause; zero: an intent
}

// A logout is a logout token to be sent to a client.
type logout struct {
	Client  string `json:"client"`
	Session string `json:"session,omitempty"` // empty: all sessions of the user at the client
}

// Record is an [endings.Recorder].
func (t *Transmitter) Record(ctx context.Context, e endings.Ending, do func(context.Context) (bool, error)) error {
	o := outboxed{Ending: e}
	var err error
	if o.Logouts, err = t.logoutsFor(ctx, e); err != nil {
		return fmt.Errorf("record the end of access: %w", err)
	}
	id, of := timeID(time.Now())+"-"+rand.Text(), ""
	if t.budgets.Allow(budget(e)) != nil {
		id, of = bulkPrefix+id, budget(e)
		if err := t.bulkWaits(ctx, e, of); err != nil {
			return err
		}
	}
	version, err := t.putEvent(ctx, id, 0, of, o)
	if err != nil {
		return fmt.Errorf("record the end of access: %w", err)
	}
	happened, result := do(ctx)
	if undone, ok := errors.AsType[endings.Undone](result); ok {
		happened, result = false, undone.Err
	} else if result != nil { // it may have happened
		return result
	}
	// From here on, the caller may be gone.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if !happened {
		if err := t.cfg.Store.Delete(ctx, kindEvent, id); err != nil {
			t.failed(ctx, "an event that did not happen is announced: the store failed", err)
		}
		return result
	}
	o.At = time.Now().UTC()
	if _, err := t.putEvent(ctx, id, version, of, o); err != nil {
		t.failed(ctx, "an event is announced late: the store failed", err, "after", t.cfg.Settle)
		return nil // it is recorded
	}
	wake(t.released)
	return nil
}

// putEvent stores an event. of is the budget that it exceeds, or empty.
func (t *Transmitter) putEvent(ctx context.Context, id string, version int64, of string, o outboxed) (int64, error) {
	value, err := json.Marshal(o)
	if err != nil {
		return 0, err
	}
	rec := store.Record{Kind: kindEvent, ID: id, Version: version, Value: value, Expires: time.Now().Add(2 * retention)}
	if of != "" {
		rec.Keys = []store.Key{{Name: keyBulk, Value: of}}
	}
	return t.cfg.Store.Put(ctx, rec)
}

// bulkWaits returns an error if a client revokes tokens faster than the events can be passed on.
func (t *Transmitter) bulkWaits(ctx context.Context, e endings.Ending, of string) error {
	if e.Cause != endings.TokenRevoked {
		return nil
	}
	oldest, err := t.cfg.Store.Find(ctx, kindEvent, store.Key{Name: keyBulk, Value: of}, "", 1)
	if err != nil {
		return fmt.Errorf("record the end of access: %w", err)
	}
	if len(oldest) > 0 && time.Since(timeOf(oldest[0].ID)) > bulkWait {
		return &valetkey.Unavailable{RetryAfter: bulkWait / 2, Err: errors.New("too many revocations of the client wait to be announced")}
	}
	return nil
}

// timeID returns a time in a form whose order as text is that of time. timeOf is its inverse, also for IDs with a prefix.
func timeID(at time.Time) string { return fmt.Sprintf("%016x", at.UnixNano()) }

func timeOf(id string) time.Time {
	text, _, _ := strings.Cut(strings.TrimLeft(id, controlPrefix+bulkPrefix), "-")
	nanos, err := strconv.ParseInt(text, 16, 64)
	if err != nil {
		return time.Time{}
	}
	return time.Unix(0, nanos)
}

// short returns a digest of texts as 26 letters and digits.
func short(texts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(texts, "\x00")))
	return base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:16])
}

const (
	scanEvery   = 250 * time.Millisecond // for events of other processes, such as an operator's command
	othersAfter = 200 * time.Millisecond // when another process does the work of the one that released an event
)

// spreadAll turns events into tokens in the queues: those that this process releases, immediately, and those that others have left.
func (t *Transmitter) spreadAll(ctx context.Context) {
	tick := time.NewTicker(scanEvery)
	defer tick.Stop()
	for {
		own := false
		select {
		case <-ctx.Done():
			return
		case <-t.released:
			own = true
		case <-tick.C:
		}
		if err := t.spreadLeft(ctx, own); err != nil {
			t.failed(ctx, "events wait: the store failed", err)
			wait(ctx, scanEvery, nil)
		}
	}
}

// spreadLeft spreads all released events in order. An event of a user that follows another one has a later ID, and is released later.
// So if this process has an event to spread, it first spreads those that other processes have just released, which they may do at the
// same time. Otherwise it leaves them to those processes.
func (t *Transmitter) spreadLeft(ctx context.Context, all bool) error {
	const page = 100
	bulk := 0
	for after := ""; ; {
		found, err := t.cfg.Store.Find(ctx, kindEvent, store.Key{}, after, page)
		if err != nil {
			return err
		}
		for _, rec := range found {
			after = rec.ID
			if !all && time.Since(timeOf(rec.ID)) < othersAfter {
				continue
			}
			done, err := t.spread(ctx, rec)
			if err != nil {
				return err
			}
			if done && isBulk(rec.ID) {
				if bulk++; bulk == bulkPage {
					wake(t.released) // to go on
					return nil
				}
			}
		}
		if len(found) < page {
			return nil
		}
	}
}

// spread turns one event into tokens, if its cause has happened. If it is interrupted, it is repeated, and makes the same tokens with the same jti.
func (t *Transmitter) spread(ctx context.Context, rec store.Record) (done bool, err error) {
	var o outboxed
	if err := json.Unmarshal(rec.Value, &o); err != nil {
		return false, fmt.Errorf("read event %s: %w", rec.ID, err)
	}
	switch {
	case o.At.IsZero() && time.Since(timeOf(rec.ID)) < t.cfg.Settle:
		return false, nil // in progress
	case o.At.IsZero(): // its process has died, or has failed to record the outcome
		o.At = time.Now().UTC()
		rec.Value, err = json.Marshal(o)
		if err != nil {
			return false, err
		}
		rec.Expires = time.Now().Add(2 * retention)
		if _, err := t.cfg.Store.Put(ctx, rec); err != nil && !errors.Is(err, store.ErrConflict) {
			return false, err
		}
		return false, nil // the next round spreads what is stored
	}
	streams, err := t.streams(ctx)
	if err != nil {
		return false, err
	}
	payloads := t.payloads(o.Ending, o.At)
	for _, s := range streams {
		if s.Status == disabled {
			continue // SSF 1.0, section 8.1.2.1: holds no events
		}
		wanted, err := t.wants(ctx, s, o.Ending)
		if err != nil {
			return false, err
		}
		types := s.delivered()
		for n, p := range payloads {
			if !wanted || !contains(types, p.kind) {
				continue
			}
			jti := timeID(o.At) + "-" + strconv.Itoa(n) + short(s.ID, rec.ID)
			if isBulk(rec.ID) {
				jti = bulkPrefix + jti
			}
			claims, err := t.claims(s, jti, short(rec.ID), o.At, p)
			if err != nil {
				return false, err
			}
			if err := t.enqueue(ctx, s, item{ID: jti, Claims: claims, Subject: lane(o.Ending)}); err != nil {
				return false, err
			}
		}
	}
	if err := t.enqueueLogouts(ctx, rec.ID, o); err != nil {
		return false, err
	}
	return true, t.cfg.Store.Delete(ctx, kindEvent, rec.ID)
}

// lane returns what events are ordered by: their subject. A single token has no other event.
func lane(e endings.Ending) string {
	if e.Cause.OfUser() || e.Session != "" {
		return e.Subject
	}
	return "jti:" + e.Token
}
