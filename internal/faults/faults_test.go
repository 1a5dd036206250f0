package faults_test

import (
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/valetkeytest"
)

var update = flag.Bool("update", false, "write the measured table into docs/faults.md")

const (
	document = "../../docs/faults.md"
	others   = "\n## Endurance\n" // begins the section that scripts/soak writes
	each     = 10                 // requests of each kind in a row
	none     = 0                  // no such request in this situation
)

// The kinds of tokens, in the order in which they are sent.
var kinds = []string{"held", "new", "new key", "forged"}

// A situation is what the guard knew when the fault began, and so the statuses that the kinds get, whatever the fault.
type situation struct {
	verifier func(*testing.T, *world) valetkey.Verifier
	since    string
	status   [4]int // by kind
}

var (
	keysStart = situation{byKeys, "start", [4]int{none, 503, 503, 503}} // a guard cannot distinguish them
	keysLater = situation{byKeys, "later", [4]int{200, 200, 401, 401}}  // a fetch that fails does not make us doubt what we hold
	askStart  = situation{byAsking, "start", [4]int{none, 503, none, 503}}
	askLater  = situation{byAsking, "later", [4]int{200, 503, none, 503}}
)

// A fault is what goes wrong, and what it may cost at most, at each of the two endpoints.
type fault struct {
	name       string
	begin      func(*testing.T, *world)
	keys, asks bounds
}

// bounds are those on calls to the endpoint, and on the time of the slowest request.
type bounds struct {
	calls  int
	within time.Duration
}

// A fetch of keys is tried again after about 1 s, 2 s, ...; 5 questions in a row must fail before no more are asked, for
// about 1 s. The rows take less than that, unless the machine is busy: hence a call or two more.
var (
	once = bounds{3, time.Second}
	five = bounds{7, time.Second}
	// The endpoint asks for patience, for longer than a row takes.
	exactlyOnce = bounds{1, time.Second}
	// An answer that comes and cannot be read is held against its token alone, and does not count as a failure.
	everyToken = bounds{2 * each, time.Second}
	// A request waits for keys for no more than 2 s.
	slowKeys = bounds{3, 3 * time.Second}
)

var faults = []fault{
	{"down, connections are refused", route(toNobody), once, five},
	{"slow, beyond the timeout", func(_ *testing.T, w *world) { w.endpoint.Slow(time.Minute) }, slowKeys, five},
	{"reset in the middle", func(_ *testing.T, w *world) { w.endpoint.Reset() }, once, everyToken},
	{"500", func(_ *testing.T, w *world) { w.endpoint.Fail(500) }, once, five},
	{"429, Retry-After: 7", func(_ *testing.T, w *world) { w.endpoint.Fail(429, "Retry-After: 7") }, exactlyOnce, exactlyOnce},
	{"HTML with 200", func(_ *testing.T, w *world) { w.endpoint.Garbage() }, once, five},
	{"truncated JSON", func(_ *testing.T, w *world) { w.endpoint.Truncated() }, once, everyToken},
	{"empty document", func(_ *testing.T, w *world) { w.endpoint.Empty() }, once, everyToken},
	{"endless body", func(_ *testing.T, w *world) { w.endpoint.Endless() }, once, everyToken},
	{"certificate of an unknown CA", func(t *testing.T, w *world) { w.network.leads(w.toImpostor(t)) }, once, five},
	{"redirect to http", func(_ *testing.T, w *world) { w.endpoint.Redirect(w.elsewhere()) }, once, five},
	{"DNS gone", route(toNoName), once, five},
}

func route(d dialer) func(*testing.T, *world) {
	return func(_ *testing.T, w *world) { w.network.leads(d) }
}

// elsewhere is the impostor's endpoint of the same kind. It is on loopback, where http is allowed, and would be believed.
func (w *world) elsewhere() string {
	if w.endpoint == w.issuer.KeySet {
		return w.impostor.KeySet.URL
	}
	return w.impostor.Introspection.URL
}

