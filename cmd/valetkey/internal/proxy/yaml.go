package proxy

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/valetkey/valetkey/internal/config"
)

const maxFile = 1 << 20 // bytes of a configuration

// A document is a YAML file that is taken apart strictly. A mistake is written down with its line and does not end the
// reading, so that all are known in the end.
type document struct {
	file     string
	mistakes []mistake
}

type mistake struct {
	line int
	text string
}

// err returns all mistakes, in the order of their lines.
func (d *document) err() error {
	slices.SortStableFunc(d.mistakes, func(a, b mistake) int { return cmp.Compare(a.line, b.line) })
	var errs []error
	for _, m := range d.mistakes {
		errs = append(errs, fmt.Errorf("%s:%d: %s", d.file, m.line, m.text))
	}
	return errors.Join(errs...)
}

// A node is a value in a document. The zero node is one that is not there: it reads as the zero value, without a mistake.
type node struct {
	*yaml.Node
	doc  *document
	path string // "verifiers[0].jwks"
}

// open returns the root of the one document in a file. The error is that of one that cannot be read as YAML at all.
func open(path string) (*document, node, error) {
	text, err := config.Content(path, maxFile)
	if err != nil {
		return nil, node{}, err
	}
	doc := &document{file: path}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var root yaml.Node
	switch err := decoder.Decode(&root); {
	case err != nil && strings.Contains(err.Error(), "unknown anchor"): // names it, which may be a secret without quotes
		return nil, node{}, fmt.Errorf("%s: aliases are not supported: put what begins with * in quotes", path)
	case err != nil && err != io.EOF:
		return nil, node{}, fmt.Errorf("%s: %w", path, err)
	}
	n := node{&yaml.Node{Kind: yaml.MappingNode, Line: 1}, doc, ""} // an empty file lacks every field
	if len(root.Content) > 0 {
		n.Node = root.Content[0]
	}
	var second yaml.Node
	switch err := decoder.Decode(&second); {
	case err == nil:
		node{&second, doc, ""}.mistake("there is more than one YAML document")
	case err != io.EOF:
		return nil, node{}, fmt.Errorf("%s: %w", path, err)
	}
	return doc, n, nil
}

func (n node) mistake(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if n.path != "" {
		text = n.path + ": " + text
	}
	if m := (mistake{n.Line, text}); !slices.Contains(n.doc.mistakes, m) { // or two constructors report it
		n.doc.mistakes = append(n.doc.mistakes, m)
	}
}

// absent reports whether there is no value of the kind, which is a mistake if there is another one.
func (n node) absent(kind yaml.Kind, name string) bool {
	switch {
	case n.Node == nil:
		return true
	case n.Kind == yaml.AliasNode:
		n.mistake("aliases are not supported") // they also are what makes a small file huge
		return true
	case n.Kind != kind:
		n.mistake("is not %s", name)
		return true
	}
	return false
}

// A member is one of a mapping.
type member struct{ key, value node }

// members returns those of a mapping, as written, each key once.
func (n node) members() []member {
	if n.absent(yaml.MappingNode, "a mapping") {
		return nil
	}
	var all []member
	lines := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := node{n.Content[i], n.doc, n.path}
		name := key.text()
		if key.isText() && name == "" {
			key.mistake("a key is empty")
		}
		if name == "" {
			continue
		}
		if line, twice := lines[name]; twice {
			key.mistake("%q stands on line %d already", name, line)
			continue
		}
		lines[name] = key.Line
		all = append(all, member{key, node{n.Content[i+1], n.doc, n.path + "[" + strconv.Quote(name) + "]"}})
	}
	return all
}

// likeAField is what may be repeated. {password:x} without a space is a field of that name.
var likeAField = regexp.MustCompile(`^[A-Za-z_]+$`)

