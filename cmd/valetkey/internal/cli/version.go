package cli

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/valetkey/valetkey/cmd/valetkey/internal/web"
)

// versionCommand prints what the go command has recorded in the program. No flag of the linker sets the version, so a program from go install,
// an archive and an image of the same version print the same.
func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version of this program, and how it was built",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			pkg := "unknown"
			if info, ok := debug.ReadBuildInfo(); ok {
				pkg = info.Path
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "valetkey %s\npackage  %s\ngo       %s\nplatform %s/%s\n",
				web.Version(), pkg, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}
