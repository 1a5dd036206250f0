// Package celrules connects the command to package valetcel.
package celrules

import (
	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/adapters/valetcel"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/driver"
)

// CEL is the driver.
var CEL = driver.CEL{
	Verifier: func(v valetkey.Verifier, rules []driver.CELRule) (valetkey.Verifier, error) {
		return valetcel.Verifier(v, converted(rules)...)
	},
	Require: func(rules []driver.CELRule) (valetkey.Requirement, error) {
		r, err := valetcel.Require(converted(rules)...)
		if err != nil {
			return nil, err // not a nil pointer in an interface
		}
		return r, nil
	},
}

func converted(rules []driver.CELRule) []valetcel.Rule {
	all := make([]valetcel.Rule, len(rules))
	for i, r := range rules {
		all[i] = valetcel.Rule(r)
	}
	return all
}
