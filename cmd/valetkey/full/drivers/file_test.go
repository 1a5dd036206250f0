package drivers_test

import (
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/cmd/valetkey/full/drivers"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/server"
)

const good = `issuer: https://as.example.com
store: memory
apis:
  - {audience: "https://api.example.com", scopes: {read: See, write: Change}}
clients:
  - {id: web, secret: 0123456789abcdef, scopes: [read], redirect_uris: ["https://web.example.com/cb"]}
users:
  - {name: alice, password: correct horse}
`

// someSeal is the base64 of 32 bytes.
const someSeal = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="

// All mistakes are reported together, each with its line, and nothing is started.
func TestMistakes(t *testing.T) {
	t.Setenv("VALETKEY_TEST_SECRET", "short")
	base := func(replace ...string) string { return strings.NewReplacer(replace...).Replace(good) }
	client := func(fields string) string {
		return base(`{id: web, secret: 0123456789abcdef, scopes: [read], redirect_uris: ["https://web.example.com/cb"]}`, fields)
	}
	api := func(more string) string {
		return base("{read: See, write: Change}}", "{read: See, write: Change}, "+more+"}")
	}
	for _, c := range []struct {
		name, config string
		want         []string // "line: text" of each mistake
	}{
		{"an empty file", "", []string{"1: apis: at least one is required", "1: issuer: is required"}},
		{"a second document", good + "---\na: b\n", []string{"9: there is more than one YAML document"}},
		{"a logo that is missing, an icon that is not an image, and a link that is not a URL", good + "logo: nowhere.svg\nfavicon: /dev/null/x\nlinks: {privacy: privacy.html}\naccent: '#ffff00'\n", []string{
			"9: logo: open DIR/nowhere.svg: no such file or directory",
			"10: favicon: open /dev/null/x: not a directory",
			"11: links.privacy: must be an https URL",
			"12: accent: must be darker: white text on it is not readable"}},
		{"an alias", base("store: memory", "store: &a memory\nlisten: *a"), []string{"3: listen: aliases are not supported"}},
		{"a secret for a field, which is not told", client("{secret:0123456789abcdef: x, id: web}"), []string{
			"6: clients[0]: unknown field; known are id, secret, secret_sha256, token_endpoint_auth_method, token_endpoint_auth_signing_alg, jwks, jwks_uri, tls_client_auth_subject_dn, tls_client_auth_san_dns, tls_client_auth_san_uri, tls_client_auth_san_ip, tls_client_auth_san_email, name, uri, native, redirect_uris, grant_types, scopes, default_api, backchannel_logout_uri, backchannel_logout_session_required, introspects, trusted, without_pkce, require_pushed_authorization_requests, dpop_bound_access_tokens, tls_client_certificate_bound_access_tokens, lifetime",
			"6: clients[0].secret: either this or secret_sha256 is required, or a token_endpoint_auth_method without a secret"}},
		{"a number for a secret, which is not told", client("{id: web, secret: 1234567890123456, scopes: [read]}"), []string{
			"6: clients[0].secret: is not a string: put it in quotes"}},
		{"each field of a client, on its line", base(`  - {id: web, secret: 0123456789abcdef, scopes: [read], redirect_uris: ["https://web.example.com/cb"]}`, `
  - id: customer:1
    secret: short
    secret_sha256: x
    token_endpoint_auth_method: magic
    jwks_uri: http://a
    name: "a\u202eb"
    uri: ftp://a
    native: please
    redirect_uris:
      - http://web.example.com
    grant_types: [implicit, password, magic]
    scopes: [read, admin]
    default_api: https://b
    introspects: [https://b]
    lifetime: 25h
`), []string{
			"7: clients[0].id: must not begin with customer: like the subject of a user",
			"8: clients[0].secret: cannot be combined with the token_endpoint_auth_method",
			"10: clients[0].token_endpoint_auth_method: is not known",
			"11: clients[0].jwks_uri: is not an https URL",
			"12: clients[0].name: is too long or not printable",
			"13: clients[0].uri: is not the https or http URL of a website",
			`14: clients[0].native: "please" is not true or false`,
			"16: clients[0].redirect_uris[0]: is neither https with a host nor http to 127.0.0.1, [::1] or localhost",
			"17: clients[0].grant_types: one is not known",
			"17: clients[0].grant_types: implicit needs legacy.implicit",
			"17: clients[0].grant_types: password needs legacy.password",
			"18: clients[0].scopes[1]: is not a scope of any API",
			"19: clients[0].default_api: is not the audience of an API that the client has a scope of",
			"20: clients[0].introspects[0]: is not the audience of an API",
			"21: clients[0].lifetime: 25h0m0s is not a whole number of seconds up to 24h0m0s, such as 10m",
		}},
		{"a native client that is trusted", client("{id: app, token_endpoint_auth_method: none, native: true, trusted: true, scopes: [read], redirect_uris: [http://127.0.0.1/cb]}"), []string{
			"6: clients[0].trusted: any application on the user's machine could impersonate this client and get tokens without consent (RFC 8252, section 8.6): " +
				"remove trusted, let the client authenticate, or use https redirect URIs only"}},
		{"a client whose keys are missing", client("{id: web, token_endpoint_auth_method: private_key_jwt, scopes: [read]}"), []string{
			"6: clients[0].jwks: or jwks_uri is required by the authentication method"}},
		{"an API with a wrong profile", api("profile: saml"), []string{`4: apis[0].profile: "saml", want rfc9068, user or permissions`}},
		{"an API that is tried nowhere", api("try_url: orders"), []string{"4: apis[0].try_url: is not an https URL"}},
		{"an exchange of what is not there", api("exchange: {x: [read], read: [y]}"), []string{
			`4: apis[0].exchange["read"][0]: is not a scope of any API`, `4: apis[0].exchange["x"]: is not a scope of the API`}},
		{"paths that are invalid or taken", good + "paths: {token: token, par: /login/par, revoke: /oauth2/authorize/x, keys: /oauth2/code, register: '/a/{b}', device: /a/, introspect: /oauth2/par/x}", []string{
			"9: paths.token: is not a path such as /oauth2/token", "9: paths.device: is not a path such as /oauth2/token",
			"9: paths.par: overlaps /login, which is in use", "9: paths.revoke: overlaps /oauth2/authorize, the path of another endpoint",
			"9: paths.register: is not a path such as /oauth2/token", "9: paths.keys: overlaps /oauth2/code, which is in use"}},
		{"invalid users", base("  - {name: alice, password: correct horse}", `
  - {name: '', password: correct horse}
  - {name: alice, password: short}
  - {name: bob}
  - {name: carl, password_hash: md5}
  - {name: dora, password: correct horse, password_hash: x, id: 'a b', scopes: [admin]}
  - {name: erna, password: correct horse, type: employee}
  - {name: Frida Å, password: correct horse}
  - {name: ALICE, password: correct horse}
`), []string{
			"9: users[0].name: the name is empty",
			"10: users[1].password: the password is too short: at least 8 bytes are needed",
			"11: users[2].password: either this or password_hash is required",
			"12: users[3].password_hash: the hash is neither argon2id ($argon2id$v=19$...) nor bcrypt ($2b$...)",
			"13: users[4].password: either this or password_hash is required",
			"13: users[4].password_hash: the hash is neither argon2id ($argon2id$v=19$...) nor bcrypt ($2b$...)",
			"13: users[4].id: must be 1 to 64 visible ASCII characters",
			"13: users[4].scopes[0]: is not a scope of any API",
			`14: users[5].type: user type "employee" has no users in the database`,
			"15: users[6].id: must be 1 to 64 visible ASCII characters",
			"16: users[7]: another user has the name or the id",
		}},
		{"invalid user types", good + "user_types: [{type: A}, {type: a, database: {}}, {type: a}, {type: b, database: {}, ldap: {url: 'http://x', timeout: -1s}}]", []string{
			`8: users[0].type: user type "A" has no users in the database`,
			`9: user_types[0].type: "A" is not a user type: 1 to 32 of a-z, 0-9, hyphen and underscore`,
			`9: user_types[2].type: "a" is duplicated`,
			"9: user_types[3].ldap: cannot be combined with database",
			"9: user_types[3].ldap.base_dn: required",
			"9: user_types[3].ldap.timeout: must not be negative",
			"9: user_types[3].ldap.url: must begin with ldaps:// or ldap://",
		}},
		{"a directory whose password and certificates are missing", good + "user_types: [{type: a, ldap: {url: 'ldaps://x', base_dn: 'dc=x', bind_dn: 'cn=x', bind_password_env: VALETKEY_NOT_SET, root_ca_file: nowhere}}, {type: customer}]", []string{
			"9: user_types[0].ldap.bind_password_env: is empty or missing",
			"9: user_types[0].ldap.root_ca_file: open DIR/nowhere: no such file or directory",
		}},
		{"a directory whose password is not given", good + "user_types: [{type: a, ldap: {url: 'ldaps://x', base_dn: 'dc=x', bind_dn: 'cn=x'}}, {type: customer}]", []string{
			"9: user_types[0].ldap.bind_password_file: BindDN and BindPassword must be set together"}},
		{"a portal for an unknown user type", good + "portal: {developers: [employee], services: [customer]}", []string{
			`9: portal.developers[0]: "employee" is not a user type`, `9: portal.services[0]: "customer" is not one of portal.developers`}},
		{"a registration of what is not there", good + "registration: {initial_tokens: [{sha256: x, uses: -1, expires: tomorrow}], scopes: [admin], grant_types: [password]}", []string{
			"9: registration.scopes[0]: is not a scope of any API",
			`9: registration.grant_types[0]: "password" is not one of [authorization_code refresh_token client_credentials urn:ietf:params:oauth:grant-type:device_code urn:ietf:params:oauth:grant-type:token-exchange]`,
			"9: registration.initial_tokens[0].sha256: is not 64 hexadecimal digits",
			"9: registration.initial_tokens[0].uses: is negative",
			"9: registration.initial_tokens[0].expires: is not a time such as 2006-01-02T15:04:05Z"}},
		{"trusted issuers without keys", good + "trusted_issuers: [{issuer: https://as.example.com, subject_type: customer}]", []string{
			"9: trusted_issuers[0].issuer: is this server's own, or duplicated", "9: trusted_issuers[0].jwks_uri: either this or jwks is required",
			"9: trusted_issuers[0].scopes: at least one is required", "9: trusted_issuers[0].subject_type: is already in use"}},
		{"invalid keys of issuers", good + "trusted_issuers: [{issuer: https://a, subject_type: a, scopes: [read], jwks: '{}'}, {issuer: https://b, subject_type: b, scopes: [read], jwks_uri: http://b}]", []string{
			`9: trusted_issuers[0].jwks: it has no array "keys"`, "9: trusted_issuers[1].jwks_uri: not https"}},
		{"a color that is not readable", good + "accent: '#ffff00'", []string{"9: accent: must be darker: white text on it is not readable"}},
		{"a certificate in a header without trusted proxies", good + "client_certificate: Client-Cert", []string{
			"9: client_certificate: names a header, which requires proxies"}},
		{"a certificate in no header", good + "client_certificate: a b\nproxies: [127.0.0.1/32]", []string{"9: client_certificate: must be tls or a header name"}},
		{"invalid times and rates", good + "lifetimes: {code: 1.5s, refresh: -1h}\nkeys: {rotate: 1m, publish: x}\nlimits: {login_name: {burst: 0, every: 1s}}", []string{
			"9: lifetimes.code: 1.5s is not a whole number of seconds, such as 10m",
			"9: lifetimes.refresh: -1h0m0s is not a whole number of seconds, such as 10m",
			"10: keys.rotate: 1m0s is shorter than keys.publish, 10m0s",
			"10: keys.rotate: 1m0s is less than half an hour",
			`10: keys.publish: "x" is not a duration such as 30s`,
			"11: limits.login_name: 0 attempts at once and one each 1s is not a valid rate, or takes over a year to recover",
		}},
		{"proxies that include all addresses", good + "proxies: [0.0.0.0/0, nginx]", []string{
			"9: proxies[0]: must be an address range, and not the range of all addresses", "9: proxies[1]: is not a range of addresses such as 10.0.0.0/8"}},
		{"a secret of the demonstration beyond loopback", base("0123456789abcdef", "demo-secret-of-web"), []string{
			"6: clients[0].secret: begins with demo-, which marks a publicly known secret: allowed only with an issuer on loopback"}},
		{"two stores", good + "store_env: VALETKEY_TEST_SECRET", []string{"9: store_env: cannot be combined with store"}},
		{"a store in a variable that holds none, which is not told", base("store: memory", "store_env: VALETKEY_TEST_SECRET"), []string{"1: store: is neither memory, sqlite:PATH nor postgres://..."}},
		{"PostgreSQL without a seal", base("store: memory", "store: postgres://localhost/x"), []string{
			"1: seal_file: required with PostgreSQL, or seal_env, or insecure_unsealed"}},
		{"an invalid seal", good + "seal_env: VALETKEY_TEST_SECRET\nseal_previous_file: nowhere", []string{
			"9: seal_env: is not the base64 of 32 random bytes, as from openssl rand -base64 32",
			"10: seal_previous_file: the file cannot be read: no such file or directory"}},
		{"two seals", good + "seal_env: VALETKEY_TEST_SECRET\nseal_file: x", []string{"9: seal_env: cannot be combined with seal_file", "10: seal_file: the file cannot be read: no such file or directory"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := write(t, c.config)
			err := server.Serve(context.Background(), server.Settings{Config: path, Log: slog.New(slog.DiscardHandler), Drivers: drivers.All()}, nil, io.Discard)
			require.Error(t, err)
			got := strings.ReplaceAll(strings.ReplaceAll(err.Error(), path+":", ""), filepath.Dir(path), "DIR")
			for _, want := range c.want {
				assert.Contains(t, "\n"+got+"\n", "\n"+want+"\n")
			}
			assert.Len(t, strings.Split(got, "\n"), len(c.want), got)
			for _, secret := range []string{"0123456789", "1234567890", "short\n", "correct horse"} {
				assert.NotContains(t, got, secret)
			}
			entries, err := os.ReadDir(filepath.Dir(path))
			require.NoError(t, err)
			assert.Len(t, entries, 1, "no store is made")
		})
	}
}
