package main

import (
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/middleware"
)

func verifierAt(url string, transport http.RoundTripper) (*jwks.Verifier, error) {
	return jwks.New(jwks.Config{Issuer: issuerURL, Audience: []string{audience}, JWKSURL: url, Client: &http.Client{Transport: transport}})
}

// slowly is how long the issuer takes to answer.
const slowly = 20 * time.Millisecond

// rotation asks what requests with good tokens notice while the issuer changes its key.
func rotation(b *bench) error {
	cycles, phase := 10, 300*time.Millisecond
	if b.quick {
		cycles, phase = 3, 150*time.Millisecond
	}
	t := &table{
		id: "rotation", title: "Key rotation under load", unit: "ratio to before",
		head: []string{"tokens of the old key", "p50", "p99", "p99 / before", "quartiles"},
		note: fmt.Sprintf("A guard serves tokens of a key, nine in ten remembered and one never seen. Then the issuer, which takes %v to answer, "+
			"publishes a second key, and from then on another client sends tokens of that key only, never seen. "+
			"%d rotations, three phases of %v each: before, from the rotation on, after.", slowly, cycles, phase),
	}
	b.tables = append(b.tables, t)
	old, oldTokens, err := b.issuer("ES256")
	if err != nil {
		return err
	}
	next, err := newIssuer("ES256")
	if err != nil {
		return err
	}
	newTokens, err := next.tokens(manyTokens)
	if err != nil {
		return err
	}
	var (
		p50, p99, ratios [3][]float64
		firsts           []float64
		fetches          int64
	)
	for range cycles {
		c, err := rotate(old, next, oldTokens, newTokens, phase)
		if err != nil {
			return err
		}
		for i, all := range c.phases {
			sorted := sortedDurations(all)
			p50[i] = append(p50[i], float64(percentile(sorted, 0.5)))
			p99[i] = append(p99[i], float64(percentile(sorted, 0.99)))
			ratios[i] = append(ratios[i], p99[i][len(p99[i])-1]/p99[0][len(p99[0])-1])
		}
		firsts = append(firsts, float64(c.first))
		fetches = max(fetches, c.fetches)
	}
	for i, name := range []string{"before", "during", "after"} {
		q := quartilesOf(ratios[i])
		t.rows = append(t.rows, []string{name, nanoseconds(quartilesOf(p50[i]).median), nanoseconds(quartilesOf(p99[i]).median), number(q.median), spread(q)})
		t.bars = append(t.bars, bar{"p99 " + name, q})
	}
	t.note += fmt.Sprintf(" The first token of the new key was answered after %s (median), %d fetches in all at most.", nanoseconds(quartilesOf(firsts).median), fetches)
	b.goalAtMost("rotation: p99 of good tokens, during / before", quartilesOf(ratios[1]), 2)
	return nil
}

type cycle struct {
	phases  [3][]time.Duration // of requests with tokens of the old key
	first   time.Duration      // until the first token of the new key was answered
	fetches int64
}

func rotate(old, next *issuer, oldTokens, newTokens []*token, phase time.Duration) (*cycle, error) {
	var (
		published atomic.Pointer[[]byte]
		c         = new(cycle)
		fetches   atomic.Int64
	)
	publish := func(set []byte) { published.Store(&set) }
	publish(keys(old))
	addr, end, err := serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fetches.Add(1)
		time.Sleep(slowly)
		w.Header().Set("Content-Type", "application/json")
		w.Write(*published.Load())
	}))
	if err != nil {
		return nil, err
	}
	defer end()
	v, err := verifierAt("http://"+addr+"/jwks", http.DefaultTransport)
	if err != nil {
		return nil, err
	}
	defer v.Close()
	g, err := guardWith(v, middleware.Cache{})
	if err != nil {
		return nil, err
	}
	warm, fresh := oldTokens[:fewTokens], oldTokens[fewTokens:]
	for _, t := range warm { // the first fetches the keys
		if err := t.serve(g.handler); err != nil {
			return nil, err
		}
	}
	var (
		other    sync.WaitGroup
		stop     atomic.Bool
		otherErr error
	)
	begun := time.Now()
	for n := 0; ; n++ {
		since := time.Since(begun)
		at := int(since / phase)
		if at == len(c.phases) {
			break
		}
		if at == 1 && len(c.phases[1]) == 0 {
			publish(keys(old, next))
			rotated := time.Now()
			other.Go(func() {
				for i := 0; !stop.Load() && i < len(newTokens); i++ {
					if otherErr = newTokens[i].serve(g.handler); otherErr != nil {
						return
					}
					if i == 0 {
						c.first = time.Since(rotated)
					}
					time.Sleep(100 * time.Microsecond)
				}
			})
		}
		t := warm[n%len(warm)]
		if n%10 == 0 {
			i := n / 10 % len(fresh)
			if i == 0 && n > 0 {
				return nil, errors.New("the tokens that were never seen have run out")
			}
			t = fresh[i]
		}
		start := time.Now()
		if err := t.serve(g.handler); err != nil {
			return nil, fmt.Errorf("a good token: %w", err)
		}
		c.phases[at] = append(c.phases[at], time.Since(start))
		time.Sleep(20 * time.Microsecond)
	}
	stop.Store(true)
	other.Wait()
	c.fetches = fetches.Load()
	return c, otherErr
}
