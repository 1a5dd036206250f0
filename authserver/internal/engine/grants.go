package engine

import (
	"cmp"
	"slices"
	"strings"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/authserver/internal/flow"
	"github.com/valetkey/valetkey/authserver/model"
	"github.com/valetkey/valetkey/scopes"
)

// offered is wanted for an authorization request, whose user decides: scopes that the client cannot have at the API are left out,
// because clients ask for those of other servers, such as openid. The token response states those that are left (RFC 6749, section
// 3.3). The error is errScope if none is, and errDetails
// if the API does not have the type of a detail.
func (e *Engine) offered(c *model.Client, resources []string, scope string, details []flow.Detail) (model.API, valetkey.Scopes, error) {
	var left []string
	for _, s := range strings.Fields(scope) {
		switch api, named := e.named(resources); {
		case scopes.Validate(s) != nil:
			return model.API{}, valetkey.Scopes{}, errScope
		case slices.Contains(c.Scopes, s) && (!named || api.Scope(s) != nil):
			left = append(left, s)
		}
	}
	if scope != "" && left == nil {
		left = strings.Fields(scope) // which wanted refuses
	}
	api, asked, err := e.wanted(c, resources, strings.Join(left, " "))
	if left == nil && len(details) > 0 {
		asked = valetkey.Scopes{} // the details alone, without the default scopes
	}
	if err == nil && slices.ContainsFunc(details, func(d flow.Detail) bool { return api.DetailType(d.Type) == nil }) {
		err = errDetails // RFC 9396, section 5
	}
	return api, asked, err
}

// wanted resolves the request of a client to one API and at least one of its scopes, all of which the client may have.
func (e *Engine) wanted(c *model.Client, resources []string, scope string) (model.API, valetkey.Scopes, error) {
	asked := valetkey.NewScopes(strings.Split(scope, " ")...)
	for s := range asked.All() {
		if scopes.Validate(s) != nil || !slices.Contains(c.Scopes, s) {
			return model.API{}, valetkey.Scopes{}, errScope
		}
	}
	api, err := e.choose(c, resources, asked)
	if err != nil {
		return model.API{}, valetkey.Scopes{}, err
	}
	if asked.Len() == 0 {
		// RFC 6749, section 3.3: an omitted scope means a default, here all scopes that the client may have at this API.
		asked = api.Among(c.Scopes)
	}
	if asked.Len() == 0 || !api.Has(asked) {
		return model.API{}, valetkey.Scopes{}, errScope
	}
	return api, asked, nil
}

// choose finds the API that a token is for: the requested resource, otherwise the only API with the requested scopes, or with all
// of the client's if none are requested. If there are several, the default decides (RFC 8707, section 2; RFC 9068, section 3).
func (e *Engine) choose(c *model.Client, resources []string, asked valetkey.Scopes) (model.API, error) {
	if len(resources) > 0 {
		if api, ok := e.named(resources); ok {
			return api, nil
		}
		return model.API{}, errTarget
	}
	byDefault, _ := e.api(cmp.Or(c.DefaultAPI, e.cfg.DefaultAPI))
	refusal := errScope
	if asked.Len() == 0 {
		if byDefault.Among(c.Scopes).Len() > 0 {
			return byDefault, nil
		}
		asked, refusal = valetkey.NewScopes(c.Scopes...), errTarget
	}
	var fit []model.API
	for _, a := range e.cfg.APIs {
		if a.Has(asked) {
			fit = append(fit, a)
		}
	}
	switch {
	case len(fit) == 0:
		return model.API{}, refusal
	case len(fit) == 1:
		return fit[0], nil
	case byDefault.Audience != "" && byDefault.Has(asked):
		return byDefault, nil
	default:
		return model.API{}, errTarget
	}
}

// named returns the API that the resource parameter names. With a token for two APIs, one could use it at the other (RFC 9068,
// section 5), so there is only one.
func (e *Engine) named(resources []string) (model.API, bool) {
	if len(resources) != 1 {
		return model.API{}, false
	}
	return e.api(resources[0])
}

// api returns the API with this audience.
func (e *Engine) api(audience string) (model.API, bool) {
	i := slices.IndexFunc(e.cfg.APIs, func(a model.API) bool { return a.Audience == audience })
	if i < 0 {
		return model.API{}, false
	}
	return e.cfg.APIs[i], true
}
