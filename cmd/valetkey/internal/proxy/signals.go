package proxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/adapters/valetredis"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/issuer"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/metrics"
	"github.com/valetkey/valetkey/internal/config"
	"github.com/valetkey/valetkey/introspect"
	"github.com/valetkey/valetkey/signals"
)

// A signalsSection configures the receiver of revocations from an identity provider.
type signalsSection struct {
	Transmitter    string         `yaml:"transmitter,filled"`
	Issuer         string         `yaml:"issuer,filled"`
	Delivery       string         `yaml:"delivery" oneof:"push poll none"`
	TokenURL       string         `yaml:"token_url,filled"`
	ClientID       string         `yaml:"client_id,filled"`
	ClientSecret   config.Secret  `yaml:"client_secret"`
	Auth           string         `yaml:"auth" oneof:"basic basic_raw post"`
	Scopes         []string       `yaml:"scopes,single"`
	TokenFile      string         `yaml:"token_file,filled"`
	Endpoint       string         `yaml:"endpoint,filled"`
	Listen         address        `yaml:"listen"`
	Authorization  config.Secret  `yaml:"authorization"`
	StreamID       string         `yaml:"stream_id,filled"`
	Unmanaged      bool           `yaml:"unmanaged"`
	PollURL        string         `yaml:"poll_url,filled"`
	Audience       []string       `yaml:"audience,single,filled"`
	Tenant         string         `yaml:"tenant,filled"`
	Events         []string       `yaml:"events,single,filled"`
	Widen          bool           `yaml:"widen"`
	VerifyInterval duration       `yaml:"verify_interval"`
	RequireProof   bool           `yaml:"require_proof"`
	AllowLate      bool           `yaml:"allow_before_caught_up"`
	Retention      positive       `yaml:"retention"`
	Gaps           string         `yaml:"gaps" oneof:"report revoke"`
	StateFile      string         `yaml:"state_file,filled"`
	JWKSURL        string         `yaml:"jwks_url,filled"`
	TrustedOrigins []string       `yaml:"trusted_origins,single,filled"`
	CAFile         string         `yaml:"ca_file,filled"`
	Allow          []string       `yaml:"allow,single,filled" oneof:"all_sessions audience_of_stream risc_metadata subject_type untyped"`
	InsecureHTTP   bool           `yaml:"insecure_http"`
	Logout         *logoutSection `yaml:"backchannel_logout"`
	Global         *globalSection `yaml:"global_revocation"`
}

// A logoutSection is about logout tokens (OpenID Connect Back-Channel Logout 1.0).
type logoutSection struct {
	Path         string   `yaml:"path,required"`
	Audience     []string `yaml:"audience,single,required"`
	JWKSURL      string   `yaml:"jwks_url,filled"`
	AllowUntyped bool     `yaml:"allow_untyped"`
}

// A globalSection is about requests of the Global Token Revocation draft.
type globalSection struct {
	Path     string   `yaml:"path,required"`
	Audience []string `yaml:"audience,single,required"`
	Issuer   string   `yaml:"issuer,filled"`
	Subject  string   `yaml:"subject,filled"`
	JWKSURL  string   `yaml:"jwks_url,filled"`
}

// signalNames maps the fields of signals.Config to their names in the section.
var signalNames = map[string]string{
	"Transmitter": "transmitter", "JWKSURL": "jwks_url", "Issuer": "issuer", "Delivery": "delivery", "Stream.ID": "stream_id",
	"Stream.Unmanaged": "unmanaged", "Stream.PollURL": "poll_url", "Endpoint": "endpoint", "AuthorizationHeader": "authorization",
	"Audience": "audience", "Credentials": "token_url", "TrustedOrigins": "trusted_origins", "Events": "events", "Tenant": "tenant",
	"VerifyInterval": "verify_interval", "RequireProof": "require_proof", "Retention": "retention",
	"Logout": "backchannel_logout", "Logout.Audience": "backchannel_logout.audience",
	"GlobalRevocation": "global_revocation", "GlobalRevocation.Audience": "global_revocation.audience",
	"GlobalRevocation.Issuer": "global_revocation.issuer",
}

// signalSkew is more than the tolerated difference between the clocks of the transmitter and of this process.
const signalSkew = 5 * time.Minute

// A redisState keeps the state of a stream that replicas share.
type redisState struct {
	redis *valetredis.Redis
	key   string
}

// stateLifetime is longer than any transmitter keeps events.
const stateLifetime = 7 * 24 * time.Hour

