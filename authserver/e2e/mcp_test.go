//go:build unix

package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/auth"
	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/modelcontextprotocol/go-sdk/oauthex"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/adapters/valetmcp"
	"github.com/valetkey/valetkey/authserver"
	"github.com/valetkey/valetkey/authserver/store"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/scopes"
)

// A workshop is an MCP server with the tool "whoami", which needs the scope orders:read, and its authorization server, where
// anyone may register and clients may have a metadata document.
type workshop struct {
	mcp    string // the URL of the MCP server
	issuer string
	log    lockedBuffer
	down   atomic.Bool // the host of the metadata documents

	mu        sync.Mutex
	documents map[string]any // by path, served by the host of the metadata documents
	host      string         // its URL
}

// document publishes the metadata document of an application and returns its URL, which is the client ID.
func (s *workshop) document(name string, members map[string]any) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := s.host + "/" + name
	members["client_id"] = id
	s.documents["/"+name] = members
	return id
}

func openWorkshop(t *testing.T, change func(*authserver.Config)) *workshop {
	t.Helper()
	s := &workshop{documents: map[string]any{}}
	documents := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.documents[r.URL.Path] == nil || s.down.Load() {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(s.documents[r.URL.Path])
	}))
	t.Cleanup(documents.Close)
	s.host = documents.URL

	api := httptest.NewUnstartedServer(nil)
	s.mcp = "http://" + api.Listener.Addr().String() + "/mcp"

	site := httptest.NewUnstartedServer(nil)
	s.issuer = "http://" + site.Listener.Addr().String()
	cfg := authserver.Config{
		Issuer: s.issuer,
		APIs: []authserver.API{{Audience: s.mcp, Name: "Orders", Scopes: []authserver.Scope{
			{Name: "orders:read", Description: "See your orders"}, {Name: "orders:write", Description: "Place orders for you"},
		}}},
		Users:           []authserver.User{{Name: "alice", Password: password}},
		Registration:    authserver.Registration{Open: true},
		ClientDocuments: authserver.ClientDocuments{Enabled: true, InsecureHTTP: documents.Client()},
		Logger:          slog.New(slog.NewTextHandler(&s.log, nil)),
	}
	cfg.Limits.Register.Burst, cfg.Limits.Register.Every = 1000, 1000
	cfg.Limits.ClientDocuments = cfg.Limits.Register
	if change != nil {
		change(&cfg)
	}
	server, err := authserver.New(t.Context(), cfg)
	require.NoError(t, err)
	site.Config.Handler = server
	site.Start()
	t.Cleanup(site.Close)

	keys, err := jwks.New(jwks.Config{Issuer: s.issuer, Audience: []string{s.mcp}})
	require.NoError(t, err)
	t.Cleanup(keys.Close)
	guard, err := middleware.New(middleware.Config{Verifier: keys, Resource: middleware.Resource{ID: s.mcp, AuthorizationServers: []string{s.issuer}}})
	require.NoError(t, err)
	tools := mcp.NewServer(&mcp.Implementation{Name: "orders", Version: "1"}, nil)
	tools.AddReceivingMiddleware(valetmcp.Attach)
	mcp.AddTool(tools, &mcp.Tool{Name: "whoami"}, func(ctx context.Context, _ *mcp.CallToolRequest, _ any) (*mcp.CallToolResult, any, error) {
		return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: valetkey.FromContext(ctx).Subject()}}}, nil, nil
	})
	guarded, err := valetmcp.New(valetmcp.Config{Guard: guard, Tools: valetmcp.Needs{"whoami": scopes.All("orders:read")}},
		mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return tools }, nil))
	require.NoError(t, err)
	mux := http.NewServeMux()
	mux.Handle("/mcp", guarded)
	mux.Handle(guard.Metadata())
	api.Config.Handler = mux
	api.Start()
	t.Cleanup(api.Close)
	return s
}

// whoami calls the tool with the client of the official SDK for Go and returns its answer.
func (s *workshop) whoami(t *testing.T, handler auth.OAuthHandler) string {
	t.Helper()
	transport := &mcp.StreamableClientTransport{Endpoint: s.mcp, MaxRetries: -1, OAuthHandler: handler}
	session, err := mcp.NewClient(&mcp.Implementation{Name: "c", Version: "1"}, nil).Connect(t.Context(), transport, nil)
	require.NoError(t, err)
	defer session.Close()
	result, err := session.CallTool(t.Context(), &mcp.CallToolParams{Name: "whoami"})
	require.NoError(t, err)
	require.Len(t, result.Content, 1)
	return result.Content[0].(*mcp.TextContent).Text
}

