package transmitter_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/authserver/internal/clients"
	"github.com/valetkey/valetkey/authserver/internal/endings"
	"github.com/valetkey/valetkey/authserver/internal/keys"
	"github.com/valetkey/valetkey/authserver/internal/transmitter"
	"github.com/valetkey/valetkey/authserver/login"
	"github.com/valetkey/valetkey/authserver/store"
	"github.com/valetkey/valetkey/internal/jose"
)

const issuer = "https://as.example.com"

// An engine accepts every token as one of the client of that name. Package engine is tested with the server.
type engine struct{}

func (engine) Claims(_ context.Context, token string) (map[string]any, error) {
	return map[string]any{"aud": issuer + "/ssf", "sub": token, "client_id": token, "scope": "ssf.manage"}, nil
}

func (engine) Sessions(context.Context, string) ([]endings.Session, error) { return nil, nil }

// A broken store fails once its operations have been used up, until it is mended.
type broken struct {
	store.Store
	mu   sync.Mutex
	left int // writes; negative: any number
}

var errBroken = errors.New("the disk is gone")

func (b *broken) spend() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.left == 0 {
		return false
	}
	b.left--
	return true
}

func (b *broken) allow(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left = n
}

func (b *broken) Put(ctx context.Context, r store.Record) (int64, error) {
	if !b.spend() {
		return 0, errBroken
	}
	return b.Store.Put(ctx, r)
}

func (b *broken) Delete(ctx context.Context, kind, id string) error {
	if !b.spend() {
		return errBroken
	}
	return b.Store.Delete(ctx, kind, id)
}

// A watched store calls put after each write.
type watched struct {
	store.Store
	put func(store.Record)
}

func (w *watched) Put(ctx context.Context, r store.Record) (int64, error) {
	version, err := w.Store.Put(ctx, r)
	if err == nil {
		w.put(r)
	}
	return version, err
}

// A site is a transmitter and its API.
type site struct {
	*transmitter.Transmitter
	mux   *http.ServeMux
	store *broken
	log   *bytes.Buffer
}

var ring = sync.OnceValues(func() (store.Record, error) { // RSA keys are slow to make
	m := store.NewMemory(0)
	if _, err := keys.Open(context.Background(), m, keys.Config{Algorithms: []string{"RS256"}, InsecureUnsealed: true}); err != nil {
		return store.Record{}, err
	}
	found, err := m.Find(context.Background(), "key", store.Key{}, "", 1)
	if err != nil {
		return store.Record{}, err
	}
	found[0].Version = 0
	return found[0], nil
})

var receivers = []clients.Client{{ID: "receiver", Scopes: []string{"ssf.manage"}}, {ID: "other", Scopes: []string{"ssf.read", "ssf.manage"}}}

// on makes a transmitter on a store, which another one may share.
func on(t *testing.T, records *broken, change ...func(*transmitter.Config)) *site {
	t.Helper()
	key, err := ring()
	require.NoError(t, err)
	if _, err := records.Store.Put(t.Context(), key); err != nil {
		require.ErrorIs(t, err, store.ErrConflict)
	}
	r, err := keys.Open(t.Context(), records.Store, keys.Config{Algorithms: []string{"RS256"}, InsecureUnsealed: true})
	require.NoError(t, err)
	s := &site{mux: http.NewServeMux(), store: records, log: new(bytes.Buffer)}
	cfg := transmitter.Config{
		Issuer: issuer, Base: issuer, JWKS: issuer + "/keys", Store: records, Keys: r, Clients: clients.NewRegistry(records, receivers), Engine: engine{},
		Account:          func(context.Context, string) (*login.Account, error) { return new(login.Account), nil },
		RevokeUser:       func(context.Context, string) (int, error) { return 0, nil },
		InsecureLoopback: true, Audit: func(context.Context, string, ...slog.Attr) {}, Logger: slog.New(slog.DiscardHandler),
	}
	for _, f := range change {
		f(&cfg)
	}
	s.Transmitter, err = transmitter.New(cfg)
	require.NoError(t, err)
	s.Routes(s.mux, "")
	return s
}

func start(t *testing.T, change ...func(*transmitter.Config)) *site {
	t.Helper()
	return on(t, &broken{Store: store.NewMemory(0), left: -1}, change...)
}

// run delivers until the returned function is called.
func (s *site) run(t *testing.T) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.Run(ctx)
	}()
	stop = func() {
		cancel()
		<-ended
	}
	t.Cleanup(stop)
	return stop
}

type object = map[string]any

func (s *site) call(t *testing.T, client, method, path string, body any) (int, object) {
	t.Helper()
	text, err := json.Marshal(body)
	require.NoError(t, err)
	r := httptest.NewRequest(method, path, bytes.NewReader(text))
	r.Header.Set("Authorization", "Bearer "+client)
	w := httptest.NewRecorder()
	s.mux.ServeHTTP(w, r)
	var o object
	if strings.HasPrefix(w.Body.String(), "{") {
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &o))
	}
	return w.Code, o
}

func (s *site) stream(t *testing.T, client string, members object) string {
	t.Helper()
	status, o := s.call(t, client, "POST", "/ssf/streams", members)
	require.Equal(t, 201, status, o)
	return o["stream_id"].(string)
}

