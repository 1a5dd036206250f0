package middleware

import (
	"net/http"
	"strings"

	"github.com/valetkey/valetkey"
)

// Credentials are what a request claims. Nothing about them is verified.
type Credentials struct {
	Token string // the text of the access token; never empty

	inQuery bool
}

// ReadCredentials reads the access token that r carries in its Authorization header (RFC 6750, section 2.1) or in one
// of the other sources. A header of another scheme than Bearer counts as no credentials. The error is a
// [valetkey.Error]: NoCredentials if there are none, InvalidRequest if they are malformed or stand in two places.
//
// The characters of the token are looked at by [Guard.Verify], and only if it does not remember the token.
func ReadCredentials(r *http.Request, also ...Source) (Credentials, error) {
	var c Credentials
	token, sent, err := bearer(r.Header["Authorization"])
	if err != nil {
		return Credentials{}, err
	}
	c.Token = token
	for _, s := range also {
		tokens, err := s.tokens(r)
		if err != nil {
			return Credentials{}, err
		}
		for _, token := range tokens {
			if sent { // RFC 6750, section 3.1: "uses more than one method", "repeats the same parameter"
				return Credentials{}, malformed("the request carries more than one access token")
			}
			c.Token, sent, c.inQuery = token, true, s.method == "query"
		}
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

func malformed(description string) error {
	return &valetkey.Error{Code: valetkey.InvalidRequest, Description: description}
}

// bearer returns what follows the scheme Bearer in an Authorization header.
func bearer(headers []string) (token string, sent bool, err error) {
	if len(headers) == 0 {
		return "", false, nil
	}
	if len(headers) > 1 { // RFC 9110, section 5.3: it is not a list, so it may stand once only
		return "", false, malformed("the request carries more than one Authorization header")
	}
	scheme, token, _ := strings.Cut(headers[0], " ")
	if !strings.EqualFold(scheme, "Bearer") { // RFC 9110, section 11.1: in any letter case
		return "", false, nil
	}
	return strings.TrimLeft(token, " "), true, nil // RFC 6750, section 2.1: 1*SP
}
