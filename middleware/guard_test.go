package middleware_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/scopes"
	"github.com/valetkey/valetkey/valetkeytest"
)

func TestConfigMistakes(t *testing.T) {
	_, err := middleware.New(middleware.Config{
		Realm:    "the \"api\"",
		ErrorURI: "https://docs.example.com/a b",
		Methods:  []middleware.BearerMethod{middleware.Form(0), {}},
		Cache:    middleware.Cache{Bytes: -1, MaxAge: -1},

		Revocations: middleware.Revocations{Bytes: -1, Keep: -1},
	})
	for _, want := range []string{
		"middleware: Issuer, Audience: required, or Verifier",
		"middleware: Realm: ",
		"middleware: ErrorURI: ",
		"middleware: Methods[1]: ",
		"middleware: Cache.Bytes: ",
		"middleware: Cache.MaxAge: ",
		"middleware: Revocations.Bytes: ",
		"middleware: Revocations.Keep: ",
	} {
		assert.ErrorContains(t, err, want)
	}

	for _, c := range []struct{ name, uri string }{
		{"BT-13 an error_uri with a line break", "https://docs.example.com/\r\nX: y"},
		{"BT-13 an error_uri with a quote", `https://docs.example.com/"`},
		{"BT-13 an error_uri that is not a reference", "https://docs.example.com/%zz"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := middleware.New(middleware.Config{Verifier: valetkey.First(), ErrorURI: c.uri})
			assert.ErrorContains(t, err, "ErrorURI")
		})
	}
}

func TestTokens(t *testing.T) {
	iss, other := valetkeytest.NewIssuer(t), valetkeytest.NewIssuer(t)
	api := serve(t, newGuard(t, iss).Handler(hello, scopes.All("orders:read", "orders:export")))
	good := func(more ...valetkeytest.Option) string {
		return iss.Token(append([]valetkeytest.Option{valetkeytest.Scopes("orders:read", "orders:export")}, more...)...)
	}
	for _, c := range []struct {
		name, token string
		status      int
		challenge   string // its error and description
	}{
		{"BT-17, BT-30 expired", good(valetkeytest.Expired()), 401, `error="invalid_token", error_description="the token has expired"`},
		{"BT-17 malformed", "not-a-jwt", 401, `error="invalid_token"`},
		{"BT-17 a bad signature", good(valetkeytest.TamperedSignature()), 401, `error="invalid_token"`},
		{"BT-17 a payload exchanged under a good signature", good(valetkeytest.TamperedPayload()), 401, `error="invalid_token"`},
		{"BT-17, BT-30 another audience", good(valetkeytest.Audience("https://other.example.com")), 401, `error="invalid_token"`},
		{"BT-17 another issuer", other.Token(), 401, `error="invalid_token"`},
		{"BT-17, BT-32 an unknown key", good(valetkeytest.UnknownKey()), 401, `error="invalid_token"`},
		{"an unsigned token", good(valetkeytest.Unsigned()), 401, `error="invalid_token"`},
		{"a token bound to a key that the guard does not check", good(valetkeytest.Claim("cnf", map[string]string{"jkt": strings.Repeat("A", 43)})), 401,
			`error="invalid_token", error_description="the token is bound to a key that this request does not prove"`},
		{"a token with an unknown binding", good(valetkeytest.Claim("cnf", map[string]string{"new": "x"})), 401, `error="invalid_token"`},
		{"BT-18, BT-19, BT-20, BT-30 a scope is missing: all that are needed are named", iss.Token(valetkeytest.Scopes("orders:read")), 403,
			`Bearer realm="api", error="insufficient_scope", error_description="the token lacks a scope that this request needs", scope="orders:export orders:read"`},
		{"enough", good(), 200, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := do(t, "GET", api, "Bearer "+c.token)
			assert.Equal(t, c.status, got.status, got.body)
			assert.Contains(t, got.challenge(), c.challenge)
			assert.NotContains(t, got.challenge()+got.body, c.token)
		})
	}
}

