package middleware

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/authctx"
	"github.com/valetkey/valetkey/internal/authheader"
	"github.com/valetkey/valetkey/internal/denylist"
	"github.com/valetkey/valetkey/internal/recorder"
	"github.com/valetkey/valetkey/internal/tokencache"
)

// A Decision lets a request through, with its token, or holds the whole response that refuses it. What carries a Decision,
// such as an adapter for a framework, decides nothing itself. The zero value refuses with 503.
//
// A Decision is for one request, and for now: whether its token is still good later, only another call tells. It may be copied, and must not be used by several goroutines at the same time.
type Decision struct {
	guard    *Guard
	passed   bool
	as       passage
	entry    *tokencache.Entry // of the token; nil: there is none
	opening  *opening          // nil: the request does not end with its token
	response                   // if passed, the headers alone
	err      error
}

// A passage says how a request that is let through gets its token.
type passage byte

const (
	withToken    passage = iota
	withoutToken         // it sent none, and needs none
	carried              // it carries the token already
	public               // the guard has not looked at it, and leaves it as it is
)

type response struct {
	status int
	header http.Header
	body   []byte
}

// Decide reads, verifies and authorizes what r carries: it lets r through if its token meets all needs, or, without needs, if it
// is valid. [valetkey.AnyToken], [valetkey.Optional] and [valetkey.Public] are understood as the only need. A refusal is in
// the log when Decide returns; no response is written.
//
// Decide consumes the DPoP proof of r: a second call for the same request refuses it as a replay. A call for the
// request that carries the Decision, see [Decision.Apply], does not look at the credentials again: it decides on its needs, and
// refuses if the token has expired or was revoked meanwhile.
//
// With [Config].Preflight, a CORS preflight is refused with the response of that handler.
func (g *Guard) Decide(r *http.Request, needs ...valetkey.Requirement) Decision {
	if len(needs) == 1 && needs[0] == valetkey.Public {
		return Decision{guard: g, passed: true, as: public}
	}
	if g.preflight != nil && preflight(r) {
		return g.answerPreflight(r)
	}
	if g.observer == nil {
		d, _ := g.decide(r, needs)
		return d
	}
	start := time.Now()
	d, remembered := g.decide(r, needs)
	g.observe(r.Context(), d, remembered, time.Since(start))
	return d
}

// DecideToken is [Guard.Decide] for an access token that did not come with an HTTP request, such as one in a message of a queue or
// in the first message of a connection. It refuses tokens that are bound to a key or a certificate, since nothing proves the
// binding, and [valetkey.Access] has no Request. An empty raw counts as no credentials.
func (g *Guard) DecideToken(ctx context.Context, raw string, needs ...valetkey.Requirement) Decision {
	if len(needs) == 1 && needs[0] == valetkey.Public {
		return Decision{guard: g, passed: true, as: public}
	}
	start := time.Now()
	c := credentials{token: raw, scheme: authheader.Bearer}
	err := checkLength(raw)
	if raw == "" {
		err = &valetkey.Error{Code: valetkey.NoCredentials}
	}
	d, remembered := g.decideOn(ctx, c, err, needs)
	if g.observer != nil {
		g.observe(ctx, d, remembered, time.Since(start))
	}
	return d
}

func (g *Guard) decide(r *http.Request, needs []valetkey.Requirement) (d Decision, remembered bool) {
	ctx := r.Context()
	entry := g.verified(ctx)
	if entry == nil {
		c, err := g.readCredentials(r)
		return g.decideOn(ctx, c, err, needs)
	}
	// What the request carries was true when it was accepted, which may be long ago: a handler may ask for each message.
	err := g.still(entry.Token)
	if err == nil {
		err = g.authorize(entry.Token, r, needs)
	}
	if err != nil {
		d = g.refuse(ctx, r, schemeFor(entry.Token), err)
		d.entry = entry
		return d, true
	}
	d = Decision{guard: g, passed: true, entry: entry}
	if ctx.Value(authctx.Token{}) == entry.Token { // or another guard has attached its own since
		d.as = carried
	}
	return d, true
}

// still reports whether t, which was accepted before, has neither expired nor been revoked.
func (g *Guard) still(t *valetkey.Token) error {
	end := t.Deadline()
	if end.IsZero() && !t.Expiry().IsZero() { // a verifier that sets no Deadline may accept t by a leeway after its Expiry
		end = t.Expiry().Add(denylist.MaxLeeway)
	}
	if !end.IsZero() && !g.now().Before(end) {
		return errExpired
	}
	return g.denials.check(t)
}

