// Package signals receives revocations from identity providers through standards, so that a locally verified token is refused as soon
// as its session ends, and not only when it expires:
//
//   - security event tokens (SETs, RFC 8417) of the Shared Signals Framework (SSF 1.0) with the events of CAEP 1.0 and RISC 1.0, pushed
//     ([Receiver.Handler], RFC 8935) or polled ([Receiver.Run], RFC 8936);
//   - logout tokens of OpenID Connect Back-Channel Logout 1.0 ([Receiver.Logout]);
//   - requests of the Global Token Revocation draft ([Receiver.GlobalRevocation]).
//
// A [Receiver] belongs to one transmitter and to one issuer of access tokens. It is a [valetkey.RevocationSource], so a guard watches it
// like Redis; or it calls guards directly, or publishes to Redis for all replicas:
//
//	received, err := signals.New(signals.Config{
//		Transmitter: "https://idp.example.com",
//		Delivery:    signals.Poll,
//		Credentials: signals.BearerToken(token),
//		Publish:     shared, // a valetredis.Redis; omit it in a single process
//	})
//	...
//	go received.Run(ctx)
//	guard, err := middleware.New(middleware.Config{..., Revocations: middleware.Revocations{Source: received}})
//	go guard.Watch(ctx)
//
// # What a transmitter can do
//
// A transmitter can revoke tokens of the configured issuer, and nothing else. No event lifts a revocation. A subject of another issuer
// is not matched by its sub, because the same sub there is another person.
//
// # What is kept
//
// A SET that was acknowledged never comes again. With Config.Publish it is acknowledged once it is published; without it, the
// revocations are in the memory of this process only, and a restart loses them. See [GapPolicy] for what happens to events that were
// sent while the receiver was down.
package signals

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
	"sync"
	"sync/atomic"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/fetch"
	"github.com/valetkey/valetkey/internal/jose"
	"github.com/valetkey/valetkey/internal/keyset"
	"github.com/valetkey/valetkey/internal/mistakes"
	"github.com/valetkey/valetkey/internal/ratelog"
)

// A Delivery is the way in which SETs arrive. The zero value is invalid.
type Delivery string

// The deliveries.
const (
	Push Delivery = "push" // the transmitter calls Receiver.Handler: RFC 8935
	Poll Delivery = "poll" // Receiver.Run asks the transmitter: RFC 8936

	// NoStream is for a receiver of logout tokens or global revocations alone: there is no stream of SETs.
	NoStream Delivery = "none"
)

// A Guard applies revocations: a middleware.Guard.
type Guard interface {
	Revoke(rs ...valetkey.Revocation) error
}

// A Publisher passes a revocation on to other processes: a valetredis.Redis. Publish returns nil only if the revocation is stored. It
// must be safe for concurrent use.
type Publisher interface {
	Publish(ctx context.Context, r valetkey.Revocation) error
}

// A Resolver returns the users, by the sub in their access tokens, that a subject means. It is asked for subjects that do not name the
// sub of a user of Config.Issuer: for example, those with an email address. An empty result means that there is no such user here.
// After an error, the SET is not acknowledged and comes again. It must be safe for concurrent use.
type Resolver func(ctx context.Context, s Subject) (subs []string, err error)

// A GapPolicy states what happens if events may have been lost: the receiver was down for longer than the transmitter keeps events, or
// the stream was paused, disabled or created anew.
type GapPolicy string

// The policies.
const (
	// ReportGaps logs the gap, and Watch reports that revocations are missing, so that guards are Degraded, until no token from before the
	// end of the gap can be accepted. It is the zero value.
	ReportGaps GapPolicy = ""

	// RevokeBeforeGaps revokes all tokens of the issuer that were issued before the end of the gap: clients must get new ones. Without
	// Config.State, each start of the process counts as the end of a gap.
	RevokeBeforeGaps GapPolicy = "revoke"
)

