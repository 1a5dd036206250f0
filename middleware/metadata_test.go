package middleware_test

import (
	"encoding/json"
	"net/http"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/rar"
	"github.com/valetkey/valetkey/scopes"
	"github.com/valetkey/valetkey/valetkeytest"
)

func TestResourceMistakes(t *testing.T) {
	for _, c := range []struct {
		name     string
		resource middleware.Resource
		mistake  string
	}{
		{"PRM-01 http", middleware.Resource{ID: "http://api.example.com"}, "Resource.ID"},
		{"PRM-01 another scheme", middleware.Resource{ID: "ftp://localhost"}, "Resource.ID"},
		{"PRM-01 empty, with a page for developers", middleware.Resource{Documentation: "https://docs.example.com"}, "Resource.ID"},
		{"PRM-01 empty, with scopes", middleware.Resource{Scopes: []string{"a"}}, "Resource.ID"},
		{"PRM-01 empty, with an issuer", middleware.Resource{AuthorizationServers: []string{"https://as.example.com"}}, "Resource.ID"},
		{"PRM-01 no URL", middleware.Resource{ID: "https://api.example.com/%zz"}, "Resource.ID"},
		{"PRM-01 empty, with a policy", middleware.Resource{Policy: "https://docs.example.com"}, "Resource.ID"},
		{"PRM-01 empty, with terms of use", middleware.Resource{TermsOfUse: "https://docs.example.com"}, "Resource.ID"},
		{"PRM-01 a fragment", middleware.Resource{ID: "https://api.example.com/#x"}, "Resource.ID"},
		{"PRM-01 empty, with a name", middleware.Resource{Name: "Orders"}, "Resource.ID"},
		{"a query", middleware.Resource{ID: "https://api.example.com/?x"}, "Resource.ID"},
		{"no host", middleware.Resource{ID: "urn:example:api"}, "Resource.ID"},
		{"no host beside https", middleware.Resource{ID: "https:///orders"}, "Resource.ID"},
		{"a port without a host", middleware.Resource{ID: "https://:443"}, "Resource.ID"},
		{"a user", middleware.Resource{ID: "https://me@api.example.com"}, "Resource.ID"},
		{"a character that no challenge can carry", middleware.Resource{ID: `https://api.example.com/"`}, "Resource.ID"},
		{"an empty issuer", middleware.Resource{ID: "https://api.example.com", AuthorizationServers: []string{""}}, "Resource.AuthorizationServers[0]"},
		{"a page that no URL can name", middleware.Resource{ID: "https://api.example.com", Policy: "https://docs.example.com/%zz"}, "Resource.Policy"},
		{"a page that is not a URL", middleware.Resource{ID: "https://api.example.com", Documentation: "docs"}, "Resource.Documentation"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := middleware.New(middleware.Config{Verifier: valetkey.First(), Resource: c.resource})
			assert.ErrorContains(t, err, "middleware: "+c.mistake)
		})
	}
}

