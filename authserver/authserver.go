// Package authserver is a small OAuth 2.0 authorization server for one machine, a team's tests, or an internal network.
//
//	server, err := authserver.New(ctx, authserver.Demo())
//	...
//	go server.Run(ctx)
//	http.ListenAndServe("127.0.0.1:8888", server)
//
// The server issues JWT (RFC 9068) or opaque access tokens, as configured per API. It supports the authorization code grant
// with PKCE, client credentials, refresh tokens, the device grant (RFC 8628) and token exchange (RFC 8693), and it can bind
// tokens to a key of the client (RFC 9449, RFC 8705). It serves its metadata (RFC 8414), its key set, introspection (RFC 7662),
// revocation (RFC 7009), pushed authorization requests (RFC 9126) and client registration (RFC 7591, 7592), and accepts Client ID
// Metadata Documents. It also serves pages for log-in, consent and revoking consent, sessions and passwords, and a portal for
// developers. The resource parameter (RFC 8707) selects the API that a token is for.
//
// All state is in a [store.Store]: in memory, unless the application configures one from module sqlitestore or pgstore. Users
// are in a database in that store, in a directory (module ldaplogin), or behind any other [login.Login].
//
// A grant or a browser session lasts only as long as its user. At every use (refresh, introspection, token exchange, code
// redemption, and each page) the server looks the user up (see [login.Login]) and relies on the result for up to a minute. If
// the user no longer exists or has a new password, the grant or session ends. Scopes that the user may no longer allow are
// omitted from new tokens and from introspection responses. While users cannot be looked up, requests get 503 with
// temporarily_unavailable, and nothing ends. JWTs that APIs verify locally remain valid until they expire, unless the APIs receive
// signals: see [Signals]. Tokens that clients obtain for themselves have no user. Users of [Config.TrustedIssuers] are known only from the assertions of their issuer.
//
// The server supports step-up (RFC 9470) with max_age and prompt=login, and puts auth_time into tokens. Log-in at this server is by
// password and has no acr, so a request with acr_values is refused with unmet_authentication_requirements. Otherwise an API that
// requires an acr would send its client back here endlessly. For an acr, a second factor, passkeys or an upstream provider, hand
// log-ins to your own page; see [Handoff].
//
// Not supported: TLS (terminate it in front of the server), and OpenID Connect including its claims parameter.
package authserver

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/authserver/internal/accounts"
	"github.com/valetkey/valetkey/authserver/internal/clients"
	"github.com/valetkey/valetkey/authserver/internal/endings"
	"github.com/valetkey/valetkey/authserver/internal/engine"
	"github.com/valetkey/valetkey/authserver/internal/flow"
	"github.com/valetkey/valetkey/authserver/internal/keys"
	"github.com/valetkey/valetkey/authserver/internal/pages"
	"github.com/valetkey/valetkey/authserver/internal/transmitter"
	"github.com/valetkey/valetkey/authserver/login"
	"github.com/valetkey/valetkey/internal/keyset"
)

// A Server is an [http.Handler]. It is safe for concurrent use. It starts no goroutines except those of [Server.Run].
type Server struct {
	cfg      Config
	log      audit
	keys     *keys.Ring
	clients  *clients.Registry
	engine   *engine.Engine
	pages    *pages.Pages
	inFile   []*fileUsers
	accounts *accounts.Accounts
	signals  *transmitter.Transmitter // nil: off
	endings  endings.Recorder         // nil: off
	mux      *http.ServeMux
	shared   map[string]string // paths that pages of other origins may request; see cors.go
}

// New returns a server and creates any signing keys that are missing from the store. The error lists every mistake in cfg, or
// describes a problem with the store. cfg must not be modified afterwards.
func New(ctx context.Context, cfg Config) (*Server, error) {
	s, err := open(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("authserver: %w", err)
	}
	return s, nil
}

