package middleware_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/scopes"
	"github.com/valetkey/valetkey/valetkeytest"
)

func cancels(c *middleware.Config) { c.CancelWithToken = true }

// accepting returns a Verifier that returns the result of make for every token.
func accepting(make func(raw string) (*valetkey.Token, error)) valetkey.Verifier {
	return valetkey.VerifierFunc(func(_ context.Context, raw string) (*valetkey.Token, error) { return make(raw) })
}

// waiting serves a request with the token x whose handler waits for its context, an hour at most, and returns how that ended.
func waiting(t *testing.T, guard *middleware.Guard, needs ...valetkey.Requirement) (lasted time.Duration, cause error) {
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("Authorization", "Bearer x")
	ctx, cancel := context.WithTimeout(r.Context(), time.Hour)
	defer cancel()
	start, called := time.Now(), false
	guard.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		called = true
		assert.NoError(t, r.Context().Err(), "the context has ended before the handler runs")
		<-r.Context().Done()
		lasted, cause = time.Since(start), context.Cause(r.Context())
	}), needs...).ServeHTTP(httptest.NewRecorder(), r.WithContext(ctx))
	require.True(t, called)
	return lasted, cause
}

func TestCancelWithToken(t *testing.T) {
	lives := func(expiry, deadline time.Duration) valetkey.Verifier {
		var once sync.Once
		token := valetkey.TokenFields{Issuer: "as", Subject: "alice"}
		return accepting(func(string) (*valetkey.Token, error) {
			once.Do(func() {
				token.Expiry = time.Now().Add(expiry)
				if deadline != 0 {
					token.Deadline = time.Now().Add(deadline)
				}
			})
			return valetkey.NewToken(token), nil
		})
	}
	refusal := &valetkey.Error{Code: valetkey.InvalidToken, Reason: valetkey.ReasonRevoked}
	// after accepts for d, and then gives err.
	after := func(d time.Duration, err error) valetkey.Verifier {
		start := time.Now()
		return accepting(func(string) (*valetkey.Token, error) {
			if time.Since(start) >= d {
				return nil, err
			}
			return valetkey.NewToken(valetkey.TokenFields{Expiry: start.Add(-time.Second), Freshness: valetkey.Freshness{Until: start.Add(d)}}), nil
		})
	}
	for _, c := range []struct {
		name     string
		verifier func() valetkey.Verifier
		change   []func(*middleware.Config)
		lasts    time.Duration
		ended    bool // by the token
	}{
		{"HTTP-03 by default a stream outlives its token", func() valetkey.Verifier { return lives(time.Minute, time.Minute) }, nil, time.Hour, false},
		{"HTTP-03 a stream ends at the deadline of its token", func() valetkey.Verifier { return lives(10*time.Minute, 11*time.Minute) },
			[]func(*middleware.Config){cancels}, 11 * time.Minute, true},
		{"HTTP-03 a token that is accepted within the leeway has the rest of it", func() valetkey.Verifier { return lives(-10*time.Second, 20*time.Second) },
			[]func(*middleware.Config){cancels}, 20 * time.Second, true},
		{"HTTP-03 a token without a deadline ends at its expiry", func() valetkey.Verifier { return lives(90*time.Second, 0) },
			[]func(*middleware.Config){cancels}, 90 * time.Second, true},
		{"a token that is refused later, past its expiry and without a deadline", func() valetkey.Verifier { return after(90*time.Second, refusal) },
			[]func(*middleware.Config){cancels}, 2 * time.Minute, true},
		{"a token that is remembered is relied on as by a new request", func() valetkey.Verifier { return after(150*time.Second, refusal) },
			[]func(*middleware.Config){cancels}, 3 * time.Minute, true},
		{"a failure ends nothing", func() valetkey.Verifier { return after(90*time.Second, errors.New("out of reach")) },
			[]func(*middleware.Config){cancels}, time.Hour, false},
		{"a token without an expiry ends nothing", func() valetkey.Verifier {
			return accepting(func(string) (*valetkey.Token, error) { return valetkey.NewToken(valetkey.TokenFields{}), nil })
		}, []func(*middleware.Config){cancels}, time.Hour, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				guard := guardWith(t, c.verifier(), c.change...)
				lasted, cause := waiting(t, guard)
				assert.Equal(t, c.lasts, lasted)
				var refused *valetkey.Error
				assert.Equal(t, c.ended, errors.As(cause, &refused), "%v", cause)
				synctest.Wait()
				assert.Zero(t, guard.Status().Requests, "something is left behind")
			})
		})
	}
	t.Run("the deadline is one of the guard's clock", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ahead := func() time.Time { return time.Now().Add(time.Hour) }
			token := valetkey.NewToken(valetkey.TokenFields{Deadline: ahead().Add(10 * time.Minute)})
			lasted, _ := waiting(t, guardWith(t, accepting(func(string) (*valetkey.Token, error) { return token, nil }), cancels,
				func(c *middleware.Config) { c.Now = ahead }))
			assert.Equal(t, 10*time.Minute, lasted)
		})
	})
	t.Run("the deadline is that of the last verification", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			start, calls := time.Now(), 0
			lasted, _ := waiting(t, guardWith(t, accepting(func(string) (*valetkey.Token, error) {
				deadline := start.Add(10 * time.Minute)
				if calls++; calls > 1 {
					deadline = start.Add(150 * time.Second)
				}
				return valetkey.NewToken(valetkey.TokenFields{Deadline: deadline}), nil
			}), cancels))
			assert.Equal(t, 150*time.Second, lasted)
		})
	})
	t.Run("a failure does not put the deadline off", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			calls := 0
			token := valetkey.NewToken(valetkey.TokenFields{Deadline: time.Now().Add(150 * time.Second)})
			lasted, cause := waiting(t, guardWith(t, accepting(func(string) (*valetkey.Token, error) {
				if calls++; calls > 1 {
					return nil, errors.New("out of reach")
				}
				return token, nil
			}), cancels))
			assert.Equal(t, 150*time.Second, lasted)
			var refused *valetkey.Error
			assert.ErrorAs(t, cause, &refused)
			assert.Equal(t, 3, calls)
		})
	})
	// served serves a request for a while and returns the number of verifications an hour later.
	served := func(lasts time.Duration, verify func(call int)) (calls int) {
		guard := guardWith(t, accepting(func(string) (*valetkey.Token, error) {
			calls++
			verify(calls)
			return valetkey.NewToken(valetkey.TokenFields{Issuer: "as", Subject: "alice"}), nil
		}), cancels)
		guard.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { time.Sleep(lasts) })).
			ServeHTTP(httptest.NewRecorder(), valetkeytest.Request("GET", "/", "x"))
		time.Sleep(time.Hour)
		synctest.Wait()
		return calls
	}
	t.Run("the token of a request that has been served is not verified again", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			assert.Equal(t, 2, served(90*time.Second, func(int) {}))
		})
	})
	t.Run("a request that ends while its token is verified is over", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			assert.Equal(t, 2, served(65*time.Second, func(call int) {
				if call == 2 { // from 60 s on
					time.Sleep(10 * time.Second)
				}
			}))
		})
	})
	t.Run("a request whose client has gone is not ended by its token", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			var log lines
			guard := guardWith(t, accepting(func(string) (*valetkey.Token, error) {
				return valetkey.NewToken(valetkey.TokenFields{Issuer: "as", Subject: "alice"}), nil
			}), cancels, func(c *middleware.Config) {
				c.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
			})
			guard.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				cancel()
				assert.NoError(t, guard.Revoke(valetkey.Revocation{Issuer: "as", Subject: "alice"}))
				assert.Equal(t, context.Canceled, context.Cause(r.Context()))
			})).ServeHTTP(httptest.NewRecorder(), valetkeytest.Request("GET", "/", "x").WithContext(ctx))
			assert.NotContains(t, log.buf.String(), "request ended with its token")
		})
	})
	t.Run("a verifier that panics takes nothing with it", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			calls := 0
			var log lines
			lasted, _ := waiting(t, guardWith(t, accepting(func(string) (*valetkey.Token, error) {
				switch calls++; calls {
				case 2:
					panic("boom")
				case 3:
					return nil, refusal
				}
				return valetkey.NewToken(valetkey.TokenFields{}), nil
			}), cancels, func(c *middleware.Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) }))
			assert.Equal(t, 2*time.Minute, lasted)
			assert.Contains(t, log.buf.String(), "cannot verify the token of a request in progress")
		})
	})
}

