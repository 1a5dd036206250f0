package cli_test

import (
	"encoding/base64"
	"encoding/json"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// jwtOf returns the text of a JWT whose signature is nothing.
func jwtOf(header, claims string) string {
	b64 := base64.RawURLEncoding.EncodeToString
	return b64([]byte(header)) + "." + b64([]byte(claims)) + "." + b64([]byte("nothing"))
}

func inspected(t *testing.T, token string, flags ...string) string {
	t.Helper()
	_, out, errs := run(t, token, append(append([]string{"inspect"}, flags...), "-")...)
	return out + errs
}

// harmless requires output that a terminal shows as it is.
func harmless(t *testing.T, out string) {
	t.Helper()
	if !utf8.ValidString(out) {
		t.Fatalf("not UTF-8: %q", out)
	}
	for _, r := range out {
		if r != '\n' && r != '\t' && !unicode.IsPrint(r) {
			t.Fatalf("%U in %q", r, out)
		}
	}
}

func TestInspectPrintsNoControlCharacters(t *testing.T) {
	for name, s := range map[string]string{
		"an escape sequence": `\u001b[2Jx`, "the C1 introducer": "\u009b2Jx", "a carriage return": `a\rb`, "DEL": "\x7f",
		"right-to-left override": "\u202ex", "a tag beyond the BMP": "\U000e0001x", "a line separator": "\u2028",
	} {
		for where, claims := range map[string]string{
			"cnf.jkt": `{"cnf":{"jkt":"` + s + `"}}`, "cnf.x5t#S256": `{"cnf":{"x5t#S256":"` + s + `"}}`, "a method of cnf": `{"cnf":{"` + s + `":1}}`,
			"a claim": `{"sub":"` + s + `"}`, "a name": `{"` + s + `":1}`, "a date": `{"exp":"` + s + `"}`, "within an object": `{"act":{"sub":["` + s + `"]}}`,
		} {
			t.Run(name+" in "+where, func(t *testing.T) {
				token := jwtOf(`{"alg":"ES256","typ":"at+jwt","kid":"`+s+`"}`, claims)
				harmless(t, inspected(t, token))
				out := inspected(t, token, "--json")
				harmless(t, out)
				var got struct{ Claims json.RawMessage }
				require.NoError(t, json.Unmarshal([]byte(out), &got))
				assert.JSONEq(t, claims, string(got.Claims), "the escapes are those of JSON")
			})
		}
	}
	t.Run("a rejected thumbprint binds to nothing", func(t *testing.T) {
		assert.NotContains(t, inspected(t, jwtOf(`{"alg":"ES256"}`, `{"cnf":{"jkt":"short"}}`)), "bound to")
	})
}

func FuzzInspectPrintsNoControlCharacters(f *testing.F) {
	f.Add(`{"alg":"ES256"}`, "{\"cnf\":{\"jkt\":\"\u009b2J\"}}", false)
	f.Add(`{"alg":"ES256"}`, "{\"sub\":\"\u202e\x7f\\u001b\"}", true)
	f.Fuzz(func(t *testing.T, header, claims string, asJSON bool) {
		flags := []string{}
		if asJSON {
			flags = append(flags, "--json")
		}
		harmless(t, inspected(t, jwtOf(header, claims), flags...))
		harmless(t, inspected(t, header+claims, flags...))
	})
}
