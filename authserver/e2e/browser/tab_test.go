package browser_test

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/cdproto/audits"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// A browser is one Chromium, whose users share nothing.
type browser struct {
	t     *testing.T // that outlives all tabs
	ctx   context.Context
	shots string // folder of the screenshots
}

// start starts a browser until the end of the test. Screenshots go to the folder that VALETKEY_SCREENSHOTS names, or are
// thrown away.
func start(t *testing.T) *browser {
	t.Helper()
	path := find(t, "chromium", "chromium-browser", "google-chrome")
	scratch, err := os.MkdirTemp("", "browser") // not t.TempDir, which would fail for a file that comes late
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(scratch) })
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.DisableGPU, chromedp.Env("TMPDIR="+scratch))
	if os.Geteuid() == 0 { // Chromium refuses to run as root with its sandbox; it sees no page but ours
		options = append(options, chromedp.NoSandbox)
	}
	ctx, end := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(end)
	ctx, end = chromedp.NewContext(ctx)
	t.Cleanup(end)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("start %s: %v", path, err)
	}
	shots := os.Getenv("VALETKEY_SCREENSHOTS")
	if shots == "" {
		shots = t.TempDir()
	}
	if err := os.MkdirAll(shots, 0o755); err != nil {
		t.Fatal(err)
	}
	return &browser{t, ctx, shots}
}

// A tab is where one user looks at pages, on a phone. Every step fails the test if it cannot be taken in time, and every page
// is looked at with [tab.inspect].
type tab struct {
	t      *testing.T
	ctx    context.Context
	shots  string
	status int // of the page
}

// tab returns a tab with separate cookies, without scripts.
func (b *browser) tab(t *testing.T) *tab {
	t.Helper()
	ctx, end := chromedp.NewContext(b.ctx, chromedp.WithNewBrowserContext())
	t.Cleanup(end)
	v := &tab{t: t, ctx: ctx, shots: b.shots}
	v.must("open a tab", chromedp.Do(ctx, chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
		return err
	})))
	// Several tabs are open: without this, only the page of one of them has the focus.
	_, err := chromedp.Call(ctx, emulation.SetFocusEmulationEnabled, emulation.SetFocusEmulationEnabledParams{Enabled: true})
	v.must("give the page the focus", err)
	// What the browser has to complain about: a policy that a page breaks, a form that it thinks is wrong.
	v.must("listen", chromedp.Listen(ctx, func(event any) {
		switch e := event.(type) {
		case *audits.EventIssueAdded:
			if e.Issue.Code != audits.InspectorIssueCodeBounceTrackingIssue { // to lead on who is logged in already is what the server is for
				text, err := json.Marshal(e.Issue)
				b.t.Errorf("Chromium reports an issue: %s %v", text, err)
			}
		case *log.EventEntryAdded:
			if e.Entry.Source != log.EntrySourceNetwork { // such as a response of 422, which tests check themselves
				b.t.Errorf("Chromium logs: %s %s", e.Entry.Text, e.Entry.URL)
			}
		}
	}))
	_, err = chromedp.Call(ctx, audits.Enable, cdp.Empty{})
	v.must("enable audits", err)
	v.phone()
	return v
}

func (v *tab) must(what string, err error) {
	v.t.Helper()
	if err != nil {
		v.t.Fatalf("%s: %v", what, err)
	}
}

const patience = time.Minute

// load does something that leads to another page, and looks at that.
func (v *tab) load(what string, step chromedp.Action[chromedp.Void]) {
	v.t.Helper()
	ctx, end := context.WithTimeout(v.ctx, patience)
	defer end()
	resp, err := chromedp.RunResponse(ctx, step)
	v.must(what, err)
	v.status = int(resp.Status)
	v.inspect(what)
}

// visit opens a URL.
func (v *tab) visit(url string) {
	v.t.Helper()
	v.load("visit "+url, chromedp.Navigate(url))
}

// press clicks on the button or link with these words, which leads to another page.
func (v *tab) press(words string) {
	v.t.Helper()
	v.load("press "+words, chromedp.Click(fmt.Sprintf(`//*[self::button or self::a][normalize-space()=%q]`, words)))
}

// tick clicks on the choice with these words.
func (v *tab) tick(words string) {
	v.t.Helper()
	v.do("tick "+words, chromedp.Click(fmt.Sprintf(`//label[starts-with(normalize-space(), %q)]`, words)))
}

// enter presses Enter at the choice with these words, which leads to another page.
func (v *tab) enter(words string) {
	v.t.Helper()
	choice := fmt.Sprintf(`//label[starts-with(normalize-space(), %q)]/input`, words)
	v.load("press Enter at "+words, chromedp.SendKeys(choice, kb.Enter))
}

