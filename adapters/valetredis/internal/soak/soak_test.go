package soak_test

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	mathrand "math/rand/v2"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/adapters/valetredis"
	"github.com/valetkey/valetkey/valetkeytest"
)

var (
	duration = flag.Duration("soak", 10*time.Second, "how long the replicas run")
	rate     = flag.Int("rate", 50, "requests per second, at most")
	update   = flag.Bool("update", false, "write the table into docs/faults.md")
)

const (
	document = "../../../../docs/faults.md"
	heading  = "\n## Endurance\n"

	workers = 6 // requests in progress, besides streams

	// What the replica that runs all the time may use more at the end than after the warm-up. A pool of connections to Redis or to an
	// endpoint keeps what the last fault made it open, hence some room for goroutines and descriptors: there are at most 64
	// connections to introspection, and 20 to Redis. A leak of one for each fault, rotation or revocation exceeds it within minutes.
	moreHeap        = 8 << 20
	moreResident    = 96 << 20
	moreGoroutines  = 24
	moreDescriptors = 24
)

// A world is the replicas, what they depend on, and what happened.
type world struct {
	t       *testing.T
	history *history
	issuers []*issuer
	hostile *valetkeytest.Issuer
	redis   *redisServer
	shared  *valetredis.Redis // of the process that publishes revocations
	proofs  []*valetkeytest.ProofKey
	steady  *replica // runs all the time
	other   *replica // stops and starts

	// gate is held for reading by everything that happens, and for writing by a measurement, when nothing happens.
	gate    sync.RWMutex
	streams struct {
		sync.WaitGroup
		mu     sync.Mutex
		ctx    context.Context
		cancel context.CancelFunc
	}

	mu       sync.Mutex // guards what follows
	made     int
	pool     []*token
	forged   map[*issuer][]forgery
	forgedAt map[*issuer]time.Time

	report
}

// A report is the result of a run.
type report struct {
	mu       sync.Mutex
	begun    time.Time
	length   time.Duration
	requests map[string]map[int]int // kind, status
	excuses  map[string]int
	events   map[string]int
	bad      []string // the first violations
	badCount int

	unavailable, answered int
	warm, last            stats
	warmAfter             time.Duration
}

const shown = 50 // violations

func (r *report) count(event string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events[event]++
}

func (r *report) violation(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.badCount++
	if len(r.bad) < shown {
		r.bad = append(r.bad, fmt.Sprintf("%.3f s: ", time.Since(r.begun).Seconds())+fmt.Sprintf(format, args...))
	}
}

// record judges the response to a request with the token.
func (w *world) record(tok *token, f facts, s sight, r *replica) {
	v, why := judge(w.history, f, s)
	w.report.mu.Lock()
	if w.requests[tok.kind] == nil {
		w.requests[tok.kind] = map[int]int{}
	}
	w.requests[tok.kind][s.status]++
	w.answered++
	switch v {
	case excused:
		w.excuses[why]++
	case unavailable:
		w.unavailable++
		w.excuses[why]++
	}
	w.report.mu.Unlock()
	if v == wrongAccept || v == wrongRefusal || v == strange {
		w.violation("%s, replica %s, took %v: %s", tok.kind, r.name, s.answered.Sub(s.sent).Round(time.Millisecond), why)
	}
}

// send sends a request with the token and records the response. Its status is 0 if there was none.
func (w *world) send(r *replica, tok *token, authorize func(*http.Request)) (status int) {
	life, started := r.currentLife()
	sent := time.Now()
	res, err := r.get(context.Background(), "/orders", authorize)
	answered := time.Now()
	if err != nil {
		w.noAnswer(r, sent, answered, err)
		return 0
	}
	w.record(tok, tok.factsAt(r, w.sameLife(r, life)), sight{sent, answered, res.StatusCode, w.fresh(r, started, sent)}, r)
	return res.StatusCode
}

// sameLife returns life if the replica is still the same process.
func (w *world) sameLife(r *replica, life int) int {
	if now, _ := r.currentLife(); now != life {
		return -1
	}
	return life
}

func (w *world) noAnswer(r *replica, sent, answered time.Time, err error) {
	if r == w.other && w.history.troubled(replicaTarget, sent, answered) {
		w.count("requests without a response, to a replica that stopped")
		return
	}
	w.violation("replica %s, took %v: %v", r.name, answered.Sub(sent), err)
}

