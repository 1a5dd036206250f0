package routes_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/routes"
	"github.com/valetkey/valetkey/scopes"
	"github.com/valetkey/valetkey/valetkeytest"
)

// seen answers with the path and the row that a router behind a table sees.
var seen = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	io.WriteString(w, r.URL.Path+" by "+r.Pattern)
})

func tableOf(t testing.TB, guard *middleware.Guard, table routes.Table, next http.Handler) http.Handler {
	t.Helper()
	h, err := table.Guard(guard, next)
	require.NoError(t, err)
	return h
}

func TestTable(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	guard := newGuard(t, iss)
	api := serve(t, tableOf(t, guard, routes.Table{
		"GET /healthz":               valetkey.Public,
		"GET /news":                  valetkey.Optional,
		"GET /me":                    valetkey.AnyToken,
		"GET /orders":                scopes.All("orders:read"),
		"/orders/{id}":               scopes.All("orders:write"),
		"GET /orders/{id}":           scopes.All("orders:read"),
		"/admin/":                    scopes.All("admin"),
		"/admin/{$}":                 valetkey.AllOf{scopes.All("admin"), scopes.All("root")},
		"/closed":                    scopes.Requirement{},
		"/gathered":                  valetkey.AllOf{},
		"GET /files/{name}":          valetkey.Public,
		"GET /files/{name}/{part}":   valetkey.Public,
		"POST tenant.example/orders": scopes.All("tenant"),
	}, seen))
	bearer := func(scope ...string) string { return "Bearer " + iss.Token(valetkeytest.Scopes(scope...)) }
	all := bearer("orders:read", "orders:write", "admin", "root", "tenant")

	for _, c := range []struct {
		name, method, target, authorization string
		status                              int
		scope                               string // of the challenge
	}{
		{"AUD-02 no row matches, without a token", "GET", "/unknown", "", 401, ""},
		{"AUD-02 a request that no row matches, with every scope", "GET", "/unknown", all, 403, ""},
		{"AUD-02 a method without a row, without a token", "POST", "/orders", "", 401, ""},
		{"AUD-02 a method without a row, with every scope", "POST", "/orders", all, 403, ""},
		{"AUD-02 a method without a row on a public path", "POST", "/healthz", "", 401, ""},
		{"AUD-02 a method in small letters", "get", "/healthz", "", 401, ""},
		{"AUD-02 a path below that of a row", "GET", "/orders/1/lines", all, 403, ""},
		{"AUD-02 a path in other letters", "GET", "/Healthz", "", 401, ""},
		{"AUD-02 a zero requirement", "GET", "/closed", all, 403, ""},
		{"AUD-02 an AllOf of nothing", "GET", "/gathered", all, 403, ""},

		{"HTTP-01 an encoded slash where no row matches", "GET", "/files%2Fadmin", "", 400, ""},
		{"HTTP-01 an encoded slash within a public wildcard", "GET", "/files/a%2Fb", "", 400, ""},
		{"HTTP-01 an encoded slash with small letters", "GET", "/files/a%2fb", "", 400, ""},
		{"HTTP-01 encoded dots within a public wildcard", "GET", "/files/%2e%2e/admin", "", 400, ""},
		{"HTTP-01 half encoded dots", "GET", "/files/.%2E/admin", "", 400, ""},
		{"HTTP-01 an encoded dot", "GET", "/files/%2e", "", 400, ""},
		{"HTTP-01 encoded dots and slash in one segment", "GET", "/files/..%2fadmin", "", 400, ""},
		{"HTTP-01 an encoded slash at the end", "GET", "/files/a%2F", "", 400, ""},
		{"HTTP-01 encoded dots with a good token", "GET", "/orders/%2e%2e", all, 400, ""},
		{"HTTP-01 dots are cleaned before matching", "GET", "/files/../admin/x", "", 307, ""},
		{"HTTP-01 two slashes are cleaned before matching", "GET", "//admin/x", "", 307, ""},
		{"HTTP-01 a path that is matched encoded", "GET", "/%61dmin/x", "", 401, "admin"},
		{"HTTP-01 CONNECT, whose path is not cleaned", "CONNECT", "/admin/../healthz", all, 400, ""},

		{"a row that requires a scope, without a token", "GET", "/orders", "", 401, "orders:read"},
		{"a row that asks for another scope", "GET", "/orders", bearer("orders:write"), 403, "orders:read"},
		{"HEAD follows GET", "HEAD", "/orders", bearer("orders:write"), 403, "orders:read"},
		{"the most specific row wins", "GET", "/orders/1", bearer("orders:write"), 403, "orders:read"},
		{"the challenge of an AllOf has all scopes", "GET", "/admin/", bearer("admin"), 403, "admin root"},
		{"the challenge of an AllOf has all scopes, without a token", "GET", "/admin/", "", 401, "admin root"},
		{"a row that requires any token, without one", "GET", "/me", "", 401, ""},
		{"a row that asks for any token, with a bad one", "GET", "/me", "Bearer x", 401, ""},
		{"an optional row, with a bad token", "GET", "/news", "Bearer x", 401, ""},

		{"a public row", "GET", "/healthz", "", 200, ""},
		{"a public row looks at no token", "GET", "/healthz", "Bearer x", 200, ""},
		{"HEAD follows a public GET", "HEAD", "/healthz", "", 200, ""},
		{"an encoded character that separates nothing", "GET", "/files/a%20b", "", 200, ""},
		{"an optional row, without a token", "GET", "/news", "", 200, ""},
		{"an optional row, with a good token", "GET", "/news", bearer(), 200, ""},
		{"a row that asks for any token, with one", "GET", "/me", bearer(), 200, ""},
		{"a row that asks for a scope, with it", "GET", "/orders", bearer("orders:read"), 200, ""},
		{"HEAD follows GET, with its scope", "HEAD", "/orders", bearer("orders:read"), 200, ""},
		{"another method of the same path", "PUT", "/orders/1", bearer("orders:write"), 200, ""},
		{"below a row that ends in a slash", "DELETE", "/admin/a/b", bearer("admin"), 200, ""},
		{"all that an AllOf asks for", "GET", "/admin/", bearer("admin", "root"), 200, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := do(t, c.method, api+c.target, c.authorization)
			assert.Equal(t, c.status, got.status)
			switch c.status {
			case 400, 401, 403:
				assert.NotContains(t, got.body, " by ", "the router was asked")
				assert.Equal(t, c.scope, valetkeytest.Challenge(t, got.header, "Bearer")["scope"])
			case 200:
				assert.Empty(t, got.challenge())
			}
		})
	}

	t.Run("HTTP-01 the router sees the path that was matched, and the row", func(t *testing.T) {
		assert.Equal(t, "/orders/1 by GET /orders/{id}", do(t, "GET", api+"/orders/1", all).body)
		assert.Equal(t, "/admin/a b by /admin/", do(t, "GET", api+"/admin/a%20b", all).body)
	})
	t.Run("HTTP-01 a redirect leads to the path that is then matched", func(t *testing.T) {
		assert.Equal(t, "/admin/x?y=1", do(t, "GET", api+"/files/..//admin/x?y=1", "").header.Get("Location"))
		assert.Equal(t, "/admin/", do(t, "POST", api+"/admin", "").header.Get("Location"))
	})
	t.Run("a row of a host is for that host alone", func(t *testing.T) {
		host := func(r *http.Request) { r.Host = "tenant.example" }
		assert.Equal(t, 403, do(t, "POST", api+"/orders", bearer("orders:read"), host).status)
		assert.Equal(t, 200, do(t, "POST", api+"/orders", bearer("tenant"), host).status)
		assert.Equal(t, 200, do(t, "GET", api+"/orders", bearer("orders:read"), host).status)
	})
	t.Run("a host in another spelling is the same host", func(t *testing.T) {
		for _, spelling := range []string{"TENANT.example", "tenant.Example", "tenant.example.", "Tenant.Example.:80", "tenant.example:8080"} {
			host := func(r *http.Request) { r.Host = spelling }
			assert.Equal(t, 403, do(t, "POST", api+"/orders", bearer("orders:read", "orders:write"), host).status, spelling)
			assert.Equal(t, 403, do(t, "POST", api+"/orders/1", bearer("tenant"), host).status, spelling)
			assert.Equal(t, 200, do(t, "POST", api+"/orders", bearer("tenant"), host).status, spelling)
			assert.Equal(t, 200, do(t, "POST", api+"/orders/1", bearer("orders:write"), host).status, spelling)
		}
	})
	t.Run("the token is at hand", func(t *testing.T) {
		api := serve(t, tableOf(t, guard, routes.Table{
			"/any": valetkey.AnyToken, "/maybe": valetkey.Optional, "/public": valetkey.Public,
		}, hello))
		assert.Equal(t, "hello alice", do(t, "GET", api+"/any", all).body)
		assert.Equal(t, "hello alice", do(t, "GET", api+"/maybe", all).body)
		assert.Equal(t, "hello nobody", do(t, "GET", api+"/maybe", "").body)
		assert.Equal(t, "hello nobody", do(t, "GET", api+"/public", all).body)
	})
	t.Run("a row for everything leaves nothing to refuse", func(t *testing.T) {
		api := serve(t, tableOf(t, guard, routes.Table{"/{path...}": valetkey.AnyToken}, seen))
		assert.Equal(t, 401, do(t, "GET", api+"/unknown", "").status)
		assert.Equal(t, "/unknown by /{path...}", do(t, "GET", api+"/unknown", all).body)
	})
	t.Run("a preflight is answered only where the guard has an answer", func(t *testing.T) {
		preflight := []func(*http.Request){
			header("Origin", "https://app.example"), header("Access-Control-Request-Method", "GET"),
		}
		cors := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
		table := routes.Table{"GET /orders": scopes.All("orders:read")}
		assert.Equal(t, 401, do(t, "OPTIONS", serve(t, tableOf(t, guard, table, seen))+"/orders", "", preflight...).status)
		answers := newGuard(t, iss, func(c *middleware.Config) { c.Preflight = cors })
		api := serve(t, tableOf(t, answers, table, seen))
		for _, path := range []string{"/orders", "/unknown"} {
			got := do(t, "OPTIONS", api+path, "", preflight...)
			assert.Equal(t, 204, got.status)
			assert.Empty(t, got.body, "the handler was called")
		}
		assert.Equal(t, 401, do(t, "OPTIONS", api+"/orders", "").status)
		assert.Equal(t, 401, do(t, "GET", api+"/orders", "", preflight...).status)
	})
	t.Run("the caller's map is not kept", func(t *testing.T) {
		table := routes.Table{"/x": valetkey.AnyToken}
		h := tableOf(t, guard, table, seen)
		table["/x"] = valetkey.Public
		assert.Equal(t, 401, do(t, "GET", serve(t, h)+"/x", "").status)
	})
	t.Run("all mistakes are named at once", func(t *testing.T) {
		_, err := routes.Table{"GET": valetkey.AnyToken, "/x": nil}.Guard(guard, nil)
		require.Error(t, err)
		for _, part := range []string{`Table["GET"]: the path is missing`, `Table["/x"]: the requirement is nil`, "next: required"} {
			assert.ErrorContains(t, err, part)
		}
	})
}

