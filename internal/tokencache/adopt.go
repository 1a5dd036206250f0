package tokencache

import "github.com/valetkey/valetkey"

// Adopt caches the tokens of old for which keep returns true, as far as there is room, without verifying them again. Each keeps the
// end of its freshness, which is not extended, and its condition. It returns the number of tokens cached. A token that is removed
// from old while Adopt runs may be cached nevertheless, so remove it from c after Adopt, as from old.
//
// Adopt scans every entry, and holds no lock of old while keep runs.
func (c *Cache) Adopt(old *Cache, keep func(*valetkey.Token) bool) int {
	if c.shards == nil {
		return 0
	}
	adopted := 0
	for i := range old.shards {
		for _, r := range old.shards[i].records() {
			if t := r.token(); keep(t) && c.adopt(r, t) {
				adopted++
			}
		}
	}
	return adopted
}

// adopt caches a copy of a record of another cache and its token t, and reports whether there was room. The text is shared: it does
// not change.
func (c *Cache) adopt(old *record, t *valetkey.Token) bool {
	now := c.now()
	limit := now.Add(c.maxAge).UnixMicro()
	r := &record{
		key: old.key, bytes: old.bytes, text: old.text, claims: old.claims,
		subject: old.subject, clientID: old.clientID, id: old.id, sessionID: old.sessionID, acr: old.acr,
		moments: old.moments, rare: old.rare,
	}
	r.moments[until] = min(r.moments[until], limit)
	r.state.Store(old.state.Load() & protected)
	e := &Entry{cache: c}
	e.set(t)
	if r.expired(now) || !e.alive(now) { // foreign code, so before the lock
		return false
	}
	s := c.shard(&r.key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.get(&r.key) != nil {
		return false
	}
	return s.insert(r, e, now)
}
