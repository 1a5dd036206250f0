package engine

import (
	"cmp"
	"context"
	"crypto/x509"
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
	"github.com/valetkey/valetkey/authserver/model"
	"github.com/valetkey/valetkey/authserver/store"
	"github.com/valetkey/valetkey/dpop"
)

// Config configures an [Engine]. Package authserver has verified that the issuer and the APIs are valid.
type Config struct {
	_ struct{} // keyed literals only

	Issuer  string
	APIs    []model.API // at least one. Several may have a scope of the same name
	Clients *clients.Registry
	Store   store.Store
	Keys    *keys.Ring // with a key for the Algorithm of each API
	Paths   model.Paths

	// DefaultAPI is the audience of a token if a request names no resource, several APIs have its scopes, and the client has no
	// DefaultAPI. Empty: such a request is refused.
	DefaultAPI string

	// DevicePage is the path, below that of the issuer, of the page where users enter the code of a device. Empty: /device.
	DevicePage string

	// ACRs are the authentication context class references that decisions can have. A request whose acr_values
	// contain none of them is refused before the user is asked. Empty: no ACR is available.
	ACRs []string

	// Account returns the account of a user by subject, as [login.Login] does. It is called each time a grant of a user is used.
	// Required.
	Account func(ctx context.Context, subject string) (*login.Account, error)

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

	// Authorities are those whose certificates authenticate clients with tls_client_auth (RFC 8705, section 2.1). Nil: the method is
	// not offered. MTLSURL is the base URL of the endpoints that request certificates (section 5), if it is not the issuer. Empty: none.
	Authorities *x509.CertPool
	MTLSURL     string

	// Issuers are the issuers whose JWTs are accepted as grants (RFC 7523, section 2.1). Empty: the grant is not offered.
	Issuers []model.TrustedIssuer

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

func (cfg *Config) setDefaults() {
	cfg.Paths = cfg.Paths.WithDefaults()
	cfg.APIs = slices.Clone(cfg.APIs)
	for i, a := range cfg.APIs {
		cfg.APIs[i] = a.WithDefaults()
	}
	cfg.DevicePage = cmp.Or(cfg.DevicePage, "/device")
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
		if _, err := cfg.Keys.Signing(a.WithDefaults().Algorithm); err != nil {
			mistake("APIs[%d].Algorithm: %w", i, err)
		}
		if !slices.Contains([]model.Profile{"", model.RFC9068, model.User, model.Permissions}, a.Profile) {
			mistake("APIs[%d].Profile: %q is not known", i, a.Profile)
		}
	}
	for i, t := range cfg.Issuers {
		if err := validIssuer(t); err != nil {
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
