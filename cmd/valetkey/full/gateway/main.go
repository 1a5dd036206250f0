// Command gateway is the command valetkey as the image valetkey contains it. It adds OpenAPI documents, rules in CEL, and
// ext_authz of Envoy over gRPC, to the commands of cmd/valetkey/gateway.
package main

import (
	_ "golang.org/x/crypto/x509roots/fallback"

	"github.com/valetkey/valetkey/adapters/valetopenapi"
	"github.com/valetkey/valetkey/cmd/valetkey/full/celrules"
	"github.com/valetkey/valetkey/cmd/valetkey/full/extauthz"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/cli"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/driver"
)

func main() {
	cli.MainGateway(driver.Set{OpenAPI: valetopenapi.Routes, CEL: celrules.CEL, ExtAuthz: extauthz.New})
}
