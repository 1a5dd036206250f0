package web

import (
	"log/slog"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// Messages to systemd, see sd_notify(3).
const (
	ready        = daemon.SdNotifyReady + "\nSTATUS=serving"
	stopping     = daemon.SdNotifyStopping + "\nSTATUS=shutting down"
	watchdog     = daemon.SdNotifyWatchdog
	reloadFailed = daemon.SdNotifyReady + "\nSTATUS=serving with the old configuration: the last reload failed, see the log"
)

// reloadBegun returns the message for the begin of a reload. Type=notify-reload requires its time.
func reloadBegun() string { return daemon.SdNotifyReloading + "\n" + daemon.SdNotifyMonotonicUsec() }

// A manager sends messages to systemd. Without systemd, it sends none.
type manager struct {
	log    *slog.Logger
	failed sync.Once
}

func newManager(log *slog.Logger) *manager { return &manager{log: log} }

func (m *manager) tell(message string) {
	if _, err := daemon.SdNotify(false, message); err != nil {
		m.failed.Do(func() { m.log.Warn("systemd not notified", "err", err) })
	}
}

// alive returns a ticker that ticks when a sign of life is due: twice in the interval that systemd requires. Without one, it never
// ticks.
func (m *manager) alive() *time.Ticker {
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		m.log.Warn("systemd's watchdog is not configured properly", "err", err)
	}
	if interval <= 1 {
		t := time.NewTicker(time.Hour)
		t.Stop()
		return t
	}
	return time.NewTicker(interval / 2)
}
