package server

import (
	"github.com/valetkey/valetkey/internal/config"
)

// Schema returns the JSON Schema of the file of an authorization server.
func Schema() (config.Schema, error) {
	return config.SchemaOf(document{}, config.Guide{
		Title: "Configuration of valetkey serve",
		Keys:  schemaKeys, Values: schemaValues,
		Rules: map[string]config.Schema{
			"":                            config.Required("issuer", "apis"),
			"apis":                        config.Required("audience", "scopes"),
			"clients":                     config.All(config.Required("id"), config.AtMostOne("secret", "secret_sha256"), config.AtMostOne("jwks", "jwks_uri")),
			"login":                       config.Required("redirect", "public_key"),
			"users":                       config.All(config.Required("name"), config.OneOf("password", "password_hash")),
			"user_types":                  config.All(config.Required("type"), config.AtMostOne("database", "ldap")),
			"trusted_issuers":             config.All(config.Required("issuer", "subject_type", "scopes"), config.OneOf("jwks", "jwks_uri")),
			"registration.initial_tokens": config.Required("sha256"),

			"registration.statement_issuers": config.Required("issuer", "jwks"),
		},
	})
}

// schemaKeys describes each field of the file to the users of editors. Paths are those of the file, without indexes of lists:
// clients.redirect_uris. Write one or two sentences: what the field does, its unit, and its default.
var schemaKeys = map[string]string{
	"issuer":        "Identifier of the server and base URL of its endpoints: https, or http on loopback. It is the iss of the tokens.",
	"insecure_http": "Allows an http issuer beyond loopback: secrets and tokens cross the network in clear text. Default: false.",
	"name":          "Name of the server on its pages.",
	"accent":        "Color of the buttons on the pages, such as #0b6b62.",
	"logo":          "Path of an image that the pages show in place of the name: SVG, PNG, JPEG, WebP, GIF or ICO, at most 256 KiB.",
	"favicon":       "Path of the icon of the pages, in the same formats. Default: a key in the accent color.",
	"links":         "Links at the foot of each page: https or http URLs.",
	"links.privacy": "How you use personal data.",
	"links.imprint": "Who you are.",
	"links.help":    "Where users get help. May be a mailto URL.",
	"listen":        "Address of the listener. Default: 127.0.0.1:8888.",
	"probe":         "Address for operators: /live, /ready, /status, /metrics. Default: none.",
	"drain":         "How long requests are still served at the end, while /ready is 503 already. Default: 5s with a probe, otherwise 0s.",
	"grace":         "How long requests in progress then have to finish. Default: 10s.",

	"paths":            "Paths of the endpoints, below the path of the issuer.",
	"paths.authorize":  "Authorization endpoint. Default: /oauth2/authorize.",
	"paths.token":      "Token endpoint. Default: /oauth2/token.",
	"paths.device":     "Device authorization endpoint. Default: /oauth2/device_authorization.",
	"paths.par":        "Pushed authorization request endpoint. Default: /oauth2/par.",
	"paths.introspect": "Introspection endpoint. Default: /oauth2/introspect.",
	"paths.revoke":     "Revocation endpoint. Default: /oauth2/revoke.",
	"paths.register":   "Client registration endpoint. Default: /oauth2/register.",
	"paths.keys":       "Key set. Default: /oauth2/keys.",

	"apis":          "The APIs that tokens are issued for. Several may have a scope of the same name.",
	"default_api":   "Audience of a token if the request names no resource and several APIs have its scopes. Default: the request is refused.",
	"apis.audience": "The aud of the API's tokens, and the resource parameter that selects the API: an absolute URI.",
	"apis.name":     "Name of the API on pages. Default: the audience.",
	"apis.scopes":   "The scopes of the API, in the order in which pages show them.",
	"apis.scopes.*": "The scope, or only its description for users.",

	"apis.scopes.*.description":    "Description for users. Default: the name of the scope.",
	"apis.scopes.*.descriptions":   "Translations of the description, by language tag, such as de.",
	"apis.scopes.*.descriptions.*": "The description in that language.",
	"apis.scopes.*.sensitive":      "Users select the scope themselves: it is not selected in advance on the consent page. Default: false.",

	"apis.authorization_details_types":                  "Types of authorization_details that the API understands (RFC 9396). Users are asked about each detail.",
	"apis.authorization_details_types.*":                "The type, or only its description for users.",
	"apis.authorization_details_types.*.description":    "Description for users. Default: the name of the type.",
	"apis.authorization_details_types.*.descriptions":   "Translations of the description, by language tag, such as de.",
	"apis.authorization_details_types.*.descriptions.*": "The description in that language.",

	"apis.tokens":     "Format of the tokens: jwt is verified locally, opaque must be introspected. Default: jwt.",
	"apis.algorithm":  "Signature algorithm of the JWTs. Default: ES256.",
	"apis.lifetime":   "Lifetime of the tokens, in whole seconds, at most 24h. Default: 10m.",
	"apis.profile":    "Claims besides those of RFC 9068. user: user_id and user_type; permissions: permissions and azp. Default: rfc9068, which adds none.",
	"apis.exchange":   "For a scope of this API, the scopes of other APIs that a token with it can be exchanged for (RFC 8693).",
	"apis.exchange.*": "Scopes of other APIs.",
	"apis.may_act":    "ID of the only client that may exchange tokens for this API. Default: any client that may exchange tokens and introspects for the API.",
	"apis.try_url":    "URL of the API that the portal requests with a trial token.",

	"clients":                                            "Applications, and APIs that introspect their tokens. Others: valetkey client add, portal, registration.",
	"clients.id":                                         "Client ID. It must not look like the subject of a user, which is a user type and a colon.",
	"clients.secret":                                     "Client secret: at least 16 random characters. It is visible in this file; secret_sha256 is not.",
	"clients.secret_sha256":                              "SHA-256 digest of the client secret, in hexadecimal: printf %s \"$SECRET\" | sha256sum.",
	"clients.token_endpoint_auth_method":                 "How the client authenticates. none is for applications that cannot keep a secret. Default: client_secret_basic.",
	"clients.token_endpoint_auth_signing_alg":            "Signature algorithm of the client's assertions. Default: any that its keys support.",
	"clients.jwks":                                       "JWK Set of the client, as text.",
	"clients.jwks_uri":                                   "URL of the client's JWK Set: https, at a public address.",
	"clients.backchannel_logout_uri":                     "Receives logout tokens when a session of a user at the client has ended: https. Requires signals.",
	"clients.backchannel_logout_session_required":        "Each logout token names one session by its sid. Default: false: some mean all sessions of the user.",
	"clients.tls_client_auth_subject_dn":                 "Distinguished name of the client's certificate (RFC 4514), for tls_client_auth, such as CN=client,O=Example.",
	"clients.tls_client_auth_san_dns":                    "DNS name in the subjectAltName of the client's certificate, for tls_client_auth.",
	"clients.tls_client_auth_san_uri":                    "URI in the subjectAltName of the client's certificate, for tls_client_auth.",
	"clients.tls_client_auth_san_ip":                     "IP address in the subjectAltName of the client's certificate, for tls_client_auth.",
	"clients.tls_client_auth_san_email":                  "Email address in the subjectAltName of the client's certificate, for tls_client_auth.",
	"clients.name":                                       "Name of the client on pages.",
	"clients.uri":                                        "Website of the client.",
	"clients.native":                                     "Whether it runs on the user's device: any port of a loopback redirect URI matches (RFC 8252). Default: false.",
	"clients.redirect_uris":                              "Redirect URIs, compared exactly.",
	"clients.grant_types":                                "Grant types that the client may use. Default: authorization_code and refresh_token with redirect_uris, otherwise client_credentials.",
	"clients.scopes":                                     "All scopes that the client may request.",
	"clients.default_api":                                "Audience of a token if the client names no resource, and no scope or one of several APIs.",
	"clients.introspects":                                "Audiences that the client represents. It may introspect their tokens.",
	"clients.trusted":                                    "Marks a first-party client: users are not asked for consent. Default: false.",
	"clients.without_pkce":                               "Allows authorization codes without PKCE: anyone who obtains a code can redeem it. Default: false.",
	"clients.require_pushed_authorization_requests":      "Refuses authorization requests of the client that were not pushed (RFC 9126). Default: false.",
	"clients.dpop_bound_access_tokens":                   "Issues only tokens that are bound to a DPoP key (RFC 9449). Default: false.",
	"clients.tls_client_certificate_bound_access_tokens": "Issues only tokens that are bound to a client certificate (RFC 8705). Default: false.",
	"clients.lifetime":                                   "Lifetime of the client's tokens, in whole seconds, at most 24h. Default: that of the API.",

	"user_types":          "How each type of user logs in. Default: customers, in the database.",
	"user_types.type":     "Prefix of the subjects, such as customer: 1 to 32 of a-z, 0-9, hyphen and underscore.",
	"user_types.label":    "Text on the log-in page. Default: the type.",
	"user_types.database": "The users are in the database: valetkey user add. It has no options.",

	"user_types.ldap":                "The users are in an LDAP directory. Requires the full build.",
	"user_types.ldap.url":            "URL of the directory, such as ldaps://ldap.example.com.",
	"user_types.ldap.root_ca_file":   "File with the authorities of its certificate, in PEM. Default: those of the system.",
	"user_types.ldap.bind_dn":        "DN of the account that searches for users.",
	"user_types.ldap.bind_password":  "Password of bind_dn.",
	"user_types.ldap.base_dn":        "DN below which users are found.",
	"user_types.ldap.filter":         "Filter that finds a user, with %s for the name.",
	"user_types.ldap.id":             "Attribute with the permanent ID of a user.",
	"user_types.ldap.display":        "Attribute with the name on pages.",
	"user_types.ldap.groups":         "For the DN of a group, the scopes that its members may allow an application. Default: all scopes for all users.",
	"user_types.ldap.groups.*":       "Scopes.",
	"user_types.ldap.timeout":        "Time limit for one operation.",
	"user_types.ldap.pool_size":      "Number of connections.",
	"user_types.ldap.insecure_plain": "Allows a connection without TLS: passwords cross the network in clear text. Default: false.",

	"login":            "Hands log-ins to a page of another party, over a signed back channel. Default: users log in at this server.",
	"login.redirect":   "URL of the page: https, or http on loopback. It gets login_challenge and iss.",
	"login.logout":     "URL of the page where the browser is sent after it has logged out at this server. Default: the browser stays.",
	"login.public_key": "Keys that verify the answers of the page: PEM with public keys or certificates, or a JWK Set.",
	"login.user_type":  "Part of the subjects before the colon. Default: customer.",
	"login.acr_values": "The acr values that the page can answer with. Default: none.",

	"users":               "Users in the configuration. Others: valetkey user add.",
	"users.name":          "Name that the user enters.",
	"users.type":          "User type. Default: the first type whose users are in the database.",
	"users.password":      "Password: 8 to 1,024 bytes. It is visible in this file; password_hash is not.",
	"users.password_hash": "Hash of the password: argon2id in the PHC string format, or bcrypt.",
	"users.id":            "Part of the subject after the colon, which must not change. Default: the name in lower case.",
	"users.display":       "Name on pages. Default: the name.",
	"users.scopes":        "All scopes that the user may allow an application. Default: all.",

	"portal":            "Where developers register applications. Default: none.",
	"portal.developers": "Types of users who may use the portal.",
	"portal.services":   "Those of developers that may register services, which act without a user.",

	"registration":             "Dynamic client registration (RFC 7591). Default: off.",
	"registration.open":        "Whether anyone may register a client. Default: false.",
	"registration.unused_for":  "Time after which an openly registered client that is not used is removed. Negative: never. Default: 24h.",
	"registration.scopes":      "All scopes that can be registered for. Default: all.",
	"registration.grant_types": "Grant types that can be registered for. Default: those that require a user's consent. Others need one of initial_tokens; clients with a metadata document never get them.",

	"registration.statement_issuers":        "Issuers of software statements (RFC 7591, section 2.3). Default: every statement is refused.",
	"registration.statement_issuers.issuer": "The iss of the statements, compared exactly.",
	"registration.statement_issuers.jwks":   "JWK Set of the issuer, as text.",

	"registration.initial_tokens":         "Tokens that permit registration without a user account.",
	"registration.initial_tokens.name":    "Recipient of the token, for the audit log.",
	"registration.initial_tokens.sha256":  "SHA-256 digest of the token, in hexadecimal.",
	"registration.initial_tokens.uses":    "Number of registrations. Default: unlimited.",
	"registration.initial_tokens.expires": "End of its validity, such as 2030-01-01T00:00:00Z. Default: never.",

	"private_use_schemes": "URI schemes without a period, such as cursor, that redirect URIs may have (RFC 8252, section 7.1). Default: none.",

	"client_id_metadata_documents":         "Clients whose ID is the https URL of a document with their metadata. Default: off.",
	"client_id_metadata_documents.enabled": "Whether such clients are accepted. Default: false.",
	"client_id_metadata_documents.hosts":   "Hosts that may serve documents, compared exactly. Default: all public hosts.",

	"trusted_issuers":               "Issuers of JWTs about their own users, which clients exchange for tokens (RFC 7523).",
	"trusted_issuers.issuer":        "The iss of the JWTs, compared exactly.",
	"trusted_issuers.jwks":          "JWK Set of the issuer, as text.",
	"trusted_issuers.jwks_uri":      "URL of the issuer's JWK Set: https, at a public address.",
	"trusted_issuers.subject_type":  "Prefix of the subjects: with partner, the sub bob becomes partner:bob.",
	"trusted_issuers.scopes":        "All scopes that clients may obtain with its JWTs.",
	"trusted_issuers.grant_profile": "Kind of its JWTs: id-jag for identity assertions, each for one client (Identity Assertion JWT Authorization Grant). Default: any of RFC 7523.",

	"signals":                             "Announces the end of access: to receivers of security event tokens (OpenID Shared Signals Framework) and by back-channel logout. true is short for enabled.",
	"signals.enabled":                     "Enables signals, and global token revocation. Default: false.",
	"signals.allow_receivers":             "Networks in which the endpoints of receivers and the backchannel_logout_uri of approved clients may be, such as 10.0.0.0/8. Default: public addresses only.",
	"signals.insecure_loopback_receivers": "Also allows endpoints on loopback, and http there. Default: false.",
	"legacy":                              "Grants that RFC 9700 advises against. Each applies only to clients that have it in grant_types.",
	"legacy.implicit":                     "Enables the implicit grant, which exposes the token in a URL. Default: false.",
	"legacy.password":                     "Enables the password grant, which discloses the user's password to the application. Default: false.",

	"require_pushed_authorization_requests": "Refuses authorization requests that were not pushed (RFC 9126), of all clients. Default: false.",

	"lifetimes":               "Lifetimes, in whole seconds.",
	"lifetimes.code":          "Lifetime of an authorization code. Default: 60s.",
	"lifetimes.interaction":   "How long a request waits for its user. Default: 15m.",
	"lifetimes.pushed":        "Lifetime of an unused pushed authorization request. Default: 90s.",
	"lifetimes.device":        "Lifetime of a device code. Default: 10m.",
	"lifetimes.refresh":       "How long access can be renewed, from the user's consent. Default: 720h.",
	"lifetimes.refresh_grace": "How long the preceding refresh token remains usable. Default: 0s.",
	"lifetimes.session":       "Lifetime of a browser session. Default: 12h.",

	"keys":         "Rotation of the signing keys.",
	"keys.rotate":  "How long a key signs. Default: until valetkey keys rotate or SIGUSR1.",
	"keys.publish": "How long a key is published before it signs: as long as verifiers may cache the key set. Default: 10m.",

	"limits":               "Rate limits for attempts.",
	"limits.login_name":    "Log-ins with one name.",
	"limits.login_address": "Log-ins from one address.",
	"limits.client_secret": "Wrong secrets of one client from one address.",
	"limits.pushes":        "Authorization requests begun from one address by one client with a secret, or by all others together.",
	"limits.device_code":   "Device codes entered from one address.",
	"limits.register":      "Open registrations from one address.",

	"limits.client_id_metadata_documents":       "Metadata documents of clients that requests from one address cause to be fetched.",
	"limits.client_id_metadata_documents.burst": "Attempts available at once. Default: 20.",
	"limits.client_id_metadata_documents.every": "Interval after which one more attempt is available. Default: 10s.",

	"limits.login_name.burst":    "Attempts available at once. Default: 10.",
	"limits.login_name.every":    "Interval after which one more attempt is available. Default: 1m.",
	"limits.login_address.burst": "Attempts available at once. Default: 100.",
	"limits.login_address.every": "Interval after which one more attempt is available. Default: 2s.",
	"limits.client_secret.burst": "Attempts available at once. Default: 20.",
	"limits.client_secret.every": "Interval after which one more attempt is available. Default: 3s.",
	"limits.pushes.burst":        "Attempts available at once. Default: 300.",
	"limits.pushes.every":        "Interval after which one more attempt is available. Default: 50ms.",
	"limits.device_code.burst":   "Attempts available at once. Default: 10.",
	"limits.device_code.every":   "Interval after which one more attempt is available. Default: 30s.",
	"limits.register.burst":      "Attempts available at once. Default: 20.",
	"limits.register.every":      "Interval after which one more attempt is available. Default: 5m.",

	"proxies":                        "Address ranges of the reverse proxies whose X-Forwarded-For is accepted, such as 10.0.0.0/8.",
	"client_certificate":             "Source of client certificates (RFC 8705): tls, Client-Cert, or the name of a header with percent-encoded PEM. Default: none.",
	"client_certificate_authorities": "Authorities, in PEM, whose certificates authenticate clients with tls_client_auth. Default: none.",
	"mtls_url":                       "https URL at which the same endpoints request client certificates, for the metadata. Default: none.",
	"dpop_nonce":                     "Whether DPoP proofs must contain a nonce from the server. Default: false.",
	"max_tokens":                     "Maximum number of records of each kind if the store is memory. Default: 100000.",
	"insecure_unsealed":              "Allows signing keys in clear text in the store: anyone who can read it can forge tokens. Default: false.",
	"store":                          "memory, sqlite:PATH, or the postgres:// URL of a database. Default: sqlite:valetkey.db.",
	"seal":                           "Key that encrypts the signing keys in the store: the base64 of 32 random bytes. Default with SQLite: a file beside the database.",
	"seal_previous":                  "The preceding seal, after a change.",
}

// schemaValues are lists of package authserver.
var schemaValues = map[string][]string{
	"apis.tokens":    {"jwt", "opaque"},
	"apis.algorithm": {"ES256", "RS256", "EdDSA"},
	"apis.profile":   {"rfc9068", "user", "permissions"},
	"clients.token_endpoint_auth_method": {
		"none", "client_secret_basic", "client_secret_post", "private_key_jwt", "self_signed_tls_client_auth", "tls_client_auth",
	},
	"clients.grant_types":           schemaGrantTypes,
	"trusted_issuers.grant_profile": {"id-jag"},
	"registration.grant_types":      schemaGrantTypes,
}

var schemaGrantTypes = []string{
	"authorization_code", "refresh_token", "client_credentials", "urn:ietf:params:oauth:grant-type:device_code",
	"urn:ietf:params:oauth:grant-type:token-exchange", "urn:ietf:params:oauth:grant-type:jwt-bearer", "implicit", "password",
}
