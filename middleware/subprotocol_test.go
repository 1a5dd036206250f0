package middleware_test

import (
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/valetkeytest"
)

func TestWebSocketProtocols(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	opaque := iss.Opaque(valetkeytest.Subject("alice"))
	token := iss.Token(valetkeytest.Subject("alice"))
	encode := base64.RawURLEncoding.EncodeToString
	api := func(methods ...middleware.BearerMethod) string {
		return serve(t, newGuard(t, iss, func(c *middleware.Config) { c.Methods = methods }).Handler(socket))
	}
	var (
		off        = api()
		prefix     = api(middleware.WebSocketProtocol("bearer."))
		kubernetes = api(middleware.WebSocketProtocolBase64URL(middleware.KubernetesProtocol))
		pair       = api(middleware.WebSocketProtocolPair("access_token"))
		all        = api(middleware.WebSocketProtocolBase64URL(middleware.KubernetesProtocol), middleware.WebSocketProtocolPair("access_token"), middleware.WebSocketProtocolPair("bearer"))
		k8s        = middleware.KubernetesProtocol + encode([]byte(token))
	)
	for _, c := range []struct {
		name, url string
		offers    []string
		status    int
	}{
		{"Kubernetes, by default", off, []string{"v4.channel.k8s.io, " + k8s}, 401},
		{"a pair, by default", off, []string{"access_token, " + token}, 401},
		{"a pair where Kubernetes' is enabled", kubernetes, []string{"access_token, " + token}, 401},
		{"Kubernetes' where a pair is enabled", pair, []string{k8s}, 401},
		{"Kubernetes' prefix alone", kubernetes, []string{middleware.KubernetesProtocol}, 400},
		{"Kubernetes, with padding", kubernetes, []string{middleware.KubernetesProtocol + base64.URLEncoding.EncodeToString([]byte(token+"x")) + "="}, 400},
		{"Kubernetes, not encoded", kubernetes, []string{middleware.KubernetesProtocol + token}, 400},
		{"Kubernetes, encoded twice", kubernetes, []string{middleware.KubernetesProtocol + encode([]byte(encode([]byte(token))))}, 401},
		{"Kubernetes, a character that no token has", kubernetes, []string{middleware.KubernetesProtocol + encode([]byte(token+"\n"))}, 400},
		{"Kubernetes, two tokens", kubernetes, []string{k8s + ", " + k8s}, 400},
		{"Kubernetes, two tokens in two lines", kubernetes, []string{k8s, k8s}, 400},
		{"a pair without its token", pair, []string{"chat, access_token"}, 400},
		{"a pair twice", pair, []string{"access_token, " + token + ", access_token, " + token}, 400},
		{"a pair in another order", pair, []string{token + ", access_token"}, 400},
		{"a pair in other letter case", pair, []string{"Access_Token, " + token}, 401},
		{"something between the pair", pair, []string{"access_token, chat, " + token}, 401},
		{"a pair of each kind", all, []string{"access_token, " + token, "bearer, " + token}, 400},
		{"a pair and Kubernetes", all, []string{"access_token, " + token, k8s}, 400},
		{"two prefixes", prefix, []string{"bearer." + token + ",bearer." + token}, 400},

		{"Kubernetes", kubernetes, []string{"v4.channel.k8s.io, " + k8s}, 101},
		{"Kubernetes, first and in its own line", kubernetes, []string{k8s, "v4.channel.k8s.io"}, 101},
		{"a pair", pair, []string{"access_token, " + token}, 101},
		{"a pair without spaces, among others", pair, []string{"chat,access_token," + token + ",superchat"}, 101},
		{"a pair in two lines", pair, []string{"access_token", token}, 101},
		{"a pair where several are enabled", all, []string{"bearer, " + token}, 101},
		{"a prefix", prefix, []string{"chat, bearer." + token}, 101},
	} {
		t.Run(c.name, func(t *testing.T) {
			var lines []string
			for _, offer := range c.offers {
				lines = append(lines, "Sec-WebSocket-Protocol: "+offer)
			}
			status, subject := handshake(t, c.url, lines...)
			assert.Equal(t, c.status, status)
			if status == 101 {
				assert.Equal(t, "alice", subject)
			}
		})
	}
	t.Run("outside of a handshake nothing is read", func(t *testing.T) {
		for _, line := range []string{"access_token, " + token, k8s} {
			assert.Equal(t, 401, do(t, "GET", all, "", header("Sec-Websocket-Protocol", line)).status)
		}
	})
	t.Run("a token that is not encoded as it must be is not in the error", func(t *testing.T) {
		guard := guardWith(t, valetkey.First(), func(c *middleware.Config) {
			c.Methods = []middleware.BearerMethod{middleware.WebSocketProtocolBase64URL(middleware.KubernetesProtocol)}
		})
		r := httptest.NewRequest("GET", "/", nil)
		r.Header["Upgrade"], r.Header["Sec-Websocket-Protocol"] = []string{"websocket"}, []string{middleware.KubernetesProtocol + opaque + "!secret"}
		d := guard.Decide(r)
		assert.Equal(t, 400, d.Status())
		assert.Equal(t, valetkey.ReasonTokenCharacters, reasonOf(d.Err()))
		assert.NotContains(t, d.Err().Error(), "secret")
		assert.NotContains(t, d.Err().Error(), opaque)
	})
	t.Run("a method made of nothing is a mistake", func(t *testing.T) {
		_, err := middleware.New(middleware.Config{Verifier: valetkey.First(), Methods: []middleware.BearerMethod{
			middleware.WebSocketProtocolBase64URL(""), middleware.WebSocketProtocolPair(""),
		}})
		assert.ErrorContains(t, err, "Methods[0]")
		assert.ErrorContains(t, err, "Methods[1]")
		for _, m := range []middleware.BearerMethod{
			middleware.WebSocketProtocol("bearer "), middleware.WebSocketProtocolBase64URL("a,b"), middleware.WebSocketProtocolPair("a/b"),
		} {
			_, err := middleware.New(middleware.Config{Verifier: valetkey.First(), Methods: []middleware.BearerMethod{m}})
			assert.ErrorContains(t, err, "contains a character that a subprotocol cannot have")
		}
	})
}

// What is passed on has no token, and still a subprotocol that a server can select.
func TestRemoveSubprotocols(t *testing.T) {
	guard := guardWith(t, valetkey.First(), func(c *middleware.Config) {
		c.Methods = []middleware.BearerMethod{
			middleware.WebSocketProtocolBase64URL(middleware.KubernetesProtocol), middleware.WebSocketProtocolPair("access_token"), middleware.WebSocketProtocol("bearer."),
		}
	})
	for _, c := range []struct{ name, offered, want string }{
		{"a pair", "access_token, secret", "access_token"},
		{"a pair among others", "chat, access_token, secret, superchat", "chat, access_token, superchat"},
		{"two pairs", "access_token, secret, access_token, secret", "access_token, access_token"},
		{"Kubernetes", middleware.KubernetesProtocol + "c2VjcmV0, v4.channel.k8s.io", "v4.channel.k8s.io"},
		{"Kubernetes, malformed", "v4.channel.k8s.io," + middleware.KubernetesProtocol + "secret!", "v4.channel.k8s.io"},
		{"a prefix alone", "bearer.secret", ""},
		{"no token", "chat,superchat", "chat,superchat"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := http.Header{"Sec-Websocket-Protocol": {c.offered}}
			guard.RemoveCredentials(h)
			assert.Equal(t, c.want, strings.Join(h["Sec-Websocket-Protocol"], "|"))
		})
	}
}
