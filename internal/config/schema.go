package config

import (
	"encoding"
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"time"

	"github.com/valetkey/valetkey/internal/mistakes"
)

// A Schema is a JSON Schema. It uses only keywords that have had the same meaning since draft 7, because editors support different
// drafts, and errorMessage, which yaml-language-server shows in place of the default text and others ignore.
type Schema map[string]any

// A Guide adds to a schema what a struct and its tags do not express. The keys of its maps are paths of fields in the file, without
// indexes of lists, and with * for the keys of a map: "verifiers.jwks.issuer", "routes.*". The path of the whole document is "".
type Guide struct {
	Title string

	// Keys describes each field in a sentence or two, as editors show it. The fields of a [Secret] share the description under the
	// name in its tag.
	Keys map[string]string

	// Values lists the possible values of a string, or of each string in a list, that only the program knows. For constants, use the
	// tag oneof.
	Values map[string][]string

	// Texts describes the text that the UnmarshalText method of a type accepts.
	Texts map[reflect.Type]Schema

	// Rules adds conditions to the schemas of mappings, such as fields that exclude each other. See [OneOf], [Required] and [All].
	Rules map[string]Schema
}

// SchemaOf returns the schema (draft 2020-12) of the documents that [Read] reads into a struct of the type of v. It comes from the
// list of fields that Read uses. The error joins what g lacks: the description of a field, or the schema of a type with an
// UnmarshalText method.
func SchemaOf(v any, g Guide) (Schema, error) {
	w := walk{Guide: g, paths: map[string]bool{}}
	schema := w.object(reflect.TypeOf(v), "")
	schema["$schema"], schema["title"] = "https://json-schema.org/draft/2020-12/schema", g.Title
	return schema, errors.Join(w.lacks...)
}

// Paths returns the paths of the fields of a struct of the type of v, sorted, as a [Guide] has them.
func Paths(v any) []string {
	w := walk{paths: map[string]bool{}}
	w.object(reflect.TypeOf(v), "")
	return slices.Sorted(maps.Keys(w.paths))
}

// OneOf returns the rule that exactly one of the fields must be given.
func OneOf(fields ...string) Schema {
	var all []any
	for _, f := range fields {
		all = append(all, Required(f))
	}
	return Schema{"oneOf": all}
}

// Required returns the rule that the fields must be given.
func Required(fields ...string) Schema { return Schema{"required": list(fields)} }

// AtMostOne returns the rule that at most one of the fields may be given.
func AtMostOne(fields ...string) Schema {
	var rules []Schema
	for i, f := range fields[:len(fields)-1] {
		others := map[string]any{}
		for _, other := range fields[i+1:] {
			others[other] = false
		}
		rules = append(rules, Schema{"if": Required(f), "then": Schema{"properties": others}}) // editors mark the other field
	}
	return All(rules...)
}

// All returns the rule that all of the rules must be met.
func All(rules ...Schema) Schema { return Schema{"allOf": list(rules)} }

// list returns the elements as the JSON packages represent a list.
func list[T any](elements []T) []any {
	all := []any{}
	for _, e := range elements {
		all = append(all, e)
	}
	return all
}

// units matches a duration such as 1m30s, without a sign.
const units = `(([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+`

// Duration returns the schema of a duration that is zero or above. Only zero needs no unit.
func Duration() Schema { return durations(`\+?`) }

// durations returns the schema of durations whose sign matches the pattern.
func durations(sign string) Schema {
	const wrong = "is not a duration such as 30s"
	return Schema{"anyOf": []any{
		Schema{"type": "string", "pattern": "^" + sign + "(0|" + units + ")$", "errorMessage": wrong},
		Schema{"const": 0, "errorMessage": wrong},
	}}
}

// PositiveDuration returns the schema of a duration above zero.
func PositiveDuration() Schema {
	const wrong = "is not a positive duration such as 30s"
	return Schema{
		"type": "string", "pattern": `^\+?` + units + `$`, "errorMessage": wrong,
		"allOf": []any{Schema{"pattern": `[1-9]`, "errorMessage": wrong}},
	}
}

// texts are the schemas of types of other packages.
var texts = map[string]Schema{
	"netip.Prefix": {"type": "string", "pattern": `^[0-9A-Fa-f.:]+/[0-9]+$`, "errorMessage": expected["netip.Prefix"]},
	"time.Time":    {"type": "string", "format": "date-time", "errorMessage": expected["time.Time"]},
}

// A walk follows the fields of a struct.
type walk struct {
	Guide
	paths map[string]bool // of the fields seen
	lacks []error
}

