package valetgrpc_test

import (
	"context"
	"io"
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/adapters/valetgrpc"
	"github.com/valetkey/valetkey/introspect"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/onbehalf"
	"github.com/valetkey/valetkey/valetkeytest"
)

// forUser are the credentials of docs/onbehalf.md.
type forUser struct{ client *onbehalf.Client }

func (c forUser) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	token, err := c.client.Token(ctx)
	if err != nil {
		return nil, err
	}
	return map[string]string{"authorization": token.Authorization()}, nil
}

func (forUser) RequireTransportSecurity() bool { return false } // true beyond loopback

func TestAServiceCallsTheNextOneForTheUser(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	iss.Introspection.Serve(func(w http.ResponseWriter, r *http.Request) { // plays the token endpoint
		exchanged := iss.Token(valetkeytest.Subject("alice"), valetkeytest.Scopes("orders:read"), valetkeytest.Claim("act", map[string]string{"sub": "orders"}))
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"access_token":"`+exchanged+`","token_type":"Bearer","issued_token_type":"urn:ietf:params:oauth:token-type:access_token","expires_in":60}`)
	})
	var actors []string
	stocks, err := valetgrpc.New(newGuard(t, keysOf(t, iss)), methods)
	require.NoError(t, err)
	stock := serveWith(t, &testService{}, grpc.ChainUnaryInterceptor(stocks.Unary,
		func(ctx context.Context, r any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			actor, _ := valetkey.FromContext(ctx).Actor()
			actors = append(actors, actor.Subject)
			return next(ctx, r)
		}))

	client, err := onbehalf.New(onbehalf.Config{TokenURL: iss.Introspection.URL, Issuer: iss.URL, Auth: introspect.BasicAuth("orders", "secret"),
		InputAudience: []string{valetkeytest.DefaultAudience}})
	require.NoError(t, err)
	defer client.Close()
	orders, err := valetgrpc.New(newGuard(t, keysOf(t, iss), func(c *middleware.Config) { c.OnBehalf = true }), methods)
	require.NoError(t, err)
	api := serveWith(t, &testService{}, grpc.ChainUnaryInterceptor(orders.Unary,
		func(ctx context.Context, _ any, _ *grpc.UnaryServerInfo, _ grpc.UnaryHandler) (any, error) {
			return stock.UnaryCall(ctx, &testpb.SimpleRequest{}, grpc.PerRPCCredentials(forUser{client}))
		}))
	for range 2 {
		name, err := unary(with(t, "Bearer "+iss.Token(valetkeytest.Scopes("orders:read"))), api)
		require.NoError(t, err)
		assert.Equal(t, "alice", name)
	}
	assert.Equal(t, []string{"orders", "orders"}, actors)
}
