package valetkeytest

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/valetkey/valetkey/internal/authheader"
	"github.com/valetkey/valetkey/scopes"
)

// AuthChallenge is one challenge of a WWW-Authenticate header (RFC 9110, section 11.3).
type AuthChallenge struct {
	Scheme  string            // as sent; letter case is not significant
	Token68 string            // sent instead of parameters; "": none
	Params  map[string]string // by name in lower case; values unquoted
}

// Challenge returns the parameters of the only challenge in h with the given scheme, in any letter case. It fails the test if
// there is no such challenge or more than one, or if [Challenges] returns an error.
func Challenge(t testing.TB, h http.Header, scheme string) map[string]string {
	t.Helper()
	all, err := Challenges(h)
	if err != nil {
		t.Fatalf("valetkeytest: %v", err)
	}
	var found []AuthChallenge
	for _, c := range all {
		if strings.EqualFold(c.Scheme, scheme) {
			found = append(found, c)
		}
	}
	if len(found) != 1 {
		t.Fatalf("valetkeytest: %d challenges with the scheme %s, not one, in %q", len(found), scheme, h.Values("WWW-Authenticate"))
	}
	return found[0].Params
}

// Challenges parses every challenge of every WWW-Authenticate line in h, as strictly as a sender must write them (RFC 9110,
// sections 5.6 and 11): no empty list element, no space around "=", no repeated parameter, and a quoted realm. Challenges of
// Bearer and DPoP must also follow RFC 6750, section 3, and RFC 9449, section 7.1: at least one parameter for Bearer, and
// error, error_description and scope within their character sets.
func Challenges(h http.Header) ([]AuthChallenge, error) {
	var all []AuthChallenge
	for _, line := range h.Values("WWW-Authenticate") {
		found, err := authheader.Challenges(line)
		for _, one := range found {
			c := AuthChallenge(one)
			if err == nil {
				err = c.valid()
			}
			all = append(all, c)
		}
		if err != nil {
			return nil, fmt.Errorf("WWW-Authenticate: %q: %w", line, err)
		}
	}
	return all, nil
}

// valid checks the rules of Bearer and DPoP beyond the grammar.
func (c AuthChallenge) valid() error {
	bearer := strings.EqualFold(c.Scheme, "Bearer")
	if !bearer && !strings.EqualFold(c.Scheme, "DPoP") {
		return nil
	}
	if bearer && len(c.Params) == 0 || c.Token68 != "" {
		return fmt.Errorf("%s: no parameter (RFC 6750, section 3)", c.Scheme)
	}
	for _, name := range []string{"error", "error_description"} {
		for _, b := range []byte(c.Params[name]) {
			if b < ' ' || b > '~' || b == '"' || b == '\\' {
				return fmt.Errorf("%s: the character %q is not allowed (RFC 6750, section 3)", name, b)
			}
		}
	}
	if list, ok := c.Params["scope"]; ok {
		for scope := range strings.SplitSeq(list, " ") {
			if err := scopes.Validate(scope); err != nil {
				return fmt.Errorf("scope: %w", err)
			}
		}
	}
	return nil
}