// fixed is an OAuthHandler that has a token and gets no other.
type fixed string

func (f fixed) TokenSource(context.Context) (oauth2.TokenSource, error) {
	return oauth2.StaticTokenSource(&oauth2.Token{AccessToken: string(f)}), nil
}

func (f fixed) Authorize(context.Context, *http.Request, *http.Response) error {
	return fmt.Errorf("the token was not accepted")
}

// The registrations and authorization requests of MCP clients, as the cited reports and sources show them. Each row ends with a
// call of a tool.
func TestMCPClients(t *testing.T) {
	const codeAndRefresh = `"grant_types":["authorization_code","refresh_token"],"response_types":["code"]`
	for _, c := range []struct {
		name     string
		register string   // the body of the registration; or
		document string   // the metadata document
		redirect string   // of the authorization request
		kept     []string // redirect URIs of the response, if not all were registered
		accept   []string // Config.PrivateUseSchemes
		scope    string   // of the authorization request; empty: none
	}{
		{
			// github.com/microsoft/vscode issue 278512 (the redirect URIs, and another port if 33418 is taken), pull request 252226
			// (native, although two URIs are https), src/vs/base/common/oauth.ts (the other members).
			name: "VS Code, registered",
			register: `{"client_name":"Visual Studio Code","client_uri":"https://code.visualstudio.com","application_type":"native",
				"grant_types":["authorization_code","refresh_token","urn:ietf:params:oauth:grant-type:device_code"],"response_types":["code"],
				"redirect_uris":["https://insiders.vscode.dev/redirect","https://vscode.dev/redirect","http://127.0.0.1/","http://127.0.0.1:33418/"],
				"token_endpoint_auth_method":"none","scope":"orders:read orders:write"}`,
			redirect: "http://127.0.0.1:59656/", scope: "orders:read orders:write",
		},
		{
			// vscode.dev/oauth/client-metadata.json, preferred since 1.106 (github.com/elmohq/elmo pull request 684).
			name: "VS Code, with a document",
			document: `{"client_name":"Visual Studio Code","client_uri":"https://vscode.dev/product","application_type":"native",
				"grant_types":["authorization_code","refresh_token","urn:ietf:params:oauth:grant-type:device_code"],"response_types":["code"],
				"redirect_uris":["http://127.0.0.1:33418/","https://vscode.dev/redirect"],"token_endpoint_auth_method":"none"}`,
			redirect: "https://vscode.dev/redirect", scope: "orders:read",
		},
		{
			// github.com/erp-mafia/accounted pull request 2225: three redirect URIs in one request.
			name: "Cursor",
			register: `{"client_name":"Cursor","token_endpoint_auth_method":"none",` + codeAndRefresh + `,"redirect_uris":[
				"cursor://anysphere.cursor-mcp/oauth/callback","https://www.cursor.com/agents/mcp/oauth/callback","http://localhost:8787/callback"]}`,
			redirect: "http://localhost:8787/callback",
			kept:     []string{"https://www.cursor.com/agents/mcp/oauth/callback", "http://localhost:8787/callback"},
		},
		{
			// github.com/better-auth/better-auth issue 10946: its own scheme alone, as a web application.
			name: "Cursor, with its own scheme",
			register: `{"application_type":"web","redirect_uris":["cursor://anysphere.cursor-mcp/oauth/callback"],"token_endpoint_auth_method":"none",
				` + codeAndRefresh + `}`,
			redirect: "cursor://anysphere.cursor-mcp/oauth/callback", accept: []string{"cursor"},
		},
		{
			// github.com/zed-industries/zed issue 53784: no refresh_token.
			name:     "Zed, registered",
			register: `{"client_name":"Zed","redirect_uris":["http://127.0.0.1:27523/callback"],"grant_types":["authorization_code"],"response_types":["code"],"token_endpoint_auth_method":"none"}`,
			redirect: "http://127.0.0.1:27523/callback",
		},
		{
			// github.com/zed-industries/zed issue 56210: a port that the document does not name.
			name: "Zed, with a document",
			document: `{"client_name":"Zed","client_uri":"https://zed.dev","redirect_uris":["http://127.0.0.1/callback"],
				"grant_types":["authorization_code"],"response_types":["code"],"token_endpoint_auth_method":"none"}`,
			redirect: "http://127.0.0.1:41234/callback",
		},
		{
			// github.com/elmohq/elmo pull request 684; github.com/appstrate/appstrate issue 1267: no scope in the registration, and
			// offline_access beside those of the resource in the authorization request.
			name: "Claude Code, registered",
			register: `{"client_name":"Claude Code","application_type":"native","redirect_uris":["http://localhost:3118/callback"],
				` + codeAndRefresh + `,"token_endpoint_auth_method":"none"}`,
			redirect: "http://localhost:3118/callback", scope: "orders:read offline_access",
		},
		{
			// github.com/anthropics/claude-code issue 64705: neither an application_type nor a port.
			name: "Claude Code, with a document",
			document: `{"client_name":"Claude Code","client_uri":"https://claude.ai","redirect_uris":["http://localhost/callback","http://127.0.0.1/callback"],
				` + codeAndRefresh + `,"token_endpoint_auth_method":"none"}`,
			redirect: "http://localhost:55611/callback", scope: "orders:read",
		},
		{
			// github.com/anthropics/claude-code issue 5826, github.com/anthropics/claude-ai-mcp issue 1043: a secret in the form. Issue
			// 453 of the latter: a space before the scopes.
			name: "Claude on the web and on the desktop",
			register: `{"client_name":"Claude","redirect_uris":["https://claude.ai/api/mcp/auth_callback"],"token_endpoint_auth_method":"client_secret_post",
				` + codeAndRefresh + `,"scope":"orders:read claudeai"}`,
			redirect: "https://claude.ai/api/mcp/auth_callback", scope: " orders:read offline_access",
		},
		{
			// github.com/kunickiaj/codemem pull request 1286: a path per connector. github.com/garrytan/gbrain pull request 894: none.
			name: "ChatGPT",
			register: `{"client_name":"ChatGPT","redirect_uris":["https://chatgpt.com/connector/oauth/OUbdUMlL15Ct"],` + codeAndRefresh + `,
				"token_endpoint_auth_method":"none"}`,
			redirect: "https://chatgpt.com/connector/oauth/OUbdUMlL15Ct", scope: "orders:read orders:write",
		},
		{
			// The source of mcp-remote 0.15.1: its name for Claude Desktop and others, and the application type that the SDK derives.
			name: "mcp-remote",
			register: `{"redirect_uris":["http://localhost:3334/oauth/callback"],"token_endpoint_auth_method":"none",` + codeAndRefresh + `,
				"client_name":"MCP CLI Proxy","client_uri":"https://github.com/modelcontextprotocol/mcp-cli","application_type":"native",
				"software_id":"2e6dc280-f3c3-4e01-99a7-8181dbd1d23d","software_version":"0.15.1","scope":"openid email profile orders:read"}`,
			redirect: "http://localhost:3334/oauth/callback", scope: "openid email profile orders:read",
		},
		{
			// github.com/datalayer/mcp-compose, references/oauth/docs/INSPECTOR.md; github.com/curityio/mcp-authorization-secured-api.
			name: "MCP Inspector",
			register: `{"redirect_uris":["http://localhost:6274/oauth/callback","http://localhost:6274/oauth/callback/debug"],"token_endpoint_auth_method":"none",
				` + codeAndRefresh + `,"client_name":"MCP Inspector","client_uri":"https://github.com/modelcontextprotocol/inspector","scope":"orders:read orders:write"}`,
			redirect: "http://localhost:6274/oauth/callback/debug", scope: "orders:read orders:write",
		},
		{
			// github.com/elmohq/elmo pull request 684: an ephemeral port and another path.
			name: "Codex",
			register: `{"client_name":"Codex","application_type":"native","redirect_uris":["http://127.0.0.1:37819/callback/xyz"],
				` + codeAndRefresh + `,"token_endpoint_auth_method":"none"}`,
			redirect: "http://127.0.0.1:37819/callback/xyz",
		},
		{
			// github.com/elmohq/elmo pull request 684: no application_type, loopback only.
			name: "OpenCode",
			register: `{"client_name":"OpenCode","client_uri":"https://opencode.ai","redirect_uris":["http://127.0.0.1:19876/mcp/oauth/callback"],
				` + codeAndRefresh + `,"token_endpoint_auth_method":"none"}`,
			redirect: "http://127.0.0.1:19876/mcp/oauth/callback",
		},
	} {
		t.Run(c.name, func(t *testing.T) { // one after the other: each needs the processor, and a fetch of a document has a limit
			s := openWorkshop(t, func(cfg *authserver.Config) { cfg.PrivateUseSchemes = c.accept })
			id, secret, renews := "", "", strings.Contains(c.register+c.document, `"refresh_token"`)
			if c.document != "" {
				var members map[string]any
				require.NoError(t, json.Unmarshal([]byte(c.document), &members))
				id = s.document("client.json", members)
			} else {
				id, secret = s.register(t, c.register, c.kept)
			}

			verifier := oauth2.GenerateVerifier()
			request := url.Values{
				"response_type": {"code"}, "client_id": {id}, "redirect_uri": {c.redirect}, "state": {"a state"}, "resource": {s.mcp},
				"code_challenge": {oauth2.S256ChallengeFromVerifier(verifier)}, "code_challenge_method": {"S256"},
			}
			if c.scope != "" {
				request.Set("scope", c.scope)
			}
			at, err := newBrowser(s.issuer).open(s.issuer + "/oauth2/authorize?" + request.Encode())
			require.NoError(t, err)
			query := at.Query()
			at.RawQuery = ""
			require.Equal(t, c.redirect, at.String(), query)
			require.Equal(t, []string{"a state", s.issuer}, []string{query.Get("state"), query.Get("iss")}, query)

			a := s.token(t, id, secret, url.Values{
				"grant_type": {"authorization_code"}, "code": {query.Get("code")}, "redirect_uri": {c.redirect}, "code_verifier": {verifier}, "resource": {s.mcp},
			})
			assert.Equal(t, "customer:alice", s.whoami(t, fixed(a.AccessToken)))
			require.Equal(t, renews, a.RefreshToken != "")
			if renews {
				a = s.token(t, id, secret, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {a.RefreshToken}, "resource": {s.mcp}})
				assert.Equal(t, "customer:alice", s.whoami(t, fixed(a.AccessToken)))
			}
		})
	}
	t.Run("a client that asks only for scopes of others is refused with the reason", func(t *testing.T) {
		// github.com/anthropics/claude-ai-mcp issue 124: scope=claudeai, where the metadata names no scopes.
		s := openWorkshop(t, nil)
		resp, err := http.Post(s.issuer+"/oauth2/register", "application/json", strings.NewReader(`{"redirect_uris":["https://claude.ai/api/mcp/auth_callback"],"scope":"claudeai"}`))
		require.NoError(t, err)
		defer resp.Body.Close()
		var refusal map[string]string
		require.NoError(t, json.NewDecoder(resp.Body).Decode(&refusal))
		assert.Equal(t, 400, resp.StatusCode)
		assert.Equal(t, map[string]string{"error": "invalid_client_metadata", "error_description": "scope: has none that can be registered here"}, refusal)
	})
}

