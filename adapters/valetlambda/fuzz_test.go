package valetlambda_test

import (
	"bufio"
	"cmp"
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/adapters/valetlambda"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/routes"
)

// FuzzEvent describes a client's request in an event of each kind, as API Gateway does, and compares the answer with the decision of
// net/http. An Authorizer may refuse more. It must not allow more, allow another resource, find another caller, or put the token into its
// answer. Instead of an event of that form, raw is an event as it is: it must not be allowed without a token, unless it is about a public
// row.
func FuzzEvent(f *testing.F) {
	for kind := range byte(5) {
		for _, seed := range []struct{ method, path, lines string }{
			{"GET", "/orders", "Authorization: Bearer t-valet\nX-Valetkey-Subject: admin"},
			{"GET", "/orders?access_token=t-valet", "authorization: Bearer t-valet\nAuthorization: Bearer t-admin"},
			{"GET", "/orders/7", "AUTHORIZATION: Bearer t-valet,Bearer t-admin"},
			{"GET", "/files/a%2Fb", "authorization: Bearer t-valet"},
			{"GET", "/files/%2e%2e/admin/", "Authorization: Bearer t-admin"},
			{"POST", "/public/../admin/x", "Cookie: session=t-valet; session=t-admin"},
			{"GET", "/orders/a*", "Authorization: Bearer t-valet\nAuthorization: Bearer t-valet"},
		} {
			f.Add(kind, seed.method, seed.path, seed.lines, []byte(nil))
		}
	}
	var accepted bool
	words := valetkey.VerifierFunc(func(_ context.Context, raw string) (*valetkey.Token, error) {
		switch raw {
		case "t-valet", "t-admin":
			accepted = true
			subject := strings.TrimPrefix(raw, "t-")
			return valetkey.NewToken(valetkey.TokenFields{Subject: subject, Scopes: valetkey.NewScopes("orders:read " + subject)}), nil
		}
		return nil, &valetkey.Error{Code: valetkey.InvalidToken, Reason: valetkey.ReasonInactive}
	})
	guard, err := middleware.New(middleware.Config{Verifier: words, Logger: slog.New(slog.DiscardHandler), Methods: []middleware.BearerMethod{middleware.Query()}})
	require.NoError(f, err)
	all := []valetlambda.Kind{valetlambda.REST, valetlambda.RESTToken, valetlambda.WebSocket, valetlambda.HTTP, valetlambda.HTTPPolicy}
	authorizers := map[valetlambda.Kind]*valetlambda.Authorizer{}
	for i, kind := range all {
		authorizers[kind] = newAuthorizer(f, guard, kind)
		for _, x := range []request{get("/orders", "Authorization: Bearer t-valet"), get("/public")} {
			f.Add(byte(i), "", "", "", event(f, kind, x))
		}
	}
	var caller string
	plain, err := table.Guard(guard, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if token := valetkey.FromContext(r.Context()); token != nil {
			caller = token.Subject()
		}
	}), routes.StrictPaths())
	require.NoError(f, err)

	f.Fuzz(func(t *testing.T, kind byte, method, path, lines string, raw []byte) {
		k := all[int(kind)%len(all)]
		accepted, caller = false, ""
		if len(raw) > 0 {
			if got := ask(t, t.Context(), authorizers[k], raw); got.result == "allow" && !accepted && !strings.Contains(string(raw), "public") {
				t.Errorf("%s: allowed without a token: %s", k, raw)
			}
			return
		}
		x := get(path, strings.Split(lines, "\n")...)
		x.method = method
		sent := method + " " + path
		decoded, query, known := x.routed(k)
		asked, _, _ := strings.Cut(path, "?")
		arn := map[valetlambda.Kind]string{valetlambda.HTTPPolicy: "$default/" + method + decoded, valetlambda.WebSocket: "prod/$connect"}[k]
		arn = account + cmp.Or(arn, "prod/"+method+asked)
		switch {
		case !known, !utf8.ValidString(method + path + lines + decoded): // JSON cannot carry it
			return
		case k == valetlambda.WebSocket:
			sent = "GET /$connect"
			if query != "" {
				sent += "?" + query
			}
		case k == valetlambda.RESTToken && (query != "" || strings.Count(strings.ToLower(lines), "authorization") > 1):
			return // such an event has no query, and one of the lines
		}
		delete(x.header, "")
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(sent + " HTTP/1.1\r\nHost: " + domain + "\r\n" + strings.ReplaceAll(lines, "\n", "\r\n") + "\r\n\r\n")))
		if err != nil {
			return // HTTP cannot carry it
		}
		w := httptest.NewRecorder()
		got := ask(t, t.Context(), authorizers[k], event(t, k, x))
		plain.ServeHTTP(w, r)
		switch {
		case strings.Contains(got.text, "t-valet") || strings.Contains(got.text, "t-admin"):
			if !strings.Contains(decoded+method, "t-") {
				t.Errorf("%s: the token is in the answer %s", k, got.text)
			}
		case got.result == "401" && w.Code == 200:
			t.Errorf("%s: no token is found, and net/http finds that of %q, in\n%s\n%s", k, caller, sent, lines)
		case got.result != "allow":
		case w.Code != 200:
			t.Errorf("%s: allowed, and net/http answers %d, to\n%s\n%s", k, w.Code, sent, lines)
		case got.context["subject"] != caller:
			t.Errorf("%s: the caller is %q, and that of net/http %q, for\n%s\n%s", k, got.context["subject"], caller, sent, lines)
		case k != valetlambda.HTTP && got.arn != arn:
			t.Errorf("%s: the policy is for %s, the request\n%s", k, got.arn, sent)
		}
	})
}

// routed sets the template by which an HTTP API routes the request, and returns the decoded path and the query. It returns false if the API
// has no such route, or if the path or the query cannot be decoded.
func (x *request) routed(kind valetlambda.Kind) (decoded, query string, ok bool) {
	path, query, _ := strings.Cut(x.path, "?")
	decoded, err := url.PathUnescape(path)
	if _, bad := url.ParseQuery(query); err != nil || bad != nil || !strings.HasPrefix(path, "/") {
		return "", "", false
	}
	if kind != valetlambda.HTTP && kind != valetlambda.HTTPPolicy {
		return decoded, query, true
	}
	decoded, _, _ = strings.Cut(decoded, "?")
	for _, template := range []string{"/", "/public", "/orders", "/orders/{id}", "/files/{name}", "/admin/{name}"} {
		prefix, _, parameter := strings.Cut(template, "{")
		name, found := strings.CutPrefix(path, prefix)
		if template == path || parameter && found && name != "" && !strings.Contains(name, "/") {
			x.route = template
			return decoded, query, true
		}
	}
	return "", "", false
}
