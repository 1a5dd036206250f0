// Package config reads the YAML files of the authorization server and of the proxy into structs. It is strict and reports all
// mistakes together, each with its line.
//
// A field is a member of a mapping with the name in its tag. The following are mistakes: an unknown field, a repeated field, a
// value of the wrong type (nothing is converted: a number is not a string), a field without a value, an alias, a second document,
// and a document of more than 1 MiB. A message contains the value only if the type is a number, a boolean or a duration, or
// implements UnmarshalText, or if the values of the field are listed. Any other value may be a secret in the wrong place.
//
//	name:     yaml:"name"                 the members of the mapping, as written; "-" for none
//	inline:   yaml:",inline"              the fields of a struct, as if they were those of the outer one
//	required: yaml:"name,required"        must be given, and not be empty
//	filled:   yaml:"name,filled"          if given, must not be empty
//	single:   yaml:"name,single"          a list that may also be given as its one element
//	short:    yaml:"name,short"           a scalar in place of the mapping is the value of this field alone
//	key:      yaml:",key"                 the string that is the key of the struct: a list of such structs is written as a mapping
//	oneof:    yaml:"name" oneof:"a b"     if given, must be one of the values; for a list, each of its strings
//
// A struct may contain strings, booleans, integers, durations, slices, maps with string keys, structs, pointers (nil: the field
// is absent), [Secret], and types with an UnmarshalText method, whose error becomes the mistake.
//
// # The library
//
// go.yaml.in/yaml/v3 parses the syntax into a tree of nodes with lines; this package does the checks above. goccy/go-yaml v1.19.2
// was evaluated instead. Its strict mode stops at the first mistake (goccy/go-yaml issue 156) and prints the surrounding lines,
// which may contain secrets. It cannot refuse aliases or merge keys, accepts numbers and null as strings (0123 becomes "83"), and
// ignores further documents. It does not limit nesting: 16,000 brackets take 350 ms, while yaml/v3 refuses more than 10,000
// levels. For a tree of 1 MiB it needs 3.5 times the time and 5 times the memory. yaml/v3 is maintained, and testify already
// requires it in every module here.
package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v3"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/mistakes"
)

const maxDocument = 1 << 20 // bytes

// A Mistake is a [valetkey.ConfigError] with its position in a file.
type Mistake struct {
	valetkey.ConfigError
	File string // empty: unnamed
	Line int    // zero: unknown

	unread bool // the value could not be read
}

// Error returns file, line, field and problem on one line, such as "as.yaml:12: clients[0].redirect_uris: is not a list".
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

// Unwrap returns the [valetkey.ConfigError] without its position.
func (m *Mistake) Unwrap() error { return &m.ConfigError }

