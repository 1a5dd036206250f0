package authserver

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/valetkey/valetkey/authserver/internal/accounts"
	"github.com/valetkey/valetkey/authserver/internal/endings"
	"github.com/valetkey/valetkey/authserver/internal/handoff"
	"github.com/valetkey/valetkey/authserver/internal/pages"
	"github.com/valetkey/valetkey/authserver/login"
	"github.com/valetkey/valetkey/authserver/store"
)

// people are the users of all types.
type people struct {
	logins   map[string]login.Login // by type
	accounts *accounts.Accounts
	inFile   []*fileUsers // of the types whose users are in the database
}

func (cfg *Config) people(ctx context.Context, recorder endings.Recorder) (*people, error) {
	all := &people{logins: map[string]login.Login{}}
	for _, t := range cfg.UserTypes {
		all.logins[t.Type] = t.Login
		if t.Login != nil {
			continue
		}
		stored, err := login.NewDatabase(cfg.Store, t.Type)
		if err != nil {
			return nil, err
		}
		inFile, err := cfg.fileUsers(ctx, t.Type)
		if err != nil {
			return nil, err
		}
		inFile.endings = recorder
		all.inFile = append(all.inFile, inFile)
		all.logins[t.Type] = login.Chain(inFile, stored)
		if len(inFile.users) == 0 {
			all.logins[t.Type] = stored
		}
	}
	all.accounts = accounts.New(all.logins)
	return all, nil
}

// logins returns the logins of all types, behind the rate limits.
func (cfg *Config) logins(p *people) (all []pages.UserType, err error) {
	for _, t := range cfg.UserTypes {
		l := p.accounts.Refreshing(p.logins[t.Type])
		limited, err := login.Limit(l, login.Limits{Name: cfg.Limits.LoginName, Address: cfg.Limits.LoginAddress})
		if err != nil {
			return nil, fmt.Errorf("log-ins of type %s: %w", t.Type, err)
		}
		all = append(all, pages.UserType{Type: t.Type, Label: t.Label, Login: limited, Database: t.Login == nil})
	}
	return all, nil
}

// elsewhere is the login of users who log in at the page of a [Handoff]. This server knows only what the page has answered, so they
// exist until [Server.RevokeUser] ends what they have here.
type elsewhere struct{}

func (elsewhere) Login(context.Context, string, string) (*login.User, error) {
	return nil, login.ErrRefused
}

func (elsewhere) Lookup(context.Context, string) (*login.Account, error) {
	return new(login.Account), nil
}

// door returns the door to the page of a [Handoff], or nil.
func (cfg *Config) door() (*handoff.Door, error) {
	if !cfg.Login.on() {
		return nil, nil
	}
	keys, err := handoff.ParseKeys(cfg.Login.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("login.public_key: %w", err)
	}
	limiter, err := login.NewLimiter(cfg.Limits.LoginAddress, 0)
	if err != nil {
		return nil, fmt.Errorf("limits.login_address: %w", err)
	}
	return handoff.New(handoff.Config{
		Issuer: cfg.Issuer, Redirect: cfg.Login.Redirect, Logout: cfg.Login.Logout, Keys: keys, UserType: cfg.UserTypes[0].Type, ACRs: cfg.Login.ACRValues,
		Lifetime: cmp.Or(cfg.Lifetimes.Interaction, 15*time.Minute), Limit: limiter, Store: cfg.Store,
		Logger: slog.New(split{cfg.Audit.Handler(), cfg.Logger.Handler()}),
	}), nil
}

// legacyLogin returns the login for the password grant: that of the first type. Nil: the grant is disabled.
func (cfg *Config) legacyLogin(logins []pages.UserType) *login.Limited {
	if !cfg.Legacy.Password {
		return nil
	}
	return logins[0].Login
}

// fileUsers are the users of one type in the configuration. A configuration does not record when a password was changed.
// Therefore the store keeps, for each user who has logged in or been looked up, the hash of the password and the time since
// which it is known. The record is written at the first use of the user after a start. Operator commands do not write it,
// because they may run with another file.
//
// Replicas that share a store need the same configuration: each one that starts with another password makes it the new one.
type fileUsers struct {
	memory   *login.Database // with hashes computed at this start
	store    store.Store
	userType string
	users    map[string]User // by subject
	endings  endings.Recorder

	mu    sync.Mutex
	since map[string]time.Time // users whose record is known to match the configured password
}

// kindFileUser is the kind of the records. Their IDs are subjects.
const kindFileUser = "file_user"

// A fileUser is the stored record of a user.
type fileUser struct {
	Hash  string    `json:"hash"`  // from the configuration, or computed from its password; empty: the user was removed
	Since time.Time `json:"since"` // zero: since the first record, when there was nothing to compare with
}

func (cfg *Config) fileUsers(ctx context.Context, userType string) (*fileUsers, error) {
	memory, err := login.NewDatabase(store.NewMemory(0), userType)
	if err != nil {
		return nil, err
	}
	f := &fileUsers{memory: memory, store: cfg.Store, userType: userType, users: map[string]User{}, since: map[string]time.Time{}}
	for _, u := range cfg.Users {
		if cfg.typeOf(u) != userType {
			continue
		}
		added, err := memory.Add(ctx, u.add())
		if err != nil {
			return nil, err
		}
		f.users[added.Subject] = u
	}
	return f, nil
}

