package conformance_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/conformance"
)

var update = flag.Bool("update", false, "write the cases in their form, and the newest set")

// indented returns v as the files of this package are written.
func indented(t *testing.T, v any) []byte {
	t.Helper()
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "\t")
	require.NoError(t, enc.Encode(v))
	return out.Bytes()
}

// TestCaseFiles holds the files of cases to their form: writing them back must result in the same bytes, so unknown members and members that
// occur twice are mistakes.
func TestCaseFiles(t *testing.T) {
	files, err := filepath.Glob("cases/*.json")
	require.NoError(t, err)
	n := 0
	for _, name := range files {
		switch filepath.Base(name) {
		case "schema.json", "outcomes.json", "without.json":
			continue
		}
		data, err := os.ReadFile(name)
		require.NoError(t, err)
		var file struct {
			Schema string             `json:"$schema"`
			Cases  []conformance.Case `json:"cases"`
		}
		require.NoError(t, json.Unmarshal(data, &file), name)
		n += len(file.Cases)
		again := indented(t, file)
		if *update {
			require.NoError(t, os.WriteFile(name, again, 0o644))
		} else if !bytes.Equal(data, again) {
			t.Errorf("%s is not in its form: run go test -run TestCaseFiles ./conformance -update", name)
		}
	}
	assert.Equal(t, len(conformance.Cases()), n)
}

var (
	caseID      = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)
	serverGroup = regexp.MustCompile(`^AS-`) // items of authorization servers
)

func TestCases(t *testing.T) {
	var outcomes map[string]any
	data, err := os.ReadFile("cases/outcomes.json")
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(data, &outcomes))
	seen := map[string]bool{}
	for _, c := range conformance.Cases() {
		assert.Regexp(t, caseID, c.ID)
		assert.False(t, seen[c.ID], "%s occurs twice", c.ID)
		seen[c.ID] = true
		assert.NotEmpty(t, c.Title, c.ID)
		assert.Regexp(t, `\.$`, c.Reason, c.ID)
		assert.Regexp(t, `^https://`, c.Reference, c.ID)
		assert.Contains(t, conformance.Profiles(), c.Profile, c.ID)
		for _, f := range c.Features {
			assert.True(t, slices.Contains(conformance.Features(), f) || slices.Contains(conformance.Profiles(), conformance.Profile(f)), "%s: %s", c.ID, f)
		}
		for _, id := range c.Items {
			_, found := conformance.Find(id)
			assert.True(t, found, "%s: no item %s", c.ID, id)
			assert.False(t, serverGroup.MatchString(id), "%s: %s is an item of authorization servers", c.ID, id)
		}
		for i, s := range c.Steps {
			if s.Expect == nil {
				continue
			}
			if s.Expect.Outcome != "" {
				assert.Contains(t, outcomes, s.Expect.Outcome, c.ID)
			}
			assert.NotEmpty(t, s.Expect.String(), "%s: step %d expects nothing", c.ID, i+1)
		}
		found, ok := conformance.FindCase(c.ID)
		assert.True(t, ok)
		assert.Equal(t, c.Title, found.Title)
	}
	_, ok := conformance.FindCase("no-such-case")
	assert.False(t, ok)
}

// TestItemsHaveCases holds that each item of resource servers has a case or a reason for having none.
func TestItemsHaveCases(t *testing.T) {
	with := map[string]bool{}
	for _, c := range conformance.Cases() {
		for _, id := range c.Items {
			with[id] = true
		}
	}
	beyond := len(conformance.Cases()) - len(with)
	without := conformance.Without()
	unused := maps.Clone(without)
	groups := map[string]bool{} // that the suite has considered
	for _, id := range slices.Concat(slices.Collect(maps.Keys(with)), slices.Collect(maps.Keys(without))) {
		item, _ := conformance.Find(id)
		groups[item.Group()], groups[id] = true, true
	}
	for _, item := range conformance.Items() {
		reason, excused := without[item.ID]
		delete(unused, item.ID)
		if all, ok := without[item.Group()]; ok {
			assert.False(t, excused, "%s has a reason beside that of its group", item.ID)
			reason = all
			delete(unused, item.Group())
		}
		switch {
		case serverGroup.MatchString(item.ID):
			assert.False(t, excused, "%s is an item of authorization servers", item.ID)
		case with[item.ID]:
			assert.False(t, excused, "%s has a case, and a reason for having none", item.ID)
		case !groups[item.Group()]:
			t.Logf("%s: no item of the group has a case or a reason in cases/without.json", item.ID)
		default:
			assert.Regexp(t, `^(It|The) .*\.$`, reason, "%s has no case: add one, or a reason to cases/without.json, for it or its group", item.ID)
		}
	}
	assert.Empty(t, unused, "reasons for items that do not exist")
	assert.GreaterOrEqual(t, beyond, 200, "cases beyond one for each item, which are the attacks")
}

// TestSets holds that a frozen set does not change: a case of it keeps its ID and its content. Only the newest set may still change, with
// -update, until it is released.
func TestSets(t *testing.T) {
	digests := map[string]string{}
	for _, c := range conformance.Cases() {
		text, err := json.Marshal(c)
		require.NoError(t, err)
		digests[c.ID] = fmt.Sprintf("%x", sha256.Sum256(text))[:16]
	}
	names := conformance.Sets()
	require.NotEmpty(t, names)
	newest := names[len(names)-1]
	if *update {
		require.NoError(t, os.WriteFile("cases/sets/"+newest+".json", indented(t, conformance.Set{Name: newest, Cases: digests}), 0o644))
		return
	}
	for _, name := range names {
		set, err := conformance.FindSet(name)
		require.NoError(t, err)
		assert.Equal(t, name, set.Name)
		assert.NotEmpty(t, set.Cases)
		for id, digest := range set.Cases {
			assert.Equal(t, digest, digests[id], "%s, a case of the set %s, has changed", id, name)
		}
	}
	set, err := conformance.FindSet(newest)
	require.NoError(t, err)
	assert.Len(t, set.Cases, len(digests), "the newest set lacks cases: run go test -run TestSets ./conformance -update")

	_, err = conformance.FindSet("1999-01")
	assert.ErrorContains(t, err, strings.Join(names, ", "))
}
