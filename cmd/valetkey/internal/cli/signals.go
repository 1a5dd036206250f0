package cli

import (
	"github.com/spf13/cobra"

	"github.com/valetkey/valetkey/authserver"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/driver"
)

func signalsCommand(drivers driver.Set) *cobra.Command {
	list := operating(drivers, "list", "List the streams and the length of their queues", cobra.NoArgs,
		func(cmd *cobra.Command, s *authserver.Server, _ []string) error {
			streams, err := s.SignalStreams(cmd.Context())
			if err != nil {
				return err
			}
			return table(cmd.OutOrStdout(), "ID\tCLIENT\tDELIVERY\tSTATUS\tREASON\tWAITING\tGIVEN UP", func(row func(cells ...any)) {
				for _, one := range streams {
					delivery := one.Endpoint
					if delivery == "" {
						delivery = "poll"
					}
					row(one.ID, one.Client, delivery, one.Status, one.Reason, one.Waiting, one.Dead)
				}
			})
		})
	var reason string
	set := operating(drivers, "set STREAM enabled|paused|disabled", "Change the status of a stream and notify its receiver", cobra.ExactArgs(2),
		func(cmd *cobra.Command, s *authserver.Server, args []string) error {
			return s.SetSignalStream(cmd.Context(), args[0], args[1], reason)
		})
	set.Flags().StringVar(&reason, "reason", "", "reason, which the receiver gets")
	dead := operating(drivers, "dead STREAM", "List the events that were given up (client:ID: logout tokens)", cobra.ExactArgs(1),
		func(cmd *cobra.Command, s *authserver.Server, args []string) error {
			letters, err := s.DeadSignals(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return table(cmd.OutOrStdout(), "JTI\tGIVEN UP\tREASON\tCLAIMS", func(row func(cells ...any)) {
				for _, d := range letters {
					row(d.ID, when(d.At), d.Reason, d.Claims)
				}
			})
		})
	return group("signals", "List and pause the streams of signals of an authorization server", list, set, dead)
}
