package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/valetkey/valetkey/authserver/internal/clients"
	"github.com/valetkey/valetkey/authserver/internal/keys"
	"github.com/valetkey/valetkey/authserver/login"
	"github.com/valetkey/valetkey/authserver/store"
	"github.com/valetkey/valetkey/dpop"
)

// Config is what the engine needs to know. Package authserver has seen to it that issuer and APIs are valid.
type Config struct {
	_ struct{} // keyed literals only

	Issuer  string
	APIs    []API // at least one
	Clients *clients.Registry
	Store   store.Store
	Keys    *keys.Ring // with a key for the Algorithm of each API
	Paths   Paths

	// ACRs are the authentication context class references that decisions of Interact can have. A request for others only, in
	// acr_values, is refused before the user is asked. Empty: none can be had.
	ACRs []string

	// Interact asks users. Nil: nobody is asked, and all is denied.
	Interact Interact

	// Account returns the account of a user by the subject, as [login.Login] does. It is asked each time that a grant of a user is
	// used. Required.
	Account func(ctx context.Context, subject string) (*login.Account, error)

	// Leave asks users before they are sent to a client that is not Approved, with an error that they have had no part in. Nil:
	// they see the error on ErrorPage, and are not sent there.
	Leave Leave

	// Said returns what a request to an interaction says about it. Two requests that say the same are equal, and the second one gets
	// what the first one got, so it includes the user's log-in. The error is ErrForm for a form that does not count, and an outage
	// otherwise. Nil: no answer is given twice.
	Said func(*http.Request) (string, error)

	// Ended shows that an interaction is over, and the way back. Nil: ErrorPage.
	Ended func(w http.ResponseWriter, r *http.Request, over *Ended)

	// ErrorPage tells a person of an error that no application can be told of. It sets the status. Nil: plain text.
	ErrorPage func(w http.ResponseWriter, r *http.Request, status int, code, description string)

	// KeySets fetches the key sets of clients that named a URL: [clients.KeySetClient]. Nil: that one, which connects to public
	// addresses only.
	KeySets *http.Client

	// RequirePAR refuses authorization requests that were not pushed (RFC 9126, section 5), whatever the client says.
	RequirePAR bool

	CodeLifetime        time.Duration // of an authorization code. Zero: 60 s
	InteractionLifetime time.Duration // of a request that waits for its user. Zero: 15 min
	PARLifetime         time.Duration // of a pushed request that nobody has used. Zero: 90 s

	// RefreshLifetime is that of a family of refresh tokens, from the user's consent on: rotation does not extend it. Zero:
	// 30 days.
	RefreshLifetime time.Duration

	// RefreshGrace is how long after a rotation the token before it still gets another successor, which takes the place of
	// the first: a client whose answer was lost is not locked out. Whoever presents the token later, or one older, ends the
	// family. Zero: no grace.
	RefreshGrace time.Duration

	// Failures is how often one client may fail to authenticate itself from one network before it is told to wait, and Pushes
	// how many requests for authorization it may push or begin devices for. All that people and public clients begin in one
	// network count together. Right credentials are never refused: nobody can lock a client out, and
	// a secret is too long to be guessed. Zero: 20 at once, then one in 3 s; 300 at once, then 20 a second.
	Failures, Pushes login.Rate

	// DeviceLifetime is how long a user has to let a device in (RFC 8628). Zero: 10 min.
	DeviceLifetime time.Duration

	// DPoP verifies the proofs of clients that want tokens bound to their key (RFC 9449). Replicas share its ReplayStore, and the
	// key of its Nonces. Nil: proofs are not looked at, and tokens not bound.
	DPoP *dpop.Verifier

	// Certificate returns the certificate, in DER, that a client has proven to hold (RFC 8705), such as [TLSCertificate] or,
	// behind a proxy, Find of a middleware.ClientCertificate; nil: it has shown none. An error counts as none. Clients with
	// CertBound get their tokens bound to it. Nil: no client shows one.
	Certificate func(*http.Request) ([]byte, error)

	// Issuers are those whose JWTs are grants (RFC 7523, section 2.1). None: the grant is not offered.
	Issuers []TrustedIssuer

	// Implicit offers response_type=token to clients with the grant type implicit (RFC 6749, section 4.2): the token stands in
	// a URL. Password, if it is not nil, offers the grant of that name (section 4.3) for the people that it knows: the
	// application learns their password. Both are for old clients only (RFC 9700, sections 2.1.2 and 2.4); [New] logs a
	// warning.
	Implicit bool
	Password *login.Limited

	// Audit is told of every grant, refusal and revocation. Nil: nobody is.
	Audit func(context.Context, Event)

	// Logger is told of failures of our own. Nil: no log.
	Logger *slog.Logger
}

// An API is a resource server that tokens are issued for. No two APIs share an audience or a scope.
type API struct {
	Audience  string
	Scopes    []string
	Opaque    bool
	Algorithm string // of its JWTs, and of the signed introspection answers that it gets: ES256, RS256 or EdDSA
	Lifetime  time.Duration
	Profile   Profile

	// Exchange widens token exchange (RFC 8693), by which an API that was called calls another one for the same user: with a
	// token that has the scope, a client may get the scopes it stands for here, which are those of other APIs. Otherwise it
	// gets no more than the token has.
	Exchange map[string][]string

	// MayAct is the id of the only client that may exchange tokens for this API, which the claim may_act says (RFC 8693,
	// section 4.4). Empty: any client with that grant type which answers for the API, or which the token was issued to.
	MayAct string
}

