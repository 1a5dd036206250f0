package signals

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/jose"
	"github.com/valetkey/valetkey/internal/keyset"
	"github.com/valetkey/valetkey/internal/strictjson"
	"github.com/valetkey/valetkey/internal/tokenclaims"
)

// A code describes to a transmitter why a SET is refused: the registry of RFC 8935, section 2.4, and invalid_state of SSF 1.0, section
// 8.1.4.1.
type code string

const (
	invalidRequest  code = "invalid_request"
	invalidKey      code = "invalid_key"
	invalidIssuer   code = "invalid_issuer"
	invalidAudience code = "invalid_audience"
	invalidState    code = "invalid_state"
	notAuthentic    code = "authentication_failed"
)

// A refusal is the reason why a SET is refused for good. Any other error is a failure: the same SET may be accepted later.
type refusal struct {
	code code
	err  error
}

func (r *refusal) Error() string { return string(r.code) + ": " + r.err.Error() }

func refuse(c code, format string, args ...any) error {
	return &refusal{c, fmt.Errorf(format, args...)}
}

// A set is a security event token that has been verified.
type set struct {
	jti      string
	issued   time.Time // iat
	occurred time.Time // toe; zero: none
	event    Event
	payload  strictjson.Value // of the event
	subject  strictjson.Value // sub_id, or subject in the payload of older transmitters; nil: none
}

// trust states which SETs are accepted.
type trust struct {
	issuer     string
	audience   []string
	algorithms []string
	keys       *keyset.Set
	legacy     Legacy
}

// verify parses and verifies a SET (RFC 8417, section 2; SSF 1.0, section 4.1). The checks that need no key come first, so a SET that
// fails one of them causes no fetch. The error is a *refusal or a failure.
func (t *trust) verify(ctx context.Context, raw string) (*set, error) {
	c, err := jose.Parse(raw)
	switch {
	case err != nil:
		return nil, &refusal{invalidRequest, err}
	case !jose.SameType(c.Header.Type, "secevent+jwt") && !(t.legacy.AllowUntyped && (c.Header.Type == "" || jose.SameType(c.Header.Type, "JWT"))):
		// SSF 1.0, section 4.1.1: explicit typing
		return nil, refuse(invalidRequest, "typ is %.50q, not secevent+jwt", c.Header.Type)
	case !slices.Contains(t.algorithms, c.Header.Algorithm):
		return nil, refuse(invalidKey, "it is signed with %.20q, which is not allowed", c.Header.Algorithm)
	}
	s, err := t.claims(c.Payload)
	if err != nil {
		return nil, err
	}
	if err := t.signed(ctx, c); err != nil {
		return nil, err
	}
	return s, nil
}

// claims checks the claims of a SET.
func (t *trust) claims(payload []byte) (*set, error) {
	var iss, sub, aud, exp, iat, toe, jti, events, subID strictjson.Value
	err := strictjson.Object(payload, func(name string, v strictjson.Value) error {
		switch name {
		case "iss":
			iss = v
		case "sub":
			sub = v
		case "aud":
			aud = v
		case "exp":
			exp = v
		case "iat":
			iat = v
		case "toe":
			toe = v
		case "jti":
			jti = v
		case "events":
			events = v
		case "sub_id":
			subID = v
		}
		return nil
	}, "iss", "sub", "aud", "exp", "iat", "toe", "jti", "events", "sub_id")
	if err != nil {
		return nil, &refusal{invalidRequest, err}
	}
	var s set
	var issuer string
	if err := errors.Join(
		identifier(&s.jti, "jti", jti), // RFC 8417, section 2.2
		tokenclaims.Text(&issuer, "iss", iss, false),
		tokenclaims.Date(&s.issued, "iat", iat, false),
		tokenclaims.Date(&s.occurred, "toe", toe, true),
	); err != nil {
		return nil, &refusal{invalidRequest, err}
	}
	audience, err := tokenclaims.Audience(aud, true)
	switch {
	case err != nil:
		return nil, &refusal{invalidRequest, err}
	case issuer != t.issuer: // SSF 1.0, section 4.1.6: identical
		return nil, refuse(invalidIssuer, "iss is %.200q, not %q", issuer, t.issuer)
	case !t.isFor(audience):
		return nil, refuse(invalidAudience, "aud does not contain this receiver")
	case sub != nil: // SSF 1.0, section 4.1.2: a SET must not pass for another kind of token
		return nil, refuse(invalidRequest, "sub is present")
	case exp != nil: // section 4.1.7
		return nil, refuse(invalidRequest, "exp is present")
	}
	if s.event, s.payload, err = oneEvent(events); err != nil {
		return nil, &refusal{invalidRequest, err}
	}
	s.subject = subID
	if s.subject == nil && t.legacy.AllowSubjectType {
		if s.subject, err = member(s.payload, "subject"); err != nil {
			return nil, &refusal{invalidRequest, err}
		}
	}
	return &s, nil
}

func (t *trust) isFor(aud valetkey.List[string]) bool {
	for a := range aud.All() {
		if slices.Contains(t.audience, a) {
			return true
		}
	}
	return false
}

// oneEvent returns the only event (SSF 1.0, section 4.2.1; CAEP Interoperability Profile 1.0, section 2.8.1).
func oneEvent(events strictjson.Value) (event Event, payload strictjson.Value, err error) {
	if !events.IsObject() {
		return "", nil, errors.New("events is missing or not an object")
	}
	n := 0
	err = strictjson.Entries(events, func(name string, v strictjson.Value) error {
		n++
		event, payload = Event(strings.Clone(name)), v
		return nil
	})
	switch {
	case err != nil:
		return "", nil, err
	case n != 1:
		return "", nil, fmt.Errorf("events has %d events, not one", n)
	case !payload.IsObject():
		return "", nil, errors.New("the event is not an object")
	}
	return event, payload, nil
}

// member returns a member of an object; nil: it has none.
func member(object strictjson.Value, name string) (found strictjson.Value, err error) {
	err = strictjson.Object(object, func(n string, v strictjson.Value) error {
		if n == name {
			found = v
		}
		return nil
	}, name)
	return found, err
}

// recentKeys is the age up to which held keys prove that a signature is wrong: no issuer replaces a key and keeps its kid so often.
const recentKeys = 5 * time.Minute

// signed verifies the signature. Anyone who can reach the endpoint can send SETs with an unknown key, and each may cause a fetch of the
// keys, but not more than one per interval. If the one for this SET was due to another SET, the key may exist all the same. So the
// answer is then a failure: after a refusal, a transmitter would not send a genuine SET again.
func (t *trust) signed(ctx context.Context, c *jose.Compact) error {
	begun := time.Now()
	_, err := t.keys.Verify(ctx, c, keyset.Terms{Issuer: t.issuer})
	if err == nil {
		return nil
	}
	if unavailable := new(valetkey.Unavailable); errors.As(err, &unavailable) {
		return err
	}
	status := t.keys.Status() // a fetch that is still in progress proves nothing
	fetched := !status.Confirmed.Before(begun)
	forged := errors.Is(err, jose.ErrSignature) && status.LastError == nil && time.Since(status.Confirmed) < recentKeys
	if fetched || forged {
		return &refusal{invalidKey, err}
	}
	return &valetkey.Unavailable{RetryAfter: keyset.DefaultMinRefetchInterval,
		Err: fmt.Errorf("a SET has no known key, and the keys have not been fetched since it came: %w", err)}
}
