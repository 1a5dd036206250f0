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
	"time"

	"github.com/luikyv/go-oidc/pkg/goidc"

	"github.com/valetkey/valetkey/authserver/internal/flow"
	"github.com/valetkey/valetkey/authserver/store"
)

// A double click submits a form twice, and the browser discards the first response: the redirect with the code. Therefore the
// redirect is kept in the session of the interaction, and an equal request gets it again.
//
// It is sealed under the ID of the interaction and the browser's cookie, of which the store has only the digests. Who can fill
// it: a browser that answers an interaction, which has its session in the store anyway; the session grows once, by the redirect,
// and its expiry does not change. What happens when the store is full or down: the response is sent but not kept. Whom that
// hurts: that browser, which cannot repeat its request.

// keptLast is the key under which a session keeps its lastAnswer.
const keptLast = "answer"

// A lastAnswer is the final response of an interaction.
type lastAnswer struct {
	Said     string    `json:"said"` // Decision.Said
	To       string    `json:"to"`   // the redirect
	At       time.Time `json:"at"`
	Code     string    `json:"code,omitempty"` // of an error
	Words    string    `json:"words,omitempty"`
	Informed bool      `json:"informed,omitempty"`
}

// answerSeal seals a response so that only the browser of the interaction can get it.
func answerSeal(id, browser string) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, []byte(id+browser), nil, "valetkey answer to an interaction", 32)
	if err != nil {
		return nil, fmt.Errorf("derive the seal of an answer: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("make the seal of an answer: %w", err)
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// keepAnswer keeps the redirect that a decision of this call has led to; told is nil if it contains no error.
func (e *Engine) keepAnswer(c *call, to string, told *refusal) {
	if c.decided == nil || e.cfg.Said == nil {
		return
	}
	as := c.decided
	last := lastAnswer{Said: c.said, To: to, At: time.Now(), Informed: c.informed}
	if told != nil {
		last.Code, last.Words = told.code, told.description
	}
	text, err := json.Marshal(last)
	var seal cipher.AEAD
	if err == nil {
		seal, err = answerSeal(as.ID, c.browser)
	}
	if err == nil {
		as.Store[keptLast] = base64.RawURLEncoding.EncodeToString(seal.Seal(nil, nil, text, nil))
		err = e.records.SaveSession(c.r.Context(), as)
	}
	if err != nil {
		e.cfg.Logger.WarnContext(c.r.Context(), "answer not kept: the user cannot repeat it", "error", err)
	}
}

func openAnswer(as *goidc.AuthnSession, browser string) (last lastAnswer, ok bool) {
	text, _ := as.Store[keptLast].(string)
	sealed, err := base64.RawURLEncoding.DecodeString(text)
	if text == "" || err != nil {
		return last, false
	}
	seal, err := answerSeal(as.ID, browser)
	if err != nil {
		return last, false
	}
	plain, err := seal.Open(nil, nil, sealed, nil)
	return last, err == nil && json.Unmarshal(plain, &last) == nil
}

// The first of two equal requests may not have its code yet when the second one looks for it.
const (
	firstLook = 10 * time.Millisecond // doubled each time
	lastLook  = time.Second           // in total, the looks take twice as long
)

// again responds to a request to the interaction with this ID when it no longer waits for its user: with the redirect that an
// equal request got, as long as that is useful, or with a page that leads back. lost reports whether this call has lost the race
// for the session, in which case it may only have to be repeated.
func (e *Engine) again(w http.ResponseWriter, c *call, id string, lost bool) {
	c.redirect = "" // only an earlier redirect may be sent there
	e.harden(w)
	as, err := e.finished(c.r.Context(), id)
	over := flow.Ended{Client: c.client}
	switch {
	case errors.Is(err, goidc.ErrNotFound), err == nil && as.Status == goidc.StatusPending && !lost:
		e.end(w, c, over)
		return
	case err != nil:
		e.show(w, c, nil, err)
		return
	case c.browser == "" || as.Store[keptBrowser] != store.Digest(c.browser):
		e.show(w, c, nil, errBrowser)
		return
	case as.Status == goidc.StatusPending, lost && !c.hasDecided && c.r.Method == http.MethodPost: // its form has been read
		e.seeOther(w, e.continueURL(id, as.ClientID))
		return
	}
	if err := e.find(c, as.ClientID); errors.Is(err, errClient) {
		e.end(w, c, over)
		return
	} else if err != nil {
		e.show(w, c, nil, err)
		return
	}
	over = flow.Ended{Answered: true, Client: c.client, RedirectURI: as.RedirectURI}
	said := c.said
	if !c.hasDecided && e.cfg.Said != nil {
		switch said, err = e.cfg.Said(c.page); {
		case errors.Is(err, flow.ErrForm):
			e.end(w, c, over)
			return
		case err != nil:
			e.show(w, c, nil, err)
			return
		}
	}
	last, ok := openAnswer(as, c.browser)
	if !ok || said != last.Said || time.Since(last.At) >= e.cfg.CodeLifetime || !registered(c.client, as.RedirectURI) {
		e.end(w, c, over)
		return
	}
	switch useful, err := e.useful(c.r.Context(), last.To); {
	case err != nil:
		e.show(w, c, nil, err)
		return
	case !useful:
		e.end(w, c, over)
		return
	}
	c.informed = last.Informed
	told := &refusal{status: http.StatusBadRequest, code: last.Code, description: last.Words}
	if last.Code == "" || e.leaves(w, c, last.To, told, nil) {
		e.seeOther(w, last.To)
	}
}

// finished returns the session with this ID. If it has just been answered, finished waits for the response, for about two
// seconds.
func (e *Engine) finished(ctx context.Context, id string) (*goidc.AuthnSession, error) {
	for look := firstLook; ; look *= 2 {
		v, err := e.records.session(ctx, id)
		if err != nil {
			return nil, err
		}
		as := &v.Session
		if as.Status == goidc.StatusPending || as.Store[keptLast] != nil || e.cfg.Said == nil || look > lastLook {
			return as, nil
		}
		select {
		case <-time.After(look):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
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
	g, err := e.records.find(ctx, keyCode, code)
	if errors.Is(err, goidc.ErrNotFound) {
		return false, nil
	}
	return err == nil && g.AuthCodeConsumedAt == 0 && g.RevokedAt == 0, err
}

// end shows that an interaction has ended.
func (e *Engine) end(w http.ResponseWriter, c *call, over flow.Ended) {
	e.harden(w)
	words := "the request has expired, or there is none: go back to the application and start again"
	if over.Answered {
		words = "the request has been answered: go back to the application and start again"
	}
	told := e.explain(c, invalidRequest(words))
	if e.cfg.Ended == nil {
		e.cfg.ErrorPage(w, c.page, told.status, told.code, told.description)
		return
	}
	e.cfg.Ended(w, c.page, &over)
}

// lastingCall returns a call that its sender cannot abort once there is a decision. The browser aborts the first request of a
// double click, which would leave an answered interaction without a code. The caller must call done.
func (e *Engine) lastingCall(r *http.Request) (c *call, done func()) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), longestAnswer)
	stop := context.AfterFunc(r.Context(), cancel)
	c = e.newCall(r.WithContext(ctx))
	c.last = func() { stop() }
	return c, func() { stop(); cancel() }
}

const longestAnswer = 30 * time.Second

func (e *Engine) seeOther(w http.ResponseWriter, to string) {
	w.Header().Set("Location", to)
	w.WriteHeader(http.StatusSeeOther) // RFC 9700, section 4.12
}
