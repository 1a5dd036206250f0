package login

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxName is the length of a name in bytes.
const maxName = 255

// Fold returns the form in which names are compared: without the space around them that a phone's keyboard adds, and
// without regard to upper and lower case. Nothing else makes two names one: letters that only look alike, or that Unicode
// can write in two ways, stay apart.
func Fold(name string) string {
	// There and back, as some letters have two lower-case forms: s and the long s of old prints.
	return strings.ToLower(strings.ToUpper(strings.TrimSpace(name)))
}

// ValidName reports, with an error that says why, whether people can have such a name: 1 to 255 bytes of UTF-8, all of it
// to be seen. What is invisible (a soft hyphen, a zero-width joiner) would make one name many.
func ValidName(name string) error {
	switch folded := Fold(name); {
	case folded == "":
		return errors.New("the name is empty")
	case max(len(name), len(folded)) > maxName:
		return fmt.Errorf("the name has more than %d bytes", maxName)
	case !utf8.ValidString(name):
		return errors.New("the name is not UTF-8")
	case strings.ContainsFunc(folded, func(r rune) bool { return !unicode.IsPrint(r) }):
		return errors.New("the name has a character that cannot be seen")
	}
	return nil
}

// ValidType reports, with an error that says why, whether userType can stand before the colon of a subject: 1 to 32 lower-case
// letters, digits, hyphens and underscores.
func ValidType(userType string) error {
	if userType == "" || len(userType) > 32 || strings.Trim(userType, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
		return fmt.Errorf("%q is no type of users: 1 to 32 of a-z, 0-9, hyphen and underscore", userType)
	}
	return nil
}
