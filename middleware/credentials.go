package middleware

import (
	"bytes"
	"io"
	"mime"
	"net/http"
	"net/url"
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
			c.Token, sent, c.inQuery = token, true, s.query
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

// A Source is a place beside the Authorization header where a request may carry its access token. Both known ones are
// legacy: tokens in them end up in logs and histories (RFC 9700, section 4.3.2; OAuth 2.1 leaves them out).
type Source struct {
	tokens func(r *http.Request) ([]string, error)
	query  bool
}

// Form is the parameter access_token of a form body in a POST, PUT or PATCH request of type
// application/x-www-form-urlencoded (RFC 6750, section 2.2). The body is read into memory, up to maxBytes (zero: 1 MiB;
// more is refused with 400), and the handler finds it unread.
func Form(maxBytes int64) Source {
	if maxBytes <= 0 {
		maxBytes = 1 << 20
	}
	return Source{tokens: func(r *http.Request) ([]string, error) { return formTokens(r, maxBytes) }}
}

func formTokens(r *http.Request, maxBytes int64) ([]string, error) {
	switch r.Method {
	case http.MethodPost, http.MethodPut, http.MethodPatch:
	default: // "the GET method MUST NOT be used"
		return nil, nil
	}
	// A second Content-Type line would leave the form's nature to who reads which.
	types := r.Header["Content-Type"]
	if len(types) != 1 || r.Body == nil {
		return nil, nil
	}
	if t, _, err := mime.ParseMediaType(types[0]); err != nil || t != "application/x-www-form-urlencoded" {
		return nil, nil
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBytes+1))
	if err != nil {
		return nil, &valetkey.Error{Code: valetkey.InvalidRequest, Description: "the request body cannot be read", Err: err}
	}
	if int64(len(body)) > maxBytes {
		return nil, malformed("the form body is too long")
	}
	r.Body = struct {
		io.Reader
		io.Closer
	}{bytes.NewReader(body), r.Body}
	form, err := url.ParseQuery(string(body))
	if err != nil { // err quotes the body, which may hold the token
		return nil, malformed("the form body is malformed")
	}
	return form["access_token"], nil
}

// Query is the query parameter access_token (RFC 6750, section 2.3).
func Query() Source {
	return Source{query: true, tokens: func(r *http.Request) ([]string, error) {
		if r.URL.RawQuery == "" {
			return nil, nil
		}
		query, err := url.ParseQuery(r.URL.RawQuery)
		if err != nil { // err quotes the query, which may hold the token
			return nil, malformed("the query is malformed")
		}
		return query["access_token"], nil
	}}
}
