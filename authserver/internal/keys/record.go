package keys

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/valetkey/valetkey/authserver/store"
	"github.com/valetkey/valetkey/internal/jose"
)

const kind = "key"

// A record is the stored keys of an algorithm, oldest first. Each key signs from its Active until the Active of the next one, so
// replicas that have read the record switch at the same moment.
type record struct {
	Keys  []*key    `json:"keys"`
	Ended time.Time `json:"ended,omitzero"` // since when the algorithm is no longer configured

	version int64
}

// A key is stored encrypted, or in clear text.
type key struct {
	ID        string          `json:"kid"`
	Published time.Time       `json:"published"`
	Active    time.Time       `json:"active,omitzero"` // zero: not decided, for the last key only
	SealID    string          `json:"seal_id,omitempty"`
	Sealed    []byte          `json:"sealed,omitempty"`
	JWK       json.RawMessage `json:"jwk,omitempty"`

	private *jose.PrivateKey
}

// signing returns the index of the key that signs, or -1.
func (rec *record) signing(now time.Time) int {
	for i, k := range slices.Backward(rec.Keys) {
		// The first key signs even if its time has not come according to this replica's clock, because there is no other.
		if i == 0 || !k.Active.IsZero() && !now.Before(k.Active) {
			return i
		}
	}
	return -1
}

// promote schedules the next key to become active once it has been published for lead; zero means now. It returns false if that
// or an earlier time is already scheduled.
func (rec *record) promote(now time.Time, lead time.Duration) bool {
	next := rec.Keys[len(rec.Keys)-1]
	at := next.Published.Add(lead)
	if lead == 0 || at.Before(now) {
		at = now
	}
	if !next.Active.IsZero() && !at.Before(next.Active) {
		return false
	}
	next.Active = at
	return true
}

// gone returns when key i leaves the key set, or zero if that is not decided.
func (r *Ring) gone(rec *record, i int) time.Time {
	end := rec.Ended
	if i+1 < len(rec.Keys) {
		end = rec.Keys[i+1].Active
	}
	if end.IsZero() {
		return end
	}
	return end.Add(r.cfg.Retire + 2*r.reload) // other replicas may sign with it slightly longer
}

// update applies due changes and change to the record of an algorithm, and adopts the result. change is called again if the
// record has been written meanwhile.
func (r *Ring) update(ctx context.Context, alg string, change func(*record, time.Time) bool) error {
	for {
		rec, err := r.read(ctx, alg)
		if err != nil {
			return err
		}
		now := time.Now().UTC()
		changed, err := r.tidy(rec, alg, now)
		if err == nil && rec.Ended.IsZero() && change(rec, now) {
			changed = true
			_, err = r.tidy(rec, alg, now) // the next key may have become the active one
		}
		if err == nil && changed {
			err = r.write(ctx, alg, rec)
		}
		switch {
		case err == nil:
			return r.take(alg, rec)
		case !errors.Is(err, store.ErrConflict):
			return err
		}
	}
}

// read returns the record of an algorithm with its private keys, or an empty one.
func (r *Ring) read(ctx context.Context, alg string) (*record, error) {
	stored, err := r.store.Get(ctx, kind, alg)
	if errors.Is(err, store.ErrNotFound) {
		return &record{}, nil
	}
	if err != nil {
		return nil, err
	}
	rec := &record{version: stored.Version}
	if err := json.Unmarshal(stored.Value, rec); err != nil {
		return nil, fmt.Errorf("the stored record: %w", err)
	}
	known := map[string]*jose.PrivateKey{}
	if held := r.state.Load().records[alg]; held != nil {
		for _, k := range held.Keys {
			known[k.ID] = k.private
		}
	}
	for _, k := range rec.Keys {
		if k.private = known[k.ID]; k.private != nil {
			continue
		}
		if k.private, err = r.open(k, alg); err != nil {
			return nil, fmt.Errorf("key %s: %w", k.ID, err)
		}
	}
	return rec, nil
}

// tidy applies due changes, and reports whether there were any.
func (r *Ring) tidy(rec *record, alg string, now time.Time) (changed bool, err error) {
	listed := slices.Contains(r.cfg.Algorithms, alg)
	switch {
	case listed && !rec.Ended.IsZero():
		rec.Ended, changed = time.Time{}, true
	case !listed && rec.Ended.IsZero():
		rec.Keys = rec.Keys[:rec.signing(now)+1]
		rec.Ended, changed = now, true
	}
	for len(rec.Keys) > 0 && !r.gone(rec, 0).IsZero() && !now.Before(r.gone(rec, 0)) {
		rec.Keys, changed = rec.Keys[1:], true
	}
	for _, k := range rec.Keys {
		// Leave keys under an unknown secret alone: another replica has a newer one.
		if r.seal != nil && (k.SealID == "" || r.before != nil && k.SealID == r.before.id) {
			r.close(k, alg)
			changed = true
		}
	}
	if !listed {
		return changed, nil
	}
	for len(rec.Keys) == 0 || !rec.Keys[len(rec.Keys)-1].Active.IsZero() && !now.Before(rec.Keys[len(rec.Keys)-1].Active) {
		private, err := jose.GenerateKey(alg, "")
		if err != nil {
			return false, err
		}
		k := &key{ID: private.ID(), Published: now, private: private}
		if len(rec.Keys) == 0 {
			k.Active = now
		}
		r.close(k, alg)
		rec.Keys, changed = append(rec.Keys, k), true
	}
	return changed, nil
}

func (r *Ring) write(ctx context.Context, alg string, rec *record) error {
	value, err := json.Marshal(rec)
	if err != nil {
		return fmt.Errorf("the record to store: %w", err)
	}
	rec.version, err = r.store.Put(ctx, store.Record{Kind: kind, ID: alg, Version: rec.version, Value: value})
	return err
}

// take adopts the record into the state, unless the state has a newer one.
func (r *Ring) take(alg string, rec *record) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	old := r.state.Load()
	if held := old.records[alg]; held != nil && held.version >= rec.version {
		return nil
	}
	s := &state{records: map[string]*record{alg: rec}}
	for other, held := range old.records {
		if other != alg {
			s.records[other] = held
		}
	}
	set := struct {
		Keys []json.RawMessage `json:"keys"`
	}{[]json.RawMessage{}}
	for _, alg := range slices.Sorted(maps.Keys(s.records)) {
		for _, k := range s.records[alg].Keys {
			set.Keys = append(set.Keys, k.private.PublicJWK())
		}
	}
	var err error
	if s.set, err = json.Marshal(set); err != nil {
		return fmt.Errorf("write the key set: %w", err)
	}
	r.state.Store(s)
	return nil
}
