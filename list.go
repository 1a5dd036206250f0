package valetkey

import (
	"encoding/json"
	"fmt"
	"iter"
	"slices"
	"strings"
)

// A List is an immutable sequence of values. It is encoded in JSON as an array, so the fields of a claims type can be Lists too,
// see [DeclareClaims]. The zero value is empty.
type List[T comparable] struct{ items []T }

// ListOf returns a List of items. It copies the slice.
func ListOf[T comparable](items ...T) List[T] {
	if len(items) == 0 {
		return List[T]{}
	}
	return List[T]{slices.Clone(items)}
}

// Len returns the number of values in l.
func (l List[T]) Len() int { return len(l.items) }

// At returns the value at index i. It panics if i is out of range.
func (l List[T]) At(i int) T { return l.items[i] }

// Has reports whether l contains v.
func (l List[T]) Has(v T) bool { return slices.Contains(l.items, v) }

// All returns an iterator over the values, in order.
func (l List[T]) All() iter.Seq[T] { return slices.Values(l.items) }

// Slice returns a copy of the values, which the caller may modify; nil if there are none.
func (l List[T]) Slice() []T { return slices.Clone(l.items) }

// String returns the values in the format in which package fmt prints a slice.
func (l List[T]) String() string { return fmt.Sprint(l.items) }

// MarshalJSON returns a JSON array, [] for an empty List.
func (l List[T]) MarshalJSON() ([]byte, error) {
	if l.items == nil {
		return []byte("[]"), nil
	}
	return json.Marshal(l.items)
}

// UnmarshalJSON sets l from a JSON array, or from null, which makes l empty.
func (l *List[T]) UnmarshalJSON(data []byte) error {
	var items []T
	if err := json.Unmarshal(data, &items); err != nil {
		return err
	}
	if len(items) == 0 {
		items = nil
	}
	l.items = items // decoding into the old slice would change other lists that share it
	return nil
}

// Scopes is an immutable set of scopes, sorted. The zero value is empty.
type Scopes struct{ sorted []string }

// NewScopes returns the set of the scopes in list. It omits the empty string and duplicates. It copies the slice.
func NewScopes(list ...string) Scopes {
	s := slices.DeleteFunc(slices.Clone(list), func(v string) bool { return v == "" })
	if len(s) == 0 {
		return Scopes{}
	}
	slices.Sort(s)
	return Scopes{slices.Clip(slices.Compact(s))}
}

// Has reports whether s contains scope. Scopes are compared byte by byte (RFC 6749, section 3.3).
func (s Scopes) Has(scope string) bool {
	_, found := slices.BinarySearch(s.sorted, scope)
	return found
}

// Len returns the number of scopes in s.
func (s Scopes) Len() int { return len(s.sorted) }

// All returns an iterator over the scopes, in sorted order.
func (s Scopes) All() iter.Seq[string] { return slices.Values(s.sorted) }

// Slice returns a copy of the scopes, sorted, which the caller may modify; nil if there are none.
func (s Scopes) Slice() []string { return slices.Clone(s.sorted) }

// String returns the scopes separated by single spaces, the format of RFC 6749, section 3.3.
func (s Scopes) String() string { return strings.Join(s.sorted, " ") }

// MarshalJSON returns a JSON array, [] for empty Scopes.
func (s Scopes) MarshalJSON() ([]byte, error) { return List[string]{s.sorted}.MarshalJSON() }

// UnmarshalJSON sets s from a JSON array, from null, or from a string of scopes separated by spaces.
func (s *Scopes) UnmarshalJSON(data []byte) error {
	var text string
	if json.Unmarshal(data, &text) == nil {
		*s = NewScopes(strings.Split(text, " ")...)
		return nil
	}
	var list []string
	if err := json.Unmarshal(data, &list); err != nil {
		return err
	}
	*s = NewScopes(list...)
	return nil
}

// union returns the scopes of s and o.
func (s Scopes) union(o Scopes) Scopes {
	switch {
	case len(o.sorted) == 0:
		return s
	case len(s.sorted) == 0:
		return o
	}
	return NewScopes(slices.Concat(s.sorted, o.sorted)...)
}
