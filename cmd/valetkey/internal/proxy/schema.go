package proxy

import (
	"maps"
	"reflect"
	"slices"

	"github.com/valetkey/valetkey/cmd/valetkey/internal/issuer"
	"github.com/valetkey/valetkey/internal/config"
	"github.com/valetkey/valetkey/internal/jose"
	"github.com/valetkey/valetkey/issuers"
	"github.com/valetkey/valetkey/middleware"
)

// Schema returns the JSON Schema of the file of a proxy.
func Schema() (config.Schema, error) {
	return config.SchemaOf(file{}, guide("Configuration of valetkey proxy",
		config.All(config.Required("listen"), config.OneOf("upstream", "upstreams"), config.OneOf("routes", "openapi"))))
}

// AuthorizeSchema returns the JSON Schema of the file of an Authorizer.
func AuthorizeSchema() (config.Schema, error) {
	s, err := config.SchemaOf(authorizeFile{}, guide("Configuration of valetkey authorize",
		config.All(config.Schema{"anyOf": []any{config.Required("listen_http", "dialect"), config.Required("listen_grpc")}}, config.OneOf("routes", "openapi"))))
	if err != nil {
		return nil, err
	}
	for key := range proxyOnly {
		delete(s["properties"].(map[string]any), key)
	}
	return s, nil
}

func guide(title string, whole config.Schema) config.Guide {
	return config.Guide{
		Title: title,
		Keys:  schemaKeys, Values: schemaValues, Texts: schemaTexts,
		Rules: map[string]config.Schema{
			"":                        whole,
			"verifiers":               config.OneOf("jwks", "introspection", "api_keys"),
			"verifiers.introspection": config.All(config.Required("client_id"), config.OneOf("client_secret", "client_secret_file", "client_secret_env")),
			"redis":                   config.All(config.OneOf("key", "key_file", "key_env"), config.OneOf("address", "socket", "cluster", "sentinel")),
			"signals":                 config.Required("delivery"),
			"websocket_token":         {"minProperties": 1},
			"routes":                  {"propertyNames": config.Schema{"pattern": `^([^/\s]+[ \t]+)?[^/\s]*/`}},
			"routes.*":                {"minProperties": 1},
			"verifiers.jwks":          config.AtMostOne("profile", "issuer_type"),
		},
	}
}

// files are the structs that files are read into.
var files = []any{file{}, authorizeFile{}}

