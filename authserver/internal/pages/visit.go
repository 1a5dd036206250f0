package pages

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/alexedwards/scs/v2"

	"github.com/valetkey/valetkey/authserver/login"
)

// A visit is one request of one browser. Its handler decides on a reply; the session is saved and the response written after
// that.
type visit struct {
	*Pages
	r         *http.Request // its context contains the session
	locale    *locale       // the language of the visitor
	uiLocales string        // the ui_locales of an interaction
	user      *person       // nil: not logged in
	opened    bool          // the session has been loaded
	keeps     bool          // as in the route
}

// visit returns a visit before its session and user are known.
func (p *Pages) visit(r *http.Request) *visit {
	return &visit{Pages: p, r: r, locale: p.locales.choose(r, "")}
}

type handler func(v *visit) (*reply, error)

// A person is the logged-in user of a session.
type person struct {
	login.User
	At    time.Time // of the log-in here
	For   string    // the ID of the interaction that requested it, or ""
	Token string    // must accompany every form of the session

	// Session identifies the session in the grants that begin in it. It is not a secret. A user who logs in again without logging
	// out continues the session.
	Session string

	// Of a log-in that was handed off. Otherwise ACR is empty and AuthTime is At.
	ACR      string    `json:",omitempty"`
	AuthTime time.Time `json:",omitzero"`
}

// Called returns the person's name for pages.
func (u *person) Called() string {
	if u.Display != "" {
		return u.Display
	}
	return u.Name
}

// authTime returns the time at which the user has entered a password, or the like.
func (u *person) authTime() time.Time {
	if u.AuthTime.IsZero() {
		return u.At
	}
	return u.AuthTime
}

const (
	personKey = "person"
	maxForm   = 64 << 10 // bytes
)

// A refusal is an error that is shown to the visitor on a page.
type refusal struct {
	status       int
	title, words message

	next string // the path of a page of ours where the visitor can continue; empty: the start page
}

func (e *refusal) Error() string { return e.title.key }

var (
	errCrossSite = &refusal{status: http.StatusForbidden, title: msg("error.cross_site.title"), words: msg("error.cross_site")}
	errStale     = &refusal{status: http.StatusForbidden, title: msg("error.stale.title"), words: msg("error.stale")}
	errForm      = &refusal{status: http.StatusBadRequest, title: msg("error.form.title"), words: msg("error.form")}
	errNotFound  = &refusal{status: http.StatusNotFound, title: msg("error.not_found.title"), words: msg("error.not_found")}
	errMethod    = &refusal{status: http.StatusMethodNotAllowed, title: msg("error.method.title"), words: msg("error.method")}
	errBusy      = &refusal{status: http.StatusServiceUnavailable, title: msg("error.busy.title"), words: msg("error.busy")}
	errForbidden = &refusal{status: http.StatusForbidden, title: msg("error.forbidden.title"), words: msg("error.forbidden")}

	errNoDirectory = &refusal{status: http.StatusServiceUnavailable, title: msg("error.directory.title"), words: msg("error.directory")}
)

// A route is a handler of pages that are not part of an interaction.
type route struct {
	do handler

	// stale handles a form that was shown before the user of the session has logged in: another one, or the same one again. Its
	// content must not be applied. Nil: a page states that.
	stale handler

	unchecked bool // the account of the user is not looked up
	keeps     bool // the content of the form is kept during a log-in; see draft.go
}

// serve serves a route.
func (p *Pages) serve(rt route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v, err := p.open(r)
		switch {
		case err != nil:
			v = p.visit(r)
		case !rt.unchecked:
			err = v.check()
		}
		do := rt.do
		v.keeps = rt.keeps
		if err == nil && r.Method == http.MethodPost {
			if err = v.readForm(w); err == errStale && rt.stale != nil {
				do, err = rt.stale, nil
			} else if err == errStale {
				err = v.stale()
			}
		}
		var re *reply
		if err == nil {
			re, err = do(v)
			if err == nil && re.location == "" {
				re.notice = v.notice()
			}
			if saved := v.save(w); err == nil { // after a refusal too: values that were taken are gone
				err = saved
			}
		}
		if err != nil {
			v.fail(w, err)
			return
		}
		p.write(w, v, re)
	})
}

