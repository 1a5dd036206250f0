package engine

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/authserver/internal/flow"
	"github.com/valetkey/valetkey/authserver/store"
)

// Finish applies the decision of the user of an interaction. The browser aborts the first request of a double click, which would
// leave an answered interaction without a code, so the sender cannot abort it.
func (e *Engine) Finish(r *http.Request, in *flow.Interaction, d *flow.Decision) flow.Step {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), longestAnswer)
	defer cancel()
	c := e.authorizeCall(r.WithContext(ctx))
	c.client, c.browser = in.Client, in.Browser
	var p *pending
	for p == nil {
		var err error
		p, err = e.pending(ctx, in.ID)
		switch {
		case errors.Is(err, store.ErrNotFound):
			return e.over(c, &flow.Ended{Client: c.client})
		case err != nil:
			return e.fail(c, err)
		case p.Status != waiting:
			return e.wasAnswered(c, p)
		case in.Fresh && !p.Pushed: // the ID has not been sent to anyone
		default:
			p.Status = answered
			err = e.savePending(ctx, p)
		}
		if errors.Is(err, store.ErrConflict) {
			p = nil
		} else if err != nil {
			return e.fail(c, err)
		}
	}
	if in.Fresh {
		c.to = e.target(&p.request) // an outage is reported to the application
	}
	var to string
	var told *refusal
	if code := refusalOf(d, in, p.At); code != "" {
		told = &refusal{status: http.StatusBadRequest, code: code, description: descriptions[code]}
		e.cfg.Audit(ctx, Event{Name: Refused, Path: c.path, Client: c.client.ID, Error: code})
		to = e.target(&p.request).with(e.cfg.Issuer, told.params())
	} else {
		response, err := e.grantTo(c, p, in, d)
		if err != nil {
			return e.fail(c, err)
		}
		to = e.target(&p.request).with(e.cfg.Issuer, response)
	}
	informed := d.Denied && d.Informed
	if p.Status == answered {
		e.keepAnswer(c, p, lastAnswer{Said: d.Said, To: to, At: time.Now(), Informed: informed}, told)
	}
	if told == nil {
		return flow.Step{Location: to}
	}
	return depart(c, to, told, informed)
}

const longestAnswer = 30 * time.Second

// grantTo returns the parameters of the response to a request that the user has allowed: a code, or a token (RFC 6749, sections
// 4.1.2 and 4.2.2).
func (e *Engine) grantTo(c *call, p *pending, in *flow.Interaction, d *flow.Decision) (url.Values, error) {
	ctx := c.r.Context()
	g := newGrant(in.Client, in.API, grantedBy(d, in))
	g.identity, g.Details = identityOf(d), detailsBy(d, in)
	event := Event{
		Name: Granted, Path: c.path, Client: g.Client, Subject: g.Subject, Audience: g.Audience, Scope: g.Scopes, Grant: g.ID,
	}
	if in.Implicit {
		said, err := e.issue(c, g)
		if err != nil {
			return nil, err
		}
		e.cfg.Audit(ctx, event)
		return url.Values{
			"access_token": {said.AccessToken}, "token_type": {said.TokenType}, "expires_in": {strconv.FormatInt(said.ExpiresIn, 10)},
			"scope": {said.Scope},
		}, nil
	}
	code := secret()
	g.code, g.CodeEnds = store.Digest(code), time.Now().Add(e.cfg.CodeLifetime)
	g.RedirectURI, g.Challenge, g.CodeKey = p.RedirectURI, p.Challenge, p.Key
	if err := e.saveGrant(ctx, g, g.CodeEnds.Add(e.lifetime(in.Client, in.API)+time.Second)); err != nil {
		return nil, err
	}
	e.cfg.Audit(ctx, event)
	return url.Values{"code": {code}}, nil
}

