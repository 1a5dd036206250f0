package introspect

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/authheader"
	"github.com/valetkey/valetkey/internal/jose"
	"github.com/valetkey/valetkey/internal/strictjson"
	"github.com/valetkey/valetkey/internal/tokenclaims"
)

// Verify asks the endpoint about raw, unless the result is known without a request. Verify does not cache a positive
// response; the guard does, for as long as the token's Freshness allows.
//
// A refusal is a [*valetkey.Error]. A JWT is refused with an error that wraps [valetkey.ErrNotApplicable], unless
// [Config.JWTIssuers] contains its issuer. If the endpoint cannot be asked or does not answer, the error is
// [*valetkey.Unavailable].
func (v *Verifier) Verify(ctx context.Context, raw string) (*valetkey.Token, error) {
	switch {
	case len(raw) > v.maxToken: // RFC 7662, section 5: no unbounded input is sent to the issuer
		return nil, refuse(malformed, fmt.Errorf("it has more than %d bytes (MaxTokenBytes)", v.maxToken))
	case !authheader.IsToken(raw): // not worth a request, which could also upset a firewall on the way
		return nil, refuse(malformed, errors.New("it holds a character that none may hold, or nothing"))
	}
	if err := v.asksAbout(raw); err != nil {
		return nil, refuse(valetkey.ReasonJWT, tokenclaims.NotApplicable(err))
	}
	return v.ask(ctx, raw)
}

const malformed = valetkey.ReasonMalformed

func refuse(reason valetkey.Reason, err error) *valetkey.Error {
	return &valetkey.Error{Code: valetkey.InvalidToken, Reason: reason, Err: err}
}

// asksAbout returns nil if raw is opaque, or a JWT that is asked about.
func (v *Verifier) asksAbout(raw string) error {
	if !isJWT(raw) || slices.Contains(v.cfg.JWTIssuers, AnyIssuer) {
		return nil
	}
	iss, ok := v.issuerOf(raw)
	if ok && slices.Contains(v.cfg.JWTIssuers, iss) {
		return nil
	}
	var got []string
	if ok {
		got = []string{iss}
	}
	return tokenclaims.Mismatch("JWTIssuers", "token", got, func() []string { return v.cfg.JWTIssuers })
}

// isJWT reports whether raw has the form of a JWT, signed (RFC 7515, section 7.1) or encrypted (RFC 7516, section 7.1), to a
// lax reader: the first of three or five parts is a JSON object with alg.
func isJWT(raw string) bool {
	if dots := strings.Count(raw, "."); dots != 2 && dots != 4 {
		return false
	}
	first, _, _ := strings.Cut(raw, ".")
	object, err := base64.RawURLEncoding.DecodeString(first)
	if err != nil {
		return false
	}
	var header struct {
		Algorithm json.RawMessage `json:"alg"`
	}
	return json.Unmarshal(object, &header) == nil && header.Algorithm != nil
}

// issuerOf returns the unverified iss of a signed JWT; ok is false if it has none.
func (v *Verifier) issuerOf(raw string) (iss string, ok bool) {
	c, err := jose.ParseWith(raw, jose.Options{Limit: v.maxToken})
	if err != nil {
		return "", false
	}
	err = strictjson.Object(c.Payload, func(name string, value strictjson.Value) error {
		if name == "iss" {
			iss, ok = value.Text()
		}
		return nil
	}, "iss")
	return iss, ok && err == nil
}
