package transmitter

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/valetkey/valetkey/authserver/internal/clients"
	"github.com/valetkey/valetkey/authserver/internal/endings"
	"github.com/valetkey/valetkey/authserver/login"
	"github.com/valetkey/valetkey/authserver/store"
)

// kindLogout is the kind of logout tokens that wait to be sent. Its IDs are in the order of time.
//
// Who fills it: users who log out, with one token per application that registered for them. Each is sent at most maxLogouts times within
// a few minutes, and then becomes a dead letter of the client. When it is full, further tokens are dead letters at once. A client whose
// users log out all the time can cause that for others, as far as the store is limited.
const (
	kindLogout = "ssf_logout"
	maxLogouts = 8
	logoutFor  = 2 * time.Minute // the lifetime of a token: OpenID Connect Back-Channel Logout 1.0, section 4
	logoutType = "http://schemas.openid.net/event/backchannel-logout"

	maxSessions = 100 // tokens for one event and client; if there are more, one for all sessions is sent
)

// A loggingOut is a logout token that waits.
type loggingOut struct {
	Client   string    `json:"client"`
	Subject  string    `json:"subject"`
	Session  string    `json:"session,omitempty"`
	Attempts int       `json:"attempts,omitempty"`
	Next     time.Time `json:"next,omitzero"`
}

// logoutsFor returns the logout tokens for an event. The sessions are read before they end.
func (t *Transmitter) logoutsFor(ctx context.Context, e endings.Ending) ([]logout, error) {
	if e.Subject == "" || e.Cause == endings.PasswordKept {
		return nil, nil
	}
	byClient, order := map[string][]string{e.Client: {e.Session}}, []string{e.Client}
	if e.Cause.OfUser() {
		sessions, err := t.cfg.Engine.Sessions(ctx, e.Subject)
		if err != nil {
			return nil, err
		}
		byClient, order = map[string][]string{}, nil
		for _, s := range sessions {
			if byClient[s.Client] == nil {
				order = append(order, s.Client)
			}
			byClient[s.Client] = append(byClient[s.Client], s.ID)
		}
	} else if e.Session == "" {
		return nil, nil
	}
	var all []logout
	for _, id := range order {
		c, err := t.cfg.Clients.About(ctx, id) // fetches no metadata document: a client must not hold up the end of its access
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		unknown := c.Document && len(c.RedirectURIs) == 0 // logOut fetches its document
		switch sessions := byClient[id]; {
		case c.LogoutURI == "" && !unknown:
		case e.Cause.OfUser() && (!c.LogoutSession || len(sessions) > maxSessions): // section 2.4: without sid, all sessions
			all = append(all, logout{Client: id})
		default:
			for _, sid := range sessions {
				all = append(all, logout{id, sid})
			}
		}
	}
	return all, nil
}

func (t *Transmitter) enqueueLogouts(ctx context.Context, event string, o outboxed) error {
	for n, l := range o.Logouts {
		value, err := json.Marshal(loggingOut{Client: l.Client, Subject: o.Ending.Subject, Session: l.Session})
		if err != nil {
			return err
		}
		id := timeID(o.At) + "-" + strconv.Itoa(n) + short(event, l.Client, l.Session)
		_, err = t.cfg.Store.Put(ctx, store.Record{
			Kind: kindLogout, ID: id, Value: value, Expires: time.Now().Add(time.Hour), Keys: []store.Key{{Name: keyClient, Value: l.Client}},
		})
		if errors.Is(err, store.ErrFull) {
			err = t.bury(ctx, "client:"+l.Client, l.Client, item{ID: id}, "too many logout tokens wait")
		}
		if err != nil && !errors.Is(err, store.ErrConflict) {
			return fmt.Errorf("keep a logout token: %w", err)
		}
	}
	if len(o.Logouts) > 0 {
		wake(t.logouts)
	}
	return nil
}

// logOutAll sends logout tokens: those of a client one after the other, and those of different clients at the same time. Clients that
// the operator has not approved share separate places, so their slow endpoints cannot delay approved clients.
func (t *Transmitter) logOutAll(ctx context.Context) {
	var all sync.WaitGroup
	defer all.Wait()
	approved, others := make(chan struct{}, logoutPlaces), make(chan struct{}, logoutPlaces)
	for {
		ids, err := t.loggingOut(ctx)
		if err != nil {
			t.failed(ctx, "logout tokens not sent", err)
		}
		for _, id := range ids {
			places := others
			if c, err := t.cfg.Clients.About(ctx, id); err == nil && c.Approved() {
				places = approved
			}
			select {
			case places <- struct{}{}:
			default:
				continue // at the next scan
			}
			if !t.begin("client:" + id) {
				<-places
				continue
			}
			all.Go(func() {
				defer func() {
					t.finish("client:" + id)
					<-places
				}()
				if err := t.logOutClient(ctx, id); err != nil {
					t.failed(ctx, "logout tokens not sent", err, "client", id)
				}
			})
		}
		if !wait(ctx, rescan, t.logouts) {
			return
		}
	}
}

