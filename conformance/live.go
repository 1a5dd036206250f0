package conformance

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A live server is that of a group. If it ends, another process takes its place, at another address.
type live struct {
	info  serverInfo
	setup Setup
	stop  func()
	done  <-chan struct{} // as Server.Done
	err   func() error    // as Server.Err
}

// ended reports whether the server no longer runs. It looks for 250 ms, because a program closes a connection, or responds, before it ends.
func (s *live) ended(ctx context.Context) bool {
	for range 10 {
		if !s.accepts(ctx) {
			return ctx.Err() == nil
		}
		select {
		case <-s.done:
			return true
		case <-ctx.Done():
			return false
		case <-time.After(25 * time.Millisecond):
		}
	}
	return false
}

func (s *live) accepts(ctx context.Context) bool {
	conn, err := connect(ctx, s.info.origin)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

// reason describes why the server has ended.
func (s *live) reason() string {
	const unknown = "it accepts no connections"
	if s.done == nil {
		return unknown
	}
	select {
	case <-s.done:
		if s.err != nil {
			if err := s.err(); err != nil {
				return err.Error()
			}
		}
	case <-time.After(2 * time.Second): // the connections of a program are closed before it is known to have ended
	}
	return unknown
}

// maxRestarts is how often a server is started again, unless Options.Restarts is set.
const maxRestarts = 50

// restart starts the server of a group again.
func (r *runner) restart(ctx context.Context, g *group, iss *issuer, s *live) error {
	limit := r.options.Restarts
	if limit == 0 {
		limit = maxRestarts
	}
	r.mu.Lock()
	r.restarts++
	over := r.restarts > limit
	r.mu.Unlock()
	if over {
		return fmt.Errorf("not run: the server ended, and is started again at most %d times", max(limit, 0))
	}
	s.stop()
	again, err := r.startServer(ctx, iss, g)
	if err != nil {
		return fmt.Errorf("not run: the server ended: %w", err)
	}
	*s = *again
	if err := r.readyOf(ctx, g, iss, s); err != nil {
		return fmt.Errorf("not run: the server ended: after its start, %w", err)
	}
	return nil
}

// runAll runs the cases of a group that may run at the same time. If the server ends, it is started again. The cases that ran then run alone, so
// that one of them does not fail the others.
func (r *runner) runAll(ctx context.Context, g *group, iss *issuer, s *live) {
	for pending := g.cases; len(pending) > 0; {
		end := r.runTogether(ctx, pending, iss, s)
		if end == nil {
			return
		}
		pending = end.rest
		if err := r.attribute(ctx, g, iss, s, end); err != nil {
			for _, i := range pending {
				r.record(i, Result{Verdict: Failed, Problems: []string{err.Error()}})
			}
			return
		}
	}
}

// An ending describes the moment at which a server was found to have ended.
type ending struct {
	silent []int          // cases that got no response to a request: one of them has probably ended the server
	recent []int          // those that were complete before, the last one first: the server may have ended after its response
	rest   []int          // those that have not run
	took   map[int]Result // of the silent ones
}

// maxRecent is the length of ending.recent. It bounds how long a server that ends late takes.
const maxRecent = 32

// runTogether runs cases at the same time, and returns nil if the server still runs then.
func (r *runner) runTogether(ctx context.Context, cases []int, iss *issuer, s *live) *ending {
	end := &ending{took: map[int]Result{}}
	var mu sync.Mutex // guards end
	var down atomic.Bool
	var running sync.WaitGroup
	for n, i := range cases {
		r.slots <- struct{}{}
		if down.Load() {
			<-r.slots
			end.rest = cases[n:]
			break
		}
		running.Go(func() {
			defer func() { <-r.slots }()
			result, silent := r.runCase(ctx, i, iss, s)
			if r.target.Start != nil && silent && s.ended(ctx) {
				down.Store(true)
				mu.Lock()
				defer mu.Unlock()
				end.silent = append(end.silent, i)
				end.took[i] = result
				return
			}
			r.record(i, result)
			mu.Lock()
			defer mu.Unlock()
			end.recent = append(end.recent, i)
		})
	}
	running.Wait()
	switch {
	case r.target.Start == nil || ctx.Err() != nil:
		return nil
	case down.Load():
	case s.done == nil && s.accepts(ctx) || s.done != nil && !s.ended(ctx): // a server in this process does not end late
		return nil
	}
	slices.Reverse(end.recent)
	end.recent = end.recent[:min(len(end.recent), maxRecent)]
	return end
}

// attribute finds the case that ended the server, and records the results of those that ran then. Afterwards, the server runs if cases are
// left. The error describes why it does not.
func (r *runner) attribute(ctx context.Context, g *group, iss *issuer, s *live, end *ending) error {
	reason, down, found := s.reason(), true, false
	if len(g.cases) == 1 { // it has had the server for itself
		result, ok := end.took[g.cases[0]]
		if !ok {
			result = r.results[g.cases[0]]
		}
		r.blame(g.cases[0], result, "the server ended: "+reason)
		return nil
	}
	// alone runs one case, and reports whether it ends the server.
	alone := func(i int) (result Result, ended bool, err error) {
		if down {
			if err := r.restart(ctx, g, iss, s); err != nil {
				return Result{}, false, err
			}
		}
		result, _ = r.runCase(ctx, i, iss, s)
		down = s.ended(ctx)
		found = found || down
		return result, down, nil
	}
	good := map[int]Result{}
	for n, i := range end.silent {
		result, ended, err := alone(i)
		switch {
		case err != nil:
			for _, i := range end.silent[n:] {
				r.blame(i, end.took[i], "the server ended while this case and others ran: "+reason)
			}
			r.recordAll(good)
			return err
		case ended:
			r.blame(i, result, "the server ended: "+s.reason())
		default:
			good[i] = result
		}
	}
	if !found { // it may have ended after the response of an earlier case
		for _, i := range end.recent {
			result, ended, err := alone(i)
			if err != nil {
				break // of the limit, which the cases that are left will report
			}
			if ended {
				r.blame(i, result, "the server ended: "+s.reason())
			}
		}
	}
	switch text := fmt.Sprintf("the server ended while these cases ran, and after none of them alone (%s): %s", r.names(end), reason); {
	case found:
		r.recordAll(good)
	case len(end.silent) > 0:
		for _, i := range end.silent {
			r.blame(i, end.took[i], text)
		}
	default:
		r.blame(end.recent[0], r.results[end.recent[0]], text)
	}
	if down && len(end.rest) > 0 {
		return r.restart(ctx, g, iss, s)
	}
	return nil
}

// blame records that a case ended the server.
func (r *runner) blame(i int, result Result, reason string) {
	result.Verdict, result.Problems = Failed, []string{reason}
	r.record(i, result)
}

func (r *runner) recordAll(results map[int]Result) {
	for i, result := range results {
		r.record(i, result)
	}
}

// names lists the IDs of the cases that may have ended a server.
func (r *runner) names(end *ending) string {
	var ids []string
	for _, i := range slices.Concat(end.silent, end.recent) {
		ids = append(ids, r.options.Cases[i].ID)
	}
	return strings.Join(ids, ", ")
}
