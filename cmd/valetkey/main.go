// Command valetkey verifies access tokens, guards any HTTP upstream, and runs an authorization server to try both. See valetkey
// --help.
//
// This is the light build, which keeps the records of an authorization server in memory only. The command of the same name in
// full/valetkey adds SQLite, PostgreSQL, LDAP, OpenAPI and gRPC for Envoy. Their libraries are several times as large as the rest of the command.
package main

import (
	"github.com/valetkey/valetkey/cmd/valetkey/internal/cli"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/driver"
)

func main() { cli.Main(driver.Set{}) }
