//go:build unix

package drivers_test

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/authserver/ldaplogin/slapdtest"
	"github.com/valetkey/valetkey/cmd/valetkey/full/drivers"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/server"
)

// A company is a server that can be started again with other users, on the same SQLite store.
type company struct {
	*site
	t    *testing.T
	path string
}

const (
	companyBack = "http://localhost:8080/back"
	companyCode = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"

	companyConfig = `
issuer: http://127.0.0.1:1
listen: 127.0.0.1:0
store: sqlite:as.db
apis:
  - {audience: "https://orders.example.com", scopes: {read: See orders, write: Change orders}}
clients:
  - {id: web, secret: a long secret of web, scopes: [read, write], redirect_uris: ["` + companyBack + `"]}
  - {id: api, secret: a long secret of api, introspects: ["https://orders.example.com"]}
`
	alice = `{name: alice, password: the first of alice}`
	bob   = `{name: bob, password: the first of bob}`
)

func newCompany(t *testing.T, rest string) *company {
	c := &company{t: t, path: filepath.Join(t.TempDir(), "as.yaml")}
	c.restart(rest)
	return c
}

// restart ends the server, and starts it with the rest of a configuration.
func (c *company) restart(rest string) {
	c.t.Helper()
	if c.site != nil {
		c.stop()
	}
	require.NoError(c.t, os.WriteFile(c.path, []byte(companyConfig+rest), 0o600))
	c.site = serve(c.t, server.Settings{Config: c.path})
}

func users(all ...string) string { return "users: [" + strings.Join(all, ", ") + "]\n" }

// A member is a user who has logged in and allowed the client to read and write.
type member struct {
	*browser
	access, refresh string
}

func (c *company) authorize(b *browser, more string) {
	c.t.Helper()
	challenge := sha256.Sum256([]byte(companyCode))
	b.left = nil
	b.open(c.url + "/oauth2/authorize?response_type=code&client_id=web&code_challenge_method=S256&code_challenge=" +
		base64.RawURLEncoding.EncodeToString(challenge[:]) + "&redirect_uri=" + url.QueryEscape(companyBack) + more)
}

func (c *company) join(form ...string) *member {
	c.t.Helper()
	m := &member{browser: newBrowser(c.t)}
	c.authorize(m.browser, "")
	m.submit(append(form, "do", "login")...)
	if m.left == nil { // not allowed before
		m.submit("do", "allow")
	}
	require.NotNil(c.t, m.left, m.page)
	status, body := c.ask(c.t, "/oauth2/token", "web", "a long secret of web", "grant_type", "authorization_code",
		"code", m.left.Query().Get("code"), "redirect_uri", companyBack, "code_verifier", companyCode)
	require.Equal(c.t, 200, status, body)
	m.access, m.refresh = body["access_token"].(string), body["refresh_token"].(string)
	return m
}

// renew redeems the refresh token, and returns the error code or the scope.
func (c *company) renew(m *member) (int, any) {
	c.t.Helper()
	status, body := c.ask(c.t, "/oauth2/token", "web", "a long secret of web", "grant_type", "refresh_token", "refresh_token", m.refresh)
	if status != 200 {
		return status, body["error"]
	}
	m.access, m.refresh = body["access_token"].(string), body["refresh_token"].(string)
	return status, body["scope"]
}

func (c *company) introspect(m *member) (int, map[string]any) {
	c.t.Helper()
	return c.ask(c.t, "/oauth2/introspect", "api", "a long secret of api", "token", m.access)
}

// session returns the result of a silent authorization request: a code or an error.
func (c *company) session(m *member) string {
	c.t.Helper()
	c.authorize(m.browser, "&prompt=none")
	if m.left == nil {
		return m.page
	}
	if m.left.Query().Has("code") {
		return "code"
	}
	return m.left.Query().Get("error")
}

// revoke ends the sessions and grants of a subject, as an operator does while the server runs.
func (c *company) revoke(subject string, logins int) {
	c.t.Helper()
	s, end, err := server.Open(c.t.Context(), server.Settings{Config: c.path, Drivers: drivers.All()})
	require.NoError(c.t, err)
	defer func() { require.NoError(c.t, end()) }()
	sessions, grants, err := s.RevokeUser(c.t.Context(), subject)
	require.NoError(c.t, err)
	assert.Equal(c.t, logins, sessions)
	assert.GreaterOrEqual(c.t, grants, logins)
}