func TestRevokeEndsRequests(t *testing.T) {
	bySubject := accepting(func(raw string) (*valetkey.Token, error) {
		return valetkey.NewToken(valetkey.TokenFields{Issuer: "as", Subject: raw, ID: "id of " + raw, IssuedAt: time.Now().Add(-time.Minute)}), nil
	})
	t.Run("those under way whose token is named, at once, and no others", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			guard := guardWith(t, bySubject, cancels)
			var ended atomic.Int32
			causes := map[string]chan error{}
			stop, cancel := context.WithCancel(context.Background())
			defer cancel()
			for _, subject := range []string{"alice", "bob", "carol"} {
				causes[subject] = make(chan error, 1)
				r := httptest.NewRequestWithContext(stop, "GET", "/", nil)
				r.Header.Set("Authorization", "Bearer "+subject)
				go guard.Handler(guard.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
					<-r.Context().Done()
					ended.Add(1)
					causes[subject] <- context.Cause(r.Context())
				}))).ServeHTTP(httptest.NewRecorder(), r)
			}
			synctest.Wait()
			require.Equal(t, 3, guard.Status().Requests, "one for each request, in a chain too")

			require.NoError(t, guard.Revoke(valetkey.Revocation{Issuer: "as", Subject: "alice"}))
			synctest.Wait()
			var refused *valetkey.Error
			require.Len(t, causes["alice"], 1)
			require.ErrorAs(t, <-causes["alice"], &refused)
			assert.Equal(t, valetkey.InvalidToken, refused.Code)
			require.NoError(t, guard.Revoke(valetkey.Revocation{Issuer: "as", ID: "id of bob"}, valetkey.Revocation{Issuer: "other", All: true}))
			synctest.Wait()
			assert.Len(t, causes["bob"], 1)
			assert.EqualValues(t, 2, ended.Load())
			assert.Equal(t, 1, guard.Status().Requests)

			cancel() // carol's client goes
			synctest.Wait()
			assert.ErrorIs(t, <-causes["carol"], context.Canceled)
			assert.Zero(t, guard.Status().Requests)
		})
	})
	t.Run("each of many", func(t *testing.T) {
		guard := guardWith(t, bySubject, cancels)
		var open []context.Context
		for range 500 {
			open = append(open, guard.DecideToken(t.Context(), "alice").Context(t.Context()))
		}
		assert.Equal(t, 500, guard.Status().Requests)
		require.NoError(t, guard.Revoke(valetkey.Revocation{Issuer: "as", Subject: "alice"}))
		for _, ctx := range open {
			require.Error(t, ctx.Err())
		}
		assert.Zero(t, guard.Status().Requests)
	})
	t.Run("a request between its verification and its handler", func(t *testing.T) {
		var guard *middleware.Guard
		revokes := requirement(func(*valetkey.Token) error {
			return guard.Revoke(valetkey.Revocation{Issuer: "as", Subject: "alice"})
		})
		guard = guardWith(t, bySubject, cancels)
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Authorization", "Bearer alice")
		w := httptest.NewRecorder()
		_, ok := guard.Decide(r, revokes).Apply(w, r)
		assert.False(t, ok)
		assert.Equal(t, 401, w.Code)
		ctx := guard.Decide(r, revokes).Context(t.Context())
		var refused *valetkey.Error
		require.ErrorAs(t, context.Cause(ctx), &refused)
		assert.Equal(t, valetkey.InvalidToken, refused.Code)
		assert.Error(t, ctx.Err())
		assert.Zero(t, guard.Status().Requests)
	})
	t.Run("a refused request is not under way", func(t *testing.T) {
		guard := guardWith(t, bySubject, cancels)
		assert.Equal(t, 403, do(t, "GET", serve(t, guard.Handler(hello, scopes.All("a"))), "Bearer alice").status)
		assert.Zero(t, guard.Status().Requests)
	})
}

