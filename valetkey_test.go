package valetkey_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
)

var (
	yes     = answer(valetkey.NewToken(valetkey.TokenFields{Subject: "alice"}), nil)
	no      = answer(nil, &valetkey.Error{Code: valetkey.InvalidToken, Reason: valetkey.ReasonExpired})
	notMine = answer(nil, &valetkey.Error{Code: valetkey.InvalidToken, Reason: valetkey.NewReason("test_another_issuer", "another issuer"), Err: valetkey.ErrNotApplicable})
	failure = answer(nil, errors.New("the issuer is out of reach"))
	nothing = answer(nil, nil)
)

func answer(t *valetkey.Token, err error) valetkey.Verifier {
	return valetkey.VerifierFunc(func(context.Context, string) (*valetkey.Token, error) { return t, err })
}

// kind classifies a result into the three outcomes that a guard distinguishes.
func kind(t *valetkey.Token, err error) string {
	var refusal *valetkey.Error
	switch {
	case errors.As(err, &refusal):
		return "refused: " + refusal.Reason.Description()
	case err != nil:
		return "failure"
	case t == nil:
		return "nil, nil"
	default:
		return "accepted"
	}
}

func TestFirst(t *testing.T) {
	for _, c := range []struct {
		name      string
		verifiers []valetkey.Verifier
		want      string
	}{
		{"of nothing refuses", nil, "refused: no trusted issuer vouches for the token"},
		{"a no ends the question", []valetkey.Verifier{no, yes}, "refused: the token has expired"},
		{"a failure ends the question", []valetkey.Verifier{failure, yes}, "failure"},
		{"no answer is a failure", []valetkey.Verifier{nothing, yes}, "failure"},
		{"a nil verifier is a failure", []valetkey.Verifier{nil, yes}, "failure"},
		{"a token of no verifier is refused", []valetkey.Verifier{notMine, notMine}, "refused: no trusted issuer vouches for the token"},
		{"a single verifier's reason is returned", []valetkey.Verifier{notMine}, "refused: another issuer"},
		{"not mine passes the question on", []valetkey.Verifier{notMine, yes, failure}, "accepted"},
	} {
		t.Run(c.name, func(t *testing.T) {
			assert.Equal(t, c.want, kind(valetkey.First(c.verifiers...).Verify(t.Context(), "x")))
		})
	}
	t.Run("the refusal states why each of them does not apply, and the code and the description once", func(t *testing.T) {
		because := func(cause string) valetkey.Verifier {
			return answer(nil, &valetkey.Error{Code: valetkey.InvalidToken, Reason: valetkey.ReasonIssuer, Err: fmt.Errorf("%s: %w", cause, valetkey.ErrNotApplicable)})
		}
		_, err := valetkey.First(because("a"), because("b")).Verify(t.Context(), "x")
		assert.EqualError(t, err, "invalid_token: no trusted issuer vouches for the token: a: the token is not for this verifier; b: the token is not for this verifier")
	})
	t.Run("passing the question on costs no allocation", func(t *testing.T) {
		v := valetkey.First(notMine, notMine, notMine, yes)
		alone := testing.AllocsPerRun(100, func() { yes.Verify(t.Context(), "x") })
		assert.Equal(t, alone, testing.AllocsPerRun(100, func() { v.Verify(t.Context(), "x") }))
	})
	t.Run("a token of no verifier is not applicable either", func(t *testing.T) {
		_, err := valetkey.First(notMine, notMine).Verify(t.Context(), "x")
		require.ErrorIs(t, err, valetkey.ErrNotApplicable)
	})
	t.Run("the caller's slice is not kept", func(t *testing.T) {
		vs := []valetkey.Verifier{yes}
		v := valetkey.First(vs...)
		vs[0] = no
		assert.Equal(t, "accepted", kind(v.Verify(t.Context(), "x")))
	})
}

type holds bool

func (h *holds) Holds() bool { return bool(*h) }

