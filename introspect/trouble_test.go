package introspect_test

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/introspect"
	"github.com/valetkey/valetkey/valetkeytest"
)

// Every fault is a failure, costs one call, and is forgotten as soon as it is over.
func TestFaults(t *testing.T) {
	for _, c := range []struct {
		name  string
		fault func(e *valetkeytest.Endpoint)
	}{
		{"INTRO-16 401", func(e *valetkeytest.Endpoint) { e.Fail(401) }},
		{"INTRO-16 403", func(e *valetkeytest.Endpoint) { e.Fail(403) }},
		{"INTRO-17 400", func(e *valetkeytest.Endpoint) { e.Fail(400) }},
		{"INTRO-18 a page", func(e *valetkeytest.Endpoint) { e.Garbage() }},
		{"INTRO-18 the right JSON, called a page", func(e *valetkeytest.Endpoint) {
			e.Serve(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "text/html")
				fmt.Fprint(w, `{"active":true,"aud":"https://api.example.com"}`)
			})
		}},
		{"INTRO-18 no type", func(e *valetkeytest.Endpoint) {
			e.Serve(func(w http.ResponseWriter, r *http.Request) {
				w.Header()["Content-Type"] = nil
				fmt.Fprint(w, `{"active":true,"aud":"https://api.example.com"}`)
			})
		}},
		{"INTRO-18 half an answer", func(e *valetkeytest.Endpoint) { e.Truncated() }},
		{"INTRO-18 an answer without end", func(e *valetkeytest.Endpoint) { e.Endless() }},
		{"an empty answer", func(e *valetkeytest.Endpoint) { e.Empty() }},
		{"an answer in a coding that is not gzip", func(e *valetkeytest.Endpoint) {
			e.Serve(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				w.Header().Set("Content-Encoding", "br")
				fmt.Fprint(w, `{"active":true,"aud":"https://api.example.com"}`)
			})
		}},
		{"a connection that breaks in the middle", func(e *valetkeytest.Endpoint) { e.Reset() }},
		{"INTRO-28 a connection that breaks at once", func(e *valetkeytest.Endpoint) { e.Down() }},
		{"INTRO-28 500", func(e *valetkeytest.Endpoint) { e.Fail(500) }},
		{"204", func(e *valetkeytest.Endpoint) { e.Fail(204) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			iss := valetkeytest.NewIssuer(t)
			var log journal
			v, token := verifierOf(t, iss, func(cfg *introspect.Config) { cfg.Logger = slog.New(&log) }), iss.Opaque()
			c.fault(iss.Introspection)
			for n := range 2 {
				_, err := v.Verify(t.Context(), token)
				failed(t, err)
				assert.NotContains(t, err.Error(), token)
				assert.NotContains(t, err.Error(), valetkeytest.IntrospectionSecret)
				assert.Equal(t, n+1, iss.Introspection.Hits())
			}
			assert.Zero(t, log.count(token)+log.count(valetkeytest.IntrospectionSecret))
			iss.Introspection.Restore()
			_, err := v.Verify(t.Context(), token)
			require.NoError(t, err)
		})
	}
	t.Run("a compressed answer is not a fault", func(t *testing.T) {
		iss := valetkeytest.NewIssuer(t)
		iss.Introspection.Compressed()
		_, err := verifierOf(t, iss).Verify(t.Context(), iss.Opaque())
		assert.NoError(t, err)
	})
	t.Run("INTRO-22 a redirect is not followed", func(t *testing.T) {
		iss, thief := valetkeytest.NewIssuer(t), valetkeytest.NewIssuer(t)
		iss.Introspection.Redirect(thief.Introspection.URL)
		_, err := verifierOf(t, iss).Verify(t.Context(), iss.Opaque())
		failed(t, err)
		assert.Zero(t, thief.Introspection.Hits())
	})
	t.Run("INTRO-20 an untrusted certificate", func(t *testing.T) {
		_, _ = x509.SystemCertPool() // read once by the process, and not within the time limit of the fetch
		iss := valetkeytest.NewIssuer(t, valetkeytest.TLS())
		_, err := verifierOf(t, iss, func(c *introspect.Config) { c.Client = nil }).Verify(t.Context(), iss.Opaque())
		failed(t, err)
		assert.ErrorContains(t, err, "certificate")
	})
	t.Run("INTRO-20 a certificate for another name", func(t *testing.T) {
		iss := valetkeytest.NewIssuer(t, valetkeytest.TLS())
		_, err := verifierOf(t, iss, func(c *introspect.Config) {
			c.URL = strings.Replace(iss.Introspection.URL, "127.0.0.1", "localhost", 1)
		}).Verify(t.Context(), iss.Opaque())
		failed(t, err)
		assert.ErrorContains(t, err, "localhost")
		_, err = verifierOf(t, iss).Verify(t.Context(), iss.Opaque())
		require.NoError(t, err, "the right name")
	})
	t.Run("an endpoint that is too slow", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			iss := valetkeytest.NewIssuer(t, valetkeytest.InMemory())
			iss.Introspection.Slow(time.Minute)
			for want, timeout := range map[time.Duration]time.Duration{5 * time.Second: 0, 2 * time.Second: 2 * time.Second} {
				start := time.Now()
				_, err := verifierOf(t, iss, func(c *introspect.Config) { c.Timeout = timeout }).Verify(t.Context(), iss.Opaque())
				failed(t, err)
				assert.Equal(t, want, time.Since(start))
			}
		})
	})
}

