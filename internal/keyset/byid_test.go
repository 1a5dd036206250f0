package keyset_test

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"path"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/fetch"
	"github.com/valetkey/valetkey/internal/jose"
	"github.com/valetkey/valetkey/internal/keyset"
)

// A shelf publishes each key at a URL with its kid.
type shelf struct {
	mu     sync.Mutex
	bodies map[string]string
	status int           // of every answer; zero: 200, or 404
	err    error         // in place of an answer
	delay  time.Duration // before an answer
	asked  []string
}

func (s *shelf) RoundTrip(r *http.Request) (*http.Response, error) {
	s.mu.Lock()
	s.asked = append(s.asked, r.URL.String())
	body, has := s.bodies[path.Base(r.URL.Path)]
	status, err, delay := s.status, s.err, s.delay
	s.mu.Unlock()
	select {
	case <-time.After(delay):
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	switch {
	case err != nil:
		return nil, err
	case status != 0:
		body = "x"
	case has:
		status = 200
	default:
		status = 404
	}
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
}

func (s *shelf) set(f func(*shelf)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s)
}

func (s *shelf) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.asked)
}

// pemOf returns the public key of k in PEM, as load balancers of AWS publish it.
func pemOf(t testing.TB, k *jose.PrivateKey) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(k.Signer().Public())
	require.NoError(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

func shelve(t testing.TB, keys ...*jose.PrivateKey) *shelf {
	s := &shelf{bodies: map[string]string{}}
	for _, k := range keys {
		s.bodies[k.ID()] = pemOf(t, k)
	}
	return s
}

func (s *shelf) open(t testing.TB, changes ...func(*keyset.Config)) *keyset.ByID {
	t.Helper()
	cfg := keyset.Config{
		Issuer: "https://as.example", JWKSURL: "https://keys.example/prod/{kid}", Fetch: fetch.Client{HTTP: &http.Client{Transport: s}},
		Logger: slog.New(slog.DiscardHandler),
	}
	for _, f := range changes {
		f(&cfg)
	}
	k, err := keyset.NewByID(cfg)
	require.NoError(t, err)
	t.Cleanup(k.Close)
	return k
}

// naming returns a token of k with this kid.
func naming(t testing.TB, k *jose.PrivateKey, kid string) *jose.Compact {
	t.Helper()
	raw, err := k.Sign(map[string]any{"kid": kid}, []byte(`{}`))
	require.NoError(t, err)
	c, err := jose.Parse(raw)
	require.NoError(t, err)
	return c
}

func verify(t testing.TB, k *keyset.ByID, c *jose.Compact) (*keyset.Key, error) {
	t.Helper()
	return k.Verify(context.Background(), c, keyset.Terms{})
}

func unavailable(t testing.TB, err error) *valetkey.Unavailable {
	t.Helper()
	var u *valetkey.Unavailable
	require.ErrorAs(t, err, &u)
	return u
}

func TestByIDConfig(t *testing.T) {
	for name, url := range map[string]string{
		"no kid":                 "https://keys.example/",
		"two kids":               "https://keys.example/{kid}/{kid}",
		"a kid in the host":      "https://{kid}.keys.example/",
		"a kid as the host":      "https://{kid}/",
		"a kid in the query":     "https://keys.example/?k={kid}",
		"a kid in the fragment":  "https://keys.example/#{kid}",
		"a query after the kid":  "https://keys.example/{kid}?a=b",
		"another name in braces": "https://keys.example/{kid}/{region}",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := keyset.NewByID(keyset.Config{JWKSURL: url})
			assert.ErrorContains(t, err, "JWKSURL: needs {kid} once, in its path, and no query")
		})
	}
	_, err := keyset.NewByID(keyset.Config{JWKSURL: "http://keys.example/{kid}"})
	assert.ErrorContains(t, err, "JWKSURL: not https")
}

