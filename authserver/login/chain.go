package login

import (
	"context"
	"errors"
	"slices"
)

// Chain returns a [Login] that tries ls in turn. The first one that accepts ends the search. If one has an outage, a user whom
// another one accepts still gets in. For all other users, the result is the outage instead of a refusal, since their password
// may be right. An empty Chain refuses.
//
// Each Login that is tried sees the password, so all of them should belong to one organization. Put the fastest first, because
// users of the last one wait for all the others.
func Chain(ls ...Login) Login { return chain(slices.Clone(ls)) }

type chain []Login

func (c chain) Login(ctx context.Context, name, password string) (*User, error) {
	var outages []error
	for _, l := range c {
		u, err := ask(ctx, l, name, password)
		if err == nil {
			return u, nil
		}
		if !errors.Is(err, ErrRefused) {
			outages = append(outages, err)
		}
	}
	if len(outages) > 0 {
		return nil, errors.Join(outages...)
	}
	return nil, ErrRefused
}

// Lookup tries the logins in turn and returns the first account. A Login that does not have the subject's type answers without
// I/O, so an outage of one directory does not affect users of another type. If one has an outage and no other knows the subject,
// the result is that outage.
func (c chain) Lookup(ctx context.Context, subject string) (*Account, error) {
	var outages []error
	for _, l := range c {
		a, err := lookup(ctx, l, subject)
		if err == nil {
			return a, nil
		}
		if !errors.Is(err, ErrNoUser) {
			outages = append(outages, err)
		}
	}
	if len(outages) > 0 {
		return nil, errors.Join(outages...)
	}
	return nil, ErrNoUser
}

// lookup calls l and verifies that it returned an account or an error.
func lookup(ctx context.Context, l Login, subject string) (*Account, error) {
	if l == nil {
		return nil, errors.New("login: a nil Login was asked")
	}
	a, err := l.Lookup(ctx, subject)
	if err == nil && a == nil {
		return nil, errors.New("login: the Login returned neither an account nor an error")
	}
	return a, err
}

// ask calls l and verifies that it returned a user or an error.
func ask(ctx context.Context, l Login, name, password string) (*User, error) {
	if l == nil {
		return nil, errors.New("login: a nil Login was asked")
	}
	u, err := l.Login(ctx, name, password)
	if err == nil && u == nil {
		return nil, errors.New("login: the Login returned neither a user nor an error")
	}
	return u, err
}
