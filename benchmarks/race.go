package main

import (
	"fmt"
	"math"
	"runtime"
	"slices"
	"sync"
	"time"
)

// An entrant is one candidate in a race.
type entrant struct {
	name    string
	do      func(t *token) error // one operation; an error ends the race
	workers int                  // goroutines that share the work; zero: 1

	// reset is called, off the clock, before tokens come a second time. Nil: they may.
	reset func()

	next, batch int
	laps        []float64 // ns an operation, one a round
}

// A result is the result of one entrant in a race. Ratios are of rounds: this one's time by the first one's in the same round.
type result struct {
	name      string
	ns, ratio quartiles
}

type quartiles struct{ low, median, high float64 }

func quartilesOf(values []float64) quartiles {
	sorted := slices.Sorted(slices.Values(values))
	at := func(share float64) float64 { return sorted[int(share*float64(len(sorted)-1)+0.5)] }
	return quartiles{at(0.25), at(0.5), at(0.75)}
}

// lap is how long an entrant runs before it is the next one's turn: short, so that whatever else the machine does meets
// all of them alike.
const lap = time.Millisecond

// race lets the entrants take turns for about the time of budget, beginning with another one each round. The ratios are
// to the first entrant.
func race(budget time.Duration, tokens []*token, entrants ...*entrant) ([]result, error) {
	for _, e := range entrants {
		if err := e.calibrate(tokens); err != nil {
			return nil, err
		}
	}
	runtime.GC()
	const fewest = 15 // rounds, however short the budget
	for start, round := time.Now(), 0; round < fewest || time.Since(start) < budget; round++ {
		for i := range entrants {
			e := entrants[(round+i)%len(entrants)]
			took, err := e.run(tokens)
			if err != nil {
				return nil, err
			}
			e.laps = append(e.laps, float64(took.Nanoseconds())/float64(e.batch))
		}
	}
	var results []result
	for _, e := range entrants {
		ratios := make([]float64, len(e.laps))
		for i, ns := range e.laps {
			ratios[i] = ns / entrants[0].laps[i]
		}
		results = append(results, result{e.name, quartilesOf(e.laps), quartilesOf(ratios)})
	}
	return results, nil
}

// calibrate finds the number of operations that fill a lap. Of several tries the shortest counts: a lap that was made too
// short, because the machine did something else meanwhile, would be over before the processor's caches are warm.
func (e *entrant) calibrate(tokens []*token) error {
	e.workers = max(1, e.workers)
	e.next, e.laps = 0, nil
	if e.reset != nil {
		e.reset()
	}
	for e.batch = e.workers; ; e.batch *= 2 {
		took := time.Duration(math.MaxInt64)
		for range 5 {
			again, err := e.run(tokens)
			if err != nil {
				return err
			}
			if took = min(took, again); took < lap {
				break
			}
		}
		if took >= lap || e.reset != nil && 2*e.batch > len(tokens) {
			e.batch = max(1, int(float64(e.batch)*min(1, float64(lap)/float64(took)))/e.workers) * e.workers
			return nil
		}
	}
}

// run does a batch of operations.
func (e *entrant) run(tokens []*token) (time.Duration, error) {
	if e.reset != nil && e.next+e.batch > len(tokens) {
		e.reset()
		e.next = 0
	}
	share := e.batch / e.workers
	work := func(worker int) error {
		for i := range share {
			// A worker has separate tokens, requests and responses.
			t := tokens[((e.next/e.workers+i)*e.workers+worker)%len(tokens)]
			if err := e.do(t); err != nil {
				return fmt.Errorf("%s: %w", e.name, err)
			}
		}
		return nil
	}
	defer func() { e.next += e.batch }()
	if e.workers == 1 {
		start := time.Now()
		err := work(0)
		return time.Since(start), err
	}
	var (
		group sync.WaitGroup
		errs  = make([]error, e.workers)
	)
	start := time.Now()
	for w := range e.workers {
		group.Go(func() { errs[w] = work(w) })
	}
	group.Wait()
	took := time.Since(start)
	for _, err := range errs {
		if err != nil {
			return 0, err
		}
	}
	return took, nil
}

// sortedDurations sorts all and returns it, for percentile.
func sortedDurations(all []time.Duration) []time.Duration {
	slices.Sort(all)
	return all
}

func percentile(sorted []time.Duration, share float64) time.Duration {
	return sorted[min(len(sorted)-1, int(share*float64(len(sorted))))]
}
