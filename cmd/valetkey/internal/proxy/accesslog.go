package proxy

import (
	"cmp"
	"context"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/middleware"
)

// An accessLog writes a line for each decision of a guard. A line contains no path, query, token or other claim than the issuer.
type accessLog struct {
	log     *slog.Logger
	mode    string // "all", "refusals" or "off"
	proxies middleware.Proxies
	rows    map[string]valetkey.Requirement // the table
}

// accessLogMode returns which decisions have a line. Audit records contain the same and more.
func (f *file) accessLogMode() string {
	if f.Audit != nil {
		return cmp.Or(f.AccessLog, "off")
	}
	return cmp.Or(f.AccessLog, "refusals")
}

// ObservesAccepted reports whether accepted requests are logged. It implements [valetkey.RefusalObserver].
func (a *accessLog) ObservesAccepted() bool { return a.mode == "all" }

// Observe records the decision of a guard in the visit of the request, whose line is written when the response is. A request of a
// gateway has no visit, and gets its line now, without a time if none was measured.
func (a *accessLog) Observe(ctx context.Context, e valetkey.Event) {
	if e.Kind != valetkey.RequestDecided || e.Request == nil {
		return
	}
	d := decision{row: a.row(e.Request), status: e.Status, refused: e.Err != nil, reason: e.Reason, issuer: e.Issuer, reportOnly: e.ReportOnly}
	if v := visitOf(ctx); v != nil {
		v.decision = d
		return
	}
	var ids []slog.Attr
	if id := e.Request.Header.Get(requestIDHeader); isRequestID(id) {
		ids = append(ids, slog.String("request_id", id))
	}
	a.write(ctx, e.Request, d, "caller", e.Duration, ids...)
}

// row returns the pattern of the row that r matches, or "" if none does.
func (a *accessLog) row(r *http.Request) string {
	if _, ok := a.rows[r.Pattern]; ok {
		return r.Pattern
	}
	return ""
}

// reportOnly returns the rows whose refusals are not enforced although those of others are.
func (a *accessLog) reportOnly() (rows []string) {
	for row, need := range a.rows {
		if _, ok := need.(valetkey.InsecureReportOnly); ok {
			rows = append(rows, row)
		}
	}
	slices.Sort(rows)
	return rows
}

// end writes the line of a visit. r is its request.
func (a *accessLog) end(v *visit, r *http.Request) {
	if v.refused || v.status != 0 { // otherwise nothing was decided, as for a preflight
		a.write(v, r, v.decision, "client", time.Since(v.started))
	}
}

// write writes a line about r, which has the address of sender.
func (a *accessLog) write(ctx context.Context, r *http.Request, d decision, sender string, took time.Duration, more ...slog.Attr) {
	if a.mode == "off" || a.mode != "all" && !d.refused {
		return
	}
	attrs := append(more, slog.String("method", known(r.Method)), slog.String("row", d.row), slog.Int("status", d.status))
	if d.refused {
		attrs = append(attrs, slog.String("reason", cmp.Or(string(d.reason), "unavailable")))
	}
	if d.reportOnly {
		attrs = append(attrs, slog.Bool("report_only", true))
	}
	if d.issuer != "" {
		attrs = append(attrs, slog.String("issuer", d.issuer))
	}
	if addr := a.proxies.ClientAddr(r); addr.IsValid() {
		attrs = append(attrs, slog.String(sender, addr.String()))
	}
	if took > 0 {
		attrs = append(attrs, slog.Float64("ms", float64(took.Microseconds())/1000))
	}
	a.log.LogAttrs(ctx, slog.LevelInfo, "decision", attrs...)
}

// known returns a method of RFC 9110 or RFC 5789, or OTHER, because a client chooses the text and the length of others.
func known(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodConnect,
		http.MethodOptions, http.MethodTrace:
		return method
	}
	return "OTHER"
}
