package engine_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/authserver/store"
)

// A failure of the store is not the request's fault: no response calls a code or a token invalid because of it.
func TestOutagesOfOtherGrants(t *testing.T) {
	b := &broken{}
	s := start(t, func(c *config) { b.Store, c.Store = c.Store, b }, trusting, exchanging, func(c *config) {
		with(append(devices(), exchangers()...)...)(c)
	})
	code, userCode := s.begin(t)
	waiting, waitingCode := s.begin(t)
	s.letIn(t, userCode)
	first := s.login(t, "scope", "orders:read").access
	second := s.exchange(t, "orders-svc", first, "resource", vault).tokens(t).access
	in, err := s.Device(t.Context(), waitingCode)
	require.NoError(t, err)
	for _, c := range []struct {
		kind, name string
		do         func() answer
	}{
		{"device", "a new device", func() answer { return s.post(t, "/oauth2/device_authorization", "", form("client_id", "tv")) }},
		{"device", "a device that waits", func() answer { return s.post(t, "/oauth2/token", "", poll(waiting)) }},
		{"device", "a device that was let in", func() answer { return s.post(t, "/oauth2/token", "", poll(code)) }},
		{"grant", "a device that was let in", func() answer { return s.post(t, "/oauth2/token", "", poll(code)) }},
		{"grant", "token exchange", func() answer { return s.exchange(t, "orders-svc", first) }},
		{"token", "token exchange", func() answer { return s.exchange(t, "orders-svc", first, "resource", vault) }},
		{"grant", "introspection of what was exchanged", func() answer { return s.introspect(t, "vault-api", second) }},
	} {
		t.Run("no "+c.kind+" records: "+c.name, func(t *testing.T) {
			b.down(c.kind)
			a := c.do()
			b.down("")
			refused(t, a, 500, "server_error")
			assert.NotContains(t, a.text, "fire")
		})
	}
	for _, kind := range []string{"device", "grant"} {
		t.Run("no "+kind+" records: the pages", func(t *testing.T) {
			b.down(kind)
			err := s.DecideDevice(t.Context(), in, allow(in))
			_, found := s.Device(t.Context(), waitingCode)
			b.down("")
			require.ErrorIs(t, err, errBroken)
			assert.NotErrorIs(t, err, store.ErrNotFound)
			assert.Equal(t, kind == "device", found != nil)
		})
	}
	t.Run("afterwards all is as it was", func(t *testing.T) {
		assert.Equal(t, 200, s.post(t, "/oauth2/token", "", poll(code)).status)
		require.NoError(t, s.DecideDevice(t.Context(), in, allow(in)))
		assert.Equal(t, 200, s.post(t, "/oauth2/token", "", poll(waiting)).status)
		assert.Equal(t, true, s.introspect(t, "vault-api", second).body["active"])
	})
}

func TestAssertionOutage(t *testing.T) {
	b := &broken{}
	s := start(t, func(c *config) { b.Store, c.Store = c.Store, b }, trusting)
	bob := assertion(t, clientKey(), nil, s.url, map[string]any{"iss": partner, "sub": "bob"})
	b.down("jti")
	refused(t, s.post(t, "/oauth2/token", "bridge", granting(bob)), 500, "server_error")
	b.down("")
	assert.Equal(t, 200, s.post(t, "/oauth2/token", "bridge", granting(bob)).status)
}

// What was registered with the server may have changed between the start of a device and the user's decision.
func TestDeviceWhoseClientIsGone(t *testing.T) {
	s := start(t)
	registered, _, err := s.registry.Create(t.Context(), devices()[0], false)
	require.NoError(t, err)
	a := s.post(t, "/oauth2/device_authorization", "", form("client_id", registered.ID, "scope", "orders:write"))
	require.Equal(t, 200, a.status, a.text)
	userCode := a.body["user_code"].(string)
	changed, err := s.registry.Get(t.Context(), registered.ID)
	require.NoError(t, err)
	changed.Scopes = []string{"orders:read"}
	require.NoError(t, s.registry.Update(t.Context(), *changed))
	_, err = s.Device(t.Context(), userCode)
	assert.ErrorIs(t, err, store.ErrNotFound, "it may no longer have what it asks for")
	require.NoError(t, s.registry.Delete(t.Context(), registered.ID))
	_, err = s.Device(t.Context(), userCode)
	assert.ErrorIs(t, err, store.ErrNotFound)
}
