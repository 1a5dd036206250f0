package signals

import (
	"context"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"slices"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/jose"
	"github.com/valetkey/valetkey/internal/mistakes"
	"github.com/valetkey/valetkey/internal/strictjson"
	"github.com/valetkey/valetkey/internal/tokenclaims"
)

// LogoutConfig configures [Receiver.Logout]. The zero value accepts no logout tokens.
type LogoutConfig struct {
	// Audience lists the client IDs whose logout tokens are accepted: those of the clients that register the URL of the handler as their
	// backchannel_logout_uri. Required for Logout.
	Audience []string

	// JWKSURL is the URL of the keys of Config.Issuer. Empty: the metadata of the issuer contains it.
	JWKSURL string

	// AllowUntyped accepts logout tokens with the typ JWT, or without typ. OpenID Connect Back-Channel Logout 1.0, section 2.4, only
	// recommends logout+jwt, and many providers do not send it.
	AllowUntyped bool
}

func (c *LogoutConfig) check(wrong *mistakes.List) {
	for i, a := range c.Audience {
		wrong.AddIf(a == "", fmt.Sprintf("Logout.Audience[%d]", i), "is empty")
	}
	wrong.AddIf(len(c.Audience) == 0 && (c.AllowUntyped || c.JWKSURL != ""), "Logout.Audience", "required for logout tokens")
}

// maxForm is the maximum size of the body of a logout request: a token and its name.
const maxForm = jose.MaxToken + 1024

// Logout returns the handler of OpenID Connect Back-Channel Logout 1.0: the issuer posts a logout token, which revokes the tokens of a
// session or, without sid, all tokens of a user. It answers 200 once the revocations are in force and kept, 400 for an invalid token, and
// 503 if a later attempt can succeed. Without [LogoutConfig].Audience it answers 404.
//
// A logout token that is sent twice changes nothing the second time: the revocation is bound to its iat.
func (r *Receiver) Logout() http.Handler {
	slots := make(chan struct{}, maxPushes)
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Cache-Control", "no-store") // section 2.8
		switch {
		case r.logoutKeys == nil:
			w.WriteHeader(http.StatusNotFound)
			return
		case !onlyPost(w, req):
			return
		}
		if kind, _, err := mime.ParseMediaType(req.Header.Get("Content-Type")); err != nil || kind != "application/x-www-form-urlencoded" { // section 2.5
			answerError(w, http.StatusBadRequest, invalidRequest, "the Content-Type is not application/x-www-form-urlencoded")
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
		req.Body = http.MaxBytesReader(w, req.Body, maxForm)
		if err := req.ParseForm(); err != nil {
			answerError(w, http.StatusBadRequest, invalidRequest, "the form could not be read")
			return
		}
		tokens := req.PostForm["logout_token"]
		if len(tokens) != 1 {
			answerError(w, http.StatusBadRequest, invalidRequest, fmt.Sprintf("the form has %d logout_token, not one", len(tokens)))
			return
		}
		ctx, cancel := context.WithTimeout(req.Context(), pushTimeout)
		defer cancel()
		if err := r.logout(ctx, tokens[0]); err != nil {
			r.answer(w, err)
		} // otherwise 200 without a body (section 2.8), which net/http sends
	})
}

// logout applies a logout token.
func (r *Receiver) logout(ctx context.Context, raw string) error {
	t, err := r.verifyLogout(ctx, raw)
	if err != nil {
		return r.refused(ctx, err)
	}
	if !slices.Contains(r.cfg.Events, Logout) {
		r.counts.add(string(disabled))
		return nil
	}
	b := r.issuerBounds(ctx, t.issued, Logout)
	revocation := valetkey.Revocation{Issuer: r.cfg.Issuer, SessionID: t.session, Before: b.before, At: b.at, Until: b.until}
	var all []valetkey.Revocation
	if t.session != "" {
		all = append(all, revocation)
	}
	if t.session == "" || r.cfg.Widen && t.subject != "" { // section 2.4: without sid, all sessions of the user
		revocation.SessionID, revocation.Subject = "", t.subject
		all = append(all, revocation)
	}
	if err := r.feed.deliver(ctx, all)[0]; err != nil {
		r.counts.add("failed")
		return err
	}
	r.counts.add(string(applied))
	return nil
}

