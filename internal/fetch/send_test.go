package fetch_test

import (
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/internal/fetch"
)

func TestSend(t *testing.T) {
	t.Run("a response of any status is returned, with its Retry-After", func(t *testing.T) {
		for _, status := range []int{200, 204, 400, 409, 503} {
			c, url := serve(t, func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				assert.Equal(t, `{"a":1}`, string(body))
				assert.Equal(t, []string{"PATCH", "application/json", "Bearer x"}, []string{r.Method, r.Header.Get("Content-Type"), r.Header.Get("Authorization")})
				w.Header().Set("Retry-After", "7")
				w.WriteHeader(status)
			})
			sent, err := c.Send(background, fetch.Call{Method: "PATCH", URL: url, Body: []byte(`{"a":1}`), Header: http.Header{"Authorization": {"Bearer x"}}})
			require.NoError(t, err)
			assert.Equal(t, status, sent.Status)
			assert.Equal(t, status == 503, sent.RetryAfter == 7*time.Second)
		}
	})
	t.Run("a redirect is not followed", func(t *testing.T) {
		c, url := serve(t, func(w http.ResponseWriter, r *http.Request) {
			assert.Equal(t, "/", r.URL.Path)
			http.Redirect(w, r, "/other", http.StatusTemporaryRedirect)
		})
		sent, err := c.Send(background, fetch.Call{Method: "POST", URL: url + "/", Body: []byte(`{}`)})
		require.NoError(t, err)
		assert.Equal(t, 307, sent.Status)
	})
	t.Run("the body has a limit", func(t *testing.T) {
		c, url := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 101)) })
		c.MaxBody = 100
		_, err := c.Send(background, fetch.Call{Method: "GET", URL: url})
		assert.ErrorContains(t, err, "more than 100 bytes")
	})
	t.Run("the exchange has a limit", func(t *testing.T) {
		c, url := serve(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		_, err := c.Send(background, fetch.Call{Method: "GET", URL: url, Limit: 20 * time.Millisecond})
		assert.Error(t, err)
	})
	t.Run("a URL that is not allowed is not called", func(t *testing.T) {
		_, err := fetch.Client{}.Send(background, fetch.Call{Method: "GET", URL: "http://as.example/?key=s3cret"})
		assert.EqualError(t, err, "fetch http://as.example/: not https")
	})
}
