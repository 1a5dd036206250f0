// Package pages implements the pages of the authorization server: log-in, consent, the code of a device, the applications that a
// user has allowed, sessions and passwords, and a portal where developers register applications and try them out. The pages are HTML with one stylesheet
// and without scripts.
//
// Every page, including [Pages.Error], is rendered in one place with one set of headers, and every form is read in one place.
// The store cannot read the values of a session; see session.go.
package pages

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

	"github.com/alexedwards/scs/v2"

	"github.com/valetkey/valetkey/authserver/internal/clients"
	"github.com/valetkey/valetkey/authserver/internal/flow"
	"github.com/valetkey/valetkey/authserver/internal/handoff"
	"github.com/valetkey/valetkey/authserver/login"
	"github.com/valetkey/valetkey/authserver/model"
	"github.com/valetkey/valetkey/authserver/store"
)

// Config specifies the content of the pages and the services behind them.
type Config struct {
	_ struct{} // keyed literals only

	Issuer  string // the pages are below its path, and its scheme determines whether cookies are Secure. Required.
	Name    string // of the server, shown on pages. Empty: Valetkey
	Logo    []byte // see ValidImage. Empty: the Name
	Favicon []byte // see ValidImage. Empty: a key in the color of Accent
	Links   Links

	Accent string // the color of buttons, #rrggbb, on which white text is readable (contrast of at least 4.5). Empty: a dark teal

	Logins  []UserType  // required
	APIs    []model.API // required
	Clients Clients     // required
	Store   store.Store // required; kinds web, ended, once and consent are used
	Engine  Engine      // required

	// Account returns the account of a user by subject, as [login.Login] does. It is called for every page that a logged-in user
	// requests. Required.
	Account func(ctx context.Context, subject string) (*login.Account, error)

	// Handoff is the door to another party's page, where users log in instead of here. Nil: they log in here.
	Handoff *handoff.Door

	// AuthorizeURL and TokenURL are the endpoints as applications know them. Token handles requests to TokenURL, so that the
	// trial of an application works even if the server cannot reach itself over the network. Required.
	AuthorizeURL, TokenURL string
	Token                  http.Handler

	// EndGrants ends the grants that began in a browser session, which is named as in flow.Decision.Session. It is called when
	// the user logs out. Nil: they outlive the session.
	EndGrants func(ctx context.Context, session string) error

	// EndSession is called when the user has ended another session, named in the same way. Nil: its grants remain.
	EndSession func(ctx context.Context, session string) error

	// EndUser ends everything of a user: all sessions, consents and grants. Nil: there are no pages about sessions.
	EndUser func(ctx context.Context, subject string) error

	// ChangePassword replaces the password of a user of a type with Database, and ends all sessions and grants if everywhere is set.
	// It verifies old once more, so that no other change gets lost. The error wraps [login.ErrRefused] if old is wrong, and [ErrFixed]
	// if the password cannot be changed. Nil: passwords are not changed here.
	ChangePassword func(ctx context.Context, u *login.User, old, password string, everywhere bool) (*login.User, error)

	Developers []string // the types of users that may use the portal; nil: all
	Services   []string // those that may register services, which act without a user; nil: none

	SessionLifetime time.Duration // how long users stay logged in. Zero: 12 hours
	Renewable       time.Duration // how long applications may renew their access without the user, as stated on the consent page. Zero: not stated

	Codes *login.Limiter // of guesses at device codes, by network address. Required.

	// Address returns the address that a request comes from, with a port as in http.Request.RemoteAddr or without one. Nil: the
	// RemoteAddr, which behind a proxy is the proxy's.
	Address func(*http.Request) string

	// Logger receives every log-in, consent, revocation and registration, and failures. It never receives a secret, or the name
	// in a refused log-in, which may be a password in the wrong field. Nil: no log.
	Logger *slog.Logger
}

// Links are URLs at the foot of each page; see ValidLink. Empty: none.
type Links struct{ Privacy, Imprint, Help string }

// A UserType is a group of people who log in the same way.
type UserType struct {
	Type  string // as in [login.User]
	Label string // shown on the log-in page, such as Customer. Empty: Type
	Login *login.Limited

	Database bool // the passwords are in the database, so that users can change theirs
}

// Clients is a [clients.Registry].
type Clients interface {
	Get(ctx context.Context, id string) (*clients.Client, error)
	About(ctx context.Context, id string) (*clients.Client, error)
	Create(ctx context.Context, c clients.Client, withSecret bool) (*clients.Client, string, error)
	Update(ctx context.Context, c clients.Client) error
	RotateSecret(ctx context.Context, id string) (string, error)
	Delete(ctx context.Context, id string) error
	ByOwner(ctx context.Context, owner string) ([]clients.Client, error)
	ValidRedirectURI(uri string, native bool) error
}

