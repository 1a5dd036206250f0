// Package ratelog limits log lines that outsiders can trigger.
package ratelog

import (
	"sync"
	"time"
)

const interval = time.Minute

// A Limit permits one log line per minute. The zero value is ready. It is safe for concurrent use.
type Limit struct {
	mu    sync.Mutex
	next  time.Time
	count int // of events since the last line
}

// Permit records an event. If a line is permitted, it returns the number of events since the last line, otherwise 0.
func (l *Limit) Permit() (events int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count++
	now := time.Now()
	if now.Before(l.next) {
		return 0
	}
	events, l.count, l.next = l.count, 0, now.Add(interval)
	return events
}
