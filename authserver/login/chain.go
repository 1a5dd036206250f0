package login

import (
	"context"
	"errors"
	"slices"
)

// Chain returns a [Login] that asks ls in turn. The first to accept counts; none of the rest is asked. While one has an outage,
// those whom another accepts get in, and the others are told of the outage, not of a refusal: they may be right. A Chain of
// nothing refuses.
//
// All that are asked see the password, so they should be of one house; and the quickest comes first, as people of the last
// wait for all before it.
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

// Lookup asks the logins in turn; the first account counts. Those that do not have the subject's type answer without I/O, so an
// outage of one directory neither ends nor keeps alive what people of another type have. While one has an outage and no other
// knows the subject, the answer is that outage.
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

// lookup is ask for an account.
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

// ask calls l and holds it to its contract.
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
