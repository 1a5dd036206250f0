package dpop

import "strings"

// sameURL reports whether the URL in a proof is that of the request, and returns its normalized form.
//
// A fragment is removed from the proof's URL only. In the request URL, a "#" would be a character that net/http takes as part
// of the path, so it must keep the URLs different.
func sameURL(named, requested string) (string, bool) {
	named, _, _ = strings.Cut(named, "#")
	a, ok := normalURL(named)
	if named == requested {
		return a, ok
	}
	b, _ := normalURL(requested) // "" if it is not one
	return a, ok && a == b
}

// withoutQuery returns s without its query and fragment, which must not reach a log: a query may contain a token.
func withoutQuery(s string) string {
	if i := strings.IndexAny(s, "?#"); i >= 0 {
		return s[:i]
	}
	return s
}

// normalURL returns an http or https URL without query in normalized form (RFC 9449, section 4.3, check 9): scheme and host
// in lower case, no default port, a path, and no percent-encoding of a character that needs none (RFC 3986, sections 6.2.2.1,
// 6.2.2.2 and 6.2.3). It returns s itself if s is already in that form, and false if s is not such a URL or has userinfo.
//
// It does no more than that, so that URLs that a server may route differently stay different: the letter case of the path is
// significant, %2F is not "/", and "." and ".." remain, in any encoding (RFC 3986, section 6.2.2.3, applies where they are
// resolved).
func normalURL(s string) (string, bool) {
	s, _, _ = strings.Cut(s, "?")
	givenScheme, rest, _ := strings.Cut(s, "://") // without it, there is no host either
	givenAuthority, _, _ := strings.Cut(rest, "/")
	givenPath := rest[len(givenAuthority):]
	scheme := strings.ToLower(givenScheme)
	if scheme != "http" && scheme != "https" {
		return "", false
	}
	authority, ok := normalAuthority(givenAuthority, scheme)
	if !ok {
		return "", false
	}
	path, ok := normalPath(givenPath)
	if !ok {
		return "", false
	}
	if scheme == givenScheme && authority == givenAuthority && path == givenPath {
		return s, true
	}
	return scheme + "://" + authority + path, true
}

func normalAuthority(s, scheme string) (string, bool) {
	host, port := s, ""
	if i := strings.LastIndexByte(s, ':'); i > strings.LastIndexByte(s, ']') {
		host, port = s[:i], s[i+1:]
	}
	if !validHost(host) || strings.Trim(port, "0123456789") != "" {
		return "", false
	}
	host = strings.ToLower(host)
	if port == "" || port == "80" && scheme == "http" || port == "443" && scheme == "https" {
		return host, true
	}
	return host + s[len(host):], true // ":" port
}

// validHost accepts names and addresses (RFC 3986, section 3.2.2), except those with percent-encodings or with punctuation
// that no host in the DNS has.
func validHost(s string) bool {
	inner, isLiteral := strings.CutPrefix(s, "[")
	if isLiteral {
		inner, isLiteral = strings.CutSuffix(inner, "]")
		if !isLiteral {
			return false
		}
	}
	for i := range len(inner) {
		if c := inner[i]; !unreserved(c) && (c != ':' || !isLiteral) {
			return false
		}
	}
	return inner != ""
}

func normalPath(s string) (string, bool) {
	if s == "" {
		return "/", true
	}
	if strings.IndexByte(s, '%') < 0 {
		return s, true
	}
	path := make([]byte, 0, len(s))
	for segment := range strings.SplitSeq(s[1:], "/") {
		path = append(path, '/')
		start := len(path)
		for i := 0; i < len(segment); i++ {
			c := segment[i]
			if c != '%' {
				path = append(path, c)
				continue
			}
			if i+2 >= len(segment) || unhex(segment[i+1]) > 15 || unhex(segment[i+2]) > 15 {
				return "", false
			}
			if c = unhex(segment[i+1])<<4 | unhex(segment[i+2]); unreserved(c) {
				path = append(path, c)
			} else {
				path = append(path, '%', upperHex[c>>4], upperHex[c&15])
			}
			i += 2
		}
		// Decoding must not create a dot segment: net/http cleans "/a/../b" but not "/a/%2E%2E/b".
		if got := string(path[start:]); got == "." || got == ".." {
			path = append(path[:start], strings.ToUpper(segment)...)
		}
	}
	return string(path), true
}

const upperHex = "0123456789ABCDEF"

// unhex returns the value of a hexadecimal digit, or more than 15.
func unhex(c byte) byte {
	// The differences wrap around, so a smaller c gives a large one.
	if digit := c - '0'; digit <= 9 {
		return digit
	}
	if letter := c | 0x20 - 'a'; letter <= 5 {
		return 10 + letter
	}
	return 16
}

// unreserved reports whether c is unreserved, so that its percent-encoding is equivalent to c (RFC 3986, section 2.3).
func unreserved(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'z' || c == '-' || c == '.' || c == '_' || c == '~'
}
