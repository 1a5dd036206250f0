package browser_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// TestInspection shows that pages are looked at: one of the worst kind is found wrong in each of these ways.
func TestInspection(t *testing.T) {
	const bad = `<!DOCTYPE html><meta name="viewport" content="width=device-width"><title></title><body style="background: #fff"><h1>One</h1><h1>Two</h1><h3>Three</h3>
		<p style="color: #999">pale</p><p style="font-size: 9px">tiny</p><p style="width: 600px">wide</p>
		<p style="overflow: hidden; width: 2rem; white-space: nowrap">cut off somewhere</p>
		<button style="width: 20px; height: 20px; padding: 0"></button>
		<div style="display: flex; width: 4rem"><button style="flex: 1; min-width: 0; overflow-wrap: anywhere">Allowances</button></div>
		<div class="card" style="width: 5rem"><span style="white-space: nowrap">longer than the card</span></div>
		<div inert><button>Behind glass</button></div><a href="/x" style="outline: none">in the dark</a>
		<p id="a"></p><p id="a"></p><a href="#nowhere">away</a><input type="text" name="x" aria-describedby="nothing">`
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		io.WriteString(w, bad)
	}))
	t.Cleanup(web.Close)
	v := start(t).tab(t)
	v.do("visit", chromedp.Navigate(web.URL))
	found := strings.Join(append(v.complaints(), v.barriers()...), "\n")
	for _, want := range []string{
		"wide, on a screen of", `"wide" leaves the screen`, `"cut off somewhere" is cut off`, `"pale" has a contrast of 2.8`, `"tiny" is 9px high`,
		"20 by 20, too small to hit", `"Allowances" breaks inside of a word`, `"longer than the card" leaves its card`, "2 headings of the first level", "a heading of level 3 follows one of level 1", "the id a is there twice",
		"points to the id nowhere", "points to the id nothing", "a script or a style in the page", "no title", "no language",
		"a button has no name", "a textbox has no name", `the focus on "in the dark" cannot be seen`, "the keyboard does not reach <button>Behind glass",
	} {
		if !strings.Contains(found, want) {
			t.Errorf("it is not found that %s; but:\n%s", want, found)
		}
	}
}