func TestMetadata(t *testing.T) {
	serveAt := func(t *testing.T, guard *middleware.Guard) string {
		mux := http.NewServeMux()
		mux.Handle(guard.Metadata())
		return serve(t, mux)
	}
	read := func(t *testing.T, url string) (answer, map[string]any) {
		got := do(t, "GET", url, "")
		var said map[string]any
		if got.status == 200 {
			require.NoError(t, json.Unmarshal([]byte(got.body), &said))
		}
		return got, said
	}

	for _, c := range []struct{ name, id, path string }{
		{"PRM-02 a resource without a path", "https://api.example.com", "/.well-known/oauth-protected-resource"},
		{"PRM-02 a slash alone is not a path", "https://api.example.com/", "/.well-known/oauth-protected-resource"},
		{"PRM-03 a resource with a path", "https://api.example.com/a/b", "/.well-known/oauth-protected-resource/a/b"},
		{"PRM-04 a slash at the end", "https://api.example.com/a/", "/.well-known/oauth-protected-resource/a"},
		{"on loopback, by its name", "http://localhost:8080", "/.well-known/oauth-protected-resource"},
		{"on loopback, by IPv6", "http://[::1]:8080", "/.well-known/oauth-protected-resource"},
		{"on loopback", "http://127.0.0.1:8080", "/.well-known/oauth-protected-resource"},
	} {
		t.Run(c.name, func(t *testing.T) {
			guard := guardWith(t, valetkey.First(), func(cfg *middleware.Config) { cfg.Resource.ID = c.id })
			got, said := read(t, serveAt(t, guard)+c.path)
			require.Equal(t, 200, got.status)
			assert.Equal(t, c.id, said["resource"])
		})
	}

	full := middleware.Resource{
		ID: "https://api.example.com/orders", AuthorizationServers: []string{"https://as.example.com"}, Name: "Orders",
		Documentation: "https://docs.example.com", Policy: "https://docs.example.com/policy", TermsOfUse: "https://docs.example.com/terms",
		MaxAge: time.Minute,
	}
	const path = "/.well-known/oauth-protected-resource/orders"
	withFull := func(cfg *middleware.Config) { cfg.Resource = full }

	t.Run("PRM-05, PRM-07, PRM-08, PRM-09, PRM-10, PRM-12, PRM-15 the whole document, without algorithms of responses and without a signature, with the scopes of the requirements", func(t *testing.T) {
		guard := guardWith(t, valetkey.First(), withFull)
		api := serveAt(t, guard)
		guard.Handler(hello, scopes.MustParse("orders:read orders:export | admin"))
		guard.Require(scopes.All("orders:write"), requirement(func(t *valetkey.Token) error { return nil }))
		got, said := read(t, api+path)
		assert.Equal(t, "application/json", got.header.Get("Content-Type"))
		assert.Equal(t, map[string]any{
			"resource": "https://api.example.com/orders", "authorization_servers": []any{"https://as.example.com"},
			"scopes_supported":         []any{"admin", "orders:export", "orders:read", "orders:write"},
			"bearer_methods_supported": []any{"header"}, "resource_name": "Orders",
			"resource_documentation": "https://docs.example.com", "resource_policy_uri": "https://docs.example.com/policy",
			"resource_tos_uri": "https://docs.example.com/terms",
		}, said)
	})
	t.Run("a guard with the same value for each request does not grow", func(t *testing.T) {
		guard := guardWith(t, valetkey.First(), withFull)
		held := func() uint64 {
			var m runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&m)
			return m.HeapAlloc
		}
		before := held()
		for range 200_000 {
			guard.Handler(hello, rar.Requirement{Type: "payment_initiation"})
		}
		assert.Less(t, held(), before+1<<20)
		_, said := read(t, serveAt(t, guard)+path)
		assert.Equal(t, []any{"payment_initiation"}, said["authorization_details_types_supported"])
	})
	t.Run("PRM-06 members without elements are left out", func(t *testing.T) {
		guard := guardWith(t, valetkey.First(), func(cfg *middleware.Config) { cfg.Resource.ID = "https://api.example.com/orders" })
		_, said := read(t, serveAt(t, guard)+path)
		assert.Equal(t, map[string]any{"resource": "https://api.example.com/orders", "bearer_methods_supported": []any{"header"}}, said)
	})
	t.Run("PRM-10 the ways that are enabled", func(t *testing.T) {
		guard := guardWith(t, valetkey.First(), withFull, func(cfg *middleware.Config) {
			cfg.Methods = []middleware.BearerMethod{middleware.Form(0), middleware.Query()}
		})
		_, said := read(t, serveAt(t, guard)+path)
		assert.Equal(t, []any{"header", "body", "query"}, said["bearer_methods_supported"])
	})
	t.Run("PRM-11 what tokens have to be bound to, as the guard checks it", func(t *testing.T) {
		iss := valetkeytest.NewIssuer(t)
		dpop := withDPoP(t, iss)
		certificate := func(cfg *middleware.Config) { cfg.ClientCertificate = middleware.TLSCertificate() }
		only := func(cfg *middleware.Config) { cfg.SenderConstrained = true }
		algorithms := []any{"ES256", "ES384", "PS256", "EdDSA", "Ed25519"}
		header := []any{"header"}
		for _, c := range []struct {
			name                                 string
			change                               []func(*middleware.Config)
			algs, required, certificates, bearer any
		}{
			{"nothing", nil, nil, nil, nil, header},
			{"DPoP", []func(*middleware.Config){dpop}, algorithms, nil, nil, header},
			{"certificates", []func(*middleware.Config){certificate}, nil, nil, true, header},
			{"either, or nothing", []func(*middleware.Config){dpop, certificate}, algorithms, nil, true, header},
			{"either", []func(*middleware.Config){dpop, certificate, only}, algorithms, nil, true, header},
			{"DPoP alone", []func(*middleware.Config){dpop, only}, algorithms, true, nil, nil},
			{"certificates alone", []func(*middleware.Config){certificate, only}, nil, nil, true, header},
		} {
			_, said := read(t, serveAt(t, guardWith(t, valetkey.First(), append(c.change, withFull)...))+path)
			assert.Equal(t, c.algs, said["dpop_signing_alg_values_supported"], c.name)
			assert.Equal(t, c.required, said["dpop_bound_access_tokens_required"], c.name)
			assert.Equal(t, c.certificates, said["tls_client_certificate_bound_access_tokens"], c.name)
			assert.Equal(t, c.bearer, said["bearer_methods_supported"], c.name)
		}
	})
	t.Run("the types of authorization details are sorted, each once, in each response", func(t *testing.T) {
		guard := guardWith(t, valetkey.First(), withFull)
		for _, kind := range []string{"b", "c", "a", "b"} {
			guard.Declare(rar.Requirement{Type: kind})
		}
		api := serveAt(t, guard)
		for range 2 {
			_, said := read(t, api+path)
			assert.Equal(t, []any{"a", "b", "c"}, said["authorization_details_types_supported"])
		}
	})
	t.Run("slices of the Config are copied", func(t *testing.T) {
		servers, names := []string{"https://as.example.com"}, []string{"orders:read"}
		guard := guardWith(t, valetkey.First(), withFull, func(cfg *middleware.Config) {
			cfg.Resource.AuthorizationServers, cfg.Resource.Scopes = servers, names
		})
		servers[0], names[0] = "https://evil.example", "admin"
		assert.NotContains(t, string(guard.MetadataJSON()), "evil")
		assert.NotContains(t, string(guard.MetadataJSON()), "admin")
	})
	t.Run("without a Resource there is no document", func(t *testing.T) {
		assert.Nil(t, guardWith(t, valetkey.First()).MetadataJSON())
	})
	t.Run("PRM-17 no cache keeps it if MaxAge is negative, and one hour by default", func(t *testing.T) {
		for age, control := range map[time.Duration]string{-1: "no-store", 0: "public, max-age=3600", time.Second: "public, max-age=1"} {
			guard := guardWith(t, valetkey.First(), withFull, func(cfg *middleware.Config) { cfg.Resource.MaxAge = age })
			assert.Equal(t, control, do(t, "GET", serveAt(t, guard)+path, "").header.Get("Cache-Control"))
		}
	})
	t.Run("PRM-12 fewer scopes are published where configured", func(t *testing.T) {
		guard := guardWith(t, valetkey.First(), withFull, func(cfg *middleware.Config) { cfg.Resource.Scopes = []string{"orders:read"} })
		guard.Handler(hello, scopes.All("admin"))
		_, said := read(t, serveAt(t, guard)+path)
		assert.Equal(t, []any{"orders:read"}, said["scopes_supported"])
	})
	t.Run("PRM-07 Host does not matter", func(t *testing.T) {
		api := serveAt(t, guardWith(t, valetkey.First(), withFull))
		got := do(t, "GET", api+path, "", func(r *http.Request) { r.Host = "evil.example.com" })
		assert.Contains(t, got.body, `"resource":"https://api.example.com/orders"`)
		assert.NotContains(t, got.body, "evil")
	})
	t.Run("PRM-16, PRM-17 any page may read it, and remember it for a while", func(t *testing.T) {
		api := serveAt(t, guardWith(t, valetkey.First(), withFull))
		got := do(t, "GET", api+path, "")
		assert.Equal(t, "*", got.header.Get("Access-Control-Allow-Origin"))
		assert.Equal(t, "public, max-age=60", got.header.Get("Cache-Control"))
		preflight := do(t, "OPTIONS", api+path, "", header("Origin", "https://app.example.com"), header("Access-Control-Request-Method", "GET"))
		assert.Equal(t, 204, preflight.status)
		assert.Equal(t, "*", preflight.header.Get("Access-Control-Allow-Origin"))
	})
	t.Run("PRM-18 other methods", func(t *testing.T) {
		api := serveAt(t, guardWith(t, valetkey.First(), withFull))
		for _, method := range []string{"POST", "PUT", "DELETE"} {
			got := do(t, method, api+path, "")
			assert.Equal(t, 405, got.status)
			assert.Equal(t, "GET, HEAD, OPTIONS", got.header.Get("Allow"))
			assert.NotContains(t, got.body, "api.example.com")
		}
	})
	t.Run("PRM-13, PRM-14 every challenge points to it", func(t *testing.T) {
		iss := valetkeytest.NewIssuer(t)
		guard := newGuard(t, iss, withFull)
		api := serve(t, guard.Handler(hello, scopes.All("x")))
		for _, authorization := range []string{"", "Bearer", "Bearer x", "Bearer " + iss.Token()} {
			got := do(t, "GET", api, authorization)
			assert.Equal(t, "https://api.example.com"+path, valetkeytest.Challenge(t, got.header, "Bearer")["resource_metadata"])
		}
		api = serve(t, newGuard(t, iss, withFull, withDPoP(t, iss)).Handler(hello))
		for _, authorization := range []string{"", "Bearer", "Bearer x", "DPoP", "DPoP x"} {
			got := do(t, "GET", api, authorization)
			for _, scheme := range []string{"Bearer", "DPoP"} {
				assert.Equal(t, "https://api.example.com"+path, valetkeytest.Challenge(t, got.header, scheme)["resource_metadata"])
			}
		}
	})
	t.Run("PRM-19 two resources on one host have a document each", func(t *testing.T) {
		mux := http.NewServeMux()
		for _, id := range []string{"https://api.example.com/a", "https://api.example.com/b"} {
			mux.Handle(guardWith(t, valetkey.First(), func(cfg *middleware.Config) { cfg.Resource.ID = id }).Metadata())
		}
		api := serve(t, mux)
		for _, name := range []string{"a", "b"} {
			_, said := read(t, api+"/.well-known/oauth-protected-resource/"+name)
			assert.Equal(t, "https://api.example.com/"+name, said["resource"])
		}
	})
	t.Run("without a resource there is none", func(t *testing.T) {
		assert.Equal(t, 404, do(t, "GET", serveAt(t, guardWith(t, valetkey.First()))+"/.well-known/oauth-protected-resource", "").status)
	})
}
