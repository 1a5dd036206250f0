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

// A BearerMethod is a place beside the Authorization header where a request may carry its access token.
type BearerMethod struct {
	tokens func(r *http.Request) ([]string, error)
	method string // of bearer_methods_supported, RFC 9728, section 2; "" if it has no name there
}

// Form is legacy: OAuth 2.1 leaves it out. It is the parameter access_token of a form body in a POST, PUT or PATCH request of type
// application/x-www-form-urlencoded (RFC 6750, section 2.2). The body is read into memory, up to maxBytes (zero: 1 MiB;
// more is refused with 400), and the handler finds it unread.
func Form(maxBytes int64) BearerMethod {
	if maxBytes <= 0 {
		maxBytes = 1 << 20
	}
	return BearerMethod{method: "body", tokens: func(r *http.Request) ([]string, error) { return formTokens(r, maxBytes) }}
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
		return nil, &valetkey.Error{Code: valetkey.InvalidRequest, Reason: valetkey.ReasonFormUnreadable, Err: err}
	}
	if int64(len(body)) > maxBytes {
		return nil, malformed(valetkey.ReasonFormTooLong)
	}
	r.Body = struct {
		io.Reader
		io.Closer
	}{bytes.NewReader(body), r.Body}
	form, err := url.ParseQuery(string(body))
	if err != nil { // err quotes the body, which may hold the token
		return nil, malformed(valetkey.ReasonFormMalformed)
	}
	return form["access_token"], nil
}

// Query is legacy: a token in a query ends up in logs and histories (RFC 9700, section 4.3.2). It is the query parameter
// access_token (RFC 6750, section 2.3).
func Query() BearerMethod {
	return BearerMethod{method: "query", tokens: func(r *http.Request) ([]string, error) {
		if r.URL.RawQuery == "" {
			return nil, nil
		}
		query, err := url.ParseQuery(r.URL.RawQuery)
		if err != nil { // err quotes the query, which may hold the token
			return nil, malformed(valetkey.ReasonQueryMalformed)
		}
		return query["access_token"], nil
	}}
}

// Cookie returns the cookie called name as a source, for web applications whose browser must not see the token. A browser
// attaches a cookie to requests that other sites cause, so the origin of every request that is not a plain safe read must be
// proven: of each method but GET, HEAD and OPTIONS, and of any method with an Upgrade header, as a WebSocket handshake has, which
// is a GET and which the same-origin policy does not cover.
//
// Such a request has a token here only if protection accepts its Sec-Fetch-Site or Origin header, whatever its method;
// a request with neither header is refused, which [http.CrossOriginProtection] alone would let through. A refused request counts as
// one without credentials: 401 with a challenge, or, with [valetkey.Optional], the handler without a token. The trusted origins of
// protection apply; behind a proxy that changes the Host header, the own origin must be one of them. Its bypass patterns apply to
// handshakes if they name no method.
//
// An empty name and a nil protection return the zero Source, which [New] reports.
func Cookie(name string, protection *http.CrossOriginProtection) BearerMethod {
	if name == "" || protection == nil {
		return BearerMethod{}
	}
	return BearerMethod{tokens: func(r *http.Request) ([]string, error) {
		var tokens []string
		for _, cookie := range r.CookiesNamed(name) {
			tokens = append(tokens, cookie.Value)
		}
		if tokens == nil || !plainRead(r) && !ownOrigin(r, protection) {
			return nil, nil
		}
		return tokens, nil
	}}
}

// plainRead reports whether r only reads (RFC 9110, section 9.2.1). A request that opens a connection in both directions does
// more: an Upgrade (RFC 9110, section 7.8), or an extended CONNECT (RFC 8441), also where a handler before the guard has
// made a GET of it.
func plainRead(r *http.Request) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return len(r.Header["Upgrade"]) == 0 && len(r.Header[":protocol"]) == 0
	}
	return false
}

// ownOrigin reports whether the headers of r prove that its origin is allowed by protection.
func ownOrigin(r *http.Request, protection *http.CrossOriginProtection) bool {
	asked := *r
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions: // protection lets these through unseen
		asked.Method = "UPGRADE" // matches no bypass pattern that is meant for another method
	}
	if r.Header.Get("Origin") == "" && r.Header.Get("Sec-Fetch-Site") == "" {
		// Protection would let it through as not of a browser. Called cross-site, it passes by a bypass pattern only.
		asked.Header = r.Header.Clone()
		asked.Header.Set("Sec-Fetch-Site", "cross-site")
	}
	return protection.Check(&asked) == nil
}

// WebSocketProtocol is the one sub-protocol of a WebSocket handshake (RFC 6455, section 1.9) that begins with prefix, such
// as "bearer.", for browsers, which cannot set a header there. What follows prefix is the token. A handshake needs another
// sub-protocol for the server to choose, and this one must never be it: it would come back to whoever reads the answer.
func WebSocketProtocol(prefix string) BearerMethod {
	if prefix == "" {
		return BearerMethod{}
	}
	return BearerMethod{tokens: func(r *http.Request) ([]string, error) {
		if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
			return nil, nil
		}
		var tokens []string
		for _, line := range r.Header["Sec-Websocket-Protocol"] {
			for protocol := range strings.SplitSeq(line, ",") {
				if token, found := strings.CutPrefix(strings.Trim(protocol, " \t"), prefix); found {
					tokens = append(tokens, token)
				}
			}
		}
		return tokens, nil
	}}
}
