package valetkeytest

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"

	"github.com/valetkey/valetkey/internal/jose"
)

// ProofKey is the key with which a client signs DPoP proofs (RFC 9449). [Issuer.ProofKey] returns one. It is safe for
// concurrent use.
type ProofKey struct {
	iss *Issuer
	key *jose.PrivateKey
	jwk json.RawMessage
}

// ProofKey returns a new key that signs proofs with alg, one of the algorithms of [Algorithm]. Its proofs are dated with
// [Issuer.Now]. Any other alg fails the test.
func (iss *Issuer) ProofKey(alg string) *ProofKey {
	iss.t.Helper()
	key, err := jose.GenerateKey(alg, "")
	if err != nil {
		iss.t.Fatalf("valetkeytest: making a key for proofs: %v", err)
	}
	var members map[string]any
	if err := json.Unmarshal(key.PublicJWK(), &members); err != nil {
		iss.t.Fatalf("valetkeytest: reading the key for proofs: %v", err)
	}
	for _, name := range []string{"kid", "alg", "use"} { // clients do not send these
		delete(members, name)
	}
	return &ProofKey{iss, key, mustJSON(members)}
}

// Thumbprint returns the thumbprint to which tokens are bound: jkt (RFC 9449, section 6.1).
func (k *ProofKey) Thumbprint() string { return k.key.Public().Thumbprint() }

// BoundTo binds the token to k, so that only the holder of k can use the token (RFC 9449, section 6).
func BoundTo(k *ProofKey) Option {
	return Claim("cnf", map[string]string{"jkt": k.Thumbprint()})
}

// Proof returns a proof (RFC 9449, section 4.2) for one request with this method and absolute URL. token is the access token
// of the request; "" at a token endpoint. Options apply as for tokens: Claim("nonce", n) adds a nonce, Header("jwk", other)
// replaces the key in the header, and UnknownKey() makes a signature that this key does not verify.
func (k *ProofKey) Proof(method, url, token string, opts ...Option) string {
	k.iss.t.Helper()
	now := k.iss.Now()
	d := &draft{
		now:       now,
		own:       k.key,
		algorithm: k.key.Algorithm(),
		header:    map[string]any{"typ": "dpop+jwt", "jwk": k.jwk, "kid": nil},
		claims:    map[string]any{"jti": rand.Text(), "htm": method, "htu": url, "iat": now.Unix()},
	}
	if token != "" {
		hash := sha256.Sum256([]byte(token))
		d.claims["ath"] = base64.RawURLEncoding.EncodeToString(hash[:])
	}
	for _, o := range opts {
		o(d)
	}
	raw, err := k.iss.sign(d)
	if err != nil {
		k.iss.t.Errorf("valetkeytest: making a proof: %v", err)
	}
	return raw
}

// Authorize sets the header fields of r that carry token with the scheme DPoP and a new proof for it (RFC 9449, section 7.1).
// It replaces existing values. r may be a client request or a request for a handler under test, such as that of [Request].
func (k *ProofKey) Authorize(r *http.Request, token string, opts ...Option) {
	k.iss.t.Helper()
	url := *r.URL
	if url.Host == "" {
		url.Scheme, url.Host = "http", r.Host
		if r.TLS != nil {
			url.Scheme = "https"
		}
	}
	url.User, url.RawQuery, url.ForceQuery, url.Fragment, url.RawFragment = nil, "", false, "", ""
	r.Header.Set("Authorization", "DPoP "+token)
	r.Header.Set("DPoP", k.Proof(r.Method, url.String(), token, opts...))
}
