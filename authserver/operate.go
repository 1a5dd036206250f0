package authserver

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/authserver/internal/clients"
	"github.com/valetkey/valetkey/authserver/internal/endings"
	"github.com/valetkey/valetkey/authserver/internal/keys"
	"github.com/valetkey/valetkey/authserver/login"
	"github.com/valetkey/valetkey/authserver/store"
)

// The methods of an operator work on the store. They can be called on a Server that is created for this purpose and never run,
// while other processes serve.

// AddClient registers an application or an API. c must have neither an ID nor a secret: the server generates both. The secret is
// returned only once; it is empty for a client without one. The error joins a [valetkey.ConfigError] for each mistake in c, or
// is an outage.
func (s *Server) AddClient(ctx context.Context, c Client) (id, secret string, err error) {
	if c.ID != "" || c.Secret+c.SecretSHA256 != "" {
		return "", "", &valetkey.ConfigError{Field: "ID", Err: errors.New("must be empty: the server generates the ID and the secret")}
	}
	in := inspect(&s.cfg)
	r := resolved(c)
	withSecret := strings.HasPrefix(r.AuthMethod, "client_secret_")
	c.ID = "x"
	if withSecret {
		c.Secret = strings.Repeat("x", minSecret)
	}
	if in.client(&c, ""); len(in.mistakes) > 0 {
		return "", "", errors.Join(in.mistakes...)
	}
	made, secret, err := s.clients.Create(ctx, r, withSecret)
	if err != nil {
		return "", "", fmt.Errorf("authserver: %w", err)
	}
	s.log.record(ctx, "client registered", slog.String("client", made.ID), slog.String("by", operator))
	return made.ID, secret, nil
}

const operator = "the operator" // of changes that no page and no request has caused

// Clients returns at most limit clients, ordered by ID, with IDs greater than after. limit must be positive. They have no secrets
// and no digests.
func (s *Server) Clients(ctx context.Context, after string, limit int) ([]Client, error) {
	list, err := s.clients.List(ctx, after, limit)
	if err != nil {
		return nil, fmt.Errorf("authserver: %w", err)
	}
	for i := range list {
		list[i].SecretDigest, list[i].RegistrationDigest = nil, ""
	}
	return list, nil
}

// failed wraps the error of an operator's request with the action and its object, regardless of which step failed.
func failed(action, kind, name string, err error) error {
	if errors.Is(err, store.ErrNotFound) {
		err = missing(kind)
	}
	return fmt.Errorf("authserver: %s %s %q: %w", action, kind, name, err)
}

// missing is a [store.ErrNotFound] that names the kind of object.
type missing string

func (m missing) Error() string { return "no such " + string(m) }
func (m missing) Unwrap() error { return store.ErrNotFound }

// RotateSecret replaces the secret of a client and returns the new one. The old secret stops working immediately. The error
// wraps [store.ErrNotFound] if there is no such client. A client in the configuration cannot be changed.
func (s *Server) RotateSecret(ctx context.Context, id string) (secret string, err error) {
	secret, err = s.clients.RotateSecret(ctx, id)
	if err != nil {
		return "", failed("replace the secret of", "client", id, err)
	}
	s.log.record(ctx, "secret replaced", slog.String("client", id), slog.String("by", operator))
	return secret, nil
}

// RemoveClient removes a client and ends all grants that users have given it. Errors are those of [Server.RotateSecret].
func (s *Server) RemoveClient(ctx context.Context, id string) error {
	c, err := s.clients.About(ctx, id) // a client with a metadata document that cannot be fetched has grants, too
	if err == nil && c.Static {
		err = clients.ErrStatic
	}
	n := 0
	if err == nil {
		// The grants end first: if that fails, the client still exists, so the call can be repeated.
		n, err = s.engine.RevokeGrants(ctx, "", id)
	}
	if err == nil {
		err = s.clients.Delete(ctx, id)
	}
	if err != nil {
		return failed("remove", "client", id, err)
	}
	s.log.record(ctx, "client deleted", slog.String("client", id), slog.String("by", operator), slog.Int("grants", n))
	return nil
}

// Users returns the users of a type in the store. An empty type means the first type whose users are in the database.
// [Server.AddUser], [Server.SetPassword] and [Server.RemoveUser] change them, together with everything that depends on them.
func (s *Server) Users(userType string) (*login.Database, error) {
	userType = s.userType(userType)
	for _, t := range s.cfg.UserTypes {
		if t.Type == userType && t.Login == nil {
			return login.NewDatabase(s.cfg.Store, userType)
		}
	}
	return nil, fmt.Errorf("authserver: user type %q has no users in the database", userType)
}

func (s *Server) userType(asked string) string { return cmp.Or(asked, s.cfg.typeOf(User{})) }

