package valetredis_test

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/signals"
	"github.com/valetkey/valetkey/valetkeytest"
)

// One replica receives what the issuer sends, and all of them refuse the tokens.
func TestSignalsThroughRedis(t *testing.T) {
	p := startPair(t)
	received, err := signals.New(signals.Config{
		Delivery: signals.NoStream, Issuer: p.iss.URL, Publish: p.a.redis, Client: p.iss.Client(), Now: p.iss.Now,
		Logout: signals.LogoutConfig{Audience: []string{"orders-app"}}, Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	t.Cleanup(received.Close)
	session := func(sid string) string {
		return p.iss.Token(valetkeytest.Claim("sid", sid), valetkeytest.Claim("iat", p.iss.Now().Add(-time.Minute).Unix()))
	}
	logout := func(sid string) int {
		token := p.iss.Token(valetkeytest.Type("logout+jwt"), valetkeytest.Claim("aud", "orders-app"), valetkeytest.Claim("sid", sid),
			valetkeytest.Claim("iat", p.iss.Now().Unix()), valetkeytest.Claim("events", map[string]any{string(signals.Logout): map[string]any{}}))
		r := httptest.NewRequest("POST", "/", strings.NewReader(url.Values{"logout_token": {token}}.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		w := httptest.NewRecorder()
		received.Logout().ServeHTTP(w, r)
		return w.Code
	}

	t.Run("a session ends at both replicas", func(t *testing.T) {
		one, other := session("s1"), session("s2")
		require.True(t, p.a.serves(one, other) && p.b.serves(one, other))
		eventually(t, "redis has it", func() bool { return logout("s1") == http.StatusOK })
		eventually(t, "both refuse it", func() bool { return p.a.refuses(one) && p.b.refuses(one) })
		assert.True(t, p.a.serves(other) && p.b.serves(other))
	})
	t.Run("while redis is gone the sender must send again, and then the session ends", func(t *testing.T) {
		one := session("s3")
		require.True(t, p.b.serves(one))
		p.redis.kill()
		assert.Equal(t, http.StatusServiceUnavailable, logout("s3"))
		p.redis.start()
		eventually(t, "redis has it", func() bool { return logout("s3") == http.StatusOK })
		eventually(t, "both refuse it", func() bool { return p.a.refuses(one) && p.b.refuses(one) })
	})
	t.Run("the time from the logout token to the refusal at both", func(t *testing.T) {
		const n = 100
		var took []time.Duration
		for i := range n {
			sid := "timed-" + string(rune('a'+i/26)) + string(rune('a'+i%26))
			one := session(sid)
			require.True(t, p.a.serves(one) && p.b.serves(one))
			begun := time.Now()
			require.Eventually(t, func() bool { return logout(sid) == http.StatusOK }, soon, time.Millisecond)
			require.Eventually(t, func() bool { return p.a.refuses(one) && p.b.refuses(one) }, soon, time.Millisecond)
			took = append(took, time.Since(begun))
		}
		slices.Sort(took)
		t.Logf("half within %v, 99 of 100 within %v", took[n/2], took[n*99/100])
	})
}
