package proxy_test

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/cmd/valetkey/internal/issuer"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/proxy"
	"github.com/valetkey/valetkey/internal/snippets"
	"github.com/valetkey/valetkey/issuers"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/valetkeytest"
)

const issuersPage = "docs/issuers.md"

// TestIssuersPage reads each YAML snippet of docs/issuers.md as the proxy does, and compares the settings with those of the Go snippet above.
func TestIssuersPage(t *testing.T) {
	root := "../../../.."
	text, err := os.ReadFile(filepath.Join(root, issuersPage))
	require.NoError(t, err)
	var inGo, inYAML []snippets.Block
	for _, s := range snippets.Sections(string(text)) {
		require.Len(t, s.YAML, len(s.Go), "%s: snippets of Go and YAML", s.Title)
		inGo, inYAML = append(inGo, s.Go...), append(inYAML, s.YAML...)
	}
	results, err := snippets.Run(root, issuersPage, inGo)
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(results), len(issuers.Names())/2)
	for i, block := range inYAML {
		cfg, err := settings(t, block)
		if strings.Contains(results[i].Config, "/var/run/secrets/") && err != nil { // the files of a pod are not here
			for line := range strings.Lines(err.Error()) {
				assert.Contains(t, line, "/var/run/secrets/", "%s:%d", issuersPage, block.Line)
			}
			continue
		}
		if assert.NoError(t, err, "%s:%d", issuersPage, block.Line) {
			assert.Equal(t, results[i].Config, snippets.Describe(cfg), "%s:%d is not the same as the Go snippet in line %d", issuersPage, block.Line, inGo[i].Line)
		}
	}
}

// TestIssuersPageListsEachSetting holds the table of settings to the fields of files and of jwks.Config.
func TestIssuersPageListsEachSetting(t *testing.T) {
	text, err := os.ReadFile("../../../../" + issuersPage)
	require.NoError(t, err)
	var rows []string
	for line := range strings.Lines(string(text)) {
		if cells := strings.Split(line, "|"); len(cells) == 6 {
			rows = append(rows, strings.TrimSpace(cells[1])+" "+strings.TrimSpace(cells[2]))
		}
	}
	table := strings.Join(rows, "\n")
	for _, name := range (issuer.Tokens{}).Fields() {
		if name != "issuer_type" && name != "tenants" && name != "allow" { // parameters of constructors, and a list of settings
			assert.Contains(t, table, "`"+name+"`")
		}
	}
	for _, name := range issuer.Allowances() {
		assert.Contains(t, table, "`allow: "+name+"`")
	}
	for i := range reflect.TypeFor[jwks.Profile]().NumField() {
		assert.Contains(t, table, "`Profile."+reflect.TypeFor[jwks.Profile]().Field(i).Name+"`")
	}
}