// fetch returns the claims of the tokens that a stream offers, in order, and acknowledges them if so requested.
func (s *site) fetch(t *testing.T, client, id string, ack bool) (all []object) {
	t.Helper()
	for acks := []string{}; ; {
		status, o := s.call(t, client, "POST", "/ssf/poll/"+id, object{"returnImmediately": true, "maxEvents": 1000, "ack": acks})
		require.Equal(t, 200, status, o)
		sets := o["sets"].(object)
		if len(sets) == 0 {
			return all
		}
		acks = acks[:0]
		for jti := range sets {
			acks = append(acks, jti)
		}
		slices.Sort(acks)
		for _, jti := range acks {
			all = append(all, read(t, sets[jti].(string)))
		}
		if !ack {
			return all
		}
	}
}

func read(t *testing.T, raw string) (claims object) {
	t.Helper()
	token, err := jose.Parse(raw)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(token.Payload, &claims))
	return claims
}

// session returns the sid in the subject of a SET.
func session(claims object) string {
	subject := claims["sub_id"].(object)
	about, _ := subject["session"].(object)
	id, _ := about["id"].(string)
	return id
}

func kindOf(claims object) string {
	for kind := range claims["events"].(object) {
		return kind[strings.LastIndex(kind, "/")+1:]
	}
	return ""
}

func ending(subject, session string) endings.Ending {
	return endings.Ending{Cause: endings.TokenRevoked, Subject: subject, Client: "app", Session: session}
}

func (s *site) record(t *testing.T, e endings.Ending) {
	t.Helper()
	require.NoError(t, s.Record(t.Context(), e, func(context.Context) (bool, error) { return true, nil }))
}

func TestRecord(t *testing.T) {
	const settle = 30 * time.Second
	for _, c := range []struct {
		name    string
		do      func(s *site) (bool, error)
		err     string
		at, not time.Duration // when the event is and is not announced; zero: never
	}{
		{"a cause that happens", func(*site) (bool, error) { return true, nil }, "", time.Second, 0},
		{"a cause that does not happen", func(*site) (bool, error) { return false, nil }, "", 0, 2 * settle},
		{"a cause that fails for certain", func(*site) (bool, error) { return false, endings.Undone{Err: errors.New("wrong password")} }, "wrong password", 0, 2 * settle},
		{"a cause that may have happened", func(*site) (bool, error) { return false, errors.New("timeout") }, "timeout", settle + time.Second, settle - time.Second},
		{"a process that dies after the cause", func(s *site) (bool, error) { s.store.allow(0); return true, nil }, "", settle + time.Second, settle - time.Second},
	} {
		t.Run("SSFTX-09 "+c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := start(t)
				id := s.stream(t, "receiver", object{})
				defer s.run(t)()
				err := s.Record(t.Context(), ending("customer:alice", "s1"), func(context.Context) (bool, error) { return c.do(s) })
				if c.err == "" {
					require.NoError(t, err)
				} else {
					require.EqualError(t, err, c.err)
				}
				s.store.allow(-1)
				if c.not > 0 {
					time.Sleep(c.not)
					assert.Empty(t, s.fetch(t, "receiver", id, false))
				}
				if c.at > 0 {
					time.Sleep(c.at - c.not)
					all := s.fetch(t, "receiver", id, true)
					require.Len(t, all, 1)
					assert.Equal(t, "s1", session(all[0]))
				}
			})
		})
	}
	t.Run("nothing ends if the event cannot be kept", func(t *testing.T) {
		s := start(t)
		s.store.allow(0)
		err := s.Record(t.Context(), ending("customer:alice", "s1"), func(context.Context) (bool, error) {
			assert.Fail(t, "it ended")
			return true, nil
		})
		require.ErrorIs(t, err, errBroken)
	})
}

// However often the work is interrupted, each stream gets each token, and the same jti again if it gets it again.
func TestInterruptedSpread(t *testing.T) {
	for writes := range 8 {
		t.Run(fmt.Sprintf("after %d writes", writes), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := start(t)
				ids := []string{s.stream(t, "receiver", object{}), s.stream(t, "receiver", object{}), s.stream(t, "other", object{})}
				s.record(t, endings.Ending{Cause: endings.UserRemoved, Subject: "customer:alice"})
				s.store.allow(writes)
				stop := s.run(t)
				time.Sleep(time.Second)
				stop()
				seen := map[string]bool{}
				for i, id := range ids {
					for _, claims := range s.fetch(t, []string{"receiver", "receiver", "other"}[i], id, false) {
						seen[claims["jti"].(string)] = true
					}
				}
				s.store.allow(-1)
				defer on(t, s.store).run(t)() // another process
				time.Sleep(2 * time.Second)
				found := map[string]bool{}
				for i, id := range ids {
					all := s.fetch(t, []string{"receiver", "receiver", "other"}[i], id, false)
					require.Len(t, all, 2, "stream %d", i)
					assert.Equal(t, []string{"session-revoked", "account-purged"}, []string{kindOf(all[0]), kindOf(all[1])})
					assert.Equal(t, all[0]["txn"], all[1]["txn"])
					for _, claims := range all {
						found[claims["jti"].(string)] = true
					}
				}
				assert.Len(t, found, 6)
				for jti := range seen {
					assert.True(t, found[jti])
				}
			})
		})
	}
}

