package login_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/bcrypt"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/authserver/login"
	"github.com/valetkey/valetkey/authserver/store"
)

const (
	alicesPassword = "a fence of nine oaks"
	other          = "some other password"
)

// customers returns a Database with alice, in its store.
func customers(t *testing.T) (*login.Database, *store.Memory) {
	t.Helper()
	s := store.NewMemory(0)
	d, err := login.NewDatabase(s, "customer")
	require.NoError(t, err)
	_, err = d.Add(t.Context(), login.NewUser{Name: "Alice", Password: alicesPassword, Display: "Alice A."})
	require.NoError(t, err)
	return d, s
}

func TestDatabaseLogin(t *testing.T) {
	d, _ := customers(t)
	for _, c := range []struct{ name, user, password string }{
		{"a wrong password", "Alice", other},
		{"an unknown name", "mallory", alicesPassword},
		{"no password", "Alice", ""},
		{"no name", "", alicesPassword},
		{"a password with a space behind", "Alice", alicesPassword + " "},
		{"a password in capitals", "Alice", strings.ToUpper(alicesPassword)},
		{"a password beyond all limits", "Alice", strings.Repeat("x", 1<<20)},
		{"a name that is part of another", "Alic", alicesPassword},
		{"a name of the store", "customer:alice", alicesPassword},
	} {
		t.Run(c.name+" is refused", func(t *testing.T) {
			u, err := d.Login(t.Context(), c.user, c.password)
			assert.Nil(t, u)
			assert.Equal(t, login.ErrRefused, err, "all refusals read alike")
		})
	}
	for _, name := range []string{"Alice", "alice", " ALICE "} {
		t.Run("the password of "+name+" is accepted", func(t *testing.T) {
			u, err := d.Login(t.Context(), name, alicesPassword)
			require.NoError(t, err)
			assert.Equal(t, "Alice", u.Name, "as she was added")
			assert.Equal(t, "Alice A.", u.Display)
			assert.Equal(t, "customer", u.Type)
			assert.Regexp(t, "^customer:[A-Z2-7]{26}$", u.Subject)
			assert.Nil(t, u.Scopes)
		})
	}
}

