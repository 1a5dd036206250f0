package engine_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/authserver/internal/flow"
	"github.com/valetkey/valetkey/authserver/login"
	"github.com/valetkey/valetkey/authserver/model"
)

const (
	payment = `{"type":"payment","amount":"12.30","to":"bob"}`
	other   = `{"type":"payment","amount":"99.00","to":"bob"}`
	listing = `{"actions":["list"],"type":"accounts"}`
)

func detailed(c *config) {
	c.APIs[0].DetailTypes = []model.DetailType{{Name: "payment"}, {Name: "accounts"}}
	c.APIs[3].DetailTypes = []model.DetailType{{Name: "accounts"}}
	with(append(devices(), exchangers()...)...)(c)
}

// RFC 9396, rich authorization requests.
func TestAuthorizationDetails(t *testing.T) {
	s := start(t, detailed)
	both := "[" + payment + "," + listing + "]"
	same := func(t *testing.T, want string, got any) {
		t.Helper()
		text, err := json.Marshal(got)
		require.NoError(t, err)
		assert.JSONEq(t, want, string(text))
	}
	for _, c := range []struct{ name, details string }{
		{"malformed", "x"},
		{"an element without a type", "[{}]"},
		{"a type twice", `[{"type":"payment","type":"accounts"}]`},
		{"a type that no API has", `[{"type":"x"}]`},
		{"a type that another API has", `[{"type":"payment"},{"type":"x"}]`},
	} {
		t.Run("AS-RAR-01 refused: "+c.name, func(t *testing.T) {
			q := request("authorization_details", c.details)
			assert.Equal(t, "invalid_authorization_details", newBrowser().get(t, s.authorizeURL(q)).back.Get("error"))
			refused(t, s.post(t, "/oauth2/par", "web", unnamed(q)), 400, "invalid_authorization_details")
			refused(t, s.post(t, "/oauth2/device_authorization", "", form("client_id", "tv", "authorization_details", c.details)), 400, "invalid_authorization_details")
		})
	}
	t.Run("AS-RAR-01 refused: a type that only another API has", func(t *testing.T) {
		q := request("authorization_details", "["+payment+"]", "resource", vault, "scope", "vault:open")
		assert.Equal(t, "invalid_authorization_details", newBrowser().get(t, s.authorizeURL(q)).back.Get("error"))
	})
	t.Run("refused: a client for itself, which no user has allowed them", func(t *testing.T) {
		f := form("grant_type", "client_credentials", "scope", "orders:read", "authorization_details", "["+payment+"]")
		refused(t, s.post(t, "/oauth2/token", "service", f), 400, "invalid_authorization_details")
	})
	t.Run("refused: details that were not granted", func(t *testing.T) {
		code := s.code(t, "authorization_details", "["+payment+"]")
		refused(t, s.redeem(t, "web", code, "authorization_details", "["+other+"]"), 400, "invalid_authorization_details")
		got := s.login(t)
		refused(t, s.refresh(t, "web", got.refresh, "authorization_details", "["+payment+"]"), 400, "invalid_authorization_details")
	})
	t.Run("AS-RAR-02 AS-RAR-03 the user sees them, and the token, its response and its introspection have them", func(t *testing.T) {
		var seen []flow.Detail
		s.asks(func(_ http.ResponseWriter, _ *http.Request, in *flow.Interaction) (*flow.Decision, error) {
			seen = in.Details
			return allow(in), nil
		})
		defer s.asks(nil)
		a := s.redeem(t, "web", s.code(t, "authorization_details", both))
		got := a.tokens(t)
		same(t, both, seen)
		same(t, both, a.body["authorization_details"])
		same(t, both, part(t, got.access, 1)["authorization_details"])
		same(t, both, s.introspect(t, "orders-api", got.access).body["authorization_details"])
		t.Log("a refresh keeps them, or some of them")
		a = s.refresh(t, "web", got.refresh, "authorization_details", "["+listing+"]")
		same(t, "["+listing+"]", a.body["authorization_details"])
		a = s.refresh(t, "web", a.tokens(t).refresh)
		same(t, both, a.body["authorization_details"])
		t.Log("an exchanged token has none")
		assert.NotContains(t, part(t, s.exchange(t, "orders-svc", a.tokens(t).access, "scope", "orders:read").tokens(t).access, 1), "authorization_details")
	})
	t.Run("AS-RAR-03 of a pushed request, in an opaque token", func(t *testing.T) {
		uri := s.push(t, "web", request("authorization_details", "["+listing+"]", "resource", vault, "scope", "vault:open"))
		a := newBrowser().get(t, s.authorizeURL(form("client_id", "web", "request_uri", uri)))
		got := s.redeem(t, "web", a.back.Get("code")).tokens(t)
		same(t, "["+listing+"]", s.introspect(t, "vault-api", got.access).body["authorization_details"])
	})
	t.Run("of a device", func(t *testing.T) {
		code, userCode := s.begin(t, "authorization_details", "["+payment+"]")
		in, err := s.Device(t.Context(), userCode)
		require.NoError(t, err)
		same(t, "["+payment+"]", in.Details)
		require.NoError(t, s.DecideDevice(t.Context(), in, allow(in)))
		same(t, "["+payment+"]", s.post(t, "/oauth2/token", "", poll(code)).body["authorization_details"])
	})
	t.Run("without a scope, the details alone are granted", func(t *testing.T) {
		a := s.redeem(t, "web", s.code(t, "scope", "", "resource", orders, "authorization_details", "["+payment+"]"))
		got := a.tokens(t)
		assert.NotContains(t, a.body, "scope")
		assert.NotContains(t, part(t, got.access, 1), "scope")
		same(t, "["+payment+"]", part(t, got.access, 1)["authorization_details"])
		said := s.introspect(t, "orders-api", got.access).body
		assert.Equal(t, true, said["active"])
		assert.NotContains(t, said, "scope")
		same(t, "["+payment+"]", s.refresh(t, "web", got.refresh).body["authorization_details"])
	})
	t.Run("a user may allow the types among the user's scopes only", func(t *testing.T) {
		some := *alice
		some.Scopes = []string{"orders:read", "accounts"}
		s.asks(func(_ http.ResponseWriter, _ *http.Request, in *flow.Interaction) (*flow.Decision, error) {
			d := allow(in)
			d.User = &some
			return d, nil
		})
		defer s.asks(nil)
		got := s.redeem(t, "web", s.code(t, "authorization_details", both)).tokens(t)
		same(t, "["+listing+"]", part(t, got.access, 1)["authorization_details"])
		q := request("scope", "", "resource", orders, "authorization_details", "["+payment+"]")
		assert.Equal(t, "access_denied", newBrowser().get(t, s.authorizeURL(q)).back.Get("error"))

		t.Log("and loses those that are taken away")
		s.looksUp(func(string) (*login.Account, error) { return &login.Account{Scopes: []string{"orders:read"}}, nil })
		defer s.looksUp(nil)
		same(t, "[]", s.introspect(t, "orders-api", got.access).body["authorization_details"])
		assert.NotContains(t, s.refresh(t, "web", got.refresh).body, "authorization_details")
	})
	t.Run("a grant of details ends with the right to allow them", func(t *testing.T) {
		got := s.redeem(t, "web", s.code(t, "scope", "", "resource", orders, "authorization_details", "["+payment+"]")).tokens(t)
		s.looksUp(func(string) (*login.Account, error) { return &login.Account{Scopes: []string{"orders:read"}}, nil })
		defer s.looksUp(nil)
		assert.False(t, s.active(t, got.access))
		refused(t, s.refresh(t, "web", got.refresh), 400, "invalid_grant")
	})
	t.Run("the metadata lists the types", func(t *testing.T) {
		assert.Equal(t, []string{"payment", "accounts"}, s.Metadata().DetailTypes)
	})
}

// unnamed returns a form without client_id.
func unnamed(f url.Values) url.Values {
	f.Del("client_id")
	return f
}
