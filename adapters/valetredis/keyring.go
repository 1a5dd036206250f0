package valetredis

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
)

const (
	keySize  = 32
	overhead = 12 + 16 // of sealing: nonce and tag of AES-GCM
)

// A keyring hides names and seals values, each with keys of its own. It is immutable.
type keyring struct {
	naming  []byte
	sealing [][]byte // the first seals, all open
}

func newKeyring(key []byte, previous [][]byte) (*keyring, error) {
	naming, err := hkdf.Key(sha256.New, key, nil, "valetredis v1 names", keySize)
	if err != nil {
		return nil, err
	}
	ring := &keyring{naming: naming}
	for _, k := range append([][]byte{key}, previous...) {
		sealing, err := hkdf.Key(sha256.New, k, nil, "valetredis v1 values", keySize)
		if err != nil {
			return nil, err
		}
		ring.sealing = append(ring.sealing, sealing)
	}
	return ring, nil
}

// hide returns a name that tells nothing of key.
func (k *keyring) hide(key string) string {
	return base64.RawURLEncoding.EncodeToString(mac(k.naming, key))
}

// seal returns text as only a keyring with the same key can open it, under the same name.
func (k *keyring) seal(name string, text []byte) ([]byte, error) {
	aead, err := newAEAD(k.sealing[0], name)
	if err != nil {
		return nil, err
	}
	return aead.Seal(nil, nil, text, []byte(name)), nil
}

var errSealed = errors.New("it was changed, or sealed under another key or name")

func (k *keyring) open(name string, sealed []byte) ([]byte, error) {
	for _, key := range k.sealing {
		aead, err := newAEAD(key, name)
		if err != nil {
			return nil, err
		}
		if text, err := aead.Open(nil, nil, sealed, []byte(name)); err == nil {
			return text, nil
		}
	}
	return nil, errSealed
}

// newAEAD returns AES-256-GCM under a key for that one name: random nonces are good for 2^32 values under one key (NIST
// SP 800-38D, section 8.3), which all replicas together could reach under a single one.
func newAEAD(key []byte, name string) (cipher.AEAD, error) {
	block, err := aes.NewCipher(mac(key, name))
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}