func TestServedRequestsAreNotInProgress(t *testing.T) {
	guard, err := middleware.New(middleware.Config{CancelWithToken: true, Verifier: accepting(func(string) (*valetkey.Token, error) {
		return valetkey.NewToken(valetkey.TokenFields{Issuer: "as", Subject: "alice", Expiry: time.Now().Add(time.Hour)}), nil
	})})
	require.NoError(t, err)
	serve := func(h http.HandlerFunc) { // in a context that never ends
		r := httptest.NewRequest("GET", "/", nil).WithContext(context.Background())
		r.Header.Set("Authorization", "Bearer x")
		guard.Handler(h, valetkey.AnyToken).ServeHTTP(httptest.NewRecorder(), r)
	}
	var ended context.Context
	serve(func(_ http.ResponseWriter, r *http.Request) {
		ended = r.Context()
		assert.Equal(t, 1, guard.Status().Requests)
		guard.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {}), valetkey.AnyToken).ServeHTTP(httptest.NewRecorder(), r)
		assert.NoError(t, r.Context().Err(), "the guard serves the request twice, and the inner time has ended it")
		assert.Equal(t, 1, guard.Status().Requests)
	})
	assert.Error(t, ended.Err())
	assert.Zero(t, guard.Status().Requests)
	assert.PanicsWithValue(t, http.ErrAbortHandler, func() { serve(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }) })
	assert.Zero(t, guard.Status().Requests)
}