// fields returns the values of a mapping that may have the fields known and no others.
func (n node) fields(known ...string) map[string]node {
	values := map[string]node{}
	for _, m := range n.members() {
		name := m.key.Value
		if !slices.Contains(known, name) {
			if name = " " + strconv.Quote(name); !likeAField.MatchString(m.key.Value) {
				name = ""
			}
			m.key.mistake("unknown field%s; known are %s", name, strings.Join(known, ", "))
			continue
		}
		m.value.path = strings.TrimPrefix(n.path+"."+name, ".")
		values[name] = m.value
	}
	return values
}

// require makes it a mistake if one of the fields is missing in the values that n.fields returned.
func (n node) require(values map[string]node, fields ...string) {
	for _, f := range fields {
		if values[f].Node == nil {
			n.mistake("%s: required", f)
		}
	}
}

func (n node) items() []node {
	if n.absent(yaml.SequenceNode, "a list") {
		return nil
	}
	if len(n.Content) == 0 {
		n.mistake("is empty")
	}
	var items []node
	for i, c := range n.Content {
		items = append(items, node{c, n.doc, fmt.Sprintf("%s[%d]", n.path, i)})
	}
	return items
}

func (n node) text() string {
	if n.absent(yaml.ScalarNode, "a string") {
		return ""
	}
	switch {
	case n.isText():
		return n.Value
	case n.ShortTag() == "!!null":
		n.mistake("is empty")
	default:
		n.mistake("%q is not a string: put it in quotes", n.Value)
	}
	return ""
}

func (n node) isText() bool {
	return n.Node != nil && n.Kind == yaml.ScalarNode && n.ShortTag() == "!!str"
}

// given returns a text that is not empty.
func (n node) given() string {
	s := n.text()
	if s == "" && n.isText() {
		n.mistake("is empty")
	}
	return s
}

// oneOf returns a text that is one of options, or "" if none is given.
func (n node) oneOf(options ...string) string {
	s := n.given()
	if s != "" && !slices.Contains(options, s) {
		n.mistake("%q is not %s", s, strings.Join(options, " or "))
		return ""
	}
	return s
}

// texts reads a string or a list of strings.
func (n node) texts() []string {
	if n.Node == nil || n.Kind != yaml.SequenceNode {
		if s := n.given(); s != "" {
			return []string{s}
		}
		return nil
	}
	var all []string
	for _, item := range n.items() {
		all = append(all, item.given())
	}
	return all
}

// file returns a path; a relative one is relative to the folder of the document.
func (n node) file() string {
	path := n.given()
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(filepath.Dir(n.doc.file), path)
}

func (n node) flag() bool {
	if n.absent(yaml.ScalarNode, "true or false") {
		return false
	}
	var b bool
	if n.ShortTag() != "!!bool" || n.Decode(&b) != nil {
		n.mistake("%q is not true or false", n.Value)
	}
	return b
}

// number reads a whole number, zero or above.
func (n node) number() int {
	if n.absent(yaml.ScalarNode, "a whole number") {
		return 0
	}
	var i int
	if n.ShortTag() != "!!int" || n.Decode(&i) != nil || i < 0 {
		n.mistake("%q is not a whole number", n.Value)
		return 0
	}
	return i
}

// duration reads "30s" and the like, and returns it as a Config takes it: zero if it is not given, negative for none.
func (n node) duration() time.Duration {
	if n.Node != nil && n.Kind == yaml.ScalarNode && !n.isText() && n.ShortTag() != "!!null" { // quotes make no duration of a number
		n.mistake("%q is not a duration such as 30s", n.Value)
		return 0
	}
	text := n.text()
	if text == "" {
		return 0
	}
	d, err := time.ParseDuration(text)
	switch {
	case err != nil || d < 0:
		n.mistake("%q is not a duration such as 30s", text)
		return 0
	case d == 0:
		return -1
	}
	return d
}

// positive is duration without the zero.
func (n node) positive() time.Duration {
	d := n.duration()
	if d < 0 {
		n.mistake("%q is not a duration above zero", n.Value)
	}
	return max(d, 0)
}
