// Package tokenclaims decodes the claims that JWT access tokens and introspection responses have in common, and compares their
// audience with that of a resource server.
package tokenclaims

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/strictjson"
)

// Text decodes a string, which must not be empty unless it is optional. It may share memory with v. A nil v means that the claim is
// absent.
func Text(dst *string, name string, v strictjson.Value, optional bool) error {
	if v == nil && optional {
		return nil
	}
	s, ok := v.View()
	switch {
	case v == nil || ok && s == "" && !optional:
		return fmt.Errorf("%s is missing", name)
	case !ok:
		return fmt.Errorf("%s is not a string", name)
	}
	*dst = s
	return nil
}

// maxDate is the last second that time.Time can marshal: 9999-12-31T23:59:59Z.
const maxDate = 253402300799

// Date decodes a NumericDate (RFC 7519, section 2), which may have a fraction. A date before 1970 becomes 1970, and one after
// 9999 becomes 9999, so that neither overflows or becomes the zero time. Zero in an optional member is treated as absent.
func Date(dst *time.Time, name string, v strictjson.Value, optional bool) error {
	if v == nil && optional {
		return nil
	}
	n, ok := v.Number()
	switch {
	case ok && n == 0 && optional: // as if it were not there: some issuers write it for a date that they do not set
		return nil
	case v == nil:
		return fmt.Errorf("%s is missing", name)
	case !ok:
		return fmt.Errorf("%s is not a number", name)
	}
	whole, fraction := math.Modf(min(max(n, 0), maxDate))
	*dst = time.Unix(int64(whole), int64(fraction*1e9))
	return nil
}

// FarFrom returns an error if date is more than ten years after now. The issuer then nearly always counts milliseconds, and
// the token would never expire. RFC 7519, section 2: a NumericDate counts seconds.
func FarFrom(now time.Time, name string, date time.Time) error {
	const tenYears = 10 * 365 * 24 * time.Hour // or one to three days more
	if !date.After(now.Add(tenYears)) || !date.After(now.AddDate(10, 0, 0)) {
		return nil
	}
	return fmt.Errorf("%s is %s", name, date.UTC().Format(time.RFC3339))
}

// AppendScopes decodes a string of scopes separated by single spaces (RFC 6749, section 3.3), or an array if arrays is set, and
// appends the scopes to list. They may share memory with v. A nil v has no scopes. Strings that are empty or contain a space or a
// control character are not scopes and are omitted: in an array, "read admin" is neither two scopes nor distinguishable from two.
func AppendScopes(list []string, v strictjson.Value, arrays bool) ([]string, error) {
	if v == nil {
		return list, nil
	}
	if s, ok := v.View(); ok {
		for more := true; more; {
			var scope string
			if scope, s, more = strings.Cut(s, " "); isScope(scope) {
				list = append(list, scope)
			}
		}
		return list, nil
	}
	array, ok := v.Strings()
	if !ok || !arrays {
		return nil, fmt.Errorf("is not a string of scopes (arrays allowed: %t)", arrays)
	}
	for _, scope := range array {
		if isScope(scope) {
			list = append(list, scope)
		}
	}
	return list, nil
}

func isScope(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c == 0x7f {
			return false
		}
	}
	return s != ""
}

// Binding decodes cnf (RFC 7800, section 3). It records an unknown confirmation method, so that the token is not mistaken for
// a bearer token. With an error, the binding is empty: no rejected value is returned.
func Binding(v strictjson.Value) (b valetkey.Binding, err error) {
	if v == nil {
		return b, nil
	}
	if !v.IsObject() {
		return b, errors.New("cnf is not an object")
	}
	var unknown []string
	err = strictjson.Object(v, func(name string, v strictjson.Value) error {
		s, _ := v.Text()
		switch name {
		case "jkt": // RFC 9449, section 6.1
			b.JWKThumbprint = s
		case "x5t#S256": // RFC 8705, section 3.1
			b.CertificateThumbprint = s
		default:
			unknown = append(unknown, strings.Clone(name))
			return nil
		}
		if !thumbprint(s) {
			return fmt.Errorf("cnf: %s is not a SHA-256 thumbprint", name)
		}
		return nil
	}, "jkt", "x5t#S256")
	b.Unknown = valetkey.ListOf(unknown...)
	if err == nil && b.IsZero() {
		err = errors.New("cnf is empty")
	}
	if err != nil {
		return valetkey.Binding{}, err
	}
	return b, nil
}

// Actor decodes act (RFC 8693, section 4.1). It returns nil if act is absent or empty. An act that is not an object is an
// error; otherwise the application would assume that the subject acts without a delegate.
func Actor(v strictjson.Value) (*valetkey.Actor, error) {
	if v.IsEmpty() {
		return nil, nil
	}
	if !v.IsObject() {
		return nil, errors.New("act is not an object")
	}
	a := new(valetkey.Actor)
	err := strictjson.Object(v, func(name string, v strictjson.Value) error {
		switch name {
		case "iss":
			return Text(&a.Issuer, "act: iss", v, true)
		case "sub":
			return Text(&a.Subject, "act: sub", v, true)
		case "client_id":
			return Text(&a.ClientID, "act: client_id", v, true)
		}
		return nil
	}, "iss", "sub", "client_id")
	if err != nil {
		return nil, err
	}
	return a, nil
}

// Login decodes acr and auth_time (RFC 9068, section 2.2.1). Malformed values are treated as absent, so a route that requires
// them refuses the token.
func Login(acr, authTime strictjson.Value) (string, time.Time) {
	value, _ := acr.Text()
	var at time.Time
	if Date(&at, "auth_time", authTime, true) != nil {
		at = time.Time{}
	}
	return value, at
}

// thumbprint reports whether s is 32 bytes in canonical base64url: 43 characters, the last of which has two spare bits.
func thumbprint(s string) bool {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	return len(s) == 43 && strings.Trim(s, alphabet) == "" && strings.IndexByte(alphabet, s[42])%4 == 0
}
