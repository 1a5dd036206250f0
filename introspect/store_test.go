package introspect_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/introspect"
	"github.com/valetkey/valetkey/valetkeytest"
)

// memory is a Store in this process, with troubles to order.
type memory struct {
	mu         sync.Mutex
	values     map[string][]byte
	lifetimes  map[string]time.Duration
	gets, sets int

	broken  error
	slowGet bool          // until the end of the context
	setTime time.Duration // that Set takes
}

func newMemory() *memory {
	return &memory{values: map[string][]byte{}, lifetimes: map[string]time.Duration{}}
}

func (m *memory) Get(ctx context.Context, key string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.gets++
	if m.slowGet {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return m.values[key], m.broken
}

func (m *memory) Set(ctx context.Context, key string, value []byte, lifetime time.Duration) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sets++
	if m.setTime > 0 {
		m.mu.Unlock()
		defer m.mu.Lock()
		select {
		case <-time.After(m.setTime):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if m.broken == nil {
		m.values[key], m.lifetimes[key] = value, lifetime
	}
	return m.broken
}

// only returns the one key that is held.
func (m *memory) only(t *testing.T) string {
	t.Helper()
	synctest.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	require.Len(t, m.values, 1)
	for key := range m.values {
		return key
	}
	return ""
}

func (m *memory) len() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.values)
}

