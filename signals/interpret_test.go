package signals_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/signals"
	"github.com/valetkey/valetkey/valetkeytest"
)

// all lists every event, as a receiver that has them all on.
func all(cfg *signals.Config) { cfg.Events = signals.Events() }

// people is a resolver that knows alice by an email address.
func people(_ context.Context, s signals.Subject) ([]string, error) {
	switch s.ID {
	case "alice@example.com":
		return []string{"alice"}, nil
	case "down@example.com":
		return nil, errors.New("the directory is down")
	}
	return nil, nil
}

func TestWhatEventsRevoke(t *testing.T) {
	tr := newTransmitter(t)
	alice, theirs := user(tr.URL, "alice"), user("https://other.example.com", "alice")
	jwt := M{"format": "jwt_id", "iss": tr.URL, "jti": "token-1"}
	complexOf := func(m M) change { m["format"] = "complex"; return claim("sub_id", m) }
	revoked := event(signals.SessionRevoked, M{})
	resolve := func(cfg *signals.Config) { cfg.Resolve = people }
	widen := func(cfg *signals.Config) { cfg.Widen = true }
	for _, test := range []struct {
		name    string
		set     []change
		config  func(*signals.Config)
		want    []string
		outcome string // "": applied
	}{
		{"SSF-16 a session of a user: the session alone", []change{revoked, claim("sub_id", session(alice, "s1"))}, nil, []string{"sid s1"}, ""},
		{"SSF-17 a complex subject with only a user: the user", []change{revoked, complexOf(M{"user": alice})}, nil, []string{"sub alice"}, ""},
		{"SSF-18 a session, widened: the session and the user", []change{revoked, claim("sub_id", session(alice, "s1"))}, widen, []string{"sid s1", "sub alice"}, ""},
		{"a session by its ID alone", []change{revoked, claim("sub_id", opaque("s1"))}, nil, []string{"sid s1"}, ""},
		{"an opaque subject of an event that is not about sessions: nothing", []change{claim("sub_id", opaque("s1"))}, nil, nil, "unresolved"},
		{"a session of a user whom only a resolver knows: the session", []change{revoked, claim("sub_id", session(M{"format": "email", "email": "x@y"}, "s1"))}, nil, []string{"sid s1"}, ""},
		{"one token", []change{revoked, claim("sub_id", jwt)}, nil, []string{"jti token-1"}, ""},
		{"a token in place of a session", []change{revoked, complexOf(M{"user": alice, "session": jwt})}, nil, []string{"jti token-1"}, ""},
		{"a user by sub", []change{revoked, claim("sub_id", alice)}, nil, []string{"sub alice"}, ""},
		{"a client", []change{revoked, complexOf(M{"application": opaque("orders-app")})}, nil, []string{"client orders-app"}, ""},
		{"a user with a device: nothing", []change{revoked, complexOf(M{"user": alice, "device": opaque("d")})}, nil, nil, "unmatched"},
		{"a user with a device, widened: the user", []change{revoked, complexOf(M{"user": alice, "device": opaque("d")})}, widen, []string{"sub alice"}, ""},
		{"a device alone, widened: nothing", []change{revoked, complexOf(M{"device": opaque("d")})}, widen, nil, "unmatched"},
		{"a user with the tenant: the user", []change{revoked, complexOf(M{"user": alice, "tenant": opaque("t1")})}, nil, []string{"sub alice"}, ""},
		{"our tenant alone: all tokens", []change{revoked, complexOf(M{"tenant": opaque("t1")})}, func(cfg *signals.Config) { cfg.Tenant = "t1" }, []string{"all"}, ""},
		{"another tenant: nothing", []change{revoked, complexOf(M{"tenant": opaque("t2")})}, func(cfg *signals.Config) { cfg.Tenant = "t1" }, nil, "foreign"},
		{"a tenant without a configured one: nothing", []change{revoked, complexOf(M{"tenant": opaque("")})}, nil, nil, "invalid_request"},
		{"a tenant without a configured one: nothing, whatever its ID is", []change{revoked, complexOf(M{"tenant": opaque("t1")})}, nil, nil, "foreign"},

		{"SSF-23 a user of another issuer: nothing", []change{revoked, claim("sub_id", theirs)}, nil, nil, "foreign"},
		{"SSF-23 a session of a user of another issuer: nothing", []change{revoked, claim("sub_id", session(theirs, "s1"))}, nil, nil, "foreign"},
		{"SSF-23 a session of a user of another issuer, widened: nothing", []change{revoked, claim("sub_id", session(theirs, "s1"))}, widen, nil, "foreign"},
		{"SSF-23 a token of another issuer: nothing", []change{revoked, claim("sub_id", M{"format": "jwt_id", "iss": "https://other.example.com", "jti": "token-1"})}, nil, nil, "foreign"},
		{"SSF-23 the issuer with a slash is another one", []change{revoked, claim("sub_id", user(tr.URL+"/", "alice"))}, nil, nil, "foreign"},
		{"an alias of the issuer: the user", []change{revoked, claim("sub_id", user(tr.URL+"/", "alice"))},
			func(cfg *signals.Config) { cfg.IssuerAliases = []string{tr.URL + "/"} }, []string{"sub alice"}, ""},

		{"SSF-25 an email address without a resolver: nothing", []change{claim("sub_id", M{"format": "email", "email": "alice@example.com"})}, nil, nil, "unresolved"},
		{"SSF-25 an email address that the resolver knows: the user", []change{claim("sub_id", M{"format": "email", "email": "alice@example.com"})}, resolve, []string{"sub alice"}, ""},
		{"SSF-25 an email address that is equal to a sub: nothing", []change{claim("sub_id", M{"format": "email", "email": "alice"})}, resolve, nil, "unresolved"},
		{"a phone number, unknown to the resolver: nothing", []change{claim("sub_id", M{"format": "phone_number", "phone_number": "+12065550100"})}, resolve, nil, "unresolved"},
		{"a user of another issuer whom the resolver knows: the user here", []change{claim("sub_id", user("https://other.example.com", "alice@example.com"))}, resolve, []string{"sub alice"}, ""},
		{"a format that is unknown: nothing", []change{claim("sub_id", M{"format": "catalog_item", "catalog_id": "c"})}, nil, nil, "unresolved"},

		{"SSF-26 flat aliases: the union", []change{claim("sub_id", M{"format": "aliases", "identifiers": []M{alice, {"format": "email", "email": "alice@example.com"}, user(tr.URL, "alice2")}})},
			resolve, []string{"sub alice", "sub alice", "sub alice2"}, ""},
		{"SSF-26 nested aliases: refused", []change{claim("sub_id", M{"format": "aliases", "identifiers": []M{alice, {"format": "aliases", "identifiers": []M{alice}}}})}, nil, nil, "invalid_request"},
		{"SSF-26 aliases of nothing: refused", []change{claim("sub_id", M{"format": "aliases", "identifiers": []M{}})}, nil, nil, "invalid_request"},
		{"SSF-26 too many aliases: refused", []change{claim("sub_id", M{"format": "aliases", "identifiers": make([]M, 33)})}, nil, nil, "invalid_request"},
		{"SSF-26 aliases in a complex subject: the union", []change{revoked, complexOf(M{"user": M{"format": "aliases", "identifiers": []M{alice, user(tr.URL, "alice2")}}})},
			nil, []string{"sub alice", "sub alice2"}, ""},
		{"a complex subject in a complex one: refused", []change{complexOf(M{"user": M{"format": "complex", "user": alice}})}, nil, nil, "invalid_request"},
		{"an empty complex subject: refused", []change{complexOf(M{})}, nil, nil, "invalid_request"},
		{"an empty sub: refused", []change{claim("sub_id", user(tr.URL, ""))}, nil, nil, "invalid_request"},
		{"a sub that is too long to store: refused", []change{claim("sub_id", user(tr.URL, strings.Repeat("x", 1025)))}, nil, nil, "invalid_request"},
		{"a subject that is text: refused", []change{claim("sub_id", "alice")}, nil, nil, "invalid_request"},

		{"SSF-32 an event about a subject that was removed from the stream is an event like any other", []change{event(signals.AccountPurged, M{})}, nil, []string{"sub alice"}, ""},
		{"an account that is disabled, whatever the reason", []change{event(signals.AccountDisabled, M{"reason": "bulk-account"})}, nil, []string{"sub alice"}, ""},
		{"all sessions of a user", []change{event(signals.SessionsRevoked, M{})}, nil, []string{"sub alice"}, ""},
		{"an account that is enabled: nothing", []change{event("https://schemas.openid.net/secevent/risc/event-type/account-enabled", M{})}, all, nil, "disabled"},
		{"a session that is established: nothing", []change{event("https://schemas.openid.net/secevent/caep/event-type/session-established", M{})}, all, nil, "disabled"},
		{"an email address that is recycled: nothing", []change{event("https://schemas.openid.net/secevent/risc/event-type/identifier-recycled", M{})}, all, nil, "disabled"},
		{"a credential that changes, without its name in Events: nothing", []change{event(signals.CredentialChange, M{"change_type": "revoke"})}, nil, nil, "disabled"},
		{"a credential that is revoked", []change{event(signals.CredentialChange, M{"change_type": "revoke", "credential_type": "new-type"})}, all, []string{"sub alice"}, ""},
		{"a credential that is updated", []change{event(signals.CredentialChange, M{"change_type": "update"})}, all, []string{"sub alice"}, ""},
		{"a credential that is deleted", []change{event(signals.CredentialChange, M{"change_type": "delete"})}, all, []string{"sub alice"}, ""},
		{"a credential that is created: nothing", []change{event(signals.CredentialChange, M{"change_type": "create"})}, all, nil, "nothing"},
		{"a credential that changes in an unknown way", []change{event(signals.CredentialChange, M{"change_type": "eaten"})}, all, []string{"sub alice"}, ""},
		{"less assurance", []change{event(signals.AssuranceLevelChange, M{"change_direction": "decrease"})}, all, []string{"sub alice"}, ""},
		{"more assurance: nothing", []change{event(signals.AssuranceLevelChange, M{"change_direction": "increase"})}, all, nil, "nothing"},
		{"a high risk", []change{event(signals.RiskLevelChange, M{"current_level": "HIGH", "principal": "USER"})}, all, []string{"sub alice"}, ""},
		{"a low risk: nothing", []change{event(signals.RiskLevelChange, M{"current_level": "LOW"})}, all, nil, "nothing"},
		{"a device of a user and a session that is not compliant: the session", []change{event(signals.DeviceComplianceChange, M{"current_status": "not-compliant"}),
			complexOf(M{"user": alice, "device": opaque("d"), "session": opaque("s1")})}, all, []string{"sid s1"}, ""},
		{"a device that is not compliant: nothing", []change{event(signals.DeviceComplianceChange, M{"current_status": "not-compliant"}), complexOf(M{"device": opaque("d")})}, all, nil, "unmatched"},
		{"a device that is compliant: nothing", []change{event(signals.DeviceComplianceChange, M{"current_status": "compliant"})}, all, nil, "nothing"},
		{"claims that change", []change{event(signals.TokenClaimsChange, M{"claims": M{"role": "admin"}}), claim("sub_id", jwt)}, all, []string{"jti token-1"}, ""},
		{"a credential that is compromised", []change{event(signals.CredentialCompromise, M{"credential_type": "password"})}, all, []string{"sub alice"}, ""},
		{"a credential that must change", []change{event(signals.AccountCredentialChangeRequired, M{})}, all, []string{"sub alice"}, ""},
		{"all tokens of a user", []change{event(signals.TokensRevoked, M{})}, all, []string{"sub alice"}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := &sink{}
			var log logBuffer
			r := newReceiver(t, tr.config(func(cfg *signals.Config) { cfg.Guards = []signals.Guard{s} }, log.log, func(cfg *signals.Config) {
				if test.config != nil {
					test.config(cfg)
				}
			}))
			w := push(r, tr.set(test.set...))
			outcome, code := test.outcome, 202
			if outcome == "" {
				outcome = "applied"
			} else if strings.HasPrefix(outcome, "invalid") {
				code = 400
			}
			assert.Equal(t, code, w.Code, w.Body.String())
			assert.Equal(t, map[string]uint64{outcome: 1}, r.Status().Outcomes)
			got := s.what()
			if len(test.want) == 3 && test.want[0] == test.want[1] { // merged
				test.want = test.want[1:]
			}
			assert.ElementsMatch(t, test.want, got)
			for _, rev := range s.all {
				assert.Equal(t, tr.URL, rev.Issuer, "never that of a subject")
			}
			switch outcome {
			case "foreign", "unresolved", "unmatched":
				assert.Contains(t, log.String(), "level=WARN", "it is reported")
				assert.Contains(t, log.String(), "outcome="+outcome)
			}
		})
	}

	t.Run("a resolver that fails: 503, and the repeat comes", func(t *testing.T) {
		r := newReceiver(t, tr.config(resolve))
		assert.Equal(t, 503, push(r, tr.set(claim("sub_id", M{"format": "email", "email": "down@example.com"}))).Code)
	})
	for name, test := range map[string]struct {
		critical []string
		subject  M
		want     []string
	}{
		"SSF-24 a critical tenant without a configured one: discarded": {[]string{"tenant"}, M{"user": alice, "tenant": opaque("t1")}, []string{}},
		"SSF-24 a critical device: discarded":                          {[]string{"user", "device"}, M{"user": alice, "device": opaque("d")}, []string{}},
		"SSF-24 a critical member that is not in the subject: applied": {[]string{"tenant"}, M{"user": alice}, []string{"sub alice"}},
		"SSF-24 a critical user: applied":                              {[]string{"user", "session"}, M{"user": alice, "session": opaque("s1")}, []string{"sid s1"}},
		"SSF-24 a critical member that is unknown: discarded":          {[]string{"planet"}, M{"user": alice, "planet": opaque("mars")}, []string{}},
	} {
		t.Run(name, func(t *testing.T) {
			tr := newTransmitter(t)
			tr.metadata["critical_subject_members"] = test.critical
			if test.subject["user"] != nil {
				test.subject["user"] = user(tr.URL, "alice")
			}
			s := &sink{}
			r := newReceiver(t, tr.config(func(cfg *signals.Config) { cfg.Guards = []signals.Guard{s} }))
			assert.Equal(t, 202, push(r, tr.set(revoked, complexOf(test.subject))).Code)
			assert.Equal(t, test.want, s.what())
			if len(test.want) == 0 {
				assert.Equal(t, map[string]uint64{"critical": 1}, r.Status().Outcomes)
			}
		})
	}
	t.Run("SSF-24 a critical tenant that is ours: applied", func(t *testing.T) {
		tr := newTransmitter(t)
		tr.metadata["critical_subject_members"] = []string{"tenant"}
		s := &sink{}
		r := newReceiver(t, tr.config(func(cfg *signals.Config) { cfg.Guards, cfg.Tenant = []signals.Guard{s}, "t1" }))
		assert.Equal(t, 202, push(r, tr.set(revoked, complexOf(M{"user": user(tr.URL, "alice"), "tenant": opaque("t1")}))).Code)
		assert.Equal(t, []string{"sub alice"}, s.what())
	})
}

