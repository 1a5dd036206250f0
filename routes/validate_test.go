package routes_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/claims"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/routes"
	"github.com/valetkey/valetkey/scopes"
	"github.com/valetkey/valetkey/valetkeytest"
)

const (
	public   = valetkey.Public
	optional = valetkey.Optional
	anyToken = valetkey.AnyToken
)

func TestValidate(t *testing.T) {
	read := scopes.All("read")
	for _, c := range []struct {
		name   string
		routes routes.Table
		want   []string // one for each line of the error
	}{
		{"no rows", routes.Table{}, []string{"is empty"}},
		{"a nil table", nil, []string{"is empty"}},
		{"malformed patterns", routes.Table{"": read, "GET": read, "/{": read, "/{a}/{a}": read, "/{x...}/y": read, "G=T /": read},
			[]string{`Table[""]`, `Table["/{"]`, `Table["/{a}/{a}"]`, `Table["/{x...}/y"]`, `Table["G=T /"]`, `Table["GET"]`}},
		{"a path without a slash", routes.Table{"orders": read, "GET\tinvoices": read},
			[]string{`Table["GET\tinvoices"]: the path must begin with a slash: write "GET /invoices"`, `Table["orders"]: the path must begin with a slash: write "/orders"`}},
		{"a path without a slash that is read as a host", routes.Table{"/orders": read, "GET orders/{id}": read, "GET users/{id}": read, "/users/{id}/keys": read},
			[]string{`Table["GET orders/{id}"]: "orders" is read as a host, and other rows have the path /orders: write "GET /orders/{id}", or add the row "orders/"`,
				`Table["GET users/{id}"]: "users" is read as a host, and other rows have the path /users: write "GET /users/{id}"`}},
		{"a method without a path", routes.Table{"GET": read, "": read, "POST ": read},
			[]string{`Table[""]: the path is missing: write a method and a path, such as "GET /orders"`, `Table["GET"]: the path is missing: write "GET /" for the path /`, `Table["POST "]: the path is missing`}},
		{"a method without a space after it", routes.Table{"GET/orders/{id}": read}, []string{`a space belongs between the method and the path: write "GET /orders/{id}"`}},
		{"a method behind the path", routes.Table{"/orders POST": read}, []string{`the method comes before the path: write "POST /orders"`}},
		{"several methods", routes.Table{"GET,POST /a": read, "PUT|PATCH /a": read},
			[]string{`write "GET /a" and "POST /a"`, `write "PUT /a" and "PATCH /a"`}},
		{"two of the same", routes.Table{"/a/{x}": read, "/a/{y}": read}, []string{`Table["/a/{y}"]: pattern "/a/{y}" conflicts with pattern "/a/{x}"`}},
		{"two that overlap", routes.Table{"/a/{x}": read, "/{x}/b": read}, []string{`Table["/{x}/b"]: pattern "/{x}/b" conflicts with pattern "/a/{x}"`}},
		{"more methods and a narrower path", routes.Table{"GET /": read, "/a": read}, []string{`conflicts with pattern "/a"`}},
		{"no requirement", routes.Table{"/a": nil}, []string{`Table["/a"]: the requirement is nil`}},
		{"no requirement among several", routes.Table{"/a": valetkey.AllOf{read, nil}}, []string{`AllOf[1]: the requirement is nil`}},
		{"an unknown access", routes.Table{"/a": valetkey.Openness("publik"), "/b": valetkey.Openness("")},
			[]string{`Table["/a"]: unknown Openness "publik"`, `Table["/b"]: unknown Openness ""`}},
		{"public among requirements", routes.Table{"/a": valetkey.AllOf{public, read}}, []string{`AllOf[0]: public cannot be combined`}},
		{"public among alternatives", routes.Table{"/a": valetkey.AnyOf{read, public}}, []string{`AnyOf[1]: public cannot be combined`}},
		{"no requirement among alternatives", routes.Table{"/a": valetkey.AnyOf{nil, read}}, []string{`AnyOf[0]: the requirement is nil`}},
		{"a rule that no token meets", routes.Table{"/a": claims.Rule{}}, []string{`Table["/a"]: the zero Rule holds for no token`}},
		{"a rule without a value", routes.Table{"/a": valetkey.AllOf{read, claims.Equal("tid", "")}}, []string{`AllOf[1]: the value is empty`}},
		{"a rule about a wildcard of another pattern", routes.Table{"/a/{tenant}": claims.EqualPathValue("tid", "tenant"), "/b/{id}": claims.EqualPathValue("tid", "tenant")},
			[]string{`Table["/b/{id}"]: the rule "tid = path value tenant" can never hold: the pattern has no wildcard {tenant}`}},
		{"requirements and patterns together", routes.Table{"/a": nil, "b": read}, []string{`Table["/a"]`, `Table["b"]`}},

		{"an unclean path with a method", routes.Table{"GET /a//b": read}, []string{"can never match"}},
		{"an unclean path", routes.Table{"/a//b": read}, []string{`Table["/a//b"]: can never match`}},
		{"a path with dots", routes.Table{"/a/../b": read}, []string{"can never match"}},
		{"a path with encoded dots", routes.Table{"/a/%2e%2e": read}, []string{"can never match"}},
		{"a segment with a slash", routes.Table{"/a%2Fb": read}, []string{"can never match"}},
		{"a host with a port", routes.Table{"example.com:8080/a": read}, []string{"can never match"}},
		{"a host with a capital letter", routes.Table{"Example.com/a": read, "/": read}, []string{`Table["Example.com/a"]: can never match`}},
		{"a host with a dot at the end", routes.Table{"example.com./a": read, "/": read}, []string{`Table["example.com./a"]: can never match`}},
		{"a method in small letters", routes.Table{"get /a": read}, []string{`can never match: methods are case-sensitive`}},
		{"a row behind three", routes.Table{"/a/": read, "/a/{$}": read, "/a/{x}": read, "/a/{x}/": read},
			[]string{`Table["/a/"]: can never match: ["/a/{$}" "/a/{x}" "/a/{x}/"] serve`}},
		{"a row behind four, deeper", routes.Table{"/{r...}": read, "/{$}": read, "/{x}": read, "/{x}/{$}": read, "/{x}/{y}": read, "/{x}/{y}/": read},
			[]string{`Table["/{r...}"]: can never match`}},

		{"public below a guarded wildcard", routes.Table{"/": public, "GET /admin/{x}": read, "/admin/{x}": read},
			[]string{`Table["/admin/{x}"]: the wider row "/" is public and serves DELETE /admin/x/`, `Table["GET /admin/{x}"]: the wider row "/" is public`}},
		{"optional beside a guarded path", routes.Table{"GET /": optional, "GET /orders": read}, []string{`is optional and serves GET /orders/:`}},
		{"public methods of a guarded one", routes.Table{"/orders": public, "GET /orders": read}, []string{`serves DELETE /orders:`}},
		{"public methods of a guarded tree", routes.Table{"/": public, "GET /admin/": read}, []string{`"/" is public and serves DELETE /admin/:`}},
		{"public hosts of a guarded one", routes.Table{"/orders": public, "a.example/orders": read}, []string{`serves DELETE /orders:`}},
		{"a public wildcard beside a guarded path", routes.Table{"/{x}/": public, "/admin/users": read}, []string{`"/{x}/" is public and serves DELETE /admin/users/:`}},
		{"public below a guarded wildcard and its slash", routes.Table{"/": public, "/admin/{x}": read, "/admin/{x}/{$}": read},
			[]string{`Table["/admin/{x}"]: the wider row "/" is public and serves DELETE /admin/x/x:`, `Table["/admin/{x}/{$}"]: the wider row "/" is public`}},
		{"a row that a requirement of the application opens", routes.Table{"/": opened{}, "GET /admin/{x}": read}, []string{`Table["GET /admin/{x}"]: the wider row "/" is open`}},
		{"two public rows", routes.Table{"/": public, "/a/": public, "/a/b": read}, []string{`Table["/a/b"]: the wider row "/a/" is public`}},

		{"rules about wildcards", routes.Table{"/a/{t}/x": claims.EqualPathValue("tid", "t"), "/b/{t...}": valetkey.AnyOf{claims.ContainsPathValue("tids", "t"), read}, "/c": claims.EqualQuery("tid", "t")}, nil},
		{"a guarded tree under a public root", routes.Table{"/": public, "/admin/": read}, nil},
		{"a guarded path with its neighbours spelled out", routes.Table{"/": public, "/orders": read, "/orders/": public}, nil},
		{"guarded methods with the others spelled out", routes.Table{"POST /orders": public, "GET /orders": read}, nil},
		{"a public path within a guarded tree", routes.Table{"/admin/": read, "/admin/login": public}, nil},
		{"a public tree below a guarded path", routes.Table{"/a/{x}": read, "/a/{x}/": public}, nil},
		{"pages for everyone and an API by POST", routes.Table{"GET /": public, "POST /orders": read}, nil},
		{"wide rows that ask for a token", routes.Table{"/": anyToken, "/admin/{x}": read}, nil},
		{"another host, public", routes.Table{"b.example/orders": public, "a.example/orders": read}, nil},
		{"a row that only other methods reach", routes.Table{"/a": read, "GET /a": read, "POST /a": read}, nil},
		{"all but the path itself", routes.Table{"/a/": read, "/a/{x}": read, "/a/{x}/": read}, nil},
		{"a zero requirement, which closes", routes.Table{"/": scopes.Requirement{}}, nil},
		{"a literal in other spelling", routes.Table{"/a%20b": read, "/{x}": read, "/x": read, "X /xx": read}, nil},
		{"what looks like an encoded character", routes.Table{"/100%": read, "/a%zz": read}, nil},
		{"CONNECT", routes.Table{"CONNECT /a": read}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.routes.Validate()
			if c.want == nil {
				require.NoError(t, err)
				return
			}
			require.Error(t, err)
			lines := strings.Split(err.Error(), "\n")
			require.Len(t, lines, len(c.want), err.Error())
			for i, want := range c.want {
				assert.Contains(t, lines[i], want)
				assert.NotContains(t, lines[i], ".go:", "the place where net/http was called means nothing to the reader")
			}
		})
	}
}

