package valetkeytest_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/signals"
	"github.com/valetkey/valetkey/valetkeytest"
)

// A receiving is a guard that watches a receiver.
type receiving struct {
	iss      *valetkeytest.Issuer
	tr       *valetkeytest.Transmitter
	received *signals.Receiver
	guard    *middleware.Guard
}

// status returns the response to a request with a token that was issued a minute ago, before any event of the test.
func (r *receiving) status(opts ...valetkeytest.Option) int {
	opts = append([]valetkeytest.Option{valetkeytest.Claim("iat", r.iss.Now().Add(-time.Minute).Unix())}, opts...)
	res := httptest.NewRecorder()
	r.guard.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), valetkey.AnyToken).
		ServeHTTP(res, valetkeytest.Request("GET", "/", r.iss.Token(opts...)))
	return res.Code
}

// receives starts a receiver of all events.
func receives(t *testing.T, delivery signals.Delivery, change ...func(*signals.Config)) *receiving {
	iss := valetkeytest.NewIssuer(t)
	r := &receiving{iss: iss, tr: valetkeytest.NewTransmitter(t, iss)}
	cfg := signals.Config{
		Transmitter: r.tr.URL, Delivery: delivery, Credentials: r.tr.Credentials(), Events: signals.Events(), Logger: slog.New(slog.DiscardHandler),
		Logout: signals.LogoutConfig{Audience: []string{valetkeytest.ReceiverAudience}},
	}
	mux := http.NewServeMux()
	if delivery == signals.Push {
		server := httptest.NewServer(mux)
		t.Cleanup(server.Close)
		cfg.Endpoint, cfg.AuthorizationHeader = server.URL+"/signals", "Bearer push"
	}
	for _, c := range change {
		c(&cfg)
	}
	var err error
	r.received, err = signals.New(cfg)
	require.NoError(t, err)
	t.Cleanup(r.received.Close)
	mux.Handle("/signals", r.received.Handler())
	keys, err := jwks.New(jwks.Config{Issuer: iss.URL, Audience: []string{valetkeytest.DefaultAudience}, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	t.Cleanup(keys.Close)
	r.guard, err = middleware.New(middleware.Config{Verifier: keys, Revocations: middleware.Revocations{Source: r.received}, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{}, 2)
	go func() { r.received.Run(ctx); done <- struct{}{} }()
	go func() { r.guard.Watch(ctx); done <- struct{}{} }()
	t.Cleanup(func() { cancel(); <-done; <-done })
	require.NoError(t, r.received.Ready(t.Context()))
	require.Eventually(t, func() bool { return r.guard.Status().Revocations.Source.State == valetkey.Ready }, 20*time.Second, time.Millisecond)
	return r
}

func TestTransmitter(t *testing.T) {
	for _, delivery := range []signals.Delivery{signals.Push, signals.Poll} {
		t.Run(string(delivery), func(t *testing.T) {
			r := receives(t, delivery)
			require.Error(t, r.tr.SetStatus("asleep", ""))
			for name, set := range r.tr.WrongSETs(signals.AccountDisabled) {
				t.Run("refused: "+name, func(t *testing.T) {
					err := r.tr.Send(set)
					_, refused := errors.AsType[*valetkeytest.SETError](err)
					require.True(t, refused, "%v", err)
					require.Equal(t, 200, r.status())
				})
			}
			for _, event := range signals.Events() {
				if event == signals.Logout { // never in a stream
					continue
				}
				name := string(event[strings.LastIndexByte(string(event), '/')+1:])
				user := valetkeytest.Subject(name)
				t.Run("in force when Send returns: "+name, func(t *testing.T) {
					require.Equal(t, 200, r.status(user))
					require.NoError(t, r.tr.Send(r.tr.SET(event, valetkeytest.OfUser(name))))
					require.Equal(t, 401, r.status(user))
					require.Equal(t, 200, r.status(), "another user")
				})
			}
			t.Run("one session", func(t *testing.T) {
				require.NoError(t, r.tr.Send(r.tr.SET(signals.SessionRevoked, valetkeytest.OfSession("alice", "s1"))))
				require.Equal(t, 401, r.status(valetkeytest.SID("s1")))
				require.Equal(t, 200, r.status(valetkeytest.SID("s2")))
			})
			t.Run("one token", func(t *testing.T) {
				require.NoError(t, r.tr.Send(r.tr.SET(signals.SessionRevoked, valetkeytest.OfToken("t1"))))
				require.Equal(t, 401, r.status(valetkeytest.Claim("jti", "t1")))
				require.Equal(t, 200, r.status(valetkeytest.Claim("jti", "t2")))
			})
			t.Run("an email address without a resolver revokes nothing", func(t *testing.T) {
				require.NoError(t, r.tr.Send(r.tr.SET(signals.AccountDisabled, valetkeytest.OfEmail("alice@example.com"))))
				require.Equal(t, 200, r.status())
			})
			t.Run("an event that does not revoke", func(t *testing.T) {
				require.NoError(t, r.tr.Send(r.tr.SET(signals.RiskLevelChange, valetkeytest.EventMember("current_level", "LOW"))))
				require.Equal(t, 200, r.status())
			})
			t.Run("a verification proves the stream", func(t *testing.T) {
				require.Eventually(t, func() bool { return !r.received.Status().LastProof.IsZero() }, 20*time.Second, time.Millisecond)
			})
			t.Run("paused, and enabled again after a gap", func(t *testing.T) {
				is := func(status string) func() bool {
					return func() bool { return r.received.Status().Stream == status }
				}
				require.NoError(t, r.tr.SetStatus("paused", "maintenance"))
				require.Eventually(t, is("paused"), 20*time.Second, time.Millisecond)
				require.ErrorContains(t, r.tr.Send(r.tr.SET(signals.AccountDisabled)), "no stream")
				require.NoError(t, r.tr.SetStatus("enabled", ""))
				require.Eventually(t, is("enabled"), 20*time.Second, time.Millisecond)
				require.NotZero(t, r.received.Status().Gap.To)
			})
			require.Eventually(t, func() bool { return r.tr.Waiting() == 0 }, 20*time.Second, time.Millisecond)
		})
	}
	t.Run("a receiver that fails gets the SET again", func(t *testing.T) {
		r := receives(t, signals.Poll)
		r.tr.Poll.Fail(503).Times(2)
		require.NoError(t, r.tr.Send(r.tr.SET(signals.AccountDisabled)))
		require.Equal(t, 401, r.status())
	})
	t.Run("a logout token", func(t *testing.T) {
		r := receives(t, signals.Poll)
		post := func(token string) int {
			req := httptest.NewRequest("POST", "/logout", strings.NewReader(url.Values{"logout_token": {token}}.Encode()))
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			res := httptest.NewRecorder()
			r.received.Logout().ServeHTTP(res, req)
			return res.Code
		}
		require.Equal(t, 400, post(r.tr.LogoutToken(valetkeytest.TamperedSignature())))
		require.Equal(t, 400, post(r.tr.LogoutToken(valetkeytest.Claim("nonce", "x"))))
		require.Equal(t, 200, post(r.tr.LogoutToken(valetkeytest.SID("s1"))))
		require.Equal(t, []int{401, 200}, []int{r.status(valetkeytest.SID("s1")), r.status(valetkeytest.SID("s2"))})
	})
	t.Run("a receiver without the credentials gets nothing", func(t *testing.T) {
		iss := valetkeytest.NewIssuer(t)
		tr := valetkeytest.NewTransmitter(t, iss)
		for _, e := range []*valetkeytest.Endpoint{tr.Token, tr.Streams, tr.Status, tr.Verification, tr.Poll} {
			res, err := http.Post(e.URL, "application/json", strings.NewReader("{}"))
			require.NoError(t, err)
			res.Body.Close()
			require.Equal(t, 401, res.StatusCode, e.URL)
		}
	})
	t.Run("streams that are forgotten are made again", func(t *testing.T) {
		r := receives(t, signals.Poll)
		before := r.received.Status().StreamID
		r.tr.Forget()
		require.Eventually(t, func() bool {
			now := r.received.Status()
			return now.StreamID != before && now.State == valetkey.Degraded && !now.Gap.To.IsZero()
		}, 20*time.Second, time.Millisecond)
	})
}
