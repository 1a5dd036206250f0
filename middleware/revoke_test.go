package middleware_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/claims"
	"github.com/valetkey/valetkey/jwks"
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
		assert.Equal(t, middleware.RevocationsStatus{Held: 1}, guard.Status().Revocations)
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
			return valetkey.NewToken(valetkey.TokenFields{Issuer: "i", ID: "1", Freshness: valetkey.Freshness{Until: time.Now().Add(time.Hour)}}), nil
		})
		guard := guardWith(t, slow)
		verify := func() error {
			r := httptest.NewRequest("GET", "/", nil)
			r.Header.Set("Authorization", "Bearer x")
			err := guard.Decide(r).Err()
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

// A source is a script: each call of Watch runs the next step, and one after the last waits for its context.
type source struct {
	steps []func(apply func(...valetkey.Revocation) error, report func(error)) error
	calls atomic.Int32
	began []time.Time
}

// A returning source ends at once.
type returning struct{ err error }

func (r returning) Watch(context.Context, func(...valetkey.Revocation) error, func(error)) error {
	return r.err
}

func (s *source) Watch(ctx context.Context, apply func(...valetkey.Revocation) error, report func(error)) error {
	s.began = append(s.began, time.Now()) // one call at a time
	if i := int(s.calls.Add(1)) - 1; i < len(s.steps) {
		if err := s.steps[i](apply, report); err != nil {
			return err
		}
	}
	<-ctx.Done()
	return ctx.Err()
}

// watching returns a guard that watches s, with its clean-up, and a func that returns the status of a request of alice.
func watching(t *testing.T, s *source, change ...func(*middleware.Config)) (*middleware.Guard, func() int) {
	v := valetkey.VerifierFunc(func(_ context.Context, raw string) (*valetkey.Token, error) {
		if raw == "x" {
			return nil, &valetkey.Error{Code: valetkey.InvalidToken}
		}
		return valetkey.NewToken(valetkey.TokenFields{Issuer: "i", Subject: raw, Freshness: valetkey.Freshness{Until: time.Now().Add(time.Hour)}}), nil
	})
	guard := guardWith(t, v, append(change, func(cfg *middleware.Config) { cfg.Revocations.Source = s })...)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- guard.Watch(ctx) }()
	t.Cleanup(func() {
		cancel()
		assert.ErrorIs(t, <-ended, context.Canceled)
	})
	return guard, func() int { return status(guard, "alice") }
}

// TestARevocationNamesTheIssuerOfTheToken revokes tokens whose iss is an alias or that of a tenant, or absent.
func TestARevocationNamesTheIssuerOfTheToken(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	const alias, tenants = "https://back.example.com", "https://login.example.com/{tid}/v2.0"
	for _, c := range []struct {
		name      string
		change    func(*jwks.Config)
		claims    map[string]any
		elsewhere string // an issuer whose revocations do not concern the token
		issuer    string // that of the token
	}{
		{"an alias", func(c *jwks.Config) { c.IssuerAliases = []string{alias} }, map[string]any{"iss": alias}, alias, iss.URL},
		{"a tenant", func(c *jwks.Config) { c.Issuer, c.JWKSURL, c.Profile.AllowAnyTenant = tenants, iss.URL+"/jwks", true },
			map[string]any{"iss": "https://login.example.com/t1/v2.0", "tid": "t1"}, "https://login.example.com/t2/v2.0", "https://login.example.com/t1/v2.0"},
		{"no iss", func(c *jwks.Config) {
			c.Profile.AllowMissingIssuer, c.Rules = true, []claims.Rule{claims.Present("sub")}
		}, map[string]any{"iss": nil}, alias, iss.URL},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := jwks.Config{Issuer: iss.URL, Audience: []string{audience}, Client: iss.Client(), Now: iss.Now, Logger: quiet}
			c.change(&cfg)
			keys, err := jwks.New(cfg)
			require.NoError(t, err)
			t.Cleanup(keys.Close)
			guard := guardWith(t, keys, func(c *middleware.Config) { c.Now = iss.Now })
			options := []valetkeytest.Option{valetkeytest.Subject("alice")}
			for name, value := range c.claims {
				options = append(options, valetkeytest.Claim(name, value))
			}
			raw := iss.Token(options...)
			require.Equal(t, 200, status(guard, raw))
			require.NoError(t, guard.Revoke(valetkey.Revocation{Issuer: c.elsewhere, Subject: "alice"}))
			assert.Equal(t, 200, status(guard, raw))
			require.NoError(t, guard.Revoke(valetkey.Revocation{Issuer: c.issuer, Subject: "alice"}))
			assert.Equal(t, 401, status(guard, raw), "remembered")
			guard.Purge(nil)
			assert.Equal(t, 401, status(guard, raw), "verified anew")
		})
	}
}

func TestWatchRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fails := func(func(...valetkey.Revocation) error, func(error)) error { return errors.New("out of reach") }
		s := &source{steps: []func(func(...valetkey.Revocation) error, func(error)) error{
			fails, fails,
			func(apply func(...valetkey.Revocation) error, report func(error)) error {
				report(nil)
				return errors.New("gone")
			},
			func(apply func(...valetkey.Revocation) error, report func(error)) error {
				err := apply(valetkey.Revocation{Issuer: "i", Subject: "alice"})
				report(nil)
				return err
			},
		}}
		guard, alice := watching(t, s)
		synctest.Wait()
		assert.Equal(t, 503, alice(), "the source is out of reach")
		time.Sleep(3 * time.Second)
		synctest.Wait()
		assert.Equal(t, 200, alice(), "it was reached, and had none")
		assert.Equal(t, valetkey.Degraded, guard.Status().State, "it is gone again")
		time.Sleep(time.Second)
		synctest.Wait()
		assert.Equal(t, 401, alice(), "the wait begins at 1 s again")
		assert.Equal(t, valetkey.Ready, guard.Status().State)
	})
	t.Run("a source that had caught up is watched again after 1 s, whatever it has reported since", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			fails := func(func(...valetkey.Revocation) error, func(error)) error { return errors.New("out of reach") }
			s := &source{steps: []func(func(...valetkey.Revocation) error, func(error)) error{
				fails, fails, fails, fails,
				func(_ func(...valetkey.Revocation) error, report func(error)) error {
					report(nil)
					report(errors.New("late"))
					return errors.New("gone")
				},
			}}
			watching(t, s)
			time.Sleep(time.Minute)
			synctest.Wait()
			assert.EqualValues(t, 6, s.calls.Load())
			start := s.began
			assert.Less(t, start[5].Sub(start[4]), time.Second+1)
			assert.Greater(t, start[4].Sub(start[3]), 7*time.Second)
		})
	})
	t.Run("the log and the status have the reason why it failed, and the end of Watch is not a failure", func(t *testing.T) {
		for want, ends := range map[string]error{"out of reach": errors.New("out of reach"), "the source ended without an error": nil} {
			synctest.Test(t, func(t *testing.T) {
				var log lines
				v := accepting(func(string) (*valetkey.Token, error) { return nil, errors.New("unused") })
				guard := guardWith(t, v, func(cfg *middleware.Config) {
					cfg.Revocations.Source, cfg.Logger = returning{ends}, slog.New(slog.NewTextHandler(&log, nil))
				})
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error, 1)
				go func() { done <- guard.Watch(ctx) }()
				synctest.Wait()
				assert.Contains(t, log.buf.String(), "watching revocations failed")
				assert.Contains(t, log.buf.String(), "retry_in=1s")
				assert.Contains(t, log.buf.String(), want)
				err := guard.Status().Revocations.Source.Err
				assert.ErrorContains(t, err, want)
				assert.ErrorContains(t, err, "have not been received yet: ")
				assert.ErrorContains(t, guard.Decide(valetkeytest.Request("GET", "/", "x")).Err(), "have not been received yet: ")
				cancel()
				synctest.Wait()
				assert.ErrorIs(t, <-done, context.Canceled, "also while it waits")
				assert.Equal(t, 1, strings.Count(log.buf.String(), "watching revocations failed"))
			})
		}
		synctest.Test(t, func(t *testing.T) {
			var log lines
			guard := guardWith(t, valetkey.First(), func(cfg *middleware.Config) {
				cfg.Revocations.Source, cfg.Logger = make(published), slog.New(slog.NewTextHandler(&log, nil))
			})
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- guard.Watch(ctx) }()
			synctest.Wait()
			assert.Equal(t, valetkey.Ready, guard.Status().State)
			cancel()
			assert.ErrorIs(t, <-done, context.Canceled)
			assert.Empty(t, log.buf.String())
			assert.Equal(t, valetkey.Degraded, guard.Status().State, "revocations are not received any longer")
			assert.Equal(t, context.Canceled, guard.Status().Revocations.Source.Err)
		})
	})
	t.Run("without a source it ends at once", func(t *testing.T) {
		guard := guardWith(t, valetkey.First())
		require.ErrorContains(t, guard.Watch(t.Context()), "Revocations.Source: required")
	})
}

