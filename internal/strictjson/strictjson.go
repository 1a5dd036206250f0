// Package strictjson parses untrusted JSON strictly and in one pass.
//
// encoding/json keeps the last of two members with one name, matches names to struct fields in any letter case, and replaces
// invalid UTF-8. Another reader of the same text may then see other claims. This package refuses such text. It builds only
// the values that its caller requests, so it is also faster.
//
// Names are compared byte by byte: "Email" and "email" are two claims (RFC 7519, section 10.1.1). Only a name that the caller
// reads must not occur in a second letter case. For text that is handed to encoding/json, see [FoldsApart].
package strictjson

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
	"unsafe"
)

// The limits of the parser. The caller must bound the length of the text.
const (
	MaxDepth   = 32   // nested objects and arrays, including the outermost one
	MaxMembers = 1000 // of one object
)

// Object parses data as exactly one JSON object (RFC 8259) and calls member for each of its members in order, with the name
// unescaped. It validates all of data, at every level: the grammar, UTF-8 without a byte order mark, no lone surrogate, no
// two members of one object with the same name, nesting of at most [MaxDepth], at most [MaxMembers] members, and nothing but
// space after the object.
//
// reads lists the names that the caller reads. data must not have one of them in two letter cases, such as "exp" and "Exp":
// a reader that ignores letter case could take the other one. Names in lower case are the fastest.
//
// A member that is null is as if it were not there: serializers write null instead of leaving an optional member out. So member is not
// called for it, and a required member that is null is missing. The rule also covers optional limits, such as exp, and members that must
// not occur, such as nonce in a logout token. [Entries] is for the exceptions.
//
// If member returns an error, Object stops and returns it. The calls of member are valid only if Object returns nil, since
// the mistake may come later in data. A nil member only validates. The values, and the names without escapes, share memory
// with data: do not modify data after the call, and clone a name that is retained for long. An error never contains text of
// data.
func Object(data []byte, member func(name string, v Value) error, reads ...string) error {
	r := reader{data: data, reads: reads}
	return r.document(member)
}

// Entries is [Object], except that it also calls entry for members that are null. It is for objects whose names are data, such as the
// SETs of a poll response by their jti, for members whose mere presence is a mistake, such as crit in a header, and for messages of our own
// protocols.
func Entries(data []byte, entry func(name string, v Value) error, reads ...string) error {
	r := reader{data: data, reads: reads, nulls: true}
	return r.document(entry)
}

// FoldsApart reports whether no object in data, at any level, has two names that differ in letter case only. A reader that
// ignores letter case, like encoding/json with a struct, then sees the same members. It does not look for other
// mistakes: call [Object] for data that may have some.
func FoldsApart(data []byte) bool {
	r := reader{data: data, foldAll: true}
	m, is := errors.AsType[*mistake](r.document(nil))
	return !is || m.what != twoCases
}

func (r *reader) document(member func(name string, v Value) error) error {
	r.space()
	if !r.next('{') {
		return r.mistake("an object is expected")
	}
	if err := r.object(1, member); err != nil {
		return err
	}
	r.space()
	if r.at != len(r.data) {
		return r.mistake("nothing may follow the object")
	}
	return nil
}

// A reader reads data from the byte at on.
type reader struct {
	data    []byte
	at      int
	scratch []byte   // the last string that had escapes
	reads   []string // see Object
	foldAll bool     // see FoldsApart
	nulls   bool     // see Entries
}

// A mistake is an error in a text, with its position. It does not contain the text.
type mistake struct {
	what string
	at   int
}

func (m *mistake) Error() string { return fmt.Sprintf("JSON: %s (byte %d)", m.what, m.at) }

func (r *reader) mistake(what string) error { return &mistake{what, r.at} }

// space skips ws of RFC 8259, section 2.
func (r *reader) space() {
	for r.at < len(r.data) {
		switch r.data[r.at] {
		case ' ', '\t', '\n', '\r':
			r.at++
		default:
			return
		}
	}
}

// next skips c if it is the next byte.
func (r *reader) next(c byte) bool {
	if r.at == len(r.data) || r.data[r.at] != c {
		return false
	}
	r.at++
	return true
}

