package valetkeytest_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/valetkey/valetkey/routes"
	"github.com/valetkey/valetkey/scopes"
	"github.com/valetkey/valetkey/valetkeytest"
)

// reports keeps what a test would have failed with.
type reports struct {
	testing.TB
	errors []string
}

func (r *reports) Helper()           {}
func (r *reports) Error(args ...any) { r.errors = append(r.errors, fmt.Sprint(args...)) }

func TestRoutes(t *testing.T) {
	table := routes.Table{"GET /orders": scopes.All("orders:read")}
	for _, c := range []struct {
		name  string
		table routes.Table
		list  []routes.Route
		want  []string
	}{
		{"nothing is listed", table, nil, []string{"no route is registered"}},
		{"HTTP-02 each route without a declaration is named", table,
			[]routes.Route{{Method: "GET", Path: "/orders"}, {Method: "POST", Path: "/orders"}, {Method: "GET", Path: "/orders/:id"}},
			[]string{"POST /orders", "GET /orders/:id"}},
		{"each mistake of the table", routes.Table{"/a": nil, "/b": nil}, []routes.Route{{Method: "GET", Path: "/a"}}, []string{`"/a"`, `"/b"`}},
		{"an empty table", nil, []routes.Route{{Method: "GET", Path: "/a"}}, []string{"is empty"}},
		{"all are declared", table, []routes.Route{{Method: "GET", Path: "/orders"}, {Method: "HEAD", Path: "/orders"}}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got reports
			valetkeytest.Routes(&got, c.table, routes.Gin, c.list...)
			if assert.Len(t, got.errors, len(c.want), strings.Join(got.errors, "\n")) {
				for i, want := range c.want {
					assert.Contains(t, got.errors[i], want)
				}
			}
		})
	}
}
