package middleware_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/scopes"
	"github.com/valetkey/valetkey/valetkeytest"
)

// reporter is a verifier in a given state, which Ready mends if it can.
type reporter struct {
	valetkey.Verifier
	health []valetkey.Health
	mended *reporter
}

func (r *reporter) Health() []valetkey.Health { return r.health }

func (r *reporter) Ready(context.Context) error {
	if r.mended == nil {
		return errors.New("not ready")
	}
	r.health = r.mended.health
	return nil
}

func in(states ...valetkey.State) *reporter {
	r := &reporter{Verifier: valetkey.First()}
	for _, s := range states {
		r.health = append(r.health, valetkey.Health{Name: "https://as.example.com", State: s})
	}
	return r
}

func TestStatus(t *testing.T) {
	for _, c := range []struct {
		name     string
		verifier valetkey.Verifier
		want     valetkey.State
		probe    int
	}{
		{"all are down", in(valetkey.Down, valetkey.Down), valetkey.Down, 503},
		{"one of two is down", in(valetkey.Ready, valetkey.Down), valetkey.Degraded, 200},
		{"one is degraded", in(valetkey.Degraded), valetkey.Degraded, 200},
		{"all are ready", in(valetkey.Ready, valetkey.Ready), valetkey.Ready, 200},
		{"a combination asks all", valetkey.First(in(valetkey.Down), valetkey.CrossCheck(in(valetkey.Down), in(valetkey.Down))), valetkey.Down, 503},
		{"a verifier without health is taken for ready", valetkey.First(), valetkey.Ready, 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			guard := guardWith(t, c.verifier)
			assert.Equal(t, c.want, guard.Status().State)
			got := do(t, "GET", serve(t, guard.Readiness()), "")
			assert.Equal(t, c.probe, got.status)
			var said struct{ State valetkey.State }
			require.NoError(t, json.Unmarshal([]byte(got.body), &said))
			assert.Equal(t, c.want, said.State)
		})
	}
	t.Run("JWKS-10 a probe fetches the first keys, and fails while there are none", func(t *testing.T) {
		iss := valetkeytest.NewIssuer(t)
		iss.KeySet.Down()
		down := serve(t, newGuard(t, iss).Readiness())
		assert.Equal(t, 503, do(t, "GET", down, "").status)
		iss.KeySet.Restore()
		assert.Equal(t, 200, do(t, "GET", serve(t, newGuard(t, iss).Readiness()), "").status)
	})
	t.Run("the body of a probe has the state of each verifier, which is not asked if it is ready", func(t *testing.T) {
		since := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
		ready := &reporter{Verifier: valetkey.First(), mended: in(valetkey.Down), health: []valetkey.Health{{Name: "https://as.example.com", State: valetkey.Ready, Since: since}}}
		got := do(t, "GET", serve(t, guardWith(t, ready).Readiness()), "")
		assert.Equal(t, 200, got.status)
		assert.Equal(t, `{"state":"ready","verifiers":[{"name":"https://as.example.com","state":"ready","since":"2026-11-21T12:00:00Z"}]}`+"\n", got.body)
		assert.Equal(t, "application/json", got.header.Get("Content-Type"))
		assert.Equal(t, "no-store", got.header.Get("Cache-Control"))
	})
	t.Run("what can be mended is", func(t *testing.T) {
		broken := in(valetkey.Down)
		broken.mended = in(valetkey.Ready)
		assert.Equal(t, 200, do(t, "GET", serve(t, guardWith(t, broken).Readiness()), "").status)
	})
	t.Run("the memory is counted", func(t *testing.T) {
		iss := valetkeytest.NewIssuer(t)
		guard := newGuard(t, iss)
		api, token := serve(t, guard.Handler(hello)), "Bearer "+iss.Token()
		for range 3 {
			require.Equal(t, 200, do(t, "GET", api, token).status)
		}
		cache := guard.Status().Cache
		assert.Equal(t, 1, cache.Entries)
		assert.Greater(t, cache.Bytes, int64(300))
		assert.Equal(t, uint64(2), cache.Hits)
		assert.Equal(t, uint64(1), cache.Misses)
	})
}

type recorder struct {
	mu     sync.Mutex
	events []valetkey.Event
}

