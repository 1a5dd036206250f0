package fleet_test

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/introspect"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/valetkeytest"
)

// A plan is what happens to a fleet.
type plan struct {
	guards    int
	length    time.Duration
	rotations []time.Duration // a new key signs at once, unannounced
	revoke    time.Duration   // the issuer revokes an opaque token
	outage    time.Duration   // begins: no endpoint answers
}

const (
	traffic      = 2 * time.Minute // mean time between two requests with a JWT, and between two with an opaque token, at one guard
	renewal      = 5 * time.Minute // of the JWT that clients send
	opaqueTokens = 5               // in use at every guard
	withdrawal   = time.Hour       // of the old key, after a rotation
	outageFor    = time.Hour
)

// day and afternoon have one rotation within the outage. Withdrawals fall outside of it.
func day(guards int) plan {
	return plan{
		guards: guards, length: 24 * time.Hour, revoke: 5 * time.Hour, outage: 12 * time.Hour,
		rotations: []time.Duration{30 * time.Minute, 6*time.Hour + 30*time.Minute, 12*time.Hour + 30*time.Minute, 18*time.Hour + 30*time.Minute},
	}
}

func afternoon(guards int) plan {
	return plan{
		guards: guards, length: 3*time.Hour + 45*time.Minute, revoke: time.Hour + 45*time.Minute, outage: 2 * time.Hour,
		rotations: []time.Duration{30 * time.Minute, 2*time.Hour + 30*time.Minute},
	}
}

// A token is what clients send, and the truth about it.
type token struct {
	raw    string
	opaque bool
	ended  *atomic.Int64 // when it or its key was taken back, in nanoseconds of Unix; 0: it is good
}

// A fleet is many guards of one issuer.
type fleet struct {
	plan
	net    *network
	guards []*guard
	end    time.Time

	jwt    atomic.Pointer[token] // that clients send now
	opaque []*token

	mu sync.Mutex // guards what follows
	wrongs
	requests int
}

// wrongs is what the guards did wrong.
type wrongs struct {
	refusedInCalm int           // good tokens
	refusedOfHeld int           // good JWTs of a key that was held before the outage, during it
	refusedAsked  int           // good tokens during the outage that only the issuer could have told about
	jwtAfter      time.Duration // from the end of the outage to the last refusal of a good JWT
	opaqueAfter   time.Duration // and of a good opaque token
	withdrawn     time.Duration // a token was accepted so long after its key was withdrawn
	revoked       time.Duration // and after it was revoked
}

type guard struct {
	api   http.Handler
	route *route
	close func()
}

// newGuard returns a guard of its own process: it shares nothing with others.
func newGuard(t *testing.T, n *network, hangs bool) *guard {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	way := &route{network: n, hangs: hangs}
	client := &http.Client{Transport: way}
	keys, err := jwks.New(jwks.Config{
		Issuer: n.issuer.URL, Audience: []string{valetkeytest.DefaultAudience}, Client: client, Logger: quiet,
	})
	require.NoError(t, err)
	asks, err := introspect.New(introspect.Config{
		Issuer: n.issuer.URL, Audience: []string{valetkeytest.DefaultAudience}, Client: client, Logger: quiet,
		Auth: introspect.BasicAuth(valetkeytest.IntrospectionID, valetkeytest.IntrospectionSecret),
	})
	require.NoError(t, err)
	g, err := middleware.New(middleware.Config{Verifier: valetkey.First(keys, asks), Logger: quiet})
	require.NoError(t, err)
	return &guard{
		api:   g.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})),
		route: way,
		close: func() { keys.Close(); asks.Close() },
	}
}

func (g *guard) send(raw string) int {
	w := httptest.NewRecorder()
	g.api.ServeHTTP(w, valetkeytest.Request("GET", "/", raw))
	return w.Code
}

// run lets p happen, in virtual time.
func run(t *testing.T, p plan) (f *fleet) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		f = &fleet{plan: p, end: begin.Add(p.length), net: &network{issuer: valetkeytest.NewIssuer(t, valetkeytest.InMemory()), begin: begin}}
		for i := range p.guards {
			f.guards = append(f.guards, newGuard(t, f.net, i%2 == 0))
		}
		for range opaqueTokens {
			f.opaque = append(f.opaque, f.newOpaque())
		}
		var all sync.WaitGroup
		all.Go(f.keys)
		all.Go(f.revocation)
		all.Go(f.trouble)
		for _, g := range f.guards {
			all.Go(func() { f.traffic(g, func() *token { return f.jwt.Load() }) })
			all.Go(func() { f.traffic(g, f.anyOpaque) })
		}
		all.Wait()
		for _, g := range f.guards {
			g.close()
		}
	})
	return f
}

func (f *fleet) newOpaque() *token {
	return &token{raw: f.net.issuer.Opaque(valetkeytest.ExpiresIn(f.length + time.Hour)), opaque: true, ended: new(atomic.Int64)}
}

func (f *fleet) anyOpaque() *token { return f.opaque[rand.IntN(len(f.opaque))] }

