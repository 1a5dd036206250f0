package onbehalf

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/valetkey/valetkey/internal/jose"
)

// A prover makes DPoP proofs (RFC 9449, section 4.2) with one key.
type prover struct {
	signer *jose.PrivateKey
	header map[string]any
	now    func() time.Time

	mu     sync.Mutex
	nonces map[string]string // by origin: those of the token endpoint and of the targets, which the configuration bounds
}

func newProver(signer *jose.PrivateKey, now func() time.Time) *prover {
	return &prover{signer: signer, now: now, nonces: map[string]string{},
		header: map[string]any{"typ": "dpop+jwt", "kid": nil, "jwk": signer.PublicJWK()}}
}

// add adds a proof for a request with the given method and URL to its header. token is the access token that the request carries; "" if
// it carries none.
func (p *prover) add(header http.Header, method, target, token string) error {
	u, err := url.Parse(target)
	if err != nil {
		return fmt.Errorf("onbehalf: writing a proof: %w", err)
	}
	p.mu.Lock()
	nonce := p.nonces[origin(u)]
	p.mu.Unlock()
	u.RawQuery, u.Fragment, u.RawFragment, u.ForceQuery = "", "", "", false // section 4.2: htu
	if method == "" {
		method = http.MethodGet
	}
	claims := map[string]any{"htm": method, "htu": u.String(), "iat": p.now().Unix(), "jti": rand.Text()}
	if nonce != "" {
		claims["nonce"] = nonce
	}
	if token != "" {
		sum := sha256.Sum256([]byte(token))
		claims["ath"] = base64.RawURLEncoding.EncodeToString(sum[:])
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		return fmt.Errorf("onbehalf: writing a proof: %w", err)
	}
	proof, err := p.signer.Sign(p.header, payload)
	if err != nil {
		return fmt.Errorf("onbehalf: signing a proof: %w", err)
	}
	header["Dpop"] = []string{proof}
	return nil
}

// maxNonce is the maximum length of a nonce that is sent back, in bytes.
const maxNonce = 1 << 10

// renewed notes the nonce in a response, and reports whether it has one.
func (p *prover) renewed(target string, header http.Header) bool {
	nonce := header.Get("DPoP-Nonce")
	u, err := url.Parse(target)
	if err != nil || nonce == "" || len(nonce) > maxNonce {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.nonces[origin(u)] = nonce
	return true
}