func TestForgeries(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	api := serve(t, newGuard(t, iss).Handler(hello))
	for name, token := range iss.Forgeries() {
		t.Run(name, func(t *testing.T) {
			assert.Contains(t, []int{400, 401}, do(t, "GET", api, "Bearer "+token).status)
		})
	}
	assert.Equal(t, 200, do(t, "GET", api, "Bearer "+iss.Token()).status)
}

func TestTroubleIsOurs(t *testing.T) {
	for _, c := range []struct {
		name  string
		fault func(*valetkeytest.Endpoint)
	}{
		{"BT-31 the key set is out of reach", func(e *valetkeytest.Endpoint) { e.Down() }},
		{"BT-31 the key set is broken", func(e *valetkeytest.Endpoint) { e.Garbage() }},
		{"BT-31 the key set answers 500", func(e *valetkeytest.Endpoint) { e.Fail(500) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			iss := valetkeytest.NewIssuer(t)
			c.fault(iss.KeySet)
			got := do(t, "GET", serve(t, newGuard(t, iss).Handler(hello)), "Bearer "+iss.Token())
			assert.Equal(t, 503, got.status)
			assert.NotEmpty(t, got.header.Get("Retry-After"))
			assert.Empty(t, got.challenge())
			assert.Equal(t, "Service Unavailable\n", got.body)
		})
	}
	t.Run("BT-32 a forged token does not make a 503 while keys are held", func(t *testing.T) {
		iss := valetkeytest.NewIssuer(t)
		api := serve(t, newGuard(t, iss).Handler(hello))
		require.Equal(t, 200, do(t, "GET", api, "Bearer "+iss.Token()).status)
		iss.KeySet.Down()
		assert.Equal(t, 401, do(t, "GET", api, "Bearer "+iss.Token(valetkeytest.UnknownKey())).status)
		assert.Equal(t, 200, do(t, "GET", api, "Bearer "+iss.Token()).status)
	})
	t.Run("a verifier's own Retry-After", func(t *testing.T) {
		busy := valetkey.VerifierFunc(func(context.Context, string) (*valetkey.Token, error) {
			return nil, &valetkey.Unavailable{RetryAfter: 1500 * time.Millisecond, Err: errors.New("busy")}
		})
		got := do(t, "GET", serve(t, guardWith(t, busy).Handler(hello)), "Bearer x")
		assert.Equal(t, 503, got.status)
		assert.Equal(t, "2", got.header.Get("Retry-After"))
	})
	t.Run("a verifier that returns nothing denies every request", func(t *testing.T) {
		silent := valetkey.VerifierFunc(func(context.Context, string) (*valetkey.Token, error) { return nil, nil })
		assert.Equal(t, 503, do(t, "GET", serve(t, guardWith(t, silent).Handler(hello)), "Bearer x").status)
	})
	t.Run("a nil requirement denies every request", func(t *testing.T) {
		iss := valetkeytest.NewIssuer(t)
		api := serve(t, newGuard(t, iss).Handler(hello, scopes.All("a"), nil))
		assert.Equal(t, 503, do(t, "GET", api, "Bearer "+iss.Token(valetkeytest.Scopes("a"))).status)
		assert.Equal(t, 401, do(t, "GET", api, "").status)
	})
}

