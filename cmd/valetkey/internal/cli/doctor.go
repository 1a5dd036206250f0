package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"github.com/valetkey/valetkey/cmd/valetkey/internal/doctor"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/driver"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/issuer"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/proxy"
	"github.com/valetkey/valetkey/internal/authheader"
	"github.com/valetkey/valetkey/internal/config"
	"github.com/valetkey/valetkey/internal/fetch"
	"github.com/valetkey/valetkey/signals"
)

// doctorTimeout is the limit for all requests of the examination.
const doctorTimeout = 2 * time.Minute

func doctorCommand(drivers driver.Set) *cobra.Command {
	var (
		file, keys, from string
		transmitter      string
		s                issuer.Settings
		asJSON           bool
	)
	cmd := &cobra.Command{
		Use:   "doctor --config F | --issuer I --audience A | --transmitter T [flags]",
		Short: "Find out why tokens are refused, and which setting to change",
		Long: `Find out why tokens are refused. The command reaches the issuers and compares their metadata, key sets, algorithms and clocks
with the configuration of a proxy, or with flags. It reads the revocations in the Redis of the proxy. It examines the transmitter of
signals, its keys and the stream of the proxy, without creating one. With --token, it also lists the settings that the token needs, and
reports whether the end of a session revokes it.

It prints one line per finding: ok, warn or fail, the cause, and the setting to change, as a line of the YAML file and as a field
of the Go configuration. A token is read from a file or from stdin (--token -), not from the arguments, which other users of the
machine can see.

The exit code is 0 without a fail, 1 with one, and 2 for an error, for example a mistake in the configuration.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			targets, err := targetsOf(cmd, file, keys, transmitter, s, drivers)
			if err != nil {
				return err
			}
			token, err := tokenIn(from, cmd.InOrStdin())
			if err != nil {
				return err
			}
			return examine(cmd, targets, token, asJSON)
		},
	}
	f := cmd.Flags()
	f.StringVar(&file, "config", "", "YAML file of a proxy")
	f.StringVar(&from, "token", "", "file with a token, or - for stdin")
	f.StringVar(&transmitter, "transmitter", "", "transmitter of signals (SSF), to examine its metadata and keys, for the section signals")
	f.BoolVar(&asJSON, "json", false, "print one JSON object")
	issuerFlags(cmd, &s, &keys)
	return cmd
}

// targetsOf returns the verifiers of the file, or the one that the flags describe.
func targetsOf(cmd *cobra.Command, file, keys, transmitter string, s issuer.Settings, drivers driver.Set) ([]doctor.Target, error) {
	quiet := logTo(io.Discard, slog.LevelError)
	if file != "" {
		for _, name := range []string{"issuer", "audience", "jwks", "issuer-type", "tenant", "client", "rule", "allow", "profile", "alg", "insecure-http", "transmitter"} {
			if cmd.Flags().Changed(name) {
				return nil, fmt.Errorf("--%s: cannot be combined with --config", name)
			}
		}
		return proxy.Targets(file, drivers, quiet)
	}
	var also []doctor.Target
	if transmitter != "" {
		client := fetch.Client{InsecureHTTP: s.InsecureHTTP, Setting: "--insecure-http"}
		if err := client.Discoverable(transmitter); err != nil {
			return nil, fmt.Errorf("--transmitter: %w", err)
		}
		also = []doctor.Target{{At: "signals", Signals: &signals.Config{
			Transmitter: transmitter, Issuer: s.Issuer, InsecureHTTP: s.InsecureHTTP, Logger: quiet}}}
	}
	if s.Issuer == "" && s.Type == "" {
		if also != nil {
			return also, nil
		}
		return nil, errors.New("--config: required, or --issuer and --audience, or --issuer-type, or --transmitter")
	}
	keysFrom(&s, keys)
	s.Logger = quiet
	cfg, wrong := s.Config()
	v, wrong := issuer.Verifier(cfg, wrong)
	if err := errors.Join(inFlags(wrong)...); err != nil {
		return nil, err
	}
	v.Close()
	for _, t := range also {
		t.Signals.Issuer = cfg.Issuer // of the product, if --issuer-type determines it
	}
	return append([]doctor.Target{{Keys: &cfg}}, also...), nil
}

// tokenIn returns the token in a file, or in stdin if from is "-"; "" if from is empty.
func tokenIn(from string, stdin io.Reader) (string, error) {
	if from == "" {
		return "", nil
	}
	if from != "-" {
		text, err := config.Content(from, authheader.MaxTokenLimit+2)
		if err != nil {
			return "", fmt.Errorf("--token: %w", err)
		}
		stdin = bytes.NewReader(text)
	}
	token, err := tokenFrom("-", stdin)
	if err == nil && token == "" {
		err = errNoToken
	}
	if err != nil {
		return "", fmt.Errorf("--token: %w", err)
	}
	return token, nil
}

func printFindings(w io.Writer, findings []doctor.Finding, asJSON bool) error {
	if asJSON {
		return printJSON(w, struct {
			Findings []doctor.Finding `json:"findings"`
		}{append([]doctor.Finding{}, findings...)})
	}
	at := ""
	for _, f := range findings {
		if f.At != at {
			at = f.At
			fmt.Fprintln(w, at)
		}
		if _, err := fmt.Fprintf(w, "%-4s  %s\n", f.Level, printable(f.String())); err != nil {
			return err
		}
	}
	return nil
}
