package middleware

import (
	"context"
	"strings"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/authctx"
	"github.com/valetkey/valetkey/internal/authheader"
	"github.com/valetkey/valetkey/internal/tokencache"
)

// A finding is the result of verify. The zero value means no result.
type finding struct {
	entry      *tokencache.Entry
	remembered bool
	nonce      string // for the client's next proof; "": the client has a current one, or needs none
}

// verify returns nil if the credentials are valid: the token is cached or the verifier accepts it, and its bindings are proven. It
// makes no decision about a route.
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

// uncached is the verifier that the cache calls for a token that it does not hold.
type uncached struct {
	verifier valetkey.Verifier
	denials  *denials
	padded   bool // the parts of a token may end with padding
}

func (u uncached) Verify(ctx context.Context, raw string) (*valetkey.Token, error) {
	if !authheader.IsToken(raw) && !(u.padded && paddedParts(raw)) { // not checked on a hit: a cached token has passed this check
		return nil, malformed(valetkey.ReasonTokenCharacters)
	}
	if err := u.denials.watched.unknown(); err != nil { // no token is cached before the guard has caught up
		return nil, err
	}
	t, err := u.verifier.Verify(ctx, raw)
	if err != nil || t == nil {
		return nil, err
	}
	if err := u.denials.check(t); err != nil {
		return nil, err
	}
	u.denials.noteLifetime(t)
	u.denials.sessionless.noteToken(t, u.denials.log)
	return t, nil
}

// paddedParts reports whether s consists of parts, separated by dots, that are each a b64token. A load balancer of AWS pads each part
// of the JWT in X-Amzn-Oidc-Data, and Authorization cannot carry such a token.
func paddedParts(s string) bool {
	for part := range strings.SplitSeq(s, ".") {
		if !authheader.IsToken(part) {
			return false
		}
	}
	return true
}

// Purge removes the tokens that match from the cache, or all if match is nil, and returns the number removed. It also purges a
// verifier that is a [valetkey.Purger], and the tokens that package onbehalf has obtained for those that match. A removed token is verified again when it is next used, so that changes at the issuer
// take effect at once. Purge is not a deny-list, see [Guard.Revoke]. The result of a verification in progress is not cached.
// Purge scans every entry. It is safe for concurrent use.
func (g *Guard) Purge(match func(t *valetkey.Token) bool) int {
	if f, ok := g.verifier.(valetkey.Purger); ok {
		f.Purge()
	}
	n := g.cache.Purge(match)
	g.denials.dependents.Purge(match)
	return n
}

// verifiedContext carries a verified token. It adds one pointer, the least that a context can cost.
type verifiedContext struct {
	context.Context
	entry *tokencache.Entry
}

// guardKey is the context key of the entry that a particular guard created. A guard trusts only its own entries, so the next
// guard of a chain verifies the token itself. If the same guard occurs twice, it does not verify again, because a DPoP proof can
// be used only once.
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
		return c.entry.ClaimsOf(key) // never the claims of another guard's token
	}
	return c.Context.Value(key)
}

func (g *Guard) verified(ctx context.Context) *tokencache.Entry {
	entry, _ := ctx.Value(guardKey{g.cache}).(*tokencache.Entry)
	return entry
}
