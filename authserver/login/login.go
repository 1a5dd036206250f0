// Package login verifies the identity of users for the authorization server: a name and a password are checked against a
// database of customers ([Database]), a directory of employees (module ldaplogin), or several of them in turn ([Chain]).
package login

import (
	"context"
	"errors"
	"time"
)

// A Login verifies people by name and password. It is safe for concurrent use, takes as long for an unknown name as for a wrong
// password, and never includes a password in an error.
type Login interface {
	// Login returns the user. The error wraps [ErrRefused] if the name or the password is wrong. Any other error is an outage.
	Login(ctx context.Context, name, password string) (*User, error)

	// Lookup returns the current account of a subject. The error wraps [ErrNoUser] if there is no such user, if the account is
	// disabled, or if this Login does not have the type of the subject; in the last case Lookup does no I/O. Any other error is
	// an outage, which ends nothing. The server calls Lookup when a user's grant or session is used, and relies on an account
	// for up to a minute.
	Lookup(ctx context.Context, subject string) (*Account, error)
}

// Errors that callers act on.
var (
	// ErrRefused is wrapped by the refusal of a name and password. It does not reveal which of the two is wrong.
	ErrRefused = errors.New("the name or the password is wrong")

	// ErrNoUser is wrapped by the error for a subject that does not or no longer exists.
	ErrNoUser = errors.New("there is no such user")
)

// A User is a person who has logged in.
type User struct {
	Subject string   // the sub of tokens: Type, a colon, and an ID that never changes; no client ID has this form
	Type    string   // the group of people that the user belongs to, such as "customer" or "employee"
	Name    string   // the log-in name; APIs get it as username
	Display string   // the name shown on pages; empty: Name
	Scopes  []string // all scopes, and types of authorization_details, that the user may allow an application; nil: all

	// Since is the Account.Since at the log-in. It identifies the credential that was used.
	Since time.Time
}

// An Account is the current state of a user, obtained without the user's password.
type Account struct {
	// Scopes are all scopes, and types of authorization_details, that the user may currently allow an application. Nil: all. Empty: none.
	Scopes []string

	// Since is when the account got its present credential: when the user was added, or the password was last replaced. A
	// session or grant that began with an earlier Since has ended. Since is compared only with other values of the same Login,
	// so an inaccurate clock does no harm. Zero: unknown, which ends nothing.
	Since time.Time
}
