package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/middleware"
)

// flood asks what tokens in use notice of tokens that come only once.
func flood(b *bench) error {
	const (
		inUse = 1000
		every = 10 // so many one-time tokens between two requests in use
	)
	many, few := 10_000_000, 1_000_000
	if b.quick {
		many, few = 500_000, 200_000
	}
	t := &table{
		id: "flood", title: "A flood of one-time tokens", unit: "hit rate of the tokens in use, %",
		head: []string{"bounds", "one-time tokens", "requests in use", "hits of those in use", "most entries", "most bytes", "in use, before: p50, p99", "during: p50, p99"},
		note: fmt.Sprintf("Tokens that come once each, beside %d in use: after every %d one-time tokens comes one that is in use, in turn, so each is seen "+
			"again after %d others. The verifier is a cheap fake, since the memory is what is measured: a real one would make the flood a "+
			"hundred times slower. Entries and bytes are read every 10,000 tokens. The time is that of `Guard.DecideToken`, two readings of the clock included.",
			inUse, every, inUse*(every+1)),
	}
	b.tables = append(b.tables, t)
	for _, c := range []struct {
		name    string
		cache   middleware.Cache
		entries int
		bytes   int64
		count   int
	}{
		{"65,536 entries, 64 MiB (the default)", middleware.Cache{}, 1 << 16, 64 << 20, many},
		{"16,384 entries, 64 MiB", middleware.Cache{Entries: 1 << 14}, 1 << 14, 64 << 20, few},
		{"65,536 entries, 8 MiB", middleware.Cache{Bytes: 8 << 20}, 1 << 16, 8 << 20, few},
	} {
		var (
			until  = time.Now().Add(24 * time.Hour)
			claims = typical("000000000000")
			misses int // of tokens in use
		)
		g, err := guardWith(valetkey.VerifierFunc(func(_ context.Context, raw string) (*valetkey.Token, error) {
			if strings.HasPrefix(raw, "used-") {
				misses++
			}
			return valetkey.NewToken(valetkey.TokenFields{Issuer: issuerURL, Subject: "alice", Raw: string(claims), Expiry: until, Freshness: valetkey.Freshness{Until: until}}), nil
		}), c.cache)
		if err != nil {
			return err
		}
		verify := func(raw string) (time.Duration, error) {
			start := time.Now()
			err := g.guard.DecideToken(context.Background(), raw).Err()
			return time.Since(start), err
		}
		used := make([]string, inUse)
		for i := range used {
			used[i] = fmt.Sprintf("used-%012d", i)
		}
		var before, during []time.Duration
		for i := range 100 * inUse {
			took, err := verify(used[i%inUse])
			if err != nil {
				return err
			}
			before = append(before, took)
		}
		before, misses = before[inUse:], 0 // the first round was cold

		var most middleware.CacheStatus
		text := make([]byte, 0, 32)
		for i := range c.count {
			text = strconv.AppendInt(append(text[:0], "once-"...), int64(i), 10)
			if _, err := verify(string(text)); err != nil {
				return err
			}
			if i%every == 0 {
				took, err := verify(used[i/every%inUse])
				if err != nil {
					return err
				}
				during = append(during, took)
			}
			if i%10_000 == 0 {
				status := g.guard.Status().Cache
				most.Entries, most.Bytes = max(most.Entries, status.Entries), max(most.Bytes, status.Bytes)
			}
		}
		rate := 100 * (1 - float64(misses)/float64(len(during)))
		asked := len(during)
		before, during = sortedDurations(before), sortedDurations(during)
		t.rows = append(t.rows, []string{
			c.name, fmt.Sprint(c.count), fmt.Sprint(asked), fmt.Sprintf("%.3f %%", rate), fmt.Sprint(most.Entries), fmt.Sprint(most.Bytes),
			fmt.Sprintf("%v, %v", percentile(before, 0.5), percentile(before, 0.99)), fmt.Sprintf("%v, %v", percentile(during, 0.5), percentile(during, 0.99)),
		})
		t.bars = append(t.bars, bar{ours + ", " + c.name, quartiles{rate, rate, rate}})
		b.goals = append(b.goals, goal{"flood, " + c.name + ": hits of tokens in use", ">= 99 %", fmt.Sprintf("%.3f %%", rate), rate >= 99})
		b.count("flood, "+c.name+": most entries", float64(most.Entries), float64(c.entries), "")
		b.count("flood, "+c.name+": most bytes", float64(most.Bytes), float64(c.bytes), " B")
	}
	return nil
}