// INTRO-16 in the log: once a minute, not once a request.
func TestComplaints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		iss := valetkeytest.NewIssuer(t, valetkeytest.InMemory())
		var log journal
		v := verifierOf(t, iss, func(c *introspect.Config) {
			c.Auth, c.Logger = introspect.BasicAuth("resource-server", "not-the-secret"), slog.New(&log)
		})
		for range 600 {
			_, err := v.Verify(t.Context(), iss.Opaque())
			failed(t, err)
			time.Sleep(time.Second)
		}
		complaints := log.count("ERROR introspection: the endpoint refuses our questions")
		assert.GreaterOrEqual(t, complaints, 5)
		assert.LessOrEqual(t, complaints, 10)
		assert.Zero(t, log.count("not-the-secret"))
		assert.Less(t, iss.Introspection.Hits(), 40, "and the issuer is spared")
	})
}

func TestOneCall(t *testing.T) {
	t.Run("INTRO-29 a thousand callers, the first of whom leaves", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			iss := valetkeytest.NewIssuer(t, valetkeytest.InMemory())
			iss.Introspection.Slow(time.Second)
			v, token := verifierOf(t, iss), iss.Opaque(valetkeytest.Subject("bob"))

			leader, leave := context.WithCancel(t.Context())
			var left, answered atomic.Int32
			go func() {
				_, err := v.Verify(leader, token)
				assert.ErrorIs(t, err, context.Canceled)
				left.Add(1)
			}()
			synctest.Wait()
			for range 999 {
				go func() {
					got, err := v.Verify(t.Context(), token)
					if assert.NoError(t, err) && got.Subject() == "bob" {
						answered.Add(1)
					}
				}()
			}
			synctest.Wait()
			assert.Equal(t, 1, v.Status().InFlight)
			leave()
			synctest.Wait()
			assert.EqualValues(t, 1, left.Load())
			time.Sleep(time.Second)
			synctest.Wait()
			assert.EqualValues(t, 999, answered.Load())
			assert.Equal(t, 1, iss.Introspection.Hits())
			assert.Zero(t, v.Status().InFlight)
		})
	})
	t.Run("INTRO-31 beyond the bound a new token waits for nothing", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			iss := valetkeytest.NewIssuer(t, valetkeytest.InMemory())
			iss.Introspection.Slow(2 * time.Second)
			v := verifierOf(t, iss, func(c *introspect.Config) { c.MaxInFlight = 3 })
			tokens := []string{iss.Opaque(), iss.Opaque(), iss.Opaque()}
			for _, token := range append(tokens, tokens...) { // the second three join the first
				go func() {
					_, err := v.Verify(t.Context(), token)
					assert.NoError(t, err)
				}()
			}
			synctest.Wait()
			start := time.Now()
			_, err := v.Verify(t.Context(), iss.Opaque())
			assert.Equal(t, time.Second, failed(t, err).RetryAfter)
			assert.Zero(t, time.Since(start))
			assert.Equal(t, 3, v.Status().InFlight)
			time.Sleep(3 * time.Second)
			_, err = v.Verify(t.Context(), iss.Opaque())
			require.NoError(t, err)
			assert.Equal(t, 4, iss.Introspection.Hits())
		})
	})
	t.Run("Close ends calls in flight", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			iss := valetkeytest.NewIssuer(t, valetkeytest.InMemory())
			iss.Introspection.Slow(time.Hour)
			v := verifierOf(t, iss)
			go func() {
				_, err := v.Verify(t.Context(), iss.Opaque())
				failed(t, err)
			}()
			synctest.Wait()
			start := time.Now()
			v.Close()
			v.Close()
			assert.Zero(t, time.Since(start))
			assert.Zero(t, v.Status().Failures)
		})
	})
}

