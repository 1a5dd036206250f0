package middleware_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/valetkeytest"
)

// recorded returns the records of an Auditor that observes events directly, as behind valetkey.JoinObservers.
func recorded(t *testing.T, o middleware.AuditOptions, events ...valetkey.Event) (all []map[string]any) {
	t.Helper()
	var out lines
	o.Logger = quiet
	a, err := middleware.Audit(slog.NewJSONHandler(&out, nil), o)
	require.NoError(t, err)
	for _, e := range events {
		a.Observe(t.Context(), e)
	}
	require.NoError(t, a.Close(t.Context()))
	assert.Zero(t, a.Dropped())
	for line := range strings.Lines(out.buf.String()) {
		var r map[string]any
		require.NoError(t, json.Unmarshal([]byte(line), &r), line)
		all = append(all, r)
	}
	return all
}

// decided returns the event of a refused request that changed.
func decided(change func(*http.Request)) valetkey.Event {
	r := valetkeytest.Request("GET", "/orders/7?secret=x", "")
	change(r)
	return valetkey.Event{Kind: valetkey.RequestDecided, Status: 401, Err: errors.New("refused"), Request: r}
}

func TestAuditedEvents(t *testing.T) {
	refusal, grant := decided(func(*http.Request) {}), valetkey.Event{Kind: valetkey.RequestDecided, Status: 200}
	t.Run("a grant is recorded by its share, whatever another observer needs", func(t *testing.T) {
		assert.Empty(t, recorded(t, middleware.AuditOptions{}, grant))
		assert.Len(t, recorded(t, middleware.AuditOptions{Grants: 1}, grant, grant), 2)
		half := 0
		for range 10 {
			half += len(recorded(t, middleware.AuditOptions{Grants: 0.5}, grant, grant, grant, grant, grant, grant, grant, grant, grant, grant))
		}
		assert.InDelta(t, 50, half, 45, "neither all nor none of a hundred")
	})
	t.Run("events of other kinds are not", func(t *testing.T) {
		assert.Empty(t, recorded(t, middleware.AuditOptions{Grants: 1}, valetkey.Event{Kind: valetkey.KeySetRefreshed, Err: errors.New("down")}))
	})
	t.Run("a preflight, which is not a request to the API, is not recorded either", func(t *testing.T) {
		cors := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
		send, records, _ := audited(t, valetkeytest.NewIssuer(t), middleware.AuditOptions{}, func(c *middleware.Config) { c.Preflight = cors })
		r := valetkeytest.Request("OPTIONS", "/", "")
		r.Header.Set("Origin", "https://app.example")
		r.Header.Set("Access-Control-Request-Method", "GET")
		assert.Equal(t, 204, send(r))
		assert.Empty(t, records())
	})
	t.Run("a refusal that is not enforced is allowed, and marked", func(t *testing.T) {
		e := refusal
		e.ReportOnly = true
		for _, r := range recorded(t, middleware.AuditOptions{}, e) {
			assert.Equal(t, "allowed", r["event.type"])
			assert.Equal(t, true, r["valetkey.report_only"])
		}
		r := recorded(t, middleware.AuditOptions{}, refusal)[0]
		assert.Equal(t, "denied", r["event.type"])
		assert.NotContains(t, r, "valetkey.report_only")
	})
	for status, outcome := range map[int]string{400: "failure", 403: "failure", 499: "failure", 500: "unknown", 503: "unknown"} {
		t.Run("a refusal with status "+http.StatusText(status), func(t *testing.T) {
			e := refusal
			e.Status = status
			assert.Equal(t, outcome, recorded(t, middleware.AuditOptions{}, e)[0]["event.outcome"])
		})
	}
	t.Run("the path appears if the route is unknown, at most 256 bytes of it", func(t *testing.T) {
		long := "/" + strings.Repeat("x", 300)
		all := recorded(t, middleware.AuditOptions{}, refusal, decided(func(r *http.Request) { r.URL.Path = long }),
			decided(func(r *http.Request) { r.Pattern = "GET /orders/{id}" }))
		assert.Equal(t, "/orders/7", all[0]["url.path"])
		assert.NotContains(t, all[0], "http.route")
		assert.Equal(t, long[:256], all[1]["url.path"])
		assert.NotContains(t, all[2], "url.path")
		assert.Equal(t, "GET /orders/{id}", all[2]["http.route"])
	})
	t.Run("an address without a port is a client's too", func(t *testing.T) {
		all := recorded(t, middleware.AuditOptions{}, decided(func(r *http.Request) { r.RemoteAddr = "@socket" }), decided(func(r *http.Request) { r.RemoteAddr = "[2001:db8::1]:443" }),
			decided(func(r *http.Request) { r.RemoteAddr = "client.example:443" }))
		assert.Equal(t, "@socket", all[0]["client.address"])
		assert.Equal(t, "2001:db8::1", all[1]["client.address"])
		assert.Equal(t, "client.example", all[2]["client.address"])
	})
	t.Run("the address that trusted proxies report", func(t *testing.T) {
		of := func(addr string) valetkey.Event {
			return decided(func(r *http.Request) { r.RemoteAddr = addr; r.Header.Set("X-Forwarded-For", "198.51.100.9, 192.0.2.1") })
		}
		behind := middleware.AuditOptions{Proxies: middleware.Proxies{Trusted: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, Forwarded: middleware.XForwarded}}
		all := recorded(t, behind, of("203.0.113.5:443"), of("10.0.0.7:443"), of("@socket"))
		assert.Equal(t, "203.0.113.5", all[0]["client.address"], "not a trusted proxy")
		assert.Equal(t, "192.0.2.1", all[1]["client.address"])
		assert.Equal(t, "@socket", all[2]["client.address"])
		assert.Equal(t, "10.0.0.7", recorded(t, middleware.AuditOptions{}, of("10.0.0.7:443"))[0]["client.address"], "no proxies are trusted")
	})
	t.Run("AUDIT-03 what is absent has no hash", func(t *testing.T) {
		e := decided(func(r *http.Request) { r.RemoteAddr = "" })
		assert.NotContains(t, recorded(t, middleware.AuditOptions{Identity: middleware.IdentityHashed, Key: bytes.Repeat([]byte{1}, 32)}, e)[0], "client.address")
	})
	const id = "4bf92f3577b34da6a3ce929d0e0e4736"
	for name, c := range map[string]struct {
		lines []string
		want  any
	}{
		"two lines":             {[]string{"00-" + id + "-00f067aa0ba902b7-01", "00-" + id + "-00f067aa0ba902b7-01"}, nil},
		"cut off":               {[]string{"00-" + id + "-00f067aa0ba902b7-0"}, nil},
		"no hyphen before it":   {[]string{"000" + id + "-00f067aa0ba902b7-01"}, nil},
		"no hyphen after it":    {[]string{"00-" + id + "000f067aa0ba902b7-01"}, nil},
		"a space in it":         {[]string{"00-4bf92f3577b34da6 3ce929d0e0e4736-00f067aa0ba902b7-01"}, nil},
		"a capital in it":       {[]string{"00-4BF92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}, nil},
		"a character after f":   {[]string{"00-4bg92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}, nil},
		"a character before 0":  {[]string{"00-4b/92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}, nil},
		"a colon, which is a 9": {[]string{"00-4b:92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}, nil},
		"a backquote before a":  {[]string{"00-4b`92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}, nil},
		"the ends of the range": {[]string{"00-0099aaff0099aaff0099aaff0099aaff-00f067aa0ba902b7-01"}, "0099aaff0099aaff0099aaff0099aaff"},
		"a later version":       {[]string{"cc-" + id + "-00f067aa0ba902b7-01-more"}, id},
	} {
		t.Run("a trace with "+name, func(t *testing.T) {
			e := decided(func(r *http.Request) { r.Header["Traceparent"] = c.lines })
			assert.Equal(t, c.want, recorded(t, middleware.AuditOptions{}, e)[0]["trace.id"])
		})
	}
	t.Run("a share below 0 is a mistake", func(t *testing.T) {
		_, err := middleware.Audit(slog.DiscardHandler, middleware.AuditOptions{Proxies: middleware.Proxies{Forwarded: "Via"}})
		assert.ErrorContains(t, err, `Proxies.Forwarded: "Via" is not supported`)
		_, err = middleware.Audit(slog.DiscardHandler, middleware.AuditOptions{Grants: -0.1})
		assert.ErrorContains(t, err, "Grants: -0.1 is not from 0 to 1")
	})
}

// A picky handler has a level, and cannot write.
type picky struct {
	slog.Handler
	level slog.Level
}

func (p picky) Enabled(_ context.Context, l slog.Level) bool { return l >= p.level }
func (picky) Handle(context.Context, slog.Record) error      { return errors.New("the disk is full") }

func TestAuditWithAHandlerThatFails(t *testing.T) {
	refusal := valetkey.Event{Kind: valetkey.RequestDecided, Status: 401, Err: errors.New("refused")}
	for name, c := range map[string]struct {
		level   slog.Level
		dropped uint64
	}{
		"AUDIT-04 what it cannot write is dropped":       {slog.LevelInfo, 3},
		"a level that it does not want is not a failure": {slog.LevelError, 0},
	} {
		t.Run(name, func(t *testing.T) {
			var out lines
			a, err := middleware.Audit(picky{level: c.level}, middleware.AuditOptions{Logger: slog.New(slog.NewTextHandler(&out, nil))})
			require.NoError(t, err)
			for range 3 {
				a.Observe(t.Context(), refusal)
			}
			require.NoError(t, a.Close(t.Context()))
			assert.Equal(t, c.dropped, a.Dropped())
			assert.Equal(t, min(1, int(c.dropped)), strings.Count(out.buf.String(), "the disk is full"), "one line a minute")
		})
	}
	t.Run("AUDIT-04 after Close, a record is dropped once, with Block too", func(t *testing.T) {
		for _, block := range []bool{false, true} {
			var out lines
			a, err := middleware.Audit(slog.NewTextHandler(&out, nil), middleware.AuditOptions{Block: block, Queue: 1, Logger: quiet})
			require.NoError(t, err)
			require.NoError(t, a.Close(t.Context()))
			for range 4 {
				a.Observe(t.Context(), refusal)
			}
			assert.EqualValues(t, 4, a.Dropped())
		}
	})
	t.Run("without a Logger, the default one reports what is dropped", func(t *testing.T) {
		var out lines
		before := slog.Default()
		slog.SetDefault(slog.New(slog.NewTextHandler(&out, nil)))
		t.Cleanup(func() { slog.SetDefault(before) })
		a, err := middleware.Audit(picky{}, middleware.AuditOptions{})
		require.NoError(t, err)
		a.Observe(t.Context(), refusal)
		require.NoError(t, a.Close(t.Context()))
		assert.Contains(t, out.buf.String(), "audit records dropped")
	})
}
