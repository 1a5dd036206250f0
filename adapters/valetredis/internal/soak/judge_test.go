package soak_test

import (
	"fmt"
	"net/http"
	"sync"
	"time"
)

// The settings of the replicas from which the bounds follow. They are shorter than the defaults, so that minutes show what
// otherwise takes hours.
const (
	leeway             = time.Second
	refreshInterval    = 10 * time.Second
	minRefetchInterval = time.Second
	cacheTTL           = 5 * time.Second
	askTimeout         = time.Second
	redisTimeout       = 500 * time.Millisecond
	publicURL          = "https://api.example.com" // of both replicas, so that they share proofs
	streamTick         = 200 * time.Millisecond
)

// The bounds. Each is stated in the documentation. A request counts from its start, and until its end. None of them has to do with
// a token that was never good: such a token is never accepted.
const (
	// expiredBound is how long after its exp a token is accepted (jwks.Config.Leeway).
	expiredBound = leeway

	// unaskedBound is how long a token is accepted that only the introspection endpoint knows to be revoked (docs/revocation.md:
	// CacheTTL). It counts from the request to the issuer, so a fault does not prolong it, and a slow machine does not either.
	unaskedBound = cacheTTL

	// toldBound is how long a revocation takes through Redis (docs/revocation.md: within about a second). While Redis is gone, known
	// revocations remain in force and new ones arrive after it has returned.
	toldBound = time.Second

	// guardBound is how long a token is accepted that the guard itself has revoked: not at all (docs/revocation.md: immediately).
	guardBound = 0

	// withdrawnBound is how long the key that the issuer has withdrawn remains in use (docs/scale.md: RefreshInterval). A fetch that
	// fails withdraws nothing (docs/faults.md), so a fault of the key set prolongs it until the next successful fetch.
	withdrawnBound = refreshInterval

	// newKeyBound is how long tokens of an unannounced key are refused (jwks.Config.MinRefetchInterval), because others fetched for
	// unknown keys before. A fault of the key set prolongs it, as above (docs/faults.md: 401 for a new key).
	newKeyBound = minRefetchInterval

	// againBound is how long a stream goes on whose token a new request could no longer use, for a reason that the guard learns only
	// by verifying it again (middleware.Config.CancelWithToken: within a minute). Expiry and revocations at the guard end it at once.
	againBound = time.Minute

	// slack is for a busy machine, in those bounds that depend on a fetch, a message or a timer.
	slack = 3 * time.Second

	// unavailableShare is the share of requests that may get 503 without a fault that explains it, for a machine that stands still
	// for longer than a timeout. In a short run it may do so twice, and each time no request in progress is answered.
	unavailableShare = 0.005
	unavailableLeast = 2 * workers
)

// recovery is how long a fault has an effect after its end. Attempts are repeated after about 1 s, 2 s, 4 s, ..., so that the next
// one is no further away than the fault was long (docs/faults.md, docs/scale.md: 70 s after an hour, since the wait has a limit).
func recovery(w window) time.Duration { return w.end.Sub(w.begin) + slack }

// A window is a time in which something is faulty. A zero end has not come yet.
type window struct{ begin, end time.Time }

// until returns when the window no longer has an effect.
func (w window) until() time.Time {
	if w.end.IsZero() {
		return time.Now().Add(24 * time.Hour)
	}
	return w.end.Add(recovery(w))
}

// A history contains the faults of each target. It is safe for concurrent use.
type history struct {
	mu      sync.Mutex
	windows map[string][]window
}

// remembered is how long a history needs a window: longer than a token is in use.
const remembered = 5 * time.Minute

func (h *history) begin(target string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.windows == nil {
		h.windows = map[string][]window{}
	}
	all := h.windows[target]
	for len(all) > 0 && !all[0].end.IsZero() && time.Since(all[0].end) > remembered {
		all = all[1:]
	}
	h.windows[target] = append(all[:len(all):len(all)], window{begin: time.Now()})
}

func (h *history) end(target string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := h.windows[target]
	all[len(all)-1].end = time.Now()
}

// troubled reports whether a fault of the target has an effect between from and to.
func (h *history) troubled(target string, from, to time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, w := range h.windows[target] {
		if !w.begin.After(to) && !w.until().Before(from) {
			return true
		}
	}
	return false
}

// extend returns the end of a bound that counts from a time, and begins anew when a fault within it no longer has an effect.
func (h *history) extend(target string, from time.Time, bound time.Duration) time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	limit := from.Add(bound)
	for _, w := range h.windows[target] {
		if !w.begin.After(limit) && w.until().After(from) {
			limit = latest(limit, w.until().Add(bound))
		}
	}
	return limit
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// A change is something that the test does to a token. Between begun and done its effect is unknown.
type change struct{ begun, done time.Time }

