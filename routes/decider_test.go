package routes_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/routes"
	"github.com/valetkey/valetkey/scopes"
	"github.com/valetkey/valetkey/valetkeytest"
)

var decided = routes.Table{
	"GET /healthz":              valetkey.Public,
	"GET /orders":               scopes.All("orders:read"),
	"GET /orders/{id}":          valetkey.RequirementFunc(onlySeven),
	"/files/":                   valetkey.AnyToken,
	"GET /projects/{id}":        valetkey.AnyToken,
	"GET admin.example/orders":  scopes.All("admin"),
	"GET /broken":               valetkey.RequirementFunc(func(valetkey.Access) error { panic("broken") }),
	"GET /panics/{what...}":     valetkey.RequirementFunc(func(valetkey.Access) error { panic(http.ErrAbortHandler) }),
	"GET /certificates/current": valetkey.AnyToken,
}

var reasonSeven = valetkey.NewReason("test_only_seven", "only order 7")

func onlySeven(a valetkey.Access) error {
	if a.PathValue("id") != "7" {
		return &valetkey.Error{Code: valetkey.InsufficientScope, Reason: reasonSeven}
	}
	return nil
}

func TestDecider(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	guard := newGuard(t, iss)
	decider, err := decided.Decider(guard, routes.AllowEncodedSlash("GET /projects/{id}"))
	require.NoError(t, err)
	good := iss.Token(valetkeytest.Scopes("orders:read"))

	for _, c := range []struct {
		name   string
		report routes.Report
		token  string
		status int
		reason valetkey.Reason
		row    string
	}{
		{"no method", routes.Report{Target: "/healthz"}, good, 400, valetkey.ReasonMethod, ""},
		{"a method in lower case", routes.Report{Method: "get", Target: "/healthz"}, good, 400, valetkey.ReasonMethod, ""},
		{"two methods", routes.Report{Method: "GET, POST", Target: "/healthz"}, good, 400, valetkey.ReasonMethod, ""},
		{"CONNECT", routes.Report{Method: "CONNECT", Target: "/healthz"}, good, 400, valetkey.ReasonConnect, ""},
		{"no target", routes.Report{Method: "GET"}, good, 400, valetkey.ReasonTarget, ""},
		{"a target that is not a path", routes.Report{Method: "OPTIONS", Target: "*"}, good, 400, valetkey.ReasonTarget, ""},
		{"an absolute target", routes.Report{Method: "GET", Target: "http://other.example/healthz"}, good, 400, valetkey.ReasonTarget, ""},
		{"a target without its slash", routes.Report{Method: "GET", Target: "healthz"}, good, 400, valetkey.ReasonTarget, ""},
		{"a fragment", routes.Report{Method: "GET", Target: "/healthz#/admin"}, good, 400, valetkey.ReasonTarget, ""},
		{"a space", routes.Report{Method: "GET", Target: "/healthz HTTP/1.1"}, good, 400, valetkey.ReasonTarget, ""},
		{"a line break", routes.Report{Method: "GET", Target: "/healthz\r\nX: y"}, good, 400, valetkey.ReasonTarget, ""},
		{"bytes that are not ASCII", routes.Report{Method: "GET", Target: "/files/é"}, good, 400, valetkey.ReasonTarget, ""},
		{"an escape that is not one", routes.Report{Method: "GET", Target: "/files/%zz"}, good, 400, valetkey.ReasonTarget, ""},
		{"an unknown scheme", routes.Report{Method: "GET", Target: "/healthz", Scheme: "ws"}, good, 400, valetkey.ReasonForwardedMalformed, ""},
		{"a host with a path", routes.Report{Method: "GET", Target: "/healthz", Host: "a.example/x"}, good, 400, valetkey.ReasonHostMalformed, ""},
		{"a host with a user", routes.Report{Method: "GET", Target: "/healthz", Host: "a@b.example"}, good, 400, valetkey.ReasonHostMalformed, ""},
		{"two hosts", routes.Report{Method: "GET", Target: "/healthz", Host: "a.example, b.example"}, good, 400, valetkey.ReasonHostMalformed, ""},

		{"a path that reads as an authority", routes.Report{Method: "GET", Target: "//healthz"}, good, 400, valetkey.ReasonPathNotCanonical, ""},
		{"dot segments", routes.Report{Method: "GET", Target: "/files/../healthz"}, good, 400, valetkey.ReasonPathNotCanonical, ""},
		{"encoded dot segments", routes.Report{Method: "GET", Target: "/files/%2e%2E/healthz"}, good, 400, valetkey.ReasonPathAmbiguous, ""},
		{"an encoded slash", routes.Report{Method: "GET", Target: "/files%2Fx"}, good, 400, valetkey.ReasonPathAmbiguous, ""},
		{"an encoded slash in lower case", routes.Report{Method: "GET", Target: "/files/a%2fb"}, good, 400, valetkey.ReasonPathAmbiguous, ""},
		{"an encoded backslash", routes.Report{Method: "GET", Target: "/files/a%5cb"}, good, 400, valetkey.ReasonPathBackslash, ""},
		{"an encoded NUL", routes.Report{Method: "GET", Target: "/healthz%00/x"}, good, 400, valetkey.ReasonPathControl, ""},
		{"dots with a parameter", routes.Report{Method: "GET", Target: "/files/..;x/admin"}, good, 400, valetkey.ReasonPathDotSegment, ""},
		{"a path without the final slash of its row", routes.Report{Method: "GET", Target: "/files"}, good, 400, valetkey.ReasonPathNotCanonical, ""},

		{"no row", routes.Report{Method: "GET", Target: "/unknown"}, good, 403, valetkey.ReasonScope, ""},
		{"no row, without a token", routes.Report{Method: "GET", Target: "/unknown"}, "", 401, valetkey.ReasonNoCredentials, ""},
		{"another method than that of the row", routes.Report{Method: "POST", Target: "/orders"}, good, 403, valetkey.ReasonScope, ""},
		{"an escaped question mark", routes.Report{Method: "GET", Target: "/healthz%3Fx"}, "", 401, valetkey.ReasonNoCredentials, ""},
		{"no token", routes.Report{Method: "GET", Target: "/orders"}, "", 401, valetkey.ReasonNoCredentials, "GET /orders"},
		{"a path value that the row refuses", routes.Report{Method: "GET", Target: "/orders/8"}, good, 403, reasonSeven, "GET /orders/{id}"},
		{"the row of a host", routes.Report{Method: "GET", Target: "/orders", Host: "admin.example"}, good, 403, valetkey.ReasonScope, "GET admin.example/orders"},
		{"the row of a host in capitals, with a port", routes.Report{Method: "GET", Target: "/orders", Host: "Admin.Example:443"}, good, 403, valetkey.ReasonScope, "GET admin.example/orders"},
		{"a query that looks like a path", routes.Report{Method: "GET", Target: "/orders?x=/../healthz"}, "", 401, valetkey.ReasonNoCredentials, "GET /orders"},
		{"a panic in a requirement", routes.Report{Method: "GET", Target: "/broken"}, good, 503, "", "GET /broken"},
		{"a panic that net/http would not log", routes.Report{Method: "GET", Target: "/panics/x"}, good, 503, "", "GET /panics/{what...}"},

		{"a public row", routes.Report{Method: "GET", Target: "/healthz"}, "", 200, "", "GET /healthz"},
		{"a good token", routes.Report{Method: "GET", Target: "/orders?page=2", Scheme: "https", Host: "api.example:8443"}, good, 200, "", "GET /orders"},
		{"the path value of the row", routes.Report{Method: "GET", Target: "/orders/7"}, good, 200, "", "GET /orders/{id}"},
		{"HEAD follows GET", routes.Report{Method: "HEAD", Target: "/orders"}, good, 200, "", "GET /orders"},
		{"a path with its slash", routes.Report{Method: "GET", Target: "/files/"}, good, 200, "", "/files/"},
		{"an encoded slash that the row accepts", routes.Report{Method: "GET", Target: "/projects/a%2Fb"}, good, 200, "", "GET /projects/{id}"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.report.Header = http.Header{}
			if c.token != "" {
				c.report.Header.Set("Authorization", "Bearer "+c.token)
			}
			d, row := decider.DecideReport(t.Context(), c.report)
			assert.Equal(t, c.status, d.Status())
			assert.Equal(t, c.row, row)
			var refusal *valetkey.Error
			if errors.As(d.Err(), &refusal) {
				assert.Equal(t, c.reason, refusal.Reason)
			} else {
				assert.Empty(t, c.reason)
			}
			switch c.status {
			case 200:
				require.NoError(t, d.Err())
			case 503:
				assert.NotEmpty(t, d.Header().Get("Retry-After"))
				assert.NotContains(t, string(d.Body()), "broken")
			default:
				assert.NotEmpty(t, d.Header()["Www-Authenticate"])
			}
		})
	}

	t.Run("names of headers in any letter case are one header", func(t *testing.T) {
		d, _ := decider.DecideReport(t.Context(), routes.Report{Method: "GET", Target: "/orders", Header: http.Header{"authorization": {"Bearer " + good}}})
		assert.Equal(t, 200, d.Status())
		assert.Equal(t, "alice", d.Token().Subject())
		d, _ = decider.DecideReport(t.Context(), routes.Report{Method: "GET", Target: "/orders", Header: http.Header{
			"authorization": {"Bearer " + good}, "Authorization": {"Bearer " + good}}})
		assert.Equal(t, 400, d.Status())
	})
	t.Run("the certificate of the client", func(t *testing.T) {
		certificate := valetkeytest.ClientCertificate(t)
		guard := newGuard(t, iss, func(c *middleware.Config) { c.ClientCertificate = middleware.TLSCertificate() })
		decider, err := decided.Decider(guard)
		require.NoError(t, err)
		report := routes.Report{Method: "GET", Target: "/certificates/current", Header: http.Header{
			"Authorization": {"Bearer " + iss.Token(valetkeytest.BoundToCertificate(certificate))}}}
		d, _ := decider.DecideReport(t.Context(), report)
		assert.Equal(t, 401, d.Status())
		report.Certificate = leaf(t, valetkeytest.ClientCertificate(t))
		d, _ = decider.DecideReport(t.Context(), report)
		assert.Equal(t, 401, d.Status())
		report.Certificate = leaf(t, certificate)
		d, _ = decider.DecideReport(t.Context(), report)
		assert.Equal(t, 200, d.Status())
	})
	t.Run("all mistakes are named at once", func(t *testing.T) {
		_, err := routes.Table{"/x": nil}.Decider(nil, routes.AllowEncodedSlash("/y"))
		for _, part := range []string{`Table["/x"]: the requirement is nil`, "guard: required", `AllowEncodedSlash["/y"]: the table has no such row`} {
			assert.ErrorContains(t, err, part)
		}
	})
}

