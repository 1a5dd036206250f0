package valetopenapi_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/adapters/valetopenapi"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/routes"
	"github.com/valetkey/valetkey/scopes"
	"github.com/valetkey/valetkey/valetkeytest"
)

// document returns one with the schemes of all tests; rest is at the top level.
func document(version, rest string) []byte {
	return []byte("openapi: " + version + `
info: {title: Orders, version: "1"}
components:
  securitySchemes:
    oauth: {type: oauth2, flows: {clientCredentials: {tokenUrl: "https://as.example.com/token", scopes: {}}}}
    oidc: {type: openIdConnect, openIdConnectUrl: "https://as.example.com/.well-known/openid-configuration"}
    jwt: {type: http, scheme: Bearer, bearerFormat: JWT}
    key: {type: apiKey, in: header, name: X-Key}
    basic: {type: http, scheme: basic}
    tls: {type: mutualTLS}
    same: {$ref: "#/components/securitySchemes/oauth"}
` + rest)
}

// operation returns a document with one operation, which has the members, and a top-level security if it is not "".
func operation(security, members string) []byte {
	if security != "" {
		security = "security: " + security + "\n"
	}
	return document("3.1.0", security+"paths: {/orders: {get: {"+members+", responses: {}}}}\n")
}

func TestSecurity(t *testing.T) {
	for _, c := range []struct {
		name               string
		document, security string // of the document, and the members of the operation
		refused            string // what the error says; "": none
		want               any
	}{
		{"nothing anywhere", "", "summary: x", "line 12: GET /orders: security: neither the operation nor the document states", nil},
		{"null anywhere", "null", "security: null", "neither the operation nor the document states", nil},
		{"an unknown scheme", "", "security: [{none: []}]", `the scheme "none" is not among`, nil},
		{"an apiKey", "", "security: [{key: []}]", `the scheme "key" is of type "apiKey"`, nil},
		{"an apiKey and http basic, of which none remains", "", "security: [{key: []}, {basic: []}, {oauth: [a], key: []}]", `the scheme "basic" is http "basic"`, nil},
		{"an unknown scheme beside an apiKey that is skipped", "", "security: [{oauth: [a]}, {key: [], none: []}]", `the scheme "none" is not among`, nil},
		{"an apiKey together with a token", "", "security: [{oauth: [a], key: []}]", `the scheme "key"`, nil},
		{"an apiKey inherited", "[{key: []}]", "summary: x", `the scheme "key"`, nil},
		{"http basic", "", "security: [{basic: []}]", `the scheme "basic" is http "basic"`, nil},
		{"mutual TLS", "", "security: [{tls: []}]", `the scheme "tls" is of type "mutualTLS"`, nil},
		{"an invalid scope", "", `security: [{oauth: ["a b"]}]`, "RFC 6749", nil},
		{"an expression in place of a scope", "", `security: [{oauth: ["a || b"]}]`, "RFC 6749", nil},
		{"an empty scope", "", `security: [{oauth: [""]}]`, "a scope is empty", nil},
		{"an alternative that is null", "", "security: [null]", "an alternative is null", nil},
		{"a scheme with null", "", "security: [{oauth: }]", `"oauth" has null in place of a list`, nil},
		{"security in another spelling", "[]", "Security: [{oauth: [a]}]", `"Security" is spelled security`, nil},
		{"security that is not a list", "", "security: {oauth: [a]}", "read the document", nil},

		{"an empty list is public", "", "security: []", "", valetkey.Public},
		{"an empty list of the document is public", "[]", "summary: x", "", valetkey.Public},
		{"the operation opens what the document closes", "[{oauth: [a]}]", "security: []", "", valetkey.Public},
		{"the operation closes what the document opens", "[]", "security: [{oauth: [a]}]", "", scopes.All("a")},
		{"the operation replaces the document's", "[{oauth: [a]}]", "security: [{oauth: [b]}]", "", scopes.All("b")},
		{"the document's counts without the operation's", "[{oauth: [a]}]", "summary: x", "", scopes.All("a")},
		{"an empty alternative is optional", "", "security: [{oauth: [a]}, {}]", "", valetkey.Optional},
		{"an empty alternative alone", "", "security: [{}]", "", valetkey.Optional},
		{"no scopes is any token", "", "security: [{oauth: []}]", "", valetkey.AnyToken},
		{"any token as an alternative", "", "security: [{oauth: [a]}, {oidc: []}]", "", valetkey.AnyToken},
		{"scopes of one scheme, all", "", "security: [{oauth: [a, b]}]", "", scopes.All("a", "b")},
		{"scopes of two schemes, all", "", "security: [{oauth: [a], oidc: [b], jwt: []}]", "", scopes.All("a", "b")},
		{"alternatives", "", "security: [{oauth: [a, b]}, {oidc: [c]}]", "", scopes.MustParse("a b | c")},
		{"alternatives of one scheme", "", "security: [{oauth: [a]}, {oauth: [b]}]", "", scopes.Any("a", "b")},
		{"an apiKey as an alternative is skipped", "", "security: [{oauth: [a]}, {key: []}]", "", scopes.All("a")},
		{"an apiKey together with a token as an alternative is skipped", "", "security: [{oauth: [a], key: []}, {oidc: [b]}]", "", scopes.All("b")},
		{"http basic and mutual TLS as alternatives are skipped", "", "security: [{basic: []}, {tls: []}, {jwt: []}]", "", valetkey.AnyToken},
		{"an apiKey beside no token at all is skipped", "", "security: [{}, {key: []}]", "", valetkey.Optional},
		{"an apiKey of the document is skipped", "[{key: []}, {oauth: [a]}]", "summary: x", "", scopes.All("a")},
		{"a scheme by reference", "", "security: [{same: [a]}]", "", scopes.All("a")},
		{"roles of bearer in 3.1", "", "security: [{jwt: [a]}]", "", scopes.All("a")},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := valetopenapi.Routes(operation(c.document, c.security))
			if c.refused != "" {
				require.ErrorContains(t, err, c.refused)
				assert.Nil(t, got)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, fmt.Sprint(c.want), fmt.Sprint(got["GET /orders"]))
			assert.IsType(t, c.want, got["GET /orders"])
			assert.Len(t, got, 1)
		})
	}
	t.Run("a scheme of an unknown type as an alternative", func(t *testing.T) {
		_, err := valetopenapi.Routes([]byte(`{"openapi": "3.1.0", "components": {"securitySchemes": {"odd": {"type": "apikey"}, "oauth": {"type": "oauth2"}}},
			"paths": {"/a": {"get": {"security": [{"oauth": ["a"]}, {"odd": []}], "responses": {}}}}}`))
		require.ErrorContains(t, err, `the scheme "odd" is of type "apikey", which OpenAPI does not have`)
	})
	t.Run("bearer has no scopes in 3.0", func(t *testing.T) {
		_, err := valetopenapi.Routes(document("3.0.3", "paths: {/a: {get: {security: [{jwt: [a]}], responses: {}}}}"))
		require.ErrorContains(t, err, "which has no scopes in OpenAPI 3.0")
		got, err := valetopenapi.Routes(document("3.0.3", "paths: {/a: {get: {security: [{jwt: []}], responses: {}}}}"))
		require.NoError(t, err)
		assert.Equal(t, routes.Table{"GET /a": valetkey.AnyToken}, got)
	})
}

