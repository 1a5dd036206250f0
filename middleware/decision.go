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
	"github.com/valetkey/valetkey/internal/heldtoken"
	"github.com/valetkey/valetkey/internal/recorder"
	"github.com/valetkey/valetkey/internal/tokencache"
)

// A Decision accepts a request, with its token, or holds the full response that refuses it. An adapter for
// a framework only writes it out and makes no checks. The zero value refuses with 503.
//
// A Decision is valid for one request and for the moment at which it was made. To find out whether the token is still accepted
// later, call the guard again. A Decision may be copied. It must not be used by several goroutines at the same time.
type Decision struct {
	guard    *Guard
	passed   bool
	as       passage
	entry    *tokencache.Entry // of the token; nil: there is none
	opening  *opening          // nil: the text of the token is not needed
	response                   // if passed, only the headers
	err      error
}

// A passage specifies how an accepted request gets its token.
type passage byte

const (
	withToken    passage = iota
	withoutToken         // the request has no token and needs none
	carried              // the request already carries the token
	public               // the guard ignored the credentials and leaves the request unchanged
)

type response struct {
	status int
	header http.Header
	body   []byte
}

// Decide decides on r. It accepts r if its token is valid and meets all needs; without needs, a valid token is sufficient.
// [valetkey.AnyToken], [valetkey.Optional] and [valetkey.Public] must be the only need. Decide logs a refusal; it does not write a
// response.
//
// Decide consumes the DPoP proof of r: a second call for the same request refuses it as a replay. A call for the request that
// carries the Decision, see [Decision.Apply], does not read the credentials again. It decides on its needs, and refuses if the
// token has expired or been revoked in the meantime.
//
// With [Config].Preflight, the Decision on a CORS preflight is a refusal with the response of that handler.
func (g *Guard) Decide(r *http.Request, needs ...valetkey.Requirement) Decision {
	if len(needs) == 1 && isPublic(needs[0]) {
		return Decision{guard: g, passed: true, as: public}
	}
	if g.preflight != nil && preflight(r) {
		return g.answerPreflight(r)
	}
	needs, reportOnly := g.enforced(needs)
	if !g.observesAccepted {
		d, remembered := g.decide(r, needs)
		if !d.passed && g.observer != nil {
			g.observe(r.Context(), r, d, needs, remembered, reportOnly, 0)
		}
		return d.unless(reportOnly)
	}
	start := time.Now()
	d, remembered := g.decide(r, needs)
	g.observe(r.Context(), r, d, needs, remembered, reportOnly, time.Since(start))
	return d.unless(reportOnly)
}

func isPublic(need valetkey.Requirement) bool { return need == valetkey.Public }

// enforced returns needs without the InsecureReportOnly around them, and whether refusals are only reported.
func (g *Guard) enforced(needs []valetkey.Requirement) ([]valetkey.Requirement, bool) {
	if len(needs) == 1 {
		if inner, ok := needs[0].(valetkey.InsecureReportOnly); ok {
			return inner, true
		}
	}
	return needs, g.reportOnly
}

// unless returns d, or with reportOnly the Decision that lets a refused request through.
func (d Decision) unless(reportOnly bool) Decision {
	if !reportOnly || d.passed {
		return d
	}
	through := Decision{guard: d.guard, passed: true, as: withoutToken, entry: d.entry, opening: d.opening}
	// The response may depend on the caller, as with valetkey.Optional.
	through.add("Vary", d.guard.vary)
	if d.entry != nil {
		through.as = withToken
		through.set("Cache-Control", "private")
	}
	return through
}

