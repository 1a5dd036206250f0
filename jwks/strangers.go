package jwks

import "time"

const (
	maxStrangers = 4096
	strangerFor  = 5 * time.Second
)

// strangers are issuers that are no tenants, for [strangerFor], in the order in which that ends. The zero value is ready.
type strangers struct {
	until map[string]int64
	queue []string
}

func (s *strangers) has(iss string) bool {
	_, known := s.until[iss]
	return known
}

func (s *strangers) full() bool { return len(s.until) >= maxStrangers }

func (s *strangers) add(iss string, now int64) {
	if s.until == nil {
		s.until = map[string]int64{}
	}
	s.until[iss] = now + int64(strangerFor)
	s.queue = append(s.queue, iss)
}

// forget drops those whose time has ended.
func (s *strangers) forget(now int64) {
	for len(s.queue) > 0 && s.until[s.queue[0]] <= now {
		delete(s.until, s.queue[0])
		s.queue = s.queue[1:]
	}
}
