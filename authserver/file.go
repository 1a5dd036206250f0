package authserver

import (
	"bytes"
	"cmp"
	"encoding"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

const maxFile = 1 << 20 // bytes

// A Mistake is one thing that is wrong with a [Config]. It quotes no secret.
type Mistake struct {
	File  string // empty: it does not come from one that has a name
	Line  int    // zero: it does not come from a file
	Field string // as files name it: clients[0].redirect_uris
	Err   error

	unread bool // the value is not what it says, or stands for nothing
}

// Error returns file, line, field and what is wrong: "as.yaml:12: clients[0].redirect_uris: one has a fragment".
func (m *Mistake) Error() string {
	var text strings.Builder
	switch {
	case m.Line > 0 && m.File != "":
		fmt.Fprintf(&text, "%s:%d: ", m.File, m.Line)
	case m.Line > 0:
		fmt.Fprintf(&text, "line %d: ", m.Line)
	}
	if m.Field != "" {
		text.WriteString(m.Field + ": ")
	}
	return text.String() + m.Err.Error()
}

func (m *Mistake) Unwrap() error { return m.Err }

// LoadConfig reads a YAML document with the fields of [Config], named as its tags say; name is that of the file, for errors.
// What is given in Go only is not there: UserTypes, Store, Seal, Logger. The error is every [*Mistake], joined, each with its
// line; or it says that there is no YAML at all.
func LoadConfig(name string, r io.Reader) (Config, error) {
	var cfg Config
	if err := ReadYAML(name, r, &cfg, func() error { return cfg.Validate() }); err != nil {
		return Config{}, fmt.Errorf("authserver: read the configuration: %w", err)
	}
	return cfg, nil
}

// ReadYAML is [LoadConfig] for a file that says more than a Config: v points to a struct that has one inline, with the tag
// `yaml:",inline"`. It knows structs, slices, maps, strings, numbers, flags, durations, and what encoding.TextUnmarshaler reads.
//
// It is strict: an unknown field, one that stands twice, an alias and a second document are mistakes. Once all is read, check
// looks at the whole; the [*Mistake] values that its error joins get their lines by their fields.
func ReadYAML(name string, r io.Reader, v any, check func() error) error {
	text, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err != nil {
		return err
	}
	d := &document{name: name, lines: map[string]int{}}
	if len(text) > maxFile {
		return d.whole(fmt.Errorf("is longer than %d bytes", maxFile))
	}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var root, second yaml.Node
	switch err := decoder.Decode(&root); {
	case err != nil && strings.Contains(err.Error(), "unknown anchor"): // names it, which may be a secret without quotes
		return d.whole(errors.New("aliases are not supported: put what begins with * in quotes"))
	case err != nil && err != io.EOF:
		return d.whole(err)
	}
	d.lines[""] = 1
	if len(root.Content) > 0 {
		d.read(root.Content[0], reflect.ValueOf(v).Elem(), "")
	}
	switch err := decoder.Decode(&second); {
	case err == nil:
		d.mistake(&second, "", "there is more than one YAML document")
	case err != io.EOF:
		return d.whole(err)
	}
	d.found(check())
	last := 1 + bytes.Count(text, []byte("\n")) // the end of a document without content counts as a line behind it
	for _, m := range d.mistakes {
		m.Line = min(m.Line, last)
	}
	slices.SortStableFunc(d.mistakes, func(a, b *Mistake) int { return cmp.Compare(a.Line, b.Line) })
	var errs []error
	for _, m := range d.mistakes {
		errs = append(errs, m)
	}
	return errors.Join(errs...)
}

// A document is a YAML file on its way into a struct. A mistake does not end the reading, so that all are known in the end.
type document struct {
	name     string
	lines    map[string]int // of the fields that stand in it
	mistakes []*Mistake
}

func (d *document) whole(err error) error {
	if d.name == "" {
		return err
	}
	return fmt.Errorf("%s: %w", d.name, err)
}

func (d *document) mistake(n *yaml.Node, field, format string, args ...any) {
	d.mistakes = append(d.mistakes, &Mistake{File: d.name, Line: n.Line, Field: field, Err: fmt.Errorf(format, args...), unread: true})
}

// found takes over what check has found. A field that does not stand in the file is told by the line of what it is missing in.
func (d *document) found(err error) {
	for _, m := range Mistakes(err) {
		at := m.Field
		for d.lines[at] == 0 {
			at = at[:max(0, strings.LastIndexAny(at, ".["))]
		}
		if !d.unread(m.Field) {
			d.mistakes = append(d.mistakes, &Mistake{File: d.name, Line: d.lines[at], Field: m.Field, Err: m.Err})
		}
	}
}

// unread reports whether the field, or something in it, could not be read: what follows from that is not another mistake.
func (d *document) unread(field string) bool {
	return field != "" && slices.ContainsFunc(d.mistakes, func(m *Mistake) bool {
		rest, within := strings.CutPrefix(m.Field, field)
		return m.unread && within && (rest == "" || rest[0] == '.' || rest[0] == '[')
	})
}

// Mistakes returns the mistakes that an error joins. What is none becomes one without a field.
func Mistakes(err error) (all []*Mistake) {
	if err == nil {
		return nil
	}
	if m, ok := err.(*Mistake); ok {
		return []*Mistake{m}
	}
	switch wrapped := err.(type) {
	case interface{ Unwrap() []error }:
		for _, e := range wrapped.Unwrap() {
			all = append(all, Mistakes(e)...)
		}
	case interface{ Unwrap() error }:
		if errors.As(err, new(*Mistake)) {
			return Mistakes(wrapped.Unwrap())
		}
	}
	if all == nil {
		all = []*Mistake{{Err: err}}
	}
	return all
}

// read sets v to what n says.
func (d *document) read(n *yaml.Node, v reflect.Value, path string) {
	d.lines[path] = n.Line
	if n.Kind == yaml.AliasNode { // they also are what makes a small file huge
		d.mistake(n, path, "aliases are not supported")
		return
	}
	if text, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		if !d.scalar(n, path, "", "a text") {
			return
		}
		if err := text.UnmarshalText([]byte(n.Value)); err != nil {
			d.mistake(n, path, "is not %s", expected[v.Type().String()])
		}
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		d.readStruct(n, v, path)
	case reflect.Pointer: // there, and so not nil, even if empty
		v.Set(reflect.New(v.Type().Elem()))
		if n.ShortTag() != "!!null" {
			d.read(n, v.Elem(), path)
		}
	case reflect.Slice:
		d.readSlice(n, v, path)
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for _, m := range d.members(n, path) {
			value := reflect.New(v.Type().Elem()).Elem()
			d.read(m.value, value, path+"["+strconv.Quote(m.key.Value)+"]")
			v.SetMapIndex(reflect.ValueOf(m.key.Value).Convert(v.Type().Key()), value)
		}
	default:
		d.readScalar(n, v, path)
	}
}

