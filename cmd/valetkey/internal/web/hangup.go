package web

import (
	"log/slog"
	"os"
	"os/signal"
	"syscall"
)

// IgnoreHangup logs every SIGHUP, and ignores it, until stop is called. Without it the signal ends the process, and operators
// send it to have a configuration read again, which no server here does. Where there is no SIGHUP, as on Windows, it does nothing.
func IgnoreHangup(log *slog.Logger) (stop func()) {
	hangups, done := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(hangups, syscall.SIGHUP)
	go func() {
		for {
			select {
			case <-hangups:
				log.Warn("SIGHUP ignored: the configuration is read at start only, so restart to change it")
			case <-done:
				return
			}
		}
	}()
	return func() {
		signal.Stop(hangups)
		close(done)
	}
}
