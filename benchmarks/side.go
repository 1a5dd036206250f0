package main

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A process is a program under test, which listens on loopback.
type process struct {
	addr string
	cmd  *exec.Cmd
	log  *output
}

// An output keeps the beginning of what a program writes.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.text.Len() < 1<<16 {
		o.text.Write(p)
	}
	return len(p), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// freeAddr returns an address on loopback with a port that was free.
func freeAddr() (string, error) {
	for range 100 {
		if l, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", 10_000+rand.N(20_000))); err == nil { // below the ephemeral ports
			defer l.Close()
			return l.Addr().String(), nil
		}
	}
	return "", errors.New("no port is free")
}

// startProcess runs a program that will listen on addr and waits until it does.
func startProcess(addr, path string, env []string, args ...string) (*process, error) {
	p := &process{addr: addr, cmd: exec.Command(path, args...), log: &output{}}
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	for begun := time.Now(); time.Since(begun) < 20*time.Second; time.Sleep(10 * time.Millisecond) {
		if c, err := net.Dial("tcp", addr); err == nil {
			c.Close()
			return p, nil
		}
	}
	p.stop()
	return nil, fmt.Errorf("%s does not listen: %s", filepath.Base(path), p.log)
}

func (p *process) stop() {
	p.cmd.Process.Kill()
	p.cmd.Wait()
}

// resident returns the resident memory in MB.
func (p *process) resident() (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(text), "\nVmRSS:")
	value, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
	kb, err := strconv.ParseFloat(value, 64)
	return kb / 1000, err
}

// processor returns the processor time that the program has used. Linux counts it in hundredths of a second.
func (p *process) processor() (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:])) // behind the name, from the third on
	if len(fields) < 13 {
		return 0, fmt.Errorf("%d fields in /proc/*/stat", len(fields))
	}
	var ticks int64
	for _, f := range fields[11:13] { // user and system
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}

// A side is one of the programs that compete under load.
type side struct {
	name    string
	process *process
	idle    float64                             // MB of resident memory before the first request
	run     func(d time.Duration) (turn, error) // loads it for some time

	turns []turn
}

// A turn is what became of some time under load.
type turn struct {
	rate float64         // operations per second
	p99  time.Duration   // of their times
	all  []time.Duration // unsorted; empty once p99 is known
}

// An outcome compares a side with the first one, in the same round.
type outcome struct {
	*side
	rate result    // time of the machine an operation, and the ratio of operations per second
	p99  quartiles // ratio of the times that 99 % of the operations stay below
}

// sustained is the time under load before the memory is measured.
const sustained = 3 * time.Second

// compare lets the sides take turns under load, adds a row for each to t, and returns the outcomes. The columns of t are operations
// per second, p99, its ratio, the processor time of the program per operation, and the two memories; see [sideColumns].
func (b *bench) compare(t *table, sides ...*side) ([]outcome, error) {
	for start, round := time.Now(), 0; round < 5 || time.Since(start) < 2*b.budget; round++ {
		for i := range sides {
			s := sides[(round+i)%len(sides)]
			got, err := s.run(shift)
			if err != nil {
				return nil, errors.Join(fmt.Errorf("%s: %w", s.name, err), errors.New(s.process.log.String()))
			}
			if round > 0 { // the first warms up
				got.p99, got.all = percentile(sortedDurations(got.all), 0.99), nil
				s.turns = append(s.turns, got)
			}
		}
	}
	var outcomes []outcome
	for _, s := range sides {
		load := sustained
		if b.quick {
			load /= 10
		}
		before, err := s.process.processor()
		if err != nil {
			return nil, err
		}
		last, err := s.run(load)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
		after, err := s.process.processor()
		if err != nil {
			return nil, err
		}
		used := float64(after-before) / float64(len(last.all))
		loaded, err := s.process.resident()
		if err != nil {
			return nil, err
		}
		n := len(s.turns)
		times, rates, p99s, slower := make([]float64, n), make([]float64, n), make([]float64, n), make([]float64, n)
		for i, got := range s.turns {
			first := sides[0].turns[i]
			times[i], rates[i] = 1e9/got.rate, got.rate/first.rate
			p99s[i], slower[i] = float64(got.p99), float64(got.p99)/float64(first.p99)
		}
		o := outcome{s, result{s.name, quartilesOf(times), quartilesOf(rates)}, quartilesOf(slower)}
		t.add(o.rate, "", number(1e9/o.rate.ns.median), nanoseconds(quartilesOf(p99s).median), number(o.p99.median), nanoseconds(used), megabytes(s.idle), megabytes(loaded))
		outcomes = append(outcomes, o)
	}
	return outcomes, nil
}

// sideColumns are the columns of a table of [bench.compare] before those that every table ends with.
var sideColumns = []string{"program", "requests/s", "p99", "p99 ratio", "processor", "memory idle", "under load"}
