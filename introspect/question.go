package introspect

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/clientauth"
	"github.com/valetkey/valetkey/internal/digest"
	"github.com/valetkey/valetkey/internal/fetch"
	"github.com/valetkey/valetkey/internal/flight"
)

// A question is one request about one token. All concurrent callers with that token wait for it.
type question = flight.Flight[digest.Digest, answered]

type answered struct {
	token *valetkey.Token
	err   error
}

var (
	errClosed = errors.New("introspect: the verifier is closed")
	errAnswer = errors.New("the answer is at fault") // the endpoint did answer, so the fault may be due to the token
	errNoKeys = errors.New("the signed answer cannot be verified now")
	errBusy   = errors.New("introspect: too many calls are in flight")
)

// ask returns the answer about raw, or an error when ctx is done. The request itself continues, since other callers may wait
// for it.
func (v *Verifier) ask(ctx context.Context, raw string) (*valetkey.Token, error) {
	q, err := v.join(ctx, raw)
	if err != nil {
		return nil, err
	}
	select {
	case <-q.Done():
		return q.Result.token, q.Result.err
	case <-ctx.Done():
		return nil, fmt.Errorf("introspect: waiting for the answer: %w", context.Cause(ctx))
	}
}

// join returns the question about raw that is in flight, or a new one if there may be one.
func (v *Verifier) join(ctx context.Context, raw string) (*question, error) {
	key := digest.FromContext(ctx, raw) // the guard has made it
	v.mu.Lock()
	defer v.mu.Unlock()
	if q := v.asking.Join(key); q != nil {
		return q, nil
	}
	if refusal := v.refused.get(key, time.Now()); refusal != nil {
		return nil, refusal
	}
	switch {
	case v.closed:
		return nil, &valetkey.Unavailable{Err: errClosed}
	case v.inFlight >= v.cfg.MaxInFlight:
		return nil, &valetkey.Unavailable{RetryAfter: time.Second, Err: errBusy}
	}
	q := v.asking.Start(key)
	v.inFlight++
	v.running.Go(func() { v.answer(q, key, raw) })
	return v.asking.Join(key), nil
}

// answer answers q, detached from the callers that wait for it.
func (v *Verifier) answer(q *question, key digest.Digest, raw string) {
	ctx, cancel := context.WithTimeout(v.ctx, v.cfg.Timeout)
	defer cancel()
	if t := v.recall(ctx, raw); t != nil {
		v.end(q, t, nil)
		return
	}
	attempt, err := v.enter(key)
	if err != nil {
		v.end(q, nil, err)
		return
	}
	begun := time.Now()
	said, err := v.exchange(ctx, raw, attempt)
	took := time.Since(begun)
	var t *valetkey.Token
	if err == nil {
		t, err = v.understand(ctx, said)
	}
	refusal, refused := err.(*valetkey.Error)
	if refused {
		err = nil
	}
	wait := v.note(q, refusal, attempt, err)
	var outcome error
	switch {
	case refused:
		outcome = refusal
	case err != nil:
		outcome = &valetkey.Unavailable{RetryAfter: wait, Err: fmt.Errorf("introspect: asking about a token: %w", err)}
	}
	current := v.end(q, t, outcome)
	v.observe(ctx, took, said != nil, err)
	if current && t != nil {
		v.share(raw, said, t)
	}
}

// understand verifies and decodes a response.
func (v *Verifier) understand(ctx context.Context, answer *said) (*valetkey.Token, error) {
	if err := v.open(ctx, answer); err != nil {
		if _, none := errors.AsType[*valetkey.Unavailable](err); none {
			return nil, fmt.Errorf("%w: %w", errNoKeys, err)
		}
		return nil, fmt.Errorf("%w: the signed answer: %w", errAnswer, err)
	}
	t, err := v.read(answer)
	if _, refused := err.(*valetkey.Error); err != nil && !refused {
		return nil, fmt.Errorf("%w: %w", errAnswer, err)
	}
	return t, err
}