func TestDocument(t *testing.T) {
	for _, c := range []struct {
		name     string
		document []byte
		want     []string
	}{
		{"no document", nil, []string{"openapi: \"\" is not 3.0"}},
		{"no OpenAPI", []byte("[]"), []string{"read the document"}},
		{"OpenAPI 2.0", []byte(`{"swagger": "2.0", "paths": {}}`), []string{"is not 3.0, 3.1 or 3.2"}},
		{"OpenAPI 3.3", document("3.3.0", "paths: {}"), []string{`"3.3.0" is not`}},
		{"QUERY before 3.2", document("3.1.0", "security: []\npaths: {/a: {query: {responses: {}}}}"), []string{`/a: "query" is not a field of a path item before OpenAPI 3.2`}},
		{"other methods before 3.2", document("3.0.0", "security: []\npaths: {/a: {additionalOperations: {LINK: {responses: {}}}}}"), []string{`/a: "additionalOperations" is not a field`}},
		{"a method twice in 3.2", document("3.2.0", "security: []\npaths: {/a: {get: {responses: {}}, additionalOperations: {GET: {security: [{oauth: [a]}], responses: {}}}}}"), []string{`/a: additionalOperations: "GET" has a member of the path item: "get"`}},
		{"a method in small letters in 3.2", document("3.2.0", "security: []\npaths: {/a: {additionalOperations: {link: {responses: {}}}}}"), []string{`can never match: methods are case-sensitive`}},
		{"a version that only begins like one", document("3.10.0", "paths: {}"), []string{`"3.10.0" is not`}},
		{"no operations", document("3.1.0", "paths: {}"), []string{"is empty"}},
		{"no paths", document("3.1.0", "webhooks: {}"), []string{"is empty"}},
		{"a path item that is null", document("3.1.0", "paths: {/a: null}"), []string{"is empty"}},
		{"the same path twice", document("3.1.0", "security: []\npaths: {/a: {get: {responses: {}}}, /a: {post: {responses: {}}}}"), []string{"read the document", `"/a" already defined`}},
		{"the same method twice", document("3.1.0", "paths: {/a: {get: {security: [{oauth: [a]}], responses: {}}, get: {security: [], responses: {}}}}"), []string{"read the document", `"get" already defined`}},
		{"the same member twice", document("3.1.0", "paths: {/a: {get: {security: [{oauth: [a]}], security: [], responses: {}}}}"), []string{"read the document", `"security" already defined`}},
		{"the same member twice, in JSON", []byte(`{"openapi": "3.1.0", "paths": {"/a": {"get": {"tags": ["x"], "security": [{"a": []}], "security": [], "responses": {}}}}}`),
			[]string{`read the document: an object has "security" twice`}},
		{"an invalid method", document("3.1.0", "security: []\npaths: {/a: {get: {responses: {}}, Post: {responses: {}}}}"), []string{`/a: "Post" is not a field of a path item`}},
		{"a file elsewhere", document("3.1.0", `paths: {/a: {$ref: "paths.yaml#/a"}}`), []string{"disallowed external reference"}},
		{"a path item of the network", document("3.1.0", `paths: {/a: {$ref: "http://127.0.0.1:1/a.yaml"}}`), []string{"disallowed external reference"}},
		{"a schema of the network", document("3.1.0", `paths: {/a: {get: {security: [], parameters: [{name: x, in: query, schema: {$ref: "http://127.0.0.1:1/s.yaml"}}], responses: {}}}}`), []string{"disallowed external reference"}},
		{"templates that differ in names only", document("3.1.0", "security: []\npaths: {'/a/{x}': {get: {responses: {}}}, '/a/{y}': {get: {responses: {}}}}"), []string{"line 13: GET /a/{y}: matches the same requests as GET /a/{x}"}},
		{"templates that become one", document("3.1.0", "security: []\npaths: {'/a/{x-y}': {get: {responses: {}}}, '/a/{x_y}': {get: {security: [{oauth: [a]}], responses: {}}}}"),
			[]string{"line 13: GET /a/{x_y}: matches the same requests as GET /a/{x-y}"}},
		{"a part of a segment", document("3.1.0", "security: []\npaths: {'/a/{x}.json': {get: {responses: {}}}, '/{x}:cancel': {post: {responses: {}}}}"), []string{
			"line 13: GET /a/{x}.json: cannot be public: net/http has no pattern that matches this path alone", "line 13: POST /{x}:cancel: cannot be public"}},
		{"a part of a segment that is optional", document("3.1.0", "security: [{oauth: [a]}, {}]\npaths: {'/a/{x}.json': {get: {responses: {}}}}"), []string{"line 13: GET /a/{x}.json: cannot be optional"}},
		{"a public template that overlaps another", document("3.1.0", "security: []\npaths: {'/a/{x}/c': {get: {responses: {}}}, '/a/b/{y}': {get: {security: [{oauth: [a]}], responses: {}}}}"),
			[]string{"line 13: GET /a/{x}/c: cannot be public"}},
		{"the same part of a segment with another name", document("3.1.0", "security: [{oauth: [a]}]\npaths: {'/{x}:a': {get: {responses: {}}}, '/{y}:a': {get: {responses: {}}}}"), []string{"line 13: GET /{y}:a: matches the same requests as GET /{x}:a"}},
		{"braces that do not match", document("3.1.0", "security: []\npaths: {'/{x': {get: {responses: {}}}, '/y}': {get: {responses: {}}}, '/{{x}}': {get: {responses: {}}}}"), []string{"/y}", "/{x", "/{{x}}"}},
		{"a query in a path", document("3.1.0", "security: []\npaths: {'/a?b=c': {get: {responses: {}}}}"), []string{"has a query"}},
		{"a path without a slash", document("3.1.0", "security: []\npaths: {a: {get: {responses: {}}}}"), []string{"does not start with a slash"}},
		{"a path that is not clean", document("3.1.0", "security: []\npaths: {'/a//b': {get: {responses: {}}}}"), []string{"can never match"}},
		{"every mistake at once", document("3.1.0", "paths: {/a: {get: {responses: {}}, put: {security: [{key: []}], responses: {}}}, '/b{x}}': {get: {responses: {}}}}"),
			[]string{"line 12: GET /a: security: neither", "line 12: PUT /a: security: the scheme", "line 12: GET /b{x}}: security: neither", "line 12: GET /b{x}}: the braces of"}},
		{"a server that depends", document("3.1.0", "servers: [{url: v1}]\nsecurity: []\npaths: {/a: {get: {responses: {}}}}"), []string{`"v1" depends on where`}},
		{"a server without an address", document("3.1.0", "servers: [{url: ''}]\nsecurity: []\npaths: {/a: {get: {responses: {}}}}"), []string{`"" depends on where`}},
		{"a server with a variable that is not declared", document("3.1.0", "servers: [{url: 'https://a/{v}'}]\nsecurity: []\npaths: {/a: {get: {responses: {}}}}"), []string{"a variable that is not declared"}},
		{"a server that is null", []byte(`{"openapi": "3.1.0", "servers": [null], "security": [], "paths": {"/a": {"get": {}}}}`), []string{"valetopenapi: GET /a: servers: one is null"}},
		{"a server with a query", document("3.1.0", "servers: [{url: 'https://a/?b'}]\nsecurity: []\npaths: {/a: {get: {responses: {}}}}"), []string{"has a query"}},
		{"servers without end", document("3.1.0", manyServers()+"security: []\npaths: {/a: {get: {responses: {}}}}"), []string{"more than 256 combinations"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := valetopenapi.Routes(c.document)
			require.Error(t, err)
			assert.Nil(t, got)
			lines := strings.Split(err.Error(), "\n")
			require.Len(t, lines, len(c.want), err.Error())
			for i, want := range c.want {
				assert.Contains(t, lines[i], want)
			}
			for _, m := range valetkey.ConfigErrors(err) {
				assert.NotContains(t, m.Err.Error(), "valetopenapi", "the package is not part of the mistake")
			}
		})
	}
}