// The whole way, to the response of a guard.
func TestSessionsAtTheGuard(t *testing.T) {
	a, tr := newAPI(t), newTransmitter(t)
	r := newReceiver(t, tr.config(a.of))
	one, two, others := a.token("u1", "s1"), a.token("u1", "s2"), a.token("u2", "s3")
	t.Run("SSF-16 the session is refused, and the user's other one passes", func(t *testing.T) {
		require.Equal(t, 202, push(r, tr.set(event(signals.SessionRevoked, M{}), claim("sub_id", session(user(a.iss.URL, "u1"), "s1")))).Code)
		assert.Equal(t, []int{401, 200, 200}, []int{a.get(one), a.get(two), a.get(others)})
	})
	t.Run("SSF-17 without a session, all of the user's are refused", func(t *testing.T) {
		require.Equal(t, 202, push(r, tr.set(event(signals.SessionRevoked, M{}), claim("sub_id", M{"format": "complex", "user": user(a.iss.URL, "u1")}))).Code)
		assert.Equal(t, []int{401, 401, 200}, []int{a.get(one), a.get(two), a.get(others)})
	})
	t.Run("SSF-28 an account that is enabled again leaves the old tokens refused", func(t *testing.T) {
		old := a.token("u9", "s9")
		require.Equal(t, 202, push(r, tr.set(claim("sub_id", user(a.iss.URL, "u9")))).Code)
		require.Equal(t, 202, push(r, tr.set(claim("sub_id", user(a.iss.URL, "u9")), event("https://schemas.openid.net/secevent/risc/event-type/account-enabled", M{}))).Code)
		assert.Equal(t, 401, a.get(old))
	})
	t.Run("SSF-18 tokens without sid: the guard reports it, and the option refuses them", func(t *testing.T) {
		a := newAPI(t)
		token := a.token("u1", "", valetkeytest.Claim("sid", nil))
		require.Equal(t, 200, a.get(token))
		revoke := tr.set(event(signals.SessionRevoked, M{}), claim("sub_id", session(user(a.iss.URL, "u1"), "s1")))
		require.Equal(t, 202, push(newReceiver(t, tr.config(a.of)), revoke).Code)
		assert.Equal(t, 200, a.get(token))
		assert.Equal(t, 1, a.guard.Status().Revocations.Unmatched)
		require.Equal(t, 202, push(newReceiver(t, tr.config(a.of, func(cfg *signals.Config) { cfg.Widen = true })), revoke).Code)
		assert.Equal(t, 401, a.get(token))
	})
}

