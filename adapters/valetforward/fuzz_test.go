package valetforward_test

import (
	"bufio"
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/adapters/valetforward"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/routes"
	"github.com/valetkey/valetkey/valetkeytest"
)

// FuzzQuestion asks about a client's request as the gateway of each dialect does, and compares the answer with the decision of net/http. A
// Handler may refuse more requests with 400. It must not let through more, find another caller, or put the token into its answer.
func FuzzQuestion(f *testing.F) {
	for dialect := range byte(len(allDialects)) {
		for _, seed := range []struct{ method, target, lines string }{
			{"GET", "/orders", "Authorization: Bearer t-valet\nX-Valetkey-Subject: admin"},
			{"GET", "/admin/?access_token=t-admin", "x_valetkey_scope: a\nX-VALETKEY.Scope: b"},
			{"GET", "/admin/", "Cookie: session=t-valet; session=t-admin\nX-Forwarded-Uri: /public/"},
			{"GET", "/public/../admin/", "Authorization: Basic eDp5,Bearer t-admin\nX-Original-Url: https://internal.api/public/"},
			{"GET", "/public/", "X-Original-Url: https://internal.api/\x02\x00blic/"},
			{"POST", "/orders/7?a=b#c", "Authorization: Bearer a\nAuthorization: Bearer t-valet\nConnection: x-valetkey-subject"},
			{"OPTIONS", "*", "Origin: https://a\nAccess-Control-Request-Method: GET\nX-Forwarded-Method: GET"},
			{"GET", "//admin/%2e%2e/%2F%5c", "Dpop: a,b\nAuthorization: DPoP t-valet\nForwarded: host=b\nX_Forwarded_Uri: /public/"},
			{"GET", "/socket", "Upgrade: websocket\nSec-Websocket-Key: x\nCookie: session=t-valet\nX-Forwarded-Proto: ws"},
		} {
			f.Add(dialect, seed.method, seed.target, seed.lines)
		}
	}
	words := valetkey.VerifierFunc(func(_ context.Context, raw string) (*valetkey.Token, error) {
		switch raw {
		case "t-valet", "t-admin":
			subject := strings.TrimPrefix(raw, "t-")
			return valetkey.NewToken(valetkey.TokenFields{Subject: subject, Scopes: valetkey.NewScopes("orders:read " + subject)}), nil
		}
		return nil, &valetkey.Error{Code: valetkey.InvalidToken, Reason: valetkey.ReasonInactive}
	})
	guard, err := middleware.New(middleware.Config{
		Verifier: words, Logger: slog.New(slog.DiscardHandler),
		Methods: []middleware.BearerMethod{middleware.Query(), middleware.Cookie("session", http.NewCrossOriginProtection())},
	})
	require.NoError(f, err)
	handlers := map[valetforward.Dialect]http.Handler{}
	for _, d := range allDialects {
		handlers[d] = newHandler(f, guard, d)
	}
	var caller string
	plain, err := table.Guard(guard, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if token := valetkey.FromContext(r.Context()); token != nil {
			caller = token.Subject()
		}
	}), routes.StrictPaths())
	require.NoError(f, err)

	f.Fuzz(func(t *testing.T, dialect byte, method, target, text string) {
		d := allDialects[int(dialect)%len(allDialects)]
		var lines []string
		for line := range strings.SplitSeq(text, "\n") {
			if name, _, found := strings.Cut(line, ":"); found && !strings.EqualFold(name, "Host") {
				lines = append(lines, line)
			}
		}
		// A gateway replaces the lines with which it asks; the other lines of the client arrive.
		own, _, _ := strings.Cut(question(d, request{"GET", "/", nil}), "\r\n\r\n")
		passed := slices.DeleteFunc(slices.Clone(lines), func(line string) bool {
			name, _, _ := strings.Cut(line, ":")
			return strings.Contains(strings.ToLower(own), "\r\n"+strings.ToLower(name)+":")
		})
		asked, err := http.ReadRequest(bufio.NewReader(strings.NewReader(question(d, request{method, target, passed}))))
		if err != nil {
			return // no gateway can ask so
		}
		asked.RemoteAddr = "127.0.0.1:1"
		w := httptest.NewRecorder()
		handlers[d].ServeHTTP(w, asked)
		for name, values := range w.Header() {
			if strings.Contains(strings.Join(values, ","), "t-") {
				t.Errorf("%s: the token is in the header %s: %q", d, name, values)
			}
		}
		if strings.Contains(w.Body.String(), "t-valet") || strings.Contains(w.Body.String(), "t-admin") {
			t.Errorf("%s: the token is in the body %q", d, w.Body)
		}
		if _, err := valetkeytest.Challenges(w.Header()); err != nil {
			t.Errorf("%s: %q: %v", d, w.Header(), err)
		}
		if w.Code != 200 && w.Header().Get("X-Valetkey-Subject") != "" {
			t.Errorf("%s: a refusal names the caller %q", d, w.Header().Get("X-Valetkey-Subject"))
		}

		sent := method + " " + target + " HTTP/1.1\r\nHost: api.example.com\r\n" + strings.Join(append(lines, "\r\n"), "\r\n")
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(sent)))
		if err != nil {
			if w.Code == 200 && len(passed) == len(lines) { // the gateway has replaced none
				t.Errorf("%s: the status is 200 for a request that HTTP cannot carry: %v\n%s", d, err, sent)
			}
			return
		}
		caller = ""
		served := httptest.NewRecorder()
		plain.ServeHTTP(served, r)
		switch {
		case w.Code == 400, w.Code == 403 && served.Code < 400: // the latter is a preflight
		case w.Code >= 400 && r.Header.Get("Upgrade") == "" && strings.Contains(strings.ToLower(text), "sec-websocket-"):
			// The gateway may have removed Upgrade, so it counts as a handshake, whose cookies need an origin.
		case w.Code != served.Code:
			t.Errorf("%s: the status is %d, and that of net/http %d, for\n%s", d, w.Code, served.Code, sent)
		case w.Header().Get("X-Valetkey-Subject") != caller:
			t.Errorf("%s: the caller is %q, and that of net/http %q, for\n%s", d, w.Header().Get("X-Valetkey-Subject"), caller, sent)
		}
	})
}