// Legacy accepts input of transmitters that do not follow the final specifications. The zero value accepts none of it.
type Legacy struct {
	// AllowSubjectType reads subjects in the form of RISC before 1.0 and of drafts: subject_type in place of format, in the payload of the
	// event in place of sub_id, and complex subjects without format. Google requires it.
	AllowSubjectType bool

	// AllowUntyped accepts SETs with the typ JWT, or without typ. Another JWT of the transmitter could then pass for a SET if it has the
	// claim events.
	AllowUntyped bool

	// AllowAudienceOfStream accepts the aud "<one of Audience>/<ID of the stream>", which Keycloak sends.
	AllowAudienceOfStream bool

	// AllowAllSessions reads the session "ALL" of a user as all sessions of the user, which Keycloak sends.
	AllowAllSessions bool

	// AllowRISCMetadata also looks for the metadata under the name risc-configuration (SSF 1.0, section 7.2.2). Google has it there.
	AllowRISCMetadata bool
}

// Stream selects the stream of a transmitter. The zero value finds the stream of this receiver, or creates one.
type Stream struct {
	// ID is the ID of an existing stream. Empty: the only stream of this receiver with the configured delivery is used; if there is
	// none, one is created.
	ID string

	// Unmanaged uses no API of the transmitter: an operator has created the stream. Audience is required, and PollURL with Poll. The
	// stream cannot be verified, so a stream that is dead looks like one without events.
	Unmanaged bool

	// PollURL is the URL to poll of an unmanaged stream.
	PollURL string

	// Description is that of a stream that is created. Empty: none.
	Description string
}

// Config configures a [Receiver].
type Config struct {
	_ struct{} // keyed literals only

	// Transmitter is the issuer of the SETs, exactly as in their iss. It is the URL whose metadata contains the endpoints and the keys
	// (SSF 1.0, section 7). Required, unless Delivery is NoStream.
	Transmitter string

	// JWKSURL is the URL of the keys of the transmitter. Empty: the metadata contains it.
	JWKSURL string

	// Issuer is the issuer of the tokens to revoke: [valetkey.Token.Issuer]. Empty: Transmitter.
	Issuer string

	// IssuerAliases lists further values of iss in subjects that mean Issuer. A subject of any other issuer revokes nothing.
	IssuerAliases []string

	// Tenant is the ID of the tenant that Issuer belongs to. An event about this tenant as a whole revokes all tokens of Issuer. Empty:
	// such events revoke nothing.
	Tenant string

	// Delivery is Push, Poll or NoStream. Required.
	Delivery Delivery

	// Stream selects the stream.
	Stream Stream

	// Endpoint is the public URL of [Receiver.Handler], to which the transmitter pushes. Required to create a stream with Push.
	Endpoint string

	// AuthorizationHeader is the value of the Authorization header that the transmitter sends with each push (SSF 1.0, section 6.1.1),
	// such as "Bearer " and a random text. A stream is created with it. Replicas behind one Endpoint must have the same value. Empty: none.
	AuthorizationHeader string

	// Audience lists accepted values of aud. It adds to the aud that the transmitter states for the stream. Required if
	// Stream.Unmanaged is set.
	Audience []string

	// Algorithms lists the accepted signature algorithms. Nil: RS256, PS256, ES256, ES384, EdDSA, Ed25519.
	Algorithms []string

	// Credentials authenticate this receiver to the API of the stream and to the poll endpoint. They are sent only to the origins of
	// Transmitter and TrustedOrigins. Required with Poll and for a managed stream.
	Credentials Credentials

	// TrustedOrigins lists further origins of endpoints in the metadata and in the stream, such as "https://poll.example.com". An
	// endpoint on any other origin is an error.
	TrustedOrigins []string

	// Events lists the events that revoke. Nil: [DefaultEvents].
	Events []Event

	// Resolve maps subjects to users. Nil: only subjects with the sub of a user of Issuer, sessions and token IDs are matched.
	Resolve Resolver

	// Widen revokes all tokens of a user where the event means only some of them: those of a session, for tokens without sid, or those
	// of a device. Without it, the event revokes the session alone, or revokes nothing and is reported.
	Widen bool

	// Guards apply the revocations directly. Publish passes them on. A guard may also watch the receiver instead. At least one of the
	// three is required for the revocations to have an effect.
	Guards  []Guard
	Publish Publisher

	// Logout and GlobalRevocation configure the handlers of the same names.
	Logout           LogoutConfig
	GlobalRevocation GlobalRevocationConfig

	// MaxTokenLifetime is the longest lifetime of an access token: a revocation is held for this long after the event. It must not be
	// longer than the Keep of Publish. Zero: 24 h.
	MaxTokenLifetime time.Duration

	// Leeway is the tolerated difference between the clocks. An event that is further in the future counts as one of this far ahead.
	// Zero: 30 s; at most 5 min.
	Leeway time.Duration

	// VerifyInterval is the interval at which the stream is verified (SSF 1.0, section 8.1.4). The transmitter can require a longer one.
	// Zero: 5 min; negative: never.
	VerifyInterval time.Duration

	// RequireProof reports that revocations may be missing until a verification event has arrived, and whenever three in a row have not.
	// A guard that starts then answers 503 until the stream is proven. Without it, an unproven stream is reported by Health only.
	RequireProof bool

	// PollInterval is the time between polls of a transmitter that answers at once although it has no events. Zero: 500 ms.
	PollInterval time.Duration

	// MaxEvents is the largest number of SETs in one answer to a poll. Zero: 200; at most 1,000.
	MaxEvents int

	// Retention is how long the transmitter keeps events that it cannot deliver. A longer interruption is a gap, see Gaps. If the stream
	// has a shorter inactivity_timeout, that applies. Zero: 1 h.
	Retention time.Duration

	// Gaps states what to do about events that may have been lost.
	Gaps GapPolicy

	// State keeps the ID of the stream and the time of the last contact across restarts, so that gaps are detected. Nil: not kept.
	State StateStore

	// Legacy accepts input of transmitters that do not follow the final specifications.
	Legacy Legacy

	// Client sends the requests. Redirects are never followed. Nil: a separate client.
	Client *http.Client

	// InsecureHTTP allows http URLs on hosts other than loopback. Anyone on the network path can then suppress or forge events.
	InsecureHTTP bool

	// Logger receives changes of state, and refused and ineffective events, at most one line per minute of each kind. Nil:
	// slog.Default().
	Logger *slog.Logger

	// Now is the clock for the times of events. Nil: time.Now.
	Now func() time.Time
}

