package valetmcp_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/auth"
	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/adapters/valetmcp"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/scopes"
	"github.com/valetkey/valetkey/valetkeytest"
)

// tools leaves out the tool forgotten, which the server has.
var tools = valetmcp.Needs{
	"whoami":        valetkey.AnyToken,
	"list_orders":   scopes.All("orders:read").Matching(scopes.Hierarchic),
	"cancel_order":  scopes.All("orders:read", "orders:write"),
	"export_orders": valetkey.AllOf{scopes.All("orders:read"), scopes.Any("export", "admin")},
	"status":        valetkey.Public,
}

var methods = valetmcp.Needs{
	"resources/list":  scopes.All("files:read"),
	"server/discover": valetkey.Public,
	"tools/list":      valetkey.Optional,
}

const outage = "outage" // a token that the verifier fails to look at

// A place is a real server of the SDK on loopback, guarded, and its issuer.
type place struct {
	iss      *valetkeytest.Issuer
	resource string // the URL of the server
	guard    *middleware.Guard
	log      *lockedBuffer
	called   *called
}

// called are the tools that were called, in order.
type called struct {
	sync.Mutex
	names []string
}

func (c *called) take() []string {
	c.Lock()
	defer c.Unlock()
	names := c.names
	c.names = nil
	return names
}

type settings struct {
	stream mcp.StreamableHTTPOptions
	config valetmcp.Config
	guard  middleware.Config
	bare   bool // without Attach
}

func open(t testing.TB, change ...func(*settings)) *place {
	t.Helper()
	p := &place{iss: valetkeytest.NewIssuer(t), log: &lockedBuffer{}, called: &called{}}
	web := httptest.NewUnstartedServer(nil)
	p.resource = "http://" + web.Listener.Addr().String() + "/mcp"
	keys, err := jwks.New(jwks.Config{Issuer: p.iss.URL, Audience: []string{p.resource}, Client: p.iss.Client(), Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	t.Cleanup(keys.Close)
	require.NoError(t, keys.Ready(t.Context())) // a request would wait for two seconds only
	s := settings{
		guard: middleware.Config{
			Verifier: valetkey.VerifierFunc(func(ctx context.Context, raw string) (*valetkey.Token, error) {
				if raw == outage {
					return nil, &valetkey.Unavailable{RetryAfter: 7 * time.Second, Err: errors.New("dial tcp 10.0.0.7: secret detail")}
				}
				return keys.Verify(ctx, raw)
			}),
			Resource: middleware.Resource{ID: p.resource, AuthorizationServers: []string{p.iss.URL}},
			Logger:   slog.New(slog.NewTextHandler(p.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		},
		config: valetmcp.Config{Tools: tools, Methods: methods},
	}
	for _, f := range change {
		f(&s)
	}
	p.guard, err = middleware.New(s.guard)
	require.NoError(t, err)
	s.config.Guard = p.guard
	server := newServer(p.called)
	if !s.bare {
		server.AddReceivingMiddleware(valetmcp.Attach)
	}
	handler, err := valetmcp.New(s.config, mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return server }, &s.stream))
	require.NoError(t, err)
	mux := http.NewServeMux()
	mux.Handle("/mcp", handler)
	mux.Handle(p.guard.Metadata())
	web.Config.Handler = mux
	web.Start()
	t.Cleanup(web.Close)
	return p
}

func stateless(s *settings) { s.stream.Stateless, s.stream.JSONResponse = true, true }
func stateful(s *settings)  { s.stream.JSONResponse = true }

// newServer returns a server with tools that return their caller.
func newServer(called *called) *mcp.Server {
	server := mcp.NewServer(&mcp.Implementation{Name: "orders", Version: "1"}, nil)
	for _, name := range []string{"whoami", "list_orders", "cancel_order", "export_orders", "status", "forgotten"} {
		mcp.AddTool(server, &mcp.Tool{Name: name}, func(ctx context.Context, r *mcp.CallToolRequest, _ any) (*mcp.CallToolResult, any, error) {
			called.Lock()
			called.names = append(called.names, name)
			called.Unlock()
			return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: who(ctx, r.Extra)}}}, nil, nil
		})
	}
	return server
}

