package engine_test

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/authserver/internal/engine"
)

func TestRefresh(t *testing.T) {
	s := start(t)
	t.Run("AS-CORE-12 no token, and a guess", func(t *testing.T) {
		refused(t, s.refresh(t, "web", ""), 400, "invalid_request")
		refused(t, s.refresh(t, "web", "guess"), 400, "invalid_grant")
	})
	t.Run("AS-RT-01 a token of another client", func(t *testing.T) {
		got := s.login(t)
		refused(t, s.refresh(t, "other", got.refresh), 400, "invalid_grant")
		refused(t, s.refresh(t, "spa", got.refresh), 400, "invalid_grant")
		assert.Equal(t, 200, s.refresh(t, "web", got.refresh).status, "and its own still may")
	})
	t.Run("AS-RT-02 a scope beyond the first", func(t *testing.T) {
		got := s.login(t)
		refused(t, s.refresh(t, "web", got.refresh, "scope", "orders:write"), 400, "invalid_scope")
		refused(t, s.refresh(t, "web", got.refresh, "scope", "orders:read orders:write"), 400, "invalid_scope")
		refused(t, s.refresh(t, "web", got.refresh, "scope", "files:read"), 400, "invalid_scope")
		refused(t, s.refresh(t, "web", got.refresh, "resource", files), 400, "invalid_target")
		assert.Equal(t, 200, s.refresh(t, "web", got.refresh).status)
	})
	t.Run("AS-RT-03 the scope stays that of the grant", func(t *testing.T) {
		got := s.login(t, "scope", "orders:read orders:write")
		narrow := s.refresh(t, "web", got.refresh, "scope", "orders:write").tokens(t)
		assert.Equal(t, "orders:write", narrow.scope)
		wide := s.refresh(t, "web", narrow.refresh).tokens(t)
		assert.Equal(t, "orders:read orders:write", wide.scope)
		assert.Equal(t, "employee:alice", part(t, wide.access, 1)["sub"])
		assert.NotEmpty(t, part(t, wide.access, 1)["auth_time"])
	})
	t.Run("AS-RT-04 a public client's token is rotated", func(t *testing.T) {
		a := s.redeem(t, "spa", s.code(t, "client_id", "spa", "redirect_uri", spaURI), "redirect_uri", spaURI)
		first := a.tokens(t)
		second := s.refresh(t, "spa", first.refresh).tokens(t)
		assert.NotEqual(t, first.refresh, second.refresh)
		refused(t, s.refresh(t, "spa", first.refresh), 400, "invalid_grant")
	})
	t.Run("AS-RT-04 AS-RT-06 a confidential client's too", func(t *testing.T) {
		first := s.login(t)
		assert.NotEqual(t, first.refresh, s.refresh(t, "web", first.refresh).tokens(t).refresh)
	})
	for _, used := range []int{0, 1, 2} {
		t.Run("AS-RT-05 an old token ends the family, access tokens included", func(t *testing.T) {
			chain := []tokens{s.login(t)}
			for range 3 {
				chain = append(chain, s.refresh(t, "web", chain[len(chain)-1].refresh).tokens(t))
			}
			bystander := s.login(t)
			for _, one := range chain {
				require.True(t, s.active(t, one.access))
			}
			before := len(s.saw(engine.TokenReused))
			refused(t, s.refresh(t, "web", chain[used].refresh), 400, "invalid_grant")
			for _, one := range chain {
				assert.False(t, s.active(t, one.access))
				refused(t, s.refresh(t, "web", one.refresh), 400, "invalid_grant")
			}
			assert.Len(t, s.saw(engine.TokenReused), before+1)
			assert.Equal(t, 200, s.refresh(t, "web", bystander.refresh).status, "and no other")
		})
	}
	t.Run("an old token that an API introspects, or that is revoked, is not an alarm", func(t *testing.T) {
		first := s.login(t)
		second := s.refresh(t, "web", first.refresh).tokens(t)
		assert.False(t, s.active(t, first.refresh))
		assert.Equal(t, 200, s.post(t, "/oauth2/revoke", "web", form("token", first.refresh)).status)
		assert.True(t, s.active(t, second.access))
	})
	t.Run("a refused request does not cost the token", func(t *testing.T) {
		got := s.login(t)
		refused(t, s.post(t, "/oauth2/token", "", form("grant_type", "refresh_token", "refresh_token", got.refresh, "client_id", "web", "client_secret", "x")), 401, "invalid_client")
		assert.Equal(t, 200, s.refresh(t, "web", got.refresh).status)
	})
}

func TestRefreshLifetime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := inProcess(t, func(c *config) { c.RefreshLifetime = time.Hour })
		first := h.token(t, redemption(h.code(t))).tokens(t)
		refresh := func(token string) answer {
			return h.token(t, form("grant_type", "refresh_token", "refresh_token", token))
		}
		time.Sleep(59 * time.Minute)
		second := refresh(first.refresh).tokens(t)
		time.Sleep(30 * time.Second)
		third := refresh(second.refresh).tokens(t)
		time.Sleep(31 * time.Second)
		refused(t, refresh(third.refresh), 400, "invalid_grant")
	})
}