// register registers a client and returns its ID and secret. The response must have the redirect URIs in kept, or else those in
// the body, and a warning if they differ.
func (s *workshop) register(t *testing.T, body string, kept []string) (id, secret string) {
	t.Helper()
	var sent, got struct {
		ID        string   `json:"client_id"`
		Secret    string   `json:"client_secret"`
		Redirects []string `json:"redirect_uris"`
		Warnings  []string `json:"warnings"`
	}
	require.NoError(t, json.Unmarshal([]byte(body), &sent))
	resp, err := http.Post(s.issuer+"/oauth2/register", "application/json", strings.NewReader(body))
	require.NoError(t, err)
	defer resp.Body.Close()
	text := new(bytes.Buffer)
	text.ReadFrom(resp.Body)
	require.Equal(t, 201, resp.StatusCode, text)
	require.NoError(t, json.Unmarshal(text.Bytes(), &got))
	if kept == nil {
		kept = sent.Redirects
	} else {
		require.NotEmpty(t, got.Warnings)
	}
	require.Equal(t, kept, got.Redirects)
	return got.ID, got.Secret
}

// token sends a token request with the secret in the form, as MCP clients do.
func (s *workshop) token(t *testing.T, id, secret string, form url.Values) (a answer) {
	t.Helper()
	form.Set("client_id", id)
	if secret != "" {
		form.Set("client_secret", secret)
	}
	resp, err := http.PostForm(s.issuer+"/oauth2/token", form)
	require.NoError(t, err)
	defer resp.Body.Close()
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&a))
	require.Equal(t, 200, resp.StatusCode, a.Error)
	return a
}

