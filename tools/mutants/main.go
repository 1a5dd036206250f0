// Command mutants measures the tests of packages: it changes the source in small ways, one at a time, and reports the changes that the tests of
// the package do not notice.
//
//	mutants -seed 1 -sample 100 ./internal/jose ./middleware
//
// It runs in the root of the module. No file is changed: each mutant is an overlay of the go command. A mutant is killed if the package's own
// tests fail or exceed the timeout, and survives if they pass or do not execute the changed statement. A mutant that does not compile does not
// count. -sample chooses at most so many mutants of each package, the same ones for the same seed and source; 0 takes all. With -run FILE:LINE,
// only the mutants of that line are run. The exit code is 1 if mutants survive that the file of -explained does not list.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// The outcomes of a mutant.
const (
	killed    = "killed"
	timeout   = "timeout" // counts as killed
	survived  = "survived"
	uncovered = "uncovered" // counts as survived: no test executes the statement
	invalid   = "invalid"   // does not compile
)

type options struct {
	seed      uint64
	sample    int
	parallel  int
	line      string
	explained map[string]bool
}

func main() {
	var o options
	flag.Uint64Var(&o.seed, "seed", 1, "seed of the sample")
	flag.IntVar(&o.sample, "sample", 0, "greatest number of mutants of a package; 0: all")
	flag.IntVar(&o.parallel, "parallel", 2, "mutants at a time")
	flag.StringVar(&o.line, "run", "", "FILE:LINE, as in a report: only these mutants")
	file := flag.String("explained", "", "document whose lines in backquotes are survivors that may stay")
	flag.Parse()
	o.explained = map[string]bool{}
	if *file != "" {
		text, err := os.ReadFile(*file)
		if err != nil {
			fatal(err)
		}
		for i, part := range strings.Split(string(text), "`") {
			if i%2 == 1 {
				o.explained[part] = true
			}
		}
	}
	unexplained := 0
	for _, dir := range flag.Args() {
		n, err := o.measure(dir)
		if err != nil {
			fatal(fmt.Errorf("%s: %w", dir, err))
		}
		unexplained += n
	}
	if unexplained > 0 {
		os.Exit(1)
	}
}

func fatal(err error) {
	fmt.Fprintln(os.Stderr, "mutants:", err)
	os.Exit(2)
}

// measure runs the mutants of one package and returns the number of survivors without an explanation.
func (o options) measure(dir string) (int, error) {
	dir = filepath.ToSlash(filepath.Clean(dir))
	out, err := exec.Command("go", "list", "-f", `{{join .GoFiles "\n"}}`, "./"+dir).Output()
	if err != nil {
		return 0, err
	}
	sources := map[string][]byte{}
	var all []Mutant
	for name := range strings.FieldsSeq(string(out)) {
		path := dir + "/" + name
		if sources[path], err = os.ReadFile(path); err != nil {
			return 0, err
		}
		found, err := Mutants(path, sources[path])
		if err != nil {
			return 0, err
		}
		all = append(all, found...)
	}
	total := len(all)
	switch {
	case o.line != "":
		all = slices.DeleteFunc(all, func(m Mutant) bool { return fmt.Sprintf("%s:%d", m.File, m.Line) != o.line })
	case o.sample > 0 && o.sample < total:
		rand.New(rand.NewPCG(o.seed, 0)).Shuffle(total, func(i, j int) { all[i], all[j] = all[j], all[i] })
		all = all[:o.sample]
	}
	work, err := os.MkdirTemp("", "mutants")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(work)
	profile := filepath.Join(work, "profile")
	began := time.Now()
	if text, err := exec.Command("go", "test", "-count=1", "-vet=off", "-coverprofile="+profile, "./"+dir).CombinedOutput(); err != nil {
		return 0, fmt.Errorf("the tests fail without a mutant: %w\n%s", err, text)
	}
	limit := 5*time.Since(began) + 10*time.Second
	covered, err := readProfile(profile, dir)
	if err != nil {
		return 0, err
	}
	outcomes := make([]string, len(all))
	var wg sync.WaitGroup
	next := make(chan int)
	for worker := range o.parallel {
		wg.Go(func() {
			for i := range next {
				outcomes[i] = uncovered
				if covered(all[i]) {
					outcomes[i] = run(all[i], sources[all[i].File], "./"+dir, filepath.Join(work, strconv.Itoa(worker)), limit)
				}
			}
		})
	}
	for i := range all {
		next <- i
	}
	close(next)
	wg.Wait()

	count := map[string]int{}
	var lines []string
	unexplained := 0
	for i, m := range all {
		count[outcomes[i]]++
		if outcomes[i] == survived || outcomes[i] == uncovered {
			line := m.Describe(sources[m.File])
			note := ""
			if o.explained[line] {
				note = " (explained)"
			} else {
				unexplained++
			}
			lines = append(lines, fmt.Sprintf("  %s %s%s", outcomes[i], line, note))
		}
	}
	valid := len(all) - count[invalid]
	dead := count[killed] + count[timeout]
	fmt.Printf("%s: %d of %d mutants tried, %d valid, %d killed (%d by time), %d survived, %d of them not covered: %.1f %%, %s\n", dir, len(all), total, valid, dead,
		count[timeout], valid-dead, count[uncovered], 100*float64(dead)/float64(max(valid, 1)), time.Since(began).Round(time.Second))
	slices.Sort(lines)
	for _, line := range lines {
		fmt.Println(line)
	}
	return unexplained, nil
}

