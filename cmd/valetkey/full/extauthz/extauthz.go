// Package extauthz is the driver for ext_authz of Envoy over gRPC.
package extauthz

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/valetkey/valetkey/adapters/valetenvoy"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/driver"
)

// New returns a server for d. It also serves health checks, which report NOT_SERVING after SetServing(false): at the end of the process,
// but not when a reload replaces the server.
func New(d driver.ExtAuthz) (driver.Server, error) {
	authorize, err := valetenvoy.New(valetenvoy.Config{
		Decider: d.Decider, Callers: d.Callers, ForwardToken: d.ForwardToken, AllowPreflight: d.AllowPreflight, Logger: d.Logger,
	})
	if err != nil {
		return nil, err
	}
	var options []grpc.ServerOption
	if d.TLS != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(d.TLS)))
	}
	s := &server{grpc.NewServer(options...), authorize}
	authorize.Register(s.Server)
	return s, nil
}

type server struct {
	*grpc.Server
	authorize *valetenvoy.Server
}

// SetServing sets the status of health checks.
func (s *server) SetServing(serving bool) { s.authorize.SetServing(serving) }

// Shutdown implements [driver.Server].
func (s *server) Shutdown(ctx context.Context) error {
	stopped := make(chan struct{})
	go func() { // until Close at the latest
		s.GracefulStop()
		close(stopped)
	}()
	select {
	case <-stopped:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close implements [driver.Server].
func (s *server) Close() error {
	s.Stop()
	return nil
}