// descriptions are the descriptions of the errors that a decision may have; the first is for any other. RFC 6749, section
// 4.1.2.1; OpenID Connect Core 1.0, section 3.1.2.6; RFC 9470, section 5.
var descriptions = map[string]string{
	"access_denied":        "the user, or the server for the user, has denied the request",
	"login_required":       "the user has to log in",
	"consent_required":     "the user has to consent",
	"interaction_required": "the user has to be asked",
	unmet:                  "the user's log-in does not meet the requested acr_values",
}

const unmet = "unmet_authentication_requirements"

// meets reports whether one of the available acr values is among those requested.
func meets(asked []string, had ...string) bool {
	return slices.ContainsFunc(had, func(acr string) bool { return slices.Contains(asked, acr) })
}

// refusalOf returns the error code of a decision that grants nothing, or "". began is in Unix seconds.
func refusalOf(d *flow.Decision, in *flow.Interaction, began int64) string {
	switch {
	case d.Denied && descriptions[d.Error] != "":
		return d.Error
	case d.Denied, d.User == nil, grantedBy(d, in).Len() == 0 && (in.Scopes.Len() > 0 || len(detailsBy(d, in)) == 0):
		return "access_denied"
	case in.MaxAge >= 0 && d.AuthTime.Unix() < began-int64(in.MaxAge.Seconds()):
		return "login_required" // regardless of the pages
	case len(in.ACRValues) > 0 && !meets(in.ACRValues, d.ACR):
		return unmet
	default:
		return ""
	}
}

// grantedBy returns the scopes that the user has allowed, out of those that were requested and that the user may allow.
func grantedBy(d *flow.Decision, in *flow.Interaction) valetkey.Scopes {
	return valetkey.NewScopes(slices.DeleteFunc(d.Scopes.Slice(), func(s string) bool {
		return !in.Scopes.Has(s) || d.User.Scopes != nil && !slices.Contains(d.User.Scopes, s)
	})...)
}

// detailsBy returns the requested details that the user may allow.
func detailsBy(d *flow.Decision, in *flow.Interaction) []flow.Detail {
	return flow.Allowable(in.Details, d.User.Scopes)
}

// A double click submits a form twice, and the browser discards the first response: the redirect with the code. Therefore the
// redirect is kept with the request, and an equal submission gets it again.
//
// It is sealed under the ID of the interaction and the browser's cookie, of which the store has only the digests. Who can fill
// it: a browser that answers an interaction, which has its request in the store anyway; the record grows once, by the redirect,
// and its expiry does not change. What happens when the store is full or down: the response is sent but not kept. Whom that
// hurts: that browser, which cannot repeat its submission.

// A lastAnswer is the final response of an interaction.
type lastAnswer struct {
	Said     string    `json:"said"` // Decision.Said
	To       string    `json:"to"`   // the redirect
	At       time.Time `json:"at"`
	Code     string    `json:"code,omitempty"` // of an error
	Words    string    `json:"words,omitempty"`
	Informed bool      `json:"informed,omitempty"`
}