// Engine is what the pages need of an engine. A user code is passed as it was entered. An error of the first two methods wraps [store.ErrNotFound] if the user code is unknown, expired or decided, and is an outage otherwise.
type Engine interface {
	Device(ctx context.Context, userCode string) (*flow.Interaction, error)
	DecideDevice(ctx context.Context, in *flow.Interaction, d *flow.Decision) error
	DecidedDevice(ctx context.Context, userCode, subject, said string) (same, allows bool, err error)
	RevokeGrants(ctx context.Context, subject, clientID string) (int, error)
}

// Pages serves the pages. It is safe for concurrent use, runs no goroutines and needs no closing.
type Pages struct {
	cfg        Config
	base       string // path of the issuer, without a slash at its end
	tryURI     string // the redirect URI of trials; empty: trials are not possible
	sessions   *scs.SessionManager
	protection *http.CrossOriginProtection
	consents   consents
	look       *look
	locales    *locales
}

// New returns Pages. It does no I/O. The error lists every mistake in cfg.
func New(cfg Config) (*Pages, error) {
	if cfg.Name == "" {
		cfg.Name = "Valetkey"
	}
	if cfg.Accent == "" {
		cfg.Accent = "#0b6b62"
	}
	if cfg.SessionLifetime == 0 {
		cfg.SessionLifetime = 12 * time.Hour
	}
	if cfg.Address == nil {
		cfg.Address = func(r *http.Request) string { return r.RemoteAddr }
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	issuer, err := url.Parse(cfg.Issuer)
	if err := errors.Join(cfg.validate(issuer, err)...); err != nil {
		return nil, fmt.Errorf("pages: %w", err)
	}
	p := &Pages{
		cfg:        cfg,
		base:       strings.TrimSuffix(issuer.EscapedPath(), "/"),
		sessions:   newSessions(cfg.Store, cfg.SessionLifetime, issuer.Scheme == "https"),
		protection: http.NewCrossOriginProtection(),
		consents:   consents{cfg.Store},
	}
	// A proxy may have changed the Host, which the protection compares with the origin.
	if err := p.protection.AddTrustedOrigin(issuer.Scheme + "://" + issuer.Host); err != nil {
		return nil, fmt.Errorf("pages: Issuer: %w", err)
	}
	// An http issuer that is not on loopback cannot be a redirect URI.
	if uri := issuer.Scheme + "://" + issuer.Host + p.base + tryPath; clients.ValidRedirectURI(uri, false) == nil {
		p.tryURI = uri
	}
	if p.look, err = newLook(&cfg, p.base); err != nil {
		return nil, fmt.Errorf("pages: %w", err)
	}
	if p.locales, err = readLocales(); err != nil {
		return nil, fmt.Errorf("pages: %w", err)
	}
	return p, nil
}

func (cfg *Config) validate(issuer *url.URL, err error) (mistakes []error) {
	wrong := func(is bool, mistake string) {
		if is {
			mistakes = append(mistakes, errors.New(mistake))
		}
	}
	wrong(err != nil || issuer.Host == "" || issuer.Scheme != "https" && issuer.Scheme != "http", "Issuer: is not an http or https URL")
	if err := ValidAccent(cfg.Accent); err != nil {
		mistakes = append(mistakes, fmt.Errorf("Accent: %w", err))
	}
	for field, err := range map[string]error{
		"Logo": ValidImage(cfg.Logo), "Favicon": ValidImage(cfg.Favicon), "Links.Privacy": ValidLink(cfg.Links.Privacy),
		"Links.Imprint": ValidLink(cfg.Links.Imprint), "Links.Help": ValidLink(cfg.Links.Help, "mailto"),
	} {
		if err != nil {
			mistakes = append(mistakes, fmt.Errorf("%s: %w", field, err))
		}
	}
	wrong(len(cfg.Logins) == 0, "Logins: at least one is required")
	for i, t := range cfg.Logins {
		wrong(t.Type == "" || t.Login == nil, fmt.Sprintf("Logins[%d]: Type and Login are required", i))
		wrong(slices.IndexFunc(cfg.Logins, func(o UserType) bool { return o.Type == t.Type }) < i, fmt.Sprintf("Logins[%d]: the type is duplicated", i))
	}
	wrong(len(cfg.APIs) == 0, "APIs: at least one is required")
	wrong(cfg.Clients == nil, "Clients: is required")
	wrong(cfg.Store == nil, "Store: is required")
	wrong(cfg.Engine == nil, "Engine: is required")
	wrong(cfg.Account == nil, "Account: is required")
	wrong(cfg.AuthorizeURL == "", "AuthorizeURL: is required")
	wrong(cfg.TokenURL == "", "TokenURL: is required")
	wrong(cfg.Token == nil, "Token: is required")
	wrong(cfg.Codes == nil, "Codes: is required")
	wrong(cfg.SessionLifetime < 0, "SessionLifetime: is negative")
	wrong(cfg.Renewable < 0, "Renewable: is negative")
	return mistakes
}

// Routes registers all pages except those of interactions, which the server calls.
func (p *Pages) Routes(mux *http.ServeMux) {
	for _, a := range p.look.all() {
		mux.Handle("GET "+a.path, a)
	}
	page := func(pattern string, rt route) {
		method, path, _ := strings.Cut(pattern, " ")
		mux.Handle(method+" "+p.base+path, p.serve(rt))
	}
	form := func(path string, show, do handler) {
		page("GET "+path, route{do: show})
		page("POST "+path, route{do: do})
	}
	written := func(path string, show, do handler) { // with content that would be lost
		page("GET "+path, route{do: show})
		page("POST "+path, route{do: do, stale: (*visit).again, keeps: true})
	}

	page("GET /{$}", route{do: (*visit).home})
	page("GET /login", route{do: (*visit).showLogin})
	if p.cfg.Handoff == nil {
		page("POST /login", route{do: (*visit).doLogin, stale: (*visit).loggedInBefore})
	} else {
		page("GET "+handoff.ReturnPath, route{do: (*visit).handedBack})
	}
	page("POST /logout", route{do: (*visit).doLogout, unchecked: true}) // works even while users cannot be looked up
	page("POST /language", route{do: (*visit).chooseLanguage, stale: (*visit).chooseLanguage, unchecked: true})
	form("/device", (*visit).showCode, (*visit).enterCode)
	form("/device/confirm", (*visit).confirmDevice, (*visit).confirmDevice)
	page("GET /device/{end}", route{do: (*visit).deviceEnd})
	form("/account/applications", signedIn((*visit).allowed), signedIn((*visit).revoke))
	page("GET /account/applications/revoke", route{do: signedIn((*visit).askRevoke)})
	p.accountPages(func(pattern string, h handler) { page(pattern, route{do: h}) }, form)

	page("GET /developer", route{do: developer((*visit).applications)})
	written("/developer/applications/new", developer((*visit).newApplication), developer(once((*visit).register)))
	page("GET /developer/applications/{id}", route{do: developer(owned((*visit).application))})
	written("/developer/applications/{id}/edit", developer(owned((*visit).showEdit)), developer(owned((*visit).edit)))
	form("/developer/applications/{id}/rotate", developer(owned((*visit).askRotate)), developer(once(owned((*visit).rotate))))
	form("/developer/applications/{id}/delete", developer(owned((*visit).askDelete)), developer(once(owned((*visit).remove))))
	page("POST /developer/applications/{id}/try", route{do: developer(owned((*visit).try))})
	page("GET "+tryPath, route{do: developer((*visit).tried)})
	form("/developer/applications/{id}/token", developer(owned((*visit).showToken)), developer(owned((*visit).useToken)))
}

// api returns the API of an audience, or one without scopes.
func (p *Pages) api(audience string) model.API {
	for _, a := range p.cfg.APIs {
		if a.Audience == audience {
			return a
		}
	}
	return model.API{Audience: audience}
}

// A grant is a scope as shown to users.
type grant struct {
	Scope, Meaning, API string
	Checked, Sensitive  bool
}

// describe returns the descriptions of scopes, in the order of the configuration. A scope that none of the APIs has any more comes
// last, and is shown by name.
func (v *visit) describe(scopes []string, apis ...model.API) []grant {
	var list []grant
	known := map[string]bool{}
	for _, a := range apis {
		for i := range a.Scopes {
			s := &a.Scopes[i]
			if slices.Contains(scopes, s.Name) && !known[s.Name] {
				known[s.Name] = true
				list = append(list, grant{Scope: s.Name, Meaning: cmp.Or(v.locale.translated(s.Description, s.Descriptions), s.Name), API: a.Title(), Sensitive: s.Sensitive})
			}
		}
	}
	for _, s := range scopes {
		if !known[s] {
			list = append(list, grant{Scope: s, Meaning: s})
		}
	}
	return list
}