// fixed reports whether a user of that type in the configuration has the name, or the ID if it is not empty.
func (s *Server) fixed(userType, name, id string) bool {
	return slices.ContainsFunc(s.cfg.Users, func(u User) bool {
		same := login.Fold(u.Name) == login.Fold(name) || id != "" && u.add().ID == id
		return same && s.cfg.typeOf(u) == s.userType(userType)
	})
}

// AddUser adds a user to [Server.Users]. The error joins a [valetkey.ConfigError] for each mistake in the scopes, or is that of
// [login.Database.Add]. Names and IDs in the configuration are taken, too.
func (s *Server) AddUser(ctx context.Context, userType string, u login.NewUser) (*login.User, error) {
	people, err := s.Users(userType)
	if err != nil {
		return nil, err
	}
	in := inspect(&s.cfg)
	if in.rights(u.Scopes, "Scopes"); len(in.mistakes) > 0 {
		return nil, errors.Join(in.mistakes...)
	}
	if s.fixed(userType, u.Name, u.ID) {
		return nil, fmt.Errorf("authserver: adding user %q: a user of the configuration has the name or the ID", u.Name)
	}
	made, err := people.Add(ctx, u)
	if err != nil {
		return nil, fmt.Errorf("authserver: %w", err)
	}
	s.log.record(ctx, "user added", slog.String("subject", made.Subject), slog.String("by", operator))
	return made, nil
}

// SetPassword replaces the password of one of [Server.Users], and ends all sessions, grants and consents of the user. The error
// wraps [store.ErrNotFound] if there is no user with that name.
func (s *Server) SetPassword(ctx context.Context, userType, name, password string) error {
	people, err := s.Users(userType)
	if err != nil {
		return err
	}
	u, err := people.Find(ctx, name)
	if err != nil {
		return s.unchanged("set the password of", userType, name, err)
	}
	_, _, err = s.endUser(ctx, endings.PasswordChanged, u.Subject, func(ctx context.Context) error {
		_, err := people.SetPassword(ctx, name, password)
		return err
	}, nil)
	if err != nil {
		return s.unchanged("set the password of", userType, name, err)
	}
	s.log.record(ctx, "password replaced", slog.String("subject", u.Subject), slog.String("by", operator))
	return nil
}

// endUser ends everything that a user has, for a reason that signals announce. before and after, if they are not nil, belong to the
// cause: before is called first, and after last. If the end is announced, it returns once the second has passed in which tokens count as
// issued before.
func (s *Server) endUser(ctx context.Context, cause endings.Cause, subject string, before, after func(context.Context) error) (sessions, grants int, err error) {
	err = s.endings.Do(ctx, endings.Ending{Cause: cause, Subject: subject}, func(ctx context.Context) (bool, error) {
		var err error
		if before != nil {
			err = undone(before(ctx))
		}
		if err == nil {
			sessions, grants, err = s.end(ctx, subject)
		}
		if err == nil && after != nil {
			err = after(ctx)
		}
		return err == nil, err
	})
	if err == nil && (s.endings != nil || s.cfg.PublishRevocation != nil) {
		now := time.Now()
		select {
		case <-time.After(time.Until(now.Truncate(time.Second).Add(time.Second))):
		case <-ctx.Done(): // it is announced; this covers a token issued within this second, too
		}
	}
	return sessions, grants, err
}

// undone marks an error after which a change to a user certainly has not happened.
func undone(err error) error {
	if errors.Is(err, login.ErrRefused) || errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrConflict) {
		return endings.Undone{Err: err}
	}
	return err
}

// end ends the sessions of a user, then the consents, then the grants. In another order, a session could renew a grant that has
// just ended.
func (s *Server) end(ctx context.Context, subject string) (sessions, grants int, err error) {
	if sessions, err = s.pages.EndSessions(ctx, subject); err != nil {
		return sessions, 0, err
	}
	if err := s.pages.ForgetConsents(ctx, subject); err != nil {
		return sessions, 0, err
	}
	if grants, err = s.engine.RevokeGrants(ctx, subject, ""); err != nil {
		return sessions, grants, err
	}
	return sessions, grants, s.publishEnd(ctx, subject)
}

// publishEnd revokes the JWTs issued to a user so far, to the end of this second.
func (s *Server) publishEnd(ctx context.Context, subject string) error {
	if s.cfg.PublishRevocation == nil {
		return nil
	}
	now := time.Now()
	before := now.Truncate(time.Second).Add(time.Second)
	err := s.cfg.PublishRevocation(ctx, valetkey.Revocation{Issuer: s.cfg.Issuer, Subject: subject, Before: before, Until: now.Add(maxLifetime)})
	if err != nil {
		return fmt.Errorf("publish the revocation of the user: %w", err)
	}
	return nil
}

