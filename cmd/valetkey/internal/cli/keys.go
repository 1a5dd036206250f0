package cli

import (
	"github.com/spf13/cobra"

	"github.com/valetkey/valetkey/authserver"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/driver"
)

func keysCommand(drivers driver.Set) *cobra.Command {
	show := func(cmd *cobra.Command, s *authserver.Server, _ []string) error {
		return table(cmd.OutOrStdout(), "ID\tALGORITHM\tSTATE\tPUBLISHED\tSIGNS FROM\tGONE", func(row func(cells ...any)) {
			for _, k := range s.Keys() {
				row(k.ID, k.Algorithm, k.State, when(k.Published), when(k.Active), when(k.Gone))
			}
		})
	}
	list := operating(drivers, "list", "List the keys in the key set", cobra.NoArgs, show)
	var now bool
	rotate := operating(drivers, "rotate", "Sign with the next keys once all verifiers can have fetched them", cobra.NoArgs,
		func(cmd *cobra.Command, s *authserver.Server, args []string) error {
			if err := s.RotateKeys(cmd.Context(), now); err != nil {
				return err
			}
			return show(cmd, s, args)
		})
	rotate.Flags().BoolVar(&now, "now", false, "rotate immediately (compromised key); verifiers with a cached key set reject new tokens until they refetch")
	return group("keys", "List and rotate the signing keys of an authorization server", list, rotate)
}