// A Document is a YAML file that is being read into a struct. Reading continues after a mistake. The zero value is a document
// without a file, whose mistakes have no lines.
type Document struct {
	root     reflect.Type // that the document is read into; nil: there is none
	name     string
	lines    map[string]int // by path of each field that is present
	mistakes []*Mistake
	printed  map[string]bool // texts of the reported mistakes, to omit repetitions
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

// Unread returns a Document of the struct that v points to, for a configuration that no file holds.
func Unread(v any) *Document { return &Document{root: reflect.TypeOf(v).Elem()} }

// Read reads the document in r into the struct that v points to. name is the name of the file; empty: unnamed. After reading,
// Read calls check to validate the values, even if there are mistakes. Mistakes that check adds or returns get the lines of their
// fields. The error joins all mistakes by line, each a [*Mistake]. If the text is not valid YAML, the error reports only that.
func Read(name string, r io.Reader, v any, check func(*Document) error) error {
	text, err := io.ReadAll(io.LimitReader(r, maxDocument+1))
	if err != nil {
		return err
	}
	d := &Document{name: name, root: reflect.TypeOf(v).Elem(), lines: map[string]int{"": 1}}
	if len(text) > maxDocument {
		return d.whole(fmt.Errorf("is longer than %d bytes", maxDocument))
	}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var root, second yaml.Node
	switch err := decoder.Decode(&root); {
	case err != nil && strings.Contains(err.Error(), "unknown anchor"): // the error contains the name, which may be an unquoted secret
		return d.whole(errors.New("aliases are not supported: quote values that begin with *"))
	case err != nil && err != io.EOF:
		return d.whole(err)
	case len(root.Content) == 0: // an empty document lacks every field
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
	last := 1 + bytes.Count(text, []byte("\n")) // for a document without content, the parser reports a line after the last one
	for _, m := range d.mistakes {
		m.Line = min(m.Line, last)
	}
	return d.Err()
}

// Err returns the mistakes found so far, joined and sorted by line.
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

// Mistake adds a mistake in a field. The line of an absent field is that of the mapping in which it is missing. If the field or a
// part of it could not be read, the mistake is a consequence and is not added.
func (d *Document) Mistake(field, format string, args ...any) {
	if field != "" && slices.ContainsFunc(d.mistakes, func(m *Mistake) bool { return m.unread && within(m.Field, field) }) {
		return
	}
	d.add(d.line(field), field, fmt.Errorf(format, args...), false)
}

// Wrong reports whether a field or a part of it has a mistake.
func (d *Document) Wrong(field string) bool {
	return slices.ContainsFunc(d.mistakes, func(m *Mistake) bool { return within(m.Field, field) })
}

// within reports whether field is whole or a part of it.
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

// add adds a mistake unless an identical line has been reported, because two constructors can find the same mistake.
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

// Blame adds the mistakes that err joins (see [valetkey.ConfigErrors]) to the struct at the path at. names maps the fields of the
// constructor to those of the file (see [mistakes.Rename]); nil: [Document.FieldName] gives them. A mistake in an unmapped field
// is reported at the struct, under the Go name of the field.
func (d *Document) Blame(at string, err error, names map[string]string) {
	for _, m := range valetkey.ConfigErrors(err) {
		field, known := m.Field, true
		if names == nil {
			field = d.FieldName(field)
		} else if field != "" {
			field, known = mistakes.Rename(field, names)
		}
		if !known {
			d.Mistake(at, "%w", m)
			continue
		}
		d.Mistake(mistakes.Join(at, field), "%w", m.Err)
	}
}

// FieldName returns the name in the file of a field of the struct that the document was read into, given by its path in Go:
// "clients[0].redirect_uris[1]" for "Clients[0].RedirectURIs[1]". The tags of the struct give the names. Several fields may be
// separated by a comma and a space. A path that the struct does not have is returned unchanged, because it may be a name already.
func (d *Document) FieldName(field string) string {
	if d.root == nil {
		return field
	}
	var all []string
	for _, one := range mistakes.Split(field) {
		all = append(all, nameOf(d.root, one))
	}
	return strings.Join(all, ", ")
}

func nameOf(t reflect.Type, path string) string {
	name, rest := "", path
	for rest != "" {
		for t.Kind() == reflect.Pointer {
			t = t.Elem()
		}
		if rest[0] == '[' {
			if t.Kind() != reflect.Slice && t.Kind() != reflect.Map && t.Kind() != reflect.Array {
				return path
			}
			end := mistakes.Index(rest)
			name, rest, t = name+rest[:end], rest[end:], t.Elem()
			continue
		}
		rest = strings.TrimPrefix(rest, ".")
		end := strings.IndexAny(rest, ".[")
		if end < 0 {
			end = len(rest)
		}
		if t.Kind() != reflect.Struct {
			return path
		}
		f, found := t.FieldByName(rest[:end])
		if !found {
			return path
		}
		tag, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if tag == "" || tag == "-" { // the document sets it from a field of this name
			tag = snakeCase(f.Name)
		}
		name, rest, t = mistakes.Join(name, tag), rest[end:], f.Type
	}
	return name
}

// snakeCase returns the usual name in YAML of a field in Go: "user_types" for "UserTypes".
func snakeCase(name string) string {
	var b strings.Builder
	for i, r := range name {
		if i > 0 && unicode.IsUpper(r) {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}
