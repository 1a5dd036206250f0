package fleet_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/introspect"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/signals"
	"github.com/valetkey/valetkey/valetkeytest"
)

// A way is how guards learn that a session has ended.
type way string

const (
	bySignals       way = "signals: one replica polls for all"
	byIntrospection way = "introspection every 30 s"
	byExpiry        way = "none: JWTs of an hour"
)

// A wait is the longest time that any guard accepted a token after its session had ended.
type wait struct {
	calm, outage time.Duration
	after        time.Duration // from the end of the outage; 0: it was refused before
	goodRefused  bool          // a good token was refused in the outage
	polls        [2]int        // of all guards: in a calm minute, and in the first minute after the outage
}

// A feed carries the calls of all guards to the issuer, and counts those to the endpoint for polling.
type feed struct {
	to     http.RoundTripper
	outage atomic.Bool
	polls  atomic.Int64
}

func (f *feed) RoundTrip(r *http.Request) (*http.Response, error) {
	if strings.HasSuffix(r.URL.Path, "/poll") {
		f.polls.Add(1)
	}
	if f.outage.Load() {
		if r.Body != nil {
			r.Body.Close()
		}
		return nil, errDown
	}
	return f.to.RoundTrip(r)
}

// sessionsEnd ends two sessions that all guards have seen, one in calm and one ten minutes into an outage of an hour, in virtual time.
func sessionsEnd(t *testing.T, guards int, by way) (longest wait) {
	synctest.Test(t, func(t *testing.T) {
		quiet := slog.New(slog.DiscardHandler)
		iss := valetkeytest.NewIssuer(t, valetkeytest.InMemory())
		tr := valetkeytest.NewTransmitter(t, iss)
		f := &feed{to: iss.Client().Transport}
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		defer running.Wait()
		defer cancel()

		all := make([]*guard, guards)
		var revocable []signals.Guard
		for i := range all {
			cfg := middleware.Config{Logger: quiet}
			var stop func()
			if by == byIntrospection {
				asks, err := introspect.New(introspect.Config{
					Issuer: iss.URL, Audience: []string{valetkeytest.DefaultAudience}, Client: &http.Client{Transport: f}, Logger: quiet,
					Auth: introspect.BasicAuth(valetkeytest.IntrospectionID, valetkeytest.IntrospectionSecret),
				})
				require.NoError(t, err)
				cfg.Verifier, stop = asks, asks.Close
			} else {
				keys, err := jwks.New(jwks.Config{Issuer: iss.URL, Audience: []string{valetkeytest.DefaultAudience}, JWKS: iss.JWKS(), Logger: quiet})
				require.NoError(t, err)
				cfg.Verifier, stop = keys, keys.Close
			}
			g, err := middleware.New(cfg)
			require.NoError(t, err)
			revocable = append(revocable, g)
			all[i] = &guard{api: g.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), valetkey.AnyToken), close: stop}
			defer stop()
		}
		if by == bySignals {
			// The receiver calls the guards, as Redis would tell them.
			received, err := signals.New(signals.Config{
				Transmitter: tr.URL, Delivery: signals.Poll, Credentials: tr.Credentials(), Client: &http.Client{Transport: f}, Logger: quiet, Guards: revocable,
			})
			require.NoError(t, err)
			running.Go(func() { defer received.Close(); received.Run(ctx) })
			require.NoError(t, received.Ready(ctx))
		}
		time.Sleep(5 * time.Minute)
		begun := f.polls.Load()
		time.Sleep(time.Minute)
		longest.polls[0] = int(f.polls.Load() - begun)

		session := func(name string) string {
			options := []valetkeytest.Option{valetkeytest.Subject("alice"), valetkeytest.SID(name), valetkeytest.ExpiresIn(time.Hour)}
			if by == byIntrospection {
				return iss.Opaque(options...)
			}
			return iss.Token(options...)
		}
		end := func(name, token string) {
			switch by {
			case byIntrospection:
				iss.Revoke(token)
			case bySignals:
				require.NoError(t, tr.Queue(tr.SET(signals.SessionRevoked, valetkeytest.OfSession("alice", name))))
			}
		}
		// accepted returns how long any guard accepts the token, which each is sent every second.
		accepted := func(token string) (longest time.Duration) {
			var mu sync.Mutex
			var asking sync.WaitGroup
			ended := time.Now()
			for _, g := range all {
				asking.Go(func() {
					for g.send(token) == http.StatusOK {
						mu.Lock()
						longest = max(longest, time.Since(ended))
						mu.Unlock()
						time.Sleep(time.Second)
					}
				})
			}
			asking.Wait()
			return longest
		}

		token := session("calm")
		for _, g := range all {
			require.Equal(t, http.StatusOK, g.send(token))
		}
		end("calm", token)
		longest.calm = accepted(token)

		token, good := session("outage"), session("good")
		for _, g := range all {
			require.Equal(t, http.StatusOK, g.send(token))
			require.Equal(t, http.StatusOK, g.send(good))
		}
		f.outage.Store(true)
		began := time.Now()
		time.Sleep(10 * time.Minute)
		end("outage", token)
		longest.goodRefused = all[0].send(good) != http.StatusOK
		var back sync.WaitGroup
		back.Go(func() {
			time.Sleep(time.Until(began.Add(outageFor)))
			polls := f.polls.Load()
			f.outage.Store(false)
			time.Sleep(time.Minute)
			longest.polls[1] = int(f.polls.Load() - polls)
		})
		longest.outage = accepted(token)
		longest.after = max(0, time.Since(began)-outageFor)
		back.Wait()
	})
	return longest
}