// fresh returns the targets that matter to the replica because it has just started.
func (w *world) fresh(r *replica, started, sent time.Time) []string {
	if r == w.steady || sent.Sub(started) > starts {
		return nil
	}
	targets := []string{replicaTarget, redisTarget, introspectionTarget}
	for _, iss := range w.issuers {
		targets = append(targets, iss.target)
	}
	return targets
}

func (w *world) replica() *replica {
	if mathrand.IntN(2) == 0 {
		return w.steady
	}
	return w.other
}

// request sends one request, or two with one proof.
func (w *world) request() {
	switch dice := mathrand.IntN(100); {
	case dice < 30: // a token that no replica has seen
		tok := w.newToken(lifetime())
		w.put(tok)
		w.send(w.replica(), tok, tok.authorize("/orders"))
	case dice < 70:
		if tok := w.pick(func(*token) bool { return true }); tok != nil {
			w.send(w.replica(), tok, tok.authorize("/orders"))
		}
	case dice < 75:
		tok := w.pick(func(tok *token) bool { return tok.proof != nil })
		if tok == nil {
			return
		}
		authorize := tok.authorize("/orders") // one proof
		first := w.send(w.steady, tok, authorize)
		res, err := w.other.get(context.Background(), "/orders", authorize)
		if err != nil {
			return // the replica is starting, which send would count
		}
		w.count("proofs repeated")
		if first == http.StatusNoContent && res.StatusCode == http.StatusNoContent {
			w.violation("%s: both replicas accepted one proof", tok.kind)
		}
	default:
		tok, authorize := w.badToken()
		w.send(w.replica(), tok, authorize)
	}
}

// lifetime returns one that is short mostly, and sometimes longer than that of a key.
func lifetime() time.Duration {
	if mathrand.IntN(4) == 0 {
		return 60 * time.Second
	}
	return 3*time.Second + mathrand.N(12*time.Second)
}

// revokeOne revokes a token that is in use, in one of the ways.
func (w *world) revokeOne(ctx context.Context, turn int) {
	way := turn % 4
	tok := w.pick(func(tok *token) bool {
		tok.mu.Lock()
		defer tok.mu.Unlock()
		return !tok.revoked && time.Until(tok.exp) > time.Second && (way != 0 || tok.opaque)
	})
	if tok == nil {
		return
	}
	tok.mu.Lock()
	tok.revoked = true
	tok.mu.Unlock()
	var err error
	switch way {
	case 0:
		w.count("revocations at the issuer")
		err = tok.revoke(func(tok *token) *change { return &tok.asked }, func() error { tok.iss.Revoke(tok.raw); return nil })
	case 1:
		w.count("revocations at a guard")
		r := w.replica()
		life, _ := r.currentLife()
		tok.mu.Lock()
		tok.where, tok.life = r, life
		tok.mu.Unlock()
		sent := time.Now()
		err = tok.revoke(func(tok *token) *change { return &tok.guard }, func() error { return r.revoke(tok.iss.URL, tok.id) })
		if err != nil && r == w.other && w.history.troubled(replicaTarget, sent, time.Now()) {
			err = nil
		}
	default:
		w.count("revocations through Redis")
		revoked := valetkey.Revocation{Issuer: tok.iss.URL, ID: tok.id, Until: tok.exp}
		if way == 3 {
			revoked.ID, revoked.Subject = "", tok.id
		}
		err = tok.revoke(func(tok *token) *change { return &tok.told }, func() (err error) {
			for begun := time.Now(); time.Since(begun) < starts && ctx.Err() == nil; time.Sleep(50 * time.Millisecond) {
				if err = w.shared.Publish(ctx, revoked); err == nil {
					return nil
				}
			}
			return err
		})
		if ctx.Err() != nil {
			err = nil
		}
	}
	if err != nil {
		w.violation("revoking: %v", err)
	}
}