// With this setting net/http takes "GET /orders" for a path, and a public "/" would serve what it should guard.
// A host may have one label, also beside a path of that name.
func TestHostsOfOneLabel(t *testing.T) {
	read := scopes.All("read")
	for _, table := range []routes.Table{
		{"GET orders/{id}": read, "orders/": read, "/orders/": read},
		{"GET orders/{id}": read, "GET orders/orders/{id}": read, "/healthz": read},
		{"GET localhost/{id}": read, "/localhost/x": read},
		{"GET orders.example.com/{id}": read, "/orders.example.com/x": read},
	} {
		require.NoError(t, table.Validate())
	}
}

func TestValidateOldMux(t *testing.T) {
	if os.Getenv("GODEBUG") == "httpmuxgo121=1" {
		err := routes.Table{"GET /orders": anyToken, "/": public}.Validate()
		require.ErrorContains(t, err, `Table["GET /orders"]: can never match`)
		return
	}
	again := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestValidateOldMux$")
	again.Env = append(os.Environ(), "GODEBUG=httpmuxgo121=1")
	out, err := again.CombinedOutput()
	require.NoError(t, err, string(out))
}

func BenchmarkRoutesValidate(b *testing.B) {
	table := routes.Table{"GET /healthz": public}
	for i := range 500 {
		table[fmt.Sprintf("GET /v1/r%d/{id}", i)] = anyToken
		table[fmt.Sprintf("POST /v1/r%d", i)] = anyToken
	}
	for b.Loop() {
		if err := table.Validate(); err != nil {
			b.Fatal(err)
		}
	}
}

