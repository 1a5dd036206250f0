package introspect

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/valetkey/valetkey/internal/clientauth"
	"github.com/valetkey/valetkey/internal/fetch"
	"github.com/valetkey/valetkey/internal/jose"
	"github.com/valetkey/valetkey/internal/keyset"
	"github.com/valetkey/valetkey/internal/mistakes"
	"github.com/valetkey/valetkey/internal/strictjson"
	"github.com/valetkey/valetkey/internal/tokenclaims"
)

// Signed configures the verification of signed responses (RFC 9701, section 5). It requires [Config].Issuer. The zero value
// suits an issuer that follows the RFC. Encrypted responses are not supported.
type Signed struct {
	_ struct{} // keyed literals only

	// Algorithm is the only signature algorithm accepted in responses (RFC 9701, section 6). Empty: RS256.
	Algorithm string

	// Audience is the value that the aud of a response must be or contain: the identifier of this resource server at the
	// issuer. It differs from the audience of tokens. Empty: the client ID of Auth.
	Audience string

	// JWKSURL is the URL of the issuer's key set. Empty: the URL comes from the issuer's metadata.
	JWKSURL string

	// JWKS is a key set (RFC 7517, section 5) to use instead, without any network access.
	JWKS []byte
}

const (
	signedType = "application/token-introspection+jwt"

	// maxAge is the maximum age of a signed response at the time of the request, in addition to the leeway: the issuer makes
	// each response for its request.
	maxAge = time.Minute
)

// signed verifies signed answers.
type signed struct {
	algorithm, audience string
	keys                *keyset.Set
}

func (v *Verifier) newSigned() (*signed, error) {
	cfg := *v.cfg.Signed
	s := &signed{algorithm: cmp.Or(cfg.Algorithm, "RS256"), audience: cmp.Or(cfg.Audience, clientauth.ID(v.cfg.Auth))}
	var wrong mistakes.List
	if !slices.Contains(jose.Algorithms(), s.algorithm) {
		wrong.Add("Algorithm", "%q is not a supported signature algorithm", s.algorithm)
	}
	if s.audience == "" {
		wrong.Add("Audience", "required because Auth has no client ID")
	}
	switch {
	case cfg.JWKS != nil && cfg.JWKSURL != "":
		wrong.Add("JWKSURL, JWKS", "set at most one of these")
	case cfg.JWKS != nil:
		keys, err := keyset.ParseGiven(cfg.JWKS, v.cfg.Logger)
		wrong.Within("JWKS", err)
		s.keys = keyset.Static(keys...)
	case cfg.JWKSURL != "" || v.cfg.Issuer != "":
		keys, err := keyset.New(keyset.Config{Issuer: v.cfg.Issuer, JWKSURL: cfg.JWKSURL, Fetch: v.fetch, Logger: v.cfg.Logger})
		wrong.Within("", err)
		s.keys = keys
	}
	return s, wrong.Err()
}

// open sets the object of a response that describes the token. It verifies a signed response first (RFC 9701, section 5). An
// error never means that the token is not active.
func (v *Verifier) open(ctx context.Context, answer *said) error {
	if v.signed == nil {
		answer.object = answer.body
		return nil
	}
	c, err := jose.ParseWith(string(answer.body), jose.Options{Limit: fetch.MaxBody}) // of a response, not of an access token
	switch {
	case err != nil:
		return err
	case !jose.SameType(c.Header.Type, "token-introspection+jwt"):
		return fmt.Errorf("it has typ %.50q", c.Header.Type)
	case c.Header.Algorithm != v.signed.algorithm:
		return fmt.Errorf("it is signed with %.20q, not %s", c.Header.Algorithm, v.signed.algorithm)
	}
	key, err := v.signed.keys.Verify(ctx, c, keyset.Terms{Issuer: v.cfg.Issuer})
	if err != nil {
		return err
	}
	var iss, aud, iat, nested strictjson.Value
	err = strictjson.Object(c.Payload, func(name string, value strictjson.Value) error {
		switch name {
		case "iss":
			iss = value
		case "aud":
			aud = value
		case "iat":
			iat = value
		case "token_introspection":
			nested = value
		}
		return nil // sub, exp and the like at this level do not describe the token
	}, "iss", "aud", "iat", "token_introspection")
	if err != nil {
		return err
	}
	from, _ := iss.Text()
	to, err := tokenclaims.Audience(aud, true)
	if err != nil {
		return err
	}
	var made time.Time
	if err := tokenclaims.Date(&made, "iat", iat, true); err != nil {
		return err
	}
	now := v.cfg.Now()
	switch {
	case from != v.cfg.Issuer:
		return fmt.Errorf("it is of the issuer %.200q", from)
	case !tokenclaims.IsFor(to, []string{v.signed.audience}, false):
		return fmt.Errorf("it is for %.200q", to.Slice())
	case iat == nil:
		return errors.New("it has no iat")
	case made.After(now.Add(v.cfg.Leeway)), made.Add(maxAge + v.cfg.Leeway).Before(answer.at):
		return fmt.Errorf("it was made at %v", made)
	case !nested.IsObject():
		return errors.New("it has no object token_introspection")
	}
	answer.object, answer.vouched = nested, key
	return nil
}
