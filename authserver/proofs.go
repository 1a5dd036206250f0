package authserver

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"github.com/valetkey/valetkey/authserver/store"
	"github.com/valetkey/valetkey/dpop"
)

// proofs returns the verifier of DPoP proofs from clients that request bound tokens (RFC 9449, section 5). Each proof is
// accepted once, across all replicas if they share a store.
func (cfg *Config) proofs(shared bool) (*dpop.Verifier, error) {
	var used dpop.ReplayStore // nil: in memory of this process
	if shared {
		used = usedProofs{cfg.Store}
	}
	verify := dpop.Config{ReplayStore: used}
	if cfg.DPoPNonce {
		made, err := cfg.nonces()
		if err != nil {
			return nil, fmt.Errorf("make nonces: %w", err)
		}
		verify.Nonces = made
	}
	return dpop.New(verify)
}

// nonces returns nonces that all servers with this Seal accept. Without a Seal, only this process accepts them.
func (cfg *Config) nonces() (*dpop.Nonces, error) {
	var keys dpop.NoncesConfig
	for i, seal := range [][]byte{cfg.Seal, cfg.SealPrevious} {
		if len(seal) == 0 {
			continue
		}
		key, err := hkdf.Key(sha256.New, seal, nil, "valetkey nonces", 32)
		switch {
		case err != nil:
			return nil, err
		case i == 0:
			keys.Key = key
		default:
			keys.Previous = append(keys.Previous, key)
		}
	}
	return dpop.NewNonces(keys)
}

// usedProofs remembers proofs in a store, as records of kind proof.
type usedProofs struct{ records store.Store }

// Use implements [dpop.ReplayStore]: of several writers of a new record, one succeeds.
func (u usedProofs) Use(ctx context.Context, key [32]byte, until time.Time) (fresh bool, err error) {
	_, err = u.records.Put(ctx, store.Record{
		Kind: "proof", ID: base64.RawURLEncoding.EncodeToString(key[:]), Expires: until.Add(time.Second), // the store truncates to whole seconds
	})
	if errors.Is(err, store.ErrConflict) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("remember a proof: %w", err)
	}
	return true, nil
}
