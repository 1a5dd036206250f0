package authserver_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/authserver"
	"github.com/valetkey/valetkey/authserver/login"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/middleware"
)

// An API that verifies JWTs by itself refuses those of a user who is logged out everywhere, and accepts the next one at once, although
// both have a whole second as their iat and the clock of the API may be another one.
func TestWhoIsLoggedOutEverywhereCanLogInAgainAtOnce(t *testing.T) {
	for _, c := range []struct {
		name string
		skew time.Duration // of the API's clock
	}{
		{"the clocks agree", 0},
		{"the API's clock is behind", -25 * time.Second},
		{"the API's clock is ahead", 25 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			var guard *middleware.Guard
			s := start(t, "", passwords, func(cfg *authserver.Config) {
				cfg.PublishRevocation = func(_ context.Context, r valetkey.Revocation) error { return guard.Revoke(r) }
			})
			now := func() time.Time { return time.Now().Add(c.skew) }
			v, err := jwks.New(jwks.Config{Issuer: s.Issuer(), Audience: []string{orders}, Now: now})
			require.NoError(t, err)
			t.Cleanup(v.Close)
			guard, err = middleware.New(middleware.Config{Verifier: v, Now: now, Logger: slog.New(slog.DiscardHandler)})
			require.NoError(t, err)
			api := guard.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
			status := func(raw string) int {
				r := httptest.NewRequest("GET", "/", nil)
				r.Header.Set("Authorization", "Bearer "+raw)
				w := httptest.NewRecorder()
				api.ServeHTTP(w, r)
				return w.Code
			}
			old, _ := s.grant(t, "alice", "correct horse")
			require.Equal(t, 200, status(old))
			_, _, err = s.RevokeUser(t.Context(), "customer:alice")
			require.NoError(t, err)
			assert.Equal(t, 401, status(old), "of before")
			again, _ := s.grant(t, "alice", "correct horse")
			assert.Equal(t, 200, status(again), "she has logged in again")
			assert.Equal(t, 401, status(old), "of before, still")
		})
	}
}

func TestTheEndOfAUserIsPublished(t *testing.T) {
	var published []valetkey.Revocation
	var fails error
	s := start(t, "", passwords, func(cfg *authserver.Config) {
		cfg.PublishRevocation = func(_ context.Context, r valetkey.Revocation) error {
			published = append(published, r)
			return fails
		}
	})
	bob, err := s.AddUser(t.Context(), "", login.NewUser{Name: "bob", Password: "correct mule"})
	require.NoError(t, err)
	s.grant(t, "bob", "correct mule")
	for _, c := range []struct {
		name string
		end  func() error
	}{
		{"revoked", func() error { _, _, err := s.RevokeUser(t.Context(), bob.Subject); return err }},
		{"a new password", func() error { return s.SetPassword(t.Context(), "", "bob", "another mule") }},
		{"removed", func() error { return s.RemoveUser(t.Context(), "", "bob") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			published, fails = nil, errors.New("out of order")
			require.ErrorContains(t, c.end(), "publish the revocation of the user: out of order")
			fails = nil
			require.NoError(t, c.end(), "it can be done again")
			require.Len(t, published, 2)
			r := published[1]
			assert.False(t, time.Now().Before(r.Before), "a token that is issued now is not meant")
			assert.WithinDuration(t, time.Now(), r.Before, soon)
			assert.WithinDuration(t, time.Now().Add(24*time.Hour), r.Until, soon)
			r.Before, r.Until = time.Time{}, time.Time{}
			assert.Equal(t, valetkey.Revocation{Issuer: s.Issuer(), Subject: bob.Subject}, r)
		})
	}
}
