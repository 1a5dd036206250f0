package pages_test

import (
	"math"
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
