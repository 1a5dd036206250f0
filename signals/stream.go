package signals

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/valetkey/valetkey"
)

// The states of a stream at its transmitter (SSF 1.0, section 8.1.2.1).
const (
	streamEnabled  = "enabled"
	streamPaused   = "paused"
	streamDisabled = "disabled"
)

var (
	errNotRunning = errors.New("the stream is not set up yet: Receiver.Run has not begun")
	errBehind     = errors.New("events are waiting at the transmitter")
)

// unprovenAfter is the number of verification requests in a row without an event after which a stream counts as dead.
const unprovenAfter = 3

// A streamState is what is known about the stream.
type streamState struct {
	r      *Receiver
	secret []byte // key of the states of verification events

	mu          sync.Mutex // guards what follows; never held during I/O
	changed     chan struct{}
	managed     *streamConfig // nil: unknown or unmanaged
	setup       error         // why the stream is not set up; nil: it is
	reach       error         // why it cannot be reached; nil: it can
	behind      bool
	atTransmitr string    // the status that the transmitter reports; "": unknown
	stopped     time.Time // when the transmitter was first known to have paused or disabled it; zero: it has not
	verifiable  bool
	requested   bool // a verification has been requested and not been answered
	unanswered  int  // in a row
	unsaved     bool // lastProof is newer than the stored one
	requestedAt time.Time
	begun       time.Time
	lastContact time.Time
	lastProof   time.Time
	gap         Gap
	gapUntil    time.Time // until then the gap matters
	gapPending  bool      // the policy for the gap has not been carried out
	caughtUp    bool      // at least once
	health0     valetkey.Health
}

func newStreamState(r *Receiver) *streamState {
	s := &streamState{r: r, changed: make(chan struct{}), setup: errNotRunning, begun: r.cfg.Now(), behind: r.cfg.Delivery == Poll}
	// Replicas with the same configuration recognize each other's verification events, and a process those of the one before it. The key
	// need not be secret: the transmitter, which signs the events, knows the states anyway.
	mac := hmac.New(sha256.New, []byte(r.cfg.AuthorizationHeader))
	fmt.Fprintf(mac, "state of verification events: %q", []string{r.cfg.Transmitter, r.cfg.Issuer, r.cfg.Endpoint, r.cfg.Stream.ID})
	s.secret = mac.Sum(nil)
	s.health0 = valetkey.Health{State: valetkey.Down, Since: s.begun}
	return s
}

// change runs f under the lock and wakes those who wait for a change.
func (s *streamState) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	s.healthLocked()
	close(s.changed)
	s.changed = make(chan struct{})
}

// state returns why revocations may be missing, or nil. changed is closed at the next change.
func (s *streamState) state() (changed <-chan struct{}, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed, s.errLocked()
}

func (s *streamState) errLocked() error {
	now := s.r.cfg.Now()
	var err error
	switch {
	case s.r.cfg.Delivery == NoStream:
		return nil
	case s.setup != nil:
		err = s.setup
	case s.reach != nil:
		err = s.reach
	case s.atTransmitr == streamPaused || s.atTransmitr == streamDisabled:
		err = fmt.Errorf("the transmitter has %s the stream", s.atTransmitr)
	case s.gapPending && s.r.cfg.Gaps == RevokeBeforeGaps:
		err = fmt.Errorf("events may have been lost (%s), and the older tokens are not revoked yet", s.gap.Reason)
	case s.behind:
		err = errBehind
	case s.r.cfg.RequireProof && (s.lastProof.IsZero() || s.unanswered >= unprovenAfter):
		err = s.unprovenLocked()
	}
	if err != nil {
		return fmt.Errorf("signals of %s: %w", s.r.cfg.Transmitter, err)
	}
	s.caughtUp = true
	if s.r.cfg.Gaps == ReportGaps && s.gapUntil.After(now) {
		return fmt.Errorf("%w: signals of %s: events may have been lost until %s: %s", valetkey.ErrRevocationsMissing, s.r.cfg.Transmitter,
			s.gap.To.UTC().Format(time.RFC3339), s.gap.Reason)
	}
	return nil
}

// unprovenLocked returns an error that states since when there is no proof that the stream delivers.
func (s *streamState) unprovenLocked() error {
	since, what := s.begun, "since the start"
	if !s.lastProof.IsZero() {
		since, what = s.lastProof, "since"
	}
	return fmt.Errorf("no verification event has proven that the stream delivers, %s %s", what, since.UTC().Format(time.RFC3339))
}

