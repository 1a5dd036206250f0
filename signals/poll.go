package signals

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/jose"
	"github.com/valetkey/valetkey/internal/strictjson"
)

const (
	longPoll = 60 * time.Second // after which a poll that is not answered is sent again

	// batchTimeout bounds the work on one answer before its revocations are applied. The caller's resolver could take longer for each of
	// hundreds of subjects. SETs that are not read by then come again.
	batchTimeout = 60 * time.Second

	// The body of an answer is bounded by the number of events that it may have. The transmitter fills it; a longer one is an error. So is
	// one with more than 1,000 events, which is the limit of strictjson.
	maxPollBody = 8 << 20 // bytes
)

// A pollRequest is the request of RFC 8936, section 2.2.
type pollRequest struct {
	MaxEvents         int                 `json:"maxEvents"`
	ReturnImmediately bool                `json:"returnImmediately"`
	Ack               []string            `json:"ack,omitempty"`
	SetErrs           map[string]pollFail `json:"setErrs,omitempty"`
}

// A pollFail is the reason for a refusal (RFC 8936, section 2.6).
type pollFail struct {
	Err         string `json:"err"`
	Description string `json:"description,omitempty"`
}

// A pollAnswer is the response (RFC 8936, section 2.3).
type pollAnswer struct {
	sets []namedSet
	more bool
}

type namedSet struct{ jti, raw string }

func readPollAnswer(body []byte) (a pollAnswer, err error) {
	err = strictjson.Object(body, func(name string, v strictjson.Value) error {
		switch name {
		case "moreAvailable":
			a.more, _ = v.Bool()
		case "sets":
			return readSets(v, &a.sets)
		}
		return nil
	}, "sets", "moreAvailable")
	return a, err
}

// readSets reads the SETs of an answer. A value that is not a string becomes an empty SET, which is refused later.
func readSets(v strictjson.Value, sets *[]namedSet) error {
	return strictjson.Entries(v, func(jti string, v strictjson.Value) error {
		raw, _ := v.Text()
		*sets = append(*sets, namedSet{strings.Clone(jti), raw})
		return nil
	})
}

// A progress is what one batch has led to.
type progress struct {
	ack  []string
	errs map[string]pollFail
	kept int // neither: they come again
	err  error
}

// poll polls until ctx is done or the stream is gone.
func (r *Receiver) poll(ctx context.Context, to string) error {
	var (
		done      progress // to acknowledge with the next request
		failing   backoff
		immediate = true // to learn at once whether events are waiting

		stuck, again bool // no SET of the last answer, or of the one before, was accepted
	)
	defer func() { r.acknowledge(ctx, to, done) }()
	for {
		begun := time.Now()
		answer, err := r.pollOnce(ctx, to, pollRequest{r.cfg.MaxEvents, immediate, done.ack, done.errs}, longPoll)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, errGone):
			return err
		case errors.Is(err, context.DeadlineExceeded) && !immediate && time.Since(begun) >= longPoll: // it has no events
			r.stream.contact(r.cfg.Now())
			continue
		case err != nil:
			r.stream.change(func() { r.stream.reach, r.stream.behind = err, true })
			if n := r.failures.Permit(); n > 0 {
				r.log.LogAttrs(ctx, slog.LevelError, "signals: polling failed", slog.Any("err", err), slog.Int("failures", n))
			}
			sleep(ctx, failing.next(err))
			immediate = true
			continue
		}
		r.stream.contact(r.cfg.Now())
		done = r.process(ctx, answer.sets)
		again, stuck = stuck, len(answer.sets) > 0 && len(done.ack) == 0
		r.stream.change(func() {
			r.stream.reach, r.stream.behind = done.err, answer.more // done.kept > 0 has an error
		})
		switch {
		case stuck && done.kept > 0: // the same SETs would come again at once
			sleep(ctx, failing.probe())
			immediate = true
		case stuck && again:
			sleep(ctx, failing.next(nil)) // immediate is true since the one before
		case answer.more || done.kept > 0 || len(done.errs) > 0:
			failing, immediate = backoff{}, true
			if done.kept > 0 {
				sleep(ctx, jitter(firstRetry))
			}
		case len(answer.sets) == 0 && time.Since(begun) < r.cfg.PollInterval: // it does not wait for events
			failing, immediate = backoff{}, false
			sleep(ctx, jitter(r.cfg.PollInterval))
		default:
			failing, immediate = backoff{}, false
		}
	}
}

