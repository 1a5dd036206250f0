// Command valetkey verifies access tokens, guards any HTTP upstream with them, and runs an authorization server to try
// both with. See valetkey --help.
//
// This is its light build, which keeps the records of an authorization server in memory only. The command of the same name in
// full/valetkey adds SQLite, PostgreSQL, LDAP and OpenAPI, whose libraries are several times as large as all the rest.
package main

import (
	"github.com/valetkey/valetkey/cmd/valetkey/internal/cli"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/driver"
)

func main() { cli.Main(driver.Set{}) }
