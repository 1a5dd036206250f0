// Package accounts reports whether a subject is still a user of the server, for each use of a grant or a session, without a
// directory lookup each time.
package accounts

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/valetkey/valetkey/authserver/login"
	"github.com/valetkey/valetkey/internal/flight"
)

const (
	maxAge  = time.Minute      // how long an account is relied on, and thus how long a change may take to have effect
	timeout = 10 * time.Second // of one lookup
	maxHeld = 1 << 16          // maximum number of remembered accounts
)

// Accounts looks up subjects at the [login.Login] of their type. It is safe for concurrent use.
//
// It remembers accounts for a minute. Only subjects that exist and whose token or session was presented are remembered, so the
// number of users fills it, not the number of requests. When it is full, the older half is dropped, which costs the directory
// more lookups but changes no result. Outages and subjects that do not exist are not remembered: an outage may end at any time,
// and the grant or session of a subject that does not exist ends immediately.
type Accounts struct {
	logins map[string]login.Login

	mu       sync.Mutex
	new, old map[string]remembered // together at most maxHeld
	flights  flight.Table[string, found]
}

type remembered struct {
	account *login.Account
	until   time.Time
}

// A lookup is a call of a login in progress, which all callers with the same subject wait for.
type lookup = flight.Flight[string, found]

type found struct {
	account   *login.Account
	err       error
	abandoned bool // the context of the leading caller has ended: another has to lead
}

var errPanicked = errors.New("the Login panicked")

// New returns Accounts of the logins, keyed by type.
func New(logins map[string]login.Login) *Accounts {
	return &Accounts{logins: maps.Clone(logins), new: map[string]remembered{}, flights: flight.Table[string, found]{}}
}

// Lookup returns the account of a subject, as it was at most a minute ago. The account must not be modified. The error wraps
// [login.ErrNoUser] if there is no such user, or if no login has the subject's type. Any other error is an outage.
func (a *Accounts) Lookup(ctx context.Context, subject string) (*login.Account, error) {
	kind, _, _ := strings.Cut(subject, ":")
	l := a.logins[kind]
	if l == nil {
		return nil, fmt.Errorf("%w: %q has a type that is not configured", login.ErrNoUser, subject)
	}
	for {
		account, f, leads := a.join(subject)
		switch {
		case account != nil:
			return account, nil
		case leads:
			return a.lead(ctx, f, l, subject)
		}
		select {
		case <-f.Done():
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for the lookup of %q: %w", subject, ctx.Err())
		}
		if result := f.Result; !result.abandoned {
			return result.account, result.err
		}
	}
}

// Forget makes the next Lookup call the login. The result of a lookup in progress is not remembered.
func (a *Accounts) Forget(subject string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.new, subject)
	delete(a.old, subject)
	delete(a.flights, subject)
}

// join returns the remembered account, or the flight to wait for or to lead.
func (a *Accounts) join(subject string) (account *login.Account, f *lookup, leads bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, generation := range []map[string]remembered{a.new, a.old} {
		if r, ok := generation[subject]; ok && time.Now().Before(r.until) {
			return r.account, nil, false
		}
	}
	if f = a.flights.Join(subject); f != nil {
		return nil, f, false
	}
	return nil, a.flights.Start(subject), true
}

func (a *Accounts) lead(ctx context.Context, f *lookup, l login.Login, subject string) (*login.Account, error) {
	f.Result.err = errPanicked // for the waiting calls, if the login panics
	until := time.Now().Add(maxAge)
	defer func() { a.land(f, subject, until) }()
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	account, err := l.Lookup(limited, subject)
	if account == nil && err == nil {
		err = fmt.Errorf("the login of %q returned neither an account nor an error", subject)
	}
	if err != nil {
		account = nil
	}
	f.Result = found{account, err, err != nil && ctx.Err() != nil}
	return account, err
}

func (a *Accounts) land(f *lookup, subject string, until time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if current := a.flights.Land(f); !current || f.Result.err != nil { // not current: forgotten meanwhile
		return
	}
	if len(a.new) >= maxHeld/2 {
		a.old, a.new = a.new, map[string]remembered{}
	}
	delete(a.old, subject)
	a.new[subject] = remembered{f.Result.account, until}
}

// Refreshing returns a Login that calls l and, after a log-in, forgets the remembered account. A user who has just logged in,
// with a new password or to use new rights, thus does not have to wait.
func (a *Accounts) Refreshing(l login.Login) login.Login { return refreshing{l, a} }

type refreshing struct {
	login    login.Login
	accounts *Accounts
}

func (r refreshing) Lookup(ctx context.Context, subject string) (*login.Account, error) {
	return r.login.Lookup(ctx, subject)
}

func (r refreshing) Login(ctx context.Context, name, password string) (*login.User, error) {
	u, err := r.login.Login(ctx, name, password)
	if err == nil && u != nil {
		r.accounts.Forget(u.Subject)
	}
	return u, err
}