// A measurement is what one fault did in one situation.
type measurement struct {
	calls   int
	slowest time.Duration
}

func TestFaults(t *testing.T) {
	measured := map[string]measurement{}
	t.Run("rows", func(t *testing.T) {
		for _, table := range tables {
			for _, s := range table.situations {
				for _, f := range faults {
					m := new(measurement)
					t.Run(fmt.Sprintf("%s, %s, since %s", table.name, f.name, s.since), func(t *testing.T) {
						if strings.HasPrefix(f.name, "slow") { // the others take their time one by one, and are measured so
							t.Parallel()
						}
						most := f.keys
						if table.name == asking {
							most = f.asks
						}
						for range 3 { // a machine that stands still for a moment does not do so each time; what waits does
							*m = measure(t, s, f)
							if m.calls <= most.calls && m.slowest < most.within {
								break
							}
						}
						assert.GreaterOrEqual(t, m.calls, 1, "calls")
						assert.LessOrEqual(t, m.calls, most.calls, "calls")
						assert.Less(t, m.slowest, most.within, "the slowest request")
					})
					t.Cleanup(func() { measured[table.name+f.name+s.since] = *m }) // once the slow ones have ended, too
				}
			}
		}
	})
	if t.Failed() {
		return
	}
	text := render(measured)
	written, err := os.ReadFile(document)
	require.NoError(t, err)
	before, after, _ := strings.Cut(string(written), others)
	if *update {
		require.NoError(t, os.WriteFile(document, []byte(text+others+after), 0o644))
		before = text
	}
	assert.Equal(t, asserted(text), asserted(before), "go test ./internal/faults -update writes %s anew", document)
}

// measure lets f begin and sends tokens of all kinds, which must get the statuses of s.
func measure(t *testing.T, s situation, f fault) (m measurement) {
	t.Helper()
	w := newWorld(t, s.verifier)
	held := w.token(w.issuer)
	if s.since == "later" {
		// A question that a busy machine does not answer within askTimeout is asked again.
		require.Eventually(t, func() bool { return w.send(t, held) == 200 }, time.Minute, 10*time.Millisecond)
	}
	tokens := map[string]func() string{
		"held":    func() string { return held },
		"new":     func() string { return w.token(w.issuer) },
		"new key": func() string { return w.token(w.issuer) },
		"forged":  func() string { return w.token(w.impostor) },
	}
	f.begin(t, w)
	before := w.network.calls.Load()
	for i, kind := range kinds {
		if s.status[i] == none {
			continue
		}
		if kind == "new key" {
			w.issuer.Rotate()
		}
		for range each {
			raw := tokens[kind]()
			begun := time.Now()
			status := w.send(t, raw)
			m.slowest = max(m.slowest, time.Since(begun))
			require.Equal(t, s.status[i], status, "a %s token", kind)
		}
	}
	m.calls = int(w.network.calls.Load() - before)
	assert.Zero(t, w.impostor.KeySet.Hits()+w.impostor.Introspection.Hits(), "the impostor was asked")
	return m
}

// token returns a good token, if from is the issuer; if it is the impostor, one that would be good if it were believed.
func (w *world) token(from *valetkeytest.Issuer) string {
	iss := valetkeytest.Claim("iss", w.issuer.URL)
	if w.endpoint == w.issuer.KeySet {
		return from.Token(iss)
	}
	return from.Opaque(iss)
}

// send sends a request with the token, and returns the status of an answer that is in good form.
func (w *world) send(t *testing.T, raw string) int {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.api, nil)
	require.NoError(t, err)
	r.Header.Set("Authorization", "Bearer "+raw)
	resp, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	switch resp.StatusCode {
	case http.StatusOK:
		assert.Equal(t, valetkeytest.DefaultSubject, string(body))
	case http.StatusUnauthorized:
		assert.Equal(t, "invalid_token", valetkeytest.Challenge(t, resp.Header, "Bearer")["error"])
	case http.StatusServiceUnavailable: // our trouble is not the token's
		assert.Empty(t, resp.Header.Get("WWW-Authenticate"))
		wait, err := strconv.Atoi(resp.Header.Get("Retry-After"))
		assert.NoError(t, err)
		assert.Positive(t, wait)
	}
	return resp.StatusCode
}

