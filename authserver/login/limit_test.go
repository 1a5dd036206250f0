package login_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/authserver/login"
)

// A loginFunc is a Login of a test.
type loginFunc func(name, password string) (*login.User, error)

func (f loginFunc) Login(_ context.Context, name, password string) (*login.User, error) {
	return f(name, password)
}

// Lookup is not tested with it.
func (f loginFunc) Lookup(context.Context, string) (*login.Account, error) {
	return nil, login.ErrNoUser
}

func answer(u *login.User, err error) login.Login {
	return loginFunc(func(string, string) (*login.User, error) { return u, err })
}

var errDown = errors.New("the directory is down")

func TestLimited(t *testing.T) {
	limits := login.Limits{Name: login.Rate{Burst: 3, Every: time.Minute}, Address: login.Rate{Burst: 5, Every: time.Minute}}
	start := func(t *testing.T, l login.Login) func(address, name string) error {
		limited, err := login.Limit(l, limits)
		require.NoError(t, err)
		return func(address, name string) error {
			_, err := limited.Login(t.Context(), address, name, "a password")
			return err
		}
	}
	t.Run("right passwords do not count", func(t *testing.T) {
		try := start(t, answer(&login.User{}, nil))
		for range 20 {
			require.NoError(t, try("192.0.2.1:4711", "alice"))
		}
	})
	for _, c := range []struct {
		name string
		l    login.Login
		want error
	}{
		{"wrong passwords", answer(nil, login.ErrRefused), login.ErrRefused},
		{"outages", answer(nil, errDown), errDown},
	} {
		t.Run(c.name+" count", func(t *testing.T) {
			try := start(t, c.l)
			for range 3 {
				require.ErrorIs(t, try("192.0.2.1:4711", "alice"), c.want)
			}
			require.Positive(t, wait(t, try("192.0.2.1:4711", "alice")))
		})
	}
	t.Run("a name has one budget however it is written, from wherever", func(t *testing.T) {
		try := start(t, answer(nil, login.ErrRefused))
		for i, name := range []string{"alice", " ALICE", "Alice "} {
			require.ErrorIs(t, try([]string{"192.0.2.1", "198.51.100.1", "[2001:db8::1]:80"}[i], name), login.ErrRefused)
		}
		require.Positive(t, wait(t, try("203.0.113.1", "aLICE")))
		require.ErrorIs(t, try("203.0.113.1", "bob"), login.ErrRefused)
	})
	for _, c := range []struct {
		name, one, two string
		same           bool
	}{
		{"two ports", "192.0.2.1:1", "192.0.2.1:2", true},
		{"with a port and without", "192.0.2.1:1", "192.0.2.1", true},
		{"IPv4 within IPv6", "192.0.2.1", "[::ffff:192.0.2.1]:1", true},
		{"two addresses of one IPv6 network", "[2001:db8:0:1::1]:1", "2001:db8:0:1:ffff::2", true},
		{"an address with a zone", "fe80::1%eth0", "[fe80::2%eth1]:1", true},
		{"no addresses", "", "@", true},
		{"two IPv4 addresses", "192.0.2.1", "192.0.2.2", false},
		{"two IPv6 networks", "2001:db8:0:1::1", "2001:db8:0:2::1", false},
	} {
		t.Run("address: "+c.name, func(t *testing.T) {
			try := start(t, answer(nil, login.ErrRefused))
			for _, name := range []string{"a", "b", "c", "d", "e"} {
				require.ErrorIs(t, try(c.one, name), login.ErrRefused)
			}
			require.Positive(t, wait(t, try(c.one, "f")))
			var tooMany *login.TooMany
			assert.Equal(t, c.same, errors.As(try(c.two, "f"), &tooMany))
		})
	}
	t.Run("an address beyond its limit uses up no name", func(t *testing.T) {
		try := start(t, answer(nil, login.ErrRefused))
		for _, name := range []string{"a", "b", "c", "d", "e", "alice", "alice", "alice", "alice"} {
			_ = try("192.0.2.66", name)
		}
		require.ErrorIs(t, try("192.0.2.1", "alice"), login.ErrRefused)
	})
	t.Run("a right password gives back its own attempt only", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			try := start(t, loginFunc(func(name, _ string) (*login.User, error) {
				if name == "mallory" {
					return &login.User{}, nil
				}
				return nil, login.ErrRefused
			}))
			for _, name := range []string{"alice", "bob", "alice", "bob", "alice"} {
				for range 4 {
					require.NoError(t, try("192.0.2.1", "mallory"))
				}
				require.ErrorIs(t, try("192.0.2.1", name), login.ErrRefused)
			}
			require.Positive(t, wait(t, try("192.0.2.1", "mallory")), "the address")
			require.Positive(t, wait(t, try("192.0.2.2", "alice")), "the name")
			time.Sleep(time.Minute)
			require.ErrorIs(t, try("192.0.2.2", "alice"), login.ErrRefused)
		})
	})
	t.Run("a Login that returns nothing has an outage", func(t *testing.T) {
		err := start(t, answer(nil, nil))("192.0.2.1", "alice")
		require.Error(t, err)
		require.NotErrorIs(t, err, login.ErrRefused)
	})
	t.Run("limits by default", func(t *testing.T) {
		limited, err := login.Limit(answer(nil, login.ErrRefused), login.Limits{})
		require.NoError(t, err)
		for range 10 {
			_, err = limited.Login(t.Context(), "192.0.2.1", "alice", "x")
			require.ErrorIs(t, err, login.ErrRefused)
		}
		_, err = limited.Login(t.Context(), "192.0.2.1", "alice", "x")
		assert.InDelta(t, time.Minute, wait(t, err), float64(30*time.Second))
		assert.ErrorContains(t, err, "too many attempts")
	})
	t.Run("all mistakes at once", func(t *testing.T) {
		_, err := login.Limit(nil, login.Limits{Name: login.Rate{Burst: 1}, Address: login.Rate{Every: 1}, Size: -1})
		var fields []string
		for _, m := range valetkey.ConfigErrors(err) {
			fields = append(fields, m.Field)
		}
		require.Equal(t, []string{"login", "Size", "Name", "Address"}, fields, "of %v", err)
	})
}