// ended holds that nothing of a member works.
func (c *company) ended(m *member) {
	c.t.Helper()
	status, body := c.introspect(m)
	assert.Equal(c.t, 200, status)
	assert.Equal(c.t, map[string]any{"active": false}, body)
	status, code := c.renew(m)
	assert.Equal(c.t, 400, status)
	assert.Equal(c.t, "invalid_grant", code)
	assert.Equal(c.t, "login_required", c.session(m))
}

// alive holds that everything of a member works.
func (c *company) alive(m *member, scope string) {
	c.t.Helper()
	status, body := c.introspect(m)
	assert.Equal(c.t, 200, status)
	assert.Equal(c.t, scope, body["scope"])
	status, got := c.renew(m)
	assert.Equal(c.t, 200, status)
	assert.Equal(c.t, scope, got)
	assert.Equal(c.t, "code", c.session(m))
}

func TestUsersWhoLeaveTheFile(t *testing.T) {
	c := newCompany(t, users(alice, bob))
	a, b := c.join("name", "alice", "password", "the first of alice"), c.join("name", "bob", "password", "the first of bob")
	unused := c.join("name", "alice", "password", "the first of alice")
	t.Run("a restart alone ends nothing", func(t *testing.T) {
		c.restart(users(alice, bob))
		c.alive(a, "read write")
	})
	t.Run("users that left the file are removed, and the others stay", func(t *testing.T) {
		c.restart(users(bob))
		c.ended(a)
		c.alive(b, "read write")
	})
	t.Run("a user who returns with the same password does not get unused grants back", func(t *testing.T) {
		c.restart(users(alice, bob))
		c.ended(unused)
		c.ended(a)
		c.alive(c.join("name", "alice", "password", "the first of alice"), "read write")
	})
	t.Run("a password that is replaced in the file ends sessions and grants, once", func(t *testing.T) {
		const second = "{name: bob, password: the second of bob}"
		c.restart(users(alice, second))
		c.ended(b)
		again := c.join("name", "bob", "password", "the second of bob")
		c.alive(again, "read write")
		c.restart(users(alice, second))
		c.alive(again, "read write")
	})
	t.Run("scopes that are taken away in the file are lost at once", func(t *testing.T) {
		m := c.join("name", "alice", "password", "the first of alice")
		c.restart(users(`{name: alice, password: the first of alice, scopes: [read]}`))
		c.alive(m, "read")
		c.restart(users(`{name: alice, password: the first of alice, scopes: []}`))
		_, body := c.introspect(m)
		assert.Equal(t, map[string]any{"active": false}, body)
		status, code := c.renew(m)
		assert.Equal(t, 400, status)
		assert.Equal(t, "invalid_grant", code)
	})
}

// What a user has allowed ends with the user's credential, or an account that gets the name later would have allowed it, too.
func TestConsentsEndWithTheirUser(t *testing.T) {
	c := newCompany(t, users(alice, bob))
	asked := func(form ...string) bool {
		b := newBrowser(t)
		c.authorize(b, "")
		b.submit(append(form, "do", "login")...)
		return b.left == nil && strings.Contains(b.page, `value="allow"`)
	}
	first, other := []string{"name", "alice", "password", "the first of alice"}, []string{"name", "bob", "password", "the first of bob"}
	c.join(first...)
	c.join(other...)
	t.Run("a restart ends none", func(t *testing.T) {
		c.restart(users(alice, bob))
		assert.False(t, asked(first...))
	})
	t.Run("another person who gets the name is asked", func(t *testing.T) {
		c.restart(users(bob))
		c.restart(users("{name: alice, password: another person altogether}", bob))
		assert.True(t, asked("name", "alice", "password", "another person altogether"))
		assert.False(t, asked(other...), "and the others are not")
	})
	t.Run("a user who has a new password is asked once", func(t *testing.T) {
		c.restart(users(alice, "{name: bob, password: the second of bob}"))
		second := []string{"name", "bob", "password", "the second of bob"}
		assert.True(t, asked(second...))
		c.join(second...)
		assert.False(t, asked(second...))
	})
	t.Run("a user who is revoked is asked", func(t *testing.T) {
		c.restart(users(bob))
		c.join(other...)
		assert.False(t, asked(other...))
		s, end, err := server.Open(t.Context(), server.Settings{Config: c.path, Drivers: drivers.All()})
		require.NoError(t, err)
		_, _, err = s.RevokeUser(t.Context(), "customer:bob")
		require.NoError(t, err)
		require.NoError(t, end())
		assert.True(t, asked(other...))
	})
}

