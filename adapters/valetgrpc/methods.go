package valetgrpc

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"google.golang.org/grpc"

	"github.com/valetkey/valetkey"
)

// Methods says what each method needs, by its full name, "/orders.v1.Orders/List". A value is [valetkey.Public],
// [valetkey.Optional], [valetkey.AnyToken], or what a token must meet. A method that is not listed is refused, as if
// it needed a scope that nobody has. There are no patterns: each method of a service is listed.
type Methods map[string]valetkey.Requirement

// Covers reports, by name, every method of the services of server that has no row in the table, and every row that is
// of no such method: a name misspelt, or a method that is gone. It is called at start-up, when the services are registered.
// A server without services has nothing declared, and is an error too.
//
// Not seen: whether server has the interceptors. What a server answers by [grpc.UnknownServiceHandler] is refused by them.
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
