package valetenvoy_test

import (
	"bufio"
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/adapters/valetenvoy"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/routes"
	"github.com/valetkey/valetkey/scopes"
)

// words accepts two tokens, valet and admin.
var words = valetkey.VerifierFunc(func(_ context.Context, raw string) (*valetkey.Token, error) {
	switch raw {
	case "valet":
		return valetkey.NewToken(valetkey.TokenFields{Subject: "valet", Scopes: valetkey.NewScopes("orders:read")}), nil
	case "admin":
		return valetkey.NewToken(valetkey.TokenFields{Subject: "admin", Scopes: valetkey.NewScopes("orders:read", "admin")}), nil
	}
	return nil, &valetkey.Error{Code: valetkey.InvalidToken, Reason: valetkey.ReasonInactive}
})

// FuzzCheck compares the decision on a request with that of net/http. A Server may refuse more requests with 400. It must not let
// through more, nor find another caller.
func FuzzCheck(f *testing.F) {
	for _, seed := range []struct{ method, target, host, scheme, lines, certificate string }{
		{"GET", "/orders", "api.example.com", "https", "authorization: Bearer valet\nx-valetkey-subject: admin", ""},
		{"GET", "/admin?access_token=admin", "api.example.com", "http", "x_valetkey_scope: a\nX-VALETKEY.Scope: b", ""},
		{"GET", "/admin", "ADMIN.example.com:80", "", "cookie: session=valet; session=admin", ""},
		{"GET", "/public/../admin", "", "https", "authorization: Basic eDp5,Bearer admin\n:path: /public/", ""},
		{"POST", "/items/7?a=b#c", "a", "https", "authorization: Bearer a\nauthorization: Bearer valet\nconnection: x-valetkey-subject", "x"},
		{"OPTIONS", "*", "a", "HTTPS", "origin: https://a\naccess-control-request-method: GET\ncontent-type: application/grpc", ""},
		{"GET", "//admin/%2e%2e/%2F%5c", "a", "ftp", "dpop: a,b\nauthorization: DPoP valet\nforwarded: host=b\nx-forwarded-uri: /public/", ""},
	} {
		for _, form := range []byte{0, 1, 2} {
			f.Add(seed.method, seed.target, seed.host, seed.scheme, seed.lines, seed.certificate, form)
		}
	}
	guard, err := middleware.New(middleware.Config{
		Verifier: words, Logger: slog.New(slog.DiscardHandler),
		Methods: []middleware.BearerMethod{middleware.Query(), middleware.Cookie("session", http.NewCrossOriginProtection())},
	})
	require.NoError(f, err)
	table := routes.Table{
		"GET /orders":            scopes.All("orders:read"),
		"GET /admin":             scopes.All("admin"),
		"/items/{id}":            valetkey.AnyToken,
		"/catalog/":              valetkey.Optional,
		"GET /public/":           valetkey.Public,
		"admin.example.com/{$}":  scopes.All("admin"),
		"public.example.com/{$}": valetkey.Public,
	}
	decider, err := table.Decider(guard)
	require.NoError(f, err)
	server, err := valetenvoy.New(valetenvoy.Config{Decider: decider, Callers: loopback, Logger: slog.New(noPanics{})})
	require.NoError(f, err)
	var caller string
	plain, err := table.Guard(guard, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if token := valetkey.FromContext(r.Context()); token != nil {
			caller = token.Subject()
		}
	}), routes.StrictPaths())
	require.NoError(f, err)

	f.Fuzz(func(t *testing.T, method, target, host, scheme, text, certificate string, form byte) {
		var lines [][2]string
		for line := range strings.SplitSeq(text, "\n") {
			if name, value, found := strings.Cut(line, ": "); found {
				lines = append(lines, [2]string{name, value})
			}
		}
		in, sent := described(method, target, host, scheme, lines, form)
		in.Attributes.Source = &authv3.AttributeContext_Peer{Certificate: certificate}
		out, err := server.Check(fromLoopback(t), in)
		require.NoError(t, err)
		got := answerOf(t, out)
		if got.status == 200 {
			for _, line := range lines {
				name := strings.ToLower(line[0])
				_, overwritten := got.set[name]
				if middleware.IsIdentityHeader(name) && !overwritten && !slices.Contains(got.remove, name) {
					t.Errorf("the upstream gets the client's header %q", name)
				}
			}
		}
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(sent)))
		if err != nil {
			return // HTTP cannot carry it
		}
		caller = ""
		w := httptest.NewRecorder()
		plain.ServeHTTP(w, r)
		switch {
		case got.status == 400:
		case got.status != w.Code:
			t.Errorf("the status is %d, and that of net/http %d, for\n%s", got.status, w.Code, sent)
		case got.set["x-valetkey-subject"] != caller:
			t.Errorf("the caller is %q, and that of net/http %q, for\n%s", got.set["x-valetkey-subject"], caller, sent)
		}
	})
}

// described returns a check and the same request as it is sent. form selects the fields for headers.
func described(method, target, host, scheme string, lines [][2]string, form byte) (*authv3.CheckRequest, string) {
	h := &authv3.AttributeContext_HttpRequest{Method: method, Path: target, Host: host, Scheme: scheme}
	joined, raw := map[string]string{}, &corev3.HeaderMap{}
	sent := method + " " + target + " HTTP/1.1\r\nHost: " + host + "\r\n"
	add := func(name, value string) {
		switch name = strings.ToLower(name); {
		case name == "host", name == "content-length", name == "transfer-encoding", strings.HasPrefix(name, ":"):
		default:
			sent += name + ": " + value + "\r\n"
		}
	}
	for _, line := range lines {
		name, value := line[0], line[1]
		raw.Headers = append(raw.Headers, &corev3.HeaderValue{Key: name, RawValue: []byte(value)})
		if earlier, found := joined[name]; found {
			value = earlier + "," + value
		}
		joined[name] = value
		if form%3 != 0 {
			add(name, line[1])
		}
	}
	if form%3 != 1 {
		h.Headers = joined
	}
	if form%3 != 0 {
		h.HeaderMap = raw
	} else {
		for name, value := range joined {
			add(name, value)
		}
	}
	return of(h), sent + "\r\n"
}

// noPanics panics again when a panic is logged.
type noPanics struct{}

func (noPanics) Enabled(context.Context, slog.Level) bool { return true }

func (noPanics) Handle(_ context.Context, r slog.Record) error { panic("logged: " + r.Message) }

func (n noPanics) WithAttrs([]slog.Attr) slog.Handler { return n }

func (n noPanics) WithGroup(string) slog.Handler { return n }
