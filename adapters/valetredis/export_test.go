package valetredis

import (
	"context"
	"encoding/json"
	"time"

	"github.com/valetkey/valetkey"
)

// PublishText publishes text in place of the JSON of a revocation, as a later version of this package might.
func (r *Redis) PublishText(ctx context.Context, text string) error {
	sealed, err := r.keys.seal(r.stream, []byte(text))
	if err != nil {
		return err
	}
	return r.add(ctx, sealed, time.Now(), maxAll)
}

// Understand decodes the text of an entry that matters until a time, by a Redis that keeps entries for keep.
func Understand(text []byte, keep time.Duration, until time.Time) (revoked valetkey.Revocation, unknown, err error) {
	return (&Redis{cfg: Config{Keep: keep}}).understand(text, until)
}

// Encode returns the text of an entry.
func Encode(revoked valetkey.Revocation) ([]byte, error) {
	return json.Marshal(record{Version: recordVersion, Revocation: revoked})
}

// A Keyring seals values under names.
type Keyring struct{ *keyring }

// NewKeyring returns a Keyring with one key.
func NewKeyring(key []byte) (Keyring, error) {
	k, err := newKeyring(key, nil)
	return Keyring{k}, err
}

// Seal seals text under a name.
func (k Keyring) Seal(name string, text []byte) ([]byte, error) { return k.seal(name, text) }

// Open opens what was sealed under a name.
func (k Keyring) Open(name string, sealed []byte) ([]byte, error) { return k.open(name, sealed) }
