package fleet_test

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "run the large fleets and write docs/scale.md")

const document = "../../docs/scale.md"

// The bounds that hold for every guard, whatever the size of the fleet.
const (
	withdrawnFor = 10 * time.Minute // jwks.Config.Fresh
	revokedFor   = 30 * time.Second // introspect.Config.CacheTTL
	recovery     = 70 * time.Second // the last pause, 1 min, and the last call into the outage, 5 s; clients ask every second
)

// mostCalls are those of one guard to an endpoint in one minute: of keys 3 in a row until an outage makes it look the URL up
// again, with pauses from 1 s to 1 min; two calls for each look-up of a URL while the issuer hangs, one for each location; a question for each of few tokens every 30 s, and, until five tokens have failed, five
// in a row for each token; the URL of introspection is looked up again every 15 s at most.
var mostCalls = [endpoints]int{metadata: 14, keySet: 6, introspection: 24}

func TestFleet(t *testing.T) {
	f := run(t, afternoon(40))
	f.check(t)
	assert.NotZero(t, f.withdrawn, "the key was in use when it was withdrawn")
	assert.NotZero(t, f.revoked, "the token was in use when it was revoked")
	assert.NotZero(t, f.refusedAsked, "there was an outage")
	assert.NotZero(t, f.jwtAfter, "there was a rotation in it")
}

// check holds what happened against the bounds.
func (f *fleet) check(t *testing.T) {
	t.Helper()
	assert.Zero(t, f.refusedInCalm, "good tokens refused before the outage, through rotations and all")
	assert.Zero(t, f.refusedOfHeld, "good JWTs of a held key refused in the outage")
	assert.LessOrEqual(t, f.withdrawn, withdrawnFor, "a withdrawn key was relied on")
	assert.LessOrEqual(t, f.revoked, revokedFor, "a revoked token was relied on")
	assert.LessOrEqual(t, f.jwtAfter, recovery, "from the end of the outage to the last JWT refused")
	assert.LessOrEqual(t, f.opaqueAfter, recovery, "from the end of the outage to the last opaque token refused")
	for i, g := range f.guards {
		for e := range endpoints {
			require.LessOrEqual(t, g.route.most[e], mostCalls[e], "calls of guard %d to endpoint %d in a minute", i, e)
		}
	}
}

// TestDocument keeps docs/scale.md in step with what is simulated, and with -update measures and writes it.
func TestDocument(t *testing.T) {
	intro := preface()
	if *update {
		text := intro + measuredDay(t) + measuredGuards(t) + measuredSignals(t, 1000) + measuredTokens(t)
		if t.Failed() {
			return
		}
		require.NoError(t, os.WriteFile(document, []byte(text), 0o644))
	}
	written, err := os.ReadFile(document)
	require.NoError(t, err)
	assert.True(t, strings.HasPrefix(string(written), intro), "go test ./internal/fleet -update writes %s anew", document)
}

// The phases of a plan, in the order of the document. What belongs to none is calm.
var phases = []string{"calm", "start", "rotation", "withdrawn key", "revocation", "outage", "after the outage"}

// phase returns what the minute belongs to.
func (p plan) phase(minute int) string {
	now := time.Duration(minute) * time.Minute
	within := func(from, length time.Duration) bool { return now >= from && now < from+length }
	switch {
	case within(p.outage, outageFor):
		return "outage"
	case within(p.outage+outageFor, 10*time.Minute):
		return "after the outage"
	case within(p.revoke-time.Minute, 2*time.Minute):
		return "revocation"
	case within(0, 10*time.Minute):
		return "start"
	}
	for _, r := range p.rotations {
		switch {
		case within(r, 10*time.Minute):
			return "rotation"
		case within(r+withdrawal-time.Minute, 12*time.Minute):
			return "withdrawn key"
		}
	}
	return "calm"
}

// minutes returns the calls to an endpoint in each minute of a phase, fewest first.
func (f *fleet) minutes(endpoint int, phase string) (calls []int) {
	for m := range int(f.length / time.Minute) {
		if f.phase(m) != phase {
			continue
		}
		n := 0
		if m < len(f.net.perMinute[endpoint]) {
			n = f.net.perMinute[endpoint][m]
		}
		calls = append(calls, n)
	}
	slices.Sort(calls)
	return calls
}

// spread prints the median, 99th percentile and maximum of what is sorted.
func spread(calls []int) string {
	n := len(calls)
	return fmt.Sprintf("%d / %d / %d", calls[n/2], calls[(n*99+99)/100-1], calls[n-1])
}

func measuredDay(t *testing.T) string {
	f := run(t, day(1000))
	f.check(t)
	var b strings.Builder
	fmt.Fprintf(&b, `
## A day of %d guards

Calls in a minute, of all guards together: median / 99th percentile / maximum of the minutes of a phase.

| phase | minutes | metadata | key set | introspection |
|---|---|---|---|---|
`, len(f.guards))
	for _, phase := range phases {
		fmt.Fprintf(&b, "| %s | %d |", phase, len(f.minutes(keySet, phase)))
		for e := range endpoints {
			fmt.Fprintf(&b, " %s |", spread(f.minutes(e, phase)))
		}
		b.WriteByte('\n')
	}
	fmt.Fprintf(&b, `
Of %d requests:

| wrong | at most |
|---|---|
| a good token refused before the outage | %d times |
| a good JWT of a held key refused in the outage | %d times |
| a withdrawn key relied on | %s |
| a revoked opaque token relied on | %s |
| a good JWT refused after the outage: its key came up in it | %s |
| a good opaque token refused after the outage | %s |
`, f.requests, f.refusedInCalm, f.refusedOfHeld, lasting(f.withdrawn), lasting(f.revoked), lasting(f.jwtAfter), lasting(f.opaqueAfter))
	return b.String()
}

