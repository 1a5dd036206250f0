// Package pages is what people see of the authorization server: log in, consent, the code of a device, the applications they
// have allowed, and a portal where developers register applications and try them. The pages are HTML and one stylesheet,
// with no script at all.
//
// Every page is rendered from one place with one set of headers ([Pages.Error] included), every form comes in through one
// place, and a session holds nothing that the store could read: see session.go.
package pages

import (
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
	"github.com/valetkey/valetkey/authserver/internal/engine"
	"github.com/valetkey/valetkey/authserver/login"
	"github.com/valetkey/valetkey/authserver/store"
)

// Config says what the pages show and who is behind them.
type Config struct {
	_ struct{} // keyed literals only

	Issuer string // its path is where the pages are below, and its scheme whether cookies are Secure. Required.
	Name   string // of the server, for people. Empty: Valetkey
	Accent string // the colour of buttons, #rrggbb, on which white can be read (contrast of 4.5 or more). Empty: a dark teal

	Logins  []UserType  // required
	APIs    []API       // required
	Clients Clients     // required
	Store   store.Store // required; kinds web, ended and consent are used
	Engine  Engine      // required

	// Account returns the account of a user by the subject, as [login.Login] does. It is asked for every page that a user who has
	// logged in requests. Required.
	Account func(ctx context.Context, subject string) (*login.Account, error)

	// AuthorizeURL and TokenURL are the endpoints, as applications know them; Token answers requests to the latter, so that
	// trying an application does not depend on the server reaching itself over the network. Required.
	AuthorizeURL, TokenURL string
	Token                  http.Handler

	// TryURL returns the URL that a trial token is used at, with GET: of the API with that audience, or "" if there is none.
	// Nil: none.
	TryURL func(audience string) string

	Developers []string // the types of users that may use the portal; nil: all
	Services   []string // those of them that may register services, which act without a user; nil: none

	SessionLifetime time.Duration // how long people stay logged in. Zero: 12 hours
	Renewable       time.Duration // how long applications may renew their access without the user, as consent says. Zero: it does not say

	Codes *login.Limiter // of guesses at the codes of devices, by network address. Required.

	// Address returns where a request comes from, as http.Request.RemoteAddr has it or without the port; nil: that one, which
	// behind a proxy is the proxy's.
	Address func(*http.Request) string

	// Logger is told of every log-in, consent, revocation and registration, and of failures; never of a secret, nor of the
	// name in a log-in that was refused, which may be a password in the wrong field. Nil: no log.
	Logger *slog.Logger
}

// A UserType is people who log in in one way.
type UserType struct {
	Type  string // as in [login.User]
	Label string // as people call themselves: Customer. Empty: Type
	Login *login.Limited
}

// An API is what people know of an API. No two share an audience or a scope.
type API struct {
	Audience string
	Name     string            // empty: the audience
	Scopes   map[string]string // with what each allows, in words
	Lifetime time.Duration     // of its tokens
}

// Clients is a [clients.Registry].
type Clients interface {
	Get(ctx context.Context, id string) (*clients.Client, error)
	Create(ctx context.Context, c clients.Client, withSecret bool) (*clients.Client, string, error)
	Update(ctx context.Context, c clients.Client) error
	RotateSecret(ctx context.Context, id string) (string, error)
	Delete(ctx context.Context, id string) error
	ByOwner(ctx context.Context, owner string) ([]clients.Client, error)
}

// Engine is what the pages ask of an [engine.Engine]. A user code is given as it was typed. An error of the first two wraps [store.ErrNotFound] if the user code is
// unknown, expired or decided, and is an outage otherwise.
type Engine interface {
	Device(ctx context.Context, userCode string) (*engine.Interaction, error)
	DecideDevice(ctx context.Context, in *engine.Interaction, d *engine.Decision) error
	DecidedDevice(ctx context.Context, userCode, subject, said string) (same, allows bool, err error)
	RevokeGrants(ctx context.Context, subject, clientID string) (int, error)
}

