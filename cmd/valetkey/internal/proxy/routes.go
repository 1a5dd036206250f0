package proxy

import (
	"strings"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/driver"
	"github.com/valetkey/valetkey/internal/config"
	"github.com/valetkey/valetkey/routes"
	"github.com/valetkey/valetkey/scopes"
)

const maxOpenAPI = 16 << 20 // bytes; some documents have several million

// table returns the requirement of each route, from either routes or openapi.
func (f *file) table() routes.Table {
	rows, openapi := f.Given("routes"), f.Given("openapi")
	switch {
	case !openapi && !rows:
		f.Mistake("routes", "required, or openapi")
		return nil
	case !openapi:
		return f.rows()
	case rows:
		f.Mistake("openapi", "cannot be combined with routes")
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
	table, err := f.drivers.OpenAPI(document) // mistakes contain line numbers of the document
	f.Blame("openapi", err, map[string]string{})
	return table
}

func (f *file) rows() routes.Table {
	table := routes.Table{}
	for pattern, need := range f.Routes {
		// An invalid row becomes a requirement that no token meets, so that the other rows can be validated.
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
