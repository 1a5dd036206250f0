package main

import (
	"cmp"
	"context"
	"log"
	"net/http"
	"os"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/adapters/valetmcp"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/scopes"
)

func main() {
	issuer, self := cmp.Or(os.Getenv("ISSUER"), "http://127.0.0.1:8888"), "http://127.0.0.1:8080"
	guard, err := middleware.New(middleware.Config{
		Issuer:   issuer,
		Audience: []string{self},
		Resource: middleware.Resource{ID: self, AuthorizationServers: []string{issuer}},
	})
	if err != nil {
		log.Fatal(err)
	}
	server := mcp.NewServer(&mcp.Implementation{Name: "orders", Version: "1.0.0"}, nil)
	server.AddReceivingMiddleware(valetmcp.Attach)
	hello := func(ctx context.Context, r *mcp.CallToolRequest, _ any) (*mcp.CallToolResult, any, error) {
		return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: valetkey.FromContext(ctx).Subject()}}}, nil, nil
	}
	mcp.AddTool(server, &mcp.Tool{Name: "list_orders"}, hello)
	mcp.AddTool(server, &mcp.Tool{Name: "place_order"}, hello)
	needs := valetmcp.Needs{"list_orders": scopes.All("orders:read"), "place_order": scopes.All("orders:write")}
	handler, err := valetmcp.New(valetmcp.Config{Guard: guard, Tools: needs}, mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return server }, nil))
	if err != nil {
		log.Fatal(err)
	}
	http.Handle("/", handler)
	http.Handle(guard.Metadata())
	log.Fatal(http.ListenAndServe(cmp.Or(os.Getenv("ADDR"), "127.0.0.1:8080"), nil))
}