const (
	defaultLifetime       = 24 * time.Hour
	defaultLeeway         = 30 * time.Second
	defaultVerifyInterval = 5 * time.Minute
	defaultPollInterval   = 500 * time.Millisecond
	defaultMaxEvents      = 200
	mostEvents            = 1000
	defaultRetention      = time.Hour
)

var errClosed = errors.New("signals: closed")

// A Receiver receives revocations. Create one with [New]. It is safe for concurrent use and must be closed.
type Receiver struct {
	cfg      Config // with defaults
	fetch    fetch.Client
	keys     *keyset.Set // of the transmitter; nil with NoStream
	ownClock bool        // the clock of the transmitter is that of the issuer
	feed     *feed
	stream   *streamState
	awaiting chan struct{} // one for each SET that waits for the audience, at most maxAwaiting
	log      *slog.Logger

	logoutKeys *keyset.Set // of the issuer; nil: no logout tokens are accepted
	globalKeys *keyset.Set // of the party that requests global revocations; nil: none are accepted

	meta atomic.Pointer[metadata] // of the transmitter; nil until fetched

	counts     counts
	complaints map[outcome]*ratelog.Limit
	complaint  ratelog.Limit // about times in the future
	refusals   ratelog.Limit
	failures   ratelog.Limit

	cancel  context.CancelFunc
	running atomic.Bool // Run
}

var (
	_ valetkey.RevocationSource = (*Receiver)(nil)
	_ valetkey.HealthReporter   = (*Receiver)(nil)
)

