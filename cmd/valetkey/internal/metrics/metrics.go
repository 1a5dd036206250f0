// Package metrics counts the events of guards and verifiers and writes them in the text format of Prometheus.
//
// The client library of Prometheus and the exporter of OpenTelemetry are each larger than the rest of the proxy. The format is a few
// lines of text per metric, and a proxy has a fixed set of metrics, so this package writes them itself. Programs in Go use
// adapters/valetotel.
package metrics

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/web"
)

// ContentType is the media type of the format.
const ContentType = "text/plain; version=0.0.4; charset=utf-8"

// maxSeries bounds the number of counters. Their labels are bounded sets, except for the issuers where tokens of any tenant are
// accepted: a tenant fills them with one valid token. Events that would need another counter are counted with the issuer "other", so no
// event is lost, and only the issuers of further tenants are.
const maxSeries = 1024

// An Observer is a [valetkey.Observer] that counts. It is safe for concurrent use. Observing an event that has a counter neither locks
// nor allocates.
type Observer struct {
	counters atomic.Pointer[map[series]*atomic.Uint64]
	adding   sync.Mutex
	took     [len(buckets) + 1]atomic.Uint64 // decisions by duration
	sum      atomic.Int64                    // nanoseconds
}

// A series identifies a counter.
type series struct {
	kind       valetkey.EventKind
	issuer     string
	status     int
	reason     valetkey.Reason
	remembered bool
}

// buckets are the upper bounds of the durations of decisions. A cached token takes microseconds, and a call to an issuer up to
// seconds.
var buckets = [...]time.Duration{
	10 * time.Microsecond, 50 * time.Microsecond, 100 * time.Microsecond, 500 * time.Microsecond, time.Millisecond,
	5 * time.Millisecond, 25 * time.Millisecond, 100 * time.Millisecond, 500 * time.Millisecond, 2 * time.Second, 10 * time.Second,
}

// New returns an Observer.
func New() *Observer {
	o := new(Observer)
	o.counters.Store(&map[series]*atomic.Uint64{})
	return o
}

// Observe implements [valetkey.Observer].
func (o *Observer) Observe(_ context.Context, e valetkey.Event) {
	s := series{kind: e.Kind, issuer: e.Issuer, status: e.Status}
	if e.Kind == valetkey.RequestDecided {
		s.reason, s.remembered = e.Reason, e.Remembered
		i, _ := slices.BinarySearch(buckets[:], e.Duration)
		o.took[i].Add(1)
		o.sum.Add(int64(e.Duration))
	}
	n := (*o.counters.Load())[s]
	if n == nil {
		n = o.add(s)
	}
	n.Add(1)
}

func (o *Observer) add(s series) *atomic.Uint64 {
	o.adding.Lock()
	defer o.adding.Unlock()
	all := *o.counters.Load()
	if len(all) >= maxSeries {
		s.issuer = "other"
	}
	if n := all[s]; n != nil {
		return n
	}
	all = maps.Clone(all)
	all[s] = new(atomic.Uint64)
	o.counters.Store(&all)
	return all[s]
}

// names are the metrics of the events, with their descriptions.
var names = []struct {
	kind       valetkey.EventKind
	name, help string
}{
	{valetkey.RequestDecided, "valetkey_requests_total", "Requests decided, by the status of the decision: 200 if the request was accepted."},
	{valetkey.KeySetRefreshed, "valetkey_key_set_refreshes_total", "Fetches of key sets, by the status of the response: 0 if there was none."},
	{valetkey.IssuerAsked, "valetkey_issuer_calls_total", "Introspection requests, by the status of the response: 0 if there was none."},
	{valetkey.StatusListRead, "valetkey_status_list_reads_total", "Fetches of status lists, by the status of the response: 0 if there was none."},
}

