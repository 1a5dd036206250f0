package claims

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/valetkey/valetkey/internal/mistakes"
	"github.com/valetkey/valetkey/internal/strictjson"
)

// Audience reads aud (RFC 7519, section 4.1.3): a string or an array of strings.
func Audience(v strictjson.Value, optional bool) ([]string, error) {
	switch {
	case v == nil && optional:
		return nil, nil
	case v == nil:
		return nil, errors.New("aud is missing")
	}
	if one, ok := v.Text(); ok {
		return []string{one}, nil
	}
	list, ok := v.Strings()
	if !ok {
		return nil, errors.New("aud is not a string or an array of strings")
	}
	return list, nil
}

// IsFor reports whether a token with the audience aud is for the resource server with these names, and, if sole, for nobody
// else. They are compared byte by byte.
func IsFor(aud, names []string, sole bool) bool {
	ours := func(a string) bool { return slices.Contains(names, a) }
	if sole && slices.ContainsFunc(aud, func(a string) bool { return !ours(a) }) {
		return false
	}
	return slices.ContainsFunc(aud, ours)
}

// CheckAudience returns what is wrong with the names of a resource server: a [valetkey.ConfigError] for each, whose field is
// the index.
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
