package routes

import (
	"net/http"
	"strings"

	"github.com/valetkey/valetkey"
)

// unclear returns the reason if other software might see another path or method in r than the one that a row matches, or "" if not. See
// [StrictPaths].
func unclear(r *http.Request) valetkey.Reason {
	if r.Method == http.MethodConnect {
		return valetkey.ReasonConnect
	}
	if strings.ContainsFunc(r.Method, notInMethod) {
		return valetkey.ReasonMethod
	}
	path := r.URL.Path // decoded
	if !strings.HasPrefix(path, "/") || strings.Contains(r.RequestURI, "#") {
		return valetkey.ReasonTarget
	}
	if strings.Contains(path, `\`) {
		return valetkey.ReasonPathBackslash
	}
	if strings.ContainsFunc(path, control) {
		return valetkey.ReasonPathControl
	}
	for rest, found := path, true; found; { // as strings.Split, without an allocation
		var segment string
		segment, rest, found = strings.Cut(rest, "/")
		if strings.HasPrefix(segment, ".;") || strings.HasPrefix(segment, "..;") {
			return valetkey.ReasonPathDotSegment
		}
	}
	return ""
}

func control(c rune) bool { return c < ' ' || c == 0x7f }

// notInMethod reports whether c is in no registered method (RFC 9110, section 16.1).
func notInMethod(c rune) bool { return (c < 'A' || c > 'Z') && c != '-' }
