package valetkeytest

import (
	"log/slog"

	"github.com/valetkey/valetkey/middleware"
)

// Guard returns a guard that accepts the issuer's JWT access tokens for [DefaultAudience], by [Issuer.Verifier] and the issuer's clock.
// Its log is part of the output of the test, which shows it if the test fails, so the cause of each refusal is there.
//
// For other settings use [middleware.New] with the issuer's Verifier and Now.
func (iss *Issuer) Guard() *middleware.Guard {
	iss.t.Helper()
	guard, err := middleware.New(middleware.Config{
		Verifier: iss.Verifier(),
		Now:      iss.Now,
		Logger:   slog.New(slog.NewTextHandler(iss.t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err != nil {
		iss.t.Fatalf("valetkeytest: making a guard: %v", err)
	}
	return guard
}
