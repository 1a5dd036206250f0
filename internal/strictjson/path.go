package strictjson

import "strings"

// At returns the value at path within object, or nil if there is none or it is null. A member named path takes precedence unless it is empty in the
// sense of [Value.IsEmpty]. Otherwise At descends into the object whose name is a prefix of path, up to a dot, and looks up the rest of path there.
func At(object Value, path string) Value {
	var exact, within Value
	err := Object(object, func(name string, v Value) error {
		switch {
		case name == path:
			exact = v
		case within == nil && len(path) > len(name) && path[len(name)] == '.' && strings.HasPrefix(path, name):
			within = At(v, path[len(name)+1:])
		}
		return nil
	})
	switch {
	case err != nil:
		return nil
	case exact.IsEmpty() && within != nil:
		return within
	default:
		return exact
	}
}
