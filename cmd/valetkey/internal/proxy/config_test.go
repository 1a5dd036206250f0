package proxy_test

import (
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/valetkey/valetkey/cmd/valetkey/internal/proxy"
	"github.com/valetkey/valetkey/issuers"
)

// one is an introspection, key a key for redis.
const (
	one = "introspection: {issuer: 'https://a', client_id: x, client_secret: x}"
	key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
)

const good = `listen: 127.0.0.1:0
upstream: http://127.0.0.1:9
resource: https://api.example.com
verifiers: [jwks: {issuer: "https://as.example.com"}]
routes: {"GET /orders": "orders:read"}
`

func TestMistakes(t *testing.T) {
	base := func(replace ...string) string { return strings.NewReplacer(replace...).Replace(good) }
	routes := func(lines string) string { return base(`routes: {"GET /orders": "orders:read"}`, "routes:\n"+lines) }
	verifiers := func(items string) string { return base(`[jwks: {issuer: "https://as.example.com"}]`, "["+items+"]") }
	verifier := func(fields string) string { return base(`{issuer: "https://as.example.com"}`, fields) }
	for _, c := range []struct {
		name, config string
		want         []string // "line: text" of each mistake
	}{
		{"an empty file", "", []string{
			"1: verifiers: required", "1: listen: required", "1: routes: required, or openapi", "1: upstream: required, or upstreams"}},
		{"not a mapping", "- x", []string{
			"1: is not a mapping", "1: listen: required", "1: routes: required, or openapi", "1: upstream: required, or upstreams"}},
		{"a second document", good + "---\na: b\n", []string{"6: there is more than one YAML document"}},
		{"an unknown field", good + "debug: true", []string{
			`6: unknown field "debug"; known are listen, tls, upstream, upstreams, resource, metadata, realm, error_uri, error_body, forward_token, token_header, max_token_bytes, max_body_bytes, max_header_bytes, header_timeout, idle_timeout, trusted_origins, websocket_token, cors, probe, drain, grace, access_log, audit, verifiers, dpop, mtls, sender_constrained, trusted_proxies, forwarded_header, forwarded_port, forwarded_prefix, cancel_with_token, cache, revocations, insecure_report_only, profile, redis, signals, routes, openapi, allow_encoded_slash`}},
		{"a field twice", good + "listen: 127.0.0.1:1", []string{`6: "listen" is given on line 1 already`}},
		{"a merge key is a field like others", good + "<<: {}", []string{"6: a key is not a string: put it in quotes"}},
		{"a key that is not a string", good + "1: 2", []string{"6: a key is not a string: put it in quotes"}},
		{"a key that is empty", good + "'': 2", []string{"6: a key is empty"}},
		{"an alias", base("resource: https", "resource: &r https") + "realm: *r", []string{"6: realm: aliases are not supported"}},

		{"an address without a port", base("127.0.0.1:0", "localhost"), []string{`1: listen: "localhost" is not an address such as 127.0.0.1:8080`}},
		{"an upstream at no port", base("http://127.0.0.1:9", "http://127.0.0.1:190000"), []string{"2: upstream: has a port above 65535"}},
		{"a number for an address", base("127.0.0.1:0", "8080"), []string{`1: listen: "8080" is not an address such as 127.0.0.1:8080`}},
		{"an upstream that is not a URL", base("http://127.0.0.1:9", "localhost:9"), []string{"2: upstream: is not an http, https or h2c URL"}},
		{"an upstream with a user, whose password is not told", base("http://127.0.0.1:9", "http://me:secret@localhost"), []string{"2: upstream: has a user, a query or a fragment"}},
		{"an upstream that is nothing", base("http://127.0.0.1:9", `""`), []string{"2: upstream: is empty"}},
		{"a realm that a challenge cannot carry", good + `realm: 'a"b'`, []string{`6: realm: "a\"b" contains a character that a challenge cannot carry`}},
		{"a word for a flag", good + "forward_token: please", []string{`6: forward_token: "please" is not true or false`}},
		{"a list for a flag", good + "forward_token: [true]", []string{"6: forward_token: is not true or false"}},

		{"no verifiers", base(`[jwks: {issuer: "https://as.example.com"}]`, "[]"), []string{"4: verifiers: is empty"}},
		{"verifiers that are not a list", base(`[jwks: {issuer: "https://as.example.com"}]`, "x"), []string{"4: verifiers: is not a list"}},
		{"a verifier of an unknown kind", base("[jwks:", "[saml:"), []string{
			`4: verifiers[0]: unknown field "saml"; known are jwks, introspection, api_keys`}},
		{"a verifier of two kinds", base("[jwks:", `[{introspection: {issuer: "https://a", client_id: x, client_secret: x}, jwks:`, "}]", "}}]"), []string{
			"4: verifiers[0]: exactly one of jwks, introspection and api_keys is required"}},
		{"a verifier without an issuer", verifier("{}"), []string{"4: verifiers[0].jwks.issuer: required"}},
		{"a verifier that is null", verifier("null"), []string{"4: verifiers[0].jwks: is not a mapping", "4: verifiers[0].jwks.issuer: required"}},
		{"no audience at all", base("resource: https://api.example.com", "realm: x"), []string{
			"4: verifiers[0].jwks.audience: required; an empty list does not mean any"}},
		{"an audience that is an empty list", verifier("{issuer: 'https://a', audience: []}"), []string{
			"4: verifiers[0].jwks.audience: is empty", "4: verifiers[0].jwks.audience: required; an empty list does not mean any"}},
		{"each field of a verifier, on its line", base(`[jwks: {issuer: "https://as.example.com"}]`, `
- jwks:
   issuer: https://as.example.com
   file: nowhere.json
   url: https://as.example.com/keys
   initial_file: nothing.json
   profile: strict
   algorithms: [none]
   leeway: 1h
   insecure_http: 'true'
   secret: x
`), []string{
			`7: verifiers[0].jwks.file: open DIR/nowhere.json: no such file or directory`,
			`7: verifiers[0].jwks.file: cannot be combined with url`,
			`7: verifiers[0].jwks.file: cannot be combined with initial_file, whose keys are replaced by those that are fetched`,
			`9: verifiers[0].jwks.initial_file: open DIR/nothing.json: no such file or directory`,
			`10: verifiers[0].jwks.profile: "strict" is not rfc9068 or lenient`,
			`11: verifiers[0].jwks.algorithms: "none" is not a supported signature algorithm`,
			`12: verifiers[0].jwks.leeway: 1h0m0s is more than 5m0s`,
			`13: verifiers[0].jwks.insecure_http: "true" is not true or false`,
			`14: verifiers[0].jwks: unknown field "secret"; known are issuer, audience, url, file, initial_file, profile, algorithms, leeway, max_lifetime, refresh_interval, min_refetch_interval, stale_if_error, status_list, insecure_http, token_file, ca_file, cert_file, key_file, issuer_type, tenants, clients, rules, issuer_aliases, audience_claim, audience_header, sole_audience, types, markers, require_scope, client_id_header, client_id_claim, scopes, allow, cel`}},
		{"each field about tokens, on its line", base(`[jwks: {issuer: "https://as.example.com"}]`, `
- jwks:
   issuer: https://as.example.com
   tenants: t1
   clients: [a, '']
   rules: [a = b, 'c = ']
   issuer_aliases: ''
   audience_claim: client_id
   sole_audience: 1
   types: [vendor+jwt, application/jwt]
   markers: typ
   require_scope: false
   scopes: [a, '']
   client_id_claim: ''
   allow:
   - untyped
   - AllowScp
`), []string{
			`7: verifiers[0].jwks.tenants: requires issuer_type`,
			`8: verifiers[0].jwks.clients[1]: is empty`,
			`8: verifiers[0].jwks.clients: is empty`,
			`9: verifiers[0].jwks.rules[1]: the value is empty`,
			`10: verifiers[0].jwks.issuer_aliases: is empty`,
			`12: verifiers[0].jwks.sole_audience: "1" is not true or false`,
			`13: verifiers[0].jwks.types[1]: "application/jwt" marks no kind of token; to accept it, use allow: untyped`,
			`16: verifiers[0].jwks.scopes[1]: is empty`,
			`16: verifiers[0].jwks.scopes: is empty`,
			`17: verifiers[0].jwks.client_id_claim: is empty`,
			`20: verifiers[0].jwks.allow[1]: "AllowScp" is not one of any_tenant, id_tokens, key_without_id, missing_client_id, missing_id, missing_issued_at, missing_issuer, missing_key_id, missing_subject, numeric_subject, padded_segments, scope_array, scp, untyped`}},
		{"a recipient in another claim, and nothing that marks access tokens", verifier("{issuer: 'https://a', audience_claim: client_id}"), []string{
			"4: verifiers[0].jwks.audience_claim: requires markers or require_scope, because the other tokens of the client have that claim too"}},
		{"tokens of no issuer, and no rule about whose", verifier("{issuer: 'https://a', allow: missing_issuer}"), []string{
			"4: verifiers[0].jwks.allow: missing_issuer requires rules that state whose tokens are accepted, such as a prefix of sub"}},
		{"two places for the recipient and for the client", verifier("{issuer: 'https://a', audience_claim: azp, audience_header: signer, require_scope: true, client_id_claim: azp, client_id_header: client}"), []string{
			"4: verifiers[0].jwks.audience_header: cannot be combined with audience_claim",
			"4: verifiers[0].jwks.client_id_header: cannot be combined with client_id_claim"}},
		{"a URL for each key without a place for the kid in its path", verifier("{issuer: 'https://a', url: 'https://k.example/?k={kid}'}"), []string{
			"4: verifiers[0].jwks.url: needs {kid} once, in its path, and no query"}},
		{"a status list, and a URL for each key", verifier("{issuer: 'https://a', url: 'https://k.example/{kid}', status_list: {}}"), []string{
			"4: verifiers[0].jwks.status_list: cannot be combined with {kid} in the URL of the keys: lists need a key set"}},
		{"a tenant in an issuer, and no key set", verifier("{issuer: 'https://a/{tid}'}"), []string{
			"4: verifiers[0].jwks.url: required, or file, because the metadata of an issuer with a claim in braces has no URL",
			"4: verifiers[0].jwks.rules: need one about tid, which lists the tenants; allow: any_tenant accepts them all"}},
		{"a product that is not known", verifier("{issuer_type: homemade_server}"), []string{
			`4: verifiers[0].jwks.issuer_type: "homemade_server" is not one of ` + strings.Join(issuers.Names(), ", ")}},
		{"a product that is misspelled", verifier("{issuer_type: keyclock, leeway: 1h}"), []string{
			`4: verifiers[0].jwks.issuer_type: "keyclock" is not the name of a product; did you mean keycloak?`,
			`4: verifiers[0].jwks.leeway: 1h0m0s is more than 5m0s`}},
		{"mistakes in the parameters of a product, beside others", base(`[jwks: {issuer: "https://as.example.com"}]`, `
- jwks:
   issuer_type: keycloak
   audience: account
   tenants: [t1]
   rules: 'a = '
   profile: lenient
   algorithms: none
   markers: '= a'
`), []string{
			`6: verifiers[0].jwks.issuer: required`,
			"6: verifiers[0].jwks.clients: required with the audience \"account\", which every token of the realm has",
			`8: verifiers[0].jwks.tenants: has no meaning for this product`,
			`9: verifiers[0].jwks.rules[0]: the value is empty`,
			`10: verifiers[0].jwks.profile: cannot be combined with issuer_type, which states what the tokens lack`,
			`11: verifiers[0].jwks.algorithms: "none" is not a supported signature algorithm`,
			`12: verifiers[0].jwks.markers[0]: an operator (=, ~=, ^=) needs a space on each side`}},
		{"files for the requests for keys", base(`[jwks: {issuer: "https://as.example.com"}]`, `
- jwks:
   issuer: https://as.example.com
   token_file: nowhere
- jwks:
   issuer: https://b.example.com
   ca_file: nowhere.pem
- jwks:
   issuer: https://d.example.com
   cert_file: nowhere.pem
- jwks:
   issuer: https://c.example.com
   file: keys.json
   ca_file: nowhere.pem
`), []string{
			`7: verifiers[0].jwks.token_file: reading DIR/nowhere: no such file or directory`,
			`10: verifiers[1].jwks.ca_file: reading DIR/nowhere.pem: no such file or directory`,
			`12: verifiers[2].jwks.key_file: required with cert_file`,
			`16: verifiers[3].jwks.file: open DIR/keys.json: no such file or directory`,
			`16: verifiers[3].jwks.file: cannot be combined with token_file, ca_file, cert_file and key_file: nothing is fetched`}},
		{"a leeway without a unit", verifier("{issuer: 'https://a', leeway: '-5s'}"), []string{
			`4: verifiers[0].jwks.leeway: "-5s" is not a duration such as 30s`}},
		{"a key set over plain http", verifier("{issuer: 'https://a', url: 'http://a.example.com/keys'}"), []string{
			"4: verifiers[0].jwks.url: not https; insecure_http: true allows http"}},
		{"two verifiers of one issuer", base("}]", `}, jwks: {issuer: "https://as.example.com"}]`), []string{
			`4: verifiers[1]: another verifier already accepts the issuer "https://as.example.com"`}},
		{"an alias that is the issuer of another verifier", base(`[jwks: {issuer: "https://as.example.com"}]`, `
- jwks: {issuer: 'https://a', issuer_aliases: ['https://x', 'https://y']}
- jwks: {issuer: 'https://b', issuer_aliases: 'https://y'}
- introspection: {issuer: 'https://c', client_id: x, client_secret: x, jwt_issuers: 'https://x'}
- jwks: {issuer: 'https://x'}
`), []string{
			`6: verifiers[1]: another verifier already accepts the issuer "https://y"`,
			`7: verifiers[2].introspection.jwt_issuers: another verifier already accepts the JWTs of "https://x"`,
			`8: verifiers[3]: another verifier already accepts the issuer "https://x"`}},
		{"two verifiers of tokens without iss", base(`[jwks: {issuer: "https://as.example.com"}]`, `
- jwks: {issuer: 'https://a', allow: missing_issuer, rules: 'sub ^= a/'}
- jwks: {issuer_type: spiffe, tenants: example.org, url: 'https://spire.example.org/keys'}
`), []string{
			`6: verifiers[1]: another verifier already accepts tokens without iss`}},

		{"an introspection of nothing", verifiers("introspection: {}"), []string{
			"4: verifiers[0].introspection.client_id: required",
			"4: verifiers[0].introspection.client_secret_file: required, or client_secret_env or client_secret",
			"4: verifiers[0].introspection.url, verifiers[0].introspection.issuer: one of them is required"}},
		{"an introspection at plain http", verifiers("introspection: {url: 'http://a.example.com', client_id: x, client_secret: x}"), []string{
			"4: verifiers[0].introspection.url: not https; insecure_http: true allows http"}},
		{"a raw client id with a colon", verifiers("introspection: {issuer: 'https://a', client_id: 'urn:x', client_secret: x, auth: basic_raw}"), []string{
			"4: verifiers[0].introspection.auth: the client id contains a colon, so it cannot be sent raw; use another method"}},
		{"each field of an introspection, on its line", base(`[jwks: {issuer: "https://as.example.com"}]`, `
- introspection:
   issuer: orders
   audience: ['']
   client_id: ''
   client_secret_file: nowhere
   client_secret_env: VALETKEY_TEST_NOT_SET
   auth: jwt
   cache_ttl: -1s
   negative_ttl: 1h
   jwt_issuers: ['']
   audience_by_issuer: 1
   allow_scope_array: x
   leeway: 1h
   insecure_http: x
   profile: lenient
`), []string{
			`6: verifiers[0].introspection.issuer: cannot be discovered: not a URL with a host, such as https://as.example.com`,
			`7: verifiers[0].introspection.audience[0]: is empty`,
			`7: verifiers[0].introspection.audience: is empty`,
			`8: verifiers[0].introspection.client_id: is empty`,
			`9: verifiers[0].introspection.client_secret_file: the file cannot be read: no such file or directory`,
			`10: verifiers[0].introspection.client_secret_env: cannot be combined with client_secret_file`,
			`11: verifiers[0].introspection.auth: "jwt" is not basic, basic_raw or post`,
			`12: verifiers[0].introspection.cache_ttl: "-1s" is not a duration such as 30s`,
			`13: verifiers[0].introspection.negative_ttl: 1h0m0s is more than 1m0s`,
			`14: verifiers[0].introspection.jwt_issuers[0]: is empty`,
			`14: verifiers[0].introspection.jwt_issuers: is empty`,
			`15: verifiers[0].introspection.audience_by_issuer: "1" is not true or false`,
			`16: verifiers[0].introspection.allow_scope_array: "x" is not true or false`,
			`17: verifiers[0].introspection.leeway: 1h0m0s is more than 5m0s`,
			`18: verifiers[0].introspection.insecure_http: "x" is not true or false`,
			`19: verifiers[0].introspection: unknown field "profile"; known are issuer_type, issuer, audience, url, client_id, client_secret, client_secret_file, client_secret_env, auth, cache_ttl, negative_ttl, jwt_issuers, sole_audience, audience_by_issuer, token_type_hint, timeout, max_in_flight, signed, allow_scope_array, leeway, insecure_http, cel`}},
		{"a secret in a variable that is not set", verifiers("introspection: {issuer: 'https://a', client_id: x, client_secret_env: VALETKEY_TEST_NOT_SET}"), []string{
			"4: verifiers[0].introspection.client_secret_env: is empty or missing"}},
		{"a second introspection that would never be asked", verifiers(one + ", " + one), []string{
			"4: verifiers[1].introspection.jwt_issuers: required, because an earlier introspection handles opaque tokens"}},
		{"JWTs that a jwks is for", verifiers("introspection: {issuer: 'https://a', client_id: x, client_secret: x, jwt_issuers: 'https://b'}, jwks: {issuer: 'https://b'}"), []string{
			`4: verifiers[0].introspection.jwt_issuers: another verifier already accepts the JWTs of "https://b"`}},
		{"JWTs after all JWTs", verifiers(strings.ReplaceAll(one+", "+one, "client_id", "jwt_issuers: '*', client_id")), []string{
			`4: verifiers[1].introspection.jwt_issuers: another verifier already accepts the JWTs of "*"`}},
		{"answers without an issuer, which could not be revoked", verifiers("introspection: {url: 'https://a', client_id: x, client_secret: x}") +
			"redis: {address: 'localhost:1', key: " + key + "}", []string{
			"4: verifiers[0].introspection.issuer: required with redis, because a revocation contains the issuer"}},

		{"redis that is nothing", good + "redis:", []string{
			"6: redis: is not a mapping", "6: redis.key_file: required, or key_env or key", "6: redis.address: required, or socket, cluster or sentinel"}},
		{"redis in all places at once", good + `redis:
  socket: redis.sock
  address: 127.0.0.1:6379
  sentinel: {addresses: '127.0.0.1:26379', master: orders}
  cluster: ['127.0.0.1:7000', '127.0.0.1:7001']
  key: ` + key + "\n", []string{
			"7: redis.socket: cannot be combined with address", "9: redis.sentinel: cannot be combined with address", "10: redis.cluster: cannot be combined with address"}},
		{"redis in none", good + "redis: {key: " + key + "}", []string{"6: redis.address: required, or socket, cluster or sentinel"}},
		{"each field of sentinel, on its line", good + `redis:
  sentinel:
    addresses: [localhost, '127.0.0.1:26379']
    master: ''
    username: x
    password_file: nowhere
    tls: true
  key: ` + key + "\n", []string{
			`8: redis.sentinel.addresses[0]: "localhost" is not an address such as 127.0.0.1:8080`,
			`9: redis.sentinel.master: is empty`,
			`11: redis.sentinel.password_file: the file cannot be read: no such file or directory`,
			`12: redis.sentinel: unknown field "tls"; known are addresses, master, username, password, password_file, password_env`}},
		{"a sentinel without its fields", good + "redis: {sentinel: {username: x}, key: " + key + "}", []string{
			"6: redis.sentinel.addresses: required", "6: redis.sentinel.master: required",
			"6: redis.sentinel.username: requires password_file, or password_env or password"}},
		{"a cluster without addresses", good + "redis: {cluster: [], key: " + key + "}", []string{"6: redis.cluster: is empty"}},
		{"a cluster with one address and a database that it does not have", good + "redis: {cluster: '127.0.0.1:7000', db: 1, key: " + key + "}", []string{
			"6: redis.db: cannot be combined with cluster, which has database 0 only"}},
		{"an invalid number of replicas", good + "redis: {address: 'localhost:1', min_replicas: -1, key: " + key + "}", []string{
			`6: redis.min_replicas: "-1" is not a whole number, 0 or above`}},
		{"no replicas where a failover is possible", good + "redis: {cluster: 'localhost:1', min_replicas: 0, key: " + key + "}", []string{
			"6: redis.min_replicas: 0 requires allow_unreplicated: true instead, because a failover may forget used proofs and revocations"}},
		{"replicas that need not confirm", good + "redis: {address: 'localhost:1', min_replicas: 1, allow_unreplicated: true, key: " + key + "}", []string{
			"6: redis.allow_unreplicated: cannot be combined with min_replicas"}},
		{"a user without a password", good + "redis: {address: 'localhost:1', username: x, key: " + key + "}", []string{
			"6: redis.username: requires password_file, or password_env or password"}},
		{"settings of TLS without TLS", good + `redis:
  address: localhost:1
  tls: false
  tls_ca_file: ca.pem
  tls_cert_file: proxy.pem
  tls_key_file: proxy.key
  tls_server_name: redis
  key: ` + key + "\n", []string{
			"9: redis.tls_ca_file: requires tls: true", "10: redis.tls_cert_file: requires tls: true",
			"11: redis.tls_key_file: requires tls: true", "12: redis.tls_server_name: requires tls: true"}},
		{"TLS on a socket", good + "redis: {socket: redis.sock, tls: true, key: " + key + "}", []string{"6: redis.tls: cannot be combined with socket"}},
		{"an authority that is not there", good + "redis: {address: 'localhost:1', tls: true, tls_ca_file: nowhere.pem, key: " + key + "}", []string{
			"6: redis.tls_ca_file: open DIR/nowhere.pem: no such file or directory"}},
		{"an authority that has no certificate", good + "redis: {address: 'localhost:1', tls: true, tls_ca_file: proxy.yaml, key: " + key + "}", []string{
			"6: redis.tls_ca_file: has no certificate in PEM"}},
		{"a certificate that is not there", good + "redis: {address: 'localhost:1', tls: true, tls_cert_file: nowhere.pem, tls_key_file: nowhere.key, key: " + key + "}", []string{
			"6: redis.tls_cert_file: open DIR/nowhere.pem: no such file or directory"}},
		{"a certificate without its key", good + "redis: {address: 'localhost:1', tls: true, tls_cert_file: x, key: " + key + "}", []string{
			"6: redis.tls_key_file: required with tls_cert_file"}},
		{"a key without its certificate", good + "redis: {address: 'localhost:1', tls: true, tls_key_file: x, key: " + key + "}", []string{
			"6: redis.tls_cert_file: required with tls_key_file"}},
		{"each field of redis, on its line", good + `redis:
  address: localhost
  username: ''
  password: 1234
  password_file: nowhere
  tls: 1
  db: -1
  key: c2hvcnQ=
  prefix: 1
  timeout: 1
  keep: 24h
`, []string{
			`7: redis.address: "localhost" is not an address such as 127.0.0.1:8080`,
			`8: redis.username: is empty`,
			`9: redis.password: is not a string: put it in quotes`,
			`10: redis.password_file: the file cannot be read: no such file or directory`,
			`11: redis.tls: "1" is not true or false`,
			`12: redis.db: "-1" is not a whole number, 0 or above`,
			`13: redis.key: is not the base64 of 32 random bytes, as from openssl rand -base64 32`,
			`14: redis.prefix: is not a string: put it in quotes`,
			`15: redis.timeout: "1" is not a duration such as 30s`,
			`16: redis: unknown field "keep"; known are address, socket, cluster, sentinel, username, password, password_file, password_env, tls, tls_ca_file, tls_cert_file, tls_key_file, tls_server_name, db, key, key_file, key_env, prefix, timeout, min_replicas, allow_unreplicated, allow_before_caught_up`}},
		{"a key that is not base64", good + "redis: {address: 'localhost:1', key: '" + strings.Repeat("?", 44) + "'}", []string{
			"6: redis.key: is not the base64 of 32 random bytes, as from openssl rand -base64 32"}},
		{"each field of dpop, on its line", good + `dpop:
  nonce: true
  key: c2hvcnQ=
  key_env: X
  window: 0s
  leeway: 1h
  algorithms: [HS256]
  replay_store: disk
  store: x
`, []string{
			`7: dpop.nonce: is not a string: put it in quotes`,
			`8: dpop.key: is not the base64 of 32 random bytes, as from openssl rand -base64 32`,
			`9: dpop.key_env: cannot be combined with key`,
			`10: dpop.window: "0s" is not a positive duration`,
			`11: dpop.leeway: 1h0m0s is more than 10m0s`,
			`12: dpop.algorithms: "HS256" is not a supported asymmetric signature algorithm`,
			`13: dpop.replay_store: "disk" is not memory or redis`,
			`14: dpop: unknown field "store"; known are origin, nonce, key, key_file, key_env, window, leeway, algorithms, replay_store`}},
		{"proofs for an origin with a path", good + "dpop: {origin: https://api.example.com/v1}", []string{
			`6: dpop.origin: "https://api.example.com/v1" is not a scheme and a host, such as https://api.example.com`}},
		{"proofs for an origin beside a header", good + "dpop: {origin: https://api.example.com}\nforwarded_header: Forwarded\ntrusted_proxies: [10.0.0.1]", []string{
			`6: dpop.origin: cannot be combined with forwarded_header, which reports the URL`}},
		{"proofs for a URL that the client chooses", strings.Replace(good, "resource: https://api.example.com", "resource: orders", 1) + "dpop: {}", []string{
			`6: dpop.origin: required, such as https://api.example.com, because resource is not a URL for clients and forwarded_header is not set`}},
		{"proofs in a redis that is not there", good + "dpop: {replay_store: redis}", []string{"6: dpop.replay_store: requires the redis section"}},
		{"nonces that replicas do not share", good + "dpop: {nonce: on}\nredis: {address: 'localhost:1', key: " + key + "}", []string{
			"6: dpop.key_file: required with redis, or key_env or key, because all proxies must accept the same nonces"}},
		{"dpop that is null", good + "dpop:", []string{"6: dpop: is not a mapping"}},
		{"a token in a header that has another meaning", good + "token_header: Cookie", []string{`6: token_header: "Cookie" has another meaning and cannot carry a token`}},
		{"tokens that are too long", good + "max_token_bytes: 65537", []string{"6: max_token_bytes: 65537 is not between 0 and 65536"}},
		{"a token in a header that is nothing", good + "token_header: ''", []string{"6: token_header: is empty"}},
		{"a token in a header, and DPoP", good + "token_header: X-Token\ndpop: {}", []string{
			"6: token_header: conflicts with DPoP, whose tokens are sent in Authorization, which X-Token replaces"}},
		{"a token in a header, and in a subprotocol", good + "token_header: X-Token\nwebsocket_token: {pair: bearer}", []string{
			"7: websocket_token: cannot be combined with token_header, which handshakes carry too"}},
		{"origins for nothing", good + "trusted_origins: https://app.example.com", []string{"6: trusted_origins: has no effect without token_header"}},
		{"invalid origins", good + "token_header: X-Token\ntrusted_origins: [app.example.com, 'https://app.example.com/']", []string{
			`7: trusted_origins[0]: "app.example.com" is not an origin such as https://app.example.com`,
			`7: trusted_origins[1]: "https://app.example.com/" is not an origin such as https://app.example.com`}},
		{"subprotocols of nothing", good + "websocket_token: {}", []string{"6: websocket_token: requires prefix, base64url_prefix or pair"}},
		{"a subprotocol that no client can offer", good + "websocket_token: {pair: 'a b'}", []string{`6: websocket_token: "a b" contains a character that a subprotocol cannot have`}},
		{"a subprotocol where only proofs count", good + "websocket_token: {pair: bearer}\ndpop: {}\nsender_constrained: true", []string{
			"6: websocket_token: no effect: with SenderConstrained and DPoP alone, a token is accepted only in the Authorization header"}},
		{"mtls without TLS", good + "mtls: {}", []string{
			"6: mtls: requires tls, or the header in which trusted_proxies send the certificate"}},
		{"mtls by a header without trusted proxies", good + "mtls: {header: Client-Cert}", []string{
			"1: trusted_proxies: required if proxies report a URL or a certificate"}},
		{"mtls in an invalid format", good + "mtls: {header: X-Cert, format: jwk}\ntrusted_proxies: [10.0.0.1]", []string{
			`6: mtls.format: "jwk" is not pem, der, xfcc or rfc9440`}},
		{"mtls in the format of another header", good + "mtls: {header: X-Cert, format: xfcc}\ntrusted_proxies: [10.0.0.1]", []string{
			"6: mtls.format: xfcc is not a format of the header X-Cert"}},
		{"mtls in a format without a header", good + "mtls: {format: pem}", []string{"6: mtls.format: has no effect without header"}},
		{"mtls by a header that is nothing", good + "mtls: {header: ''}", []string{"6: mtls.header: is empty"}},
		{"bound tokens only, of which none is accepted", good + "sender_constrained: true", []string{
			"6: sender_constrained: no kind of binding can be proven: enable DPoP or client certificates"}},
		{"trusted proxies that are not addresses", good + "trusted_proxies: [proxy.example.com, '', '::ffff:10.0.0.0/100', 10.0.0.1/8, '::1', 0.0.0.0/0]\nforwarded_header: Via", []string{
			`6: trusted_proxies[0]: "proxy.example.com" is neither an address nor a range such as 10.0.0.0/8`,
			`6: trusted_proxies[1]: is empty`,
			`6: trusted_proxies[2]: "::ffff:10.0.0.0/100" is neither an address nor a range such as 10.0.0.0/8`,
			`6: trusted_proxies[5]: 0.0.0.0/0 contains all addresses, so any client would be trusted as a proxy`,
			`7: forwarded_header: "Via" is not supported: use "Forwarded" or "X-Forwarded"`}},
		{"trusted proxies that are asked for nothing", good + "trusted_proxies: [10.0.0.0/8]", []string{
			"1: forwarded_header: required: without it and without a certificate header, trusting proxies has no effect"}},
		{"a port and a prefix in another header", good + "trusted_proxies: [10.0.0.0/8]\nforwarded_header: Forwarded\nforwarded_port: true\nforwarded_prefix: true", []string{
			"8: forwarded_port: has no effect unless Forwarded is X-Forwarded",
			"9: forwarded_prefix: has no effect unless Forwarded is X-Forwarded"}},
		{"encoded slashes in a route that is not there", good + "allow_encoded_slash: ['GET /orders/{id}']", []string{
			`6: allow_encoded_slash[0]: "GET /orders/{id}" is not the pattern of a route`}},
		{"encoded slashes in a route without a wildcard", good + "allow_encoded_slash: GET /orders", []string{
			`6: allow_encoded_slash[0]: "GET /orders" has no wildcard`}},
		{"tls without a key", good + "tls: {cert_file: nowhere}", []string{"6: tls.key_file: required"}},
		{"tls of files that are not there", good + "tls: {cert_file: nowhere, key_file: nowhere}", []string{
			"6: tls: open DIR/nowhere: no such file or directory"}},
		{"each field of a status list, on its line", base(`[jwks: {issuer: "https://as.example.com"}]`, `
- jwks:
   issuer: urn:as
   file: nowhere.json
   status_list:
    required: 1
    allow: [1, x]
    refresh_interval: 0s
    min_ttl: 2h
    stale_if_error: -1s
    bits: 2
`), []string{
			`7: verifiers[0].jwks.file: open DIR/nowhere.json: no such file or directory`,
			`9: verifiers[0].jwks.status_list.required: "1" is not true or false`,
			`9: verifiers[0].jwks.status_list.origins: required because Issuer is not a URL`,
			`10: verifiers[0].jwks.status_list.allow[0]: is not a status from 2 to 255`,
			`10: verifiers[0].jwks.status_list.allow[1]: is not a status from 2 to 255`,
			`11: verifiers[0].jwks.status_list.refresh_interval: "0s" is not a positive duration`,
			`12: verifiers[0].jwks.status_list.min_ttl: 2h0m0s is more than the maximum TTL, 1h0m0s`,
			`13: verifiers[0].jwks.status_list.stale_if_error: "-1s" is not a duration such as 30s`,
			`14: verifiers[0].jwks.status_list: unknown field "bits"; known are required, origins, allow, refresh_interval, min_ttl, max_ttl, stale_if_error`}},
		{"an unknown profile", good + "profile: fapi1", []string{`6: profile: "fapi1" is not fapi2`}},
		{"all that contradicts fapi2", base(`[jwks: {issuer: "https://as.example.com"}]`, `
- jwks:
   issuer: http://as.example.com
   url: https://as.example.com/keys
   profile: lenient
   algorithms: [PS256, RS256]
   leeway: 1s
   max_lifetime: 1h
   insecure_http: true
`) + "profile: fapi2\nsender_constrained: false\ndpop: {algorithms: [ES384]}\nwebsocket_token: {pair: bearer}", []string{
			"1: tls: required with profile: fapi2, or trusted_proxies that terminate TLS",
			"6: verifiers[0].jwks.issuer: is not an https URL",
			"8: verifiers[0].jwks.profile: must not be set with profile: fapi2, which sets it",
			`9: verifiers[0].jwks.algorithms: "RS256" is none of PS256, ES256 and EdDSA (FAPI 2.0, section 5.4)`,
			"10: verifiers[0].jwks.leeway: must not be set with profile: fapi2, which sets it",
			"11: verifiers[0].jwks.max_lifetime: 1h0m0s is not within 0 and 10m0s",
			"12: verifiers[0].jwks.insecure_http: must not be set with profile: fapi2, which sets it",
			"16: sender_constrained: must not be set with profile: fapi2, which sets it",
			`17: dpop.algorithms: "ES384" is none of PS256, ES256 and EdDSA (FAPI 2.0, section 5.4)`,
			"18: websocket_token: must not be set with profile: fapi2, which sets it"}},
		{"settings about tokens beside fapi2", base(`[jwks: {issuer: "https://as.example.com"}]`, `
- jwks:
   issuer_type: keycloak
   issuer: https://as.example.com
   max_lifetime: 5m
   allow: scp
   clients: app
   rules: acr
   ca_file: nowhere.pem
`) + "profile: fapi2\ndpop: {}\ntrusted_proxies: [10.0.0.1]\nforwarded_header: Forwarded", []string{
			"6: verifiers[0].jwks.issuer_type: cannot be combined with profile: fapi2, which accepts tokens by RFC 9068 only",
			"9: verifiers[0].jwks.allow: cannot be combined with profile: fapi2, which accepts tokens by RFC 9068 only",
			"12: verifiers[0].jwks.ca_file: reading DIR/nowhere.pem: no such file or directory",
			"12: verifiers[0].jwks.ca_file: cannot be combined with profile: fapi2, which sets how keys are requested"}},
		{"fapi2 with no more than its name", good + "profile: fapi2", []string{
			"1: tls: required with profile: fapi2, or trusted_proxies that terminate TLS",
			"1: dpop, mtls: one of them is required (FAPI 2.0, section 5.3.4)",
			"4: verifiers[0].jwks.status_list: required with profile: fapi2, or a max_lifetime (FAPI 2.0, section 5.3.4)"}},
		{"fapi2 and two ways to learn of revocations", verifier("{issuer: 'https://a', status_list: {}, max_lifetime: 5m}") +
			"profile: fapi2\ndpop: {}\ntrusted_proxies: [10.0.0.1]\nforwarded_header: Forwarded", []string{
			"4: verifiers[0].jwks.max_lifetime: cannot be combined with status_list under profile: fapi2"}},
		{"fapi2 and two verifiers", verifiers(one+", jwks: {issuer: 'https://b'}") + "profile: fapi2\ndpop: {}\ntrusted_proxies: [10.0.0.1]\nforwarded_header: Forwarded", []string{
			"4: verifiers: profile: fapi2 requires exactly one, got 2"}},
		{"fapi2 and an introspection without TLS", verifiers("introspection: {url: 'http://a.example.com', client_id: x, client_secret: x, insecure_http: true}") +
			"profile: fapi2\ndpop: {}\ntrusted_proxies: [10.0.0.1]\nforwarded_header: Forwarded", []string{
			"4: verifiers[0].introspection.insecure_http: must not be set with profile: fapi2, which sets it",
			"4: verifiers[0].introspection.issuer: is not an https URL"}},
		{"a probe that is not an address", good + "probe: /ready", []string{
			`6: probe: "/ready" is not an address such as 127.0.0.1:8080`}},

		{"no routes", base(`{"GET /orders": "orders:read"}`, "{}"), []string{"5: routes: is empty: every request would be refused"}},
		{"routes that are not a mapping", base(`{"GET /orders": "orders:read"}`, "[x]"), []string{
			"5: routes: is not a mapping"}},
		{"routes that cannot stand together, each on its line", routes(`
  "/":
    "@public"
  "/a/{$}": x
  "/a/{y}": x
  "/a/{y}/": x
  "/a/":
    x
  "GET /b: c": x
  "get /d": x
`), []string{
			`12: routes["/a/"]: can never match: ["/a/{$}" "/a/{y}" "/a/{y}/"] serve all its requests`,
			`14: routes["GET /b: c"]: the wider row "/" is public and serves GET /b:%20c/: add a row that states what this request needs`,
			`15: routes["get /d"]: can never match: methods are case-sensitive (RFC 9110, section 9.1): "get" configured, "GET" expected`,
			`15: routes["get /d"]: the wider row "/" is public and serves get /d/: add a row that states what this request needs`}},
		{"an operator of another language in a route", routes(`
  "GET /a": "orders:read || orders:write"
`), []string{`7: routes["GET /a"]: "orders:read || orders:write": "||" reads as an operator: write a space between scopes that are all needed, " | " between alternatives`}},
		{"every kind of bad route, each on its line", routes(`
  "GET /a": "@admin"
  "GET /b": ""
  "GET /c": "x | | y"
  "GET /d": null
  "GET /e": [x]
  "GET /f": 'a"b'
  "GET /g": "@public"
  "GET /g": "@any"
  "GET  /g": x
  "/{x}/y": x
  "/z/{x}": x
  "orders": x
  "GET /{": x
`), []string{
			`7: routes["GET /a"]: "@admin" is not @public, @optional or @any`,
			`8: routes["GET /b"]: "": an alternative has no scope`,
			`9: routes["GET /c"]: "x | | y": an alternative has no scope`,
			`10: routes["GET /d"]: is empty`,
			`11: routes["GET /e"]: is neither a string nor a mapping`,
			`12: routes["GET /f"]: "a\"b": scope "a\"b": character '"' at 1 is not allowed (RFC 6749, section 3.3)`,
			`13: routes["GET /g"]: pattern "GET /g" conflicts with pattern "GET  /g": GET /g matches the same requests as GET  /g`,
			`14: routes: "GET /g" is given on line 13 already`,
			`16: routes["/{x}/y"]: pattern "/{x}/y" conflicts with pattern "/z/{x}": /{x}/y and /z/{x} both match some paths, like "/z/y". But neither is more specific than the other. /{x}/y matches "/x/y", but /z/{x} doesn't. /z/{x} matches "/z/x", but /{x}/y doesn't.`,
			`18: routes["orders"]: the path must begin with a slash: write "/orders"`,
			`19: routes["GET /{"]: parsing "GET /{": at offset 5: bad wildcard segment (must end with '}')`}},
		{"public and any without the @", routes(`
  "GET /a": public
  "GET /b": any
  "GET /c": {scopes: public}
  "GET /d": public | any
  "GET /e": optional
`), []string{
			`7: routes["GET /a"]: "public" would be a scope: write "@public", or scopes: public in a mapping if there is a scope of that name`,
			`8: routes["GET /b"]: "any" would be a scope: write "@any", or scopes: any in a mapping if there is a scope of that name`,
			`11: routes["GET /e"]: "optional" would be a scope: write "@optional", or scopes: optional in a mapping if there is a scope of that name`}},
		{"every kind of bad mapping in a route, each on its line", routes(`
  "GET /a": {}
  "GET /b": {scopes: "@admin", claims: [a]}
  "GET /c": {scopes: "@public", claims: tid = t1}
  "GET /d": {claims: []}
  "GET /e":
    claims:
    - tid=t1
    - tid = {te nant}
    - tid = {tenant...}
    - tid ^= {tenant}
    - tid = {tenant} | t1
  "GET /f": {scopes: orders, claim: tid = t1}
  "GET /h/{tenant}": {claims: "tid = {tennant}"}
  "GET /i": {cel: "claims.tid == 't1'"}
  "GET /j": {cel: []}
`), []string{
			`7: routes["GET /a"]: scopes, claims, cel, acr, max_age or authorization_details is required`,
			`8: routes["GET /b"].scopes: "@admin" is not @public, @optional or @any`,
			`9: routes["GET /c"].scopes: @public cannot be combined with conditions, which need a token`,
			`10: routes["GET /d"].claims: is empty`,
			`13: routes["GET /e"].claims[0]: an operator (=, ~=, ^=) needs a space on each side`,
			`14: routes["GET /e"].claims[1]: "tid = {te nant}": a part of the path has the form claim = {wildcard} or claim ~= {wildcard}`,
			`15: routes["GET /e"].claims[2]: "tid = {tenant...}": a part of the path has the form claim = {wildcard} or claim ~= {wildcard}`,
			`16: routes["GET /e"].claims[3]: "tid ^= {tenant}": a part of the path has the form claim = {wildcard} or claim ~= {wildcard}`,
			`17: routes["GET /e"].claims[4]: "tid = {tenant} | t1": a part of the path has the form claim = {wildcard} or claim ~= {wildcard}`,
			`18: routes["GET /f"]: unknown field "claim"; did you mean claims?`,
			`19: routes["GET /h/{tenant}"]: the rule "tid = path value tennant" can never hold: the pattern has no wildcard {tennant}`,
			`20: routes["GET /i"].cel: CEL is not part of this build of valetkey: build the full one in a clone: go build -o valetkey ./cmd/valetkey/full/valetkey`,
			`21: routes["GET /j"].cel: is empty`}},
		{"every kind of bad login, detail and mode in a route, each on its line", routes(`
  "GET /a": {acr: []}
  "GET /b": {acr: [phr, 'p r']}
  "GET /c": {acr: ''}
  "GET /d": {max_age: 0s}
  "GET /e": {max_age: 10ms}
  "GET /f": {max_age: 300}
  "GET /g": {scopes: "@public", acr: phr}
  "GET /h": {scopes: "@optional", max_age: 5m}
  "GET /i": {authorization_details: {actions: initiate}}
  "GET /j": {authorization_details: [{type: payment, amount: 5}]}
  "GET /k": {scopes: "@public", insecure_report_only: true}
  "GET /l": {scopes: "@optional", insecure_report_only: true}
  "GET /m": {insecure_report_only: true}
`), []string{
			`7: routes["GET /a"].acr: is empty`,
			`8: routes["GET /b"].acr[1]: "p r" is not an acr value: it is empty, or has a space or another character that a challenge cannot carry`,
			`9: routes["GET /c"].acr: "" is not an acr value: it is empty, or has a space or another character that a challenge cannot carry`,
			`10: routes["GET /d"].max_age: "0s" is not a positive duration`,
			`11: routes["GET /e"].max_age: is less than a second`,
			`12: routes["GET /f"].max_age: "300" is not a duration such as 30s`,
			`13: routes["GET /g"].scopes: @public cannot be combined with conditions, which need a token`,
			`14: routes["GET /h"].scopes: @optional cannot be combined with conditions, which need a token`,
			`15: routes["GET /i"].authorization_details.type: required`,
			`16: routes["GET /j"].authorization_details[0]: unknown field "amount"; known are type, locations, actions, datatypes, identifier, privileges`,
			`17: routes["GET /k"].insecure_report_only: has no effect on a route that needs no token: remove it, or @public`,
			`18: routes["GET /l"].insecure_report_only: has no effect on a route that needs no token: remove it, or @optional`,
			`19: routes["GET /m"]: scopes, claims, cel, acr, max_age or authorization_details is required`}},
		{"rules in CEL in the light build", verifier(`{issuer: "https://as.example.com", cel: claims.a == 1}`), []string{
			`4: verifiers[0].jwks.cel: CEL is not part of this build of valetkey: build the full one in a clone: go build -o valetkey ./cmd/valetkey/full/valetkey`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := load(t, c.config, slog.New(slog.DiscardHandler))
			if err == nil {
				p.Close()
				t.Fatal("accepted")
			}
			if got := mistakes(err); !slices.Equal(got, c.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
		})
	}

	for _, c := range []struct{ name, config, want string }{
		{"a second document that is not YAML", good + "---\n\t}\n", "proxy.yaml: yaml: line 7"},
		{"not YAML", "listen: [", "proxy.yaml: yaml: line 1: did not find expected node content"},
		{"nesting without end", strings.Repeat("[", 20_000), "exceeded max depth"},
		{"a huge file", strings.Repeat("#", 1<<20+1), "is longer than 1048576 bytes"},
		{"an alias to itself", "a: &a [*a, *a]\n" + good, "aliases are not supported"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := load(t, strings.ReplaceAll(c.config, "a: &a [*a, *a]", "realm: &a [x]\nresource: *a"), slog.New(slog.DiscardHandler))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v", err)
			}
		})
	}
	t.Run("no file", func(t *testing.T) {
		if _, err := proxy.Load(filepath.Join(t.TempDir(), "x.yaml"), drivers, slog.New(slog.DiscardHandler)); err == nil {
			t.Error("accepted")
		}
	})
}

