package pages_test

import (
	"encoding/xml"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A node is an element of a page.
type node struct {
	name string
	attr map[string]string
	kids []*node
	text string // of itself and all below
}

var void = []string{"meta", "link", "input", "br", "img"}

// parse reads a page whose elements are all closed.
func parse(t *testing.T, body string) *node {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(body))
	d.Strict, d.Entity = false, xml.HTMLEntity
	root := &node{}
	stack := []*node{root}
	for {
		token, err := d.RawToken()
		if err == io.EOF {
			break
		}
		require.NoError(t, err, body)
		switch token := token.(type) {
		case xml.StartElement:
			n := &node{name: token.Name.Local, attr: map[string]string{}}
			for _, a := range token.Attr {
				_, twice := n.attr[a.Name.Local]
				require.False(t, twice, "attribute %s twice", a.Name.Local)
				n.attr[a.Name.Local] = a.Value
			}
			top := stack[len(stack)-1]
			top.kids = append(top.kids, n)
			if !slices.Contains(void, n.name) {
				stack = append(stack, n)
			}
		case xml.EndElement:
			require.Equal(t, stack[len(stack)-1].name, token.Name.Local, "elements do not nest")
			stack = stack[:len(stack)-1]
		case xml.CharData:
			for _, n := range stack {
				n.text += string(token)
			}
		}
	}
	require.Len(t, stack, 1, "an element is not closed")
	return root
}

// all returns the elements below n of a name.
func (n *node) all(name string) (list []*node) {
	for _, k := range n.kids {
		if k.name == name {
			list = append(list, k)
		}
		list = append(list, k.all(name)...)
	}
	return list
}

func (n *node) has(attr string) bool { _, ok := n.attr[attr]; return ok }

// A browser keeps cookies, follows redirects within the server, and checks every page that it is shown.
type browser struct {
	t      *testing.T
	client *http.Client
	base   string

	languages string // the header Accept-Language; empty: none

	resp *http.Response
	body string
	page *node
	way  []string // the redirects that were followed, and the last one if it leads away
	set  []string // the cookies that were set on the way
}

