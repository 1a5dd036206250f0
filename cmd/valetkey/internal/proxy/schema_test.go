package proxy_test

import (
	"encoding/json"
	"log/slog"
	"strings"
	"testing"

	"github.com/valetkey/valetkey/cmd/valetkey/internal/proxy"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/schematest"
)

// conforms returns the error of a configuration by the schema that editors use.
func conforms(t *testing.T, config string) error {
	t.Helper()
	schema, err := proxy.Schema()
	if err != nil {
		t.Fatal(err)
	}
	return schematest.Check(schema, config)
}

func TestEveryKeyOfTheFileIsDescribed(t *testing.T) {
	if _, err := proxy.Schema(); err != nil {
		t.Errorf("%v\n\nEditors show a description of each key, and check its value. Add a line to schemaKeys in schema.go for a field, such as\n"+
			"\"redis.address\": \"Address of the server.\", and an entry to schemaTexts for a type with an UnmarshalText method.", err)
	}
	for _, unknown := range proxy.UnusedDescriptions() {
		t.Errorf("schema.go describes %s, which is not a key of any file: remove or rename the line", unknown)
	}
}

// The schema refuses what it can of the mistakes that the proxy refuses. TestMistakes and the other tests load hundreds of
// accepted configurations, each of which must conform.
func TestSchemaRefusesMistakes(t *testing.T) {
	jwks := func(fields string) string {
		return strings.Replace(good, `{issuer: "https://as.example.com"}`, `{issuer: "https://as.example.com", `+fields+"}", 1)
	}
	asked := func(fields string) string {
		return strings.Replace(good, `jwks: {issuer: "https://as.example.com"}`, `introspection: {issuer: "https://as.example.com", `+fields+"}", 1)
	}
	route := func(pattern, need string) string {
		return strings.Replace(good, `{"GET /orders": "orders:read"}`, `{"`+pattern+`": "`+need+`"}`, 1)
	}
	for _, c := range []struct{ name, config string }{
		{"an empty mapping", "{}"},
		{"a list", "- x"},
		{"an unknown key", good + "debug: true"},
		{"an unknown key of a section", good + "dpop: {store: x}"},
		{"no listener", strings.Replace(good, "listen: 127.0.0.1:0", "realm: x", 1)},
		{"no upstream", strings.Replace(good, "upstream: http://127.0.0.1:9", "realm: x", 1)},
		{"neither routes nor openapi", strings.Replace(good, "routes:", "# ", 1)},
		{"routes and openapi", good + "openapi: api.yaml"},
		{"an upstream and several", good + "upstreams: [{url: 'http://127.0.0.1:9'}]"},
		{"an upstream without a URL", strings.Replace(good, "upstream: http://127.0.0.1:9", "upstreams: [{prefix: /orders}]", 1)},
		{"an address without a port", strings.Replace(good, "127.0.0.1:0", "localhost", 1)},
		{"a number for an address", strings.Replace(good, "127.0.0.1:0", "8080", 1)},
		{"an upstream that is not a URL", strings.Replace(good, "http://127.0.0.1:9", "localhost:9", 1)},
		{"an upstream with a user", strings.Replace(good, "http://127.0.0.1:9", "http://me:secret@localhost", 1)},
		{"an upstream with a query", strings.Replace(good, "http://127.0.0.1:9", "http://localhost/?a=b", 1)},
		{"a word for a flag", good + "forward_token: please"},
		{"a key without a value", good + "realm:"},
		{"a text that must not be empty", good + "token_header: ''"},
		{"a list that must not be empty", good + "trusted_proxies: []"},
		{"a range of all addresses", good + "trusted_proxies: ['0.0.0.0/0']\nforwarded_header: Forwarded"},
		{"a name for an address range", good + "trusted_proxies: [proxy]\nforwarded_header: Forwarded"},
		{"a header that is not supported", good + "trusted_proxies: [10.0.0.1]\nforwarded_header: Via"},
		{"an origin without a scheme", good + "token_header: X-Token\ntrusted_origins: app.example.com"},
		{"an unknown profile", good + "profile: fapi1"},
		{"no verifiers", strings.Replace(good, `[jwks: {issuer: "https://as.example.com"}]`, "[]", 1)},
		{"a verifier of two kinds", strings.Replace(good, "[jwks:", "[{"+one+", jwks:", 1) + "}"},
		{"a verifier of no kind", strings.Replace(good, `[jwks: {issuer: "https://as.example.com"}]`, "[{}]", 1)},
		{"an unknown product", jwks("issuer_type: keyclock")},
		{"a profile beside a product", jwks("issuer_type: keycloak, profile: lenient")},
		{"an unknown allowance", jwks("allow: everything")},
		{"an unknown allowance in a list", jwks("allow: [untyped, everything]")},
		{"an unknown algorithm", jwks("algorithms: [none]")},
		{"a duration without a unit", jwks("leeway: 30")},
		{"a duration below zero", jwks("leeway: -5s")},
		{"a duration that must not be zero", jwks("max_lifetime: 0s")},
		{"a duration that is a word", jwks("leeway: long")},
		{"a status that has a fixed meaning", jwks("status_list: {allow: [1]}")},
		{"a status above the largest", jwks("status_list: {allow: [256]}")},
		{"no client id", asked("client_secret: x")},
		{"no client secret", asked("client_id: x")},
		{"two client secrets", asked("client_id: x, client_secret: x, client_secret_env: X")},
		{"an unknown method of authentication", asked("client_id: x, client_secret: x, auth: jwt")},
		{"a nonce that is neither on nor off", good + "dpop: {nonce: always}"},
		{"two keys of nonces", good + "dpop: {nonce: on, key_env: X, key_file: y}"},
		{"an unknown format of certificates", good + "mtls: {header: X-Cert, format: jwk}\ntrusted_proxies: [10.0.0.1]"},
		{"redis at two places", good + "redis: {address: 'localhost:1', socket: /run/redis.sock, key: " + key + "}"},
		{"redis nowhere", good + "redis: {key: " + key + "}"},
		{"redis without a key", good + "redis: {address: 'localhost:1'}"},
		{"a database below zero", good + "redis: {address: 'localhost:1', key: " + key + ", db: -1}"},
		{"a database that is not a number", good + "redis: {address: 'localhost:1', key: " + key + ", db: one}"},
		{"subprotocols of nothing", good + "websocket_token: {}"},
		{"a pattern without a path", route("orders", "x")},
		{"an unknown word for a requirement", route("GET /", "@admin")},
		{"a requirement of nothing", route("GET /", "")},
		{"a list for a requirement", strings.Replace(good, `"orders:read"`, "[x]", 1)},
		{"a mapping of nothing", strings.Replace(good, `"orders:read"`, "{}", 1)},
		{"an unknown key in a requirement", strings.Replace(good, `"orders:read"`, "{scopes: x, claim: a}", 1)},
		{"an empty list of claims", strings.Replace(good, `"orders:read"`, "{claims: []}", 1)},
		{"a rule without an expression", strings.Replace(good, `"orders:read"`, "{cel: {message: x}}", 1)},
		{"a character that a scope cannot have", route("GET /", "a\\tb")},
	} {
		t.Run(c.name, func(t *testing.T) {
			if p, err := load(t, c.config, slog.New(slog.DiscardHandler)); err == nil {
				p.Close()
				t.Error("the proxy accepts it")
			}
			if conforms(t, c.config) == nil {
				t.Error("the schema accepts it")
			}
		})
	}
}

func TestSchemaListsTheValuesThatAreAccepted(t *testing.T) {
	schema, err := proxy.Schema()
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(schema)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"enum":["fapi2"]`, `"enum":["rfc9068","lenient"]`, `"enum":["basic","basic_raw","post"]`, `"enum":["off","on"]`,
		`"enum":["memory","redis"]`, `"enum":["pem","der","xfcc","rfc9440"]`, `"enum":["Forwarded","X-Forwarded"]`,
		`"keycloak"`, `"zitadel"`, `"untyped"`, `"ES256"`,
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%s is missing", want)
		}
	}
}
