// Package endings describes the ends of access that are reported to parties outside of the server: those of a session, a grant or a
// user. All of them pass through it, so that none is forgotten.
package endings

import "context"

// A Cause is the reason why access ends.
type Cause string

// The causes. The first group ends one grant, the second one everything of a user.
const (
	LoggedOut      Cause = "logged out"       // the user has ended the browser session in which the grant began
	ConsentRevoked Cause = "consent revoked"  // by the user
	TokenRevoked   Cause = "token revoked"    // by the client (RFC 7009)
	Reused         Cause = "reuse detected"   // a code or a refresh token was presented again
	ClientRemoved  Cause = "client removed"   // by the operator, a developer or itself
	PasswordStale  Cause = "password changed" // the grant began with an earlier password
	EndedByUser    Cause = "session ended"    // the user has ended one session in a list of them

	LoggedOutEverywhere Cause = "logged out everywhere"
	Revoked             Cause = "user revoked" // by the operator, or by a global token revocation
	UserRemoved         Cause = "user removed"
	UserDisabled        Cause = "user disabled" // the login reports that there is no such user any more
	PasswordChanged     Cause = "password replaced"
	PasswordKept        Cause = "password replaced only" // the user has kept all sessions: nothing ends
)

// OfUser reports whether the cause ends everything that a user has.
func (c Cause) OfUser() bool {
	switch c {
	case LoggedOutEverywhere, Revoked, UserRemoved, UserDisabled, PasswordChanged, PasswordKept:
		return true
	}
	return false
}

// An Ending is the end of a grant or, if Cause.OfUser, of everything that a user has.
type Ending struct {
	Cause   Cause
	Subject string // of the user; empty: the grant is a client's own
	Client  string // that the grant was given to
	Session string // the sid in the tokens of the grant; empty: they have none
	Token   string // the jti of the revoked token, if the grant has no sid
}

// A Session is a session of a user at a client. ID is the sid in its tokens.
type Session struct{ Client, ID string }

// An Undone is the error of a cause that certainly has not happened, such as a wrong password. The Recorder returns Err.
type Undone struct{ Err error }

func (e Undone) Error() string { return e.Err.Error() }
func (e Undone) Unwrap() error { return e.Err }

// A Recorder keeps a lasting record of an Ending and calls do, which brings it about. do returns whether anything has ended; if it
// returns false and no error, or an [Undone], the Ending is not announced. It is announced if do fails, or if the process dies before do returns,
// because it may have happened. Nil: nothing is recorded.
type Recorder func(ctx context.Context, e Ending, do func(context.Context) (bool, error)) error

// userKey is the context key of the user whose Ending is in progress.
type userKey struct{}

// Do calls the recorder, or only do if there is none. Within the do of an Ending of a user, it does not record those of the user's
// grants, which it includes.
func (r Recorder) Do(ctx context.Context, e Ending, do func(context.Context) (bool, error)) error {
	user, _ := ctx.Value(userKey{}).(string)
	identified := e.Session != "" || e.Token != "" || e.Cause.OfUser() && e.Subject != ""
	if r == nil || !identified || user != "" && user == e.Subject {
		_, err := do(ctx)
		return err
	}
	if e.Cause.OfUser() {
		ctx = context.WithValue(ctx, userKey{}, e.Subject)
	}
	return r(ctx, e, do)
}
