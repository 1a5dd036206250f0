package main_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/valetkey/valetkey/adapters/internal/exampletest"
)

func TestProgram(t *testing.T) {
	exampletest.Short(t)
	exampletest.Undeclared(t, `"/orders.v1.Orders/Place": `, "method /orders.v1.Orders/Place: no row declares it")
	addr, token := exampletest.Start(t)
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	defer conn.Close()
	for _, c := range []struct {
		name, method, token string
		code                codes.Code
		challenge           string // the beginning of it
		answer              string
	}{
		{"no token, reading", "List", "", codes.Unauthenticated, `Bearer realm="api", scope="orders:read"`, ""},
		{"no token, writing", "Place", "", codes.Unauthenticated, `Bearer realm="api", scope="orders:write"`, ""},
		{"a forged token", "List", "forged", codes.Unauthenticated, `Bearer realm="api", error="invalid_token"`, ""},
		{"a writer does not read", "List", token("orders:write"), codes.PermissionDenied, `Bearer realm="api", error="insufficient_scope"`, ""},
		{"a reader does not write", "Place", token("orders:read"), codes.PermissionDenied, `Bearer realm="api", error="insufficient_scope"`, ""},
		{"a reader reads", "List", token("orders:read"), codes.OK, "", "the orders of "},
		{"a writer writes", "Place", token("orders:write"), codes.OK, "", "placed by "},
		{"a public method needs no token", "About", "", codes.OK, "", "orders"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if c.token != "" {
				ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+c.token)
			}
			var answer wrapperspb.StringValue
			var trailer metadata.MD
			err := conn.Invoke(ctx, "/orders.v1.Orders/"+c.method, &emptypb.Empty{}, &answer, grpc.Trailer(&trailer))
			assert.Equal(t, c.code, status.Code(err), err)
			assert.Contains(t, answer.Value, c.answer)
			if c.challenge == "" {
				assert.Empty(t, trailer["www-authenticate"])
				return
			}
			require.Len(t, trailer["www-authenticate"], 1)
			assert.Contains(t, trailer["www-authenticate"][0], c.challenge)
		})
	}
}
