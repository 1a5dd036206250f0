package engine_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	ends "github.com/valetkey/valetkey/authserver/internal/endings"
	"github.com/valetkey/valetkey/authserver/internal/flow"
	"github.com/valetkey/valetkey/authserver/login"
)

// A witness keeps the endings that a site records.
type witness struct {
	mu   sync.Mutex
	seen []ends.Ending
	none []ends.Ending // nothing ended
	down error         // fails to record
}

func (w *witness) record(ctx context.Context, e ends.Ending, do func(context.Context) (bool, error)) error {
	if w.down != nil {
		return w.down
	}
	happened, err := do(ctx)
	w.mu.Lock()
	defer w.mu.Unlock()
	if happened || err != nil {
		w.seen = append(w.seen, e)
	} else {
		w.none = append(w.none, e)
	}
	return err
}

func (w *witness) take() []ends.Ending {
	w.mu.Lock()
	defer w.mu.Unlock()
	seen := w.seen
	w.seen = nil
	return seen
}

func TestEndings(t *testing.T) {
	w := new(witness)
	s := start(t, exchanging, func(c *config) { c.Endings = w.record })
	s.asks(func(_ http.ResponseWriter, _ *http.Request, in *flow.Interaction) (*flow.Decision, error) {
		d := allow(in)
		d.Session = "of-" + in.LoginHint
		return d, nil
	})
	sid := func(token string) string {
		text, _ := part(t, token, 1)["sid"].(string)
		return text
	}
	revoke := func(id, token string) {
		require.Equal(t, 200, s.post(t, "/oauth2/revoke", id, form("token", token)).status)
	}

	t.Run("a client's own token has no sid, and its end is that of the token", func(t *testing.T) {
		own := s.post(t, "/oauth2/token", "service", form("grant_type", "client_credentials", "scope", "orders:read")).tokens(t).access
		assert.Empty(t, sid(own))
		revoke("service", own)
		jti, _ := part(t, own, 1)["jti"].(string)
		assert.Equal(t, []ends.Ending{{Cause: ends.TokenRevoked, Client: "service", Token: jti}}, w.take())
	})
	t.Run("each login at an application has another sid, which its refreshed tokens keep and introspection reports", func(t *testing.T) {
		one, other := s.login(t), s.login(t)
		require.NotEmpty(t, sid(one.access))
		assert.NotEqual(t, sid(one.access), sid(other.access))
		assert.Equal(t, sid(one.access), sid(s.refresh(t, "web", one.refresh).tokens(t).access))
		assert.Equal(t, sid(one.access), s.introspect(t, "orders-api", one.access).body["sid"])
	})
	t.Run("an exchanged token has the sid of the first one, and its own end is not that of the session", func(t *testing.T) {
		one := s.login(t)
		exchanged := s.exchange(t, "orders-svc", one.access, "scope", "orders:read").tokens(t).access
		assert.Equal(t, sid(one.access), sid(exchanged))
		revoke("orders-svc", exchanged)
		jti, _ := part(t, exchanged, 1)["jti"].(string)
		assert.Equal(t, []ends.Ending{{Cause: ends.TokenRevoked, Subject: alice.Subject, Client: "orders-svc", Token: jti}}, w.take())
		assert.True(t, s.active(t, one.access))
	})
	t.Run("a revoked token ends the session at one application, once", func(t *testing.T) {
		one, other := s.login(t), s.login(t)
		revoke("web", one.refresh)
		revoke("web", one.access)
		assert.Equal(t, []ends.Ending{{Cause: ends.TokenRevoked, Subject: alice.Subject, Client: "web", Session: sid(one.access)}}, w.take())
		assert.True(t, s.active(t, other.access))
	})
	t.Run("a refresh token or a code that is used again", func(t *testing.T) {
		one := s.login(t)
		s.refresh(t, "web", one.refresh).tokens(t)
		refused(t, s.refresh(t, "web", one.refresh), 400, "invalid_grant")
		assert.Equal(t, []ends.Ending{{Cause: ends.Reused, Subject: alice.Subject, Client: "web", Session: sid(one.access)}}, w.take())
		code := s.code(t)
		token := s.redeem(t, "web", code).tokens(t).access
		refused(t, s.redeem(t, "web", code), 400, "invalid_grant")
		assert.Equal(t, []ends.Ending{{Cause: ends.Reused, Subject: alice.Subject, Client: "web", Session: sid(token)}}, w.take())
		assert.False(t, s.active(t, token))
	})
	t.Run("a browser session ends the grants that began in it", func(t *testing.T) {
		one, other, elsewhere := s.login(t, "login_hint", "desk"), s.login(t, "login_hint", "desk"), s.login(t, "login_hint", "phone")
		n, err := s.EndSession(t.Context(), "of-desk", ends.LoggedOut)
		require.NoError(t, err)
		assert.Equal(t, 2, n)
		var ended []string
		for _, e := range w.take() {
			assert.Equal(t, ends.LoggedOut, e.Cause)
			ended = append(ended, e.Session)
		}
		assert.ElementsMatch(t, []string{sid(one.access), sid(other.access)}, ended)
		refused(t, s.refresh(t, "web", one.refresh), 400, "invalid_grant")
		s.refresh(t, "web", elsewhere.refresh).tokens(t)
	})
	t.Run("a consent that is revoked, and a client that is removed", func(t *testing.T) {
		w.take()
		_, err := s.RevokeGrants(t.Context(), alice.Subject, "web")
		require.NoError(t, err)
		for _, e := range w.take() {
			assert.Equal(t, ends.ConsentRevoked, e.Cause)
		}
		token := s.login(t).access
		_, err = s.RevokeGrants(t.Context(), "", "web")
		require.NoError(t, err)
		assert.Equal(t, []ends.Ending{{Cause: ends.ClientRemoved, Subject: alice.Subject, Client: "web", Session: sid(token)}}, w.take())
	})
	t.Run("a user who is gone, or has a new password", func(t *testing.T) {
		one, other := s.login(t), s.login(t)
		s.looksUp(func(string) (*login.Account, error) { return &login.Account{Since: time.Now()}, nil })
		assert.False(t, s.active(t, one.access))
		s.looksUp(func(string) (*login.Account, error) { return nil, login.ErrNoUser })
		assert.False(t, s.active(t, other.access))
		s.looksUp(nil)
		assert.Equal(t, []ends.Ending{
			{Cause: ends.PasswordStale, Subject: alice.Subject, Client: "web", Session: sid(one.access)},
			{Cause: ends.UserDisabled, Subject: alice.Subject, Client: "web"},
		}, w.take())
	})
	t.Run("the end of a user includes those of the grants", func(t *testing.T) {
		s.login(t)
		err := ends.Recorder(w.record).Do(t.Context(), ends.Ending{Cause: ends.Revoked, Subject: alice.Subject}, func(ctx context.Context) (bool, error) {
			n, err := s.RevokeGrants(ctx, alice.Subject, "")
			return n > 0, err
		})
		require.NoError(t, err)
		assert.Equal(t, []ends.Ending{{Cause: ends.Revoked, Subject: alice.Subject}}, w.take())
	})
	t.Run("nothing ends that cannot be recorded", func(t *testing.T) {
		one := s.login(t)
		w.down = errors.New("no room")
		assert.Equal(t, 500, s.post(t, "/oauth2/revoke", "web", form("token", one.refresh)).status)
		w.down = fmt.Errorf("record the end of access: %w", &valetkey.Unavailable{RetryAfter: 5 * time.Second, Err: errors.New("too many")})
		a := s.post(t, "/oauth2/revoke", "web", form("token", one.refresh))
		assert.Equal(t, 503, a.status, "RFC 7009, section 2.2.1")
		assert.Equal(t, "5", a.header.Get("Retry-After"))
		w.down = nil
		assert.True(t, s.active(t, one.access))
	})
}
