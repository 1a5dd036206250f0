package pages

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
)

//go:embed templates style.css
var files embed.FS

// A look serves the stylesheet.
type look struct {
	style     []byte
	stylePath string // contains the digest, so that browsers may cache it forever
}

func newLook(accent, base string) (*look, error) {
	css, err := files.ReadFile("style.css")
	if err != nil {
		return nil, fmt.Errorf("read the stylesheet: %w", err)
	}
	colour, _ := parseColour(accent)
	css = fmt.Appendf(nil, ":root { --accent: %s; --accent-on-dark: %s; }\n%s", colour, colour.on(dark), css)
	l := &look{style: css}
	l.stylePath = fmt.Sprintf("%s/assets/style-%.8x.css", base, sha256.Sum256(css))

	return l, nil
}

// readPages parses the templates of all pages, with the texts of a language.
func (t *tongue) readPages() error {
	layout, err := template.New("layout.html").Funcs(t.funcs()).ParseFS(files, "templates/layout/*.html")
	if err != nil {
		return fmt.Errorf("read the layout: %w", err)
	}
	names, err := fs.Glob(files, "templates/*.html")
	if err != nil {
		return fmt.Errorf("list the templates: %w", err)
	}
	t.pages = map[string]*template.Template{}
	for _, name := range names {
		page, err := layout.Clone()
		if err == nil {
			page, err = page.ParseFS(files, name)
		}
		if err != nil {
			return fmt.Errorf("read a template: %w", err)
		}
		t.pages[strings.TrimSuffix(strings.TrimPrefix(name, "templates/"), ".html")] = page
	}
	return nil
}

// ServeHTTP serves the stylesheet.
func (l *look) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/css; charset=utf-8")
	w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(l.style))
}

// A colour consists of red, green and blue.
type colour [3]uint8

var (
	white = colour{0xff, 0xff, 0xff}
	dark  = colour{0x20, 0x20, 0x24} // --card of the dark scheme
)

// readable is the contrast that text requires (WCAG 2.2, success criterion 1.4.3).
const readable = 4.5

func parseColour(s string) (colour, bool) {
	n, err := strconv.ParseUint(strings.TrimPrefix(s, "#"), 16, 24)
	return colour{uint8(n >> 16), uint8(n >> 8), uint8(n)}, err == nil && len(s) == 7 && s[0] == '#'
}

func (c colour) String() string { return fmt.Sprintf("#%02x%02x%02x", c[0], c[1], c[2]) }

// ValidAccent returns an error unless accent is suitable as the color of buttons, #rrggbb.
func ValidAccent(accent string) error {
	c, ok := parseColour(accent)
	switch {
	case !ok:
		return errors.New("must be a color such as #0b6b62")
	case contrast(c, white) < readable:
		return errors.New("must be darker: white text on it is not readable")
	}
	return nil
}

// luminance returns the relative luminance of WCAG 2.2.
func (c colour) luminance() float64 {
	var linear [3]float64
	for i, part := range c {
		linear[i] = float64(part) / 255
		if linear[i] <= 0.04045 {
			linear[i] /= 12.92
		} else {
			linear[i] = math.Pow((linear[i]+0.055)/1.055, 2.4)
		}
	}
	return 0.2126*linear[0] + 0.7152*linear[1] + 0.0722*linear[2]
}

// contrast returns the contrast ratio of WCAG 2.2, from 1 to 21.
func contrast(a, b colour) float64 {
	x, y := a.luminance(), b.luminance()
	return (max(x, y) + 0.05) / (min(x, y) + 0.05)
}

// on returns c, lightened until it is readable on the ground.
func (c colour) on(ground colour) colour {
	for contrast(c, ground) < readable && c != white {
		for i := range c {
			c[i] += uint8((255 - int(c[i]) + 15) / 16) // at least 1, until it is 255
		}
	}
	return c
}
