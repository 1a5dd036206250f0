// Package mistakes collects everything that is wrong with a configuration, so that a constructor reports it all at once.
package mistakes

import (
	"errors"
	"fmt"
	"strings"

	"github.com/valetkey/valetkey"
)

// A List collects the mistakes of one constructor, each as a [valetkey.ConfigError]. Only programmers fill it, at startup.
// The zero value is empty and ready to use.
type List struct {
	// Package precedes every mistake in the text of [List.Err], as in "jwks: Issuer: required". Empty: nothing does.
	Package string

	errs []error
}

// Add adds a mistake in a field: the path of a field in Go, or several separated by a comma and a space.
func (l *List) Add(field, format string, args ...any) {
	l.add(&valetkey.ConfigError{Field: field, Err: fmt.Errorf(format, args...)})
}

// AddIf adds a mistake if wrong is true.
func (l *List) AddIf(wrong bool, field, format string, args ...any) {
	if wrong {
		l.Add(field, format, args...)
	}
}

// Within adds what the constructor of a part reported, if err is not nil. Field is the field that holds the part's
// configuration, and precedes the fields of the part; empty: the part's fields are also fields of the whole.
func (l *List) Within(field string, err error) {
	for _, m := range valetkey.ConfigErrors(err) {
		l.add(&valetkey.ConfigError{Field: Join(field, m.Field), Err: m.Err})
	}
}

// Err returns the mistakes joined, or nil if there are none.
func (l *List) Err() error { return errors.Join(l.errs...) }

func (l *List) add(m *valetkey.ConfigError) {
	if l.Package == "" {
		l.errs = append(l.errs, m)
		return
	}
	l.errs = append(l.errs, fmt.Errorf("%s: %w", l.Package, m))
}

// Join returns the path of a field of a part. Where several fields are named, the part precedes each.
func Join(part, field string) string {
	switch {
	case part == "":
		return field
	case field == "":
		return part
	}
	fields := split(field)
	for i, one := range fields {
		if !strings.HasPrefix(one, "[") {
			one = "." + one
		}
		fields[i] = part + one
	}
	return strings.Join(fields, ", ")
}

// Rename returns what other code calls a field: names has the path of the field in Go without the indexes of lists and maps,
// which name does not have either. It reports false for a field that names does not have.
func Rename(field string, names map[string]string) (name string, known bool) {
	var all []string
	for _, one := range split(field) {
		name, known := names[withoutIndexes(one)]
		if !known {
			return "", false
		}
		all = append(all, name)
	}
	return strings.Join(all, ", "), true
}

// Renamed returns the mistakes of err with the fields that names has renamed, and the others as they are.
func Renamed(err error, names map[string]string) error {
	var renamed []error
	for _, m := range valetkey.ConfigErrors(err) {
		if name, known := Rename(m.Field, names); known {
			m = &valetkey.ConfigError{Field: name, Err: m.Err}
		}
		renamed = append(renamed, m)
	}
	return errors.Join(renamed...)
}

// split returns the fields that a ConfigError names.
func split(field string) (all []string) {
	start := 0
	outside(field, func(i int) {
		if strings.HasPrefix(field[i:], ", ") {
			all = append(all, field[start:i])
			start = i + 2
		}
	})
	return append(all, field[start:])
}

func withoutIndexes(field string) string {
	var b strings.Builder
	outside(field, func(i int) { b.WriteByte(field[i]) })
	return b.String()
}

// outside calls f for each byte of field that is not within an index, such as 1 or "a key, quoted with %q".
func outside(field string, f func(i int)) {
	for i := 0; i < len(field); i++ {
		if field[i] != '[' {
			f(i)
			continue
		}
		quoted := false
		for i++; i < len(field) && (quoted || field[i] != ']'); i++ {
			switch {
			case field[i] == '"':
				quoted = !quoted
			case quoted && field[i] == '\\':
				i++
			}
		}
	}
}