func open(ctx context.Context, cfg Config) (*Server, error) {
	err := cfg.Validate()
	if cfg.Store != nil && len(cfg.Seal) == 0 && !cfg.InsecureUnsealed {
		err = errors.Join(err, &valetkey.ConfigError{Field: "Seal", Err: errors.New("required with a Store, unless InsecureUnsealed is set")})
	}
	if err != nil {
		return nil, err
	}
	shared := cfg.Store != nil
	cfg.setDefaults()
	s := &Server{cfg: cfg, log: audit{cfg.Audit}, mux: http.NewServeMux()}
	s.clients = clients.NewRegistry(cfg.Store, cfg.static(), cfg.PrivateUseSchemes...)
	if cfg.ClientDocuments.Enabled {
		if err := s.acceptDocuments(); err != nil {
			return nil, err
		}
	}
	s.keys, err = keys.Open(ctx, cfg.Store, keys.Config{
		Algorithms: algorithms(cfg.allAPIs()), Seal: cfg.Seal, SealPrevious: cfg.SealPrevious, InsecureUnsealed: cfg.InsecureUnsealed,
		Publish: cfg.Keys.Publish, Rotate: cfg.Keys.Rotate, Logger: cfg.Logger,
	})
	if err != nil {
		return nil, err
	}
	if err := s.wire(ctx, shared); err != nil {
		return nil, err
	}
	cfg.warn()
	return s, nil
}

// wire connects the parts to each other and to their paths.
func (s *Server) wire(ctx context.Context, shared bool) error {
	cfg := &s.cfg
	if cfg.Signals.Enabled { // the parts that it connects call each other
		s.endings = func(ctx context.Context, e endings.Ending, do func(context.Context) (bool, error)) error {
			return s.signals.Record(ctx, e, do)
		}
	}
	people, err := cfg.people(ctx, s.endings)
	if err != nil {
		return err
	}
	s.inFile, s.accounts = people.inFile, people.accounts
	logins, err := cfg.logins(people)
	if err != nil {
		return err
	}
	proofs, err := cfg.proofs(shared)
	if err != nil {
		return err
	}
	limiter, err := login.NewLimiter(cfg.Limits.DeviceCode, 0)
	if err != nil {
		return fmt.Errorf("limits.device_code: %w", err)
	}
	door, err := cfg.door()
	if err != nil {
		return err
	}
	s.engine, err = engine.New(engine.Config{
		Issuer: cfg.Issuer, DefaultAPI: cfg.DefaultAPI, APIs: cfg.allAPIs(), Clients: s.clients, Store: cfg.Store, Keys: s.keys, Paths: cfg.Paths,
		Account: people.accounts.Lookup, Endings: s.endings,
		RequirePAR: cfg.RequirePAR, CodeLifetime: cfg.Lifetimes.Code, InteractionLifetime: cfg.Lifetimes.Interaction,
		PARLifetime: cfg.Lifetimes.Pushed, DeviceLifetime: cfg.Lifetimes.Device, RefreshLifetime: cfg.Lifetimes.Refresh,
		RefreshGrace: cfg.Lifetimes.RefreshGrace, Failures: cfg.Limits.ClientSecret, Pushes: cfg.Limits.Pushes,
		ACRs: cfg.Login.ACRValues,
		DPoP: proofs, Certificate: cfg.certificate(), Authorities: cfg.authorities(), MTLSURL: cfg.MTLSURL, Issuers: cfg.TrustedIssuers,
		Implicit: cfg.Legacy.Implicit, Password: cfg.legacyLogin(logins),
		Audit: s.log.event, Logger: cfg.Logger,
	})
	if err != nil {
		return err
	}
	if cfg.Signals.Enabled {
		if s.signals, err = s.newSignals(people.accounts.Lookup); err != nil {
			return err
		}
		s.clients.OnDelete(s.signals.RemoveClient)
	}
	s.pages, err = pages.New(pages.Config{
		Issuer: cfg.Issuer, Name: cfg.Name, Accent: cfg.Accent, Logo: cfg.Logo, Favicon: cfg.Favicon, Links: pages.Links(cfg.Links), Logins: logins, APIs: cfg.APIs, Clients: s.clients,
		Store: cfg.Store, Engine: s.engine, AuthorizeURL: cfg.base() + cfg.Paths.Authorize, TokenURL: cfg.base() + cfg.Paths.Token,
		Token:      http.HandlerFunc(s.engine.Token),
		Developers: append([]string{}, cfg.Portal.Developers...), Services: cfg.Portal.Services,
		Account: people.accounts.Lookup, Handoff: door,
		EndGrants: s.endGrants(endings.LoggedOut), EndSession: s.endGrants(endings.EndedByUser),
		EndUser: s.logOutEverywhere, ChangePassword: s.changePassword,
		SessionLifetime: cfg.Lifetimes.Session, Renewable: cfg.Lifetimes.Refresh, Codes: limiter,
		Logger: slog.New(split{cfg.Audit.Handler(), cfg.Logger.Handler()}),
	})
	if err != nil {
		return err
	}
	flow.Front{Engine: s.engine, Pages: flow.Pages{
		Interact: s.pages.Interact, Leave: s.pages.Leave, Said: s.pages.Said, Ended: s.pages.Ended, ErrorPage: s.pages.ErrorPage,
	}}.Routes(s.mux, cfg.path(), cfg.Paths.Authorize)
	s.engine.Routes(s.mux)
	if door != nil {
		door.Routes(s.mux, cfg.path())
	}
	s.pages.Routes(s.mux)
	return s.routes()
}

