package valetkey

import (
	"context"

	"github.com/valetkey/valetkey/internal/authctx"
)

// NewContext returns a context that carries t, for handlers under test. A guard does not believe it: it trusts only a
// token that it verified itself.
func NewContext(ctx context.Context, t *Token) context.Context {
	return context.WithValue(ctx, authctx.Token{}, t)
}

// FromContext returns the token of the request that ctx belongs to, or nil if the request carried none for
// the guard of its route, which only happens on a route that allows it. The token is the caller's own copy.
func FromContext(ctx context.Context) *Token {
	t, _ := ctx.Value(authctx.Token{}).(*Token)
	if t == nil {
		return nil
	}
	return t.Clone()
}
