package cli

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/valetkey/valetkey/cmd/valetkey/internal/driver"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/proxy"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/web"
)

func authorizeCommand(drivers driver.Set) *cobra.Command {
	var config, check, format string
	cmd := &cobra.Command{
		Use:   "authorize --config FILE",
		Short: "Decide for a gateway that asks: nginx, Traefik, Caddy, Envoy ...",
		Long: "Answer gateways that ask whether a request may pass: forward authentication over HTTP (listen_http, with a dialect), and\n" +
			"ext_authz of Envoy over gRPC (listen_grpc, in the full build). The file is that of valetkey proxy without an upstream.\n\n" +
			operation,
		Args: checkArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if config == "" {
				return errors.New("--config: required")
			}
			log, err := serverLog(cmd, format)
			if err != nil {
				return err
			}
			if check != "" {
				return checkAuthorizer(cmd, config, check, drivers)
			}
			hangup, stop := web.Hangup()
			defer stop()
			a, err := proxy.OpenAuthorizer(config, drivers, log)
			if err != nil {
				return err
			}
			defer a.Close()
			return a.Serve(cmd.Context(), hangup)
		},
	}
	cmd.Flags().StringVar(&config, "config", "", "YAML file with the callers, the verifiers and the routes (required)")
	checkFlag(cmd, &check)
	logFlag(cmd, &format)
	return cmd
}
