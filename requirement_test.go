package valetkey_test

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/scopes"
)

func TestAnyOf(t *testing.T) {
	answers := func(err error) valetkey.Requirement {
		return valetkey.RequirementFunc(func(valetkey.Access) error { return err })
	}
	code := func(c valetkey.Code) valetkey.Requirement { return answers(&valetkey.Error{Code: c}) }
	down := errors.New("the policy server is down")
	accepts, forbids := answers(nil), code(valetkey.Forbidden)
	for _, c := range []struct {
		name  string
		any   valetkey.AnyOf
		want  valetkey.Code
		fails bool
	}{
		{"nothing", nil, valetkey.InsufficientScope, false},
		{"one that refuses", valetkey.AnyOf{forbids}, valetkey.Forbidden, false},
		{"a scope would help", valetkey.AnyOf{forbids, code(valetkey.InsufficientScope)}, valetkey.InsufficientScope, false},
		{"a login would help", valetkey.AnyOf{code(valetkey.InsufficientScope), code(valetkey.InsufficientUserAuthentication), forbids}, valetkey.InsufficientUserAuthentication, false},
		{"the first of equals", valetkey.AnyOf{code(valetkey.InvalidRequest), forbids}, valetkey.InvalidRequest, false},
		{"one that fails, and one that refuses", valetkey.AnyOf{answers(down), forbids}, "", true},
		{"a nil element", valetkey.AnyOf{nil, accepts}, "", true},
		{"an openness", valetkey.AnyOf{valetkey.Public}, "", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.any.Check(valetkey.Access{})
			require.Error(t, err)
			var refusal *valetkey.Error
			if c.fails {
				assert.NotErrorAs(t, err, &refusal)
				return
			}
			require.ErrorAs(t, err, &refusal)
			assert.Equal(t, c.want, refusal.Code)
		})
	}
	for name, any := range map[string]valetkey.AnyOf{
		"the first":                        {accepts, answers(down)},
		"a later one":                      {forbids, accepts},
		"one, although another one fails":  {answers(down), accepts},
		"all of an inner list, or another": {valetkey.AllOf{accepts, forbids}, valetkey.AnyOf{accepts}},
	} {
		t.Run("accepted by "+name, func(t *testing.T) { assert.NoError(t, any.Check(valetkey.Access{})) })
	}
}

// A remote requirement counts its checks.
type remote struct {
	checks *int
	err    error
}

func (remote) Remote() {}
func (r remote) Check(valetkey.Access) error {
	*r.checks++
	return r.err
}

func TestAllOfAsksOtherServicesLastInsideOfOthersToo(t *testing.T) {
	token := valetkey.NewToken(valetkey.TokenFields{Scopes: valetkey.NewScopes("b")})
	check := func(all ...valetkey.Requirement) error {
		return valetkey.AllOf(all).Check(valetkey.Access{Token: token})
	}
	for name, nested := range map[string]func(r valetkey.Requirement) valetkey.Requirement{
		"all": func(r valetkey.Requirement) valetkey.Requirement { return valetkey.AllOf{r} },
		"any": func(r valetkey.Requirement) valetkey.Requirement { return valetkey.AnyOf{r} },
		"any of all": func(r valetkey.Requirement) valetkey.Requirement {
			return valetkey.AnyOf{valetkey.AllOf{r}}
		},
	} {
		checks := 0
		assert.ErrorContains(t, check(nested(remote{&checks, nil}), scopes.All("a")), "insufficient_scope", name)
		assert.Zero(t, checks, name)
		assert.NoError(t, check(nested(remote{&checks, nil}), scopes.All("b")), name)
		assert.Equal(t, 1, checks, name)
	}
	checks := 0
	err := check(valetkey.AllOf{scopes.All("a"), remote{&checks, nil}}, scopes.All("b"))
	var refusal *valetkey.Error
	require.ErrorAs(t, err, &refusal)
	assert.Equal(t, "a b", refusal.Scope.String(), "the scopes of all elements")
	assert.Zero(t, checks)
}

func TestAllOfAsksOtherServicesLast(t *testing.T) {
	checks := 0
	denied, down := &valetkey.Error{Code: valetkey.Forbidden}, errors.New("down")
	local := func(err error) valetkey.Requirement {
		return valetkey.RequirementFunc(func(valetkey.Access) error { return err })
	}
	narrow := local(&valetkey.Error{Code: valetkey.InsufficientScope, Scope: valetkey.NewScopes("a")})
	check := func(all ...valetkey.Requirement) error {
		checks = 0
		return valetkey.AllOf(all).Check(valetkey.Access{})
	}
	assert.ErrorContains(t, check(remote{&checks, nil}, narrow), "insufficient_scope")
	assert.Zero(t, checks)
	assert.ErrorIs(t, check(remote{&checks, nil}, local(down)), down)
	assert.Zero(t, checks)
	assert.ErrorIs(t, check(remote{&checks, denied}, remote{&checks, nil}, local(nil)), denied)
	assert.Equal(t, 1, checks)
	assert.ErrorIs(t, check(local(nil), remote{&checks, down}), down)
	assert.NoError(t, check(remote{&checks, nil}, local(nil), remote{&checks, nil}))
	assert.Equal(t, 2, checks)
	assert.NoError(t, check(remote{&checks, nil}))
}
