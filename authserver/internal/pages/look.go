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
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

//go:embed templates style.css favicon.svg
var files embed.FS

// A look is the set of files that pages load.
type look struct {
	style, favicon asset
	logo           *asset // nil: none
}

// An asset is a file whose path contains the digest, so that browsers may cache it forever.
type asset struct {
	path, kind string
	content    []byte
}

func newLook(cfg *Config, base string) (*look, error) {
	css, err := files.ReadFile("style.css")
	if err != nil {
		return nil, fmt.Errorf("read the stylesheet: %w", err)
	}
	colour, _ := parseColour(cfg.Accent)
	css = fmt.Appendf(nil, ":root { --accent: %s; --accent-on-dark: %s; }\n%s", colour, colour.on(dark), css)
	icon := cfg.Favicon
	if len(icon) == 0 {
		if icon, err = files.ReadFile("favicon.svg"); err != nil {
			return nil, fmt.Errorf("read the icon: %w", err)
		}
		icon = bytes.ReplaceAll(icon, []byte("#0b6b62"), []byte(colour.String()))
	}
	l := &look{style: newAsset(base, "style", css), favicon: newAsset(base, "favicon", icon)}
	if len(cfg.Logo) > 0 {
		logo := newAsset(base, "logo", cfg.Logo)
		l.logo = &logo
	}
	return l, nil
}

func newAsset(base, name string, content []byte) asset {
	kind, ending := "text/css; charset=utf-8", "css"
	if name != "style" {
		kind, ending = imageKind(content)
	}
	return asset{fmt.Sprintf("%s/assets/%s-%.8x.%s", base, name, sha256.Sum256(content), ending), kind, content}
}

// Path and Kind are for the template.
func (a asset) Path() string { return a.path }
func (a asset) Kind() string { return a.kind }

func (l *look) all() []*asset {
	all := []*asset{&l.style, &l.favicon}
	if l.logo != nil {
		all = append(all, l.logo)
	}
	return all
}

// ServeHTTP serves the file. An SVG that is opened as a page by itself may not do anything either.
func (a *asset) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", a.kind)
	w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; sandbox")
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(a.content))
}

const maxImage = 256 << 10 // bytes

// imageKind returns the media type of an image and the ending of its name, or "".
func imageKind(content []byte) (kind, ending string) {
	kinds := map[string]string{"image/png": "png", "image/jpeg": "jpg", "image/webp": "webp", "image/gif": "gif", "image/x-icon": "ico"}
	kind = http.DetectContentType(content)
	if ending, ok := kinds[kind]; ok {
		return kind, ending
	}
	start := bytes.TrimLeft(bytes.TrimPrefix(content, []byte("\ufeff")), " \t\r\n")
	if bytes.HasPrefix(start, []byte("<?xml")) || bytes.HasPrefix(start, []byte("<svg")) || bytes.HasPrefix(start, []byte("<!--")) {
		if bytes.Contains(start, []byte("<svg")) {
			return "image/svg+xml", "svg"
		}
	}
	return "", ""
}

// ValidImage returns an error unless content is empty or an image of at most 256 KiB: SVG, PNG, JPEG, WebP, GIF or ICO.
func ValidImage(content []byte) error {
	kind, _ := imageKind(content)
	switch {
	case len(content) == 0:
		return nil
	case len(content) > maxImage:
		return fmt.Errorf("must have at most %d KiB", maxImage>>10)
	case kind == "":
		return errors.New("must be an image: SVG, PNG, JPEG, WebP, GIF or ICO")
	}
	return nil
}

// ValidLink returns an error unless link is empty or an https or http URL, or a URL of one of the schemes.
func ValidLink(link string, schemes ...string) error {
	u, err := url.Parse(link)
	switch {
	case link == "":
		return nil
	case err == nil && u.Host != "" && (u.Scheme == "https" || u.Scheme == "http"):
		return nil
	case err == nil && u.Opaque != "" && slices.Contains(schemes, u.Scheme):
		return nil
	}
	return errors.New("must be an https URL")
}

// readPages parses the templates of all pages, with the texts of a language.
func (t *locale) readPages() error {
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
