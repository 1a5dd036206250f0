package engine_test

import (
	"context"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/authserver/internal/clients"
	"github.com/valetkey/valetkey/authserver/internal/engine"
	"github.com/valetkey/valetkey/authserver/internal/flow"
	"github.com/valetkey/valetkey/authserver/login"
	"github.com/valetkey/valetkey/authserver/store"
)

const deviceGrant = "urn:ietf:params:oauth:grant-type:device_code"

// tv is a client that has no browser, and asks for its user's leave to use orders; box is a confidential one.
func devices() []clients.Client {
	grants := []string{deviceGrant, "refresh_token"}
	return []clients.Client{
		{ID: "tv", AuthMethod: "none", GrantTypes: grants, Scopes: []string{"orders:read", "orders:write"}},
		{ID: "box", AuthMethod: "client_secret_basic", SecretDigest: []string{store.Digest("secret-of-box")}, GrantTypes: grants, Scopes: []string{"orders:read", "vault:open"}},
	}
}

// with adds clients to those of the site.
func with(more ...clients.Client) func(*config) {
	return func(c *config) { c.Clients = clients.NewRegistry(c.Store, append(static(), more...)) }
}

// begin starts a device of tv.
func (s *site) begin(t testing.TB, pairs ...string) (deviceCode, userCode string) {
	t.Helper()
	a := s.post(t, "/oauth2/device_authorization", "", append2(form("client_id", "tv"), pairs...))
	require.Equal(t, 200, a.status, a.text)
	return a.body["device_code"].(string), a.body["user_code"].(string)
}

func poll(code string) url.Values {
	return form("grant_type", deviceGrant, "client_id", "tv", "device_code", code)
}

// letIn allows a device as alice.
func (s *site) letIn(t testing.TB, userCode string) {
	t.Helper()
	in, err := s.Device(t.Context(), userCode)
	require.NoError(t, err)
	require.NoError(t, s.DecideDevice(t.Context(), in, allow(in)))
}

func TestDeviceAuthorization(t *testing.T) {
	s := start(t, with(devices()...))
	const path = "/oauth2/device_authorization"
	for _, c := range []struct {
		name   string
		form   url.Values
		status int
		code   string
	}{
		{"no client", form("scope", "orders:read"), 401, "invalid_client"},
		{"AS-DEVICE-10 a confidential client without its secret", form("client_id", "box"), 401, "invalid_client"},
		{"AS-DEVICE-10 a wrong secret", form("client_id", "box", "client_secret", "x"), 401, "invalid_client"},
		{"a client without the grant", form("client_id", "spa"), 400, "unauthorized_client"},
		{"another client's scope", form("client_id", "tv", "scope", "files:read"), 400, "invalid_scope"},
		{"an unknown resource", form("client_id", "tv", "resource", "https://x.example.com"), 400, "invalid_target"},
		{"a parameter twice", form("client_id", "tv", "scope", "orders:read", "scope", "orders:write"), 400, "invalid_request"},
	} {
		t.Run(c.name, func(t *testing.T) { refused(t, s.post(t, path, "", c.form), c.status, c.code) })
	}
	t.Run("AS-DEVICE-01 AS-DEVICE-09 the response to a device", func(t *testing.T) {
		a := s.post(t, path, "", form("client_id", "tv", "scope", "orders:read"))
		require.Equal(t, 200, a.status, a.text)
		assert.Equal(t, "no-store", a.header.Get("Cache-Control"))
		assert.Regexp(t, `^[A-Z2-7]{52}$`, a.body["device_code"])
		assert.Regexp(t, `^[BCDFGHJKLMNPQRSTVWXZ]{4}-[BCDFGHJKLMNPQRSTVWXZ]{4}$`, a.body["user_code"])
		assert.Equal(t, s.url+"/device", a.body["verification_uri"])
		assert.Equal(t, s.url+"/device?user_code="+a.body["user_code"].(string), a.body["verification_uri_complete"])
		assert.EqualValues(t, 600, a.body["expires_in"])
		assert.EqualValues(t, 5, a.body["interval"])
	})
	t.Run("a confidential client with its secret", func(t *testing.T) {
		assert.Equal(t, 200, s.post(t, path, "box", form("scope", "vault:open")).status)
	})
}

