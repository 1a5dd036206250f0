package transmitter

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/valetkey/valetkey/authserver/internal/endings"
	"github.com/valetkey/valetkey/authserver/store"
	"github.com/valetkey/valetkey/internal/fetch"
)

// The delivery methods: SSF 1.0, section 6.1.
const (
	push = "urn:ietf:rfc:8935"
	poll = "urn:ietf:rfc:8936"
)

// The statuses of a stream: SSF 1.0, section 8.1.2.
const (
	enabled  = "enabled"
	paused   = "paused"
	disabled = "disabled"
)

const (
	kindStream = "ssf_stream"
	keyClient  = "client"

	// A client with the scope ssf.manage can make maxOwned streams, each of which costs a record per event. maxStreams bounds those of
	// all clients; a client can take the last ones from the others, so operators give the scope to receivers that they trust.
	maxOwned   = 10
	maxStreams = 100

	minVerification = 30 * time.Second

	maxText          = 1000 // characters of a description or a reason, and of the state of a verification
	maxURL           = 2000
	maxAuthorization = 4096
	maxRequested     = 100
)

// A stream is the record of a stream.
type stream struct {
	ID            string    `json:"-"` // letters a to z: it is part of a kind
	Client        string    `json:"client"`
	Description   string    `json:"description,omitempty"`
	Requested     []string  `json:"requested"` // nil: all that are supported
	Method        string    `json:"method"`
	Endpoint      string    `json:"endpoint,omitempty"`      // for push
	Authorization []byte    `json:"authorization,omitempty"` // for push: the header, protected
	Status        string    `json:"status"`
	Reason        string    `json:"reason,omitempty"`
	Created       time.Time `json:"created"`
	Called        time.Time `json:"called,omitzero"` // for push: when its receiver has used the API while tokens waited

	version int64
}

func (s *stream) delivered() []string { return delivered(s.Requested) }

func readStream(rec store.Record) (*stream, error) {
	s := &stream{ID: rec.ID, version: rec.Version}
	if err := json.Unmarshal(rec.Value, s); err != nil {
		return nil, fmt.Errorf("read stream %s: %w", rec.ID, err)
	}
	return s, nil
}

func (t *Transmitter) stream(ctx context.Context, id string) (*stream, error) {
	rec, err := t.cfg.Store.Get(ctx, kindStream, id)
	if err != nil {
		return nil, err
	}
	return readStream(rec)
}

// streams returns all streams.
func (t *Transmitter) streams(ctx context.Context) ([]*stream, error) {
	return t.findStreams(ctx, store.Key{}, 2*maxStreams) // concurrent requests may exceed the limit
}

