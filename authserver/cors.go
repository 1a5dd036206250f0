package authserver

import (
	"net/http"
	"strings"
)

// crossOrigin lets applications in browsers, whose pages are of other origins, ask those endpoints that are for them: by URL
// only, since no cookie counts there. It reports whether the request was no more than the browser's question whether it may.
// The authorization endpoint and the pages are not among them (RFC 9700, section 2.6).
func (s *Server) crossOrigin(w http.ResponseWriter, r *http.Request) bool {
	methods := s.shared[r.URL.Path]
	if methods == "" { // a client at the registration endpoint
		methods = s.shared[r.URL.Path[:strings.LastIndexByte(r.URL.Path, '/')+1]]
	}
	if methods == "" || r.Header.Get("Origin") == "" {
		return false
	}
	h := w.Header()
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Access-Control-Expose-Headers", "DPoP-Nonce, Retry-After, WWW-Authenticate")
	if r.Method != http.MethodOptions {
		return false
	}
	h.Set("Access-Control-Allow-Methods", methods)
	h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type, DPoP")
	h.Set("Access-Control-Max-Age", "600")
	w.WriteHeader(http.StatusNoContent)
	return true
}
