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
	overhead = 12 + 16 // bytes that sealing adds: nonce and tag of AES-GCM
)

// A keyring hides names and seals values, each with separate derived keys. It is immutable.
type keyring struct {
	naming  []byte
	sealing [][]byte // the first key seals; all keys open
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

// hide returns a name that reveals nothing about key.
func (k *keyring) hide(key string) string {
	return base64.RawURLEncoding.EncodeToString(mac(k.naming, key))
}

// seal encrypts text. Only a keyring with the same key can open the result, and only under the same name.
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

// newAEAD returns AES-256-GCM with a key that is derived for this name. Random nonces permit 2^32 values per key (NIST SP
// 800-38D, section 8.3), which all replicas together could exceed with a single key.
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
