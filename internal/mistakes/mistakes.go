// Package mistakes collects the mistakes in a configuration, so that a constructor reports all of them at once.
package mistakes

import (
	"errors"
	"fmt"
	"strings"

	"github.com/valetkey/valetkey"
)

// A List collects the mistakes that one constructor finds, each as a [valetkey.ConfigError]. The configuration, which is read at
// startup, bounds its length. The zero value is empty and ready to use.
type List struct {
	// Package is the prefix of every mistake in the text of [List.Err], as in "jwks: Issuer: required". Empty: no prefix.
	Package string

	errs []error
}

// Add adds a mistake in field, which is the path of a field in Go, or several paths separated by a comma and a space.
func (l *List) Add(field, format string, args ...any) {
	l.add(&valetkey.ConfigError{Field: field, Err: fmt.Errorf(format, args...)})
}

// AddIf adds a mistake if wrong is true.
func (l *List) AddIf(wrong bool, field, format string, args ...any) {
	if wrong {
		l.Add(field, format, args...)
	}
}

// Within adds the mistakes in err, which the constructor of a part returned. It does nothing if err is nil. field is the field
// that holds the configuration of the part; it is prepended to the fields of the part. Empty: the fields of the part are also
// fields of the whole.
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

// Join returns the path of a field within a part. If field lists several fields, part is prepended to each.
func Join(part, field string) string {
	switch {
	case part == "":
		return field
	case field == "":
		return part
	}
	fields := Split(field)
	for i, one := range fields {
		if !strings.HasPrefix(one, "[") {
			one = "." + one
		}
		fields[i] = part + one
	}
	return strings.Join(fields, ", ")
}

// Rename returns the name by which the users of other code know field. names maps the path of a field in Go, without the indexes
// of lists and maps, to its name. The result has no indexes either. It returns false if names does not contain the field.
func Rename(field string, names map[string]string) (name string, known bool) {
	var all []string
	for _, one := range Split(field) {
		name, known := names[withoutIndexes(one)]
		if !known {
			return "", false
		}
		all = append(all, name)
	}
	return strings.Join(all, ", "), true
}

// Renamed returns the mistakes in err, joined, with their fields renamed as by [Rename]. It does not change fields that names
// does not contain.
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

// Split returns the fields that are listed in the Field of a ConfigError.
func Split(field string) (all []string) {
	start := 0
	outside(field, func(i int) {
		if strings.HasPrefix(field[i:], ", ") {
			all = append(all, field[start:i])
			start = i + 2
		}
	})
	return append(all, field[start:])
}

// Index returns the length of the index that text begins with, such as [1] or ["a key, quoted with %q"].
func Index(text string) int {
	quoted := false
	for i := 1; i < len(text); i++ {
		switch {
		case !quoted && text[i] == ']':
			return i + 1
		case text[i] == '"':
			quoted = !quoted
		case quoted && text[i] == '\\':
			i++
		}
	}
	return len(text)
}

func withoutIndexes(field string) string {
	var b strings.Builder
	outside(field, func(i int) { b.WriteByte(field[i]) })
	return b.String()
}

// outside calls f for each byte of field that is not within an index, such as 1 or "a key, quoted with %q".
func outside(field string, f func(i int)) {
	for i := 0; i < len(field); i++ {
		if field[i] == '[' {
			i += Index(field[i:]) - 1
			continue
		}
		f(i)
	}
}
