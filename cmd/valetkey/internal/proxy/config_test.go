package proxy_test

import (
	"log/slog"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/valetkey/valetkey/cmd/valetkey/internal/proxy"
)

const good = `listen: 127.0.0.1:0
upstream: http://127.0.0.1:9
resource: https://api.example.com
verifiers: [jwks: {issuer: "https://as.example.com"}]
routes: {"GET /orders": "orders:read"}
`

func TestMistakes(t *testing.T) {
	base := func(replace ...string) string { return strings.NewReplacer(replace...).Replace(good) }
	routes := func(lines string) string { return base(`routes: {"GET /orders": "orders:read"}`, "routes:\n"+lines) }
	verifier := func(fields string) string { return base(`{issuer: "https://as.example.com"}`, fields) }
	for _, c := range []struct {
		name, config string
		want         []string // "line: text" of each mistake
	}{
		{"an empty file", "", []string{
			"1: listen: required", "1: upstream: required", "1: verifiers: required", "1: routes: required"}},
		{"not a mapping", "- x", []string{
			"1: is not a mapping", "1: listen: required", "1: upstream: required", "1: verifiers: required", "1: routes: required"}},
		{"a second document", good + "---\na: b\n", []string{"6: there is more than one YAML document"}},
		{"an unknown field", good + "debug: true", []string{
			`6: unknown field "debug"; known are listen, upstream, resource, realm, forward_token, verifiers, routes`}},
		{"a field twice", good + "listen: 127.0.0.1:1", []string{`6: "listen" stands on line 1 already`}},
		{"a merge key is a field like others", good + "<<: {}", []string{`6: "<<" is not a string: put it in quotes`}},
		{"a key that is no string", good + "1: 2", []string{`6: "1" is not a string: put it in quotes`}},
		{"a key that is empty", good + "'': 2", []string{"6: a key is empty"}},
		{"an alias", base("resource: https", "resource: &r https") + "realm: *r", []string{"6: realm: aliases are not supported"}},

		{"an address without a port", base("127.0.0.1:0", "localhost"), []string{`1: listen: "localhost" is not an address such as 127.0.0.1:8080`}},
		{"a number for an address", base("127.0.0.1:0", "8080"), []string{`1: listen: "8080" is not a string: put it in quotes`}},
		{"an upstream that is no URL", base("http://127.0.0.1:9", "localhost:9"), []string{"2: upstream: is not an http or https URL"}},
		{"an upstream with a user, whose password is not told", base("http://127.0.0.1:9", "http://me:secret@localhost"), []string{"2: upstream: has a user, a query or a fragment"}},
		{"an upstream that is nothing", base("http://127.0.0.1:9", `""`), []string{"2: upstream: is empty"}},
		{"a realm that a challenge cannot carry", good + `realm: 'a"b'`, []string{`6: realm: "a\"b" holds a character that a challenge cannot carry`}},
		{"a word for a flag", good + "forward_token: please", []string{`6: forward_token: "please" is not true or false`}},
		{"a list for a flag", good + "forward_token: [true]", []string{"6: forward_token: is not true or false"}},

		{"no verifiers", base(`[jwks: {issuer: "https://as.example.com"}]`, "[]"), []string{"4: verifiers: is empty"}},
		{"verifiers that are no list", base(`[jwks: {issuer: "https://as.example.com"}]`, "x"), []string{"4: verifiers: is not a list"}},
		{"a verifier of an unknown kind", base("[jwks:", "[saml:"), []string{
			`4: verifiers[0]: unknown field "saml"; known are jwks`, "4: verifiers[0]: jwks: required"}},
		{"a verifier without an issuer", verifier("{}"), []string{"4: verifiers[0].jwks: issuer: required"}},
		{"a verifier that is null", verifier("null"), []string{"4: verifiers[0].jwks: is not a mapping", "4: verifiers[0].jwks: issuer: required"}},
		{"no audience at all", base("resource: https://api.example.com", "realm: x"), []string{
			"4: verifiers[0].jwks: audience: required; an empty list does not mean any"}},
		{"an audience that is an empty list", verifier("{issuer: 'https://a', audience: []}"), []string{
			"4: verifiers[0].jwks.audience: is empty", "4: verifiers[0].jwks.audience: required; an empty list does not mean any"}},
		{"each field of a verifier, on its line", base(`[jwks: {issuer: "https://as.example.com"}]`, `
- jwks:
   issuer: https://as.example.com
   file: nowhere.json
   url: https://as.example.com/keys
   profile: strict
   algorithms: [none]
   leeway: 1h
   insecure_http: 'true'
   secret: x
`), []string{
			`7: verifiers[0].jwks.file: open DIR/nowhere.json: no such file or directory`,
			`7: verifiers[0].jwks.file: stands beside url: give one of them`,
			`9: verifiers[0].jwks.profile: "strict" is neither rfc9068 nor lenient`,
			`10: verifiers[0].jwks.algorithms: "none" is not a signature algorithm known here`,
			`11: verifiers[0].jwks.leeway: 1h0m0s is more than 5m0s`,
			`12: verifiers[0].jwks.insecure_http: "true" is not true or false`,
			`13: verifiers[0].jwks: unknown field "secret"; known are issuer, audience, url, file, profile, algorithms, leeway, insecure_http`}},
		{"a leeway without a unit", verifier("{issuer: 'https://a', leeway: '-5s'}"), []string{
			`4: verifiers[0].jwks.leeway: "-5s" is not a duration such as 30s`}},
		{"a key set over plain http", verifier("{issuer: 'https://a', url: 'http://a.example.com/keys'}"), []string{
			"4: verifiers[0].jwks.url: not https"}},
		{"two verifiers of one issuer", base("}]", `}, jwks: {issuer: "https://as.example.com"}]`), []string{
			`4: verifiers[1]: another verifier is for the issuer "https://as.example.com" already`}},

		{"no routes", base(`{"GET /orders": "orders:read"}`, "{}"), []string{"5: routes: is empty: every request would be refused"}},
		{"every kind of bad route, each on its line", routes(`
  "GET /a": "@admin"
  "GET /b": ""
  "GET /c": "x | | y"
  "GET /d": null
  "GET /e": [x]
  "GET /f": 'a"b'
  "GET /g": "@public"
  "GET /g": "@any"
  "GET  /g": x
  "/{x}/y": x
  "/z/{x}": x
  "orders": x
  "GET /{": x
`), []string{
			`7: routes["GET /a"]: "@admin" is neither @public nor @any`,
			`8: routes["GET /b"]: "": an alternative has no scope`,
			`9: routes["GET /c"]: "x | | y": an alternative has no scope`,
			`10: routes["GET /d"]: is empty`,
			`11: routes["GET /e"]: is not a string`,
			`12: routes["GET /f"]: "a\"b": scope "a\"b": character '"' at 1 is not allowed (RFC 6749, section 3.3)`,
			`14: routes: "GET /g" stands on line 13 already`,
			`15: routes["GET  /g"]: pattern "GET  /g" conflicts with pattern "GET /g": GET  /g matches the same requests as GET /g`,
			`17: routes["/z/{x}"]: pattern "/z/{x}" conflicts with pattern "/{x}/y": /z/{x} and /{x}/y both match some paths, like "/z/y". But neither is more specific than the other. /z/{x} matches "/z/x", but /{x}/y doesn't. /{x}/y matches "/x/y", but /z/{x} doesn't.`,
			`18: routes["orders"]: parsing "orders": at offset 0: host/path missing /`,
			`19: routes["GET /{"]: parsing "GET /{": at offset 5: bad wildcard segment (must end with '}')`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := load(t, c.config, slog.New(slog.DiscardHandler))
			if err == nil {
				p.Close()
				t.Fatal("accepted")
			}
			var got []string
			for line := range strings.SplitSeq(err.Error(), "\n") {
				file, rest, _ := strings.Cut(line, "proxy.yaml:")
				line, text, _ := strings.Cut(rest, ": ")
				got = append(got, line+": "+strings.ReplaceAll(text, filepath.Clean(file), "DIR"))
			}
			if strings.Join(got, "\n") != strings.Join(c.want, "\n") {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
		})
	}

	for _, c := range []struct{ name, config, want string }{
		{"a second document that is no YAML", good + "---\n\t}\n", "proxy.yaml: yaml: line 7"},
		{"not YAML", "listen: [", "proxy.yaml: yaml: line 1: did not find expected node content"},
		{"nesting without end", strings.Repeat("[", 20_000), "exceeded max depth"},
		{"a huge file", strings.Repeat("#", 1<<20+1), "is longer than 1048576 bytes"},
		{"an alias to itself", "a: &a [*a, *a]\n" + good, "aliases are not supported"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := load(t, strings.ReplaceAll(c.config, "a: &a [*a, *a]", "realm: &a [x]\nresource: *a"), slog.New(slog.DiscardHandler))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v", err)
			}
		})
	}
	t.Run("no file", func(t *testing.T) {
		if _, err := proxy.Load(filepath.Join(t.TempDir(), "x.yaml"), slog.New(slog.DiscardHandler)); err == nil {
			t.Error("accepted")
		}
	})
}

// FuzzLoad asserts that what is accepted and names no public route lets nobody through without a token.
func FuzzLoad(f *testing.F) {
	f.Add(good, "/orders")
	f.Add(strings.Replace(good, "GET /orders", "/{x...}", 1), "/a/b")
	f.Add("a: &a [*a]\nb: !!binary x\n? {}\n: - !x", "/")
	f.Add(strings.Replace(good, "as.example.com\"", "as.example.com\", url: 'http://[::1]/', leeway: 0s, audience: [a, b]", 1), "//x")
	f.Fuzz(func(t *testing.T, config, path string) {
		p, err := load(t, config, slog.New(slog.DiscardHandler))
		if err != nil {
			return
		}
		defer p.Close()
		if strings.Contains(config, "public") || strings.ContainsAny(config, `\%`) {
			return
		}
		r := httptest.NewRequest("GET", "/", nil)
		r.URL.Path = path
		w := httptest.NewRecorder()
		p.ServeHTTP(w, r)
		if w.Code != 401 && w.Code != 400 && w.Code != 307 {
			t.Errorf("%q got %d", path, w.Code)
		}
	})
}
