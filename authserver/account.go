package authserver

import (
	"context"
	"errors"

	"github.com/valetkey/valetkey/authserver/internal/endings"
	"github.com/valetkey/valetkey/authserver/internal/pages"
	"github.com/valetkey/valetkey/authserver/login"
	"github.com/valetkey/valetkey/authserver/store"
)

// logOutEverywhere ends everything of a user, at the user's own request.
func (s *Server) logOutEverywhere(ctx context.Context, subject string) error {
	_, _, err := s.endUser(ctx, endings.LoggedOutEverywhere, subject, nil, nil)
	return err
}

// changePassword replaces the password of a user who has entered old. If everywhere is set, it ends everything that began with it.
func (s *Server) changePassword(ctx context.Context, u *login.User, old, password string, everywhere bool) (*login.User, error) {
	if s.fixed(u.Type, u.Name, "") {
		return nil, pages.ErrFixed
	}
	people, err := s.Users(u.Type)
	if err != nil {
		return nil, err
	}
	var changed *login.User
	change := func(ctx context.Context) (err error) {
		changed, err = people.ChangePassword(ctx, u.Name, old, password, everywhere)
		return err
	}
	if everywhere {
		_, _, err = s.endUser(ctx, endings.PasswordChanged, u.Subject, change, nil)
	} else {
		err = s.endings.Do(ctx, endings.Ending{Cause: endings.PasswordKept, Subject: u.Subject}, func(ctx context.Context) (bool, error) {
			err := undone(change(ctx))
			return err == nil, err
		})
	}
	if errors.Is(err, store.ErrNotFound) { // removed meanwhile
		return nil, login.ErrRefused
	}
	if err != nil {
		return nil, err
	}
	s.accounts.Forget(u.Subject)
	return changed, nil
}