func TestUserCodes(t *testing.T) {
	s := start(t, with(devices()...))
	_, code := s.begin(t)
	letters := strings.ReplaceAll(code, "-", "")
	for _, typed := range []string{"", "BCDF", letters + "B", "AEIO-UYAE", letters[:7] + "1", "BBBB-BBBB", strings.Repeat("B", 1000)} {
		t.Run("AS-DEVICE-08 no code: "+typed[:min(len(typed), 9)], func(t *testing.T) {
			_, err := s.Device(t.Context(), typed)
			assert.ErrorIs(t, err, store.ErrNotFound)
		})
	}
	for _, typed := range []string{code, strings.ToLower(code), letters, " " + letters[:4] + " " + letters[4:] + "\n", letters[:1] + "_" + letters[1:] + "."} {
		t.Run("AS-DEVICE-08 however it is typed", func(t *testing.T) {
			in, err := s.Device(t.Context(), typed)
			require.NoError(t, err)
			assert.Equal(t, code, in.UserCode)
		})
	}
	t.Run("what the pages are shown", func(t *testing.T) {
		in, err := s.Device(t.Context(), code)
		require.NoError(t, err)
		assert.Equal(t, "tv", in.Client.ID)
		assert.Equal(t, orders, in.API.Audience)
		assert.Equal(t, valetkey.NewScopes("orders:read", "orders:write"), in.Scopes)
		assert.Empty(t, in.RedirectURI)
		assert.Negative(t, in.MaxAge)
		assert.Len(t, in.ID, 43)
		assert.NotContains(t, in.ID, letters)
	})
	t.Run("no two are alike", func(t *testing.T) {
		seen := map[string]bool{}
		for range 200 {
			_, code := s.begin(t)
			assert.False(t, seen[code])
			seen[code] = true
		}
	})
}

