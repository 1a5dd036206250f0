//go:build unix

package server

import (
	"os"
	"syscall"
)

// Not SIGHUP: a server whose terminal is closed should end.
var rotateSignals = []os.Signal{syscall.SIGUSR1}