// who returns the token in the context, then the TokenInfo of the SDK, then whether a header with a token is left.
func who(ctx context.Context, extra *mcp.RequestExtra) string {
	var b strings.Builder
	if t := valetkey.FromContext(ctx); t != nil {
		fmt.Fprintf(&b, "%s [%s]", t.Subject(), t.Scopes())
	} else {
		b.WriteString("nobody")
	}
	if extra != nil && extra.TokenInfo != nil {
		info := extra.TokenInfo
		fmt.Fprintf(&b, "; SDK: %v %v", info.Scopes, info.Expiration.Equal(valetmcp.Token(info).Expiry()))
	}
	if extra != nil && extra.Header.Get("Authorization")+extra.Header.Get("Cf-Access-Jwt-Assertion") != "" {
		b.WriteString("; token passed on")
	}
	return b.String()
}

// token mints one for the place.
func (p *place) token(opts ...valetkeytest.Option) string {
	return p.iss.Token(append([]valetkeytest.Option{valetkeytest.Audience(p.resource)}, opts...)...)
}

// An answer is a response with its body read.
type answer struct {
	*http.Response
	body string
}

func (p *place) send(t testing.TB, method, token, body string, header ...string) answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // a stream that should have been refused does not end
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, p.resource, strings.NewReader(body))
	require.NoError(t, err)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", "application/json, text/event-stream")
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	for _, line := range header {
		name, value, _ := strings.Cut(line, ": ")
		r.Header.Add(name, value)
	}
	response, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return answer{response, string(text)}
}

func call(tool string) string {
	return fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":%q,"arguments":{}}}`, tool)
}

const (
	initialize = `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"c","version":"1"}}}`
	ping       = `{"jsonrpc":"2.0","id":1,"method":"ping"}`
)

func TestConfiguration(t *testing.T) {
	guard := func(res middleware.Resource) *middleware.Guard {
		g, err := middleware.New(middleware.Config{Verifier: valetkey.First(), Resource: res})
		require.NoError(t, err)
		return g
	}
	described := guard(middleware.Resource{ID: "https://api.example.com/mcp", AuthorizationServers: []string{"https://as.example.com"}})
	next := http.NotFoundHandler()
	for _, c := range []struct {
		name    string
		cfg     valetmcp.Config
		next    http.Handler
		mistake string
	}{
		{"no guard", valetmcp.Config{}, next, "Guard: required"},
		{"MCP-01 a guard without a resource", valetmcp.Config{Guard: guard(middleware.Resource{})}, next, "Guard: its Resource"},
		{"MCP-01, PRM-08 a resource without an authorization server", valetmcp.Config{Guard: guard(middleware.Resource{ID: "https://api.example.com"})}, next, "Guard: its Resource"},
		{"no handler", valetmcp.Config{Guard: described}, nil, "next: required"},
		{"a negative bound", valetmcp.Config{Guard: described, MaxBody: -1}, next, "MaxBody: -1"},
		{"a tool that needs nil", valetmcp.Config{Guard: described, Tools: valetmcp.Needs{"a": nil}}, next, `Tools["a"]: nil`},
		{"a method that needs nil", valetmcp.Config{Guard: described, Methods: valetmcp.Needs{"a": nil}}, next, `Methods["a"]: nil`},
		{"a tool that needs an unknown word", valetmcp.Config{Guard: described, Tools: valetmcp.Needs{"a": valetkey.Openness("admin")}}, next, `Tools["a"]: "admin" is not an Openness`},
		{"a method that needs an unknown word", valetmcp.Config{Guard: described, Methods: valetmcp.Needs{"a": valetkey.Openness("")}}, next, `Methods["a"]: "" is not an Openness`},
		{"tools/call as a method", valetmcp.Config{Guard: described, Methods: valetmcp.Needs{"tools/call": valetkey.AnyToken}}, next, `Methods["tools/call"]`},
		{"a session without a token", valetmcp.Config{Guard: described, Methods: valetmcp.Needs{"initialize": valetkey.Optional}}, next, `Methods["initialize"]: optional`},
		{"PRM-21 a tool that needs offline_access", valetmcp.Config{Guard: described, Tools: valetmcp.Needs{"a": valetkey.AllOf{scopes.All("b"), scopes.Any("c", "offline_access")}}}, next, `Tools["a"]: names offline_access`},
		{"PRM-21 metadata with offline_access", valetmcp.Config{Guard: guard(middleware.Resource{ID: "https://api.example.com", AuthorizationServers: []string{"https://as.example.com"}, Scopes: []string{"offline_access"}})}, next, "Guard: its metadata names offline_access"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := valetmcp.New(c.cfg, c.next)
			require.ErrorContains(t, err, c.mistake)
		})
	}
	t.Run("all mistakes at once", func(t *testing.T) {
		_, err := valetmcp.New(valetmcp.Config{MaxBody: -1, Tools: valetmcp.Needs{"a": nil}}, nil)
		var fields []string
		for _, m := range valetkey.ConfigErrors(err) {
			fields = append(fields, m.Field)
			assert.ErrorContains(t, err, "valetmcp: "+m.Error())
		}
		assert.Equal(t, []string{"next", "Guard", "MaxBody", `Tools["a"]`}, fields)
	})
	t.Run("a table is copied", func(t *testing.T) {
		table := valetmcp.Needs{"a": scopes.All("x")}
		h, err := valetmcp.New(valetmcp.Config{Guard: described, Tools: table}, next)
		require.NoError(t, err)
		table["a"] = valetkey.Public
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("POST", "/mcp", strings.NewReader(call("a"))))
		assert.Equal(t, 401, w.Code)
	})
}

