package routes

import (
	"errors"
	"fmt"
	"maps"
	"net/http"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/middleware"
)

// A Mux is an [http.ServeMux] that requires a requirement for each registered route:
//
//	var api routes.Mux
//	api.HandleFunc("GET /orders", listOrders, scopes.All("orders:read"))
//	api.Handle("GET /healthz", health, valetkey.Public)
//	handler, err := api.Guarded(guard)
//
// The zero value is ready to use. A Mux is not safe for concurrent use; the handler that [Mux.Guarded] returns is.
type Mux struct {
	table    Table
	handlers map[string]http.Handler
	mistakes []error
}

// Handle registers h for a pattern, as [http.ServeMux.Handle] does, and need as its row in a [Table]. [Mux.Guarded] reports
// mistakes.
func (m *Mux) Handle(pattern string, h http.Handler, need valetkey.Requirement) {
	if m.table == nil {
		m.table, m.handlers = Table{}, map[string]http.Handler{}
	}
	if _, twice := m.table[pattern]; twice {
		m.mistakes = append(m.mistakes, fmt.Errorf("routes: Mux: %w", &valetkey.ConfigError{Field: fmt.Sprintf("Table[%q]", pattern), Err: errors.New("registered twice")}))
	}
	if h == nil {
		m.mistakes = append(m.mistakes, fmt.Errorf("routes: Mux: %w", &valetkey.ConfigError{Field: fmt.Sprintf("Table[%q]", pattern), Err: errors.New("the handler is nil")}))
	}
	m.table[pattern], m.handlers[pattern] = need, h
}

// HandleFunc registers the function f, as [Mux.Handle] does.
func (m *Mux) HandleFunc(pattern string, f func(http.ResponseWriter, *http.Request), need valetkey.Requirement) {
	if f == nil {
		m.Handle(pattern, nil, need)
		return
	}
	m.Handle(pattern, http.HandlerFunc(f), need)
}

// Table returns a copy of the table of the routes registered so far.
func (m *Mux) Table() Table { return maps.Clone(m.table) }

// Guarded returns a handler for the routes registered so far, guarded by g, see [Table.Guard]. The error joins every mistake, each a
// [valetkey.ConfigError], see [Table.Validate].
func (m *Mux) Guarded(g *middleware.Guard, options ...Option) (http.Handler, error) {
	if err := errors.Join(errors.Join(m.mistakes...), m.table.Validate()); err != nil {
		return nil, err
	}
	router := http.NewServeMux()
	for pattern, h := range m.handlers {
		if err := register(router, pattern, h); err != nil {
			return nil, fmt.Errorf("routes: Mux: %w", err)
		}
	}
	return m.table.Guard(g, router, options...)
}