func TestFullQueue(t *testing.T) {
	t.Run("SSFTX-06 a stream whose receiver fetches nothing is paused after a notice", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := start(t, func(c *transmitter.Config) { c.MaxWaiting = 3 })
			full, other := s.stream(t, "receiver", object{}), s.stream(t, "other", object{})
			defer s.run(t)()
			for n := range 6 {
				s.record(t, ending("customer:alice", fmt.Sprint(n)))
				time.Sleep(time.Second)
				require.Len(t, s.fetch(t, "other", other, true), 1, "a receiver that does is not affected")
			}
			told := s.fetch(t, "receiver", full, false)
			require.Len(t, told, 1)
			assert.Equal(t, object{"https://schemas.openid.net/secevent/ssf/event-type/stream-updated": object{"status": "paused", "reason": "the queue is full"}}, told[0]["events"])
			_, status := s.call(t, "receiver", "GET", "/ssf/status?stream_id="+full, nil)
			assert.Equal(t, "paused", status["status"])
			assert.Equal(t, "the queue is full", status["reason"])
			dead, err := s.DeadLetters(t.Context(), full)
			require.NoError(t, err)
			assert.Len(t, dead, 3)

			code, _ := s.call(t, "receiver", "POST", "/ssf/status", object{"stream_id": full, "status": "enabled"})
			require.Equal(t, 200, code)
			all := s.fetch(t, "receiver", full, true)
			require.Len(t, all, 4)
			for n := range 3 {
				assert.Equal(t, fmt.Sprint(n), session(all[n+1]), "what was held")
			}
			s.record(t, ending("customer:alice", "new"))
			time.Sleep(time.Second)
			require.Len(t, s.fetch(t, "receiver", full, true), 1, "it goes on")
		})
	})
	t.Run("a store that is full counts as a full queue", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := on(t, &broken{Store: store.NewMemory(50), left: -1})
			id := s.stream(t, "receiver", object{})
			defer s.run(t)()
			for n := range 60 {
				s.record(t, ending("customer:alice", fmt.Sprint(n)))
				time.Sleep(300 * time.Millisecond)
			}
			_, status := s.call(t, "receiver", "GET", "/ssf/status?stream_id="+id, nil)
			assert.Equal(t, "paused", status["status"])
		})
	})
	t.Run("dead letters are bounded", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := start(t, func(c *transmitter.Config) { c.MaxWaiting = 1 })
			id := s.stream(t, "receiver", object{})
			defer s.run(t)()
			for n := range 1500 {
				s.record(t, ending(fmt.Sprint("customer:", n), "s"))
			}
			time.Sleep(10 * time.Second)
			dead, err := s.DeadLetters(t.Context(), id)
			require.NoError(t, err)
			assert.Greater(t, len(dead), 500)
			assert.LessOrEqual(t, len(dead), 1000)
		})
	})
}

func TestRetention(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t)
		kept, disabled := s.stream(t, "receiver", object{}), s.stream(t, "receiver", object{})
		defer s.run(t)()
		s.record(t, ending("customer:alice", "old"))
		time.Sleep(time.Second)
		require.NoError(t, s.SetStatus(t.Context(), disabled, "disabled", "by the operator"))
		time.Sleep(2 * time.Minute)
		told := s.fetch(t, "receiver", disabled, true)
		require.Len(t, told, 1, "only that it is disabled")
		assert.Equal(t, "stream-updated", kindOf(told[0]))
		time.Sleep(24 * time.Hour)
		s.record(t, ending("customer:alice", "new"))
		time.Sleep(time.Second)
		require.Len(t, s.fetch(t, "receiver", kept, false), 2, "for as long as a token may live")
		time.Sleep(2 * time.Hour)
		all := s.fetch(t, "receiver", kept, true)
		require.Len(t, all, 1)
		assert.Equal(t, "new", session(all[0]))
		dead, err := s.DeadLetters(t.Context(), kept)
		require.NoError(t, err)
		require.Len(t, dead, 1)
		assert.Equal(t, "not delivered in time", dead[0].Reason)
		time.Sleep(8 * 24 * time.Hour)
		dead, err = s.DeadLetters(t.Context(), kept)
		require.NoError(t, err)
		assert.Empty(t, dead)
	})
}

// A finds counts the searches in a store.
type finds struct {
	store.Store
	n atomic.Int64
}

func (f *finds) Find(ctx context.Context, kind string, key store.Key, after string, limit int) ([]store.Record, error) {
	if f.n.Add(1) > 20_000 {
		return nil, errBroken
	}
	return f.Store.Find(ctx, kind, key, after, limit)
}

// A receiver that is down gets one of these tokens each time that its full queue pauses the stream, and it enables the stream again.
func TestRetentionWithManyTokensAboutTheStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		counted := &finds{Store: store.NewMemory(0)}
		s := on(t, &broken{Store: counted, left: -1})
		id := s.stream(t, "receiver", object{})
		s.record(t, ending("customer:alice", "old"))
		defer s.run(t)()
		time.Sleep(time.Second)
		for range 75 {
			require.NoError(t, s.SetStatus(t.Context(), id, "paused", "by the operator"))
			require.NoError(t, s.SetStatus(t.Context(), id, "enabled", "by the operator"))
		}
		time.Sleep(2 * time.Minute)
		assert.Less(t, counted.n.Load(), int64(10_000), "searches")
		assert.Len(t, s.fetch(t, "receiver", id, false), 151)
	})
}

func TestLongPoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t)
		id := s.stream(t, "receiver", object{})
		begin := time.Now()
		status, o := s.call(t, "receiver", "POST", "/ssf/poll/"+id, object{})
		assert.Equal(t, 200, status)
		assert.Equal(t, object{"sets": object{}}, o)
		assert.InDelta(t, 25, time.Since(begin).Seconds(), 1, "an answer before proxies give up")
		var polls sync.WaitGroup
		var mu sync.Mutex
		codes := map[int]int{}
		for range 6 {
			polls.Go(func() {
				status, _ := s.call(t, "receiver", "POST", "/ssf/poll/"+id, object{})
				mu.Lock()
				defer mu.Unlock()
				codes[status]++
			})
		}
		time.Sleep(time.Second)
		mu.Lock()
		assert.Equal(t, map[int]int{429: 2}, codes, "a receiver does not hold any number of requests")
		mu.Unlock()
		other := on(t, s.store) // another process
		defer other.run(t)()
		other.record(t, ending("customer:alice", "s1"))
		begin = time.Now()
		polls.Wait()
		assert.Less(t, time.Since(begin), time.Second)
		assert.Equal(t, map[int]int{429: 2, 200: 4}, codes)
		s.fetch(t, "receiver", id, true)
		stop := s.run(t)
		synctest.Wait()
		begin = time.Now()
		go func() {
			time.Sleep(time.Second)
			stop()
		}()
		status, _ = s.call(t, "receiver", "POST", "/ssf/poll/"+id, object{})
		assert.Equal(t, 200, status)
		assert.Less(t, time.Since(begin), 2*time.Second, "a request does not hold up a shutdown")
	})
}

// A receiver is a push endpoint that fails now and then.
type receiver struct {
	mu       sync.Mutex
	accepted []object
	attempts int
	fails    func(claims object) bool
}

func (k *receiver) handle(t *testing.T) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		claims := read(t, string(body))
		k.mu.Lock()
		defer k.mu.Unlock()
		k.attempts++
		if k.fails != nil && k.fails(claims) {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		k.accepted = append(k.accepted, claims)
		w.WriteHeader(http.StatusAccepted)
	})
}

func (k *receiver) got() []object {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.accepted)
}

// outside starts a receiver that can be called from virtual time: its goroutines are outside, and no connection outlives its request.
func outside(t *testing.T, k *receiver) string {
	t.Helper()
	web := httptest.NewUnstartedServer(k.handle(t))
	web.Config.SetKeepAlivesEnabled(false)
	web.Start()
	t.Cleanup(web.Close)
	return web.URL
}

func (k *receiver) setFails(f func(object) bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.fails = f
}

// took waits until a receiver has a number of tokens, and returns how long that took.
func (k *receiver) took(n int) time.Duration {
	begin := time.Now()
	for len(k.got()) < n && time.Since(begin) < time.Hour {
		time.Sleep(10 * time.Millisecond)
	}
	return time.Since(begin)
}

