package engine

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/valetkey/valetkey/authserver/model"
	"github.com/valetkey/valetkey/internal/fetch"
	"github.com/valetkey/valetkey/internal/jose"
	"github.com/valetkey/valetkey/internal/keyset"
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
	return errors.Join(errs...)
}

// believe returns the grant for an assertion of a trusted issuer (RFC 7523, sections 2.1 and 3.1).
func (e *Engine) believe(c *call) (*grant, error) {
	if !c.form.Has("assertion") {
		return nil, invalidRequest("assertion is missing")
	}
	a, err := parseAssertion(c.form.Get("assertion"), "JWT")
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

	limited := *c.client
	limited.Scopes = slices.DeleteFunc(slices.Clone(c.client.Scopes), func(s string) bool {
		// RFC 7521, section 4.1: not wider than the assertion's.
		return !slices.Contains(issuer.Scopes, s) || a.scopes != nil && !slices.Contains(a.scopes, s)
	})
	api, scopes, err := e.wanted(&limited, c.form["resource"], c.form.Get("scope"))
	if err != nil {
		return nil, err
	}
	// Item 7. An assertion without a jti is identified by its signed content, because a signature can be encoded in several
	// ways. The prefix is unambiguous: no client has an empty ID.
	id := a.id
	if id == "" {
		id = c.form.Get("assertion")
		id = id[:strings.LastIndexByte(id, '.')]
	}
	if err := c.useProof(); err != nil {
		return nil, err
	}
	if fresh, err := e.useAssertion(c.r.Context(), a, "\n"+a.issuer+"\n"+id); err != nil {
		return nil, err
	} else if !fresh {
		return nil, errAssertion
	}
	g := newGrant(c.client, api, scopes)
	g.identity = identity{Subject: issuer.SubjectType + ":" + a.subject, UserType: issuer.SubjectType}
	return g, nil // without a refresh token (RFC 7521, section 4.1)
}
