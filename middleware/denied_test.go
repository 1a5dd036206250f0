package middleware_test

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/dpop"
	"github.com/valetkey/valetkey/introspect"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/statuslist"
	"github.com/valetkey/valetkey/valetkeytest"
)

// A trial is one token of a guard with clocks, times and settings by chance, and one denial of it.
type trial struct {
	*testing.T
	dice   *rand.Rand
	iss    *valetkeytest.Issuer
	leeway time.Duration // of the verifier
	exp    time.Time     // by the issuer's clock, as in the token
	guard  *middleware.Guard
	raw    string
	proof  string // what is sent each time; "": a new one, if any
	send   func() int
	prove  func() // uses a proof, and keeps it
}

// A denial is one way in which a token comes to be denied.
type denial struct {
	name   string
	setUp  func(tr *trial)
	deny   func(tr *trial)
	atOnce bool // and not when a memory or a list has been renewed
}

var denials = []denial{
	{"revoked by id", (*trial).signed, revoked(func(r *valetkey.Revocation) { r.ID = "token-1" }), true},
	{"revoked by subject", (*trial).signed, revoked(func(r *valetkey.Revocation) { r.Subject = "alice" }), true},
	{"revoked by session", (*trial).signed, revoked(func(r *valetkey.Revocation) { r.SessionID = "session-1" }), true},
	{"revoked by client", (*trial).signed, revoked(func(r *valetkey.Revocation) { r.ClientID = "app" }), true},
	{"all of the issuer revoked", (*trial).signed, revoked(func(r *valetkey.Revocation) { r.All = true }), true},
	{"opaque, and revoked by subject", (*trial).opaque, revoked(func(r *valetkey.Revocation) { r.Subject = "alice" }), true},
	{"inactive at its issuer", (*trial).opaque, func(tr *trial) { tr.iss.Revoke(tr.raw) }, false},
	{"invalid in its status list", (*trial).listed, func(tr *trial) { tr.iss.SetStatus(7, 1) }, false},
	{"its proof used before", (*trial).proven, func(tr *trial) { tr.prove() }, true},
	{"expired", (*trial).signed, func(*trial) {}, false},
}

// revoked makes a revocation with an Until, a Before and an At by chance.
func revoked(which func(r *valetkey.Revocation)) func(tr *trial) {
	return func(tr *trial) {
		r := valetkey.Revocation{Issuer: tr.iss.URL}
		which(&r)
		switch tr.dice.IntN(3) {
		case 0:
			r.Before = tr.iss.Now() // the issuer's own time
		case 1:
			r.At = time.Now()
		}
		if tr.dice.IntN(4) > 0 {
			r.Until = tr.exp // as an issuer or an operator sets it
		}
		require.NoError(tr, tr.guard.Revoke(r))
	}
}

func (tr *trial) claims() []valetkeytest.Option {
	return []valetkeytest.Option{
		valetkeytest.Subject("alice"), valetkeytest.ClientID("app"), valetkeytest.Claim("jti", "token-1"), valetkeytest.Claim("sid", "session-1"),
		valetkeytest.Claim("exp", tr.exp.Unix()),
	}
}

func (tr *trial) keys() *jwks.Verifier {
	leeway := tr.leeway
	if leeway == 0 {
		leeway = -1 // none
	}
	v, err := jwks.New(jwks.Config{
		Issuer: tr.iss.URL, Audience: []string{valetkeytest.DefaultAudience}, Leeway: leeway, Client: tr.iss.Client(), Logger: quiet,
	})
	require.NoError(tr, err)
	tr.Cleanup(v.Close)
	return v
}

// watch makes the guard. Some have next to no room for revocations.
func (tr *trial) watch(v valetkey.Verifier, raw string, change ...func(*middleware.Config)) {
	tr.guard = guardWith(tr, v, append(change, func(cfg *middleware.Config) {
		cfg.Cache.MaxAge = time.Duration(1 + tr.dice.Int64N(int64(10*time.Minute)))
		if tr.dice.IntN(3) == 0 {
			cfg.Revocations.Bytes = 1
		}
	})...)
	tr.raw = raw
	tr.send = func() int { return status(tr.guard, raw) }
}

func (tr *trial) signed() { tr.watch(tr.keys(), tr.iss.Token(tr.claims()...)) }

func (tr *trial) opaque() {
	raw := tr.iss.Opaque(tr.claims()...)
	leeway := tr.leeway
	if leeway == 0 {
		leeway = -1
	}
	v, err := introspect.New(introspect.Config{
		Issuer: tr.iss.URL, Audience: []string{valetkeytest.DefaultAudience}, Leeway: leeway, Client: tr.iss.Client(), Logger: quiet,
		Auth:     introspect.BasicAuth(valetkeytest.IntrospectionID, valetkeytest.IntrospectionSecret),
		CacheTTL: time.Duration(1 + tr.dice.Int64N(int64(time.Minute))),
	})
	require.NoError(tr, err)
	tr.Cleanup(v.Close)
	tr.watch(v, raw)
}

func (tr *trial) listed() {
	tr.iss.StatusTTL(time.Duration(1+tr.dice.IntN(120)) * time.Second)
	v, err := statuslist.New(statuslist.Config{Verifier: tr.keys(), Issuer: tr.iss.URL, Client: tr.iss.Client(), Logger: quiet})
	require.NoError(tr, err)
	tr.Cleanup(v.Close)
	tr.watch(v, tr.iss.Token(append(tr.claims(), tr.iss.Status(7))...))
}

