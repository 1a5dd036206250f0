package jwks

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/jose"
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

	headerAud, headerClient strictjson.Value // see Config.AudienceHeader and Config.ClientIDHeader

	misspelt  string // one of the names above in another letter case, which a handler's encoding/json would accept for it
	otherKind string // a claim that shows that this is another kind of token
	idToken   string // a claim that states that this is an ID token
	idMark    string // a claim that ID tokens have, and few access tokens
}

// registered lists claims whose spelling is fixed by an RFC.
var registered = []string{"iss", "sub", "aud", "exp", "nbf", "iat", "jti", "client_id", "scope", "scp", "cnf"}

// reads lists the claims that become fields of a token. None may occur in two letter cases.
var reads = append(slices.Clip(registered), "sid", "act", "acr", "auth_time", "azp", "cid", "appid")

// kind records a claim that names the kind of a token.
func (c *unread) kind(claim string, v strictjson.Value) {
	kind, _ := v.View()
	switch tokenclaims.KindOf(kind) {
	case tokenclaims.IDToken:
		c.idToken = claim
	case tokenclaims.RefreshToken, tokenclaims.LogoutToken:
		c.otherKind = claim
	}
}

func (c *unread) read(payload []byte) error {
	c.payload = payload
	return strictjson.Object(payload, func(name string, v strictjson.Value) error {
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
			c.idMark = name
		case "events": // RFC 8417, section 2.2: security events and logout tokens
			c.otherKind = name
		default:
			if slices.Contains(tokenclaims.KindClaims, name) {
				c.kind(name, v)
			} else if slices.ContainsFunc(registered, func(r string) bool { return strings.EqualFold(r, name) }) {
				c.misspelt = name
			}
		}
		return nil
	}, reads...)
}

// fields decodes the claims into t. The issuer has already been checked.
func (v *Verifier) fields(t *valetkey.TokenFields, in *unread, iss string) error {
	t.Issuer = iss
	var errs [10]error
	errs[0] = v.subject(t, in.sub)
	errs[1] = v.clientID(t, in)
	errs[2] = tokenclaims.Text(&t.ID, "jti", in.jti, v.profile.AllowMissingID)
	errs[3] = tokenclaims.Date(&t.Expiry, "exp", in.exp, false)
	errs[4] = tokenclaims.Date(&t.IssuedAt, "iat", in.iat, v.profile.AllowMissingIssuedAt)
	errs[5] = tokenclaims.Date(&t.NotBefore, "nbf", in.nbf, true)
	t.Audience, errs[6] = v.audienceOf(in)
	t.Binding, errs[7] = tokenclaims.Binding(in.cnf)
	errs[8] = tokenclaims.Text(&t.SessionID, "sid", in.sid, true)
	t.Actor, errs[9] = tokenclaims.Actor(in.act)
	t.ACR, t.AuthTime = tokenclaims.Login(in.acr, in.authTime)
	for i, err := range errs {
		if err != nil {
			if setting := v.missing(i, in); setting != "" {
				err = fmt.Errorf("%w, and %s", err, setting)
			}
			return refuse(valetkey.ReasonClaimMalformed, err)
		}
	}
	var err error
	t.Scopes, err = v.scopesOf(in)
	return err
}

// missing returns the setting that would accept the token, if the i-th error of fields is about a claim that is absent or a number.
func (v *Verifier) missing(i int, in *unread) string {
	switch {
	case i == 0 && in.sub == nil:
		return "Profile.AllowMissingSubject is off"
	case i == 0 && isInteger(in.sub):
		return "Profile.AllowNumericSubject is off"
	case i == 1 && in.clientID == nil && v.clientIDClaim == "" && v.clientIDHeader == "":
		return "Profile.AllowMissingClientID is off"
	case i == 2 && in.jti == nil:
		return "Profile.AllowMissingID is off"
	case i == 4 && in.iat == nil:
		return "Profile.AllowMissingIssuedAt is off"
	case i == 6 && in.aud == nil && v.audienceClaim == "" && v.audienceHeader == "":
		return "AudienceClaim is not set"
	}
	return ""
}

// readHeader reads the members of the header that the settings name.
func (v *Verifier) readHeader(c *jose.Compact, in *unread) (err error) {
	if v.audienceHeader != "" {
		in.headerAud, err = c.HeaderMember(v.audienceHeader)
	}
	if err == nil && v.clientIDHeader != "" {
		in.headerClient, err = c.HeaderMember(v.clientIDHeader)
	}
	if err != nil {
		return refuse(malformed, fmt.Errorf("header: %w", err))
	}
	return nil
}

// audienceOf returns the recipients of the token.
func (v *Verifier) audienceOf(in *unread) (valetkey.List[string], error) {
	if v.audienceHeader == "" {
		return tokenclaims.Audience(v.recipient(in), false)
	}
	var one string
	if err := tokenclaims.Text(&one, "the header parameter "+v.audienceHeader, in.headerAud, false); err != nil {
		return valetkey.List[string]{}, err
	}
	return valetkey.ListOf(one), nil
}

// recipient returns the value of aud, or of the claim that the issuer names the resource server in.
func (v *Verifier) recipient(in *unread) strictjson.Value {
	if in.aud != nil || v.audienceClaim == "" {
		return in.aud
	}
	if other := in.at(v.audienceClaim); !other.IsEmpty() {
		return other
	}
	return nil
}

func (v *Verifier) subject(t *valetkey.TokenFields, sub strictjson.Value) error {
	if v.profile.AllowNumericSubject && isInteger(sub) {
		t.Subject = string(sub)
		return nil
	}
	return tokenclaims.Text(&t.Subject, "sub", sub, v.profile.AllowMissingSubject)
}

// isInteger reports whether v is an integer as its issuer would print it: digits with an optional sign. Fractions and exponents
// are refused, since they would give one user several names.
func isInteger(v strictjson.Value) bool {
	digits := bytes.TrimPrefix(v, []byte("-"))
	return len(digits) > 0 && len(bytes.Trim(digits, "0123456789")) == 0
}

// clientID reads the client from the claims that the settings permit.
func (v *Verifier) clientID(t *valetkey.TokenFields, in *unread) error {
	name, value := "client_id", in.clientID
	switch {
	case v.clientIDHeader != "":
		name, value = "the header parameter "+v.clientIDHeader, in.headerClient
	case v.clientIDClaim != "":
		name = v.clientIDClaim
		if value = in.at(name); value.IsEmpty() {
			value = nil
		}
	case v.profile.AllowMissingClientID, v.profile.AllowIDTokens:
		value = first(in.clientID, in.azp, in.cid, in.appid)
	}
	return tokenclaims.Text(&t.ClientID, name, value, v.profile.AllowMissingClientID || v.profile.AllowIDTokens)
}

// at returns the value at path. The claims that are already at hand need no search.
func (in *unread) at(path string) strictjson.Value {
	switch path {
	case "client_id":
		return in.clientID
	case "azp":
		return in.azp
	case "cid":
		return in.cid
	case "appid":
		return in.appid
	}
	return strictjson.At(in.payload, path)
}

func first(values ...strictjson.Value) strictjson.Value {
	for _, v := range values {
		if v != nil {
			return v
		}
	}
	return nil
}