// manyServers has 10^20 combinations of variables.
func manyServers() string {
	url, variables := "https://a", ""
	for i := range 20 {
		url += fmt.Sprintf("/{v%d}", i)
		variables += fmt.Sprintf("v%d: {default: '0', enum: ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9']}, ", i)
	}
	return fmt.Sprintf("servers: [{url: %q, variables: {%s}}]\n", url, variables)
}

func TestPatterns(t *testing.T) {
	for _, c := range []struct {
		name, servers, path string
		want                []string
	}{
		{"a path", "", "/orders", []string{"GET /orders"}},
		{"the root", "", "/", []string{"GET /{$}"}},
		{"a slash at the end is the path and nothing below", "", "/orders/", []string{"GET /orders/{$}"}},
		{"a name", "", "/orders/{id}", []string{"GET /orders/{id}"}},
		{"names that are not identifiers", "", "/{order-id}/{order.id}/{1}/{x...}", []string{"GET /{order_id}/{order_id_}/{_1}/{x___}"}},
		{"a name that ends a path for net/http", "", "/a/{$}", []string{"GET /a/{_}"}},
		{"a path below a server", "servers: [{url: 'https://a.example/v1'}]", "/orders", []string{"GET /v1/orders"}},
		{"a server with a slash at its end", "servers: [{url: 'https://a.example/v1/'}]", "/", []string{"GET /v1/{$}"}},
		{"a server without a path", "servers: [{url: 'https://a.example'}]", "/orders", []string{"GET /orders"}},
		{"a server that is a path", "servers: [{url: /v1}]", "/orders", []string{"GET /v1/orders"}},
		{"two servers with one path", "servers: [{url: 'https://a.example/v1'}, {url: 'http://b.example/v1'}]", "/a", []string{"GET /v1/a"}},
		{"two servers with two", "servers: [{url: 'https://a.example/v1'}, {url: /v2}]", "/a", []string{"GET /v1/a", "GET /v2/a"}},
		{"variables", "servers: [{url: '{scheme}://a.example/{v}', variables: {scheme: {default: https}, v: {default: v1, enum: [v1, v2]}}}]", "/a", []string{"GET /v1/a", "GET /v2/a"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := valetopenapi.Routes(document("3.1.0", fmt.Sprintf("%s\nsecurity: []\npaths: {%q: {get: {responses: {}}}}", c.servers, c.path)))
			require.NoError(t, err)
			want := routes.Table{}
			for _, p := range c.want {
				want[p] = valetkey.Public
			}
			assert.Equal(t, want, got)
		})
	}
	t.Run("servers of the path and of the operation", func(t *testing.T) {
		got, err := valetopenapi.Routes(document("3.0.0", `
servers: [{url: /doc}]
security: [{oauth: [a]}]
paths:
  /a: {servers: [{url: /path}], get: {responses: {}}, post: {servers: [{url: /op}], responses: {}}}
  /b: {servers: [], get: {servers: [], responses: {}}}
`))
		require.NoError(t, err)
		assert.Equal(t, routes.Table{"GET /path/a": scopes.All("a"), "POST /op/a": scopes.All("a"), "GET /doc/b": scopes.All("a")}, got)
	})
	t.Run("the methods of OpenAPI 3.2", func(t *testing.T) {
		got, err := valetopenapi.Routes(document("3.2.0", `
security: [{oauth: [a]}]
paths: {/a: {query: {responses: {}}, additionalOperations: {LINK: {security: [{oauth: [b]}, {key: []}], responses: {}}}}}
`))
		require.NoError(t, err)
		assert.Equal(t, routes.Table{"QUERY /a": scopes.All("a"), "LINK /a": scopes.All("b")}, got)
	})
	t.Run("a path item by reference, and JSON", func(t *testing.T) {
		got, err := valetopenapi.Routes([]byte(`{"openapi": "3.1.1", "info": {"title": "x", "version": "1"}, "security": [],
			"components": {"pathItems": {"a": {"put": {"responses": {}}}}}, "paths": {"/a": {"$ref": "#/components/pathItems/a"}}}`))
		require.NoError(t, err)
		assert.Equal(t, routes.Table{"PUT /a": valetkey.Public}, got)
	})
}

