package proxy_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/cmd/valetkey/internal/proxy"
	"github.com/valetkey/valetkey/valetkeytest"
)

func TestRequestID(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	generated := regexp.MustCompile(`^[A-Z2-7]{26}$`)
	const trusted = "trusted_proxies: [127.0.0.1]\nforwarded_header: X-Forwarded"
	for _, c := range []struct {
		name, more string
		header     []string
		want       string // "": a new one
	}{
		{"none", trusted, nil, ""},
		{"of a client", "", []string{"X-Request-ID: of-a-client"}, ""},
		{"of a client beside the proxies", strings.Replace(trusted, "127", "10", 1), []string{"X-Request-ID: of-a-client"}, ""},
		{"in another spelling", trusted, []string{"X_Request_Id: of-a-client"}, ""},
		{"empty", trusted, []string{"X-Request-ID:"}, ""},
		{"two", trusted, []string{"X-Request-ID: a", "X-Request-ID: b"}, ""},
		{"with a space", trusted, []string{"X-Request-ID: a b"}, ""},
		{"with a quote", trusted, []string{`X-Request-ID: a"b`}, ""},
		{"too long", trusted, []string{"X-Request-ID: " + strings.Repeat("a", 129)}, ""},

		{"of a trusted proxy", trusted, []string{"X-Request-ID: 4bf92f35-77b3_4da6.a3ce~929d+0e0e/4736=:@"}, "4bf92f35-77b3_4da6.a3ce~929d+0e0e/4736=:@"},
		{"of 128 characters", trusted, []string{"X-Request-ID: " + strings.Repeat("a", 128)}, strings.Repeat("a", 128)},
	} {
		t.Run(c.name, func(t *testing.T) {
			config, upstream := guarded(t, iss, c.more)
			addr := start(t, config, slog.New(slog.DiscardHandler))
			seen := map[string]bool{}
			for range 2 {
				res := send(t, addr, "GET /orders", append(c.header, "Authorization: Bearer "+iss.Token(valetkeytest.Scopes("orders:read")))...)
				require.Equal(t, 200, res.StatusCode)
				id := res.Header.Get("X-Request-ID")
				r := upstream.take()
				assert.Equal(t, []string{id}, r.Header["X-Request-Id"], "the upstream gets the ID that the client gets")
				assert.Empty(t, r.Header["X_request_id"])
				if c.want == "" {
					assert.Regexp(t, generated, id)
					assert.False(t, seen[id], "the ID was used before")
				} else {
					assert.Equal(t, c.want, id)
				}
				seen[id] = true
			}
			assert.NotEmpty(t, send(t, addr, "GET /orders", c.header...).Header.Get("X-Request-ID"), "of a refusal")
		})
	}
	t.Run("the upstream sends another one", func(t *testing.T) {
		upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X-Request-ID", "of the upstream") }))
		defer upstream.Close()
		addr := start(t, example(t, iss.URL, upstream.URL), slog.New(slog.DiscardHandler))
		ids := send(t, addr, "GET /health").Header["X-Request-Id"]
		require.Len(t, ids, 1)
		assert.Regexp(t, generated, ids[0])
	})
	t.Run("every line of the log about a request has it", func(t *testing.T) {
		var log bytes.Buffer
		config, _ := guarded(t, iss, "access_log: all")
		config = regexp.MustCompile(`upstream: \S+`).ReplaceAllString(config, "upstream: http://127.0.0.1:1")
		addr := start(t, config, slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))
		id := send(t, addr, "GET /orders", "Authorization: Bearer "+iss.Token(valetkeytest.Scopes("orders:read"))).Header.Get("X-Request-ID")
		assert.Contains(t, log.String(), "no answer from upstream")
		assert.Equal(t, strings.Count(log.String(), "\n"), strings.Count(log.String(), "request_id="+id))
		log.Reset()
		id = send(t, addr, "GET /orders", "Authorization: Bearer "+iss.Token(valetkeytest.WrongAudience())).Header.Get("X-Request-ID")
		assert.Contains(t, log.String(), "request refused")
		assert.Equal(t, strings.Count(log.String(), "\n"), strings.Count(log.String(), "request_id="+id))
	})
}