func TestRequirements(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	guard := newGuard(t, iss)
	token := func(scope ...string) string {
		return "Bearer " + iss.Token(valetkeytest.Scopes(scope...), valetkeytest.Subject("alice"))
	}
	fresh := requirement(func(*valetkey.Token) error {
		return &valetkey.Error{Code: "insufficient_user_authentication", Reason: valetkey.NewReason("test_log_in_again", "log in again")}
	})
	broken := requirement(func(*valetkey.Token) error { return errors.New("a table is out of reach") })
	known := requirement(func(token *valetkey.Token) error {
		if token.Subject() == "alice" {
			return nil
		}
		return &valetkey.Error{Code: valetkey.InvalidToken, Reason: valetkey.NewReason("test_the_subject_is_not_known_here", "the subject is not known here")}
	})
	for _, c := range []struct {
		name          string
		needs         []valetkey.Requirement
		authorization string
		status        int
		challenge     string
	}{
		{"the zero requirement refuses", []valetkey.Requirement{scopes.Requirement{}}, token("a"), 403, `error="insufficient_scope"`},
		{"an invalid openness", []valetkey.Requirement{valetkey.Openness("any")}, token("a"), 503, ""},
		{"the zero openness", []valetkey.Requirement{valetkey.Openness("")}, token("a"), 503, ""},
		{"BT-20 all requirements' scopes are named at once", []valetkey.Requirement{scopes.Any("a", "admin"), scopes.All("b")}, token("admin"), 403, `scope="a b"`},
		{"a refusal of another kind is passed on unchanged", []valetkey.Requirement{fresh, scopes.All("b")}, token("a"), 401, `error="insufficient_user_authentication"`},
		{"a requirement that cannot be decided is our fault", []valetkey.Requirement{broken}, token("a"), 503, ""},
		{"JWT-30 a subject that the application does not know", []valetkey.Requirement{known}, "Bearer " + iss.Token(valetkeytest.Subject("bob")), 401, `error_description="the subject is not known here"`},
		{"JWT-30 a subject that it knows", []valetkey.Requirement{known}, token(), 200, ""},
		{"no requirement: any good token", nil, token(), 200, ""},
		{"all are met", []valetkey.Requirement{scopes.All("a"), scopes.All("b")}, token("a", "b"), 200, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := do(t, "GET", serve(t, guard.Require(c.needs...)(hello)), c.authorization)
			assert.Equal(t, c.status, got.status, got.body)
			assert.Contains(t, got.challenge(), c.challenge)
		})
	}
	t.Run("an invalid scope stays out of the challenge", func(t *testing.T) {
		odd := requirement(func(*valetkey.Token) error {
			return &valetkey.Error{Code: valetkey.InsufficientScope, Scope: valetkey.NewScopes(`a" x="`, "b")}
		})
		got := do(t, "GET", serve(t, guard.Handler(hello, odd)), token())
		assert.Equal(t, `Bearer realm="api", error="insufficient_scope", scope="b"`, got.challenge())
	})
	t.Run("the needs are the guard's own", func(t *testing.T) {
		needs := []valetkey.Requirement{scopes.All("a")}
		api := serve(t, guard.Handler(hello, needs...))
		needs[0] = scopes.All("b")
		assert.Equal(t, 200, do(t, "GET", api, token("a")).status)
	})
}

type requirement func(*valetkey.Token) error

func (f requirement) Check(a valetkey.Access) error { return f(a.Token) }

func TestRouting(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	guard := newGuard(t, iss)
	mux := http.NewServeMux()
	mux.Handle("GET /orders", guard.Handler(hello, scopes.All("orders:read")))
	mux.Handle("/admin/", guard.Handler(hello, scopes.All("admin")))
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "public") })
	api := serve(t, mux)
	reader := "Bearer " + iss.Token(valetkeytest.Scopes("orders:read"))
	for _, c := range []struct {
		name, method, path, authorization string
		status                            int
	}{
		{"HTTP-01 doubled slashes", "GET", "//admin/x", reader, 307},
		{"HTTP-01 dot segments", "GET", "/a/../admin/x", reader, 307},
		{"HTTP-01 an encoded letter", "GET", "/%61dmin/x", reader, 403},
		{"HTTP-01 encoded dots, which the router leaves alone: the public handler's, not the guarded one's", "GET", "/a/%2e%2e/admin/x", reader, 200},
		{"BT-29 HEAD without a token", "HEAD", "/orders", "", 401},
		{"BT-29 HEAD with a token that lacks the scope", "HEAD", "/orders", "Bearer " + iss.Token(), 403},
		{"BT-29 HEAD", "HEAD", "/orders", reader, 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := do(t, c.method, api+c.path, c.authorization)
			assert.Equal(t, c.status, got.status)
			if c.status == 200 && c.method == "GET" {
				assert.Equal(t, "public", got.body)
			}
			if c.status == 307 { // to where the rule holds
				assert.Equal(t, 403, do(t, c.method, api+got.header.Get("Location"), c.authorization).status)
			}
		})
	}
}

