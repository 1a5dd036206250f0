// Package adaptertest tests adapters that guard the routes of a framework. It holds an adapter against net/http itself:
//
//	func TestAdapter(t *testing.T) {
//		adaptertest.Test(t, adaptertest.Adapter{Serve: serve})
//	}
package adaptertest

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"testing"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/middleware"
)

// An Adapter is what [Test] tests: how a framework serves guarded routes.
type Adapter struct {
	// Serve starts a server of the framework on loopback that has these routes and stops when t ends, and returns its
	// base URL. The framework's own recovery from panics, which answers 500, is around all routes. Required.
	Serve func(t testing.TB, routes []Route) (url string)

	// ServeTLS is Serve over TLS with this configuration, for tokens that are bound to a certificate. Nil: that is not tested.
	ServeTLS func(t testing.TB, routes []Route, config *tls.Config) (url string)

	// PathParameter spells a parameter of this name in the path of a route, such as ":tenant" for "tenant". Nil: "{tenant}", as in
	// net/http.
	PathParameter func(name string) string

	// NoUpgrade says that handlers of the framework cannot take over their connection, as a WebSocket does.
	NoUpgrade bool

	// NoHangUp says that handlers of the framework do not learn when their client has gone.
	NoHangUp bool
}

// A Route is one route of the server under test, for every method.
type Route struct {
	Path  string // the whole path, with at most one parameter, spelled by PathParameter
	Guard *middleware.Guard

	// Outer is another guard, in front of Guard: the route is behind the adapter's Require for it, without needs, first.
	// Nil: there is none.
	Outer *middleware.Guard

	// Require holds the needs of each of the adapter's Require that the route is behind, the outermost first.
	Require [][]valetkey.Requirement

	// Handler has to get the request with the context that a handler of the framework would see.
	Handler http.Handler
}

// Test proves that an adapter answers as the guard itself does under net/http. It sends both the same requests,
// good and bad, and compares the answers byte by byte, but for the order of the header lines and Date. A refused
// request must not reach the handler; one that is let through must, once, with its token in the context. Panics,
// streams, upgrades and the end of the context must pass.
func Test(t *testing.T, a Adapter) {
	for _, c := range adapterChecks(t, a) {
		t.Run(c.name, func(t *testing.T) {
			if err := c.run(); err != nil {
				t.Error(err)
			}
		})
	}
}

// Check is [Test] as a function: the error names all that is wrong with the adapter. It serves to show
// that a broken adapter would be found.
func Check(t testing.TB, a Adapter) error {
	var faults []error
	for _, c := range adapterChecks(t, a) {
		if err := c.run(); err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", c.name, err))
		}
	}
	return errors.Join(faults...)
}
