// Command valetkey is the full build of the command. It adds to the light build in cmd/valetkey: SQLite and PostgreSQL for the
// records of an authorization server, LDAP for its employees, and OpenAPI documents for the routes of a proxy. See valetkey
// --help.
package main

import (
	"github.com/valetkey/valetkey/cmd/valetkey/full/drivers"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/cli"
)

func main() { cli.Main(drivers.All()) }
