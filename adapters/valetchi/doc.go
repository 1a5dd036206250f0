// Package valetchi holds no code: chi takes what the guard has, and any name for it here would be one more to learn.
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
// Handlers find the token with valetkey.FromContext(r.Context()). The tests prove that this is so, and the same goes for
// every router that takes func(http.Handler) http.Handler.
package valetchi
