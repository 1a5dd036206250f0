package authheader

import (
	"errors"
	"fmt"
	"strings"
)

// A Challenge is one challenge of a WWW-Authenticate header (RFC 9110, section 11.3).
type Challenge struct {
	Scheme  string            // as sent; letter case is not significant
	Token68 string            // sent instead of parameters; "": none
	Params  map[string]string // by name in lower case; values unquoted
}

// Challenges parses every challenge in a line of WWW-Authenticate, as strictly as a sender must write them (RFC 9110, sections 5.6 and
// 11): no empty list element, no space around "=", no repeated parameter, and a quoted realm.
func Challenges(line string) (all []Challenge, err error) {
	s := &challengeScanner{rest: line}
	for {
		c, err := s.challenge()
		if err != nil {
			return nil, err
		}
		all = append(all, c)
		if s.rest == "" {
			return all, nil
		}
	}
}

// A challengeScanner parses its text from left to right.
type challengeScanner struct{ rest string }

// challenge reads auth-scheme [ 1*SP ( token68 / #auth-param ) ] and the comma after it (RFC 9110, section 11.3).
func (s *challengeScanner) challenge() (Challenge, error) {
	c := Challenge{Scheme: s.take(tokenChar), Params: map[string]string{}}
	if c.Scheme == "" {
		return c, fmt.Errorf("no scheme at %q", s.rest)
	}
	params := strings.TrimLeft(s.rest, " ")
	if params == s.rest || strings.HasPrefix(strings.TrimLeft(params, "\t "), ",") { // a scheme alone
		_, err := s.comma()
		return c, err
	}
	s.rest = params
	if c.Token68 = s.token68(); c.Token68 != "" {
		_, err := s.comma()
		return c, err
	}
	for {
		if err := s.param(&c); err != nil {
			return c, err
		}
		more, err := s.comma()
		if err != nil || !more || !s.atParam() {
			return c, err
		}
	}
}

// param reads one auth-param (RFC 9110, section 11.2).
func (s *challengeScanner) param(c *Challenge) error {
	name := strings.ToLower(s.take(tokenChar))
	rest, found := strings.CutPrefix(s.rest, "=")
	if name == "" || !found {
		return fmt.Errorf("no parameter at %q", name+s.rest)
	}
	if _, twice := c.Params[name]; twice {
		return fmt.Errorf("%s: twice in one challenge", name)
	}
	s.rest = rest
	value, quoted, err := s.value()
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if name == "realm" && !quoted { // RFC 9110, section 11.5
		return errors.New("realm: not a quoted-string")
	}
	c.Params[name] = value
	return nil
}

// value reads a token or a quoted-string (RFC 9110, section 5.6.4).
func (s *challengeScanner) value() (v string, quoted bool, err error) {
	if !strings.HasPrefix(s.rest, `"`) {
		if v = s.take(tokenChar); v == "" {
			return "", false, fmt.Errorf("no value at %q", s.rest)
		}
		return v, false, nil
	}
	var b strings.Builder
	for i := 1; i < len(s.rest); i++ {
		ch := s.rest[i]
		switch {
		case ch == '"':
			s.rest = s.rest[i+1:]
			return b.String(), true, nil
		case ch == '\\' && i+1 < len(s.rest):
			i++
			ch = s.rest[i]
		}
		if ch < ' ' && ch != '\t' || ch == 0x7f {
			return "", true, fmt.Errorf("the character %q", ch)
		}
		b.WriteByte(ch)
	}
	return "", true, errors.New("a quote that does not end")
}

// comma reads OWS "," OWS, and reports whether there was a comma. Without one, the text must have ended.
func (s *challengeScanner) comma() (bool, error) {
	rest, found := strings.CutPrefix(strings.TrimLeft(s.rest, " \t"), ",")
	if !found && s.rest != "" {
		return false, fmt.Errorf("no comma at %q", s.rest)
	}
	if !found {
		return false, nil
	}
	s.rest = strings.TrimLeft(rest, " \t")
	if s.rest == "" || s.rest[0] == ',' {
		return true, errors.New("an empty list element")
	}
	return true, nil
}

// token68 reads 1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"=" (RFC 9110, section 11.2), unless the text is a
// parameter.
func (s *challengeScanner) token68() string {
	ahead := challengeScanner{s.rest}
	v := ahead.take(func(b byte) bool { return alphanumeric(b) || strings.IndexByte("-._~+/", b) >= 0 })
	if v == "" {
		return ""
	}
	v += ahead.take(func(b byte) bool { return b == '=' })
	if end := strings.TrimLeft(ahead.rest, " \t"); end != "" && end[0] != ',' {
		return ""
	}
	s.rest = ahead.rest
	return v
}

// atParam reports whether the text continues with a parameter of this challenge and not with the scheme of the next one.
func (s *challengeScanner) atParam() bool {
	ahead := challengeScanner{s.rest}
	ahead.take(tokenChar)
	return strings.HasPrefix(ahead.rest, "=")
}

func (s *challengeScanner) take(in func(byte) bool) string {
	n := 0
	for n < len(s.rest) && in(s.rest[n]) {
		n++
	}
	taken := s.rest[:n]
	s.rest = s.rest[n:]
	return taken
}

// tokenChar is tchar of RFC 9110, section 5.6.2.
func tokenChar(b byte) bool { return alphanumeric(b) || strings.IndexByte("!#$%&'*+-.^_`|~", b) >= 0 }

func alphanumeric(b byte) bool {
	return 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' || '0' <= b && b <= '9'
}
