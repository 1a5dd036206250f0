//go:build unix

package server

import (
	"os"
	"syscall"
)

// Not SIGHUP, which operators send for a reload: see web.IgnoreHangup.
var rotateSignals = []os.Signal{syscall.SIGUSR1}
