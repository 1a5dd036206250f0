package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/authserver/internal/clients"
	"github.com/valetkey/valetkey/authserver/store"
	"github.com/valetkey/valetkey/internal/jose"
	"github.com/valetkey/valetkey/internal/keyset"
	"github.com/valetkey/valetkey/internal/strictjson"
	"github.com/valetkey/valetkey/internal/tokenclaims"
)

const (
	assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
	assertionLife = 10 * time.Minute // at most, from now: how long a jti is remembered
	skew          = 30 * time.Second // tolerated in a client's clock
	kindAssertion = "jti"            // of the records of used assertions
)

// assertionClaims are the claims of a client's assertion (RFC 7523, section 3), not yet verified.
type assertionClaims struct {
	token                 *jose.Compact
	issuer, subject, id   string
	audience              valetkey.List[string]
	scopes                []string // nil: no scope claim
	details               bool     // it has authorization_details
	expires, from, issued time.Time
}

// readAssertion parses a client's assertion and ensures that its issuer and subject are one client: the one with this ID, if the
// ID is not empty.
func readAssertion(raw, kind, id string) (*assertionClaims, error) {
	a, err := parseAssertion(raw, "JWT", "client-authentication+jwt")
	// RFC 7523, sections 2.2 and 3, items 1 and 2; RFC 7521, section 4.2: client_id "MUST identify the same client".
	if kind != assertionType || err != nil || a.subject == "" || a.issuer != a.subject || id != "" && id != a.subject {
		return nil, errClient
	}
	return a, nil
}

var errMadeForElse = errors.New("the JWT was made for something else")

// parseAssertion parses an assertion whose typ is absent or one of types (RFC 8725, section 3.11).
func parseAssertion(raw string, types ...string) (*assertionClaims, error) {
	token, err := jose.Parse(raw)
	if err != nil {
		return nil, err
	}
	if t := token.Header.Type; t != "" && !slices.ContainsFunc(types, func(want string) bool { return jose.SameType(t, want) }) {
		return nil, errMadeForElse
	}
	a := &assertionClaims{token: token}
	err = strictjson.Entries(token.Payload, func(name string, v strictjson.Value) (err error) {
		if v.IsNull() {
			return mayBeNull(name, "scope", claimDetails)
		}
		switch name {
		case "iss":
			err = tokenclaims.Text(&a.issuer, name, v, false)
		case "sub":
			err = tokenclaims.Text(&a.subject, name, v, false)
		case "jti":
			err = tokenclaims.Text(&a.id, name, v, false)
		case "aud":
			a.audience, err = tokenclaims.Audience(v, false)
		case "exp":
			err = tokenclaims.Date(&a.expires, name, v, false)
		case "nbf":
			err = tokenclaims.Date(&a.from, name, v, false)
		case "iat":
			err = tokenclaims.Date(&a.issued, name, v, false)
		case "scope":
			a.scopes, err = tokenclaims.AppendScopes([]string{}, v, true)
		case claimDetails:
			a.details = !v.IsEmpty()
		}
		return err
	}, "iss", "sub", "jti", "aud", "exp", "nbf", "iat", "scope", claimDetails)
	return a, err
}

// mayBeNull returns an error if a claim that is null is one of limits, the claims that limit what is granted for an assertion: without the
// limit, more would be granted, and serializers write null for an empty list too. Other claims are then as if they were not there.
func mayBeNull(name string, limits ...string) error {
	if slices.Contains(limits, name) {
		return fmt.Errorf("%s is null", name)
	}
	return nil
}

// isFor reports whether the assertion is addressed to one of this server's endpoints, is valid now, and expires within life.
func (e *Engine) isFor(a *assertionClaims, endpoint string, life time.Duration) bool {
	now := time.Now()
	// RFC 7523, section 3, item 3; RFC 9126, section 2: all three identify this server.
	us := []string{e.cfg.Issuer, e.cfg.base() + e.cfg.Paths.Token, endpoint}
	return slices.ContainsFunc(us, a.audience.Has) && // exactly: item 3
		now.Before(a.expires.Add(skew)) && !a.expires.After(now.Add(life+skew)) && // items 4 and 5; a missing exp is zero and thus refused
		!a.from.After(now.Add(skew)) && !a.issued.After(now.Add(skew)) // item 6
}

// useAssertion reports whether the assertion with this ID is used for the first time (RFC 7523, section 3, item 7).
func (e *Engine) useAssertion(ctx context.Context, a *assertionClaims, id string) (fresh bool, err error) {
	_, err = e.cfg.Store.Put(ctx, store.Record{Kind: kindAssertion, ID: store.Digest(id), Expires: a.expires.Add(skew + time.Second)})
	switch {
	case errors.Is(err, store.ErrConflict):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("remember the assertion: %w", err)
	}
	return true, nil
}

// ownerOf returns the owner that a client's key set is charged to: the developer; all open registrations together, for a client
// without a developer; the host of its metadata document; or the client itself, if the operator added it.
func ownerOf(c *clients.Client) string {
	switch {
	case c.Owner != "":
		return "owner " + c.Owner
	case c.RegistrationDigest != "":
		return "registered"
	case c.Document:
		return "host " + clients.HostOf(c.ID)
	default:
		return "client " + c.ID
	}
}

// verifyAssertion accepts an assertion of the client once. endpoint is the URL that it was sent to.
func (e *Engine) verifyAssertion(ctx context.Context, c *clients.Client, a *assertionClaims, endpoint string) error {
	// RFC 8725, section 3.1.
	if alg := a.token.Header.Algorithm; c.AssertionAlg != "" && alg != c.AssertionAlg || !slices.Contains(jose.Algorithms(), alg) {
		return errClient
	}
	if a.id == "" || len(a.id) > 256 || !e.isFor(a, endpoint, assertionLife) {
		return errClient
	}
	signed := func(keys []*jose.Key) error { return verifies(keys, a.token) }
	if err := e.keySets.ask(ctx, ownerOf(c), c.JWKSURL, []byte(c.JWKS), signed); err != nil { // item 9
		return err
	}
	fresh, err := e.useAssertion(ctx, a, c.ID+"\n"+a.id)
	if err == nil && !fresh {
		err = errClient
	}
	return err
}

// verifies returns nil if one of the keys that match the header has signed the token.
func verifies(keys []*jose.Key, token *jose.Compact) error {
	if _, err := keyset.Static(keys...).Verify(context.Background(), token, keyset.Terms{}); err != nil {
		return errClient
	}
	return nil
}
