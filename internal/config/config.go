// Package config reads the YAML files of the authorization server and of the proxy into structs, strictly, and reports every
// mistake at once, each with its line.
//
// A field is a member of a mapping with the name in its tag. These are mistakes: an unknown field, a field given twice, a value
// of another type (nothing is converted: a number is not a string), a field without a value, an alias, a second document, a
// document over 1 MiB. Messages repeat the text of a value only if its type is a number, a flag or a duration, or if the type
// reads itself: any other value may be a secret in the wrong place.
//
//	name:     yaml:"name"                 the members of the mapping, as written; "-" for none
//	inline:   yaml:",inline"              the fields of a struct, as if they were those of the outer one
//	required: yaml:"name,required"        must be given, and not be empty
//	filled:   yaml:"name,filled"          if given, must not be empty
//	single:   yaml:"name,single"          a list that may also be given as one string
//
// A struct may have strings, flags, integers, durations, slices, maps with string keys, structs, pointers (nil: the field is not
// given), [Secret], and types with an UnmarshalText, whose error becomes the mistake.
//
// # The library
//
// The syntax is read by go.yaml.in/yaml/v3, as a tree whose nodes have lines; the checks above are ours. goccy/go-yaml v1.19.2
// was tried in its place. Its strict mode stops at the first mistake (goccy/go-yaml issue 156), prints the lines around it,
// which may hold secrets, cannot refuse aliases or merge keys, accepts numbers and null as strings (0123 becomes "83"), and
// ignores further documents. Its nesting has no limit: 16,000 brackets take 350 ms, where yaml/v3 refuses more than 10,000 levels.
// A tree of 1 MiB takes it 3.5 times the time and 5 times the memory. yaml/v3 is maintained, and testify brings it into every
// module of ours anyway.
package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/mistakes"
)

const maxDocument = 1 << 20 // bytes

// A Mistake is a [valetkey.ConfigError] with its place in a file.
type Mistake struct {
	valetkey.ConfigError
	File string // empty: it has no name
	Line int    // zero: it is not in a file

	unread bool // the value could not be read
}

// Error returns file, line, field and problem, on one line: "as.yaml:12: clients[0].redirect_uris: is not a list".
func (m *Mistake) Error() string {
	text := strings.ReplaceAll(m.ConfigError.Error(), "\n", "; ")
	switch {
	case m.Line == 0:
		return text
	case m.File == "":
		return fmt.Sprintf("line %d: %s", m.Line, text)
	}
	return fmt.Sprintf("%s:%d: %s", m.File, m.Line, text)
}

// Unwrap returns the mistake without its place.
func (m *Mistake) Unwrap() error { return &m.ConfigError }

// A Document is a YAML file on its way into a struct. A mistake does not end the reading. The zero value is a document without
// a file, whose mistakes have no lines.
type Document struct {
	name     string
	lines    map[string]int // by the paths of the fields that are given
	mistakes []*Mistake
	printed  map[string]bool // mistakes as the report has them
}

// ReadFile is [Read] for the file at path.
func ReadFile(path string, v any, check func(*Document) error) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return Read(path, f, v, check)
}

// Read reads the document in r into the struct that v points to. name is that of its file; empty: it has none. Once all is
// read, even if it has mistakes, check looks at the values. The mistakes that it returns or adds get the lines of their fields.
// The error joins all mistakes, each a [*Mistake], by line; or the text is no YAML at all.
func Read(name string, r io.Reader, v any, check func(*Document) error) error {
	text, err := io.ReadAll(io.LimitReader(r, maxDocument+1))
	if err != nil {
		return err
	}
	d := &Document{name: name, lines: map[string]int{"": 1}}
	if len(text) > maxDocument {
		return d.whole(fmt.Errorf("is longer than %d bytes", maxDocument))
	}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var root, second yaml.Node
	switch err := decoder.Decode(&root); {
	case err != nil && strings.Contains(err.Error(), "unknown anchor"): // names it, which may be a secret without quotes
		return d.whole(errors.New("aliases are not supported: put what begins with * in quotes"))
	case err != nil && err != io.EOF:
		return d.whole(err)
	case len(root.Content) == 0: // lacks every field
		root.Content = []*yaml.Node{{Kind: yaml.MappingNode, Line: 1}}
	}
	d.decode(root.Content[0], v)
	switch err := decoder.Decode(&second); {
	case err == nil:
		d.unreadable(second.Line, "", "there is more than one YAML document")
	case err != io.EOF:
		return d.whole(err)
	}
	d.Blame("", check(d), nil)
	last := 1 + bytes.Count(text, []byte("\n")) // the end of a document without content counts as a line behind it
	for _, m := range d.mistakes {
		m.Line = min(m.Line, last)
	}
	return d.Err()
}

