package cli

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/cobra"
)

const (
	healthTimeout = 5 * time.Second
	maxHealth     = 4 << 10 // bytes of a response that are printed
)

func healthCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "health URL",
		Short: "Get a URL of the probe, for health checks of container engines",
		Long: "Get a URL of the probe listener, such as http://127.0.0.1:8081/ready, for health checks of container engines whose images have no\n" +
			"other program. The exit code is 0 for the status 200, 1 for another status or no response, and 2 for a mistake.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			u, err := url.Parse(args[0])
			if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
				return fmt.Errorf("%q is not an http or https URL", args[0])
			}
			r, err := http.NewRequestWithContext(cmd.Context(), http.MethodGet, u.String(), http.NoBody)
			if err != nil {
				return err
			}
			res, err := (&http.Client{Timeout: healthTimeout}).Do(r)
			if err != nil {
				fmt.Fprintln(cmd.OutOrStdout(), err)
				return errNo
			}
			defer res.Body.Close()
			fmt.Fprintln(cmd.OutOrStdout(), res.Status)
			if res.StatusCode == http.StatusOK {
				return nil
			}
			if _, err := io.Copy(cmd.OutOrStdout(), io.LimitReader(res.Body, maxHealth)); err != nil {
				return err
			}
			return errNo
		},
	}
}
