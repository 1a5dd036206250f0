package proxy

import (
	"strconv"
	"strings"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/adapters/valetopenapi"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/issuer"
	"github.com/valetkey/valetkey/internal/config"
	"github.com/valetkey/valetkey/routes"
	"github.com/valetkey/valetkey/scopes"
)

const maxOpenAPI = 16 << 20 // bytes; there are documents of several million

// table reads what each route needs, from one of routes and openapi.
func (n node) table(top map[string]node) routes.Table {
	rows, openapi := top["routes"], top["openapi"]
	switch {
	case openapi.Node == nil && rows.Node == nil:
		n.mistake("routes: required, or openapi")
		return nil
	case openapi.Node == nil:
		return rows.routes()
	case rows.Node != nil:
		openapi.mistake("stands beside routes: give one of them")
	}
	return openapi.openapi()
}

func (n node) routes() routes.Table {
	table := routes.Table{}
	members := n.members()
	for _, m := range members {
		// A row that is wrong stands as one that nobody passes, so that the others can be looked at.
		table[m.key.Value] = scopes.Requirement{}
		switch expr := m.value.text(); {
		case expr == "@public":
			table[m.key.Value] = valetkey.Public
		case expr == "@any":
			table[m.key.Value] = valetkey.AnyToken
		case strings.HasPrefix(expr, "@"):
			m.value.mistake("%q is neither @public nor @any", expr)
		case m.value.isText():
			need, err := scopes.Parse(expr)
			for _, wrong := range valetkey.ConfigErrors(err) {
				m.value.mistake("%v", wrong.Err)
			}
			table[m.key.Value] = need
		}
	}
	for _, wrong := range valetkey.ConfigErrors(table.Validate()) {
		at := n
		for _, m := range members {
			if wrong.Field == "Table["+strconv.Quote(m.key.Value)+"]" {
				at = node{m.key.Node, n.doc, m.value.path}
				break
			}
		}
		at.mistake("%v", wrong.Err)
	}
	return table
}

// openapi reads an OpenAPI document, whose mistakes are told with their own lines after that of the file's name.
func (n node) openapi() routes.Table {
	path := n.file()
	if path == "" {
		return nil
	}
	document, err := config.Content(path, maxOpenAPI)
	if err != nil {
		n.mistake("%v", err)
		return nil
	}
	table, err := valetopenapi.Routes(document)
	for _, wrong := range issuer.Mistakes(err, nil) {
		n.mistake("%v", wrong.Err)
	}
	return table
}
