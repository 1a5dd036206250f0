//go:build unix

package drivers_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/authserver/ldaplogin/slapdtest"
	"github.com/valetkey/valetkey/authserver/storetest/pgtest"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/server"
)

// Employees are in a directory, customers in the database; which is which is configuration.
func TestDirectory(t *testing.T) {
	directory := slapdtest.Start(t)
	t.Setenv("VALETKEY_TEST_BIND", slapdtest.BindPassword)
	s := serve(t, server.Settings{Addr: "127.0.0.1:0", Config: example(t, "tutorial.yaml", "\nusers:", `
user_types:
  - {type: customer, database: {}}
  - type: employee
    label: Employee
    ldap:
      url: `+directory.TLSURL+`
      root_ca_file: `+directory.CAFile+`
      bind_dn: `+slapdtest.BindDN+`
      bind_password_env: VALETKEY_TEST_BIND
      base_dn: `+slapdtest.BaseDN+`
      groups: {"`+slapdtest.Finance+`": [read]}
portal: {developers: [employee]}
users:`)})
	b := newBrowser(t)
	logIn := func(kind, name, password string) {
		b.open(s.url + "/login?return=/developer")
		b.submit("type", kind, "name", name, "password", password, "do", "login")
	}
	logIn("customer", slapdtest.Carol, slapdtest.CarolPassword)
	assert.Contains(t, b.page, "The name or the password is wrong.")
	logIn("employee", "alice", "demo-alice")
	assert.Contains(t, b.page, "The name or the password is wrong.")
	logIn("employee", slapdtest.Carol, slapdtest.CarolPassword)
	assert.Equal(t, "/developer", b.at.Path)
	assert.Contains(t, b.page, "Carol Jones")
	assert.Contains(t, s.log.String(), "subject=employee:"+slapdtest.CarolID)

	other := newBrowser(t)
	b = other
	logIn("customer", "alice", "demo-alice")
	assert.Contains(t, b.page, "No access", "the portal is the employees'")
}

func TestPostgreSQL(t *testing.T) {
	dir := strings.TrimPrefix(strings.Fields(pgtest.Start(t))[0], "host=")
	t.Setenv("VALETKEY_TEST_STORE", "postgres:///postgres?user=valetkey&host="+url.QueryEscape(dir))
	t.Setenv("VALETKEY_TEST_SEAL", someSeal)
	config := example(t, "tutorial.yaml", "store: memory", "store_env: VALETKEY_TEST_STORE\nseal_env: VALETKEY_TEST_SEAL")
	var replicas []*site
	for range 2 {
		replicas = append(replicas, serve(t, server.Settings{Addr: "127.0.0.1:0", Config: config}))
	}
	one, other := replicas[0], replicas[1]
	const back = "http://localhost:8080/authorization"
	b := newBrowser(t)
	b.open(one.url + "/oauth2/code?response_type=code&client_id=tutorial&redirect_uri=" + back)
	b.submit("name", "alice", "password", "demo-alice", "do", "login")
	b.submit("do", "allow")
	require.NotNil(t, b.left, b.page)
	ask := func(s *site) (int, map[string]any) {
		return s.ask(t, "/oauth2/token", "tutorial", "demo-secret-of-tutorial",
			"grant_type", "authorization_code", "code", b.left.Query().Get("code"), "redirect_uri", back)
	}
	status, body := ask(other)
	require.Equal(t, 200, status, body)
	status, _ = ask(one)
	assert.Equal(t, 400, status, "once, wherever")
}
