package pages

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/valetkey/valetkey/authserver/internal/clients"
	"github.com/valetkey/valetkey/authserver/model"
	"github.com/valetkey/valetkey/authserver/store"
)

func (v *visit) home() (*reply, error) {
	return &reply{page: "home", title: verbatim(v.cfg.Name)}, nil
}

// An allowedClient is an application that the user has allowed something.
type allowedClient struct {
	consent
	About  *clients.Client
	Title  string
	Grants []grant
}

// SinceDay and LastDay are the days of the first consent and of the last. Confirmed reports whether they differ.
func (c allowedClient) SinceDay() day { return day(c.Since) }
func (c allowedClient) LastDay() day  { return day(c.Last) }
func (c allowedClient) Confirmed() bool {
	return c.Since.UTC().Format(time.DateOnly) != c.Last.UTC().Format(time.DateOnly)
}

// allowedAt describes what a user has allowed an application, at the APIs in their order. The scopes of an API that no longer exists
// come last.
func (v *visit) allowedAt(c consent) (list []grant) {
	left := maps.Clone(c.At)
	for _, a := range v.cfg.APIs {
		list = append(list, v.describe(c.At[a.Audience].Slice(), a)...)
		delete(left, a.Audience)
	}
	for _, audience := range slices.Sorted(maps.Keys(left)) {
		list = append(list, v.describe(left[audience].Slice())...)
	}
	return list
}

// allowed lists the applications that the user has allowed something, latest first.
func (v *visit) allowed() (*reply, error) {
	ctx := v.r.Context()
	list, err := v.consents.of(ctx, "user", v.user.Subject)
	if err != nil {
		return nil, err
	}
	var apps []allowedClient
	for _, c := range list {
		if !c.by(v.user) {
			continue
		}
		about, err := v.cfg.Clients.About(ctx, c.Client)
		if errors.Is(err, store.ErrNotFound) { // deleted: there is nothing left to allow
			if err := v.consents.forget(ctx, c.Subject, c.Client); err != nil {
				return nil, err
			}
			continue
		}
		if err != nil {
			return nil, err
		}
		apps = append(apps, allowedClient{c, about, title(about), v.allowedAt(c)})
	}
	slices.SortFunc(apps, func(a, b allowedClient) int {
		return cmp.Or(b.Last.Compare(a.Last), cmp.Compare(a.Title, b.Title))
	})
	return &reply{page: "allowed", title: msg("allowed.title"), data: apps}, nil
}

// allowedTo returns the application that a request is about, and what the user has allowed it.
func (v *visit) allowedTo(id string) (*clients.Client, *consent, error) {
	if id == "" { // which would mean all of them
		return nil, nil, errNotFound
	}
	c, err := v.cfg.Clients.About(v.r.Context(), id)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil, errNotFound
	}
	if err != nil {
		return nil, nil, err
	}
	allowed, err := v.consents.get(v.r.Context(), v.user, id)
	return c, allowed, err
}

func (v *visit) askRevoke() (*reply, error) {
	c, allowed, err := v.allowedTo(v.r.URL.Query().Get("client_id"))
	if err != nil {
		return nil, err
	}
	if allowed.Scopes.Len() == 0 {
		return v.see("/account/applications"), nil
	}
	return &reply{page: "revoke", title: msg("revoke.title", "client", title(c)), data: allowedClient{
		*allowed, c, title(c), v.describe(allowed.Scopes.Slice(), v.cfg.APIs...),
	}}, nil
}

// revoke revokes what the user has allowed an application. The same form sent again has the same result.
func (v *visit) revoke() (*reply, error) {
	ctx := v.r.Context()
	c, allowed, err := v.allowedTo(v.r.PostForm.Get("client_id"))
	if err != nil {
		return nil, err
	}
	// The tokens end first: if that fails, the application remains in the list, so the user can try again.
	n, err := v.cfg.Engine.RevokeGrants(ctx, v.user.Subject, c.ID)
	if err == nil {
		err = v.consents.forget(ctx, v.user.Subject, c.ID)
	}
	if err != nil {
		return nil, err
	}
	v.cfg.Logger.InfoContext(ctx, "consent revoked", "subject", v.user.Subject, "client", c.ID, "grants", n)
	return v.see("/account/applications"), v.reportRevoked(c, allowed)
}

// reportRevoked reports the end of an application's access. An API that verifies tokens locally accepts those that it has been sent
// before until they expire.
func (v *visit) reportRevoked(c *clients.Client, allowed *consent) error {
	var longest time.Duration
	for _, a := range v.cfg.APIs {
		if a.Tokens != model.Opaque && a.Among(allowed.Scopes.Slice()).Len() > 0 {
			longest = max(longest, cmp.Or(c.Lifetime, a.WithDefaults().Lifetime))
		}
	}
	if longest == 0 {
		return v.notify("revoked", "client", title(c))
	}
	return v.notify("revoked.within", "client", title(c), "span", string(v.locale.span(longest)))
}
