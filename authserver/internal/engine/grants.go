package engine

import (
	"slices"
	"strings"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/authserver/internal/clients"
	"github.com/valetkey/valetkey/authserver/model"
	"github.com/valetkey/valetkey/scopes"
)

// wanted resolves the request of a client to one API and at least one of its scopes, all of which the client may have.
func (e *Engine) wanted(c *clients.Client, resources []string, scope string) (model.API, valetkey.Scopes, error) {
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

// choose finds the API that a token is for: the requested resource, otherwise the API of the requested scopes, otherwise the
// client's default, otherwise its only API (RFC 8707, section 2; RFC 9068, section 3).
func (e *Engine) choose(c *clients.Client, resources []string, asked valetkey.Scopes) (model.API, error) {
	refusal := errScope
	switch {
	case len(resources) > 1: // with a token for two APIs, one could use it at the other (RFC 9068, section 5)
		return model.API{}, errTarget
	case len(resources) == 1:
		if api, ok := e.api(resources[0]); ok {
			return api, nil
		}
		return model.API{}, errTarget
	case asked.Len() == 0 && c.DefaultAPI != "":
		api, _ := e.api(c.DefaultAPI)
		return api, nil
	case asked.Len() == 0:
		asked, refusal = valetkey.NewScopes(c.Scopes...), errTarget
	}
	for _, a := range e.cfg.APIs {
		if a.Has(asked) {
			return a, nil
		}
	}
	return model.API{}, refusal
}

// api returns the API with this audience.
func (e *Engine) api(audience string) (model.API, bool) {
	i := slices.IndexFunc(e.cfg.APIs, func(a model.API) bool { return a.Audience == audience })
	if i < 0 {
		return model.API{}, false
	}
	return e.cfg.APIs[i], true
}
