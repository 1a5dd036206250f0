package valetkeytest

import (
	"errors"
	"testing"

	"github.com/valetkey/valetkey/routes"
)

// Routes fails the test for every registered route that the table does not cover, by name, and for every mistake in the table
// itself. See [routes.Table.Covers].
//
//	var listed []routes.Route
//	for _, r := range engine.Routes() { // a *gin.Engine
//		listed = append(listed, routes.Route{Method: r.Method, Path: r.Path})
//	}
//	valetkeytest.Routes(t, table, routes.Gin, listed...)
//
// An empty list also fails the test, since it would prove nothing.
func Routes(t testing.TB, table routes.Table, d routes.Dialect, registered ...routes.Route) {
	t.Helper()
	if len(registered) == 0 {
		t.Error("no route is registered")
	}
	err := table.Covers(d, registered...)
	if err == nil {
		return
	}
	var all interface{ Unwrap() []error }
	if !errors.As(err, &all) {
		t.Error(err)
		return
	}
	for _, one := range all.Unwrap() {
		t.Error(one)
	}
}
