package config

import (
	"cmp"
	"encoding"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/valetkey/valetkey/internal/mistakes"
)

// options are the flags of a tag.
type options struct {
	required, filled, single, short bool

	oneof []string // the values of a string, or of each in a list; empty: any
}

// decode reads n into the struct that v points to.
func (d *Document) decode(n *yaml.Node, v any) {
	d.read(n, reflect.ValueOf(v).Elem(), "", options{})
}

// read reads n into v.
func (d *Document) read(n *yaml.Node, v reflect.Value, path string, o options) {
	d.lines[path] = n.Line
	if n.Kind == yaml.AliasNode { // a few aliases can expand a small file enormously
		d.unreadable(n.Line, path, "aliases are not supported")
		return
	}
	text, readsItself := v.Addr().Interface().(encoding.TextUnmarshaler)
	switch {
	case readsItself:
		if d.scalar(n, path, "", "a string") {
			if err := text.UnmarshalText([]byte(n.Value)); err != nil {
				d.unreadable(n.Line, path, "%s", cmp.Or(expected[v.Type().String()], err.Error()))
			}
		}
	case v.Kind() == reflect.Struct:
		d.readStruct(n, v, path)
	case v.Kind() == reflect.Pointer: // the field is present, so not nil even if empty
		v.Set(reflect.New(v.Type().Elem()))
		if n.ShortTag() != "!!null" || v.Elem().Kind() != reflect.Struct || v.Elem().NumField() > 0 {
			d.read(n, v.Elem(), path, o)
		}
	case keyOf(v.Type()) >= 0:
		d.readKeyed(n, v, path)
	case v.Kind() == reflect.Slice:
		d.readSlice(n, v, path, o)
	case v.Kind() == reflect.Map:
		d.readMap(n, v, path)
	default:
		d.readScalar(n, v, path)
	}
	if len(o.oneof) > 0 && v.Kind() == reflect.String && v.Len() > 0 && !slices.Contains(o.oneof, v.String()) {
		d.unreadable(n.Line, path, "%q is not %s", v.String(), alternatives(o.oneof))
		v.SetString("")
		return
	}
	if (o.filled || o.required) && (v.Kind() == reflect.String || v.Kind() == reflect.Slice) && v.Len() == 0 {
		d.Mistake(path, "is empty")
	}
}

// expected maps types of other packages with UnmarshalText to messages.
var expected = map[string]string{
	"netip.Prefix": "is not a range of addresses such as 10.0.0.0/8",
	"time.Time":    "is not a time such as 2006-01-02T15:04:05Z",
}

func (d *Document) readSlice(n *yaml.Node, v reflect.Value, path string, o options) {
	items := n.Content
	switch {
	case o.single && (n.Kind == yaml.ScalarNode || n.Kind == yaml.MappingNode && v.Type().Elem().Kind() == reflect.Struct):
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		d.read(n, v.Index(0), path, options{filled: o.filled, oneof: o.oneof})
		return
	case n.Kind != yaml.SequenceNode:
		d.unreadable(n.Line, path, "is not a list")
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(items), len(items)))
	for i, item := range items {
		d.read(item, v.Index(i), fmt.Sprintf("%s[%d]", path, i), options{filled: o.filled || o.required, oneof: o.oneof})
	}
}

// keyOf returns the index of the field that is the key of the elements of a list, or -1 if t is not such a list.
func keyOf(t reflect.Type) int {
	if t.Kind() != reflect.Slice || t.Elem().Kind() != reflect.Struct {
		return -1
	}
	for i := range t.Elem().NumField() {
		if _, flags, _ := strings.Cut(t.Elem().Field(i).Tag.Get("yaml"), ","); flags == "key" {
			return i
		}
	}
	return -1
}

