// Package valetkey and the packages below it protect the HTTP handlers of an OAuth 2.0 resource server with access tokens (RFC
// 6750). A guard of package middleware asks a [Verifier] whether a token is valid and a [Requirement] whether it is sufficient for
// the route:
//
//	guard, err := middleware.New(middleware.Config{Issuer: "https://as.example.com", Audience: []string{"https://api.example.com"}})
//	...
//	mux.Handle("GET /orders", guard.Handler(listOrders, scopes.All("orders:read")))
//
// The handler reads the caller's token with [FromContext].
//
// Verifiers are in package jwks (JWTs, locally), introspect (opaque tokens, RFC 7662) and statuslist; [First] and [CrossCheck] combine
// them. Requirements are in packages scopes, rar (RFC 9396) and middleware (step-up, RFC 9470). Package dpop verifies proofs of
// possession (RFC 9449), routes guards a whole router with one table, fapi configures the FAPI 2.0 profile, and valetkeytest is for
// tests. This package defines the types that all of them share.
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
