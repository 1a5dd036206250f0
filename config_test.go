package valetkey_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/dpop"
	"github.com/valetkey/valetkey/fapi"
	"github.com/valetkey/valetkey/introspect"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/routes"
	"github.com/valetkey/valetkey/scopes"
	"github.com/valetkey/valetkey/statuslist"
)

func TestConstructorsNameTheFieldOfEachMistake(t *testing.T) {
	for _, c := range []struct {
		name   string
		err    error
		fields []string
	}{
		{"middleware", errOf(middleware.New(middleware.Config{
			Realm:             `"`,
			ErrorURI:          "%",
			Methods:           []middleware.BearerMethod{{}},
			SenderConstrained: true,
			Proxies:           middleware.Proxies{Trusted: []netip.Prefix{{}}, Forwarded: "X"},
			Resource:          middleware.Resource{ID: "x", AuthorizationServers: []string{""}, Policy: "x"},
			Cache:             middleware.Cache{Bytes: -1, MaxAge: -1},
			Revocations:       middleware.Revocations{AllowBeforeCaughtUp: true, Bytes: -1},
		})), []string{
			"Issuer, Audience", "Realm", "ErrorURI", "Methods[0]", "SenderConstrained", "Methods", "Proxies.Trusted[0]", "Proxies.Forwarded",
			"Resource.ID", "Resource.AuthorizationServers[0]", "Resource.Policy", "Cache.Bytes",
			"Revocations.AllowBeforeCaughtUp", "Revocations.Bytes", "Cache.MaxAge",
		}},
		{"jwks with keys from two places", errOf(jwks.New(jwks.Config{
			Audience: []string{"a", ""}, Algorithms: []string{"none"}, Leeway: time.Hour, MaxLifetime: -1, Scopes: []string{""},
			JWKSURL: "https://as.example.com/keys", JWKS: []byte("{}"),
		})), []string{"Issuer", "Audience[1]", "Algorithms[0]", "Leeway", "MaxLifetime", "Scopes[0]", "JWKSURL, JWKS, Secret"}},
		{"jwks with fetched keys", errOf(jwks.New(jwks.Config{
			Issuer: "https://as.example.com", JWKSURL: "http://as.example.com", RefreshInterval: -1, MinRefetchInterval: -1, StaleIfError: 1 << 62,
		})), []string{"Audience", "JWKSURL", "RefreshInterval", "MinRefetchInterval", "StaleIfError"}},
		{"jwks with a short secret", errOf(jwks.New(jwks.Config{
			Issuer: "i", Audience: []string{"a"}, Secret: []byte("x"), Algorithms: []string{"HS256"},
		})), []string{"Secret"}},
		{"several issuers", errOf(jwks.ByIssuer(nil)), []string{"vs[0]"}},
		{"no issuers", errOf(jwks.ByIssuer()), []string{""}},
		{"tenants", errOf(jwks.Tenants(jwks.TenantsConfig{Max: -1, TTL: -1, Allow: []netip.Prefix{{}}})),
			[]string{"Lookup", "Max", "TTL", "Allow[0]"}},
		{"introspect", errOf(introspect.New(introspect.Config{
			JWTIssuers: []string{""}, NegativeTTL: time.Hour, Leeway: time.Hour, Timeout: -1, MaxInFlight: -1,
			Signed: &introspect.Signed{Algorithm: "none", JWKSURL: "http://as.example.com"},
		})), []string{
			"URL, Issuer", "Audience", "Auth", "JWTIssuers[0]", "NegativeTTL", "Leeway", "Timeout", "MaxInFlight",
			"Issuer", "Signed.Algorithm", "Signed.Audience", "Signed.JWKSURL",
		}},
		{"dpop", errOf(dpop.New(dpop.Config{Algorithms: []string{"none"}, Window: -1, Leeway: time.Hour, Nonces: &dpop.Nonces{}})),
			[]string{"Algorithms[0]", "Window", "Leeway", "Nonces"}},
		{"nonces", errOf(dpop.NewNonces(dpop.NoncesConfig{Previous: [][]byte{{1}}, Every: 1, Grace: -1})),
			[]string{"Key", "Previous[0]", "Every", "Grace"}},
		{"statuslist", errOf(statuslist.New(statuslist.Config{
			Algorithms: []string{"none"}, Origins: []string{"x"}, RefreshInterval: -1, MinTTL: 2, MaxTTL: 1, MaxLists: -1,
			JWKSURL: "http://as.example.com",
		})), []string{"Verifier", "Issuer", "Algorithms[0]", "Origins[0]", "RefreshInterval", "MinTTL", "MaxLists", "JWKSURL"}},
		{"fapi and its parts", errOf(fapi.New(fapi.Config{
			Issuer: "x", DPoP: &dpop.Config{Window: -1}, JWKSURL: "http://as.example.com", Algorithms: []string{"RS256"},
			RequireNonce: true, Revocation: fapi.ShortLived(time.Hour),
			Guard: middleware.Config{Realm: `"`, URL: func(*http.Request) string { return "" }},
		})), []string{
			"Issuer", "DPoP.Nonces", "DPoP.Window", "Revocation.ShortLived", "Algorithms[0]", "Audience", "JWKSURL", "Guard.Realm",
		}},
		{"a part of fapi's revocation", errOf(fapi.New(fapi.Config{
			Issuer: "https://as.example.com", Audience: []string{"a"}, DPoP: &dpop.Config{},
			Revocation: fapi.OpaqueTokens(introspect.Config{Issuer: "x", InsecureHTTP: true, Leeway: time.Hour}),
			Guard:      middleware.Config{URL: func(*http.Request) string { return "" }},
		})), []string{
			"Revocation.OpaqueTokens.Issuer", "Revocation.OpaqueTokens.InsecureHTTP",
			"Revocation.OpaqueTokens.Issuer", "Revocation.OpaqueTokens.Auth", "Revocation.OpaqueTokens.Leeway",
		}},
		{"routes", errOf(routes.Table{"GET /a": nil}.Guard(nil, nil)), []string{`Table["GET /a"]`, "guard", "next"}},
		{"a mux", func() error {
			var mux routes.Mux
			mux.Handle("GET /a", nil, scopes.All("a"))
			mux.Handle("GET /a", http.NotFoundHandler(), nil)
			return errOf(mux.Guarded(nil))
		}(), []string{`Table["GET /a"]`, `Table["GET /a"]`, `Table["GET /a"]`}},
		{"scopes", errOf(scopes.Parse("a | ")), []string{""}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var fields []string
			lines := 0
			for _, m := range valetkey.ConfigErrors(c.err) {
				fields = append(fields, m.Field)
				lines += strings.Count(m.Error(), "\n") + 1
				assert.ErrorContains(t, c.err, m.Error(), "the text has the field too")
				assert.NotEmpty(t, m.Err.Error())
			}
			assert.Equal(t, c.fields, fields, "of %v", c.err)
			assert.Len(t, strings.Split(fmt.Sprint(c.err), "\n"), lines, "a mistake without a ConfigError in %v", c.err)
		})
	}
}

func errOf[T any](_ T, err error) error {
	return errors.Join(err)
}
