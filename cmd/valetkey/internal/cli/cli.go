// Package cli implements the command line of valetkey.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/valetkey/valetkey/cmd/valetkey/internal/demo"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/driver"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/proxy"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/web"
)

// Exit codes.
const (
	Good    = 0
	No      = 1 // a token was refused or a check failed; the output states the reason
	Mistake = 2 // a usage or configuration error, or the command could not be completed
)

// errNo ends a command with exit code No. The command has already printed the reason.
var errNo = errors.New("no")

// A runner runs one command and returns its exit code. Canceling ctx ends the command.
type runner func(ctx context.Context, drivers driver.Set, args []string, stdin io.Reader, stdout, stderr io.Writer) int

// Main runs the command line of this process with the given drivers, and exits.
func Main(drivers driver.Set) { exit(Run, drivers) }

// MainGateway is [Main] with the commands of [RunGateway].
func MainGateway(drivers driver.Set) { exit(RunGateway, drivers) }

func exit(run runner, drivers driver.Set) {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		cancel()
		code := 128 // that of a shell for a process that a signal has ended
		if second, ok := (<-signals).(syscall.Signal); ok {
			code += int(second)
		}
		os.Exit(code)
	}()
	code := run(ctx, drivers, os.Args[1:], os.Stdin, painted(os.Stdout), os.Stderr)
	cancel()
	os.Exit(code)
}

// Run is a runner for all commands.
func Run(ctx context.Context, drivers driver.Set, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	return run(ctx, Root(drivers), args, stdin, stdout, stderr)
}

// Root returns the command with all subcommands, from which its manual pages and completions are generated.
func Root(drivers driver.Set) *cobra.Command {
	return rootCommand(append(gatewayCommands(drivers),
		demoCommand(), serveCommand(drivers), clientCommand(drivers), keysCommand(drivers), userCommand(drivers), signalsCommand(drivers), tokenCommand(),
		schemaCommand(allSchemas()))...)
}

// RunGateway is a runner without the commands of the authorization server and its clients. A program that calls only RunGateway does not
// contain the libraries of those commands, because the linker removes them, and is half as large.
func RunGateway(ctx context.Context, drivers driver.Set, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	return run(ctx, rootCommand(append(gatewayCommands(drivers), schemaCommand(gatewaySchemas()))...), args, stdin, stdout, stderr)
}

// gatewayCommands returns the commands that run and examine a gateway.
func gatewayCommands(drivers driver.Set) []*cobra.Command {
	return []*cobra.Command{proxyCommand(drivers), authorizeCommand(drivers), revokeCommand(), verifyCommand(), inspectCommand(drivers), doctorCommand(drivers),
		healthCommand(), conformCommand(), versionCommand()}
}

func rootCommand(commands ...*cobra.Command) *cobra.Command {
	root := &cobra.Command{
		Use:           "valetkey",
		Short:         "Verify OAuth 2.0 access tokens, guard HTTP servers with them, and try both",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			cmd.SuggestionsMinimumDistance = 2
			if similar := cmd.SuggestionsFor(args[0]); len(similar) > 0 {
				return fmt.Errorf("unknown command; did you mean %s?", strings.Join(similar, " or "))
			}
			return errors.New("unknown command; see valetkey --help") // the argument may be a token, so do not print it
		},
	}
	root.Version = web.Version() // a template for it would make the program a fifth larger: text/template keeps all methods of all types
	root.AddCommand(commands...)
	foldHelp(root)
	root.SetFlagErrorFunc(flagError)
	return root
}

func run(ctx context.Context, root *cobra.Command, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	stdout, stderr = terminal{stdout}, terminal{stderr}
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	switch err := root.ExecuteContext(ctx); {
	case err == nil:
		return Good
	case errors.Is(err, errNo):
		return No
	default:
		for line := range strings.SplitSeq(err.Error(), "\n") { // one line per mistake
			fmt.Fprintln(stderr, "valetkey:", line)
		}
		return Mistake
	}
}

// flagError hides arguments that begin with a single hyphen. No command has such flags, so the argument may be a token.
func flagError(_ *cobra.Command, err error) error {
	if strings.Contains(err.Error(), "shorthand") {
		return errors.New("an argument begins with a hyphen; if it is a token, pass it on stdin with -, or after --")
	}
	return err
}

func logTo(w io.Writer, level slog.Level) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level}))
}

func demoCommand() *cobra.Command {
	var (
		asAddr, apiAddr string
		check           bool
	)
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Run an authorization server and an API, and print requests to try",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			level := slog.LevelInfo
			if check {
				level = slog.LevelError // it sends a damaged token on purpose
			}
			d, err := demo.Start(asAddr, apiAddr, logTo(cmd.ErrOrStderr(), level))
			if err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGHUP) // end with the terminal
			defer stop()
			ended := make(chan error, 1)
			go func() { defer stop(); ended <- d.Serve(ctx) }()
			if err := d.Ready(ctx); err != nil && ctx.Err() == nil {
				stop()
				return errors.Join(err, <-ended)
			}
			if !check {
				demo.Print(cmd.OutOrStdout(), d.Place)
				return <-ended
			}
			err = demo.Check(ctx, cmd.OutOrStdout(), d.Place)
			stop()
			if failure := <-ended; failure != nil {
				return failure
			}
			if err != nil {
				fmt.Fprintln(cmd.OutOrStdout(), err)
				return errNo
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&asAddr, "as-addr", "127.0.0.1:8888", "address of the authorization server, on loopback")
	cmd.Flags().StringVar(&apiAddr, "api-addr", "127.0.0.1:8080", "address of the orders API")
	cmd.Flags().BoolVar(&check, "check", false, "send the requests now, and exit with 0 only if every response is as expected")
	return cmd
}

func proxyCommand(drivers driver.Set) *cobra.Command {
	var config, check, format string
	cmd := &cobra.Command{
		Use:   "proxy --config FILE",
		Short: "Guard a server: pass on requests with a sufficient token",
		Long:  "Guard a server: pass on requests with a sufficient token.\n\n" + operation,
		Args:  checkArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if config == "" {
				return errors.New("--config: required")
			}
			if check != "" {
				return checkProxy(cmd, config, check, drivers)
			}
			log, err := serverLog(cmd, format)
			if err != nil {
				return err
			}
			hangup, stop := web.Hangup()
			defer stop()
			p, err := proxy.Open(config, drivers, log)
			if err != nil {
				return err
			}
			defer p.Close()
			return p.Serve(cmd.Context(), hangup)
		},
	}
	cmd.Flags().StringVar(&config, "config", "", "YAML file with the upstream, the verifiers and the routes (required)")
	checkFlag(cmd, &check)
	logFlag(cmd, &format)
	return cmd
}
