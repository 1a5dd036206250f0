// Package valetmcp guards a server of the official MCP SDK with access tokens, tool by tool (MCP authorization, 2026-07-28).
//
//	handler, err := valetmcp.New(valetmcp.Config{
//		Guard: guard, // with a Resource, which MCP requires
//		Tools: valetmcp.Needs{"list_orders": scopes.All("orders:read"), "cancel_order": scopes.All("orders:write")},
//	}, mcp.NewStreamableHTTPHandler(getServer, nil))
//	...
//	server.AddReceivingMiddleware(valetmcp.Attach)
//	mux.Handle("/mcp", handler)
//	mux.Handle(guard.Metadata())
//
// A request is refused before the SDK sees it, with the status and the challenge that let a client find the authorization
// server, or ask for a token with more scopes. What it asks for is read from its body once its token is known to be good.
//
// It is for HTTP: a server on another transport, such as stdio, is not guarded.
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

// Needs says by name what a request must have. A value is [valetkey.AnyToken], what a token must meet, or
// [valetkey.Public] or [valetkey.Optional]. These two mean the same here: a request without a token passes, and one
// that is sent must be good, since a session belongs to its user.
type Needs map[string]valetkey.Requirement

// Config is what [New] makes a handler of. Only Guard is required.
type Config struct {
	_ struct{} // keyed literals only

	// Guard decides. Required, and its Resource has to name an authorization server.
	Guard *middleware.Guard

	// Tools says what a call of each tool needs. One that is not listed is refused, as if it needed a scope that nobody
	// has.
	Tools Needs

	// Methods says what other methods need: "resources/read", "initialize". One that is not listed needs any good token,
	// and so do responses, and requests that are no POST. "initialize" cannot be open: a session that began without a user
	// would belong to whoever knows its ID. Open methods and tools are for servers without sessions.
	Methods Needs

	// MaxBody bounds the body of a request, in bytes; one that is longer is refused. Of a request without a token, no more
	// than 64 KiB are read. Zero: 4 MiB.
	MaxBody int64

	// KeepToken leaves the Authorization header in the RequestExtra of the tools, for one that exchanges the token for
	// another (RFC 8693). It must not be sent on as it is: it is meant for this server alone.
	KeepToken bool
}

// New returns next, a [mcp.StreamableHTTPHandler] or a handler around it, guarded. It keeps copies of the tables. The error
// names every mistake in cfg.
//
// next finds the [auth.TokenInfo] of the request, see [Info]; a session that the SDK keeps works for requests of the user who
// began it and no others. It does not find the token with [valetkey.FromContext], because the SDK would show that of the
// request which began the session to all that follow: [Attach] does it right.
//
// A batch needs what all of its messages need together. Refused with 400 is a body that two parsers could read differently
// where it matters: one with a member twice, or with "Method" for "method". What stands within arguments is the tool's own.
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
		mistake(`Methods["initialize"]`, "%s, so that a session would belong to nobody", cfg.Methods["initialize"])
	}
	return errors.Join(mistakes...)
}

// metadata is what matters here of the metadata of a resource (RFC 9728, section 2).
type metadata struct {
	Servers []string `json:"authorization_servers"`
	Scopes  []string `json:"scopes_supported"`
}

func metadataOf(g *middleware.Guard) (m metadata) {
	_ = json.Unmarshal(g.MetadataJSON(), &m) // a guard without a Resource has none, and names nothing
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
	r = asked.restore(valetkey.NewContext(checked.Context(), nil)) // also without the token of another guard
	token := d.Token()
	if token == nil {
		h.next.ServeHTTP(w, r)
		return
	}
	// The SDK takes a TokenInfo from its own middleware only, which reads a header, where the token need not have come from,
	// and holds the expiry against a clock of its own. Neither may decide again what the guard has decided.
	header, info := r.Header.Clone(), Info(token)
	if !h.KeepToken {
		header.Del("Authorization")
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
