// Package issuer makes the verifier of one issuer from the words of a command line or a configuration file.
package issuer

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/valetkey/valetkey/cmd/valetkey/internal/file"
	"github.com/valetkey/valetkey/jwks"
)

const maxKeys = 1 << 20 // bytes of a key set

// Settings are those words. The fields without a comment are those of [jwks.Config].
type Settings struct {
	Issuer       string
	Audience     []string
	URL          string
	File         string // holds the key set; no network is used then
	Profile      string // "lenient" or, also if empty, "rfc9068"
	Algorithms   []string
	Leeway       time.Duration
	MaxLifetime  time.Duration
	InsecureHTTP bool
	Logger       *slog.Logger
	Now          func() time.Time
}

// A Mistake is one thing wrong with Settings.
type Mistake struct {
	Field string // as files name it, "insecure_http" say; "" if it concerns several
	Err   error
}

// names are what files call the fields of jwks.Config.
var names = map[string]string{
	"Issuer":       "issuer",
	"Audience":     "audience",
	"URL":          "url",
	"Keys":         "file",
	"Algorithms":   "algorithms",
	"Leeway":       "leeway",
	"MaxLifetime":  "max_lifetime",
	"InsecureHTTP": "insecure_http",
}

// Config returns what package jwks makes of s, and the mistakes that it would not see. It reads File and does no other I/O.
func (s Settings) Config() (jwks.Config, []Mistake) {
	var mistakes []Mistake
	cfg := jwks.Config{
		Issuer:       s.Issuer,
		Audience:     s.Audience,
		URL:          s.URL,
		Algorithms:   s.Algorithms,
		Leeway:       s.Leeway,
		MaxLifetime:  s.MaxLifetime,
		InsecureHTTP: s.InsecureHTTP,
		Logger:       s.Logger,
		Now:          s.Now,
	}
	switch s.Profile {
	case "", "rfc9068":
	case "lenient":
		cfg.Profile = jwks.Lenient()
	default:
		mistakes = append(mistakes, Mistake{"profile", fmt.Errorf("%q is neither rfc9068 nor lenient", s.Profile)})
	}
	if s.File == "" {
		return cfg, mistakes
	}
	var err error
	if cfg.Keys, err = file.Read(s.File, maxKeys); err != nil {
		cfg.Keys = []byte{} // and not nil, which would ask for discovery
		mistakes = append(mistakes, Mistake{"file", err})
	}
	if s.URL != "" {
		mistakes = append(mistakes, Mistake{"file", errors.New("stands beside url: give one of them")})
		cfg.URL = ""
	}
	return cfg, mistakes
}

// Verifier returns the verifier, or every mistake in s. It does what I/O [Settings.Config] does.
func (s Settings) Verifier() (*jwks.Verifier, []Mistake) {
	cfg, mistakes := s.Config()
	return Verifier(cfg, mistakes)
}

// Verifier returns the verifier of what [Settings.Config] returned, or every mistake in it.
func Verifier(cfg jwks.Config, mistakes []Mistake) (*jwks.Verifier, []Mistake) {
	said := slices.ContainsFunc(mistakes, func(m Mistake) bool { return m.Field == "file" })
	v, err := jwks.New(cfg)
	for _, m := range Mistakes(err, names) {
		if m.Field != "file" || !said {
			mistakes = append(mistakes, m)
		}
	}
	if len(mistakes) == 0 {
		return v, nil
	}
	if v != nil {
		v.Close()
	}
	return nil, mistakes
}

// Mistakes takes the joined mistakes of a constructor apart, "jwks: Audience: required" for one: each becomes one line,
// without the package, and with its field, whose name in files names has.
func Mistakes(err error, names map[string]string) []Mistake {
	if err == nil {
		return nil
	}
	var mistakes []Mistake
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			mistakes = append(mistakes, Mistakes(e, names)...)
		}
		return mistakes
	}
	inner := errors.Unwrap(err)
	if joined, ok := inner.(interface{ Unwrap() []error }); ok { // the package stands before them all
		prefix := strings.TrimSuffix(err.Error(), inner.Error())
		for _, e := range joined.Unwrap() {
			mistakes = append(mistakes, Mistakes(errors.New(prefix+e.Error()), names)...)
		}
		return mistakes
	}
	_, text, _ := strings.Cut(strings.ReplaceAll(err.Error(), "\n", "; "), ": ") // without the package
	field, rest, _ := strings.Cut(text, ": ")
	field, _, _ = strings.Cut(field, "[") // of a list it is clear which element is meant
	name, known := names[field]
	if !known {
		return []Mistake{{"", errors.New(text)}}
	}
	return []Mistake{{name, errors.New(rest)}}
}
