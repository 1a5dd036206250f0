package main

import (
	"crypto"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/valetkey/valetkey/internal/jose"
)

// The claims of the tokens.
const (
	issuerURL = "https://as.example.com/tenants/4711"
	audience  = "https://api.example.com/orders"
	scope     = "orders:read orders:write billing:read profile"
	needed    = "orders:read"
	subject   = "248289761001-7f3c-4d1e-9a53-1c2b3d4e5f60"
	clientID  = "s6BhdRkqt3"
)

// An issuer signs access tokens of RFC 9068 with one key.
type issuer struct {
	algorithm string
	key       *jose.PrivateKey
	minted    int
}

func newIssuer(algorithm string) (*issuer, error) {
	key, err := jose.GenerateKey(algorithm, "")
	if err != nil {
		return nil, fmt.Errorf("making a key for %s: %w", algorithm, err)
	}
	return &issuer{algorithm: algorithm, key: key}, nil
}

func (iss *issuer) public() crypto.PublicKey { return iss.key.Signer().Public() }

// keys is the key set (RFC 7517, section 5) with the keys of issuers.
func keys(issuers ...*issuer) []byte {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	for _, iss := range issuers {
		set.Keys = append(set.Keys, iss.key.PublicJWK())
	}
	text, _ := json.Marshal(set) // of valid JSON: cannot go wrong
	return text
}

// claims are those of a good token, each time another one.
func (iss *issuer) claims() map[string]any {
	iss.minted++
	now := time.Now()
	return map[string]any{
		"iss": issuerURL, "aud": audience, "sub": subject,
		"client_id": clientID, "scope": scope, "iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
		"jti": fmt.Sprintf("b2f3c1e7-6a4d-4f0b-9a53-%012d", iss.minted),
	}
}

func (iss *issuer) sign(claims map[string]any) (string, error) {
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	return iss.key.Sign(map[string]any{"typ": "at+jwt"}, payload)
}

// tokens returns n good tokens that differ.
func (iss *issuer) tokens(n int) ([]*token, error) {
	all := make([]*token, n)
	for i := range all {
		raw, err := iss.sign(iss.claims())
		if err != nil {
			return nil, fmt.Errorf("signing with %s: %w", iss.algorithm, err)
		}
		all[i] = newToken(raw)
	}
	return all, nil
}

// A token is an access token in the forms that candidates need.
type token struct {
	raw              string
	input, signature []byte // of a JWT: what is signed, and the signature, decoded
	request          *http.Request
	response         *response
}

func newToken(raw string) *token {
	t := &token{raw: raw, response: &response{header: http.Header{}}}
	t.request, _ = http.NewRequest("GET", "http://api.example.com/orders", nil)
	t.request.Header.Set("Authorization", "Bearer "+raw)
	if dot := strings.LastIndexByte(raw, '.'); dot > 0 {
		t.input = []byte(raw[:dot])
		t.signature, _ = base64.RawURLEncoding.DecodeString(raw[dot+1:])
	}
	return t
}

// A response keeps the status and nothing else.
type response struct {
	header http.Header
	status int
}

func (r *response) Header() http.Header         { return r.header }
func (r *response) Write(b []byte) (int, error) { return len(b), nil }
func (r *response) WriteHeader(status int)      { r.status = status }

// serve sends the token's request to h and returns an error if it is refused.
func (t *token) serve(h http.Handler) error {
	t.response.status = 0
	h.ServeHTTP(t.response, t.request)
	if t.response.status >= 400 {
		return fmt.Errorf("the request was refused with status %d", t.response.status)
	}
	return nil
}