func TestRefusalsAreRemembered(t *testing.T) {
	t.Run("INTRO-27 for seconds", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			iss := valetkeytest.NewIssuer(t, valetkeytest.InMemory())
			v, token := verifierOf(t, iss), iss.Opaque(valetkeytest.NotYetValid())
			for range 10 {
				_, err := v.Verify(t.Context(), token)
				refused(t, err, "the token is not active")
			}
			assert.Equal(t, 1, iss.Introspection.Hits())
			assert.Equal(t, 1, v.Status().Refused)

			iss.Advance(time.Hour) // now it is valid
			time.Sleep(5*time.Second - 1)
			_, err := v.Verify(t.Context(), token)
			refused(t, err, "the token is not active")
			time.Sleep(time.Nanosecond)
			_, err = v.Verify(t.Context(), token)
			require.NoError(t, err)
			assert.Equal(t, 2, iss.Introspection.Hits())
		})
	})
	t.Run("the reason is remembered, too", func(t *testing.T) {
		iss := valetkeytest.NewIssuer(t)
		v, token := verifierOf(t, iss), iss.Opaque(valetkeytest.WrongAudience())
		for range 2 {
			_, err := v.Verify(t.Context(), token)
			refused(t, err, "the token is for another audience")
		}
		assert.Equal(t, 1, iss.Introspection.Hits())
	})
	t.Run("INTRO-27 never, if that is wanted", func(t *testing.T) {
		iss := valetkeytest.NewIssuer(t)
		v := verifierOf(t, iss, forgetful)
		for range 3 {
			_, err := v.Verify(t.Context(), "made-up")
			refused(t, err, "the token is not active")
		}
		assert.Equal(t, 3, iss.Introspection.Hits())
		assert.Zero(t, v.Status().Refused)
	})
	t.Run("INTRO-31 within an exact bound, the oldest goes first", func(t *testing.T) {
		iss := valetkeytest.NewIssuer(t)
		v := verifierOf(t, iss, func(c *introspect.Config) { c.NegativeTTL = time.Minute })
		for _, first := range []string{"first", "second"} {
			v.Verify(t.Context(), first)
		}
		var wg sync.WaitGroup
		for g := range 8 {
			wg.Go(func() {
				for n := range 1250 {
					v.Verify(t.Context(), fmt.Sprintf("made-up-%d-%d", g, n))
				}
			})
		}
		wg.Wait()
		require.Equal(t, 10_002, iss.Introspection.Hits())
		assert.Equal(t, 10_000, v.Status().Refused)
		v.Verify(t.Context(), "made-up-0-1249")
		assert.Equal(t, 10_002, iss.Introspection.Hits())
		for _, gone := range []string{"first", "second"} {
			v.Verify(t.Context(), gone)
		}
		assert.Equal(t, 10_004, iss.Introspection.Hits())
		assert.Equal(t, 10_000, v.Status().Refused)
	})
}