func (w *walk) object(t reflect.Type, path string) Schema {
	var fields []field
	gather(reflect.New(t).Elem(), "", &fields)
	properties, required, rules := map[string]any{}, []string{}, []any{}
	var secret []string // the fields of the current Secret
	for i, f := range fields {
		at, note := mistakes.Join(path, f.name), ""
		if f.secret != "" {
			at, note = mistakes.Join(path, f.secret), secretNotes[f.name[len(f.secret):]]
			if secret = append(secret, f.name); i+1 == len(fields) || fields[i+1].secret != f.secret {
				rules, secret = append(rules, AtMostOne(secret...)), nil
			}
		}
		properties[f.name] = w.described(w.value(f.value.Type(), at, f.options), at, note)
		if f.required {
			required = append(required, f.name)
		}
	}
	schema := Schema{"type": "object", "properties": properties, "additionalProperties": false}
	if len(required) > 0 {
		schema["required"] = list(required)
	}
	if rule, ok := w.Rules[path]; ok {
		rules = append(rules, rule)
	}
	if len(rules) > 0 {
		schema["allOf"] = rules
	}
	if i := slices.IndexFunc(fields, func(f field) bool { return f.short }); i >= 0 {
		return Schema{"anyOf": []any{w.value(fields[i].value.Type(), mistakes.Join(path, fields[i].name), fields[i].options), schema}}
	}
	return schema
}

// described adds the description of the field at the path to its schema, followed by a note.
func (w *walk) described(schema Schema, path, note string) Schema {
	text := w.Keys[path]
	if text == "" && !w.paths[path] {
		w.lacks = append(w.lacks, fmt.Errorf("%s: has no description", path))
	}
	w.paths[path] = true
	schema["description"] = text + note
	return schema
}

// secretNotes completes the description of a secret, by the suffix of the field.
var secretNotes = map[string]string{
	"_file": " This is the path of the file that contains it.",
	"_env":  " This is the name of the environment variable that contains it.",
}

// value returns the schema of a value, as [Document.read] reads it.
func (w *walk) value(t reflect.Type, path string, o options) Schema {
	_, readsItself := reflect.New(t).Interface().(encoding.TextUnmarshaler)
	filled := o.filled || o.required
	switch {
	case readsItself:
		schema, ok := w.Texts[t]
		if !ok {
			schema, ok = texts[t.String()]
		}
		if !ok {
			w.lacks = append(w.lacks, fmt.Errorf("%s: the type %v has no schema", path, t))
		}
		if schema = maps.Clone(schema); schema == nil {
			schema = Schema{}
		}
		return schema
	case t.Kind() == reflect.Struct:
		return w.object(t, path)
	case t.Kind() == reflect.Pointer:
		if e := t.Elem(); e.Kind() == reflect.Struct && e.NumField() == 0 {
			return Schema{"type": []any{"object", "null"}, "additionalProperties": false}
		}
		return w.value(t.Elem(), path, o)
	case keyOf(t) >= 0:
		return w.mapping(t.Elem(), path)
	case t.Kind() == reflect.Slice:
		schema := Schema{"type": "array", "items": w.value(t.Elem(), path, options{filled: filled, oneof: o.oneof})}
		if filled {
			schema["minItems"] = 1
		}
		if o.single {
			schema = Schema{"anyOf": []any{w.value(t.Elem(), path, options{filled: o.filled, oneof: o.oneof}), schema}}
		}
		return schema
	case t.Kind() == reflect.Map:
		return w.mapping(t.Elem(), path)
	case t == reflect.TypeFor[time.Duration]():
		return durations(`[-+]?`)
	case t.Kind() == reflect.String:
		schema := Schema{"type": "string"}
		if values := w.Values[path]; values != nil {
			schema["enum"] = list(values)
		} else if len(o.oneof) > 0 {
			schema["enum"] = list(o.oneof)
		} else if filled {
			schema["minLength"] = 1
		}
		return schema
	case t.Kind() == reflect.Bool:
		return Schema{"type": "boolean"}
	default: // an integer; Document.read supports no other kind
		schema := Schema{"type": "integer"}
		if v := reflect.New(t).Elem(); v.CanUint() {
			schema["minimum"] = 0
			if t.Bits() < 32 {
				schema["maximum"] = uint64(math.MaxUint64) >> (64 - t.Bits())
			}
		}
		return schema
	}
}

// mapping returns the schema of a mapping with any keys.
func (w *walk) mapping(element reflect.Type, path string) Schema {
	schema := Schema{
		"type":                 "object",
		"propertyNames":        Schema{"minLength": 1},
		"additionalProperties": w.described(w.value(element, path+".*", options{}), path+".*", ""),
	}
	if rule, ok := w.Rules[path]; ok {
		schema["allOf"] = []any{rule}
	}
	return schema
}