// Err returns the mistakes so far, joined, by line.
func (d *Document) Err() error {
	slices.SortStableFunc(d.mistakes, func(a, b *Mistake) int { return cmp.Compare(a.Line, b.Line) })
	var errs []error
	for _, m := range d.mistakes {
		errs = append(errs, m)
	}
	return errors.Join(errs...)
}

func (d *Document) whole(err error) error {
	if d.name == "" {
		return err
	}
	return fmt.Errorf("%s: %w", d.name, err)
}

// Given reports whether the file has the field, such as "clients[0].secret".
func (d *Document) Given(field string) bool { return d.lines[field] > 0 }

// Path returns the path of a file that the document names: a relative one is relative to the folder of the document.
func (d *Document) Path(file string) string {
	if file == "" || filepath.IsAbs(file) {
		return file
	}
	return filepath.Join(filepath.Dir(d.name), file)
}

// Mistake adds a mistake in a field. A field that is not given has the line of what it is missing in. If the field, or a part
// of it, could not be read, the mistake follows from that and is not added.
func (d *Document) Mistake(field, format string, args ...any) {
	if field != "" && slices.ContainsFunc(d.mistakes, func(m *Mistake) bool { return m.unread && within(m.Field, field) }) {
		return
	}
	d.add(d.line(field), field, fmt.Errorf(format, args...), false)
}

// Wrong reports whether a field, or a part of it, has a mistake.
func (d *Document) Wrong(field string) bool {
	return slices.ContainsFunc(d.mistakes, func(m *Mistake) bool { return within(m.Field, field) })
}

// within reports whether a field is another one, or a part of it.
func within(field, whole string) bool {
	rest, ok := strings.CutPrefix(field, whole)
	return ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
}

func (d *Document) line(field string) int {
	for field != "" && d.lines[field] == 0 {
		field = field[:max(0, strings.LastIndexAny(field, ".["))]
	}
	return d.lines[field]
}

// add adds a mistake unless a line of the report is the same already: two constructors may find it.
func (d *Document) add(line int, field string, err error, unread bool) {
	added := &Mistake{valetkey.ConfigError{Field: field, Err: err}, d.name, line, unread}
	if d.printed == nil {
		d.printed = map[string]bool{}
	}
	if printed := fmt.Sprint(added); !d.printed[printed] {
		d.printed[printed] = true
		d.mistakes = append(d.mistakes, added)
	}
}

func (d *Document) unreadable(line int, field, format string, args ...any) {
	d.add(line, field, fmt.Errorf(format, args...), true)
}

// Blame adds the mistakes that err joins, see [valetkey.ConfigErrors], in the struct at the path at. names are what the file calls
// the fields of the constructor that reports them, see [mistakes.Rename]; nil: the same. A field that has no name there is reported
// at the struct, by its name in Go.
func (d *Document) Blame(at string, err error, names map[string]string) {
	for _, m := range valetkey.ConfigErrors(err) {
		field, known := m.Field, true
		if names != nil && field != "" {
			field, known = mistakes.Rename(field, names)
		}
		if !known {
			d.Mistake(at, "%w", m)
			continue
		}
		d.Mistake(mistakes.Join(at, field), "%w", m.Err)
	}
}