func TestPatience(t *testing.T) {
	for _, status := range []int{429, 503} {
		t.Run(fmt.Sprintf("INTRO-19 %d with Retry-After", status), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				iss := valetkeytest.NewIssuer(t, valetkeytest.InMemory())
				v := verifierOf(t, iss)
				iss.Introspection.Fail(status, "Retry-After: 7").Times(1)
				_, err := v.Verify(t.Context(), iss.Opaque())
				assert.Equal(t, 7*time.Second, failed(t, err).RetryAfter)
				time.Sleep(4 * time.Second)
				_, err = v.Verify(t.Context(), iss.Opaque())
				assert.Equal(t, 3*time.Second, failed(t, err).RetryAfter)
				assert.Equal(t, 1, iss.Introspection.Hits())
				assert.Equal(t, 3*time.Second, time.Until(v.Status().RetryAt))
				time.Sleep(3 * time.Second)
				_, err = v.Verify(t.Context(), iss.Opaque())
				require.NoError(t, err)
				assert.True(t, v.Status().RetryAt.IsZero())
			})
		})
	}
	t.Run("INTRO-19 a date, and no more than 5 minutes", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			iss := valetkeytest.NewIssuer(t, valetkeytest.InMemory())
			v := verifierOf(t, iss)
			iss.Introspection.Fail(503, "Retry-After: "+time.Now().Add(time.Minute).UTC().Format(http.TimeFormat)).Times(1)
			_, err := v.Verify(t.Context(), iss.Opaque())
			assert.Equal(t, time.Minute, failed(t, err).RetryAfter)
			time.Sleep(time.Minute)
			iss.Introspection.Fail(503, "Retry-After: 99999999999").Times(1)
			_, err = v.Verify(t.Context(), iss.Opaque())
			assert.Equal(t, 5*time.Minute, failed(t, err).RetryAfter)
		})
	})
	t.Run("other responses in flight count only if they ask for more patience", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			iss := valetkeytest.NewIssuer(t, valetkeytest.InMemory())
			v := verifierOf(t, iss)
			var n atomic.Int32
			iss.Introspection.Serve(func(w http.ResponseWriter, r *http.Request) {
				i := n.Add(1)
				time.Sleep(time.Duration(i) * time.Second)
				w.Header().Set("Retry-After", []string{"10", "1", "60"}[i-1])
				w.WriteHeader(503)
			})
			for range 3 {
				go func() { v.Verify(t.Context(), iss.Opaque()) }()
				synctest.Wait()
			}
			time.Sleep(2 * time.Second)
			synctest.Wait()
			assert.Equal(t, 9*time.Second, time.Until(v.Status().RetryAt))
			time.Sleep(time.Second)
			synctest.Wait()
			assert.Equal(t, 60*time.Second, time.Until(v.Status().RetryAt))
			assert.Equal(t, 1, v.Status().Failures)
		})
	})
}

