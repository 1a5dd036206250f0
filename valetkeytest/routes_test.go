package valetkeytest_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/valetkey/valetkey/middleware"
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
	table := middleware.Routes{"GET /orders": scopes.All("orders:read")}
	for _, c := range []struct {
		name  string
		table middleware.Routes
		list  []middleware.Route
		want  []string
	}{
		{"nothing is listed", table, nil, []string{"no route is registered"}},
		{"HTTP-02 each route without a declaration is named", table,
			[]middleware.Route{{Method: "GET", Path: "/orders"}, {Method: "POST", Path: "/orders"}, {Method: "GET", Path: "/orders/:id"}},
			[]string{"POST /orders", "GET /orders/:id"}},
		{"each mistake of the table", middleware.Routes{"/a": nil, "/b": nil}, []middleware.Route{{Method: "GET", Path: "/a"}}, []string{`"/a"`, `"/b"`}},
		{"an empty table", nil, []middleware.Route{{Method: "GET", Path: "/a"}}, []string{"is empty"}},
		{"all are declared", table, []middleware.Route{{Method: "GET", Path: "/orders"}, {Method: "HEAD", Path: "/orders"}}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got reports
			valetkeytest.Routes(&got, c.table, middleware.Gin, c.list...)
			if assert.Len(t, got.errors, len(c.want), strings.Join(got.errors, "\n")) {
				for i, want := range c.want {
					assert.Contains(t, got.errors[i], want)
				}
			}
		})
	}
}