func TestRefusals(t *testing.T) {
	p := open(t, stateless)
	reader := p.token(valetkeytest.Scopes("orders:read"))
	long := `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"cancel_order","arguments":{"note":"` + strings.Repeat("x", 70<<10) + `"}}}`
	for _, c := range []struct {
		name        string
		token, body string
		header      []string
		status      int
		code, scope string
	}{
		{"MCP-02, MCP-11 no credentials: the scope of the tool, and no error", "", call("cancel_order"), nil, 401, "", "orders:read orders:write"},
		{"no credentials for a method with a need", "", `{"jsonrpc":"2.0","id":1,"method":"resources/list"}`, nil, 401, "", "files:read"},
		{"no credentials for a method without", "", initialize, nil, 401, "", ""},
		{"no credentials for a tool that is not listed", "", call("forgotten"), nil, 401, "", ""},
		{"no credentials and no JSON", "", "{", nil, 401, "", ""},
		{"no credentials and more than is read of a stranger", "", long, nil, 401, "", ""},
		{"MCP-09 a token in the query is none", "", call("whoami"), []string{"?: access_token=" + reader}, 401, "", ""},
		{"MCP-04, MCP-11 an expired token", p.token(valetkeytest.Expired()), call("cancel_order"), nil, 401, "invalid_token", ""},
		{"MCP-04 a token of an unknown key", p.token(valetkeytest.UnknownKey()), call("whoami"), nil, 401, "invalid_token", ""},
		{"MCP-03, PRM-20 a token for another server of the same issuer", p.iss.Token(valetkeytest.Audience(strings.Replace(p.resource, "/mcp", "/other", 1))), call("whoami"), nil, 401, "invalid_token", ""},
		{"a bad token for an open tool", p.token(valetkeytest.TamperedSignature()), call("status"), nil, 401, "invalid_token", ""},
		{"a bad token with a malformed body is first of all a bad token", p.token(valetkeytest.Expired()), "{", nil, 401, "invalid_token", ""},
		{"MCP-05, MCP-06 a tool that needs more: all scopes of the operation", reader, call("cancel_order"), nil, 403, "insufficient_scope", "orders:read orders:write"},
		{"MCP-06 needs together", p.token(valetkeytest.Scopes("admin")), call("export_orders"), nil, 403, "insufficient_scope", "export orders:read"},
		{"a method that needs a scope", reader, `{"jsonrpc":"2.0","id":1,"method":"resources/list"}`, nil, 403, "insufficient_scope", "files:read"},
		{"a tool that is not listed", reader, call("forgotten"), nil, 403, "insufficient_scope", ""},
		{"a tool in another letter case", reader, call("Whoami"), nil, 403, "insufficient_scope", ""},
		{"a call that wants no answer", reader, `{"jsonrpc":"2.0","method":"tools/call","params":{"name":"cancel_order"}}`, nil, 403, "insufficient_scope", "orders:read orders:write"},
		{"a name with escapes", reader, `{"jsonrpc":"2.0","id":1,"method":"tools\/c\u0061ll","params":{"n\u0061me":"c\u0061ncel_order"}}`, nil, 403, "insufficient_scope", "orders:read orders:write"},
		{"a header names another tool than the body", reader, call("cancel_order"), []string{"Mcp-Method: tools/call", "Mcp-Name: whoami"}, 403, "insufficient_scope", "orders:read orders:write"},
		{"a batch needs what its messages need together", p.token(), "[" + ping + "," + call("list_orders") + "," + call("cancel_order") + "]", nil, 403, "insufficient_scope", "orders:read orders:write"},
		{"a batch with one tool that is not listed", reader, "[" + call("whoami") + "," + call("forgotten") + "]", nil, 403, "insufficient_scope", ""},
		{"MCP-13 two Authorization headers", reader, call("whoami"), []string{"Authorization: Bearer " + reader}, 400, "invalid_request", ""},
		{"MCP-13 no JSON", reader, `{"jsonrpc":"2.0"`, nil, 400, "invalid_request", ""},
		{"MCP-13 nothing", reader, "", nil, 400, "invalid_request", ""},
		{"neither object nor array", reader, `"tools/call"`, nil, 400, "invalid_request", ""},
		{"more after the message", reader, ping + call("cancel_order"), nil, 400, "invalid_request", ""},
		{"bytes that are not UTF-8", reader, strings.Replace(call("whoami"), "whoami", "who\xffami", 1), nil, 400, "invalid_request", ""},
		{"an empty batch", reader, `[]`, nil, 400, "invalid_request", ""},
		{"a batch in a batch", reader, "[[" + call("cancel_order") + "]]", nil, 400, "invalid_request", ""},
		{"a batch of too many", reader, "[" + strings.Repeat(ping+",", 100) + ping + "]", nil, 400, "invalid_request", ""},
		{"the method twice", reader, `{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call","params":{"name":"cancel_order"}}`, nil, 400, "invalid_request", ""},
		{"the method twice, once with an escape", reader, `{"jsonrpc":"2.0","id":1,"method":"ping","m\u0065thod":"tools/call","params":{"name":"cancel_order"}}`, nil, 400, "invalid_request", ""},
		{"the method in another letter case", reader, `{"jsonrpc":"2.0","id":1,"Method":"tools/call","result":{},"params":{"name":"cancel_order"}}`, nil, 400, "invalid_request", ""},
		{"no method but one in another letter case", reader, `{"jsonrpc":"2.0","id":1,"Method":"ping"}`, nil, 400, "invalid_request", ""},
		{"no name but one in another letter case", reader, `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"Name":"whoami"}}`, nil, 400, "invalid_request", ""},
		{"the params twice", reader, `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"whoami"},"Params":{"name":"cancel_order"}}`, nil, 400, "invalid_request", ""},
		{"the params with a long s", reader, `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"whoami"},"paramſ":{"name":"cancel_order"}}`, nil, 400, "invalid_request", ""},
		{"the name twice", reader, `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"whoami","name":"cancel_order"}}`, nil, 400, "invalid_request", ""},
		{"a request that is a response too", reader, `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"whoami"},"result":{}}`, nil, 400, "invalid_request", ""},
		{"a message that is nothing", reader, `{"jsonrpc":"2.0","id":1}`, nil, 400, "invalid_request", ""},
		{"a method that is not a string", reader, `{"jsonrpc":"2.0","id":1,"method":null}`, nil, 400, "invalid_request", ""},
		{"a call without params", reader, `{"jsonrpc":"2.0","id":1,"method":"tools/call"}`, nil, 400, "invalid_request", ""},
		{"a call with a list of params", reader, `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":["whoami"]}`, nil, 400, "invalid_request", ""},
		{"a call of no tool", reader, `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":null}}`, nil, 400, "invalid_request", ""},
		{"a failure of ours", outage, call("whoami"), nil, 503, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			target := *p
			header := c.header
			if len(header) > 0 && strings.HasPrefix(header[0], "?: ") {
				target.resource += "?" + header[0][3:]
				header = nil
			}
			got := target.send(t, "POST", c.token, c.body, header...)
			require.Equal(t, c.status, got.StatusCode, got.body)
			assert.Empty(t, p.called.take())
			assert.NotContains(t, got.body, "secret detail")
			if c.status == 503 {
				assert.Equal(t, "7", got.Header.Get("Retry-After"))
				assert.Empty(t, got.Header.Get("WWW-Authenticate"))
				return
			}
			challenge := valetkeytest.Challenge(t, got.Header, "Bearer")
			assert.Equal(t, c.code, challenge["error"])
			assert.Equal(t, c.scope, challenge["scope"])
			assert.NotEmpty(t, challenge["resource_metadata"]) // MCP, insufficient scope errors: there, too
		})
	}
	t.Run("MCP-07 the same operation, the same scopes each time", func(t *testing.T) {
		for _, token := range []string{reader, p.token(), p.token(valetkeytest.Scopes("orders:write")), reader} {
			got := p.send(t, "POST", token, call("cancel_order"))
			assert.Equal(t, "orders:read orders:write", valetkeytest.Challenge(t, got.Header, "Bearer")["scope"])
		}
	})
	t.Run("every forgery", func(t *testing.T) {
		for name, token := range p.iss.Forgeries(valetkeytest.Audience(p.resource)) {
			assert.NotEqual(t, 200, p.send(t, "POST", token, call("whoami")).StatusCode, name)
		}
	})
	t.Run("no token is logged", func(t *testing.T) {
		assert.Contains(t, p.log.String(), "request refused")
		assert.NotContains(t, p.log.String(), reader)
	})
}

