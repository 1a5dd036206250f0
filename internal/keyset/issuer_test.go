package keyset_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/fetch"
	"github.com/valetkey/valetkey/internal/jose"
	"github.com/valetkey/valetkey/internal/keyset"
)

// An issuer is the far end of HTTP in a synctest bubble, where no socket can be.
type issuer struct {
	mu     sync.Mutex
	answer http.HandlerFunc // nil: the connection is refused
	delay  time.Duration
	hits   int
}

func (i *issuer) RoundTrip(r *http.Request) (*http.Response, error) {
	i.mu.Lock()
	i.hits++
	answer, delay := i.answer, i.delay
	i.mu.Unlock()
	select {
	case <-time.After(delay):
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	if answer == nil {
		return nil, errors.New("connection refused")
	}
	w := httptest.NewRecorder()
	answer(w, r)
	return w.Result(), nil
}

// serves lets the issuer answer so from now on.
func (i *issuer) serves(answer http.HandlerFunc) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.answer = answer
}

func (i *issuer) slow(delay time.Duration) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.delay = delay
}

func (i *issuer) count() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.hits
}

// open returns the set of issuer i, which ends with the test.
func (i *issuer) open(t *testing.T, change ...func(*keyset.Config)) *keyset.Set {
	t.Helper()
	cfg := keyset.Config{
		JWKSURL: "https://as.example/jwks",
		Fetch:   fetch.Client{HTTP: &http.Client{Transport: i}},
		Logger:  slog.New(slog.DiscardHandler),
	}
	for _, f := range change {
		f(&cfg)
	}
	s, err := keyset.New(cfg)
	require.NoError(t, err)
	t.Cleanup(s.Close)
	return s
}

// keys answers with the public parts of these keys.
func keys(list ...*jose.PrivateKey) http.HandlerFunc {
	jwks := make([]json.RawMessage, len(list))
	for i, k := range list {
		jwks[i] = k.PublicJWK()
	}
	return raw(jwks...)
}

func raw(jwks ...json.RawMessage) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"keys": jwks})
	}
}

// forEncryption returns the public part of k, declared to be for encryption.
func forEncryption(k *jose.PrivateKey) json.RawMessage {
	return bytes.Replace(k.PublicJWK(), []byte(`"use":"sig"`), []byte(`"use":"enc"`), 1)
}

func text(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}
}

func key(t testing.TB, alg, id string) *jose.PrivateKey {
	t.Helper()
	k, err := jose.GenerateKey(alg, id)
	require.NoError(t, err)
	return k
}

// signed returns a token of k.
func signed(t testing.TB, k *jose.PrivateKey, header map[string]any) *jose.Compact {
	t.Helper()
	text, err := k.Sign(header, []byte(`{}`))
	require.NoError(t, err)
	c, err := jose.Parse(text)
	require.NoError(t, err)
	return c
}

func requireKey(t testing.TB, s *keyset.Set, k *jose.PrivateKey) *keyset.Key {
	t.Helper()
	got, err := s.Verify(context.Background(), signed(t, k, nil), keyset.Terms{})
	require.NoError(t, err)
	require.Equal(t, k.Public().Thumbprint(), got.Thumbprint())
	require.True(t, got.Holds())
	return got
}

func requireUnavailable(t testing.TB, err error) *valetkey.Unavailable {
	t.Helper()
	var u *valetkey.Unavailable
	require.ErrorAs(t, err, &u)
	require.GreaterOrEqual(t, u.RetryAfter, time.Second)
	return u
}

// took returns how long f takes.
func took(f func()) time.Duration {
	start := time.Now()
	f()
	return time.Since(start)
}
