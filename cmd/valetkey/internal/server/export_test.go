package server

import (
	"maps"
	"slices"

	"github.com/valetkey/valetkey/internal/config"
)

// UnusedDescriptions returns the paths in schemaKeys and schemaValues that the file does not have.
func UnusedDescriptions() (unused []string) {
	used := config.Paths(document{})
	for _, path := range slices.Concat(slices.Sorted(maps.Keys(schemaKeys)), slices.Sorted(maps.Keys(schemaValues))) {
		if !slices.Contains(used, path) {
			unused = append(unused, path)
		}
	}
	return unused
}

// Values returns the lists of values that the schema has by path.
func Values() map[string][]string { return schemaValues }