func TestAccessLog(t *testing.T) {
	iss, down := valetkeytest.NewIssuer(t), valetkeytest.NewIssuer(t)
	down.Metadata.Down()
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/files/missing":
			w.WriteHeader(http.StatusNotFound)
		case "/files/abort":
			panic(http.ErrAbortHandler)
		}
	}))
	defer upstream.Close()
	token := func(scopes ...string) string {
		return "Authorization: Bearer " + iss.Token(valetkeytest.Scopes(scopes...))
	}
	expired := iss.Token(valetkeytest.Expired())
	for _, c := range []struct {
		name, line string
		header     []string
		want       string // "method row status reason issuer client"
	}{
		{"no token", "GET /orders?secret=1", nil, "GET|GET /orders|401|no_credentials||127.0.0.1"},
		{"an expired token", "GET /orders", []string{"Authorization: Bearer " + expired}, "GET|GET /orders|401|expired||127.0.0.1"},
		{"too little scope", "GET /orders", []string{token("files")}, "GET|GET /orders|403|scope|ISSUER|127.0.0.1"},
		{"a route that does not exist", "GET /admin", []string{token("files")}, "GET||403|scope|ISSUER|127.0.0.1"},
		{"an ambiguous path", `GET /files/..\orders`, nil, "GET||400|path_backslash||127.0.0.1"},
		{"an encoded slash", "GET /files/..%2forders", nil, "GET|/files/|400|path_ambiguous||127.0.0.1"},
		{"an identity that no header carries", "GET /whoami", []string{"Authorization: Bearer " + iss.Token(valetkeytest.Subject("alice "))}, "GET|GET /whoami|401|identity||127.0.0.1"},
		{"an issuer that is down", "GET /whoami", []string{"Authorization: Bearer " + down.Token()}, "GET|GET /whoami|503|unavailable||127.0.0.1"},
		{"a method of the client's making", "BREW\x7f /orders", nil, ""},
		{"an unknown method", "BREW /orders", nil, "OTHER||401|no_credentials||127.0.0.1"},
		{"a client behind trusted proxies", "GET /orders", []string{"X-Forwarded-For: 198.51.100.9, 192.0.2.1"}, "GET|GET /orders|401|no_credentials||192.0.2.1"},

		{"an accepted request", "GET /orders?secret=1", []string{token("orders:read")}, "GET|GET /orders|200||ISSUER|127.0.0.1"},
		{"the status of the upstream", "GET /files/missing", []string{token("files")}, "GET|/files/|404||ISSUER|127.0.0.1"},
		{"an upstream that breaks off", "GET /files/abort", []string{token("files")}, "GET|/files/|502||ISSUER|127.0.0.1"},
		{"a public route", "GET /health", nil, "GET|GET /health|200|||127.0.0.1"},
	} {
		for _, mode := range []string{"off", "", "refusals", "all"} {
			t.Run(c.name+", "+mode, func(t *testing.T) {
				config := example(t, iss.URL, upstream.URL) + "trusted_proxies: [127.0.0.1, 10.0.0.0/8]\nforwarded_header: X-Forwarded\n"
				config = strings.Replace(config, "verifiers:", "verifiers:\n  - jwks: {issuer: "+down.URL+"}", 1)
				if mode != "" {
					config += "access_log: " + mode
				}
				var log bytes.Buffer
				p, err := load(t, config, slog.New(slog.NewJSONHandler(&log, nil)))
				require.NoError(t, err)
				defer p.Close()
				server := httptest.NewServer(p)
				res := send(t, server.Listener.Addr().String(), c.line, c.header...)
				server.Close() // waits for the line
				want := c.want
				refused := strings.Split(want+"|||", "|")[3] != ""
				if mode == "off" || mode != "all" && !refused {
					want = ""
				}
				var got []string
				for text := range strings.Lines(log.String()) {
					var line struct {
						Msg, Method, Row, Reason, Issuer, Client string
						RequestID                                string `json:"request_id"`
						Status                                   int
						MS                                       *float64
					}
					require.NoError(t, json.Unmarshal([]byte(text), &line))
					if line.Msg != "decision" {
						continue
					}
					got = append(got, fmt.Sprintf("%s|%s|%d|%s|%s|%s", line.Method, line.Row, line.Status, line.Reason, strings.Replace(line.Issuer, iss.URL, "ISSUER", 1), line.Client))
					assert.Equal(t, res.Header.Get("X-Request-ID"), line.RequestID)
					assert.Equal(t, res.StatusCode, line.Status)
					assert.NotNil(t, line.MS)
				}
				assert.Equal(t, want, strings.Join(got, "\n"))
				assert.NotContains(t, log.String(), "secret")
				assert.NotContains(t, log.String(), expired)
			})
		}
	}
}

