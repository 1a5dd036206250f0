package valetmcp

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"

	"github.com/modelcontextprotocol/go-sdk/auth"
	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/middleware"
)

// The keys in TokenInfo.Extra.
const (
	tokenKey   = "github.com/valetkey/valetkey"
	requestKey = "github.com/valetkey/valetkey request" // the context of the request that the guard let through
)

// Info returns t as the SDK knows tokens. Its UserID, to which the SDK ties a session, is never empty: it names the issuer
// and the subject; without a subject, the client; without both, the one token. [Token] gives t back.
func Info(t *valetkey.Token) *auth.TokenInfo {
	user := fmt.Sprintf("%q subject %q", t.Issuer(), t.Subject())
	if t.Subject() == "" {
		user = fmt.Sprintf("%q client %q", t.Issuer(), t.ClientID())
	}
	if cmp.Or(t.Subject(), t.ClientID()) == "" {
		user = fmt.Sprintf("%q token %x", t.Issuer(), sha256.Sum256([]byte(t.Raw())))
	}
	return &auth.TokenInfo{Scopes: t.Scopes().Slice(), Expiration: t.Expiry(), UserID: user, Extra: map[string]any{tokenKey: t}}
}

// Token returns the token that info was made of, nil if info is nil or was not made by [Info].
func Token(info *auth.TokenInfo) *valetkey.Token {
	if info == nil {
		return nil
	}
	t, _ := info.Extra[tokenKey].(*valetkey.Token)
	return t
}

// Attach is a receiving middleware for [mcp.Server.AddReceivingMiddleware]. It makes [valetkey.FromContext] return the token
// of the very request that is handled, or nil if it carried none, and [valetkey.ClaimsOf.From] its claims. Do not ask [auth.TokenInfoFromContext] within a tool: for
// a server with sessions the SDK answers with what it knew when the session began.
func Attach(next mcp.MethodHandler) mcp.MethodHandler {
	return func(ctx context.Context, method string, request mcp.Request) (mcp.Result, error) {
		var info *auth.TokenInfo
		if extra := request.GetExtra(); extra != nil {
			info = extra.TokenInfo
		}
		ctx = valetkey.NewContext(ctx, Token(info))
		if info != nil {
			if r, ok := info.Extra[requestKey].(context.Context); ok {
				ctx = claimsContext{ctx, r}
			}
		}
		return next(ctx, method, request)
	}
}

// A claimsContext takes the claims from another context.
type claimsContext struct {
	context.Context
	claims context.Context
}

func (c claimsContext) Value(key any) any {
	if _, ok := key.(valetkey.Claims); ok {
		return c.claims.Value(key)
	}
	return c.Context.Value(key)
}

// Verifier makes g a verifier for the SDK's [auth.RequireBearerToken]. [New] does more and needs none: the SDK's middleware
// knows no scopes of one tool, names no error in its challenges, and answers 500 where a failure of ours is a 503.
//
// What the SDK shows of an error to the client is a fixed text; the error wraps its cause, for a log.
func Verifier(g *middleware.Guard) auth.TokenVerifier {
	return func(ctx context.Context, token string, r *http.Request) (*auth.TokenInfo, error) {
		var d middleware.Decision
		if r != nil {
			d = g.Decide(r)
		} else {
			d = g.DecideToken(ctx, token)
		}
		err := d.Err()
		if err == nil {
			return Info(d.Token()), nil
		}
		var refusal *valetkey.Error
		switch {
		case !errors.As(err, &refusal):
			return nil, &told{"the token cannot be verified now", []error{err}}
		case refusal.Code == valetkey.InvalidRequest:
			return nil, &told{refusal.Reason.Description(), []error{auth.ErrOAuth, err}}
		default:
			return nil, &told{cmp.Or(refusal.Reason.Description(), auth.ErrInvalidToken.Error()), []error{auth.ErrInvalidToken, err}}
		}
	}
}

// told is an error whose text may be shown to the client, and whose causes may not.
type told struct {
	text   string
	causes []error
}

func (e *told) Error() string   { return e.text }
func (e *told) Unwrap() []error { return e.causes }
