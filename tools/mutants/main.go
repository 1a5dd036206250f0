// Command mutants measures the tests of packages: it changes the source in small ways, one at a time, and reports the changes that the tests of
// the package do not notice.
//
//	mutants -seed 1 -sample 100 ./internal/jose ./middleware
//
// It runs in the root of the module and changes no file. All mutants of a package are compiled into one test binary, each behind a switch that an
// environment variable turns on. Each test first runs alone and without a mutant, to learn which mutants it reaches and how long it takes. Then
// each mutant runs with the tests that reach it, the most specific and the quick ones first.
//
// A mutant is killed if a test fails twice, or if the tests take more than five times as long as before, plus ten seconds, and then more than 15
// times, plus ten seconds. It survives if they pass, or if no test reaches it. -sample chooses at most so many mutants of each package, the same
// ones for the same seed and source; 0 takes all. With -run, only the mutants whose FILE:LINE: begins with one of the given texts, separated by
// commas, are run; with -again, only those that the named file, the output of an earlier run with -why, does not list as killed. -skip leaves out
// tests, such as a slow one. -parallel is the number of mutants that run at the same time; more than the number of cores suit tests that wait. -why prints which
// test killed each mutant. -keep keeps the folder of the binary. The exit code is 1 if mutants survive that the file of -explained does not name,
// or if it names mutants of a package that do not exist or are killed.
package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

type options struct {
	seed      uint64
	sample    int
	parallel  int
	line      string
	skip      string
	killed    map[string]bool // names
	why, keep bool
	explained []string
}

func main() {
	var o options
	flag.Uint64Var(&o.seed, "seed", 1, "seed of the sample")
	flag.IntVar(&o.sample, "sample", 0, "greatest number of mutants of a package; 0: all")
	flag.IntVar(&o.parallel, "parallel", 2, "mutants at a time")
	flag.StringVar(&o.line, "run", "", "only the mutants whose FILE:LINE: begins with one of these, separated by commas")
	flag.StringVar(&o.skip, "skip", "", "regular expression of the tests to leave out")
	flag.BoolVar(&o.why, "why", false, "print the test that killed each mutant")
	flag.BoolVar(&o.keep, "keep", false, "keep the folder of the binary")
	earlier := flag.String("again", "", "output of an earlier run with -why: only the mutants that it does not list as killed")
	file := flag.String("explained", "", "document whose text in backquotes names the survivors that may stay")
	flag.Parse()
	if *file != "" {
		text, err := os.ReadFile(*file)
		if err != nil {
			fatal(err)
		}
		for i, part := range strings.Split(string(text), "`") {
			if i%2 == 1 && strings.Contains(part, ".go ") {
				o.explained = append(o.explained, part)
			}
		}
	}
	if *earlier != "" {
		text, err := os.ReadFile(*earlier)
		if err != nil {
			fatal(err)
		}
		o.killed = Killed(text)
	}
	failed := false
	for _, dir := range flag.Args() {
		ok, err := o.measure(dir)
		if err != nil {
			fatal(fmt.Errorf("%s: %w", dir, err))
		}
		failed = failed || !ok
	}
	if failed {
		os.Exit(1)
	}
}

var dead = regexp.MustCompile(`(?m)^  (?:` + killed + `|` + timeout + `) line \d+: (.*) by `)

// Killed returns the names of the mutants that were killed, from the output of this command with -why.
func Killed(output []byte) map[string]bool {
	names := map[string]bool{}
	for _, m := range dead.FindAllSubmatch(output, -1) {
		names[string(m[1])] = true
	}
	return names
}

func fatal(err error) {
	fmt.Fprintln(os.Stderr, "mutants:", err)
	os.Exit(2)
}

