package valetmcp_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/valetkeytest"
)

// A visit is the report of npm/client.js, which uses the official TypeScript SDK, about one attempt to call a tool.
type visit struct {
	Refused []struct { // 401 and 403, with the parameters that the SDK reads from the challenge
		Status       int
		Error, Scope string
	}
	Fetched []string // the status and URL of what is not the server itself
	Found   struct {
		ResourceMetadataURL         string
		ResourceMetadata            struct{ Resource string }
		AuthorizationServerURL      string
		AuthorizationServerMetadata struct{ Issuer string }
	}
	Login string // where the SDK sends the user's browser
	Said  string // by the tool
	Error string
}

// visit lets the client call a tool, with a token or without.
func (p *place) visit(t *testing.T, tool, token string) (v visit) {
	t.Helper()
	input, err := json.Marshal(map[string]string{"server": p.resource, "token": token, "tool": tool})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	client := exec.CommandContext(ctx, "node", "npm/client.js")
	var faults bytes.Buffer
	client.Stdin, client.Stderr = bytes.NewReader(input), &faults
	output, err := client.Output()
	require.NoError(t, err, "%s", &faults)
	require.NoError(t, json.Unmarshal(output, &v), "%s", output)
	return v
}

func TestNPMClient(t *testing.T) {
	if _, err := exec.LookPath("node"); err != nil {
		t.Skip("there is no node to run npm/client.js")
	}
	if _, err := os.Stat("npm/node_modules/@modelcontextprotocol/sdk/package.json"); err != nil {
		t.Skip("the packages of npm/client.js are not installed: npm ci --prefix npm")
	}
	for name, mode := range map[string]func(*settings){
		"with sessions and streams": func(*settings) {},
		"without sessions":          stateless,
	} {
		t.Run(name, func(t *testing.T) {
			p := open(t, mode, func(s *settings) { s.config.Methods = nil })
			base, login := strings.TrimSuffix(p.resource, "/mcp"), p.iss.URL+"/authorize"
			// The SDK wants endpoints for a login in the metadata. It goes to neither of them.
			p.iss.Metadata.Answer(fmt.Sprintf(`{"issuer":%q,"jwks_uri":%q,"authorization_endpoint":%q,"token_endpoint":%q,`+
				`"response_types_supported":["code"],"code_challenge_methods_supported":["S256"]}`,
				p.iss.URL, p.iss.KeySet.URL, login, p.iss.URL+"/token"))
			fetched := []string{"200 " + base + "/.well-known/oauth-protected-resource/mcp", "200 " + p.iss.Metadata.URL}

			t.Run("a client without a token finds the authorization server from a 401", func(t *testing.T) {
				before := p.iss.Metadata.Hits()
				v := p.visit(t, "whoami", "")
				assert.Equal(t, "login needed", v.Error)
				require.Len(t, v.Refused, 1)
				assert.Equal(t, 401, v.Refused[0].Status)
				assert.Empty(t, v.Refused[0].Error)
				assert.Equal(t, fetched, v.Fetched)
				assert.Equal(t, before+1, p.iss.Metadata.Hits(), "no token was sent, so only the client asks")
				assert.Equal(t, base+"/.well-known/oauth-protected-resource/mcp", v.Found.ResourceMetadataURL)
				assert.Equal(t, p.resource, v.Found.ResourceMetadata.Resource)
				assert.Equal(t, p.iss.URL, v.Found.AuthorizationServerURL)
				assert.Equal(t, p.iss.URL, v.Found.AuthorizationServerMetadata.Issuer)
				asksFor(t, v.Login, login, p.resource, "admin export orders:read orders:write") // all that the metadata names
				assert.Empty(t, p.called.take())
			})
			t.Run("a client whose token lacks a scope gets 403 with the scope", func(t *testing.T) {
				v := p.visit(t, "cancel_order", p.token())
				assert.Equal(t, "login needed", v.Error)
				require.Len(t, v.Refused, 1)
				assert.Equal(t, 403, v.Refused[0].Status)
				assert.Equal(t, "insufficient_scope", v.Refused[0].Error)
				assert.Equal(t, "orders:read orders:write", v.Refused[0].Scope)
				assert.Equal(t, fetched, v.Fetched)
				asksFor(t, v.Login, login, p.resource, "orders:read orders:write")
				assert.Empty(t, p.called.take())
			})
			t.Run("a client with a good token calls a tool", func(t *testing.T) {
				v := p.visit(t, "whoami", p.token())
				assert.Empty(t, v.Error)
				assert.Equal(t, "alice []; SDK: [] true", v.Said)
				assert.Empty(t, v.Refused)
				assert.Empty(t, v.Fetched)
				assert.Equal(t, []string{"whoami"}, p.called.take())
			})
			t.Run("a client with the scopes of that challenge calls the other tool", func(t *testing.T) {
				v := p.visit(t, "cancel_order", p.token(valetkeytest.Scopes("orders:read", "orders:write")))
				assert.Empty(t, v.Error)
				assert.Equal(t, "alice [orders:read orders:write]; SDK: [orders:read orders:write] true", v.Said)
				assert.Empty(t, v.Refused)
				assert.Equal(t, []string{"cancel_order"}, p.called.take())
			})
		})
	}
}

// asksFor holds an authorization request (RFC 6749, section 4.1.1) against what the server has told: for whom (RFC 8707,
// section 2.1), and the scope.
func asksFor(t *testing.T, got, endpoint, resource, scope string) {
	t.Helper()
	request, err := url.Parse(got)
	require.NoError(t, err)
	where, _, _ := strings.Cut(got, "?")
	assert.Equal(t, endpoint, where)
	assert.Equal(t, resource, request.Query().Get("resource"))
	assert.Equal(t, scope, request.Query().Get("scope"))
}
