// Package flow declares the values that pass between the engine, the server and the pages while a user is asked. The engine and
// the pages do not import each other.
package flow

import (
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/authserver/login"
	"github.com/valetkey/valetkey/authserver/model"
)

// An Interaction is a valid authorization request that waits for its user: from the authorization endpoint, or from a device
// whose code the user has entered.
type Interaction struct {
	ID          string // unguessable; identifies the request, not the user
	ContinueURL string // a path that the pages of the interaction post to, which calls Interact again
	Browser     string // the secret of the browser that began it, for Finish
	Fresh       bool   // no page of it has been shown yet
	Client      *model.Client
	API         model.API
	Scopes      valetkey.Scopes // requested; all of them belong to the API and the client. Empty: only details are requested
	Details     []Detail        // requested (RFC 9396): the user allows all of them or denies the request
	RedirectURI string          // empty: a device
	Implicit    bool            // the token itself is sent there (RFC 6749, section 4.2)
	UserCode    string          // of a device, in the form shown to the user
	LoginHint   string
	UILocales   string        // language tags, separated by spaces, in the order of preference (OpenID Connect Core 1.0, section 3.1.2.1)
	Prompt      string        // none, login, consent; empty: as needed
	MaxAge      time.Duration // maximum age of the login; negative: any age
	ACRValues   []string      // a decision needs one of them; empty: no requirement
}

// Allowable returns the details that a user with these scopes may allow; nil scopes: all of them. The scopes of a user contain types
// of details, too.
func Allowable(details []Detail, scopes []string) []Detail {
	if scopes == nil {
		return details
	}
	return slices.DeleteFunc(slices.Clone(details), func(d Detail) bool { return !slices.Contains(scopes, d.Type) })
}

// A Departure is an error that is about to be sent to a client that the operator has not approved.
type Departure struct {
	Client            *model.Client
	URL               string // a redirect URI of the client, with the error
	Code, Description string // of the error
}

// Leave returns true, having written nothing, if the browser may be sent to the URL immediately, because its user has allowed
// the client something before. Otherwise it returns false, having written a page that names the destination of the URL and
// leaves the choice to the user. Without it, a link to this server that deliberately causes an error would lead to any site that
// an attacker has registered as a client (RFC 9700, section 4.11.2). An error is an outage, with nothing written.
type Leave func(w http.ResponseWriter, r *http.Request, d *Departure) (bool, error)

// An Ended is an interaction that does not wait for this user, or no longer.
type Ended struct {
	Answered    bool          // false: it has expired, or never existed
	Client      *model.Client // nil: unknown. Unless Answered, anyone could have named it
	RedirectURI string        // of the client; empty unless Answered
	ID, Browser string        // as in the Interaction; empty unless Answered

	NoCookie  bool // the request has no cookie of the browser that the interaction began in
	Elsewhere bool // the interaction began in another browser
}

// A Decision is the decision of the user of an Interaction.
type Decision struct {
	Denied   bool
	Said     string // Pages.Said of the request that contained it
	Informed bool   // with Denied: the user has seen the client and the destination, so Leave is not called
	Error    string // with Denied: access_denied if empty, or login_required, consent_required, interaction_required, for prompt=none
	User     *login.User
	Session  string // identifies the browser session of the user, see Engine.EndSession; it is not a secret. Empty: none
	AuthTime time.Time
	ACR      string
	Scopes   valetkey.Scopes // allowed: at least one of those requested
}

// Interact asks the user. It returns a decision, having written nothing, or nil, having written a page or a redirect. In that
// case it is called again when a request to ContinueURL arrives. An error is an outage, with nothing written.
type Interact func(w http.ResponseWriter, r *http.Request, in *Interaction) (*Decision, error)

// ErrForm is the error of a Said for a form that cannot be read, or that was not shown to its session.
var ErrForm = errors.New("the form is not accepted")
