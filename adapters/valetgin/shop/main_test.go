package main

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/valetkeytest"
)

func TestShop(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	api, err := newAPI(middleware.Config{Verifier: iss.Verifier(), Now: iss.Now})
	if err != nil {
		t.Fatal(err)
	}
	reader := iss.Token(valetkeytest.Subject("alice"), valetkeytest.Scopes("orders:read"))
	writer := iss.Token(valetkeytest.Subject("bob"), valetkeytest.Scopes("orders:write"))

	check := func(t *testing.T, method, token string, status int, body string) {
		t.Helper()
		res := httptest.NewRecorder()
		api.ServeHTTP(res, valetkeytest.Request(method, "/orders", token))
		if res.Code != status || body != "" && res.Body.String() != body {
			t.Errorf("got %d, %q, want %d, %q", res.Code, res.Body, status, body)
		}
	}
	t.Run("no token", func(t *testing.T) { check(t, "GET", "", http.StatusUnauthorized, "") })
	for name, token := range iss.Forgeries(valetkeytest.Scopes("orders:read orders:write")) {
		t.Run(name, func(t *testing.T) { check(t, "POST", token, http.StatusUnauthorized, "") })
	}
	t.Run("a writer cannot read", func(t *testing.T) { check(t, "GET", writer, http.StatusForbidden, "") })
	t.Run("a reader cannot write", func(t *testing.T) { check(t, "POST", reader, http.StatusForbidden, "") })
	t.Run("a writer writes", func(t *testing.T) { check(t, "POST", writer, http.StatusCreated, "") })
	t.Run("a reader reads", func(t *testing.T) { check(t, "GET", reader, http.StatusOK, `{"orders of":"alice"}`) })
	t.Run("a token that has been used expires", func(t *testing.T) {
		iss.Advance(2 * valetkeytest.DefaultLifetime)
		check(t, "GET", reader, http.StatusUnauthorized, "")
	})
}