func TestBounds(t *testing.T) {
	p := open(t, stateless, func(s *settings) { s.config.MaxBody = 1000 })
	token := p.token()
	note := func(n int) string {
		body := `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"whoami","arguments":{"note":""}}}`
		return strings.Replace(body, `""`, `"`+strings.Repeat("x", n-len(body))+`"`, 1)
	}
	t.Run("a body that is too long", func(t *testing.T) {
		got := p.send(t, "POST", token, note(1001))
		assert.Equal(t, 400, got.StatusCode)
		assert.Contains(t, got.body, "too long")
		assert.Empty(t, p.called.take())
	})
	t.Run("the longest body arrives whole", func(t *testing.T) {
		got := p.send(t, "POST", token, note(1000))
		assert.Equal(t, 200, got.StatusCode, got.body)
		assert.Equal(t, []string{"whoami"}, p.called.take())
	})
	t.Run("the body is not read for a token that is not good", func(t *testing.T) {
		h, err := valetmcp.New(valetmcp.Config{Guard: p.guard, Tools: tools}, http.NotFoundHandler())
		require.NoError(t, err)
		for _, token := range []string{p.token(valetkeytest.Expired()), "junk", outage} {
			unread := &counter{from: strings.NewReader(call("whoami"))}
			w := httptest.NewRecorder()
			r := httptest.NewRequest("POST", "/mcp", unread)
			r.Header.Set("Authorization", "Bearer "+token)
			h.ServeHTTP(w, r)
			assert.GreaterOrEqual(t, w.Code, 401)
			assert.Zero(t, unread.n)
		}
	})
	t.Run("of a stranger's body no more than 64 KiB are read", func(t *testing.T) {
		h, err := valetmcp.New(valetmcp.Config{Guard: p.guard, Tools: tools}, http.NotFoundHandler())
		require.NoError(t, err)
		endless := &counter{from: endlessSpace{}}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("POST", "/mcp", endless))
		assert.Equal(t, 401, w.Code)
		assert.LessOrEqual(t, endless.n, 64<<10+1)
	})
}