// stream opens a stream that must end with its token.
func (w *world) stream() {
	r, tok := w.replica(), w.newToken(3*time.Second+mathrand.N(7*time.Second))
	w.put(tok) // to be revoked
	w.streams.mu.Lock()
	ctx := w.streams.ctx
	w.streams.mu.Unlock()
	life, started := r.currentLife()
	sent := time.Now()
	res, err := r.get(ctx, "/stream", tok.authorize("/stream"))
	if err != nil {
		w.noAnswer(r, sent, time.Now(), err)
		return
	}
	if res.StatusCode != http.StatusOK {
		res.Body.Close()
		w.record(tok, tok.factsAt(r, w.sameLife(r, life)), sight{sent, time.Now(), res.StatusCode, w.fresh(r, started, sent)}, r)
		return
	}
	w.count("streams")
	w.streams.Go(func() {
		defer res.Body.Close()
		complete := false
		lines := bufio.NewScanner(res.Body)
		for lines.Scan() {
			complete = lines.Text() == "end"
		}
		ended := time.Now()
		switch {
		case ctx.Err() != nil: // a measurement, or the end of the test
		case complete:
			w.count("streams that ended with their token")
			if v, why := judgeStream(w.history, tok.factsAt(r, w.sameLife(r, life)), ended); v != right {
				w.violation("%s, replica %s: %s", tok.kind, r.name, why)
			}
		case r == w.other && w.history.troubled(replicaTarget, sent, ended):
			w.count("streams that ended with their replica")
		default:
			w.violation("%s, replica %s: the stream broke: %v", tok.kind, r.name, lines.Err())
		}
	})
}

// A fault begins, and returns how it ends.
type fault struct {
	name, target string
	begin        func() (end func() error, err error)
}

func (w *world) faults() (all []fault) {
	kinds := []struct {
		name  string
		begin func(*valetkeytest.Endpoint)
	}{
		{"down", func(e *valetkeytest.Endpoint) { e.Down() }},
		{"slow", func(e *valetkeytest.Endpoint) { e.Slow(4 * time.Second) }},
		{"reset", func(e *valetkeytest.Endpoint) { e.Reset() }},
		{"500", func(e *valetkeytest.Endpoint) { e.Fail(500) }},
		{"truncated", func(e *valetkeytest.Endpoint) { e.Truncated() }},
		{"HTML", func(e *valetkeytest.Endpoint) { e.Garbage() }},
		{"empty", func(e *valetkeytest.Endpoint) { e.Empty() }},
	}
	endpoint := func(turn int, target string, e *valetkeytest.Endpoint) fault {
		kind := kinds[turn%len(kinds)]
		return fault{kind.name, target, func() (func() error, error) {
			kind.begin(e)
			return func() error { e.Restore(); return nil }, nil
		}}
	}
	for turn := range len(kinds) {
		all = append(all,
			endpoint(turn, introspectionTarget, w.issuers[0].Introspection),
			fault{"killed", redisTarget, func() (func() error, error) { w.redis.kill(); return w.redis.start, nil }},
		)
		for i, iss := range w.issuers {
			all = append(all, endpoint(turn+i, iss.target, iss.KeySet))
		}
		all = append(all, fault{"stands still", redisTarget, func() (func() error, error) {
			return func() error { return w.redis.cmd.Process.Signal(syscall.SIGCONT) }, w.redis.cmd.Process.Signal(syscall.SIGSTOP)
		}})
	}
	return all
}

// fail lets one fault begin and end.
func (w *world) fail(ctx context.Context, f fault) {
	w.count("faults: " + targetKind(f.target) + " " + f.name)
	w.history.begin(f.target)
	end, err := f.begin()
	if err != nil {
		w.violation("%s %s: %v", f.target, f.name, err)
	}
	pause(ctx, 3*time.Second)
	if err := end(); err != nil {
		w.violation("%s %s: %v", f.target, f.name, err)
	}
	w.history.end(f.target)
}

func targetKind(target string) string {
	if strings.HasPrefix(target, "key set") {
		return "key set"
	}
	return target
}

