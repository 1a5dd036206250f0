package cli

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/valetkey/valetkey/cmd/valetkey/internal/proxy"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/server"
	"github.com/valetkey/valetkey/internal/config"
)

// schemas holds the JSON Schema of each configuration file, by the command that reads it.
type schemas map[string]func() (config.Schema, error)

// gatewaySchemas returns the schemas of the files of a gateway.
func gatewaySchemas() schemas {
	return schemas{"proxy": proxy.Schema, "authorize": proxy.AuthorizeSchema}
}

func allSchemas() schemas {
	all := gatewaySchemas()
	all["serve"] = server.Schema
	return all
}

func schemaCommand(all schemas) *cobra.Command {
	names := slices.Sorted(maps.Keys(all))
	return &cobra.Command{
		Use:   "schema " + strings.Join(names, "|"),
		Short: "Print the JSON Schema of a configuration file, for editors",
		Long: "Print the JSON Schema (draft 2020-12) of the configuration file of a command. Editors use it to complete, describe and check\n" +
			"keys. The command itself checks more than a schema can express.",
		Args:      cobra.ArbitraryArgs,
		ValidArgs: names,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 || all[args[0]] == nil {
				return errors.New("expected one of the commands " + strings.Join(names, ", "))
			}
			schema, err := all[args[0]]()
			if err != nil {
				return err
			}
			out := json.NewEncoder(cmd.OutOrStdout())
			out.SetEscapeHTML(false)
			out.SetIndent("", "  ")
			return out.Encode(schema)
		},
	}
}