// schemaKeys describes each field of the files in this package to the users of editors. Paths are those of the file, without indexes of
// lists: verifiers.jwks.issuer. Write one or two sentences: what the field does, its unit, and its default.
var schemaKeys = map[string]string{
	"listen":               "Address of the listener, such as 127.0.0.1:8081.",
	"tls":                  "Certificate of the listener. Default: plain HTTP, behind a proxy that terminates TLS.",
	"tls.cert_file":        "File with the certificate and its intermediates, in PEM.",
	"tls.key_file":         "File with the private key, in PEM.",
	"upstream":             "URL of the server that receives the requests that are let through: http, https, or h2c (HTTP/2 without TLS).",
	"resource":             "Identifier of this API, as in the aud of its tokens. If it is also the URL for clients, challenges link to its metadata (RFC 9728).",
	"realm":                "Realm of the challenges. Default: api.",
	"forward_token":        "Whether the upstream also receives the token, on routes where it is verified. Default: false.",
	"token_header":         "Header that carries the token instead of Authorization, which is then neither read nor forwarded.",
	"max_token_bytes":      "Maximum length of a token in bytes, at most 65536. Default: 16384.",
	"max_body_bytes":       "Maximum length of the body of a request in bytes; 0: no limit. Longer ones get 413. Default: 0.",
	"max_header_bytes":     "Maximum length of the headers of a request in bytes, from 4096 to 1048576. Default: 65536, or more if max_token_bytes needs it.",
	"header_timeout":       "Time limit for the headers of a request to arrive. Default: 10s.",
	"idle_timeout":         "How long a connection without a request stays open. Default: 2m.",
	"trusted_origins":      "Origins whose pages may send the token_header with requests that do more than read.",
	"probe":                "Address for operators: /live, /ready, /status with the full state, /metrics. Default: none.",
	"drain":                "How long requests are still served at the end, while /ready is 503 already. Default: 5s with a probe, otherwise 0s.",
	"grace":                "How long requests in progress then have to finish. Default: 10s.",
	"error_uri":            "URL of a page that explains refusals to developers of clients, in each challenge. Default: none.",
	"error_body":           "Body of a refusal: a line of text, or problem_json (RFC 9457). Default: text.",
	"insecure_report_only": "Lets requests through that would be refused, and logs them as refused. For the introduction of tokens to an API in use.",

	"metadata":               "What the metadata for clients (RFC 9728) contains beside the resource, the issuers and the scopes. Requires a resource that is a URL.",
	"metadata.name":          "Name of the API, for people.",
	"metadata.documentation": "URL of the documentation for developers.",
	"metadata.policy":        "URL of the policy on the use of the data.",
	"metadata.terms_of_use":  "URL of the terms of use.",
	"metadata.scopes":        "The scopes that are listed. Default: those of the routes.",
	"metadata.max_age":       "How long clients may cache the metadata; 0s: not at all. Default: 1h.",

	"cache":         "Bounds of the cache of verified tokens.",
	"cache.entries": "Maximum number of tokens; negative: no cache. Default: 65536.",
	"cache.bytes":   "Maximum memory for them in bytes. Default: 67108864.",
	"cache.max_age": "Time after which a token is verified again. Default: 5m.",

	"revocations":       "Bounds of the memory for revocations.",
	"revocations.bytes": "Maximum memory for them in bytes. Default: 33554432.",
	"revocations.keep":  "How long a revocation without an end, or of signals, is kept: the longest lifetime of a token. Default: 24h.",

	"access_log":           "Which decisions are logged, one line each: refusals, all, or none with off. Default: refusals, or off with audit.",
	"audit":                "Records about who was refused, where and why, to standard error. Default: none.",
	"audit.grants":         "Share of accepted requests that are recorded too, from 0 to 1. Default: 0.",
	"audit.identity":       "How the subject, the client and the address appear: clear, hashed under the key, or omitted. Default: clear.",
	"audit.key":            "Key of hashed identities: the base64 of 32 random bytes, kept as long as records must be comparable.",
	"audit.queue":          "Number of records that may wait to be written. Above that, records are dropped and counted. Default: 1024.",
	"audit.block":          "Whether a request waits until its record is in the queue, so that none is dropped. Default: false.",
	"sender_constrained":   "Whether to refuse tokens that are not bound to a key or a certificate of the client. Default: false.",
	"trusted_proxies":      "Addresses and ranges of the proxies in front of this one, whose headers are accepted.",
	"forwarded_header":     "Header in which the trusted proxies report the request of the client, for DPoP and for the upstream. Default: none is read.",
	"forwarded_port":       "Whether to read X-Forwarded-Port too. Enable it only if the proxies set it on every request. Default: false.",
	"forwarded_prefix":     "Whether to read X-Forwarded-Prefix too. Enable it only if the proxies set it on every request. Default: false.",
	"cancel_with_token":    "Whether streams and WebSockets end when their token expires or is revoked. Default: true.",
	"profile":              "fapi2: the FAPI 2.0 Security Profile. It sets other options; options that contradict it are errors.",
	"routes":               "Patterns of Go's net/http and what each requires. Requests that match no pattern are refused.",
	"routes.*":             "Scopes, or a mapping of conditions that must all be met.",
	"routes.*.scopes":      "Scopes that are all required; alternatives separated by \" | \"; @any for any valid token; @optional for one that is verified if it is sent; @public for no token.",
	"routes.*.claims":      "Conditions on claims, such as environment = production, or tenant_id = {tenant} for a part of the path. All must be met.",
	"routes.*.cel":         "Rules in CEL on the token and the request, such as claims.tenant_id == path.tenant. They require the full build.",
	"routes.*.cel.rule":    "Expression of the type bool. It can read claims, token, request, path and now.",
	"routes.*.cel.message": "Text for clients if the rule refuses. Default: a text for all rules.",
	"routes.*.acr":         "Accepted values of acr, the strength of the login, in order of preference. Otherwise the client is asked for a new login (RFC 9470).",
	"routes.*.max_age":     "How long ago the user may have logged in (auth_time), such as 5m. Otherwise the client is asked for a new login (RFC 9470).",

	"routes.*.authorization_details":            "Authorization details that the token must have (RFC 9396), each in one of its details.",
	"routes.*.authorization_details.type":       "Type of the detail.",
	"routes.*.authorization_details.locations":  "Resource servers that the detail must name.",
	"routes.*.authorization_details.actions":    "Actions that it must allow.",
	"routes.*.authorization_details.datatypes":  "Kinds of data that it must allow.",
	"routes.*.authorization_details.identifier": "Identifier of the resource that it must be about.",
	"routes.*.authorization_details.privileges": "Privileges that it must have.",

	"routes.*.insecure_report_only": "Lets requests through that this route would refuse, and logs them as refused. For the introduction of a requirement.",

	"openapi":             "OpenAPI document, 3.0 to 3.2, whose security sections state the requirements. It replaces routes and requires the full build.",
	"allow_encoded_slash": "Patterns whose wildcards accept an encoded slash (%2F). The upstream must split a path before it decodes it.",

	"listen_http":     "Address where a gateway asks over HTTP, such as 127.0.0.1:9091.",
	"listen_grpc":     "Address where Envoy asks over gRPC (ext_authz), such as 127.0.0.1:9092. It requires the full build.",
	"dialect":         "How the gateway asks over HTTP: nginx, ingress-nginx, traefik, caddy, haproxy, or envoy-http.",
	"path_prefix":     "The path_prefix of Envoy's http_service, such as /check. Only for dialect: envoy-http, which requires it.",
	"callers":         "Addresses and ranges from which the gateway connects. Others are refused.",
	"callers_ca_file": "File with the authorities of the gateway's certificate, in PEM. It requires tls. Default: callers need no certificate.",
	"allow_preflight": "Whether CORS preflights pass without a token. Default: false, the gateway must answer them before it asks.",

	"upstreams":                         "Several servers, instead of upstream. A route belongs to the one with its host and the longest prefix of its path.",
	"upstreams.url":                     "URL of the server: http, https, or h2c (HTTP/2 without TLS).",
	"upstreams.prefix":                  "Segments that begin the paths of its routes, such as /billing. Default: all paths.",
	"upstreams.host":                    "Host of its routes. Default: any.",
	"upstreams.strip_prefix":            "Whether the server receives the path without the prefix. Default: false.",
	"upstreams.ca_file":                 "File with the authorities of the server's certificate, in PEM. Default: those of the system.",
	"upstreams.cert_file":               "File with the client certificate, in PEM. Read again for each connection. Default: none.",
	"upstreams.key_file":                "File with the private key of cert_file, in PEM.",
	"upstreams.connect_timeout":         "Time limit for a connection. Default: 5s.",
	"upstreams.tls_timeout":             "Time limit for a TLS handshake. Default: 5s.",
	"upstreams.response_header_timeout": "Time limit for the headers of a response; 0s: none. Default: 1m.",
	"upstreams.idle_timeout":            "How long an unused connection is kept. Default: 90s.",

	"websocket_token":                  "Subprotocols of WebSocket handshakes in which browsers may send the token. Default: none.",
	"websocket_token.prefix":           "Text before the token in a subprotocol.",
	"websocket_token.base64url_prefix": "Text before the base64url of the token in a subprotocol, as in Kubernetes.",
	"websocket_token.pair":             "Subprotocol that precedes one that is the token. The upstream selects it.",

	"cors":                "Lets pages of other origins call the API. Default: the upstream sends CORS headers itself, and preflights need a token.",
	"cors.origins":        "Origins whose pages may read responses, such as https://app.example.com or https://*.example.com, or * for all.",
	"cors.methods":        "Methods that need permission and get it, such as PUT. Default: all that have a row in the routes.",
	"cors.headers":        "Request headers that scripts may send beside Authorization, Content-Type and, with dpop, DPoP; or * for all.",
	"cors.expose_headers": "Response headers that scripts may read beside WWW-Authenticate, DPoP-Nonce, Retry-After and X-Request-ID; or * for all.",
	"cors.credentials":    "Whether requests of the pages may carry cookies and client certificates. Tokens in Authorization need no permission. Default: false.",
	"cors.max_age":        "How long browsers remember a preflight, at most 24h; 0s: not at all. Default: that of the browser.",

	"verifiers":      "The trusted issuers. Each item has either jwks or introspection.",
	"verifiers.jwks": "Verifies JWTs with the keys of their issuer.",

	"verifiers.jwks.issuer":               "The iss of the tokens, compared exactly.",
	"verifiers.jwks.audience":             "Accepted values of aud: one or a list. Default: resource.",
	"verifiers.jwks.url":                  "URL of the key set. {kid} in its path: a URL for each key. Default: discovered at the issuer.",
	"verifiers.jwks.file":                 "File with the key set, instead of url. Nothing is fetched.",
	"verifiers.jwks.initial_file":         "File with the key set that is used until the first fetch.",
	"verifiers.jwks.profile":              "What the tokens must have: rfc9068, or less with lenient. Default: rfc9068.",
	"verifiers.jwks.algorithms":           "Accepted signature algorithms. Default: RS256, PS256, ES256, ES384, EdDSA, Ed25519.",
	"verifiers.jwks.leeway":               "Allowed difference between the clocks, at most 5m. Default: 30s.",
	"verifiers.jwks.max_lifetime":         "Maximum time from iat to exp. Default: unlimited.",
	"verifiers.jwks.refresh_interval":     "Maximum age of the keys, if the issuer states none. Default: 10m, or 24h with {kid} in url.",
	"verifiers.jwks.min_refetch_interval": "Minimum time between two fetches that tokens with unknown keys cause. Default: 30s.",
	"verifiers.jwks.stale_if_error":       "How long keys remain in use while the issuer does not answer, at most 24h; 0s: not at all. Default: 1h.",
	"verifiers.jwks.insecure_http":        "Allows http URLs beyond loopback: an attacker on the network can replace the keys.",
	"verifiers.jwks.token_file":           "File with a bearer token for the requests for keys, such as that of a pod. Read again on change.",
	"verifiers.jwks.ca_file":              "File with the authorities of the issuer's certificate, in PEM. Read again on change. Default: those of the system.",
	"verifiers.jwks.cert_file":            "File with the client certificate for the requests for keys, in PEM. Read again on change.",
	"verifiers.jwks.key_file":             "File with the private key of cert_file, in PEM.",
	"verifiers.jwks.issuer_type":          "Product of the issuer, which states how its tokens differ from RFC 9068. Default: none.",
	"verifiers.jwks.tenants":              "Tenants of the product whose tokens are accepted.",
	"verifiers.jwks.clients":              "Clients whose tokens are accepted. Default: all.",
	"verifiers.jwks.rules":                "Conditions on claims, such as email_verified = true. All must be met.",
	"verifiers.jwks.cel":                  "Rules in CEL on the claims, such as claims.exp - claims.iat <= 600. All must hold. They require the full build.",
	"verifiers.jwks.cel.rule":             "Expression of the type bool. It can read claims.",
	"verifiers.jwks.cel.message":          "Text for clients if the rule refuses. Default: a text for all rules.",
	"verifiers.jwks.issuer_aliases":       "Further accepted values of iss, whose keys are those of the issuer.",
	"verifiers.jwks.audience_claim":       "Claim with the recipient, for tokens without aud. Requires markers or require_scope.",
	"verifiers.jwks.audience_header":      "Header parameter with the recipient. aud is then not read.",
	"verifiers.jwks.sole_audience":        "Whether to refuse tokens that also have audiences of other APIs. Default: false.",
	"verifiers.jwks.types":                "Further accepted values of the header parameter typ.",
	"verifiers.jwks.markers":              "Claims that only access tokens have, such as token_use = access.",
	"verifiers.jwks.require_scope":        "Whether a token must have a scope, which ID tokens do not have. Default: false, or that of issuer_type.",
	"verifiers.jwks.client_id_header":     "Header parameter with the client.",
	"verifiers.jwks.client_id_claim":      "Claim with the client. Default: client_id.",
	"verifiers.jwks.scopes":               "Claims with scopes, such as scope and realm_access.roles. Default: scope.",
	"verifiers.jwks.allow":                "What the tokens may lack. Each value weakens a check; docs/issuers.md explains them.",

	"verifiers.jwks.status_list":                  "Checks tokens that name a status list, which their issuer publishes.",
	"verifiers.jwks.status_list.required":         "Whether every token must name a status list. Default: false.",
	"verifiers.jwks.status_list.origins":          "Hosts of status lists other than the issuer's.",
	"verifiers.jwks.status_list.allow":            "Accepted statuses besides 0 (valid). 2 is suspended.",
	"verifiers.jwks.status_list.refresh_interval": "Time between two fetches of a list without a ttl.",
	"verifiers.jwks.status_list.min_ttl":          "Lower limit for the ttl of a list.",
	"verifiers.jwks.status_list.max_ttl":          "Upper limit for the ttl of a list.",
	"verifiers.jwks.status_list.stale_if_error":   "How long a list stays in use if it cannot be fetched again.",

	"verifiers.api_keys":        "Accepts API keys beside tokens, for clients that cannot obtain tokens.",
	"verifiers.api_keys.issuer": "Name of the keys' issuer, for revocations and rules. No issuer of tokens may have it.",
	"verifiers.api_keys.file":   "JSON file with an array of keys, each with digest (SHA-256 in hex), subject and scopes. Read again when it changes.",
	"verifiers.api_keys.header": "Header whose whole value is the key, such as X-Api-Key. Default: Authorization, with the scheme ApiKey, or Basic with the key as user name.",

	"verifiers.introspection":                    "Asks the introspection endpoint of an issuer about opaque tokens (RFC 7662).",
	"verifiers.introspection.issuer_type":        "Product of the issuer, which states how its responses differ from RFC 7662. Default: none.",
	"verifiers.introspection.issuer":             "The issuer of the tokens. It is required with redis and to discover url.",
	"verifiers.introspection.audience":           "Accepted values of aud: one or a list. Default: resource.",
	"verifiers.introspection.url":                "URL of the introspection endpoint. Default: discovered at the issuer.",
	"verifiers.introspection.client_id":          "Client ID of this API at the endpoint.",
	"verifiers.introspection.client_secret":      "Client secret of this API at the endpoint.",
	"verifiers.introspection.auth":               "How the credentials are sent. basic_raw is for issuers that do not decode them, such as UAA. Default: basic.",
	"verifiers.introspection.cache_ttl":          "How long a positive answer is cached, and so the longest time that a revoked token is accepted. 0s asks for each request.",
	"verifiers.introspection.negative_ttl":       "How long a refusal is cached, at most 1m.",
	"verifiers.introspection.jwt_issuers":        "Issuers whose JWTs are introspected instead of verified with keys. Default: none.",
	"verifiers.introspection.audience_by_issuer": "Whether a response may lack aud, because the issuer checks the audience. Default: false.",
	"verifiers.introspection.allow_scope_array":  "Whether a response may have scope as an array. Default: false.",
	"verifiers.introspection.sole_audience":      "Whether to refuse tokens that also have audiences of other APIs. Default: false.",
	"verifiers.introspection.token_type_hint":    "Whether to send token_type_hint=access_token (RFC 7662, section 2.1). Default: false.",
	"verifiers.introspection.timeout":            "Time limit for a request, at most 5s. Default: 5s.",
	"verifiers.introspection.max_in_flight":      "Maximum number of requests at a time; more tokens get 503. Default: 64.",
	"verifiers.introspection.signed":             "Accepts only signed responses (RFC 9701). Requires issuer.",
	"verifiers.introspection.signed.algorithm":   "The only signature algorithm of responses. Default: RS256.",
	"verifiers.introspection.signed.audience":    "The aud of responses: this API at the issuer. Default: client_id.",
	"verifiers.introspection.signed.url":         "URL of the key set. Default: discovered at the issuer.",
	"verifiers.introspection.signed.file":        "File with the key set, instead of url.",
	"verifiers.introspection.leeway":             "Allowed difference between the clocks, at most 5m. Default: 30s.",
	"verifiers.introspection.insecure_http":      "Allows an http URL beyond loopback: the network can read tokens and the secret, and forge answers.",
	"verifiers.introspection.cel":                "Rules in CEL on the claims of the response. All must hold. They require the full build.",
	"verifiers.introspection.cel.rule":           "Expression of the type bool. It can read claims.",
	"verifiers.introspection.cel.message":        "Text for clients if the rule refuses. Default: a text for all rules.",

	"dpop":              "Accepts tokens that are bound to a key of the client, which sends a proof with each request (RFC 9449). Default: such tokens are refused.",
	"dpop.origin":       "Scheme and host of the URLs in proofs, such as https://api.example.com. Default: from forwarded_header, otherwise from resource.",
	"dpop.nonce":        "Whether proofs must contain a nonce from the proxy. Default: off.",
	"dpop.key":          "Key of the nonces: the base64 of 32 random bytes. It is required with redis. Default: generated at startup.",
	"dpop.window":       "The greatest age of a proof, without nonces. Default: 60s.",
	"dpop.leeway":       "How far in the future a proof may be dated, at most 10m.",
	"dpop.algorithms":   "Accepted signature algorithms of proofs. Default: ES256, ES384, PS256, EdDSA, Ed25519.",
	"dpop.replay_store": "Where used proofs are recorded. Default: redis if it is configured, otherwise memory.",

	"mtls":        "Accepts tokens that are bound to a client certificate (RFC 8705). Default: such tokens are refused.",
	"mtls.header": "Header in which trusted_proxies send the certificate. Default: the certificate is that of the TLS connection.",
	"mtls.format": "Format of the header: pem (URL-encoded or in one line), der (base64 without markers), xfcc (Envoy) or rfc9440.",

	"redis":                                    "Redis that proxies share: introspection responses, used proofs and revocations.",
	"redis.address":                            "Address of the server, such as 127.0.0.1:6379.",
	"redis.username":                           "User of Redis. Default: none.",
	"redis.password":                           "Password of Redis.",
	"redis.socket":                             "Path of a Unix socket, instead of address.",
	"redis.cluster":                            "Addresses of one or more nodes of a Redis Cluster, instead of address.",
	"redis.sentinel":                           "The sentinels that know the address of the primary, instead of address.",
	"redis.sentinel.addresses":                 "Addresses of the sentinels.",
	"redis.sentinel.master":                    "Name of the primary at the sentinels.",
	"redis.sentinel.username":                  "User at the sentinels. Default: none.",
	"redis.sentinel.password":                  "Password at the sentinels.",
	"redis.tls":                                "Whether to connect with TLS, to the sentinels too. Default: false, which sends the password unencrypted.",
	"redis.tls_ca_file":                        "File with the authorities of the server's certificate, in PEM. Default: those of the system.",
	"redis.tls_cert_file":                      "File with the client certificate, in PEM. Each new connection reads it.",
	"redis.tls_key_file":                       "File with the private key of tls_cert_file, in PEM.",
	"redis.tls_server_name":                    "Name in the server's certificate. Default: the host that is connected to.",
	"redis.db":                                 "Number of the database. Default: 0.",
	"redis.key":                                "Key that encrypts the data in Redis: the base64 of 32 random bytes, as from openssl rand -base64 32.",
	"redis.prefix":                             "Prefix of the keys in Redis. Default: valetkey:.",
	"redis.timeout":                            "Time limit for one operation.",
	"redis.min_replicas":                       "Replicas of a Redis server that must confirm a revocation or a used proof. Default: 1 with cluster or sentinel, otherwise 0.",
	"redis.allow_unreplicated":                 "Accepts, with cluster or sentinel, that no replica confirms: a failover may forget used proofs and revocations. Default: false.",
	"signals":                                  "Revocations from the identity provider as they happen: the stream of a transmitter of the Shared Signals Framework.",
	"signals.transmitter":                      "Issuer of the events, whose metadata contains the endpoints and keys. Required unless delivery is none.",
	"signals.issuer":                           "Issuer of the tokens to revoke, which a verifier must accept. Default: transmitter.",
	"signals.delivery":                         "push: the transmitter calls endpoint. poll: the proxy asks. none: only backchannel_logout or global_revocation.",
	"signals.token_url":                        "Token endpoint for access to the stream. Default: the one in the OAuth metadata of the transmitter, whose issuer must be identical.",
	"signals.client_id":                        "Client ID at the token endpoint. Required for a stream, with client_secret, or token_file.",
	"signals.client_secret":                    "Client secret at the token endpoint.",
	"signals.auth":                             "How the client authenticates: basic, basic_raw (without URL encoding) or post. Default: basic.",
	"signals.scopes":                           "Scopes to request; [] for none. Default: ssf.read and ssf.manage, or the one of them that the client has.",
	"signals.token_file":                       "File with an access token for the stream, instead of client_id and client_secret. Each request reads it.",
	"signals.endpoint":                         "Public URL to which the transmitter pushes. The proxy serves its path, on listen of this section or else on its own listener. Required with push.",
	"signals.listen":                           "Address of a listener for events alone. Default: the listener of the proxy. Required with valetkey authorize for push.",
	"signals.authorization":                    "Value of the Authorization header of each push, such as Bearer and random text. Default: none.",
	"signals.stream_id":                        "ID of the stream. Default: the one of this client with the same delivery; if there is none, one is created.",
	"signals.unmanaged":                        "Whether an operator manages the stream at the transmitter: its API is not used, and audience is required. Default: false.",
	"signals.poll_url":                         "URL to poll of an unmanaged stream.",
	"signals.audience":                         "Further accepted values of aud. Default: those that the transmitter states for the stream.",
	"signals.tenant":                           "ID of the tenant of the issuer: an event about the tenant revokes all tokens. Default: such events revoke nothing.",
	"signals.events":                           "The events that revoke. Default: session-revoked, account-disabled, account-purged and sessions-revoked.",
	"signals.widen":                            "Whether an event about a session or device revokes all tokens of the user if tokens do not name it. Default: false.",
	"signals.verify_interval":                  "How often the transmitter is asked to prove that the stream delivers; 0s: never. Default: 5m.",
	"signals.require_proof":                    "Whether tokens get 503 at the start until the stream has proven that it delivers. Default: false.",
	"signals.allow_before_caught_up":           "Serves before the waiting events are known: a revoked token may be accepted. Not with redis. Default: false, which responds with 503.",
	"signals.retention":                        "How long the transmitter keeps events that it cannot deliver: a longer interruption is a gap. Default: 1h.",
	"signals.gaps":                             "What to do about a gap: report, or revoke all tokens from before its end. Default: report.",
	"signals.state_file":                       "File that keeps the time of the last contact, so that a gap before a restart is detected. Default: none, or in redis.",
	"signals.jwks_url":                         "URL of the keys of the transmitter. Default: in its metadata.",
	"signals.trusted_origins":                  "Further origins of endpoints of the transmitter, such as https://poll.example.com. Default: only its own.",
	"signals.ca_file":                          "File with the authorities of the certificate of the transmitter, in PEM. Default: those of the system.",
	"signals.allow":                            "Deviations of transmitters to accept: subject_type, untyped, audience_of_stream, all_sessions, risc_metadata.",
	"signals.insecure_http":                    "Allows http URLs beyond loopback: the network can suppress events, and forge them. Default: false.",
	"signals.backchannel_logout":               "Accepts logout tokens of the issuer (OpenID Connect Back-Channel Logout 1.0).",
	"signals.backchannel_logout.path":          "Path of the backchannel_logout_uri, such as /backchannel-logout.",
	"signals.backchannel_logout.audience":      "Client IDs whose logout tokens are accepted.",
	"signals.backchannel_logout.jwks_url":      "URL of the keys of the issuer. Default: in its metadata.",
	"signals.backchannel_logout.allow_untyped": "Accepts logout tokens with the typ JWT, or without one. Default: false.",
	"signals.global_revocation":                "Accepts requests of the draft Global Token Revocation, such as those of Okta.",
	"signals.global_revocation.path":           "Path of the endpoint, such as /global-token-revocation.",
	"signals.global_revocation.audience":       "Accepted values of aud in the JWT that authenticates a request: the URL of the endpoint.",
	"signals.global_revocation.issuer":         "Party that sends the requests. Default: issuer.",
	"signals.global_revocation.subject":        "Required sub of the JWT. Default: any.",
	"signals.global_revocation.jwks_url":       "URL of the keys of that party. Default: in its metadata.",

	"redis.allow_before_caught_up": "Serves before the revocations in Redis are known: a revoked token may be accepted. Default: false, which responds with 503.",
}