// DecideToken decides on an access token that did not come with an HTTP request, such as one in a queue message or in the first
// message of a connection. It refuses tokens that are bound to a key or a certificate, because nothing proves the binding. The
// [valetkey.Access] of needs has no Request. An empty raw means that there are no credentials. See [Guard.Decide].
func (g *Guard) DecideToken(ctx context.Context, raw string, needs ...valetkey.Requirement) Decision {
	if len(needs) == 1 && isPublic(needs[0]) {
		return Decision{guard: g, passed: true, as: public}
	}
	needs, reportOnly := g.enforced(needs)
	start := time.Now()
	c := credentials{token: raw, scheme: authheader.Bearer}
	err := g.checkLength(raw)
	if raw == "" {
		err = &valetkey.Error{Code: valetkey.NoCredentials}
	}
	d, remembered := g.decideOn(ctx, c, err, needs)
	if g.observer != nil {
		g.observe(ctx, nil, d, needs, remembered, reportOnly, time.Since(start))
	}
	return d.unless(reportOnly)
}

func (g *Guard) decide(r *http.Request, needs []valetkey.Requirement) (d Decision, remembered bool) {
	ctx := r.Context()
	entry := g.verified(ctx)
	if entry == nil {
		c, err := g.readCredentials(r)
		return g.decideOn(ctx, c, err, needs)
	}
	// The token was valid when the request was accepted, which may be long ago: a handler may call Decide for each message.
	if err := g.still(entry.Token); err != nil {
		return g.refuse(ctx, r, schemeFor(entry.Token), err), true
	}
	if err := g.authorize(entry.Token, r, needs); err != nil {
		d = g.refuse(ctx, r, schemeFor(entry.Token), err)
		d.entry = entry
		return d, true
	}
	d = Decision{guard: g, passed: true, entry: entry}
	if ctx.Value(authctx.Token{}) == entry.Token { // otherwise, another guard has attached a token since
		d.as = carried
	}
	return d, true
}

// still returns nil if t, which was accepted before, has neither expired nor been revoked.
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

