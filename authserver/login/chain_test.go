package login_test

import (
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
		{"nobody else accepts while one is down", []login.Login{no, down}, "outage"},
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
	t.Run("whoever has accepted, the rest does not see the password", func(t *testing.T) {
		asked := false
		spy := loginFunc(func(string, string) (*login.User, error) { asked = true; return nil, login.ErrRefused })
		_, err := login.Chain(yes, spy).Login(t.Context(), "alice", "a password")
		require.NoError(t, err)
		assert.False(t, asked)
	})
}