// cors answers preflights as a CORS middleware does.
var cors = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Access-Control-Allow-Origin", r.Header.Get("Origin"))
	w.Header().Set("Access-Control-Allow-Headers", "Authorization")
	w.WriteHeader(http.StatusNoContent)
})

func TestPreflight(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	// Most handlers read the token without a look at whether there is one.
	trusting := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "hello "+valetkey.FromContext(r.Context()).Subject())
	})
	strict := serve(t, newGuard(t, iss).Handler(trusting))
	answering := newGuard(t, iss, func(c *middleware.Config) { c.Preflight = cors })
	answers := serve(t, answering.Handler(trusting, scopes.All("a")))
	optional := serve(t, answering.Handler(trusting, valetkey.Optional))
	origin, method := header("Origin", "https://app.example.com"), header("Access-Control-Request-Method", "PUT")
	for _, c := range []struct {
		name, method, url string
		change            []func(*http.Request)
		status            int
	}{
		{"BT-28 by default a preflight needs a token as any request", "OPTIONS", strict, []func(*http.Request){origin, method}, 401},
		{"BT-28 a plain OPTIONS needs a token", "OPTIONS", answers, nil, 401},
		{"BT-28 OPTIONS without the method asked for", "OPTIONS", answers, []func(*http.Request){origin}, 401},
		{"BT-28 OPTIONS without an origin", "OPTIONS", answers, []func(*http.Request){method}, 401},
		{"BT-28 a GET in a preflight's clothes", "GET", answers, []func(*http.Request){origin, method}, 401},
		{"BT-28 a preflight is answered without the handler", "OPTIONS", answers, []func(*http.Request){origin, method}, 204},
		{"BT-28 a preflight is answered without the handler where a token is optional", "OPTIONS", optional, []func(*http.Request){origin, method}, 204},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := do(t, c.method, c.url, "", c.change...)
			assert.Equal(t, c.status, got.status)
			assert.Equal(t, c.status == 204, got.header.Get("Access-Control-Allow-Origin") == "https://app.example.com")
			assert.NotContains(t, got.body, "hello")
		})
	}
}

func TestOptional(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	api := serve(t, newGuard(t, iss).Handler(hello, valetkey.Optional))
	for _, c := range []struct {
		name, authorization, body string
		status                    int
	}{
		{"HTTP-06 a bad token is not treated as none", "Bearer " + iss.Token(valetkeytest.Expired()), "", 401},
		{"HTTP-06 a malformed one neither", "Bearer", "", 400},
		{"HTTP-05 without credentials", "", "hello nobody", 200},
		{"HTTP-05 with another scheme", "Basic eDp5", "hello nobody", 200},
		{"with a good token", "Bearer " + iss.Token(valetkeytest.Subject("alice")), "hello alice", 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := do(t, "GET", api, c.authorization)
			assert.Equal(t, c.status, got.status)
			assert.Contains(t, got.body, c.body)
			assert.Equal(t, "Authorization", got.header.Get("Vary"))
		})
	}
}

