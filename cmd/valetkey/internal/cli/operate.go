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

// group returns a command that only has subcommands.
func group(name, short string, commands ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: name, Short: short, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(commands...)
	return cmd
}

// A deed is the action of a command on an authorization server.
type deed func(cmd *cobra.Command, s *authserver.Server, args []string) error

// operating returns a command that acts on the existing store of an authorization server. A server may use the store at the same
// time.
func operating(drivers driver.Set, use, short string, args cobra.PositionalArgs, do deed) *cobra.Command {
	return atStore(server.Settings{Drivers: drivers}, use, short, args, do)
}

// adding is operating for a command that adds a record. It creates a missing store, so it also works before the first start of
// the server.
func adding(drivers driver.Set, use, short string, args cobra.PositionalArgs, do deed) *cobra.Command {
	return atStore(server.Settings{Drivers: drivers, Create: true}, use, short, args, do)
}

func atStore(set server.Settings, use, short string, args cobra.PositionalArgs, do deed) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short, Args: args,
		RunE: func(cmd *cobra.Command, args []string) error {
			// Only valetkey serve prints warnings about the configuration.
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

// table writes a header and rows with aligned columns. The header separates its cells with tabs; an empty cell is printed as -.
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

// when formats t, or returns "" for the zero time.
func when(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// words splits space-separated values, such as scopes (RFC 6749, section 3.3), into a list.
func words(list []string) []string {
	return strings.Fields(strings.Join(list, " "))
}

// flagged replaces field names in the mistakes of err with the names of their flags.
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