// seal seals an answer so that only the browser of the interaction can get it.
func (p *pending) seal(browser string) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, []byte(p.id+browser), nil, "valetkey answer to an interaction", 32)
	if err != nil {
		return nil, fmt.Errorf("derive the seal of an answer: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("make the seal of an answer: %w", err)
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// keepAnswer keeps the redirect that a decision has led to; told is nil if it contains no error.
func (e *Engine) keepAnswer(c *call, p *pending, last lastAnswer, told *refusal) {
	if told != nil {
		last.Code, last.Words = told.code, told.description
	}
	text, err := json.Marshal(last)
	var seal cipher.AEAD
	if err == nil {
		seal, err = p.seal(c.browser)
	}
	if err == nil {
		p.Answer = base64.RawURLEncoding.EncodeToString(seal.Seal(nil, nil, text, nil))
		err = e.savePending(c.r.Context(), p)
	}
	if err != nil {
		e.cfg.Logger.WarnContext(c.r.Context(), "answer not kept: the user cannot repeat it", "error", err)
	}
}

func (p *pending) open(browser string) (last lastAnswer, ok bool) {
	sealed, err := base64.RawURLEncoding.DecodeString(p.Answer)
	if p.Answer == "" || err != nil {
		return last, false
	}
	seal, err := p.seal(browser)
	if err != nil {
		return last, false
	}
	plain, err := seal.Open(nil, nil, sealed, nil)
	return last, err == nil && json.Unmarshal(plain, &last) == nil
}

// wasAnswered returns the step for a request to an interaction that was answered before.
func (e *Engine) wasAnswered(c *call, p *pending) flow.Step {
	if p.Browser != store.Digest(c.browser) {
		return e.otherBrowser(c)
	}
	mentioned := c.client
	if err := e.find(c, p.Client); errors.Is(err, errClient) {
		return e.over(c, &flow.Ended{Client: mentioned})
	} else if err != nil {
		return e.fail(c, err)
	}
	return flow.Step{Answered: &flow.Ended{Answered: true, Client: c.client, RedirectURI: p.RedirectURI, ID: p.id, Browser: c.browser}}
}

// otherBrowser returns the step for a request of a browser that the interaction did not begin in: the error is for its user.
func (e *Engine) otherBrowser(c *call) flow.Step {
	c.to = target{}
	step := e.fail(c, errBrowser)
	step.Ended = &flow.Ended{NoCookie: c.browser == "", Elsewhere: c.browser != "", Client: e.mentioned(c.r)}
	return step
}

// The first of two equal requests may not have its code yet when the second one looks for it.
const (
	firstLook = 10 * time.Millisecond // doubled each time
	lastLook  = time.Second           // in total, the looks take twice as long
)

// Repeat responds to a request to an interaction that was answered before: with the redirect that an equal request got, as long
// as that is useful, or with a page that leads back.
func (e *Engine) Repeat(r *http.Request, over *flow.Ended, said *string) flow.Step {
	c := e.authorizeCall(r)
	c.client = over.Client
	if said == nil {
		return e.over(c, over)
	}
	p, err := e.pending(r.Context(), over.ID)
	for look := firstLook; err == nil && p.Answer == "" && look <= lastLook; look *= 2 {
		select {
		case <-time.After(look):
			p, err = e.pending(r.Context(), over.ID)
		case <-r.Context().Done():
			err = r.Context().Err()
		}
	}
	switch {
	case errors.Is(err, store.ErrNotFound):
		return e.over(c, over)
	case err != nil:
		return e.fail(c, err)
	}
	last, ok := p.open(over.Browser)
	if !ok || *said != last.Said || time.Since(last.At) >= e.cfg.CodeLifetime || !registered(c.client, p.RedirectURI) {
		return e.over(c, over)
	}
	switch useful, err := e.useful(r.Context(), last.To); {
	case err != nil:
		return e.fail(c, err)
	case !useful:
		return e.over(c, over)
	case last.Code == "":
		return flow.Step{Location: last.To}
	}
	return depart(c, last.To, &refusal{status: http.StatusBadRequest, code: last.Code, description: last.Words}, last.Informed)
}

// useful reports whether a redirect may be sent once more: it has no code, or a code that has not been redeemed. A client that
// presents a code twice loses its grant.
func (e *Engine) useful(ctx context.Context, to string) (bool, error) {
	u, err := url.Parse(to)
	if err != nil {
		return false, nil
	}
	code := u.Query().Get("code")
	if code == "" {
		return true, nil
	}
	g, err := e.findGrant(ctx, keyCode, code)
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	return err == nil && g.Redeemed.IsZero() && g.live(), err
}

// over returns the step for an interaction that has ended.
func (e *Engine) over(c *call, over *flow.Ended) flow.Step {
	c.to = target{}
	words := "the request has expired, or there is none: go back to the application and start again"
	if over.Answered {
		words = "the request has been answered: go back to the application and start again"
	}
	c.client = over.Client
	step := e.fail(c, invalidRequest(words))
	step.Ended = over
	return step
}
