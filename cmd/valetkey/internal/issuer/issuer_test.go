package issuer_test

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/claims"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/issuer"
	"github.com/valetkey/valetkey/internal/snippets"
	"github.com/valetkey/valetkey/issuers"
	"github.com/valetkey/valetkey/jwks"
)

const realm, api = "https://sso.example.com/realms/shop", "https://api.example.com"

// TestEverySettingOfTheProfileHasAName holds the values of allow to the fields of jwks.Profile.
func TestEverySettingOfTheProfileHasAName(t *testing.T) {
	named := map[string]string{} // field of jwks.Profile -> value of allow
	for _, name := range issuer.Allowances() {
		cfg, wrong := issuer.Settings{Tokens: issuer.Tokens{Allow: []string{name}}}.Config()
		for _, m := range wrong {
			assert.Equal(t, "allow", m.Field, "%v: requires another setting", m.Err)
		}
		if cfg.AllowPaddedSegments {
			assert.Equal(t, "padded_segments", name)
			assert.Equal(t, "allow: "+name, issuer.InFiles("AllowPaddedSegments"))
		}
		profile := reflect.ValueOf(cfg.Profile)
		for i := range profile.NumField() {
			if !profile.Field(i).Bool() {
				continue
			}
			field := profile.Type().Field(i).Name
			assert.Empty(t, named[field], "%s sets %s too", name, field)
			assert.Equal(t, "allow"+strings.ReplaceAll(name, "_", ""), strings.ToLower(field))
			named[field] = name
		}
	}
	for i := range reflect.TypeFor[jwks.Profile]().NumField() {
		field := reflect.TypeFor[jwks.Profile]().Field(i).Name
		assert.NotEmpty(t, named[field], "no value of allow sets %s", field)
		assert.Equal(t, "allow: "+named[field]+" is off", issuer.InFiles("Profile."+field+" is off"))
		assert.Equal(t, "--allow "+named[field]+" is off", issuer.InFlags("Profile."+field+" is off"))
	}
}

// TestEveryFieldOfTheConfigIsInFiles holds the settings to the fields of jwks.Config.
func TestEveryFieldOfTheConfigIsInFiles(t *testing.T) {
	elsewhere := map[string]string{
		"Profile":            "allow, profile",
		"KeyRequests":        "token_file, ca_file, cert_file, key_file",
		"MaxTokenBytes":      "max_token_bytes of the proxy",
		"Secret":             "none: the proxy is for issuers with public keys",
		"Client":             "none: ca_file and its like configure the requests",
		"RefreshInterval":    "none: the default suits every issuer with a Cache-Control or without",
		"MinRefetchInterval": "none: as above",
		"StaleIfError":       "none: as above",
		"Logger":             "none: the proxy has one",
		"Observer":           "none: it is code",
		"Now":                "none: it is code",
	}
	for i := range reflect.TypeFor[jwks.Config]().NumField() {
		field := reflect.TypeFor[jwks.Config]().Field(i)
		if name, known := issuer.FileName(field.Name); field.IsExported() && elsewhere[field.Name] == "" && issuer.Allowance(field.Name) == field.Name {
			assert.True(t, known && name != "", "no field of files is for %s", field.Name)
		}
	}
}

