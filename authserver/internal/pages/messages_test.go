package pages_test

import (
	"html/template"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	tree "text/template/parse"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/authserver/internal/pages"
	"github.com/valetkey/valetkey/internal/config"
)

// messagesOf reads the file of a language.
func messagesOf(t *testing.T, path string) map[string]string {
	t.Helper()
	var file struct {
		Messages map[string]string `yaml:"messages"`
	}
	require.NoError(t, config.ReadFile(path, &file, func(*config.Document) error { return nil }))
	return file.Messages
}

func TestMessages(t *testing.T) {
	english := messagesOf(t, "messages/en.yaml")
	others, err := filepath.Glob("messages/*.yaml")
	require.NoError(t, err)
	require.Contains(t, others, filepath.Join("messages", "de.yaml"))

	parts := regexp.MustCompile(`\{[^}]*\}|</?[a-z]+[^>]*>`) // that a translation has to keep
	allowed := regexp.MustCompile(`^(\{[a-z]+\}|</?(strong|em|code|bdi|a)>|<span (lang="en"|class="fine")>|</span>|<a href="\{link\}">)$`)
	for _, path := range others {
		messages := messagesOf(t, path)
		t.Run(path+" has the keys of the English file", func(t *testing.T) {
			assert.Equal(t, slices.Sorted(maps.Keys(english)), slices.Sorted(maps.Keys(messages)))
		})
		t.Run(path+" has texts with the placeholders and the markup of the English ones", func(t *testing.T) {
			for key, text := range messages {
				assert.Equal(t, strings.TrimSpace(text), text, key)
				assert.NotEmpty(t, text, key)
				has, want := parts.FindAllString(text, -1), parts.FindAllString(english[key], -1)
				assert.ElementsMatch(t, want, has, key)
				for _, part := range has {
					assert.Regexp(t, allowed, part, key)
				}
				assert.NotContains(t, parts.ReplaceAllString(text, ""), "<", key)
			}
		})
	}

	used, prefixes := map[string]bool{}, []string{}
	sources, err := filepath.Glob("*.go")
	require.NoError(t, err)
	for _, name := range slices.Concat(sources, templates(t)) {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		for _, m := range regexp.MustCompile(`(?:msg\(|msg |notify\(|v.content\(\), |content, )"([^"]+)"(\s*\+)?`).FindAllStringSubmatch(string(text), -1) {
			if used[m[1]] = true; m[2] != "" {
				prefixes = append(prefixes, m[1])
				delete(used, m[1])
			}
		}
	}
	prefixes = append(prefixes, "month.", "header.", "claim.") // whose keys are computed elsewhere
	t.Run("every key that is used exists", func(t *testing.T) {
		for key := range used {
			assert.Contains(t, english, key)
		}
	})
	t.Run("every key is used", func(t *testing.T) {
		for key := range english {
			computed := slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(key, p) })
			assert.True(t, used[key] || computed, "%s is not used", key)
		}
	})
}

// templates returns the names of the template files.
func templates(t *testing.T) (names []string) {
	t.Helper()
	for _, pattern := range []string{"templates/*.html", "templates/layout/*.html"} {
		list, err := filepath.Glob(pattern)
		require.NoError(t, err)
		names = append(names, list...)
	}
	require.NotEmpty(t, names)
	return names
}

func TestTemplatesContainNoText(t *testing.T) {
	tags, comments := regexp.MustCompile(`<[^>]*>`), regexp.MustCompile(`(?s)<!--.*?-->`)
	spoken := regexp.MustCompile(`(?:aria-label|title|alt|placeholder)="([^"]*)"`)
	letters := regexp.MustCompile(`\p{L}`)
	literal := func(page string) (found []string) {
		page = comments.ReplaceAllString(page, "")
		for _, m := range spoken.FindAllStringSubmatch(page, -1) {
			found = append(found, m[1])
		}
		found = append(found, strings.Fields(tags.ReplaceAllString(page, " "))...)
		return slices.DeleteFunc(found, func(s string) bool { return !letters.MatchString(s) || s == "https://" })
	}
	require.Equal(t, []string{"Close", "Hi"}, literal(`<p aria-label="Close">Hi <b>1</b></p>`), "the check itself")
	funcs := template.FuncMap{"msg": func() {}, "lang": func() {}, "date": func() {}, "moment": func() {}, "span": func() {}}
	builtins := map[string]any{"and": 0, "or": 0, "not": 0, "eq": 0, "ne": 0, "gt": 0, "len": 0, "index": 0, "print": 0}
	for _, name := range templates(t) {
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		trees, err := tree.Parse(name, string(text), "", "", funcs, builtins)
		require.NoError(t, err)
		for _, one := range trees {
			var page strings.Builder
			var walk func(tree.Node)
			walk = func(n tree.Node) {
				lists := func(all ...*tree.ListNode) {
					for _, l := range all {
						if l != nil {
							walk(l)
						}
					}
				}
				switch n := n.(type) {
				case *tree.ListNode:
					for _, each := range n.Nodes {
						walk(each)
					}
				case *tree.TextNode:
					page.Write(n.Text)
				case *tree.IfNode:
					lists(n.List, n.ElseList)
				case *tree.RangeNode:
					lists(n.List, n.ElseList)
				case *tree.WithNode:
					lists(n.List, n.ElseList)
				}
			}
			walk(one.Root)
			assert.Empty(t, literal(page.String()), "%s %s", name, one.Name)
		}
	}
}

// in returns a browser whose user prefers languages.
func (h *house) in(languages string) *browser {
	b := h.browser()
	b.languages = languages
	return b
}