// routes registers the handlers that belong to neither the engine nor the pages.
func (s *Server) routes() error {
	cfg := &s.cfg
	path := cfg.path()
	s.shared = map[string]string{
		path + cfg.Paths.Token: "POST", path + cfg.Paths.PAR: "POST", path + cfg.Paths.Revoke: "POST",
		path + cfg.Paths.Device: "POST", path + cfg.Paths.Keys: "GET",
	}
	s.mux.Handle("GET "+path+cfg.Paths.Keys, serveDocument(min(keepFor, cfg.Keys.Publish), s.keys.KeySet))

	about := s.engine.Metadata()
	about.JWKS = cfg.base() + cfg.Paths.Keys
	if s.signals != nil {
		about.LogoutSupported, about.LogoutSessionSupported = true, true
		about.GlobalRevocation = s.signals.RevocationEndpoint()
		if err := s.signalRoutes(); err != nil {
			return err
		}
	}
	if cfg.Registration.on() {
		about.Registration = cfg.base() + cfg.Paths.Register
		register, err := s.registration(about.Registration)
		if err != nil {
			return err
		}
		s.mux.Handle(path+cfg.Paths.Register, register)
		s.mux.Handle(path+cfg.Paths.Register+"/", register)
		s.shared[path+cfg.Paths.Register] = "POST"
		s.shared[path+cfg.Paths.Register+"/"] = "GET, PUT, DELETE"
	}
	about.ClientDocuments = cfg.ClientDocuments.Enabled
	metadata, err := json.Marshal(about)
	if err != nil {
		return fmt.Errorf("write the metadata: %w", err)
	}
	for _, place := range wellKnown(path) {
		s.mux.Handle("GET "+place, serveDocument(keepFor, func() []byte { return metadata }))
		s.shared[place] = "GET"
	}
	s.mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("ok\n")) })
	s.mux.HandleFunc("GET /readyz", s.ready)
	return nil
}

// acceptDocuments makes clients with a metadata document known.
func (s *Server) acceptDocuments() error {
	cfg := &s.cfg
	limiter, err := login.NewLimiter(cfg.Limits.ClientDocuments, 0)
	if err != nil {
		return fmt.Errorf("limits.client_id_metadata_documents: %w", err)
	}
	s.clients.UseDocuments(clients.NewDocuments(clients.DocumentsConfig{
		Scopes: cfg.registrable(), GrantTypes: cfg.Registration.GrantTypes, AuthMethods: cfg.authMethods(), PrivateUse: cfg.PrivateUseSchemes,
		Hosts: cfg.ClientDocuments.Hosts, Callers: limiter, HTTP: cfg.ClientDocuments.InsecureHTTP, Audit: s.log.record,
	}))
	return nil
}

// registration returns the client registration endpoint.
func (s *Server) registration(url string) (http.Handler, error) {
	cfg := &s.cfg
	limiter, err := login.NewLimiter(cfg.Limits.Register, 0)
	if err != nil {
		return nil, fmt.Errorf("limits.register: %w", err)
	}
	var tokens []clients.InitialToken
	for _, t := range cfg.Registration.InitialTokens {
		tokens = append(tokens, clients.InitialToken{Name: t.Name, Digest: digest(t.SHA256), Uses: t.Uses, Expires: t.Expires})
	}
	statements := map[string]*keyset.Set{}
	for _, t := range cfg.Registration.StatementIssuers {
		keys, _, err := keyset.Parse([]byte(t.JWKS), keyset.MaxForeignKeys)
		if err != nil {
			return nil, fmt.Errorf("registration.statement_issuers: %w", err)
		}
		statements[t.Issuer] = keyset.Static(keys...)
	}
	return clients.Registration(clients.RegistrationConfig{
		Statements: statements,
		URL:        url, AuthMethods: cfg.authMethods(), Issuer: cfg.Issuer, Registry: s.clients, InitialTokens: tokens, Open: cfg.Registration.Open,
		Scopes: cfg.registrable(), GrantTypes: cfg.Registration.GrantTypes, UnusedFor: cfg.Registration.UnusedFor,
		Allow: func(address string) error { return limiter.Allow(login.Network(address)) },
		Deleted: func(ctx context.Context, id string) error {
			_, err := s.engine.RevokeGrants(ctx, "", id)
			return err
		},
		Audit: s.log.record, Logger: cfg.Logger,
	})
}

