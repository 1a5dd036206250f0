package middleware_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/middleware"
)

func TestSessionThatCannotMatch(t *testing.T) {
	// A token is "sid" or "sid~issuer".
	v := valetkey.VerifierFunc(func(_ context.Context, raw string) (*valetkey.Token, error) {
		sid, issuer, _ := strings.Cut(raw, "~")
		if issuer == "" {
			issuer = "i"
		}
		return valetkey.NewToken(valetkey.TokenFields{Issuer: issuer, SessionID: strings.TrimPrefix(sid, "none"), Subject: "alice",
			Freshness: valetkey.Freshness{Until: time.Now().Add(time.Hour)}}), nil
	})
	session := valetkey.Revocation{Issuer: "i", SessionID: "s"}
	for name, test := range map[string]struct {
		steps []any // tokens and revocations
		want  int   // issuers
	}{
		"a session, and a token with another sid":           {[]any{session, "other"}, 0},
		"a session, and a token of another issuer":          {[]any{session, "none~j"}, 0},
		"a subject, and a token without sid":                {[]any{valetkey.Revocation{Issuer: "i", Subject: "bob"}, "none"}, 0},
		"a session, and then a token without sid":           {[]any{session, "none"}, 1},
		"a token without sid, and then a session":           {[]any{"none", session}, 1},
		"sessions and tokens without sid of two issuers":    {[]any{session, "none", valetkey.Revocation{Issuer: "j", SessionID: "s"}, "none~j"}, 2},
		"a token without sid, and then two sessions of it":  {[]any{"none", session, session}, 1},
		"tokens with and without sid, and then one session": {[]any{"other", "none", session}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			guard := guardWith(t, v, func(cfg *middleware.Config) { cfg.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
			api := serve(t, guard.Handler(hello))
			for _, step := range test.steps {
				switch step := step.(type) {
				case string:
					require.Equal(t, 200, do(t, "GET", api, "Bearer "+step).status)
				case valetkey.Revocation:
					require.NoError(t, guard.Revoke(step))
				}
			}
			status := guard.Status()
			assert.Equal(t, test.want, status.Revocations.Unmatched)
			assert.Equal(t, test.want, strings.Count(log.String(), "so far has a sid"))
			assert.Equal(t, valetkey.Ready, status.State)
		})
	}
	t.Run("more than 1,024 issuers", func(t *testing.T) {
		guard := guardWith(t, v)
		var all []valetkey.Revocation
		for i := range 1025 {
			all = append(all, valetkey.Revocation{Issuer: fmt.Sprint("issuer-", i), SessionID: "s"})
		}
		require.NoError(t, guard.Revoke(all...))
		for i, want := range map[int]int{0: 1, 1023: 1, 1024: 0} {
			before := guard.Status().Revocations.Unmatched
			require.NoError(t, guard.DecideToken(t.Context(), fmt.Sprint("none~issuer-", i)).Err())
			assert.Equal(t, before+want, guard.Status().Revocations.Unmatched, "issuer-%d", i)
		}
	})
	t.Run("a malformed session, and a token without sid", func(t *testing.T) {
		guard := guardWith(t, v)
		require.Error(t, guard.Revoke(valetkey.Revocation{Issuer: "i", SessionID: "s", ID: "x"}))
		require.NoError(t, guard.DecideToken(t.Context(), "none").Err())
		assert.Zero(t, guard.Status().Revocations.Unmatched)
	})
}

func TestSessionsMatchOnceATokenHasOne(t *testing.T) {
	v := valetkey.VerifierFunc(func(_ context.Context, raw string) (*valetkey.Token, error) {
		return valetkey.NewToken(valetkey.TokenFields{Issuer: "i", SessionID: strings.TrimPrefix(raw, "none"),
			Freshness: valetkey.Freshness{Until: time.Now().Add(time.Hour)}}), nil
	})
	guard := guardWith(t, v)
	api := serve(t, guard.Handler(hello))
	require.NoError(t, guard.Revoke(valetkey.Revocation{Issuer: "i", SessionID: "s"}))
	require.Equal(t, 200, do(t, "GET", api, "Bearer none").status)
	assert.Equal(t, 1, guard.Status().Revocations.Unmatched)
	require.Equal(t, 200, do(t, "GET", api, "Bearer other").status)
	assert.Zero(t, guard.Status().Revocations.Unmatched)
	assert.Equal(t, 401, do(t, "GET", api, "Bearer s").status)
}
