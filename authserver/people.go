package authserver

import (
	"context"
	"fmt"

	"github.com/valetkey/valetkey/authserver/internal/pages"
	"github.com/valetkey/valetkey/authserver/login"
	"github.com/valetkey/valetkey/authserver/store"
)

// logins returns how people of each type log in, behind the limits.
func (cfg *Config) logins(ctx context.Context) (all []pages.UserType, err error) {
	for _, t := range cfg.UserTypes {
		people := t.Login
		if people == nil {
			if people, err = cfg.database(ctx, t.Type); err != nil {
				return nil, err
			}
		}
		limited, err := login.Limit(people, login.Limits{Name: cfg.Limits.LoginName, Address: cfg.Limits.LoginAddress})
		if err != nil {
			return nil, fmt.Errorf("log-ins of type %s: %w", t.Type, err)
		}
		all = append(all, pages.UserType{Type: t.Type, Label: t.Label, Login: limited})
	}
	return all, nil
}

// legacyLogin returns the people whose passwords applications may learn: those of the first type. Nil: nobody.
func (cfg *Config) legacyLogin(logins []pages.UserType) *login.Limited {
	if !cfg.Legacy.Password {
		return nil
	}
	return logins[0].Login
}

// database returns the people of a type who stand in the store, after those of the configuration.
func (cfg *Config) database(ctx context.Context, userType string) (login.Login, error) {
	stored, err := login.NewDatabase(cfg.Store, userType)
	if err != nil {
		return nil, err
	}
	fixed, err := login.NewDatabase(store.NewMemory(0), userType)
	if err != nil {
		return nil, err
	}
	some := false
	for _, u := range cfg.Users {
		if cfg.typeOf(u) != userType {
			continue
		}
		if _, err := fixed.Add(ctx, u.add()); err != nil {
			return nil, err
		}
		some = true
	}
	if !some {
		return stored, nil
	}
	return login.Chain(fixed, stored), nil
}
