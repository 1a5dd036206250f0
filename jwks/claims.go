package jwks

import (
	"slices"
	"strings"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/strictjson"
	"github.com/valetkey/valetkey/internal/tokenclaims"
)

// unread holds the claims that the verifier uses, still undecoded. A nil Value means that the token does not have the claim.
type unread struct {
	payload []byte

	iss, sub, aud, exp, nbf, iat, jti strictjson.Value // RFC 7519, section 4.1
	sid                               strictjson.Value // OpenID Connect Front-Channel Logout 1.0, section 3
	clientID, scope                   strictjson.Value // RFC 8693, sections 4.2 and 4.3
	cnf                               strictjson.Value // RFC 7800, section 3.1
	act                               strictjson.Value // RFC 8693, section 4.1
	acr, authTime                     strictjson.Value // RFC 9068, section 2.2.1
	scp, azp, cid, appid              strictjson.Value // see Profile

	misspelt  string // one of the names above in another letter case, which a handler's encoding/json would accept for it
	otherKind string // a claim that does not occur in access tokens
}

// registered lists claims whose spelling is fixed by an RFC.
var registered = []string{"iss", "sub", "aud", "exp", "nbf", "iat", "jti", "client_id", "scope", "scp", "cnf"}

var otherKinds = []string{"id", "refresh", "offline", "logout"}

func readClaims(payload []byte) (*unread, error) {
	c := &unread{payload: payload}
	err := strictjson.Object(payload, func(name string, v strictjson.Value) error {
		if v.IsEmpty() { // as if it were not there
			return nil
		}
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
		case "sid":
			c.sid = v
		case "client_id":
			c.clientID = v
		case "scope":
			c.scope = v
		case "cnf":
			c.cnf = v
		case "act":
			c.act = v
		case "acr":
			c.acr = v
		case "auth_time":
			c.authTime = v
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
		case "typ", "token_use": // the kind of token in Keycloak and Cognito
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

// fields decodes the claims. The issuer has already been checked.
func (v *Verifier) fields(in *unread) (*valetkey.TokenFields, error) {
	t := &valetkey.TokenFields{Issuer: v.issuer}
	clientID := in.clientID
	if v.profile.AllowMissingClientID {
		clientID = first(in.clientID, in.azp, in.cid, in.appid)
	}
	var errs [10]error
	errs[0] = tokenclaims.Text(&t.Subject, "sub", in.sub, v.profile.AllowMissingSubject)
	errs[1] = tokenclaims.Text(&t.ClientID, "client_id", clientID, v.profile.AllowMissingClientID)
	errs[2] = tokenclaims.Text(&t.ID, "jti", in.jti, v.profile.AllowMissingID)
	errs[3] = tokenclaims.Date(&t.Expiry, "exp", in.exp, false)
	errs[4] = tokenclaims.Date(&t.IssuedAt, "iat", in.iat, v.profile.AllowMissingIssuedAt)
	errs[5] = tokenclaims.Date(&t.NotBefore, "nbf", in.nbf, true)
	t.Audience, errs[6] = tokenclaims.Audience(in.aud, false)
	t.Binding, errs[7] = tokenclaims.Binding(in.cnf)
	errs[8] = tokenclaims.Text(&t.SessionID, "sid", in.sid, true)
	t.Actor, errs[9] = tokenclaims.Actor(in.act)
	t.ACR, t.AuthTime = tokenclaims.Login(in.acr, in.authTime)
	for _, err := range errs {
		if err != nil {
			return nil, refuse(valetkey.ReasonClaimMalformed, err)
		}
	}
	scopes, err := v.scopesOf(in)
	if err != nil {
		return nil, refuse(valetkey.ReasonClaimMalformed, err)
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
