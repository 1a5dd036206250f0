package signals_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/signals"
)

// TestWhatSubjectsSelect checks what an event revokes, which of its subjects is asked for, and the reason that is logged.
func TestWhatSubjectsSelect(t *testing.T) {
	tr := newTransmitter(t)
	elsewhere := "https://other.example.com"
	alice, theirs := user(tr.URL, "alice"), user(elsewhere, "alice")
	email := func(address string) M { return M{"format": "email", "email": address} }
	jwtOf := func(issuer string) M { return M{"format": "jwt_id", "iss": issuer, "jti": "token-1"} }
	aliases := func(all ...M) M { return M{"format": "aliases", "identifiers": all} }
	complexOf := func(m M) M { m["format"] = "complex"; return m }
	resolve := func(cfg *signals.Config) { cfg.Resolve = people }
	keycloak := func(cfg *signals.Config) { cfg.Legacy.AllowAllSessions = true }
	tenant := func(cfg *signals.Config) { cfg.Tenant = "t1" }
	for _, c := range []struct {
		name    string
		subject M
		config  func(*signals.Config)
		want    []string
		outcome string // "": applied
		reason  string
	}{
		{"SSF-23 a session of a user of another issuer whom no resolver knows: nothing, since its ID may be that of a session here",
			complexOf(M{"user": theirs, "session": opaque("s1")}), resolve, nil, "foreign", "the subject is of the issuer"},
		{"SSF-23 a user of another issuer whom no resolver knows: nothing", theirs, resolve, nil, "foreign", "the subject is of the issuer"},
		{"SSF-23 a token of another issuer, with a resolver: nothing", jwtOf(elsewhere), resolve, nil, "foreign", "the subject is of the issuer"},
		{"a session of a user of another issuer whom the resolver knows: the session", complexOf(M{"user": user(elsewhere, "alice@example.com"), "session": opaque("s1")}),
			resolve, []string{"sid s1"}, "", ""},
		{"a user here and elsewhere: the one here", aliases(theirs, alice), nil, []string{"sub alice"}, "", ""},
		{"a user elsewhere and here: the one here", aliases(alice, theirs), nil, []string{"sub alice"}, "", ""},
		{"a session of a user here and elsewhere: the session", complexOf(M{"user": aliases(alice, theirs), "session": opaque("s1")}), nil, []string{"sid s1"}, "", ""},
		{"an email address in place of a session: nothing", email("nobody@example.com"), nil, nil, "unresolved", "no resolver knows the subject"},

		{"a session that is a user here: the session", complexOf(M{"session": user(tr.URL, "s1")}), nil, []string{"sid s1"}, "", ""},
		{"a session of another issuer: nothing", complexOf(M{"session": user(elsewhere, "s1")}), nil, nil, "foreign", "the session is of the issuer"},
		{"a token of another issuer in place of a session: nothing", complexOf(M{"session": jwtOf(elsewhere)}), nil, nil, "foreign", "the session is of the issuer"},
		{"a token of another issuer in place of a session of a user here: nothing", complexOf(M{"user": alice, "session": jwtOf(elsewhere)}), nil, nil, "foreign", "the session is of the issuer"},
		{"an email address as a session: nothing", complexOf(M{"user": alice, "session": email("a@example.com")}), nil, nil, "unmatched", "the session is neither opaque nor a JWT"},

		{"the session ALL of a user, without the option: the session of that name", complexOf(M{"user": alice, "session": opaque("ALL")}), nil, []string{"sid ALL"}, "", ""},
		{"the session ALL of a user, with the option: the user", complexOf(M{"user": alice, "session": opaque("ALL")}), keycloak, []string{"sub alice"}, "", ""},
		{"the session ALL without a user: the session of that name", complexOf(M{"session": opaque("ALL")}), keycloak, []string{"sid ALL"}, "", ""},
		{"another session: the session", complexOf(M{"user": alice, "session": opaque("s1")}), keycloak, []string{"sid s1"}, "", ""},
		{"the session ALL in another format: the session of that name", complexOf(M{"user": alice, "session": user(tr.URL, "ALL")}), keycloak, []string{"sid ALL"}, "", ""},
		{"the session ALL and another one: the sessions of these names", complexOf(M{"user": alice, "session": aliases(opaque("ALL"), opaque("s1"))}), keycloak,
			[]string{"sid ALL", "sid s1"}, "", ""},

		{"our tenant as a user of the issuer: all tokens", complexOf(M{"tenant": user(tr.URL, "t1")}), tenant, []string{"all"}, "", ""},
		{"a tenant of that name at another issuer: nothing", complexOf(M{"tenant": user(elsewhere, "t1")}), tenant, nil, "foreign", "a tenant other than"},
		{"a tenant without an ID, without a configured tenant: nothing", complexOf(M{"tenant": M{"format": "catalog_item"}}), nil, nil, "foreign", "a tenant other than"},
		{"our tenant with a device: nothing", complexOf(M{"tenant": opaque("t1"), "device": opaque("d")}), tenant, nil, "unmatched", "neither a user nor a session"},

		{"a client with the issuer: the client", complexOf(M{"application": user(tr.URL, "orders-app")}), nil, []string{"client orders-app"}, "", ""},
		{"a client of another issuer: nothing", complexOf(M{"application": user(elsewhere, "orders-app")}), nil, nil, "unmatched", "the application is neither"},
		{"a client as a token: nothing", complexOf(M{"application": jwtOf(tr.URL)}), nil, nil, "unmatched", "the application is neither"},
		{"a client as an email address: nothing", complexOf(M{"application": email("a@example.com")}), nil, nil, "unmatched", "the application is neither"},
		{"a client on a device: nothing", complexOf(M{"application": opaque("orders-app"), "device": opaque("d")}), nil, nil, "unmatched", "neither a user nor a session"},
		{"a device: nothing", complexOf(M{"device": opaque("d")}), nil, nil, "unmatched", "neither a user nor a session"},
		{"a user with a client: nothing", complexOf(M{"user": alice, "application": opaque("orders-app")}), nil, nil, "unmatched", "a user with a application"},
		{"a user with a group: nothing", complexOf(M{"user": alice, "group": opaque("g")}), nil, nil, "unmatched", "a user with a group"},
		{"a user with an org_unit: nothing", complexOf(M{"user": alice, "org_unit": opaque("o")}), nil, nil, "unmatched", "a user with a org_unit"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &sink{}
			var log logBuffer
			r := newReceiver(t, tr.config(to(s), log.log, func(cfg *signals.Config) {
				if c.config != nil {
					c.config(cfg)
				}
			}))
			require.Equal(t, 202, push(r, tr.set(event(signals.SessionRevoked, M{}), claim("sub_id", c.subject))).Code)
			assert.ElementsMatch(t, c.want, s.what())
			outcome := c.outcome
			if outcome == "" {
				outcome = "applied"
				assert.Empty(t, log.String())
			} else {
				assert.Contains(t, log.String(), "outcome="+c.outcome)
				assert.Contains(t, log.String(), c.reason)
			}
			assert.Equal(t, map[string]uint64{outcome: 1}, r.Status().Outcomes)
		})
	}
	t.Run("a resolver is not asked for users and tokens of the issuer", func(t *testing.T) {
		for _, subject := range []M{alice, jwtOf(tr.URL)} {
			r := newReceiver(t, tr.config(func(cfg *signals.Config) {
				cfg.Resolve = func(context.Context, signals.Subject) ([]string, error) { t.Error("it is asked"); return nil, nil }
			}))
			assert.Equal(t, 202, push(r, tr.set(event(signals.SessionRevoked, M{}), claim("sub_id", subject))).Code)
		}
	})
	t.Run("a resolver that fails for the user of a session: 503, and nothing is revoked", func(t *testing.T) {
		s := &sink{}
		r := newReceiver(t, tr.config(to(s), resolve))
		assert.Equal(t, 503, push(r, tr.set(event(signals.SessionRevoked, M{}), claim("sub_id", session(email("down@example.com"), "s1")))).Code)
		assert.Empty(t, s.what())
	})
	t.Run("users without a name that a resolver returns are left out", func(t *testing.T) {
		s := &sink{}
		r := newReceiver(t, tr.config(to(s), func(cfg *signals.Config) {
			cfg.Resolve = func(context.Context, signals.Subject) ([]string, error) { return []string{"", "alice", ""}, nil }
		}))
		assert.Equal(t, 202, push(r, tr.set(claim("sub_id", email("a@example.com")))).Code)
		assert.Equal(t, []string{"sub alice"}, s.what())
	})
}

