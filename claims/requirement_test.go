package claims_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/claims"
	"github.com/valetkey/valetkey/scopes"
)

// received returns a request as the route /tenants/{tenant}/orders receives it.
func received(t testing.TB, target, host string) *http.Request {
	t.Helper()
	var got *http.Request
	mux := http.NewServeMux()
	mux.HandleFunc("/tenants/{tenant}/orders", func(_ http.ResponseWriter, r *http.Request) { got = r })
	r := httptest.NewRequestWithContext(t.Context(), "GET", target, nil)
	r.Host = host
	mux.ServeHTTP(httptest.NewRecorder(), r)
	require.NotNil(t, got)
	return got
}

func withClaims(raw string) *valetkey.Token { return valetkey.NewToken(valetkey.TokenFields{Raw: raw}) }

const many = `{"tenant_id":"acme","tenants":["acme","globex",7,""],"num":7,"admin":true,"empty":"","null":null,"nested":{"tenant":"acme"},"repository":"o/r"}`

func TestRuleIsARequirement(t *testing.T) {
	for rule, holds := range map[*claims.Rule]bool{
		new(claims.Rule{}):                            false,
		new(claims.Equal("repository", "o/x")):        false,
		new(claims.Equal("missing", "o/r")):           false,
		new(claims.Equal("empty", "")):                false,
		new(claims.Contains("tenants", "initech")):    false,
		new(claims.Contains("tenants", "")):           false,
		new(claims.Contains("tenant_id", "acme")):     false,
		new(claims.Prefix("num", "7")):                false,
		new(claims.Prefix("repository", "x/")):        false,
		new(claims.Present("null")):                   false,
		new(claims.Absent("admin")):                   false,
		new(claims.Equal("repository", "o/r")):        true,
		new(claims.OneOf("repository", "a/b", "o/r")): true,
		new(claims.Equal("admin", "true")):            true,
		new(claims.Contains("tenants", "globex")):     true,
		new(claims.Contains("tenants", "7")):          true,
		new(claims.Prefix("repository", "o/")):        true,
		new(claims.Present("nested")):                 true,
		new(claims.Equal("nested.tenant", "acme")):    true,
		new(claims.Absent("null")):                    true,
	} {
		t.Run(rule.String(), func(t *testing.T) {
			tok := withClaims(many)
			for range 2 { // read from the claims, and as stored with the token
				err := rule.Check(valetkey.Access{Token: tok})
				if holds {
					require.NoError(t, err)
					continue
				}
				refused(t, err)
				assert.NotContains(t, strings.ReplaceAll(err.Error(), rule.String(), ""), "acme")
			}
			if rule.Claim() != "" {
				assert.Equal(t, []string{rule.String()}, rule.Describe().Rules)
			}
		})
	}
	t.Run("a token without claims, and no token", func(t *testing.T) {
		refused(t, claims.Present("sub").Check(valetkey.Access{Token: withClaims("")}))
		refused(t, claims.Present("sub").Check(valetkey.Access{}))
	})
	t.Run("a claim that is too large to store is read each time", func(t *testing.T) {
		tok := withClaims(`{"groups":["` + strings.Repeat("x", 5000) + `","ops"]}`)
		for range 2 {
			require.NoError(t, claims.Contains("groups", "ops").Check(valetkey.Access{Token: tok}))
			refused(t, claims.Contains("groups", "dev").Check(valetkey.Access{Token: tok}))
		}
	})
	t.Run("two rules about one claim share its value", func(t *testing.T) {
		tok := withClaims(many)
		require.NoError(t, claims.Equal("tenant_id", "acme").Check(valetkey.Access{Token: tok}))
		refused(t, claims.Equal("tenant_id", "globex").Check(valetkey.Access{Token: tok}))
	})
	t.Run("claims that are not an object are a failure", func(t *testing.T) {
		err := claims.Present("sub").Check(valetkey.Access{Token: withClaims(`[1]`)})
		var refusal *valetkey.Error
		require.Error(t, err)
		assert.NotErrorAs(t, err, &refusal)
	})
	t.Run("a rule that holds allocates nothing for a remembered token", func(t *testing.T) {
		a := valetkey.Access{Token: withClaims(many)}
		rule := claims.Equal("repository", "o/r")
		assert.Zero(t, testing.AllocsPerRun(100, func() {
			if rule.Check(a) != nil {
				t.Fail()
			}
		}))
	})
}