// The official SDK for Go finds the authorization server from a refusal, identifies itself by its document instead of registering,
// and calls a tool.
func TestMCPClientWithADocument(t *testing.T) {
	s := openWorkshop(t, func(cfg *authserver.Config) { cfg.Registration.Open = false })
	const redirect = "http://127.0.0.1:8912/callback"
	id := s.document("go-client.json", map[string]any{
		"client_name": "A client in Go", "redirect_uris": []string{redirect}, "grant_types": []string{"authorization_code", "refresh_token"},
		"response_types": []string{"code"}, "token_endpoint_auth_method": "none",
	})
	asked := ""
	handler, err := auth.NewAuthorizationCodeHandler(&auth.AuthorizationCodeHandlerConfig{
		ClientIDMetadataDocumentConfig: &auth.ClientIDMetadataDocumentConfig{URL: id},
		RedirectURL:                    redirect,
		RequestRefreshToken:            true,
		AuthorizationCodeFetcher: func(_ context.Context, args *auth.AuthorizationArgs) (*auth.AuthorizationResult, error) {
			asked = args.URL
			at, err := newBrowser(s.issuer).open(args.URL)
			if err != nil {
				return nil, err
			}
			return &auth.AuthorizationResult{Code: at.Query().Get("code"), State: at.Query().Get("state"), Iss: at.Query().Get("iss")}, nil
		},
	})
	require.NoError(t, err)
	assert.Equal(t, "customer:alice", s.whoami(t, handler))
	request, err := url.Parse(asked)
	require.NoError(t, err)
	assert.Equal(t, id, request.Query().Get("client_id"))
	assert.Equal(t, s.mcp, request.Query().Get("resource"))
	assert.Contains(t, s.log.String(), "client="+id)

	t.Run("and not without it", func(t *testing.T) {
		handler, err := auth.NewAuthorizationCodeHandler(&auth.AuthorizationCodeHandlerConfig{
			DynamicClientRegistrationConfig: &auth.DynamicClientRegistrationConfig{Metadata: &oauthex.ClientRegistrationMetadata{RedirectURIs: []string{redirect}}},
			AuthorizationCodeFetcher: func(context.Context, *auth.AuthorizationArgs) (*auth.AuthorizationResult, error) {
				t.Error("the server offers no registration")
				return nil, context.Canceled
			},
		})
		require.NoError(t, err)
		transport := &mcp.StreamableClientTransport{Endpoint: s.mcp, MaxRetries: -1, OAuthHandler: handler}
		_, err = mcp.NewClient(&mcp.Implementation{Name: "c", Version: "1"}, nil).Connect(t.Context(), transport, nil)
		assert.Error(t, err)
	})
}

