// Package adaptertest tests adapters that guard the routes of a framework. It compares an adapter with net/http:
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

// Adapter describes the adapter under test: how a framework serves guarded routes.
type Adapter struct {
	// Serve starts a server of the framework on loopback with the given routes, and returns its base URL. The server must
	// stop when t ends. The framework's recovery from panics, which responds with 500, must wrap all routes. Required.
	Serve func(t testing.TB, routes []Route) (url string)

	// ServeTLS does the same as Serve over TLS with the given configuration, for tokens that are bound to a certificate. Nil:
	// such tokens are not tested.
	ServeTLS func(t testing.TB, routes []Route, config *tls.Config) (url string)

	// PathParameter returns a parameter of the given name as the framework writes it in the path of a route, such as
	// ":tenant" for "tenant". Nil: "{tenant}", as in net/http.
	PathParameter func(name string) string

	// NoUpgrade skips the test of a handler that takes over its connection, as a WebSocket does, for a framework that does
	// not support that.
	NoUpgrade bool

	// NoHangUp skips the test that the context of a request ends when its client disconnects, for a framework that does not
	// support that.
	NoHangUp bool

	// NoCancel skips the test that the context of a request ends with its token, for a gateway, which asks only once.
	NoCancel bool

	// NoForwarded is for a gateway whose own reports replace the headers of other proxies: the URL of proofs is that of
	// middleware.Resource, and no header has a certificate.
	NoForwarded bool

	// Unable lists checks that do not apply, by name, each with the reason. It is for gateways that ask a guard before they pass on
	// a request: they cannot carry everything that a framework in the process of the guard can. A name that is not a check, and a
	// listed check that would succeed, are faults.
	Unable map[string]string

	// OneChallenge compares the lines of WWW-Authenticate as one, for gateways that join them (RFC 9110, section 11.6.1).
	OneChallenge bool

	// StatusAndChallenge compares the status and the challenges of each response, and the body of one with status 200, but nothing
	// else: it is for reverse proxies, which write other headers and pages. It includes OneChallenge.
	StatusAndChallenge bool
}

// Route is one route of the server under test, for every method.
type Route struct {
	Path  string // the whole path, with at most one parameter, spelled by PathParameter
	Guard *middleware.Guard

	// Outer is another guard, in front of Guard: the adapter's Require for it, without needs, wraps the route. Nil: none.
	Outer *middleware.Guard

	// Require holds one element for each of the adapter's Require that wrap the route, outermost first: its needs.
	Require [][]valetkey.Requirement

	// Handler must receive the request with the context that a handler of the framework would see.
	Handler http.Handler
}

// Test checks that an adapter responds as the guard does under net/http. It sends the same requests, valid and invalid, to
// both, and compares the responses byte by byte, except for the order of header lines and for Date. A refused request must
// not reach the handler. An accepted request must reach it exactly once, with its token in the context. The adapter must pass
// through panics, streams, upgrades and the end of the context.
func Test(t *testing.T, a Adapter) {
	for _, c := range adapterChecks(t, a) {
		t.Run(c.name, func(t *testing.T) {
			if err := c.run(); err != nil {
				t.Error(err)
			}
		})
	}
}

// Check does the same as [Test] and returns an error that lists every fault of the adapter. Use it to show that a broken
// adapter is detected.
func Check(t testing.TB, a Adapter) error {
	var faults []error
	for _, c := range adapterChecks(t, a) {
		if err := c.run(); err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", c.name, err))
		}
	}
	return errors.Join(faults...)
}
