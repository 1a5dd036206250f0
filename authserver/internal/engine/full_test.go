package engine_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/authserver/internal/clients"
	"github.com/valetkey/valetkey/authserver/internal/engine"
	"github.com/valetkey/valetkey/authserver/store"
	"github.com/valetkey/valetkey/dpop"
	"github.com/valetkey/valetkey/valetkeytest"
)

// The memory of used proofs is another one.
func TestFullMemoryOfProofs(t *testing.T) {
	s := start(t, proving(dpop.Config{ReplayStore: dpop.NewReplayStore(1)}))
	key := valetkeytest.NewIssuer(t).ProofKey("ES256")
	first, second := s.proof(key), s.proof(key)
	require.Equal(t, 200, s.send(t, "/oauth2/token", "service", bare, first).status)
	a := s.send(t, "/oauth2/token", "service", bare, second)
	refused(t, a, 503, "temporarily_unavailable")
	assert.NotEmpty(t, a.header.Get("Retry-After"))
	refused(t, s.send(t, "/oauth2/token", "service", bare, first), 400, "invalid_dpop_proof")
}

func TestOneClientCannotFillTheMemoryOfProofs(t *testing.T) {
	const room = 40
	s := start(t, proving(dpop.Config{ReplayStore: dpop.NewReplayStore(room)}), with(clients.Client{
		ID: "other", AuthMethod: "client_secret_basic", SecretDigest: []string{store.Digest("secret-of-other")},
		GrantTypes: []string{"client_credentials"}, Scopes: []string{"orders:read"},
	}))
	iss, last := valetkeytest.NewIssuer(t), answer{}
	for range room { // another key each time
		last = s.send(t, "/oauth2/token", "service", bare, s.proof(iss.ProofKey("ES256")))
	}
	refused(t, last, 503, "temporarily_unavailable")
	require.Equal(t, 200, s.send(t, "/oauth2/token", "other", bare, s.proof(iss.ProofKey("ES256"))).status)
}

// A full store in memory must not drop used credentials, or they could be used again.
func TestFullMemoryFailsClosed(t *testing.T) {
	const room = 20
	s := start(t, func(c *config) {
		small := store.NewMemory(room)
		kept, err := c.Store.Find(t.Context(), "key", store.Key{}, "", 10)
		require.NoError(t, err)
		for _, r := range kept {
			r.Version = 0
			_, err := small.Put(t.Context(), r)
			require.NoError(t, err)
		}
		c.Store = small
	})
	fill := func(t *testing.T, kind string) (empty func()) {
		var ids []string
		for i := range room {
			id := fmt.Sprint("filler", i)
			if _, err := s.store.Put(t.Context(), store.Record{Kind: kind, ID: id, Expires: time.Now().Add(time.Hour)}); err != nil {
				require.ErrorIs(t, err, store.ErrFull)
				break
			}
			ids = append(ids, id)
		}
		return func() {
			for _, id := range ids {
				require.NoError(t, s.store.Delete(t.Context(), kind, id))
			}
		}
	}
	full := func(t *testing.T, a answer) {
		t.Helper()
		refused(t, a, 503, "temporarily_unavailable")
		assert.NotEmpty(t, a.header.Get("Retry-After"))
	}
	t.Run("a used assertion stays used", func(t *testing.T) {
		signed := func() string { return assertion(t, clientKey(), nil, s.url, nil) }
		ask := func(a string) answer {
			return s.post(t, "/oauth2/token", "", asserted(a))
		}
		used, next := signed(), signed()
		require.Equal(t, 200, ask(used).status)
		empty := fill(t, "jti")
		full(t, ask(next))
		refused(t, ask(used), 401, "invalid_client")
		empty()
		assert.Equal(t, 200, ask(next).status, "which was not used up")
	})
	t.Run("a spent refresh token stays spent, and one that could not be spent is alive", func(t *testing.T) {
		got := s.login(t)
		second := s.refresh(t, "web", got.refresh).tokens(t)
		empty := fill(t, "spent")
		full(t, s.refresh(t, "web", second.refresh))
		empty()
		third := s.refresh(t, "web", second.refresh).tokens(t)
		defer fill(t, "spent")()
		refused(t, s.refresh(t, "web", got.refresh), 400, "invalid_grant")
		assert.Len(t, s.saw(engine.TokenReused), 1)
		assert.False(t, s.active(t, third.access), "the family has ended")
	})
	t.Run("the oldest grants of the client that has most give way to new ones", func(t *testing.T) {
		other := s.post(t, "/oauth2/token", "service", form("grant_type", "client_credentials", "scope", "orders:read")).tokens(t)
		first := s.login(t)
		for range room {
			require.True(t, s.active(t, s.login(t).access))
		}
		assert.False(t, s.active(t, first.access))
		refused(t, s.refresh(t, "web", first.refresh), 400, "invalid_grant")
		assert.True(t, s.active(t, other.access), "that of another client is older, and stays")
	})
}
