package valetkeytest_test

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/valetkeytest"
)

// fetched is what one exchange came to.
type fetched struct {
	status int
	header http.Header
	body   []byte
	err    error // of the exchange, or of the body
}

// fetch asks for url as it is: no redirect is followed, nothing unpacked, and no more than 1 MiB read.
func fetch(iss *valetkeytest.Issuer, url string, header ...string) fetched {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		return fetched{err: err}
	}
	req.Header.Set("Accept-Encoding", "identity")
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	client := *iss.Client()
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	res, err := client.Do(req)
	if err != nil {
		return fetched{err: err}
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	return fetched{res.StatusCode, res.Header, body, err}
}

func TestFaults(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	right := iss.JWKS()
	ks := iss.KeySet
	tests := []struct {
		name  string
		order func() *valetkeytest.Fault
		check func(t *testing.T, f fetched)
	}{
		{"down", ks.Down, func(t *testing.T, f fetched) {
			assert.Error(t, f.err)
			assert.Zero(t, f.status)
		}},
		{"fail", func() *valetkeytest.Fault { return ks.Fail(503, "Retry-After: 7", "X-A: b:c") }, func(t *testing.T, f fetched) {
			assert.Equal(t, 503, f.status)
			assert.Equal(t, "7", f.header.Get("Retry-After"))
			assert.Equal(t, "b:c", f.header.Get("X-A"))
		}},
		{"redirect", func() *valetkeytest.Fault { return ks.Redirect("http://127.0.0.1:1/x") }, func(t *testing.T, f fetched) {
			assert.Equal(t, 302, f.status)
			assert.Equal(t, "http://127.0.0.1:1/x", f.header.Get("Location"))
		}},
		{"garbage", ks.Garbage, func(t *testing.T, f fetched) {
			assert.Equal(t, 200, f.status)
			assert.Contains(t, f.header.Get("Content-Type"), "text/html")
			assert.False(t, json.Valid(f.body))
		}},
		{"empty", ks.Empty, func(t *testing.T, f fetched) {
			assert.Equal(t, 200, f.status)
			assert.JSONEq(t, `{"keys":[]}`, string(f.body))
		}},
		{"answer", func() *valetkeytest.Fault { return ks.Answer(`{"a":1}`) }, func(t *testing.T, f fetched) {
			assert.Equal(t, 200, f.status)
			assert.Equal(t, "application/json", f.header.Get("Content-Type"))
			assert.Equal(t, `{"a":1}`, string(f.body))
		}},
		{"truncated", ks.Truncated, func(t *testing.T, f fetched) {
			assert.Equal(t, 200, f.status)
			assert.NoError(t, f.err)
			assert.Equal(t, right[:len(right)/2], f.body)
		}},
		{"reset", ks.Reset, func(t *testing.T, f fetched) {
			assert.Equal(t, 200, f.status)
			assert.ErrorIs(t, f.err, io.ErrUnexpectedEOF)
			assert.Equal(t, right[:len(right)/2], f.body)
		}},
		{"compressed", ks.Compressed, func(t *testing.T, f fetched) {
			assert.Equal(t, "gzip", f.header.Get("Content-Encoding"))
			z, err := gzip.NewReader(strings.NewReader(string(f.body)))
			require.NoError(t, err)
			body, err := io.ReadAll(z)
			assert.NoError(t, err)
			assert.Equal(t, right, body)
		}},
		{"endless", ks.Endless, func(t *testing.T, f fetched) {
			assert.NoError(t, f.err)
			assert.Len(t, f.body, 1<<20)
		}},
	}
	hits := 0
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			// Once on a fresh connection, once on one that the client has kept.
			assert.Equal(t, right, fetch(iss, ks.URL).body)
			tt.order().Times(2)
			tt.check(t, fetch(iss, ks.URL))
			assert.Equal(t, 200, fetch(iss, iss.Metadata.URL).status, "the other endpoints are well")
			tt.check(t, fetch(iss, ks.URL))
			assert.Equal(t, right, fetch(iss, ks.URL).body, "a fault ends after its times")

			tt.order()
			tt.check(t, fetch(iss, ks.URL))
			ks.Restore()
			assert.Equal(t, right, fetch(iss, ks.URL).body)
			hits += 6
			assert.Equal(t, hits, ks.Hits(), "no client has asked again by itself")
		})
	}
}

