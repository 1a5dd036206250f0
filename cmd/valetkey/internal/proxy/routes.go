package proxy

import (
	"strings"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/driver"
	"github.com/valetkey/valetkey/internal/config"
	"github.com/valetkey/valetkey/routes"
	"github.com/valetkey/valetkey/scopes"
)

const maxOpenAPI = 16 << 20 // bytes; there are documents of several million

// table returns what each route needs, from one of routes and openapi.
func (f *file) table() routes.Table {
	rows, openapi := f.Given("routes"), f.Given("openapi")
	switch {
	case !openapi && !rows:
		f.Mistake("routes", "required, or openapi")
		return nil
	case !openapi:
		return f.rows()
	case rows:
		f.Mistake("openapi", "stands beside routes: give one of them")
	}
	if f.OpenAPI == "" {
		return nil
	}
	if f.drivers.OpenAPI == nil {
		f.Mistake("openapi", "%w", driver.Missing("OpenAPI"))
		return nil
	}
	document, err := config.Content(f.Path(f.OpenAPI), maxOpenAPI)
	if err != nil {
		f.Mistake("openapi", "%w", err)
		return nil
	}
	table, err := f.drivers.OpenAPI(document) // whose mistakes have lines of that document
	f.Blame("openapi", err, map[string]string{})
	return table
}

func (f *file) rows() routes.Table {
	table := routes.Table{}
	for pattern, need := range f.Routes {
		// A row that is wrong counts as one that nobody passes, so that the others can be looked at.
		table[pattern] = scopes.Requirement{}
		if need.Requirement != nil {
			table[pattern] = need.Requirement
		}
	}
	for _, m := range valetkey.ConfigErrors(table.Validate()) {
		f.Mistake("routes"+strings.TrimPrefix(m.Field, "Table"), "%w", m.Err)
	}
	return table
}