func TestChains(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	token := iss.Token(valetkeytest.Scopes("a"))
	verified := 0
	counting := func(v valetkey.Verifier) valetkey.Verifier {
		return valetkey.VerifierFunc(func(ctx context.Context, raw string) (*valetkey.Token, error) {
			verified++
			return v.Verify(ctx, raw)
		})
	}
	good := valetkey.VerifierFunc(func(context.Context, string) (*valetkey.Token, error) {
		return valetkey.NewToken(valetkey.TokenFields{Subject: "alice", Scopes: valetkey.NewScopes("a")}), nil
	})
	outer, inner := guardWith(t, counting(good)), guardWith(t, counting(good))
	request := func() *http.Request {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Authorization", "Bearer "+token)
		return r
	}
	status := func(h http.Handler, r *http.Request) int {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Code
	}

	t.Run("a second guard looks for itself", func(t *testing.T) {
		verified = 0
		assert.Equal(t, 200, status(outer.Handler(inner.Handler(hello)), request()))
		assert.Equal(t, 2, verified)
		assert.Equal(t, 401, status(outer.Handler(guardWith(t, valetkey.First()).Handler(hello)), request()))
	})
	t.Run("the same guard verifies once and decides again", func(t *testing.T) {
		verified = 0
		assert.Equal(t, 200, status(outer.Handler(outer.Handler(hello, scopes.All("a"))), request()))
		assert.Equal(t, 403, status(outer.Handler(outer.Handler(hello, scopes.All("b"))), request()))
		assert.Equal(t, 2, verified)
	})
	t.Run("the same guard verifies once with another in between", func(t *testing.T) {
		verified = 0
		assert.Equal(t, 200, status(outer.Handler(inner.Handler(outer.Handler(hello))), request()))
		assert.Equal(t, 2, verified)
	})
	// A token in the query reaches the outer guard alone.
	subject := func(name string) valetkey.Verifier {
		return valetkey.VerifierFunc(func(context.Context, string) (*valetkey.Token, error) {
			return valetkey.NewToken(valetkey.TokenFields{Subject: name}), nil
		})
	}
	byQuery := guardWith(t, subject("of the query"), func(c *middleware.Config) { c.Methods = []middleware.BearerMethod{middleware.Query()} })
	byHeader := guardWith(t, subject("of the header"))
	answer := func(h http.Handler, r *http.Request) string {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Body.String()
	}
	inQuery := httptest.NewRequest("GET", "/?access_token=x", nil)
	t.Run("an optional token is none without credentials for the inner guard", func(t *testing.T) {
		assert.Equal(t, "hello nobody", answer(byQuery.Handler(byHeader.Handler(hello, valetkey.Optional)), inQuery))
		assert.Equal(t, "hello of the header", answer(byQuery.Handler(byHeader.Handler(hello, valetkey.Optional)), request()))
	})
	t.Run("a handler sees the token of the innermost guard", func(t *testing.T) {
		assert.Equal(t, "hello of the query", answer(byQuery.Handler(byHeader.Handler(byQuery.Handler(hello), valetkey.Optional)), inQuery))
		assert.Equal(t, "hello of the query", answer(byQuery.Handler(byHeader.Handler(byQuery.Handler(hello))), request()))
	})
	t.Run("a token that a handler put into the context opens nothing", func(t *testing.T) {
		r := httptest.NewRequest("GET", "/", nil)
		r = r.WithContext(valetkey.NewContext(r.Context(), valetkey.NewToken(valetkey.TokenFields{Subject: "mallory", Scopes: valetkey.NewScopes("a")})))
		assert.Equal(t, 401, status(outer.Handler(hello, scopes.All("a")), r))
	})
	t.Run("the request that the caller holds stays as it was", func(t *testing.T) {
		r := request()
		carries, ok := outer.Decide(r).Apply(httptest.NewRecorder(), r)
		require.True(t, ok)
		assert.Nil(t, valetkey.FromContext(r.Context()))
		assert.Equal(t, "alice", valetkey.FromContext(carries.Context()).Subject())
	})
}

