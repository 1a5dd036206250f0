package middleware_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/claims"
	"github.com/valetkey/valetkey/middleware"
	"github.com/valetkey/valetkey/scopes"
)

func TestReadsPath(t *testing.T) {
	own := valetkey.RequirementFunc(func(valetkey.Access) error { return nil })
	for name, c := range map[string]struct {
		needs []valetkey.Requirement
		want  bool
	}{
		"no requirement":               {nil, false},
		"any token":                    {[]valetkey.Requirement{valetkey.AnyToken}, false},
		"a scope":                      {[]valetkey.Requirement{scopes.All("a")}, false},
		"a claim":                      {[]valetkey.Requirement{claims.Present("a")}, false},
		"a recent login":               {[]valetkey.Requirement{middleware.ACR("a"), middleware.MaxAge(time.Minute)}, false},
		"all of two that do not":       {[]valetkey.Requirement{valetkey.AllOf{scopes.All("a"), claims.Present("a")}}, false},
		"any of two that do not":       {[]valetkey.Requirement{valetkey.AnyOf{scopes.All("a"), claims.Present("a")}}, false},
		"the application's own":        {[]valetkey.Requirement{own}, true},
		"the second one":               {[]valetkey.Requirement{scopes.All("a"), own}, true},
		"all of several, deep inside":  {[]valetkey.Requirement{valetkey.AllOf{scopes.All("a"), valetkey.AnyOf{own}}}, true},
		"any of several, deep inside":  {[]valetkey.Requirement{valetkey.AnyOf{scopes.All("a"), valetkey.AllOf{own}}}, true},
		"one that is only reported on": {[]valetkey.Requirement{valetkey.InsecureReportOnly{own}}, true},
	} {
		t.Run(name, func(t *testing.T) { assert.Equal(t, c.want, middleware.ReadsPath(c.needs...)) })
	}
}