// What tables and requests are drawn from: few words, so that they meet.
var (
	somePatterns = []string{"a", "b", "{}", "{}", "a%20b"}
	someEnds     = []string{"", "", "/", "/{$}", "/{rest...}"}
	someMethods  = []string{"", "", "GET ", "HEAD ", "POST "}
	someHosts    = []string{"", "", "", "a.example"}
	someSegments = []string{"a", "b", "c", "%61", "a%20b", "", ".", "..", "%2e%2e", "a%2Fb", "a%2f..", "%2E"}
)

func pick[T any](r *rand.Rand, from []T) T { return from[r.IntN(len(from))] }

func drawPattern(r *rand.Rand) string {
	path := ""
	for i := range r.IntN(4) {
		path += "/" + strings.ReplaceAll(pick(r, somePatterns), "{}", fmt.Sprintf("{p%d}", i))
	}
	if end := pick(r, someEnds); path == "" || end != "" {
		path += max(end, "/")
	}
	return pick(r, someMethods) + pick(r, someHosts) + path
}

// drawTable returns patterns that net/http lets stand together, and a mux that answers with the one that it picks.
func drawTable(r *rand.Rand) ([]string, *http.ServeMux) {
	mux := http.NewServeMux()
	var patterns []string
	for range 1 + r.IntN(8) {
		pattern := drawPattern(r)
		func() {
			defer func() { _ = recover() }() // it conflicts: without it, then
			mux.HandleFunc(pattern, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Row", pattern) })
			patterns = append(patterns, pattern)
		}()
	}
	return patterns, mux
}

func drawRequest(r *rand.Rand) *http.Request {
	target := ""
	for range r.IntN(5) {
		target += "/" + pick(r, someSegments)
	}
	if target == "" || r.IntN(3) == 0 {
		target += "/"
	}
	return requestOf(pick(r, []string{"GET", "HEAD", "POST", "PUT", "CONNECT"}), pick(r, []string{"a.example", "a.example:80", "b.example"}), target)
}

func requestOf(method, host, target string) *http.Request {
	u, err := url.Parse("http://" + host + target)
	if err != nil {
		panic(err)
	}
	req := httptest.NewRequest(method, "/", nil)
	req.Host, req.URL = host, &url.URL{Path: u.Path, RawPath: u.RawPath}
	return req
}

// tellsRow refuses with the name of its row.
type tellsRow string

func (row tellsRow) Check(valetkey.Access) error {
	return &valetkey.Error{Code: valetkey.InsufficientScope, Reason: valetkey.ReasonScope, Err: errors.New(string(row))}
}

// FuzzTable holds a table against a plain ServeMux with the same patterns: the row that decides is the one that would serve,
// a redirect leads to where it would, and what reaches the router has one reading.
func FuzzTable(f *testing.F) {
	for seed := range uint64(300) {
		f.Add(seed)
	}
	iss := valetkeytest.NewIssuer(f)
	guard := newGuard(f, iss, func(c *middleware.Config) {
		c.ErrorBody = func(_ context.Context, _ int, e *valetkey.Error) (string, []byte) {
			return "text/plain", []byte(fmt.Sprint(e.Err))
		}
	})
	bearer := "Bearer " + iss.Token(valetkeytest.ExpiresIn(24*time.Hour)) // longer than a run
	f.Fuzz(func(t *testing.T, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 1))
		patterns, mux := drawTable(r)
		table := routes.Table{}
		for _, p := range patterns {
			table[p] = tellsRow(p)
		}
		var reached *http.Request
		api, err := table.Guard(guard, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { reached = r }))
		if err != nil {
			require.ErrorContains(t, err, "can never match")
			return
		}
		for range 30 {
			req := drawRequest(r)
			req.Header.Set("Authorization", bearer)
			plain, got := httptest.NewRecorder(), httptest.NewRecorder()
			mux.ServeHTTP(plain, req.Clone(req.Context()))
			api.ServeHTTP(got, req)
			what := fmt.Sprintf("%s %s%s by %q", req.Method, req.Host, req.URL.EscapedPath(), patterns)
			decoded := req.URL.Path
			twoReadings := strings.Count(decoded, "/") != strings.Count(req.URL.EscapedPath(), "/") ||
				slices.ContainsFunc(strings.Split(strings.Trim(decoded, "/"), "/"), func(s string) bool { return s == ".." || s == "." || s == "" && decoded != "/" }) ||
				strings.Contains(decoded, "//")
			switch row := plain.Header().Get("Row"); {
			case row != "" && !twoReadings:
				require.Equal(t, http.StatusForbidden, got.Code, what)
				require.Equal(t, row, got.Body.String(), what)
			case plain.Code == http.StatusTemporaryRedirect:
				require.Equal(t, plain.Header().Get("Location"), got.Header().Get("Location"), what)
			case twoReadings && got.Code != http.StatusTemporaryRedirect:
				require.Equal(t, http.StatusBadRequest, got.Code, what)
			case got.Code != http.StatusTemporaryRedirect:
				require.Equal(t, http.StatusForbidden, got.Code, what)
				require.NotContains(t, patterns, got.Body.String(), what)
			}
			require.Nil(t, reached, what)
		}
	})
}