func TestDeciderRejectsAsItsGuardDoes(t *testing.T) {
	guard := newGuard(t, valetkeytest.NewIssuer(t))
	decider, err := decided.Decider(guard)
	require.NoError(t, err)
	for _, c := range []struct {
		name   string
		err    error
		status int
	}{
		{"a report that the gateway garbled", &valetkey.Error{Code: valetkey.InvalidRequest, Reason: valetkey.ReasonTarget}, 400},
		{"a failure of the gateway", errors.New("the gateway is broken"), 503},
		{"no reason", nil, 503},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, r := range []*http.Request{nil, received(t, "GET", "/healthz")} {
				d, want := decider.Reject(r, c.err), guard.Reject(r, c.err)
				assert.Equal(t, c.status, d.Status())
				assert.Error(t, d.Err())
				assert.Equal(t, want.Header(), d.Header())
				assert.Equal(t, want.Body(), d.Body())
			}
		})
	}
}

func TestStrictPaths(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	guard := newGuard(t, iss)
	table := routes.Table{"/files/": valetkey.Public}
	strict, err := table.Guard(guard, seen, routes.StrictPaths())
	require.NoError(t, err)
	lax := tableOf(t, guard, table, seen)
	for _, c := range []struct {
		name, method, target string
		reason               valetkey.Reason
	}{
		{"CONNECT", "CONNECT", "/files/x", valetkey.ReasonConnect},
		{"a method in lower case", "delete", "/files/x", valetkey.ReasonMethod},
		{"a method with a digit", "GET2", "/files/x", valetkey.ReasonMethod},
		{"an encoded backslash", "GET", "/files/%5C..%5Cadmin", valetkey.ReasonPathBackslash},
		{"a NUL", "GET", "/files/a%00b", valetkey.ReasonPathControl},
		{"a dot with a parameter", "GET", "/files/.;x/admin", valetkey.ReasonPathDotSegment},
		{"two dots with a parameter", "GET", "/files/..;/admin", valetkey.ReasonPathDotSegment},
		{"two dots with an encoded semicolon", "GET", "/files/..%3bx/admin", valetkey.ReasonPathDotSegment},
		{"a number sign", "GET", "/files/a#b", valetkey.ReasonTarget},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := received(t, c.method, c.target)
			w := httptest.NewRecorder()
			strict.ServeHTTP(w, r)
			assert.Equal(t, 400, w.Code)
			assert.Contains(t, w.Header().Get("WWW-Authenticate"), `error_description="`+c.reason.Description()+`"`)

			w = httptest.NewRecorder()
			lax.ServeHTTP(w, r)
			assert.Equal(t, 200, w.Code, "only the option refuses it")
		})
	}
	for _, method := range []string{"GET", "DELETE", "PROPFIND", "VERSION-CONTROL"} {
		w := httptest.NewRecorder()
		strict.ServeHTTP(w, received(t, method, "/files/x"))
		assert.Equal(t, 200, w.Code, method)
	}
	for _, target := range []string{"/files/a;b", "/files/...;a", "/files/.a", "/files/a.;b", "/files/a%20b", "/files/%23"} {
		w := httptest.NewRecorder()
		strict.ServeHTTP(w, received(t, "GET", target))
		assert.Equal(t, 200, w.Code, target)
	}
}