// A client whose answer was lost asks again with the token that it has.
func TestRefreshGrace(t *testing.T) {
	play := func(t *testing.T, f func(t *testing.T, h *inside, refresh func(string) answer, first tokens)) {
		synctest.Test(t, func(t *testing.T) {
			h := inProcess(t, func(c *config) { c.RefreshGrace = 10 * time.Second })
			refresh := func(token string) answer {
				time.Sleep(time.Second)
				return h.token(t, form("grant_type", "refresh_token", "refresh_token", token))
			}
			f(t, h, refresh, h.token(t, redemption(h.code(t))).tokens(t))
		})
	}
	t.Run("AS-RT-05 it is healed within the time of grace, and one token lives", func(t *testing.T) {
		play(t, func(t *testing.T, h *inside, refresh func(string) answer, first tokens) {
			lost := refresh(first.refresh).tokens(t)
			lostToo := refresh(first.refresh).tokens(t)
			got := refresh(first.refresh).tokens(t)
			next := refresh(got.refresh).tokens(t)
			time.Sleep(time.Minute)
			last := refresh(next.refresh).tokens(t)
			refused(t, refresh(lost.refresh), 400, "invalid_grant")
			refused(t, refresh(last.refresh), 400, "invalid_grant") // the one before has ended the family
			refused(t, refresh(lostToo.refresh), 400, "invalid_grant")
		})
	})
	t.Run("AS-REVOKE-05 the spent token, the only one that a client has left, ends the family when it is revoked", func(t *testing.T) {
		play(t, func(t *testing.T, h *inside, refresh func(string) answer, first tokens) {
			lost := refresh(first.refresh).tokens(t)
			revoke := func(id string) answer {
				return h.do(t, "POST", "/oauth2/revoke", form("token", first.refresh, "client_id", id, "client_secret", "secret-of-"+id), "")
			}
			refused(t, revoke("other"), 400, "invalid_grant")
			assert.Equal(t, 200, revoke("web").status)
			refused(t, refresh(first.refresh), 400, "invalid_grant")
			refused(t, refresh(lost.refresh), 400, "invalid_grant")
			assert.Empty(t, h.saw(engine.TokenReused), "its own client ends it on purpose")
			assert.Len(t, h.saw(engine.Revoked), 1)
		})
	})
	t.Run("AS-RT-05 the successor that gave way is still good within it", func(t *testing.T) {
		play(t, func(t *testing.T, h *inside, refresh func(string) answer, first tokens) {
			one := refresh(first.refresh).tokens(t)
			refresh(first.refresh).tokens(t) // of a second tab
			one = refresh(one.refresh).tokens(t)
			time.Sleep(time.Minute)
			refresh(one.refresh).tokens(t)
		})
	})
	t.Run("AS-RT-05 not after it", func(t *testing.T) {
		play(t, func(t *testing.T, h *inside, refresh func(string) answer, first tokens) {
			second := refresh(first.refresh).tokens(t)
			time.Sleep(10 * time.Second)
			refused(t, refresh(first.refresh), 400, "invalid_grant")
			refused(t, refresh(second.refresh), 400, "invalid_grant")
			assert.Len(t, h.saw(engine.TokenReused), 1)
		})
	})
	t.Run("AS-RT-05 healing does not prolong it", func(t *testing.T) {
		play(t, func(t *testing.T, h *inside, refresh func(string) answer, first tokens) {
			second := refresh(first.refresh).tokens(t)
			time.Sleep(5 * time.Second)
			refresh(first.refresh).tokens(t) // at 6 s
			time.Sleep(5 * time.Second)
			refused(t, refresh(second.refresh), 400, "invalid_grant")
		})
	})
	t.Run("AS-RT-05 not for the token before the previous one", func(t *testing.T) {
		play(t, func(t *testing.T, h *inside, refresh func(string) answer, first tokens) {
			third := refresh(refresh(first.refresh).tokens(t).refresh).tokens(t)
			refused(t, refresh(first.refresh), 400, "invalid_grant")
			refused(t, refresh(third.refresh), 400, "invalid_grant")
		})
	})
	t.Run("AS-RT-01 not for another client", func(t *testing.T) {
		play(t, func(t *testing.T, h *inside, refresh func(string) answer, first tokens) {
			refresh(first.refresh).tokens(t)
			f := form("grant_type", "refresh_token", "refresh_token", first.refresh, "client_id", "other", "client_secret", "secret-of-other")
			refused(t, h.do(t, http.MethodPost, "/oauth2/token", f, ""), 400, "invalid_grant")
		})
	})
}
