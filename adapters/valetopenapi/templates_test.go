package valetopenapi_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/adapters/valetopenapi"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/routes"
	"github.com/valetkey/valetkey/scopes"
	"github.com/valetkey/valetkey/valetkeytest"
)

// overlapping has operations whose templates net/http has no patterns for, or no order. Each needs the scope of its name.
const overlapping = `
paths:
  /orders/{id}: {get: {security: [{oauth: [get]}], responses: {}}, post: {security: [{oauth: [update]}], responses: {}}}
  /orders/{id}:activate: {post: {security: [{oauth: [activate]}], responses: {}}}
  /orders/{id}:batch:activate: {post: {security: [{oauth: [batch]}], responses: {}}}
  /orders/current:activate: {post: {security: [{oauth: [current]}], responses: {}}}
  /v1/{name}:cancel: {post: {security: [{oauth: [cancel]}], responses: {}}}
  /Orders({id}): {get: {security: [{oauth: [odata]}], responses: {}}}
  /Items(order={order},line={line}): {get: {security: [{oauth: []}], responses: {}}}
  /files/{name}.{type}: {get: {security: [{oauth: [typed]}], responses: {}}}
  /{area}/{thing}: {get: {security: [{oauth: [thing]}], responses: {}}}
  /a/{x}/c: {get: {security: [{oauth: [xc]}], responses: {}}}
  /a/b/{y}: {get: {security: [{oauth: [by]}], responses: {}}}
  /a/b/d: {get: {security: [{oauth: [abd]}], responses: {}}}
`

