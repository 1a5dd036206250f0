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

// Keys in TokenInfo.Extra.
const (
	tokenKey   = "github.com/valetkey/valetkey"
	requestKey = "github.com/valetkey/valetkey request" // the context of the request that the guard accepted
)

// Info returns t as a TokenInfo of the SDK. UserID, to which the SDK binds a session, is never empty: it contains the issuer and
// the subject; without a subject, the issuer and the client; without both, the issuer and a hash of the token. [Token] returns t
// from the TokenInfo.
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

// Token returns the token from which [Info] made info, or nil if info is nil or was not made by Info.
func Token(info *auth.TokenInfo) *valetkey.Token {
	if info == nil {
		return nil
	}
	t, _ := info.Extra[tokenKey].(*valetkey.Token)
	return t
}

// Attach is a receiving middleware for [mcp.Server.AddReceivingMiddleware]. It makes [valetkey.FromContext] return the token of
// the current request, or nil if the request carried no token, and [valetkey.ClaimsOf.From] the claims of that token. Do not use
// [auth.TokenInfoFromContext] in a tool: for a server with sessions, the SDK returns the TokenInfo from the start of the session.
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

// A claimsContext reads claims from a second context.
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

// Verifier returns g as a verifier for [auth.RequireBearerToken] of the SDK. Prefer [New], which does more and needs no Verifier:
// the middleware of the SDK does not know scopes per tool, puts no error code in its challenges, and responds to a failure of the
// server with 500 instead of 503.
//
// The SDK shows a fixed text of an error to the client. The error wraps its cause for logs.
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

// told is an error whose text may be shown to the client. Its causes must not be shown.
type told struct {
	text   string
	causes []error
}

func (e *told) Error() string   { return e.text }
func (e *told) Unwrap() []error { return e.causes }
