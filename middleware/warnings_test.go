package middleware_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/scopes"
	"github.com/valetkey/valetkey/valetkeytest"
)

// warningsOf returns the lines that a guard logs at level Warn while it refuses a request with each of tokens.
func warningsOf(t *testing.T, v valetkey.Verifier, tokens ...string) []string {
	t.Helper()
	var log bytes.Buffer
	guard := guardWith(t, v, func(c *middleware.Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	h := guard.Handler(hello, scopes.All("orders:read"))
	for _, token := range tokens {
		w := httptest.NewRecorder()
		r := httptest.NewRequest("GET", "/orders", nil)
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		h.ServeHTTP(w, r)
		require.Contains(t, []int{http.StatusUnauthorized, http.StatusForbidden}, w.Code)
		for part := range strings.SplitSeq(token, ".") {
			if len(part) > 8 {
				assert.NotContains(t, log.String(), part, "a part of the token")
			}
		}
	}
	return strings.Split(strings.TrimSpace(log.String()), "\n")
}

func TestWarnings(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	keysOf := func(change ...func(*jwks.Config)) *jwks.Verifier {
		cfg := jwks.Config{Issuer: iss.URL, Audience: []string{audience}, JWKS: iss.JWKS(), Now: iss.Now, Logger: quiet}
		for _, f := range change {
			f(&cfg)
		}
		keys, err := jwks.New(cfg)
		require.NoError(t, err)
		t.Cleanup(keys.Close)
		return keys
	}
	keys := keysOf()
	wrong := func(issuer string) *jwks.Verifier { return keysOf(func(c *jwks.Config) { c.Issuer = issuer }) }
	for _, c := range []struct {
		name     string
		verifier valetkey.Verifier
		token    string
		reason   string
		want     []string // in the line
	}{
		{"an issuer with a slash more", wrong(iss.URL + "/"), iss.Token(), "issuer", []string{`issuer: "` + iss.URL + `" in the token, "` + iss.URL + `/" configured`}},
		{"another audience", keys, iss.Token(valetkeytest.WrongAudience()), "audience", []string{`audience: "https://wrong-audience.example.com" in the token, "` + audience + `" configured`}},
		{"another type", keys, iss.Token(valetkeytest.Type("JWT")), "not_access_token", []string{`typ: "JWT" in the token, "at+jwt" configured`, "AllowUntyped"}},
		{"another algorithm", keysOf(func(c *jwks.Config) { c.Algorithms = []string{"RS256"} }), iss.Token(), "algorithm", []string{`alg: "ES256" in the token, "RS256" configured`}},
		{"an unknown key", keys, iss.Token(valetkeytest.KeyID("other")), "unknown_key", []string{`kid "other"`, iss.URL}},
		{"a token that is not a JWT", keys, "opaque", "not_jwt", nil},
		{"a missing claim", keys, iss.Token(valetkeytest.Claim("jti", nil)), "claim_malformed", []string{"jti is missing, and Profile.AllowMissingID is off"}},
		{"a clock that is late", keys, iss.Token(valetkeytest.NotYetValid()), "not_yet_valid", nil},
		{"no verifier of several", valetkey.First(wrong("https://a.example"), wrong("https://b.example")), iss.Token(), "untrusted_issuer",
			[]string{`issuer: "` + iss.URL + `" in the token, "https://a.example" configured; issuer: "` + iss.URL + `" in the token, "https://b.example" configured`}},
	} {
		t.Run(c.name+" is a warning with both values", func(t *testing.T) {
			lines := warningsOf(t, c.verifier, c.token)
			require.Len(t, lines, 1)
			line := strings.ReplaceAll(lines[0], `\"`, `"`)
			assert.Contains(t, line, `level=WARN msg="requests refused, perhaps because of the configuration" reason=`+c.reason+" ")
			for _, want := range c.want {
				assert.Contains(t, line, want)
			}
		})
	}
	for name, token := range map[string]string{
		"no token":         "",
		"an expired token": iss.Token(valetkeytest.Expired()),
		"a missing scope":  iss.Token(valetkeytest.Scopes("files")),
		"a malformed one":  "a b",
	} {
		t.Run(name+" is none", func(t *testing.T) {
			var log bytes.Buffer
			guard := guardWith(t, keys, func(c *middleware.Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
			r := httptest.NewRequest("GET", "/", nil)
			if token != "" {
				r.Header.Set("Authorization", "Bearer "+token)
			}
			require.NotEqual(t, 200, guard.Decide(r, scopes.All("orders:read")).Status())
			assert.Empty(t, log.String())
		})
	}
	t.Run("one line per reason and minute, which counts the others", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var log bytes.Buffer
			guard := guardWith(t, keys, func(c *middleware.Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
			refuse := func(token string) string {
				log.Reset()
				require.Equal(t, 401, guard.DecideToken(t.Context(), token).Status())
				return log.String()
			}
			audience, algorithm := iss.Token(valetkeytest.WrongAudience()), iss.Token(valetkeytest.Type("x"))
			assert.Contains(t, refuse(audience), "refusals=1\n")
			assert.Empty(t, refuse(audience))
			assert.Contains(t, refuse(algorithm), "refusals=1\n", "another reason")
			time.Sleep(time.Minute - 1)
			assert.Empty(t, refuse(audience))
			time.Sleep(time.Nanosecond)
			assert.Contains(t, refuse(audience), "refusals=3\n")
		})
	})
	t.Run("what a verifier takes from a token is bounded and escaped", func(t *testing.T) {
		careless := valetkey.VerifierFunc(func(context.Context, string) (*valetkey.Token, error) {
			return nil, &valetkey.Error{Code: valetkey.InvalidToken, Reason: valetkey.ReasonIssuer, Err: errors.New("\x1b[2J\nlevel=ERROR " + strings.Repeat("é", 4<<10))}
		})
		var got slog.Record
		guard := guardWith(t, careless, func(c *middleware.Config) { c.Logger = slog.New(keep{&got}) })
		guard.DecideToken(t.Context(), "x")
		got.Attrs(func(a slog.Attr) bool {
			if a.Key == "err" {
				assert.Less(t, len(a.Value.String()), 1100)
				assert.Contains(t, a.Value.String(), `\x1b[2J\nlevel=ERROR`)
			}
			return true
		})
		assert.Equal(t, 3, got.NumAttrs())
	})
}

// keep is a handler that escapes nothing.
type keep struct{ last *slog.Record }

func (k keep) Enabled(_ context.Context, l slog.Level) bool  { return l == slog.LevelWarn }
func (k keep) Handle(_ context.Context, r slog.Record) error { *k.last = r; return nil }
func (k keep) WithAttrs([]slog.Attr) slog.Handler            { return k }
func (k keep) WithGroup(string) slog.Handler                 { return k }
