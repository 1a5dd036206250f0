package pages

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/alexedwards/scs/v2"

	"github.com/valetkey/valetkey/authserver/login"
)

// A visit is one request by one browser. Its handler decides on a reply, and only then is the session saved and anything
// written.
type visit struct {
	*Pages
	r    *http.Request // its context holds the session
	user *person       // who has logged in; nil: nobody
}

type handler func(v *visit) (*reply, error)

// A person is who is behind a session.
type person struct {
	login.User
	At    time.Time // of the log-in
	For   string    // the ID of the interaction that asked for it, or ""
	Token string    // what every form of the session has to bring along
}

// Called is the person's name for pages.
func (u *person) Called() string {
	if u.Display != "" {
		return u.Display
	}
	return u.Name
}

const (
	personKey = "person"
	maxForm   = 64 << 10 // bytes
)

// A refusal is an error that the visitor is told, on a page of its own.
type refusal struct {
	status       int
	title, words string
}

func (e *refusal) Error() string { return e.title }

var (
	errCrossSite = &refusal{http.StatusForbidden, "This came from another site", "A page of another website sent this form. If that was you, open the page here and try again."}
	errStale     = &refusal{http.StatusForbidden, "This page is out of date", "You have logged in again since it was shown. Go back, load it again, and try once more."}
	errForm      = &refusal{http.StatusBadRequest, "The form cannot be read", "It is too long or malformed."}
	errNotFound  = &refusal{http.StatusNotFound, "Page not found", "There is nothing here, or nothing that is yours."}
	errForbidden = &refusal{http.StatusForbidden, "Not for your account", "Your account may not use this page."}

	errNoDirectory = &refusal{http.StatusServiceUnavailable, "Sign-in is temporarily unavailable",
		"Your account cannot be checked at the moment. You stay logged in: please try again in a few minutes."}
)

// serve is the one way in and out for pages that are not part of an interaction. With check, the account of the user is looked up
// first.
func (p *Pages) serve(h handler, check bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v, err := p.open(r)
		switch {
		case err != nil:
			v = &visit{Pages: p, r: r}
		case check:
			err = v.check()
		}
		if err == nil && r.Method == http.MethodPost {
			err = v.readForm(w)
		}
		var re *reply
		if err == nil {
			re, err = h(v)
			if saved := v.save(w); err == nil { // after a refusal too: what was taken is gone
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

// open finds out who the visitor is.
func (p *Pages) open(r *http.Request) (*visit, error) {
	var token string
	if cookie, err := r.Cookie(p.sessions.Cookie.Name); err == nil {
		token = cookie.Value
	}
	ctx, err := p.sessions.Load(r.Context(), token)
	if err != nil {
		return nil, err
	}
	v := &visit{Pages: p, r: r.WithContext(ctx)}
	var who person
	if !v.get(personKey, &who) {
		return v, nil
	}
	if over, err := p.ended(ctx, &who); over || err != nil {
		return v, err
	}
	v.user = &who
	return v, nil
}

// check looks up the account of the user. If the user is gone, or has another password, the session ends and the visitor has not
// logged in; otherwise the user has the scopes of the account, whatever they were at the log-in. The error is errNoDirectory if
// the account cannot be looked up, and the session stays.
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
	v.user.Scopes = a.Scopes
	return nil
}

// readForm refuses a form that a page of another site has sent, twice over (RFC 6749, section 10.12): by what the browser
// says about the sender, and, because old browsers say nothing, by the token that our own forms of this session carry.
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

const (
	outageTitle = "Sorry, this does not work just now"
	outageWords = "The trouble is ours. Please try again in a moment."
)

// fail answers with what went wrong: a refusal as it says, anything else as an outage that only the log knows more of.
func (v *visit) fail(w http.ResponseWriter, err error) {
	no, ok := errors.AsType[*refusal](err)
	if !ok {
		v.cfg.Logger.ErrorContext(v.r.Context(), "page not shown", "path", v.r.URL.Path, "error", err)
		no = &refusal{http.StatusServiceUnavailable, outageTitle, outageWords}
	}
	v.write(w, v, no.reply())
}

func (e *refusal) reply() *reply {
	re := &reply{status: e.status, page: "error", title: e.title, data: e.words}
	if e.status == http.StatusServiceUnavailable {
		re.wait = 5 * time.Second
	}
	return re
}

// Error answers with a page that says what is wrong, for requests that must not be redirected too (RFC 6749, section
// 4.1.2.1). Both texts are escaped.
func (p *Pages) Error(w http.ResponseWriter, r *http.Request, status int, title, words string) {
	p.write(w, &visit{Pages: p, r: r}, (&refusal{status, title, words}).reply())
}

// ErrorPage is [Pages.Error] as an engine calls it.
func (p *Pages) ErrorPage(w http.ResponseWriter, r *http.Request, status int, code, description string) {
	if status >= http.StatusInternalServerError {
		p.Error(w, r, status, outageTitle, outageWords)
		return
	}
	p.Error(w, r, status, "This does not work", "The application or link that sent you here has asked for something that cannot be done ("+code+": "+description+").")
}

// signedIn is a handler for those who have logged in, and sends all others to do so.
func signedIn(h handler) handler {
	return func(v *visit) (*reply, error) {
		switch {
		case v.user != nil:
			return h(v)
		case v.r.Method == http.MethodPost: // what was sent is lost; it must not be done by whoever logs in next
			return v.see("/login"), nil
		default:
			return v.see("/login?return=" + v.r.URL.EscapedPath()), nil
		}
	}
}

// developer is a handler for those who may use the portal.
func developer(h handler) handler {
	return signedIn(func(v *visit) (*reply, error) {
		if !v.mayDevelop() {
			return nil, errForbidden
		}
		return h(v)
	})
}

// mayDevelop reports whether the visitor may use the portal: somebody may, as long as nobody has logged in.
func (v *visit) mayDevelop() bool {
	may := v.cfg.Developers
	return may == nil || v.user == nil && len(may) > 0 || v.user != nil && slices.Contains(may, v.user.Type)
}

// begin makes the session one of the user.
func (v *visit) begin(u *login.User, forID string) error {
	if err := v.renew(); err != nil {
		return err
	}
	v.user = &person{User: *u, At: time.Now(), For: forID, Token: newToken()}
	return v.put(personKey, v.user)
}

// end logs out.
func (v *visit) end() error {
	if v.user != nil {
		v.cfg.Logger.InfoContext(v.r.Context(), "logged out", "subject", v.user.Subject)
	}
	v.user = nil
	return v.renew()
}

// renew replaces the session by a new one under a new token: one that somebody has slipped the browser before is worth
// nothing. Of what it held, only the code of a device stays.
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
