package pages

import (
	"bytes"
	"cmp"
	"embed"
	"errors"
	"fmt"
	"html"
	"html/template"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/text/language"

	"github.com/valetkey/valetkey/internal/config"
)

// Every text of the pages is in messages/LANGUAGE.yaml, by key. All files have the same keys, and every key is used. A text is HTML:
// it may contain the elements strong, em, code, bdi, a and span, and placeholders such as {client}. The value of a placeholder is
// escaped, unless it is a message itself.
//
// golang.org/x/text/language chooses the file: its rules for related languages (de-AT for de, or zh-TW for zh-Hant) come from the
// data of Unicode (CLDR). Its catalog and message packages are not used, because they need a generator, and put neither a message
// nor its markup where a translator would look for them.
//
//go:embed messages
var messageFiles embed.FS

// A message is a text for users whose language is chosen when the page is rendered.
type message struct {
	key  string
	args []any  // names of placeholders and their values, alternating
	raw  string // without a key: a text that is the same in all languages, such as the name of an application
}

// msg returns the message with that key. args are names of placeholders and their values, alternating: strings, integers,
// durations, messages, or values of type day, instant or ago.
func msg(key string, args ...any) message { return message{key: key, args: args} }

// verbatim returns a message with a text that is not ours.
func verbatim(text string) message { return message{raw: text} }

// A day and an instant are times in messages. They are shown in UTC, because the time zone of the user is
// unknown.
type (
	day     time.Time
	instant time.Time
)

// A locale renders messages in one language.
type locale struct {
	Tag      language.Tag
	Name     string // in the language itself
	messages map[string]string
	pages    map[string]*template.Template // by the name of the file, without .html
}

// locales are all languages, English first, which is the default.
type locales struct {
	all     []*locale
	matcher language.Matcher
}

func readLocales() (*locales, error) {
	names, err := fs.Glob(messageFiles, "messages/*.yaml")
	if err != nil {
		return nil, fmt.Errorf("list the messages: %w", err)
	}
	ts := &locales{}
	for _, name := range names {
		text, err := messageFiles.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("read the messages: %w", err)
		}
		var file struct {
			Messages map[string]string `yaml:"messages,required"`
		}
		if err := config.Read(name, bytes.NewReader(text), &file, func(*config.Document) error { return nil }); err != nil {
			return nil, fmt.Errorf("read the messages: %w", err)
		}
		tag, err := language.Parse(strings.TrimSuffix(path.Base(name), ".yaml"))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		ts.all = append(ts.all, &locale{Tag: tag, Name: file.Messages["language"], messages: file.Messages})
	}
	for _, t := range ts.all {
		if err := t.readPages(); err != nil {
			return nil, err
		}
	}
	first := slices.IndexFunc(ts.all, func(t *locale) bool { return t.Tag == language.English })
	if first < 0 {
		return nil, errors.New("the messages lack English")
	}
	ts.all[0], ts.all[first] = ts.all[first], ts.all[0]
	var tags []language.Tag
	for _, t := range ts.all {
		tags = append(tags, t.Tag)
	}
	ts.matcher = language.NewMatcher(tags)
	return ts, nil
}

// matching returns the best language for a list of language tags, in the form of Accept-Language or separated by spaces as in
// ui_locales, or nil if there is none.
func (ts *locales) matching(list string) *locale {
	if len(list) > maxLocales {
		return nil
	}
	if !strings.ContainsAny(list, ",;") {
		list = strings.Join(strings.Fields(list), ",")
	}
	wanted, _, err := language.ParseAcceptLanguage(list)
	if err != nil || len(wanted) == 0 {
		return nil
	}
	_, i, confidence := ts.matcher.Match(wanted...)
	if confidence == language.No {
		return nil
	}
	return ts.all[i]
}

const maxLocales = 500 // bytes; parsing takes time in proportion

// languageCookie is the name of the cookie that holds the language that a visitor or an application has chosen.
const languageCookie = "valetkey_language"

// choose returns the language for a request: from ui_locales (OpenID Connect Core 1.0, section 3.1.2.1), from the cookie, from
// Accept-Language, or else English. uiLocales is the ui_locales of an interaction, or "". A visitor who has replaced a language by
// another one does not get it back by the ui_locales of an application.
func (ts *locales) choose(r *http.Request, uiLocales string) *locale {
	var chosen, instead *locale
	if cookie, err := r.Cookie(languageCookie); err == nil {
		is, was, _ := strings.Cut(cookie.Value, ".")
		chosen, instead = ts.matching(is), ts.matching(was)
	}
	asked := ts.matching(cmp.Or(uiLocales, r.URL.Query().Get("ui_locales")))
	switch {
	case asked != nil && (chosen == nil || asked != instead):
		return asked
	case chosen != nil:
		return chosen
	}
	return cmp.Or(ts.matching(r.Header.Get("Accept-Language")), ts.all[0])
}

// remember stores a language in a cookie. instead is the one that the visitor has replaced by it; nil: an application has passed
// it on.
func (v *visit) remember(w http.ResponseWriter, t, instead *locale) {
	value := t.Tag.String()
	if instead != nil {
		value += "." + instead.Tag.String()
	}
	http.SetCookie(w, &http.Cookie{
		Name: languageCookie, Value: value, Path: "/", MaxAge: 365 * 24 * 60 * 60,
		HttpOnly: true, SameSite: http.SameSiteLaxMode, Secure: v.sessions.Cookie.Secure,
	})
}