// RevokeUser ends all sessions, grants and consents of a subject, such as customer:alice, and returns the number of sessions and
// grants. The user may be in the store, in the configuration, in a directory or at a trusted issuer, or may no longer exist.
// RevokeUser does not prevent the user from logging in again. JWTs that APIs verify locally remain valid until they expire,
// unless Config.PublishRevocation or Config.Signals is set. The error wraps [store.ErrNotFound] if subject is a client, whose grants
// end with [Server.RemoveClient], or if there is nothing to end and neither is set.
func (s *Server) RevokeUser(ctx context.Context, subject string) (sessions, grants int, err error) {
	if !isSubject(subject) {
		return 0, 0, fmt.Errorf("authserver: revoke user %q: not a subject, which is a type and an id, such as customer:alice", subject)
	}
	if err := s.noClient(ctx, subject); err != nil {
		return 0, 0, fmt.Errorf("authserver: revoke user %q: %w", subject, err)
	}
	if sessions, grants, err = s.endUser(ctx, endings.Revoked, subject, nil, nil); err != nil {
		return sessions, grants, fmt.Errorf("authserver: revoke user %q: %w", subject, err)
	}
	if sessions+grants == 0 && s.cfg.PublishRevocation == nil && s.signals == nil {
		return 0, 0, fmt.Errorf("authserver: revoke user %q: %w", subject, nothingToEnd{})
	}
	s.log.record(ctx, "user revoked", slog.String("subject", subject), slog.String("by", operator),
		slog.Int("sessions", sessions), slog.Int("grants", grants))
	return sessions, grants, nil
}

// isSubject reports whether a text can be the subject of a user: a type and an ID.
func isSubject(text string) bool {
	kind, id, typed := strings.Cut(text, ":")
	return typed && id != "" && login.ValidType(kind) == nil
}

// noClient returns an error that wraps [store.ErrNotFound] if a subject is the ID of a client, whose own grants have it as subject.
func (s *Server) noClient(ctx context.Context, subject string) error {
	switch _, err := s.clients.About(ctx, subject); {
	case err == nil:
		return fmt.Errorf("%w: it is the id of a client", missing("user"))
	case !errors.Is(err, store.ErrNotFound):
		return err
	}
	return nil
}

// nothingToEnd is a [store.ErrNotFound].
type nothingToEnd struct{}

func (nothingToEnd) Error() string { return "no session and no grant has this subject" }
func (nothingToEnd) Unwrap() error { return store.ErrNotFound }

// unchanged wraps the error of a failed change to a user. A user who is not in the store may be in the configuration.
func (s *Server) unchanged(action, userType, name string, err error) error {
	err = failed(action, "user", name, err)
	if errors.Is(err, store.ErrNotFound) && s.fixed(userType, name, "") {
		return fmt.Errorf("%w in the store: the user is in the configuration", err)
	}
	return err
}

// RemoveUser removes one of [Server.Users], logs the user out, and ends all of the user's grants. Errors are those of
// [Server.SetPassword].
func (s *Server) RemoveUser(ctx context.Context, userType, name string) error {
	people, err := s.Users(userType)
	if err != nil {
		return err
	}
	// The password is replaced first: a user who is locked out grants nothing new, and if something cannot be ended, the user
	// still exists, so the call can be repeated.
	n := 0
	u, err := people.Find(ctx, name)
	if err == nil {
		_, n, err = s.endUser(ctx, endings.UserRemoved, u.Subject, func(ctx context.Context) error {
			_, err := people.SetPassword(ctx, name, rand.Text())
			return err
		}, func(ctx context.Context) error {
			_, err := people.Remove(ctx, name)
			return err
		})
	}
	if err != nil {
		return s.unchanged("remove", userType, name, err)
	}
	s.log.record(ctx, "user removed", slog.String("subject", u.Subject), slog.String("by", operator), slog.Int("grants", n))
	return nil
}

// A Key describes the public properties of a signing key.
type Key struct {
	ID        string // kid
	Algorithm string
	State     string    // next, active, retiring
	Published time.Time // when it was added to the key set
	Active    time.Time // when it began or will begin to sign; zero: not yet decided
	Gone      time.Time // when it leaves the key set; zero: not yet decided
}

// Keys returns the keys in the key set, grouped by algorithm, oldest first.
func (s *Server) Keys() []Key {
	var all []Key
	for _, k := range s.keys.List() {
		all = append(all, Key(k))
	}
	return all
}

// RotateKeys makes the next key of each algorithm the active one, as soon as it has been in the key set long enough. With now,
// it does so immediately, for a compromised active key: verifiers with a cached key set reject new tokens until they refetch it.
func (s *Server) RotateKeys(ctx context.Context, now bool) error {
	rotate := (*keys.Ring).Rotate
	if now {
		rotate = (*keys.Ring).RotateNow
	}
	for _, alg := range algorithms(s.cfg.APIs) {
		if err := rotate(s.keys, ctx, alg); err != nil {
			return fmt.Errorf("authserver: %w", err)
		}
		s.log.record(ctx, "key rotation requested", slog.String("algorithm", alg), slog.Bool("now", now))
	}
	return nil
}