// WriteTo writes the counters.
func (o *Observer) WriteTo(w *Writer) {
	all := *o.counters.Load()
	for _, m := range names {
		w.Describe(m.name, "counter", m.help)
		of := slices.SortedFunc(maps.Keys(all), func(a, b series) int {
			return cmp.Or(cmp.Compare(a.issuer, b.issuer), cmp.Compare(a.status, b.status), cmp.Compare(a.reason, b.reason), compareBool(a.remembered, b.remembered))
		})
		for _, s := range of {
			if s.kind != m.kind {
				continue
			}
			labels := []string{"issuer", s.issuer, "status", strconv.Itoa(s.status)}
			if s.kind == valetkey.RequestDecided {
				labels = append(labels, "reason", string(s.reason), "cached", strconv.FormatBool(s.remembered))
			}
			w.Sample(m.name, float64(all[s].Load()), labels...)
		}
	}
	const took = "valetkey_decision_duration_seconds"
	w.Describe(took, "histogram", "Duration of decisions.")
	total := uint64(0)
	for i := range o.took {
		total += o.took[i].Load()
		bound := "+Inf"
		if i < len(buckets) {
			bound = strconv.FormatFloat(buckets[i].Seconds(), 'g', -1, 64)
		}
		w.Sample(took+"_bucket", float64(total), "le", bound)
	}
	w.Sample(took+"_sum", time.Duration(o.sum.Load()).Seconds())
	w.Sample(took+"_count", float64(total))
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// A Writer writes metrics. Its first error is that of Flush.
type Writer struct{ w *bufio.Writer }

// NewWriter returns a Writer on w.
func NewWriter(w io.Writer) *Writer { return &Writer{bufio.NewWriter(w)} }

// Describe writes the help and the type of a metric: counter, gauge or histogram. Its samples must follow.
func (w *Writer) Describe(name, kind, help string) {
	fmt.Fprintf(w.w, "# HELP %s %s\n# TYPE %s %s\n", name, escapeHelp.Replace(help), name, kind)
}

// Sample writes one value with labels, which are names and values in turn.
func (w *Writer) Sample(name string, value float64, labels ...string) {
	w.w.WriteString(name)
	for i := 0; i+1 < len(labels); i += 2 {
		w.w.WriteString(map[bool]string{true: "{", false: ","}[i == 0])
		fmt.Fprintf(w.w, `%s="%s"`, labels[i], escape.Replace(strings.ToValidUTF8(labels[i+1], "\ufffd")))
	}
	if len(labels) > 0 {
		w.w.WriteByte('}')
	}
	fmt.Fprintf(w.w, " %s\n", strconv.FormatFloat(value, 'g', -1, 64))
}

// Gauge describes and writes a gauge without labels.
func (w *Writer) Gauge(name, help string, value float64) {
	w.Describe(name, "gauge", help)
	w.Sample(name, value)
}

// Counter describes and writes a counter without labels.
func (w *Writer) Counter(name, help string, value float64) {
	w.Describe(name, "counter", help)
	w.Sample(name, value)
}

// Process writes the metrics of a process, whose configuration was loaded at the given time.
func (w *Writer) Process(own web.Status, loaded time.Time) {
	w.Describe("valetkey_reloads_total", "counter", "Reloads of the configuration.")
	w.Sample("valetkey_reloads_total", float64(own.Reloads.Done), "result", "done")
	w.Sample("valetkey_reloads_total", float64(own.Reloads.Failed), "result", "failed")
	w.Gauge("valetkey_config_loaded_timestamp_seconds", "When the configuration in use was loaded.", float64(loaded.UnixMilli())/1000)
	w.Describe("valetkey_build_info", "gauge", "The version of this command.")
	w.Sample("valetkey_build_info", 1, "version", own.Version)
	w.Gauge("process_start_time_seconds", "When this process began to serve.", float64(own.Started.UnixMilli())/1000)
	w.Gauge("go_goroutines", "Goroutines.", float64(runtime.NumGoroutine()))
}

// Flush writes what is buffered.
func (w *Writer) Flush() error { return w.w.Flush() }

// escape is for the values of labels, which are UTF-8, and escapeHelp for descriptions, where a quote is not escaped.
var (
	escape     = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)
	escapeHelp = strings.NewReplacer(`\`, `\\`, "\n", `\n`)
)
