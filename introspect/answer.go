package introspect

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/strictjson"
)

// said is what the endpoint answered, not yet read.
type said struct {
	object  []byte             // of RFC 7662, section 2.2
	at      time.Time          // when it was asked
	vouched valetkey.Condition // that the key which signed it still stands; nil: it is not signed
}

// members are those of an answer that are looked at; nil: there is none of that name. RFC 7662, section 2.2.
type members struct {
	active, scope, clientID, tokenType     strictjson.Value
	exp, iat, nbf, sub, aud, iss, jti, cnf strictjson.Value

	misspelt  string // a name above in another letter case, which a handler's encoding/json would take for it
	otherKind string // a member that says the token is no access token
}

var registered = []string{"active", "scope", "client_id", "token_type", "exp", "iat", "nbf", "sub", "aud", "iss", "jti", "cnf"}

func readMembers(object []byte) (*members, error) {
	m := new(members)
	err := strictjson.Object(object, func(name string, v strictjson.Value) error {
		switch name {
		case "active":
			m.active = v
		case "scope":
			m.scope = v
		case "client_id":
			m.clientID = v
		case "token_type":
			m.tokenType = v
		case "exp":
			m.exp = v
		case "iat":
			m.iat = v
		case "nbf":
			m.nbf = v
		case "sub":
			m.sub = v
		case "aud":
			m.aud = v
		case "iss":
			m.iss = v
		case "jti":
			m.jti = v
		case "cnf": // RFC 8705, section 3.2; RFC 9449, section 6.2
			m.cnf = v
		case "token_use": // Ory Hydra: "refresh_token"; Cognito: "id"
			if use, _ := v.Text(); use != "access_token" && use != "access" {
				m.otherKind = name
			}
		case "typ": // Keycloak: "Refresh", "ID"
			if kind, _ := v.Text(); !strings.EqualFold(kind, "Bearer") && !strings.EqualFold(kind, "DPoP") {
				m.otherKind = name
			}
		default:
			if slices.ContainsFunc(registered, func(r string) bool { return strings.EqualFold(r, name) }) {
				m.misspelt = name
			}
		}
		return nil
	})
	return m, err
}

// read makes a Token of an answer. The error is an [*valetkey.Error] if the answer says no or is not for us, and a failure
// if it is not one that an endpoint may give.
func (v *Verifier) read(answer *said) (*valetkey.Token, error) {
	m, err := readMembers(answer.object)
	if err != nil {
		return nil, fmt.Errorf("the answer: %w", err)
	}
	active, ok := m.active.Bool()
	switch {
	case !ok: // RFC 7662, section 2.2: required, and a boolean
		return nil, errors.New("the answer has no active that is true or false")
	case !active: // whatever else it says
		return nil, refuse("the token is not active", nil)
	case m.misspelt != "":
		return nil, fmt.Errorf("the answer: %s is spelt in another letter case", m.misspelt)
	}
	t, err := v.token(m)
	if err != nil {
		return nil, fmt.Errorf("the answer: %w", err)
	}
	if err := v.check(t, m); err != nil {
		return nil, err
	}
	t.Raw = answer.object
	if v.cfg.CacheFor > 0 {
		t.Reuse = valetkey.Reuse{Until: answer.at.Add(v.cfg.CacheFor), While: answer.vouched}
		if end := t.Expiry.Add(v.cfg.Leeway); !t.Expiry.IsZero() && end.Before(t.Reuse.Until) {
			t.Reuse.Until = end // RFC 7662, section 4
		}
	}
	return t, nil
}

// token reads the members, all of which are optional but must be what they should be.
func (v *Verifier) token(m *members) (*valetkey.Token, error) {
	t := &valetkey.Token{Issuer: v.cfg.Issuer}
	var errs [9]error
	errs[0] = text(&t.Subject, "sub", m.sub)
	errs[1] = text(&t.ClientID, "client_id", m.clientID)
	errs[2] = text(&t.ID, "jti", m.jti)
	errs[3] = numericDate(&t.Expiry, "exp", m.exp)
	errs[4] = numericDate(&t.IssuedAt, "iat", m.iat)
	errs[5] = numericDate(&t.NotBefore, "nbf", m.nbf)
	t.Audience, errs[6] = audience(m.aud)
	t.Binding, errs[7] = binding(m.cnf)
	t.Scopes, errs[8] = scopes(m.scope, v.cfg.ScopeArray)
	return t, errors.Join(errs[:]...)
}

