package middleware

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/mistakes"
	"github.com/valetkey/valetkey/internal/ratelog"
)

// AuditOptions configures [Audit]. The zero value records each refusal, with the subject and the address in clear.
type AuditOptions struct {
	// Grants is the share of accepted requests that are recorded, from 0 to 1. Zero: none. Refusals are always recorded.
	Grants float64

	// Identity specifies how the subject, the client and the address of the client appear, which are personal data. Empty:
	// IdentityClear.
	Identity Identity

	// Key is the key of IdentityHashed, at least 32 random bytes, kept as long as records must be comparable.
	Key []byte

	// Queue is the number of records that may wait for the handler. Zero: 1,024. When the queue is full, records are dropped and
	// counted, unless Block is set.
	Queue int

	// Block makes a request wait until its record is in the queue, for APIs where no decision may be unrecorded. A handler that
	// blocks then blocks every request that is recorded.
	Block bool

	// Proxies are the trusted proxies that report the address of the client, as in Config. The zero value: client.address is the
	// address of the connection.
	Proxies Proxies

	// RequestID returns the identifier of a request, such as that which other middleware has put in its context. Nil: none.
	RequestID func(r *http.Request) string

	// Logger receives a line when records are dropped, at most once a minute. Nil: slog.Default().
	Logger *slog.Logger
}

// Identity specifies how a caller appears in a record.
type Identity string

// The values of [Identity].
const (
	IdentityClear   Identity = "clear"
	IdentityHashed  Identity = "hashed" // HMAC-SHA256 under AuditOptions.Key, in hex: equal for equal values
	IdentityOmitted Identity = "omitted"
)

// An Auditor is a [valetkey.Observer] that writes one record for each decision of a guard. Create one with [Audit]. It is safe for
// concurrent use and must be closed.
//
// The message of a record is "request decided". Its attributes have names of OpenTelemetry and of the Elastic Common Schema:
//
//	event.outcome              success, failure (refused), or unknown (503)
//	event.type                 allowed, or denied; allowed with InsecureReportOnly
//	event.reason               a valetkey.Reason, if the request was refused
//	event.duration             nanoseconds, if they were measured: only with Grants, or another Observer
//	http.request.method        the method, or _OTHER for one that is not of RFC 9110 or RFC 5789
//	http.route                 the pattern of the route, if it is known
//	url.path                   the path, at most 256 bytes, if the route is not known
//	http.response.status_code  that of the refusal, or 200
//	user.id                    the subject of a verified token, see Identity
//	client.address             the address of the connection, without its port, or the one that Proxies report; see Identity
//	trace.id                   of a traceparent header (W3C Trace Context), or absent
//	http.request.id            see AuditOptions.RequestID
//	valetkey.issuer            the issuer of a verified token
//	valetkey.client            the client_id of a verified token, see Identity
//	valetkey.actor             the party that acts for the subject (act, RFC 8693), its sub or else its client_id, see Identity
//	valetkey.scope             the scopes that the route requires
//	valetkey.rules             the rules on claims that the route requires
//	valetkey.remembered        whether the token was cached
//	valetkey.report_only       true if the refusal was not enforced
//
// A record contains no token, proof, cookie, header, query or other claim.
type Auditor struct {
	o       AuditOptions
	handler slog.Handler
	queue   chan slog.Record // bounded by AuditOptions.Queue: any client can fill it, by being refused; see Dropped
	ended   chan struct{}    // closed when no more records are written
	close   sync.Once
	closing chan struct{}
	dropped atomic.Uint64
	limit   ratelog.Limit
}

