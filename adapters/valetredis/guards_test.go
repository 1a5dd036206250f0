package valetredis_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/adapters/valetredis"
	"github.com/valetkey/valetkey/introspect"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/valetkeytest"
)

const (
	// told is how long a revocation may take to the other guard.
	told = time.Second

	// patience is how long the client waits for redis without our deadlines, and bound is how long a request may take while redis
	// is gone: 50 ms for redis, and the rest for a machine with other things to do.
	patience = 2 * time.Minute
	bound    = time.Minute

	clients = 4 // of a replica, at a time
)

// A replica is one of the servers of an API. It accepts JWTs and opaque tokens, and shares data through Redis.
type replica struct {
	t     *testing.T
	redis *valetredis.Redis
	line  *cable // to redis
	api   *httptest.Server
}

func startReplica(t *testing.T, iss *valetkeytest.Issuer, s *server, key []byte) *replica {
	t.Helper()
	quiet, audience := slog.New(slog.DiscardHandler), []string{valetkeytest.DefaultAudience}
	line := new(cable)
	client := redis.NewClient(&redis.Options{Addr: s.addr, Dialer: line.dial, ContextTimeoutEnabled: true, ReadTimeout: patience})
	t.Cleanup(func() { client.Close() })
	shared, _ := newRedis(t, client, key, func(cfg *valetredis.Config) { cfg.Timeout = 0 })
	keys, err := jwks.New(jwks.Config{Issuer: iss.URL, Audience: audience, Client: iss.Client(), Now: iss.Now, Logger: quiet})
	require.NoError(t, err)
	t.Cleanup(keys.Close)
	require.NoError(t, keys.Ready(t.Context())) // a request would wait for two seconds only
	asks, err := introspect.New(introspect.Config{
		Issuer: iss.URL, Audience: audience,
		Auth:        introspect.BasicAuth(valetkeytest.IntrospectionID, valetkeytest.IntrospectionSecret),
		SharedCache: shared, Client: iss.Client(), Now: iss.Now, Logger: quiet,
	})
	require.NoError(t, err)
	t.Cleanup(asks.Close)
	guard, err := middleware.New(middleware.Config{
		Verifier: valetkey.First(keys, asks), Revocations: middleware.Revocations{Source: shared}, Now: iss.Now, Logger: quiet,
	})
	require.NoError(t, err)

	ctx, stop := context.WithCancel(context.Background())
	var following sync.WaitGroup
	following.Go(func() { assert.ErrorIs(t, guard.Watch(ctx), context.Canceled) })
	t.Cleanup(func() { stop(); following.Wait() })

	eventually(t, "it has caught up", func() bool { return guard.Status().Revocations.Source.State == valetkey.Ready })
	api := httptest.NewServer(guard.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusNoContent)
	})))
	t.Cleanup(api.Close)
	api.Client().Transport.(*http.Transport).MaxIdleConnsPerHost = clients
	return &replica{t, shared, line, api}
}

// get returns the response to a client with the token.
func (r *replica) get(raw string) (status int, header http.Header) {
	req, err := http.NewRequest("GET", r.api.URL, nil)
	if !assert.NoError(r.t, err) {
		return 0, nil
	}
	req.Header.Set("Authorization", "Bearer "+raw)
	res, err := r.api.Client().Do(req)
	if !assert.NoError(r.t, err) {
		return 0, nil
	}
	res.Body.Close()
	return res.StatusCode, res.Header
}

func (r *replica) serves(raws ...string) bool {
	return !slices.ContainsFunc(raws, func(raw string) bool { status, _ := r.get(raw); return status != http.StatusNoContent })
}

func (r *replica) refuses(raws ...string) bool {
	return !slices.ContainsFunc(raws, func(raw string) bool { status, _ := r.get(raw); return status != http.StatusUnauthorized })
}

// A pair is two replicas, one issuer and one redis.
type pair struct {
	iss   *valetkeytest.Issuer
	redis *server
	a, b  *replica
}

func startPair(t *testing.T) *pair {
	s, key := startServer(t), randomKey()
	iss := valetkeytest.NewIssuer(t)
	return &pair{iss, s, startReplica(t, iss, s, key), startReplica(t, iss, s, key)}
}

