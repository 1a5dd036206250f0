package engine

import (
	"net/http"
	"strings"
)

// cookie returns the cookie that ties an interaction to the browser that began it. Otherwise a user could be made to finish a
// request of another person, and thus log in as, or consent for, that person (RFC 9700, section 4.7).
func (e *Engine) cookie(value string) *http.Cookie {
	secure := strings.HasPrefix(e.cfg.Issuer, "https:")
	name := "authorization"
	if secure {
		name = "__Host-authorization"
	}
	return &http.Cookie{Name: name, Value: value, Path: "/", Secure: secure, HttpOnly: true, SameSite: http.SameSiteLaxMode}
}

// browser returns the secret in the browser's cookie, or "".
func (e *Engine) browser(r *http.Request) string {
	cookie, err := r.Cookie(e.cookie("").Name)
	if err != nil || !isSecret(cookie.Value) {
		return ""
	}
	return cookie.Value
}