// Load implements [signals.StateStore].
func (r redisState) Load(ctx context.Context) ([]byte, error) { return r.redis.Get(ctx, r.key) }

// Save implements [signals.StateStore].
func (r redisState) Save(ctx context.Context, state []byte) error {
	return r.redis.Set(ctx, r.key, state, stateLifetime)
}

// eventNames returns the events that may be on, by the last part of their URIs.
func eventNames() map[string]signals.Event {
	all := map[string]signals.Event{}
	for _, e := range signals.Events() {
		if e != signals.Logout { // backchannel_logout enables it
			all[string(e[strings.LastIndexByte(string(e), '/')+1:])] = e
		}
	}
	return all
}

// A received is the receiver of the process, which its configurations share. A reload cannot change it: its stream, and what it has
// received, survive.
type received struct {
	*signals.Receiver
	cfg      signals.Config
	delivery signals.Delivery
	routes   map[string]http.Handler // by path
	listen   string                  // address of a listener for routes alone; "": they are on the listener of the proxy
}

// receiveSignals creates the receiver, or takes over that of the previous configuration.
func (p *Proxy) receiveSignals(f *file, verifiers []made) {
	switch {
	case f.Signals == nil:
	case f.previous == nil:
		if made := f.signals(p, verifiers); made != nil {
			p.signals = &part[*received]{value: made, close: made.Close}
		}
	case !f.Wrong("signals"): // it is the same, as checkFixed has found
		p.signals = f.previous.signals
	}
	if p.signals != nil {
		p.signals.users.Add(1)
	}
}

func (p *Proxy) endSignals() {
	if p.signals != nil {
		p.signals.release()
		p.signals = nil
	}
}

// signals creates the receiver without any network I/O. It returns nil if there are mistakes.
func (f *file) signals(p *Proxy, verifiers []made) *received {
	const section = "signals"
	s := f.Signals
	mistake := func(field, format string, args ...any) { f.Mistake(section+"."+field, format, args...) }
	cfg := signals.Config{
		Transmitter: s.Transmitter, JWKSURL: s.JWKSURL, Issuer: s.Issuer, Tenant: s.Tenant,
		Delivery: signals.Delivery(s.Delivery), Endpoint: s.Endpoint, Audience: s.Audience,
		Stream:         signals.Stream{ID: s.StreamID, Unmanaged: s.Unmanaged, PollURL: s.PollURL, Description: "valetkey proxy"},
		TrustedOrigins: s.TrustedOrigins, Widen: s.Widen, MaxTokenLifetime: time.Duration(f.Revocations.Keep),
		VerifyInterval: time.Duration(s.VerifyInterval), RequireProof: s.RequireProof, Retention: time.Duration(s.Retention),
		InsecureHTTP: s.InsecureHTTP, Logger: f.log, Now: f.now,
		Legacy: signals.Legacy{
			AllowSubjectType: slices.Contains(s.Allow, "subject_type"), AllowUntyped: slices.Contains(s.Allow, "untyped"),
			AllowAudienceOfStream: slices.Contains(s.Allow, "audience_of_stream"), AllowAllSessions: slices.Contains(s.Allow, "all_sessions"),
			AllowRISCMetadata: slices.Contains(s.Allow, "risc_metadata"),
		},
	}
	if s.Gaps == "revoke" {
		cfg.Gaps = signals.RevokeBeforeGaps
	}
	if s.StateFile != "" {
		cfg.State = signals.FileState(f.Path(s.StateFile))
	}
	known := eventNames()
	for i, name := range s.Events {
		e, ok := known[name]
		if !ok {
			mistake(fmt.Sprintf("events[%d]", i), "%.100q is not one of %s", name, strings.Join(slices.Sorted(maps.Keys(known)), ", "))
			continue
		}
		cfg.Events = append(cfg.Events, e)
	}
	if s.Delivery == "" {
		mistake("delivery", "required: push, poll, or none") // unless another value was a mistake
		return nil
	}
	if s.Delivery == string(signals.NoStream) && s.Logout == nil && s.Global == nil {
		mistake("delivery", "none requires backchannel_logout or global_revocation: otherwise nothing is received")
		return nil
	}
	cfg.Credentials = f.signalCredentials()
	if s.Unmanaged && len(s.Audience) == 0 {
		mistake("audience", "required with unmanaged")
		cfg.Audience = []string{"invalid"} // to find further mistakes
	}
	if s.Unmanaged && cfg.Delivery == signals.Poll && s.PollURL == "" {
		mistake("poll_url", "required with unmanaged, to poll")
		cfg.Stream.PollURL = "https://endpoint.invalid"
	}
	cfg.AuthorizationHeader = f.Secret(s.Authorization)
	cfg.IssuerAliases = f.signalIssuer(cmp.Or(s.Issuer, s.Transmitter), verifiers)
	if s.CAFile != "" {
		transport := http.DefaultTransport.(*http.Transport).Clone()
		transport.TLSClientConfig = f.clientTLS(section+".", s.CAFile, "", "")
		cfg.Client = &http.Client{Transport: transport}
	}
	made := &received{delivery: cfg.Delivery, listen: string(s.Listen), routes: map[string]http.Handler{}}
	handlers := f.signalRoutes(&cfg, made)
	if f.Redis != nil { // otherwise the guard watches the receiver alone
		if s.AllowLate {
			mistake("allow_before_caught_up", "has no effect with redis, which has its own")
		}
		if s.StateFile != "" {
			mistake("state_file", "has no effect with redis, which keeps the state for all replicas")
		}
		if p.shared != nil {
			cfg.Publish, cfg.State = p.shared.Redis, redisState{p.shared.Redis, "signals state of " + s.Transmitter + " for " + s.StreamID}
		}
	}
	receiver, err := signals.New(cfg)
	if err != nil {
		f.Blame(section, err, signalNames)
		return nil
	}
	made.Receiver, made.cfg = receiver, cfg
	made.cfg.Publish, made.cfg.State = nil, nil // it is for an examination, which neither revokes nor stores anything
	for path, handler := range handlers {
		made.routes[path] = handler(receiver)
	}
	return made
}

