package valetgrpc_test

import (
	"maps"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/adapters/valetgrpc"
	"github.com/valetkey/valetkey/scopes"
)

func TestMethodsCovers(t *testing.T) {
	server := grpc.NewServer()
	testpb.RegisterTestServiceServer(server, &testService{})
	healthpb.RegisterHealthServer(server, health.NewServer())
	const probe = "/grpc.health.v1.Health/"
	whole := maps.Clone(methods)
	for _, name := range []string{service + "CacheableUnaryCall", service + "HalfDuplexCall", probe + "Check", probe + "List", probe + "Watch"} {
		whole[name] = valetkey.Public
	}
	without := func(names ...string) valetgrpc.Methods {
		table := maps.Clone(whole)
		for _, name := range names {
			delete(table, name)
		}
		return table
	}
	with := func(name string) valetgrpc.Methods {
		table := maps.Clone(whole)
		table[name] = scopes.All("a")
		return table
	}
	nilRow := maps.Clone(whole)
	nilRow[probe+"List"] = nil
	for _, c := range []struct {
		name   string
		table  valetgrpc.Methods
		server *grpc.Server
		want   []string // a line each
	}{
		{"no server", whole, nil, []string{"valetgrpc: server: required"}},
		{"HTTP-02 before any service is registered", nil, grpc.NewServer(), []string{"valetgrpc: server: no service is registered"}},
		{"HTTP-02 each method without a row is named", without(service+"UnaryCall", service+"FullDuplexCall", probe+"Check"), server, []string{
			"valetgrpc: method /grpc.health.v1.Health/Check: no row declares it",
			"valetgrpc: method /grpc.testing.TestService/UnaryCall: no row declares it",
			"valetgrpc: method /grpc.testing.TestService/FullDuplexCall: no row declares it",
		}},
		{"HTTP-02 a row with a nil requirement", nilRow, server, []string{"valetgrpc: method /grpc.health.v1.Health/List: no row declares it"}},
		{"a row of a method that is gone", with(service + "Gone"), server, []string{`valetgrpc: Methods["/grpc.testing.TestService/Gone"]: no service has this method`}},
		{"a row of a service that is not registered", with("/orders.v1.Orders/List"), server, []string{`valetgrpc: Methods["/orders.v1.Orders/List"]: no service has this method`}},
		{"another letter case", with(service + "unaryCall"), server, []string{`valetgrpc: Methods["/grpc.testing.TestService/unaryCall"]: no service has this method`}},
		{"every method has its row", whole, server, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.table.Covers(c.server)
			if c.want == nil {
				require.NoError(t, err)
				return
			}
			require.Error(t, err)
			assert.ElementsMatch(t, c.want, strings.Split(err.Error(), "\n"))
		})
	}
	t.Run("HTTP-02 an empty table names them all", func(t *testing.T) {
		err := valetgrpc.Methods(nil).Covers(server)
		require.Error(t, err)
		assert.Len(t, strings.Split(err.Error(), "\n"), len(whole))
	})
}