// issuerBounds returns the bounds of an event at a time by the clock of the issuer of the tokens.
func (r *Receiver) issuerBounds(ctx context.Context, when time.Time, event Event) bounds {
	b := r.boundsAt(ctx, when, event)
	if b.before.IsZero() {
		b.before, b.at = b.at, time.Time{}
	}
	return b
}

// A logoutToken is the content of a logout token.
type logoutToken struct {
	subject, session string
	issued           time.Time
}

// verifyLogout verifies a logout token (section 2.6).
func (r *Receiver) verifyLogout(ctx context.Context, raw string) (*logoutToken, error) {
	c, err := jose.Parse(raw)
	switch {
	case err != nil:
		return nil, &refusal{invalidRequest, err}
	case !jose.SameType(c.Header.Type, "logout+jwt") && !(r.cfg.Logout.AllowUntyped && (c.Header.Type == "" || jose.SameType(c.Header.Type, "JWT"))):
		return nil, refuse(invalidRequest, "typ is %.50q, not logout+jwt", c.Header.Type)
	case !slices.Contains(r.cfg.Algorithms, c.Header.Algorithm):
		return nil, refuse(invalidRequest, "it is signed with %.20q, which is not allowed", c.Header.Algorithm)
	}
	var iss, sub, sid, aud, exp, iat, jti, events, nonce strictjson.Value
	err = strictjson.Entries(c.Payload, func(name string, v strictjson.Value) error {
		switch {
		case name == "nonce": // its presence is a mistake
			nonce = v
			return nil
		case v.IsNull():
			return nil
		}
		switch name {
		case "iss":
			iss = v
		case "sub":
			sub = v
		case "sid":
			sid = v
		case "aud":
			aud = v
		case "exp":
			exp = v
		case "iat":
			iat = v
		case "jti":
			jti = v
		case "events":
			events = v
		}
		return nil
	}, "iss", "sub", "sid", "aud", "exp", "iat", "jti", "events", "nonce")
	if err != nil {
		return nil, &refusal{invalidRequest, err}
	}
	var t logoutToken
	var issuer, id string
	var expiry time.Time
	if err := errors.Join(
		tokenclaims.Text(&issuer, "iss", iss, false),
		tokenclaims.Text(&t.subject, "sub", sub, true),
		tokenclaims.Text(&t.session, "sid", sid, true),
		tokenclaims.Date(&expiry, "exp", exp, false),
		tokenclaims.Date(&t.issued, "iat", iat, false),
		tokenclaims.Text(&id, "jti", jti, false),
	); err != nil {
		return nil, &refusal{invalidRequest, err}
	}
	audience, err := tokenclaims.Audience(aud, false)
	if err != nil {
		return nil, &refusal{invalidRequest, err}
	}
	ours := false
	for a := range audience.All() {
		ours = ours || slices.Contains(r.cfg.Logout.Audience, a)
	}
	now := r.cfg.Now()
	payload, malformed := member(events, string(Logout))
	switch {
	case issuer != r.cfg.Issuer:
		return nil, refuse(invalidRequest, "iss is %.200q, not %q", issuer, r.cfg.Issuer)
	case !ours:
		return nil, refuse(invalidRequest, "aud contains none of the client IDs")
	case !now.Before(expiry.Add(r.cfg.Leeway)):
		return nil, refuse(invalidRequest, "it has expired at %s", expiry.UTC().Format(time.RFC3339))
	case t.issued.After(now.Add(r.cfg.Leeway)):
		return nil, refuse(invalidRequest, "its iat is in the future")
	case malformed != nil || !payload.IsObject(): // section 2.6, step 6
		return nil, refuse(invalidRequest, "events does not contain the logout event with an object")
	case nonce != nil: // step 7
		return nil, refuse(invalidRequest, "nonce is present")
	case t.subject == "" && t.session == "": // step 5
		return nil, refuse(invalidRequest, "both sub and sid are missing")
	case len(t.subject) > maxIdentifier || len(t.session) > maxIdentifier:
		return nil, refuse(invalidRequest, "sub or sid has more than %d bytes", maxIdentifier)
	}
	if err := (&trust{issuer: r.cfg.Issuer, keys: r.logoutKeys}).signed(ctx, c); err != nil {
		return nil, err
	}
	return &t, nil
}
