package cli

import (
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"
)

// logFlag adds the flag of the format of the log to a command that serves.
func logFlag(cmd *cobra.Command, format *string) {
	cmd.Flags().StringVar(format, "log-format", "text", "format of the log on standard error: text or json")
}

// serverLog returns the log of a command that serves.
func serverLog(cmd *cobra.Command, format string) (*slog.Logger, error) {
	switch format {
	case "text":
		return logTo(cmd.ErrOrStderr(), slog.LevelInfo), nil
	case "json":
		return slog.New(slog.NewJSONHandler(cmd.ErrOrStderr(), nil)), nil
	}
	return nil, fmt.Errorf("--log-format: %q is not text or json", format)
}