func TestDatabaseAdd(t *testing.T) {
	d, _ := customers(t)
	const good = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4"
	for _, c := range []struct {
		name string
		user login.NewUser
		want []string
	}{
		{"all mistakes are named", login.NewUser{Name: "", Password: "2short", ID: "a b", Scopes: []string{"a b"}},
			[]string{"name is empty", "at least 8 bytes", "ID: must be", "scope"}},
		{"no password", login.NewUser{Name: "bob"}, []string{"either a password or its hash is required"}},
		{"a password and a hash", login.NewUser{Name: "bob", Password: other, Hash: good}, []string{"either a password or its hash is required"}},
		{"a password of 7 bytes", login.NewUser{Name: "bob", Password: "1234567"}, []string{"too short"}},
		{"a password of 1,025 bytes", login.NewUser{Name: "bob", Password: strings.Repeat("x", 1025)}, []string{"too long"}},
		{"an ID that is too long", login.NewUser{Name: "bob", Password: other, ID: strings.Repeat("x", 65)}, []string{"ID"}},
		{"a hash of another kind", login.NewUser{Name: "bob", Hash: "$6$salt$sum"}, []string{"neither argon2id"}},
		{"a password in place of a hash", login.NewUser{Name: "bob", Hash: alicesPassword}, []string{"neither argon2id"}},
		{"argon2i", login.NewUser{Name: "bob", Hash: strings.Replace(good, "argon2id", "argon2i", 1)}, []string{"neither argon2id"}},
		{"another version", login.NewUser{Name: "bob", Hash: strings.Replace(good, "v=19", "v=16", 1)}, []string{"PHC"}},
		{"other words behind the parameters", login.NewUser{Name: "bob", Hash: strings.Replace(good, "p=1", "p=1,x=2", 1)}, []string{"PHC"}},
		{"padded base64", login.NewUser{Name: "bob", Hash: good + "="}, []string{"PHC"}},
		{"a hash that takes 4 GiB", login.NewUser{Name: "bob", Hash: strings.Replace(good, "m=256", "m=4194304", 1)}, []string{"costs too much"}},
		{"a hash of no passes", login.NewUser{Name: "bob", Hash: strings.Replace(good, "t=2", "t=0", 1)}, []string{"costs too much or too little"}},
		{"a hash of no lanes", login.NewUser{Name: "bob", Hash: strings.Replace(good, "p=1", "p=0", 1)}, []string{"costs too much or too little"}},
		{"a hash cut off", login.NewUser{Name: "bob", Hash: good[:len(good)-39]}, []string{"16 to 64"}},
		{"bcrypt cut off", login.NewUser{Name: "bob", Hash: "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOe"}, []string{"bcrypt"}},
		{"bcrypt that takes days", login.NewUser{Name: "bob", Hash: "$2a$31$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"}, []string{"bcrypt"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := d.Add(t.Context(), c.user)
			for _, want := range c.want {
				require.ErrorContains(t, err, want)
			}
			for _, secret := range []string{c.user.Password, c.user.Hash} {
				assert.True(t, secret == "" || !strings.Contains(err.Error(), secret), "%v contains a secret", err)
			}
			_, err = d.Remove(t.Context(), "bob")
			require.ErrorIs(t, err, store.ErrNotFound, "nothing was added")
		})
	}
	t.Run("a name that differs in case only is taken", func(t *testing.T) {
		_, err := d.Add(t.Context(), login.NewUser{Name: "ALICE", Password: other})
		require.ErrorIs(t, err, store.ErrConflict)
		require.EqualError(t, err, `adding user "ALICE": another user has the name`)
	})
	t.Run("an ID is given once", func(t *testing.T) {
		u, err := d.Add(t.Context(), login.NewUser{Name: "carl", Password: other, ID: "c-1"})
		require.NoError(t, err)
		assert.Equal(t, "customer:c-1", u.Subject)
		_, err = d.Add(t.Context(), login.NewUser{Name: "carla", Password: other, ID: "c-1"})
		require.ErrorIs(t, err, store.ErrConflict)
		require.EqualError(t, err, `adding user "carla": another user has the ID`)
	})
	t.Run("no scopes are not all scopes", func(t *testing.T) {
		for name, scopes := range map[string][]string{"none": {}, "any": nil, "one": {"orders:read"}} {
			_, err := d.Add(t.Context(), login.NewUser{Name: name, Password: other, Scopes: scopes})
			require.NoError(t, err)
			u, err := d.Login(t.Context(), name, other)
			require.NoError(t, err)
			assert.Equal(t, scopes, u.Scopes)
		}
	})
}

func TestDatabaseTakesHashesFromElsewhere(t *testing.T) {
	long := strings.Repeat("long", 18)
	fromBcrypt, err := bcrypt.GenerateFromPassword([]byte(long), bcrypt.MinCost)
	require.NoError(t, err)
	for _, c := range []struct{ name, hash, password string }{
		// The reference implementation's own test vector.
		{"argon2id with other parameters", "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4", "password"},
		// crypt_blowfish's own test vector. It is shorter than a new password may be.
		{"bcrypt", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "U*U"},
		{"bcrypt of all that it reads", string(fromBcrypt), long},
	} {
		t.Run(c.name+" is replaced when its user logs in", func(t *testing.T) {
			d, s := customers(t)
			added, err := d.Add(t.Context(), login.NewUser{Name: "bob", Hash: c.hash})
			require.NoError(t, err)
			hash := func() string {
				r, err := s.Get(t.Context(), "user", "customer:bob")
				require.NoError(t, err)
				return string(r.Value)
			}
			_, err = d.Login(t.Context(), "bob", other)
			require.Equal(t, login.ErrRefused, err)
			assert.Contains(t, hash(), c.hash, "a wrong password replaces nothing")

			for range 2 {
				u, err := d.Login(t.Context(), "bob", c.password)
				require.NoError(t, err)
				assert.Equal(t, added, u)
				assert.Contains(t, hash(), "$argon2id$v=19$m=19456,t=2,p=1$")
			}
			after := hash()
			_, err = d.Login(t.Context(), "bob", c.password)
			require.NoError(t, err)
			assert.Equal(t, after, hash(), "once")
		})
	}
	t.Run("a result of Hash is accepted and stays unchanged", func(t *testing.T) {
		d, _ := customers(t)
		text, err := login.Hash(other)
		require.NoError(t, err)
		_, err = d.Add(t.Context(), login.NewUser{Name: "bob", Hash: text})
		require.NoError(t, err)
		_, err = d.Login(t.Context(), "bob", other)
		require.NoError(t, err)
		again, err := login.Hash(other)
		require.NoError(t, err)
		assert.NotEqual(t, text, again, "each with its own salt")
	})
}

