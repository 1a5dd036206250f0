package jwks

import "time"

const (
	maxNotTenants = 4096
	notTenantFor  = 5 * time.Second
)

// notTenants holds issuers that Lookup recently rejected, ordered by expiry. Each entry expires after [notTenantFor]. The
// zero value is ready to use.
type notTenants struct {
	until map[string]int64
	queue []string
}

func (s *notTenants) has(iss string) bool {
	_, known := s.until[iss]
	return known
}

func (s *notTenants) full() bool { return len(s.until) >= maxNotTenants }

func (s *notTenants) add(iss string, now int64) {
	if s.until == nil {
		s.until = map[string]int64{}
	}
	s.until[iss] = now + int64(notTenantFor)
	s.queue = append(s.queue, iss)
}

// forget drops expired entries.
func (s *notTenants) forget(now int64) {
	for len(s.queue) > 0 && s.until[s.queue[0]] <= now {
		delete(s.until, s.queue[0])
		s.queue = s.queue[1:]
	}
}
