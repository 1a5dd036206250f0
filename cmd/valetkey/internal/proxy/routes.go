package proxy

import (
	"strconv"
	"strings"

	"github.com/valetkey/valetkey/adapters/valetopenapi"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/file"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/issuer"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/scopes"
)

const maxOpenAPI = 16 << 20 // bytes; there are documents of several million

// table reads what each route needs, from one of routes and openapi.
func (n node) table(top map[string]node) middleware.Routes {
	routes, openapi := top["routes"], top["openapi"]
	switch {
	case openapi.Node == nil && routes.Node == nil:
		n.mistake("routes: required, or openapi")
		return nil
	case openapi.Node == nil:
		return routes.routes()
	case routes.Node != nil:
		openapi.mistake("stands beside routes: give one of them")
	}
	return openapi.openapi()
}

func (n node) routes() middleware.Routes {
	table := middleware.Routes{}
	members := n.members()
	for _, m := range members {
		// A row that is wrong stands as one that nobody passes, so that the others can be looked at.
		table[m.key.Value] = scopes.Requirement{}
		switch expr := m.value.text(); {
		case expr == "@public":
			table[m.key.Value] = middleware.Public
		case expr == "@any":
			table[m.key.Value] = middleware.AnyToken
		case strings.HasPrefix(expr, "@"):
			m.value.mistake("%q is neither @public nor @any", expr)
		case m.value.isText():
			need, err := scopes.Parse(expr)
			if err != nil {
				m.value.mistake("%s", strings.TrimPrefix(err.Error(), "scopes: "))
			}
			table[m.key.Value] = need
		}
	}
	for _, wrong := range issuer.Mistakes(table.Validate(), nil) {
		at, text := n, strings.TrimPrefix(wrong.Err.Error(), "Routes: ")
		for _, m := range members {
			if rest, found := strings.CutPrefix(text, "Routes["+strconv.Quote(m.key.Value)+"]: "); found {
				at, text = node{m.key.Node, n.doc, m.value.path}, rest
				break
			}
		}
		at.mistake("%s", text)
	}
	return table
}

// openapi reads an OpenAPI document, whose mistakes are told with their own lines after that of the file's name.
func (n node) openapi() middleware.Routes {
	path := n.file()
	if path == "" {
		return nil
	}
	document, err := file.Read(path, maxOpenAPI)
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
