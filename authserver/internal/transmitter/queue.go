package transmitter

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/valetkey/valetkey/authserver/store"
)

// Each stream has its own queue, as a kind of records, so that a receiver that does not fetch its events takes no room from
// others in a store of limited size.
//
// Who fills it: users, clients and operators who end access, with one or two tokens each; the receiver with verification requests,
// which are limited. When it is full, the stream is paused and its receiver notified; later events become dead letters.
// That hurts this receiver only. Tokens beyond the budget of a client or user (bulk) are delivered after all others. They may fill half of
// the queue, and then become dead letters themselves, so they take no room from others, and the stream is not paused because of them.
const queuePrefix = "set_"

func queueOf(streamID string) string { return queuePrefix + streamID }

// kindDead is the kind of dead letters: tokens that were given up. The newest maxDead of each stream are kept for deadFor, for the
// operator.
const (
	kindDead    = "ssf_dead"
	maxDead     = 1000
	maxDeadBulk = 100 // of them for bulk, which takes no room from others here either
	deadFor     = 7 * 24 * time.Hour
)

// controlPrefix begins the IDs of tokens about the stream itself, so that they are delivered first, and while the stream is paused.
const controlPrefix = "." // before the digits

// An item is a token in a queue. It is signed when it is delivered, because the key may change while it waits.
type item struct {
	ID      string          `json:"-"` // the jti; its order is that of the events
	Claims  json.RawMessage `json:"claims"`
	Subject string          `json:"subject"` // its events are delivered in order
}

func (i item) control() bool { return strings.HasPrefix(i.ID, controlPrefix) }
func (i item) bulk() bool    { return isBulk(i.ID) }

func contains(list []string, s string) bool { return slices.Contains(list, s) }

// A count is the number of tokens in a queue, as far as this process knows: it does not see what other processes add and remove. It is
// taken again before a queue counts as full, and after every recount additions, so that a queue exceeds its limit by at most that per
// process.
type count struct {
	n     int
	added int // since it was taken
	at    time.Time
}

const (
	recount = 10_000
	fullFor = time.Second // for which a queue that was full counts as full: a count reads all of it
)

