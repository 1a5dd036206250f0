package proxy

import (
	"context"
	"crypto/rand"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/middleware"
)

const requestIDHeader = "X-Request-Id"

// A visit is a request in progress and what is known about it. It is the context of the request, and is used by one goroutine at a
// time.
type visit struct {
	context.Context
	id       string      // of the request, for logs
	identity http.Header // of the caller, for the upstream; nil: none
	started  time.Time

	forwarded bool // an upstream has received the request, or was to
	decision
}

// A decision is the content of a line of the access log.
type decision struct {
	row        string // pattern of the matching route; "": none
	status     int    // of the response to the client; 0: unknown
	refused    bool
	reportOnly bool // the request was let through nevertheless: insecure_report_only
	reason     valetkey.Reason
	issuer     string // of the token, if it was accepted
}

type visitKey struct{}

// Value returns v itself for visitKey.
func (v *visit) Value(key any) any {
	if key == (visitKey{}) {
		return v
	}
	return v.Context.Value(key)
}

// visitOf returns the visit of a request, or nil if ctx is not that of one.
func visitOf(ctx context.Context) *visit {
	v, _ := ctx.Value(visitKey{}).(*visit)
	return v
}

// newVisit returns r with its visit as the context. The ID comes from a trusted proxy, or else is a new one.
func newVisit(r *http.Request, proxies middleware.Proxies) (*visit, *http.Request) {
	v := &visit{Context: r.Context(), started: time.Now()}
	if ids := r.Header[requestIDHeader]; len(ids) == 1 && isRequestID(ids[0]) && proxies.Trusts(r) {
		v.id = ids[0]
	} else {
		v.id = rand.Text()
	}
	return v, r.WithContext(v)
}

// isRequestID reports whether a text is suitable as the ID of a request: 1 to 128 letters, digits and the punctuation of UUIDs, base64
// and trace IDs.
func isRequestID(s string) bool {
	return s != "" && len(s) <= 128 && !strings.ContainsFunc(s, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune("-._~+/=:@", c)
	})
}

// withRequestID is a slog.Handler that adds the ID of the request to which a line belongs.
type withRequestID struct{ slog.Handler }

func (h withRequestID) Handle(ctx context.Context, line slog.Record) error {
	if v := visitOf(ctx); v != nil {
		line = line.Clone()
		line.AddAttrs(slog.String("request_id", v.id))
	}
	return h.Handler.Handle(ctx, line)
}

func (h withRequestID) WithAttrs(attrs []slog.Attr) slog.Handler {
	return withRequestID{h.Handler.WithAttrs(attrs)}
}

func (h withRequestID) WithGroup(name string) slog.Handler {
	return withRequestID{h.Handler.WithGroup(name)}
}