// FuzzRoutesValidate holds what is said of tables against all small requests: a row is called unreachable if and only if
// none of them reaches it, and no open row of a table without mistakes serves a neighbour of a guarded one that it covers.
func FuzzRoutesValidate(f *testing.F) {
	for seed := range uint64(400) {
		f.Add(seed)
	}
	var targets []string
	level := []string{""}
	for range 5 {
		var next []string
		for _, path := range level {
			targets = append(targets, path+"/")
			for _, s := range []string{"a", "c"} {
				targets = append(targets, path+"/"+s)
				next = append(next, path+"/"+s)
			}
		}
		level = next
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 2))
		patterns, mux := drawTable(r)
		table := routes.Table{}
		for _, p := range patterns {
			table[p] = pick(r, []valetkey.Requirement{anyToken, public, optional, anyToken})
		}
		reached := map[string]bool{}
		rowOf := func(method, host, target string) string {
			w := httptest.NewRecorder()
			mux.ServeHTTP(w, requestOf(method, host, target))
			return w.Header().Get("Row")
		}
		var served [][4]string // method, host, target, row
		for _, method := range []string{"GET", "HEAD", "POST", "PUT"} {
			for _, host := range []string{"a.example", "b.example"} {
				for _, target := range targets {
					if row := rowOf(method, host, target); row != "" {
						reached[row] = true
						served = append(served, [4]string{method, host, target, row})
					}
				}
			}
		}
		err := table.Validate()
		for _, p := range patterns {
			if strings.Contains(p, "b") { // not among the targets
				continue
			}
			says := err != nil && strings.Contains(err.Error(), fmt.Sprintf("Routes[%q]: can never match", p))
			require.Equal(t, !reached[p], says, "%q of %q: %v", p, patterns, err)
		}
		if err != nil {
			return
		}
		for _, s := range served {
			method, host, target, row := s[0], s[1], s[2], s[3]
			if table[row] != anyToken {
				continue
			}
			for _, n := range [][3]string{
				{method, host, target + "/c"}, {method, host, target + "/"}, {method, host, strings.TrimSuffix(target, "/")},
			} {
				if strings.Contains(n[2], "//") || n[2] == "" {
					continue
				}
				wide := rowOf(n[0], n[1], n[2])
				if wide == "" || table[wide] == anyToken {
					continue
				}
				require.False(t, covers(wide, row, targets), "%q is open to %v, which is near %v of %q", wide, n, s, row)
			}
		}
	})
}

// covers reports whether, of the small requests, wide alone serves all that narrow alone serves.
func covers(wide, narrow string, targets []string) bool {
	muxOf := func(pattern string) *http.ServeMux {
		mux := http.NewServeMux()
		mux.HandleFunc(pattern, func(http.ResponseWriter, *http.Request) {})
		return mux
	}
	w, n := muxOf(wide), muxOf(narrow)
	serves := func(mux *http.ServeMux, method, host, target string) bool {
		rec := httptest.NewRecorder()
		mux.ServeHTTP(rec, requestOf(method, host, target))
		return rec.Code == http.StatusOK
	}
	for _, method := range []string{"GET", "HEAD", "POST", "PUT"} {
		for _, host := range []string{"a.example", "b.example"} {
			for _, target := range targets {
				if serves(n, method, host, target) && !serves(w, method, host, target) {
					return false
				}
			}
		}
	}
	return true
}

// opened is a requirement of an application that lets requests without credentials through.
type opened struct{}

func (opened) Check(valetkey.Access) error { return nil }

func (opened) Describe() valetkey.Needs { return valetkey.Needs{Open: true} }

func (opened) String() string { return "open" }