func (r *recorder) Observe(_ context.Context, e valetkey.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
}

func TestObserver(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	seen := new(recorder)
	keys, err := jwks.New(jwks.Config{Issuer: iss.URL, Audience: []string{audience}, Client: iss.Client(), Logger: quiet, Observer: seen})
	require.NoError(t, err)
	t.Cleanup(keys.Close)
	api := serve(t, guardWith(t, keys, func(c *middleware.Config) { c.Observer = seen }).Handler(hello, scopes.All("a")))
	good := "Bearer " + iss.Token(valetkeytest.Scopes("a"))
	for _, authorization := range []string{"", "Bearer", "Bearer " + iss.Token(valetkeytest.Expired()), "Bearer " + iss.Token(), good, good} {
		do(t, "GET", api, authorization)
	}
	seen.mu.Lock()
	defer seen.mu.Unlock()
	var decided []valetkey.Event
	fetched := 0
	for _, e := range seen.events {
		assert.Positive(t, e.Duration)
		assert.Less(t, e.Duration, time.Minute)
		if e.Kind == valetkey.KeySetRefreshed {
			fetched++
			continue
		}
		assert.Equal(t, e.Status != http.StatusOK, e.Err != nil)
		assert.Equal(t, e.Issuer != "", e.Token != nil)
		assert.Equal(t, "GET", e.Request.Method)
		assert.Equal(t, "a", valetkey.Describe(e.Needs...).Challenge.String())
		e.Duration, e.Err, e.Token, e.Request, e.Needs = 0, nil, nil, nil, nil
		decided = append(decided, e)
	}
	assert.Equal(t, 1, fetched)
	const kind = valetkey.RequestDecided
	assert.Equal(t, []valetkey.Event{
		{Kind: kind, Status: 401, Reason: valetkey.ReasonNoCredentials},
		{Kind: kind, Status: 400, Reason: valetkey.ReasonEmptyToken},
		{Kind: kind, Status: 401, Reason: valetkey.ReasonExpired},
		{Kind: kind, Status: 403, Reason: valetkey.ReasonScope, Issuer: iss.URL},
		{Kind: kind, Status: 200, Issuer: iss.URL},
		{Kind: kind, Status: 200, Issuer: iss.URL, Remembered: true},
	}, decided)
}

func TestAnObserverSeesNoReasonThatWasNotCreated(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	seen := new(recorder)
	made := valetkey.RequirementFunc(func(a valetkey.Access) error {
		return &valetkey.Error{Code: valetkey.InvalidToken, Reason: valetkey.Reason("user " + a.Token.Subject())}
	})
	api := serve(t, newGuard(t, iss, func(c *middleware.Config) { c.Observer = seen }).Handler(hello, made))
	got := do(t, "GET", api, "Bearer "+iss.Token())
	assert.Equal(t, 401, got.status)
	assert.NotContains(t, got.header.Get("WWW-Authenticate"), "error_description")
	seen.mu.Lock()
	defer seen.mu.Unlock()
	require.Len(t, seen.events, 1)
	assert.Empty(t, seen.events[0].Reason, "it would be a label without bound")
}

// refusals is an Observer that needs no others.
type refusals struct{ recorder }

func (*refusals) ObservesAccepted() bool { return false }

func TestObserversOfRefusals(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	only, all := new(refusals), new(recorder)
	count := func(o valetkey.Observer) (events int) {
		for _, r := range []*recorder{&only.recorder, all} {
			r.mu.Lock()
			r.events = nil
			r.mu.Unlock()
		}
		api := serve(t, newGuard(t, iss, func(c *middleware.Config) { c.Observer = o }).Handler(hello))
		assert.Equal(t, 200, do(t, "GET", api, "Bearer "+iss.Token()).status)
		assert.Equal(t, 401, do(t, "GET", api, "").status)
		only.mu.Lock()
		defer only.mu.Unlock()
		return len(only.events)
	}
	assert.Equal(t, 1, count(only))
	assert.Equal(t, 1, count(valetkey.JoinObservers(nil, only)))
	assert.Equal(t, 2, count(valetkey.JoinObservers(only, all)), "another one needs them, so both see them")
	assert.Len(t, all.events, 2)
	assert.Nil(t, valetkey.JoinObservers(nil, nil))
}
