package keyset

import (
	"errors"
	"time"

	"github.com/valetkey/valetkey"
)

// Why a set is not ready, where no fetch says it.
var (
	errNotFetched = errors.New("nothing has been fetched yet")
	errOverdue    = errors.New("the keys are older than they should be, and no answer has come yet")
	errClosed     = errors.New("the key set is closed")
)

// Health returns how s is: ready if keys are held and the last fetch was good, or if they are static; degraded if keys are
// held but the last fetch was not good, or should have brought others by now; down if none are held. It does no I/O.
func (s *Set) Health() valetkey.Health {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.healthLocked()
}

func (s *Set) healthLocked() valetkey.Health {
	h := s.health
	if s.static || h.State != valetkey.Ready {
		return h
	}
	held := s.current.Load()
	if stale := held.at.Add(held.lifetime); !time.Now().Before(stale) {
		h.State, h.Since, h.Err = valetkey.Degraded, stale, errOverdue
	}
	return h
}

// comes notes that s comes into a state, or stays in it for another reason. It is called before the keys are replaced:
// those held until now say which state that was.
func (s *Set) comes(state valetkey.State, err error) {
	h := s.healthLocked()
	if h.State != state {
		h.Since = time.Now()
	}
	h.State, h.Err = state, err
	s.health = h
}
