package introspect_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/introspect"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/scopes"
	"github.com/valetkey/valetkey/valetkeytest"
)

// An API that takes opaque tokens.
func Example() {
	// The issuer's endpoint knows one token. Real ones also ask who wants to know.
	endpoint := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.PostFormValue("token") != "2YotnFZFEjr1zCsicMWpAA" {
			fmt.Fprint(w, `{"active": false}`)
			return
		}
		fmt.Fprint(w, `{"active": true, "sub": "alice", "aud": "https://api.example.com", "scope": "orders:read"}`)
	}))
	defer endpoint.Close()

	tokens, err := introspect.New(introspect.Config{
		URL:      endpoint.URL,
		Audience: []string{"https://api.example.com"},
		Auth:     introspect.BasicAuth("orders-api", "a secret"),
	})
	if err != nil {
		panic(err)
	}
	defer tokens.Close()
	guard, err := middleware.New(middleware.Config{Verifier: tokens})
	if err != nil {
		panic(err)
	}
	hello := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Println("hello", valetkey.FromContext(r.Context()).Subject())
	})
	mux := http.NewServeMux()
	mux.Handle("GET /orders", guard.Handler(hello, scopes.All("orders:read")))
	mux.Handle("POST /orders", guard.Handler(hello, scopes.All("orders:write")))

	call := func(method, token string) {
		res := httptest.NewRecorder()
		mux.ServeHTTP(res, valetkeytest.Request(method, "/orders", token))
		fmt.Println(method, res.Code)
	}
	call("GET", "2YotnFZFEjr1zCsicMWpAA")
	call("POST", "2YotnFZFEjr1zCsicMWpAA")
	call("GET", "made-up")
	// Output:
	// hello alice
	// GET 200
	// POST 403
	// GET 401
}

// The metadata of the issuer names the endpoint. New finds every mistake, and fetches nothing.
func ExampleNew() {
	_, err := introspect.New(introspect.Config{
		Issuer: "https://as.example.com",
		Auth:   introspect.BasicAuth("orders-api", os.Getenv("A_SECRET_NOBODY_SET")),
	})
	fmt.Println(err)
	// Output:
	// introspect: Audience: required; an empty list does not mean any
	// introspect: Auth: the client id or the secret is empty
}