func (c change) happened() bool { return !c.done.IsZero() }

// facts are the truth about a token, apart from its text.
type facts struct {
	bad    string    // why it was never good; "": it was
	opaque bool      // only introspection can interpret it
	bound  bool      // to a key, by DPoP
	keySet string    // the target that its key comes from
	exp    time.Time // in whole seconds

	published time.Time // its key
	withdrawn change    // its key

	asked change // revoked at the introspection endpoint
	told  change // revoked through Redis
	guard change // revoked at one replica, the only one that it is sent to since
}

// A sight is one request, and the response to it.
type sight struct {
	sent, answered time.Time
	status         int
	fresh          []string // targets whose faults matter to a replica that has just started; empty for one that runs
}

// The verdicts on a request.
type verdict int

const (
	right        verdict = iota
	excused              // a refusal within a bound
	wrongAccept          // a violation
	wrongRefusal         // a violation: 401 beyond the bounds
	unavailable          // 503 that no fault explains
	strange              // a violation: another status
)

// judge compares a response with the truth about its token. The text explains a verdict other than right.
func judge(h *history, f facts, s sight) (verdict, string) {
	switch s.status {
	case http.StatusNoContent:
		return judgeAccept(h, f, s.sent)
	case http.StatusUnauthorized:
		return judgeRefusal(h, f, s)
	case http.StatusServiceUnavailable:
		targets := s.fresh
		if f.opaque {
			targets = append(targets[:len(targets):len(targets)], introspectionTarget)
		}
		if f.bound {
			targets = append(targets[:len(targets):len(targets)], redisTarget)
		}
		for _, target := range targets {
			if h.troubled(target, s.sent, s.answered) {
				return excused, "503 while " + target + " is faulty"
			}
		}
		return unavailable, "503 without a fault"
	default:
		return strange, fmt.Sprintf("status %d", s.status)
	}
}

// judgeAccept judges that the token counted as good at a time: at the start of its request, or the end of its stream.
func judgeAccept(h *history, f facts, at time.Time) (verdict, string) {
	beyond := func(limit time.Time) bool { return at.After(limit) }
	switch {
	case f.bad != "":
		return wrongAccept, "accepted: " + f.bad
	case beyond(f.exp.Add(expiredBound)):
		return wrongAccept, fmt.Sprintf("accepted %v after exp", at.Sub(f.exp))
	case f.asked.happened() && beyond(f.asked.done.Add(unaskedBound)):
		return wrongAccept, fmt.Sprintf("accepted %v after it was revoked at the issuer", at.Sub(f.asked.done))
	case f.guard.happened() && beyond(f.guard.done.Add(guardBound)):
		return wrongAccept, fmt.Sprintf("accepted %v after the guard revoked it", at.Sub(f.guard.done))
	case f.told.happened() && beyond(h.extend(redisTarget, f.told.done, toldBound+slack)):
		return wrongAccept, fmt.Sprintf("accepted %v after it was revoked through Redis", at.Sub(f.told.done))
	case f.withdrawn.happened() && beyond(h.extend(f.keySet, f.withdrawn.done, withdrawnBound+slack)):
		return wrongAccept, fmt.Sprintf("accepted %v after its key was withdrawn", at.Sub(f.withdrawn.done))
	}
	return right, ""
}

func judgeRefusal(h *history, f facts, s sight) (verdict, string) {
	if f.bad != "" || !s.answered.Before(f.exp) {
		return right, ""
	}
	for _, c := range []change{f.asked, f.told, f.guard, f.withdrawn} {
		if !c.begun.IsZero() && !c.begun.After(s.answered) {
			return right, ""
		}
	}
	if !f.published.IsZero() && !s.sent.After(h.extend(f.keySet, f.published, newKeyBound+slack)) {
		return excused, "401 for a new key"
	}
	return wrongRefusal, fmt.Sprintf("401 for a good token, %v before exp", f.exp.Sub(s.answered).Round(time.Millisecond))
}

// judgeStream judges the end of a stream. It ends with its token, and not before.
func judgeStream(h *history, f facts, ended time.Time) (verdict, string) {
	open := f
	open.asked.done, open.withdrawn.done = postponed(f.asked.done), postponed(f.withdrawn.done)
	if v, why := judgeAccept(h, open, ended.Add(-slack)); v != right {
		return v, "stream " + why
	}
	if v, why := judgeRefusal(h, f, sight{sent: ended, answered: ended.Add(streamTick)}); v != right {
		return wrongRefusal, "stream ended: " + why
	}
	return right, ""
}

func postponed(done time.Time) time.Time {
	if done.IsZero() {
		return done
	}
	return done.Add(againBound)
}
