package main_test

import (
	"net/http"
	"testing"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/valetkey/valetkey/adapters/internal/exampletest"
)

func TestProgram(t *testing.T) {
	exampletest.Short(t)
	addr, token := exampletest.Start(t)
	for _, c := range []struct {
		name, procedure, token string
		code                   connect.Code // 0: none
	}{
		{"no token, reading", "List", "", connect.CodeUnauthenticated},
		{"a forged token", "List", "forged", connect.CodeUnauthenticated},
		{"a writer does not read", "List", token("orders:write"), connect.CodePermissionDenied},
		{"a reader does not write", "Place", token("orders:read"), connect.CodePermissionDenied},
		{"a reader reads", "List", token("orders:read"), 0},
		{"a writer writes", "Place", token("orders:write"), 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			request := connect.NewRequest(&emptypb.Empty{})
			if c.token != "" {
				request.Header().Set("Authorization", "Bearer "+c.token)
			}
			client := connect.NewClient[emptypb.Empty, wrapperspb.StringValue](http.DefaultClient, "http://"+addr+"/orders.v1.Orders/"+c.procedure)
			response, err := client.CallUnary(t.Context(), request)
			if c.code != 0 {
				require.Error(t, err)
				assert.Equal(t, c.code, connect.CodeOf(err))
				return
			}
			require.NoError(t, err)
			assert.Equal(t, "alice", response.Msg.GetValue())
		})
	}
}
