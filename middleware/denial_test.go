package middleware_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/claims"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/scopes"
	"github.com/valetkey/valetkey/valetkeytest"
)

// A clerk accepts whatever token it is asked about, by the leeway that it is set to and its own clock.
type clerk struct {
	now    time.Time
	leeway time.Duration
	tokens map[string]valetkey.TokenFields // by their text
}

func (c *clerk) Verify(_ context.Context, raw string) (*valetkey.Token, error) {
	token := c.tokens[raw]
	token.Issuer = "https://as.example.com"
	if !token.Expiry.IsZero() {
		token.Deadline = token.Expiry.Add(c.leeway)
		if !c.now.Before(token.Deadline) {
			return nil, &valetkey.Error{Code: valetkey.InvalidToken, Reason: valetkey.ReasonExpired}
		}
		token.Freshness.Until = token.Deadline
	}
	return valetkey.NewToken(token), nil
}

// status returns that of a request with the token.
func status(guard *middleware.Guard, raw string) int {
	w := httptest.NewRecorder()
	guard.Handler(hello).ServeHTTP(w, valetkeytest.Request("GET", "/", raw))
	return w.Code
}

func TestARevokedTokenStaysRevokedUntilItCannotBeAccepted(t *testing.T) {
	start := time.Unix(1_800_000_000, 0)
	exp := start.Add(10 * time.Minute)
	for _, c := range []struct {
		name    string
		expiry  time.Time
		revoked valetkey.Revocation
	}{
		{"until its exp, by id", exp, valetkey.Revocation{ID: "1", Until: exp}},
		{"until its exp, by subject", exp, valetkey.Revocation{Subject: "alice", Until: exp}},
		{"until its exp, by session", exp, valetkey.Revocation{SessionID: "s", Before: start, Until: exp}},
		{"for 24 h, though it lives for longer, by id", start.Add(50 * time.Hour), valetkey.Revocation{ID: "1"}},
		{"for 24 h, though it lives for longer, by client", start.Add(50 * time.Hour), valetkey.Revocation{ClientID: "app"}},
		{"for a minute, though it lives for longer, and all", exp, valetkey.Revocation{All: true, Until: start.Add(time.Minute)}},
		{"it has no exp", time.Time{}, valetkey.Revocation{Subject: "alice"}},
		{"for ever, as far as a time goes", exp, valetkey.Revocation{Subject: "alice", Before: time.Unix(1<<62, 0), Until: time.Unix(1<<62, 0)}},
		{"made at the end of time", exp, valetkey.Revocation{Subject: "alice", At: time.Unix(1<<62, 0)}},
	} {
		for _, leeway := range []time.Duration{0, 30 * time.Second, 5 * time.Minute} {
			t.Run(fmt.Sprint(c.name, ", leeway ", leeway), func(t *testing.T) {
				token := valetkey.TokenFields{ID: "1", Subject: "alice", SessionID: "s", ClientID: "app", IssuedAt: start.Add(-time.Minute), Expiry: c.expiry}
				v := &clerk{now: start, leeway: leeway, tokens: map[string]valetkey.TokenFields{"a": token}}
				guard := guardWith(t, v, func(cfg *middleware.Config) { cfg.Now = func() time.Time { return v.now } })
				require.Equal(t, 200, status(guard, "a"))
				c.revoked.Issuer = "https://as.example.com"
				require.NoError(t, guard.Revoke(c.revoked))
				end := c.expiry.Add(leeway + time.Minute)
				if c.expiry.IsZero() {
					end = start.Add(100 * 24 * time.Hour)
				}
				for ; v.now.Before(end); v.now = v.now.Add(end.Sub(start) / 97) {
					require.Equal(t, 401, status(guard, "a"), "after %v", v.now.Sub(start))
					guard.Revoke(valetkey.Revocation{Issuer: "https://as.example.com", ID: v.now.String(), Until: v.now}) // what is over may go
				}
			})
		}
	}
}

