package broken_test

import (
	"context"
	"flag"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/valetkey/valetkey/conformance"
	"github.com/valetkey/valetkey/conformance/broken"
)

// target returns the server with these faults. It claims everything.
func target(faults ...string) conformance.Target {
	return conformance.Target{
		URL:      "/any",
		Routes:   conformance.DefaultRoutes(),
		Profiles: conformance.Profiles(),
		Features: conformance.Features(),
		Start: func(_ context.Context, s conformance.Setup) (*conformance.Server, error) {
			return broken.Start(s, faults...)
		},
	}
}

func TestServerWithoutFaults(t *testing.T) { conformance.Run(t, target()) }

func TestUnknownFault(t *testing.T) {
	_, err := broken.Start(conformance.Setup{}, "no-such-fault")
	assert.EqualError(t, err, `unknown fault "no-such-fault"`)
}

// TestFaultsFollowItems holds that the server is built from the items: each must and should that has a case has a fault, and each fault has
// an item or a group.
func TestFaultsFollowItems(t *testing.T) {
	violated, groups, seen := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, c := range conformance.Cases() {
		groups[c.Group] = true
	}
	for _, f := range broken.Faults() {
		assert.False(t, seen[f.Name], "%s occurs twice", f.Name)
		seen[f.Name] = true
		assert.True(t, f.Blunt || len(f.Items)+len(f.Groups) > 0, "%s belongs to nothing", f.Name)
		for _, id := range f.Items {
			_, ok := conformance.Find(id)
			assert.True(t, ok, "%s: no item %s", f.Name, id)
			violated[id] = true
		}
		for _, g := range f.Groups {
			assert.True(t, groups[g], "%s: no group %s", f.Name, g)
		}
	}
	tested := map[string]bool{}
	for _, c := range conformance.Cases() {
		for _, id := range c.Items {
			tested[id] = true
		}
	}
	for _, item := range conformance.Items() {
		switch item.Level {
		case conformance.May, conformance.Derived:
			continue
		}
		if tested[item.ID] {
			assert.True(t, violated[item.ID], "%s (%s) has no fault", item.ID, item.Level)
		}
	}
	assert.GreaterOrEqual(t, len(seen), 100)
}

var which = flag.String("fault", "", "run only this fault, and log what finds it")

// TestMutationScore proves the suite: at least one case finds each fault, and each case finds at least one fault. A fault is tried on the
// cases of its items and groups; a case that finds none of those is tried on the blunt ones.
func TestMutationScore(t *testing.T) {
	cases := conformance.Cases()
	var (
		mu              sync.Mutex // guards what follows
		found, specific int
		finds           = map[string]bool{} // cases that find a fault that is not blunt
		proven          = map[string]bool{} // items of which a case has found a fault of the item
		running         sync.WaitGroup
		slots           = make(chan struct{}, 4)
	)
	for i, f := range broken.Faults() {
		if f.Blunt || *which != "" && f.Name != *which || i%share != 0 {
			continue
		}
		specific++
		slots <- struct{}{}
		running.Go(func() {
			defer func() { <-slots }()
			related := slices.DeleteFunc(slices.Clone(cases), func(c conformance.Case) bool {
				return !slices.Contains(f.Groups, c.Group) &&
					!slices.ContainsFunc(c.Items, func(id string) bool { return slices.Contains(f.Items, id) })
			})
			failed := failures(t, related, f.Name)
			mu.Lock()
			defer mu.Unlock()
			if *which != "" {
				t.Logf("%s is found by %d cases: %v", f.Name, len(failed), failed)
			}
			if len(failed) == 0 {
				t.Errorf("no case finds the fault %s", f.Name)
				return
			}
			found++
			for _, id := range failed {
				finds[id] = true
				c, _ := conformance.FindCase(id)
				for _, item := range c.Items {
					proven[item] = proven[item] || slices.Contains(f.Items, item)
				}
			}
		})
	}
	running.Wait()
	if *which != "" || share > 1 {
		return
	}
	var unproven []string
	for _, f := range broken.Faults() {
		for _, id := range f.Items {
			if !proven[id] && !slices.Contains(unproven, id) {
				unproven = append(unproven, id)
			}
		}
	}
	assert.Empty(t, unproven, "items whose faults are found by the cases of other items only")
	rest := slices.DeleteFunc(slices.Clone(cases), func(c conformance.Case) bool { return finds[c.ID] })
	blunt := map[string]bool{}
	for _, f := range broken.Faults() {
		if f.Blunt {
			for _, id := range failures(t, rest, f.Name) {
				blunt[id] = true
			}
		}
	}
	var idle []string
	for _, c := range rest {
		if !blunt[c.ID] {
			idle = append(idle, c.ID)
		}
	}
	assert.Empty(t, idle, "cases that find no fault")
	t.Logf("faults found: %d of %d; cases that find a fault: %d of %d, of which %d find blunt faults only",
		found, specific, len(cases)-len(idle), len(cases), len(rest)-len(idle))
}

// failures returns the cases that fail on a server with the fault.
func failures(t *testing.T, cases []conformance.Case, fault string) (ids []string) {
	t.Helper()
	report, err := conformance.Check(t.Context(), target(fault), conformance.Options{Cases: cases, Rate: -1, AcceptNotReady: true})
	if !assert.NoError(t, err, fault) {
		return nil
	}
	for _, result := range report.Results {
		assert.NotEqual(t, conformance.Skipped, result.Verdict, result.Case.ID)
		if result.Verdict == conformance.Failed {
			ids = append(ids, result.Case.ID)
		}
	}
	return ids
}
