package introspect

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/fetch"
)

// A digest stands for the text of a token in one Verifier: HMAC-SHA-256 with a key of its own, cut to 16 bytes.
type digest [16]byte

func (v *Verifier) digest(raw string) digest {
	mac := hmac.New(sha256.New, v.key[:])
	io.WriteString(mac, raw)
	return digest(mac.Sum(nil)[:len(digest{})])
}

// A question is one call about one token, which all who ask meanwhile wait for.
type question struct {
	done  chan struct{} // closed once what follows is final
	token *valetkey.Token
	err   error
}

var (
	errClosed = errors.New("introspect: the verifier is closed")
	errBusy   = errors.New("introspect: too many calls are in flight")
)

// ask returns the answer to a question about raw, or leaves when ctx is done: the call is for the others, too.
func (v *Verifier) ask(ctx context.Context, raw string) (*valetkey.Token, error) {
	q, err := v.join(raw)
	if err != nil {
		return nil, err
	}
	select {
	case <-q.done:
		return q.token, q.err
	case <-ctx.Done():
		return nil, fmt.Errorf("introspect: waiting for the answer: %w", context.Cause(ctx))
	}
}

// join returns the question about raw that is in flight, or a new one if there may be one.
func (v *Verifier) join(raw string) (*question, error) {
	key, now := v.digest(raw), time.Now()
	v.mu.Lock()
	defer v.mu.Unlock()
	if q := v.asking[key]; q != nil {
		return q, nil
	}
	if refusal := v.refused.get(key, now); refusal != nil {
		return nil, refusal
	}
	switch {
	case v.closed:
		return nil, &valetkey.Unavailable{Err: errClosed}
	case len(v.asking) >= v.cfg.MaxInFlight:
		return nil, &valetkey.Unavailable{RetryAfter: time.Second, Err: errBusy}
	}
	attempt, wait := v.breaker.enter(now)
	if wait > 0 {
		return nil, &valetkey.Unavailable{RetryAfter: wait, Err: fmt.Errorf("introspect: nobody is asked for now: %w", v.breaker.cause)}
	}
	q := &question{done: make(chan struct{})}
	v.asking[key] = q
	v.lastCall = now
	v.running.Go(func() {
		v.answer(q, key, raw, attempt)
		close(q.done)
	})
	return q, nil
}

// answer answers q. It is detached from whoever asks.
func (v *Verifier) answer(q *question, key digest, raw string, attempt int) {
	ctx, cancel := context.WithTimeout(v.ctx, v.cfg.Timeout)
	defer cancel()
	said, failure := v.exchange(ctx, raw)
	err := failure
	if err == nil {
		q.token, err = v.read(said)
	}
	refusal, refused := err.(*valetkey.Error)
	wait := v.land(key, refusal, attempt, failure)
	switch {
	case err == nil:
	case refused:
		q.err = refusal
	default:
		q.err = &valetkey.Unavailable{RetryAfter: wait, Err: fmt.Errorf("introspect: asking about a token: %w", err)}
	}
}

// exchange asks the endpoint (RFC 7662, section 2). An error means that there is no answer, which the breaker counts.
func (v *Verifier) exchange(ctx context.Context, raw string) (*said, error) {
	begun := v.cfg.Now()
	endpoint, err := v.locate(ctx)
	if err != nil {
		return nil, err
	}
	form, header := url.Values{"token": {raw}}, http.Header{}
	if v.cfg.TypeHint {
		form.Set("token_type_hint", "access_token")
	}
	call := authCall{form: form, header: header, audience: cmp.Or(v.cfg.Issuer, endpoint), now: begun}
	if err := v.cfg.Auth.add(ctx, call); err != nil {
		return nil, err
	}
	accept := "application/json"
	if v.signed != nil {
		accept = signedType // RFC 9701, section 4
	}
	body, err := v.fetch.Post(ctx, endpoint, form, header, accept)
	if err != nil {
		return nil, err
	}
	answer := &said{object: body, at: begun}
	if v.signed != nil {
		if err := v.open(ctx, answer); err != nil {
			return nil, fmt.Errorf("the signed answer of %s: %w", fetch.Bare(endpoint), err)
		}
	}
	return answer, nil
}

// complainEvery bounds what is logged of an endpoint that refuses our questions, which only a change of the
// configuration can mend.
const complainEvery = time.Minute

// land takes the result of a call in, and returns how long nobody is asked now.
func (v *Verifier) land(key digest, refusal *valetkey.Error, attempt int, failure error) (wait time.Duration) {
	now := time.Now()
	v.mu.Lock()
	delete(v.asking, key)
	if v.closed {
		v.mu.Unlock()
		return 0
	}
	v.lastErr = failure
	v.answered = v.answered || failure == nil
	if refusal != nil && v.cfg.NegativeFor > 0 {
		v.refused.add(key, refusal, now.Add(v.cfg.NegativeFor))
	}
	change := v.breaker.leave(attempt, now, failure)
	if change == opened && v.cfg.URL == "" && v.breaker.failures >= maxFailures {
		v.url = "" // it may have moved
	}
	wait = max(0, v.breaker.until.Sub(now))
	complain := misconfigured(failure) && !now.Before(v.complaining)
	if complain {
		v.complaining = now.Add(complainEvery)
	}
	v.mu.Unlock()

	log := v.cfg.Logger.With("issuer", v.cfg.Issuer, "url", fetch.Bare(v.cfg.URL))
	if complain {
		log.Error("introspection: the endpoint refuses our questions; are URL and Auth right?", "error", failure)
	}
	switch change {
	case opened:
		log.Warn("introspection: the endpoint is not asked for now", "retry_in", wait, "error", failure)
	case mended:
		log.Info("introspection: the endpoint answers again")
	}
	return wait
}

// A discovery is the look-up of the endpoint's URL in progress.
type discovery struct {
	done chan struct{} // closed once what follows is final
	url  string
	err  error
}

// locate returns the URL of the endpoint, which all who need it look up together.
func (v *Verifier) locate(ctx context.Context) (string, error) {
	v.mu.Lock()
	if v.url != "" {
		defer v.mu.Unlock()
		return v.url, nil
	}
	d := v.discovery
	if d == nil {
		d = &discovery{done: make(chan struct{})}
		v.discovery = d
		v.running.Go(func() { v.discover(d) }) // Close still waits for the caller, so the group is not empty
	}
	v.mu.Unlock()
	select {
	case <-d.done:
		return d.url, d.err
	case <-ctx.Done():
		return "", fmt.Errorf("waiting for the issuer's metadata: %w", context.Cause(ctx))
	}
}

func (v *Verifier) discover(d *discovery) {
	ctx, cancel := context.WithTimeout(v.ctx, 3*fetch.Timeout) // three places of metadata
	defer cancel()
	d.url, d.err = v.fetch.Discover(ctx, v.cfg.Issuer, "introspection_endpoint")
	v.mu.Lock()
	v.url, v.discovery = d.url, nil
	v.mu.Unlock()
	close(d.done)
}
