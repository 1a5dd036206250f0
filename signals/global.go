package signals

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/authheader"
	"github.com/valetkey/valetkey/internal/jose"
	"github.com/valetkey/valetkey/internal/mistakes"
	"github.com/valetkey/valetkey/internal/strictjson"
	"github.com/valetkey/valetkey/internal/tokenclaims"
)

// GlobalRevocationConfig configures [Receiver.GlobalRevocation]. The zero value accepts no requests.
type GlobalRevocationConfig struct {
	// Audience lists accepted values of aud in the JWT that authenticates a request: the URL of the endpoint. Required for
	// GlobalRevocation.
	Audience []string

	// Issuer is the party that sends the requests, exactly as in the iss of the JWT and of the subject. Empty: Config.Issuer.
	Issuer string

	// Subject is the required sub of the JWT: the client ID under which the sender knows this service. Empty: not checked.
	Subject string

	// JWKSURL is the URL of the keys of Issuer. Empty: the metadata of Issuer contains it.
	JWKSURL string
}

func (c *GlobalRevocationConfig) check(wrong *mistakes.List) {
	for i, a := range c.Audience {
		wrong.AddIf(a == "", fmt.Sprintf("GlobalRevocation.Audience[%d]", i), "is empty")
	}
	wrong.AddIf(len(c.Audience) == 0 && (c.Issuer != "" || c.JWKSURL != "" || c.Subject != ""), "GlobalRevocation.Audience", "required for global revocations")
}

const (
	maxSubject   = 8 << 10          // bytes of the body of a request
	maxAssertion = 15 * time.Minute // lifetime of the JWT that authenticates a request
)

// GlobalRevocation returns the handler of the draft Global Token Revocation (draft-parecki-oauth-global-token-revocation-05): it revokes
// all access tokens of a user. A request is authenticated by a JWT of [GlobalRevocationConfig].Issuer with the typ
// global-token-revocation+jwt, as Okta sends it.
//
// It answers 204 once the revocation is in force and kept, 400 for a malformed request or an unsupported format of the subject, 401
// without valid authentication, 403 for a user of another issuer, 404 if no resolver knows the user, and 503 if a later attempt can
// succeed. Without GlobalRevocationConfig.Audience it answers 404.
//
// The handler revokes access tokens, and only those issued before the request. It cannot revoke refresh tokens, which the draft
// requires of an authorization server: route requests to that server too. A subject with an iss other than Config.Issuer, such as the
// user at an upstream identity provider, needs Config.Resolve.
func (r *Receiver) GlobalRevocation() http.Handler {
	slots := make(chan struct{}, maxPushes)
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		switch {
		case r.globalKeys == nil:
			w.WriteHeader(http.StatusNotFound)
			return
		case !onlyPost(w, req):
			return
		}
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
		default:
			answerLater(w, retryAfter)
			return
		}
		limitRead(w)
		ctx, cancel := context.WithTimeout(req.Context(), pushTimeout)
		defer cancel()
		err := r.revokeGlobally(ctx, req)
		var status *statusError
		switch {
		case err == nil:
			w.WriteHeader(http.StatusNoContent)
		case errors.As(err, &status):
			if r.counts.add(status.name); status.status == http.StatusUnauthorized {
				w.Header().Set("WWW-Authenticate", authheader.Bearer)
			}
			answerError(w, status.status, status.code, status.err.Error())
		default:
			r.counts.add("failed")
			r.answer(w, err)
		}
	})
}

// A statusError is a refusal with a status.
type statusError struct {
	status int
	code   code
	name   string // of the count
	err    error
}

func (e *statusError) Error() string { return e.err.Error() }

func unauthenticated(err error) error {
	return &statusError{http.StatusUnauthorized, notAuthentic, "unauthenticated", err}
}

func (r *Receiver) revokeGlobally(ctx context.Context, req *http.Request) error {
	issued, err := r.authenticateGlobal(ctx, req)
	if err != nil {
		return err
	}
	bad := func(err error) error {
		return &statusError{http.StatusBadRequest, invalidRequest, string(invalidRequest), err}
	}
	if kind, _, err := mime.ParseMediaType(req.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return bad(errors.New("the Content-Type is not application/json"))
	}
	body, err := io.ReadAll(io.LimitReader(req.Body, maxSubject+1))
	if err != nil || len(body) > maxSubject {
		return bad(fmt.Errorf("the body could not be read, or has more than %d bytes", maxSubject))
	}
	subject, err := globalSubject(body)
	if err != nil {
		return bad(err)
	}
	found, err := r.globalUser(ctx, subject)
	if err != nil {
		return err
	}
	b := r.boundsAt(ctx, issued, "global token revocation")
	if r.cfg.GlobalRevocation.Issuer == r.cfg.Issuer {
		b = r.issuerBounds(ctx, issued, "global token revocation")
	}
	for i := range found {
		b.set(&found[i])
	}
	if err := r.feed.deliver(ctx, found)[0]; err != nil {
		return err
	}
	r.counts.add(string(applied))
	return nil
}

