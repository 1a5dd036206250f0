package middleware_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/scopes"
)

func route(method, path string) middleware.Route { return middleware.Route{Method: method, Path: path} }

func TestRoutesDeclares(t *testing.T) {
	read := scopes.All("read")
	table := middleware.Routes{
		"/":             middleware.Public,
		"/orders":       read,
		"/orders/{$}":   read,
		"/orders/{id}":  read,
		"/orders/{id}/": read,
		"GET /files/":   middleware.Public,
		"/pkg.Orders/":  read,
	}
	closed := middleware.Routes{"GET /users": read, "GET /users/{id}": read, "GET /{$}": read, "GET /docs/{path...}": read, "/any": read, "GET /a:b": read}
	for _, c := range []struct {
		name    string
		table   middleware.Routes
		dialect middleware.Dialect
		route   middleware.Route
		want    string // "": it is declared
	}{
		{"HTTP-02 a new route that only the public row for everything decides", table, middleware.NetHTTP, route("GET", "/reports"),
			`route GET /reports: only the row "/" for everything, which is public, decides GET /reports`},
		{"HTTP-02 a new method", closed, middleware.NetHTTP, route("PUT", "/users"), "no row decides PUT /users"},
		{"HTTP-02 every method of a path with one", closed, middleware.NetHTTP, route("", "/users"), "no row decides DELETE /users"},
		{"HTTP-02 a new route that no row decides", closed, middleware.NetHTTP, route("GET", "/reports"), "no row decides GET /reports"},
		{"HTTP-02 a pattern with its method", closed, middleware.NetHTTP, route("", "GET /reports"), "route GET /reports: no row"},
		{"HTTP-02 a tree of which one path is declared", closed, middleware.NetHTTP, route("GET", "/users/"), "no row decides"},
		{"HTTP-02 a gRPC method of another service", closed, middleware.NetHTTP, route("POST", "/pkg.Users/List"), "no row decides POST /pkg.Users/List"},
		{"HTTP-02 gin, a wildcard of which one value is declared", closed, middleware.Gin, route("GET", "/:page"), "no row decides GET /x"},
		{"HTTP-02 gin, a name that begins in mid-segment", closed, middleware.Gin, route("GET", "/user_:name"), "no row decides GET /x"},
		{"HTTP-02 gin, a tree", closed, middleware.Gin, route("GET", "/users/*path"), "no row decides"},
		{"HTTP-02 gin, a slash at the end", closed, middleware.Gin, route("GET", "/users/"), "no row decides GET /users/"},
		{"HTTP-02 echo, every method", closed, middleware.Echo, route("echo_route_any", "/users"), "no row decides"},
		{"HTTP-02 echo, a tree without a slash", closed, middleware.Echo, route("GET", "/docs*"), "no row decides GET /docs"},
		{"HTTP-02 echo, a beginning that runs on under a public row for everything", table, middleware.Echo, route("GET", "/orders*"), `only the row "/" for everything, which is public, decides GET /ordersx`},
		{"HTTP-02 fiber, a name and all the rest", closed, middleware.Fiber, route("GET", "/users/:id*"), "no row decides"},
		{"HTTP-02 chi, every method", closed, middleware.Chi, route("*", "/users"), "no row decides"},
		{"HTTP-02 chi, a regular expression", closed, middleware.Chi, route("GET", "/users/{id:[0-9/]{3}}/x"), "no row decides GET /users/xx/x"},
		{"HTTP-02 chi, a regular expression with an end", closed, middleware.Chi, route("GET", "/users/{id:.*}.json"), "may match several"},
		{"HTTP-02 chi, a name and all the rest", closed, middleware.Chi, route("GET", "/users/{id}*"), "no row decides"},
		{"HTTP-02 fiber, a name that may be missing", closed, middleware.Fiber, route("GET", "/any/:id?"), "no row decides"},
		{"HTTP-02 fiber, names that may be missing within", closed, middleware.Fiber, route("GET", "/users/:id?/x"), "no row decides"},
		{"HTTP-02 fiber, one or more", closed, middleware.Fiber, route("GET", "/users/+"), "no row decides"},
		{"HTTP-02 fiber, an escaped star before a true one", middleware.Routes{"/a": read, "/a/": read}, middleware.Fiber, route("GET", `/a\*b*`), "no row decides"},
		{"HTTP-02 echo, a plus is a plus", middleware.Routes{"/c": read, "/c/": read}, middleware.Echo, route("GET", "/c++*"), "no row decides GET /c++"},
		{"fiber, names without end that may be missing", closed, middleware.Fiber, route("GET", strings.Repeat("/:x?", 30)), "more segments may be missing"},
		{"an unknown dialect", closed, "rails", route("GET", "/users"), `the dialect "rails" is not known`},
		{"a path that is no pattern", closed, middleware.NetHTTP, route("GET", "/{"), "parsing"},
		{"a table with mistakes", middleware.Routes{"/": nil}, middleware.NetHTTP, route("GET", "/"), "the requirement is nil"},

		{"net/http", closed, middleware.NetHTTP, route("GET", "/users/{name}"), ""},
		{"HEAD follows GET", closed, middleware.NetHTTP, route("HEAD", "/users"), ""},
		{"the row for everything declares itself", table, middleware.NetHTTP, route("", "/{rest...}"), ""},
		{"a public row for some declares what is below", table, middleware.NetHTTP, route("GET", "/files/logo"), ""},
		{"several rows together", table, middleware.NetHTTP, route("GET", "/orders/"), ""},
		{"a guarded row for everything declares each route", middleware.Routes{"/": read}, middleware.Gin, route("GET", "/new/:id"), ""},
		{"gRPC", table, middleware.NetHTTP, route("POST", "/pkg.Orders/List"), ""},
		{"gin, a name", closed, middleware.Gin, route("GET", "/users/:id"), ""},
		{"gin, a tree", closed, middleware.Gin, route("GET", "/docs/*path"), ""},
		{"gin, the root", closed, middleware.Gin, route("GET", "/"), ""},
		{"gin, a colon that names nothing", closed, middleware.Gin, route("GET", `/a\:b`), ""},
		{"echo, a name", closed, middleware.Echo, route("GET", "/users/:id"), ""},
		{"echo, a tree", closed, middleware.Echo, route("GET", "/docs/*"), ""},
		{"echo, a tree without a slash", middleware.Routes{"GET /static": middleware.Public, "GET /static/": middleware.Public}, middleware.Echo, route("GET", "/static*"), ""},
		{"chi, CONNECT", closed, middleware.Chi, route("CONNECT", "/any"), ""},
		{"echo, every method", closed, middleware.Echo, route("echo_route_any", "/any"), ""},
		{"chi, a name", closed, middleware.Chi, route("GET", "/users/{id}"), ""},
		{"chi, a regular expression", closed, middleware.Chi, route("GET", "/users/{id:[0-9]{3}}"), ""},
		{"chi, a regular expression with a slash and a star", closed, middleware.Chi, route("GET", "/users/{id:[^/]*}"), ""},
		{"chi, two names in one segment", closed, middleware.Chi, route("GET", "/users/{first}-{last}"), ""},
		{"chi, a tree", closed, middleware.Chi, route("GET", "/docs/*"), ""},
		{"chi, a colon", closed, middleware.Chi, route("GET", "/a:b"), ""},
		{"fiber, a name with a constraint", closed, middleware.Fiber, route("GET", `/users/:id<regex(\d+/?)>`), ""},
		{"fiber, a name that may be missing", middleware.Routes{"/users": read, "/users/{id}": read}, middleware.Fiber, route("GET", "/users/:id?"), ""},
		{"fiber, all the rest", closed, middleware.Fiber, route("GET", "/docs/*"), ""},
		{"fiber, the root by another spelling", closed, middleware.Fiber, route("GET", ""), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.table.Declares(c.dialect, c.route)
			if c.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, c.want)
		})
	}
	t.Run("HTTP-02 every route without a declaration is named", func(t *testing.T) {
		err := closed.Declares(middleware.Gin, route("GET", "/users"), route("POST", "/users"),
			route("GET", "/users/:id"), route("DELETE", "/users/:id"))
		require.Error(t, err)
		lines := strings.Split(err.Error(), "\n")
		require.Len(t, lines, 2)
		assert.Contains(t, lines[0], "route POST /users:")
		assert.Contains(t, lines[1], "route DELETE /users/:id:")
	})
}

func TestRoutesDeciding(t *testing.T) {
	table := middleware.Routes{"GET /orders/": middleware.AnyToken, "GET /orders/{id}": middleware.AnyToken, "GET a.example/orders/{id}": middleware.AnyToken}
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
			got, err := table.Deciding(c.pattern)
			require.NoError(t, err)
			assert.Equal(t, c.want, got)
		})
	}
	t.Run("no pattern", func(t *testing.T) {
		_, err := table.Deciding("/{")
		assert.ErrorContains(t, err, "parsing")
	})
	t.Run("a table with mistakes", func(t *testing.T) {
		_, err := middleware.Routes{"/{": middleware.AnyToken}.Deciding("/a")
		assert.ErrorContains(t, err, "parsing")
	})
}