func TestARevocationIsKeptForAsLongAsTheLongestTokenLives(t *testing.T) {
	start := time.Unix(1_800_000_000, 0)
	for _, c := range []struct {
		name  string
		keep  time.Duration
		life  time.Duration
		after time.Duration
		want  int
		logs  int
	}{
		{"an operator who has set it", 50 * time.Hour, 50 * time.Hour, 50*time.Hour - time.Minute, 401, 0},
		{"by default 24 h", 0, 24 * time.Hour, 24*time.Hour - time.Minute, 401, 0},
		{"a token that lives as long as a revocation is held with the most leeway", 0, 24*time.Hour + 5*time.Minute, 24 * time.Hour, 401, 0},
		{"a token that lives longer and does not come is accepted later, which the log reports before", 0, 50 * time.Hour, 49 * time.Hour, 200, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			var log strings.Builder
			token := valetkey.TokenFields{ID: "1", IssuedAt: start, Expiry: start.Add(c.life)}
			v := &clerk{now: start, tokens: map[string]valetkey.TokenFields{"a": token, "b": {ID: "2", IssuedAt: start, Expiry: token.Expiry}, "c": {ID: "3", IssuedAt: start, Expiry: token.Expiry}}}
			guard := guardWith(t, v, func(cfg *middleware.Config) {
				cfg.Now, cfg.Revocations.Keep = func() time.Time { return v.now }, c.keep
				cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
			})
			for range 2 {
				require.Equal(t, 200, status(guard, "b"))
			}
			require.Equal(t, 200, status(guard, "c"))
			assert.Equal(t, c.logs, strings.Count(log.String(), "raise Revocations.Keep"), "it is logged once")
			require.NoError(t, guard.Revoke(valetkey.Revocation{Issuer: "https://as.example.com", ID: "1"}))
			v.now = start.Add(c.after)
			assert.Equal(t, c.want, status(guard, "a"))
		})
	}
	_, err := middleware.New(middleware.Config{Verifier: valetkey.First(), Revocations: middleware.Revocations{Keep: -1}})
	assert.ErrorContains(t, err, "middleware: Revocations.Keep: -1ns is negative")
}

func TestRevocationAndSkew(t *testing.T) {
	revoked := time.Unix(1_800_000_000, 500e6)
	for _, c := range []struct {
		name   string
		r      valetkey.Revocation
		leeway time.Duration
		iat    time.Time
		want   int
	}{
		{"issued 2 s before by a clock 20 s ahead", valetkey.Revocation{Subject: "alice"}, 30 * time.Second, revoked.Add(18 * time.Second), 401},
		{"almost all leeway ahead", valetkey.Revocation{Subject: "alice"}, 30 * time.Second, revoked.Add(29 * time.Second), 401},
		{"issued after the leeway", valetkey.Revocation{Subject: "alice"}, 30 * time.Second, revoked.Add(30 * time.Second), 200},
		{"no leeway", valetkey.Revocation{Subject: "alice"}, 0, revoked, 200},
		{"no leeway, and issued before", valetkey.Revocation{Subject: "alice"}, 0, revoked.Add(-time.Second), 401},
		{"made at another time than applied", valetkey.Revocation{Subject: "alice", At: revoked.Add(-time.Hour)}, 30 * time.Second, revoked.Add(-time.Hour + 29*time.Second), 401},
		{"made at another time, and issued after", valetkey.Revocation{Subject: "alice", At: revoked.Add(-time.Hour)}, 30 * time.Second, revoked.Add(-time.Hour + 30*time.Second), 200},
		{"the issuer's own time is compared as it is", valetkey.Revocation{Subject: "alice", Before: revoked.Truncate(time.Second)}, 5 * time.Minute, revoked.Truncate(time.Second), 200},
		{"the issuer's own time, and issued before", valetkey.Revocation{Subject: "alice", Before: revoked.Truncate(time.Second)}, 5 * time.Minute, revoked.Truncate(time.Second).Add(-time.Second), 401},
		{"issued in the very second of the issuer's time, before or after", valetkey.Revocation{Subject: "alice", Before: revoked}, 5 * time.Minute, revoked.Truncate(time.Second), 401},
		{"logged in again a second after the issuer's time", valetkey.Revocation{Subject: "alice", Before: revoked}, 5 * time.Minute, revoked.Truncate(time.Second).Add(time.Second), 200},
		{"Before counts and At does not", valetkey.Revocation{Subject: "alice", Before: revoked.Add(-time.Hour), At: revoked}, 30 * time.Second, revoked.Add(-time.Minute), 200},
		{"it does not state when it was issued", valetkey.Revocation{Subject: "alice", Before: revoked}, 0, time.Time{}, 401},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := &clerk{now: revoked, leeway: c.leeway, tokens: map[string]valetkey.TokenFields{
				"a": {Subject: "alice", IssuedAt: c.iat, Expiry: revoked.Add(time.Hour)},
			}}
			guard := guardWith(t, v, func(cfg *middleware.Config) { cfg.Now = func() time.Time { return v.now } })
			c.r.Issuer = "https://as.example.com"
			require.NoError(t, guard.Revoke(c.r))
			assert.Equal(t, c.want, status(guard, "a"))
		})
	}
	t.Run("without an exp the most leeway counts", func(t *testing.T) {
		v := &clerk{now: revoked, tokens: map[string]valetkey.TokenFields{"ahead": {Subject: "alice", IssuedAt: revoked.Add(299 * time.Second)}}}
		guard := guardWith(t, v, func(cfg *middleware.Config) { cfg.Now = func() time.Time { return v.now } })
		require.NoError(t, guard.Revoke(valetkey.Revocation{Issuer: "https://as.example.com", Subject: "alice"}))
		assert.Equal(t, 401, status(guard, "ahead"))
	})
	t.Run("two revocations of one subject keep both bounds", func(t *testing.T) {
		for _, order := range [][2]valetkey.Revocation{
			{{Subject: "alice", Before: revoked.Add(-time.Hour)}, {Subject: "alice", At: revoked.Add(-2 * time.Hour)}},
			{{Subject: "alice", At: revoked.Add(-2 * time.Hour)}, {Subject: "alice", Before: revoked.Add(-time.Hour)}},
			{{Subject: "alice", At: revoked.Add(-time.Hour)}, {Subject: "alice", Before: revoked.Add(-2 * time.Hour)}},
		} {
			v := &clerk{now: revoked, tokens: map[string]valetkey.TokenFields{
				"a": {Subject: "alice", IssuedAt: revoked.Add(-61 * time.Minute), Expiry: revoked.Add(time.Hour)},
			}}
			guard := guardWith(t, v, func(cfg *middleware.Config) { cfg.Now = func() time.Time { return v.now } })
			order[0].Issuer, order[1].Issuer = "https://as.example.com", "https://as.example.com"
			require.NoError(t, guard.Revoke(order[0], order[1]))
			assert.Equal(t, 401, status(guard, "a"))
		}
	})
}