func setPassword(t *testing.T, d *login.Database, name, password string) error {
	u, err := d.SetPassword(t.Context(), name, password)
	assert.Equal(t, err != nil, u == nil)
	return err
}

func TestDatabaseSetPassword(t *testing.T) {
	d, _ := customers(t)
	require.ErrorContains(t, setPassword(t, d, "alice", "short"), "too short")
	require.ErrorIs(t, setPassword(t, d, "bob", other), store.ErrNotFound)

	before, err := d.Login(t.Context(), "alice", alicesPassword)
	require.NoError(t, err)
	require.NoError(t, setPassword(t, d, "ALICE", other))
	_, err = d.Login(t.Context(), "alice", alicesPassword)
	require.Equal(t, login.ErrRefused, err)
	after, err := d.Login(t.Context(), "alice", other)
	require.NoError(t, err)
	assert.Equal(t, before.Subject, after.Subject, "the same person")
}

func TestDatabaseRemove(t *testing.T) {
	d, _ := customers(t)
	before, err := d.Login(t.Context(), "alice", alicesPassword)
	require.NoError(t, err)
	removed, err := d.Remove(t.Context(), "ALICE")
	require.NoError(t, err)
	assert.Equal(t, before, removed)
	_, err = d.Login(t.Context(), "alice", alicesPassword)
	require.Equal(t, login.ErrRefused, err)
	_, err = d.Remove(t.Context(), "alice")
	require.ErrorIs(t, err, store.ErrNotFound)

	again, err := d.Add(t.Context(), login.NewUser{Name: "Alice", Password: alicesPassword})
	require.NoError(t, err)
	assert.NotEqual(t, before.Subject, again.Subject, "who comes later does not get what was hers")
}

func TestDatabaseList(t *testing.T) {
	d, s := customers(t)
	partners, err := login.NewDatabase(s, "partner")
	require.NoError(t, err)
	_, err = partners.Add(t.Context(), login.NewUser{Name: "alice", Password: other})
	require.NoError(t, err, "a name is one of its type only")
	for _, name := range []string{"Carl", "bob"} {
		_, err := d.Add(t.Context(), login.NewUser{Name: name, Password: other})
		require.NoError(t, err)
	}
	var names []string
	for after := ""; ; {
		page, err := d.List(t.Context(), after, 2)
		require.NoError(t, err)
		for _, u := range page {
			names = append(names, u.Name)
			after = u.Name
		}
		if len(page) < 2 {
			break
		}
	}
	assert.Equal(t, []string{"Alice", "bob", "Carl"}, names)

	_, err = partners.Login(t.Context(), "alice", alicesPassword)
	require.Equal(t, login.ErrRefused, err, "the password of another type's alice")
}

// meanwhile is a store that calls a function between a read and the following write.
type meanwhile struct {
	store.Store
	happens func()
}

func (m *meanwhile) Put(ctx context.Context, r store.Record) (int64, error) {
	if happens := m.happens; happens != nil {
		m.happens = nil
		happens()
	}
	return m.Store.Put(ctx, r)
}

