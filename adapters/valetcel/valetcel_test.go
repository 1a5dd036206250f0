package valetcel_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/adapters/valetcel"
	"github.com/valetkey/valetkey/jwks"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/routes"
	"github.com/valetkey/valetkey/scopes"
	"github.com/valetkey/valetkey/valetkeytest"
)

func rules(expressions ...string) (all []valetcel.Rule) {
	for _, e := range expressions {
		all = append(all, valetcel.Rule{Expression: e})
	}
	return all
}

// accepts is a verifier of every token, with the claims as its text.
func accepts(claims string) valetkey.Verifier {
	return valetkey.VerifierFunc(func(context.Context, string) (*valetkey.Token, error) { return token(claims), nil })
}

func token(claims string) *valetkey.Token {
	return valetkey.NewToken(valetkey.TokenFields{
		Issuer: "https://as.example.com", Subject: "alice", ClientID: "web", ACR: "gold", Raw: claims,
		Scopes: valetkey.NewScopes("orders:read", "orders:write"), Audience: valetkey.ListOf("https://api.example.com"),
	})
}

func TestMistakes(t *testing.T) {
	onToken := func(r ...valetcel.Rule) error {
		_, err := valetcel.Verifier(accepts("{}"), r...)
		return err
	}
	onAccess := func(r ...valetcel.Rule) error {
		_, err := valetcel.Require(r...)
		return err
	}
	both := func(r ...valetcel.Rule) error { return errors.Join(onToken(r...), onAccess(r...)) }
	for _, c := range []struct {
		name, expression string
		load             func(...valetcel.Rule) error
		want             string
	}{
		{"CEL-01 a claim alone", "claims.admin", both, "is of the type dyn, not bool: compare it, as in claims.admin == true"},
		{"CEL-01 a string", `"yes"`, both, "is of the type string, not bool"},
		{"CEL-01 a condition with a claim as its result", `has(claims.a) ? claims.a : false`, both, "is of the type dyn, not bool"},
		{"CEL-04 a pattern from a claim", `claims.sub.matches(claims.pattern)`, both, "column 26: the pattern of matches is not a literal"},
		{"CEL-04 a pattern from a claim, as a function", `matches(claims.sub, claims.pattern)`, both, "column 27: the pattern of matches is not a literal"},
		{"CEL-04 a pattern that is put together", `claims.sub.matches("^" + "a")`, both, "the pattern of matches is not a literal"},
		{"CEL-04 a pattern of a loop", `["a", "b"].exists(p, claims.sub.matches(p))`, both, "the pattern of matches is not a literal"},
		{"CEL-04 a pattern that is malformed", `claims.sub.matches("(")`, both, "invalid matches argument"},
		{"a pattern in an access rule from the client", `claims.sub.matches(request.path)`, onAccess, "the pattern of matches is not a literal"},
		{"nothing", "", both, "required"},
		{"spaces", " \n ", both, "required"},
		{"a syntax error", "claims.a ==", both, "column 12: Syntax error"},
		{"a syntax error in the second line", "claims.a == 1 &&\n  claims.b = 2", both, "line 2 of the rule, column 12: Syntax error"},
		{"an undefined variable", `claim.admin == true`, both, `column 1: "claim" is undefined`},
		{"a clock in a rule on the token", `now > timestamp("2026-01-01T00:00:00Z")`, onToken, `"now" is undefined: a rule on the token has no clock`},
		{"the request in a rule on the token", `request.method == "GET"`, onToken, `"request" is undefined: a rule on the token reads claims`},
		{"the path in a rule on the token", `claims.tenant == path.tenant`, onToken, `"path" is undefined: a rule on the token reads claims`},
		{"the token in a rule on the token", `token.subject == "alice"`, onToken, `"token" is undefined: a rule on the token reads claims`},
		{"an unknown fact", `token.sub == "alice"`, onAccess, `"token" is undefined: it has claims, issuer`},
		{"an unknown part of the request", `request.body == ""`, onAccess, `"request" is undefined: it has method, host and path`},
		{"a comparison of types that never match", `request.method == 1`, onAccess, "column 16: found no matching overload"},
		{"a loop over the path values", `path.all(name, path[name] == claims.tenant)`, onAccess, "column 1: path can only be read by name, as in path.tenant"},
		{"a comparison of the path values", `path == {"tenant": "t1"}`, onAccess, "path can only be read by name"},
		{"the number of path values", `size(path) == 0`, onAccess, "path can only be read by name"},
		{"a time zone of the system", `now.getHours("Europe/Berlin") < 18`, onAccess, `column 14: the time zone is neither "UTC" nor an offset`},
		{"a time zone from a claim", `now.getHours(claims.zone) < 18`, onAccess, `the time zone is neither "UTC" nor an offset`},
		{"a malformed timestamp", `now < timestamp("tomorrow")`, onAccess, "invalid timestamp argument"},
		{"a long expression", "claims.a == " + strings.Repeat(" ", valetcel.MaxExpression) + "1", both, "expression code point size exceeds limit"},
		{"a deep expression", strings.Repeat("(", 500) + "true" + strings.Repeat(")", 500), both, "recursion limit exceeded"},
		{"functions that are not part of the language", `claims.email.lowerAscii() == "a"`, both, `"lowerAscii" is undefined`},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.load(valetcel.Rule{Expression: `claims.first == 1`}, valetcel.Rule{Expression: c.expression})
			require.ErrorContains(t, err, c.want)
			for _, m := range valetkey.ConfigErrors(err) {
				assert.Equal(t, "Rules[1].Expression", m.Field)
			}
			if c.load(valetcel.Rule{Expression: c.expression}) == nil {
				t.Error("the rule alone is accepted")
			}
		})
	}
	t.Run("no rules, and no verifier", func(t *testing.T) {
		require.ErrorContains(t, onAccess(), "Rules: required")
		_, err := valetcel.Verifier(nil)
		require.ErrorContains(t, err, "Verifier: required")
		require.ErrorContains(t, err, "Rules: required")
	})
	t.Run("all mistakes are reported, each with the field", func(t *testing.T) {
		err := onAccess(valetcel.Rule{Expression: "a == b"}, valetcel.Rule{Expression: "claims.c", Message: `a "quoted" word`}, valetcel.Rule{})
		var fields []string
		for _, m := range valetkey.ConfigErrors(err) {
			fields = append(fields, m.Field)
		}
		assert.Equal(t, []string{"Rules[0].Expression", "Rules[0].Expression", "Rules[1].Message", "Rules[1].Expression", "Rules[2].Expression"}, fields)
	})
	for name, message := range map[string]string{
		"a message with a quote": `"`, "a message with a backslash": `\`, "a message with a line break": "a\nb", "a message that is not ASCII": "é",
		"a message with a space at the end": "a ", "a long message": strings.Repeat("a", 201),
	} {
		t.Run(name, func(t *testing.T) {
			require.ErrorContains(t, both(valetcel.Rule{Expression: "true", Message: message}), "Rules[0].Message")
		})
	}
}

func TestRulesOnTheToken(t *testing.T) {
	for _, c := range []struct {
		name, claims, rule string
		accepted           bool
	}{
		{"CEL-02 a missing claim", `{}`, `claims.tid == "t1"`, false},
		{"CEL-02 a missing claim that must differ", `{}`, `claims.tid != "t1"`, false},
		{"CEL-02 a missing member", `{"a":{}}`, `claims.a.b == 1`, false},
		{"CEL-02 a token without claims", ``, `claims.tid == "t1"`, false},
		{"a claim of another type", `{"amr":"otp"}`, `"otp" in claims.amr`, false},
		{"a text that is compared with a number", `{"level":"2"}`, `claims.level >= 2`, false},
		{"an integer of another size", `{"id":9007199254740993}`, `claims.id == 9007199254740992`, false},
		{"a number out of range", `{"id":1e999}`, `claims.id > 1`, false},
		{"null is absent", `{"email":null}`, `has(claims.email)`, false},
		{"an overflow", `{"a":9223372036854775807}`, `claims.a + 1 > 0`, false},
		{"one of two rules", `{"a":1}`, `claims.a == 1 && claims.a == 2`, false},

		{"an integer", `{"level":2}`, `claims.level >= 2`, true},
		{"a fraction that is compared with an integer", `{"level":2.5}`, `claims.level > 2 && claims.level < 3`, true},
		{"a difference of numeric dates", `{"exp":1700000600,"iat":1700000000}`, `claims.exp - claims.iat <= 600`, true},
		{"an integer as text", `{"id":12345678}`, `string(claims.id) == "12345678"`, true},
		{"an integer above int64", `{"id":18446744073709551615}`, `claims.id == 18446744073709551615u`, true},
		{"one of several", `{"tid":"t2"}`, `claims.tid in ["t1", "t2"]`, true},
		{"an element of an array", `{"amr":["pwd","otp"]}`, `"otp" in claims.amr`, true},
		{"a loop", `{"groups":["dev","ops"]}`, `claims.groups.exists(g, g == "ops")`, true},
		{"an absent claim", `{}`, `!has(claims.act)`, true},
		{"null in an object", `{"act":{"sub":null}}`, `!has(claims.act.sub)`, true},
		{"an address of a verified domain", `{"email":"a@example.com","email_verified":true}`,
			`has(claims.email) && claims.email_verified == true && claims.email.endsWith("@example.com")`, true},
		{"a pattern", `{"sub":"repo:example/orders:ref:main"}`, `claims.sub.matches("^repo:example/[a-z]+:")`, true},
		{"a name with a dot", `{"kubernetes.io":{"namespace":"prod"}}`, `claims["kubernetes.io"].namespace == "prod"`, true},
		{"names that differ in letter case only", `{"Admin":true,"admin":false}`, `claims.admin == false`, true},
		{"a missing claim in a branch that is not needed", `{"a":1}`, `claims.a == 1 || claims.b == 1`, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			v, err := valetcel.Verifier(accepts(c.claims), rules("true", c.rule)...)
			require.NoError(t, err)
			got, err := v.Verify(t.Context(), "x")
			if c.accepted {
				require.NoError(t, err)
				assert.Equal(t, "alice", got.Subject())
				return
			}
			assert.Nil(t, got)
			refusal := refusalOf(t, err)
			assert.Equal(t, valetkey.InvalidToken, refusal.Code)
			assert.Equal(t, valetkey.ReasonClaimRule, refusal.Reason)
			assert.NotErrorIs(t, err, valetkey.ErrNotApplicable, "another verifier must not be asked")
		})
	}
}

func refusalOf(t *testing.T, err error) *valetkey.Error {
	t.Helper()
	refusal, ok := errors.AsType[*valetkey.Error](err)
	require.True(t, ok, "%v", err)
	return refusal
}

func TestRefusalsAndFailuresOfTheVerifierPass(t *testing.T) {
	for _, failure := range []error{&valetkey.Error{Code: valetkey.InvalidToken, Err: valetkey.ErrNotApplicable}, errors.New("the issuer is down")} {
		v, err := valetcel.Verifier(valetkey.VerifierFunc(func(context.Context, string) (*valetkey.Token, error) { return nil, failure }), rules("true")...)
		require.NoError(t, err)
		_, err = v.Verify(t.Context(), "x")
		assert.Equal(t, failure, err)
	}
	v, err := valetcel.Verifier(valetkey.VerifierFunc(func(context.Context, string) (*valetkey.Token, error) { return nil, nil }), rules("true")...)
	require.NoError(t, err)
	got, err := v.Verify(t.Context(), "x")
	assert.Nil(t, got)
	require.Error(t, err)
}

func TestMessages(t *testing.T) {
	r := valetcel.Rule{Expression: `claims.tid == "t1"`, Message: "only tenant t1 may use this API, for reasons that are explained at great length"}
	v, err := valetcel.Verifier(accepts(`{"tid":"secret"}`), r)
	require.NoError(t, err)
	_, err = v.Verify(t.Context(), "x")
	refusal := refusalOf(t, err)
	assert.Equal(t, r.Message, refusal.Reason.Description())
	assert.Regexp(t, "^claim_rule_only_tenant_t1_may_use_this_api[a-z_]*_[0-9a-f]{8}$", string(refusal.Reason))
	assert.LessOrEqual(t, len(refusal.Reason), 64)
	assert.Contains(t, err.Error(), `"claims.tid == \"t1\""`, "the log names the rule")
	assert.NotContains(t, err.Error(), "secret")

	before := len(valetkey.Reasons())
	again, err := valetcel.Verifier(accepts(`{}`), r, r)
	require.NoError(t, err)
	assert.Len(t, valetkey.Reasons(), before, "the same message has one reason")
	_, err = again.Verify(t.Context(), "x")
	assert.Equal(t, refusal.Reason, refusalOf(t, err).Reason)

	n, err := valetcel.Require(r)
	require.NoError(t, err)
	refusal = refusalOf(t, n.Check(valetkey.Access{Token: token("{}")}))
	assert.Equal(t, r.Message, refusal.Reason.Description())
	assert.True(t, strings.HasPrefix(string(refusal.Reason), "claims_forbid_only_tenant"), "%s", refusal.Reason)
}

// loops is a token whose claims make a rule with two loops take four million steps.
func loops(t testing.TB) string {
	groups := make([]string, 2000)
	for i := range groups {
		groups[i] = fmt.Sprint("g", i)
	}
	text, err := json.Marshal(map[string]any{"groups": groups})
	require.NoError(t, err)
	return string(text)
}

const nested = `claims.groups.all(a, claims.groups.all(b, a != "x" && b != "x"))`

func TestCEL03LoopsOverLargeClaimsEndAtTheCostLimit(t *testing.T) {
	claims := loops(t)
	t.Run("CEL-03 in a rule on the token", func(t *testing.T) {
		v, err := valetcel.Verifier(accepts(claims), rules(nested)...)
		require.NoError(t, err)
		_, err = v.Verify(t.Context(), "x")
		assert.Equal(t, valetkey.ReasonClaimRule, refusalOf(t, err).Reason)
		assert.ErrorContains(t, err, "costs more than 10000")
	})
	t.Run("CEL-03 in a rule on the access", func(t *testing.T) {
		n, err := valetcel.Require(rules(nested)...)
		require.NoError(t, err)
		err = n.Check(valetkey.Access{Token: token(claims)})
		assert.Equal(t, valetkey.Forbidden, refusalOf(t, err).Code)
		assert.ErrorContains(t, err, "costs more than 10000")
	})
	t.Run("CEL-03 the limit is not an error that || absorbs", func(t *testing.T) {
		n, err := valetcel.Require(rules(nested + " || true")...)
		require.NoError(t, err)
		assert.ErrorContains(t, n.Check(valetkey.Access{Token: token(claims)}), "costs more than 10000")
	})
	t.Run("CEL-03 texts that grow", func(t *testing.T) {
		n, err := valetcel.Require(rules(`claims.groups.map(a, claims.long + claims.long).size() == 2000`)...)
		require.NoError(t, err)
		long := strings.TrimSuffix(claims, "}") + `,"long":"` + strings.Repeat("x", 16<<10) + `"}`
		assert.ErrorContains(t, n.Check(valetkey.Access{Token: token(long)}), "costs more than 10000")
	})
	t.Run("membership of the same groups and a loop over a thousand are below the limit", func(t *testing.T) {
		n, err := valetcel.Require(rules(`"g1999" in claims.groups`, `claims.few.exists(g, g == "x999")`)...)
		require.NoError(t, err)
		few := make([]string, 1000)
		for i := range few {
			few[i] = fmt.Sprint("x", i)
		}
		text, err := json.Marshal(few)
		require.NoError(t, err)
		assert.NoError(t, n.Check(valetkey.Access{Token: token(strings.TrimSuffix(claims, "}") + `,"few":` + string(text) + "}")}))
	})
}

func TestADoneContextIsAFailure(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("the client is gone")
	claims := `{"groups":["` + strings.Repeat(`g","`, 999) + `g"]}`
	const loop = `claims.groups.all(g, g != "x")`
	v, err := valetcel.Verifier(accepts(claims), rules(loop)...)
	require.NoError(t, err)
	n, err := valetcel.Require(rules(loop)...)
	require.NoError(t, err)
	a := valetkey.Access{Token: token(claims), Request: httptest.NewRequest("GET", "/", nil).WithContext(ctx)}
	_, err = v.Verify(ctx, "x")
	require.NoError(t, err)
	require.NoError(t, n.Check(a))

	cancel(cause)
	_, err = v.Verify(ctx, "x")
	require.ErrorIs(t, err, cause)
	err = n.Check(a)
	require.ErrorIs(t, err, cause)
	_, isRefusal := errors.AsType[*valetkey.Error](err)
	assert.False(t, isRefusal)
}

func TestRulesOnTheAccess(t *testing.T) {
	const claims = `{"tenant_id":"t1","number":42,"empty":"","auth_time":1767225600}`
	noon := time.Date(2026, 1, 1, 12, 0, 0, 0, time.FixedZone("", 3600))
	for _, c := range []struct {
		name, rule string
		holds      bool
	}{
		{"a path value that differs", `claims.tenant_id == path.order`, false},
		{"a path value that no wildcard matches", `claims.tenant_id == path.missing`, false},
		{"a missing path value must differ", `claims.tenant_id != path.missing`, false},
		{"an empty path value equals no empty claim", `claims.empty == path.rest`, false},
		{"another method", `request.method == "GET"`, false},
		{"a scope that the token lacks", `"admin" in token.scopes`, false},
		{"the time", `now < timestamp("2026-01-01T11:00:00Z")`, false},
		{"a login before the limit", `now - timestamp(claims.auth_time) < duration("1h")`, false},

		{"a path value", `claims.tenant_id == path.tenant`, true},
		{"a path value by its name as text", `claims.tenant_id == path["tenant"]`, true},
		{"a number in the path", `string(claims.number) == path.order`, true},
		{"an empty path value is absent", `!has(path.rest) && !("rest" in path) && has(path.tenant) && "tenant" in path`, true},
		{"the request", `request.method == "POST" && request.host == "api.example.com" && request.path == "/tenants/t1/orders/42/"`, true},
		{"the facts", `token.issuer == "https://as.example.com" && token.subject == "alice" && token.client_id == "web" && token.acr == "gold"`, true},
		{"the scopes", `"orders:write" in token.scopes && token.scopes.all(s, s.startsWith("orders:"))`, true},
		{"the audience", `token.audience == ["https://api.example.com"]`, true},
		{"the claims of the token", `token.claims.tenant_id == claims.tenant_id`, true},
		{"the hour in UTC", `now.getHours() == 11 && now.getHours("+01:00") == 12 && now.getHours("UTC") == 11`, true},
		{"a login within the limit", `now - timestamp(claims.auth_time) < duration("12h")`, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			n, err := valetcel.Require(rules(c.rule)...)
			require.NoError(t, err)
			var check error
			mux := http.NewServeMux()
			mux.HandleFunc("POST /tenants/{tenant}/orders/{order}/{rest...}", func(_ http.ResponseWriter, r *http.Request) {
				check = n.Check(valetkey.Access{Token: token(claims), Time: noon, Request: r})
			})
			mux.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("POST", "https://api.example.com/tenants/t1/orders/42/?x=1", nil))
			if c.holds {
				require.NoError(t, check)
				return
			}
			refusal := refusalOf(t, check)
			assert.Equal(t, valetkey.Forbidden, refusal.Code)
			assert.Equal(t, valetkey.ReasonClaimsForbid, refusal.Reason)
		})
	}
	t.Run("without a request, rules about it refuse and others hold", func(t *testing.T) {
		for rule, holds := range map[string]bool{
			`request.method == "GET"`: false, `request.method != "GET"`: false, `!has(path.tenant)`: false, `claims.tenant_id == "t1"`: true,
		} {
			n, err := valetcel.Require(rules(rule)...)
			require.NoError(t, err)
			assert.Equal(t, holds, n.Check(valetkey.Access{Token: token(claims)}) == nil, rule)
		}
	})
	t.Run("the zero value and a missing token refuse", func(t *testing.T) {
		n, err := valetcel.Require(rules("true")...)
		require.NoError(t, err)
		for _, check := range []error{
			new(valetcel.Requirement).Check(valetkey.Access{Token: token("{}")}),
			(*valetcel.Requirement)(nil).Check(valetkey.Access{Token: token("{}")}),
			n.Check(valetkey.Access{}),
		} {
			assert.Equal(t, valetkey.Forbidden, refusalOf(t, check).Code)
		}
	})
}

func TestRequestsShareARequirementAndAToken(t *testing.T) {
	n, err := valetcel.Require(rules(`claims.groups.exists(g, g == "ops") && request.path == path.all`)...)
	require.NoError(t, err)
	one := token(`{"groups":["dev","ops"]}`)
	var wait sync.WaitGroup
	for i := range 8 {
		wait.Go(func() {
			for j := range 50 {
				r := httptest.NewRequest("GET", fmt.Sprintf("/%d-%d", i, j), nil)
				r.SetPathValue("all", r.URL.Path)
				assert.NoError(t, n.Check(valetkey.Access{Token: one, Request: r}))
			}
		})
	}
	wait.Wait()
}

func TestDescribe(t *testing.T) {
	n, err := valetcel.Require(rules("claims.a ==\n  1", `claims.tenant_id == path.tenant && (!has(path.order) || path.order != "0")`)...)
	require.NoError(t, err)
	want := []string{"claims.a == 1", `claims.tenant_id == path.tenant && (!has(path.order) || path.order != "0")`}
	assert.Equal(t, want, valetkey.Describe(valetkey.AllOf{scopes.All("orders:read"), n}).Rules)
	assert.Equal(t, strings.Join(want, " && "), n.String())
	assert.Equal(t, []string{"tenant"}, n.Wildcards())
}

func TestTheTableFindsAWildcardThatThePatternLacks(t *testing.T) {
	n, err := valetcel.Require(rules(`claims.tenant_id == path.tennant`)...)
	require.NoError(t, err)
	err = routes.Table{"GET /tenants/{tenant}": valetkey.AllOf{scopes.All("orders:read"), n}}.Validate()
	require.ErrorContains(t, err, `can never hold: the pattern has no wildcard {tennant}`)
}

// TestGuard sends real tokens through a guard.
func TestGuard(t *testing.T) {
	iss := valetkeytest.NewIssuer(t)
	keys, err := jwks.New(jwks.Config{Issuer: iss.URL, Audience: []string{valetkeytest.DefaultAudience}, Client: iss.Client(), Now: iss.Now})
	require.NoError(t, err)
	t.Cleanup(keys.Close)
	require.NoError(t, keys.Ready(t.Context())) // a request would wait for two seconds only
	var runs atomic.Int64
	counted := valetkey.VerifierFunc(func(ctx context.Context, raw string) (*valetkey.Token, error) {
		runs.Add(1)
		return keys.Verify(ctx, raw)
	})
	verifier, err := valetcel.Verifier(counted, valetcel.Rule{Expression: `int(claims.level) >= 2`, Message: "the level is too low"})
	require.NoError(t, err)
	guard, err := middleware.New(middleware.Config{Verifier: verifier, Now: iss.Now})
	require.NoError(t, err)
	tenant, err := valetcel.Require(rules(`claims.tenant_id == path.tenant`)...)
	require.NoError(t, err)
	api, err := routes.Table{"GET /tenants/{tenant}": valetkey.AllOf{scopes.All("orders:read"), tenant}}.Guard(guard,
		http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	require.NoError(t, err)
	ask := func(path, token string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		api.ServeHTTP(w, valetkeytest.Request("GET", path, token))
		return w
	}
	with := func(claims ...valetkeytest.Option) string {
		return iss.Token(append(claims, valetkeytest.Scopes("orders:read"), valetkeytest.Claim("tenant_id", "t1"))...)
	}

	t.Run("CEL-02 a missing claim is a refusal with the fixed message", func(t *testing.T) {
		w := ask("/tenants/t1", with())
		assert.Equal(t, http.StatusUnauthorized, w.Code)
		challenge := valetkeytest.Challenge(t, w.Header(), "Bearer")
		assert.Equal(t, "invalid_token", challenge["error"])
		assert.Equal(t, "the level is too low", challenge["error_description"])
	})
	t.Run("CEL-06 the value that a rule cannot convert is in no response", func(t *testing.T) {
		w := ask("/tenants/t1", with(valetkeytest.Claim("level", "forty-two")))
		assert.Equal(t, http.StatusUnauthorized, w.Code)
		assert.NotContains(t, w.Body.String()+fmt.Sprint(w.Header()), "forty-two")
		_, err := verifier.Verify(t.Context(), with(valetkeytest.Claim("level", "forty-two")))
		assert.ErrorContains(t, err, `the rule "int(claims.level) >= 2" cannot be evaluated`)
		assert.NotContains(t, err.Error(), "forty-two", "nor in the log")
	})
	t.Run("a rule on the access refuses with 403 and without an error code", func(t *testing.T) {
		w := ask("/tenants/t2", with(valetkeytest.Claim("level", 2)))
		assert.Equal(t, http.StatusForbidden, w.Code)
		assert.NotContains(t, valetkeytest.Challenge(t, w.Header(), "Bearer"), "error")
		assert.NotContains(t, w.Body.String()+fmt.Sprint(w.Header()), "t1")
	})
	t.Run("CEL-05 the rule on the token does not run again for a remembered token, those on the access do", func(t *testing.T) {
		token := with(valetkeytest.Claim("level", 3))
		before := runs.Load()
		for range 3 {
			assert.Equal(t, http.StatusOK, ask("/tenants/t1", token).Code)
			assert.Equal(t, http.StatusForbidden, ask("/tenants/t2", token).Code)
		}
		assert.Equal(t, before+1, runs.Load(), "one verification, and one run of its rules")
		guard.Purge(nil)
		assert.Equal(t, http.StatusOK, ask("/tenants/t1", token).Code)
		assert.Equal(t, before+2, runs.Load())
	})
}

// A spy is a verifier with a health and a cache.
type spy struct {
	valetkey.Verifier
	purged, readied int
}

func (s *spy) Health() []valetkey.Health {
	return []valetkey.Health{{Name: "spy", State: valetkey.Degraded}}
}
func (s *spy) Ready(context.Context) error { s.readied++; return errors.New("not ready") }
func (s *spy) Purge()                      { s.purged++ }

func TestHealthAndPurgeOfTheVerifierStayVisible(t *testing.T) {
	s := &spy{Verifier: accepts("{}")}
	v, err := valetcel.Verifier(s, rules("true")...)
	require.NoError(t, err)
	assert.Equal(t, s.Health(), v.(valetkey.HealthReporter).Health())
	require.ErrorContains(t, v.(valetkey.HealthReporter).Ready(t.Context()), "not ready")
	v.(valetkey.Purger).Purge()
	assert.Equal(t, 1, s.readied)
	assert.Equal(t, 1, s.purged)
}

func TestTheTokenStaysAsItWasVerified(t *testing.T) {
	want := token("{}")
	v, err := valetcel.Verifier(valetkey.VerifierFunc(func(context.Context, string) (*valetkey.Token, error) { return want, nil }), rules("true")...)
	require.NoError(t, err)
	got, err := v.Verify(t.Context(), "x")
	require.NoError(t, err)
	assert.Same(t, want, got)
}

func BenchmarkAccess(b *testing.B) {
	claims := `{"iss":"https://as.example.com","sub":"alice","tenant_id":"t1","groups":["dev","ops","qa"],"email":"alice@example.com","email_verified":true,` +
		`"aud":"https://api.example.com","exp":1700000600,"iat":1700000000,"jti":"2c1b5f0e-8b7d-4f7a-9f61-9d3c0f0a6b11"}`
	r := httptest.NewRequest("GET", "https://api.example.com/tenants/t1/orders", nil)
	r.SetPathValue("tenant", "t1")
	for name, rule := range map[string]string{
		"tenant":        `claims.tenant_id == path.tenant`,
		"three clauses": `request.method == "GET" && claims.tenant_id == path.tenant && "ops" in claims.groups`,
		"clock":         `now - timestamp(claims.iat) < duration("1h")`,
		"loop":          `claims.groups.exists(g, g == "ops")`,
	} {
		b.Run(name, func(b *testing.B) {
			n, err := valetcel.Require(rules(rule)...)
			require.NoError(b, err)
			a := valetkey.Access{Token: token(claims), Time: time.Unix(1700000300, 0), Request: r}
			require.NoError(b, n.Check(a))
			b.ReportAllocs()
			for b.Loop() {
				if err := n.Check(a); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("cost limit", func(b *testing.B) {
		n, err := valetcel.Require(rules(nested)...)
		require.NoError(b, err)
		a := valetkey.Access{Token: token(loops(b))}
		for b.Loop() {
			if n.Check(a) == nil {
				b.Fatal("accepted")
			}
		}
	})
}

func BenchmarkVerifier(b *testing.B) {
	claims := `{"iss":"https://as.example.com","sub":"alice","tenant_id":"t1","groups":["dev","ops","qa"],"exp":1700000600,"iat":1700000000}`
	one := token(claims)
	v, err := valetcel.Verifier(valetkey.VerifierFunc(func(context.Context, string) (*valetkey.Token, error) { return one, nil }),
		rules(`claims.exp - claims.iat <= 600`)...)
	require.NoError(b, err)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.Verify(b.Context(), "x"); err != nil {
			b.Fatal(err)
		}
	}
}
