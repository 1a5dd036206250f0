package cli

import (
	"io"
	"maps"
	"slices"
)

// Schemas returns the names of the commands whose files have a schema.
func Schemas() []string { return slices.Sorted(maps.Keys(allSchemas())) }

// Painter returns a writer that colors verdicts in what is written to w.
func Painter(w io.Writer) io.Writer { return &painter{to: w} }
