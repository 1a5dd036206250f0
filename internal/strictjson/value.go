package strictjson

import (
	"bytes"
	"strconv"
	"strings"
)

// Value is the text of one valid JSON value, without surrounding space. Each method decodes one kind of value and reports
// whether v is of that kind. A nil Value is of no kind. Methods that decode also report false for invalid text, which
// [Object] never returns.
type Value []byte

// Text returns a string, unescaped.
func (v Value) Text() (string, bool) {
	s, ok := v.View()
	return strings.Clone(s), ok
}

// View returns a string, unescaped. Unless it has escapes, it shares memory with v, like the name of a member.
func (v Value) View() (string, bool) {
	r := reader{data: v}
	if !r.next('"') {
		return "", false
	}
	s, _, err := r.str()
	if err != nil || r.at != len(v) {
		return "", false
	}
	return View(s), true
}

// Strings returns the elements of an array of strings. An empty array has no elements.
func (v Value) Strings() ([]string, bool) {
	elements, ok := v.Elements()
	if !ok {
		return nil, false
	}
	list := make([]string, len(elements))
	for i, e := range elements {
		if list[i], ok = e.Text(); !ok {
			return nil, false
		}
	}
	return list, true
}

// Number returns a number as a float64. It reports false for a number out of the range of a float64, such as 1e400. Digits
// beyond the 53 bits of precision are lost.
func (v Value) Number() (float64, bool) {
	r := reader{data: v}
	if r.number() != nil || r.at != len(v) {
		return 0, false
	}
	f, err := strconv.ParseFloat(string(v), 64)
	return f, err == nil // out of range
}

// Bool returns a boolean.
func (v Value) Bool() (value, ok bool) {
	return string(v) == "true", string(v) == "true" || string(v) == "false"
}

// IsObject reports whether v is an object.
func (v Value) IsObject() bool { return len(v) > 0 && v[0] == '{' }

// IsNull reports whether v is null.
func (v Value) IsNull() bool { return string(v) == "null" }

// IsEmpty reports whether v is nil, null, "" or []: an optional member that an issuer has no value for. Serializers write it instead
// of leaving the member out.
func (v Value) IsEmpty() bool {
	switch {
	case v == nil, v.IsNull(), string(v) == `""`:
		return true
	case v[0] == '[':
		return len(bytes.TrimSpace(v[1:])) == 1 // its end
	}
	return false
}

// Elements returns the elements of an array. An empty array has no elements.
func (v Value) Elements() ([]Value, bool) {
	r := reader{data: v}
	if !r.next('[') {
		return nil, false
	}
	list := make([]Value, 0, 4)
	err := r.array(1, func(e Value) { list = append(list, e) })
	return list, err == nil && r.at == len(v)
}
