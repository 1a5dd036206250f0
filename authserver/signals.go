package authserver

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/valetkey/valetkey/authserver/internal/endings"
	"github.com/valetkey/valetkey/authserver/internal/transmitter"
	"github.com/valetkey/valetkey/authserver/login"
	"github.com/valetkey/valetkey/authserver/store"
)

// Signals configures the announcement of ends of access: a user logs out, is removed or disabled or gets another password, a consent
// or a token is revoked, a refresh token is used again. They are announced
//
//   - over streams of security event tokens, by push or by poll, to receivers (OpenID Shared Signals Framework 1.0, CAEP 1.0, RISC 1.0).
//     A receiver is a client with the scope ssf.manage, with which it makes its streams, or ssf.read. Its metadata is at
//     /.well-known/ssf-configuration.
//   - to clients that have a backchannel_logout_uri (OpenID Connect Back-Channel Logout 1.0).
//
// Others announce ends to this server by global token revocation, with a token of the scope global_token_revocation.
//
// A log-out then also ends the grants that began in the browser session, with their refresh tokens. [Server.Run] delivers the signals.
// Each is delivered at least once, within a second if its receiver answers, and for up to 25 hours if it does not.
type Signals struct {
	Enabled bool `yaml:"enabled,short"`

	// AllowReceivers are the networks in which the endpoints of receivers and the backchannel_logout_uri of approved clients may be, such as
	// 10.0.0.0/8. Empty: public addresses only, because a client that may register an endpoint could otherwise reach internal services.
	AllowReceivers []netip.Prefix `yaml:"allow_receivers"`

	// InsecureLoopbackReceivers also allows endpoints on loopback, and http there, for tests and demonstrations.
	InsecureLoopbackReceivers bool `yaml:"insecure_loopback_receivers"`
}

// signalsAPI is the API of the transmitter, for which clients get tokens like for any other.
func (cfg *Config) signalsAPI() API {
	return API{
		Audience: transmitter.Resource(cfg.base()), Name: "Shared signals", Algorithm: transmitter.Algorithm,
		Scopes: []Scope{
			{Name: transmitter.ScopeRead, Description: "Read streams of signals"},
			{Name: transmitter.ScopeManage, Description: "Manage streams of signals"},
			{Name: transmitter.ScopeRevoke, Description: "End everything that a user has"},
		},
	}
}

// allAPIs returns the APIs that tokens are issued for. Those of the configuration alone are offered to users and developers.
func (cfg *Config) allAPIs() []API {
	if !cfg.Signals.Enabled {
		return cfg.APIs
	}
	return append(slices.Clone(cfg.APIs), cfg.signalsAPI().WithDefaults())
}

func (in *inspection) signals() {
	s := in.cfg.Signals
	for i, p := range s.AllowReceivers {
		in.wrong(p.Bits() <= 0, fmt.Sprintf("Signals.AllowReceivers[%d]", i), "must be an address range, and not the range of all addresses")
	}
	in.wrong(!s.Enabled && (len(s.AllowReceivers) > 0 || s.InsecureLoopbackReceivers), "Signals.Enabled", "is required by the other settings of signals")
}

func (s *Server) newSignals(account func(context.Context, string) (*login.Account, error)) (*transmitter.Transmitter, error) {
	cfg := &s.cfg
	types := map[string]string{}
	for _, t := range cfg.TrustedIssuers {
		types[t.Issuer] = t.SubjectType
	}
	return transmitter.New(transmitter.Config{
		Issuer: cfg.Issuer, Base: cfg.base(), JWKS: cfg.base() + cfg.Paths.Keys, Store: cfg.Store, Keys: s.keys, Clients: s.clients, Engine: s.engine,
		Account: account, SubjectTypes: types, Allow: cfg.Signals.AllowReceivers, InsecureLoopback: cfg.Signals.InsecureLoopbackReceivers,
		RevokeUser: func(ctx context.Context, subject string) (int, error) {
			if !isSubject(subject) {
				return 0, missing("user")
			}
			if err := s.noClient(ctx, subject); err != nil {
				return 0, err
			}
			sessions, grants, err := s.endUser(ctx, endings.Revoked, subject, nil, nil)
			return sessions + grants, err
		},
		Audit: s.log.record, Logger: cfg.Logger,
	})
}