func TestEachSettingReachesTheConfig(t *testing.T) {
	yes, no := true, false
	for name, test := range map[string]struct {
		tokens issuer.Tokens
		want   func(*jwks.Config)
	}{
		"nothing":          {issuer.Tokens{}, func(*jwks.Config) {}},
		"clients":          {issuer.Tokens{Clients: []string{"a"}}, func(c *jwks.Config) { c.Clients = []string{"a"} }},
		"rules":            {issuer.Tokens{Rules: []string{"a = b", "!c"}}, func(c *jwks.Config) { c.Rules = []claims.Rule{claims.Equal("a", "b"), claims.Absent("c")} }},
		"issuer aliases":   {issuer.Tokens{IssuerAliases: []string{"https://b"}}, func(c *jwks.Config) { c.IssuerAliases = []string{"https://b"} }},
		"types":            {issuer.Tokens{Types: []string{"x+jwt"}}, func(c *jwks.Config) { c.Types = []string{"x+jwt"} }},
		"markers":          {issuer.Tokens{Markers: []string{"typ = Bearer | DPoP"}}, func(c *jwks.Config) { c.Markers = []claims.Rule{claims.OneOf("typ", "Bearer", "DPoP")} }},
		"a scope required": {issuer.Tokens{RequireScope: &yes}, func(c *jwks.Config) { c.RequireScope = true }},
		"sole audience":    {issuer.Tokens{SoleAudience: &yes}, func(c *jwks.Config) { c.SoleAudience = true }},
		"client claim":     {issuer.Tokens{ClientIDClaim: "azp"}, func(c *jwks.Config) { c.ClientIDClaim = "azp" }},
		"audience header":  {issuer.Tokens{AudienceHeader: "signer"}, func(c *jwks.Config) { c.AudienceHeader = "signer" }},
		"client header":    {issuer.Tokens{ClientIDHeader: "client"}, func(c *jwks.Config) { c.ClientIDHeader = "client" }},
		"scopes":           {issuer.Tokens{Scopes: []string{"permissions"}}, func(c *jwks.Config) { c.Scopes = []string{"permissions"} }},
		"allow":            {issuer.Tokens{Allow: []string{"scp", "missing_id"}}, func(c *jwks.Config) { c.Profile.AllowScp, c.Profile.AllowMissingID = true, true }},
		"audience claim": {issuer.Tokens{AudienceClaim: "azp", RequireScope: &yes},
			func(c *jwks.Config) { c.AudienceClaim, c.RequireScope = "azp", true }},
	} {
		t.Run(name, func(t *testing.T) {
			want := jwks.Config{Issuer: realm, Audience: []string{api}}
			test.want(&want)
			got, wrong := issuer.Settings{Issuer: realm, Audience: []string{api}, Tokens: test.tokens}.Config()
			assert.Empty(t, wrong)
			assert.Equal(t, want, got)
		})
	}
	for name, test := range map[string]struct {
		settings issuer.Settings
		params   issuers.Params
		change   func(*jwks.Config)
	}{
		"nothing": {issuer.Settings{}, issuers.Params{}, func(*jwks.Config) {}},
		"a list, which replaces that of the product": {issuer.Settings{Tokens: issuer.Tokens{Markers: []string{"kind = a"}, Scopes: []string{"roles"}}},
			issuers.Params{}, func(c *jwks.Config) {
				c.Markers, c.Scopes = []claims.Rule{claims.Equal("kind", "a")}, []string{"roles"}
			}},
		"rules, which the constructor adds": {issuer.Settings{Tokens: issuer.Tokens{Rules: []string{"a = b"}}},
			issuers.Params{Rules: []claims.Rule{claims.Equal("a", "b")}}, func(*jwks.Config) {}},
		"allow, which adds": {issuer.Settings{Tokens: issuer.Tokens{Allow: []string{"missing_subject"}}},
			issuers.Params{}, func(c *jwks.Config) { c.Profile.AllowMissingSubject = true }},
		"false, which replaces": {issuer.Settings{Tokens: issuer.Tokens{RequireScope: &no}},
			issuers.Params{}, func(c *jwks.Config) { c.RequireScope = false }},
		"a URL and algorithms": {issuer.Settings{URL: realm + "/keys", Algorithms: []string{"ES256"}},
			issuers.Params{}, func(c *jwks.Config) { c.JWKSURL, c.Algorithms = realm+"/keys", []string{"ES256"} }},
	} {
		t.Run("of a product: "+name, func(t *testing.T) {
			test.params.Issuer, test.params.Audience = realm, []string{api}
			want, err := issuers.Keycloak(test.params)
			require.NoError(t, err)
			test.change(&want)
			test.settings.Type, test.settings.Issuer, test.settings.Audience = "keycloak", realm, []string{api}
			got, wrong := test.settings.Config()
			assert.Empty(t, wrong)
			assert.Equal(t, want, got)
		})
	}
}