func TestBreaker(t *testing.T) {
	t.Run("a late success of before does not end the patience asked for since", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			iss := valetkeytest.NewIssuer(t, valetkeytest.InMemory())
			v := verifierOf(t, iss)
			iss.Introspection.Slow(2 * time.Second)
			go func() {
				_, err := v.Verify(t.Context(), iss.Opaque())
				assert.NoError(t, err)
			}()
			synctest.Wait()
			iss.Introspection.Slow(0)
			iss.Introspection.Fail(503, "Retry-After: 10").Times(1)
			_, err := v.Verify(t.Context(), iss.Opaque())
			failed(t, err)
			time.Sleep(3 * time.Second)
			_, err = v.Verify(t.Context(), iss.Opaque())
			assert.Equal(t, 7*time.Second, failed(t, err).RetryAfter)
			assert.ErrorContains(t, err, "status 503")
			failed(t, v.Ready(t.Context()))
			assert.Equal(t, 2, iss.Introspection.Hits())
		})
	})
	t.Run("five failures, then a probe now and then, until one succeeds", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			iss := valetkeytest.NewIssuer(t, valetkeytest.InMemory())
			var log journal
			v := verifierOf(t, iss, func(c *introspect.Config) { c.Logger = slog.New(&log) })
			iss.Introspection.Fail(500)
			for range 5 {
				_, err := v.Verify(t.Context(), iss.Opaque())
				failed(t, err)
			}
			for probes, most := 0, time.Second; probes < 10; probes, most = probes+1, min(time.Minute, 2*most) {
				_, err := v.Verify(t.Context(), iss.Opaque())
				wait := failed(t, err).RetryAfter
				assert.LessOrEqual(t, wait, most)
				assert.GreaterOrEqual(t, wait, most/5*4)
				require.Equal(t, 5+probes, iss.Introspection.Hits(), "the endpoint is not asked")
				time.Sleep(wait)

				iss.Introspection.Slow(500 * time.Millisecond)
				for range 10 { // and only one of them asks
					go func() {
						_, err := v.Verify(t.Context(), iss.Opaque())
						failed(t, err)
					}()
				}
				synctest.Wait()
				assert.Equal(t, 1, v.Status().InFlight)
				time.Sleep(500 * time.Millisecond)
				synctest.Wait()
			}
			assert.Equal(t, 11, log.count("WARN introspection: the endpoint is not asked for now"))

			iss.Introspection.Restore()
			time.Sleep(time.Minute)
			for range 3 {
				_, err := v.Verify(t.Context(), iss.Opaque())
				require.NoError(t, err)
			}
			assert.Equal(t, 1, log.count("INFO introspection: the endpoint answers again"))
			assert.Equal(t, introspect.Status{URL: iss.Introspection.URL, LastCall: v.Status().LastCall}, v.Status())
		})
	})
	t.Run("many failures at the same time count as few", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			iss := valetkeytest.NewIssuer(t, valetkeytest.InMemory())
			v := verifierOf(t, iss)
			iss.Introspection.Slow(time.Second)
			iss.Introspection.Down()
			for range 60 {
				go func() { v.Verify(t.Context(), iss.Opaque()) }()
			}
			time.Sleep(time.Second)
			synctest.Wait()
			assert.Equal(t, 60, iss.Introspection.Hits())
			assert.Equal(t, 5, v.Status().Failures)
			assert.LessOrEqual(t, time.Until(v.Status().RetryAt), time.Second)
		})
	})
	t.Run("an hour's outage costs a call a minute", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			iss := valetkeytest.NewIssuer(t, valetkeytest.InMemory())
			v := verifierOf(t, iss)
			iss.Introspection.Down()
			for range 36_000 {
				_, err := v.Verify(t.Context(), "opaque")
				failed(t, err)
				time.Sleep(100 * time.Millisecond)
			}
			assert.Less(t, iss.Introspection.Hits(), 5+6+3600/48+1)
			assert.Greater(t, iss.Introspection.Hits(), 60)
		})
	})
	t.Run("a token that upsets the endpoint does not keep others from asking", func(t *testing.T) {
		iss := valetkeytest.NewIssuer(t)
		v := verifierOf(t, iss)
		iss.Introspection.Fail(400)
		for range 20 {
			_, err := v.Verify(t.Context(), "upsetting")
			failed(t, err)
		}
		assert.Equal(t, 5, iss.Introspection.Hits())
		iss.Introspection.Restore()
		_, err := v.Verify(t.Context(), iss.Opaque())
		require.NoError(t, err)
	})
	t.Run("an endpoint that has moved is discovered again", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			iss := valetkeytest.NewIssuer(t, valetkeytest.InMemory())
			v := verifierOf(t, iss, func(c *introspect.Config) { c.URL = "" })
			iss.Metadata.Answer(fmt.Sprintf(`{"issuer":%q,"introspection_endpoint":"%s/old"}`, iss.URL, iss.URL))
			for range 5 {
				_, err := v.Verify(t.Context(), iss.Opaque())
				assert.ErrorContains(t, err, "status 404")
			}
			iss.Metadata.Restore()
			time.Sleep(time.Second)
			_, err := v.Verify(t.Context(), iss.Opaque())
			require.NoError(t, err)
			assert.Equal(t, 2, iss.Metadata.Hits())
		})
	})
	t.Run("tokens that fail again and again do not have it discovered for each of them", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			iss := valetkeytest.NewIssuer(t, valetkeytest.InMemory())
			v := verifierOf(t, iss, func(c *introspect.Config) { c.URL = "" })
			iss.Introspection.Fail(404)
			for range 60 {
				for i := range 4 { // one fewer than open the breaker
					_, err := v.Verify(t.Context(), fmt.Sprint("token", i))
					failed(t, err)
				}
				time.Sleep(time.Second)
			}
			assert.LessOrEqual(t, iss.Metadata.Hits(), 1+60/15)
			assert.Greater(t, iss.Metadata.Hits(), 2)
		})
	})
}
