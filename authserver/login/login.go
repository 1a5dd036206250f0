// Package login is how people prove to the authorization server who they are: a name and a password, asked of a database
// of customers ([Database]), of a directory of employees (module ldaplogin), or of several in turn.
package login

import (
	"context"
	"errors"
)

// A Login knows people by name and password. It is safe for concurrent use, takes as long for an unknown name as for a wrong
// password, and never puts a password into an error.
type Login interface {
	// Login returns the user, or an error that wraps [ErrRefused]. Any other error is an outage.
	Login(ctx context.Context, name, password string) (*User, error)
}

// ErrRefused is wrapped by the refusal of a name and password, without telling which of the two is wrong.
var ErrRefused = errors.New("the name or the password is wrong")

// A User is a person who has logged in.
type User struct {
	Subject string   // the sub of tokens: Type, a colon, and an id that never changes; so no client id can be mistaken for it
	Type    string   // which people they are of: "customer", "employee"
	Name    string   // as they log in; told to APIs as username
	Display string   // as pages call them; empty: Name
	Scopes  []string // all that the user may allow an application; nil: whatever the API has
}
