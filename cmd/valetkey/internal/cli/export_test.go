package cli

import (
	"maps"
	"slices"
)

// Schemas returns the names of the commands whose files have a schema.
func Schemas() []string { return slices.Sorted(maps.Keys(allSchemas())) }
