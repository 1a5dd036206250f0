package valetmcp_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/adapters/valetmcp"
	"github.com/valetkey/valetkey/scopes"
)

// Whatever body passes with a token that may only use one tool: it arrives as it was sent, and neither the SDK nor
// encoding/json, which is laxer, finds a call of another tool in it.
func FuzzBody(f *testing.F) {
	for _, seed := range []string{
		call("whoami"), call("secret"), ping, initialize, "[" + ping + "," + call("whoami") + "]", "[" + call("whoami") + " , " + call("secret") + "]",
		`{"jsonrpc":"2.0","id":1,"method":"ping","Method":"tools/call","params":{"name":"secret"}}`,
		`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"whoami","n\u0061me":"secret"}}`,
		`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"whoami","\u0000name":"secret"}}`, call("whoami") + call("secret"),
	} {
		f.Add([]byte(seed))
	}
	p := open(f)
	token := p.token()
	var arrived []byte
	h, err := valetmcp.New(valetmcp.Config{Guard: p.guard, Tools: valetmcp.Needs{"whoami": valetkey.AnyToken, "secret": scopes.All("x")}},
		http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { arrived, _ = io.ReadAll(r.Body) }))
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, body []byte) {
		arrived = nil
		r := httptest.NewRequest("POST", "/mcp", bytes.NewReader(bytes.Clone(body)))
		r.Header.Set("Authorization", "Bearer "+token)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != 200 {
			return
		}
		if !bytes.Equal(body, arrived) {
			t.Fatalf("%q arrived as %q", body, arrived)
		}
		var messages []json.RawMessage
		if json.Unmarshal(body, &messages) != nil {
			messages = []json.RawMessage{body}
		}
		for _, message := range messages {
			var lax struct {
				Method string
				Params json.RawMessage
			}
			if json.Unmarshal(message, &lax) == nil && lax.Method == "tools/call" {
				onlyWhoami(t, body, lax.Params)
			}
			if m, err := jsonrpc.DecodeMessage(message); err == nil {
				if request, ok := m.(*jsonrpc.Request); ok && request.Method == "tools/call" {
					onlyWhoami(t, body, request.Params)
				}
			}
		}
	})
}

func onlyWhoami(t *testing.T, body []byte, params json.RawMessage) {
	t.Helper()
	var called mcp.CallToolParams
	if json.Unmarshal(params, &called) == nil && called.Name != "whoami" {
		t.Fatalf("%q calls %q", body, called.Name)
	}
}