// Login implements [login.Login].
func (f *fileUsers) Login(ctx context.Context, name, password string) (*login.User, error) {
	u, err := f.memory.Login(ctx, name, password)
	if err != nil {
		return nil, err
	}
	if u.Since, err = f.passwordSince(ctx, u.Subject); err != nil {
		return nil, err
	}
	return u, nil
}

// Lookup implements [login.Login].
func (f *fileUsers) Lookup(ctx context.Context, subject string) (*login.Account, error) {
	a, err := f.memory.Lookup(ctx, subject)
	if err != nil {
		return nil, err
	}
	if a.Since, err = f.passwordSince(ctx, subject); err != nil {
		return nil, err
	}
	return a, nil
}

// passwordSince returns the time since which a user has the configured password.
func (f *fileUsers) passwordSince(ctx context.Context, subject string) (time.Time, error) {
	f.mu.Lock()
	since, known := f.since[subject]
	f.mu.Unlock()
	if known {
		return since, nil
	}
	var err error
	for range 5 { // another replica may write the same record
		if since, err = f.record(ctx, subject); !errors.Is(err, store.ErrConflict) {
			break
		}
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("read the password time of %s: %w", subject, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.since[subject] = since
	return since, nil
}

// record compares the record of a user with the configuration, and replaces the record if the password has changed.
func (f *fileUsers) record(ctx context.Context, subject string) (time.Time, error) {
	u := f.users[subject]
	r, err := f.store.Get(ctx, kindFileUser, subject)
	first := errors.Is(err, store.ErrNotFound)
	if err != nil && !first {
		return time.Time{}, err
	}
	var was fileUser
	if !first {
		if err := json.Unmarshal(r.Value, &was); err != nil {
			return time.Time{}, err
		}
		if u.Hash != "" && was.Hash == u.Hash || u.Password != "" && login.Verify(was.Hash, u.Password) {
			return was.Since, nil
		}
	}
	is := fileUser{Hash: u.Hash}
	if !first {
		is.Since = after(was.Since)
	}
	if u.Hash == "" {
		if is.Hash, err = login.Hash(u.Password); err != nil {
			return time.Time{}, err
		}
	}
	if first {
		return is.Since, f.put(ctx, subject, r.Version, is)
	}
	return is.Since, f.putEnding(ctx, endings.PasswordChanged, subject, r.Version, is)
}

// putEnding is put for a change that ends everything of a user.
func (f *fileUsers) putEnding(ctx context.Context, cause endings.Cause, subject string, version int64, is fileUser) error {
	conflict := error(nil)
	err := f.endings.Do(ctx, endings.Ending{Cause: cause, Subject: subject}, func(ctx context.Context) (bool, error) {
		err := f.put(ctx, subject, version, is)
		if errors.Is(err, store.ErrConflict) { // another replica announces it
			conflict = err
			return false, nil
		}
		return err == nil, err
	})
	if err == nil {
		err = conflict
	}
	return err
}

func (f *fileUsers) put(ctx context.Context, subject string, version int64, is fileUser) error {
	value, err := json.Marshal(is)
	if err != nil {
		return err
	}
	_, err = f.store.Put(ctx, store.Record{
		Kind: kindFileUser, ID: subject, Version: version, Value: value, Keys: []store.Key{{Name: "type", Value: f.userType}},
	})
	return err
}

// after returns the present time, or a time after t if the clock has been set back.
func after(t time.Time) time.Time {
	now := time.Now().UTC().Round(0)
	if !now.After(t) {
		now = t.Add(1)
	}
	return now
}

// retire records which users have been removed from the configuration. A user who is added again, even with the same password,
// has a new credential.
func (f *fileUsers) retire(ctx context.Context) error {
	const page = 100
	for from := ""; ; {
		found, err := f.store.Find(ctx, kindFileUser, store.Key{Name: "type", Value: f.userType}, from, page)
		if err != nil {
			return err
		}
		for _, r := range found {
			from = r.ID
			var was fileUser
			if err := json.Unmarshal(r.Value, &was); err != nil {
				return err
			}
			if _, stays := f.users[r.ID]; stays || was.Hash == "" {
				continue
			}
			was.Hash = ""
			err := f.putEnding(ctx, endings.UserRemoved, r.ID, r.Version, was)
			if err != nil && !errors.Is(err, store.ErrConflict) {
				return err
			}
		}
		if len(found) < page {
			return nil
		}
	}
}

// retire does so for all types, even if the server shuts down immediately: this is the only time when a removal can be noticed.
func (s *Server) retire(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	for _, f := range s.inFile {
		if err := f.retire(ctx); err != nil {
			s.cfg.Logger.ErrorContext(ctx, "users removed from the configuration not recorded", "type", f.userType, "error", err)
		}
	}
}