func TestEventsThatAreMalformed(t *testing.T) {
	tr := newTransmitter(t)
	twice := func(name, value string) M { return M{name: value, strings.ToUpper(name): value} }
	for name, c := range map[string]struct {
		set []change
		err string
	}{
		"a change_type in two letter cases":        {[]change{event(signals.CredentialChange, twice("change_type", "create"))}, "two letter cases"},
		"a current_level in two letter cases":      {[]change{event(signals.RiskLevelChange, twice("current_level", "LOW"))}, "two letter cases"},
		"an event_timestamp in two letter cases":   {[]change{event(signals.AccountDisabled, M{"event_timestamp": 1, "EVENT_TIMESTAMP": 2})}, "two letter cases"},
		"a state in two letter cases":              {[]change{event(verification, twice("state", ""))}, "two letter cases"},
		"a status in two letter cases":             {[]change{claim("sub_id", nil), event(streamUpdated, twice("status", "paused"))}, "two letter cases"},
		"a status in a status in two letter cases": {[]change{claim("sub_id", nil), event(streamUpdated, M{"status": twice("status", "paused")})}, "two letter cases"},
		"no subject": {[]change{claim("sub_id", nil)}, "sub_id is missing"},
		"a subject in the payload without the option": {[]change{claim("sub_id", nil), event(signals.AccountDisabled, M{"subject": user(tr.URL, "alice")})}, "sub_id is missing"},
	} {
		t.Run(name+" is refused", func(t *testing.T) {
			s := &sink{}
			r := newReceiver(t, tr.config(to(s), all))
			w := push(r, tr.set(c.set...))
			assert.Equal(t, 400, w.Code)
			assert.Equal(t, "invalid_request", errOf(t, w))
			assert.Contains(t, descriptionOf(t, w), c.err)
			assert.Empty(t, s.what())
			assert.Empty(t, r.Status().Stream)
		})
	}
}

