package main

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/valetkey/valetkey/valetkeytest"
)

// TestOrders tests the consumer that this file is copied to.
func TestOrders(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	api := newAPI(iss.Guard())
	iss.TestScopes(t, api, "GET /orders orders:read")
	t.Run("the orders are those of the caller", func(t *testing.T) {
		res := httptest.NewRecorder()
		api.ServeHTTP(res, valetkeytest.Request("GET", "/orders", iss.Token(valetkeytest.Scopes("orders:read"), valetkeytest.Subject("alice"))))
		if res.Code != http.StatusOK || res.Body.String() != "the orders of alice" {
			t.Errorf("got %d, %q", res.Code, res.Body)
		}
	})
}
