package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/valetkey/valetkey/valetkeytest"
)

// TestOrders asks the consumer that this file is copied to for its orders.
func TestOrders(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	api, err := orders(iss.Verifier())
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(api)
	t.Cleanup(server.Close)

	for _, c := range []struct {
		name, authorization string
		status              int
		body                string
	}{
		{"no token", "", http.StatusUnauthorized, ""},
		{"a token with another scope", "Bearer " + iss.Token(valetkeytest.Scopes("orders:write")), http.StatusForbidden, ""},
		{"a good token", "Bearer " + iss.Token(valetkeytest.Scopes("orders:read"), valetkeytest.Subject("alice")), http.StatusOK, "the orders of alice"},
	} {
		t.Run(c.name, func(t *testing.T) {
			request, err := http.NewRequest("GET", server.URL+"/orders", nil)
			if err != nil {
				t.Fatal(err)
			}
			if c.authorization != "" {
				request.Header.Set("Authorization", c.authorization)
			}
			response, err := server.Client().Do(request)
			if err != nil {
				t.Fatal(err)
			}
			defer response.Body.Close()
			body, err := io.ReadAll(response.Body)
			if err != nil {
				t.Fatal(err)
			}
			if response.StatusCode != c.status || c.body != "" && string(body) != c.body {
				t.Errorf("got %d, %q", response.StatusCode, body)
			}
		})
	}
}
