package clients

import (
	"errors"
	"net/url"
	"slices"
	"strings"
)

// ValidRedirectURI returns nil if a client may register the redirect URI (RFC 9700, sections 2.1 and 2.6): https, http to
// loopback, one of the given private-use schemes, or, for a native application, a private-use scheme that is a reversed domain
// name (RFC 8252, section 7.1). It must be an absolute URI of at most 2000 bytes without fragment, user and wildcard. The error
// does not quote it. It wraps [ErrPrivateUse] if the scheme is the only problem and the URI cannot run a script.
func ValidRedirectURI(uri string, native bool, schemes ...string) error {
	u, err := webURI(uri)
	if err != nil {
		return err
	}
	switch {
	case strings.Contains(uri, "#"): // RFC 6749, section 3.1.2
		return errors.New("has a fragment")
	case strings.Contains(uri, "*"): // URIs are compared exactly, so a wildcard would not work
		return errors.New("has a wildcard")
	case u.Scheme == "https" && u.Hostname() != "":
		return nil
	case u.Scheme == "http" && isLoopback(u.Hostname()):
		return nil
	case u.Scheme == "https" || u.Scheme == "http":
		return errors.New("is neither https with a host nor http to 127.0.0.1, [::1] or localhost")
	case u.Opaque != "" || u.Path+u.Host == "" || ValidScheme(u.Scheme) != nil:
		return errNoDomain
	case slices.Contains(schemes, u.Scheme):
		return nil
	case !strings.Contains(u.Scheme, "."): // RFC 8252, section 8.4
		return privateUse{errNoDomain}
	case !native:
		return privateUse{errors.New("has a private-use scheme, which requires a native application")}
	}
	return nil
}

var errNoDomain = errors.New("has a scheme that is neither https nor a reversed domain name, as in com.example.app:/callback")

// ErrPrivateUse is wrapped by the error of a redirect URI that any application on the user's device could claim.
var ErrPrivateUse = errors.New("has a private-use scheme")

// privateUse is an [ErrPrivateUse] with another text.
type privateUse struct{ error }

func (privateUse) Unwrap() error { return ErrPrivateUse }

// ValidScheme returns nil if scheme can be a private-use scheme (RFC 8252, section 7.1): a lower-case scheme (RFC 3986, section
// 3.1) that a browser passes to an application. A browser would open the others itself, or run them.
func ValidScheme(scheme string) error {
	if scheme == "" || scheme[0] < 'a' || scheme[0] > 'z' || strings.Trim(scheme, "abcdefghijklmnopqrstuvwxyz0123456789+-.") != "" {
		return errors.New("is not the name of a scheme in lower case, such as com.example.app")
	}
	if slices.Contains(reserved, scheme) {
		return errors.New("is a scheme that browsers handle themselves")
	}
	return nil
}

var reserved = []string{
	"http", "https", "ws", "wss", "ftp", "javascript", "vbscript", "data", "file", "filesystem", "blob", "about", "view-source", "jar", "resource",
	"chrome", "chrome-extension", "moz-extension", "edge", "intent", "content", "mailto", "tel", "sms", "urn", "cid", "mid", "ms-its", "mhtml", "res",
}

// webURI parses a URI that pages show and browsers follow.
func webURI(uri string) (*url.URL, error) {
	u, err := url.Parse(uri)
	switch {
	case len(uri) > maxURI:
		return nil, errors.New("is too long")
	// RFC 3986, section 2: characters that browsers would repair, each in its own way, are refused.
	case strings.ContainsFunc(uri, func(r rune) bool { return r <= 0x20 || r > 0x7e || strings.ContainsRune("\"<>\\^`{|}", r) }):
		return nil, errors.New("has characters that are not allowed in a URI")
	case err != nil || !u.IsAbs():
		return nil, errors.New("is not an absolute URI")
	case u.User != nil:
		return nil, errors.New("has a user")
	case strings.Contains(u.Host, "%") && !strings.HasPrefix(u.Host, "[") || strings.ContainsFunc(u.Host, func(r rune) bool { return r > 0x7e }):
		return nil, errors.New("has an escaped host")
	}
	return u, nil
}

// isLoopback reports whether host is one of the loopback hosts in RFC 8252, sections 7.3 and 8.3.
func isLoopback(host string) bool {
	return host == "127.0.0.1" || host == "::1" || host == "localhost"
}