func leaf(t testing.TB, c tls.Certificate) *x509.Certificate {
	t.Helper()
	cert, err := x509.ParseCertificate(c.Certificate[0])
	require.NoError(t, err)
	return cert
}

// received returns a request with the target as a server of net/http receives it.
func received(t testing.TB, method, target string) *http.Request {
	t.Helper()
	u, err := url.ParseRequestURI(target)
	require.NoError(t, err)
	r := httptest.NewRequestWithContext(t.Context(), method, "/", nil)
	r.URL, r.RequestURI = u, target
	return r
}

// A gateway must not let a request through that the handler of the same table would refuse, nor by another row.
func FuzzDecider(f *testing.F) {
	iss := valetkeytest.NewIssuer(f)
	guard := newGuard(f, iss)
	decider, err := decided.Decider(guard)
	require.NoError(f, err)
	served := tableOf(f, guard, decided, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Row", r.Pattern) }))
	good := iss.Token(valetkeytest.Scopes("orders:read"), valetkeytest.ExpiresIn(24*time.Hour)) // longer than a run
	for _, target := range []string{"/healthz", "/orders?x=1", "/orders/7", "//healthz", "/files/a/../b", "/files", "/files/%2e%2e", "/a#b", "*", "/orders/7;x"} {
		f.Add("GET", target, "api.example", true)
		f.Add("get", target, "Admin.Example.", false)
	}
	f.Fuzz(func(t *testing.T, method, target, host string, withToken bool) {
		header := http.Header{}
		if withToken {
			header.Set("Authorization", "Bearer "+good)
		}
		d, row := decider.DecideReport(t.Context(), routes.Report{Method: method, Target: target, Host: host, Header: header})
		if d.Err() != nil {
			if d.Status() < 400 {
				t.Fatalf("refused with %d", d.Status())
			}
			return
		}
		u, err := url.ParseRequestURI(target)
		if err != nil || !strings.HasPrefix(target, "/") {
			t.Fatalf("%q was accepted: %v", target, err)
		}
		w := httptest.NewRecorder()
		served.ServeHTTP(w, (&http.Request{Method: method, URL: u, RequestURI: target, Host: host, Header: header, Body: http.NoBody}).WithContext(t.Context()))
		if w.Code != http.StatusOK || w.Header().Get("Row") != row {
			t.Fatalf("%s %q of %q was accepted by the row %q; the handler answers %d by %q", method, target, host, row, w.Code, w.Header().Get("Row"))
		}
	})
}

// A guard that trusts every process that connects through a unix socket must not trust a report without an address.
func TestDeciderReportsWithoutAnAddressAreFromNoProxy(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	certificate := valetkeytest.ClientCertificate(t)
	keys, err := jwks.New(jwks.Config{Issuer: iss.URL, Audience: []string{valetkeytest.DefaultAudience}, Client: iss.Client(), Now: iss.Now})
	require.NoError(t, err)
	t.Cleanup(keys.Close)
	guard, err := middleware.New(middleware.Config{
		Verifier: keys, Now: iss.Now, ClientCertificate: middleware.ClientCertHeader(), Proxies: middleware.Proxies{UnixSocket: true},
	})
	require.NoError(t, err)
	decider, err := routes.Table{"GET /orders": valetkey.AnyToken}.Decider(guard)
	require.NoError(t, err)
	assert.Same(t, guard, decider.Guard())
	report := routes.Report{Method: "GET", Target: "/orders", Header: http.Header{
		"Authorization": {"Bearer " + iss.Token(valetkeytest.BoundToCertificate(certificate))},
		"Client-Cert":   {":" + base64.StdEncoding.EncodeToString(certificate.Certificate[0]) + ":"},
	}}
	d, _ := decider.DecideReport(t.Context(), report)
	assert.Equal(t, 401, d.Status())
	report.RemoteAddr = "@"
	d, _ = decider.DecideReport(t.Context(), report)
	assert.NoError(t, d.Err(), "the header is that of the proxy")
}

func TestDeciderDeclaresTheNeedsOfItsTable(t *testing.T) {
	guard, err := middleware.New(middleware.Config{Verifier: valetkey.First(), Resource: middleware.Resource{ID: "https://api.example.com"}})
	require.NoError(t, err)
	_, err = routes.Table{"GET /orders": scopes.All("orders:read"), "GET /": scopes.Any("x", "y")}.Decider(guard)
	require.NoError(t, err)
	_, metadata := guard.Metadata()
	w := httptest.NewRecorder()
	metadata.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	assert.Contains(t, w.Body.String(), `"scopes_supported":["orders:read","x","y"]`)
}
