package server_test

import (
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/cmd/valetkey/internal/server"
)

// A build without a driver refuses a configuration that needs it, and names the build that has it. It never serves from another
// store instead. The tests of the stores that drivers open are next to the drivers.
func TestMissingDriver(t *testing.T) {
	const lacks = " is not part of this build of valetkey: build the full one in a clone: go build -o valetkey ./cmd/valetkey/full/valetkey"
	config := func(more string) string {
		return `issuer: http://127.0.0.1:8888
apis:
  - {audience: "https://api.example.com", scopes: {read: See}}
clients:
  - {id: reader, secret: a long secret of the reader, scopes: [read]}
` + more + "\n"
	}
	t.Setenv("VALETKEY_TEST_STORE", "postgres://valetkey:a-password@localhost/valetkey")
	for _, c := range []struct {
		name, config, store, want string
	}{
		{"neither a file nor a store", "", "", "store: SQLite" + lacks},
		{"SQLite in a flag", "", "sqlite:as.db", "store: SQLite" + lacks},
		{"PostgreSQL in a flag", "", "postgres://valetkey:a-password@localhost/valetkey", "store: PostgreSQL" + lacks},
		{"a file without a store", config(""), "", "as.yaml:1: store: SQLite" + lacks},
		{"SQLite in a file", config("store: sqlite:as.db"), "", "as.yaml:6: store: SQLite" + lacks},
		{"PostgreSQL in a variable", config("store_env: VALETKEY_TEST_STORE"), "", "as.yaml:1: store: PostgreSQL" + lacks},
		{"LDAP beside memory", config("user_types: [{type: employee, ldap: {url: ldaps://ldap.example.com, base_dn: dc=example}}]"), "memory",
			"as.yaml:6: user_types[0].ldap: LDAP" + lacks},
		{"LDAP and SQLite", config("user_types: [{type: employee, ldap: {}}]\nstore: sqlite:as.db"), "",
			"as.yaml:6: user_types[0].ldap: LDAP" + lacks + "\nas.yaml:7: store: SQLite" + lacks},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			set := server.Settings{Store: c.store, Addr: "127.0.0.1:0", Log: slog.New(slog.DiscardHandler)}
			if c.config != "" {
				set.Config = "as.yaml"
				require.NoError(t, os.WriteFile(set.Config, []byte(c.config), 0o600))
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancel() // a server that starts ends at once
			assert.EqualError(t, server.Serve(ctx, set, nil, io.Discard), c.want)
			set.Create = true
			_, _, err := server.Open(t.Context(), set)
			assert.EqualError(t, err, c.want)
			made, err := filepath.Glob("*.db*")
			require.NoError(t, err)
			assert.Empty(t, made, "no store is made")
		})
	}
}
