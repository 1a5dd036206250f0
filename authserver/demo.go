package authserver

// Demo returns a configuration to explore: one API; a browser application with a back end, and an application on the user's
// device; a client that may read orders for itself, one that may also write them, and the API itself, which may introspect; the
// users alice and bob; a developer portal; and open registration. Its secrets are public, so its issuer is on loopback.
func Demo() Config {
	const orders = "http://127.0.0.1:8080"
	both := []string{"orders:read", "orders:write"}
	return Config{
		Issuer: "http://127.0.0.1:8888",
		APIs: []API{{
			Audience: orders,
			Name:     "Orders",
			Scopes: []Scope{
				{Name: "orders:read", Description: "See your orders", Descriptions: map[string]string{"de": "Ihre Bestellungen sehen"}},
				{Name: "orders:write", Description: "Place and change orders for you",
					Descriptions: map[string]string{"de": "Bestellungen für Sie aufgeben und ändern"}},
			},
			TryURL: orders + "/orders",
		}},
		Clients: []Client{
			{ID: "orders-reader", Secret: "demo-secret-of-orders-reader", Scopes: []string{"orders:read"}},
			{ID: "orders-writer", Secret: "demo-secret-of-orders-writer", Scopes: both},
			{ID: "orders-api", Secret: "demo-secret-of-orders-api", Introspects: []string{orders}},
			{ID: "orders-web", Secret: "demo-secret-of-orders-web", Name: "Orders in the browser", Scopes: both,
				RedirectURIs: []string{"http://localhost:8080/callback"}},
			{ID: "orders-app", AuthMethod: "none", Name: "Orders on your device", Native: true, Scopes: both,
				RedirectURIs: []string{"http://127.0.0.1/callback"},
				GrantTypes:   []string{"authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:device_code"}},
		},
		Users: []User{
			{Name: "alice", Password: "demo-alice", Display: "Alice"},
			{Name: "bob", Password: "demo-bobby", Display: "Bob", Scopes: []string{"orders:read"}},
		},
		Portal:       Portal{Developers: []string{"customer"}, Services: []string{"customer"}},
		Registration: Registration{Open: true},
	}
}
