// Package valetopenapi reads the requirement of each route of an API from an OpenAPI document, version 3.0, 3.1 or 3.2.
//
//	table, err := valetopenapi.Routes(document)
//	...
//	api, err := table.Guard(guard, router)
//
// Each operation becomes a row, according to the section "Security Requirement Object" of the specification:
//
//   - The security of the operation replaces the security of the document.
//   - [] is [valetkey.Public].
//   - One of several alternatives is sufficient. Within an alternative, one token needs the scopes of all schemes.
//   - The alternative {} makes the operation [valetkey.Optional]: a token that is sent must be valid, but needs no scopes. A
//     handler that does more for some tokens must check their scopes itself.
//   - Schemes without scopes are [valetkey.AnyToken].
//
// The supported schemes are oauth2, openIdConnect and http bearer. Role names, which 3.1 permits with bearer, are treated as
// scopes. An alternative with a scheme that a guard cannot check, such as apiKey, is skipped: a client that uses it is refused. If
// no alternative remains, the operation is a mistake. So is one without security in a document without security.
//
// A parameter may be a part of a segment, as in /orders/{id}:activate or /Orders({id}), although net/http has no pattern for that,
// and two templates may match the same request without one being more specific, as /a/{x}/c and /a/b/{y} do. Such operations share
// a row with a wider pattern. For each request, its requirement is that of the templates that match, without those that match more
// than another one. If several remain, the request needs what all of them require, because routers differ in the choice. If none
// matches, the request is refused. An operation in such a row cannot be [valetkey.Public] or [valetkey.Optional].
// The requirement reads the path values of the row's pattern, so it is for [routes.Table.Guard], not for a route of another router.
//
// The path of a row starts with the path of each server. A server variable takes all values of its enum, or its default. A GET
// row also covers HEAD, unless the document declares HEAD as an operation.
//
// References to other documents are refused; bundle the documents first. Webhooks and callbacks are ignored, because the API
// sends those requests.
package valetopenapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/routes"
	"github.com/valetkey/valetkey/scopes"
)

// Routes returns the table of a document in JSON or YAML. It does no I/O. The error joins all mistakes, including those that
// [routes.Table.Validate] finds.
func Routes(document []byte) (routes.Table, error) {
	rows, err := read(document)
	if err != nil {
		return nil, err
	}
	return tableOf(rows), nil
}

// A row is one pattern of one operation.
type row struct {
	pattern string
	line    int // of the operation in the document; 0: unknown
	need    valetkey.Requirement
}

func tableOf(rows []row) routes.Table {
	table := routes.Table{}
	for _, r := range rows {
		table[r.pattern] = r.need
	}
	return table
}

// inDocument returns a mistake in a document. Its ConfigError has no Field, because the text names the place.
func inDocument(format string, args ...any) error {
	return fmt.Errorf("valetopenapi: %w", &valetkey.ConfigError{Err: fmt.Errorf(format, args...)})
}

// read returns the rows in the order of their paths and methods.
func read(document []byte) ([]row, error) {
	if json.Valid(document) { // the loader checks YAML
		if err := eachOnce(json.NewDecoder(bytes.NewReader(document))); err != nil {
			return nil, inDocument("read the document: %w", err)
		}
	}
	loader := openapi3.NewLoader() // refuses references to other documents
	loader.IncludeOrigin = true
	doc, err := loader.LoadFromData(document)
	if err != nil {
		return nil, inDocument("read the document: %w", err)
	}
	switch doc.OpenAPIMajorMinor() {
	case "3.0", "3.1", "3.2":
	default:
		return nil, inDocument("openapi: %q is not 3.0, 3.1 or 3.2", doc.OpenAPI)
	}

	var (
		operations []*operation
		mistakes   []error
		seen       = map[string]*operation{} // by what they match
	)
	paths := doc.Paths.Map()
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		item := paths[path]
		if item == nil {
			continue
		}
		for _, key := range slices.Sorted(maps.Keys(item.Extensions)) {
			if !strings.HasPrefix(key, "x-") { // it may be a misspelled operation that would be ignored
				mistakes = append(mistakes, inDocument("%s: %q is not a field of a path item", path, key))
			}
		}
		mistakes = append(mistakes, methodsOf(doc, path, item)...)
		described := item.Operations()
		for _, method := range slices.Sorted(maps.Keys(described)) {
			op := described[method]
			mistake := func(err error) {
				mistakes = append(mistakes, inDocument("%s%s %s: %w", at(line(op)), method, path, err))
			}
			need, err := needOf(doc, op)
			if err != nil {
				mistake(err)
				need = scopes.Requirement{} // a placeholder, so that the rest of the table can be validated
			}
			templates, err := templatesOf(doc, item, op, path)
			if err != nil {
				mistake(err)
			}
			for _, t := range templates {
				o := &operation{method, path, line(op), t, need}
				if other := seen[method+t.key()]; other != nil {
					mistake(fmt.Errorf("matches the same requests as %s", other))
					continue
				}
				seen[method+t.key()] = o
				operations = append(operations, o)
			}
		}
	}
	var rows []row
	for _, g := range grouped(operations) {
		r, err := g.row()
		if err != nil {
			mistakes = append(mistakes, err)
			r.need = scopes.Requirement{}
		}
		rows = append(rows, r)
	}
	if len(rows) > 0 || len(mistakes) == 0 {
		mistakes = append(mistakes, tableOf(rows).Validate())
	}
	return rows, errors.Join(mistakes...)
}

