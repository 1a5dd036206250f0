package engine

import (
	"net/http"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/authserver/internal/clients"
	"github.com/valetkey/valetkey/authserver/login"
)

// An Interaction is a valid request for authorization that waits for its user: from the authorization endpoint, or from a
// device whose code the user has typed.
type Interaction struct {
	ID          string // unguessable; of the request, not of the user
	ContinueURL string // a path: where the pages of the interaction post to, and so Interact is called again
	Client      *clients.Client
	API         API
	Scopes      valetkey.Scopes // asked for, all of them the API's and the client's
	RedirectURI string          // empty: a device
	Implicit    bool            // the token itself goes there (RFC 6749, section 4.2)
	UserCode    string          // of a device, as it is shown to the user
	LoginHint   string
	Prompt      string        // none, login, consent; empty: as needed
	MaxAge      time.Duration // how old the login may be; negative: any age
	ACRValues   []string      // a decision needs one of them; empty: any will do, or none
}

// A Departure is an error that waits to be sent to its client, which the operator has not approved.
type Departure struct {
	Client            *clients.Client
	URL               string // a redirect URI of the client, with the error
	Code, Description string // of the error
}

// Leave returns true, having written nothing, if the browser may be sent to the URL at once, because its user has allowed the
// client something before; or false, having written a page that names where the URL leads and leaves it to the user whether to go
// there. Otherwise a link to this server, with an error on purpose, would lead wherever a stranger who has registered a client
// wants (RFC 9700, section 4.11.2). An error is an outage, with nothing written.
type Leave func(w http.ResponseWriter, r *http.Request, d *Departure) (bool, error)

// An Ended is an interaction that does not wait for its user any more.
type Ended struct {
	Answered    bool            // otherwise it has expired, or there was none
	Client      *clients.Client // nil: not known. Unless Answered, anybody could have named it
	RedirectURI string          // of the client; empty unless Answered
}

// A Decision is what the user of an Interaction has decided.
type Decision struct {
	Denied   bool
	Said     string // Config.Said of the request that it came by
	Informed bool   // with Denied: the user has seen who asks and where the answer goes, so it is sent there without Leave
	Error    string // with Denied: access_denied if empty, or login_required, consent_required, interaction_required, for prompt=none
	User     *login.User
	AuthTime time.Time
	ACR      string
	Scopes   valetkey.Scopes // allowed: a part of those asked for, at least one
}

// Interact asks the user. It returns a decision, having written nothing; or nil, having written a page or a redirect, and is
// asked again when a request comes to ContinueURL. An error is an outage, with nothing written.
type Interact func(w http.ResponseWriter, r *http.Request, in *Interaction) (*Decision, error)