func TestOpenness(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	guard := newGuard(t, iss)
	for _, c := range []struct {
		name   string
		need   valetkey.Requirement
		nobody int
		token  int
	}{
		{"the zero value outside of a table denies every request", valetkey.Openness(""), 401, 503},
		{"an unknown one denies every request", valetkey.Openness("open"), 401, 503},
		{"Public within another requirement is a mistake", valetkey.AllOf{valetkey.Public}, 401, 503},
		{"Optional within another requirement is a mistake", valetkey.AllOf{valetkey.Optional}, 401, 503},
		{"Public alone", valetkey.Public, 200, 200},
		{"Optional alone", valetkey.Optional, 200, 200},
		{"AnyToken alone", valetkey.AnyToken, 401, 200},
		{"an empty AllOf denies every request", valetkey.AllOf{}, 401, 403},
		{"AnyToken beside another requirement is a mistake", valetkey.AllOf{valetkey.AnyToken, scopes.All("orders")}, 401, 503},
		{"Public beside another requirement is a mistake", valetkey.AllOf{scopes.All("orders"), valetkey.Public}, 401, 503},
		{"an AllOf with one that refuses", valetkey.AllOf{scopes.All("orders"), scopes.All("admin")}, 401, 403},
		{"an AllOf of a nil one is a failure", valetkey.AllOf{nil}, 401, 503},
		{"an AllOf that is met", valetkey.AllOf{scopes.All("orders"), scopes.Any("orders", "admin")}, 401, 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			api := serve(t, guard.Handler(hello, c.need))
			assert.Equal(t, c.nobody, do(t, "GET", api, "").status)
			assert.Equal(t, c.token, do(t, "GET", api, "Bearer "+iss.Token(valetkeytest.Scopes("orders"))).status)
		})
	}
}

