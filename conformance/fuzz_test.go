package conformance_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/valetkey/valetkey/conformance"
)

// FuzzChallenge holds that what a server writes as a challenge is read: an error in a well-formed challenge is found, whatever
// surrounds it in the description, and no text makes the strict check accept a character that RFC 6750 does not allow.
func FuzzChallenge(f *testing.F) {
	for _, seed := range []string{"", `the token, "x"`, "a\\b", `", error="y`, "é", "\x00", "realm=a, b", "DPoP algs=\"a\""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, description string) {
		quoted := strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(description)
		h := http.Header{"Www-Authenticate": {`Bearer realm="a", error="invalid_token", error_description="` + quoted + `"`}}
		allowed := !strings.ContainsFunc(description, func(r rune) bool { return r < ' ' || r > '~' || r == '"' || r == '\\' })

		named := conformance.Expect{Challenge: &conformance.ExpectedChallenge{Errors: []string{"invalid_token"}}}
		if problems := named.Problems("Bearer", 401, h, ""); len(problems) > 0 && allowed {
			t.Errorf("%q: %q", description, problems)
		}
		strict := conformance.Expect{Challenge: &conformance.ExpectedChallenge{Strict: true}}
		if problems := strict.Problems("Bearer", 401, h, ""); (len(problems) == 0) != allowed {
			t.Errorf("%q is allowed: %t, and the problems are %q", description, allowed, problems)
		}
	})
}