func TestUsersWhoExistNowhereAnyMoreCanBeRevoked(t *testing.T) {
	c := newCompany(t, users(alice, bob))
	a, b := c.join("name", "alice", "password", "the first of alice"), c.join("name", "bob", "password", "the first of bob")
	c.restart(users(bob))
	c.revoke("customer:alice", 1)
	s, end, err := server.Open(t.Context(), server.Settings{Config: c.path, Drivers: drivers.All()})
	require.NoError(t, err)
	_, _, err = s.RevokeUser(t.Context(), "customer:alice")
	require.ErrorContains(t, err, "no session and no grant has this subject", "a second time")
	require.NoError(t, end())
	c.restart(users(alice, bob))
	c.ended(a)
	c.alive(b, "read write")
}

func TestEmployeesWhoLeaveTheDirectory(t *testing.T) {
	directory := slapdtest.Start(t)
	t.Setenv("VALETKEY_TEST_BIND", slapdtest.BindPassword)
	config := users(alice) + `
user_types:
  - {type: customer, database: {}}
  - type: employee
    ldap:
      url: ` + directory.TLSURL + `
      root_ca_file: ` + directory.CAFile + `
      bind_dn: ` + slapdtest.BindDN + `
      bind_password_env: VALETKEY_TEST_BIND
      base_dn: ` + slapdtest.BaseDN + `
      groups: {"` + slapdtest.Finance + `": [read, write], "cn=readers,ou=groups,` + slapdtest.BaseDN + `": [read]}
`
	readers := "cn=readers,ou=groups," + slapdtest.BaseDN
	directory.Add(t, readers, map[string][]string{"objectClass": {"groupOfNames"}, "cn": {"readers"}, "member": {slapdtest.CarolDN}})
	c := newCompany(t, config)
	carol := c.join("type", "employee", "name", slapdtest.Carol, "password", slapdtest.CarolPassword)
	customer := c.join("type", "customer", "name", "alice", "password", "the first of alice")
	c.alive(carol, "read write")

	t.Run("while the directory is down, employees get a temporary error and customers notice nothing", func(t *testing.T) {
		c.restart(config) // clears the cache, which lasts a minute
		directory.Kill()
		for range 2 {
			status, body := c.introspect(carol)
			assert.Equal(t, http.StatusServiceUnavailable, status)
			assert.Equal(t, "temporarily_unavailable", body["error"])
			status, code := c.renew(carol)
			assert.Equal(t, http.StatusServiceUnavailable, status)
			assert.Equal(t, "temporarily_unavailable", code)
			assert.Contains(t, c.session(carol), "Sign-in is temporarily unavailable")
		}
		c.alive(customer, "read write")
		directory.Restart(t)
		c.alive(carol, "read write")
	})
	t.Run("an employee who has left a group loses its scopes", func(t *testing.T) {
		directory.Delete(t, slapdtest.Finance)
		c.restart(config)
		c.alive(carol, "read")
	})
	t.Run("an employee who is revoked while the server runs has to log in again", func(t *testing.T) {
		m := c.join("type", "employee", "name", slapdtest.Carol, "password", slapdtest.CarolPassword)
		c.revoke("employee:"+slapdtest.CarolID, 2)
		c.ended(m)
		c.ended(carol)
		carol = c.join("type", "employee", "name", slapdtest.Carol, "password", slapdtest.CarolPassword)
		c.alive(carol, "read")
		c.alive(customer, "read write")
	})
	t.Run("an employee who has left is gone", func(t *testing.T) {
		directory.Delete(t, slapdtest.CarolDN)
		c.restart(config)
		c.ended(carol)
		c.alive(customer, "read write")
	})
}
