package jwks

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/mistakes"
)

// ByIssuer returns a Verifier of the tokens of several issuers, each verified against its own keys and settings only. A
// token is taken apart once, and its iss, not yet to be believed, says which of vs verifies it. The token of an issuer
// that none is for is refused with an error that wraps [valetkey.ErrNotApplicable], before anything else is looked at.
//
// It is a [valetkey.HealthReporter] too: Health lists the issuers by name, Ready fetches all their keys at the same time. Closing
// is left to the owner of vs.
//
// It is a mistake if vs is empty, holds nil, or holds two of one issuer.
func ByIssuer(vs ...*Verifier) (valetkey.Verifier, error) {
	wrong := mistakes.List{Package: "jwks: ByIssuer"}
	wrong.AddIf(len(vs) == 0, "", "no verifiers")
	issuers := make(byIssuer, len(vs))
	for i, v := range vs {
		switch {
		case v == nil:
			wrong.Add(fmt.Sprintf("vs[%d]", i), "is nil")
		case issuers[v.issuer] != nil:
			wrong.Add(fmt.Sprintf("vs[%d]", i), "is the second of issuer %q", v.issuer)
		default:
			issuers[v.issuer] = v
		}
	}
	if err := wrong.Err(); err != nil {
		return nil, err
	}
	return issuers, nil
}

type byIssuer map[string]*Verifier

func (issuers byIssuer) Verify(ctx context.Context, raw string) (*valetkey.Token, error) {
	c, claims, err := read(raw)
	if err != nil {
		return nil, err
	}
	iss, _ := claims.iss.Text()
	v := issuers[iss]
	if v == nil {
		return nil, notMine(iss)
	}
	return v.verify(ctx, c, claims)
}

func (issuers byIssuer) Health() (all []valetkey.Health) {
	for _, iss := range slices.Sorted(maps.Keys(issuers)) {
		all = append(all, issuers[iss].Health()...)
	}
	return all
}

func (issuers byIssuer) Ready(ctx context.Context) error {
	names := slices.Sorted(maps.Keys(issuers))
	errs := make([]error, len(names))
	var asked sync.WaitGroup
	for i, iss := range names {
		asked.Go(func() { errs[i] = issuers[iss].Ready(ctx) })
	}
	asked.Wait()
	return errors.Join(errs...)
}
