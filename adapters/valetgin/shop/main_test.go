package main

import (
	"testing"

	"github.com/valetkey/valetkey/valetkeytest"
)

func TestOrders(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	iss.TestScopes(t, newAPI(iss.Guard()), "GET /orders orders:read", "POST /orders orders:write")
}
