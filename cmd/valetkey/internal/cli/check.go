package cli

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/valetkey/valetkey/cmd/valetkey/internal/doctor"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/driver"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/proxy"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/server"
)

// operation describes the signals of the commands that serve.
const operation = `SIGHUP reads the file again. If it has mistakes, each is logged, and the old configuration remains in use. SIGTERM ends the command:
it reports that it is not ready, serves on for the time that drain specifies, and gives requests in progress 10 seconds (grace) to
finish. A second SIGTERM ends it at once. Windows has no SIGHUP: restart to apply changes.`

// The values of --check.
const (
	offline = "offline"
	online  = "online"
)

func checkFlag(cmd *cobra.Command, check *string) {
	cmd.Flags().StringVar(check, "check", "", "examine the configuration and exit: offline, without the network, or online, as valetkey doctor does")
	cmd.Flags().Lookup("check").NoOptDefVal = offline
}

// checkArgs refuses arguments. A value of --check after a space is one, because the flag has a default.
func checkArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 1 && (args[0] == offline || args[0] == online) && cmd.Flags().Changed("check") {
		return fmt.Errorf("--check %[1]s: write --check=%[1]s", args[0])
	}
	return cobra.NoArgs(cmd, args)
}

// checked returns an error unless check is a value of --check.
func checked(check string) error {
	if check != offline && check != online {
		return fmt.Errorf("--check: %q is not offline or online", check)
	}
	return nil
}

// checkProxy examines the file of a proxy. Exit codes: see doctorCommand.
func checkProxy(cmd *cobra.Command, file, check string, drivers driver.Set) error {
	return checkFile(cmd, file, check, func(log *slog.Logger) ([]doctor.Target, error) {
		p, err := proxy.Load(file, drivers, log)
		if err != nil {
			return nil, err
		}
		defer p.Close()
		return p.Targets(), nil
	})
}

// checkAuthorizer is checkProxy for the file of an authorizer.
func checkAuthorizer(cmd *cobra.Command, file, check string, drivers driver.Set) error {
	return checkFile(cmd, file, check, func(log *slog.Logger) ([]doctor.Target, error) {
		a, err := proxy.LoadAuthorizer(file, drivers, log)
		if err != nil {
			return nil, err
		}
		defer a.Close()
		return a.Targets(), nil
	})
}

func checkFile(cmd *cobra.Command, file, check string, load func(*slog.Logger) ([]doctor.Target, error)) error {
	if err := checked(check); err != nil {
		return err
	}
	targets, err := load(logTo(cmd.ErrOrStderr(), slog.LevelInfo))
	if err != nil {
		return err
	}
	if check == offline {
		_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s: no mistakes\n", file)
		return err
	}
	return examine(cmd, targets, "", false)
}

// checkServer examines the configuration of an authorization server. Online, it also reaches its store, which must exist.
func checkServer(cmd *cobra.Command, set server.Settings, check string) error {
	if err := checked(check); err != nil {
		return err
	}
	if err := server.Check(cmd.Context(), set, check == online); err != nil {
		return err
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s: no mistakes\n", cmp.Or(set.Config, "the demo"))
	return err
}

// examine prints the findings about targets and a token.
func examine(cmd *cobra.Command, targets []doctor.Target, token string, asJSON bool) error {
	ctx, cancel := context.WithTimeout(cmd.Context(), doctorTimeout)
	defer cancel()
	findings := doctor.Examine(ctx, targets, token)
	if err := printFindings(cmd.OutOrStdout(), findings, asJSON); err != nil {
		return err
	}
	for _, f := range findings {
		if f.Level == doctor.Fail {
			return errNo
		}
	}
	return nil
}
