// Command gateway is the command valetkey as the image valetkey-proxy contains it: the commands that run and examine a gateway, without
// the authorization server and its clients. It contains the certificate authorities of Mozilla, which it uses where the system has none,
// because the image is empty apart from it.
package main

import (
	_ "golang.org/x/crypto/x509roots/fallback"

	"github.com/valetkey/valetkey/cmd/valetkey/internal/cli"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/driver"
)

func main() { cli.MainGateway(driver.Set{}) }