// readKeyed reads a mapping into a list, in the order of the file.
func (d *Document) readKeyed(n *yaml.Node, v reflect.Value, path string) {
	members := d.members(n, path, true)
	v.Set(reflect.MakeSlice(v.Type(), len(members), len(members)))
	for i, m := range members {
		at := path + "[" + strconv.Quote(m.key.Value) + "]"
		d.read(m.value, v.Index(i), at, options{})
		d.lines[at] = m.key.Line
		v.Index(i).Field(keyOf(v.Type())).SetString(m.key.Value)
	}
}

// alternatives returns a list such as "a, b or c".
func alternatives(all []string) string {
	last := len(all) - 1
	if last < 1 {
		return strings.Join(all, "")
	}
	return strings.Join(all[:last], ", ") + " or " + all[last]
}

func (d *Document) readMap(n *yaml.Node, v reflect.Value, path string) {
	v.Set(reflect.MakeMap(v.Type()))
	for _, m := range d.members(n, path, true) {
		value, at := reflect.New(v.Type().Elem()).Elem(), path+"["+strconv.Quote(m.key.Value)+"]"
		d.read(m.value, value, at, options{})
		d.lines[at] = m.key.Line
		v.SetMapIndex(reflect.ValueOf(m.key.Value).Convert(v.Type().Key()), value)
	}
}

func (d *Document) readScalar(n *yaml.Node, v reflect.Value, path string) {
	tag, what := "", ""
	switch {
	case v.Type() == reflect.TypeFor[time.Duration]():
		if d.scalar(n, path, "", "a duration such as 30s") {
			t, err := time.ParseDuration(n.Value)
			if err != nil {
				d.unreadable(n.Line, path, "%q is not a duration such as 30s", n.Value)
			}
			v.SetInt(int64(t))
		}
		return
	case v.Kind() == reflect.String:
		what := "a string"
		if n.Kind == yaml.ScalarNode {
			what = "a string: put it in quotes"
		}
		if d.scalar(n, path, "!!str", what) {
			v.SetString(n.Value)
		}
		return
	case v.Kind() == reflect.Bool:
		tag, what = "!!bool", "true or false"
	case v.CanInt():
		tag, what = "!!int", "a whole number"
	case v.CanUint():
		tag, what = "!!int", "a whole number, 0 or above"
	default:
		d.unreadable(n.Line, path, "cannot be read into a %v", v.Type())
		return
	}
	if d.scalar(n, path, "", what) && (n.ShortTag() != tag || n.Decode(v.Addr().Interface()) != nil) {
		d.unreadable(n.Line, path, "%q is not %s", n.Value, what)
	}
}

// scalar reports whether n is a scalar with the tag; an empty tag matches any scalar. If not, it adds a mistake without the
// value, which may be a secret.
func (d *Document) scalar(n *yaml.Node, path, tag, what string) bool {
	switch {
	case n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null":
		d.unreadable(n.Line, path, "is empty")
		return false
	case n.Kind != yaml.ScalarNode || tag != "" && n.ShortTag() != tag:
		d.unreadable(n.Line, path, "is not %s", what)
		return false
	}
	return true
}

type member struct{ key, value *yaml.Node }

// members returns the members of a mapping, without repeated keys. With public, messages may contain any key, because keys cannot
// be secrets in the wrong place.
func (d *Document) members(n *yaml.Node, path string, public bool) (all []member) {
	if n.Kind != yaml.MappingNode {
		d.unreadable(n.Line, path, "is not a mapping")
		return nil
	}
	lines := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		switch line := lines[key.Value]; {
		case key.Kind != yaml.ScalarNode || key.ShortTag() != "!!str":
			d.unreadable(key.Line, path, "a key is not a string: put it in quotes")
		case key.Value == "":
			d.unreadable(key.Line, path, "a key is empty")
		case line != 0:
			name := "a key"
			if public || likeAField.MatchString(key.Value) {
				name = strconv.Quote(key.Value)
			}
			d.unreadable(key.Line, path, "%s is given on line %d already", name, line)
		default:
			lines[key.Value] = key.Line
			all = append(all, member{key, n.Content[i+1]})
		}
	}
	return all
}

// likeAField matches keys that messages may contain. {secret:x} without a space is a key with that whole name.
var likeAField = regexp.MustCompile(`^[A-Za-z0-9_]+$`)