// settings returns the jwks.Config or introspect.Config of the verifier whose fields are given, or of the verifiers of a file without its
// other fields. A verifier is one with keys unless it begins with its kind.
func settings(t *testing.T, block snippets.Block) (any, error) {
	t.Helper()
	fields := block.Text
	config := "listen: 127.0.0.1:0\nupstream: http://127.0.0.1:9\nroutes: {/: '@any'}\n"
	if strings.Contains(fields, "verifiers:\n") {
		config += fields
	} else {
		if !strings.HasPrefix(fields, "introspection:\n") {
			fields = "jwks:\n  " + strings.ReplaceAll(strings.TrimSpace(fields), "\n", "\n  ")
		}
		config += "verifiers:\n  - " + strings.ReplaceAll(fields, "\n", "\n    ") + "\n"
	}
	t.Setenv(snippets.SecretEnv, "of the page")
	dir := t.TempDir()
	require.NoError(t, block.WriteFiles(dir))
	path := filepath.Join(dir, "proxy.yaml")
	require.NoError(t, os.WriteFile(path, []byte(config), 0o600))
	all, err := proxy.Targets(path, drivers, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	require.Len(t, all, 1)
	if asked := all[0].Introspection; asked != nil {
		return *asked, nil
	}
	return *all[0].Keys, nil
}

// TestTokensOfProducts sends tokens of products to proxies, whose files have the settings of the product or single settings.
func TestTokensOfProducts(t *testing.T) {
	iss := valetkeytest.NewIssuer(t, valetkeytest.SignWith("ES256"))
	claim, typ := valetkeytest.Claim, valetkeytest.Header("typ", "JWT")
	bare := []valetkeytest.Option{typ, claim("client_id", nil), claim("jti", nil), claim("scope", nil)}
	for _, c := range []struct {
		name, settings string
		opts           []valetkeytest.Option
		status         int
	}{
		{"permissions of Auth0, which are not listed as scopes", "allow: [untyped, missing_client_id, missing_id]",
			append(bare[:4:4], claim("azp", "spa"), claim("permissions", []string{"orders:read"})), 403},
		{"permissions of Auth0", "allow: [untyped, missing_client_id, missing_id], scopes: [scope, permissions]",
			append(bare[:4:4], claim("azp", "spa"), claim("permissions", []string{"orders:read"})), 200},
		{"an ID token of Keycloak", "issuer_type: keycloak, scopes: realm_access.roles",
			append(bare[:3:3], claim("jti", "1"), claim("typ", "ID"), claim("azp", "spa"), claim("realm_access", map[string]any{"roles": []string{"orders:read"}})), 401},
		{"roles of Keycloak", "issuer_type: keycloak, scopes: realm_access.roles",
			append(bare[:3:3], claim("jti", "1"), claim("typ", "Bearer"), claim("azp", "spa"), claim("nonce", "n"), claim("realm_access", map[string]any{"roles": []string{"orders:read"}})), 200},
		{"another client of Keycloak", "issuer_type: keycloak, clients: spa",
			append(bare[:3:3], claim("jti", "1"), claim("typ", "Bearer"), claim("azp", "other"), valetkeytest.Scopes("orders:read")), 401},
		{"another application of Cognito", "issuer_type: cognito, clients: 7abc", []valetkeytest.Option{valetkeytest.Header("typ", nil),
			claim("aud", nil), valetkeytest.ClientID("8def"), claim("token_use", "access"), valetkeytest.Scopes("orders:read")}, 401},
		{"an application of Cognito", "issuer_type: cognito, clients: 7abc", []valetkeytest.Option{valetkeytest.Header("typ", nil),
			claim("aud", nil), valetkeytest.ClientID("7abc"), claim("token_use", "access"), valetkeytest.Scopes("orders:read")}, 200},
		{"an alias, which is not listed", "issuer_aliases: https://back.example.com", []valetkeytest.Option{valetkeytest.WrongIssuer(), valetkeytest.Scopes("orders:read")}, 401},
		{"an alias", "issuer_aliases: https://wrong-issuer.example.com", []valetkeytest.Option{valetkeytest.WrongIssuer(), valetkeytest.Scopes("orders:read")}, 200},
		{"a rule that does not hold", "rules: email_verified = true", []valetkeytest.Option{claim("email_verified", false), valetkeytest.Scopes("orders:read")}, 401},
		{"a rule that holds", "rules: email_verified = true", []valetkeytest.Option{claim("email_verified", true), valetkeytest.Scopes("orders:read")}, 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			config, upstream := guarded(t, iss, "")
			addr := start(t, strings.Replace(config, `"}]`, `", `+c.settings+`}]`, 1), slog.New(slog.DiscardHandler))
			res := send(t, addr, "GET /orders", "Authorization: Bearer "+iss.Token(c.opts...))
			assert.Equal(t, c.status, res.StatusCode, "%v", res.Header)
			assert.Equal(t, c.status == 200, upstream.take() != nil)
		})
	}
}

