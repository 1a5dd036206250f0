package engine_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
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
	})
	t.Run("details keep the digits of their numbers", func(t *testing.T) {
		odd := `[{"type":"payment","amount":12.30,"id":12345678901234567890}]`
		got := s.login(t, "authorization_details", odd)
		assert.Contains(t, s.introspect(t, "orders-api", got.access).text, `{"amount":12.30,"id":12345678901234567890,"type":"payment"}`)
		assert.Contains(t, s.exchange(t, "orders-svc", got.access).text, `{"amount":12.30,"id":12345678901234567890,"type":"payment"}`)
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

// An exchanged token never loses a limit unnoticed: it has the details that the request names, otherwise all, or there is none.
func TestAuthorizationDetailsOfExchangedTokens(t *testing.T) {
	s := start(t, exchanging, func(c *config) {
		c.APIs[0].DetailTypes = []model.DetailType{{Name: "payment"}, {Name: "accounts"}}
		c.APIs[3].DetailTypes = []model.DetailType{{Name: "accounts"}} // vault
	})
	list := func(details ...string) string { return "[" + strings.Join(details, ",") + "]" }
	for _, c := range []struct {
		name      string
		has       string // details of the token
		withScope bool
		asked     []string // parameters of the exchange
		audience  string   // of the new token
		want      string   // its details, or the error
	}{
		{"another API does not have the type", list(payment), true, []string{"scope", "vault:open"}, "", "invalid_authorization_details"},
		{"another API does not have one of the types", list(payment, listing), true, []string{"scope", "vault:open"}, "", "invalid_authorization_details"},
		{"another API does not have the type of those that are named", list(payment, listing), true, []string{"scope", "vault:open", "authorization_details", list(payment)}, "", "invalid_authorization_details"},
		{"one that the token does not have", list(payment), true, []string{"authorization_details", list(other)}, "", "invalid_authorization_details"},
		{"one of a token without any", "", true, []string{"authorization_details", list(payment)}, "", "invalid_authorization_details"},
		{"malformed", list(payment), true, []string{"authorization_details", "x"}, "", "invalid_authorization_details"},
		{"null, which would be none of them", list(payment), true, []string{"authorization_details", "null"}, "", "invalid_authorization_details"},
		{"a scope that a token of details alone does not have", list(payment), false, []string{"scope", "orders:read"}, "", "invalid_scope"},
		{"an unknown resource for details alone", list(payment), false, []string{"resource", "https://other.example.com"}, "", "invalid_target"},
		{"another API for details alone, which does not have the type", list(payment), false, []string{"resource", vault}, "", "invalid_authorization_details"},

		{"the same API, all", list(payment, listing), true, nil, orders, list(payment, listing)},
		{"the same API, one", list(payment, listing), true, []string{"authorization_details", list(listing)}, orders, list(listing)},
		{"another API that has the type", list(listing), true, []string{"scope", "vault:open"}, vault, list(listing)},
		{"another API that has the type of those that are named", list(payment, listing), true, []string{"scope", "vault:open", "authorization_details", list(listing)}, vault, list(listing)},
		{"details alone", list(payment), false, nil, orders, list(payment)},
		{"details alone for another API", list(listing), false, []string{"audience", vault}, vault, list(listing)},
		{"no details", "", true, []string{"scope", "vault:open"}, vault, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			scope := ""
			if c.withScope {
				scope = "orders:read"
			}
			a := s.exchange(t, "orders-svc", s.login(t, "scope", scope, "resource", orders, "authorization_details", c.has).access, c.asked...)
			if c.audience == "" {
				refused(t, a, 400, c.want)
				return
			}
			got, api := a.tokens(t), "orders-api"
			if c.audience == vault {
				api = "vault-api"
			}
			said := s.introspect(t, api, got.access).body
			assert.Equal(t, c.audience, said["aud"])
			if c.want == "" {
				assert.NotContains(t, a.body, "authorization_details")
				assert.NotContains(t, said, "authorization_details")
				return
			}
			for _, details := range []any{a.body["authorization_details"], said["authorization_details"]} {
				text, err := json.Marshal(details)
				require.NoError(t, err)
				assert.JSONEq(t, c.want, string(text))
			}
			assert.Equal(t, c.withScope, said["scope"] != nil)
		})
	}
	t.Run("a detail that the user may no longer allow is not passed on", func(t *testing.T) {
		got := s.login(t, "authorization_details", list(payment, listing))
		s.looksUp(func(string) (*login.Account, error) {
			return &login.Account{Scopes: []string{"orders:read", "accounts"}}, nil
		})
		defer s.looksUp(nil)
		refused(t, s.exchange(t, "orders-svc", got.access, "authorization_details", list(payment)), 400, "invalid_authorization_details")
		text, err := json.Marshal(s.exchange(t, "orders-svc", got.access).body["authorization_details"])
		require.NoError(t, err)
		assert.JSONEq(t, list(listing), string(text))
	})
}

// unnamed returns a form without client_id.
func unnamed(f url.Values) url.Values {
	f.Del("client_id")
	return f
}