// What a user has allowed a client remains in the user's list, and can be revoked, when the document of the client cannot be
// fetched: the server holds documents in memory only.
func TestRevokeWithoutTheDocument(t *testing.T) {
	records := store.NewMemory(0)
	shared := func(cfg *authserver.Config) { cfg.Store, cfg.InsecureUnsealed = records, true }
	s := openWorkshop(t, shared)
	const redirect = "http://127.0.0.1:8914/callback"
	id := s.document("client.json", map[string]any{"client_name": "A client", "redirect_uris": []string{redirect}})
	request := url.Values{
		"response_type": {"code"}, "client_id": {id}, "redirect_uri": {redirect}, "code_challenge": {oauth2.S256ChallengeFromVerifier(oauth2.GenerateVerifier())},
		"code_challenge_method": {"S256"}, "resource": {s.mcp},
	}
	at, err := newBrowser(s.issuer).open(s.issuer + "/oauth2/authorize?" + request.Encode())
	require.NoError(t, err)
	require.NotEmpty(t, at.Query().Get("code"), at)
	s.down.Store(true)

	next := openWorkshop(t, shared) // another process with the same store
	b := newBrowser(next.issuer)
	_, err = b.open(next.issuer + "/account/applications")
	require.NoError(t, err)
	require.Contains(t, text(b.page), id, "its name is not known")
	_, err = b.open(next.issuer + "/account/applications/revoke?" + url.Values{"client_id": {id}}.Encode())
	require.NoError(t, err)
	require.NotNil(t, b.form("Revoke the access"), text(b.page))
	require.NoError(t, b.press("Revoke the access", nil))
	_, err = b.open(next.issuer + "/account/applications")
	require.NoError(t, err)
	assert.NotContains(t, text(b.page), id)
	assert.NotContains(t, next.log.String(), "client document refused", "nothing was fetched")
}
