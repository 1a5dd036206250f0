package valetkeytest_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/signals"
	"github.com/valetkey/valetkey/valetkeytest"
)

// TestLogout is what a user writes.
func TestLogout(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	tr := valetkeytest.NewTransmitter(t, iss)
	api, received, err := newSignaledAPI(t.Context(), iss.URL, tr.Credentials())
	if err != nil {
		t.Fatal(err)
	}
	if err := received.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	token := iss.Token(valetkeytest.Subject("alice"), valetkeytest.SID("s1"))
	call := func() int {
		res := httptest.NewRecorder()
		api.ServeHTTP(res, valetkeytest.Request("GET", "/orders", token))
		return res.Code
	}
	for name, set := range tr.WrongSETs(signals.SessionRevoked, valetkeytest.OfSession("alice", "s1")) {
		if err := tr.Send(set); err == nil {
			t.Errorf("an event with this defect was accepted: %s", name)
		}
	}
	if status := call(); status != http.StatusOK {
		t.Errorf("before the logout: %d", status)
	}
	// Send returns when the receiver has acknowledged the event: it is in force.
	if err := tr.Send(tr.SET(signals.SessionRevoked, valetkeytest.OfSession("alice", "s1"))); err != nil {
		t.Fatal(err)
	}
	if status := call(); status != http.StatusUnauthorized {
		t.Errorf("after the logout: %d", status)
	}
}

// newSignaledAPI is part of the application.
func newSignaledAPI(ctx context.Context, issuer string, credentials signals.Credentials) (http.Handler, *signals.Receiver, error) {
	received, err := signals.New(signals.Config{Transmitter: issuer, Delivery: signals.Poll, Credentials: credentials})
	if err != nil {
		return nil, nil, err
	}
	keys, err := jwks.New(jwks.Config{Issuer: issuer, Audience: []string{valetkeytest.DefaultAudience}})
	if err != nil {
		return nil, nil, err
	}
	guard, err := middleware.New(middleware.Config{Verifier: keys, Revocations: middleware.Revocations{Source: received}})
	if err != nil {
		return nil, nil, err
	}
	go func() { defer keys.Close(); defer received.Close(); _ = received.Run(ctx) }()
	go func() { _ = guard.Watch(ctx) }()
	for guard.Status().Revocations.Source.State != valetkey.Ready && ctx.Err() == nil {
		time.Sleep(time.Millisecond)
	}
	return guard.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), valetkey.AnyToken), received, nil
}
