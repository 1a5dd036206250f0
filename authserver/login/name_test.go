package login_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/valetkey/valetkey/authserver/login"
)

func TestValidName(t *testing.T) {
	for _, c := range []struct{ name, input, want string }{
		{"nothing", "", "empty"},
		{"nothing but space", " \t ", "empty"},
		{"a soft hyphen, which directories leave out", "al\u00adice", "invisible"},
		{"a zero-width joiner", "al\u200dice", "invisible"},
		{"a line break", "alice\nbob", "invisible"},
		{"a NUL", "alice\x00", "invisible"},
		{"broken UTF-8", "al\xffice", "UTF-8"},
		{"too long", strings.Repeat("a", 256), "255"},
		{"too long once folded", strings.Repeat("\u023a", 100), "255"}, // Ⱥ: 2 bytes, its lower case 3
		{"as long as may be", strings.Repeat("a", 255), ""},
		{"an e-mail address", "alice+shop@example.com", ""},
		{"letters from anywhere", "Zoë Ødegård 李", ""},
		{"space around", " alice ", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := login.ValidName(c.input)
			if c.want == "" {
				assert.NoError(t, err)
			} else {
				assert.ErrorContains(t, err, c.want)
			}
		})
	}
}

func TestValidType(t *testing.T) {
	for _, bad := range []string{"", "Customer", "a:b", "a b", "ä", strings.Repeat("a", 33)} {
		assert.Error(t, login.ValidType(bad), bad)
	}
	assert.NoError(t, login.ValidType("customer-2_b"))
}

func TestFold(t *testing.T) {
	for _, same := range []string{"Kim", "KIM", " kim\t", "\u212aim"} { // U+212A: the sign of the kelvin
		assert.Equal(t, "kim", login.Fold(same))
	}
	assert.Equal(t, login.Fold("mess"), login.Fold("me\u017fs"), "the long s")
	assert.NotEqual(t, login.Fold("kim"), login.Fold("кim"), "a Cyrillic letter")
}

// FuzzFold asserts that a folded name folds to itself, so that a name has one place in a store in whatever form it is entered.
func FuzzFold(f *testing.F) {
	for _, seed := range []string{"Alice", " İstanbul ", "ǆ Ǆ ǅ", "ſ K Å ß ẞ ς Σ", "\xff", "\u0345"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		folded := login.Fold(name)
		if again := login.Fold(folded); again != folded {
			t.Errorf("%q folds to %q, and that to %q", name, folded, again)
		}
		if login.ValidName(name) == nil && login.ValidName(folded) != nil {
			t.Errorf("%q is a name and %q is none", name, folded)
		}
	})
}
