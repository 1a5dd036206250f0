package valetkey_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey"
)

type orderClaims struct {
	Tenant string                `json:"tenant"`
	Roles  valetkey.List[string] `json:"roles"`
	Limits [2]int                `json:"limits"`
	Scope  valetkey.Scopes       `json:"scope"`
	Since  time.Time             `json:"since"`
	Owner  struct {
		ID int64 `json:"id"`
	} `json:"owner"`
}

// A validated type wants a tenant.
type validated struct {
	Tenant string `json:"tenant"`
}

func (v validated) Validate() error {
	if v.Tenant == "" {
		return errors.New("no tenant")
	}
	return nil
}

// A cloned type has a slice, which it copies.
type cloned struct {
	Groups []string `json:"groups"`
}

func (c cloned) Clone() cloned { return cloned{slices.Clone(c.Groups)} }

type group struct{ Name string }

func TestDeclareClaims(t *testing.T) {
	t.Run("a type that a handler could change is a mistake, which names the part", func(t *testing.T) {
		for want, declared := range map[string]valetkey.Claims{
			"string is not a struct":            valetkey.DeclareClaims[string](),
			"map[string]string is not a struct": valetkey.DeclareClaims[map[string]string](),
			"struct { A []string }.A":           valetkey.DeclareClaims[struct{ A []string }](),
			"struct { A map[string]int }.A":     valetkey.DeclareClaims[struct{ A map[string]int }](),
			"struct { A *int }.A":               valetkey.DeclareClaims[struct{ A *int }](),
			"struct { A interface {} }.A":       valetkey.DeclareClaims[struct{ A any }](),
			"struct { a []int }.a":              valetkey.DeclareClaims[struct{ a []int }](),
			".A[i].B":                           valetkey.DeclareClaims[struct{ A [1]struct{ B []int } }](),
			".A[i]":                             valetkey.DeclareClaims[struct{ A valetkey.List[*int] }](),
		} {
			require.ErrorContains(t, declared.Check(), want)
		}
	})
	t.Run("values, List, Scopes and time.Time can be shared, and so can a type that clones itself", func(t *testing.T) {
		for _, declared := range []valetkey.Claims{
			valetkey.DeclareClaims[orderClaims](), valetkey.DeclareClaims[validated](), valetkey.DeclareClaims[cloned](),
			valetkey.DeclareClaims[struct{ A valetkey.List[group] }](), valetkey.DeclareClaims[struct{}](),
		} {
			assert.NoError(t, declared.Check())
		}
	})
	t.Run("a claim that does not fit, and an error of Validate, refuse the token", func(t *testing.T) {
		for raw, want := range map[string]string{"": "no claims", `{"tenant":1}`: "cannot unmarshal number", `{"tenant":""}`: "no tenant"} {
			_, _, err := valetkey.DeclareClaims[validated]().Decode(valetkey.NewToken(valetkey.TokenFields{Raw: raw}))
			assert.ErrorContains(t, err, want, raw)
		}
	})
	t.Run("the bytes are those of the type and of what it refers to", func(t *testing.T) {
		_, small, err := valetkey.DeclareClaims[cloned]().Decode(valetkey.NewToken(valetkey.TokenFields{Raw: `{"groups":["a"]}`}))
		require.NoError(t, err)
		_, large, err := valetkey.DeclareClaims[cloned]().Decode(valetkey.NewToken(valetkey.TokenFields{Raw: `{"groups":["a","0123456789"]}`}))
		require.NoError(t, err)
		assert.GreaterOrEqual(t, small, 24+16+1)
		assert.GreaterOrEqual(t, large, small+16+10)
	})
	t.Run("a context has the claims of one declaration", func(t *testing.T) {
		one, other := valetkey.DeclareClaims[orderClaims](), valetkey.DeclareClaims[orderClaims]()
		_, ok := one.From(t.Context())
		assert.False(t, ok)
		ctx := one.NewContext(t.Context(), orderClaims{Tenant: "t1"})
		got, ok := one.From(ctx)
		assert.True(t, ok)
		assert.Equal(t, "t1", got.Tenant)
		_, ok = other.From(ctx)
		assert.False(t, ok)
		assert.Zero(t, testing.AllocsPerRun(100, func() { one.From(ctx) }))
	})
	t.Run("changes that a handler makes to its claims are not shared", func(t *testing.T) {
		declared := valetkey.DeclareClaims[cloned]()
		ctx := declared.NewContext(context.Background(), cloned{Groups: []string{"a"}})
		mine, _ := declared.From(ctx)
		mine.Groups[0] = "admin"
		again, _ := declared.From(ctx)
		assert.Equal(t, []string{"a"}, again.Groups)
	})
}

func TestList(t *testing.T) {
	items := []string{"b", "a"}
	list := valetkey.ListOf(items...)
	items[0] = "x"
	assert.Equal(t, []string{"b", "a"}, list.Slice())
	assert.Equal(t, []string{"b", "a"}, slices.Collect(list.All()))
	assert.True(t, list.Has("a"))
	assert.False(t, list.Has("x"))
	assert.Equal(t, 2, list.Len())
	assert.Equal(t, "b", list.At(0))
	assert.Equal(t, "[b a]", list.String())
	assert.Equal(t, valetkey.List[string]{}, valetkey.ListOf[string]())
	assert.Nil(t, valetkey.List[string]{}.Slice())

	for text, want := range map[string]valetkey.List[string]{`["b","a"]`: list, `[]`: {}, `null`: {}} {
		var got valetkey.List[string]
		require.NoError(t, got.UnmarshalJSON([]byte(text)))
		assert.Equal(t, want, got)
	}
	for _, text := range []string{`"a"`, `{}`, `[1]`, `[`} {
		got := list
		assert.Error(t, got.UnmarshalJSON([]byte(text)), text)
		assert.Equal(t, list, got)
	}
	for want, l := range map[string]valetkey.List[string]{`["b","a"]`: list, `[]`: {}} {
		text, err := l.MarshalJSON()
		require.NoError(t, err)
		assert.Equal(t, want, string(text))
	}
}