// room reports whether the queue of a stream has room for another token, if it may have limit tokens.
func (t *Transmitter) room(ctx context.Context, id string, limit int) (bool, error) {
	t.mu.Lock()
	c := t.counts[id]
	fresh, room := false, false
	if c != nil {
		room = c.n < limit
		fresh = room && c.added < recount || !room && time.Since(c.at) < fullFor
	}
	t.mu.Unlock()
	if fresh {
		return room, nil
	}
	n, err := t.length(ctx, id, t.cfg.MaxWaiting)
	if err != nil {
		return false, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.counts[id] = &count{n: n, at: time.Now()}
	return n < limit, nil
}

// length counts the tokens in a queue, up to a limit.
func (t *Transmitter) length(ctx context.Context, id string, limit int) (n int, err error) {
	const page = 1000
	for after := ""; n < limit; {
		found, err := t.cfg.Store.Find(ctx, queueOf(id), store.Key{}, after, page)
		if err != nil {
			return 0, fmt.Errorf("count the queue of a stream: %w", err)
		}
		if n += len(found); len(found) < page {
			break
		}
		after = found[len(found)-1].ID
	}
	return n, nil
}

func (t *Transmitter) counted(id string, change int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c := t.counts[id]; c != nil {
		c.n = max(c.n+change, 0)
		c.added += max(change, 0)
	}
}

// enqueue adds a token to the queue of a stream, unless it is there.
func (t *Transmitter) enqueue(ctx context.Context, s *stream, i item) error {
	if !i.control() {
		limit := t.cfg.MaxWaiting
		if i.bulk() {
			limit /= 2
		}
		switch room, err := t.room(ctx, s.ID, limit); {
		case err != nil:
			return err
		case !room:
			return t.overflow(ctx, s, i)
		}
	}
	value, err := json.Marshal(i)
	if err != nil {
		return err
	}
	rec := store.Record{Kind: queueOf(s.ID), ID: i.ID, Value: value, Expires: time.Now().Add(2 * retention)}
	_, err = t.cfg.Store.Put(ctx, rec)
	if errors.Is(err, store.ErrFull) && i.control() { // the receiver has to know: the oldest token makes room
		if oldest, err := t.queued(ctx, s.ID, "", 1); err == nil && len(oldest) > 0 {
			if err := t.giveUp(ctx, s, oldest[0], "the queue is full"); err != nil {
				return err
			}
		}
		_, err = t.cfg.Store.Put(ctx, rec)
	}
	switch {
	case errors.Is(err, store.ErrConflict):
		return nil // an interrupted attempt has added it
	case errors.Is(err, store.ErrFull) && !i.control():
		return t.overflow(ctx, s, i)
	case err != nil:
		return fmt.Errorf("add to the queue of a stream: %w", err)
	}
	t.counted(s.ID, 1)
	t.announce(s)
	return nil
}

// overflow handles a token for which there is no room.
func (t *Transmitter) overflow(ctx context.Context, s *stream, i item) error {
	if s.Status == enabled && !i.bulk() {
		if err := t.setStatus(ctx, s.ID, paused, "the queue is full"); err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		s.Status = paused
	}
	return t.bury(ctx, s.ID, s.Client, i, "the queue is full")
}

// queued returns tokens of a queue in order.
func (t *Transmitter) queued(ctx context.Context, id, after string, limit int) ([]item, error) {
	found, err := t.cfg.Store.Find(ctx, queueOf(id), store.Key{}, after, limit)
	if err != nil {
		return nil, fmt.Errorf("read the queue of a stream: %w", err)
	}
	items := make([]item, len(found))
	for n, rec := range found {
		if err := json.Unmarshal(rec.Value, &items[n]); err != nil {
			return nil, fmt.Errorf("read the queue of a stream: %w", err)
		}
		items[n].ID = rec.ID
	}
	return items, nil
}

// dequeue removes a delivered token.
func (t *Transmitter) dequeue(ctx context.Context, id, jti string) error {
	if err := t.cfg.Store.Delete(ctx, queueOf(id), jti); err != nil {
		return fmt.Errorf("remove from the queue of a stream: %w", err)
	}
	t.counted(id, -1)
	return nil
}

// A DeadLetter is a token that was not delivered. ID is its jti.
type DeadLetter struct {
	Stream, Client, ID string
	Claims             json.RawMessage
	Reason             string
	At                 time.Time
}

// bury keeps a token among the dead letters.
func (t *Transmitter) bury(ctx context.Context, id, client string, i item, reason string) error {
	value, err := json.Marshal(DeadLetter{id, client, i.ID, i.Claims, reason, time.Now().UTC()})
	if err != nil {
		return err
	}
	hash := fnv.New32a()
	hash.Write([]byte(i.ID))
	slot := hash.Sum32() % (maxDead - maxDeadBulk)
	if i.bulk() {
		slot = maxDead - maxDeadBulk + hash.Sum32()%maxDeadBulk
	}
	rec := store.Record{
		Kind: kindDead, ID: fmt.Sprintf("%s/%03d", id, slot), Value: value, Expires: time.Now().Add(deadFor),
		Keys: []store.Key{{Name: "stream", Value: id}}, MayDrop: true, Owner: id,
	}
	old, err := t.cfg.Store.Get(ctx, rec.Kind, rec.ID)
	if err == nil {
		rec.Version = old.Version
	}
	if err == nil || errors.Is(err, store.ErrNotFound) {
		_, err = t.cfg.Store.Put(ctx, rec)
	}
	if err != nil && !errors.Is(err, store.ErrConflict) {
		return fmt.Errorf("keep a dead letter: %w", err)
	}
	t.cfg.Audit(ctx, "signal not delivered", slog.String("stream", id), slog.String("client", client), slog.String("jti", i.ID), slog.String("reason", reason))
	return nil
}

// giveUp moves a token from the queue to the dead letters.
func (t *Transmitter) giveUp(ctx context.Context, s *stream, i item, reason string) error {
	if err := t.bury(ctx, s.ID, s.Client, i, reason); err != nil {
		return err
	}
	return t.dequeue(ctx, s.ID, i.ID)
}

// DeadLetters returns those of a stream, or of the client with the ID "client:" and its own.
func (t *Transmitter) DeadLetters(ctx context.Context, id string) (all []DeadLetter, err error) {
	const page = 100
	for after := ""; ; {
		found, err := t.cfg.Store.Find(ctx, kindDead, store.Key{Name: "stream", Value: id}, after, page)
		if err != nil {
			return nil, fmt.Errorf("read the dead letters: %w", err)
		}
		for _, rec := range found {
			after = rec.ID
			var d DeadLetter
			if err := json.Unmarshal(rec.Value, &d); err != nil {
				return nil, fmt.Errorf("read the dead letters: %w", err)
			}
			all = append(all, d)
		}
		if len(found) < page {
			return all, nil
		}
	}
}

// retire gives up the tokens that are older than the retention, and empties the queues of disabled streams.
func (t *Transmitter) retire(ctx context.Context) {
	for wait(ctx, time.Minute, nil) {
		streams, err := t.streams(ctx)
		for _, s := range streams {
			if err == nil {
				err = t.retireOf(ctx, s)
			}
		}
		if err != nil {
			t.failed(ctx, "old events not given up: the store failed", err)
		}
	}
}

func (t *Transmitter) retireOf(ctx context.Context, s *stream) error {
	for _, after := range []string{"", bulkPrefix} { // each part is in the order of time
		if err := t.retireAfter(ctx, s, after); err != nil {
			return err
		}
	}
	return nil
}

func (t *Transmitter) retireAfter(ctx context.Context, s *stream, after string) error {
	const page = 100
	for {
		items, err := t.queued(ctx, s.ID, after, page)
		if err != nil {
			return err
		}
		for _, i := range items {
			after = i.ID // those about the stream remain, and there may be more of them than a page has
			switch {
			case s.Status == disabled && !i.control():
				err = t.dequeue(ctx, s.ID, i.ID)
			case time.Since(timeOf(i.ID)) > retention:
				err = t.giveUp(ctx, s, i, "not delivered in time")
			case i.control():
			default:
				return nil // the others are newer
			}
			if err != nil {
				return err
			}
		}
		if len(items) < page {
			return nil
		}
	}
}