func TestDevice(t *testing.T) {
	s := start(t, with(devices()...))
	redeem := func(code string) answer { return s.post(t, "/oauth2/token", "", poll(code)) }
	t.Run("no code", func(t *testing.T) { refused(t, redeem(""), 400, "invalid_request") })
	t.Run("an unknown code", func(t *testing.T) { refused(t, redeem(strings.Repeat("A", 52)), 400, "invalid_grant") })
	t.Run("a user code is not a device code", func(t *testing.T) {
		_, code := s.begin(t)
		s.letIn(t, code)
		refused(t, redeem(code), 400, "invalid_grant")
	})
	t.Run("a client without the grant", func(t *testing.T) {
		code, _ := s.begin(t)
		f := poll(code)
		f.Set("client_id", "spa")
		refused(t, s.post(t, "/oauth2/token", "", f), 400, "unauthorized_client")
	})
	t.Run("AS-DEVICE-02 before the user has decided", func(t *testing.T) {
		code, _ := s.begin(t)
		refused(t, redeem(code), 400, "authorization_pending")
	})
	t.Run("AS-DEVICE-04 the user denies", func(t *testing.T) {
		code, userCode := s.begin(t)
		in, err := s.Device(t.Context(), userCode)
		require.NoError(t, err)
		require.NoError(t, s.DecideDevice(t.Context(), in, &flow.Decision{Denied: true}))
		refused(t, redeem(code), 400, "access_denied")
		_, err = s.Device(t.Context(), userCode)
		assert.ErrorIs(t, err, store.ErrNotFound, "it is decided")
	})
	t.Run("a decision that grants nothing denies", func(t *testing.T) {
		for _, d := range []*flow.Decision{
			{}, {User: alice}, {User: alice, Scopes: valetkey.NewScopes("files:read")},
			{User: &login.User{Subject: "employee:eve", Type: "employee", Scopes: []string{}}, Scopes: valetkey.NewScopes("orders:read")},
		} {
			code, userCode := s.begin(t)
			in, err := s.Device(t.Context(), userCode)
			require.NoError(t, err)
			require.NoError(t, s.DecideDevice(t.Context(), in, d))
			refused(t, redeem(code), 400, "access_denied")
		}
	})
	t.Run("AS-DEVICE-07 another client's code", func(t *testing.T) {
		code, userCode := s.begin(t)
		s.letIn(t, userCode)
		f := form("grant_type", deviceGrant, "device_code", code)
		refused(t, s.post(t, "/oauth2/token", "box", f), 400, "invalid_grant")
		assert.Equal(t, 200, redeem(code).status, "and it is still its own client's")
	})
	t.Run("AS-DEVICE-06 tokens, once", func(t *testing.T) {
		code, userCode := s.begin(t, "scope", "orders:read")
		s.letIn(t, strings.ToLower(userCode))
		got := redeem(code).tokens(t)
		assert.Equal(t, "orders:read", got.scope)
		claims := part(t, got.access, 1)
		assert.Equal(t, "employee:alice", claims["sub"])
		assert.Equal(t, "tv", claims["client_id"])
		assert.Equal(t, orders, claims["aud"])
		assert.Equal(t, "pwd", claims["acr"])
		for range 3 {
			refused(t, redeem(code), 400, "invalid_grant")
		}
		assert.True(t, s.active(t, got.access))
		f := form("grant_type", "refresh_token", "client_id", "tv", "refresh_token", got.refresh)
		assert.True(t, s.active(t, s.post(t, "/oauth2/token", "", f).tokens(t).access))
	})
	t.Run("the user may allow less", func(t *testing.T) {
		code, userCode := s.begin(t)
		in, err := s.Device(t.Context(), userCode)
		require.NoError(t, err)
		d := allow(in)
		d.Scopes = valetkey.NewScopes("orders:read", "vault:open")
		require.NoError(t, s.DecideDevice(t.Context(), in, d))
		assert.Equal(t, "orders:read", redeem(code).tokens(t).scope)
	})
	t.Run("a second decision is refused", func(t *testing.T) {
		_, userCode := s.begin(t)
		in, err := s.Device(t.Context(), userCode)
		require.NoError(t, err)
		require.NoError(t, s.DecideDevice(t.Context(), in, allow(in)))
		assert.ErrorIs(t, s.DecideDevice(t.Context(), in, allow(in)), store.ErrNotFound)
		assert.ErrorIs(t, s.DecideDevice(t.Context(), in, &flow.Decision{Denied: true}), store.ErrNotFound)
	})
	t.Run("a poll does not undo the decision, and the decision does not undo the poll", func(t *testing.T) {
		code, userCode := s.begin(t)
		in, err := s.Device(t.Context(), userCode)
		require.NoError(t, err)
		refused(t, redeem(code), 400, "authorization_pending")
		require.NoError(t, s.DecideDevice(t.Context(), in, allow(in)))
		assert.Equal(t, 200, redeem(code).status)
	})
	t.Run("the decision is about the device that was shown", func(t *testing.T) {
		_, userCode := s.begin(t)
		in, err := s.Device(t.Context(), userCode)
		require.NoError(t, err)
		in.ID = "another"
		assert.ErrorIs(t, s.DecideDevice(t.Context(), in, allow(in)), store.ErrNotFound)
	})
	t.Run("the device does not get what the user has withdrawn", func(t *testing.T) {
		code, userCode := s.begin(t)
		s.letIn(t, userCode)
		n, err := s.RevokeGrants(t.Context(), "employee:alice", "tv")
		require.NoError(t, err)
		assert.Positive(t, n)
		refused(t, redeem(code), 400, "invalid_grant")
	})
	t.Run("the audit log has the user who approved the device", func(t *testing.T) {
		_, userCode := s.begin(t)
		s.letIn(t, userCode)
		seen := s.saw(engine.Granted)
		last := seen[len(seen)-1]
		assert.Equal(t, []string{"tv", "employee:alice", orders}, []string{last.Client, last.Subject, last.Audience})
	})
	t.Run("no secret of it is stored", func(t *testing.T) {
		code, userCode := s.begin(t)
		found, err := s.store.Find(t.Context(), "device", store.Key{}, "", 1000)
		require.NoError(t, err)
		require.NotEmpty(t, found)
		for _, rec := range found {
			text := rec.ID + rec.Keys[0].Value + string(rec.Value)
			assert.NotContains(t, text, code)
			assert.NotContains(t, text, strings.ReplaceAll(userCode, "-", ""))
			assert.False(t, rec.Expires.IsZero())
		}
	})
}