func TestAFullListDropsNoDenial(t *testing.T) {
	const issuer = "https://as.example.com"
	var log strings.Builder
	now := time.Unix(1_800_000_000, 0)
	token := func(id, subject string) valetkey.TokenFields {
		return valetkey.TokenFields{ID: id, Subject: subject, ClientID: "app", SessionID: "of " + subject, IssuedAt: now.Add(-time.Minute), Expiry: now.Add(time.Hour)}
	}
	v := &clerk{now: now, tokens: map[string]valetkey.TokenFields{
		"first": token("0", "bob"), "last": token("99999", "bob"), "other": token("other", "bob"),
		"alices": token("a", "alice"), "carols": token("c", "carol"),
	}}
	guard := guardWith(t, v, func(cfg *middleware.Config) {
		cfg.Now = func() time.Time { return v.now }
		cfg.Revocations.Bytes = 1 << 20
		cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
	})
	require.Equal(t, 200, status(guard, "last"))
	many := make([]valetkey.Revocation, 100_000) // three times what there is room for
	for i := range many {
		many[i] = valetkey.Revocation{Issuer: issuer, ID: fmt.Sprint(i), Until: now.Add(time.Hour)}
	}
	require.NoError(t, guard.Revoke(many...))
	assert.Equal(t, 1, strings.Count(log.String(), "no room for a revocation"), "it is logged at once")
	s := guard.Status()
	assert.GreaterOrEqual(t, s.Revocations.Held, 1<<20/32, "a byte count is a promise")
	assert.InDelta(t, 100_000, s.Revocations.Held+s.Revocations.Overflowed, 10)
	assert.Equal(t, valetkey.Degraded, s.State)
	assert.Equal(t, 1, strings.Count(log.String(), "no room for a revocation"))

	assert.Equal(t, 401, status(guard, "first"), "it has room")
	assert.Equal(t, 503, status(guard, "last"), "it has none, and may be revoked")
	assert.Equal(t, 200, status(guard, "other"), "it is not revoked")

	for _, r := range []valetkey.Revocation{{Subject: "alice"}, {SessionID: "of carol"}} {
		r.Issuer = issuer
		require.NoError(t, guard.Revoke(r))
	}
	assert.Equal(t, 401, status(guard, "alices"), "ids take no room from subjects")
	assert.Equal(t, 401, status(guard, "carols"), "nor from sessions")
	assert.Equal(t, 200, status(guard, "other"))
	require.NoError(t, guard.Revoke(valetkey.Revocation{Issuer: issuer, All: true, Before: now}))
	assert.Equal(t, 401, status(guard, "other"), "nor from an issuer")
	assert.Equal(t, 1, strings.Count(log.String(), "no room for a revocation"), "it is logged once")

	v.now = now.Add(30 * time.Hour)
	v.tokens["last"] = valetkey.TokenFields{ID: "new", Subject: "bob", IssuedAt: v.now, Expiry: v.now.Add(time.Hour)}
	assert.Equal(t, valetkey.Ready, guard.Status().State, "what overflowed is over")
	assert.Zero(t, guard.Status().Revocations.Overflowed)
	assert.Equal(t, 200, status(guard, "last"))
	require.NoError(t, guard.Revoke(many[0], valetkey.Revocation{Issuer: issuer, ID: "new"}))
	assert.Equal(t, 401, status(guard, "last"), "there is room again")
	assert.Equal(t, 1, strings.Count(log.String(), "room for all revocations again"))
}

