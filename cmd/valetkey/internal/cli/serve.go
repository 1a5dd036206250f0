package cli

import (
	"github.com/spf13/cobra"

	"github.com/valetkey/valetkey/cmd/valetkey/internal/driver"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/server"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/web"
)

// atServer adds the flags that select an authorization server to cmd.
func atServer(cmd *cobra.Command, set *server.Settings) {
	cmd.Flags().StringVar(&set.Config, "config", "", "YAML file with the issuer, its APIs, clients and users (default: a demo on loopback)")
	cmd.Flags().StringVar(&set.Store, "store", "", "memory, sqlite:PATH or postgres://... (default: the value in the file, otherwise sqlite:valetkey.db)")
}

func serveCommand(drivers driver.Set) *cobra.Command {
	set, check, format := server.Settings{Drivers: drivers}, "", ""
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the authorization server",
		Long: "Run the authorization server from a configuration file. Without one, run a demo on this machine only, with users, applications\n" +
			"and secrets that are public. SIGUSR1 rotates the signing keys.\n\n" + operation,
		Args: checkArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if set.Log, err = serverLog(cmd, format); err != nil {
				return err
			}
			if check != "" {
				return checkServer(cmd, set, check)
			}
			hangup, stop := web.Hangup()
			defer stop()
			return server.Serve(cmd.Context(), set, hangup, cmd.OutOrStdout())
		},
	}
	atServer(cmd, &set)
	checkFlag(cmd, &check)
	logFlag(cmd, &format)
	cmd.Flags().StringVar(&set.Addr, "addr", "", "address to listen on (default: the value in the file, otherwise 127.0.0.1:8888)")
	return cmd
}
