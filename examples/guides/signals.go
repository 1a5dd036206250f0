package guides

import (
	"context"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/introspect"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/signals"
)

// Signals returns a guard that refuses the tokens of sessions that have ended at the identity provider.
func Signals(ctx context.Context, verifier valetkey.Verifier, idp, issuer, tokenURL, secret string) (*middleware.Guard, error) {
	received, err := signals.New(signals.Config{
		Transmitter: idp,    // sends the events
		Issuer:      issuer, // of the access tokens; empty if it is the transmitter
		Delivery:    signals.Poll,
		Credentials: signals.ClientCredentialsGrant(signals.ClientCredentials{
			TokenURL: tokenURL, Auth: introspect.BasicAuth("orders-api", secret),
		}),
	})
	if err != nil {
		return nil, err
	}
	guard, err := middleware.New(middleware.Config{
		Verifier:        verifier,
		CancelWithToken: true, // streams end too
		Revocations:     middleware.Revocations{Source: received},
	})
	if err != nil {
		return nil, err
	}
	go func() { defer received.Close(); _ = received.Run(ctx) }()
	go func() { _ = guard.Watch(ctx) }()
	return guard, nil
}