func TestSessionsEndBySignals(t *testing.T) {
	got := sessionsEnd(t, 10, bySignals)
	assert.LessOrEqual(t, got.calm, time.Second)
	assert.GreaterOrEqual(t, got.outage, 50*time.Minute, "nothing can arrive in an outage")
	assert.LessOrEqual(t, got.after, recovery, "what waited arrives soon after")
	assert.False(t, got.goodRefused)

	got = sessionsEnd(t, 2, byIntrospection)
	assert.LessOrEqual(t, got.calm, revokedFor)
	assert.LessOrEqual(t, got.outage, revokedFor, "without an answer, no token is accepted")
	assert.True(t, got.goodRefused, "not even a good one")

	got = sessionsEnd(t, 2, byExpiry)
	assert.Greater(t, got.calm, 59*time.Minute)
}

// measuredSignals compares the ways for the document.
func measuredSignals(t *testing.T, guards int) string {
	var text strings.Builder
	fmt.Fprintf(&text, "## A session that ends, and %d guards\n\n", guards)
	text.WriteString(`A session ends at the issuer, once in calm and once ten minutes into an outage of an hour of all its endpoints. Its token is sent to each guard every
second. The longest time that any guard still accepted it:

| how the guards learn of it | in calm | in the outage | good tokens in the outage |
|---|---|---|---|
`)
	var polls [2]int
	for _, by := range []way{bySignals, byIntrospection, byExpiry} {
		got := sessionsEnd(t, guards, by)
		if by == bySignals {
			polls = got.polls
		}
		outage := got.outage.Round(time.Second).String()
		if got.after > 0 && by == bySignals {
			outage = fmt.Sprintf("until %v after it", got.after.Round(time.Second))
		}
		good := "accepted"
		if got.goodRefused {
			good = "503"
		}
		fmt.Fprintf(&text, "| %s | %v | %s | %s |\n", by, got.calm.Round(time.Second), outage, good)
	}
	fmt.Fprintf(&text, `
The transmitter sees one stream, however many guards there are: %d polls in a calm minute, since a poll waits for events, and %d in the first
minute after the outage. A policy for gaps can revoke what was issued before an outage: see [signals.md](signals.md).

`, polls[0], polls[1])
	return text.String()
}

// TestSignalsDocument keeps the section of docs/scale.md.
func TestSignalsDocument(t *testing.T) {
	written, err := os.ReadFile(document)
	require.NoError(t, err)
	before, section, found := strings.Cut(string(written), "\n## A session that ends, and 1000 guards\n")
	require.True(t, found, "go test ./internal/fleet -update -timeout 30m writes it")
	if *update {
		_, rest, _ := strings.Cut(section, "\n## ")
		require.NoError(t, os.WriteFile(document, []byte(before+"\n"+measuredSignals(t, 1000)+"## "+rest), 0o644))
	}
}