// methodsOf returns the mistakes in the methods that item has since OpenAPI 3.2.
func methodsOf(doc *openapi3.T, path string, item *openapi3.PathItem) (mistakes []error) {
	if !doc.IsOpenAPI32OrLater() {
		for key, present := range map[string]bool{"query": item.Query != nil, "additionalOperations": item.AdditionalOperations != nil} {
			if present {
				mistakes = append(mistakes, inDocument("%s: %q is not a field of a path item before OpenAPI 3.2", path, key))
			}
		}
		return mistakes
	}
	for _, method := range slices.Sorted(maps.Keys(item.AdditionalOperations)) {
		switch upper := strings.ToUpper(method); upper {
		case "CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE": // ignored by the loader if it is here too
			mistakes = append(mistakes, inDocument("%s: additionalOperations: %q has a member of the path item: %q", path, method, strings.ToLower(method)))
		}
	}
	return mistakes
}

// eachOnce returns an error if an object has a member twice. encoding/json would silently use the last one.
func eachOnce(d *json.Decoder) error {
	start, err := d.Token()
	if err != nil || start != json.Delim('{') && start != json.Delim('[') {
		return err
	}
	seen := map[json.Token]bool{}
	for d.More() {
		if start == json.Delim('{') {
			name, err := d.Token()
			if err != nil {
				return err
			}
			if seen[name] {
				return fmt.Errorf("an object has %q twice", name)
			}
			seen[name] = true
		}
		if err := eachOnce(d); err != nil {
			return err
		}
	}
	_, err = d.Token()
	return err
}

// line returns the line of the operation, or 0 for JSON, where the loader does not record lines.
func line(op *openapi3.Operation) int {
	if op.Origin == nil || op.Origin.Key == nil {
		return 0
	}
	return op.Origin.Key.Line
}

func at(line int) string {
	if line == 0 {
		return ""
	}
	return fmt.Sprintf("line %d: ", line)
}

// needOf returns the requirement that the security of the operation describes.
func needOf(doc *openapi3.T, op *openapi3.Operation) (valetkey.Requirement, error) {
	for key := range op.Extensions {
		if strings.EqualFold(key, "security") {
			return nil, fmt.Errorf("%q is spelled security", key)
		}
	}
	alternatives := doc.Security
	if op.Security != nil {
		alternatives = *op.Security
	}
	if alternatives == nil {
		return nil, errors.New("security: neither the operation nor the document states a requirement")
	}
	if len(alternatives) == 0 {
		return valetkey.Public, nil
	}
	var (
		enough             scopes.Requirement
		optional, anyToken bool
		skipped, mistakes  []error
	)
	for _, alternative := range alternatives {
		var (
			together     []string
			unmet, wrong error
		)
		for _, name := range slices.Sorted(maps.Keys(alternative)) {
			no, bad := usable(doc, name, alternative[name])
			unmet, wrong = errors.Join(unmet, no), errors.Join(wrong, bad)
			together = append(together, alternative[name]...)
		}
		switch {
		case alternative == nil:
			mistakes = append(mistakes, errors.New("security: an alternative is null"))
		case wrong != nil:
			mistakes = append(mistakes, wrong)
		case unmet != nil:
			skipped = append(skipped, unmet)
		case len(alternative) == 0:
			optional = true
		case len(together) == 0:
			anyToken = true
		default:
			enough = enough.Or(scopes.All(together...))
		}
	}
	if len(skipped) == len(alternatives) {
		mistakes = append(mistakes, skipped...)
	}
	if err := errors.Join(mistakes...); err != nil {
		return nil, err
	}
	switch {
	case optional:
		return valetkey.Optional, nil
	case anyToken:
		return valetkey.AnyToken, nil
	default:
		return enough, nil
	}
}

