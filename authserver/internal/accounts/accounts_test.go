package accounts_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/authserver/internal/accounts"
	"github.com/valetkey/valetkey/authserver/login"
)

var errDown = errors.New("the directory is down")

// A directory returns the configured result, and counts lookups.
type directory struct {
	mu     sync.Mutex
	answer func(ctx context.Context, subject string) (*login.Account, error)
	asked  int
}

func (d *directory) Login(context.Context, string, string) (*login.User, error) {
	return &login.User{Subject: "employee:carol", Type: "employee"}, nil
}

func (d *directory) Lookup(ctx context.Context, subject string) (*login.Account, error) {
	d.mu.Lock()
	d.asked++
	answer := d.answer
	d.mu.Unlock()
	return answer(ctx, subject)
}

func (d *directory) answers(a *login.Account, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.answer = func(context.Context, string) (*login.Account, error) { return a, err }
}

func (d *directory) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.asked
}

func TestLookup(t *testing.T) {
	for _, c := range []struct {
		name    string
		subject string
		account *login.Account
		err     error
		want    error // login.ErrNoUser, or any other is an outage
		asked   int   // of two lookups
	}{
		{"a type that is not configured is not a user, and costs nothing", "customer:carol", &login.Account{}, nil, login.ErrNoUser, 0},
		{"a subject without a type is not a user", "carol", &login.Account{}, nil, login.ErrNoUser, 0},
		{"a user who is gone is asked for again", "employee:carol", nil, login.ErrNoUser, login.ErrNoUser, 2},
		{"an outage is not remembered", "employee:carol", nil, errDown, errDown, 2},
		{"an account beside an error does not count", "employee:carol", &login.Account{}, errDown, errDown, 2},
		{"no answer is an outage", "employee:carol", nil, nil, nil, 2},
		{"an account is remembered", "employee:carol", &login.Account{Scopes: []string{"a"}}, nil, nil, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := &directory{}
			d.answers(c.account, c.err)
			all := accounts.New(map[string]login.Login{"employee": d})
			for range 2 {
				a, err := all.Lookup(t.Context(), c.subject)
				if c.account != nil && c.err == nil && c.want == nil {
					require.NoError(t, err)
					assert.Same(t, c.account, a)
					continue
				}
				require.Error(t, err)
				assert.Nil(t, a)
				if c.want != nil {
					require.ErrorIs(t, err, c.want)
				}
				assert.Equal(t, c.want == login.ErrNoUser, errors.Is(err, login.ErrNoUser))
			}
			assert.Equal(t, c.asked, d.count())
		})
	}
}

func TestAccountsAreRememberedForAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &directory{}
		d.answer = func(context.Context, string) (*login.Account, error) {
			time.Sleep(5 * time.Second) // the minute begins before that
			return &login.Account{}, nil
		}
		all := accounts.New(map[string]login.Login{"employee": d})
		_, err := all.Lookup(t.Context(), "employee:carol")
		require.NoError(t, err)
		d.answers(nil, login.ErrNoUser)
		time.Sleep(55*time.Second - 1)
		_, err = all.Lookup(t.Context(), "employee:carol")
		require.NoError(t, err)
		time.Sleep(time.Nanosecond)
		_, err = all.Lookup(t.Context(), "employee:carol")
		require.ErrorIs(t, err, login.ErrNoUser)
	})
}

func TestALogInForgets(t *testing.T) {
	d := &directory{}
	d.answers(&login.Account{}, nil)
	all := accounts.New(map[string]login.Login{"employee": d})
	look := func() *login.Account {
		a, err := all.Lookup(t.Context(), "employee:carol")
		require.NoError(t, err)
		return a
	}
	look()
	d.answers(&login.Account{Scopes: []string{"new"}}, nil)
	require.Nil(t, look().Scopes)
	_, err := all.Refreshing(d).Login(t.Context(), "carol", "x")
	require.NoError(t, err)
	assert.Equal(t, []string{"new"}, look().Scopes)
}

func TestOneLookupForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		d := &directory{}
		d.answer = func(ctx context.Context, _ string) (*login.Account, error) {
			select {
			case <-release:
				return nil, errDown
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		all := accounts.New(map[string]login.Login{"employee": d})
		leader, leave := context.WithCancel(t.Context())
		first, rest := make(chan error, 1), make(chan error, 9)
		go func() { _, err := all.Lookup(leader, "employee:carol"); first <- err }()
		synctest.Wait()
		for range 9 {
			go func() { _, err := all.Lookup(t.Context(), "employee:carol"); rest <- err }()
		}
		synctest.Wait()
		assert.Equal(t, 1, d.count())

		impatient, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := all.Lookup(impatient, "employee:carol")
		require.ErrorIs(t, err, context.DeadlineExceeded)

		leave()
		require.ErrorIs(t, <-first, context.Canceled)
		synctest.Wait()
		assert.Equal(t, 2, d.count(), "another leads")
		assert.Empty(t, rest, "the others go on waiting")
		close(release)
		for range 9 {
			require.ErrorIs(t, <-rest, errDown)
		}
	})
}

func TestALookupThatHangsIsAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &directory{}
		d.answer = func(ctx context.Context, _ string) (*login.Account, error) { <-ctx.Done(); return nil, ctx.Err() }
		begin := time.Now()
		_, err := accounts.New(map[string]login.Login{"employee": d}).Lookup(t.Context(), "employee:carol")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.NotErrorIs(t, err, login.ErrNoUser)
		assert.Equal(t, 10*time.Second, time.Since(begin))
	})
}

func TestManyUsersChangeNoAnswer(t *testing.T) {
	d := &directory{}
	d.answer = func(_ context.Context, subject string) (*login.Account, error) {
		return &login.Account{Scopes: []string{subject}}, nil
	}
	all := accounts.New(map[string]login.Login{"employee": d})
	for range 2 {
		for i := range 100_000 {
			subject := fmt.Sprint("employee:", i)
			a, err := all.Lookup(t.Context(), subject)
			if err != nil || a.Scopes[0] != subject {
				t.Fatal(subject, a, err)
			}
		}
	}
	before := d.count()
	_, err := all.Lookup(t.Context(), "employee:99999")
	require.NoError(t, err)
	assert.Equal(t, before, d.count(), "the latest are remembered")
}