func TestReceiverComesBack(t *testing.T) {
	all := func(object) bool { return true }
	for _, c := range []struct {
		outage, late time.Duration
		attempts     int // at most
	}{
		{3 * time.Second, time.Second, 8},
		{time.Minute, time.Second, 130},
		{10 * time.Minute, 75 * time.Second, 210},
		{time.Hour, time.Minute, 330},
	} {
		t.Run(fmt.Sprintf("SSFTX-10 what waited for %v is delivered soon after", c.outage), func(t *testing.T) {
			k := &receiver{fails: all}
			url := outside(t, k)
			synctest.Test(t, func(t *testing.T) {
				s := start(t)
				s.stream(t, "receiver", object{"delivery": object{"method": "urn:ietf:rfc:8935", "endpoint_url": url}})
				defer s.run(t)()
				s.record(t, ending("customer:alice", "s1"))
				time.Sleep(c.outage)
				k.setFails(nil)
				assert.LessOrEqual(t, k.took(1), c.late+20*time.Millisecond)
				assert.Equal(t, "s1", session(k.got()[0]))
				k.mu.Lock()
				defer k.mu.Unlock()
				assert.LessOrEqual(t, k.attempts, c.attempts)
			})
		})
	}
	for name, call := range map[string]func(s *site, id string){
		"lists its streams": func(s *site, _ string) { s.call(t, "receiver", "GET", "/ssf/streams", nil) },
		"reads its stream":  func(s *site, id string) { s.call(t, "receiver", "GET", "/ssf/streams?stream_id="+id, nil) },
		"reads the status":  func(s *site, id string) { s.call(t, "receiver", "GET", "/ssf/status?stream_id="+id, nil) },
		"verifies":          func(s *site, id string) { s.call(t, "receiver", "POST", "/ssf/verify", object{"stream_id": id}) },
	} {
		for where, processes := range map[string]int{"": 1, " at another process": 2} {
			t.Run("a receiver that "+name+where+" gets at once what waited", func(t *testing.T) {
				k := &receiver{fails: all}
				url := outside(t, k)
				synctest.Test(t, func(t *testing.T) {
					s := start(t)
					id := s.stream(t, "receiver", object{"delivery": object{"method": "urn:ietf:rfc:8935", "endpoint_url": url}})
					defer s.run(t)()
					s.record(t, ending("customer:alice", "s1"))
					time.Sleep(10 * time.Minute)
					called := s
					if processes == 2 {
						called = on(t, s.store)
						defer called.run(t)()
					}
					time.Sleep(10 * time.Second)
					k.setFails(nil)
					call(called, id)
					assert.LessOrEqual(t, k.took(1), 300*time.Millisecond)
					assert.Equal(t, "s1", session(k.got()[0]))
				})
			})
		}
	}
	t.Run("a receiver that fails and calls all the time, or another client, causes few attempts", func(t *testing.T) {
		k := &receiver{fails: all}
		url := outside(t, k)
		synctest.Test(t, func(t *testing.T) {
			s := start(t)
			id := s.stream(t, "receiver", object{"delivery": object{"method": "urn:ietf:rfc:8935", "endpoint_url": url}})
			defer s.run(t)()
			s.record(t, ending("customer:alice", "s1"))
			attempts := func(client string) int {
				time.Sleep(10 * time.Minute)
				k.mu.Lock()
				before := k.attempts
				k.mu.Unlock()
				for range 1000 {
					s.call(t, client, "GET", "/ssf/status?stream_id="+id, nil)
					time.Sleep(10 * time.Millisecond)
				}
				k.mu.Lock()
				defer k.mu.Unlock()
				return k.attempts - before
			}
			assert.LessOrEqual(t, attempts("other"), 1)
			assert.LessOrEqual(t, attempts("receiver"), 30)
		})
	})
	t.Run("a verification event follows what waited before it, so it proves that the receiver has that", func(t *testing.T) {
		k := &receiver{fails: all}
		url := outside(t, k)
		synctest.Test(t, func(t *testing.T) {
			s := start(t)
			id := s.stream(t, "receiver", object{"delivery": object{"method": "urn:ietf:rfc:8935", "endpoint_url": url}})
			defer s.run(t)()
			const n = 250 // more than are read at once
			for i := range n {
				s.record(t, ending(fmt.Sprint("customer:", i), "s"))
			}
			time.Sleep(10 * time.Second)
			s.call(t, "receiver", "POST", "/ssf/verify", object{"stream_id": id})
			time.Sleep(time.Second)
			k.setFails(nil)
			k.took(n + 1)
			assert.Equal(t, "verification", kindOf(k.got()[n]))
		})
	})
	t.Run("a verification event follows also if one user's tokens are refused", func(t *testing.T) {
		k := &receiver{fails: all}
		url := outside(t, k)
		synctest.Test(t, func(t *testing.T) {
			s := start(t)
			id := s.stream(t, "receiver", object{"delivery": object{"method": "urn:ietf:rfc:8935", "endpoint_url": url}})
			defer s.run(t)()
			for i := range 150 {
				s.record(t, ending("customer:mallory", fmt.Sprint(i)))
			}
			s.record(t, ending("customer:alice", "s1"))
			time.Sleep(10 * time.Second)
			s.call(t, "receiver", "POST", "/ssf/verify", object{"stream_id": id})
			k.setFails(func(claims object) bool {
				user, _ := claims["sub_id"].(object)["user"].(object)
				return user["sub"] == "customer:mallory"
			})
			assert.LessOrEqual(t, k.took(2), time.Second)
			assert.Equal(t, "verification", kindOf(k.got()[1]))
		})
	})
}

// ofToken is the revocation of a token that a client has for itself.
func ofToken(client string, n int) endings.Ending {
	return endings.Ending{Cause: endings.TokenRevoked, Client: client, Token: fmt.Sprint(client, n)}
}

// about returns the jti or the user of a SET.
func about(claims object) string {
	subject := claims["sub_id"].(object)
	if jti, is := subject["jti"].(string); is {
		return jti
	}
	user, _ := subject["user"].(object)
	sub, _ := user["sub"].(string)
	return sub
}