func lasting(d time.Duration) string {
	if d < 2*time.Minute {
		return fmt.Sprintf("%.0f s", d.Seconds())
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", d.Minutes()), ".0") + " min"
}

func measuredGuards(t *testing.T) string {
	var calls, wrong strings.Builder
	for _, n := range []int{10, 100, 1000, 10000} {
		f := run(t, afternoon(n))
		f.check(t)
		fmt.Fprintf(&calls, "| %d |", n)
		for _, phase := range []string{"calm", "rotation", "withdrawn key", "outage", "after the outage"} {
			all := [endpoints]string{}
			for e := range endpoints {
				minutes := f.minutes(e, phase)
				all[e] = fmt.Sprint(minutes[len(minutes)-1])
				if phase == "calm" {
					all[e] = fmt.Sprint(minutes[len(minutes)/2], "–", minutes[len(minutes)-1])
				}
			}
			fmt.Fprintf(&calls, " %s |", strings.Join(all[:], " / "))
		}
		calls.WriteByte('\n')
		fmt.Fprintf(&wrong, "| %d | %d | %s | %s | %s | %s |\n", n, f.refusedInCalm+f.refusedOfHeld,
			lasting(f.withdrawn), lasting(f.revoked), lasting(f.jwtAfter), lasting(f.opaqueAfter))
	}
	return fmt.Sprintf(`
## From 10 to 10,000 guards

The same in %s, with all events once and a rotation in the outage. Calls in a minute at metadata / key set / introspection:
the most, and in calm the median, too.

| guards | calm | rotation | withdrawn key | outage | after the outage |
|---|---|---|---|---|---|
%s
The longest time that any guard was wrong. No guard knows how many others there are: what grows is how near the worst of
them comes to the bound.

| guards | good tokens refused | withdrawn key | revoked token | JWT after the outage | opaque after the outage |
|---|---|---|---|---|---|
%s`, strings.TrimSuffix(afternoon(1).length.String(), "0s"), calls.String(), wrong.String())
}

func measuredTokens(t *testing.T) string {
	var rows strings.Builder
	for _, n := range []int{0, 10, 100, 1000, 10000} {
		asked, fetched := callsByTokens(t, n)
		fmt.Fprintf(&rows, "| %d | %.1f | %.1f | %d | %d |\n", n, fetched, asked, memory(t, n, false)>>10, memory(t, n, true)>>10)
	}
	return fmt.Sprintf(`
## One guard, from none to 10,000 tokens

Half the tokens in use at a guard are JWTs and half are opaque, and each is sent every 10 s, for 10 minutes. Calls in a minute, on
average. Memory is the heap that one guard and its verifiers hold, its keys included, with so many tokens all JWTs, or
all opaque; the default bounds of a guard's cache are 65,536 tokens and 64 MiB.

| tokens | key set | introspection | KiB, JWTs | KiB, opaque |
|---|---|---|---|---|
%s`, rows.String())
}

func preface() string {
	p := day(1000)
	return fmt.Sprintf(`# Many guards, one issuer

A guard fetches the key set once in 5 to 8 minutes, and at most once in 30 s while tokens of an unknown key arrive. It introspects each
opaque token in use at most once in 30 s. The measurements use virtual time: the code is real, the clock and the
connections are simulated. Each guard represents one process, with JWTs by discovery and opaque tokens by introspection, and the
default settings. This command writes the page:

    go test ./internal/fleet -update -timeout 30m

which takes %s on two busy cores. Every %s runs a small fleet and
asserts the bounds:

- a withdrawn key is accepted for at most %s, a revoked opaque token for at most %s;
- no good token is refused during a rotation, and no JWT of a held key during an outage of an hour;
- every good token is accepted again at most %s after the outage;
- one guard makes no more than %d, %d and %d calls a minute to metadata, key set and introspection, with the %d opaque tokens
  that are in use here.

Each guard receives a request with a JWT every %s on average, and another one with an opaque token; clients get a new JWT
every %s. During these events every guard is busy, with a request every few seconds:

- *rotation*: a new key signs at once, unannounced. In the day it happens at %s, once during the outage.
- *withdrawn key*: the issuer removes the old key from the key set an hour later, and its tokens continue to arrive every 10 s.
- *revocation*: the issuer revokes an opaque token that all guards have cached.
- *outage*: for an hour all endpoints refuse connections from half of the guards, and never answer the others.

The phase of an event lasts 10 minutes; that of a withdrawn key lasts 12 minutes, and that of the revocation 2. The outage and the
10 minutes after it are two phases. The rest is calm, except for the first 10 minutes. Every response takes %d ms.

A rotation makes all busy guards fetch at once. From then on they fetch in waves, which jitter flattens over hours; the maximum of a
calm minute is such a wave. Tokens of a key that is not, or no longer, in the key set make a guard fetch every 30 s,
regardless of their number.
`, runTime, "`go test ./internal/fleet`", lasting(withdrawnFor), lasting(revokedFor), lasting(recovery),
		mostCalls[metadata], mostCalls[keySet], mostCalls[introspection], opaqueTokens,
		lasting(traffic), lasting(renewal), times(p.rotations), latency.Milliseconds())
}

// runTime is that of -update.
const runTime = "8 to 12 minutes"

func times(ds []time.Duration) string {
	all := make([]string, len(ds))
	for i, d := range ds {
		all[i] = fmt.Sprintf("%d:%02d", int(d.Hours()), int(d.Minutes())%60)
	}
	return strings.Join(all, ", ")
}