// fill replaces the text in the field with this label. The text comes at once, as from a clipboard: a key at a time, a long one took
// longer than patience on a busy machine.
func (v *tab) fill(label, text string) {
	v.t.Helper()
	field := fmt.Sprintf(`//*[@id=//label[starts-with(normalize-space(), %q)]/@for]`, label)
	v.do("fill in "+label, chromedp.Steps(chromedp.Focus(field), chromedp.Evaluate[chromedp.Void](`document.activeElement.select()`), insert(text)))
}

// insert inserts text where the focus is.
func insert(text string) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, input.InsertText, input.InsertTextParams{Text: text})
		return err
	})
}

func (v *tab) do(what string, step chromedp.Action[chromedp.Void]) {
	v.t.Helper()
	ctx, end := context.WithTimeout(v.ctx, patience)
	defer end()
	v.must(what, chromedp.Do(ctx, step))
}

// get returns what an action finds out.
func get[T any](v *tab, what string, action chromedp.Action[T]) T {
	v.t.Helper()
	ctx, end := context.WithTimeout(v.ctx, patience)
	defer end()
	found, err := chromedp.Run(ctx, action)
	v.must(what, err)
	return found
}

// text is what the page shows.
func (v *tab) text() string {
	v.t.Helper()
	return get(v, "read the page", chromedp.Text(chromedp.CSS("body")))
}

// at is the URL of the page.
func (v *tab) at() string {
	v.t.Helper()
	return get(v, "read the URL", chromedp.Location())
}

// value returns what stands beside a term of a list of terms, such as the client id.
func (v *tab) value(term string) string {
	v.t.Helper()
	return get(v, "read "+term, chromedp.TextContent(fmt.Sprintf(`//dt[normalize-space()=%q]/following-sibling::dd[1]/code`, term)))
}

// sees fails the test unless the page has that status, and shows all the words.
func (v *tab) sees(status int, words ...string) {
	v.t.Helper()
	text := v.text()
	if v.status != status {
		v.t.Fatalf("%s: the status is %d, not %d:\n%s", v.at(), v.status, status, text)
	}
	for _, w := range words {
		if !strings.Contains(text, w) {
			v.t.Fatalf("%s does not show %q:\n%s", v.at(), w, text)
		}
	}
}

func (v *tab) seesNot(words string) {
	v.t.Helper()
	if text := v.text(); strings.Contains(text, words) {
		v.t.Fatalf("%s shows %q:\n%s", v.at(), words, text)
	}
}

func (v *tab) phone() {
	v.t.Helper()
	v.do("be a phone", chromedp.EmulateViewport(390, 844, chromedp.EmulateMobile))
}

func (v *tab) media(scheme string) {
	v.t.Helper()
	_, err := chromedp.Call(v.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
	})
	v.must("be "+scheme, err)
}

// shoot takes screenshots of the whole page: on a phone, on a phone in the dark, and on a desk.
func (v *tab) shoot(name string) {
	v.t.Helper()
	take := func(width string) {
		v.t.Helper()
		v.inspect(name + " at " + width)
		v.axe(name + " at " + width)
		v.must("write", os.WriteFile(filepath.Join(v.shots, name+"-"+width+".png"), get(v, "shoot", chromedp.FullScreenshot(100)), 0o644))
	}
	take("phone")
	v.media("dark")
	take("dark")
	v.media("light")
	v.do("be a desk", chromedp.EmulateViewport(1280, 900))
	take("desk")
	v.reaches(name)
	v.phone()
}

//go:embed inspect.js
var inspection string

// named are the roles whose nodes need a name, for those who do not see them.
var named = map[string]bool{"button": true, "link": true, "textbox": true, "checkbox": true, "radio": true, "group": true, "heading": true, "navigation": true}

// inspect fails the test for what is wrong with how any page looks and reads.
func (v *tab) inspect(what string) {
	v.t.Helper()
	for _, complaint := range v.complaints() {
		v.t.Errorf("%s: %s: %s", what, v.at(), complaint)
	}
}

func (v *tab) complaints() []string {
	v.t.Helper()
	all := get(v, "inspect", chromedp.Evaluate[[]string](inspection))
	tree, err := chromedp.Call(v.ctx, accessibility.GetFullAXTree, accessibility.GetFullAXTreeParams{})
	v.must("read the accessibility tree", err)
	for _, n := range tree.Nodes {
		if role := text(n.Role); !n.Ignored && named[role] && text(n.Name) == "" {
			all = append(all, fmt.Sprintf("a %s has no name", role))
		}
	}
	forms, err := chromedp.Call(v.ctx, audits.CheckFormsIssues, cdp.Empty{})
	v.must("check forms", err)
	for _, issue := range forms.FormIssues {
		all = append(all, fmt.Sprintf("Chromium reports %s %s", issue.ErrorType, issue.ViolatingNodeAttribute))
	}
	return all
}

func text(value *accessibility.Value) (s string) {
	if value != nil {
		json.Unmarshal(value.Value, &s) // a value that is not text stays empty
	}
	return s
}
