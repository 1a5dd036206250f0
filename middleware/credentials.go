package middleware

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/valetkey/valetkey"
)

// Credentials are what a request claims. Nothing about them is verified.
type Credentials struct {
	Token string // the text of the access token; never empty
	DPoP  bool   // sent with the scheme DPoP (RFC 9449, section 7.1), not as a bearer token

	request *http.Request // that they came with, and what proves a binding; nil: nothing does
	inQuery bool
}

// ReadCredentials reads the access token that r carries in its Authorization header (RFC 6750, section 2.1; RFC 9449,
// section 7.1) or, as a bearer token, in one of the other sources. A header of another scheme than Bearer and DPoP counts
// as no credentials. The error is a [valetkey.Error]: NoCredentials if there are none, InvalidRequest if they are malformed
// or stand in two places.
//
// A token in the header or a form beside one in the query is such a mistake also where [Query] is not among the sources (RFC
// 6750, section 3.1). A form that is not among them is not read: that would cost every request its body.
//
// The credentials refer to r. The characters of the token are looked at by [Guard.Verify], and only if it does not
// remember the token.
func ReadCredentials(r *http.Request, also ...Source) (Credentials, error) {
	c, sent, err := inHeader(r.Header["Authorization"])
	if err != nil {
		return Credentials{}, err
	}
	c.request = r
	standard, queried := sent, false // one of the methods of RFC 6750 is used; the query has been looked at
	for _, s := range also {
		queried = queried || s.method == "query"
		tokens, err := s.tokens(r)
		if err != nil {
			return Credentials{}, err
		}
		for _, token := range tokens {
			if sent { // RFC 6750, section 3.1: "uses more than one method", "repeats the same parameter"
				return Credentials{}, errTwoTokens
			}
			c.Token, sent, c.inQuery = token, true, s.method == "query"
			standard = s.method != ""
		}
	}
	if standard && !queried && r.URL != nil && tokenInQuery(r.URL.RawQuery) {
		return Credentials{}, errTwoTokens
	}
	if !sent {
		return Credentials{}, &valetkey.Error{Code: valetkey.NoCredentials}
	}
	if c.Token == "" {
		return Credentials{}, malformed("the access token is empty")
	}
	if len(c.Token) > valetkey.MaxToken {
		return Credentials{}, &valetkey.Error{Code: valetkey.InvalidToken, Description: "the token is too long"}
	}
	return c, nil
}

var errTwoTokens = malformed("the request carries more than one access token")

// tokenInQuery reports whether a query has a parameter access_token, without an allocation for usual names.
func tokenInQuery(raw string) bool {
	for raw != "" {
		var name string
		name, raw, _ = strings.Cut(raw, "&")
		name, _, _ = strings.Cut(name, "=")
		if strings.Contains(name, "%") {
			name, _ = url.QueryUnescape(name)
		}
		if name == "access_token" {
			return true
		}
	}
	return false
}

func malformed(description string) error {
	return &valetkey.Error{Code: valetkey.InvalidRequest, Description: description}
}

// inHeader reads the lines of an Authorization header.
func inHeader(lines []string) (c Credentials, sent bool, err error) {
	if len(lines) == 0 {
		return c, false, nil
	}
	if len(lines) > 1 { // RFC 9110, section 5.3: it is not a list, so it may stand once only
		return c, false, malformed("the request carries more than one Authorization header")
	}
	scheme, token, _ := strings.Cut(lines[0], " ")
	switch { // RFC 9110, section 11.1: in any letter case
	case strings.EqualFold(scheme, bearerScheme):
	case strings.EqualFold(scheme, dpopScheme):
		c.DPoP = true
	default:
		return c, false, nil
	}
	c.Token = strings.TrimLeft(token, " ") // RFC 6750, section 2.1: 1*SP
	return c, true, nil
}
