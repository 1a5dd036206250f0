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

// ByIssuer returns a Verifier for the tokens of several issuers. Each token is verified only against the keys and settings of
// its own issuer: its iss, still unverified, selects the verifier in vs. A token is parsed once. A token of any other issuer
// is refused before any further check, with an error that wraps [valetkey.ErrNotApplicable].
//
// The Verifier is also a [valetkey.HealthReporter]: Health lists the issuers sorted by name, and Ready fetches the keys of
// all issuers concurrently. The caller remains responsible for closing vs.
//
// ByIssuer returns an error if vs is empty, contains nil or contains two verifiers for one issuer.
func ByIssuer(vs ...*Verifier) (valetkey.Verifier, error) {
	wrong := mistakes.List{Package: "jwks: ByIssuer"}
	wrong.AddIf(len(vs) == 0, "", "no verifiers")
	issuers := make(byIssuer, len(vs))
	for i, v := range vs {
		switch {
		case v == nil:
			wrong.Add(fmt.Sprintf("vs[%d]", i), "is nil")
		case issuers[v.issuer] != nil:
			wrong.Add(fmt.Sprintf("vs[%d]", i), "duplicate issuer %q", v.issuer)
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