// Issuer returns the issuer identifier, as configured.
func (s *Server) Issuer() string { return s.cfg.Issuer }

// ServeHTTP serves the endpoints and pages below the path of the issuer, and the metadata there and at the root. It serves
// /healthz and /readyz at the root only.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// Otherwise a client that sends a form byte by byte could hold a connection indefinitely. Not every w supports deadlines.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(readTimeout))
	s.setHeaders(w.Header(), r.URL.Path)
	if s.crossOrigin(w, r) {
		return
	}
	r = s.cfg.withSender(withBody(r))
	if _, pattern := s.mux.Handler(r); pattern == "" {
		s.missing(w, r)
		return
	}
	s.mux.ServeHTTP(w, r)
}

// withBody returns the request with its body already read, before anything is looked up for the request. Otherwise a sender that
// holds back the last byte of a form could act with the session, user or client as of the start of the form, after a log-out or
// a revocation. A handler receives any read error unchanged, and can read the rest of an oversized body as before.
//
// Who can fill memory: anyone who opens a connection, with maxBody bytes per connection, for at most readTimeout. What happens
// when it is full: as with connections themselves, the proxy or the operating system has to bound their number.
func withBody(r *http.Request) *http.Request {
	if r.Body == nil || r.Body == http.NoBody || r.Method == http.MethodGet || r.Method == http.MethodHead {
		return r
	}
	read, err := io.ReadAll(io.LimitReader(r.Body, maxBody))
	var rest io.Reader = http.NoBody
	switch {
	case err != nil:
		rest = failing{err}
	case len(read) == maxBody:
		rest = r.Body
	}
	with := *r
	with.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(read), rest), r.Body}
	return &with
}

// maxBody is larger than any body that a handler reads.
const maxBody = 128 << 10

// failing is a reader that always returns its error.
type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// Run rotates signing keys, picks up changes made by other replicas, removes expired records, records which users have been
// removed from the configuration, and delivers signals, until ctx ends. It returns after all of its goroutines have stopped.
func (s *Server) Run(ctx context.Context) {
	var all sync.WaitGroup
	all.Go(func() { s.keys.Run(ctx) })
	all.Go(func() { s.sweep(ctx) })
	all.Go(func() { s.retire(ctx) })
	if s.signals != nil {
		all.Go(func() { s.signals.Run(ctx) })
	}
	all.Wait()
}

const sweepEvery = time.Minute

func (s *Server) sweep(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if _, err := s.cfg.Store.Sweep(ctx); err != nil && ctx.Err() == nil {
				s.cfg.Logger.ErrorContext(ctx, "expired records not removed", "error", err)
			}
		}
	}
}

// ready reports whether the store is reachable.
func (s *Server) ready(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 2*time.Second)
	defer cancel()
	w.Header().Set("Cache-Control", "no-store")
	if err := s.cfg.Store.Ping(ctx); err != nil {
		s.cfg.Logger.WarnContext(ctx, "not ready: the store does not answer", "error", err)
		http.Error(w, "the store does not answer", http.StatusServiceUnavailable)
		return
	}
	w.Write([]byte("ready\n"))
}

const readTimeout = 30 * time.Second // for a request's body; longer than any response takes

const keepFor = 5 * time.Minute // how long documents may be cached

// serveDocument serves JSON that changes rarely and may be cached for maxAge.
func serveDocument(maxAge time.Duration, body func() []byte) http.Handler {
	control := fmt.Sprintf("public, max-age=%d", int(maxAge.Seconds()))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text := body()
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", control)
		w.Header().Set("ETag", fmt.Sprintf(`"%x"`, sha256.Sum256(text)))
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(text))
	})
}
