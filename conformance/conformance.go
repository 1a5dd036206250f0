// Package conformance lists what the OAuth standards require of a resource server and of an authorization server, as
// data: one [Item] for each requirement, with the text that it comes from.
//
// The items describe the standards, not this library. docs/conformance.md lists, for each item, the decision that this
// library made and the tests that prove it.
//
// In an item, a refused token means a 401 with the error invalid_token, and that the handler does not run, unless the
// item states another response.
package conformance

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// A Level is the keyword with which a standard states a requirement (RFC 2119, sections 1 to 5).
type Level string

// The levels of items.
//
// A negative level marks a prohibition: the Then of the item states the outcome that obeys it. Definitions without a
// keyword, such as a status code, count as [Must]; so does the "shall" of the FAPI profiles. [Derived] marks an item that
// no standard states. It follows from the section cited, from defects found in other implementations, or from the safety
// of the server, and is a proposal of this project.
const (
	Must        Level = "MUST"
	MustNot     Level = "MUST NOT"
	Should      Level = "SHOULD"
	ShouldNot   Level = "SHOULD NOT"
	Recommended Level = "RECOMMENDED"
	May         Level = "MAY"
	Derived     Level = "DERIVED"
)

// An Item is one requirement that can be tested. Its sentences are in plain English, in our own words: the standard is
// authoritative where the two differ.
type Item struct {
	// ID is the group and a number of two digits, such as BT-06. It never changes its meaning.
	ID string `json:"id"`

	// Standard is the document that the item comes from, such as RFC 6750, and Section its section or sections. Both are
	// empty for a [Derived] item that no standard covers.
	Standard string `json:"standard,omitempty"`
	Section  string `json:"section,omitempty"`

	Level Level `json:"level"`

	Given string `json:"given"` // the situation: configuration and state
	When  string `json:"when"`  // the event
	Then  string `json:"then"`  // the required outcome
}

// Group returns the group of the item: its ID without the number.
func (i Item) Group() string {
	return i.ID[:max(0, strings.LastIndexByte(i.ID, '-'))]
}

//go:embed items.json
var data []byte

var load = sync.OnceValue(func() []Item {
	var items []Item
	if err := json.Unmarshal(data, &items); err != nil {
		panic(fmt.Sprintf("conformance: items.json: %v", err)) // embedded, so the package's test has read it
	}
	return items
})

// Items returns all items, ordered by ID. The slice is the caller's.
func Items() []Item {
	return slices.Clone(load())
}

// Find returns the item with the given ID. It reports false if there is none.
func Find(id string) (Item, bool) {
	items := load()
	i, found := slices.BinarySearchFunc(items, id, func(item Item, id string) int { return strings.Compare(item.ID, id) })
	if !found {
		return Item{}, false
	}
	return items[i], true
}

// InGroup returns the items of a group, such as BT or AS-CODE, ordered by ID. It returns nil if there is no such group.
func InGroup(group string) []Item {
	var in []Item
	for _, item := range load() {
		if item.Group() == group {
			in = append(in, item)
		}
	}
	return in
}