// New returns a Receiver. It does no I/O and starts nothing. The error joins one [valetkey.ConfigError] for each mistake in cfg.
func New(cfg Config) (*Receiver, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	r := &Receiver{cfg: cfg, log: cfg.Logger, complaints: map[outcome]*ratelog.Limit{}, awaiting: make(chan struct{}, maxAwaiting)}
	for _, o := range []outcome{disabled, foreign, unresolved, unmatched, critical} {
		r.complaints[o] = new(ratelog.Limit)
	}
	r.fetch = fetch.Client{HTTP: cfg.Client, InsecureHTTP: cfg.InsecureHTTP, Setting: "InsecureHTTP"}
	if cfg.Client == nil {
		r.fetch.HTTP = &http.Client{Transport: http.DefaultTransport.(*http.Transport).Clone()}
	}
	r.ownClock = sameHost(cfg.Transmitter, cfg.Issuer)
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	r.feed = &feed{cfg: &r.cfg, log: r.log, ctx: ctx, watchers: map[*watcher]struct{}{}, held: map[selector]valetkey.Revocation{}, capacity: maxHeld}
	r.stream = newStreamState(r)
	if err := r.openKeys(); err != nil {
		cancel()
		return nil, err
	}
	return r, nil
}

// openKeys creates the key sets. They fetch nothing before the first use.
func (r *Receiver) openKeys() (err error) {
	var wrong mistakes.List
	wrong.Package = "signals"
	open := func(to **keyset.Set, field string, cfg keyset.Config) {
		cfg.Fetch, cfg.Logger = r.fetch, r.log
		*to, err = keyset.New(cfg)
		wrong.Within(field, err)
	}
	if r.cfg.Delivery != NoStream {
		open(&r.keys, "Transmitter", keyset.Config{Issuer: r.cfg.Transmitter, JWKSURL: r.cfg.JWKSURL, Discover: r.jwksURL, Probe: true})
	}
	if len(r.cfg.Logout.Audience) > 0 {
		open(&r.logoutKeys, "Logout", keyset.Config{Issuer: r.cfg.Issuer, JWKSURL: r.cfg.Logout.JWKSURL})
	}
	if len(r.cfg.GlobalRevocation.Audience) > 0 {
		open(&r.globalKeys, "GlobalRevocation", keyset.Config{Issuer: r.cfg.GlobalRevocation.Issuer, JWKSURL: r.cfg.GlobalRevocation.JWKSURL})
	}
	return wrong.Err()
}

