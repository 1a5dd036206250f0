package proxy

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/valetkey/valetkey"
)

// patience is the time that a command has and a request has not.
const patience = 5 * time.Second

// Revoke publishes a revocation to all proxies that share the redis of a configuration. Of that, it reads the issuers, one
// of which must be that of the revocation, and redis: it needs no secret of theirs.
func Revoke(ctx context.Context, file string, r valetkey.Revocation, log *slog.Logger) error {
	doc, root, err := open(file)
	if err != nil {
		return fmt.Errorf("read the configuration: %w", err)
	}
	top := root.fields(topFields...)
	root.require(top, "verifiers", "redis")
	issuers := top["verifiers"].issuers()
	shared := top["redis"].redis(patience, log)
	if shared != nil {
		defer shared.client.Close()
	}
	if err := doc.err(); err != nil {
		return err
	}
	if !slices.Contains(issuers, r.Issuer) {
		return fmt.Errorf("no verifier of %s is for the issuer %q", file, r.Issuer)
	}
	return shared.Publish(ctx, r)
}

// issuers returns those that tokens can be of, by the verifiers in a list.
func (n node) issuers() (all []string) {
	for _, item := range n.items() {
		kinds := item.fields("jwks", "introspection")
		if kind := kinds["jwks"]; kind.Node != nil {
			all = append(all, kind.fields(jwksFields...)["issuer"].given())
		}
		if kind := kinds["introspection"]; kind.Node != nil {
			all = append(all, kind.fields(introspectionFields...)["issuer"].given())
		}
	}
	return all
}