func TestMemory(t *testing.T) {
	t.Run("VCACHE-10 the route decides on every request, remembered token or not", func(t *testing.T) {
		iss := valetkeytest.NewIssuer(t)
		guard := newGuard(t, iss)
		mux := http.NewServeMux()
		mux.Handle("/a", guard.Handler(hello, scopes.All("a")))
		mux.Handle("/b", guard.Handler(hello, scopes.All("b")))
		api, token := serve(t, mux), "Bearer "+iss.Token(valetkeytest.Scopes("a"))
		for range 3 {
			assert.Equal(t, 200, do(t, "GET", api+"/a", token).status)
			assert.Equal(t, 403, do(t, "GET", api+"/b", token).status)
		}
	})
	t.Run("VCACHE-01, JWT-06 a remembered token expires", func(t *testing.T) {
		iss := valetkeytest.NewIssuer(t)
		api := serve(t, newGuard(t, iss).Handler(hello))
		token := "Bearer " + iss.Token(valetkeytest.ExpiresIn(time.Minute))
		require.Equal(t, 200, do(t, "GET", api, token).status)
		iss.Advance(2 * time.Minute)
		assert.Contains(t, do(t, "GET", api, token).challenge(), "the token has expired")
	})
	t.Run("VCACHE-05 two guards do not share what they remember", func(t *testing.T) {
		iss := valetkeytest.NewIssuer(t)
		token := "Bearer " + iss.Token()
		require.Equal(t, 200, do(t, "GET", serve(t, newGuard(t, iss).Handler(hello)), token).status)
		assert.Equal(t, 401, do(t, "GET", serve(t, newGuard(t, valetkeytest.NewIssuer(t)).Handler(hello)), token).status)
	})
	t.Run("VCACHE-07 a purge takes effect at once", func(t *testing.T) {
		revoked := false
		guard := guardWith(t, valetkey.VerifierFunc(func(context.Context, string) (*valetkey.Token, error) {
			if revoked {
				return nil, &valetkey.Error{Code: valetkey.InvalidToken, Reason: valetkey.NewReason("test_revoked", "revoked")}
			}
			return valetkey.NewToken(valetkey.TokenFields{Subject: "alice", ID: "1", Freshness: valetkey.Freshness{Until: time.Now().Add(time.Hour)}}), nil
		}))
		api := serve(t, guard.Handler(hello))
		require.Equal(t, 200, do(t, "GET", api, "Bearer x").status)
		revoked = true
		require.Equal(t, 200, do(t, "GET", api, "Bearer x").status, "it is remembered")
		assert.Equal(t, 0, guard.Purge(func(t *valetkey.Token) bool { return t.ID() == "2" }))
		require.Equal(t, 200, do(t, "GET", api, "Bearer x").status)
		assert.Equal(t, 1, guard.Purge(func(t *valetkey.Token) bool { return t.ID() == "1" }))
		assert.Equal(t, 401, do(t, "GET", api, "Bearer x").status)
	})
	t.Run("VCACHE-13 a handler that scribbles on its token spoils no other request", func(t *testing.T) {
		iss := valetkeytest.NewIssuer(t)
		guard := newGuard(t, iss)
		api := serve(t, guard.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			token := valetkey.FromContext(r.Context())
			io.WriteString(w, token.Subject()+" "+token.Scopes().String()+" "+token.Audience().At(0)+" "+token.Raw())
			token.Scopes().Slice()[0], token.Audience().Slice()[0] = "admin", "x"
			copy([]byte(token.Raw()), bytes.Repeat([]byte("x"), len(token.Raw())))
		})))
		token := "Bearer " + iss.Token(valetkeytest.Scopes("a"))
		first := do(t, "GET", api, token)
		require.Equal(t, 200, first.status)
		assert.Equal(t, first.body, do(t, "GET", api, token).body)
	})
	t.Run("VCACHE-06, JWKS-22 a remembered token dies with its key", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			iss := valetkeytest.NewIssuer(t, valetkeytest.InMemory())
			guard := newGuard(t, iss)
			old := iss.KeyID()
			token := "Bearer " + iss.Token(valetkeytest.ExpiresIn(24*time.Hour))
			status := func() int {
				w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil)
				r.Header.Set("Authorization", token)
				guard.Handler(hello).ServeHTTP(w, r)
				return w.Code
			}
			require.Equal(t, 200, status())
			iss.Rotate()
			time.Sleep(15 * time.Minute) // past the next refresh
			require.Equal(t, 200, status(), "the old key is still published")
			iss.Withdraw(old)
			time.Sleep(15 * time.Minute)
			assert.Equal(t, 401, status())
		})
	})
}

