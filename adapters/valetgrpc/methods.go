package valetgrpc

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"google.golang.org/grpc"

	"github.com/valetkey/valetkey"
)

// Methods maps the full name of a method, "/orders.v1.Orders/List", to its requirement. A value is [valetkey.Public],
// [valetkey.Optional], [valetkey.AnyToken] or a requirement on the token. A method that is not listed is refused as if it needed
// a scope that no token has. There are no patterns: list each method of a service.
type Methods map[string]valetkey.Requirement

// Covers returns an error that names every method of the services of server without a row in the table, and every row without
// such a method (a misspelled name, or a method that was removed). Call it at startup, after the services are registered. A
// server without services is an error too.
//
// Covers does not check whether server has the interceptors. They refuse calls that server would pass to
// [grpc.UnknownServiceHandler].
func (ms Methods) Covers(server *grpc.Server) error {
	if server == nil {
		return mistake("server", "required")
	}
	services := server.GetServiceInfo()
	if len(services) == 0 {
		return mistake("server", "no service is registered")
	}
	var wrong []error
	unused := maps.Clone(ms)
	for _, service := range slices.Sorted(maps.Keys(services)) {
		for _, m := range services[service].Methods {
			name := "/" + service + "/" + m.Name
			if ms[name] == nil {
				wrong = append(wrong, fmt.Errorf("valetgrpc: method %s: no row declares it", name))
			}
			delete(unused, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(unused)) {
		wrong = append(wrong, mistake(fmt.Sprintf("Methods[%q]", name), "no service has this method"))
	}
	return errors.Join(wrong...)
}

func mistake(field, problem string) error {
	return fmt.Errorf("valetgrpc: %w", &valetkey.ConfigError{Field: field, Err: errors.New(problem)})
}