func TestConfirm(t *testing.T) {
	for _, c := range []struct {
		name  string
		v, by valetkey.Verifier
		want  string
	}{
		{"the second's no counts", yes, no, "refused: the token has expired"},
		{"the second's failure counts", yes, failure, "failure"},
		{"the second's silence is a failure", yes, nothing, "failure"},
		{"the first's no counts", no, yes, "refused: the token has expired"},
		{"a nil second is a failure", yes, nil, "failure"},
		{"both accept", yes, yes, "accepted"},
	} {
		t.Run(c.name, func(t *testing.T) {
			assert.Equal(t, c.want, kind(valetkey.CrossCheck(c.v, c.by).Verify(t.Context(), "x")))
		})
	}

	t.Run("the token is the first's, relied on for as long as both may be", func(t *testing.T) {
		now := time.Now()
		a, b := holds(true), holds(true)
		first := valetkey.NewToken(valetkey.TokenFields{Subject: "alice", Freshness: valetkey.Freshness{Until: now.Add(time.Hour), While: &a}})
		second := valetkey.NewToken(valetkey.TokenFields{Subject: "mallory", Freshness: valetkey.Freshness{Until: now.Add(time.Minute), While: &b}})
		got, err := valetkey.CrossCheck(answer(first, nil), answer(second, nil)).Verify(t.Context(), "x")
		require.NoError(t, err)
		assert.Equal(t, "alice", got.Subject())
		assert.Equal(t, now.Add(time.Minute), got.Freshness().Until)
		assert.True(t, got.Freshness().While.Holds())
		b = false
		assert.False(t, got.Freshness().While.Holds())
		a, b = false, true
		assert.False(t, got.Freshness().While.Holds())
		assert.Equal(t, now.Add(time.Hour), first.Freshness().Until, "the first's own token is left alone")
	})
	t.Run("the earlier deadline of both applies, and the session that either knows", func(t *testing.T) {
		early, late := time.Unix(1000, 0), time.Unix(2000, 0)
		at := func(deadline time.Time, session string) valetkey.Verifier {
			return answer(valetkey.NewToken(valetkey.TokenFields{Deadline: deadline, SessionID: session}), nil)
		}
		for _, c := range []struct {
			name  string
			v, by valetkey.Verifier
			want  time.Time
		}{
			{"the first's is earlier", at(early, "s"), at(late, ""), early},
			{"the second's is earlier", at(late, ""), at(early, "s"), early},
			{"only the first's is known", at(early, "s"), at(time.Time{}, ""), early},
			{"only the second's is known", at(time.Time{}, "s"), at(early, ""), early},
		} {
			got, err := valetkey.CrossCheck(c.v, c.by).Verify(t.Context(), "x")
			require.NoError(t, err)
			assert.Equal(t, c.want, got.Deadline(), c.name)
			assert.Equal(t, "s", got.SessionID(), c.name)
		}
	})
	t.Run("bindings of either result apply", func(t *testing.T) {
		key, certificate := valetkey.Binding{JWKThumbprint: "a"}, valetkey.Binding{CertificateThumbprint: "b", Unknown: valetkey.ListOf("new")}
		bound := func(b valetkey.Binding) valetkey.Verifier {
			return answer(valetkey.NewToken(valetkey.TokenFields{Binding: b}), nil)
		}
		got, err := valetkey.CrossCheck(bound(key), bound(certificate)).Verify(t.Context(), "x")
		require.NoError(t, err)
		assert.Equal(t, valetkey.Binding{JWKThumbprint: "a", CertificateThumbprint: "b", Unknown: valetkey.ListOf("new")}, got.Binding())
		got, err = valetkey.CrossCheck(bound(valetkey.Binding{}), bound(key)).Verify(t.Context(), "x")
		require.NoError(t, err)
		assert.Equal(t, key, got.Binding())
		_, err = valetkey.CrossCheck(bound(key), bound(valetkey.Binding{JWKThumbprint: "c"})).Verify(t.Context(), "x")
		assert.ErrorContains(t, err, "two verifiers report different bindings for the token")
	})
	t.Run("a second that may not be relied on at all", func(t *testing.T) {
		first := valetkey.NewToken(valetkey.TokenFields{Freshness: valetkey.Freshness{Until: time.Now().Add(time.Hour)}})
		got, err := valetkey.CrossCheck(answer(first, nil), yes).Verify(t.Context(), "x")
		require.NoError(t, err)
		assert.True(t, got.Freshness().Until.IsZero())
	})
}

