package authserver

// Demo returns a configuration to look at and to try: one API, a client that may read its orders, one that may also write
// them, and the API itself, which may introspect. Its secrets are known to everybody, so its issuer is on loopback.
func Demo() Config {
	const orders = "http://127.0.0.1:8080"
	return Config{
		Issuer: "http://127.0.0.1:8888",
		APIs: []API{{
			Audience: orders,
			Name:     "Orders",
			Scopes: map[string]string{
				"orders:read":  "See your orders",
				"orders:write": "Place and change orders for you",
			},
		}},
		Clients: []Client{
			{ID: "orders-reader", Secret: "demo-secret-of-orders-reader", Scopes: []string{"orders:read"}},
			{ID: "orders-writer", Secret: "demo-secret-of-orders-writer", Scopes: []string{"orders:read", "orders:write"}},
			{ID: "orders-api", Secret: "demo-secret-of-orders-api", Introspects: []string{orders}},
		},
	}
}