func TestEventsThatRevokeNothingAreLogged(t *testing.T) {
	t.Run("an event that is not on, for who looks for it", func(t *testing.T) {
		tr := newTransmitter(t)
		for level, want := range map[slog.Level]bool{slog.LevelDebug: true, slog.LevelInfo: false} {
			var log logBuffer
			r := newReceiver(t, tr.config(func(cfg *signals.Config) {
				cfg.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: level}))
			}))
			require.Equal(t, 202, push(r, tr.set(event("https://example.com/event", M{}))).Code)
			assert.Equal(t, want, strings.Contains(log.String(), "outcome=disabled event=https://example.com/event"), log.String())
		}
	})
	t.Run("a critical member that is not understood", func(t *testing.T) {
		tr := newTransmitter(t)
		tr.metadata["critical_subject_members"] = []string{"device"}
		var log logBuffer
		r := newReceiver(t, tr.config(log.log))
		require.Equal(t, 202, push(r, tr.set(claim("sub_id", M{"format": "complex", "user": user(tr.URL, "alice"), "device": opaque("d")}))).Code)
		assert.Contains(t, log.String(), "outcome=critical")
		assert.Contains(t, log.String(), `the critical member \"device\" is not understood`)
	})
	t.Run("SSF-24 a critical application is understood only by itself", func(t *testing.T) {
		tr := newTransmitter(t)
		tr.metadata["critical_subject_members"] = []string{"application"}
		s := &sink{}
		r := newReceiver(t, tr.config(to(s), func(cfg *signals.Config) { cfg.Widen = true }))
		require.Equal(t, 202, push(r, tr.set(claim("sub_id", M{"format": "complex", "application": opaque("app")}))).Code)
		assert.Equal(t, []string{"client app"}, s.what())
		require.Equal(t, 202, push(r, tr.set(claim("sub_id", M{"format": "complex", "user": user(tr.URL, "alice"), "application": opaque("app")}))).Code)
		assert.Equal(t, []string{"client app"}, s.what())
		assert.Equal(t, map[string]uint64{"applied": 1, "critical": 1}, r.Status().Outcomes)
	})
	t.Run("at most once a minute for each outcome, with their number", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tr := newTransmitterInMemory(t)
			var log logBuffer
			r := newReceiver(t, tr.config(log.log))
			for range 3 {
				require.Equal(t, 202, push(r, tr.set(claim("sub_id", user("https://other.example.com", "alice")))).Code)
				require.Equal(t, 202, push(r, tr.set(claim("sub_id", opaque("x")))).Code)
				require.Equal(t, 202, push(r, tr.set(claim("iat", time.Now().Add(time.Hour).Unix()))).Code)
				require.Equal(t, 400, push(r, tr.set(claim("exp", 1))).Code)
			}
			for _, text := range []string{"outcome=foreign", "outcome=unresolved", "the time of an event is in the future", "a token is refused"} {
				assert.Equal(t, 1, strings.Count(log.String(), text), text)
			}
			time.Sleep(time.Minute)
			require.Equal(t, 202, push(r, tr.set(claim("sub_id", user("https://other.example.com", "alice")))).Code)
			assert.Equal(t, 2, strings.Count(log.String(), "outcome=foreign"))
			assert.Contains(t, log.String(), "events=3")
			r.Close()
			tr.close()
		})
	})
}