const logoutPlaces = 16

// loggingOut returns the clients that have logout tokens to be sent now.
func (t *Transmitter) loggingOut(ctx context.Context) (ids []string, err error) {
	const page = 500
	seen := map[string]bool{}
	for after := ""; ; {
		found, err := t.cfg.Store.Find(ctx, kindLogout, store.Key{}, after, page)
		if err != nil {
			return nil, err
		}
		for _, rec := range found {
			after = rec.ID
			var l loggingOut
			if err := json.Unmarshal(rec.Value, &l); err != nil {
				return nil, fmt.Errorf("read a logout token: %w", err)
			}
			if !seen[l.Client] && !time.Now().Before(l.Next) {
				seen[l.Client] = true
				ids = append(ids, l.Client)
			}
		}
		if len(found) < page {
			return ids, nil
		}
	}
}

// logOutClient sends the logout tokens of one client, until one fails.
func (t *Transmitter) logOutClient(ctx context.Context, id string) error {
	leased, release, err := t.lease(ctx, "logout:"+short(id))
	if err != nil || leased == nil {
		return err
	}
	defer release()
	const page = 100
	for after := ""; ; {
		found, err := t.cfg.Store.Find(leased, kindLogout, store.Key{Name: keyClient, Value: id}, after, page)
		if err != nil {
			return err
		}
		for _, rec := range found {
			after = rec.ID
			if sent, err := t.logOut(leased, rec); err != nil || !sent {
				return err
			}
		}
		if len(found) < page {
			return nil
		}
	}
}

// logOut sends one logout token (sections 2.4 and 2.5), and reports whether the client's endpoint can be asked again.
func (t *Transmitter) logOut(ctx context.Context, rec store.Record) (goOn bool, err error) {
	var l loggingOut
	if err := json.Unmarshal(rec.Value, &l); err != nil {
		return false, fmt.Errorf("read a logout token: %w", err)
	}
	if time.Now().Before(l.Next) {
		return true, nil
	}
	c, err := t.cfg.Clients.Get(ctx, l.Client)
	if errors.Is(err, store.ErrNotFound) || err == nil && c.LogoutURI == "" {
		return true, t.cfg.Store.Delete(ctx, kindLogout, rec.ID)
	}
	_, document := errors.AsType[*clients.DocumentError](err)
	_, limited := errors.AsType[*login.TooMany](err)
	if err != nil && !document && !limited {
		return false, err
	}
	claims, token, signing := t.logoutToken(l)
	if signing != nil {
		return false, signing
	}
	status := 0
	if err == nil {
		header := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}
		by := t.http
		if !c.Approved() { // the operator has not chosen its endpoint
			by = t.public
		}
		status, _, _, err = t.post(ctx, by, c.LogoutURI, header, url.Values{"logout_token": {token}}.Encode())
	}
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	reason := fmt.Sprintf("status %d", status)
	switch {
	case err != nil:
		reason = err.Error()
	case status >= 200 && status <= 299: // section 2.8: 200, or 204 of some frameworks
		return true, t.cfg.Store.Delete(ctx, kindLogout, rec.ID)
	}
	if l.Attempts++; l.Attempts >= maxLogouts || status == http.StatusBadRequest {
		if err := t.bury(ctx, "client:"+l.Client, l.Client, item{ID: rec.ID, Claims: claims}, reason); err != nil {
			return false, err
		}
		return status == http.StatusBadRequest, t.cfg.Store.Delete(ctx, kindLogout, rec.ID)
	}
	l.Next = time.Now().Add(firstRetry << l.Attempts)
	if rec.Value, err = json.Marshal(l); err != nil {
		return false, err
	}
	rec.Expires = time.Now().Add(time.Hour)
	if _, err = t.cfg.Store.Put(ctx, rec); errors.Is(err, store.ErrConflict) {
		return true, nil // another process has sent it
	}
	return false, err
}

func (t *Transmitter) logoutToken(l loggingOut) (claims []byte, token string, err error) {
	now := time.Now()
	c := object{
		"iss": t.cfg.Issuer, "aud": l.Client, "sub": l.Subject, "iat": now.Unix(), "exp": now.Add(logoutFor).Unix(), "jti": rand.Text(),
		"events": object{logoutType: object{}},
	}
	if l.Session != "" {
		c["sid"] = l.Session
	}
	if claims, err = json.Marshal(c); err != nil {
		return nil, "", err
	}
	key, err := t.cfg.Keys.Signing(Algorithm)
	if err != nil {
		return nil, "", err
	}
	token, err = key.Sign(object{"typ": "logout+jwt"}, claims)
	return claims, token, err
}