// decideOn decides on c. err is the error from reading c.
func (g *Guard) decideOn(ctx context.Context, c credentials, err error, needs []valetkey.Requirement) (d Decision, remembered bool) {
	optional := len(needs) == 1 && needs[0] == valetkey.Optional
	var found finding
	if err == nil {
		if found, err = g.verify(ctx, c); err == nil {
			err = g.authorize(found.entry.Token, c.request, needs)
		}
	} else if missing := noCredentials(err); missing != nil {
		if len(needs) == 1 && valetkey.Describe(needs[0]).Open {
			d = Decision{guard: g, passed: true, as: withoutToken}
			d.add("Vary", g.vary)
			return d, false
		}
		told := *missing
		told.Scope = valetkey.Describe(needs...).Challenge
		err = &told
	}
	if err != nil {
		d = g.refuse(ctx, c.request, c.scheme, err)
		d.entry = found.entry
		if g.onBehalf { // with InsecureReportOnly, the request goes on with its token
			d.opening = &opening{raw: c.token}
		}
	} else {
		d = Decision{guard: g, passed: true, entry: found.entry}
		if g.streams != nil || g.onBehalf {
			d.opening = &opening{raw: c.token, ends: g.streams != nil}
		}
		if c.private {
			d.set("Cache-Control", "private") // RFC 6750, section 2.3; RFC 9111, section 3.5
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
		// The response may depend on the caller, and shared caches may store the anonymous one (RFC 9111, section 3.5).
		d.add("Vary", g.vary)
	}
	return d, found.remembered
}

// noCredentials returns the refusal in err if err means that a request carries no credentials, otherwise nil.
func noCredentials(err error) *valetkey.Error {
	var refusal *valetkey.Error
	if !errors.As(err, &refusal) || refusal.Code != valetkey.NoCredentials {
		return nil
	}
	return refusal
}

// Reject returns the Decision that refuses r with err. It is for problems that precede the credentials, such as an ambiguous path.
// For a [valetkey.Error] the response is 400, 401 or 403 with a challenge. For any other error, including nil, it is 503 with
// Retry-After: this is a failure of the server and does not invalidate the client's token. r may be nil. Reject logs the refusal and
// reports it to the Observer, as [Guard.Decide] does. It refuses also with [Config].InsecureReportOnly.
//
// A guard that accepts several schemes sends a challenge for each, on separate lines. The error is in the challenge of the scheme
// that r uses, of Bearer if r has no access token in Authorization, or in each if r is nil or has two lines of Authorization.
func (g *Guard) Reject(r *http.Request, err error) Decision {
	ctx, scheme := context.Background(), ""
	if r != nil {
		ctx = r.Context()
		scheme, _, _, _ = authheader.Read(r.Header["Authorization"])
	}
	d := g.refuse(ctx, r, scheme, err)
	if g.observer != nil {
		g.observe(ctx, r, d, nil, false, false, 0)
	}
	return d
}

// refuse returns the Decision that refuses r with err. scheme is that of the credentials, or "" if it is unknown.
func (g *Guard) refuse(ctx context.Context, r *http.Request, scheme string, err error) Decision {
	var refusal *valetkey.Error
	switch refused := errors.As(err, &refusal); {
	case err == nil:
		err = errUndecided
	case refused && refusal == nil: // a Requirement returned a nil *valetkey.Error as an error
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
	errNilRefusal = errors.New("middleware: the refusal is a nil *valetkey.Error")
	errUndecided  = errors.New("middleware: no decision was made")
	errPreflight  = errors.New("middleware: CORS preflight, answered by Config.Preflight")
)

// Err returns nil if the request is accepted. Otherwise it returns a [valetkey.Error] for a refusal, whose reason the client
// receives, or any other error for a failure, which the client does not see.
func (d Decision) Err() error {
	if !d.passed && d.err == nil {
		return errUndecided
	}
	return d.err
}

// Token returns the token of an accepted request. It returns nil if the request is refused, or if it needs no token and carries
// none.
func (d Decision) Token() *valetkey.Token {
	if !d.passed || d.entry == nil {
		return nil
	}
	return d.entry.Token
}

// Status returns the status of the response that refuses the request: 400, 401, 403 or 503, or that of Config.Preflight. For an
// accepted request it returns 200, which the handler may replace.
func (d Decision) Status() int {
	switch {
	case d.passed:
		return http.StatusOK
	case d.status == 0:
		return http.StatusServiceUnavailable
	}
	return d.status
}

// Header returns the headers of the response that refuses the request, including the challenge. For an accepted request it returns
// the headers that the handler's response must carry, such as the next DPoP nonce or Cache-Control. The values of Vary and
// Access-Control-Expose-Headers must be added to existing ones; the others replace them. The result may be nil and must not be
// modified.
func (d Decision) Header() http.Header {
	if !d.passed && d.header == nil {
		return http.Header{"Cache-Control": {"no-store"}, "Retry-After": {strconv.Itoa(retrySeconds(nil))}}
	}
	return d.header
}

// Body returns the body of the response that refuses the request; nil for an accepted request. It must not be modified.
func (d Decision) Body() []byte { return d.body }

// Apply carries out the Decision on r, which must be the request that was decided on. If r is refused, Apply writes the response
// and returns r and false. If r is accepted, it sets the headers that the handler's response must carry, and returns r with its
// token attached and true.
func (d Decision) Apply(w http.ResponseWriter, r *http.Request) (*http.Request, bool) {
	r, s, ok := d.apply(w, r)
	if s != nil {
		s.endWithContext()
	}
	return r, ok
}

// apply implements Apply. The caller must end the stream, if there is one.
func (d Decision) apply(w http.ResponseWriter, r *http.Request) (*http.Request, *stream, bool) {
	var (
		ctx context.Context
		s   *stream
	)
	if d.passed {
		var err error
		if ctx, s, err = d.attach(r.Context()); err != nil { // revoked a moment ago
			d = d.guard.Reject(r, err)
		}
	}
	for name, values := range d.Header() {
		h := w.Header()
		if name == exposeHeaders || name == "Vary" { // in addition to those that the API sets
			values = append(h[name], values...)
		}
		h[name] = values
	}
	if !d.passed {
		w.WriteHeader(d.Status())
		w.Write(d.body)
		return r, nil, false
	}
	if d.as == public || d.as == carried {
		return r, nil, true
	}
	return r.WithContext(ctx), s, true
}

// Context returns a context that carries the token of an accepted request, for [valetkey.FromContext]. If the request needs no
// token and carries none, FromContext returns nil, even if another guard has attached a token to parent; with [valetkey.Public],
// Context returns parent. With [Config].CancelWithToken, the context ends with the token, and parent must end with the request.
// If the request is refused, the context has already ended, with [Decision.Err] as its cause.
func (d Decision) Context(parent context.Context) context.Context {
	err := d.Err()
	if err == nil {
		var (
			ctx context.Context
			s   *stream
		)
		if ctx, s, err = d.attach(parent); err == nil {
			if s != nil {
				s.endWithContext()
			}
			return ctx
		}
	}
	ctx, cancel := context.WithCancelCause(parent)
	cancel(err)
	return ctx
}

// attach implements Context for an accepted request. It returns an error if the token was revoked after the decision. The stream is that
// of the context, or nil if that does not end with the token.
func (d Decision) attach(parent context.Context) (context.Context, *stream, error) {
	switch d.as {
	case public, carried:
		return parent, nil, nil
	case withoutToken:
		return valetkey.NewContext(parent, nil), nil, nil
	}
	if d.opening == nil {
		return &verifiedContext{parent, d.entry}, nil, nil
	}
	var s *stream
	if d.opening.ends {
		var err error
		if s, err = d.guard.streams.open(parent, d.opening.raw, d.entry); err != nil {
			return nil, nil, err
		}
		parent = s.ctx
	}
	var ctx context.Context = &verifiedContext{parent, d.entry}
	if d.guard.onBehalf {
		ctx = heldtoken.NewContext(ctx, d.opening.raw, d.entry.Token, holder{d.guard})
	}
	return ctx, s, nil
}

// A holder is the guard as package onbehalf sees it.
type holder struct{ guard *Guard }

func (h holder) Still(t *valetkey.Token) error { return h.guard.still(t) }
func (h holder) Attach(d *heldtoken.Dependent) { h.guard.denials.dependents.Attach(d) }

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

// An opening holds the token with which a stream is opened, or which is exchanged, see Config.OnBehalf. A Decision points to it so that
// printing a Decision shows no token.
type opening struct {
	raw  string
	ends bool // the request ends with its token
}

func (g *Guard) observe(ctx context.Context, r *http.Request, d Decision, needs []valetkey.Requirement, remembered, reportOnly bool, took time.Duration) {
	e := valetkey.Event{Kind: valetkey.RequestDecided, Status: d.Status(), Remembered: remembered, Duration: took, Err: d.err,
		Request: r, Needs: needs, ReportOnly: reportOnly && !d.passed}
	if d.entry != nil {
		e.Token = d.entry.Token
		e.Issuer = e.Token.Issuer()
	}
	var refusal *valetkey.Error
	if errors.As(d.err, &refusal) && refusal.Reason.Known() {
		e.Reason = refusal.Reason
	}
	g.observer.Observe(ctx, e)
}

// retryAfter is the Retry-After of a failure that is not a valetkey.Unavailable with a time.
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
	g.warnings.warn(ctx, g.log, err)
	level := slog.LevelDebug
	if status == http.StatusServiceUnavailable && ctx.Err() == nil { // otherwise the client has disconnected
		level = slog.LevelError
	}
	if !g.log.Enabled(ctx, level) {
		return
	}
	attrs := []slog.Attr{slog.Int("status", status), slog.Any("err", err)}
	if r != nil { // the path instead of the URL, whose query may contain a token
		attrs = append([]slog.Attr{slog.String("method", r.Method), slog.String("path", r.URL.Path)}, attrs...)
	}
	g.log.LogAttrs(ctx, level, "request refused", attrs...)
}