func TestByID(t *testing.T) {
	a, b := key(t, "ES256", "a"), key(t, "ES256", "b")
	other := key(t, "ES256", "other")
	for name, kid := range map[string]string{
		"an empty one": "", "a slash": "a/b", "the parent folder": "..", "two dots within": "a..b", "a dot": ".", "a percent sign": "a%2fb",
		"a question mark": "a?b", "a space": "a b", "another alphabet": "ä", "a long one": strings.Repeat("a", 129), "a backslash": `a\b`,
	} {
		t.Run("a kid that must not be in a URL is refused without a request: "+name, func(t *testing.T) {
			s := shelve(t, a)
			_, err := verify(t, s.open(t), naming(t, a, kid))
			assert.ErrorIs(t, err, keyset.ErrUnknownKey)
			assert.Zero(t, s.count())
		})
	}
	t.Run("a token without kid is refused without a request", func(t *testing.T) {
		s := shelve(t, a)
		raw, err := a.Sign(map[string]any{"kid": nil}, []byte(`{}`))
		require.NoError(t, err)
		c, err := jose.Parse(raw)
		require.NoError(t, err)
		require.False(t, c.Header.HasKeyID)
		_, err = verify(t, s.open(t), c)
		assert.ErrorIs(t, err, keyset.ErrUnknownKey)
		assert.Zero(t, s.count())
	})
	bubble(t, "a key is fetched with the first token, once, and verifies only what it signed", func(t *testing.T) {
		s := shelve(t, a, b)
		s.delay = time.Second
		k := s.open(t)
		require.NoError(t, k.Ready(t.Context()))
		assert.Equal(t, valetkey.Ready, k.Health().State)
		assert.Zero(t, s.count())
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				key, err := verify(t, k, naming(t, a, "a"))
				assert.NoError(t, err)
				assert.Equal(t, "a", key.ID())
				assert.True(t, key.Holds())
			})
		}
		all.Wait()
		assert.Equal(t, []string{"https://keys.example/prod/a"}, s.asked)
		_, err := verify(t, k, naming(t, other, "a"))
		assert.ErrorIs(t, err, jose.ErrSignature)
		_, err = verify(t, k, naming(t, key(t, "RS256", "r"), "a"))
		assert.ErrorIs(t, err, keyset.ErrUnknownKey, "another algorithm")
		assert.Equal(t, 1, s.count())
		_, err = verify(t, k, naming(t, b, "b"))
		assert.NoError(t, err)
		assert.Equal(t, 2, s.count())
	})
	for name, body := range map[string]string{
		"HTML":                   "<html>",
		"nothing":                "",
		"a private key":          string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")})),
		"a JWK of another kid":   string(b.PublicJWK()),
		"a private JWK":          string(a.PrivateJWK()),
		"a malformed public key": "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
		"more than 64 KiB":       pemOf(t, a) + strings.Repeat("\n", 64<<10),
	} {
		t.Run("an answer that is not a key verifies nothing: "+name, func(t *testing.T) {
			s := shelve(t)
			s.bodies["a"] = body
			_, err := verify(t, s.open(t), naming(t, a, "a"))
			assert.Error(t, err)
		})
	}
	for name, body := range map[string]string{"PEM": pemOf(t, a), "PEM and a line break": "\n" + pemOf(t, a) + "\n", "a JWK": string(a.PublicJWK())} {
		t.Run("a key is read from "+name, func(t *testing.T) {
			s := shelve(t)
			s.bodies["a"] = body
			_, err := verify(t, s.open(t), naming(t, a, "a"))
			assert.NoError(t, err)
		})
	}
	for _, status := range []int{400, 403, 404, 410} {
		bubble(t, fmt.Sprintf("an unknown kid with the status %d is refused, no failure, and looked up again after the interval", status), func(t *testing.T) {
			s := shelve(t, a)
			s.status = status
			k := s.open(t)
			for range 3 {
				_, err := verify(t, k, naming(t, a, "a"))
				assert.ErrorIs(t, err, keyset.ErrUnknownKey)
				assert.ErrorContains(t, err, fmt.Sprint("status ", status))
			}
			assert.Equal(t, 1, s.count())
			assert.Equal(t, valetkey.Ready, k.Health().State)
			s.set(func(s *shelf) { s.status = 0 })
			time.Sleep(keyset.DefaultMinRefetchInterval + time.Second)
			_, err := verify(t, k, naming(t, a, "a"))
			assert.NoError(t, err)
			assert.Equal(t, 2, s.count())
		})
	}
	bubble(t, "while no key is held, a failure is unavailable, and the next token retries after the backoff", func(t *testing.T) {
		s := shelve(t, a)
		s.err = errors.New("out of reach")
		k := s.open(t)
		_, err := verify(t, k, naming(t, a, "a"))
		assert.ErrorContains(t, unavailable(t, err), "out of reach")
		assert.Equal(t, valetkey.Degraded, k.Health().State)
		require.NoError(t, k.Ready(t.Context()), "a process that is not ready would get no token, and fetch nothing")
		_, err = verify(t, k, naming(t, a, "a"))
		unavailable(t, err)
		assert.Equal(t, 1, s.count())
		s.set(func(s *shelf) { s.err = nil })
		time.Sleep(2 * time.Second)
		_, err = verify(t, k, naming(t, a, "a"))
		assert.NoError(t, err)
		assert.Equal(t, valetkey.Ready, k.Health().State)
	})
	bubble(t, "while a key is held, a made-up kid is refused even if nothing answers", func(t *testing.T) {
		s := shelve(t, a)
		k := s.open(t)
		_, err := verify(t, k, naming(t, a, "a"))
		require.NoError(t, err)
		s.set(func(s *shelf) { s.status = 503 })
		_, err = verify(t, k, naming(t, other, "made-up"))
		require.ErrorIs(t, err, keyset.ErrUnknownKey)
		assert.NotErrorAs(t, err, new(*valetkey.Unavailable))
		assert.Equal(t, valetkey.Degraded, k.Health().State)
		_, err = verify(t, k, naming(t, a, "a"))
		assert.NoError(t, err)
	})
	bubble(t, "a caller waits for at most two seconds, and the fetch goes on", func(t *testing.T) {
		s := shelve(t, a)
		s.delay = 4 * time.Second
		k := s.open(t)
		start := time.Now()
		_, err := verify(t, k, naming(t, a, "a"))
		unavailable(t, err)
		assert.Equal(t, 2*time.Second, time.Since(start))
		time.Sleep(3 * time.Second)
		_, err = verify(t, k, naming(t, a, "a"))
		assert.NoError(t, err)
		assert.Equal(t, 1, s.count())
	})
	bubble(t, "made-up kids cause ten fetches at once and ten per interval, and displace no key in use", func(t *testing.T) {
		s := shelve(t, a, b)
		k := s.open(t)
		held, err := verify(t, k, naming(t, a, "a"))
		require.NoError(t, err)
		flood := func() (before, after int) {
			before = s.count()
			for i := range 500 {
				_, err := verify(t, k, naming(t, other, fmt.Sprint("made-up-", time.Now().Unix(), "-", i)))
				require.ErrorIs(t, err, keyset.ErrUnknownKey)
			}
			return before, s.count()
		}
		before, after := flood()
		assert.Equal(t, 9, after-before, "ten with that of the key")
		_, err = verify(t, k, naming(t, b, "b"))
		assert.ErrorIs(t, err, keyset.ErrUnknownKey, "the budget is used up")
		for range 40 {
			time.Sleep(keyset.DefaultMinRefetchInterval)
			before, after = flood()
			assert.Equal(t, 10, after-before)
		}
		before = s.count()
		_, err = verify(t, k, naming(t, a, "a"))
		assert.NoError(t, err)
		assert.True(t, held.Holds())
		assert.Equal(t, before, s.count(), "it is still held")
		time.Sleep(keyset.DefaultMinRefetchInterval)
		_, err = verify(t, k, naming(t, b, "b"))
		assert.NoError(t, err)
	})
	bubble(t, "while no key is held and the budget is used up, a token is unavailable for a while", func(t *testing.T) {
		s := shelve(t, a)
		k := s.open(t)
		for i := range 50 {
			_, err := verify(t, k, naming(t, other, fmt.Sprint("made-up-", i)))
			require.Error(t, err)
		}
		_, err := verify(t, k, naming(t, a, "a"))
		assert.Equal(t, 3*time.Second, unavailable(t, err).RetryAfter)
		time.Sleep(3 * time.Second)
		_, err = verify(t, k, naming(t, a, "a"))
		assert.NoError(t, err)
	})
	bubble(t, "of more keys than are held, those used least recently are fetched again", func(t *testing.T) {
		s := shelve(t, a)
		k := s.open(t, func(c *keyset.Config) { c.MinRefetchInterval = time.Second })
		pem := pemOf(t, b)
		use := func(kid string) {
			_, err := verify(t, k, naming(t, b, kid))
			require.NoError(t, err)
		}
		for i := range 101 {
			kid := fmt.Sprint("k", i)
			s.set(func(s *shelf) { s.bodies[kid] = pem })
			use(kid)
			time.Sleep(time.Second)
		}
		before := s.count()
		use("k1")
		assert.Equal(t, before, s.count())
		use("k0")
		assert.Equal(t, before+1, s.count())
	})
}