// lacks is a requirement that describes itself and that no token meets.
type lacks string

func (l lacks) Describe() valetkey.Needs { return valetkey.Needs{All: valetkey.NewScopes(string(l))} }

func (l lacks) Check(valetkey.Access) error {
	return &valetkey.Error{Code: valetkey.InsufficientScope, Scope: valetkey.NewScopes(string(l))}
}

func TestTableScopes(t *testing.T) {
	t.Run("PRM-12 the scopes of all rows, alternatives included, each once", func(t *testing.T) {
		got := routes.Table{
			"/a": scopes.MustParse("orders:read | admin"),
			"/b": valetkey.AllOf{scopes.All("orders:read"), scopes.Any("b", "c"), lacks("d")},
			"/c": lacks("e"),
			"/d": valetkey.AnyToken,
			"/e": valetkey.Public,
			"/f": scopes.Requirement{},
			"/g": nil,
			"/h": valetkey.RequirementFunc(func(valetkey.Access) error { return nil }),
		}.Scopes()
		assert.Equal(t, valetkey.NewScopes("admin", "b", "c", "d", "e", "orders:read"), got)
	})
}

func TestMux(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	guard := newGuard(t, iss)
	t.Run("HTTP-02 a route cannot be registered without a declaration", func(t *testing.T) {
		var api routes.Mux
		api.HandleFunc("GET /orders", hello, nil)
		_, err := api.Guarded(guard)
		assert.ErrorContains(t, err, `Table["GET /orders"]: the requirement is nil`)
	})
	t.Run("all mistakes are named at once", func(t *testing.T) {
		var api routes.Mux
		api.HandleFunc("GET /a", nil, valetkey.AnyToken)
		api.Handle("GET /b", nil, valetkey.AnyToken)
		api.Handle("GET /c", hello, valetkey.AnyToken)
		api.Handle("GET /c", hello, valetkey.Public)
		api.Handle("/{", hello, valetkey.Public)
		_, err := api.Guarded(guard)
		for _, part := range []string{`Table["GET /a"]: the handler is nil`, `Table["GET /b"]: the handler is nil`, `Table["GET /c"]: registered twice`, `Table["/{"]: parsing`} {
			assert.ErrorContains(t, err, part)
		}
	})
	t.Run("a handler that is a nil function", func(t *testing.T) {
		var api routes.Mux
		api.Handle("GET /a", http.HandlerFunc(nil), valetkey.AnyToken)
		_, err := api.Guarded(guard)
		assert.ErrorContains(t, err, "nil handler")
	})
	t.Run("nothing was registered", func(t *testing.T) {
		_, err := new(routes.Mux).Guarded(guard)
		assert.ErrorContains(t, err, "is empty")
	})
	t.Run("what was registered is served, by its need", func(t *testing.T) {
		var api routes.Mux
		api.HandleFunc("GET /orders/{id}", func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, r.Pattern+" "+r.PathValue("id"))
		}, scopes.All("orders:read"))
		api.Handle("GET /healthz", hello, valetkey.Public)
		h, err := api.Guarded(guard)
		require.NoError(t, err)
		url := serve(t, h)
		assert.Equal(t, 401, do(t, "GET", url+"/orders/7", "").status)
		assert.Equal(t, 403, do(t, "GET", url+"/orders/7", "Bearer "+iss.Token()).status)
		assert.Equal(t, "GET /orders/{id} 7", do(t, "GET", url+"/orders/7", "Bearer "+iss.Token(valetkeytest.Scopes("orders:read"))).body)
		assert.Equal(t, "hello nobody", do(t, "GET", url+"/healthz", "").body)
		assert.Equal(t, routes.Table{"GET /orders/{id}": scopes.All("orders:read"), "GET /healthz": valetkey.Public}, api.Table())
	})
}

func BenchmarkTable(b *testing.B) {
	iss := valetkeytest.NewIssuer(b)
	guard := newGuard(b, iss)
	nothing := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	r := valetkeytest.Request("GET", "/orders/7", iss.Token(valetkeytest.Scopes("orders:read")))
	plain := http.NewServeMux()
	plain.Handle("GET /orders/{id}", guard.Handler(nothing, scopes.All("orders:read")))
	for _, c := range []struct {
		name string
		h    http.Handler
	}{
		{"a ServeMux with a guarded handler", plain},
		{"a table", tableOf(b, guard, routes.Table{"GET /orders/{id}": scopes.All("orders:read"), "/healthz": valetkey.Public}, nothing)},
	} {
		b.Run(c.name, func(b *testing.B) {
			w := httptest.NewRecorder()
			c.h.ServeHTTP(w, r)
			if w.Code != http.StatusOK {
				b.Fatal(errors.New(w.Body.String()))
			}
			b.ReportAllocs()
			for b.Loop() {
				c.h.ServeHTTP(w, r)
			}
		})
	}
}
