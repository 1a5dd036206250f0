package scopes_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/scopes"
)

func TestCheck(t *testing.T) {
	var gathered scopes.Requirement
	for range []string{} {
		gathered = gathered.Or(scopes.All("never"))
	}
	for _, c := range []struct {
		name    string
		need    scopes.Requirement
		granted []string
		nearest string // what the refusal names; "ok" if there is none
	}{
		{"the zero requirement refuses even a token with scopes", scopes.Requirement{}, []string{"a"}, ""},
		{"all of nothing refuses", scopes.All(), []string{"a"}, ""},
		{"any of nothing refuses", scopes.Any(), []string{"a"}, ""},
		{"alternatives gathered in a loop that never ran refuse", gathered, []string{"a"}, ""},
		{"zero and something refuses", scopes.Requirement{}.And(scopes.All("a")), []string{"a"}, ""},
		{"zero or something is something", scopes.Requirement{}.Or(scopes.All("a")), []string{"a"}, "ok"},
		{"all refuses a token without scopes", scopes.All("a"), nil, "a"},
		{"BT-20 all names every scope, not only the missing one", scopes.All("a", "b"), []string{"a"}, "a b"},
		{"any refuses and names the first", scopes.Any("a", "b"), []string{"c"}, "a"},
		{"letter case matters", scopes.All("a"), []string{"A"}, "a"},
		{"AUD-12 a scope does not cover one below it unless asked to", scopes.All("orders:read"), []string{"orders"}, "orders:read"},
		{"a wildcard is a letter like any other unless asked to", scopes.All("orders:read"), []string{"orders:*"}, "orders:read"},
		{"AUD-13 a prefix is not the scope", scopes.All("petstore"), []string{"petstore.r"}, "petstore"},
		{"the alternative with the fewest missing is named", scopes.MustParse("a b c | d e"), []string{"a", "b"}, "a b c"},
		{"among equals the first written is named", scopes.MustParse("d e | a b"), nil, "d e"},
		{"and needs both", scopes.All("a").And(scopes.Any("b", "c")), []string{"b"}, "a b"},
		{"all", scopes.All("a", "b"), []string{"b", "c", "a"}, "ok"},
		{"any", scopes.Any("a", "b"), []string{"b"}, "ok"},
		{"one alternative is enough", scopes.MustParse("a b | admin"), []string{"admin"}, "ok"},
		{"and of alternatives", scopes.Any("a", "b").And(scopes.Any("c", "d")), []string{"b", "c"}, "ok"},
		{"or", scopes.All("a", "b").Or(scopes.All("c")), []string{"c"}, "ok"},

		{"hierarchic does not cover a longer name", scopes.All("orders2").Matching(scopes.Hierarchic), []string{"orders"}, "orders2"},
		{"hierarchic does not cover the one above", scopes.All("orders").Matching(scopes.Hierarchic), []string{"orders:read"}, "orders"},
		{"AUD-12 hierarchic covers what is below", scopes.All("orders:read:own").Matching(scopes.Hierarchic), []string{"orders"}, "ok"},
		{"wildcard does not cover the one above", scopes.All("orders").Matching(scopes.Wildcard), []string{"orders:*"}, "orders"},
		{"wildcard does not cover an empty level", scopes.All("orders:").Matching(scopes.Wildcard), []string{"orders:*"}, "orders:"},
		{"a star alone covers nothing", scopes.All("a:b").Matching(scopes.Wildcard), []string{"*", ":*"}, "a:b"},
		{"a star must follow a colon", scopes.All("orders").Matching(scopes.Wildcard), []string{"ord*"}, "orders"},
		{"wildcard covers what is below", scopes.All("orders:read:own").Matching(scopes.Wildcard), []string{"orders:*"}, "ok"},
		{"matching is per requirement", scopes.All("a:x").Matching(scopes.Hierarchic).And(scopes.All("b:x")), []string{"a", "b"}, "a:x b:x"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.need.Check(valetkey.Access{Token: valetkey.NewToken(valetkey.TokenFields{Scopes: valetkey.NewScopes(c.granted...)})})
			if c.nearest == "ok" {
				require.NoError(t, err)
				return
			}
			var refusal *valetkey.Error
			require.ErrorAs(t, err, &refusal)
			assert.Equal(t, valetkey.InsufficientScope, refusal.Code)
			assert.Equal(t, 403, refusal.Status())
			assert.Equal(t, c.nearest, refusal.Scope.String())
		})
	}
}

func TestMatchingLeavesTheOriginalAlone(t *testing.T) {
	exact := scopes.All("orders:read")
	exact.Matching(scopes.Hierarchic)
	assert.Error(t, exact.Check(valetkey.Access{Token: valetkey.NewToken(valetkey.TokenFields{Scopes: valetkey.NewScopes("orders")})}))
}

