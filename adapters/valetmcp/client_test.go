package valetmcp_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/auth"
	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/modelcontextprotocol/go-sdk/oauthex"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/valetkey/valetkey/valetkeytest"
)

// A login is the OAuth side of a client: from a refusal alone it finds the metadata and the issuer, and gets a token with
// the scopes that the challenge names beside those it has. In place of a browser the issuer mints.
type login struct {
	p *place

	mu     sync.Mutex
	scopes []string
	token  *oauth2.Token
	asked  []string // the status and scope of each refusal
	found  *oauthex.ProtectedResourceMetadata
}

var _ auth.OAuthHandler = (*login)(nil)

func (l *login) TokenSource(context.Context) (oauth2.TokenSource, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.token == nil {
		return nil, nil
	}
	return oauth2.StaticTokenSource(l.token), nil
}

func (l *login) Authorize(ctx context.Context, r *http.Request, refusal *http.Response) error {
	defer refusal.Body.Close()
	challenges, err := oauthex.ParseWWWAuthenticate(refusal.Header.Values("WWW-Authenticate"))
	if err != nil {
		return err
	}
	if len(challenges) != 1 {
		return fmt.Errorf("%d challenges", len(challenges))
	}
	params := challenges[0].Params
	// RFC 9728, section 3.3: the client holds the resource in it against the URL that it asked.
	found, err := oauthex.GetProtectedResourceMetadata(ctx, params["resource_metadata"], r.URL.String(), http.DefaultClient)
	if err != nil {
		return err
	}
	if !slices.Equal(found.AuthorizationServers, []string{l.p.iss.URL}) {
		return fmt.Errorf("found the authorization servers %q", found.AuthorizationServers)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked = append(l.asked, fmt.Sprint(refusal.StatusCode, params["error"], " ", params["scope"]))
	l.found = found
	l.scopes = slices.Concat(l.scopes, strings.Fields(params["scope"]))
	l.token = &oauth2.Token{AccessToken: l.p.iss.Token(valetkeytest.Audience(found.Resource), valetkeytest.Scopes(l.scopes...))}
	return nil
}

func (p *place) connect(t testing.TB, l *login) *mcp.ClientSession {
	t.Helper()
	transport := &mcp.StreamableClientTransport{Endpoint: p.resource, MaxRetries: -1}
	if l != nil {
		transport.OAuthHandler = l
	}
	session, err := mcp.NewClient(&mcp.Implementation{Name: "c", Version: "1"}, nil).Connect(t.Context(), transport, nil)
	require.NoError(t, err)
	t.Cleanup(func() { session.Close() })
	return session
}

func callTool(t testing.TB, s *mcp.ClientSession, name string) (string, error) {
	t.Helper()
	result, err := s.CallTool(t.Context(), &mcp.CallToolParams{Name: name})
	if err != nil {
		return "", err
	}
	require.Len(t, result.Content, 1)
	return result.Content[0].(*mcp.TextContent).Text, nil
}

func TestClient(t *testing.T) {
	for name, mode := range map[string]func(*settings){
		"with sessions and streams": func(*settings) {},
		"with sessions":             stateful,
		"without sessions":          stateless,
	} {
		t.Run("MCP-05, MCP-06 a client steps up, "+name, func(t *testing.T) {
			p := open(t, mode, func(s *settings) { s.config.Methods = nil })
			l := &login{p: p}
			session := p.connect(t, l)
			got, err := callTool(t, session, "whoami")
			require.NoError(t, err)
			assert.Equal(t, "alice []; SDK: [] true", got)
			got, err = callTool(t, session, "cancel_order")
			require.NoError(t, err)
			assert.Equal(t, "alice [orders:read orders:write]; SDK: [orders:read orders:write] true", got)
			_, err = callTool(t, session, "forgotten")
			require.ErrorContains(t, err, "Forbidden")
			assert.Equal(t, []string{"401 ", "403insufficient_scope orders:read orders:write", "403insufficient_scope "}, l.asked)
			assert.Equal(t, []string{"whoami", "cancel_order"}, p.called.take())
			t.Run("MCP-01, PRM-12 the metadata names the scopes of all tools", func(t *testing.T) {
				assert.Equal(t, p.resource, l.found.Resource)
				assert.Equal(t, []string{p.iss.URL}, l.found.AuthorizationServers)
				assert.Equal(t, []string{"admin", "export", "orders:read", "orders:write"}, l.found.ScopesSupported)
			})
		})
	}
	t.Run("an open tool needs no token", func(t *testing.T) {
		p := open(t, stateless)
		session := p.connect(t, nil)
		got, err := callTool(t, session, "status")
		require.NoError(t, err)
		assert.Equal(t, "nobody", got)
		_, err = callTool(t, session, "whoami")
		require.ErrorContains(t, err, "Unauthorized")
	})
	t.Run("MCP-14, PRM-14 the metadata of a server at a path is where the challenge names it, and needs no token", func(t *testing.T) {
		p := open(t)
		got := p.send(t, "POST", "", initialize)
		base := strings.TrimSuffix(p.resource, "/mcp")
		where := valetkeytest.Challenge(t, got.Header, "Bearer")["resource_metadata"]
		require.Equal(t, base+"/.well-known/oauth-protected-resource/mcp", where)
		metadata, err := oauthex.GetProtectedResourceMetadata(t.Context(), where, p.resource, http.DefaultClient)
		require.NoError(t, err)
		assert.Equal(t, []string{p.iss.URL}, metadata.AuthorizationServers)
	})
}
