package valetkeytest

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"testing"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/middleware"
)

// An Adapter is what [TestAdapter] tests: how a framework serves guarded routes.
type Adapter struct {
	// Serve starts a server of the framework on loopback that has these routes and stops when t ends, and returns its
	// base URL. The framework's own recovery from panics, which answers 500, stands around all routes. Required.
	Serve func(t testing.TB, routes []AdapterRoute) (url string)

	// ServeTLS is Serve over TLS with this configuration, for tokens that are bound to a certificate. Nil: that is not tested.
	ServeTLS func(t testing.TB, routes []AdapterRoute, config *tls.Config) (url string)

	// NoUpgrade says that handlers of the framework cannot take over their connection, as a WebSocket does.
	NoUpgrade bool

	// NoHangUp says that handlers of the framework are not told when their client has gone.
	NoHangUp bool
}

// An AdapterRoute is one route of the server under test, for every method.
type AdapterRoute struct {
	Path  string // the whole path, without parameters
	Guard *middleware.Guard

	// Outer is another guard, in front of Guard: the route stands behind the adapter's Require for it, without needs, first.
	// Nil: there is none.
	Outer *middleware.Guard

	// Require holds the needs of each of the adapter's Require that the route stands behind, the outermost first.
	Require [][]valetkey.Requirement

	// Handler has to get the request with the context that a handler of the framework would see.
	Handler http.Handler
}

// TestAdapter proves that an adapter answers as the guard itself does under net/http. It sends both the same requests,
// good and bad, and compares the answers byte by byte, but for the order of the header lines and Date. A refused
// request must not reach the handler; one that is let through must, once, with its token in the context. Panics,
// streams, upgrades and the end of the context must pass.
func TestAdapter(t *testing.T, a Adapter) {
	for _, c := range adapterChecks(t, a) {
		t.Run(c.name, func(t *testing.T) {
			if err := c.run(); err != nil {
				t.Error(err)
			}
		})
	}
}

// CheckAdapter is [TestAdapter] as a function: the error names all that is wrong with the adapter. It serves to show
// that a broken adapter would be found.
func CheckAdapter(t testing.TB, a Adapter) error {
	var faults []error
	for _, c := range adapterChecks(t, a) {
		if err := c.run(); err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", c.name, err))
		}
	}
	return errors.Join(faults...)
}
