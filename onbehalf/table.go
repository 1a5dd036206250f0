package onbehalf

import (
	"container/list"
	"errors"
	"sync"
	"time"

	"github.com/valetkey/valetkey"
	"github.com/valetkey/valetkey/internal/digest"
	"github.com/valetkey/valetkey/internal/flight"
)

// A key identifies a result by what it depends on: the text of the input token, and the endpoint, the client, the dialect, the
// audiences, the resources and the scopes. It never contains the subject: two users, or two tokens of one user with different rights,
// must not share a result, and a subject may be empty.
type key struct{ input, what digest.Digest }

// A result is what an exchange has brought.
type result struct {
	input  *valetkey.Token // nil: there is none
	text   string
	scheme string
	expiry time.Time // of the token; zero: unknown
	until  time.Time // when it is no longer used; zero: it is not cached
	err    error     // nil: there is a token
}

// entryBytes is the memory that an entry takes without its texts.
const entryBytes = 400

func (r *result) size() int64 {
	n := int64(entryBytes + len(r.text))
	if r.input != nil {
		n += int64(len(r.input.Raw())) // the guard may have dropped the token already
	}
	return n
}

type entry struct {
	key  key
	made time.Time
	result
}

// A table holds the results, those in progress, and the number of calls that wait for them.
//
// Results: holders of tokens that a guard has accepted fill it, one entry per token. When it is full, the entry that was not used for
// the longest time is removed. A caller with many tokens can thus remove the entries of others, whose next call then costs one more
// exchange and has the same result.
//
// In progress and waiting: the same callers fill them, when the authorization server is slow. One caller, identified by issuer, subject
// and client, has an eighth of the places, so its calls alone cannot fill them; beyond its share, its calls get 503 and those of others
// do not. The callers that are counted are those that wait, which bounds their map. Nothing of it grows when the server is fast.
type table struct {
	maxBytes           int64
	maxFlying, maxWait int
	ownFlying, ownWait int // of one caller
	now                func() time.Time

	mu      sync.Mutex // never held during I/O
	closed  bool
	entries map[key]*list.Element // of *entry
	order   list.List             // most recently used first
	bytes   int64
	asking  flight.Table[key, result]
	flying  int
	waiting int
	callers map[string]*caller
}

type caller struct{ flying, waiting int }

type pending = flight.Flight[key, result]

var (
	errClosed = errors.New("onbehalf: the client is closed")
	errBusy   = errors.New("onbehalf: too many exchanges are in progress")
)

func (t *table) init(cfg Config) {
	t.maxBytes, t.maxFlying, t.maxWait, t.now = cfg.CacheBytes, cfg.MaxInFlight, cfg.MaxWaiting, cfg.Now
	t.ownFlying, t.ownWait = max(1, t.maxFlying/share), max(1, t.maxWait/share)
	if cfg.Dialect == ClientCredentials { // there is one caller, and one exchange
		t.ownFlying, t.ownWait = t.maxFlying, t.maxWait
	}
	t.entries = map[key]*list.Element{}
	t.asking = flight.Table[key, result]{}
	t.callers = map[string]*caller{}
}

// find returns the cached result, or nil.
func (t *table) find(k key) *result {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.findLocked(k)
}

func (t *table) findLocked(k key) *result {
	e := t.entries[k]
	if e == nil {
		return nil
	}
	found := e.Value.(*entry)
	if !t.now().Before(found.until) {
		t.removeLocked(e)
		return nil
	}
	t.order.MoveToFront(e)
	return &found.result
}

// join returns the cached result, or the exchange in progress. If there is none, it calls begin, which must start it in another
// goroutine. If join returns an exchange, the caller must call leave with who when it waits no longer.
func (t *table) join(k key, who string, input *valetkey.Token, begin func(p *pending)) (*result, *pending, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r := t.findLocked(k); r != nil {
		return r, nil, nil
	}
	own := t.callers[who]
	if own == nil {
		own = &caller{}
	}
	p := t.asking.Join(k)
	switch {
	case t.closed:
		return nil, nil, &valetkey.Unavailable{Err: errClosed}
	case t.waiting >= t.maxWait, own.waiting >= t.ownWait, p == nil && (t.flying >= t.maxFlying || own.flying >= t.ownFlying):
		return nil, nil, &valetkey.Unavailable{RetryAfter: time.Second, Err: errBusy}
	}
	if p == nil {
		t.asking.Start(k).Result.input = input
		p = t.asking.Join(k)
		t.flying++
		own.flying++
		begin(p) // under the lock, so that Close waits for it
	}
	t.waiting++
	own.waiting++
	t.callers[who] = own
	return nil, p, nil
}

func (t *table) leave(who string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.waiting--
	t.callers[who].waiting--
	t.tidyLocked(who)
}

func (t *table) tidyLocked(who string) {
	if *t.callers[who] == (caller{}) {
		delete(t.callers, who)
	}
}

// land ends p, and caches r unless p has been purged in the meantime.
func (t *table) land(p *pending, k key, who string, r result) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.flying--
	t.callers[who].flying--
	t.tidyLocked(who)
	p.Result = r
	if !t.asking.Land(p) || r.until.IsZero() || t.closed {
		return
	}
	if size := r.size(); size <= t.maxBytes {
		t.bytes += size
		t.entries[k] = t.order.PushFront(&entry{k, t.now(), r})
	}
	for t.bytes > t.maxBytes {
		t.removeLocked(t.order.Back())
	}
}

func (t *table) removeLocked(e *list.Element) {
	gone := t.order.Remove(e).(*entry)
	delete(t.entries, gone.key)
	t.bytes -= gone.size()
}

// purge removes the results, and those in progress, whose input matches; all if match is nil. Those that wait get the result.
func (t *table) purge(match func(*valetkey.Token) bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	matches := func(input *valetkey.Token) bool { return match == nil || input != nil && match(input) }
	for _, e := range t.entries {
		if matches(e.Value.(*entry).input) {
			t.removeLocked(e)
		}
	}
	for k, p := range t.asking {
		if matches(p.Result.input) {
			delete(t.asking, k)
		}
	}
}

// rejectedAfter is how old a result must be so that a 401 of the called service removes it. A service that always answers 401 thus causes
// one exchange per token in this time.
const rejectedAfter = 10 * time.Second

// reject removes a token that the called service does not accept.
func (t *table) reject(k key) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.entries[k]; e != nil && t.now().Sub(e.Value.(*entry).made) >= rejectedAfter {
		t.removeLocked(e)
	}
}

func (t *table) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
}