// Audit returns an Auditor that writes to handler. It starts a goroutine that ends with [Auditor.Close]. The error joins every mistake,
// each a [valetkey.ConfigError].
func Audit(handler slog.Handler, o AuditOptions) (*Auditor, error) {
	wrong := mistakes.List{Package: "middleware: Audit"}
	if handler == nil {
		wrong.Add("handler", "required")
	}
	if !(o.Grants >= 0 && o.Grants <= 1) {
		wrong.Add("Grants", "%v is not from 0 to 1", o.Grants)
	}
	switch o.Identity = cmp.Or(o.Identity, IdentityClear); o.Identity {
	case IdentityClear, IdentityOmitted:
		if len(o.Key) > 0 {
			wrong.Add("Key", "has no effect unless the identity is hashed")
		}
	case IdentityHashed:
		if len(o.Key) < 32 {
			wrong.Add("Key", "has %d bytes; at least 32 are required", len(o.Key))
		}
	default:
		wrong.Add("Identity", "%q is not clear, hashed or omitted", o.Identity)
	}
	o.Proxies.check(&wrong, false)
	if o.Queue < 0 {
		wrong.Add("Queue", "%d is negative", o.Queue)
	}
	if err := wrong.Err(); err != nil {
		return nil, err
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	a := &Auditor{o: o, handler: handler, queue: make(chan slog.Record, cmp.Or(o.Queue, 1024)), ended: make(chan struct{}), closing: make(chan struct{})}
	go a.write()
	return a, nil
}

// Close writes the records in the queue and waits for them until ctx is done. Later events are dropped. It returns the error of ctx if
// records are left.
func (a *Auditor) Close(ctx context.Context) error {
	a.close.Do(func() { close(a.closing) })
	select {
	case <-a.ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Dropped returns the number of records that were dropped so far.
func (a *Auditor) Dropped() uint64 { return a.dropped.Load() }

func (a *Auditor) write() {
	defer close(a.ended)
	for {
		select {
		case r := <-a.queue:
			a.handle(r)
			continue
		case <-a.closing:
		}
		for { // what is in the queue
			select {
			case r := <-a.queue:
				a.handle(r)
			default:
				return
			}
		}
	}
}

func (a *Auditor) handle(r slog.Record) {
	defer func() { // in a goroutine without a server that recovers, a panic would end the process
		if v := recover(); v != nil {
			a.drop("the handler panicked", fmt.Errorf("%v", v))
		}
	}()
	ctx := context.Background() // that of the request may have ended
	if a.handler.Enabled(ctx, r.Level) {
		if err := a.handler.Handle(ctx, r); err != nil {
			a.drop("the handler failed", err)
		}
	}
}

// drop counts a record that is lost. Who causes many of them is in the records that were not dropped.
func (a *Auditor) drop(why string, err error) {
	a.dropped.Add(1)
	if n := a.limit.Permit(); n > 0 {
		a.o.Logger.Warn("audit records dropped", "why", why, "records", n, "err", err)
	}
}

// ObservesAccepted reports whether some accepted requests are recorded. It implements [valetkey.RefusalObserver].
func (a *Auditor) ObservesAccepted() bool { return a.o.Grants > 0 }

// Observe records a [valetkey.RequestDecided] event, and ignores others.
func (a *Auditor) Observe(ctx context.Context, e valetkey.Event) {
	if e.Kind != valetkey.RequestDecided {
		return
	}
	if e.Err == nil && rand.Float64() >= a.o.Grants { // from 0 to below 1
		return
	}
	r := a.record(e)
	select {
	case <-a.closing: // nothing may get into the queue any more: it would neither be written nor counted
		a.drop("the auditor is closed", nil)
		return
	default:
	}
	if a.o.Block {
		select {
		case a.queue <- r:
		case <-a.closing:
			a.drop("the auditor is closed", nil)
		}
		return
	}
	select {
	case a.queue <- r:
	default:
		a.drop("the queue is full", nil)
	}
}

// maxAuditPath is the length of a path in a record, in bytes.
const maxAuditPath = 256

func (a *Auditor) record(e valetkey.Event) slog.Record {
	level, outcome := slog.LevelInfo, "success"
	switch {
	case e.Err == nil:
	case e.Status >= http.StatusInternalServerError:
		level, outcome = slog.LevelError, "unknown"
	default:
		level, outcome = slog.LevelWarn, "failure"
	}
	kind := "allowed"
	if e.Err != nil && !e.ReportOnly {
		kind = "denied"
	}
	r := slog.NewRecord(time.Now(), level, "request decided", 0)
	add := func(name, value string) {
		if value != "" {
			r.AddAttrs(slog.String(name, value))
		}
	}
	add("event.outcome", outcome)
	add("event.type", kind)
	add("event.reason", string(e.Reason))
	if e.Duration > 0 {
		r.AddAttrs(slog.Int64("event.duration", e.Duration.Nanoseconds()))
	}
	r.AddAttrs(slog.Int("http.response.status_code", e.Status))
	if q := e.Request; q != nil {
		add("http.request.method", knownMethod(q.Method))
		if add("http.route", q.Pattern); q.Pattern == "" {
			path := q.URL.Path
			add("url.path", path[:min(len(path), maxAuditPath)])
		}
		add("client.address", a.identity(a.client(q)))
		add("trace.id", traceID(q.Header["Traceparent"]))
		if a.o.RequestID != nil {
			add("http.request.id", a.o.RequestID(q))
		}
	}
	if t := e.Token; t != nil {
		add("user.id", a.identity(t.Subject()))
		add("valetkey.issuer", t.Issuer())
		add("valetkey.client", a.identity(t.ClientID()))
		actor, _ := t.Actor()
		add("valetkey.actor", a.identity(cmp.Or(actor.Subject, actor.ClientID)))
	}
	needs := valetkey.Describe(e.Needs...)
	add("valetkey.scope", needs.Challenge.String())
	add("valetkey.rules", strings.Join(needs.Rules, " and "))
	r.AddAttrs(slog.Bool("valetkey.remembered", e.Remembered))
	if e.ReportOnly {
		r.AddAttrs(slog.Bool("valetkey.report_only", true))
	}
	return r
}

// client returns the address of the client.
func (a *Auditor) client(r *http.Request) string {
	if addr := a.o.Proxies.ClientAddr(r); addr.IsValid() {
		return addr.String()
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

func (a *Auditor) identity(s string) string {
	switch {
	case s == "" || a.o.Identity == IdentityOmitted:
		return ""
	case a.o.Identity == IdentityHashed:
		h := hmac.New(sha256.New, a.o.Key)
		h.Write([]byte(s))
		return hex.EncodeToString(h.Sum(nil)[:16])
	}
	return s
}

// knownMethod returns a method as OpenTelemetry does: a client chooses the text of others.
func knownMethod(m string) string {
	switch m {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodConnect, http.MethodOptions, http.MethodTrace:
		return m
	}
	return "_OTHER"
}

// traceID returns the trace-id of a traceparent header (W3C Trace Context, section 3.2), "" if it is malformed.
func traceID(lines []string) string {
	if len(lines) != 1 || len(lines[0]) < 55 || lines[0][2] != '-' || lines[0][35] != '-' {
		return ""
	}
	id := lines[0][3:35]
	if strings.ContainsFunc(id, func(c rune) bool { return (c < '0' || c > '9') && (c < 'a' || c > 'f') }) {
		return ""
	}
	return id
}