// keys is the issuer's side of JWTs: clients get a new one now and then, and the key rotates.
func (f *fleet) keys() {
	var after sync.WaitGroup // what follows from rotations
	defer after.Wait()
	withdrawn := new(atomic.Int64) // the key that signs now
	for now := time.Duration(0); now < f.length; now += renewal {
		f.until(now)
		if slices.Contains(f.rotations, now) {
			withdrawn = f.rotate(now, withdrawn, &after)
		}
		f.jwt.Store(f.mint(2*renewal, withdrawn))
	}
}

func (f *fleet) mint(life time.Duration, withdrawn *atomic.Int64) *token {
	return &token{raw: f.net.issuer.Token(valetkeytest.ExpiresIn(life)), ended: withdrawn}
}

// rotate makes a new key sign. Tokens of it come to all guards at once, and again after an outage; the old key is
// withdrawn later, and its tokens keep coming.
func (f *fleet) rotate(now time.Duration, withdrawn *atomic.Int64, after *sync.WaitGroup) (next *atomic.Int64) {
	id, old := f.net.issuer.KeyID(), f.mint(2*withdrawal, withdrawn)
	f.net.issuer.Rotate()
	next = new(atomic.Int64)
	fresh := f.mint(2*withdrawal, next)
	after.Go(func() { f.watch(time.Minute, time.Second, func() *token { return fresh }) })
	if f.inOutage(now) {
		after.Go(func() {
			f.until(f.outage + outageFor)
			f.watch(90*time.Second, time.Second, func() *token { return fresh })
		})
	}
	after.Go(func() {
		f.until(now + withdrawal - time.Minute)
		f.watch(12*time.Minute, 10*time.Second, func() *token { return old })
	})
	after.Go(func() {
		f.until(now + withdrawal)
		f.net.issuer.Withdraw(id)
		withdrawn.Store(time.Now().UnixNano())
	})
	return next
}

// revocation revokes a token that is in use at all guards.
func (f *fleet) revocation() {
	gone := f.newOpaque()
	f.until(f.revoke - time.Minute)
	var watching sync.WaitGroup
	watching.Go(func() { f.watch(2*time.Minute, time.Second, func() *token { return gone }) })
	// Not at once with any request: they come at whole seconds after a random start. And while all guards remember the token: they
	// began at the same time, and ask again after 30 s and 60 s, each at its next request.
	f.until(f.revoke + 10*time.Second + rand.N(10*time.Second))
	f.net.issuer.Revoke(gone.raw)
	gone.ended.Store(time.Now().UnixNano())
	watching.Wait()
}

// trouble is the outage, with guards that are busy in its first minutes and when it has ended.
func (f *fleet) trouble() {
	f.until(f.outage)
	f.net.outage.Store(true)
	f.watch(5*time.Minute, 4*time.Second, f.anyOpaque)
	f.until(f.outage + outageFor)
	f.net.outage.Store(false)
	f.watch(90*time.Second, time.Second, f.anyOpaque)
}

func (f *fleet) until(d time.Duration) { time.Sleep(time.Until(f.net.begin.Add(d))) }

// traffic sends requests to g, at random times, until the end.
func (f *fleet) traffic(g *guard, next func() *token) {
	for {
		time.Sleep(time.Duration(rand.ExpFloat64() * float64(traffic)))
		if !time.Now().Before(f.end) {
			return
		}
		f.send(g, next())
	}
}

// watch makes clients of all guards busy for a while: one request every so often.
func (f *fleet) watch(d, every time.Duration, next func() *token) {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	var clients sync.WaitGroup
	for _, g := range f.guards {
		clients.Go(func() {
			for time.Sleep(rand.N(every)); ctx.Err() == nil; time.Sleep(every) {
				f.send(g, next())
			}
		})
	}
	clients.Wait()
}

// send sends one request and holds the answer against the truth.
func (f *fleet) send(g *guard, tok *token) {
	begun := time.Now()
	accepted := g.send(tok.raw) == http.StatusOK
	var late time.Duration // since the token was taken back
	ended := tok.ended.Load()
	if ended != 0 {
		late = begun.Sub(time.Unix(0, ended))
	}
	since := begun.Sub(f.net.begin)

	f.mu.Lock()
	defer f.mu.Unlock()
	f.requests++
	switch {
	case late < 0: // while it was asked: either answer is right
	case accepted == (ended == 0):
	case accepted && tok.opaque:
		f.revoked = max(f.revoked, late)
	case accepted:
		f.withdrawn = max(f.withdrawn, late)
	case since < f.outage:
		f.refusedInCalm++
	case f.inOutage(since) && (tok.opaque || since >= f.rotatedInOutage()):
		f.refusedAsked++
	case f.inOutage(since):
		f.refusedOfHeld++
	case tok.opaque:
		f.opaqueAfter = max(f.opaqueAfter, since-f.outage-outageFor)
	default:
		f.jwtAfter = max(f.jwtAfter, since-f.outage-outageFor)
	}
}

func (p plan) inOutage(at time.Duration) bool { return at >= p.outage && at < p.outage+outageFor }

// rotatedInOutage returns when JWTs came up in the outage whose key no guard could hold.
func (p plan) rotatedInOutage() time.Duration {
	for _, r := range p.rotations {
		if p.inOutage(r) {
			return r
		}
	}
	return p.outage + outageFor
}