// usable returns why a guard cannot check that a token has the needed scopes under the named scheme: unmet if no access token can
// meet the scheme, or wrong if the document is.
func usable(doc *openapi3.T, name string, needed []string) (unmet, wrong error) {
	var scheme *openapi3.SecurityScheme
	if doc.Components != nil && doc.Components.SecuritySchemes[name] != nil {
		scheme = doc.Components.SecuritySchemes[name].Value
	}
	switch {
	case needed == nil:
		return nil, fmt.Errorf("security: the scheme %q has null in place of a list", name)
	case scheme == nil:
		return nil, fmt.Errorf("security: the scheme %q is not among components.securitySchemes", name)
	case scheme.Type == "oauth2" || scheme.Type == "openIdConnect":
	case scheme.Type == "apiKey" || scheme.Type == "mutualTLS":
		return fmt.Errorf("security: the scheme %q is of type %q, which no access token fulfils", name, scheme.Type), nil
	case scheme.Type != "http":
		return nil, fmt.Errorf("security: the scheme %q is of type %q, which OpenAPI does not have", name, scheme.Type)
	case !strings.EqualFold(scheme.Scheme, "bearer"): // RFC 9110, section 11.1
		return fmt.Errorf("security: the scheme %q is http %q, which no bearer token fulfils", name, scheme.Scheme), nil
	case len(needed) > 0 && strings.HasPrefix(doc.OpenAPI, "3.0"):
		return nil, fmt.Errorf("security: the scheme %q is http, which has no scopes in OpenAPI 3.0", name)
	}
	var mistakes []error
	for _, s := range needed {
		if err := scopes.Validate(s); err != nil {
			mistakes = append(mistakes, fmt.Errorf("security: the scheme %q: %w", name, err))
		}
	}
	return nil, errors.Join(mistakes...)
}

// templatesOf returns the templates of path below each server.
func templatesOf(doc *openapi3.T, item *openapi3.PathItem, op *openapi3.Operation, path string) ([]template, error) {
	if !strings.HasPrefix(path, "/") || strings.ContainsAny(path, "?#") {
		return nil, errors.New("the path does not start with a slash, or has a query or a fragment")
	}
	servers := doc.Servers
	if len(item.Servers) > 0 {
		servers = item.Servers
	}
	if op.Servers != nil && len(*op.Servers) > 0 {
		servers = *op.Servers
	}
	bases, err := basesOf(servers)
	if err != nil {
		return nil, err
	}
	var all []template
	for _, base := range bases {
		t, err := templateOf(base + path)
		if err != nil {
			return nil, err
		}
		all = append(all, t)
	}
	return all, nil
}

// templateOf parses an absolute path.
func templateOf(path string) (t template, err error) {
	texts := strings.Split(path[1:], "/")
	if last := len(texts) - 1; texts[last] == "" {
		texts, t.slash = texts[:last], true
	}
	for _, text := range texts {
		s, err := segmentOf(text)
		if err != nil {
			return template{}, err
		}
		t.segments = append(t.segments, s)
	}
	return t, nil
}

// key returns the same text for templates that match the same paths.
func (t template) key() string {
	var b strings.Builder
	for _, s := range t.segments {
		fmt.Fprintf(&b, " %q", s.parts)
	}
	if t.slash {
		b.WriteByte('/')
	}
	return b.String()
}

// identifier turns name into a Go identifier that is not in taken, and adds it to taken.
func identifier(name string, taken map[string]bool) string {
	name = strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' {
			return c
		}
		return '_'
	}, name)
	if name == "" || name[0] >= '0' && name[0] <= '9' {
		name = "_" + name
	}
	for taken[name] {
		name += "_"
	}
	taken[name] = true
	return name
}

// maxBases is the largest number of combinations of server variables.
const maxBases = 256

// basesOf returns the distinct paths of the servers, without a trailing slash.
func basesOf(servers openapi3.Servers) ([]string, error) {
	if len(servers) == 0 {
		return []string{""}, nil // "an array consisting of a single Server Object with a url value of /"
	}
	var (
		bases    []string
		mistakes []error
	)
	for _, server := range servers {
		if server == nil {
			mistakes = append(mistakes, errors.New("servers: one is null"))
			continue
		}
		for _, text := range addressesOf(server) {
			base, err := baseOf(text)
			mistakes = append(mistakes, err)
			bases = append(bases, base)
		}
	}
	if len(bases) > maxBases {
		mistakes = append(mistakes, fmt.Errorf("servers: their variables have more than %d combinations", maxBases))
	}
	slices.Sort(bases)
	return slices.Compact(bases), errors.Join(mistakes...)
}

func baseOf(address string) (string, error) {
	u, err := url.Parse(address)
	switch {
	case err != nil || strings.ContainsAny(address, "{}?#"):
		return "", fmt.Errorf("servers: %q is not an address, has a query or a fragment, or a variable that is not declared", address)
	case u.Path != "" && u.Path[0] != '/' || u.Path == "" && u.Host == "":
		return "", fmt.Errorf("servers: %q depends on where the document is served", address)
	}
	return strings.TrimSuffix(u.EscapedPath(), "/"), nil
}

// addressesOf returns the URL of server with every combination of values for its variables, limited to maxBases+1 URLs.
func addressesOf(server *openapi3.Server) []string {
	all := []string{server.URL}
	for _, name := range slices.Sorted(maps.Keys(server.Variables)) {
		placeholder, variable := "{"+name+"}", server.Variables[name]
		if variable == nil || !strings.Contains(server.URL, placeholder) {
			continue
		}
		values := variable.Enum
		if len(values) == 0 {
			values = []string{variable.Default}
		}
		var next []string
		for _, text := range all {
			for _, value := range values {
				if len(next) <= maxBases {
					next = append(next, strings.ReplaceAll(text, placeholder, value))
				}
			}
		}
		all = next
	}
	return all
}