// complete fills in the defaults. The error lists every mistake.
func (cfg *Config) complete() error {
	wrong := mistakes.List{Package: "signals"}
	client := fetch.Client{InsecureHTTP: cfg.InsecureHTTP, Setting: "InsecureHTTP"}
	cfg.Issuer = cmp.Or(cfg.Issuer, cfg.Transmitter)
	managed := cfg.Delivery != NoStream && !cfg.Stream.Unmanaged
	switch cfg.Delivery {
	case Push, Poll:
		if cfg.Transmitter == "" {
			wrong.Add("Transmitter", "required")
		} else if err := client.Discoverable(cfg.Transmitter); err != nil && (managed || cfg.JWKSURL == "") {
			wrong.Add("Transmitter", "%w", err)
		}
	case NoStream:
		wrong.AddIf(len(cfg.Logout.Audience) == 0 && len(cfg.GlobalRevocation.Audience) == 0, "Delivery",
			"NoStream requires Logout or GlobalRevocation: otherwise nothing is received")
		wrong.AddIf(cfg.Issuer == "", "Issuer", "required")
	default:
		wrong.Add("Delivery", "%q is none of Push, Poll and NoStream", cfg.Delivery)
	}
	wrong.AddIf(managed && cfg.Credentials.isZero(), "Credentials", "required for the API of the stream; or set Stream.Unmanaged")
	wrong.AddIf(cfg.Delivery == Poll && cfg.Stream.Unmanaged && cfg.Credentials.isZero(), "Credentials", "required to poll")
	if err := cfg.Credentials.err; err != nil {
		wrong.Add("Credentials", "%w", err)
	}
	if cfg.Credentials.at != nil && cfg.Delivery != NoStream && cfg.Transmitter != "" {
		if err := client.Discoverable(cfg.Transmitter); err != nil {
			wrong.Add("Credentials", "TokenURL: required, because no metadata of %.200q can contain it: %w", cfg.Transmitter, err)
		}
	}
	if cfg.Stream.Unmanaged {
		wrong.AddIf(len(cfg.Audience) == 0, "Audience", "required if Stream.Unmanaged is set")
		wrong.AddIf(cfg.Stream.ID != "", "Stream.ID", "has no effect if Stream.Unmanaged is set")
		wrong.AddIf(cfg.Delivery == Poll && cfg.Stream.PollURL == "", "Stream.PollURL", "required to poll an unmanaged stream")
	}
	if u := cfg.Stream.PollURL; u != "" {
		if err := client.Allowed(u); err != nil {
			wrong.Add("Stream.PollURL", "%w", err)
		}
		wrong.AddIf(!cfg.Stream.Unmanaged, "Stream.PollURL", "requires Stream.Unmanaged: the transmitter states the URL of a managed stream")
	}
	if cfg.Endpoint != "" {
		u, err := url.Parse(cfg.Endpoint)
		wrong.AddIf(err != nil || u.Host == "" || u.Scheme != "https" && client.Allowed(cfg.Endpoint) != nil, "Endpoint", "%.200q is not an https URL", cfg.Endpoint)
		wrong.AddIf(cfg.Delivery != Push, "Endpoint", "has no effect unless Delivery is Push")
	} else {
		wrong.AddIf(cfg.Delivery == Push && managed && cfg.Stream.ID == "", "Endpoint", "required to find or create a stream with Push; or set Stream.ID")
	}
	wrong.AddIf(strings.ContainsAny(cfg.AuthorizationHeader, "\r\n"), "AuthorizationHeader", "has a line break")
	wrong.AddIf(cfg.AuthorizationHeader != "" && cfg.Delivery != Push, "AuthorizationHeader", "has no effect unless Delivery is Push")
	for i, a := range cfg.Audience {
		wrong.AddIf(a == "", fmt.Sprintf("Audience[%d]", i), "is empty")
	}
	for i, a := range cfg.IssuerAliases {
		wrong.AddIf(a == "", fmt.Sprintf("IssuerAliases[%d]", i), "is empty")
	}
	for i, alg := range cfg.Algorithms {
		wrong.AddIf(!slices.Contains(jose.Algorithms(), alg), fmt.Sprintf("Algorithms[%d]", i), "%q is not one of %v", alg, jose.Algorithms())
	}
	for i, o := range cfg.TrustedOrigins {
		u, err := url.Parse(o)
		wrong.AddIf(err != nil || strings.Trim(u.Path, "/") != "" || client.Allowed(o) != nil, fmt.Sprintf("TrustedOrigins[%d]", i),
			"%.200q is not an origin such as https://poll.example.com", o)
	}
	wrong.AddIf(cfg.Events != nil && len(cfg.Events) == 0, "Events", "is empty; nil means the default")
	for i, e := range cfg.Events {
		wrong.AddIf(!slices.Contains(Events(), e), fmt.Sprintf("Events[%d]", i), "%.200q is none of the events of this package", e)
	}
	for i, g := range cfg.Guards {
		wrong.AddIf(g == nil, fmt.Sprintf("Guards[%d]", i), "is nil")
	}
	wrong.AddIf(cfg.Gaps != ReportGaps && cfg.Gaps != RevokeBeforeGaps, "Gaps", "%q is neither ReportGaps nor RevokeBeforeGaps", cfg.Gaps)
	wrong.AddIf(cfg.MaxTokenLifetime < 0, "MaxTokenLifetime", "%v is negative", cfg.MaxTokenLifetime)
	wrong.AddIf(cfg.Leeway < 0 || cfg.Leeway > maxLeeway, "Leeway", "%v is not between 0 and %v", cfg.Leeway, maxLeeway)
	wrong.AddIf(cfg.PollInterval < 0, "PollInterval", "%v is negative", cfg.PollInterval)
	wrong.AddIf(cfg.MaxEvents < 0 || cfg.MaxEvents > mostEvents, "MaxEvents", "%d is not between 0 and %d", cfg.MaxEvents, mostEvents)
	wrong.AddIf(cfg.Retention < 0, "Retention", "%v is negative", cfg.Retention)
	wrong.AddIf(cfg.RequireProof && (cfg.VerifyInterval < 0 || !managed), "RequireProof", "requires a managed stream and a VerifyInterval")
	cfg.Logout.check(&wrong)
	cfg.GlobalRevocation.check(&wrong)
	if err := wrong.Err(); err != nil {
		return err
	}
	if cfg.Events == nil {
		cfg.Events = DefaultEvents()
	}
	if cfg.Algorithms == nil {
		cfg.Algorithms = jose.DefaultAlgorithms()
	}
	cfg.MaxTokenLifetime = cmp.Or(cfg.MaxTokenLifetime, defaultLifetime)
	cfg.Leeway = cmp.Or(cfg.Leeway, defaultLeeway)
	cfg.VerifyInterval = cmp.Or(cfg.VerifyInterval, defaultVerifyInterval)
	cfg.PollInterval = cmp.Or(cfg.PollInterval, defaultPollInterval)
	cfg.MaxEvents = cmp.Or(cfg.MaxEvents, defaultMaxEvents)
	cfg.Retention = cmp.Or(cfg.Retention, defaultRetention)
	cfg.GlobalRevocation.Issuer = cmp.Or(cfg.GlobalRevocation.Issuer, cfg.Issuer)
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	cfg.Events, cfg.Guards = slices.Clone(cfg.Events), slices.Clone(cfg.Guards)
	if cfg.Credentials.at != nil {
		cfg.Credentials = cfg.Credentials.at(cfg.Transmitter)
	}
	return nil
}

