package valetkey

import (
	"context"

	"github.com/valetkey/valetkey/internal/authctx"
)

// NewContext returns a context that carries t, for handlers under test. A guard does not believe it: it trusts only a
// token that it verified itself. Claims that ctx carries, which are those of another token, are hidden, see [ClaimsOf.NewContext].
func NewContext(ctx context.Context, t *Token) context.Context {
	return &tokenContext{ctx, t}
}

type tokenContext struct {
	context.Context
	token *Token
}

func (c *tokenContext) Value(key any) any {
	switch key.(type) {
	case authctx.Token:
		return c.token
	case Claims:
		return nil
	}
	return c.Context.Value(key)
}

// FromContext returns the token of the request that ctx belongs to, or nil if the request carried none for
// the guard of its route, which only happens on a route that allows it. It allocates nothing.
func FromContext(ctx context.Context) *Token {
	t, _ := ctx.Value(authctx.Token{}).(*Token)
	return t
}