// decideOn decides on credentials that have been read, with err.
func (g *Guard) decideOn(ctx context.Context, c credentials, err error, needs []valetkey.Requirement) (d Decision, remembered bool) {
	optional := len(needs) == 1 && needs[0] == valetkey.Optional
	var found finding
	if err == nil {
		if found, err = g.verify(ctx, c); err == nil {
			err = g.authorize(found.entry.Token, c.request, needs)
		}
	} else if none(err) {
		if len(needs) == 1 && valetkey.Describe(needs[0]).Open {
			d = Decision{guard: g, passed: true, as: withoutToken}
			d.add("Vary", "Authorization")
			return d, false
		}
		err = withScope(err, needs)
	}
	if err != nil {
		d = g.refuse(ctx, c.request, c.scheme, err)
		d.entry = found.entry
	} else {
		d = Decision{guard: g, passed: true, entry: found.entry}
		if g.streams != nil {
			d.opening = &opening{raw: c.token}
		}
		if c.inQuery {
			d.set("Cache-Control", "private") // RFC 6750, section 2.3
		}
		if found.nonce != "" { // RFC 9449, section 8.2
			d.set("DPoP-Nonce", found.nonce)
			d.set("Cache-Control", "no-store")
			if g.exposeChallenge {
				d.set(exposeHeaders, exposed)
			}
		}
	}
	if optional {
		// The response may differ by who asks, and the anonymous one is not barred from shared caches (RFC 9111, section 3.5).
		d.add("Vary", "Authorization")
	}
	return d, found.remembered
}

// none reports whether err is that a request carries no credentials.
func none(err error) bool {
	var refusal *valetkey.Error
	return errors.As(err, &refusal) && refusal.Code == valetkey.NoCredentials
}

// Reject returns the Decision that refuses r with err, for what is wrong with a request before its credentials count, such as
// a path that can be read in two ways: 400, 401 or 403 with a challenge for a [valetkey.Error], and 503 with Retry-After for
// any other error, a nil one included, which is a failure of ours and does not make the client's token a bad one. r may be
// nil. It is logged as the refusals of [Guard.Decide] are.
//
// A guard that accepts several schemes has a challenge for each, on its own line; the error is in that of the scheme that r came
// with or, if that is not known, in each.
func (g *Guard) Reject(r *http.Request, err error) Decision {
	ctx, scheme := context.Background(), ""
	if r != nil {
		ctx = r.Context()
		scheme, _, _, _ = authheader.Read(r.Header["Authorization"])
	}
	return g.refuse(ctx, r, scheme, err)
}

// refuse returns the response to err, for credentials that came with scheme, or "" if that is not known.
func (g *Guard) refuse(ctx context.Context, r *http.Request, scheme string, err error) Decision {
	var refusal *valetkey.Error
	switch refused := errors.As(err, &refusal); {
	case err == nil:
		err = errUndecided
	case refused && refusal == nil: // of a Requirement that returns a nil *valetkey.Error as an error
		err = errNilRefusal
	}
	header := http.Header{
		"Cache-Control":          {"no-store"},
		"X-Content-Type-Options": {"nosniff"},
	}
	status := statusOf(err)
	if refusal != nil {
		header["Www-Authenticate"] = g.challenge.lines(refusal, scheme)
		if g.dpop != nil && refusal.Code == valetkey.UseNonce { // RFC 9449, section 9
			header.Set("DPoP-Nonce", g.dpop.Nonce())
		}
		if g.exposeChallenge {
			header.Set(exposeHeaders, exposed)
		}
	} else {
		header.Set("Retry-After", strconv.Itoa(retrySeconds(err)))
	}
	contentType, body := g.body(ctx, status, refusal)
	header.Set("Content-Type", contentType)
	header.Set("Content-Length", strconv.Itoa(len(body)))
	g.logRefusal(ctx, r, status, err)
	return Decision{guard: g, response: response{status, header, body}, err: err}
}

// answerPreflight refuses r with the response of Config.Preflight.
func (g *Guard) answerPreflight(r *http.Request) Decision {
	var w recorder.Response
	g.preflight.ServeHTTP(&w, r)
	if w.Status == 0 {
		w.Status = http.StatusOK // as net/http does
	}
	return Decision{guard: g, response: response{w.Status, w.Header(), w.Body.Bytes()}, err: errPreflight}
}

var (
	errNilRefusal = errors.New("middleware: a refusal is nil")
	errUndecided  = errors.New("middleware: nothing was decided")
	errPreflight  = errors.New("middleware: a CORS preflight, which Config.Preflight answers")
)

// Err returns nil if the request is let through. Otherwise it is the reason: a [valetkey.Error] for a refusal that the client
// learns of, and any other error for a failure, which it does not.
func (d Decision) Err() error {
	if !d.passed && d.err == nil {
		return errUndecided
	}
	return d.err
}

// Token returns the token of a request that is let through. It is nil if the request is refused, and if it needs no token and
// carries none. It is shared with other requests and must not be modified.
func (d Decision) Token() *valetkey.Token {
	if !d.passed || d.entry == nil {
		return nil
	}
	return d.entry.Token
}

// Status returns the status of the response that refuses the request: 400, 401, 403 or 503, or that of Config.Preflight. For a
// request that is let through it is 200, which the handler may replace.
func (d Decision) Status() int {
	switch {
	case d.passed:
		return http.StatusOK
	case d.status == 0:
		return http.StatusServiceUnavailable
	}
	return d.status
}

