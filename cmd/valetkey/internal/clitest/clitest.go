// Package clitest runs commands of valetkey in tests, to their end or until the test has seen enough.
package clitest

import (
	"bytes"
	"context"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/valetkey/valetkey/cmd/valetkey/internal/cli"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/driver"
)

// Run runs a command to its end.
func Run(t testing.TB, drivers driver.Set, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = cli.Run(t.Context(), drivers, args, strings.NewReader(stdin), &out, &errs)
	return code, out.String(), errs.String()
}

// Background starts a command that serves, and returns what it prints and logs, and a func that ends it and returns its exit
// code. It ends with the test at the latest.
func Background(t testing.TB, drivers driver.Set, args ...string) (log *Log, stop func() int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	log = NewLog()
	ended := make(chan int, 1)
	go func() { ended <- cli.Run(ctx, drivers, args, nil, log, log) }()
	stop = sync.OnceValue(func() int { cancel(); return <-ended })
	t.Cleanup(func() { stop() })
	return log, stop
}

// A Log is an io.Writer whose text can be waited for.
type Log struct {
	mu   sync.Mutex
	text strings.Builder
	more chan struct{}
}

// NewLog returns an empty Log.
func NewLog() *Log { return &Log{more: make(chan struct{}, 100)} }

func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case l.more <- struct{}{}:
	default:
	}
	return l.text.Write(p)
}

// Wait returns the first match of pattern and its groups, as soon as there is one.
func (l *Log) Wait(t testing.TB, pattern string) []string {
	t.Helper()
	for re := regexp.MustCompile(pattern); ; {
		l.mu.Lock()
		text := l.text.String()
		l.mu.Unlock()
		if m := re.FindStringSubmatch(text); m != nil {
			return m
		}
		select {
		case <-l.more:
		case <-t.Context().Done():
			t.Fatalf("no %s in\n%s", pattern, text)
		}
	}
}
