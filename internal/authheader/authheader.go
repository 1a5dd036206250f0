// Package authheader reads the Authorization header of requests with access tokens.
package authheader

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/valetkey/valetkey"
)

// The schemes of access tokens (RFC 6750, section 3; RFC 9449, section 7.1).
const (
	Bearer = "Bearer"
	DPoP   = "DPoP"
)

// Read returns the scheme and the token in the lines of an Authorization header. sent reports whether the scheme is one for
// access tokens; otherwise scheme is Bearer, the one that a response should name. Two lines are an error with the code
// [valetkey.InvalidRequest] and no scheme. The token may be empty, and its characters are not checked.
func Read(lines []string) (scheme, token string, sent bool, err error) {
	if len(lines) == 0 {
		return Bearer, "", false, nil
	}
	if len(lines) > 1 { // RFC 9110, section 5.3: it is not a list, so it may come once only
		return "", "", false, &valetkey.Error{Code: valetkey.InvalidRequest, Reason: valetkey.ReasonTwoAuthorizations}
	}
	name, rest, _ := strings.Cut(lines[0], " ")
	switch { // RFC 9110, section 11.1: in any letter case
	case strings.EqualFold(name, Bearer):
		scheme = Bearer
	case strings.EqualFold(name, DPoP):
		scheme = DPoP
	default:
		return Bearer, "", false, nil
	}
	return scheme, strings.TrimLeft(rest, " "), true, nil // RFC 6750, section 2.1: 1*SP
}

// MaxTokenLimit is the largest value of a setting MaxTokenBytes, in bytes. A token of that length fills the request headers that
// most servers and proxies accept.
const MaxTokenLimit = 64 << 10

// TokenLimit returns the maximum length of a token for the value of a setting MaxTokenBytes. Zero: [valetkey.MaxTokenBytes].
func TokenLimit(setting int) (int, error) {
	if setting < 0 || setting > MaxTokenLimit {
		return valetkey.MaxTokenBytes, fmt.Errorf("%d is not between 0 and %d", setting, MaxTokenLimit)
	}
	return cmp.Or(setting, valetkey.MaxTokenBytes), nil
}

// IsToken reports whether s is a b64token of RFC 6750, section 2.1, in which access tokens are sent in Authorization.
func IsToken(s string) bool {
	s = strings.TrimRight(s, "=")
	for i := range len(s) {
		if !inToken[s[i]] {
			return false
		}
	}
	return s != ""
}

var inToken = func() (in [256]bool) {
	for _, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/") {
		in[c] = true
	}
	return in
}()