func (t *Transmitter) findStreams(ctx context.Context, key store.Key, limit int) ([]*stream, error) {
	found, err := t.cfg.Store.Find(ctx, kindStream, key, "", limit)
	if err != nil {
		return nil, fmt.Errorf("list streams: %w", err)
	}
	all := make([]*stream, len(found))
	for i, rec := range found {
		if all[i], err = readStream(rec); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// put stores a new stream, or replaces the version that was read.
func (t *Transmitter) put(ctx context.Context, s *stream) error {
	value, err := json.Marshal(s)
	if err != nil {
		return err
	}
	s.version, err = t.cfg.Store.Put(ctx, store.Record{
		Kind: kindStream, ID: s.ID, Version: s.version, Value: value, Keys: []store.Key{{Name: keyClient, Value: s.Client}},
	})
	return err
}

// newID returns the ID of a stream: 120 random bits in letters.
func newID() string {
	text := make([]byte, 26)
	for i, c := range []byte(rand.Text()) {
		if text[i] = c - 'A' + 'a'; c < 'A' { // 2 to 7: letters that other characters have, too
			text[i] = c - '2' + 'a'
		}
	}
	return string(text)
}

// change replaces a stream by a changed one, and tries again if another change was faster.
func (t *Transmitter) change(ctx context.Context, id string, do func(*stream) error) (s *stream, err error) {
	for range 5 {
		if s, err = t.stream(ctx, id); err != nil {
			return nil, err
		}
		if err = do(s); err != nil {
			return nil, err
		}
		if err = t.put(ctx, s); !errors.Is(err, store.ErrConflict) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("change a stream: %w", err)
	}
	return s, nil
}

// setStatus changes the status on behalf of the server or its operator. SSF 1.0, section 8.1.5: the receiver is notified first.
func (t *Transmitter) setStatus(ctx context.Context, id, status, reason string) error {
	s, err := t.stream(ctx, id)
	if err != nil {
		return err
	}
	if s.Status == status {
		return nil
	}
	event := object{"status": status}
	if reason != "" {
		event["reason"] = reason
	}
	if err := t.tell(ctx, s, payload{streamUpdated, aboutStream(s), event}, controlPrefix); err != nil {
		return err
	}
	if _, err := t.change(ctx, id, func(s *stream) error { s.Status, s.Reason = status, reason; return nil }); err != nil {
		return err
	}
	t.cfg.Audit(ctx, "signal stream "+status, slog.String("stream", id), slog.String("client", s.Client), slog.String("by", "the server"), slog.String("reason", reason))
	t.announce(s)
	return nil
}

// SetStatus changes the status of a stream on behalf of the operator.
func (t *Transmitter) SetStatus(ctx context.Context, id, status, reason string) error {
	if !slices.Contains([]string{enabled, paused, disabled}, status) {
		return fmt.Errorf("status %q, want enabled, paused or disabled", status)
	}
	return t.setStatus(ctx, id, status, reason)
}

// aboutStream returns the subject of events about a stream: SSF 1.0, sections 8.1.4.1 and 8.1.5.
func aboutStream(s *stream) object { return object{"format": "opaque", "id": s.ID} }

// aboutItself is the lane of tokens about the stream.
const aboutItself = "stream"

// tell adds a token about a stream to its queue.
func (t *Transmitter) tell(ctx context.Context, s *stream, p payload, prefix string) error {
	now := time.Now()
	jti := prefix + timeID(now) + "-" + rand.Text()
	claims, err := t.claims(s, jti, "", now, p)
	if err != nil {
		return err
	}
	return t.enqueue(ctx, s, item{ID: jti, Claims: claims, Subject: aboutItself})
}

// remove deletes a stream with everything that belongs to it. What remains after an interruption expires.
func (t *Transmitter) remove(ctx context.Context, s *stream) error {
	if err := t.cfg.Store.Delete(ctx, kindStream, s.ID); err != nil {
		return err
	}
	for _, of := range []struct {
		kind string
		key  store.Key
	}{{queueOf(s.ID), store.Key{}}, {kindSubject, store.Key{Name: keyStream, Value: s.ID}}, {kindDead, store.Key{Name: keyStream, Value: s.ID}}} {
		const page, most = 500, 20 // more would hold up the request
		for range most {
			found, err := t.cfg.Store.Find(ctx, of.kind, of.key, "", page)
			if err != nil {
				return err
			}
			for _, rec := range found {
				if err := t.cfg.Store.Delete(ctx, of.kind, rec.ID); err != nil {
					return err
				}
			}
			if len(found) < page {
				break
			}
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.counts, s.ID)
	return nil
}

// RemoveClient deletes the streams of a client.
func (t *Transmitter) RemoveClient(ctx context.Context, id string) error {
	own, err := t.findStreams(ctx, store.Key{Name: keyClient, Value: id}, 10*maxOwned)
	if err != nil {
		return err
	}
	for _, s := range own {
		if err := t.remove(ctx, s); err != nil {
			return fmt.Errorf("delete the stream of a client: %w", err)
		}
	}
	return nil
}

// kindSubject is the kind of subjects that a receiver has removed from a stream. Streams begin with all subjects.
//
// Who fills it: a receiver, at most 10 a second. When it is full, the receiver's own records are dropped, and it gets events that it
// did not ask for, which it has to tolerate (SSF 1.0, section 9.3).
const (
	kindSubject = "ssf_subject"
	keyStream   = "stream"
	subjectFor  = 365 * 24 * time.Hour
)

func subjectID(streamID, subject string) string { return streamID + "/" + short(subject) }

// wants reports whether a receiver has not removed the subject of an event.
func (t *Transmitter) wants(ctx context.Context, s *stream, e endings.Ending) (bool, error) {
	if e.Subject == "" {
		return true, nil
	}
	_, err := t.cfg.Store.Get(ctx, kindSubject, subjectID(s.ID, e.Subject))
	if errors.Is(err, store.ErrNotFound) {
		return true, nil
	}
	return false, err
}

func (t *Transmitter) removeSubject(ctx context.Context, s *stream, subject string) error {
	_, err := t.cfg.Store.Put(ctx, store.Record{
		Kind: kindSubject, ID: subjectID(s.ID, subject), Value: []byte{}, Expires: time.Now().Add(subjectFor),
		Keys: []store.Key{{Name: keyStream, Value: s.ID}}, MayDrop: true, Owner: s.ID,
	})
	if errors.Is(err, store.ErrConflict) {
		return nil // it is removed
	}
	return err
}

func (t *Transmitter) addSubject(ctx context.Context, s *stream, subject string) error {
	return t.cfg.Store.Delete(ctx, kindSubject, subjectID(s.ID, subject))
}

// checkEndpoint returns the mistake in the URL of a receiver. Whether its address is allowed is checked when it is dialed.
func (t *Transmitter) checkEndpoint(endpoint string) error {
	u, err := url.Parse(endpoint)
	switch {
	case err != nil || u.Host == "" || u.Opaque != "" || len(endpoint) > maxURL:
		return errors.New("is not an https URL")
	case u.User != nil || strings.Contains(endpoint, "#"):
		return errors.New("has a user or a fragment")
	case u.Scheme == "http" && t.cfg.InsecureLoopback && loopback(u.Hostname()):
		return nil
	case u.Scheme != "https":
		return errors.New("is not an https URL")
	}
	if a, err := netip.ParseAddr(u.Hostname()); (err == nil && !t.allowed(a)) || loopback(u.Hostname()) && !t.cfg.InsecureLoopback {
		return errors.New("is not at a public address")
	}
	return nil
}

// allowed reports whether receivers may be at an address.
func (t *Transmitter) allowed(a netip.Addr) bool {
	a = a.Unmap()
	return fetch.Public(a) || t.cfg.InsecureLoopback && a.IsLoopback() ||
		slices.ContainsFunc(t.cfg.Allow, func(p netip.Prefix) bool { return p.Contains(a) })
}

func loopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.IsLoopback()
}

func validHeader(s string) bool {
	return len(s) <= maxAuthorization && strings.TrimSpace(s) == s && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}

func validText(s string) bool { return utf8.RuneCountInString(s) <= maxText && utf8.ValidString(s) }

// retryAfter returns the Retry-After of a response, at most limit.
func retryAfter(h http.Header, limit time.Duration) time.Duration {
	n, err := strconv.Atoi(h.Get("Retry-After"))
	if err != nil || n < 0 {
		return 0
	}
	return min(time.Duration(min(n, 1<<20))*time.Second, limit)
}

// A Status describes a stream to the operator.
type Status struct {
	ID, Client, Method, Endpoint string
	Events                       []string
	Status, Reason               string
	Created                      time.Time
	Waiting, Dead                int
}

// Streams returns all streams.
func (t *Transmitter) Streams(ctx context.Context) ([]Status, error) {
	streams, err := t.streams(ctx)
	if err != nil {
		return nil, err
	}
	all := make([]Status, len(streams))
	for i, s := range streams {
		waiting, err := t.length(ctx, s.ID, t.cfg.MaxWaiting)
		if err != nil {
			return nil, err
		}
		dead, err := t.DeadLetters(ctx, s.ID)
		if err != nil {
			return nil, err
		}
		all[i] = Status{s.ID, s.Client, s.Method, s.Endpoint, s.delivered(), s.Status, s.Reason, s.Created, waiting, len(dead)}
	}
	return all, nil
}