// One client gets tokens for itself and revokes them all the time. It neither delays nor displaces what others end.
func TestFloodOfRevocations(t *testing.T) {
	const burst = 100
	flood := func(t *testing.T, s *site, n int) {
		for i := range n {
			s.record(t, ofToken("mallory", i))
		}
	}
	position := func(all []object, of string) int {
		return slices.IndexFunc(all, func(c object) bool { return about(c) == of })
	}
	floods := map[string]func(i int) endings.Ending{
		"a client's own tokens": func(i int) endings.Ending { return ofToken("mallory", i) },
		"tokens that a client has exchanged": func(i int) endings.Ending {
			e := ofToken("mallory", i)
			e.Subject = "customer:mallory"
			return e
		},
		"sessions of one user at a client": func(i int) endings.Ending {
			return endings.Ending{Cause: endings.TokenRevoked, Client: "mallory", Subject: "customer:mallory", Session: fmt.Sprint(i)}
		},
		"everything of one user": func(int) endings.Ending {
			return endings.Ending{Cause: endings.LoggedOutEverywhere, Subject: "customer:mallory"}
		},
	}
	for name, one := range floods {
		t.Run("the outbox and the queue: "+name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := start(t)
				id := s.stream(t, "receiver", object{})
				for i := range 200 {
					s.record(t, one(i))
				}
				s.record(t, ending("customer:alice", "s1"))
				s.record(t, ofToken("orders", 1))
				defer s.run(t)()
				time.Sleep(5 * time.Second)
				all := s.fetch(t, "receiver", id, true)
				require.Len(t, all, 202, "nothing is lost")
				assert.LessOrEqual(t, position(all, "customer:alice"), burst+1)
				assert.LessOrEqual(t, position(all, "orders1"), burst+1)
				time.Sleep(time.Minute)
				s.record(t, one(1000))
				time.Sleep(time.Millisecond)
				s.record(t, ending("customer:alice", "s2"))
				time.Sleep(time.Second)
				assert.NotEqual(t, "customer:alice", about(s.fetch(t, "receiver", id, true)[0]), "the budget is back")
			})
		})
	}
	t.Run("an event that comes while those of a flood are spread does not wait for them", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var s *site
			var queued []string // jti in order
			s = on(t, &broken{left: -1, Store: &watched{Store: store.NewMemory(0), put: func(r store.Record) {
				if !strings.HasPrefix(r.Kind, "set_") {
					return
				}
				if queued = append(queued, r.ID); len(queued) == 2*burst {
					s.record(t, ending("customer:alice", "s1"))
				}
			}}})
			id := s.stream(t, "receiver", object{})
			flood(t, s, 300)
			defer s.run(t)()
			time.Sleep(time.Second)
			for _, claims := range s.fetch(t, "receiver", id, true) {
				if about(claims) == "customer:alice" {
					assert.LessOrEqual(t, slices.Index(queued, claims["jti"].(string)), 2*burst+20)
				}
			}
			assert.Len(t, queued, 301)
		})
	})
	t.Run("a receiver that comes back gets them first", func(t *testing.T) {
		k := &receiver{fails: func(object) bool { return true }}
		url := outside(t, k)
		synctest.Test(t, func(t *testing.T) {
			s := start(t)
			s.stream(t, "receiver", object{"delivery": object{"method": "urn:ietf:rfc:8935", "endpoint_url": url}})
			defer s.run(t)()
			flood(t, s, 400)
			time.Sleep(10 * time.Second)
			s.record(t, ending("customer:alice", "s1"))
			time.Sleep(2 * time.Second)
			k.setFails(nil)
			k.took(401)
			assert.LessOrEqual(t, position(k.got(), "customer:alice"), burst+100, "after one page at most")
		})
	})
	t.Run("a flood fills half of a queue, does not pause it, and leaves the dead letters of others", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := start(t, func(c *transmitter.Config) { c.MaxWaiting = 400 })
			id := s.stream(t, "receiver", object{})
			defer s.run(t)()
			refused := func(jti string) object {
				return object{"setErrs": object{jti: object{"err": "invalid_request"}}, "maxEvents": 0}
			}
			s.record(t, ending("customer:bob", "s1"))
			time.Sleep(time.Second)
			bobs := s.fetch(t, "receiver", id, false)[0]["jti"].(string)
			status, _ := s.call(t, "receiver", "POST", "/ssf/poll/"+id, refused(bobs))
			require.Equal(t, 200, status)

			flood(t, s, 1500)
			time.Sleep(20 * time.Second)
			for n := range 150 {
				s.record(t, ending(fmt.Sprint("customer:", n), "s"))
			}
			time.Sleep(5 * time.Second)
			_, o := s.call(t, "receiver", "GET", "/ssf/status?stream_id="+id, nil)
			assert.Equal(t, "enabled", o["status"])
			all := s.fetch(t, "receiver", id, true)
			own := 0
			for _, claims := range all {
				if strings.HasPrefix(about(claims), "customer:") {
					own++
				}
			}
			assert.Equal(t, 150, own)
			assert.LessOrEqual(t, len(all), 350)
			dead, err := s.DeadLetters(t.Context(), id)
			require.NoError(t, err)
			assert.LessOrEqual(t, len(dead), 101)
			assert.True(t, slices.ContainsFunc(dead, func(d transmitter.DeadLetter) bool { return d.ID == bobs }))
		})
	})
	t.Run("when they cannot be passed on, the client's revocations are refused, and no token ends", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := start(t)
			id := s.stream(t, "receiver", object{})
			flood(t, s, 150)
			time.Sleep(11 * time.Second) // no process spreads them
			flood(t, s, burst)           // within the budget
			err := s.Record(t.Context(), ofToken("mallory", 1), func(context.Context) (bool, error) {
				assert.Fail(t, "it has ended")
				return true, nil
			})
			busy := new(valetkey.Unavailable)
			require.ErrorAs(t, err, &busy)
			assert.Positive(t, busy.RetryAfter)
			s.record(t, ofToken("orders", 1))
			s.record(t, ending("customer:alice", "s1"))
			for range 2 * burst { // of a user, who is not refused
				s.record(t, endings.Ending{Cause: endings.LoggedOutEverywhere, Subject: "customer:mallory"})
			}
			defer s.run(t)()
			time.Sleep(5 * time.Second)
			s.record(t, ofToken("mallory", 2))
			time.Sleep(time.Second)
			assert.Len(t, s.fetch(t, "receiver", id, true), 150+burst+2+2*burst+1)
		})
	})
	t.Run("those that are too old are given up", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := start(t)
			id := s.stream(t, "receiver", object{})
			stop := s.run(t)
			flood(t, s, 150)
			time.Sleep(5 * time.Second)
			stop()
			time.Sleep(26 * time.Hour)
			s.record(t, ending("customer:alice", "s1"))
			defer s.run(t)()
			time.Sleep(2 * time.Minute)
			all := s.fetch(t, "receiver", id, true)
			require.Len(t, all, 1)
			assert.Equal(t, "customer:alice", about(all[0]))
		})
	})
}

