package proxy

import (
	"slices"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/mistakes"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/statuslist"
)

// statusNames are what a file calls the fields of statuslist.Config that it has. The others are those of the jwks.
var statusNames = map[string]string{
	"Origins": "origins", "RefreshInterval": "refresh_interval", "MinTTL": "min_ttl", "MaxTTL": "max_ttl", "StaleIfError": "stale_if_error",
}

// config returns how the status of tokens is looked up; nil: it is not.
func (s *statusSection) config() *statuslist.Config {
	if s == nil {
		return nil
	}
	cfg := &statuslist.Config{
		Required:        s.Required,
		Origins:         s.Origins,
		RefreshInterval: time.Duration(s.Refresh),
		MinTTL:          time.Duration(s.MinTTL),
		MaxTTL:          time.Duration(s.MaxTTL),
		StaleIfError:    time.Duration(max(s.Stale, 0)),
	}
	if s.Allow != nil {
		cfg.Allow = func(code uint8) bool { return slices.Contains(s.Allow, status(code)) }
	}
	return cfg
}

// listed puts the status list at a path behind the verifier that is made of keys; nil: there are mistakes.
func (f *file) listed(at string, cfg statuslist.Config, by valetkey.Verifier, keys jwks.Config) *statuslist.Verifier {
	cfg.Verifier, cfg.Issuer, cfg.JWKSURL, cfg.JWKS = by, keys.Issuer, keys.JWKSURL, keys.JWKS
	cfg.InsecureHTTP, cfg.Logger = keys.InsecureHTTP, keys.Logger
	v, err := statuslist.New(cfg)
	for _, m := range valetkey.ConfigErrors(err) {
		if name, known := mistakes.Rename(m.Field, statusNames); known { // or it is one of the jwks, and reported there
			f.Mistake(mistakes.Join(at, name), "%w", m.Err)
		}
	}
	if err != nil {
		return nil
	}
	return v
}
