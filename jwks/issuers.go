package jwks

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/jose"
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
	all := &byIssuer{exact: make(map[string]*Verifier, len(vs))}
	for i, v := range vs {
		at := fmt.Sprintf("vs[%d]", i)
		if v == nil {
			wrong.Add(at, "is nil")
			continue
		}
		all.form.Limit = max(all.form.Limit, v.form.Limit)
		all.form.AllowPadding = all.form.AllowPadding || v.form.AllowPadding
		for _, iss := range append([]string{v.issuer}, v.aliases...) {
			wrong.AddIf(all.exact[iss] != nil, at, "duplicate issuer %q", iss)
			all.exact[iss] = v
		}
		if v.template != nil {
			all.templates = append(all.templates, v)
		}
		if v.profile.AllowMissingIssuer {
			wrong.AddIf(all.unnamed != nil, at, "a second one has Profile.AllowMissingIssuer")
			all.unnamed = v
		}
	}
	if err := wrong.Err(); err != nil {
		return nil, err
	}
	return all, nil
}

type byIssuer struct {
	exact     map[string]*Verifier // by Issuer and alias
	templates []*Verifier          // also in exact
	unnamed   *Verifier            // of tokens without iss; nil: none
	form      jose.Options         // what any of them accepts
}

// of returns the verifier of the token with the claims in, or nil.
func (issuers *byIssuer) of(in *unread) *Verifier {
	iss, _ := in.iss.View()
	if iss == "" {
		return issuers.unnamed
	}
	if v := issuers.exact[iss]; v != nil {
		return v
	}
	for _, v := range issuers.templates {
		if v.template.matches(iss, in) {
			return v
		}
	}
	return nil
}

func (issuers *byIssuer) Verify(ctx context.Context, raw string) (*valetkey.Token, error) {
	var in unread
	c, err := in.parse(raw, issuers.form)
	if err != nil {
		return nil, err
	}
	v := issuers.of(&in)
	if v == nil {
		return nil, otherIssuer(&in, func() []string { return slices.Sorted(maps.Keys(issuers.exact)) })
	}
	return v.verify(ctx, c, &in)
}

// sorted returns the verifiers, sorted by issuer.
func (issuers *byIssuer) sorted() (all []*Verifier) {
	for _, iss := range slices.Sorted(maps.Keys(issuers.exact)) {
		if v := issuers.exact[iss]; v.issuer == iss {
			all = append(all, v)
		}
	}
	return all
}

func (issuers *byIssuer) Health() (all []valetkey.Health) {
	for _, v := range issuers.sorted() {
		all = append(all, v.Health()...)
	}
	return all
}

func (issuers *byIssuer) Ready(ctx context.Context) error {
	all := issuers.sorted()
	errs := make([]error, len(all))
	var asked sync.WaitGroup
	for i, v := range all {
		asked.Go(func() { errs[i] = v.Ready(ctx) })
	}
	asked.Wait()
	return errors.Join(errs...)
}