// value reads any value within depth objects and arrays.
func (r *reader) value(depth int) (Value, error) {
	if r.at == len(r.data) {
		return nil, r.mistake("a value is expected")
	}
	var (
		start = r.at
		err   error
	)
	switch c := r.data[r.at]; c {
	case '{':
		r.at++
		err = r.object(depth+1, nil)
	case '[':
		r.at++
		err = r.array(depth+1, nil)
	case '"':
		r.at++
		_, _, err = r.str()
	case 't':
		err = r.literal("true")
	case 'f':
		err = r.literal("false")
	case 'n':
		err = r.literal("null")
	default:
		err = r.number()
	}
	return Value(r.data[start:r.at:r.at]), err
}

// object reads an object after its '{'. RFC 8259, section 4.
func (r *reader) object(depth int, member func(string, Value) error) error {
	if depth > MaxDepth {
		return r.mistake("nested too deep")
	}
	r.space()
	if r.next('}') {
		return nil
	}
	var names nameSet
	inside := r.at
	for {
		if !r.next('"') {
			return r.mistake("a member name is expected")
		}
		start := r.at
		unescaped, escaped, err := r.str()
		if err != nil {
			return err
		}
		name := View(r.data[start : r.at-1])
		if escaped {
			name = string(unescaped)
		}
		if what := names.add(r.key(depth, name)); what != "" {
			if what == twice && r.folds(depth) && r.onlyInCase(depth, inside) {
				what = twoCases
			}
			return r.mistake(what)
		}
		r.space()
		if !r.next(':') {
			return r.mistake("':' is expected")
		}
		r.space()
		v, err := r.value(depth)
		if err != nil {
			return err
		}
		if member != nil && (r.nulls || !v.IsNull()) {
			if err := member(name, v); err != nil {
				return err
			}
		}
		r.space()
		if r.next('}') {
			return nil
		}
		if !r.next(',') {
			return r.mistake("',' or '}' is expected")
		}
		r.space()
	}
}

// View returns data, or a part of it, as a string without a copy. The contract of Object forbids modifying data.
func View(data []byte) string { return unsafe.String(unsafe.SliceData(data), len(data)) }

// array reads an array after its '['. RFC 8259, section 5.
func (r *reader) array(depth int, element func(Value)) error {
	if depth > MaxDepth {
		return r.mistake("nested too deep")
	}
	r.space()
	if r.next(']') {
		return nil
	}
	for {
		v, err := r.value(depth)
		if err != nil {
			return err
		}
		if element != nil {
			element(v)
		}
		r.space()
		if r.next(']') {
			return nil
		}
		if !r.next(',') {
			return r.mistake("',' or ']' is expected")
		}
		r.space()
	}
}

func (r *reader) literal(word string) error {
	if !bytes.HasPrefix(r.data[r.at:], []byte(word)) {
		return r.mistake("a value is expected")
	}
	r.at += len(word)
	return nil
}

// number reads a number. RFC 8259, section 6.
func (r *reader) number() error {
	r.next('-')
	if !r.next('0') && !r.digits() {
		return r.mistake("a value is expected")
	}
	if r.next('.') && !r.digits() {
		return r.mistake("a digit is expected")
	}
	if r.next('e') || r.next('E') {
		if !r.next('+') {
			r.next('-')
		}
		if !r.digits() {
			return r.mistake("a digit is expected")
		}
	}
	return nil
}

// digits skips the digits that follow, and reports whether there are any.
func (r *reader) digits() bool {
	start := r.at
	for r.at < len(r.data) && '0' <= r.data[r.at] && r.data[r.at] <= '9' {
		r.at++
	}
	return r.at > start
}