func TestARequestUnderWayEndsWithADenialThatFoundNoRoom(t *testing.T) {
	const issuer = "https://as.example.com"
	now := time.Unix(1_800_000_000, 0)
	v := &clerk{now: now, tokens: map[string]valetkey.TokenFields{
		"last": {ID: "99", IssuedAt: now, Expiry: now.Add(time.Hour)}, "other": {ID: "other", IssuedAt: now, Expiry: now.Add(time.Hour)},
	}}
	guard := guardWith(t, v, cancels, func(cfg *middleware.Config) {
		cfg.Now = func() time.Time { return v.now }
		cfg.Revocations.Bytes = 1 // room for none
	})
	open := func(raw string) (context.Context, error) {
		d := guard.Decide(valetkeytest.Request("GET", "/", raw))
		return d.Context(t.Context()), d.Err()
	}
	last, err := open("last")
	require.NoError(t, err)
	other, err := open("other")
	require.NoError(t, err)
	require.NoError(t, guard.Revoke(valetkey.Revocation{Issuer: issuer, ID: "99"}))
	var refusal *valetkey.Error
	require.ErrorAs(t, context.Cause(last), &refusal)
	assert.Equal(t, "the token may have been revoked while the request was served", refusal.Reason.Description())
	require.NoError(t, other.Err(), "it is not revoked")
	_, err = open("last")
	var unavailable *valetkey.Unavailable
	require.ErrorAs(t, err, &unavailable)
	assert.Equal(t, time.Minute, unavailable.RetryAfter)
}

// TestRefusalsThatNoScopeWouldChange proves that insufficient_scope is sent only where a client can do something with it (RFC 6750, section
// 3.1). docs/conformance.md has the decision.
func TestRefusalsThatNoScopeWouldChange(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	guard := newGuard(t, iss)
	rule, scope := claims.Equal("tenant_id", "t1"), scopes.All("orders:read")
	own, read := valetkeytest.Claim("tenant_id", "t1"), valetkeytest.Scopes("orders:read")
	for _, c := range []struct {
		name  string
		need  valetkey.Requirement
		token string
		want  string // the error and the scope of the challenge
	}{
		{"a claim", rule, iss.Token(read), " "},
		{"a claim beside a scope that the token has", valetkey.AllOf{scope, rule}, iss.Token(read), " "},
		{"a claim and a scope, of which both are missing", valetkey.AllOf{scope, rule}, iss.Token(), " "},
		{"the same in another order", valetkey.AllOf{rule, scope}, iss.Token(), " "},
		{"a claim and a scope, of which either is sufficient", valetkey.AnyOf{rule, scope}, iss.Token(), "insufficient_scope orders:read"},
		{"a scope", scope, iss.Token(own), "insufficient_scope orders:read"},
		{"a scope beside a claim that the token has", valetkey.AllOf{scope, rule}, iss.Token(own), "insufficient_scope orders:read"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := guard.Decide(valetkeytest.Request("GET", "/orders", c.token), c.need)
			assert.Equal(t, 403, d.Status())
			challenge := valetkeytest.Challenge(t, d.Header(), "Bearer")
			assert.Equal(t, c.want, challenge["error"]+" "+challenge["scope"])
		})
	}
	assert.NoError(t, guard.Decide(valetkeytest.Request("GET", "/orders", iss.Token(own, read)), valetkey.AllOf{scope, rule}).Err())
}
