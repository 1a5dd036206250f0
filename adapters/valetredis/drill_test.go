package valetredis_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/adapters/valetredis"
	"github.com/valetkey/valetkey/dpop"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/valetkeytest"
)

const (
	drillTime    = 5 * time.Minute            // limit of a drill
	drillSteps   = 40                         // accepted proofs, and confirmed revocations, before and after each event
	drillClients = 3                          // that send proofs
	drillURL     = "https://api.example.com/" // of both guards
)

// A drill sends requests to two guards and publishes revocations while servers of Redis fail, and keeps account of what must not be
// forgotten: each proof that was accepted, and each revocation that Redis has confirmed.
type drill struct {
	t     *testing.T
	ctx   context.Context
	iss   *valetkeytest.Issuer
	dial  func() redis.UniversalClient
	key   []byte
	a, b  *replica
	calm  string // a token that is never revoked
	posts *valetredis.Redis

	accepted, confirmed         atomic.Int64 // proofs and revocations
	unknown, unpublished, loads atomic.Int64 // 503 to proofs, errors of Publish, and other requests

	mu      sync.Mutex
	proofs  []*sent
	revoked []string // tokens
}

// A sent is a proof and how often it was accepted.
type sent struct {
	token, proof string
	times        atomic.Int64
}

func newDrill(t *testing.T, dial func() redis.UniversalClient) *drill {
	ctx, cancel := context.WithTimeout(t.Context(), drillTime)
	t.Cleanup(cancel)
	d := &drill{t: t, ctx: ctx, iss: valetkeytest.NewIssuer(t), dial: dial, key: randomKey()}
	d.calm = d.iss.Token()
	d.a, d.b = d.guard(), d.guard()
	d.posts = d.shared()
	return d
}

func (d *drill) shared() *valetredis.Redis {
	client := d.dial()
	d.t.Cleanup(func() { client.Close() })
	// The rest of 50 ms, the default, is for a slow machine.
	r, _ := newRedis(d.t, client, d.key, func(cfg *valetredis.Config) { cfg.Timeout = time.Second; d.require(cfg) })
	return r
}

// require asks for the confirmation of all replicas.
func (d *drill) require(cfg *valetredis.Config) {
	if _, ok := cfg.Client.(*redis.Client); ok {
		cfg.MinReplicas = 2
	}
}

// guard starts a guard and returns when it has caught up.
func (d *drill) guard() *replica {
	t, quiet := d.t, slog.New(slog.DiscardHandler)
	shared := d.shared()
	keys, err := jwks.New(jwks.Config{Issuer: d.iss.URL, Audience: []string{valetkeytest.DefaultAudience}, Client: d.iss.Client(), Logger: quiet})
	require.NoError(t, err)
	t.Cleanup(keys.Close)
	require.NoError(t, keys.Ready(t.Context()))
	proofs, err := dpop.New(dpop.Config{ReplayStore: shared, Window: 10 * time.Minute}) // so that no proof is refused for its age
	require.NoError(t, err)
	guard, err := middleware.New(middleware.Config{
		Verifier: keys, DPoP: proofs, Revocations: middleware.Revocations{Source: shared}, Logger: quiet,
		URL: func(*http.Request) string { return drillURL },
	})
	require.NoError(t, err)
	ctx, stop := context.WithCancel(context.Background())
	var watching sync.WaitGroup
	watching.Go(func() { assert.ErrorIs(t, guard.Watch(ctx), context.Canceled) })
	t.Cleanup(func() { stop(); watching.Wait() })
	eventually(t, "it has caught up", func() bool { return guard.Status().Revocations.Source.State == valetkey.Ready })
	api := httptest.NewServer(guard.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusNoContent)
	})))
	t.Cleanup(api.Close)
	return &replica{t: t, redis: shared, api: api}
}

// send sends a proof to a guard.
func (d *drill) send(to *replica, s *sent) (status int) {
	r, err := http.NewRequestWithContext(context.WithoutCancel(d.ctx), "GET", to.api.URL, nil)
	if !assert.NoError(d.t, err) {
		return 0
	}
	r.Header.Set("Authorization", "DPoP "+s.token)
	r.Header.Set("DPoP", s.proof)
	res, err := to.api.Client().Do(r)
	if !assert.NoError(d.t, err) {
		return 0
	}
	res.Body.Close()
	switch res.StatusCode {
	case http.StatusNoContent:
		s.times.Add(1)
	case http.StatusServiceUnavailable:
		d.unknown.Add(1)
		assert.NotEmpty(d.t, res.Header.Get("Retry-After"))
	default:
		assert.Equal(d.t, http.StatusUnauthorized, res.StatusCode)
	}
	return res.StatusCode
}

