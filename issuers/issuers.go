// Package issuers has the settings for the access tokens of widespread products, one constructor per product.
//
//	cfg, err := issuers.Keycloak(issuers.Params{
//		Issuer:   "https://sso.example.com/realms/shop",
//		Audience: []string{"https://api.example.com"},
//	})
//	...
//	keys, err := jwks.New(cfg)
//
// A constructor returns a [jwks.Config] that accepts the product's access tokens and refuses its near relatives: ID tokens, refresh
// and logout tokens, tokens for another API, tokens of another tenant. The caller may change it further, for example its Scopes,
// Client or Leeway. The comment on each constructor states what the product's tokens lack and which parameters it needs. The page
// docs/issuers.md has the settings to make at each product.
//
// A constructor whose name ends with Introspection returns an [introspect.Config] for the product's opaque tokens, to which the caller
// adds Auth.
//
// Constructors do no I/O. Their error lists every mistake in [Params]. They are safe for concurrent use.
package issuers

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/valetkey/valetkey/claims"
	"github.com/valetkey/valetkey/internal/mistakes"
	"github.com/valetkey/valetkey/internal/tokenclaims"
	"github.com/valetkey/valetkey/jwks"
)

// Params are the parameters of a constructor. Each constructor states which of them it needs. One that it has no use for is a
// mistake.
type Params struct {
	_ struct{} // keyed literals only

	// Issuer is the issuer identifier: the iss of the tokens, as the product displays it.
	Issuer string

	// Audience lists the names of this API: the aud of the tokens that are for it.
	Audience []string

	// Tenants lists the tenants whose tokens are accepted, of a product that issues tokens for many tenants.
	Tenants []string

	// Clients lists the clients whose tokens are accepted. Nil: all clients that the issuer issues tokens for this API to, unless
	// the constructor requires the list.
	Clients []string

	// Rules are conditions on the claims, such as whose repository a job belongs to. An issuer that issues tokens to anyone needs at
	// least one that pins the subject.
	Rules []claims.Rule
}

// A product is the description of one product's tokens.
type product struct {
	name  string // in configuration files
	needs field  // parameters that are required
	takes field  // parameters that are optional; Clients and Rules always are

	// pins lists the claims of which a rule must pin one. Nil: no rule is needed.
	pins []string

	// owners lists the beginnings of a sub, or of another claim in paths, that the name or ID of its owner follows. A rule about any
	// other sub pins nothing. Nil: every rule about sub does.
	owners []string

	// paths lists the claims with the form of a sub besides sub itself.
	paths []string

	// config adds the settings of the product to cfg, which contains the parameters already, and mistakes in them to wrong.
	config func(p Params, cfg *jwks.Config, wrong *mistakes.List)
}

type field uint8

const (
	needsIssuer field = 1 << iota
	needsAudience
	needsTenants
	needsClients
)

// build returns the settings for p.
func (x product) build(p Params) (jwks.Config, error) {
	wrong := mistakes.List{Package: "issuers: " + x.name}
	for _, f := range []struct {
		field
		name  string
		given bool
	}{
		{needsIssuer, "Issuer", p.Issuer != ""},
		{needsAudience, "Audience", len(p.Audience) > 0},
		{needsTenants, "Tenants", len(p.Tenants) > 0},
		{needsClients, "Clients", len(p.Clients) > 0},
	} {
		switch {
		case !f.given && x.needs&f.field != 0:
			wrong.Add(f.name, "required")
		case f.given && (x.needs|x.takes|needsClients)&f.field == 0:
			wrong.Add(f.name, "has no meaning for this product")
		}
	}
	if len(p.Audience) > 0 {
		wrong.Within("Audience", tokenclaims.CheckAudience(p.Audience))
	}
	if x.pins != nil {
		x.checkPins(p.Rules, &wrong)
	}
	cfg := jwks.Config{
		Issuer:   p.Issuer,
		Audience: slices.Clone(p.Audience),
		Clients:  slices.Clone(p.Clients),
		Rules:    slices.Clone(p.Rules),
	}
	x.config(p, &cfg, &wrong)
	if err := wrong.Err(); err != nil {
		return jwks.Config{}, err
	}
	return cfg, nil
}

// checkPins adds the mistakes in rules, of which one must pin the subject.
func (x product) checkPins(rules []claims.Rule, wrong *mistakes.List) {
	pinned := false
	for i, r := range rules {
		if !r.Pins() || !slices.Contains(x.pins, r.Claim()) {
			continue
		}
		values, beginnings := r.Values()
		open := func(v string) bool { return !strings.HasSuffix(v, "/") && !strings.HasSuffix(v, ":") }
		if beginnings && slices.ContainsFunc(values, open) {
			wrong.Add(fmt.Sprintf("Rules[%d]", i), `%q also holds for others whose names begin with these letters: end the prefix with "/" or ":"`, r)
		}
		anyone := func(v string) bool { return !x.namesOwner(r.Claim(), v) }
		pinned = pinned || !slices.ContainsFunc(values, anyone)
	}
	if !pinned {
		wrong.Add("Rules", "required: this issuer issues tokens to anyone, so a rule must pin the subject by one of the claims %q", x.pins)
	}
}

// namesOwner reports whether a claim with this value, or with this beginning, belongs to one owner.
func (x product) namesOwner(claim, value string) bool {
	if x.owners != nil && (claim == "sub" || slices.Contains(x.paths, claim)) {
		i := slices.IndexFunc(x.owners, func(o string) bool { return strings.HasPrefix(value, o) })
		if i < 0 {
			return false
		}
		value = strings.TrimPrefix(value, x.owners[i])
	}
	return strings.Trim(value, "/:") != ""
}

// products are all products by name.
var products = index(slices.Concat(
	[]product{keycloak, keycloakLightweight, cognito},
	frameworkProducts,
	ciProducts,
	microsoftProducts,
	cloudProducts,
	workloadProducts,
	enterpriseProducts,
	hostedProducts,
	selfHostedProducts,
))

func index(all []product) map[string]product {
	byName := make(map[string]product, len(all))
	for _, x := range all {
		if _, taken := byName[x.name]; taken {
			panic("issuers: two products are named " + x.name)
		}
		byName[x.name] = x
	}
	return byName
}

// Names returns the names by which [Named] knows the products, sorted.
func Names() []string { return slices.Sorted(maps.Keys(products)) }

// Named returns what the constructor of the product with this name returns. It is for configuration files: the name of [Keycloak] is
// "keycloak". The error lists an unknown name, or every mistake in p.
func Named(name string, p Params) (jwks.Config, error) {
	x, known := products[name]
	if !known {
		return jwks.Config{}, fmt.Errorf("issuers: %q is not one of %q", name, Names())
	}
	return x.build(p)
}
