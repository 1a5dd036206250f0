package rar_test

import (
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/introspect"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/rar"
	"github.com/valetkey/valetkey/scopes"
	"github.com/valetkey/valetkey/valetkeytest"
)

const (
	self  = "https://api.example.com/payments"
	other = "https://other.example.com"
)

var quiet = slog.New(slog.DiscardHandler)

// payment is an element in the manner of RFC 9396, section 2.
func payment(members map[string]any) map[string]any {
	m := map[string]any{"type": "payment_initiation", "actions": []string{"initiate", "status"}, "locations": []string{self}}
	for name, v := range members {
		m[name] = v
	}
	return m
}

func guardOf(t *testing.T, v valetkey.Verifier, iss *valetkeytest.Issuer) *middleware.Guard {
	t.Helper()
	guard, err := middleware.New(middleware.Config{
		Verifier: v, Logger: quiet, Now: iss.Now,
		Resource: middleware.Resource{ID: valetkeytest.DefaultAudience, AuthorizationServers: []string{"https://as.example.com"}},
	})
	require.NoError(t, err)
	return guard
}

func newGuard(t *testing.T, iss *valetkeytest.Issuer) *middleware.Guard {
	t.Helper()
	keys, err := jwks.New(jwks.Config{Issuer: iss.URL, Audience: []string{valetkeytest.DefaultAudience}, Client: iss.Client()})
	require.NoError(t, err)
	t.Cleanup(keys.Close)
	return guardOf(t, keys, iss)
}

var need = rar.Requirement{Type: "payment_initiation", Actions: []string{"initiate"}, Locations: []string{self}}

func TestRequirement(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	guard := newGuard(t, iss)
	claim := func(v any) valetkeytest.Option { return valetkeytest.Claim("authorization_details", v) }
	list := func(elements ...any) valetkeytest.Option { return claim(elements) }
	amount := func(d rar.Detail) bool {
		var v struct{ Amount float64 }
		return json.Unmarshal([]byte(d.Raw), &v) == nil && v.Amount <= 100
	}
	for _, c := range []struct {
		name   string
		need   rar.Requirement
		claims valetkeytest.Option
		status int
		code   string
	}{
		{"RAR-03 the claim is not an array", need, claim(payment(nil)), 401, "invalid_token"},
		{"RAR-03 an element is a string", need, list(payment(nil), "payment_initiation"), 401, "invalid_token"},
		{"RAR-03 an element has no type", need, list(payment(nil), map[string]any{"actions": []string{"initiate"}}), 401, "invalid_token"},
		{"RAR-03 a type that is a number", need, list(payment(map[string]any{"type": 1})), 401, "invalid_token"},
		{"RAR-03 actions that are a string", need, list(payment(map[string]any{"actions": "initiate"})), 401, "invalid_token"},
		{"an amount in two letter cases, of which encoding/json takes the last", rar.Requirement{Type: "payment_initiation", Match: amount},
			list(payment(map[string]any{"Amount": 1000000, "amount": 1})), 401, "invalid_token"},
		{"a member within a member in two letter cases", need, list(payment(map[string]any{"x": map[string]any{"a": 1, "A": 2}})), 401, "invalid_token"},
		{"RAR-07 no details at all", need, valetkeytest.Scopes("payments"), 403, "insufficient_scope"},
		{"RAR-07 null", need, claim(json.RawMessage("null")), 403, "insufficient_scope"},
		{"RAR-03 a type that is null", need, list(payment(map[string]any{"type": nil})), 401, "invalid_token"},
		{"RAR-07 an empty array", need, claim([]any{}), 403, "insufficient_scope"},
		{"RAR-04 the action, but another location", need, list(payment(map[string]any{"locations": []string{other}})), 403, "insufficient_scope"},
		{"RAR-04 the action, but no location", need, list(payment(map[string]any{"locations": nil})), 403, "insufficient_scope"},
		{"RAR-04 the action, and an empty list of locations", need, list(payment(map[string]any{"locations": []string{}})), 403, "insufficient_scope"},
		{"RAR-05 two elements that have one half each", need,
			list(payment(map[string]any{"locations": []string{other}}), payment(map[string]any{"actions": []string{"status"}})), 403, "insufficient_scope"},
		{"RAR-06 another type alone", need, list(payment(map[string]any{"type": "account_information"})), 403, "insufficient_scope"},
		{"a type in other letter case", need, list(payment(map[string]any{"type": "Payment_Initiation"})), 403, "insufficient_scope"},
		{"another identifier", rar.Requirement{Type: "payment_initiation", Identifier: "1"}, list(payment(map[string]any{"identifier": "2"})), 403, "insufficient_scope"},
		{"one of two datatypes", rar.Requirement{Type: "payment_initiation", DataTypes: []string{"a", "b"}}, list(payment(map[string]any{"datatypes": []string{"a"}})), 403, "insufficient_scope"},
		{"no privileges", rar.Requirement{Type: "payment_initiation", Privileges: []string{"admin"}}, list(payment(nil)), 403, "insufficient_scope"},
		{"an amount that is too high", rar.Requirement{Type: "payment_initiation", Match: amount}, list(payment(map[string]any{"amount": 101})), 403, "insufficient_scope"},
		{"the zero requirement", rar.Requirement{}, list(payment(nil)), 403, "insufficient_scope"},
		{"RAR-04 a path of the location", need, list(payment(map[string]any{"locations": []string{self + "/"}})), 403, "insufficient_scope"},
		{"a location that is an origin, with a slash", rar.Requirement{Type: "payment_initiation", Locations: []string{other}},
			list(payment(map[string]any{"locations": []string{other + "/"}})), 200, ""},
		{"RAR-04 all in one element", need, list(payment(nil)), 200, ""},
		{"RAR-06 beside an element of an unknown type", need, list(map[string]any{"type": "unknown", "x": 1}, payment(nil)), 200, ""},
		{"an amount that is low enough", rar.Requirement{Type: "payment_initiation", Match: amount}, list(payment(map[string]any{"amount": 99.5})), 200, ""},
		{"everything that can be asked", rar.Requirement{
			Type: "payment_initiation", Identifier: "1", DataTypes: []string{"a"}, Privileges: []string{"admin"},
		}, list(payment(map[string]any{"identifier": "1", "datatypes": []string{"b", "a"}, "privileges": []string{"admin"}})), 200, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := httptest.NewRecorder()
			guard.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), c.need).
				ServeHTTP(w, valetkeytest.Request("GET", "/", iss.Token(c.claims)))
			assert.Equal(t, c.status, w.Code, w.Body)
			if c.status != 200 {
				assert.Equal(t, c.code, valetkeytest.Challenge(t, w.Header(), "Bearer")["error"])
			}
		})
	}
	t.Run("RAR-03 a malformed claim has no effect where no rule uses it", func(t *testing.T) {
		w := httptest.NewRecorder()
		guard.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})).ServeHTTP(w, valetkeytest.Request("GET", "/", iss.Token(claim("x"))))
		assert.Equal(t, 200, w.Code)
	})
}