// expected says what the types are that read themselves.
var expected = map[string]string{
	"netip.Prefix": "a range of addresses such as 10.0.0.0/8",
	"time.Time":    "a time such as 2006-01-02T15:04:05Z",
}

func (d *document) readSlice(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.SequenceNode {
		d.mistake(n, path, "is not a list")
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
	for i, item := range n.Content {
		d.read(item, v.Index(i), fmt.Sprintf("%s[%d]", path, i))
	}
}

func (d *document) readScalar(n *yaml.Node, v reflect.Value, path string) {
	switch {
	case v.Type() == reflect.TypeFor[time.Duration]():
		if !d.scalar(n, path, "", "a duration such as 30s") {
			return
		}
		t, err := time.ParseDuration(n.Value)
		if err != nil {
			d.mistake(n, path, "is not a duration such as 30s")
		}
		v.SetInt(int64(t))
	case v.Kind() == reflect.String:
		if d.scalar(n, path, "!!str", "a string: put it in quotes") {
			v.SetString(n.Value)
		}
	case v.Kind() == reflect.Bool:
		if d.scalar(n, path, "!!bool", "true or false") && n.Decode(v.Addr().Interface()) != nil {
			d.mistake(n, path, "is not true or false")
		}
	case v.Kind() == reflect.Int:
		if d.scalar(n, path, "!!int", "a whole number") && n.Decode(v.Addr().Interface()) != nil {
			d.mistake(n, path, "is not a whole number that fits")
		}
	default:
		d.mistake(n, path, "cannot be read into a %v", v.Type())
	}
}

// scalar reports whether n is one, with the tag unless that is "", and says so if not: without the value, which may be a secret.
func (d *document) scalar(n *yaml.Node, path, tag, what string) bool {
	switch {
	case n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null":
		d.mistake(n, path, "is empty")
		return false
	case n.Kind != yaml.ScalarNode || tag != "" && n.ShortTag() != tag:
		d.mistake(n, path, "is not %s", what)
		return false
	}
	return true
}

type member struct{ key, value *yaml.Node }

// members returns those of a mapping, each key once.
func (d *document) members(n *yaml.Node, path string) (all []member) {
	if n.Kind != yaml.MappingNode {
		d.mistake(n, path, "is not a mapping")
		return nil
	}
	lines := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		if !d.scalar(key, path, "!!str", "a mapping whose keys are strings: put them in quotes") {
			continue
		}
		if line := lines[key.Value]; line != 0 {
			d.mistake(key, path, "a field%s stands on line %d already", quoted(key.Value), line)
			continue
		}
		lines[key.Value] = key.Line
		all = append(all, member{key, n.Content[i+1]})
	}
	return all
}

// likeAField is what may be repeated: {secret:x} without a space is a field of that name.
var likeAField = regexp.MustCompile(`^[A-Za-z0-9_]+$`)

func quoted(name string) string {
	if !likeAField.MatchString(name) {
		return ""
	}
	return " " + strconv.Quote(name)
}

func (d *document) readStruct(n *yaml.Node, v reflect.Value, path string) {
	names, fields := []string{}, map[string]reflect.Value{}
	gather(v, func(name string, field reflect.Value) {
		names = append(names, name)
		fields[name] = field
	})
	for _, m := range d.members(n, path) {
		field, known := fields[m.key.Value]
		if !known {
			d.mistake(m.key, path, "unknown field%s; known are %s", quoted(m.key.Value), strings.Join(names, ", "))
			continue
		}
		d.read(m.value, field, strings.TrimPrefix(path+"."+m.key.Value, "."))
	}
}

// gather calls f for each field of a struct that a file may have, those of inline ones among them.
func gather(v reflect.Value, f func(name string, field reflect.Value)) {
	for i := range v.NumField() {
		about := v.Type().Field(i)
		name := cmp.Or(about.Tag.Get("yaml"), strings.ToLower(about.Name))
		switch {
		case !about.IsExported() || name == "-":
		case name == ",inline":
			gather(v.Field(i), f)
		default:
			f(name, v.Field(i))
		}
	}
}