// proven sends a new proof with each request, and from prove on the same one.
func (tr *trial) proven() {
	v, err := dpop.New(dpop.Config{Window: time.Duration(2+tr.dice.IntN(8)) * time.Minute})
	require.NoError(tr, err)
	key := tr.iss.ProofKey("ES256")
	raw := tr.iss.Token(append(tr.claims(), valetkeytest.BoundTo(key))...)
	tr.watch(tr.keys(), raw, func(cfg *middleware.Config) {
		cfg.DPoP, cfg.Resource.ID = v, "https://api.example.com"
	})
	fresh := func() string { return key.Proof("GET", "https://api.example.com/", raw) }
	tr.prove = func() {
		tr.proof = fresh()
		require.Equal(tr, 200, tr.send(), "the first use")
	}
	tr.send = func() int {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Authorization", "DPoP "+raw)
		r.Header.Set("DPoP", cmp.Or(tr.proof, fresh()))
		w := httptest.NewRecorder()
		tr.guard.Handler(hello).ServeHTTP(w, r)
		return w.Code
	}
}

// disturb does what must not lift a denial.
func (tr *trial) disturb(i int) {
	switch tr.dice.IntN(8) {
	case 0:
		tr.guard.Purge(nil)
	case 1, 2:
		r := valetkey.Revocation{Issuer: tr.iss.URL, Until: time.Now().Add(time.Duration(tr.dice.Int64N(int64(time.Hour))))}
		*[]*string{&r.ID, &r.Subject, &r.SessionID, &r.ClientID}[tr.dice.IntN(4)] = fmt.Sprint("other", i)
		require.NoError(tr, tr.guard.Revoke(r))
	case 3: // of the same names, and narrower
		r := valetkey.Revocation{Issuer: tr.iss.URL, Before: time.Now().Add(-24 * time.Hour), Until: time.Now().Add(time.Second)}
		*[]*string{&r.Subject, &r.SessionID, &r.ClientID}[tr.dice.IntN(3)] = []string{"alice", "session-1", "app"}[tr.dice.IntN(3)]
		require.NoError(tr, tr.guard.Revoke(r))
	case 4:
		tr.iss.Introspection.Fail(500)
		tr.iss.StatusList.Fail(500)
	default:
		tr.iss.Introspection.Restore()
		tr.iss.StatusList.Restore()
	}
}

// TestWhatIsDeniedStaysDenied asserts, for every way in which a token comes to be denied, that it is never accepted after the first
// refusal: with clocks within the leeway, at times by chance, in virtual time.
func TestWhatIsDeniedStaysDenied(t *testing.T) {
	const rounds = 25
	seed := rand.Uint64()
	t.Logf("seed %d", seed) // put it in place of rand.Uint64 to repeat
	for _, d := range denials {
		t.Run(d.name, func(t *testing.T) {
			for round := range uint64(rounds) {
				synctest.Test(t, func(t *testing.T) { d.try(t, rand.New(rand.NewPCG(seed, round))) })
			}
		})
	}
}

func (d denial) try(t *testing.T, dice *rand.Rand) {
	tr := &trial{T: t, dice: dice, iss: valetkeytest.NewIssuer(t, valetkeytest.InMemory())}
	tr.leeway = []time.Duration{0, 30 * time.Second, 5 * time.Minute}[dice.IntN(3)]
	skew := time.Duration(dice.Int64N(int64(2*tr.leeway+1))) - tr.leeway // of the issuer, and of the client that makes proofs
	if d.name == "its proof used before" {
		skew %= 10 * time.Second
	}
	tr.iss.Advance(skew)
	tr.exp = tr.iss.Now().Add(5*time.Minute + time.Duration(dice.Int64N(int64(20*time.Minute)))).Truncate(time.Second)
	d.setUp(tr)
	time.Sleep(time.Duration(1 + dice.Int64N(int64(3*time.Minute))))
	require.Equal(t, 200, tr.send(), "before it is denied")
	d.deny(tr)

	denied, begun := time.Time{}, time.Now()
	end := tr.exp.Add(tr.leeway - skew + 10*time.Minute) // by our clock, and well after the deadline
	for i := 0; time.Now().Before(end); i++ {
		got := tr.send()
		if i == 0 && d.atOnce {
			require.NotEqual(t, 200, got, "leeway %v, skew %v: right after it was denied", tr.leeway, skew)
		}
		switch {
		case got == 401 && denied.IsZero():
			denied = time.Now()
		case got == 200:
			require.Zero(t, denied, "leeway %v, skew %v: accepted %v after the denial, which was noticed after %v; exp was after %v",
				tr.leeway, skew, time.Since(begun), denied.Sub(begun), tr.exp.Add(-skew).Sub(begun))
		}
		tr.disturb(i)
		time.Sleep(time.Duration(1 + dice.Int64N(int64(90*time.Second))))
	}
	tr.iss.Introspection.Restore()
	time.Sleep(2 * time.Minute) // longer than the pause of an endpoint that has failed again and again, during which a token gets 503
	require.Equal(t, 401, tr.send(), "in the end")
}
