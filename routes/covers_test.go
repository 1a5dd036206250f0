package routes_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/routes"
	"github.com/valetkey/valetkey/scopes"
)

func route(method, path string) routes.Route { return routes.Route{Method: method, Path: path} }

func TestCovers(t *testing.T) {
	read := scopes.All("read")
	table := routes.Table{
		"/":             valetkey.Public,
		"/orders":       read,
		"/orders/{$}":   read,
		"/orders/{id}":  read,
		"/orders/{id}/": read,
		"GET /files/":   valetkey.Public,
		"/pkg.Orders/":  read,
	}
	closed := routes.Table{"GET /users": read, "GET /users/{id}": read, "GET /{$}": read, "GET /docs/{path...}": read, "/any": read, "GET /a:b": read}
	for _, c := range []struct {
		name    string
		table   routes.Table
		dialect routes.Dialect
		route   routes.Route
		want    string // "": it is declared
	}{
		{"HTTP-02 a new route that only the public row for everything decides", table, routes.NetHTTP, route("GET", "/reports"),
			`route GET /reports: only the catch-all row "/", which is public, decides GET /reports`},
		{"HTTP-02 a new method", closed, routes.NetHTTP, route("PUT", "/users"), "no row decides PUT /users"},
		{"HTTP-02 every method of a path with one", closed, routes.NetHTTP, route("", "/users"), "no row decides DELETE /users"},
		{"HTTP-02 a new route that no row decides", closed, routes.NetHTTP, route("GET", "/reports"), "no row decides GET /reports"},
		{"HTTP-02 a pattern with its method", closed, routes.NetHTTP, route("", "GET /reports"), "route GET /reports: no row"},
		{"HTTP-02 a tree of which one path is declared", closed, routes.NetHTTP, route("GET", "/users/"), "no row decides"},
		{"HTTP-02 a gRPC method of another service", closed, routes.NetHTTP, route("POST", "/pkg.Users/List"), "no row decides POST /pkg.Users/List"},
		{"HTTP-02 gin, a wildcard of which one value is declared", closed, routes.Gin, route("GET", "/:page"), "no row decides GET /x"},
		{"HTTP-02 gin, a name that begins in mid-segment", closed, routes.Gin, route("GET", "/user_:name"), "no row decides GET /x"},
		{"HTTP-02 gin, a tree", closed, routes.Gin, route("GET", "/users/*path"), "no row decides"},
		{"HTTP-02 gin, a slash at the end", closed, routes.Gin, route("GET", "/users/"), "no row decides GET /users/"},
		{"HTTP-02 echo, every method", closed, routes.Echo, route("echo_route_any", "/users"), "no row decides"},
		{"HTTP-02 echo, a tree without a slash", closed, routes.Echo, route("GET", "/docs*"), "no row decides GET /docs"},
		{"HTTP-02 echo, a beginning that runs on under a public row for everything", table, routes.Echo, route("GET", "/orders*"), `only the catch-all row "/", which is public, decides GET /ordersx`},
		{"HTTP-02 fiber, a name and all the rest", closed, routes.Fiber, route("GET", "/users/:id*"), "no row decides"},
		{"HTTP-02 chi, every method", closed, routes.Chi, route("*", "/users"), "no row decides"},
		{"HTTP-02 chi, a regular expression", closed, routes.Chi, route("GET", "/users/{id:[0-9/]{3}}/x"), "no row decides GET /users/xx/x"},
		{"HTTP-02 chi, a regular expression with an end", closed, routes.Chi, route("GET", "/users/{id:.*}.json"), "may match several"},
		{"HTTP-02 chi, a name and all the rest", closed, routes.Chi, route("GET", "/users/{id}*"), "no row decides"},
		{"HTTP-02 fiber, a name that may be missing", closed, routes.Fiber, route("GET", "/any/:id?"), "no row decides"},
		{"HTTP-02 fiber, names that may be missing within", closed, routes.Fiber, route("GET", "/users/:id?/x"), "no row decides"},
		{"HTTP-02 fiber, one or more", closed, routes.Fiber, route("GET", "/users/+"), "no row decides"},
		{"HTTP-02 fiber, an escaped star before a true one", routes.Table{"/a": read, "/a/": read}, routes.Fiber, route("GET", `/a\*b*`), "no row decides"},
		{"HTTP-02 echo, a plus is a plus", routes.Table{"/c": read, "/c/": read}, routes.Echo, route("GET", "/c++*"), "no row decides GET /c++"},
		{"fiber, names without end that may be missing", closed, routes.Fiber, route("GET", strings.Repeat("/:x?", 30)), "too many optional segments"},
		{"an unknown dialect", closed, "rails", route("GET", "/users"), `unknown dialect "rails"`},
		{"a path that is not a pattern", closed, routes.NetHTTP, route("GET", "/{"), "parsing"},
		{"a table with mistakes", routes.Table{"/": nil}, routes.NetHTTP, route("GET", "/"), "the requirement is nil"},

		{"net/http", closed, routes.NetHTTP, route("GET", "/users/{name}"), ""},
		{"HEAD follows GET", closed, routes.NetHTTP, route("HEAD", "/users"), ""},
		{"the row for everything declares itself", table, routes.NetHTTP, route("", "/{rest...}"), ""},
		{"a public row for some declares what is below", table, routes.NetHTTP, route("GET", "/files/logo"), ""},
		{"several rows together", table, routes.NetHTTP, route("GET", "/orders/"), ""},
		{"a guarded row for everything declares each route", routes.Table{"/": read}, routes.Gin, route("GET", "/new/:id"), ""},
		{"gRPC", table, routes.NetHTTP, route("POST", "/pkg.Orders/List"), ""},
		{"gin, a name", closed, routes.Gin, route("GET", "/users/:id"), ""},
		{"gin, a tree", closed, routes.Gin, route("GET", "/docs/*path"), ""},
		{"gin, the root", closed, routes.Gin, route("GET", "/"), ""},
		{"gin, a colon that names nothing", closed, routes.Gin, route("GET", `/a\:b`), ""},
		{"echo, a name", closed, routes.Echo, route("GET", "/users/:id"), ""},
		{"echo, a tree", closed, routes.Echo, route("GET", "/docs/*"), ""},
		{"echo, a tree without a slash", routes.Table{"GET /static": valetkey.Public, "GET /static/": valetkey.Public}, routes.Echo, route("GET", "/static*"), ""},
		{"chi, CONNECT", closed, routes.Chi, route("CONNECT", "/any"), ""},
		{"echo, every method", closed, routes.Echo, route("echo_route_any", "/any"), ""},
		{"chi, a name", closed, routes.Chi, route("GET", "/users/{id}"), ""},
		{"chi, a regular expression", closed, routes.Chi, route("GET", "/users/{id:[0-9]{3}}"), ""},
		{"chi, a regular expression with a slash and a star", closed, routes.Chi, route("GET", "/users/{id:[^/]*}"), ""},
		{"chi, two names in one segment", closed, routes.Chi, route("GET", "/users/{first}-{last}"), ""},
		{"chi, a tree", closed, routes.Chi, route("GET", "/docs/*"), ""},
		{"chi, a colon", closed, routes.Chi, route("GET", "/a:b"), ""},
		{"fiber, a name with a constraint", closed, routes.Fiber, route("GET", `/users/:id<regex(\d+/?)>`), ""},
		{"fiber, a name that may be missing", routes.Table{"/users": read, "/users/{id}": read}, routes.Fiber, route("GET", "/users/:id?"), ""},
		{"fiber, all the rest", closed, routes.Fiber, route("GET", "/docs/*"), ""},
		{"fiber, the root by another spelling", closed, routes.Fiber, route("GET", ""), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.table.Covers(c.dialect, c.route)
			if c.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, c.want)
		})
	}
	t.Run("HTTP-02 every route without a declaration is named", func(t *testing.T) {
		err := closed.Covers(routes.Gin, route("GET", "/users"), route("POST", "/users"),
			route("GET", "/users/:id"), route("DELETE", "/users/:id"))
		require.Error(t, err)
		lines := strings.Split(err.Error(), "\n")
		require.Len(t, lines, 2)
		assert.Contains(t, lines[0], "route POST /users:")
		assert.Contains(t, lines[1], "route DELETE /users/:id:")
	})
}

func TestMatch(t *testing.T) {
	table := routes.Table{"GET /orders/": valetkey.AnyToken, "GET /orders/{id}": valetkey.AnyToken, "GET a.example/orders/{id}": valetkey.AnyToken}
	for _, c := range []struct {
		pattern string
		want    []string
	}{
		{"GET /users", []string{""}},
		{"POST /orders/{id}", []string{""}},
		{"GET /orders/{name}", []string{"GET /orders/{id}"}},
		{"GET a.example/orders/7", []string{"GET a.example/orders/{id}"}},
		{"GET /orders/", []string{"GET /orders/", "GET /orders/{id}"}},
		{"GET /", []string{""}},
	} {
		t.Run(c.pattern, func(t *testing.T) {
			got, err := table.Match(c.pattern)
			require.NoError(t, err)
			assert.Equal(t, c.want, got)
		})
	}
	t.Run("no pattern", func(t *testing.T) {
		_, err := table.Match("/{")
		assert.ErrorContains(t, err, "parsing")
	})
	t.Run("a table with mistakes", func(t *testing.T) {
		_, err := routes.Table{"/{": valetkey.AnyToken}.Match("/a")
		assert.ErrorContains(t, err, "parsing")
	})
}
