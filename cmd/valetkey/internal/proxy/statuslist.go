package proxy

import (
	"slices"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/issuer"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/statuslist"
)

// statusNames are what a file calls the fields of statuslist.Config that it has. The others are those of the jwks.
var statusNames = map[string]string{
	"Origins": "origins", "Fresh": "fresh", "MinTTL": "min_ttl", "MaxTTL": "max_ttl", "StaleLimit": "stale",
}

// statusList reads how the status of tokens is looked up; nil: it is not.
func (n node) statusList() *statuslist.Config {
	if n.Node == nil {
		return nil
	}
	f := n.fields("required", "origins", "allow", "fresh", "min_ttl", "max_ttl", "stale")
	cfg := &statuslist.Config{
		Required:   f["required"].flag(),
		Origins:    f["origins"].texts(),
		Fresh:      f["fresh"].positive(),
		MinTTL:     f["min_ttl"].positive(),
		MaxTTL:     f["max_ttl"].positive(),
		StaleLimit: max(f["stale"].duration(), 0),
	}
	if f["allow"].Node != nil {
		var allowed []int
		for _, item := range f["allow"].items() {
			status := item.number()
			if status < 2 || status > 255 { // valid always is, and invalid never
				item.mistake("is not a status from 2 to 255")
			}
			allowed = append(allowed, status)
		}
		cfg.Allow = func(status uint8) bool { return slices.Contains(allowed, int(status)) }
	}
	return cfg
}

// listed puts a status list behind the verifier that is made of keys; nil: there are mistakes.
func (n node) listed(cfg statuslist.Config, by valetkey.Verifier, keys jwks.Config) *statuslist.Verifier {
	cfg.Verifier, cfg.Issuer, cfg.KeysURL, cfg.Keys = by, keys.Issuer, keys.URL, keys.Keys
	cfg.InsecureHTTP, cfg.Logger = keys.InsecureHTTP, keys.Logger
	v, err := statuslist.New(cfg)
	for _, m := range issuer.Mistakes(err, statusNames) {
		if m.Field != "" { // or it is one of the jwks, and said there
			n.mistake("%s: %v", m.Field, m.Err)
		}
	}
	if err != nil {
		return nil
	}
	return v
}