func TestNoTokenIsAcceptedBeforeRevocationsAreKnown(t *testing.T) {
	type step = func(apply func(...valetkey.Revocation) error, report func(error)) error
	synctest.Test(t, func(t *testing.T) {
		ready, lost, again, back := make(chan bool), make(chan bool), make(chan bool), make(chan bool)
		s := &source{steps: []step{func(apply func(...valetkey.Revocation) error, report func(error)) error {
			report(errors.New("dial tcp: refused"))
			<-ready
			err := apply(valetkey.Revocation{Issuer: "i", Subject: "alice"})
			report(nil)
			<-lost
			report(errors.New("dial tcp: refused"))
			<-again
			report(errors.New("dial tcp: no route"))
			<-back
			report(nil)
			return err
		}}}
		guard, alice := watching(t, s)
		probe := func() (status int, body string) {
			w := httptest.NewRecorder()
			guard.Readiness().ServeHTTP(w, httptest.NewRequest("GET", "/ready", nil))
			return w.Code, w.Body.String()
		}

		synctest.Wait()
		w := httptest.NewRecorder()
		guard.Handler(hello).ServeHTTP(w, valetkeytest.Request("GET", "/", "alice"))
		assert.Equal(t, 503, w.Code, "before it has caught up")
		assert.Equal(t, "5", w.Header().Get("Retry-After"))
		assert.Equal(t, 503, status(guard, "x"), "it is not verified either")
		assert.Equal(t, 401, status(guard, ""), "without a token nothing has to be known")
		code, body := probe()
		assert.Equal(t, 503, code)
		assert.Contains(t, body, `"revocations":{"name":"revocations","state":"down"`)
		assert.Contains(t, body, "dial tcp: refused")
		assert.Equal(t, valetkey.Down, guard.Status().State)

		close(ready)
		synctest.Wait()
		assert.Equal(t, 401, alice(), "once it has caught up")
		assert.Equal(t, 200, status(guard, "bob"))
		code, _ = probe()
		assert.Equal(t, 200, code)
		assert.Equal(t, valetkey.Ready, guard.Status().State)

		time.Sleep(time.Hour)
		close(lost)
		synctest.Wait()
		assert.Equal(t, 401, alice(), "what is known stays in force when the source is lost")
		assert.Equal(t, 200, status(guard, "bob"))
		assert.Equal(t, 200, status(guard, "carol"), "who is new")
		code, body = probe()
		assert.Equal(t, 200, code)
		assert.Contains(t, body, "dial tcp: refused")
		assert.Equal(t, valetkey.Degraded, guard.Status().State)
		since := time.Now()
		assert.Equal(t, since, guard.Status().Revocations.Source.Since)
		time.Sleep(time.Minute)
		close(again)
		synctest.Wait()
		assert.ErrorContains(t, guard.Status().Revocations.Source.Err, "no route")
		assert.Equal(t, since, guard.Status().Revocations.Source.Since, "it has been lost since then, whatever the reason")

		close(back)
		synctest.Wait()
		assert.Equal(t, valetkey.Ready, guard.Status().State)
	})
	t.Run("nor where Watch does not run", func(t *testing.T) {
		guard := guardWith(t, accepting(func(string) (*valetkey.Token, error) { return valetkey.NewToken(valetkey.TokenFields{}), nil }),
			func(cfg *middleware.Config) { cfg.Revocations.Source = new(source) })
		assert.Equal(t, 503, status(guard, "alice"))
		assert.ErrorContains(t, guard.Status().Revocations.Source.Err, "the published revocations have not been received yet")
	})
	t.Run("unless that is allowed", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ready := make(chan bool)
			s := &source{steps: []step{func(apply func(...valetkey.Revocation) error, report func(error)) error {
				<-ready
				err := apply(valetkey.Revocation{Issuer: "i", Subject: "alice"})
				report(nil)
				return err
			}}}
			guard, alice := watching(t, s, func(cfg *middleware.Config) { cfg.Revocations.AllowBeforeCaughtUp = true })
			assert.Equal(t, 200, alice())
			assert.Equal(t, valetkey.Degraded, guard.Status().State)
			close(ready)
			synctest.Wait()
			assert.Equal(t, 401, alice(), "what was remembered before is forgotten")
			assert.Equal(t, valetkey.Ready, guard.Status().State)
		})
	})
	t.Run("nor do lost ones stop it: what there is applies, and it is degraded until they do not matter", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			over := make(chan bool)
			s := &source{steps: []step{func(apply func(...valetkey.Revocation) error, report func(error)) error {
				err := apply(valetkey.Revocation{Issuer: "i", Subject: "alice"})
				report(fmt.Errorf("emptied: %w", valetkey.ErrRevocationsMissing))
				<-over
				report(nil)
				return err
			}}}
			guard, alice := watching(t, s)
			synctest.Wait()
			assert.Equal(t, 401, alice())
			assert.Equal(t, 200, status(guard, "bob"))
			assert.Equal(t, valetkey.Degraded, guard.Status().State)
			assert.ErrorContains(t, guard.Status().Revocations.Source.Err, "emptied")
			close(over)
			synctest.Wait()
			assert.Equal(t, valetkey.Ready, guard.Status().State)
		})
	})
	t.Run("which takes a source", func(t *testing.T) {
		_, err := middleware.New(middleware.Config{Verifier: valetkey.First(), Revocations: middleware.Revocations{AllowBeforeCaughtUp: true}})
		require.ErrorContains(t, err, "Revocations.AllowBeforeCaughtUp: has no effect without Source")
	})
}