// pollOnce sends one request.
func (r *Receiver) pollOnce(ctx context.Context, to string, req pollRequest, limit time.Duration) (pollAnswer, error) {
	sent, err := r.call(ctx, "polling", http.MethodPost, to, req, limit, min(maxPollBody, 64<<10+r.cfg.MaxEvents*(jose.MaxToken+512)))
	switch {
	case err != nil:
		return pollAnswer{}, err
	case sent.Status == http.StatusNotFound:
		return pollAnswer{}, fmt.Errorf("polling: %w", errGone)
	case sent.Status == http.StatusNoContent:
		return pollAnswer{}, nil
	case sent.Status != http.StatusOK && sent.Status != http.StatusAccepted:
		return pollAnswer{}, &apiError{"polling", sent.Status, sent.RetryAfter}
	case sent.Status == http.StatusAccepted && len(sent.Body) == 0: // of a request that only acknowledges
		return pollAnswer{}, nil
	}
	answer, err := readPollAnswer(sent.Body)
	if err != nil {
		return answer, fmt.Errorf("polling: %w", err)
	}
	return answer, nil
}

// process verifies and applies the SETs of one answer. Those that are applied are acknowledged, and those that are refused for good are
// reported. The others come again (RFC 8936, section 2.4).
func (r *Receiver) process(ctx context.Context, sets []namedSet) (p progress) {
	p.errs = map[string]pollFail{}
	var (
		names       []string
		outcomes    []outcome
		revocations [][]valetkey.Revocation
	)
	reading, cancel := context.WithTimeout(ctx, batchTimeout)
	defer cancel()
	for i, s := range sets {
		if reading.Err() != nil {
			p.kept, p.err = p.kept+len(sets)-i, errTooSlow
			break
		}
		read, err := r.readOneOf(reading, s)
		var refused *refusal
		switch {
		case errors.As(err, &refused):
			p.errs[s.jti] = pollFail{string(refused.code), refused.err.Error()}
		case err != nil:
			p.kept, p.err = p.kept+1, err
		case len(read.revocations) == 0:
			p.ack = append(p.ack, s.jti)
			r.counts.add(string(read.outcome))
		default:
			names, outcomes, revocations = append(names, s.jti), append(outcomes, read.outcome), append(revocations, read.revocations)
		}
	}
	for i, err := range r.feed.deliver(ctx, revocations...) {
		if err != nil {
			r.counts.add("failed")
			p.kept, p.err = p.kept+1, err
			continue
		}
		r.counts.add(string(outcomes[i]))
		p.ack = append(p.ack, names[i])
	}
	return p
}

var errTooSlow = fmt.Errorf("not all events of an answer were read within %v, perhaps because of Config.Resolve", batchTimeout)

// readOneOf reads one SET of an answer within the time for one.
func (r *Receiver) readOneOf(ctx context.Context, s namedSet) (reading, error) {
	ctx, cancel := context.WithTimeout(ctx, pushTimeout)
	defer cancel()
	return r.read(ctx, s.raw, s.jti)
}

// acknowledge sends what is left to acknowledge when polling ends.
func (r *Receiver) acknowledge(ctx context.Context, to string, done progress) {
	if len(done.ack) == 0 && len(done.errs) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	// maxEvents 0: acknowledge only (RFC 8936, section 2.4.2). SETs that come all the same are not acknowledged, and so come again.
	if _, err := r.pollOnce(ctx, to, pollRequest{0, true, done.ack, done.errs}, shutdownTimeout); err != nil {
		r.log.LogAttrs(ctx, slog.LevelInfo, "signals: the last SETs are not acknowledged, so they come again", slog.Any("err", err))
	}
}