func (s *streamState) health() valetkey.Health {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.healthLocked()
}

// healthLocked updates and returns the health.
func (s *streamState) healthLocked() valetkey.Health {
	state, err := valetkey.Ready, s.errLocked()
	switch {
	case s.r.cfg.Delivery == NoStream:
	case err != nil && s.caughtUp:
		state = valetkey.Degraded
	case err != nil:
		state = valetkey.Down
	case s.unanswered >= unprovenAfter:
		state, err = valetkey.Degraded, s.unprovenLocked()
	case s.lastProof.IsZero():
		err = s.unprovenLocked() // idle and unproven: no fault is known
	}
	if s.health0.State != state {
		s.health0.Since = s.r.cfg.Now()
	}
	s.health0.State, s.health0.Err, s.health0.Name = state, err, s.r.cfg.Transmitter
	return s.health0
}

func (s *streamState) status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.healthLocked()
	st := Status{State: h.State, Err: h.Err, Stream: s.atTransmitr, LastContact: s.lastContact, LastProof: s.lastProof, Gap: s.gap}
	if s.managed != nil {
		st.StreamID, st.Delivered, st.Missing = s.managed.id, slices.Clone(s.managed.delivered), slices.Clone(s.managed.missing)
	}
	return st
}

func (s *streamState) audience() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.managed == nil {
		return nil
	}
	return s.managed.audience
}

// known waits for at most limit until the stream and its audience are known, and reports whether they are.
func (s *streamState) known(ctx context.Context, limit time.Duration) bool {
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	for {
		s.mu.Lock()
		changed, known := s.changed, s.managed != nil || s.r.cfg.Stream.Unmanaged
		s.mu.Unlock()
		if known || limit <= 0 {
			return known
		}
		select {
		case <-changed:
		case <-deadline.C:
			return false
		case <-ctx.Done():
			return false
		case <-s.r.feed.ctx.Done():
			return false
		}
	}
}

func (s *streamState) id() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.managed == nil {
		return s.r.cfg.Stream.ID
	}
	return s.managed.id
}

// contact records that the stream has delivered a SET or answered a poll. If that is the first time after too long, events may have
// been lost. A push stream is silent without events, unless it is verified.
func (s *streamState) contact(now time.Time) {
	s.change(func() {
		last := s.lastContact
		s.lastContact = now
		if last.IsZero() || s.r.cfg.Delivery == Push && !s.verifiable {
			return
		}
		if limit := s.retentionLocked(); now.Sub(last) > limit {
			s.gapLocked(last, fmt.Sprintf("the stream was silent for %v, and the transmitter keeps events for %v", now.Sub(last).Round(time.Second), limit))
		}
	})
}

// retentionLocked returns how long the transmitter keeps events that it cannot deliver.
func (s *streamState) retentionLocked() time.Duration {
	limit := s.r.cfg.Retention
	if s.managed != nil && s.managed.inactivity > 0 {
		limit = min(limit, s.managed.inactivity)
	}
	if s.r.cfg.Delivery == Push { // and verified, see contact
		limit = max(limit, unprovenAfter*s.r.verifyInterval(s.managed)) // it is silent for this long without any fault
	}
	return limit
}

// gapLocked records a gap that begins at from, zero if that is unknown, and ends now.
func (s *streamState) gapLocked(from time.Time, reason string) {
	now := s.r.cfg.Now()
	s.gap = Gap{From: from, To: now, Reason: reason}
	s.gapUntil = now.Add(s.r.cfg.MaxTokenLifetime + maxLeeway)
	s.gapPending = true
	s.r.log.LogAttrs(s.r.feed.ctx, slog.LevelError, "signals: events may have been lost", slog.String("transmitter", s.r.cfg.Transmitter),
		slog.Time("from", from), slog.Time("to", now), slog.String("reason", reason), slog.String("policy", string(s.r.cfg.Gaps)))
}

