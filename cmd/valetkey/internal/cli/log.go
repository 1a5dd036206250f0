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
		return slog.New(slog.NewJSONHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{ReplaceAttr: withUnit})), nil
	}
	return nil, fmt.Errorf("--log-format: %q is not text or json", format)
}

// withUnit writes durations as text, such as 5s, as in the other format. JSON would have a number of nanoseconds.
func withUnit(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		a.Value = slog.StringValue(a.Value.Duration().String())
	}
	return a
}