func TestDatabaseRaces(t *testing.T) {
	const old = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4" // of "password"
	s := store.NewMemory(0)
	slow := &meanwhile{Store: s}
	here, err := login.NewDatabase(slow, "customer")
	require.NoError(t, err)
	there, err := login.NewDatabase(s, "customer")
	require.NoError(t, err)

	t.Run("a login that replaces a hash does not undo a new password", func(t *testing.T) {
		_, err := there.Add(t.Context(), login.NewUser{Name: "bob", Hash: old})
		require.NoError(t, err)
		slow.happens = func() { require.NoError(t, setPassword(t, there, "bob", other)) }
		_, err = here.Login(t.Context(), "bob", "password")
		require.NoError(t, err)
		_, err = there.Login(t.Context(), "bob", "password")
		require.Equal(t, login.ErrRefused, err)
		_, err = there.Login(t.Context(), "bob", other)
		require.NoError(t, err)
	})
	t.Run("a new password wins over a login that replaces a hash", func(t *testing.T) {
		_, err := there.Add(t.Context(), login.NewUser{Name: "carl", Hash: old})
		require.NoError(t, err)
		slow.happens = func() {
			_, err := there.Login(t.Context(), "carl", "password")
			require.NoError(t, err)
		}
		require.NoError(t, setPassword(t, here, "carl", other))
		_, err = there.Login(t.Context(), "carl", other)
		require.NoError(t, err)
	})
	t.Run("a login that replaces a hash does not bring back who was removed", func(t *testing.T) {
		_, err := there.Add(t.Context(), login.NewUser{Name: "dora", Hash: old})
		require.NoError(t, err)
		slow.happens = func() {
			_, err := there.Remove(t.Context(), "dora")
			require.NoError(t, err)
		}
		_, err = here.Login(t.Context(), "dora", "password")
		require.NoError(t, err, "she was there when she was asked for")
		_, err = there.Login(t.Context(), "dora", "password")
		require.Equal(t, login.ErrRefused, err)
	})
}

func TestDatabaseOutage(t *testing.T) {
	d, s := customers(t)
	_, err := s.Put(t.Context(), store.Record{Kind: "user", ID: "customer:broken", Value: []byte(`{"hash":"$argon2id$"}`)})
	require.NoError(t, err)
	_, err = s.Put(t.Context(), store.Record{Kind: "user", ID: "customer:torn", Value: []byte(`{"hash":`)})
	require.NoError(t, err)
	for _, name := range []string{"broken", "torn"} {
		_, err = d.Login(t.Context(), name, other)
		require.Error(t, err)
		assert.NotErrorIs(t, err, login.ErrRefused, name)
	}
	require.NoError(t, s.Close())
	for _, name := range []string{"alice", "mallory"} {
		_, err = d.Login(t.Context(), name, alicesPassword)
		require.Error(t, err)
		assert.NotErrorIs(t, err, login.ErrRefused)
		assert.NotContains(t, err.Error(), alicesPassword)
	}
	_, err = d.Add(t.Context(), login.NewUser{Name: "bob", Password: other})
	require.Error(t, err)
	require.Error(t, setPassword(t, d, "alice", other))
	_, err = d.Remove(t.Context(), "alice")
	require.Error(t, err)
	_, err = d.List(t.Context(), "", 1)
	require.Error(t, err)
}

func TestNewDatabase(t *testing.T) {
	_, err := login.NewDatabase(nil, "a:b")
	require.EqualError(t, err, `login: records: required
login: userType: "a:b" is not a user type: 1 to 32 of a-z, 0-9, hyphen and underscore`)
	assert.Len(t, valetkey.ConfigErrors(err), 2)
}

func BenchmarkDatabaseLogin(b *testing.B) {
	d, err := login.NewDatabase(store.NewMemory(0), "customer")
	require.NoError(b, err)
	_, err = d.Add(b.Context(), login.NewUser{Name: "alice", Password: alicesPassword})
	require.NoError(b, err)
	for b.Loop() {
		if _, err := d.Login(b.Context(), "alice", other); !errors.Is(err, login.ErrRefused) {
			b.Fatal(err)
		}
	}
}