func TestWhomAStreamUpdateIsAbout(t *testing.T) {
	tr := newTransmitter(t)
	paused := M{"status": "paused", "reason": "license"}
	for name, c := range map[string]struct {
		subject any
		payload M
		stream  bool
	}{
		"the stream by its opaque ID":            {opaque("stream-1"), paused, true},
		"no subject":                             {nil, paused, true},
		"a subject that is malformed":            {"alice", paused, true},
		"a user":                                 {user(tr.URL, "alice"), paused, false},
		"a complex subject":                      {session(user(tr.URL, "alice"), "s1"), paused, false},
		"aliases":                                {M{"format": "aliases", "identifiers": []M{opaque("a"), opaque("b")}}, paused, false},
		"a subject in the payload, as in drafts": {nil, M{"status": "paused", "subject": user(tr.URL, "alice")}, false},
		"a subject in the payload, and the ID of the stream": {opaque("stream-1"), M{"status": "paused", "subject": user(tr.URL, "alice")}, false},
	} {
		t.Run(name, func(t *testing.T) {
			var log logBuffer
			r := newReceiver(t, tr.config(log.log))
			require.Equal(t, 202, push(r, tr.set(claim("sub_id", c.subject), event(streamUpdated, c.payload))).Code)
			assert.Equal(t, map[string]uint64{"stream": 1}, r.Status().Outcomes)
			if c.stream {
				assert.Equal(t, "paused", r.Status().Stream)
				assert.Contains(t, log.String(), "the transmitter has changed the status of the stream")
				assert.Contains(t, log.String(), "status=paused reason=license")
			} else {
				assert.Empty(t, r.Status().Stream)
				assert.Contains(t, log.String(), "the transmitter has changed the status of one subject")
			}
		})
	}
}