// restart stops the other replica and starts it again.
func (w *world) restart(kill bool) {
	w.count(map[bool]string{true: "replicas killed", false: "replicas stopped"}[kill])
	w.history.begin(replicaTarget)
	defer w.history.end(replicaTarget)
	if err := w.other.stop(kill); err != nil {
		w.violation("%v", err)
	}
	w.other.client.CloseIdleConnections()
	if err := w.other.start(); err != nil {
		w.violation("%v", err)
		return
	}
	if err := w.other.awaitReady(2 * starts); err != nil {
		w.violation("%v", err)
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// each does something now and then, while no measurement is made.
func (w *world) each(ctx context.Context, all *sync.WaitGroup, every time.Duration, do func(turn int)) {
	all.Go(func() {
		for turn := 0; ; turn++ {
			pause(ctx, every)
			if ctx.Err() != nil {
				return
			}
			w.gate.RLock()
			do(turn)
			w.gate.RUnlock()
		}
	})
}

// measure returns what the steady replica uses when nothing happens.
func (w *world) measure() stats {
	w.streams.mu.Lock()
	w.streams.cancel()
	w.streams.mu.Unlock()
	w.gate.Lock()
	defer w.gate.Unlock()
	w.streams.mu.Lock()
	w.streams.cancel()
	w.streams.mu.Unlock()
	w.streams.Wait()
	w.streams.mu.Lock()
	w.streams.ctx, w.streams.cancel = context.WithCancel(context.Background())
	w.streams.mu.Unlock()
	w.steady.client.CloseIdleConnections()
	s, err := w.steady.stats()
	if err != nil {
		w.violation("measuring: %v", err)
	}
	return s
}

func newWorld(t *testing.T, reportOnly bool) *world {
	w := &world{t: t, history: new(history), redis: startRedis(t), hostile: valetkeytest.NewIssuer(t)}
	w.forged, w.forgedAt = map[*issuer][]forgery{}, map[*issuer]time.Time{}
	w.requests, w.excuses, w.events = map[string]map[int]int{}, map[string]int{}, map[string]int{}
	var urls []string
	for i := range 3 {
		iss := newIssuer(t, i+1)
		w.issuers, urls = append(w.issuers, iss), append(urls, iss.URL)
	}
	for range 2 {
		w.proofs = append(w.proofs, w.issuers[0].ProofKey("ES256"))
	}
	sealing := make([]byte, 32)
	_, _ = rand.Read(sealing)
	client := redis.NewClient(&redis.Options{Addr: w.redis.addr, ContextTimeoutEnabled: true, DialerRetries: 1, MaxRetries: -1})
	t.Cleanup(func() { client.Close() })
	var err error
	w.shared, err = valetredis.New(valetredis.Config{
		Client: client, Key: sealing, Timeout: redisTimeout, Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	for name, r := range map[string]**replica{"A": &w.steady, "B": &w.other} {
		*r = &replica{name: name, settings: settings{
			API: freeAddr(t), Admin: freeAddr(t), Issuers: urls, Introspection: w.issuers[0].Introspection.URL,
			Redis: w.redis.addr, Key: sealing, ReportOnly: reportOnly,
		}}
		transport := http.DefaultTransport.(*http.Transport).Clone()
		transport.MaxIdleConnsPerHost = workers
		transport.ResponseHeaderTimeout = 20 * time.Second
		(*r).client = &http.Client{Transport: transport}
		require.NoError(t, (*r).start())
		t.Cleanup(func() {
			if (*r).cmd.ProcessState == nil {
				_ = (*r).cmd.Process.Kill()
			}
		})
		require.NoError(t, (*r).awaitReady(starts))
	}
	w.streams.ctx, w.streams.cancel = context.WithCancel(context.Background())
	for _, r := range []*replica{w.steady, w.other} { // each has the keys of each issuer before a fault
		for _, iss := range w.issuers {
			res, err := r.get(context.Background(), "/orders", bearer(iss.Token()))
			require.NoError(t, err)
			require.Equal(t, http.StatusNoContent, res.StatusCode)
		}
	}
	return w
}

// run lets all that happens happen for a while, with measurements after a part of it and at the end. An interrupt ends it early.
func (w *world) run(length time.Duration) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, length)
	defer cancel()
	w.begun = time.Now()

	var all sync.WaitGroup
	for range workers {
		w.each(ctx, &all, time.Second*workers/time.Duration(*rate), func(int) { w.request() })
	}
	w.each(ctx, &all, 500*time.Millisecond, func(turn int) { w.revokeOne(ctx, turn) })
	w.each(ctx, &all, time.Second, func(int) { w.stream() })
	w.each(ctx, &all, 2*time.Second, func(turn int) { w.issuers[turn%len(w.issuers)].turn(w.count) })
	faults := w.faults()
	w.each(ctx, &all, 2*time.Second, func(turn int) { w.fail(ctx, faults[turn%len(faults)]) })
	w.each(ctx, &all, 9*time.Second, func(turn int) { w.restart(turn%2 == 1) })

	pause(ctx, min(length/3, 2*time.Minute))
	w.warm, w.warmAfter = w.measure(), time.Since(w.begun)
	for next := time.Now().Add(5 * time.Minute); ctx.Err() == nil; next = next.Add(5 * time.Minute) {
		pause(ctx, time.Until(next))
		if ctx.Err() == nil {
			fmt.Printf("after %v: %d requests, %d violations\n", time.Since(w.begun).Round(time.Second), w.total(), w.badCountNow())
		}
	}
	all.Wait()
	w.last, w.length = w.measure(), time.Since(w.begun)
	w.streams.cancel()
	for _, r := range []*replica{w.steady, w.other} {
		if err := r.stop(false); err != nil {
			w.violation("%v", err)
		}
	}
	w.flat()
	if limit := max(int(unavailableShare*float64(w.answered)), unavailableLeast); w.unavailable > limit {
		w.violation("%d requests got 503 without a fault, the limit is %d", w.unavailable, limit)
	}
}

func (r *report) total() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.answered
}

func (r *report) badCountNow() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.badCount
}