func TestDatabaseLookup(t *testing.T) {
	d, s := customers(t)
	u, err := d.Login(t.Context(), "alice", alicesPassword)
	require.NoError(t, err)
	for name, subject := range map[string]string{
		"a name": "customer:alice", "another type": strings.Replace(u.Subject, "customer", "employee", 1), "no type": "alice", "nothing": "",
	} {
		t.Run(name+" is not a user", func(t *testing.T) {
			a, err := d.Lookup(t.Context(), subject)
			require.ErrorIs(t, err, login.ErrNoUser)
			assert.Nil(t, a)
		})
	}
	since := func() *login.Account {
		a, err := d.Lookup(t.Context(), u.Subject)
		require.NoError(t, err)
		return a
	}
	first := since()
	assert.Equal(t, u.Since, first.Since, "who has logged in has the present credential")
	assert.False(t, first.Since.IsZero())
	assert.Nil(t, first.Scopes)
	t.Run("updating a hash is not a new password", func(t *testing.T) {
		old, err := bcrypt.GenerateFromPassword([]byte(other), bcrypt.MinCost)
		require.NoError(t, err)
		bob, err := d.Add(t.Context(), login.NewUser{Name: "bob", Hash: string(old), Scopes: []string{}})
		require.NoError(t, err)
		_, err = d.Login(t.Context(), "bob", other)
		require.NoError(t, err)
		a, err := d.Lookup(t.Context(), bob.Subject)
		require.NoError(t, err)
		assert.Equal(t, &login.Account{Scopes: []string{}, Since: bob.Since}, a)
	})
	t.Run("a new password is a later credential, also when the clock is set back", func(t *testing.T) {
		r, err := s.Get(t.Context(), "user", "customer:alice")
		require.NoError(t, err)
		var p map[string]any
		require.NoError(t, json.Unmarshal(r.Value, &p))
		future := time.Now().Add(time.Hour).UTC().Round(0)
		p["since"] = future
		r.Value, err = json.Marshal(p)
		require.NoError(t, err)
		_, err = s.Put(t.Context(), r)
		require.NoError(t, err)
		changed, err := d.SetPassword(t.Context(), "alice", other)
		require.NoError(t, err)
		assert.True(t, changed.Since.After(future))
		assert.Equal(t, changed.Since, since().Since)
	})
	t.Run("an account that was added again has another credential", func(t *testing.T) {
		before := since().Since
		_, id, _ := strings.Cut(u.Subject, ":")
		_, err := d.Remove(t.Context(), "alice")
		require.NoError(t, err)
		_, err = d.Lookup(t.Context(), u.Subject)
		require.ErrorIs(t, err, login.ErrNoUser)
		_, err = d.Add(t.Context(), login.NewUser{Name: "alice", ID: id, Password: alicesPassword})
		require.NoError(t, err)
		assert.NotEqual(t, before, since().Since)
	})
}

func TestDatabaseChangePassword(t *testing.T) {
	d, _ := customers(t)
	before, err := d.Login(t.Context(), "Alice", alicesPassword)
	require.NoError(t, err)
	for _, c := range []struct {
		name, user, old, new string
		want                 error
	}{
		{"a wrong old password", "Alice", other, other, login.ErrRefused},
		{"no old password", "Alice", "", other, login.ErrRefused},
		{"an unknown user", "mallory", alicesPassword, other, store.ErrNotFound},
		{"a short new password", "Alice", alicesPassword, "short", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := d.ChangePassword(t.Context(), c.user, c.old, c.new, true)
			require.Error(t, err)
			if c.want != nil {
				assert.ErrorIs(t, err, c.want)
			}
			assert.NotContains(t, err.Error(), other)
			_, err = d.Login(t.Context(), "Alice", alicesPassword)
			require.NoError(t, err, "the password is unchanged")
		})
	}
	t.Run("sessions of the old password remain", func(t *testing.T) {
		u, err := d.ChangePassword(t.Context(), "Alice", alicesPassword, other, false)
		require.NoError(t, err)
		assert.Equal(t, before.Since, u.Since)
		_, err = d.Login(t.Context(), "Alice", alicesPassword)
		require.ErrorIs(t, err, login.ErrRefused)
	})
	t.Run("sessions of the old password end", func(t *testing.T) {
		u, err := d.ChangePassword(t.Context(), "Alice", other, alicesPassword, true)
		require.NoError(t, err)
		assert.True(t, u.Since.After(before.Since))
		a, err := d.Lookup(t.Context(), u.Subject)
		require.NoError(t, err)
		assert.Equal(t, u.Since, a.Since)
	})
	t.Run("of simultaneous changes, one succeeds", func(t *testing.T) {
		results := make(chan error, 8)
		for i := range cap(results) {
			go func() {
				_, err := d.ChangePassword(t.Context(), "Alice", alicesPassword, strings.Repeat("a new one", i+1), false)
				results <- err
			}()
		}
		n := 0
		for range cap(results) {
			if err := <-results; err == nil {
				n++
			} else {
				assert.ErrorIs(t, err, login.ErrRefused)
			}
		}
		assert.Equal(t, 1, n)
	})
}