func TestHandlers(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	guard := newGuard(t, iss)
	token := "Bearer " + iss.Token()

	t.Run("HTTP-04 a handler's panic is its own", func(t *testing.T) {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Authorization", token)
		w := httptest.NewRecorder()
		assert.PanicsWithValue(t, "boom", func() {
			guard.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("boom") })).ServeHTTP(w, r)
		})
		assert.Nil(t, valetkey.FromContext(r.Context()))
		assert.Empty(t, w.Body.String())
	})
	t.Run("HTTP-07 the decision comes before the handler", func(t *testing.T) {
		called := false
		api := serve(t, guard.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { called = true }), scopes.All("x")))
		assert.Equal(t, 403, do(t, "GET", api, token).status)
		assert.False(t, called)
	})
	t.Run("streams and upgrades pass", func(t *testing.T) {
		api := serve(t, guard.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.(http.Flusher).Flush()
			conn, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				io.WriteString(conn, "hijacked\n")
				conn.Close()
			}
		})))
		conn, err := net.Dial("tcp", strings.TrimPrefix(api, "http://"))
		require.NoError(t, err)
		defer conn.Close()
		io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\nAuthorization: "+token+"\r\n\r\n")
		text, err := io.ReadAll(bufio.NewReader(conn))
		require.NoError(t, err)
		assert.True(t, strings.HasSuffix(string(text), "hijacked\n"), string(text))
	})
}

func TestLog(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	var log lockedBuffer
	loud := func(c *middleware.Config) {
		c.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		c.Methods = []middleware.BearerMethod{middleware.Form(0), middleware.Query()}
	}
	api := serve(t, newGuard(t, iss, loud).Handler(hello, scopes.All("x")))
	tokens := map[string]string{
		"too little": iss.Token(),
		"expired":    iss.Token(valetkeytest.Expired()),
		"tampered":   iss.Token(valetkeytest.TamperedSignature()),
		"unknown":    iss.Token(valetkeytest.UnknownKey()),
		"malformed":  strings.Repeat("opaque", 20) + "%",
		"opaque":     strings.Repeat("opaque", 20),
	}
	for name, token := range tokens {
		t.Run("BT-27 no part of a token in a log or an answer: "+name, func(t *testing.T) {
			for _, got := range []answer{
				do(t, "GET", api, "Bearer "+token),
				do(t, "GET", api+"?access_token="+token, ""),
				do(t, "POST", api, "", body(form, "access_token="+token)),
			} {
				require.GreaterOrEqual(t, got.status, 400)
				for part := range strings.SplitSeq(token, ".") {
					if len(part) > 8 {
						assert.NotContains(t, got.body+got.challenge(), part)
						assert.NotContains(t, log.String(), part)
					}
				}
			}
		})
	}
	t.Run("HTTP-12 the log has the reason", func(t *testing.T) {
		assert.Contains(t, log.String(), "the token has expired")
		assert.Contains(t, log.String(), "status=401")
		assert.Contains(t, log.String(), "level=DEBUG")
		assert.NotContains(t, log.String(), "level=ERROR")
	})
	t.Run("a failure is logged as an error, unless the client has left", func(t *testing.T) {
		log.Reset()
		failing := guardWith(t, valetkey.VerifierFunc(func(context.Context, string) (*valetkey.Token, error) { return nil, errors.New("secret detail") }), loud)
		got := do(t, "GET", serve(t, failing.Handler(hello)), "Bearer x")
		assert.NotContains(t, got.body, "secret detail")
		assert.Contains(t, log.String(), "level=ERROR")
		assert.Contains(t, log.String(), "secret detail")

		log.Reset()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		failing.Reject(httptest.NewRequest("GET", "/", nil).WithContext(ctx), context.Canceled)
		assert.NotContains(t, log.String(), "level=ERROR")
	})
}

type lockedBuffer struct {
	sync.Mutex
	bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.Lock()
	defer b.Unlock()
	return b.Buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.Lock()
	defer b.Unlock()
	return b.Buffer.String()
}
