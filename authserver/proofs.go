package authserver

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"github.com/valetkey/valetkey/authserver/store"
	"github.com/valetkey/valetkey/dpop"
)

// proofs verifies those of clients that want tokens bound to a key (RFC 9449, section 5). Each is good once: at all replicas, if
// they share a store.
func (cfg *Config) proofs(shared bool) (*dpop.Verifier, error) {
	var used dpop.Replays // of this process
	if shared {
		used = usedProofs{cfg.Store}
	}
	return dpop.New(dpop.Config{Replays: used})
}

// usedProofs remembers proofs in a store, as records of kind proof.
type usedProofs struct{ records store.Store }

// Use is as [dpop.Replays] says: of several writers of a new record, one succeeds.
func (u usedProofs) Use(ctx context.Context, key [32]byte, until time.Time) (fresh bool, err error) {
	_, err = u.records.Put(ctx, store.Record{
		Kind: "proof", ID: base64.RawURLEncoding.EncodeToString(key[:]), Expires: until.Add(time.Second), // for the rest of a second is lost
	})
	if errors.Is(err, store.ErrConflict) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("remember a proof: %w", err)
	}
	return true, nil
}
