package introspect

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/strictjson"
	"github.com/valetkey/valetkey/internal/tokenclaims"
)

// said is a response of the endpoint, still undecoded.
type said struct {
	body    []byte             // as received
	object  []byte             // of RFC 7662, section 2.2; same as body unless the response is signed
	at      time.Time          // when the request was sent
	vouched valetkey.Condition // holds while the signing key is valid; nil: the response is not signed
}

// members holds the members of a response that are used; nil: the response does not have the member. RFC 7662, section 2.2.
type members struct {
	active, scope, clientID, tokenType     strictjson.Value
	exp, iat, nbf, sub, aud, iss, jti, cnf strictjson.Value
	sid                                    strictjson.Value // OpenID Connect Front-Channel Logout 1.0, section 3
	act                                    strictjson.Value // RFC 8693, section 4.1
	acr, authTime                          strictjson.Value // RFC 9470, section 6.2

	misspelt  string // one of the names above in another letter case, which a handler's encoding/json would accept for it
	otherKind string // a member showing that the token is not an access token
}

var registered = []string{"active", "scope", "client_id", "token_type", "exp", "iat", "nbf", "sub", "aud", "iss", "jti", "cnf"}

// reads lists the members that become fields of a token. None may occur in two letter cases.
var reads = append(slices.Clip(registered), "sid", "act", "acr", "auth_time")

func readMembers(object []byte) (*members, error) {
	m := new(members)
	err := strictjson.Object(object, func(name string, v strictjson.Value) error {
		if v.IsEmpty() { // as if it were not there
			return nil
		}
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
		case "sid":
			m.sid = v
		case "act":
			m.act = v
		case "acr":
			m.acr = v
		case "auth_time":
			m.authTime = v
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
	}, reads...)
	return m, err
}

// read returns the Token that a response describes. The error is a [*valetkey.Error] if the token is not active or not
// acceptable here. Any other error is a failure: the endpoint must not send such a response.
func (v *Verifier) read(answer *said) (*valetkey.Token, error) {
	m, err := readMembers(answer.object)
	if err != nil {
		return nil, fmt.Errorf("the answer: %w", err)
	}
	active, ok := m.active.Bool()
	switch {
	case !ok: // RFC 7662, section 2.2: required, and a boolean
		return nil, errors.New("the answer has no active that is true or false")
	case !active: // regardless of the other members
		return nil, refuse(valetkey.ReasonInactive, nil)
	case m.misspelt != "":
		return nil, fmt.Errorf("the answer: %s is spelled in another letter case", m.misspelt)
	}
	t, err := v.fields(m)
	if err != nil {
		return nil, fmt.Errorf("the answer: %w", err)
	}
	if err := v.check(t, m); err != nil {
		return nil, err
	}
	t.Raw = strictjson.View(answer.object)
	if v.cfg.CacheTTL > 0 {
		t.Freshness = valetkey.Freshness{Until: answer.at.Add(v.cfg.CacheTTL), While: answer.vouched}
		if !t.Deadline.IsZero() && t.Deadline.Before(t.Freshness.Until) {
			t.Freshness.Until = t.Deadline // RFC 7662, section 4
		}
	}
	return valetkey.NewToken(*t), nil
}

// fields decodes the members. All are optional, but those that are present must be well-formed.
func (v *Verifier) fields(m *members) (*valetkey.TokenFields, error) {
	t := &valetkey.TokenFields{Issuer: v.cfg.Issuer}
	var errs [11]error
	errs[0] = tokenclaims.Text(&t.Subject, "sub", m.sub, true)
	errs[1] = tokenclaims.Text(&t.ClientID, "client_id", m.clientID, true)
	errs[2] = tokenclaims.Text(&t.ID, "jti", m.jti, true)
	errs[3] = tokenclaims.Date(&t.Expiry, "exp", unquoted(m.exp), true)
	errs[4] = tokenclaims.Date(&t.IssuedAt, "iat", unquoted(m.iat), true)
	errs[5] = tokenclaims.Date(&t.NotBefore, "nbf", unquoted(m.nbf), true)
	t.Audience, errs[6] = tokenclaims.Audience(m.aud, true)
	t.Binding, errs[7] = tokenclaims.Binding(m.cnf)
	errs[9] = tokenclaims.Text(&t.SessionID, "sid", m.sid, true)
	t.Actor, errs[10] = tokenclaims.Actor(m.act)
	t.ACR, t.AuthTime = tokenclaims.Login(m.acr, m.authTime)
	scopes, err := tokenclaims.AppendScopes(nil, m.scope, v.cfg.AllowScopeArray) // RFC 7662, section 2.2: a string
	if err != nil {
		errs[8] = fmt.Errorf("scope %w", err)
	}
	t.Scopes = valetkey.NewScopes(scopes...)
	if !t.Expiry.IsZero() {
		t.Deadline = t.Expiry.Add(v.cfg.Leeway)
	}
	return t, errors.Join(errs[:]...)
}

