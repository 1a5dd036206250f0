package store

import (
	"crypto/sha256"
	"encoding/base64"
)

// Digest returns the SHA-256 digest of a secret in base64url, 43 characters, which a store keeps instead of the secret. It
// protects only a secret that is too random to be guessed.
func Digest(secret string) string {
	d := sha256.Sum256([]byte(secret))
	return base64.RawURLEncoding.EncodeToString(d[:])
}
