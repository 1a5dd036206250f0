package clients

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/jose"
	"github.com/valetkey/valetkey/internal/keyset"
	"github.com/valetkey/valetkey/internal/tokenclaims"
)

// vouched returns the members that a client sent. If there is a software statement, its claims replace the members with the same
// names (RFC 7591, section 2.3).
func (e *registration) vouched(ctx context.Context, sent members) (members, error) {
	if sent["software_statement"] == nil {
		return sent, nil
	}
	statement, ok := sent["software_statement"].Text()
	if !ok {
		return nil, invalidStatement("is not a string")
	}
	claimed, err := e.verify(ctx, statement)
	if err != nil {
		return nil, err
	}
	delete(claimed, "software_statement")
	both := maps.Clone(sent)
	if claimed["jwks"] != nil || claimed["jwks_uri"] != nil { // two names for one thing
		delete(both, "jwks")
		delete(both, "jwks_uri")
	}
	maps.Copy(both, claimed)
	return both, nil
}

func invalidStatement(why string) error {
	return &Invalid{Code: InvalidStatement, Member: "software_statement", Problem: why}
}

// verify returns the claims of a statement that one of the configured issuers has signed.
func (e *registration) verify(ctx context.Context, statement string) (members, error) {
	c, err := jose.Parse(statement)
	if err != nil {
		return nil, invalidStatement("is not a signed JWT")
	}
	// A JWT for another purpose, such as an access token, is not a statement (RFC 8725, section 3.11).
	if c.Header.Type != "" && !jose.SameType(c.Header.Type, "JWT") || !slices.Contains(jose.Algorithms(), c.Header.Algorithm) {
		return nil, invalidStatement("has a type or an algorithm that is not accepted")
	}
	m, err := readMembers(c.Payload)
	if err != nil {
		return nil, invalidStatement("is not a signed JWT")
	}
	issuer, _ := m["iss"].Text() // RFC 7591, section 2.3: required
	keys := e.cfg.Statements[issuer]
	if keys == nil {
		return nil, &Invalid{Code: UnapprovedStatement, Member: "software_statement", Problem: "its issuer is not trusted here"}
	}
	if _, err := keys.Verify(ctx, c, keyset.Terms{Issuer: issuer}); err != nil {
		if errors.As(err, new(*valetkey.Unavailable)) {
			return nil, err
		}
		return nil, invalidStatement("is not signed with a key of its issuer")
	}
	var until, from time.Time
	audience, errAudience := tokenclaims.Audience(m["aud"], true)
	if errors.Join(tokenclaims.Date(&until, "exp", m["exp"], true), tokenclaims.Date(&from, "nbf", m["nbf"], true), errAudience) != nil {
		return nil, invalidStatement("has an exp, nbf or aud that is malformed")
	}
	switch now := time.Now(); {
	case tokenclaims.FarFrom(now, "exp", until) != nil:
		return nil, invalidStatement("has an exp more than ten years ahead; it may be in milliseconds instead of seconds")
	case !until.IsZero() && !now.Before(until):
		return nil, invalidStatement("has expired")
	case now.Before(from):
		return nil, invalidStatement("is not valid yet")
	case m["aud"] != nil && !audience.Has(e.cfg.Issuer) && !audience.Has(e.cfg.URL): // RFC 7519, section 4.1.3
		return nil, invalidStatement("has another audience")
	}
	return m, nil
}
