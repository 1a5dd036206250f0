package guides

import (
	"net/netip"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/dpop"
	"github.com/valetkey/valetkey/middleware"
)

// BehindProxy returns a guard that learns the URL and the certificate of the client from a proxy.
func BehindProxy(verifier valetkey.Verifier) (*middleware.Guard, error) {
	proofs, err := dpop.New(dpop.Config{})
	if err != nil {
		return nil, err
	}
	return middleware.New(middleware.Config{
		Verifier: verifier,
		Proxies: middleware.Proxies{
			Trusted:   []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, // from where the proxy connects
			Forwarded: middleware.XForwarded,                               // it sets X-Forwarded-Proto and X-Forwarded-Host
		},
		DPoP:              proofs,                                             // proofs are for the URL that the client knows
		ClientCertificate: middleware.PEMHeader("X-Client-Cert"),              // nginx: $ssl_client_escaped_cert
		Resource:          middleware.Resource{ID: "https://api.example.com"}, // where clients find the metadata
	})
}
