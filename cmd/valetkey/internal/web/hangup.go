package web

import (
	"log/slog"
	"os"
	"os/signal"
	"syscall"
)

// IgnoreHangup logs and ignores every SIGHUP until stop is called. By default the signal ends the process, but operators send it
// to reload a configuration, which no server here supports. It does nothing on systems without SIGHUP, such as Windows.
func IgnoreHangup(log *slog.Logger) (stop func()) {
	hangups, done := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(hangups, syscall.SIGHUP)
	go func() {
		for {
			select {
			case <-hangups:
				log.Warn("SIGHUP ignored: the configuration is read only at startup; restart to apply changes")
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
