package middleware_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/valetkeytest"
)

type orderClaims struct {
	Tenant string                `json:"tenant"`
	Roles  valetkey.List[string] `json:"roles"`
}

var validations atomic.Int64

func (c orderClaims) Validate() error {
	validations.Add(1)
	if c.Tenant == "" {
		return errors.New("no tenant")
	}
	return nil
}

type unshareable struct{ Roles []string }

func TestClaims(t *testing.T) {
	orders := valetkey.DeclareClaims[orderClaims]()
	with := func(c *middleware.Config) { c.Claims = orders }

	t.Run("a type that handlers could change is a mistake of the configuration", func(t *testing.T) {
		_, err := middleware.New(middleware.Config{Claims: valetkey.DeclareClaims[unshareable]()})
		var fields []string
		for _, mistake := range valetkey.ConfigErrors(err) {
			fields = append(fields, mistake.Field)
		}
		assert.Equal(t, []string{"Issuer, Audience", "Claims"}, fields)
		assert.ErrorContains(t, err, "middleware: Claims: middleware_test.unshareable.Roles can be changed by a handler")
	})
	t.Run("claims that do not fit, or that Validate refuses, get 401 without a word about them", func(t *testing.T) {
		iss := valetkeytest.NewIssuer(t)
		guard := newGuard(t, iss, with)
		for name, token := range map[string]string{
			"none": iss.Token(), "of another kind": iss.Token(valetkeytest.Claim("tenant", 1)), "empty": iss.Token(valetkeytest.Claim("tenant", "")),
		} {
			r := valetkeytest.Request("GET", "/", token)
			d := guard.Decide(r)
			assert.Equal(t, 401, d.Status(), name)
			var refusal *valetkey.Error
			require.ErrorAs(t, d.Err(), &refusal)
			assert.Equal(t, valetkey.ReasonClaims, refusal.Reason)
			assert.NotContains(t, d.Header().Get("WWW-Authenticate"), "tenant", name)
			assert.Equal(t, 401, status(guard, token), name)
		}
	})
	t.Run("a handler reads them without an allocation, and they are decoded once for a token in use", func(t *testing.T) {
		iss := valetkeytest.NewIssuer(t)
		guard := newGuard(t, iss, with)
		token := iss.Token(valetkeytest.Claim("tenant", "t1"), valetkeytest.Claim("roles", []string{"clerk"}))
		before := validations.Load()
		for range 10 {
			called := false
			guard.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				called = true
				c, ok := orders.From(r.Context())
				assert.True(t, ok)
				assert.Equal(t, orderClaims{"t1", valetkey.ListOf("clerk")}, c)
				assert.Zero(t, testing.AllocsPerRun(10, func() { orders.From(r.Context()) }))
			})).ServeHTTP(httptest.NewRecorder(), valetkeytest.Request("GET", "/", token))
			require.True(t, called)
		}
		assert.LessOrEqual(t, validations.Load()-before, int64(2), "when it was new, and when it turned out to be in use")
	})
	t.Run("a token without a request has its claims, too", func(t *testing.T) {
		iss := valetkeytest.NewIssuer(t)
		guard := newGuard(t, iss, with)
		d := guard.DecideToken(t.Context(), iss.Token(valetkeytest.Claim("tenant", "t1")))
		require.NoError(t, d.Err())
		c, ok := orders.From(d.Context(t.Context()))
		assert.True(t, ok)
		assert.Equal(t, "t1", c.Tenant)
	})
	t.Run("the claims are those of the token that the handler sees, and no other's", func(t *testing.T) {
		one, other := valetkeytest.NewIssuer(t), valetkeytest.NewIssuer(t)
		outer, inner := newGuard(t, one, with), newGuard(t, other)
		ctx := outer.DecideToken(t.Context(), one.Token(valetkeytest.Claim("tenant", "t1"))).Context(t.Context())
		_, ok := orders.From(ctx)
		require.True(t, ok)
		_, ok = orders.From(inner.DecideToken(t.Context(), other.Token()).Context(ctx))
		assert.False(t, ok, "the inner guard decodes none")
		_, ok = orders.From(valetkey.NewContext(ctx, nil))
		assert.False(t, ok, "there is no token any more")
		another := valetkey.DeclareClaims[orderClaims]()
		_, ok = another.From(ctx)
		assert.False(t, ok)
	})
	t.Run("what is decoded counts in the memory's bytes", func(t *testing.T) {
		bytes := func(change ...func(*middleware.Config)) int64 {
			guard := guardWith(t, valetkey.VerifierFunc(func(_ context.Context, raw string) (*valetkey.Token, error) {
				return valetkey.NewToken(valetkey.TokenFields{
					Raw:       fmt.Sprintf(`{"tenant":%q,"jti":%q}`, strings.Repeat("x", 300), raw),
					Freshness: valetkey.Freshness{Until: time.Now().Add(time.Hour)},
				}), nil
			}), change...)
			for range 3 {
				require.Equal(t, 200, status(guard, "a"))
			}
			return guard.Status().Cache.Bytes
		}
		assert.GreaterOrEqual(t, bytes(with)-bytes(), int64(300))
	})
}
