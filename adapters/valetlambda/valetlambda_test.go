package valetlambda_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/adapters/valetlambda"
	"github.com/valetkey/valetkey/dpop"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/routes"
	"github.com/valetkey/valetkey/scopes"
	"github.com/valetkey/valetkey/valetkeytest"
)

var (
	kinds = []valetlambda.Kind{valetlambda.REST, valetlambda.RESTToken, valetlambda.HTTP, valetlambda.HTTPPolicy}
	table = routes.Table{
		"GET /{$}":         valetkey.AnyToken,
		"GET /public":      valetkey.Public,
		"GET /orders":      scopes.All("orders:read"),
		"GET /orders/{id}": scopes.All("orders:read"),
		"POST /orders":     scopes.All("orders:write"),
		"GET /files/":      scopes.All("orders:read"),
		"/admin/":          scopes.All("admin"),
		"GET /broken":      valetkey.RequirementFunc(func(valetkey.Access) error { panic("broken") }),
		"GET /$connect":    scopes.All("orders:read"),
	}
)

func newGuard(t testing.TB, iss *valetkeytest.Issuer, base string) *middleware.Guard {
	t.Helper()
	keys, err := jwks.New(jwks.Config{Issuer: iss.URL, Audience: []string{valetkeytest.DefaultAudience}, Client: iss.Client(), Now: iss.Now,
		Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	t.Cleanup(keys.Close)
	proofs, err := dpop.New(dpop.Config{})
	require.NoError(t, err)
	guard, err := middleware.New(middleware.Config{
		Verifier: keys, DPoP: proofs, URL: valetlambda.URL(base), ClientCertificate: middleware.TLSCertificate(), Now: iss.Now,
		Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	return guard
}

func newAuthorizer(t testing.TB, guard *middleware.Guard, kind valetlambda.Kind, change ...func(*valetlambda.Config)) *valetlambda.Authorizer {
	t.Helper()
	decider, err := table.Decider(guard)
	require.NoError(t, err)
	cfg := valetlambda.Config{Decider: decider, Kind: kind}
	for _, f := range change {
		f(&cfg)
	}
	a, err := valetlambda.New(cfg)
	require.NoError(t, err)
	return a
}

// A request is what a client sends to API Gateway.
type request struct {
	method, path string // as sent
	header       http.Header
	certificate  string // in PEM
	route        string // template of the route of an HTTP API; empty: that of the decoded path
}

func get(path string, lines ...string) request {
	h := http.Header{}
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		h[name] = append(h[name], value) // as sent: the case is that of the client
	}
	return request{method: "GET", path: path, header: h}
}

const (
	account = "arn:aws:execute-api:eu-west-1:123456789012:a1b2c3d4e5/"
	domain  = "a1b2c3d4e5.execute-api.eu-west-1.amazonaws.com"
)

// event returns the event about x of an API with the stage prod, or $default for an HTTP API, as AWS documents it.
func event(t testing.TB, kind valetlambda.Kind, x request, change ...func(event map[string]any)) []byte {
	t.Helper()
	path, query, _ := strings.Cut(x.path, "?")
	single, certificate := map[string]string{}, map[string]any{
		"clientCertPem": x.certificate, "subjectDN": "CN=client", "issuerDN": "CN=ca", "serialNumber": "01",
		"validity": map[string]any{"notBefore": "May 28 12:30:02 2026 GMT", "notAfter": "Aug  5 09:36:04 2027 GMT"},
	}
	for name, values := range x.header {
		single[name] = values[len(values)-1]
	}
	e := map[string]any{"type": "REQUEST"}
	switch kind {
	case valetlambda.RESTToken:
		e = map[string]any{"type": "TOKEN", "methodArn": account + "prod/" + x.method + path, "authorizationToken": x.header.Get("Authorization")}
	case valetlambda.REST, valetlambda.WebSocket:
		identity := map[string]any{"apiKey": "", "sourceIp": "192.0.2.1"}
		if x.certificate != "" {
			identity["clientCert"] = certificate
		}
		parameters, err := url.ParseQuery(query)
		require.NoError(t, err)
		maps.Copy(e, map[string]any{"headers": single, "multiValueHeaders": x.header, "queryStringParameters": map[string]string{},
			"multiValueQueryStringParameters": parameters, "pathParameters": map[string]string{}, "stageVariables": map[string]string{}})
		if kind == valetlambda.WebSocket {
			e["methodArn"] = account + "prod/$connect"
			e["requestContext"] = map[string]any{"routeKey": "$connect", "eventType": "CONNECT", "connectionId": "A1b2cdefIAMCE3w=", "stage": "prod",
				"domainName": domain, "apiId": "a1b2c3d4e5", "identity": identity}
			break
		}
		maps.Copy(e, map[string]any{
			"methodArn": account + "prod/" + x.method + path, "resource": path, "path": path, "httpMethod": x.method,
			"requestContext": map[string]any{"path": "/prod" + path, "accountId": "123456789012", "resourceId": "05c7jb", "stage": "prod",
				"requestId": "r", "identity": identity, "resourcePath": path, "httpMethod": x.method, "apiId": "a1b2c3d4e5", "domainName": domain},
		})
	default:
		decoded, err := url.PathUnescape(path) // as HTTP APIs do
		require.NoError(t, err)
		decoded, _, _ = strings.Cut(decoded, "?")
		lower := map[string]string{}
		for name, values := range x.header {
			lower[strings.ToLower(name)] = strings.Join(values, ",")
		}
		route := x.route
		if route == "" {
			route = decoded
		}
		parameters := map[string]string{}
		if prefix, name, found := strings.Cut(route, "{"); found {
			parameters[strings.TrimSuffix(name, "}")] = strings.TrimPrefix(decoded, prefix)
		}
		requestContext := map[string]any{"accountId": "123456789012", "apiId": "a1b2c3d4e5", "domainName": domain, "stage": "$default", "requestId": "r",
			"routeKey": x.method + " " + route, "http": map[string]any{"method": x.method, "path": decoded, "protocol": "HTTP/1.1", "sourceIp": "192.0.2.1"}}
		if x.certificate != "" {
			requestContext["authentication"] = map[string]any{"clientCert": certificate}
		}
		maps.Copy(e, map[string]any{"version": "2.0", "routeArn": account + "$default/" + x.method + decoded, "routeKey": x.method + " " + route,
			"identitySource": []string{}, "rawPath": decoded, "rawQueryString": query, "headers": lower, "pathParameters": parameters, "requestContext": requestContext})
	}
	for _, f := range change {
		f(e)
	}
	payload, err := json.Marshal(e)
	require.NoError(t, err)
	return payload
}

// An answer is what an authorizer has answered.
type answer struct {
	result  string // allow, deny, "401" or "500"
	context map[string]any
	arn     string
	text    string
}

// ask invokes an authorizer, and reads its answer as API Gateway does.
func ask(t testing.TB, ctx context.Context, a *valetlambda.Authorizer, payload []byte) answer {
	t.Helper()
	text, err := a.Invoke(ctx, payload)
	if err != nil {
		assert.Nil(t, text)
		if err.Error() == "Unauthorized" {
			return answer{result: "401", text: err.Error()}
		}
		return answer{result: "500", text: err.Error()}
	}
	var got struct {
		IsAuthorized   *bool
		PrincipalID    string
		PolicyDocument struct {
			Version   string
			Statement []struct {
				Effect           string
				Action, Resource []string
			}
		}
		Context map[string]any
	}
	require.NoError(t, json.Unmarshal(text, &got))
	all := answer{result: "deny", context: got.Context, text: string(text)}
	if got.IsAuthorized != nil {
		assert.Empty(t, got.PolicyDocument.Statement)
		if *got.IsAuthorized {
			all.result = "allow"
		}
		return all
	}
	require.Len(t, got.PolicyDocument.Statement, 1)
	s := got.PolicyDocument.Statement[0]
	assert.NotEmpty(t, got.PrincipalID)
	assert.Equal(t, "2012-10-17", got.PolicyDocument.Version)
	assert.Equal(t, []string{"execute-api:Invoke"}, s.Action)
	require.Len(t, s.Resource, 1)
	assert.NotContains(t, s.Resource[0], "*", "a policy for one resource")
	if all.arn = s.Resource[0]; s.Effect == "Allow" {
		all.result = "allow"
	}
	return all
}

// expected returns the result that an API of the kind can express for a status.
func expected(kind valetlambda.Kind, status int) string {
	switch {
	case status == 200:
		return "allow"
	case status >= 500:
		return "500"
	case status == 401 && (kind == valetlambda.REST || kind == valetlambda.RESTToken || kind == valetlambda.WebSocket):
		return "401"
	}
	return "deny"
}

func TestAuthorizer(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	guard := newGuard(t, iss, "https://api.example.com")
	bearer := "Authorization: Bearer " + iss.Token(valetkeytest.Scopes("orders:read"))
	admin := "Authorization: Bearer " + iss.Token(valetkeytest.Scopes("orders:read", "admin"))
	with := func(x request, set func(*request)) request { set(&x); return x }
	for _, kind := range kinds {
		a := newAuthorizer(t, guard, kind)
		for _, c := range []struct {
			name   string
			x      request
			status int
		}{
			{"no token", get("/orders"), 401},
			{"a bad token", get("/orders", "Authorization: Bearer x"), 401},
			{"an expired token", get("/orders", "Authorization: Bearer "+iss.Token(valetkeytest.Expired())), 401},
			{"a forged token", get("/orders", "Authorization: Bearer "+iss.Token(valetkeytest.TamperedSignature())), 401},
			{"another scheme", get("/orders", "Authorization: Basic eDp4"), 401},
			{"two tokens in one line", get("/orders", "Authorization: Bearer a,Bearer b"), 400},
			{"no row", get("/elsewhere", bearer), 403},
			{"no row, no token", get("/elsewhere"), 401},
			{"another method than that of the row", request{method: "DELETE", path: "/orders", header: get("", bearer).header}, 403},
			{"too little scope", request{method: "POST", path: "/orders", header: get("", bearer).header}, 403},
			{"a method in lower case", request{method: "get", path: "/orders", header: get("", bearer).header}, 400},
			{"a path that reads as an authority", get("//admin/", admin), 400},
			{"dot segments", get("/orders/../admin/", admin), 400},
			{"dots with a parameter", get("/files/..;/admin/", admin), 400},
			{"encoded dot segments", get("/files/%2e%2E/admin/", admin), 400},
			{"an encoded slash", get("/files/a%2Fb", admin), 400},
			{"an encoded slash in lower case", with(get("/orders/a%2fb", admin), func(x *request) { x.route = "/orders/{id}" }), 400},
			{"an encoded backslash", get("/files/a%5c..%5cadmin", admin), 400},
			{"an encoded NUL", get("/orders%00", admin), 400},
			{"a path without the final slash of its row", get("/admin", admin), 400},
			{"a wildcard of policies", with(get("/orders/*", bearer), func(x *request) { x.route = "/orders/{id}" }), 400},
			{"a name with a line break", get("/orders", "Authorization: Bearer "+iss.Token(valetkeytest.Scopes("orders:read"), valetkeytest.Subject("a\nb"))), 401},
			{"a panic in a requirement", get("/broken", bearer), 503},

			{"a public row", get("/public"), 200},
			{"a public row with a bad token", get("/public", "Authorization: Bearer x"), 200},
			{"a good token", get("/orders", bearer), 200},
			{"the root", get("/", bearer), 200},
		} {
			t.Run(string(kind)+"/"+c.name, func(t *testing.T) {
				if kind == valetlambda.HTTP && c.name == "a wildcard of policies" {
					c.status = 200 // there is no policy
				}
				if strings.HasPrefix(string(kind), "http") && c.name == "an encoded slash" {
					c.x.route = "/files/{name}" // as the API chose it for one segment
				}
				got := ask(t, t.Context(), a, event(t, kind, c.x))
				assert.Equal(t, expected(kind, c.status), got.result, got.text)
				switch got.result {
				case "allow":
					if kind != valetlambda.HTTP {
						assert.True(t, strings.HasSuffix(got.arn, "/"+c.x.method+c.x.path), got.arn)
					}
					if strings.HasPrefix(c.name, "a public row") {
						assert.Equal(t, map[string]any{"subject": "", "client": "", "scope": "", "expires": ""}, got.context)
					}
				case "deny":
					assert.NotContains(t, got.context, "subject")
				case "500":
					assert.NotContains(t, got.text, "broken", "the guard logs it")
				}
			})
		}
	}
}

func TestContextIdentifiesTheCaller(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	guard := newGuard(t, iss, "https://api.example.com")
	expiry := iss.Now().Add(10 * time.Minute).Unix()
	token := iss.Token(valetkeytest.Scopes("orders:read", "orders:write"), valetkeytest.Subject("Zoë%"), valetkeytest.Claim("exp", expiry))
	expires, err := json.Marshal(expiry)
	require.NoError(t, err)
	want := map[string]any{"subject": "Zoë%", "client": "orders-app", "scope": "orders:read orders:write", "expires": string(expires)}
	for _, kind := range append(kinds, valetlambda.WebSocket) {
		got := ask(t, t.Context(), newAuthorizer(t, guard, kind), event(t, kind, get("/orders", "Authorization: Bearer "+token)))
		assert.Equal(t, "allow", got.result, got.text)
		assert.Equal(t, want, got.context, kind)
	}
}

func TestRefusalsForScopeCarryTheChallenge(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	guard := newGuard(t, iss, "https://api.example.com")
	for _, kind := range kinds {
		got := ask(t, t.Context(), newAuthorizer(t, guard, kind), event(t, kind, get("/orders", "Authorization: Bearer "+iss.Token())))
		assert.Equal(t, "deny", got.result)
		assert.Contains(t, got.context["challenge"], `Bearer realm="api"`)
		assert.Contains(t, got.context["challenge"], `error="insufficient_scope"`)
		assert.Contains(t, got.context["challenge"], `scope="orders:read"`)
	}
}

func TestPolicyAllowsOnlyTheResourceThatWasAskedFor(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	a := newAuthorizer(t, newGuard(t, iss, "https://api.example.com"), valetlambda.REST)
	text, err := a.Invoke(t.Context(), event(t, valetlambda.REST, get("/public")))
	require.NoError(t, err)
	assert.JSONEq(t, `{
		"principalId": "anonymous",
		"policyDocument": {"Version": "2012-10-17", "Statement": [{
			"Action": ["execute-api:Invoke"], "Effect": "Allow",
			"Resource": ["arn:aws:execute-api:eu-west-1:123456789012:a1b2c3d4e5/prod/GET/public"]
		}]},
		"context": {"subject": "", "client": "", "scope": "", "expires": ""}
	}`, string(text))
	for _, path := range []string{"/orders/*", "/orders/?", "/orders/${aws:userid}", "/orders/a*b"} {
		x := get("/orders/7", "Authorization: Bearer "+iss.Token(valetkeytest.Scopes("orders:read")))
		got := ask(t, t.Context(), a, event(t, valetlambda.REST, x, func(e map[string]any) { e["methodArn"] = account + "prod/GET" + path }))
		assert.Equal(t, "deny", got.result, path)
		assert.NotContains(t, got.arn, "$")
	}
}

func TestHeaders(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	guard := newGuard(t, iss, "https://api.example.com")
	token := iss.Token(valetkeytest.Scopes("orders:read"))
	bearer := "Authorization: Bearer " + token
	for _, kind := range []valetlambda.Kind{valetlambda.REST, valetlambda.HTTP, valetlambda.HTTPPolicy} {
		a := newAuthorizer(t, guard, kind)
		for _, c := range []struct {
			name   string
			x      request
			status int
		}{
			{"two tokens", get("/orders", bearer, bearer), 400},
			{"an identity header", get("/orders", bearer, "X-Valetkey-Subject: root"), 400},
			{"an identity header in lower case", get("/orders", bearer, "x-valetkey-scope: admin"), 400},
			{"an identity header with underscores", get("/orders", bearer, "X_Valetkey_Scope: admin"), 400},
			{"an identity header on a public row", get("/public", "X-Valetkey-Client: x"), 400},
			{"a name in lower case", get("/orders", "authorization: Bearer "+token), 200},
			{"a name in capitals", get("/orders", "AUTHORIZATION: Bearer "+token), 200},
			{"headers in which gateways report URLs", get("/orders", bearer, "X-Forwarded-Host: evil.example", "X-Forwarded-Uri: /public", "X-Original-Url: /public"), 200},
		} {
			t.Run(string(kind)+"/"+c.name, func(t *testing.T) {
				got := ask(t, t.Context(), a, event(t, kind, c.x))
				assert.Equal(t, expected(kind, c.status), got.result, got.text)
			})
		}
	}
	rest := newAuthorizer(t, guard, valetlambda.REST)
	for _, c := range []struct {
		name          string
		single, multi any
		status        int
	}{
		{"two tokens in different letter case", map[string]string{"Authorization": "Bearer " + token},
			map[string][]string{"Authorization": {"Bearer " + token}, "authorization": {"Bearer x"}}, 400},
		{"two tokens in one form only", map[string]string{"Authorization": "Bearer " + token, "authorization": "Bearer " + token}, nil, 400},
		{"a token that the complete form lacks", map[string]string{"Authorization": "Bearer " + token}, map[string][]string{}, 400},
		{"a token that differs in the two forms", map[string]string{"Authorization": "Bearer " + token},
			map[string][]string{"Authorization": {"Bearer x"}}, 400},
		{"no headers at all", nil, nil, 401},
		{"the complete form only", nil, map[string][]string{"Authorization": {"Bearer " + token}}, 200},
		{"the other form only", map[string]string{"authorization": "Bearer " + token}, nil, 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := ask(t, t.Context(), rest, event(t, valetlambda.REST, get("/orders"), func(e map[string]any) {
				e["headers"], e["multiValueHeaders"] = c.single, c.multi
			}))
			assert.Equal(t, expected(valetlambda.REST, c.status), got.result, got.text)
		})
	}
}

// HTTP APIs decode the path of an event, and end it at a decoded question mark.
func TestPathsOfHTTPAPIs(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	guard := newGuard(t, iss, "https://api.example.com")
	bearer := iss.Token(valetkeytest.Scopes("orders:read"))
	strict := newAuthorizer(t, guard, valetlambda.HTTP)
	lax := newAuthorizer(t, guard, valetlambda.HTTP, func(c *valetlambda.Config) { c.AllowDecodedPaths = true })
	prefixed := newAuthorizer(t, guard, valetlambda.HTTP, func(c *valetlambda.Config) { c.PathPrefix = "/prod" })
	type parameters map[string]string
	for _, c := range []struct {
		name, path, route string
		parameters        parameters
		a                 *valetlambda.Authorizer
		want              string
	}{
		{"a percent sign that remains", "/orders/%2F", "GET /orders/{id}", parameters{"id": "%2F"}, strict, "deny"},
		{"a backslash", `/orders/\`, "GET /orders/{id}", parameters{"id": `\`}, strict, "deny"},
		{"a number sign", "/orders/#", "GET /orders/{id}", parameters{"id": "#"}, strict, "deny"},
		{"a line break", "/orders/\n", "GET /orders/{id}", parameters{"id": "\n"}, strict, "deny"},
		{"a path that ended at an encoded question mark", "/orders/7", "GET /orders/{id}", parameters{"id": "7?x"}, strict, "deny"},
		{"a path that ended at an encoded question mark, the parameter is encoded", "/orders/7", "GET /orders/{id}", parameters{"id": "7%3Fx"}, strict, "deny"},
		{"a slash in a parameter of one segment", "/files/a/b", "GET /files/{name}", parameters{"name": "a/b"}, strict, "deny"},
		{"an encoded slash in a parameter of one segment", "/files/a/b", "GET /files/{name}", parameters{"name": "a%2Fb"}, strict, "deny"},
		{"another path than that of the route", "/files/x", "GET /orders/{id}", parameters{"id": "x"}, strict, "deny"},
		{"a route without the parameter", "/orders/7", "GET /orders/{id}", nil, strict, "deny"},
		{"a greedy route", "/files/a/b", "GET /files/{proxy+}", parameters{"proxy": "a/b"}, strict, "deny"},
		{"a route for all methods and paths", "/orders", "$default", nil, strict, "deny"},
		{"a greedy route that does not fit", "/files/a", "GET /admin/{proxy+}", parameters{"proxy": "a"}, lax, "deny"},
		{"dots in a greedy route", "/files/../admin/", "GET /files/{proxy+}", parameters{"proxy": "../admin/"}, lax, "deny"},
		{"no prefix", "/orders", "GET /orders", nil, prefixed, "deny"},
		{"a longer prefix", "/production/orders", "GET /orders", nil, prefixed, "deny"},
		{"only the prefix", "/prod", "GET /", nil, prefixed, "deny"},

		{"a parameter", "/orders/7", "GET /orders/{id}", parameters{"id": "7"}, strict, "allow"},
		{"a parameter that was encoded", "/orders/ü 7", "GET /orders/{id}", parameters{"id": "ü 7"}, strict, "allow"},
		{"a parameter that is encoded", "/orders/ü 7", "GET /orders/{id}", parameters{"id": "%C3%BC%207"}, strict, "allow"},
		{"any method", "/orders", "ANY /orders", nil, strict, "allow"},
		{"a greedy route, allowed", "/files/a/b", "GET /files/{proxy+}", parameters{"proxy": "a/b"}, lax, "allow"},
		{"$default, allowed", "/orders", "$default", nil, lax, "allow"},
		{"a stage", "/prod/orders", "GET /orders", nil, prefixed, "allow"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := ask(t, t.Context(), c.a, event(t, valetlambda.HTTP, get("/", "Authorization: Bearer "+bearer), func(e map[string]any) {
				e["rawPath"], e["routeKey"], e["pathParameters"] = c.path, c.route, c.parameters
			}))
			assert.Equal(t, c.want, got.result, got.text)
		})
	}
}

// Whether the ARN of a request has the path decoded is not documented.
func TestTokenAuthorizersRefusePercentSigns(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	guard := newGuard(t, iss, "https://api.example.com")
	bearer := "Authorization: Bearer " + iss.Token(valetkeytest.Scopes("orders:read"))
	for _, path := range []string{"/orders/%C3%BC", "/orders/a%20b", "/orders/%37"} {
		assert.Equal(t, "deny", ask(t, t.Context(), newAuthorizer(t, guard, valetlambda.RESTToken), event(t, valetlambda.RESTToken, get(path, bearer))).result, path)
		assert.Equal(t, "allow", ask(t, t.Context(), newAuthorizer(t, guard, valetlambda.REST), event(t, valetlambda.REST, get(path, bearer))).result, path)
	}
}

func TestPathPrefixOfRESTAPIs(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	a := newAuthorizer(t, newGuard(t, iss, "https://api.example.com/shop"), valetlambda.REST, func(c *valetlambda.Config) { c.PathPrefix = "/shop" })
	bearer := "Authorization: Bearer " + iss.Token(valetkeytest.Scopes("orders:read"))
	for path, want := range map[string]string{"/orders": "deny", "/shopping/orders": "deny", "/shop": "deny", "/shop/orders": "allow", "/shop/orders/%C3%BC": "allow"} {
		assert.Equal(t, want, ask(t, t.Context(), a, event(t, valetlambda.REST, get(path, bearer))).result, path)
	}
}

func TestProofs(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	key := iss.ProofKey("ES256")
	token := iss.Token(valetkeytest.Scopes("orders:read"), valetkeytest.BoundTo(key))
	prefixed := func(c *valetlambda.Config) { c.PathPrefix = "/prod" }
	for _, c := range []struct {
		kind   valetlambda.Kind
		base   string
		path   string // in the event
		url    string // that the client has requested
		change []func(*valetlambda.Config)
	}{
		{valetlambda.REST, "https://" + domain + "/prod", "/orders", "https://" + domain + "/prod/orders", nil},
		{valetlambda.HTTP, "https://api.example.com", "/orders", "https://api.example.com/orders", nil},
		{valetlambda.HTTPPolicy, "https://api.example.com/v1/", "/prod/orders", "https://api.example.com/v1/orders", []func(*valetlambda.Config){prefixed}},
		{valetlambda.WebSocket, "https://" + domain + "/prod", "", "https://" + domain + "/prod", nil},
	} {
		t.Run(string(c.kind), func(t *testing.T) {
			a := newAuthorizer(t, newGuard(t, iss, c.base), c.kind, c.change...)
			bound := func(proof string) []byte {
				x := get(c.path, "Authorization: DPoP "+token, "DPoP: "+proof)
				x.route = "/orders"
				return event(t, c.kind, x)
			}
			refused := expected(c.kind, 401)
			assert.Equal(t, refused, ask(t, t.Context(), a, bound("")).result, "no proof")
			assert.Equal(t, refused, ask(t, t.Context(), a, bound(key.Proof("POST", c.url, token))).result, "another method")
			assert.Equal(t, refused, ask(t, t.Context(), a, bound(key.Proof("GET", c.url+"/other", token))).result, "another path")
			assert.Equal(t, refused, ask(t, t.Context(), a, bound(key.Proof("GET", "https://other.example.com/orders", token))).result, "another host")
			assert.Equal(t, refused, ask(t, t.Context(), a, event(t, c.kind, get("/orders", "Authorization: Bearer "+token))).result, "sent as a bearer token")
			proof := key.Proof("GET", c.url, token)
			got := ask(t, t.Context(), a, bound(proof))
			assert.Equal(t, "allow", got.result, got.text)
			assert.Equal(t, refused, ask(t, t.Context(), a, bound(proof)).result, "a second time")
		})
	}
	t.Run("a TOKEN authorizer sees no proof", func(t *testing.T) {
		a := newAuthorizer(t, newGuard(t, iss, "https://api.example.com"), valetlambda.RESTToken)
		x := get("/orders", "Authorization: DPoP "+token, "DPoP: "+key.Proof("GET", "https://api.example.com/orders", token))
		assert.Equal(t, "401", ask(t, t.Context(), a, event(t, valetlambda.RESTToken, x)).result)
	})
}

func TestClientCertificates(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	guard := newGuard(t, iss, "https://api.example.com")
	own, other := valetkeytest.ClientCertificate(t), valetkeytest.ClientCertificate(t)
	bearer := "Authorization: Bearer " + iss.Token(valetkeytest.Scopes("orders:read"), valetkeytest.BoundToCertificate(own))
	text := func(c tls.Certificate) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]}))
	}
	for _, kind := range []valetlambda.Kind{valetlambda.REST, valetlambda.HTTP, valetlambda.HTTPPolicy, valetlambda.WebSocket} {
		a := newAuthorizer(t, guard, kind)
		for certificate, status := range map[string]int{"": 401, text(other): 401, "x": 503, text(own): 200} {
			x := get("/orders", bearer)
			x.certificate = certificate
			got := ask(t, t.Context(), a, event(t, kind, x))
			assert.Equal(t, expected(kind, status), got.result, got.text)
		}
	}
}

func TestWebSocket(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	a := newAuthorizer(t, newGuard(t, iss, "https://api.example.com"), valetlambda.WebSocket)
	handshake := func(token string) request {
		return get("", "Host: "+domain, "Connection: upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Authorization: Bearer "+token)
	}
	good := handshake(iss.Token(valetkeytest.Scopes("orders:read")))
	context := func(e map[string]any) map[string]any { return e["requestContext"].(map[string]any) }
	for _, c := range []struct {
		name   string
		x      request
		change func(e map[string]any)
		want   string
	}{
		{"no token", get("", "Upgrade: websocket"), nil, "401"},
		{"too little scope", handshake(iss.Token()), nil, "deny"},
		{"another route", good, func(e map[string]any) { e["methodArn"] = account + "prod/$disconnect" }, "500"},
		{"a message", good, func(e map[string]any) { context(e)["eventType"] = "MESSAGE" }, "500"},
		{"a request to a REST API", good, func(e map[string]any) {
			delete(context(e), "connectionId")
			e["methodArn"], e["path"], e["httpMethod"] = account+"prod/GET/$connect", "/$connect", "GET"
		}, "500"},
		{"a good token", good, nil, "allow"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var change []func(map[string]any)
			if c.change != nil {
				change = append(change, c.change)
			}
			got := ask(t, t.Context(), a, event(t, valetlambda.WebSocket, c.x, change...))
			assert.Equal(t, c.want, got.result, got.text)
			if c.want == "allow" {
				assert.Equal(t, account+"prod/$connect", got.arn)
			}
		})
	}
}

func TestEventsOfOtherKindsAreErrors(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	guard := newGuard(t, iss, "https://api.example.com")
	good := get("/orders", "Authorization: Bearer "+iss.Token(valetkeytest.Scopes("orders:read")))
	all := append(kinds, valetlambda.WebSocket)
	for _, kind := range all {
		a := newAuthorizer(t, guard, kind)
		for _, other := range all {
			same := kind == other || strings.HasPrefix(string(kind), "http") && strings.HasPrefix(string(other), "http")
			if got := ask(t, t.Context(), a, event(t, other, good)); same {
				assert.Equal(t, "allow", got.result, "%s gets %s", kind, other)
			} else {
				assert.Equal(t, "500", got.result, "%s gets %s", kind, other)
			}
		}
		for _, payload := range []string{"", "null", "{}", "[]", "x", `{"type":"REQUEST","version":"2.0"}`, `{"type":"TOKEN"}`, `{"type":"REQUEST","methodArn":"*"}`,
			`{"type":"REQUEST","methodArn":"arn:aws:s3:::x/prod/GET/orders","path":"/orders","httpMethod":"GET"}`} {
			assert.Equal(t, "500", ask(t, t.Context(), a, []byte(payload)).result, "%s gets %s", kind, payload)
		}
	}
	t.Run("payload format 1.0 of an HTTP API, whose path is decoded", func(t *testing.T) {
		got := ask(t, t.Context(), newAuthorizer(t, guard, valetlambda.REST), event(t, valetlambda.REST, good, func(e map[string]any) { e["version"] = "1.0" }))
		assert.Equal(t, "500", got.result)
		assert.Contains(t, got.text, "payload format 1.0")
	})
	for _, kind := range []valetlambda.Kind{valetlambda.REST, valetlambda.HTTPPolicy} {
		t.Run("an ARN with another method, "+string(kind), func(t *testing.T) {
			got := ask(t, t.Context(), newAuthorizer(t, guard, kind), event(t, kind, good, func(e map[string]any) {
				for _, name := range []string{"methodArn", "routeArn"} {
					if arn, ok := e[name].(string); ok {
						e[name] = strings.Replace(arn, "/GET/", "/POST/", 1)
					}
				}
			}))
			assert.Equal(t, "500", got.result)
		})
	}
}

func TestNoDecisionIsNoPermission(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	good := get("/orders", "Authorization: Bearer "+iss.Token(valetkeytest.Scopes("orders:read")))
	for _, kind := range append(kinds, valetlambda.WebSocket) {
		t.Run(string(kind)+"/the issuer is down", func(t *testing.T) {
			iss.Metadata.Down()
			defer iss.Metadata.Restore()
			a := newAuthorizer(t, newGuard(t, iss, "https://api.example.com"), kind)
			assert.Equal(t, "500", ask(t, t.Context(), a, event(t, kind, good)).result)
		})
		t.Run(string(kind)+"/API Gateway no longer waits", func(t *testing.T) {
			a := newAuthorizer(t, newGuard(t, iss, "https://api.example.com"), kind)
			assert.Equal(t, "allow", ask(t, t.Context(), a, event(t, kind, good)).result)
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			assert.Equal(t, "500", ask(t, ctx, a, event(t, kind, good)).result)
		})
	}
}

// An authorizer decides as a server of net/http with the same table does, as far as API Gateway has an answer for it.
func TestDecidesAsNetHTTP(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	guard := newGuard(t, iss, "https://api.example.com")
	handler, err := table.Guard(guard, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}), routes.StrictPaths())
	require.NoError(t, err)
	for _, kind := range kinds {
		a := newAuthorizer(t, guard, kind)
		for _, method := range []string{"GET", "HEAD", "POST", "DELETE", "OPTIONS"} {
			for _, path := range []string{"/", "/public", "/orders", "/files/x", "/admin/x", "/elsewhere"} {
				for _, token := range []string{"", "x", iss.Token(), iss.Token(valetkeytest.Scopes("orders:read")), iss.Token(valetkeytest.Scopes("admin")), iss.Token(valetkeytest.Expired())} {
					x := get(path)
					if x.method = method; token != "" {
						x.header.Set("Authorization", "Bearer "+token)
					}
					r := httptest.NewRequest(method, path, nil)
					r.Header = x.header
					w := httptest.NewRecorder()
					handler.ServeHTTP(w, r)
					got := ask(t, t.Context(), a, event(t, kind, x))
					assert.Equal(t, expected(kind, w.Code), got.result, "%s %s %s with %q: %s", kind, method, path, token, got.text)
				}
			}
		}
	}
}

func TestMistakes(t *testing.T) {
	decider, err := table.Decider(newGuard(t, valetkeytest.NewIssuer(t), "https://api.example.com"))
	require.NoError(t, err)
	for _, c := range []struct {
		name string
		cfg  valetlambda.Config
		want []string
	}{
		{"nothing", valetlambda.Config{}, []string{"Decider: required", "Kind: required: rest, rest-token, websocket, http or http-policy"}},
		{"an unknown kind", valetlambda.Config{Decider: decider, Kind: "v2"}, []string{`Kind: "v2" is not rest, rest-token, websocket, http or http-policy`}},
		{"a prefix without a slash", valetlambda.Config{Decider: decider, Kind: valetlambda.HTTP, PathPrefix: "prod"}, []string{`PathPrefix: "prod" is not a path such as /prod`}},
		{"a prefix with two", valetlambda.Config{Decider: decider, Kind: valetlambda.REST, PathPrefix: "/prod/"}, []string{`PathPrefix: "/prod/" is not a path such as /prod`}},
		{"a prefix of a path that is fixed", valetlambda.Config{Decider: decider, Kind: valetlambda.WebSocket, PathPrefix: "/prod"}, []string{
			"PathPrefix: has no effect with websocket, whose events have the path without it"}},
		{"decoded paths of a REST API", valetlambda.Config{Decider: decider, Kind: valetlambda.REST, AllowDecodedPaths: true}, []string{
			"AllowDecodedPaths: has no effect unless Kind is http or http-policy"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := valetlambda.New(c.cfg)
			var got []string
			for _, m := range valetkey.ConfigErrors(err) {
				got = append(got, m.Error())
			}
			assert.Equal(t, c.want, got)
		})
	}
}
