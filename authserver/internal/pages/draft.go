package pages

import (
	"net/url"
)

// A draft is the content of a form that was sent without a log-in, or before another one: the user has written it, but it must not be
// applied to a user who logs in next. It is kept until that user opens the form, and fills it in.
type draft struct {
	Path string // of the form, below the base
	Form url.Values
}

const (
	draftKey = "draft"
	maxDraft = 16 << 10 // bytes
)

// content returns the content of the form without what belongs to the page it was on, encoded, or "" if it is too long.
func (v *visit) content() string {
	form := url.Values{}
	for name, values := range v.r.PostForm {
		if name != "token" && name != "once" {
			form[name] = values
		}
	}
	if text := form.Encode(); len(text) <= maxDraft {
		return text
	}
	return ""
}

// keepDraft keeps the content of a form, for the logged-in user to look through. The session of a visitor who is not logged in does
// not keep one: anyone could fill the store.
func (v *visit) keepDraft(path, content, notice string) error {
	form, err := url.ParseQuery(content)
	if err != nil || content == "" || len(content) > maxDraft || v.user == nil {
		return nil
	}
	if err := v.put(draftKey, draft{path, form}); err != nil {
		return err
	}
	return v.notify(notice)
}

// draft returns the kept content of the form of this page, once, or nil.
func (v *visit) draft() url.Values {
	var d draft
	if !v.get(draftKey, &d) || v.base+d.Path != v.r.URL.Path {
		return nil
	}
	v.drop(draftKey)
	return d.Form
}

// again shows the form of the request again with its content, because the user has logged in since it was shown.
func (v *visit) again() (*reply, error) {
	path := v.r.URL.Path[len(v.base):]
	return v.see(path), v.keepDraft(path, v.content(), "draft.stale")
}

// logInFirst asks for a log-in in response to a form. The log-in page contains the content of the form if the route keeps it.
func (v *visit) logInFirst() *reply {
	if !v.keeps || v.cfg.Handoff != nil {
		return v.see("/login")
	}
	re := v.loginPage(loginForm{Action: v.base + "/login", Return: v.r.URL.Path, Draft: v.content()}, nil)
	re.self = v.r.URL.Path
	return re
}