func TestParse(t *testing.T) {
	for _, c := range []struct{ name, expr, want, mistake string }{
		{"an empty expression", "", "", "an alternative has no scope"},
		{"spaces alone", "   ", "", "an alternative has no scope"},
		{"an alternative missing at the end", "a | ", "", "an alternative has no scope"},
		{"an alternative missing in the middle", "a | | b", "", "an alternative has no scope"},
		{"BT-12 a quote in a scope", `a"b`, "", `character '"'`},
		{"BT-12 a backslash in a scope", `a\b`, "", "character"},
		{"a tab does not separate", "a\tb", "", "character"},
		{"a line break does not separate", "a\nb", "", "character"},
		{"a letter beyond ASCII", "größe", "", "character"},
		{"one scope", "a", "a", ""},
		{"several spaces", "  a   b  |  c ", "a b | c", ""},
		{"an expression as documented", "orders:read orders:write | admin", "orders:read orders:write | admin", ""},
		{"parentheses, bars and ampersands within a scope", "(a|b) x&y", "(a|b) x&y", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := scopes.Parse(c.expr)
			if c.mistake != "" {
				require.ErrorContains(t, err, c.mistake)
				require.Panics(t, func() { scopes.MustParse(c.expr) })
				require.Error(t, r.Check(valetkey.Access{Token: valetkey.NewToken(valetkey.TokenFields{Scopes: valetkey.NewScopes("a", "b", "c")})}))
				return
			}
			require.NoError(t, err)
			assert.Equal(t, c.want, r.String())
		})
	}
	t.Run("several empty alternatives are one mistake", func(t *testing.T) {
		_, err := scopes.Parse(" | | ")
		require.EqualError(t, err, `scopes: " | | ": an alternative has no scope`)
	})
	t.Run("all mistakes at once", func(t *testing.T) {
		_, err := scopes.Parse(`a"b | | c\d`)
		require.ErrorContains(t, err, `a\"b`)
		require.ErrorContains(t, err, "an alternative has no scope")
		require.ErrorContains(t, err, `c\\d`)
	})
}

func TestOperatorsOfOtherLanguagesAreRefused(t *testing.T) {
	for _, expr := range []string{
		"orders:read || orders:write", "orders:read && orders:write", "orders:read & orders:write",
		"a |b", "a| b", "a ||b", "a|| b", "a||b", "a&&b", "a &b", "a& b",
		"a OR b", "a or b", "a AND b", "a and b", "NOT a", "!a", "! a",
		"a, b", "a ,b", "a; b", "(a | b) c", "a (b | c)", "a + b", "a / b", "|||", "| a || b",
	} {
		t.Run(expr, func(t *testing.T) {
			r, err := scopes.Parse(expr)
			require.ErrorContains(t, err, `a space between scopes that are all needed, " | " between alternatives`)
			assert.Zero(t, r)
		})
	}
	for _, expr := range []string{
		"a|b", "a&b", "a,b", "a(b)", "(a)", "(a|b)", "order", "android", "a+b", "a/b", "a!", "https://api.example.com/orders", "urn:x:(y)",
	} {
		t.Run("a scope with the character within it is one scope: "+expr, func(t *testing.T) {
			r, err := scopes.Parse(expr + " | x")
			require.NoError(t, err)
			assert.Equal(t, expr+" | x", r.String())
		})
	}
	t.Run("a scope spelled like an operator is given to All", func(t *testing.T) {
		assert.Equal(t, "or", scopes.All("or").String())
	})
}

func TestWhatStandsInTheSource(t *testing.T) {
	for _, scope := range []string{"", "a b", `a"`, `a\`, "a\n", "\x7f", "é"} {
		t.Run(fmt.Sprintf("BT-12 scope %q fails at construction", scope), func(t *testing.T) {
			require.Panics(t, func() { scopes.All("fine", scope) })
			require.Panics(t, func() { scopes.Any("fine", scope) })
			require.Error(t, scopes.Validate(scope))
		})
	}
}

// What Parse accepts it writes as something that it reads to the same effect.
func FuzzParse(f *testing.F) {
	f.Add("orders:read orders:write | admin", "admin")
	f.Add("a|b | c", "c")
	f.Add("a || b && (c | d)", "c")
	f.Fuzz(func(t *testing.T, expr, granted string) {
		r, err := scopes.Parse(expr)
		if err != nil {
			return
		}
		for s := range strings.FieldsSeq(strings.ReplaceAll(r.String(), " | ", " ")) {
			if s == "or" || strings.Trim(s, "|&,;") != s || strings.Contains(s, "||") {
				t.Fatalf("%q has the scope %q", expr, s)
			}
		}
		again, err := scopes.Parse(r.String())
		if err != nil {
			t.Fatalf("%q was written as %q: %v", expr, r, err)
		}
		token := valetkey.NewToken(valetkey.TokenFields{Scopes: valetkey.NewScopes(granted)})
		a, b := r.Check(valetkey.Access{Token: token}), again.Check(valetkey.Access{Token: token})
		if (a == nil) != (b == nil) || a != nil && !errorsEqual(a, b) {
			t.Fatalf("%q: %v, then %v", expr, a, b)
		}
	})
}

func errorsEqual(a, b error) bool {
	var x, y *valetkey.Error
	return errors.As(a, &x) && errors.As(b, &y) && x.Scope.String() == y.Scope.String()
}

func ExampleParse() {
	need, err := scopes.Parse("orders:read orders:write | admin")
	if err != nil {
		panic(err)
	}
	err = need.Check(valetkey.Access{Token: valetkey.NewToken(valetkey.TokenFields{Scopes: valetkey.NewScopes("orders:read")})})
	var refusal *valetkey.Error
	if errors.As(err, &refusal) {
		fmt.Println(refusal.Code, refusal.Scope)
	}
	// Output: insufficient_scope orders:read orders:write
}
