package proxy

import (
	"context"
	"maps"
	"net/http"
	"strings"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/middleware"
)

// auditWait is how long the records in the queue may take when a configuration ends. A log that does not take them by then is lost anyway.
const auditWait = 5 * time.Second

// auditNames maps the fields of middleware.AuditOptions to their names in the section.
var auditNames = map[string]string{"Grants": "grants", "Identity": "identity", "Key": "key", "Queue": "queue"}

// auditor returns the observer that writes the audit records, to the log without its limits; nil: none.
func (f *file) auditor(p *Proxy) valetkey.Observer {
	s := f.Audit
	if s == nil || f.rehearsal != nil {
		return nil
	}
	o := middleware.AuditOptions{
		Grants: float64(s.Grants), Identity: middleware.Identity(s.Identity), Key: f.Key(s.Key), Queue: s.Queue, Block: s.Block,
		Proxies: f.proxies(), RequestID: requestIDOf, Logger: f.log,
	}
	names := auditNames
	for _, suffix := range []string{"", "_file", "_env"} {
		switch field := "audit.key" + suffix; {
		case f.Wrong(field):
			return nil
		case f.Given(field):
			names = maps.Clone(auditNames)
			names["Key"] = "key" + suffix
		}
	}
	if o.Proxies.Forwarded == "" { // they report no addresses
		o.Proxies = middleware.Proxies{}
	}
	a, err := middleware.Audit(f.log.Handler(), o)
	if err != nil {
		for _, m := range valetkey.ConfigErrors(err) {
			if !strings.HasPrefix(m.Field, "Proxies") { // the guard reports these
				f.Blame("audit", m, names)
			}
		}
		return nil
	}
	p.auditor = a
	p.close = append(p.close, func() {
		ctx, cancel := context.WithTimeout(context.Background(), auditWait)
		defer cancel()
		_ = a.Close(ctx) // the rest is not counted as dropped: the process ends, or the log hangs
	})
	if f.authorize {
		return ofGateway{a}
	}
	return a
}

// requestIDOf returns the ID of a request: that of its visit, or else the one that a gateway reports.
func requestIDOf(r *http.Request) string {
	if v := visitOf(r.Context()); v != nil {
		return v.id
	}
	if id := r.Header.Get(requestIDHeader); isRequestID(id) {
		return id
	}
	return ""
}

// ofGateway records requests without an address: that of the connection is the gateway's, and not the client's.
type ofGateway struct{ *middleware.Auditor }

func (o ofGateway) Observe(ctx context.Context, e valetkey.Event) {
	if e.Request != nil {
		r := *e.Request
		r.RemoteAddr, e.Request = "", &r
	}
	o.Auditor.Observe(ctx, e)
}