// open loads the session of the visitor.
func (p *Pages) open(r *http.Request) (*visit, error) {
	var token string
	if cookie, err := r.Cookie(p.sessions.Cookie.Name); err == nil {
		token = cookie.Value
	}
	ctx, err := p.sessions.Load(r.Context(), token)
	if err != nil {
		return nil, err
	}
	v := p.visit(r.WithContext(ctx))
	v.opened = true
	var who person
	if !v.get(personKey, &who) {
		return v, nil
	}
	if over, err := p.ended(ctx, &who); over || err != nil {
		return v, err
	}
	v.user = &who
	v.touch()
	return v, nil
}

// check looks up the account of the user. If the user no longer exists or has another password, the session ends and the visitor
// is not logged in. Otherwise the user has the current scopes of the account. If the account cannot be looked up, the error is
// errNoDirectory and the session remains.
func (v *visit) check() error {
	if v.user == nil {
		return nil
	}
	ctx := v.r.Context()
	a, err := v.cfg.Account(ctx, v.user.Subject)
	switch {
	case errors.Is(err, login.ErrNoUser), err == nil && v.user.Since.Before(a.Since):
		v.cfg.Logger.InfoContext(ctx, "session ended with its user", "subject", v.user.Subject)
		v.user = nil
		return v.renew()
	case err != nil:
		v.cfg.Logger.ErrorContext(ctx, "user not looked up", "type", v.user.Type, "error", err)
		return errNoDirectory
	}
	if v.cfg.Handoff == nil { // otherwise only the answer of the log-in has them
		v.user.Scopes = a.Scopes
	}
	return nil
}

// readForm refuses a form that a page of another site has sent (RFC 6749, section 10.12), by two checks: the sender that the
// browser reports and, because old browsers report none, the token in our own forms of this session.
func (v *visit) readForm(w http.ResponseWriter) error {
	v.r.Body = http.MaxBytesReader(w, v.r.Body, maxForm)
	if err := v.r.ParseForm(); err != nil {
		return errForm
	}
	if err := v.protection.Check(v.r); err != nil {
		return errCrossSite
	}
	sent := v.r.PostForm.Get("token")
	if v.user != nil && subtle.ConstantTimeCompare([]byte(sent), []byte(v.user.Token)) != 1 {
		return errStale
	}
	return nil
}

// stale returns the refusal of a form that was shown before the user has logged in. It leads back to the page of the form.
func (v *visit) stale() error {
	no := *errStale
	no.words = msg("error.stale", "user", v.user.Called())
	if from, err := url.Parse(v.r.Referer()); err == nil && from.Host != "" && v.ours(from.RequestURI()) {
		no.next = from.RequestURI()
	}
	return &no
}

// save stores the session if the visit has changed it.
func (v *visit) save(w http.ResponseWriter) error {
	ctx := v.r.Context()
	switch v.sessions.Status(ctx) {
	case scs.Modified:
		if v.user != nil {
			ctx = context.WithValue(ctx, subjectKey{}, v.user.Subject)
		}
		token, expiry, err := v.sessions.Commit(ctx)
		if err != nil {
			return err
		}
		v.sessions.WriteSessionCookie(ctx, w, token, expiry)
	case scs.Destroyed:
		v.sessions.WriteSessionCookie(ctx, w, "", time.Time{})
	}
	return nil
}

var errOutage = &refusal{status: http.StatusServiceUnavailable, title: msg("error.outage.title"), words: msg("error.outage")}

// fail shows an error: a refusal as it is, anything else as an outage whose details are only in the log.
func (v *visit) fail(w http.ResponseWriter, err error) {
	no, ok := errors.AsType[*refusal](err)
	if !ok {
		v.cfg.Logger.ErrorContext(v.r.Context(), "page not shown", "path", v.r.URL.Path, "error", err)
		no = errOutage
	}
	v.write(w, v, no.reply())
}

// Words and Next are for the template.
func (e *refusal) Words() message { return e.words }
func (e *refusal) Next() string   { return e.next }