// endGrants returns the function that ends the grants of a browser session when its user ends it, or nil if they outlive it.
func (s *Server) endGrants(cause endings.Cause) func(context.Context, string) error {
	if s.endings == nil {
		return nil
	}
	return func(ctx context.Context, session string) error {
		_, err := s.engine.EndSession(ctx, session, cause)
		return err
	}
}

// signalRoutes registers the API of the transmitter, and its metadata where receivers look for it: inserted between host and path (SSF
// 1.0, section 7.2.1) or, as some do, appended.
func (s *Server) signalRoutes() error {
	path := s.cfg.path()
	s.signals.Routes(s.mux, path)
	metadata, err := json.Marshal(s.signals.Metadata())
	if err != nil {
		return fmt.Errorf("write the metadata of the transmitter: %w", err)
	}
	const wellKnown = "/.well-known/ssf-configuration"
	for _, place := range slices.Compact([]string{wellKnown + path, path + wellKnown}) {
		s.mux.Handle("GET "+place, serveDocument(keepFor, func() []byte { return metadata }))
		s.shared[place] = "GET"
	}
	return nil
}

// A SignalStream describes a stream of security event tokens.
type SignalStream struct {
	ID       string
	Client   string // that receives it
	Method   string // urn:ietf:rfc:8935 (push) or urn:ietf:rfc:8936 (poll)
	Endpoint string // of a receiver by push
	Events   []string
	Status   string // enabled, paused, disabled
	Reason   string // of the status
	Created  time.Time
	Waiting  int // tokens in the queue
	Dead     int // tokens that were given up in the last 7 days; at most 1,000 are kept
}

// SignalStreams returns all streams. It is empty if Config.Signals is off.
func (s *Server) SignalStreams(ctx context.Context) ([]SignalStream, error) {
	if s.signals == nil {
		return nil, nil
	}
	list, err := s.signals.Streams(ctx)
	if err != nil {
		return nil, fmt.Errorf("authserver: %w", err)
	}
	all := make([]SignalStream, len(list))
	for i, one := range list {
		all[i] = SignalStream(one)
	}
	return all, nil
}

// SetSignalStream changes the status of a stream to enabled, paused or disabled. The receiver gets a stream-updated event before. A
// paused stream keeps its events, and a disabled one drops them. The error wraps [store.ErrNotFound] if there is no such stream.
func (s *Server) SetSignalStream(ctx context.Context, id, status, reason string) error {
	if s.signals == nil {
		return failed("change", "stream of signals", id, store.ErrNotFound)
	}
	if err := s.signals.SetStatus(ctx, id, status, reason); err != nil {
		return failed("change", "stream of signals", id, err)
	}
	return nil
}

// A DeadSignal is a token that was given up, because its receiver refused it, did not fetch it in time, or had too many.
type DeadSignal struct {
	ID     string // jti
	Claims string // JSON
	Reason string
	At     time.Time // when it was given up
}

// DeadSignals returns the tokens of a stream that were given up in the last 7 days, at most the last 1,000. With client: and an ID, it
// returns the logout tokens of that client. It is empty if Config.Signals is off.
func (s *Server) DeadSignals(ctx context.Context, stream string) ([]DeadSignal, error) {
	if s.signals == nil {
		return nil, nil
	}
	list, err := s.signals.DeadLetters(ctx, stream)
	if err != nil {
		return nil, fmt.Errorf("authserver: %w", err)
	}
	slices.SortFunc(list, func(a, b transmitter.DeadLetter) int { return a.At.Compare(b.At) })
	all := make([]DeadSignal, len(list))
	for i, d := range list {
		all[i] = DeadSignal{d.ID, string(d.Claims), d.Reason, d.At}
	}
	return all, nil
}
