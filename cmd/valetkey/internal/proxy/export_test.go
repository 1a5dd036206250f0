package proxy

import (
	"slices"

	"github.com/valetkey/valetkey"
)

// Revoke applies revocations as they arrive from redis.
func (p *Proxy) Revoke(rs ...valetkey.Revocation) error { return p.guard.Revoke(rs...) }

// Requests returns how many requests are under way with a token.
func (p *Proxy) Requests() int { return p.guard.Status().Requests }

// CheckedReasons returns the reasons for which some check fails.
func CheckedReasons() (all []valetkey.Reason) {
	for _, c := range slices.Concat(pathChecks, jwtChecks, statusChecks, askedChecks, schemeChecks, certificateChecks, proofChecks, routeChecks) {
		all = append(all, c.refusals...)
	}
	return slices.Compact(slices.Sorted(slices.Values(all)))
}