func TestShared(t *testing.T) {
	in := func(name string, test func(t *testing.T, iss *valetkeytest.Issuer, m *memory)) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				test(t, valetkeytest.NewIssuer(t, valetkeytest.InMemory(), valetkeytest.SignWith("RS256")), newMemory())
			})
		})
	}
	in("a broken store costs an answer nothing, and one log line a minute", func(t *testing.T, iss *valetkeytest.Issuer, m *memory) {
		var log journal
		v := verifierOf(t, iss, with(m), func(c *introspect.Config) { c.Logger = slog.New(&log) })
		m.broken = errors.New("the store is gone")
		start := time.Now()
		for range 10 {
			_, err := v.Verify(t.Context(), iss.Opaque())
			require.NoError(t, err)
		}
		assert.Zero(t, time.Since(start))
		assert.Equal(t, 1, m.gets, "it is left alone")
		assert.Equal(t, 1, log.count("WARN introspection: answers are not shared for now"))
		time.Sleep(time.Second)
		for range 60 {
			_, err := v.Verify(t.Context(), iss.Opaque())
			require.NoError(t, err)
			time.Sleep(time.Second)
		}
		assert.Equal(t, 61, m.gets, "but for a try every second")
		assert.Equal(t, 2, log.count("the store is gone"))
		assert.Equal(t, 70, iss.Introspection.Hits())
	})
	in("garbage in a store is the store's fault", func(t *testing.T, iss *valetkeytest.Issuer, m *memory) {
		var log journal
		v, token := verifierOf(t, iss, with(m), func(c *introspect.Config) { c.Logger = slog.New(&log) }), iss.Opaque()
		_, err := v.Verify(t.Context(), token)
		require.NoError(t, err)
		m.values[m.only(t)] = []byte("garbage")
		_, err = v.Verify(t.Context(), token)
		require.NoError(t, err)
		assert.Equal(t, 1, log.count("WARN introspection: answers are not shared for now"))
	})
	in("a store that fails is not believed", func(t *testing.T, iss *valetkeytest.Issuer, m *memory) {
		v, token := verifierOf(t, iss, with(m)), iss.Opaque()
		_, err := v.Verify(t.Context(), token)
		require.NoError(t, err)
		m.only(t)
		m.broken = errors.New("the store is gone")
		_, err = v.Verify(t.Context(), token)
		require.NoError(t, err)
		assert.Equal(t, 2, iss.Introspection.Hits())
	})
	in("one answer after the other is shared", func(t *testing.T, iss *valetkeytest.Issuer, m *memory) {
		v := verifierOf(t, iss, with(m), func(c *introspect.Config) { c.MaxInFlight = 2 })
		for n := range 5 {
			_, err := v.Verify(t.Context(), iss.Opaque())
			require.NoError(t, err)
			synctest.Wait()
			assert.Equal(t, n+1, m.len())
		}
	})
	in("an answer that comes after its time is not shared", func(t *testing.T, iss *valetkeytest.Issuer, m *memory) {
		v := verifierOf(t, iss, with(m), func(c *introspect.Config) { c.CacheTTL = time.Second })
		for _, took := range []time.Duration{time.Second, 2 * time.Second} {
			iss.Introspection.Slow(took)
			_, err := v.Verify(t.Context(), iss.Opaque())
			require.NoError(t, err)
			synctest.Wait()
			assert.Zero(t, m.sets)
		}
	})
	in("an answer of 64 KiB is shared", func(t *testing.T, iss *valetkeytest.Issuer, m *memory) {
		v := verifierOf(t, iss, with(m))
		share := func(length int) (value int) {
			clear(m.values)
			iss.Introspection.Answer(`{"active":true,"aud":"https://api.example.com","note":"` + strings.Repeat("x", length) + `"}`)
			token := iss.Opaque()
			_, err := v.Verify(t.Context(), token)
			require.NoError(t, err)
			synctest.Wait()
			hits := iss.Introspection.Hits()
			_, err = verifierOf(t, iss, with(m)).Verify(t.Context(), token)
			require.NoError(t, err)
			synctest.Wait()
			assert.Equal(t, m.len() == 0, iss.Introspection.Hits() > hits, "what is held is read")
			for _, v := range m.values {
				return len(v)
			}
			return 0
		}
		more := 64<<10 - share(10)
		assert.Equal(t, 64<<10, share(10+more))
		assert.Zero(t, share(11+more))
	})
	in("a slow look-up delays one answer, by 100 ms", func(t *testing.T, iss *valetkeytest.Issuer, m *memory) {
		v := verifierOf(t, iss, with(m))
		m.slowGet = true
		for _, want := range []time.Duration{100 * time.Millisecond, 0, 0} {
			start := time.Now()
			_, err := v.Verify(t.Context(), iss.Opaque())
			require.NoError(t, err)
			assert.Equal(t, want, time.Since(start))
		}
	})
	in("a slow write delays no request", func(t *testing.T, iss *valetkeytest.Issuer, m *memory) {
		var log journal
		v := verifierOf(t, iss, with(m), func(c *introspect.Config) { c.MaxInFlight, c.Logger = 2, slog.New(&log) })
		m.setTime = 50 * time.Millisecond
		start := time.Now()
		for range 10 {
			_, err := v.Verify(t.Context(), iss.Opaque())
			require.NoError(t, err)
		}
		assert.Zero(t, time.Since(start))
		synctest.Wait()
		time.Sleep(time.Second)
		assert.Equal(t, 2, m.sets, "no more at a time than calls, and nothing waits for its turn")

		m.setTime = time.Hour
		_, err := v.Verify(t.Context(), iss.Opaque())
		require.NoError(t, err)
		synctest.Wait()
		start = time.Now()
		v.Close()
		assert.Zero(t, time.Since(start), "Close ends what is being written")
		assert.Zero(t, log.count("not shared"), "which is not the store's fault")
	})
	in("the endpoint decides where the store has something else", func(t *testing.T, iss *valetkeytest.Issuer, m *memory) {
		a, token := verifierOf(t, iss, with(m)), iss.Opaque()
		_, err := a.Verify(t.Context(), token)
		require.NoError(t, err)
		key := m.only(t)
		now := iss.Now()
		// says is what a store would hold if the endpoint had said so of mallory.
		says := func(key string, asked time.Time, more string) string {
			body, err := json.Marshal(`{"active":true,"aud":"https://api.example.com","sub":"mallory"` + more + `}`)
			require.NoError(t, err)
			return fmt.Sprintf(`{"key":%q,"asked":%d,"body":%s}`, key, asked.UnixMilli(), body)
		}
		for name, value := range map[string]string{
			"nothing":                        "",
			"garbage":                        "\x00\x01",
			"a JSON array":                   "[]",
			"an empty object":                "{}",
			"an invalid body":                fmt.Sprintf(`{"key":%q,"asked":%d,"body":"x"}`, key, now.UnixMilli()),
			"a body that is an object":       fmt.Sprintf(`{"key":%q,"asked":%d,"body":{"active":true}}`, key, now.UnixMilli()),
			"no time":                        fmt.Sprintf(`{"key":%q,"body":"{\"active\":true,\"aud\":\"https://api.example.com\"}"}`, key),
			"a time beyond time":             strings.Replace(says(key, now, ""), `"asked":`, `"asked":1e299,"was":`, 1),
			"the answer for another token":   says("another", now, ""),
			"one of the future":              says(key, now.Add(time.Second), ""),
			"one as old as CacheTTL":         says(key, now.Add(-30*time.Second), ""),
			"one that is not active":         strings.Replace(says(key, now, ""), `\"active\":true`, `\"active\":false`, 1),
			"one that has expired":           says(key, now, fmt.Sprintf(`,"exp":%d`, now.Add(-31*time.Second).Unix())),
			"one that is not yet valid":      says(key, now, fmt.Sprintf(`,"nbf":%d`, now.Add(31*time.Second).Unix())),
			"one of another issuer":          says(key, now, `,"iss":"https://other.example.com"`),
			"one for another audience":       strings.Replace(says(key, now, ""), "api.example", "other.example", 1),
			"one of an unknown type":         says(key, now, `,"token_type":"mac"`),
			"one with an invalid cnf":        says(key, now, `,"cnf":{}`),
			"one with active twice":          says(key, now, `,"active":true`),
			"one that is endless":            says(key, now, `,"x":"`+strings.Repeat("x", 65<<10)+`"`),
			"a good one, with a second body": strings.TrimSuffix(says(key, now, ""), "}") + `,"body":""}`,
			"a good one, with a second key":  strings.Replace(says(key, now, ""), `{"key"`, `{"key":"x","key"`, 1),
		} {
			m.values[key] = []byte(value)
			before := iss.Introspection.Hits()
			got, err := verifierOf(t, iss, with(m)).Verify(t.Context(), token)
			require.NoError(t, err, name)
			assert.Equal(t, "alice", got.Subject(), name)
			assert.Equal(t, before+1, iss.Introspection.Hits(), name)
			synctest.Wait()
		}
		m.values[key] = []byte(says(key, now, ""))
		got, err := verifierOf(t, iss, with(m)).Verify(t.Context(), token)
		require.NoError(t, err)
		assert.Equal(t, "mallory", got.Subject(), "the values above are wrong in one respect each")
	})
	in("a store that mixes up its values", func(t *testing.T, iss *valetkeytest.Issuer, m *memory) {
		v := verifierOf(t, iss, with(m))
		victim := iss.Opaque(valetkeytest.Subject("bob"))
		_, err := v.Verify(t.Context(), victim)
		require.NoError(t, err)
		key := m.only(t)
		_, err = v.Verify(t.Context(), iss.Opaque(valetkeytest.Subject("admin")))
		require.NoError(t, err)
		synctest.Wait()
		for other, value := range m.values {
			if other != key {
				m.values[key] = value
			}
		}
		got, err := verifierOf(t, iss, with(m)).Verify(t.Context(), victim)
		require.NoError(t, err)
		assert.Equal(t, "bob", got.Subject())
	})
	in("a refusal and a failure are not shared", func(t *testing.T, iss *valetkeytest.Issuer, m *memory) {
		v := verifierOf(t, iss, with(m))
		_, err := v.Verify(t.Context(), "made-up")
		refused(t, err, "the token is not active")
		_, err = v.Verify(t.Context(), iss.Opaque(valetkeytest.WrongAudience()))
		refused(t, err, "the token is for another audience")
		iss.Introspection.Fail(500)
		_, err = v.Verify(t.Context(), iss.Opaque())
		failed(t, err)
		synctest.Wait()
		assert.Zero(t, m.len())
	})
	in("a large answer is not shared", func(t *testing.T, iss *valetkeytest.Issuer, m *memory) {
		_, err := verifierOf(t, iss, with(m)).Verify(t.Context(), iss.Opaque(valetkeytest.Claim("note", strings.Repeat("x", 66_000))))
		require.NoError(t, err)
		synctest.Wait()
		assert.Zero(t, m.len()+m.sets)
	})
	in("nothing is shared that may not be reused", func(t *testing.T, iss *valetkeytest.Issuer, m *memory) {
		_, err := verifierOf(t, iss, with(m), func(c *introspect.Config) { c.CacheTTL = -1 }).Verify(t.Context(), iss.Opaque())
		require.NoError(t, err)
		synctest.Wait()
		assert.Zero(t, m.len()+m.gets)
	})
	in("INTRO-30 a result is not shared with a verifier of another configuration", func(t *testing.T, iss *valetkeytest.Issuer, m *memory) {
		token := iss.Opaque()
		iss.Introspection.Serve(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, `{"active":true,"aud":["https://api.example.com","other"]}`)
		})
		for n, change := range []func(*introspect.Config){
			func(c *introspect.Config) {},
			func(c *introspect.Config) { c.URL += "?tenant=2" },
			func(c *introspect.Config) { c.Issuer = "" },
			func(c *introspect.Config) { c.Audience = []string{"other"} },
			func(c *introspect.Config) { c.Audience = append(c.Audience, "other") },
			func(c *introspect.Config) { c.AudienceByIssuer = true },
			func(c *introspect.Config) { c.Auth = introspect.BasicAuth("another", "secret") },
			func(c *introspect.Config) { c.Auth = introspect.NoAuth() },
		} {
			_, err := verifierOf(t, iss, with(m), change).Verify(t.Context(), token)
			require.NoError(t, err)
			synctest.Wait()
			assert.Equal(t, n+1, m.len())
		}
		for key, value := range m.values {
			assert.Len(t, key, 43)
			assert.NotContains(t, key+string(value), token)
			assert.NotContains(t, string(value), valetkeytest.IntrospectionSecret)
		}
	})
	in("INTRO-23 one asks, and all know, even if the endpoint has gone", func(t *testing.T, iss *valetkeytest.Issuer, m *memory) {
		token := iss.Opaque(valetkeytest.Claim("note", "a <b> & \u2028 c"))
		first, err := verifierOf(t, iss, with(m)).Verify(t.Context(), token)
		require.NoError(t, err)
		synctest.Wait()
		iss.Introspection.Down()
		v := verifierOf(t, iss, with(m), func(c *introspect.Config) { c.Auth = introspect.PostAuth("resource-server", "the next secret") })
		for range 6 { // the breaker is open then
			_, err := v.Verify(t.Context(), iss.Opaque())
			failed(t, err)
		}
		second, err := v.Verify(t.Context(), token)
		require.NoError(t, err)
		assert.Equal(t, first.Raw(), second.Raw())
		assert.WithinDuration(t, first.Freshness().Until, second.Freshness().Until, time.Millisecond)
		assert.False(t, second.Freshness().Until.After(first.Freshness().Until))
		want, got := first.Fields(), second.Fields()
		got.Freshness = want.Freshness
		assert.Equal(t, want, got)
		assert.Equal(t, 1+5, iss.Introspection.Hits())
	})
	in("INTRO-24, INTRO-25 it is kept no longer than it may be reused", func(t *testing.T, iss *valetkeytest.Issuer, m *memory) {
		for expiry, want := range map[time.Duration]time.Duration{10 * time.Second: 10 * time.Second, time.Hour: 30 * time.Second} {
			clear(m.values)
			_, err := verifierOf(t, iss, with(m), func(c *introspect.Config) { c.Leeway = -1 }).Verify(t.Context(), iss.Opaque(valetkeytest.ExpiresIn(expiry)))
			require.NoError(t, err)
			assert.Equal(t, want, m.lifetimes[m.only(t)])
		}
	})
	in("INTRO-34 a bound token stays bound", func(t *testing.T, iss *valetkeytest.Issuer, m *memory) {
		token := iss.Opaque(valetkeytest.Claim("cnf", map[string]any{"jkt": thumbprint}))
		for range 2 {
			got, err := verifierOf(t, iss, with(m)).Verify(t.Context(), token)
			require.NoError(t, err)
			assert.Equal(t, thumbprint, got.Binding().JWKThumbprint)
			synctest.Wait()
		}
		assert.Equal(t, 1, iss.Introspection.Hits())
	})
	in("INTRO-36 a revocation is known after 30 s at the latest, whoever asked", func(t *testing.T, iss *valetkeytest.Issuer, m *memory) {
		a, b := apiOf(t, iss, with(m)), apiOf(t, iss, with(m))
		token := iss.Opaque()
		require.Equal(t, 204, a.get(token).Code)
		iss.Revoke(token)
		time.Sleep(29 * time.Second)
		assert.Equal(t, 204, b.get(token).Code, "the stated bound")
		assert.Equal(t, 1, iss.Introspection.Hits())
		time.Sleep(time.Second)
		assert.Equal(t, 401, b.get(token).Code)
		assert.Equal(t, 401, a.get(token).Code)
	})
	in("INTRO-30 signed answers for one name are not for another", func(t *testing.T, iss *valetkeytest.Issuer, m *memory) {
		answerSigned(iss, iss.Token(signedAnswer(valetkeytest.Audience(valetkeytest.IntrospectionID, "another"))...))
		for n, signed := range []introspect.Signed{{}, {Audience: "another"}, {Audience: "another", Algorithm: "RS256"}} {
			_, err := verifierOf(t, iss, with(m), func(c *introspect.Config) { c.Signed = &signed }).Verify(t.Context(), "opaque")
			require.NoError(t, err)
			synctest.Wait()
			assert.Equal(t, n+1, m.len())
		}
	})
	in("JRESP-03 a signed answer is verified again", func(t *testing.T, iss *valetkeytest.Issuer, m *memory) {
		signed := func(c *introspect.Config) {
			c.Signed, c.CacheTTL = &introspect.Signed{JWKS: iss.JWKS()}, 10*time.Minute
		}
		answerSigned(iss, iss.Token(signedAnswer()...))
		verify := func() {
			t.Helper()
			token, err := verifierOf(t, iss, with(m), signed).Verify(t.Context(), "opaque")
			require.NoError(t, err)
			assert.Equal(t, "alice", token.Subject())
			assert.True(t, token.Freshness().While.Holds())
			synctest.Wait()
		}
		verify()
		time.Sleep(9 * time.Minute) // it was new when it was asked for
		verify()
		assert.Equal(t, 1, iss.Introspection.Hits())
		answerSigned(iss, iss.Token(signedAnswer()...))
		key := m.only(t)
		for _, wrong := range []valetkeytest.Option{valetkeytest.TamperedSignature(), valetkeytest.UnknownKey(), valetkeytest.Type("at+jwt"), valetkeytest.WrongIssuer()} {
			m.values[key] = fmt.Appendf(nil, `{"key":%q,"asked":%d,"body":%q}`, key, iss.Now().UnixMilli(), iss.Token(signedAnswer(wrong)...))
			before := iss.Introspection.Hits()
			verify()
			assert.Equal(t, before+1, iss.Introspection.Hits())
		}
	})
}

