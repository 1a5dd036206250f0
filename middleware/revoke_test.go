package middleware_test

import (
	"context"
	"errors"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/valetkeytest"
)

func TestRevoke(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	for _, c := range []struct {
		name       string
		revocation valetkey.Revocation
		status     int
	}{
		{"INTRO-36, VCACHE-07 the token by its id", valetkey.Revocation{ID: "token-1"}, 401},
		{"INTRO-36 all tokens of the subject", valetkey.Revocation{Subject: "alice"}, 401},
		{"all tokens of the client", valetkey.Revocation{ClientID: "app"}, 401},
		{"all tokens of the login session", valetkey.Revocation{SessionID: "session-1"}, 401},
		{"another session", valetkey.Revocation{SessionID: "session-2"}, 200},
		{"a session of the subject's name", valetkey.Revocation{SessionID: "alice"}, 200},
		{"all tokens of the issuer", valetkey.Revocation{All: true}, 401},
		{"the id counts whenever the token was issued", valetkey.Revocation{ID: "token-1", Before: iss.Now().Add(-time.Hour)}, 401},
		{"another token", valetkey.Revocation{ID: "token-2"}, 200},
		{"another subject", valetkey.Revocation{Subject: "bob"}, 200},
		{"a subject of the client's name", valetkey.Revocation{Subject: "app"}, 200},
		{"another client", valetkey.Revocation{ClientID: "alice"}, 200},
		{"another issuer", valetkey.Revocation{Issuer: "https://other.example.com", Subject: "alice"}, 200},
		{"tokens issued before this one", valetkey.Revocation{Subject: "alice", Before: iss.Now().Add(-time.Hour)}, 200},
		{"one that is over", valetkey.Revocation{Subject: "alice", Until: iss.Now().Add(-7 * time.Minute)}, 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.revocation.Issuer == "" {
				c.revocation.Issuer = iss.URL
			}
			guard := newGuard(t, iss)
			api := serve(t, guard.Handler(hello))
			raw := iss.Token(valetkeytest.Subject("alice"), valetkeytest.ClientID("app"), valetkeytest.Claim("jti", "token-1"), valetkeytest.Claim("sid", "session-1"),
				valetkeytest.Claim("iat", iss.Now().Add(-time.Minute).Unix()))
			require.Equal(t, 200, do(t, "GET", api, "Bearer "+raw).status)
			require.NoError(t, guard.Revoke(c.revocation))
			for range 2 { // remembered, and verified anew
				got := do(t, "GET", api, "Bearer "+raw)
				assert.Equal(t, c.status, got.status)
				if c.status == 401 {
					assert.Contains(t, got.challenge(), "the token has been revoked")
				}
				guard.Purge(nil)
			}
		})
	}

	t.Run("a narrower revocation does not lift a wider one", func(t *testing.T) {
		guard := newGuard(t, iss)
		api := serve(t, guard.Handler(hello))
		wide := valetkey.Revocation{Issuer: iss.URL, Subject: "alice", Before: iss.Now().Add(time.Hour)}
		narrow := valetkey.Revocation{Issuer: iss.URL, Subject: "alice", Before: iss.Now().Add(-time.Hour), Until: iss.Now().Add(time.Second)}
		require.NoError(t, guard.Revoke(wide, narrow))
		assert.Equal(t, 401, do(t, "GET", api, "Bearer "+iss.Token()).status)
		assert.Equal(t, middleware.RevocationStatus{Held: 1}, guard.Status().Revocations)
	})
	t.Run("every mistake is named, and the others apply", func(t *testing.T) {
		guard := newGuard(t, iss)
		err := guard.Revoke(
			valetkey.Revocation{ID: "x"},
			valetkey.Revocation{Issuer: iss.URL},
			valetkey.Revocation{Issuer: iss.URL, ID: "x", All: true},
			valetkey.Revocation{Issuer: iss.URL, Subject: valetkeytest.DefaultSubject, Before: iss.Now().Add(time.Hour)},
		)
		assert.ErrorContains(t, err, "revocation 0: Issuer: required")
		assert.ErrorContains(t, err, "revocation 1: exactly one of")
		assert.ErrorContains(t, err, "revocation 2: exactly one of")
		assert.NotContains(t, err.Error(), "revocation 3")
		assert.Equal(t, 401, do(t, "GET", serve(t, guard.Handler(hello)), "Bearer "+iss.Token()).status)
	})
	t.Run("a token that is being verified meanwhile does not stay", func(t *testing.T) {
		begun, finish := make(chan bool), make(chan bool)
		slow := valetkey.VerifierFunc(func(context.Context, string) (*valetkey.Token, error) {
			begun <- true
			<-finish
			return &valetkey.Token{Issuer: "i", ID: "1", Reuse: valetkey.Reuse{Until: time.Now().Add(time.Hour)}}, nil
		})
		guard := guardWith(t, slow)
		verify := func() error {
			r := httptest.NewRequest("GET", "/", nil)
			r.Header.Set("Authorization", "Bearer x")
			_, err := guard.Check(httptest.NewRecorder(), r)
			return err
		}
		done := make(chan error)
		go func() { done <- verify() }()
		<-begun
		require.NoError(t, guard.Revoke(valetkey.Revocation{Issuer: "i", ID: "1"}))
		close(finish)
		require.Error(t, <-done)
		go func() { done <- verify() }()
		<-begun
		assert.Error(t, <-done)
	})
}

// A source is a list of revocations that ends with an error the first time.
type source struct {
	revocations []valetkey.Revocation
	failures    atomic.Int32
}

func (s *source) Follow(ctx context.Context, apply func(valetkey.Revocation) error) error {
	if s.failures.Add(-1) >= 0 {
		return errors.New("out of reach")
	}
	for _, r := range s.revocations {
		if err := apply(r); err != nil {
			return err
		}
	}
	<-ctx.Done()
	return ctx.Err()
}

func TestFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		guard := guardWith(t, valetkey.VerifierFunc(func(context.Context, string) (*valetkey.Token, error) {
			return &valetkey.Token{Issuer: "i", Subject: "alice", Reuse: valetkey.Reuse{Until: time.Now().Add(time.Hour)}}, nil
		}))
		status := func() int {
			w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil)
			r.Header.Set("Authorization", "Bearer x")
			guard.Handler(hello).ServeHTTP(w, r)
			return w.Code
		}
		s := &source{revocations: []valetkey.Revocation{{Issuer: "i", Subject: "alice"}}}
		s.failures.Store(2)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- guard.Follow(ctx, s) }()
		synctest.Wait()
		assert.Equal(t, 200, status(), "the source is out of reach")
		time.Sleep(3 * time.Second)
		synctest.Wait()
		assert.Equal(t, 401, status())
		cancel()
		assert.ErrorIs(t, <-ended, context.Canceled)
	})
}
