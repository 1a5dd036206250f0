package proxy

import (
	"context"
	"maps"
	"net/http"
	"slices"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/config"
)

// UnusedDescriptions returns the paths in schemaKeys and schemaValues that no file has.
func UnusedDescriptions() (unused []string) {
	var used []string
	for _, f := range files {
		used = append(used, config.Paths(f)...)
	}
	for _, path := range slices.Concat(slices.Sorted(maps.Keys(schemaKeys)), slices.Sorted(maps.Keys(schemaValues))) {
		if !slices.Contains(used, path) {
			unused = append(unused, path)
		}
	}
	return unused
}

// Revoke applies revocations as if they arrived from Redis.
func (p *Proxy) Revoke(rs ...valetkey.Revocation) error { return p.guard.Revoke(rs...) }

// Revoke applies revocations as if they arrived from Redis.
func (s *Service) Revoke(rs ...valetkey.Revocation) error {
	p := s.current.Get()
	defer p.Done()
	return p.Value.guard.Revoke(rs...)
}

// Requests returns the number of requests in progress with a token.
func (p *Proxy) Requests() int { return p.guard.Status().Requests }

// Ready waits until the verifiers can verify tokens. The first request would wait for two seconds only.
func (p *Proxy) Ready(ctx context.Context) error { return p.guard.Ready(ctx) }

// CheckedReasons returns all reasons that belong to a check.
func CheckedReasons() (all []valetkey.Reason) {
	for _, c := range slices.Concat(pathChecks, jwtChecks, statusChecks, askedChecks, schemeChecks, certificateChecks, proofChecks, detailChecks, loginChecks, routeChecks) {
		all = append(all, c.refusals...)
	}
	return slices.Compact(slices.Sorted(slices.Values(all)))
}

// Asked returns the handler for the questions of gateways over HTTP.
func (a *Authorizer) Asked() http.Handler { return a.ask }

// HasKey reports whether files have a key, such as verifiers.jwks.issuer. TestSchema compares the list with the structs of files.
func HasKey(path string) bool { return schemaKeys[path] != "" }
