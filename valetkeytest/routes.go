package valetkeytest

import (
	"errors"
	"testing"

	"github.com/valetkey/valetkey/middleware"
)

// Routes fails the test, by name, for every registered route of which the table does not say what it needs, and for every
// mistake in the table itself. See [middleware.Routes.Declares].
//
//	var listed []middleware.Route
//	for _, r := range engine.Routes() { // a *gin.Engine
//		listed = append(listed, middleware.Route{Method: r.Method, Path: r.Path})
//	}
//	valetkeytest.Routes(t, table, middleware.Gin, listed...)
//
// An empty list fails too: a test that looks at nothing proves nothing.
func Routes(t testing.TB, table middleware.Routes, d middleware.Dialect, registered ...middleware.Route) {
	t.Helper()
	if len(registered) == 0 {
		t.Error("no route is registered")
	}
	err := table.Declares(d, registered...)
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
