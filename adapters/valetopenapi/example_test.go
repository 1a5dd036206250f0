package valetopenapi_test

import (
	"fmt"
	"maps"
	"slices"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/adapters/valetopenapi"
	"github.com/valetkey/valetkey/routes"
	"github.com/valetkey/valetkey/scopes"
)

const orders = `
openapi: 3.1.0
info: {title: Orders, version: "1"}
components:
  securitySchemes:
    as: {type: openIdConnect, openIdConnectUrl: "https://as.example.com/.well-known/openid-configuration"}
security: [{as: [orders:read]}]
paths:
  /orders:
    get: {responses: {"200": {description: all orders}}}
    post: {security: [{as: [orders:write]}, {as: [admin]}], responses: {"201": {description: a new order}}}
  /healthz:
    get: {security: [], responses: {"200": {description: well}}}
`

// This example reads the table of an API from a document and compares it with a table in Go.
func Example() {
	table, err := valetopenapi.Routes([]byte(orders))
	if err != nil {
		panic(err)
	}
	for _, pattern := range slices.Sorted(maps.Keys(table)) {
		fmt.Printf("%s: %v\n", pattern, table[pattern])
	}

	differences, err := valetopenapi.Compare([]byte(orders), routes.Table{
		"GET /orders":  scopes.All("orders:read"),
		"POST /orders": scopes.All("orders:write"),
		"GET /healthz": valetkey.Public,
		"GET /debug":   valetkey.Public,
	})
	if err != nil {
		panic(err)
	}
	for _, d := range differences {
		fmt.Println(d)
	}
	// Output:
	// GET /healthz: public
	// GET /orders: orders:read
	// POST /orders: orders:write | admin
	// line 11: POST /orders: the document asks for the scopes "orders:write | admin", the table for the scopes "orders:write"
	// GET /debug: the table asks for public, the document has no such operation
}