const asking = "The introspection endpoint"

var tables = []struct {
	name, text string
	kinds      []int // the columns
	situations []situation
}{
	{"The key set", `A guard that holds keys continues to use them up to their age limit (by default, 1 h past their freshness). It refuses a token
of a key that it does not hold with 401 until a fetch succeeds: the key may exist, but a forger must not be able to turn
a held key set into 503. A guard without keys cannot decide, so it answers 503.

An empty set ({"keys":[]}) and a malformed one count as an outage and replace nothing. A well-formed set with keys
withdraws every held key that it does not contain for signatures, at the refresh that fetches it, even if no usable key
is left; tokens then get 503 until the issuer publishes one.`,
		[]int{0, 1, 2, 3}, []situation{keysStart, keysLater}},
	{asking, `A token whose introspection result is cached is served until the result expires (by default, after 30 s). Any other token gets
503, because its state is unknown. After 5 failures in a row the guard sends no request for about a second, then for
two, up to a minute, with one attempt each time; it respects Retry-After at once. The timeout of a request is 0.2 s here
and 5 s by default. Repeated failures for one token count once. A response with status 200 and the right type but
faulty content (unreadable, cut off or endless) counts against its token only: the guard still asks about other tokens,
and pauses for the same one after 5 failures.`,
		[]int{0, 1, 3}, []situation{askStart, askLater}},
}

func render(measured map[string]measurement) string {
	var b strings.Builder
	fmt.Fprintf(&b, preface, each)
	for _, table := range tables {
		head, line := "| fault | since |", "|---|---|"
		for _, k := range table.kinds {
			head, line = head+" "+kinds[k]+" |", line+"---|"
		}
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n%s calls | slowest |\n%s---|---|\n", table.name, table.text, head, line)
		for _, s := range table.situations {
			for _, f := range faults {
				fmt.Fprintf(&b, "| %s | %s |", f.name, s.since)
				for _, k := range table.kinds {
					if s.status[k] == none {
						b.WriteString(" |")
						continue
					}
					fmt.Fprintf(&b, " %d |", s.status[k])
				}
				m := measured[table.name+f.name+s.since]
				fmt.Fprintf(&b, " %d | %s |\n", m.calls, coarse(m.slowest))
			}
		}
	}
	return b.String()
}

// coarse prints a time so that it is the same on most machines.
func coarse(d time.Duration) string {
	if d < 100*time.Millisecond {
		return "< 0.1 s"
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

var measuredCells = regexp.MustCompile(`(?m) \d+ \| (?:< )?[\d.]+ s \|$`)

// asserted returns text without what is measured.
func asserted(text string) string { return measuredCells.ReplaceAllString(text, "") }

const preface = `# When an issuer's endpoints go wrong

A guard serves tokens that it can verify from its caches, refuses the others with 401 or 503, and accepts no forgery in any of these
faults. Each row is a test with real sockets: an issuer over TLS, a guarded API over HTTP, and a network between them
that can lead elsewhere. Every ` + "`go test ./internal/faults`" + ` asserts the statuses, and bounds on calls and times. This
command writes the measurements to this page:

    go test ./internal/faults -update

*Since start*: the fault was there before the first request. *Since later*: the guard had served a token before. Then
come %d requests of each kind, one after the other:

- *held*: a good token that this guard has served before;
- *new*: good tokens that it sees for the first time;
- *new key*: good tokens of a key that the issuer signs with since the fault began;
- *forged*: tokens of an impostor, who also has the redirect's target and the wrong certificate: a guard that believed
  it would let them through. It is never asked.

*Calls* are those to the endpoint, for all these requests together; *slowest* is the slowest request. 401 comes with the
challenge invalid_token, 503 with Retry-After and no challenge.
`
