package jwks

import (
	"container/list"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/authheader"
	"github.com/valetkey/valetkey/internal/fetch"
	"github.com/valetkey/valetkey/internal/flight"
	"github.com/valetkey/valetkey/internal/jose"
	"github.com/valetkey/valetkey/internal/keyset"
	"github.com/valetkey/valetkey/internal/mistakes"
	"github.com/valetkey/valetkey/internal/tokenclaims"
)

// ErrNoTenant reports that an issuer is not a tenant. [TenantsConfig].Lookup returns it or an error that wraps it.
var ErrNoTenant = errors.New("the issuer is not a tenant")

// TenantsConfig configures a [TenantVerifier]. Lookup is required.
type TenantsConfig struct {
	_ struct{} // keyed literals only

	// Lookup returns the configuration of the tenant issuer. Required. It is called before anything in the token is verified,
	// so issuer is arbitrary input: up to 1 KiB of any characters.
	//
	// If the error wraps [ErrNoTenant], or the Config has no Issuer, the issuer is not a tenant and the token is refused. Any
	// other error is a failure: the client gets 503. Config.Issuer must equal issuer. Client, Logger, Observer and Now must
	// be nil, and the files of certificates in KeyRequests empty, since all tenants share them.
	//
	// Lookup must be safe for concurrent use. There is at most one call per issuer at a time, and at most 32 calls for
	// unknown issuers. ctx is not the context of a request; it ends after 5 s, and Lookup must return soon after. A request
	// waits at most 2 s.
	Lookup func(ctx context.Context, issuer string) (Config, error)

	// MaxTokenBytes is the maximum length of a token of any tenant, before its tenant is known. A tenant's Config.MaxTokenBytes
	// applies too. Zero: [valetkey.MaxTokenBytes], 16 KiB; at most 64 KiB.
	MaxTokenBytes int

	// Max is the maximum number of tenants held. When it is exceeded, the tenant whose last valid token is the oldest is
	// removed. Zero: 1000.
	Max int

	// TTL is how long a result of Lookup is valid. A tenant in use is looked up again after half of it. When it has passed,
	// the result no longer admits any token, including tokens that a guard has cached. Zero: 5 min; at most 24 h.
	TTL time.Duration

	// Allow lists non-public addresses that keys may be fetched from, for example those of an internal issuer. No proxy is
	// used.
	Allow []netip.Prefix

	// InsecureAnyAddress allows all addresses, including those of this host and of the cloud metadata service, and the proxy
	// from the environment. Use it only if the network itself restricts where tenants' URLs can lead.
	InsecureAnyAddress bool

	// TLS is the TLS configuration for fetching keys. Nil: the system's roots.
	TLS *tls.Config

	// Logger, Observer and Now apply to all tenants; see [Config].
	Logger   *slog.Logger
	Observer valetkey.Observer
	Now      func() time.Time
}

const (
	defaultTenants = 1000
	defaultTTL     = 5 * time.Minute
	maxTTL         = 24 * time.Hour
	maxIssuer      = 1 << 10         // bytes
	maxLookups     = 32              // concurrent, for unknown issuers; renewals of tenants have the same limit
	maxLookup      = 5 * time.Second // per lookup
	maxLookupWait  = 2 * time.Second // per request
)

// TenantVerifier verifies the JWT access tokens of tenants: issuers that are not known in advance and are looked up with
// [TenantsConfig].Lookup. It is a [valetkey.Verifier] and a [valetkey.HealthReporter]. It is safe for concurrent use and must
// be closed.
//
// Each tenant has a separate [Verifier]: tenants share neither keys nor settings. Of a key set
// fetched for a tenant, the first 100 keys are used. Keys are fetched only from public addresses
// by default. Otherwise a tenant, or anyone who names one, could make this host send requests into its own network (RFC 8725,
// section 3.10).
//
// Made-up issuers displace no tenant. About 800 of them are looked up per second. Beyond that, issuers that are not held get
// 503 for some seconds; tenants that are held are not affected.
type TenantVerifier struct {
	cfg      TenantsConfig
	maxToken int // bytes
	client   *http.Client
	start    time.Time // of the clock, see clock

	ctx    context.Context // of lookups; ends with Close
	cancel context.CancelFunc
	work   sync.WaitGroup // lookups, and tenants that close

	mu         sync.Mutex // guards what follows; never held during I/O
	closed     bool
	tenants    map[string]*tenant
	proven     list.List // of *tenant: those with a valid token, most recent first
	newcomers  list.List // of *tenant: those without
	flights    flight.Table[string, looked]
	renewals   int // of flights
	notTenants notTenants
	health     valetkey.Health
}

