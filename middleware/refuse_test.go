package middleware_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/valetkeytest"
)

func TestChallenge(t *testing.T) {
	guard := guardWith(t, valetkey.First(), func(c *middleware.Config) {
		c.Realm, c.ErrorURI = "orders", "https://docs.example.com/errors#x"
	})
	for _, c := range []struct {
		name string
		err  *valetkey.Error
		want string
	}{
		{"BT-06, BT-09 no credentials", &valetkey.Error{}, `Bearer realm="orders"`},
		{"no credentials never come with an error", &valetkey.Error{Description: "x"}, `Bearer realm="orders"`},
		{"BT-10, BT-13 every parameter once", &valetkey.Error{Code: "invalid_token", Description: "d", Scope: valetkey.NewScopes("a", "b")},
			`Bearer realm="orders", error="invalid_token", error_description="d", error_uri="https://docs.example.com/errors#x", scope="a b"`},
		{"BT-11 a quote and a backslash", &valetkey.Error{Code: "invalid_token", Description: `a "b" \c`},
			`Bearer realm="orders", error="invalid_token", error_description="a  b   c", error_uri="https://docs.example.com/errors#x"`},
		{"BT-11 a line break that would begin a header", &valetkey.Error{Code: "invalid_token", Description: "a\r\nSet-Cookie: x=y"},
			`Bearer realm="orders", error="invalid_token", error_description="a  Set-Cookie: x=y", error_uri="https://docs.example.com/errors#x"`},
		{"BT-11 letters beyond ASCII", &valetkey.Error{Code: "invalid_token", Description: "größe\x00\x7f\xff"},
			`Bearer realm="orders", error="invalid_token", error_description="gr  e   ", error_uri="https://docs.example.com/errors#x"`},
		{"BT-11 an odd code", &valetkey.Error{Code: "a\"b\n"}, `Bearer realm="orders", error="a b ", error_uri="https://docs.example.com/errors#x"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := httptest.NewRecorder()
			guard.Refuse(w, httptest.NewRequest("GET", "/", nil), c.err)
			assert.Equal(t, []string{c.want}, w.Header().Values("WWW-Authenticate"))
			assert.Equal(t, "orders", valetkeytest.Challenge(t, w.Header(), "Bearer")["realm"])
		})
	}
}

func TestRefusal(t *testing.T) {
	t.Run("every refusal forbids its storing and sniffing", func(t *testing.T) {
		guard := guardWith(t, valetkey.First())
		for _, err := range []error{&valetkey.Error{}, errors.New("x"), nil} {
			_, header, _ := guard.Refusal(t.Context(), err)
			assert.Equal(t, "no-store", header.Get("Cache-Control"))
			assert.Equal(t, "nosniff", header.Get("X-Content-Type-Options"))
		}
	})
	t.Run("no error at all is a failure", func(t *testing.T) {
		status, header, body := guardWith(t, valetkey.First()).Refusal(t.Context(), nil)
		assert.Equal(t, 503, status)
		assert.Equal(t, "5", header.Get("Retry-After"))
		assert.Equal(t, "Service Unavailable\n", string(body))
	})
	t.Run("a refusal wrapped by somebody is still a refusal", func(t *testing.T) {
		status, _, body := guardWith(t, valetkey.First()).Refusal(t.Context(),
			errors.Join(errors.New("inner detail"), &valetkey.Error{Code: valetkey.InvalidToken, Description: "d", Err: errors.New("cause")}))
		assert.Equal(t, 401, status)
		assert.Equal(t, "Unauthorized: d\n", string(body))
	})
	t.Run("HTTP-09 problem details", func(t *testing.T) {
		guard := guardWith(t, valetkey.First(), func(c *middleware.Config) { c.Body = middleware.ProblemJSON })
		_, header, body := guard.Refusal(t.Context(), &valetkey.Error{
			Code: valetkey.InsufficientScope, Description: "too little", Scope: valetkey.NewScopes("a", "b"), Err: errors.New("internal"),
		})
		assert.Equal(t, "application/problem+json", header.Get("Content-Type"))
		var problem map[string]any
		require.NoError(t, json.Unmarshal(body, &problem))
		assert.Equal(t, map[string]any{"type": "about:blank", "title": "Forbidden", "status": 403.0, "detail": "too little", "error": "insufficient_scope", "scope": "a b"}, problem)

		status, _, body := guard.Refusal(t.Context(), errors.New("internal"))
		assert.Equal(t, 503, status)
		assert.JSONEq(t, `{"type":"about:blank","title":"Service Unavailable","status":503}`, string(body))
	})
	t.Run("HTTP-08 a hook changes the body and nothing else", func(t *testing.T) {
		var seen []valetkey.Code
		guard := guardWith(t, valetkey.First(), func(c *middleware.Config) {
			c.Body = func(ctx context.Context, status int, e *valetkey.Error) (string, []byte) {
				if e != nil {
					seen = append(seen, e.Code)
				}
				return "application/json", []byte(`{"ok":true}`)
			}
		})
		api := serve(t, guard.Handler(hello))
		got := do(t, "GET", api, "Bearer x")
		assert.Equal(t, 401, got.status)
		assert.Contains(t, got.challenge(), `error="invalid_token"`)
		assert.Equal(t, `{"ok":true}`, got.body)
		assert.Equal(t, "application/json", got.header.Get("Content-Type"))
		status, header, _ := guard.Refusal(t.Context(), errors.New("x"))
		assert.Equal(t, 503, status)
		assert.Empty(t, header.Get("WWW-Authenticate"))
		assert.Equal(t, []valetkey.Code{valetkey.InvalidToken}, seen)
	})
	t.Run("a refusal to HEAD has no body and tells its length", func(t *testing.T) {
		got := do(t, "HEAD", serve(t, guardWith(t, valetkey.First()).Handler(hello)), "")
		assert.Equal(t, 401, got.status)
		assert.Empty(t, got.body)
		assert.Equal(t, "13", got.header.Get("Content-Length"))
	})
}

// Whatever a description holds, the challenge stays one line that parses to one challenge with the parameters it should have.
func FuzzChallenge(f *testing.F) {
	f.Add("the token has expired", "a", "invalid_token")
	f.Add("\"\\\r\n,é\x00", `" x="`, "")
	f.Fuzz(func(t *testing.T, description, scope, code string) {
		guard := guardWith(t, valetkey.First())
		_, header, _ := guard.Refusal(t.Context(), &valetkey.Error{Code: valetkey.Code(code), Description: description, Scope: valetkey.Scopes{scope}})
		text := header.Get("WWW-Authenticate")
		if strings.Trim(text, "\t") != text || strings.ContainsFunc(text, func(c rune) bool { return c < ' ' || c > '~' }) {
			t.Fatalf("%q is no header value", text)
		}
		challenges, err := valetkeytest.Challenges(http.Header{"Www-Authenticate": {text}})
		if err != nil || len(challenges) != 1 || challenges[0].Scheme != "Bearer" || challenges[0].Params["realm"] != "api" {
			t.Fatalf("%q parses to %v, %v", text, challenges, err)
		}
		for name := range challenges[0].Params {
			switch name {
			case "realm", "error", "error_description", "scope":
			default:
				t.Fatalf("%q has the parameter %s", text, name)
			}
		}
	})
}
