package engine_test

import (
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/authserver/internal/clients"
	"github.com/valetkey/valetkey/authserver/internal/engine"
	"github.com/valetkey/valetkey/authserver/internal/flow"
	"github.com/valetkey/valetkey/authserver/login"
	"github.com/valetkey/valetkey/authserver/store"
)

// What a lookup of a user can find.
var (
	isGone = func(string) (*login.Account, error) { return nil, login.ErrNoUser }
	isDown = func(string) (*login.Account, error) { return nil, errors.New("the directory is down: secret-of-it") }
	may    = func(scopes ...string) func(string) (*login.Account, error) {
		return func(string) (*login.Account, error) {
			return &login.Account{Scopes: append([]string{}, scopes...)}, nil
		}
	}
	since = func(t time.Time) func(string) (*login.Account, error) {
		return func(string) (*login.Account, error) { return &login.Account{Since: t}, nil }
	}
)

func unavailable(t testing.TB, a answer) {
	t.Helper()
	refused(t, a, 503, "temporarily_unavailable")
	assert.NotEmpty(t, a.header.Get("Retry-After"))
	assert.NotContains(t, a.text, "secret-of-it")
}

// bankAPI introspects the tokens of the bank, whose profile names scopes twice.
var bankAPI = clients.Client{ID: "bank-api", AuthMethod: "client_secret_basic", SecretDigest: []string{store.Digest("secret-of-bank-api")}, Introspects: []string{bank}}

func usersWhoLeave(t *testing.T) *site {
	return start(t, trusting, exchanging, func(c *config) {
		all := append(append(devices(), exchangers()...), bankAPI, clients.Client{
			ID: "bridge", AuthMethod: "client_secret_basic", SecretDigest: []string{store.Digest("secret-of-bridge")},
			GrantTypes: []string{assertionGrant}, Scopes: []string{"orders:read", "orders:write"}, DefaultAPI: orders,
		})
		with(all...)(c)
	})
}

// Each way in which the grant of a user yields a token or information about one.
func TestGrantsEndWithTheirUser(t *testing.T) {
	s := usersWhoLeave(t)
	old := time.Now()
	for _, how := range []struct {
		name string
		look func(string) (*login.Account, error)
	}{
		{"a user who is gone", isGone},
		{"a user with a new password", since(old)},
	} {
		// Each returns what is asked of the server, and the token that must be inactive afterwards, if there is one.
		for _, c := range []struct {
			name  string
			begin func(t *testing.T) (use func() answer, token string)
			code  string // "": inactive
		}{
			{"a refresh token", func(t *testing.T) (func() answer, string) {
				got := s.login(t)
				return func() answer { return s.refresh(t, "web", got.refresh) }, got.access
			}, "invalid_grant"},
			{"a code", func(t *testing.T) (func() answer, string) {
				code := s.code(t)
				return func() answer { return s.redeem(t, "web", code) }, ""
			}, "invalid_grant"},
			{"a device code", func(t *testing.T) (func() answer, string) {
				code, userCode := s.begin(t)
				s.letIn(t, userCode)
				return func() answer { return s.post(t, "/oauth2/token", "", poll(code)) }, ""
			}, "invalid_grant"},
			{"a token that is exchanged", func(t *testing.T) (func() answer, string) {
				got := s.login(t)
				return func() answer { return s.exchange(t, "orders-svc", got.access) }, got.access
			}, "invalid_request"},
			{"a token that is introspected", func(t *testing.T) (func() answer, string) {
				got := s.login(t)
				return func() answer { return s.introspect(t, "orders-api", got.access) }, got.access
			}, ""},
			{"an opaque token that is introspected", func(t *testing.T) (func() answer, string) {
				got := s.login(t, "scope", "vault:open")
				return func() answer { return s.introspect(t, "vault-api", got.access) }, ""
			}, ""},
		} {
			t.Run(how.name+": "+c.name, func(t *testing.T) {
				s.looksUp(nil)
				use, token := c.begin(t)
				ended := len(s.saw(engine.UserGone))
				s.looksUp(how.look)
				a := use()
				if c.code == "" {
					assert.JSONEq(t, `{"active":false}`, a.text)
				} else {
					refused(t, a, 400, c.code)
				}
				assert.Len(t, s.saw(engine.UserGone), ended+1, "the log reports it")
				s.looksUp(nil) // a user of the same name comes: the grant does not come back
				if token != "" {
					assert.False(t, s.active(t, token))
				}
				assert.NotContains(t, use().text, "access_token")
			})
		}
	}
	t.Run("a grant of the present password goes on", func(t *testing.T) {
		now := time.Now()
		s.looksUp(since(now))
		s.asks(func(_ http.ResponseWriter, _ *http.Request, in *flow.Interaction) (*flow.Decision, error) {
			d := allow(in)
			user := *d.User
			user.Since = now
			d.User = &user
			return d, nil
		})
		defer s.asks(nil)
		got := s.login(t)
		assert.True(t, s.active(t, got.access))
		got = s.refresh(t, "web", got.refresh).tokens(t)
		exchanged := s.exchange(t, "orders-svc", got.access).tokens(t)
		assert.True(t, s.active(t, exchanged.access))
		s.looksUp(since(now.Add(1)))
		assert.False(t, s.active(t, exchanged.access), "and ends with the next one")
	})
}

