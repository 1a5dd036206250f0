package main

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net/http/httptest"
	"testing"

	"github.com/valetkey/valetkey/conformance"
	"github.com/valetkey/valetkey/conformance/harness/internal/api"
)

// TestConform runs all cases against the guard. It claims every profile and feature.
func TestConform(t *testing.T) {
	conformance.Run(t, conformance.Target{
		URL:      "/any",
		Routes:   conformance.DefaultRoutes(),
		Profiles: conformance.Profiles(),
		Features: conformance.Features(),
		Start: func(_ context.Context, s conformance.Setup) (*conformance.Server, error) {
			server := httptest.NewUnstartedServer(nil)
			scheme := "http://"
			if s.Profile == conformance.ProfileMTLS {
				server.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
				scheme = "https://"
			}
			a, err := api.New(s, scheme+server.Listener.Addr().String(), slog.New(slog.DiscardHandler))
			if err != nil {
				return nil, err
			}
			server.Config.Handler = handler(a)
			server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
			if s.Profile == conformance.ProfileMTLS {
				server.StartTLS()
			} else {
				server.Start()
			}
			return &conformance.Server{URL: server.URL, Close: func() { server.Close(); a.Close() }}, nil
		},
	})
}
