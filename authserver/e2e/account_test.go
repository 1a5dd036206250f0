//go:build unix

package e2e_test

import (
	"net/http"
	"net/url"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Users end their sessions and change their password, on each store.
func TestAccounts(t *testing.T) {
	for name, store := range stores {
		t.Run(name, func(t *testing.T) {
			config := store(t)
			s := serve(t, func(issuer string) string {
				return "issuer: " + issuer + "\n" + config + `
apis: [{audience: "https://orders.example.com", scopes: {"orders:read": See your orders}}]
clients: [{id: orders-api, secret: the secret of the api, introspects: ["https://orders.example.com"]}]
users: [{name: bob, password: "` + password + `"}]
`
			})
			user := "bob" // of the file
			if name != "memory" {
				add := exec.Command(program, "user", "add", "alice", "--config", "valetkey.yaml")
				add.Dir, add.Stdin = s.dir, strings.NewReader(password+"\n")
				out, err := add.CombinedOutput()
				require.NoError(t, err, string(out))
				user = "alice"
			}
			get := func(b *browser, path string) {
				t.Helper()
				r, err := http.NewRequest("GET", s.url+path, nil)
				require.NoError(t, err)
				require.NoError(t, b.do(r))
				require.NotNil(t, b.page)
			}
			enter := func(password string) *browser {
				t.Helper()
				b := newBrowser(s.url)
				get(b, "/login")
				require.NoError(t, b.press("Log in", url.Values{"name": {user}, "password": {password}}))
				return b
			}
			in := func(b *browser) bool {
				t.Helper()
				get(b, "/account/sessions")
				return b.at.Path == "/account/sessions"
			}
			here, there := enter(password), enter(password)
			require.True(t, in(here))
			assert.Equal(t, 1, strings.Count(text(here.page), "this browser"))
			require.NoError(t, here.press("End", nil))
			assert.False(t, in(there))
			assert.True(t, in(here))

			there = enter(password)
			if user == "alice" {
				get(here, "/account/password")
				const next = "another password of hers"
				require.NoError(t, here.press("Change password", url.Values{"old": {password}, "new": {next}, "repeat": {next}}))
				assert.Contains(t, text(here.page), "Your password has been changed.")
				assert.False(t, in(there))
				there = enter(next)
			}
			assert.True(t, in(here))
			get(here, "/account/everywhere")
			require.NoError(t, here.press("Log out everywhere", nil))
			assert.Contains(t, text(here.page), "You are logged out everywhere")
			assert.False(t, in(here))
			assert.False(t, in(there))
		})
	}
}
