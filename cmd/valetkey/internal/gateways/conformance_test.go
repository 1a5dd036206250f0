package gateways_test

import (
	"log/slog"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/adapters/valetforward"
	"github.com/valetkey/valetkey/middleware"
	table "github.com/valetkey/valetkey/routes"
	"github.com/valetkey/valetkey/valetkeytest"
	"github.com/valetkey/valetkey/valetkeytest/adaptertest"
)

// What the gateways cannot carry, see docs/gateways.md.
const (
	oneGuard  = "one guard decides on a request"
	noBody    = "the body is not asked about"
	preflight = "the guard's answer to a preflight would be a pass"
	ownLimit  = "nginx refuses two lines of Authorization itself"
	tooLong   = "the gateway has a lower limit for a header line, and refuses it with 400"
	noUpgrade = "without Connection: Upgrade, Caddy drops Upgrade, also for the upstream"
	buffered  = "the example buffers the beginning of a response"
	noAbort   = "HAProxy finishes a request whose client has gone"
)

// unable lists the checks of adaptertest that fail, for all gateways and for each.
var unable = map[string]string{
	"no credentials, a group":                           oneGuard,
	"optional, only another guard in front has a token": oneGuard,
	"optional, a good token for both guards":            oneGuard,
	"full, header and form":                             noBody,
	"full, form and query":                              noBody,
	"full, a form that is too long":                     noBody,
	"full, optional, a form with a bad token":           noBody,
	"full, in the form":                                 noBody,
	"full, a preflight":                                 preflight,
	"full, optional, a preflight":                       preflight,
}

var unableOf = map[string]map[string]string{
	"nginx": {
		"two headers": ownLimit, "two headers, the first good": ownLimit, "two headers, the last good": ownLimit,
		"two headers in different letter case": ownLimit, "two headers, one empty": ownLimit, "optional, two headers": ownLimit,
		"bound, two schemes": ownLimit, "other header, a good token beside Authorization": ownLimit,
		"a token that is too long": tooLong, "the context ends with the request": buffered,
	},
	"caddy": {
		"full, a cookie in a handshake from another site": noUpgrade, "full, a cookie in a handshake without an origin": noUpgrade,
		"subprotocol, a name without a token": noUpgrade, "subprotocol, a bad encoding": noUpgrade, "subprotocol, two tokens in two lines": noUpgrade,
		"subprotocol and other header": noUpgrade, "subprotocol, a name and the token": noUpgrade, "subprotocol, a name and the token in two lines": noUpgrade,
		"subprotocol, encoded": noUpgrade,
	},
	"haproxy": {"a token that is too long": tooLong, "the context ends with the request": noAbort},
}

// TestAdapters runs the conformance tests of adapters through the real gateways.
func TestAdapters(t *testing.T) {
	each(t, func(t *testing.T, g gateway) {
		differs := maps.Clone(unable)
		maps.Copy(differs, unableOf[g.name])
		adaptertest.Test(t, adaptertest.Adapter{
			StatusAndChallenge: true, NoCancel: true, NoForwarded: true, Unable: differs,
			Serve: func(t testing.TB, guarded []adaptertest.Route) string { return serve(t, g, guarded) },
		})
	})
}

// serve starts a gateway that asks the guards of the routes.
func serve(t testing.TB, g gateway, guarded []adaptertest.Route) (at string) {
	t.Helper()
	upstream, service := http.NewServeMux(), http.NewServeMux()
	tables := map[*middleware.Guard]table.Table{}
	for _, route := range guarded {
		if tables[route.Guard] == nil {
			tables[route.Guard] = table.Table{}
		}
		var need valetkey.Requirement = valetkey.AnyToken
		if needs := slices.Concat(route.Require...); len(needs) == 1 {
			need = needs[0]
		} else if len(needs) > 1 {
			need = valetkey.AllOf(needs)
		}
		tables[route.Guard][route.Path] = need
		upstream.Handle(route.Path, identified(route.Handler))
	}
	for guard, rows := range tables {
		decider, err := rows.Decider(guard)
		require.NoError(t, err)
		h, err := valetforward.New(valetforward.Config{
			Decider: decider, Dialect: valetforward.Dialect(g.name), Callers: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}, Logger: slog.New(slog.DiscardHandler),
		})
		require.NoError(t, err)
		for path := range rows {
			service.Handle(path, h)
		}
	}
	s := start(t, g, setup{upstream: upstream, handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u, err := url.ParseRequestURI(r.Header.Get("X-Forwarded-Uri"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		h, _ := service.Handler(&http.Request{Method: http.MethodGet, URL: u})
		h.ServeHTTP(w, r)
	})})
	return "http://" + s.addr
}

// identified attaches the caller to the request that the identity headers report.
func identified(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if recover() != nil {
				w.WriteHeader(http.StatusInternalServerError)
			}
		}()
		if subject := r.Header.Get("X-Valetkey-Subject"); subject != "" {
			scopes := valetkey.NewScopes(strings.Fields(r.Header.Get("X-Valetkey-Scope"))...)
			r = r.WithContext(valetkey.NewContext(r.Context(), valetkey.NewToken(valetkey.TokenFields{Subject: subject, Scopes: scopes})))
		}
		next.ServeHTTP(w, r)
	})
}

// Any page can open a WebSocket with the cookies of its visitor, so the guard must see that a request is a handshake.
func TestWebSocketOfAnotherOrigin(t *testing.T) {
	each(t, func(t *testing.T, g gateway) {
		iss := valetkeytest.NewIssuer(t)
		guard := newGuard(t, iss, func(c *middleware.Config) {
			c.DPoP, c.Methods = nil, []middleware.BearerMethod{middleware.Cookie("session", new(http.CrossOriginProtection))}
		})
		api := new(upstream)
		at := strings.TrimPrefix(serve(t, g, []adaptertest.Route{{Path: "/socket", Guard: guard, Handler: api}}), "http://")
		open := func(origin string) response {
			return send(t, at, get("/socket", "Cookie: session="+iss.Token(read), "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
				"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Origin: "+origin))
		}
		assert.Equal(t, 401, open("https://evil.example").StatusCode)
		assert.Empty(t, api.take())
		assert.Equal(t, 101, open("http://api.example.com").StatusCode)
		assert.Len(t, api.take(), 1)
	})
}