// mistakes returns each with its line, and with DIR for the folder of the configuration.
func mistakes(err error) (all []string) {
	if err == nil {
		return nil
	}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		dir, rest, _ := strings.Cut(line, "proxy.yaml:")
		all = append(all, strings.ReplaceAll(rest, filepath.Clean(dir), "DIR"))
	}
	return all
}

// TestSecretsAreNotRepeated puts secrets where they belong, with something else wrong, and where they do not.
func TestSecretsAreNotRepeated(t *testing.T) {
	const secret = "s3cret"
	long := filepath.Join(t.TempDir(), "long")
	if err := os.WriteFile(long, []byte(strings.Repeat(secret, 20_000)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"client_secret", "password", "key"} {
		for _, text := range []string{
			": s3cret, " + name + ": s3cret", ":s3cret", ": *s3cret", ": &s3cret [x]", ": !s3cret x", ": !!int s3cret", ": [s3cret]",
			": {s3cret: s3cret}", "_file: s3cret", "_env: s3cret", "_file: " + long, "_file: /", ": s3cret, " + name + "_env: s3cret",
			": s3cret, auth: x, db: x",
		} {
			fields := "{client_id: x, address: 'localhost:1', " + name + text + "}"
			for _, config := range []string{
				strings.Replace(good, `jwks: {issuer: "https://as.example.com"}`, "introspection: "+fields, 1), good + "redis: " + fields,
			} {
				p, err := load(t, config, slog.New(slog.DiscardHandler))
				if err == nil {
					p.Close()
					t.Errorf("%s is accepted", fields)
				} else if strings.Contains(err.Error(), secret) {
					t.Errorf("%s: %v", fields, err)
				}
			}
		}
	}
}

// TestExampleInFull removes the comment signs from the options in the example.
func TestExampleInFull(t *testing.T) {
	text, err := os.ReadFile("../../testdata/proxy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	upstreams := regexp.MustCompile(`(?m)^# upstreams:\n(#  .*\n)+`)
	t.Run("several upstreams", func(t *testing.T) {
		section := strings.ReplaceAll("\n"+upstreams.FindString(string(text)), "\n# ", "\n")
		several := strings.Replace(good, "upstream: http://127.0.0.1:9\n", section[1:], 1)
		dir := t.TempDir()
		for name, content := range map[string]string{
			"proxy.yaml": strings.Replace(several, "routes: {", `routes: {"GET /billing/invoices": billing, "admin.example.com/": admin, `, 1),
			"ca.pem":     certificatePEM, "client.crt": certificatePEM, "client.key": keyPEM,
		} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		p, err := proxy.Load(filepath.Join(dir, "proxy.yaml"), drivers, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		p.Close()
	})
	full := regexp.MustCompile(`(?m)^( *)# (tls:|probe:|- introspection:|dpop:|mtls:|sender_constrained:|trusted_proxies:|forwarded_header:|forwarded_port:|forwarded_prefix:|websocket_token:|redis:|signals:|  )`).ReplaceAllString(upstreams.ReplaceAllString(string(text), ""), "$1$2")
	full = strings.NewReplacer("\n# openapi:", "\nopenapi:", "      # status_list:", "      status_list:").Replace(full)
	full, rows, _ := strings.Cut(full, "\nroutes:\n")
	full += rows[strings.Index(rows, "\n\n"):]
	dir := t.TempDir()
	for name, content := range map[string]string{"proxy.yaml": full, "openapi.yaml": document, "orders.secret": "secret\n", "redis.password": "secret\r\n", "signals.secret": "secret", "push.secret": "Bearer secret", "redis.key": key + "\n", "nonce.key": key, "redis-ca.pem": certificatePEM,
		"proxy.crt": certificatePEM, "proxy.key": keyPEM} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p, err := proxy.Load(filepath.Join(dir, "proxy.yaml"), drivers, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	p.Close()
	if err := conforms(t, full); err != nil {
		t.Error(err)
	}
	var fields struct {
		Verifiers []map[string]map[string]any
		Redis     map[string]any
		Signals   map[string]any
		DPoP      map[string]any `yaml:"dpop"`
		MTLS      map[string]any `yaml:"mtls"`
		Socket    map[string]any `yaml:"websocket_token"`
		TLS       map[string]any `yaml:"tls"`
		Proxies   []string       `yaml:"trusted_proxies"`
		Forwarded string         `yaml:"forwarded_header"`
		Port      bool           `yaml:"forwarded_port"`
		Prefix    bool           `yaml:"forwarded_prefix"`
		Bound     bool           `yaml:"sender_constrained"`
	}
	if err := yaml.Unmarshal([]byte(full), &fields); err != nil || len(fields.Verifiers) != 2 || len(fields.Verifiers[1]["introspection"]) != 11 || len(fields.Redis) != 14 || len(fields.Signals) != 18 ||
		fields.Verifiers[0]["jwks"]["status_list"] == nil || len(fields.DPoP) != 6 || len(fields.MTLS) != 2 || len(fields.Socket) != 3 || len(fields.TLS) != 2 || len(fields.Proxies) != 2 ||
		fields.Forwarded != "X-Forwarded" || !fields.Port || !fields.Prefix || !fields.Bound {
		t.Errorf("%v, and the example has %v", err, fields)
	}
}

// FuzzLoad asserts that an accepted file without public routes admits no request without a token.
func FuzzLoad(f *testing.F) {
	f.Add(good, "/orders")
	f.Add(strings.Replace(good, "GET /orders", "/{x...}", 1), "/a/b")
	f.Add("a: &a [*a]\nb: !!binary x\n? {}\n: - !x", "/")
	f.Add(strings.Replace(good, "as.example.com\"", "as.example.com\", url: 'http://[::1]/', leeway: 0s, audience: [a, b]", 1), "//x")
	f.Add(good+"redis: {address: 'localhost:1', key: "+key+", timeout: 1s}\nprobe: ':1'", "/orders")
	f.Add(strings.Replace(good, "jwks:", one+", jwks:", 1), "/orders")
	f.Fuzz(func(t *testing.T, config, path string) {
		p, err := loadOnly(t, config, slog.New(slog.DiscardHandler))
		if err != nil {
			return
		}
		defer p.Close()
		if strings.Contains(config, "public") || strings.Contains(config, "optional") || strings.Contains(config, "report_only") || strings.Contains(path, "oauth-protected-resource") || strings.ContainsAny(config, `\%`) {
			return
		}
		r := httptest.NewRequest("GET", "/", nil)
		r.URL.Path = path
		w := httptest.NewRecorder()
		p.ServeHTTP(w, r)
		if w.Code != 401 && w.Code != 400 && w.Code != 307 {
			t.Errorf("%q got %d", path, w.Code)
		}
	})
}
