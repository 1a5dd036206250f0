package valetkeytest

import (
	"log/slog"
	"slices"

	"github.com/valetkey/valetkey/jwks"
)

// Verifier returns a verifier of the issuer's JWT access tokens for [DefaultAudience], with the issuer's clock and algorithms. It fetches
// the keys over HTTP from the issuer, as any verifier does, and writes no log. It is closed when the test ends, which fails if the verifier
// cannot be made. A guard that uses it takes the clock too (middleware.Config.Now).
//
// For other settings use [jwks.New] with the issuer's URL, Client and Now.
func (iss *Issuer) Verifier() *jwks.Verifier {
	iss.t.Helper()
	v, err := jwks.New(jwks.Config{
		Issuer:     iss.URL,
		Audience:   []string{DefaultAudience},
		Algorithms: slices.Clone(iss.settings.algorithms),
		Client:     iss.client,
		Now:        iss.Now,
		Logger:     slog.New(slog.DiscardHandler),
	})
	if err != nil {
		iss.t.Fatalf("valetkeytest: making a verifier: %v", err)
	}
	iss.t.Cleanup(v.Close)
	return v
}