func TestOf(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	element := payment(map[string]any{
		"datatypes": []string{"a"}, "identifier": "1", "privileges": []string{"admin"}, "amount": map[string]any{"currency": "EUR", "value": "12.50"},
	})
	check := func(t *testing.T, guard *middleware.Guard, token string) {
		t.Helper()
		var got []rar.Detail
		w := httptest.NewRecorder()
		guard.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			var err error
			got, err = rar.Of(valetkey.FromContext(r.Context()))
			assert.NoError(t, err)
		}), need).ServeHTTP(w, valetkeytest.Request("GET", "/", token))
		require.Equal(t, 200, w.Code)
		require.Len(t, got, 1)
		raw := got[0].Raw
		got[0].Raw = ""
		assert.Equal(t, rar.Detail{
			Type: "payment_initiation", Locations: valetkey.ListOf(self), Actions: valetkey.ListOf("initiate", "status"),
			DataTypes: valetkey.ListOf("a"), Identifier: "1", Privileges: valetkey.ListOf("admin"),
		}, got[0])
		var own struct {
			Amount struct{ Currency, Value string }
		}
		require.NoError(t, json.Unmarshal([]byte(raw), &own))
		assert.Equal(t, "12.50", own.Amount.Value)
	}
	t.Run("RAR-01 of a JWT", func(t *testing.T) {
		check(t, newGuard(t, iss), iss.Token(valetkeytest.Claim("authorization_details", []any{element})))
	})
	t.Run("RAR-02 of an introspection answer", func(t *testing.T) {
		v, err := introspect.New(introspect.Config{
			URL: iss.Introspection.URL, Issuer: iss.URL, Audience: []string{valetkeytest.DefaultAudience},
			Auth: introspect.BasicAuth(valetkeytest.IntrospectionID, valetkeytest.IntrospectionSecret), Client: iss.Client(),
		})
		require.NoError(t, err)
		t.Cleanup(v.Close)
		check(t, guardOf(t, v, iss), iss.Opaque(valetkeytest.Claim("authorization_details", []any{element})))
	})
	t.Run("of a token without claims", func(t *testing.T) {
		list, err := rar.Of(valetkey.NewToken(valetkey.TokenFields{}))
		assert.NoError(t, err)
		assert.Empty(t, list)
	})
}

func TestMetadata(t *testing.T) {
	t.Run("RAR-08 the types of the rules are listed, each once", func(t *testing.T) {
		guard := newGuard(t, valetkeytest.NewIssuer(t))
		guard.Handler(http.NotFoundHandler(), need, scopes.All("payments"))
		guard.Handler(http.NotFoundHandler(), valetkey.AllOf{need, rar.Requirement{Type: "account_information"}})
		_, h := guard.Metadata()
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
		var doc map[string]any
		body, err := io.ReadAll(w.Body)
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(body, &doc))
		assert.Equal(t, []any{"account_information", "payment_initiation"}, doc["authorization_details_types_supported"])
		assert.Equal(t, []any{"payments"}, doc["scopes_supported"])
	})
}

func TestManyDetails(t *testing.T) {
	for _, n := range []int{32, 33, 500} {
		token := valetkey.NewToken(valetkey.TokenFields{
			Raw: `{"authorization_details":[` + strings.TrimSuffix(strings.Repeat(`{"type":"a"},`, n), ",") + `]}`,
		})
		for range 2 { // the second time, a few come from memory
			list, err := rar.Of(token)
			require.NoError(t, err)
			require.Len(t, list, n)
			list[n-1].Type = "changed"
		}
		list, err := rar.Of(token)
		require.NoError(t, err)
		assert.Equal(t, "a", list[n-1].Type, "what a caller changes is its copy")
	}
}
