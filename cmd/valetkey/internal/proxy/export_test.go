package proxy

import "github.com/valetkey/valetkey"

// Revoke applies revocations as they arrive from redis.
func (p *Proxy) Revoke(rs ...valetkey.Revocation) error { return p.guard.Revoke(rs...) }

// Requests returns how many requests are under way with a token.
func (p *Proxy) Requests() int { return p.guard.Status().Requests }
