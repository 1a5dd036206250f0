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

	"github.com/valetkey/valetkey/authserver/internal/endings"
	"github.com/valetkey/valetkey/authserver/store"
)

// kindEvent is the kind of the outbox. Its IDs are in the order of time.
//
// Who fills it: users, clients and operators who end access, with one record each. Run empties it into the queues, which are bounded
// by themselves. When it is full, because no process runs or the store fails, access cannot be ended: an end that is not reported
// to receivers would be worse, because users would rely on it.
const kindEvent = "ssf_event"

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
	id := timeID(time.Now()) + "-" + rand.Text()
	version, err := t.putEvent(ctx, id, 0, o)
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
	if _, err := t.putEvent(ctx, id, version, o); err != nil {
		t.failed(ctx, "an event is announced late: the store failed", err, "after", t.cfg.Settle)
		return nil // it is recorded
	}
	wake(t.released)
	return nil
}

func (t *Transmitter) putEvent(ctx context.Context, id string, version int64, o outboxed) (int64, error) {
	value, err := json.Marshal(o)
	if err != nil {
		return 0, err
	}
	return t.cfg.Store.Put(ctx, store.Record{
		Kind: kindEvent, ID: id, Version: version, Value: value, Expires: time.Now().Add(2 * retention),
	})
}

// timeID returns a time in a form whose order as text is that of time. timeOf is its inverse.
func timeID(at time.Time) string { return fmt.Sprintf("%016x", at.UnixNano()) }

func timeOf(id string) time.Time {
	text, _, _ := strings.Cut(id, "-")
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
			if err := t.spread(ctx, rec); err != nil {
				return err
			}
		}
		if len(found) < page {
			return nil
		}
	}
}

// spread turns one event into tokens. If it is interrupted, it is repeated, and makes the same tokens with the same jti.
func (t *Transmitter) spread(ctx context.Context, rec store.Record) error {
	var o outboxed
	if err := json.Unmarshal(rec.Value, &o); err != nil {
		return fmt.Errorf("read event %s: %w", rec.ID, err)
	}
	switch {
	case o.At.IsZero() && time.Since(timeOf(rec.ID)) < t.cfg.Settle:
		return nil // in progress
	case o.At.IsZero(): // its process has died, or has failed to record the outcome
		o.At = time.Now().UTC()
		if _, err := t.putEvent(ctx, rec.ID, rec.Version, o); err != nil && !errors.Is(err, store.ErrConflict) {
			return err
		}
		return nil // the next round spreads what is stored
	}
	streams, err := t.streams(ctx)
	if err != nil {
		return err
	}
	payloads := t.payloads(o.Ending, o.At)
	for _, s := range streams {
		if s.Status == disabled {
			continue // SSF 1.0, section 8.1.2.1: holds no events
		}
		wanted, err := t.wants(ctx, s, o.Ending)
		if err != nil {
			return err
		}
		types := s.delivered()
		for n, p := range payloads {
			if !wanted || !contains(types, p.kind) {
				continue
			}
			jti := timeID(o.At) + "-" + strconv.Itoa(n) + short(s.ID, rec.ID)
			claims, err := t.claims(s, jti, short(rec.ID), o.At, p)
			if err != nil {
				return err
			}
			if err := t.enqueue(ctx, s, item{ID: jti, Claims: claims, Subject: lane(o.Ending)}); err != nil {
				return err
			}
		}
	}
	if err := t.enqueueLogouts(ctx, rec.ID, o); err != nil {
		return err
	}
	return t.cfg.Store.Delete(ctx, kindEvent, rec.ID)
}

// lane returns what events are ordered by.
func lane(e endings.Ending) string {
	if e.Subject != "" {
		return e.Subject
	}
	return "jti:" + e.Token
}
