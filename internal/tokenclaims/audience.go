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

// Audience decodes aud (RFC 7519, section 4.1.3): a string, which may share memory with v, or an array of strings.
func Audience(v strictjson.Value, optional bool) (valetkey.List[string], error) {
	var none valetkey.List[string]
	switch {
	case v == nil && optional:
		return none, nil
	case v == nil:
		return none, errors.New("aud is missing")
	}
	if one, ok := v.View(); ok {
		return valetkey.ListOf(one), nil
	}
	list, ok := v.Strings()
	if !ok {
		return none, errors.New("aud is not a string or an array of strings")
	}
	return valetkey.ListOf(list...), nil
}

// IsFor reports whether aud contains one of the names of a resource server and, if sole is set, nothing else. See
// [SameResource].
func IsFor(aud valetkey.List[string], names []string, sole bool) bool {
	ours := 0
	for a := range aud.All() {
		if slices.ContainsFunc(names, func(name string) bool { return SameResource(name, a) }) {
			ours++
		} else if sole {
			return false
		}
	}
	return ours > 0
}

// SameResource reports whether two names of resource servers, in an audience or as a resource (RFC 8707), are the same. They are
// compared byte by byte, except that an http or https origin is the same with and without the slash that is its path (RFC 3986,
// section 6.2.3): products and users write both. Nothing else is normalized, neither letter case nor default ports. Issuers are
// compared without this exception (RFC 9207, section 2.4; RFC 8414, section 3.3).
func SameResource(a, b string) bool {
	switch len(a) - len(b) {
	case 0:
		return a == b
	case 1:
		return a[len(b)] == '/' && a[:len(b)] == b && isOrigin(b)
	case -1:
		return b[len(a)] == '/' && b[:len(a)] == a && isOrigin(a)
	}
	return false
}

// isOrigin reports whether s is a scheme and an authority without a user, and nothing else.
func isOrigin(s string) bool {
	rest, https := strings.CutPrefix(s, "https://")
	if !https {
		var http bool
		if rest, http = strings.CutPrefix(s, "http://"); !http {
			return false
		}
	}
	return rest != "" && !strings.ContainsAny(rest, "/?#@")
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