func with(m *memory) func(*introspect.Config) {
	return func(c *introspect.Config) { c.SharedCache = m }
}

func TestForget(t *testing.T) {
	in := func(name string, test func(t *testing.T, iss *valetkeytest.Issuer)) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { test(t, valetkeytest.NewIssuer(t, valetkeytest.InMemory())) })
		})
	}
	in("INTRO-36 an older yes in flight is not joined after it, remembered or shared", func(t *testing.T, iss *valetkeytest.Issuer) {
		m := newMemory()
		a := apiOf(t, iss, with(m), func(c *introspect.Config) { c.MaxInFlight = 2 })
		iss.Introspection.Serve(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			time.Sleep(2 * time.Second) // the answer is on its way
			fmt.Fprint(w, `{"active":true,"aud":"https://api.example.com"}`)
		}).Times(1)
		go func() { assert.Equal(t, 204, a.get("opaque").Code, "it was good when it was asked about") }()
		synctest.Wait()
		iss.Introspection.Answer(`{"active":false}`)
		a.verifier.Purge()
		a.guard.Purge(nil)
		assert.Equal(t, 401, a.get("opaque").Code)
		assert.Equal(t, 1, a.verifier.Status().InFlight, "what is forgotten counts all the same")
		time.Sleep(5 * time.Second)
		assert.Equal(t, 401, a.get("opaque").Code)
		assert.Zero(t, a.verifier.Status().InFlight)
		assert.Zero(t, m.len())
	})
	in("INTRO-36 what is shared is asked about again", func(t *testing.T, iss *valetkeytest.Issuer) {
		m := newMemory()
		a, b := apiOf(t, iss, with(m)), apiOf(t, iss, with(m), func(c *introspect.Config) { c.Leeway = time.Second })
		token := iss.Opaque()
		require.Equal(t, 204, a.get(token).Code)
		iss.Revoke(token)
		b.verifier.Purge()
		b.guard.Purge(nil)
		assert.Equal(t, 401, b.get(token).Code)

		for wait, calls := range map[time.Duration]int{
			900 * time.Millisecond:  2, // what seems to be asked about since, by a clock that may be fast
			1001 * time.Millisecond: 1,
		} {
			b.verifier.Purge()
			time.Sleep(wait)
			later, before := iss.Opaque(), iss.Introspection.Hits()
			require.Equal(t, 204, a.get(later).Code)
			synctest.Wait()
			require.Equal(t, 204, b.get(later).Code)
			synctest.Wait()
			assert.Equal(t, calls, iss.Introspection.Hits()-before, "after %v", wait)
		}
	})
	in("refusals are forgotten, those on their way too", func(t *testing.T, iss *valetkeytest.Issuer) {
		v := verifierOf(t, iss)
		v.Verify(t.Context(), "made-up")
		require.Equal(t, 1, v.Status().Refused)
		iss.Introspection.Slow(time.Second)
		go v.Verify(t.Context(), "made-up-too")
		synctest.Wait()
		v.Purge()
		time.Sleep(time.Second)
		synctest.Wait()
		assert.Zero(t, v.Status().Refused)
	})
}