// measure runs the mutants of one package and reports whether all survivors are explained.
func (o options) measure(dir string) (bool, error) {
	dir = filepath.ToSlash(filepath.Clean(dir))
	work, err := os.MkdirTemp("", "mutants")
	if err != nil {
		return false, err
	}
	if o.keep {
		fmt.Println(work)
	} else {
		defer os.RemoveAll(work)
	}
	began := time.Now()
	binary, all, err := build(dir, work)
	if err != nil {
		return false, err
	}
	tests, err := calm(binary, dir, work, o.skip)
	if err != nil {
		return false, err
	}
	chosen := make([]int, len(all))
	for i := range chosen {
		chosen[i] = i
	}
	switch {
	case o.line != "":
		chosen = slices.DeleteFunc(chosen, func(i int) bool {
			at := fmt.Sprintf("%s:%d:", all[i].File, all[i].Line)
			return !slices.ContainsFunc(strings.Split(o.line, ","), func(place string) bool { return strings.HasPrefix(at, place) })
		})
	case o.killed != nil:
		chosen = slices.DeleteFunc(chosen, func(i int) bool { return o.killed[all[i].Name()] })
	case o.sample > 0 && o.sample < len(all):
		rand.New(rand.NewPCG(o.seed, 0)).Shuffle(len(chosen), func(i, j int) { chosen[i], chosen[j] = chosen[j], chosen[i] })
		chosen = chosen[:o.sample]
		slices.Sort(chosen)
	}
	fmt.Printf("%s: %d mutants, %d to run\n", dir, len(all), len(chosen))
	var (
		mu        sync.Mutex
		count     = map[string]int{}
		explained int
		ok        = true
		tried     = map[string]string{}
	)
	report := func(m Mutant, outcome, reason string) {
		mu.Lock()
		defer mu.Unlock()
		count[outcome]++
		tried[m.Name()] = outcome
		note := ""
		switch {
		case outcome != survived && outcome != uncovered:
			if !o.why {
				return
			}
			note = " by " + reason
		case slices.Contains(o.explained, m.Name()):
			explained++
			note = " (explained)"
		default:
			ok = false
		}
		fmt.Printf("  %s line %d: %s%s\n", outcome, m.Line, m.Name(), note)
	}
	var wg sync.WaitGroup
	next := make(chan int)
	for range o.parallel {
		wg.Go(func() {
			for i := range next {
				outcome, reason := run(binary, dir, i, tests)
				report(all[i], outcome, reason)
			}
		})
	}
	for _, i := range chosen {
		next <- i
	}
	close(next)
	wg.Wait()

	dead := count[killed] + count[timeout]
	fmt.Printf("%s: %d mutants, %d run, %d killed (%d by time), %d survived (%d not reached by a test, %d explained): %.1f %% killed, %s\n", dir, len(all), len(chosen), dead,
		count[timeout], len(chosen)-dead, count[uncovered], explained, 100*float64(dead)/float64(max(len(chosen), 1)), time.Since(began).Round(time.Second))
	for _, name := range o.explained {
		outcome := tried[name]
		known := slices.ContainsFunc(all, func(m Mutant) bool { return m.Name() == name })
		if file, _, _ := strings.Cut(name, " "); filepath.ToSlash(filepath.Dir(file)) == dir && (!known || outcome == killed || outcome == timeout) {
			fmt.Printf("  explained, but %s: %s\n", map[bool]string{true: "killed", false: "no such mutant"}[known], name)
			ok = false
		}
	}
	return ok, nil
}

// support is added to a package under test. The variables and the function are named so that they collide with no other.
const support = `package %s

import (
	"os"
	"strconv"
	"sync/atomic"
)

var mutantNumber, mutantRecord = func() (int, *os.File) {
	number, err := strconv.Atoi(os.Getenv("MUTANT"))
	if err != nil {
		number = -1
	}
	if name := os.Getenv("MUTANT_RECORD"); name != "" {
		file, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
		if err != nil {
			panic(err)
		}
		return number, file
	}
	return number, nil
}()

var mutantReached [%d]atomic.Bool

func mutantOn(n int) bool {
	if mutantRecord != nil {
		mutantReach(n)
	}
	return n == mutantNumber
}

//go:noinline
func mutantReach(n int) {
	if !mutantReached[n].Swap(true) {
		mutantRecord.WriteString(strconv.Itoa(n) + "\n")
	}
}
`

// build compiles the test binary of a package with all its mutants.
func build(dir, work string) (binary string, all []Mutant, err error) {
	out, err := exec.Command("go", "list", "-f", `{{.Name}} {{.Dir}} {{join .GoFiles " "}}`, "./"+dir).Output()
	if err != nil {
		return "", nil, err
	}
	fields := strings.Fields(string(out))
	pkg, folder, names := fields[0], fields[1], fields[2:]
	replace := map[string]string{}
	write := func(name string, content []byte) error {
		replace[filepath.Join(folder, name)] = filepath.Join(work, name)
		return os.WriteFile(filepath.Join(work, name), content, 0o644)
	}
	for _, name := range names {
		source, err := os.ReadFile(filepath.Join(folder, name))
		if err != nil {
			return "", nil, err
		}
		found, err := Mutants(dir+"/"+name, source)
		if err != nil {
			return "", nil, err
		}
		if err := write(name, Schemata(source, found, "mutantOn", len(all))); err != nil {
			return "", nil, err
		}
		all = append(all, found...)
	}
	if err := write("mutants_support.go", fmt.Appendf(nil, support, pkg, len(all))); err != nil {
		return "", nil, err
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", nil, err
	}
	if err := os.WriteFile(filepath.Join(work, "overlay.json"), overlay, 0o644); err != nil {
		return "", nil, err
	}
	binary = filepath.Join(work, "package.test")
	if text, err := exec.Command("go", "test", "-c", "-vet=off", "-overlay="+filepath.Join(work, "overlay.json"), "-o", binary, "./"+dir).CombinedOutput(); err != nil {
		return "", nil, fmt.Errorf("the package with the mutants does not compile: %w\n%s", err, text)
	}
	return binary, all, nil
}

