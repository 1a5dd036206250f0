package engine

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"fmt"
	"slices"

	"github.com/luikyv/go-oidc/pkg/goidc"
)

// generateKeys makes one signing key for each algorithm that an API has its JWTs signed with.
func generateKeys(apis []API) (goidc.JSONWebKeySet, error) {
	var set goidc.JSONWebKeySet
	for _, a := range apis {
		made := slices.ContainsFunc(set.Keys, func(k goidc.JSONWebKey) bool { return k.Algorithm == a.Algorithm })
		if a.Opaque || made {
			continue
		}
		k, err := generateKey(a.Algorithm)
		if err != nil {
			return set, fmt.Errorf("generate the %s signing key: %w", a.Algorithm, err)
		}
		set.Keys = append(set.Keys, k)
	}
	return set, nil
}

func generateKey(alg string) (goidc.JSONWebKey, error) {
	var private crypto.Signer
	var err error
	switch alg {
	case "ES256":
		private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "RS256":
		private, err = rsa.GenerateKey(rand.Reader, 2048)
	default:
		err = fmt.Errorf("unknown algorithm %q", alg)
	}
	if err != nil {
		return goidc.JSONWebKey{}, err
	}
	k := goidc.JSONWebKey{Key: private, Algorithm: alg, Use: "sig"}
	thumbprint, err := k.Thumbprint(crypto.SHA256) // RFC 7638
	if err != nil {
		return goidc.JSONWebKey{}, err
	}
	k.KeyID = base64.RawURLEncoding.EncodeToString(thumbprint)
	return k, nil
}