func TestCompare(t *testing.T) {
	doc := document("3.1.0", `
security: [{oauth: [read]}]
paths:
  /orders:
    get: {responses: {}}
    post: {security: [{oauth: [read, write]}, {oidc: [admin]}], responses: {}}
  /orders/{id}:
    get: {responses: {}}
  /news:
    get: {security: [{}], responses: {}}
  /me:
    get: {security: [{oidc: []}], responses: {}}
`)
	same, err := valetopenapi.Routes(doc)
	require.NoError(t, err)
	with := func(change routes.Table) routes.Table {
		table := routes.Table{}
		for p, need := range same {
			table[p] = need
		}
		for p, need := range change {
			table[p] = need
			if need == nil {
				delete(table, p)
			}
		}
		return table
	}
	for _, c := range []struct {
		name   string
		change routes.Table
		want   []string
	}{
		{"an operation without a row", routes.Table{"GET /orders": nil},
			[]string{`line 16: GET /orders: the document asks for the scopes "read", the table has no row`}},
		{"a row without an operation", routes.Table{"DELETE /orders": scopes.All("write")},
			[]string{`DELETE /orders: the table asks for the scopes "write", the document has no such operation`}},
		{"other scopes", routes.Table{"GET /orders": scopes.All("list")},
			[]string{`line 16: GET /orders: the document asks for the scopes "read", the table for the scopes "list"`}},
		{"one scope less", routes.Table{"POST /orders": scopes.MustParse("read | admin")}, []string{`line 17: POST /orders: the document asks for the scopes "read write | admin"`}},
		{"one alternative less", routes.Table{"POST /orders": scopes.All("read", "write")}, []string{"line 17"}},
		{"one alternative more", routes.Table{"POST /orders": scopes.MustParse("read write | admin | root")}, []string{"line 17"}},
		{"a table that opens", routes.Table{"GET /me": valetkey.Public}, []string{`line 23: GET /me: the document asks for any token, the table for public`}},
		{"optional and public", routes.Table{"GET /news": valetkey.Public}, []string{`asks for optional, the table for public`}},
		{"optional and any token", routes.Table{"GET /news": valetkey.AnyToken}, []string{`asks for optional, the table for any token`}},
		{"any token and scopes", routes.Table{"GET /me": scopes.All("me")}, []string{`asks for any token, the table for the scopes "me"`}},
		{"any token and an empty requirement", routes.Table{"GET /me": scopes.Requirement{}}, []string{`the table for an empty requirement, which no token meets`}},
		{"another kind of requirement", routes.Table{"GET /me": valetkey.AllOf{scopes.All("me")}}, []string{`the table for valetkey.AllOf of the scopes "me"`}},
		{"a narrower row beside", routes.Table{"GET /orders/{id}": nil, "GET /orders/7": scopes.All("read")},
			[]string{"line 19: GET /orders/{id}: the document", "GET /orders/7: the table asks"}},
		{"an open row for everything", routes.Table{"/": valetkey.Public, "/orders": scopes.All("read"), "/orders/": scopes.All("read"), "/me": valetkey.AnyToken, "/me/": valetkey.AnyToken},
			[]string{"/: the table asks for public", "/me: the table", "/me/: the table", "/orders: the table", "/orders/: the table"}},

		{"the same", nil, nil},
		{"alternatives in another order, one of them needless", routes.Table{"POST /orders": scopes.MustParse("admin | write read | write admin")}, nil},
		{"the same by another kind", routes.Table{"GET /orders": valetkey.AllOf{scopes.All("read")}}, nil},
		{"wider rows that ask for the same", routes.Table{"GET /orders/{id}": nil, "GET /orders": nil, "GET /orders/": scopes.All("read"), "GET /orders/{$}": nil, "GET /{x}": scopes.All("read")}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := valetopenapi.Compare(doc, with(c.change))
			require.NoError(t, err)
			require.Len(t, got, len(c.want), got)
			for i, want := range c.want {
				assert.Contains(t, got[i].String(), want)
			}
		})
	}
	t.Run("a document with mistakes", func(t *testing.T) {
		_, err := valetopenapi.Compare(nil, same)
		assert.ErrorContains(t, err, "is not 3.0, 3.1 or 3.2")
	})
	t.Run("a table with mistakes", func(t *testing.T) {
		_, err := valetopenapi.Compare(doc, routes.Table{"/": nil})
		assert.ErrorContains(t, err, "the requirement is nil")
	})
}