type forgetful struct {
	valetkey.Verifier
	forgot int
}

func (f *forgetful) Purge() { f.forgot++ }

func TestForget(t *testing.T) {
	a, b, c := &forgetful{Verifier: yes}, &forgetful{Verifier: yes}, &forgetful{Verifier: yes}
	valetkey.First(no, a, valetkey.CrossCheck(b, c)).(valetkey.Purger).Purge()
	assert.Equal(t, []int{1, 1, 1}, []int{a.forgot, b.forgot, c.forgot})
}

func TestError(t *testing.T) {
	cause := errors.New("kid unknown")
	for _, c := range []struct {
		name   string
		err    *valetkey.Error
		status int
		text   string
	}{
		{"no credentials", &valetkey.Error{}, 401, "no credentials"},
		{"malformed", &valetkey.Error{Code: valetkey.InvalidRequest, Reason: valetkey.NewReason("test_two_tokens", "two tokens")}, 400, "invalid_request: two tokens"},
		{"bad token", &valetkey.Error{Code: valetkey.InvalidToken, Reason: valetkey.NewReason("test_bad", "bad"), Err: cause}, 401, "invalid_token: bad: kid unknown"},
		{"too little", &valetkey.Error{Code: valetkey.InsufficientScope}, 403, "insufficient_scope"},
		{"a code of someone else's never becomes a success", &valetkey.Error{Code: "use_dpop_nonce"}, 401, "use_dpop_nonce"},
	} {
		t.Run(c.name, func(t *testing.T) {
			assert.Equal(t, c.status, c.err.Status())
			assert.Equal(t, c.text, c.err.Error())
		})
	}
	assert.ErrorIs(t, &valetkey.Error{Err: cause}, cause)
	assert.ErrorIs(t, &valetkey.Unavailable{Err: cause}, cause)
	assert.ErrorContains(t, &valetkey.Unavailable{Err: cause}, "kid unknown")
}

func TestContext(t *testing.T) {
	assert.Nil(t, valetkey.FromContext(t.Context()))

	actor := valetkey.Actor{Subject: "agent"}
	audience, scopes, unknown := []string{"a"}, []string{"x"}, []string{"m"}
	fields := valetkey.TokenFields{
		Subject: "alice", Audience: valetkey.ListOf(audience...), Scopes: valetkey.NewScopes(scopes...), Raw: `{"sub":"alice"}`,
		Binding: valetkey.Binding{Unknown: valetkey.ListOf(unknown...)}, Actor: &actor,
	}
	shared := valetkey.NewToken(fields)
	ctx := valetkey.NewContext(t.Context(), shared)
	assert.Same(t, shared, valetkey.FromContext(ctx))
	assert.Zero(t, testing.AllocsPerRun(100, func() {
		mine := valetkey.FromContext(ctx)
		_, _, _, _ = mine.Subject(), mine.ClientID(), mine.Scopes().Has("x"), mine.Expiry()
	}))

	t.Run("nothing that its maker or a handler changes changes the token", func(t *testing.T) {
		mine := valetkey.FromContext(ctx)
		audience[0], scopes[0], unknown[0], actor.Subject, fields.Subject = "b", "admin", "n", "mallory", "mallory"
		mine.Audience().Slice()[0], mine.Scopes().Slice()[0], mine.Binding().Unknown.Slice()[0] = "b", "admin", "n"
		f := mine.Fields()
		f.Subject, f.Actor.Subject = "mallory", "mallory"
		who, _ := mine.Actor()
		who.Subject = "mallory"
		list, allowed := mine.Audience(), mine.Scopes()
		require.NoError(t, json.Unmarshal([]byte(`["b"]`), &list))
		require.NoError(t, json.Unmarshal([]byte(`["admin"]`), &allowed))

		mine = valetkey.FromContext(ctx)
		assert.Equal(t, "alice", mine.Subject())
		assert.Equal(t, valetkey.ListOf("a"), mine.Audience())
		assert.Equal(t, valetkey.NewScopes("x"), mine.Scopes())
		assert.Equal(t, `{"sub":"alice"}`, mine.Raw())
		assert.Equal(t, valetkey.ListOf("m"), mine.Binding().Unknown)
		who, ok := mine.Actor()
		assert.True(t, ok)
		assert.Equal(t, "agent", who.Subject)
	})
}

