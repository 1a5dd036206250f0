package valetkey

import (
	"encoding/json"
	"fmt"
	"iter"
	"slices"
	"strings"
)

// A List holds values that cannot be changed. It is for the fields of a type of claims too, see [DeclareClaims]: as JSON it is an
// array. The zero value is empty.
type List[T comparable] struct{ items []T }

// ListOf returns a List of items. It does not keep the slice.
func ListOf[T comparable](items ...T) List[T] {
	if len(items) == 0 {
		return List[T]{}
	}
	return List[T]{slices.Clone(items)}
}

// Len returns how many values l holds.
func (l List[T]) Len() int { return len(l.items) }

// At returns the value at index i. It panics if there is none.
func (l List[T]) At(i int) T { return l.items[i] }

// Has reports whether v is one of l.
func (l List[T]) Has(v T) bool { return slices.Contains(l.items, v) }

// All returns the values in their order.
func (l List[T]) All() iter.Seq[T] { return slices.Values(l.items) }

// Slice returns a copy of the values, which is the caller's; nil if there are none.
func (l List[T]) Slice() []T { return slices.Clone(l.items) }

// String returns the values as a slice is printed.
func (l List[T]) String() string { return fmt.Sprint(l.items) }

// MarshalJSON returns an array.
func (l List[T]) MarshalJSON() ([]byte, error) {
	if l.items == nil {
		return []byte("[]"), nil
	}
	return json.Marshal(l.items)
}

// UnmarshalJSON reads an array, or null, which is empty.
func (l *List[T]) UnmarshalJSON(data []byte) error {
	var items []T
	if err := json.Unmarshal(data, &items); err != nil {
		return err
	}
	if len(items) == 0 {
		items = nil
	}
	l.items = items // and not into those that are there: other lists may share them
	return nil
}

// Scopes are the scopes of a token: sorted, each once. They cannot be changed. The zero value holds none.
type Scopes struct{ sorted []string }

// NewScopes returns the scopes of list, sorted, each once, without the empty string. It does not keep list.
func NewScopes(list ...string) Scopes {
	s := slices.DeleteFunc(slices.Clone(list), func(v string) bool { return v == "" })
	if len(s) == 0 {
		return Scopes{}
	}
	slices.Sort(s)
	return Scopes{slices.Clip(slices.Compact(s))}
}

// Has reports whether scope is one of s. Scopes are compared byte by byte (RFC 6749, section 3.3).
func (s Scopes) Has(scope string) bool {
	_, found := slices.BinarySearch(s.sorted, scope)
	return found
}

// Len returns how many scopes s holds.
func (s Scopes) Len() int { return len(s.sorted) }

// All returns the scopes in their order.
func (s Scopes) All() iter.Seq[string] { return slices.Values(s.sorted) }

// Slice returns a copy of the scopes, which is the caller's; nil if there are none.
func (s Scopes) Slice() []string { return slices.Clone(s.sorted) }

// String returns the scopes separated by single spaces, as RFC 6749, section 3.3 writes them.
func (s Scopes) String() string { return strings.Join(s.sorted, " ") }

// MarshalJSON returns an array.
func (s Scopes) MarshalJSON() ([]byte, error) { return List[string]{s.sorted}.MarshalJSON() }

// UnmarshalJSON reads an array, null, or a string with spaces between the scopes.
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