func TestTemplates(t *testing.T) {
	table, err := valetopenapi.Routes(document("3.1.0", overlapping))
	require.NoError(t, err)
	iss, quiet := valetkeytest.NewIssuer(t), slog.New(slog.DiscardHandler)
	keys, err := jwks.New(jwks.Config{Issuer: iss.URL, Audience: []string{valetkeytest.DefaultAudience}, Client: iss.Client(), Logger: quiet})
	require.NoError(t, err)
	t.Cleanup(keys.Close)
	require.NoError(t, keys.Ready(t.Context())) // a request would wait for two seconds only
	guard, err := middleware.New(middleware.Config{Verifier: keys, Logger: quiet})
	require.NoError(t, err)
	api, err := table.Guard(guard, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }))
	require.NoError(t, err)
	status := func(method, path, token string) int {
		w := httptest.NewRecorder()
		api.ServeHTTP(w, valetkeytest.Request(method, path, token))
		return w.Code
	}
	every := strings.Fields("get update activate batch current cancel odata typed thing xc by abd")
	for _, c := range []struct {
		name, method, path string
		needs              string // the scopes; "none": no token has enough; "": any token
	}{
		{"a custom method that no template has", "POST", "/v1/7:activate", "none"},
		{"a custom method of nothing", "POST", "/v1/:cancel", "none"},
		{"something after a custom method", "POST", "/v1/7:cancel2", "none"},
		{"another path below", "POST", "/v1/7", "none"},
		{"another HTTP method", "DELETE", "/orders/7:activate", "none"},
		{"parentheses that do not close", "GET", "/Orders(7", "none"},
		{"parentheses around nothing", "GET", "/Orders()", "none"},
		{"a name that is missing", "GET", "/Items(order=1)", "none"},
		{"a value that is missing", "GET", "/Items(order=1,line=)", "none"},
		{"segments of two templates, which only together match", "GET", "/a/x/d", "none"},

		{"the wider template", "POST", "/orders/7", "update"},
		{"a custom method, of which the wider template is not the one", "POST", "/orders/7:activate", "activate"},
		{"a custom method that is encoded", "POST", "/orders/7%3Aactivate", "activate"},
		{"a literal, which is narrower than a custom method", "POST", "/orders/current:activate", "current"},
		{"two custom methods, of which neither is narrower", "POST", "/orders/7:batch:activate", "activate batch"},
		{"a custom method where no wider template is", "POST", "/v1/7:cancel", "cancel"},
		{"a custom method of a value with colons", "POST", "/v1/a:b:cancel", "cancel"},
		{"parentheses", "GET", "/Orders(7)", "odata"},
		{"parentheses in parentheses", "GET", "/Orders((7))", "odata"},
		{"parentheses with names", "GET", "/Items(order=1,line=2)", ""},
		{"two parameters", "GET", "/files/a.json", "typed"},
		{"two parameters with dots", "GET", "/files/a.tar.gz", "typed"},
		{"what only the wider template matches", "GET", "/files/json", "thing"},
		{"what only the wider template matches, at the end of a dot", "GET", "/files/json.", "thing"},
		{"a template that is narrower by its first segment", "GET", "/orders/7", "get"},
		{"a template that overlaps, alone", "GET", "/a/x/c", "xc"},
		{"the other one, alone", "GET", "/a/b/x", "by"},
		{"two templates of which neither is narrower", "GET", "/a/b/c", "by xc"},
		{"a literal beside them", "GET", "/a/b/d", "abd"},
	} {
		t.Run(c.name, func(t *testing.T) {
			assert.Equal(t, 401, status(c.method, c.path, ""))
			all := iss.Token(valetkeytest.Scopes(every...))
			if c.needs == "none" {
				assert.Equal(t, 403, status(c.method, c.path, all))
				return
			}
			assert.Equal(t, 200, status(c.method, c.path, all))
			assert.Equal(t, 200, status(c.method, c.path, iss.Token(valetkeytest.Scopes(strings.Fields(c.needs)...))))
			for _, needed := range strings.Fields(c.needs) {
				var others []string
				for _, s := range every {
					if s != needed {
						others = append(others, s)
					}
				}
				assert.Equal(t, 403, status(c.method, c.path, iss.Token(valetkeytest.Scopes(others...))), "without %s", needed)
			}
		})
	}
	t.Run("the patterns of rows", func(t *testing.T) {
		for pattern, need := range map[string]string{
			"POST /v1/{name_cancel}":        "cancel for /v1/{name}:cancel",
			"POST /orders/current:activate": "current",
			"POST /orders/{p1}":             "update for /orders/{id}; activate for /orders/{id}:activate; batch for /orders/{id}:batch:activate",
			"GET /a/b/d":                    "abd",
			"GET /a/{p1}/{p2}":              "by for /a/b/{y}; xc for /a/{x}/c",
			"GET /{p0}/{p1}":                "typed for /files/{name}.{type}; thing for /{area}/{thing}",
			"GET /orders/{id}":              "get",
		} {
			assert.Equal(t, need, fmt.Sprint(table[pattern]), pattern)
		}
	})
	t.Run("the metadata lists the scopes of all templates", func(t *testing.T) {
		assert.Equal(t, scopes.All(every...).Describe().All, table.Scopes())
	})
	t.Run("a table by hand is compared template by template", func(t *testing.T) {
		document := document("3.1.0", overlapping)
		differences, err := valetopenapi.Compare(document, table)
		require.NoError(t, err)
		assert.Empty(t, differences)
		own := routes.Table{}
		for pattern, need := range table {
			own[pattern] = need
		}
		own["POST /v1/{name_cancel}"], own["POST /orders/{p1}"] = scopes.All("cancel"), scopes.All("update")
		differences, err = valetopenapi.Compare(document, own)
		require.NoError(t, err)
		var got []string
		for _, d := range differences {
			got = append(got, d.String())
		}
		assert.Equal(t, []string{
			`line 15: POST /orders/{id}:activate: the document asks for the scopes "activate", the table for the scopes "update"`,
			`line 16: POST /orders/{id}:batch:activate: the document asks for the scopes "batch", the table for the scopes "update"`,
		}, got)
	})
}