// Pages is safe for concurrent use. It runs no goroutines and needs no closing.
type Pages struct {
	cfg        Config
	base       string // path of the issuer, without a slash at its end
	tryURI     string // the redirect URI of trials; empty: none can be had
	sessions   *scs.SessionManager
	protection *http.CrossOriginProtection
	consents   consents
	look       *look
}

// New returns pages. It does no I/O. The error names every mistake in cfg.
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
	// A proxy may have changed the Host that the protection would compare with.
	if err := p.protection.AddTrustedOrigin(issuer.Scheme + "://" + issuer.Host); err != nil {
		return nil, fmt.Errorf("pages: Issuer: %w", err)
	}
	// An http issuer that is not on loopback could not be redirected to.
	if uri := issuer.Scheme + "://" + issuer.Host + p.base + tryPath; clients.ValidRedirectURI(uri, false) == nil {
		p.tryURI = uri
	}
	if p.look, err = newLook(cfg.Accent, p.base); err != nil {
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
	wrong(len(cfg.Logins) == 0, "Logins: at least one is required")
	for i, t := range cfg.Logins {
		wrong(t.Type == "" || t.Login == nil, fmt.Sprintf("Logins[%d]: Type and Login are required", i))
		wrong(slices.IndexFunc(cfg.Logins, func(o UserType) bool { return o.Type == t.Type }) < i, fmt.Sprintf("Logins[%d]: the type is there twice", i))
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

// Routes registers all pages but those of interactions, which come by way of the engine.
func (p *Pages) Routes(mux *http.ServeMux) {
	mux.Handle("GET "+p.look.stylePath, p.look)
	route := func(pattern string, h handler) {
		method, path, _ := strings.Cut(pattern, " ")
		mux.Handle(method+" "+p.base+path, p.serve(h, true))
	}
	form := func(path string, show, do handler) {
		route("GET "+path, show)
		route("POST "+path, do)
	}

	route("GET /{$}", (*visit).home)
	form("/login", (*visit).showLogin, (*visit).doLogin)
	mux.Handle("POST "+p.base+"/logout", p.serve((*visit).doLogout, false)) // also while users cannot be looked up
	form("/device", (*visit).showCode, (*visit).enterCode)
	form("/device/confirm", (*visit).confirmDevice, (*visit).confirmDevice)
	route("GET /device/{end}", (*visit).deviceEnd)
	form("/account/applications", signedIn((*visit).allowed), signedIn((*visit).disallow))

	route("GET /developer", developer((*visit).applications))
	form("/developer/applications/new", developer((*visit).newApplication), developer((*visit).register))
	route("GET /developer/applications/{id}", developer(owned((*visit).application)))
	form("/developer/applications/{id}/edit", developer(owned((*visit).showEdit)), developer(owned((*visit).edit)))
	form("/developer/applications/{id}/rotate", developer(owned((*visit).askRotate)), developer(owned((*visit).rotate)))
	form("/developer/applications/{id}/delete", developer(owned((*visit).askDelete)), developer(owned((*visit).remove)))
	route("POST /developer/applications/{id}/try", developer(owned((*visit).try)))
	route("GET "+tryPath, developer((*visit).tried))
	form("/developer/applications/{id}/token", developer(owned((*visit).showToken)), developer(owned((*visit).useToken)))
}

// api returns the API of an audience, or one that has no scopes.
func (p *Pages) api(audience string) API {
	for _, a := range p.cfg.APIs {
		if a.Audience == audience {
			return a
		}
	}
	return API{Audience: audience}
}

// Title is the API's name for people.
func (a API) Title() string {
	if a.Name != "" {
		return a.Name
	}
	return a.Audience
}

// A grant is a scope as people read it.
type grant struct {
	Scope, Meaning, API string
	Checked             bool
}

// describe puts scopes into words. A scope that no API has any more stands for itself.
func (p *Pages) describe(scopes []string) []grant {
	var list []grant
	for _, s := range scopes {
		g := grant{Scope: s, Meaning: s}
		for _, a := range p.cfg.APIs {
			if words, has := a.Scopes[s]; has {
				g.API = a.Title()
				if words != "" {
					g.Meaning = words
				}
			}
		}
		list = append(list, g)
	}
	return list
}