func (d *Document) readStruct(n *yaml.Node, v reflect.Value, path string) {
	var fields []field
	gather(v, path, &fields)
	if i := slices.IndexFunc(fields, func(f field) bool { return f.short }); i >= 0 && n.Kind != yaml.MappingNode {
		if n.Kind != yaml.ScalarNode {
			d.unreadable(n.Line, path, "is neither a string nor a mapping")
			return
		}
		d.read(n, fields[i].value, path, fields[i].options)
		return
	}
	given := map[string]bool{}
	for _, m := range d.members(n, path, false) {
		given[m.key.Value] = true
		i := slices.IndexFunc(fields, func(f field) bool { return f.name == m.key.Value })
		if i < 0 {
			d.unreadable(m.key.Line, path, "%s", unknown(m.key.Value, fields))
			continue
		}
		d.read(m.value, fields[i].value, mistakes.Join(path, m.key.Value), fields[i].options)
	}
	for _, f := range fields {
		if f.required && !given[f.name] && n.Kind == yaml.MappingNode {
			d.Mistake(mistakes.Join(path, f.name), "required")
		}
	}
}

type field struct {
	name   string
	secret string // the name in the tag of the Secret that it belongs to; empty: no secret
	value  reflect.Value
	options
}

// gather appends each field of the struct v that a file can contain, including those of inline structs.
func gather(v reflect.Value, path string, all *[]field) {
	for i := range v.NumField() {
		about := v.Type().Field(i)
		if !about.IsExported() {
			continue
		}
		name, rest, _ := strings.Cut(about.Tag.Get("yaml"), ",")
		flags := strings.Split(rest, ",")
		has := func(flag string) bool { return slices.Contains(flags, flag) }
		switch secret, isSecret := v.Field(i).Addr().Interface().(*Secret); {
		case name == "-", rest == "key":
		case has("inline"):
			gather(v.Field(i), path, all)
		case isSecret:
			secret.field = mistakes.Join(path, name)
			if !has("apart") {
				*all = append(*all, field{name, name, reflect.ValueOf(&secret.Text).Elem(), options{}})
			}
			*all = append(*all, field{name + "_file", name, reflect.ValueOf(&secret.File).Elem(), options{}},
				field{name + "_env", name, reflect.ValueOf(&secret.Env).Elem(), options{}})
		default:
			oneof := strings.Fields(about.Tag.Get("oneof"))
			*all = append(*all, field{cmp.Or(name, strings.ToLower(about.Name)), "", v.Field(i),
				options{has("required"), has("filled") || len(oneof) > 0, has("single"), has("short"), oneof}})
		}
	}
}

// unknown returns the message for a key that matches no field: with the most similar field, or else with all fields. The message
// contains nothing that may be a value.
func unknown(name string, fields []field) string {
	text := "unknown field"
	if likeAField.MatchString(name) {
		text += " " + strconv.Quote(name)
	}
	var names []string
	for _, f := range fields {
		names = append(names, f.name)
	}
	if best := Similar(name, names); best != "" {
		return text + "; did you mean " + best + "?"
	}
	return text + "; known are " + strings.Join(names, ", ")
}

// Similar returns the one of names that name is most likely a misspelling of, or "" if none is close.
func Similar(name string, names []string) string {
	best, fewest := "", 1+len(name)/3 // allow some typing errors
	for _, known := range names {
		n := distance(name, known)
		if strings.HasPrefix(known, name+"_") { // name lacks the suffix of a secret
			n = 0
		}
		if n < fewest {
			best, fewest = known, n
		}
	}
	return best
}

// distance returns the number of bytes to insert, remove or replace to turn a into b (Levenshtein). If a has more than 64 bytes,
// it returns the length of a.
func distance(a, b string) int {
	if len(a) > 64 {
		return len(a)
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := diagonal
			if a[i] != b[j] {
				replaced++
			}
			diagonal = row[j+1]
			row[j+1] = min(replaced, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