func newBrowser(t *testing.T, base string) *browser {
	t.Helper()
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	return &browser{t: t, base: base, client: &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

// get loads a path or URL of the server.
func (b *browser) get(to string) *browser {
	b.t.Helper()
	b.way, b.set = nil, nil
	return b.follow(http.MethodGet, to, nil, nil)
}

// post sends a form as a page of our own does.
func (b *browser) post(to string, form url.Values) *browser {
	b.t.Helper()
	b.way, b.set = nil, nil
	return b.follow(http.MethodPost, to, form, http.Header{"Sec-Fetch-Site": {"same-origin"}})
}

func (b *browser) follow(method, to string, form url.Values, header http.Header) *browser {
	b.t.Helper()
	if strings.HasPrefix(to, "/") {
		to = b.base + to
	}
	r, err := http.NewRequest(method, to, strings.NewReader(form.Encode()))
	require.NoError(b.t, err)
	for name, values := range header {
		r.Header[name] = values
	}
	if b.languages != "" {
		r.Header.Set("Accept-Language", b.languages)
	}
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	b.resp, err = b.client.Do(r)
	require.NoError(b.t, err)
	defer b.resp.Body.Close()
	body, err := io.ReadAll(b.resp.Body)
	require.NoError(b.t, err)
	b.body, b.page = string(body), nil
	b.set = append(b.set, b.resp.Header.Values("Set-Cookie")...)
	if location := b.resp.Header.Get("Location"); location != "" {
		if method == http.MethodPost {
			require.Equal(b.t, http.StatusSeeOther, b.resp.StatusCode, "after a form")
		}
		b.way = append(b.way, location)
		next, err := r.URL.Parse(location)
		require.NoError(b.t, err)
		if next.Scheme+"://"+next.Host != b.base || len(b.way) > 10 {
			return b
		}
		return b.follow(http.MethodGet, next.String(), nil, nil)
	}
	if strings.HasPrefix(b.resp.Header.Get("Content-Type"), "text/html") {
		b.page = parse(b.t, b.body)
		b.check()
	}
	return b
}

// check verifies the properties that all pages share.
func (b *browser) check() {
	b.t.Helper()
	h := b.resp.Header
	require.Equal(b.t, "no-store", h.Get("Cache-Control"))
	require.Equal(b.t, "DENY", h.Get("X-Frame-Options"))
	require.Equal(b.t, "nosniff", h.Get("X-Content-Type-Options"))
	require.Equal(b.t, "same-origin", h.Get("Referrer-Policy"))
	require.Regexp(b.t, `^default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'( [a-z.]+:)?$`, h.Get("Content-Security-Policy"))
	require.Empty(b.t, h.Get("Access-Control-Allow-Origin"))

	require.Len(b.t, b.page.all("h1"), 1, b.body)
	require.Len(b.t, b.page.all("main"), 1)
	require.Contains(b.t, []string{"en", "de"}, b.page.all("html")[0].attr["lang"])
	require.NotEmpty(b.t, strings.TrimSpace(b.page.all("title")[0].text))
	require.NotContains(b.t, b.page.all("title")[0].text, "bdi>", "markup would be shown")
	require.Empty(b.t, b.page.all("script"))
	require.Empty(b.t, b.page.all("style"))
	ids := map[string]bool{}
	var walk func(n *node)
	walk = func(n *node) {
		for name := range n.attr {
			require.False(b.t, name == "style" || strings.HasPrefix(name, "on"), "attribute %s", name)
		}
		if id := n.attr["id"]; id != "" {
			require.False(b.t, ids[id], "id %s twice", id)
			ids[id] = true
		}
		for _, k := range n.kids {
			walk(k)
		}
	}
	walk(b.page)
	for _, e := range slices.Concat(b.page.all("a"), b.page.all("section"), b.page.all("input"), b.page.all("textarea"), b.page.all("fieldset"), b.page.all("label"), b.page.all("div")) {
		refs := strings.Fields(e.attr["aria-labelledby"] + " " + e.attr["aria-describedby"] + " " + e.attr["for"])
		if at, ok := strings.CutPrefix(e.attr["href"], "#"); ok {
			refs = append(refs, at)
		}
		for _, ref := range refs {
			require.True(b.t, ids[ref], "%s refers to %q, which is not there:\n%s", e.name, ref, b.body)
		}
	}
	labelled := map[*node]bool{}
	for _, l := range b.page.all("label") {
		for _, in := range l.all("input") {
			labelled[in] = true
		}
	}
	for _, in := range slices.Concat(b.page.all("input"), b.page.all("textarea")) {
		byID := slices.ContainsFunc(b.page.all("label"), func(l *node) bool { return l.attr["for"] != "" && l.attr["for"] == in.attr["id"] })
		require.True(b.t, in.attr["type"] == "hidden" || labelled[in] || byID, "an input has no label: %v", in.attr)
	}
	b.checkProblems()
	require.NotRegexp(b.t, `\{[a-z]+\}`, b.text(), "a message lacks a value")
	for _, f := range b.page.all("fieldset") {
		require.Len(b.t, f.all("legend"), 1)
	}
}

// checkProblems verifies that each problem of a field that the summary leads to is beside the field, and describes it.
func (b *browser) checkProblems() {
	b.t.Helper()
	byID := map[string]*node{}
	var walk func(n *node)
	walk = func(n *node) {
		byID[n.attr["id"]] = n
		for _, k := range n.kids {
			walk(k)
		}
	}
	walk(b.page)
	for _, box := range b.page.all("div") {
		if box.attr["class"] != "problems" {
			continue
		}
		require.True(b.t, box.has("autofocus"), "screen readers begin with the summary")
		for _, a := range box.all("a") {
			field := strings.TrimPrefix(a.attr["href"], "#")
			require.Contains(b.t, byID, field, "the summary leads nowhere")
			require.Contains(b.t, byID, field+"-problem")
			require.Contains(b.t, byID[field+"-problem"].text, a.text, field)
			require.Contains(b.t, strings.Fields(byID[field].attr["aria-describedby"]), field+"-problem")
			require.Equal(b.t, byID[field].name == "fieldset", !byID[field].has("aria-invalid"), field)
		}
	}
}

// press sends the form that has the button, filled in with more values; a nil value unticks.
func (b *browser) press(button string, fill url.Values) *browser {
	b.t.Helper()
	require.NotNil(b.t, b.page, "no page is shown, but %s %q", b.resp.Status, b.way)
	for _, form := range b.page.all("form") {
		for i, n := range form.all("button") {
			if n.text == button {
				return b.submit(form, i, fill)
			}
		}
	}
	b.t.Fatalf("no button %q on %s:\n%s", button, b.resp.Request.URL, b.body)
	return nil
}

// enter presses Enter in a field of the last form: that is its first button.
func (b *browser) enter(fill url.Values) *browser {
	b.t.Helper()
	forms := b.page.all("main")[0].all("form")
	return b.submit(forms[len(forms)-1], 0, fill)
}

// submit sends a form by its button i.
func (b *browser) submit(form *node, i int, fill url.Values) *browser {
	b.t.Helper()
	values := url.Values{}
	for _, in := range slices.Concat(form.all("input"), form.all("textarea")) {
		kind := in.attr["type"]
		switch {
		case (kind == "checkbox" || kind == "radio") && !in.has("checked"):
		case in.name == "textarea":
			values.Add(in.attr["name"], in.text)
		default:
			values.Add(in.attr["name"], in.attr["value"])
		}
	}
	for name, v := range fill {
		values[name] = v
	}
	if b := form.all("button")[i]; b.attr["name"] != "" {
		values.Set(b.attr["name"], b.attr["value"])
	}
	action := form.attr["action"]
	if action == "" {
		action = b.resp.Request.URL.Path
	}
	return b.post(action, values)
}

func (b *browser) h1() string {
	b.t.Helper()
	require.NotNil(b.t, b.page, "no page, but %s %q", b.resp.Status, b.way)
	return b.page.all("h1")[0].text
}

// text returns the text of the page, in one line.
func (b *browser) text() string {
	b.t.Helper()
	require.NotNil(b.t, b.page)
	return strings.Join(strings.Fields(b.page.all("main")[0].text), " ")
}

// away is the URL that the browser was last led to, elsewhere.
func (b *browser) away() *url.URL {
	b.t.Helper()
	require.NotEmpty(b.t, b.way, b.body)
	u, err := url.Parse(b.way[len(b.way)-1])
	require.NoError(b.t, err)
	return u
}
