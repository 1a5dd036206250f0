package jwks

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/claims"
	"github.com/valetkey/valetkey/internal/jose"
	"github.com/valetkey/valetkey/internal/keyset"
	"github.com/valetkey/valetkey/internal/strictjson"
	"github.com/valetkey/valetkey/internal/tokenclaims"
)

// Verify verifies a JWT access token (RFC 9068, section 4). It waits for the network only if no keys are held yet or the
// token's key is not among them, and then at most 2 s.
//
// A refusal is a [*valetkey.Error]. It wraps [valetkey.ErrNotApplicable] if raw is not a JWT or the token is from another
// issuer. If no keys are available, the error is [*valetkey.Unavailable].
func (v *Verifier) Verify(ctx context.Context, raw string) (*valetkey.Token, error) {
	var in unread
	c, err := in.parse(raw, v.form)
	if err != nil {
		return nil, err
	}
	return v.verify(ctx, c, &in)
}

// parse parses a token and reads its claims into in, which the caller provides so that it stays on the stack. Nothing in the
// result is verified.
func (in *unread) parse(raw string, form jose.Options) (*jose.Compact, error) {
	c, err := jose.ParseWith(raw, form)
	switch {
	case errors.Is(err, jose.ErrPadded):
		return nil, refuse(valetkey.ReasonNotJWT, fmt.Errorf("%w: %w; Config.AllowPaddedSegments allows it", valetkey.ErrNotApplicable, err))
	case errors.Is(err, jose.ErrMalformed):
		return nil, refuse(valetkey.ReasonNotJWT, fmt.Errorf("%w: %w", valetkey.ErrNotApplicable, err))
	case err != nil:
		return nil, refuse(malformed, err)
	}
	if err := in.read(c.Payload); err != nil { // RFC 7519, section 7.2, step 10
		return nil, refuse(malformed, fmt.Errorf("claims: %w", err))
	}
	return c, nil
}

const malformed = valetkey.ReasonMalformed

// verify makes the checks of RFC 9068, section 4, the cheapest first.
func (v *Verifier) verify(ctx context.Context, c *jose.Compact, in *unread) (*valetkey.Token, error) {
	iss, mine := v.issuerOf(in)
	if !mine {
		return nil, otherIssuer(in, func() []string { return append([]string{v.issuer}, v.aliases...) })
	}
	if err := v.checkForm(c); err != nil {
		return nil, err
	}
	if in.misspelt != "" {
		return nil, refuse(malformed, fmt.Errorf("the claim %s is spelled in another letter case", in.misspelt))
	}
	if err := v.checkType(c.Header.Type, in); err != nil {
		return nil, err
	}
	if err := claims.Check(in.payload, v.markers...); err != nil { // RFC 8725, section 3.12
		return nil, refuse(valetkey.ReasonNotAccessToken, fmt.Errorf("a marker is missing: %w", err))
	}
	// RFC 8725, section 3.1: the list decides, before any key is looked at.
	if !slices.Contains(v.algorithms, c.Header.Algorithm) {
		return nil, refuse(valetkey.ReasonAlgorithm,
			tokenclaims.Mismatch("alg", "token", []string{c.Header.Algorithm}, func() []string { return v.algorithms }))
	}
	switch {
	case v.shared: // there is one key, and it has no name
		unnamed := *c
		unnamed.Header.KeyID, unnamed.Header.HasKeyID = "", false
		c = &unnamed
	case !c.Header.HasKeyID && !v.profile.AllowMissingKeyID:
		return nil, refuse(valetkey.ReasonNoKeyID, errors.New("no kid, and Profile.AllowMissingKeyID is off"))
	}
	if err := v.readHeader(c, in); err != nil {
		return nil, err
	}
	var t valetkey.TokenFields
	if err := v.fields(&t, in, iss); err != nil {
		return nil, err
	}
	if !tokenclaims.IsFor(t.Audience, v.audience, v.sole) {
		return nil, refuse(valetkey.ReasonAudience,
			tokenclaims.Mismatch("audience", "token", t.Audience.Slice(), func() []string { return v.audience }))
	}
	if err := v.checkClient(&t, in); err != nil {
		return nil, err
	}
	if err := claims.Check(in.payload, v.rules...); err != nil {
		return nil, refuse(valetkey.ReasonClaimRule, err)
	}
	if err := v.checkTimes(&t); err != nil {
		return nil, err
	}
	key, err := v.keys.Verify(ctx, c, keyset.Terms{Issuer: iss, AllowKeyWithoutID: v.profile.AllowKeyWithoutID})
	switch {
	case errors.Is(err, jose.ErrSignature):
		return nil, refuse(valetkey.ReasonSignature, err)
	case errors.Is(err, keyset.ErrUnknownKey), errors.Is(err, keyset.ErrAmbiguous):
		return nil, refuse(valetkey.ReasonUnknownKey, fmt.Errorf("kid %.100q and alg %s in the token, issuer %q: %w", c.Header.KeyID, c.Header.Algorithm, v.issuer, err))
	case err != nil:
		return nil, err // [*valetkey.Unavailable]
	}
	t.Raw = strictjson.View(c.Payload)
	t.Deadline = t.Expiry.Add(v.leeway)
	t.Freshness = valetkey.Freshness{Until: t.Deadline, While: key}
	return valetkey.NewToken(t), nil
}