// shared returns an opaque token that a has asked about and b serves without. An answer that redis does not take within
// 50 ms is not shared, which may be the machine's doing, and after an error a replica leaves redis alone for a second, so it
// tries until then.
func (p *pair) shared(t *testing.T, opts ...valetkeytest.Option) string {
	t.Helper()
	raw, ctx := p.redis.raw(), t.Context()
	for end := time.Now().Add(soon); time.Now().Before(end); {
		token, kept, asked := p.iss.Opaque(opts...), raw.DBSize(ctx).Val(), p.iss.Introspection.Hits()
		require.True(t, p.a.serves(token))
		require.Equal(t, asked+1, p.iss.Introspection.Hits())
		for begun := time.Now(); raw.DBSize(ctx).Val() == kept && time.Since(begun) < time.Second; {
			time.Sleep(time.Millisecond)
		}
		require.True(t, p.b.serves(token))
		if p.iss.Introspection.Hits() == asked+1 {
			return token
		}
	}
	require.Fail(t, "nothing is shared")
	return ""
}

// revoke publishes at from, with another try if redis does not take it in time, and returns how long it took from there
// until both replicas refuse all the tokens as revoked.
func (p *pair) revoke(t *testing.T, from *replica, revoked valetkey.Revocation, raws ...string) time.Duration {
	t.Helper()
	revoked.Issuer = p.iss.URL
	begun, end := time.Now(), time.Now().Add(soon)
	for from.redis.Publish(t.Context(), revoked) != nil {
		require.True(t, time.Now().Before(end), "redis takes no revocation")
		time.Sleep(time.Millisecond)
		begun = time.Now()
	}
	for !p.a.refuses(raws...) || !p.b.refuses(raws...) {
		require.True(t, time.Now().Before(end), "a revoked token is served")
	}
	took := time.Since(begun)
	for _, raw := range raws {
		for _, r := range []*replica{p.a, p.b} {
			_, header := r.get(raw)
			require.Equal(t, "the token has been revoked", valetkeytest.Challenge(t, header, "Bearer")["error_description"])
		}
	}
	return took
}

// revokeSoon revokes tokens at from until one is refused at both within a second. The machine may be slow with some of them.
func (p *pair) revokeSoon(t *testing.T, from *replica) {
	t.Helper()
	for n := range 10 {
		next := fmt.Sprint("next ", n)
		raw := p.jwt(t, next)
		require.True(t, p.a.serves(raw) && p.b.serves(raw))
		if p.revoke(t, from, byID(next), raw) < told {
			return
		}
	}
	require.Fail(t, "a revocation takes a second and more")
}

// named makes a token that can be revoked by its id and by its subject, which are the same.
func named(name string) []valetkeytest.Option {
	return []valetkeytest.Option{valetkeytest.Claim("jti", name), valetkeytest.Subject(name)}
}