// signalCredentials returns the credentials for the API of the transmitter, or none if the section has none or has mistakes in them.
func (f *file) signalCredentials() (none signals.Credentials) {
	const section = "signals."
	s := f.Signals
	password := f.Secret(s.ClientSecret)
	placeholder := signals.TokenFile("none") // to find further mistakes
	if s.TokenFile != "" {
		for _, other := range []string{"token_url", "client_id", "client_secret", "client_secret_file", "client_secret_env", "auth", "scopes"} {
			if f.Given(section + other) {
				f.Mistake(section+other, "cannot be combined with token_file")
			}
		}
		return signals.TokenFile(f.Path(s.TokenFile))
	}
	if !slices.ContainsFunc([]string{"token_url", "client_id", "client_secret", "client_secret_file", "client_secret_env", "auth", "scopes"},
		func(name string) bool { return f.Given(section + name) }) {
		if s.Delivery == string(signals.NoStream) || s.Unmanaged && s.Delivery == string(signals.Push) {
			return none
		}
		f.Mistake(section+"client_id", "required for the stream, with client_secret_file, or token_file")
		return placeholder
	}
	if s.ClientID == "" {
		f.Mistake(section+"client_id", "required for an access token")
	}
	if !f.SecretGiven(s.ClientSecret) {
		f.Mistake(section+"client_secret_file", "required for an access token, or client_secret_env or client_secret")
	}
	if s.ClientID == "" || password == "" {
		return placeholder
	}
	return signals.ClientCredentialsGrant(signals.ClientCredentials{
		TokenURL: s.TokenURL, Auth: clientAuth(s.Auth)(s.ClientID, password), Scope: s.Scopes,
	})
}

// clientAuth returns the authentication of the name in a file.
func clientAuth(name string) func(id, secret string) introspect.Auth {
	switch name {
	case "basic_raw":
		return introspect.RawBasicAuth
	case "post":
		return introspect.PostAuth
	}
	return introspect.BasicAuth
}

// signalIssuer checks that a verifier accepts the tokens of an issuer, and returns the aliases of the issuer. Otherwise every event would
// be received, acknowledged and without effect.
func (f *file) signalIssuer(iss string, verifiers []made) (aliases []string) {
	if iss == "" { // signals.New reports it
		return nil
	}
	field := "signals.issuer"
	if f.Signals.Issuer == "" {
		field = "signals.transmitter"
	}
	for _, v := range verifiers {
		switch {
		case v.keys == nil:
			if issuers, any := askedIssuers(v.asks); any || slices.Contains(issuers, iss) {
				return nil
			}
		case issuer.HasIssuer(v.keys, iss):
			return v.keys.IssuerAliases
		case slices.Contains(v.keys.IssuerAliases, iss):
			f.Mistake(field, "%.200q is an alias: set signals.issuer to %q, which its tokens count as", iss, v.keys.Issuer)
			return nil
		}
	}
	f.Mistake(field, "no verifier accepts tokens of the issuer %.200q; signals.issuer sets another one", iss)
	return nil
}

