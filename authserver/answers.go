package authserver

import (
	"encoding/json"
	"mime"
	"net/http"
	"net/url"
	"strings"

	"github.com/valetkey/valetkey/authserver/internal/handoff"
	"github.com/valetkey/valetkey/internal/recorder"
)

// hsts is the value of Strict-Transport-Security (RFC 6797, section 6.1). It has no includeSubDomains, because other hosts are not
// ours to decide about.
const hsts = "max-age=31536000"

// nothing is the Permissions-Policy of all answers: no page uses a feature of the browser or the device. It lists those that would
// harm a user most.
const nothing = "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), publickey-credentials-create=(), publickey-credentials-get=(), usb=()"

// setHeaders sets the headers that every answer has, whether or not it is a page.
func (s *Server) setHeaders(h http.Header, path string) {
	if strings.HasPrefix(s.cfg.Issuer, "https:") { // RFC 6797, section 7.2: not over http
		h.Set("Strict-Transport-Security", hsts)
	}
	h.Set("Cross-Origin-Opener-Policy", s.openerPolicy(path))
	h.Set("Permissions-Policy", nothing)
	h.Set("X-Robots-Tag", "noindex, nofollow")
	h.Set("X-Content-Type-Options", "nosniff")
}

// openerPolicy returns the Cross-Origin-Opener-Policy of a path. Pages of an account or of the portal share no group of windows with
// another site. Those that a browser passes on its way through an authorization request allow it: many applications, such as Swagger
// UI, log in in a window that reports to its opener at the end, and one answer on the way with another policy would separate the two.
func (s *Server) openerPolicy(path string) string {
	rest := strings.TrimPrefix(path, s.cfg.path())
	for _, way := range []string{s.cfg.Paths.Authorize, "/oauth2/code", handoff.ReturnPath, "/language"} {
		if rest == way || strings.HasPrefix(rest, way+"/") {
			return "unsafe-none"
		}
	}
	return "same-origin"
}

// missing answers a request that no route matches.
func (s *Server) missing(w http.ResponseWriter, r *http.Request) {
	if to := s.withoutSlash(r); to != "" {
		http.Redirect(w, r, to, http.StatusPermanentRedirect)
		return
	}
	var answer recorder.Response // the response of net/http: 404, or 405 with the methods of other routes
	s.mux.ServeHTTP(&answer, r)
	h := w.Header()
	if allow := answer.Header().Get("Allow"); allow != "" {
		h.Set("Allow", allow)
	}
	h.Set("Vary", "Accept, Accept-Language, Cookie")
	switch preferred(r.Header.Get("Accept")) {
	case "text/html":
		s.pages.Missing(w, r, answer.Status)
	case "application/json":
		h.Set("Content-Type", "application/json")
		h.Set("Cache-Control", "no-store")
		w.WriteHeader(answer.Status)
		code, why := "not_found", "there is nothing at this path"
		if answer.Status == http.StatusMethodNotAllowed {
			code, why = "method_not_allowed", "the path does not support this method"
		}
		json.NewEncoder(w).Encode(map[string]string{"error": code, "error_description": why})
	default:
		h.Set("Cache-Control", "no-store")
		http.Error(w, strings.ToLower(http.StatusText(answer.Status)), answer.Status)
	}
}

// withoutSlash returns the URL of a page that the request differs from by slashes at the end, or "".
func (s *Server) withoutSlash(r *http.Request) string {
	path := strings.TrimRight(r.URL.Path, "/")
	if path == r.URL.Path || path == "" || r.Method != http.MethodGet && r.Method != http.MethodHead {
		return ""
	}
	other := *r
	other.URL = &url.URL{Path: path, RawQuery: r.URL.RawQuery}
	// A route matches only paths in their shortest form, so this does not lead to //another.host.
	if _, pattern := s.mux.Handler(&other); pattern == "" || strings.HasPrefix(path, "//") {
		return ""
	}
	return other.URL.RequestURI()
}

// preferred returns the first of text/html and application/json in an Accept header, or "" for a client that has asked for neither.
// Browsers name text/html; clients that accept anything get text.
func preferred(accept string) string {
	for media := range strings.SplitSeq(accept, ",") {
		name, _, err := mime.ParseMediaType(media)
		switch {
		case err != nil:
		case name == "text/html", name == "application/xhtml+xml":
			return "text/html"
		case name == "application/json", strings.HasSuffix(name, "+json"):
			return "application/json"
		}
	}
	return ""
}