// unquoted returns the number in a string, as some endpoints write dates, and any other value as it is.
func unquoted(v strictjson.Value) strictjson.Value {
	s, _ := v.Text()
	if _, isNumber := strictjson.Value(s).Number(); isNumber {
		return strictjson.Value(s)
	}
	return v
}

// acceptable reports whether a token of this type can be used as an access token. The member is optional (RFC 7662, section 2.2), and
// some endpoints write another name than that of a type, such as access_token; that matters only for a bound token, whose type
// decides how it is proven.
func acceptable(kind string, bound valetkey.Binding) bool {
	kind = strings.ToLower(kind)
	switch {
	case kind == "bearer" || kind == "dpop":
		return true
	case strings.Contains(kind, "refresh"), strings.HasSuffix(kind, "id_token"), kind == "id":
		return false // another kind of token
	case kind == "mac" || kind == "pop":
		return false // its sender would have to prove something that is not checked here
	}
	return bound.IsZero()
}

// check decides whether an active token is acceptable here and now.
func (v *Verifier) check(t *valetkey.TokenFields, m *members) error {
	now := v.cfg.Now()
	far := errors.Join(tokenclaims.FarFrom(now, "exp", t.Expiry), tokenclaims.FarFrom(now, "iat", t.IssuedAt), tokenclaims.FarFrom(now, "nbf", t.NotBefore))
	iss, _ := m.iss.Text()
	kind, _ := m.tokenType.Text()
	switch {
	case v.cfg.Issuer != "" && m.iss != nil && iss != v.cfg.Issuer: // byte by byte, without normalization
		return refuse(valetkey.ReasonIssuer, tokenclaims.Mismatch("issuer", "response", []string{iss}, func() []string { return []string{v.cfg.Issuer} }))
	case m.aud == nil && !v.cfg.AudienceByIssuer: // RFC 9700, section 2.3
		return refuse(valetkey.ReasonNoAudience, errors.New("the response has no aud, and AudienceByIssuer is off"))
	case m.aud != nil && !tokenclaims.IsFor(t.Audience, v.cfg.Audience, v.cfg.SoleAudience):
		return refuse(valetkey.ReasonAudience, tokenclaims.Mismatch("audience", "response", t.Audience.Slice(), func() []string { return v.cfg.Audience }))
	case m.otherKind != "":
		return refuse(valetkey.ReasonNotAccessToken, fmt.Errorf("by its %s", m.otherKind))
	case m.tokenType != nil && !acceptable(kind, t.Binding): // RFC 6749, section 7.1
		return refuse(valetkey.ReasonUnknownTokenType, fmt.Errorf("token_type %.50q", kind))
	case strings.EqualFold(kind, "DPoP") && t.Binding.JWKThumbprint == "": // RFC 9449, section 6.2
		return refuse(valetkey.ReasonBindingMissing, nil)
	case m.tokenType != nil && !strings.EqualFold(kind, "DPoP") && t.Binding.JWKThumbprint != "":
		return refuse(valetkey.ReasonBindingType, fmt.Errorf("token_type %.50q", kind))
	case far != nil:
		return refuse(valetkey.ReasonFarDate, far)
	case !t.Deadline.IsZero() && !now.Before(t.Deadline):
		return refuse(valetkey.ReasonExpired, fmt.Errorf("at %v", t.Expiry))
	case now.Before(t.NotBefore.Add(-v.cfg.Leeway)):
		return refuse(valetkey.ReasonNotYetValid, fmt.Errorf("before %v", t.NotBefore))
	case now.Before(t.IssuedAt.Add(-v.cfg.Leeway)):
		return refuse(valetkey.ReasonNotYetValid, fmt.Errorf("issued at %v", t.IssuedAt))
	}
	return nil
}
