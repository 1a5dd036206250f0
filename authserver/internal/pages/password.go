package pages

import (
	"errors"

	"github.com/valetkey/valetkey/authserver/login"
)

// ErrFixed is the error of Config.ChangePassword for a user whose password is in the configuration.
var ErrFixed = errors.New("the password of the user is in the configuration")

// mayChangePassword reports whether users of the visitor's type can change their password here.
func (v *visit) mayChangePassword() bool {
	if v.user == nil || v.cfg.ChangePassword == nil {
		return false
	}
	t := v.userType(v.user.Type)
	return t != nil && t.Database
}

// A passwordForm is the data of the page where users change their password.
type passwordForm struct {
	Name string // for password managers
	Keep bool   // other sessions and applications remain
	Done bool
}

func (v *visit) askPassword() (*reply, error) {
	if !v.mayChangePassword() {
		return nil, errForbidden
	}
	return v.passwordPage(passwordForm{Done: v.take(changedKey, new(bool))}), nil
}

// changedKey is the session key of the notice that the password has been changed.
const changedKey = "changed"

func (v *visit) passwordPage(f passwordForm, problems ...problem) *reply {
	f.Name = v.user.Name
	return &reply{page: "password", title: msg("password.title"), data: f, problems: problems}
}

// changePassword replaces the password. The old one is required, and counts as a log-in: a person who finds an open browser can neither
// take over the account nor guess the password faster than at the log-in page.
func (v *visit) changePassword() (*reply, error) {
	if !v.mayChangePassword() {
		return nil, errForbidden
	}
	ctx, form := v.r.Context(), v.r.PostForm
	old, password := form.Get("old"), form.Get("new")
	f := passwordForm{Keep: form.Get("others") == ""}
	var problems []problem
	if old == "" {
		problems = append(problems, problem{"old", msg("password.old.empty")})
	}
	switch err := login.ValidPassword(password); {
	case err != nil && len(password) > maxPassword:
		problems = append(problems, problem{"new", msg("password.new.long")})
	case err != nil:
		problems = append(problems, problem{"new", msg("password.new.short")})
	case password != form.Get("repeat"):
		problems = append(problems, problem{"repeat", msg("password.repeat.differs")})
	case password == old:
		problems = append(problems, problem{"new", msg("password.new.same")})
	}
	if len(problems) > 0 {
		return v.passwordPage(f, problems...), nil
	}
	from := v.cfg.Address(v.r)
	_, err := v.userType(v.user.Type).Login.Login(ctx, from, v.user.Name, old)
	var u *login.User
	if err == nil {
		u, err = v.cfg.ChangePassword(ctx, &v.user.User, old, password, !f.Keep)
	}
	tooMany, many := errors.AsType[*login.TooMany](err)
	switch {
	case many:
		v.cfg.Logger.WarnContext(ctx, "change of a password slowed down", "subject", v.user.Subject, "address", from)
		why := tooSoon(tooMany)
		re := v.passwordPage(f, problem{"old", why.words})
		re.status, re.wait = why.status, why.wait
		return re, nil
	case errors.Is(err, login.ErrRefused):
		v.cfg.Logger.InfoContext(ctx, "change of a password refused", "subject", v.user.Subject, "address", from)
		return v.passwordPage(f, problem{"old", msg("password.old.wrong")}), nil
	case errors.Is(err, ErrFixed):
		return v.passwordPage(f, problem{"", msg("password.fixed")}), nil
	case err != nil:
		return nil, err
	}
	v.cfg.Logger.InfoContext(ctx, "password changed", "subject", u.Subject, "others ended", !f.Keep, "address", from)
	// A new token also for this session: a copy of the old one ends with the other sessions.
	if err := v.begin(u, ""); err != nil {
		return nil, err
	}
	return v.see("/account/password"), v.put(changedKey, true)
}
