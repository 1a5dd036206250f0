package guides

import (
	"errors"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/introspect"
	"github.com/valetkey/valetkey/jwks"
)

// Verifiers returns a verifier for JWTs of two issuers and for the opaque tokens of a third.
func Verifiers(staff, customers, partners, secret string) (valetkey.Verifier, error) {
	audience := []string{"https://api.example.com"}
	ours, err := jwks.New(jwks.Config{Issuer: staff, Audience: audience})
	theirs, err2 := jwks.New(jwks.Config{Issuer: customers, Audience: audience})
	opaque, err3 := introspect.New(introspect.Config{
		Issuer: partners, Audience: audience, Auth: introspect.BasicAuth("resource-server", secret),
	})
	if err := errors.Join(err, err2, err3); err != nil {
		return nil, err
	}
	jwts, err := jwks.ByIssuer(ours, theirs) // a look-up, not one attempt after the other
	if err != nil {
		return nil, err
	}
	return valetkey.First(jwts, opaque), nil
}
