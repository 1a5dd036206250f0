package cli

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/authserver"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/driver"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/server"
)

// group returns a command that only holds others.
func group(name, short string, commands ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: name, Short: short, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(commands...)
	return cmd
}

// A deed is what a command does at an authorization server.
type deed func(cmd *cobra.Command, s *authserver.Server, args []string) error

// operating returns a command that does something in the existing store of an authorization server, whether or not one serves
// meanwhile.
func operating(drivers driver.Set, use, short string, args cobra.PositionalArgs, do deed) *cobra.Command {
	return atStore(server.Settings{Drivers: drivers}, use, short, args, do)
}

// adding is operating for a command that adds something, before the server has served too: it creates a missing store.
func adding(drivers driver.Set, use, short string, args cobra.PositionalArgs, do deed) *cobra.Command {
	return atStore(server.Settings{Drivers: drivers, Create: true}, use, short, args, do)
}

func atStore(set server.Settings, use, short string, args cobra.PositionalArgs, do deed) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short, Args: args,
		RunE: func(cmd *cobra.Command, args []string) error {
			// What is doubtful in the configuration is for those who serve it.
			set.Log, set.Audit = logTo(cmd.ErrOrStderr(), slog.LevelError), logTo(cmd.ErrOrStderr(), slog.LevelInfo)
			s, end, err := server.Open(cmd.Context(), set)
			if err != nil {
				return err
			}
			return errors.Join(do(cmd, s, args), end())
		},
	}
	atServer(cmd, &set)
	return cmd
}

// table writes rows of cells that tabs separate.
func table(w io.Writer, header string, rows func(row func(cells ...any))) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, header)
	rows(func(cells ...any) {
		for i, c := range cells {
			if i > 0 {
				fmt.Fprint(t, "\t")
			}
			if s := fmt.Sprint(c); s != "" {
				fmt.Fprint(t, s)
			} else {
				fmt.Fprint(t, "-")
			}
		}
		fmt.Fprintln(t)
	})
	return t.Flush()
}

// when writes a time, "" if it is not decided.
func when(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// words splits what was given as one: scopes, as OAuth writes them (RFC 6749, section 3.3).
func words(list []string) []string {
	return strings.Fields(strings.Join(list, " "))
}

// flagged replaces the names of fields in the mistakes of err by those of flags.
func flagged(err error, flags map[string]string) error {
	var errs []error
	for _, m := range valetkey.ConfigErrors(err) {
		field, _, _ := strings.Cut(m.Field, "[")
		if flag := flags[field]; flag != "" {
			m = &valetkey.ConfigError{Field: "--" + flag + m.Field[len(field):], Err: m.Err}
		}
		errs = append(errs, m)
	}
	return errors.Join(errs...)
}