func refused(t *testing.T, err error) {
	t.Helper()
	var refusal *valetkey.Error
	require.ErrorAs(t, err, &refusal)
	assert.Equal(t, valetkey.Forbidden, refusal.Code)
	assert.Equal(t, valetkey.ReasonClaimsForbid, refusal.Reason)
	assert.Equal(t, http.StatusForbidden, refusal.Status())
	assert.Empty(t, refusal.Scope.String())
}

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		name         string
		match        claims.Match
		target, host string
		holds        bool
	}{
		{"another tenant in the path", claims.EqualPathValue("tenant_id", "tenant"), "/tenants/globex/orders", "", false},
		{"another letter case", claims.EqualPathValue("tenant_id", "tenant"), "/tenants/Acme/orders", "", false},
		{"a wildcard that the route does not have", claims.EqualPathValue("tenant_id", "org"), "/tenants/acme/orders", "", false},
		{"neither the claim nor the wildcard", claims.EqualPathValue("missing", "org"), "/tenants/acme/orders", "", false},
		{"an empty claim and no wildcard", claims.EqualPathValue("empty", "org"), "/tenants/acme/orders", "", false},
		{"a claim that is a list", claims.EqualPathValue("tenants", "tenant"), "/tenants/acme/orders", "", false},
		{"a list without the tenant", claims.ContainsPathValue("tenants", "tenant"), "/tenants/initech/orders", "", false},
		{"a string instead of a list", claims.ContainsPathValue("tenant_id", "tenant"), "/tenants/acme/orders", "", false},
		{"an empty element and no wildcard", claims.ContainsPathValue("tenants", "org"), "/tenants/acme/orders", "", false},
		{"no parameter", claims.EqualQuery("tenant_id", "tenant"), "/tenants/x/orders", "", false},
		{"an empty parameter", claims.EqualQuery("empty", "tenant"), "/tenants/x/orders?tenant=", "", false},
		{"another parameter", claims.EqualQuery("tenant_id", "tenant"), "/tenants/x/orders?tenant=globex", "", false},
		{"another host", claims.EqualHostLabel("tenant_id", 0), "/tenants/x/orders", "globex.api.example.com", false},
		{"another label", claims.EqualHostLabel("tenant_id", 1), "/tenants/x/orders", "acme.api.example.com", false},
		{"a label that the host does not have", claims.EqualHostLabel("empty", 4), "/tenants/x/orders", "acme.api.example.com", false},
		{"an address", claims.EqualHostLabel("num", 0), "/tenants/x/orders", "7.0.0.1:80", false},
		{"the zero Match", claims.Match{}, "/tenants/acme/orders", "", false},

		{"the tenant in the path", claims.EqualPathValue("tenant_id", "tenant"), "/tenants/acme/orders", "", true},
		{"the tenant in the path, encoded", claims.EqualPathValue("repository", "tenant"), "/tenants/o%2Fr/orders", "", true},
		{"a number", claims.EqualPathValue("num", "tenant"), "/tenants/7/orders", "", true},
		{"a nested claim", claims.EqualPathValue("nested.tenant", "tenant"), "/tenants/acme/orders", "", true},
		{"one of several tenants", claims.ContainsPathValue("tenants", "tenant"), "/tenants/globex/orders", "", true},
		{"a parameter", claims.EqualQuery("tenant_id", "tenant"), "/tenants/x/orders?a=b&tenant=acme", "", true},
		{"a label of the host", claims.EqualHostLabel("tenant_id", 0), "/tenants/x/orders", "acme.api.example.com", true},
		{"a label in capitals, with a port", claims.EqualHostLabel("tenant_id", 0), "/tenants/x/orders", "ACME.api.example.com.:8443", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.match.Check(valetkey.Access{Token: withClaims(many), Request: received(t, c.target, c.host)})
			if c.holds {
				require.NoError(t, err)
				return
			}
			refused(t, err)
		})
	}
	t.Run("a parameter twice, and a malformed query", func(t *testing.T) {
		for _, query := range []string{"tenant=acme&tenant=globex", "tenant=acme;x=y", "tenant=acme&x=%zz"} {
			err := claims.EqualQuery("tenant_id", "tenant").Check(valetkey.Access{Token: withClaims(many), Request: received(t, "/tenants/x/orders?"+query, "")})
			var refusal *valetkey.Error
			require.ErrorAs(t, err, &refusal, query)
			assert.Equal(t, valetkey.InvalidRequest, refusal.Code)
		}
	})
	t.Run("a token that came without a request", func(t *testing.T) {
		refused(t, claims.EqualPathValue("tenant_id", "tenant").Check(valetkey.Access{Token: withClaims(many)}))
		refused(t, claims.EqualHostLabel("tenant_id", 0).Check(valetkey.Access{Token: withClaims(many)}))
	})
	t.Run("texts, and mistakes", func(t *testing.T) {
		for text, m := range map[string]claims.Match{
			"tenant_id = path value tenant":      claims.EqualPathValue("tenant_id", "tenant"),
			"tenants ~= path value tenant":       claims.ContainsPathValue("tenants", "tenant"),
			"tenant_id = query parameter tenant": claims.EqualQuery("tenant_id", "tenant"),
			"tenant_id = host label 0":           claims.EqualHostLabel("tenant_id", 0),
		} {
			assert.Equal(t, text, m.String())
			assert.Equal(t, []string{text}, m.Describe().Rules)
			assert.NoError(t, m.Validate())
		}
		for _, m := range []claims.Match{{}, claims.EqualPathValue("", "x"), claims.EqualPathValue("x", ""), claims.EqualQuery("x", ""), claims.EqualHostLabel("x", -1)} {
			assert.Error(t, m.Validate(), m.String())
		}
	})
}

