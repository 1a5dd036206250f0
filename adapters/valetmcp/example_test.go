package valetmcp_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/adapters/valetmcp"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/scopes"
)

// demo accepts one token, the word valet.
var demo = valetkey.VerifierFunc(func(_ context.Context, raw string) (*valetkey.Token, error) {
	if raw != "valet" {
		return nil, &valetkey.Error{Code: valetkey.InvalidToken, Reason: valetkey.ReasonInactive}
	}
	return valetkey.NewToken(valetkey.TokenFields{Subject: "alice", Scopes: valetkey.NewScopes("orders:read")}), nil
})

func ExampleNew() {
	guard, err := middleware.New(middleware.Config{
		Verifier: demo, // in production, one from jwks.New
		Resource: middleware.Resource{ID: "https://api.example.com/mcp", AuthorizationServers: []string{"https://as.example.com"}},
	})
	if err != nil {
		log.Fatal(err)
	}
	server := mcp.NewServer(&mcp.Implementation{Name: "orders", Version: "1.0.0"}, nil)
	server.AddReceivingMiddleware(valetmcp.Attach)
	tool := func(ctx context.Context, r *mcp.CallToolRequest, _ any) (*mcp.CallToolResult, any, error) {
		text := fmt.Sprintf("%s for %s", r.Params.Name, valetkey.FromContext(ctx).Subject())
		return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: text}}}, nil, nil
	}
	mcp.AddTool(server, &mcp.Tool{Name: "list_orders"}, tool)
	mcp.AddTool(server, &mcp.Tool{Name: "cancel_order"}, tool)

	handler, err := valetmcp.New(valetmcp.Config{
		Guard: guard,
		Tools: valetmcp.Needs{
			"list_orders":  scopes.All("orders:read"),
			"cancel_order": scopes.All("orders:write"),
		},
	}, mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return server }, &mcp.StreamableHTTPOptions{
		Stateless: true, JSONResponse: true,
	}))
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/mcp", handler)
	mux.Handle(guard.Metadata())

	for _, name := range []string{"list_orders", "cancel_order"} {
		call := `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"` + name + `"}}`
		request := httptest.NewRequest("POST", "/mcp", strings.NewReader(call))
		request.Header.Set("Authorization", "Bearer valet")
		request.Header.Set("Content-Type", "application/json")
		request.Header.Set("Accept", "application/json, text/event-stream")
		response := httptest.NewRecorder()
		mux.ServeHTTP(response, request)
		fmt.Println(response.Code, strings.TrimSpace(response.Body.String()))
	}
	// Output:
	// 200 {"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"list_orders for alice"}]}}
	// 403 Forbidden: the token lacks a scope that this request needs
}