func TestByIDRefresh(t *testing.T) {
	a, other := key(t, "ES256", "a"), key(t, "ES256", "a")
	start := func(t *testing.T) (*shelf, *keyset.ByID, *keyset.Key) {
		s := shelve(t, a)
		k := s.open(t)
		key, err := verify(t, k, naming(t, a, "a"))
		require.NoError(t, err)
		return s, k, key
	}
	bubble(t, "a key in use is fetched again within a day and stays the same", func(t *testing.T) {
		s, k, key := start(t)
		time.Sleep(11 * time.Hour)
		synctest.Wait()
		assert.Equal(t, 1, s.count())
		time.Sleep(9 * time.Hour)
		synctest.Wait()
		assert.Equal(t, 2, s.count())
		again, err := verify(t, k, naming(t, a, "a"))
		require.NoError(t, err)
		assert.Same(t, key, again)
		assert.True(t, key.Holds())
	})
	bubble(t, "a key that is not in use is not fetched again, and ends after a day", func(t *testing.T) {
		s, _, key := start(t)
		time.Sleep(20 * time.Hour) // the fetch that its first use causes
		time.Sleep(47 * time.Hour)
		synctest.Wait()
		assert.Equal(t, 2, s.count())
		assert.False(t, key.Holds())
	})
	for _, status := range []int{404, 410} {
		bubble(t, fmt.Sprintf("the status %d withdraws a key", status), func(t *testing.T) {
			s, k, key := start(t)
			s.set(func(s *shelf) { s.status = status })
			time.Sleep(20 * time.Hour)
			synctest.Wait()
			assert.False(t, key.Holds())
			_, err := verify(t, k, naming(t, a, "a"))
			assert.ErrorIs(t, err, keyset.ErrUnknownKey)
		})
	}
	bubble(t, "another key under the same kid replaces the key", func(t *testing.T) {
		s, k, key := start(t)
		s.set(func(s *shelf) { s.bodies["a"] = pemOf(t, other) })
		time.Sleep(20 * time.Hour)
		synctest.Wait()
		assert.False(t, key.Holds())
		_, err := verify(t, k, naming(t, a, "a"))
		assert.ErrorIs(t, err, jose.ErrSignature)
		_, err = verify(t, k, naming(t, other, "a"))
		assert.NoError(t, err)
	})
	for name, change := range map[string]func(*shelf){
		"nothing answers":         func(s *shelf) { s.err = errors.New("out of reach") },
		"the access is denied":    func(s *shelf) { s.status = 403 },
		"the answer is malformed": func(s *shelf) { s.bodies["a"] = "x" },
	} {
		bubble(t, "while "+name+", a key is kept for StaleIfError", func(t *testing.T) {
			s, k, key := start(t)
			s.set(change)
			time.Sleep(24*time.Hour + keyset.DefaultStaleIfError - time.Second)
			synctest.Wait()
			assert.True(t, key.Holds())
			assert.Equal(t, valetkey.Degraded, k.Health().State)
			_, err := verify(t, k, naming(t, a, "a"))
			assert.NoError(t, err)
			time.Sleep(2 * time.Second)
			synctest.Wait()
			assert.False(t, key.Holds())
		})
	}
	bubble(t, "Close withdraws the keys", func(t *testing.T) {
		_, k, key := start(t)
		k.Close()
		k.Close()
		assert.False(t, key.Holds())
		_, err := verify(t, k, naming(t, a, "a"))
		unavailable(t, err)
		assert.Equal(t, valetkey.Down, k.Health().State)
		assert.Error(t, k.Ready(t.Context()))
	})
}
