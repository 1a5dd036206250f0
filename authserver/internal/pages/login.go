package pages

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/valetkey/valetkey/authserver/internal/flow"
	"github.com/valetkey/valetkey/authserver/internal/handoff"
	"github.com/valetkey/valetkey/authserver/login"
)

const (
	maxName     = 255 // bytes, as in package login
	maxPassword = 1024
)

// A loginForm is the data of the log-in page.
type loginForm struct {
	Action string   // where the form is submitted
	Return string   // where to redirect afterwards; empty for an interaction
	Scopes []string // that the user has selected before the log-in became necessary
	Draft  string   // the content of a form that needs the log-in; empty: none
	Client string   // the application that requests the log-in; empty: none
	Types  []UserType
	Type   string
	Name   string
}

// A stop is the reason why a log-in failed.
type stop struct {
	status int
	wait   time.Duration
	words  message
	field  string // that it is about; empty: the form as a whole
}

func (v *visit) showLogin() (*reply, error) {
	back := v.back(v.r.URL.Query().Get("return"))
	if v.user != nil {
		return v.see(back), nil
	}
	if v.r.URL.Query().Has("logged_in") {
		return v.loginPage(loginForm{Action: v.base + "/login", Return: v.base + back}, &stop{
			status: http.StatusBadRequest, words: msg("login.no_cookie"),
		}), nil
	}
	if v.cfg.Handoff != nil {
		return v.handOff(nil, handoff.Then{Location: v.base + back})
	}
	return v.loginPage(loginForm{Action: v.base + "/login", Return: v.base + back}, nil), nil
}

func (v *visit) doLogin() (*reply, error) {
	back := v.back(v.r.PostForm.Get("return"))
	content := v.r.PostForm.Get("draft")
	if stop, err := v.logIn(""); stop != nil || err != nil {
		return v.loginPage(loginForm{Action: v.base + "/login", Return: v.base + back, Draft: content}, stop), err
	}
	if err := v.keepDraft(back, content, "draft.kept"); err != nil {
		return nil, err
	}
	if len(v.r.Cookies()) == 0 { // the browser may keep none; the next request shows whether it does
		return v.see("/login?" + url.Values{"logged_in": {""}, "return": {v.base + back}}.Encode()), nil
	}
	return v.see(back), nil
}

// loggedInBefore handles the log-in form of a page that was loaded before the user has logged in, in another tab.
func (v *visit) loggedInBefore() (*reply, error) {
	back := v.back(v.r.PostForm.Get("return"))
	if content := v.r.PostForm.Get("draft"); content != "" {
		return v.see(back), v.keepDraft(back, content, "draft.kept")
	}
	return v.see(back), v.notify("login.before", "user", v.user.Called())
}

func (v *visit) doLogout() (*reply, error) { return v.afterLogout("/"), v.end() }

// plainPath matches paths that lead nowhere else: without a host, a query and dots.
var plainPath = regexp.MustCompile(`^(/[A-Za-z0-9_-]+)+$`)

// back returns the page of ours with this path, relative to the base, or the start page: a log-in link cannot lead to another
// site.
func (v *visit) back(path string) string {
	rest, ours := strings.CutPrefix(path, v.base)
	if !ours || !plainPath.MatchString(rest) {
		return "/"
	}
	return rest
}

func (v *visit) loginPage(f loginForm, why *stop) *reply {
	f.Types = v.cfg.Logins
	if why != nil { // the input, except for the password
		f.Type, f.Name = v.r.PostForm.Get("type"), v.r.PostForm.Get("name")
	}
	if v.userType(f.Type) == nil {
		f.Type = v.cfg.Logins[0].Type
	}
	re := &reply{page: "login", title: msg("login.title"), data: f}
	if why != nil {
		re.status, re.wait, re.problems = why.status, why.wait, []problem{{why.field, why.words}}
	}
	return re
}

// userType returns the type with this name, or nil.
func (p *Pages) userType(name string) *UserType {
	for i := range p.cfg.Logins {
		if p.cfg.Logins[i].Type == name {
			return &p.cfg.Logins[i]
		}
	}
	return nil
}

// logIn processes the log-in form, for the interaction with that ID unless it is empty. On failure it returns the reason, which
// does not reveal whether the name or the password is wrong.
func (v *visit) logIn(forID string) (*stop, error) {
	ctx, form := v.r.Context(), v.r.PostForm
	name, password := strings.TrimSpace(form.Get("name")), form.Get("password")
	kind := form.Get("type")
	if len(v.cfg.Logins) == 1 {
		kind = v.cfg.Logins[0].Type
	}
	who := v.userType(kind)
	switch {
	case who == nil:
		return &stop{status: http.StatusUnprocessableEntity, words: msg("login.choose_type"), field: "type"}, nil
	case name == "":
		return &stop{status: http.StatusUnprocessableEntity, words: msg("login.empty"), field: "name"}, nil
	case password == "":
		return &stop{status: http.StatusUnprocessableEntity, words: msg("login.empty"), field: "password"}, nil
	}

	from := v.cfg.Address(v.r)
	var user *login.User
	err := login.ErrRefused
	if len(name) <= maxName && len(password) <= maxPassword {
		user, err = who.Login.Login(ctx, from, name, password)
	}
	if err == nil && (user == nil || user.Type != kind || !strings.HasPrefix(user.Subject, kind+":")) {
		err = errors.New("the login answered with a user of another type") // whose subject could be a client's ID
	}
	tooMany, many := errors.AsType[*login.TooMany](err)
	switch {
	case many:
		v.cfg.Logger.WarnContext(ctx, "log-in slowed down", "type", kind, "address", from)
		return tooSoon(tooMany), nil
	case errors.Is(err, login.ErrRefused):
		v.cfg.Logger.InfoContext(ctx, "log-in refused", "type", kind, "address", from)
		return &stop{status: http.StatusUnprocessableEntity, words: msg("login.wrong"), field: "name"}, nil
	case err != nil:
		v.cfg.Logger.ErrorContext(ctx, "log-in not answered", "type", kind, "error", err)
		return &stop{status: http.StatusServiceUnavailable, wait: 10 * time.Second, words: msg("login.outage")}, nil
	}
	if err := v.begin(user, forID); err != nil {
		return nil, fmt.Errorf("log in: %w", err)
	}
	v.cfg.Logger.InfoContext(ctx, "logged in", "subject", user.Subject, "address", from)
	return nil, nil
}

func tooSoon(e *login.TooMany) *stop {
	return &stop{status: http.StatusTooManyRequests, wait: e.RetryAfter, words: msg("too_many", "wait", roundUp(e.RetryAfter))}
}

// roundUp rounds d up to a duration that is easier to read.
func roundUp(d time.Duration) time.Duration {
	unit := time.Second
	if d > 2*time.Minute {
		unit = time.Minute
	}
	return (d + unit - 1).Truncate(unit)
}

// loginFor returns the log-in page as part of an interaction.
func (v *visit) loginFor(in *flow.Interaction, why *stop) *reply {
	f := loginForm{Action: in.ContinueURL, Client: title(in.Client), Name: in.LoginHint, Scopes: v.r.PostForm["scope"]}
	if f.Name == "" && v.user != nil { // again
		f.Name, f.Type = v.user.Name, v.user.Type
	}
	re := v.loginPage(f, why)
	re.formAction, re.self, re.quiet = leadsTo(in.RedirectURI), in.ContinueURL, true
	return re
}
