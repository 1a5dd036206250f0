package server_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/valetkey/valetkey/cmd/valetkey/internal/schematest"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/server"
)

func TestEveryKeyOfTheFileIsDescribed(t *testing.T) {
	if _, err := server.Schema(); err != nil {
		t.Errorf("%v\n\nEditors show a description of each key. Add a line to schemaKeys in schema.go for the field, such as\n"+
			"\"apis.lifetime\": \"Lifetime of the tokens.\".", err)
	}
	for _, unknown := range server.UnusedDescriptions() {
		t.Errorf("schema.go describes %s, which is not a key of the file: remove or rename the line", unknown)
	}
}

const file = `issuer: http://127.0.0.1:8888
apis:
  - {audience: "https://api.example.com", scopes: {read: See}}
clients:
  - {id: reader, secret: a long secret of the reader, scopes: [read]}
`

// refusals returns why the schema and the server refuse a file; nil if they do not.
func refusals(t *testing.T, config string) (schema, reader error) {
	t.Helper()
	s, err := server.Schema()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "as.yaml")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	set := server.Settings{Config: path, Store: "memory", Log: slog.New(slog.DiscardHandler)}
	if strings.Contains(config, "\nstore") {
		set.Store = ""
	}
	_, _, err = server.Open(t.Context(), set)
	if err == nil {
		t.Fatal("operators cannot open a store in memory")
	}
	if err.Error() == "store: memory is lost when this command ends" { // the file is accepted
		err = nil
	}
	return schematest.Check(s, config), err
}

func TestSchemaRefusesMistakes(t *testing.T) {
	api := func(fields string) string {
		return strings.Replace(file, "scopes: {read: See}", "scopes: {read: See}, "+fields, 1)
	}
	client := func(fields string) string {
		return strings.Replace(file, "scopes: [read]", "scopes: [read], "+fields, 1)
	}
	for _, c := range []struct{ name, config string }{
		{"an empty mapping", "{}"},
		{"an unknown key", file + "debug: true"},
		{"an unknown key of a client", client("client_name: Reader")},
		{"no issuer", strings.Replace(file, "issuer: http://127.0.0.1:8888", "name: x", 1)},
		{"an API without an audience", strings.Replace(file, `audience: "https://api.example.com"`, "name: x", 1)},
		{"an API without scopes", strings.Replace(file, "scopes: {read: See}", "name: x", 1)},
		{"an unknown format of tokens", api("tokens: saml")},
		{"an unknown algorithm", api("algorithm: HS256")},
		{"an unknown profile", api("profile: full")},
		{"a lifetime without a unit", api("lifetime: 600")},
		{"a client without an ID", strings.Replace(file, "id: reader", "name: x", 1)},
		{"a client with two secrets", client("secret_sha256: '" + strings.Repeat("0", 64) + "'")},
		{"an unknown method of authentication", client("token_endpoint_auth_method: magic")},
		{"an unknown grant type", client("grant_types: [magic]")},
		{"a string for a list", client("introspects: 'https://api.example.com'")},
		{"a user without a password", file + "users: [{name: alice}]"},
		{"a user with a password and a hash", file + "users: [{name: alice, password: long enough, password_hash: x}]"},
		{"a user type in a database with options", file + "user_types: [{type: customer, database: {path: x}}]"},
		{"an address for a range", file + "proxies: [10.0.0.1]"},
		{"an initial token without a digest", file + "registration: {initial_tokens: [{name: x}]}"},
		{"an expiry that is not a time", file + "registration: {initial_tokens: [{sha256: '" + strings.Repeat("0", 64) + "', expires: tomorrow}]}"},
		{"an issuer without keys", file + "trusted_issuers: [{issuer: 'https://b.example.com', subject_type: partner, scopes: [read]}]"},
		{"a limit that is a number", file + "limits: {login_name: 3}"},
		{"two stores", file + "store: memory\nstore_env: X"},
		{"a seal in the file", file + "seal: AAAA"},
	} {
		t.Run(c.name, func(t *testing.T) {
			schema, reader := refusals(t, c.config)
			if reader == nil {
				t.Error("the server accepts it")
			}
			if schema == nil {
				t.Error("the schema accepts it")
			}
		})
	}
}

// The lists of values are those of package authserver. TestSchemaRefusesMistakes has a value that is in none of them.
func TestSchemaListsTheValuesThatAreAccepted(t *testing.T) {
	api := strings.Replace(file, "scopes: {read: See}", "scopes: {read: See}, KEY: VALUE", 1)
	client := strings.Replace(file, "secret: a long secret of the reader", "jwks_uri: 'https://app.example.com/keys', redirect_uris: ['https://app.example.com/cb'], KEY: VALUE", 1)
	for path, values := range server.Values() {
		section, key, _ := strings.Cut(path, ".")
		config := map[string]string{
			"apis":    api,
			"clients": client,
			"registration": file + "trusted_issuers: [{issuer: 'https://b.example.com', jwks_uri: 'https://b.example.com/keys', subject_type: b, scopes: [read]}]\n" +
				"registration: {KEY: VALUE}\n",
			"trusted_issuers": file + "trusted_issuers: [{issuer: 'https://b.example.com', jwks_uri: 'https://b.example.com/keys', subject_type: b, scopes: [read], KEY: VALUE}]\n",
		}[section]
		if config == "" {
			t.Errorf("this test has no file with %s", path)
		}
		for _, value := range values {
			t.Run(path+" "+value, func(t *testing.T) {
				given := value
				if strings.HasSuffix(key, "s") && key != "tokens" {
					given = "['" + value + "']"
				}
				legacy := "legacy: {implicit: true, password: true}\n"
				schema, reader := refusals(t, strings.NewReplacer("KEY", key, "VALUE", given).Replace(config)+legacy)
				if schema != nil {
					t.Error(schema)
				}
				// Other keys would have to fit the value.
				if reader != nil && regexp.MustCompile(regexp.QuoteMeta(key)+`(\[0\])?: `).MatchString(reader.Error()) && !strings.Contains(reader.Error(), "cannot be combined") {
					t.Error(reader)
				}
			})
		}
	}
}