// calm runs each test of the binary alone, without a mutant, except those whose name matches skip; "": all.
func calm(binary, dir, work, skip string) ([]Test, error) {
	left, err := regexp.Compile(cmp.Or(skip, "^$"))
	if err != nil {
		return nil, err
	}
	list := exec.Command(binary, "-test.list=.")
	list.Dir = dir
	out, err := list.Output()
	if err != nil {
		return nil, err
	}
	var tests []Test
	for name := range strings.FieldsSeq(string(out)) {
		if strings.HasPrefix(name, "Benchmark") || left.MatchString(name) {
			continue
		}
		record := filepath.Join(work, name)
		began := time.Now()
		text, ended, err := execute(binary, dir, 10*time.Minute, []string{name}, "MUTANT_RECORD="+record)
		if ended == killed { // by chance, unless it fails again
			began = time.Now()
			text, ended, err = execute(binary, dir, 10*time.Minute, []string{name}, "MUTANT_RECORD="+record)
		}
		if err != nil {
			return nil, err
		}
		if ended != survived {
			return nil, fmt.Errorf("%s fails without a mutant:\n%s", name, text)
		}
		t := Test{Name: name, Took: time.Since(began), reaches: map[int]bool{}}
		reached, err := os.ReadFile(record)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		for line := range strings.FieldsSeq(string(reached)) {
			n, err := strconv.Atoi(line)
			if err != nil {
				return nil, err
			}
			t.reaches[n] = true
		}
		tests = append(tests, t)
	}
	slices.SortStableFunc(tests, func(a, b Test) int { return len(a.reaches) - len(b.reaches) })
	return tests, nil
}

// run runs the tests that reach a mutant.
func run(binary, dir string, mutant int, tests []Test) (outcome, reason string) {
	// Three runs, as few of them as it takes: the tests that reach the fewest mutants, which are often those of the changed function, then the
	// other quick ones, then the slow ones.
	var batches [3]Batch
	for _, t := range tests {
		if !t.reaches[mutant] {
			continue
		}
		b := &batches[2]
		switch {
		case t.Took < time.Second && len(batches[0]) < 3:
			b = &batches[0]
		case t.Took < time.Second:
			b = &batches[1]
		}
		*b = append(*b, t)
	}
	outcome = uncovered
	for _, b := range batches {
		if len(b) == 0 {
			continue
		}
		outcome, reason = b.Run(func(names []string, limit time.Duration) ([]byte, string) {
			text, ended, err := execute(binary, dir, limit, names, "MUTANT="+strconv.Itoa(mutant))
			if err != nil {
				fatal(err)
			}
			return text, ended
		})
		if outcome != survived {
			return outcome, reason
		}
	}
	return outcome, ""
}

// interrupted ends with this command, so that no test outlives it, such as an endless one.
var interrupted, _ = signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)

// execute runs tests with a variable added to the environment.
func execute(binary, dir string, limit time.Duration, names []string, variable string) (output []byte, outcome string, err error) {
	ctx, cancel := context.WithTimeout(interrupted, limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, "-test.failfast", "-test.count=1", "-test.run=^("+strings.Join(names, "|")+")$")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), variable)
	var text bytes.Buffer
	cmd.Stdout, cmd.Stderr = &text, &text
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // servers that tests started end with them
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	err = cmd.Run()
	var exit *exec.ExitError
	switch {
	case interrupted.Err() != nil:
		return nil, "", errors.New("interrupted")
	case ctx.Err() != nil:
		return text.Bytes(), timeout, nil
	case err == nil:
		return text.Bytes(), survived, nil
	case errors.As(err, &exit):
		return text.Bytes(), killed, nil
	}
	return nil, "", err
}