// flat requires that the steady replica uses no more at the end than after the warm-up.
func (r *report) flat() {
	for _, row := range r.resources() {
		if row.last > row.warm+row.more {
			r.violation("%s: %d after %v, %d at the end, tolerance %d", row.name, row.warm, r.warmAfter.Round(time.Second), row.last, row.more)
		}
	}
}

type resource struct {
	name             string
	warm, last, more int
}

func (r *report) resources() []resource {
	return []resource{
		{"heap in use after a collection, KiB", int(r.warm.Heap >> 10), int(r.last.Heap >> 10), moreHeap >> 10},
		{"resident memory, KiB", int(r.warm.Resident >> 10), int(r.last.Resident >> 10), moreResident >> 10},
		{"goroutines", r.warm.Goroutines, r.last.Goroutines, moreGoroutines},
		{"file descriptors", r.warm.Descriptors, r.last.Descriptors, moreDescriptors},
	}
}

// String returns the tables.
func (r *report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%v, %d requests, %d violations.\n\n", r.length.Round(time.Second), r.answered, r.badCount)
	statuses := []int{204, 401, 503}
	b.WriteString("| token | accepted | 401 | 503 | other |\n|---|---|---|---|---|\n")
	for _, kind := range slices.Sorted(maps.Keys(r.requests)) {
		fmt.Fprintf(&b, "| %s |", kind)
		other := 0
		for status, n := range r.requests[kind] {
			if !slices.Contains(statuses, status) {
				other += n
			}
		}
		for _, status := range statuses {
			fmt.Fprintf(&b, " %d |", r.requests[kind][status])
		}
		fmt.Fprintf(&b, " %d |\n", other)
	}
	b.WriteString("\n| event, or refusal within the bounds | times |\n|---|---|\n")
	for _, counts := range []map[string]int{r.events, r.excuses} {
		for _, name := range slices.Sorted(maps.Keys(counts)) {
			fmt.Fprintf(&b, "| %s | %d |\n", name, counts[name])
		}
	}
	fmt.Fprintf(&b, "\n| replica A | after %v | at the end | may grow by |\n|---|---|---|---|\n", r.warmAfter.Round(time.Second))
	for _, row := range r.resources() {
		fmt.Fprintf(&b, "| %s | %d | %d | %d |\n", row.name, row.warm, row.last, row.more)
	}
	return b.String()
}

func TestSoak(t *testing.T) {
	w := newWorld(t, false)
	w.run(*duration)
	fmt.Printf("\n%s\n", &w.report)
	for _, v := range w.bad {
		t.Error(v)
	}
	if w.badCount > len(w.bad) {
		t.Errorf("and %d more", w.badCount-len(w.bad))
	}
	assert.Positive(t, w.answered)
	if *update && !t.Failed() {
		require.NoError(t, writeTable(w.report.String()))
	}
}

// writeTable replaces the tables in the document. The text before them is written by hand.
func writeTable(tables string) error {
	text, err := os.ReadFile(document)
	if err != nil {
		return err
	}
	before, after, found := strings.Cut(string(text), heading)
	prose, _, marked := strings.Cut(after, "\n### ")
	if !found || !marked {
		return errors.New("the section has moved")
	}
	return os.WriteFile(document, []byte(before+heading+prose+"\n### The longest run\n\n"+tables), 0o644)
}

// A guard that refuses nothing is found out.
func TestSoakFindsWrongAccepts(t *testing.T) {
	w := newWorld(t, true)
	w.run(2 * time.Second)
	assert.Contains(t, strings.Join(w.bad, "\n"), "accepted: ")
}
