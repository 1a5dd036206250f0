// Package issuer creates the verifier of one issuer from command-line flags or a configuration file.
package issuer

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/config"
	"github.com/valetkey/valetkey/internal/mistakes"
	"github.com/valetkey/valetkey/jwks"
)

const maxKeys = 1 << 20 // bytes of a key set

// Settings holds the flags or fields. Fields without a comment correspond to those of [jwks.Config].
type Settings struct {
	Issuer       string
	Audience     []string
	URL          string
	File         string // contains the key set; if set, keys are not fetched
	Profile      string // "rfc9068" or "lenient"; empty: "rfc9068"
	Algorithms   []string
	Leeway       time.Duration
	MaxLifetime  time.Duration
	InsecureHTTP bool
	Logger       *slog.Logger
	Now          func() time.Time
}

// A Mistake is one error in Settings.
type Mistake struct {
	Field string // name in configuration files, such as "insecure_http"; "" if the mistake concerns several fields
	Err   error
}

// names maps the fields of jwks.Config to their names in files, without list indexes.
var names = map[string]string{
	"Issuer":       "issuer",
	"Audience":     "audience",
	"JWKSURL":      "url",
	"JWKS":         "file",
	"Algorithms":   "algorithms",
	"Leeway":       "leeway",
	"MaxLifetime":  "max_lifetime",
	"InsecureHTTP": "insecure_http",
}

// Config returns the jwks.Config for s, and the mistakes that package jwks cannot detect. It reads File and does no other I/O.
func (s Settings) Config() (jwks.Config, []Mistake) {
	var mistakes []Mistake
	cfg := jwks.Config{
		Issuer:       s.Issuer,
		Audience:     s.Audience,
		JWKSURL:      s.URL,
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
	if cfg.JWKS, err = config.Content(s.File, maxKeys); err != nil {
		cfg.JWKS = []byte{} // nil would select discovery
		mistakes = append(mistakes, Mistake{"file", err})
	}
	if s.URL != "" {
		mistakes = append(mistakes, Mistake{"file", errors.New("cannot be combined with url")})
		cfg.JWKSURL = ""
	}
	return cfg, mistakes
}

// Verifier returns the verifier for s, or all mistakes in s. It does the same I/O as [Settings.Config].
func (s Settings) Verifier() (*jwks.Verifier, []Mistake) {
	cfg, mistakes := s.Config()
	return Verifier(cfg, mistakes)
}

// Verifier returns the verifier for the results of [Settings.Config], or all mistakes.
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

// Mistakes returns the mistakes that a constructor reported, each on one line and under the name of its field in files. names
// maps the fields of the constructor's Config, without list indexes. The text of a mistake in an unmapped field begins with the
// Go name of the field.
func Mistakes(err error, names map[string]string) (all []Mistake) {
	for _, m := range valetkey.ConfigErrors(err) {
		name, known := mistakes.Rename(m.Field, names)
		if !known {
			all = append(all, Mistake{"", errors.New(oneLine(m))})
			continue
		}
		all = append(all, Mistake{name, errors.New(oneLine(m.Err))})
	}
	return all
}

func oneLine(err error) string { return InFiles(strings.ReplaceAll(err.Error(), "\n", "; ")) }