// sameHost reports whether two URLs have the same host.
func sameHost(a, b string) bool {
	x, errA := url.Parse(a)
	y, errB := url.Parse(b)
	return errA == nil && errB == nil && x.Host != "" && strings.EqualFold(x.Host, y.Host) || a == b
}

// trust returns the current rules for SETs.
func (r *Receiver) trust() *trust {
	audience := slices.Concat(r.cfg.Audience, r.stream.audience())
	if id := r.stream.id(); id != "" && r.cfg.Legacy.AllowAudienceOfStream {
		for _, a := range r.cfg.Audience {
			audience = append(audience, a+"/"+id)
		}
	}
	return &trust{issuer: r.cfg.Transmitter, audience: audience, algorithms: r.cfg.Algorithms, keys: r.keys, legacy: r.cfg.Legacy}
}

// Close ends all work and waits for it. Handlers answer 503 afterwards. It may be called more than once.
func (r *Receiver) Close() {
	r.cancel()
	r.feed.close()
	for _, keys := range []*keyset.Set{r.keys, r.logoutKeys, r.globalKeys} {
		if keys != nil {
			keys.Close()
		}
	}
	if r.cfg.Client == nil {
		r.fetch.HTTP.CloseIdleConnections()
	}
}

// Watch passes on the revocations that the receiver holds, reports whether it has caught up, and then passes on each new revocation
// before the transmitter gets the acknowledgment. It reports an error while the stream is not set up, cannot be reached, is paused or
// disabled, has more events waiting, or, with Config.RequireProof, is unproven. After a gap the error wraps
// [valetkey.ErrRevocationsMissing]. [Receiver.Run] must run. Watch returns when ctx is done or the receiver is closed.
//
// Any number of guards may watch one receiver.
func (r *Receiver) Watch(ctx context.Context, apply func(...valetkey.Revocation) error, report func(error)) error {
	w, missing := r.feed.add(apply)
	defer r.feed.remove(w)
	said, first := "", true
	for {
		changed, err := r.stream.state()
		if now := r.cfg.Now(); err == nil && missing.After(now) {
			err = fmt.Errorf("%w: more of them are in force than the receiver holds", valetkey.ErrRevocationsMissing)
		}
		if text := textOf(err); first || text != said {
			report(err)
			said, first = text, false
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-r.feed.ctx.Done():
			return errClosed
		case <-changed:
		case <-time.After(stateInterval): // time alone changes the state too
		}
	}
}

