package keys

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/valetkey/valetkey/internal/jose"
)

// ErrSeal is wrapped by the error for a key that is encrypted under another secret than those configured.
var ErrSeal = errors.New("the key is sealed under another secret than Seal and SealPrevious")

const minSeal = 32 // bytes

// A seal encrypts keys: AES-256-GCM under a key that HKDF-SHA256 (RFC 5869) derives from a secret.
type seal struct {
	id   string // identifies the secret without revealing anything about it
	aead cipher.AEAD
}

// newSeal returns nil if there is no secret.
func newSeal(secret []byte) (*seal, error) {
	if len(secret) == 0 {
		return nil, nil
	}
	id, err := hkdf.Key(sha256.New, secret, nil, "valetkey signing keys: id", 9)
	if err != nil {
		return nil, fmt.Errorf("derive the id of the seal: %w", err)
	}
	k, err := hkdf.Key(sha256.New, secret, nil, "valetkey signing keys: AES-256-GCM", 32)
	if err != nil {
		return nil, fmt.Errorf("derive the seal: %w", err)
	}
	block, err := aes.NewCipher(k)
	if err != nil {
		return nil, fmt.Errorf("make the seal: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block) // each ciphertext is preceded by a nonce of 96 bits
	if err != nil {
		return nil, fmt.Errorf("make the seal: %w", err)
	}
	return &seal{base64.RawURLEncoding.EncodeToString(id), aead}, nil
}

// label returns the data that an encrypted key is bound to, so that it cannot replace another one.
func (k *key) label(alg string) []byte { return []byte(k.ID + "|" + alg) }

// close encrypts the private key for the store.
func (r *Ring) close(k *key, alg string) {
	if r.seal == nil {
		k.JWK = k.private.PrivateJWK()
		return
	}
	k.JWK, k.SealID = nil, r.seal.id
	k.Sealed = r.seal.aead.Seal(nil, nil, k.private.PrivateJWK(), k.label(alg))
}

// open decrypts the private key from the store.
func (r *Ring) open(k *key, alg string) (*jose.PrivateKey, error) {
	text := []byte(k.JWK)
	if k.SealID != "" {
		var err error
		if text, err = r.unseal(k, alg); err != nil {
			return nil, err
		}
	}
	private, err := jose.ParsePrivateKey(text, alg)
	if err != nil {
		return nil, err
	}
	if private.ID() != k.ID {
		return nil, errors.New("the stored key has another id")
	}
	return private, nil
}

func (r *Ring) unseal(k *key, alg string) ([]byte, error) {
	for _, s := range []*seal{r.seal, r.before} {
		if s == nil || s.id != k.SealID {
			continue
		}
		text, err := s.aead.Open(nil, nil, k.Sealed, k.label(alg))
		if err != nil {
			return nil, errors.New("the stored key is damaged, or belongs to another record")
		}
		return text, nil
	}
	return nil, ErrSeal
}