// A tenant is an issuer that Lookup has confirmed.
type tenant struct {
	*Verifier
	owner    *TenantVerifier
	settings [sha256.Size]byte
	until    atomic.Int64 // owner.clock when the result of Lookup expires
	due      atomic.Int64 // owner.clock when it should be renewed
	end      *time.Timer  // at until
	place    *list.Element
	proven   bool // in which list place is
}

// A lookup is a call of Lookup in progress.
type lookup = flight.Flight[string, looked]

type looked struct {
	tenant *tenant
	err    error
}

// Tenants returns a TenantVerifier. It does no I/O. The error lists every mistake in cfg.
func Tenants(cfg TenantsConfig) (*TenantVerifier, error) {
	wrong := mistakes.List{Package: "jwks: Tenants"}
	if cfg.Lookup == nil {
		wrong.Add("Lookup", "required")
	}
	maxToken, err := authheader.TokenLimit(cfg.MaxTokenBytes)
	if err != nil {
		wrong.Add("MaxTokenBytes", "%w", err)
	}
	if cfg.Max < 0 {
		wrong.Add("Max", "%d is negative", cfg.Max)
	}
	if cfg.TTL < 0 || cfg.TTL > maxTTL {
		wrong.Add("TTL", "%v is not between 0 and %v", cfg.TTL, maxTTL)
	}
	for i, p := range cfg.Allow {
		if !p.IsValid() {
			wrong.Add(fmt.Sprintf("Allow[%d]", i), "is not a prefix")
		}
	}
	if err := wrong.Err(); err != nil {
		return nil, err
	}
	if cfg.Max == 0 {
		cfg.Max = defaultTenants
	}
	if cfg.TTL == 0 {
		cfg.TTL = defaultTTL
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	transport := fetch.Guarded(cfg.TLS, cfg.Allow...)
	if cfg.InsecureAnyAddress {
		transport = fetch.Guarded(cfg.TLS, netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0"))
		transport.Proxy = http.ProxyFromEnvironment
	}
	t := &TenantVerifier{
		cfg:      cfg,
		maxToken: maxToken,
		client:   &http.Client{Transport: transport},
		start:    time.Now(),
		tenants:  map[string]*tenant{},
		flights:  flight.Table[string, looked]{},
		health:   valetkey.Health{Name: "tenants", State: valetkey.Ready, Since: time.Now()},
	}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	return t, nil
}

// Verify verifies a JWT access token of a tenant as [Verifier.Verify] does. A token of an issuer that is not a tenant is
// refused with an error that wraps [valetkey.ErrNotApplicable].
func (t *TenantVerifier) Verify(ctx context.Context, raw string) (*valetkey.Token, error) {
	var in unread
	c, err := in.parse(raw, jose.Options{Limit: t.maxToken, AllowPadding: true}) // the tenant's own form is checked later
	if err != nil {
		return nil, err
	}
	iss, _ := in.iss.View()
	if iss == "" || len(iss) > maxIssuer {
		return nil, notTenant(iss)
	}
	x, err := t.tenant(ctx, iss)
	if err != nil {
		return nil, err
	}
	token, err := x.verify(ctx, c, &in)
	if x.removed() {
		// The tenant was replaced during the check, and its keys went with it, so the check is repeated with the new tenant.
		// One repetition is enough: a tenant that is replaced as fast as a token is verified gets 503.
		if x, err = t.tenant(ctx, iss); err != nil {
			return nil, err
		}
		token, err = x.verify(ctx, c, &in)
	}
	if err != nil {
		return nil, err
	}
	t.prove(x)
	f := token.Fields()
	f.Freshness.While = lease{f.Freshness.While, x}
	return valetkey.NewToken(f), nil
}

// A lease holds while both the key of a token and its tenant hold.
type lease struct {
	key    valetkey.Condition
	tenant *tenant
}

func (l lease) Holds() bool { return l.key.Holds() && l.tenant.holds() }

// clock returns the monotonic time since t was made.
func (t *TenantVerifier) clock() int64 { return int64(time.Since(t.start)) }

// holds reports whether the result of Lookup for x is still valid. Checking a cached token counts as use, so holds also
// starts the renewal when it is due, without waiting for it.
func (x *tenant) holds() bool {
	now := x.owner.clock()
	if due := x.due.Load(); now >= due && x.due.CompareAndSwap(due, now+int64(x.owner.cfg.TTL/10)) {
		x.owner.renew(x)
	}
	return now < x.until.Load()
}

// removed reports whether x was in the table and has been removed.
func (x *tenant) removed() bool { return x.until.Load() == 0 }

func (t *TenantVerifier) renew(x *tenant) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.tenants[x.issuer] == x && t.flights[x.issuer] == nil && t.renewals < maxLookups { // x is not closed, then
		t.begin(x.issuer, true)
	}
}

// tenant returns the tenant iss, looking it up if it is not held.
func (t *TenantVerifier) tenant(ctx context.Context, iss string) (*tenant, error) {
	t.mu.Lock()
	x := t.tenants[iss]
	t.mu.Unlock()
	if x != nil && x.holds() {
		return x, nil
	}
	f, err := t.demand(iss)
	if err != nil {
		return nil, err
	}
	select {
	case <-f.Done():
		return f.Result.tenant, f.Result.err
	case <-ctx.Done():
		return nil, unavailable(fmt.Errorf("looking up the tenant %.200q: %w", iss, context.Cause(ctx)))
	case <-time.After(maxLookupWait):
		return nil, unavailable(fmt.Errorf("looking up the tenant %.200q: no answer yet", iss))
	}
}

// demand returns the lookup of iss that is in progress, or begins one.
func (t *TenantVerifier) demand(iss string) (*lookup, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if f := t.flights.Join(iss); f != nil {
		return f, nil
	}
	now := t.clock()
	t.notTenants.forget(now)
	switch {
	case t.closed:
		return nil, unavailable(errTenantsClosed)
	case t.notTenants.has(iss):
		return nil, notTenant(iss)
	case len(t.flights)-t.renewals >= maxLookups:
		return nil, unavailable(errors.New("too many unknown issuers are being looked up"))
	case t.notTenants.full():
		return nil, unavailable(errors.New("too many unknown issuers have been looked up"))
	}
	t.begin(strings.Clone(iss), false)
	return t.flights.Join(iss), nil
}

func notTenant(iss string) error {
	return refuse(valetkey.ReasonIssuer, tokenclaims.NotApplicable(fmt.Errorf("issuer: %.200q in the token is not a tenant", iss)))
}

var errTenantsClosed = errors.New("the tenants are closed")

func unavailable(err error) error {
	return &valetkey.Unavailable{RetryAfter: time.Second, Err: fmt.Errorf("jwks: %w", err)}
}

// begin starts a lookup, detached from the caller.
func (t *TenantVerifier) begin(iss string, renewal bool) {
	f := t.flights.Start(iss)
	if renewal {
		t.renewals++
	}
	t.work.Go(func() {
		asked := t.clock()
		cfg, err := t.ask(iss)
		if err := t.land(iss, f, renewal, asked, cfg, err); err != nil {
			t.cfg.Logger.Warn("tenants: a tenant is not renewed", "issuer", iss, "error", err)
		}
	})
}

// ask calls Lookup.
func (t *TenantVerifier) ask(iss string) (cfg Config, err error) {
	ctx, cancel := context.WithTimeout(t.ctx, maxLookup)
	defer cancel()
	defer func() {
		if p := recover(); p != nil { // this is not a goroutine of net/http, where it would end one request
			err = fmt.Errorf("Lookup panicked: %v", p)
		}
	}()
	return t.cfg.Lookup(ctx, iss)
}

// land applies the result of Lookup. It returns the reason if it does not renew a tenant that is held.
func (t *TenantVerifier) land(iss string, f *lookup, renewal bool, asked int64, cfg Config, err error) (notRenewed error) {
	stranger := errors.Is(err, ErrNoTenant) || err == nil && cfg.Issuer == ""
	var next *tenant
	var mistake error
	if err == nil {
		next, mistake = t.open(iss, cfg)
	}

	t.mu.Lock()
	defer t.mu.Unlock()
	defer t.flights.Land(f)
	if renewal {
		t.renewals--
	}
	if t.closed {
		f.Result.err = unavailable(errTenantsClosed)
		return nil
	}
	if err == nil || stranger {
		t.comes(valetkey.Ready, nil)
	} else {
		t.comes(valetkey.Degraded, err)
	}
	held := t.tenants[iss]
	switch {
	case stranger:
		t.remove(held)
		t.notTenants.add(iss, t.clock())
		f.Result.err = notTenant(iss)
	case err != nil || mistake != nil:
		err = fmt.Errorf("looking up the tenant %.200q: %w", iss, errors.Join(err, mistake))
		f.Result.err = unavailable(err)
		if held != nil {
			return err
		}
	default:
		if held == nil || held.settings != next.settings {
			t.remove(held)
			t.insert(next)
			held = next
		}
		t.extend(held, asked)
		f.Result.tenant = held
	}
	return nil
}

// open returns the tenant that cfg describes. It starts nothing.
func (t *TenantVerifier) open(iss string, cfg Config) (*tenant, error) {
	if cfg.Issuer != iss {
		return nil, fmt.Errorf("Issuer: Lookup returned %.200q", cfg.Issuer)
	}
	if cfg.Client != nil || cfg.Logger != nil || cfg.Observer != nil || cfg.Now != nil {
		return nil, errors.New("Client, Logger, Observer, Now: cannot be set per tenant")
	}
	if r := cfg.KeyRequests; r.CAFile+r.CertFile+r.KeyFile != "" {
		return nil, errors.New("KeyRequests.CAFile, KeyRequests.CertFile, KeyRequests.KeyFile: cannot be set per tenant")
	}
	x := &tenant{owner: t, settings: sha256.Sum256(fmt.Appendf(nil, "%#v", cfg))} // cfg contains no pointer here
	cfg.Client, cfg.Logger, cfg.Observer, cfg.Now = t.client, t.cfg.Logger, t.cfg.Observer, t.cfg.Now
	cfg.maxKeys = keyset.MaxForeignKeys
	t.mu.Lock()
	held := t.tenants[iss]
	cfg.again = held != nil && held.settings == x.settings // a renewal, after which x is usually not needed
	t.mu.Unlock()
	v, err := New(cfg)
	if err != nil {
		return nil, err
	}
	x.Verifier = v
	return x, nil
}

// extend renews the result of Lookup for x, counted from the time of the call.
func (t *TenantVerifier) extend(x *tenant, asked int64) {
	x.due.Store(asked + int64(t.cfg.TTL/2))
	x.until.Store(asked + int64(t.cfg.TTL))
	x.end.Reset(time.Duration(x.until.Load() - t.clock()))
}

// expire removes x at the end of the result of Lookup.
func (t *TenantVerifier) expire(x *tenant) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.tenants[x.issuer] == x && t.clock() >= x.until.Load() { // else its timer was stopped or reset too late
		t.remove(x)
	}
}

