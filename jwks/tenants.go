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
	"github.com/valetkey/valetkey/internal/fetch"
	"github.com/valetkey/valetkey/internal/mistakes"
)

// ErrNoTenant is what the error of [TenantsConfig].Lookup wraps if the issuer is not a tenant.
var ErrNoTenant = errors.New("the issuer is not a tenant")

// TenantsConfig is what a [TenantVerifier] is made of. Lookup is required.
type TenantsConfig struct {
	_ struct{} // keyed literals only

	// Lookup says whether issuer is a tenant, and how its tokens are verified. Required. What calls it is a token of which
	// nothing is verified yet, so issuer is whatever somebody wrote: up to 1 KiB of any characters.
	//
	// An issuer is no tenant if the error wraps [ErrNoTenant] or the Config has no Issuer: the token is refused. Any other
	// error is a failure: the client gets 503. The Issuer of the Config must be issuer; its Client, Logger, Observer and Now
	// must be nil, since they are the same for all.
	//
	// Lookup is called for one issuer once at a time, for 32 unknown ones at most, and must be safe for concurrent use. ctx
	// is not that of a request; it ends after 5 s, and Lookup must return soon after. A request waits 2 s at most.
	Lookup func(ctx context.Context, issuer string) (Config, error)

	// Max is the number of tenants that are held. Beyond, the one whose last good token is the longest ago makes room.
	// Zero: 1000.
	Max int

	// TTL is how long an answer of Lookup counts. A tenant in use is looked up again after half of it; after all of it
	// nobody is let in on that answer, and remembered tokens are forgotten. Zero: 5 min; at most 24 h.
	TTL time.Duration

	// Allow lists addresses that keys may be fetched from although they are not public: those of an issuer of your own.
	// No proxy is used.
	Allow []netip.Prefix

	// InsecureAnyAddress allows all addresses, those of this host and of the cloud's metadata among them, and the proxy that
	// the environment names. It is for a network that keeps tenants' URLs from harm itself.
	InsecureAnyAddress bool

	// TLS is for the fetching of keys. Nil: the system's roots.
	TLS *tls.Config

	// Logger, Observer and Now are those of all tenants, see [Config].
	Logger   *slog.Logger
	Observer valetkey.Observer
	Now      func() time.Time
}

const (
	defaultTenants = 1000
	defaultTTL     = 5 * time.Minute
	maxTTL         = 24 * time.Hour
	maxIssuer      = 1 << 10         // bytes
	maxLookups     = 32              // at the same time, of unknown issuers; and as many of tenants that are renewed
	maxLookup      = 5 * time.Second // of one
	maxLookupWait  = 2 * time.Second // of one request
)

// A TenantVerifier verifies the JWT access tokens of issuers that are not known in advance: tenants, which
// [TenantsConfig].Lookup knows. It is a [valetkey.Verifier] and a [valetkey.HealthReporter], safe for concurrent use, and must be
// closed.
//
// Each tenant has a [Verifier] of its own: keys and settings never cross. Their keys are fetched from public addresses only,
// since a tenant, or somebody who names one, could otherwise have this host ask its own network (RFC 8725, section 3.10).
//
// Made-up issuers take no tenant's place. About 800 in a second are looked up; beyond that, issuers that are not held get
// 503 for some seconds, and tenants that are held do not notice.
type TenantVerifier struct {
	cfg    TenantsConfig
	client *http.Client
	start  time.Time // of the clock, see clock

	ctx    context.Context // of lookups; ends with Close
	cancel context.CancelFunc
	work   sync.WaitGroup // lookups, and tenants that close

	mu         sync.Mutex // guards what follows; never held during I/O
	closed     bool
	tenants    map[string]*tenant
	proven     list.List // *tenant, which have had a good token, the latest first
	newcomers  list.List // *tenant, which have not
	flights    map[string]*lookup
	renewals   int // of flights
	notTenants notTenants
	health     valetkey.Health
}

// A tenant is an issuer that Lookup vouches for.
type tenant struct {
	*Verifier
	owner    *TenantVerifier
	settings [sha256.Size]byte
	until    atomic.Int64 // owner.clock when Lookup's word ends
	due      atomic.Int64 // owner.clock when it should be renewed
	end      *time.Timer  // at until
	place    *list.Element
	proven   bool // in which list place is
}

// A lookup is a call of Lookup that is in progress. What it says is set before done is closed.
type lookup struct {
	done    chan struct{}
	renewal bool
	tenant  *tenant
	err     error
}

// Tenants returns a TenantVerifier. It does no I/O. The error names every mistake in cfg.
func Tenants(cfg TenantsConfig) (*TenantVerifier, error) {
	wrong := mistakes.List{Package: "jwks: Tenants"}
	if cfg.Lookup == nil {
		wrong.Add("Lookup", "required")
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
		cfg:     cfg,
		client:  &http.Client{Transport: transport},
		start:   time.Now(),
		tenants: map[string]*tenant{},
		flights: map[string]*lookup{},
		health:  valetkey.Health{Name: "tenants", State: valetkey.Ready, Since: time.Now()},
	}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	return t, nil
}

