// Command valetkey verifies access tokens, guards any HTTP upstream with them, and runs an authorization server to try
// both with. See valetkey --help.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/valetkey/valetkey/cmd/valetkey/internal/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := cli.Run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