func TestWhatExcludesTheIDTokensOfAProductCannotBeSwitchedOff(t *testing.T) {
	no := false
	for name, test := range map[string]struct {
		tokens issuer.Tokens
		want   string
	}{
		"a scope": {issuer.Tokens{Type: "pingone", RequireScope: &no}, "require_scope: cannot be false for pingone"},
		"a scope beside another marker": {issuer.Tokens{Type: "pingone", RequireScope: &no, Markers: []string{"client_id"}},
			"require_scope: cannot be false for pingone"},
		"a marker":                                           {issuer.Tokens{Type: "keycloak", Markers: []string{"!nonce"}}, "markers: must require a claim, as the markers of keycloak do"},
		"a marker that another one replaces":                 {issuer.Tokens{Type: "fusionauth", Markers: []string{"applicationId"}}, ""},
		"a marker of a product that requires no claim":       {issuer.Tokens{Type: "zitadel", Markers: []string{"!auth_time"}}, ""},
		"a scope of a product that does not require one":     {issuer.Tokens{Type: "keycloak", RequireScope: &no}, ""},
		"a scope of an issuer that is not a product of ours": {issuer.Tokens{RequireScope: &no}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, wrong := issuer.Settings{Issuer: realm, Audience: []string{api}, Tokens: test.tokens}.Config()
			if test.want == "" {
				assert.Empty(t, wrong)
				return
			}
			require.Len(t, wrong, 1)
			assert.ErrorContains(t, fmt.Errorf("%s: %w", wrong[0].Field, wrong[0].Err), test.want)
		})
	}
}

func TestKeysToStartWithAreReadFromAFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys.json")
	require.NoError(t, os.WriteFile(file, []byte(snippets.KeySet), 0o600))
	v, wrong := issuer.Settings{Issuer: "https://127.0.0.1:1", Audience: []string{api}, InitialFile: file}.Verifier()
	require.Empty(t, wrong)
	defer v.Close()
	assert.NoError(t, v.Ready(t.Context()), "though the issuer does not answer")
}

func TestTheDefaultAudienceIsForProductsThatHaveOne(t *testing.T) {
	settings := func(of string, clients ...string) issuer.Settings {
		return issuer.Settings{Issuer: realm, DefaultAudience: []string{api}, Tokens: issuer.Tokens{Type: of, Clients: clients}}
	}
	t.Run("mistakes are those that remain without it", func(t *testing.T) {
		_, wrong := settings("keycloak_lightweight").Config()
		require.Len(t, wrong, 1)
		assert.Equal(t, "clients", wrong[0].Field)
	})
	t.Run("it is the audience if no clients are", func(t *testing.T) {
		cfg, wrong := settings("pingam").Config()
		assert.Empty(t, wrong)
		assert.Equal(t, []string{api}, cfg.Audience)
	})
	t.Run("a mistake in it is reported where it is needed", func(t *testing.T) {
		s := settings("keycloak")
		s.DefaultAudience = []string{"https://api.example.com#x"}
		_, wrong := s.Config()
		require.Len(t, wrong, 1)
		assert.ErrorContains(t, wrong[0].Err, "fragment")
	})
	for of, want := range map[string][]string{"keycloak": {api}, "keycloak_lightweight": {"app"}, "cognito": {api, "app"}, "pingam": {"app"}} {
		t.Run(of, func(t *testing.T) {
			cfg, wrong := settings(of, "app").Config()
			assert.Empty(t, wrong)
			assert.Equal(t, want, cfg.Audience)
		})
	}
}