// TestOpaqueTokensOfProducts sends opaque tokens to proxies whose introspection has the settings of a product.
func TestOpaqueTokensOfProducts(t *testing.T) {
	iss := valetkeytest.NewIssuer(t, valetkeytest.SignWith("ES256"))
	section := func(settings string) (config string, upstream *recorder) {
		config, upstream = guarded(t, iss, "")
		introspection := fmt.Sprintf(`introspection: {issuer: %q, client_id: %s, client_secret: %q, %s}]`,
			iss.URL, valetkeytest.IntrospectionID, valetkeytest.IntrospectionSecret, settings)
		before, rest, _ := strings.Cut(config, "jwks: ")
		_, after, _ := strings.Cut(rest, "]")
		return before + introspection + after, upstream
	}
	read := valetkeytest.Scopes("orders:read")
	for _, c := range []struct {
		name, settings, token string
		status                int
	}{
		{"a token for another project", "issuer_type: zitadel", iss.Opaque(read, valetkeytest.Audience("2314")), 401},
		{"a JWT", "issuer_type: zitadel", iss.Token(read), 401},
		{"a refresh token of Keycloak", "issuer_type: keycloak", iss.Token(read, valetkeytest.Claim("typ", "Refresh")), 401},
		{"a JWT of Keycloak, without its issuer", "issuer_type: keycloak, jwt_issuers: urn:other", iss.Token(read, valetkeytest.Claim("typ", "Bearer")), 401},
		{"an opaque token", "issuer_type: zitadel", iss.Opaque(read), 200},
		{"a lightweight token of Keycloak", "issuer_type: keycloak", iss.Token(read, valetkeytest.Claim("typ", "Bearer")), 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			config, upstream := section(c.settings)
			addr := start(t, config, slog.New(slog.DiscardHandler))
			res := send(t, addr, "GET /orders", "Authorization: Bearer "+c.token)
			assert.Equal(t, c.status, res.StatusCode, "%v", res.Header)
			assert.Equal(t, c.status == 200, upstream.take() != nil)
		})
	}
	t.Run("a second introspection of Keycloak needs no jwt_issuers", func(t *testing.T) {
		config, _ := section(fmt.Sprintf("issuer_type: zitadel}, introspection: {issuer: %q, client_id: api, client_secret: x, issuer_type: keycloak", iss.URL+"/realms/shop"))
		config = strings.Replace(strings.Replace(config, "[introspection: ", "[{introspection: ", 1), "}, introspection: ", "}}, {introspection: ", 1)
		config = strings.Replace(config, "keycloak}]", "keycloak}}]", 1)
		path := filepath.Join(t.TempDir(), "proxy.yaml")
		require.NoError(t, os.WriteFile(path, []byte(config), 0o600))
		all, err := proxy.Targets(path, drivers, slog.New(slog.DiscardHandler))
		require.NoError(t, err)
		require.Len(t, all, 2)
		assert.Equal(t, []string{iss.URL + "/realms/shop"}, all[1].Introspection.JWTIssuers)
	})
	for _, c := range []struct{ name, settings, mistake string }{
		{"a product without a constructor", "issuer_type: auth0", `introspection.issuer_type: "auth0" is not one of cloud_foundry_uaa, duende, `},
		{"the audience of every token", "issuer_type: keycloak, audience: account", `introspection.audience: has "account", which every token`},
		{"a parameter of other constructors", "issuer_type: zitadel, clients: spa", `introspection: unknown field "clients"`},
		{"other mistakes are reported as well", "issuer_type: auth0, auth: jwt", `introspection.auth: "jwt" is not basic`},
	} {
		t.Run(c.name+" is a mistake", func(t *testing.T) {
			config, _ := section(c.settings)
			path := filepath.Join(t.TempDir(), "proxy.yaml")
			require.NoError(t, os.WriteFile(path, []byte(config), 0o600))
			_, err := proxy.Load(path, drivers, slog.New(slog.DiscardHandler))
			require.ErrorContains(t, err, c.mistake)
			assert.NotContains(t, err.Error(), "issuer.invalid")
		})
	}
}
