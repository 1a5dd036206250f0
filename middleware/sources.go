package middleware

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/apikey"
)

// A BearerMethod is a place, other than the Authorization header, where a request may carry its access token. The zero value is
// invalid.
type BearerMethod struct {
	tokens  func(r *http.Request) ([]string, error)
	remove  func(h http.Header) // nil: the token is not in a header
	method  string              // of bearer_methods_supported, RFC 9728, section 2; "" if it has no name there
	vary    string              // the header that carries the token, if a cache must tell requests apart by it
	header  string              // canonical name of the header that replaces Authorization; "": it is read
	scheme  bool                // another scheme of Authorization
	mistake error               // in the arguments
}

// shared reports whether a shared cache may store a response to a token of this kind. Without a directive in the response, RFC
// 9111, section 3.5 protects only responses to requests with Authorization.
func (m *BearerMethod) shared() bool { return m.method == "query" || m.vary != "" }

// HeaderToken returns the BearerMethod for a header whose whole value is the token, without a scheme: one in which a proxy passes
// on the token of a user whom it has logged in, such as Cf-Access-Jwt-Assertion of Cloudflare Access, X-Goog-IAP-JWT-Assertion of
// Google's IAP or X-Amzn-Oidc-Data of an Application Load Balancer, or one that an API has defined itself.
//
// The header replaces Authorization, which the guard then does not read. At most one header may do so. The empty value is no
// token, and a value with a scheme is malformed. The parts of a JWT may be padded, as those of X-Amzn-Oidc-Data are; whether they are
// accepted is for the verifier to decide. Challenges still have the scheme Bearer, because a response with status 401 must
// contain a challenge (RFC 9110, section 15.5.2). DPoP is not available: its tokens are sent in Authorization (RFC 9449, section
// 7.1).
//
// A proxy that logs users in keeps their session in a cookie, and adds the header to each request that has the cookie, including
// requests that other sites cause. So the token of a request that does more than read, see [Cookie], is ignored if its
// Sec-Fetch-Site or Origin header shows another origin, unless that is one of trustedOrigins, such as https://app.example.com. A
// request without these headers does not come from a browser, and its token is used. Behind a proxy that changes the Host header,
// trustedOrigins must include the server's own origin for browsers that do not send Sec-Fetch-Site.
//
// [New] reports a name that is not the name of a header or that has another meaning in HTTP or for the guard, and an invalid
// origin.
func HeaderToken(name string, trustedOrigins ...string) BearerMethod {
	header, protection := http.CanonicalHeaderKey(name), http.NewCrossOriginProtection()
	m := BearerMethod{header: header, vary: header, mistake: tokenHeader(name)}
	for _, origin := range trustedOrigins {
		if err := protection.AddTrustedOrigin(origin); err != nil {
			m.mistake = errors.Join(m.mistake, fmt.Errorf("%q is not an origin such as https://app.example.com", origin))
		}
	}
	m.remove = func(h http.Header) { h.Del(header) }
	m.tokens = func(r *http.Request) ([]string, error) {
		lines := r.Header[header]
		if len(lines) == 1 && lines[0] == "" || !plainRead(r) && !ofAllowedOrigin(r, protection) {
			return nil, nil
		}
		return lines, nil
	}
	return m
}

// tokenHeader returns an error if a header of this name cannot carry a token.
func tokenHeader(name string) error {
	if !isToken(name) {
		return fmt.Errorf("%q is not the name of a header", name)
	}
	lower := strings.ToLower(name)
	reserved := slices.Contains(reservedHeaders, lower) ||
		slices.ContainsFunc(reservedPrefixes, func(p string) bool { return strings.HasPrefix(lower, p) })
	if reserved {
		return fmt.Errorf("%q has another meaning and cannot carry a token", name)
	}
	return nil
}

// isToken reports whether s is a token of RFC 9110, section 5.6.2.
func isToken(s string) bool {
	return s != "" && strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!#$%&'*+-.^_`|~") == ""
}

// Headers that have a meaning for HTTP, browsers, proxies or the guard.
var (
	reservedHeaders = []string{"authorization", "cookie", "dpop", "host", "origin", "referer", "connection", "upgrade", "transfer-encoding",
		"te", "trailer", "keep-alive", "expect", "range", "via", "user-agent", "accept", "cache-control",
		"forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-forwarded-port", "x-forwarded-prefix",
		"client-cert", "client-cert-chain", "x-forwarded-client-cert", "x-forwarded-tls-client-cert"}
	reservedPrefixes = []string{"proxy-", "sec-", "access-control-", "content-", "accept-", "if-"}
)

