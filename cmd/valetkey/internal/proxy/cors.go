package proxy

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/jub0bs/cors"
	"github.com/jub0bs/cors/cfgerrors"

	"github.com/valetkey/valetkey/routes"
)

// The library is github.com/jub0bs/cors. The alternative, github.com/rs/cors, has no dependencies, but its last release is from
// August 2024, and it accepts configurations that no browser honors, such as credentials for all origins. jub0bs/cors is released
// several times a year and reports such mistakes. It requires golang.org/x/net, for the list of public suffixes.

// A crossOrigin answers preflights and sets the CORS headers of all other responses (Fetch standard, section 3.3).
type crossOrigin struct {
	rows *http.ServeMux // the patterns of the table
	with http.Handler   // next, with the headers
	next http.Handler
}

// exposed lists the response headers that scripts can read, beside those of cors.expose_headers: the ones that a client needs to
// respond to a refusal or to report it.
var exposed = []string{"WWW-Authenticate", "DPoP-Nonce", "Retry-After", requestIDHeader}

// crossOrigins returns the settings of the cors section, or nil if there is none or it has mistakes.
func (f *file) crossOrigins() *cors.Middleware {
	s := f.CORS
	if s == nil {
		return nil
	}
	cfg := cors.Config{
		Origins:         s.Origins,
		Credentialed:    s.Credentials,
		Methods:         s.Methods,
		RequestHeaders:  slices.Concat(s.Headers, []string{"Content-Type", "Authorization"}),
		ResponseHeaders: slices.Concat(s.Expose, exposed),
	}
	if s.Methods == nil {
		cfg.Methods = []string{"*"} // the table has the last word
	}
	if f.DPoP != nil {
		cfg.RequestHeaders = append(cfg.RequestHeaders, "DPoP")
	}
	switch age := time.Duration(s.MaxAge); {
	case age < 0: // given as zero
		cfg.MaxAgeInSeconds = -1
	case age > 0:
		cfg.MaxAgeInSeconds = int((age + time.Second - 1) / time.Second)
	}
	if f.Wrong("cors") {
		return nil
	}
	made, err := cors.NewMiddleware(cfg)
	if err == nil {
		return made
	}
	for wrong := range cfgerrors.All(err) {
		f.blameCORS(wrong)
	}
	return nil
}

// blameCORS adds a mistake of package cors at its field.
func (f *file) blameCORS(err error) {
	element := func(field string, list []string, value string) string {
		if i := slices.Index(list, value); i >= 0 {
			return fmt.Sprintf("cors.%s[%d]", field, i)
		}
		return "cors." + field
	}
	var (
		origin   *cfgerrors.UnacceptableOriginPatternError
		unsafe   *cfgerrors.IncompatibleOriginPatternError
		method   *cfgerrors.UnacceptableMethodError
		header   *cfgerrors.UnacceptableHeaderNameError
		wildcard *cfgerrors.IncompatibleWildcardResponseHeaderNameError
		age      *cfgerrors.MaxAgeOutOfBoundsError
	)
	switch {
	case errors.As(err, &origin):
		f.Mistake(element("origins", f.CORS.Origins, origin.Value), "%q is not an origin such as https://app.example.com or https://*.example.com", origin.Value)
	case errors.As(err, &unsafe) && unsafe.Value == "*":
		f.Mistake("cors.credentials", "cannot be true for all origins: list the origins")
	case errors.As(err, &unsafe) && unsafe.Reason == "psl":
		f.Mistake(element("origins", f.CORS.Origins, unsafe.Value), "%q contains the sites of strangers: anyone can register a name below it", unsafe.Value)
	case errors.As(err, &unsafe):
		f.Mistake(element("origins", f.CORS.Origins, unsafe.Value), "%q is not https, which credentials require except on loopback", unsafe.Value)
	case errors.As(err, &method):
		f.Mistake(element("methods", f.CORS.Methods, method.Value), "%q is not a method that a page can send", method.Value)
	case errors.As(err, &header) && header.Type == "request":
		f.Mistake(element("headers", f.CORS.Headers, header.Value), "%q is not a header that a page can set", header.Value)
	case errors.As(err, &header):
		f.Mistake(element("expose_headers", f.CORS.Expose, header.Value), "%q is not a header that a page can read", header.Value)
	case errors.As(err, &wildcard):
		f.Mistake("cors.expose_headers", `"*" cannot be combined with credentials: list the headers`)
	case errors.As(err, &age):
		f.Mistake("cors.max_age", "is more than 24h")
	default:
		f.Mistake("cors", "%w", err)
	}
}

// newCrossOrigin returns next with CORS by policy. The table, which is valid, has the routes of next.
func newCrossOrigin(policy *cors.Middleware, table routes.Table, next http.Handler) crossOrigin {
	c := crossOrigin{rows: http.NewServeMux(), with: policy.Wrap(next), next: next}
	for pattern := range table {
		c.rows.Handle(pattern, http.NotFoundHandler())
	}
	return c
}

// ServeHTTP answers a preflight for a route of the table, and passes everything else to the next handler. A preflight for another
// route is refused like any request for a route that does not exist.
func (c crossOrigin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if asked := r.Header.Get("Access-Control-Request-Method"); r.Method == http.MethodOptions && asked != "" && !c.hasRow(asked, r) {
		c.next.ServeHTTP(w, r)
		return
	}
	c.with.ServeHTTP(w, r)
}

// hasRow reports whether the table has a row for the request that the preflight r precedes.
func (c crossOrigin) hasRow(method string, r *http.Request) bool {
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	_, row := c.rows.Handler(&http.Request{Method: method, Host: host, URL: r.URL})
	return row != ""
}

// withoutCORS removes the CORS headers of the upstream, because those of the proxy replace them.
func withoutCORS(h http.Header) {
	for name := range h {
		if strings.HasPrefix(name, "Access-Control-") {
			delete(h, name)
		}
	}
}