// run runs the tests of a package with one mutant, in a folder that only this worker uses.
func run(m Mutant, source []byte, pkg, work string, limit time.Duration) string {
	original, err := filepath.Abs(m.File)
	if err != nil {
		fatal(err)
	}
	if err := os.MkdirAll(work, 0o755); err != nil {
		fatal(err)
	}
	mutated, overlay := filepath.Join(work, "mutant.go"), filepath.Join(work, "overlay.json")
	if err := os.WriteFile(mutated, m.Apply(source), 0o644); err != nil {
		fatal(err)
	}
	replace, err := json.Marshal(map[string]any{"Replace": map[string]string{original: mutated}})
	if err != nil {
		fatal(err)
	}
	if err := os.WriteFile(overlay, replace, 0o644); err != nil {
		fatal(err)
	}
	binary := filepath.Join(work, "package.test")
	if exec.Command("go", "test", "-c", "-vet=off", "-overlay="+overlay, "-o", binary, pkg).Run() != nil {
		return invalid
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, "-test.failfast", "-test.count=1")
	cmd.Dir = filepath.Dir(original)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // servers that tests started end with them
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	err = cmd.Run()
	switch {
	case ctx.Err() != nil:
		return timeout
	case err == nil:
		return survived
	}
	return killed
}

// readProfile reads a coverage profile of the package in dir. The result reports whether a test executes a part of the statement of a mutant.
func readProfile(path, dir string) (func(Mutant) bool, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	type block struct{ start, end Position }
	executed := map[string][]block{}
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		name, rest, ok := strings.Cut(lines.Text(), ":")
		if !ok || name == "mode" {
			continue
		}
		var b block
		var statements, times int
		if _, err := fmt.Sscanf(rest, "%d.%d,%d.%d %d %d", &b.start.Line, &b.start.Column, &b.end.Line, &b.end.Column, &statements, &times); err != nil {
			return nil, errors.Join(errors.New("coverage profile"), err)
		}
		if times > 0 {
			file := dir + "/" + name[strings.LastIndex(name, "/")+1:]
			executed[file] = append(executed[file], b)
		}
	}
	before := func(a, b Position) bool { return a.Line < b.Line || a.Line == b.Line && a.Column < b.Column }
	return func(m Mutant) bool {
		return slices.ContainsFunc(executed[m.File], func(b block) bool { return before(b.start, m.End) && before(m.Start, b.end) })
	}, nil
}