type endlessSpace struct{}

func (endlessSpace) Read(b []byte) (int, error) {
	return copy(b, bytes.Repeat([]byte{' '}, len(b))), nil
}

// A counter counts the bytes that were read of it.
type counter struct {
	from io.Reader
	n    int
}

func (c *counter) Read(b []byte) (int, error) {
	n, err := c.from.Read(b)
	c.n += n
	return n, err
}

// text returns the result of a tool.
func text(t testing.TB, a answer) string {
	t.Helper()
	require.Equal(t, 200, a.StatusCode, a.body)
	var message struct {
		Result struct {
			Content []struct{ Text string }
		}
	}
	require.NoError(t, json.Unmarshal([]byte(a.body), &message), a.body)
	require.Len(t, message.Result.Content, 1, a.body)
	return message.Result.Content[0].Text
}

func TestAcceptance(t *testing.T) {
	p := open(t, stateless)
	for _, c := range []struct {
		name  string
		scope []string
		tool  string
		want  string
	}{
		{"any token", nil, "whoami", "alice []; SDK: [] true"},
		{"MCP-06 a token with the scopes of the tool", []string{"orders:read", "orders:write"}, "cancel_order", "alice [orders:read orders:write]; SDK: [orders:read orders:write] true"},
		{"one of several", []string{"orders:read", "admin"}, "export_orders", "alice [admin orders:read]; SDK: [admin orders:read] true"},
		{"MCP-08 a broader scope implies a narrower where it was declared to", []string{"orders"}, "list_orders", "alice [orders]; SDK: [orders] true"},
		{"a token for an open tool", []string{"x"}, "status", "alice [x]; SDK: [x] true"},
	} {
		t.Run(c.name, func(t *testing.T) {
			assert.Equal(t, c.want, text(t, p.send(t, "POST", p.token(valetkeytest.Scopes(c.scope...)), call(c.tool))))
		})
	}
	t.Run("an open tool without a token", func(t *testing.T) {
		assert.Equal(t, "nobody", text(t, p.send(t, "POST", "", call("status"))))
	})
	t.Run("an open tool sees no token of another guard", func(t *testing.T) {
		p := open(t, stateless, func(s *settings) { s.bare = true })
		server := newServer(p.called)
		h, err := valetmcp.New(valetmcp.Config{Guard: p.guard, Tools: tools}, mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return server },
			&mcp.StreamableHTTPOptions{Stateless: true, JSONResponse: true}))
		require.NoError(t, err)
		r := httptest.NewRequest("POST", "/mcp", strings.NewReader(call("status")))
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Accept", "*/*")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r.WithContext(valetkey.NewContext(r.Context(), valetkey.NewToken(valetkey.TokenFields{Subject: "someone"}))))
		assert.Equal(t, "nobody", text(t, answer{w.Result(), w.Body.String()}))
	})
	t.Run("MCP-10 the token's text does not reach the tools", func(t *testing.T) {
		assert.NotContains(t, text(t, p.send(t, "POST", p.token(), call("whoami"))), "passed on")
	})
	t.Run("unless one needs it for an exchange", func(t *testing.T) {
		p := open(t, stateless, func(s *settings) { s.config.KeepToken = true })
		assert.Contains(t, text(t, p.send(t, "POST", p.token(), call("whoami"))), "; token passed on")
	})
	t.Run("a token from elsewhere than the header", func(t *testing.T) {
		p := open(t, stateless, func(s *settings) { s.guard.Methods = []middleware.BearerMethod{middleware.Query()} })
		token := p.token()
		p.resource += "?access_token=" + token
		assert.Equal(t, "alice []; SDK: [] true", text(t, p.send(t, "POST", "", call("whoami"))))
	})
	t.Run("MCP-10 the token's text in a header that replaces Authorization does not reach the tools either", func(t *testing.T) {
		for keep, want := range map[bool]string{false: "", true: "; token passed on"} {
			p := open(t, stateless, func(s *settings) {
				s.config.KeepToken = keep
				s.guard.Methods = []middleware.BearerMethod{middleware.HeaderToken("Cf-Access-Jwt-Assertion")}
			})
			got := text(t, p.send(t, "POST", "", call("whoami"), "Cf-Access-Jwt-Assertion: "+p.token()))
			assert.Equal(t, "alice []; SDK: [] true"+want, got)
		}
	})
	t.Run("the guard's clock and leeway count, not the SDK's", func(t *testing.T) {
		token := p.token(valetkeytest.ExpiresIn(-10 * time.Second))
		assert.Equal(t, "alice []; SDK: [] true", text(t, p.send(t, "POST", token, call("whoami"))))
	})
	t.Run("a batch", func(t *testing.T) {
		p.called.take()
		batch := "[" + call("whoami") + "," + strings.Replace(call("list_orders"), `"id":1`, `"id":2`, 1) + "]"
		got := p.send(t, "POST", p.token(valetkeytest.Scopes("orders:read")), batch, "Mcp-Protocol-Version: 2025-03-26")
		assert.Equal(t, 200, got.StatusCode, got.body)
		assert.ElementsMatch(t, []string{"whoami", "list_orders"}, p.called.take(), got.body)
	})
	t.Run("a response of the client", func(t *testing.T) {
		got := p.send(t, "POST", p.token(), `{"jsonrpc":"2.0","id":7,"result":{}}`)
		assert.Equal(t, 202, got.StatusCode, got.body)
	})
	t.Run("a method that no HTTP request for MCP has is the SDK's to refuse", func(t *testing.T) {
		assert.Equal(t, 401, p.send(t, "PUT", "", "").StatusCode)
		assert.Equal(t, 405, p.send(t, "PUT", p.token(), "").StatusCode)
	})
	t.Run("a preflight", func(t *testing.T) {
		p := open(t, stateless, func(s *settings) {
			s.guard.Preflight = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
		})
		got := p.send(t, "OPTIONS", "", "", "Origin: https://example.com", "Access-Control-Request-Method: POST")
		assert.Equal(t, 204, got.StatusCode)
	})
	t.Run("one event for each request", func(t *testing.T) {
		var seen events
		p := open(t, stateless, func(s *settings) { s.guard.Observer = &seen })
		p.send(t, "POST", p.token(), call("whoami"))
		p.send(t, "POST", p.token(), call("cancel_order"))
		assert.Equal(t, []int{200, 403}, seen.statuses)
	})
}

type events struct{ statuses []int }

func (e *events) Observe(_ context.Context, event valetkey.Event) {
	e.statuses = append(e.statuses, event.Status)
}

func TestSessions(t *testing.T) {
	p := open(t, stateful)
	alice := p.token(valetkeytest.Scopes("orders:read"))
	began := p.send(t, "POST", alice, initialize)
	require.Equal(t, 200, began.StatusCode, began.body)
	session := "Mcp-Session-Id: " + began.Header.Get("Mcp-Session-Id")
	require.NotEqual(t, "Mcp-Session-Id: ", session)
	require.Equal(t, 202, p.send(t, "POST", alice, `{"jsonrpc":"2.0","method":"notifications/initialized"}`, session).StatusCode)

	mallory := p.token(valetkeytest.Subject("mallory"))
	for _, method := range []string{"POST", "GET", "DELETE"} {
		t.Run(method+" with the session of another user is refused", func(t *testing.T) {
			got := p.send(t, method, mallory, call("whoami"), session)
			assert.Equal(t, 403, got.StatusCode)
			assert.Empty(t, p.called.take())
		})
		t.Run(method+" with a session and no token is refused", func(t *testing.T) {
			assert.Equal(t, 401, p.send(t, method, "", call("whoami"), session).StatusCode)
		})
	}
	t.Run("an open tool with the session of another user, and no token, is refused", func(t *testing.T) {
		assert.Equal(t, 403, p.send(t, "POST", "", call("status"), session).StatusCode)
		assert.Empty(t, p.called.take())
	})
	t.Run("another token of the same user is at home", func(t *testing.T) {
		stepped := p.token(valetkeytest.Scopes("orders:read", "orders:write"))
		// The scopes of this token, not of the token that started the session, which the context of the SDK contains.
		assert.Equal(t, "alice [orders:read orders:write]; SDK: [orders:read orders:write] true", text(t, p.send(t, "POST", stepped, call("cancel_order"), session)))
		assert.Equal(t, 403, p.send(t, "POST", alice, call("cancel_order"), session).StatusCode)
	})
	t.Run("without Attach a tool finds no token rather than that of the first request", func(t *testing.T) {
		p := open(t, stateful, func(s *settings) { s.bare = true })
		session := "Mcp-Session-Id: " + p.send(t, "POST", p.token(), initialize).Header.Get("Mcp-Session-Id")
		assert.Equal(t, "nobody; SDK: [] true", text(t, p.send(t, "POST", p.token(), call("whoami"), session)))
	})
}

func TestInfo(t *testing.T) {
	users := map[string]string{}
	for name, fields := range map[string]valetkey.TokenFields{
		"a user":                       {Issuer: "i", Subject: "s", ClientID: "c"},
		"the same of another issuer":   {Issuer: "j", Subject: "s", ClientID: "c"},
		"a client":                     {Issuer: "i", ClientID: "s"},
		"a quote in the issuer":        {Issuer: `i" subject "s`, Subject: ""},
		"neither":                      {Issuer: "i", Raw: `{"a":1}`},
		"neither, with another claim":  {Issuer: "i", Raw: `{"a":2}`},
		"a subject that spells a hash": {Issuer: "i", Subject: "token 0"},
	} {
		token := valetkey.NewToken(fields)
		info := valetmcp.Info(token)
		assert.NotEmpty(t, info.UserID, name)
		assert.Empty(t, users[info.UserID], name)
		users[info.UserID] = name
		assert.Same(t, token, valetmcp.Token(info))
	}
	assert.Equal(t, valetmcp.Info(valetkey.NewToken(valetkey.TokenFields{Issuer: "i", Subject: "s", ClientID: "c"})).UserID,
		valetmcp.Info(valetkey.NewToken(valetkey.TokenFields{Issuer: "i", Subject: "s", ClientID: "other", ID: "1"})).UserID)
	assert.Nil(t, valetmcp.Token(nil))
	assert.Nil(t, valetmcp.Token(&auth.TokenInfo{}))
}

func TestOtherTransports(t *testing.T) {
	t.Run("MCP-12 without HTTP there is no token and nothing is asked for one", func(t *testing.T) {
		server := newServer(&called{})
		server.AddReceivingMiddleware(valetmcp.Attach)
		ours, theirs := mcp.NewInMemoryTransports()
		_, err := server.Connect(t.Context(), ours, nil)
		require.NoError(t, err)
		client, err := mcp.NewClient(&mcp.Implementation{Name: "c", Version: "1"}, nil).Connect(t.Context(), theirs, nil)
		require.NoError(t, err)
		defer client.Close()
		result, err := client.CallTool(t.Context(), &mcp.CallToolParams{Name: "forgotten"})
		require.NoError(t, err)
		assert.Equal(t, "nobody", result.Content[0].(*mcp.TextContent).Text)
	})
}

func TestVerifier(t *testing.T) {
	p := open(t, stateless)
	handler := auth.RequireBearerToken(valetmcp.Verifier(p.guard), &auth.RequireBearerTokenOptions{Scopes: []string{"orders:read"}})(
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, valetmcp.Token(auth.TokenInfoFromContext(r.Context())).Subject())
		}))
	good := p.token(valetkeytest.Scopes("orders:read"))
	for _, c := range []struct {
		name          string
		authorization []string
		status        int
		body          string
	}{
		{"nothing", nil, 401, "no bearer token\n"},
		{"an expired token", []string{"Bearer " + p.token(valetkeytest.Expired())}, 401, "the token has expired\n"},
		{"two headers", []string{"Bearer " + good, "Bearer " + good}, 400, "the request carries more than one Authorization header\n"},
		{"a failure, whose cause is not told", []string{"Bearer " + outage}, 500, "the token cannot be verified now\n"},
		{"the wrong scope", []string{"Bearer " + p.token()}, 403, "insufficient scope\n"},
		{"a good token", []string{"bearer " + good}, 200, "alice"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := httptest.NewRequest("POST", "/mcp", nil)
			r.Header["Authorization"] = c.authorization
			w := httptest.NewRecorder()
			handler.ServeHTTP(w, r)
			assert.Equal(t, c.status, w.Code)
			assert.Equal(t, c.body, w.Body.String())
		})
	}
	t.Run("the cause is there for a log", func(t *testing.T) {
		_, err := valetmcp.Verifier(p.guard)(t.Context(), outage, nil)
		var cause *valetkey.Unavailable
		require.ErrorAs(t, err, &cause)
		assert.NotErrorIs(t, err, auth.ErrInvalidToken)
	})
}

// lockedBuffer is a log that several goroutines write.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
