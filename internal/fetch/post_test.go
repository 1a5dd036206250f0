package fetch_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/internal/fetch"
)

func TestPost(t *testing.T) {
	var hits atomic.Int32
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		hits.Add(1)
		r.ParseForm()
		w.Header().Set("Content-Type", "Application/JSON; charset=utf-8")
		fmt.Fprintf(w, "%s|%s|%s|%s|%s|%t", r.Method, r.PostForm.Encode(), r.Header.Get("Accept"), r.Header.Get("Accept-Encoding"),
			r.Header.Get("Authorization"), r.Header["Idempotency-Key"] == nil)
	})
	mux.HandleFunc("/html", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "<html>") })
	mux.HandleFunc("/text", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "\xef\xbb\xbf{}") })
	mux.HandleFunc("/redirect", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/", http.StatusTemporaryRedirect)
	})
	mux.HandleFunc("/busy", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	mux.HandleFunc("/refused", func(w http.ResponseWriter, r *http.Request) {
		r.ParseForm()
		w.Header().Set("DPoP-Nonce", "n")
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprintf(w, `{"error":"%s|%s"}`, r.PostForm.Encode(), r.Header.Get("Authorization"))
	})
	mux.HandleFunc("/limited", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", "9")
		w.WriteHeader(http.StatusTooManyRequests)
	})
	mux.HandleFunc("/endless", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		for {
			if _, err := io.WriteString(w, strings.Repeat(" ", 4096)); err != nil {
				return
			}
		}
	})
	mux.HandleFunc("/packed", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Encoding", "gzip")
		w.Write(pack([]byte("{}")))
	})
	bomb := pack(make([]byte, 10<<20))
	mux.HandleFunc("/bomb", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Encoding", "gzip")
		w.Write(bomb)
	})
	mux.HandleFunc("/brotli", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Encoding", "br")
		io.WriteString(w, "{}")
	})
	mux.HandleFunc("/cut", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", "100")
		io.WriteString(w, "{}")
	})
	s := httptest.NewServer(mux)
	defer s.Close()
	client := fetch.Client{HTTP: s.Client()}
	form := url.Values{"token": {"secret &="}}
	post := func(u string) ([]byte, error) {
		return client.Post(t.Context(), u, form, http.Header{"Authorization": {"Basic x"}}, "application/json")
	}

	t.Run("JSON that is called text is taken, without its byte order mark", func(t *testing.T) {
		body, err := post(s.URL + "/text")
		require.NoError(t, err)
		assert.Equal(t, "{}", string(body))
	})
	t.Run("gzip is unpacked, though it was not requested", func(t *testing.T) {
		body, err := post(s.URL + "/packed")
		require.NoError(t, err)
		assert.Equal(t, "{}", string(body))
	})
	for _, c := range []struct {
		name, url, want string
		status          int
		retry           time.Duration
		content         bool
	}{
		{"a redirect is not followed", s.URL + "/redirect", "redirects are not followed", 307, 0, false},
		{"another media type", s.URL + "/html?secret", `is "text/html; charset=utf-8", not application/json`, 200, 0, false},
		{"an answer without end", s.URL + "/endless", "more than", 200, 0, true},
		{"gzip of 10 MiB", s.URL + "/bomb", "more than 524288 bytes", 200, 0, true},
		{"a coding other than gzip", s.URL + "/brotli", `coding "br"`, 200, 0, true},
		{"an answer that is cut off", s.URL + "/cut", "unexpected EOF", 200, 0, true},
		{"patience", s.URL + "/busy", "status 503", 503, 7 * time.Second, false},
		{"http beyond loopback", "http://as.example.com/", "not https", 0, 0, false},
		{"no server", "http://127.0.0.1:1/secret?secret", "connect", 0, 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := hits.Load()
			body, err := post(c.url)
			assert.Nil(t, body)
			_, submitted := client.Submit(t.Context(), c.url, form, nil)
			assert.ErrorContains(t, submitted, c.want)
			var e *fetch.Error
			require.ErrorAs(t, err, &e)
			assert.ErrorContains(t, err, c.want)
			assert.Equal(t, c.status, e.Status)
			assert.Equal(t, c.retry, e.RetryAfter)
			assert.Equal(t, c.content, e.Content)
			assert.NotContains(t, err.Error(), "secret &=")
			assert.NotContains(t, err.Error(), "?secret")
			assert.Equal(t, before, hits.Load())
		})
	}
	t.Run("an answer that does not end in time", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			patience := &http.Client{Timeout: time.Second, Transport: roundTripper(func(r *http.Request) (*http.Response, error) { // of a caller's own
				body, answer := io.Pipe()
				context.AfterFunc(r.Context(), func() { answer.CloseWithError(r.Context().Err()) })
				return &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"application/json"}}, ContentLength: -1, Body: body, Request: r}, nil
			})}
			begun := time.Now()
			_, err := fetch.Client{HTTP: patience}.Post(t.Context(), "https://as.example.com/slow", form, nil, "application/json")
			var e *fetch.Error
			require.ErrorAs(t, err, &e)
			assert.ErrorIs(t, err, context.DeadlineExceeded)
			assert.Equal(t, 200, e.Status)
			assert.False(t, e.Content)
			assert.Equal(t, time.Second, time.Since(begun))
		})
	})
	t.Run("the form arrives, and the right answer comes back", func(t *testing.T) {
		body, err := post(s.URL)
		require.NoError(t, err)
		assert.Equal(t, "POST|token=secret+%26%3D|application/json|identity|Basic x|true", string(body))
		body, err = client.Post(t.Context(), s.URL, form, nil, "application/json")
		require.NoError(t, err)
		assert.Contains(t, string(body), "identity||")
	})
	t.Run("Submit returns the response that describes an error", func(t *testing.T) {
		reply, err := client.Submit(t.Context(), s.URL+"/refused", form, http.Header{"Authorization": {"Basic x"}})
		require.NoError(t, err)
		assert.Equal(t, 400, reply.Status)
		assert.Equal(t, "n", reply.Header.Get("DPoP-Nonce"))
		assert.Equal(t, `{"error":"token=secret+%26%3D|Basic x"}`, string(reply.Body))
		reply, err = client.Submit(t.Context(), s.URL, form, nil)
		require.NoError(t, err)
		assert.Equal(t, 200, reply.Status)
		assert.Contains(t, string(reply.Body), "application/json")
		_, err = client.Submit(t.Context(), s.URL+"/limited", form, nil)
		var e *fetch.Error
		require.ErrorAs(t, err, &e)
		assert.Equal(t, 9*time.Second, e.RetryAfter)
	})
	t.Run("the caller's context ends it", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := client.Post(ctx, s.URL, form, nil, "application/json")
		assert.True(t, errors.Is(err, context.Canceled))
	})
}

// A server may close an idle connection at the very moment that a request is sent on it.
func TestPostOnAConnectionThatHasJustDied(t *testing.T) {
	var requests atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if requests.Add(1) == 2 {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				conn.(*net.TCPConn).SetLinger(0)
				conn.Close()
			}
			return
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, "{}")
	}))
	defer s.Close()
	client := fetch.Client{HTTP: s.Client()}
	for range 2 {
		body, err := client.Post(t.Context(), s.URL, url.Values{"token": {"x"}}, nil, "application/json")
		require.NoError(t, err)
		assert.Equal(t, "{}", string(body))
	}
	assert.EqualValues(t, 3, requests.Load())
}
