// Package valetmcp guards servers of the official MCP SDK with access tokens, per tool (MCP authorization, 2026-07-28).
//
//	handler, err := valetmcp.New(valetmcp.Config{
//		Guard: guard, // needs a Resource, as MCP requires
//		Tools: valetmcp.Needs{"list_orders": scopes.All("orders:read"), "cancel_order": scopes.All("orders:write")},
//	}, mcp.NewStreamableHTTPHandler(getServer, nil))
//	...
//	server.AddReceivingMiddleware(valetmcp.Attach)
//	mux.Handle("/mcp", handler)
//	mux.Handle(guard.Metadata())
//
// A request is refused before the SDK sees it. The status and the challenge let a client find the authorization server or request
// a token with more scopes. The body is read only after the token has been verified, to find what the request needs.
//
// The package guards HTTP only. A server on another transport, such as stdio, is not guarded.
package valetmcp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/modelcontextprotocol/go-sdk/auth"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/middleware"
)

const offlineAccess = "offline_access" // OpenID Connect Core, section 11

// Needs maps names to requirements. A value is [valetkey.AnyToken], a requirement on the token, or [valetkey.Public] or
// [valetkey.Optional]. Public and Optional mean the same here: a request without a token passes, and a token that is sent must be
// valid, because a session belongs to its user.
type Needs map[string]valetkey.Requirement

// Config configures the handler that [New] returns. Only Guard is required.
type Config struct {
	_ struct{} // keyed literals only

	// Guard decides about requests. Required. Its Resource must name an authorization server.
	Guard *middleware.Guard

	// Tools maps each tool to what a call of it needs. A call of a tool that is not listed is refused as if it needed a scope
	// that no token has.
	Tools Needs

	// Methods maps other methods, such as "resources/read" or "initialize", to what they need. Methods that are not listed,
	// responses, and requests other than POST need any valid token. "initialize" cannot be open, because a session that starts
	// without a user would belong to anyone who knows its ID. Use open methods and tools only on servers without sessions.
	Methods Needs

	// MaxBody is the size limit for the body of a request, in bytes. A larger body is refused. At most 64 KiB are read of a
	// request without a token. Zero: 4 MiB.
	MaxBody int64

	// KeepToken leaves the headers that carry the token, such as Authorization, in the RequestExtra of the tools, for tools that
	// exchange the token (RFC 8693). Do not forward the token unchanged: its audience is this server.
	KeepToken bool
}

// New returns a handler that guards next, which is an [mcp.StreamableHTTPHandler] or a handler around one. It keeps copies of the
// tables. The error joins one [valetkey.ConfigError] for each mistake in cfg.
//
// next can read the [auth.TokenInfo] of the request (see [Info]). A session that the SDK keeps accepts only requests of the user
// who started it. next cannot read the token with [valetkey.FromContext]: the SDK would return the token of the request that
// started the session for every later request. Use [Attach], which returns the token of the current request.
//
// A batch needs the requirements of all of its messages. A body that two parsers could read differently is refused with 400, such
// as one with a repeated member, or with "Method" instead of "method". The arguments of a tool are not checked this way.
func New(cfg Config, next http.Handler) (http.Handler, error) {
	if err := cfg.mistakes(next); err != nil {
		return nil, err
	}
	cfg.Tools, cfg.Methods = maps.Clone(cfg.Tools), maps.Clone(cfg.Methods)
	if cfg.MaxBody == 0 {
		cfg.MaxBody = 4 << 20
	}
	for _, table := range []Needs{cfg.Tools, cfg.Methods} {
		for _, need := range table {
			cfg.Guard.Declare(need)
		}
	}
	return &handler{cfg, next}, nil
}

func (cfg Config) mistakes(next http.Handler) error {
	var mistakes []error
	mistake := func(field, format string, args ...any) {
		mistakes = append(mistakes, fmt.Errorf("valetmcp: %w", &valetkey.ConfigError{Field: field, Err: fmt.Errorf(format, args...)}))
	}
	if next == nil {
		mistake("next", "required")
	}
	if cfg.Guard == nil {
		mistake("Guard", "required")
	} else {
		metadata := metadataOf(cfg.Guard)
		if len(metadata.Servers) == 0 {
			mistake("Guard", "its Resource names no authorization server (MCP, protected resource metadata)")
		}
		if slices.Contains(metadata.Scopes, offlineAccess) {
			mistake("Guard", "its metadata names %s, which is not the resource's to ask for (MCP, refresh tokens)", offlineAccess)
		}
	}
	if cfg.MaxBody < 0 {
		mistake("MaxBody", "%d is negative", cfg.MaxBody)
	}
	for field, table := range map[string]Needs{"Tools": cfg.Tools, "Methods": cfg.Methods} {
		for name, need := range table {
			row := fmt.Sprintf("%s[%q]", field, name)
			if need == nil {
				mistake(row, "nil")
			} else if level, ok := need.(valetkey.Openness); ok && !level.Known() {
				mistake(row, "%q is not an Openness: write AnyToken, Optional or Public, or a requirement of scopes", string(level))
			} else if valetkey.Describe(need).All.Has(offlineAccess) {
				mistake(row, "names %s, which is not the resource's to ask for (MCP, refresh tokens)", offlineAccess)
			}
		}
	}
	if _, listed := cfg.Methods[callTool]; listed {
		mistake(fmt.Sprintf("Methods[%q]", callTool), "tools are listed in Tools")
	}
	if open(cfg.Methods["initialize"]) {
		mistake(`Methods["initialize"]`, "%s, so a session would have no owner", cfg.Methods["initialize"])
	}
	return errors.Join(mistakes...)
}

// metadata holds the members of protected resource metadata that are checked here (RFC 9728, section 2).
type metadata struct {
	Servers []string `json:"authorization_servers"`
	Scopes  []string `json:"scopes_supported"`
}

func metadataOf(g *middleware.Guard) (m metadata) {
	_ = json.Unmarshal(g.MetadataJSON(), &m) // a guard without a Resource has no metadata; m stays empty
	return m
}

type handler struct {
	Config
	next http.Handler
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	asked := &operation{handler: h, w: w, r: r}
	d := h.Guard.Decide(r, asked)
	checked, ok := d.Apply(w, r)
	if !ok {
		return
	}
	r = asked.restore(valetkey.NewContext(checked.Context(), nil)) // removes another guard's token too
	token := d.Token()
	if token == nil {
		h.next.ServeHTTP(w, r)
		return
	}
	// The SDK accepts a TokenInfo only from its own middleware. That middleware reads the Authorization header, where the token
	// need not have been, and compares the expiry with its own clock. Neither check may override the decision of the guard.
	header, info := r.Header.Clone(), Info(token)
	if !h.KeepToken {
		h.Guard.RemoveCredentials(header)
	}
	info.Extra[requestKey] = checked.Context()
	info.Expiration = time.Time{}
	known := auth.RequireBearerToken(func(context.Context, string, *http.Request) (*auth.TokenInfo, error) { return info, nil },
		&auth.RequireBearerTokenOptions{AllowMissingExpiration: true})
	r.Header = http.Header{"Authorization": {"Bearer verified"}}
	known(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header, info.Expiration = header, token.Expiry()
		h.next.ServeHTTP(w, r)
	})).ServeHTTP(w, r)
}
