package store

import (
	"crypto/sha256"
	"encoding/base64"
)

// Digest returns the SHA-256 digest of a secret in base64url, 43 characters: what a store keeps in its place. It hides only
// a secret that is random enough not to be guessed.
func Digest(secret string) string {
	d := sha256.Sum256([]byte(secret))
	return base64.RawURLEncoding.EncodeToString(d[:])
}
