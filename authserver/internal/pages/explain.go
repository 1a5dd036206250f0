package pages

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// A member is a member of a token's header or claims, with an explanation.
type member struct{ Name, Value, Meaning, Section string }

type explained struct {
	header, claims []member
	bound          string // what the token is bound to
}

// explain decodes a JWT for display. It verifies nothing. It returns false for an opaque token.
func explain(token string, now time.Time) (explained, bool) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return explained{}, false
	}
	var e explained
	var ok bool
	if e.header, ok = members(parts[0], headerMeanings, now); !ok {
		return explained{}, false
	}
	if e.claims, ok = members(parts[1], claimMeanings, now); !ok {
		return explained{}, false
	}
	e.bound = "Nothing: anyone who obtains it can use it until it expires (RFC 6750)."
	for _, c := range e.claims {
		switch {
		case c.Name != "cnf":
		case strings.Contains(c.Value, `"jkt"`):
			e.bound = "A key: each request needs a proof signed with it (DPoP, RFC 9449)."
		case strings.Contains(c.Value, `"x5t#S256"`):
			e.bound = "A client certificate: requests need a TLS connection authenticated with it (RFC 8705)."
		default:
			e.bound = "A key identified by the claim cnf (RFC 7800)."
		}
	}
	return e, true
}

// members parses a JSON object in base64url, in the order of its members.
func members(part string, meanings map[string]meaning, now time.Time) ([]member, bool) {
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
		name, err := d.Token()
		if err != nil {
			return nil, false
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, false
		}
		m := meanings[name.(string)]
		list = append(list, member{name.(string), m.show(value, now), m.words, m.section})
	}
	return list, true
}

// A meaning is the explanation of a member, and the section that defines it.
type meaning struct {
	words, section string
	time           bool // the value is a NumericDate (RFC 7519, section 2)
}

// show formats a value for display: a string without quotes, a time as such.
func (m meaning) show(value json.RawMessage, now time.Time) string {
	var text string
	var seconds int64
	switch {
	case json.Unmarshal(value, &text) == nil:
		return text
	case m.time && json.Unmarshal(value, &seconds) == nil:
		t := time.Unix(seconds, 0)
		if left := t.Sub(now); left > 0 {
			return fmt.Sprintf("%d: %s, in %s", seconds, moment(t), span(roundUp(left)))
		}
		return fmt.Sprintf("%d: %s", seconds, moment(t))
	default:
		return string(value)
	}
}

var headerMeanings = map[string]meaning{
	"alg":      {words: "The signature algorithm. The API accepts only certain algorithms, regardless of this value.", section: "RFC 7515, 4.1.1"},
	"kid":      {words: "The key in the server's key set that signed it.", section: "RFC 7515, 4.1.4"},
	"typ":      {words: "The type: at+jwt is an access token, so no other JWT can be mistaken for one.", section: "RFC 9068, 2.1"},
	"jku":      {words: "A URL of keys. An API must not trust it.", section: "RFC 7515, 4.1.2"},
	"x5t#S256": {words: "The digest of a certificate for the key.", section: "RFC 7515, 4.1.8"},
}

var claimMeanings = map[string]meaning{
	"iss":         {words: "The issuer: this server.", section: "RFC 7519, 4.1.1"},
	"sub":         {words: "The subject: the user, or the application itself.", section: "RFC 7519, 4.1.2"},
	"aud":         {words: "The API that it is for. All others must refuse it.", section: "RFC 7519, 4.1.3"},
	"exp":         {words: "When it expires.", section: "RFC 7519, 4.1.4", time: true},
	"nbf":         {words: "When it becomes valid.", section: "RFC 7519, 4.1.5", time: true},
	"iat":         {words: "When it was issued.", section: "RFC 7519, 4.1.6", time: true},
	"sid":         {words: "The session of the user at the application: all tokens of it end together.", section: "OpenID Connect Back-Channel Logout 1.0, 2.1"},
	"jti":         {words: "Its unique identifier.", section: "RFC 7519, 4.1.7"},
	"client_id":   {words: "The application that it was issued to.", section: "RFC 8693, 4.3"},
	"scope":       {words: "What it allows.", section: "RFC 8693, 4.2"},
	"auth_time":   {words: "When the user logged in.", section: "RFC 9068, 2.2.1", time: true},
	"acr":         {words: "How strongly the user logged in.", section: "RFC 9068, 2.2.1"},
	"amr":         {words: "How the user logged in.", section: "RFC 9068, 2.2.1"},
	"cnf":         {words: "The key that it is bound to.", section: "RFC 7800, 3.1"},
	"act":         {words: "The party that acts for the subject.", section: "RFC 8693, 4.1"},
	"may_act":     {words: "The party that may act for the subject.", section: "RFC 8693, 4.4"},
	"roles":       {words: "The user's roles.", section: "RFC 9068, 2.2.3.1"},
	"groups":      {words: "The user's groups.", section: "RFC 9068, 2.2.3.1"},
	"grant_id":    {words: "The grant of the user: all tokens issued for it end with it.", section: "not standardized"},
	"permissions": {words: "What it allows, in the terms of this API.", section: "not standardized"},
	"username":    {words: "The name that the user logs in with.", section: "RFC 7662, 2.2"},
	"user_id":     {words: "The user, for APIs that expect the ID here.", section: "not standardized"},
	"user_type":   {words: "The type of the user.", section: "not standardized"},
}
