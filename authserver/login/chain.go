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