// Header returns the headers of the response that refuses the request, with the challenge; for a request that is let through,
// those that the response of the handler must have: the next nonce of a DPoP client, or that a cache must not store it. The
// values of Vary and Access-Control-Expose-Headers add to others. It may be nil and must not be modified.
func (d Decision) Header() http.Header {
	if !d.passed && d.header == nil {
		return http.Header{"Cache-Control": {"no-store"}, "Retry-After": {strconv.Itoa(retrySeconds(nil))}}
	}
	return d.header
}

// Body returns the body of the response that refuses the request. It must not be modified.
func (d Decision) Body() []byte { return d.body }

// Apply writes the response that refuses r, or returns r with its token attached, and true, after it has set the headers
// that the response of the handler must have. r is the request that was decided on.
func (d Decision) Apply(w http.ResponseWriter, r *http.Request) (*http.Request, bool) {
	var ctx context.Context
	if d.passed {
		var err error
		if ctx, err = d.attach(r.Context()); err != nil { // revoked a moment ago
			d = d.guard.Reject(r, err)
		}
	}
	header := d.Header()
	if len(header) > 0 {
		h := w.Header()
		for name, values := range header {
			if name == exposeHeaders || name == "Vary" { // beside what the API itself has
				values = append(h[name], values...)
			}
			h[name] = values
		}
	}
	if !d.passed {
		w.WriteHeader(d.Status())
		w.Write(d.body)
		return r, false
	}
	if d.as == public || d.as == carried {
		return r, true
	}
	return r.WithContext(ctx), true
}

// Context returns parent with the token of a request that is let through, for [valetkey.FromContext]; a request that needs no
// token and carries none has none there, also where another guard has attached one. With [Config].CancelWithToken the context
// ends with the token, and parent must end with the request. Of a request that is refused, the context has ended, with
// [Decision.Err] as its cause.
func (d Decision) Context(parent context.Context) context.Context {
	err := d.Err()
	if err == nil {
		var ctx context.Context
		if ctx, err = d.attach(parent); err == nil {
			return ctx
		}
	}
	ctx, cancel := context.WithCancelCause(parent)
	cancel(err)
	return ctx
}

// attach is Context for a request that is let through. There is an error if its token was revoked after the decision.
func (d Decision) attach(parent context.Context) (context.Context, error) {
	switch d.as {
	case public, carried:
		return parent, nil
	case withoutToken:
		return valetkey.NewContext(parent, nil), nil
	}
	if d.opening != nil {
		var err error
		if parent, err = d.guard.streams.open(parent, d.opening.raw, d.entry); err != nil {
			return nil, err
		}
	}
	return &verifiedContext{parent, d.entry}, nil
}

func (r *response) set(name, value string) {
	if r.header == nil {
		r.header = http.Header{}
	}
	r.header.Set(name, value)
}

func (r *response) add(name, value string) {
	if r.header == nil {
		r.header = http.Header{}
	}
	r.header.Add(name, value)
}

// An opening is what a stream is opened with. It is behind a pointer so that a Decision that is printed shows no token.
type opening struct{ raw string }

func (g *Guard) observe(ctx context.Context, d Decision, remembered bool, took time.Duration) {
	e := valetkey.Event{Kind: valetkey.RequestDecided, Status: d.Status(), Remembered: remembered, Duration: took, Err: d.err}
	if d.entry != nil {
		e.Issuer = d.entry.Token.Issuer()
	}
	var refusal *valetkey.Error
	if errors.As(d.err, &refusal) && refusal.Reason.Known() {
		e.Reason = refusal.Reason
	}
	g.observer.Observe(ctx, e)
}

// retryAfter is how long a client is asked to wait unless the error says.
const retryAfter = 5 * time.Second

const (
	exposeHeaders = "Access-Control-Expose-Headers"
	exposed       = "WWW-Authenticate, DPoP-Nonce"
)

// statusOf returns the status of the response to err.
func statusOf(err error) int {
	var refusal *valetkey.Error
	if errors.As(err, &refusal) {
		return refusal.Status()
	}
	return http.StatusServiceUnavailable
}

func retrySeconds(err error) int {
	wait := retryAfter
	var u *valetkey.Unavailable
	if errors.As(err, &u) && u.RetryAfter > 0 {
		wait = u.RetryAfter
	}
	return int(math.Ceil(wait.Seconds()))
}

func (g *Guard) logRefusal(ctx context.Context, r *http.Request, status int, err error) {
	level := slog.LevelDebug
	if status == http.StatusServiceUnavailable && ctx.Err() == nil { // otherwise the client has gone
		level = slog.LevelError
	}
	if !g.log.Enabled(ctx, level) {
		return
	}
	attrs := []slog.Attr{slog.Int("status", status), slog.Any("err", err)}
	if r != nil { // the path and not the URL: its query may hold a token
		attrs = append([]slog.Attr{slog.String("method", r.Method), slog.String("path", r.URL.Path)}, attrs...)
	}
	g.log.LogAttrs(ctx, level, "request refused", attrs...)
}