// Verify verifies a JWT access token of a tenant as [Verifier.Verify] does. The token of an issuer that is no tenant is
// refused with an error that wraps [valetkey.ErrNotApplicable].
func (t *TenantVerifier) Verify(ctx context.Context, raw string) (*valetkey.Token, error) {
	c, claims, err := read(raw)
	if err != nil {
		return nil, err
	}
	iss, _ := claims.iss.Text()
	if iss == "" || len(iss) > maxIssuer {
		return nil, notMine(iss)
	}
	x, err := t.tenant(ctx, iss)
	if err != nil {
		return nil, err
	}
	token, err := x.verify(ctx, c, claims)
	if err != nil && x.removed() {
		// The tenant was replaced during the check, and its keys are gone with it. What counts is what it is now. Once is
		// enough: a tenant that is replaced as fast as a token is verified gets 503.
		if x, err = t.tenant(ctx, iss); err != nil {
			return nil, err
		}
		token, err = x.verify(ctx, c, claims)
	}
	if err != nil {
		return nil, err
	}
	t.prove(x)
	f := token.Fields()
	f.Freshness.While = lease{f.Freshness.While, x}
	return valetkey.NewToken(f), nil
}

// A lease holds while the key of a token and the tenant do.
type lease struct {
	key    valetkey.Condition
	tenant *tenant
}

func (l lease) Holds() bool { return l.key.Holds() && l.tenant.holds() }

// clock returns the monotonic time since t was made.
func (t *TenantVerifier) clock() int64 { return int64(time.Since(t.start)) }

// holds reports whether Lookup's word for x still counts. It has it renewed in time, without a wait: that x is asked for a
// remembered token is use as well.
func (x *tenant) holds() bool {
	now := x.owner.clock()
	if due := x.due.Load(); now >= due && x.due.CompareAndSwap(due, now+int64(x.owner.cfg.TTL/10)) {
		x.owner.renew(x)
	}
	return now < x.until.Load()
}

// removed reports whether x, which has been in the table, is no longer there.
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
	limit := time.NewTimer(maxLookupWait)
	defer limit.Stop()
	select {
	case <-f.done:
		return f.tenant, f.err
	case <-ctx.Done():
		return nil, unavailable(fmt.Errorf("looking up the tenant %.200q: %w", iss, context.Cause(ctx)))
	case <-limit.C:
		return nil, unavailable(fmt.Errorf("looking up the tenant %.200q: no answer yet", iss))
	}
}

// demand returns the lookup of iss that is in progress, or begins one.
func (t *TenantVerifier) demand(iss string) (*lookup, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if f := t.flights[iss]; f != nil {
		return f, nil
	}
	now := t.clock()
	t.notTenants.forget(now)
	switch {
	case t.closed:
		return nil, unavailable(errTenantsClosed)
	case t.notTenants.has(iss):
		return nil, notMine(iss)
	case len(t.flights)-t.renewals >= maxLookups:
		return nil, unavailable(errors.New("too many unknown issuers are being looked up"))
	case t.notTenants.full():
		return nil, unavailable(errors.New("too many unknown issuers have been looked up"))
	}
	return t.begin(strings.Clone(iss), false), nil
}

var errTenantsClosed = errors.New("the tenants are closed")

func unavailable(err error) error {
	return &valetkey.Unavailable{RetryAfter: time.Second, Err: fmt.Errorf("jwks: %w", err)}
}

// begin starts a lookup. It is detached from whoever asks for it.
func (t *TenantVerifier) begin(iss string, renewal bool) *lookup {
	f := &lookup{done: make(chan struct{}), renewal: renewal}
	t.flights[iss] = f
	if renewal {
		t.renewals++
	}
	t.work.Go(func() {
		asked := t.clock()
		cfg, err := t.ask(iss)
		t.land(iss, f, asked, cfg, err)
		close(f.done)
	})
	return f
}

// ask calls Lookup.
func (t *TenantVerifier) ask(iss string) (cfg Config, err error) {
	ctx, cancel := context.WithTimeout(t.ctx, maxLookup)
	defer cancel()
	defer func() {
		if p := recover(); p != nil { // this is no goroutine of net/http, where it would end one request
			err = fmt.Errorf("Lookup panicked: %v", p)
		}
	}()
	return t.cfg.Lookup(ctx, iss)
}

