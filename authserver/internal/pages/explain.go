package pages

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"
	"time"
)

// A member is a member of a token's header or claims, with an explanation.
type member struct {
	Name, Value message
	Meaning     *message // nil: unknown
	Section     message
}

type explained struct {
	header, claims []member
	bound          *message // what the token is bound to
}

// explain decodes a JWT for display. It verifies nothing. It returns false for an opaque token.
func explain(token string, now time.Time) (explained, bool) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return explained{}, false
	}
	var e explained
	var ok bool
	if e.header, ok = members(parts[0], "header.", headerSections, now); !ok {
		return explained{}, false
	}
	if e.claims, ok = members(parts[1], "claim.", claimSections, now); !ok {
		return explained{}, false
	}
	bound := msg("bound.none")
	for _, c := range e.claims {
		switch {
		case c.Name.raw != "cnf":
		case strings.Contains(c.Value.raw, `"jkt"`):
			bound = msg("bound.key")
		case strings.Contains(c.Value.raw, `"x5t#S256"`):
			bound = msg("bound.certificate")
		default:
			bound = msg("bound.other")
		}
	}
	e.bound = &bound
	return e, true
}

// members parses a JSON object in base64url, in the order of its members. The messages about them begin with the prefix.
func members(part, prefix string, sections map[string]string, now time.Time) ([]member, bool) {
	text, err := base64.RawURLEncoding.DecodeString(part)
	if err != nil {
		return nil, false
	}
	d := json.NewDecoder(bytes.NewReader(text))
	if open, err := d.Token(); err != nil || open != json.Delim('{') {
		return nil, false
	}
	var list []member
	for d.More() {
		token, err := d.Token()
		if err != nil {
			return nil, false
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, false
		}
		name := token.(string)
		m := member{Name: verbatim(name), Value: show(name, value, now)}
		if section, known := sections[name]; known {
			meaning := msg(prefix + name)
			m.Meaning, m.Section = &meaning, verbatim(section)
			if section == "" {
				m.Section = msg("token.no_standard")
			}
		}
		list = append(list, m)
	}
	return list, true
}

// show formats the value of a member for display: a string without quotes, a NumericDate (RFC 7519, section 2) as a time.
func show(name string, value json.RawMessage, now time.Time) message {
	var text string
	var seconds int64
	switch {
	case json.Unmarshal(value, &text) == nil:
		return verbatim(text)
	case slices.Contains(numericDates, name) && json.Unmarshal(value, &seconds) == nil:
		t := time.Unix(seconds, 0)
		if left := t.Sub(now); left > 0 {
			return msg("token.in", "seconds", seconds, "moment", instant(t), "left", roundUp(left))
		}
		return msg("token.at", "seconds", seconds, "moment", instant(t))
	default:
		return verbatim(string(value))
	}
}

var numericDates = []string{"exp", "nbf", "iat", "auth_time"}

// headerSections and claimSections are the sections that define members; empty: none does. The messages header.NAME and claim.NAME
// explain them.
var headerSections = map[string]string{
	"alg":      "RFC 7515, 4.1.1",
	"kid":      "RFC 7515, 4.1.4",
	"typ":      "RFC 9068, 2.1",
	"jku":      "RFC 7515, 4.1.2",
	"x5t#S256": "RFC 7515, 4.1.8",
}

var claimSections = map[string]string{
	"iss":         "RFC 7519, 4.1.1",
	"sub":         "RFC 7519, 4.1.2",
	"aud":         "RFC 7519, 4.1.3",
	"exp":         "RFC 7519, 4.1.4",
	"nbf":         "RFC 7519, 4.1.5",
	"iat":         "RFC 7519, 4.1.6",
	"sid":         "OpenID Connect Back-Channel Logout 1.0, 2.1",
	"jti":         "RFC 7519, 4.1.7",
	"client_id":   "RFC 8693, 4.3",
	"scope":       "RFC 8693, 4.2",
	"auth_time":   "RFC 9068, 2.2.1",
	"acr":         "RFC 9068, 2.2.1",
	"amr":         "RFC 9068, 2.2.1",
	"cnf":         "RFC 7800, 3.1",
	"act":         "RFC 8693, 4.1",
	"may_act":     "RFC 8693, 4.4",
	"roles":       "RFC 9068, 2.2.3.1",
	"groups":      "RFC 9068, 2.2.3.1",
	"grant_id":    "",
	"permissions": "",
	"username":    "RFC 7662, 2.2",
	"user_id":     "",
	"user_type":   "",
}