func TestTimesOfEvents(t *testing.T) {
	tr := newTransmitter(t)
	now := time.Now().Truncate(time.Second)
	at := func(d time.Duration) int64 { return now.Add(d).Unix() }
	for _, test := range []struct {
		name   string
		set    []change
		before time.Time
		warned bool
	}{
		{"SSF-19 event_timestamp, up to the next second", []change{event(signals.AccountDisabled, M{"event_timestamp": at(-100 * time.Second)}), claim("iat", at(-50*time.Second))},
			now.Add(-99 * time.Second), false},
		{"SSF-19 event_timestamp with a fraction", []change{event(signals.AccountDisabled, M{"event_timestamp": float64(at(-100*time.Second)) + 0.5})}, now.Add(-99 * time.Second), false},
		{"SSF-20 without event_timestamp, toe", []change{claim("toe", at(-80*time.Second)), claim("iat", at(-50*time.Second))}, now.Add(-79 * time.Second), false},
		{"SSF-20 without event_timestamp and toe, iat", []change{claim("iat", at(-50*time.Second))}, now.Add(-49 * time.Second), false},
		{"SSF-20 an event_timestamp of 0 is absent", []change{event(signals.AccountDisabled, M{"event_timestamp": 0}), claim("iat", at(-50*time.Second))}, now.Add(-49 * time.Second), false},
		{"SSF-22 milliseconds count as the present", []change{event(signals.AccountDisabled, M{"event_timestamp": at(-time.Hour) * 1000})}, now.Add(31 * time.Second), true},
		{"SSF-22 a time far ahead counts as the present", []change{event(signals.AccountDisabled, M{"event_timestamp": at(time.Hour)})}, now.Add(31 * time.Second), true},
		{"SSF-22 an iat far ahead counts as the present", []change{claim("iat", at(1000*time.Hour))}, now.Add(31 * time.Second), true},
		{"SSF-22 a time within the leeway is kept", []change{event(signals.AccountDisabled, M{"event_timestamp": at(20 * time.Second)})}, now.Add(21 * time.Second), false},
		{"SSF-22 a number out of range counts as the present", []change{event(signals.AccountDisabled, M{"event_timestamp": 1e300})}, now.Add(31 * time.Second), true},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := &sink{}
			var log logBuffer
			r := newReceiver(t, tr.config(log.log, func(cfg *signals.Config) {
				cfg.Guards = []signals.Guard{s}
				cfg.Now = func() time.Time { return now }
			}))
			require.Equal(t, 202, push(r, tr.set(test.set...)).Code)
			got := s.last()
			assert.WithinDuration(t, test.before, got.Before, 0)
			assert.True(t, got.At.IsZero())
			assert.WithinDuration(t, minTime(test.before.Add(24*time.Hour), now.Add(24*time.Hour)), got.Until, 0)
			assert.Equal(t, test.warned, strings.Contains(log.String(), "in the future"))
		})
	}
	for name, payload := range map[string]any{"a text": "1700000000", "an object": M{}, "true": true} {
		t.Run("an event_timestamp that is "+name+" is refused", func(t *testing.T) {
			w := push(newReceiver(t, tr.config()), tr.set(event(signals.AccountDisabled, M{"event_timestamp": payload})))
			assert.Equal(t, 400, w.Code)
		})
	}
	t.Run("the clock of another host differs, so the leeway applies", func(t *testing.T) {
		s := &sink{}
		r := newReceiver(t, tr.config(func(cfg *signals.Config) { cfg.Guards, cfg.Issuer = []signals.Guard{s}, "https://as.example.com" }))
		require.Equal(t, 202, push(r, tr.set(claim("sub_id", user("https://as.example.com", "alice")), claim("iat", at(-50*time.Second)))).Code)
		assert.True(t, s.last().Before.IsZero())
		assert.WithinDuration(t, now.Add(-49*time.Second), s.last().At, 0)
	})
	t.Run("SSF-19 a token of the same second is refused, and one of the next passes", func(t *testing.T) {
		a := newAPI(t)
		r := newReceiver(t, tr.config(a.of, func(cfg *signals.Config) { cfg.Issuer = a.iss.URL }))
		signals.SetOwnClock(r)
		require.Equal(t, 202, push(r, tr.set(claim("sub_id", user(a.iss.URL, "u")), event(signals.AccountDisabled, M{"event_timestamp": at(-100 * time.Second)}))).Code)
		issued := func(d time.Duration) string {
			return a.iss.Token(valetkeytest.Claim("sub", "u"), valetkeytest.Claim("iat", at(d)), valetkeytest.Claim("exp", at(time.Hour)))
		}
		assert.Equal(t, 401, a.get(issued(-100*time.Second)))
		assert.Equal(t, 200, a.get(issued(-99*time.Second)))
	})
	t.Run("SSF-21 the newer event before the older one: the later bound remains", func(t *testing.T) {
		a := newAPI(t)
		r := newReceiver(t, tr.config(a.of))
		signals.SetOwnClock(r)
		for _, d := range []time.Duration{-50 * time.Second, -100 * time.Second} {
			require.Equal(t, 202, push(r, tr.set(claim("sub_id", user(a.iss.URL, "u")), event(signals.AccountDisabled, M{"event_timestamp": at(d)}))).Code)
		}
		w := watch(t, r)
		assert.WithinDuration(t, now.Add(-49*time.Second), w.last().Before, 0, "also for one that watches later")
		token := a.iss.Token(valetkeytest.Claim("sub", "u"), valetkeytest.Claim("iat", at(-60*time.Second)), valetkeytest.Claim("exp", at(time.Hour)))
		assert.Equal(t, 401, a.get(token))
	})
	t.Run("an event whose tokens have all expired is acknowledged and not stored", func(t *testing.T) {
		s := &sink{}
		r := newReceiver(t, tr.config(func(cfg *signals.Config) { cfg.Guards, cfg.MaxTokenLifetime = []signals.Guard{s}, time.Hour }))
		require.Equal(t, 202, push(r, tr.set(claim("iat", at(-2*time.Hour)))).Code)
		assert.Equal(t, map[string]uint64{"expired": 1}, r.Status().Outcomes)
		assert.Empty(t, s.what())
	})
}

