package login_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/authserver/login"
)

func TestChain(t *testing.T) {
	var (
		yes     = answer(&login.User{Subject: "customer:1"}, nil)
		second  = answer(&login.User{Subject: "employee:1"}, nil)
		no      = answer(nil, login.ErrRefused)
		down    = answer(nil, errDown)
		nothing = answer(nil, nil)
	)
	for _, c := range []struct {
		name  string
		chain []login.Login
		want  string // a subject, or
	}{
		{"nothing refuses", nil, "refused"},
		{"all refuse", []login.Login{no, no}, "refused"},
		{"no other login accepts while one is down", []login.Login{no, down}, "outage"},
		{"the order of no and down does not matter", []login.Login{down, no}, "outage"},
		{"a nil one is an outage", []login.Login{no, nil}, "outage"},
		{"one without an answer is an outage", []login.Login{nothing, no}, "outage"},
		{"a customer gets in while the directory is down", []login.Login{down, yes}, "customer:1"},
		{"the second accepts", []login.Login{no, second}, "employee:1"},
		{"the first to accept counts", []login.Login{yes, second, down}, "customer:1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			u, err := login.Chain(c.chain...).Login(t.Context(), "alice", "a password")
			switch c.want {
			case "refused":
				assert.Equal(t, login.ErrRefused, err)
			case "outage":
				require.Error(t, err)
				assert.NotErrorIs(t, err, login.ErrRefused)
			default:
				require.NoError(t, err)
				assert.Equal(t, c.want, u.Subject)
			}
		})
	}
	t.Run("the caller's slice is not kept", func(t *testing.T) {
		ls := []login.Login{no}
		l := login.Chain(ls...)
		ls[0] = yes
		_, err := l.Login(t.Context(), "alice", "a password")
		assert.Equal(t, login.ErrRefused, err)
	})
	t.Run("after one has accepted, the others do not see the password", func(t *testing.T) {
		asked := false
		spy := loginFunc(func(string, string) (*login.User, error) { asked = true; return nil, login.ErrRefused })
		_, err := login.Chain(yes, spy).Login(t.Context(), "alice", "a password")
		require.NoError(t, err)
		assert.False(t, asked)
	})
}

// accounts is a Login that is only looked up.
type accounts struct {
	loginFunc
	known map[string]*login.Account
	err   error // for all others
}

func (a accounts) Lookup(_ context.Context, subject string) (*login.Account, error) {
	if known, ok := a.known[subject]; ok {
		return known, nil
	}
	return nil, a.err
}

func TestChainLookup(t *testing.T) {
	bob := &login.Account{Scopes: []string{"orders:read"}}
	file := accounts{known: map[string]*login.Account{"customer:bob": bob, "customer:nil": nil}, err: login.ErrNoUser}
	again := accounts{known: map[string]*login.Account{"customer:bob": {}}, err: login.ErrNoUser}
	down := accounts{err: errDown}
	for _, c := range []struct {
		name, subject string
		chain         []login.Login
		want          error
	}{
		{"nothing knows anyone", "customer:bob", nil, login.ErrNoUser},
		{"a subject that none knows", "customer:eve", []login.Login{file, again}, login.ErrNoUser},
		{"a subject that none knows while one is down", "customer:eve", []login.Login{file, down}, errDown},
		{"the same in another order", "customer:eve", []login.Login{down, file}, errDown},
		{"a known subject after one that is down", "customer:bob", []login.Login{down, file, again}, nil},
		{"the first that knows the subject", "customer:bob", []login.Login{file, again}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, err := login.Chain(c.chain...).Lookup(t.Context(), c.subject)
			if c.want == nil {
				require.NoError(t, err)
				assert.Same(t, bob, a)
				return
			}
			require.ErrorIs(t, err, c.want)
			assert.Equal(t, c.want == login.ErrNoUser, errors.Is(err, login.ErrNoUser))
		})
	}
	for name, l := range map[string]login.Login{"a nil Login": nil, "a Login without an answer": file} {
		t.Run(name+" has an outage", func(t *testing.T) {
			_, err := login.Chain(l).Lookup(t.Context(), "customer:nil")
			require.Error(t, err)
			assert.NotErrorIs(t, err, login.ErrNoUser)
		})
	}
}
