package valetkeytest

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/valetkey/valetkey/internal/jose"
)

// A keyRing holds the keys of one issuer. No two issuers of a process hold the same key at the same time.
type keyRing struct {
	all       []*jose.PrivateKey          // that ever signed, or will; oldest first
	published map[*jose.PrivateKey]bool   // is in the key set
	signing   map[string]*jose.PrivateKey // algorithm -> key that signs now
	foreign   map[string]*jose.PrivateKey // algorithm -> key that is never published, for forgeries
	next      *jose.PrivateKey            // announced, or nil
}

func newKeyRing() keyRing {
	return keyRing{
		published: map[*jose.PrivateKey]bool{},
		signing:   map[string]*jose.PrivateKey{},
		foreign:   map[string]*jose.PrivateKey{},
	}
}

func (r *keyRing) publish(k *jose.PrivateKey) {
	r.all = append(r.all, k)
	r.published[k] = true
}

// drop removes every key with the given ID from the key set, and reports whether there was one.
func (r *keyRing) drop(id string) bool {
	before := len(r.published)
	for k := range r.published {
		if k.ID() == id {
			delete(r.published, k)
		}
	}
	return len(r.published) < before
}

// KeyID returns the ID (kid) of the key that currently signs with the default algorithm.
func (iss *Issuer) KeyID() string {
	iss.mu.Lock()
	defer iss.mu.Unlock()
	return iss.keys.signing[iss.algorithm()].ID()
}

// JWKS returns the key set as currently published (RFC 7517, section 5).
func (iss *Issuer) JWKS() []byte {
	iss.mu.Lock()
	defer iss.mu.Unlock()
	set := struct {
		Keys []json.RawMessage `json:"keys"`
	}{Keys: []json.RawMessage{}}
	for _, k := range iss.keys.all {
		if iss.keys.published[k] {
			set.Keys = append(set.Keys, k.PublicJWK())
		}
	}
	return mustJSON(set)
}

// PublishNextKey publishes the key that the next [Issuer.Rotate] will sign with, and returns its ID.
func (iss *Issuer) PublishNextKey() string {
	iss.t.Helper()
	iss.mu.Lock()
	defer iss.mu.Unlock()
	return iss.announceLocked().ID()
}

func (iss *Issuer) announceLocked() *jose.PrivateKey {
	iss.t.Helper()
	if iss.keys.next == nil {
		k, err := takeKey(iss.algorithm())
		if err != nil {
			iss.t.Errorf("valetkeytest: %v", err)
			return iss.keys.signing[iss.algorithm()]
		}
		iss.keys.publish(k)
		iss.keys.next = k
	}
	return iss.keys.next
}

// Rotate makes a new key sign with the default algorithm, and returns its ID. The key is the one of [Issuer.PublishNextKey],
// or else a new one that is published now. The old key stays published; see [Issuer.Withdraw].
func (iss *Issuer) Rotate() string {
	iss.t.Helper()
	iss.mu.Lock()
	defer iss.mu.Unlock()
	k := iss.announceLocked()
	iss.keys.signing[iss.algorithm()], iss.keys.next = k, nil
	return k.ID()
}

// Replace makes a new key sign under the ID of the old one, which it replaces in the key set. Issuers must not do that, but
// some have.
func (iss *Issuer) Replace() {
	iss.t.Helper()
	iss.mu.Lock()
	defer iss.mu.Unlock()
	old := iss.keys.signing[iss.algorithm()]
	k, err := jose.GenerateKey(old.Algorithm(), old.ID())
	if err != nil {
		iss.t.Errorf("valetkeytest: making a %s key: %v", old.Algorithm(), err)
		return
	}
	iss.keys.drop(old.ID())
	iss.keys.publish(k)
	iss.keys.signing[iss.algorithm()] = k
}

// Withdraw removes the key with the given ID from the key set. If it is the signing key, the issuer continues to sign with
// it, and the tokens cannot be verified. An ID that is not published fails the test.
func (iss *Issuer) Withdraw(id string) {
	iss.t.Helper()
	iss.mu.Lock()
	defer iss.mu.Unlock()
	if !iss.keys.drop(id) {
		iss.t.Errorf("valetkeytest: no key with the ID %q is published", id)
	}
}

// algorithm returns the default algorithm.
func (iss *Issuer) algorithm() string { return iss.settings.algorithms[0] }

// signingKey returns the key that currently signs with alg. It generates and publishes one if there is none.
func (iss *Issuer) signingKey(alg string) (*jose.PrivateKey, error) {
	iss.mu.Lock()
	defer iss.mu.Unlock()
	if k := iss.keys.signing[alg]; k != nil {
		return k, nil
	}
	k, err := takeKey(alg)
	if err != nil {
		return nil, err
	}
	iss.keys.publish(k)
	iss.keys.signing[alg] = k
	return k, nil
}

// foreignKey returns a key for alg that the issuer never publishes.
func (iss *Issuer) foreignKey(alg string) (*jose.PrivateKey, error) {
	iss.mu.Lock()
	defer iss.mu.Unlock()
	if k := iss.keys.foreign[alg]; k != nil {
		return k, nil
	}
	k, err := takeKey(alg)
	if err != nil {
		return nil, err
	}
	iss.keys.foreign[alg] = k
	return k, nil
}

// spareKeys holds RSA keys of issuers that have stopped, by algorithm, since generating one is slow.
var spareKeys = struct {
	sync.Mutex
	of map[string][]*jose.PrivateKey
}{of: map[string][]*jose.PrivateKey{}}

func takeKey(alg string) (*jose.PrivateKey, error) {
	if k := takeSpare(alg); k != nil {
		return k, nil
	}
	k, err := jose.GenerateKey(alg, "")
	if err != nil {
		return nil, fmt.Errorf("making a key for %q: %w", alg, err)
	}
	return k, nil
}

func takeSpare(alg string) *jose.PrivateKey {
	spareKeys.Lock()
	defer spareKeys.Unlock()
	list := spareKeys.of[alg]
	if len(list) == 0 {
		return nil
	}
	spareKeys.of[alg] = list[:len(list)-1]
	return list[len(list)-1]
}

func (iss *Issuer) giveBackKeys() {
	iss.mu.Lock()
	defer iss.mu.Unlock()
	spareKeys.Lock()
	defer spareKeys.Unlock()
	for _, k := range slices.Concat(iss.keys.all, slices.Collect(maps.Values(iss.keys.foreign))) {
		rsa := strings.HasPrefix(k.Algorithm(), "RS") || strings.HasPrefix(k.Algorithm(), "PS")
		if rsa && k.ID() == k.Public().Thumbprint() { // Replace has not set its ID
			spareKeys.of[k.Algorithm()] = append(spareKeys.of[k.Algorithm()], k)
		}
	}
}
