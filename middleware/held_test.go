package middleware_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/heldtoken"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/scopes"
	"github.com/valetkey/valetkey/valetkeytest"
)

func onBehalf(c *middleware.Config) { c.OnBehalf = true }

func TestTheTextOfATokenIsKeptForPackageOnbehalfOnly(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	token := iss.Token()
	accepted := func(t *testing.T, guards ...*middleware.Guard) context.Context {
		r := valetkeytest.Request("GET", "/", token)
		for _, g := range guards {
			r.Header.Set("Authorization", "Bearer "+token)
			d := g.Decide(r)
			require.NoError(t, d.Err())
			r = r.WithContext(d.Context(r.Context()))
			r.Header.Del("Authorization") // the next guard gets it again; nothing else has it
			assert.NotContains(t, fmt.Sprintf("%v %+v %#v", d, d, d), token)
		}
		return r.Context()
	}
	t.Run("a guard that is not configured so drops it", func(t *testing.T) {
		assert.Nil(t, heldtoken.FromContext(accepted(t, newGuard(t, iss))))
		assert.Nil(t, heldtoken.FromContext(accepted(t, newGuard(t, iss, cancels))))
	})
	t.Run("that of another guard's token is not used", func(t *testing.T) {
		assert.Nil(t, heldtoken.FromContext(accepted(t, newGuard(t, iss, onBehalf), newGuard(t, iss))))
		ctx := accepted(t, newGuard(t, iss, onBehalf))
		assert.Nil(t, heldtoken.FromContext(valetkey.NewContext(ctx, nil)))
	})
	for name, guards := range map[string][]*middleware.Guard{
		"a request":                          {newGuard(t, iss, onBehalf)},
		"two guards":                         {newGuard(t, iss), newGuard(t, iss, onBehalf)},
		"a request that ends with the token": {newGuard(t, iss, onBehalf, func(c *middleware.Config) { c.CancelWithToken = true })},
	} {
		t.Run("the context has it, and does not print it: "+name, func(t *testing.T) {
			ctx := accepted(t, guards...)
			held := heldtoken.FromContext(ctx)
			require.NotNil(t, held)
			assert.Equal(t, token, held.Text())
			assert.Same(t, valetkey.FromContext(ctx), held.Facts())
			for _, printed := range []any{ctx, held, *held} {
				text := fmt.Sprintf("%v %+v %#v %s", printed, printed, printed, printed)
				assert.False(t, strings.Contains(text, token[:40]), "%T", printed)
			}
		})
	}
	t.Run("a request that is refused, and let through in order to report it", func(t *testing.T) {
		for _, change := range []func(*middleware.Config){func(*middleware.Config) {}, func(c *middleware.Config) { c.CancelWithToken = true }} {
			guard := newGuard(t, iss, onBehalf, change, func(c *middleware.Config) { c.InsecureReportOnly = true })
			d := guard.Decide(valetkeytest.Request("GET", "/", token), scopes.All("orders:read"))
			require.NoError(t, d.Err())
			assert.Equal(t, token, heldtoken.FromContext(d.Context(t.Context())).Text())
			d = guard.Decide(valetkeytest.Request("GET", "/", "forged"), scopes.All("orders:read"))
			assert.Nil(t, heldtoken.FromContext(d.Context(t.Context())))
		}
	})
	t.Run("a token that came without a request", func(t *testing.T) {
		ctx := newGuard(t, iss, onBehalf).DecideToken(t.Context(), token).Context(t.Context())
		assert.Equal(t, token, heldtoken.FromContext(ctx).Text())
	})
}

func TestRevocationsAndPurgesReachWhatDependsOnAToken(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	guard := newGuard(t, iss, onBehalf)
	next := newGuard(t, iss, onBehalf, func(c *middleware.Config) { c.Previous = guard })
	held := heldtoken.FromContext(guard.DecideToken(t.Context(), iss.Token()).Context(t.Context()))
	other := heldtoken.FromContext(guard.DecideToken(t.Context(), iss.Token(valetkeytest.Subject("bob"))).Context(t.Context()))
	var purged []string
	dependent := &heldtoken.Dependent{Purge: func(match func(*valetkey.Token) bool) {
		for _, t := range []*valetkey.Token{held.Facts(), other.Facts()} {
			if match == nil || match(t) {
				purged = append(purged, t.Subject())
			}
		}
	}}
	held.Attach(dependent)
	held.Attach(dependent)
	require.NoError(t, held.Still())

	guard.Purge(nil)
	assert.Equal(t, []string{"alice", "bob"}, purged)
	purged = nil
	require.NoError(t, next.Revoke(valetkey.Revocation{Issuer: iss.URL, Subject: "alice"}), "the guard that has replaced it")
	assert.Equal(t, []string{"alice"}, purged)
	assert.Error(t, held.Still())
	purged = nil
	require.NoError(t, guard.Revoke(valetkey.Revocation{Issuer: iss.URL, Subject: "bob", Before: iss.Now().Add(-time.Hour)}), "of tokens that are older")
	assert.Empty(t, purged)
	assert.NoError(t, other.Still())
}