func TestTwoGuards(t *testing.T) {
	p := startPair(t)
	a, b := p.a, p.b
	t.Run("a token that no issuer vouches for is refused at both", func(t *testing.T) {
		for _, raw := range []string{"made-up", p.iss.Token(valetkeytest.UnknownKey()), p.iss.Opaque(valetkeytest.WrongAudience())} {
			require.True(t, a.refuses(raw) && b.refuses(raw))
		}
	})
	t.Run("an opaque token asked about at one is served at the other without another call of the issuer", func(t *testing.T) {
		p.shared(t)
	})

	bystanders := []string{p.iss.Token(), p.shared(t)}
	var times []time.Duration
	for _, c := range []struct {
		name  string
		token func(t *testing.T, name string) string
		what  func(name string) valetkey.Revocation
	}{
		{"a JWT by its id", p.jwt, byID},
		{"a JWT by its subject", p.jwt, bySubject},
		{"an opaque token by its id", p.opaque, byID},
		{"an opaque token by its subject", p.opaque, bySubject},
	} {
		for where, from := range map[string]*replica{"one": a, "the other": b} {
			t.Run("revoked at "+where+" it is refused at both, though it verifies: "+c.name, func(t *testing.T) {
				raw := c.token(t, t.Name())
				require.True(t, a.serves(raw) && b.serves(raw), "both remember it")
				took := p.revoke(t, from, c.what(t.Name()), raw)
				t.Logf("refused at both %v after Publish was called", took)
				times = append(times, took)
				assert.True(t, a.serves(bystanders...) && b.serves(bystanders...), "the others are served")
			})
		}
	}
	t.Run("the fastest of them is refused within a second", func(t *testing.T) { // the others may have waited for the machine
		assert.Less(t, slices.Min(times), told)
	})
	t.Run("all tokens of a subject are refused, and those issued later by the issuer's clock are served at once", func(t *testing.T) {
		raws := []string{p.jwt(t, "bob"), p.opaque(t, "bob"), p.jwt(t, "bob")} // the last one is new to both
		require.True(t, a.serves(raws[:2]...) && b.serves(raws[:2]...))
		everywhere := bySubject("bob")
		everywhere.Before = p.iss.Now().Add(time.Second)
		p.revoke(t, a, everywhere, raws...)
		later := append(named("bob"), valetkeytest.Claim("iat", p.iss.Now().Add(2*time.Second).Unix()))
		raws = []string{p.iss.Token(later...), p.shared(t, later...)}
		assert.True(t, a.serves(raws...) && b.serves(raws...))
	})
	t.Run("INTRO-36 revoked at the issuer alone it is served at both until 30 s after the question, or until it is revoked here", func(t *testing.T) {
		unnoticed, token, subject := p.opaque(t, "unnoticed"), p.opaque(t, "token"), p.opaque(t, "subject")
		for _, raw := range []string{unnoticed, token, subject} {
			p.iss.Revoke(raw)
			require.True(t, a.serves(raw) && b.serves(raw), "both remember it")
		}
		p.revoke(t, a, byID("token"), token)
		p.revoke(t, b, bySubject("subject"), subject)
		require.True(t, a.serves(unnoticed) && b.serves(unnoticed))
		p.iss.Advance(30 * time.Second)
		require.True(t, a.refuses(unnoticed) && b.refuses(unnoticed), "not from memory, and not from what is shared")
	})
}

func (p *pair) jwt(t *testing.T, name string) string { t.Helper(); return p.iss.Token(named(name)...) }

func (p *pair) opaque(t *testing.T, name string) string {
	t.Helper()
	return p.shared(t, named(name)...)
}

func byID(name string) valetkey.Revocation      { return valetkey.Revocation{ID: name} }
func bySubject(name string) valetkey.Revocation { return valetkey.Revocation{Subject: name} }

func TestTwoGuardsWithoutRedis(t *testing.T) {
	for _, c := range []struct {
		name    string
		instead func(t *testing.T, addr string) // of redis
	}{
		{"redis is killed", func(*testing.T, string) {}},
		{"redis is killed, and what is in its place never answers", func(t *testing.T, addr string) { startSilent(t, addr) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := startPair(t)
			jwt, opaque := p.iss.Token(), p.shared(t)
			require.True(t, p.a.serves(jwt, opaque) && p.b.serves(jwt, opaque))
			revoked := []string{p.jwt(t, "revoked"), p.opaque(t, "revoked")}
			p.revoke(t, p.a, bySubject("revoked"), revoked...)

			t.Run("both serve JWTs, and opaque tokens that they ask about themselves, in bounded time", func(t *testing.T) {
				p.redis.kill()
				c.instead(t, p.redis.addr)
				slowest := make(chan time.Duration, 2*clients)
				var all sync.WaitGroup
				for _, r := range []*replica{p.a, p.b} {
					for range clients {
						all.Go(func() { slowest <- r.traffic(p, jwt, opaque, revoked) })
					}
				}
				all.Wait()
				close(slowest)
				var most time.Duration
				for each := range slowest {
					most = max(most, each)
				}
				t.Logf("the slowest request took %v", most)
				assert.Less(t, most, bound)

				own, asked := p.iss.Opaque(), p.iss.Introspection.Hits()
				require.True(t, p.a.serves(own) && p.b.serves(own))
				assert.Equal(t, asked+2, p.iss.Introspection.Hits(), "each asks for itself")
				require.Error(t, p.a.redis.Publish(t.Context(), valetkey.Revocation{Issuer: p.iss.URL, ID: "lost"}), "the caller gets an error")
			})
			p.redis.start() // empty
			t.Run("redis is back: a revocation published right after is applied at both", func(t *testing.T) {
				begun := time.Now()
				raws := []string{p.jwt(t, "back"), p.iss.Opaque(named("back")...)}
				require.True(t, p.a.serves(raws...) && p.b.serves(raws...))
				took := p.revoke(t, p.a, bySubject("back"), raws...)
				t.Logf("refused at both %v after Publish was called, and %v after redis was back", took, time.Since(begun))
				p.revokeSoon(t, p.b) // from then on within a second again
			})
			t.Run("redis is back: answers are shared again", func(t *testing.T) {
				begun := time.Now()
				p.shared(t)
				t.Logf("shared %v later", time.Since(begun))
				for _, r := range []*replica{p.a, p.b} {
					answers, revocations := r.redis.Health()[0], r.redis.Health()[1]
					assert.Equal(t, valetkey.Ready, answers.State)
					assert.Equal(t, valetkey.Degraded, revocations.State, "those published while it was gone may be lost")
					assert.ErrorContains(t, revocations.Err, "redis has lost revocations")
				}
			})
			t.Run("redis is back without what it held: what was revoked before stays refused where it was", func(t *testing.T) {
				assert.True(t, p.a.refuses(revoked...) && p.b.refuses(revoked...))
			})
		})
	}
}