// A TrustedIssuer makes JWTs about users, with which clients get tokens (RFC 7523, section 2.1).
type TrustedIssuer struct {
	Issuer string // iss, compared as it is. Required

	// JWKS is the issuer's JWK Set, JWKSURL where it is fetched from; one of the two is required.
	JWKS    []byte
	JWKSURL string

	// SubjectType is the type of the users: a sub of "bob" becomes the subject "partner:bob". Required, and not one that
	// others give subjects of.
	SubjectType string

	Scopes []string // all that clients may get by it; at least one
}

// A Profile is the shape of the claims of an API's JWTs. All of them have those of RFC 9068, section 2.2.
type Profile string

// The profiles.
const (
	RFC9068     Profile = ""
	User        Profile = "user"        // and user_id and user_type, with scope as an array
	Permissions Profile = "permissions" // and permissions, an array of the scopes, and azp, the client
)

// Paths are where the endpoints are, behind the path of the issuer.
type Paths struct {
	Authorize  string // empty: /oauth2/authorize; below it are the interactions
	Token      string // empty: /oauth2/token
	PAR        string // empty: /oauth2/par
	Introspect string // empty: /oauth2/introspect
	Revoke     string // empty: /oauth2/revoke
	Device     string // empty: /oauth2/device_authorization
	EnterCode  string // the page where users enter the code of a device; empty: /device
}

func (cfg *Config) setDefaults() {
	p := &cfg.Paths
	p.Authorize = cmp.Or(p.Authorize, "/oauth2/authorize")
	p.Token = cmp.Or(p.Token, "/oauth2/token")
	p.PAR = cmp.Or(p.PAR, "/oauth2/par")
	p.Introspect = cmp.Or(p.Introspect, "/oauth2/introspect")
	p.Revoke = cmp.Or(p.Revoke, "/oauth2/revoke")
	p.Device = cmp.Or(p.Device, "/oauth2/device_authorization")
	p.EnterCode = cmp.Or(p.EnterCode, "/device")
	cfg.DeviceLifetime = cmp.Or(cfg.DeviceLifetime, 10*time.Minute)
	cfg.CodeLifetime = cmp.Or(cfg.CodeLifetime, time.Minute)
	cfg.InteractionLifetime = cmp.Or(cfg.InteractionLifetime, 15*time.Minute)
	cfg.PARLifetime = cmp.Or(cfg.PARLifetime, 90*time.Second)
	cfg.RefreshLifetime = cmp.Or(cfg.RefreshLifetime, 30*24*time.Hour)
	if cfg.Failures == (login.Rate{}) {
		cfg.Failures = login.Rate{Burst: 20, Every: 3 * time.Second}
	}
	if cfg.Pushes == (login.Rate{}) {
		cfg.Pushes = login.Rate{Burst: 300, Every: 50 * time.Millisecond}
	}
	if cfg.Interact == nil {
		cfg.Interact = func(http.ResponseWriter, *http.Request, *Interaction) (*Decision, error) {
			return &Decision{Denied: true}, nil
		}
	}
	if cfg.ErrorPage == nil {
		cfg.ErrorPage = func(w http.ResponseWriter, _ *http.Request, status int, code, description string) {
			http.Error(w, code+": "+description, status)
		}
	}
	if cfg.KeySets == nil {
		cfg.KeySets = clients.KeySetClient(nil)
	}
	if cfg.Audit == nil {
		cfg.Audit = func(context.Context, Event) {}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
}

func (cfg *Config) validate() error {
	var errs []error
	mistake := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if cfg.Clients == nil {
		mistake("Clients: required")
	}
	if cfg.Store == nil {
		mistake("Store: required")
	}
	if cfg.Account == nil {
		mistake("Account: required")
	}
	if len(cfg.APIs) == 0 {
		mistake("APIs: at least one is required")
	}
	for i, a := range cfg.APIs {
		if cfg.Keys == nil {
			break
		}
		if _, err := cfg.Keys.Signing(a.Algorithm); err != nil {
			mistake("APIs[%d].Algorithm: %w", i, err)
		}
		if !slices.Contains([]Profile{RFC9068, User, Permissions}, a.Profile) {
			mistake("APIs[%d].Profile: %q is not known", i, a.Profile)
		}
	}
	for i, t := range cfg.Issuers {
		if err := t.validate(); err != nil {
			mistake("Issuers[%d]: %w", i, err)
		}
	}
	if cfg.Keys == nil {
		mistake("Keys: required")
	}
	for name, d := range map[string]time.Duration{
		"CodeLifetime": cfg.CodeLifetime, "InteractionLifetime": cfg.InteractionLifetime, "PARLifetime": cfg.PARLifetime,
		"DeviceLifetime": cfg.DeviceLifetime, "RefreshLifetime": cfg.RefreshLifetime, "RefreshGrace": cfg.RefreshGrace,
	} {
		if d < 0 || d%time.Second != 0 {
			mistake("%s: %v is negative, or not a whole number of seconds", name, d)
		}
	}
	return errors.Join(errs...)
}

// base is the issuer as URLs of endpoints begin; path is the part of it that is a path.
func (cfg *Config) base() string { return strings.TrimSuffix(cfg.Issuer, "/") }

func (cfg *Config) path() string {
	u, err := url.Parse(cfg.base())
	if err != nil {
		return "" // not a valid issuer
	}
	return u.Path
}
