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
	"github.com/valetkey/valetkey/authserver/internal/endings"
	"github.com/valetkey/valetkey/authserver/internal/keys"
	"github.com/valetkey/valetkey/authserver/login"
	"github.com/valetkey/valetkey/authserver/store"
	"github.com/valetkey/valetkey/dpop"
)

// Config configures an [Engine]. Package authserver has verified that the issuer and the APIs are valid.
type Config struct {
	_ struct{} // keyed literals only

	Issuer  string
	APIs    []API // at least one
	Clients *clients.Registry
	Store   store.Store
	Keys    *keys.Ring // with a key for the Algorithm of each API
	Paths   Paths

	// ACRs are the authentication context class references that decisions of Interact can have. A request whose acr_values
	// contain none of them is refused before the user is asked. Empty: no ACR is available.
	ACRs []string

	// Interact asks users. Nil: users are not asked, and every request is denied.
	Interact Interact

	// Account returns the account of a user by subject, as [login.Login] does. It is called each time a grant of a user is used.
	// Required.
	Account func(ctx context.Context, subject string) (*login.Account, error)

	// Leave asks users before they are sent to a client that is not Approved with an error that they took no part in. Nil: users
	// see the error on ErrorPage and are not sent to the client.
	Leave Leave

	// Said returns a representation of the content of a request to an interaction. Two requests with the same representation are
	// equal, and the second one gets the response of the first one, so it must include the user's log-in. The error is ErrForm
	// for a form that is not valid, and an outage otherwise. Nil: no response is repeated.
	Said func(*http.Request) (string, error)

	// Ended shows that an interaction has ended, and the way back. Nil: ErrorPage.
	Ended func(w http.ResponseWriter, r *http.Request, over *Ended)

	// ErrorPage shows a user an error that cannot be returned to an application. It sets the status. Nil: plain text.
	ErrorPage func(w http.ResponseWriter, r *http.Request, status int, code, description string)

	// KeySets fetches the key sets of clients that registered a URL. Nil: [clients.KeySetClient], which connects to public
	// addresses only.
	KeySets *http.Client

	// RequirePAR refuses authorization requests that were not pushed (RFC 9126, section 5), regardless of the client's own
	// setting.
	RequirePAR bool

	CodeLifetime        time.Duration // of an authorization code. Zero: 60 s
	InteractionLifetime time.Duration // of a request that waits for its user. Zero: 15 min
	PARLifetime         time.Duration // of an unused pushed request. Zero: 90 s

	// RefreshLifetime is the lifetime of a family of refresh tokens, counted from the user's consent. Rotation does not extend
	// it. Zero: 30 days.
	RefreshLifetime time.Duration

	// RefreshGrace is how long after a rotation the preceding token still gets another successor, which replaces the first one.
	// A client that has lost a response is then not locked out. A later use of the token, or the use of an older one, ends the
	// family. Zero: no grace period.
	RefreshGrace time.Duration

	// Failures limits how often one client may fail to authenticate from one network before it must wait. Pushes limits the
	// authorization requests that one client may push, and the device authorizations that it may begin. Those that users and
	// public clients begin in one network count together. Correct credentials are never refused: no attacker can lock a client
	// out, and a secret is too long to be guessed. Zero: 20 at once, then one in 3 s; 300 at once, then 20 a second.
	Failures, Pushes login.Rate

	// DeviceLifetime is how long a user has to allow a device (RFC 8628). Zero: 10 min.
	DeviceLifetime time.Duration

	// DPoP verifies the proofs of clients that request tokens bound to their key (RFC 9449). Replicas must share its ReplayStore
	// and the key of its Nonces. Nil: proofs are ignored, and tokens are not bound.
	DPoP *dpop.Verifier

	// Certificate returns the certificate, in DER, that a client has proven to possess (RFC 8705), or nil if there is none. Use
	// [TLSCertificate] or, behind a proxy, Find of a middleware.ClientCertificate. An error is treated as no certificate.
	// Clients with CertBound get tokens bound to the certificate. Nil: no client has a certificate.
	Certificate func(*http.Request) ([]byte, error)

	// Issuers are the issuers whose JWTs are accepted as grants (RFC 7523, section 2.1). Empty: the grant is not offered.
	Issuers []TrustedIssuer

	// Implicit offers response_type=token to clients with the grant type implicit (RFC 6749, section 4.2), which exposes the
	// token in a URL. Password, if it is not nil, offers the password grant (section 4.3) for the users that it knows, which
	// discloses their passwords to the application. Both are for old clients only (RFC 9700, sections 2.1.2 and 2.4); [New] logs
	// a warning.
	Implicit bool
	Password *login.Limited

	// Endings records the ends of grants, so that they can be announced. Nil: they are not recorded.
	Endings endings.Recorder

	// Audit receives every grant, refusal and revocation. Nil: they are not reported.
	Audit func(context.Context, Event)

	// Logger receives internal failures. Nil: no log.
	Logger *slog.Logger
}

// An API is a resource server that tokens are issued for. No two APIs share an audience or a scope.
type API struct {
	Audience  string
	Scopes    []string
	Opaque    bool
	Algorithm string // of its JWTs, and of its signed introspection responses: ES256, RS256 or EdDSA
	Lifetime  time.Duration
	Profile   Profile

	// Exchange extends token exchange (RFC 8693), in which an API that was called calls another one for the same user. It maps a
	// scope of this API to scopes of other APIs that a client may obtain for a token with that scope. Otherwise an exchange
	// yields no more than the token has.
	Exchange map[string][]string

	// MayAct is the ID of the only client that may exchange tokens for this API, as stated in the claim may_act (RFC 8693,
	// section 4.4). Empty: any client with the token exchange grant type that represents the API or that the token was issued
	// to.
	MayAct string
}

// A TrustedIssuer issues JWTs about users, which clients exchange for tokens (RFC 7523, section 2.1).
type TrustedIssuer struct {
	Issuer string // the iss claim, compared exactly. Required

	// JWKS is the issuer's JWK Set, and JWKSURL is the URL that it is fetched from. Exactly one of the two is required.
	JWKS    []byte
	JWKSURL string

	// SubjectType is the type of the users: with "partner", the sub "bob" becomes the subject "partner:bob". Required, and used
	// by no other source of subjects.
	SubjectType string

	Scopes []string // all scopes that clients may obtain with its JWTs; at least one
}

// A Profile selects the claims of an API's JWTs, in addition to those of RFC 9068, section 2.2.
type Profile string

// The profiles.
const (
	RFC9068     Profile = ""
	User        Profile = "user"        // adds user_id and user_type, with scope as an array
	Permissions Profile = "permissions" // adds permissions, an array of the scopes, and azp, the client
)

// Paths are the paths of the endpoints, below the path of the issuer.
type Paths struct {
	Authorize  string // empty: /oauth2/authorize; interactions are below it
	Token      string // empty: /oauth2/token
	PAR        string // empty: /oauth2/par
	Introspect string // empty: /oauth2/introspect
	Revoke     string // empty: /oauth2/revoke
	Device     string // empty: /oauth2/device_authorization
	EnterCode  string // the page where users enter a device code; empty: /device
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

// base returns the issuer as the prefix of endpoint URLs. path returns the path of the issuer.
func (cfg *Config) base() string { return strings.TrimSuffix(cfg.Issuer, "/") }

func (cfg *Config) path() string {
	u, err := url.Parse(cfg.base())
	if err != nil {
		return "" // not a valid issuer
	}
	return u.Path
}