// prove sends each of its proofs to both guards at once, and then again.
func (d *drill) prove(stop <-chan struct{}) {
	key := d.iss.ProofKey("ES256")
	token := d.iss.Token(valetkeytest.BoundTo(key))
	for !closed(stop) {
		s := &sent{token: token, proof: key.Proof("GET", drillURL, token)}
		var both sync.WaitGroup
		both.Go(func() { d.send(d.a, s) })
		both.Go(func() { d.send(d.b, s) })
		both.Wait()
		d.send(d.a, s)
		d.mu.Lock()
		d.proofs = append(d.proofs, s)
		d.mu.Unlock()
		d.accepted.Add(s.times.Load())
	}
}

// revoke publishes revocations, each until it is confirmed, as publishers must.
func (d *drill) revoke(stop <-chan struct{}) {
	for n := 0; !closed(stop); n++ {
		id := fmt.Sprint("token ", n)
		raw := d.iss.Token(named(id)...)
		for !closed(stop) {
			if err := d.posts.Publish(d.ctx, valetkey.Revocation{Issuer: d.iss.URL, ID: id}); err != nil {
				d.unpublished.Add(1)
				continue
			}
			d.mu.Lock()
			d.revoked = append(d.revoked, raw)
			d.mu.Unlock()
			d.confirmed.Add(1)
			break
		}
	}
}

// read requires that a token is served at all times, and that one that was refused as revoked is refused from then on.
func (d *drill) read(stop <-chan struct{}) {
	refused := map[*replica]string{}
	for !closed(stop) {
		for _, at := range []*replica{d.a, d.b} {
			assert.True(d.t, at.serves(d.calm), "a token that is not revoked is served without redis")
			if refused[at] != "" {
				assert.True(d.t, at.refuses(refused[at]), "a revocation is for good")
			}
			d.mu.Lock()
			last := d.calm
			if len(d.revoked) > 0 {
				last = d.revoked[len(d.revoked)-1]
			}
			d.mu.Unlock()
			if last != d.calm && at.refuses(last) {
				refused[at] = last
			}
		}
		d.loads.Add(1)
	}
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// run makes the events happen under load, one after the other, and checks the account at the end.
func (d *drill) run(events ...func()) {
	t := d.t
	t.Helper()
	stop := make(chan struct{})
	var load sync.WaitGroup
	for range drillClients {
		load.Go(func() { d.prove(stop) })
	}
	load.Go(func() { d.revoke(stop) })
	load.Go(func() { d.read(stop) })
	finish := sync.OnceFunc(func() { close(stop); load.Wait() })
	defer finish()
	for _, event := range append(events, nil) {
		accepted, confirmed := d.accepted.Load(), d.confirmed.Load()
		require.Eventually(t, func() bool {
			return d.accepted.Load() >= accepted+drillSteps && d.confirmed.Load() >= confirmed+drillSteps
		}, drillTime/2, 5*time.Millisecond, "all goes on")
		if event != nil {
			event()
		}
	}
	finish()

	for _, s := range d.proofs {
		require.LessOrEqual(t, s.times.Load(), int64(1), "a proof was accepted twice")
		for _, at := range []*replica{d.a, d.b} {
			used, status := s.times.Load() == 1, 0
			eventually(t, "redis answers", func() bool { status = d.send(at, s); return status != http.StatusServiceUnavailable })
			if status != http.StatusUnauthorized {
				require.False(t, used, "a proof that was accepted is used")
			}
		}
		require.LessOrEqual(t, s.times.Load(), int64(1), "a proof was accepted twice")
	}
	late := d.guard()
	for _, raw := range d.revoked {
		require.True(t, late.refuses(raw), "a guard that starts now knows all revocations")
		eventually(t, "a guard knows all revocations", func() bool { return d.a.refuses(raw) && d.b.refuses(raw) })
	}
	require.True(t, late.serves(d.calm))
	t.Logf("%d proofs, %d accepted; %d revocations; meanwhile 503 to %d proofs, %d errors of Publish, %d rounds of other requests",
		len(d.proofs), d.accepted.Load(), len(d.revoked), d.unknown.Load(), d.unpublished.Load(), d.loads.Load())
}
