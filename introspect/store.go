package introspect

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/clientauth"
	"github.com/valetkey/valetkey/internal/ratelog"
	"github.com/valetkey/valetkey/internal/strictjson"
)

// Store holds positive responses for all replicas of a server; see [Config.SharedCache]. A key identifies a token and the
// configuration of the verifier. It is a digest and does not reveal the token.
//
// Anyone who can write to a Store can make any token valid. A Store must therefore be closed to others, or authenticate each
// value together with its key, as package valetredis does.
//
// Both methods must be safe for concurrent use, return soon after ctx is done, and put neither key nor value into an error.
type Store interface {
	// Get returns the value of key, or nil and nil if there is none.
	Get(ctx context.Context, key string) (value []byte, err error)

	// Set stores value, of at most 64 KiB, under key for lifetime and replaces any earlier value. Set may retain value.
	Set(ctx context.Context, key string, value []byte, lifetime time.Duration) error
}

const (
	storeWait  = 100 * time.Millisecond // for one use of a Store
	storePause = time.Second            // without use of a Store after an error
	maxKept    = 64 << 10               // bytes of a value; larger ones are not shared
)

// shared is a Store whose failures affect no request.
type shared struct {
	store    Store
	identity [sha256.Size]byte // of the verifier's configuration: responses are valid for the same configuration only
	writing  chan struct{}     // one slot per write in progress; when full, the next response is not stored
	log      *slog.Logger

	complaint ratelog.Limit // about the store

	mu     sync.Mutex
	resume time.Time // when it may be used again
}

// newShared returns nil if nothing is shared.
func newShared(cfg Config) *shared {
	if cfg.SharedCache == nil || cfg.CacheTTL == 0 {
		return nil
	}
	var signed []string
	if cfg.Signed != nil {
		signed = []string{cfg.Signed.Algorithm, cfg.Signed.Audience}
	}
	identity, _ := json.Marshal([]any{ // strings and a bool: never fails
		"introspect 1", cfg.URL, cfg.Issuer, slices.Sorted(slices.Values(cfg.Audience)), cfg.AudienceByIssuer, clientauth.ID(cfg.Auth), signed,
	})
	return &shared{
		store:    cfg.SharedCache,
		identity: sha256.Sum256(identity),
		writing:  make(chan struct{}, cfg.MaxInFlight),
		log:      cfg.Logger,
	}
}

func (s *shared) key(raw string) string {
	h := sha256.New()
	h.Write(s.identity[:])
	io.WriteString(h, raw)
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}

// use runs call with a bounded time, unless the store failed recently.
func (s *shared) use(ctx context.Context, call func(ctx context.Context) error) {
	s.mu.Lock()
	paused := time.Now().Before(s.resume)
	s.mu.Unlock()
	if paused {
		return
	}
	bounded, cancel := context.WithTimeout(ctx, storeWait)
	defer cancel()
	err := call(bounded)
	if err == nil || ctx.Err() != nil { // the end of ctx is not a fault of the store
		return
	}
	s.mu.Lock()
	s.resume = time.Now().Add(storePause)
	s.mu.Unlock()
	if s.complaint.Permit() > 0 {
		s.log.Warn("introspection: answers are not shared for now", "error", err)
	}
}

// kept is the stored form of a response.
type kept struct {
	Key   string `json:"key"`   // that the value is stored under, so that values cannot be mixed up
	Asked int64  `json:"asked"` // when the request was sent, in Unix milliseconds
	Body  string `json:"body"`  // as received
}

func readKept(value []byte, key string) (*said, error) {
	if len(value) > maxKept {
		return nil, fmt.Errorf("a shared answer has more than %d bytes", maxKept)
	}
	var under, body string
	var asked float64
	err := strictjson.Object(value, func(name string, v strictjson.Value) error {
		switch name {
		case "key":
			under, _ = v.Text()
		case "asked":
			asked, _ = v.Number()
		case "body":
			body, _ = v.Text()
		}
		return nil
	})
	switch {
	case err != nil:
		return nil, fmt.Errorf("a shared answer: %w", err)
	case under != key:
		return nil, errors.New("a shared answer is kept under the key of another")
	}
	return &said{body: []byte(body), at: time.UnixMilli(int64(asked))}, nil
}

// recall returns the token of a shared response, checked as if this replica had received it at the original time. It returns
// nil if there is no usable one: then the endpoint is asked.
func (v *Verifier) recall(ctx context.Context, raw string) (t *valetkey.Token) {
	if v.shared == nil {
		return nil
	}
	key := v.shared.key(raw)
	v.shared.use(ctx, func(ctx context.Context) error {
		value, err := v.shared.store.Get(ctx, key)
		if err != nil || value == nil {
			return err
		}
		answer, err := readKept(value, key)
		if err != nil {
			return err
		}
		now := v.cfg.Now()
		if answer.at.After(now) || v.forgot(answer.at) || v.open(ctx, answer) != nil {
			return nil
		}
		if read, err := v.read(answer); err == nil && now.Before(read.Freshness().Until) {
			t = read
		}
		return nil
	})
	return t
}

// share stores a positive response for the other replicas.
func (v *Verifier) share(raw string, answer *said, t *valetkey.Token) {
	if v.shared == nil {
		return
	}
	lifetime := t.Freshness().Until.Sub(v.cfg.Now())
	if lifetime <= 0 {
		return
	}
	select {
	case v.shared.writing <- struct{}{}:
		defer func() { <-v.shared.writing }()
	default: // the store cannot keep up
		return
	}
	key := v.shared.key(raw)
	v.shared.use(v.ctx, func(ctx context.Context) error {
		value, _ := json.Marshal(kept{key, answer.at.UnixMilli(), string(answer.body)}) // strings and a number: never fails
		if len(value) > maxKept {
			return nil
		}
		return v.shared.store.Set(ctx, key, value, lifetime)
	})
}

// Purge discards all cached results: refusals, requests in flight, which no new caller joins, and shared responses, as far as
// clocks that differ by Config.Leeway permit. It implements [valetkey.Purger]; Guard.Purge calls it before it discards the
// guard's cache.
func (v *Verifier) Purge() {
	now := v.cfg.Now()
	v.mu.Lock()
	defer v.mu.Unlock()
	clear(v.asking)
	v.refused = refusals{}
	v.forgotten = now
}

// forgot reports whether the response to a request sent at asked may be older than the last Purge.
func (v *Verifier) forgot(asked time.Time) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return !asked.After(v.forgotten.Add(v.cfg.Leeway))
}
