//go:build unix

package e2e_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/html"
)

// A browser loads pages of one site, keeps its cookies, and follows no redirect to another site. It must
// not be used by several goroutines at once.
type browser struct {
	site   string
	others []string // other sites that it follows redirects to
	client *http.Client
	page   *html.Node // the one that is shown; nil: the browser was led away
	at     *url.URL   // its URL, or where the browser was led
}

// newBrowser returns a browser for a site: scheme, host and port of its URL.
func newBrowser(site string) *browser {
	jar, _ := cookiejar.New(nil) // never fails
	b := &browser{site: site}
	b.client = &http.Client{Jar: jar, Timeout: 2 * time.Minute, CheckRedirect: func(next *http.Request, way []*http.Request) error {
		if b.away(next.URL) || len(way) > 10 {
			return http.ErrUseLastResponse
		}
		return nil
	}}
	return b
}

func (b *browser) away(u *url.URL) bool {
	site := u.Scheme + "://" + u.Host
	return site != b.site && !slices.Contains(b.others, site)
}

// open opens a URL and answers every page that asks for something, as alice: she logs in, sends the code of a device, and allows
// all. It returns where the browser is led away to, or the URL of the page that asks for nothing.
func (b *browser) open(to string) (*url.URL, error) {
	r, err := http.NewRequest(http.MethodGet, to, nil)
	if err != nil {
		return nil, err
	}
	if err := b.do(r); err != nil {
		return nil, err
	}
	for range 10 {
		var err error
		switch {
		case b.page == nil:
			return b.at, nil
		case b.form("Log in") != nil:
			err = b.press("Log in", url.Values{"name": {"alice"}, "password": {password}})
		case b.form("Allow") != nil:
			err = b.press("Allow", nil)
		case b.form("Continue") != nil:
			err = b.press("Continue", nil)
		default:
			return b.at, nil
		}
		if err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("%s asks for more and more: %s", b.at.Path, text(b.page))
}

func (b *browser) do(r *http.Request) error {
	resp, err := b.client.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b.page, b.at = nil, resp.Request.URL
	if location, err := resp.Location(); err == nil {
		b.at = location
		return nil
	}
	page, err := html.Parse(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s: %s", b.at.Path, resp.Status, text(page))
	}
	b.page = page
	return nil
}

// form returns the form that has the button, or nil.
func (b *browser) form(button string) *html.Node {
	for form := range elements(b.page, "form") {
		for n := range elements(form, "button") {
			if text(n) == button {
				return form
			}
		}
	}
	return nil
}

// press sends the form that has the button, with its values but for those in fill.
func (b *browser) press(button string, fill url.Values) error {
	form := b.form(button)
	values := url.Values{}
	for in := range elements(form, "input") {
		kind, _ := attribute(in, "type")
		name, _ := attribute(in, "name")
		value, _ := attribute(in, "value")
		if _, checked := attribute(in, "checked"); checked || kind != "checkbox" && kind != "radio" {
			values.Add(name, value)
		}
	}
	for n := range elements(form, "button") {
		if name, named := attribute(n, "name"); named && text(n) == button {
			value, _ := attribute(n, "value")
			values.Add(name, value)
		}
	}
	for name, v := range fill {
		values[name] = v
	}
	action, _ := attribute(form, "action")
	to, err := b.at.Parse(action)
	if err != nil {
		return err
	}
	if b.away(to) {
		return errors.New("a form leads away")
	}
	r, err := http.NewRequest(http.MethodPost, to.String(), strings.NewReader(values.Encode()))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	return b.do(r)
}

// elements returns those below n of a name.
func elements(n *html.Node, name string) func(func(*html.Node) bool) {
	return func(yield func(*html.Node) bool) {
		for d := range n.Descendants() {
			if d.Type == html.ElementNode && d.Data == name && !yield(d) {
				return
			}
		}
	}
}

func attribute(n *html.Node, name string) (value string, ok bool) {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val, true
		}
	}
	return "", false
}

// text is what can be read of n.
func text(n *html.Node) string {
	var words []string
	for d := range n.Descendants() {
		if d.Type == html.TextNode {
			words = append(words, strings.Fields(d.Data)...)
		}
	}
	return strings.Join(words, " ")
}
