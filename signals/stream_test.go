package signals_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/signals"
)

const (
	verification  signals.Event = "https://schemas.openid.net/secevent/ssf/event-type/verification"
	streamUpdated signals.Event = "https://schemas.openid.net/secevent/ssf/event-type/stream-updated"
)

// authorized adds the Authorization header of the stream.
func authorized(r *http.Request) { r.Header.Set("Authorization", secret) }

// pushed returns the status of the response to a push.
func pushed(r *signals.Receiver, raw string) int {
	return push(r, raw, authorized).Code
}

// health returns the health of the stream.
func health(r *signals.Receiver) valetkey.Health { return r.Health()[0] }

// state returns the state in the last verification request.
func (tr *transmitter) state() (state string) {
	eventually(tr.t, "a verification request", func() bool {
		tr.mu.Lock()
		defer tr.mu.Unlock()
		if len(tr.verifies) > 0 {
			state, _ = tr.verifies[len(tr.verifies)-1]["state"].(string)
		}
		return state != ""
	})
	return state
}

func TestVerificationEvents(t *testing.T) {
	tr := newTransmitter(t)
	r := newReceiver(t, tr.config(managed(signals.Push)))
	run(t, r)
	state := tr.state()
	verify := func(state any) string {
		return tr.set(claim("sub_id", opaque("stream-1")), event(verification, M{"state": state}))
	}
	assert.Equal(t, valetkey.Ready, health(r).State)
	assert.ErrorContains(t, health(r).Err, "no verification event has proven that the stream delivers, since the start")
	for name, other := range map[string]string{"another state": "AAAA", "a state with a letter more": state + "A", "a state with another letter": string(state[0]^1) + state[1:]} {
		t.Run("SSF-30 "+name+" is refused", func(t *testing.T) {
			w := push(r, verify(other), authorized)
			assert.Equal(t, 400, w.Code)
			assert.Equal(t, "invalid_state", errOf(t, w))
			assert.True(t, r.Status().LastProof.IsZero())
		})
	}
	t.Run("SSF-30 the requested state is accepted, and proves the stream", func(t *testing.T) {
		assert.Equal(t, 202, pushed(r, verify(state)))
		assert.WithinDuration(t, time.Now(), r.Status().LastProof, soon)
		assert.NoError(t, health(r).Err)
	})
	t.Run("SSF-30 a replica with the same Authorization header accepts it too", func(t *testing.T) {
		assert.Equal(t, 202, pushed(newReceiver(t, tr.config(managed(signals.Push), func(cfg *signals.Config) { cfg.Audience = []string{audience} })), verify(state)))
	})
	t.Run("SSF-30 one with another Authorization header does not", func(t *testing.T) {
		other := newReceiver(t, tr.config(managed(signals.Push), func(cfg *signals.Config) {
			cfg.Audience, cfg.AuthorizationHeader = []string{audience}, ""
		}))
		assert.Equal(t, 400, pushed(other, verify(state)))
	})
	t.Run("SSF-30 nor one with another endpoint", func(t *testing.T) {
		other := newReceiver(t, tr.config(managed(signals.Push), func(cfg *signals.Config) {
			cfg.Audience, cfg.Endpoint = []string{audience}, "https://other.example.com/"
		}))
		assert.Equal(t, 400, pushed(other, verify(state)))
	})
	t.Run("SSF-30 an event without a state is accepted", func(t *testing.T) {
		assert.Equal(t, 202, pushed(r, tr.set(claim("sub_id", nil), event(verification, M{}))))
	})
}

func TestStreamUpdated(t *testing.T) {
	for _, status := range []string{"paused", "disabled"} {
		t.Run("SSF-31 "+status+" degrades the health, and enabled clears it after a gap", func(t *testing.T) {
			tr := newTransmitter(t)
			r := newReceiver(t, tr.config(managed(signals.Push)))
			run(t, r)
			w := watch(t, r)
			eventually(t, "it is set up", func() bool { return w.says("") })
			require.Equal(t, 202, pushed(r, tr.set(claim("sub_id", opaque("stream-1")), event(streamUpdated, M{"status": status, "reason": "license"}))))
			assert.Equal(t, valetkey.Degraded, health(r).State)
			eventually(t, "the watcher learns it", func() bool { return w.says("the transmitter has " + status + " the stream") })
			require.Equal(t, 202, pushed(r, tr.set(claim("sub_id", opaque("stream-1")), event(streamUpdated, M{"status": "enabled"}))))
			eventually(t, "it has caught up, but events may be lost", func() bool { return w.says("events may have been lost") })
			assert.Equal(t, "enabled", r.Status().Stream)
			assert.ErrorIs(t, health(r).Err, valetkey.ErrRevocationsMissing)
		})
	}
	t.Run("SSF-31 the status of one subject does not concern the stream", func(t *testing.T) {
		tr := newTransmitter(t)
		r := newReceiver(t, tr.config())
		run(t, r)
		eventually(t, "it is set up", func() bool { return health(r).State == valetkey.Ready })
		require.Equal(t, 202, pushed(r, tr.set(event(streamUpdated, M{"status": "paused"}))))
		assert.Equal(t, valetkey.Ready, health(r).State)
	})
	t.Run("SSF-31 the status as an object, as Keycloak sends it", func(t *testing.T) {
		tr := newTransmitter(t)
		r := newReceiver(t, tr.config())
		run(t, r)
		eventually(t, "it is set up", func() bool { return health(r).State == valetkey.Ready })
		require.Equal(t, 202, pushed(r, tr.set(claim("sub_id", opaque("stream-1")), event(streamUpdated, M{"status": M{"status": "paused", "reason": "x"}}))))
		assert.Equal(t, "paused", r.Status().Stream)
		assert.Equal(t, valetkey.Degraded, health(r).State)
	})
}