// signalRoutes returns what makes the handlers of the receiver, by path, and completes cfg.
func (f *file) signalRoutes(cfg *signals.Config, r *received) map[string]func(*signals.Receiver) http.Handler {
	const section = "signals."
	s := f.Signals
	all := map[string]func(*signals.Receiver) http.Handler{}
	add := func(field, path string, handler func(*signals.Receiver) http.Handler) {
		switch {
		case !strings.HasPrefix(path, "/") || path == "/" || strings.ContainsAny(path, "?#{} "):
			f.Mistake(field, "%.200q has no path such as /signals", path)
		case all[path] != nil:
			f.Mistake(field, "another handler of this section has the path %.200q", path)
		default:
			for pattern := range f.Routes {
				if r.listen == "" && pathOf(pattern) == path {
					f.Mistake(field, "the route %.200q has the path %.200q", pattern, path)
				}
			}
			all[path] = handler
		}
	}
	if cfg.Delivery == signals.Push {
		if u, err := url.Parse(s.Endpoint); s.Endpoint == "" {
			f.Mistake(section+"endpoint", "required with delivery: push: the public URL of this proxy to which the transmitter pushes")
			cfg.Endpoint = "https://endpoint.invalid" // to find further mistakes
		} else if err == nil { // otherwise signals.New reports it
			add(section+"endpoint", u.Path, (*signals.Receiver).Handler)
		}
	}
	if l := s.Logout; l != nil {
		cfg.Logout = signals.LogoutConfig{Audience: l.Audience, JWKSURL: l.JWKSURL, AllowUntyped: l.AllowUntyped}
		if l.Path != "" {
			add(section+"backchannel_logout.path", l.Path, (*signals.Receiver).Logout)
		}
	}
	if g := s.Global; g != nil {
		cfg.GlobalRevocation = signals.GlobalRevocationConfig{Audience: g.Audience, Issuer: g.Issuer, Subject: g.Subject, JWKSURL: g.JWKSURL}
		if g.Path != "" {
			add(section+"global_revocation.path", g.Path, (*signals.Receiver).GlobalRevocation)
		}
	}
	switch {
	case len(all) == 0 && r.listen != "":
		f.Mistake(section+"listen", "has no effect without delivery: push, backchannel_logout or global_revocation")
	case len(all) > 0 && r.listen == "" && f.authorize:
		f.Mistake(section+"listen", "required with valetkey authorize, whose other addresses are for questions of gateways")
	}
	return all
}

// pathOf returns the path of a pattern of net/http without a host.
func pathOf(pattern string) string {
	_, path, found := strings.Cut(pattern, " ")
	if !found {
		path = pattern
	}
	return strings.TrimSpace(path)
}

// handler serves the routes alone.
func (r *received) handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		h := r.routes[req.URL.Path]
		if h == nil {
			h = http.NotFoundHandler()
		}
		h.ServeHTTP(w, req)
		endBody(w, req)
	})
}

// ownSignals adds the routes of the receiver to the responses of the proxy itself.
func (p *Proxy) ownSignals() {
	if p.signals == nil || p.signals.value.listen != "" {
		return
	}
	if p.own == nil {
		p.own = map[string]http.Handler{}
	}
	maps.Copy(p.own, p.signals.value.routes)
}

// watches returns what the guard watches, and whether requests are accepted before it has caught up. Both results are zero if there is
// neither Redis nor a receiver.
func (p *Proxy) watches(f *file) (source valetkey.RevocationSource, allow bool) {
	switch {
	case p.signals == nil && f.shared == nil:
		return nil, false
	case p.signals == nil:
		return f.shared.Redis, f.shared.allow
	case f.shared == nil:
		return p.signals.value, f.Signals.AllowLate
	}
	return both{shared: f.shared.Redis, received: p.signals.value, waits: f.Signals.RequireProof}, f.shared.allow
}

// both is the source of revocations that come from Redis and from a receiver, which publishes to Redis. A revocation that cannot be
// published is in force in this process nevertheless.
//
// Redis holds what any replica has received, so a replica that starts has caught up with what is known when it has caught up with Redis.
// If the transmitter cannot be reached then, the source reports that afterwards, which makes the guard Degraded, like the other replicas.
type both struct {
	shared, received valetkey.RevocationSource
	waits            bool // for the receiver too
}