func TestToken(t *testing.T) {
	t.Run("scopes are sorted, each once, none empty", func(t *testing.T) {
		list := []string{"b", "", "a", "b"}
		s := valetkey.NewScopes(list...)
		assert.Equal(t, valetkey.NewScopes("a", "b"), s)
		assert.Equal(t, []string{"b", "", "a", "b"}, list)
		assert.Equal(t, "a b", s.String())
		assert.True(t, s.Has("b"))
		assert.False(t, s.Has("B"))
		assert.False(t, s.Has(""))
		assert.False(t, valetkey.Scopes{}.Has("a"))
	})
	t.Run("claims decode", func(t *testing.T) {
		var v struct{ Tenant string }
		require.NoError(t, (valetkey.NewToken(valetkey.TokenFields{Raw: `{"tenant":"t1"}`})).Claims(&v))
		assert.Equal(t, "t1", v.Tenant)
		require.Error(t, (valetkey.NewToken(valetkey.TokenFields{})).Claims(&v))
	})
	t.Run("claims that differ in letter case only are decoded where they stay apart", func(t *testing.T) {
		for _, raw := range []string{`{"tenant":"t1","Tenant":"t2"}`, `{"tenant":"t1","x":[{"a":1,"A":2}]}`} {
			token := valetkey.NewToken(valetkey.TokenFields{Raw: raw})
			var v struct{ Tenant string }
			require.ErrorContains(t, token.Claims(&v), "letter case")
			_, _, err := valetkey.DeclareClaims[struct{ Tenant string }]().Decode(token)
			require.ErrorContains(t, err, "letter case")

			var all map[string]any
			require.NoError(t, token.Claims(&all))
			assert.Equal(t, "t1", all["tenant"])
			var raws map[string]json.RawMessage
			require.NoError(t, token.Claims(&raws))
			var exact exactTenant
			require.NoError(t, token.Claims(&exact))
			assert.EqualValues(t, "t1", exact)
			_, _, err = valetkey.DeclareClaims[exactClaims]().Decode(token)
			require.NoError(t, err)
		}
	})
	t.Run("AT-23 clients and resource owners are distinguished", func(t *testing.T) {
		assert.True(t, (valetkey.NewToken(valetkey.TokenFields{Subject: "c", ClientID: "c"})).ByClient())
		assert.False(t, (valetkey.NewToken(valetkey.TokenFields{ClientID: "c"})).ByClient(), "it does not say")
		assert.False(t, (valetkey.NewToken(valetkey.TokenFields{})).ByClient())
		assert.False(t, (valetkey.NewToken(valetkey.TokenFields{Subject: "alice", ClientID: "c"})).ByClient())
	})
	t.Run("any confirmation binds", func(t *testing.T) {
		assert.True(t, valetkey.Binding{}.IsZero())
		for _, b := range []valetkey.Binding{{JWKThumbprint: "x"}, {CertificateThumbprint: "x"}, {Unknown: valetkey.ListOf("x")}} {
			assert.False(t, b.IsZero())
		}
	})
}

// An exactTenant decodes itself, with names compared byte by byte.
type exactTenant string

func (e *exactTenant) UnmarshalJSON(data []byte) error {
	var all map[string]any
	if err := json.Unmarshal(data, &all); err != nil {
		return err
	}
	*e = exactTenant(all["tenant"].(string))
	return nil
}

type exactClaims struct{ exactTenant }
