package faults_test

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/introspect"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/valetkeytest"
)

// guarded returns an issuer within the bubble, and a guard that asks it about opaque tokens.
func guarded(t *testing.T) (*valetkeytest.Issuer, *middleware.Guard, http.Handler) {
	t.Helper()
	iss := valetkeytest.NewIssuer(t, valetkeytest.InMemory())
	asks, err := introspect.New(introspect.Config{
		Issuer: iss.URL, Audience: []string{valetkeytest.DefaultAudience},
		Auth:   introspect.BasicAuth(valetkeytest.IntrospectionID, valetkeytest.IntrospectionSecret),
		Client: iss.Client(), Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	t.Cleanup(asks.Close)
	guard, err := middleware.New(middleware.Config{Verifier: asks, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	return iss, guard, guard.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
}

func status(api http.Handler, raw string) int {
	w := httptest.NewRecorder()
	api.ServeHTTP(w, valetkeytest.Request("GET", "/", raw))
	return w.Code
}

// An hour of traffic with twenty tokens, each sent every 2 s or so. Half of them are revoked, each at a random moment.
func TestRevocation(t *testing.T) {
	const (
		cacheFor = 30 * time.Second // introspect.Config.CacheTTL, unless configured
		tokens   = 20
		slow     = 20 * time.Millisecond // an answer of the issuer, so that a revocation can fall into a question
		pause    = 4 * time.Second       // between two requests with one token, at most
	)
	for _, c := range []struct {
		name   string
		bound  time.Duration // after the revocation a request that begins then may still be accepted
		revoke func(iss *valetkeytest.Issuer, g *middleware.Guard, raw, id string) error
	}{
		{"at the issuer, a token is refused once no answer from before is relied on", cacheFor,
			func(iss *valetkeytest.Issuer, _ *middleware.Guard, raw, _ string) error { iss.Revoke(raw); return nil }},
		{"at the guard, a token is refused at once, though the issuer calls it active", 0,
			func(iss *valetkeytest.Issuer, g *middleware.Guard, _, id string) error {
				return g.Revoke(valetkey.Revocation{Issuer: iss.URL, ID: id})
			}},
	} {
		t.Run(c.name, func(t *testing.T) {
			seed := rand.Uint64()
			t.Logf("seed %d", seed) // shown if the test fails; put it in place of rand.Uint64 to repeat
			synctest.Test(t, func(t *testing.T) {
				iss, guard, api := guarded(t)
				iss.Introspection.Slow(slow)
				begin := time.Now()
				// The last request that was accepted, and refused, and the revocation.
				var accepted, refused, revoked [tokens]time.Time
				var all sync.WaitGroup
				for i := range tokens {
					id, dice := fmt.Sprint("id", i), rand.New(rand.NewPCG(seed, uint64(i)))
					raw := iss.Opaque(valetkeytest.Claim("jti", id), valetkeytest.ExpiresIn(2*time.Hour))
					at := time.Minute + time.Duration(dice.Int64N(int64(58*time.Minute))) // with traffic on both sides
					all.Go(func() {
						for time.Since(begin) < time.Hour {
							time.Sleep(time.Duration(dice.Int64N(int64(pause))))
							sent := time.Now()
							switch code := status(api, raw); code {
							case http.StatusOK:
								accepted[i] = sent
							case http.StatusUnauthorized:
								refused[i] = sent
							default:
								t.Errorf("token %d got %d", i, code)
							}
						}
					})
					if i%2 == 0 {
						all.Go(func() {
							time.Sleep(at)
							revoked[i] = time.Now()
							assert.NoError(t, c.revoke(iss, guard, raw, id))
						})
					}
				}
				all.Wait()
				for i := range tokens {
					last := accepted[i]
					if revoked[i].IsZero() {
						assert.Zero(t, refused[i], "token %d was never revoked", i)
						assert.Greater(t, last.Sub(begin), time.Hour-2*pause, "token %d was accepted to the end", i)
						continue
					}
					assert.LessOrEqual(t, last.Sub(revoked[i]), c.bound, "token %d, revoked after %v", i, revoked[i].Sub(begin))
					assert.Greater(t, last.Sub(revoked[i]), -2*pause, "token %d was in use when it was revoked", i)
					assert.Greater(t, refused[i].Sub(begin), time.Hour-2*pause, "token %d was refused to the end", i)
				}
			})
		})
	}
}

func TestSimultaneous(t *testing.T) {
	for _, c := range []struct {
		name  string
		token func(*valetkeytest.Issuer) string
		want  int
	}{
		{"1,000 requests with one made-up token are one question", func(*valetkeytest.Issuer) string { return "made-up" }, 401},
		{"1,000 requests with one good token are one question", func(iss *valetkeytest.Issuer) string { return iss.Opaque() }, 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				iss, _, api := guarded(t)
				iss.Introspection.Slow(time.Second)
				raw := c.token(iss)
				begun := time.Now()
				codes := make([]int, 1000)
				var clients sync.WaitGroup
				for i := range codes {
					clients.Go(func() { codes[i] = status(api, raw) })
				}
				clients.Wait()
				for i, code := range codes {
					require.Equal(t, c.want, code, "request %d", i)
				}
				assert.Equal(t, 1, iss.Introspection.Hits())
				assert.Equal(t, time.Second, time.Since(begun), "they waited for the same answer")
			})
		})
	}
}
