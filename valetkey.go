// Package valetkey holds the words that the rest of the module shares: what a verified access token is, who
// verifies one, what a route requires of it, and how a request is refused.
//
// A resource server guards its handlers with package middleware, which asks a [Verifier] whether an access token
// is true and a [Requirement] whether it is enough:
//
//	keys, err := jwks.New(jwks.Config{Issuer: "https://as.example.com", Audience: []string{"https://api.example.com"}})
//	...
//	guard, err := middleware.New(middleware.Config{Verifier: keys})
//	...
//	mux.Handle("GET /orders", guard.Handler(listOrders, scopes.All("orders:read")))
//
// and the handler reads who is calling with [FromContext].
//
// Verifiers: package jwks checks JWT access tokens locally, against the issuer's key set. [First] and [CrossCheck]
// combine verifiers. Requirements: package scopes. Tests: package valetkeytest.
//
// # What goes wrong, in three kinds
//
// A refusal, which the client may know, is an [*Error]: 400, 401 or 403. Any other error of a Verifier is a failure,
// which only the operator may know: the client gets 503 and is told when to try again, see [Unavailable]. A mistake
// in the configuration is reported by the constructors, all mistakes at once.
//
// This package does no I/O and imports only the standard library.
package valetkey
