package tokenclaims

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/mistakes"
	"github.com/valetkey/valetkey/internal/strictjson"
)

// Audience decodes aud (RFC 7519, section 4.1.3): a string or an array of strings.
func Audience(v strictjson.Value, optional bool) (valetkey.List[string], error) {
	var none valetkey.List[string]
	switch {
	case v == nil && optional:
		return none, nil
	case v == nil:
		return none, errors.New("aud is missing")
	}
	if one, ok := v.Text(); ok {
		return valetkey.ListOf(one), nil
	}
	list, ok := v.Strings()
	if !ok {
		return none, errors.New("aud is not a string or an array of strings")
	}
	return valetkey.ListOf(list...), nil
}

// IsFor reports whether aud contains one of names and, if sole is set, nothing else. Names are compared byte by byte.
func IsFor(aud valetkey.List[string], names []string, sole bool) bool {
	ours := 0
	for a := range aud.All() {
		if slices.Contains(names, a) {
			ours++
		} else if sole {
			return false
		}
	}
	return ours > 0
}

// CheckAudience returns the mistakes in the names of a resource server: a [valetkey.ConfigError] for each, whose field is the
// index.
func CheckAudience(names []string) error {
	var wrong mistakes.List
	wrong.AddIf(len(names) == 0, "", "required; an empty list does not mean any")
	for i, a := range names {
		u, err := url.Parse(a)
		switch {
		case a == "":
			wrong.Add(fmt.Sprintf("[%d]", i), "is empty")
		case err == nil && u.IsAbs() && strings.Contains(a, "#"):
			wrong.Add(fmt.Sprintf("[%d]", i), "has a fragment, which no aud has (RFC 8707, section 2)")
		}
	}
	return wrong.Err()
}
