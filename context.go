package valetkey

import (
	"context"

	"github.com/valetkey/valetkey/internal/authctx"
)

// NewContext returns a context that carries t, for handlers under test. A guard ignores t, because it trusts only a token that it
// verified itself. The new context hides claims that ctx carries, which belong to another token, see [ClaimsOf.NewContext].
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

// FromContext returns the token of the request that ctx belongs to. It returns nil if the request carried no token for the guard
// of its route, which happens only on a route that accepts requests without credentials. It does not allocate.
func FromContext(ctx context.Context) *Token {
	t, _ := ctx.Value(authctx.Token{}).(*Token)
	return t
}
