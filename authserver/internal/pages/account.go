package pages

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/valetkey/valetkey/authserver/internal/clients"
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

// disallow revokes what the user has allowed an application.
func (v *visit) disallow() (*reply, error) {
	client := v.r.PostForm.Get("client_id")
	switch _, err := v.cfg.Clients.About(v.r.Context(), client); {
	case errors.Is(err, store.ErrNotFound): // also for "", which would mean all of them
		return nil, errNotFound
	case err != nil:
		return nil, err
	}
	// The tokens end first: if that fails, the application remains in the list, so the user can try again.
	n, err := v.cfg.Engine.RevokeGrants(v.r.Context(), v.user.Subject, client)
	if err == nil {
		err = v.consents.forget(v.r.Context(), v.user.Subject, client)
	}
	if err != nil {
		return nil, err
	}
	v.cfg.Logger.InfoContext(v.r.Context(), "consent revoked", "subject", v.user.Subject, "client", client, "grants", n)
	return v.see("/account/applications"), nil
}
