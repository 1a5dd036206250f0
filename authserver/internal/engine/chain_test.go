package engine_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/authserver/internal/costs"
	"github.com/valetkey/valetkey/authserver/store"
)

// counted puts a counter before the store of a site.
func counted(c *costs.Counter) func(*config) {
	return func(cfg *config) { c.Store, cfg.Store = cfg.Store, c }
}

func TestChainsOfExchanges(t *testing.T) {
	var c costs.Counter
	s := start(t, counted(&c), exchanging)
	original := s.login(t, "scope", "orders:read")
	self := s.post(t, "/oauth2/token", "orders-svc", form("grant_type", "client_credentials")).tokens(t).access
	exchange := func(subject string) answer {
		return s.exchange(t, "orders-svc", subject, "actor_token", self, "actor_token_type", accessType)
	}
	chain := []string{original.access}
	t.Run("a chain has a bound", func(t *testing.T) {
		for range 8 {
			chain = append(chain, exchange(chain[len(chain)-1]).tokens(t).access)
		}
		a := exchange(chain[8])
		refused(t, a, 400, "invalid_request")
		assert.Contains(t, a.body["error_description"], "the result of 8 exchanges")
		assert.Equal(t, 200, exchange(chain[7]).status, "another one at the end of it")
	})
	t.Run("introspection costs the same, however long the chain is", func(t *testing.T) {
		for n, raw := range chain {
			cost := c.Of(func() { require.True(t, s.active(t, raw)) })
			assert.LessOrEqual(t, cost.Reads, 2, "after %d exchanges", n)
			assert.Zero(t, cost.Writes)
		}
	})
	t.Run("a token ends with every one that it stands for, and not with one that stands for it", func(t *testing.T) {
		for _, last := range []int{6, 3, 1} {
			require.Equal(t, 200, s.post(t, "/oauth2/revoke", "orders-svc", form("token", chain[last])).status)
			for n, raw := range chain {
				assert.Equal(t, n < last, s.active(t, raw), "%d of the chain, after %d was revoked", n, last)
			}
			refused(t, exchange(chain[last]), 400, "invalid_request")
			refused(t, exchange(chain[8]), 400, "invalid_request")
		}
		require.Equal(t, 200, s.post(t, "/oauth2/revoke", "web", form("token", original.refresh)).status)
		assert.False(t, s.active(t, original.access))
	})
}

// A token may be revoked after an exchange has found it alive, and before what it is exchanged for is stored.
func TestRevokedDuringAnExchange(t *testing.T) {
	var c costs.Counter
	s := start(t, counted(&c), exchanging)
	for _, revoked := range []int{0, 1, 2} {
		chain := []string{s.login(t, "scope", "orders:read").access}
		for range 2 {
			chain = append(chain, s.exchange(t, "orders-svc", chain[len(chain)-1]).tokens(t).access)
		}
		owner := "orders-svc"
		if revoked == 0 {
			owner = "web"
		}
		var once sync.Once
		var id string
		c.BeforePut(func(r store.Record) {
			if r.Kind != "grant" || r.Version != 0 || !slices.ContainsFunc(r.Keys, func(k store.Key) bool { return k.Name == "parent" }) {
				return
			}
			once.Do(func() {
				id = r.ID
				assert.Equal(t, 200, s.post(t, "/oauth2/revoke", owner, form("token", chain[revoked])).status)
			})
		})
		refused(t, s.exchange(t, "orders-svc", chain[2]), 400, "invalid_request")
		c.BeforePut(nil)
		require.NotEmpty(t, id)
		stored, err := s.store.Get(t.Context(), "grant", id)
		require.NoError(t, err)
		assert.Contains(t, string(stored.Value), `"revoked_at"`, "what was stored is of no use")
	}
}

// An interrupting store calls between before the Put that ends a grant, and then fails once.
type interrupting struct {
	store.Store
	between func()
	down    bool
}

func (i *interrupting) Put(ctx context.Context, r store.Record) (int64, error) {
	if between := i.between; between != nil && r.Kind == "grant" && strings.Contains(string(r.Value), `"revoked_at"`) {
		i.between = nil
		between()
		defer func() { i.down = true }()
	}
	return i.Store.Put(ctx, r)
}

func (i *interrupting) Find(ctx context.Context, kind string, key store.Key, after string, limit int) ([]store.Record, error) {
	if i.down {
		i.down = false
		return nil, errBroken
	}
	return i.Store.Find(ctx, kind, key, after, limit)
}

// A token may be exchanged while it is revoked, which may then be interrupted: the next attempt ends what it was exchanged for.
func TestEndOfAnExchangedTokenIsRepeatedIfItWasInterrupted(t *testing.T) {
	var i interrupting
	s := start(t, func(c *config) { i.Store, c.Store = c.Store, &i }, exchanging)
	middle := s.exchange(t, "orders-svc", s.login(t, "scope", "orders:read").access, "scope", "vault:open").tokens(t).access
	var last string
	i.between = func() { last = s.exchange(t, "vault-svc", middle).tokens(t).access }
	active := func() bool {
		a := s.introspect(t, "vault-api", last)
		require.Equal(t, 200, a.status, a.text)
		return a.body["active"].(bool)
	}
	_, err := s.RevokeGrants(t.Context(), "", "orders-svc")
	require.ErrorIs(t, err, errBroken)
	require.True(t, active())
	for range 2 {
		_, err = s.RevokeGrants(t.Context(), "", "orders-svc")
		require.NoError(t, err)
		assert.False(t, active())
	}
}