// petstore is the document of https://petstore.swagger.io (Apache 2.0), in the edition that kin-openapi (MIT) tests with.
func petstore(t *testing.T) map[string]any {
	t.Helper()
	dir, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/getkin/kin-openapi").Output()
	require.NoError(t, err)
	text, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), "openapi3filter/testdata/fixtures/petstore.json"))
	require.NoError(t, err)
	var doc map[string]any
	require.NoError(t, json.Unmarshal(text, &doc))
	return doc
}

func TestPetstore(t *testing.T) {
	doc := petstore(t)
	type operation struct {
		method, path string
		members      map[string]any
	}
	var operations []operation
	for path, item := range doc["paths"].(map[string]any) {
		for method, members := range item.(map[string]any) {
			operations = append(operations, operation{strings.ToUpper(method), path, members.(map[string]any)})
		}
	}
	require.Len(t, operations, 25)

	t.Run("as it is, each operation that leaves the question open is named, and each that asks for a key", func(t *testing.T) {
		text, err := json.Marshal(doc)
		require.NoError(t, err)
		_, err = valetopenapi.Routes(text)
		require.Error(t, err)
		for _, op := range operations {
			mistake := "neither the operation nor the document states"
			switch security := fmt.Sprint(op.members["security"]); {
			case strings.Contains(security, "api_key"):
				mistake = `the scheme "api_key"`
			case security != "<nil>":
				assert.NotContains(t, err.Error(), op.method+" "+op.path+": ")
				continue
			}
			assert.Regexp(t, `(?m)^valetopenapi: `+op.method+` \Q`+op.path+`\E: security: `+mistake, err.Error())
		}
	})

	t.Run("with an answer for each, it is enforced operation by operation", func(t *testing.T) {
		for _, op := range operations {
			switch security := fmt.Sprint(op.members["security"]); {
			case strings.Contains(security, "api_key"):
				op.members["security"] = []any{map[string]any{"petstore_auth": []string{"read:pets"}}}
			case security == "<nil>" && strings.HasPrefix(op.path, "/store"):
				op.members["security"] = []any{map[string]any{"petstore_auth": []string{}}}
			}
		}
		doc["security"] = []any{}
		text, err := json.Marshal(doc)
		require.NoError(t, err)
		table, err := valetopenapi.Routes(text)
		require.NoError(t, err)
		require.Len(t, table, len(operations))
		differences, err := valetopenapi.Compare(text, table)
		require.NoError(t, err)
		require.Empty(t, differences)

		iss := valetkeytest.NewIssuer(t)
		keys, err := jwks.New(jwks.Config{Issuer: iss.URL, Audience: []string{valetkeytest.DefaultAudience}, Client: iss.Client(), Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		t.Cleanup(keys.Close)
		require.NoError(t, keys.Ready(t.Context())) // a request would wait for two seconds only
		guard, err := middleware.New(middleware.Config{Verifier: keys, Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		api, err := table.Guard(guard, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }))
		require.NoError(t, err)
		status := func(method, path, token string) (int, string) {
			w := httptest.NewRecorder()
			api.ServeHTTP(w, valetkeytest.Request(method, path, token))
			if w.Header().Get("WWW-Authenticate") == "" {
				return w.Code, ""
			}
			return w.Code, valetkeytest.Challenge(t, w.Header(), "Bearer")["scope"]
		}
		plain, reads := iss.Token(), iss.Token(valetkeytest.Scopes("read:pets"))
		both := iss.Token(valetkeytest.Scopes("read:pets", "write:pets"))
		for _, op := range operations {
			path := "/v2" + strings.NewReplacer("{petId}", "7", "{orderId}", "7", "{username}", "alice").Replace(op.path)
			t.Run(op.method+" "+op.path, func(t *testing.T) {
				var got [4]string
				for i, token := range []string{"", plain, reads, both} {
					code, scope := status(op.method, path, token)
					got[i] = strings.TrimSpace(fmt.Sprint(code, " ", scope))
				}
				want := [4]string{"200", "200", "200", "200"}
				switch security := fmt.Sprint(op.members["security"]); {
				case strings.Contains(security, "write:pets"):
					want = [4]string{"401 read:pets write:pets", "403 read:pets write:pets", "403 read:pets write:pets", "200"}
				case strings.Contains(security, "read:pets"):
					want = [4]string{"401 read:pets", "403 read:pets", "200", "200"}
				case security != "<nil>":
					want = [4]string{"401", "200", "200", "200"}
				}
				assert.Equal(t, want, got)
				code, _ := status("TRACE", path, both)
				assert.Equal(t, http.StatusForbidden, code, "a method that the document does not have")
			})
		}
	})
}

// FuzzRoutes proves that whatever is read makes a table that a guard takes.
func FuzzRoutes(f *testing.F) {
	f.Add(operation("[]", "security: [{oauth: [a]}, {}]"))
	f.Add(document("3.0.0", "paths: {'/a/{x-y}/': {get: {security: [], responses: {}}}}"))
	f.Add(document("3.1.0", manyServers()))
	f.Add(document("3.2.0", overlapping))
	for _, text := range []string{
		`{"openapi": "3.1.0", "paths": {"/": {"get": null, "parameters": [null]}}}`,
		`{"openapi": "3.1.0", "security": [], "servers": [null, {"url": "/{a}", "variables": {"a": null}}], "paths": {"/a": {"get": {}}}}`,
		`{"openapi": "3.1.0", "components": {"securitySchemes": {"a": null}}, "paths": {"/a": {"get": {"security": [{"a": []}]}}}}`,
		`{"openapi": "3.1.0", "security": [], "components": {"pathItems": {"a": {"$ref": "#/components/pathItems/a"}}}, "paths": {"/a": {"$ref": "#/components/pathItems/a"}, "/b": {"$ref": "#/paths/~1b"}}}`,
		"openapi: 3.1.0\nsecurity: []\npaths: {/a: &a {get: {}}, /b: *a}",
	} {
		f.Add([]byte(text))
	}
	guard, err := middleware.New(middleware.Config{Verifier: valetkey.First(), Logger: slog.New(slog.DiscardHandler)})
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, document []byte) {
		table, err := valetopenapi.Routes(document)
		if err != nil {
			require.Nil(t, table)
			return
		}
		_, err = table.Guard(guard, http.NotFoundHandler())
		require.NoError(t, err)
		differences, err := valetopenapi.Compare(document, table)
		require.NoError(t, err)
		require.Empty(t, differences)
	})
}
