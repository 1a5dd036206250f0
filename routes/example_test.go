package routes_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/routes"
	"github.com/valetkey/valetkey/scopes"
)

// One table for a whole router, whichever it is.
func ExampleTable_Guard() {
	guard, err := middleware.New(middleware.Config{Verifier: valetkey.First(), Logger: quiet}) // your verifiers
	if err != nil {
		panic(err)
	}
	router := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "served") })
	api, err := routes.Table{
		"GET /healthz":     valetkey.Public,
		"GET /orders":      scopes.All("orders:read"),
		"GET /orders/{id}": scopes.All("orders:read"),
		"/admin/":          scopes.All("admin"),
	}.Guard(guard, router)
	if err != nil {
		panic(err)
	}
	for _, path := range []string{"/healthz", "/orders/7", "/forgotten"} {
		w := httptest.NewRecorder()
		api.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		fmt.Printf("%s %d %q\n", path, w.Code, w.Header().Get("WWW-Authenticate"))
	}
	// Output:
	// /healthz 200 ""
	// /orders/7 401 "Bearer realm=\"api\", scope=\"orders:read\""
	// /forgotten 401 "Bearer realm=\"api\""
}

// Wrong: the second row guards one shape of path, and the first one opens its neighbours.
func ExampleTable_Validate_incorrect() {
	err := routes.Table{
		"/":            valetkey.Public,
		"/admin/{id}":  scopes.All("admin"),
		"/admin/{id}/": valetkey.Public, // meant so, and said so
		"/users/{id}":  scopes.All("admin"),
	}.Validate()
	fmt.Println(err)
	// Output:
	// routes: Table["/users/{id}"]: the wider row "/" is public and serves DELETE /users/x/: add a row that states what this request needs
}