// insert adds x to the table. A client that names tenants without holding one of their tokens can displace only newcomers,
// once these are an eighth of all tenants. The caller must extend x.
func (t *TenantVerifier) insert(x *tenant) {
	t.tenants[x.issuer] = x
	x.place = t.newcomers.PushFront(x)
	x.end = time.AfterFunc(t.cfg.TTL, func() { t.expire(x) })
	if len(t.tenants) <= t.cfg.Max {
		return
	}
	oldest := t.proven.Back()
	if t.newcomers.Len() > max(1, t.cfg.Max/8) { // as when no tenant has had a valid token
		oldest = t.newcomers.Back()
	}
	t.remove(oldest.Value.(*tenant))
}

// prove records that x has had a valid token.
func (t *TenantVerifier) prove(x *tenant) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.tenants[x.issuer] != x:
	case x.proven:
		t.proven.MoveToFront(x.place)
	default:
		t.newcomers.Remove(x.place)
		x.place, x.proven = t.proven.PushFront(x), true
	}
}

// remove removes x from the table and closes it, if x is not nil. Tokens that a guard has cached are then no longer accepted.
func (t *TenantVerifier) remove(x *tenant) {
	if x == nil {
		return
	}
	delete(t.tenants, x.issuer)
	if x.proven {
		t.proven.Remove(x.place)
	} else {
		t.newcomers.Remove(x.place)
	}
	x.until.Store(0) // immediately: Close withdraws the keys later
	x.end.Stop()     // the timer would keep x in memory
	t.work.Go(x.Close)
}

