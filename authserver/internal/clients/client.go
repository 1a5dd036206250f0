// Package clients manages the clients: those in the configuration, which do not change, and those that were registered, which
// are in the store.
package clients

import (
	"crypto/subtle"
	"slices"

	"github.com/valetkey/valetkey/authserver/model"
	"github.com/valetkey/valetkey/authserver/store"
)

// Client is short for model.Client.
type Client = model.Client

// sameDigest returns 1 if digest is that of secret, and 0 otherwise.
func sameDigest(digest, secret string) int {
	return subtle.ConstantTimeCompare([]byte(digest), []byte(store.Digest(secret)))
}

// usesSecret reports whether clients with an authentication method have a secret.
func usesSecret(method string) bool {
	return method == "client_secret_basic" || method == "client_secret_post"
}

func has(c *Client, grant string) bool { return slices.Contains(c.GrantTypes, grant) }