// APIKeyHeader returns the BearerMethod for an API key that is the whole value of a header, such as X-Api-Key. Unlike [HeaderToken], it
// does not replace Authorization: a request with both is refused with 400. The verifier must accept API keys, see package apikey. An
// empty value is not a key. [New] reports a name that is not the name of a header or that has another meaning.
func APIKeyHeader(name string) BearerMethod {
	header := http.CanonicalHeaderKey(name)
	m := BearerMethod{vary: header, mistake: tokenHeader(name)}
	m.remove = func(h http.Header) { h.Del(header) }
	m.tokens = func(r *http.Request) ([]string, error) {
		lines := r.Header[header]
		if len(lines) == 1 && lines[0] == "" {
			return nil, nil
		}
		texts := make([]string, len(lines))
		for i, key := range lines {
			texts[i] = apikey.Text(key)
		}
		return texts, nil
	}
	return m
}

// APIKeyAuthorization returns the BearerMethod for an API key in the Authorization header: after the scheme ApiKey, or as the user name
// of the scheme Basic (RFC 7617) with an empty password. Other schemes are not affected. The verifier must accept API keys, see package
// apikey. A browser repeats Basic credentials in requests that other sites cause, so those of a request that does more than read are
// ignored if its Sec-Fetch-Site or Origin header shows another origin, see [Cookie].
func APIKeyAuthorization() BearerMethod {
	protection := http.NewCrossOriginProtection()
	return BearerMethod{scheme: true, tokens: func(r *http.Request) ([]string, error) {
		lines := r.Header["Authorization"]
		if len(lines) != 1 { // the guard refuses several
			return nil, nil
		}
		scheme, value, _ := strings.Cut(lines[0], " ")
		value = strings.TrimLeft(value, " ")
		switch {
		case strings.EqualFold(scheme, "ApiKey"):
			if value == "" {
				return nil, malformed(valetkey.ReasonEmptyToken)
			}
			return []string{apikey.Text(value)}, nil
		case strings.EqualFold(scheme, "Basic") && (plainRead(r) || ofAllowedOrigin(r, protection)):
			pair, err := base64.StdEncoding.DecodeString(value)
			user, password, ok := strings.Cut(string(pair), ":")
			if err != nil || !ok || user == "" || password != "" {
				return nil, malformed(valetkey.ReasonTokenCharacters)
			}
			return []string{apikey.Text(user)}, nil
		}
		return nil, nil
	}}
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
	remove := func(h http.Header) { removeCookie(h, name) }
	return BearerMethod{vary: "Cookie", remove: remove, tokens: func(r *http.Request) ([]string, error) {
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

// removeCookie removes the cookies of this name from h.
func removeCookie(h http.Header, name string) {
	cookies := (&http.Request{Header: h}).Cookies()
	if !slices.ContainsFunc(cookies, func(c *http.Cookie) bool { return c.Name == name }) {
		return // keep the lines as they are
	}
	var kept []string
	for _, line := range h["Cookie"] {
		for part := range strings.SplitSeq(line, ";") {
			part = strings.Trim(part, " \t")
			if of, _, _ := strings.Cut(part, "="); part != "" && strings.Trim(of, " \t") != name {
				kept = append(kept, part)
			}
		}
	}
	if h.Del("Cookie"); kept != nil {
		h.Set("Cookie", strings.Join(kept, "; "))
	}
}

// ofAllowedOrigin reports whether protection allows r, whatever its method. It allows a request that does not state its origin.
func ofAllowedOrigin(r *http.Request, protection *http.CrossOriginProtection) bool {
	asked := *r
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions: // protection accepts these without a check
		asked.Method = "UPGRADE" // matches no bypass pattern for another method
	}
	return protection.Check(&asked) == nil
}

// ownOrigin reports whether the headers of r prove that its origin is allowed by protection.
func ownOrigin(r *http.Request, protection *http.CrossOriginProtection) bool {
	asked := *r
	if r.Header.Get("Origin") == "" && r.Header.Get("Sec-Fetch-Site") == "" {
		// Protection would accept it as a non-browser request. Marked as cross-site, it passes only by a bypass pattern.
		asked.Header = r.Header.Clone()
		asked.Header.Set("Sec-Fetch-Site", "cross-site")
	}
	return ofAllowedOrigin(&asked, protection)
}

// WebSocketProtocol returns the BearerMethod for the subprotocol of a WebSocket handshake (RFC 6455, section 1.9) that begins
// with prefix, such as "bearer.". The rest of the subprotocol is the token. It is for browsers, which cannot set a header in a
// handshake.
//
// The client must offer another subprotocol for the server to select. The server must never select the one with the token, because
// the response would contain it. If prefix is empty, WebSocketProtocol returns the zero BearerMethod, which [New] reports.
func WebSocketProtocol(prefix string) BearerMethod {
	return prefixed(prefix, func(token string) (string, error) { return token, nil })
}

// KubernetesProtocol is the prefix of the subprotocol in which clients of Kubernetes send a token, see
// [WebSocketProtocolBase64URL].
const KubernetesProtocol = "base64url.bearer.authorization.k8s.io."

// WebSocketProtocolBase64URL is [WebSocketProtocol] for a token that is encoded in base64url without padding (RFC 4648, section 5)
// after the prefix, such as [KubernetesProtocol]. It is for tokens with characters that a subprotocol cannot have: "/" and "=". A
// token in another encoding is malformed.
func WebSocketProtocolBase64URL(prefix string) BearerMethod {
	return prefixed(prefix, func(token string) (string, error) {
		raw, err := base64.RawURLEncoding.Strict().DecodeString(token)
		if err != nil { // err quotes a part of the token
			return "", malformed(valetkey.ReasonTokenCharacters)
		}
		return string(raw), nil
	})
}

// WebSocketProtocolPair returns the BearerMethod for two subprotocols of a WebSocket handshake, of which the first is name, such as
// "access_token" or "bearer", and the second is the token:
//
//	new WebSocket("wss://api.example.com/", ["access_token", token])
//
// The server must select name or a subprotocol before or after the pair, never the token, because the response would contain it. A
// server that selects from a list of subprotocols, as the common packages do, has name in that list. If name is empty,
// WebSocketProtocolPair returns the zero BearerMethod, which [New] reports.
func WebSocketProtocolPair(name string) BearerMethod {
	if name == "" {
		return BearerMethod{}
	}
	return subprotocol(name, func(offered []string) (tokens, rest []string, err error) {
		for i := 0; i < len(offered); i++ {
			rest = append(rest, offered[i])
			if offered[i] != name {
				continue
			}
			if i++; i == len(offered) {
				return append(tokens, ""), rest, nil // name without a token
			}
			tokens = append(tokens, offered[i])
		}
		return tokens, rest, nil
	})
}

// prefixed returns the BearerMethod for subprotocols that begin with prefix.
func prefixed(prefix string, decode func(token string) (string, error)) BearerMethod {
	if prefix == "" {
		return BearerMethod{}
	}
	return subprotocol(prefix, func(offered []string) (tokens, rest []string, err error) {
		for _, protocol := range offered {
			text, found := strings.CutPrefix(protocol, prefix)
			if !found {
				rest = append(rest, protocol)
				continue
			}
			token, wrong := decode(text)
			tokens, err = append(tokens, token), cmp.Or(err, wrong)
		}
		return tokens, rest, err
	})
}

// subprotocol returns the BearerMethod for tokens among the offered subprotocols of a handshake. find returns the tokens, and the
// offers without them. name is the text by which it finds them.
func subprotocol(name string, find func(offered []string) (tokens, rest []string, err error)) BearerMethod {
	var mistake error
	if !isToken(name) { // RFC 6455, section 4.1
		mistake = fmt.Errorf("%q contains a character that a subprotocol cannot have", name)
	}
	return BearerMethod{
		mistake: mistake,
		tokens: func(r *http.Request) ([]string, error) {
			if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
				return nil, nil
			}
			tokens, _, err := find(offers(r.Header))
			return tokens, err
		},
		remove: func(h http.Header) {
			offered := offers(h)
			_, rest, _ := find(offered)
			if len(rest) == len(offered) {
				return
			}
			if h.Del(protocolHeader); len(rest) > 0 {
				h.Set(protocolHeader, strings.Join(rest, ", "))
			}
		},
	}
}

const protocolHeader = "Sec-Websocket-Protocol"

// offers returns the subprotocols in h, a list in one or more lines (RFC 6455, section 11.3.4).
func offers(h http.Header) (all []string) {
	for _, line := range h[protocolHeader] {
		for protocol := range strings.SplitSeq(line, ",") {
			all = append(all, strings.Trim(protocol, " \t"))
		}
	}
	return all
}
