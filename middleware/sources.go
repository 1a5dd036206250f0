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

// A BearerMethod is a place, other than the Authorization header, where a request may carry its access token. The zero value is
// invalid.
type BearerMethod struct {
	tokens func(r *http.Request) ([]string, error)
	method string // of bearer_methods_supported, RFC 9728, section 2; "" if it has no name there
}

// Form returns the BearerMethod for the parameter access_token of a form body, in a POST, PUT or PATCH request of type
// application/x-www-form-urlencoded (RFC 6750, section 2.2). It is legacy: OAuth 2.1 omits it.
//
// The guard reads the body into memory, up to maxBytes, and the handler can read it again. A longer body is refused with 400. If
// maxBytes is zero or negative, the limit is 1 MiB.
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
	// With two Content-Type lines, the guard and the handler might read different ones.
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
	if err != nil { // err quotes the body, which may contain the token
		return nil, malformed(valetkey.ReasonFormMalformed)
	}
	return form["access_token"], nil
}

// Query returns the BearerMethod for the query parameter access_token (RFC 6750, section 2.3). It is legacy: a token in a query
// appears in logs and browser histories (RFC 9700, section 4.3.2).
func Query() BearerMethod {
	return BearerMethod{method: "query", tokens: func(r *http.Request) ([]string, error) {
		if r.URL.RawQuery == "" {
			return nil, nil
		}
		query, err := url.ParseQuery(r.URL.RawQuery)
		if err != nil { // err quotes the query, which may contain the token
			return nil, malformed(valetkey.ReasonQueryMalformed)
		}
		return query["access_token"], nil
	}}
}

// Cookie returns the BearerMethod for the cookie name. It is for web applications in which scripts in the browser must not see the
// token.
//
// A browser attaches cookies to requests that other sites cause, so a request must prove its origin unless it only reads. This
// applies to all methods except GET, HEAD and OPTIONS, and to any method with an Upgrade header. A WebSocket handshake is such a
// GET, and the same-origin policy does not cover it.
//
// The token of such a request is used only if protection accepts its Sec-Fetch-Site or Origin header, whatever its method. If a
// request has neither header, its token is ignored; [http.CrossOriginProtection] alone would accept the request. A request whose
// token is ignored has no credentials: it gets 401 with a challenge or, with [valetkey.Optional], reaches the handler without a
// token. The trusted origins of protection apply; behind a proxy that changes the Host header, they must include the server's own
// origin. Its bypass patterns apply to handshakes if they name no method.
//
// If name is empty or protection is nil, Cookie returns the zero BearerMethod, which [New] reports.
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

// plainRead reports whether r only reads (RFC 9110, section 9.2.1). A request that opens a bidirectional connection does more: an
// Upgrade (RFC 9110, section 7.8) or an extended CONNECT (RFC 8441), even if a handler before the guard has changed it to a GET.
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
	case http.MethodGet, http.MethodHead, http.MethodOptions: // protection accepts these without a check
		asked.Method = "UPGRADE" // matches no bypass pattern for another method
	}
	if r.Header.Get("Origin") == "" && r.Header.Get("Sec-Fetch-Site") == "" {
		// Protection would accept it as a non-browser request. Marked as cross-site, it passes only by a bypass pattern.
		asked.Header = r.Header.Clone()
		asked.Header.Set("Sec-Fetch-Site", "cross-site")
	}
	return protection.Check(&asked) == nil
}

// WebSocketProtocol returns the BearerMethod for the subprotocol of a WebSocket handshake (RFC 6455, section 1.9) that begins
// with prefix, such as "bearer.". The rest of the subprotocol is the token. It is for browsers, which cannot set a header in a
// handshake.
//
// The client must offer another subprotocol for the server to select. The server must never select the one with the token, because
// the response would contain it. If prefix is empty, WebSocketProtocol returns the zero BearerMethod, which [New] reports.
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
