// Package valetkey defines the types that the rest of the module shares: the verified access token ([Token]), the verifier
// ([Verifier]), the requirement of a route ([Requirement]) and the refusal ([Error]).
//
// A resource server guards its handlers with package middleware, which asks a [Verifier] whether an access token is valid and a
// [Requirement] whether it is sufficient:
//
//	keys, err := jwks.New(jwks.Config{Issuer: "https://as.example.com", Audience: []string{"https://api.example.com"}})
//	...
//	guard, err := middleware.New(middleware.Config{Verifier: keys})
//	...
//	mux.Handle("GET /orders", guard.Handler(listOrders, scopes.All("orders:read")))
//
// The handler reads the caller's token with [FromContext].
//
// Package jwks verifies JWT access tokens locally, with the issuer's key set. [First] and [CrossCheck] combine verifiers. Package
// scopes provides requirements. Package valetkeytest is for tests.
//
// # Three kinds of error
//
//   - A refusal, which the client may know, is an [*Error]: 400, 401 or 403.
//   - Any other error of a Verifier or a Requirement is a failure, whose cause only the operator may know. The client gets 503 with
//     Retry-After, see [Unavailable].
//   - A mistake in the configuration is a [ConfigError]. The constructors report all mistakes at once.
//
// This package does no I/O and imports only the standard library.
package valetkey