// Several processes deliver the queue of a receiver that fails often. Each token arrives, and those of a user in their order.
func TestPushOrder(t *testing.T) {
	const users, each = 10, 20
	k := &receiver{}
	random := rand.New(rand.NewPCG(1, 2))
	k.fails = func(object) bool { return random.IntN(50) == 0 }
	web := httptest.NewServer(k.handle(t))
	t.Cleanup(web.Close)
	records := &broken{Store: store.NewMemory(0), left: -1}
	one, other := on(t, records), on(t, records)
	one.stream(t, "receiver", object{"delivery": object{"method": "urn:ietf:rfc:8935", "endpoint_url": web.URL}})
	stop := one.run(t)
	other.run(t)
	for n := range each {
		for user := range users {
			[]*site{one, other}[n%2].record(t, ending(fmt.Sprintf("customer:%d", user), fmt.Sprintf("%03d", n)))
		}
		if n == each/2 {
			stop() // one of them shuts down
			one = other
		}
	}
	require.Eventually(t, func() bool {
		seen := map[string]bool{}
		for _, claims := range k.got() {
			seen[claims["jti"].(string)] = true
		}
		return len(seen) == users*each
	}, time.Minute, 20*time.Millisecond)
	last := map[string]string{}
	first := map[string]bool{}
	for _, claims := range k.got() {
		jti := claims["jti"].(string)
		if first[jti] {
			continue // again, which a receiver ignores
		}
		first[jti] = true
		user := claims["sub_id"].(object)["user"].(object)["sub"].(string)
		assert.Less(t, last[user], session(claims), user)
		last[user] = session(claims)
	}
}

// A user whose tokens a receiver never takes holds up no other user.
func TestStalledSubject(t *testing.T) {
	k := &receiver{fails: func(claims object) bool {
		return claims["sub_id"].(object)["user"].(object)["sub"] == "customer:mallory"
	}}
	web := httptest.NewServer(k.handle(t))
	t.Cleanup(web.Close)
	s := start(t)
	for n := range 250 {
		s.record(t, ending("customer:mallory", fmt.Sprint(n)))
	}
	s.stream(t, "receiver", object{"delivery": object{"method": "urn:ietf:rfc:8935", "endpoint_url": web.URL}})
	s.record(t, ending("customer:alice", "s1"))
	s.run(t)
	require.Eventually(t, func() bool { return len(k.got()) == 1 }, time.Minute, 5*time.Millisecond)
	assert.Equal(t, "s1", session(k.got()[0]))
	k.mu.Lock()
	defer k.mu.Unlock()
	assert.Less(t, k.attempts, 20, "its tokens are not tried one after the other")
}

// Unapproved applications have slow endpoints and users who log out all the time. Users of other applications are still logged out.
func TestSlowLogoutEndpoints(t *testing.T) {
	var mu sync.Mutex
	got := map[string]int{}
	release := make(chan struct{})
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/slow") {
			select {
			case <-release:
			case <-r.Context().Done():
			}
			return
		}
		mu.Lock()
		defer mu.Unlock()
		got[r.URL.Path]++
	}))
	t.Cleanup(web.Close)
	t.Cleanup(func() { close(release) })
	records := &broken{Store: store.NewMemory(0), left: -1}
	known := clients.Client{ID: "known", AuthMethod: "none", LogoutURI: web.URL + "/known"}
	registry := clients.NewRegistry(records, []clients.Client{known})
	s := on(t, records, func(c *transmitter.Config) { c.Clients = registry })
	logOut := func(client string, n int) {
		s.record(t, endings.Ending{Cause: endings.LoggedOut, Subject: "customer:alice", Client: client, Session: fmt.Sprint(client, n)})
	}
	for n := range 40 {
		c, _, err := registry.Create(t.Context(), clients.Client{
			AuthMethod: "none", RedirectURIs: []string{"https://a.example/cb"}, GrantTypes: []string{"authorization_code"},
			LogoutURI: fmt.Sprintf("%s/slow/%d", web.URL, n), Owner: "customer:mallory",
		}, false)
		require.NoError(t, err)
		logOut(c.ID, n)
		logOut(c.ID, n+100)
	}
	for n := range 3 {
		logOut("known", n)
	}
	s.run(t)
	require.Eventually(t, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return got["/known"] >= 3
	}, time.Minute, 5*time.Millisecond)
}

// A stream does not outlive the right of its client to it: nothing is pushed to a client that is not known any more, or has lost its scope.
func TestPushesEndWithTheRightToThem(t *testing.T) {
	var mu sync.Mutex
	got := map[string]int{}
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		got[r.URL.Path]++
		w.WriteHeader(http.StatusAccepted)
	}))
	t.Cleanup(web.Close)
	records := &broken{Store: store.NewMemory(0), left: -1}
	before := on(t, records)
	for _, id := range []string{"receiver", "other", "gone"} {
		before.stream(t, id, object{"delivery": object{"method": "urn:ietf:rfc:8935", "endpoint_url": web.URL + "/" + id}})
	}
	after := on(t, records, func(c *transmitter.Config) {
		c.Clients = clients.NewRegistry(records, []clients.Client{{ID: "receiver", Scopes: []string{"ssf.read"}}, {ID: "other", Scopes: []string{"orders:read"}}})
	})
	stop := after.run(t)
	for n := range 10 {
		after.record(t, ending("customer:alice", fmt.Sprint(n)))
	}
	require.Eventually(t, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return got["/receiver"] >= 10 // one whose answer is late comes again
	}, time.Minute, 5*time.Millisecond)
	stop()
	mu.Lock()
	assert.NotContains(t, got, "/other")
	assert.NotContains(t, got, "/gone")
	mu.Unlock()
	before.run(t)
	require.Eventually(t, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return got["/other"] >= 10
	}, time.Minute, 5*time.Millisecond, "a replica that knows the scope delivers what waits")
	mu.Lock()
	defer mu.Unlock()
	assert.NotContains(t, got, "/gone")
}

