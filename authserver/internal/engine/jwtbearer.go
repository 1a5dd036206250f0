package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/authserver/model"
	"github.com/valetkey/valetkey/authserver/store"
	"github.com/valetkey/valetkey/internal/fetch"
	"github.com/valetkey/valetkey/internal/jose"
	"github.com/valetkey/valetkey/internal/keyset"
	"github.com/valetkey/valetkey/internal/strictjson"
	"github.com/valetkey/valetkey/internal/tokenclaims"
)

// grantLife is the maximum remaining lifetime of an assertion of another issuer, and thus how long it is remembered.
const grantLife = time.Hour

var errAssertion = badRequest("invalid_grant", "the assertion is malformed, expired, used, not for this server, or not trusted")

func validIssuer(t model.TrustedIssuer) error {
	var errs []error
	mistake := func(is bool, text string) {
		if is {
			errs = append(errs, errors.New(text))
		}
	}
	mistake(t.Issuer == "", "Issuer: required")
	mistake((t.JWKS == "") == (t.JWKSURL == ""), "JWKS, JWKSURL: one of the two is required")
	if t.JWKS != "" {
		if _, _, err := keyset.Parse([]byte(t.JWKS), keyset.MaxForeignKeys); err != nil {
			errs = append(errs, fmt.Errorf("JWKS: %w", err))
		}
	}
	if t.JWKSURL != "" {
		if err := (fetch.Client{}).Allowed(t.JWKSURL); err != nil {
			errs = append(errs, fmt.Errorf("JWKSURL: %w", err))
		}
	}
	mistake(t.SubjectType == "" || strings.Contains(t.SubjectType, ":"), "SubjectType: required, and without a colon")
	mistake(len(t.Scopes) == 0, "Scopes: at least one is required")
	mistake(t.GrantProfile != "" && t.GrantProfile != model.IDJAG, "GrantProfile: unknown")
	return errors.Join(errs...)
}

// idJAGType is the typ of identity assertions (draft-ietf-oauth-identity-assertion-authz-grant, section 4.3.2.1), and idJAGProfile is
// their name in metadata.
const (
	idJAGType    = "oauth-id-jag+jwt"
	idJAGProfile = "urn:ietf:params:oauth:grant-profile:id-jag"
)

// believe returns the grant for an assertion of a trusted issuer (RFC 7523, sections 2.1 and 3.1).
func (e *Engine) believe(c *call) (*grant, error) {
	if !c.form.Has("assertion") {
		return nil, invalidRequest("assertion is missing")
	}
	a, err := parseAssertion(c.form.Get("assertion"), "JWT", idJAGType)
	if err != nil {
		return nil, errAssertion
	}
	i := slices.IndexFunc(e.cfg.Issuers, func(t model.TrustedIssuer) bool { return t.Issuer == a.issuer }) // item 1
	known := slices.Contains(jose.Algorithms(), a.token.Header.Algorithm)
	if i < 0 || !known || a.subject == "" || len(a.id) > 256 || !e.isFor(a, e.cfg.Issuer, grantLife) { // items 2 to 6
		return nil, errAssertion
	}
	issuer := e.cfg.Issuers[i]
	signed := func(keys []*jose.Key) error { return verifies(keys, a.token) }
	// Item 9.
	if err := e.issuers.ask(c.r.Context(), issuer.Issuer, issuer.JWKSURL, []byte(issuer.JWKS), signed); err != nil {
		return nil, errAssertion
	}
	identityAssertion := jose.SameType(a.token.Header.Type, idJAGType)
	if identityAssertion != (issuer.GrantProfile == model.IDJAG) { // RFC 8725, section 3.11
		return nil, errAssertion
	}
	if a.details { // a limit that a token of this grant would not have
		return nil, errDetails
	}
	resources, who := c.form["resource"], identity{}
	if identityAssertion {
		if resources, who, err = e.assertedFor(c, a); err != nil {
			return nil, err
		}
	}

	subject := issuer.SubjectType + ":" + a.subject
	if ended, err := e.assertedBeforeEnd(c.r.Context(), subject, a.issued); err != nil {
		return nil, err
	} else if ended {
		return nil, errAssertion
	}
	limited := *c.client
	limited.Scopes = slices.DeleteFunc(slices.Clone(c.client.Scopes), func(s string) bool {
		// RFC 7521, section 4.1: not wider than the assertion's.
		return !slices.Contains(issuer.Scopes, s) || a.scopes != nil && !slices.Contains(a.scopes, s)
	})
	api, scopes, err := e.wanted(&limited, resources, c.form.Get("scope"))
	if err != nil {
		return nil, err
	}
	if err := c.useProof(); err != nil {
		return nil, err
	}
	if !identityAssertion {
		if err := e.useOnce(c, a); err != nil {
			return nil, err
		}
	}
	g := newGrant(c.client, api, scopes)
	who.Subject, who.UserType = subject, issuer.SubjectType
	g.identity = who
	return g, nil // without a refresh token (RFC 7521, section 4.1)
}