func (t *TenantVerifier) comes(state valetkey.State, err error) {
	if t.health.State != state {
		t.health.Since = time.Now()
	}
	t.health.State, t.health.Err = state, err
}

// Health returns the state of the lookups under the name "tenants": degraded if the last one failed. Tenants are not
// included, so that a tenant whose own issuer is down does not affect the others; see [TenantVerifier.Tenants].
func (t *TenantVerifier) Health() []valetkey.Health {
	t.mu.Lock()
	defer t.mu.Unlock()
	return []valetkey.Health{t.health}
}

// Tenants returns the state of each held tenant, sorted by issuer.
func (t *TenantVerifier) Tenants() (all []valetkey.Health) {
	t.mu.Lock()
	held := maps.Clone(t.tenants)
	t.mu.Unlock()
	for _, iss := range slices.Sorted(maps.Keys(held)) {
		all = append(all, held[iss].Health()...)
	}
	return all
}

// Ready returns nil unless t is closed. It fetches nothing, since tenants are not known in advance.
func (t *TenantVerifier) Ready(context.Context) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return fmt.Errorf("jwks: %w", errTenantsClosed)
	}
	return nil
}

// Close cancels lookups, closes all tenants and waits for both. Afterwards, Verify fails with [*valetkey.Unavailable] (503),
// and tokens that a guard has cached are no longer accepted. Close may be called more than once.
func (t *TenantVerifier) Close() {
	t.mu.Lock()
	t.closed = true
	t.comes(valetkey.Down, errTenantsClosed)
	for _, x := range t.tenants {
		t.remove(x)
	}
	t.mu.Unlock()
	t.cancel()
	t.work.Wait()
	t.client.CloseIdleConnections()
}