// otherIssuer returns the refusal of a token whose iss is not one of those configured, or is missing or no string.
func otherIssuer(in *unread, configured func() []string) error {
	var got []string
	if iss, _ := in.iss.Text(); iss != "" {
		got = []string{iss}
	}
	return refuse(valetkey.ReasonIssuer, tokenclaims.NotApplicable(tokenclaims.Mismatch("issuer", "token", got, configured)))
}

// checkForm checks the form of a token that was parsed for several issuers.
func (v *Verifier) checkForm(c *jose.Compact) error {
	switch {
	case c.Length() > v.form.Limit:
		return refuse(malformed, fmt.Errorf("the token has more than %d bytes", v.form.Limit))
	case c.Padded && !v.form.AllowPadding:
		return refuse(malformed, fmt.Errorf("%w; Config.AllowPaddedSegments allows it", jose.ErrPadded))
	}
	return nil
}

// checkType checks typ. Types are compared as media types: RFC 7515, section 4.1.9.
func (v *Verifier) checkType(typ string, in *unread) error {
	is := func(t string) bool { return jose.SameType(typ, t) }
	switch {
	case is("at+jwt"): // RFC 9068, section 4
		return nil
	case slices.ContainsFunc(v.types, is):
	case !v.profile.AllowUntyped, typ != "" && !is("JWT"):
		err := tokenclaims.Mismatch("typ", "token", []string{typ}, func() []string { return append([]string{"at+jwt"}, v.types...) })
		if typ == "" || is("JWT") {
			err = fmt.Errorf("%w, and Profile.AllowUntyped is off", err)
		}
		return refuse(valetkey.ReasonNotAccessToken, err)
	}
	// RFC 8725, section 3.12: without the type, the kinds of tokens must exclude each other otherwise. A claim that names another
	// kind counts always. One that only ID tokens usually have does not, if a marker proves that this is not an ID token.
	kind := in.otherKind
	if !v.profile.AllowIDTokens {
		kind = cmp.Or(kind, in.idToken)
		if !v.marked {
			kind = cmp.Or(kind, in.idMark)
		}
	}
	if kind == "" {
		return nil
	}
	value, ok := strictjson.At(in.payload, kind).Text()
	if kind == in.idMark {
		return refuse(valetkey.ReasonNotAccessToken, fmt.Errorf("it has the claim %s, as ID tokens do, and no Markers prove an access token", kind))
	} else if !ok {
		return refuse(valetkey.ReasonNotAccessToken, fmt.Errorf("it has the claim %s", kind))
	}
	return refuse(valetkey.ReasonNotAccessToken, fmt.Errorf("its claim %s is %.50q", kind, value))
}

// checkClient checks the client of a token. OpenID Connect Core 1.0, section 2: an ID token is for the client in azp, or for its
// only audience.
func (v *Verifier) checkClient(t *valetkey.TokenFields, in *unread) error {
	accepted := v.clients
	if v.profile.AllowIDTokens {
		if len(accepted) == 0 {
			accepted = v.audience
		}
		if t.ClientID == "" && in.azp == nil && t.Audience.Len() == 1 {
			t.ClientID = t.Audience.At(0)
		}
	}
	check := func(client string) error {
		if len(accepted) > 0 && !slices.Contains(accepted, client) {
			return refuse(valetkey.ReasonClient, tokenclaims.Mismatch("client", "token", []string{client}, func() []string { return accepted }))
		}
		return nil
	}
	err := check(t.ClientID)
	if err == nil && v.profile.AllowIDTokens && in.azp != nil { // client_id is not a claim of ID tokens
		azp, _ := in.azp.Text()
		err = check(azp)
	}
	return err
}

func (v *Verifier) checkTimes(t *valetkey.TokenFields) error {
	now := v.now()
	far := errors.Join(tokenclaims.FarFrom(now, "iat", t.IssuedAt), tokenclaims.FarFrom(now, "nbf", t.NotBefore))
	if !now.AddDate(10, 0, 0).Before(now.Add(v.maxLifetime)) { // a longer MaxLifetime bounds exp itself, below
		far = errors.Join(tokenclaims.FarFrom(now, "exp", t.Expiry), far)
	}
	switch {
	case far != nil:
		return refuse(valetkey.ReasonFarDate, far)
	case !now.Before(t.Expiry.Add(v.leeway)): // Token.Deadline; RFC 7519, section 4.1.4: "on or after"
		return refuse(valetkey.ReasonExpired, fmt.Errorf("at %v", t.Expiry))
	case now.Before(t.NotBefore.Add(-v.leeway)): // RFC 7519, section 4.1.5
		return refuse(valetkey.ReasonNotYetValid, fmt.Errorf("before %v", t.NotBefore))
	case now.Before(t.IssuedAt.Add(-v.leeway)):
		return refuse(valetkey.ReasonNotYetValid, fmt.Errorf("issued at %v", t.IssuedAt))
	case v.maxLifetime > 0 && t.IssuedAt.IsZero():
		return refuse(valetkey.ReasonLivesTooLong, errors.New("no iat, and MaxLifetime is set"))
	case v.maxLifetime > 0 && t.Expiry.Sub(t.IssuedAt) > v.maxLifetime:
		return refuse(valetkey.ReasonLivesTooLong, fmt.Errorf("for %v", t.Expiry.Sub(t.IssuedAt).Round(time.Second)))
	}
	return nil
}

func refuse(reason valetkey.Reason, err error) error {
	return &valetkey.Error{Code: valetkey.InvalidToken, Reason: reason, Err: err}
}