// schemaValues are the lists that other packages have. Lists of this package are in the tag oneof.
var schemaValues = map[string][]string{
	"verifiers.jwks.issuer_type":          issuers.Names(),
	"verifiers.jwks.allow":                issuer.Allowances(),
	"verifiers.jwks.algorithms":           jose.Algorithms(),
	"verifiers.introspection.issuer_type": issuers.IntrospectionNames(),
	"dpop.algorithms":                     jose.Algorithms(),
	"signals.events":                      slices.Sorted(maps.Keys(eventNames())),
	"dialect":                             {"nginx", "ingress-nginx", "traefik", "caddy", "haproxy", "envoy-http"},
	"forwarded_header":                    {string(middleware.Forwarded), string(middleware.XForwarded)},
}

// schemaTexts describes what the UnmarshalText methods of this package accept.
var schemaTexts = map[reflect.Type]config.Schema{
	reflect.TypeFor[address]():      text(`^(\[[^\[\]]*\]|[^:\[\]]*):[^:\[\]]*$`, "is not an address such as 127.0.0.1:8080"),
	reflect.TypeFor[upstream]():     text(`^(https?|h2c)://[^/?#@]+(/[^?#]*)?$`, "is not an http, https or h2c URL without a user, a query and a fragment"),
	reflect.TypeFor[addressRange](): text(`^[0-9A-Fa-f.:]+(/[0-9]*[1-9][0-9]*)?$`, "is neither an address nor a range such as 10.0.0.0/8"),
	reflect.TypeFor[origin]():       text(`^[A-Za-z][A-Za-z0-9+.-]*://[^/?#@]+$`, "is not an origin such as https://app.example.com"),
	reflect.TypeFor[duration]():     config.Duration(),
	reflect.TypeFor[positive]():     config.PositiveDuration(),
	reflect.TypeFor[share]():        {"type": "number", "minimum": 0, "maximum": 1, "errorMessage": "is not a number from 0 to 1, such as 0.01"},
	reflect.TypeFor[status]():       {"type": "integer", "minimum": 2, "maximum": 255, "errorMessage": "is not a status from 2 to 255"},
	reflect.TypeFor[acrValue]():     text(`^[!#-\[\]-~]+$`, "is not an acr value: it has a space or another character that a challenge cannot carry"),
	reflect.TypeFor[claimRule]():    text(`^\S(.*\S)?$`, "is not a rule such as environment = production or tenant_id = {tenant}"),
	reflect.TypeFor[need](): text(`^(@public|@optional|@any|[ !#-?A-\[\]-~][ !#-\[\]-~]*)$`,
		"is not @public, @optional, @any, or scopes separated by spaces, with alternatives separated by \" | \""),
}

func text(pattern, wrong string) config.Schema {
	return config.Schema{"type": "string", "pattern": pattern, "errorMessage": wrong}
}
