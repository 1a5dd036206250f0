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

// Fold returns the form in which names are compared: in lower case, and without surrounding space, which the keyboards of phones
// add. No other names are equal: letters that look alike, and the different encodings of a letter in Unicode, remain distinct.
func Fold(name string) string {
	// First to upper case, because some letters have two lower-case forms, such as s and the long s of old prints.
	return strings.ToLower(strings.ToUpper(strings.TrimSpace(name)))
}

// ValidName returns an error unless name is acceptable as a user name: 1 to 255 bytes of UTF-8, all of them visible. With
// invisible characters (a soft hyphen, a zero-width joiner), one apparent name would be many names.
func ValidName(name string) error {
	switch folded := Fold(name); {
	case folded == "":
		return errors.New("the name is empty")
	case max(len(name), len(folded)) > maxName:
		return fmt.Errorf("the name has more than %d bytes", maxName)
	case !utf8.ValidString(name):
		return errors.New("the name is not UTF-8")
	case strings.ContainsFunc(folded, func(r rune) bool { return !unicode.IsPrint(r) }):
		return errors.New("the name has an invisible character")
	}
	return nil
}

// ValidType returns an error unless userType can be the part of a subject before the colon: 1 to 32 lower-case letters, digits,
// hyphens and underscores.
func ValidType(userType string) error {
	if userType == "" || len(userType) > 32 || strings.Trim(userType, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
		return fmt.Errorf("%q is not a user type: 1 to 32 of a-z, 0-9, hyphen and underscore", userType)
	}
	return nil
}