// The operator's networks are for endpoints that the operator knows. Otherwise any registered client could reach them.
func TestLogoutInsideTheNetwork(t *testing.T) {
	synced := func(name string) (at string, dialed func() bool) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		t.Cleanup(func() { l.Close() })
		heard := make(chan struct{})
		go func() {
			if c, err := l.Accept(); err == nil {
				c.Close()
				close(heard)
			}
		}()
		// A name in capitals, because the endpoint is refused before it is dialed if it is one of this machine.
		return fmt.Sprintf("https://LOCALHOST:%d/%s", l.Addr().(*net.TCPAddr).Port, name), func() bool {
			select {
			case <-heard:
				return true
			default:
				return false
			}
		}
	}
	records := &broken{Store: store.NewMemory(0), left: -1}
	known, dialedKnown := synced("known")
	others, dialedOthers := synced("others")
	registry := clients.NewRegistry(records, []clients.Client{{ID: "known", AuthMethod: "none", LogoutURI: known}})
	c, _, err := registry.Create(t.Context(), clients.Client{
		AuthMethod: "none", RedirectURIs: []string{"https://a.example/cb"}, GrantTypes: []string{"authorization_code"}, LogoutURI: others, Owner: "customer:mallory",
	}, false)
	require.NoError(t, err)
	s := on(t, records, func(cfg *transmitter.Config) {
		cfg.Clients, cfg.InsecureLoopback = registry, false
		cfg.Allow = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	})
	for _, id := range []string{c.ID, "known"} {
		s.record(t, endings.Ending{Cause: endings.LoggedOut, Subject: "customer:alice", Client: id, Session: id})
	}
	s.run(t)
	require.Eventually(t, func() bool {
		waiting, err := records.Find(t.Context(), "ssf_logout", store.Key{Name: "client", Value: c.ID}, "", 10)
		return err == nil && len(waiting) == 1 && strings.Contains(string(waiting[0].Value), `"attempts":`) && dialedKnown()
	}, time.Minute, 5*time.Millisecond)
	assert.False(t, dialedOthers())
}

// A client whose metadata document cannot be fetched holds up no log-out. It gets its logout token once the document is there.
func TestLogoutOfADocumentedClient(t *testing.T) {
	var mu sync.Mutex
	tokens, fetches := 0, 0
	endpoint := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		tokens++
	}))
	t.Cleanup(endpoint.Close)
	var id string
	up := false
	web := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if fetches++; !up {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"client_id":%q,"client_name":"App","redirect_uris":["https://a.example/cb"],"token_endpoint_auth_method":"none","backchannel_logout_uri":%q}`, id, endpoint.URL+"/out")
	}))
	t.Cleanup(web.Close)
	id = web.URL + "/app"
	records := &broken{Store: store.NewMemory(0), left: -1}
	registry := clients.NewRegistry(records, nil)
	callers, err := login.NewLimiter(login.Rate{Burst: 1000, Every: time.Millisecond}, 0)
	require.NoError(t, err)
	registry.UseDocuments(clients.NewDocuments(clients.DocumentsConfig{
		Scopes: []string{"orders:read"}, AuthMethods: []string{"none"}, Callers: callers, HTTP: web.Client(),
	}))
	s := on(t, records, func(c *transmitter.Config) { c.Clients = registry })
	s.record(t, endings.Ending{Cause: endings.LoggedOut, Subject: "customer:alice", Client: id, Session: "s1"})
	mu.Lock()
	assert.Zero(t, fetches, "the log-out waits for no fetch")
	up = true
	mu.Unlock()
	s.run(t)
	require.Eventually(t, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return tokens > 0
	}, time.Minute, 5*time.Millisecond)
}

func TestSealedHeader(t *testing.T) {
	records := &broken{Store: store.NewMemory(0), left: -1}
	sealed, err := keys.Open(t.Context(), store.NewMemory(0), keys.Config{Algorithms: []string{"RS256"}, Seal: bytes.Repeat([]byte{1}, 32)})
	require.NoError(t, err)
	s := on(t, records, func(c *transmitter.Config) { c.Keys = sealed })
	id := s.stream(t, "receiver", object{"delivery": object{"method": "urn:ietf:rfc:8935", "endpoint_url": "https://r.example", "authorization_header": "Bearer hush-hush"}})
	rec, err := records.Get(t.Context(), "ssf_stream", id)
	require.NoError(t, err)
	assert.NotContains(t, string(rec.Value), "hush-hush")
	assert.NotContains(t, string(rec.Value), base64.RawStdEncoding.EncodeToString([]byte("Bearer hush")))
	_, o := s.call(t, "receiver", "GET", "/ssf/streams?stream_id="+id, nil)
	assert.Equal(t, "Bearer hush-hush", o["delivery"].(object)["authorization_header"])
}
