// Package valetchi contains no code: chi accepts the guard's middleware as it is, so a wrapper would only add a name to learn.
//
//	r.With(guard.Require(scopes.All("orders:read"))).Get("/orders", listOrders)
//
//	r.Route("/admin", func(r chi.Router) {
//		r.Use(guard.Require(scopes.All("admin")))
//		...
//	})
//
//	r.With(guard.Require(valetkey.Optional)).Get("/catalogue", listItems)
//
// Handlers read the token with valetkey.FromContext(r.Context()). The tests of this package prove that the middleware works in
// chi. It works the same way in every router that accepts func(http.Handler) http.Handler.
package valetchi
