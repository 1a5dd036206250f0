package middleware

import (
	"cmp"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/authheader"
)

// credentials are the unverified credentials of a request.
type credentials struct {
	token   string        // the text of the access token
	scheme  string        // for the response, even without a token; "": there were two
	request *http.Request // that carries the credentials and proves a binding; nil: there is none
	private bool          // a response must forbid shared caches to store it
}

// readCredentials reads the access token that r carries in its Authorization header (RFC 6750, section 2.1; RFC 9449, section
// 7.1), unless [HeaderToken] replaces it, or, as a bearer token, in one of the other places. It treats a header with a scheme other than Bearer and DPoP as no
// credentials. The error is a [valetkey.Error]: NoCredentials if there are none, InvalidRequest if they are malformed or in two
// places.
//
// A token in the header or a form together with one in the query is a mistake even if [Query] is not enabled (RFC 6750,
// section 3.1). A form is read only if [Form] is enabled, because reading it consumes the body of the request.
//
// uncached checks the characters of the token, and only if the token is not in the cache.
func (g *Guard) readCredentials(r *http.Request) (credentials, error) {
	c := credentials{scheme: authheader.Bearer, request: r}
	var (
		sent bool
		err  error
	)
	if g.tokenHeader == "" {
		if c.scheme, c.token, sent, err = authheader.Read(r.Header["Authorization"]); err != nil {
			return c, err
		}
	}
	standard, queried := sent, false // a method of RFC 6750 is used; the query has been read
	for i := range g.alsoFrom {
		s := &g.alsoFrom[i]
		queried = queried || s.method == "query"
		tokens, err := s.tokens(r)
		if err != nil {
			return c, err
		}
		for _, token := range tokens {
			if sent { // RFC 6750, section 3.1: "uses more than one method", "repeats the same parameter"
				return c, errTwoTokens
			}
			c.token, sent, c.private = token, true, s.shared()
			standard = s.method != ""
		}
	}
	switch {
	case standard && !queried && r.URL != nil && tokenInQuery(r.URL.RawQuery):
		return c, errTwoTokens
	case !sent:
		return c, &valetkey.Error{Code: valetkey.NoCredentials, Reason: valetkey.ReasonNoCredentials}
	case c.token == "":
		return c, malformed(valetkey.ReasonEmptyToken)
	}
	return c, g.checkLength(c.token)
}

// RemoveCredentials removes from h, the header of a request, what the guard reads as a token: Authorization and DPoP, the header of
// [HeaderToken], the cookie of [Cookie], and the token in a subprotocol. It is for code that passes requests on and must not
// disclose the token. It removes no token from a form body or a query. If [HeaderToken] replaces Authorization, that is removed too,
// because nothing has verified it.
func (g *Guard) RemoveCredentials(h http.Header) {
	delete(h, "Authorization")
	delete(h, "Dpop") // Del would allocate for DPoP
	for _, m := range g.alsoFrom {
		if m.remove != nil {
			m.remove(h)
		}
	}
}

// CredentialHeaders returns the canonical names of the headers that [Guard.RemoveCredentials] removes or changes.
func (g *Guard) CredentialHeaders() []string {
	names := []string{"Authorization", "Dpop"}
	for _, m := range g.alsoFrom {
		if name := cmp.Or(m.vary, protocolHeader); m.remove != nil && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// RemoveOtherCredentials is [Guard.RemoveCredentials] for code that passes on the token of r, a request that the guard has accepted with a
// token. It leaves that token in h, which has the headers of r. It removes the DPoP proof, and credentials that the guard has not
// verified: those that it does not read, and those that it ignores because of the origin of r.
func (g *Guard) RemoveOtherCredentials(h http.Header, r *http.Request) {
	authorized := false
	if g.tokenHeader == "" {
		_, _, authorized, _ = authheader.Read(r.Header["Authorization"])
	}
	for i := range g.alsoFrom {
		m := &g.alsoFrom[i]
		if m.remove == nil && !m.scheme { // not a header; a body has been read
			continue
		}
		switch tokens, _ := m.tokens(r); {
		case m.scheme:
			authorized = authorized || len(tokens) > 0
		case len(tokens) == 0:
			m.remove(h)
		}
	}
	if !authorized {
		delete(h, "Authorization")
	}
	delete(h, "Dpop")
}

func (g *Guard) checkLength(token string) error {
	if len(token) > g.maxToken {
		return &valetkey.Error{Code: valetkey.InvalidToken, Reason: valetkey.ReasonTokenTooLong}
	}
	return nil
}

var errTwoTokens = malformed(valetkey.ReasonTwoTokens)

// tokenInQuery reports whether a query has a parameter access_token. It does not allocate for parameter names without escapes.
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

func malformed(reason valetkey.Reason) error {
	return &valetkey.Error{Code: valetkey.InvalidRequest, Reason: reason}
}
