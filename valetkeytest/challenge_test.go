package valetkeytest_test

import (
	"fmt"
	"maps"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/valetkeytest"
)

func lines(line ...string) http.Header { return http.Header{"Www-Authenticate": line} }

func TestMalformedChallengesAreRefused(t *testing.T) {
	for name, line := range map[string]string{
		"nothing":                           ``,
		"no scheme":                         `=x`,
		"a Bearer without any parameter":    `Bearer`,
		"a Bearer with a token68":           `Bearer abc`,
		"a comma in front":                  `, Bearer realm="a"`,
		"a comma at the end":                `Bearer realm="a",`,
		"an empty element":                  `Bearer realm="a",, error="b"`,
		"a comma before the first one":      `Bearer , realm="a"`,
		"space at the end":                  `Basic realm="a" `,
		"space alone after the scheme":      `Negotiate `,
		"a tab after the scheme":            "Basic\trealm=\"a\"",
		"space before =":                    `Bearer realm ="a"`,
		"space after =":                     `Bearer realm= "a"`,
		"no comma between":                  `Bearer realm="a" error="b"`,
		"text after a quote":                `Bearer realm="a"b`,
		"a quote that does not end":         `Bearer realm="a`,
		"a quote that ends escaped":         `Bearer realm="a\"`,
		"a backslash at the very end":       `Bearer realm="a\`,
		"a realm without quotes":            `Bearer realm=a`,
		"no value":                          `Bearer error=, realm="a"`,
		"a parameter twice":                 `Bearer error="a", error="b"`,
		"a parameter twice, letter case":    `Bearer error="a", ERROR="b"`,
		"a line feed":                       "Bearer realm=\"a\nb\"",
		"an escaped line feed":              "Bearer realm=\"a\\\nb\"",
		"a delete character":                "Bearer realm=\"a\x7f\"",
		"a quote in error":                  `Bearer error="a\"b"`,
		"a backslash in error_description":  `Bearer error_description="a\\b"`,
		"no ASCII in error_description":     `Bearer error_description="ä"`,
		"a tab in error_description":        "Bearer error_description=\"a\tb\"",
		"an empty scope":                    `Bearer scope=""`,
		"two spaces between scopes":         `Bearer scope="a  b"`,
		"a quote in a scope":                `DPoP scope="a\"b"`,
		"the second challenge is malformed": `Bearer realm="a", DPoP algs=`,
	} {
		t.Run(name, func(t *testing.T) {
			_, err := valetkeytest.Challenges(lines(line))
			assert.Error(t, err)
		})
	}
}

func TestChallengesAreRead(t *testing.T) {
	type params = map[string]string
	type challenges = []valetkeytest.AuthChallenge
	tests := []struct {
		name  string
		lines []string
		want  challenges
	}{
		{"none at all", nil, nil},
		{"one parameter", []string{`Bearer realm="example"`}, challenges{{"Bearer", "", params{"realm": "example"}}}},
		{"the example of RFC 6750, section 3", []string{`Bearer realm="example", error="invalid_token", error_description="The access token expired"`},
			challenges{{"Bearer", "", params{"realm": "example", "error": "invalid_token", "error_description": "The access token expired"}}}},
		{"a token as value", []string{`Bearer error=invalid_token`}, challenges{{"Bearer", "", params{"error": "invalid_token"}}}},
		{"an empty realm", []string{`Basic realm=""`}, challenges{{"Basic", "", params{"realm": ""}}}},
		{"an escaped quote and comma", []string{`Basic realm="a\"b, c=d"`}, challenges{{"Basic", "", params{"realm": `a"b, c=d`}}}},
		{"names in lower case", []string{`Basic ReAlm="A"`}, challenges{{"Basic", "", params{"realm": "A"}}}},
		{"a bare scheme", []string{`DPoP`}, challenges{{"DPoP", "", params{}}}},
		{"a token68", []string{`Negotiate YII+/a==`}, challenges{{"Negotiate", "YII+/a==", params{}}}},
		{"the example of RFC 9110, section 11.6.1", []string{`Basic realm="simple", Newauth realm="apps", type=1, title="Login to \"apps\""`},
			challenges{{"Basic", "", params{"realm": "simple"}}, {"Newauth", "", params{"realm": "apps", "type": "1", "title": `Login to "apps"`}}}},
		{"no space around commas", []string{`Basic realm="a",Negotiate,DPoP algs="ES256"`},
			challenges{{"Basic", "", params{"realm": "a"}}, {"Negotiate", "", params{}}, {"DPoP", "", params{"algs": "ES256"}}}},
		{"a token68 in front of another", []string{"Negotiate abc \t, \tBasic realm=\"a\""},
			challenges{{"Negotiate", "abc", params{}}, {"Basic", "", params{"realm": "a"}}}},
		{"two lines", []string{`Bearer error="x"`, `DPoP algs="ES256 EdDSA", scope="a b"`},
			challenges{{"Bearer", "", params{"error": "x"}}, {"DPoP", "", params{"algs": "ES256 EdDSA", "scope": "a b"}}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := valetkeytest.Challenges(lines(tt.lines...))
			require.NoError(t, err)
			assert.Equal(t, tt.want, got)
		})
	}
}

func TestChallengeFailsTheTest(t *testing.T) {
	for name, h := range map[string]http.Header{
		"without a header":            {},
		"when the scheme is another":  lines(`DPoP algs="ES256"`),
		"when there are two of it":    lines(`Bearer error="a"`, `bearer error="b"`),
		"when another one is broken":  lines(`Bearer error="a"`, `Basic realm=a`),
		"when a line is not finished": lines(`Bearer error="a",`),
	} {
		t.Run(name, func(t *testing.T) {
			rec := &fatal{recorder: recorder{TB: t}}
			done := make(chan struct{})
			go func() {
				defer close(done)
				valetkeytest.Challenge(rec, h, "Bearer")
			}()
			<-done
			assert.Len(t, rec.errors, 1)
		})
	}
	assert.Equal(t, map[string]string{"error": "a"}, valetkeytest.Challenge(t, lines(`DPoP`, `bearer error=a`), "Bearer"))
}

// A fatal is a recorder that ends its goroutine, as testing.T does.
type fatal struct{ recorder }

func (f *fatal) Fatalf(format string, args ...any) {
	f.Errorf(format, args...)
	runtime.Goexit()
}

// FuzzChallenges: what is read, written in the plain way, is read as the same.
func FuzzChallenges(f *testing.F) {
	for _, line := range []string{
		`Bearer realm="a\"b", error=x, DPoP algs="ES256 EdDSA"`, `Negotiate YII+/a==, Basic realm=""`, `A , B`, `A b=c,d=e`, `A b==`, "A b=\"\t\xff\"",
	} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		first, err := valetkeytest.Challenges(lines(line))
		if err != nil {
			return
		}
		second, err := valetkeytest.Challenges(lines(written(first)))
		require.NoError(t, err)
		require.Equal(t, first, second)
	})
}

func written(all []valetkeytest.AuthChallenge) string {
	var list []string
	for _, c := range all {
		text := strings.TrimSpace(c.Scheme + " " + c.Token68)
		var params []string
		for _, name := range slices.Sorted(maps.Keys(c.Params)) {
			params = append(params, fmt.Sprintf(`%s="%s"`, name, strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(c.Params[name])))
		}
		list = append(list, strings.TrimSpace(text+" "+strings.Join(params, ", ")))
	}
	return strings.Join(list, ", ")
}
