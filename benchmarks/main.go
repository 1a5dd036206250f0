// Command benchmarks holds Valetkey against its peers, on the same tokens in one run, and writes docs/benchmarks.md, whose
// table of sizes that docs/dependencies.md quotes.
//
//	GOWORK=off go run .           all questions, about 10 minutes on two cores
//	GOWORK=off go run . -quick    in about two, with wider spreads, without the sizes and oauth2-proxy; prints the goals, writes nothing
//	GOWORK=off go run . -only cold-verifiers,warm-floor -docs folder
//
// Before anything is timed, every candidate is proven to accept a good token and to refuse forged ones.
package main

import (
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// questions in the order of the document.
var questions = []struct {
	name string
	ask  func(*bench) error
}{
	{"cold-verifiers", coldVerifiers},
	{"cold-guards", coldGuards},
	{"warm-guards", warmGuards},
	{"warm-floor", warmFloor},
	{"parallel", parallel},
	{"loopback", loopback},
	{"introspection", introspection},
	{"dpop", proofs},
	{"policy", policy},
	{"memory", memory},
	{"flood", flood},
	{"rotation", rotation},
	{"start", start},
	{"gateways", gateways},
	{"size", size},
}

func main() {
	quick := flag.Bool("quick", false, "shorter races and smaller memories")
	docs := flag.String("docs", "", "the folder that benchmarks.md is written to; default: ../docs for a whole run, else none")
	only := flag.String("only", "", "names of questions, separated by commas; empty: all")
	flag.Parse()
	if *docs == "" && !*quick && *only == "" {
		*docs = filepath.Join("..", "docs")
	}
	if err := run(*quick, *docs, *only); err != nil {
		fmt.Fprintln(os.Stderr, "benchmarks:", err) // log prints nothing since run has silenced slog
		os.Exit(1)
	}
}

func newBench(quick bool) *bench {
	b := &bench{budget: 9 * time.Second, quick: quick, load: loadAverage(), issuers: map[string]*issuer{}, minted: map[string][]*token{}}
	if quick {
		b.budget = time.Second
	}
	return b
}

func run(quick bool, docs, only string) error {
	slog.SetDefault(slog.New(slog.DiscardHandler)) // the log lines of refreshes are not part of the benchmark
	begun := time.Now()
	b := newBench(quick)
	t, err := proofTable()
	if err != nil {
		return fmt.Errorf("proof: %w", err)
	}
	b.tables = append(b.tables, t)
	for _, q := range questions {
		if only == "" && quick && q.name == "size" { // builds a dozen programs
			continue
		}
		if only != "" && !slices.Contains(strings.Split(only, ","), q.name) {
			continue
		}
		start := time.Now()
		if err := q.ask(b); err != nil {
			return fmt.Errorf("%s: %w", q.name, err)
		}
		fmt.Fprintf(os.Stderr, "%-15s %v\n", q.name, time.Since(start).Round(time.Second/10))
	}
	for _, g := range b.goals {
		fmt.Printf("%-8s %-60s %-10s %s\n", map[bool]string{true: "met", false: "NOT MET"}[g.met], g.what, g.wanted, g.measured)
	}
	if docs == "" {
		return nil
	}
	if err := b.write(docs, time.Since(begun)); err != nil {
		return err
	}
	if only != "" { // a look at one question, not the document
		return nil
	}
	return b.quoteSizes(filepath.Join(docs, "dependencies.md"))
}
