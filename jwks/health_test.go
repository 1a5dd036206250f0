package jwks_test

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/jwks"
)

// An observer passes events on.
type observer chan valetkey.Event

func (o observer) Observe(_ context.Context, e valetkey.Event) { o <- e }

var (
	_ valetkey.HealthReporter = (*jwks.Verifier)(nil)
	_ valetkey.HealthReporter = (*jwks.TenantVerifier)(nil)
)

func TestHealth(t *testing.T) {
	t.Run("a fetch is observed, and makes the verifier ready", func(t *testing.T) {
		s := serve(t, sets(keySet(es256)))
		events := make(observer, 10)
		v := open(t, func(c *jwks.Config) {
			c.Issuer, c.JWKS, c.Client, c.Observer = s.URL, nil, s.Client(), events
		})
		before := v.Health()
		require.Len(t, before, 1)
		assert.Equal(t, valetkey.Health{Name: s.URL, State: valetkey.Down, Since: before[0].Since, Err: before[0].Err}, before[0])
		assert.ErrorContains(t, before[0].Err, "nothing has been fetched yet")
		assert.Zero(t, s.count())

		require.NoError(t, v.Ready(background))
		after := v.Health()[0]
		assert.Equal(t, valetkey.Health{Name: s.URL, State: valetkey.Ready, Since: after.Since}, after)
		assert.True(t, after.Since.After(before[0].Since))
		e := <-events
		assert.Equal(t, valetkey.Event{
			Kind: valetkey.KeySetRefreshed, Issuer: s.URL, Status: http.StatusOK, Duration: e.Duration,
		}, e)
		assert.Positive(t, e.Duration)
	})
	t.Run("keys that need no network are ready under the issuer's name, until they are closed", func(t *testing.T) {
		v := open(t)
		h := v.Health()[0]
		assert.Equal(t, issuer, h.Name)
		assert.Equal(t, valetkey.Ready, h.State)
		v.Close()
		assert.Equal(t, valetkey.Down, v.Health()[0].State)
	})
	t.Run("several issuers are fetched at the same time, and those that are not ready are named", func(t *testing.T) {
		broken := func(w http.ResponseWriter, _ *http.Request) {
			time.Sleep(100 * time.Millisecond)
			w.WriteHeader(http.StatusInternalServerError)
		}
		first, second := serve(t, broken), serve(t, broken)
		fixed := open(t)
		both, err := jwks.ByIssuer(first.open(t), fixed, second.open(t))
		require.NoError(t, err)
		all := both.(valetkey.HealthReporter)
		err = all.Ready(background)
		assert.ErrorContains(t, err, first.URL)
		assert.ErrorContains(t, err, second.URL)
		assert.NotContains(t, err.Error(), issuer)
		states := map[string]valetkey.State{}
		for _, h := range all.Health() {
			states[h.Name] = h.State
		}
		assert.Equal(t, map[string]valetkey.State{first.URL: valetkey.Down, second.URL: valetkey.Down, issuer: valetkey.Ready}, states)
		assert.Equal(t, names(all.Health()), names(valetkey.First(both).(valetkey.HealthReporter).Health()))
	})
}