// globalSubject decodes the body. Before version 03 of the draft, the member was called subject, which Auth0 still accepts.
func globalSubject(body []byte) (Subject, error) {
	var id, old strictjson.Value
	err := strictjson.Object(body, func(name string, v strictjson.Value) error {
		switch name {
		case "sub_id":
			id = v
		case "subject":
			old = v
		}
		return nil
	}, "sub_id", "subject")
	switch {
	case err != nil:
		return Subject{}, err
	case id != nil && old != nil:
		return Subject{}, errors.New("it has both sub_id and subject")
	case id == nil && old == nil:
		return Subject{}, errors.New("sub_id is missing")
	case id == nil:
		id = old
	}
	all, err := parseSimple(id, false, false)
	if err != nil {
		return Subject{}, err
	}
	if _, known := formats[all[0].Format]; !known || all[0].Format == "jwt_id" {
		return Subject{}, fmt.Errorf("the format %.50q is not supported", all[0].Format)
	}
	return all[0], nil
}

// globalUser returns the revocations for a user, without bounds.
func (r *Receiver) globalUser(ctx context.Context, s Subject) ([]valetkey.Revocation, error) {
	if s.Format == "iss_sub" {
		switch {
		case r.isOurs(s.Issuer):
			return []valetkey.Revocation{{Issuer: r.cfg.Issuer, Subject: s.ID}}, nil
		case s.Issuer != r.cfg.GlobalRevocation.Issuer: // a sender must not revoke users of others
			return nil, &statusError{http.StatusForbidden, "access_denied", string(foreign), fmt.Errorf("the user is of the issuer %.200q", s.Issuer)}
		}
	}
	if r.cfg.Resolve == nil && s.Format != "iss_sub" {
		return nil, &statusError{http.StatusBadRequest, invalidRequest, string(unresolved), fmt.Errorf("the format %.50q is not supported here", s.Format)}
	}
	subs, err := r.resolve(ctx, s)
	if err != nil {
		return nil, err
	}
	if len(subs) == 0 {
		return nil, &statusError{http.StatusNotFound, invalidRequest, string(unresolved), errors.New("the user is unknown here")}
	}
	all := make([]valetkey.Revocation, len(subs))
	for i, sub := range subs {
		all[i] = valetkey.Revocation{Issuer: r.cfg.Issuer, Subject: sub}
	}
	return all, nil
}

// authenticateGlobal verifies the JWT of a request and returns its iat, to which the revocation is bound: a JWT that is used again
// cannot revoke tokens that were issued later.
func (r *Receiver) authenticateGlobal(ctx context.Context, req *http.Request) (issued time.Time, err error) {
	scheme, raw, _, _ := authheader.Read(req.Header["Authorization"])
	if scheme != authheader.Bearer || raw == "" { // after an error there is no scheme
		return issued, unauthenticated(errors.New("no bearer token"))
	}
	c, err := jose.Parse(raw)
	switch {
	case err != nil:
		return issued, unauthenticated(err)
	case !jose.SameType(c.Header.Type, "global-token-revocation+jwt"):
		return issued, unauthenticated(fmt.Errorf("typ is %.50q, not global-token-revocation+jwt", c.Header.Type))
	case !slices.Contains(r.cfg.Algorithms, c.Header.Algorithm):
		return issued, unauthenticated(fmt.Errorf("it is signed with %.20q, which is not allowed", c.Header.Algorithm))
	}
	var iss, sub, aud, exp, iat, nbf strictjson.Value
	if err := strictjson.Object(c.Payload, func(name string, v strictjson.Value) error {
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
		case "nbf":
			nbf = v
		}
		return nil
	}, "iss", "sub", "aud", "exp", "iat", "nbf"); err != nil {
		return issued, unauthenticated(err)
	}
	var issuer, subject string
	var expiry, notBefore time.Time
	audience, err := tokenclaims.Audience(aud, false)
	if err := errors.Join(err,
		tokenclaims.Text(&issuer, "iss", iss, false),
		tokenclaims.Text(&subject, "sub", sub, true),
		tokenclaims.Date(&expiry, "exp", exp, false),
		tokenclaims.Date(&issued, "iat", iat, false),
		tokenclaims.Date(&notBefore, "nbf", nbf, true),
	); err != nil {
		return issued, unauthenticated(err)
	}
	now, leeway := r.cfg.Now(), r.cfg.Leeway
	switch {
	case issuer != r.cfg.GlobalRevocation.Issuer:
		return issued, unauthenticated(fmt.Errorf("iss is %.200q", issuer))
	case !tokenclaims.IsFor(audience, r.cfg.GlobalRevocation.Audience, true):
		return issued, unauthenticated(errors.New("aud is not this endpoint alone"))
	case !now.Before(expiry.Add(leeway)) || notBefore.After(now.Add(leeway)) || issued.After(now.Add(leeway)):
		return issued, unauthenticated(errors.New("it has expired, or is not valid yet"))
	case expiry.Sub(issued) > maxAssertion:
		return issued, unauthenticated(fmt.Errorf("it is valid for longer than %v", maxAssertion))
	}
	if err := (&trust{issuer: r.cfg.GlobalRevocation.Issuer, keys: r.globalKeys}).signed(ctx, c); err != nil {
		var refused *refusal
		if errors.As(err, &refused) {
			return issued, unauthenticated(refused.err)
		}
		return issued, err
	}
	if want := r.cfg.GlobalRevocation.Subject; want != "" && subject != want {
		return issued, &statusError{http.StatusForbidden, "access_denied", "unauthenticated", fmt.Errorf("sub is %.200q", subject)}
	}
	return issued, nil
}