// learn takes over what another replica, or an earlier process, has stored. A time in the future is that of a wrong clock.
func (s *streamState) learn(stored savedState) {
	limit := s.r.cfg.Now().Add(maxLeeway)
	s.change(func() {
		if stored.Contact.After(s.lastContact) && stored.Contact.Before(limit) {
			s.lastContact = stored.Contact
		}
		if !stored.Proof.After(s.lastProof) || !stored.Proof.Before(limit) {
			return
		}
		s.lastProof = stored.Proof
		if !s.requested || stored.Proof.After(s.requestedAt.Add(-s.r.cfg.Leeway)) {
			s.requested, s.unanswered = false, 0
		}
	})
}

func (s *streamState) proofUnsaved() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.unsaved
}

// settle carries out the policy for a gap.
func (s *streamState) settle(ctx context.Context) error {
	s.mu.Lock()
	pending, gap := s.gapPending, s.gap
	s.mu.Unlock()
	if !pending {
		return nil
	}
	if s.r.cfg.Gaps == RevokeBeforeGaps {
		// At, not Before: the session of a token issued just before the end of the gap may have ended just after its issue.
		all := valetkey.Revocation{Issuer: s.r.cfg.Issuer, All: true, At: gap.To, Until: gap.To.Add(s.r.cfg.MaxTokenLifetime)}
		if err := s.r.feed.deliver(ctx, []valetkey.Revocation{all})[0]; err != nil {
			return err
		}
	}
	s.change(func() { s.gapPending = s.gap != gap }) // a later gap is still to be settled
	return nil
}

// event processes an event of the stream itself.
func (s *streamState) event(ctx context.Context, event Event, p stateful) error {
	if event != eventStreamUpdated {
		// SSF 1.0, section 8.1.4.1. Of an unmanaged stream, an operator has requested it.
		if p.state != "" && !s.r.cfg.Stream.Unmanaged && !s.ours(p.state) {
			return refuse(invalidState, "the state is not one that this receiver has requested")
		}
		s.change(func() { s.lastProof, s.requested, s.unanswered, s.unsaved = s.r.cfg.Now(), false, 0, true })
		return nil
	}
	if p.about {
		s.r.log.LogAttrs(ctx, slog.LevelWarn, "signals: the transmitter has changed the status of one subject", slog.String("status", p.status))
		return nil
	}
	s.setStatus(ctx, p.status, p.reason)
	return nil
}

// setStatus records the status of the stream at the transmitter. While a stream is paused the transmitter may drop events, and while it
// is disabled it keeps none (SSF 1.0, section 8.1.2.1).
func (s *streamState) setStatus(ctx context.Context, status, reason string) {
	s.change(func() {
		was := s.atTransmitr
		s.atTransmitr = status
		switch {
		case status == streamPaused || status == streamDisabled:
			if s.stopped.IsZero() {
				s.stopped = s.lastContact
				if s.stopped.IsZero() {
					s.stopped = s.r.cfg.Now()
				}
			}
		case status == streamEnabled && !s.stopped.IsZero():
			s.gapLocked(s.stopped, "the transmitter had "+was+" the stream")
			s.stopped = time.Time{}
		}
		if was != status && (status != streamEnabled || was != "") {
			s.r.log.LogAttrs(ctx, slog.LevelWarn, "signals: the transmitter has changed the status of the stream",
				slog.String("transmitter", s.r.cfg.Transmitter), slog.String("status", status), slog.String("reason", reason))
		}
	})
}

// maxStateAge is the age up to which the state of a verification event is accepted: it may have waited for as long as this receiver was
// down.
const maxStateAge = 24 * time.Hour

// newState returns the state of a new verification request. It proves itself, so it need not be stored, and each replica recognizes it.
func (s *streamState) newState() string {
	state := make([]byte, 16, 16+sha256.Size)
	binary.BigEndian.PutUint64(state, uint64(s.r.cfg.Now().Unix()))
	rand.Read(state[8:])
	return base64.RawURLEncoding.EncodeToString(append(state, s.mac(state)...))
}

func (s *streamState) mac(state []byte) []byte {
	mac := hmac.New(sha256.New, s.secret)
	mac.Write(state)
	return mac.Sum(nil)
}

// ours reports whether a state is from newState.
func (s *streamState) ours(text string) bool {
	state, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(state) != 16+sha256.Size || !hmac.Equal(state[16:], s.mac(state[:16])) {
		return false
	}
	age := s.r.cfg.Now().Sub(time.Unix(int64(binary.BigEndian.Uint64(state)), 0))
	return age < maxStateAge && age > -maxStateAge
}
