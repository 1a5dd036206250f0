package middleware

import (
	"context"
	"strings"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/authctx"
	"github.com/valetkey/valetkey/internal/authheader"
	"github.com/valetkey/valetkey/internal/tokencache"
)

// A finding is what verify found out about a token; the zero value: nothing.
type finding struct {
	entry      *tokencache.Entry
	remembered bool
	nonce      string // for the next proof of the client; "": it has a good one, or needs none
}

// verify reports whether the credentials are true: the token is remembered or the verifier accepts it, and what it is
// bound to is proven. It decides nothing about a route.
func (g *Guard) verify(ctx context.Context, c credentials) (found finding, err error) {
	found.entry, found.remembered, err = g.cache.Verify(ctx, c.token)
	if err != nil {
		return finding{}, err
	}
	if t := found.entry.Token; c.scheme == authheader.DPoP || g.senderConstrained || !t.Binding().IsZero() {
		if found.nonce, err = g.prove(ctx, c, t); err != nil {
			return finding{}, err
		}
	}
	return found, nil
}

// uncached is what the cache asks about a token that it does not remember.
type uncached struct {
	verifier valetkey.Verifier
	denials  *denials
}

func (u uncached) Verify(ctx context.Context, raw string) (*valetkey.Token, error) {
	if !token68(raw) { // a remembered one was looked at then
		return nil, malformed(valetkey.ReasonTokenCharacters)
	}
	if err := u.denials.watched.unknown(); err != nil { // nothing is remembered from before
		return nil, err
	}
	t, err := u.verifier.Verify(ctx, raw)
	if err != nil || t == nil {
		return nil, err
	}
	if err := u.denials.check(t); err != nil {
		return nil, err
	}
	return t, nil
}

// token68 reports whether s is the b64token of RFC 6750, section 2.1.
func token68(s string) bool {
	s = strings.TrimRight(s, "=")
	for i := range len(s) {
		if !isToken68[s[i]] {
			return false
		}
	}
	return s != ""
}

var isToken68 = func() (is [256]bool) {
	for _, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/") {
		is[c] = true
	}
	return is
}()

// Purge forgets the remembered tokens that match, or all if match is nil, and returns how many there were; a verifier
// that is a [valetkey.Purger] forgets, too. They are verified again when they come next: Purge makes what the issuer
// knows take effect at once, and is no deny-list, see [Guard.Revoke]. A token that is being verified meanwhile is not
// remembered. It looks at every entry.
func (g *Guard) Purge(match func(t *valetkey.Token) bool) int {
	if f, ok := g.verifier.(valetkey.Purger); ok {
		f.Purge()
	}
	return g.cache.Purge(match)
}

// verifiedContext carries a verified token. It holds one pointer, and so costs as little as a context can.
type verifiedContext struct {
	context.Context
	entry *tokencache.Entry
}

// guardKey asks for the entry that a particular guard made. A guard trusts no other: the next guard of a chain looks for
// itself, and a second one of the same guard does not verify again, which a proof for one use would not survive.
type guardKey struct{ cache *tokencache.Cache }

func (c *verifiedContext) Value(key any) any {
	switch key := key.(type) {
	case authctx.Token:
		return c.entry.Token
	case guardKey:
		if c.entry.In(key.cache) {
			return c.entry
		}
	case valetkey.Claims:
		return c.entry.ClaimsOf(key) // and not those of another guard's token
	}
	return c.Context.Value(key)
}

func (g *Guard) verified(ctx context.Context) *tokencache.Entry {
	entry, _ := ctx.Value(guardKey{g.cache}).(*tokencache.Entry)
	return entry
}
