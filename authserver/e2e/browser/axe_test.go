package browser_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

// axeSource is the text of axe-core, or "" if it is not installed: npm ci --prefix authserver/e2e/browser/npm.
var axeSource = sync.OnceValue(func() string {
	text, err := os.ReadFile("npm/node_modules/axe-core/axe.min.js")
	if err != nil {
		return ""
	}
	return string(text)
})

// axeRun applies all rules, those of best practice too, and returns the violations in words.
const axeRun = `axe.run(document, { resultTypes: ["violations"] }).then(found => found.violations.flatMap(rule =>
	rule.nodes.map(node => rule.id + " at " + node.target.join(" ") + ": " + node.failureSummary.replace(/\s+/g, " "))))`

// axe fails the test for what axe-core finds wrong with the page.
func (v *tab) axe(what string) {
	v.t.Helper()
	for _, violation := range v.violations() {
		v.t.Errorf("%s: %s: axe-core finds %s", what, v.at(), violation)
	}
}

func (v *tab) violations() []string {
	v.t.Helper()
	if axeSource() == "" {
		return nil // TestAxe is skipped
	}
	v.scripts(true) // for axe-core: our pages have none
	defer v.scripts(false)
	v.do("load axe-core", chromedp.Evaluate[chromedp.Void](axeSource()))
	return get(v, "run axe-core", chromedp.Evaluate[[]string](axeRun, chromedp.EvalAwaitPromise))
}

// scripts turns the scripts of pages on or off.
func (v *tab) scripts(on bool) {
	v.t.Helper()
	v.do("turn scripts on or off", chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: !on})
		return err
	}))
}

// TestAxe shows that axe-core looks at pages.
func TestAxe(t *testing.T) {
	if axeSource() == "" {
		t.Skip("axe-core is not installed: npm ci --prefix authserver/e2e/browser/npm")
	}
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		io.WriteString(w, `<!DOCTYPE html><html><title>x</title><main><h1>Text</h1><p style="color: #bbb">pale</p><input name="x">
			<div role="button" aria-checked="maybe">x</div></main>`)
	}))
	t.Cleanup(web.Close)
	v := start(t).tab(t)
	v.do("visit", chromedp.Navigate(web.URL))
	found := strings.Join(v.violations(), "\n")
	for _, want := range []string{"html-has-lang", "color-contrast", "label at input", "aria-allowed-attr"} {
		if !strings.Contains(found, want) {
			t.Errorf("axe-core does not find %s, but:\n%s", want, found)
		}
	}
}