func TestTogetherWithScopes(t *testing.T) {
	tok := valetkey.NewToken(valetkey.TokenFields{Raw: many, Scopes: valetkey.NewScopes("orders:read")})
	r := received(t, "/tenants/acme/orders", "")
	own := claims.EqualPathValue("tenant_id", "tenant")
	code := func(need valetkey.Requirement) valetkey.Code {
		var refusal *valetkey.Error
		if err := need.Check(valetkey.Access{Token: tok, Request: r}); err == nil || !errors.As(err, &refusal) {
			return "accepted"
		}
		return refusal.Code
	}
	other := claims.Equal("tenant_id", "globex")
	assert.Equal(t, valetkey.InsufficientScope, code(valetkey.AllOf{own, scopes.All("admin")}))
	assert.Equal(t, valetkey.Forbidden, code(valetkey.AllOf{scopes.All("orders:read"), other}))
	assert.Equal(t, valetkey.Forbidden, code(valetkey.AllOf{scopes.All("admin"), other}), "a scope would not help")
	assert.Equal(t, valetkey.InsufficientScope, code(valetkey.AnyOf{other, scopes.All("admin")}), "a scope would help")
	assert.Equal(t, valetkey.Code("accepted"), code(valetkey.AllOf{own, scopes.All("orders:read")}))
	assert.Equal(t, valetkey.Code("accepted"), code(valetkey.AnyOf{other, own}))
	assert.Equal(t, valetkey.Code("accepted"), code(valetkey.AnyOf{scopes.All("orders:read"), other}))

	needs := valetkey.AllOf{valetkey.AnyOf{scopes.All("admin"), own}, claims.Equal("repository", "o/r")}.Describe()
	assert.Equal(t, []string{"scope admin or tenant_id = path value tenant", "repository = o/r"}, needs.Rules)
	assert.Equal(t, "admin", needs.All.String())
}

func BenchmarkRule(b *testing.B) {
	a := valetkey.Access{Token: withClaims(many)}
	rule := claims.Equal("repository", "o/r")
	b.ReportAllocs()
	for b.Loop() {
		if rule.Check(a) != nil {
			b.Fatal("refused")
		}
	}
}
