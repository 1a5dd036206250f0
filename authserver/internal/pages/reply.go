package pages

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"time"
)

// A reply is the response that a handler has decided on: a page, or a redirect if location is set.
type reply struct {
	status   int    // zero: 200
	location string // "": a page

	page       string
	title      message
	data       any
	problems   []problem     // with the input; the status is then 422 unless it is set
	wait       time.Duration // until a retry is useful
	formAction string        // other destinations of forms, as a CSP source
	cookie     *http.Cookie  // nil: none
	self       string        // the path that shows the page again with GET; empty: that of the request
	locale     *locale       // that the visitor has chosen; nil: none
	instead    *locale       // the one before
	notice     *message      // the result of the form before; nil: none
	quiet      bool          // without links to other pages: the user is about to decide
}

// A problem is an error in a field of a form; without a Field, it concerns the form as a whole.
type problem struct {
	Field string
	Words message
}

// see redirects to a page of ours. The status is 303, also after a form, so that a password is never forwarded (RFC 9700,
// section 4.12).
func (p *Pages) see(path string) *reply { return &reply{location: p.base + path} }

// A frame is the data that the layout of every page uses.
type frame struct {
	Title             template.HTML
	WindowTitle       string // without markup
	Site, Base, Style string
	Icon              asset
	Logo              *asset
	Links             Links
	User              *person
	Developer         bool // may use the portal
	Sessions          bool // there is a page of sessions
	Password          bool // the user can change the password here
	Quiet             bool
	Self              string    // the path that shows the page again
	Languages         []*locale // the others
	Problems          []problem
	Notice            *message
	Known             bool // whether a user is logged in; if not, User is nil
	Data              any
}

// Token returns the token of forms.
func (f frame) Token() string {
	if f.User == nil {
		return ""
	}
	return f.User.Token
}

// Once returns a token for a form that is applied once; see [once].
func (f frame) Once() string { return newToken() }

// Problem returns the problem of a field, or nil.
func (f frame) Problem(field string) *message {
	for i := range f.Problems {
		if f.Problems[i].Field == field {
			return &f.Problems[i].Words
		}
	}
	return nil
}

// write writes the response. Its headers are those of every page.
func (p *Pages) write(w http.ResponseWriter, v *visit, re *reply) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Vary", "Accept, Accept-Language, Cookie")
	// Only the stylesheet and images of ours may be loaded, no script runs, and the page cannot be framed (RFC 6749, section 10.13; RFC 9700,
	// section 4.16). There are no headers for cross-origin requests, because no page is meant for them (RFC 9700, section 2.6).
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'"+p.formActions(re))
	h.Set("X-Frame-Options", "DENY")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	// No other origin learns a URL (RFC 9700, section 4.2.4). With no-referrer, browsers would also send "Origin: null" with our
	// own forms, and over plain http they send nothing else about the sender.
	h.Set("Referrer-Policy", "same-origin")
	if re.cookie != nil {
		http.SetCookie(w, re.cookie)
	}
	if re.locale != nil {
		v.remember(w, re.locale, re.instead)
	} else if t := p.locales.matching(cmp.Or(v.uiLocales, v.r.URL.Query().Get("ui_locales"))); t != nil && t == v.locale {
		v.remember(w, t, nil) // for the pages that follow
	}
	if re.wait > 0 {
		h.Set("Retry-After", fmt.Sprint(int64((re.wait+time.Second-1)/time.Second)))
	}
	if re.location != "" {
		h.Set("Location", re.location)
		w.WriteHeader(http.StatusSeeOther)
		return
	}
	status := re.status
	switch {
	case status != 0:
	case len(re.problems) > 0:
		status = http.StatusUnprocessableEntity
	default:
		status = http.StatusOK
	}
	var body bytes.Buffer
	err := v.locale.pages[re.page].Execute(&body, frame{
		Title: v.locale.text(re.title), WindowTitle: v.windowTitle(re), Site: p.cfg.Name, Base: p.base, Style: p.look.style.path, Icon: p.look.favicon, Logo: p.look.logo, Links: p.cfg.Links, User: v.user, Problems: re.problems, Notice: re.notice, Data: re.data, Known: v.opened && re.page != "login", Quiet: re.quiet,
		Self: cmp.Or(re.self, v.self()), Languages: slices.DeleteFunc(slices.Clone(p.locales.all), func(t *locale) bool { return t == v.locale }),
		Developer: v.mayDevelop(), Sessions: v.cfg.EndUser != nil && v.user != nil, Password: v.mayChangePassword(),
	})
	if err != nil {
		p.cfg.Logger.ErrorContext(v.r.Context(), "page not rendered", "page", re.page, "error", err)
		http.Error(w, "the page cannot be shown", http.StatusInternalServerError)
		return
	}
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Language", v.locale.Tag.String())
	w.WriteHeader(status)
	w.Write(body.Bytes())
}

// self returns the path that shows the page of the request again.
func (v *visit) self() string {
	if v.r.Method == http.MethodPost {
		return v.r.URL.EscapedPath()
	}
	return v.r.URL.RequestURI()
}

// windowTitle returns the title of the browser window.
func (v *visit) windowTitle(re *reply) string {
	title := re.title
	if v.locale.plain(title) != v.cfg.Name {
		title = msg("layout.title", "title", title, "site", v.cfg.Name)
	}
	if len(re.problems) > 0 {
		title = msg("layout.problem", "title", title)
	}
	return v.locale.plain(title)
}

// leadsTo returns the CSP source for forms that end in a redirect to uri. Chromium applies form-action to the whole chain of
// redirects, including those that the application adds within its own domain, so the source is only the scheme.
func leadsTo(uri string) string {
	u, err := url.Parse(uri)
	if err != nil || u.Scheme == "" { // a device
		return ""
	}
	return " " + u.Scheme + ":"
}

func newToken() string { return rand.Text() }
