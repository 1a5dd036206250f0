package cli

import (
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/valetkey/valetkey/cmd/valetkey/internal/driver"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/server"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/web"
)

// atServer adds the flags that select an authorization server to cmd.
func atServer(cmd *cobra.Command, set *server.Settings) {
	cmd.Flags().StringVar(&set.Config, "config", "", "YAML file with the issuer, its APIs, clients and users (default: a demonstration, on loopback)")
	cmd.Flags().StringVar(&set.Store, "store", "", "memory, sqlite:PATH or postgres://... (default: what the file says, or else sqlite:valetkey.db)")
}

func serveCommand(drivers driver.Set) *cobra.Command {
	set := server.Settings{Drivers: drivers}
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the authorization server",
		Long: "Run the authorization server: that of a configuration file, or else a demonstration for this machine only, with users,\n" +
			"applications and secrets that everybody knows. Files are read at start only: SIGHUP is logged and ignored. SIGUSR1 rotates\n" +
			"the signing keys; SIGTERM lets requests under way finish first.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			set.Log = logTo(cmd.ErrOrStderr(), slog.LevelInfo)
			defer web.IgnoreHangup(set.Log)()
			return server.Serve(cmd.Context(), set, cmd.OutOrStdout())
		},
	}
	atServer(cmd, &set)
	cmd.Flags().StringVar(&set.Addr, "addr", "", "address to listen on (default: what the file says, or else 127.0.0.1:8888)")
	return cmd
}