var errNotReported = errors.New("the source has not reported yet")

// Watch implements [valetkey.RevocationSource].
func (b both) Watch(ctx context.Context, apply func(...valetkey.Revocation) error, report func(error)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var mu sync.Mutex // guards what follows, and the order of reports
	state, caughtUp := [2]error{errNotReported, errNotReported}, false
	var watching sync.WaitGroup
	for i, source := range []valetkey.RevocationSource{b.shared, b.received} {
		watching.Go(func() {
			err := source.Watch(ctx, apply, func(err error) {
				mu.Lock()
				defer mu.Unlock()
				state[i] = err
				known, received := state[0], state[1]
				switch {
				case !delivered(known): // alone: errors.Join would hide it behind an ErrRevocationsMissing of the receiver
					report(known)
				case b.waits && !delivered(received):
					report(received)
				default:
					if !caughtUp {
						report(known)
						caughtUp = true
					}
					if received != errNotReported {
						report(errors.Join(known, received))
					}
				}
			})
			cancel(err)
		})
	}
	watching.Wait()
	return context.Cause(ctx)
}

// delivered reports whether a source that reports err has delivered all revocations that it has.
func delivered(err error) bool { return err == nil || errors.Is(err, valetkey.ErrRevocationsMissing) }

// A stream is the JSON form of signals.Status.
type stream struct {
	Transmitter string           `json:"transmitter,omitempty"`
	Delivery    signals.Delivery `json:"delivery"`
	condition
	StreamID    string            `json:"stream_id,omitempty"`
	Status      string            `json:"status,omitempty"` // that the transmitter reports
	Delivered   []signals.Event   `json:"events_delivered,omitempty"`
	Missing     []signals.Event   `json:"events_missing,omitempty"`
	LastContact time.Time         `json:"last_contact,omitzero"`
	LastProof   time.Time         `json:"last_proof,omitzero"`
	Gap         *gap              `json:"gap,omitempty"`
	Outcomes    map[string]uint64 `json:"outcomes"`
	Keys        []condition       `json:"keys"`
}

// A gap is the JSON form of signals.Gap.
type gap struct {
	From   time.Time `json:"from,omitzero"`
	To     time.Time `json:"to"`
	Reason string    `json:"reason"`
}

func (r *received) status() *stream {
	st, health := r.Status(), r.Health()
	s := &stream{
		Delivery: r.delivery, StreamID: st.StreamID, Status: st.Stream, Delivered: st.Delivered, Missing: st.Missing,
		LastContact: st.LastContact, LastProof: st.LastProof, Outcomes: st.Outcomes,
	}
	if r.delivery == signals.NoStream {
		s.State = valetkey.Ready
	} else {
		s.condition, health = reportOf(health[0]), health[1:]
	}
	s.Keys = reports(health)
	if !st.Gap.To.IsZero() {
		s.Gap = &gap{st.Gap.From, st.Gap.To, st.Gap.Reason}
	}
	return s
}

// expose writes the metrics of the receiver.
func (r *received) expose(m *metrics.Writer) {
	st := r.Status()
	if r.delivery != signals.NoStream {
		h := r.Health()[0]
		m.Describe("valetkey_signals_state", "gauge", "1 for the current state of the stream of signals.")
		state(m, "valetkey_signals_state", h, "transmitter", h.Name)
		for _, g := range []struct {
			name, help string
			at         time.Time
		}{
			{"valetkey_signals_last_contact_timestamp_seconds", "Last valid event or answer to a poll; 0: none.", st.LastContact},
			{"valetkey_signals_last_proof_timestamp_seconds", "Last verification event, which proves that the stream delivers; 0: none.", st.LastProof},
			{"valetkey_signals_gap_end_timestamp_seconds", "End of the last time in which events may have been lost; 0: none.", st.Gap.To},
		} {
			seconds := 0.0
			if !g.at.IsZero() {
				seconds = float64(g.at.UnixMilli()) / 1000
			}
			m.Gauge(g.name, g.help, seconds)
		}
		m.Gauge("valetkey_signals_events_missing", "Types of events that are on and that the transmitter does not deliver.", float64(len(st.Missing)))
	}
	m.Describe("valetkey_signals_total", "counter", "Events and other messages received, by outcome.")
	for _, outcome := range slices.Sorted(maps.Keys(st.Outcomes)) {
		m.Sample("valetkey_signals_total", float64(st.Outcomes[outcome]), "outcome", outcome)
	}
}
