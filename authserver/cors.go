package authserver

import (
	"net/http"
	"strings"
)

// crossOrigin permits browser applications of other origins to request the endpoints that are meant for them. It decides by URL
// alone, because these endpoints ignore cookies. It reports whether the request was a preflight request and has been answered.
// The authorization endpoint and the pages are not permitted (RFC 9700, section 2.6).
func (s *Server) crossOrigin(w http.ResponseWriter, r *http.Request) bool {
	methods := s.shared[r.URL.Path]
	if methods == "" { // a client's URL below the registration endpoint
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
