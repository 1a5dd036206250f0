package pages_test

import (
	"math"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/authserver/internal/pages"
)

// luminance is that of WCAG 2.2 for #rrggbb.
func luminance(t *testing.T, colour string) (l float64) {
	t.Helper()
	for i, weight := range []float64{0.2126, 0.7152, 0.0722} {
		n, err := strconv.ParseUint(colour[1+2*i:3+2*i], 16, 8)
		require.NoError(t, err, colour)
		c := float64(n) / 255
		if c <= 0.04045 {
			c /= 12.92
		} else {
			c = math.Pow((c+0.055)/1.055, 2.4)
		}
		l += weight * c
	}
	return l
}

func TestContrast(t *testing.T) {
	for _, accent := range []string{"", "#1a237e", "#000000", "#b00020"} {
		h := newHouse(t, func(c *pages.Config) { c.Accent = accent })
		b := h.browser().get("/")
		css := b.get(b.page.all("link")[0].attr["href"]).body
		light, rest, _ := strings.Cut(css, "@media (prefers-color-scheme: dark)")
		values := map[string]string{}
		for _, scheme := range []string{light, rest[:strings.Index(rest, "\n}")]} {
			for _, m := range regexp.MustCompile(`--([\w-]+): ([^;]+);`).FindAllStringSubmatch(scheme, -1) {
				values[m[1]] = m[2]
			}
			colour := func(name string) string {
				v := values[name]
				if ref, ok := strings.CutPrefix(v, "var(--"); ok {
					v = values[strings.TrimSuffix(ref, ")")]
				}
				return v
			}
			ratio := func(a, b string) float64 {
				x, y := luminance(t, a), luminance(t, b)
				return (max(x, y) + 0.05) / (min(x, y) + 0.05)
			}
			for _, ground := range []string{"card", "ground", "sunken", "note"} {
				for _, text := range []string{"text", "fine", "link", "danger", "part0", "part1", "part2"} {
					if ground == "note" && text != "text" {
						continue
					}
					require.GreaterOrEqual(t, ratio(colour(text), colour(ground)), 4.5, "%s on %s, accent %q", text, ground, accent)
				}
			}
			require.GreaterOrEqual(t, ratio(colour("edge"), colour("card")), 3.0, "WCAG 2.2, 1.4.11")
			require.GreaterOrEqual(t, ratio("#ffffff", colour("accent")), 4.5)
		}
	}
}

const (
	svg = `<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>`
	png = "\x89PNG\r\n\x1a\n"
)

func TestImagesAndLinks(t *testing.T) {
	for _, c := range []struct {
		name string
		err  error
		want string
	}{
		{"a page is not an image", pages.ValidImage([]byte("<html><svg></svg>")), "must be an image"},
		{"a script is not an image", pages.ValidImage([]byte("alert(1)")), "must be an image"},
		{"XML that is not SVG is not an image", pages.ValidImage([]byte("<?xml version='1.0'?><a/>")), "must be an image"},
		{"a large image", pages.ValidImage([]byte(png + strings.Repeat("x", 256<<10))), "must have at most 256 KiB"},
		{"a script as a link", pages.ValidLink("javascript:alert(1)"), "must be an https URL"},
		{"a path as a link", pages.ValidLink("/privacy"), "must be an https URL"},
		{"a link without a host", pages.ValidLink("https:///x"), "must be an https URL"},
		{"mail where a page is needed", pages.ValidLink("mailto:help@example.com"), "must be an https URL"},
		{"no image", pages.ValidImage(nil), ""},
		{"an SVG", pages.ValidImage([]byte(svg)), ""},
		{"an SVG after a byte order mark", pages.ValidImage([]byte("\ufeff\n<svg/>")), ""},
		{"a PNG", pages.ValidImage([]byte(png)), ""},
		{"an https URL", pages.ValidLink("https://example.com/privacy?x"), ""},
		{"mail", pages.ValidLink("mailto:help@example.com", "mailto"), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.want == "" {
				require.NoError(t, c.err)
				return
			}
			require.ErrorContains(t, c.err, c.want)
		})
	}
	t.Run("every page has them", func(t *testing.T) {
		h := newHouse(t, func(cfg *pages.Config) {
			cfg.Logo, cfg.Favicon = []byte(svg), []byte(png)
			cfg.Links = pages.Links{Privacy: "https://example.com/privacy", Imprint: "https://example.com/imprint", Help: "mailto:help@example.com"}
		})
		for _, path := range []string{"/", "/login", h.ask("shop", nil), "/nowhere-at-all/x", "/oauth2/authorize"} {
			b := h.browser().get(path)
			if b.page == nil { // net/http's own answer, which the server replaces
				continue
			}
			logo := b.page.all("header")[0].all("img")[0]
			require.Equal(t, "Example & Sons", logo.attr["alt"])
			links := map[string]string{}
			for _, a := range b.page.all("footer")[0].all("a") {
				links[a.text] = a.attr["href"]
			}
			require.Equal(t, map[string]string{"Privacy": "https://example.com/privacy", "Imprint": "https://example.com/imprint", "Help": "mailto:help@example.com"}, links)

			b.get(logo.attr["src"])
			require.Equal(t, svg, b.body)
			require.Equal(t, "image/svg+xml", b.resp.Header.Get("Content-Type"))
			require.Equal(t, "default-src 'none'; style-src 'unsafe-inline'; sandbox", b.resp.Header.Get("Content-Security-Policy"), "opened by itself, it runs no script")
			require.Contains(t, b.resp.Header.Get("Cache-Control"), "immutable")
		}
		icon := h.browser().get("/").page.all("link")[1]
		require.Equal(t, "icon", icon.attr["rel"])
		b := h.browser().get(icon.attr["href"])
		require.Equal(t, http.StatusOK, b.resp.StatusCode)
		require.Equal(t, "image/png", b.resp.Header.Get("Content-Type"))
	})
	t.Run("without them, there is an icon in the color of the buttons", func(t *testing.T) {
		h := newHouse(t, func(c *pages.Config) { c.Accent = "#1a237e" })
		b := h.browser().get("/")
		require.Empty(t, b.page.all("img"))
		require.Empty(t, b.page.all("footer")[0].all("a"))
		require.Contains(t, b.get(b.page.all("link")[1].attr["href"]).body, `fill="#1a237e"`)
	})
}