func TestDeviceTimes(t *testing.T) {
	device := func(t *testing.T) (h *inside, code, userCode string) {
		h = inProcess(t, with(devices()...))
		a := h.do(t, "POST", "/oauth2/device_authorization", form("client_id", "tv"), "")
		return h, a.body["device_code"].(string), a.body["user_code"].(string)
	}
	t.Run("AS-DEVICE-03 a device that polls too fast has to wait longer", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			h, code, userCode := device(t)
			for _, step := range []struct {
				wait time.Duration
				code string
			}{
				{0, "authorization_pending"},
				{5 * time.Second, "authorization_pending"},
				{4500 * time.Millisecond, "authorization_pending"}, // the network has its own pace
				{time.Second, "slow_down"},
				{time.Second, "slow_down"},
				{10 * time.Second, "authorization_pending"}, // the interval in the response
				{10 * time.Second, "authorization_pending"},
				{3 * time.Second, "slow_down"},
			} {
				time.Sleep(step.wait)
				refused(t, h.do(t, "POST", "/oauth2/token", poll(code), ""), 400, step.code)
			}
			h.letIn(t, userCode)
			assert.Equal(t, 200, h.do(t, "POST", "/oauth2/token", poll(code), "").status)
		})
	})
	t.Run("AS-DEVICE-05 a code that has expired", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			h, code, userCode := device(t)
			in, err := h.Device(t.Context(), userCode)
			require.NoError(t, err)
			time.Sleep(10 * time.Minute)
			refused(t, h.do(t, "POST", "/oauth2/token", poll(code), ""), 400, "expired_token")
			_, err = h.Device(t.Context(), userCode)
			assert.ErrorIs(t, err, store.ErrNotFound)
			assert.ErrorIs(t, h.DecideDevice(t.Context(), in, allow(in)), store.ErrNotFound)
			time.Sleep(10 * time.Minute)
			refused(t, h.do(t, "POST", "/oauth2/token", poll(code), ""), 400, "invalid_grant")
		})
	})
	t.Run("AS-DEVICE-05 a code that was allowed, and expired before it was redeemed", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			h, code, userCode := device(t)
			h.letIn(t, userCode)
			time.Sleep(10 * time.Minute)
			refused(t, h.do(t, "POST", "/oauth2/token", poll(code), ""), 400, "expired_token")
		})
	})
	t.Run("the grant lives until the last moment of the code", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			h, code, userCode := device(t)
			h.letIn(t, userCode)
			time.Sleep(10*time.Minute - time.Millisecond)
			assert.Equal(t, 200, h.do(t, "POST", "/oauth2/token", poll(code), "").status)
		})
	})
}

// A barrier lets no request find a device before all the racers have, so each has read the same version.
type barrier struct {
	store.Store
	left atomic.Int32
	all  chan struct{}
}

func (b *barrier) Find(ctx context.Context, kind string, key store.Key, after string, limit int) ([]store.Record, error) {
	found, err := b.Store.Find(ctx, kind, key, after, limit)
	if kind != "device" {
		return found, err
	}
	if left := b.left.Add(-1); left >= 0 {
		if left == 0 {
			close(b.all)
		}
		<-b.all
	}
	return found, err
}

func TestRaceOfDevices(t *testing.T) {
	b := &barrier{}
	s := start(t, func(c *config) { b.Store, c.Store = c.Store, b }, with(devices()...))
	t.Run("AS-DEVICE-06 one device code, redeemed by many at once, brings tokens once, and they work", func(t *testing.T) {
		for range rounds {
			code, userCode := s.begin(t)
			s.letIn(t, userCode)
			b.all = make(chan struct{})
			b.left.Store(racers)
			var done sync.WaitGroup
			answers := make([]answer, racers)
			for i := range racers {
				done.Go(func() { answers[i] = s.post(t, "/oauth2/token", "", poll(code)) })
			}
			done.Wait()
			won := winner(t, answers)
			require.Len(t, won, 1)
			require.True(t, s.active(t, won[0].access))
		}
	})
	t.Run("AS-DEVICE-03 of many polls at once one is in time", func(t *testing.T) {
		code, _ := s.begin(t)
		b.all = make(chan struct{})
		b.left.Store(racers)
		var pending, slow atomic.Int32
		var done sync.WaitGroup
		for range racers {
			done.Go(func() {
				switch s.post(t, "/oauth2/token", "", poll(code)).body["error"] {
				case "authorization_pending":
					pending.Add(1)
				case "slow_down":
					slow.Add(1)
				}
			})
		}
		done.Wait()
		assert.EqualValues(t, 1, pending.Load())
		assert.EqualValues(t, racers-1, slow.Load())
	})
	t.Run("many decide, one decision counts", func(t *testing.T) {
		code, userCode := s.begin(t)
		in, err := s.Device(t.Context(), userCode)
		require.NoError(t, err)
		var won atomic.Int32
		var done sync.WaitGroup
		for i := range racers {
			d := allow(in)
			if i%2 == 1 {
				d = &flow.Decision{Denied: true}
			}
			done.Go(func() {
				if err := s.DecideDevice(t.Context(), in, d); err == nil {
					won.Add(1)
				} else {
					assert.ErrorIs(t, err, store.ErrNotFound)
				}
			})
		}
		done.Wait()
		assert.EqualValues(t, 1, won.Load())
		assert.Contains(t, []any{nil, "access_denied"}, s.post(t, "/oauth2/token", "", poll(code)).body["error"])
	})
}