// land takes the answer of Lookup in.
func (t *TenantVerifier) land(iss string, f *lookup, asked int64, cfg Config, err error) {
	stranger := errors.Is(err, ErrNoTenant) || err == nil && cfg.Issuer == ""
	var next *tenant
	var mistake error
	if err == nil && !stranger {
		next, mistake = t.open(iss, cfg)
	}

	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.flights, iss)
	if f.renewal {
		t.renewals--
	}
	if t.closed {
		f.err = unavailable(errTenantsClosed)
		return
	}
	held := t.tenants[iss]
	switch {
	case stranger:
		t.comes(valetkey.Ready, nil)
		t.remove(held)
		t.notTenants.add(iss, t.clock())
		f.err = notMine(iss)
	case err != nil || mistake != nil:
		if err != nil {
			t.comes(valetkey.Degraded, err)
		} else {
			t.comes(valetkey.Ready, nil)
		}
		err = fmt.Errorf("looking up the tenant %.200q: %w", iss, errors.Join(err, mistake))
		if held != nil {
			t.cfg.Logger.Warn("tenants: a tenant is not renewed", "issuer", iss, "error", err)
		}
		f.err = unavailable(err)
	default:
		t.comes(valetkey.Ready, nil)
		if held == nil || held.settings != next.settings {
			t.remove(held)
			t.insert(next)
			held = next
		}
		t.extend(held, asked)
		f.tenant = held
	}
}

// open returns the tenant that cfg describes, which does nothing yet.
func (t *TenantVerifier) open(iss string, cfg Config) (*tenant, error) {
	if cfg.Issuer != iss {
		return nil, fmt.Errorf("Issuer: %.200q is another one", cfg.Issuer)
	}
	if cfg.Client != nil || cfg.Logger != nil || cfg.Observer != nil || cfg.Now != nil {
		return nil, errors.New("Client, Logger, Observer, Now: the same for all tenants, and so not of one")
	}
	x := &tenant{owner: t, settings: sha256.Sum256(fmt.Appendf(nil, "%#v", cfg))} // there is no pointer in it
	cfg.Client, cfg.Logger, cfg.Observer, cfg.Now = t.client, t.cfg.Logger, t.cfg.Observer, t.cfg.Now
	v, err := New(cfg)
	if err != nil {
		return nil, err
	}
	x.Verifier = v
	return x, nil
}

// extend makes Lookup's word for x count from when it was asked.
func (t *TenantVerifier) extend(x *tenant, asked int64) {
	x.due.Store(asked + int64(t.cfg.TTL/2))
	x.until.Store(asked + int64(t.cfg.TTL))
	if x.end != nil {
		x.end.Stop()
	}
	x.end = time.AfterFunc(time.Duration(x.until.Load()-t.clock()), func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.tenants[x.issuer] == x && t.clock() >= x.until.Load() { // else it was stopped too late
			t.remove(x)
		}
	})
}

// insert takes x into the table. Who names tenants without having a token of theirs can push out newcomers only, once these
// are an eighth of all.
func (t *TenantVerifier) insert(x *tenant) {
	t.tenants[x.issuer] = x
	x.place = t.newcomers.PushFront(x)
	if len(t.tenants) <= t.cfg.Max {
		return
	}
	oldest := t.proven.Back()
	if oldest == nil || t.newcomers.Len() > max(1, t.cfg.Max/8) {
		oldest = t.newcomers.Back()
	}
	t.remove(oldest.Value.(*tenant))
}

// prove notes that x has had a good token.
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

// remove takes x, if it is not nil, out of the table and closes it: tokens that are remembered are forgotten.
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
	x.until.Store(0) // now, and not when Close has come to withdraw the keys
	if x.end != nil {
		x.end.Stop()
	}
	t.work.Go(x.Close)
}

func (t *TenantVerifier) comes(state valetkey.State, err error) {
	if t.health.State != state {
		t.health.Since = time.Now()
	}
	t.health.State, t.health.Err = state, err
}

// Health returns how the lookups are, under the name "tenants": degraded if the last one was a failure. A tenant whose own
// issuer is down is not counted, since it must not take the others with it; see [TenantVerifier.Tenants].
func (t *TenantVerifier) Health() []valetkey.Health {
	t.mu.Lock()
	defer t.mu.Unlock()
	return []valetkey.Health{t.health}
}

// Tenants returns how each tenant is that is held, by issuer.
func (t *TenantVerifier) Tenants() (all []valetkey.Health) {
	t.mu.Lock()
	held := maps.Clone(t.tenants)
	t.mu.Unlock()
	for _, iss := range slices.Sorted(maps.Keys(held)) {
		all = append(all, held[iss].Health()...)
	}
	return all
}

// Ready returns nil unless t is closed: there is nothing to fetch before a tenant is asked for.
func (t *TenantVerifier) Ready(context.Context) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return fmt.Errorf("jwks: %w", errTenantsClosed)
	}
	return nil
}

// Close ends lookups and closes all tenants, and waits for that. What is verified later gets 503, and remembered tokens are
// forgotten. It may be called more than once.
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
