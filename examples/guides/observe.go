package guides

import (
	"context"
	"log/slog"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/middleware"
)

// Observed returns a guard that reports its refusals by reason, and the handler for readiness probes.
func Observed(verifier valetkey.Verifier, log *slog.Logger) (*middleware.Guard, error) {
	return middleware.New(middleware.Config{
		Verifier: verifier,
		Logger:   log, // refusals by misconfiguration, at level Warn, once a minute for each reason
		Observer: observer(func(ctx context.Context, e valetkey.Event) {
			if e.Kind == valetkey.RequestDecided && e.Status >= 400 {
				log.InfoContext(ctx, "refused", "status", e.Status, "reason", e.Reason, "took", e.Duration)
			}
		}),
	})
}

// An observer is a function that implements valetkey.Observer.
type observer func(context.Context, valetkey.Event)

func (o observer) Observe(ctx context.Context, e valetkey.Event) { o(ctx, e) }