func minTime(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func TestLegacySubjects(t *testing.T) {
	tr := newTransmitter(t)
	legacy := func(cfg *signals.Config) { cfg.Legacy.AllowSubjectType = true }
	old := func(subject M) []change {
		return []change{claim("sub_id", nil), event(signals.SessionsRevoked, M{"subject": subject})}
	}
	google := old(M{"subject_type": "iss-sub", "iss": tr.URL, "sub": "alice"})
	for _, test := range []struct {
		name   string
		set    []change
		config func(*signals.Config)
		want   []string
		code   int
	}{
		{"SSF-29 subject_type without the option: refused", google, nil, []string{}, 400},
		{"SSF-29 subject_type in sub_id without the option: refused", []change{claim("sub_id", M{"subject_type": "iss-sub", "iss": tr.URL, "sub": "alice"})}, nil, []string{}, 400},
		{"SSF-29 subject_type with the option: read", google, legacy, []string{"sub alice"}, 202},
		{"SSF-29 format and subject_type: the format counts", old(M{"format": "iss_sub", "subject_type": "email", "iss": tr.URL, "sub": "alice"}), legacy, []string{"sub alice"}, 202},
		{"SSF-29 subject_type of a user of another issuer: nothing", old(M{"subject_type": "iss-sub", "iss": "https://other.example.com", "sub": "alice"}), legacy, []string{}, 202},
		{"SSF-29 a token of Google: nothing, since it is not an access token of ours", old(M{"subject_type": "oauth_token", "token_type": "refresh_token",
			"token_identifier_alg": "prefix", "token": "7265"}), legacy, []string{}, 202},
		{"a complex subject of the drafts, without a format", old(M{"user": M{"format": "iss_sub", "iss": tr.URL, "sub": "alice"}}), legacy, []string{"sub alice"}, 202},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := &sink{}
			r := newReceiver(t, tr.config(func(cfg *signals.Config) {
				cfg.Guards = []signals.Guard{s}
				if test.config != nil {
					test.config(cfg)
				}
			}))
			assert.Equal(t, test.code, push(r, tr.set(test.set...)).Code)
			assert.Equal(t, test.want, s.what())
		})
	}
}