// TestReportOnly proves that refusals are logged and not enforced, and that the upstream learns only the name of a verified token.
func TestReportOnly(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	config, upstream := guarded(t, iss, "insecure_report_only: true")
	var log bytes.Buffer
	p, err := load(t, config, slog.New(slog.NewTextHandler(&log, nil)))
	require.NoError(t, err)
	defer p.Close()
	assert.Contains(t, log.String(), "level=WARN")
	server := httptest.NewServer(p)
	for _, c := range []struct{ line, header, subject, logged string }{
		{"GET /orders", "X: y", "", "reason=no_credentials report_only=true"},
		{"GET /orders", "Authorization: Bearer x", "", "reason=not_jwt report_only=true"},
		{"GET /orders", "Authorization: Bearer " + iss.Token(valetkeytest.Expired()), "", "reason=expired report_only=true"},
		{"GET /orders", "Authorization: Bearer " + iss.Token(), "alice", "reason=scope report_only=true"},
		{"GET /orders", "Authorization: Bearer " + iss.Token(valetkeytest.Scopes("orders:read")), "alice", ""},
	} {
		log.Reset()
		require.Equal(t, 200, send(t, server.Listener.Addr().String(), c.line, c.header).StatusCode, c.logged)
		got := upstream.take()
		require.NotNil(t, got)
		assert.Equal(t, c.subject, got.Header.Get("X-Valetkey-Subject"))
		if c.subject == "" {
			assert.Empty(t, got.Header["Authorization"])
		}
		assert.Contains(t, log.String(), c.logged)
		assert.Equal(t, c.logged != "", strings.Contains(log.String(), "msg=decision"))
	}
	assert.Equal(t, 400, send(t, server.Listener.Addr().String(), `GET /files/..\orders`).StatusCode, "an ambiguous path is refused nevertheless")
	server.Close()
}

func TestAccessLogOfAnAuthorizer(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	file := filepath.Join(t.TempDir(), "authorize.yaml")
	require.NoError(t, os.WriteFile(file, []byte(strings.Replace(authorizing, "https://as.example.com", iss.URL, 1)+"access_log: all"), 0o600))
	var log bytes.Buffer
	hide := func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == "time" || a.Key == "ms" {
			return slog.Attr{}
		}
		return a
	}
	a, err := proxy.LoadAuthorizer(file, drivers, slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{ReplaceAttr: hide})))
	require.NoError(t, err)
	defer a.Close()
	for _, token := range []string{"", iss.Token(valetkeytest.Scopes("orders:read"))} {
		asked(t, a.Asked(), "GET", "/orders?secret=1", "Authorization: Bearer "+token, "X-Request-Id: 7")
	}
	assert.Equal(t, `level=INFO msg=decision request_id=7 method=GET row="GET /orders" status=400 reason=empty_token caller=127.0.0.1
level=INFO msg=decision request_id=7 method=GET row="GET /orders" status=200 issuer=`+iss.URL+` caller=127.0.0.1
`, log.String())
}

// TestIdentityHeaders asserts that an upstream can read any name.
func TestIdentityHeaders(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	config, upstream := guarded(t, iss, "")
	addr := start(t, config, slog.New(slog.DiscardHandler))
	send := func(subject string) *http.Response {
		return send(t, addr, "GET /orders", "Authorization: Bearer "+iss.Token(valetkeytest.Subject(subject), valetkeytest.Scopes("orders:read")))
	}
	for _, subject := range []string{"alice\n", " alice", "al\x00ice", "al\x7fice"} {
		assert.Equal(t, 401, send(subject).StatusCode, subject)
		assert.Nil(t, upstream.take())
	}
	for subject, want := range map[string]string{
		"alice":          "alice",
		"Alice Liddell":  "Alice Liddell",
		"zoë":            "zo%C3%AB",
		"日本":             "%E6%97%A5%E6%9C%AC",
		"100%":           "100%25",
		"%C3%AB":         "%25C3%25AB",
		"a+b@example.de": "a+b@example.de",
	} {
		require.Equal(t, 200, send(subject).StatusCode, subject)
		got := upstream.take().Header["X-Valetkey-Subject"]
		assert.Equal(t, []string{want}, got)
		decoded, err := url.PathUnescape(got[0])
		require.NoError(t, err)
		assert.Equal(t, subject, decoded)
	}
}
