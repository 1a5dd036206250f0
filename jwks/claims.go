package jwks

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

// claims are those that are looked at, not yet read; nil: the token has none of that name.
type claims struct {
	payload []byte

	iss, sub, aud, exp, nbf, iat, jti strictjson.Value // RFC 7519, section 4.1
	clientID, scope                   strictjson.Value // RFC 8693, sections 4.2 and 4.3
	cnf                               strictjson.Value // RFC 7800, section 3.1
	scp, azp, cid, appid              strictjson.Value // see Profile

	misspelt  string // a name above in another letter case, which a handler's encoding/json would take for it
	otherKind string // a claim that an access token does not have
}

// The claims of RFCs, which have one spelling.
var registered = []string{"iss", "sub", "aud", "exp", "nbf", "iat", "jti", "client_id", "scope", "scp", "cnf"}

var otherKinds = []string{"id", "refresh", "offline", "logout"}

func readClaims(payload []byte) (*claims, error) {
	c := &claims{payload: payload}
	err := strictjson.Object(payload, func(name string, v strictjson.Value) error {
		switch name {
		case "iss":
			c.iss = v
		case "sub":
			c.sub = v
		case "aud":
			c.aud = v
		case "exp":
			c.exp = v
		case "nbf":
			c.nbf = v
		case "iat":
			c.iat = v
		case "jti":
			c.jti = v
		case "client_id":
			c.clientID = v
		case "scope":
			c.scope = v
		case "cnf":
			c.cnf = v
		case "scp":
			c.scp = v
		case "azp":
			c.azp = v
		case "cid":
			c.cid = v
		case "appid":
			c.appid = v
		case "nonce", "at_hash", "c_hash", "s_hash": // OpenID Connect Core 1.0, sections 2 and 3.3.2.11: ID tokens
			c.otherKind = name
		case "events": // RFC 8417, section 2.2: security events and logout tokens
			c.otherKind = name
		case "typ", "token_use": // the kind as Keycloak and Cognito say it
			if kind, _ := v.Text(); slices.Contains(otherKinds, strings.ToLower(kind)) {
				c.otherKind = name
			}
		default:
			if slices.ContainsFunc(registered, func(r string) bool { return strings.EqualFold(r, name) }) {
				c.misspelt = name
			}
		}
		return nil
	})
	return c, err
}

// token reads the claims into a Token. The issuer is known to be right.
func (v *Verifier) token(in *claims) (*valetkey.Token, error) {
	t := &valetkey.Token{Issuer: v.issuer}
	clientID := in.clientID
	if v.profile.NoClientID {
		clientID = first(in.clientID, in.azp, in.cid, in.appid)
	}
	var errs [8]error
	errs[0] = text(&t.Subject, "sub", in.sub, v.profile.NoSubject)
	errs[1] = text(&t.ClientID, "client_id", clientID, v.profile.NoClientID)
	errs[2] = text(&t.ID, "jti", in.jti, v.profile.NoID)
	errs[3] = numericDate(&t.Expiry, "exp", in.exp, false)
	errs[4] = numericDate(&t.IssuedAt, "iat", in.iat, v.profile.NoIssuedAt)
	errs[5] = numericDate(&t.NotBefore, "nbf", in.nbf, true)
	t.Audience, errs[6] = audience(in.aud)
	t.Binding, errs[7] = binding(in.cnf)
	for _, err := range errs {
		if err != nil {
			return nil, refuse("a claim of the token is missing or malformed", err)
		}
	}
	scopes, err := v.scopesOf(in)
	if err != nil {
		return nil, refuse("a claim of the token is missing or malformed", err)
	}
	t.Scopes = scopes
	return t, nil
}

func first(values ...strictjson.Value) strictjson.Value {
	for _, v := range values {
		if v != nil {
			return v
		}
	}
	return nil
}

// text reads a string claim, which is not empty unless it is optional.
func text(dst *string, name string, v strictjson.Value, optional bool) error {
	if v == nil && optional {
		return nil
	}
	s, ok := v.Text()
	switch {
	case v == nil || ok && s == "" && !optional:
		return fmt.Errorf("%s is missing", name)
	case !ok:
		return fmt.Errorf("%s is not a string", name)
	}
	*dst = s
	return nil
}

// maxDate is the last second that time.Time can marshal: 9999-12-31T23:59:59Z.
const maxDate = 253402300799

// numericDate reads a NumericDate (RFC 7519, section 2), which may have a fraction. A date before 1970 is taken for 1970,
// one after 9999 for 9999: neither overflows, and neither is taken for none.
func numericDate(dst *time.Time, name string, v strictjson.Value, optional bool) error {
	if v == nil && optional {
		return nil
	}
	n, ok := v.Number()
	switch {
	case v == nil:
		return fmt.Errorf("%s is missing", name)
	case !ok:
		return fmt.Errorf("%s is not a number", name)
	}
	whole, fraction := math.Modf(min(max(n, 0), maxDate))
	*dst = time.Unix(int64(whole), int64(fraction*1e9))
	return nil
}

// audience reads aud (RFC 7519, section 4.1.3): a string or an array of strings.
func audience(v strictjson.Value) ([]string, error) {
	if one, ok := v.Text(); ok {
		return []string{one}, nil
	}
	list, ok := v.Strings()
	if !ok {
		return nil, errors.New("aud is missing or not a string or an array of strings")
	}
	return list, nil
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