// endAssertions refuses all assertions about a user of a trusted issuer that were issued up to now. An identity assertion could
// otherwise be presented again, and another one for the first time. The record is as old as the assertions can become; it is of the
// kind that a full store does not drop. Only the operator ends the access of a user this way.
func (e *Engine) endAssertions(ctx context.Context, subject string) error {
	kind, _, _ := strings.Cut(subject, ":")
	if !slices.ContainsFunc(e.cfg.Issuers, func(t model.TrustedIssuer) bool { return t.SubjectType == kind }) {
		return nil
	}
	for {
		rec, err := e.cfg.Store.Get(ctx, kindAssertion, endedID(subject))
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return fmt.Errorf("end the assertions about a user: %w", err)
		}
		now := time.Now()
		rec.Kind, rec.ID, rec.Expires, rec.Value = kindAssertion, endedID(subject), now.Add(grantLife+2*skew), []byte(now.UTC().Format(time.RFC3339Nano))
		if _, err = e.cfg.Store.Put(ctx, rec); !errors.Is(err, store.ErrConflict) {
			return err
		}
	}
}

// endedID is unambiguous beside the IDs of used assertions: neither a client ID nor an issuer is empty.
func endedID(subject string) string { return store.Digest("\n\n" + subject) }

// assertedBeforeEnd reports whether an assertion about a user was issued before the access of the user was ended, or may have been.
func (e *Engine) assertedBeforeEnd(ctx context.Context, subject string, issued time.Time) (bool, error) {
	rec, err := e.cfg.Store.Get(ctx, kindAssertion, endedID(subject))
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for the end of the assertions about a user: %w", err)
	}
	end, err := time.Parse(time.RFC3339Nano, string(rec.Value))
	return err != nil || issued.IsZero() || !issued.After(end), err // iat has whole seconds
}

// useOnce accepts an assertion once (RFC 7523, section 3, item 7). An assertion without a jti is identified by its signed content,
// because a signature can be encoded in several ways. The prefix is unambiguous: no client has an empty ID.
func (e *Engine) useOnce(c *call, a *assertionClaims) error {
	id := a.id
	if id == "" {
		id = c.form.Get("assertion")
		id = id[:strings.LastIndexByte(id, '.')]
	}
	if fresh, err := e.useAssertion(c.r.Context(), a, "\n"+a.issuer+"\n"+id); err != nil {
		return err
	} else if !fresh {
		return errAssertion
	}
	return nil
}

// assertedFor checks the claims of an identity assertion (draft-ietf-oauth-identity-assertion-authz-grant, sections 4.3.2.1 and 4.4.1),
// and returns the resources of the request and the log-in of the user. An assertion may be presented again until it expires (section
// 4.4.3), which only its client can do.
func (e *Engine) assertedFor(c *call, a *assertionClaims) (resources []string, who identity, err error) {
	if c.client.Public() { // section 6.1: "SHOULD only be supported for confidential clients"
		return nil, who, errNotTheClients
	}
	var client string
	var named valetkey.List[string]
	var bound valetkey.Binding
	var acr, authTime strictjson.Value
	err = strictjson.Entries(a.token.Payload, func(name string, v strictjson.Value) (err error) {
		if v.IsNull() {
			return mayBeNull(name, "resource", "cnf")
		}
		switch name {
		case "client_id":
			err = tokenclaims.Text(&client, name, v, false)
		case "resource":
			named, err = tokenclaims.Audience(v, true)
		case "cnf":
			bound, err = tokenclaims.Binding(v)
		case "acr":
			acr = v
		case "auth_time":
			authTime = v
		}
		return err
	}, "client_id", "resource", "cnf", "acr", "auth_time")
	switch {
	case err != nil || a.id == "" || a.issued.IsZero() || client != c.client.ID:
		return nil, who, errAssertion
	case a.audience.Len() != 1 || !a.audience.Has(e.cfg.Issuer): // the issuer, and no other name of this server
		return nil, who, errAssertion
	case bound.Unknown.Len() > 0, bound.JWKThumbprint != "" && bound.JWKThumbprint != c.holds.Key,
		bound.CertificateThumbprint != "" && bound.CertificateThumbprint != c.holds.Certificate: // what the sender has not proven to possess
		return nil, who, errAssertion
	}
	resources = c.form["resource"]
	if named.Len() > 0 {
		var allowed []string
		for r := range named.All() {
			allowed = append(allowed, audienceOf(e.cfg.APIs, r))
		}
		if resources == nil {
			resources = allowed
		} else if slices.ContainsFunc(resources, func(r string) bool { return !slices.Contains(allowed, r) }) {
			return nil, who, errTarget
		}
	}
	level, at := tokenclaims.Login(acr, authTime)
	if who.ACR = level; !at.IsZero() {
		who.AuthTime = at.Unix()
	}
	return resources, who, nil
}
