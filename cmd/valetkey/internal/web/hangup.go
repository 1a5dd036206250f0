package web

import (
	"os"
	"os/signal"
	"syscall"
)

// Hangup returns a channel for SIGHUP, which requests a reload. Signals while one waits in the channel are merged with it. stop
// ends that. Call it before anything that takes time: by default, the signal ends the process. Systems without SIGHUP, such as
// Windows, never send it.
func Hangup() (hangups <-chan os.Signal, stop func()) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGHUP)
	return c, func() { signal.Stop(c) }
}