// chooseLanguage handles the choice at the foot of every page.
func (v *visit) chooseLanguage() (*reply, error) {
	form := v.r.PostForm
	re := &reply{location: v.base + "/"}
	if back := form.Get("return"); v.ours(back) {
		re.location = back
	}
	re.locale, re.instead = v.locales.matching(form.Get("language")), v.locales.matching(form.Get("instead"))
	return re, nil
}

// ours reports whether uri is a path of this server, possibly with a query. A browser resolves neither to another host.
func (p *Pages) ours(uri string) bool {
	u, err := url.Parse(uri)
	return err == nil && u.Scheme == "" && u.Host == "" && u.User == nil && u.Fragment == "" && !strings.ContainsFunc(uri, isOdd) &&
		strings.HasPrefix(u.Path, p.base+"/") && !strings.Contains(u.Path, "//")
}

// isOdd reports whether browsers drop or replace the character in a URL.
func isOdd(r rune) bool { return r <= ' ' || r == '\\' || r == 0x7f }

// text renders a message.
func (t *locale) text(m message) template.HTML {
	if m.key == "" {
		return template.HTML(html.EscapeString(m.raw))
	}
	text, ok := t.messages[m.key]
	if !ok { // no page has such a key, as the tests show
		return template.HTML(html.EscapeString(m.key))
	}
	return template.HTML(placeholder.ReplaceAllStringFunc(text, func(p string) string {
		for i := 0; i+1 < len(m.args); i += 2 {
			if m.args[i] == p[1:len(p)-1] {
				return string(t.value(m.args[i+1]))
			}
		}
		return p // likewise
	}))
}

var placeholder = regexp.MustCompile(`\{[a-z]+\}`)

// value renders the value of a placeholder.
func (t *locale) value(v any) template.HTML {
	switch v := v.(type) {
	case message:
		return t.text(v)
	case template.HTML:
		return v
	case time.Duration:
		return t.span(v)
	case day:
		return t.date(time.Time(v))
	case ago:
		return t.ago(time.Time(v))
	case instant:
		return t.moment(time.Time(v))
	default:
		return template.HTML(html.EscapeString(fmt.Sprint(v)))
	}
}

// has reports whether the message can be rendered.
func (t *locale) has(m message) bool {
	text, ok := t.messages[m.key]
	for _, p := range placeholder.FindAllString(text, -1) {
		ok = ok && slices.Contains(m.args, any(p[1:len(p)-1]))
	}
	return ok
}

// plain renders a message without markup.
func (t *locale) plain(m message) string {
	return html.UnescapeString(markup.ReplaceAllString(string(t.text(m)), ""))
}

var markup = regexp.MustCompile(`<[^>]*>`)

// span formats a duration, such as "10 minutes".
func (t *locale) span(d time.Duration) template.HTML {
	for _, unit := range []struct {
		length time.Duration
		name   string
	}{{24 * time.Hour, "day"}, {time.Hour, "hour"}, {time.Minute, "minute"}, {time.Second, "second"}} {
		if d < unit.length || d%unit.length != 0 && d < 2*unit.length {
			continue
		}
		if n := d / unit.length; n != 1 {
			return t.text(msg("span."+unit.name+"s", "n", int64(n)))
		}
		return t.text(msg("span." + unit.name))
	}
	return t.text(msg("span.moment"))
}

// ago formats a time in the past, such as "3 days ago", or as a date if that is long ago.
func (t *locale) ago(at time.Time) template.HTML {
	const long = 60 * 24 * time.Hour
	passed := time.Since(at)
	if passed >= long {
		return t.text(msg("ago.date", "date", day(at)))
	}
	for _, unit := range []struct {
		length time.Duration
		name   string
	}{{24 * time.Hour, "day"}, {time.Hour, "hour"}, {time.Minute, "minute"}} {
		switch n := passed / unit.length; {
		case n == 1:
			return t.text(msg("ago." + unit.name))
		case n > 1:
			return t.text(msg("ago."+unit.name+"s", "n", int64(n)))
		}
	}
	return t.text(msg("ago.now"))
}

func (t *locale) date(at time.Time) template.HTML {
	at = at.UTC()
	return t.text(msg("date", "day", at.Day(), "month", msg(fmt.Sprintf("month.%d", at.Month())), "year", at.Year()))
}

func (t *locale) moment(at time.Time) template.HTML {
	return t.text(msg("moment", "date", day(at), "time", at.UTC().Format("15:04:05")))
}

// funcs are the functions of templates.
func (t *locale) funcs() template.FuncMap {
	return template.FuncMap{
		// msg renders a message: its key and its arguments as for the function msg, or a message that a handler has made.
		"msg": func(key any, args ...any) template.HTML {
			switch key := key.(type) {
			case message:
				return t.text(key)
			case *message:
				return t.text(*key)
			default:
				return t.text(msg(key.(string), args...))
			}
		},
		"span": t.span, "date": t.date, "moment": t.moment,
		"lang": t.Tag.String,
	}
}

// translated returns one of the descriptions, by language tag: that in the language, or else the given one.
func (t *locale) translated(description string, descriptions map[string]string) string {
	var tags []language.Tag
	var texts []string
	for tag, text := range descriptions {
		if parsed, err := language.Parse(tag); err == nil { // checked by New
			tags, texts = append(tags, parsed), append(texts, text)
		}
	}
	if len(tags) == 0 {
		return description
	}
	if _, i, confidence := language.NewMatcher(tags).Match(t.Tag); confidence >= language.High {
		return texts[i]
	}
	return description
}