// traffic sends tokens of all kinds until r reports that redis is gone for answers as for revocations. It returns how long
// the slowest request took.
func (r *replica) traffic(p *pair, jwt, opaque string, revoked []string) (slowest time.Duration) {
	gone := func() bool {
		return !slices.ContainsFunc(r.redis.Health(), func(h valetkey.Health) bool { return h.State == valetkey.Ready })
	}
	for end := time.Now().Add(soon); !gone(); {
		if !assert.True(r.t, time.Now().Before(end), "redis is gone, and no guard reports it") {
			break
		}
		for _, c := range []struct {
			name, raw string
			want      int
		}{
			{"a made-up token", "made-up", 401},
			{"a forged JWT", p.iss.Token(valetkeytest.TamperedSignature()), 401},
			{"a JWT revoked before", revoked[0], 401},
			{"an opaque token revoked before", revoked[1], 401},
			{"a remembered JWT", jwt, 204},
			{"a new JWT", p.iss.Token(), 204},
			{"a remembered opaque token", opaque, 204},
			{"a new opaque token", p.iss.Opaque(), 204},
		} {
			begun := time.Now()
			status, _ := r.get(c.raw)
			slowest = max(slowest, time.Since(begun))
			assert.Equal(r.t, c.want, status, c.name)
		}
	}
	return slowest
}

func TestOneGuardCutOff(t *testing.T) {
	p := startPair(t)
	cutOff := p.b
	first := p.jwt(t, "first")
	require.True(t, p.a.serves(first) && cutOff.serves(first))
	p.revoke(t, p.a, byID("first"), first) // so both follow
	follows := func() valetkey.State { return cutOff.redis.Health()[1].State }

	raws := []string{p.jwt(t, "1"), p.opaque(t, "2"), p.jwt(t, "3"), p.opaque(t, "3")}
	require.True(t, p.a.serves(raws...) && cutOff.serves(raws...))

	cutOff.line.cut()
	eventually(t, "it is known", func() bool { return follows() == valetkey.Degraded })
	for _, revoked := range []valetkey.Revocation{byID("1"), byID("2"), bySubject("3")} {
		revoked.Issuer = p.iss.URL
		eventually(t, "publish", func() bool { return p.a.redis.Publish(context.Background(), revoked) == nil })
	}
	eventually(t, "the one that hears of it refuses them", func() bool { return p.a.refuses(raws...) })
	assert.True(t, cutOff.serves(raws...), "the cable is cut")
	assert.True(t, cutOff.serves(p.iss.Token(), p.iss.Opaque()), "and new ones are served")

	cutOff.line.mend()
	begun := time.Now()
	eventually(t, "it catches up", func() bool { return cutOff.refuses(raws...) })
	t.Logf("all are refused %v after the cable is mended", time.Since(begun))
	eventually(t, "it has caught up", func() bool { return follows() == valetkey.Ready })
	p.revokeSoon(t, cutOff)
}