func TestADirectoryThatIsDownEndsNothing(t *testing.T) {
	s := usersWhoLeave(t)
	got := s.login(t)
	unused := s.code(t)
	device, userCode := s.begin(t)
	s.letIn(t, userCode)
	revocable := s.login(t)
	partnered := s.post(t, "/oauth2/token", "bridge", granting(assertion(t, clientKey(), nil, s.url, map[string]any{"iss": partner, "sub": "bob"}))).tokens(t)
	service := s.post(t, "/oauth2/token", "service", form("grant_type", "client_credentials", "scope", "orders:read")).tokens(t)
	s.looksUp(isDown)
	for range 2 {
		unavailable(t, s.refresh(t, "web", got.refresh))
		unavailable(t, s.redeem(t, "web", unused))
		unavailable(t, s.post(t, "/oauth2/token", "", poll(device)))
		unavailable(t, s.exchange(t, "orders-svc", got.access))
		unavailable(t, s.introspect(t, "orders-api", got.access))
	}
	t.Run("a client's own token has no user", func(t *testing.T) {
		assert.True(t, s.active(t, service.access))
	})
	t.Run("the users of a trusted issuer are in no directory", func(t *testing.T) {
		assert.True(t, s.active(t, partnered.access))
	})
	t.Run("another API learns nothing, and costs no lookup", func(t *testing.T) {
		assert.JSONEq(t, `{"active":false}`, s.introspect(t, "files-api", got.access).text)
	})
	t.Run("revocation works", func(t *testing.T) {
		assert.Equal(t, 200, s.post(t, "/oauth2/revoke", "web", form("token", revocable.access)).status)
	})
	s.looksUp(nil)
	t.Run("afterwards everything goes on where it was", func(t *testing.T) {
		assert.True(t, s.active(t, got.access))
		s.exchange(t, "orders-svc", got.access).tokens(t)
		s.refresh(t, "web", got.refresh).tokens(t)
		s.redeem(t, "web", unused).tokens(t)
		s.post(t, "/oauth2/token", "", poll(device)).tokens(t)
		assert.False(t, s.active(t, revocable.access))
		assert.Empty(t, s.saw(engine.UserGone))
	})
}

func TestScopesEndWithTheRightToAllowThem(t *testing.T) {
	s := usersWhoLeave(t)
	both := func(t *testing.T) tokens {
		s.looksUp(nil)
		return s.login(t, "scope", "orders:read orders:write")
	}
	t.Run("a refresh that asks for a lost scope is refused", func(t *testing.T) {
		got := both(t)
		s.looksUp(may("orders:read"))
		refused(t, s.refresh(t, "web", got.refresh, "scope", "orders:write"), 400, "invalid_scope")
	})
	t.Run("a refresh of which nothing is left is refused", func(t *testing.T) {
		got := both(t)
		s.looksUp(may())
		refused(t, s.refresh(t, "web", got.refresh), 400, "invalid_grant")
		s.looksUp(nil)
		s.refresh(t, "web", got.refresh).tokens(t)
	})
	t.Run("a token of which nothing is left is inactive", func(t *testing.T) {
		got := both(t)
		s.looksUp(may("files:read"))
		assert.JSONEq(t, `{"active":false}`, s.introspect(t, "orders-api", got.access).text)
		refused(t, s.exchange(t, "orders-svc", got.access), 400, "invalid_request")
		s.looksUp(nil)
		assert.True(t, s.active(t, got.access), "the grant lives on")
	})
	t.Run("a lost scope cannot be exchanged", func(t *testing.T) {
		got := both(t)
		s.looksUp(may("orders:read"))
		refused(t, s.exchange(t, "orders-svc", got.access, "scope", "orders:write"), 400, "invalid_scope")
		assert.Equal(t, "orders:read", s.exchange(t, "orders-svc", got.access).tokens(t).scope)
	})
	t.Run("a refresh, a code and a device get what is left", func(t *testing.T) {
		got := both(t)
		code := s.code(t, "scope", "orders:read orders:write")
		device, userCode := s.begin(t, "scope", "orders:read orders:write")
		s.letIn(t, userCode)
		s.looksUp(may("orders:read"))
		for _, a := range []answer{s.refresh(t, "web", got.refresh), s.redeem(t, "web", code), s.post(t, "/oauth2/token", "", poll(device))} {
			got := a.tokens(t)
			assert.Equal(t, "orders:read", got.scope)
			assert.Equal(t, "orders:read", part(t, got.access, 1)["scope"])
		}
	})
	t.Run("introspection reports the remaining scopes", func(t *testing.T) {
		got := both(t)
		s.looksUp(may("orders:read", "files:read"))
		assert.Equal(t, "orders:read", s.introspect(t, "orders-api", got.access).body["scope"])
	})
	t.Run("introspection reports the remaining permissions", func(t *testing.T) {
		s.looksUp(nil)
		got := s.login(t, "scope", "bank:pay")
		assert.Equal(t, []any{"bank:pay"}, s.introspect(t, "bank-api", got.access).body["permissions"])
		s.looksUp(may("orders:read"))
		assert.JSONEq(t, `{"active":false}`, s.introspect(t, "bank-api", got.access).text)
	})
	t.Run("an exchanged token depends on the scope that it was exchanged for", func(t *testing.T) {
		got := both(t)
		s.looksUp(may("orders:read"))
		opened := s.exchange(t, "orders-svc", got.access, "resource", vault).tokens(t)
		require.Equal(t, "vault:open", opened.scope)
		assert.Equal(t, "vault:open", s.introspect(t, "vault-api", opened.access).body["scope"])
		s.looksUp(may("orders:write"))
		assert.JSONEq(t, `{"active":false}`, s.introspect(t, "vault-api", opened.access).text)
	})
}