func TestLanguage(t *testing.T) {
	h := newHouse(t, func(cfg *pages.Config) {
		cfg.APIs[0].Scopes[0].Descriptions = map[string]string{"de": "Ihre Bestellungen sehen", "fr": "Voir vos commandes"}
	})
	for _, c := range []struct{ name, languages, path, want string }{
		{"nothing is English", "", "/login", "Log in"},
		{"a language that is not there is English", "fr", "/login", "Log in"},
		{"the header", "de", "/login", "Anmelden"},
		{"a region", "de-AT,en;q=0.8", "/login", "Anmelden"},
		{"the better one of two", "en;q=0.1, de;q=0.7", "/login", "Anmelden"},
		{"one that is excluded", "de;q=0, en", "/login", "Log in"},
		{"the next one after one that is not there", "fr, de;q=0.5, en;q=0.4", "/login", "Anmelden"},
		{"what cannot be read", "\xff;;q=", "/login", "Log in"},
		{"a header of many kilobytes", strings.Repeat("de,", 5000), "/login", "Log in"},
		{"ui_locales before the header", "de", "/login?ui_locales=en", "Log in"},
		{"ui_locales of several", "", "/login?ui_locales=fr+de-CH+en", "Anmelden"},
		{"ui_locales that are not there", "de", "/login?ui_locales=fr+it", "Anmelden"},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.Equal(t, c.want, h.in(c.languages).get(c.path).h1())
		})
	}
	t.Run("ui_locales of a request count for all of its pages, and later", func(t *testing.T) {
		b := h.in("en").get(h.ask("shop", url.Values{"ui_locales": {"de"}}))
		require.Equal(t, "Anmelden", b.h1())
		require.Contains(t, b.press("Anmelden", nil).text(), "Geben Sie Ihren Namen und Ihr Passwort ein.")
		b.press("Anmelden", as("alice"))
		require.Equal(t, "The Shop Zugriff erlauben?", b.h1())
		require.Contains(t, b.text(), "Ihre Bestellungen sehen")
		require.Equal(t, "orders:read", h.redeem(b.press("Erlauben", nil).away()))
		require.Equal(t, "Anmelden", h.in("de").get("/login").h1())
	})
	t.Run("a scope without a translation has its description, and the application its own name", func(t *testing.T) {
		b := h.in("de").get(h.ask("shop", url.Values{"scope": {"orders:write"}})).press("Anmelden", as("bob"))
		require.Contains(t, b.text(), "Place orders for you")
	})
	t.Run("the choice at the foot leads back, and is remembered before the header and after ui_locales", func(t *testing.T) {
		b := h.in("en").get("/login?return=/account/applications").press("Deutsch", nil)
		require.Equal(t, "Anmelden", b.h1())
		require.Equal(t, "Anwendungen, denen Sie etwas erlaubt haben", b.press("Anmelden", as("alice")).h1())
		require.Equal(t, "Allowed applications", b.press("English", nil).get("/").page.all("h2")[0].text)
		require.Equal(t, "Gerät verbinden", h.in("en").get("/device?ui_locales=de").get("/device").h1())
		require.Equal(t, "Connect a device", h.in("de").get("/device?ui_locales=de").get("/device?ui_locales=en").get("/device").h1())
	})
	t.Run("a choice during an interaction leads back to it", func(t *testing.T) {
		b := h.in("en").get(h.ask("shop", nil)).press("Deutsch", nil)
		require.Equal(t, "Anmelden", b.h1())
		b.press("Anmelden", as("bob")).press("English", nil)
		require.Equal(t, "Allow The Shop?", b.h1())
	})
	t.Run("a choice replaces the ui_locales of an interaction", func(t *testing.T) {
		ask := h.ask("shop", url.Values{"ui_locales": {"de"}})
		b := h.browser().get(ask).press("English", nil)
		require.Equal(t, "Log in", b.h1())
		require.Equal(t, "Allow The Shop?", b.press("Log in", as("bob")).h1())
		require.Equal(t, "Allow The Shop?", b.get(ask).h1())
		require.Equal(t, "The Shop Zugriff erlauben?", b.press("Deutsch", nil).h1())
	})
	t.Run("the choice leads to no other site", func(t *testing.T) {
		for _, to := range []string{"https://evil.example/", "//evil.example/", `/\evil.example/`, "/\t/evil.example", "evil", "", "/a#b", "/%2fevil.example/", "javascript:alert(1)"} {
			b := h.browser()
			b.post("/language", url.Values{"language": {"de"}, "return": {to}})
			require.Equal(t, []string{"/"}, b.way, to)
		}
	})
	t.Run("the page states its language, and that it depends on the header and the cookie", func(t *testing.T) {
		b := h.in("de").get("/")
		require.Equal(t, "de", b.resp.Header.Get("Content-Language"))
		require.Equal(t, "de", b.page.all("html")[0].attr["lang"])
		require.Equal(t, "Accept, Accept-Language, Cookie", b.resp.Header.Get("Vary"))
	})
	t.Run("a name with a placeholder is not filled in, and markup in it is escaped", func(t *testing.T) {
		b := h.browser().get(h.ask("tool", url.Values{"redirect_uri": {"http://127.0.0.1:9/cb"}}))
		require.Contains(t, b.body, "&lt;script&gt;")
		require.NotContains(t, b.body, "<script")
		b = h.browser()
		b.post("/login", url.Values{"name": {"{client} <b>"}, "password": {"x"}, "type": {"customer"}})
		require.Equal(t, http.StatusUnprocessableEntity, b.resp.StatusCode)
		require.Contains(t, b.body, `value="{client} &lt;b&gt;"`)
	})
}