func TestEmptyDocumentsOfTheOthers(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	iss.Metadata.Empty()
	assert.Equal(t, `{}`, string(fetch(iss, iss.Metadata.URL).body))
}

func TestSlowEndsWithItsTime(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	iss.KeySet.Slow(30 * time.Millisecond)
	start := time.Now()
	assert.Equal(t, iss.JWKS(), fetch(iss, iss.KeySet.URL).body)
	assert.GreaterOrEqual(t, time.Since(start), 30*time.Millisecond)

	iss.KeySet.Fail(500)
	start = time.Now()
	assert.Equal(t, 500, fetch(iss, iss.KeySet.URL).status)
	assert.GreaterOrEqual(t, time.Since(start), 30*time.Millisecond, "a fault can be slow too")
}

// The requests here would take an hour; an issuer whose cleanup waited for them would, too.
func TestSlowAndEndlessEndWithTheTest(t *testing.T) {
	ends := make(chan error, 2)
	t.Run("a test that leaves requests behind", func(t *testing.T) {
		iss := valetkeytest.NewIssuer(t, valetkeytest.OpenIntrospection())
		iss.Introspection.Slow(time.Hour)
		iss.KeySet.Endless()
		go func() {
			_, err := iss.Client().Post(iss.Introspection.URL, "application/x-www-form-urlencoded", strings.NewReader("token=x"))
			ends <- err
		}()
		go func() {
			res, err := iss.Client().Get(iss.KeySet.URL)
			if err == nil {
				_, err = io.Copy(io.Discard, res.Body)
			}
			ends <- err
		}()
		require.Eventually(t, func() bool { return iss.Introspection.Hits()+iss.KeySet.Hits() == 2 }, time.Minute, time.Millisecond)
	})
	assert.Error(t, <-ends)
	assert.Error(t, <-ends)
}

func TestSlowEndsWithItsClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		iss := valetkeytest.NewIssuer(t, valetkeytest.InMemory())
		served := false
		iss.Introspection.Serve(func(http.ResponseWriter, *http.Request) { served = true })
		iss.Introspection.Slow(time.Hour)
		client := *iss.Client()
		client.Timeout = time.Second
		_, err := client.Post(iss.Introspection.URL, "application/x-www-form-urlencoded", strings.NewReader("token=x"))
		require.Error(t, err)
		time.Sleep(2 * time.Hour)
		assert.False(t, served, "an answer for a client that has gone")
	})
}

func TestDocumentsAreConditional(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	first := fetch(iss, iss.KeySet.URL)
	etag := first.header.Get("ETag")
	require.NotEmpty(t, etag)
	assert.Empty(t, first.header.Get("Cache-Control"))

	same := fetch(iss, iss.KeySet.URL, "If-None-Match", etag)
	assert.Equal(t, 304, same.status)
	assert.Empty(t, same.body)

	iss.Rotate()
	other := fetch(iss, iss.KeySet.URL, "If-None-Match", etag)
	assert.Equal(t, 200, other.status)
	assert.NotEqual(t, etag, other.header.Get("ETag"))

	iss.KeySet.MaxAge(time.Hour)
	assert.Equal(t, "max-age=3600", fetch(iss, iss.KeySet.URL).header.Get("Cache-Control"))
	iss.KeySet.MaxAge(-1)
	assert.Equal(t, "no-store", fetch(iss, iss.KeySet.URL).header.Get("Cache-Control"))

	assert.Equal(t, 5, iss.KeySet.Hits())
	assert.Equal(t, 1, iss.KeySet.NotModified())
}
