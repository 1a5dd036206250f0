package valetkey

// A ConfigError is one mistake in a configuration. Constructors report all mistakes at once, joined with [errors.Join];
// [ConfigErrors] separates them.
type ConfigError struct {
	// Field is the path of the field in Go, such as Resource.ID, Audience[1] or Table["GET /orders"], or the name of a
	// parameter of the constructor. Several fields are separated by a comma and a space, such as "JWKSURL, JWKS". Code that
	// offers the configuration under other names translates Field, never Err. Empty: no single field is wrong.
	Field string

	// Err states the problem, then the fix.
	Err error
}

// Error returns the field, a colon and the text of Err.
func (e *ConfigError) Error() string {
	if e.Field == "" {
		return e.Err.Error()
	}
	return e.Field + ": " + e.Err.Error()
}

// Unwrap returns e.Err.
func (e *ConfigError) Unwrap() error { return e.Err }

// ConfigErrors returns the mistakes that err joins and wraps, in order. It returns any other error as a ConfigError without a
// field, so that nothing is lost. It returns nil for a nil error.
func ConfigErrors(err error) []*ConfigError {
	if err == nil {
		return nil
	}
	if found := configErrors(err); found != nil {
		return found
	}
	return []*ConfigError{{Err: err}}
}

// configErrors returns nil for an error that holds no ConfigError.
func configErrors(err error) (found []*ConfigError) {
	switch err := err.(type) {
	case *ConfigError:
		return []*ConfigError{err}
	case interface{ Unwrap() error }:
		if inner := err.Unwrap(); inner != nil {
			return configErrors(inner)
		}
	case interface{ Unwrap() []error }:
		for _, e := range err.Unwrap() {
			found = append(found, ConfigErrors(e)...)
		}
	}
	return found
}
