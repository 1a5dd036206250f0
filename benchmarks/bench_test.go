package main

import (
	"errors"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/valetkey/valetkey/middleware"
)

// TestCandidates proves that every candidate accepts a good token and refuses forged ones, and that we refuse all.
func TestCandidates(t *testing.T) {
	for _, algorithm := range algorithms {
		iss, err := newIssuer(algorithm)
		if err != nil {
			t.Fatal(err)
		}
		all, err := candidates(iss)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range all {
			t.Run(algorithm+"/"+c.name, func(t *testing.T) {
				seen, err := prove(c, iss)
				if err != nil {
					t.Fatal(err)
				}
				for _, attack := range attacks {
					if c.name == ours && !seen[attack] {
						t.Errorf("accepted: %s", attack)
					}
				}
			})
		}
	}
}

func TestQuartiles(t *testing.T) {
	q := quartilesOf([]float64{5, 1, 4, 2, 3})
	if want := (quartiles{2, 3, 4}); q != want {
		t.Errorf("%v in place of %v", q, want)
	}
}

// TestRace holds the race to its rules. None is about time: that is what the race is for.
func TestRace(t *testing.T) {
	iss, err := newIssuer("ES256")
	if err != nil {
		t.Fatal(err)
	}
	tokens, err := iss.tokens(64)
	if err != nil {
		t.Fatal(err)
	}
	t.Run("an entrant that refuses a token ends it", func(t *testing.T) {
		bad := errors.New("bad")
		_, err := race(0, tokens, &entrant{name: "good", do: iss.raw()}, &entrant{name: "bad", do: func(*token) error { return bad }})
		if !errors.Is(err, bad) {
			t.Errorf("%v", err)
		}
	})
	t.Run("the first is the measure, and no token comes again without a reset", func(t *testing.T) {
		seen, resets := map[*token]bool{}, 0
		results, err := race(0, tokens, &entrant{name: "first", do: iss.raw()}, &entrant{name: "cold", reset: func() { clear(seen); resets++ }, do: func(tok *token) error {
			if seen[tok] {
				t.Error("a token came a second time")
			}
			seen[tok] = true
			return iss.raw()(tok)
		}})
		if err != nil {
			t.Fatal(err)
		}
		if first := find(results, "first").ratio; first != (quartiles{1, 1, 1}) {
			t.Errorf("%v", first)
		}
		if resets < 2 {
			t.Errorf("%d resets", resets)
		}
	})
	t.Run("each worker has separate tokens", func(t *testing.T) {
		var busy [64]atomic.Bool
		index := map[*token]int{}
		for i, tok := range tokens {
			index[tok] = i
		}
		if _, err := race(0, tokens, &entrant{name: "eight", workers: 8, do: func(tok *token) error {
			if busy[index[tok]].Swap(true) {
				t.Error("two workers have one token")
			}
			err := iss.raw()(tok)
			busy[index[tok]].Store(false)
			return err
		}}); err != nil {
			t.Fatal(err)
		}
	})
}

// BenchmarkCold and BenchmarkWarm are for benchstat: go test -bench . -count 10. Tokens repeat after 1024, which only a
// memory would notice, so ours is emptied then.
func BenchmarkCold(b *testing.B) { eachCandidate(b, middleware.Cache{}, manyTokens, true) }

func BenchmarkWarm(b *testing.B) { eachCandidate(b, middleware.Cache{}, fewTokens, false) }

func eachCandidate(b *testing.B, cache middleware.Cache, n int, forget bool) {
	for _, algorithm := range algorithms {
		iss, err := newIssuer(algorithm)
		if err != nil {
			b.Fatal(err)
		}
		tokens, err := iss.tokens(n)
		if err != nil {
			b.Fatal(err)
		}
		run := func(name string, do func(*token) error, again func()) {
			b.Run(algorithm+"/"+name, func(b *testing.B) {
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					if i%n == 0 && again != nil {
						b.StopTimer()
						again()
						b.StartTimer()
					}
					if err := do(tokens[i%n]); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
		g, err := iss.guarded(cache)
		if err != nil {
			b.Fatal(err)
		}
		var again func()
		if forget {
			again = func() { g.guard.Purge(nil) }
			run("verifier/raw signature", iss.raw(), nil)
		}
		run("guard/"+ours, func(t *token) error { return t.serve(g.handler) }, again)
		if !forget {
			run("look-up/"+ours, func(t *token) error {
				return g.guard.Decide(t.request).Err()
			}, nil)
		}
		all, err := candidates(iss)
		if err != nil {
			b.Fatal(err)
		}
		for _, c := range slices.DeleteFunc(all, func(c candidate) bool { return c.verify == nil || !forget }) {
			run("verifier/"+c.name, func(t *token) error { return c.verify(t.raw) }, nil)
		}
		guards, err := peerGuards(iss)
		if err != nil {
			b.Fatal(err)
		}
		for _, e := range guards {
			run("guard/"+e.name, e.do, nil)
		}
	}
}
