package proxy

import (
	"log/slog"
	"slices"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/jwks"
)

// Keys returns the configurations of the verifiers with keys in a file.
func Keys(path string) (all []jwks.Config, err error) {
	re := &rehearsal{}
	p, err := load(path, build{log: slog.New(slog.DiscardHandler), rehearsal: re})
	if err != nil {
		return nil, err
	}
	p.Close()
	for _, m := range re.made {
		if m.keys != nil {
			all = append(all, *m.keys)
		}
	}
	return all, nil
}

// Revoke applies revocations as if they arrived from Redis.
func (p *Proxy) Revoke(rs ...valetkey.Revocation) error { return p.guard.Revoke(rs...) }

// Requests returns the number of requests in progress with a token.
func (p *Proxy) Requests() int { return p.guard.Status().Requests }

// CheckedReasons returns all reasons that belong to a check.
func CheckedReasons() (all []valetkey.Reason) {
	for _, c := range slices.Concat(pathChecks, jwtChecks, statusChecks, askedChecks, schemeChecks, certificateChecks, proofChecks, routeChecks) {
		all = append(all, c.refusals...)
	}
	return slices.Compact(slices.Sorted(slices.Values(all)))
}
