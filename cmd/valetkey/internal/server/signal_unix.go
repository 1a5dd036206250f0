//go:build unix

package server

import (
	"os"
	"syscall"
)

// Not SIGHUP, which operators send to reload a configuration; see web.Hangup.
var rotateSignals = []os.Signal{syscall.SIGUSR1}
