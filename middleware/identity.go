package middleware

import (
	"net/http"
	"strings"

	"github.com/valetkey/valetkey"
)

// The headers that report the caller to an upstream, with their canonical names.
const (
	subjectHeader = "X-Valetkey-Subject"
	clientHeader  = "X-Valetkey-Client"
	scopeHeader   = "X-Valetkey-Scope"
)

// IdentityHeaders returns the headers by which a reverse proxy or a gateway reports the caller to the software behind it:
// X-Valetkey-Subject, X-Valetkey-Client and X-Valetkey-Scope. All three are present. A value is empty if t does not have it, or if t
// is nil.
//
// In a value, '%' and each byte that is neither visible ASCII nor a space is percent-encoded (RFC 3986, section 2.1). So url.PathUnescape
// and its like return the name, and no two names have one value.
//
// The error is a [valetkey.Error] with [valetkey.InvalidToken] if a name contains a control character, or begins or ends with white
// space. Software often changes such a name on its way, which would make it the name of someone else.
func IdentityHeaders(t *valetkey.Token) (http.Header, error) {
	var values [3]string
	if t != nil {
		values = [3]string{t.Subject(), t.ClientID(), t.Scopes().String()}
	}
	for i, v := range values {
		if v != strings.TrimSpace(v) || strings.ContainsFunc(v, control) {
			return nil, errIdentity
		}
		values[i] = percentEncoded(v)
	}
	return http.Header{subjectHeader: values[0:1:1], clientHeader: values[1:2:2], scopeHeader: values[2:3:3]}, nil
}

var errIdentity = &valetkey.Error{Code: valetkey.InvalidToken, Reason: valetkey.ReasonIdentity}

func control(c rune) bool { return c < ' ' || c == 0x7f }

func percentEncoded(s string) string {
	plain := func(c byte) bool { return c >= ' ' && c < 0x7f && c != '%' }
	i := 0
	for i < len(s) && plain(s[i]) {
		i++
	}
	if i == len(s) {
		return s
	}
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	b.Grow(len(s) + 16)
	b.WriteString(s[:i])
	for ; i < len(s); i++ {
		if c := s[i]; plain(c) {
			b.WriteByte(c)
		} else {
			b.Write([]byte{'%', hex[c>>4], hex[c&15]})
		}
	}
	return b.String()
}

// IsIdentityHeader reports whether software may read the header as one of [IdentityHeaders], or as one that a later version adds. It
// ignores letter case, and treats all punctuation as a hyphen: CGI and its successors do not distinguish x_valetkey_scope. A proxy
// removes such headers from requests of clients.
func IsIdentityHeader(name string) bool {
	const prefix = "x-valetkey"
	if len(name) < len(prefix) {
		return false
	}
	for i := range len(prefix) {
		switch c := name[i]; {
		case 'A' <= c && c <= 'Z':
			if c+'a'-'A' != prefix[i] {
				return false
			}
		case 'a' <= c && c <= 'z' || '0' <= c && c <= '9':
			if c != prefix[i] {
				return false
			}
		case prefix[i] != '-':
			return false
		}
	}
	return true
}