// str reads a string after its opening quote and unescapes it. A result that had escapes is valid until the next call. RFC
// 8259, section 7.
func (r *reader) str() (s []byte, escaped bool, err error) {
	start, ascii := r.at, true
	for ; r.at < len(r.data); r.at++ {
		switch c := r.data[r.at]; {
		case c == '"':
			s = r.data[start:r.at]
			if !ascii && !utf8.Valid(s) {
				return nil, false, r.mistake("a string is not UTF-8")
			}
			if escaped {
				var ok bool
				if r.scratch, ok = appendUnescaped(r.scratch[:0], s); !ok {
					return nil, false, r.mistake("a string has an escape that stands for nothing")
				}
				s = r.scratch
			}
			r.at++
			return s, escaped, nil
		case c == '\\':
			escaped = true
			r.at++ // the next byte does not end the string
		case c < ' ':
			return nil, false, r.mistake("a string has a control character")
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	r.at = len(r.data)
	return nil, false, r.mistake("a string has no end")
}

// folds reports whether an object at this depth has names that must not occur in a second letter case.
func (r *reader) folds(depth int) bool { return r.foldAll || depth == 1 && len(r.reads) > 0 }

// key returns what must be unique among the names of an object: name itself or, if it must not occur in a second letter case,
// its folded form.
func (r *reader) key(depth int, name string) string {
	switch {
	case !r.folds(depth) || isFolded(name):
		return name
	case r.foldAll:
		return folded(name)
	}
	for _, known := range r.reads {
		if strings.EqualFold(name, known) {
			return folded(name)
		}
	}
	return name
}

// onlyInCase reports whether the members from inside up to the name that has just been read have different names. It is called
// for the text of an error only.
func (r *reader) onlyInCase(depth, inside int) bool {
	again := reader{data: r.data[:r.at], at: inside}
	m, _ := errors.AsType[*mistake](again.object(depth, nil)) // never nil: the object has no end there
	return m.what != twice
}

// A nameSet holds the names of one object. It starts as an array on the stack and becomes a map when there are many names, so
// that an object made to be slow is not.
type nameSet struct {
	count int
	first [few]string
	many  map[string]struct{}
}

const few = 16

const (
	twice    = "an object has a member twice"
	twoCases = "an object has a member in two letter cases"
)

// add adds a name, which must be new. It returns what is wrong.
func (n *nameSet) add(name string) (what string) {
	if n.count == MaxMembers {
		return "an object has too many members"
	}
	if n.count < few {
		for _, other := range n.first[:n.count] {
			if other == name {
				return twice
			}
		}
		n.first[n.count] = name
		n.count++
		return ""
	}
	if n.many == nil {
		n.many = make(map[string]struct{}, 4*few)
		for _, other := range n.first {
			n.many[other] = struct{}{}
		}
	}
	if _, has := n.many[name]; has {
		return twice
	}
	n.many[name] = struct{}{}
	n.count++
	return ""
}

// folded returns the canonical form of names that differ only in letter case, in the sense of strings.EqualFold.
func folded(name string) string { return strings.Map(fold, name) }

// isFolded reports whether name is ASCII without capitals, and so its own folded form.
func isFolded(name string) bool {
	for i := range len(name) {
		if c := name[i]; c >= utf8.RuneSelf || 'A' <= c && c <= 'Z' {
			return false
		}
	}
	return true
}

// fold returns the smallest of the runes that differ from c only in case; for an ASCII letter, the lower case.
func fold(c rune) rune {
	smallest := c
	for f := unicode.SimpleFold(c); f != c; f = unicode.SimpleFold(f) {
		smallest = min(smallest, f)
	}
	if 'A' <= smallest && smallest <= 'Z' {
		smallest += 'a' - 'A'
	}
	return smallest
}

// appendUnescaped appends the text that s, the inside of a string, represents. RFC 8259, section 7.
func appendUnescaped(dst, s []byte) ([]byte, bool) {
	for {
		i := bytes.IndexByte(s, '\\')
		if i < 0 {
			return append(dst, s...), true
		}
		dst = append(dst, s[:i]...)
		c := s[i+1] // the end of a string is a quote without a backslash before it
		s = s[i+2:]
		if c != 'u' {
			i := strings.IndexByte(`"\/bfnrt`, c)
			if i < 0 {
				return dst, false
			}
			dst = append(dst, "\"\\/\b\f\n\r\t"[i])
			continue
		}
		unit := hex4(s)
		if unit < 0 {
			return dst, false
		}
		s = s[4:]
		if 0xD800 <= unit && unit <= 0xDFFF { // a pair of surrogates, in order, or nothing
			if len(s) < 6 || s[0] != '\\' || s[1] != 'u' {
				return dst, false
			}
			low := hex4(s[2:])
			if unit >= 0xDC00 || low < 0xDC00 || low > 0xDFFF {
				return dst, false
			}
			unit = 0x10000 + (unit-0xD800)<<10 + (low - 0xDC00)
			s = s[6:]
		}
		dst = utf8.AppendRune(dst, unit)
	}
}

// hex4 reads four hexadecimal digits. It returns -1 if s does not begin with them.
func hex4(s []byte) rune {
	if len(s) < 4 {
		return -1
	}
	var unit rune
	for _, c := range s[:4] {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return -1
		}
		unit = unit<<4 + rune(c)
	}
	return unit
}
