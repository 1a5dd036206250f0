// Command valetkey is the full build of the command: the light one in cmd/valetkey, and an authorization server that keeps its
// records in SQLite or PostgreSQL and finds employees in LDAP. See valetkey --help.
package main

import (
	"github.com/valetkey/valetkey/cmd/valetkey/full/drivers"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/cli"
)

func main() { cli.Main(drivers.All()) }
