// Package login is how people prove to the authorization server who they are: a name and a password, asked of a database
// of customers ([Database]), of a directory of employees (module ldaplogin), or of several in turn.
package login

import (
	"context"
	"errors"
	"time"
)

// A Login knows people by name and password. It is safe for concurrent use, takes as long for an unknown name as for a wrong
// password, and never puts a password into an error.
type Login interface {
	// Login returns the user, or an error that wraps [ErrRefused]. Any other error is an outage.
	Login(ctx context.Context, name, password string) (*User, error)

	// Lookup returns the account of a subject as it is now. The error wraps [ErrNoUser] if there is no such user, if the
	// account is disabled, or if the subject has a type that this Login does not have; in the last case Lookup does no I/O.
	// Any other error is an outage, which ends nothing. The server calls Lookup when a user's grant or session is used, and
	// relies on an account for up to a minute.
	Lookup(ctx context.Context, subject string) (*Account, error)
}

// The errors that callers act on.
var (
	// ErrRefused is wrapped by the refusal of a name and password, without telling which of the two is wrong.
	ErrRefused = errors.New("the name or the password is wrong")

	// ErrNoUser is wrapped by the error for a subject that does not exist, or does not exist any more.
	ErrNoUser = errors.New("there is no such user")
)

// A User is a person who has logged in.
type User struct {
	Subject string   // the sub of tokens: Type, a colon, and an id that never changes; so no client id can be mistaken for it
	Type    string   // which people they are of: "customer", "employee"
	Name    string   // as they log in; told to APIs as username
	Display string   // as pages call them; empty: Name
	Scopes  []string // all that the user may allow an application; nil: whatever the API has

	// Since is the Account.Since at the log-in: it identifies the credential that was used.
	Since time.Time
}

// An Account is the state of a user whose password is not at hand.
type Account struct {
	// Scopes are all that the user may allow an application now. Nil: whatever the API has. Empty: nothing.
	Scopes []string

	// Since is when the account got its present credential: when the user was added, or the password was last replaced. A
	// session or a grant that began with an earlier Since has ended. It is compared only with other values of the same
	// Login, so its clock does not matter. Zero: not known, which ends nothing.
	Since time.Time
}