func (e *refusal) reply() *reply {
	re := &reply{status: e.status, page: "error", title: e.title, data: e}
	if e.status == http.StatusServiceUnavailable {
		re.wait = 5 * time.Second
	}
	return re
}

// ErrorPage shows a page that describes an error of an authorization request that must not be redirected (RFC 6749, section
// 4.1.2.1).
func (p *Pages) ErrorPage(w http.ResponseWriter, r *http.Request, status int, code, description string) {
	no := &refusal{status: status, title: msg("error.request.title"), words: msg("error.request", "code", code, "problem", description)}
	if status >= http.StatusInternalServerError {
		no = &refusal{status: status, title: errOutage.title, words: errOutage.words}
	}
	p.write(w, p.visit(r), no.reply())
}

// Missing shows a page for a request that no route matches. status is 404, or 405 for a method that the path does not support.
func (p *Pages) Missing(w http.ResponseWriter, r *http.Request, status int) {
	no := errNotFound
	if status == http.StatusMethodNotAllowed {
		no = errMethod
	}
	if r.Method != http.MethodGet { // a form to nowhere: it is not read
		p.visit(r).fail(w, no)
		return
	}
	p.serve(route{do: func(*visit) (*reply, error) { return nil, no }, unchecked: true}).ServeHTTP(w, r)
}

// signedIn wraps a handler for logged-in users, and redirects all others to the log-in page.
func signedIn(h handler) handler {
	return func(v *visit) (*reply, error) {
		switch {
		case v.user != nil:
			return h(v)
		case v.r.Method == http.MethodPost: // it must not be applied to the user who logs in next
			return v.logInFirst(), nil
		default:
			return v.see("/login?return=" + v.r.URL.EscapedPath()), nil
		}
	}
}

// developer wraps a handler for users who may use the portal.
func developer(h handler) handler {
	return signedIn(func(v *visit) (*reply, error) {
		if !v.mayDevelop() {
			return nil, errForbidden
		}
		return h(v)
	})
}

// mayDevelop reports whether the visitor may use the portal. For a visitor who is not logged in, it reports whether any user
// may.
func (v *visit) mayDevelop() bool {
	may := v.cfg.Developers
	return may == nil || v.user == nil && len(may) > 0 || v.user != nil && slices.Contains(may, v.user.Type)
}

// begin makes the session one of the user.
func (v *visit) begin(u *login.User, forID string) error {
	session := newToken()
	switch {
	case v.user == nil:
	case v.user.Subject == u.Subject && v.user.Session != "":
		session = v.user.Session
	default: // another user takes over the browser
		if err := v.endGrants(); err != nil {
			return err
		}
	}
	if err := v.renew(); err != nil {
		return err
	}
	v.user = &person{User: *u, At: time.Now(), For: forID, Token: newToken(), Session: session}
	if err := v.put(personKey, v.user); err != nil {
		return err
	}
	return v.describeSession()
}

// endGrants ends the grants that began in the session, if the server does so.
func (v *visit) endGrants() error {
	if v.cfg.EndGrants == nil || v.user.Session == "" {
		return nil
	}
	if err := v.cfg.EndGrants(v.r.Context(), v.user.Session); err != nil {
		return fmt.Errorf("end the grants of the session: %w", err)
	}
	return nil
}

// end logs out. If the grants of the session cannot be ended, the session remains, so that the user can try again.
func (v *visit) end() error {
	if v.user != nil {
		if err := v.endGrants(); err != nil {
			return err
		}
		v.cfg.Logger.InfoContext(v.r.Context(), "logged out", "subject", v.user.Subject)
	}
	v.user = nil
	return v.renew()
}

// renew replaces the session by a new one with a new token, so that a session planted in the browser is worthless. Of its
// values, only the code of a device remains.
func (v *visit) renew() error {
	var code string
	onDevice := v.get(deviceKey, &code)
	if err := v.sessions.Destroy(v.r.Context()); err != nil {
		return fmt.Errorf("end the session: %w", err)
	}
	if onDevice {
		return v.put(deviceKey, code)
	}
	return nil
}