// enter returns an attempt to ask the endpoint about the token of key, or an error if it must not be asked now.
func (v *Verifier) enter(key digest.Digest) (attempt, error) {
	now := time.Now()
	v.mu.Lock()
	defer v.mu.Unlock()
	a, wait := v.breaker.enter(key, now)
	if wait > 0 {
		return attempt{}, &valetkey.Unavailable{RetryAfter: wait, Err: fmt.Errorf("introspect: the endpoint is not asked for now: %w", v.breaker.cause)}
	}
	v.lastCall = now
	return a, nil
}

// end ends q with its result. It reports whether q could be joined until now, that is, was not purged.
func (v *Verifier) end(q *question, t *valetkey.Token, err error) (current bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.inFlight--
	q.Result = answered{t, err}
	return v.asking.Land(q)
}

// exchange sends the request to the endpoint (RFC 7662, section 2). An error means that there is no response to read; the
// breaker decides whether the endpoint is to blame.
func (v *Verifier) exchange(ctx context.Context, raw string, a attempt) (*said, error) {
	begun := v.cfg.Now()
	endpoint, err := v.locate(ctx, a.relocate)
	if err != nil {
		return nil, err
	}
	form, header := url.Values{"token": {raw}}, http.Header{}
	if v.cfg.TypeHint {
		form.Set("token_type_hint", "access_token")
	}
	call := clientauth.Call{Form: form, Header: header, Audience: cmp.Or(v.cfg.Issuer, endpoint), Now: begun}
	if err := clientauth.Add(ctx, v.cfg.Auth, call); err != nil {
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
	return &said{body: body, at: begun}, nil
}

// note records the result of a call, and returns how long the endpoint will not be asked about the token of q.
func (v *Verifier) note(q *question, refusal *valetkey.Error, a attempt, err error) (wait time.Duration) {
	now := time.Now()
	v.mu.Lock()
	if v.closed {
		v.mu.Unlock()
		return 0
	}
	if refusal != nil && v.cfg.NegativeTTL > 0 && v.asking.Has(q) {
		v.refused.add(a.key, refusal, now.Add(v.cfg.NegativeTTL))
	}
	var change change
	v.changeLocked(now, func() {
		v.lastErr = err
		v.answered = err == nil
		change = v.breaker.leave(a, now, err)
	})
	wait = v.breaker.wait(a.key, now)
	v.mu.Unlock()

	log := v.cfg.Logger.With("issuer", v.cfg.Issuer, "url", fetch.Bare(v.cfg.URL))
	if misconfigured(err) && v.complaint.Permit() > 0 { // only a change of the configuration can fix that
		log.Error("introspection: the endpoint refuses our questions; are URL and Auth right?", "error", err)
	}
	switch change {
	case opened:
		log.Warn("introspection: the endpoint is not asked for now", "retry_in", wait, "error", err)
	case mended:
		log.Info("introspection: the endpoint answers again")
	}
	return wait
}

// A discovery is a look-up of the endpoint's URL in progress.
type discovery struct {
	done chan struct{} // closed once the fields below are final
	url  string
	err  error
}

// relocateEvery bounds how often a known URL is looked up again, regardless of how many tokens fail.
const relocateEvery = 15 * time.Second

// locate returns the URL of the endpoint. Concurrent callers share one look-up. A known URL is looked up again only if again
// is set, since the endpoint may have moved; all other callers use the known URL meanwhile.
func (v *Verifier) locate(ctx context.Context, again bool) (string, error) {
	v.mu.Lock()
	if v.url != "" && (!again || v.cfg.URL != "" || v.discovery == nil && time.Since(v.relocated) < relocateEvery) {
		defer v.mu.Unlock()
		return v.url, nil
	}
	d := v.discovery
	if d == nil {
		d = &discovery{done: make(chan struct{})}
		v.discovery = d
		if v.url != "" {
			v.relocated = time.Now()
		}
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
	ctx, cancel := context.WithTimeout(v.ctx, 3*fetch.Timeout) // metadata has three locations
	defer cancel()
	d.url, d.err = v.fetch.Discover(ctx, v.cfg.Issuer, "introspection_endpoint")
	v.mu.Lock()
	if d.err == nil {
		v.url = d.url
	} else if v.url != "" { // the metadata is not available, and the endpoint may not have moved
		d.url, d.err = v.url, nil
	}
	v.discovery = nil
	v.mu.Unlock()
	close(d.done)
}
