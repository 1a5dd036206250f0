package signals

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"strconv"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/jose"
)

const (
	// maxPushes is the number of SETs that are processed at the same time. Anyone who can reach the endpoint can use them up, unless
	// Config.AuthorizationHeader is set. Further ones get 503 and are sent again.
	maxPushes = 256

	// maxAwaiting is the number of SETs that wait for the audience of the stream at the same time. They are not verified yet, so anyone can
	// use it up too. Further ones get 503 and are sent again, while those for a known audience, which do not wait, find room.
	maxAwaiting = 16

	setupTimeout = 5 * time.Second  // for which a SET waits for the audience of the stream
	pushTimeout  = 20 * time.Second // of one SET, including a fetch of the keys
	retryAfter   = time.Second      // in answers 503: a revocation is late by as much after Redis is back
)

// Handler returns the handler to which the transmitter pushes SETs (RFC 8935). It answers 202 only when the revocations are in force in
// the guards of this process and, with Config.Publish, published; the same SET again gets the same answer. It answers 400 with a JSON
// object that gives the reason for a SET that is refused for good (section 2.3). It answers 503 for one that can succeed later: if the
// keys cannot be fetched, the publisher fails, or there is no room.
//
// With Config.AuthorizationHeader, a request without this value gets 401 before its body is read. With [NoStream] the answer is 404.
func (r *Receiver) Handler() http.Handler {
	slots := make(chan struct{}, maxPushes)
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if r.keys == nil {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		if !onlyPost(w, req) {
			return
		}
		if r.cfg.AuthorizationHeader != "" && !sameText(req.Header.Get("Authorization"), r.cfg.AuthorizationHeader) {
			r.counts.add("unauthenticated")
			answerError(w, http.StatusUnauthorized, notAuthentic, "the Authorization header is missing or wrong")
			return
		}
		if kind, _, err := mime.ParseMediaType(req.Header.Get("Content-Type")); err != nil || kind != "application/secevent+jwt" { // RFC 8935, section 2
			answerError(w, http.StatusBadRequest, invalidRequest, "the Content-Type is not application/secevent+jwt")
			return
		}
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
		default:
			answerLater(w, retryAfter)
			return
		}
		limitRead(w)
		body, err := io.ReadAll(io.LimitReader(req.Body, jose.MaxToken+1))
		if err != nil {
			answerError(w, http.StatusBadRequest, invalidRequest, "the body could not be read")
			return
		}
		ctx, cancel := context.WithTimeout(req.Context(), pushTimeout)
		defer cancel()
		switch err := r.receive(ctx, string(body)); {
		case err == nil:
			w.WriteHeader(http.StatusAccepted) // RFC 8935, section 2.2: no body
		default:
			r.answer(w, err)
		}
	})
}

// limitRead bounds the time in which the body must arrive, so that slow senders do not keep their places. A server that cannot do so has
// its own limits.
func limitRead(w http.ResponseWriter) {
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(pushTimeout))
}

// receive processes one SET.
func (r *Receiver) receive(ctx context.Context, raw string) error {
	read, err := r.read(ctx, raw, "")
	if err != nil {
		return err
	}
	if len(read.revocations) > 0 {
		if err := r.feed.deliver(ctx, read.revocations)[0]; err != nil {
			r.counts.add("failed")
			return err
		}
	}
	r.counts.add(string(read.outcome))
	return nil
}

// read verifies and interprets one SET. If jti is not empty, the SET must have it.
func (r *Receiver) read(ctx context.Context, raw, jti string) (reading, error) {
	s, err := r.trust().verify(ctx, raw)
	if refused := new(refusal); errors.As(err, &refused) && refused.code == invalidAudience && !r.stream.known(ctx, 0) {
		// The audience is that of the stream, which is being set up. A transmitter that has waited for this process to start may be faster,
		// and would not send the SET again after a refusal.
		if r.audienceKnown(ctx) {
			s, err = r.trust().verify(ctx, raw)
		} else {
			err = &valetkey.Unavailable{RetryAfter: retryAfter, Err: fmt.Errorf("the stream, and with it the audience, is not known yet: %w", refused.err)}
		}
	}
	if err == nil && jti != "" && s.jti != jti {
		err = refuse(invalidRequest, "its jti is not the name under which it was sent") // RFC 8936, section 2.3
	}
	if err != nil {
		return reading{}, r.refused(ctx, err)
	}
	r.stream.contact(r.cfg.Now())
	about, is, err := s.ofStream()
	switch {
	case err != nil:
		return reading{}, r.refused(ctx, &refusal{invalidRequest, err})
	case is:
		if err := r.stream.event(ctx, s.event, about); err != nil {
			return reading{}, r.refused(ctx, err)
		}
		return reading{outcome: ofStream}, nil
	}
	read, err := r.interpret(ctx, s)
	if err != nil {
		return reading{}, r.refused(ctx, err)
	}
	return read, nil
}

// audienceKnown waits until the audience of the stream is known, and reports whether it is.
func (r *Receiver) audienceKnown(ctx context.Context) bool {
	select {
	case r.awaiting <- struct{}{}:
		defer func() { <-r.awaiting }()
		return r.stream.known(ctx, setupTimeout)
	default:
		return r.stream.known(ctx, 0)
	}
}

// refused counts and logs a SET or logout token that is not accepted, at most one line per minute.
func (r *Receiver) refused(ctx context.Context, err error) error {
	var refused *refusal
	if !errors.As(err, &refused) {
		r.counts.add("failed")
		return err
	}
	r.counts.add(string(refused.code))
	if n := r.refusals.Permit(); n > 0 {
		r.log.LogAttrs(ctx, slog.LevelWarn, "signals: a token is refused", slog.Any("err", err), slog.Int("tokens", n))
	}
	return err
}

// answer writes the response for an error.
func (r *Receiver) answer(w http.ResponseWriter, err error) {
	var refused *refusal
	if errors.As(err, &refused) {
		answerError(w, http.StatusBadRequest, refused.code, refused.err.Error())
		return
	}
	wait := retryAfter
	var unavailable *valetkey.Unavailable
	if errors.As(err, &unavailable) {
		wait = max(wait, unavailable.RetryAfter)
	}
	if n := r.failures.Permit(); n > 0 {
		r.log.LogAttrs(context.Background(), slog.LevelError, "signals: events cannot be applied now", slog.Any("err", err), slog.Int("events", n))
	}
	answerLater(w, wait)
}

// answerError writes an error of RFC 8935, section 2.3.
func answerError(w http.ResponseWriter, status int, c code, description string) {
	body, _ := json.Marshal(map[string]string{"err": string(c), "description": description}) // of texts, which does not fail
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Language", "en")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

func answerLater(w http.ResponseWriter, wait time.Duration) {
	w.Header().Set("Retry-After", strconv.Itoa(int(wait.Round(time.Second)/time.Second)))
	w.WriteHeader(http.StatusServiceUnavailable)
}

func onlyPost(w http.ResponseWriter, req *http.Request) bool {
	if req.Method == http.MethodPost {
		return true
	}
	w.Header().Set("Allow", http.MethodPost)
	w.WriteHeader(http.StatusMethodNotAllowed)
	return false
}

// sameText compares secrets in constant time.
func sameText(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}
