package proxy

import (
	"slices"
	"strings"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/mistakes"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/statuslist"
)

// statusNames maps the fields of statuslist.Config to their names in a status_list section. The other fields come from the jwks
// section.
var statusNames = map[string]string{
	"Origins": "origins", "RefreshInterval": "refresh_interval", "MinTTL": "min_ttl", "MaxTTL": "max_ttl", "StaleIfError": "stale_if_error",
}

// config returns the configuration of the status list, or nil if there is none.
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

// listed adds the status list at the path to the verifier with the given keys. It returns nil if there are mistakes.
func (f *file) listed(at string, cfg statuslist.Config, by valetkey.Verifier, keys jwks.Config) *statuslist.Verifier {
	cfg.Verifier, cfg.Issuer, cfg.JWKSURL, cfg.JWKS = by, keys.Issuer, keys.JWKSURL, keys.JWKS
	cfg.InsecureHTTP, cfg.Logger, cfg.Observer = keys.InsecureHTTP, keys.Logger, keys.Observer
	if strings.Contains(keys.JWKSURL, "{kid}") {
		f.Mistake(at, "cannot be combined with {kid} in the URL of the keys: lists need a key set")
		return nil
	}
	v, err := statuslist.New(cfg)
	for _, m := range valetkey.ConfigErrors(err) {
		if name, known := mistakes.Rename(m.Field, statusNames); known { // other fields belong to jwks and are reported there
			f.Mistake(mistakes.Join(at, name), "%w", m.Err)
		}
	}
	if err != nil {
		return nil
	}
	return v
}
