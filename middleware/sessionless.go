package middleware

import (
	"log/slog"
	"sync"

	"github.com/valetkey/valetkey"
)

// maxSessionless is the maximum number of issuers in a sessionless. Issuers whose tokens a verifier accepts, and trusted publishers of
// revocations, fill it: with a verifier of many tenants, the tenants. When it is full, a mismatch of another issuer is not reported.
const maxSessionless = 1024

// A sessionless finds issuers whose sessions are revoked although none of their tokens has a sid: such a revocation rejects nothing.
// An issuer with at least one token that has a sid is not reported, because tokens of machines belong to no session. The zero value is
// ready. It is safe for concurrent use.
type sessionless struct {
	mu      sync.RWMutex
	issuers map[string]seen
}

// seen is what a guard has seen of an issuer: tokens with sid and without, and sessions that are revoked.
type seen struct{ with, without, revoked bool }

func (s seen) unmatched() bool { return s.revoked && s.without && !s.with }

// noteToken records an accepted token.
func (s *sessionless) noteToken(t *valetkey.Token, log *slog.Logger) {
	s.note(t.Issuer(), seen{with: t.SessionID() != "", without: t.SessionID() == ""}, log)
}

// noteRevocation records a revocation.
func (s *sessionless) noteRevocation(r valetkey.Revocation, log *slog.Logger) {
	if r.SessionID != "" {
		s.note(r.Issuer, seen{revoked: true}, log)
	}
}

// note adds what is new about an issuer. It logs an issuer once.
func (s *sessionless) note(issuer string, new seen, log *slog.Logger) {
	add := func(old seen) seen {
		return seen{old.with || new.with, old.without || new.without, old.revoked || new.revoked}
	}
	s.mu.RLock()
	old := s.issuers[issuer]
	s.mu.RUnlock()
	if add(old) == old {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old, known := s.issuers[issuer]
	if !known && len(s.issuers) >= maxSessionless {
		return
	}
	if s.issuers == nil {
		s.issuers = make(map[string]seen)
	}
	now := add(old)
	if now.unmatched() && !old.unmatched() {
		log.Warn("sessions of the issuer are revoked, but none of its tokens so far has a sid, so this rejects none of them: "+
			"let the issuer add sid to access tokens, or revoke by subject", "issuer", issuer)
	}
	s.issuers[issuer] = now
}

// count returns the number of issuers whose revoked sessions match no token.
func (s *sessionless) count() (n int) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, of := range s.issuers {
		if of.unmatched() {
			n++
		}
	}
	return n
}