// stateInterval is how often the state is computed anew without an event.
const stateInterval = time.Second

func textOf(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// Health returns the health of the stream, under the name of the transmitter, and that of the keys. The stream is Ready while it
// delivers, and Down before it has done so for the first time. It is Degraded while it is paused, disabled, unreachable or behind, after
// a gap, and while verification events do not arrive. A stream that cannot be verified is Ready with an error that states since when
// there is no proof. Health does no I/O.
func (r *Receiver) Health() []valetkey.Health {
	if r.cfg.Delivery == NoStream {
		return r.keyHealth()
	}
	return append([]valetkey.Health{r.stream.health()}, r.keyHealth()...)
}

func (r *Receiver) keyHealth() (all []valetkey.Health) {
	for _, keys := range []*keyset.Set{r.keys, r.logoutKeys, r.globalKeys} {
		if keys != nil {
			all = append(all, keys.Health())
		}
	}
	return all
}

// Ready waits until the keys are fetched and the stream has caught up, or ctx is done. It returns the reason if it is not ready.
func (r *Receiver) Ready(ctx context.Context) error {
	var errs []error
	for _, keys := range []*keyset.Set{r.keys, r.logoutKeys, r.globalKeys} {
		if keys != nil {
			errs = append(errs, keys.Ready(ctx))
		}
	}
	for r.cfg.Delivery != NoStream {
		changed, err := r.stream.state()
		if err == nil || errors.Is(err, valetkey.ErrRevocationsMissing) {
			break
		}
		select {
		case <-changed:
			continue
		case <-time.After(stateInterval):
			continue
		case <-ctx.Done():
		case <-r.feed.ctx.Done():
		}
		errs = append(errs, err)
		break
	}
	return errors.Join(errs...)
}

// Status describes a receiver.
type Status struct {
	State    valetkey.State // of the stream
	Err      error          // the cause; nil: none
	StreamID string         // "" until it is known, or if the stream is unmanaged
	Stream   string         // status that the transmitter reports: enabled, paused or disabled; "" if unknown

	Delivered []Event // events that the transmitter delivers (events_delivered); nil if unknown
	Missing   []Event // events of Config.Events that it does not deliver; not SessionsRevoked if it delivers SessionRevoked in its place

	LastContact time.Time // the last valid SET or answer to a poll; zero: none
	LastProof   time.Time // the last verification event that this receiver requested; zero: none
	Gap         Gap       // the last gap

	// Outcomes counts SETs, logout tokens and global revocations by what became of them: "applied", "nothing", "expired", "disabled",
	// "foreign", "unresolved", "unmatched", "critical" and "stream" for accepted ones, a code of RFC 8935, section 2.4 for refused ones,
	// "unauthenticated", and "failed" for those that the sender must send again.
	Outcomes map[string]uint64
}

// A Gap is a time in which events may have been lost. The zero value means no gap.
type Gap struct {
	From   time.Time // the last contact before the gap; zero: unknown
	To     time.Time
	Reason string
}

// Status returns the status of the receiver. It does no I/O.
func (r *Receiver) Status() Status {
	s := r.stream.status()
	s.Outcomes = r.counts.copy()
	return s
}

// counts counts outcomes. The names are constants of this package, so it does not grow.
type counts struct {
	mu sync.Mutex
	of map[string]uint64
}

func (c *counts) add(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.of == nil {
		c.of = map[string]uint64{}
	}
	c.of[name]++
}

func (c *counts) copy() map[string]uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make(map[string]uint64, len(c.of))
	for name, n := range c.of {
		all[name] = n
	}
	return all
}
