package drivers_test

import (
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A browser keeps cookies, follows redirects that stay at the server, and fills in forms.
type browser struct {
	t    *testing.T
	http http.Client
	at   *url.URL // of the page
	page string
	left *url.URL // where the last redirect leads away to; nil: nowhere
}

func newBrowser(t *testing.T) *browser {
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	b := &browser{t: t}
	b.http.Jar = jar
	b.http.CheckRedirect = func(r *http.Request, via []*http.Request) error {
		if r.URL.Host != via[0].URL.Host {
			b.left = r.URL
			return http.ErrUseLastResponse
		}
		return nil
	}
	return b
}

func (b *browser) open(address string) {
	b.t.Helper()
	res, err := b.http.Get(address)
	b.read(res, err)
}

func (b *browser) read(res *http.Response, err error) {
	b.t.Helper()
	require.NoError(b.t, err)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	require.NoError(b.t, err)
	b.at, b.page = res.Request.URL, string(text)
}

var (
	action = regexp.MustCompile(`<form method="post" action="([^"]*)"`)
	input  = regexp.MustCompile(`<input type="(?:hidden|checkbox)" name="([^"]*)" value="([^"]*)"`)
)

// submit sends the last form of the content of the page with its prefilled values.
func (b *browser) submit(pairs ...string) {
	b.t.Helper()
	content, _, _ := strings.Cut(b.page, "</main>")
	forms := action.FindAllStringSubmatchIndex(content, -1)
	require.NotEmpty(b.t, forms, b.page)
	last := forms[len(forms)-1]
	to, err := b.at.Parse(html.UnescapeString(content[last[2]:last[3]]))
	require.NoError(b.t, err)
	form := url.Values{}
	for _, m := range input.FindAllStringSubmatch(content[last[0]:], -1) {
		form.Add(m[1], html.UnescapeString(m[2]))
	}
	for i := 0; i < len(pairs); i += 2 {
		form.Set(pairs[i], pairs[i+1])
	}
	r, err := http.NewRequest("POST", to.String(), strings.NewReader(form.Encode()))
	require.NoError(b.t, err)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	res, err := b.http.Do(r)
	b.read(res, err)
}
