// Package clitest runs commands of valetkey in tests.
package clitest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/valetkey/valetkey/cmd/valetkey/internal/cli"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/driver"
)

// Run runs a command to completion.
func Run(t testing.TB, drivers driver.Set, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = cli.Run(t.Context(), drivers, args, strings.NewReader(stdin), &out, &errs)
	return code, out.String(), errs.String()
}

// Background starts a command that serves. It returns a log of its output, and a function that stops the command and returns its
// exit code. The command ends with the test at the latest.
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

// Paste pastes the parts of the demonstration into shells, as their headings request: the second one into another shell than the others,
// once the stream that the first one opens has begun. It returns the output in this order. The shells have their own home folder.
func Paste(t testing.TB, parts []string) string {
	t.Helper()
	if len(parts) != 3 {
		t.Fatalf("%d parts", len(parts))
	}
	home := t.TempDir()
	shell := func(stdin io.Reader) (*exec.Cmd, *Log) {
		cmd, out := exec.CommandContext(t.Context(), "sh"), NewLog()
		cmd.Env, cmd.Stdin, cmd.Stdout = append(os.Environ(), "HOME="+home), stdin, out
		return cmd, out
	}
	lines, paste := io.Pipe()
	first, streaming := shell(lines)
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	io.WriteString(paste, parts[0])
	streaming.Wait(t, "(?s)text/event-stream.*\ndata: ")
	before := streaming.String()
	other, out := shell(strings.NewReader(parts[1]))
	if err := other.Run(); err != nil {
		t.Error(err)
	}
	io.WriteString(paste, parts[2])
	paste.Close()
	if err := first.Wait(); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(home); err != nil || len(left) > 0 {
		t.Errorf("files remain: %v, %v", left, err)
	}
	return before + out.String() + strings.TrimPrefix(streaming.String(), before)
}

var lastPort atomic.Int64

// FreeAddr returns an address on loopback at which nothing listens. Its port is another one each time, and below those that systems assign to
// outgoing connections and to listeners on port 0, so none of them takes it before a program listens there, or while that program is down.
func FreeAddr(t testing.TB) string {
	t.Helper()
	lastPort.CompareAndSwap(0, rand.Int64N(12_000))
	for range 12_000 {
		if l, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", 20_000+lastPort.Add(1)%12_000)); err == nil {
			defer l.Close()
			return l.Addr().String()
		}
	}
	t.Fatal("no port is free")
	return ""
}

// A Log is an io.Writer that lets tests wait for text. It is safe for concurrent use.
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

// String returns the text so far.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// Wait waits for the first match of pattern and returns the match and its groups. It fails the test if the test ends first.
func (l *Log) Wait(t testing.TB, pattern string) []string {
	t.Helper()
	for re := regexp.MustCompile(pattern); ; {
		text := l.String()
		if m := re.FindStringSubmatch(text); m != nil {
			return m
		}
		select {
		case <-l.more:
		case <-time.After(2 * time.Minute): // of silence
			t.Fatalf("no %s in\n%s", pattern, text)
		case <-t.Context().Done():
			t.Fatalf("no %s in\n%s", pattern, text)
		}
	}
}