// check decides whether an active token is good here and now.
func (v *Verifier) check(t *valetkey.Token, m *members) error {
	now := v.cfg.Now()
	iss, _ := m.iss.Text()
	kind, _ := m.tokenType.Text()
	switch {
	case v.cfg.Issuer != "" && m.iss != nil && iss != v.cfg.Issuer: // byte by byte, no normalisation
		return refuse("the token is of another issuer", fmt.Errorf("iss %.200q", iss))
	case m.aud == nil && !v.cfg.AudienceByIssuer: // RFC 9700, section 2.3
		return refuse("the token names no audience", nil)
	case m.aud != nil && !slices.ContainsFunc(t.Audience, func(a string) bool { return slices.Contains(v.cfg.Audience, a) }):
		return refuse("the token is for another audience", fmt.Errorf("aud %.200q", t.Audience))
	case m.otherKind != "":
		return refuse("the token is not an access token", fmt.Errorf("by its %s", m.otherKind))
	case m.tokenType != nil && !strings.EqualFold(kind, "Bearer") && !strings.EqualFold(kind, "DPoP"): // RFC 6749, section 7.1
		return refuse("the token is of a type that is not known here", fmt.Errorf("token_type %.50q", kind))
	case strings.EqualFold(kind, "DPoP") && t.Binding.JWKThumbprint == "": // RFC 9449, section 6.2
		return refuse("the token should be bound to a key and names none", nil)
	case !t.Expiry.IsZero() && !now.Before(t.Expiry.Add(v.cfg.Leeway)):
		return refuse("the token has expired", fmt.Errorf("at %v", t.Expiry))
	case now.Before(t.NotBefore.Add(-v.cfg.Leeway)):
		return refuse("the token is not yet valid", fmt.Errorf("before %v", t.NotBefore))
	case now.Before(t.IssuedAt.Add(-v.cfg.Leeway)):
		return refuse("the token is not yet valid", fmt.Errorf("issued at %v", t.IssuedAt))
	}
	return nil
}

// text reads a string.
func text(dst *string, name string, v strictjson.Value) error {
	s, ok := v.Text()
	if v != nil && !ok {
		return fmt.Errorf("%s is not a string", name)
	}
	*dst = s
	return nil
}

// maxDate is the last second that time.Time can marshal: 9999-12-31T23:59:59Z.
const maxDate = 253402300799

// numericDate reads a NumericDate (RFC 7519, section 2), which may have a fraction. A date before 1970 is taken for 1970,
// one after 9999 for 9999: neither overflows, and neither is taken for none.
func numericDate(dst *time.Time, name string, v strictjson.Value) error {
	if v == nil {
		return nil
	}
	n, ok := v.Number()
	if !ok {
		return fmt.Errorf("%s is not a number", name)
	}
	whole, fraction := math.Modf(min(max(n, 0), maxDate))
	*dst = time.Unix(int64(whole), int64(fraction*1e9))
	return nil
}

// audience reads aud: a string or an array of strings.
func audience(v strictjson.Value) ([]string, error) {
	if v == nil {
		return nil, nil
	}
	if one, ok := v.Text(); ok {
		return []string{one}, nil
	}
	list, ok := v.Strings()
	if !ok {
		return nil, errors.New("aud is not a string or an array of strings")
	}
	return list, nil
}

// scopes reads scope: a string of scopes separated by spaces (RFC 7662, section 2.2), or an array where that is allowed.
// What is empty or has a space or control character in it is no scope and is left out.
func scopes(v strictjson.Value, arrays bool) (valetkey.Scopes, error) {
	if v == nil {
		return nil, nil
	}
	var list []string
	if s, ok := v.Text(); ok {
		list = strings.Split(s, " ")
	} else if list, ok = v.Strings(); !ok || !arrays {
		return nil, fmt.Errorf("scope is not a string (arrays allowed: %t)", arrays)
	}
	return valetkey.NewScopes(slices.DeleteFunc(list, func(s string) bool {
		return strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c == 0x7f })
	})...), nil
}

// binding reads cnf (RFC 7800, section 3). A method that is not known here is noted, so that nobody takes the token for a
// bearer token.
func binding(v strictjson.Value) (b valetkey.Binding, err error) {
	if v == nil {
		return b, nil
	}
	if !v.IsObject() {
		return b, errors.New("cnf is not an object")
	}
	err = strictjson.Object(v, func(name string, v strictjson.Value) error {
		s, _ := v.Text()
		switch name {
		case "jkt": // RFC 9449, section 6.1
			b.JWKThumbprint = s
		case "x5t#S256": // RFC 8705, section 3.1
			b.CertificateThumbprint = s
		default:
			b.Unknown = append(b.Unknown, name)
			return nil
		}
		if !thumbprint(s) {
			return fmt.Errorf("cnf: %s is not a SHA-256 thumbprint", name)
		}
		return nil
	})
	if err == nil && b.IsZero() {
		err = errors.New("cnf is empty")
	}
	return b, err
}

// thumbprint reports whether s is 32 bytes in canonical base64url: 43 characters, the last of which has two spare bits.
func thumbprint(s string) bool {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	return len(s) == 43 && strings.Trim(s, alphabet) == "" && strings.IndexByte(alphabet, s[42])%4 == 0
}
