package proxy

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/issuer"
	"github.com/valetkey/valetkey/internal/config"
)

// patience is the minimum Redis timeout for a command, which can wait longer than a request.
const patience = 5 * time.Second

// Revoke publishes a revocation to all proxies that share the Redis of a configuration. The issuer of the revocation must be one
// of the configured issuers or an alias of one. Revoke reads only the issuers and the Redis settings, so it does not need the
// secrets of the verifiers.
func Revoke(ctx context.Context, path string, r valetkey.Revocation, log *slog.Logger) error {
	f := &file{build: build{log: log}}
	var shared *shared
	err := config.ReadFile(path, f, func(d *config.Document) error {
		f.Document = d
		if f.Redis == nil {
			f.Mistake("redis", "required: revocations are published there")
		}
		shared = f.connect(patience)
		return nil
	})
	if shared != nil {
		defer shared.client.Close()
	}
	if err != nil {
		return err
	}
	known := false
	for i, v := range f.Verifiers {
		if v.JWKS != nil {
			s := f.settings(fmt.Sprintf("verifiers[%d].jwks", i), v.JWKS)
			s.File, s.InitialFile = "", ""
			cfg, _ := s.Config()                              // a product may determine the issuer
			if slices.Contains(cfg.IssuerAliases, r.Issuer) { // its tokens have the one issuer that it stands for
				r.Issuer = cfg.Issuer
			}
			known = known || issuer.HasIssuer(&cfg, r.Issuer)
		}
		known = known || v.Introspection != nil && v.Introspection.Issuer == r.Issuer
	}
	if !known {
		return fmt.Errorf("no verifier in %s accepts the issuer %q", path, r.Issuer)
	}
	return shared.Publish(ctx, r)
}
